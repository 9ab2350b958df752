"""The search: the same words find the same things on both engines, and what one may not see leaves no trace."""

from __future__ import annotations

import html
import re
import secrets
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import REQUIRE_ALL, add_comment, add_person, add_post, add_topic, edit_post, together
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_hostile_input import ATTACKS
from world import set_columns

import app as corkboard
import database
from app import PAGE_SIZE, Attachment, Bin, Comment, Post, SearchEntry, SearchQuery, Topic, User
from database import db

# What stands in a post, and what finds it there or does not.
FOUND = [
    ("The Crane is BACK", ["crane", "CRANE", "the crane", "back crane", "cran", "CRANE is"]),
    ("Zoë's café in Łódź", ["zoe", "ZOË", "cafe", "café", "lodz", "Łódź", "zoe's"]),
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
    ("Do\u00adnau\u00addampf and foo\u200bbar", ["donaudampf", "Do\u00adnau", "donau", "foobar", "foo\u200bbar"]),
    ("مُحَمَّد كـــتاب أحمد", ["محمد", "مُحَمَّد", "كتاب", "كـتاب", "احمد", "أحمد"]),
    ("שָׁלוֹם עוֹלָם", ["שלום", "שָׁלוֹם", "עולם"]),
    ("می\u200cخواهم", ["میخواهم", "می\u200cخواهم"]),
    ("東\u200b京\u2060都", ["東京", "京都", "東京都"]),
    ("Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft", ["donau", "donaudampfschiff"]),
]  # fmt: skip
NOT_FOUND = [
    ("The crane is back", ["rane", "crane gone", "crane's"]),
    ("東京都で会議を開きます", ["京東", "大阪", "会社"]),
    ("が", ["か"]),
    ("An apple a day", ["d", "c++"]),
    ("nothing", ["zzznothing", "qqqkpost", "qqqk", "zzz", "_", "qqqa1"]),
]
NOTHING = ["", " ", '"', '""', "*", "+", "-", "+-@", "()", "NEAR(", "@", "~<>", "'", "%", "\\", "^", "\x00", "…", "🏻"]
HOSTILE = ['"crane', "crane*", "+crane -back", "NEAR(crane, back)", "crane AND", "OR crane", "crane NOT back",
           "tokens:crane", "(crane", "crane)", "@4 crane", "-crane", 'crane"*"', "{crane}", "^crane"]  # fmt: skip


@pytest.fixture
def browser(app, people, topics, sign_in):
    return sign_in(people.member)


def find(query: str, viewer: User, *conditions, kind: str = "", author: int | None = None) -> list[tuple[str, int]]:
    """What the first page of a search shows a person: kind and id."""
    db.session.rollback()
    flags = database.search_flags(kind=kind, author=author)
    wanted = SearchQuery(database.query_words(query), flags, conditions)
    hits = SearchEntry.find(viewer, wanted).hits if wanted.words else []
    return [(hit.SearchEntry.kind, hit.SearchEntry.object_id) for hit in hits]


def entries() -> list[tuple]:
    """The rows of the index, without their numbers."""
    columns = [column for column in SearchEntry.__table__.columns if column.name != "id"]
    with db.engine.connect() as connection:
        return sorted(tuple(map(str, row)) for row in connection.execute(sa.select(*columns)))


def add_file(owner: User, name: str, **below: Any) -> int:
    """A file of nothing yet, or one of a `post` or a `comment`."""
    stored = corkboard.StoredFile(name, name.rpartition(".")[2], 3, "0" * 64, secrets.token_hex(16))
    file_id = Attachment.create(owner, stored).id
    if below:
        database.transactional(Attachment.attach)(owner, "", [file_id], **below)
    return file_id


# -- What is found -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["title", "body", "comment"])
def test_each_of_these_finds_the_text_it_stands_beside(app, people, topics, place):
    for text, queries in FOUND:
        title, body = text if place == "title" else "x1", text if place == "body" else "x2"
        post = add_post(people.member, topics.open, title, body=body)
        wanted = ("post", post.id)
        if place == "comment":
            wanted = ("comment", add_comment(people.member, post, text).id)
        for query in queries:
            assert wanted in find(query, people.reader), (text, query)


def test_none_of_these_finds_the_text_it_stands_beside(app, people, topics):
    for text, queries in NOT_FOUND:
        post = add_post(people.member, topics.open, text, body=text)
        for query in queries:
            assert ("post", post.id) not in find(query, people.reader), (text, query)


PLURALS = [
    ("The mixer is broken", "mixers"), ("One box", "boxes"), ("A company of ours", "companies"), ("The bus", "buses"),
    ("A church and a dish", "churches dishes"), ("One house", "houses"), ("Red mixer, old oven", "mixers ovens"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "query"), PLURALS)
def test_where_nothing_is_found_the_words_are_searched_for_without_their_plural(app, people, topics, text, query):
    post = add_post(people.member, topics.open, text)
    assert find(query, people.reader) == [("post", post.id)]
    exact = add_post(people.member, topics.open, query)
    assert find(query, people.reader) == [("post", exact.id)]


def test_a_word_that_only_looks_like_a_plural_stays(app):
    for word in ("glass", "gas", "is", "bus", "ses", "東京s", "ies", "c++"):
        (given,) = database.query_words(word)[:1]
        assert database.without_plural(given).text in (word, given.text)


def meant(page: str) -> list[str]:
    return re.findall(r"Did you mean <a [^>]*>([^<]+)</a>", page)


@pytest.mark.parametrize(("typed", "nearest"), [
    ("priner", ["printer"]), ("prnter broken", ["printer broken"]), ("PRINTRE", ["printer"]), ("zzzzzz", []), ("x", []),
    ("printer", []), ("Zürch", ["zurich"]), ("printer xylophon", []),
])  # fmt: skip
def test_a_search_that_finds_nothing_offers_the_nearest_known_words(people, topics, browser, typed, nearest):
    add_post(people.member, topics.open, "The printer is broken", body="Ask Zürich.")
    page = browser.get("/search", query_string={"q": typed}).text
    assert meant(page) == nearest
    for words in nearest:
        assert "No results" not in browser.get("/search", query_string={"q": words}).text


def test_where_nothing_was_typed_nothing_might_be_meant(browser, monkeypatch):
    monkeypatch.setattr(SearchEntry, "known_words", lambda _viewer: pytest.fail("it read the words of 300 things"))
    assert browser.get("/search").status_code == 200


def test_what_might_be_meant_says_nothing_of_private_topics_drafts_and_deleted_posts(people, topics, sign_in):
    add_post(people.member, topics.private, "Reorganisation")
    Post.delete(people.member, add_post(people.member, topics.open, "Xylophone").id)
    for typed in ("Reorganisatio", "Rerganisation", "Xylphone"):
        assert not meant(sign_in(people.stranger).get(f"/search?q={typed}").text)
    assert meant(sign_in(people.member).get("/search?q=Rerganisation").text) == ["reorganisation"]


def test_a_person_who_was_found_shows_by_what(people, browser):
    add_person("zamira", name="Zamira", department="Bakery", location="Kiln Lane", phone="+44 20 7946 0000")
    for query, said in (
        ("7946", "+44 20 7946 0000"),
        ("kiln", "Kiln Lane"),
        ("bakery", "Bakery"),
        ("zamira", "zamira@"),
    ):
        assert said in browser.get(f"/search?q={query}").text.partition("<h1>")[2], query
    for query, said in (("7946", "+44 20 7946 0000"), ("kiln", "Kiln Lane"), ("bakery", "Bakery")):
        assert said in browser.get(f"/search?part=live&q={query}").text


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


@settings(
    max_examples=10_000 if REQUIRE_ALL else 500,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(st.text(max_size=60))
def test_any_text_gives_tokens_that_both_engines_take_as_they_are(text):
    tokens = database.search_tokens(text)
    assert all(re.fullmatch(r"zzz[a-z0-9_]{1,72}", token) for token in tokens)
    words = list(database.words_of(text))
    assert all(0 <= word.start < word.end <= len(text) for word in words)
    encoded = ["zzz" + database.encode_word(word.text) for word in words]
    assert {*encoded} <= {*tokens}
    for word in database.query_words(text):
        sought = "zzz" + database.encode_word(word.text)
        assert any(token == sought or (not word.is_letter and token.startswith(sought)) for token in
                   database.search_tokens(database.unicodedata.normalize("NFC", text))), word  # fmt: skip


# -- What one may not see ----------------------------------------------------------------------------------------------


@pytest.fixture
def walruses(people, topics):
    """One of each kind in the private topic and below a post that everybody sees; whether a stranger finds it."""
    hidden = add_post(people.member, topics.private, "The walrus plan", body="A walrus")
    remark = add_comment(people.member, hidden, "A walrus of a plan")
    lunch = add_post(people.member, topics.open, "Lunch")
    below = add_comment(people.member, lunch, "No walrus today")
    return {
        ("post", hidden.id): False, ("comment", remark.id): False, ("comment", below.id): True,
        ("file", add_file(people.member, "walrus plan.pdf", post=hidden)): False,
        ("file", add_file(people.member, "walrus-fees.xlsx", comment=remark)): False,
        ("file", add_file(people.member, "walrus_menu.pdf", post=lunch)): True,
        ("file", add_file(people.member, "Walrus.pdf", comment=below)): True,
    }  # fmt: skip


def test_what_is_private_is_found_by_those_inside_only(people, topics, walruses):
    assert {*find("walrus", people.reader)} == {*walruses}
    assert {*find("walrus", people.stranger)} == {key for key, seen in walruses.items() if seen}
    Topic.make_open(people.editor, topics.private.id)
    assert {*find("walrus", people.stranger)} == {*walruses}


@pytest.mark.parametrize("way", ["deleted", "taken away", "its topic deleted", "deleted permanently", "made private"])
def test_what_is_gone_leaves_no_trace(people, topics, sign_in, way):
    topic = add_topic(people.editor, "Fish")
    post = add_post(people.member, topic, "The walrus party", body="All walruses")
    comment = add_comment(people.member, post, "My walrus comes")
    for below in ({"post": post}, {"comment": comment}):
        add_file(people.member, "walrus.pdf", **below)
    assert len(find("walrus", people.stranger)) == 4
    if way == "its topic deleted":
        Topic.delete(people.editor, topic.id)
    elif way == "made private":
        Topic.make_private(people.editor, topic.id)
    else:
        Post.delete(people.member, post.id)
    if way == "deleted permanently":
        Bin.empty(people.admin, database.utcnow())
        assert not any("walrus" in row[-1] for row in entries())
    assert find("walrus", people.stranger) == []
    stranger = sign_in(people.stranger)
    for address in ("", "&part=live", "&kind=comment", "&kind=file", "&author=member"):
        nothing, page = (stranger.get(f"/search?q={word}{address}") for word in ("zyzzyva", "walrus"))
        assert (page.status_code, nothing.status_code) == (200, 200)
        assert uncounted(page.text, "walrus") == uncounted(nothing.text, "zyzzyva")


def uncounted(page: str, query: str) -> str:
    """A page without what was typed, and without what differs each time."""
    return re.sub(
        r'(?<=name="csrf_token" value=")[^"]+|(?<=name="csrf-token" content=")[^"]+', "", page.replace(query, "?")
    )


def test_a_private_topic_cannot_be_searched_from_outside(people, topics, walruses, sign_in):
    stranger = sign_in(people.stranger)
    assert stranger.get(f"/search?q=walrus&topic={topics.private.slug}").status_code == 404
    assert topics.private.name not in stranger.get("/search?q=walrus").text


def test_drafts_and_what_is_scheduled_are_found_by_nobody_and_from_its_time_on_by_all(people, topics):
    now = database.utcnow()
    draft = add_post(people.member, topics.open, "A walrus draft", how="draft")
    waits = add_post(people.member, topics.open, "A walrus to come",
                     scheduled_for=now + timedelta(hours=1))  # fmt: skip
    for who in (people.member, people.editor, people.admin, people.reader):
        assert find("walrus", who) == []
    set_columns(Post, waits.id, scheduled_for=now - timedelta(minutes=1))
    assert Post.publish_due() == 1
    assert find("walrus", people.reader) == [("post", waits.id)]
    edit_post(people.member, draft, how="autosave", title="Still a walrus draft")
    assert find("walrus", people.member) == [("post", waits.id)]
    edit_post(people.member, draft, title="A walrus, no draft")
    assert {*find("walrus", people.reader)} == {("post", waits.id), ("post", draft.id)}


def test_what_has_expired_is_found_and_says_so(people, topics, sign_in):
    post = add_post(people.member, topics.open, "The walrus party")
    set_columns(Post, post.id, expires_at=database.utcnow() - timedelta(hours=1))
    assert find("walrus", people.reader) == [("post", post.id)]
    assert "Expired" in sign_in(people.reader).get("/search?q=walrus").text


def test_the_hidden_do_not_crowd_out_what_one_may_see(people, topics):
    seen = add_post(people.member, topics.open, "The walrus party")
    for number in range(PAGE_SIZE + 2):
        add_post(people.member, topics.private, f"The walrus plan {number}")
    assert find("walrus", people.stranger) == [("post", seen.id)]


def test_people_who_are_gone_are_not_found(app, people, topics, sign_in):
    add_person("walter", title="Walrus keeper")
    browser = sign_in(people.admin)
    assert "/people/walter" in browser.get("/search?q=walrus").text
    walter = db.session.scalar(sa.select(User).where(User.username == "walter"))
    User.deactivate(people.admin, walter.id)
    assert 'class="who" href="/people/walter"' not in browser.get("/search?q=walrus").text
    User.reactivate(people.admin, walter.id)
    User.edit_person(people.admin, walter.id, name="Sealman", email="", username="walter")
    assert "/people/walter" in browser.get("/search?q=sealman&kind=person").text


# -- In step -----------------------------------------------------------------------------------------------------------


def test_edits_deletes_and_restores_are_followed(people, topics):
    post = add_post(people.member, topics.open, "The walrus party", body="At noon")
    remark = add_comment(people.member, post, "Bring herring")
    file = add_file(people.member, "Tickets.pdf", post=post)
    edit_post(people.member, post, title="The seal party", body="At night")
    Comment.edit(people.member, remark.id, body="Bring salmon")
    for query in ("walrus", "noon", "herring"):
        assert find(query, people.reader) == []
    assert find("seal night", people.reader) == [("post", post.id)]
    assert find("salmon", people.reader) == [("comment", remark.id)]
    Comment.delete(people.member, remark.id)
    Attachment.delete(people.member, file)
    assert find("salmon", people.reader) == find("tickets", people.reader) == []
    Comment.restore(people.member, remark.id)
    Attachment.restore(people.member, file)
    Post.delete(people.member, post.id)
    assert find("salmon", people.reader) == find("seal", people.reader) == find("tickets", people.reader) == []
    Post.restore(people.member, post.id)
    assert find("salmon", people.reader) == [("comment", remark.id)]
    assert find("seal", people.reader) == [("post", post.id)]
    assert find("tickets", people.reader) == [("file", file)]
    edit_post(people.member, post, title="The walrus party", body="At noon")
    Comment.edit(people.member, remark.id, body="Bring herring")
    assert find("walrus noon", people.reader) == [("post", post.id)]
    assert find("herring", people.reader) == [("comment", remark.id)]
    assert find("seal", people.reader) == find("salmon", people.reader) == []


def test_a_file_is_found_from_when_it_hangs_on_something(people, topics):
    post = add_post(people.member, topics.open)
    file = add_file(people.member, "Walrus prices 2024.xlsx")
    assert find("walrus", people.member) == []
    edit_post(people.member, post, file_ids=[file])
    assert find("walrus 2024 xlsx", people.reader) == [("file", file)]
    said = add_file(people.member, "Seal.png")
    remark = add_comment(people.member, post, f"![](/files/{said}/Seal.png)").id
    assert ("file", said) in find("seal", people.reader)
    Comment.delete(people.member, remark)
    assert find("seal", people.reader) == []


def test_merging_and_closing_topics_is_followed(people, topics):
    other = add_topic(people.editor, "Fish")
    post = add_post(people.member, other, "The walrus party")
    assert find("walrus", people.reader, Post.topic_id == other.id) == [("post", post.id)]
    Topic.merge(people.editor, other.id, topics.private.id)
    assert find("walrus", people.stranger) == []
    assert find("walrus", people.reader, Post.topic_id == topics.private.id) == [("post", post.id)]
    Topic.make_open(people.editor, topics.private.id)
    assert find("walrus", people.stranger) == [("post", post.id)]


def test_news_that_becomes_a_page_changes_its_kind(people, topics):
    post = add_post(people.editor, topics.open, "The walrus party")
    assert find("walrus", people.reader, kind="page") == []
    edit_post(people.editor, post, kind="page")
    assert find("walrus", people.reader, kind="page") == [("post", post.id)]
    assert find("walrus", people.reader, kind="news") == []


def test_what_is_taken_back_leaves_no_entry(app, people, topics):
    post = add_post(people.member, topics.open, "The walrus party")

    @database.transactional
    def fail():
        edit_post(people.member, post, title="The seal party", body="No more")
        raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert find("seal", people.reader) == []
    assert find("walrus", people.reader) == [("post", post.id)]


def everything(people, topics) -> None:
    for text, _ in FOUND:
        post = add_post(people.member, topics.open, text, body=text, kind="news")
        add_comment(people.member, post, text)
        add_file(people.member, "walrus.pdf", post=post)
    add_post(people.editor, topics.open, "A page", kind="page")
    add_post(people.editor, topics.open, "A draft", how="draft")
    Comment.delete(people.member, add_comment(people.member, post, "Gone").id)


def test_reindexing_writes_the_same_entries(app, people, topics):
    everything(people, topics)
    before = entries()
    assert len(before) == 3 * len(FOUND) + 1 + 1
    for _ in range(2):
        done = app.test_cli_runner().invoke(args=["db-reindex"])
        assert (done.exit_code, done.output.splitlines()[-1]) == (0, "The search index is up to date.")
        assert entries() == before
        assert len(find("crane", people.reader)) == 2
    refuse_faults()


def refuse_faults() -> None:
    """FTS5 itself tells whether its index fits the entries."""
    if database.is_sqlite():
        with db.engine.connect() as connection:
            connection.exec_driver_sql("INSERT INTO search_fts (search_fts, rank) VALUES ('integrity-check', 1)")


def test_a_row_that_is_removed_takes_its_entry_along(app, people, topics):
    post = add_post(people.member, topics.open)
    said = add_comment(people.member, post, "A walrus")
    db.session.execute(sa.delete(Comment).where(Comment.id == said.id))
    db.session.commit()
    assert [row[0] for row in entries()] == ["post"]
    assert find("walrus", people.reader) == []
    refuse_faults()


def test_reindexing_puts_the_entries_in_the_order_of_time(app, people, topics):
    first, second = (add_post(people.member, topics.open, "Walrus") for _ in range(2))
    said = add_comment(people.member, first, "Walrus")
    for model, thing, days in ((Post, first, 1), (Post, second, 3), (Comment, said, 2)):
        column = "published_at" if model is Post else "created_at"
        set_columns(model, thing.id, **{column: database.utcnow() - timedelta(days=days)})
    assert app.test_cli_runner().invoke(args=["db-reindex"]).exit_code == 0
    assert find("walrus", people.reader, SearchEntry.kind == "post") == [("post", first.id), ("post", second.id)]
    with db.engine.connect() as connection:
        order = connection.execute(sa.select(SearchEntry.kind, SearchEntry.object_id).order_by(SearchEntry.id)).all()
    assert order == [("post", second.id), ("comment", said.id), ("post", first.id)]


def test_who_is_here_no_more_is_no_author_to_choose_unless_asked_for(people, topics, browser):
    goner = add_person("goner", name="Gone Person")
    set_columns(User, goner.id, deactivated_at=database.utcnow())
    assert "Gone Person" not in browser.get("/search?q=x").text
    assert re.search(r'<option value="goner"\s+selected', browser.get("/search?q=x&author=goner").text)


def test_people_go_on_working_while_everything_is_indexed(people, topics):
    """An edit that comes between two parts is not lost."""
    posts = [add_post(people.member, topics.open, f"Walrus {number}") for number in range(4)]
    (things,) = SearchEntry.all_things()
    SearchEntry.rewrite(things[:2])
    for post in posts:
        edit_post(people.member, post, title="Seal", body="Only a seal")
    SearchEntry.rewrite(things[2:])
    assert len(find("seal", people.reader)) == 4
    assert find("walrus", people.reader) == []


def test_two_may_index_the_same_at_once(app, people, topics):
    for number in range(5):
        add_post(people.member, topics.open, f"Walrus {number}")
    (things,) = SearchEntry.all_things()
    assert together(app, lambda: SearchEntry.rewrite(things), lambda: SearchEntry.rewrite(things)) == [None, None]
    assert len(find("walrus", people.reader)) == 5


def test_the_demo_is_found_at_once(app, cheap_hashes):
    assert app.test_cli_runner().invoke(args=["seed-demo", "--force", "--posts", "80"]).exit_code == 0
    viewer = db.session.scalar(sa.select(User).order_by(User.id).limit(1))
    # InnoDB may be moving its new words to the disk just now, and for that moment finds only some of them.
    assert any(find("oven", viewer) for _ in range(50))


# -- Ranks and filters -------------------------------------------------------------------------------------------------


def test_titles_come_first_then_what_is_new(app, people, topics):
    body = add_post(people.member, topics.open, "Lunch", body="With a walrus")
    same = add_post(people.member, topics.open, "The walrus party")
    begun = add_post(people.member, topics.open, "Walruses")
    newer = add_post(people.member, topics.open, "Dinner", body="With a walrus")
    order = [object_id for _, object_id in find("walrus", people.reader)]
    assert order == [begun.id, same.id, newer.id, body.id]


def test_filters_narrow_by_kind_topic_author_and_time(app, people, topics, sign_in):
    other = add_topic(people.editor, "Fish")
    post = add_post(people.member, topics.open, "The walrus post")
    page = add_post(people.editor, other, "The walrus page", kind="page")
    remark = add_comment(people.editor, post, "The walrus remark")
    add_person("walrus")
    file = add_file(people.member, "walrus.pdf", post=post)
    browser = sign_in(people.reader)
    here = {"news": f"/posts/{post.id}", "page": f"/posts/{page.id}", "comment": f"/comments/{remark.id}",
            "person": "/people/walrus", "file": f"/files/{file}/walrus.pdf"}  # fmt: skip
    today = corkboard.g.now.date()
    for query, expected in (
        ("", {"news", "page", "comment", "person", "file"}),
        *((f"&kind={kind}", {kind}) for kind in here),
        (f"&topic={other.slug}", {"page"}),
        (f"&topic={topics.open.slug}", {"news", "comment", "file"}),
        ("&author=editor", {"page", "comment"}),
        ("&author=EDITOR&kind=comment", {"comment"}),
        (f"&since={today - timedelta(days=2)}", {"news", "page", "comment", "file"}),
        (f"&since={today + timedelta(days=2)}", set()),
        (f"&before={today - timedelta(days=2)}", set()),
        (f"&before={today + timedelta(days=2)}", {"news", "page", "comment", "file"}),
    ):
        text = browser.get(f"/search?q=walrus{query}").text
        found = re.findall(r'<h3[^>]*>\s*<a (?:class="who" )?href="([^"]+)', text)
        assert {kind for kind, link in here.items() if link in found} == expected, query
    for wrong in ("kind=x", "topic=x", "author=nobody"):
        assert browser.get(f"/search?q=walrus&{wrong}").status_code == 404


def test_what_somebody_wrote_who_has_left_is_found_by_their_name(app, people, topics, sign_in):
    add_post(people.member, topics.open, "The walrus post")
    set_columns(User, people.member.id, deactivated_at=database.utcnow())
    assert "The <mark>walrus</mark> post" in sign_in(people.reader).get("/search?q=walrus&author=member").text


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
    assert "No results." in browser.get("/search?q=zyzzyva").text
    assert "Clear filters" in browser.get("/search?q=zyzzyva&kind=page").text
    assert "four letters of a word are enough" in browser.get("/search").text


def found_on(page: str) -> list[str]:
    """The addresses of the results on a page."""
    return re.findall(r'<h3[^>]*>\s*<a href="([^"]+)', page)


def test_results_go_on_where_the_last_ones_ended(app, people, topics, browser):
    below = [add_post(people.member, topics.open, f"Lunch {number}", body="By the oven") for number in range(25)]
    above = [add_post(people.member, topics.open, f"Oven {number}") for number in range(3)]
    add_post(people.member, topics.private, "Oven", body="Not for all")
    expected = [f"/posts/{post.id}" for post in [*above[::-1], *below[::-1]]]
    page, pages = "/search?q=oven&kind=news&topic=" + topics.open.slug, []
    while page:
        text = browser.get(page).text
        pages.append(found_on(text))
        further = re.search(r'href="([^"]+)">More results', text)
        page = html.unescape(further[1]) if further else ""
    assert [len(found) for found in pages] == [PAGE_SIZE, 8]
    assert [address for found in pages for address in found] == expected
    for wrong in ("0", "-1", "x", "9" * 5000, "1000000000"):
        assert browser.get("/search", query_string={"q": "oven", "start": wrong}).status_code == 200


def test_more_titles_than_a_page_holds_are_all_found(app, people, topics, browser):
    made = [add_post(people.member, topics.open, f"Oven {number}") for number in range(PAGE_SIZE + 2)]
    first = browser.get("/search?q=oven").text
    assert found_on(first) == [f"/posts/{post.id}" for post in made[:1:-1]]
    address = html.unescape(re.search(r'href="([^"]+)">More results', first)[1])
    assert found_on(browser.get(address).text) == [f"/posts/{post.id}" for post in made[1::-1]]


def test_people_are_found_by_what_their_profile_says(app, people, browser):
    profile = {"title": "Head baker", "department": "Bakery", "location": "Kiln Lane", "phone": "+44 20 7946 0000"}
    add_person("zamira", name="Zamíra Novák", **profile)
    for query in ("zamira", "Novák", "novak zamira", "head baker", "bakery", "kiln lane", "7946", "zamira@example.com"):
        assert "/people/zamira" in found_people(browser, query), query
    assert found_people(browser, "zamira&topic=general") == []
    for query in ("zamira lane butcher", "zzamira"):
        assert found_people(browser, query) == [], query


def found_people(browser, query: str) -> list[str]:
    page = browser.get(f"/search?q={query.replace('+', '%2B')}").text
    return re.findall(r'<h3[^>]*><a class="who" href="([^"]+)', page)
