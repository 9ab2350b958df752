"""The activity: filtered, opened, and read on a phone and without a script."""

from __future__ import annotations

import re
import secrets

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from app import Role, Setting, Topic, User
from database import db

from .conftest import Visit
from .looks import faults_of
from .served import Site

WITH_AND_WITHOUT = pytest.mark.parametrize("scripts", [True, False], ids=["script", "no script"])


@pytest.fixture
def admin(site: Site) -> str:
    """Somebody who looks after the site, and has just changed something."""
    with site.app.app_context():
        name = db.session.scalars(sa.select(User.username).where(User.role == Role.ADMIN).order_by(User.id)).first()
        assert name is not None
        Setting.change(site.user(name), welcome=f"Good morning {secrets.token_hex(4)}")
        db.session.rollback()
    return name


def entries(page: Page, text: str):
    return page.locator(".event").filter(has_text=text)


@WITH_AND_WITHOUT
def test_an_admin_finds_who_changed_what(site: Site, visit: Visit, admin: str, scripts: bool) -> None:
    page = visit(site, admin, java_script_enabled=scripts)
    page.goto("/admin")
    page.get_by_role("navigation", name="Administration").get_by_role("link", name="Activity").click()
    expect(page.get_by_role("heading", name="Activity", exact=True)).to_be_visible()
    page.get_by_label("What", exact=True).select_option("Settings")
    page.get_by_role("button", name="Filter").click()
    expect(page).to_have_url(re.compile("kind=settings"))
    expect(page.get_by_label("What", exact=True)).to_have_value("settings")
    expect(entries(page, "published")).to_have_count(0)
    changed = entries(page, "changed the settings").first
    changed.locator("summary").click()
    expect(changed.locator(".before-after")).to_contain_text("Good morning")
    changed.get_by_role("link", name=re.compile("Everything by")).click()
    expect(page).to_have_url(re.compile("person="))
    page.get_by_label("Search", exact=True).last.fill("nothing is called like this")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("No results.")).to_be_visible()
    page.get_by_role("link", name="Clear filters").first.click()
    expect(page).to_have_url(re.compile(r"/admin/activity$"))


def test_what_is_filtered_is_what_is_downloaded(site: Site, visit: Visit, admin: str) -> None:
    page = visit(site, admin)
    page.goto("/admin/activity?kind=settings")
    with page.expect_download() as begun:
        page.get_by_role("link", name="Download as CSV").click()
    text = begun.value.path().read_text(encoding="utf-8-sig")
    assert "changed the settings" in text
    assert "published" not in text


def test_a_private_topic_of_others_is_told_of_without_its_titles(site: Site, visit: Visit, admin: str) -> None:
    with site.app.app_context():
        editor = db.session.scalars(sa.select(User).where(User.role == Role.EDITOR)).first()
        topic = Topic.create(editor, form_id=secrets.token_hex(16), name=f"Wages {secrets.token_hex(4)}", private=True)
        form = {"title": f"Who earns what {secrets.token_hex(4)}", "body": "Much.", "topic": str(topic.id)}
        db.session.rollback()
    theirs = visit(site, editor.username)
    theirs.goto("/posts/new")
    theirs.get_by_label("Title").fill(form["title"])
    theirs.get_by_label("Text", exact=True).fill("Much.")
    theirs.get_by_label("Topic").select_option(form["topic"])
    theirs.get_by_role("button", name="Publish").click()
    expect(theirs.get_by_role("heading", name=form["title"])).to_be_visible()
    page = visit(site, admin)
    page.goto("/admin/activity?kind=post")
    expect(entries(page, "published something in a private topic").first).to_be_visible()
    expect(page.get_by_text(form["title"])).to_have_count(0)


def test_the_activity_has_no_faults(site: Site, visit: Visit, admin: str) -> None:
    page = visit(site, admin)
    page.goto("/admin/activity")
    entries(page, "changed the settings").first.locator("summary").click()
    assert faults_of(page) == []
