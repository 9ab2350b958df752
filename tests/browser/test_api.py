"""Tokens, and the page of the API, as people meet them."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from .conftest import Visit
from .looks import faults_of
from .served import Site
from .test_writing import WITH_AND_WITHOUT


@WITH_AND_WITHOUT
def test_a_token_is_made_used_and_revoked(site: Site, visit: Visit, scripts: bool) -> None:
    page = visit(site, "soren", java_script_enabled=scripts)
    page.goto("/account")
    page.get_by_role("link", name="Tokens").click()
    page.get_by_label("Name", exact=True).fill("The till")
    page.get_by_label("Read and write as you can").check()
    page.get_by_label("Expires").select_option("After 30 days")
    page.get_by_role("button", name="Create token").click()
    raw = page.get_by_role("status").locator("code").inner_text()
    assert re.fullmatch(r"ck_[\w-]{43}", raw)
    asked = {"Authorization": f"Bearer {raw}"}
    assert page.request.get("/api/v1/me", headers=asked).json()["username"] == "soren"
    page.get_by_role("link", name="Tokens").click()
    expect(page.get_by_text(raw)).to_have_count(0)
    line = page.get_by_role("listitem").filter(has_text="The till").first
    expect(line).to_contain_text("may read and write, last used")
    line.get_by_role("button", name="Revoke").click()
    if scripts:
        page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("Token revoked.")).to_be_visible()
    assert page.request.get("/api/v1/me", headers=asked).status == 401


def test_the_page_of_the_tokens_looks_as_it_should(site: Site, visit: Visit) -> None:
    page = visit(site, "yuki")
    page.goto("/account/tokens")
    page.get_by_label("Name", exact=True).fill("The display in the canteen")
    page.get_by_role("button", name="Create token").click()
    expect(page.get_by_role("status")).to_be_visible()
    assert faults_of(page) == []


def test_the_api_is_read_and_tried_out_on_its_page(site: Site, visit: Visit) -> None:
    """Whatever it asks, or does against the policy, fails the test when the window is closed."""
    page = visit(site, "soren")
    page.goto("/account/tokens")
    page.get_by_role("link", name="What programs can do").click()
    operation = page.locator(".opblock", has_text="/api/v1/me").first
    operation.click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".responses-wrapper .live-responses-table")).to_contain_text("soren")


def test_the_page_of_the_api_lists_it_without_the_script(site: Site, visit: Visit) -> None:
    page = visit(site, "soren", java_script_enabled=False)
    page.goto("/api/docs")
    expect(page.get_by_text("PATCH /api/v1/posts/{post_id}")).to_be_visible()
    expect(page.get_by_text("The person whose token this is.")).to_be_visible()
