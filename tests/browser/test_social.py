"""Among people: names that complete themselves after an @, and reactions, by key, by mouse and without the script."""

from __future__ import annotations

import secrets

import pytest
from playwright.sync_api import Locator, Page, expect

from .conftest import Visit
from .looks import faults_of
from .served import SIZES, Site
from .test_writing import WITH_AND_WITHOUT, written


def begin(page: Page, words: str, address: str = "/posts/78") -> tuple[Locator, Locator]:
    """Type the beginning of a comment. Returns its field, and the options that are offered."""
    page.goto(address)
    field = page.get_by_label("Your comment")
    field.press_sequentially(words)
    return field, page.get_by_role("listbox", name="People").get_by_role("option")


# -- Mentions ----------------------------------------------------------------------------------------------------------


def test_a_name_is_chosen_by_keys_and_becomes_a_link(site: Site, visit: Visit) -> None:
    page = visit(site, "soren")
    field, options = begin(page, "Thanks (@a")
    expect(options).to_have_text(["Amara Nwosu @amara"])
    field.press("Backspace")
    expect(options).to_have_count(8)
    assert field.get_attribute("aria-activedescendant") == options.nth(0).get_attribute("id")
    expect(page.locator("#announce")).to_have_text("8 people. Use arrow keys to choose, Enter to insert.")
    field.press("ArrowDown")
    field.press("ArrowDown")
    field.press("ArrowUp")
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    assert field.get_attribute("aria-activedescendant") == options.nth(1).get_attribute("id")
    field.press("ArrowUp")
    field.press("ArrowUp")
    expect(options.nth(7)).to_have_attribute("aria-selected", "true")
    field.press_sequentially("haTT")
    expect(options).to_have_count(1)
    field.press("Enter")
    expect(field).to_have_value("Thanks (@hattie ")
    expect(options).to_have_count(0)
    assert field.get_attribute("aria-activedescendant") is None
    mark = secrets.token_hex(4)
    field.press_sequentially("and @yuk")
    expect(options).to_have_count(1)
    field.press("Tab")
    field.press_sequentially(f") {mark}")
    expect(field).to_have_value(f"Thanks (@hattie and @yuki ) {mark}")
    page.get_by_role("button", name="Comment", exact=True).click()
    said = page.locator("article.comment", has_text=mark)
    expect(said.locator("a.mention")).to_have_text(["@hattie", "@yuki"])
    said.get_by_role("link", name="@hattie").click()
    expect(page.get_by_role("heading", name="Hattie Thimble", exact=True)).to_be_visible()


def test_escape_closes_the_list_until_another_name_begins(site: Site, visit: Visit) -> None:
    page = visit(site, "soren")
    field, options = begin(page, "Dear @h")
    expect(options.first).to_be_visible()
    field.press("Escape")
    expect(options).to_have_count(0)
    field.press_sequentially("a")
    page.wait_for_function("document.activeElement.value === 'Dear @ha'")
    expect(options).to_have_count(0)
    field.press("Enter")
    expect(field).to_have_value("Dear @ha\n")
    field.press_sequentially("@ha")
    expect(options).to_have_count(2)
    page.get_by_role("heading", level=1).click()
    expect(options).to_have_count(0)
    field.press("End")
    field.press_sequentially(" ana@h")
    expect(options).to_have_count(0)


@pytest.mark.parametrize("size", SIZES)
def test_a_name_is_chosen_by_pointing_and_nothing_leaves_the_window(site: Site, visit: Visit, size: str) -> None:
    page = visit(site, "soren")
    page.set_viewport_size(SIZES[size])  # type: ignore[arg-type]
    field, options = begin(page, "A line that is long enough to reach the right edge of a phone @")
    expect(options).to_have_count(8)
    box = page.get_by_role("listbox", name="People").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= SIZES[size]["width"]
    options.filter(has_text="Amara").click()  # the first by name, whomever other tests add
    expect(field).to_be_focused()
    assert field.input_value().endswith("a phone @amara ")
    field.press_sequentially("and @")
    expect(options).to_have_count(8)
    assert faults_of(page, "people are offered") == []


def test_a_private_topic_offers_its_people_first_and_the_preview_says_who_is_not_told(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie")
    written(page, "Not for all", "For ")
    private = page.locator("option[data-seen-by*='no one else']").first
    page.get_by_label("Topic").select_option(label=private.inner_text().strip())
    field = page.get_by_label("Text")
    field.press_sequentially("@")
    options = page.get_by_role("option").filter(has=page.locator(".avatar"))
    expect(options).to_have_count(8)
    assert "can't see" not in options.nth(0).inner_text()
    assert "can't see this topic" in options.nth(7).inner_text()
    field.press_sequentially("dev ")
    page.get_by_role("tab", name="Preview").click()
    expect(page.get_by_text("Devendra Pillai can't see this topic and won't be notified.")).to_be_visible()
    assert faults_of(page, "a preview that warns") == []


# -- Reactions ---------------------------------------------------------------------------------------------------------


def reactions_of(page: Page, number: int) -> Locator:
    """The reactions to a comment, by its place below its post."""
    return page.locator("article.comment").nth(number).locator(".reactions")


@WITH_AND_WITHOUT
def test_a_reader_reacts_and_takes_it_back(site: Site, visit: Visit, scripts: bool) -> None:
    page = visit(site, "nia", java_script_enabled=scripts)
    page.goto("/posts/76")
    said = reactions_of(page, 0)
    before = said.get_by_role("button").count()
    said.get_by_role("link", name="React").click()
    page.get_by_role("button", name="Hooray").click()
    mine = said.get_by_role("button", name="1 Hooray")
    expect(mine).to_have_attribute("aria-pressed", "true")
    expect(mine).to_have_attribute("title", "Hooray: You")
    page.reload()
    mine.click()
    expect(mine).to_have_count(0)
    expect(said.get_by_role("button")).to_have_count(before)


def test_a_count_changes_where_it_stands_and_is_told(site: Site, visit: Visit) -> None:
    first, second = visit(site, "nia"), visit(site, "callum")
    for page in (first, second):
        page.goto("/posts/75")
    opener = reactions_of(first, 1).get_by_role("link", name="React")
    opener.focus()
    first.keyboard.press("Enter")
    expect(first.get_by_role("group", name="Reactions").get_by_role("button", name="Like")).to_be_focused()
    assert faults_of(first, "the kinds of reactions", within="#picker") == []
    first.keyboard.press("Escape")
    expect(first.get_by_role("group", name="Reactions")).to_have_count(0)
    expect(opener).to_be_focused()
    first.keyboard.press("Enter")
    first.keyboard.press("Tab")
    first.keyboard.press("Enter")
    love = reactions_of(first, 1).get_by_role("button", name="1 Love")
    expect(love).to_be_focused()
    expect(first.locator("#announce")).to_have_text("Love: You")
    assert first.url.endswith("/posts/75")
    second.reload()
    reactions_of(second, 1).get_by_role("button", name="1 Love").click()
    both = reactions_of(second, 1).get_by_role("button", name="2 Love")
    expect(both).to_have_attribute("title", "Love: You, Nia Prosser")
    expect(both).to_be_focused()
    for page in (first, second):
        page.reload()
        reactions_of(page, 1).locator("[name=remove][value=love]").click()
        expect(page.locator("#announce")).to_have_text("Reaction removed.") if page is second else None
    expect(reactions_of(second, 1).get_by_role("button", name="Love")).to_have_count(0)


def test_signed_out_meanwhile_a_reaction_leads_to_the_sign_in(site: Site, visit: Visit) -> None:
    page = visit(site, "callum")
    page.goto("/posts/81")
    site.end_sign_ins("callum")
    page.locator("footer .reactions a").click()
    page.get_by_role("button", name="Like", exact=True).click()
    expect(page.get_by_role("heading", name="You've been signed out")).to_be_visible()
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()


def test_on_a_phone_the_kinds_fit_beside_a_comment(site: Site, visit: Visit) -> None:
    page = visit(site, "nia")
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto("/posts/73")
    for opener in (page.locator("footer .reactions a"), reactions_of(page, 2).locator("a")):
        opener.click()
        box = page.get_by_role("group", name="Reactions").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    assert faults_of(page, "the kinds on a phone", within="#picker") == []
