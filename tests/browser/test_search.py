"""The search: results while typing, chosen by keys; and the same as a plain form where there is no script."""

from __future__ import annotations

import contextlib
import re

import pytest
from playwright.sync_api import Error, Page, Route, expect

from .conftest import Visit
from .looks import faults_of
from .served import Site
from .test_writing import written


@pytest.fixture
def page(site: Site, visit: Visit) -> Page:
    opened = visit(site, "hattie")
    opened.goto("/handbook")
    return opened


def test_what_is_found_while_typing_is_chosen_by_keys(page: Page) -> None:
    box = page.get_by_role("combobox", name="Search")
    expect(box).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("/")
    page.keyboard.type("oven")
    options = page.get_by_role("option")
    expect(page.locator("#live mark").first).to_have_text(re.compile("oven", re.IGNORECASE))
    expect(box).to_have_attribute("aria-expanded", "true")
    expect(page.locator("#announce")).to_have_text(re.compile(r"[0-9]+ results? found"))
    assert faults_of(page) == []
    page.keyboard.press("ArrowUp")
    expect(options.last).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowDown")
    expect(options.first).to_have_attribute("aria-selected", "true")
    expect(box).to_have_attribute("aria-activedescendant", options.first.get_attribute("id") or "")
    expect(box).to_be_focused()
    address = options.first.get_attribute("href")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(re.escape(address or "nowhere")))


def test_escape_closes_the_list_then_leaves_the_box(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("oven")
    expect(page.get_by_role("option").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("option")).to_have_count(0)
    expect(page.locator("#find")).to_have_value("oven")
    expect(page.locator("#find")).to_be_focused()


def test_an_answer_that_comes_late_is_not_shown(page: Page) -> None:
    held: list[Route] = []
    page.route(re.compile(r"part=live&q=oven$"), lambda route: held.append(route))
    page.keyboard.press("/")
    with page.expect_request(re.compile(r"q=oven$")):
        page.keyboard.type("oven")
    page.keyboard.press("Control+a")
    page.keyboard.type("wojt")
    expect(page.get_by_role("option").first).to_contain_text("Wojciech")
    with contextlib.suppress(Error):  # nobody waits for it any more
        held[0].fulfill(body='<a role="option" data-count="1">Late</a>')
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option").first).to_have_attribute("aria-selected", "true")
    expect(page.get_by_text("Late", exact=True)).to_have_count(0)


def test_what_was_just_written_is_found(page: Page) -> None:
    written(page, "Zamboni for the yard", "We bought a zamboni.")
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("heading", name="Zamboni for the yard")).to_be_visible()
    page.goto("/search?q=zambo")
    expect(page.locator(".hit h3 mark").first).to_have_text("Zamboni")


def test_the_search_works_without_a_script(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie", "phone", java_script_enabled=False)
    page.goto("/search")
    page.locator(".search-form").get_by_label("Search", exact=True).fill("OVEN")
    page.locator(".search-form").get_by_role("button", name="Search").click()
    expect(page.locator(".hit mark").first).to_be_visible()
    page.get_by_text("Filters").click()
    page.get_by_label("Type").select_option("Handbook")
    page.locator(".search-form").get_by_role("button", name="Search").click()
    expect(page).to_have_url(re.compile("kind=page"))
    for told in page.locator(".hit .meta").all_inner_texts():
        assert told.startswith("Handbook")
    expect(page.get_by_label("Type")).to_have_value("page")


def test_the_page_of_results_has_no_faults(page: Page) -> None:
    page.goto("/search?q=oven&kind=news")
    expect(page.locator(".hit").first).to_be_visible()
    assert faults_of(page) == []
