"""Topics: their pages, how editors look after them, and who sees the private ones."""

from __future__ import annotations

import re
import secrets
from datetime import timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from conftest import add_person, add_post, add_topic, together
from test_posts import again, count, ids_in
from world import set_columns

from app import (
    TOPICS_SHOWN,
    Activity,
    NotVisible,
    Post,
    Role,
    Topic,
    TopicMember,
    User,
    ValidationError,
    empty_bin,
    utcnow,
)
from database import db

pytestmark = pytest.mark.usefixtures("cheap_hashes")


def members_of(topic) -> set[int]:
    db.session.rollback()
    return set(db.session.scalars(sa.select(TopicMember.user_id).where(TopicMember.topic_id == topic.id)))


def chips(page: str) -> list[str]:
    """Where the row of topics above a list leads."""
    return re.findall(r'href="([^"]+)"', page.partition('<nav class="strip"')[2].partition("</nav>")[0])


def current_chip(page: str) -> str:
    return re.findall(r'href="([^"]+)" aria-current="page"', page.partition('<nav class="strip"')[2])[0]


# -- The topics above a list -------------------------------------------------------------------------------------------


def test_the_topics_one_sees_stand_above_the_news_and_above_a_topics_own_posts(people, topics, sign_in):
    garden = add_topic(people.editor, "Garden")
    private = f"/topics/{topics.private.slug}"
    links = ["/", "/topics/everyone", private, "/topics/garden", "/topics"]
    member, stranger = sign_in(people.member), sign_in(people.stranger)
    for address, current in (("/", "/"), (f"/topics/{garden.slug}", "/topics/garden"), (private, private)):
        page = member.get(address).text
        assert (chips(page), current_chip(page)) == (links, current)
    for address in ("/", "/topics/everyone"):
        assert chips(stranger.get(address).text) == [link for link in links if "management" not in link]


def test_a_topic_with_new_posts_bears_a_dot_until_they_are_read(people, topics, sign_in):
    garden, browser = add_topic(people.editor, "Garden"), sign_in(people.reader)

    def dots() -> list[str]:
        return re.findall(
            r'<span>([^<]+)</span>\s*<span class="dot"><span class="visually-hidden">New posts<', browser.get("/").text
        )

    browser.get("/")
    set_columns(User, people.reader.id, previous_visit_at=utcnow() - timedelta(days=2))
    add_post(people.editor, topics.open, "A page", kind="page")
    assert dots() == []
    posts = [add_post(people.member, topic) for topic in (topics.open, topics.private, garden, garden)]
    assert dots() == ["Everyone", "Management", "Garden"]
    for post in posts[:3]:
        browser.get(f"/posts/{post.id}")
    assert dots() == ["Garden"]
    Post.delete(people.member, posts[3].id)
    assert dots() == []


def test_many_topics_leave_room_for_the_news_and_the_current_one_is_always_there(people, topics, sign_in):
    made = [add_topic(people.editor, f"Number {n:02}") for n in range(TOPICS_SHOWN)]
    browser = sign_in(people.reader)
    assert len(chips(browser.get("/").text)) == TOPICS_SHOWN + 2
    page = browser.get(f"/topics/{made[-1].slug}").text
    assert (len(chips(page)), current_chip(page)) == (TOPICS_SHOWN + 3, f"/topics/{made[-1].slug}")
    everything = browser.get("/topics").text
    assert all(f'href="/topics/{topic.slug}"' in everything for topic in made)


def test_all_topics_are_on_a_page_that_the_menu_leads_to(people, topics, sign_in):
    add_topic(people.editor, "Garden", description="Beds and bees")
    page = sign_in(people.reader).get("/topics").text
    assert page.count('<a href="/topics">') == 1
    assert "Beds and bees" in page
    assert "Management" in page
    assert "/admin/topics" not in page
    assert "Management" not in sign_in(people.stranger).get("/topics").text
    assert 'href="/admin/topics"' in sign_in(people.editor).get("/topics").text


# -- Names, order, merging ---------------------------------------------------------------------------------------------


def test_editors_make_topics_and_their_addresses_are_free(people, topics, sign_in):
    browser = sign_in(people.editor)
    for name in ("Größe & Maß", "Größe  Maß!", "你好", "!!!"):
        assert browser.submit("/admin/topics", {"name": name}).status_code == 303, name
    made = [re.sub("[0-9]{6}$", "N", slug) for slug in slugs()[2:]]
    assert made == ["grosse-mass", "grosse-mass-N", "topic", "topic-N"]


def slugs() -> list[str]:
    db.session.rollback()
    return list(db.session.scalars(sa.select(Topic.slug).order_by(Topic.id)))


def test_a_topic_needs_a_name(people, topics, sign_in):
    for name in ("", "  "):
        assert sign_in(people.editor).submit("/admin/topics", {"name": name}).status_code == 422, name


def test_neither_a_name_nor_an_address_tells_that_a_private_topic_has_them_already(people, topics, sign_in):
    outside = sign_in(add_person("outside", Role.EDITOR))
    for name in ("Layoffs", "LAYOFFS", "ｌayoffs"):
        add_topic(people.admin, name, private=True)
    assert outside.submit("/admin/topics", {"name": "Layoffs"}).status_code == 303
    assert slugs()[-1] == "layoffs"
    *_, hidden, own = db.session.scalars(sa.select(Topic).order_by(Topic.id))
    assert re.fullmatch("layoffs-[0-9]{6}", hidden.slug)
    renamed = outside.submit(f"/admin/topics/{own.id}", {"name": "Management", "description": ""})
    assert renamed.status_code == 303
    assert outside.get(f"/topics/{hidden.slug}").status_code == 404


def test_a_topic_comes_back_from_the_bin_beside_another_of_its_name(people, topics, sign_in):
    first = add_topic(people.editor, "Garden")
    Topic.delete(people.editor, first.id)
    second = add_topic(people.editor, "Garden")
    Topic.restore(people.editor, first.id)
    browser = sign_in(people.reader)
    assert [browser.get(f"/topics/{topic.slug}").status_code for topic in (first, second)] == [200, 200]
    assert first.slug == "garden" != second.slug


def test_a_renamed_topic_keeps_its_address(people, topics, sign_in):
    browser = sign_in(people.editor)
    answer = browser.submit(f"/admin/topics/{topics.open.id}", {"name": "All of us", "description": "News"})
    assert answer.status_code == 303
    page = browser.get("/topics/everyone").text
    assert ">All of us</h1>" in page
    assert "News" in page


def test_topics_are_put_in_order(people, topics, sign_in):
    browser = sign_in(people.editor)
    garden = add_topic(people.editor, "Garden")

    def order() -> list[str]:
        return chips(browser.get("/").text)[1:-1]

    private = f"/topics/{topics.private.slug}"
    assert order() == ["/topics/everyone", private, "/topics/garden"]
    browser.submit(f"/admin/topics/{garden.id}/move", {"direction": "up"})
    assert order() == ["/topics/everyone", "/topics/garden", private]
    browser.submit(f"/admin/topics/{topics.open.id}/move", {"direction": "up"})
    browser.submit(f"/admin/topics/{topics.open.id}/move", {"direction": "down"})
    assert order() == ["/topics/garden", "/topics/everyone", private]


def test_who_does_not_see_a_private_topic_moves_past_it(people, topics, sign_in):
    garden, outside = add_topic(people.editor, "Garden"), add_person("outside", Role.EDITOR)
    sign_in(outside).submit(f"/admin/topics/{garden.id}/move", {"direction": "up"})
    seen = db.session.scalars(Topic.visible_to(people.admin)).all()
    assert [topic.slug for topic in seen] == ["garden", topics.private.slug, "everyone"]


def test_a_merged_topic_leads_to_the_one_it_went_into(people, topics, sign_in):
    garden, kitchen = add_topic(people.editor, "Garden"), add_topic(people.editor, "Kitchen")
    post = add_post(people.member, garden)
    browser = sign_in(people.editor)
    assert "1 post" in browser.get(f"/admin/topics/{garden.id}/merge").text
    assert browser.submit(f"/admin/topics/{garden.id}/merge", {"into": kitchen.id}).status_code == 303
    assert browser.submit(f"/admin/topics/{kitchen.id}/merge", {"into": topics.open.id}).status_code == 303
    assert again(post).topic_id == topics.open.id
    for slug in ("garden", "kitchen"):
        answer = browser.get(f"/topics/{slug}")
        assert (answer.status_code, answer.location) == (301, "/topics/everyone")
    assert browser.get(f"/admin/topics/{garden.id}").status_code == 404
    assert post.id in ids_in(browser.get("/topics/everyone").text)


def test_the_old_address_of_a_topic_leads_to_the_other_one_for_good(people, topics, sign_in):
    garden = add_topic(people.editor, "Garden")
    Topic.merge(people.editor, garden.id, topics.open.id)
    set_columns(Topic, garden.id, deleted_at=utcnow() - timedelta(days=400))
    assert empty_bin() == 0
    assert sign_in(people.reader).get("/topics/garden").location == "/topics/everyone"


def test_a_topic_is_not_merged_into_itself_or_into_one_that_is_not_seen(people, topics, sign_in):
    outside, garden = add_person("outside", Role.EDITOR), add_topic(people.editor, "Garden")
    for into in (garden.id, topics.private.id, 7777, "x", ""):
        answer = sign_in(outside).submit(f"/admin/topics/{garden.id}/merge", {"into": into})
        assert answer.status_code == 422, into
    with pytest.raises(NotVisible):
        Topic.merge(outside, garden.id, topics.private.id)
    with pytest.raises(ValidationError):
        Topic.merge(outside, garden.id, garden.id)
    assert again(garden).deleted_at is None


def test_a_topic_merged_into_a_private_one_is_not_betrayed_by_its_old_address(people, topics, sign_in):
    garden = add_topic(people.editor, "Garden")
    Topic.merge(people.editor, garden.id, topics.private.id)
    assert sign_in(people.reader).get("/topics/garden").status_code == 301
    assert sign_in(people.stranger).get("/topics/garden").status_code == 404


def test_of_two_editors_the_last_to_save_has_the_word(people, topics, sign_in):
    editor, admin, address = sign_in(people.editor), sign_in(people.admin), f"/admin/topics/{topics.open.id}"
    assert editor.submit(address, {"name": "All of us", "description": "News"}).status_code == 303
    assert admin.submit(address, {"name": "Us", "description": ""}).status_code == 303
    assert (again(topics.open).name, topics.open.description) == ("Us", "")


def test_a_form_sent_twice_makes_one_topic(people, topics, sign_in):
    browser, typed = sign_in(people.editor), {"name": "Garden", "form_id": secrets.token_hex(16)}
    for _ in range(2):
        assert browser.submit("/admin/topics", typed).status_code == 303
    assert count(Topic, Topic.name == "Garden") == 1


# -- Who sees a topic --------------------------------------------------------------------------------------------------


def test_a_private_topic_is_made_and_people_are_added_on_its_page(people, topics, sign_in):
    browser = sign_in(people.editor)
    answer = browser.submit("/admin/topics", {"name": "Salaries", "description": "", "private": "y"})
    topic = db.session.scalars(sa.select(Topic).where(Topic.name == "Salaries")).one()
    assert answer.location == f"/admin/topics/{topic.id}"
    assert members_of(topic) == {people.editor.id}
    page = browser.get(answer.location).text
    assert "Topic &#34;Salaries&#34; created." in page
    assert offered(page) == {person.id for person in vars(people).values()} - {people.editor.id}
    added = browser.submit(f"/admin/topics/{topic.id}/members", {"user": people.member.id})
    assert (added.status_code, added.location) == (303, f"/admin/topics/{topic.id}")
    assert "Member can see this topic now." in browser.get(added.location).text
    assert sign_in(people.member).get(f"/topics/{topic.slug}").status_code == 200
    assert sign_in(people.admin).get(f"/topics/{topic.slug}").status_code == 404


def offered(page: str) -> set[int]:
    """Whom a page lets one choose."""
    return {int(value) for value in re.findall(r'type="checkbox"[^>]*name="(?:user|members)"[^>]*value="(\d+)"', page)}


def test_several_people_are_added_at_once_or_none_if_one_of_them_is_not_there(people, topics, sign_in):
    browser, secret = sign_in(people.editor), add_topic(people.editor, "Secret", private=True)
    address = f"/admin/topics/{secret.id}"
    assert browser.submit(f"{address}/members", {"user": [people.reader.id, 7777]}).status_code == 404
    assert members_of(secret) == {people.editor.id}
    both = [people.reader.id, people.member.id]
    assert browser.submit(f"{address}/members", {"user": both}).status_code == 303
    assert members_of(secret) == {people.editor.id, *both}
    page = browser.get(address).text
    assert "Reader, Member can see this topic now." in page
    assert offered(page) == {people.admin.id, people.stranger.id}
    assert browser.submit(f"{address}/members").status_code == 303
    assert "Nobody else can see this topic now." in browser.get(address).text


def test_who_sees_a_private_topic_is_chosen_when_it_is_made_and_an_open_one_has_no_members(people, topics, sign_in):
    browser = sign_in(people.editor)
    everybody = {person.id for person in vars(people).values()}
    assert offered(browser.get("/admin/topics").text) == everybody - {people.editor.id}
    chosen = {"members": [people.reader.id, people.admin.id]}
    browser.submit("/admin/topics", {"name": "Salaries", "private": "y"} | chosen)
    browser.submit("/admin/topics", {"name": "Garden"} | chosen)
    made = {topic.name: members_of(topic) for topic in db.session.scalars(sa.select(Topic)).all()}
    assert made["Salaries"] == {people.editor.id, people.reader.id, people.admin.id}
    assert made["Garden"] == set()
    User.deactivate(people.admin, people.stranger.id)
    answer = browser.submit("/admin/topics", {"name": "Wages", "private": "y", "members": [people.stranger.id]})
    assert answer.status_code == 422
    assert count(Topic, Topic.name == "Wages") == 0


def test_a_topic_is_made_private_and_open_again(people, topics, sign_in):
    add_topic(people.editor, "Garden")
    post, browser = add_post(people.member, topics.open), sign_in(people.editor)
    address = f"/admin/topics/{topics.open.id}"
    assert browser.submit(f"{address}/private").status_code == 303
    assert browser.submit(f"{address}/members", {"user": people.member.id}).status_code == 303
    seen = {who: sign_in(getattr(people, who)).get(f"/posts/{post.id}").status_code for who in vars(people)}
    assert seen == {"reader": 404, "member": 200, "editor": 200, "admin": 404, "stranger": 404}
    assert browser.submit(f"{address}/open").status_code == 303
    assert sign_in(people.stranger).get(f"/posts/{post.id}").status_code == 200


def test_who_was_in_a_topic_that_was_open_in_between_has_to_be_added_again(people, topics):
    Topic.make_open(people.editor, topics.private.id)
    assert members_of(topics.private) == set()
    Topic.make_private(people.editor, topics.private.id)
    assert members_of(topics.private) == {people.editor.id}


def test_somebody_is_added_once_and_removed_once(people, topics, sign_in):
    browser, address = sign_in(people.editor), f"/admin/topics/{topics.private.id}/members"
    before = count(Activity)
    for _ in range(2):
        assert browser.submit(address, {"user": people.stranger.id}).status_code == 303
    assert people.stranger.id in members_of(topics.private)
    assert count(Activity) == before + 1
    for _ in range(2):
        assert browser.submit(f"{address}/{people.stranger.id}/remove").status_code == 303
    assert people.stranger.id not in members_of(topics.private)
    assert count(Activity) == before + 2


def test_only_somebody_who_is_there_is_added_and_only_to_a_private_topic(people, topics, sign_in):
    User.deactivate(people.admin, people.stranger.id)
    browser = sign_in(people.editor)
    for user in (people.stranger.id, 7777):
        answer = browser.submit(f"/admin/topics/{topics.private.id}/members", {"user": user})
        assert answer.status_code == 404, user
    answer = browser.submit(f"/admin/topics/{topics.open.id}/members", {"user": people.member.id})
    assert answer.status_code == 422
    assert "everyone sees it" in answer.text
    assert members_of(topics.open) == set()


def test_nobody_removes_themselves_so_that_somebody_is_left(people, topics, sign_in):
    browser, address = sign_in(people.editor), f"/admin/topics/{topics.private.id}"
    assert f"{address}/members/{people.editor.id}/remove" not in browser.get(address).text
    answer = browser.submit(f"{address}/members/{people.editor.id}/remove")
    assert answer.status_code == 422
    assert "remove yourself" in answer.text
    assert people.editor.id in members_of(topics.private)


def test_whoever_was_removed_from_a_topic_is_not_put_back_by_an_older_page(people, topics, sign_in):
    older, address = sign_in(people.admin), f"/admin/topics/{topics.private.id}"
    older.get(address)
    Topic.remove_member(people.editor, topics.private.id, people.reader.id)
    assert older.submit(address, {"name": "Management", "description": "New words"}).status_code == 303
    assert again(topics.private).description == "New words"
    assert sign_in(people.reader).get(f"/topics/{topics.private.slug}").status_code == 404


def test_a_topic_that_was_made_private_is_not_opened_by_an_older_page(people, topics, sign_in):
    add_topic(people.editor, "Garden")
    older, address = sign_in(people.editor), f"/admin/topics/{topics.open.id}"
    older.get(address)
    Topic.make_private(people.editor, topics.open.id)
    assert older.submit(address, {"name": "Everyone", "description": ""}).status_code == 303
    assert again(topics.open).private


def test_an_administrator_who_joined_is_not_lost_by_an_older_page(people, topics, sign_in):
    secret, editor = add_topic(people.editor, "Secret", private=True), sign_in(people.editor)
    Topic.join(people.admin, secret.id)
    assert editor.submit(f"/admin/topics/{secret.id}", {"name": "Secrets", "description": ""}).status_code == 303
    assert sign_in(people.admin).get(f"/topics/{secret.slug}").status_code == 200


def test_joining_while_people_are_added_and_removed_is_never_lost(app, people, topics):
    secret = add_topic(people.editor, "Secret", private=True)
    editor, admin, reader = (SimpleNamespace(id=who.id) for who in (people.editor, people.admin, people.reader))
    for _round in range(5):
        outcomes = together(
            app,
            lambda: Topic.add_members(editor, secret.id, [reader.id])[0].id,
            lambda: Topic.join(admin, secret.id).id,
        )
        assert outcomes == [reader.id, secret.id]
        assert members_of(secret) == {editor.id, admin.id, reader.id}
        for user_id in (admin.id, reader.id):
            Topic.remove_member(editor, secret.id, user_id)


def test_the_last_topic_that_everybody_sees_is_neither_closed_nor_merged_into_a_private_one(people, topics, sign_in):
    browser, address = sign_in(people.editor), f"/admin/topics/{topics.open.id}"
    garden = add_topic(people.editor, "Garden")
    Topic.delete(people.editor, garden.id)
    for path, values in (("/private", {}), ("/merge", {"into": topics.private.id}), ("/delete", {})):
        answer = browser.submit(address + path, values)
        assert answer.status_code == 422, path
        assert "the only topic that everyone can see" in answer.text
    assert (again(topics.open).private, topics.open.deleted_at) == (False, None)
    Topic.restore(people.editor, garden.id)
    assert browser.submit(f"{address}/merge", {"into": topics.private.id}).status_code == 303
    assert browser.submit(f"/admin/topics/{garden.id}/private").status_code == 422


def test_two_editors_who_close_the_last_two_open_topics_at_once_leave_one(app, people, topics):
    editor, garden = SimpleNamespace(id=people.editor.id), add_topic(people.editor, "Garden").id
    first = topics.open.id
    db.session.rollback()
    outcomes = together(app, lambda: Topic.make_private(editor, first), lambda: Topic.make_private(editor, garden))
    assert sum(isinstance(outcome, ValidationError) for outcome in outcomes) == 1, outcomes
    assert count(Topic, ~Topic.private, Topic.deleted_at.is_(None)) == 1


def test_an_administrator_joins_a_private_topic_and_that_is_recorded(people, topics, sign_in):
    secret = add_topic(people.editor, "Secret", private=True)
    post, browser = add_post(people.editor, secret, "Between us"), sign_in(people.admin)
    assert browser.get(f"/posts/{post.id}").status_code == 404
    assert "Secret" in browser.get("/admin/topics").text
    assert sign_in(people.editor).submit(f"/admin/topics/{secret.id}/join").status_code == 403
    for _ in range(2):
        assert browser.submit(f"/admin/topics/{secret.id}/join").location == f"/topics/{secret.slug}"
    assert browser.get(f"/posts/{post.id}").status_code == 200
    assert "Secret" in browser.get("/").text
    assert count(Activity, Activity.action == "topic.joined", Activity.actor_id == people.admin.id) == 1


def test_an_editor_outside_learns_nothing_of_a_private_topic(people, topics, sign_in):
    browser = sign_in(add_person("outside", Role.EDITOR))
    assert "Management" not in browser.get("/admin/topics").text
    for method, path in (("get", ""), ("submit", ""), ("submit", "/move"), ("get", "/merge"), ("submit", "/merge")):
        assert getattr(browser, method)(f"/admin/topics/{topics.private.id}{path}").status_code == 404
