"""A small site with one of everything that somebody may or may not see: made once an engine, then put back row by row.

`stand_up(app)` gives it to a test. Its texts bear marks: what is HUSHED nobody of the cast may ever read, what is
CONFIDENTIAL everybody but the stranger may, and what is DISCARDED only editors may, in the recycle bin.
"""

from __future__ import annotations

import hashlib
import html
import re
import secrets
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from conftest import (
    PASSWORD,
    Browser,
    add_comment,
    add_person,
    add_post,
    add_topic,
    empty_database,
    forget,
)
from flask import Flask
from snapshot import dump, put_back

import app as corkboard
import database
from app import (
    Acknowledgement,
    ApiToken,
    Attachment,
    Comment,
    Group,
    Invitation,
    OutgoingMail,
    Post,
    Role,
    Setting,
    SignIn,
    StoredFile,
    Topic,
    User,
    backups_folder,
)
from database import db

CAST = ("anonymous", "reader", "member", "editor", "admin", "stranger")
HUSHED, CONFIDENTIAL, DISCARDED = "hushhush", "confidential", "discarded"
MISSING = 999_999
SIZES = ("", ".medium", ".thumb")

# For each form a filling that is accepted; `{open}` and the like are ids of the world's topics.
FILLINGS: dict[str, dict[str, Any]] = {
    "auth.setup": {
        "site_name": "Ours", "name": "Ida", "username": "ida", "email": "ida@example.com",
        "password": PASSWORD, "confirm": PASSWORD,
    },
    "auth.login": {"username": "keeper", "password": PASSWORD},
    "auth.register": {
        "name": "Ida", "username": "ida", "email": "ida@example.com", "password": PASSWORD, "confirm": PASSWORD,
    },
    "auth.reset": {"username": "keeper"},
    "auth.reset_by_link": {"password": "eight green bottles", "confirm": "eight green bottles"},
    "auth.accept_invitation": {
        "name": "Ida", "username": "ida", "email": "ida@example.com", "password": PASSWORD, "confirm": PASSWORD,
    },
    "account.profile": {"name": "Somebody", "email": "", "title": "Baker", "department": "", "phone": "",
                        "location": "Hall B", "away_from": "", "away_until": "", "stand_in_id": "",
                        "current": PASSWORD},
    "account.appearance": {"theme": "dark", "timezone": "Europe/Berlin", "shortcuts": "y"},
    "account.password": {"current": PASSWORD, "password": "eight green bottles", "confirm": "eight green bottles"},
    "account.tokens": {"name": "A display", "scope": "read", "days": "30"},
    "posts.new": {"title": "A new title", "body": "A new text", "topic": "{open}", "kind": "news"},
    "posts.edit": {"title": "Another title", "body": "Another text", "topic": "{open}", "kind": "news", "version": "1"},
    "posts.autosave": {"title": "A begun title", "body": "A begun text", "topic": "{open}", "kind": "news",
                       "version": "1"},
    "posts.preview": {"body": "**Bold**"},
    "posts.pin": {"pinned": "1"},
    "posts.acknowledge": {"version": "1"},
    "posts.must_read": {"audience": "all", "due": "2026-12-24"},
    "posts.comment": {"body": "A new remark"},
    "posts.react": {"add": "like"},
    "posts.react_comment": {"add": "like"},
    "posts.edit_comment": {"body": "Another remark", "version": "1"},
    "posts.restore_version": {"version": "1"},
    "account.notifications": {"mention": "none", "must_read": "site", "comment": "none", "post": "site",
                              "shared_again": "none", "reaction": "none", "review": "site"},
    "notifications.follow_post": {"state": "following"},
    "notifications.follow_topic": {"state": "muted"},
    "files.upload": {"upload": (str(Path(__file__)), "notes.txt")},
    "topics.manage": {"name": "A new topic", "description": "What belongs here"},
    "topics.edit": {"name": "Another name {unique}", "description": ""},
    "topics.add_member": {"user": "{stranger}"},
    "topics.move": {"direction": "down"},
    "topics.merge": {"into": "{spare}"},
    "admin.new_person": {"name": "Ida", "username": "ida", "email": "", "role": "20", "password": PASSWORD},
    "admin.edit_person": {"name": "Somebody", "email": "", "username": "ada{unique}"},
    "admin.import_people": {"text": "name,email\nIda Berg,ida.berg@example.com", "add": "1"},
    "admin.invitations": {"name": "Saturday team", "role": "20", "uses_most": "5", "topic_ids": "{open}"},
    "admin.set_role": {"role": "30"},
    "admin.groups": {"name": "bakery{unique}", "member_ids": "{stranger}"},
    "admin.erase_person": {"username": "keeper"},
    "admin.save_look": {"accent": "green"},
    "admin.save_settings": {
        "name": "Ours", "welcome": "Hello", "announcement": "The server restarts at noon",
        "announcement_until": "2099-12-31", "timezone": "Europe/Berlin", "registration": "open",
        "registration_domains": "", "registration_role": "member", "second_factor_role": "admin", "bin_days": "90",
        "activity_days": "365",
    },
}  # fmt: skip


# The same of what programs send.
BODIES: dict[str, dict[str, Any]] = {
    "api.create_post": {"title": "A new title", "body": "A new text", "topic_id": "{open}"},
    "api.change_post": {"title": "Another title"},
    "api.create_comment": {"body": "A new remark"},
    "api.change_comment": {"body": "Another remark"},
    "api.create_topic": {"name": "A new topic {unique}"},
    "api.change_topic": {"name": "Another name {unique}"},
    "api.create_acknowledgement": {"revision": 1},
    "api.upload_attachment": {"upload": (str(Path(__file__)), "notes.txt")},
}


class World:
    """The site, with the ids of what is in it by kind and name: `world.posts["secret"]`."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self._people()
        self._topics()
        self._groups()
        self._posts_and_comments()
        self._backup()
        self._files()
        self._mails()
        self._invitation()
        self.users = {name: SimpleNamespace(id=user_id) for name, user_id in self.people.items()}
        self.rows = dump()
        self.nothing_here: dict[tuple[str, str], str] = {}  # what `test_role_matrix` compares each 404 with

    def _people(self) -> None:
        self.users: dict[str, Any] = {name: add_person(name) for name in (*CAST[1:], "keeper", "gone", "waiting")}
        # The reader wrote as a member, and is one no longer.
        roles = {"editor": Role.EDITOR, "admin": Role.ADMIN, "keeper": Role.EDITOR}
        for name, role in roles.items():
            set_columns(User, self.users[name].id, role=role)
        self.tokens = {name: SignIn.start(user.id, False, "Firefox", "127.0.0.1") for name, user in self.users.items()}
        later = database.utcnow() + timedelta(days=1)  # no visit is noted while a test looks
        for name, user in self.users.items():
            set_columns(User, user.id, last_active_at=later)
            set_columns(SignIn, self._sign_in_id(self.tokens[name]), last_used_at=later)
        self.cookies: dict[str, str] = {}
        self.sign_ins = {name: self._sign_in_id(token) for name, token in self.tokens.items()}
        self._tokens()
        self.people = {name: user.id for name, user in self.users.items()} | {"missing": MISSING}

    def _tokens(self) -> None:
        """A token of each person, good for all that they may do."""
        self.raw_tokens, self.api_tokens = {}, {}
        for name, user in self.users.items():
            made = {"form_id": "e" * 32, "name": "A program", "expires_at": None}
            scope = "admin" if name == "admin" else "write"
            self.raw_tokens[name] = ApiToken.create(user, scope=scope, **made)
            self.api_tokens[name] = value(sa.select(ApiToken.id).where(ApiToken.user_id == user.id))
            set_columns(ApiToken, self.api_tokens[name], last_used_at=database.utcnow() + timedelta(days=1))

    @staticmethod
    def _sign_in_id(token: str) -> int:
        return value(sa.select(SignIn.id).where(SignIn.token_hash == corkboard.hash_token(token)))

    def _topics(self) -> None:
        inside = [self.people[name] for name in CAST[1:-1]]
        editor, keeper = self.users["editor"], self.users["keeper"]
        made = {name: add_topic(editor, name.capitalize()) for name in ("open", "spare", "merged")}
        made["private"] = add_topic(editor, f"A {CONFIDENTIAL} matter", members=inside)
        made["merged_private"] = add_topic(editor, f"An old {CONFIDENTIAL} matter", members=inside)
        made["secret"] = add_topic(keeper, "Unnamed", private=True)
        made["binned"] = add_topic(editor, f"A {DISCARDED} topic")
        self.topics = {name: topic.id for name, topic in made.items()} | {"missing": MISSING}
        self.slugs = {name: topic.slug for name, topic in made.items()} | {"missing": "missing"}
        Topic.merge(editor, self.topics["merged"], self.topics["open"])
        Topic.merge(editor, self.topics["merged_private"], self.topics["private"])
        self.topic = made

    def _groups(self) -> None:
        inside = [self.people["member"], self.people["stranger"]]
        Group.save(self.users["admin"], None, name="kitchen", member_ids=inside)
        self.groups = {"kitchen": value(sa.select(Group.id)), "missing": MISSING}

    def _posts_and_comments(self) -> None:
        self.posts, self.comments = {"missing": MISSING}, {"missing": MISSING}
        for name, author, topic, mark in (
            ("members", "member", "open", "plain"),
            ("editors", "editor", "open", "plain"),
            ("readers", "reader", "open", "plain"),
            ("private", "member", "private", CONFIDENTIAL),
            ("secret", "keeper", "secret", HUSHED),
            ("deleted", "member", "open", DISCARDED),
            ("binned", "member", "binned", DISCARDED),
        ):
            writer = self.users[author]
            post = add_post(writer, self.topic[topic], f"The {mark} news", body=f"A {mark} text")
            self.posts[name] = post.id
            self.comments[name if name != "deleted" else "below_deleted"] = self._comment(writer, post, mark)
        self._unpublished()
        must = add_post(self.users["keeper"], self.topic["open"], "What all must read")
        Acknowledgement.require(self.users["keeper"], must.id, roles=[*Role])
        self.posts["must"] = must.id
        add_post(self.users["keeper"], self.topic["secret"], "The unnamed page", body=f"A {HUSHED} text", kind="page")
        page = add_post(self.users["editor"], self.topic["open"], "The plain page", kind="page")
        self.posts["page"] = page.id
        set_columns(Post, page.id, owner_id=self.people["reader"], review_every=6, review_by=date(2026, 1, 1))
        for name, below in (("edited", "members"), ("edited_private", "private")):
            remark = add_comment(self.users["member"], SimpleNamespace(id=self.posts[below]), "A remark")  # type: ignore[arg-type]
            Comment.edit(self.users["member"], remark.id, body="A plain remark")
            self.comments[name] = remark.id
        self.comments["deleted"] = self._comment(self.users["member"], page, DISCARDED)
        Comment.delete(self.users["member"], self.comments["deleted"])
        Post.delete(self.users["member"], self.posts["deleted"])
        Topic.delete(self.users["editor"], self.topics["binned"])
        set_columns(User, self.people["reader"], role=Role.READER)
        set_columns(User, self.people["gone"], deactivated_at=database.utcnow())
        set_columns(User, self.people["waiting"], deactivated_at=database.utcnow(), awaits_approval=True)

    def _unpublished(self) -> None:
        """The member's draft, which nobody else may read, and what editors see too: it is to appear in a year."""
        soon = database.utcnow() + timedelta(days=365)
        for name, when in (("draft", {"how": "draft"}), ("scheduled", {"scheduled_for": soon})):
            writer = self.users["member"]
            self.posts[name] = add_post(writer, self.topic["open"], f"What is {name}", **when).id

    @staticmethod
    def _comment(author: User, post: Post, mark: str) -> int:
        return add_comment(author, post, f"A {mark} remark").id

    def _files(self) -> None:
        """A file of each post, one of a comment, one of nothing yet, and a picture of somebody; some are removed."""
        self.files, self.on_disk = {"missing": MISSING}, []
        for name in ("members", "readers", "private", "secret", "deleted", "removed"):
            post = self.posts["members" if name == "removed" else name]
            owner = "keeper" if name == "secret" else "reader" if name == "readers" else "member"
            self.files[name] = self._file(
                owner, post_id=post, mark=HUSHED if name in ("secret", "deleted") else "plain"
            )
        self.files["comment"] = self._file("member", comment_id=self.comments["members"])
        self.files["gone"] = self._file("member", comment_id=self.comments["deleted"], mark=HUSHED)
        self.files["unbound"] = self._file("member")
        self.files["picture"] = self._file("member", person_id=self.people["member"])
        Attachment.delete(self.users["member"], self.files["removed"])

    def _file(self, owner: str, mark: str = "plain", **bound: int) -> int:
        """Words where a picture should be: what an answer holds can then be read."""
        stored, content = secrets.token_hex(16), mark.encode()
        for suffix in SIZES:
            corkboard.write_file(BytesIO(content), corkboard.stored_path(stored, suffix))
        self.on_disk.append((stored, content))
        keeper = self.users["editor"]
        sha256 = hashlib.sha256(content).hexdigest()
        file_id = Attachment.create(keeper, StoredFile("a file.png", "png", len(content), sha256, stored, 1, 1)).id
        set_columns(Attachment, file_id, uploader_id=self.people[owner], **bound)
        return file_id

    def _backup(self) -> None:
        """A backup in the folder where administrators see it; of all that but the files, which could be read in it."""
        self.backup = backups_folder() / "made.zip"
        self.backup.unlink(missing_ok=True)
        database.write_backup(self.backup)
        self.backed_up = self.backup.read_bytes()

    def _mails(self) -> None:
        """An email to the reader that could not be sent, and a link that stops emails to them."""
        reader, now = self.people["reader"], database.utcnow()
        with db.engine.begin() as connection:
            values = {"user_id": reader, "kind": "daily", "created_at": now, "due_at": None}
            made = connection.execute(sa.insert(OutgoingMail).values(**values))
        self.mails = {"failed": made.inserted_primary_key[0], "missing": MISSING}
        token = corkboard.unsubscribe_signer().dumps([reader, "post"])
        self.stop_links = {"reader": token, "missing": f"{token}x"}
        link = corkboard.ResetLink.create(self.people["keeper"])
        self.reset_links = {"keepers": link, "missing": f"{link}x"}

    def _invitation(self) -> None:
        """An invitation by the admin, to the private topic too."""
        topics = [self.topics["open"], self.topics["private"]]
        made, token = Invitation.create(
            self.users["admin"], form_id="e" * 32, name="", email="", role=Role.MEMBER, uses_most=100, topic_ids=topics,
        )  # fmt: skip
        self.invitations = {"invitation": made.id, "missing": MISSING}
        self.invitation_links = {"invitation": token}

    # -- what tests do with it

    def restore(self) -> None:
        """Put back whatever a test changed."""
        put_back(self.rows)
        for stored, content in self.on_disk:
            for path in (corkboard.stored_path(stored, suffix) for suffix in SIZES):
                if not path.exists():  # other tests clear the folder
                    corkboard.write_file(BytesIO(content), path)
        self.backup.parent.mkdir(exist_ok=True)
        self.backup.write_bytes(self.backed_up)
        forget(self.app)

    def browser(self, name: str = "anonymous") -> Browser:
        """A browser in which one of the cast is signed in."""
        client = Browser(self.app, self.app.response_class, use_cookies=True)
        if name == "anonymous":
            return client
        cookie = self.app.config["SESSION_COOKIE_NAME"]
        if name in self.cookies:
            client.set_cookie(cookie, self.cookies[name])
            return client
        with client.session_transaction() as session:
            session["token"], session["csrf_token"] = self.tokens[name], secrets.token_hex(20)
        kept = client.get_cookie(cookie)
        assert kept is not None
        self.cookies[name] = kept.value
        return client

    def filling(self, endpoint: str) -> dict[str, Any]:
        """What one types into a form so that it is accepted."""
        words = self.people | self.topics | {"unique": secrets.token_hex(4)}
        filled = (FILLINGS | BODIES).get(endpoint, {}).items()
        return {name: text.format(**words) if isinstance(text, str) else text for name, text in filled}


WORLDS: dict[int, World] = {}


def stand_up(app: Flask) -> World:
    """The world of an engine, as it was when it was made."""
    if id(app) not in WORLDS:
        empty_database(app)
        WORLDS[id(app)] = World(app)
    world = WORLDS[id(app)]
    world.restore()
    return world


# -- Rows --------------------------------------------------------------------------------------------------------------


def value(statement: sa.Select[Any]) -> Any:
    """The first column of a statement's first row, as the database has it now."""
    with db.engine.connect() as connection:
        return connection.execute(statement).scalar()


def row(model: Any, row_id: int) -> Any:
    """A model's row as the database has it now."""
    with db.engine.connect() as connection:
        return connection.execute(sa.select(model.__table__).where(model.id == row_id)).one()


def set_columns(model: Any, row_id: int, **values: Any) -> None:
    """Change a row behind the application's back."""
    db.session.rollback()
    with db.engine.begin() as connection:
        connection.execute(sa.update(model).where(model.id == row_id).values(**values))


def set_settings(app: Flask, **values: str) -> None:
    """Decide about the site as an administrator would."""
    with db.engine.begin() as connection:
        for name, text in values.items():
            connection.execute(sa.delete(Setting).where(Setting.name == name))
            connection.execute(sa.insert(Setting).values(name=name, value=text))
    forget(app)


def texts_to_copy(answer) -> dict[str, str]:
    """What an error page shows of a form that was sent, by its labels. Each text has a button that copies it."""
    labels = dict(re.findall(r'<label class="label" for="(sent-\d+)">([^<]+)</label>', answer.text))
    texts = re.findall(r'<textarea class="form-control"\s+id="(sent-\d+)"[^>]*>\n([^<]*)</textarea>', answer.text)
    assert re.findall('data-copy-from="(sent-[^"]+)"', answer.text) == [*labels] == [place for place, _text in texts]
    return {labels[place]: html.unescape(text) for place, text in texts}
