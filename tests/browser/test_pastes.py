"""What is pasted: text from office programs and web pages becomes Markdown that shows what stood there."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from .conftest import Visit
from .served import Site

SAMPLES = sorted(Path(__file__).with_name("pastes").glob("*.html"))
PASTE = """(field, given) => { const data = new DataTransfer();
  for (const [type, words] of Object.entries(given)) data.setData(type, words);
  const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
  if (field.dispatchEvent(event)) document.execCommand("insertText", false, data.getData("text/plain")); }"""


def paste(field: Locator, plain: str, html: str = "", **more: str) -> None:
    """Paste what a program leaves in the clipboard."""
    field.focus()
    field.evaluate(PASTE, {"text/plain": plain, "text/html": html} | more if html else {"text/plain": plain})


@pytest.fixture
def page(site: Site, visit: Visit) -> Page:
    opened = visit(site, "hattie")
    opened.goto("/posts/new")
    opened.on("dialog", lambda dialog: dialog.accept())
    return opened


@pytest.fixture
def field(page: Page) -> Locator:
    return page.get_by_label("Text")


def shown(page: Page) -> Locator:
    """What the preview shows of the text."""
    page.get_by_role("tab", name="Preview").click()
    return page.get_by_role("tabpanel", name="Preview")


@pytest.mark.parametrize("sample", SAMPLES, ids=[sample.stem for sample in SAMPLES])
def test_what_was_copied_elsewhere_becomes_markdown_and_undo_brings_the_plain_text_back(
    page: Page, field: Locator, sample: Path
) -> None:
    paste(field, "the plain text", sample.read_text(encoding="utf-8"))
    expect(field).to_have_value(sample.with_suffix(".md").read_text(encoding="utf-8").rstrip("\n"))
    page.keyboard.press("Control+z")
    expect(field).to_have_value("the plain text")
    page.keyboard.press("Control+z")
    expect(field).to_have_value("")
    expect(page).to_have_title(re.compile("Write a post"))


HOSTILE = [
    "a|b",
    "**x**",
    "`c`",
    "- one",
    "1. one",
    "# one",
    "[x](y)",
    "<b>",
    "&copy;",
    "a_b_ _c_",
    "~~s~~",
    "\\|",
    "C:\\*",
    "|",
]


def test_hostile_cells_are_shown_as_they_were(page: Page, field: Locator) -> None:
    rows = "".join(f"<tr><td>{n}</td><td>{escape(words)}</td></tr>" for n, words in enumerate(HOSTILE))
    paste(
        field,
        "x",
        f"<table><tr><th>No.</th><th>Words</th></tr>{rows}<tr><td>two<br>lines</td><td><p>a</p><p>b</p></td></tr></table>",
    )
    cells = shown(page).locator("td:nth-child(2)")
    expect(cells).to_have_text([*HOSTILE, "a / b"])
    expect(page.get_by_role("cell", name="two / lines")).to_be_visible()


PLAIN = [
    ("a\tb\n1\t2\n", "| a | b |\n|---|---|\n| 1 | 2 |"),
    ('a\tb\n"x\ny"\t2|3', "| a | b |\n|---|---|\n| x / y | 2\\|3 |"),
    ("1.\tone\n2.\ttwo", "1.\tone\n2.\ttwo"),
    ("\tif x:\n\t\treturn", "\tif x:\n\t\treturn"),
    ("•\tone\no\tinner\n§\tinmost\n•\ttwo", "- one\n  - inner\n    - inmost\n- two"),
    ("o que\nnada", "o que\nnada"),
    ("just *words*", "just *words*"),
]


@pytest.mark.parametrize(("plain", "after"), PLAIN)
def test_cells_and_bullets_in_plain_text_become_a_table_and_a_list(
    page: Page, field: Locator, plain: str, after: str
) -> None:
    paste(field, plain)
    expect(field).to_have_value(after)


RICH = [
    ("words ", "<b>bold</b>", "words **bold**"),
    ("words", "<ul><li>a</li><li>b</li></ul>", "words\n\n- a\n- b"),
    ("- one\n  - ", "<ul><li>a<li>b</ul>", "- one\n  - a\n  - b"),
    ("```\n", "<b>bold</b>", "```\nthe plain text"),
    ("", "<p>only</p><p>paragraphs</p>", "the plain text"),
    ("", "<b>Mind!</b>Not <b>(a)</b>b", "**Mind**!Not (a)b"),
    ("", "<table>" + "<tr><td>1</td><td>2</td></tr>" * 501 + "</table>", "the plain text"),
    ("", "<table><tr><td><b>one</b></td></tr><tr><td>two</td></tr></table>", "**one**\ntwo"),
    ("", "<ul><li><input type=checkbox checked>a</li><li><input type=checkbox>b</li></ul>", "- [x] a\n- [ ] b"),
]


@pytest.mark.parametrize(("before", "html", "after"), RICH)
def test_what_is_pasted_fits_where_it_is_pasted(page: Page, field: Locator, before: str, html: str, after: str) -> None:
    field.fill(before)
    page.keyboard.press("Control+End")
    paste(field, "the plain text", html)
    expect(field).to_have_value(after)


def test_code_of_an_editor_of_programs_stays_as_it_is(page: Page, field: Locator) -> None:
    paste(field, "x = 1", "<b>x</b> = 1", **{"vscode-editor-data": "{}"})
    expect(field).to_have_value("x = 1")
