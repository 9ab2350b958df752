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
    ValidationError,
    day_in_words,
    icon,
    initials,
    is_local_path,
    plain_text,
    plural,
    render_markdown,
    shown_lines,
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


@pytest.mark.parametrize(("moment", "now", "said"), [
    (datetime(2026, 10, 25, 0, 30), datetime(2026, 10, 25, 1, 30), "1 hour ago"),  # the clock goes from 3:00 to 2:00
    (datetime(2026, 10, 25, 0, 30), datetime(2026, 10, 25, 3, 30), "3 hours ago"),
    (datetime(2026, 3, 29, 0, 30), datetime(2026, 3, 29, 2, 30), "2 hours ago"),  # the clock goes from 2:00 to 3:00
    (datetime(2026, 10, 25, 0, 55), datetime(2026, 10, 25, 1, 5), "10 minutes ago"),
])  # fmt: skip
def test_on_the_day_the_clock_changes_the_hours_that_passed_are_counted(moment, now, said):
    assert words(moment, ZoneInfo("Europe/Berlin"), now) == said


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


def test_the_year_that_is_not_told_is_the_readers(app):
    with app.test_request_context():
        corkboard.g.now, corkboard.g.zone = datetime(2026, 12, 31, 12, 0), ZoneInfo("Pacific/Auckland")
        assert day_in_words(date(2027, 1, 1)) == "1 January"
        assert day_in_words(date(2026, 12, 31)) == "31 December 2026"


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
    ("3. three", '<ol start="3">\n<li value="3">three</li>\n</ol>\n'),
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
    "[^1]", "\n[^1]: ", "^", "[a]: /b\n", "]()", "\\\\a\\b", "C:\\_", "smb://a", "1. ", "7) ", "\u00a0", "\u05d0",
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
            free = name in corkboard.ALLOWED_ATTRIBUTES.get(tag, set()) or (name, value) == ("dir", "auto")
            free = free or (tag, name) == ("a", "rel")
            classes = corkboard.ALLOWED_CLASSES.get(tag, set()) if name == "class" else set()
            if not free and value not in classes | corkboard.ALLOWED_VALUES.get(tag, {}).get(name, set()):
                self.wrong.append((tag, name, value))
            if name == "src" and not re.match(r"/files/[0-9]", value or ""):
                self.wrong.append(value)
            # A scheme begins with a letter; browsers pass over spaces and control characters in front and within.
            scheme = re.match(r"([a-z][a-z0-9+.-]*):", re.sub(r"[\x00-\x20]", "", value or ""), re.IGNORECASE)
            if name == "href" and scheme and scheme[1].lower() not in corkboard.LINK_SCHEMES:
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


@pytest.mark.parametrize("piece", ["*", "[", "> ", "`", "<", "- ", "a|", "http://a.b/(", "www.", "a:", "[a](", "_a "])
def test_large_texts_are_rendered(piece):
    assert "<" in render_markdown((piece * 10_000)[:10_000])


TOO_COMPLEX = {
    "one-letter paragraphs": "a\n\n" * 33_000, "one-letter lines": "a\n" * 50_000, "short items": "- a\n" * 25_000,
    "empty items": "*\n" * 50_000, "quotes": ">a\n\n" * 25_000, "nested": "> - > - > - a\n" * 7_000,
    "stars": "*a* " * 25_000,
    "brackets": "[" * 100_000, "open links": "[a](b" * 20_000, "headings": "# a\n" * 25_000,
    "a wide table": f"{'|a' * 40}|\n{'|-' * 40}|\n" + f"{'|a' * 40}|\n" * 1_100,
    "a long table": "a|b\n-|-\n" + "a\n" * 49_000, "many tables": "a|b\n-|-\na|b\n\n" * 7_000,
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_COMPLEX)
def test_a_text_that_would_take_long_is_refused_with_the_reason(name):
    with pytest.raises(ValidationError, match="too complex"):
        render_markdown(TOO_COMPLEX[name][: corkboard.BODY_MAX])


def test_the_longest_ordinary_texts_are_not_too_complex():
    for source in (
        "The quick brown fox jumps over the lazy dog, and runs. " * 1_800,
        "- Some item of a list with **bold** and a [link](/posts/1), fifty\n" * 1_500,
        "|a|b|c|d|e|f|\n|-|-|-|-|-|-|\n" + "|Word one|Word two|1,200.00|Anna Lima|2026-11-29|yes|\n" * 1_500,
        "```\n" + "2026-11-29 02:42:31 [INFO] app: *ready*\n" * 2_400 + "```",
    ):
        assert len(source) > 80_000
        assert len(render_markdown(source)) > len(source)


# -- What was typed is what is shown -----------------------------------------------------------------------------------


def shown(source: str) -> str:
    """What a person reads of a text: its lines, without marks."""
    return shown_lines(render_markdown(tidy_text(source))).strip()


def hrefs(source: str) -> list[str]:
    return re.findall(r'<a href="([^"]*)"', render_markdown(tidy_text(source)))


@pytest.mark.parametrize(("source", "numbers"), [
    ("3. Mai: closed\n10. Mai: stock-taking\n24. December: half day", ["3", "10", "24"]), ("1. a\n2. b", ["1", "2"]),
    ("1. a\n1. b\n3. c", ["1", "1", "3"]), ("2026. a", ["2026"]), ("0. a\n5) b", ["0", "5"]), ("- a\n- b", []),
    ("1. a\n\n   4. x\n   9. y\n2. b", ["1", "4", "9", "2"]), ("> 7. a\n> 5. b", ["7", "5"]),
])  # fmt: skip
def test_a_list_shows_the_numbers_that_were_typed(source, numbers):
    rendered = render_markdown(source)
    assert re.findall(r'<li value="(\d+)">', rendered) == numbers
    assert all(f"{number}. " in plain_text(rendered) for number in numbers)


@pytest.mark.parametrize("source", [
    "[Tom]: yes", "[10:30]: hello\n[10:31]: hi", "[Tom]: https://example.com/a\n[Tom]: https://example.com/b",
    "[a][b]\n\n[b]: yes", "![][image1]", "![][image1]\n\n[image1]: <data:image/png;base64,AA==>", "[^1]: nobody asks",
    "[^1]", "[x]()", "[](https://example.com)", "[x](javascript:alert(1))", "[x](file:///c:/x)", "[x](readme.md)",
    "<javascript:x>", "<x:y>", "<b>x</b>", "[a]: javascript:x\n\n[a]", "[ ](https://example.com)",
    "[x](data:text/html,x)",
    "Anna Lima\nBaker Street 1\nLondon", "Regards\nAnna\n--\nBakery", "Anna\n===\nBakery", "• one\n• two\no three",
    "a\n  b\n    c".replace("  ", ""), "readme.md, setup.py, done.It works, //example.com/x", "x = a*b", "100 % & more",
    r"\\server\share\_new\x", r"\\server", r"\\10.0.0.1\c$\!a", r"C:\_temp\#x\[1]", r"see C:\*.txt", r"(\\nas\team)",
])  # fmt: skip
def test_nothing_that_was_typed_disappears(source):
    assert shown(source) == source.replace("\n\n", "\n")


def test_a_definition_with_an_address_counts_where_the_text_refers_to_it_and_the_first_one_does():
    for target in ("https://example.com/", "/posts/1", "#part", "mailto:a@example.com", "smb://server/x"):
        assert hrefs(f"[Plan] and [that][plan]\n\n[plan]: {target}") == [target] * 2
    assert shown("[a]\n\n[a]: /x\n\n[a]: /y") == "a\na: /y"


def test_escaped_text_is_what_it_was():
    for text in (r"\b", r"\\server\share", r"C:\\_x", r"a\[b]", "\\", r"x\\", r"C:\_temp\*"):
        assert shown(corkboard.escape_markdown(text)) == text, text


def test_a_footnote_leads_to_its_note_and_back_and_its_ids_are_those_of_one_text():
    source = "One[^a], two[^1], again[^a]\n\n[^1]: The **first** note\n[^a]: The other"
    first, second = (re.findall(r'id="([^"]+)"', render_markdown(source)) for _ in range(2))
    assert len({*first, *second}) == len(first) + len(second) == 10
    rendered = render_markdown(source)
    ids = re.findall(r'id="([^"]+)"', rendered)
    assert all(target in ids for target in re.findall(r'href="#([^"]+)"', rendered))
    assert "<strong>first</strong> note" in rendered
    assert plain_text(render_markdown("One[^a]\n\n[^a]: Note")) == "One Note"


@pytest.mark.parametrize("space", ["\u00a0", "\u202f", "\u3000", "\u2003"])
def test_any_space_can_stand_after_a_mark(space):
    rendered = render_markdown(f"#{space}Head\n\n-{space}one\n- [ ]{space}two\n\n3.{space}three")
    for part in ("<h2>Head</h2>", "<li>one</li>", 'type="checkbox"', '<li value="3">three</li>'):
        assert part in rendered


ENDINGS = ["", ".", ",", ":", ";", "!", "?", "…", "。", "、", "）", "」", "»", "“", "”", "’", "'", '"', ")", "]", "*",
          "؟", "،", "？", "！", "》", "】", "‹", "—", "።", "。」", "...", ").", "”,"]  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("address", ["https://example.com/a", "http://localhost:8000/a_b?c=d&e=%20#f", "ftp://example.com",
    "https://en.wikipedia.org/wiki/A_(b)", "https://ru.wikipedia.org/wiki/Мост", "https://hi.wikipedia.org/wiki/हिन्दी",
    "smb://server/share", "http://[::1]:8000/x", "https://example.com/a/"])  # fmt: skip
def test_an_address_ends_before_the_punctuation_of_its_sentence(address, ending):
    for before, after in (("", ""), ("„", " and"), ("(", " so"), ("（", "）然后")):
        rendered = render_markdown(before + address + ending + after)
        (found,) = re.findall(r'<a href="[^"]*" class="bare"[^>]*>([^<]*)</a>', rendered)
        assert corkboard.html.unescape(found) == address


@pytest.mark.parametrize(("source", "targets"), [
    ("www.example.com, WWW.example.com/a.", ["http://www.example.com", "http://WWW.example.com/a"]), ("readme.md", []),
    ("setup.py done.It works example.com", []), ("ana@example.com。", ["mailto:ana@example.com"]),
    ("//example.com", []), ("**https://a.b/c**", ["https://a.b/c"]),
    ("_https://a.b/c_", ["https://a.b/c"]), ("http://.", []), ("javascript://a.b", []), ("file://a/b", []),
])  # fmt: skip
def test_a_bare_address_needs_a_scheme_or_www(source, targets):
    assert hrefs(source) == targets


@pytest.mark.parametrize("target", ["smb://server/share", "ftp://example.com/x", "tel:+4930123", "ms-teams:/l/chat",
    "msteams:/l/chat", "mailto:a@example.com", "sip:a@example.com", "/posts/1", "#part",
    "HTTPS://EXAMPLE.COM"])  # fmt: skip
def test_these_links_work(target):
    assert hrefs(f"[x]({target})") == [target]


@pytest.mark.parametrize("text", ["مرحبا بالجميع", "שלום לכולם", "ܫܠܡܐ"])
def test_each_block_of_a_text_runs_in_its_own_direction(text):
    rendered = render_markdown(f"## {text}\n\n{text}\n\nEnglish\n\n- {text}\n\n> {text}\n\n|{text}|\n|-|\n|a|")
    for tag in ("h2", "p", "ul", "blockquote", "table"):
        assert f'<{tag} dir="auto">' in rendered
    assert '<h2 dir="auto" id="s-' in corkboard.outlined(rendered)[0]
    assert " dir=" not in render_markdown("## Only\n\nEnglish")


@pytest.mark.parametrize(("source", "text"), [
    ("|Day|Who|\n|-|-|\n|Monday|Ana|\n|Tuesday||", "Day, Who · Monday, Ana · Tuesday"), ("- a\n- b", "a · b"),
    ("5. a\n7. b", "5. a · 7. b"), ("one\ntwo", "one two"), ("x[^1]\n\n[^1]: y", "x y"),
])  # fmt: skip
def test_an_excerpt_reads_like_the_text(source, text):
    assert plain_text(render_markdown(source)) == text


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\u00ad", "\u2066", "\ufeff", "\u3164", "\u115f", "\u2800",
    "\u034f",    "\u061c", "\u180e", "\u2060", "\U000e0041", "\ufe0f", "\u200d", "\u200c", "\x80", "\U0001d173",
    "\ufffa"])  # fmt: skip
def test_a_line_has_no_invisible_characters(hidden):
    assert tidy(f"{hidden}An{hidden}na{hidden} {hidden}Lima{hidden}") == "Anna Lima"
    assert tidy(f" {hidden}\u3000{hidden * 2}") == ""


@pytest.mark.parametrize("text", ["👩\u200d👩\u200d👧", "❤\ufe0f", "1\ufe0f⃣", "می\u200cخواهم", "क्\u200dष",
    "🏴\U000e0067\U000e0062\U000e007f",
    "Zoë", "北京", "©\ufe0f", "🏳\ufe0f\u200d🌈"])  # fmt: skip
def test_what_emoji_and_scripts_need_stays(text):
    assert tidy(text) == text


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
