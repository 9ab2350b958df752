"""The recycle bin: what was deleted comes back with all that hangs on it, until it is deleted permanently."""

from __future__ import annotations

import html
import os
import re
import secrets
from datetime import timedelta
from io import BytesIO

import pytest
import sqlalchemy as sa
from conftest import add_comment, add_person, add_post, add_topic, edit_post
from test_files import bound, picture, stored_files, uploaded
from world import set_columns, value

import app as corkboard
from app import BIN_MODELS, Activity, Attachment, Bin, Comment, Post, Revision, Role, Topic, utcnow
from database import db


def shown(browser, kind: str = "post") -> str:
    return browser.get(f"/admin/bin?kind={kind}").text


def count(model) -> int:
    return value(sa.select(sa.func.count()).select_from(model.__table__))


def test_what_is_deleted_is_in_the_bin_with_who_and_when_and_comes_back(people, topics, sign_in):
    post = add_post(people.member, topics.open, "The old plan")
    comment = add_comment(people.stranger, add_post(people.member, topics.open, "The new plan"), "Words to regret")
    Post.delete(people.member, post.id)
    Comment.delete(people.editor, comment.id)
    browser = sign_in(people.editor)
    assert "The old plan" in shown(browser)
    assert "by Member" in shown(browser)
    assert "Words to regret" in shown(browser, "comment")
    assert "on The new plan" in shown(browser, "comment")
    assert browser.submit(f"/posts/{post.id}/restore").status_code == 303
    assert browser.submit(f"/comments/{comment.id}/restore").status_code == 303
    assert "The old plan" not in shown(browser)
    assert "There is nothing of this type in the bin" in shown(browser, "comment")
    assert "The old plan" in browser.get("/").text


def test_what_is_in_the_bin_is_shown_before_it_comes_back(people, topics, sign_in):
    member, editor = sign_in(people.member), sign_in(people.editor)
    photo, notes = uploaded(member, picture(), "the & tent.png"), uploaded(member, b"Seven tables", "seating.txt")
    body = f'Bring **chairs** & tables. ![The > "tent"](/files/{photo.id}/tent.png) [[Party plan]]'
    post = bound(member, topics.open, photo.id, notes.id, title="The <i> old plan", body=body)
    add_comment(people.stranger, db.session.get(Post, post), "Fine")
    Post.delete(people.editor, post)
    assert f'href="/admin/bin/posts/{post}"' in shown(editor)
    page = editor.get(f"/admin/bin/posts/{post}").text
    for words in (
        "<h1>The &lt;i&gt; old plan</h1>", "<strong>chairs</strong> &amp; tables", "<em>The &gt; &#34;tent&#34;</em>",
        "the &amp; tent.png", "seating.txt", "12 bytes", "It is restored with 1 comment.", "In Everyone",
    ):  # fmt: skip
        assert words in page, words
    assert re.search(r"Deleted <time[^>]*>just now</time> by Editor\.", page)
    assert re.search(r"Member, <time[^>]*>just now</time>", page)
    main = page.partition("<main")[2].partition("</main>")[0]
    assert not re.search("<(img|input|textarea|form)|/edit|/comments|/files/", main), "nothing to change, nothing sent"
    assert f'formaction="/posts/{post}/restore"' in main
    assert editor.submit(f"/posts/{post}/restore").status_code == 303
    assert editor.get(f"/admin/bin/posts/{post}").status_code == 404


def test_a_deleted_comment_is_shown_with_its_post(people, topics, sign_in):
    comment = add_comment(people.stranger, add_post(people.member, topics.open, "The new plan"), "Words *to* regret")
    Comment.delete(people.editor, comment.id)
    editor = sign_in(people.editor)
    page = editor.get(f"/admin/bin/comments/{comment.id}").text
    assert "Words <em>to</em> regret" in page
    assert "On The new plan" in page
    assert f'formaction="/comments/{comment.id}/restore"' in page
    assert f'href="/admin/bin/comments/{comment.id}"' in shown(editor, "comment")


def test_what_a_private_topic_or_somebody_else_threw_away_is_not_shown(people, topics, sign_in):
    inside = add_post(people.member, topics.private, "Salaries")
    draft = add_post(people.member, topics.open, "Unfinished", how="draft")
    comment = add_comment(people.member, inside, "Too high")
    Comment.delete(people.member, comment.id)
    assert sign_in(people.editor).get(f"/admin/bin/comments/{comment.id}").status_code == 200
    for post in (inside, draft):
        Post.delete(people.member, post.id)
    assert sign_in(people.editor).get(f"/admin/bin/posts/{inside.id}").status_code == 200
    assert sign_in(people.editor).get(f"/admin/bin/posts/{draft.id}").status_code == 404
    assert sign_in(people.editor).get(f"/admin/bin/comments/{comment.id}").status_code == 404, "its post is gone, too"
    Post.restore(people.member, inside.id)
    Topic.remove_member(people.admin, topics.private.id, people.editor.id)
    assert sign_in(people.editor).get(f"/admin/bin/comments/{comment.id}").status_code == 404
    assert sign_in(people.admin).get(f"/admin/bin/comments/{comment.id}").status_code == 200


def test_a_deleted_topic_takes_all_that_is_in_it_and_brings_it_back(people, topics, sign_in):
    topic = add_topic(people.editor, "Summer party")
    post = add_post(people.member, topic, "Who brings what", body="Salads")
    add_comment(people.member, post, "Bread")
    browser = sign_in(people.editor)
    answer = browser.submit(f"/admin/topics/{topic.id}/delete", follow_redirects=True)
    assert "Topic deleted, with everything in it." in answer.text
    assert f"/admin/topics/{topic.id}/restore" in answer.text, "there is a way back at once"
    for path in ("/", "/admin/topics", "/people/member"):
        assert "Who brings what" not in browser.get(path).text
    assert browser.get(f"/posts/{post.id}").status_code == 404
    assert browser.get(f"/topics/{topic.slug}").status_code == 404
    assert "with 1 post" in shown(browser, "topic")
    browser.submit(f"/admin/topics/{topic.id}/restore")
    assert "Who brings what" in browser.get("/").text
    assert "Bread" in browser.get(f"/posts/{post.id}").text


def test_the_last_topic_of_all_stays(people, topics, sign_in):
    for other in db.session.scalars(sa.select(Topic.id).where(~Topic.private, Topic.id != topics.open.id)).all():
        Topic.delete(people.editor, other)
    browser = sign_in(people.editor)
    answer = browser.submit(f"/admin/topics/{topics.open.id}/delete", follow_redirects=True)
    assert "the only topic that everyone can see" in answer.text
    assert value(sa.select(Topic.deleted_at).where(Topic.id == topics.open.id)) is None


def test_a_topic_comes_back_even_if_another_bears_its_name_by_now(people, topics, sign_in):
    topic = add_topic(people.editor, "Garden")
    Topic.delete(people.editor, topic.id)
    again = add_topic(people.editor, "GARDEN")
    assert sign_in(people.editor).submit(f"/admin/topics/{topic.id}/restore").status_code == 303
    assert again.slug != topic.slug
    assert value(sa.select(Topic.deleted_at).where(Topic.id == topic.id)) is None


@pytest.mark.parametrize("kind", ["posts", "comments", "files"])
def test_what_an_editor_deleted_only_an_editor_brings_back(people, topics, sign_in, kind):
    member, editor = sign_in(people.member), sign_in(people.editor)
    file = uploaded(member, b"Words to regret", "regret.txt")
    post = bound(member, topics.open, file.id)
    comment = add_comment(people.member, db.session.get(Post, post), "Words to regret")
    thing = {"posts": post, "comments": comment.id, "files": file.id}[kind]
    assert member.submit(f"/{kind}/{thing}/delete").status_code == 303
    assert member.submit(f"/{kind}/{thing}/restore").status_code == 303, "one takes back what one did oneself"
    assert editor.submit(f"/{kind}/{thing}/delete").status_code == 303
    for act in ("restore", "delete"):
        assert member.submit(f"/{kind}/{thing}/{act}").status_code == 403, act
    assert f"/{kind}/{thing}/restore" not in member.get("/").text
    deleted = sa.select({"posts": Post, "comments": Comment, "files": Attachment}[kind].deleted_at)
    assert value(deleted.where(sa.text("id = :id").bindparams(id=thing))) is not None
    assert sign_in(people.admin).submit(f"/{kind}/{thing}/restore").status_code == 303


def test_nobody_finds_what_a_private_topic_threw_away(people, topics, sign_in):
    post = add_post(people.member, topics.private, "Salaries")
    Post.delete(people.member, post.id)
    Topic.remove_member(people.editor, topics.private.id, people.admin.id)
    outsider = sign_in(people.admin)
    assert "Salaries" not in shown(outsider)
    assert outsider.submit(f"/posts/{post.id}/restore").status_code == 404
    outsider.submit("/admin/bin/empty")
    assert value(sa.select(Post.id).where(Post.id == post.id)) == post.id, "nor removes it unseen"


def test_the_bin_is_emptied_after_a_question_and_leaves_nothing(people, topics, sign_in):
    post = add_post(people.member, topics.open, "Gone for good")
    edit_post(people.member, post, body="Second")
    add_comment(people.member, post, "And this")
    kept = add_post(people.member, topics.open, "Kept")
    comment = add_comment(people.member, kept, "Taken back")
    Comment.edit(people.member, comment.id, body="Taken back twice")
    topic = add_topic(people.editor, "Closed down")
    ids = {topic.id}
    add_post(people.member, topic, "With the topic")
    old = add_topic(people.editor, "Older name")
    ids.add(old.id)
    Topic.merge(people.editor, old.id, topic.id)
    Post.delete(people.member, post.id)
    Comment.delete(people.member, comment.id)
    Topic.delete(people.editor, topic.id)
    browser = sign_in(people.admin)
    question = browser.get("/admin/bin/empty")
    assert "cannot be undone" in question.text
    assert count(Post) == 3
    assert "deleted permanently" in browser.submit("/admin/bin/empty", follow_redirects=True).text
    assert (count(Post), count(Comment)) == (1, 0)
    assert value(sa.select(sa.func.count()).select_from(Revision)) == 1
    assert not ids & set(db.session.scalars(sa.select(Topic.id)))
    actions = db.session.scalars(sa.select(Activity.action).where(Activity.actor_id == people.admin.id)).all()
    assert "bin.emptied" in actions


def test_the_site_empties_the_bin_by_itself_of_what_is_old(app, people, topics):
    old, young = (add_post(people.member, topics.open, title) for title in ("Old", "Young"))
    for post, days in ((old, 31), (young, 29)):
        Post.delete(people.member, post.id)
        set_columns(Post, post.id, deleted_at=utcnow() - timedelta(days=days))
    assert corkboard.empty_bin() == 1
    assert set(db.session.scalars(sa.select(Post.id))) == {young.id}


def test_a_team_may_keep_everything(app, people, topics):
    post = add_post(people.member, topics.open)
    Post.delete(people.member, post.id)
    set_columns(Post, post.id, deleted_at=utcnow() - timedelta(days=4000))
    corkboard.Setting.change(people.admin, bin_days="0")
    assert corkboard.empty_bin() == 0
    assert count(Post) == 1


def test_a_full_bin_is_turned_page_by_page(people, topics, sign_in):
    posts = [add_post(people.member, topics.open, f"Number {number:02d}") for number in range(corkboard.PAGE_SIZE + 5)]
    for post in posts:
        Post.delete(people.member, post.id)
    browser, seen, address = sign_in(people.editor), [], "/admin/bin"
    while address:
        page = browser.get(address).text
        seen += [int(number) for number in re.findall(r'formaction="/posts/(\d+)/restore"', page)]
        older = re.search(r'rel="next"\s+href="([^"]+)"', page)
        address = html.unescape(older[1]) if older else ""
    assert seen == [post.id for post in reversed(posts)]


def test_only_those_who_may_remove_can(people, topics):
    Post.delete(people.member, add_post(people.member, topics.open).id)
    with pytest.raises(corkboard.Forbidden):
        Bin.empty(people.editor, utcnow())
    assert count(Post) == 1


def test_whatever_refers_to_a_thing_goes_with_it(people, topics):
    """However many tables there will be: each row that hangs on a post in any of them is gone with the post."""
    post = add_post(people.member, topics.open)
    add_comment(people.member, post, "Below it")
    Post.delete(people.member, post.id)
    Bin.empty(people.admin, utcnow())
    for table in db.metadata.tables.values():
        for key in table.foreign_keys:
            if key.column.table.name in ("posts", "comments"):
                assert not value(sa.select(sa.func.count()).where(key.parent.is_not(None))), key.parent


# -- Files -------------------------------------------------------------------------------------------------------------


def deleted_file(browser, topic, name: str, **typed):
    """A file that was in a new post and has been deleted from it."""
    file = uploaded(browser, b"Seven tables, forty chairs", name)
    bound(browser, topic, file.id, **typed)
    assert browser.submit(f"/files/{file.id}/delete").status_code == 303
    return file


def on_disk(file) -> bool:
    return file.stored in {path.name for path in stored_files()}


def test_a_deleted_file_is_listed_with_who_and_when_and_comes_back(people, topics, sign_in):
    member, editor = sign_in(people.member), sign_in(people.editor)
    file = deleted_file(member, topics.open, "seating.txt", title="The summer party")
    set_columns(Attachment, file.id, deleted_at=utcnow() - timedelta(minutes=5))
    listed = shown(editor, "file")
    assert "seating.txt" in listed
    assert re.search(r"in The summer party, deleted <time [^>]*>[456] minutes ago</time> by Member", listed)
    address = f"/files/{file.id}/seating.txt"
    assert member.get(address).status_code == 404
    assert editor.submit(f"/files/{file.id}/restore").status_code == 303
    assert member.get(address, buffered=True).data == b"Seven tables, forty chairs"
    assert "There is nothing of this type in the bin" in shown(editor, "file")


def test_a_file_that_is_removed_for_good_leaves_the_disk_with_the_next_cleaning(people, topics, sign_in):
    for path in stored_files():  # of other tests
        path.unlink()
    member = sign_in(people.member)
    gone, kept = deleted_file(member, topics.open, "gone.txt"), uploaded(member, b"Kept", "kept.txt")
    bound(member, topics.open, kept.id)
    assert (
        "1 item deleted permanently"
        in sign_in(people.admin).submit("/admin/bin/empty", follow_redirects=True).text.lower()
    )
    assert value(sa.select(Attachment.id).where(Attachment.id == gone.id)) is None
    for path in stored_files():  # what is young may be about to get its row
        os.utime(path, (0, 0))
    assert on_disk(gone)
    assert Attachment.prune() == 1
    assert not on_disk(gone)
    assert on_disk(kept)


def test_no_id_is_used_again_when_the_bin_is_emptied(people, topics):
    made = {
        "post": lambda: add_post(people.member, topics.open).id,
        "comment": lambda: add_comment(people.member, standing).id,
        "topic": lambda: add_topic(people.editor, secrets.token_hex(4)).id,
    }
    standing = add_post(people.member, topics.open)
    for kind, make in made.items():
        model, last = BIN_MODELS[kind], make()
        model.delete(people.editor, last)
        Bin.empty(None, utcnow())
        assert value(sa.select(model.id).where(model.id == last)) is None
        assert make() > last, "an old link never shows another thing"


def test_nobody_outside_finds_a_file_that_a_private_topic_threw_away(people, topics, sign_in):
    file = deleted_file(sign_in(people.member), topics.private, "salaries.txt", title="Between us")
    assert "salaries.txt" in shown(sign_in(people.editor), "file")
    Topic.remove_member(people.editor, topics.private.id, people.admin.id)
    for outsider in (sign_in(add_person("newcomer", Role.EDITOR)), sign_in(people.admin)):
        assert "salaries.txt" not in shown(outsider, "file")
        assert "Between us" not in shown(outsider, "file")
        assert outsider.submit(f"/files/{file.id}/restore").status_code == 404
    sign_in(people.admin).submit("/admin/bin/empty")
    assert value(sa.select(Attachment.id).where(Attachment.id == file.id)) == file.id, "nor removes it unseen"


def test_a_picture_of_a_person_that_was_taken_away_is_in_no_bin(people, sign_in):
    member = sign_in(people.member)
    typed = {
        "name": "Member",
        "email": people.member.email,
        "stand_in_id": "",
        "upload": (BytesIO(picture()), "me.png"),
    }
    assert member.submit("/account", typed).status_code == 303
    shown_once = value(sa.select(Attachment.id).where(Attachment.person_id == people.member.id))
    assert shown_once is not None
    assert member.submit(f"/files/{shown_once}/delete").status_code == 303
    assert value(sa.select(Attachment.deleted_at).where(Attachment.id == shown_once)) is not None
    for viewer in (people.member, people.editor, people.admin):
        assert (
            "There is nothing of this type" in sign_in(viewer).get("/admin/bin?kind=file").text
            or viewer is people.member
        )
    assert "There is nothing of this type in the bin" in shown(sign_in(people.admin), "file")


def test_a_picture_that_a_person_had_before_leaves_the_site_with_what_else_is_old(app, people, sign_in):
    member = sign_in(people.member)
    for name in ("before.png", "now.png"):
        typed = {
            "name": "Member",
            "email": people.member.email,
            "stand_in_id": "",
            "upload": (BytesIO(picture()), name),
        }
        assert member.submit("/account", typed).status_code == 303
    pictures = sa.select(sa.func.count()).where(Attachment.person_id == people.member.id)
    with app.app_context():
        assert (Bin.empty(None, utcnow() - timedelta(days=1)), value(pictures)) == (0, 2)
        assert (Bin.empty(None, utcnow()), value(pictures.where(Attachment.deleted_at.is_(None)))) == (1, 1)
        assert value(pictures) == 1
