"""Links between pages of the handbook by their titles, and the outline of a long text."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace

import pytest
from conftest import REQUIRE_ALL, add_comment, add_post, edit_post
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import app as corkboard
from app import Comment, Post, link_pages, outlined, render_markdown
from database import db

DISHES = "The dishes"


@pytest.fixture
def pages(people: SimpleNamespace, topics: SimpleNamespace) -> SimpleNamespace:
    """A page in the open topic, one in the private topic, and a page that names both and one that is not there."""
    dishes = page(people, topics.open, DISHES)
    wages = page(people, topics.private, "Wages")
    body = f"See [[{DISHES}]], [[wages]], [[dishes|THE PLATES]], [[Nowhere]] and [[the DISHES|plates]]."
    return SimpleNamespace(dishes=dishes, wages=wages, index=page(people, topics.open, "Index", body))


def page(people, topic, title, body="Some text.", **values):
    return add_post(people.editor, topic, title, body=body, kind="page", **values)


def links(browser, post_id):
    """The links in a post's text: what each says, and where it leads."""
    shown = re.search(r'<div class="prose">(.*?)</div>', browser.get(f"/posts/{post_id}").text, re.DOTALL)
    return {words: address for address, words in re.findall(r'<a [^>]*?href="([^"]*)"[^>]*>([^<]*)', shown[1])}


def body_of(post_id: int) -> str:
    return db.session.get(Post, post_id, populate_existing=True).body  # type: ignore[union-attr]


# -- Where they lead ---------------------------------------------------------------------------------------------------


def test_a_title_in_brackets_becomes_a_link_to_its_page_however_it_is_written(pages, people, sign_in):
    shown = links(sign_in(people.member), pages.index.id)
    assert shown[DISHES] == shown["plates"] == f"/posts/{pages.dishes.id}"
    assert shown["wages"] == f"/posts/{pages.wages.id}"
    source = f"See [{DISHES}](/posts/{pages.dishes.id}), [wages](/posts/{pages.wages.id}), [[dishes|THE PLATES]]"
    assert body_of(pages.index.id).startswith(source)


def test_a_link_survives_renaming_again_and_again_and_another_page_that_takes_the_title(pages, people, topics, sign_in):
    member = sign_in(people.member)
    for title in ("The plates", "Crockery"):
        edit_post(people.editor, pages.dishes, title=title)
    other = page(people, topics.open, DISHES)
    edit_post(people.editor, pages.index, body=body_of(pages.index.id) + f" Also [[{DISHES}|new ones]].")
    shown = links(member, pages.index.id)
    assert shown[DISHES] == shown["plates"] == f"/posts/{pages.dishes.id}"
    assert shown["new ones"] == f"/posts/{other.id}"


def test_what_is_not_there_stays_and_leads_to_writing_it_or_to_the_page_of_that_title(pages, people, topics, sign_in):
    member, editor = sign_in(people.member), sign_in(people.editor)
    address = links(member, pages.index.id)["Nowhere"]
    assert address == "/pages?title=Nowhere"
    assert 'class="missing"' in member.get(f"/posts/{pages.index.id}").text
    assert "[[Nowhere]]" in body_of(pages.index.id)
    assert member.get(address).status_code == 404
    begun = editor.get(address)
    assert begun.location == "/posts/new?kind=page&title=Nowhere"
    assert 'value="Nowhere"' in editor.get(begun.location).text
    later = page(people, topics.open, "nowhere")
    for browser in (member, editor):
        assert browser.get(address).location == f"/posts/{later.id}"
    edit_post(people.editor, pages.index, body=body_of(pages.index.id) + " And more.")
    assert links(member, pages.index.id)["Nowhere"] == f"/posts/{later.id}"


def test_a_page_that_the_writer_does_not_see_is_like_one_that_is_not_there(pages, people, topics, sign_in):
    post = add_post(people.stranger, topics.open, body=f"[[Wages]] and [[{DISHES}]]")
    assert body_of(post.id) == f"[[Wages]] and [{DISHES}](/posts/{pages.dishes.id})"
    stranger, member = sign_in(people.stranger), sign_in(people.member)
    assert stranger.get("/pages?title=wages").status_code == 404
    assert member.get("/pages?title=WAGES").location == f"/posts/{pages.wages.id}"
    assert stranger.get("/pages").status_code == stranger.get("/pages?title=").status_code == 404
    open_one = page(people, topics.open, "Wages")
    assert stranger.get("/pages?title=wages").location == f"/posts/{open_one.id}"


def test_of_several_of_a_title_it_is_the_oldest(people, topics):
    oldest, *_others = (page(people, topics.open, "Keys") for _ in range(3))
    assert link_pages("[[keys]]", people.reader) == f"[keys](/posts/{oldest.id})"


def test_news_drafts_and_deleted_pages_are_not_found_by_their_titles(people, topics):
    add_post(people.editor, topics.open, "Keys")
    page(people, topics.open, "Keys", how="draft")
    Post.delete(people.editor, page(people, topics.open, "Keys").id)
    assert link_pages("[[Keys]]", people.editor) == "[[Keys]]"


def test_a_draft_keeps_its_brackets_until_it_is_published(pages, people, topics):
    draft = add_post(people.member, topics.open, body=f"[[{DISHES}]]", how="draft")
    edit_post(people.member, draft, how="autosave", body=f"See [[{DISHES}]]")
    assert body_of(draft.id) == f"See [[{DISHES}]]"
    edit_post(people.member, draft)
    assert body_of(draft.id) == f"See [{DISHES}](/posts/{pages.dishes.id})"


def test_what_a_scheduled_post_names_is_linked_when_it_is_published(people, topics, monkeypatch):
    now = corkboard.utcnow()
    post = add_post(people.member, topics.open, body="[[Keys]]", scheduled_for=now + corkboard.timedelta(hours=1))
    keys = page(people, topics.open, "Keys")
    monkeypatch.setattr(corkboard, "utcnow", lambda: now + corkboard.timedelta(hours=2))
    assert Post.publish_due() == 1
    assert body_of(post.id) == f"[Keys](/posts/{keys.id})"
    assert f'href="/posts/{keys.id}"' in db.session.get(Post, post.id).html  # type: ignore[union-attr]


def test_comments_and_news_link_as_well(pages, people, topics, sign_in):
    news = add_post(people.member, topics.open, body=f"News of [[{DISHES}]]")
    comment = add_comment(people.member, news, "Or [[Wages]]?")
    Comment.edit(people.member, comment.id, body=f"Or [[Wages]], or [[{DISHES}|these]]?")
    shown = sign_in(people.member).get(f"/posts/{news.id}").text
    for link in (f"{pages.dishes.id}", f"{pages.wages.id}"):
        assert f'href="/posts/{link}"' in shown
    assert shown.count(f'href="/posts/{pages.dishes.id}"') == 2


def test_previews_lead_where_the_text_will_lead_and_save_nothing(pages, people, sign_in):
    shown = sign_in(people.member).submit("/posts/preview", {"body": f"[[{DISHES}]] [[Nowhere]]"}).text
    assert f'<a href="/posts/{pages.dishes.id}"' in shown
    assert 'href="/pages?title=Nowhere"' in shown


@pytest.mark.parametrize("code", [
    "`[[The dishes]]`", "``a ` [[The dishes]]``", "`two\nlines [[The dishes]]`", "```\n[[The dishes]]\n```",
    "~~~md\n[[The dishes]]\n~~~", "    [[The dishes]]", "- item\n\n  ```\n  [[The dishes]]\n  ```",
    "> ```\n> [[The dishes]]\n> ```", "\\[[The dishes]]",
])  # fmt: skip
def test_code_and_what_is_escaped_stays_as_it_is(pages, people, code):
    assert link_pages(code, people.member) == code
    around = f"[[{DISHES}]]\n\n{code}\n\nand [[{DISHES}]]"
    link = f"[{DISHES}](/posts/{pages.dishes.id})"
    assert link_pages(around, people.member) == f"{link}\n\n{code}\n\nand {link}"


def test_a_lone_backtick_hides_nothing(pages, people):
    link = f"[{DISHES}](/posts/{pages.dishes.id})"
    assert link_pages(f"A ` here\n\n[[{DISHES}]] and ` there", people.member) == f"A ` here\n\n{link} and ` there"
    assert link_pages(f"`code` [[{DISHES}]] `code`", people.member) == f"`code` {link} `code`"


def test_many_backticks_and_brackets_are_read_in_time(pages, people):
    hostile = " ".join("`" * count for count in range(1, 440)) + f" [[{DISHES}]]" * 100
    begun = time.process_time()
    link_pages(hostile, people.member)
    link_pages("[[" * 50_000, people.member)
    link_pages(f"[[{DISHES}]]" * 8_000, people.member)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    "title", ["<b>\"&'", "a/b?c#d", "100 %25", "é ü ß", "日本語", "x]y", "..", "a + b", "a\\b", "*a* _b_", "a\\", "`a`"]
)
def test_any_title_can_be_named(people, topics, sign_in, title):
    named = page(people, topics.open, title)
    post = add_post(people.editor, topics.open, "Source", body=f"[[{title}]] and [[{title}|this]]")
    shown = links(sign_in(people.member), post.id)
    if "]" in title:
        assert shown == {}
    else:
        assert shown == {str(corkboard.escape(title)).replace("&#39;", "'").replace("&#34;", '"'): f"/posts/{named.id}",
                         "this": f"/posts/{named.id}"}  # fmt: skip


def test_titles_are_offered_by_the_beginning_of_their_words_as_far_as_one_sees_them(pages, people, topics, sign_in):
    for title in ("Dishes and wages", "100%_sure", "Not [this]"):
        page(people, topics.open, title)
    add_post(people.member, topics.open, "Dish of the day")

    def offered(user, typed):
        return re.findall('data-title="([^"]*)"', sign_in(user).get("/pages/titles", query_string={"q": typed}).text)

    assert offered(people.member, "DISH") == ["Dishes and wages", DISHES]
    assert offered(people.member, "wage") == ["Wages", "Dishes and wages"]
    assert offered(people.stranger, "wage") == ["Dishes and wages"]
    assert offered(people.member, "%") == offered(people.member, "not") == offered(people.member, "ishes") == []
    assert offered(people.member, "100%_") == ["100%_sure"]


# -- Outlines ----------------------------------------------------------------------------------------------------------

LONG = "## First\n\ntext\n\n### First\n\n## Last & *least*\n\ntext"


def test_a_text_with_three_headings_has_an_outline(people, topics, sign_in):
    member = sign_in(people.member)
    news = add_post(people.member, topics.open, body=LONG)
    shown = member.get(f"/posts/{news.id}").text
    assert '<h2 id="s-first"><a class="anchor" href="#s-first">First</a></h2>' in shown
    assert '<h3 id="s-first-2">' in shown
    assert '<a href="#s-last-least">Last &amp; least</a>' in shown
    assert shown.count("On this page") == 2
    assert member.get(f"/posts/{page(people, topics.open, 'P', LONG).id}").text.count("On this page") == 3
    short = add_post(people.member, topics.open, body="## One\n\n## Two")
    assert "On this page" not in member.get(f"/posts/{short.id}").text


def test_a_heading_in_a_comment_has_no_id_that_another_might_have(people, topics, sign_in):
    post = add_post(people.member, topics.open, body="# Same")
    add_comment(people.member, post, "# Same")
    assert sign_in(people.member).get(f"/posts/{post.id}").text.count('id="s-same"') == 1


@hypothesis_settings(max_examples=1000 if REQUIRE_ALL else 100, deadline=None)
@given(
    st.lists(
        st.text(max_size=20) | st.sampled_from(["a", "a 2", "a-2", "[[a]]", '"><b>', "`x`", "[y](/z)"]), max_size=8
    )
)
@example(["a", "a-2", "a", "a"])
@example(["日本語", "!", "?"])
def test_headings_have_ids_of_their_own_that_nothing_typed_escapes_from(titles):
    rendered = render_markdown("\n\n".join(f"## {corkboard.tidy(title)}" for title in titles))
    drawn, headings = outlined(rendered)
    ids = re.findall(r' id="([^"]*)"', drawn)
    assert ids == [heading.id for heading in headings]
    assert len({*ids}) == len(ids)
    assert all(re.fullmatch(r"s-[\w-]+", name) for name in ids)
    assert "<a" not in re.sub(r"<a [^>]*>[^<]*(<(?!a\b)[^<]*)*?</a>", "", drawn)
    without = re.sub(r'<a class="anchor" href="#[^"]*">(.*?)</a>(?=</h)', r"\1", re.sub(r' id="s-[^"]*"', "", drawn))
    assert without == rendered


def test_the_first_headings_of_a_text_can_be_led_to_however_many_there_are():
    rendered = render_markdown("## Again\n\n" * 2000)
    drawn, headings = outlined(rendered)
    assert len(headings) == len({heading.id for heading in headings}) == corkboard.HEADINGS_MOST
    assert drawn.count("<h2") == 2000
