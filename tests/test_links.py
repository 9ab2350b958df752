"""Links between pages of the handbook by their titles, what links to a page, and the outline of a long text."""

from __future__ import annotations

import re
from datetime import timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from conftest import REQUIRE_ALL, add_comment, add_post, add_topic
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from test_database import counted

import app as corkboard
from app import Bin, Comment, PageLink, Post, outlined, render_markdown
from database import db, utcnow

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


def edit(people, post, **values):
    now = db.session.get(Post, post.id, populate_existing=True)
    text = {"topic_id": now.topic_id, "title": now.title, "body": now.body} | values
    Post.edit(people.editor, post.id, now.version, **text)


def links(browser, post_id):
    """The links and marks in the first paragraph of a post's page: what each says, and where it leads."""
    shown = re.search(r'<div class="prose">(.*?)</div>', browser.get(f"/posts/{post_id}").text, re.DOTALL)
    drawn = re.findall(r"<(a|span) (?:class=\"missing\")?(?: ?href=\"([^\"]*)\")?>([^<]*)", shown[1])
    return {words: address for _tag, address, words in drawn}


WRITE = "/posts/new?kind=page&amp;title="


# -- Where they lead ---------------------------------------------------------------------------------------------------


def test_a_title_in_brackets_leads_to_the_page_however_it_is_written(pages, people, sign_in):
    shown = links(sign_in(people.member), pages.index.id)
    assert shown[DISHES] == shown["plates"] == f"/posts/{pages.dishes.id}"
    assert shown["wages"] == f"/posts/{pages.wages.id}"
    assert shown["Nowhere"] == shown["THE PLATES"] == ""
    assert db.session.get(Post, pages.index.id).body.startswith("See [[The dishes]], [[wages]]")


def test_who_may_write_pages_can_begin_the_missing_one_under_its_title(pages, people, sign_in):
    editor = sign_in(people.editor)
    address = links(editor, pages.index.id)["Nowhere"]
    assert address == f"{WRITE}Nowhere"
    assert 'value="Nowhere"' in editor.get(corkboard.html.unescape(address)).text


def test_a_page_that_one_may_not_see_looks_like_one_that_is_not_there(pages, people, sign_in):
    stranger = sign_in(people.stranger)
    edit(people, pages.wages, title="Raises for all")
    shown = stranger.get(f"/posts/{pages.index.id}").text
    assert "Raises" not in shown
    mark = '<span class="missing">{}<span class="visually-hidden"> (no such page)</span></span>'
    assert mark.format("wages") in shown
    assert mark.format("Nowhere") in shown
    assert links(sign_in(people.member), pages.index.id)["Raises for all"] == f"/posts/{pages.wages.id}"


def test_a_hidden_page_does_not_stand_before_one_of_its_title_that_is_there(pages, people, topics, sign_in):
    open_one = page(people, topics.open, "Wages")
    assert links(sign_in(people.stranger), pages.index.id)["wages"] == f"/posts/{open_one.id}"
    assert links(sign_in(people.member), pages.index.id)["wages"] == f"/posts/{pages.wages.id}"


def test_a_link_survives_renaming_again_and_again_and_another_page_that_takes_the_title(pages, people, topics, sign_in):
    member = sign_in(people.member)
    for title in ("The plates", "Crockery"):
        edit(people, pages.dishes, title=title)
        assert links(member, pages.index.id)[title] == f"/posts/{pages.dishes.id}"
    other = page(people, topics.open, DISHES)
    edit(people, pages.index, body=f"Still [[{DISHES}]].")
    assert links(member, pages.index.id) == {"Crockery": f"/posts/{pages.dishes.id}"}
    fresh = page(people, topics.open, "Another index", f"The new [[{DISHES}]].")
    assert links(member, fresh.id) == {DISHES: f"/posts/{other.id}"}


def test_words_of_its_own_stay_when_the_page_is_renamed(pages, people, sign_in):
    edit(people, pages.dishes, title="Crockery")
    assert links(sign_in(people.member), pages.index.id)["plates"] == f"/posts/{pages.dishes.id}"


def test_a_page_that_is_deleted_is_missing_until_it_is_back(pages, people, sign_in):
    member = sign_in(people.member)
    Post.delete(people.editor, pages.dishes.id)
    assert links(member, pages.index.id)[DISHES] == ""
    Post.restore(people.editor, pages.dishes.id)
    assert links(member, pages.index.id)[DISHES] == f"/posts/{pages.dishes.id}"


def test_a_page_that_is_removed_for_good_leaves_a_link_that_waits(pages, people, topics, sign_in):
    Post.delete(people.editor, pages.dishes.id)
    assert Bin.empty(None, utcnow() + timedelta(minutes=1)) == 1
    member = sign_in(people.member)
    assert links(member, pages.index.id)[DISHES] == ""
    again = page(people, topics.open, DISHES)
    assert links(member, pages.index.id)[DISHES] == f"/posts/{again.id}"


def test_a_page_that_names_another_can_be_removed_for_good(pages, people):
    comment = add_comment(people.member, pages.wages, f"[[{DISHES}]]")
    Comment.delete(people.member, comment.id)
    Post.delete(people.editor, pages.index.id)
    assert Bin.empty(None, utcnow() + timedelta(minutes=1)) == 2
    assert not db.session.scalars(sa.select(PageLink)).all()


def test_a_page_made_later_fulfils_the_links_that_waited_and_keeps_them(pages, people, topics, sign_in):
    member = sign_in(people.member)
    later = page(people, topics.open, "nowhere")
    assert links(member, pages.index.id)["Nowhere"] == f"/posts/{later.id}"
    edit(people, later, title="Somewhere")
    assert links(member, pages.index.id)["Somewhere"] == f"/posts/{later.id}"
    page(people, topics.open, "Nowhere")
    assert links(member, pages.index.id)["Somewhere"] == f"/posts/{later.id}"


def test_renaming_binds_only_what_led_to_that_page(pages, people, topics, sign_in):
    first, second = (page(people, topics.open, "Nowhere") for _ in range(2))
    edit(people, second, title="Elsewhere")
    assert links(sign_in(people.member), pages.index.id)["Nowhere"] == f"/posts/{first.id}"
    hidden = page(people, topics.private, "Unheard of")
    waiting = page(people, topics.open, "Waiting", "[[No such]] page")
    edit(people, hidden, title="No such")
    edit(people, hidden, title="Unheard of")
    assert links(sign_in(people.member), waiting.id) == {"No such": ""}


def test_of_several_of_a_title_that_in_the_same_topic_comes_first_then_the_oldest(people, topics, sign_in):
    others = add_topic(people.editor, "Others")
    oldest, _second, near = (page(people, topic, "Keys") for topic in (topics.open, topics.open, others))
    member = sign_in(people.member)
    for topic, wanted in ((others, near), (topics.private, oldest)):
        source = page(people, topic, "Source", "[[Keys]]")
        assert links(member, source.id) == {"Keys": f"/posts/{wanted.id}"}


def test_news_and_drafts_are_not_found_by_their_titles(people, topics, sign_in):
    add_post(people.editor, topics.open, "Keys")
    page(people, topics.open, "Keys", placed=corkboard.Placing("page", draft=True))
    source = page(people, topics.open, "Source", "[[Keys]]")
    assert links(sign_in(people.reader), source.id) == {"Keys": ""}


def test_comments_and_news_link_as_well(pages, people, topics, sign_in):
    news = add_post(people.member, topics.open, body=f"News of [[{DISHES}]]")
    comment = add_comment(people.member, news, "Or [[Wages]]?")
    Comment.edit(people.member, comment.id, 1, body="Or [[Wages]], or [[Nowhere]]?")
    for title in ("Raises", "Pay"):
        edit(people, pages.wages, title=title)
    shown = sign_in(people.member).get(f"/posts/{news.id}").text
    assert f'<a href="/posts/{pages.dishes.id}">{DISHES}</a>' in shown
    assert f'Or <a href="/posts/{pages.wages.id}">Pay</a>, or <span class="missing">Nowhere<' in shown
    assert 'Or <span class="missing">Wages<' in sign_in(people.stranger).get(f"/posts/{news.id}").text


def test_previews_and_older_versions_lead_the_same_way(pages, people, sign_in):
    edit(people, pages.dishes, title="Crockery")
    edit(people, pages.index, body=f"Only [[{DISHES}]] now")
    member = sign_in(people.member)
    link = f'<a href="/posts/{pages.dishes.id}">Crockery</a>'
    assert link in member.get(f"/posts/{pages.index.id}/history/1").text
    assert (
        f'<a href="/posts/{pages.dishes.id}">crockery</a>'
        in member.submit("/posts/preview", {"body": "[[crockery]]"}).text
    )


@pytest.fixture
def renamed(pages, people, topics):
    """The page that was called so when others linked to it is called otherwise now, and another bears its title."""
    edit(people, pages.dishes, title="Crockery")
    return SimpleNamespace(old=pages.dishes, new=page(people, topics.open, DISHES), index=pages.index)


def test_a_text_that_is_saved_again_means_what_it_meant(renamed, people, sign_in):
    member = sign_in(people.member)
    edit(people, renamed.index, body=f"One more word, and [[{DISHES}]].")
    assert links(member, renamed.index.id) == {"Crockery": f"/posts/{renamed.old.id}"}
    edit(people, renamed.index, body=f"[[{DISHES}]] and [[crockery]].")
    assert {*links(member, renamed.index.id).values()} == {f"/posts/{renamed.old.id}"}
    Post.delete(people.editor, renamed.old.id)
    edit(people, renamed.index, body=f"Saved while it was away: [[{DISHES}]].")
    assert links(member, renamed.index.id) == {DISHES: f"/posts/{renamed.new.id}"}
    Post.restore(people.editor, renamed.old.id)
    assert links(member, renamed.index.id) == {"Crockery": f"/posts/{renamed.old.id}"}


def test_a_title_that_a_save_brings_in_anew_means_the_page_called_so_now(renamed, people, topics, sign_in):
    member, leads_to_the_new_one = sign_in(people.member), {DISHES: f"/posts/{renamed.new.id}"}
    edit(people, renamed.index, body="Nothing of it.")
    edit(people, renamed.index, body=f"Again [[{DISHES}]].")
    assert links(member, renamed.index.id) == leads_to_the_new_one
    other = page(people, topics.open, "Other", "Nothing yet.")
    edit(people, other, body=f"Now [[{DISHES}]].")
    assert links(member, other.id) == leads_to_the_new_one
    edit(people, renamed.index, body="Nothing of it.")
    Post.revert(people.editor, renamed.index.id, 4, 1)
    assert links(member, renamed.index.id)[DISHES] == f"/posts/{renamed.new.id}"


def test_comments_and_drafts_keep_what_they_meant_as_well(pages, people, topics, sign_in):
    news = add_post(people.member, topics.open)
    said = add_comment(people.member, news, f"[[{DISHES}]]")
    text = {"topic_id": topics.open.id, "title": "T", "body": f"[[{DISHES}]]"}
    draft = corkboard.Draft.autosave(people.member, None, 0, form_id="7" * 32, **text)
    draft_id, version = draft.id, draft.version
    edit(people, pages.dishes, title="Crockery")
    new = page(people, topics.open, DISHES)
    Comment.edit(people.member, said.id, 1, body=f"Still [[{DISHES}]]")
    fresh = add_comment(people.member, news, f"Another's [[{DISHES}]]")
    corkboard.Draft.autosave(people.member, draft_id, version, **text | {"body": f"Still [[{DISHES}]]"})
    meant = sa.select(PageLink.comment_id, PageLink.post_id, PageLink.target_id)
    db.session.rollback()
    bound = {row.comment_id or row.post_id: row.target_id for row in db.session.execute(meant)}
    assert (bound[said.id], bound[fresh.id], bound[draft_id]) == (pages.dishes.id, new.id, pages.dishes.id)


def test_a_preview_leads_where_the_text_will_lead_once_it_is_saved(renamed, people, topics, sign_in):
    editor, index = sign_in(people.editor), renamed.index.id
    said = add_comment(people.editor, renamed.index, f"[[{DISHES}]]")
    old, new = (f'<a href="/posts/{to.id}">' for to in (renamed.old, renamed.new))
    text = {"body": f"Changed: [[{DISHES}]]"}
    for address, wanted in (
        (f"/posts/preview?post={index}", old),
        (f"/posts/preview?post={index}&comment=new", new),
        (f"/posts/preview?post={index}&comment={said.id}", new),
        ("/posts/preview", new),
    ):
        assert wanted in editor.submit(address, text).text, address
    assert old in editor.submit(f"/posts/{index}/edit", text | {"title": "T", "preview": "1"}).text
    assert new in editor.submit(f"/posts/{index}/comments", text | {"preview": "1"}).text
    for path in (f"/posts/{index}/edit", f"/posts/{index}", f"/comments/{said.id}/edit"):
        address = re.search(r'data-editor="([^"]*)"', editor.get(path).text)[1]
        wanted = new if "comment" in address else old
        assert wanted in editor.submit(corkboard.html.unescape(address), text).text, path
    hidden = add_post(people.member, topics.private)
    assert sign_in(people.stranger).submit(f"/posts/preview?post={hidden.id}", text).status_code == 404


def test_the_address_of_a_title_leads_to_the_page_as_far_as_one_sees_it(pages, people, sign_in):
    member, stranger = sign_in(people.member), sign_in(people.stranger)
    assert member.get("/pages?title=WAGES").location == f"/posts/{pages.wages.id}"
    hidden, missing = stranger.get("/pages?title=wages"), stranger.get("/pages?title=nowhere")
    assert hidden.status_code == missing.status_code == stranger.get("/pages").status_code == 404
    assert stranger.get("/pages?title=the+dishes").location == f"/posts/{pages.dishes.id}"
    for post, title in ((pages.dishes, "Crockery"), (pages.wages, "Raises")):
        edit(people, post, title=title)
    assert stranger.get("/pages?title=the+dishes").location == f"/posts/{pages.dishes.id}"
    assert member.get("/pages?title=wages").location == f"/posts/{pages.wages.id}"
    assert stranger.get("/pages?title=wages").status_code == 404


@pytest.mark.parametrize(
    "title", ["<b>\"&'", "a/b?c#d", "100 %25", "é ü ß", "日本語", "x]y", "..", "a + b", "a\\b", "*a* _b_"]
)
def test_any_title_can_be_named(people, topics, sign_in, title):
    named = page(people, topics.open, title)
    source = page(people, topics.open, "Source", f"[[{title}|this]]")
    shown = links(sign_in(people.member), source.id)
    assert shown == ({} if "]" in title else {"this": f"/posts/{named.id}"})


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


# -- What links here ---------------------------------------------------------------------------------------------------


def linking(browser, post_id):
    part = browser.get(f"/posts/{post_id}").text.partition("What links here")[2].partition("</ul>")[0]
    return re.findall(r'<a href="/posts/\d+">([^<]*)</a>', part)


def test_a_page_lists_what_links_to_it_as_far_as_one_sees_that(pages, people, topics, sign_in):
    hidden = page(people, topics.private, "A hidden list", f"[[{DISHES}]]")
    news = add_post(people.member, topics.open, "News")
    comment = add_comment(people.member, news, f"[[{DISHES}|these]]")
    member, stranger = sign_in(people.member), sign_in(people.stranger)
    assert linking(member, pages.dishes.id) == ["A hidden list", "Index", "News"]
    assert linking(stranger, pages.dishes.id) == ["Index", "News"]
    Comment.delete(people.member, comment.id)
    Post.delete(people.editor, hidden.id)
    assert linking(member, pages.dishes.id) == ["Index"]
    edit(people, pages.index, body="No more")
    assert linking(member, pages.dishes.id) == []


def test_what_waits_for_a_title_is_listed_with_the_page_that_bears_it(pages, people, topics, sign_in):
    later = page(people, topics.open, "Nowhere")
    open_one = page(people, topics.open, "Wages")
    member, stranger = sign_in(people.member), sign_in(people.stranger)
    assert linking(member, later.id) == ["Index"]
    assert (linking(member, open_one.id), linking(stranger, open_one.id)) == ([], ["Index"])


# -- What it costs -----------------------------------------------------------------------------------------------------


def test_links_cost_a_post_one_statement_and_nothing_once_it_is_drawn(pages, people, topics, sign_in):
    add_comment(people.member, pages.index, f"[[{DISHES}]]")
    browser, index = sign_in(people.reader), pages.index.id
    browser.get("/")
    for _ in range(2):
        corkboard.state().found.clear()
        with counted() as statements:
            assert links(browser, index)[DISHES]
        assert len(statements) <= 4, [statement for statement, _ in statements]
    if db.engine.dialect.name == "sqlite":
        with counted() as statements:
            browser.get(f"/posts/{index}")
        assert len(statements) == 1


def test_a_comment_without_links_writes_none(people, topics):
    post = add_post(people.member, topics.open)
    with counted() as without:
        add_comment(people.member, post, "Good to know, and thanks.")
    assert not any("page_links" in statement for statement, _ in without)


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


def test_links_beyond_those_that_are_kept_lead_to_whatever_is_called_so(people, topics, sign_in):
    body = "\n\n".join(f"[[Page {number}]]" for number in range(corkboard.LINKS_MOST + 2))
    post = add_post(people.member, topics.open, "Long", body=body)
    text = sign_in(people.reader).get(f"/posts/{post.id}").text
    assert text.count("(no such page)") == corkboard.LINKS_MOST
    assert text.count('href="/pages?title=') == 2
