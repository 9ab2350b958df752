"""Who is told of what and who is not, the bell and its poll, the choices, and what is new to whom."""

from __future__ import annotations

import html
import re
from datetime import date, datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from conftest import add_comment, add_person, add_post, edit_post
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
def news(people, names):
    """Who was told what since it was asked last."""
    last = 0

    def ask() -> set[tuple[str, str]]:
        nonlocal last
        fresh = [row for row in told() if row.id > last]
        last = max((row.id for row in fresh), default=last)
        return {(names.get(row.user_id, "?"), row.kind) for row in fresh}

    return ask


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


def test_who_follows_a_topic_is_told_of_its_new_posts_and_pages(people, topics, news):
    for who in (people.reader, people.editor, people.member):
        Follow.choose(who, "following", topic_id=topics.open.id)
    assert news() == set()
    add_post(people.member, topics.open)
    assert news() == {("reader", "post"), ("editor", "post")}
    add_post(people.editor, topics.open, kind="page")
    assert news() == {("reader", "post"), ("member", "post")}
    add_post(people.editor, topics.private)
    assert news() == set()


def test_what_is_posted_in_the_topic_for_everyone_reaches_people_who_never_chose_anything(app, news, names, sign_in):
    anna = add_person("anna", Role.ADMIN)
    Topic.ensure_first(anna)
    topic = db.session.scalar(sa.select(Topic))
    newcomer = add_person("newcomer")
    names |= {anna.id: "anna", newcomer.id: "newcomer"}
    add_post(anna, topic)
    assert news() >= {("newcomer", "post")}
    assert ("anna", "post") not in news()
    assert bell(sign_in(newcomer)) == 1


def test_a_persons_own_choice_wins_over_what_is_followed_by_default(people, topics, news, sign_in):
    Topic.edit(people.editor, topics.open.id, name="Everyone", description="", followed_by_default=True)
    everybody = {"reader", "member", "admin", "stranger"}
    add_post(people.editor, topics.open)
    assert news() == {(who, "post") for who in everybody}
    reader, member, admin = (sign_in(who) for who in (people.reader, people.member, people.admin))
    for browser, state, offered in ((reader, "none", "Follow"), (member, "muted", "Unmute")):
        assert "Unfollow" in browser.get("/topics/everyone").text
        assert browser.submit("/topics/everyone/follow", {"state": state}).status_code == 303
        page = browser.get("/topics/everyone").text
        assert f"{offered}</button>" in page
        assert "Unfollow" not in page
    add_post(people.editor, topics.open)
    assert news() == {("admin", "post"), ("stranger", "post")}
    admin.submit("/topics/everyone/follow", {"state": "following"})
    Topic.edit(people.editor, topics.open.id, name="Everyone", description="", followed_by_default=False)
    add_post(people.editor, topics.open)
    assert news() == set(), "the admin followed it already and had nothing to choose"
    admin.submit("/topics/everyone/follow", {"state": "following"})
    add_post(people.editor, topics.open)
    assert news() == {("admin", "post")}
    Topic.edit(people.editor, topics.open.id, name="Everyone", description="", followed_by_default=True)
    add_post(people.editor, topics.open, "Are @reader and @member there?")
    assert {who for who, kind in news() if kind == "post"} == {"admin", "stranger"}
    reader.submit("/topics/everyone/follow", {"state": "following"})
    add_post(people.editor, topics.open)
    assert ("reader", "post") in news()


def test_choosing_what_one_has_already_writes_nothing_down(people, topics):
    Topic.edit(people.editor, topics.open.id, name="Everyone", description="", followed_by_default=True)
    before = again_of(people.reader)
    Follow.choose(people.reader, "following", topic_id=topics.open.id)
    Follow.choose(people.reader, "none", topic_id=topics.private.id)
    assert again_of(people.reader) == before
    Follow.choose(people.reader, "none", topic_id=topics.open.id)
    Follow.choose(people.reader, "none", topic_id=topics.open.id)
    assert again_of(people.reader) == [*before, "topic.unfollowed"]


def again_of(person: User) -> list[str]:
    db.session.rollback()
    return list(
        db.session.scalars(sa.select(Activity.action).where(Activity.actor_id == person.id).order_by(Activity.id))
    )


def test_a_private_topic_is_followed_by_those_who_choose_to(people, topics, news, sign_in):
    browser = sign_in(people.editor)
    assert "People follow this by default" in browser.get(f"/admin/topics/{topics.open.id}").text
    assert "People follow this by default" not in browser.get(f"/admin/topics/{topics.private.id}").text
    values = {"name": "Secret", "private": "y", "followed_by_default": "y"}
    browser.submit("/admin/topics", values)
    Topic.edit(people.editor, topics.open.id, name="Everyone", description="", followed_by_default=True)
    assert browser.submit("/admin/topics", {"name": "Other", "followed_by_default": "y"}).status_code == 303
    assert browser.submit(f"/admin/topics/{topics.open.id}/private").status_code == 303
    db.session.rollback()
    followed = db.session.scalars(sa.select(Topic.name).where(Topic.followed_by_default))
    assert [*followed] == ["Other"]
    Topic.add_members(people.editor, topics.open.id, [people.reader.id])
    add_post(people.editor, topics.open)
    assert news() == set()


def test_when_topics_are_merged_choices_go_along_and_a_default_too(people, topics, news):
    garden = corkboard.Topic.create(people.editor, form_id="0" * 32, name="Garden", followed_by_default=True)
    Follow.choose(people.reader, "none", topic_id=garden.id)
    Follow.choose(people.member, "muted", topic_id=garden.id)
    Topic.merge(people.editor, garden.id, topics.open.id)
    add_post(people.editor, topics.open)
    assert {who for who, _kind in news()} == {"reader", "admin", "stranger"}, "who left one may follow another"


def test_a_draft_is_told_when_it_is_published_and_a_scheduled_post_when_it_appears(people, topics, news, clock):
    Follow.choose(people.reader, "following", topic_id=topics.open.id)
    post = add_post(people.member, topics.open, how="draft")
    soon = add_post(people.member, topics.open, "Soon", scheduled_for=clock.now + DAY)
    assert news() == set()
    edit(people.member, post, "Now it is out.")
    assert news() == {("reader", "post")}
    edit(people.member, soon, "Later than I said.", scheduled_for=clock.now + 2 * DAY)
    clock.now += DAY
    assert (Post.publish_due(), news()) == (0, set())
    clock.now += DAY
    assert (Post.publish_due(), news()) == (1, {("reader", "post")})
    assert told()[-1].created_at == clock.now, "of when it appeared, not of when that was decided"
    assert len(told()) == 2
    assert news() == set()


def test_comments_are_told_to_the_author_and_to_who_commented_or_follows(people, topics, news):
    post = add_post(people.member, topics.open)
    news()
    add_comment(people.editor, post)
    assert news() == {("member", "comment")}
    Follow.choose(people.reader, "following", post_id=post.id)
    add_comment(people.stranger, post)
    assert news() == {("member", "comment"), ("editor", "comment"), ("reader", "comment")}
    add_comment(people.member, post)
    assert news() == {("editor", "comment"), ("reader", "comment"), ("stranger", "comment")}


def test_the_page_of_what_one_has_just_published_says_that_one_follows_it(people, topics, sign_in):
    browser = sign_in(people.member)
    sent = {"topic": topics.open.id, "title": "Mine", "body": "Words"}
    assert " Unfollow</button>" in browser.get(browser.submit("/posts/new", sent).location).text


def test_who_muted_or_unfollowed_a_post_is_not_told_of_comments(people, topics, news):
    post = add_post(people.member, topics.open)
    add_comment(people.editor, post)
    add_comment(people.stranger, post)
    news()
    Follow.choose(people.member, "muted", post_id=post.id)
    Follow.choose(people.editor, "none", post_id=post.id)
    add_comment(people.admin, post)
    assert news() == {("stranger", "comment")}
    add_comment(people.member, post, "I say something, but do not want to hear.")
    add_comment(people.admin, post)
    assert news() == {("stranger", "comment"), ("admin", "comment")}


def test_who_muted_a_topic_hears_of_it_only_where_they_take_part(people, topics, news):
    for who in (people.reader, people.member):
        Follow.choose(who, "muted", topic_id=topics.open.id)
    post = add_post(people.editor, topics.open)
    add_comment(people.member, post)
    news()
    edit(people.editor, post, "Changed for all to see.", notify=True)
    assert news() == {("member", "shared_again"), ("admin", "shared_again"), ("stranger", "shared_again")}


def test_whoever_is_mentioned_is_told_once_and_of_nothing_else(people, topics, news):
    Follow.choose(people.reader, "following", topic_id=topics.open.id)
    post = add_post(
        people.member, topics.open, body="Ask @reader and @editor, not `@admin`, and @nobody. I am @member."
    )
    assert news() == {("reader", "mention"), ("editor", "mention")}
    add_comment(people.stranger, post, "Right, @MEMBER and @reader")
    assert news() == {("member", "mention"), ("reader", "mention")}


def test_an_edit_of_a_comment_tells_only_who_is_mentioned_newly(people, topics, news):
    post = add_post(people.member, topics.open)
    comment = add_comment(people.member, post, "Ask @reader")
    assert news() == {("reader", "mention")}
    for body, told_now in (
        ("Ask @reader again", set()),
        ("Ask @reader or @editor", {("editor", "mention")}),
        ("Ask @editor", set()),
        ("@reader it is", set()),  # who was told of it once
    ):
        Comment.edit(people.member, comment.id, body=body)
        assert news() == told_now, body


def test_saving_quietly_tells_nobody_and_telling_again_everybody_who_sees_it(people, topics, news):
    post = add_post(people.member, topics.private)
    news()
    edit(people.member, post, "Quietly changed, @reader")
    assert news() == set()
    edit(people.editor, post, "Changed for all to see", notify=True)
    assert news() == {("reader", "shared_again"), ("member", "shared_again"), ("admin", "shared_again")}
    edit(people.editor, post, "Ask @reader", notify=True)
    assert news() == {("reader", "mention"), ("member", "shared_again"), ("admin", "shared_again")}


def test_must_read_is_told_to_who_owes_it_and_reminders_to_who_still_does(people, topics, news, clock):
    post = add_post(people.member, topics.open)
    news()
    Acknowledgement.require(people.editor, post.id, roles=[Role.READER, Role.EDITOR, Role.MEMBER])
    assert news() == {("reader", "must_read"), ("stranger", "must_read")}
    Acknowledgement.acknowledge(people.reader, post.id, 1)
    Acknowledgement.remind(people.editor, post.id)
    assert news() == {("stranger", "reminder")}
    edit(people.member, post, "Something else", require_again=True)
    assert news() == {("reader", "must_read"), ("stranger", "must_read"), ("editor", "must_read")}


def test_what_must_be_read_and_appears_later_is_told_then_and_once(people, topics, news, clock):
    Follow.choose(people.reader, "following", topic_id=topics.open.id)
    post = add_post(people.member, topics.open, scheduled_for=clock.now + DAY)
    Acknowledgement.require(people.editor, post.id, roles=[Role.READER])
    assert news() == set()
    clock.now += DAY
    assert (Post.publish_due(), news()) == (1, {("reader", "must_read")})


def test_the_owner_of_an_overdue_page_is_told_once_for_each_day_missed(people, topics, news):
    page = add_post(people.editor, topics.open, kind="page", owner_id=people.reader.id, review_every=3)
    set_columns(Post, page.id, review_by=date(2026, 3, 1))
    news()
    assert PageReview.notify_overdue(date(2026, 3, 1)) == 0
    assert PageReview.notify_overdue(date(2026, 3, 2)) == 1
    assert news() == {("reader", "review")}
    assert PageReview.notify_overdue(date(2026, 3, 3)) == 0
    PageReview.verify(people.reader, page.id, date(2026, 3, 3))
    assert PageReview.notify_overdue(date(2026, 6, 3)) == 0
    assert PageReview.notify_overdue(date(2026, 6, 4)) == 1
    assert news() == {("reader", "review")}


@pytest.mark.parametrize("on", ["post", "comment"])
def test_a_reaction_is_told_to_whose_words_they_are_until_it_is_taken_back(people, topics, news, on):
    post = add_post(people.member, topics.open)
    thing = {"post_id": post.id} if on == "post" else {"comment_id": add_comment(people.member, post).id}
    Reaction.change(people.member, "like", True, **thing)
    assert news() == set()
    for kind in ("like", "love"):
        Reaction.change(people.reader, kind, True, **thing)
    assert news() == {("member", "reaction")}
    assert len(told()) == 2
    Reaction.change(people.reader, "like", False, **thing)
    assert len(told()) == 1, "the other one still stands"
    Reaction.change(people.stranger, "done", True, **thing)
    Reaction.change(people.stranger, "done", False, **thing)
    assert len(told()) == 1
    Follow.choose(people.member, "muted", post_id=post.id)
    Reaction.change(people.editor, "like", True, **thing)
    assert news() == set()


def test_a_reaction_to_a_post_that_is_taken_back_leaves_the_one_to_its_comment_told(people, topics):
    post = add_post(people.member, topics.open)
    remark = add_comment(people.editor, post)
    Reaction.change(people.reader, "like", True, post_id=post.id)
    Reaction.change(people.reader, "like", True, comment_id=remark.id)
    Reaction.change(people.reader, "like", False, post_id=post.id)
    assert [row.comment_id for row in told() if row.kind == "reaction"] == [remark.id]


def test_a_reaction_that_was_read_stays_told_when_it_is_taken_back(people, topics):
    post = add_post(people.member, topics.open)
    Reaction.change(people.reader, "like", True, post_id=post.id)
    Notification.read_all(people.member)
    Reaction.change(people.reader, "like", False, post_id=post.id)
    assert [row.kind for row in told()] == ["reaction"]


def test_nobody_is_told_of_what_they_may_not_see(people, topics, news):
    secret = add_post(people.editor, topics.private)
    db.session.execute(sa.insert(Follow).values(user_id=people.stranger.id, post_id=secret.id, state="following"))
    db.session.execute(
        sa.insert(Follow).values(user_id=people.stranger.id, topic_id=topics.private.id, state="following")
    )
    db.session.commit()
    add_comment(people.member, secret, "What does @stranger think?")
    add_post(people.editor, topics.private, body="@stranger")
    edit(people.editor, secret, "For all", notify=True)
    assert not {who for who, _kind in news()} & {"stranger"}
    with pytest.raises(NotVisible):
        Follow.choose(people.stranger, "following", post_id=secret.id)
    with pytest.raises(NotVisible):
        Follow.choose(people.stranger, "following", topic_id=topics.private.id)


def test_who_left_is_not_told(people, topics, news):
    post = add_post(people.member, topics.open)
    news()
    set_columns(User, people.member.id, deactivated_at=corkboard.utcnow())
    add_comment(people.editor, post, "Where is @member?")
    assert news() == set()
    with pytest.raises(Forbidden):
        Follow.choose(people.member, "following", post_id=post.id)


def test_what_is_deleted_is_told_no_more_until_it_is_restored(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    comment, reader = add_comment(people.editor, post, "Hello @reader"), sign_in(people.reader)
    assert bell(reader) == 1
    for thing in (comment, post):
        type(thing).delete(people.editor, thing.id)
        assert bell(reader) == 0
        type(thing).restore(people.editor, thing.id)
        assert bell(reader) == 1


# -- Telling: in the transaction of what is told -----------------------------------------------------------------------


def test_what_cannot_be_told_does_not_happen(people, topics, monkeypatch):
    post = add_post(people.member, topics.open)

    def fail(*_args, **_names):
        raise OSError("no room")

    with monkeypatch.context() as broken:
        broken.setattr(corkboard, "notify", fail)
        with pytest.raises(OSError, match="no room"):
            add_comment(people.editor, post, "Hello @reader")
    assert told() == []
    assert again(post).comment_count == 0
    add_comment(people.editor, post, "Hello @reader")
    assert len(told()) == 2


def test_forty_people_are_told_by_as_many_statements_as_one(people, topics):
    def statements() -> int:
        with counted() as sent:
            add_post(people.member, topics.open)
        return len(sent)

    Follow.choose(people.reader, "following", topic_id=topics.open.id)
    few = [statements() for _ in range(2)][1]
    crowd = [add_person(f"person{number}") for number in range(40)]
    db.session.execute(
        sa.insert(Follow), [{"user_id": one.id, "topic_id": topics.open.id, "state": "following"} for one in crowd]
    )
    db.session.commit()
    assert statements() == few
    assert len(told()) == 2 + 41


def test_a_comment_takes_few_statements_with_all_that_it_tells(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    browser = sign_in(people.editor)
    browser.get("/")  # which notes their visit
    with counted() as statements:
        browser.submit(f"/posts/{post.id}/comments", {"body": "Well done"})
    assert len(statements) <= 16


# -- What is shown -----------------------------------------------------------------------------------------------------


def test_home_says_how_many_comments_are_new_where_one_follows(people, topics, sign_in):
    post = add_post(people.member, topics.open, "The oven is back")
    comments = [add_comment(people.editor, post, words) for words in ("Good to know.", "And when, @member?", "Oh")]
    Comment.delete(people.editor, comments[2].id)
    author, other = sign_in(people.member), sign_in(people.reader)
    assert "2 comments, <b>2 new</b>" in author.get("/").text
    assert "2 comments</span>" in other.get("/").text, "who does not follow it was told nothing"
    assert author.get(f"/posts/{post.id}").status_code == 200
    assert "2 comments</span>" in author.get("/").text


def test_the_bell_counts_the_groups_by_post_and_kind_that_the_page_shows(app, people, topics, sign_in):
    post = add_post(people.member, topics.open, "The oven is back")
    for who in (people.stranger, people.editor, people.admin):
        add_comment(who, post, "Good to know.")
    add_comment(people.admin, post, "Ask @member")
    other = add_post(people.member, topics.open, "Another matter")
    add_comment(people.editor, other, "First")
    browser = sign_in(people.member)
    assert bell(browser) == 3
    assert unread_on_page(browser) == [
        "Unread: Editor commented on Another matter",
        "Unread: Admin mentioned you in The oven is back",
        "Unread: Admin and 2 others commented on The oven is back",
    ]
    assert bell(sign_in(people.reader)) == 0


def test_the_bell_its_poll_and_the_list_count_alike_whatever_happened(app, people, topics, sign_in):
    """Of each kind, in each state: unread, read and told again, of what was deleted, and of what one no longer sees."""
    member, posts = people.member, [add_post(people.member, topics.open, f"Post {number}") for number in range(6)]
    secret = add_post(people.member, topics.private, "Secret")
    for post in (*posts, secret):
        add_comment(people.editor, post, "Hello @member")
        add_comment(people.admin, post)
        Reaction.change(people.editor, "love", True, post_id=post.id)
    Acknowledgement.require(people.editor, posts[0].id, roles=[Role.MEMBER])
    edit(people.editor, posts[1], "Changed", notify=True)
    browser = sign_in(member)
    browser.get(f"/posts/{posts[2].id}")
    add_comment(people.editor, posts[2], "And another")
    Post.delete(people.editor, posts[3].id)
    for comment in db.session.scalars(sa.select(Comment).where(Comment.post_id == posts[4].id)).all():
        Comment.delete(people.editor, comment.id)
    Topic.remove_member(people.editor, topics.private.id, member.id)
    shown = unread_on_page(browser)
    assert len(shown) == 12
    assert bell(browser) == len(shown) == browser.get("/notifications/poll").json["unread"]
    left = len(shown)
    for post in posts:
        browser.get(f"/posts/{post.id}")
        assert bell(browser) == len(unread_on_page(browser)) <= left
    assert bell(browser) == 0


def test_two_people_are_both_named(people, topics, sign_in):
    post = add_post(people.member, topics.open, "The oven is back")
    add_comment(people.editor, post)
    add_comment(people.admin, post)
    assert unread_on_page(sign_in(people.member)) == ["Unread: Admin and Editor commented on The oven is back"]


def test_opening_a_post_marks_what_one_was_told_of_it_as_read(people, topics, sign_in):
    post, other = add_post(people.member, topics.open), add_post(people.member, topics.open, "Another")
    comment = add_comment(people.editor, post, "Hello @member")
    add_comment(people.admin, post)
    add_comment(people.editor, other)
    browser = sign_in(people.member)
    assert bell(browser) == 3
    assert f'href="/comments/{comment.id}"' in browser.get("/notifications").text
    assert "Notifications, 1 unread" in browser.get(f"/posts/{post.id}").text
    assert bell(browser) == 1
    assert unread_on_page(browser) == ["Unread: Editor commented on Another"]
    add_comment(people.editor, post, "One more thing")
    assert bell(browser) == 2


def test_a_post_is_shown_though_it_cannot_be_noted_that_somebody_opened_it(people, topics, sign_in, monkeypatch):
    post = add_post(people.member, topics.open)
    add_comment(people.editor, post)

    def fail(*_args):
        raise corkboard.database.DatabaseBusy

    monkeypatch.setattr(ReadMark, "write", fail)
    browser = sign_in(people.member)
    assert browser.get(f"/posts/{post.id}").status_code == 200
    assert bell(browser) == 1


def test_all_can_be_marked_as_read(people, topics, sign_in):
    for _ in range(2):
        add_comment(people.editor, add_post(people.member, topics.open))
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


@pytest.mark.parametrize("vanish", [vanish_private, vanish_deleted, vanish_comment, vanish_topic, vanish_draft])
def test_what_one_may_see_no_more_counts_nowhere(app, people, topics, sign_in, vanish):
    corkboard.Topic.create(people.editor, form_id="0" * 32, name="Another")
    post = add_post(people.editor, topics.open, "Soon gone")
    comment = add_comment(people.editor, post, "Hello @reader")
    browser = sign_in(people.reader)
    assert bell(browser) == 1
    vanish(SimpleNamespace(people=people, topics=topics, post=post, comment=comment))
    assert bell(browser) == 0
    assert "Soon gone" not in browser.get("/notifications").text
    assert browser.get("/notifications/poll").json["unread"] == 0


def test_what_expired_is_still_told(people, topics, sign_in):
    post = add_post(people.editor, topics.open)
    add_comment(people.editor, post, "Hello @reader")
    set_columns(Post, post.id, expires_at=corkboard.utcnow() - DAY)
    assert bell(sign_in(people.reader)) == 1


def test_pages_of_notifications_follow_one_another(people, topics, sign_in):
    titles = [f"Matter {number}" for number in range(25)]
    for title in titles:
        add_comment(people.editor, add_post(people.member, topics.open, title))
    browser = sign_in(people.member)
    first = browser.get("/notifications").text
    older = browser.get(html.unescape(re.search(r'href="(/notifications\?before=[^"]+)"', first)[1])).text
    shown = [re.findall(r"<cite[^>]*>(.*?)</cite>", page) for page in (first, older)]
    assert [len(page) for page in shown] == [20, 5]
    assert shown[0] + shown[1] == titles[::-1]
    assert browser.get("/notifications?before=nonsense").status_code == 404


def test_the_first_unread_comment_is_reached_by_its_own_address(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    first = add_comment(people.editor, post)
    many_comments(people.editor, post, 60)
    add_comment(people.editor, post)
    browser = sign_in(people.member)
    assert f'href="/comments/{first.id}"' in browser.get("/notifications").text
    shown = browser.get(f"/comments/{first.id}", follow_redirects=True)
    assert f'id="comment-{first.id}"' in shown.text


def test_an_empty_page_says_how_to_hear_of_something(people, sign_in):
    page = sign_in(people.reader).get("/notifications").text
    assert "choose Follow" in page
    assert "/account/notifications" in page


# -- The poll ----------------------------------------------------------------------------------------------------------


def test_a_poll_whose_answer_has_not_changed_is_304_and_costs_one_statement(app, people, topics, sign_in):
    post = add_post(people.member, topics.open)
    browser = sign_in(people.member)
    first = browser.get("/notifications/poll")
    assert first.json == {"unread": 0}
    assert first.headers["Cache-Control"] == "private, no-cache"
    for tag in (first.headers["ETag"], f"W/{first.headers['ETag']}"):
        with counted() as statements:
            same = browser.get("/notifications/poll", headers={"If-None-Match": tag})
        assert (same.status_code, same.data) == (304, b"")
        assert same.headers["ETag"] == first.headers["ETag"]
        assert same.headers["Cache-Control"] == "private, no-cache"
        assert len([statement for statement, _ in statements if statement.startswith("SELECT")]) == 1
    add_comment(people.editor, post)
    changed = browser.get("/notifications/poll", headers={"If-None-Match": first.headers["ETag"]})
    assert changed.json["unread"] == 1
    browser.get(f"/posts/{post.id}")
    read = browser.get("/notifications/poll", headers={"If-None-Match": changed.headers["ETag"]})
    assert read.json["unread"] == 0


def test_a_poll_is_no_visit_and_keeps_no_sign_in_alive(people, sign_in, clock):
    def last_used():
        return value(sa.select(SignIn.last_used_at).where(SignIn.user_id == people.reader.id))

    browser = sign_in(people.reader)
    begun = last_used()
    for _ in range(25):
        clock.now += HOUR / 2
        answer = browser.get("/notifications/poll")
    assert answer.status_code == 302
    assert last_used() == begun


# -- Choices -----------------------------------------------------------------------------------------------------------


def test_each_kind_can_be_had_on_the_site_or_not_at_all(people, topics, sign_in, news):
    post = add_post(people.member, topics.open)
    browser = sign_in(people.member)
    sent = dict.fromkeys(corkboard.KINDS, "site")
    for way, told_now in (("none", set()), ("site", {("member", "comment")})):
        assert browser.submit("/account/notifications", sent | {"comment": way}).status_code == 303
        assert Notification.choices(people.member)["comment"] == way
        add_comment(people.editor, post)
        assert news() == told_now
    page = browser.get("/account/notifications").text
    assert page.count("<select") == len(corkboard.KINDS)
    for way in ("loud", "mail"):
        assert browser.submit("/account/notifications", sent | {"comment": way}).status_code == 422


def test_who_wants_no_must_read_is_not_reminded_either(people, topics, news):
    post = add_post(people.member, topics.open)
    Notification.choose(people.reader, must_read="none")
    Acknowledgement.require(people.editor, post.id, roles=[Role.READER, Role.ADMIN])
    Acknowledgement.remind(people.editor, post.id)
    assert {who for who, _kind in news()} == {"admin"}


def test_every_kind_has_its_words(people):
    form = corkboard.NotificationsForm
    assert all(hasattr(form, kind) for kind in corkboard.KINDS)
    assert {*corkboard.SAID} == {*corkboard.KINDS, "reminder", "unpublished"}


def test_old_notifications_are_deleted(people, topics):
    post = add_post(people.member, topics.open)
    for _ in range(3):
        add_comment(people.editor, post)
    old, recent, unread = [row.id for row in told()]
    set_columns(Notification, old, read_at=corkboard.utcnow() - 91 * DAY)
    set_columns(Notification, recent, read_at=corkboard.utcnow() - 89 * DAY)
    assert corkboard.delete_old_notifications() == 1
    assert {row.id for row in told()} == {recent, unread}
    set_columns(Notification, unread, created_at=corkboard.utcnow() - 364 * DAY)
    corkboard.delete_old_notifications()
    assert len(told()) == 2
    set_columns(Notification, unread, created_at=corkboard.utcnow() - 366 * DAY)
    corkboard.delete_old_notifications()
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
    assert " Unfollow</button>" in browser.get(address).text
    assert " Follow</button>" in browser.get(f"/posts/{other.id}").text
    assert " Follow</button>" in sign_in(people.admin).get(address).text
    browser.submit(f"{address}/follow", {"state": "none"})
    assert " Follow</button>" in browser.get(address).text, "what they said before does not count against them"


def test_who_commented_on_what_they_muted_sees_that_it_is_muted(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    Follow.choose(people.editor, "muted", post_id=post.id)
    browser = sign_in(people.editor)
    browser.submit(f"/posts/{post.id}/comments", {"body": "Good"})
    assert " Unmute</button>" in browser.get(f"/posts/{post.id}").text


def test_who_follows_a_topic_follows_the_one_that_it_is_merged_into(people, topics, news):
    other = corkboard.Topic.create(people.editor, form_id="0" * 32, name="Another")
    Follow.choose(people.reader, "following", topic_id=other.id)
    Follow.choose(people.member, "following", topic_id=other.id)
    Follow.choose(people.member, "muted", topic_id=topics.open.id)
    Topic.merge(people.editor, other.id, topics.open.id)
    add_post(people.editor, topics.open)
    assert news() == {("reader", "post")}


def test_what_is_removed_for_good_takes_all_of_this_with_it(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    add_comment(people.editor, post, "Hello @reader")
    sign_in(people.reader).get(f"/posts/{post.id}")
    Post.delete(people.member, post.id)
    corkboard.Bin.empty(None, corkboard.utcnow())
    assert told() == []
    for model in (Follow, ReadMark):
        assert value(sa.select(sa.func.count()).select_from(model)) == 0


# -- What is new -------------------------------------------------------------------------------------------------------


def test_a_post_is_new_until_it_is_opened_and_again_after_a_comment(people, topics, sign_in, clock):
    browser = sign_in(people.reader, remember=True)
    browser.get("/")
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
    for _ in range(2):
        add_comment(people.editor, post)
        assert new() == [1, 1, 0]
    browser.get(f"/posts/{post.id}")
    assert new() == [0, 0, 0]


def test_comments_since_one_looked_last_are_marked(people, topics, sign_in, clock):
    browser = sign_in(people.reader, remember=True)
    post = add_post(people.member, topics.open)
    add_comment(people.member, post)

    def marked() -> int:
        clock.now += timedelta(seconds=1)
        return browser.get(f"/posts/{post.id}").text.count('<b class="new">')

    assert marked() == 0, "on a first visit nothing is"
    for _ in range(2):
        clock.now += HOUR
        add_comment(people.member, post)
        add_comment(people.editor, post)
        assert marked() == 2
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


def test_ones_own_comment_makes_nothing_new(people, topics, sign_in, clock):
    browser = sign_in(people.member, remember=True)
    browser.get("/")
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


def test_only_what_is_new_to_somebody_is_noted(people, topics, sign_in, clock):
    post = add_post(people.member, topics.open)

    def noted() -> list[datetime]:
        with db.engine.connect() as connection:
            return list(connection.scalars(sa.select(ReadMark.at).order_by(ReadMark.at)))

    browser, opened = sign_in(people.reader), clock.now
    for _ in range(2):
        browser.get(f"/posts/{post.id}")
        clock.now += HOUR / 60
    sign_in(people.member).get(f"/posts/{post.id}")
    assert noted() == [opened], "once, and one's own post is not new to oneself"
    add_comment(people.editor, post)
    later = clock.now
    browser.get(f"/posts/{post.id}")
    assert noted() == [later]


def test_nothing_older_than_a_year_is_ever_new_and_older_marks_are_deleted(people, topics, sign_in, clock):
    browser, begun = sign_in(people.reader, remember=True), clock.now
    old, recent = add_post(people.member, topics.open, "Old"), add_post(people.member, topics.open, "Recent")
    add_comment(people.editor, old)
    browser.get(f"/posts/{old.id}")
    set_columns(Post, recent.id, published_at=begun + 20 * DAY)
    visit = {"previous_visit_at": begun - DAY, "last_active_at": begun - DAY}
    set_columns(User, people.reader.id, **visit)
    clock.now = begun + 370 * DAY
    with db.engine.begin() as connection:
        connection.execute(sa.update(SignIn).values(expires_at=clock.now + DAY, last_used_at=clock.now))

    def new() -> list[int]:
        set_columns(User, people.reader.id, **visit)
        return [browser.get(path).text.count('<b class="new">') for path in ("/", f"/posts/{old.id}")]

    assert new() == [1, 0]
    with db.engine.begin() as connection:
        connection.execute(sa.update(ReadMark).values(at=begun))
    assert corkboard.delete_old_read_marks() == 1
    assert new() == [1, 0]
    assert corkboard.delete_old_read_marks() == 0
