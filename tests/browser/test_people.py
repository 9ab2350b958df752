"""Looking after people: somebody is erased, and a group is made and mentioned with the editor's menu."""

from __future__ import annotations

import secrets

from playwright.sync_api import expect

from .conftest import Visit
from .looks import faults_of
from .served import Site


def test_a_person_is_added_found_and_erased(site: Site, visit: Visit) -> None:
    page, name = visit(site, "hattie"), f"leaving{secrets.token_hex(3)}"
    page.goto("/admin/people/new")
    page.get_by_label("Name", exact=True).fill(f"Ana {name}")
    page.get_by_label("Username").fill(name)
    page.get_by_role("button", name="Add").click()
    page.goto("/admin/people")
    page.get_by_label("Search", exact=True).last.fill(name)
    page.get_by_label("State").select_option("active")
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("link", name=f"Ana {name}").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download their data").click()
    assert download.value.suggested_filename == f"{name}.zip"
    page.get_by_role("link", name="Erase this person").click()
    assert not faults_of(page)
    page.get_by_role("button", name="Erase for ever").click()
    expect(page.get_by_text("What they wrote stays under")).to_be_visible()
    page.goto(f"/admin/people?q={name}")
    expect(page.get_by_text("No matches")).to_be_visible()


def test_a_group_is_made_and_mentioned_with_the_menu(site: Site, visit: Visit) -> None:
    page, name = visit(site, "hattie"), f"ovens{secrets.token_hex(3)}"
    page.goto("/admin/groups")
    page.get_by_label("Name", exact=True).fill(name)
    for person in ("Wojciech", "Yuki"):
        page.get_by_label("Search people").fill(person)
        page.get_by_label("Search people").press("Enter")
    expect(page.get_by_role("list", name="Chosen").get_by_role("button")).to_have_count(2)
    assert not faults_of(page)
    page.get_by_role("button", name="Create group").click()
    expect(page.get_by_role("link", name=f"@{name}")).to_be_visible()
    page.goto("/posts/78")
    field = page.get_by_label("Your comment")
    field.press_sequentially("Look, @ovens")
    offers = page.get_by_role("listbox", name="People").get_by_role("option", name=name)
    expect(offers).to_have_text(f"@{name} several people")
    offers.click()
    expect(field).to_have_value(f"Look, @{name} ")
    page.get_by_role("button", name="Comment", exact=True).click()
    mention = page.locator("article.comment a.mention", has_text=name)
    mention.click()
    expect(page.get_by_role("link", name="Yuki Tanabe")).to_be_visible()
    assert not faults_of(page)
