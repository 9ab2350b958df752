"""Keys and typing: shortcuts that stay out of the way, and the list of people that follows what is typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import app
from app import KEYS

from .conftest import Visit
from .served import Site

FOCUSED = "document.activeElement.id"


@pytest.fixture
def page(site: Site, visit: Visit) -> Page:
    opened = visit(site, "hattie")
    opened.goto("/handbook")
    return opened


def test_slash_searches_and_shows_what_it_finds_while_typing(page: Page) -> None:
    page.keyboard.press("/")
    expect(page.locator("#find")).to_be_focused()
    page.keyboard.type("wojt")
    live = page.get_by_role("option")
    expect(live.first).to_contain_text("Wojciech")
    expect(page.locator("#announce")).to_contain_text("found")
    page.keyboard.press("ArrowDown")
    expect(live.first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/people/wojt\w*$"))


def test_enter_in_the_search_shows_everything_that_was_found(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("wojt")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/search\?q=wojt$"))
    expect(page.get_by_role("heading", name="People")).to_be_visible()


def test_escape_leaves_the_search(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("something")
    expect(page.get_by_role("option").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("option")).to_have_count(0)
    expect(page.locator("#find")).to_have_value("something")
    page.keyboard.press("Escape")
    expect(page.locator("#find")).not_to_be_focused()
    expect(page.locator("#find")).to_have_value("")


def test_n_writes_something_new(page: Page) -> None:
    page.keyboard.press("n")
    expect(page).to_have_url(re.compile("/posts/new$"))
    expect(page.get_by_label("Title")).to_be_focused()


def test_question_mark_shows_the_keys_and_escape_closes_them(page: Page) -> None:
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("n")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page).to_have_url(re.compile("/handbook$"))


def test_the_help_lists_every_key_that_does_something_and_no_other(page: Page) -> None:
    page.keyboard.press("?")
    shown = page.get_by_role("dialog", name="Keyboard shortcuts").locator("dl").first.locator("dt")
    assert [words.strip() for words in shown.all_text_contents()] == [key.keys for key in KEYS]
    page.keyboard.press("Escape")
    script = (Path(app.__file__).parent / "static" / "app.js").read_text(encoding="utf-8")
    for key in ("j", "k"):
        assert f'event.key === "{key}"' in script
    marked = set(page.locator("[data-key]").evaluate_all("all => all.map((node) => node.dataset.key)"))
    page.goto("/posts/78")
    marked |= set(page.locator("[data-key]").evaluate_all("all => all.map((node) => node.dataset.key)"))
    assert marked | {"j", "k", "Esc"} == {key.keys for key in KEYS}


def test_j_and_k_go_through_lists(page: Page) -> None:
    for address, items in (
        ("/topics/shops", ".post h2 a"),
        ("/handbook", "a.row-main"),
        ("/people", ".card-person h2 a"),
    ):
        page.goto(address)
        shown = page.locator(items)
        for key, focused in (("j", 0), ("j", 1), ("j", 2), ("k", 1), ("k", 0), ("k", 0)):
            page.keyboard.press(key)
            expect(shown.nth(focused)).to_be_focused()
    page.goto("/topics/shops")
    page.keyboard.press("j")
    title = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=title, level=1)).to_be_visible()


def test_j_and_k_go_through_comments_and_e_edits_the_one_or_the_post(page: Page) -> None:
    page.goto("/posts/78")
    for place in (0, 1):  # the second is one's own
        page.keyboard.press("j")
        expect(page.locator("article.comment").nth(place)).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("e")
    expect(page).to_have_url(re.compile(r"/comments/\d+/edit$"))
    page.goto("/posts/78")
    page.keyboard.press("e")
    expect(page).to_have_url(re.compile("/posts/78/edit$"))


def test_escape_cancels_but_never_out_of_a_field(page: Page) -> None:
    page.goto("/posts/78/edit")
    page.get_by_label("Text").focus()
    page.keyboard.press("Escape")
    page.get_by_label("Text").evaluate("field => field.blur()")
    expect(page).to_have_url(re.compile("/posts/78/edit$"))
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile("/posts/78$"))


def test_escape_closes_the_menu_and_gives_the_focus_back(page: Page) -> None:
    page.get_by_role("button", name="Account of").click()
    expect(page.get_by_role("link", name="Appearance")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="Appearance")).to_be_hidden()
    expect(page.get_by_role("button", name="Account of")).to_be_focused()


def test_keys_are_letters_while_one_types(page: Page) -> None:
    page.goto("/posts/78")
    page.get_by_label("Your comment").focus()
    page.keyboard.type("n? /n")
    expect(page.get_by_label("Your comment")).to_have_value("n? /n")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_label("Your comment").fill("")


def test_keys_with_a_modifier_belong_to_the_browser(page: Page) -> None:
    page.keyboard.press("Alt+n")
    page.keyboard.press("Control+/")
    expect(page).to_have_url(re.compile("/handbook$"))
    expect(page.locator("#find")).not_to_be_focused()


def test_keys_do_nothing_for_those_who_switched_them_off(site: Site, visit: Visit) -> None:
    page = visit(site, "ines")
    page.goto("/account/appearance")
    page.get_by_role("checkbox", name="Keyboard shortcuts").uncheck()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    page.goto("/handbook")
    for key in ("n", "/", "?", "j", "e"):
        page.keyboard.press(key)
    expect(page).to_have_url(re.compile("/handbook$"))
    assert page.evaluate("document.activeElement === document.body")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("#find")).not_to_be_focused()


def test_the_whole_site_can_be_reached_by_the_tab_key_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate(FOCUSED) == "content"


def test_people_are_found_while_typing(page: Page) -> None:
    page.goto("/people")
    shown = page.locator("[data-item]:visible")
    everybody = shown.count()
    assert everybody > 5
    page.get_by_label("Find by name").press_sequentially("pastry")
    expect(shown).to_have_count(2)
    expect(page).to_have_url(re.compile(r"\?q=pastry$"))
    expect(page.locator("#announce")).to_have_text("2 people found")
    page.get_by_label("Find by name").fill("zzz")
    expect(page.get_by_text("No matches")).to_be_visible()
    page.reload()
    expect(page.get_by_text("No matches")).to_be_visible()
    page.get_by_label("Find by name").fill("")
    expect(shown).to_have_count(everybody)
    expect(page.get_by_label("Find by name")).to_be_focused()


@pytest.mark.parametrize("words", ["ines", "MAŁ", "lucia fer", "hattie@anything.example", "3296011"])
def test_typing_finds_whom_the_server_finds(page: Page, words: str) -> None:
    names = "[...document.querySelectorAll('[data-item]')].filter((one) => !one.hidden).map((one) => one.innerText)"
    page.goto("/people")
    page.get_by_label("Find by name").fill(words)
    typed = page.evaluate(names)
    page.reload()
    assert typed
    assert page.evaluate(names) == typed


def test_people_are_found_without_a_script(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie", "phone", java_script_enabled=False)
    page.goto("/people")
    page.get_by_label("Find by name").fill("pastry")
    page.get_by_role("button", name="Find").click()
    expect(page.locator("[data-item]")).to_have_count(2)


def test_the_search_opens_a_row_of_its_own_on_a_phone(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie", "phone")
    page.goto("/")
    page.locator("label.find-open").click()
    expect(page.locator("#find")).to_be_focused()
    assert page.locator("#find").bounding_box()["height"] >= 44  # type: ignore[index]
    page.keyboard.type("nia")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="People")).to_be_visible()


def test_the_theme_that_a_person_chose_wins_over_the_device(site: Site, visit: Visit) -> None:
    page = visit(site, "lucia", theme="dark")
    page.goto("/account/appearance")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_label("Light").check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    assert page.evaluate(background) != dark
