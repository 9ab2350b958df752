"""Writing in Markdown: the toolbar, the keys in a field, lists that go on, addresses that are pasted, and paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from playwright.sync_api import Locator, Page, expect

from app import Post, PostData
from database import db

from .conftest import Visit
from .looks import faults_of
from .served import Site

CHOOSE = """(field, words) => { const at = field.value.indexOf(words);
  field.focus(); field.setSelectionRange(at, at + words.length); }"""
CHOSEN = "(field) => field.value.slice(field.selectionStart, field.selectionEnd)"
PASTE = """(field, words) => { const data = new DataTransfer(); data.setData("text/plain", words);
  const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
  if (field.dispatchEvent(event)) document.execCommand("insertText", false, words); }"""


@pytest.fixture
def page(site: Site, visit: Visit) -> Page:
    opened = visit(site, "hattie")
    opened.goto("/posts/new")
    opened.on("dialog", lambda dialog: dialog.accept())
    return opened


@pytest.fixture
def field(page: Page) -> Locator:
    return page.get_by_label("Text")


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("toolbar", name="Formatting").get_by_role("button", name=name, exact=True)


# -- The toolbar -------------------------------------------------------------------------------------------------------

FORMATS = [
    ("Bold", "one two", "two", "one **two**"),
    ("Italic", "one two", "two", "one *two*"),
    ("Code", "one two", "two", "one `two`"),
    ("Heading", "one\ntwo", "two", "one\n## two"),
    ("List", "one\ntwo", "one\ntwo", "- one\n- two"),
    ("Numbered list", "one\n\ntwo", "one\n\ntwo", "1. one\n\n2. two"),
    ("Task list", "one\ntwo", "one\ntwo", "- [ ] one\n- [ ] two"),
    ("Quote", "one\ntwo", "one\ntwo", "> one\n> two"),
]


@pytest.mark.parametrize(("name", "before", "chosen", "after"), FORMATS)
def test_a_button_formats_what_is_chosen_takes_it_back_and_the_browser_can_undo_it(
    page: Page, field: Locator, name: str, before: str, chosen: str, after: str
) -> None:
    field.press_sequentially(before)
    field.evaluate(CHOOSE, chosen)
    button(page, name).click()
    expect(field).to_have_value(after)
    expect(field).to_be_focused()
    button(page, name).click()
    expect(field).to_have_value(before)
    for value in (after, before):
        page.keyboard.press("Control+z")
        expect(field).to_have_value(value)


def test_one_kind_of_list_becomes_another_and_bold_is_not_taken_for_italic(page: Page, field: Locator) -> None:
    field.fill("- one\n- two")
    field.evaluate(CHOOSE, "- one\n- two")
    for name, after in (
        ("Task list", "- [ ] one\n- [ ] two"),
        ("Numbered list", "1. one\n2. two"),
        ("List", "- one\n- two"),
    ):
        button(page, name).click()
        expect(field).to_have_value(after)
    field.fill("a **b** c")
    field.evaluate(CHOOSE, "b")
    button(page, "Italic").click()
    expect(field).to_have_value("a ***b*** c")


def test_lines_of_code_are_fenced_and_a_table_waits_for_its_words(page: Page, field: Locator) -> None:
    field.fill("one\ntwo")
    field.evaluate(CHOOSE, "one\ntwo")
    button(page, "Code").click()
    expect(field).to_have_value("```\none\ntwo\n```\n")
    button(page, "Table").click()
    assert field.evaluate(CHOSEN) == "Heading"
    with page.expect_file_chooser():
        button(page, "Picture or file").click()


def test_the_toolbar_is_one_stop_for_tab_and_arrows_move_in_it(page: Page, field: Locator) -> None:
    page.get_by_role("tab", name="Write").focus()
    page.keyboard.press("Tab")
    expect(button(page, "Bold")).to_be_focused()
    for key, name in (
        ("ArrowRight", "Italic"),
        ("End", "Table"),
        ("ArrowRight", "Bold"),
        ("ArrowLeft", "Table"),
        ("Home", "Bold"),
    ):
        page.keyboard.press(key)
        expect(button(page, name)).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    expect(field).to_be_focused()
    page.keyboard.press("Tab")
    expect(field).not_to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    expect(button(page, "Italic")).to_be_focused()
    assert faults_of(page, "the toolbar", ".toolbar") == []


def test_the_keys_of_a_field_format_in_posts_and_comments(page: Page, field: Locator) -> None:
    for address, label in (("/posts/new", "Text"), ("/posts/78", "Your comment")):
        page.goto(address)
        typed = page.get_by_label(label)
        typed.press_sequentially("a word")
        for key, after in (
            ("b", "a **word**"),
            ("b", "a word"),
            ("i", "a *word*"),
            ("i", "a word"),
        ):
            typed.evaluate(CHOOSE, "word")
            page.keyboard.press(f"Control+{key}")
            expect(typed).to_have_value(after)
        typed.fill("")


# -- Links -------------------------------------------------------------------------------------------------------------

LINKS = [
    ("one two", "two", "", "example.com/a (b)", "one [two](https://example.com/a%20%28b%29)"),
    ("one two", "two", "", "/posts/78", "one [two](/posts/78)"),
    ("one two", "two", "", "nia@example.com", "one [two](mailto:nia@example.com)"),
    ("https://example.com/x", "https://example.com/x", "the plan", "", "[the plan](https://example.com/x)"),
    ("", "", "", "https://example.com", "[https://example.com](https://example.com)"),
    ("a [b](/c) d", "b", "", "/e", "a [b](/e) d"),
    ("", "", "a [b]", "/c", "[a \\[b\\]](/c)"),
]


@pytest.mark.parametrize(("before", "chosen", "words", "address", "after"), LINKS)
def test_a_link_is_asked_for_by_keyboard_alone_and_can_be_undone(
    page: Page, field: Locator, before: str, chosen: str, words: str, address: str, after: str
) -> None:
    field.press_sequentially(before)
    field.evaluate(CHOOSE, chosen)
    page.keyboard.press("Control+k")
    dialog = page.get_by_role("dialog", name="Edit link" if "](" in before else "Add link")
    expect(dialog).to_be_visible()
    if words:
        dialog.get_by_label("Words to show").fill(words)
    if address:
        dialog.get_by_label("Address").fill(address.replace(" ", "%20"))
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(field).to_have_value(after)
    expect(field).to_be_focused()
    page.keyboard.press("Control+z")
    expect(field).to_have_value(before)


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_the_dialog_of_a_link_says_what_is_missing_removes_links_and_gives_the_focus_back(
    site: Site, visit: Visit, size: str
) -> None:
    page = visit(site, "hattie", size)
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("/posts/new")
    field = page.get_by_label("Text")
    field.press_sequentially("see [this](/posts/78)")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Control+k")
    dialog = page.get_by_role("dialog", name="Edit link")
    expect(dialog.get_by_label("Words to show")).to_have_value("this")
    expect(dialog.get_by_label("Address")).to_be_focused()
    dialog.get_by_label("Address").fill("")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("Enter an address such as https://example.com")
    assert faults_of(page, "the dialog of a link", "#link") == []
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(field).to_be_focused()
    expect(field).to_have_value("see [this](/posts/78)")
    page.keyboard.press("Control+k")
    dialog.get_by_role("button", name="Remove link").press("Enter")
    expect(field).to_have_value("see this")


# -- Lists, and what is pasted -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "after"), [
    ("- one", "- one\n- two\nend"), ("* one", "* one\n* two\nend"), ("9. one", "9. one\n10. two\nend"),
    ("- [x] one", "- [x] one\n- [ ] two\nend"), ("  1) one", "  1) one\n  2) two\nend"), ("one", "one\ntwo\n\nend"),
])  # fmt: skip
def test_enter_goes_on_with_a_list_and_ends_it_in_an_empty_item(
    page: Page, field: Locator, first: str, after: str
) -> None:
    field.press_sequentially(first)
    page.keyboard.press("Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.keyboard.type("end")
    expect(field).to_have_value(after)


def test_enter_in_the_middle_of_an_item_parts_it_and_in_front_of_it_makes_room(page: Page, field: Locator) -> None:
    field.fill("- one two")
    field.evaluate("field => { field.focus(); field.setSelectionRange(5, 6); }")
    page.keyboard.press("Delete")
    page.keyboard.press("Enter")
    expect(field).to_have_value("- one\n- two")
    field.evaluate("field => field.setSelectionRange(0, 0)")
    page.keyboard.press("Enter")
    expect(field).to_have_value("\n- one\n- two")


LISTS = [
    ("- one", ["Enter", "- two"], "- one\n- two"),
    ("1. one", ["Enter", "2. two"], "1. one\n2. two"),
    ("- one", ["Enter", "3. Mai"], "- one\n- 3. Mai"),
    ("- [x] one", ["Enter", "- [ ] two"], "- [x] one\n- [ ] two"),
    ("> one", ["Enter", "two", "Enter", "Enter", "end"], "> one\n> two\nend"),
    ("> - one", ["Enter", "two", "Enter", "Enter", "x"], "> - one\n> - two\n> x"),
    ("1. a\n2. c\n3. d", ["ArrowUp", "ArrowUp", "End", "Enter", "b"], "1. a\n2. b\n3. c\n4. d"),
    ("3. Mai\n10. Mai", ["ArrowUp", "End", "Enter", "x"], "3. Mai\n4. x\n10. Mai"),
    ("1. a\n2. b\n3. c", ["ArrowUp", "End", "Tab"], "1. a\n   1. b\n2. c"),
    ("1. a\n   1. b\n2. c", ["ArrowUp", "End", "Shift+Tab"], "1. a\n2. b\n3. c"),
    ("* a\n  1. b", ["Shift+Tab"], "* a\n* b"),
    ("- a\n- b", ["Tab", "Control+z"], "- a\n- b"),
    ("- a", ["Enter", "Tab", "b", "Enter", "Enter", "c", "Enter", "Enter", "d"], "- a\n  - b\n- c\nd"),
    ("```\n- a", ["Enter", "b"], "```\n- a\nb"),
]


@pytest.mark.parametrize(("before", "keys", "after"), LISTS)
def test_lists_go_on_nest_and_end_as_in_other_editors(
    page: Page, field: Locator, before: str, keys: list[str], after: str
) -> None:
    field.fill(before)
    page.keyboard.press("Control+End")
    for key in keys:
        if re.fullmatch(r"(\w+\+)?([A-Z][a-z]+[A-Za-z]+|z)", key) and key not in ("Mai",):
            page.keyboard.press(key)
        else:
            page.keyboard.type(key)
    expect(field).to_have_value(after)
    expect(field).to_be_focused()


@pytest.mark.parametrize(("before", "keys"), [
    ("words", ["Tab"]), ("- one", ["Tab"]), ("- one", ["Shift+Tab"]), ("- one\n- two", ["Escape", "Tab"]),
    ("- one\n  - two", ["Escape", "Shift+Tab"]), ("- one\n- two", ["Tab", "Tab"]),
])  # fmt: skip
def test_the_tab_key_leaves_the_field_where_it_nests_nothing_and_always_after_escape(
    page: Page, field: Locator, before: str, keys: list[str]
) -> None:
    field.fill(before)
    page.keyboard.press("Control+End")
    for key in keys:
        page.keyboard.press(key)
    expect(field).not_to_be_focused()


def test_an_empty_last_item_is_not_published(page: Page, field: Locator) -> None:
    page.get_by_label("Title").fill("What to bring")
    field.press_sequentially("- one")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Publish").click()
    expect(page.locator("article .prose li")).to_have_text(["one"])


PASTED = [
    ("see this here", "this", "https://e.example/a_(b)", "see [this](https://e.example/a_%28b%29) here"),
    ("see this here", "this", "{site}/posts/78", "see [this](/posts/78) here"),
    ("see this here", "this", "just words", "see just words here"),
    ("see ", "", "https://e.example/a", "see https://e.example/a"),
    ("see ", "", "{site}/handbook", "see [words](/handbook)"),
    ("see [x](", "", "{site}/handbook", "see [x](/handbook"),
    ("see https://a.example", "https://a.example", "https://b.example", "see https://b.example"),
    ("one\ntwo", "one\ntwo", "https://b.example", "https://b.example"),
]


@pytest.mark.parametrize(("before", "chosen", "pasted", "after"), PASTED)
def test_an_address_pasted_over_words_links_them(
    page: Page, field: Locator, site: Site, before: str, chosen: str, pasted: str, after: str
) -> None:
    field.press_sequentially(before)
    if chosen:
        field.evaluate(CHOOSE, chosen)
    field.evaluate(PASTE, pasted.format(site=site.url))
    expect(field).to_have_value(after)
    if "](" in after:
        page.keyboard.press("Control+z")
        expect(field).to_have_value(before)


def test_titles_complete_themselves_after_two_brackets(page: Page, field: Locator) -> None:
    field.press_sequentially("See [[ROTA")
    option = page.get_by_role("listbox", name="Pages").get_by_role("option", name="Rota and days off")
    expect(option).to_have_attribute("aria-selected", "true")
    assert faults_of(page, "titles offered", "#write-panel") == []
    page.keyboard.press("Enter")
    expect(field).to_have_value("See [[Rota and days off]]")
    expect(page.get_by_role("listbox")).to_have_count(0)
    page.keyboard.type(" and [[when]]")
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Backspace")
    page.get_by_role("option", name="When you are ill").click()
    expect(field).to_have_value("See [[Rota and days off]] and [[When you are ill]]")
    page.keyboard.type(" [[nothing like it")
    expect(page.get_by_role("listbox")).to_have_count(0)


# -- Comments ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def reply(page: Page) -> Locator:
    page.goto("/posts/78")
    return page.get_by_label("Your comment")


def is_calm(page: Page) -> bool:
    bar = page.get_by_role("toolbar", name="Formatting")
    return bar.evaluate("(bar) => getComputedStyle(bar).opacity") == "0"


def test_below_a_post_the_tools_wait_until_somebody_writes_and_nothing_moves(page: Page, reply: Locator) -> None:
    assert is_calm(page)
    place = "(field) => field.getBoundingClientRect().top + scrollY"
    before = reply.evaluate(place)
    reply.focus()
    assert not is_calm(page)
    assert reply.evaluate(place) == before
    page.keyboard.press("Shift+Tab")
    expect(button(page, "Bold")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("word")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("End")
    expect(button(page, "Mention")).to_be_focused()
    page.get_by_role("heading", name="comments").click()
    assert not is_calm(page), "there are words"
    reply.fill("")
    reply.blur()
    assert is_calm(page)
    assert faults_of(page, "a comment's field that waits", "#comments") == []


@pytest.mark.parametrize(("name", "after"), [
    ("Bold", "one **two**"), ("Italic", "one *two*"), ("Code", "one `two`"),
    ("List", "- one two"), ("Quote", "> one two"), ("Mention", "one @two"),
])  # fmt: skip
def test_a_comment_is_formatted_as_a_post_is(page: Page, reply: Locator, name: str, after: str) -> None:
    reply.press_sequentially("one two")
    reply.evaluate(CHOOSE, "two")
    button(page, name).click()
    expect(reply).to_have_value(after)
    page.keyboard.press("Control+z")
    expect(reply).to_have_value("one two")


def test_a_button_of_a_comment_offers_whom_one_may_name(page: Page, reply: Locator) -> None:
    reply.press_sequentially("Thanks,")
    button(page, "Mention").click()
    expect(reply).to_have_value("Thanks, @")
    expect(page.get_by_role("listbox", name="People").get_by_role("option")).to_have_count(8)
    assert faults_of(page, "a comment that is being written", "#comments") == []


def test_a_comment_is_previewed_where_it_is_written(page: Page, reply: Locator) -> None:
    reply.fill("All **done**")
    page.get_by_role("button", name="Preview").click()
    shown = page.get_by_role("region", name="Preview")
    expect(shown.locator("strong")).to_have_text("done")
    expect(shown).to_be_focused()
    expect(reply).to_be_hidden()
    assert faults_of(page, "a comment's preview", "#comments") == []
    page.get_by_role("button", name="Keep editing").click()
    expect(reply).to_be_focused()
    expect(reply).to_have_value("All **done**")
    expect(shown).to_be_hidden()
    expect(page.locator("article.comment", has_text="All done")).to_have_count(0)


def test_without_a_script_a_comment_has_its_hint_and_its_preview(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie", java_script_enabled=False)
    page.goto("/posts/78")
    expect(page.get_by_role("toolbar")).to_have_count(0)
    field = page.get_by_label("Your comment")
    expect(field).to_have_accessible_description(re.compile("Markdown works.*@ to mention someone"))
    field.fill("All **done**")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("section.preview strong")).to_have_text("done")
    expect(page.locator("section.preview")).to_be_in_viewport()
    expect(field).to_have_value("All **done**")


def test_a_comment_that_is_edited_has_the_same_tools(site: Site, visit: Visit) -> None:
    page = visit(site, "ines")
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("/posts/78")
    page.get_by_role("link", name="Edit", exact=True).nth(1).click()
    field = page.get_by_label("Comment")
    assert not is_calm(page)
    field.fill("one two")
    field.evaluate(CHOOSE, "two")
    button(page, "Bold").click()
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("region", name="Preview").locator("strong")).to_have_text("two")
    assert faults_of(page, "a comment that is edited") == []
    page.get_by_role("link", name="Cancel").click()


# -- What it becomes ---------------------------------------------------------------------------------------------------

TEXT = """Begin with [[Rota and days off]], then [[Nothing of that name]], or [elsewhere](https://example.com/far).

## First

- [x] One
- [ ] Two

## Second

| a | b |
|---|---|
| 1 | 2 |

## Third

The end."""


@pytest.fixture(scope="module")
def long_page(site: Site) -> int:
    """The id of a page of the handbook with a bit of everything."""
    with site.app.app_context():
        found = sa.select(Post.topic_id).where(Post.title == "Rota and days off")
        topic_id = db.session.scalars(found).one()
        data = PostData("page", topic_id, "A bit of everything", TEXT)
        return Post.save(site.user("hattie"), data, how="publish", form_id="e" * 32).id


@pytest.mark.parametrize("scripts", [True, False], ids=["script", "no script"])
def test_a_page_links_marks_lists_its_tasks_and_has_an_outline(
    site: Site, visit: Visit, long_page: int, scripts: bool
) -> None:
    page = visit(site, "hattie", java_script_enabled=scripts)
    page.goto(f"/posts/{long_page}")
    prose = page.locator("article .prose").first
    for box, done in ((0, True), (1, False)):
        expect(prose.get_by_role("checkbox").nth(box)).to_be_disabled()
        expect(prose.get_by_role("checkbox").nth(box)).to_be_checked(checked=done)
    outline = page.get_by_role("navigation", name="On this page")
    expect(outline.get_by_role("link")).to_have_text(["First", "Second", "Third"])
    outline.get_by_role("link", name="Second").click()
    expect(page).to_have_url(re.compile("#s-second$"))
    prose.get_by_role("link", name="Nothing of that name").click()
    expect(page.get_by_label("Title")).to_have_value("Nothing of that name")
    page.go_back()
    prose.get_by_role("link", name="Rota and days off").click()
    expect(page.get_by_role("heading", name="Rota and days off", level=1)).to_be_visible()


def test_the_outline_folds_on_a_phone_and_nothing_is_wrong_with_it(site: Site, visit: Visit, long_page: int) -> None:
    page = visit(site, "hattie", "phone")
    page.goto(f"/posts/{long_page}")
    expect(page.get_by_role("link", name="Third")).to_have_count(1)  # the heading: the outline is folded
    page.locator("summary", has_text="On this page").click()
    expect(page.get_by_role("navigation", name="On this page").get_by_role("link")).to_have_count(3)
    assert faults_of(page) == []


def test_without_a_script_there_is_no_toolbar_but_the_words_on_how_to_format(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie", java_script_enabled=False)
    page.goto("/posts/new")
    expect(page.get_by_role("toolbar")).to_have_count(0)
    page.get_by_text("How to format").click()
    expect(page.get_by_text("[[Page title]]")).to_be_visible()


def test_paper_shows_what_was_written_and_no_buttons(site: Site, visit: Visit, long_page: int, tmp_path: Path) -> None:
    page = visit(site, "hattie")
    page.goto(f"/posts/{long_page}")
    page.emulate_media(media="print", color_scheme="dark")
    for what in ("banner", "button", "textbox", "navigation"):
        expect(page.get_by_role(what)).to_have_count(0)  # type: ignore[arg-type]
    for words in ("A bit of everything", "Hattie Thimble", "The end."):
        expect(page.locator("article").get_by_text(words, exact=True).first).to_be_visible()
    after = "link => getComputedStyle(link, '::after').content"
    assert page.get_by_role("link", name="elsewhere").evaluate(after) == '" (https://example.com/far)"'
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf(path=tmp_path / "page.pdf", format="A4").startswith(b"%PDF")
