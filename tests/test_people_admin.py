"""Looking after people: filters, usernames, what is somebody's own to take along, and erasing for ever."""

from __future__ import annotations

import io
import json
import re
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import add_comment, add_person, add_post, add_topic
from world import set_columns, value

import app as corkboard
from app import (
    Activity,
    ApiToken,
    Attachment,
    Comment,
    Follow,
    Notification,
    Post,
    Reaction,
    Role,
    SignIn,
    StoredFile,
    Topic,
    User,
    ValidationError,
    store_upload,
    stored_path,
)
from database import db, utcnow


def listed(browser, query: str = "") -> list[str]:
    """Whom the list of Administration shows, by username."""
    return re.findall(r'data-label="Username">([^<]+)<', browser.get(f"/admin/people{query}").text)


def upload(name: str = "notes.txt", content: bytes = b"Words") -> StoredFile:
    return store_upload(corkboard.FileStorage(io.BytesIO(content), name))


def fresh(model: Any, row_id: int) -> Any:
    db.session.rollback()
    return db.session.get(model, row_id, populate_existing=True)


# -- The list ----------------------------------------------------------------------------------------------------------


def test_people_are_found_by_state_role_topic_and_when_they_were_last_seen(people, topics, sign_in):
    browser, now = sign_in(people.admin), utcnow()
    User.deactivate(people.admin, people.reader.id)
    set_columns(User, people.member.id, last_active_at=now - timedelta(days=80))
    set_columns(User, people.editor.id, last_active_at=now - timedelta(days=100))
    assert listed(browser, "?state=deactivated") == ["reader"]
    assert "reader" not in listed(browser, "?state=active")
    assert listed(browser, f"?role={int(Role.EDITOR)}") == ["editor"]
    assert "stranger" not in listed(browser, f"?topic={topics.private.id}")
    assert {"member", "editor", "reader"} <= {*listed(browser, f"?topic={topics.private.id}")}
    assert {"editor", "stranger"} <= {*listed(browser, "?unseen=90")}, "some were never seen"
    assert not {"member", "admin"} & {*listed(browser, "?unseen=90")}
    assert listed(browser, "?q=editor&state=active") == ["editor"]


def test_filters_that_say_nothing_are_ignored_and_one_that_finds_nobody_says_so(people, sign_in):
    browser = sign_in(people.admin)
    everybody = listed(browser)
    assert listed(browser, "?state=x&role=7&topic=x&unseen=5") == everybody
    assert "No matches" in browser.get("/admin/people?q=nobody.here").text


def test_the_list_goes_on_for_pages(people, sign_in, monkeypatch):
    browser = sign_in(people.admin)
    everybody = listed(browser, "?state=active")
    monkeypatch.setattr(corkboard, "PEOPLE_PER_PAGE", 2)
    seen, address = [], "?state=active"
    while address:
        seen += listed(browser, address)
        onward = re.search(r'rel="next"\s+href="/admin/people([^"]+)"', browser.get(f"/admin/people{address}").text)
        address = onward[1].replace("&amp;", "&") if onward else ""
    assert seen == everybody


def test_a_private_topic_that_an_administrator_does_not_see_is_no_filter(people, sign_in):
    secret = add_topic(people.editor, "Salaries", members=[people.member.id])
    browser = sign_in(people.admin)
    assert "Salaries" not in browser.get("/admin/people").text
    assert listed(browser, f"?topic={secret.id}") == listed(browser)


# -- What counts from the next request on ------------------------------------------------------------------------------


def with_token(app, person: User, scope: str = "write"):
    raw = ApiToken.create(person, form_id="f" * 32, name="A program", scope=scope, expires_at=None)
    client = app.test_client()
    return lambda path, **kw: client.open(path, headers={"Authorization": f"Bearer {raw}"}, **kw)


def test_a_demotion_counts_for_sessions_and_tokens_from_the_next_request(app, people, topics, sign_in):
    browser, program = sign_in(people.editor), with_token(app, people.editor)
    new = {"json": {"name": "A topic"}, "method": "POST"}
    assert browser.get("/admin/topics").status_code == 200
    assert program("/api/v1/topics", **new).status_code == 201
    User.set_role(people.admin, people.editor.id, Role.READER)
    assert browser.get("/admin/topics").status_code == 403
    assert program("/api/v1/topics", **new).status_code == 403
    assert program("/api/v1/me").status_code == 200


@pytest.mark.parametrize("put_out", [User.deactivate, User.erase])
def test_who_is_put_out_has_neither_session_nor_token_from_the_next_request(app, people, sign_in, put_out):
    browser, program = sign_in(people.member), with_token(app, people.member)
    assert browser.get("/").status_code == program("/api/v1/me").status_code == 200
    put_out(people.admin, people.member.id)
    assert browser.get("/").status_code == 302
    assert program("/api/v1/me").status_code == 401


def test_what_a_deactivated_person_wrote_stays_and_bears_their_name(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    User.deactivate(people.admin, people.member.id)
    assert people.member.name in sign_in(people.reader).get(f"/posts/{post.id}").text


# -- Usernames ---------------------------------------------------------------------------------------------------------


def test_an_administrator_changes_a_username(people, sign_in):
    admin, own = sign_in(people.admin), sign_in(people.member)
    answer = admin.submit(f"/admin/people/{people.member.id}", {"name": "Ana", "username": "ana.lima"})
    assert answer.status_code == 303
    assert own.get("/people/Ana.Lima").status_code == 200
    assert own.get("/people/member").status_code == 404
    changes = db.session.scalars(sa.select(Activity.changes).where(Activity.action == "person.edited"))
    assert '["member", "ana.lima"]' in " ".join(changes)


def test_a_username_that_is_wrong_or_taken_comes_back_as_typed(people, sign_in):
    admin = sign_in(people.admin)
    for typed, said in (("editor", "taken"), ("-x-", "Use letters"), ("", "Fill this in")):
        answer = admin.submit(f"/admin/people/{people.member.id}", {"name": "Ana", "username": typed})
        assert answer.status_code == 422
        assert said in answer.text
        assert f'value="{typed}"' in answer.text
    assert fresh(User, people.member.id).username == "member"


def test_mentions_of_an_old_username_become_words(people, topics, sign_in):
    post = add_post(people.editor, topics.open, body="Ask @Member, or [see](/people/member).")
    comment = add_comment(people.editor, post, "So says @member.")
    assert 'class="mention" href="/people/Member"' in post.html
    sign_in(people.admin).submit(f"/admin/people/{people.member.id}", {"name": "Ana", "username": "ana"})
    assert "mention" not in fresh(Post, post.id).html
    assert "@Member" in fresh(Post, post.id).html
    assert "mention" not in fresh(Comment, comment.id).html
    assert not corkboard.count_outdated_texts()


# -- What is one's own, to take along ----------------------------------------------------------------------------------


def archive_of(answer) -> dict[str, str]:
    assert answer.status_code == 200
    assert answer.mimetype == "application/zip"
    with answer, zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_an_export_holds_all_that_is_ones_own_and_nothing_of_others(people, topics, sign_in):
    own = add_post(people.member, topics.open, "My “news”", body="My **words** ✓")
    others = add_post(people.editor, topics.open, "Their news", body="Their words")
    add_comment(people.member, others, "My remark")
    add_comment(people.editor, own, "Their remark")
    Reaction.change(people.member, "like", True, post_id=others.id)
    Follow.choose(people.member, "muted", post_id=others.id)
    file = Attachment.create(people.member, upload(content=b"My file"))
    browser = sign_in(people.member)
    found = archive_of(browser.submit("/account/export"))
    assert json.loads(found["profile.json"])[0]["username"] == "member"
    assert [post["body"] for post in json.loads(found["posts.json"])] == ["My **words** ✓"]
    assert [comment["body"] for comment in json.loads(found["comments.json"])] == ["My remark"]
    assert json.loads(found["reactions.json"])[0]["kind"] == "like"
    assert "muted" in found["follows.json"]
    assert json.loads(found["sign-ins.json"])
    assert "person.exported" in found["activity.json"]
    assert json.loads(found["confirmations.json"]) == []
    assert found[f"files/{file.id}-notes.txt"] == "My file"
    whole = " ".join(found.values())
    assert not any(words in whole for words in ("Their", "scrypt", people.editor.email or "@"))


def test_an_export_names_nothing_of_a_private_topic_that_one_has_left_but_holds_what_one_wrote_there(
    people, topics, sign_in
):
    secret = add_topic(people.editor, "Salaries", members=[people.member.id])
    post = add_post(people.editor, secret, "Who earns what", body="Much")
    add_comment(people.member, post, "Not enough")
    Topic.remove_member(people.editor, secret.id, people.member.id)
    found = archive_of(sign_in(people.member).submit("/account/export"))
    whole = " ".join(found.values())
    assert "Not enough" in whole
    assert not any(words in whole for words in ("Salaries", "earns", "Much"))


def test_an_administrator_exports_somebodys_data_and_that_is_recorded(people, topics, sign_in):
    add_post(people.member, topics.open, body="My words")
    browser = sign_in(people.admin)
    answer = browser.submit(f"/admin/people/{people.member.id}/export")
    assert "member.zip" in answer.headers["Content-Disposition"]
    assert "My words" in archive_of(answer)["posts.json"]
    record = db.session.scalars(sa.select(Activity).where(Activity.action == "person.exported")).one()
    assert (record.actor_id, record.object_id) == (people.admin.id, people.member.id)
    assert browser.get(f"/admin/people/{people.member.id}/export").status_code == 405


def test_an_administrator_does_not_get_what_they_do_not_see_themselves(people, topics, sign_in):
    secret = add_topic(people.editor, "Salaries", members=[people.member.id])
    post = add_post(people.editor, secret, "Who earns what")
    add_comment(people.member, post, "Not enough")
    add_post(people.member, secret, body="In secret")
    add_post(people.member, topics.open, body="In the open")
    browser = sign_in(people.admin)
    assert "private topics you are not in" in browser.get(f"/admin/people/{people.member.id}").text
    whole = " ".join(archive_of(browser.submit(f"/admin/people/{people.member.id}/export")).values())
    assert "In the open" in whole
    assert not any(words in whole for words in ("Not enough", "In secret"))


def test_a_file_that_is_gone_from_the_disk_does_not_break_an_export(people, sign_in):
    file = Attachment.create(people.member, upload())
    stored_path(file.stored).unlink()
    found = archive_of(sign_in(people.member).submit("/account/export"))
    assert json.loads(found["files.json"])[0]["id"] == file.id


def test_the_record_of_ones_own_export_is_about_oneself(people, sign_in):
    with sign_in(people.member).submit("/account/export"):
        pass
    record = db.session.scalars(sa.select(Activity).where(Activity.action == "person.exported")).one()
    assert (record.object_type, record.object_id, record.actor_id) == ("user", people.member.id, people.member.id)


# -- Erasing -----------------------------------------------------------------------------------------------------------


def erase(browser, person: User):
    return browser.submit(f"/admin/people/{person.id}/erase")


def test_the_page_says_first_what_happens(people, sign_in):
    browser = sign_in(people.admin)
    page = browser.get(f"/admin/people/{people.member.id}/erase").text
    assert "This can&#39;t be undone" in page or "This can't be undone" in page
    assert "Backups still hold this data" in page
    assert fresh(User, people.member.id).erased_at is None


def test_what_an_erased_person_wrote_stays_under_former_colleague(people, topics, sign_in):
    post = add_post(people.member, topics.open, "The old news")
    remark = add_comment(people.member, add_post(people.editor, topics.open), "A remark")
    name = people.member.name
    set_columns(
        User,
        people.member.id,
        title="Baker",
        phone="123",
        location="Hall B",
        totp_secret="x",
        identity="y",
        must_change_password=True,
    )
    assert erase(sign_in(people.admin), people.member).status_code == 303
    reader = sign_in(people.reader)
    for page in (reader.get(f"/posts/{post.id}").text, reader.get(f"/posts/{remark.post_id}").text):
        assert "Former colleague" in page
        assert name not in page
    erased = fresh(User, people.member.id)
    assert erased.username == f"former-{erased.id}-"
    assert erased.erased_at
    assert erased.deactivated_at
    columns = (
        "email",
        "title",
        "phone",
        "location",
        "password_hash",
        "totp_secret",
        "identity",
        "last_active_at",
        "must_change_password",
    )
    assert not any(getattr(erased, column) for column in columns)
    assert "baker" not in erased.lookup
    assert reader.get("/people/member").status_code == 404
    assert "The old news" in reader.get("/search?q=old+news").text.replace("<mark>", "").replace("</mark>", "")


def test_an_erased_person_never_comes_back(people, sign_in):
    browser = sign_in(people.admin)
    erase(browser, people.member)
    page = browser.get(f"/admin/people/{people.member.id}").text
    assert "was erased on" in page
    assert "/reactivate" not in page
    for what in ("reactivate", "role", "password", "erase"):
        answer = browser.submit(f"/admin/people/{people.member.id}/{what}", {"role": "40", "username": "member"})
        assert answer.status_code == 404
    assert browser.submit("/login", {"username": "member", "password": ""}).status_code in (303, 422)
    assert fresh(User, people.member.id).deactivated_at


def test_files_in_no_text_are_gone_from_the_disk_at_once_and_those_in_posts_stay(people, topics, sign_in):
    loose, picture, kept = (upload(name) for name in ("loose.txt", "me.txt", "plan.txt"))
    Attachment.create(people.member, loose)
    Attachment.set_avatar(people.member, picture)
    file = Attachment.create(people.member, kept)
    post = add_post(people.member, topics.open, body=f"[The plan]({file.url})")
    in_draft = upload("draft.txt")
    drafted = Attachment.create(people.member, in_draft)
    draft_id = add_post(people.member, topics.open, "A draft", how="draft", body=f"[It]({drafted.url})").id
    post_id, address = post.id, file.url
    erase(sign_in(people.admin), people.member)
    assert not any(stored_path(stored).exists() for stored in (loose.stored, picture.stored, in_draft.stored))
    assert stored_path(kept.stored).exists()
    assert fresh(Post, draft_id) is None
    assert sign_in(people.reader).get(address, buffered=True).status_code == 200
    assert fresh(Post, post_id) is not None


def test_what_belonged_to_the_account_is_gone(app, people, topics, sign_in):
    sign_in(people.member)
    with_token(app, people.member)
    post = add_post(people.editor, topics.open, body="For @member")
    Follow.choose(people.member, "following", post_id=post.id)
    assert corkboard.count_of(Notification, Notification.user_id == people.member.id)
    values = {"form_id": "i" * 32, "role": Role.MEMBER, "token_hash": "t" * 64, "expires_at": utcnow()}
    db.session.add(corkboard.Invitation(author_id=people.admin.id, email="Member@example.com", **values))
    db.session.commit()
    erase(sign_in(people.admin), people.member)
    db.session.rollback()
    assert not corkboard.count_of(corkboard.Invitation)
    for model in (SignIn, ApiToken, Follow, Notification, corkboard.TopicMember):
        assert not corkboard.count_of(model, model.user_id == people.member.id), model
    assert "mention" not in fresh(Post, post.id).html


def test_to_erase_somebody_without_an_address_leaves_the_links_that_are_for_nobody_in_particular(people, sign_in):
    values = {"name": "Saturday team", "email": None, "role": Role.MEMBER, "uses_most": 5, "topic_ids": []}
    corkboard.Invitation.create(people.admin, form_id="i" * 32, **values)
    erase(sign_in(people.admin), add_person("ole", email=None))
    db.session.rollback()
    assert corkboard.count_of(corkboard.Invitation) == 1


def test_the_activity_keeps_what_was_done_without_name_and_address_and_says_that_somebody_was_erased(
    app, people, topics, sign_in
):
    name = people.member.name
    sign_in(people.member).submit(f"/topics/{topics.open.slug}/follow", {"state": "muted"})
    set_columns(Activity, value(sa.select(sa.func.max(Activity.id))), address="10.9.8.7", lookup="10.9.8.7 everyone")
    User.set_role(people.admin, people.member.id, Role.EDITOR)
    browser = sign_in(people.admin)
    erase(browser, people.member)
    db.session.rollback()
    rows = db.session.scalars(sa.select(Activity)).all()
    theirs = [row for row in rows if row.actor_id == people.member.id]
    assert theirs
    assert not any(row.address for row in theirs)
    assert not any("10.9.8.7" in row.lookup for row in rows)
    assert not any(name in f"{row.name} {row.detail} {row.changes}" for row in rows)
    record = rows[-1]
    assert (record.action, record.actor_id, record.object_id) == ("person.erased", people.admin.id, people.member.id)
    page = browser.get("/admin/activity").text
    assert name not in page
    assert "Former colleague" in page


def test_the_activity_forgets_former_names_too(people, topics, sign_in):
    Topic.add_members(people.editor, topics.private.id, [people.member.id])
    User.edit_person(people.admin, people.member.id, name="Mia Later", email="", username="mia")
    erase(sign_in(people.admin), people.member)
    db.session.rollback()
    kept = " ".join(f"{row.name} {row.detail} {row.lookup}" for row in db.session.scalars(sa.select(Activity)))
    assert "Member" not in kept
    assert "Mia" not in kept


def test_nobodys_username_stands_in_the_way(people, sign_in):
    add_person(f"former-{people.member.id}")
    erase(sign_in(people.admin), people.member)
    assert fresh(User, people.member.id).erased_at


def test_a_file_that_cannot_be_deleted_now_ends_no_erasure(people, topics, sign_in, monkeypatch):
    post = add_post(people.editor, topics.open, body="For @member")
    Attachment.create(people.member, upload())
    monkeypatch.setattr(Path, "unlink", lambda *_args, **_more: (_ for _ in ()).throw(PermissionError("in use")))
    erase(sign_in(people.admin), people.member)
    assert "mention" not in fresh(Post, post.id).html


def test_nobody_erases_themselves_and_only_administrators_erase(people, sign_in):
    assert erase(sign_in(people.admin), people.admin).status_code == 422
    assert erase(sign_in(people.editor), people.member).status_code == 403
    with pytest.raises(ValidationError):
        User.erase(people.admin, people.admin.id)
    assert fresh(User, people.admin.id).is_active


def test_an_erased_persons_name_and_address_can_be_taken_again(people, sign_in):
    email = people.member.email
    erase(sign_in(people.admin), people.member)
    assert add_person("member", email=email).id != people.member.id
