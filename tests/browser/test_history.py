"""Two who write at once, what a page said before, and pages that are to be looked at again."""

from __future__ import annotations

import re
import secrets
from datetime import date

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from app import Post, PostData
from database import db

from .conftest import Visit
from .looks import faults_of
from .served import Site

WITH_AND_WITHOUT = pytest.mark.parametrize("scripts", [True, False], ids=["script", "no script"])
TEXT = "We open at nine.\n\nBring cake.\n\n" + "\n".join(f"Line {number}" for number in range(30))


@pytest.fixture
def address(site: Site) -> str:
    """A page of the handbook that no other test changes."""
    with site.app.app_context():
        editor = site.user("wojtek")
        topic = db.session.scalar(sa.select(Post.topic_id).where(Post.kind == "page").limit(1)) or 0
        data = PostData("page", topic, f"Opening {secrets.token_hex(4)}", TEXT, site.user("hattie").id, 6)
        return f"/posts/{Post.save(editor, data, how='publish', form_id=secrets.token_hex(16)).id}"


def change(page: Page, before: str, after: str) -> None:
    field = page.get_by_label("Text", exact=True)
    field.fill(field.input_value().replace(before, after))


def save(page: Page, name: str = "Save") -> None:
    page.get_by_role("button", name=name, exact=True).click()


@WITH_AND_WITHOUT
def test_two_who_write_at_once_lose_nothing(site: Site, visit: Visit, address: str, scripts: bool) -> None:
    mine = visit(site, "hattie", java_script_enabled=scripts)
    theirs = visit(site, "wojtek", java_script_enabled=scripts)
    for page in (mine, theirs):
        page.goto(f"{address}/edit")
    change(theirs, "nine", "ten")
    save(theirs)
    expect(theirs.get_by_text("Saved.")).to_be_visible()
    change(mine, "cake", "bread")
    save(mine)
    expect(mine.get_by_role("heading", name="Someone else saved first")).to_be_visible()
    expect(mine.get_by_label("The text that was saved")).to_contain_text("We open at ten.")
    expect(mine.get_by_label("Text", exact=True)).to_have_value(re.compile("nine.*Bring bread", re.DOTALL))
    changed = mine.locator("section.changes")
    expect(changed.locator("ins")).to_have_text(["added: nine", "added: bread"])
    expect(changed.locator("del")).to_have_text(["removed: ten", "removed: cake"])
    expect(changed.locator(".fold")).to_be_visible()
    if scripts:
        assert faults_of(mine, "both texts and how they differ") == []
    change(mine, "nine", "ten")
    save(mine)
    expect(mine.locator("article.sheet .prose")).to_contain_text("We open at ten.")
    expect(mine.locator("article.sheet .prose")).to_contain_text("Bring bread.")
    mine.get_by_role("link", name="edited").click()
    expect(mine.get_by_role("row")).to_have_count(4)
    mine.goto(f"{address}/edit")
    expect(mine.locator(".draft-notice")).to_have_count(0)


@WITH_AND_WITHOUT
def test_what_a_page_said_before_is_compared_and_restored(
    site: Site, visit: Visit, address: str, scripts: bool
) -> None:
    page = visit(site, "hattie", java_script_enabled=scripts)
    for before, after in (("nine", "ten"), ("cake", "bread"), ("ten", "eleven")):
        page.goto(f"{address}/edit")
        change(page, before, after)
        save(page)
        expect(page.get_by_text("Saved.")).to_be_visible()
    page.get_by_role("link", name="edited").click()
    faults = faults_of(page, "history") if scripts else []
    page.get_by_label("From version 1").check()
    page.get_by_label("To version 3").check()
    page.get_by_role("button", name="Compare versions").click()
    expect(page.locator(".difference ins")).to_have_text(["added: ten", "added: bread"])
    faults += faults_of(page, "what changed") if scripts else []
    page.get_by_role("link", name="version 1").click()
    faults += faults_of(page, "a version") if scripts else []
    save(page, "Restore this version")
    expect(page.get_by_text("Version 1 restored, as version 5.")).to_be_visible()
    expect(page.locator("article.sheet .prose")).to_contain_text("We open at nine.")
    save(page, "Undo")
    expect(page.locator("article.sheet .prose")).to_contain_text("We open at eleven.")
    assert faults == []


def test_an_overdue_page_is_told_to_its_owner_who_says_that_it_is_still_accurate(
    site: Site, visit: Visit, address: str
) -> None:
    with site.app.app_context(), db.engine.begin() as connection:
        number = int(address.rpartition("/")[2])
        connection.execute(sa.update(Post).where(Post.id == number).values(review_by=date(2020, 1, 1)))
        title = connection.scalar(sa.select(Post.title).where(Post.id == number))
    page = visit(site, "hattie")
    page.goto("/handbook")
    expect(page.get_by_role("listitem").filter(has_text=str(title))).to_contain_text("Review overdue")
    faults = faults_of(page, "the handbook with an overdue page")
    page.goto("/")
    faults += faults_of(page, "Home of an owner")
    page.get_by_role("link", name=re.compile("you own (is|are) due for review")).click()
    faults += faults_of(page, "what waits")
    page.get_by_role("link", name=str(title)).click()
    expect(page.get_by_text("Review overdue.")).to_be_visible()
    faults += faults_of(page, "an overdue page")
    save(page, "Still accurate")
    expect(page.get_by_text("Thanks. The next review is due by")).to_be_visible()
    expect(page.get_by_text("Review overdue.")).to_have_count(0)
    page.goto("/handbook/review")
    expect(page.get_by_role("link", name=str(title))).to_have_count(0)
    assert faults == []
