"""Email in a browser: who chooses what comes when, who tries the server, and the link that stops an email."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect
from post_office import PostOffice
from serving import until

from app import Topic
from database import db

from .conftest import Visit
from .looks import OUTSIDE, faults_of
from .served import SIZES, Site

PASSWORD = "seven green bottles"


@pytest.fixture(scope="module")
def office() -> Iterator[PostOffice]:
    with PostOffice() as office:
        yield office


@pytest.fixture(scope="module")
def mailing_site(browser, office: PostOffice, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site of two people, which sends email."""
    site = Site(tmp_path_factory.mktemp("mailing"))
    given = {name: str(text) for name, text in office.settings().items()}
    site.environ |= given | {"MAIL_USE_TLS": "no", "SITE_URL": site.url}
    try:
        site.start()
        for name in ("ana", "ben"):
            site.flask("create-admin", name, "--email", f"{name}@example.com", "--password-stdin", stdin=PASSWORD)
        yield site
    finally:
        site.stop()


@pytest.mark.parametrize("scripts", [True, False], ids=["script", "no script"])
def test_somebody_chooses_what_comes_by_email_and_when(mailing_site: Site, visit: Visit, scripts: bool) -> None:
    page = visit(mailing_site, "ben", "wide" if scripts else "phone", java_script_enabled=scripts)
    page.goto("/account/notifications")
    expect(page.get_by_label("Someone mentions you")).to_have_value("mail")
    page.get_by_label("A comment on a post you follow").select_option("On the site and by email at once")
    page.get_by_label("A reaction to something you wrote").select_option("On the site and in a weekly email")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    expect(page.get_by_label("A comment on a post you follow")).to_have_value("mail")
    expect(page.get_by_label("A reaction to something you wrote")).to_have_value("weekly")
    if scripts:
        assert faults_of(page, "/account/notifications") == []


def test_an_administrator_tries_the_server(mailing_site: Site, visit: Visit, office: PostOffice) -> None:
    page = visit(mailing_site, "ana")
    page.goto("/admin")
    page.get_by_role("navigation", name="Administration").get_by_role("link", name="Email").click()
    page.get_by_role("button", name="Send me a test").click()
    expect(page.get_by_text("The mail server accepted a test email to ana@example.com.")).to_be_visible()
    assert office.subjects("ana") == ["A test from Corkboard"]
    office.unknown.add("ana@example.com")
    page.get_by_role("button", name="Send me a test").click()
    expect(page.get_by_role("alert")).to_contain_text("No such mailbox here")
    assert faults_of(page, "/admin/mail") == []
    office.unknown.clear()


def test_a_post_arrives_and_its_link_stops_the_next_one(mailing_site: Site, visit: Visit, office: PostOffice) -> None:
    with mailing_site.app.app_context():
        topic_id = db.session.scalar(db.select(Topic.id).limit(1))
        db.session.rollback()
    ana = visit(mailing_site, "ana")
    ana.goto(f"/posts/new?topic={topic_id}")
    ana.get_by_label("Title").fill("The oven is cold")
    ana.get_by_label("Text").fill("Ask @ben")
    ana.get_by_role("button", name="Publish").click()
    expect(ana.get_by_role("heading", name="The oven is cold")).to_be_visible()
    if not office.to("ben"):
        mailing_site.flask("jobs", "run", "mail")  # or it would be sent within half a minute
    until(lambda: office.to("ben"), "the email arrives")
    (message,) = office.to("ben")
    page = visit(mailing_site)
    page.set_content(message.get_body(("html",)).get_content())
    expect(page.get_by_role("heading", name="The oven is cold")).to_be_visible()
    page.set_viewport_size(SIZES["phone"])
    assert page.evaluate(OUTSIDE) == []
    page.goto(message["List-Unsubscribe"].strip("<>"))
    page.get_by_role("button", name="Stop these emails").click()
    expect(page.get_by_role("heading", name="Stopped")).to_be_visible()
    assert faults_of(page, "/account/unsubscribe") == []
    ben = visit(mailing_site, "ben")
    ben.goto("/account/notifications")
    expect(ben.get_by_label("Someone mentions you")).to_have_value("site")
    assert re.search("Ask @ben", message.get_body(("plain",)).get_content())
