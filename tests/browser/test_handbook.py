"""A page of the handbook beside its tree, and the page on which editors put the tree in order."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from app import Post, PostData, Topic
from database import db

from .conftest import Visit
from .looks import faults_of
from .served import Site

TITLES = ["Ovens", "Gudrun", "Otto", "Yeast"]


@pytest.fixture
def topic(site: Site) -> Iterator[str]:
    """The slug of a topic with four handbook pages: Gudrun and Otto are below Ovens. It is deleted afterwards."""
    with site.app.app_context():
        editor = site.user("hattie")
        made = Topic.create(editor, form_id=secrets.token_hex(16), name=f"Garden {secrets.token_hex(4)}")
        ids: dict[str, int] = {}
        for title in TITLES:
            parent_id = ids["Ovens"] if title in ("Gudrun", "Otto") else None
            data = PostData("page", made.id, title, "## One\n\n## Two\n\n## Three\n\nText", parent_id=parent_id)
            ids[title] = Post.save(editor, data, how="publish", form_id=secrets.token_hex(16)).id
        slug, topic_id = made.slug, made.id
    yield slug
    with site.app.app_context():
        Topic.delete(site.user("hattie"), topic_id)


def rows(page: Page) -> list[str]:
    """The pages in the form for the order, each with a dash for each level."""
    shown = "row => '- '.repeat(row.className.match(/level-(.)/)[1]) + row.querySelector('label').textContent"
    return page.locator(".sort > li").evaluate_all(f"rows => rows.map({shown})")


def saved(page: Page) -> list[str]:
    """Save the order, and return it as the form shows it when it is opened again."""
    address = page.url
    page.get_by_role("button", name="Save order").click()
    expect(page.get_by_text("Order saved.")).to_be_visible()
    page.goto(address)
    return rows(page)


def test_a_page_is_dragged_by_its_grip_with_what_is_below_it(site: Site, visit: Visit, topic: str) -> None:
    page = visit(site, "hattie")
    page.goto(f"/handbook/{topic}/arrange")
    assert rows(page) == ["Ovens", "- Gudrun", "- Otto", "Yeast"]
    drag(page, "Ovens", onto="Yeast")
    assert rows(page) == ["Yeast", "Ovens", "- Gudrun", "- Otto"]
    drag(page, "Otto", onto="Yeast", right=30)
    assert rows(page) == ["Yeast", "- Otto", "Ovens", "- Gudrun"]
    expect(page.locator("#announce")).to_have_text("Place 1 of 1, under Yeast. Not saved yet.")
    assert saved(page) == ["Yeast", "- Otto", "Ovens", "- Gudrun"]


def drag(page: Page, title: str, *, onto: str, right: int = 0) -> None:
    grip = page.locator("li", has=page.get_by_text(title, exact=True)).locator(".grip").bounding_box()
    target = page.locator(".sort > li", has=page.get_by_text(onto, exact=True)).bounding_box()
    assert grip
    assert target
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right, target["y"] + target["height"] - 3, steps=8)
    page.mouse.up()


def test_pages_are_put_in_order_by_the_keyboard_alone(site: Site, visit: Visit, topic: str) -> None:
    page = visit(site, "hattie")
    page.goto(f"/handbook/{topic}/arrange")
    for name, there in (
        ("Move Yeast up", ["Yeast", "Ovens", "- Gudrun", "- Otto"]),
        ("Move Yeast up", ["Yeast", "Ovens", "- Gudrun", "- Otto"]),
        ("Move Otto up", ["Yeast", "Ovens", "- Otto", "- Gudrun"]),
        ("Move Otto out", ["Yeast", "Ovens", "- Gudrun", "Otto"]),
        ("Move Yeast down", ["Ovens", "- Gudrun", "Yeast", "Otto"]),
        ("Move Otto in", ["Ovens", "- Gudrun", "Yeast", "- Otto"]),
        ("Move Yeast in", ["Ovens", "- Gudrun", "- Yeast", "- - Otto"]),
        ("Move Yeast in", ["Ovens", "- Gudrun", "- Yeast", "- - Otto"]),
    ):
        button = page.get_by_role("button", name=name)
        button.focus()
        page.keyboard.press("Enter")
        assert rows(page) == there, name
        expect(button).to_be_focused()
    expect(page.locator("#announce")).to_have_text("Place 2 of 2, under Ovens. Not saved yet.")
    assert saved(page) == ["Ovens", "- Gudrun", "- Yeast", "- - Otto"]


def test_without_a_script_numbers_put_pages_in_order(site: Site, visit: Visit, topic: str) -> None:
    page = visit(site, "hattie", java_script_enabled=False)
    page.goto(f"/handbook/{topic}/arrange")
    expect(page.locator(".grip").first).to_be_hidden()
    page.get_by_label("Yeast").fill("5")
    page.get_by_label("Otto").fill("15")
    page.get_by_role("button", name="Save order").click()
    expect(page.get_by_text("Order saved.")).to_be_visible()
    shelf = page.locator(".shelf", has=page.locator(f"a[href='/topics/{topic}']"))
    expect(shelf.locator(".row-main")).to_have_text(["Yeast", "Ovens", "Otto", "Gudrun"])


def test_one_page_is_moved_from_its_own_page(site: Site, visit: Visit, topic: str) -> None:
    page = visit(site, "hattie", "phone")
    page.goto(f"/handbook/{topic}/arrange")
    page.goto(f"/posts/{id_of(site, topic, 'Otto')}")
    page.get_by_role("button", name="Move").click()
    assert faults_of(page, "the form that moves a page", within="#move-menu") == []
    page.set_viewport_size({"width": 360, "height": 780})
    page.get_by_label("Under").select_option("Yeast")
    page.get_by_role("button", name="Move page").click()
    expect(page.get_by_text("Order saved.")).to_be_visible()
    expect(page.locator(".crumbs")).to_contain_text("Yeast")
    expect(page.get_by_role("link", name="Previous Yeast")).to_be_visible()


def id_of(site: Site, topic: str, title: str) -> int:
    with site.app.app_context():
        found = db.session.scalar(sa.select(Post.id).join(Post.topic).where(Topic.slug == topic, Post.title == title))
        db.session.rollback()
        return found or 0


def test_the_tree_stands_beside_the_page_and_opens_and_closes(site: Site, visit: Visit, topic: str) -> None:
    page = visit(site, "hattie")
    page.goto(f"/posts/{id_of(site, topic, 'Gudrun')}")
    tree = page.get_by_role("navigation", name="Handbook")
    expect(tree.get_by_role("link", name="Gudrun", exact=True)).to_have_attribute("aria-current", "page")
    expect(tree.get_by_role("link", name="Otto", exact=True)).to_be_visible()
    twist = tree.get_by_role("button", name="Pages below Ovens")
    twist.focus()
    page.keyboard.press("Enter")
    expect(twist).to_have_attribute("aria-expanded", "false")
    expect(tree.get_by_role("link", name="Otto", exact=True)).to_be_hidden()
    expect(tree.get_by_role("link", name="Feeding Maurice")).to_be_hidden()
    tree.get_by_role("button", name="Pages of Bakehouse").click()
    expect(tree.get_by_role("link", name="Feeding Maurice")).to_be_visible()
    page.get_by_role("link", name="Next Otto").click()
    expect(page.get_by_role("heading", name="Otto", level=1)).to_be_visible()
    assert faults_of(page, "a page of the handbook with its tree") == []


def test_on_a_phone_the_tree_is_folded_above_the_page(site: Site, visit: Visit, topic: str) -> None:
    page = visit(site, "hattie", "phone")
    page.goto(f"/posts/{id_of(site, topic, 'Gudrun')}")
    otto = page.get_by_role("navigation", name="Handbook").get_by_role("link", name="Otto", exact=True)
    expect(otto).to_be_hidden()
    page.get_by_text("All pages", exact=True).click()
    expect(otto).to_be_visible()
    assert faults_of(page, "the tree on a phone", within=".book-tree") == []


def test_without_a_script_the_whole_tree_is_open(site: Site, visit: Visit, topic: str) -> None:
    page = visit(site, "hattie", java_script_enabled=False)
    page.goto(f"/posts/{id_of(site, topic, 'Gudrun')}")
    tree = page.get_by_role("navigation", name="Handbook")
    for name in ("Otto", "Feeding Maurice"):
        expect(tree.get_by_role("link", name=name, exact=True)).to_be_visible()
    expect(tree.get_by_role("button")).to_have_count(0)


def test_the_page_that_a_new_one_is_below_brings_its_topic_along(site: Site, visit: Visit, topic: str) -> None:
    page = visit(site, "hattie")
    page.goto("/posts/new?kind=page")
    page.get_by_label("Under").select_option("Yeast")
    expect(page.locator("#audience")).to_contain_text("Garden")
    page.locator("#topic").select_option(index=0)
    expect(page.get_by_label("Under")).to_have_value("")


def test_the_form_for_the_order_looks_right(site: Site, visit: Visit, topic: str) -> None:
    page = visit(site, "hattie")
    page.goto(f"/handbook/{topic}/arrange")
    assert faults_of(page, "the form for the order") == []
