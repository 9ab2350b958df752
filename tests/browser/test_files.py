"""Files: dropped, pasted or chosen with the script, and in the plain field without it."""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from .conftest import Visit
from .looks import faults_of
from .served import Site
from .test_writing import written


def picture(size: tuple[int, int] = (300, 200)) -> bytes:
    made = BytesIO()
    Image.new("RGB", size, (60, 120, 90)).save(made, "PNG")
    return made.getvalue()


def chosen(name: str, content: bytes, kind: str = "application/octet-stream") -> Any:
    return {"name": name, "mimeType": kind, "buffer": content}


HAND_OVER = """([field, how, name, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const held = new DataTransfer();
  held.items.add(new File([bytes], name, { type: "image/png" }));
  const given = how === "paste" ? { clipboardData: held } : { dataTransfer: held };
  const Kind = how === "paste" ? ClipboardEvent : DragEvent;
  if (how === "drop") field.dispatchEvent(new Kind("dragover", { bubbles: true, cancelable: true, ...given }));
  field.dispatchEvent(new Kind(how, { bubbles: true, cancelable: true, ...given }));
}"""


def hand_over(page: Page, how: str, name: str) -> None:
    """Drop a picture on the text, or paste it there."""
    field = page.get_by_label(re.compile("^(Text|Your comment)$"))
    page.evaluate(HAND_OVER, [field.element_handle(), how, name, b64encode(picture()).decode()])


@pytest.fixture
def words() -> str:
    return f"The oven {secrets.token_hex(4)}"


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_picture_that_is_handed_over_goes_at_once_and_shows_in_the_text(
    site: Site, visit: Visit, words: str, how: str
) -> None:
    page = visit(site, "hattie")
    written(page, words, "Before.")
    hand_over(page, how, "oven (1).png")
    expect(page.get_by_label("Text")).to_have_value(
        re.compile(r"^Before\.\n\n!\[oven \(1\)\.png\]\(/files/\d+/oven%20%281%29\.png\)")
    )
    expect(page.get_by_role("checkbox", name="oven (1).png")).to_be_checked()
    expect(page.locator(".uploading")).to_be_hidden()
    page.get_by_role("button", name="Publish").click()
    shown = page.get_by_role("img", name="oven (1).png")
    expect(shown).to_have_js_property("naturalWidth", 300)
    assert shown.get_attribute("width") == "300"
    expect(page.locator(".files")).to_have_count(0)
    assert not faults_of(page)


DRAG = """(kind) => { const held = new DataTransfer();
  held.items.add(new File(["x"], "notes.txt", { type: "text/plain" }));
  const event = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: held });
  document.querySelector("h1").dispatchEvent(event); return event.defaultPrevented; }"""


def test_a_file_may_be_dropped_anywhere_on_a_page_with_a_form(site: Site, visit: Visit, words: str) -> None:
    page = visit(site, "hattie")
    written(page, words)
    sign = "getComputedStyle(document.body, '::after').content"
    assert page.evaluate(DRAG, "dragover")
    assert page.evaluate(sign) == '"Drop to add"'
    assert page.evaluate(DRAG, "drop")
    assert page.evaluate(sign) == "none"
    expect(page.get_by_role("checkbox", name="notes.txt")).to_be_checked()


def test_a_file_dropped_where_no_form_is_does_not_replace_the_page(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie")
    for address in ("/people", "/posts/drafts"):
        page.goto(address)
        assert page.evaluate(DRAG, "dragover")
        assert page.evaluate(DRAG, "drop")
        assert page.evaluate("getComputedStyle(document.body, '::after').content") == "none"
    page.goto("/account")
    assert page.evaluate(DRAG.replace('"h1"', '"input[type=file]"'), "drop") is False, "this field takes a file itself"


def with_pictures(page: Page, title: str, count: int) -> None:
    """Publish a post with so many pictures in its text, of different sizes."""
    written(page, title, "Look:\n\n")
    page.get_by_label("Text").focus()
    page.keyboard.press("Control+End")
    files = [chosen(f"p{n}.png", picture((300 + n, 200))) for n in range(1, count + 1)]
    page.get_by_label("Pictures and files").set_input_files(files)
    expect(page.locator(".attached li")).to_have_count(count)
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("heading", name=title)).to_be_visible()


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_several_pictures_are_a_gallery_and_open_large_one_after_the_other(
    site: Site, visit: Visit, words: str, count: int
) -> None:
    page = visit(site, "hattie")
    with_pictures(page, words, count)
    links = page.locator(".gallery > a")
    expect(links).to_have_count(count)
    boxes = [link.bounding_box() for link in links.all() if link.is_visible()]
    assert len(boxes) == min(count, 5)
    assert boxes[0]["y"] == boxes[1]["y"], "the first two are beside each other"  # type: ignore[index]
    if count == 7:
        assert links.nth(4).evaluate("(link) => getComputedStyle(link, '::after').content") == '"+2"'
    assert faults_of(page, f"a gallery of {count}") == []
    links.nth(1).focus()
    page.keyboard.press("Enter")
    box = page.get_by_role("dialog", name="Pictures")
    for key, name in (
        (None, "p2"),
        ("ArrowRight", "p3" if count > 2 else "p1"),
        ("Home", "p1"),
        ("ArrowLeft", f"p{count}"),
    ):
        if key:
            page.keyboard.press(key)
        expect(box.get_by_role("img", name=f"{name}.png")).to_have_js_property("naturalWidth", 300 + int(name[1:]))
        expect(box).to_contain_text(f"{name[1:]} of {count}")
    expect(box).to_contain_text("Hattie Thimble, just now")
    assert faults_of(page, "a picture, large", "#lightbox") == []
    box.get_by_role("button", name="Next").click()
    expect(box).to_contain_text(f"1 of {count}")
    page.keyboard.press("Escape")
    expect(box).to_be_hidden()
    expect(links.first).to_be_focused()


def test_on_a_phone_a_finger_moves_through_the_pictures(site: Site, visit: Visit, words: str) -> None:
    page = visit(site, "hattie", "phone", has_touch=True)
    with_pictures(page, words, 3)
    assert faults_of(page, "a gallery on a phone") == []
    page.set_viewport_size({"width": 360, "height": 780})
    page.locator(".gallery > a").first.click()
    box = page.get_by_role("dialog", name="Pictures")
    expect(box).to_contain_text("1 of 3")
    page.evaluate("""() => { const figure = document.querySelector("#lightbox figure");
      const at = (clientX) => [new Touch({ identifier: 1, target: figure, clientX, clientY: 300 })];
      figure.dispatchEvent(new TouchEvent("touchstart", { bubbles: true, touches: at(300) }));
      figure.dispatchEvent(new TouchEvent("touchend", { bubbles: true, changedTouches: at(120) })); }""")
    expect(box).to_contain_text("2 of 3")
    box.get_by_role("button", name="Close").click()
    expect(page.locator(".gallery > a").nth(1)).to_be_focused()


def test_without_the_script_a_picture_of_a_gallery_leads_to_its_file(site: Site, visit: Visit, words: str) -> None:
    with_pictures(visit(site, "hattie"), words, 6)
    page = visit(site, "hattie", java_script_enabled=False)
    page.goto("/")
    page.get_by_role("link", name=words).first.click()
    links = page.locator(".gallery > a")
    assert all(link.is_visible() for link in links.all())
    assert re.match(r"/files/\d+/p2.png$", links.nth(1).get_attribute("href") or "")


def test_many_files_are_chosen_and_the_one_that_is_refused_is_told_beside_the_field(
    site: Site, visit: Visit, words: str
) -> None:
    page = visit(site, "hattie")
    written(page, words)
    files = [chosen("a.png", picture()), chosen("plan.pdf", b"%PDF-1.4"), chosen("run.exe", b"x")]
    page.get_by_label("Pictures and files").set_input_files(files)
    expect(page.locator("#upload-error")).to_have_text("run.exe: this type of file isn't accepted.")
    expect(page.locator(".attached li")).to_have_count(2)
    assert not faults_of(page)
    page.get_by_role("button", name="Publish").click()
    expect(page.locator(".files").get_by_role("link", name="plan.pdf")).to_be_visible()
    page.get_by_role("button", name="Remove plan.pdf").click()
    expect(page.locator(".files")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".files").get_by_role("link", name="plan.pdf")).to_be_visible()


def test_a_file_that_is_too_large_is_told_before_it_is_sent(site: Site, visit: Visit, words: str) -> None:
    page = visit(site, "hattie")
    written(page, words)
    page.get_by_label("Pictures and files").set_input_files(chosen("film.mp4", bytes(25 * 2**20 + 1)), timeout=60_000)
    expect(page.locator("#upload-error")).to_have_text("film.mp4 is larger than 25 MB.")
    expect(page.get_by_label("Text")).to_have_value("Some **words** that took an hour.")


def test_a_picture_dropped_on_a_comment_is_part_of_it(site: Site, visit: Visit, words: str) -> None:
    page = visit(site, "hattie")
    page.goto("/posts/75")
    page.get_by_label("Your comment").fill(words)
    hand_over(page, "drop", "oven.png")
    expect(page.get_by_label("Your comment")).to_have_value(re.compile(r"!\[oven\.png\]"))
    page.get_by_role("button", name="Comment", exact=True).click()
    said = page.locator("article.comment", has_text=words)
    expect(said.get_by_role("img", name="oven.png")).to_have_js_property("naturalWidth", 300)


def test_without_the_script_files_go_with_the_form(site: Site, visit: Visit, words: str) -> None:
    page = visit(site, "hattie", java_script_enabled=False)
    written(page, words)
    page.get_by_label("Pictures and files").set_input_files([chosen("a.png", picture()), chosen("notes.txt", b"words")])
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("checkbox", name="notes.txt")).to_be_checked()
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("heading", name=words)).to_be_visible()
    expect(page.locator(".files").get_by_role("link", name="notes.txt")).to_be_visible()
    expect(page.locator(".files").get_by_role("img", name="a.png")).to_be_visible()


@pytest.mark.parametrize("scripts", [True, False], ids=["script", "no script"])
def test_a_picture_of_oneself_stands_in_the_header(site: Site, visit: Visit, scripts: bool) -> None:
    page = visit(site, "farida", java_script_enabled=scripts)
    page.goto("/account")
    page.get_by_label("Profile picture").set_input_files(chosen("me.png", picture()))
    page.get_by_role("button", name="Save profile").click()
    expect(page.locator("header img.avatar")).to_be_visible()
    page.get_by_role("button", name="Remove picture").click()
    expect(page.locator("header img.avatar")).to_have_count(0)
    expect(page.locator("header span.avatar")).to_be_visible()
