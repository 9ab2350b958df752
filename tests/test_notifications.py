"""Who is told of what and who is not, the bell and its poll, the choices, and what is new to whom."""

from __future__ import annotations

import html
import re
from datetime import date, datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from conftest import add_comment, add_person, add_post, background, edit_post, together
from test_database import counted
from test_posts import again, many_comments
from world import set_columns, value

import app as corkboard
from app import (
    Acknowledgement,
    Activity,
    Comment,
    Follow,
    Forbidden,
    Notification,
    NotVisible,
    PageReview,
    Post,
    Reaction,
    ReadMark,
    Role,
    SignIn,
    Topic,
    User,
)
from database import db

pytestmark = pytest.mark.usefixtures("cheap_hashes")

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def clock(monkeypatch):
    """The application's time, which stands still until a test moves it."""
    clock = SimpleNamespace(now=datetime(2026, 3, 2, 9, 0))
    monkeypatch.setattr(corkboard, "utcnow", lambda: clock.now)
    return clock


@pytest.fixture
def names(people):
    """Everybody's username by their id."""
    return {person.id: name for name, person in vars(people).items()}


@pytest.fixture
def tell(people, names):
    """Tell what happened; who was told what of it, newly."""

    def run() -> set[tuple[str, str]]:
        last = value(sa.select(sa.func.max(Notification.id))) or 0
        Notification.tell()
        return {(names.get(row.user_id, "?"), row.kind) for row in told() if row.id > last}

    return run


def told() -> list:
    with db.engine.connect() as connection:
        return list(connection.execute(sa.select(Notification.__table__).order_by(Notification.id)))


def edit(editor: User, post: Post, body: str, **wishes) -> None:
    edit_post(editor, post, body=body, **wishes)


def bell(browser) -> int:
    found = re.search(r'aria-label="Notifications, (\w+) unread"', browser.get("/people").text)
    return 0 if found[1] == "none" else int(found[1])


def unread_on_page(browser) -> list[str]:
    page = browser.get("/notifications").text
    items = re.findall(r'(?s)<li class="is-unread">.*?<a class="told-what" href="([^"]+)">(.*?)</a>', page)
    return [html.unescape(" ".join(re.sub(r"<[^>]+>", "", words).split())) for _address, words in items]


# -- Who is told of what -----------------------------------------------------------------------------------------------


def test_who_follows_a_topic_is_told_of_its_new_posts_and_pages(people, topics, tell):
    for who in (people.reader, people.editor, people.member):
        Follow.choose(who, "following", topic_id=topics.open.id)
    assert tell() == set()
    add_post(people.member, topics.open)
    assert tell() == {("reader", "post"), ("editor", "post")}
    add_post(people.editor, topics.open, kind="page")
    assert tell() == {("reader", "post"), ("member", "post")}
    add_post(people.editor, topics.private)
    assert tell() == set()


def test_a_draft_is_told_when_it_is_published_and_a_scheduled_post_when_it_appears(people, topics, tell, clock):
    Follow.choose(people.reader, "following", topic_id=topics.open.id)
    post = add_post(people.member, topics.open, how="draft")
    soon = add_post(people.member, topics.open, "Soon", scheduled_for=clock.now + DAY)
    assert tell() == set()
    edit(people.member, post, "Now it is out.")
    assert tell() == {("reader", "post")}
    edit(people.member, soon, "Later than I said.", scheduled_for=clock.now + 2 * DAY)
    clock.now += DAY
    assert (Post.publish_due(), tell()) == (0, set())
    clock.now += DAY
    assert (Post.publish_due(), tell()) == (1, {("reader", "post")})
    assert told()[-1].created_at == clock.now, "of when it appeared, not of when that was decided"
    assert len(told()) == 2
    assert tell() == set()


def test_comments_are_told_to_the_author_and_to_who_commented_or_follows(people, topics, tell):
    post = add_post(people.member, topics.open)
    tell()
    add_comment(people.editor, post)
    assert tell() == {("member", "comment")}
    Follow.choose(people.reader, "following", post_id=post.id)
    add_comment(people.stranger, post)
    assert tell() == {("member", "comment"), ("editor", "comment"), ("reader", "comment")}
    add_comment(people.member, post)
    assert tell() == {("editor", "comment"), ("reader", "comment"), ("stranger", "comment")}


def test_the_page_of_what_one_has_just_published_says_that_one_follows_it(people, topics, sign_in):
    browser = sign_in(people.member)
    sent = {"topic": topics.open.id, "title": "Mine", "body": "Words"}
    assert " Unfollow</button>" in browser.get(browser.submit("/posts/new", sent).location).text


def test_who_muted_or_unfollowed_a_post_is_not_told_of_comments(people, topics, tell):
    post = add_post(people.member, topics.open)
    add_comment(people.editor, post)
    add_comment(people.stranger, post)
    tell()
    Follow.choose(people.member, "muted", post_id=post.id)
    Follow.choose(people.editor, "none", post_id=post.id)
    add_comment(people.admin, post)
    assert tell() == {("stranger", "comment")}
    add_comment(people.member, post, "I say something, but do not want to hear.")
    add_comment(people.admin, post)
    assert tell() == {("stranger", "comment"), ("admin", "comment")}


def test_who_muted_a_topic_hears_of_it_only_where_they_take_part(people, topics, tell):
    for who in (people.reader, people.member):
        Follow.choose(who, "muted", topic_id=topics.open.id)
    post = add_post(people.editor, topics.open)
    add_comment(people.member, post)
    tell()
    edit(people.editor, post, "Changed for all to see.", notify=True)
    assert tell() == {("member", "told"), ("admin", "told"), ("stranger", "told")}


def test_whoever_is_mentioned_is_told_once_and_of_nothing_else(people, topics, tell):
    Follow.choose(people.reader, "following", topic_id=topics.open.id)
    post = add_post(
        people.member, topics.open, body="Ask @reader and @editor, not `@admin`, and @nobody. I am @member."
    )
    assert tell() == {("reader", "mention"), ("editor", "mention")}
    add_comment(people.stranger, post, "Right, @MEMBER and @reader")
    assert tell() == {("member", "mention"), ("reader", "mention")}


def test_an_edit_of_a_comment_tells_only_who_is_mentioned_newly(people, topics, tell, clock):
    post = add_post(people.member, topics.open)
    comment = add_comment(people.member, post, "Ask @reader")
    tell()
    for body in ("Ask @reader again", "Ask @reader or @editor", "Ask @editor", "@reader it is"):
        clock.now += HOUR
        Comment.edit(people.member, comment.id, body=body)
    assert tell() == {("editor", "mention")}


def test_saving_quietly_tells_nobody_and_telling_again_everybody_who_sees_it(people, topics, tell):
    post = add_post(people.member, topics.private)
    tell()
    edit(people.member, post, "Quietly changed, @reader")
    assert tell() == set()
    edit(people.editor, post, "Changed for all to see", notify=True)
    assert tell() == {("reader", "told"), ("member", "told"), ("admin", "told")}
    edit(people.editor, post, "Ask @reader", notify=True)
    assert tell() == {("reader", "mention"), ("member", "told"), ("admin", "told")}


def test_must_read_is_told_to_who_owes_it_and_reminders_to_who_still_does(people, topics, tell, clock):
    post = add_post(people.member, topics.open)
    tell()
    Acknowledgement.require(people.editor, post.id, roles=[Role.READER, Role.EDITOR, Role.MEMBER])
    assert tell() == {("reader", "must_read"), ("stranger", "must_read")}
    Acknowledgement.acknowledge(people.reader, post.id, 1)
    Acknowledgement.remind(people.editor, post.id)
    assert tell() == {("stranger", "reminder")}
    edit(people.member, post, "Something else", require_again=True)
    assert tell() == {("reader", "must_read"), ("stranger", "must_read"), ("editor", "must_read")}


def test_what_must_be_read_and_appears_later_is_told_then_and_once(people, topics, tell, clock):
    Follow.choose(people.reader, "following", topic_id=topics.open.id)
    post = add_post(people.member, topics.open, scheduled_for=clock.now + DAY)
    Acknowledgement.require(people.editor, post.id, roles=[Role.READER])
    assert tell() == set()
    clock.now += DAY
    assert (Post.publish_due(), tell()) == (1, {("reader", "must_read")})


def test_the_owner_of_an_overdue_page_is_told_once_for_each_day_missed(people, topics, tell):
    page = add_post(people.editor, topics.open, kind="page", owner_id=people.reader.id, review_every=3)
    set_columns(Post, page.id, review_by=date(2026, 3, 1))
    tell()
    assert PageReview.notify_overdue(date(2026, 3, 1)) == 0
    assert PageReview.notify_overdue(date(2026, 3, 2)) == 1
    assert tell() == {("reader", "review")}
    assert PageReview.notify_overdue(date(2026, 3, 3)) == 0
    PageReview.verify(people.reader, page.id, date(2026, 3, 3))
    assert PageReview.notify_overdue(date(2026, 6, 3)) == 0
    assert PageReview.notify_overdue(date(2026, 6, 4)) == 1
    assert tell() == {("reader", "review")}


@pytest.mark.parametrize("on", ["post", "comment"])
def test_a_reaction_is_told_to_whose_words_they_are_unless_it_was_taken_back(people, topics, tell, on):
    post = add_post(people.member, topics.open)
    thing = {"post_id": post.id} if on == "post" else {"comment_id": add_comment(people.member, post).id}
    tell()
    Reaction.change(people.member, "like", True, **thing)
    for kind in ("like", "love"):
        Reaction.change(people.reader, kind, True, **thing)
    assert tell() == {("member", "reaction")}
    assert len(told()) == 2
    Reaction.change(people.reader, "like", False, **thing)
    assert tell() == set()
    assert len(told()) == 1, "the other one still stands"
    Reaction.change(people.stranger, "done", True, **thing)
    Reaction.change(people.stranger, "done", False, **thing)
    assert tell() == set()
    Follow.choose(people.member, "muted", post_id=post.id)
    Reaction.change(people.editor, "like", True, **thing)
    assert tell() == set()


def test_nobody_is_told_of_what_they_may_not_see(people, topics, tell):
    secret = add_post(people.editor, topics.private)
    db.session.execute(sa.insert(Follow).values(user_id=people.stranger.id, post_id=secret.id, state="following"))
    db.session.execute(
        sa.insert(Follow).values(user_id=people.stranger.id, topic_id=topics.private.id, state="following")
    )
    db.session.commit()
    add_comment(people.member, secret, "What does @stranger think?")
    add_post(people.editor, topics.private, body="@stranger")
    edit(people.editor, secret, "For all", notify=True)
    assert not {who for who, _kind in tell()} & {"stranger"}
    with pytest.raises(NotVisible):
        Follow.choose(people.stranger, "following", post_id=secret.id)
    with pytest.raises(NotVisible):
        Follow.choose(people.stranger, "following", topic_id=topics.private.id)


def test_who_left_is_not_told(people, topics, tell):
    post = add_post(people.member, topics.open)
    tell()
    set_columns(User, people.member.id, deactivated_at=corkboard.utcnow())
    add_comment(people.editor, post, "Where is @member?")
    assert tell() == set()
    with pytest.raises(Forbidden):
        Follow.choose(people.member, "following", post_id=post.id)


def test_what_was_deleted_before_it_was_told_is_not_told(people, topics, tell):
    post = add_post(people.member, topics.open)
    tell()
    comment = add_comment(people.editor, post, "Hello @reader")
    Comment.delete(people.editor, comment.id)
    assert tell() == set()
    add_comment(people.editor, post, "Hello @reader")
    Post.delete(people.member, post.id)
    assert tell() == set()


# -- Telling: driven by what was committed -----------------------------------------------------------------------------


def test_what_was_not_told_when_a_process_ended_is_told_by_the_next(app, people, topics, names):
    post = add_post(people.member, topics.open)
    add_comment(people.editor, post)
    app.extensions["corkboard"].telling.notes.clear()  # all that a process knew
    said = app.test_cli_runner().invoke(args=["jobs", "run", "tell"])
    assert "1 notification;" in said.output
    assert [names[row.user_id] for row in told()] == ["member"]


def test_two_processes_tell_once(app, people, topics):
    post = add_post(people.member, topics.open)
    Notification.tell()
    for number in range(30):
        add_comment(people.editor, post, f"Remark {number}")
    outcomes = together(app, *[lambda: Notification.tell()[0]] * 4)
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert sum(outcomes) == len(told()) == 30
    assert value(sa.select(sa.func.count()).where(Activity.pending.is_not(None))) == 0


def test_what_fails_leaves_everything_to_be_told(people, topics, monkeypatch):
    post = add_post(people.member, topics.open)
    Notification.tell()
    add_comment(people.editor, post, "Hello @reader")

    def fail(_source):
        raise OSError("no room")

    with monkeypatch.context() as broken:
        broken.setattr(corkboard, "mentioned_names", fail)
        with pytest.raises(OSError, match="no room"):
            Notification.tell()
    assert told() == []
    assert Notification.tell()[0] == 2


def test_two_hundred_people_are_told_by_as_many_statements_as_two(people, topics):
    def statements() -> int:
        add_post(people.member, topics.open)
        with counted() as sent:
            Notification.tell()
        return len(sent)

    Follow.choose(people.reader, "following", topic_id=topics.open.id)
    few = statements()
    crowd = [add_person(f"person{number}") for number in range(40)]
    db.session.execute(
        sa.insert(Follow), [{"user_id": one.id, "topic_id": topics.open.id, "state": "following"} for one in crowd]
    )
    db.session.commit()
    assert statements() == few <= 12
    assert len(told()) == 1 + 41


def test_a_comment_sends_no_statement_more_for_it(app, people, topics, sign_in):
    post = add_post(people.member, topics.open)
    browser = sign_in(people.editor)
    browser.submit(f"/posts/{post.id}/comments", {"body": "First"})
    with counted() as statements:
        browser.submit(f"/posts/{post.id}/comments", {"body": "Second, @reader"})
    changed = [statement.split()[:3] for statement, _ in statements if not statement.startswith("SELECT")]
    assert len(changed) == 3, "the count, the comment, the activity"


def test_a_thread_tells_soon_after_the_commit(app, people, topics, monkeypatch):
    post, telling = add_post(people.member, topics.open), app.extensions["corkboard"].telling
    add_comment(people.editor, post)
    assert telling.notes
    telling.flush()
    assert len(told()) == 1
    assert not telling.notes


# -- What is shown -----------------------------------------------------------------------------------------------------


def test_home_says_how_many_comments_are_new_where_one_follows(app, people, topics, sign_in):
    post = add_post(people.member, topics.open, "The oven is back")
    Notification.tell()
    for words in ("Good to know.", "And when, @member?"):
        add_comment(people.editor, post, words)
    Notification.tell()
    author, other = sign_in(people.member), sign_in(people.reader)
    assert "2 comments, <b>2 new</b>" in author.get("/").text
    assert "2 comments</span>" in other.get("/").text, "who does not follow it was told nothing"
    assert author.get(f"/posts/{post.id}").status_code == 200
    assert "2 comments</span>" in author.get("/").text, "at once, though it is written later"
    for buffer in background(app):
        buffer.flush()
    assert "2 comments</span>" in author.get("/").text


def test_the_bell_counts_threads_and_the_page_groups_by_thread_and_kind(app, people, topics, sign_in):
    post = add_post(people.member, topics.open, "The oven is back")
    for who in (people.stranger, people.editor, people.admin):
        add_comment(who, post, "Good to know.")
    Notification.tell()
    add_comment(people.admin, post, "Ask @member")
    Notification.tell()
    other = add_post(people.member, topics.open, "Another matter")
    add_comment(people.editor, other, "First")
    Notification.tell()
    browser = sign_in(people.member)
    assert bell(browser) == 2
    assert unread_on_page(browser) == [
        "Unread: Editor commented on Another matter",
        "Unread: Admin mentioned you in The oven is back",
        "Unread: Admin and 2 others commented on The oven is back",
    ]
    assert bell(sign_in(people.reader)) == 0


def test_two_people_are_both_named(people, topics, sign_in):
    post = add_post(people.member, topics.open, "The oven is back")
    add_comment(people.editor, post)
    add_comment(people.admin, post)
    Notification.tell()
    assert unread_on_page(sign_in(people.member)) == ["Unread: Admin and Editor commented on The oven is back"]


def test_opening_a_post_marks_its_thread_as_read_at_once_and_writes_it_soon(app, people, topics, sign_in):
    post = add_post(people.member, topics.open)
    comment = add_comment(people.editor, post)
    Notification.tell()
    browser, looks = sign_in(people.member), app.extensions["corkboard"].looks
    assert bell(browser) == 1
    assert f'href="/posts/{post.id}#comment-{comment.id}"' in browser.get("/notifications").text
    with counted() as statements:
        opened = browser.get(f"/posts/{post.id}").text
    assert all(statement.startswith("SELECT") for statement, _ in statements)
    assert "Notifications, none unread" in opened
    assert bell(browser) == 0
    assert unread_on_page(browser) == []
    assert told()[0].read_at is None
    looks.flush()
    assert told()[0].read_at is not None
    assert bell(browser) == 0
    assert unread_on_page(browser) == []
    add_comment(people.editor, post, "One more thing")
    Notification.tell()
    assert bell(browser) == 1


def test_what_was_opened_before_it_was_told_is_told_as_read(app, people, topics, sign_in):
    post = add_post(people.member, topics.open)
    add_comment(people.editor, post)
    sign_in(people.member).get(f"/posts/{post.id}")
    app.extensions["corkboard"].looks.flush()
    Notification.tell()
    assert [row.read_at is None for row in told()] == [False]
    assert bell(sign_in(people.member)) == 0


def test_all_can_be_marked_as_read(people, topics, sign_in):
    for _ in range(2):
        add_comment(people.editor, add_post(people.member, topics.open))
    Notification.tell()
    browser = sign_in(people.member)
    assert bell(browser) == 2
    assert browser.submit("/notifications/read").status_code == 303
    assert bell(browser) == 0
    assert unread_on_page(browser) == []
    assert value(sa.select(Activity.action).order_by(Activity.id.desc())) == "person.read_all"


def vanish_private(s):
    Topic.make_private(s.people.editor, s.topics.open.id)


def vanish_deleted(s):
    Post.delete(s.people.editor, s.post.id)


def vanish_comment(s):
    Comment.delete(s.people.editor, s.comment.id)


def vanish_topic(s):
    Topic.delete(s.people.editor, s.topics.open.id)


def vanish_draft(s):
    set_columns(Post, s.post.id, published_at=None)
    corkboard.state().found.clear()  # as an action would, which records an activity


@pytest.mark.parametrize("vanish", [vanish_private, vanish_deleted, vanish_comment, vanish_topic, vanish_draft])
def test_what_one_may_see_no_more_counts_nowhere(app, people, topics, sign_in, vanish):
    corkboard.Topic.create(people.editor, form_id="0" * 32, name="Another")
    post = add_post(people.editor, topics.open, "Soon gone")
    comment = add_comment(people.editor, post, "Hello @reader")
    Notification.tell()
    browser = sign_in(people.reader)
    assert bell(browser) == 1
    vanish(SimpleNamespace(people=people, topics=topics, post=post, comment=comment))
    assert bell(browser) == 0
    assert "Soon gone" not in browser.get("/notifications").text
    assert browser.get("/notifications/poll").json["unread"] == 0


def test_what_expired_is_still_told(people, topics, sign_in):
    post = add_post(people.editor, topics.open)
    add_comment(people.editor, post, "Hello @reader")
    Notification.tell()
    set_columns(Post, post.id, expires_at=corkboard.utcnow() - DAY)
    assert bell(sign_in(people.reader)) == 1


def test_pages_of_notifications_follow_one_another(people, topics, sign_in):
    titles = [f"Matter {number}" for number in range(25)]
    for title in titles:
        add_comment(people.editor, add_post(people.member, topics.open, title))
    Notification.tell()
    browser = sign_in(people.member)
    first = browser.get("/notifications").text
    older = browser.get(html.unescape(re.search(r'href="(/notifications\?before=[^"]+)"', first)[1])).text
    shown = [re.findall(r"<cite>(.*?)</cite>", page) for page in (first, older)]
    assert [len(page) for page in shown] == [20, 5]
    assert shown[0] + shown[1] == titles[::-1]
    assert browser.get("/notifications?before=nonsense").status_code == 200


def test_a_comment_far_up_is_reached_by_its_own_address(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    first = add_comment(people.editor, post)
    many_comments(people.editor, post, 60)
    Notification.tell()
    browser = sign_in(people.member)
    assert f'href="/comments/{first.id}"' in browser.get("/notifications").text
    set_columns(Post, post.id, comment_count=61)
    assert browser.get(f"/comments/{first.id}").status_code == 302


def test_an_empty_page_says_how_to_hear_of_something(people, sign_in):
    page = sign_in(people.reader).get("/notifications").text
    assert "choose Follow" in page
    assert "/account/notifications" in page


# -- The poll ----------------------------------------------------------------------------------------------------------


def test_a_poll_whose_answer_has_not_changed_is_304_and_costs_one_statement(app, people, topics, sign_in):
    post = add_post(people.member, topics.open)
    browser = sign_in(people.member)
    first = browser.get("/notifications/poll")
    assert first.json == {"unread": 0, "newest": 0}
    assert first.headers["Cache-Control"] == "private, no-cache"
    for tag in (first.headers["ETag"], f"W/{first.headers['ETag']}"):
        with counted() as statements:
            same = browser.get("/notifications/poll", headers={"If-None-Match": tag})
        assert (same.status_code, same.data) == (304, b"")
        assert same.headers["ETag"] == first.headers["ETag"]
        assert same.headers["Cache-Control"] == "private, no-cache"
        assert [statement.split()[0] for statement, _ in statements] == ["SELECT"]
    add_comment(people.editor, post)
    Notification.tell()
    changed = browser.get("/notifications/poll", headers={"If-None-Match": first.headers["ETag"]})
    assert changed.json["unread"] == 1
    browser.get(f"/posts/{post.id}")
    read = browser.get("/notifications/poll", headers={"If-None-Match": changed.headers["ETag"]})
    assert read.json["unread"] == 0


def test_a_poll_is_no_visit_and_keeps_no_sign_in_alive(app, people, sign_in, clock):
    browser, visits = sign_in(people.reader), app.extensions["corkboard"].visits
    assert browser.get("/notifications/poll").status_code == 200
    assert not visits.notes
    browser.get("/")
    visits.flush()
    for _ in range(25):
        clock.now += HOUR / 2
        answer = browser.get("/notifications/poll")
    assert answer.status_code == 302
    assert not visits.notes
    assert value(sa.select(SignIn.last_used_at).where(SignIn.user_id == people.reader.id)) == datetime(2026, 3, 2, 9, 0)


# -- Choices -----------------------------------------------------------------------------------------------------------


def test_each_kind_can_be_had_in_the_site_by_mail_too_or_not_at_all(people, topics, sign_in, names):
    post = add_post(people.member, topics.open)
    browser = sign_in(people.member)
    sent = dict.fromkeys(corkboard.KINDS, "site")
    for way, wanted in (("none", []), ("site", [False]), ("mail", [True])):
        assert browser.submit("/account/notifications", sent | {"comment": way}).status_code == 303
        assert Notification.choices(people.member)["comment"] == way
        last = value(sa.select(sa.func.max(Notification.id))) or 0
        add_comment(people.editor, post)
        Notification.tell()
        assert [row.mail_wanted for row in told() if row.id > last] == wanted
    page = browser.get("/account/notifications").text
    assert page.count("<select") == len(corkboard.KINDS)
    assert browser.submit("/account/notifications", sent | {"comment": "loud"}).status_code == 422


def test_without_a_choice_what_is_meant_for_one_comes_by_mail_too(people, topics):
    post = add_post(people.editor, topics.open)
    add_comment(people.member, post, "Hello @reader")
    Notification.tell()
    assert {row.kind: row.mail_wanted for row in told()} == {"mention": True, "comment": False}


def test_every_kind_has_its_words(people):
    form = corkboard.NotificationsForm
    assert all(hasattr(form, kind) for kind in corkboard.KINDS)
    assert {*corkboard.SAID} == {*corkboard.KINDS, "reminder"}


def test_what_was_read_long_ago_is_forgotten(people, topics):
    post = add_post(people.member, topics.open)
    for _ in range(3):
        add_comment(people.editor, post)
    Notification.tell()
    old, recent, unread = [row.id for row in told()]
    set_columns(Notification, old, read_at=corkboard.utcnow() - 91 * DAY)
    set_columns(Notification, recent, read_at=corkboard.utcnow() - 89 * DAY)
    assert corkboard.forget_notifications() == "1 notification forgotten that was read long ago."
    assert {row.id for row in told()} == {recent, unread}
    set_columns(Notification, unread, created_at=corkboard.utcnow() - 364 * DAY)
    corkboard.forget_notifications()
    assert len(told()) == 2
    set_columns(Notification, unread, created_at=corkboard.utcnow() - 366 * DAY)
    corkboard.forget_notifications()
    assert {row.id for row in told()} == {recent}


# -- Following ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", ["post", "topic"])
def test_following_and_muting_by_the_buttons(people, topics, sign_in, thing):
    post = add_post(people.member, topics.open)
    address = f"/posts/{post.id}" if thing == "post" else "/topics/everyone"
    browser = sign_in(people.reader)
    for state, button in (("following", "Unfollow"), ("muted", "Unmute"), ("none", "Follow"), ("none", "Follow")):
        answer = browser.submit(f"{address}/follow", {"state": state})
        assert (answer.status_code, answer.location) == (303, address)
        assert f" {button}</button>" in browser.get(address).text
    assert browser.submit(f"{address}/follow", {"state": "loudly"}).status_code == 422
    recorded = db.session.scalars(sa.select(Activity.action).where(Activity.actor_id == people.reader.id)).all()
    assert recorded[-3:] == [f"{thing}.followed", f"{thing}.muted", f"{thing}.unfollowed"]


def test_who_commented_sees_at_once_that_they_follow(people, topics, sign_in):
    post, other = add_post(people.member, topics.open), add_post(people.member, topics.open)
    browser, address = sign_in(people.editor), f"/posts/{post.id}"
    browser.get(address)
    browser.submit(f"{address}/comments", {"body": "Good"})
    for _ in ("before they are told", "after that"):
        assert " Unfollow</button>" in browser.get(address).text
        assert " Follow</button>" in browser.get(f"/posts/{other.id}").text
        assert " Follow</button>" in sign_in(people.admin).get(address).text
        corkboard.tell_pending()
    browser.submit(f"{address}/follow", {"state": "none"})
    assert " Follow</button>" in browser.get(address).text, "what they said before does not count against them"


def test_who_unfollows_right_after_their_comment_does_not_follow(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    browser = sign_in(people.editor)
    browser.submit(f"/posts/{post.id}/comments", {"body": "Good"})
    browser.submit(f"/posts/{post.id}/follow", {"state": "none"})
    for _ in range(2):
        assert " Follow</button>" in browser.get(f"/posts/{post.id}").text
        corkboard.tell_pending()


def test_who_commented_on_what_they_muted_sees_that_it_is_muted(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    Follow.choose(people.editor, "muted", post_id=post.id)
    browser = sign_in(people.editor)
    browser.submit(f"/posts/{post.id}/comments", {"body": "Good"})
    assert " Unmute</button>" in browser.get(f"/posts/{post.id}").text
    corkboard.tell_pending()
    assert " Unmute</button>" in browser.get(f"/posts/{post.id}").text


def test_who_follows_a_topic_follows_the_one_that_it_is_merged_into(people, topics, tell):
    other = corkboard.Topic.create(people.editor, form_id="0" * 32, name="Another")
    Follow.choose(people.reader, "following", topic_id=other.id)
    Follow.choose(people.member, "following", topic_id=other.id)
    Follow.choose(people.member, "muted", topic_id=topics.open.id)
    Topic.merge(people.editor, other.id, topics.open.id)
    add_post(people.editor, topics.open)
    assert tell() == {("reader", "post")}


def test_what_is_removed_for_good_takes_all_of_this_with_it(people, topics):
    post, other = add_post(people.member, topics.open), add_post(people.member, topics.open)
    add_comment(people.editor, post)
    Notification.tell()
    ReadMark.write({(people.reader.id, post.id): corkboard.utcnow()})
    gone, there, reader = post.id, other.id, people.reader.id
    Post.delete(people.member, gone)
    corkboard.Bin.empty(None, corkboard.utcnow())
    assert told() == []
    moment = corkboard.utcnow()
    ReadMark.write({(reader, gone): moment, (reader, there): moment})
    ReadMark.write({(reader, gone): moment})
    assert value(sa.select(sa.func.count()).select_from(ReadMark)) == 1


# -- What is new -------------------------------------------------------------------------------------------------------


def test_a_post_is_new_until_it_is_opened_and_again_after_a_comment(app, people, topics, sign_in, clock):
    visits, looks = app.extensions["corkboard"].visits, app.extensions["corkboard"].looks
    browser = sign_in(people.reader, remember=True)
    browser.get("/")
    visits.flush()
    clock.now += HOUR
    post = add_post(people.member, topics.open)
    page = add_post(people.editor, topics.open, kind="page")

    def new() -> list[int]:
        clock.now += timedelta(seconds=1)
        return [
            browser.get(address).text.count('<b class="new">') for address in ("/", "/topics/everyone", "/handbook")
        ]

    assert new() == [1, 1, 1]
    browser.get(f"/posts/{post.id}")
    assert new() == [0, 0, 1]
    browser.get(f"/posts/{page.id}")
    assert new() == [0, 0, 0]
    looks.flush()
    assert new() == [0, 0, 0]
    add_comment(people.editor, post)
    assert new() == [1, 1, 0]
    clock.now += timedelta(seconds=1)
    add_comment(people.editor, post)
    assert new() == [1, 1, 0]
    looks.flush()
    browser.get(f"/posts/{post.id}")
    assert new() == [0, 0, 0]


def test_comments_since_one_looked_last_are_marked(app, people, topics, sign_in, clock):
    browser, looks = sign_in(people.reader, remember=True), app.extensions["corkboard"].looks
    post = add_post(people.member, topics.open)
    add_comment(people.member, post)

    def marked() -> int:
        clock.now += timedelta(seconds=1)
        return browser.get(f"/posts/{post.id}").text.count('<b class="new">')

    assert marked() == 0, "on a first visit nothing is"
    for written in (looks.flush, lambda: None):
        clock.now += HOUR
        add_comment(people.member, post)
        add_comment(people.editor, post)
        written()
        assert marked() == 2
        assert marked() == 0
        written()
        assert marked() == 0


def test_what_somebody_said_just_before_oneself_is_marked_once(app, people, topics, sign_in, clock):
    browser, post = sign_in(people.member, remember=True), add_post(people.editor, topics.open)
    browser.get(f"/posts/{post.id}")
    clock.now += HOUR / 60
    add_comment(people.editor, post, "I was quicker")
    clock.now += HOUR / 60
    browser.submit(f"/posts/{post.id}/comments", {"body": "Now me"})
    seen = [browser.get(f"/posts/{post.id}").text.count('<b class="new">') for _ in range(2)]
    assert seen == [1, 0]


def test_ones_own_comment_makes_nothing_new(app, people, topics, sign_in, clock):
    browser = sign_in(people.member, remember=True)
    browser.get("/")
    app.extensions["corkboard"].visits.flush()
    clock.now += HOUR
    post = add_post(people.editor, topics.open)
    browser.get(f"/posts/{post.id}")
    clock.now += HOUR / 60
    add_comment(people.member, post)
    assert '<b class="new">' not in browser.get("/").text


def test_a_deleted_comment_is_the_newest_no_more(people, topics):
    post = add_post(people.member, topics.open)
    first, second = add_comment(people.editor, post), add_comment(people.admin, post)

    def newest():
        kept = again(post)
        return kept.comment_count, kept.last_comment_at, kept.last_comment_by_id

    Comment.delete(people.admin, second.id)
    assert newest() == (1, first.created_at, people.editor.id)
    Comment.delete(people.editor, first.id)
    assert newest() == (0, None, None)
    Comment.restore(people.admin, second.id)
    assert newest() == (1, second.created_at, people.admin.id)


def test_only_what_is_new_to_somebody_is_noted(app, people, topics, sign_in):
    post, looks = add_post(people.member, topics.open), app.extensions["corkboard"].looks
    browser = sign_in(people.reader)
    browser.get(f"/posts/{post.id}")
    assert len(looks.notes) == 1
    looks.flush()
    assert value(sa.select(sa.func.count()).select_from(ReadMark)) == 1
    browser.get(f"/posts/{post.id}")
    assert not looks.notes
    sign_in(people.member).get(f"/posts/{post.id}")
    assert not looks.notes, "one's own post is not new to oneself"


def test_marks_are_moved_on_by_the_batch(people, topics):
    one, other = add_post(people.member, topics.open), add_post(people.member, topics.open)
    moment = datetime(2026, 3, 2, 9, 0)
    ReadMark.write({(people.reader.id, one.id): moment, (people.reader.id, other.id): moment})
    ReadMark.write({(people.reader.id, one.id): moment + HOUR, (people.admin.id, one.id): moment})
    with db.engine.connect() as connection:
        marks = {(row.user_id, row.post_id): row.at for row in connection.execute(sa.select(ReadMark.__table__))}
    assert marks == {
        (people.reader.id, one.id): moment + HOUR,
        (people.reader.id, other.id): moment,
        (people.admin.id, one.id): moment,
    }


# -- Marks that decide nothing any more --------------------------------------------------------------------------------


def marks() -> set[tuple[int, int]]:
    with db.engine.connect() as connection:
        return {(row.user_id, row.post_id) for row in connection.execute(sa.select(ReadMark.__table__))}


@pytest.fixture
def seen(app, people, sign_in, clock):
    """A reader whose last visit ended in the third hour, and who is here a hundred days later: what is new to them."""
    state, browser, begun = app.extensions["corkboard"], sign_in(people.reader, remember=True), clock.now
    set_columns(User, people.reader.id, previous_visit_at=begun + 3 * HOUR, last_active_at=begun + 100 * DAY)
    with db.engine.begin() as connection:
        connection.execute(sa.update(SignIn).values(expires_at=begun + 500 * DAY, last_used_at=begun + 500 * DAY))

    def look(*posts: Post) -> list[int]:
        clock.now = begun + 100 * DAY
        pages = ["/", *(f"/posts/{post.id}" for post in posts)]
        found = [browser.get(page).text.count('<b class="new">') for page in pages]
        state.looks.notes.clear()  # as if they had not looked
        state.found.clear()
        return found

    return look


def test_a_mark_that_decides_nothing_any_more_is_forgotten_and_nothing_becomes_new(people, topics, clock, seen):
    reader, begun = people.reader.id, clock.now
    quiet, answered, later, loud = (add_post(people.member, topics.open, str(number)) for number in range(4))
    ReadMark.write({(reader, post.id): begun + HOUR for post in (quiet, answered, loud)})
    ReadMark.write({(reader, later.id): begun + 4 * HOUR})
    clock.now = begun + 2 * HOUR
    add_comment(people.editor, answered, "Before the last visit, but they did not look")
    add_comment(people.editor, later, "Looked at in the last visit")
    clock.now = begun + 3.5 * HOUR
    add_comment(people.editor, later, "This, too")
    clock.now = begun + 50 * DAY
    add_comment(people.editor, loud, "After it")
    posts = (quiet, answered, later, loud)
    before = seen(*posts)
    assert before == [1, 0, 1, 0, 1]
    assert corkboard.forget_marks() == "1 read mark forgotten."
    assert marks() == {(reader, answered.id), (reader, later.id), (reader, loud.id)}
    assert seen(*posts) == before
    clock.now = begun + 364 * DAY
    assert corkboard.forget_marks() == "no read marks forgotten.", "one still tells which comments are new"
    clock.now = begun + 366 * DAY
    assert corkboard.forget_marks() == "2 read marks forgotten."
    assert marks() == {(reader, later.id)}, "without it what they read in their last visit were new again"
    assert seen(*posts) == [1, 0, 0, 0, 1]


def test_marks_of_the_last_months_and_of_who_came_but_once_are_kept(people, topics, clock):
    post, begun = add_post(people.member, topics.open), clock.now
    ReadMark.write({(person.id, post.id): begun + HOUR for person in (people.reader, people.editor, people.admin)})
    set_columns(User, people.reader.id, last_active_at=begun + 2 * HOUR)
    set_columns(User, people.editor.id, last_active_at=begun + HOUR / 2)
    clock.now = begun + 89 * DAY
    assert corkboard.forget_marks() == "no read marks forgotten."
    clock.now = begun + 91 * DAY
    assert corkboard.forget_marks() == "1 read mark forgotten."
    assert marks() == {(people.editor.id, post.id), (people.admin.id, post.id)}


def test_marks_of_who_was_deactivated_long_ago_are_forgotten(people, topics, clock):
    post, begun = add_post(people.member, topics.open), clock.now
    for person, days in ((people.reader, 0), (people.stranger, 5)):
        ReadMark.write({(person.id, post.id): begun})
        moments = {"last_active_at": begun - HOUR, "deactivated_at": begun + days * DAY}
        set_columns(User, person.id, **moments)
    clock.now = begun + 92 * DAY
    corkboard.forget_marks()
    assert marks() == {(people.stranger.id, post.id)}


def test_marks_are_forgotten_by_the_batch_but_not_what_was_looked_at_meanwhile(people, topics, clock, monkeypatch):
    monkeypatch.setattr(corkboard, "MARKS_AT_ONCE", 2)
    reader, begun, forget = people.reader.id, clock.now, ReadMark._forget
    posts = [add_post(people.member, topics.open, str(number)).id for number in range(5)]
    ReadMark.write(dict.fromkeys([(reader, number) for number in posts], begun))
    set_columns(User, reader, previous_visit_at=begun + HOUR, last_active_at=begun + HOUR)
    clock.now = begun + 100 * DAY
    batches = []

    def look_first(user_id, post_ids, before):
        ReadMark.write({(reader, posts[0]): clock.now})
        batches.append(len(post_ids))
        return forget(user_id, post_ids, before)

    monkeypatch.setattr(ReadMark, "_forget", look_first)
    assert corkboard.forget_marks() == "4 read marks forgotten."
    assert batches == [2, 2, 1]
    assert marks() == {(reader, posts[0])}
