"""History: versions, how two of them differ, restoring one, saves at once; and keeping the handbook true."""

from __future__ import annotations

import html
import re
import time
from datetime import date, datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from conftest import REQUIRE_ALL, add_post, add_topic, edit_post, together
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import app as corkboard
from app import (
    Activity,
    EditConflict,
    Forbidden,
    NotVisible,
    PageReview,
    Post,
    Revision,
    Topic,
    TopicMember,
    User,
    ValidationError,
    compare_texts,
    difference,
    fold_unchanged,
    months_after,
)
from database import db

DAY = timedelta(days=1)


def again(entity):
    db.session.rollback()
    db.session.refresh(entity)
    return entity


def count(entity) -> int:
    db.session.rollback()
    return db.session.scalar(sa.select(sa.func.count()).select_from(entity)) or 0


def words_of(page: str) -> str:
    """What a page says, without its marks."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


# -- Differences -------------------------------------------------------------------------------------------------------

TEXTS = st.lists(
    st.sampled_from(
        ["the ", "cat ", "sat", ". ", "\n", "\n\n", " ", "  ", "<b>", "&amp;", '"', "日本", "é", "- one\n", "x"]
    )
    | st.text(max_size=5),
    max_size=40,
).map("".join)


@hypothesis_settings(max_examples=1000 if REQUIRE_ALL else 100, deadline=None)
@given(TEXTS, TEXTS)
@example("a b", "c d")
@example("", "x")
@example("x\n", "x")
@example("one two three", "one 2 3")
def test_without_what_was_removed_it_reads_as_the_new_text_and_without_what_was_added_as_the_old(old, new):
    pieces = compare_texts(old, new)
    assert "".join(piece.text for piece in pieces if piece.kind != "added") == old
    assert "".join(piece.text for piece in pieces if piece.kind != "removed") == new
    assert all(piece.text for piece in pieces)
    assert any(piece.kind != "same" for piece in pieces) == (old != new)


@hypothesis_settings(max_examples=1000 if REQUIRE_ALL else 100, deadline=None)
@given(TEXTS, TEXTS)
@example("<script>alert(1)</script>", "</ins><img src=x onerror=y>")
def test_a_difference_is_always_escaped_and_says_in_words_what_it_marks(old, new):
    drawn = str(difference(old, new))
    assert bool(drawn) == (old != new)
    known = r'</?(?:ins|del)(?: class="blank")?>|<span class="(?:visually-hidden|fold)">|</span>'
    assert not re.search("[<>]", re.sub(known, "", drawn))
    assert drawn.count("<ins") == drawn.count('visually-hidden">added: </span>')
    assert drawn.count("<del") == drawn.count('visually-hidden">removed: </span>')


@hypothesis_settings(max_examples=1000 if REQUIRE_ALL else 50, deadline=None)
@given(TEXTS, TEXTS)
def test_folding_hides_only_lines_that_are_in_both_and_tells_how_many(old, new):
    pieces = compare_texts(old, new)
    folded = list(fold_unchanged(pieces))
    changed = [piece for piece in pieces if piece.kind != "same"]
    assert [piece for piece in folded if piece.kind in ("added", "removed")] == changed
    hidden = sum(int(piece.text.split()[0]) for piece in folded if piece.kind == "folded")
    assert lines_in(folded) + hidden == lines_in(pieces)


def lines_in(pieces) -> int:
    """How many lines, or beginnings of lines, the unchanged pieces have."""
    return sum(len(re.findall(r"[^\n]*\n|[^\n]+", piece.text)) for piece in pieces if piece.kind == "same")


@pytest.mark.parametrize(("old", "new", "pieces"), [
    ("The old cat sat. It was warm.", "The new dog sat. It was cold.",
     [("same", "The "), ("removed", "old cat"), ("added", "new dog"), ("same", " sat. It was "),
      ("removed", "warm"), ("added", "cold"), ("same", ".")]),
    ("a dog", "a very big dog", [("same", "a "), ("added", "very big "), ("same", "dog")]),
    ("こんにちは世界", "こんばんは世界",
     [("same", "こん"), ("removed", "にち"), ("added", "ばん"), ("same", "は世界")]),
    ("same", "same", [("same", "same")]), ("", "", []),
])  # fmt: skip
def test_a_difference_goes_by_words(old, new, pieces):
    assert [tuple(piece) for piece in compare_texts(old, new)] == pieces


def test_one_word_of_a_long_sentence_is_one_change():
    words = [f"word{number}" for number in range(150)]
    changed = [*words[:70], "other", *words[71:]]
    found = [piece for piece in compare_texts(" ".join(words), " ".join(changed)) if piece.kind != "same"]
    assert [tuple(piece) for piece in found] == [("removed", "word70"), ("added", "other")]


def test_a_long_stretch_that_stayed_is_folded_to_the_lines_beside_a_change():
    lines = [f"line {number}\n" for number in range(40)]
    changed = [*lines[:20], "something new\n", *lines[20:]]
    drawn = words_of(str(difference("".join(lines), "".join(changed))))
    assert drawn.count("… 18 lines unchanged …") == 2
    for shown in ("line 18", "line 19", "added: something new", "line 20", "line 21"):
        assert shown in drawn
    assert "line 17" not in drawn


@pytest.mark.parametrize("kind", ["lines", "one line", "all different", "alike", "dense", "every character"])
def test_texts_of_a_hundred_kilobytes_are_compared_in_time(kind):
    numbers = list(range(16_000))
    mixed = [f"w{number * 7919 % 101}" for number in numbers]
    old, new = {
        "lines": ("\n".join(map(str, numbers)), "\n".join(map(str, [*numbers[:8000], -1, *numbers[8000:]]))),
        "one line": (" ".join(map(str, numbers)), " ".join(map(str, reversed(numbers)))),
        "all different": ("a " * 50_000, "b c " * 25_000),
        "alike": ("\n" * 100_000, "\n" * 50_000 + "x" + "\n" * 49_000),
        "dense": ("\n".join(mixed), "\n".join(word if n % 3 else "x" for n, word in enumerate(mixed))),
        "every character": ("".join(map(chr, range(0x10000, 0x28000))), "".join(map(chr, range(0x28000, 0x10000, -1)))),
    }[kind]
    begun = time.process_time()
    pieces = compare_texts(old, new)
    assert time.process_time() - begun < 3
    assert "".join(piece.text for piece in pieces if piece.kind != "removed") == new


# -- History -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(people, topics):
    """A post of three versions."""
    post = add_post(people.member, topics.open, "One", body="first words")
    edit_post(people.editor, post, title="Two", body="first words and more")
    edit_post(people.member, post, body="words")
    return again(post)


def restore(actor, post, number: int) -> Post:
    """Save what an older version said, as it is done on its page."""
    old = db.session.scalar(Revision.of(again(post), number))
    return edit_post(actor, post, title=old.title, body=old.body)


def test_a_history_tells_who_saved_what_when_and_how_large(told, people, sign_in):
    page = sign_in(people.reader).get(f"/posts/{told.id}/history")
    assert page.status_code == 200
    said = words_of(page.text)
    places = [said.index(words) for words in ("Version 3 current", "Version 2", "Version 1")]
    assert places == sorted(places)
    for words in ("Member, just now", "Editor, just now", "1 word (−3)", "4 words (+2)", "2 words"):
        assert words in said
    assert page.text.count(f'href="/posts/{told.id}/history/compare?old=') == 2


def test_any_two_versions_are_compared_whichever_is_named_first(told, people, sign_in):
    browser = sign_in(people.reader)
    for query in ("old=1&new=3", "old=3&new=1"):
        page = browser.get(f"/posts/{told.id}/history/compare?{query}").text
        assert '<del><span class="visually-hidden">removed: </span>One</del>' in page
        assert '<ins><span class="visually-hidden">added: </span>Two</ins>' in page
        assert '<del><span class="visually-hidden">removed: </span>first </del>words' in page
    assert "Title and text are the same" in browser.get(f"/posts/{told.id}/history/compare?old=2&new=2").text
    assert browser.get(f"/posts/{told.id}/history/compare?old=1&new=9").status_code == 404
    for query in ("", "old=1", "old=x&new=2", "old=1&new=" + "9" * 30):
        answer = browser.get(f"/posts/{told.id}/history/compare?{query}")
        assert answer.location == f"/posts/{told.id}/history"


def compared(browser, post, old: int = 1, new: int = 2) -> str:
    return words_of(browser.get(f"/posts/{post.id}/history/compare?old={old}&new={new}").text)


def test_a_comparison_says_where_a_post_was_moved_and_what_it_was_turned_into(people, topics, sign_in):
    post, workshop = add_post(people.member, topics.open), add_topic(people.editor, "Workshop <b>")
    edit_post(people.editor, post, topic_id=workshop.id)
    edit_post(people.editor, post, title="Two", kind="page")
    edit_post(people.editor, post, topic_id=topics.open.id, kind="news")
    browser = sign_in(people.stranger)
    moved = "Moved from Everyone to Workshop <b>. Added and removed Title and text are the same."
    assert moved in compared(browser, post)
    assert "<b>" not in browser.get(f"/posts/{post.id}/history/compare?old=1&new=2").text.partition("<h1>")[2]
    assert "Turned into a handbook page. Added" in compared(browser, post, 2, 3)
    assert "Moved" not in compared(browser, post, 2, 3)
    assert "Moved from Workshop <b> to Everyone. Turned into a post." in compared(browser, post, 3, 4)
    back = compared(browser, post, 1, 4)
    assert "Moved" not in back
    assert "Turned" not in back


def test_a_comparison_shows_the_words_and_not_the_marks(people, topics, sign_in):
    post = add_post(people.member, topics.open, body="**Bring** cake\n\n- [ ] one\n- [x] two\n\n|a|b|\n|-|-|\n|1|2|")
    edit_post(people.member, post, body="**Bring** bread\n\n- [x] one\n- [x] two\n\n|a|b|\n|-|-|\n|1|3|")
    edit_post(people.member, post, body="*Bring* bread\n\n- [x] one\n- [x] two\n\n|a|b|\n|-|-|\n|1|3|")
    browser = sign_in(people.reader)
    page = browser.get(f"/posts/{post.id}/history/compare?old=1&new=2").text
    (shown,) = re.findall(r'<div class="difference"[^>]*>(.*?)</div>', page, re.DOTALL)
    assert "cake" in shown
    assert not re.search(r"\*\*|\|-|- \[", shown)
    page = browser.get(f"/posts/{post.id}/history/compare?old=2&new=3").text
    assert "The words are the same. Their formatting or links changed:" in page
    assert re.search(r'<(?:ins|del)[^>]*><span class="visually-hidden">\w+: </span>\*', page)


def test_a_topic_that_one_does_not_see_leaves_no_trace_in_a_comparison(people, topics, sign_in):
    post = add_post(people.member, topics.private)
    edit_post(people.editor, post, topic_id=topics.open.id)
    inside, outside = sign_in(people.reader), sign_in(people.stranger)
    assert "Moved from Management to Everyone." in compared(inside, post)
    assert "Moved" not in compared(outside, post)
    Topic.delete(people.editor, topics.private.id)
    assert "Moved" not in compared(inside, post), "nor one that is in the bin"


def test_a_merged_topic_is_called_what_it_went_into(people, topics, sign_in):
    garden, workshop = (add_topic(people.editor, name) for name in ("Garden", "Workshop"))
    post = add_post(people.member, garden)
    Topic.merge(people.editor, garden.id, topics.open.id)
    edit_post(people.editor, post, title="Two")
    edit_post(people.editor, post, topic_id=workshop.id)
    browser = sign_in(people.stranger)
    assert "Moved" not in compared(browser, post)
    assert "Moved from Everyone to Workshop." in compared(browser, post, 1, 3)


def test_a_revision_is_kept_of_each_change_of_title_text_topic_or_kind_and_of_nothing_else(people, topics):
    page = add_post(people.editor, topics.open, "One", kind="page", body="First")
    edit_post(people.editor, page, owner_id=people.member.id, review_every=6)
    edit_post(people.editor, page, topic_id=topics.private.id)
    edit_post(people.editor, page, kind="news")
    edit_post(people.editor, page, expires_at=corkboard.utcnow() + DAY)
    edit_post(people.editor, page, title="Two")
    edit_post(people.editor, page, body="Second")
    kept = db.session.scalars(sa.select(Revision).order_by(Revision.number)).all()
    private = topics.private.id
    assert [(row.number, row.title, row.body, row.topic_id, row.kind) for row in kept] == [
        (1, "One", "First", topics.open.id, "page"),
        (2, "One", "First", private, "page"),
        (3, "One", "First", private, "news"),
        (4, "Two", "First", private, "news"),
        (5, "Two", "Second", private, "news"),
    ]
    assert (again(page).revision, page.version) == (5, 3)


def test_a_version_is_shown_as_it_was(people, topics, sign_in):
    post = add_post(people.member, topics.open, "One", body="**bold** <script>")
    edit_post(people.member, post, title="Two", body="plain")
    page = sign_in(people.reader).get(f"/posts/{post.id}/history/1").text
    assert "<strong>bold</strong> &lt;script&gt;" in page
    assert "version 1 of 2, not the current one" in words_of(page)
    assert "Restore this version" not in page
    assert "Restore this version" in sign_in(people.member).get(f"/posts/{post.id}/history/1").text
    assert "Restore this version" not in sign_in(people.member).get(f"/posts/{post.id}/history/2").text
    assert sign_in(people.reader).get(f"/posts/{post.id}/history/3").status_code == 404


def test_an_edited_post_leads_to_its_history(told, people, sign_in):
    assert f'href="/posts/{told.id}/history"' in sign_in(people.reader).get(f"/posts/{told.id}").text


def test_a_long_history_has_pages(people, topics, sign_in):
    post = add_post(people.member, topics.open, body="0")
    kept = [
        {"post_id": post.id, "number": number, "editor_id": people.member.id, "created_at": post.published_at,
         "title": "T", "body": "word " * number, "kind": "news"}
        for number in range(2, 51)
    ]  # fmt: skip
    with db.engine.begin() as connection:
        connection.execute(sa.insert(Revision), kept)
        connection.execute(sa.update(Post).where(Post.id == post.id).values(revision=50))
    browser, address, seen = sign_in(people.reader), f"/posts/{post.id}/history", []
    while address:
        page = browser.get(address).text
        seen.append(versions_in(page))
        older = re.search(r'rel="next"\s+href="([^"]+)"', page)
        address = html.unescape(older[1]) if older else None
    assert seen == [list(range(50, 30, -1)), list(range(30, 10, -1)), list(range(10, 0, -1))]
    assert checked_in(browser.get(f"/posts/{post.id}/history").text) == {"old": 49, "new": 50}
    assert browser.get(f"/posts/{post.id}/history?before=nonsense").status_code == 404


def versions_in(page: str) -> list[int]:
    return [int(number) for number in re.findall(r"history/(\d+)\">Version", page)]


def checked_in(page: str) -> dict[str, int]:
    radios = re.findall(r"<input type=\"radio\"[^>]*>", page)
    found = [re.search(r'name="(\w+)"\s+value="(\d+)"\s+checked', radio) for radio in radios]
    return {hit[1]: int(hit[2]) for hit in found if hit}


def test_who_does_not_see_a_post_sees_nothing_of_its_history(people, topics, sign_in):
    post = add_post(people.member, topics.private, "A hidden title", body="hidden")
    edit_post(people.member, post, body="hidden, changed")
    browser = sign_in(people.stranger)
    for path in ("history", "history/1", "history/compare?old=1&new=2"):
        assert browser.get(f"/posts/{post.id}/{path}").status_code == 404
    assert browser.submit(f"/posts/{post.id}/history/1/restore", {"version": "2"}).status_code == 404


# -- Restoring a version -----------------------------------------------------------------------------------------------


def test_a_version_comes_back_as_the_newest_and_that_can_be_undone(told, people, sign_in):
    browser = sign_in(people.editor)
    answer = browser.submit(f"/posts/{told.id}/history/1/restore", {"version": told.version})
    assert (answer.status_code, answer.location) == (303, f"/posts/{told.id}")
    page = browser.get(answer.location).text
    assert "Version 1 restored, as version 4." in page
    assert (again(told).title, told.body, told.revision) == ("One", "first words", 4)
    undo = html.unescape(re.search(r'formaction="([^"]+/restore[^"]*)"', page)[1])
    assert browser.submit(undo).status_code == 303
    assert (again(told).title, told.body, told.revision) == ("Two", "words", 5)
    kept = db.session.scalars(sa.select(Revision.number).where(Revision.post_id == told.id).order_by(Revision.number))
    assert list(kept) == [1, 2, 3, 4, 5]


def test_restoring_what_stands_already_makes_no_version(told, people, sign_in):
    browser = sign_in(people.member)
    answer = browser.submit(f"/posts/{told.id}/history/3/restore", {"version": told.version})
    assert "the same as the current one" in browser.get(answer.location).text
    assert again(told).revision == 3


def test_restoring_keeps_the_topic_the_kind_and_the_owner_of_a_page(people, topics, sign_in):
    page = add_post(people.editor, topics.open, kind="page", owner_id=people.member.id, review_every=3)
    edit_post(people.editor, page, body="Changed", topic_id=topics.private.id)
    address = f"/posts/{page.id}/history/1/restore"
    assert sign_in(people.editor).submit(address, {"version": page.version}).status_code == 303
    assert (again(page).topic_id, page.owner_id, page.review_every) == (topics.private.id, people.member.id, 3)
    assert (page.kind, page.body) == ("page", "Hall B opens again on **Thursday**.")


def test_a_save_while_a_version_is_restored_is_noticed(told, people, sign_in):
    version = told.version
    edit_post(people.editor, told, title="Three", body="saved meanwhile")
    answer = sign_in(people.member).submit(f"/posts/{told.id}/history/1/restore", {"version": version})
    assert answer.status_code == 409
    for words in ("saved meanwhile", "first words", "What Editor saved"):
        assert words in words_of(answer.text)
    assert re.search(rf'name="version"[^>]*value="{again(told).version}"', answer.text)
    assert told.title == "Three"


@pytest.mark.parametrize("version", ["", "0", "x", "-1", "9" * 30])
def test_a_made_up_version_is_never_taken_for_the_one_that_stands(told, people, sign_in, version):
    answer = sign_in(people.member).submit(f"/posts/{told.id}/history/1/restore", {"version": version})
    assert answer.status_code == 409
    assert again(told).revision == 3


def test_only_who_may_edit_restores_a_version(told, people, sign_in):
    for actor in (people.reader, people.stranger):
        with pytest.raises(Forbidden):
            restore(actor, told, 1)
        answer = sign_in(actor).submit(f"/posts/{told.id}/history/1/restore", {"version": told.version})
        assert answer.status_code == 403
    answer = sign_in(people.member).submit(f"/posts/{told.id}/history/99/restore", {"version": told.version})
    assert answer.status_code == 404


# -- Saves at once -----------------------------------------------------------------------------------------------------


def test_the_second_saver_sees_both_texts_and_how_they_differ_and_saves_theirs(people, topics, sign_in):
    post = add_post(people.member, topics.open, "Opening", body="We open at nine.\n\nBring cake.")
    edit_post(people.editor, post, body="We open at ten.\n\nBring cake.")
    mine = {"title": "Opening", "body": "We open at nine.\n\nBring bread.", "topic": topics.open.id, "version": "1"}
    browser = sign_in(people.member)
    answer = browser.submit(f"/posts/{post.id}/edit", mine)
    assert answer.status_code == 409
    assert "Someone else saved first" in answer.text
    assert "What Editor saved" in answer.text
    (shown,) = re.findall(r'<div class="difference"[^>]*>(.*?)</div>', answer.text, re.DOTALL)
    for words in ("removed: </span>ten", "added: </span>nine", "removed: </span>cake", "added: </span>bread"):
        assert words in shown
    assert again(post).body == "We open at ten.\n\nBring cake."
    version = re.search(r'name="version"[^>]*value="(\d+)"', answer.text)[1]
    merged = mine | {"body": "We open at ten.\n\nBring bread.", "version": version}
    assert browser.submit(f"/posts/{post.id}/edit", merged).status_code == 303
    assert (again(post).body, post.revision) == ("We open at ten.\n\nBring bread.", 3)
    kept = db.session.scalars(sa.select(Revision.body).where(Revision.post_id == post.id).order_by(Revision.number))
    assert list(kept)[1] == "We open at ten.\n\nBring cake."


def test_the_form_of_a_conflict_keeps_all_else_that_was_chosen(people, topics, sign_in):
    page = add_post(people.editor, topics.open, "Opening", kind="page", body="One")
    edit_post(people.admin, page, body="Two")
    typed = {"title": "Opening", "body": "Three", "topic": topics.private.id, "kind": "page", "version": "1",
             "owner": people.member.id, "review": "6"}  # fmt: skip
    answer = sign_in(people.editor).submit(f"/posts/{page.id}/edit", typed)
    assert answer.status_code == 409
    for name, value in (("topic", topics.private.id), ("owner", people.member.id), ("review", 6), ("kind", "page")):
        select = re.search(rf'(?s)<select[^>]*name="{name}".*?</select>', answer.text)[0]
        assert re.search(rf'<option[^>]*selected[^>]*value="{value}"', select), name
    assert "data-autosave" not in answer.text


def test_a_third_save_while_two_are_merged_is_noticed_again(told, people, sign_in):
    browser = sign_in(people.member)
    typed = {"title": "Mine", "body": "Mine", "topic": told.topic_id}
    for number in range(3):
        version = again(told).version
        edit_post(people.editor, told, title=f"Title {number}", body=f"Body {number}")
        answer = browser.submit(f"/posts/{told.id}/edit", typed | {"version": version})
        assert answer.status_code == 409
        assert f"Body {number}" in answer.text
    assert browser.submit(f"/posts/{told.id}/edit", typed | {"version": again(told).version}).status_code == 303


def test_what_is_not_the_text_is_changed_by_the_last_save_and_no_conflict(people, topics, sign_in):
    page = add_post(people.editor, topics.open, "Opening", kind="page", body="One")
    edit_post(people.admin, page, owner_id=people.reader.id, review_every=6)
    typed = {"title": "Opening", "body": "One", "topic": topics.open.id, "kind": "page", "version": "1",
             "owner": people.member.id, "review": "12"}  # fmt: skip
    assert sign_in(people.editor).submit(f"/posts/{page.id}/edit", typed).status_code == 303
    assert (again(page).owner_id, page.review_every) == (people.member.id, 12)


def test_of_two_who_save_at_the_same_moment_one_is_told(app, told, people):
    post_id, version, topic_id = told.id, told.version, told.topic_id

    def save(who, text):
        actor, data = SimpleNamespace(id=who.id), corkboard.PostData("news", topic_id, text, text)
        return lambda: Post.save(actor, data, how="publish", post_id=post_id, version=version).revision

    outcomes = together(app, save(people.member, "A"), save(people.editor, "B"), save(people.admin, "C"))
    assert sum(outcome == 4 for outcome in outcomes) == 1
    assert sum(isinstance(outcome, EditConflict) for outcome in outcomes) == 2
    assert again(told).revision == 4


# -- Keeping the handbook true -----------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """The application's time, which stands still until a test moves it."""
    clock = SimpleNamespace(now=datetime(2026, 3, 2, 9, 0))
    monkeypatch.setattr(corkboard, "utcnow", lambda: clock.now)
    return clock


def browser_on(clock, sign_in, user):
    """A person's browser that is still signed in, however far the clock is moved."""
    browser = sign_in(user)
    with db.engine.begin() as connection:
        connection.execute(sa.update(corkboard.SignIn).values(remembered=True, expires_at=clock.now + 3650 * DAY))
    return browser


def page_of(people, topics, title="How to bake", owner=None, every=6, **values):
    upkeep = {"owner_id": owner.id if owner else None, "review_every": every}
    return add_post(people.editor, topics.open, title, kind="page", **upkeep, **values)


def due_on(page, day) -> None:
    with db.engine.begin() as connection:
        connection.execute(sa.update(Post).where(Post.id == page.id).values(review_by=day))


@pytest.mark.parametrize(("day", "months", "later"), [
    (date(2026, 3, 2), 6, date(2026, 9, 2)), (date(2026, 8, 31), 6, date(2027, 2, 28)),
    (date(2026, 11, 30), 3, date(2027, 2, 28)), (date(2026, 12, 31), 12, date(2027, 12, 31)),
    (date(2028, 2, 29), 12, date(2029, 2, 28)), (date(2026, 10, 1), 3, date(2027, 1, 1)),
])  # fmt: skip
def test_some_months_later_is_the_same_day_or_the_months_last(day, months, later):
    assert months_after(day, months) == later


def test_an_editor_chooses_who_looks_after_a_page_and_how_often(people, topics, sign_in, clock):
    browser = browser_on(clock, sign_in, people.editor)
    form = browser.get("/posts/new?kind=page").text
    assert 'name="owner"' in form
    assert 'name="review"' in form
    typed = {"title": "How to bake", "body": "Slowly.", "topic": topics.open.id, "kind": "page"}
    answer = browser.submit("/posts/new", typed | {"owner": people.reader.id, "review": "6"})
    assert answer.status_code == 303
    page = db.session.scalar(sa.select(Post).where(Post.kind == "page"))
    assert (page.owner_id, page.review_every) == (people.reader.id, 6)
    assert (page.review_by, page.reviewed_at) == (date(2026, 9, 2), clock.now)
    edited = browser.get(f"/posts/{page.id}/edit").text
    assert re.search(rf'<option selected value="{people.reader.id}">', edited)
    typed |= {"version": "1", "owner": "0", "review": "0"}
    assert browser.submit(f"/posts/{page.id}/edit", typed).status_code == 303
    assert (again(page).owner_id, page.review_every, page.review_by, page.reviewed_at) == (None, None, None, None)
    assert (page.version, page.revision) == (1, 1), "no text was changed"


def test_saving_a_page_as_it_stands_makes_no_version(people, topics, sign_in):
    plain = add_post(people.editor, topics.open, "Plain", body="Text", kind="page")
    kept = page_of(people, topics, "Kept", owner=people.member, every=6, body="Text")
    for page, owner, review in ((plain, 0, 0), (kept, people.member.id, 6)):
        typed = {"title": page.title, "body": "Text", "topic": topics.open.id, "version": "1"}
        answer = sign_in(people.editor).submit(f"/posts/{page.id}/edit", typed | {"owner": owner, "review": review})
        assert answer.status_code == 303
        assert again(page).version == 1


def test_news_have_nobody_who_looks_after_them(people, topics, sign_in):
    browser = sign_in(people.editor)
    assert 'name="owner"' not in browser.get("/posts/new").text
    typed = {"title": "News", "body": "Text", "topic": topics.open.id, "owner": people.reader.id, "review": "6"}
    assert browser.submit("/posts/new", typed).status_code == 303
    post = db.session.scalar(sa.select(Post))
    assert (post.kind, post.owner_id, post.review_by) == ("news", None, None)


def test_saving_a_text_leaves_the_day_as_it_is_and_another_interval_sets_it_anew(people, topics, clock):
    page = page_of(people, topics, every=6)
    clock.now += 10 * DAY
    edit_post(people.editor, page, body="Corrected", owner_id=None, review_every=6)
    assert again(page).review_by == date(2026, 9, 2)
    edit_post(people.editor, page, owner_id=None, review_every=12)
    assert again(page).review_by == date(2027, 3, 12)


def test_the_months_are_counted_from_the_day_that_it_is_in_the_sites_time_zone(app, people, topics, clock, monkeypatch):
    monkeypatch.setitem(app.config, "TIMEZONE", "Pacific/Auckland")
    clock.now = datetime(2026, 3, 2, 20, 0)
    assert page_of(people, topics, every=6).review_by == date(2026, 9, 3)


def test_only_who_sees_the_topic_can_look_after_a_page(people, topics, sign_in):
    private = add_post(people.editor, topics.private, kind="page")
    browser = sign_in(people.editor)
    offered = re.search(
        r'<select[^>]*name="owner".*?</select>', browser.get(f"/posts/{private.id}/edit").text, re.DOTALL
    )
    assert "Member" in offered[0]
    assert "Stranger" not in offered[0]
    with pytest.raises(ValidationError, match="can't see that topic"):
        edit_post(people.editor, private, owner_id=people.stranger.id, review_every=None)
    typed = {"title": "T", "body": "B", "topic": topics.private.id, "kind": "page", "owner": people.stranger.id}
    answer = browser.submit("/posts/new", typed | {"review": "3"})
    assert answer.status_code == 422
    assert "Stranger can&#39;t see that topic." in answer.text


def test_still_accurate_renews_the_day_by_its_interval_and_is_written_down(people, topics, sign_in, clock):
    page = page_of(people, topics, owner=people.reader, every=3)
    clock.now += 100 * DAY
    browser = browser_on(clock, sign_in, people.reader)
    shown = words_of(browser.get(f"/posts/{page.id}").text)
    assert "Review overdue." in shown
    assert "Verified 2 March. Owner: Reader . It was due by 2 June." in shown
    answer = browser.submit(f"/posts/{page.id}/still-accurate")
    assert (answer.status_code, answer.location) == (303, f"/posts/{page.id}")
    shown = words_of(browser.get(answer.location).text)
    assert "The next review is due by 10 September." in shown
    assert "Verified 10 June. Owner: Reader . Due for review by 10 September." in shown
    assert (again(page).review_by, page.reviewed_at, page.version) == (date(2026, 9, 10), clock.now, 1)
    written = db.session.scalars(sa.select(Activity).where(Activity.action == "post.reviewed")).one()
    assert (written.actor_id, written.object_id, written.name) == (people.reader.id, page.id, "How to bake")


def test_still_accurate_is_said_by_the_owner_and_by_editors_only(people, topics, sign_in):
    page = page_of(people, topics, owner=people.member)
    for who, status in (("member", 303), ("editor", 303), ("admin", 303), ("reader", 403), ("stranger", 403)):
        browser = sign_in(getattr(people, who))
        assert ("Still accurate" in browser.get(f"/posts/{page.id}").text) == (status == 303), who
        assert browser.submit(f"/posts/{page.id}/still-accurate").status_code == status, who
    never = page_of(people, topics, owner=people.member, every=None)
    assert "Still accurate" not in sign_in(people.member).get(f"/posts/{never.id}").text
    assert sign_in(people.member).submit(f"/posts/{never.id}/still-accurate").status_code == 422
    with pytest.raises(NotVisible):
        PageReview.verify(people.editor, add_post(people.member, topics.open).id, date(2026, 1, 1))


def test_an_owner_who_is_taken_out_of_the_topic_has_no_part_in_the_page_any_more(people, topics, sign_in):
    page = add_post(people.editor, topics.private, kind="page", owner_id=people.reader.id, review_every=3)
    due_on(page, date(2020, 1, 1))
    browser = sign_in(people.reader)
    assert "1 page you own" in browser.get("/").text
    with db.engine.begin() as connection:
        connection.execute(sa.delete(TopicMember).where(TopicMember.user_id == people.reader.id))
    due_on(page, date(2020, 1, 1))
    assert "you own" not in browser.get("/").text
    assert browser.submit(f"/posts/{page.id}/still-accurate").status_code == 404
    assert "No page is due" in browser.get("/handbook/review").text


def test_overdue_pages_are_marked_for_all_and_listed_for_editors_and_their_owners(people, topics, sign_in, clock):
    today = clock.now.date()
    days = {"Long overdue": -50, "Overdue": -1, "Due today": 0, "Due soon": 30, "Due later": 31}
    for title, days_on in days.items():
        due_on(page_of(people, topics, title, owner=people.member if days_on < 30 else None), today + days_on * DAY)
    page_of(people, topics, "Never", every=None)
    handbook = browser_on(clock, sign_in, people.reader).get("/handbook").text
    assert handbook.count("Review overdue") == 2
    assert "/handbook/review" not in handbook
    editor, member = browser_on(clock, sign_in, people.editor), browser_on(clock, sign_in, people.member)
    assert 'href="/handbook/review"' in editor.get("/handbook").text
    assert 'href="/handbook/review"' in member.get("/handbook").text
    assert titles_in(editor.get("/handbook/review").text) == ["Long overdue", "Overdue", "Due today", "Due soon"]
    assert titles_in(member.get("/handbook/review").text) == ["Long overdue", "Overdue", "Due today"]
    assert "No page is due" in browser_on(clock, sign_in, people.reader).get("/handbook/review").text


def titles_in(page: str) -> list[str]:
    return re.findall(r'<a href="/posts/\d+"[^>]*>([^<]+)</a>\s*<span class="meta">', page)


def test_the_list_of_what_waits_pages_over_equal_days_and_loses_nothing(people, topics, sign_in):
    made = [page_of(people, topics, f"Page {number:02}", body="x").id for number in range(45)]
    with db.engine.begin() as connection:
        connection.execute(sa.update(Post).where(Post.id.in_(made)).values(review_by=date(2020, 1, 1)))
        connection.execute(
            sa.update(Post).where(Post.id.in_(made[30:])).values(review_by=None, owner_id=people.stranger.id)
        )
        connection.execute(
            sa.update(User).where(User.id == people.stranger.id).values(deactivated_at=datetime(2026, 1, 1))
        )
    browser, address, seen = sign_in(people.editor), "/handbook/review", []
    while address:
        page = browser.get(address).text
        seen.append(titles_in(page))
        onward = re.search(r'rel="next"\s+href="([^"]+)"', page)
        address = html.unescape(onward[1]) if onward else None
    assert [len(titles) for titles in seen] == [20, 20, 5]
    assert [title for titles in seen for title in titles] == [f"Page {number:02}" for number in range(45)]


def test_a_page_whose_owner_is_gone_says_so_and_is_listed(people, topics, sign_in):
    page = page_of(people, topics, "Orphaned", owner=people.stranger, every=None)
    User.deactivate(people.admin, people.stranger.id)
    browser = sign_in(people.editor)
    assert "No owner." in words_of(browser.get(f"/posts/{page.id}").text)
    assert titles_in(browser.get("/handbook/review").text) == ["Orphaned"]
    assert "No owner" in browser.get("/handbook/review").text
    assert "/handbook/review" in browser.get("/handbook").text
    owners = browser.get(f"/posts/{page.id}/edit").text.partition('name="owner"')[2].partition("</select>")[0]
    assert f'value="{people.editor.id}"' in owners
    assert f'value="{people.stranger.id}"' not in owners
    typed = {"title": "Orphaned", "body": "New text", "topic": topics.open.id, "version": "1", "owner": "0"}
    assert browser.submit(f"/posts/{page.id}/edit", typed | {"review": "0"}).status_code == 303
    assert again(page).owner_id is None


def test_an_owner_reads_on_home_how_many_pages_wait_without_another_statement(people, topics, sign_in, clock):
    browser = browser_on(clock, sign_in, people.member)
    assert "you own" not in browser.get("/").text
    first = page_of(people, topics, "First", owner=people.member, every=3)
    page_of(people, topics, "Second", owner=people.member, every=6)
    assert "you own" not in browser.get("/").text
    clock.now += 100 * DAY
    assert "1 page you own is due for review" in words_of(browser.get("/").text)
    clock.now += 200 * DAY
    assert "2 pages you own are due for review" in words_of(browser.get("/").text)
    assert "you own" not in browser_on(clock, sign_in, people.editor).get("/").text
    PageReview.verify(people.member, first.id, clock.now.date())
    assert "1 page you own is due for review" in words_of(browser.get("/").text)


@pytest.mark.parametrize("place", ["x", "WyJ4IiwxXQ", "WzEsMV0", "WyIyMDI2LTAxLTAxIiwgIngiXQ"])
def test_a_made_up_place_in_the_list_is_404(people, topics, sign_in, place):
    assert sign_in(people.editor).get(f"/handbook/review?before={place}").status_code == 404


def test_what_may_not_be_done_writes_nothing(told, people, topics):
    page = page_of(people, topics)
    before = count(Activity), count(Revision)
    for action in (
        lambda: PageReview.verify(people.reader, page.id, date(2026, 1, 1)),
        lambda: restore(people.reader, told, 1),
        lambda: edit_post(people.member, told, version=1, body="Too late"),
        lambda: edit_post(people.editor, page, owner_id=10**6, review_every=3),
    ):
        with pytest.raises((Forbidden, EditConflict, NotVisible, ValidationError)):
            action()
    assert (count(Activity), count(Revision)) == before
