"""Access: signing in and out, sessions, throttling, passwords, registering, CSRF, and what must hold in a race."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import sqlalchemy as sa
from conftest import CHEAP_SCRYPT, PASSWORD, REQUIRE_ALL, Browser, close, settings
from flask import Flask
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from snapshot import Rows, changed, dump, put_back
from test_role_matrix import MATRIX, Cell, address
from werkzeug.security import check_password_hash, generate_password_hash
from world import (
    FILLINGS,
    World,
    row,
    set_columns,
    set_settings,
    stand_up,
    texts_to_copy,
    value,
)

import app as corkboard
import database
from app import ACCOUNT_TRIES, ADDRESS_TRIES, Comment, Post, ResetLink, Role, Setting, SignIn, Throttle, Topic, User
from config import configure_logging
from database import db

SCRYPT = corkboard.SCRYPT
NEW_PASSWORD = "eight green bottles"
THIRD = {"environ_overrides": {"REMOTE_ADDR": "198.51.100.7"}}
ELSEWHERE = {"environ_overrides": {"REMOTE_ADDR": "203.0.113.9"}}


pytestmark = pytest.mark.usefixtures("cheap_hashes")


@pytest.fixture
def world(app: Flask) -> World:
    return stand_up(app)


@pytest.fixture
def another(app: Flask, tmp_path: Any) -> Iterator[Callable[..., Flask]]:
    """Make another process's application on the same database, with other settings."""
    made = []

    def make(**more: str) -> Flask:
        made.append(corkboard.create_app(settings(tmp_path, app.config["DATABASE_URL"], **more)))
        return made[-1]

    yield make
    for other in made:
        close(other)
    configure_logging(app)


def log_in(browser: Browser, name: str = "member", password: str = PASSWORD, path: str = "/login", **more: Any) -> Any:
    kwargs = {"environ_overrides": more.pop("environ_overrides", None)}
    return browser.submit(path, {"username": name, "password": password, **more}, **kwargs)


def cookie(browser: Browser) -> str:
    kept = browser.get_cookie(browser.application.config["SESSION_COOKIE_NAME"])
    return kept.value if kept else ""


def with_cookie(app: Flask, text: str) -> Browser:
    browser = Browser(app, app.response_class)
    browser.set_cookie(app.config["SESSION_COOKIE_NAME"], text)
    return browser


def session_of(browser: Browser) -> dict[str, Any]:
    with browser.session_transaction() as session:
        return dict(session)


def is_signed_in(browser: Browser) -> bool:
    return browser.get("/account").status_code == 200


def at_once(app: Flask, *actions: Callable[[], Any]) -> list[Any]:
    """Run actions in threads that begin together. Returns what each returned or was refused by."""
    db.session.rollback()
    start = threading.Barrier(len(actions))

    def run(action: Callable[[], Any]) -> Any:
        with app.app_context():
            start.wait(timeout=5)
            try:
                return action()
            except (corkboard.ValidationError, corkboard.Forbidden, corkboard.NotVisible) as refused:
                return refused

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(run, actions))


# -- Decorators --------------------------------------------------------------------------------------------------------


def test_an_application_with_a_view_that_states_no_access_does_not_start(another, monkeypatch):
    def add_view(state: Any) -> None:
        state.add_url_rule("/bare", "bare", lambda: "anything")

    monkeypatch.setattr(corkboard.health, "deferred_functions", [*corkboard.health.deferred_functions, add_view])
    with pytest.raises(RuntimeError, match=r"health\.bare"):
        another()


def test_a_view_cannot_bear_two_access_decorators():
    for first in (corkboard.public, corkboard.login_required, corkboard.role_required(Role.ADMIN)):
        for second in (corkboard.public, corkboard.login_required, corkboard.role_required(Role.READER)):
            with pytest.raises(TypeError, match="second access decorator"):
                second(first(lambda: "anything"))


def test_roles_that_are_lower_may_less():
    assert Role.READER < Role.MEMBER < Role.EDITOR < Role.ADMIN


# -- Signing in and out ------------------------------------------------------------------------------------------------


def test_signing_in_leads_to_home_or_back_to_where_one_wanted_to_be(world):
    assert log_in(world.browser()).location == "/"
    assert log_in(world.browser(), path="/login?next=/people%3Fq%3Dida").location == "/people?q=ida"
    wanted = world.browser().get("/people?q=ida%20b")
    assert log_in(world.browser(), path=wanted.location).location == "/people?q=ida%20b"


@pytest.mark.parametrize("name", ["member", "MEMBER", " member ", "member@example.com", "Member@Example.COM"])
def test_a_username_or_email_address_opens_the_sign_in_however_it_is_written(world, name):
    assert log_in(world.browser(), name).status_code == 303


def test_signing_in_renews_the_token_and_the_csrf_token(world):
    browser = world.browser()
    browser.get("/login")
    before, planted = session_of(browser), cookie(browser)
    log_in(browser)
    after = session_of(browser)
    assert after["token"]
    assert after["csrf_token"] != before["csrf_token"]
    assert not is_signed_in(with_cookie(world.app, planted)), "who planted the cookie is signed in by it now"


def test_a_csrf_token_from_before_the_sign_in_is_worth_nothing_after_it(world):
    browser = world.browser()
    old = browser.csrf_token()
    log_in(browser)
    assert browser.post("/logout", data={"csrf_token": old}).status_code == 400
    assert is_signed_in(browser)


def test_signing_in_again_ends_the_sign_in_before(world):
    browser = world.browser("member")
    before = cookie(browser)
    assert log_in(browser, "editor").status_code == 303
    assert not is_signed_in(with_cookie(world.app, before))
    assert is_signed_in(browser)


def test_nothing_of_the_session_before_survives_a_sign_in(world):
    browser = world.browser()
    with browser.session_transaction() as session:
        session["planted"] = "anything"
    log_in(browser)
    assert "planted" not in session_of(browser)


def test_an_unknown_name_a_wrong_password_and_a_deactivated_person_hear_the_same(world, monkeypatch):
    compared = []

    def compare(stored: str, password: str) -> bool:
        compared.append(stored.rpartition("$")[0].partition("$")[0])
        return check_password_hash(stored, password)

    monkeypatch.setattr("app.check_password_hash", compare)
    answers = [log_in(world.browser(), *tried) for tried in (("nobody", PASSWORD), ("member", "wrong"), ("gone",))]
    assert [answer.status_code for answer in answers] == [422, 422, 422]
    pages = {re.sub(r'"csrf.token" (value|content)="[^"]+"', "", answer.text) for answer in answers}
    assert len({re.sub(r'value="(nobody|member|gone)"', "", page) for page in pages}) == 1
    assert compared == [CHEAP_SCRYPT] * 3, "each must cost one hash of today's parameters"


def test_a_deactivated_person_is_not_let_in_even_with_the_right_password(world):
    assert log_in(world.browser(), "gone").status_code == 422


def test_get_never_signs_anybody_out(world):
    browser = world.browser("member")
    assert browser.get("/logout").status_code == 405
    assert is_signed_in(browser)


# -- Sessions ----------------------------------------------------------------------------------------------------------


def sign_out(world: World, browser: Browser) -> None:
    assert browser.submit("/logout").status_code == 303


def change_password(world: World, browser: Browser) -> None:
    typed = {"current": PASSWORD, "password": NEW_PASSWORD, "confirm": NEW_PASSWORD}
    assert browser.submit("/account/password", typed).status_code == 303
    assert is_signed_in(browser), "the browser that changes the password stays signed in"


def be_deactivated(world: World, browser: Browser) -> None:
    assert world.browser("admin").submit(f"/admin/people/{world.people['member']}/deactivate").status_code == 303


def use_a_link(world: World, browser: Browser) -> None:
    chosen = {"password": NEW_PASSWORD, "confirm": NEW_PASSWORD}
    link = f"/reset/{ResetLink.create(world.people['member'])}"
    assert world.browser().submit(link, chosen).status_code == 303


def be_signed_out_elsewhere(world: World, browser: Browser) -> None:
    log_in(other := world.browser())
    assert other.submit("/account/sessions/end-others").status_code == 303


@pytest.mark.parametrize("ended_by", [sign_out, change_password, be_deactivated, use_a_link, be_signed_out_elsewhere])
def test_a_cookie_kept_from_before_opens_nothing(world, ended_by):
    browser = world.browser("member")
    kept = cookie(browser)
    assert is_signed_in(with_cookie(world.app, kept))
    ended_by(world, browser)
    assert not is_signed_in(with_cookie(world.app, kept))
    assert with_cookie(world.app, kept).get("/posts/1").status_code == 302


def test_a_role_that_is_taken_away_is_gone_at_the_next_request(world):
    browser = world.browser("admin")
    assert browser.get("/admin").status_code == 200
    set_columns(User, world.people["admin"], role=Role.MEMBER)
    assert browser.get("/admin").status_code == 403


@pytest.mark.parametrize(
    ("remember", "unused", "old", "lives"),
    [
        (False, timedelta(hours=11, minutes=59), timedelta(0), True),
        (False, timedelta(hours=12, minutes=1), timedelta(0), False),
        (False, timedelta(0), timedelta(days=6, hours=23), True),
        (False, timedelta(0), timedelta(days=7, minutes=1), False),
        (True, timedelta(days=29), timedelta(days=29), True),
        (True, timedelta(0), timedelta(days=30, minutes=1), False),
    ],
)
def test_a_sign_in_ends_after_12_hours_idle_or_7_days_and_a_remembered_one_after_30(
    world, remember, unused, old, lives
):
    browser = world.browser()
    log_in(browser, **({"remember": "y"} if remember else {}))
    found = value(sa.select(sa.func.max(SignIn.id)))
    stands = row(SignIn, found)
    set_columns(SignIn, found, last_used_at=stands.last_used_at - unused, expires_at=stands.expires_at - old)
    assert is_signed_in(browser) == lives


def test_being_used_keeps_a_sign_in_alive(world):
    browser, sign_in_id = world.browser("member"), world.sign_ins["member"]
    set_columns(SignIn, sign_in_id, last_used_at=database.utcnow() - timedelta(hours=11))
    browser.get("/")
    assert row(SignIn, sign_in_id).last_used_at > database.utcnow() - timedelta(minutes=1)


def test_the_cookie_lasts_30_days_only_where_somebody_asked_for_it(world):
    forgotten = log_in(world.browser()).headers["Set-Cookie"]
    kept = log_in(world.browser(), remember="y").headers["Set-Cookie"]
    assert "Expires" not in forgotten
    assert "Max-Age" not in forgotten
    assert "Expires" in kept


def test_the_cookie_is_for_the_server_only_and_bound_to_the_host_under_https(world, another):
    plain = world.browser().get("/login").headers["Set-Cookie"]
    assert plain.startswith("corkboard-8000=")
    assert {"HttpOnly", "Path=/", "SameSite=Lax"} <= set(plain.split("; "))
    assert "Secure" not in plain
    https = Browser(another(SITE_URL="https://intranet.example.com"))
    answer = https.get("/login", base_url="https://intranet.example.com")
    secure = answer.headers["Set-Cookie"]
    assert secure.startswith("__Host-corkboard=")
    assert {"HttpOnly", "Path=/", "SameSite=Lax", "Secure"} <= set(secure.split("; "))
    assert "Domain" not in secure
    assert "max-age=" in answer.headers["Strict-Transport-Security"]


def test_a_cookie_is_not_set_again_by_looking(world):
    assert "Set-Cookie" not in world.browser("member").get("/").headers


def test_a_made_up_cookie_is_nobodys(world):
    for made_up in ("", "x", "eyJ0b2tlbiI6IngifQ.aaaaaa.bbbbbb", cookie(world.browser("member")) + "x"):
        assert not is_signed_in(with_cookie(world.app, made_up))


def test_a_token_in_the_database_cannot_be_used_as_it_stands_there(world):
    browser = world.browser()
    with browser.session_transaction() as session:
        session["token"] = row(SignIn, world.sign_ins["admin"]).token_hash
    assert not is_signed_in(browser)


# -- Throttling --------------------------------------------------------------------------------------------------------


def set_throttles_back(key: str) -> None:
    with db.engine.begin() as connection:
        connection.execute(sa.delete(Throttle).where(Throttle.key == corkboard.hash_token(key)))


def fail(world: World, times: int, name: str = "member", **kwargs: Any) -> list[int]:
    browser = world.browser()
    return [log_in(browser, name, "wrong", **kwargs).status_code for _ in range(times)]


def test_an_account_is_tried_ten_times_and_then_everybody_elsewhere_waits(world, another):
    assert fail(world, ACCOUNT_TRIES, **ELSEWHERE) == [422] * ACCOUNT_TRIES
    answer = log_in(world.browser(), **ELSEWHERE)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 90
    assert log_in(world.browser(), **THIRD).status_code == 429, "another address, the same account"
    assert log_in(Browser(another()), **THIRD).status_code == 429, "another process on the same database"
    assert log_in(world.browser(), "editor", **THIRD).status_code == 303, "another account"


def test_nobody_elsewhere_can_keep_a_person_out_where_they_have_signed_in_before(world):
    fail(world, ACCOUNT_TRIES + 5, **ELSEWHERE)
    assert log_in(world.browser()).status_code == 303


def test_an_unknown_name_is_throttled_as_a_known_one_is(world):
    assert fail(world, ACCOUNT_TRIES + 1, "nobody", **ELSEWHERE) == fail(world, ACCOUNT_TRIES + 1, "reader", **THIRD)


def test_an_address_that_tries_many_names_waits_and_others_do_not(world):
    browser = world.browser()
    tried = [log_in(browser, f"name{number}", "wrong", **ELSEWHERE).status_code for number in range(ADDRESS_TRIES)]
    assert tried == [422] * ADDRESS_TRIES
    answer = log_in(browser, **ELSEWHERE)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert log_in(world.browser()).status_code == 303


def test_a_name_that_looks_like_an_id_takes_no_tries_of_a_person(world):
    member = world.people["member"]
    for name, place in ((f"{member}", ELSEWHERE), (f"{member}@203.0.113.9", THIRD)):
        assert fail(world, ACCOUNT_TRIES, name, **place) == [422] * ACCOUNT_TRIES
    for place in ("203.0.113.9", "203.0.113.10"):
        set_throttles_back(f"address:{place}")
        assert log_in(world.browser(), environ_overrides={"REMOTE_ADDR": place}).status_code == 303


def test_a_refused_address_writes_nothing_and_uses_up_no_account(world):
    fail(world, ADDRESS_TRIES + 1, "nobody", **ELSEWHERE)
    for name in (f"name{number}" for number in range(ADDRESS_TRIES)):
        log_in(world.browser(), name, "wrong", **ELSEWHERE)
    before = dump()
    for name in ("editor", "made up", "another"):
        assert fail(world, ACCOUNT_TRIES, name, **ELSEWHERE) == [429] * ACCOUNT_TRIES
    assert not changed(before, dump())
    assert log_in(world.browser(), "editor").status_code == 303


def test_a_clock_that_is_set_back_keeps_nobody_waiting(world, monkeypatch):
    ahead = database.utcnow() + timedelta(days=1)
    with monkeypatch.context() as clock:
        clock.setattr("app.utcnow", lambda: ahead)
        assert fail(world, ACCOUNT_TRIES + 1, **ELSEWHERE)[-1] == 429
    assert log_in(world.browser(), **ELSEWHERE).status_code == 303


def test_after_a_clock_was_set_back_signing_in_again_works_at_once(world, monkeypatch):
    browser = world.browser()
    with monkeypatch.context() as clock:
        clock.setattr("itsdangerous.timed.time.time", lambda: 2**32)
        assert log_in(browser).status_code == 303
        assert is_signed_in(browser)
    assert browser.get("/").status_code == 302
    assert log_in(browser).status_code == 303
    assert is_signed_in(browser)


def test_signing_in_gives_the_tries_of_the_account_back(world):
    for place in (ELSEWHERE, THIRD):
        assert fail(world, ACCOUNT_TRIES - 1, **place) == [422] * (ACCOUNT_TRIES - 1)
        assert log_in(world.browser(), **place).status_code == 303


def test_nobody_is_locked_out_for_ever_however_often_it_was_tried(world):
    fail(world, ACCOUNT_TRIES + 30, **ELSEWHERE)
    latest = value(sa.select(sa.func.max(Throttle.whole_at)))
    assert latest <= database.utcnow() + max(
        corkboard.ACCOUNT_TRY_EVERY * ACCOUNT_TRIES, corkboard.ADDRESS_TRY_EVERY * ADDRESS_TRIES
    )
    with db.engine.begin() as connection:  # a minute and a half later
        for key, whole_at in connection.execute(sa.select(Throttle.key, Throttle.whole_at)).all():
            moved = sa.update(Throttle).where(Throttle.key == key).values(whole_at=whole_at - timedelta(seconds=91))
            connection.execute(moved)
    assert log_in(world.browser(), **ELSEWHERE).status_code == 303


def test_all_of_a_network_of_ipv6_is_one_address(world):
    browser = world.browser()
    tried = [
        log_in(browser, f"name{number}", "wrong", environ_overrides={"REMOTE_ADDR": f"2001:db8::{number:x}"})
        for number in range(ADDRESS_TRIES + 1)
    ]
    assert tried[-2].status_code == 422
    assert tried[-1].status_code == 429


def test_trying_current_passwords_is_limited_too(world):
    browser = world.browser("member")
    typed = {"current": "wrong", "password": NEW_PASSWORD, "confirm": NEW_PASSWORD}
    tried = [browser.submit("/account/password", typed).status_code for _ in range(ACCOUNT_TRIES + 1)]
    assert tried == [422] * ACCOUNT_TRIES + [429]


def test_somebody_who_writes_faster_than_people_do_waits_and_loses_no_text(world, monkeypatch):
    monkeypatch.setattr("app.WRITES", 3)
    path, typed = f"/posts/{world.posts['members']}/comments", {"body": "A remark by a machine"}
    browser, headers = world.browser("member"), {"Origin": "http://localhost"}
    answers = [browser.submit(path, typed, headers=headers) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [303, 303, 303, 429]
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert "A remark by a machine</textarea>" in answers[-1].text
    for what in ("/account/appearance", f"/posts/{world.posts['members']}/react", "/posts/new"):
        assert browser.submit(what, {}).status_code == 429, what
    assert browser.get("/").status_code == 200
    assert browser.submit("/posts/autosave", {"title": "x"}).status_code != 429
    assert browser.submit("/files").status_code != 429
    assert world.browser("editor").submit(path, typed).status_code == 303


# -- Passwords ---------------------------------------------------------------------------------------------------------


def test_passwords_are_hashed_as_owasp_asks():
    assert SCRYPT == "scrypt:32768:8:3"
    assert corkboard.HASHES_AT_ONCE == 2


@pytest.mark.parametrize(
    ("password", "fits"),
    [
        ("a" * 6 + "7", False),
        ("xq" * 4, True),
        ("x" * 256, True),
        ("x" * 257, False),
        ("password", False),
        ("PassWord123", False),
        ("corkboard", False),
        ("ｐａｓｓｗｏｒｄ", False),  # what the keyboard of another script makes of it, and the same password
        ("пароль из слов", True),
        ("three little words", True),
        ("        ", True),  # no rule but length
    ],
)
def test_only_length_and_the_commonest_decide_about_a_password(world, password, fits):
    typed = {"current": PASSWORD, "password": password, "confirm": password}
    answer = world.browser("member").submit("/account/password", typed)
    assert answer.status_code == (303 if fits else 422)
    assert (corkboard.weak_password(password) is None) == fits
    if fits:
        assert log_in(world.browser(), password=password).status_code == 303


def test_a_password_is_the_same_on_every_keyboard(world):
    typed = {"current": PASSWORD, "password": "cafe\u0301 au lait", "confirm": "cafe\u0301 au lait"}
    assert world.browser("member").submit("/account/password", typed).status_code == 303
    assert log_in(world.browser(), password="café au lait").status_code == 303
    assert log_in(world.browser(), password="cafe au lait").status_code == 422


def test_a_password_must_be_repeated_and_the_current_one_known(world):
    for wrong in ({"confirm": "another one"}, {"current": "wrong"}, {"current": ""}):
        typed = {"current": PASSWORD, "password": NEW_PASSWORD, "confirm": NEW_PASSWORD} | wrong
        assert world.browser("member").submit("/account/password", typed).status_code == 422
    assert not changed(world.rows, dump(), but=("throttles",))


def test_an_administrator_is_led_to_where_their_current_password_is_asked_for(world):
    own, other = (world.browser("admin").get(f"/admin/people/{world.people[who]}").text for who in ("admin", "member"))
    assert 'href="/account/password"' in own
    assert "Make link" not in own
    assert "Make link" in other


def test_a_password_under_older_parameters_is_hashed_anew_at_the_next_sign_in(world):
    member = world.people["member"]
    set_columns(User, member, password_hash=generate_password_hash(PASSWORD, method="scrypt:512:8:1"))
    assert log_in(world.browser(), password="wrong").status_code == 422
    assert row(User, member).password_hash.startswith("scrypt:512:8:1$")
    assert log_in(world.browser()).status_code == 303
    assert row(User, member).password_hash.startswith(CHEAP_SCRYPT + "$")
    assert log_in(world.browser()).status_code == 303


def test_a_password_never_comes_back_in_a_page(world):
    typed = {"current": PASSWORD, "password": NEW_PASSWORD, "confirm": "another"}
    assert NEW_PASSWORD not in world.browser("member").submit("/account/password", typed).text
    assert "a wrong one" not in log_in(world.browser(), password="a wrong one").text


def test_two_hash_at_once_and_the_others_queue(app, monkeypatch):
    at_work, most = [], []

    def hash_slowly(_password: str, method: str) -> str:
        at_work.append(method)
        most.append(len(at_work))
        time.sleep(0.05)
        at_work.pop()
        return method

    monkeypatch.setattr("app.generate_password_hash", hash_slowly)
    hashes = at_once(app, *[lambda: corkboard.hash_password(PASSWORD)] * 12)
    assert hashes == [CHEAP_SCRYPT] * 12
    assert max(most) == 2


def test_a_sign_in_that_finds_no_turn_is_asked_to_come_back_in_a_moment(world, monkeypatch):
    monkeypatch.setattr("app.HASH_WAIT_SECONDS", 0.01)
    with corkboard.turn_to_hash(), corkboard.turn_to_hash():
        answer = log_in(world.browser())
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "3"
    assert log_in(world.browser()).status_code == 303


# -- Where `next` leads ------------------------------------------------------------------------------------------------

HOSTILE_TARGETS = [
    "", " ", "people", "?q=x", "#top", ".", "..", "../admin", "@evil.example",
    "//evil.example", "///evil.example", "////evil.example", "//evil.example/%2f..", "//", "///",
    "/\\evil.example", "\\\\evil.example", "\\/evil.example", "/\\/evil.example", "/people\\..\\evil.example",
    "/\t/evil.example", "/\n/evil.example", "/\r/evil.example", "\t//evil.example", "/people\r\nSet-Cookie: a=b",
    "/ /evil.example", " //evil.example", "\x00//evil.example", "/\x00/evil.example", "/\x0b/evil.example",
    "/\x7f/evil.example", "http://evil.example", "https:evil.example", "http:/\\evil.example", "HTTPS://evil.example",
    "javascript:alert(1)", "java\nscript:alert(1)", "data:text/html,<script>alert(1)</script>", "vbscript:x",
    "http://localhost/", "http://localhost@evil.example/", "ftp://evil.example", "mailto:a@evil.example",
    "//evil.example:80/people", "//[::1]/", "//user@evil.example", "\ufeff//evil.example", "http://[evil",
]  # fmt: skip
LOCAL_TARGETS = ["/", "/people", "/people?q=ida&next=//evil.example", "/posts/1#comment-2", "/a//b", "/%5Cevil.example",
                 "/%09/evil.example", "/people?next=http://evil.example", "/:80", "/@evil.example"]  # fmt: skip


def stays_here(target: str) -> bool:
    """Whether a browser that is at the sign-in stays on this site (the WHATWG's rules, as far as they lead astray)."""
    read = target.strip("".join(map(chr, range(33))))
    read = re.sub(r"[\t\n\r]", "", read).replace("\\", "/")
    parts = urlsplit(urljoin("http://here.example/login", read))
    return parts.scheme == "http" and parts.netloc == "here.example"


@pytest.mark.parametrize("target", HOSTILE_TARGETS)
def test_a_hostile_next_is_not_followed(target):
    assert not corkboard.is_local_path(target)


@pytest.mark.parametrize("target", LOCAL_TARGETS)
def test_a_local_next_is_followed(target):
    assert corkboard.is_local_path(target)
    assert stays_here(target)


PIECES = st.sampled_from(
    ["/", "\\", ":", "@", "//", "http", "javascript:", "\t", "\n", "\x00", "%2f", "[", "evil.example"]
)


@given(st.lists(PIECES | st.characters(exclude_categories=["Cs"]), max_size=8).map("".join))
@hypothesis_settings(max_examples=1000 if REQUIRE_ALL else 100, deadline=None, database=None, derandomize=True)
def test_whatever_is_taken_for_local_keeps_a_browser_here(target):
    if corkboard.is_local_path("/" + target):
        assert stays_here("/" + target)
    if corkboard.is_local_path(target):
        assert stays_here(target)


def test_the_sign_in_leads_nowhere_else(world):
    browser = world.browser("member")
    led = {target: browser.get("/login", query_string={"next": target}).location for target in HOSTILE_TARGETS}
    assert set(led.values()) == {"/"}, led
    for target in LOCAL_TARGETS:
        assert stays_here(browser.get("/login", query_string={"next": target}).location)
    assert log_in(world.browser(), path="/login?next=//evil.example").location == "/"


# -- Registering -------------------------------------------------------------------------------------------------------


def register(world: World, email: str = "ida@example.com", **more: str) -> Any:
    return world.browser().submit("/register", world.filling("auth.register") | {"email": email} | more)


def test_nobody_registers_where_registration_is_closed(world):
    assert world.browser().get("/register").status_code == 404
    assert register(world).status_code == 404
    assert not changed(world.rows, dump())


@pytest.mark.parametrize("role", ["reader", "member"])
def test_whoever_registers_is_signed_in_with_the_role_of_the_settings(world, role):
    set_settings(world.app, registration="open", registration_role=role)
    browser = world.browser()
    answer = browser.submit("/register", world.filling("auth.register") | {"role": "40", "registration_role": "admin"})
    assert answer.status_code == 303
    assert is_signed_in(browser)
    assert value(sa.select(User.role).where(User.username == "ida")) == Role[role.upper()]
    assert browser.get("/posts/new").status_code == (200 if role == "member" else 403)


@pytest.mark.parametrize(
    ("email", "status"),
    [
        ("ida@example.com", 303),
        ("ida@EXAMPLE.com", 303),
        ("ida@example.org", 303),
        ("ida@sub.example.com", 422),
        ("ida@notexample.com", 422),
        ("ida@example.com.evil.example", 422),
        ("ida@example.com@evil.example", 422),
        ("ida@evil.example", 422),
        ("", 422),
        ("ida", 422),
    ],
)
def test_where_only_some_domains_register_no_other_does(world, email, status):
    set_settings(world.app, registration="domains", registration_domains="example.com, Example.ORG")
    assert register(world, email).status_code == status


@pytest.mark.parametrize(
    "taken", [{"username": "Member"}, {"email": "MEMBER@example.com"}, {"username": "ｍｅｍｂｅｒ"}, {"name": ""}]
)
def test_a_name_or_mail_address_that_somebody_has_is_refused(world, taken):
    set_settings(world.app, registration="open")
    before = dump()
    assert register(world, **taken).status_code == 422
    assert not changed(before, dump(), but=("throttles",))


def test_registering_is_limited_by_address(world):
    set_settings(world.app, registration="open")
    tried = [register(world, f"ida{number}@example.com", username="member").status_code for number in range(11)]
    assert tried == [422] * 10 + [429]


# -- CSRF --------------------------------------------------------------------------------------------------------------

POSTS = sorted(endpoint for endpoint, method in MATRIX if method == "POST" and not endpoint.startswith("api."))
SIGNED = {"account.unsubscribe"}  # the signature in its address is the permission (RFC 8058)
WITH_BACKUPS = {name for name in POSTS if "backup" in name}  # they have no fields, and a second time other files


def accepted(endpoint: str) -> Cell:
    """A person and an object for which a POST is carried out, an administrator where possible."""
    cells = [cell for cell in MATRIX[endpoint, "POST"] if cell.writes] or MATRIX[endpoint, "POST"]
    return next((cell for cell in cells if cell.person == "admin"), cells[0])


@pytest.mark.parametrize("endpoint", sorted({*POSTS} - SIGNED))
def test_a_form_without_its_token_or_with_anothers_changes_nothing(world, endpoint):
    cell = accepted(endpoint)
    path, stranger = address(world, endpoint, cell), world.browser("stranger")
    for token in ({}, {"csrf_token": "made-up"}, {"csrf_token": stranger.csrf_token()}):
        answer = world.browser(cell.person).post(path, data=world.filling(endpoint) | token)
        assert answer.status_code == 400, token
    assert world.browser().post(path, data=world.filling(endpoint)).status_code == 400
    assert not changed(world.rows, dump())


# -- What forms cannot set ---------------------------------------------------------------------------------------------

COLUMNS = {column.name for table in db.metadata.tables.values() for column in table.columns}
VALUES = {"role": "40", "kind": "page", "registration": "open", "registration_role": "admin"}
SMUGGLED = {name: VALUES.get(name, "1") for name in {*COLUMNS, "pinned", "is_admin", "admin", "access"}}
DATES = {"scheduled_for": "", "expires_at": ""}
GENUINE = {  # what the filling leaves empty
    "topics.manage": {"private", "followed_by_default"}, "topics.edit": {"followed_by_default"}, "posts.new": DATES,
    "posts.edit": DATES, "posts.begin_draft": DATES, "posts.autosave": DATES,
}  # fmt: skip
RANDOM = {"form_id", "token_hash", "prefix", "password_hash", "key", "object_id", "stored"}


def comparable(rows: Rows, world: World) -> dict[str, list[dict[str, Any]]]:
    """Rows without times and random values, and with the ids of new ones all alike."""
    known = {name: {entry.get("id") for entry in entries} for name, entries in world.rows.items()}
    cleaned: dict[str, list[dict[str, Any]]] = {}
    for table in db.metadata.sorted_tables:
        if table.name == "search_entries":  # made of the others' rows, with their ids among the words
            continue
        targets = {"actor_id": "users", "activity_id": "activities", "id": table.name}  # activities have no keys
        targets |= {column.name: key.column.table.name for column in table.c for key in column.foreign_keys}
        cleaned[table.name] = [
            {
                name: "new" if name in targets and value and value not in known[targets[name]] else value
                for name, value in entry.items()
                if name not in RANDOM and not name.endswith(("_at", "_since")) and name != "at"
            }
            for entry in rows[table.name]
        ]
    return cleaned


@pytest.mark.parametrize("endpoint", sorted({*POSTS} - WITH_BACKUPS))
def test_fields_that_a_form_does_not_have_change_nothing(world, endpoint):
    if endpoint == "auth.register":
        set_settings(world.app, registration="open")
    cell = accepted(endpoint)
    person = "member" if any(cell.person == "member" and cell.writes for cell in MATRIX[endpoint, "POST"]) else "admin"
    path = address(world, endpoint, cell._replace(person=person))
    typed = world.filling(endpoint)
    smuggled = {name: text for name, text in SMUGGLED.items() if name not in GENUINE.get(endpoint, ())}
    start = dump()
    outcomes = []
    for fields in (typed, smuggled | typed):
        answer = world.browser(person).submit(path, fields, buffered=True)
        outcomes.append((answer.status_code, comparable(dump(), world)))
        put_back(start)
    assert outcomes[0][0] == outcomes[1][0]
    assert outcomes[0][1] == outcomes[1][1]


def test_nobody_becomes_an_author_an_editor_or_an_admin_by_a_field(world):
    browser, member = world.browser("member"), world.people["member"]
    browser.submit("/account", world.filling("account.profile") | SMUGGLED | {"name": "Member", "role": "40"})
    assert row(User, member).role == Role.MEMBER
    assert row(User, member).username == "member"
    written = SMUGGLED | DATES | world.filling("posts.new") | {"author_id": str(world.people["admin"])}
    browser.submit("/posts/new", written)
    made = row(Post, value(sa.select(sa.func.max(Post.id))))
    assert (made.author_id, made.pinned_at, made.version, made.comment_count) == (member, None, 1, 0)
    browser.submit(f"/posts/{world.posts['members']}/comments", SMUGGLED | {"body": "Mine"})
    said = row(Comment, value(sa.select(sa.func.max(Comment.id))))
    assert (said.author_id, said.post_id, said.body) == (member, world.posts["members"], "Mine")


# -- A sign-in that ends while somebody writes -------------------------------------------------------------------------

# What keeps what was typed, with a word of its filling that must come back.
OURS = {"Origin": "http://localhost"}


def end_sign_in(world: World, person: str) -> None:
    set_columns(SignIn, world.sign_ins[person], ended_at=database.utcnow())


def test_a_text_that_was_sent_after_the_sign_in_ended_is_shown_to_copy(world):
    browser, before = world.browser("member"), dump()
    end_sign_in(world, "member")
    typed = {"title": "A title", "body": 'First <b>line</b>\n\n"second" & more', "password": "eight green bottles"}
    answer = browser.submit("/posts/new", typed, headers=OURS)
    assert answer.status_code == 401
    assert "You&#39;ve been signed out" in answer.text
    assert 'href="/login"' in answer.text
    assert texts_to_copy(answer) == {"Title": typed["title"], "Text": typed["body"]}
    assert "eight green bottles" not in answer.text
    assert not changed(before, dump(), but=("sign_ins",))


def test_signing_out_in_another_window_loses_no_text_either(world):
    browser = world.browser("member")
    token = browser.csrf_token()
    browser.submit("/logout")
    typed = {"body": "A remark", "csrf_token": token}
    answer = browser.post(f"/posts/{world.posts['members']}/comments", data=typed, headers=OURS)
    assert answer.status_code == 400
    assert "You&#39;ve been signed out" in answer.text
    assert texts_to_copy(answer) == {"Text": "A remark"}


def test_a_page_from_before_the_latest_sign_in_was_open_too_long(world):
    browser = world.browser("member")
    token = browser.csrf_token()
    log_in(browser)
    for path in ("/posts/new", "/login"):
        answer = browser.post(path, data={"title": "A title", "csrf_token": token}, headers=OURS)
        assert answer.status_code == 400
        assert "This page was open too long" in answer.text
        assert texts_to_copy(answer) == {"Title": "A title"}


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ({"Origin": "http://localhost"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://localhost.evil.example"}, False),
        ({"Origin": "http://localhost:8000"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://evil.example"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
    ],
)
def test_a_text_is_shown_only_if_a_page_of_this_site_sent_it(world, headers, shown):
    for browser in (world.browser("member"), world.browser()):
        answer = browser.post("/posts/new", data={"body": "Please sign in at evil.example"}, headers=headers)
        assert answer.status_code == 400
        assert ("evil.example" in answer.text) is shown


@pytest.mark.parametrize("endpoint", POSTS)
def test_an_ended_sign_in_changes_nothing_whatever_is_sent(world, endpoint):
    end_sign_in(world, "admin")
    before = dump()
    cell = accepted(endpoint)._replace(person="admin")
    if MATRIX[endpoint, "POST"][0].expected == "in":
        assert world.browser("admin").submit(address(world, endpoint, cell), world.filling(endpoint)).status_code == 401
        assert not changed(before, dump())


@pytest.mark.parametrize("letter", ["a", "ж", "漢", "😀"])
def test_the_longest_text_can_be_saved_and_is_shown_after_an_ended_sign_in(world, letter):
    longest = world.filling("posts.new") | {"body": letter * corkboard.BODY_MAX}
    browser = world.browser("member")
    assert browser.submit("/posts/new", longest).status_code == 303
    assert value(sa.select(sa.func.char_length(Post.body) if db.engine.name != "sqlite" else sa.func.length(Post.body))
                 .order_by(Post.id.desc()).limit(1)) == corkboard.BODY_MAX  # fmt: skip
    end_sign_in(world, "member")
    answer = browser.submit("/posts/new", longest, headers=OURS)
    assert answer.status_code == 401
    assert texts_to_copy(answer)["Text"] == longest["body"]


# -- The last administrator --------------------------------------------------------------------------------------------


def manage(world: World, who: str, name: str, what: str, **typed: str) -> Any:
    return world.browser(who).submit(f"/admin/people/{world.people[name]}/{what}", typed)


def admins() -> int:
    return value(
        sa.select(sa.func.count()).select_from(User).where(User.role == Role.ADMIN, User.deactivated_at.is_(None))
    )


def test_nobody_changes_their_own_role_deactivates_themselves_or_passes_over_their_current_password(world):
    set_columns(User, world.people["editor"], role=Role.ADMIN)
    before = dump()
    for role in Role:
        assert manage(world, "admin", "admin", "role", role=str(int(role))).status_code == 422
    for what in ("deactivate", "link"):
        assert manage(world, "admin", "admin", what).status_code == 422
    assert not changed(before, dump(), but=("throttles",))
    assert manage(world, "editor", "admin", "role", role="30").status_code == 303
    assert manage(world, "admin", "editor", "role", role="30").status_code == 403
    assert admins() == 1


@pytest.mark.parametrize(
    "put_out", [User.deactivate, User.erase, lambda actor, user_id: User.set_role(actor, user_id, Role.EDITOR)]
)
def test_two_administrators_who_put_each_other_out_at_once_leave_one(world, put_out):
    first, second = world.users["admin"], world.users["editor"]
    for _round in range(5):
        for person in (first, second):
            set_columns(User, person.id, role=Role.ADMIN, deactivated_at=None, erased_at=None)
        outcomes = at_once(
            world.app, lambda: put_out(first, second.id), lambda: User.set_role(second, first.id, Role.EDITOR)
        )
        assert admins() == 1, outcomes
        assert sum(outcome is None for outcome in outcomes) == 1


# -- Setting the site up -----------------------------------------------------------------------------------------------


def set_up(app: Flask, token: str, **more: str) -> Any:
    return Browser(app).submit(f"/setup?token={token}", FILLINGS["auth.setup"] | more)


def test_the_link_makes_the_first_admin_once_and_is_gone_for_ever(app):
    token = Setting.renew_setup_token()
    browser = Browser(app)
    assert browser.get(f"/setup?token={token}").status_code == 200
    answer = set_up(app, token)
    assert answer.status_code == 303
    assert answer.location == "/admin"
    assert admins() == 1
    for again in (token, "wrong", ""):
        assert Browser(app).get(f"/setup?token={again}").status_code == 404
        assert set_up(app, again, username="second", email="second@example.com").status_code == 404
    assert value(sa.select(sa.func.count()).select_from(User)) == 1


def test_what_is_wrong_with_the_set_up_is_listed_in_the_order_of_its_fields(app):
    with app.app_context():
        token = Setting.renew_setup_token()
    page = Browser(app).submit(f"/setup?token={token}", dict.fromkeys(FILLINGS["auth.setup"], "")).text
    listed = ["site_name", "name", "username", "email", "password", "confirm"]
    assert re.findall(r'<li><a href="#(\w+)">', page) == listed


def test_there_is_nothing_to_set_up_before_a_link_was_made(app):
    assert Browser(app).get("/setup").status_code == 404
    assert set_up(app, "anything").status_code == 404


def test_a_wrong_link_is_refused_and_trying_is_limited(app):
    token = Setting.renew_setup_token()
    before = dump()
    wrong = [set_up(app, tried).status_code for tried in ("", "wrong", token[:-1], token + "x", token.swapcase())]
    assert wrong == [403] * 5
    assert [Browser(app).get("/setup?token=x").status_code for _ in range(6)] == [403] * 5 + [429]
    assert not changed(before, dump(), but=("throttles",))
    assert set_up(app, token).status_code == 303, "whoever has the link is not kept out"


def test_a_new_link_ends_the_one_before(app):
    old, new = Setting.renew_setup_token(), Setting.renew_setup_token()
    assert set_up(app, old).status_code == 403
    assert set_up(app, new).status_code == 303
    with pytest.raises(corkboard.ValidationError):
        Setting.renew_setup_token()


def test_two_who_set_the_site_up_at_once_leave_one_admin(app):
    token = Setting.renew_setup_token()
    typed = [{"username": f"ida{number}", "email": f"ida{number}@example.com"} for number in range(4)]
    answers = at_once(app, *(lambda more=more: set_up(app, token, **more).status_code for more in typed))
    assert sorted(answers) == [303, 404, 404, 404]
    assert value(sa.select(sa.func.count()).select_from(User)) == 1
    assert value(sa.select(sa.func.count()).select_from(Topic)) == 1
