"""Getting back in by a link, and two-step sign-in from its set-up to a recovery code, with and without the script."""

from __future__ import annotations

import re
import secrets
import time

import pytest
from playwright.sync_api import Page, expect
from pyotp.totp import TOTP

from app import NO_PASSWORD, User
from database import db

from .conftest import Visit
from .served import Site

OWN = "eight green bottles"


@pytest.mark.parametrize(("scripts", "size"), [(True, "wide"), (False, "phone")], ids=["script", "no script"])
def test_a_link_from_an_administrator_then_a_second_factor_and_a_recovery_code(
    site: Site, visit: Visit, scripts: bool, size: str
) -> None:
    username = f"pat.{secrets.token_hex(4)}"
    with site.app.app_context():
        User.create(None, name="Pat Reed", username=username, email="", password_hash=NO_PASSWORD)
        db.session.rollback()
    person = visit(site, size=size, java_script_enabled=scripts)
    link = hand_over_link(visit(site, "hattie", java_script_enabled=scripts), site, username)
    person.goto(link)
    person.get_by_label("New password", exact=True).fill(OWN)
    person.get_by_label("Confirm password", exact=True).fill(OWN)
    person.get_by_role("button", name="Change password").click()
    expect(person.get_by_text("Sign in with it now.")).to_be_visible()
    sign_in(person, username)
    key, codes = set_up(person)

    sign_out(person)
    sign_in(person, username)
    expect(person.get_by_role("heading", name="Enter your code")).to_be_visible()
    person.get_by_label("Code", exact=True).fill(TOTP(key).at(int(time.time()) + 30))
    person.get_by_role("button", name="Sign in", exact=True).click()
    expect(person).to_have_url(f"{site.url}/")

    sign_out(person)
    sign_in(person, username)
    person.get_by_role("link", name="Use a recovery code").click()
    person.get_by_label("Code", exact=True).fill(codes[0])
    person.get_by_role("button", name="Sign in", exact=True).click()
    expect(person).to_have_url(f"{site.url}/")


def hand_over_link(admin: Page, site: Site, username: str) -> str:
    with site.app.app_context():
        user_id = site.user(username).id
    admin.goto(f"/admin/people/{user_id}")
    admin.get_by_role("button", name="Make link").click()
    expect(admin.get_by_role("img", name="QR code of the link")).to_be_visible()
    return admin.locator(".address").inner_text()


def sign_in(page: Page, username: str) -> None:
    page.goto("/login")
    page.get_by_label("Username or email").fill(username)
    page.get_by_label("Password", exact=True).fill(OWN)
    page.get_by_role("button", name="Sign in", exact=True).click()


def sign_out(page: Page) -> None:
    page.context.clear_cookies()


def set_up(page: Page) -> tuple[str, list[str]]:
    """Turn two-step sign-in on. Returns the key, and the recovery codes that are shown once."""
    expect(page).not_to_have_url(re.compile("/login"))
    page.goto("/account/security")
    key = page.locator(".key code").inner_text().replace(" ", "")
    code = TOTP(key).now()
    page.get_by_label("Code", exact=True).fill(f"{code[:3]} {code[3:]}")
    page.get_by_role("button", name="Turn on").click()
    expect(page.get_by_text("Two-step sign-in is on.")).to_be_visible()
    codes = page.locator(".codes code").all_inner_texts()
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_role("heading", name="Your recovery codes")).to_be_visible()
    page.get_by_label("I've saved these codes").check()
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_role("button", name="Turn off")).to_be_visible()
    return key, codes
