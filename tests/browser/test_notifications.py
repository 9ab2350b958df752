"""Two people at once: one comments, and the other's bell counts it without a reload; what is opened is read."""

from __future__ import annotations

import re
import secrets

import pytest
from playwright.sync_api import Page, expect

from app import Follow, Notification, Post, PostData, Topic
from database import db

from .conftest import Visit
from .looks import faults_of
from .served import Site

HURRY = (
    "const wait = window.setTimeout;window.setTimeout = (act, ms, ...more) => wait(act, ms > 9000 ? 150 : ms, ...more);"
)


def write(site: Site, username: str, title: str) -> str:
    """A post of somebody's own, who has read all that they were told so far. Returns its address."""
    with site.app.app_context():
        Notification.read_all(site.user(username))
        topic = db.session.query(Topic).filter_by(slug="shops").one()
        data = PostData("news", topic.id, title, "Who can help?")
        saved = Post.save(site.user(username), data, how="publish", form_id=secrets.token_hex(16))
        address = f"/posts/{saved.id}"
        db.session.rollback()
        return address


def comment(page: Page, address: str, words: str) -> None:
    page.goto(address)
    page.get_by_label("Your comment").fill(words)
    page.get_by_role("button", name="Comment", exact=True).click()
    expect(page.locator("article.comment").filter(has_text=words)).to_be_visible()


def bell(page: Page, count: str) -> None:
    expect(page.locator("#bell")).to_have_attribute("aria-label", f"Notifications, {count} unread", timeout=20_000)


def test_the_bell_counts_up_without_a_reload_and_opening_reads(site: Site, visit: Visit) -> None:
    address = write(site, "soren", "A spare oven door")
    soren, yuki = visit(site, "soren"), visit(site, "yuki")
    soren.add_init_script(HURRY)
    soren.goto("/people")
    bell(soren, "none")
    before = soren.title()
    soren.evaluate("window.stayed = true")
    comment(yuki, address, "Take ours, it is in the cellar.")
    bell(soren, "1")
    assert soren.evaluate("window.stayed") is True
    assert soren.title() == f"(1) {before}"
    expect(soren.locator("#announce")).to_have_text("1 unread notification")
    soren.locator("#bell").click()
    line = soren.locator(".told .is-unread")
    expect(line).to_contain_text("commented on A spare oven door")
    assert faults_of(soren, "/notifications") == []
    line.get_by_role("link").click()
    expect(soren).to_have_url(re.compile(address + "#comment-"))
    bell(soren, "none")
    soren.goto("/notifications")
    expect(soren.locator(".told .is-unread")).to_have_count(0)
    expect(soren.get_by_text("commented on A spare oven door")).to_be_visible()


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_without_the_script_a_reload_tells_the_same(site: Site, visit: Visit, size: str) -> None:
    address = write(site, "callum", f"A wet cellar, {size}")
    callum = visit(site, "callum", size, java_script_enabled=False)
    yuki = visit(site, "yuki")
    callum.goto("/people")
    bell(callum, "none")
    for words in ("Again?", "I bring a bucket."):
        comment(yuki, address, words)
    for _ in range(20):
        callum.reload()
        if "none" not in (callum.locator("#bell").get_attribute("aria-label") or ""):
            break
        callum.wait_for_timeout(200)
    bell(callum, "1")
    callum.locator("#bell").click()
    callum.get_by_role("button", name="Mark all as read").click()
    expect(callum.get_by_text("All notifications marked as read.")).to_be_visible()
    bell(callum, "none")


def test_following_muting_and_choosing(site: Site, visit: Visit) -> None:
    dev = visit(site, "dev")
    dev.goto("/topics/shops")
    for button, then in (("Follow", "Unfollow"), ("Mute", "Unmute"), ("Unmute", "Follow")):
        dev.get_by_role("button", name=button, exact=True).click()
        expect(dev.get_by_role("button", name=then, exact=True)).to_be_visible()
    assert site.count(db.select(Follow).where(Follow.topic_id.is_not(None), Follow.state != "none")) == 0
    dev.goto("/account/notifications")
    dev.get_by_label("A comment on a post you follow").select_option("Off")
    dev.get_by_role("button", name="Save").click()
    expect(dev.get_by_label("A comment on a post you follow")).to_have_value("none")


@pytest.mark.parametrize("scripts", [True, False], ids=["script", "no script"])
def test_who_comments_sees_at_once_that_they_follow(site: Site, visit: Visit, scripts: bool) -> None:
    page = visit(site, "yuki", java_script_enabled=scripts)
    address = write(site, "lucia", f"A broken scale, {scripts}")
    page.goto(address)
    expect(page.get_by_role("button", name="Follow", exact=True)).to_be_visible()
    comment(page, address, "Ours is spare.")
    expect(page.get_by_role("button", name="Unfollow", exact=True)).to_be_visible(timeout=100)
    expect(page.get_by_role("button", name="Follow", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Unfollow", exact=True).click()
    expect(page.get_by_role("button", name="Follow", exact=True)).to_be_visible()


def test_a_page_that_was_signed_out_stops_asking(site: Site, visit: Visit) -> None:
    farida = visit(site, "farida")
    farida.add_init_script(HURRY)
    farida.goto("/people")
    with farida.expect_response(re.compile("/notifications/poll")):
        pass
    site.end_sign_ins("farida")
    asked: list[str] = []
    farida.wait_for_timeout(600)
    farida.on("request", lambda request: asked.append(request.url))
    farida.wait_for_timeout(800)
    assert asked == []
