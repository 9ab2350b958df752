"""Sign-in with the company's account: a real provider program, and a tiny one of our own that answers with lies."""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import jwt
import pyotp
import pytest
import sqlalchemy as sa
from conftest import PASSWORD, add_person
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from serving import free_port, until
from world import set_columns

import app as corkboard
from app import Activity, Group, ResetLink, Role, Setting, User, hash_password
from database import db

pytestmark = pytest.mark.usefixtures("cheap_hashes")

CLIENT, SECRET = "corkboard", "a secret: with 100 % of it"
KEY, OTHER_KEY = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
EC_KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Provider(ThreadingHTTPServer):
    """A provider whose answers a test chooses. `claims` are those of the next ID token, and `sign` makes it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.issuer = f"http://127.0.0.1:{self.server_port}"
        self.claims: dict[str, Any] = {}
        self.about: dict[str, Any] = {}
        self.sign: Callable[[dict[str, Any]], str] = lambda claims: jwt.encode(claims, KEY, "RS256", {"kid": "one"})
        self.asked: list[dict[str, str]] = []

    def discovery(self) -> dict[str, Any]:
        places = {name: f"{self.issuer}/{name}" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")}
        return {"issuer": self.issuer, **places, **self.about}

    def keys(self) -> dict[str, Any]:
        plain = json.loads(RSAAlgorithm.to_jwk(KEY.public_key()))
        curve = json.loads(ECAlgorithm.to_jwk(EC_KEY.public_key()))
        return {"keys": [{**plain, "kid": "one", "use": "sig"}, {**curve, "kid": "two"}]}

    def token(self, nonce: str) -> str:
        now = int(time.time())
        good = {"iss": self.issuer, "sub": "s-1", "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": nonce}
        claims = good | {"email": "member@example.com", "email_verified": True, "name": "Mia"} | self.claims
        return self.sign({name: value for name, value in claims.items() if value is not None})


class Answer(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        self.answer(self.server.keys() if self.path == "/jwks_uri" else self.server.discovery())

    def do_POST(self) -> None:
        form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        self.server.asked.append(form)
        self.answer({"id_token": self.server.token(form["code"])})  # these codes are nonces

    def answer(self, content: dict[str, Any]) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def provider(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with Provider() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        set_up(monkeypatch, app, made.issuer)
        yield made
        made.shutdown()
        thread.join()


def set_up(monkeypatch: pytest.MonkeyPatch, app: Flask, issuer: str) -> None:
    for name, value in (("ISSUER", issuer), ("CLIENT_ID", CLIENT), ("CLIENT_SECRET", SECRET)):
        monkeypatch.setitem(app.config, f"OIDC_{name}", value)


def begin(browser: Any, path: str = "/oidc/start") -> dict[str, str]:
    """Press the button on the sign-in page, and return what the provider is asked."""
    answer = browser.submit(path)
    assert answer.status_code == 200, answer.text
    return query_of(html.unescape(re.search(r'<a class="btn[^"]*" href="([^"]+)"', answer.text)[1]))  # type: ignore[index]


def query_of(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


def newest() -> Any:
    db.session.rollback()
    return db.session.scalars(sa.select(User).order_by(User.id.desc())).first()


def come_back(browser: Any, asked: dict[str, str], **more: str) -> Any:
    return browser.get("/oidc/callback?" + urlencode({"code": asked["nonce"], "state": asked["state"]} | more))


def log_in(browser: Any, name: str) -> Any:
    return browser.submit("/login", {"username": name, "password": PASSWORD})


def is_in(browser: Any) -> bool:
    return browser.get("/account").status_code == 200


def sign_in_there(browser: Any) -> Any:
    return come_back(browser, begin(browser))


def test_a_person_is_found_by_verified_email_and_from_then_on_by_the_account(people, sign_in, provider):
    browser = sign_in()
    answer = sign_in_there(browser)
    assert (answer.status_code, answer.location) == (303, "/")
    assert "member" in browser.get("/account").text
    provider.claims = {"email": None, "email_verified": None}
    later = sign_in()
    assert not is_in(later)
    assert sign_in_there(later).status_code == 303
    assert is_in(later)
    actions = db.session.scalars(sa.select(Activity.action).where(Activity.object_id == people.member.id)).all()
    assert actions.count("person.connected") == 1


def test_sign_in_leads_on_to_the_page_that_was_asked_for_and_nowhere_else(people, sign_in, provider):
    for wanted, reached in [("/people?q=a", "/people?q=a"), ("https://evil.example/", "/"), ("/\t/evil.example", "/")]:
        browser = sign_in()
        assert come_back(browser, begin(browser, f"/oidc/start?{urlencode({'next': wanted})}")).location == reached


def test_the_provider_gets_a_challenge_the_secret_and_the_site_s_own_address(app, people, sign_in, provider):
    browser = sign_in()
    asked = begin(browser)
    come_back(browser, asked)
    form = provider.asked[0]
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    assert asked["code_challenge"] == base64.urlsafe_b64encode(digest).decode().rstrip("=")
    assert (asked["code_challenge_method"], asked["response_type"]) == ("S256", "code")
    assert asked["redirect_uri"] == form["redirect_uri"] == "http://127.0.0.1:8000/oidc/callback"
    assert (form["client_id"], form["client_secret"]) == (CLIENT, SECRET)


def test_keys_of_elliptic_curves_work_too(people, sign_in, provider):
    provider.sign = lambda claims: jwt.encode(claims, EC_KEY, "ES256", {"kid": "two"})
    browser = sign_in()
    assert not is_in(browser)
    sign_in_there(browser)
    assert is_in(browser)


def by_shared_secret(claims: dict[str, Any]) -> str:
    """Sign with the public key as a secret, which a careless reader takes for the real thing."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "kid": "one"}, claims)
    ]
    signature = hmac.new(PUBLIC, b".".join(parts), "sha256").digest()
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


HOUR_AGO, TOMORROW = int(time.time()) - 3600, int(time.time()) + 86400
LIES: dict[str, dict[str, Any]] = {
    "another nonce": {"nonce": "x"}, "no nonce": {"nonce": None}, "a nonce of another kind": {"nonce": 7},
    "another audience": {"aud": "somebody else"}, "no audience": {"aud": None},
    "another party": {"aud": [CLIENT, "x"], "azp": "x"},
    "another issuer, same subject": {"iss": "https://evil.example"}, "no issuer": {"iss": None},
    "expired": {"exp": HOUR_AGO}, "never expires": {"exp": None}, "issued tomorrow": {"iat": TOMORROW},
    "issued never": {"iat": None}, "nobody": {"sub": ""}, "no subject": {"sub": None},
    "unverified email": {"sub": "s-2", "email_verified": False},
    "an email verified in words": {"sub": "s-2", "email_verified": "true"},
    "no word about the email": {"sub": "s-2", "email_verified": None},
    "Microsoft's word from elsewhere": {"sub": "s-2", "email_verified": None, "xms_edov": True},
    "an unknown email": {"sub": "s-2", "email": "who@example.org"}, "no email": {"sub": "s-2", "email": None},
    "an email of a strange kind": {"sub": "s-2", "email": ["member@example.com"]},
}  # fmt: skip
SIGNATURES: dict[str, Callable[[dict[str, Any]], str]] = {
    "no signature": lambda claims: jwt.encode(claims, None, "none", {"kid": "one"}),  # type: ignore[arg-type]
    "the public key as a secret": by_shared_secret,
    "another's key": lambda claims: jwt.encode(claims, OTHER_KEY, "RS256", {"kid": "one"}),
    "an unknown key": lambda claims: jwt.encode(claims, KEY, "RS256", {"kid": "nine"}),
    "another algorithm": lambda claims: jwt.encode(claims, KEY, "RS512", {"kid": "one"}),
    "no token at all": lambda _: "x",
    "a token of a strange kind": lambda _: [],  # type: ignore[arg-type, return-value]
}


@pytest.mark.parametrize("lie", [*LIES, *SIGNATURES])
def test_a_provider_that_lies_gets_nobody_in(people, sign_in, provider, lie):
    sign_in_there(sign_in())  # so that the member's account is known
    provider.claims, provider.sign = LIES.get(lie, {}), SIGNATURES.get(lie, provider.sign)
    browser = sign_in()
    answer = sign_in_there(browser)
    assert answer.status_code == 403
    assert "Ask an administrator" in answer.text or "tell an administrator" in answer.text
    assert not is_in(browser)


def test_a_begun_sign_in_works_once_for_ten_minutes_and_in_its_own_browser(people, sign_in, provider, monkeypatch):
    browser, other = sign_in(), sign_in()
    asked = begin(browser)
    assert come_back(other, asked).status_code == 403
    assert come_back(browser, asked, state="ß").status_code == 403
    assert come_back(browser, asked).status_code == 403  # the wrong state ended it
    asked = begin(browser)
    name = browser.application.config["SESSION_COOKIE_NAME"]
    kept = browser.get_cookie(name).value
    assert come_back(browser, asked).status_code == 303
    other.set_cookie(name, kept)
    assert come_back(other, asked).status_code == 403  # a copy of the cookie, with the same state and code
    assert not is_in(other)
    asked, real = begin(other), time.time
    monkeypatch.setattr("app.time.time", lambda: real() + 601)
    assert come_back(other, asked).status_code == 403
    assert not is_in(other)


def test_microsoft_vouches_for_an_email_address_in_its_own_words():
    from_microsoft = {"iss": "https://login.microsoftonline.com/a-tenant/v2.0", "email": "mia@example.com"}
    for word in (True, "1"):
        assert corkboard.verified_email(from_microsoft | {"xms_edov": word}) == "mia@example.com"
    for word in (False, "0", None, []):
        assert corkboard.verified_email(from_microsoft | {"xms_edov": word, "email_verified": True}) == ""


def test_somebody_who_says_no_there_is_back_at_the_sign_in_page(people, sign_in, provider):
    browser = sign_in()
    answer = browser.get("/oidc/callback?" + urlencode({"error": "access_denied", "state": begin(browser)["state"]}))
    assert answer.status_code == 403
    assert "Sign in with your company account" in answer.text


def test_a_deactivated_person_stays_out_and_is_not_connected(people, sign_in, provider):
    User.deactivate(people.admin, people.member.id)
    answer = sign_in_there(sign_in())
    assert answer.status_code == 403
    assert "deactivated" in answer.text
    assert db.session.scalar(sa.select(User.identity).where(User.id == people.member.id)) is None


def test_one_account_cannot_take_over_who_is_connected_to_another(people, sign_in, provider):
    sign_in_there(sign_in())
    provider.claims = {"sub": "s-2"}
    assert "belongs to another company account" in sign_in_there(sign_in()).text


def test_connecting_ends_the_password_of_whoever_made_the_account_but_not_an_administrator_s(people, sign_in, provider):
    before = sign_in(people.member)
    sign_in_there(sign_in())
    assert not is_in(before)
    assert log_in(sign_in(), "member").status_code == 422
    provider.claims = {"sub": "s-9", "email": "admin@example.com"}
    sign_in_there(sign_in())
    assert log_in(sign_in(), "admin").status_code == 303


def test_new_people_join_only_where_the_settings_say_so_and_the_domain_fits(people, sign_in, provider):
    provider.claims = {"sub": "s-2", "email": "Zoe.Wu@Example.com", "name": "Zoë Wu"}
    assert "is not known here" in sign_in_there(sign_in()).text
    chosen = {"registration": "company", "registration_domains": "example.com", "registration_role": "reader"}
    assert sign_in(people.admin).submit("/admin/settings/sign-up", chosen).status_code == 303
    assert sign_in().get("/register").status_code == 404
    assert "Sign up" not in sign_in().get("/login").text
    assert sign_in_there(sign_in()).status_code == 303
    made = newest()
    assert (made.name, made.username, made.role, made.email) == ("Zoë Wu", "zoe.wu", Role.READER, "Zoe.Wu@Example.com")
    for email in ("eve@example.com.evil.example", "eve@sub.example.com", "eve@evil.example@example.com"):
        provider.claims = {"sub": email, "email": email}
        assert sign_in_there(sign_in()).status_code == 403
    Setting.change(people.admin, registration="closed")
    provider.claims = {"sub": "s-4", "email": "late@example.com"}
    assert "is not known here" in sign_in_there(sign_in()).text


def test_who_joins_gets_a_username_like_their_address_that_is_free(people, sign_in, provider):
    add_person("ole", email=None)
    Group.save(people.admin, None, name="kitchen", member_ids=())
    Setting.change(people.admin, registration="company", registration_domains="example.com")
    expected = {
        "z.o": "z[.]o",
        "ole": "ole[0-9]{6}",
        "kitchen": "kitchen[0-9]{6}",
        "zoë": "person",
        "吴": "person[0-9]{6}",
    }
    for mailbox, pattern in (expected | {"w" * 50: "w{26}[0-9]{6}", "b": "b[0-9]{6}"}).items():
        provider.claims = {"sub": mailbox, "email": f"{mailbox}@example.com", "name": ""}
        assert sign_in_there(sign_in()).status_code == 303
        assert re.fullmatch(pattern, newest().username)
        assert newest().name == mailbox


def test_who_is_connected_uses_no_password_unless_an_administrator(people, sign_in, provider, monkeypatch):
    sign_in_there(sign_in())
    ResetLink.use(ResetLink.create(people.member.id), hash_password(PASSWORD))
    answer = log_in(sign_in(), "member")
    assert answer.status_code == 422
    assert "Sign in with your company account" in answer.text
    assert log_in(sign_in(), "reader").status_code == 303  # who has no company account
    assert log_in(sign_in(), "admin").status_code == 303
    monkeypatch.setitem(sign_in().application.config, "OIDC_ISSUER", "")
    assert log_in(sign_in(), "member").status_code == 303


def test_whoever_has_two_step_sign_in_here_is_asked_for_a_code_after_the_provider(people, sign_in, provider):
    secret = pyotp.random_base32()
    set_columns(User, people.member.id, totp_secret=secret)
    browser = sign_in()
    answer = sign_in_there(browser)
    assert answer.location == "/login/code"
    assert not is_in(browser)
    assert browser.submit("/login/code", {"code": pyotp.TOTP(secret).now()}).status_code == 303
    assert is_in(browser)


def test_who_waits_for_approval_hears_so(people, sign_in, provider):
    add_person("ole", email="ole@example.com", awaits_approval=True)
    provider.claims = {"sub": "ole", "email": "ole@example.com"}
    answer = sign_in_there(sign_in())
    assert answer.status_code == 403
    assert "An administrator has to let you in first." in answer.text


def test_no_link_is_made_for_who_is_connected(people, sign_in, provider):
    sign_in_there(sign_in())
    admin, path = sign_in(people.admin), f"/admin/people/{people.member.id}"
    assert "sign in with their company account" in admin.get(path).text
    assert admin.submit(f"{path}/link").status_code == 422


def test_a_whole_team_signs_in_there_from_one_address(people, sign_in, provider):
    for _ in range(20):
        assert sign_in_there(sign_in()).status_code == 303


def test_no_link_for_a_password_passes_by_that(people, sign_in, provider):
    sign_in_there(sign_in())
    link = f"/reset/{ResetLink.create(people.member.id)}"
    new = {"password": "eight green bottles", "confirm": "eight green bottles"}
    for answer in (sign_in().get(link), sign_in().submit(link, new)):
        assert answer.status_code == 410
        assert "Sign in with your company account" in answer.text
    assert sign_in().get(f"/reset/{ResetLink.create(people.admin.id)}").status_code == 200


def test_who_signs_in_there_alone_is_not_led_to_a_second_factor_here(people, sign_in, provider):
    Setting.change(people.admin, second_factor_role="reader")
    browser = sign_in()
    sign_in_there(browser)
    assert browser.get("/").status_code == 200
    assert sign_in(people.editor).get("/").location == "/account/security"


def test_passwords_are_for_everyone_where_there_is_no_company_account(people, sign_in):
    assert log_in(sign_in(), "member").status_code == 303
    assert sign_in().submit("/oidc/start").status_code == 404
    assert sign_in().get("/oidc/callback?code=x&state=x").status_code == 404
    assert "company account" not in sign_in().get("/login").text


@pytest.mark.parametrize("about", [
    {"issuer": "https://evil.example"}, {"issuer": None}, {"authorization_endpoint": "http://evil.example/"},
    {"authorization_endpoint": "javascript:alert(1)"}, {"authorization_endpoint": None},
])  # fmt: skip
def test_a_provider_that_is_not_what_it_should_be_is_not_asked(people, sign_in, provider, about):
    provider.about = about
    answer = sign_in().submit("/oidc/start")
    assert answer.status_code == 503
    assert "tell an administrator" in answer.text
    assert 'name="password"' in answer.text


@pytest.mark.parametrize("name", ["token_endpoint", "jwks_uri"])
def test_nothing_is_asked_over_an_open_line(people, sign_in, provider, name):
    provider.about = {name: "http://192.0.2.1/"}
    assert sign_in_there(sign_in()).status_code == 403


def test_a_provider_that_is_away_is_no_crash(app, people, sign_in, monkeypatch):
    set_up(monkeypatch, app, f"http://127.0.0.1:{free_port()}")
    assert sign_in().submit("/oidc/start").status_code == 503


class Stay(HTTPRedirectHandler):
    def http_error_302(self, _request: Any, answer: Any, *_: Any) -> Any:
        return answer


def authorize(url: str, subject: str) -> str:
    """Sign in on the page of the provider program, and return where it sends the browser."""
    with build_opener(Stay).open(Request(url, urlencode({"sub": subject}).encode()), timeout=20) as answer:
        return answer.headers["Location"]


def test_a_real_provider_program_signs_a_person_in(app, people, sign_in, monkeypatch):
    port = free_port()
    claims = json.dumps({"sub": "m-1", "email": "member@example.com", "email_verified": True})
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--user-claims", claims]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        set_up(monkeypatch, app, f"http://127.0.0.1:{port}")
        browser = sign_in()
        until(
            lambda: browser.submit("/oidc/start").status_code == 200,
            "the provider program answers",
            every=0.2,
        )
        answer = browser.submit("/oidc/start")
        address = html.unescape(re.search(r'<a class="btn[^"]*" href="([^"]+)"', answer.text)[1])  # type: ignore[index]
        back = urlsplit(authorize(address, "m-1"))
        assert browser.get(f"{back.path}?{back.query}").status_code == 303
        assert "member" in browser.get("/account").text
        asked = begin(browser)
        again = urlencode(parse_qs(back.query) | {"state": asked["state"]}, doseq=True)
        assert browser.get(f"{back.path}?{again}").status_code == 403  # a code that was used
    finally:
        process.terminate()
        process.wait(20)
