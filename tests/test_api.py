"""The API as programs meet it: with tokens, or as a script of a page; the same rules and words as the pages."""

from __future__ import annotations

import contextlib
import errno
import io
import re
import secrets
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import Browser, add_comment, add_post, add_topic, edit_post
from flask import Flask
from fuzzing import fuzz
from serving import Client, Site
from snapshot import changed, dump
from test_hostile_input import ATTACKS, executable
from test_role_matrix import MATRIX, address
from world import CAST, row, set_columns, stand_up, value

import app as corkboard
import database
from app import Acknowledgement, Activity, ApiToken, Attachment, Comment, Post, Role, Topic, User
from config import TestingConfig
from database import db


class Program:
    """A client that shows a token and speaks JSON."""

    def __init__(self, app: Flask, token: str = "") -> None:
        self.client = Browser(app, app.response_class, use_cookies=False)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def ask(path: str, body: Any = None, headers: dict[str, str] | None = None, **kw: Any) -> Any:
            kw |= {} if body is None else {"json": body}
            return self.client.open(
                f"/api/v1{path}", method=method.upper(), headers=self.headers | (headers or {}), buffered=True, **kw
            )

        return ask


Programs = Callable[..., Program]


@pytest.fixture
def program(app: Flask) -> Programs:
    """The program of a person: `program(people.member)` may write, `program(people.member, "read")` only reads."""

    def make(user: User | None = None, scope: str = "write", days: float | None = None) -> Program:
        return Program(app, token_of(user, scope, days) if user else "")

    return make


def token_of(user: User, scope: str = "write", days: float | None = None) -> str:
    ends = database.utcnow() + timedelta(days=days) if days is not None else None
    return ApiToken.create(user, form_id=secrets.token_hex(16), name="A program", scope=scope, expires_at=ends)


def problem(answer: Any, status: int) -> dict[str, Any]:
    """What an error says, in the form of RFC 9457."""
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    assert answer.json["status"] == status
    assert {"type", "title", "detail", "request_id", "errors"} <= answer.json.keys()
    return answer.json


def next_of(answer: Any) -> str:
    """Where the list goes on, "" where it ends."""
    link = re.fullmatch(r'</api/v1([^>]+)>; rel="next"', answer.headers.get("Link", ""))
    return link[1] if link else ""


def actions_of(user: User) -> list[str]:
    return list(db.session.scalars(sa.select(Activity.action).filter_by(actor_id=user.id).order_by(Activity.id)))


# -- Tokens: made, shown once, revoked ---------------------------------------------------------------------------------


def make_token(browser: Browser, **values: str) -> Any:
    return browser.submit("/account/tokens", {"name": "The display", "scope": "read", "days": "30"} | values)


def shown_token(answer: Any) -> str:
    return re.search(r'<code class="password">(ck_[\w-]{43})</code>', answer.text)[1]  # type: ignore[index]


def test_a_token_is_shown_once_and_kept_as_a_hash_only(people, sign_in, program):
    browser = sign_in(people.member)
    raw = shown_token(make_token(browser))
    listed = browser.get("/account/tokens").text
    assert raw not in listed
    assert f"{raw[:10]}…" in listed
    assert "The display" in listed
    assert "never used" in listed
    kept = row(ApiToken, value(sa.select(ApiToken.id)))
    assert kept.token_hash == corkboard.hash_token(raw)
    assert raw not in str(kept)


def test_a_token_opens_the_api_and_says_whose_it_is(app, people, sign_in):
    raw = shown_token(make_token(sign_in(people.member)))
    me = Program(app, raw).get("/me").json
    assert (me["id"], me["username"], me["role"]) == (people.member.id, "member", "Member")


def test_the_last_use_of_a_token_is_noted(app, people, sign_in):
    browser = sign_in(people.member)
    raw = shown_token(make_token(browser))
    Program(app, raw).get("/me")
    assert "last used" in browser.get("/account/tokens").text
    set_columns(ApiToken, value(sa.select(ApiToken.id)), last_used_at=database.utcnow() - timedelta(minutes=6))
    Program(app, raw).get("/me")
    assert database.utcnow() - value(sa.select(ApiToken.last_used_at)) < timedelta(minutes=1)


def test_a_form_sent_twice_makes_one_token_and_the_newer_one_counts(app, people, sign_in):
    browser, form_id = sign_in(people.member), secrets.token_hex(16)
    first, second = (shown_token(make_token(browser, form_id=form_id)) for _ in range(2))
    assert value(sa.select(sa.func.count(ApiToken.id))) == 1
    problem(Program(app, first).get("/me"), 401)
    assert Program(app, second).get("/me").status_code == 200


def test_only_an_administrator_makes_a_token_that_may_administer(people, sign_in):
    refused = make_token(sign_in(people.editor), scope="admin")
    assert refused.status_code == 422
    assert "Only administrators can give a program this access." in refused.text
    assert make_token(sign_in(people.admin), scope="admin").status_code == 200


def test_a_revoked_token_opens_nothing(app, people, sign_in):
    browser = sign_in(people.member)
    raw = shown_token(make_token(browser))
    assert browser.submit(f"/account/tokens/{value(sa.select(ApiToken.id))}/revoke").status_code == 303
    assert problem(Program(app, raw).get("/me"), 401)
    assert actions_of(people.member)[-2:] == ["token.created", "token.revoked"]


def test_nobody_revokes_the_token_of_another(people, sign_in, program):
    theirs = program(people.member)
    token_id = value(sa.select(ApiToken.id))
    assert sign_in(people.admin).submit(f"/account/tokens/{token_id}/revoke").status_code == 404
    assert theirs.get("/me").status_code == 200


def test_an_expired_token_opens_nothing(people, program, sign_in):
    problem(program(people.member, days=-1).get("/me"), 401)
    assert "Expired" in sign_in(people.member).get("/account/tokens").text
    assert program(people.member, days=1).get("/me").status_code == 200


@pytest.mark.parametrize(
    "header", ["Bearer ck_unknown", "Bearer", "bearer ", "Bearer ck_unknown, Bearer x", "Bearer a=b"]
)
def test_what_is_no_valid_token_opens_nothing(people, sign_in, header):
    browser = sign_in(people.member)
    answer = browser.get("/api/v1/me", headers={"Authorization": header})
    assert problem(answer, 401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_what_a_proxy_asks_for_by_the_same_header_leaves_the_session_alone(people, sign_in):
    headers = {"Authorization": "Basic bWVtYmVyOng="}
    assert sign_in(people.member).get("/api/v1/me", headers=headers).json["username"] == "member"
    problem(sign_in().get("/api/v1/me", headers=headers), 401)


def test_a_token_opens_no_page(app, people):
    token = token_of(people.member)
    assert Browser(app, app.response_class).get("/", headers={"Authorization": f"Bearer {token}"}).status_code == 302


def test_deactivation_ends_tokens_at_once_and_for_good(people, program):
    theirs = program(people.member)
    assert theirs.get("/me").status_code == 200
    User.deactivate(people.admin, people.member.id)
    problem(theirs.get("/me"), 401)
    User.reactivate(people.admin, people.member.id)
    problem(theirs.get("/me"), 401)


def test_another_role_counts_from_the_next_request(people, topics, program):
    theirs = program(people.member)
    said = {"topic_id": topics.open.id, "title": "One", "body": "Two"}
    assert theirs.post("/posts", said).status_code == 201
    User.set_role(people.admin, people.member.id, Role.READER)
    problem(theirs.post("/posts", said), 403)
    assert theirs.get("/posts").status_code == 200


def test_an_administrator_who_is_one_no_longer_reads_no_activity_with_their_token(people, program):
    theirs = program(people.admin, "admin")
    assert theirs.get("/activity").status_code == 200
    User.set_role(people.admin, people.editor.id, Role.ADMIN)
    User.set_role(people.editor, people.admin.id, Role.MEMBER)
    problem(theirs.get("/activity"), 403)


# -- Scopes, and the browser's session ---------------------------------------------------------------------------------


def test_a_token_that_may_read_changes_nothing(people, topics, program):
    post = add_post(people.member, topics.open)
    theirs = program(people.member, "read")
    assert theirs.get(f"/posts/{post.id}").status_code == 200
    refused = theirs.post(f"/posts/{post.id}/comments", {"body": "No."})
    assert problem(refused, 403)["detail"] == "This token isn't allowed to do that: it needs the scope write."
    problem(theirs.delete(f"/posts/{post.id}", headers={"If-Match": "*"}), 403)
    problem(theirs.post("/notifications/read"), 403)


@pytest.mark.parametrize("scope", ["read", "write"])
def test_the_activity_takes_a_token_that_may_administer(people, program, scope):
    refused = program(people.admin, scope).get("/activity")
    assert problem(refused, 403)["detail"] == "This token isn't allowed to do that: it needs the scope admin."


def test_a_script_of_a_page_asks_as_the_person_who_is_signed_in(people, topics, sign_in):
    browser, said = sign_in(people.member), {"topic_id": topics.open.id, "title": "One", "body": "Two"}
    problem(browser.post("/api/v1/posts", json=said), 400)
    assert value(sa.select(sa.func.count(Post.id))) == 0
    token = {"X-CSRFToken": browser.csrf_token()}
    assert browser.post("/api/v1/posts", json=said, headers=token).status_code == 201


@pytest.mark.parametrize(
    ("endpoint", "method"), [asked for asked in MATRIX if "api." in asked[0] and asked[1] != "GET"]
)
def test_no_change_is_made_for_a_session_without_the_token_of_a_page(app, endpoint, method):
    world = stand_up(app)
    cell = next(cell for cell in MATRIX[endpoint, method] if cell.person == "admin")
    path, browser = address(world, endpoint, cell).partition("?")[0], world.browser("admin")
    for token in ({}, {"X-CSRFToken": "made-up"}, {"X-CSRFToken": world.browser("member").csrf_token()}):
        problem(browser.open(path, method=method, json={}, headers={"If-Match": "*"} | token), 400)
    assert not changed(world.rows, dump())


def test_nobody_is_told_to_sign_in_by_a_problem_and_not_by_a_page(app, topics):
    client = Browser(app, app.response_class)
    problem(client.get("/api/v1/posts"), 401)
    problem(client.post("/api/v1/posts", json={"topic_id": 1}), 401)


# -- Posts and pages ---------------------------------------------------------------------------------------------------


def test_news_is_written_read_changed_and_deleted(people, topics, program):
    theirs = program(people.member)
    said = {"topic_id": topics.open.id, "title": " The  crane is back ", "body": "From **Monday** on."}
    created = theirs.post("/posts", said)
    assert created.status_code == 201
    post = created.json
    assert post["title"] == "The crane is back"
    assert post["html"] == "<p>From <strong>Monday</strong> on.</p>\n"
    assert post["state"] == "published"
    assert (post["topic"]["id"], post["topic"]["slug"]) == (topics.open.id, "everyone")
    assert post["author"] == {"id": people.member.id, "username": "member", "name": "Member"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", post["published_at"])
    path, read = f"/posts/{post['id']}", theirs.get(f"/posts/{post['id']}")
    assert read.json == post
    assert read.headers["ETag"] == created.headers["ETag"]
    changed = theirs.patch(path, {"body": "From Tuesday on."}, {"If-Match": read.headers["ETag"]})
    assert (changed.json["title"], changed.json["body"]) == ("The crane is back", "From Tuesday on.")
    assert changed.json["revision"] == 2
    deleted = theirs.delete(path, headers={"If-Match": changed.headers["ETag"]})
    assert (deleted.status_code, deleted.data) == (204, b"")
    problem(theirs.get(path), 404)
    assert actions_of(people.member)[-3:] == ["post.published", "post.edited", "post.deleted"]


def test_a_page_of_the_handbook_has_an_owner_and_reviews(people, topics, program):
    said = {
        "topic_id": topics.open.id, "title": "Keys", "body": "In the safe.", "kind": "page",
        "owner_id": people.reader.id, "review_every": 6,
    }  # fmt: skip
    created = program(people.editor).post("/posts", said).json
    assert (created["kind"], created["owner"]["username"], created["review_every"]) == ("page", "reader", 6)
    reader = program(people.reader, "read")
    assert [page["title"] for page in reader.get("/posts?kind=page").json] == ["Keys"]
    assert reader.get("/posts").json == []
    problem(program(people.member).post("/posts", said), 403)


def test_an_outsider_can_own_no_page_and_the_field_is_named(people, topics, program):
    said = {
        "topic_id": topics.private.id, "title": "Keys", "body": "In the safe.", "kind": "page",
        "owner_id": people.stranger.id,
    }  # fmt: skip
    refused = problem(program(people.editor).post("/posts", said), 422)
    assert refused["errors"] == {"owner_id": ["Stranger can't see that topic. Choose someone who can."]}


def test_a_draft_stays_with_its_author_until_it_is_published(people, topics, program):
    theirs, others = program(people.member), program(people.editor)
    draft = theirs.post("/posts", {"topic_id": topics.open.id, "draft": True, "title": "Begun"})
    path = f"/posts/{draft.json['id']}"
    assert draft.json["state"] == "draft"
    problem(others.get(path), 404)
    kept = theirs.patch(path, {"body": "A text"}, {"If-Match": draft.headers["ETag"]})
    assert kept.json["state"] == "draft"
    published = theirs.patch(path, {"draft": False}, {"If-Match": kept.headers["ETag"]})
    assert published.json["state"] == "published"
    assert others.get(path).status_code == 200
    for name, wanted in (("draft", True), ("scheduled_for", "2099-05-04T12:00:00Z")):
        refused = theirs.patch(path, {name: wanted}, {"If-Match": published.headers["ETag"]})
        assert problem(refused, 422)["errors"] == {name: ["This is already published. To take it back, delete it."]}


@pytest.mark.parametrize("body", ['{"topic_id": ' + "1" * 5000 + "}", "[" * 100_000], ids=["long number", "deep list"])
def test_what_python_refuses_to_read_is_refused(people, program, body):
    answer = program(people.member).post("/posts", data=body, content_type="application/json")
    problem(answer, 400)


def test_a_new_password_ends_the_tokens_too(people, program):
    theirs = program(people.member)
    User.change_password(people.member, "x")
    problem(theirs.get("/me"), 401)


def test_a_scheduled_post_says_when_in_utc(people, topics, program):
    said = {"topic_id": topics.open.id, "title": "Later", "body": "Soon", "scheduled_for": "2099-05-04T12:00:00+02:00"}
    post = program(people.member).post("/posts", said).json
    assert (post["state"], post["scheduled_for"]) == ("scheduled", "2099-05-04T10:00:00Z")


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "soon", 5, "2026-02-30"])
def test_a_time_that_no_calendar_has_is_refused(people, topics, program, time):
    said = {"topic_id": topics.open.id, "title": "Later", "body": "Soon", "scheduled_for": time}
    assert [*problem(program(people.member).post("/posts", said), 422)["errors"]] == ["scheduled_for"]


def test_what_the_form_refuses_the_api_refuses_in_the_same_words(people, topics, program):
    theirs = program(people.member)
    untitled = theirs.post("/posts", {"topic_id": topics.open.id, "body": "A text"})
    assert problem(untitled, 422)["errors"] == {"title": ["Give it a title: others will see it."]}
    long = theirs.post("/posts", {"topic_id": topics.open.id, "title": "a" * 201, "body": "A text"})
    assert problem(long, 422)["errors"] == {"title": ["Use at most 200 characters."]}
    elsewhere = theirs.post("/posts", {"topic_id": 999_999, "title": "One", "body": "Two"})
    assert problem(elsewhere, 422)["errors"] == {"topic_id": ["Choose a topic."]}


def test_a_private_topic_is_as_if_it_were_not_there(people, topics, program):
    post = add_post(people.editor, topics.private)
    comment = add_comment(people.editor, post)
    strangers = program(people.stranger)
    for path in (f"/posts/{post.id}", f"/posts/{post.id}/comments", f"/comments/{comment.id}"):
        problem(strangers.get(path), 404)
    assert [topic["id"] for topic in strangers.get("/topics").json] == [topics.open.id]
    assert strangers.get("/posts").json == []
    assert strangers.get("/search?q=crane").json == []
    assert program(people.reader).get(f"/posts/{post.id}").status_code == 200
    said = {"topic_id": topics.private.id, "title": "One", "body": "Two"}
    assert problem(strangers.post("/posts", said), 422)["errors"] == {"topic_id": ["Choose a topic."]}


@pytest.mark.parametrize("post_id", ["0", "999999", "99999999999999999999", "-1", "x", "1.5", "٣"])
def test_what_is_no_id_is_404(people, program, post_id):
    problem(program(people.reader).get(f"/posts/{post_id}"), 404)


def test_unknown_fields_and_wrong_kinds_are_refused_by_name(people, topics, program):
    said = {"topic_id": topics.open.id, "title": 5, "body": "Two", "colour": "red", "attachment_ids": ["x"]}
    errors = problem(program(people.member).post("/posts", said), 422)["errors"]
    assert errors["colour"] == ["Unknown field."]
    assert errors["title"] == ["Not a valid string."]
    assert errors["attachment_ids"] == {"0": ["Not a valid integer."]}
    assert problem(program(people.member).get("/posts?colour=red"), 422)["errors"] == {"colour": ["Unknown field."]}
    assert problem(program(people.member).get("/posts?topic_id=x"), 422)["errors"]["topic_id"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [(b"{", "application/json", 400), (b"title=x", "application/x-www-form-urlencoded", 415),
     (b"[]", "application/json", 422), (b"null", "application/json", 422), (b"\xff", "application/json", 400)],
)  # fmt: skip
def test_a_body_that_is_no_object_of_json_is_refused(people, program, body, kind, status):
    problem(program(people.member).post("/posts", data=body, content_type=kind), status)


def test_news_of_one_topic_can_be_asked_for(people, topics, program):
    add_post(people.member, topics.open, "Open")
    add_post(people.editor, topics.private, "Private")
    theirs = program(people.reader)

    def titles(query: str) -> list[str]:
        return [post["title"] for post in theirs.get(f"/posts?{query}").json]

    assert titles("") == ["Private", "Open"]
    assert titles(f"topic_id={topics.open.id}") == ["Open"]


def test_lists_come_in_pages_that_link_to_the_next(people, topics, program):
    for number in range(45):
        add_post(people.member, topics.open, f"News {number}")
    theirs, path, titles, pages = program(people.reader), f"/posts?topic_id={topics.open.id}", [], 0
    while path:
        answer = theirs.get(path)
        titles += [post["title"] for post in answer.json]
        path = next_of(answer)
        pages += 1
    assert titles == [f"News {number}" for number in reversed(range(45))]
    assert pages == 3
    problem(theirs.get("/posts?before=made-up"), 404)


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_text_is_kept_as_text_and_nothing_in_it_runs(people, topics, program, attack):
    theirs = program(people.member)
    said = {"topic_id": topics.open.id, "title": f"A {attack}"[: corkboard.TITLE_MAX], "body": f"A {attack}"}
    post = theirs.post("/posts", said).json
    assert (post["title"], post["body"]) == (corkboard.tidy(said["title"]), corkboard.tidy_text(said["body"]))
    assert not executable(post["html"])
    assert theirs.get("/posts").json[0]["title"] == post["title"]


# -- ETag, If-Match, Idempotency-Key -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/posts", "/topics", "/people", "/me", "/posts/{post}", "/posts/{post}/comments"])
def test_what_has_not_changed_is_not_sent_again(people, topics, program, path):
    post = add_post(people.member, topics.open)
    theirs, path = program(people.reader), path.format(post=post.id)
    etag = theirs.get(path).headers["ETag"]
    again = theirs.get(path, headers={"If-None-Match": etag})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", etag)
    assert again.headers["Cache-Control"] == "private, no-cache"
    edit_post(people.member, post, title="Another")
    User.edit_person(people.admin, people.reader.id, name="Renamed", email="", username=people.reader.username)
    Topic.edit(people.editor, topics.open.id, name="Renamed", description="")
    add_comment(people.member, post)
    assert theirs.get(path, headers={"If-None-Match": etag}).status_code == 200


def test_a_post_that_changed_since_is_not_overwritten(people, topics, program):
    post = add_post(people.member, topics.open)
    theirs, path = program(people.member), f"/posts/{post.id}"
    etag = theirs.get(path).headers["ETag"]
    for change in (lambda **kw: theirs.patch(path, {"title": "Mine"}, **kw), lambda **kw: theirs.delete(path, **kw)):
        problem(change(), 428)
        problem(change(headers={"If-Match": '"another"'}), 412)
    edit_post(people.editor, post, title="Theirs")
    problem(theirs.patch(path, {"title": "Mine"}, {"If-Match": etag}), 412)
    assert theirs.get(path).json["title"] == "Theirs"
    assert theirs.patch(path, {"title": "Mine"}, {"If-Match": "*"}).json["title"] == "Mine"


def test_a_key_that_is_sent_again_makes_nothing_twice(people, topics, program):
    post, theirs, key = add_post(people.member, topics.open), program(people.editor), {"Idempotency-Key": "run 5"}
    for path, said in (
        ("/posts", {"topic_id": topics.open.id, "title": "One", "body": "Two"}),
        (f"/posts/{post.id}/comments", {"body": "Good."}),
        ("/topics", {"name": "Canteen"}),
    ):
        first, second = theirs.post(path, said, key), theirs.post(path, said, key)
        assert first.status_code == second.status_code == 201
        assert first.json == second.json
        assert theirs.post(path, said | {"name": "Bar"} if path == "/topics" else said).json["id"] != first.json["id"]


def test_a_draft_that_was_edited_since_is_not_made_again_by_its_key(people, topics, program):
    theirs, key = program(people.member), {"Idempotency-Key": "run 5"}
    said = {"topic_id": topics.open.id, "draft": True, "title": "Begun"}
    draft = theirs.post("/posts", said, key)
    changed = theirs.patch(f"/posts/{draft.json['id']}", {"body": "A text"}, {"If-Match": draft.headers["ETag"]})
    again = theirs.post("/posts", said, key)
    assert (again.status_code, again.json) == (201, changed.json)


def test_a_key_is_its_owners_and_its_addresss(people, topics, program):
    posts, key = [add_post(people.member, topics.open) for _ in range(2)], {"Idempotency-Key": "run 5"}
    made = {
        program(person).post(f"/posts/{post.id}/comments", {"body": "Good."}, key).json["id"]
        for person in (people.member, people.editor) for post in posts
    }  # fmt: skip
    assert len(made) == 4


# -- Comments, topics, people ------------------------------------------------------------------------------------------


def test_a_comment_is_made_read_changed_and_deleted(people, topics, program):
    post, theirs = add_post(people.editor, topics.open), program(people.member)
    created = theirs.post(f"/posts/{post.id}/comments", {"body": "Thanks, @editor"})
    comment = created.json
    assert (created.status_code, comment["post_id"], comment["author"]["username"]) == (201, post.id, "member")
    assert comment["url"] == f"/posts/{post.id}#comment-{comment['id']}"
    path = f"/comments/{comment['id']}"
    assert theirs.get(path).json == comment
    assert theirs.patch(path, {"body": "Thank you"}).json["body"] == "Thank you"
    assert [one["body"] for one in theirs.get(f"/posts/{post.id}/comments").json] == ["Thank you"]
    problem(program(people.stranger).patch(path, {"body": "Mine"}), 403)
    problem(program(people.stranger).delete(path), 403)
    assert theirs.delete(path).status_code == 204
    problem(theirs.get(path), 404)
    assert value(sa.select(Comment.deleted_by_id)) == people.member.id
    told = program(people.editor).get("/notifications").json
    assert told == []  # of a comment that is gone


def test_an_empty_comment_is_refused(people, topics, program):
    post = add_post(people.editor, topics.open)
    for said in ({}, {"body": ""}, {"body": " \n"}, {"body": None}):
        errors = problem(program(people.member).post(f"/posts/{post.id}/comments", said), 422)["errors"]
        assert [*errors] == ["body"]


def test_editors_keep_the_topics(people, topics, program):
    theirs = program(people.editor)
    topic = theirs.post("/topics", {"name": "Canteen", "private": True}).json
    assert (topic["slug"][:8], topic["private"]) == ("canteen-", True)
    path = f"/topics/{topic['id']}"
    assert len(program(people.member).get("/topics").json) == 2
    changed = theirs.put(path, {"name": "Canteen", "description": "What there is to eat"}).json
    assert (changed["name"], changed["description"]) == ("Canteen", "What there is to eat")
    assert [one["name"] for one in theirs.get("/topics").json] == ["Everyone", "Management", "Canteen"]
    problem(theirs.post("/topics", {"name": ""}), 422)
    problem(program(people.member).post("/topics", {"name": "Mine"}), 403)
    problem(program(people.editor, "read").delete(path), 403)
    assert theirs.delete(path).status_code == 204
    only = theirs.delete(f"/topics/{topics.open.id}")
    assert "only topic that everyone can see" in problem(only, 422)["detail"]


def test_people_are_found_by_name(people, program):
    theirs = program(people.reader)
    everybody = theirs.get("/people").json
    assert [one["username"] for one in everybody] == ["admin", "editor", "member", "reader", "stranger"]
    assert [one["username"] for one in theirs.get("/people?q=strang").json] == ["stranger"]
    assert theirs.get(f"/people/{people.editor.id}").json["email"] == "editor@example.com"
    assert "password" not in theirs.get("/people").text
    User.deactivate(people.admin, people.stranger.id)
    problem(theirs.get(f"/people/{people.stranger.id}"), 404)
    assert len(theirs.get("/people").json) == 4


# -- Attachments -------------------------------------------------------------------------------------------------------


def upload(theirs: Program, content: bytes = b"Lentil soup", name: str = "menu.txt") -> Any:
    return theirs.post("/attachments", data={"upload": (io.BytesIO(content), name)})


def test_a_file_is_uploaded_attached_fetched_and_removed(people, topics, program):
    theirs, others = program(people.member), program(people.stranger)
    created = upload(theirs)
    file = created.json
    assert created.status_code == 201
    assert (file["name"], file["size"], file["post_id"]) == ("menu.txt", 11, None)
    path = f"/attachments/{file['id']}"
    problem(others.get(path), 404)
    said = {"topic_id": topics.open.id, "title": "Menu", "body": "See below", "attachment_ids": [file["id"]]}
    post = theirs.post("/posts", said).json
    assert others.get(path).data == b"Lentil soup"
    assert [one["id"] for one in others.get(f"/attachments?post_id={post['id']}").json] == [file["id"]]
    problem(others.delete(path), 403)
    assert theirs.delete(path).status_code == 204
    problem(others.get(path), 404)


@pytest.mark.parametrize(("name", "words"), [("a.exe", "isn't accepted"), ("a.txt", "is empty"), ("a.png", "picture")])
def test_a_file_that_the_page_refuses_is_refused(people, program, name, words):
    refused = problem(upload(program(people.member), b"" if name == "a.txt" else b"x", name), 422)
    assert words in refused["errors"]["upload"][0]
    assert value(sa.select(sa.func.count(Attachment.id))) == 0


def test_a_file_that_cannot_be_written_is_a_problem_of_the_server(people, program, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(corkboard, "write_file", refuse)
    refused = problem(upload(program(people.member)), 507)
    assert "can't write to its folder for files, so menu.txt wasn't saved" in refused["errors"]["upload"][0]


def test_a_person_uploads_only_so_much_that_belongs_to_nothing(app, people, program, monkeypatch):
    monkeypatch.setitem(app.config, "MAX_UPLOAD_MB", 1)
    theirs = program(people.member)
    assert upload(theirs).status_code == 201
    with db.engine.begin() as connection:
        connection.execute(sa.update(Attachment).values(size=20 * 2**20))
    assert "in no post yet" in problem(upload(theirs), 422)["errors"]["upload"][0]


def test_an_upload_without_a_file_is_refused(people, program):
    assert [*problem(program(people.member).post("/attachments", data={}), 422)["errors"]] == ["upload"]
    problem(upload(program(people.reader)), 403)


def test_a_full_disk_is_told_as_such(people, program, monkeypatch):
    def full(*_given: Any) -> None:
        raise OSError(corkboard.errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(corkboard, "write_file", full)
    assert "disk is full" in problem(upload(program(people.member)), 507)["detail"]


# -- Acknowledgements, notifications, search, activity -----------------------------------------------------------------


def test_who_must_read_a_post_confirms_it_and_the_author_sees_that(people, topics, program):
    post = add_post(people.editor, topics.open)
    Acknowledgement.require(people.editor, post.id, roles=[*Role])
    theirs, path = program(people.reader), f"/posts/{post.id}/acknowledgements"
    assert [one["id"] for one in theirs.get("/acknowledgements").json] == [post.id]
    assert theirs.post(path, {"revision": 1}).status_code == 204
    assert theirs.post(path, {"revision": 1}).status_code == 204
    assert [*problem(theirs.post(path, {}), 422)["errors"]] == ["revision"]
    assert theirs.get("/acknowledgements").json == []
    problem(theirs.get(path), 403)
    lines = {line["person"]["username"]: line["state"] for line in program(people.editor).get(path).json}
    assert lines == {"reader": "read", "member": "pending", "admin": "pending", "stranger": "pending"}
    plain = add_post(people.editor, topics.open)
    refused = theirs.post(f"/posts/{plain.id}/acknowledgements", {"revision": 1})
    assert problem(refused, 422)["errors"] == {"revision": ["You haven't been asked to confirm this."]}


def test_notifications_say_what_happened_and_are_read(people, topics, program):
    post = add_post(people.member, topics.open)
    comment = add_comment(people.editor, post, "Well done, @member")
    theirs = program(people.member)
    told = {one["kind"]: one for one in theirs.get("/notifications").json}
    assert told["mention"]["url"] == f"/comments/{comment.id}"
    assert (told["mention"]["who"], told["mention"]["title"]) == ("Editor", "The crane is back")
    assert told["mention"]["is_unread"]
    assert theirs.post("/notifications/read").status_code == 204
    assert not any(one["is_unread"] for one in theirs.get("/notifications").json)


def test_the_search_finds_posts_comments_and_files(people, topics, program):
    post = add_post(people.member, topics.open, "The crane is back")
    comment = add_comment(people.editor, post, "A crane driver is needed")
    theirs = program(people.reader)
    found = theirs.get("/search?q=crane").json
    assert [(hit["kind"], hit["comment_id"]) for hit in found] == [("post", None), ("comment", comment.id)]
    assert found[0]["post"]["title"] == "The crane is back"
    assert found[1]["author"]["username"] == "editor"
    assert [hit["kind"] for hit in theirs.get("/search?q=crane&kind=comment").json] == ["comment"]
    assert theirs.get("/search?q=crane&topic=everyone&author=member").json
    assert theirs.get("/search?q=…").json == []
    assert [*problem(theirs.get("/search"), 422)["errors"]] == ["q"]
    problem(theirs.get("/search?q=crane&topic=management-2"), 404)


def test_the_search_goes_on_where_a_page_ends(people, topics, program):
    for number in range(25):
        add_post(people.member, topics.open, f"Crane {number}")
    theirs = program(people.reader)
    first = theirs.get("/search?q=crane")
    assert len(first.json) == 20
    second = theirs.get(next_of(first))
    ids = [hit["post"]["id"] for hit in first.json + second.json]
    assert len(ids) == len({*ids}) == 25


def test_the_activity_names_nothing_that_the_administrator_may_not_see(people, topics, program):
    secret = add_topic(people.editor, "Redundancies", private=True)
    hidden = add_post(people.editor, secret, "Who has to go")
    shown = add_post(people.editor, topics.open, "The crane is back")
    items = program(people.admin, "admin").get("/activity").json
    said = {(one["action"], one["object_type"], one["object_id"]): one["name"] for one in items}
    assert said["post.published", "post", shown.id] == "The crane is back"
    assert said["post.published", "post", hidden.id] == ""
    assert said["topic.created", "topic", secret.id] == "Redundancies", "administrators can join it"
    assert [one["id"] for one in items] == sorted((one["id"] for one in items), reverse=True)


# -- How often ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three requests an hour are all that there are."""
    monkeypatch.setattr(corkboard, "API_LIMIT", "3 per hour")
    corkboard.limiter.reset()
    yield
    corkboard.limiter.reset()


def test_who_asks_too_often_waits(people, program, hasty):
    theirs, left = program(people.member), []
    for _ in range(3):
        answer = theirs.get("/me")
        assert (answer.status_code, answer.headers["RateLimit-Limit"]) == (200, "3")
        assert "Retry-After" not in answer.headers
        left.append(answer.headers["RateLimit-Remaining"])
    assert left == ["2", "1", "0"]
    refused = theirs.get("/me")
    assert problem(refused, 429)["title"] == "Too many attempts"
    assert refused.json["detail"] == "Wait a moment and try again."
    assert 3500 < int(refused.headers["Retry-After"]) <= 3601
    assert refused.headers["Retry-After"] == refused.headers["RateLimit-Reset"]


def test_each_person_has_an_allowance_of_their_own(people, program, sign_in, hasty):
    first, second = program(people.member), program(people.member)
    last = [program.get("/me") for program in (first, second, first, second)][-1]
    problem(last, 429)
    assert program(people.editor).get("/me").status_code == 200
    assert sign_in(people.member).get("/").status_code == 200


def test_pages_are_not_counted(people, sign_in, hasty):
    browser = sign_in(people.member)
    assert {browser.get("/people").status_code for _ in range(5)} == {200}


@pytest.mark.parametrize("uri", ["redis://127.0.0.1:1/0", "memory://"])
def test_a_redis_that_is_not_there_stops_nobody(tmp_path, uri):
    with Site(tmp_path / "data", RATELIMIT_STORAGE_URI=uri) as site:
        site.flask("init-db")
        site.start()
        with contextlib.closing(Client(site.port)) as client:
            answer = client.get("/api/v1/me")
    assert (answer.status, answer.headers["RateLimit-Remaining"]) == (401, "299")


@pytest.mark.parametrize("uri", ["memcached://127.0.0.1", "redis://", "127.0.0.1:6379"])
def test_requests_are_counted_in_memory_or_in_a_redis_and_nowhere_else(tmp_path, uri):
    settings = TestingConfig({"DATA_DIR": str(tmp_path), "RATELIMIT_STORAGE_URI": uri})
    assert [finding.name for finding in settings.findings() if not finding.ok] == ["RATELIMIT_STORAGE_URI"]
    assert settings.RATELIMIT_STORAGE_URI == "memory://"


# -- The description ---------------------------------------------------------------------------------------------------


def operations(app: Flask) -> Iterator[tuple[str, str, dict[str, Any]]]:
    paths = app.test_client().get("/api/openapi.json").json["paths"]
    for path, methods in paths.items():
        yield from ((path, method, told) for method, told in methods.items() if method != "parameters")


def test_the_description_names_every_route_of_the_api(app):
    told = {(method.upper(), path) for path, method, _operation in operations(app)}
    rules = (rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("api."))
    routes = {
        (method, re.sub(r"<\w+:(\w+)>", r"{\1}", rule.rule))
        for rule in rules for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }  # fmt: skip
    assert told == routes


def test_every_operation_says_what_it_does_and_what_errors_look_like(app):
    for path, method, told in operations(app):
        assert told["summary"].endswith("."), (method, path)
        assert told["responses"]["default"] == {"$ref": "#/components/responses/DEFAULT_ERROR"}
    errors = app.test_client().get("/api/openapi.json").json["components"]["responses"]
    assert {kind for error in errors.values() for kind in error.get("content", {})} == {"application/problem+json"}


def test_every_example_of_the_description_works(app, people, topics, program):
    """Each is sent as it stands there, with the ids of what there is."""
    theirs, seen = program(people.editor), 0
    mine = add_post(people.editor, topics.open)
    asked = add_post(people.admin, topics.open)
    Acknowledgement.require(people.admin, asked.id, roles=[*Role])
    made = {"topic_id": add_topic(people.editor, "Canteen news").id, "comment_id": add_comment(people.editor, mine).id}
    for path, method, told in operations(app):
        for content in told.get("requestBody", {}).get("content", {}).values():
            if "example" not in content:
                continue
            said = content["example"] | ({"topic_id": topics.open.id} if "topic_id" in content["example"] else {})
            post_id = asked.id if "acknowledgements" in path else mine.id
            address = path.removeprefix("/api/v1").format(**made, post_id=post_id)
            answer = getattr(theirs, method)(address, said, {"If-Match": "*"})
            assert str(answer.status_code) in told["responses"], (method, path, answer.text)
            assert answer.status_code < 300
            seen += 1
    assert seen == 7
    with_bodies = [told for _path, _method, told in operations(app) if "requestBody" in told]
    assert len(with_bodies) == seen + 1  # a file cannot stand in a description


def test_the_page_of_the_api_lists_everything_without_a_script(app, people, sign_in):
    page = sign_in(people.reader).get("/api/docs")
    assert page.status_code == 200
    for path, method, told in operations(app):
        assert f"{method.upper()} {path}" in page.text
        assert str(corkboard.escape(told["summary"])) in page.text
    assert app.test_client().get("/api/docs").status_code == 200
    for name in ("swagger-ui.css", "swagger-ui-bundle.js"):
        file = app.test_client().get(f"/api/docs/{name}", buffered=True)
        assert (file.status_code, file.headers["Cache-Control"]) == (200, "no-cache")


# -- Whatever the description allows -----------------------------------------------------------------------------------


@pytest.mark.parametrize("person", CAST)
def test_nothing_that_is_asked_breaks_it_or_is_answered_otherwise_than_described(app, monkeypatch, person):
    """A few of each; `tests/faults` asks many more."""
    monkeypatch.setattr(corkboard, "API_LIMIT", "1000000 per minute")
    assert fuzz(stand_up(app), person, 3) > 50


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b\u200d", "\u3164"])
def test_names_and_comments_of_invisible_characters_are_refused_as_in_the_forms(people, topics, program, hidden):
    post = add_post(people.member, topics.open)
    problem(program(people.editor).post("/topics", {"name": hidden}), 422)
    problem(program(people.member).post(f"/posts/{post.id}/comments", {"body": hidden}), 422)
    problem(program(people.member).post("/posts", {"title": hidden, "body": "x", "topic_id": topics.open.id}), 422)
    made = program(people.editor).post("/topics", {"name": f"Ki{hidden}tchen"})
    assert made.json["name"] == "Kitchen"


def test_a_text_that_is_too_complex_is_refused_with_the_reason(people, topics, program):
    post = add_post(people.member, topics.open)
    body = {"body": "*a* " * 5_000}
    said = problem(program(people.member).post(f"/posts/{post.id}/comments", {"body": "[" * 20_000}), 422)
    assert "too complex" in str(said["errors"])
    assert program(people.member).post(f"/posts/{post.id}/comments", body).status_code == 201
