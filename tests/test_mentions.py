"""Mentions: whom a text names, who is linked in it, and who is offered while one types."""

from __future__ import annotations

import contextlib
import re
import time

import pytest
from conftest import REQUIRE_ALL, add_comment, add_person, add_post
from hypothesis import given, settings
from hypothesis import strategies as st
from world import set_columns

from app import (
    BODY_MAX,
    MENTIONS_MOST,
    USERNAME_PATTERN,
    Comment,
    User,
    ValidationError,
    mentioned_names,
    render_markdown,
)
from database import fold, utcnow

LINK = re.compile(r'<a class="mention" href="/people/([^"]+)"[^>]*>[@＠﹫]([^<]+)</a>')


def linked(source: str, *people: str) -> list[str]:
    """Whom the HTML of a text links, of those people or of all that could be."""
    drawn = render_markdown(source, people=lambda names: names & {*people} if people else names)
    for address, words in LINK.findall(drawn):
        assert address == words
    return [fold(address) for address, _ in LINK.findall(drawn)]


# -- The rule ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "@ana", "Hello @ana, well done", "See @ana.", "@ana...", "(@ana)", "“@ana”", "@ana's plan", "@ana: please",
        "**@ana** knows", "*@ana*", "_@ana said so_", "- @ana", "> @ana", "# @ana", "[@ana]", "@Ana", "<@ana>",
        "| a |\n|---|\n| @ana |", "One line\n@ana", "@bo/@ana or @ana/@bo",
        # Beside other marks, and several in a row.
        "@bo/@ana", "@bo+@ana", "@bo&@ana", "@bo-@ana", "@bo_@ana", "@bo.@ana", "@bo,@ana", "@bo…@ana",
        "@bo/@cy/@ana",
        "_@ana_", "__@ana__", "*@bo*/@ana", "@ana-", "@ana–Lima", "@ana_", "@ana.-", "-@ana", "/@ana", "+@ana",
        "cc:@ana",
        "@ana/", "@ana\\", "@ana’s", "@ana!", "@ana?", "@ana*", "~@ana", "🙂@ana🙂", "«@ana»", "‹@ana›",
        "¿@ana?", "\xa0@ana\xa0",
        # In scripts that have no spaces between words, no upper case, or particles that follow a name.
        "@anaさん", "@ana様、", "你好@ana", "你好@ana你好", "你好，@ana。", "「@ana」", "（@ana）", "@ana、@bo",
        "はい@anaさん",
        "カー@anaー", "@ana님", "안녕@ana에게", "สวัสดี@anaครับ", "مرحبا@ana،", "و@ana", "ל@ana",
        "नमस्ते@anaजी", "々@ana",
        # With the sign that Chinese and Japanese keyboards type.
        "＠ana", "＠anaさん", "你好＠ana", "＠bo／＠ana", "＠bo/＠ana", "﹫ana", "\u3000＠ana\u3000",
        "\u200b@ana\u200b", "\u200f@ana",
    ],
)  # fmt: skip
def test_a_name_after_an_at_sign_is_a_link_to_the_person(source):
    assert set(linked(source, "ana")) == {"ana"}


@pytest.mark.parametrize(
    "source",
    [
        "ana@ana.example", "x@ana", "x_@ana", "é@ana", "mail.@ana", "a+@ana", "@@ana", "@ana@host.example", "@anaïs",
        "`@ana`", "```\n@ana\n```", "    @ana", "[@ana](https://a.example)", "[words](/people/@ana)",
        "![@ana](/files/1/a.png)", "<https://a.example/@ana>", "https://a.example/@ana", "www.a.example/@ana",
        "a.example?by=@ana", r"\@ana", "@ ana", "@", "@a", "@ana_bo", "@" + "a" * 33, "&#64;ana",
        "tom＠ana.example", "tom＠ana", "你好tom@ana.example", "tom+bo@ana.example", "tom_@ana", "tom-@ana",
        "tom.+@ana",
        "TOM@ana", "Тим@ana", "τ@ana", "1@ana", "１@ana", "@ana@bo", "@ana＠bo", "＠ana@host.example", "@＠ana",
        "＠＠ana",
        "@anaя", "@ana1", "@ana１", "@anaa", "@ana.b", "@ana-b", "@ana_é", "@ana.é", "https://a.example/-/@ana",
        "https://a.example/x?y=1&@ana", "www.a.example/-/@ana", "[你好@ana](https://a.example)", "`＠ana`",
        "tom@ana/@ana", "mailto:tom@ana.example", "x/@ana", "@bo x/@ana",
    ],
)  # fmt: skip
def test_within_words_addresses_code_and_links_nobody_is_mentioned(source):
    assert linked(source, "ana", "a", "host.example") == []


def test_the_name_is_shown_as_it_was_typed_and_the_rest_is_text():
    drawn = render_markdown("@Ana.Lima, @nobody & @ana-", people=lambda _: {"ana.lima"})
    assert LINK.findall(drawn) == [("Ana.Lima", "Ana.Lima")]
    assert drawn.endswith(", @nobody &amp; @ana-</p>\n")
    drawn = render_markdown("＠Anaさん", people=lambda names: names)
    assert LINK.findall(drawn) == [("Ana", "Ana")]
    assert drawn.endswith(">＠Ana</a>さん</p>\n")


def test_the_words_for_a_picture_stay_whole_and_mention_nobody():
    drawn = render_markdown("![A cake for @ana](/files/1/cake.png)", people=lambda names: names)
    assert 'alt="A cake for @ana"' in drawn
    assert 'alt=""' in render_markdown("![](/files/1/cake.png) for @ana", people=lambda names: names)


def test_who_is_mentioned_is_asked_for_once_and_only_where_somebody_is():
    asked: list[frozenset[str]] = []
    for source in ("No one here.", "A *text* of a@b.example", "@ana and @bo, @Ana again"):
        render_markdown(source, people=lambda names: asked.append(names) or ())
    assert asked == [frozenset({"ana", "bo"})]


def test_the_first_hundred_people_are_mentioned():
    names = [f"p{number}" for number in range(MENTIONS_MOST + 20)]
    source = " ".join(f"@{name}" for name in [*names, "p0"])
    assert linked(source) == [*names[:MENTIONS_MOST], "p0"]


PIECES = st.sampled_from(
    ["@ana", "@bo.lund", "@Ana-", "@x_", "＠ana", "さん",
     "ana", "@", "a", "é", "1", "_", "*", "**", "`", "```", "~~", "[", "]", "(",
     ")", "![", "](/files/1/a.png)", "](https://a.example)", "<", ">", "/", "\\", ".", "-", "|", "#", " ", "    ", "\n",
     "\n\n", "\n> ", "\n- ", "\n|a|b|\n|-|-|\n|", "https://", "www.a.example", "a@b.example", "&amp;", "&#64;",
     ":", "'"]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=60)


@given(TEXTS)
@settings(max_examples=1000 if REQUIRE_ALL else 100, deadline=None)
def test_whoever_is_linked_is_mentioned(source):
    assert mentioned_names(render_markdown(source, people=lambda names: names)) == set(linked(source))


@given(TEXTS)
@settings(max_examples=1000 if REQUIRE_ALL else 100, deadline=None)
def test_no_name_has_a_part_in_a_word_or_ends_in_a_full_stop(source):
    for name in linked(source):
        assert re.fullmatch(USERNAME_PATTERN, name)
        at, letter = re.escape(name), "[A-Za-z0-9é]"
        assert re.search(rf"(?<!{letter})[@＠﹫]{at}(?!{letter})", source, re.IGNORECASE)


@given(st.from_regex(USERNAME_PATTERN, fullmatch=True).filter(lambda name: 2 <= len(name) <= 32))
@settings(max_examples=1000 if REQUIRE_ALL else 100, deadline=None)
def test_every_username_can_be_mentioned(username):
    assert linked(f"Thanks, @{username}. And (@{username})!", fold(username)) == [fold(username)] * 2


@pytest.mark.parametrize(
    "piece",
    ["@", "@a", "@aa/", "@aa_", "/@aa", "+-@", "＠ああ", " @aa", " @a.", "@" + "." * 50, " @" + "a." * 15, " @aa@"],
)
def test_a_long_text_of_at_signs_is_read_or_refused_quickly(piece):
    source = (piece * BODY_MAX)[:BODY_MAX]
    begun = time.perf_counter()
    with contextlib.suppress(ValidationError):
        linked(source)
    assert time.perf_counter() - begun < 5


# -- On the site -------------------------------------------------------------------------------------------------------


def test_posts_and_comments_link_the_people_who_are_there(people, topics, sign_in):
    set_columns(User, people.stranger.id, deactivated_at=utcnow())
    body = "@editor, @Member. @stranger and @nobody"
    post = add_post(people.member, topics.open, body=body)
    post_id = post.id
    add_comment(people.member, post, body)
    page = sign_in(people.reader).get(f"/posts/{post_id}").text
    assert LINK.findall(page) == [("editor", "editor"), ("Member", "Member")] * 2
    assert "@editor, @Member. @stranger and @nobody" in sign_in(people.reader).get("/").text


def offered(browser, typed: str, topic: int | str = "") -> list[str]:
    """Whom the list offers, each with whether they see the topic."""
    answer = browser.get("/mentions", query_string={"q": typed, "topic": topic})
    assert answer.status_code == 200
    lines = re.findall(r'data-username="([^"]+)".*?</li>', answer.text, re.DOTALL)
    blind = re.findall(r"@([^<]+), can't see this topic", answer.text)
    return [f"{name} blind" if name in blind else name for name in lines]


def test_people_are_offered_by_name_and_username_whatever_the_case_and_the_accents(people, sign_in):
    for username, name in (("lea", "Léa Ünal"), ("bo.lund", "Anders Bo Lund"), ("x_y", "Ümit 50%")):
        add_person(username, name=name)
    browser = sign_in(people.reader)
    for typed in ("lea", "LÉA", "unal", "Üna", "le"):
        assert offered(browser, typed) == ["lea"]
    for typed in ("bo.l", "Lund", "and", "bo"):
        assert offered(browser, typed) == ["bo.lund"]
    assert offered(browser, "50%") == offered(browser, "x_") == ["x_y"]
    assert offered(browser, "%") == offered(browser, "und") == offered(browser, "nobody") == []


def test_at_most_eight_are_offered_neither_oneself_nor_who_is_gone(people, sign_in):
    for number in range(10):
        add_person(f"crowd{number}")
    set_columns(User, people.stranger.id, deactivated_at=utcnow())
    browser = sign_in(people.member)
    assert offered(browser, "crowd") == [f"crowd{number}" for number in range(8)]
    assert len(offered(browser, "")) == 8
    assert offered(browser, "member") == offered(browser, "stranger") == []


def test_who_sees_the_topic_is_offered_first_and_who_does_not_is_marked(people, topics, sign_in):
    add_person("early", name="Aaron")
    browser = sign_in(people.member)
    private = offered(browser, "", topics.private.id)
    assert private == ["admin", "editor", "reader", "early blind", "stranger blind"]
    assert offered(browser, "", topics.open.id) == ["early", "admin", "editor", "reader", "stranger"]


def test_a_topic_that_one_does_not_see_tells_nothing_of_its_members(people, topics, sign_in):
    browser = sign_in(people.stranger)
    assert browser.get(f"/mentions?q=a&topic={topics.private.id}").status_code == 404
    assert browser.get("/mentions?q=a&topic=999999").status_code == 404
    sent = {"body": "@admin and @reader", "topic": topics.private.id}
    assert "cannot see" not in browser.submit("/posts/preview", sent).text


def test_a_preview_says_who_will_not_be_told(people, topics, sign_in):
    browser, body = sign_in(people.member), "@stranger, @editor, @nobody and `@stranger`"
    told = "Stranger can't see this topic and won't be notified."
    assert told in browser.submit("/posts/preview", {"body": body, "topic": topics.private.id}).text
    assert "cannot see" not in browser.submit("/posts/preview", {"body": body, "topic": topics.open.id}).text
    assert "cannot see" not in browser.submit("/posts/preview", {"body": body}).text
    whole = {"title": "T", "body": body, "topic": topics.private.id, "kind": "news", "preview": "1"}
    page = browser.submit("/posts/new", whole).text
    assert page.count("can't see this topic") == page.count(told) == 1


def test_every_text_field_knows_which_topic_it_writes_for(people, topics, sign_in):
    post = add_post(people.member, topics.private)
    comment = Comment.create(people.member, post.id, body="B", form_id="0" * 32)
    browser = sign_in(people.member)
    for page in (f"/posts/{post.id}", f"/comments/{comment.id}/edit"):
        assert f'data-mentions="{topics.private.id}"' in browser.get(page).text
    for page in ("/posts/new", f"/posts/{post.id}/edit"):
        text = browser.get(page).text
        assert "data-mentions" in text
        assert 'name="topic"' in text
