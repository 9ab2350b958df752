"""The search: the same words find the same things on both engines, and what one may not see leaves no trace."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from conftest import add_comment, add_person, add_post, add_topic, together
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
NOTHING = ["", " ", '"', '""', "*", "+", "-", "+-@", "()", "NEAR(", "@", "~<>", "'", "%", "\\", "^", "\x00", "…", "🏻", ":"]
HOSTILE = ['"crane', "crane*", "+crane -back", "NEAR(crane, back)", "crane AND", "OR crane", "crane NOT back",
           "tokens:crane", "(crane", "crane)", "@4 crane", "-crane", "crane\"*\"", "{crane}", "^crane", "crane;--"]  # fmt: skip


@pytest.fixture
def browser(app, people, topics, sign_in):
    return sign_in(people.member)


def find(query: str, viewer: User, **narrowed) -> list[tuple[str, int]]:
    """What the search finds for a person: kind and id, the best first."""
    flags = database.search_filter(narrowed.pop("kind", ""), narrowed.pop("author", None))
    wanted = corkboard.Wanted(database.query_words(query), flags, narrowed)
    database.end_reading()
    hits, count = SearchEntry.hits(viewer, wanted) if wanted.words else ((), 0)  # type: ignore[arg-type]
    assert count == len(hits)
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
        post = add_post(people.member, topics.open, text if place == "title" else "x1", body=text if place == "body" else "x2")
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
