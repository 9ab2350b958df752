"""The search: the same words find the same things on both engines, and what one may not see leaves no trace."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
import sqlalchemy as sa
from conftest import add_comment, add_person, add_post, add_topic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_hostile_input import ATTACKS

import app as corkboard
import database
from app import Comment, Post, SearchEntry, Topic, User
from database import db

# What stands in a post, and what finds it there or does not.
FOUND = [
    ("The Crane is BACK", ["crane", "CRANE", "the crane", "back crane", "cra", "CRANE is"]),
    ("Zoë's café in Łódź", ["zoe", "ZOË", "cafe", "café", "lodz", "Łódź", "caf", "zoe's"]),
    ("Straße und Fußball", ["strasse", "straße", "STRASSE", "fussball", "fuss", "fuß"]),
    ("We go to it, or not", ["go", "to", "it", "or", "not", "to it"]),
    ("HR and IT want to meet", ["hr", "it", "HR IT"]),
    ("Written in C++ and C#, not in Go", ["c++", "C++", "c#", "C#", "c", "go"]),
    ("The e-mail to O'Brien's stand-in", ["e-mail", "email", "mail", "o'brien", "obrien", "stand-in", "standin"]),
    ("Write to ana.lima@example.com", ["ana.lima@example.com", "ana lima", "example", "@example.com", "lima@exam"]),
    ("東京都で会議を開きます", ["東京", "東京都", "京都", "会議", "東", "議", "開きます", "す"]),
    ("北京欢迎你", ["北京", "欢迎", "你", "欢迎你"]),
    ("サーバーを再起動する", ["サーバー", "再起動", "ｻｰﾊﾞｰ", "起動"]),
    ("회의실 예약은 내일", ["회의실", "예약", "내일", "회"]),
    ("Совещание в четверг", ["совещание", "СОВЕЩАНИЕ", "четверг", "сов"]),
    ("Συνάντηση αύριο", ["συνάντηση", "ΣΥΝΑΝΤΗΣΗ", "συναντηση", "αυριο"]),
    ("Cake at three 🎂 for all 👩‍👩‍👧", ["🎂", "cake 🎂", "👩"]),
    ("Ｆｕｌｌ ｗｉｄｔｈ and ﬁne", ["full", "width", "fine", "ｆｕｌｌ"]),
    ("Room 12, 2nd floor, v1.25, +49 30 1234", ["12", "2nd", "v1.25", "+49 30", "49"]),
    ("snake_case_name and CamelCase", ["snake", "case", "snake_case_name", "camelcase", "camel"]),
    ("पुस्तक मेला", ["पुस्तक", "मेला", "पुस्"]),
    ("ประชุมวันนี้", ["ประชุม", "วันนี้"]),
    ("Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft", ["donau", "donaudampfschiff"]),
]  # fmt: skip
NOT_FOUND = [
    ("The crane is back", ["rane", "cranes", "crane gone", "crane's"]),
    ("東京都で会議を開きます", ["京東", "大阪", "会社"]),
    ("が", ["か"]),
    ("An apple a day", ["apples", "d", "c++"]),
    ("nothing", ["zzznothing", "qqqkpost", "qqqk", "zzz", "_", "qqqa1"]),
]
NOTHING = ["", " ", '"', '""', "*", "+", "-", "+-@", "()", "NEAR(", "@", "~<>", "'", "%", "\\", "^", "\x00", "…", "🏻"]
HOSTILE = ['"crane', "crane*", "+crane -back", "NEAR(crane, back)", "crane AND", "OR crane", "crane NOT back",
           "tokens:crane", "(crane", "crane)", "@4 crane", "-crane", 'crane"*"', "{crane}", "^crane"]  # fmt: skip


@pytest.fixture
def browser(app, people, topics, sign_in):
    return sign_in(people.member)


def find(query: str, viewer: User, **narrowed) -> list[tuple[str, int]]:
    """What the search finds for a person: kind and id, the best first."""
    flags = database.search_filter(narrowed.pop("kind", ""), narrowed.pop("author", None))
    wanted = corkboard.Wanted(database.query_words(query), flags, narrowed)
    database.end_reading()
    hits, count, more = SearchEntry.hits(viewer, wanted) if wanted.words else ((), 0, False)  # type: ignore[arg-type]
    assert (count, more) == (len(hits), False)
    return [(hit.kind, hit.object_id) for hit in hits]


def entries() -> list[tuple]:
    """The rows of the index, without their numbers."""
    database.end_reading()
    columns = [column for column in SearchEntry.__table__.columns if column.name != "id"]
    with db.engine.connect() as connection:
        return sorted(tuple(row) for row in connection.execute(sa.select(*columns)))


def index_comments() -> None:
    corkboard.state().indexer.flush()


# -- What is found -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["title", "body", "comment"])
def test_each_of_these_finds_the_text_it_stands_beside(app, people, topics, place):
    for text, queries in FOUND:
        title, body = text if place == "title" else "x1", text if place == "body" else "x2"
        post = add_post(people.member, topics.open, title, body=body)
        wanted = ("post", post.id)
        if place == "comment":
            wanted = ("comment", add_comment(people.member, post, text).id)
            index_comments()
        for query in queries:
            assert wanted in find(query, people.reader), (text, query)


def test_none_of_these_finds_the_text_it_stands_beside(app, people, topics):
    for text, queries in NOT_FOUND:
        post = add_post(people.member, topics.open, text, body=text)
        for query in queries:
            assert ("post", post.id) not in find(query, people.reader), (text, query)


def test_without_a_word_nothing_is_asked(app, people, topics, browser):
    add_post(people.member, topics.open)
    for query in NOTHING:
        assert find(query, people.reader) == [], query
        assert browser.get("/search", query_string={"q": query}).status_code == 200


def test_what_looks_like_a_command_is_only_words(app, people, topics):
    post = add_post(people.member, topics.open, "The crane is back and near, or not at 4; tokens")
    for query in HOSTILE:
        assert find(query, people.reader) == [("post", post.id)], query


def test_whatever_is_typed_is_answered(app, people, topics, browser):
    add_post(people.member, topics.open)
    for attack in ATTACKS:
        for name in ("q", "since", "before", "kind", "topic", "author", "part"):
            answer = browser.get("/search", query_string={"q": "crane", name: attack})
            assert answer.status_code in (200, 404), (name, attack)
            assert "<script>alert" not in answer.text


@settings(max_examples=10_000, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.text(max_size=60))
def test_any_text_gives_tokens_that_both_engines_take_as_they_are(text):
    tokens = database.search_tokens(text)
    assert all(re.fullmatch(r"zzz[a-z0-9_]{1,77}", token) for token in tokens)
    words = list(database.words_of(text))
    assert all(0 <= word.start < word.end <= len(text) for word in words)
    spelt = [database._spelt(word.text) for word in words]
    assert {*spelt} <= {*tokens}
    for word in database.query_words(text):
        sought = database._spelt(word.text)
        assert any(token == sought or (not word.whole and token.startswith(sought)) for token in
                   database.search_tokens(database.unicodedata.normalize("NFC", text))), word  # fmt: skip


# -- What one may not see ----------------------------------------------------------------------------------------------


def test_what_is_private_or_deleted_leaves_no_trace(app, people, topics, sign_in):
    hidden = add_post(people.member, topics.private, "The walrus plan", body="A walrus")
    gone = add_post(people.member, topics.open, "The walrus party")
    add_comment(people.member, hidden, "A walrus of a plan")
    below = add_comment(people.member, add_post(people.member, topics.open, "Lunch"), "No walrus today")
    index_comments()
    assert len(find("walrus", people.reader)) == 4
    Post.delete(people.member, gone.id)
    Comment.delete(people.member, below.id)
    assert find("walrus", people.stranger) == []
    assert len(find("walrus", people.reader)) == 2
    stranger = sign_in(people.stranger)
    for address in (
        "/search?q={}",
        "/search?q={}&part=live",
        "/search?q={}&kind=comment",
        "/search?q={}&author=member",
    ):
        nothing, page = stranger.get(address.format("zyzzyva")), stranger.get(address.format("walrus"))
        assert (page.status_code, nothing.status_code) == (200, 200)
        assert uncounted(page.text, "walrus") == uncounted(nothing.text, "zyzzyva")
    assert stranger.get(f"/search?q=walrus&topic={topics.private.slug}").status_code == 404
    assert topics.private.name not in stranger.get("/search?q=walrus").text


def uncounted(page: str, query: str) -> str:
    """A page without what was typed, and without what differs each time."""
    return re.sub(
        r'(?<=name="csrf_token" value=")[^"]+|(?<=name="csrf-token" content=")[^"]+', "", page.replace(query, "?")
    )


def test_the_hidden_do_not_crowd_out_what_one_may_see(app, people, topics, monkeypatch):
    monkeypatch.setattr(database, "HITS_MOST", 3)
    SearchEntry._hits.cache_clear()
    seen = add_post(people.member, topics.open, "The walrus party")
    for number in range(5):
        add_post(people.member, topics.private, f"The walrus plan {number}")
    assert find("walrus", people.stranger) == [("post", seen.id)]
    SearchEntry._hits.cache_clear()


def test_people_who_are_gone_are_not_found(app, people, topics, sign_in):
    add_person("walter", title="Walrus keeper")
    browser = sign_in(people.admin)
    assert "/people/walter" in browser.get("/search?q=walrus").text
    walter = db.session.scalar(sa.select(User).where(User.username == "walter"))
    values = {"role": walter.role, "name": walter.name, "email": walter.email}
    User.administer(people.admin, walter.id, active=False, **values)
    assert 'class="who" href="/people/walter"' not in browser.get("/search?q=walrus").text
    User.administer(people.admin, walter.id, active=True, **values | {"name": "Sealman"})
    assert "/people/walter" in browser.get("/search?q=sealman&kind=person").text


# -- In step -----------------------------------------------------------------------------------------------------------


def test_edits_deletes_and_restores_are_followed(app, people, topics):
    post = add_post(people.member, topics.open, "The walrus party", body="At noon")
    remark = add_comment(people.member, post, "Bring herring")
    index_comments()
    Post.edit(people.member, post.id, 1, topic_id=topics.open.id, title="The seal party", body="At night")
    Comment.edit(people.member, remark.id, 1, body="Bring salmon")
    for query in ("walrus", "noon", "herring"):
        assert find(query, people.reader) == []
    assert find("seal night", people.reader) == [("post", post.id)]
    assert find("salmon", people.reader) == [("comment", remark.id)]
    Comment.delete(people.member, remark.id)
    assert find("salmon", people.reader) == []
    Comment.restore(people.member, remark.id)
    Post.delete(people.member, post.id)
    assert find("salmon", people.reader) == find("seal", people.reader) == []
    Post.restore(people.member, post.id)
    assert find("salmon", people.reader) == [("comment", remark.id)]
    assert find("seal", people.reader) == [("post", post.id)]


def test_merging_and_closing_topics_is_followed(app, people, topics):
    other = add_topic(people.editor, "Fish")
    post = add_post(people.member, other, "The walrus party")
    assert find("walrus", people.reader, topic=other.id) == [("post", post.id)]
    Topic.merge(people.editor, other.id, topics.private.id)
    assert find("walrus", people.stranger) == []
    assert find("walrus", people.reader, topic=topics.private.id) == [("post", post.id)]
    Topic.edit(people.editor, topics.private.id, name="Management", private=False)
    assert find("walrus", people.stranger) == [("post", post.id)]


def test_comments_are_found_after_a_kill_too(app, people, topics):
    post = add_post(people.member, topics.open)
    first = add_comment(people.member, post, "A walrus")
    index_comments()
    second, third = add_comment(people.member, post, "A second walrus"), add_comment(people.member, post, "No walrus")
    Comment.delete(people.member, third.id)
    app.extensions["corkboard"].indexer.notes.clear()  # the process died with what it had in mind
    assert find("walrus", people.reader) == [("comment", first.id)]
    corkboard.start_background(app)
    index_comments()
    assert {*find("walrus", people.reader)} == {("comment", first.id), ("comment", second.id)}


def test_reindexing_writes_the_same_entries(app, people, topics):
    for text, _ in FOUND:
        post = add_post(people.member, topics.open, text, body=text, kind="news")
        add_comment(people.member, post, text)
    add_post(people.editor, topics.open, "A page", kind="page")
    index_comments()
    Comment.delete(people.member, Comment.create(people.member, post.id, body="Gone", form_id="0" * 32))
    before = entries()
    assert len(before) == 2 * len(FOUND) + 1 + 5
    for _ in range(2):
        done = app.test_cli_runner().invoke(args=["db-reindex"])
        assert (done.exit_code, done.output.splitlines()[-1]) == (0, "The search is up to date.")
        assert entries() == before
        assert len(find("crane", people.reader)) == 2
    if database.engine_state().is_sqlite:
        with db.engine.connect() as connection:
            connection.exec_driver_sql("INSERT INTO search_fts (search_fts) VALUES ('integrity-check')")


def test_a_site_that_had_no_search_is_indexed_when_it_starts(app, people, topics):
    post = add_post(people.member, topics.open, "The walrus party")
    before = entries()
    with db.engine.begin() as connection:
        connection.execute(sa.delete(SearchEntry))
    assert find("walrus", people.reader) == []
    corkboard.start_background(app)
    index_comments()
    assert find("walrus", people.reader) == [("post", post.id)]
    assert entries() == before


# -- Ranks and filters -------------------------------------------------------------------------------------------------


def test_titles_come_first_then_what_is_new(app, people, topics):
    body = add_post(people.member, topics.open, "Lunch", body="With a walrus")
    begun = add_post(people.member, topics.open, "Walruses")
    same = add_post(people.member, topics.open, "The walrus party")
    newer = add_post(people.member, topics.open, "Dinner", body="With a walrus")
    order = [object_id for _, object_id in find("walrus", people.reader)]
    assert order == [same.id, begun.id, newer.id, body.id]


def test_filters_narrow_by_kind_topic_author_and_time(app, people, topics, sign_in):
    other = add_topic(people.editor, "Fish")
    post = add_post(people.member, topics.open, "The walrus post")
    page = add_post(people.editor, other, "The walrus page", kind="page")
    remark = add_comment(people.editor, post, "The walrus remark")
    add_person("walrus")
    index_comments()
    browser = sign_in(people.reader)
    here = {"post": f'"/posts/{post.id}"', "page": f'"/posts/{page.id}"', "comment": f'"/comments/{remark.id}"',
            "person": '"who" href="/people/walrus"'}  # fmt: skip
    today = corkboard.g.now.date()
    for query, expected in (
        ("", {"post", "page", "comment", "person"}),
        *((f"&kind={kind}", {kind}) for kind in here),
        (f"&topic={other.slug}", {"page"}),
        (f"&topic={topics.open.slug}", {"post", "comment"}),
        ("&author=editor", {"page", "comment"}),
        ("&author=EDITOR&kind=comment", {"comment"}),
        (f"&since={today - timedelta(days=2)}", {"post", "page", "comment"}),
        (f"&since={today + timedelta(days=2)}", set()),
        (f"&before={today - timedelta(days=2)}", set()),
        (f"&before={today + timedelta(days=2)}", {"post", "page", "comment"}),
    ):
        text = browser.get(f"/search?q=walrus{query}").text
        assert {kind for kind, link in here.items() if f"href={link}" in text or link in text} == expected, query
    for wrong in ("kind=x", "topic=x", "author=nobody"):
        assert browser.get(f"/search?q=walrus&{wrong}").status_code == 404


def test_the_words_are_marked_where_they_stand(app, people, topics, browser):
    text = "At noon. " * 60 + "The <b>Wálrus</b> & 東京都 eat."
    add_post(people.member, topics.open, "Lunch with WALRUSES", body=text.replace("<b>", "`<b>`").replace("</b>", ""))
    page = browser.get("/search?q=walrus 東京").text
    assert "Lunch with <mark>WALRUSES</mark>" in page
    assert "&lt;b&gt; <mark>Wálrus</mark> &amp; <mark>東京</mark>都" in re.sub(r"&gt;(?=<mark>)", "&gt; ", page)
    assert "… " in page
    live = browser.get("/search?q=walrus&part=live").text
    assert "<html" not in live
    assert 'data-count="1"' in live


def test_without_results_the_page_says_what_to_try(app, people, topics, browser):
    assert "Try fewer words" in browser.get("/search?q=zyzzyva").text
    assert "without filters" in browser.get("/search?q=zyzzyva&kind=page").text
    assert "The beginning of a word is enough" in browser.get("/search").text
