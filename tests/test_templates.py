"""What templates are given: times in words, counts, initials, icons, addresses of files; and Markdown made safe."""

from __future__ import annotations

import hashlib
import re
from datetime import date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from conftest import REQUIRE_ALL, close, settings
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import app as corkboard
from app import (
    day_in_words,
    icon,
    initials,
    is_local_path,
    plain_text,
    plural,
    render_markdown,
    slugify,
    tidy,
    tidy_text,
)

NOW = datetime(2026, 3, 4, 12, 0)  # a Wednesday
UTC = ZoneInfo("UTC")


def words(moment: datetime, zone: ZoneInfo = UTC, now: datetime = NOW) -> str:
    return re.sub("<[^>]+>", "", corkboard._ago(moment, now, zone))


# -- Times, counts, names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("passed", "said"), [
    (timedelta(0), "just now"), (timedelta(seconds=59), "just now"), (timedelta(seconds=-30), "just now"),
    (timedelta(minutes=1), "1 minute ago"), (timedelta(minutes=59, seconds=59), "59 minutes ago"),
    (timedelta(hours=1), "1 hour ago"), (timedelta(hours=12), "12 hours ago"),
    (timedelta(hours=12, minutes=1), "yesterday"), (timedelta(hours=36), "yesterday"),
    (timedelta(hours=36, minutes=1), "Monday"), (timedelta(days=6), "Thursday"), (timedelta(days=7), "25 February"),
    (timedelta(days=62), "1 January"), (timedelta(days=63), "31 December 2025"),
])  # fmt: skip
def test_a_time_is_told_in_words(passed, said):
    assert words(NOW - passed) == said


def test_the_day_is_the_one_where_the_reader_is():
    moment, now = datetime(2026, 3, 4, 1, 0), datetime(2026, 3, 4, 4, 0)
    assert words(moment, UTC, now) == "3 hours ago"
    assert words(moment, ZoneInfo("America/New_York"), datetime(2026, 3, 4, 8, 0)) == "yesterday"
    assert words(moment, ZoneInfo("Asia/Tokyo"), datetime(2026, 3, 4, 8, 0)) == "7 hours ago"


def test_the_full_date_stands_behind_the_words():
    shown = corkboard._ago(datetime(2026, 3, 3, 23, 30, 15, 5), NOW, ZoneInfo("Europe/Berlin"))
    assert 'datetime="2026-03-03T23:30:15Z"' in shown
    assert 'title="Wednesday 4 March 2026, 00:30"' in shown


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)), st.sampled_from(["UTC", "Asia/Kolkata", "Pacific/Apia"])
)
def test_any_time_can_be_told(moment, zone):
    assert words(moment, ZoneInfo(zone))


def test_nobody_was_here_never(app):
    with app.test_request_context():
        assert corkboard.ago(None) == "never"


def test_a_day_is_told_with_its_year_only_when_it_is_another(app):
    with app.test_request_context():
        corkboard.g.now = NOW
        assert day_in_words(date(2026, 12, 2)) == "2 December"
        assert day_in_words(date(2027, 1, 2)) == "2 January 2027"


@pytest.mark.parametrize(("count", "said"), [
    (0, "no comments"), (1, "1 comment"), (2, "2 comments"), (1000, "1,000 comments"), (21, "21 comments"),
])  # fmt: skip
def test_a_count_is_told_in_words(count, said):
    assert plural(count, "comment") == said


def test_a_count_of_people_has_its_own_plural():
    assert [plural(count, "person", "people") for count in (0, 1, 3)] == ["no people", "1 person", "3 people"]


@pytest.mark.parametrize(("name", "letters"), [
    ("Ana Lima", "AL"), ("ana", "A"), ("Ana Maria de Lima", "AL"), ("élise öz", "ÉÖ"), ("", ""), ("  ", ""),
    ("李 小龙", "李小"), ("ßeta x", "SS"), ("😀 😀", "😀😀"),
])  # fmt: skip
def test_initials_are_the_first_letters_of_the_first_and_the_last_name(name, letters):
    assert initials(name) == letters


@given(st.text(max_size=40))
def test_initials_are_never_more_than_two(name):
    assert len(initials(name)) <= 2


# -- Icons, addresses of files -----------------------------------------------------------------------------------------


def test_an_icon_is_for_the_eye_only_and_escapes_its_name():
    assert icon("lock") == '<i class="bi bi-lock" aria-hidden="true"></i>'
    assert "<script" not in icon('"><script>')


def test_every_icon_that_a_template_shows_is_in_the_font():
    import flask_bootstrap

    static = Path(flask_bootstrap.__file__).parent / "static" / "bootstrap5" / "css" / "font"
    css = next(static.rglob("bootstrap-icons.min.css")).read_text(encoding="utf-8")
    folder = Path(corkboard.__file__).parent / "templates"
    shown = {
        name
        for path in folder.rglob("*.html")
        for name in re.findall(r'icon\("([\w-]+)"', path.read_text(encoding="utf-8"))
    }
    assert len(shown) > 10
    assert not [name for name in shown if f".bi-{name}::before" not in css]


def test_the_address_of_a_file_follows_its_content(tmp_path):
    (tmp_path / "x.css").write_text("a", encoding="utf-8")
    found = []
    for content in ("a", "b", "a"):
        corkboard.static_hash.cache_clear()  # as in a new process
        app = corkboard.create_app(settings(tmp_path, "sqlite:///x.db"))
        app.static_folder = str(tmp_path)
        (tmp_path / "x.css").write_text(content, encoding="utf-8")
        with app.test_request_context():
            found.append(corkboard.asset("static", "x.css"))
            (tmp_path / "x.css").write_text("changed while running", encoding="utf-8")
            assert corkboard.asset("static", "x.css") == found[-1]
        close(app)
    assert found[0] == found[2] != found[1]
    assert found[0] == f"/static/x.css?v={hashlib.sha256(b'a').hexdigest()[:12]}"


def test_bootstraps_files_have_addresses_of_the_same_kind(app):
    with app.test_request_context():
        assert re.fullmatch(
            r"/bootstrap/static/css/bootstrap\.min\.css\?v=[0-9a-f]{12}",
            corkboard.asset("bootstrap.static", "css/bootstrap.min.css"),
        )


# -- Markdown ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "rendered"), [
    ("**bold** *soft* ~~gone~~ `code`",
     "<p><strong>bold</strong> <em>soft</em> <s>gone</s> <code>code</code></p>\n"),
    ("- one\n- two", "<ul>\n<li>one</li>\n<li>two</li>\n</ul>\n"),
    ("3. three", '<ol start="3">\n<li>three</li>\n</ol>\n'),
    ("> said", "<blockquote>\n<p>said</p>\n</blockquote>\n"),
    ("a  \nb", "<p>a<br>\nb</p>\n"), ("---", "<hr>\n"),
    ("[x](https://example.com \"t\")",
     '<p><a href="https://example.com" title="t" rel="noopener noreferrer">x</a></p>\n'),
    ("[x](/handbook)", '<p><a href="/handbook" rel="noopener noreferrer">x</a></p>\n'),
    ("https://example.com", '<p><a href="https://example.com" class="bare" rel="noopener noreferrer">https://example.com</a></p>\n'),
    ("<b>x</b>", "<p>&lt;b&gt;x&lt;/b&gt;</p>\n"), ("", ""),
])  # fmt: skip
def test_markdown_becomes_html(source, rendered):
    assert render_markdown(source) == rendered


def test_a_table_keeps_its_alignment_without_any_style():
    rendered = render_markdown("| a | b |\n|:-:|--:|\n| 1 | 2 |")
    assert '<th align="center">a</th>' in rendered
    assert '<td align="right">2</td>' in rendered
    assert "style" not in rendered


def test_headings_begin_below_the_title_and_go_down_one_at_a_time():
    rendered = render_markdown("#### a\n\n###### b\n\n# c\n\n## d\n\n#### e\n\n## f")
    assert re.findall(r"<(h\d)>(\w)", rendered) == [
        ("h2", "a"), ("h3", "b"), ("h2", "c"), ("h3", "d"), ("h4", "e"), ("h3", "f"),
    ]  # fmt: skip


ATTACKS = [
    "<script>alert(1)</script>", "[x](javascript:alert(1))", "[x](JaVaScRiPt:x)", "[x](&#106;avascript:alert(1))",
    "[x](data:text/html,x)", "[x](vbscript:x)", "![x](https://evil.example/p.png)", "<img src=x onerror=alert(1)>",
    '<a href="x" onclick="y">', "<svg/onload=x>", "[x](\tjavascript:x)", '[x](https://e "onmouseover=x")',
    "<https://e.example/\"onclick=x>", "```\"><script>\nx\n```", "```x\" onclick=\"y\nx\n```", "<style>*{}</style>",
    "[x]: javascript:x\n\n[x]", "<iframe src=x>", "<!-- --!><script>x</script>", "<math><mi//xlink:href=\"data:x\">",
]  # fmt: skip


# What else attacks are made of: halves of marks and tags, and what joins them to something else.
FRAGMENTS = [
    *ATTACKS, "a", "\n\n", "\n", "> ", "- ", "1. ", "- [ ] ", "- [x] ", "`", "```", "**", "*", "~~", "[", "](", ")",
    "![", "<", ">", "|", "\n|---|\n", "#", " ", "    ", "\t", "\\", "&", "&#", "&#x6a;", "&lt;", '"', "'", "=", ":",
    "//", "[[", "]]", "|x", "[[a|", "(/pages?title=", "(/files/1/a.png)", "javascript:", "data:", "<input ", "<a ",
    "<input type=text autofocus onfocus=x>", 'type="checkbox"', "style=x", "class=x", "id=s-x", "href=", "onclick=x",
    "</a>", "<!--", "-->", "]]>", "<![CDATA[", "https://e.example/", "mailto:x@e.example", "www.e.example", "@name",
    "\u202e", "\u2028", "\x00", "\ufeff", "é", "😀",
]  # fmt: skip
EXAMPLES = 5000 if REQUIRE_ALL else 300  # of what the site's safety hangs on


class Checker(HTMLParser):
    """Notes whatever a browser could act on and we never meant."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[object] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in corkboard.ALLOWED_TAGS:
            self.wrong.append(tag)
        if tag == "input" and not {("type", "checkbox"), ("disabled", "")} <= {*attrs}:
            self.wrong.append((tag, attrs))
        for name, value in attrs:
            free = name in corkboard.ALLOWED_ATTRIBUTES.get(tag, set()) or (tag, name) == ("a", "rel")
            classes = corkboard.ALLOWED_CLASSES.get(tag, set()) if name == "class" else set()
            if not free and value not in classes | corkboard.ALLOWED_VALUES.get(tag, {}).get(name, set()):
                self.wrong.append((tag, name, value))
            if name == "src" and not re.match(r"/files/[0-9]", value or ""):
                self.wrong.append(value)
            # A scheme begins with a letter; browsers pass over spaces and control characters in front and within.
            scheme = re.match(r"([a-z][a-z0-9+.-]*):", re.sub(r"[\x00-\x20]", "", value or ""), re.IGNORECASE)
            if name == "href" and scheme and scheme[1].lower() not in ("http", "https", "mailto", "tel"):
                self.wrong.append(value)


def wrong_in(rendered: str) -> list[object]:
    checker = Checker()
    checker.feed(rendered)
    checker.close()
    return checker.wrong


@pytest.mark.parametrize("source", ATTACKS)
def test_nothing_hostile_gets_through(source):
    assert not wrong_in(render_markdown(source))
    assert not wrong_in(render_markdown(f"- {source}\n\n> {source}\n\n| a |\n|---|\n| {source} |"))


@hypothesis_settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
@example("```\n\n<script>")
def test_nothing_made_of_hostile_pieces_gets_through_and_cleaning_again_changes_nothing(source):
    rendered = render_markdown(tidy_text(source))
    assert not wrong_in(rendered)
    assert corkboard.SANITIZER.clean(rendered) == rendered
    drawn, _headings = corkboard.outlined(rendered)
    assert not wrong_in(re.sub(r' (id|class)="(s-[\w-]+|anchor)"', "", drawn))
    assert len(plain_text(rendered)) <= corkboard.EXCERPT_MAX


@hypothesis_settings(max_examples=1000 if REQUIRE_ALL else 100, deadline=None)
@given(st.text(max_size=300))
def test_any_text_can_be_rendered_and_cut_to_an_excerpt(source):
    rendered = render_markdown(tidy_text(source))
    assert not wrong_in(rendered)
    short = plain_text(rendered)
    assert len(short) <= corkboard.EXCERPT_MAX
    assert "\n" not in short
    assert render_markdown(tidy_text(source)) == rendered


@pytest.mark.parametrize(("rendered", "text"), [
    ("<p>one</p>\n<p>two</p>", "one two"), ("<ul><li>a</li><li>b</li></ul>", "a · b"), ("a<br>b", "a b"),
    ("<p>x &amp; &lt;y&gt;</p>", "x & <y>"), ("<p>" + "word " * 100 + "</p>", "word " * 54 + "word…"), ("", ""),
    ("<p>" + "x" * 400 + "</p>", "x" * 279 + "…"),
])  # fmt: skip
def test_an_excerpt_is_the_words_on_one_line(rendered, text):
    assert plain_text(rendered) == text


def test_large_texts_are_rendered_in_time():
    import time

    for source in ("*" * 20_000, "[" * 20_000, "> " * 5_000, "`" * 20_000, "<" * 20_000, "- " * 5_000, "a|" * 10_000):
        begun = time.perf_counter()
        render_markdown(source)
        assert time.perf_counter() - begun < 5, source[:5]


# -- Text --------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=100))
def test_tidying_again_changes_nothing(text):
    assert tidy(tidy(text)) == tidy(text)
    assert tidy_text(tidy_text(text)) == tidy_text(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", tidy(text) + tidy_text(text))


@given(st.text(max_size=100))
def test_a_slug_is_always_fit_for_an_address(text):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slugify(text))
    assert len(slugify(text)) <= corkboard.TOPIC_MAX


@given(st.text(max_size=60))
@example("/\t/evil.example")
@example("/\\evil.example")
@example("//evil.example")
@example("/" + chr(160) + "/evil")
def test_a_local_path_leads_nowhere_else(target):
    from urllib.parse import urljoin, urlsplit

    if is_local_path(target):
        assert urlsplit(urljoin("http://here.example/login", target)).netloc == "here.example"
        assert target.startswith("/")
        assert not target.startswith(("//", "/\\"))
