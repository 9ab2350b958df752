"""Administration as administrators use it: is everything OK, the numbers behind a drawing, a job that runs at once."""

from __future__ import annotations

import secrets

import pytest
import sqlalchemy as sa
from playwright.sync_api import expect

from app import Topic, TopicMember, User
from database import db

from .conftest import Visit
from .looks import faults_of
from .served import Site


@pytest.mark.parametrize(("size", "scripts"), [("wide", True), ("phone", True), ("phone", False)])
def test_an_administrator_sees_how_the_site_is_and_runs_a_job(
    site: Site, visit: Visit, size: str, scripts: bool
) -> None:
    page = visit(site, "hattie", size=size, java_script_enabled=scripts)
    page.goto("/admin")
    expect(page.get_by_role("heading", name="Is everything OK?")).to_be_visible()
    drawn = page.locator("figure.chart").first
    expect(drawn.locator("> svg")).to_be_visible()
    drawn.get_by_text("Show as table").click()
    expect(drawn.get_by_role("cell").first).to_be_visible()
    expect(drawn.locator("> svg")).to_be_hidden()
    if size == "phone":
        page.locator(".admin-fold summary").click()
    page.get_by_label("Administration").get_by_role("link", name="Jobs").click()
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    page.get_by_role("button", name="Run now (reviews)").click()
    expect(page.locator(".flash")).to_contain_text("reviews: ")


def test_a_button_copies_its_text_and_says_so(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie")
    page.goto("/admin")
    button = '<button type="button" data-copy="http://10.0.0.5:8000">Copy<span> the address</span></button>'
    page.locator("main").evaluate(f"main => main.insertAdjacentHTML('beforeend', '{button}')")
    page.get_by_role("button", name="Copy the address").click()
    expect(page.get_by_role("button", name="Copied the address")).to_be_focused()
    expect(page.locator("#announce")).to_have_text("Copied.")
    page.locator("#find").focus()
    page.keyboard.press("ControlOrMeta+v")
    expect(page.locator("#find")).to_have_value("http://10.0.0.5:8000")


def test_the_tables_below_the_drawings_and_the_folded_list_look_right(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie")
    page.goto("/admin")
    for summary in page.locator("main figure summary").all():
        summary.click()
    page.set_viewport_size({"width": 360, "height": 800})
    page.locator(".admin-fold summary").click()
    assert faults_of(page, "/admin, all of it open") == []


# -- Who sees a private topic ------------------------------------------------------------------------------------------


def members_of(site: Site, name: str) -> set[str]:
    with site.app.app_context():
        members = sa.select(User.username).join(TopicMember).join(Topic).where(Topic.name == name)
        return set(db.session.scalars(members))


def test_people_are_chosen_by_a_search_and_keys_and_each_is_a_chip_that_can_be_removed(
    site: Site, visit: Visit
) -> None:
    name, page = f"Wages {secrets.token_hex(4)}", visit(site, "hattie")
    page.goto("/admin/topics")
    search = page.get_by_role("searchbox", name="Search people")
    expect(search).to_be_hidden()  # an open topic has no members to choose
    page.get_by_label("Name").fill(name)
    page.get_by_label("Private").check()
    people, chips = page.get_by_role("group", name="Who else can see it"), page.get_by_role("list", name="Chosen")
    search.fill("INES")
    expect(people.get_by_role("checkbox")).to_have_count(1)
    expect(page.locator("#announce")).to_have_text("1 person found")
    search.press("Enter")
    expect(chips.get_by_role("button")).to_have_text("Inês Carvalho")
    expect(search).to_be_focused()
    expect(search).to_have_value("")
    search.press_sequentially("sør")
    search.press("Enter")
    page.get_by_label("Yuki Tanabe").check()
    expect(chips.get_by_role("button")).to_have_text(["Inês Carvalho", "Søren Dahl", "Yuki Tanabe"])
    search.fill("nobody of that name")
    search.press("Enter")
    expect(people.get_by_role("checkbox")).to_have_count(0)
    search.fill("")
    page.get_by_role("button", name="Remove Søren Dahl").press("Enter")
    expect(page.get_by_label("Søren Dahl", exact=True)).not_to_be_checked()
    expect(search).to_be_focused()
    assert faults_of(page, "people chosen", within="main") == []
    page.get_by_role("button", name="Create topic").click()
    expect(page.get_by_text(f'Topic "{name}" created.')).to_be_visible()
    assert members_of(site, name) == {"hattie", "ines", "yuki"}


def test_people_are_chosen_from_a_list_where_there_is_no_script(site: Site, visit: Visit) -> None:
    name, page = f"Wages {secrets.token_hex(4)}", visit(site, "hattie", java_script_enabled=False)
    page.goto("/admin/topics")
    page.get_by_label("Name").fill(name)
    expect(page.get_by_label("Yuki Tanabe")).to_be_hidden()
    page.get_by_label("Private").check()
    expect(page.get_by_role("searchbox", name="Search people")).to_be_hidden()
    page.get_by_label("Yuki Tanabe").check()
    page.get_by_role("button", name="Create topic").click()
    page.get_by_label("Nia Prosser").check()
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("Nia Prosser can see this topic now.")).to_be_visible()
    assert members_of(site, name) == {"hattie", "yuki", "nia"}
