"""Groups and names that call several people: whom a mention reaches, and what a group is a shortcut for."""

from __future__ import annotations

import re
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import add_comment, add_person, add_post, add_topic, edit_post, together
from world import set_columns

import app as corkboard
from app import (
    Activity,
    Comment,
    Follow,
    Group,
    MustReadPerson,
    Notification,
    Post,
    Topic,
    User,
    ValidationError,
)
from database import db, utcnow


def add_group(people, name: str = "kitchen", *members: User) -> Group:
    ids = [person.id for person in members or (people.member, people.reader)]
    Group.save(people.admin, None, name=name, member_ids=ids)
    return db.session.scalars(sa.select(Group).filter_by(name=name)).one()


def told(thing: Post | Comment, kind: str = "mention") -> list[str]:
    """Who was notified, each time that they were."""
    about = Notification.comment_id == thing.id if isinstance(thing, Comment) else Notification.post_id == thing.id
    names = sa.select(User.username).join(Notification, Notification.user_id == User.id).order_by(User.username)
    return list(db.session.scalars(names.where(about, Notification.kind == kind)))


def fresh(model: Any, row_id: int) -> Any:
    db.session.rollback()
    return db.session.get(model, row_id, populate_existing=True)


# -- Making them -------------------------------------------------------------------------------------------------------


def test_an_administrator_makes_fills_and_deletes_a_group(people, sign_in):
    browser = sign_in(people.admin)
    assert "There are no groups yet" in browser.get("/admin/groups").text
    new = {"name": "Kitchen", "member_ids": [people.member.id, people.reader.id]}
    assert browser.submit("/admin/groups", new).status_code == 303
    assert browser.submit("/admin/groups", new).status_code == 422, "a form that is sent again makes no second one"
    [group] = db.session.scalars(Group.listed()).all()
    assert "2 people" in browser.get("/admin/groups").text
    page = browser.get(f"/admin/groups/{group.id}").text
    assert page.count("checked") == 2
    changed = {"member_ids": [people.editor.id]}
    assert browser.submit(f"/admin/groups/{group.id}", changed).status_code == 303
    assert [user.username for user in fresh(Group, group.id).people] == ["editor"]
    assert browser.submit(f"/admin/groups/{group.id}/delete").status_code == 303
    assert browser.get(f"/admin/groups/{group.id}").status_code == 404
    db.session.rollback()
    actions = db.session.scalars(sa.select(Activity.action).where(Activity.object_type == "group")).all()
    assert actions == ["group.saved", "group.saved", "group.deleted"]


def test_a_group_that_another_administrator_deleted_is_not_made_again(people, sign_in):
    group, browser = add_group(people), sign_in(people.admin)
    Group.delete(people.admin, group.id)
    assert browser.submit(f"/admin/groups/{group.id}", {"member_ids": []}).status_code == 404
    with pytest.raises(corkboard.NotVisible):
        Group.save(people.admin, group.id, name="kitchen", member_ids=[])


def test_only_administrators_make_groups(people, sign_in):
    assert sign_in(people.editor).get("/admin/groups").status_code == 403
    with pytest.raises(corkboard.Forbidden):
        Group.save(people.editor, None, name="kitchen", member_ids=[])


def test_people_and_groups_share_their_names(people, sign_in):
    add_group(people)
    browser = sign_in(people.admin)
    for name in ("member", "MEMBER", "kitchen", "Kitchen", "everyone", "Everyone", "-x", ""):
        answer = browser.submit("/admin/groups", {"name": name, "member_ids": [people.member.id]})
        assert answer.status_code == 422, name
        assert 'aria-invalid="true"' in answer.text
    for name in ("kitchen", "KITCHEN", "everyone"):
        with pytest.raises(ValidationError):
            add_person(name, email=None)
        with pytest.raises(ValidationError):
            User.edit_person(people.admin, people.member.id, name="Mia", email="", username=name)
    db.session.rollback()
    User.edit_profile(people.member, title="Cook")


def test_of_a_person_and_a_group_who_take_a_name_at_the_same_moment_one_gets_it(app, people):
    outcomes = together(
        app,
        lambda: add_person("kitchen", email=None),
        lambda: Group.save(people.admin, None, name="Kitchen", member_ids=[]),
    )
    assert sum(isinstance(outcome, ValidationError) for outcome in outcomes) == 1, outcomes


def test_a_group_has_a_page_with_its_people(people, sign_in):
    add_group(people)
    browser = sign_in(people.reader)
    page = browser.get("/people/KITCHEN").text
    assert people.member.name in page
    assert people.editor.name not in page
    assert browser.get("/people/everyone").location == "/people"
    set_columns(User, people.member.id, deactivated_at=utcnow())
    assert people.member.name not in browser.get("/people/kitchen").text


# -- Mentions ----------------------------------------------------------------------------------------------------------


def test_a_group_that_is_mentioned_is_a_link_and_each_of_its_people_is_told_once(people, topics):
    add_group(people, "kitchen", people.member, people.reader, people.stranger)
    post = add_post(people.editor, topics.open, body="@Kitchen and @member: look")
    assert '<a class="mention" href="/people/Kitchen"' in post.html
    assert ">@Kitchen</a>" in post.html
    assert told(post) == ["member", "reader", "stranger"]
    comment = add_comment(people.member, post, "@kitchen, done")
    assert told(comment) == ["reader", "stranger"], "not the one who writes"


def test_nobody_is_told_of_what_they_do_not_see(people, topics):
    add_group(people, "kitchen", people.member, people.stranger)
    set_columns(User, people.reader.id, deactivated_at=utcnow())
    assert told(add_post(people.editor, topics.private, body="@kitchen @everyone")) == ["admin", "member"]


def test_everyone_is_called_by_editors_only(people, topics):
    post = add_post(people.editor, topics.open, body="@everyone: look")
    assert told(post) == ["admin", "member", "reader", "stranger"]
    assert 'href="/people/everyone"' in post.html
    by_member = add_post(people.member, topics.open, body="@everyone: look")
    assert told(by_member) == []
    assert "mention" not in by_member.html


def test_a_topic_calls_those_who_chose_to_follow_it(people, topics, sign_in):
    rota = add_topic(people.editor, "Rota")
    salaries = add_topic(people.editor, "Salaries", members=[people.member.id])
    Follow.choose(people.reader, "following", topic_id=rota.id)
    Follow.choose(people.member, "muted", topic_id=rota.id)
    Follow.choose(people.member, "following", topic_id=salaries.id)
    post = add_post(people.editor, topics.open, body=f"@rota and @{salaries.slug}")
    assert told(post) == ["member", "reader"]
    assert 'href="/people/rota"' in post.html
    assert sign_in(people.reader).get("/people/rota").location == "/topics/rota"
    assert sign_in(people.reader).get(f"/people/{salaries.slug}").status_code == 404
    by_stranger = add_post(people.stranger, topics.open, body=f"@{salaries.slug}")
    assert "mention" not in by_stranger.html
    assert told(by_stranger) == []


def test_a_topic_that_is_followed_by_default_calls_everyone_who_has_not_chosen_otherwise(people, topics):
    rota = add_topic(people.editor, "Rota", followed_by_default=True)
    Follow.choose(people.reader, "none", topic_id=rota.id)
    Follow.choose(people.editor, "muted", topic_id=rota.id)
    assert told(add_post(people.member, topics.open, body="@rota")) == ["admin", "stranger"]


def test_an_edit_of_a_comment_tells_nobody_twice_who_was_called_by_a_group(people, topics):
    add_group(people)
    comment = add_comment(people.editor, add_post(people.editor, topics.open), body="@kitchen")
    corkboard.Comment.edit(people.editor, comment.id, body="@kitchen and @member and @admin")
    assert told(fresh(Comment, comment.id)) == ["admin", "member", "reader"]


def test_an_edit_of_a_comment_whose_old_notifications_are_deleted_tells_nobody_again(people, topics):
    comment = add_comment(people.editor, add_post(people.editor, topics.open), body="Ask @member")
    with db.engine.begin() as connection:
        connection.execute(sa.delete(Notification))
    Comment.edit(people.editor, comment.id, body="Please ask @member")
    assert told(fresh(Comment, comment.id)) == []


def test_a_list_takes_no_name_that_a_group_got_meanwhile(people):
    add_group(people)
    listed = {"name": "Kim", "username": "kitchen", "email": "", "role": corkboard.Role.MEMBER}
    with pytest.raises(ValidationError):
        User.create_listed(people.admin, [listed], by_email=False)
    db.session.rollback()
    assert User.by_username("kitchen") is None


def test_an_edit_tells_those_who_are_newly_called_and_nobody_twice(people, topics):
    add_group(people, "kitchen", people.member, people.reader)
    post = add_post(people.editor, topics.open, body="@member")
    edit_post(people.editor, post, body="@member @kitchen", notify=True)
    assert told(post) == ["member", "reader"]
    comment = add_comment(people.editor, post, "Look")
    Comment.edit(people.editor, comment.id, body="Look, @kitchen")
    Comment.edit(people.editor, comment.id, body="Look here, @kitchen")
    assert told(comment) == ["member", "reader"]


def test_mentions_of_a_deleted_group_become_words(people, topics, sign_in):
    group = add_group(people)
    post = add_post(people.editor, topics.open, body="@kitchen and @member")
    browser = sign_in(people.admin)
    browser.submit(f"/admin/groups/{group.id}/delete")
    html = fresh(Post, post.id).html
    assert "/people/kitchen" not in html
    assert "@kitchen" in html
    assert "/people/member" in html


def test_names_that_call_several_people_are_offered_after_people(people, topics, sign_in):
    add_group(people, "editors")
    add_topic(people.editor, "Editorial")
    salaries = add_topic(people.editor, "Editing pay", members=[people.editor.id])

    def offered(person: User, typed: str) -> list[str]:
        return re.findall('data-username="([^"]+)"', sign_in(person).get(f"/mentions?q={typed}").text)

    assert offered(people.member, "edit") == ["editor", "editorial", "editors"]
    assert offered(people.editor, "edit") == [salaries.slug, "editorial", "editors"]
    assert offered(people.editor, "every") == ["everyone"]
    assert offered(people.member, "every") == []


# -- A shortcut for its people -----------------------------------------------------------------------------------------


def test_a_group_adds_the_people_of_that_moment_to_a_must_read(people, topics, sign_in):
    group, post = add_group(people), add_post(people.editor, topics.open)
    browser = sign_in(people.editor)
    assert "<span>kitchen</span>" in browser.get(f"/posts/{post.id}/must-read").text
    chosen = {"audience": "some", "groups": group.id, "people": people.stranger.id}
    assert browser.submit(f"/posts/{post.id}/must-read", chosen).status_code == 303
    Group.save(people.admin, group.id, name="kitchen", member_ids=[people.admin.id])
    named = db.session.scalars(sa.select(MustReadPerson.user_id).filter_by(post_id=post.id))
    assert {*named} == {people.member.id, people.reader.id, people.stranger.id}
    both = browser.submit(f"/posts/{post.id}/must-read", {"audience": "all", "groups": group.id})
    assert both.status_code == 422


def test_a_group_adds_its_people_to_a_private_topic(people, topics, sign_in):
    group = add_group(people, "kitchen", people.member, people.stranger)
    browser = sign_in(people.editor)
    assert "<span>kitchen</span>" in browser.get(f"/admin/topics/{topics.private.id}").text
    browser.submit(f"/admin/topics/{topics.private.id}/members", {"groups": group.id})
    assert "stranger" in [user.username for user in fresh(Topic, topics.private.id).members]


def test_without_groups_no_form_speaks_of_them(people, topics, sign_in):
    assert "A group is a shortcut" not in sign_in(people.editor).get(f"/admin/topics/{topics.private.id}").text


def test_who_is_erased_is_in_no_group(people):
    group = add_group(people)
    User.erase(people.admin, people.member.id)
    assert [user.username for user in fresh(Group, group.id).people] == ["reader"]
