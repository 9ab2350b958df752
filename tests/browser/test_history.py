"""Two who write at once, what a page said before, and pages that are to be looked at again."""

from __future__ import annotations

import re
import secrets
from datetime import date

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from app import Activity, Comment, Post, User
from database import db, utcnow

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
        topic = db.session.scalar(sa.select(Post.topic_id).where(Post.kind == "page").limit(1))
        made = {"title": f"Opening {secrets.token_hex(4)}", "body": TEXT, "form_id": secrets.token_hex(16)}
        owner = site.user("hattie").id
        return f"/posts/{Post.create(editor, kind='page', topic_id=topic, owner_id=owner, review_every=6, **made)}"


def change(page: Page, before: str, after: str) -> None:
    field = page.get_by_label("Text", exact=True)
    field.fill(field.input_value().replace(before, after))


def save(page: Page, name: str = "Save quietly") -> None:
    page.get_by_role("button", name=name, exact=True).click()


def saves_second(site: Site, visit: Visit, address: str, scripts: bool) -> Page:
    """What somebody is shown who bakes bread while somebody else opens at ten."""
    mine = visit(site, "hattie", java_script_enabled=scripts)
    theirs = visit(site, "wojtek", java_script_enabled=scripts)
    for page in (mine, theirs):
        page.goto(f"{address}/edit")
    change(theirs, "nine", "ten")
    save(theirs)
    expect(theirs.get_by_text("Saved.")).to_be_visible()
    change(mine, "cake", "bread")
    save(mine)
    return mine


@WITH_AND_WITHOUT
def test_two_who_write_at_once_lose_nothing(site: Site, visit: Visit, address: str, scripts: bool) -> None:
    mine = saves_second(site, visit, address, scripts)
    expect(mine.get_by_role("heading", name="Somebody else saved first")).to_be_visible()
    expect(mine.get_by_label("Their text")).to_contain_text("We open at ten.")
    expect(mine.get_by_label("Text", exact=True)).to_have_value(re.compile("nine.*Bring bread", re.DOTALL))
    expect(mine.locator("form section.changes ins")).to_have_text("added: bread")
    changed = mine.locator("div > section.changes")
    expect(changed.nth(0).locator("ins")).to_have_text("added: ten")
    expect(changed.nth(1).locator("del")).to_have_text("removed: cake")
    expect(changed.nth(2).locator("ins")).to_have_text(["added: nine", "added: bread"])
    expect(changed.nth(0).locator(".fold")).to_be_visible()
    if scripts:
        assert faults_of(mine, "both texts and what each changed") == []
    change(mine, "nine", "ten")
    save(mine, "Save mine")
    expect(mine.locator("article.sheet .prose")).to_contain_text("We open at ten.")
    expect(mine.locator("article.sheet .prose")).to_contain_text("Bring bread.")
    mine.get_by_role("link", name="edited").click()
    expect(mine.get_by_role("row")).to_have_count(4)


@WITH_AND_WITHOUT
def test_two_changes_in_different_places_are_saved_together_by_one_button(
    site: Site, visit: Visit, address: str, scripts: bool
) -> None:
    mine = saves_second(site, visit, address, scripts)
    save(mine, "Save both")
    expect(mine.get_by_text("Saved.")).to_be_visible()
    expect(mine.locator("article.sheet .prose")).to_contain_text("We open at ten.")
    expect(mine.locator("article.sheet .prose")).to_contain_text("Bring bread.")
    mine.goto(f"{address}/edit")
    expect(mine.locator(".draft-notice")).to_have_count(0)


@WITH_AND_WITHOUT
def test_what_a_page_said_before_is_compared_and_brought_back(
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
    page.get_by_role("button", name="Compare the two").click()
    expect(page.locator(".difference ins")).to_have_text(["added: ten", "added: bread"])
    faults += faults_of(page, "what changed") if scripts else []
    page.get_by_role("link", name="version 1").click()
    faults += faults_of(page, "a version") if scripts else []
    save(page, "Bring this version back")
    expect(page.get_by_text("Version 1 is back, as version 5.")).to_be_visible()
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
        seen = {
            "at": utcnow(),
            "action": "test",
            "object_type": "post",
            "object_id": number,
            "detail": "",
            "address": "",
        }
        connection.execute(sa.insert(Activity).values(**seen))
        title = connection.scalar(sa.select(Post.title).where(Post.id == number))
    page = visit(site, "hattie")
    page.goto("/handbook")
    expect(page.get_by_role("listitem").filter(has_text=str(title))).to_contain_text("Review overdue")
    faults = faults_of(page, "the handbook with an overdue page")
    page.goto("/")
    faults += faults_of(page, "Home of an owner")
    page.get_by_role("link", name=re.compile("of yours (is|are) due for review")).click()
    faults += faults_of(page, "what waits")
    page.get_by_role("link", name=str(title)).click()
    expect(page.get_by_text("Review overdue.")).to_be_visible()
    faults += faults_of(page, "an overdue page")
    save(page, "Still accurate")
    expect(page.get_by_text("Thank you. Look at it again by")).to_be_visible()
    expect(page.get_by_text("Review overdue.")).to_have_count(0)
    page.goto("/handbook/review")
    expect(page.get_by_role("link", name=str(title))).to_have_count(0)
    assert faults == []


def test_an_edited_comment_leads_to_what_it_said_before(site: Site, visit: Visit) -> None:
    with site.app.app_context():
        writer = site.user("yuki")
        post_id = db.session.scalar(sa.select(sa.func.min(Post.id)).where(Post.kind == "news"))
        comment = Comment.create(writer, post_id, body="Said badly", form_id=secrets.token_hex(16))
        Comment.edit(db.session.get(User, writer.id), comment, body="Said well")  # type: ignore[arg-type]
    page = visit(site, "hattie")
    page.goto(f"/posts/{post_id}")
    page.locator(f"#comment-{comment}").get_by_role("link", name="edited").click()
    faults = faults_of(page, "a comment's history")
    page.get_by_role("link", name="What changed").click()
    expect(page.locator(".difference del")).to_have_text("removed: badly")
    assert faults + faults_of(page, "what changed in a comment") == []
