"""Hostile input: whatever is typed into a form or an address, nothing breaks, nothing runs, and nothing is altered."""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import sqlalchemy as sa
from conftest import Browser
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snapshot import dump
from test_access import accepted
from test_role_matrix import address
from world import FILLINGS, World, row, set_settings, stand_up, value

import app as corkboard
from app import Comment, Post, ResetLink, Setting, Topic, User

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "\"><script>alert(1)</script>",
    "' autofocus onfocus=alert(1) x='",
    "</textarea></title><script>alert(1)</script>",
    "<a href=javascript:alert(1)>x</a>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt&colon;alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:alert(1) \"onmouseover=alert(1)\")",
    "<javascript:alert(1)>",
    "![x](javascript:alert(1))",
    "![x](http://evil.example/pixel.png)",
    "[x]: javascript:alert(1)\n\n[x]",
    "[x](http://a\" onmouseover=alert(1) x=\")",
    "```\"><script>alert(1)</script>\nx\n```",
    "| a |\n|:-:|\n| <script>alert(1)</script> |",
    "http://a.example/<script>alert(1)</script>",
    "{{ 7 * 7 }}{% for x in ().__class__ %}",
    "%s%n%x ${7*7} #{7*7}",
    "' OR 1=1 -- ",
    "\\'; DROP TABLE users; --",
    "%' ESCAPE '/' _%\\",
    "\x00\x01\x1b[31m\x7f\x85",
    "\r\nSet-Cookie: a=b\r\n\r\n<script>alert(1)</script>",
    "\u202e\u2066gnp.exe\u2069\u200b\u200f\ufeff",
    "e\u0301\u0323" + "\u0335" * 40,
    "\ufffe\uffff\U0010ffff\ue000",
    "👩‍👩‍👧‍👦🏳️‍🌈😀",
    "ﷺ" * 20,
    "İıſßΣς ǅ K Å",
    "１２３", "٣", "0x1", "-1", "1e9", "99999999999999999999", "9" * 5000, "NaN", "inf", "True", "null", "[]",
    "0001-01-01", "9999-12-31", "2026-02-30", "../../etc/passwd", "con", ".", " ", "\u3000", "\n\n\n",
]  # fmt: skip
PIECES = st.sampled_from([*"<>\"'`[)*_|\n#&=/\\\x00", "](", "~~", "    ", "- ", "1. ", "&#x6a;",
                          "javascript:", "http://a.b", "www.a.b", "a@b.c", "on"])  # fmt: skip
CHARACTERS = st.characters(exclude_categories=["Cs"])
HOSTILE = st.one_of(
    st.sampled_from(ATTACKS),
    st.lists(PIECES | CHARACTERS, max_size=25).map("".join),
    st.builds(lambda text, times: text * times, st.sampled_from(ATTACKS), st.sampled_from([2, 20, 100])),
)
RUNS = {"javascript", "vbscript", "data"}


def tries(examples: int) -> Any:
    """A modest number of examples, the same ones in each run."""
    unhurried = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=unhurried
    )


class Executable(HTMLParser):
    """Collects whatever in a page could run, fetch from elsewhere by itself, or lead astray."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.in_script = tag == "script"
        self.found += dangers(tag, *attrs)

    def handle_endtag(self, tag: str) -> None:
        self.in_script = False

    def handle_data(self, data: str) -> None:
        if self.in_script and data.strip():
            self.found.append("words in a script")


@functools.cache  # most tags of a page are on every page
def dangers(tag: str, *attrs: tuple[str, str | None]) -> list[str]:
    """What of a tag could run, fetch or lead astray."""
    given, found = {name: value or "" for name, value in attrs}, []
    if tag in ("iframe", "object", "embed", "base", "style", "math", "frame", "applet", "audio", "video"):
        found.append(f"<{tag}>")
    if tag == "script" and not given.get("src", "").startswith(("/static/", "/bootstrap/static/")):
        found.append("a script that is not ours")
    if tag in ("img", "link", "use") and "//" in given.get("src", "") + given.get("href", ""):
        found.append(f"<{tag}> from elsewhere")
    if tag == "meta" and given.get("http-equiv", "").lower() == "refresh":
        found.append("a refresh")
    found += [f"{tag} {name}" for name in given if name.startswith("on") or name in ("style", "srcdoc")]
    for name in ("href", "src", "action", "formaction", "xlink:href"):
        scheme = re.sub(r"[\x00-\x20]", "", given.get(name, "")).partition(":")[0].lower()
        if scheme in RUNS:
            found.append(f"{tag} {name}={given[name]!r}")
    return found


def executable(page: str) -> list[str]:
    parser = Executable()
    parser.feed(page)
    parser.close()
    return parser.found


@pytest.fixture
def world(app: Flask, cheap_hashes: None, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("app.Throttle.take", lambda *_args: None)
    return stand_up(app)


def check(answer: Any, allowed: tuple[int, ...]) -> None:
    assert answer.status_code in allowed
    assert not executable(answer.text)
    assert "evil.example" not in answer.headers.get("Location", "")
    assert not any(name == "a" for name in answer.headers.get("Set-Cookie", "").split("="))


# -- The watchman is watched -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack.startswith(("<", '"><'))])
def test_what_would_run_is_recognised(attack):
    assert executable(attack) or attack == "<javascript:alert(1)>"


def test_what_is_harmless_is_not_taken_for_an_attack():
    assert not executable(
        '<script src="/static/app.js?v=1" defer></script><a href="https://a.b" title="on">data: x</a>'
    )


# -- Forms -------------------------------------------------------------------------------------------------------------


def newest(model: Any) -> Any:
    return row(model, value(sa.select(sa.func.max(model.id))))


PROFILE = ("name", "email", "title", "department", "phone", "location")
# What a form has stored when it said that it did: the row, and the columns that were typed.
STORED: dict[str, tuple[Callable[[World], Any], tuple[str, ...]]] = {
    "posts.new": (lambda _: newest(Post), ("title", "body")),
    "posts.edit": (lambda world: row(Post, world.posts["members"]), ("title", "body")),
    "posts.comment": (lambda _: newest(Comment), ("body",)),
    "posts.edit_comment": (lambda world: row(Comment, world.comments["members"]), ("body",)),
    "account.profile": (lambda world: row(User, world.people["admin"]), PROFILE),
    "topics.manage": (lambda _: newest(Topic), ("name", "description")),
    "topics.edit": (lambda world: row(Topic, world.topics["open"]), ("name", "description")),
    "admin.new_person": (lambda _: newest(User), ("name", "username", "email")),
    "auth.register": (lambda _: newest(User), ("name", "username", "email")),
}


def open_to(world: World, endpoint: str) -> tuple[Browser, str]:
    """Somebody who may use a form, and its address."""
    if endpoint == "auth.setup":
        return world.browser(), f"/setup?token={Setting.renew_setup_token()}"
    if endpoint == "auth.reset_by_link":
        return world.browser(), f"/reset/{ResetLink.create(world.people['keeper'])}"
    if endpoint == "auth.register":
        set_settings(world.app, registration="open")
    public = endpoint.startswith("auth.")
    return world.browser("anonymous" if public else "admin"), address(world, endpoint, accepted(endpoint))


def as_it_stands(world: World, endpoint: str) -> dict[str, str]:
    """The version that is to be typed over."""
    return {"version": str(row(Post, world.posts["members"]).version)} if endpoint == "posts.edit" else {}


@pytest.mark.parametrize("endpoint", FILLINGS)
def test_no_form_breaks_runs_or_alters_what_is_typed(world: World, endpoint: str, monkeypatch: Any) -> None:
    if endpoint == "auth.setup":
        monkeypatch.setattr(User, "exists", lambda: False)
    browser, path = open_to(world, endpoint)
    fields = [*FILLINGS[endpoint], "form_id", "version", "preview", "members", "shortcuts", "private"]

    @tries(10)
    @given(st.dictionaries(st.sampled_from(fields), HOSTILE, min_size=1, max_size=4))
    def attempt(changes: dict[str, str]) -> None:
        works_once = endpoint in ("auth.setup", "auth.reset_by_link")
        sent_to = open_to(world, endpoint)[1] if works_once else path
        typed = world.filling(endpoint) | as_it_stands(world, endpoint) | changes
        answer = browser.submit(sent_to, typed)
        without_file = (400,) if endpoint == "files.upload" else ()
        check(answer, (200, 302, 303, 403, 404, 409, 422, *without_file))
        if answer.status_code == 303 and endpoint in STORED:
            find, columns = STORED[endpoint]
            stored, tidy = find(world), {"body": corkboard.tidy_text}
            for column in columns:
                assert (getattr(stored, column) or "") == tidy.get(column, corkboard.tidy)(typed[column])
            check(browser.get(answer.location), (200,))

    attempt()
    admin = world.browser("admin") if endpoint.startswith("auth.") else browser
    for page in ("/", f"/posts/{world.posts['members']}", "/people", "/admin/people", "/admin/topics"):
        check(admin.get(page), (200,))


def test_each_attack_as_a_post_a_comment_and_a_profile_is_shown_as_text(world: World) -> None:
    browser, below = world.browser("member"), f"/posts/{world.posts['members']}"
    for attack in ATTACKS:
        answer = browser.submit(
            "/posts/new", world.filling("posts.new") | {"title": f"x{attack}"[:200], "body": attack}
        )
        check(answer, (303, 422))
        if answer.status_code == 303:
            check(browser.get(answer.location), (200,))
        check(browser.submit(f"{below}/comments", {"body": f"x{attack}"}), (303,))
        typed = world.filling("account.profile") | dict.fromkeys(("name", "title", "location"), f"x{attack}"[:60])
        check(browser.submit("/account", typed), (303,))
        check(browser.get("/people/member"), (200,))
    check(browser.get("/"), (200,))
    check(browser.get(below), (200,))


@tries(50)
@given(st.lists(PIECES | CHARACTERS | st.sampled_from(ATTACKS), max_size=30).map("".join))
def test_markdown_never_becomes_anything_that_runs(source: str) -> None:
    rendered = corkboard.render_markdown(source)
    assert not executable(rendered)
    assert "<img" not in rendered
    assert not executable(f"<p>{corkboard.html.escape(corkboard.plain_text(rendered))}</p>")
    assert len(corkboard.plain_text(rendered)) <= corkboard.EXCERPT_MAX


@tries(50)
@given(st.text(CHARACTERS, max_size=60))
def test_tidying_loses_nothing_but_control_and_invisible_characters_and_spaces(text: str) -> None:
    tidied = corkboard.tidy(text)
    assert corkboard.tidy(tidied) == tidied
    assert not re.search(r"[\x00-\x1f\x7f]|  ", tidied)
    lost = rf"[\s\x00-\x1f\x7f\u200c\u200d\ufe00-\ufe0f\U000e0000-\U000e0fff]|{corkboard._INVISIBLE.pattern}"
    kept, left = (corkboard.unicodedata.normalize("NFC", re.sub(lost, "", some)) for some in (text, tidied))
    assert left == kept
    assert corkboard.tidy_text(corkboard.tidy_text(text)) == corkboard.tidy_text(text)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", corkboard.slugify(text))


@pytest.mark.parametrize("piece", ["http://a.b ", "(http://a.b", "www.a.b "])
def test_an_endless_paragraph_is_not_searched_for_addresses(piece: str) -> None:
    """Searching takes time by the square of a paragraph's length: 18 s of a thread for the longest post."""
    assert "<a " not in corkboard.render_markdown(piece * 1000)


def test_bare_addresses_become_links_in_paragraphs_of_ordinary_length() -> None:
    text = "Look at https://example.com/a. " + "And so on. " * 400
    assert '<a href="https://example.com/a"' in corkboard.render_markdown(text)


# -- Addresses ---------------------------------------------------------------------------------------------------------

NUMBERS = st.sampled_from([0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**30]) | st.integers(-5, 5)
MOMENTS = st.sampled_from(["2026-01-01", "2026-01-01T00:00:00+02:00", "0001-01-01T00:00:00", "9999-12-31T23:59:59.9",
                           "20260101", "", "x", "\ud800", "\x00", "2026-W01-1"])  # fmt: skip
PARTS = st.lists(
    NUMBERS | MOMENTS | CHARACTERS | st.none() | st.booleans() | st.floats() | st.just([]) | st.just({}), max_size=5
)
SHAPED = st.tuples(MOMENTS | CHARACTERS, NUMBERS) | st.tuples(NUMBERS, NUMBERS, MOMENTS | CHARACTERS, NUMBERS)


def opaque(parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


PLACES = st.one_of(SHAPED.map(opaque), PARTS.map(opaque), HOSTILE, NUMBERS.map(str))
SEGMENTS = HOSTILE | NUMBERS.map(str) | st.sampled_from(["%", "%00", "%ff%fe", "%c0%af", "a%2fb", ";", "~"])
LISTS = ["/", "/handbook", "/handbook/review", "/people", "/topics/open", "/people/member", "/admin/people"]
PREFIXES = [
    "/posts/",
    "/comments/",
    "/topics/",
    "/people/",
    "/admin/topics/",
    "/admin/people/",
    "/files/",
    "/static/",
    "/invite/",
    "/",
]


def test_a_place_in_a_list_that_was_made_up_is_answered_calmly(world: World) -> None:
    browser, post = world.browser("admin"), f"/posts/{world.posts['members']}"

    @tries(50)
    @given(st.sampled_from([*LISTS, post]), PLACES)
    def attempt(path: str, before: str) -> None:
        check(browser.get(path, query_string=urlencode({"before": before})), (200, 404))

    attempt()


@pytest.mark.parametrize("number", [2**31, 2**63 - 1, 2**63, 10**30, "9" * 4301, "-1", "1.5", "0"])
def test_ids_of_any_size_are_not_there(world: World, number: Any) -> None:
    browser, before = world.browser("admin"), dump()
    for path in (
        "/posts/{}",
        "/posts/{}/edit",
        "/comments/{}",
        "/admin/topics/{}",
        "/admin/people/{}",
        "/files/{}/a.png",
    ):
        check(browser.get(path.format(number)), (404,))
    for path in (
        "/posts/{}/delete",
        "/posts/{}/comments",
        "/comments/{}/delete",
        "/account/sessions/{}/end",
        "/files/{}/delete",
    ):
        check(browser.submit(path.format(number), {"body": "x"}), (404,))
    check(browser.get(f"/posts/{world.posts['members']}?before={number}"), (200, 404))
    for endpoint, field in (("posts.new", "topic"), ("admin.set_role", "role"), ("account.profile", "stand_in_id")):
        path = address(world, endpoint, accepted(endpoint))
        typed = world.filling(endpoint) | {field: str(number)}
        check(browser.submit(path, typed), (303, 422))
    assert before["posts"] == dump()["posts"]


@pytest.mark.parametrize("spell", ["0{}", "+{}", "{}_0", "{}.0", " {}", "{} ", "{}%0A", "{}/", "arabic", "wide"])
def test_an_id_is_spelt_in_one_way(world: World, spell: str) -> None:
    scripts = {"arabic": "٠١٢٣٤٥٦٧٨٩", "wide": "０１２３４５６７８９"}

    def spelt(number: int) -> str:
        digits = scripts.get(spell)
        return "".join(digits[int(digit)] for digit in str(number)) if digits else spell.format(number)

    browser, post, topic = world.browser("admin"), world.posts["members"], world.topics["open"]
    assert browser.get(f"/posts/{post}").status_code == 200
    for path in (f"/posts/{spelt(post)}", f"/admin/topics/{spelt(topic)}", f"/posts/{post}/history/{spelt(1)}"):
        assert browser.get(path).status_code == 404, path
    if "%" not in spell and "/" not in spell:
        typed = {"user": spelt(world.people["member"])}
        answer = browser.submit(f"/admin/topics/{world.topics['private']}/members", typed, follow_redirects=True)
        assert "Nobody else can see this topic now." in answer.text
        assert browser.get("/api/v1/posts", query_string={"topic_id": spelt(topic)}).status_code == 422


@pytest.mark.parametrize("path", ["/topics/open%20", "/topics/Open", "/people/member%00", "/topics/open/"])
def test_a_name_in_an_address_is_spelt_in_one_way(world: World, path: str) -> None:
    assert world.browser("admin").get(path).status_code == 404


def test_made_up_addresses_are_answered_calmly(world: World) -> None:
    browsers = world.browser("admin"), world.browser()

    @tries(50)
    @given(st.sampled_from(PREFIXES), SEGMENTS, st.sampled_from(["", "/edit", "/history"]))
    def attempt(prefix: str, segment: str, suffix: str) -> None:
        path = prefix + (segment if segment.startswith("%") else quote(segment, safe="")) + suffix
        for browser in browsers:
            check(browser.get(path, buffered=True), (200, 301, 302, 308, 404, 410))

    attempt()


def test_made_up_queries_are_answered_calmly(world: World) -> None:
    browser, nobody = world.browser("admin"), world.browser()
    pages = st.sampled_from(["/people", "/admin/people", "/posts/new", "/topics/open", "/"])

    @tries(40)
    @given(pages, st.dictionaries(st.sampled_from(["q", "kind", "topic", "next", "v"]), HOSTILE, min_size=1))
    def attempt(page: str, query: dict[str, str]) -> None:
        asked = urlencode(query)
        check(browser.get(page, query_string=asked), (200,))
        check(nobody.get("/login", query_string=asked), (200,))
        check(browser.get("/login", query_string=asked), (302,))

    attempt()


def test_a_made_up_set_up_token_is_refused_calmly(app: Flask) -> None:
    Setting.renew_setup_token()
    browser = Browser(app)

    @tries(30)
    @given(HOSTILE)
    def attempt(token: str) -> None:
        check(browser.get("/setup", query_string=urlencode({"token": token})), (403, 429))

    attempt()


# -- What no browser sends ---------------------------------------------------------------------------------------------

FORM, PARTS_OF = "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"
BODIES = [
    (FORM, b"title=\xff\xfe&body=\xc3\x28&topic=1"),
    (FORM, b"title=%ff%fe&body=%c3%28&topic=1"),
    (FORM, b"title=%ud800&body=%ed%a0%80&topic=1"),
    (FORM, b"&&&===%%%"),
    (FORM, b"title=" + b"&title=" * 5000),
    (FORM + "; charset=utf-7", b"title=%2BADw-script%2BAD4-&body=x&topic=1"),
    (FORM + "; charset=nonsense", b"title=x"),
    (PARTS_OF, b""),
    (PARTS_OF, b"--x\r\nContent-Disposition: form-data; name=title\r\n\r\nx"),
    (PARTS_OF, b'--x\r\nContent-Disposition: form-data; name="body"; filename="a.txt"\r\n\r\nx\r\n--x--\r\n'),
    (PARTS_OF, b"--x\r\n\r\n--x--\r\n" * 2000),
    ("multipart/form-data", b"--x\r\n"),
    ("application/json", b'{"title": {"$gt": ""}, "role": 40}'),
    ("application/json", b"[" * 100_000),
    ("text/xml", b'<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>'),
    ("", b"\x00" * 100),
]


@pytest.mark.parametrize("path", ["/posts/new", "/account", "/posts/preview", "/login"])
def test_a_broken_body_is_refused_calmly(world: World, path: str) -> None:
    browser = world.browser("member")
    for kind, body in BODIES:
        headers = {"X-CSRFToken": browser.csrf_token()}
        answer = browser.post(path, data=body, content_type=kind or None, headers=headers)
        check(answer, (200, 303, 400, 413, 415, 422))


HEADERS = [
    {"User-Agent": "x" * 5000},
    {"User-Agent": "<script>alert(1)</script>"},
    {"User-Agent": "é\xff"},
    {"Referer": "javascript:alert(1)"},
    {"Accept": "application/json", "X-Requested-With": "XMLHttpRequest"},
    {"Range": "bytes=99999-1"},
    {"If-Modified-Since": "yesterday", "If-None-Match": '"'},
    {"X-Forwarded-For": "<script>", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher"},
    {"X-HTTP-Method-Override": "DELETE"},
    {"Content-Length": "nonsense"},
    {"X-Request-ID": "<script>alert(1)</script>"},
]


@pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: ",".join(headers))
def test_odd_headers_are_answered_calmly(world: World, headers: dict[str, str]) -> None:
    for browser in (world.browser("member"), world.browser()):
        for path in ("/", "/login", "/static/app.css", "/no/such/page"):
            answer = browser.get(path, headers=headers, buffered=True)
            check(answer, (200, 206, 302, 404, 416))
            assert "evil.example" not in answer.text


BROKEN = ["%s=\xff\xfe; =; ;;;=x", "%s=" + "." * 4000, "%s=.eJwDAAAAAAE.x.x", "\xff; %s", "", ";"]


@pytest.mark.parametrize("sent", BROKEN, ids=lambda sent: sent[:20])
def test_a_broken_cookie_is_nobodys(world: World, sent: str) -> None:
    sent = sent.replace("%s", world.app.config["SESSION_COOKIE_NAME"])
    client = Browser(world.app, world.app.response_class, use_cookies=False)
    assert client.get("/", headers={"Cookie": sent}).status_code == 302
    assert client.get("/static/app.css", headers={"Cookie": sent}, buffered=True).status_code == 200


def test_what_others_on_this_host_keep_in_cookies_is_read_past(world: World) -> None:
    name = world.app.config["SESSION_COOKIE_NAME"]
    kept = world.browser("member").get_cookie(name)
    assert kept is not None
    client = Browser(world.app, world.app.response_class, use_cookies=False)
    for others in ("theirs=caf\xe9; {}", "{}; theirs=\xff\xfe", 'theirs="\xc3\xa9=; {}', "=; ;; {}; {}2=x"):
        sent = others.replace("{}", f"{name}={kept.value}")
        assert client.get("/", headers={"Cookie": sent}).status_code == 200, others


def test_a_sign_in_from_an_odd_browser_is_listed_calmly(world: World) -> None:
    browser = world.browser()
    agent = "<script>alert(1)</script>" * 300
    typed = world.filling("auth.login") | {"username": "member"}
    assert browser.submit("/login", typed, headers={"User-Agent": agent}).status_code == 303
    check(browser.get("/account/sessions"), (200,))
