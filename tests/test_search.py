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
from app import RESULTS, Attachment, Bin, Comment, Post, SearchEntry, Topic, User
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


def index() -> None:
    """Index what was written, as a thread does in a served process."""
    SearchEntry.follow({})


def find(query: str, viewer: User, **narrowed) -> list[tuple[str, int]]:
    """What the search finds for a person once everything is indexed: kind and id, the best first."""
    index()
    return find_now(query, viewer, **narrowed)


def find_now(query: str, viewer: User, **narrowed) -> list[tuple[str, int]]:
    flags = database.search_flags(kind=narrowed.pop("kind", ""), author=narrowed.pop("author", None))
    wanted = corkboard.Wanted(database.query_words(query), flags, narrowed, narrowed.pop("most", RESULTS))
    corkboard.g.now = database.utcnow()
    database.end_reading()
    found = SearchEntry.hits(viewer, wanted) if wanted.words else corkboard.Found((), 0, False)  # type: ignore[arg-type]
    assert (found.count, found.more) == (len(found.hits), False)
    return [(hit.kind, hit.object_id) for hit in found.hits]


def entries() -> list[tuple]:
    """The rows of the index, without their numbers."""
    database.end_reading()
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
    spelt = ["zzz" + database._spelt(word.text) for word in words]
    assert {*spelt} <= {*tokens}
    for word in database.query_words(text):
        sought = "zzz" + database._spelt(word.text)
        assert any(token == sought or (not word.whole and token.startswith(sought)) for token in
                   database.search_tokens(database.unicodedata.normalize("NFC", text))), word  # fmt: skip


@settings(max_examples=5_000 if REQUIRE_ALL else 500, deadline=None, database=None, derandomize=True)
@given(st.text(st.sampled_from("abC19 -'’_+#.\n\u00a0\u3000\x01\x1céßİ中かñ😀"), max_size=60))
def test_plain_words_that_are_found_at_once_are_the_same_as_when_each_is_looked_at(text):
    assert {*database.search_tokens(text, "")} == {*database._run_tokens.__wrapped__(text)}


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
    Topic.edit(people.editor, topics.private.id, name="Management", private=False)
    assert {*find("walrus", people.stranger)} == {*walruses}


@pytest.mark.parametrize("way", ["deleted", "taken away", "its topic deleted", "deleted permanently", "made private"])
def test_what_is_gone_leaves_no_trace(people, topics, sign_in, way):
    topic = add_topic(people.editor, "Fish")
    post = add_post(people.member, topic, "The walrus party", body="All walruses")
    comment = add_comment(people.member, post, "My walrus comes")
    for below in ({"post": post}, {"comment": comment}):
        add_file(people.member, "walrus.pdf", **below)
    index()
    assert len(find("walrus", people.stranger)) == 4
    if way == "its topic deleted":
        Topic.delete(people.editor, topic.id)
    elif way == "made private":
        Topic.edit(people.editor, topic.id, name="Fish", private=True, members=[people.editor.id])
    else:
        Post.delete(people.member, post.id)
    if way == "deleted permanently":
        Bin.empty(people.admin, database.utcnow())
        assert not any("walrus" in row[-1] for row in entries())
    assert find_now("walrus", people.stranger) == []
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
    index()
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


def test_the_hidden_do_not_crowd_out_what_one_may_see(people, topics, monkeypatch):
    monkeypatch.setattr(corkboard, "NEWEST_ENTRIES", 3)
    SearchEntry._hits.cache_clear()
    seen = add_post(people.member, topics.open, "The walrus party")
    for number in range(5):
        add_post(people.member, topics.private, f"The walrus plan {number}")
    assert find("walrus", people.stranger, most=1) == [("post", seen.id)]
    SearchEntry._hits.cache_clear()


def test_what_is_below_the_newest_windows_is_found_too(people, topics, monkeypatch):
    monkeypatch.setattr(database, "WINDOW", 2)
    made = [("post", add_post(people.member, topics.open, f"The walrus plan {number}").id) for number in range(9)]
    assert find("walrus", people.reader) == made[::-1]


def test_people_who_are_gone_are_not_found(app, people, topics, sign_in):
    add_person("walter", title="Walrus keeper")
    index()
    browser = sign_in(people.admin)
    assert "/people/walter" in browser.get("/search?q=walrus").text
    walter = db.session.scalar(sa.select(User).where(User.username == "walter"))
    values = {"role": walter.role, "name": walter.name, "email": walter.email}
    User.administer(people.admin, walter.id, active=False, **values)
    assert 'class="who" href="/people/walter"' not in browser.get("/search?q=walrus").text
    User.administer(people.admin, walter.id, active=True, **values | {"name": "Sealman"})
    index()
    assert "/people/walter" in browser.get("/search?q=sealman&kind=person").text


# -- In step -----------------------------------------------------------------------------------------------------------


def test_edits_deletes_and_restores_are_followed(people, topics):
    post = add_post(people.member, topics.open, "The walrus party", body="At noon")
    remark = add_comment(people.member, post, "Bring herring")
    file = add_file(people.member, "Tickets.pdf", post=post)
    index()
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
    remark = Comment.create(people.member, post.id, body=f"![](/files/{said}/Seal.png)", form_id=secrets.token_hex(16))
    assert ("file", said) in find("seal", people.reader)
    Comment.delete(people.member, remark)
    assert find("seal", people.reader) == []


def test_merging_and_closing_topics_is_followed(people, topics):
    other = add_topic(people.editor, "Fish")
    post = add_post(people.member, other, "The walrus party")
    assert find("walrus", people.reader, topic=other.id) == [("post", post.id)]
    Topic.merge(people.editor, other.id, topics.private.id)
    assert find("walrus", people.stranger) == []
    assert find("walrus", people.reader, topic=topics.private.id) == [("post", post.id)]
    Topic.edit(people.editor, topics.private.id, name="Management", private=False)
    assert find("walrus", people.stranger) == [("post", post.id)]


def test_news_that_becomes_a_page_changes_its_kind(people, topics):
    post = add_post(people.editor, topics.open, "The walrus party")
    assert find("walrus", people.reader, kind="page") == []
    edit_post(people.editor, post, kind="page")
    assert find("walrus", people.reader, kind="page") == [("post", post.id)]
    assert find("walrus", people.reader, kind="post") == []


def test_what_is_written_is_found_a_moment_later_and_after_a_kill_too(app, people, topics, sign_in):
    index()
    indexer = app.extensions["corkboard"].indexer
    first = add_post(people.member, topics.open)
    assert not indexer.notes
    typed = {"body": "A walrus", "form_id": "a" * 32}
    assert sign_in(people.member).submit(f"/posts/{first.id}/comments", typed).status_code == 303
    assert find_now("walrus", people.reader) == []
    indexer.flush()
    db.session.rollback()
    said = db.session.scalar(sa.select(Comment.id))
    assert find_now("walrus", people.reader) == [("comment", said)]
    second = add_comment(people.member, first, "A second walrus")
    indexer.notes.clear()  # the process died with what it had in mind
    corkboard.start_background(app)
    indexer.flush()
    assert {*find_now("walrus", people.reader)} == {("comment", said), ("comment", second.id)}


def test_a_unit_that_commits_late_is_indexed_too(app, people, topics):
    index()
    indexer = app.extensions["corkboard"].indexer
    indexer.notes.clear()
    indexer.note("activities", 2)
    indexer.flush()
    assert indexer.notes == {"activities": 1}, "it looks again"
    post = add_post(people.member, topics.open, "A walrus")
    indexer.flush()
    assert find_now("walrus", people.reader) == [("post", post.id)]


def test_two_processes_index_the_same_once(app, people, topics):
    index()
    for number in range(5):
        add_post(people.member, topics.open, f"Walrus {number}")
    assert together(app, index, index) == [None, None]
    assert len(find_now("walrus", people.reader)) == 5


def everything(people, topics) -> None:
    for text, _ in FOUND:
        post = add_post(people.member, topics.open, text, body=text, kind="news")
        add_comment(people.member, post, text)
        add_file(people.member, "walrus.pdf", post=post)
    add_post(people.editor, topics.open, "A page", kind="page")
    add_post(people.editor, topics.open, "A draft", how="draft")
    Comment.delete(people.member, Comment.create(people.member, post.id, body="Gone", form_id="0" * 32))


def test_reindexing_writes_the_same_entries(app, people, topics):
    index()
    everything(people, topics)
    index()
    before = entries()
    assert len(before) == 3 * len(FOUND) + 1 + 1 + 5
    for _ in range(2):
        done = app.test_cli_runner().invoke(args=["db-reindex"])
        assert (done.exit_code, done.output.splitlines()[-1]) == (0, "The search is up to date.")
        assert entries() == before
        assert len(find("crane", people.reader)) == 2
    if database.is_sqlite():
        with db.engine.connect() as connection:
            connection.exec_driver_sql("INSERT INTO search_fts (search_fts) VALUES ('integrity-check')")


def test_what_was_committed_after_a_later_activity_is_indexed_too(app, people, topics):
    """As happens on MySQL only, where two write at the same time."""
    index()
    post = add_post(people.member, topics.open, "Walrus")
    latest = db.session.scalar(sa.select(sa.func.max(corkboard.Activity.id)))
    later = sa.update(corkboard.Setting).where(corkboard.Setting.name == corkboard.INDEXED_UNTIL)
    db.session.execute(later.values(value=str(latest + 1)))
    db.session.commit()
    index()
    assert find_now("walrus", people.reader) == ([] if database.is_sqlite() else [("post", post.id)])


def test_who_is_here_no_more_is_no_author_to_choose_unless_asked_for(people, topics, browser):
    goner = add_person("goner", name="Gone Person")
    set_columns(User, goner.id, deactivated_at=database.utcnow())
    assert "Gone Person" not in browser.get("/search?q=x").text
    assert re.search(r'<option value="goner"\s+selected', browser.get("/search?q=x&author=goner").text)


def test_a_site_that_had_no_search_is_indexed_when_it_starts(app, people, topics):
    index()
    everything(people, topics)
    index()
    before = entries()
    SearchEntry._clear()
    assert find_now("crane", people.reader) == []
    corkboard.start_background(app)
    app.extensions["corkboard"].indexer.flush()
    assert len(find_now("crane", people.reader)) == 2
    assert entries() == before


def test_people_go_on_working_while_everything_is_indexed(people, topics, monkeypatch):
    """An edit that comes between reading and writing, indexed by another process or not yet, is not lost."""
    index()
    posts = [add_post(people.member, topics.open, f"Walrus {number}") for number in range(4)]
    monkeypatch.setattr(corkboard, "ENTRIES_AT_ONCE", 3)
    add = SearchEntry._add

    def meanwhile(values):
        monkeypatch.setattr(SearchEntry, "_add", add)
        for post in posts:
            edit_post(people.member, post, title="Seal", body="Only a seal")
        add(values)

    monkeypatch.setattr(SearchEntry, "_add", meanwhile)
    SearchEntry.reindex(lambda _: None)
    assert len(find("seal", people.reader)) == 4
    assert find("walrus", people.reader) == []


def test_the_demo_is_found_at_once(app, cheap_hashes):
    assert app.test_cli_runner().invoke(args=["seed-demo", "--force", "--posts", "80"]).exit_code == 0
    viewer = db.session.scalar(sa.select(User).order_by(User.id).limit(1))
    corkboard.g.now = database.utcnow()
    wanted = corkboard.Wanted(database.query_words("oven"))
    # InnoDB may be moving its new words to the disk just now, and for that moment finds only some of them.
    assert any(SearchEntry.hits(viewer, wanted).count for _ in range(50))  # type: ignore[arg-type]


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
    file = add_file(people.member, "walrus.pdf", post=post)
    index()
    browser = sign_in(people.reader)
    here = {"post": f"/posts/{post.id}", "page": f"/posts/{page.id}", "comment": f"/comments/{remark.id}",
            "person": "/people/walrus", "file": f"/files/{file}/walrus.pdf"}  # fmt: skip
    today = corkboard.g.now.date()
    for query, expected in (
        ("", {"post", "page", "comment", "person", "file"}),
        *((f"&kind={kind}", {kind}) for kind in here),
        (f"&topic={other.slug}", {"page"}),
        (f"&topic={topics.open.slug}", {"post", "comment", "file"}),
        ("&author=editor", {"page", "comment"}),
        ("&author=EDITOR&kind=comment", {"comment"}),
        (f"&since={today - timedelta(days=2)}", {"post", "page", "comment", "file"}),
        (f"&since={today + timedelta(days=2)}", set()),
        (f"&before={today - timedelta(days=2)}", set()),
        (f"&before={today + timedelta(days=2)}", {"post", "page", "comment", "file"}),
    ):
        text = browser.get(f"/search?q=walrus{query}").text
        found = re.findall(r'<h3>\s*<a (?:class="who" )?href="([^"]+)', text)
        assert {kind for kind, link in here.items() if link in found} == expected, query
    for wrong in ("kind=x", "topic=x", "author=nobody"):
        assert browser.get(f"/search?q=walrus&{wrong}").status_code == 404


def test_what_somebody_wrote_who_has_left_is_found_by_their_name(app, people, topics, sign_in):
    add_post(people.member, topics.open, "The walrus post")
    set_columns(User, people.member.id, deactivated_at=database.utcnow())
    index()
    assert "The <mark>walrus</mark> post" in sign_in(people.reader).get("/search?q=walrus&author=member").text


def test_the_words_are_marked_where_they_stand(app, people, topics, browser):
    text = "At noon. " * 60 + "The <b>Wálrus</b> & 東京都 eat."
    add_post(people.member, topics.open, "Lunch with WALRUSES", body=text.replace("<b>", "`<b>`").replace("</b>", ""))
    index()
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


def test_results_go_on_where_the_last_ones_ended_up_to_a_hundred(app, people, topics, browser):
    for number in range(RESULTS + 5):
        add_post(people.member, topics.open, f"Oven {number}")
    SearchEntry.follow()
    first = browser.get("/search?q=oven&kind=post").text
    assert (first.count('class="post hit"'), "35 results" in first) == (RESULTS, True)
    address = html.unescape(re.search(r'href="([^"]+)">More results', first)[1])
    assert address == "/search?q=oven&kind=post&shown=60#result-31"
    second = browser.get(address).text
    assert (second.count('class="post hit"'), "More results" in second) == (RESULTS + 5, False)
    assert first[first.index('id="result-1"') : first.index("</article>")] in second
    for wrong in ("0", "-1", "x", "9" * 5000, "1000000000"):
        assert browser.get("/search", query_string={"q": "oven", "shown": wrong}).status_code == 200


@settings(max_examples=1000 if REQUIRE_ALL else 100, deadline=None)
@given(
    st.text(st.sampled_from("abAB19 .-_'\n\u00a0éÉßø中文か"), max_size=40),
    st.sampled_from(["a", "ab", "b1", "e", "é", "ss", "中", "中文", "a b", "o a1"]),
)
def test_words_are_found_at_the_same_places_as_when_all_of_the_text_is_taken_apart(text, query):
    wanted = database.query_words(query)
    every = [
        (word.start, word.end)
        for word in database.words_of(text)
        if any(word.text == one.text or (not one.whole and word.text.startswith(one.text)) for one in wanted)
    ]
    assert list(database.places_of(wanted, text)) == every
