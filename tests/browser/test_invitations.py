"""Joining by the link that a QR code shows, without JavaScript, and adding people from a list, seen in a browser."""

from __future__ import annotations

import re
import secrets
import xml.etree.ElementTree as ET

import pytest
import segno
from playwright.sync_api import Page, expect

from .conftest import Visit
from .looks import faults_of
from .served import Site


def path_of(svg: str) -> str:
    """The lines that a QR code is drawn with."""
    return next(node.attrib["d"] for node in ET.fromstring(svg).iter() if "stroke" in node.attrib)


def scanned(page: Page, link: str) -> str:
    """The link that the QR code on a page shows. Each code is drawn from one text only."""
    drawn = page.locator(".qr svg").evaluate("svg => svg.outerHTML")
    expected = segno.make(link, micro=False).svg_inline(scale=4, border=4, dark="#000", light="#fff", omitsize=True)
    assert path_of(drawn) == path_of(expected)
    return link


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_a_colleague_joins_by_the_link_of_a_qr_code_without_a_script(site: Site, visit: Visit, size: str) -> None:
    admin = visit(site, "hattie", size=size)
    admin.goto("/admin/invitations")
    assert faults_of(admin, "/admin/invitations") == []
    admin.get_by_label("Who it is for").fill("Saturday team")
    admin.get_by_role("button", name="Create invitation").click()
    expect(admin.get_by_role("heading", name="The link is ready")).to_be_visible()
    assert faults_of(admin, "the link is ready") == []
    link = scanned(admin, admin.locator(".copyable .address").inner_text())

    colleague = visit(site, "", size=size, java_script_enabled=False)
    colleague.goto("/invite/" + link.rpartition("/")[2])
    expect(colleague.get_by_text("invites you to join. Your role will be Member.")).to_be_visible()
    name = f"ida.{secrets.token_hex(4)}"
    for label, text in (
        ("Name", "Ida Berg"), ("Username", name), ("Email address", f"{name}@example.com"),
        ("Password", "seven green bottles"), ("Confirm password", "seven green bottles"),
    ):  # fmt: skip
        colleague.get_by_label(label, exact=True).fill(text)
    colleague.get_by_role("button", name="Join").click()
    expect(colleague.get_by_text("Welcome, Ida Berg.")).to_be_visible()
    expect(colleague).to_have_url(re.compile("/$"))
    expect(colleague.locator("article").first).to_be_visible()


@pytest.mark.parametrize(("size", "scripts"), [("wide", True), ("phone", True), ("phone", False)])
def test_people_are_added_from_a_list_after_its_lines_were_checked(
    site: Site, visit: Visit, size: str, scripts: bool
) -> None:
    page, mark = visit(site, "hattie", size=size, java_script_enabled=scripts), f"x{secrets.token_hex(4)}"
    page.goto("/admin/people/import")
    if scripts:
        assert faults_of(page, "/admin/people/import") == []
    listed = f"name,email,role\nZoë Lund,zoe.{mark}@example.com,\nTom {mark},tom.{mark}@example.com,Owner\n"
    page.get_by_label("Or paste the list").fill(listed)
    page.get_by_role("button", name="Check the list").click()
    expect(page.get_by_text("1 to add, 0 already here, 1 to correct")).to_be_visible()
    expect(page.get_by_text("Role: Use Reader")).to_be_visible()
    expect(page.get_by_role("button", name="Add")).to_have_count(0)
    if scripts:
        assert faults_of(page, "the checked list") == []
    page.get_by_label("Or paste the list").fill(listed.replace("Owner", "Reader"))
    page.get_by_role("button", name="Check the list").click()
    page.get_by_role("button", name="Add 2 people").click()
    expect(page.get_by_text("2 people added.")).to_be_visible()
    page.goto(f"/admin/people?q=Tom+{mark}")
    expect(page.get_by_role("link", name=f"Tom {mark}")).to_be_visible()
