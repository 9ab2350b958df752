"""What must be read: asked of some by an editor, owed at the top of Home, said to be read, and seen in the report."""

from __future__ import annotations

import secrets
from datetime import timedelta

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from app import Acknowledgement, Post, PostData, Topic, User
from database import db, utcnow

from .conftest import Visit
from .looks import faults_of
from .served import Site

WITH_AND_WITHOUT = pytest.mark.parametrize("scripts", [True, False], ids=["script", "no script"])
READS, READS_LATER = "soren", "yuki"


@pytest.fixture
def title() -> str:
    return f"Fire drill {secrets.token_hex(4)}"


@pytest.fixture
def address(site: Site, title: str) -> str:
    """News that nobody is asked to read yet."""
    with site.app.app_context():
        editor = site.user("hattie")
        topic = db.session.scalar(sa.select(Topic.id).where(Topic.slug == "shops"))
        data = PostData("news", topic or 0, title, "Leave by gate 2.\n\n" * 40)
        return f"/posts/{Post.save(editor, data, how='publish', form_id=secrets.token_hex(16)).id}"


def name_of(site: Site, username: str) -> str:
    with site.app.app_context():
        return site.user(username).name


def owed(page: Page, title: str):
    page.goto("/")
    return page.get_by_role("region", name="Please read").get_by_role("listitem").filter(has_text=title)


def line(page: Page, name: str):
    """The row of the report that is about somebody."""
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name, exact=True))


@WITH_AND_WITHOUT
def test_from_asking_chosen_people_to_a_report_of_who_has_read_it(
    site: Site, visit: Visit, title: str, address: str, scripts: bool
) -> None:
    first, second = name_of(site, READS), name_of(site, READS_LATER)
    editor = visit(site, "hattie", java_script_enabled=scripts)
    editor.goto(address)
    editor.get_by_role("link", name="Must-read").click()
    editor.get_by_label("Only those chosen below").check()
    for name in (first, second):
        editor.get_by_role("checkbox", name=name, exact=True).check()
    due = (utcnow() + timedelta(days=7)).date()
    editor.get_by_label("Read by").fill(due.isoformat())
    editor.get_by_role("button", name="Ask them to read it").click()

    reader = visit(site, READS, java_script_enabled=scripts)
    waiting = owed(reader, title)
    expect(waiting).to_have_count(1)
    expect(waiting).to_contain_text(f"By {due.day} {due:%B}")
    waiting.get_by_role("link", name=title).click()
    expect(reader).to_have_url(f"{site.url}{address}")
    assert not said_by(site, address), "opening it says nothing"
    if scripts:
        assert faults_of(reader, "a post that is owed") == []
    reader.get_by_role("button", name="I have read this").click()
    expect(reader.get_by_text("Thanks, your confirmation is recorded.")).to_be_visible()
    expect(reader.get_by_text("You confirmed this").last).to_be_visible()
    expect(reader.get_by_role("button", name="I have read this")).to_have_count(0)
    expect(owed(reader, title)).to_have_count(0)
    assert said_by(site, address) == {READS}

    bystander = visit(site, "wojtek", java_script_enabled=scripts)
    expect(owed(bystander, title)).to_have_count(0)
    bystander.goto(address)
    expect(bystander.get_by_role("button", name="I have read this")).to_have_count(0)

    editor.goto(address)
    editor.get_by_role("link", name="Who has read it").click()
    expect(editor.get_by_text("1 of 2 people has read it.")).to_be_visible()
    expect(editor.get_by_role("progressbar")).to_have_attribute("value", "1")
    expect(line(editor, first)).to_contain_text("Has read it")
    expect(line(editor, second)).to_contain_text("Not yet")
    expect(editor.get_by_role("rowheader")).to_have_count(2)
    if scripts:
        assert faults_of(editor, "the report") == []


def said_by(site: Site, address: str) -> set[str]:
    post_id = int(address.rpartition("/")[2])
    given = sa.select(User.username).join(Acknowledgement, Acknowledgement.user_id == User.id)
    with site.app.app_context():
        return set(db.session.scalars(given.where(Acknowledgement.post_id == post_id)))


def test_home_with_what_is_owed_looks_right_and_keys_are_enough(
    site: Site, visit: Visit, title: str, address: str
) -> None:
    with site.app.app_context():
        Acknowledgement.require(
            site.user("hattie"), int(address.rpartition("/")[2]), roles=[], people=[site.user(READS).id]
        )
    page = visit(site, READS)
    expect(owed(page, title)).to_have_count(1)
    assert faults_of(page, "Home with something owed") == []
    owed(page, title).get_by_role("link", name=title).focus()
    page.keyboard.press("Enter")
    button = page.get_by_role("button", name="I have read this")
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_count(0)
    assert said_by(site, address) == {READS}
    page.goto(f"{address}/must-read")
    expect(page.get_by_role("heading", name="No access")).to_be_visible()
