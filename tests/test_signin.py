"""Getting back in, the second factor, steps that come before all else; and what attackers try against all of it."""

from __future__ import annotations

import contextlib
import html
import re
import time
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import PASSWORD, Browser, together
from flask import Flask
from pyotp.totp import TOTP
from snapshot import changed, dump
from test_access import (
    ELSEWHERE,
    NEW_PASSWORD,
    be_deactivated,
    change_password,
    cookie,
    is_signed_in,
    log_in,
    session_of,
    sign_out,
    with_cookie,
)
from werkzeug.security import check_password_hash
from world import World, row, set_columns, set_settings, stand_up, value

import app as corkboard
from app import Activity, ApiToken, OutgoingMail, ResetLink, User
from database import db, utcnow

CHOSEN = {"password": NEW_PASSWORD, "confirm": NEW_PASSWORD}
SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
SAME_WORDS = "If this account exists and has an email address, a link is on its way."


pytestmark = pytest.mark.usefixtures("cheap_hashes")


@pytest.fixture
def world(app: Flask) -> World:
    return stand_up(app)


@pytest.fixture
def mail_on(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.config, "MAIL_SERVER", "127.0.0.1")
    monkeypatch.setitem(app.config, "MAIL_FROM", "board@example.com")


def queued(kind: str) -> list[int]:
    """The people to whom emails of a kind wait."""
    with db.engine.connect() as connection:
        return list(connection.scalars(sa.select(OutgoingMail.user_id).where(OutgoingMail.kind == kind)))


def text_of_mail(world: World) -> str:
    """The plain text of the newest email."""
    mail = db.session.scalar(sa.select(OutgoingMail).order_by(OutgoingMail.id.desc()))
    assert mail is not None
    written: Any = corkboard.write_mail(mail, ())
    return f"{written['Subject']}\n{written.get_body(('plain',)).get_content()}"


def code_now(secret: str = SECRET, steps: int = 0) -> str:
    """The code that an app shows, so many steps of 30 seconds from now."""
    return TOTP(secret).at(int(time.time()) + 30 * steps)


def with_second_factor(world: World, name: str = "member") -> list[str]:
    """Turn somebody's second factor on. Returns their recovery codes."""
    codes = User.turn_on_second_factor(world.users[name], SECRET, code_now())
    set_columns(User, world.people[name], totp_step=0)  # so that the present code fits once more
    return codes


def after_password(world: World, name: str = "member", **more: Any) -> Browser:
    """A browser in which somebody's password was given, and no code yet."""
    browser = world.browser()
    assert log_in(browser, name, **more).location.startswith("/login/code")
    return browser


def give_code(browser: Browser, code: str, path: str = "/login/code") -> Any:
    return browser.submit(path, {"code": code})


def done_to(user_id: int) -> list[str]:
    """What was done to a person, the newest first."""
    theirs = sa.select(Activity.action).where(Activity.object_type == "user", Activity.object_id == user_id)
    with db.engine.connect() as connection:
        return list(connection.scalars(theirs.order_by(Activity.id.desc())))


# -- Getting back in by email ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["member", "Member@Example.com"])
def test_a_forgotten_password_is_replaced_by_a_link_in_an_email(world, mail_on, name):
    answer = world.browser().submit("/reset", {"username": name})
    assert answer.location == "/login"
    assert queued("reset") == [world.people["member"]]
    link = re.search(r"http://\S+(/reset/\S+)", text_of_mail(world))
    assert link
    assert "For Member." in world.browser().get(link[1]).text
    assert world.browser().submit(link[1], CHOSEN).location == "/login"
    assert log_in(world.browser(), password=NEW_PASSWORD).status_code == 303
    assert log_in(world.browser(), password=PASSWORD).status_code == 422


def test_whoever_asks_hears_the_same_whether_there_is_such_a_person_or_not(world, mail_on):
    set_columns(User, world.people["reader"], email=None, email_key=None)
    pages, sent = set(), list[int]()
    for name in ("member", "nobody", "gone", "reader"):
        browser = world.browser()
        assert browser.submit("/reset", {"username": name}).status_code == 303
        pages.add(re.sub(r'"csrf.token" (value|content)="[^"]+"', "", browser.get("/login").text))
    assert len(pages) == 1
    assert SAME_WORDS in pages.pop()
    while claimed := OutgoingMail.claim():
        sent.append(claimed[0].user_id)
    assert sent == [world.people["member"]], "nobody else has an account that opens and an address"


def test_without_a_mail_server_the_page_says_who_helps(world):
    page = world.browser().get("/reset").text
    assert "Ask an administrator." in page
    assert 'name="username"' not in page
    assert world.browser().submit("/reset", {"username": "member"}).status_code == 200
    assert not queued("reset")


def test_a_link_leads_to_the_sites_own_address_whatever_host_was_asked(world, mail_on, monkeypatch):
    monkeypatch.setitem(world.app.config, "SITE_URL", "https://intranet.example.com")
    assert by_another_host(world, world.browser(), "/reset", username="member").status_code == 303
    assert "https://intranet.example.com/reset/" in text_of_mail(world)
    page = by_another_host(world, world.browser("admin"), f"/admin/people/{world.people['member']}/link").text
    assert "https://intranet.example.com/reset/" in page
    assert "127.0.0.1:666" not in page


def by_another_host(world: World, browser: Browser, path: str, **data: str) -> Any:
    """Send a form with a Host header that the site answers to and that is not its own address."""
    form, name = {"csrf_token": browser.csrf_token(), **data}, world.app.config["SESSION_COOKIE_NAME"]
    headers = {"Host": "127.0.0.1:666", "Cookie": f"{name}={cookie(browser)}"}
    return world.app.test_client(use_cookies=False).post(path, data=form, headers=headers)


def test_asking_is_limited_for_each_name_and_for_each_address(world, mail_on):
    ask = lambda name, **more: world.browser().submit("/reset", {"username": name}, **more).status_code  # noqa: E731
    assert [ask("member") for _ in range(4)] == [303, 303, 303, 429]
    assert [ask("nobody") for _ in range(4)] == [303, 303, 303, 429]
    assert [ask("127.0.0.1") for _ in range(4)] == [303, 303, 303, 429], "a name like the address it comes from"
    assert ask("reader", **ELSEWHERE) == 303
    assert 429 in [ask(f"name{number}", **ELSEWHERE) for number in range(corkboard.TEAM_TRIES)]


# -- Links -------------------------------------------------------------------------------------------------------------


def test_a_link_works_once_and_for_30_minutes(world):
    link = f"/reset/{world.reset_links['keepers']}"
    with db.engine.begin() as connection:
        connection.execute(sa.update(ResetLink).values(expires_at=utcnow() - timedelta(seconds=1)))
    assert world.browser().get(link).status_code == 410
    with db.engine.begin() as connection:
        connection.execute(sa.update(ResetLink).values(expires_at=utcnow() + timedelta(minutes=30)))
    assert world.browser().submit(link, CHOSEN).status_code == 303
    for answer in (world.browser().get(link), world.browser().submit(link, CHOSEN)):
        assert answer.status_code == 410
        assert "Forgot your password?" in answer.text


def test_a_weak_or_mistyped_password_does_not_use_the_link_up(world):
    link = f"/reset/{world.reset_links['keepers']}"
    for wrong in ({"password": "short", "confirm": "short"}, CHOSEN | {"confirm": "another one"}):
        assert world.browser().submit(link, wrong).status_code == 422
    assert world.browser().submit(link, CHOSEN).status_code == 303


def test_a_link_ends_sign_ins_and_tokens_and_tells_the_person(world, mail_on):
    browser = world.browser("keeper")
    assert world.browser().submit(f"/reset/{world.reset_links['keepers']}", CHOSEN).status_code == 303
    assert not is_signed_in(browser)
    assert not value(sa.select(ApiToken.id).where(ApiToken.user_id == world.people["keeper"]))
    assert queued("password") == [world.people["keeper"]]
    assert "Your password was changed" in text_of_mail(world)
    assert done_to(world.people["keeper"])[0] == "person.password_by_link"


def test_a_new_link_ends_the_one_before_and_a_changed_password_or_a_deactivation_every_one(world):
    old, admin = f"/reset/{world.reset_links['keepers']}", world.users["admin"]
    new = f"/reset/{ResetLink.create(world.people['keeper'], admin)}"
    assert world.browser().get(old).status_code == 410
    assert world.browser().get(new).status_code == 200
    User.change_password(world.users["keeper"], "x")
    assert world.browser().get(new).status_code == 410
    newest = f"/reset/{ResetLink.create(world.people['keeper'], admin)}"
    User.deactivate(admin, world.people["keeper"])
    assert world.browser().get(newest).status_code == 410
    User.reactivate(admin, world.people["keeper"])
    assert world.browser().get(newest).status_code == 410


def test_a_link_ends_when_the_person_has_another_email_address(world):
    link = f"/reset/{ResetLink.create(world.people['keeper'])}"
    User.edit_profile(world.users["keeper"], title="Baker")
    assert world.browser().get(link).status_code == 200
    User.edit_profile(world.users["keeper"], email="keeper@elsewhere.example")
    assert world.browser().get(link).status_code == 410


def test_a_link_signs_nobody_in_and_passes_by_no_second_factor(world):
    with_second_factor(world, "keeper")
    link = f"/reset/{ResetLink.create(world.people['keeper'])}"
    browser = world.browser()
    browser.submit(link, CHOSEN)
    assert not is_signed_in(browser)
    assert log_in(browser, "keeper", NEW_PASSWORD).location == "/login/code"
    assert not is_signed_in(browser)


def test_an_administrator_hands_over_a_link_that_is_shown_once_with_a_qr_code(world):
    page = world.browser("admin").submit(f"/admin/people/{world.people['member']}/link").text
    link = re.search(r"http://[^/]+(/reset/[\w-]+)</span>", page)
    assert link
    assert "<svg" in page
    assert f'{link[1]}"' in page, "a button copies it"
    assert world.browser().get(link[1]).status_code == 200
    assert "person.link" in done_to(world.people["member"])


# -- A password that somebody else made --------------------------------------------------------------------------------

ELSEWHERE_ON_THE_SITE = (
    "/",
    "/handbook",
    "/people",
    "/account",
    "/account/tokens",
    "/account/security",
    "/search",
)


def test_a_password_that_an_administrator_made_is_changed_before_anything_else(world):
    filled = world.filling("admin.new_person") | {"password": ""}
    page = world.browser("admin").submit("/admin/people/new", filled).text
    given = re.search(r'<code class="password">([^<]+)<', page)
    assert given
    browser = world.browser()
    log_in(browser, "ida", given[1])
    assert {browser.get(path).location for path in ELSEWHERE_ON_THE_SITE} == {"/account/password"}
    page = browser.get("/account/password").text
    assert "Choose your own password" in page
    assert 'href="/handbook"' not in page
    same = {"current": given[1], "password": given[1], "confirm": given[1]}
    assert browser.submit("/account/password", same).status_code == 422
    answer = browser.submit("/account/password", same | CHOSEN)
    assert (answer.status_code, answer.location) == (303, "/")
    assert browser.get("/").status_code == 200


def test_a_person_whom_an_administrator_adds_has_to_choose_a_password_and_one_who_signs_up_does_not(world):
    filled = world.filling("admin.new_person")
    world.browser("admin").submit("/admin/people/new", filled)
    browser = world.browser()
    assert log_in(browser, "ida").status_code == 303
    assert browser.get("/").location == "/account/password"
    set_settings(world.app, registration="open")
    other = world.browser()
    other.submit("/register", world.filling("auth.register") | {"username": "ove", "email": "ove@example.com"})
    assert other.get("/").status_code == 200


# -- Forced states can do nothing else ---------------------------------------------------------------------------------


def force_password(world: World) -> str:
    set_columns(User, world.people["admin"], must_change_password=True)
    return "/account/password"


def force_second_factor(world: World) -> str:
    set_settings(world.app, second_factor_role="admin")
    return "/account/security"


@pytest.mark.parametrize("force", [force_password, force_second_factor])
def test_who_has_to_take_a_step_first_can_do_nothing_else(world, force):
    step, browser, rules = force(world), world.browser("admin"), world.app.url_map.bind("localhost")
    before, wrong = dump(), []
    for rule in world.app.url_map.iter_rules():
        view = world.app.view_functions[rule.endpoint]
        if getattr(view, "access", "public") == "public" or rule.rule == step or rule.endpoint == "auth.logout":
            continue
        known = {"filename": "x.css", "name": "a.png", "job": "mail", "size": "medium", "backup_name": "made.zip"}
        known |= {"slug": "open", "username": "member", "token": "x"}
        path = rules.build(rule.endpoint, {name: known.get(name, 1) for name in rule.arguments})
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            sent: Any = {"json": {}} if path.startswith("/api/") and method != "GET" else {}
            answer = browser.open(path, method=method, headers={"X-CSRFToken": browser.csrf_token()}, **sent)
            led = method == "GET" and answer.location == step
            if not led and answer.status_code != 403:
                wrong.append(f"{method} {path}: {answer.status_code} {answer.location}")
    assert not wrong, "\n".join(wrong)
    assert not changed(before, dump())
    assert browser.submit("/logout").status_code == 303


@pytest.mark.parametrize("force", [force_password, force_second_factor])
def test_the_tokens_and_feeds_of_who_has_to_take_a_step_first_open_nothing(world, force):
    force(world)
    bearer = {"Authorization": f"Bearer {world.raw_tokens['admin']}"}
    for path in ("/api/v1/posts", "/api/v1/activity", "/api/v1/me"):
        assert world.browser().get(path, headers=bearer).status_code == 403
    assert world.browser().post("/api/v1/topics", headers=bearer, json={"name": "New"}).status_code == 403
    for feed in ("/feed.atom", "/feed.ics"):
        assert world.browser().get(f"{feed}?token={world.raw_tokens['admin']}").status_code == 403
    assert world.browser().get(f"/feed.atom?token={world.raw_tokens['member']}").status_code == 200


def test_what_was_typed_when_a_step_became_necessary_is_shown_to_copy(world):
    browser = world.browser("admin")
    force_second_factor(world)
    path, sent = f"/posts/{world.posts['members']}/comments", {"body": "A long remark"}
    answer = browser.submit(path, sent, headers={"Origin": "http://localhost"})
    assert answer.status_code == 403
    assert "A long remark</textarea>" in answer.text


# -- Setting up the second factor --------------------------------------------------------------------------------------


def set_up(browser: Browser) -> tuple[str, list[str]]:
    """Turn two-step sign-in on as people do. Returns the key and the recovery codes."""
    page = browser.get("/account/security").text
    shown = re.search(r'class="key">\s*<code>([^<]+)<', page)
    assert shown
    key = shown[1].replace(" ", "")
    code = code_now(key)
    answer = browser.submit("/account/security", {"code": f"{code[:3]} {code[3:]}"})
    assert answer.status_code == 200
    return key, re.findall(r"<code>([a-z2-9-]{14})</code>", answer.text)


def test_a_person_turns_two_step_sign_in_on_and_signs_in_with_a_code(world):
    browser = world.browser("member")
    key, codes = set_up(browser)
    assert len({*codes}) == 10
    assert codes[0] not in browser.get("/account/security").text
    second = after_password(world)
    assert not is_signed_in(second)
    assert give_code(second, code_now(key, 1)).location == "/"
    assert is_signed_in(second)
    assert done_to(world.people["member"])[:2].count("person.signed_in") == 1


def test_the_key_waits_in_the_session_until_a_code_shows_that_the_app_has_it(world):
    browser, before = world.browser("member"), dump()
    page = browser.get("/account/security").text
    assert "<svg" in page
    assert 'autocomplete="one-time-code"' in page
    assert 'inputmode="numeric"' in page
    secret = session_of(browser)["totp_secret"]
    assert f"secret={secret}" in html.unescape(page)
    assert secret in browser.get("/account/security").text.replace(" ", ""), "the same one at a second look"
    assert not changed(before, dump())
    assert browser.submit("/account/security", {"code": "000 000"}).status_code == 422
    assert row(User, world.people["member"]).totp_secret is None
    set_up(browser)
    assert "totp_secret" not in session_of(browser)


def test_who_has_a_second_factor_cannot_set_up_another_beside_it(world):
    with_second_factor(world)
    assert "Turn off" in world.browser("member").get("/account/security").text
    with pytest.raises(corkboard.Forbidden):
        User.turn_on_second_factor(world.users["member"], SECRET, code_now())


@pytest.mark.parametrize("kind", ["code", "recovery code"])
def test_turning_it_off_needs_a_code_and_the_recovery_codes_end_with_it(world, kind):
    old, browser = with_second_factor(world), world.browser("member")
    for wrong in ("000000", PASSWORD):
        assert browser.submit("/account/security", {"code": wrong}).status_code == 422
    assert row(User, world.people["member"]).totp_secret
    code = code_now() if kind == "code" else old[0]
    assert browser.submit("/account/security", {"code": code}).location == "/account/security"
    assert log_in(world.browser()).location == "/"
    _, new = set_up(browser)
    assert give_code(after_password(world), old[1]).status_code == 422
    assert give_code(after_password(world), new[1]).status_code == 303


def test_a_recovery_code_of_an_earlier_second_factor_sets_none_up(world):
    old = with_second_factor(world)
    User.turn_off_second_factor(world.users["member"], world.people["member"])
    browser = world.browser("member")
    browser.get("/account/security")
    assert browser.submit("/account/security", {"code": old[0]}).status_code == 422


def test_guessing_codes_to_turn_it_off_is_limited(world):
    with_second_factor(world)
    browser = world.browser("member")
    tried = [browser.submit("/account/security", {"code": "000000"}).status_code for _ in range(6)]
    assert tried == [422] * 5 + [429]


# -- Signing in with it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "fits"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_code_fits_one_step_early_and_one_late(world, steps, fits, monkeypatch):
    now = int(time.time())
    monkeypatch.setattr("app.time.time", lambda: now)
    with_second_factor(world)
    set_columns(User, world.people["member"], totp_step=0)
    answer = give_code(after_password(world), TOTP(SECRET).at(now + 30 * steps))
    assert answer.status_code == (303 if fits else 422)


def test_a_code_works_once_and_an_earlier_one_no_more(world):
    with_second_factor(world)
    earlier, code = code_now(), code_now(steps=1)
    assert give_code(after_password(world), code).status_code == 303
    assert give_code(after_password(world), code).status_code == 422
    assert give_code(after_password(world), earlier).status_code == 422


def test_a_code_that_several_browsers_send_at_once_lets_one_in(world):
    codes = with_second_factor(world)
    member = world.people["member"]
    for code in (code_now(steps=1), codes[0]):
        results = together(world.app, *[lambda code=code: User.use_code(member, code)] * 4)
        assert sorted(results) == [False, False, False, True]


def test_a_recovery_code_signs_in_once_however_it_is_typed(world):
    codes = with_second_factor(world)
    typed = codes[0].replace("-", " ").upper()
    browser = after_password(world, path="/login?next=/people")
    assert give_code(browser, typed, "/login/code?recovery=1").location == "/people"
    assert give_code(after_password(world), codes[0]).status_code == 422
    assert give_code(after_password(world), codes[1]).status_code == 303


def test_after_the_password_alone_nothing_opens(world):
    with_second_factor(world)
    browser = after_password(world)
    for path in ("/", "/account", "/api/v1/me", "/account/security"):
        assert browser.get(path).status_code in (302, 401)
    assert browser.get("/login/code").status_code == 200


def test_ten_minutes_later_or_with_another_password_one_begins_again(world, monkeypatch):
    with_second_factor(world)
    waiting = after_password(world)
    now = time.time()
    with monkeypatch.context() as clock:
        clock.setattr("app.time.time", lambda: now + 601)
        assert waiting.get("/login/code").location == "/login"
    User.change_password(world.users["member"], "scrypt:1:1:1$x$y")
    assert waiting.get("/login/code").location == "/login"
    set_columns(User, world.people["editor"], totp_secret=SECRET)
    waiting = after_password(world, "editor")
    User.deactivate(world.users["admin"], world.people["editor"])
    assert waiting.get("/login/code").location == "/login"


def test_codes_are_guessed_five_times_and_then_one_waits_whatever_browser_it_is(world):
    with_second_factor(world)
    tried = [give_code(after_password(world, "member", **ELSEWHERE), "000000").status_code for _ in range(5)]
    assert tried == [422] * 5
    answer = give_code(after_password(world, "member", **ELSEWHERE), "000000")
    assert answer.status_code == 429
    assert done_to(world.people["member"]).count("person.sign_in_failed") == 5


@pytest.mark.parametrize("typed", ["", "é" * 6, "１２３４５６", "0" * 80, "\x00", "1'; --"])
def test_what_is_no_code_is_refused_in_words(world, typed):
    with_second_factor(world)
    assert give_code(after_password(world), typed).status_code == 422


# -- Requiring and resetting it ----------------------------------------------------------------------------------------


def test_an_administrator_requires_it_from_a_role_on_and_people_are_led_through_it(world):
    answer = world.browser("admin").submit("/admin/settings/second-factor", {"second_factor_role": "editor"})
    assert answer.status_code == 303
    editor = world.browser("editor")
    assert editor.get("/").location == "/account/security"
    page = editor.get("/account/security").text
    assert 'formaction="/logout"' in page
    set_up(editor)
    assert editor.get("/").status_code == 200
    assert world.browser("member").get("/").status_code == 200


def test_a_role_that_is_not_one_cannot_be_required(world):
    for role in ("boss", "40"):
        answer = world.browser("admin").submit("/admin/settings/second-factor", {"second_factor_role": role})
        assert answer.status_code == 422


def test_an_administrator_turns_it_off_for_somebody_and_they_are_told(world, mail_on):
    with_second_factor(world)
    member = world.people["member"]
    assert world.browser("admin").submit(f"/admin/people/{member}/second-factor").status_code == 303
    assert log_in(world.browser()).location == "/"
    assert done_to(member)[1] == "person.second_factor_reset"
    assert queued("code_off") == [member]
    assert "Two-step sign-in was turned off" in text_of_mail(world)


def test_to_turn_it_off_where_it_is_off_tells_nobody(world, mail_on):
    member = world.people["member"]
    assert world.browser("admin").submit(f"/admin/people/{member}/second-factor").status_code == 303
    assert queued("code_off") == []


def test_nobody_turns_off_their_own_where_no_proof_is_asked_for(world):
    with_second_factor(world, "admin")
    admin = world.people["admin"]
    assert world.browser("admin").submit(f"/admin/people/{admin}/second-factor").status_code == 403
    assert row(User, admin).totp_secret


def test_a_rescue_on_the_command_line_clears_it_too(world):
    with_second_factor(world, "admin")
    User.rescue(world.people["admin"], "x", name="Admin", email="")
    assert row(User, world.people["admin"]).totp_secret is None


def test_a_rescue_lets_in_who_waits_for_approval(world):
    set_columns(User, world.people["member"], awaits_approval=True, deactivated_at=corkboard.utcnow())
    User.rescue(world.people["member"], corkboard.hash_password(PASSWORD), name="Member", email="")
    assert log_in(world.browser()).status_code == 303


def test_a_link_ends_when_an_administrator_corrects_the_address(world):
    link = f"/reset/{ResetLink.create(world.people['member'])}"
    User.edit_person(row(User, world.people["admin"]), world.people["member"], name="M", email="", username="member")
    assert world.browser().get(link).status_code == 410


# -- Attacks -----------------------------------------------------------------------------------------------------------


def lose_the_role(world: World, browser: Browser) -> None:
    answer = world.browser("admin").submit(f"/admin/people/{world.people['member']}/role", {"role": "10"})
    assert answer.status_code == 303


def reset_by_link(world: World, browser: Browser) -> None:
    link = ResetLink.create(world.people["member"])
    assert world.browser().submit(f"/reset/{link}", CHOSEN).status_code == 303


def opens(world: World, kept: str) -> bool:
    """Whether a kept cookie opens a page that a member may open."""
    return with_cookie(world.app, kept).get("/posts/new").status_code == 200


@pytest.mark.parametrize("event", [sign_out, change_password, be_deactivated, lose_the_role, reset_by_link])
def test_no_cookie_or_token_is_replayed_with_success(world, event):
    """Cookies from before each sign-in, and from before the event; and the token of a program."""
    browser, replayed = world.browser(), []
    browser.get("/login")
    replayed.append(cookie(browser))  # what an attacker may have planted
    log_in(browser)
    kept, bearer = cookie(browser), {"Authorization": f"Bearer {world.raw_tokens['member']}"}
    assert opens(world, kept)
    event(world, browser)
    replayed.append(kept)
    succeeded = [one for one in replayed if opens(world, one)]
    assert not succeeded, f"{len(succeeded)} of {len(replayed)} cookies"
    if event is not sign_out:  # a token belongs to no browser
        post = {"title": "T", "body": "B", "topic_id": world.topics["open"]}
        assert world.browser().post("/api/v1/posts", headers=bearer, json=post).status_code in (401, 403)


def test_the_cookie_from_between_password_and_code_opens_nothing_after_the_sign_in(world):
    with_second_factor(world)
    browser = after_password(world)
    between = cookie(browser)
    assert give_code(browser, code_now(steps=1)).status_code == 303
    assert not opens(world, between)
    assert give_code(with_cookie(world.app, between), code_now(steps=1)).status_code == 422, "nor does the code"
    assert "pending" not in session_of(browser)


@pytest.mark.parametrize("kind", ["one account from 20 addresses", "many accounts from one address"])
def test_of_10_000_guesses_at_most_20_are_looked_at_and_the_owner_gets_in(world, monkeypatch, kind):
    """In a clock of 15 minutes, and the same at each moment of it: the limit does not depend on when they come."""
    looked, begun = [], utcnow()

    def look(stored: str, password: str) -> bool:
        looked.append(password)
        return check_password_hash(stored, password)

    monkeypatch.setattr("app.check_password_hash", look)
    one_account = kind.startswith("one account")
    with world.app.test_request_context():
        for number in range(10_000):
            now = begun + timedelta(minutes=15) * number / 10_000
            monkeypatch.setattr("app.utcnow", lambda now=now: now)
            guess(world, f"{number % 20}" if one_account else "0", "member" if one_account else f"name{number % 300}")
    assert 0 < len(looked) <= 20
    assert log_in(world.browser()).status_code == 303, "the owner, from where they have signed in before"


def guess(world: World, place: str, name: str) -> None:
    """Guess a password of a name from an address, without the page around it."""
    corkboard.request.environ["REMOTE_ADDR"] = f"203.0.113.{place}"
    with contextlib.suppress(corkboard.TooManyRequests), pytest.raises(corkboard.ValidationError):
        corkboard.authenticate(name, "wrong")
