"""Signing in with the company's account, on the page of a real provider program, with and without the script."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from serving import free_port, until

from .served import Site, new_context


@pytest.fixture
def company_site(browser: Browser, tmp_path: Path) -> Iterator[Site]:
    """A site of Ana's alone, and a provider program that knows Ana and Bob."""
    site, port = Site(tmp_path), free_port()
    site.environ |= {
        "OIDC_ISSUER": f"http://127.0.0.1:{port}", "OIDC_CLIENT_ID": "corkboard", "OIDC_CLIENT_SECRET": "secret",
    }  # fmt: skip
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port)]
    for name in ("ana", "bob"):
        claims = {"sub": name, "email": f"{name}@example.com", "email_verified": True}
        command += ["--user-claims", json.dumps(claims)]
    provider = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        site.flask("init-db")
        words = ("create-admin", "ana", "--email", "ana@example.com", "--password-stdin")
        site.flask(*words, stdin="seven green bottles\n")
        site.start()
        until(lambda: is_open(port), "the provider program answers", every=0.1)
        yield site
    finally:
        site.stop()
        provider.terminate()
        provider.wait(20)


def is_open(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def sign_in_as(page: Page, name: str) -> None:
    page.get_by_role("button", name="Sign in with your company account").click()
    page.get_by_role("button", name=name).click()


@pytest.mark.parametrize(("scripts", "size"), [(True, "wide"), (False, "phone")], ids=["script", "no script"])
def test_a_person_signs_in_at_the_provider_and_comes_back_to_the_page_they_wanted(
    company_site: Site, browser: Browser, scripts: bool, size: str
) -> None:
    page = new_context(browser, company_site, size=size, java_script_enabled=scripts).new_page()
    page.goto("/people")
    sign_in_as(page, "bob")
    expect(page.get_by_text("email address is not known here")).to_be_visible()
    expect(page.get_by_label("Username or email")).to_be_visible()

    page.goto("/people")
    sign_in_as(page, "ana")
    expect(page).to_have_url(f"{company_site.url}/people")
    expect(page.get_by_role("heading", name="People")).to_be_visible()

    page.goto("/account/security")
    expect(page.get_by_role("button", name="Turn on")).to_be_visible()
    page.context.close()
