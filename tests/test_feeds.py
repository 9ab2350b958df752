"""Feeds: posts for a feed reader and dates for a calendar, each only what the person of the token may see now."""

from __future__ import annotations

import html
import re
import secrets
from datetime import date, timedelta
from xml.etree import ElementTree

import icalendar
import pytest
from conftest import add_person, add_post, edit_post
from world import set_columns

import app as corkboard
from app import ApiToken, Post, User, utcnow
from database import db

ATOM = "{http://www.w3.org/2005/Atom}"


@pytest.fixture
def subscribe(app):
    """Make a token: `subscribe(people.member)` is what stands in the addresses of that person's feeds."""

    def make(user: User) -> str:
        form_id = secrets.token_hex(16)
        return ApiToken.create(user, form_id=form_id, name="Feed reader", scope="read", expires_at=None)

    return make


def read_atom(app, token: str, more: str = "") -> ElementTree.Element:
    answer = app.test_client().get(f"/feed.atom?token={token}{more}")
    assert (answer.status_code, answer.content_type) == (200, "application/atom+xml; charset=utf-8")
    return ElementTree.fromstring(answer.data)


def titles(feed: ElementTree.Element) -> list[str]:
    return [entry.findtext(f"{ATOM}title") or "" for entry in feed.iter(f"{ATOM}entry")]


def read_calendar(app, token: str) -> dict[str, icalendar.Event]:
    """The events of somebody's calendar, by their summaries."""
    answer = app.test_client().get(f"/feed.ics?token={token}")
    assert (answer.status_code, answer.content_type) == (200, "text/calendar; charset=utf-8")
    assert all(len(line) <= 75 for line in answer.data.split(b"\r\n"))
    calendar = icalendar.Calendar.from_ical(answer.data)
    assert not calendar.errors
    return {str(event["SUMMARY"]): event for event in calendar.walk("VEVENT")}


# -- Posts -------------------------------------------------------------------------------------------------------------


def test_a_feed_has_the_newest_posts_with_their_text_author_and_topic(app, people, topics, subscribe):
    add_post(people.member, topics.open, "The first")
    post = add_post(people.editor, topics.open, "The second", body="It is **back** & <well>.")
    feed = read_atom(app, subscribe(people.reader))
    assert titles(feed) == ["The second", "The first"]
    assert feed.findtext(f"{ATOM}title") == "Corkboard"
    entry = feed.find(f"{ATOM}entry")
    assert entry.findtext(f"{ATOM}id") == f"http://localhost/posts/{post.id}"
    assert entry.find(f"{ATOM}link").get("href") == f"http://localhost/posts/{post.id}"
    assert entry.findtext(f"{ATOM}author/{ATOM}name") == "Editor"
    assert entry.find(f"{ATOM}category").attrib == {"term": "everyone", "label": "Everyone"}
    content = entry.find(f"{ATOM}content")
    assert (content.get("type"), "<strong>back</strong> &amp; &lt;well&gt;" in content.text) == ("html", True)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry.findtext(f"{ATOM}updated"))
    assert feed.findtext(f"{ATOM}updated") == entry.findtext(f"{ATOM}updated")


def test_a_feed_of_one_topic_has_the_posts_of_that_topic(app, people, topics, subscribe):
    add_post(people.member, topics.open, "Open")
    add_post(people.member, topics.private, "Private")
    token = subscribe(people.member)
    assert titles(read_atom(app, token)) == ["Private", "Open"]
    feed = read_atom(app, token, f"&topic={topics.private.slug}")
    assert titles(feed) == ["Private"]
    assert feed.findtext(f"{ATOM}title") == "Corkboard: Management"


def test_a_feed_has_only_what_its_person_may_see_now(app, people, topics, subscribe):
    add_post(people.member, topics.private, "Private")
    add_post(people.member, topics.open, "A draft", how="draft")
    add_post(people.member, topics.open, "Later", scheduled_for=utcnow() + timedelta(days=1))
    gone = add_post(people.member, topics.open, "Gone")
    old = add_post(people.member, topics.open, "Expired")
    set_columns(Post, old.id, expires_at=utcnow() - timedelta(days=1))
    add_post(people.editor, topics.open, "A page", kind="page")
    Post.delete(people.member, gone.id)
    inside, outside = subscribe(people.reader), subscribe(people.stranger)
    assert titles(read_atom(app, inside)) == ["Private"]
    assert titles(read_atom(app, outside)) == []
    assert app.test_client().get(f"/feed.atom?token={outside}&topic={topics.private.slug}").status_code == 404
    assert app.test_client().get(f"/feed.atom?token={outside}&topic=nothing").status_code == 404
    corkboard.Topic.remove_member(people.editor, topics.private.id, people.reader.id)
    assert titles(read_atom(app, inside)) == []


def test_an_edited_post_is_updated_and_keeps_its_id(app, people, topics, subscribe):
    post, token = add_post(people.member, topics.open, "As it was"), subscribe(people.reader)
    yesterday = utcnow() - timedelta(days=1)
    set_columns(Post, post.id, published_at=yesterday, updated_at=yesterday)
    before = read_atom(app, token).find(f"{ATOM}entry")
    edit_post(people.member, post, title="As it is")
    after = read_atom(app, token).find(f"{ATOM}entry")
    assert before.findtext(f"{ATOM}id") == after.findtext(f"{ATOM}id")
    assert before.findtext(f"{ATOM}published") == after.findtext(f"{ATOM}published")
    assert before.findtext(f"{ATOM}updated") < after.findtext(f"{ATOM}updated")
    assert after.findtext(f"{ATOM}title") == "As it is"


def test_characters_that_xml_does_not_know_are_left_out(app, people, topics, subscribe):
    post = add_post(people.member, topics.open, "Title")
    set_columns(Post, post.id, title="A\x0bB\ufffeC \U0001f41d", html="<p>\x1b[31m\ufffftext</p>")
    entry = read_atom(app, subscribe(people.reader)).find(f"{ATOM}entry")
    assert entry.findtext(f"{ATOM}title") == "ABC \U0001f41d"
    assert entry.findtext(f"{ATOM}content") == "<p>[31mtext</p>"


# -- Dates -------------------------------------------------------------------------------------------------------------


def test_a_calendar_has_who_is_away_and_who_covers(app, people, subscribe):
    today = corkboard.site_day(utcnow())
    set_columns(
        User, people.editor.id,
        away_from=today + timedelta(days=3), away_until=today + timedelta(days=5), stand_in_id=people.member.id,
    )  # fmt: skip
    set_columns(User, people.admin.id, away_until=today + timedelta(days=1))
    set_columns(User, people.member.id, away_until=today - timedelta(days=60))
    away = read_calendar(app, subscribe(people.reader))
    assert sorted(away) == ["Admin is away", "Editor is away"]
    event = away["Editor is away"]
    assert event.decoded("DTSTART") == today + timedelta(days=3)
    assert event.decoded("DURATION") == timedelta(days=3)
    assert str(event["DESCRIPTION"]) == "Cover: Member"
    assert str(event["URL"]) == "http://localhost/people/editor"
    assert away["Admin is away"].decoded("DTSTART") == today
    User.deactivate(people.admin, people.editor.id)
    assert "Editor is away" not in read_calendar(app, subscribe(people.reader))


def test_a_calendar_has_the_reviews_of_pages_that_its_person_may_see(app, people, topics, subscribe):
    day = date(2030, 5, 17)
    for topic, name in ((topics.open, "Fire drill"), (topics.private, "Salaries")):
        page = add_post(people.editor, topic, name, kind="page", review_every=6)
        set_columns(Post, page.id, review_by=day)
    add_post(people.editor, topics.open, "Without reviews", kind="page")
    assert sorted(read_calendar(app, subscribe(people.reader))) == ["Review due: Fire drill", "Review due: Salaries"]
    seen = read_calendar(app, subscribe(people.stranger))
    assert [*seen] == ["Review due: Fire drill"]
    assert seen["Review due: Fire drill"].decoded("DTSTART") == day
    assert re.fullmatch(r"http://localhost/posts/\d+", str(seen["Review due: Fire drill"]["UID"]))


@pytest.mark.parametrize(
    "name", ["Ana, Bo; Co \\ Do", "Renée " + "é" * 60, "蜂" * 40, "x" * 80, "A\x1bB\x7fC", "END:VEVENT"]
)
def test_names_of_any_kind_and_length_come_through(app, people, subscribe, name):
    set_columns(User, people.editor.id, name=name, away_until=date.max)
    (summary,) = read_calendar(app, subscribe(people.reader))
    assert summary == re.sub("[\x1b\x7f]", "", name) + " is away"


# -- Both --------------------------------------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("path", ["/feed.atom", "/feed.ics"])


@BOTH
def test_without_a_living_token_there_is_nothing(app, people, sign_in, subscribe, path):
    assert sign_in(people.admin).get(path).status_code == 404, "the token counts, not who is signed in"
    for token in ("", "x", "ck_" + "x" * 43, "\x00", "é" * 500):
        assert app.test_client().get(path, query_string={"token": token}).status_code == 404, token
    token = subscribe(people.stranger)
    assert app.test_client().get(f"{path}?token={token}").status_code == 200
    User.deactivate(people.admin, people.stranger.id)
    assert app.test_client().get(f"{path}?token={token}").status_code == 404


@BOTH
def test_a_reader_that_has_it_already_gets_304_until_something_changes(app, people, topics, subscribe, path):
    token = subscribe(people.reader)
    add_post(people.member, topics.open)
    first = app.test_client().get(f"{path}?token={token}")
    assert first.headers["Cache-Control"] == "private, no-cache"
    again = app.test_client().get(f"{path}?token={token}", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    add_post(people.member, topics.open, "Another")
    add_person("nia", away_until=corkboard.site_day(utcnow()))
    third = app.test_client().get(f"{path}?token={token}", headers={"If-None-Match": first.headers["ETag"]})
    assert third.status_code == 200


@BOTH
def test_links_lead_to_the_address_of_the_site(app, people, topics, subscribe, monkeypatch, path):
    add_post(people.member, topics.open)
    set_columns(User, people.editor.id, away_until=date(2099, 1, 1))
    token = subscribe(people.reader)
    assert (
        "http://board.localhost:8000/p"
        in app.test_client().get(f"{path}?token={token}", base_url="http://board.localhost:8000").text
    )
    monkeypatch.setitem(app.config, "SITE_URL", "https://intranet.example.com")
    said = app.test_client().get(f"{path}?token={token}", base_url="http://board.localhost:8000").text
    assert "https://intranet.example.com/p" in said
    assert "board.localhost" not in said


def test_the_page_of_tokens_shows_the_addresses_and_once_with_the_new_token(app, people, topics, sign_in):
    add_post(people.member, topics.open, "Read me")
    browser = sign_in(people.reader)
    assert "http://localhost/feed.ics?token=TOKEN" in browser.get("/account/tokens").text
    data = {"name": "Reader", "scope": "read", "days": "90", "form_id": secrets.token_hex(16)}
    page = browser.submit("/account/tokens", data).text
    atom, topic, ics = [html.unescape(found) for found in re.findall(r"http://localhost(/feed\.[^<]+ck_[^<]+)<", page)]
    for address in (atom, topic):
        assert "Read me" in app.test_client().get(address).text
    assert app.test_client().get(ics).status_code == 200


@BOTH
def test_a_token_in_an_address_is_never_in_the_log(app, people, subscribe, monkeypatch, caplog, path):
    caplog.set_level("DEBUG")
    monkeypatch.setattr(corkboard, "SLOW_SECONDS", 0)
    token = subscribe(people.reader)
    for address in (f"{path}?token={token}", f"{path}?token={token}&topic=nothing", f"/no{path}?token={token}"):
        app.test_client().get(address)
    assert f"GET {path} 200" in caplog.text
    assert f"user={people.reader.id}" in caplog.text
    assert token not in caplog.text


@BOTH
def test_a_feed_takes_few_statements_and_says_that_its_token_was_used(app, people, topics, subscribe, path):
    from test_database import counted

    token = subscribe(people.reader)
    for _ in range(5):
        add_post(people.member, topics.open)
    app.test_client().get(f"{path}?token={token}")
    db.session.rollback()
    assert ApiToken.of(people.reader)[0].last_used_at is not None
    with counted() as statements:
        app.test_client().get(f"{path}?token={token}")
    assert len(statements) <= 5, [statement for statement, _ in statements]
