"""Reactions: each kind once, counted and named where they are shown, given and taken back by everybody who reads."""

from __future__ import annotations

import re
from datetime import timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from conftest import add_comment, add_person, add_post, edit_post, together
from world import set_columns

from app import (
    REACTIONS,
    WHO_MOST,
    Activity,
    Bin,
    Comment,
    NotVisible,
    Post,
    Reaction,
    Topic,
    TopicMember,
    User,
    ValidationError,
)
from database import db, utcnow

CHIP = re.compile(
    r'name="(add|remove)"\s+value="(\w+)"\s+aria-pressed="(\w+)"\s+title="([^"]+)"><span[^>]*>[^<]+</span> (\d+) '
)
KINDS = list(REACTIONS)


@pytest.fixture
def post(people, topics):
    return add_post(people.member, topics.open)


@pytest.fixture
def remark(people, post):
    return add_comment(people.member, post)


def chips(text: str) -> list[tuple[str, ...]]:
    """What a page shows of reactions: what the button does, the kind, whether it is pressed, who, how many."""
    return CHIP.findall(text)


def given_to(**on: int) -> list[tuple[int, str]]:
    """Who gave what, as the table has it."""
    db.session.rollback()
    statement = sa.select(Reaction.user_id, Reaction.kind).filter_by(**on).order_by(Reaction.id)
    return [tuple(found) for found in db.session.execute(statement)]


def recorded(action: str) -> int:
    db.session.rollback()
    return len(db.session.scalars(sa.select(Activity).where(Activity.action == action)).all())


# -- Giving and taking back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["post", "comment"])
def test_a_reader_reacts_and_a_second_click_takes_it_back(people, post, remark, sign_in, of):
    thing = post if of == "post" else remark
    browser, on = sign_in(people.reader), {f"{of}_id": thing.id}
    answer = browser.submit(f"/{of}s/{thing.id}/react", {"add": "like"})
    assert answer.status_code == 303
    assert chips(browser.get(f"/posts/{post.id}").text) == [("remove", "like", "true", "Like: You", "1")]
    assert chips(sign_in(people.member).get(f"/posts/{post.id}").text) == [
        ("add", "like", "false", "Like: Reader", "1")
    ]
    browser.submit(f"/{of}s/{thing.id}/react", {"remove": "like"})
    assert chips(browser.get(f"/posts/{post.id}").text) == []
    assert given_to(**on) == []
    assert recorded("reaction.added") == recorded("reaction.removed") == 1


def test_each_kind_counts_once_a_person_and_stands_in_its_order(people, post, sign_in):
    for who in (people.reader, people.member, people.editor):
        for kind in ("done", "like", "like"):
            Reaction.change(who, kind, True, post_id=post.id)
    Reaction.change(people.member, "done", False, post_id=post.id)
    page = sign_in(people.member).get(f"/posts/{post.id}").text
    assert chips(page) == [
        ("remove", "like", "true", "Like: You, Reader, Editor", "3"),
        ("add", "done", "false", "Done: Reader, Editor", "2"),
    ]
    assert recorded("reaction.added") == 6


def test_the_same_again_changes_nothing_and_is_not_written_down(people, post):
    for _ in range(2):
        Reaction.change(people.reader, "love", True, post_id=post.id)
    Reaction.change(people.member, "love", False, post_id=post.id)
    assert given_to(post_id=post.id) == [(people.reader.id, "love")]
    assert (recorded("reaction.added"), recorded("reaction.removed")) == (1, 0)


@pytest.mark.parametrize("sent", [{}, {"add": "hate"}, {"remove": ""}, {"add": "like" * 50}, {"kind": "like"}])
def test_only_the_kinds_that_there_are(people, post, sign_in, sent):
    assert sign_in(people.reader).submit(f"/posts/{post.id}/react", sent).status_code == 422
    with pytest.raises(ValidationError):
        Reaction.change(people.reader, "hate", True, post_id=post.id)
    assert given_to(post_id=post.id) == []


def test_the_script_is_told_what_stands_now(people, post, sign_in):
    Reaction.change(people.editor, "cheer", True, post_id=post.id)
    browser = sign_in(people.reader)
    answer = browser.submit(f"/posts/{post.id}/react", {"add": "cheer"}, headers={"X-Requested-With": "fetch"})
    assert answer.status_code == 200
    assert "<html" not in answer.text
    assert chips(answer.text) == [("remove", "cheer", "true", "Hooray: You, Editor", "2")]


def test_without_the_form_of_the_site_nothing_happens(people, post, sign_in):
    assert sign_in(people.reader).post(f"/posts/{post.id}/react", data={"add": "like"}).status_code == 400
    assert given_to(post_id=post.id) == []


# -- Where nobody reacts -----------------------------------------------------------------------------------------------


def test_what_is_not_out_deleted_or_not_seen_cannot_be_reacted_to(people, topics, post, remark):
    private = add_post(people.member, topics.private)
    hidden, gone = add_comment(people.member, private), add_comment(people.member, post)
    Comment.delete(people.member, gone.id)
    draft = add_post(people.member, topics.open, how="draft")
    later = add_post(people.member, topics.open, scheduled_for=utcnow() + timedelta(days=1))
    below = add_comment(people.member, deleted := add_post(people.member, topics.open))
    Post.delete(people.member, deleted.id)
    refused = [
        (people.stranger, {"post_id": private.id}), (people.stranger, {"comment_id": hidden.id}),
        (people.member, {"comment_id": gone.id}), (people.member, {"post_id": draft.id}),
        (people.member, {"post_id": later.id}), (people.editor, {"post_id": later.id}),
        (people.member, {"post_id": deleted.id}), (people.member, {"comment_id": below.id}),
        (people.member, {"post_id": 999_999}), (people.member, {"comment_id": 999_999}),
    ]  # fmt: skip
    for who, on in refused:
        for given_or_not in (True, False):
            with pytest.raises(NotVisible):
                Reaction.change(who, "like", given_or_not, **on)
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Reaction)) == 0


def test_a_draft_has_no_button_for_it(people, topics, sign_in):
    draft = add_post(people.member, topics.open, how="draft")
    assert "data-react" not in sign_in(people.member).get(f"/posts/{draft.id}").text


def test_who_is_taken_out_of_a_topic_stays_counted_and_reacts_no_more(people, topics, sign_in):
    post = add_post(people.member, topics.private)
    Reaction.change(people.reader, "like", True, post_id=post.id)
    with db.engine.begin() as connection:
        connection.execute(sa.delete(TopicMember).where(TopicMember.user_id == people.reader.id))
    assert sign_in(people.reader).submit(f"/posts/{post.id}/react", {"remove": "like"}).status_code == 404
    assert chips(sign_in(people.member).get(f"/posts/{post.id}").text) == [
        ("add", "like", "false", "Like: Reader", "1")
    ]


# -- Who reacted -------------------------------------------------------------------------------------------------------


def test_a_page_of_its_own_names_everybody(people, post, remark, sign_in):
    crowd = [add_person(f"p{number}", name=f"Person {number:02}") for number in range(WHO_MOST + 3)]
    for person in crowd:
        Reaction.change(person, "love", True, comment_id=remark.id)
    browser = sign_in(people.reader)
    shown = chips(browser.get(f"/posts/{post.id}").text)[0]
    assert shown[3].endswith("Person 09 and 3 others")
    page = browser.get(f"/comments/{remark.id}/react").text
    assert ", ".join(person.name for person in crowd) in page
    assert page.count("No one yet") == len(KINDS) - 1


def test_a_new_name_is_shown_at_once_and_who_left_is_still_named(people, post, sign_in):
    Reaction.change(people.member, "like", True, post_id=post.id)
    browser = sign_in(people.reader)
    browser.get(f"/posts/{post.id}")
    User.edit_profile(people.member, name="Somebody Else")
    assert "Like: Somebody Else" in browser.get(f"/posts/{post.id}").text
    set_columns(User, people.member.id, deactivated_at=utcnow())
    assert "Somebody Else" in browser.get(f"/posts/{post.id}/react").text


def test_names_are_words_and_nothing_else(people, post, sign_in):
    nasty = add_person("nasty", name='<b>"Bo" & Co</b>')
    Reaction.change(nasty, "like", True, post_id=post.id)
    for page in (f"/posts/{post.id}", f"/posts/{post.id}/react"):
        text = sign_in(people.reader).get(page).text
        assert "<b>" not in text.partition("<main")[2]
        assert "&amp; Co" in text


# -- Staying right -----------------------------------------------------------------------------------------------------


def test_the_same_reaction_at_the_same_moment_counts_once(app, people, post, remark):
    reader = SimpleNamespace(id=people.reader.id)
    for on in ({"post_id": post.id}, {"comment_id": remark.id}):
        results = together(app, *[lambda on=on: Reaction.change(reader, "like", True, **on)] * 4)
        assert results == [None] * 4
        assert given_to(**on) == [(reader.id, "like")]
    assert recorded("reaction.added") == 2


def test_of_many_at_the_same_moment_each_is_counted(app, people, post, sign_in):
    everybody = [SimpleNamespace(id=person.id) for person in vars(people).values()]
    together(app, *(lambda who=who: Reaction.change(who, "like", True, post_id=post.id) for who in everybody))
    assert {who for who, _kind in given_to(post_id=post.id)} == {who.id for who in everybody}
    ((*_, count),) = chips(sign_in(people.reader).get(f"/posts/{post.id}").text)
    assert int(count) == len(everybody)
    together(app, *(lambda who=who: Reaction.change(who, "like", False, post_id=post.id) for who in everybody))
    assert given_to(post_id=post.id) == []


def test_each_comment_shows_its_own_reactions(people, post, sign_in):
    remarks = [add_comment(people.member, post) for _ in range(3)]
    for comment, kind in zip(remarks, KINDS, strict=False):
        Reaction.change(people.reader, kind, True, comment_id=comment.id)
    page = sign_in(people.reader).get(f"/posts/{post.id}").text
    for comment, kind in zip(remarks, KINDS, strict=False):
        _, _, after = page.partition(f'id="comment-{comment.id}"')
        assert [chip[1] for chip in chips(after.partition("</article>")[0])] == [kind]


def test_reactions_stay_through_edits_deleting_and_restoring_and_go_with_the_bin(people, post, remark, sign_in):
    Reaction.change(people.reader, "like", True, post_id=post.id)
    Reaction.change(people.reader, "done", True, comment_id=remark.id)
    edit_post(people.member, post, title="Another", body="Another text")
    Comment.edit(people.member, remark.id, body="Another remark")
    Post.delete(people.member, post.id)
    Post.restore(people.member, post.id)
    assert [chip[1] for chip in chips(sign_in(people.editor).get(f"/posts/{post.id}").text)] == ["like", "done"]
    Post.delete(people.member, post.id)
    Bin.empty(people.admin, utcnow())
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Reaction)) == 0


def test_reactions_move_with_a_topic_that_is_merged(people, topics, post, sign_in):
    other = Topic.create(people.editor, form_id="0" * 32, name="Other")
    Reaction.change(people.reader, "look", True, post_id=post.id)
    Topic.merge(people.editor, post.topic_id, other.id)
    assert [chip[1] for chip in chips(sign_in(people.reader).get(f"/posts/{post.id}").text)] == ["look"]
