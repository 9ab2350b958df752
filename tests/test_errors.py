"""Errors, headers and logs: what people, programs and administrators are told when something goes wrong."""

from __future__ import annotations

import errno
import json
import logging
import re
import socket
import sqlite3
import threading
from pathlib import Path
from types import SimpleNamespace

import pymysql
import pytest
import sqlalchemy as sa
from conftest import PASSWORD, Browser, add_comment, add_person, add_post, add_topic, close, lay_schema
from flask import Flask, abort, request
from markupsafe import escape
from sqlalchemy import event
from world import texts_to_copy

import app as corkboard
import database
from app import EditConflict, Forbidden, NoRoom, NotVisible, Setting, User, ValidationError
from config import ProductionConfig, configure_logging
from database import db

pytestmark = pytest.mark.usefixtures("cheap_hashes")

CODES = [400, 403, 404, 405, 409, 413, 415, 422, 429, 500, 503]
ICON = "/bootstrap/static/css/font/fonts/bootstrap-icons.woff2"


class Boom(Exception):
    pass


def log_of(app: Flask) -> str:
    """All that the application's log file says by now."""
    path = Path(app.config["DATA_DIR"]) / "logs" / "corkboard.log"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def made(folder: Path, **values: str) -> Flask:
    """A site as a team runs it, with addresses added that go wrong in every way."""
    lay_schema(folder / "corkboard.db")
    app = corkboard.create_app(ProductionConfig({"DATA_DIR": str(folder), **values}))
    app.test_client_class = Browser
    raised = {"not-visible": NotVisible(), "forbidden": Forbidden(), "conflict": EditConflict(1),
              "boom": Boom("secret word"), "refused": ValidationError("title", "Not like that."),
              "busy": database.DatabaseBusy(), "full": NoRoom("upload", "The disk is full.")}  # fmt: skip

    def broken(code: int):
        abort(code)

    def raising(name: str):
        raise raised[name]

    def defect():
        db.session.execute(sa.text("SELECT y FROM nowhere WHERE x = :x"), {"x": "-".join(["typed", "by", "somebody"])})

    def visitor():
        return f"{request.remote_addr} {request.scheme} {request.host}"

    app.add_url_rule("/visitor", "visitor", corkboard.public(visitor))
    for prefix in ("", "/api"):
        for rule, view in (("/broken/<int:code>", broken), ("/raising/<name>", raising), ("/defect", defect)):
            declared = corkboard.public(lambda _v=view, **kw: _v(**kw))
            app.add_url_rule(prefix + rule, f"{prefix}{rule}", declared, methods=["GET", "POST"])
    return app


@pytest.fixture
def served(tmp_path):
    app = made(tmp_path)
    with app.app_context():
        yield app
    close(app)


@pytest.fixture
def logged(app, tmp_path, monkeypatch):
    """The application with a log file of its own for the test."""
    root = logging.getLogger()
    before = list(root.handlers)
    monkeypatch.setitem(app.config, "DATA_DIR", tmp_path)
    configure_logging(app)
    yield app
    for handler in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(handler)
        handler.close()


# -- Pages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_every_error_is_a_page_with_a_way_onward_and_an_id_that_is_in_the_log(served, code):
    answer = served.test_client().get(f"/broken/{code}")
    assert answer.status_code == code
    assert answer.content_type == "text/html; charset=utf-8"
    title, text = corkboard.ERROR_WORDS[code]
    for words in (str(escape(title)), str(escape(text)), '<main class="page"', 'class="btn btn-go"', 'href="/'):
        assert words in answer.text
    request_id = answer.headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{16}", request_id)
    assert f"<code>{request_id}</code>" in answer.text
    assert re.search(rf"{request_id} GET /broken/{code} {code} ", log_of(served))


@pytest.mark.parametrize("code", [*CODES, 401])
def test_programs_get_problem_details_instead(served, code):
    answer = served.test_client().get(f"/api/broken/{code}")
    assert answer.status_code == code
    assert answer.content_type == "application/problem+json"
    problem = answer.json
    assert (problem["status"], problem["type"]) == (code, "about:blank")
    assert problem["title"] == corkboard.ERROR_WORDS[code][0]
    assert problem["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize(("name", "code", "words"), [
    ("not-visible", 404, "Page not found"), ("forbidden", 403, "No access"),
    ("conflict", 409, "Changed in the meantime"),
    ("full", 507, "The disk is full."),
    ("refused", 422, "Not like that."), ("busy", 503, "Back in a moment"), ("boom", 500, "Something went wrong"),
])  # fmt: skip
def test_what_actions_raise_becomes_a_page(served, name, code, words):
    browser = served.test_client()
    answer = browser.get(f"/raising/{name}")
    assert answer.status_code == code
    assert words in answer.text
    assert "secret word" not in answer.text
    assert browser.get(f"/api/raising/{name}").json["status"] == code


def test_an_unknown_address_under_api_is_json(served):
    answer = served.test_client().get("/api/v1/nothing")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


def test_real_errors_come_with_what_helps(app, people, topics, sign_in, monkeypatch):
    reader, anybody = sign_in(people.reader), app.test_client()
    assert reader.get("/admin").status_code == 403
    wrong_way = reader.get("/logout")
    assert wrong_way.status_code == 405
    assert {"POST", "OPTIONS"} == {*wrong_way.headers["Allow"].split(", ")}
    assert reader.open("/", method="TRACE").status_code == 405
    post = add_post(people.member, topics.open)
    without_token = sign_in(people.member).post(f"/posts/{post.id}/delete")
    assert without_token.status_code == 400
    assert "reload the page" in without_token.text
    monkeypatch.setitem(app.config, "MAX_CONTENT_LENGTH", 1000)
    assert reader.submit("/account", {"name": "x" * 1000}).status_code == 413
    home, login = '<a class="btn btn-go"\n               href="/"', 'href="/login"'
    assert re.sub(r"\s+", " ", home) in re.sub(r"\s+", " ", reader.get("/nothing").text)
    assert login in anybody.get("/nothing").text


OURS = {"Origin": "http://localhost"}


@pytest.mark.parametrize("code", CODES)
def test_an_error_that_answers_a_form_shows_what_was_written_in_it_and_no_secret(served, code):
    written = {"title": "Oven & <dough>", "body": "\n  It rises.\r\n\r\nTwice.\n", "name": "Ada",
               "description": "D", "department": "Ovens", "phone": "12", "location": "B", "email": "a@b.example",
               "scheduled_for": "2026-03-02T09:00", "expires_at": "2026-03-04"}  # fmt: skip
    secret = {"password": "secret-1", "current": "secret-2", "confirm": "secret-3", "username": "secret-4",
              "token": "secret-5", "form_id": "secret-6", "code": "secret-7"}  # fmt: skip
    answer = served.test_client().submit(f"/broken/{code}", written | secret, headers=OURS)
    assert answer.status_code == code
    shown = texts_to_copy(answer)
    assert shown.pop("Text").replace("\r\n", "\n") == "\n  It rises.\n\nTwice.\n"
    assert {*shown.values()} == {*written.values()} - {written["body"]}
    assert "secret-" not in answer.text
    assert ("may not have been saved" in answer.text) == (code >= 500)


def test_an_error_shows_nothing_that_another_site_sent_or_that_a_program_did(served):
    browser, typed = served.test_client(), {"title": "T", "body": "Twice"}
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {}):
        assert "Twice" not in browser.submit("/broken/404", typed, headers=headers).text
    assert "Twice" in browser.submit("/raising/full", typed, headers=OURS).text
    assert "Twice" in browser.submit("/broken/404", typed, headers={"Sec-Fetch-Site": "same-origin"}).text
    assert "Twice" not in browser.submit("/api/broken/404", typed, headers=OURS).text
    assert "What you wrote" not in browser.get("/broken/404", headers=OURS).text


def gone_meanwhile(people, topics) -> list[tuple[str, dict[str, str]]]:
    """Forms of things that an editor deletes while they are open, each with what is written in it."""
    post, other = add_post(people.member, topics.open), add_post(people.member, topics.open)
    page = add_post(people.editor, topics.open, kind="page")
    comment, garden = add_comment(people.member, other), add_topic(people.editor, "Garden")
    for thing in (post, page, comment, garden):
        type(thing).delete(people.editor, thing.id)
    return [
        (f"/posts/{post.id}/edit", {"title": "An hour", "body": "of words"}),
        (f"/posts/{page.id}/edit", {"title": "A page", "body": "of words"}),
        (f"/posts/{post.id}/comments", {"body": "Said below"}),
        (f"/comments/{comment.id}/edit", {"body": "Said better"}),
        (f"/admin/topics/{garden.id}", {"name": "Gardens", "description": "Weeds, mostly"}),
    ]


def test_what_was_written_about_a_thing_that_is_gone_by_now_is_there_to_copy(people, topics, sign_in):
    browser = sign_in(people.editor)
    for address, typed in gone_meanwhile(people, topics):
        answer = browser.submit(address, typed, headers=OURS)
        assert answer.status_code == 404, address
        assert {*texts_to_copy(answer).values()} == {*typed.values()}, address


def forms(people, topics) -> list[tuple[str, dict[str, str]]]:
    """Every form in which people write at length, filled in."""
    post = add_post(people.admin, topics.open)
    comment = add_comment(people.admin, post)
    words = {"title": "An hour", "body": "of words"}
    return [
        ("/posts/new", words), ("/posts/new?kind=page", words), (f"/posts/{post.id}/edit", words),
        (f"/posts/{post.id}/comments", {"body": "Said below"}), (f"/comments/{comment.id}/edit", {"body": "Better"}),
        ("/admin/topics", {"name": "Garden", "description": "Weeds"}),
        (f"/admin/topics/{topics.open.id}", {"name": "Us", "description": "All"}),
        ("/account", {"name": "Ada", "title": "Baker", "department": "Ovens", "phone": "12", "location": "Hall B",
                      "email": "ada@example.com", "away_from": "2030-03-01", "away_until": "2030-03-09"}),
        ("/admin/settings/site", {"name": "Board", "welcome": "Hello\n\nall"}),
        ("/admin/people/import", {"text": "name,email\nIda,ida@example.com"}),
    ]  # fmt: skip


@pytest.mark.parametrize("trouble", ["no token", "signed out", "signed in as a reader", "busy"])
def test_whatever_stops_a_form_what_was_written_in_it_is_there_to_copy(people, topics, sign_in, monkeypatch, trouble):
    code = {"no token": 400, "signed out": 401, "signed in as a reader": 403, "busy": 503}[trouble]
    browser = sign_in(people.reader if code == 403 else people.admin)
    for address, typed in forms(people, topics):
        if code == 403 and address == "/account":
            continue
        sent = typed if code == 400 else typed | {"csrf_token": browser.csrf_token()}
        with monkeypatch.context() as patch:
            if code == 401:
                patch.setattr(corkboard, "load_sign_in", lambda: None)
            if code == 503:
                patch.setattr(corkboard, "load_sign_in", busy)
            answer = browser.post(address, data=sent, headers=OURS)
        assert answer.status_code == code, address
        assert {*texts_to_copy(answer).values()} == {*typed.values()}, address


def busy():
    raise database.DatabaseBusy


@pytest.mark.parametrize("multipart", [True, False])
def test_a_text_that_came_with_too_large_a_file_is_shown_as_well(app, sign_in, people, monkeypatch, multipart):
    monkeypatch.setitem(app.config, "MAX_CONTENT_LENGTH", 2000)
    browser = sign_in(people.member)
    typed = {"body": "To be copied", "padding": "x" * 2000}
    kind = "multipart/form-data" if multipart else "application/x-www-form-urlencoded"
    answer = browser.submit("/posts/new", typed, headers={"Origin": "http://localhost"}, content_type=kind)
    assert answer.status_code == 413
    assert texts_to_copy(answer) == {"Text": "To be copied"}


def test_a_text_that_is_too_long_comes_back_in_its_form_with_the_reason(people, topics, sign_in):
    typed = {"title": "T", "body": "word, " * 84_000, "topic": topics.open.id}  # more than Flask takes by itself
    answer = sign_in(people.member).submit("/posts/new", typed, content_type="multipart/form-data")
    assert answer.status_code == 422
    assert "This is too long: at most 100,000 characters." in answer.text
    assert answer.text.count("word,") >= 84_000


def test_a_body_that_finds_no_room_on_the_disk_is_an_error_page_like_any_other(served, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(served.request_class, "_load_form_data", full)
    answer = served.test_client().post("/broken/500", data={"body": "Words"}, headers=OURS)
    assert answer.status_code == 507
    assert "disk is full" in answer.text


def test_too_many_tries_are_told_how_long_to_wait(app):
    Setting.renew_setup_token()
    browser = app.test_client()
    codes = [browser.get("/setup?token=wrong").status_code for _ in range(11)]
    assert codes == [403] * 10 + [429]
    answer = browser.get("/setup?token=wrong")
    assert 1 <= int(answer.headers["Retry-After"]) <= 30
    assert f"Try again in {answer.headers['Retry-After']} seconds." in answer.text


def test_the_page_of_an_error_tells_nothing_of_what_went_on_inside(served):
    for path in ("/raising/boom", "/defect"):
        answer = served.test_client().get(path)
        assert answer.status_code == 500
        for word in ("Traceback", "Boom", "secret word", "SELECT", "nowhere", "app.py"):
            assert word not in answer.text


def test_error_pages_need_neither_the_templates_context_nor_the_session(served, monkeypatch):
    def broken(*_args, **_kwargs):
        raise Boom

    browser = served.test_client()
    monkeypatch.setitem(served.template_context_processors, None, [broken])
    for code in (404, 500, 503):
        answer = browser.get(f"/broken/{code}")
        assert answer.status_code == code
        assert str(escape(corkboard.ERROR_WORDS[code][0])) in answer.text
        assert answer.headers["X-Request-ID"] in answer.text
    monkeypatch.setattr(served.session_interface, "open_session", lambda *_args: None)
    for code in (500, 503):
        answer = browser.get(f"/broken/{code}")
        assert answer.status_code == code
        assert str(escape(corkboard.ERROR_WORDS[code][0])) in answer.text


@pytest.mark.parametrize("cookie", ["x", "é", "a.b.c", "." * 4000, ""])
def test_a_cookie_that_was_made_up_is_no_error(served, cookie):
    browser = served.test_client()
    browser.set_cookie(served.config["SESSION_COOKIE_NAME"], cookie)
    assert browser.get("/login").status_code == 200
    assert browser.get("/").status_code == 302


# -- The database gone -------------------------------------------------------------------------------------------------


@pytest.fixture
def unplugged(app):
    """Take the database away with `unplugged.set()`, and bring it back with `unplugged.clear()`."""
    gone = threading.Event()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead_port = taken.getsockname()[1]

    def elsewhere(_dialect, _record, arguments, parameters):
        if gone.is_set() and database.is_sqlite():
            arguments[0] = "/nowhere/at/all.db"
        elif gone.is_set():
            parameters["port"] = dead_port

    class Plug:
        def set(self) -> None:
            gone.set()
            self.forget_connections()

        def clear(self) -> None:
            gone.clear()
            self.forget_connections()

        def forget_connections(self) -> None:
            db.session.remove()
            db.engine.dispose()

    event.listen(db.engine, "do_connect", elsewhere)
    plug = Plug()
    yield plug
    plug.clear()
    event.remove(db.engine, "do_connect", elsewhere)


def test_without_its_database_the_site_says_back_in_a_moment_and_recovers_by_itself(
    app, people, topics, sign_in, unplugged
):
    browser = sign_in(people.member)
    post = add_post(people.member, topics.open).id
    token = browser.csrf_token()
    assert browser.get("/").status_code == 200
    unplugged.set()
    for path in ("/", f"/posts/{post}", "/people", "/login", "/nowhere"):
        answer = browser.get(path)
        assert answer.status_code in (503, 404) if path == "/nowhere" else answer.status_code == 503, path
        assert answer.headers["X-Request-ID"] in answer.text
        if answer.status_code == 503:
            assert answer.headers["Retry-After"] == "5"
            assert "Back in a moment" in answer.text
    said = browser.post(f"/posts/{post}/comments", data={"body": "Said", "csrf_token": token}, headers=OURS)
    assert said.status_code == 503
    assert texts_to_copy(said) == {"Text": "Said"}
    assert browser.get("/healthz").status_code == 200
    ready = browser.get("/readyz")
    assert (ready.status_code, ready.headers["Retry-After"]) == (503, "5")
    with browser.get("/static/app.css") as style:
        assert style.status_code == 200
    unplugged.clear()
    assert browser.get("/").status_code == 200
    assert browser.get("/readyz").status_code == 200
    assert browser.post(f"/posts/{post}/comments", data={"body": "Said", "csrf_token": token}).status_code == 303


def test_a_site_that_starts_before_its_database_comes_up_with_it(app, unplugged):
    database.database_state().schema_ok = False
    unplugged.set()
    assert app.test_client().get("/login").status_code == 503
    unplugged.clear()
    assert app.test_client().get("/login").status_code == 200


@pytest.mark.parametrize("engine_app", ["sqlite"], indirect=True)
def test_a_database_that_was_read_only_for_a_moment_takes_writes_at_once_afterwards(
    app, people, topics, sign_in, read_only
):
    browser, post = sign_in(people.member), add_post(people.member, topics.open).id
    browser.csrf_token()
    db.session.remove()
    db.engine.dispose()
    read_only.set()
    assert browser.get("/people").status_code == 200, "reading goes on"
    for _ in range(2):
        refused = browser.submit(f"/posts/{post}/comments", {"body": "Said", "form_id": "a" * 32})
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert browser.get("/readyz").status_code == 503
    read_only.clear()
    assert browser.submit(f"/posts/{post}/comments", {"body": "Said", "form_id": "a" * 32}).status_code == 303
    assert browser.get("/readyz").status_code == 200


@pytest.mark.parametrize("full", [pymysql.err.OperationalError(1114, "The table is full"), "SQLITE_FULL"])
def test_on_a_full_disk_the_page_says_so_and_shows_the_text(app, people, topics, sign_in, monkeypatch, full):
    if isinstance(full, str):
        name, full = full, sqlite3.OperationalError("database or disk is full")
        full.sqlite_errorname = name

    def refuse(*_args, **_kwargs):
        raise sa.exc.OperationalError("INSERT", {}, full)

    browser, post = sign_in(people.member), add_post(people.member, topics.open).id
    monkeypatch.setattr(corkboard.Comment, "create", refuse)
    headers, said = {"Sec-Fetch-Site": "same-origin"}, {"body": "Bring a spoon.", "form_id": "a" * 32}
    answer = browser.submit(f"/posts/{post}/comments", said, headers=headers)
    assert answer.status_code == 507
    assert "disk is full" in answer.text
    assert "Bring a spoon." in answer.text
    assert "Wait a moment" not in answer.text


def test_a_site_on_a_full_disk_is_not_ready(app, monkeypatch):
    monkeypatch.setattr(corkboard.shutil, "disk_usage", lambda _path: SimpleNamespace(free=9_000_000))
    answer = app.test_client().get("/readyz")
    assert (answer.status_code, answer.json["reason"]) == (503, "The disk is full.")


# -- Headers -----------------------------------------------------------------------------------------------------------

ANSWERS = [
    ("GET", "/login", 200), ("HEAD", "/login", 200), ("GET", "/", 302), ("GET", "/nowhere", 404),
    ("POST", "/login", 400), ("POST", "/", 405), ("TRACE", "/", 405), ("OPTIONS", "/", 200), ("GET", "/healthz", 200),
    ("GET", "/readyz", 200), ("GET", "/static/app.css", 200), ("GET", "/static/nothing.css", 404),
    ("GET", "/broken/500", 500), ("GET", "/raising/boom", 500), ("GET", "/broken/503", 503),
    ("GET", "/api/broken/404", 404), ("GET", ICON, 200),
]  # fmt: skip


def test_browsers_know_the_headers_that_keep_answers_safe():
    """A browser ignores a misspelt header without a word."""
    assert {*corkboard.SECURITY_HEADERS} == {
        "Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Permissions-Policy",
        "Cross-Origin-Opener-Policy",
    }  # fmt: skip


@pytest.mark.parametrize("url", ["", "https://board.example.com"])
def test_every_answer_bears_the_headers_that_keep_it_safe(tmp_path, url):
    app = made(tmp_path, **({"SITE_URL": url} if url else {}))
    for method, path, status in ANSWERS:
        with app.test_client().open(path, method=method, base_url=url or "http://localhost") as answer:
            assert answer.status_code == status, path
            for name, value in corkboard.SECURITY_HEADERS.items():
                assert answer.headers.getlist(name) == [value], (path, name)
            assert len(answer.headers.getlist("X-Request-ID")) == 1
            hsts = answer.headers.getlist("Strict-Transport-Security")
            assert hsts == (["max-age=31536000"] if url else []), path
            if not path.startswith(("/static/app", "/bootstrap")):
                assert answer.headers.getlist("Cache-Control") == ["private, no-store"], path
    close(app)


@pytest.mark.parametrize(
    ("proxy", "peer", "seen"),
    [
        ("192.0.2.1", "192.0.2.1", "203.0.113.9 https board.example.com"),
        ("192.0.2.1", "::ffff:192.0.2.1", "203.0.113.9 https board.example.com"),
        ("192.0.2.1", "192.0.2.2", "192.0.2.2 http localhost"),
        ("", "192.0.2.1", "192.0.2.1 http localhost"),
    ],
)
def test_only_the_trusted_proxy_says_where_a_visitor_comes_from(tmp_path, proxy, peer, seen):
    app = made(tmp_path, TRUSTED_PROXY=proxy, SITE_URL="https://board.example.com")
    told = {"For": "198.51.100.1, 203.0.113.9", "Proto": "https", "Host": "board.example.com"}
    headers = {f"X-Forwarded-{name}": value for name, value in told.items()}
    answer = app.test_client().get("/visitor", headers=headers, environ_base={"REMOTE_ADDR": peer})
    assert answer.text == seen
    close(app)


OWN_HOSTS = ["localhost", "LocalHost:8000", "localhost.", "127.0.0.1:8000", "10.0.0.5", "10.0.0.5.:80", "[::1]",
             "[FE80::1]:8000", "board.localhost", "board.example.com:8443", "BOARD.example.com.", "intranet", "a.lan",
             "lan", "pc-17", "PC-17:8000", "pc-17.local", "pc-17.corp.example"]  # fmt: skip
OTHER_HOSTS = ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "1.2.3",
               "xlan", "a.b.intranet", "pc-17.evil.example", "www.board.example.com", "localhost..", "a" * 64, "a..b",
               "a b", "é", "[::1", "[evil.example]", "::1", "localhost:x", "localhost:99999", "", ".", ":80", "<b>",
               "a/b", "%41", "localhost@evil.example", "localhost,evil.example"]  # fmt: skip


@pytest.fixture
def named(tmp_path, monkeypatch):
    """A site that the settings and its computer give some names."""
    monkeypatch.setattr(corkboard, "machine_names", corkboard.machine_names.__wrapped__)
    monkeypatch.setattr(socket, "gethostname", lambda: "PC-17")
    monkeypatch.setattr(socket, "getfqdn", lambda: "pc-17.corp.example")
    app = made(tmp_path, SITE_URL="http://board.example.com:8443", TRUSTED_HOSTS="intranet, .lan")
    yield app
    close(app)


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_a_site_answers_to_addresses_and_its_own_names(named, host):
    assert named.test_client().get("/visitor", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", OTHER_HOSTS)
def test_a_site_answers_to_no_other_name_and_says_what_to_set(named, host):
    for path in ("/visitor", "/nowhere", "/healthz", "/metrics", "/visitor/", "/api/visitor"):
        answer = named.test_client().get(path, headers={"Host": host})
        assert answer.status_code == 400, path
        assert not answer.location
    answer = named.test_client().get("/visitor", headers={"Host": host})
    assert 'href="http://board.example.com:8443/"' in answer.text
    assert ("TRUSTED_HOSTS" in answer.text) == bool(re.fullmatch(r"[a-z0-9.-]*[a-z0-9-][.]*(:80+)?", host)), answer.text
    with named.test_client().get("/static/app.css", headers={"Host": host}) as style:  # of that page
        assert style.status_code in (200, 400)
    assert "Error" not in log_of(named)


def test_a_proxy_cannot_give_a_site_another_name(tmp_path):
    app = made(tmp_path, TRUSTED_PROXY="127.0.0.1", SITE_URL="https://board.example.com")
    for host, status in (("evil.example", 400), ("board.example.com", 200)):
        assert app.test_client().get("/visitor", headers={"X-Forwarded-Host": host}).status_code == status
    close(app)


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere():
    policy = dict(part.split(" ", 1) for part in corkboard.CONTENT_SECURITY_POLICY.split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert "unsafe" not in corkboard.CONTENT_SECURITY_POLICY
    assert not re.search(r"https?:|\*", corkboard.CONTENT_SECURITY_POLICY)


def test_what_is_kept_for_a_year_has_the_hash_of_its_content_in_its_address(served):
    browser = served.test_client()
    page = browser.get("/login").text
    addresses = re.findall(r'(?:href|src)="(/(?:static|bootstrap)/[^"]+)"', page)
    assert len(addresses) >= 5
    for address in addresses:
        with browser.get(address) as answer:
            assert answer.status_code == 200
            assert answer.headers["Cache-Control"] == "public, max-age=31536000", address
            assert answer.headers["ETag"]
    for address in ("/static/app.css", "/static/app.css?v=", "/static/app.css?v=0123456789ab", "/static/app.css?x=1"):
        with browser.get(address) as answer:
            assert answer.headers["Cache-Control"] == "no-cache", address
            etag = answer.headers["ETag"]
        with browser.get(address, headers={"If-None-Match": etag}) as again:
            assert again.status_code == 304
    for address in ("/static/nothing.css", "/static/nothing.css?v=1", "/bootstrap/static/css/font/fonts/nothing.woff2"):
        assert browser.get(address).headers["Cache-Control"] == "private, no-store", address


@pytest.mark.parametrize("path", ["app.css/", "./app.css", "icons/../app.css", "app.css/.", "../static/app.css"])
def test_a_static_file_has_one_address(served, path):
    assert served.test_client().get(f"/static/{path}").status_code == 404


def test_scripts_and_styles_have_their_types_whatever_the_machine_thinks(served):
    types = {"app.js": "text/javascript", "copy.js": "text/javascript", "app.css": "text/css"}
    types |= {"icon.svg": "image/svg+xml", "icon.png": "image/png"}
    for name, kind in types.items():
        with served.test_client().get(f"/static/{name}") as answer:
            assert answer.mimetype == kind


# -- Logs --------------------------------------------------------------------------------------------------------------


def test_every_request_leaves_a_line(logged, people, sign_in):
    browser = sign_in(people.reader)
    answers = [
        browser.get("/"),
        browser.get("/nowhere"),
        browser.get("/admin"),
        logged.test_client().get("/people?q=x"),
    ]
    lines = [line for line in log_of(logged).splitlines() if "corkboard.access" in line]
    assert len(lines) == 4
    expected = [("/", 200, people.reader.id), ("/nowhere", 404, people.reader.id), ("/admin", 403, people.reader.id),
                ("/people", 302, "-")]  # fmt: skip
    for line, answer, (path, status, user) in zip(lines, answers, expected, strict=True):
        request_id = answer.headers["X-Request-ID"]
        end = rf"GET {path} {status} \d+\.\dms user={user} from=127\.0\.0\.1$"
        assert re.search(rf"INFO corkboard\.access {request_id} {end}", line), line


def test_a_refused_sign_in_is_logged_with_where_it_came_from(logged, people):
    elsewhere = {"REMOTE_ADDR": "203.0.113.9"}
    for name in ("member", "nobody", *(f"name{number}" for number in range(corkboard.ADDRESS_TRIES))):
        typed = {"username": name, "password": "wrong"}
        logged.test_client().submit("/login", typed, environ_overrides=elsewhere)
    log = log_of(logged)
    assert f"sign-in refused for person {people.member.id}, from 203.0.113.9\n" in log
    assert "sign-in refused for an unknown name, from 203.0.113.9\n" in log
    assert "too often: address, from 203.0.113.9\n" in log
    assert "POST /login 429" in log


@pytest.mark.parametrize(("said", "kept"), [
    ("2001:DB8:0::1", "2001:db8::1"), ("::ffff:203.0.113.9", "203.0.113.9"), ("a user=1", "unknown"), ("", "127.0.0.1"),
])  # fmt: skip
def test_only_an_address_is_logged_as_one(tmp_path, said, kept):
    app = made(tmp_path, TRUSTED_PROXY="127.0.0.1", SITE_URL="http://localhost")
    app.test_client().get("/visitor", headers={"X-Forwarded-For": said})
    assert log_of(app).endswith(f"user=- from={kept}\n")
    close(app)


def test_as_json_each_line_is_an_object(logged, people, monkeypatch):
    monkeypatch.setitem(logged.config, "LOG_FORMAT", "json")
    configure_logging(logged)
    answer = logged.test_client().get("/nowhere")
    try:
        raise Boom("over\ntwo lines")
    except Boom:
        corkboard.log.exception("it broke: %s", "é")
    entries = [json.loads(line) for line in log_of(logged).splitlines()]
    request_line = next(entry for entry in entries if entry["logger"] == "corkboard.access")
    assert answer.headers["X-Request-ID"] in request_line["message"]
    assert request_line["level"] == "INFO"
    told = {name: request_line[name] for name in ("request", "method", "path", "status", "user", "address")}
    asked = {"method": "GET", "path": "/nowhere", "status": 404, "user": "-", "address": "127.0.0.1"}
    assert told == {"request": answer.headers["X-Request-ID"], **asked}
    assert request_line["ms"] > 0
    assert re.match(r"\d{4}-\d\d-\d\dT.*\+00:00$", request_line["at"])
    broken = entries[-1]
    assert broken["message"] == "it broke: é"
    assert "Boom: over\ntwo lines" in broken["traceback"]


def test_nobody_writes_a_line_of_their_own_into_the_log(logged):
    forged = "2026-01-01 00:00:00,000 INFO corkboard.access all is well"
    before = len(log_of(logged).splitlines())
    for start in ("%0A", "%0D", "%E2%80%A8", "%C2%85", "%1B[2J"):
        logged.test_client().get(f"/nowhere{start}{forged}")
    lines = log_of(logged).splitlines()
    assert len(lines) == before + 5
    assert not [line for line in lines if line.startswith("2026-01-01")]
    assert "\x1b" not in log_of(logged)


def test_a_crash_is_logged_with_its_traceback_and_a_defect_without_what_people_typed(served):
    browser = served.test_client()
    answer = browser.get("/raising/boom")
    said = log_of(served)
    assert f"ERROR corkboard {answer.headers['X-Request-ID']} unexpected error in GET /raising/boom" in said
    assert "Traceback (most recent call last)" in said
    assert "Boom: secret word" in said
    assert f"{answer.headers['X-Request-ID']} GET /raising/boom 500" in said
    browser.get("/defect")
    said = log_of(served)
    assert "no such table: nowhere" in said
    assert "typed-by-somebody" not in said


def test_no_password_token_cookie_or_query_is_ever_in_the_log(tmp_path):
    """Setting up, signing in rightly and wrongly, changing and resetting a password; then the log is searched."""
    app = made(tmp_path, LOG_LEVEL="DEBUG")
    with app.app_context():
        browser, secrets = app.test_client(), []
        token = Setting.renew_setup_token()
        first, second, wrong = "first green bottles", "second green bottles", "wrong green bottles"
        setup = {"site_name": "S", "name": "Ada", "username": "ada", "email": "ada@example.com"}
        address = f"/setup?token={token}"
        assert browser.get("/setup?token=guessed-token").status_code == 403
        assert browser.submit(address, setup | {"password": first, "confirm": first}).status_code == 303
        secrets += [cookie.value for cookie in browser._cookies.values()]
        change = {"current": first, "password": second, "confirm": second}
        assert browser.submit("/account/password", change).status_code == 303
        secrets += [cookie.value for cookie in browser._cookies.values()]
        assert browser.submit("/logout").status_code == 303
        for name in ("ada", "nobody", "a password in the wrong field"):
            assert browser.submit("/login?next=/people", {"username": name, "password": wrong}).status_code == 422
        assert browser.submit("/login", {"username": "ada", "password": second}).status_code == 303
        csrf = browser.csrf_token()
        add_person("bob")
        bob = User.by_username("bob").id
        made_up = re.search(r"/reset/([^<]+)<", browser.submit(f"/admin/people/{bob}/link").text)[1]
        browser.get("/people?q=secretquery")
        browser.post("/account", data={"csrf_token": "forged-csrf-token", "name": "typed text"})
        with browser.session_transaction() as session:
            secrets += [session["token"], session["csrf_token"], corkboard.hash_token(session["token"])]
        hashes = db.session.scalars(sa.select(User.password_hash)).all()
        secrets += [token, first, second, wrong, PASSWORD, made_up, csrf, *hashes, corkboard.hash_token(token)]
        secrets += [
            "a password in the wrong field",
            "secretquery",
            "guessed-token",
            "forged-csrf",
            "typed text",
            "token=",
        ]
        said = log_of(app)
        assert len(said.splitlines()) >= 15
        for secret in secrets:
            assert secret
            assert secret not in said, secret
    close(app)


def test_a_database_error_tells_the_log_no_values(served):
    with pytest.raises(sa.exc.DBAPIError) as caught:
        db.session.execute(sa.text("SELECT :secret FROM nowhere"), {"secret": "hidden word"})
    assert "hidden word" not in str(caught.value)
