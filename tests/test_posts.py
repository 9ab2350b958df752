"""Posts: Home, news, the handbook, topics, and the comments below posts."""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from conftest import (
    add_comment,
    add_person,
    add_post,
    add_topic,
    edit_post,
    together,
)
from world import set_columns

import app as corkboard
import database
from app import (
    Activity,
    Attachment,
    Comment,
    EditConflict,
    Forbidden,
    Group,
    Invitation,
    Notification,
    Post,
    PostData,
    Revision,
    Role,
    Setting,
    Topic,
    User,
    ValidationError,
)
from database import db

pytestmark = pytest.mark.usefixtures("cheap_hashes")

NEWS = {"title": "The crane is back", "body": "Hall B opens again."}
HOUR = timedelta(hours=1)


def ids_in(html: str, kind: str = "post") -> list[int]:
    """The posts that a page lists, in its order: those in the stream, or with `note` those pinned above it."""
    return [
        int(id_) for id_ in re.findall(rf'<article class="{kind}">.*?<h2[^>]*><a href="/posts/(\d+)"', html, re.DOTALL)
    ]


def next_page(html: str) -> str | None:
    found = re.search(r'rel="next"\s+href="([^"]+)"', html)
    return found[1].replace("&amp;", "&") if found else None


def walk(browser, address: str) -> list[str]:
    """The pages of a list, from its first to its last."""
    pages = []
    while address and len(pages) < 50:
        answer = browser.get(address)
        assert answer.status_code == 200
        pages.append(answer.text)
        address = next_page(answer.text)
    return pages


def many_posts(author: User, topic: Topic, count: int, kind: str = "news", **values) -> list[int]:
    """Posts of one and the same moment, written past the units because it is many."""
    moment = datetime(2026, 3, 1, 12, 0, 0, 123456)
    common = {
        "kind": kind, "topic_id": topic.id, "author_id": author.id, "editor_id": author.id, "version": 1, "revision": 1,
        "excerpt": "", "renderer": 1, "comment_count": 0, "published_at": moment, "updated_at": moment,
        "body": "Text", "html": "<p>Text</p>",
    }  # fmt: skip
    made = [
        common | {"title": f"Number {n}", "title_key": f"number {n:04}", "form_id": secrets.token_hex(16)} | values
        for n in range(count)
    ]
    with db.engine.begin() as connection:
        connection.execute(sa.insert(Post), made)
        return list(connection.scalars(sa.select(Post.id).where(Post.kind == kind).order_by(Post.id)))


def many_comments(author: User, post: Post, count: int) -> list[int]:
    moment = datetime(2026, 3, 1, 12, 0, 0, 123456)
    common = {"post_id": post.id, "author_id": author.id, "renderer": 1, "created_at": moment}
    said = [
        common | {"body": f"Number {n}", "html": f"<p>Number {n}</p>", "form_id": secrets.token_hex(16)}
        for n in range(count)
    ]
    with db.engine.begin() as connection:
        connection.execute(sa.insert(Comment), said)
        connection.execute(sa.update(Post).where(Post.id == post.id).values(comment_count=count))
        return list(connection.scalars(sa.select(Comment.id).order_by(Comment.id)))


def comments_in(html: str) -> list[int]:
    return [int(id_) for id_ in re.findall(r'id="comment-(\d+)"', html)]


def count(entity, *conditions) -> int:
    db.session.rollback()
    return db.session.scalar(sa.select(sa.func.count()).select_from(entity).where(*conditions)) or 0


def again(entity):
    """A row as it stands in the database now."""
    db.session.rollback()
    db.session.refresh(entity)
    return entity


@pytest.fixture
def clock(monkeypatch):
    """The application's time, which stands still until a test moves it."""
    clock = SimpleNamespace(now=datetime(2026, 3, 2, 9, 0))
    monkeypatch.setattr(corkboard, "utcnow", lambda: clock.now)
    return clock


# -- Home --------------------------------------------------------------------------------------------------------------


def test_home_shows_what_was_posted(people, topics, sign_in):
    add_post(people.member, topics.open, "The crane is back")
    page = sign_in(people.reader).get("/")
    assert page.status_code == 200
    assert "The crane is back" in page.text


def test_home_says_what_to_do_while_it_is_empty(people, topics, sign_in):
    assert "Write the first post" in sign_in(people.member).get("/").text
    assert "Read the handbook" in sign_in(people.reader).get("/").text


def test_home_shows_at_most_five_pinned_the_latest_pinned_first_and_none_twice(people, topics, sign_in):
    posts = [add_post(people.member, topics.open, f"Number {n}").id for n in range(10)]
    for post_id in posts[:7]:
        Post.pin(people.editor, post_id, True)
    html = sign_in(people.reader).get("/").text
    assert ids_in(html, "note") == posts[6:1:-1]
    assert ids_in(html) == [*posts[:6:-1], posts[1], posts[0]]


def test_a_post_that_is_pinned_and_everything_else_fills_a_whole_page(people, topics, sign_in):
    posts = [add_post(people.member, topics.open, f"Number {n}").id for n in range(26)]
    for post_id in posts[-5:]:
        Post.pin(people.editor, post_id, True)
    html = sign_in(people.reader).get("/").text
    assert len(ids_in(html)) == 20
    assert next_page(html)
    assert ids_in(sign_in(people.reader).get(next_page(html)).text) == posts[:1]


def test_paging_over_equal_times_loses_and_doubles_nothing(people, topics, sign_in):
    posts = many_posts(people.member, topics.open, 65)
    for post_id in posts[-3:]:
        Post.pin(people.editor, post_id, True)
    pages = walk(sign_in(people.reader), "/")
    shown = [id_ for html in pages for id_ in ids_in(html)]
    assert [len(ids_in(html)) for html in pages] == [20, 20, 20, 2]
    assert [bool(ids_in(html, "note")) for html in pages] == [True, False, False, False]
    assert shown == sorted(set(posts) - set(ids_in(pages[0], "note")), reverse=True)


def test_what_is_posted_while_somebody_pages_moves_nothing(people, topics, sign_in):
    posts = many_posts(people.member, topics.open, 45)
    browser = sign_in(people.reader)
    first = browser.get("/").text
    for n in range(3):
        add_post(people.member, topics.open, f"In between {n}")
    Post.delete(people.member, posts[5])
    later = walk(browser, next_page(first))
    shown = [id_ for html in (first, *later) for id_ in ids_in(html)]
    assert shown == [id_ for id_ in reversed(posts) if id_ != posts[5]]


def test_a_page_of_exactly_twenty_leads_nowhere(people, topics, sign_in):
    many_posts(people.member, topics.open, 20)
    html = sign_in(people.reader).get("/").text
    assert len(ids_in(html)) == 20
    assert next_page(html) is None


def made_up(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


BOGUS = [
    "x", "!!!", "é", "AAAA", "a" * 5000, made_up(), made_up(1), made_up("2026-03-01"), made_up("now", 1),
    made_up("2026-03-01", "1"), made_up("2026-03-01", 1.5), made_up("2026-03-01", True), made_up(None, None),
    made_up("2026-03-01", 2**70), made_up("2026-03-01T00:00:00", 1, 1), made_up({}, []), made_up("\ud800", 1),
    base64.urlsafe_b64encode(b"[" * 3000).decode(),
]  # fmt: skip


def test_a_place_that_was_made_up_is_404(people, topics, sign_in):
    browser = sign_in(people.reader)
    for address in ["/", "/topics/everyone", "/people/member", "/people"]:
        kept = {"/people": {made_up("now", 1), made_up("2026-03-01")}}.get(address, set())  # any name is a place there
        for place in set(BOGUS) - kept:
            assert browser.get(address, query_string={"before": place}).status_code == 404, place


def test_a_place_at_the_end_of_time_is_a_page(people, topics, sign_in):
    add_post(people.member, topics.open)
    browser = sign_in(people.reader)
    for moment in ["0001-01-01", "9999-12-31T23:59:59.999999", "2026-03-01T12:00:00+14:00", "2026-03-01T12:00:00Z"]:
        assert browser.get("/", query_string={"before": made_up(moment, 5)}).status_code == 200


# -- What is new -------------------------------------------------------------------------------------------------------


def test_what_came_since_the_last_visit_is_new_until_the_next_one(app, people, topics, sign_in, clock):
    browser = sign_in(people.reader, remember=True)

    def look() -> int:
        return browser.get("/").text.count('<b class="new">')

    add_post(people.member, topics.open, "Before the first visit")
    assert look() == 0
    clock.now += 2 * corkboard.VISIT_NOTED_EVERY
    add_post(people.member, topics.open, "During the first visit")
    assert look() == 0
    clock.now += HOUR
    add_post(people.member, topics.open, "While away")
    add_post(people.member, topics.open, "While away, too")
    clock.now += HOUR
    assert look() == 2
    clock.now += timedelta(minutes=20)
    assert look() == 2
    clock.now += HOUR
    assert look() == 0


def test_what_one_wrote_oneself_is_never_new(app, people, topics, sign_in, clock):
    browser = sign_in(people.member, remember=True)
    browser.get("/")
    clock.now += HOUR
    post = add_post(people.member, topics.open)
    add_comment(people.editor, post, "New here")
    add_comment(people.member, post, "My own")
    clock.now += HOUR
    assert '<b class="new">' not in browser.get("/").text
    assert browser.get(f"/posts/{post.id}").text.count('<b class="new">') == 1


def test_a_visit_is_noted_every_few_minutes_and_not_with_each_page(people, topics, sign_in, clock):
    browser, first = sign_in(people.reader), clock.now
    for minutes, noted in ((0, 0), (4, 0), (6, 6), (8, 6), (11, 6), (12, 12)):
        clock.now = first + timedelta(minutes=minutes)
        browser.get("/")
        assert again(people.reader).last_active_at == first + timedelta(minutes=noted)


def test_asking_for_notifications_in_the_background_is_no_visit(people, topics, sign_in, clock):
    browser = sign_in(people.reader)
    clock.now += HOUR
    browser.get("/notifications/poll")
    assert again(people.reader).last_active_at is None


# -- The page of a post ------------------------------------------------------------------------------------------------


def test_a_post_is_shown_with_its_author_topic_and_text(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    page = sign_in(people.reader).get(f"/posts/{post.id}").text
    for words in ("The crane is back", "<strong>Thursday</strong>", "/people/member", "/topics/everyone"):
        assert words in page
    assert f"/posts/{post.id}/edit" not in page
    assert f"/posts/{post.id}/edit" in sign_in(people.member).get(f"/posts/{post.id}").text


def test_a_post_that_is_not_there_is_404(people, sign_in):
    browser = sign_in(people.admin)
    for address in ["/posts/0", "/posts/7777", "/posts/99999999999999999999", "/posts/-1", "/posts/x"]:
        assert browser.get(address).status_code == 404


def test_an_id_beyond_all_numbers_is_404(people, sign_in):
    browser = sign_in(people.admin)
    for path in ["/edit", "/delete", "/restore", "/pin", "/comments"]:
        for number in (2**31, 2**63, 10**30):
            assert browser.submit(f"/posts/{number}{path}", {"body": "Text", "pinned": "1"}).status_code == 404


def test_any_other_id_beyond_all_numbers_is_404(people, sign_in):
    browser = sign_in(people.admin)
    for path in ["/comments/{}", "/comments/{}/edit", "/admin/people/{}", "/admin/topics/{}"]:
        for number in (2**31, 2**63, 10**30):
            assert browser.get(path.format(number)).status_code == 404


def test_a_long_text_in_any_script_comes_back_as_it_was(people, topics, sign_in):
    body = "😀 Grüße, 你好 " * 7000
    answer = sign_in(people.member).submit(
        "/posts/new", {"title": "Long 🧵", "body": body, "topic": topics.open.id, "form_id": secrets.token_hex(16)}
    )
    assert answer.status_code == 303
    post = db.session.get(Post, int(answer.location.rsplit("/", 1)[1]))
    assert len(body.encode()) > 65535
    assert post.body == body.strip()
    assert post.title == "Long 🧵"


# -- Comments ----------------------------------------------------------------------------------------------------------


def test_a_comment_appears_below_its_post(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    answer = sign_in(people.member).submit(f"/posts/{post.id}/comments", {"body": "Well done"})
    assert answer.status_code == 303
    assert "Well done" in sign_in(people.reader).get(f"/posts/{post.id}").text


def test_an_empty_comment_comes_back_with_the_post(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    answer = sign_in(people.member).submit(f"/posts/{post.id}/comments", {"body": " "})
    assert answer.status_code == 422
    assert "Write something first." in answer.text
    assert count(Comment) == 0


def test_comments_page_from_the_latest_and_none_is_lost_or_doubled(people, topics, sign_in):
    post, browser = add_post(people.member, topics.open), sign_in(people.reader)
    said = many_comments(people.member, post, 120)
    seen, address, pages = [], f"/posts/{post.id}", 0
    while address:
        html, pages = browser.get(address).text, pages + 1
        shown = comments_in(html)
        assert shown == sorted(shown)
        seen = shown + seen
        found = re.search(rf'"(/posts/{post.id}\?before=[\w-]+)#comments"', html)
        address = found[1] if found else None
    assert pages == 3
    assert seen == said


def test_a_comments_own_address_leads_to_the_page_that_shows_it(people, topics, sign_in):
    post, browser = add_post(people.member, topics.open), sign_in(people.reader)
    said = many_comments(people.member, post, 120)
    for deleted in said[60:80]:
        Comment.delete(people.member, deleted)
    for comment_id in (said[0], said[19], said[20], said[49], said[50], said[59], said[80], said[119]):
        answer = browser.get(f"/comments/{comment_id}")
        assert answer.status_code == 302
        assert answer.location.endswith(f"#comment-{comment_id}")
        assert comment_id in comments_in(browser.get(answer.location).text)
    assert browser.get(f"/comments/{said[70]}").status_code == 404


def test_a_made_up_place_among_comments_is_not_found(people, topics, sign_in):
    comment, browser = add_comment(people.member, add_post(people.member, topics.open)), sign_in(people.reader)
    for place in ["x", "-5", "0", "99999999999999999999999", "1.5", "½"]:
        assert browser.get(f"/posts/{comment.post_id}", query_string={"before": place}).status_code == 404, place


def test_the_number_of_comments_follows_deleting_and_restoring(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    comment, other = add_comment(people.member, post), add_comment(people.editor, post)
    browser = sign_in(people.member)
    answer = browser.submit(f"/comments/{comment.id}/delete")
    assert answer.status_code == 303
    assert again(post).comment_count == 1
    assert comments_in(browser.get(f"/posts/{post.id}").text) == [other.id]
    browser.submit(f"/comments/{comment.id}/delete")
    assert again(post).comment_count == 1
    browser.submit(f"/comments/{comment.id}/restore")
    browser.submit(f"/comments/{comment.id}/restore")
    assert again(post).comment_count == 2
    assert "2 comments" in browser.get("/").text


def test_deleting_a_comment_offers_to_take_it_back(people, topics, sign_in):
    comment, browser = add_comment(people.member, add_post(people.member, topics.open)), sign_in(people.member)
    page = browser.get(browser.submit(f"/comments/{comment.id}/delete").location).text
    assert f'formaction="/comments/{comment.id}/restore"' in page


def test_comments_are_changed_by_their_authors_only_and_deleted_by_editors_too(people, topics, sign_in):
    comment = add_comment(people.member, add_post(people.editor, topics.open), "First words")
    other = add_person("other")
    for who, changed, deleted in (
        (other, 403, 403), (people.reader, 403, 403), (people.member, 303, 303), (people.editor, 403, 303)
    ):  # fmt: skip
        values = {"body": f"Words of {who.username}"}
        assert sign_in(who).submit(f"/comments/{comment.id}/edit", values).status_code == changed
        assert sign_in(who).submit(f"/comments/{comment.id}/delete").status_code == deleted
        Comment.restore(people.editor, comment.id)
    assert again(comment).body == "Words of member"


def test_an_edited_comment_says_so_and_the_same_text_again_changes_nothing(people, topics, sign_in):
    comment = add_comment(people.member, post := add_post(people.editor, topics.open), "First words")
    browser, mark = sign_in(people.member), '<span class="when">edited</span>'
    for body, times in (("First words", 0), ("Other words", 1)):
        assert browser.submit(f"/comments/{comment.id}/edit", {"body": body}).status_code == 303
        assert browser.get(f"/posts/{post.id}").text.count(mark) == times


@pytest.mark.parametrize("body", ["Other words", "See [[The crane is back]] and @editor", "A\r\n\r\nB  \n"])
def test_an_edit_of_a_comment_that_is_sent_again_is_no_conflict_and_tells_nobody_twice(people, topics, sign_in, body):
    page = add_post(people.editor, topics.open, kind="page")
    comment, browser = add_comment(people.member, page, "First words"), sign_in(people.member)
    for _time in range(2):  # the first answer was lost
        answer = browser.submit(f"/comments/{comment.id}/edit", {"body": body})
        assert (answer.status_code, answer.location) == (303, f"/posts/{page.id}#comment-{comment.id}")
    assert count(Activity, Activity.action == "comment.edited") == 1
    assert count(Notification, Notification.kind == "mention") == ("@editor" in body)


def test_an_edit_of_a_post_that_is_sent_again_is_no_conflict(people, topics, sign_in):
    add_post(people.editor, topics.open, "Ramp", kind="page")
    post, browser = add_post(people.member, topics.open), sign_in(people.member)
    form = {"title": "Other", "body": "See [[Ramp]]\r\n\r\nand more", "topic": topics.open.id, "version": post.version}
    for _time in range(2):
        assert browser.submit(f"/posts/{post.id}/edit", form).status_code == 303
    assert again(post).version == 2


# -- Writing, changing, deleting ---------------------------------------------------------------------------------------


def written(topic: Topic, **values) -> dict:
    return NEWS | {"topic": topic.id, "form_id": secrets.token_hex(16)} | values


def test_a_member_writes_news(people, topics, sign_in):
    browser = sign_in(people.member)
    answer = browser.submit("/posts/new", written(topics.open))
    assert answer.status_code == 303
    page = browser.get(answer.location)
    assert page.status_code == 200
    assert "Published." in page.text


@pytest.mark.parametrize(("who", "kind", "status"), [
    ("reader", "news", 403), ("member", "news", 303), ("editor", "news", 303),
    ("reader", "page", 403), ("member", "page", 403), ("editor", "page", 303), ("admin", "page", 303),
])  # fmt: skip
def test_who_may_write_what(people, topics, sign_in, who, kind, status):
    answer = sign_in(getattr(people, who)).submit("/posts/new", written(topics.open, kind=kind))
    assert answer.status_code == status
    assert count(Post, Post.kind == kind) == (status == 303)


def test_a_post_that_is_refused_comes_back_as_it_was_typed(people, topics, sign_in):
    browser = sign_in(people.member)
    for wrong in [
        {"title": ""}, {"title": "x" * 201}, {"body": ""}, {"body": " \n "}, {"body": "x" * 100_001}, {"topic": ""},
        {"topic": "7777"}, {"topic": "x"}, {"topic": "9" * 30},
    ]:  # fmt: skip
        answer = browser.submit("/posts/new", written(topics.open) | wrong)
        assert answer.status_code == 422, wrong
        assert 'aria-invalid="true"' in answer.text
        if "title" not in wrong:
            assert NEWS["title"] in answer.text
        if "body" not in wrong:
            assert NEWS["body"] in answer.text
        assert count(Post) == 0


def test_a_topic_that_one_does_not_see_cannot_be_written_in(people, topics, sign_in):
    answer = sign_in(people.stranger).submit("/posts/new", written(topics.private))
    assert answer.status_code == 422
    assert count(Post) == 0
    with pytest.raises(ValidationError):
        add_post(people.stranger, topics.private)


def test_the_form_begins_with_the_topic_one_came_from(people, topics, sign_in):
    page = sign_in(people.member).get(f"/posts/new?topic={topics.private.slug}").text
    assert re.search(rf'<option [^>]*selected value="{topics.private.id}">', page)


def test_news_is_changed_by_its_author_and_by_editors(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    for who, status in (("reader", 403), ("stranger", 403), ("member", 303), ("editor", 303), ("admin", 303)):
        values = written(topics.open, body=f"Text of {who}", version=again(post).version)
        browser = sign_in(getattr(people, who))
        assert browser.get(f"/posts/{post.id}/edit").status_code == (200 if status == 303 else status)
        assert browser.submit(f"/posts/{post.id}/edit", values).status_code == status
    assert again(post).body == "Text of admin"
    assert post.version == 4
    assert post.author_id == people.member.id
    assert post.editor_id == people.admin.id


def test_a_handbook_page_is_not_its_former_editors_any_more(people, topics, sign_in):
    page = add_post(people.editor, topics.open, kind="page")
    User.set_role(people.admin, people.editor.id, Role.MEMBER)
    assert sign_in(people.editor).get(f"/posts/{page.id}/edit").status_code == 403
    with pytest.raises(Forbidden):
        Post.delete(people.editor, page.id)


def test_saving_what_stands_already_makes_no_version(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    values = {"title": post.title, "body": post.body, "topic": topics.open.id, "version": 1}
    assert sign_in(people.member).submit(f"/posts/{post.id}/edit", values).status_code == 303
    assert again(post).version == 1
    assert count(Revision, Revision.post_id == post.id) == 1


def test_somebody_elses_save_in_between_is_noticed_and_both_texts_are_shown(people, topics, sign_in):
    post, browser = add_post(people.member, topics.open), sign_in(people.member)
    edit_post(people.editor, post, title="Title of the editor", body="Editor's text")
    values = written(topics.open, title="My title", body="My own text", version=1)
    answer = browser.submit(f"/posts/{post.id}/edit", values)
    assert answer.status_code == 409
    for words in ("Title of the editor", "Editor&#39;s text", "My title", "My own text", "Editor"):
        assert words in answer.text
    assert again(post).title == "Title of the editor"
    version = re.search(r'name="version"[^>]*value="(\d+)"', answer.text)
    assert browser.submit(f"/posts/{post.id}/edit", values | {"version": version[1]}).status_code == 303
    assert again(post).title == "My title"
    assert post.version == 3


def test_of_two_saves_at_the_same_moment_one_wins_and_one_is_told(app, people, topics):
    post = add_post(people.member, topics.open)
    post_id, topic_id = post.id, topics.open.id

    def save(who: User):
        actor, data = SimpleNamespace(id=who.id), PostData("news", topic_id, who.name, who.name)
        return lambda: Post.save(actor, data, how="publish", post_id=post_id, version=1).version

    outcomes = together(app, save(people.member), save(people.editor), save(people.admin))
    assert sum(outcome == 2 for outcome in outcomes) == 1
    assert sum(isinstance(outcome, EditConflict) for outcome in outcomes) == 2
    assert again(post).version == 2
    assert count(Revision, Revision.post_id == post.id) == 2


def test_a_deleted_post_is_gone_and_comes_back_by_undo(people, topics, sign_in):
    post, browser = add_post(people.member, topics.open), sign_in(people.member)
    comment = add_comment(people.editor, post)
    answer = browser.submit(f"/posts/{post.id}/delete")
    assert (answer.status_code, answer.location) == (303, "/")
    home = browser.get("/").text
    assert f'formaction="/posts/{post.id}/restore"' in home
    assert post.id not in ids_in(home)
    for path in (f"/posts/{post.id}", f"/posts/{post.id}/edit", f"/comments/{comment.id}"):
        assert browser.get(path).status_code == 404
    assert browser.submit(f"/posts/{post.id}/comments", {"body": "Late"}).status_code == 404
    assert browser.submit(f"/posts/{post.id}/restore").status_code == 303
    assert browser.get(f"/posts/{post.id}").status_code == 200
    assert browser.get(f"/comments/{comment.id}").status_code == 302


def test_a_deleted_post_can_be_brought_back_by_its_author_and_editors_and_is_nothing_to_others(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    for who, status in (("reader", 403), ("stranger", 404), ("member", 303), ("editor", 303)):
        Post.delete(people.member, post.id)
        assert sign_in(getattr(people, who)).submit(f"/posts/{post.id}/restore").status_code == status
        assert (again(post).deleted_at is None) == (status == 303)


def test_deleting_and_restoring_again_does_nothing_more(people, topics):
    post = add_post(people.member, topics.open)
    for action in (Post.delete, Post.delete, Post.restore, Post.restore):
        action(people.member, post.id)
    assert count(Activity, Activity.action == "post.deleted") == 1
    assert count(Activity, Activity.action == "post.restored") == 1


def test_editors_pin_news_and_nobody_else_does(people, topics, sign_in):
    post, page = add_post(people.member, topics.open), add_post(people.editor, topics.open, kind="page")
    for who, status in (("reader", 403), ("member", 403), ("editor", 303)):
        assert sign_in(getattr(people, who)).submit(f"/posts/{post.id}/pin", {"pinned": "1"}).status_code == status
    assert again(post).pinned_at
    answer = sign_in(people.editor).submit(f"/posts/{page.id}/pin", {"pinned": "1"})
    assert answer.status_code == 422
    assert "Only posts can be pinned, not handbook pages." in answer.text
    sign_in(people.editor).submit(f"/posts/{post.id}/pin", {"pinned": "0"})
    assert again(post).pinned_at is None


# -- The same form twice -----------------------------------------------------------------------------------------------


def test_the_same_form_sent_twice_makes_one_post(people, topics, sign_in):
    values, browser = written(topics.open), sign_in(people.member)
    first, second = browser.submit("/posts/new", values), browser.submit("/posts/new", values)
    assert first.location == second.location
    assert count(Post) == count(Revision) == 1


def test_the_same_form_sent_twice_makes_one_comment(people, topics, sign_in):
    post, browser = add_post(people.member, topics.open), sign_in(people.member)
    values = {"body": "Well done", "form_id": secrets.token_hex(16)}
    first, second = (browser.submit(f"/posts/{post.id}/comments", values) for _ in range(2))
    assert first.location == second.location
    assert count(Comment) == 1
    assert again(post).comment_count == 1


def test_the_same_form_sent_twice_makes_one_topic(people, topics, sign_in):
    values, browser = {"name": "Garden", "form_id": secrets.token_hex(16)}, sign_in(people.editor)
    assert [browser.submit("/admin/topics", values).status_code for _ in range(2)] == [303, 303]
    assert count(Topic, Topic.name == "Garden") == 1


def test_somebody_elses_form_with_the_same_id_is_another_one(people, topics, sign_in):
    values = written(topics.open)
    first, second = (sign_in(who).submit("/posts/new", values) for who in (people.member, people.editor))
    assert first.location != second.location
    assert count(Post) == 2


@pytest.mark.parametrize("form_id", ["", "x", "g" * 32, "A" * 32, "a" * 31, "a" * 33])
def test_a_made_up_form_id_makes_a_post_each_time(people, topics, sign_in, form_id):
    browser = sign_in(people.member)
    for _ in range(2):
        assert browser.submit("/posts/new", written(topics.open, form_id=form_id)).status_code == 303
    assert count(Post) == 2


def test_the_same_form_sent_at_the_same_moment_makes_one_post_and_one_comment(app, people, topics):
    form_id, member = secrets.token_hex(16), SimpleNamespace(id=people.member.id)
    data = PostData("news", topics.open.id, "T", "B")
    made = together(app, *[lambda: Post.save(member, data, how="publish", form_id=form_id).id] * 6)
    assert len({*made}) == 1, made
    assert count(Post) == count(Revision) == 1
    said = together(app, *[lambda: Comment.create(member, made[0], body="B", form_id=form_id).id] * 6)
    assert len({*said}) == 1, said
    assert count(Comment) == 1
    assert db.session.get(Post, made[0], populate_existing=True).comment_count == 1


# -- Preview -----------------------------------------------------------------------------------------------------------


def test_a_preview_shows_the_text_and_saves_nothing(people, topics, sign_in):
    browser = sign_in(people.member)
    fragment = browser.submit("/posts/preview", {"body": "**bold** <script>x</script>"})
    assert fragment.status_code == 200
    assert "<strong>bold</strong>" in fragment.text
    assert "<script" not in fragment.text
    assert "<html" not in fragment.text
    page = browser.submit("/posts/new", written(topics.open, body="**bold**", preview="1"))
    assert page.status_code == 200
    assert "<strong>bold</strong>" in page.text
    assert "nothing is saved yet" in page.text
    assert NEWS["title"] in page.text
    assert count(Post) == 0


def test_a_preview_of_a_change_saves_nothing(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    values = written(topics.open, body="*other*", version=1, preview="1")
    page = sign_in(people.member).submit(f"/posts/{post.id}/edit", values)
    assert page.status_code == 200
    assert "<em>other</em>" in page.text
    assert again(post).version == 1


def test_a_preview_of_a_comment_saves_nothing_and_keeps_what_was_typed(people, topics, sign_in):
    browser, post = sign_in(people.member), add_post(people.member, topics.private)
    comment = add_comment(people.member, post)
    typed = {"body": "**bold** @stranger", "form_id": "5" * 32, "preview": "1"}
    for address, sent in (
        (f"/posts/{post.id}/comments", typed),
        (f"/comments/{comment.id}/edit", typed),
    ):
        page = browser.submit(address, sent)
        assert page.status_code == 200, address
        for words in ("nothing is saved yet", "<strong>bold</strong>", ">\r\n**bold** @stranger</textarea>"):
            assert words in page.text, (address, words)
        assert "Stranger can't see this topic" in page.text, address
    assert 'value="' + "5" * 32 + '"' in browser.submit(f"/posts/{post.id}/comments", typed).text, "the form's own id"
    assert (count(Comment), again(comment).edited_at) == (1, None)
    empty = browser.submit(f"/posts/{post.id}/comments", {"body": " ", "preview": "1"})
    assert (empty.status_code, "Write something first." in empty.text) == (422, True)


def test_the_fields_for_comments_say_what_they_take_and_screen_readers_hear_it(people, topics, sign_in):
    browser, post = sign_in(people.member), add_post(people.member, topics.open)
    comment = add_comment(people.member, post)
    for address in (f"/posts/{post.id}", f"/comments/{comment.id}/edit"):
        page = browser.get(address).text
        assert 'aria-describedby="body-help body-error"' in page, address
        assert re.search(r'id="body-help"[^>]*>[^<]*Markdown[^<]*\*\*bold\*\*[^<]*@', page), address
        tools = re.findall(r'data-format="(\w+)"', page)
        assert tools == ["bold", "italic", "list", "quote", "code", "link", "mention"], address


# -- The handbook ------------------------------------------------------------------------------------------------------


def rows_in(html: str) -> list[str]:
    return re.findall(r'<a class="row-main" href="/posts/\d+"[^>]*>(.*?)</a>', html)


def test_the_handbook_is_alphabetical_whatever_the_case_and_the_accents(people, topics, sign_in):
    ordered = ["alarm", "Ämter", "Anna", "ANTON", "École", "eis", "Zebra", "Ｚoo"]
    for title in ("Zebra", "École", "ANTON", "alarm", "Ｚoo", "eis", "Anna", "Ämter"):
        add_post(people.editor, topics.open, title, kind="page")
    add_post(people.member, topics.open, "News are not in it")
    assert rows_in(sign_in(people.reader).get("/handbook").text) == ordered


def test_the_handbook_goes_by_topic_in_the_teams_order_and_says_who_changed_what(people, topics, sign_in):
    add_post(people.editor, topics.open, "B", kind="page")
    page = add_post(people.editor, topics.private, "A", kind="page")
    edit_post(people.admin, page, body="Changed")
    html = sign_in(people.reader).get("/handbook").text
    assert rows_in(html) == ["B", "A"]
    assert "Admin, <time" in html
    Topic.move(people.editor, topics.private.id, up=True)
    assert rows_in(sign_in(people.reader).get("/handbook").text) == ["A", "B"]
    assert rows_in(sign_in(people.stranger).get("/handbook").text) == ["B"]


def test_a_handbook_of_many_pages_is_listed_whole_and_a_huge_one_says_that_it_is_not(people, topics, sign_in):
    many_posts(people.editor, topics.open, 500, "page", title="Same", title_key="same")
    all_pages = many_posts(people.editor, topics.private, 499, "page")
    html = sign_in(people.reader).get("/handbook").text
    assert [int(id_) for id_ in re.findall(r'row-main" href="/posts/(\d+)"', html)] == all_pages
    assert "The search" not in html
    many_posts(people.editor, topics.private, 2, "page")
    html = sign_in(people.reader).get("/handbook").text
    assert len(rows_in(html)) == 1000
    assert "Only the first 1,000 pages are listed here." in html


def test_a_page_of_the_handbook_is_on_neither_home_nor_its_topic(people, topics, sign_in):
    add_post(people.editor, topics.open, "The first page", kind="page")
    browser = sign_in(people.reader)
    assert not ids_in(browser.get("/").text)
    assert not ids_in(browser.get("/topics/everyone").text)
    assert "The first page" in browser.get("/people/editor").text
    assert "Changed in the handbook" in browser.get("/").text


# -- Topics ------------------------------------------------------------------------------------------------------------


def write_into(author, topic_id: int, _post_id: int, how: str = "publish") -> int:
    data = PostData("news", topic_id, "A", "B")
    return Post.save(author, data, how=how, form_id=secrets.token_hex(16)).id


def move_into(author, topic_id: int, post_id: int) -> int:
    return Post.save(author, PostData("news", topic_id, "A", "B"), how="publish", post_id=post_id, version=1).id


def begin_in(author, topic_id: int, post_id: int) -> int:
    return write_into(author, topic_id, post_id, how="draft")


@pytest.mark.parametrize("write", [write_into, move_into, begin_in])
def test_what_is_written_while_its_topic_is_merged_goes_with_it(app, people, topics, monkeypatch, write):
    editor, garden, into = SimpleNamespace(id=people.editor.id), add_topic(people.editor, "Garden").id, topics.open.id
    post, author = add_post(people.member, topics.open).id, SimpleNamespace(id=people.member.id, role=Role.MEMBER)
    flush, merged = db.session.flush, threading.Event()

    def merge() -> None:
        with app.app_context():
            corkboard.g.now = database.utcnow()
            Topic.merge(editor, garden, into)
            merged.set()

    merging = threading.Thread(target=merge)

    def merge_before_flush() -> None:  # the topic has been looked at, and nothing is written yet
        if not merging.ident:
            merging.start()
            merged.wait(0.3)  # in vain, where it waits for what is being written
        flush()

    monkeypatch.setattr(db.session, "flush", merge_before_flush)
    written = write(author, garden, post)
    merging.join(20)
    assert merged.is_set()
    db.session.rollback()
    assert db.session.scalar(sa.select(Post.topic_id).where(Post.id == written)) == into
    assert db.session.scalar(Post.visible_to(author).where(Post.id == written)) is not None


def test_beside_publish_stands_how_many_will_see_it(people, topics, sign_in):
    User.deactivate(people.admin, people.reader.id)
    page = sign_in(people.member).get("/posts/new").text
    seen = re.findall(r'data-seen-by="([^"]+)"', page)
    alone = "Will be seen by 3 people in Management, and by no one else."
    assert seen == ["Will be seen by 4 people in Everyone.", alone]
    audiences = Topic.audiences(people.stranger)
    assert [(topic.name, topic.people) for topic in audiences.values()] == [("Everyone", 4)]


# -- Who sees what -----------------------------------------------------------------------------------------------------


@pytest.fixture
def secret(people, topics):
    """News, a page and a comment in the private topic, all pinned, with words that appear nowhere else."""
    post = add_post(people.member, topics.private, "Hush-hush news", body="Hush-hush text")
    page = add_post(people.editor, topics.private, "Hush-hush page", kind="page", body="Hush-hush text")
    Post.pin(people.editor, post.id, True)
    return SimpleNamespace(post=post, page=page, comment=add_comment(people.member, post, "Hush-hush remark"))


@pytest.mark.parametrize(
    "path", ["/", "/handbook", "/topics/everyone", "/people/member", "/people/editor", "/posts/new"]
)
def test_no_page_shows_a_stranger_anything_of_a_private_topic(secret, people, topics, sign_in, path):
    add_post(people.member, topics.open, "For everybody")
    page = sign_in(people.stranger).get(path)
    assert page.status_code == 200
    for word in ("hush-hush", "management"):
        assert word not in page.text.lower()
    inside = sign_in(people.reader if path != "/posts/new" else people.member).get(path).text.lower()
    assert "hush-hush" in inside or "management" in inside or path == "/topics/everyone"


def test_to_a_stranger_every_address_of_a_private_topic_is_404(secret, people, topics, sign_in):
    stranger = sign_in(people.stranger)
    post, page, comment = secret.post.id, secret.page.id, secret.comment.id
    for path in (f"/posts/{post}", f"/posts/{page}", f"/posts/{post}/edit", f"/comments/{comment}",
                 f"/comments/{comment}/edit", f"/topics/{topics.private.slug}"):  # fmt: skip
        assert stranger.get(path).status_code == 404, path
    for path in (f"/posts/{post}/edit", f"/posts/{post}/delete", f"/posts/{post}/restore",
                 f"/posts/{post}/comments", f"/comments/{comment}/edit", f"/comments/{comment}/delete",
                 f"/comments/{comment}/restore"):  # fmt: skip
        assert stranger.submit(path, {"body": "Text", "title": "T", "version": "1"}).status_code == 404, path
    Post.delete(people.editor, post)
    assert stranger.submit(f"/posts/{post}/restore").status_code == 404


def test_an_author_who_is_taken_out_of_a_topic_sees_their_own_posts_no_more(secret, people, topics, sign_in):
    Topic.remove_member(people.editor, topics.private.id, people.member.id)
    browser = sign_in(people.member)
    assert browser.get(f"/posts/{secret.post.id}").status_code == 404
    assert browser.submit(f"/posts/{secret.post.id}/delete").status_code == 404
    assert "Hush-hush" not in browser.get("/people/member").text


def test_a_post_that_moves_into_a_private_topic_is_gone_for_strangers(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    values = {"title": "T", "body": "B", "topic": topics.private.id, "version": 1}
    assert sign_in(people.member).submit(f"/posts/{post.id}/edit", values).status_code == 303
    assert sign_in(people.stranger).get(f"/posts/{post.id}").status_code == 404


# -- Activity ----------------------------------------------------------------------------------------------------------


def an_open_post(s):
    return add_post(s.people.member, s.topics.open)


def its_comment(s):
    return add_comment(s.people.member, an_open_post(s))


def a_deleted_post(s):
    post = an_open_post(s)
    Post.delete(s.people.member, post.id)
    return post


def a_deleted_comment(s):
    comment = its_comment(s)
    Comment.delete(s.people.member, comment.id)
    return comment


def a_must_read(s):
    post = an_open_post(s)
    corkboard.Acknowledgement.require(s.people.editor, post.id, roles=[*Role])
    return post


def a_pinned_post(s):
    post = an_open_post(s)
    Post.pin(s.people.editor, post.id, True)
    return post


def an_edited_post(s):
    post = an_open_post(s)
    edit_post(s.people.member, post, title="Another", body="Another text")
    return post


def a_page_to_look_at(s):
    return add_post(s.people.editor, s.topics.open, kind="page", owner_id=s.people.reader.id, review_every=6)


def a_new_topic(s):
    return add_topic(s.people.editor, "Garden")


def a_topic_without_the_admin(s):
    return add_topic(s.people.editor, "Secret", private=True)


def a_topic_with_the_reader(s):
    return add_topic(s.people.editor, "Secret", members=[s.people.reader.id])


def a_colleague(s):
    return s.people.member


def a_colleague_with_codes(s):
    set_columns(User, s.people.member.id, totp_secret="A" * 32)
    return s.people.member


def who_waits(s):
    return add_person("ole", awaits_approval=True)


def a_group(s):
    Group.save(s.people.admin, None, name="kitchen", member_ids=[s.people.reader.id])
    return db.session.scalars(sa.select(Group)).one()


def an_invitation(s):
    values = {"name": "", "email": None, "role": Role.MEMBER, "uses_most": 1, "topic_ids": []}
    return Invitation.create(s.people.admin, form_id="e" * 32, **values)[0]


def a_former_colleague(s):
    User.deactivate(s.people.admin, s.people.member.id)
    return s.people.member


def a_file(s):
    kept = corkboard.StoredFile("a.txt", "txt", 1, "", secrets.token_hex(16))
    return SimpleNamespace(id=Attachment.create(s.people.member, kept).id)


def a_removed_file(s):
    file = a_file(s)
    Attachment.delete(s.people.member, file.id)
    return file


def nothing(s):
    return None


# What stands before, who acts, the address ({} is its id, then a revision), the form, and the action that is written
# down.
ACTIONS = [
    (nothing, "member", "/posts/new", {"title": "T", "body": "B", "topic": "open"}, "post.published"),
    (an_open_post, "member", "/posts/{}/edit", {"title": "T", "body": "B", "topic": "open", "version": 1},
     "post.edited"),
    (an_open_post, "member", "/posts/{}/delete", {}, "post.deleted"),
    (a_deleted_post, "member", "/posts/{}/restore", {}, "post.restored"),
    (an_open_post, "editor", "/posts/{}/pin", {"pinned": 1}, "post.pinned"),
    (a_pinned_post, "editor", "/posts/{}/pin", {"pinned": 0}, "post.unpinned"),
    (an_open_post, "editor", "/posts/{}/must-read", {"audience": "all"}, "post.must_read"),
    (a_must_read, "editor", "/posts/{}/must-read/end", {}, "post.must_read_ended"),
    (a_must_read, "reader", "/posts/{}/acknowledge", {"revision": 1}, "post.acknowledged"),
    (a_must_read, "member", "/posts/{}/remind", {}, "post.reminded"),
    (an_open_post, "member", "/posts/{}/comments", {"body": "B"}, "comment.created"),
    (its_comment, "member", "/comments/{}/edit", {"body": "B"}, "comment.edited"),
    (its_comment, "member", "/comments/{}/delete", {}, "comment.deleted"),
    (a_deleted_comment, "member", "/comments/{}/restore", {}, "comment.restored"),
    (an_open_post, "reader", "/posts/{}/react", {"add": "like"}, "reaction.added"),
    (its_comment, "reader", "/comments/{}/react", {"add": "like"}, "reaction.added"),
    (an_edited_post, "member", "/posts/{}/history/{}/restore", {"version": 2}, "post.edited"),
    (a_page_to_look_at, "reader", "/posts/{}/still-accurate", {}, "post.reviewed"),
    (nothing, "editor", "/admin/topics", {"name": "Kitchen"}, "topic.created"),
    (a_new_topic, "editor", "/admin/topics/{}", {"name": "Kitchen"}, "topic.edited"),
    (a_new_topic, "editor", "/admin/topics/{}/move", {"direction": "up"}, "topic.moved"),
    (a_new_topic, "editor", "/admin/topics/{}/merge", {"into": "open"}, "topic.merged"),
    (a_topic_without_the_admin, "admin", "/admin/topics/{}/join", {}, "topic.joined"),
    (a_new_topic, "editor", "/admin/topics/{}/private", {}, "topic.closed"),
    (a_topic_without_the_admin, "editor", "/admin/topics/{}/open", {}, "topic.opened"),
    (a_topic_without_the_admin, "editor", "/admin/topics/{}/members", {"user": "reader"}, "topic.member_added"),
    (a_topic_with_the_reader, "editor", "/admin/topics/{}/members/{reader}/remove", {}, "topic.member_removed"),
    (nothing, "member", "/files", {"upload": (str(Path(__file__)), "notes.txt")}, "attachment.uploaded"),
    (a_file, "member", "/files/{}/delete", {}, "attachment.deleted"),
    (a_removed_file, "member", "/files/{}/restore", {}, "attachment.restored"),
    (nothing, "reader", "/account", {"name": "Reader"}, "person.profile"),
    (nothing, "reader", "/account/appearance", {"theme": "dark"}, "person.appearance"),
    (nothing, "reader", "/account/notifications", dict.fromkeys(corkboard.KINDS, "none"), "person.notifications"),
    (an_open_post, "reader", "/posts/{}/follow", {"state": "following"}, "post.followed"),
    (nothing, "reader", "/account/password",
     {"current": "seven green bottles", "password": "eight green bottles", "confirm": "eight green bottles"},
     "person.password"),
    (nothing, "reader", "/account/sessions/end-others", {}, "person.signed_out"),
    (nothing, "reader", "/logout", {}, "person.signed_out"),
    (nothing, "admin", "/admin/people/new", {"name": "Ana", "username": "ana", "role": 20}, "person.added"),
    (nothing, "admin", "/admin/settings/look", {"accent": "green"}, "settings.changed"),
    (a_colleague, "admin", "/admin/people/{}", {"name": "Mia"}, "person.edited"),
    (a_colleague, "admin", "/admin/people/{}/role", {"role": 30}, "person.role"),
    (a_colleague, "admin", "/admin/people/{}/deactivate", {}, "person.deactivated"),
    (a_former_colleague, "admin", "/admin/people/{}/reactivate", {}, "person.reactivated"),
    (a_colleague, "admin", "/admin/people/{}/link", {}, "person.link"),
    (a_colleague_with_codes, "admin", "/admin/people/{}/second-factor", {}, "person.second_factor_reset"),
    (a_colleague, "admin", "/admin/people/{}/export", {}, "person.exported"),
    (nothing, "reader", "/account/export", {}, "person.exported"),
    (a_colleague, "admin", "/admin/people/{}/erase", {}, "person.erased"),
    (who_waits, "admin", "/admin/people/{}/reactivate", {}, "person.approved"),
    (who_waits, "admin", "/admin/people/{}/decline", {}, "person.declined"),
    (nothing, "admin", "/admin/people/import", {"text": "name,email\nAna,ana@example.com", "add": "1"}, "person.added"),
    (nothing, "admin", "/admin/invitations", {"role": 20, "uses_most": 5}, "invitation.created"),
    (an_invitation, "admin", "/admin/invitations/{}/withdraw", {}, "invitation.withdrawn"),
    (nothing, "admin", "/admin/groups", {"name": "kitchen"}, "group.saved"),
    (a_group, "admin", "/admin/groups/{}", {"member_ids": "reader"}, "group.saved"),
    (a_group, "admin", "/admin/groups/{}/delete", {}, "group.deleted"),
]  # fmt: skip


def named(value) -> str:
    """The same in every process, which the address of a function in memory is not."""
    return getattr(value, "__name__", str(value)[:40])


@pytest.mark.parametrize(("before", "who", "path", "form", "action"), ACTIONS, ids=named)
def test_every_action_writes_down_who_did_it_on_what_and_from_where(
    app, people, topics, sign_in, before, who, path, form, action
):
    subject = before(SimpleNamespace(people=people, topics=topics))
    subject_id = subject.id if subject else None
    actor, browser = getattr(people, who), sign_in(getattr(people, who))
    last = db.session.scalar(sa.select(sa.func.max(Activity.id)))
    ids = {"open": topics.open.id, "reader": people.reader.id}
    sent = {name: ids.get(value, value) for name, value in form.items()}
    address = path.format(subject_id, 1, reader=people.reader.id)
    with browser.submit(address, sent, environ_base={"REMOTE_ADDR": "192.0.2.7"}) as answer:
        assert answer.status_code in (200, 303)
    db.session.rollback()
    written_down = db.session.scalars(sa.select(Activity).where(Activity.id > last).order_by(Activity.id)).all()
    row = next(row for row in written_down if row.action == action)
    assert (row.actor_id, row.address) == (actor.id, "192.0.2.7")
    kinds = {"person": "user", "settings": "setting", "reaction": type(subject).__name__.lower()}
    kind = action.partition(".")[0]
    assert row.object_type == kinds.get(kind, kind)
    if subject is not None and action != "comment.created":
        assert row.object_id == subject_id


def test_every_posting_view_stands_in_the_table_of_actions():
    app_posts = {
        rule.rule
        for rule in corkboard.create_app("testing").url_map.iter_rules()
        if "POST" in (rule.methods or ()) and rule.endpoint not in UNRECORDED and not rule.endpoint.startswith("api.")
    }
    told = {re.sub(r"{\w+}", "{}", path) for _, _, path, _, _ in ACTIONS}
    assert {re.sub(r"<int:\w+>", "{}", rule) for rule in app_posts} == told


# Recorded too, and shown by other tests: signing in (test_access.py, test_signin.py, test_company_account.py), joining
# (test_invitations.py) and setting up. A preview changes nothing, and nobody else sees what is kept of a draft while it
# is typed.
# The bin and what goes into it as a topic: test_bin.py. Following a topic, and reading: test_notifications.py. Tokens:
# test_api.py. The order of the handbook: test_handbook.py. Backups: test_backup.py. Email: test_mail.py. Jobs:
# test_admin.py. Sections of the settings: test_people.py.
UNRECORDED = {
    "notifications.follow_topic", "notifications.read_all",
    "admin.empty_bin", "admin.save_settings", "topics.delete", "topics.restore",
    "posts.autosave", "posts.arrange",
    "auth.setup", "auth.login", "auth.login_code", "auth.reset", "auth.reset_by_link", "auth.start_oidc",
    "auth.register", "auth.accept_invitation", "account.security", "account.end_session", "posts.preview",
    "account.tokens", "account.revoke_token",
    "auth.restore_backup", "admin.backups", "admin.download_backup",
    "account.unsubscribe", "admin.mail", "admin.send_again", "admin.run_job",
}  # fmt: skip


def test_what_was_refused_is_not_written_down(people, topics):
    post, last = add_post(people.member, topics.open), count(Activity)
    refused = [
        lambda: Post.delete(people.stranger, post.id),
        lambda: Post.pin(people.member, post.id, True),
        lambda: edit_post(people.member, post, version=7, body="B"),
        lambda: Comment.create(people.reader, post.id, body="B", form_id=secrets.token_hex(16)),
        lambda: Topic.create(people.member, name="X", form_id=secrets.token_hex(16)),
        lambda: Setting.change(people.editor, name="X"),
    ]
    for action in refused:
        with pytest.raises((Forbidden, EditConflict)):
            action()
    assert count(Activity) == last
    assert again(post).comment_count == 0


def test_what_a_topic_change_does_to_sidebars_is_seen_at_once(people, topics, sign_in):
    browser = sign_in(people.reader)
    assert "Garden" not in browser.get("/").text
    add_topic(people.editor, "Garden")
    assert "Garden" in browser.get("/").text
    page = add_post(people.editor, topics.open, "How to dig", kind="page")
    assert "How to dig" in browser.get("/").text
    Post.delete(people.editor, page.id)
    assert "How to dig" not in browser.get("/").text


def test_whoever_cannot_comment_is_told_why(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    draft = add_post(people.member, topics.open, how="draft")
    why = "To comment, ask an administrator to make you a member."
    assert why in sign_in(people.reader).get(f"/posts/{post.id}").text
    page = sign_in(people.member).get(f"/posts/{post.id}").text
    assert why not in page
    assert "Your comment" in page
    page = sign_in(people.member).get(f"/posts/{draft.id}").text
    assert "Comments open when this is published." in page
    assert "Your comment" not in page


def test_the_header_says_where_one_is(people, topics, sign_in):
    news, page = (add_post(people.editor, topics.open, "T", kind=kind) for kind in ("news", "page"))
    browser = sign_in(people.editor)

    def place(address: str) -> list[str]:
        header = browser.get(address).text.partition("<header")[2].partition("</header>")[0]
        return re.findall(r'href="([^"]+)"[^>]* aria-current="page"', header)

    for address in (
        "/",
        "/topics",
        "/topics/everyone",
        "/posts/new",
        *(f"/posts/{news.id}{path}" for path in SUB_PAGES),
    ):
        assert place(address) == ["/"], address
    for address in ("/handbook", "/posts/new?kind=page", *(f"/posts/{page.id}{path}" for path in SUB_PAGES)):
        assert place(address) == ["/handbook"], address
    for address in ("/people", "/people/member"):
        assert place(address) == ["/people"], address
    assert place("/notifications") == ["/notifications"]
    assert place("/account") == []


SUB_PAGES = ("", "/edit", "/history", "/must-read")


# -- What a text may be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("title", ["\u202e", "\u200b\u200d", "\u3164", "\u2800 \u00ad", "\ufe0f"])
def test_a_title_of_invisible_characters_is_refused(people, topics, sign_in, title):
    browser = sign_in(people.member)
    answer = browser.submit("/posts/new", {"kind": "news", "title": title, "body": "x", "topic": topics.open.id})
    assert answer.status_code == 422
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Post)) == 0


def test_a_title_loses_what_turns_its_direction(people, topics, sign_in):
    typed = {"kind": "news", "title": "Invoice \u202efdp.exe\u202c", "body": "x", "topic": topics.open.id}
    sign_in(people.member).submit("/posts/new", typed)
    assert db.session.scalar(sa.select(Post.title)) == "Invoice fdp.exe"


def test_a_text_that_is_too_complex_comes_back_with_the_reason(people, topics, sign_in):
    browser, body = sign_in(people.member), "- a\n" * 25_000
    answer = browser.submit("/posts/new", {"kind": "news", "title": "List", "body": body, "topic": topics.open.id})
    assert answer.status_code == 422
    assert "too complex" in answer.text
    assert answer.text.count("- a\n") > 20_000
    preview = browser.submit("/posts/preview", {"body": body})
    assert (preview.status_code, "too complex" in preview.text) == (200, True)


def test_titles_names_and_fields_run_in_their_own_direction(people, topics, sign_in):
    post = add_post(people.member, topics.open, "مرحبا", body="مرحبا")
    browser = sign_in(people.member)
    page = browser.get(f"/posts/{post.id}").text
    for part in (
        '<h1 dir="auto">مرحبا</h1>',
        '<p dir="auto">مرحبا</p>',
        f'href="/people/member" dir="auto">{people.member.name}',
    ):
        assert part in page
    assert re.search(r'<h2 dir="auto"><a href="/posts/\d+">مرحبا', browser.get("/").text)
    for field in ("title", "body"):
        assert re.search(rf'<(?:input|textarea)[^>]*dir="auto"[^>]*name="{field}"', browser.get("/posts/new").text)
