"""Administration as administrators use it: is everything OK, the numbers behind a drawing, a job that runs at once."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

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
