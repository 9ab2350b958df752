"""The handbook: the tree of its pages, how editors arrange it, and how a page leads to its neighbours."""

from __future__ import annotations

import html
import re
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from conftest import add_post, add_topic, edit_post, together
from test_api import problem, program  # noqa: F401 (a fixture)
from test_posts import again

from app import Activity, Bin, Forbidden, NotVisible, PageTree, Post, Topic, ValidationError, utcnow
from database import db

pytestmark = pytest.mark.usefixtures("cheap_hashes")


@pytest.fixture
def book(people, topics):
    """Ovens, with Gudrun and Otto below it and Sparks below Otto, and Yeast: in alphabetical order."""
    made: dict[str, Post] = {}
    for title, under in (("Ovens", ""), ("Gudrun", "Ovens"), ("Otto", "Ovens"), ("Sparks", "Otto"), ("Yeast", "")):
        parent_id = made[under].id if under else None
        made[title] = add_post(people.editor, topics.open, title, kind="page", parent_id=parent_id)
    return SimpleNamespace(**made)


def listed(browser) -> list[str]:
    """The pages that the handbook lists, each with a dash for each page above it."""
    rows = re.findall(r'<li class="level-(\d)">\s*<a class="row-main"[^>]*>(.*?)</a>', browser.get("/handbook").text)
    return ["- " * int(depth) + html.unescape(title) for depth, title in rows]


def arrange(browser, topic: str = "everyone", **places: tuple[Post | None, int, Post]):
    """Send the form for the order with some pages: the parent, the position, and the page itself."""
    sent = {}
    for parent, position, page in places.values():
        sent |= {f"parent-{page.id}": parent.id if parent else "", f"position-{page.id}": position}
    return browser.submit(f"/handbook/{topic}/arrange", sent)


ALPHABETICAL = ["Ovens", "- Gudrun", "- Otto", "- - Sparks", "Yeast"]


# -- What the pages show -----------------------------------------------------------------------------------------------


def test_pages_stand_below_their_parents_in_alphabetical_order_until_somebody_arranges_them(book, people, sign_in):
    assert listed(sign_in(people.reader)) == ALPHABETICAL


def test_a_page_says_where_it_stands_and_leads_to_its_neighbours(book, people, sign_in):
    page = sign_in(people.reader).get(f"/posts/{book.Otto.id}").text
    crumbs = re.search(r'<p class="crumbs">.*?</p>', page, re.DOTALL)[0]
    assert re.findall(r">([^<>]+)</a>", crumbs) == ["Handbook", "Everyone", "Ovens"]
    assert re.search(r'<a href="/handbook" aria-current="page">Handbook</a>', page)
    assert f'<a href="/posts/{book.Otto.id}" aria-current="page">Otto</a>' in page
    turn = re.search(r'<nav class="turn".*?</nav>', page, re.DOTALL)[0]
    assert re.findall(r'href="/posts/(\d+)"\s+rel="(\w+)"', turn) == [
        (str(book.Gudrun.id), "prev"),
        (str(book.Sparks.id), "next"),
    ]


def test_the_first_and_the_last_page_of_a_topic_have_one_neighbour(book, people, topics, sign_in):
    add_post(people.editor, topics.private, "Of another topic", kind="page")
    browser = sign_in(people.reader)
    for page, there in ((book.Ovens, ["next"]), (book.Yeast, ["prev"])):
        assert re.findall(r'rel="(prev|next)"', browser.get(f"/posts/{page.id}").text) == there


def test_the_path_to_a_page_is_open_in_the_tree_and_the_rest_is_closed(book, people, topics, sign_in):
    add_post(people.editor, topics.private, "Of another topic", kind="page")

    def opened(page) -> dict[str, str]:
        tree = sign_in(people.reader).get(f"/posts/{page.id}").text
        return {
            name: state
            for state, name in re.findall(
                r'aria-expanded="(\w+)">.*?hidden">Pages (?:of|below) (\w+)<', tree, re.DOTALL
            )
        }

    assert opened(book.Otto) == {"Everyone": "true", "Ovens": "true", "Otto": "true", "Management": "false"}
    assert opened(book.Yeast) == {"Everyone": "true", "Ovens": "false", "Otto": "false", "Management": "false"}


def test_news_and_other_pages_have_no_tree(book, people, topics, sign_in):
    news = sign_in(people.reader).get(f"/posts/{add_post(people.member, topics.open).id}").text
    assert 'class="book-tree"' not in news
    assert not re.search(r'<a href="/handbook" aria-current', news)


def test_a_draft_of_a_page_shows_the_tree_and_has_no_place_in_it_yet(book, people, topics, sign_in):
    draft = add_post(people.editor, topics.open, "Begun", how="draft", kind="page", parent_id=book.Ovens.id)
    page = sign_in(people.editor).get(f"/posts/{draft.id}").text
    assert 'class="book-tree"' in page
    assert 'class="turn"' not in page
    assert "Begun" not in sign_in(people.admin).get(f"/posts/{book.Otto.id}").text
    edit_post(people.editor, draft)
    assert listed(sign_in(people.reader))[:2] == ["Ovens", "- Begun"]


def test_a_topics_page_shows_its_handbook_pages(book, people, topics, sign_in):
    page = sign_in(people.reader).get("/topics/everyone").text
    shown = re.search(r'<section class="topic-pages".*?</section>', page, re.DOTALL)[0]
    assert re.findall(r"<span>(.*?)</span>", shown) == ["Ovens", "Yeast"]
    assert "and 3 below it" in shown
    assert "topic-pages" not in sign_in(people.reader).get("/topics/management").text
    assert "/arrange" not in page
    assert 'href="/handbook/everyone/arrange"' in sign_in(people.editor).get("/topics/everyone").text


def test_who_does_not_see_a_topic_sees_none_of_its_pages_in_the_tree(book, people, topics, sign_in):
    add_post(people.editor, topics.private, "Hush-hush", kind="page")
    assert "Hush-hush" in sign_in(people.reader).get(f"/posts/{book.Yeast.id}").text
    assert "Hush-hush" not in sign_in(people.stranger).get(f"/posts/{book.Yeast.id}").text


# -- Arranging ---------------------------------------------------------------------------------------------------------


def test_editors_put_pages_in_order_and_below_each_other(book, people, sign_in):
    answer = arrange(
        sign_in(people.editor),
        first=(None, 1, book.Yeast), then=(None, 2, book.Ovens), below=(book.Ovens, 3, book.Otto),
        after=(book.Ovens, 4, book.Gudrun), last=(book.Gudrun, 5, book.Sparks),
    )  # fmt: skip
    assert (answer.status_code, answer.location) == (303, f"/handbook#topic-{book.Otto.topic_id}")
    assert listed(sign_in(people.reader)) == ["Yeast", "Ovens", "- Otto", "- Gudrun", "- - Sparks"]
    recorded = db.session.scalar(sa.select(Activity).where(Activity.action == "topic.arranged"))
    assert (recorded.actor_id, recorded.object_id) == (people.editor.id, book.Otto.topic_id)


def test_the_form_for_the_order_shows_it_with_numbers_for_those_without_the_script(book, people, sign_in):
    browser = sign_in(people.editor)
    page = browser.get("/handbook/everyone/arrange").text
    fields = dict(re.findall(r'name="(p[^"]+)"\s+(?:type="number"\s+required\s+)?value="(\d*)"', page))
    assert [fields[f"position-{one.id}"] for one in (book.Ovens, book.Gudrun, book.Yeast)] == ["10", "20", "50"]
    assert fields[f"parent-{book.Otto.id}"] == str(book.Ovens.id)
    browser.submit("/handbook/everyone/arrange", fields | {f"position-{book.Yeast.id}": "5"})
    assert listed(sign_in(people.reader)) == ["Yeast", *ALPHABETICAL[:-1]]


def test_one_page_is_moved_with_what_is_below_it(book, people, sign_in):
    browser = sign_in(people.editor)
    sent = {f"parent-{book.Otto.id}": book.Yeast.id, f"position-{book.Otto.id}": "0"}
    answer = browser.submit(f"/handbook/everyone/arrange?next=/posts/{book.Otto.id}", sent)
    assert (answer.status_code, answer.location) == (303, f"/posts/{book.Otto.id}")
    assert listed(browser) == ["Ovens", "- Gudrun", "Yeast", "- Otto", "- - Sparks"]
    choices = re.findall(
        r'<option value="(\d+)"',
        re.search(r'id="move-under".*?</select>', browser.get(f"/posts/{book.Otto.id}").text, re.DOTALL)[0],
    )
    assert choices == [str(page.id) for page in (book.Ovens, book.Gudrun, book.Yeast)], "not below itself"


def test_a_new_page_comes_last_where_the_order_is_not_alphabetical_any_more(book, people, topics, sign_in):
    arrange(sign_in(people.editor), page=(None, 0, book.Yeast))
    add_post(people.editor, topics.open, "Aprons", kind="page")
    assert listed(sign_in(people.reader)) == ["Yeast", *ALPHABETICAL[:-1], "Aprons"]


@pytest.mark.parametrize("under", ["itself", "its own", "a draft", "another topic", "deep", "nothing", "news"])
def test_a_page_can_only_be_below_another_page_of_its_topic(book, people, topics, sign_in, under):
    draft = add_post(people.editor, topics.private, "Begun", how="draft", kind="page")
    parents = {
        "itself": book.Otto.id, "its own": book.Sparks.id, "a draft": draft.id, "deep": book.Gudrun.id,
        "another topic": add_post(people.editor, topics.private, "Theirs", kind="page").id, "nothing": 10**6,
        "news": add_post(people.member, topics.open).id,
    }  # fmt: skip
    browser = sign_in(people.editor)
    sent = {f"parent-{book.Otto.id}": parents[under], f"position-{book.Otto.id}": "1"}
    if under == "deep":
        edit_post(people.editor, book.Yeast, parent_id=book.Sparks.parent_id)
        sent = {f"parent-{book.Ovens.id}": parents[under], f"position-{book.Ovens.id}": "1"}
    before = listed(browser)
    answer = browser.submit("/handbook/everyone/arrange", sent)
    assert (answer.status_code, "at most" in answer.text or "levels deep" in answer.text) == (422, True)
    assert listed(browser) == before


def test_pages_go_three_levels_deep(book, people, topics):
    with pytest.raises(ValidationError, match="3 levels"):
        add_post(people.editor, topics.open, "Too deep", kind="page", parent_id=book.Sparks.id)
    with pytest.raises(ValidationError, match="3 levels"):
        edit_post(people.editor, book.Ovens, parent_id=book.Yeast.id)


@pytest.mark.parametrize(
    "numbers", [{}, {"position": "x"}, {"position": "9" * 30, "parent": "9" * 30}, {"position": "-1"}]
)
def test_a_form_that_was_made_up_breaks_nothing(book, people, sign_in, numbers):
    sent = {f"{name}-{book.Gudrun.id}": number for name, number in numbers.items()}
    assert sign_in(people.editor).submit("/handbook/everyone/arrange", sent).status_code == 303
    assert sorted(line.strip("- ") for line in listed(sign_in(people.reader))) == sorted(vars(book))


def test_who_is_no_editor_or_does_not_see_the_topic_arranges_nothing(book, people, topics, sign_in):
    from conftest import Role, add_person

    outside = add_person("outside", Role.EDITOR)
    with pytest.raises(Forbidden):
        PageTree.arrange(people.member, topics.open.id, {book.Yeast.id: (None, 0)})
    with pytest.raises(NotVisible):
        PageTree.arrange(outside, topics.private.id, {})
    PageTree.arrange(outside, topics.open.id, {10**6: (None, 1)})
    assert listed(sign_in(people.reader)) == ALPHABETICAL


def test_of_two_editors_who_put_pages_below_each_other_one_is_refused(app, book, people, topics):
    editor, admin = SimpleNamespace(id=people.editor.id), SimpleNamespace(id=people.admin.id)
    topic, gudrun, yeast = topics.open.id, book.Gudrun.id, book.Yeast.id
    db.session.rollback()
    for _ in range(3):
        outcomes = together(
            app,
            lambda: PageTree.arrange(editor, topic, {gudrun: (yeast, 1)}),
            lambda: PageTree.arrange(admin, topic, {yeast: (gudrun, 1)}),
        )
        assert [type(one) for one in outcomes if one is not None] == [ValidationError]
        PageTree.arrange(editor, topic, {gudrun: (None, 1), yeast: (None, 1)})


def test_of_two_saves_that_put_pages_below_each_other_one_is_refused(app, book, people):
    editor, admin = SimpleNamespace(id=people.editor.id), SimpleNamespace(id=people.admin.id)
    gudrun, yeast = book.Gudrun.id, book.Yeast.id
    db.session.rollback()
    outcomes = together(
        app,
        lambda: edit_post(editor, SimpleNamespace(id=gudrun), parent_id=yeast),
        lambda: edit_post(admin, SimpleNamespace(id=yeast), parent_id=gudrun),
    )
    assert sum(isinstance(one, ValidationError) for one in outcomes) == 1


# -- Pages that leave --------------------------------------------------------------------------------------------------


def test_pages_below_a_deleted_one_are_at_the_top_until_it_is_back(book, people, sign_in):
    Post.delete(people.editor, book.Ovens.id)
    assert listed(sign_in(people.reader)) == ["Gudrun", "Otto", "- Sparks", "Yeast"]
    Post.restore(people.editor, book.Ovens.id)
    assert listed(sign_in(people.reader)) == ALPHABETICAL


def test_no_page_gets_below_itself_by_way_of_the_bin(book, people, sign_in):
    Post.delete(people.editor, book.Otto.id)
    sent = {f"parent-{book.Ovens.id}": book.Sparks.id, f"position-{book.Ovens.id}": "1"}
    assert sign_in(people.editor).submit("/handbook/everyone/arrange", sent).status_code == 422
    Post.restore(people.editor, book.Otto.id)
    assert listed(sign_in(people.reader)) == ALPHABETICAL


def test_pages_below_one_that_is_gone_for_good_stay(book, people, sign_in):
    Post.delete(people.editor, book.Otto.id)
    Bin.empty(people.admin, utcnow())
    assert again(book.Sparks).parent_id is None
    assert listed(sign_in(people.reader)) == ["Ovens", "- Gudrun", "Sparks", "Yeast"]


@pytest.mark.parametrize("how", ["topic", "kind"])
def test_what_was_below_a_page_that_leaves_its_topic_goes_up_a_level(book, people, topics, sign_in, how):
    left = {"topic_id": topics.private.id} if how == "topic" else {"kind": "news"}
    edit_post(people.editor, book.Otto, parent_id=None, **left)
    assert again(book.Sparks).parent_id == book.Ovens.id
    shown = ["Ovens", "- Gudrun", "- Sparks", "Yeast"]
    assert listed(sign_in(people.reader)) == ([*shown, "Otto"] if how == "topic" else shown)


def test_a_page_that_goes_to_another_topic_leaves_its_parent(book, people, topics):
    with pytest.raises(ValidationError, match="same topic"):
        edit_post(people.editor, book.Otto, topic_id=topics.private.id)


def test_the_tree_of_a_merged_topic_goes_along(book, people, topics, sign_in):
    garden = add_topic(people.editor, "Garden")
    Topic.merge(people.editor, topics.open.id, garden.id)
    assert listed(sign_in(people.reader)) == ALPHABETICAL


# -- The form, and programs --------------------------------------------------------------------------------------------


def test_the_form_of_a_page_has_the_page_that_it_is_below(book, people, topics, sign_in):
    browser = sign_in(people.editor)
    form = browser.get("/posts/new?kind=page&topic=everyone").text
    under = re.search(r'<select[^>]*name="parent_id".*?</select>', form, re.DOTALL)[0]
    assert re.findall(r">([^<>]*\w[^<>]*)</option>", under) == [
        "No page: at the top of its topic",
        "Ovens",
        "– Gudrun",
        "– Otto",
        "Yeast",
    ]
    typed = {"title": "Cinders", "body": "Mind them.", "topic": topics.open.id, "kind": "page", "owner": 0, "review": 0}
    assert browser.submit("/posts/new?kind=page", typed | {"parent_id": book.Otto.id}).status_code == 303
    assert listed(browser)[2:5] == ["- Otto", "- - Cinders", "- - Sparks"]
    refused = browser.submit("/posts/new?kind=page", typed | {"parent_id": book.Sparks.id})
    assert (refused.status_code, "Pages go 3 levels deep" in html.unescape(refused.text)) == (422, False)
    assert "pages go 3 levels deep" in refused.text
    assert 'name="parent_id"' not in browser.get("/posts/new").text


def test_an_edit_of_its_text_leaves_a_page_in_its_place(book, people, topics, sign_in):
    browser = sign_in(people.editor)
    PageTree.arrange(people.editor, topics.open.id, {book.Sparks.id: (book.Otto.id, 7)})
    before = (again(book.Sparks).parent_id, book.Sparks.position)
    form = browser.get(f"/posts/{book.Sparks.id}/edit").text
    assert re.search(rf'<option value="{book.Otto.id}"[^>]*selected', form)
    typed = {"title": "Sparks", "body": "Other", "topic": topics.open.id, "kind": "page", "owner": 0, "review": 0}
    answer = browser.submit(f"/posts/{book.Sparks.id}/edit", typed | {"parent_id": book.Otto.id, "version": 1})
    assert answer.status_code == 303
    assert (again(book.Sparks).parent_id, book.Sparks.position) == before


def test_programs_read_where_a_page_stands_and_put_it_elsewhere(book, people, topics, program):  # noqa: F811
    theirs = program(people.editor)
    sparks = theirs.get(f"/posts/{book.Sparks.id}")
    assert sparks.json["parent_id"] == book.Otto.id
    assert sparks.json["position"] == 1000
    moved = theirs.patch(f"/posts/{book.Sparks.id}", {"parent_id": book.Yeast.id}, {"If-Match": sparks.headers["ETag"]})
    assert moved.json["parent_id"] == book.Yeast.id
    said = {"topic_id": topics.open.id, "title": "Cinders", "body": "Mind them.", "kind": "page"}
    assert theirs.post("/posts", said | {"parent_id": book.Otto.id}).json["parent_id"] == book.Otto.id
    refused = problem(theirs.post("/posts", said | {"title": "Deep", "parent_id": 10**6}), 422)
    assert list(refused["errors"]) == ["parent_id"]
    news = theirs.post("/posts", said | {"title": "News", "kind": "news", "parent_id": book.Otto.id}).json
    assert news["parent_id"] is None
