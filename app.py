"""Corkboard: the intranet of one small team, in one file.

 1. Constants and extensions
 2. Models                    base, User, SignIn, Topic, Post, Revision, Comment, SearchEntry, Activity, Setting, Throttle
 3. Access                    passwords, sessions, `current_user`, `@public`, `@login_required`, `@role_required`
 4. Forms
 5. View helpers
 6. Routes                    auth, account, posts, topics, people, search, admin
 7. JSON API                  health
 8. Template filters and context
 9. Commands
10. Error handlers
11. create_app

One request, walked through: section 11 registers the hooks and blueprints of an application; `@login_required` in
section 3 finds the person by one statement; the view in section 6 fetches through what that person may see
(`Model.visible_to`), checks a form of section 4, calls one action of a model in section 2, and answers. Only actions
write, each as one `@unit` of `database.py` that checks permission and version anew and records its own activity.
"""  # noqa: E501 (the models, in one line)

from __future__ import annotations

import base64
import binascii
import calendar
import contextlib
import copy
import functools
import hashlib
import hmac
import html
import ipaddress
import json
import logging
import os
import re
import secrets
import shutil
import socket
import sys
import threading
import time
import unicodedata
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum
from logging.handlers import RotatingFileHandler
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo, available_timezones

import click
import sqlalchemy as sa
from flask import (
    Blueprint,
    Flask,
    Request,
    Response,
    abort,
    current_app,
    flash,
    g,
    get_flashed_messages,
    jsonify,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.cli import with_appcontext
from flask.ctx import RequestContext
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin
from flask.typing import ResponseReturnValue
from flask_bootstrap import Bootstrap5
from flask_wtf import CSRFProtect, FlaskForm
from flask_wtf.csrf import CSRFError, generate_csrf
from itsdangerous import BadData, BadSignature, URLSafeTimedSerializer
from markupsafe import Markup
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Mapped, aliased, mapped_column
from werkzeug.exceptions import HTTPException, ServiceUnavailable, TooManyRequests
from werkzeug.local import LocalProxy
from werkzeug.routing import IntegerConverter, Map, Rule
from werkzeug.security import check_password_hash, generate_password_hash
from wtforms import (
    BooleanField,
    DateField,
    EmailField,
    Field,
    HiddenField,
    PasswordField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
    TelField,
    TextAreaField,
)
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] (typeshed is older)
from wtforms.validators import DataRequired, EqualTo, InputRequired, Length, Optional, Regexp, ValidationError

import database
from config import Config, Finding, load
from config import config as configurations
from database import LongText, Prepared, Timestamp, db, fold, lean_unit, rows, sort_key, unit, utcnow

# ======================================================================================================================
# == 1. Constants and extensions =======================================================================================
# ======================================================================================================================

T = TypeVar("T")
Columns = sa.Select[*tuple[Any, ...]]  # a statement over columns

log = logging.getLogger("corkboard")
access_log = logging.getLogger("corkboard.access")

bootstrap = Bootstrap5()


class CheapCSRFProtect(CSRFProtect):
    """Flask-WTF's, which takes a token apart; but the one that this session's pages carry is known, and is compared."""

    def protect(self, apply_exemptions: bool = False) -> None:
        asked = this_request()
        if asked.method in ("GET", "HEAD"):
            return
        given, raw = asked.form.get("csrf_token"), session.get("csrf_token")
        plain = asked.method == "POST" and not asked.is_secure  # under HTTPS there is the referrer to check, too
        if plain and given and raw and hmac.compare_digest(given.encode(), _signed_csrf(secret_key(), raw).encode()):
            g.csrf_valid = True
        else:
            super().protect(apply_exemptions)


csrf = CheapCSRFProtect()

# The objects behind Flask's proxies, for what every request passes through: each look through a proxy costs as much as
# a function call, and a page took a hundred of them.
this_app: Callable[[], Flask] = current_app._get_current_object  # type: ignore[attr-defined]
this_g: Callable[[], Any] = g._get_current_object  # type: ignore[attr-defined]
this_request: Callable[[], Request] = request._get_current_object  # type: ignore[attr-defined]
this_session: Callable[[], SessionMixin] = session._get_current_object  # type: ignore[attr-defined]

# Lengths in characters: of the columns, the forms and the API alike.
USERNAME_MIN, USERNAME_MAX = 2, 32
NAME_MAX = 80
EMAIL_MAX = 254  # RFC 5321 section 4.5.3.1.3
PROFILE_MAX = 80
LOOKUP_MAX = 500
PASSWORD_MIN, PASSWORD_MAX = 8, 256  # OWASP ASVS 5.0, 6.2.1 and 6.2.9
TITLE_MAX = 200
BODY_MAX = 100_000
COMMENT_MAX = 20_000
TOPIC_MAX = 60
DESCRIPTION_MAX = 300
EXCERPT_MAX = 280
WELCOME_MAX = 500

USERNAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._\-]*"
EMAIL_PATTERN = r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+"
FORM_ID = re.compile(r"[0-9a-f]{32}")

PAGE_SIZE = 20
PINNED_MAX = 5
COMMENTS_PER_PAGE = 50
HANDBOOK_PER_PAGE = 200
PEOPLE_PER_PAGE = 200
QUERY_MAX = 100
RESULTS, LIVE_RESULTS, FOUND_PEOPLE = 30, 6, 5
SNIPPET_BEFORE, SNIPPET_AFTER = 80, 180  # characters around the first word that was found
SNIPPET_WITHIN = 20_000  # characters of a text that are looked through for it
ID_MAX = 2**31 - 1  # of MySQL's INTEGER; SQLite's driver raises beyond 2**63

SECOND = timedelta(seconds=1)
SIGN_IN_IDLE = timedelta(hours=12)
SIGN_IN_LIFETIME = timedelta(days=7)
SIGN_IN_REMEMBERED = timedelta(days=30)
VISIT_GAP = timedelta(minutes=30)  # away for longer, and what came meanwhile is new
NOTED_EVERY = timedelta(minutes=1)  # how exactly "last use" is known
KEPT_TEXT_SECONDS = 24 * 3600

SCRYPT = "scrypt:32768:8:3"  # OWASP Password Storage Cheat Sheet; werkzeug's default is weaker
HASHES_AT_ONCE = 2  # 32 MB each
HASH_WAIT_SECONDS = 2.0

# The commonest passwords of eight characters or more (and what people type when asked for one here).
COMMON_PASSWORDS = frozenset(
    """
    12345678 123456789 1234567890 11111111 00000000 87654321 987654321 88888888 12341234 11223344 123123123 147258369
    password password1 password12 password123 passw0rd p@ssw0rd p@ssword qwertyui qwertyuiop qwerty123 qwerty12
    1q2w3e4r 1q2w3e4r5t q1w2e3r4 1qaz2wsx zaq12wsx asdfghjk asdfghjkl asdf1234 zxcvbnm1 abcd1234 abc12345 a1b2c3d4
    iloveyou sunshine princess football baseball superman starwars whatever trustno1 welcome1 welcome123 letmein1
    letmein123 changeme changeme1 changeme123 computer internet samsung1 michelle jennifer liverpool corkboard
    corkboard1 intranet admin123 admin1234 administrator adminadmin testtest test1234 secret123 default1 hello123
    summer2025 summer2026 winter2025 winter2026 monday123 mynoob00 aa123456 aaaaaaaa abcdefgh abcdefg1 iloveyou1
    """.split()  # noqa: SIM905
)

STATIC_ENDPOINTS = frozenset({"static", "bootstrap.static"})
HUES = 6

# libraries.md's policy: nothing inline, nothing from elsewhere, no plugin, no frame.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}
YEAR_SECONDS = 365 * 24 * 3600


class Role(IntEnum):
    """What a person may do; each role may do all that the ones below it may."""

    READER = 10
    MEMBER = 20
    EDITOR = 30
    ADMIN = 40

    @property
    def label(self) -> str:
        return self.name.capitalize()


class Refused(Exception):
    """An action's rule says no. Forms show the message beside the field of that name, the API sends both."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


class Conflict(Exception):
    """Somebody saved in between. `theirs` is what stands now: title, body, version, editor_name, updated_at."""

    def __init__(self, **theirs: Any) -> None:
        super().__init__("saved by somebody else in between")
        self.theirs = SimpleNamespace(**theirs)


class NotVisible(Exception):
    """It does not exist, or not for this person: nobody learns which."""


class Forbidden(Exception):
    """The person may see it but not do this with it."""


# -- Text --------------------------------------------------------------------------------------------------------------

RENDERER_VERSION = 1  # raise it when the output for the same source changes
LINKED_PARAGRAPH_MAX = 5000  # characters
ALLOWED_TAGS = {"p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a"}
ALLOWED_TAGS |= {"h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"}
ALLOWED_ATTRIBUTES = {"a": {"href", "title"}, "code": {"class"}, "ol": {"start"}, "th": {"align"}, "td": {"align"}}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_CELL_ALIGNMENT = re.compile(r'<(t[hd]) style="text-align:(left|right|center)">')
_SPACES = re.compile(r"\s+")
# A line of words that means to Markdown just what it says, as many comments are: no parser and no sanitizer needed.
_PLAIN_SENTENCE = re.compile(r"[A-Za-z](?:[A-Za-z0-9 ,;'?()]|[.!:](?= |$))*(?<! )")


@functools.cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import linkify

    parser: Any = MarkdownIt("commonmark", {"html": False, "linkify": True})
    # Pictures come as attachments; one from elsewhere would tell that place who reads here, and the policy blocks it.
    # Looking for bare addresses takes time by the square of a paragraph's length: 20 s for the longest post.
    likely = parser.linkify.pretest
    parser.linkify.pretest = lambda words: len(words) <= LINKED_PARAGRAPH_MAX and likely(words)
    parser.inline.ruler.at("linkify", lambda now, silent: len(now.src) <= LINKED_PARAGRAPH_MAX and linkify(now, silent))
    return parser.enable(["table", "strikethrough", "linkify"]).disable("image")


def render_markdown(source: str) -> str:
    """Render Markdown to HTML that is safe to show as it is."""
    if _PLAIN_SENTENCE.fullmatch(source):
        return f"<p>{source}</p>\n"
    parser = _markdown()
    tokens = parser.parse(source)
    _level_headings([token for token in tokens if token.type in ("heading_open", "heading_close")])
    rendered = _CELL_ALIGNMENT.sub(r'<\1 align="\2">', parser.renderer.render(tokens, parser.options, {}))
    return _sanitizer().clean(rendered)


@functools.cache
def _sanitizer() -> Any:
    """What lets nothing active through; made once, because that takes longer than to use it."""
    import nh3

    return nh3.Cleaner(
        tags=ALLOWED_TAGS,
        attributes=ALLOWED_ATTRIBUTES,
        url_schemes={"http", "https", "mailto", "tel"},
        link_rel="noopener noreferrer",
    )


def _level_headings(tokens: list[Any]) -> None:
    """Begin at the second level, below the page's title, and go down by one at the most (WCAG 2.2, 1.3.1)."""
    above: list[int] = []  # the source's levels that the present heading stands below
    for token in tokens:
        if token.type == "heading_open":
            level = int(token.tag[1])
            above = [higher for higher in above if higher < level] + [level]
        token.tag = f"h{min(len(above) + 1, 6)}"


def plain_text(rendered: str, length: int = EXCERPT_MAX) -> str:
    """The words of rendered HTML on one line, cut between words to at most `length` characters."""
    import nh3

    spaced = re.sub(r"</(p|h\d|pre|blockquote)>|<br>", r"\g<0> ", rendered)
    listed = re.sub(r"</(li|t[hd])>\s*(?=<(li|t[hd]|/tr))", " · ", spaced)  # an item goes on without a full stop
    text = _SPACES.sub(" ", html.unescape(nh3.clean(listed, tags=set()))).strip(" ·")
    if len(text) <= length:
        return text
    return text[: length - 1].rsplit(" ", 1)[0].rstrip(",;:.") + "…"


def tidy(text: str | None) -> str:
    """One line as people mean it: NFC, no control characters, single spaces, none around."""
    return _SPACES.sub(" ", unicodedata.normalize("NFC", _CONTROL.sub("", text or ""))).strip()


def tidy_text(text: str | None) -> str:
    """Several lines: NFC, line ends as \\n, no control characters, no blank lines around."""
    lines = (text or "").replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", _CONTROL.sub("", lines)).strip("\n").rstrip()


def slugify(text: str) -> str:
    """A topic's part of an address: lower-case ASCII letters, digits and hyphens; 'topic' where nothing is left."""
    bare = re.sub(r"[^a-z0-9]+", "-", sort_key(text)).strip("-")
    return bare[:TOPIC_MAX].strip("-") or "topic"


# ======================================================================================================================
# == 2. Models =========================================================================================================
# ======================================================================================================================

if TYPE_CHECKING:
    from database import Base as Model
else:
    Model = db.Model

# Bound to the person who looks, in every statement that asks what may be seen.
VIEWER = sa.bindparam("viewer", type_=sa.Integer)
NOW = sa.bindparam("now", type_=Timestamp)


class RoleType(sa.TypeDecorator[Role]):
    """A role as its number, so that roles can be compared in SQL."""

    impl = sa.SmallInteger
    cache_ok = True

    def process_bind_param(self, value: Role | None, dialect: Any) -> int | None:
        return None if value is None else int(value)

    def process_result_value(self, value: int | None, dialect: Any) -> Role | None:
        return None if value is None else Role(value)


class Permissions:
    """What a role allows; shared by `User` and by the lean `Viewer` that a request begins with."""

    id: Any
    role: Any

    @property
    def may_write(self) -> bool:
        """News and comments."""
        return self.role >= Role.MEMBER

    @property
    def is_editor(self) -> bool:
        return self.role >= Role.EDITOR

    @property
    def is_admin(self) -> bool:
        return self.role >= Role.ADMIN

    def may_write_kind(self, kind: str) -> bool:
        """Whether this person may make a post of that kind: `news`, or `page` for the handbook."""
        return self.is_editor if kind == "page" else self.may_write


class User(Permissions, Model):
    """A person of the team. People are deactivated, never deleted: what they wrote keeps its author."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(sa.String(USERNAME_MAX))
    username_key: Mapped[str] = mapped_column(sa.String(USERNAME_MAX), unique=True)
    name: Mapped[str] = mapped_column(sa.String(NAME_MAX))
    name_key: Mapped[str] = mapped_column(sa.String(NAME_MAX))
    email: Mapped[str | None] = mapped_column(sa.String(EMAIL_MAX))
    email_key: Mapped[str | None] = mapped_column(sa.String(EMAIL_MAX), unique=True)
    password_hash: Mapped[str] = mapped_column(sa.String(255))
    role: Mapped[Role] = mapped_column(RoleType)
    title: Mapped[str] = mapped_column(sa.String(PROFILE_MAX), default="")
    department: Mapped[str] = mapped_column(sa.String(PROFILE_MAX), default="")
    phone: Mapped[str] = mapped_column(sa.String(PROFILE_MAX), default="")
    location: Mapped[str] = mapped_column(sa.String(PROFILE_MAX), default="")
    lookup: Mapped[str] = mapped_column(sa.String(LOOKUP_MAX), default="")
    away_until: Mapped[date | None] = mapped_column(sa.Date, index=True)
    stand_in_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id"))
    theme: Mapped[str] = mapped_column(sa.String(8), default="system")
    timezone: Mapped[str] = mapped_column(sa.String(64), default="")
    shortcuts: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=utcnow)
    deactivated_at: Mapped[datetime | None] = mapped_column(Timestamp)
    previous_visit_at: Mapped[datetime | None] = mapped_column(Timestamp)
    last_active_at: Mapped[datetime | None] = mapped_column(Timestamp)

    # -- queries

    @classmethod
    def by_username(cls, username: str) -> User | None:
        """Find a person by username or mail address, however it is written."""
        key = fold(username)
        return db.session.scalar(sa.select(cls).where(sa.or_(cls.username_key == key, cls.email_key == key)))

    @classmethod
    def visible_to(cls, user: Permissions) -> sa.Select[Self]:
        """Everybody sees the active people; administrators see the deactivated too."""
        everyone = sa.select(cls)
        return everyone if user.is_admin else everyone.where(cls.deactivated_at.is_(None))

    @classmethod
    def acting(cls, user_id: int, needs: Role = Role.READER) -> User:
        """Read anew, inside a unit, who acts. Raises `Forbidden` when they may no longer do what needs that role."""
        user = db.session.get(cls, user_id, with_for_update={"read": True}, populate_existing=True)
        if user is None or user.deactivated_at or user.role < needs:
            raise Forbidden
        return user

    @classmethod
    def exists(cls) -> bool:
        return db.session.scalar(sa.select(cls.id).limit(1)) is not None

    # -- predicates

    @property
    def is_last_admin(self) -> bool:
        """Whether nobody else could administer the site. Ask it after `Setting.lock()`, or two could say no at once."""
        others = sa.select(User.id).where(User.role == Role.ADMIN, User.deactivated_at.is_(None), User.id != self.id)
        return self.is_admin and self.deactivated_at is None and db.session.scalar(others.limit(1)) is None

    # -- actions

    @classmethod
    @unit
    def create(cls, actor: Permissions | None, *, password_hash: str, role: Role = Role.MEMBER, **profile: Any) -> User:
        """Add a person. `actor` is None when they register themselves or the site is being set up.

        Raises `Refused` for a username or mail address that somebody has already.
        """
        if actor is not None:
            cls.acting(actor.id, Role.ADMIN)
        user = cls(password_hash=password_hash, role=role, theme="system", shortcuts=True)
        user._assign(**profile)
        db.session.add(user)
        db.session.flush()
        SearchEntry.put("person", user)
        Activity.record(actor or user, "person.added", user, user.username)
        return user

    @classmethod
    @unit
    def set_up(cls, token: str, *, site_name: str, password_hash: str, **profile: Any) -> User:
        """Make the first administrator, with the token that the console printed; it works once.

        Raises `NotVisible` when the site is set up already, `Forbidden` for a wrong token.
        """
        expected = Setting.setup_token_hash(lock=True)
        if cls.exists() or expected is None:
            raise NotVisible
        if not hmac.compare_digest(expected, hash_token(token)):
            raise Forbidden
        user = cls.create(None, password_hash=password_hash, role=Role.ADMIN, **profile)
        Setting.forget_setup_token()
        Setting.change(user, site_name=site_name)
        Topic.ensure_first(user)
        return user

    @classmethod
    @unit
    def edit_profile(cls, actor: Permissions, **profile: Any) -> None:
        """Change one's own profile. Raises `Refused` for a mail address that somebody has already."""
        user = cls.acting(actor.id)
        if profile.get("stand_in_id") is not None:
            stand_in = db.session.get(cls, profile["stand_in_id"], populate_existing=True)
            if stand_in is None or stand_in.deactivated_at or stand_in.id == user.id:
                raise Refused("stand_in", "Choose somebody else who is here.")
        user._assign(**profile)
        SearchEntry.put("person", user)
        Activity.record(user, "person.edited", user)

    @classmethod
    @unit
    def edit_appearance(cls, actor: Permissions, theme: str, timezone: str, shortcuts: bool) -> None:
        user = cls.acting(actor.id)
        user.theme, user.timezone, user.shortcuts = theme, timezone, shortcuts
        Activity.record(user, "person.appearance", user)

    @classmethod
    @unit
    def administer(cls, actor: Permissions, user_id: int, *, role: Role, active: bool, **profile: Any) -> None:
        """Change another's role, name and whether they may sign in; who may not is signed out everywhere.

        Raises `NotVisible`, `Forbidden`, or `Refused` where it would leave the site without an administrator.
        """
        Setting.lock()
        cls.acting(actor.id, Role.ADMIN)
        user = db.session.get(cls, user_id, with_for_update=True, populate_existing=True)
        if user is None:
            raise NotVisible
        if user.is_last_admin and (role < Role.ADMIN or not active):
            raise Refused("role", "This is the only administrator. Make somebody else one first.")
        user._assign(**profile)
        SearchEntry.put("person", user)
        user.role = role
        if not active:
            user.deactivated_at = user.deactivated_at or utcnow()
            SignIn.end_all(user.id)
        else:
            user.deactivated_at = None
        Activity.record(actor, "person.administered", user, f"{role.label}, {'active' if active else 'deactivated'}")

    @classmethod
    @unit
    def set_password(cls, actor: Permissions, user_id: int, password_hash: str, keep: int | None = None) -> None:
        """Give a person (oneself, or as an administrator anybody) a new password; ends their sign-ins except `keep`."""
        cls.acting(actor.id, Role.READER if actor.id == user_id else Role.ADMIN)
        user = db.session.get(cls, user_id, with_for_update=True, populate_existing=True)
        if user is None:
            raise NotVisible
        user.password_hash = password_hash
        SignIn.end_all(user_id, keep)
        Activity.record(actor, "person.password", user)

    @classmethod
    @lean_unit
    def rehash(cls, user_id: int, password_hash: str) -> None:
        """Keep the same password under today's hashing parameters."""
        rows(sa.update(cls).where(cls.id == user_id).values(password_hash=password_hash))

    @classmethod
    @unit
    def rescue(cls, user_id: int, password_hash: str) -> None:
        """Make an existing person an active administrator with a new password (the command line's last resort)."""
        user = db.session.get(cls, user_id, with_for_update=True, populate_existing=True)
        if user is None:
            raise NotVisible
        user.role, user.deactivated_at, user.password_hash = Role.ADMIN, None, password_hash
        SignIn.end_all(user.id)
        Activity.record(user, "person.rescued", user)

    @classmethod
    @lean_unit
    def note_visits(cls, notes: Mapping[tuple[int, int], datetime]) -> None:
        """Write what a batch of visits left behind: (person, sign-in) → when they were last here."""
        for (user_id, sign_in_id), seen in notes.items():
            visit_ended = sa.or_(cls.last_active_at.is_(None), cls.last_active_at < seen - VISIT_GAP)
            previous = sa.case((visit_ended, cls.last_active_at), else_=cls.previous_visit_at)
            # In this order: MySQL reads columns that an earlier assignment has changed already.
            ordered = ((cls.previous_visit_at, previous), (cls.last_active_at, seen))
            rows(sa.update(cls).where(cls.id == user_id).ordered_values(*ordered))
            rows(sa.update(SignIn).where(SignIn.id == sign_in_id).values(last_used_at=seen))

    def _assign(self, **profile: Any) -> None:
        """Set columns with their keys. Raises `Refused` where a key is somebody else's."""
        keys = {"username": fold, "email": fold, "name": lambda text: sort_key(text, NAME_MAX)}
        for column, value in profile.items():
            setattr(self, column, value or None if column == "email" else value)
            if column in keys:
                setattr(self, f"{column}_key", keys[column](value)[:EMAIL_MAX] or None if value else None)
        found_by = (self.name, self.username, self.title, self.department, self.location)
        self.lookup = sort_key(" ".join(word for word in found_by if word), LOOKUP_MAX)
        for column, message in (("username", "That username is taken."), ("email", "Somebody has that mail address.")):
            self._refuse_taken(column, message)

    def _refuse_taken(self, column: str, message: str) -> None:
        key = getattr(self, f"{column}_key")
        with db.session.no_autoflush:
            # A username may not be somebody's mail address either: both open the sign-in.
            same = sa.select(User.id).where(sa.or_(User.username_key == key, User.email_key == key))
            if key and db.session.scalar(same.where(User.id != self.id if self.id else sa.true()).limit(1)):
                raise Refused(column, message)

    def to_dict(self) -> dict[str, Any]:
        """What the team may know of a person."""
        fields = ("id", "username", "name", "email", "title", "department", "phone", "location")
        return {field: getattr(self, field) for field in fields} | {"role": self.role.name.lower()}


class SignIn(Model):
    """One browser that somebody is signed in with. Only a hash of its token is kept."""

    __tablename__ = "sign_ins"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"), index=True)
    token_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    device: Mapped[str] = mapped_column(sa.String(80))
    address: Mapped[str] = mapped_column(sa.String(45))
    remembered: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(Timestamp)
    last_used_at: Mapped[datetime] = mapped_column(Timestamp)
    expires_at: Mapped[datetime] = mapped_column(Timestamp, index=True)
    ended_at: Mapped[datetime | None] = mapped_column(Timestamp)

    @classmethod
    @unit
    def start(cls, user_id: int, remember: bool, device: str, address: str) -> str:
        """Sign a person in. Returns the token that only their browser keeps."""
        token, now = secrets.token_urlsafe(32), utcnow()
        lifetime = SIGN_IN_REMEMBERED if remember else SIGN_IN_LIFETIME
        user = User.acting(user_id)
        # Ended ones stay a while: a form sent on one comes back to the same person, and to nobody else.
        rows(sa.delete(cls).where(cls.expires_at < now - SIGN_IN_LIFETIME))
        values = {"user_id": user_id, "token_hash": hash_token(token), "device": device, "address": address}
        times = {"created_at": now, "last_used_at": now, "expires_at": now + lifetime}
        rows(sa.insert(cls), **values, **times, remembered=remember)
        Activity.record(user, "person.signed_in", user, device)
        return token

    @classmethod
    @unit
    def end(cls, user: Permissions, sign_in_id: int) -> None:
        """End one of a person's own sign-ins. Raises `NotVisible` for anybody else's."""
        mine = sa.update(cls).where(cls.id == sign_in_id, cls.user_id == user.id, cls.ended_at.is_(None))
        if rows(mine.values(ended_at=utcnow())).rowcount:
            Activity.record(user, "person.signed_out", ("user", user.id))
        elif not db.session.scalar(sa.select(cls.id).where(cls.id == sign_in_id, cls.user_id == user.id)):
            raise NotVisible

    @classmethod
    @unit
    def end_others(cls, user: Permissions, keep: int) -> None:
        """End all of a person's own sign-ins except the one they use."""
        cls.end_all(user.id, keep)
        Activity.record(user, "person.signed_out", ("user", user.id), "all other devices")

    @classmethod
    def end_all(cls, user_id: int, keep: int | None = None) -> None:
        """End a person's sign-ins, except one, as part of the caller's unit."""
        theirs = sa.update(cls).where(cls.user_id == user_id, cls.ended_at.is_(None), cls.id != (keep or 0))
        rows(theirs.values(ended_at=utcnow()))

    @classmethod
    def living(cls, user: Permissions) -> Sequence[Any]:
        """A person's own sign-ins that still count, the latest used first."""
        statement = sa.select(cls.id, cls.device, cls.address, cls.created_at, cls.last_used_at).where(
            cls.user_id == user.id, cls.ended_at.is_(None), cls.expires_at > utcnow()
        )
        return rows(statement.order_by(cls.last_used_at.desc(), cls.id.desc()).limit(100)).all()


class Topic(Model):
    """Where posts belong. Open to all, or private to its members: nobody else sees it or what is in it."""

    __tablename__ = "topics"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(TOPIC_MAX))
    name_key: Mapped[str] = mapped_column(sa.String(TOPIC_MAX))
    slug: Mapped[str] = mapped_column(sa.String(TOPIC_MAX + 8), unique=True)
    description: Mapped[str] = mapped_column(sa.String(DESCRIPTION_MAX), default="")
    private: Mapped[bool] = mapped_column(default=False)
    position: Mapped[int]
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    form_id: Mapped[str] = mapped_column(sa.String(32))
    created_at: Mapped[datetime] = mapped_column(Timestamp, default=utcnow)
    deleted_at: Mapped[datetime | None] = mapped_column(Timestamp)
    merged_into_id: Mapped[int | None] = mapped_column(sa.ForeignKey("topics.id"))

    # -- queries

    @classmethod
    def visible(cls) -> sa.ColumnElement[bool]:
        """Whether the person bound as `viewer` may see a topic. Everything that hangs on one asks this."""
        mine = sa.select(TopicMember.topic_id).where(TopicMember.user_id == VIEWER)
        return sa.and_(cls.deleted_at.is_(None), sa.or_(cls.private == sa.false(), cls.id.in_(mine)))

    @classmethod
    def visible_to(cls, user: Permissions) -> sa.Select[Self]:
        """The topics that a person may see, in the team's order."""
        return sa.select(cls).where(cls.visible()).order_by(cls.position, cls.id).params(viewer=user.id)

    @classmethod
    def audiences(cls, user: Permissions) -> dict[int, SimpleNamespace]:
        """For each topic that a person may see: its name, whether it is private, and how many see what is in it."""
        active = User.deactivated_at.is_(None)
        everyone = sa.select(sa.func.count()).select_from(User).where(active).scalar_subquery()
        members = (
            sa.select(sa.func.count()).where(TopicMember.topic_id == cls.id, TopicMember.user_id == User.id, active)
        ).scalar_subquery()
        people = sa.case((cls.private == sa.true(), members), else_=everyone).label("people")
        statement = sa.select(cls.id, cls.name, cls.slug, cls.private, people).where(cls.visible())
        found = rows(statement.order_by(cls.position, cls.id), viewer=user.id)
        return {row.id: SimpleNamespace(**row._mapping) for row in found}

    @classmethod
    def for_change(cls, actor: Permissions, topic_id: int) -> Topic:
        """Read a topic for a change, inside a unit. Raises `NotVisible`, or `Forbidden` below an editor."""
        User.acting(actor.id, Role.EDITOR)
        topic = db.session.scalar(
            cls.visible_to(actor).where(cls.id == topic_id).with_for_update().execution_options(populate_existing=True)
        )
        if topic is None:
            raise NotVisible
        return topic

    @classmethod
    def hidden_from(cls, user: Permissions) -> Sequence[Any]:
        """The names of private topics an administrator is not in, so that they can join one, which is recorded."""
        statement = sa.select(cls.id, cls.name).where(cls.deleted_at.is_(None), sa.not_(cls.visible()))
        return rows(statement.order_by(cls.position, cls.id), viewer=user.id).all()

    def member_ids(self) -> list[int]:
        return list(db.session.scalars(sa.select(TopicMember.user_id).where(TopicMember.topic_id == self.id)))

    # -- actions

    @classmethod
    @unit
    def create(cls, actor: Permissions, *, form_id: str, members: Iterable[int] = (), **values: Any) -> Topic:
        """Make a topic. The same form sent again answers with the first one. Raises `Refused` for a name in use."""
        editor = User.acting(actor.id, Role.EDITOR)
        Setting.lock()
        first = sa.select(cls).where(cls.author_id == editor.id, cls.form_id == form_id)
        if (existing := db.session.scalar(first)) is not None:
            return existing
        last = db.session.scalar(sa.select(sa.func.max(cls.position))) or 0
        topic = cls(author_id=editor.id, form_id=form_id, position=last + 1, slug=cls._free_slug(values["name"]))
        topic._assign(editor, members, **values)
        Activity.record(editor, "topic.created", topic, topic.name)
        return topic

    @classmethod
    @unit
    def edit(cls, actor: Permissions, topic_id: int, *, members: Iterable[int] = (), **values: Any) -> None:
        """Rename a topic, open or close it, choose its people. Its address stays, so that links keep working."""
        Setting.lock()
        topic = cls.for_change(actor, topic_id)
        topic._assign(actor, members, **values)
        Activity.record(actor, "topic.edited", topic, topic.name)

    @classmethod
    @unit
    def move(cls, actor: Permissions, topic_id: int, up: bool) -> None:
        """Move a topic one place among those that the person sees."""
        Setting.lock()
        topic = cls.for_change(actor, topic_id)
        seen: list[Any] = list(db.session.scalars(cls.visible_to(actor).execution_options(populate_existing=True)))
        place = seen.index(topic)
        other = place - 1 if up else place + 1
        if 0 <= other < len(seen):
            topic.position, seen[other].position = seen[other].position, topic.position
            Activity.record(actor, "topic.moved", topic, "up" if up else "down")

    @classmethod
    @unit
    def merge(cls, actor: Permissions, topic_id: int, into_id: int) -> Topic:
        """Move all posts of one topic into another; the address of the first leads to the second from now on."""
        Setting.lock()
        topic, into = cls.for_change(actor, topic_id), cls.for_change(actor, into_id)
        if topic is into:
            raise Refused("into", "Choose another topic.")
        rows(sa.update(Post).where(Post.topic_id == topic.id).values(topic_id=into.id))
        rows(sa.update(cls).where(cls.merged_into_id == topic.id).values(merged_into_id=into.id))
        topic.deleted_at, topic.merged_into_id = utcnow(), into.id
        Activity.record(actor, "topic.merged", topic, f"{topic.name} into {into.name}")
        return into

    @classmethod
    @unit
    def join(cls, actor: Permissions, topic_id: int) -> Topic:
        """Let an administrator into a private topic. Everybody can see in the record that they joined."""
        User.acting(actor.id, Role.ADMIN)
        topic = db.session.get(cls, topic_id, populate_existing=True)
        if topic is None or topic.deleted_at:
            raise NotVisible
        if topic.private and database.insert_if_absent(
            db.metadata.tables["topic_members"], {"topic_id": topic.id, "user_id": actor.id}
        ):
            Activity.record(actor, "topic.joined", topic, topic.name)
        return topic

    @classmethod
    def ensure_first(cls, actor: Permissions) -> None:
        """Give a new site the topic that everybody shares."""
        if db.session.scalar(sa.select(cls.id).limit(1)) is None:
            cls.create(actor, form_id=secrets.token_hex(16), name="Everyone", description="News for the whole team")

    def _assign(
        self, actor: Permissions, members: Iterable[int], name: str, description: str = "", private: bool = False
    ) -> None:
        key = sort_key(name, TOPIC_MAX)
        with db.session.no_autoflush:
            same = sa.select(Topic.id).where(Topic.name_key == key, Topic.deleted_at.is_(None))
            if db.session.scalar(same.where(Topic.id != self.id if self.id else sa.true())):
                raise Refused("name", "There is a topic of that name.")
        self.name, self.name_key, self.description, self.private = name, key, description, private
        db.session.add(self)
        db.session.flush()
        rows(sa.delete(TopicMember).where(TopicMember.topic_id == self.id))
        if private:
            # Whoever closes a topic stays in it, or nobody could open it again.
            chosen = db.session.scalars(sa.select(User.id).where(User.id.in_({*members, actor.id})))
            db.session.connection().execute(
                sa.insert(TopicMember), [{"topic_id": self.id, "user_id": user_id} for user_id in chosen]
            )

    @classmethod
    def _free_slug(cls, name: str) -> str:
        slug = slugify(name)
        taken = set(db.session.scalars(sa.select(cls.slug).where(cls.slug.startswith(slug, autoescape=True))))
        numbered = (f"{slug}-{number}" for number in range(2, len(taken) + 3))
        return slug if slug not in taken else next(name for name in numbered if name not in taken)


class TopicMember(Model):
    """Somebody chosen to see a private topic."""

    __tablename__ = "topic_members"
    topic_id: Mapped[int] = mapped_column(sa.ForeignKey("topics.id"), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"), primary_key=True, index=True)


class Post(Model):
    """News, or a page of the handbook. Markdown is rendered when it is saved, and kept beside its source."""

    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(8))
    topic_id: Mapped[int] = mapped_column(sa.ForeignKey("topics.id"))
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    editor_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    form_id: Mapped[str] = mapped_column(sa.String(32))
    version: Mapped[int] = mapped_column(default=1)
    title: Mapped[str] = mapped_column(sa.String(TITLE_MAX))
    title_key: Mapped[str] = mapped_column(sa.String(TITLE_MAX))
    excerpt: Mapped[str] = mapped_column(sa.String(EXCERPT_MAX))
    renderer: Mapped[int] = mapped_column(sa.SmallInteger)
    comment_count: Mapped[int] = mapped_column(default=0)
    published_at: Mapped[datetime] = mapped_column(Timestamp)
    updated_at: Mapped[datetime] = mapped_column(Timestamp)
    edited_at: Mapped[datetime | None] = mapped_column(Timestamp)
    pinned_at: Mapped[datetime | None] = mapped_column(Timestamp)
    deleted_at: Mapped[datetime | None] = mapped_column(Timestamp)
    deleted_by_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id"))
    # Last, because SQLite reads a row from its front: lists, which want neither, pass no long text on their way.
    body: Mapped[str] = mapped_column(LongText)
    html: Mapped[str] = mapped_column(LongText)

    # -- queries

    @classmethod
    def visible(cls) -> sa.ColumnElement[bool]:
        """Whether the person bound as `viewer` may see a post."""
        return sa.and_(cls.deleted_at.is_(None), cls.topic_id.in_(sa.select(Topic.id).where(Topic.visible())))

    @classmethod
    def visible_to(cls, user: Permissions) -> sa.Select[Self]:
        """The posts that a person may see."""
        return sa.select(cls).where(cls.visible()).params(viewer=user.id)

    @classmethod
    @functools.cache
    def _list(cls, of: str, continued: bool) -> Columns:
        """The statement behind a list, newest first: of `home`, of a `topic`, or of an `author`."""
        chosen = {"home": cls.kind == "news", "topic": cls.kind == "news", "author": sa.true()}[of]
        statement = database.in_table_order(sa.select(*CARD_COLUMNS)).where(cls.visible(), chosen)
        if of != "home":
            column = cls.topic_id if of == "topic" else cls.author_id
            statement = statement.where(column == sa.bindparam("of_id"))
        if continued:
            when, last = sa.bindparam("when", type_=Timestamp), sa.bindparam("last")
            # Not (published_at, id) < (…, …): MariaDB reads the whole index for a comparison of rows.
            earlier = sa.or_(cls.published_at < when, cls.id < last)
            statement = statement.where(cls.published_at <= when, earlier)
        return statement.order_by(cls.published_at.desc(), cls.id.desc()).limit(sa.bindparam("most"))

    @classmethod
    @functools.cache
    def _prepared_list(cls, of: str, continued: bool) -> Prepared:
        return Prepared(cls._list(of, continued))

    @classmethod
    @functools.cache
    def _front(cls) -> Prepared:
        """The first page of Home in one statement: what is pinned, and the newest."""
        pinned = database.in_table_order(sa.select(*CARD_COLUMNS))
        pinned = pinned.where(cls.visible(), cls.kind == "news", cls.pinned_at.is_not(None))
        pinned = pinned.order_by(cls.pinned_at.desc(), cls.id.desc()).limit(PINNED_MAX)
        newest = cls._list("home", continued=False)
        parts = (
            sa.select(part.subquery(), sa.literal(place).label("place")) for place, part in enumerate((pinned, newest))
        )
        return Prepared(sa.union_all(*parts))

    @classmethod
    def front(cls, viewer: Viewer) -> Page:
        """The first page of Home: at most `PINNED_MAX` pinned posts, then the newest."""
        found = rows(cls._front(), viewer=viewer.id, most=PAGE_SIZE + PINNED_MAX + 1).all()
        pinned = [PostCard._make(row[:-1]) for row in found if row[-1] == 0]
        above = {card.id for card in pinned}
        newest = [PostCard._make(row[:-1]) for row in found if row[-1] == 1 and row[0] not in above]
        # SQL promises no order for the parts of a UNION, though both engines keep it; sorting what is sorted is cheap.
        pinned.sort(key=attrgetter("pinned_at", "id"), reverse=True)
        newest.sort(key=attrgetter("published_at", "id"), reverse=True)
        return Page.of(newest, is_first=True)._replace(pinned=pinned)

    @classmethod
    def page(cls, viewer: Viewer, of: str, before: Cursor | None, of_id: int = 0) -> Page:
        """A page of a list, newest first: `of` is home, topic or author, the latter two with their id."""
        place = {"when": before.when, "last": before.id} if before else {}
        statement = cls._prepared_list(of, before is not None)
        wanted = {"of_id": of_id} if of != "home" else {}
        found = rows(statement, viewer=viewer.id, most=PAGE_SIZE + 1, **place, **wanted)
        return Page.of([PostCard._make(row) for row in found], is_first=before is None)

    @classmethod
    @functools.cache
    def _single(cls) -> Prepared:
        joined = sa.select(*POST_COLUMNS).join(Topic, Topic.id == cls.topic_id).join(User, User.id == cls.author_id)
        return Prepared(joined.where(cls.visible(), cls.id == sa.bindparam("id")))

    @classmethod
    def fetch(cls, viewer: Viewer, post_id: int) -> PostView:
        """One post as its page shows it. Raises `NotVisible`."""
        row = rows(cls._single(), viewer=viewer.id, id=post_id).first()
        if row is None:
            raise NotVisible
        return PostView.of(row, viewer)

    @classmethod
    @functools.cache
    def _handbook(cls, continued: bool) -> Prepared:
        editor = aliased(User)
        statement = (
            sa.select(
                *(cls.id, cls.title, cls.title_key, cls.updated_at, editor.name.label("editor_name")),
                *(editor.username.label("editor_username"), Topic.id.label("topic_id"), Topic.name.label("topic_name")),
                *(Topic.slug.label("topic_slug"), Topic.private.label("topic_private"), Topic.position),
            )
            .select_from(Topic)
            .join(cls, cls.topic_id == Topic.id)
            .join(editor, editor.id == cls.editor_id)
            .where(cls.visible(), cls.kind == "page")
        )
        if continued:
            at = {name: sa.bindparam(name) for name in ("position", "topic", "title", "last")}
            statement = statement.where(
                Topic.position >= at["position"],
                sa.or_(
                    Topic.position > at["position"],
                    Topic.id > at["topic"],
                    sa.and_(Topic.id == at["topic"], cls.title_key > at["title"]),
                    sa.and_(Topic.id == at["topic"], cls.title_key == at["title"], cls.id > at["last"]),
                ),
            )
        order = (Topic.position, Topic.id, cls.title_key, cls.id)
        return Prepared(database.in_table_order(statement).order_by(*order).limit(HANDBOOK_PER_PAGE + 1))

    @classmethod
    def handbook(cls, viewer: Viewer, after: tuple[int, int, str, int] | None) -> list[Any]:
        """The handbook's pages by topic and title, from a place on; one more than a page holds."""
        place = dict(zip(("position", "topic", "title", "last"), after, strict=True)) if after else {}
        return list(rows(cls._handbook(after is not None), viewer=viewer.id, **place))

    # -- predicates

    @staticmethod
    def editable(kind: str, author_id: int, user: Permissions) -> bool:
        """Editors change everything they see; members their own news."""
        return user.is_editor or (user.may_write and kind == "news" and author_id == user.id)

    def editable_by(self, user: Permissions) -> bool:
        return self.editable(self.kind, self.author_id, user)

    # -- actions

    @classmethod
    @unit
    def create(cls, actor: Permissions, *, kind: str, topic_id: int, title: str, body: str, form_id: str) -> int:
        """Publish a post. Returns its id; the same form sent again by the same person, the first one's.

        Raises `Forbidden`, or `Refused` for a topic that the person does not see.
        """
        author = User.acting(actor.id, Role.EDITOR if kind == "page" else Role.MEMBER)
        first = sa.select(cls.id).where(cls.author_id == author.id, cls.form_id == form_id)
        if (existing := db.session.scalar(first)) is not None:
            return existing
        now = utcnow()
        post = cls(kind=kind, author_id=author.id, form_id=form_id, version=0, published_at=now)
        post._save(author, now, topic_id=topic_id, title=title, body=body)
        Activity.record(author, "post.created", post, title)
        return post.id

    @classmethod
    @unit
    def edit(cls, actor: Permissions, post_id: int, version: int, *, topic_id: int, title: str, body: str) -> None:
        """Save a new version over the one that was read. Raises `Conflict` when somebody else saved in between."""
        post, editor = cls._for_change(actor, post_id)
        if post.version != version:
            saver = db.session.get(User, post.editor_id)
            raise Conflict(
                title=post.title, body=post.body, version=post.version, topic_id=post.topic_id,
                editor_name=saver.name if saver else "", updated_at=post.updated_at,
            )  # fmt: skip
        if (post.topic_id, post.title, post.body) == (topic_id, title, body):
            return
        now = utcnow()
        post.edited_at = now
        post._save(editor, now, topic_id=topic_id, title=title, body=body)
        Activity.record(editor, "post.edited", post, title)

    @classmethod
    @unit
    def delete(cls, actor: Permissions, post_id: int) -> None:
        """Put a post where only restoring finds it. Again: nothing more happens."""
        post, editor = cls._for_change(actor, post_id, deleted=True)
        if post.deleted_at is None:
            post.deleted_at, post.deleted_by_id = utcnow(), editor.id
            Activity.record(editor, "post.deleted", post, post.title)

    @classmethod
    @unit
    def restore(cls, actor: Permissions, post_id: int) -> None:
        post, editor = cls._for_change(actor, post_id, deleted=True)
        if post.deleted_at is not None:
            post.deleted_at = post.deleted_by_id = None
            Activity.record(editor, "post.restored", post, post.title)

    @classmethod
    @unit
    def pin(cls, actor: Permissions, post_id: int, pinned: bool) -> None:
        """Keep news at the top of Home, or let it go. Editors only."""
        post, editor = cls._for_change(actor, post_id)
        if not editor.is_editor:
            raise Forbidden
        if pinned and post.kind != "news":
            raise Refused("pinned", "Only news can be pinned.")
        if pinned != (post.pinned_at is not None):
            post.pinned_at = utcnow() if pinned else None
            Activity.record(editor, "post.pinned" if pinned else "post.unpinned", post, post.title)

    @classmethod
    def _for_change(cls, actor: Permissions, post_id: int, deleted: bool = False) -> tuple[Post, User]:
        """Read a post and who acts anew, for a change. Raises `NotVisible` or `Forbidden`.

        With `deleted`, a deleted one too, where the person might restore it: for anybody else it does not exist.
        """
        user = User.acting(actor.id)
        seen = sa.select(cls).join(Topic, Topic.id == cls.topic_id).params(viewer=user.id)
        seen = seen.where(cls.id == post_id, Topic.visible() if deleted else cls.visible())
        locked = seen.with_for_update(of=cls).execution_options(populate_existing=True)
        post = db.session.scalar(locked)
        if post is None or (post.deleted_at and not post.editable_by(user)):
            raise NotVisible
        if not post.editable_by(user):
            raise Forbidden
        return post, user

    def _save(self, editor: User, now: datetime, *, topic_id: int, title: str, body: str) -> None:
        """Write a version and its revision."""
        if db.session.scalar(Topic.visible_to(editor).where(Topic.id == topic_id)) is None:
            raise Refused("topic", "Choose a topic.")
        self.topic_id, self.title, self.title_key = topic_id, title, sort_key(title)
        self.body, self.html, self.renderer = body, render_markdown(body), RENDERER_VERSION
        self.excerpt = plain_text(self.html)
        self.editor_id, self.updated_at, self.version = editor.id, now, self.version + 1
        db.session.add(self)
        db.session.flush()
        Revision.keep(
            post_id=self.id, editor_id=editor.id, version=self.version, title=title, body=body, created_at=now
        )
        SearchEntry.put("post", self)

    def to_dict(self) -> dict[str, Any]:
        fields = ("id", "kind", "title", "body", "html", "topic_id", "author_id", "version", "comment_count")
        return {field: getattr(self, field) for field in fields} | {"published_at": self.published_at.isoformat() + "Z"}


sa.Index("uq_posts_author_id_form_id", Post.author_id, Post.form_id, unique=True)
sa.Index("ix_posts_news", Post.kind, Post.deleted_at, Post.published_at, Post.id)
sa.Index("ix_posts_topic", Post.topic_id, Post.kind, Post.deleted_at, Post.published_at, Post.id)
sa.Index("ix_posts_author", Post.author_id, Post.deleted_at, Post.published_at, Post.id)
sa.Index("ix_posts_title", Post.topic_id, Post.kind, Post.deleted_at, Post.title_key, Post.id)
sa.Index("ix_posts_changed", Post.kind, Post.deleted_at, Post.updated_at, Post.id)
sa.Index("ix_posts_pinned", Post.kind, Post.deleted_at, Post.pinned_at, Post.id)
sa.Index("uq_topics_author_id_form_id", Topic.author_id, Topic.form_id, unique=True)

# What a card in a list shows, and no more: each column is read and compared for each row of the hottest page.
CARD_COLUMNS = (
    Post.id,
    Post.title,
    Post.excerpt,
    Post.comment_count,
    Post.published_at,
    Post.pinned_at,
    Post.author_id,
    Post.topic_id,
)
POST_COLUMNS = (
    *CARD_COLUMNS,
    Post.kind,
    Post.version,
    Post.updated_at,
    Post.edited_at,
    Post.html,
    User.name.label("author_name"),
    User.username.label("author_username"),
    Topic.name.label("topic_name"),
    Topic.slug.label("topic_slug"),
    Topic.private.label("topic_private"),
)


# Lists deal in plain tuples: what is drawn of one is kept under all it says, and SQLAlchemy's rows compare slowly.
PostCard = namedtuple("PostCard", [column.key for column in CARD_COLUMNS])
_POST_FIELDS = tuple(column.key for column in POST_COLUMNS)


class PostView(namedtuple("PostView", (*_POST_FIELDS, "is_new", "can_edit", "can_delete", "can_pin"))):
    """A post as its own page shows it, with what this person may do."""

    __slots__ = ()

    @classmethod
    def of(cls, row: Any, viewer: Viewer) -> PostView:
        change = Post.editable(row.kind, row.author_id, viewer)
        new = viewer.is_new(row.published_at, row.author_id)
        return cls._make((*row, new, change, change, viewer.is_editor and row.kind == "news"))


class Page(NamedTuple):
    """A page of a list: its posts, what is pinned above them, and where the next page begins."""

    posts: Sequence[PostCard]
    pinned: Sequence[PostCard]
    before: str | None
    is_first: bool

    @classmethod
    def of(cls, posts: Sequence[PostCard], is_first: bool) -> Page:
        """Cut a page from what a statement found, which was asked for more than the page holds."""
        shown = posts[:PAGE_SIZE]
        more = len(posts) > PAGE_SIZE
        return cls(shown, [], Cursor(shown[-1].published_at, shown[-1].id).encode() if more else None, is_first)


class Revision(Model):
    """What a post or a comment said in one of its versions. Never changed."""

    __tablename__ = "revisions"
    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int] = mapped_column(sa.ForeignKey("posts.id"))
    comment_id: Mapped[int | None] = mapped_column(sa.ForeignKey("comments.id"), index=True)
    version: Mapped[int]
    editor_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(Timestamp)
    title: Mapped[str] = mapped_column(sa.String(TITLE_MAX))
    body: Mapped[str] = mapped_column(LongText)

    @classmethod
    def keep(cls, *, editor_id: int, title: str = "", **values: Any) -> None:
        """Write a version down, as part of the caller's unit."""
        rows(REVISION_INSERT, editor_id=editor_id, title=title, **values)

    @classmethod
    def editor_name(cls, comment_id: int, version: int) -> str:
        """Who wrote a version of a comment."""
        saver = sa.select(User.name).join(cls, cls.editor_id == User.id)
        return db.session.scalar(saver.where(cls.comment_id == comment_id, cls.version == version)) or ""


sa.Index("ix_revisions_post", Revision.post_id, Revision.comment_id, Revision.version)
REVISION_INSERT = Prepared(sa.insert(Revision))


class Comment(Model):
    """What somebody said below a post."""

    __tablename__ = "comments"
    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int] = mapped_column(sa.ForeignKey("posts.id"))
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    form_id: Mapped[str] = mapped_column(sa.String(32))
    version: Mapped[int] = mapped_column(default=1)
    body: Mapped[str] = mapped_column(LongText)
    html: Mapped[str] = mapped_column(LongText)
    renderer: Mapped[int] = mapped_column(sa.SmallInteger)
    created_at: Mapped[datetime] = mapped_column(Timestamp)
    edited_at: Mapped[datetime | None] = mapped_column(Timestamp)
    deleted_at: Mapped[datetime | None] = mapped_column(Timestamp)
    deleted_by_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id"))

    # -- queries

    @classmethod
    def visible_to(cls, user: Permissions) -> sa.Select[Self]:
        """The comments that a person may see: those of the posts that they may see."""
        return (
            sa.select(cls)
            .join(Post, Post.id == cls.post_id)
            .where(cls.deleted_at.is_(None), Post.visible())
            .params(viewer=user.id)
        )

    @classmethod
    @functools.cache
    def _below(cls, continued: bool) -> Prepared:
        columns = (cls.id, cls.html, cls.created_at, cls.edited_at, cls.version, cls.author_id)
        statement = sa.select(*columns).where(cls.post_id == sa.bindparam("post"), cls.deleted_at.is_(None))
        if continued:
            statement = statement.where(cls.id < sa.bindparam("last"))
        return Prepared(statement.order_by(cls.id.desc()).limit(COMMENTS_PER_PAGE + 1))

    @classmethod
    def below(cls, viewer: Viewer, post: PostView, before: int | None) -> tuple[list[CommentView], int | None]:
        """The latest comments below a post that was fetched for this person, oldest first.

        Returns them, and the id before which the earlier ones are (None when there are none).
        """
        place = {"last": before} if before else {}
        found = rows(cls._below(before is not None), post=post.id, **place).all()
        shown = [CommentView.of(row, viewer) for row in reversed(found[:COMMENTS_PER_PAGE])]
        return shown, shown[0].id if len(found) > COMMENTS_PER_PAGE else None

    @classmethod
    def later_than(cls, comment: Comment) -> int | None:
        """The id before which the page begins that shows a comment, None when the latest page does."""
        later = sa.select(cls.id).where(cls.post_id == comment.post_id, cls.deleted_at.is_(None), cls.id > comment.id)
        beyond = later.order_by(cls.id).offset(COMMENTS_PER_PAGE - 1).limit(1)  # bounded by a page, not by the list
        return db.session.scalar(beyond)

    # -- predicates

    @staticmethod
    def editable(author_id: int, user: Permissions) -> bool:
        return user.is_editor or (user.may_write and author_id == user.id)

    def editable_by(self, user: Permissions) -> bool:
        """Editors change every comment they see, members their own."""
        return self.editable(self.author_id, user)

    # -- actions

    @classmethod
    @functools.cache
    def _place(cls) -> Prepared:
        """Why a comment was not inserted: may they see the post, was the form sent before."""
        before = sa.select(cls.id).where(cls.author_id == VIEWER, cls.form_id == sa.bindparam("form_id"))
        return Prepared(
            sa.select(before.scalar_subquery().label("existing"))
            .select_from(Post)
            .where(Post.id == sa.bindparam("post"), Post.visible())
        )

    @classmethod
    def create(cls, actor: Permissions, post_id: int, *, body: str, form_id: str, rendered: str | None = None) -> int:
        """Comment on a post. Returns the comment's id; the same form sent again by the same person, the first one's.

        `rendered` is the body's HTML where the caller has it already. Raises `NotVisible` or `Forbidden`.
        """
        # Read and rendered out here: nothing inside may ask a session, or hold the write lock for longer than it must.
        comment_id = cls._create(actor.id, post_id, body, form_id, rendered or render_markdown(body))
        state().indexer.note("comments", True)
        return comment_id

    @classmethod
    @lean_unit
    def _create(cls, author_id: int, post_id: int, body: str, form_id: str, rendered: str) -> int:
        """Written in plain statements: it is the write that happens most."""
        # The count comes first: it locks the post, so that what is read next stays true until the commit.
        rows(COMMENT_COUNT, post=post_id, by=1)
        written = {"body": body, "html": rendered, "form_id": form_id, "now": utcnow()}
        made = rows(cls._insert(), viewer=author_id, post=post_id, **written)
        if made.rowcount != 1:
            return cls._not_inserted(author_id, post_id, form_id)
        comment_id: int = made.inserted_primary_key[0]  # type: ignore[index]
        Activity.record(author_id, "comment.created", ("comment", comment_id))
        return comment_id

    @classmethod
    @functools.cache
    def _insert(cls) -> Prepared:
        """Write a comment unless its form was sent before, or its writer may not: one statement asks and does."""
        given = {name: sa.bindparam(name, type_=LongText) for name in ("body", "html")}
        values = {
            **given,
            "post_id": Post.id,
            "author_id": User.id,
            "form_id": sa.bindparam("form_id", type_=sa.String),
            "version": sa.literal(1),
            "renderer": sa.literal(RENDERER_VERSION),
            "created_at": sa.bindparam("now", type_=Timestamp),
        }
        writer = sa.and_(User.id == VIEWER, User.deactivated_at.is_(None), User.role >= Role.MEMBER)
        place = sa.and_(Post.id == sa.bindparam("post"), Post.visible())
        found = sa.select(*values.values()).select_from(sa.join(Post, User, writer)).where(place)
        insert = sa.insert(cls).from_select(list(values), found, include_defaults=False)
        return Prepared(database.unless_present(insert))

    @classmethod
    def _not_inserted(cls, author_id: int, post_id: int, form_id: str) -> int:
        """The comment that was made by the same form before; else raises what prevented another."""
        place = rows(cls._place(), viewer=author_id, post=post_id, form_id=form_id).first()
        if place is None:
            raise NotVisible
        if place.existing is None:
            raise Forbidden
        rows(COMMENT_COUNT, post=post_id, by=-1)
        return place.existing

    @classmethod
    @unit
    def edit(cls, actor: Permissions, comment_id: int, version: int, *, body: str) -> None:
        """Save a new version over the one that was read. Raises `Conflict` when somebody else saved in between."""
        comment, editor = cls._for_change(actor, comment_id)
        if comment.version != version:
            saver = Revision.editor_name(comment.id, comment.version)
            moment = comment.edited_at or comment.created_at
            raise Conflict(title="", body=comment.body, version=comment.version, editor_name=saver, updated_at=moment)
        if comment.body == body:
            return
        now = utcnow()
        if comment.edited_at is None:
            # Most comments are never edited: the first version is written down when there comes to be a second.
            first = {"version": 1, "body": comment.body, "created_at": comment.created_at}
            Revision.keep(post_id=comment.post_id, comment_id=comment.id, editor_id=comment.author_id, **first)
        comment.body, comment.html, comment.renderer = body, render_markdown(body), RENDERER_VERSION
        comment.version, comment.edited_at = version + 1, now
        Revision.keep(
            post_id=comment.post_id,
            comment_id=comment.id,
            editor_id=editor.id,
            version=version + 1,
            body=body,
            created_at=now,
        )
        SearchEntry.put("comment", comment)
        Activity.record(editor, "comment.edited", comment)

    @classmethod
    @unit
    def delete(cls, actor: Permissions, comment_id: int) -> int:
        """Put a comment where only restoring finds it. Returns the id of its post."""
        return cls._set_deleted(actor, comment_id, True)

    @classmethod
    @unit
    def restore(cls, actor: Permissions, comment_id: int) -> int:
        """Bring a deleted comment back. Returns the id of its post."""
        return cls._set_deleted(actor, comment_id, False)

    @classmethod
    def _set_deleted(cls, actor: Permissions, comment_id: int, deleted: bool) -> int:
        comment, editor = cls._for_change(actor, comment_id, deleted=True)
        if (comment.deleted_at is not None) != deleted:
            comment.deleted_at, comment.deleted_by_id = (utcnow(), editor.id) if deleted else (None, None)
            rows(COMMENT_COUNT, post=comment.post_id, by=-1 if deleted else 1)
            SearchEntry.remove("comment", comment.id) if deleted else SearchEntry.put("comment", comment)
            Activity.record(editor, "comment.deleted" if deleted else "comment.restored", comment)
        return comment.post_id

    @classmethod
    def _for_change(cls, actor: Permissions, comment_id: int, deleted: bool = False) -> tuple[Comment, User]:
        """Like a post's: anew, locked, visible (with `deleted` also what the person might restore), and editable."""
        user = User.acting(actor.id)
        seen = (
            sa.select(cls)
            .join(Post, Post.id == cls.post_id)
            .where(cls.id == comment_id, Post.visible())
            .params(viewer=user.id)
        )
        comment = db.session.scalar(seen.with_for_update().execution_options(populate_existing=True))
        if comment is None or (comment.deleted_at and not (deleted and comment.editable_by(user))):
            raise NotVisible
        if not comment.editable_by(user):
            raise Forbidden
        return comment, user


sa.Index("uq_comments_author_id_form_id", Comment.author_id, Comment.form_id, unique=True)
sa.Index("ix_comments_post", Comment.post_id, Comment.deleted_at, Comment.id)
COMMENT_INSERT = Prepared(sa.insert(Comment))
COMMENT_COUNT = Prepared(
    sa.update(Post)
    .where(Post.id == sa.bindparam("post"))
    .values(comment_count=Post.comment_count + sa.bindparam("by", type_=sa.Integer))
)

_COMMENT_FIELDS = "id html created_at edited_at version author_id is_new can_edit can_delete"


class CommentView(namedtuple("CommentView", _COMMENT_FIELDS)):
    """A comment as a page shows it, with what this person may do."""

    __slots__ = ()

    @classmethod
    def of(cls, row: Any, viewer: Viewer) -> CommentView:
        change = Comment.editable(row.author_id, viewer)
        return cls._make((*row, viewer.is_new(row.created_at, row.author_id), change, change))


class SearchEntry(Model):
    """What the search finds of a post, a page, a comment or a person: its words, as `database.search_tokens` has them.

    Whether somebody may see it is never written here but asked of the post itself, or the person, with each search.
    Posts and people are indexed by the unit that writes them. Comments are what is written most, and adding to FTS5
    takes 35 millionths of a second but now and then 30 thousandths, when it merges: they are indexed a moment later,
    many at once. No list of them can be lost with the process, because the comments that have no entry are the list.
    """

    __tablename__ = "search_entries"
    id: Mapped[int] = mapped_column(primary_key=True)  # in the order of time, so the newest are found from the end
    kind: Mapped[str] = mapped_column(sa.String(8))
    object_id: Mapped[int]
    post_id: Mapped[int | None]  # of a post itself, of a comment the one it is below; no foreign key: see above
    at: Mapped[datetime] = mapped_column(Timestamp)
    title: Mapped[str] = mapped_column(LongText)
    tokens: Mapped[str] = mapped_column(LongText)
    __table_args__ = (sa.UniqueConstraint("kind", "object_id"), database.MYSQL_TABLE)

    # -- queries

    @classmethod
    @functools.cache
    def _hits(cls, sqlite: bool, words: int, narrowed: tuple[str, ...]) -> Prepared:
        """The best of the newest `HITS_MOST` entries that match and that `viewer` may see, and how many these are."""
        table: Any = cls.__table__
        source, matches, newest = database.search_match(table, sqlite)
        names = [f"word{number}" for number in range(words)]
        fits = (database.in_title(cls.title, names) if names else sa.literal(0)) + cls._weight()
        columns = (cls.id, cls.kind, cls.object_id, cls.post_id, cls.at, fits.label("fits"))
        limits = {
            "topic": Post.topic_id == sa.bindparam("topic"),
            "since": cls.at >= sa.bindparam("since", type_=Timestamp),
            "before": cls.at < sa.bindparam("before", type_=Timestamp),
        }
        found = database.in_table_order(sa.select(*columns)).select_from(source).join(Post, Post.id == cls.post_id)
        found = found.where(matches, Post.visible(), *(limits[name] for name in narrowed))
        found = database.by_search_index(found, table, Post.__table__)  # type: ignore[arg-type]
        hits = found.order_by(newest).limit(database.HITS_MOST).subquery()
        ranked = sa.select(
            *(hits.c[name] for name in ("kind", "object_id", "post_id")), sa.func.count().over().label("total")
        )
        return Prepared(ranked.order_by(hits.c.fits.desc(), hits.c.at.desc(), hits.c.id.desc()).limit(RESULTS))

    @classmethod
    def _weight(cls) -> sa.ColumnElement[int]:
        """What a hit is worth beside its title: new is more, and so is the handbook, which stays true."""
        new = [(cls.at >= sa.bindparam(name, type_=Timestamp), worth) for name, worth in (("week", 3), ("month", 2))]
        recent = sa.case(*new, (cls.at >= sa.bindparam("year", type_=Timestamp), 1), else_=0)
        return recent + sa.case((cls.kind == "page", 1), else_=0)

    @classmethod
    def hits(cls, viewer: Viewer, wanted: Wanted) -> tuple[Sequence[Any], int, bool]:
        """The posts, pages and comments that this person may see and that fit best; how many there are in all.

        Of words that are everywhere only the newest are looked at: then there may be more, as the last part says.
        """
        now = g.now
        days = {"week": 7, "month": 30, "year": 365}
        given = {name: now - timedelta(days=many) for name, many in days.items()} | dict(wanted.limits)
        given |= {f"word{number}": database.title_word(word) for number, word in enumerate(wanted.words)}
        statement = cls._hits(database.engine_state().is_sqlite, len(wanted.words), tuple(wanted.limits))
        found, count = (), 0
        *narrow, whole = database.search_passes(wanted.words, wanted.flags, cls._newest)
        for match in (*narrow, whole):
            found = rows(statement, viewer=viewer.id, match=match, **given).all()
            count = found[0].total if found else 0
            if count >= database.WINDOW_ENOUGH and match != whole:
                return found, count, True
        return found, count, count == database.HITS_MOST

    @classmethod
    def _newest(cls) -> dict[str, int]:
        (last,) = rows(_LAST_IDS)
        posts, comments = last.posts or 0, last.comments or 0
        return {"page": posts, "post": posts, "comment": comments}

    @classmethod
    @functools.cache
    def _people(cls, sqlite: bool) -> Prepared:
        source, matches, _newest = database.search_match(cls.__table__, sqlite)  # type: ignore[arg-type]
        columns = (User.id, User.name, User.username, User.title, User.department)
        found = database.in_table_order(sa.select(*columns)).select_from(source).join(User, User.id == cls.object_id)
        found = found.where(matches, cls.kind == "person", User.deactivated_at.is_(None))
        return Prepared(found.order_by(User.name_key, User.id).limit(sa.bindparam("most")))

    @classmethod
    def people(cls, wanted: Wanted, most: int) -> Sequence[Any]:
        """The people who fit, by name."""
        match = database.search_passes(wanted.words, database.search_filter("person"), dict)[-1]
        return rows(cls._people(database.engine_state().is_sqlite), match=match, most=most).all()

    # -- actions

    @classmethod
    def put(cls, kind: str, row: Any) -> None:
        """Have an object found as it is now, as part of the unit that writes it."""
        values = cls._values(kind, row)
        here = sa.update(cls).where(cls.kind == values["kind"], cls.object_id == row.id)
        if not rows(here.values(values)).rowcount:
            rows(SEARCH_INSERT, **values)

    @classmethod
    def remove(cls, kind: str, object_id: int) -> None:
        """Have an object found no more, as part of the caller's unit."""
        rows(sa.delete(cls).where(cls.kind == kind, cls.object_id == object_id))

    @classmethod
    def catch_up(cls, _notes: Any = None) -> None:
        """Write the entries that are missing, of the newest objects of each kind: what came since, or before a kill."""
        for kind in SEARCH_SOURCES:
            while cls._write(cls._missing(kind)) == SEARCH_BATCH:
                pass

    @classmethod
    def _missing(cls, kind: str) -> list[dict[str, Any]]:
        """Entries to write, made outside of the unit: nobody else need wait while words are told apart."""
        of, source = SEARCH_SOURCES[kind]
        kinds = ("post", "page") if kind == "post" else (kind,)
        # On MySQL a lower id may be committed after a higher one: look a little further back than the last.
        last = sa.select(sa.func.max(cls.object_id)).where(cls.kind.in_(kinds)).scalar_subquery()
        has = sa.exists().where(cls.object_id == of.id, cls.kind.in_(kinds))
        missing = source.where(of.id > sa.func.coalesce(last, 0) - SEARCH_BATCH, ~has)
        found = rows(missing.order_by(of.id).limit(SEARCH_BATCH)).all()
        database.end_reading()
        return [cls._values(kind, row) for row in found]

    @classmethod
    @lean_unit
    def _write(cls, entries: Sequence[dict[str, Any]]) -> int:
        """Write entries unless they stand, or their comment was deleted meanwhile. Returns how many it was given."""
        comments = [entry["object_id"] for entry in entries if entry["kind"] == "comment"]
        # Whoever deletes one at this moment has committed before this goes on, or waits and removes the entry.
        living = sa.select(Comment.id).where(Comment.id.in_(comments), Comment.deleted_at.is_(None))
        alive = {row.id for row in rows(living.with_for_update(read=True))} if comments else set()
        chosen = [entry for entry in entries if entry["kind"] != "comment" or entry["object_id"] in alive]
        if chosen:
            database.connection().execute(database.unless_present(sa.insert(cls)), chosen)
        return len(entries)

    @classmethod
    def reindex(cls, advance: Callable[[int], None]) -> None:
        """Write all entries anew, in the order of time; what is not written yet is not found meanwhile."""
        cls._clear()
        times = [sa.select(sa.literal(kind).label("kind"), of.id, column.label("at")) for kind, (of, column) in
                 {"person": (User, User.created_at), "post": (Post, Post.published_at),
                  "comment": (Comment, Comment.created_at)}.items()]  # fmt: skip
        every = sa.union_all(*times).subquery()
        found = rows(sa.select(every.c.kind, every.c.id).order_by(every.c.at, every.c.kind, every.c.id)).all()
        for start in range(0, len(found), SEARCH_BATCH):
            batch = [(row.kind, row.id) for row in found[start : start + SEARCH_BATCH]]
            made: dict[tuple[str, int], dict[str, Any]] = {}
            for kind, (of, source) in SEARCH_SOURCES.items():
                some = source.where(of.id.in_([object_id for of_kind, object_id in batch if of_kind == kind]))
                made |= {(kind, row.id): cls._values(kind, row) for row in rows(some)}
            database.end_reading()
            cls._write([made[one] for one in batch if one in made])
            advance(len(batch))

    @classmethod
    @unit
    def _clear(cls) -> None:
        database.clear_search(cls.__table__)  # type: ignore[arg-type]

    @classmethod
    def _values(cls, kind: str, row: Any) -> dict[str, Any]:
        """The entry of a post's, a comment's or a person's row."""
        if kind == "person":
            said = " ".join(filter(None, (row.username, row.title, row.department, row.location, row.phone, row.email)))
            return cls.values("person", row.id, None, row.id, row.created_at, row.name, said)
        text = plain_text(row.html, len(row.html))
        if kind == "comment":
            return cls.values("comment", row.id, row.post_id, row.author_id, row.created_at, "", text)
        of_kind = "page" if row.kind == "page" else "post"
        return cls.values(of_kind, row.id, row.id, row.author_id, row.published_at, row.title, text)

    @staticmethod
    def values(
        kind: str, object_id: int, post_id: int | None, author_id: int, at: datetime, title: str, text: str
    ) -> dict[str, Any]:
        """An entry's columns, from the words of its title and its text."""
        in_title = database.search_tokens(title)
        found_by = dict.fromkeys([*in_title, *database.search_tokens(text)])
        flags = database.search_flags(kind, object_id, author_id)
        place = {"kind": kind, "object_id": object_id, "post_id": post_id, "at": at}
        return place | {"title": f" {' '.join(in_title)} ", "tokens": " ".join([*found_by, *flags])}


SEARCH_BATCH = 1000
SEARCH_INSERT = Prepared(sa.insert(SearchEntry))
# What is to be found, by kind; attachments will be one more.
SEARCH_SOURCES: dict[str, tuple[Any, Columns]] = {
    "person": (
        User,
        sa.select(
            *(User.id, User.created_at, User.name, User.username, User.title),
            *(User.department, User.location, User.phone, User.email),
        ),
    ),
    "post": (Post, sa.select(Post.id, Post.kind, Post.author_id, Post.published_at, Post.title, Post.html)),
    "comment": (
        Comment,
        sa.select(Comment.id, Comment.post_id, Comment.author_id, Comment.created_at, Comment.html).where(
            Comment.deleted_at.is_(None)
        ),
    ),
}
_LAST_IDS = Prepared(
    sa.select(
        sa.select(sa.func.max(Post.id)).scalar_subquery().label("posts"),
        sa.select(sa.func.max(Comment.id)).scalar_subquery().label("comments"),
    )
)


class Wanted(NamedTuple):
    """What somebody looks for, and where."""

    words: Sequence[database.Word]
    flags: Sequence[str] = ()  # of the kind and the author
    limits: Mapping[str, Any] = {}  # topic, since, before


class Activity(Model):
    """Who did what, on what, when and from where. Written by the actions themselves; nobody can edit it."""

    __tablename__ = "activities"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(Timestamp)
    actor_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id"))
    action: Mapped[str] = mapped_column(sa.String(40))
    object_type: Mapped[str] = mapped_column(sa.String(20))
    object_id: Mapped[int]
    detail: Mapped[str] = mapped_column(sa.String(TITLE_MAX))
    address: Mapped[str] = mapped_column(sa.String(45))

    @classmethod
    def record(cls, actor: Permissions | int, action: str, on: Any, detail: str = "") -> None:
        """Write down what the caller's unit does; `on` is a model's row, or the pair of its kind and id."""
        actor_id = actor if isinstance(actor, int) else actor.id
        object_type, object_id = on if isinstance(on, tuple) else (type(on).__name__.lower(), on.id)
        subject = {"object_type": object_type, "object_id": object_id, "detail": detail[:TITLE_MAX]}
        rows(ACTIVITY_INSERT, at=utcnow(), actor_id=actor_id, action=action, address=client_address(), **subject)
        if action in CHANGES_DIRECTORY and not (isinstance(on, Post) and on.kind == "news"):
            rows(DIRECTORY_CHANGED)


ACTIVITY_INSERT = Prepared(sa.insert(Activity))

# People, topics, the handbook: whatever changes what the lists say of them counts `Setting` "directory" up.
CHANGES_DIRECTORY = frozenset(
    [
        "post.created",
        "post.edited",
        "post.deleted",
        "post.restored",
        "topic.created",
        "topic.edited",
        "topic.moved",
        "topic.merged",
        "topic.joined",
        "person.edited",
        "person.administered",
        "person.added",
        "person.rescued",
    ]
)


class Site(NamedTuple):
    """What the team decides about its site in the browser."""

    name: str = "Corkboard"
    welcome: str = ""
    registration: str = "closed"
    registration_domains: str = ""
    registration_role: str = "member"

    @property
    def domains(self) -> list[str]:
        """The mail domains whose people may register, folded."""
        return [fold(domain) for domain in self.registration_domains.replace(",", " ").split()]


class Setting(Model):
    """One of the site's settings.

    The rows `version` (of the settings) and `directory` (of people, topics and handbook) count changes. Both are read
    with the person at the begin of every request: what a process caches hangs on them.
    """

    __tablename__ = "settings"
    name: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    value: Mapped[str] = mapped_column(LongText)

    @classmethod
    def counter(cls, name: str) -> sa.ScalarSelect[Any]:
        """One of the rows that count changes, to be read within another statement."""
        return sa.select(cls.value).where(cls.name == name).scalar_subquery()

    @classmethod
    def read(cls) -> tuple[str, Site]:
        """The settings and their version."""
        found = {row.name: row.value for row in rows(sa.select(cls.name, cls.value))}
        known = {field: found[key] for key, field in SETTING_FIELDS.items() if key in found}
        return found.get("version", ""), Site(**known)

    @classmethod
    def lock(cls) -> Setting:
        """Make units that decide over several rows (the last admin, a topic's place) wait for one another."""
        row = db.session.get(cls, "version", with_for_update=True, populate_existing=True)
        assert row is not None, "the first migration writes it"
        return row

    @classmethod
    @unit
    def change(cls, actor: Permissions, **values: str) -> None:
        """Set some settings and tell every process by the version."""
        version = cls.lock()
        User.acting(actor.id, Role.ADMIN)
        for name, value in values.items():
            db.session.merge(cls(name=name, value=value))
        version.value = str(int(version.value) + 1)
        Activity.record(actor, "settings.changed", ("setting", int(version.value)), ", ".join(values))

    @classmethod
    @unit
    def renew_setup_token(cls) -> str:
        """Make a new one-time token for setting the site up; the old one ends. Raises `Refused` once people exist."""
        cls.lock()
        if User.exists():
            raise Refused("token", "The site is set up already. To rescue an account: python -m flask create-admin")
        token = secrets.token_urlsafe(24)
        db.session.merge(cls(name="setup_token", value=hash_token(token)))
        return token

    @classmethod
    def setup_token_hash(cls, lock: bool = False) -> str | None:
        if lock:
            cls.lock()
        return db.session.scalar(sa.select(cls.value).where(cls.name == "setup_token"))

    @classmethod
    def forget_setup_token(cls) -> None:
        rows(sa.delete(cls).where(cls.name == "setup_token"))


DIRECTORY_CHANGED = Prepared(
    sa.update(Setting)
    .where(Setting.name == "directory")
    .values(value=sa.cast(sa.cast(Setting.value, sa.Integer) + 1, sa.String(20)))
)
SETTING_FIELDS = {
    "site_name": "name",
    "welcome": "welcome",
    "registration": "registration",
    "registration_domains": "registration_domains",
    "registration_role": "registration_role",
}


class Throttle(Model):
    """How often something may be tried, counted in the database so that it holds across processes.

    The generic cell rate algorithm: a row keeps the time at which its allowance is whole again. Nobody is locked out
    for ever, because that time never lies further ahead than the allowance itself.
    """

    __tablename__ = "throttles"
    key: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    whole_at: Mapped[datetime] = mapped_column(Timestamp, index=True)

    @classmethod
    @unit
    def take(cls, key: str, burst: int, interval: timedelta) -> timedelta | None:
        """Use one of `burst` tries, each of which comes back after `interval`.

        Returns None when it was free, else how long to wait.
        """
        now, hashed = utcnow(), hash_token(key)
        rows(sa.delete(cls).where(cls.whole_at < now - timedelta(hours=1)))
        database.insert_if_absent(db.metadata.tables["throttles"], {"key": hashed, "whole_at": now})
        row = db.session.get(cls, hashed, with_for_update=True, populate_existing=True)
        assert row is not None
        whole_at = max(row.whole_at, now) + interval
        wait = whole_at - now - burst * interval
        if wait > timedelta(0):
            return wait
        row.whole_at = whole_at
        return None

    @classmethod
    @unit
    def give_back(cls, key: str, interval: timedelta | None = None) -> None:
        """Return one try, or with no interval all of them."""
        if interval is None:
            rows(sa.delete(cls).where(cls.key == hash_token(key)))
        elif (row := db.session.get(cls, hash_token(key), with_for_update=True, populate_existing=True)) is not None:
            row.whole_at -= interval


def hash_token(token: str) -> str:
    """The only form in which a random token is stored (SHA-256: it has entropy enough to need no salt)."""
    return hashlib.sha256(token.encode()).hexdigest()


# ======================================================================================================================
# == 3. Access =========================================================================================================
# ======================================================================================================================

# -- Passwords ---------------------------------------------------------------------------------------------------------


class PasswordWork:
    """Lets few hash at once (each takes 0.2 s and 32 MB), and few wait, so that sign-ins never starve the pages."""

    def __init__(self, threads: int) -> None:
        self.hashing = threading.BoundedSemaphore(HASHES_AT_ONCE)
        self.waiting = threading.BoundedSemaphore(max(1, threads // 2))

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn to hash. Raises 503 with Retry-After when too many wait already, or for too long."""
        if not self.waiting.acquire(blocking=False):
            raise too_busy()
        try:
            if not self.hashing.acquire(timeout=HASH_WAIT_SECONDS):
                raise too_busy()
        finally:
            self.waiting.release()
        try:
            yield
        finally:
            self.hashing.release()


def too_busy() -> ServiceUnavailable:
    return ServiceUnavailable("Many people are signing in at this moment. Try again in a few seconds.", retry_after=3)


def hash_password(password: str) -> str:
    """Hash a password for keeping. Call it before a unit, never inside: it would hold the write lock for 0.2 s."""
    with state().password_work.turn():
        return generate_password_hash(normal_password(password), method=SCRYPT)


def password_fits(stored: str, password: str) -> bool:
    """Whether a password is the one behind a stored hash, compared in constant time."""
    with state().password_work.turn():
        return check_password_hash(stored, normal_password(password))


def normal_password(password: str) -> str:
    """The same on every keyboard (NIST SP 800-63B section 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


@functools.cache
def _nobodys_hash() -> str:
    """What an unknown name's password is compared with, so that it takes as long as a known one's."""
    return generate_password_hash(secrets.token_hex(16), method=SCRYPT)


def weak_password(password: str) -> str | None:
    """Why a password is refused, None when it is not (OWASP ASVS 5.0, 6.2.1, 6.2.4: length and the commonest only)."""
    if len(normal_password(password)) < PASSWORD_MIN:
        return f"Use at least {PASSWORD_MIN} characters."
    if len(password) > PASSWORD_MAX:
        return f"Use at most {PASSWORD_MAX} characters."
    if normal_password(password).casefold() in COMMON_PASSWORDS:
        return "This is one of the passwords that everybody tries first. Choose another, such as three words."
    return None


ACCOUNT_TRIES, ACCOUNT_TRY_EVERY = 10, timedelta(seconds=30)
ADDRESS_TRIES, ADDRESS_TRY_EVERY = 40, timedelta(seconds=10)


def authenticate(name: str, password: str) -> User | None:
    """Check a name (or mail address) and password. Unknown, wrong and deactivated say the same, after the same time.

    Raises 429 with Retry-After when this account or this address tried too often.
    """
    user = User.by_username(name)
    keys = _throttle_keys(user, name)
    for key, burst, interval in keys:
        refuse_too_often(key, burst, interval)
    stored = user.password_hash if user and not user.deactivated_at else _nobodys_hash()
    fits = password_fits(stored, password)
    if not fits or user is None or user.deactivated_at:
        # Not the name: people type their password into that field, too.
        log.info("sign-in refused for %s", f"person {user.id}" if user else "an unknown name")
        return None
    Throttle.give_back(keys[0][0])
    Throttle.give_back(keys[1][0], ADDRESS_TRY_EVERY)
    if not stored.startswith(SCRYPT + "$"):
        User.rehash(user.id, hash_password(password))
    return user


def _throttle_keys(user: User | None, name: str) -> list[tuple[str, int, timedelta]]:
    """What a try to sign in counts against: the account, and the address.

    From an address where that person has signed in before, their own tries are counted apart: nobody elsewhere can
    keep them out by trying on their name.
    """
    address = client_network()
    account = f"account:{fold(name)[:USERNAME_MAX]}"
    if user is not None:
        places = db.session.scalars(sa.select(SignIn.address).where(SignIn.user_id == user.id).distinct().limit(100))
        known = any(network_of(place) == address for place in places)
        account = f"account:{user.id}" + (f"@{address}" if known else "")
    return [(account, ACCOUNT_TRIES, ACCOUNT_TRY_EVERY), (f"address:{address}", ADDRESS_TRIES, ADDRESS_TRY_EVERY)]


def refuse_too_often(key: str, burst: int, interval: timedelta) -> None:
    """Count a try. Raises 429 with Retry-After where there were too many."""
    wait = Throttle.take(key, burst, interval)
    if wait is not None:
        seconds = max(1, round(wait.total_seconds()))
        raise TooManyRequests(f"That was tried too often. Try again in {seconds} seconds.", retry_after=seconds)


def client_address() -> str:
    """Where a request comes from; empty on the command line. Behind TRUSTED_PROXY the server has set it."""
    return (request.remote_addr or "")[:45] if request else ""


def client_network() -> str:
    """What tries are counted by: the address, or in IPv6 the /64 that a customer owns."""
    return network_of(client_address())


def network_of(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    return str(ipaddress.ip_network(f"{parsed}/64", strict=False)) if parsed.version == 6 else str(parsed)


# -- Sessions ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Viewer(Permissions):
    """The person a request is for, as its first statement reads them. Not a model: there is nothing to save."""

    id: int
    username: str
    name: str
    role: Role
    theme: str
    zone: ZoneInfo
    shortcuts: bool
    sign_in_id: int
    directory_version: str
    last_activity: int | None
    new_since: datetime | None

    def is_new(self, moment: datetime, author_id: int) -> bool:
        """Whether something came since the last visit, from somebody else."""
        return self.new_since is not None and moment > self.new_since and author_id != self.id


@functools.cache
def _viewer_statement() -> Prepared:
    """Everything that a signed-in page begins with, in one statement."""
    return Prepared(
        sa.select(
            *(
                SignIn.id.label("sign_in_id"),
                SignIn.expires_at,
                SignIn.last_used_at,
                SignIn.remembered,
                SignIn.ended_at,
            ),
            *(User.id, User.username, User.name, User.role, User.theme, User.timezone, User.shortcuts),
            *(User.deactivated_at, User.previous_visit_at, User.last_active_at),
            Setting.counter("version").label("settings_version"),
            Setting.counter("directory").label("directory_version"),
            sa.select(sa.func.max(Activity.id)).scalar_subquery().label("last_activity"),
        )
        .join(User, User.id == SignIn.user_id)
        .where(SignIn.token_hash == sa.bindparam("token_hash"))
    )


def load_viewer() -> Viewer | None:
    """Find who a request is for by the token in its session; None when nobody is signed in."""
    token = session.get("token")
    row = database.glance(_viewer_statement(), token_hash=hash_token(token)).first() if token else None
    if row is None:
        g.ended_user_id = session.get("was")
        return None
    state().use_settings(row.settings_version)
    now = g.now
    idle = not row.remembered and row.last_used_at < now - SIGN_IN_IDLE
    if idle or row.ended_at or row.deactivated_at or row.expires_at <= now:
        g.ended_user_id = row.id
        return None
    if now - row.last_used_at > NOTED_EVERY or row.last_active_at is None:
        state().visits.note((row.id, row.sign_in_id), now)
    away = row.last_active_at is not None and now - row.last_active_at > VISIT_GAP
    since = row.last_active_at if away else row.previous_visit_at
    preferences = (row.theme, state().zone(row.timezone), row.shortcuts)
    return Viewer(
        row.id,
        row.username,
        row.name,
        row.role,
        *preferences,
        row.sign_in_id,
        row.directory_version,
        row.last_activity,
        since,
    )


def viewer_or_none() -> Viewer | None:
    """The signed-in person of this request, found once."""
    held = this_g()
    if "viewer" not in held:
        held.viewer = None  # for whatever is asked while it is being found
        held.viewer = load_viewer()
    return held.viewer


current_user: Any = LocalProxy(viewer_or_none)


def sign_in(user_id: int, remember: bool) -> None:
    """Begin a session for a person: a new token, and the session before is ended and forgotten (ASVS 5.0, 7.2.4)."""
    if (before := viewer_or_none()) is not None:
        SignIn.end(before, before.sign_in_id)
    token = SignIn.start(user_id, remember, device_name(), client_address())
    renew_session(token, remember)
    g.pop("viewer", None)


def renew_session(token: str | None, remember: bool = False) -> None:
    """Empty the cookie's session and give it a new CSRF token; with `token`, a sign-in."""
    session.clear()
    g.pop("csrf_token", None)
    generate_csrf()
    session.permanent = remember
    if token:
        session["token"] = token


def sign_out() -> None:
    """End this browser's session. It remembers whose it was, so that a form left open comes back to them only."""
    user = viewer_or_none()
    if user is not None:
        SignIn.end(user, user.sign_in_id)
    renew_session(None)
    if user is not None:
        session["was"] = user.id
    g.viewer = None


def device_name() -> str:
    """A browser in words people know, such as 'Firefox on Windows'."""
    agent = request.user_agent.string
    browsers = (
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    )
    systems = (
        *(("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows")),
        *(("Mac OS X", "Mac"), ("CrOS", "ChromeOS"), ("Linux", "Linux")),
    )
    browser = next((name for mark, name in browsers if mark in agent), "A browser")
    system = next((name for mark, name in systems if mark in agent), "an unknown system")
    return f"{browser} on {system}"


# -- Decorators --------------------------------------------------------------------------------------------------------

View = Callable[..., ResponseReturnValue]


def _declare(view: View, access: str) -> None:
    if hasattr(view, "access"):
        raise TypeError(f"{view.__qualname__} bears a second access decorator")
    view.access = access  # type: ignore[attr-defined]


def public(view: View) -> View:
    """Anybody may ask for this view."""
    _declare(view, "public")
    return view


def login_required(view: View) -> View:
    """Whoever is signed in may ask for this view; others are asked to sign in, and come back."""
    return _requires(view, Role.READER)


def role_required(role: Role) -> Callable[[View], View]:
    """Only people of at least that role may ask for this view; others get 403, and strangers are asked to sign in."""
    return lambda view: _requires(view, role)


def _requires(view: View, role: Role) -> View:
    _declare(view, role.name.lower())

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> ResponseReturnValue:
        viewer = viewer_or_none()
        if viewer is None:
            return ask_to_sign_in()
        if viewer.role < role:
            abort(403)
        return view(*args, **kwargs)

    return guarded


def keeps_typed(view: View) -> View:
    """Mark a form's view: what was typed comes back when the sign-in or the form's token ended meanwhile.

    Such a view may do nothing to a POST before its form's `validate` has said yes.
    """
    view.keeps_typed = True  # type: ignore[attr-defined]
    return view


def refuse_undeclared_views(app: Flask) -> None:
    """Raise `RuntimeError` naming each view that states no access."""
    views = app.view_functions.items()
    bare = [name for name, view in views if name not in STATIC_ENDPOINTS and not hasattr(view, "access")]
    if bare:
        raise RuntimeError(f"these views bear no access decorator: {', '.join(sorted(bare))}")


# -- Signing in on the way ---------------------------------------------------------------------------------------------


def is_local_path(target: str) -> bool:
    """Whether an address leads to a page of this site (CWE-601).

    Browsers drop tabs and line ends from addresses and read a backslash as a slash, so these are refused first.
    """
    if not target.startswith("/") or any(ord(char) <= 32 or ord(char) == 127 or char == "\\" for char in target):
        return False
    try:
        parts = urlsplit(target)
    except ValueError:
        return False
    return not target.startswith("//") and not parts.scheme and not parts.netloc


def onward(default: str = "/") -> str:
    """Where the person wanted to go (`next`), if that is here, else `default`."""
    target = request.args.get("next", "")
    return target if is_local_path(target) else default


def ask_to_sign_in() -> ResponseReturnValue:
    """Answer a request of nobody: to the sign-in and back. A form that was typed waits behind the sign-in."""
    if wants_json():
        abort(401)
    if request.method in ("GET", "HEAD"):
        target = request.full_path.rstrip("?")
        return redirect(url_for("auth.login", next=target if target != "/" else None), 302)
    kept = _keep_typed() if g.get("ended_user_id") and _view_keeps_typed() else None
    return login_page(LoginForm(formdata=None), resume=kept, status=401)


def _view_keeps_typed() -> bool:
    view = current_app.view_functions.get(request.endpoint or "")
    return bool(getattr(view, "keeps_typed", False))


def _kept_text() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(current_app.secret_key or "", salt="kept-text")


def _keep_typed() -> str:
    """What was typed, signed for the person whose sign-in ended: it travels through the sign-in form."""
    fields = [(name, value) for name, value in request.form.items(multi=True) if name != "csrf_token"]
    return _kept_text().dumps({"path": request.full_path, "fields": fields, "user": g.ended_user_id})


def show_kept(resume: str, user_id: int) -> Response | None:
    """The form as it was typed, for the person who typed it; nothing of it is carried out yet. None for others."""
    try:
        kept = _kept_text().loads(resume, max_age=KEPT_TEXT_SECONDS)
    except BadData:
        return None
    if kept["user"] != user_id:
        return None
    data: dict[str, list[str]] = {}
    for name, value in kept["fields"]:
        data.setdefault(name, []).append(value)
    from werkzeug.test import EnvironBuilder  # 15 ms that hardly any process needs

    builder = EnvironBuilder(path=kept["path"], base_url=request.host_url, method="POST", data=data)
    environ = builder.get_environ() | {"REMOTE_ADDR": request.remote_addr or ""}
    # The same session and the same person, another request: the view renders the form as it does a failed one.
    with RequestContext(current_app._get_current_object(), environ, session=session._get_current_object()):  # type: ignore[attr-defined]
        return show_again()


def show_again() -> Response | None:
    """Run this request's view so that it shows its form as typed, without acting. None where it cannot."""
    if request.routing_exception or not _view_keeps_typed():
        return None
    g.showing_again = True
    view = current_app.view_functions[request.endpoint or ""]
    try:
        return make_response(view(**(request.view_args or {})))
    finally:
        g.showing_again = False


# ======================================================================================================================
# == 4. Forms ==========================================================================================================
# ======================================================================================================================


class SiteForm(FlaskForm):
    """Base of all forms. The CSRF token is checked once for every request by the extension, not again by the form."""

    class Meta(FlaskForm.Meta):
        csrf = False  # type: ignore[assignment]

        def wrap_formdata(self, form: Any, formdata: Any) -> Any:
            """Only what was typed: FlaskForm's would put a file or JSON where a text belongs."""
            return request.form or None if formdata is not None and form.is_submitted() else None

    def validate(self, extra_validators: Any = None) -> bool:
        if g.get("showing_again"):
            self.form_errors.append("Nothing is lost, but nothing is saved yet. Look it over and send it again.")
            return False
        if not super().validate(extra_validators):
            return False
        return not self._previewing()

    def _previewing(self) -> bool:
        return "preview" in request.form and "body" in self._fields

    def refuse(self, refused: Refused) -> None:
        """Show what an action refused beside the field it is about."""
        field = self._fields.get(refused.field)
        if field is None:
            self.form_errors.append(refused.message)
        else:
            field.errors = [*field.errors, refused.message]


def line(
    label: str, longest: int, *validators: Any, shortest: int = 0, field: type[Field] = StringField, **kw: Any
) -> Any:
    """A field of one line: tidied, required when it has a `shortest`, at most `longest` characters."""
    needed = [DataRequired("Fill this in.")] if shortest else [Optional()]
    message = f"Use {shortest} to {longest} characters." if shortest > 1 else f"Use at most {longest} characters."
    length = Length(min=shortest or -1, max=longest, message=message)
    return field(label, validators=[*needed, length, *validators], filters=[tidy], **kw)


def text(label: str, longest: int, required: bool = True, **kw: Any) -> Any:
    """A field of several lines, of Markdown or plain."""
    needed = [DataRequired("Write something first.")] if required else [Optional()]
    length = Length(max=longest, message=f"This is too long: at most {longest:,} characters.")
    return TextAreaField(label, validators=[*needed, length], filters=[tidy_text], **kw)


def new_password(label: str = "Password", **kw: Any) -> Any:
    return PasswordField(label, validators=[InputRequired("Choose a password."), password_length(), not_common],
                         render_kw={"autocomplete": "new-password"}, **kw)  # fmt: skip


def password_length() -> Length:
    return Length(min=PASSWORD_MIN, max=PASSWORD_MAX, message=f"Use {PASSWORD_MIN} to {PASSWORD_MAX} characters.")


def known_password(label: str) -> Any:
    """The password somebody has already: whatever it is like, and not kept in the page."""
    asked = [InputRequired(f"Type your {label.lower()}."), Length(max=PASSWORD_MAX)]
    return PasswordField(label, validators=asked, render_kw={"autocomplete": "current-password"})


def not_common(_form: Any, field: Field) -> None:
    """Validator: no password that everybody tries first."""
    if field.data and not field.errors and (reason := weak_password(field.data)):
        raise ValidationError(reason)


def repeated(name: str = "password") -> Any:
    return PasswordField(
        "The same again",
        validators=[InputRequired("Type the password a second time."), EqualTo(name, "The two are not the same.")],
        render_kw={"autocomplete": "new-password"},
    )


def username_field() -> Any:
    return line(
        "Username", USERNAME_MAX,
        Regexp(f"^{USERNAME_PATTERN}$", message="Use letters a to z, digits, dots, hyphens and underscores."),
        shortest=USERNAME_MIN, description="For signing in and for the address of the profile, such as ana.lima",
        render_kw={"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false",
                   "pattern": USERNAME_PATTERN},
    )  # fmt: skip


def name_field(**kw: Any) -> Any:
    return line("Name", NAME_MAX, shortest=1, render_kw={"autocomplete": "name"}, **kw)


def email_field(required: bool = True) -> Any:
    regexp = Regexp(f"^{EMAIL_PATTERN}$", message="This does not look like a mail address, such as ana@example.com")
    autocomplete = {"autocomplete": "email", "pattern": EMAIL_PATTERN}
    return line("Mail address", EMAIL_MAX, regexp, shortest=int(required), field=EmailField, render_kw=autocomplete)


def form_id_field() -> HiddenField:
    """The random id of a form that creates: sent twice, it creates once."""
    return HiddenField(default=lambda: secrets.token_hex(16), filters=[lambda value: (value or "").strip()])


def version_field() -> Any:
    """The version that was read, so that saving over somebody else's is noticed."""
    return HiddenField(default="0", filters=[lambda value: int(value) if re.fullmatch("[0-9]{1,9}", str(value)) else 0])


def checked_form_id(field: Field) -> str:
    """A form's id, or a new one where it was left out or made up."""
    return field.data if field.data and FORM_ID.fullmatch(field.data) else secrets.token_hex(16)


class SetupForm(SiteForm):
    site_name = line("Name of the site", NAME_MAX, shortest=1, description="What your team is called, for example")
    name = name_field(description="Yours: you will be the first administrator")
    username = username_field()
    email = email_field()
    password = new_password()
    confirm = repeated()


class LoginForm(SiteForm):
    username = line(
        "Username or mail address", EMAIL_MAX, shortest=1,
        render_kw={"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false"},
    )  # fmt: skip
    password = known_password("Password")
    remember = BooleanField("Keep me signed in on this device for 30 days")


class RegisterForm(SiteForm):
    name = name_field()
    username = username_field()
    email = email_field()
    password = new_password()
    confirm = repeated()

    def validate_email(self, field: Field) -> None:
        allowed = current_site().domains
        if current_site().registration == "domains" and fold(field.data).rpartition("@")[2] not in allowed:
            raise ValidationError(f"Use a mail address that ends in {' or '.join('@' + domain for domain in allowed)}.")


class ProfileForm(SiteForm):
    name = name_field()
    email = email_field(required=False)
    title = line("What you do", PROFILE_MAX, description="Such as Head of Workshop")
    department = line("Department", PROFILE_MAX)
    phone = line("Phone", PROFILE_MAX, field=TelField, render_kw={"autocomplete": "tel"})
    location = line("Where to find you", PROFILE_MAX, description="Such as Hall B, or Tuesdays from home")
    away_until = DateField("Away until", validators=[Optional()], description="The last day you are away, or empty")
    stand_in = SelectField("Who stands in", coerce=int, default=0, description="Whom to ask meanwhile")


class AppearanceForm(SiteForm):
    theme = RadioField(
        "Colors",
        choices=[
            SelectChoice("system", "As this device has it"),
            SelectChoice("light", "Light"),
            SelectChoice("dark", "Dark"),
        ],
    )
    timezone = SelectField("Time zone")
    shortcuts = BooleanField(
        "Keyboard shortcuts",
        description="/ searches, n writes a post, ? lists the keys. Off if they get in your way",
    )


class PasswordForm(SiteForm):
    current = known_password("Current password")
    password = new_password("New password")
    confirm = repeated()


class PostForm(SiteForm):
    title = line("Title", TITLE_MAX, shortest=1)
    body = text("Text", BODY_MAX)
    topic = SelectField("Topic", coerce=int)
    kind = HiddenField(default="news")
    form_id = form_id_field()
    version = version_field()


class CommentForm(SiteForm):
    body = text("Comment", COMMENT_MAX)
    form_id = form_id_field()


class EditCommentForm(SiteForm):
    body = text("Comment", COMMENT_MAX)
    version = version_field()


class TopicForm(SiteForm):
    name = line("Name", TOPIC_MAX, shortest=1)
    description = line("What belongs here", DESCRIPTION_MAX)
    private = BooleanField("Private", description="Only the people chosen below see this topic and what is in it")
    members = SelectMultipleField("People", coerce=int)
    form_id = form_id_field()


class MergeForm(SiteForm):
    into = SelectField("Into", coerce=int)


class NewPersonForm(SiteForm):
    name = name_field()
    username = username_field()
    email = email_field(required=False)
    role = SelectField("Role", coerce=int, default=int(Role.MEMBER))
    password: Any = PasswordField(
        "Password",
        validators=[Optional(), password_length(), not_common],
        description="Leave it empty to have one made, which you can hand over",
        render_kw={"autocomplete": "new-password"},
    )


class PersonForm(SiteForm):
    name = name_field()
    email = email_field(required=False)
    role = SelectField("Role", coerce=int)
    active = BooleanField("May sign in", description="Without it, the person is signed out at once and stays out")


class SettingsForm(SiteForm):
    site_name = line("Name of the site", NAME_MAX, shortest=1)
    welcome = text("Words of welcome", WELCOME_MAX, required=False, description="Shown where people sign in")
    registration = RadioField(
        "Who may register",
        choices=[
            SelectChoice("closed", "Nobody: administrators add people"),
            SelectChoice("domains", "Whoever gives a mail address of the domains below"),
            SelectChoice("open", "Anybody who can open this site"),
        ],
        description="Addresses are not verified: on a site that others can reach, add people yourself",
    )
    # Not Optional: that would end the field's chain when it is empty, and the rule below is about just that.
    registration_domains = StringField(
        "Mail domains", validators=[Length(max=500)], filters=[tidy], description="Such as example.com, example.org"
    )
    registration_role = SelectField(
        "Role of those who register", choices=[SelectChoice("reader", "Reader"), SelectChoice("member", "Member")]
    )

    def validate_registration_domains(self, field: Field) -> None:
        names = (field.data or "").replace(",", " ").split()
        if self.registration.data == "domains" and not names:
            raise ValidationError("Name at least one domain, such as example.com")
        if any(not re.fullmatch(r"[^@\s.]+(\.[^@\s.]+)+", name) for name in names):
            raise ValidationError("Write domains such as example.com, with commas between them.")


# ======================================================================================================================
# == 5. View helpers ===================================================================================================
# ======================================================================================================================


class AppState:
    """What one application keeps in memory: nothing that another process could not make anew."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.password_work = PasswordWork(app.config["THREADS"])
        self.visits = database.WriteBehind(app, User.note_visits)
        self.indexer = database.WriteBehind(app, SearchEntry.catch_up, seconds=0.5)
        self.site = Site()
        self.settings_version: str | None = None
        self.assets: dict[tuple[str, str], str] = {}
        self.found: OrderedDict[Any, Any] = OrderedDict()  # see `unchanged`
        self.directory = Directory("", {}, {})

    def use_settings(self, version: str | None = None) -> None:
        """Read the site's settings unless those of that version are here already."""
        if version is None or version != self.settings_version:
            self.settings_version, self.site = Setting.read()

    def zone(self, name: str) -> ZoneInfo:
        """A person's time zone, or the site's where they chose none."""
        return ZoneInfo(name or self.app.config["TIMEZONE"])


def state() -> AppState:
    """The `AppState` of the current application."""
    return this_app().extensions["corkboard"]


def current_site() -> Site:
    """The site's settings; a signed-in request has them from its first statement, others read them."""
    held = this_g()
    if "site" not in held:
        if viewer_or_none() is None:
            state().use_settings()
        held.site = state().site
    return held.site


FOUND_MOST = 256  # how much `unchanged` keeps
FOUND_TEXT = 100_000  # the longest part of a page that is kept: in all some MB


def unchanged(
    viewer: Viewer, key: tuple[Any, ...], find: Callable[[], T], keep: Callable[[T], bool] = lambda _value: True
) -> T:
    """What `find` reads for this person, read again only when somebody has changed something.

    Every action records an activity, and a request's first statement reads the last one's number. On SQLite, where one
    writes after the other, the same number means that nothing was written in between. On MySQL two may write at once
    and the later number be seen first: there everything is read each time.
    """
    if not database.writes_one_by_one():
        return find()
    kept = state().found
    whole_key = (viewer.id, viewer.new_since, viewer.last_activity, *key)
    value = kept.get(whole_key)
    if value is None:
        value = find()
        if keep(value):
            kept[whole_key] = value
        while len(kept) > FOUND_MOST:
            with contextlib.suppress(KeyError):  # another thread may have been here first
                kept.popitem(last=False)
    return value


def drawn(viewer: Viewer, template: str, key: tuple[Any, ...], find: Callable[[], dict[str, Any]]) -> Markup:
    """What a page shows this person, drawn again only when somebody has changed something, or a minute has passed.

    The template knows what `find` returns, and who looks as `current_user`; of the request it knows nothing.
    """

    def draw() -> Markup:
        return Markup(this_app().jinja_env.get_template(template).render(find(), current_user=viewer))

    whole_key = (template, *clock(), *key)
    return draw() if this_app().debug else unchanged(viewer, whole_key, draw, lambda text: len(text) <= FOUND_TEXT)


class PersonName(NamedTuple):
    name: str
    username: str


class TopicLink(NamedTuple):
    id: int
    name: str
    slug: str
    private: bool


class Directory(NamedTuple):
    """The names that lists mention, of everybody and of all topics. Who may read a list is settled before that."""

    version: str
    people: dict[int, PersonName]
    topics: dict[int, TopicLink]

    @classmethod
    def read(cls, version: str) -> Directory:
        people = rows(sa.select(User.id, User.name, User.username))
        topics = rows(sa.select(Topic.id, Topic.name, Topic.slug, Topic.private))
        named = {row.id: PersonName(row.name, row.username) for row in people}
        return cls(version, named, {row.id: TopicLink._make(row) for row in topics})


def directory(viewer: Viewer, people: Iterable[int] = ()) -> Directory:
    """The directory as of this person's request; read anew when it has changed, or does not know one of `people`."""
    known = state().directory
    if known.version != viewer.directory_version or not known.people.keys() >= set(people):
        known = state().directory = Directory.read(viewer.directory_version)
    return known


class Cursor(NamedTuple):
    """A place in a list that is ordered by time and id, opaque to those who pass it on."""

    when: datetime
    id: int

    def encode(self) -> str:
        return encode_place(self.when.isoformat(), self.id)

    @classmethod
    def from_request(cls) -> Cursor | None:
        """The place that `?before=` names, None without it. A place that was made up is 404."""
        place = place_from_request(str, int)
        try:
            return cls(datetime.fromisoformat(place[0]), place[1]) if place else None
        except ValueError:
            abort(404)


def encode_place(*parts: str | int) -> str:
    """Make the opaque form of a place in a list."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def place_from_request(*kinds: type) -> tuple[Any, ...] | None:
    """Read the place that `?before=` names, None without it; one that was made up is 404."""
    encoded = request.args.get("before")
    if not encoded:
        return None
    try:
        parts = json.loads(base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        abort(404)
    sound = isinstance(parts, list) and len(parts) == len(kinds)
    if not sound or any(type(part) is not kind for part, kind in zip(parts, kinds, strict=True)):
        abort(404)
    if any(_CONTROL.search(part) if isinstance(part, str) else not -(2**63) < part < 2**63 for part in parts):
        abort(404)
    return tuple(parts)


def as_id(given: str) -> int:
    """Read an id. Raises `ValueError` for a number that is none."""
    if not 0 < (number := int(given)) <= ID_MAX:
        raise ValueError(given)
    return number


def wants_json() -> bool:
    return request.path.startswith("/api/")


def form_page(template: str, form: SiteForm, **context: Any) -> ResponseReturnValue:
    """A form's page: 200 when it is asked for or previewed, 422 when it came back refused."""
    refused = request.method == "POST" and (form.errors or form.form_errors)
    return render_template(template, form=form, **context), 422 if refused else 200


def login_page(form: LoginForm, resume: str | None, status: int) -> ResponseReturnValue:
    """The sign-in page, with what was typed before it waiting behind (`resume`)."""
    open_now = current_site().registration != "closed"
    return render_template("auth/login.html", form=form, resume=resume, registration_open=open_now), status


def done(address: str, message: str | None = None, undo: str | None = None) -> ResponseReturnValue:
    """Answer a change that succeeded: 303 to a page of the site, with a word about it and perhaps a way back."""
    if message:
        said: Any = {"text": message, "undo": undo} if undo else message
        flash(said, "success")
    return current_app.response_class("", 303, {"Location": address})


def found(statement: sa.Select[T]) -> T:
    """The one row of a statement that asks for what the person may see, else 404."""
    row = db.session.scalar(statement)
    if row is None:
        abort(404)
    return row


def choices(pairs: Iterable[tuple[Any, str]]) -> list[SelectChoice]:
    return [SelectChoice(str(value), label) for value, label in pairs]


@functools.cache
def _sidebar_statement() -> Prepared:
    """What stands beside the lists, three short ones in one statement."""
    none = sa.null()
    stand_in, editor = aliased(User), aliased(User)
    changed = (
        sa.select(sa.literal("changed").label("part"), Post.id, Post.title.label("name"), editor.name.label("more"),
                  none.label("flag"), Post.updated_at.label("at"))
        .select_from(Post)
        .join(editor, editor.id == Post.editor_id)
        .where(Post.visible(), Post.kind == "page")
        .order_by(Post.updated_at.desc(), Post.id.desc())
        .limit(5)
    )  # fmt: skip
    away = (
        sa.select(sa.literal("away"), User.id, User.name, (User.username + "\n" + sa.func.coalesce(stand_in.name, "")),
                  sa.cast(User.away_until, sa.String(10)), none)
        .outerjoin(stand_in, sa.and_(stand_in.id == User.stand_in_id, stand_in.deactivated_at.is_(None)))
        .where(User.away_until >= sa.bindparam("today", type_=sa.Date), User.deactivated_at.is_(None))
        .order_by(User.away_until, User.id)
        .limit(5)
    )  # fmt: skip
    topics = (
        sa.select(sa.literal("topic"), Topic.id, Topic.name, Topic.slug, sa.cast(Topic.private, sa.String(5)), none)
        .where(Topic.visible())
        .order_by(Topic.position, Topic.id)
        .limit(40)
    )
    parts = (sa.select(part.subquery()) for part in (database.in_table_order(changed), away, topics))
    return Prepared(sa.union_all(*parts))


class Away(NamedTuple):
    id: int
    name: str
    username: str
    stand_in_name: str
    away_until: date


class Changed(NamedTuple):
    id: int
    title: str
    editor_name: str
    updated_at: datetime


class Sidebar(NamedTuple):
    away: tuple[Away, ...]
    changed: tuple[Changed, ...]
    topics: tuple[TopicLink, ...]


def sidebar(viewer: Viewer) -> Sidebar:
    """Who is away, what changed in the handbook, and the topics, as this person may see them."""
    day = today()
    return unchanged(viewer, ("sidebar", day), lambda: _read_sidebar(viewer, day))


def _read_sidebar(viewer: Viewer, day: date) -> Sidebar:
    away, changed, topics = [], [], []
    for row in rows(_sidebar_statement(), viewer=viewer.id, today=day):
        part, id_, name, more, flag, at = tuple(row)
        if part == "changed":
            changed.append(Changed(id_, name, more, at))
        elif part == "away":
            username, _, stand_in = more.partition("\n")
            away.append(Away(id_, name, username, stand_in, date.fromisoformat(flag)))
        else:
            topics.append(TopicLink(id_, name, more, flag == "1"))
    return Sidebar(tuple(away), tuple(changed), tuple(topics))


# ======================================================================================================================
# == 6. Routes =========================================================================================================
# ======================================================================================================================

# -- auth: setting up, signing in and out, registering -----------------------------------------------------------------

auth = Blueprint("auth", __name__)


@auth.route("/setup", methods=["GET", "POST"])
@public
def setup() -> ResponseReturnValue:
    """Name the site and make its first administrator, with the link that the console printed."""
    token = request.args.get("token", "")
    expected = Setting.setup_token_hash()
    if expected is None or User.exists():
        abort(404)
    if not hmac.compare_digest(expected, hash_token(token)):
        # The one GET that writes: before there is anybody whose page it could slow down.
        refuse_too_often(f"setup:{client_network()}", 10, timedelta(seconds=30))
        abort(403, "This set-up link is not the newest one. Look at the console, or run: python -m flask setup-link")
    form = SetupForm()
    if form.validate_on_submit():
        profile = {name: form[name].data for name in ("site_name", "name", "username", "email")}
        try:
            user = User.set_up(token, password_hash=hash_password(form.password.data), **profile)
        except Refused as refused:
            form.refuse(refused)
        else:
            remove_setup_file(current_app)
            sign_in(user.id, remember=False)
            return done("/admin", "Your site is ready.")
    return form_page("auth/setup.html", form)


@auth.route("/login", methods=["GET", "POST"])
@public
@keeps_typed
def login() -> ResponseReturnValue:
    """Sign in, and go on to where one wanted to be, or to the form one was typing."""
    form = LoginForm()
    resume = request.form.get("resume") or None
    if request.method != "POST" and current_user:
        return redirect(onward())
    if form.validate_on_submit():
        user = authenticate(form.username.data, form.password.data)
        if user is None:
            form.form_errors.append("That name and password do not belong together. Try again.")
            return login_page(form, resume, 422)
        sign_in(user.id, form.remember.data)
        return (show_kept(resume, user.id) if resume else None) or redirect(onward(), 303)
    return login_page(form, resume, 422 if request.method == "POST" else 200)


@auth.post("/logout")
@login_required
def logout() -> ResponseReturnValue:
    """End the sign-in of this browser."""
    sign_out()
    return done("/login", "You are signed out.")


@auth.route("/register", methods=["GET", "POST"])
@public
@keeps_typed
def register() -> ResponseReturnValue:
    """Add oneself to the team, where its settings allow it."""
    site = current_site()
    if site.registration == "closed":
        abort(404)
    form = RegisterForm()
    if form.validate_on_submit():
        refuse_too_often(f"register:{client_network()}", 10, timedelta(minutes=2))
        profile = {name: form[name].data for name in ("name", "username", "email")}
        role = Role[site.registration_role.upper()]
        try:
            user = User.create(None, password_hash=hash_password(form.password.data), role=role, **profile)
        except Refused as refused:
            form.refuse(refused)
        else:
            sign_in(user.id, remember=False)
            return done("/", f"Welcome, {user.name}.")
    domains = site.domains if site.registration == "domains" else []
    return form_page("auth/register.html", form, domains=domains)


# -- account: one's own profile, appearance, password and devices ------------------------------------------------------

account = Blueprint("account", __name__, url_prefix="/account")

PROFILE_FIELDS = ("name", "email", "title", "department", "phone", "location", "away_until")


@account.route("", methods=["GET", "POST"])
@login_required
@keeps_typed
def profile() -> ResponseReturnValue:
    """Edit one's own profile."""
    me = found(sa.select(User).where(User.id == current_user.id))
    form = ProfileForm(obj=me, stand_in=me.stand_in_id or 0)
    others = rows(
        sa.select(User.id, User.name).where(User.deactivated_at.is_(None), User.id != me.id).order_by(User.name_key)
    )
    form.stand_in.choices = choices([(0, "Nobody in particular"), *((row.id, row.name) for row in others)])
    if form.validate_on_submit():
        values = {name: form[name].data for name in PROFILE_FIELDS}
        try:
            User.edit_profile(current_user, **values, stand_in_id=form.stand_in.data or None)
        except Refused as refused:
            form.refuse(refused)
        else:
            return done("/account", "Your profile is saved.")
    return form_page("account/profile.html", form)


@account.route("/appearance", methods=["GET", "POST"])
@login_required
def appearance() -> ResponseReturnValue:
    """Choose colors, time zone, and whether single keys do something."""
    me = found(sa.select(User).where(User.id == current_user.id))
    form = AppearanceForm(obj=me)
    site_zone = current_app.config["TIMEZONE"]
    zones = [("", f"The site's: {site_zone}"), *((name, name.replace("_", " ")) for name in time_zones())]
    form.timezone.choices = choices(zones)
    if form.validate_on_submit():
        User.edit_appearance(current_user, form.theme.data, form.timezone.data, form.shortcuts.data)
        return done("/account/appearance", "Saved.")
    return form_page("account/appearance.html", form)


@functools.cache
def time_zones() -> list[str]:
    """The time zones that people choose from: places, not the abbreviations and offsets of old."""
    return sorted(name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "SystemV/")))


@account.route("/password", methods=["GET", "POST"])
@login_required
def password() -> ResponseReturnValue:
    """Change one's own password; all other devices are signed out."""
    form = PasswordForm()
    if form.validate_on_submit():
        me = found(sa.select(User).where(User.id == current_user.id))
        refuse_too_often(f"password:{me.id}", ACCOUNT_TRIES, ACCOUNT_TRY_EVERY)
        if not password_fits(me.password_hash, form.current.data):
            form.refuse(Refused("current", "This is not your current password."))
        else:
            User.set_password(current_user, me.id, hash_password(form.password.data))
            Throttle.give_back(f"password:{me.id}")
            sign_in(me.id, session.permanent)
            return done("/account/password", "Your password is changed. All other devices are signed out.")
    return form_page("account/password.html", form)


@account.get("/sessions")
@login_required
def sessions() -> ResponseReturnValue:
    """The devices one is signed in with."""
    sign_ins = [
        SimpleNamespace(**row._mapping, is_current=row.id == current_user.sign_in_id)
        for row in SignIn.living(current_user)
    ]
    return render_template("account/sessions.html", sign_ins=sign_ins)


@account.post("/sessions/<int:sign_in_id>/end")
@login_required
def end_session(sign_in_id: int) -> ResponseReturnValue:
    """Sign one device out."""
    SignIn.end(current_user, sign_in_id)
    return done("/account/sessions", "That device is signed out.")


@account.post("/sessions/end-others")
@login_required
def end_others() -> ResponseReturnValue:
    """Sign all other devices out."""
    SignIn.end_others(current_user, current_user.sign_in_id)
    return done("/account/sessions", "All other devices are signed out.")


# -- posts: Home, news, the handbook, comments -------------------------------------------------------------------------

posts = Blueprint("posts", __name__)


@posts.get("/")
@login_required
def index() -> ResponseReturnValue:
    """Home: what is pinned, then the news, the newest first."""
    viewer, before = viewer_or_none(), Cursor.from_request()
    assert viewer is not None
    content = drawn(viewer, "posts/_home.html", (before,), lambda: _home(viewer, before))
    return render_template("posts/index.html", content=content)


def _home(viewer: Viewer, before: Cursor | None) -> dict[str, Any]:
    find = functools.partial(Post.page, viewer, "home", before) if before else functools.partial(Post.front, viewer)
    return {"page": unchanged(viewer, ("home", before), find), "sidebar": sidebar(viewer)}


@posts.get("/handbook")
@login_required
def handbook() -> ResponseReturnValue:
    """The handbook's pages by topic, alphabetically."""
    viewer, place = viewer_or_none(), place_from_request(int, int, str, int)
    assert viewer is not None
    content = drawn(viewer, "posts/_handbook.html", (place,), lambda: _handbook_page(viewer, place))
    return render_template("posts/handbook.html", content=content)


def _handbook_page(viewer: Viewer, place: tuple[Any, ...] | None) -> dict[str, Any]:
    found_pages = unchanged(viewer, ("handbook", place), lambda: Post.handbook(viewer, place))  # type: ignore[arg-type]
    shown = found_pages[:HANDBOOK_PER_PAGE]
    sections: list[tuple[TopicLink, list[Any]]] = []
    for row in shown:
        if not sections or sections[-1][0].id != row.topic_id:
            sections.append((TopicLink(row.topic_id, row.topic_name, row.topic_slug, row.topic_private), []))
        sections[-1][1].append(row)
    last = shown[-1] if len(found_pages) > HANDBOOK_PER_PAGE else None
    more = encode_place(last.position, last.topic_id, last.title_key, last.id) if last else None
    return {"sections": sections, "more": more, "is_first": place is None}


@posts.get("/posts/<int:post_id>")
@login_required
def show(post_id: int) -> ResponseReturnValue:
    """A post, with the latest comments below it."""
    return _post_page(post_id)


class Thread(NamedTuple):
    """A post and the comments below it, as drawn for a person."""

    post_id: int
    title: str
    article: Markup
    comments: Markup


def _draw_thread(viewer: Viewer, post_id: int, before: int | None) -> Thread:
    post = Post.fetch(viewer, post_id)
    comments, earlier = Comment.below(viewer, post, before)
    below = this_app().jinja_env.get_template("posts/_comments.html")
    shown = below.render(post=post, comments=comments, earlier=earlier, before=before, current_user=viewer)
    return Thread(post.id, post.title, post_article(post), Markup(shown))


def _is_short(thread: Thread) -> bool:
    return len(thread.article) + len(thread.comments) <= FOUND_TEXT


def _post_page(post_id: int, form: CommentForm | None = None, status: int = 200) -> ResponseReturnValue:
    viewer = viewer_or_none()
    assert viewer is not None
    before = request.args.get("before", type=as_id)
    key = ("post", post_id, before, *clock())
    thread = unchanged(viewer, key, lambda: _draw_thread(viewer, post_id, before), _is_short)
    return render_template("posts/show.html", thread=thread, form=form), status


@posts.route("/posts/new", methods=["GET", "POST"])
@role_required(Role.MEMBER)
@keeps_typed
def new() -> ResponseReturnValue:
    """Write news, or as an editor a page of the handbook."""
    form = PostForm(kind="page" if request.args.get("kind") == "page" else "news")
    kind = "page" if form.kind.data == "page" else "news"
    if not current_user.may_write_kind(kind):
        abort(403)
    audience = _offer_topics(form)
    if request.method == "GET":
        wanted = request.args.get("topic")
        form.topic.data = next((id_ for id_, topic in audience.items() if topic.slug == wanted), None)
    if form.validate_on_submit():
        try:
            post_id = Post.create(current_user, kind=kind, form_id=checked_form_id(form.form_id), **_written(form))
        except Refused as refused:
            form.refuse(refused)
        else:
            return done(f"/posts/{post_id}", "Published.")
    return _edit_page(form, None, kind, audience)


@posts.route("/posts/<int:post_id>/edit", methods=["GET", "POST"])
@role_required(Role.MEMBER)
@keeps_typed
def edit(post_id: int) -> ResponseReturnValue:
    """Change a post; whoever saved in between is noticed, and both texts are shown."""
    post = found(Post.visible_to(current_user).where(Post.id == post_id))
    if not post.editable_by(current_user):
        abort(403)
    form = PostForm(obj=post, topic=post.topic_id)
    audience = _offer_topics(form)
    if form.validate_on_submit():
        try:
            Post.edit(current_user, post_id, form.version.data, **_written(form))
        except Refused as refused:
            form.refuse(refused)
        except Conflict as conflict:
            return _conflict_page(form, conflict, f"/posts/{post_id}", audience)
        else:
            return done(f"/posts/{post_id}", "Saved.")
    return _edit_page(form, post, post.kind, audience)


def _written(form: PostForm) -> dict[str, Any]:
    return {"topic_id": form.topic.data, "title": form.title.data, "body": form.body.data}


def _offer_topics(form: PostForm) -> dict[int, SimpleNamespace]:
    """Fill in the topics to choose from. Each says who will see the post, which nobody should have to guess."""
    audience = Topic.audiences(current_user)
    form.topic.choices = [
        SelectChoice(
            str(topic.id),
            f"{topic.name} ({'private' if topic.private else 'open'}, {plural(topic.people, 'person', 'people')})",
            render_kw={"data-name": topic.name, "data-people": str(topic.people)},
        )
        for topic in audience.values()
    ]
    return audience


def _edit_page(form: PostForm, post: Any, kind: str, audience: Mapping[int, Any]) -> ResponseReturnValue:
    preview = render_markdown(form.body.data or "") if "preview" in request.form else None
    return form_page("posts/edit.html", form, post=post, kind=kind, audience=audience, preview=preview)


def _conflict_page(form: Any, conflict: Conflict, address: str, audience: Any = None) -> ResponseReturnValue:
    """Both texts, and the form ready to be sent over what stands now."""
    mine = SimpleNamespace(title=form.title.data if "title" in form else "", body=form.body.data)
    form.version.data = conflict.theirs.version
    form.version.raw_data = None
    context = {"form": form, "theirs": conflict.theirs, "mine": mine, "audience": audience, "address": address}
    return render_template("posts/conflict.html", **context), 409


@posts.post("/posts/preview")
@role_required(Role.MEMBER)
def preview() -> ResponseReturnValue:
    """What a text will look like, as a fragment for the script."""
    body = tidy_text(request.form.get("body"))[:BODY_MAX]
    return render_template("posts/_preview.html", html=render_markdown(body))


@posts.post("/posts/<int:post_id>/delete")
@role_required(Role.MEMBER)
def delete(post_id: int) -> ResponseReturnValue:
    """Delete a post; it can be brought back."""
    Post.delete(current_user, post_id)
    return done("/", "The post is deleted.", undo=f"/posts/{post_id}/restore")


@posts.post("/posts/<int:post_id>/restore")
@role_required(Role.MEMBER)
def restore(post_id: int) -> ResponseReturnValue:
    """Bring a deleted post back."""
    Post.restore(current_user, post_id)
    return done(f"/posts/{post_id}", "The post is back.")


@posts.post("/posts/<int:post_id>/pin")
@role_required(Role.EDITOR)
def pin(post_id: int) -> ResponseReturnValue:
    """Keep a post at the top of Home, or let it go."""
    pinned = request.form.get("pinned") == "1"
    Post.pin(current_user, post_id, pinned)
    return done(f"/posts/{post_id}", "Pinned to the top of Home." if pinned else "No longer pinned.")


@posts.post("/posts/<int:post_id>/comments")
@role_required(Role.MEMBER)
@keeps_typed
def comment(post_id: int) -> ResponseReturnValue:
    """Comment on a post."""
    form = CommentForm()
    if not form.validate_on_submit():
        return _post_page(post_id, form, 422)
    body: str = form.body.data
    form_id = checked_form_id(form.form_id)
    comment_id = Comment.create(current_user, post_id, body=body, form_id=form_id)
    return done(f"/posts/{post_id}#comment-{comment_id}")


@posts.get("/comments/<int:comment_id>")
@login_required
def show_comment(comment_id: int) -> ResponseReturnValue:
    """A comment's own address: to where it stands below its post."""
    target = found(Comment.visible_to(current_user).where(Comment.id == comment_id))
    before = Comment.later_than(target)
    place = f"?before={before}" if before else ""
    return redirect(f"/posts/{target.post_id}{place}#comment-{target.id}", 302)


@posts.route("/comments/<int:comment_id>/edit", methods=["GET", "POST"])
@role_required(Role.MEMBER)
@keeps_typed
def edit_comment(comment_id: int) -> ResponseReturnValue:
    """Change a comment."""
    target = found(Comment.visible_to(current_user).where(Comment.id == comment_id))
    if not target.editable_by(current_user):
        abort(403)
    form = EditCommentForm(obj=target)
    address = f"/posts/{target.post_id}#comment-{target.id}"
    if form.validate_on_submit():
        try:
            Comment.edit(current_user, comment_id, form.version.data, body=form.body.data)
        except Conflict as conflict:
            return _conflict_page(form, conflict, f"/comments/{comment_id}")
        return done(address, "Saved.")
    return form_page("posts/edit_comment.html", form, comment=target)


@posts.post("/comments/<int:comment_id>/delete")
@role_required(Role.MEMBER)
def delete_comment(comment_id: int) -> ResponseReturnValue:
    """Delete a comment; it can be brought back."""
    post_id = Comment.delete(current_user, comment_id)
    return done(f"/posts/{post_id}#comments", "The comment is deleted.", undo=f"/comments/{comment_id}/restore")


@posts.post("/comments/<int:comment_id>/restore")
@role_required(Role.MEMBER)
def restore_comment(comment_id: int) -> ResponseReturnValue:
    """Bring a deleted comment back."""
    post_id = Comment.restore(current_user, comment_id)
    return done(f"/posts/{post_id}#comment-{comment_id}", "The comment is back.")


# -- topics: their pages, and how editors keep them in order -----------------------------------------------------------

topics = Blueprint("topics", __name__)


@topics.get("/topics/<slug>", endpoint="show")
@login_required
def show_topic(slug: str) -> ResponseReturnValue:
    """The news of one topic. A topic that was merged leads to the one it went into."""
    topic = db.session.scalar(Topic.visible_to(current_user).where(Topic.slug == slug))
    if topic is None:
        into = sa.select(Topic.merged_into_id).where(Topic.slug == slug).scalar_subquery()
        target = found(Topic.visible_to(current_user).where(Topic.id == into))
        return redirect(f"/topics/{target.slug}", 301)
    page = Post.page(current_user, "topic", Cursor.from_request(), topic.id)
    return render_template("topics/show.html", topic=topic, page=page)


@topics.route("/admin/topics", methods=["GET", "POST"])
@role_required(Role.EDITOR)
@keeps_typed
def manage() -> ResponseReturnValue:
    """All topics that one sees, and a form for a new one."""
    form = _topic_form()
    if form.validate_on_submit():
        try:
            topic = Topic.create(current_user, form_id=checked_form_id(form.form_id), **_topic_values(form))
        except Refused as refused:
            form.refuse(refused)
        else:
            return done("/admin/topics", f"The topic {topic.name} is there.")
    hidden = Topic.hidden_from(current_user) if current_user.is_admin else []
    listed = list(Topic.audiences(current_user).values())
    return form_page("topics/manage.html", form, topics=listed, hidden_topics=hidden)


@topics.route("/admin/topics/<int:topic_id>", methods=["GET", "POST"], endpoint="edit")
@role_required(Role.EDITOR)
@keeps_typed
def edit_topic(topic_id: int) -> ResponseReturnValue:
    """Rename a topic, open or close it, choose its people."""
    topic = found(Topic.visible_to(current_user).where(Topic.id == topic_id))
    form = _topic_form(obj=topic, members=topic.member_ids())
    if form.validate_on_submit():
        try:
            Topic.edit(current_user, topic_id, **_topic_values(form))
        except Refused as refused:
            form.refuse(refused)
        else:
            return done("/admin/topics", "Saved.")
    others = db.session.scalars(Topic.visible_to(current_user).where(Topic.id != topic_id)).all()
    return form_page("topics/edit.html", form, topic=topic, others=others)


def _topic_form(**data: Any) -> TopicForm:
    form = TopicForm(**data)
    people = sa.select(User.id, User.name).where(User.deactivated_at.is_(None)).order_by(User.name_key, User.id)
    form.members.choices = choices((row.id, row.name) for row in rows(people))
    return form


def _topic_values(form: TopicForm) -> dict[str, Any]:
    return {name: form[name].data for name in ("name", "description", "private", "members")}


@topics.post("/admin/topics/<int:topic_id>/move")
@role_required(Role.EDITOR)
def move(topic_id: int) -> ResponseReturnValue:
    """Move a topic up or down."""
    Topic.move(current_user, topic_id, up=request.form.get("direction") != "down")
    return done("/admin/topics")


@topics.route("/admin/topics/<int:topic_id>/merge", methods=["GET", "POST"])
@role_required(Role.EDITOR)
def merge(topic_id: int) -> ResponseReturnValue:
    """Put all posts of a topic into another, after saying what that means."""
    topic = found(Topic.visible_to(current_user).where(Topic.id == topic_id))
    form = MergeForm()
    others = db.session.scalars(Topic.visible_to(current_user).where(Topic.id != topic_id))
    form.into.choices = choices((other.id, other.name) for other in others)
    if form.validate_on_submit():
        try:
            into = Topic.merge(current_user, topic_id, form.into.data)
        except Refused as refused:
            form.refuse(refused)
        else:
            return done("/admin/topics", f"Everything is in {into.name} now.")
    count = db.session.scalar(sa.select(sa.func.count()).where(Post.topic_id == topic_id, Post.deleted_at.is_(None)))
    return form_page("topics/merge.html", form, topic=topic, posts_count=count)


@topics.post("/admin/topics/<int:topic_id>/join")
@role_required(Role.ADMIN)
def join(topic_id: int) -> ResponseReturnValue:
    """Step into a private topic as an administrator, which is recorded."""
    topic = Topic.join(current_user, topic_id)
    return done(f"/topics/{topic.slug}", f"You are in {topic.name} now. That you joined is recorded.")


# -- people: who is who ------------------------------------------------------------------------------------------------

people = Blueprint("people", __name__)

PERSON_COLUMNS = (
    *(User.id, User.name, User.username, User.title, User.department, User.phone, User.email, User.location),
    *(User.away_until, User.name_key),
)


def _people_page(user: Permissions, columns: Sequence[Any], query: str) -> tuple[list[Any], str | None]:
    """People by name, filtered by what was typed, a page at a time; and where the next page begins."""
    statement = sa.select(*columns)
    if not user.is_admin or columns is PERSON_COLUMNS:
        statement = statement.where(User.deactivated_at.is_(None))
    for word in sort_key(query).split():
        statement = statement.where(User.lookup.contains(word, autoescape=True))
    if place := place_from_request(str, int):
        after = sa.or_(User.name_key > place[0], sa.and_(User.name_key == place[0], User.id > place[1]))
        statement = statement.where(after)
    listed = rows(statement.order_by(User.name_key, User.id).limit(PEOPLE_PER_PAGE + 1)).all()
    shown = list(listed[:PEOPLE_PER_PAGE])
    more = encode_place(shown[-1].name_key, shown[-1].id) if len(listed) > PEOPLE_PER_PAGE else None
    return shown, more


@people.get("/people", endpoint="index")
@login_required
def list_people() -> ResponseReturnValue:
    """Everybody, with how to reach them."""
    query = tidy(request.args.get("q"))[:NAME_MAX]
    viewer, place = viewer_or_none(), request.args.get("before")
    assert viewer is not None
    key = ("people", query, place)
    shown, before = unchanged(viewer, key, lambda: _people_page(viewer, PERSON_COLUMNS, query))
    return render_template("people/index.html", people=shown, q=query, before=before)


@people.get("/people/<username>", endpoint="show")
@login_required
def show_person(username: str) -> ResponseReturnValue:
    """One person, and what they wrote."""
    person = found(User.visible_to(current_user).where(User.username_key == fold(username)))
    page = Post.page(current_user, "author", Cursor.from_request(), person.id)
    here = sa.select(User).where(User.id == person.stand_in_id, User.deactivated_at.is_(None))
    stand_in = db.session.scalar(here) if person.stand_in_id else None
    return render_template("people/show.html", person=person, page=page, stand_in=stand_in)


# -- search: everything that one may read ------------------------------------------------------------------------------

search = Blueprint("search", __name__)

SEARCH_KINDS = {"post": "News", "page": "Handbook", "comment": "Comments", "person": "People"}


class Hit(NamedTuple):
    """Something that was found, as the page shows it."""

    kind: str
    address: str
    title: Markup
    snippet: Markup
    author_id: int
    topic_id: int
    at: datetime


@search.get("/search", endpoint="index")
@login_required
def search_all() -> ResponseReturnValue:
    """What fits the words that somebody typed: people first, then posts, pages and comments, the best first."""
    viewer = viewer_or_none()
    assert viewer is not None
    asked = {name: request.args.get(name, "") for name in ("kind", "topic", "author", "since", "before")}
    query = tidy(request.args.get("q"))[:QUERY_MAX]
    results = _results(viewer, asked["kind"], _wanted(viewer, query, asked), live=request.args.get("part") == "live")
    if request.args.get("part") == "live":
        return render_template("search/_live.html", q=query, **results)
    people = sorted(directory(viewer).people.values(), key=lambda person: sort_key(person.name))
    choice = {"kinds": SEARCH_KINDS, "everybody": people, "topics": Topic.audiences(viewer).values()}
    return render_template("search/index.html", q=query, asked=asked, narrowed=any(asked.values()), **choice, **results)


def _results(viewer: Viewer, kind: str, wanted: Wanted, live: bool) -> dict[str, Any]:
    """What was found, for the page or, in short, for the box in the header."""
    people: Sequence[Any] = ()
    hits: Sequence[Any] = ()
    count, more = 0, False
    if wanted.words and not wanted.limits and (kind == "person" or not wanted.flags):
        people = SearchEntry.people(wanted, RESULTS if kind == "person" else FOUND_PEOPLE)
    if wanted.words and kind != "person":
        hits, count, more = SearchEntry.hits(viewer, wanted)
    shown = _shown(viewer, wanted, hits[:LIVE_RESULTS] if live else hits)
    known = directory(viewer, (hit.author_id for hit in shown))
    return {"people": people, "hits": shown, "count": count, "more": more, "names": known}


def _wanted(viewer: Viewer, query: str, asked: Mapping[str, str]) -> Wanted:
    """Read what is looked for and where. A kind, topic or author that there is not, or not for this person, is 404."""
    if asked["kind"] and asked["kind"] not in SEARCH_KINDS:
        abort(404)
    limits: dict[str, Any] = {}
    author_id = None
    if asked["topic"]:
        limits["topic"] = found(Topic.visible_to(viewer).where(Topic.slug == asked["topic"])).id
    if asked["author"]:
        author_id = found(User.visible_to(viewer).where(User.username_key == fold(asked["author"]))).id
    for name in ("since", "before"):
        if (moment := _midnight(asked[name])) is not None:
            limits[name] = moment
    return Wanted(database.query_words(query), database.search_filter(asked["kind"], author_id), limits)


def _midnight(day: str) -> datetime | None:
    """When a day begins where this request's person is, as times are stored; None where it is no day."""
    try:
        begun = datetime.combine(date.fromisoformat(day), datetime.min.time(), clock()[1])
        return begun.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


def _shown(viewer: Viewer, wanted: Wanted, hits: Sequence[Any]) -> list[Hit]:
    """What was found, read for showing: once more only what the person may see."""
    texts = {hit.object_id for hit in hits if hit.kind == "comment"}
    found_posts = sa.select(Post.id, Post.title, Post.html, Post.author_id, Post.topic_id, Post.published_at)
    found_posts = found_posts.where(Post.visible(), Post.id.in_({hit.post_id for hit in hits}))
    posts_by_id = {row.id: row for row in rows(found_posts, viewer=viewer.id)} if hits else {}
    said = sa.select(Comment.id, Comment.html, Comment.author_id, Comment.created_at)
    said = said.where(Comment.id.in_(texts), Comment.deleted_at.is_(None))
    comments_by_id = {row.id: row for row in rows(said)} if texts else {}
    shown = []
    for hit in hits:
        post, comment = posts_by_id.get(hit.post_id), comments_by_id.get(hit.object_id)
        if post is None or (hit.kind == "comment" and comment is None):
            continue  # deleted or hidden in this very moment
        is_comment = hit.kind == "comment"
        source = comment if is_comment else post
        at = comment.created_at if is_comment else post.published_at  # type: ignore[union-attr]
        address = f"/comments/{hit.object_id}" if is_comment else f"/posts/{post.id}"
        text = plain_text(source.html, len(source.html))  # type: ignore[union-attr]
        title, snippet = marked(post.title, wanted.words), marked(excerpt(text, wanted.words), wanted.words)
        shown.append(Hit(hit.kind, address, title, snippet, source.author_id, post.topic_id, at))  # type: ignore[union-attr]
    return shown


def _fits(word: database.Word, wanted: Iterable[database.Word]) -> bool:
    return any(word.text == one.text or (not one.whole and word.text.startswith(one.text)) for one in wanted)


def excerpt(text: str, wanted: Sequence[database.Word]) -> str:
    """The part of a text where a word that was looked for stands first, cut between words; else how it begins."""
    words = database.words_of(text[:SNIPPET_WITHIN])
    place = next((word.start for word in words if _fits(word, wanted)), 0)
    start = max(0, place - SNIPPET_BEFORE)
    end = max(place, start) + SNIPPET_AFTER
    if start:
        start = text.find(" ", start, place) + 1 or start
    if end < len(text):
        end = max(text.rfind(" ", place, end), place + SNIPPET_AFTER // 2)
    return f"{'… ' if start else ''}{text[start:end]}{' …' if end < len(text) else ''}"


def marked(text: str, wanted: Sequence[database.Word]) -> Markup:
    """A text with the words in it that were looked for marked; everything else as it is, escaped."""
    parts, done = [], 0
    for word in database.words_of(text):
        if word.end > done and _fits(word, wanted):
            start = max(word.start, done)
            parts += [Markup.escape(text[done:start]), Markup("<mark>{}</mark>").format(text[start : word.end])]
            done = word.end
    return Markup("").join([*parts, Markup.escape(text[done:])])


# -- admin: people, settings, what to do next --------------------------------------------------------------------------

admin = Blueprint("admin", __name__, url_prefix="/admin")


@admin.get("", endpoint="index")
@role_required(Role.ADMIN)
def overview() -> ResponseReturnValue:
    """Administration: what there is to do next, and the ways to everything else."""
    return render_template("admin/index.html", next_steps=next_steps(), addresses=addresses(current_app.config))


@admin.get("/people", endpoint="people")
@role_required(Role.ADMIN)
def manage_people() -> ResponseReturnValue:
    """Everybody with role and state, the deactivated too."""
    query = tidy(request.args.get("q"))[:NAME_MAX]
    columns = (*PERSON_COLUMNS, User.role, User.deactivated_at.is_(None).label("active"), User.last_active_at)
    shown, before = _people_page(current_user, columns, query)
    return render_template("admin/people.html", people=shown, q=query, before=before)


@admin.route("/people/new", methods=["GET", "POST"])
@role_required(Role.ADMIN)
def new_person() -> ResponseReturnValue:
    """Add a person; a password that was made for them is shown once."""
    form = NewPersonForm()
    form.role.choices = choices((int(role), role.label) for role in Role)
    if form.validate_on_submit():
        made = None if form.password.data else made_up_password()
        values = {name: form[name].data for name in ("name", "username", "email")}
        hashed = hash_password(made or form.password.data)
        try:
            person = User.create(current_user, password_hash=hashed, role=Role(form.role.data), **values)
        except Refused as refused:
            form.refuse(refused)
        else:
            if made:
                return render_template("admin/new_password.html", person=person, password=made)
            return done("/admin/people", f"{person.name} can sign in now.")
    return form_page("admin/edit_person.html", form, person=None)


def made_up_password() -> str:
    """A password to hand over: easy to read out, 77 bits."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(alphabet) for _ in range(4)) for _ in range(4))


@admin.route("/people/<int:user_id>", methods=["GET", "POST"])
@role_required(Role.ADMIN)
@keeps_typed
def edit_person(user_id: int) -> ResponseReturnValue:
    """Change a person's role, or whether they may sign in."""
    person = found(User.visible_to(current_user).where(User.id == user_id))
    form = PersonForm(obj=person, role=int(person.role), active=person.deactivated_at is None)
    form.role.choices = choices((int(role), role.label) for role in Role)
    if form.validate_on_submit():
        values = {"name": form.name.data, "email": form.email.data, "active": form.active.data}
        try:
            User.administer(current_user, user_id, role=Role(form.role.data), **values)
        except Refused as refused:
            form.refuse(refused)
        else:
            return done("/admin/people", f"{form.name.data} is saved.")
    return form_page("admin/edit_person.html", form, person=person)


@admin.post("/people/<int:user_id>/password")
@role_required(Role.ADMIN)
def reset_password(user_id: int) -> ResponseReturnValue:
    """Make a new password for somebody who forgot theirs, shown once; it signs them out everywhere."""
    person = found(User.visible_to(current_user).where(User.id == user_id))
    made = made_up_password()
    User.set_password(current_user, user_id, hash_password(made))
    return render_template("admin/new_password.html", person=person, password=made)


@admin.route("/settings", methods=["GET", "POST"])
@role_required(Role.ADMIN)
@keeps_typed
def settings() -> ResponseReturnValue:
    """What the team decides about its site."""
    site = current_site()
    form = SettingsForm(data={"site_name": site.name, **site._asdict()})
    if form.validate_on_submit():
        Setting.change(current_user, **{name: form[name].data or "" for name in SETTING_FIELDS})
        return done("/admin/settings", "Saved.")
    return form_page("admin/settings.html", form)


class NextStep(NamedTuple):
    """Something that a new site still needs."""

    done: bool
    title: str
    text: str  # what stands between `marks` is to be typed as it is
    onward: tuple[tuple[str, str], ...] = ()  # words and addresses


def next_steps() -> list[NextStep]:
    """What stands between a fresh site and a team that uses it."""
    config = current_app.config
    alone = is_loopback(config["HOST"]) and not config["TRUSTED_PROXY"]
    company = db.session.scalar(sa.select(sa.func.count()).select_from(User)) or 0
    written = db.session.scalar(sa.select(Post.id).limit(1)) is not None
    reach = "Only this computer can open the site so far. " if alone else "Other computers can open the site. "
    return [
        NextStep(not alone, "Let other computers in", reach + reach_advice(config)),
        NextStep(
            company > 1,
            "Let people in",
            "Add them one by one, or let them register themselves.",
            (("Add a person", "/admin/people/new"), ("Who may register", "/admin/settings")),
        ),
        NextStep(
            written,
            "Write the first news",
            "Say what this site is for; it is the first thing that people read.",
            (("Write a post", "/posts/new"), ("Topics", "/admin/topics")),
        ),
    ]


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def reach_advice(config: Mapping[str, Any]) -> str:
    """How others get to open the site, in one sentence or three."""
    if not is_loopback(config["HOST"]) or config["TRUSTED_PROXY"]:
        return "Hand out one of the addresses below."
    port = config["PORT"]
    windows = f'netsh advfirewall firewall add rule name="Corkboard" dir=in action=allow protocol=TCP localport={port}'
    opened = windows if os.name == "nt" else f"sudo ufw allow {port}/tcp"
    return (
        "Write `HOST=0.0.0.0` into the file .env beside app.py and start Corkboard again. "
        f"Then let it through the firewall with `{opened}` and hand out one of the addresses below."
    )


def addresses(config: Mapping[str, Any]) -> list[str]:
    """The addresses by which colleagues will reach the site."""
    if config["SITE_URL"]:
        return [config["SITE_URL"]]
    name, port = socket.gethostname(), config["PORT"]
    with contextlib.suppress(OSError):
        known = sorted({str(info[4][0]) for info in socket.getaddrinfo(name, None, socket.AF_INET)})
        return [f"http://{host}:{port}" for host in [name.lower(), *known] if not is_loopback(host)]
    return [f"http://{name.lower()}:{port}"]


# ======================================================================================================================
# == 7. JSON API =======================================================================================================
# ======================================================================================================================

health = Blueprint("health", __name__)


@health.get("/healthz")
@public
def live() -> ResponseReturnValue:
    """The process lives; asks nothing of the database."""
    return jsonify(status="ok")


@health.get("/readyz")
@public
def ready() -> ResponseReturnValue:
    """The database answers and is migrated; else 503 with Retry-After."""
    try:
        database.check_schema()
    except database.SchemaError as error:
        return jsonify(status="unready", reason=error.message), 503, {"Retry-After": "30"}
    except DBAPIError:
        return jsonify(status="unready", reason="The database does not answer."), 503, {"Retry-After": "5"}
    return jsonify(status="ok")


# ======================================================================================================================
# == 8. Template filters and context ===================================================================================
# ======================================================================================================================

WEEKDAYS = tuple(calendar.day_name)
MONTHS = tuple(calendar.month_name)


def ago(moment: datetime | None) -> Markup | str:
    """A stored time in words ('2 hours ago', 'yesterday', 'Monday'), with the full date in the viewer's zone."""
    if moment is None:
        return "never"
    return _ago(moment, *clock())


def clock() -> tuple[datetime, ZoneInfo]:
    """The minute it is, and the zone in which this request's person reads times."""
    held = this_g()
    if "clock" not in held:
        viewer = viewer_or_none()
        held.clock = held.now.replace(second=0, microsecond=0), viewer.zone if viewer else state().zone("")
    return held.clock


def today() -> date:
    """The day it is where this request's person is."""
    minute, zone = clock()
    return minute.replace(tzinfo=UTC).astimezone(zone).date()


@functools.lru_cache(maxsize=4096)
def _ago(moment: datetime, minute: datetime, zone: ZoneInfo) -> Markup:
    """The same words for a whole minute, so that a minute's pages share them."""
    local, now = (time.replace(tzinfo=UTC).astimezone(zone) for time in (moment, minute))
    full = f"{WEEKDAYS[local.weekday()]} {local.day} {MONTHS[local.month]} {local.year}, {local:%H:%M}"
    words = _in_words(now - local, (now.date() - local.date()).days, local.date(), now.year)
    return Markup(f'<time datetime="{moment.isoformat(timespec="seconds")}Z" title="{full}">{words}</time>')


def _in_words(passed: timedelta, days: int, day: date, this_year: int) -> str:
    minutes = int(passed.total_seconds() // 60)
    if minutes < 1:
        return "just now"
    if minutes < 60:
        return f"{plural(minutes, 'minute')} ago"
    if days == 0:
        return f"{plural(minutes // 60, 'hour')} ago"
    if days == 1:
        return "yesterday"
    return WEEKDAYS[day.weekday()] if days < 7 else _day(day, this_year)


def _day(day: date, this_year: int) -> str:
    return f"{day.day} {MONTHS[day.month]}" + (f" {day.year}" if day.year != this_year else "")


def day_in_words(day: date) -> str:
    """A date as people say it: '2 December', with the year when it is another one."""
    return _day(day, g.now.year)


def plural(count: int, one: str, many: str | None = None) -> str:
    """A count as words: '1 comment', '3 comments', 'no comments'."""
    return f"{'no' if count == 0 else f'{count:,}'} {one if count == 1 else many or one + 's'}"


def initials(name: str) -> str:
    """What an avatar shows: the first letters of the first and the last name."""
    words = name.split()
    letters = [word[0] for word in (words[:1] + words[1:][-1:])]
    return "".join(letters).upper()[:2]


def hue(number: int) -> int:
    """Which of the avatars' colors belongs to an id."""
    return number % HUES


@functools.cache
def icon(name: str) -> Markup:
    """An icon of Bootstrap's font, for the eye only."""
    return Markup('<i class="bi bi-{}" aria-hidden="true"></i>').format(name)


# Fragments kept: how many, and how long a text in one may be. At most some MB.
FRAGMENTS, FRAGMENT_TEXT = 4096, 4000


def fragment(template: str, row: Any, *more: Any) -> Markup:
    """Draw a piece of a page by a template that knows `row` and `more`, and nothing else of who looks or when.

    That makes its HTML a function of what it is given, so it is kept under exactly that: a change of the text, the
    author's name, the topic, the number of comments or what this person may do is another key. Nothing can be stale.
    """
    return (_fragment.__wrapped__ if this_app().debug else _fragment)(template, row, *more)


@functools.lru_cache(maxsize=FRAGMENTS)
def _fragment(template: str, row: Any, *more: Any) -> Markup:
    drawn = current_app.jinja_env.get_template(template).render(row=row, more=more)
    return Markup(drawn if "<pre" in drawn or "<textarea" in drawn else _INDENTED.sub("\n", drawn))


_INDENTED = re.compile(r"\n\s+")  # a tenth of a page's bytes, and white space means nothing elsewhere than in these two


def post_cards(posts: Sequence[PostCard], template: str = "posts/_card.html") -> Markup:
    """The posts of a list, one below the other. What all rows share is looked up once: this is the hottest loop."""
    viewer, (minute, zone) = viewer_or_none(), clock()
    assert viewer is not None
    names = directory(viewer, (row.author_id for row in posts))
    is_new, people, topics = viewer.is_new, names.people, names.topics
    draw = _fragment.__wrapped__ if current_app.debug else _fragment
    cards = [
        draw(
            template,
            row,
            _ago(row.published_at, minute, zone),
            is_new(row.published_at, row.author_id),
            people[row.author_id],
            topics[row.topic_id],
        )
        for row in posts
    ]
    return Markup("".join(cards))  # not Markup.join: each card is drawn already, and would be looked at again


def post_article(post: PostView) -> Markup:
    """A post as its page shows it; a long one is drawn anew each time, so that what is kept stays small."""
    draw = fragment if len(post.html) < FRAGMENT_TEXT else _fragment.__wrapped__
    return draw("posts/_article.html", post, clock())


def comment_cards(comments: Sequence[CommentView]) -> Markup:
    """The comments below a post; a long one is drawn anew each time, so that what is kept stays small."""
    viewer, (minute, zone) = viewer_or_none(), clock()
    assert viewer is not None
    people = directory(viewer, (row.author_id for row in comments)).people
    cards = []
    for row in comments:
        draw = _fragment if len(row.html) < FRAGMENT_TEXT and not current_app.debug else _fragment.__wrapped__
        cards.append(draw("posts/_comment.html", row, _ago(row.created_at, minute, zone), people[row.author_id]))
    return Markup("".join(cards))


@functools.cache
def _blank_comment() -> CommentForm:
    return CommentForm(formdata=None)


def reply_fields(form: CommentForm | None) -> Markup:
    """What one fills in to comment. Nobody has typed anything yet below most posts, and blank fields are all alike."""
    if form is not None:
        return _fragment.__wrapped__("posts/_reply.html", form)
    hidden = Markup('<input type="hidden" name="form_id" value="{}">').format(secrets.token_hex(16))
    return hidden + fragment("posts/_reply.html", _blank_comment())


class Header(NamedTuple):
    """All that the header of a page depends on."""

    site_name: str
    here: str
    id: int
    username: str
    name: str
    role: Role


PLACES = {"/", "/handbook", "/people"}


def page_header() -> Markup:
    """The header for whoever is signed in, the place they are at marked."""
    viewer, here = viewer_or_none(), request.path if request.path in PLACES else ""
    person = (viewer.id, viewer.username, viewer.name, viewer.role) if viewer else (0, "", "", Role.READER)
    return fragment("_header.html", Header(current_site().name, here, *person))


def page_head() -> Markup:
    """The styles and the script of every page."""
    return fragment("_head.html", None)


def page_flashes() -> Markup:
    """What is to be said about what was just done."""
    messages = get_flashed_messages(with_categories=True)
    return _fragment.__wrapped__("_flashes.html", messages) if messages else fragment("_flashes.html", ())


def pagination(
    address: str, older: str | None, first: bool = True, more: str = "Older", back: str = "Newest", query: str = ""
) -> Markup:
    """The way to the next page of a list, and back to its first."""
    return fragment("_pagination.html", (address, older, first, more, back, query))


def page_dialogs() -> Markup:
    """The help and the questions that the script opens."""
    viewer = viewer_or_none()
    return fragment("_dialogs.html", viewer.role if viewer else None)


def page_sidebar(parts: Sidebar) -> Markup:
    """What stands beside a list; the clock belongs to what it says."""
    return fragment("posts/_sidebar.html", parts, clock())


def asset(endpoint: str, filename: str) -> str:
    """The address of a static file, with a hash of what is in it, so that it may be kept for a year."""
    known = state().assets
    if (endpoint, filename) not in known or current_app.debug:
        holder = current_app.blueprints[endpoint.partition(".")[0]] if "." in endpoint else current_app
        content = (Path(str(holder.static_folder)) / filename).read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:12]
        known[endpoint, filename] = url_for(endpoint, filename=filename, v=digest)
    return known[endpoint, filename]


def secret_key() -> str:
    return str(current_app.secret_key)


@functools.lru_cache(maxsize=1024)
def _signed_csrf(secret: str, raw: str) -> str:
    """The token of a session as forms carry it. It never expires by itself (WTF_CSRF_TIME_LIMIT), so one will do."""
    return URLSafeTimedSerializer(secret, salt="wtf-csrf-token").dumps(raw)  # type: ignore[return-value]


def template_context() -> dict[str, Any]:
    """What every template may use."""
    raw, held = this_session().get("csrf_token"), this_g()
    if raw and "csrf_token" not in held:
        held.csrf_token = _signed_csrf(secret_key(), raw)  # what `csrf_token()` will find
    return {"current_user": viewer_or_none(), "site": current_site(), "today": today}


def register_template_helpers(app: Flask) -> None:
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    filters = (ago, plural, initials, hue, post_cards, post_article, comment_cards, page_sidebar)
    helpers = (icon, asset, pagination, page_head, page_header, page_flashes, page_dialogs, reply_fields)
    app.jinja_env.filters.update({function.__name__: function for function in filters}, day=day_in_words)
    app.jinja_env.globals.update({function.__name__: function for function in helpers}, Role=Role)
    app.context_processor(template_context)


# ======================================================================================================================
# == 9. Commands =======================================================================================================
# ======================================================================================================================


class PlainCommand(click.Command):
    """A command that says in one line when the database does not answer."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (DBAPIError, PoolTimeout, database.DatabaseBusy) as error:
            if not database.is_unavailable(error):
                raise
            raise click.ClickException("The database does not answer. More tells: python -m flask check") from error


def register_commands(app: Flask) -> None:
    for command in (check_command, init_db_command, create_admin_command, setup_link_command, seed_demo_command):
        app.cli.add_command(command)
    app.cli.add_command(reindex_command)


def site_address(config: Mapping[str, Any]) -> str:
    """The address to print: SITE_URL, or where this computer finds the site."""
    host = config["HOST"] if config["HOST"] not in ("0.0.0.0", "::") else "localhost"
    return config["SITE_URL"] or f"http://{f'[{host}]' if ':' in host else host}:{config['PORT']}"


def setup_file(app: Flask) -> Path:
    return Path(app.config["DATA_DIR"]) / "setup-link.txt"


def remove_setup_file(app: Flask) -> None:
    with contextlib.suppress(OSError):
        setup_file(app).unlink(missing_ok=True)


def announce_setup(app: Flask, terminal: bool) -> str | None:
    """What a start says about setting up: nothing once people exist, the link on a terminal, else where it is written.

    A service's output ends up in logs that many can read, so there the link goes to a file for its owner only.
    """
    with app.app_context():
        if User.exists():
            return None
        link = f"{site_address(app.config)}/setup?token={Setting.renew_setup_token()}"
    if terminal:
        return f"Set it up in the browser (this link works once):\n  {link}"
    path = setup_file(app)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(link + "\n")
    return f"Set it up in the browser with the link in {path}"


@click.command("setup-link", cls=PlainCommand)
@with_appcontext
def setup_link_command() -> None:
    """Make a new set-up link; the one before it ends."""
    database.check_schema()
    try:
        token = Setting.renew_setup_token()
    except Refused as refused:
        raise click.ClickException(refused.message) from None
    remove_setup_file(current_app)
    click.echo(f"{site_address(current_app.config)}/setup?token={token}")


@click.command("init-db", cls=PlainCommand)
@with_appcontext
def init_db_command() -> None:
    """Create the tables, or bring them up to date. May be run again."""
    database.upgrade_schema()
    click.echo("The database is ready.")


@click.command("create-admin", cls=PlainCommand)
@click.argument("username")
@click.option("--email", help="Mail address.")
@click.option("--name", help="Full name; the username where it is left out.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--reset", is_flag=True, help="Make an existing person an active administrator with a new password.")
@with_appcontext
def create_admin_command(username: str, email: str | None, name: str | None, password_stdin: bool, reset: bool) -> None:
    """Add an administrator, or rescue one with --reset."""
    database.check_schema()
    username = tidy(username)
    existing = User.by_username(username)
    if existing is None and reset:
        raise click.ClickException(f"There is nobody called {username}. Leave --reset out to add them.")
    if existing is not None and not reset:
        raise click.ClickException(f"{username} exists. To make them an administrator again, add --reset.")
    name, email = tidy(name) or username, tidy(email) or None
    if existing is None:
        _refuse_unfit(username, name, email)
    hashed = hash_password(_password_for_command(password_stdin))
    if existing is not None:
        User.rescue(existing.id, hashed)
        click.echo(f"{existing.username} is an administrator with the new password; all their sign-ins are ended.")
        return
    try:
        user = User.create(None, password_hash=hashed, role=Role.ADMIN, username=username, name=name, email=email)
    except Refused as refused:
        raise click.ClickException(refused.message) from None
    Topic.ensure_first(user)
    remove_setup_file(current_app)
    click.echo(f"{user.username} can sign in at {site_address(current_app.config)}/login")


def _refuse_unfit(username: str, name: str, email: str | None) -> None:
    """Refuse what the forms refuse too."""
    if not re.fullmatch(USERNAME_PATTERN, username) or not USERNAME_MIN <= len(username) <= USERNAME_MAX:
        raise click.ClickException(
            f"A username has {USERNAME_MIN} to {USERNAME_MAX} letters a to z, digits, dots, hyphens and underscores."
        )
    if len(name) > NAME_MAX:
        raise click.ClickException(f"A name has at most {NAME_MAX} characters.")
    if email and (len(email) > EMAIL_MAX or not re.fullmatch(EMAIL_PATTERN, email)):
        raise click.ClickException(f"{email!r} does not look like a mail address.")


def _password_for_command(from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt="The same again")
    else:
        raise click.ClickException("There is no terminal to ask for a password. Add --password-stdin and pipe it in.")
    if reason := weak_password(password):
        raise click.ClickException(reason)
    return password


@click.command("check")
@with_appcontext
def check_command() -> None:
    """Tell whether this deployment is sound: each finding, and what to do about it."""
    findings = [*current_app.config["FINDINGS"], *deployment_findings()]
    for finding in findings:
        click.echo(str(finding))
    if not all(finding.ok for finding in findings):
        sys.exit(1)


def deployment_findings() -> Iterator[Finding]:
    """What only a look at the machine and the database can tell."""
    config = current_app.config
    free = shutil.disk_usage(config["DATA_DIR"]).free // 2**20
    yield Finding(free >= 500, "disk", f"{free:,} MB free", "Make room: at least 500 MB in the data folder.")
    kept = Path(config["DATA_DIR"]) / "secret_key"
    if os.name != "nt" and kept.exists():
        private = not kept.stat().st_mode & 0o077
        yield Finding(private, "secret key", "only its owner reads it" if private else "others can read it",
                      f"Run: chmod 600 {kept}")  # fmt: skip
    reach = "only this computer" if is_loopback(config["HOST"]) else "other computers"
    yield Finding(True, "reach", f"{reach} can open the site. {reach_advice(config)}")
    yield from _database_findings()


def _database_findings() -> Iterator[Finding]:
    url = db.engine.url.render_as_string(hide_password=True)
    try:
        with db.engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    except DBAPIError as error:
        log.warning("check: the database does not answer", exc_info=error)
        remedy = "Is it running, and are the name and password in DATABASE_URL right? The log tells more."
        yield Finding(False, "database", f"{url} does not answer", remedy)
        return
    yield Finding(True, "database", f"{url} answers")
    try:
        database.check_schema()
    except database.SchemaError as error:
        yield Finding(False, "schema", "not the one this version needs", error.message)
        return
    yield Finding(True, "schema", "current")
    admins = sa.select(User.id).where(User.role == Role.ADMIN, User.deactivated_at.is_(None)).limit(1)
    some = db.session.scalar(admins) is not None
    yield Finding(some, "administrator", "there is one" if some else "there is none",
                  "Open the link of: python -m flask setup-link")  # fmt: skip


@click.command("db-reindex", cls=PlainCommand)
@with_appcontext
def reindex_command() -> None:
    """Make what the search finds anew. People can go on working; the search finds more and more of it meanwhile."""
    database.check_schema()
    length = sum(rows(sa.select(sa.func.count()).select_from(model)).scalar() or 0 for model in (User, Post, Comment))
    with click.progressbar(length=length, label="Reading everything") as bar:
        SearchEntry.reindex(bar.update)
    click.echo("The search is up to date.")


# -- seed-demo: a bakery and its shops ---------------------------------------------------------------------------------

DEMO = Path(__file__).resolve().parent / "templates" / "demo"


@click.command("seed-demo", cls=PlainCommand)
@click.option("--posts", "wanted", default=0, metavar="N", help="Make N posts, for measuring.")
@click.option("--force", is_flag=True, help="Even where there are people already.")
@with_appcontext
def seed_demo_command(wanted: int, force: bool) -> None:
    """Fill the site with a small company: 12 people, 5 topics, 60 posts, a handbook and comments."""
    database.check_schema()
    content = db.session.scalar(sa.select(Post.id).limit(1)) or db.session.scalar(sa.select(Topic.id).limit(1))
    if not force and User.exists():
        raise click.ClickException("There are people here already. To add the demo to them, use --force.")
    if not force and content and current_app.config["APP_ENV"] == "production":
        raise click.ClickException("This site is in use. To add the demo to it, use --force.")
    company = DemoCompany()
    try:
        passwords = company.hire()
    except Refused as refused:
        raise click.ClickException(f"The demo does not fit in here. {refused.message}") from None
    entries = company.entries("posts.md", "news") + company.entries("handbook.md", "page")
    extra = max(0, wanted - sum(entry.kind == "news" for entry in entries))
    with click.progressbar(length=len(entries) + extra, label="Writing posts") as bar:
        company.publish(entries, bar.update)
        company.repeat([entry for entry in entries if entry.kind == "news" and not entry.private], extra, bar.update)
    remove_setup_file(current_app)
    click.echo(f"Sign in at {site_address(current_app.config)}/login. The passwords are shown this once:")
    for username, role, password in passwords:
        click.echo(f"  {username:<12} {role:<8} {password}")


@dataclass
class DemoEntry:
    """A post of the demo, with its comments."""

    kind: str
    title: str
    body: str
    fields: dict[str, str]
    comments: list[tuple[dict[str, str], str]]
    private: bool


class DemoCompany:
    """Reads `templates/demo/` and writes it as a team would have."""

    def __init__(self) -> None:
        # The ages in the files fall into working hours when they are counted from two in the afternoon.
        now = utcnow()
        self.now = now.replace(hour=14, minute=0) - timedelta(days=now.hour < 14)
        self.people: dict[str, int] = {}
        self.topics: dict[str, int] = {}
        self.private: set[str] = set()
        self.indexed: dict[str, dict[str, Any]] = {}  # by title

    def hire(self) -> list[tuple[str, str, str]]:
        """Add the people and the topics. Returns username, role and password of each."""
        people = json.loads((DEMO / "people.json").read_text(encoding="utf-8"))
        told = [(person["username"], person["role"], made_up_password()) for person in people]
        hashes = [hash_password(password) for _, _, password in told]
        self._add_people(people, hashes)
        return told

    @unit
    def _add_people(self, people: list[dict[str, Any]], hashes: list[str]) -> None:
        fresh = not User.exists()
        stand_ins = {person["username"]: person.pop("stand_in") for person in people}
        for person, hashed in zip(people, hashes, strict=True):
            away, role = person.pop("away_days"), Role[person.pop("role").upper()]
            until = self.now.date() + timedelta(days=away) if away is not None else None
            user = User.create(None, password_hash=hashed, role=role, away_until=until, **person)
            self.people[user.username] = user.id
        for username, stand_in in stand_ins.items():
            values = {"stand_in_id": self.people.get(stand_in)}
            rows(sa.update(User).where(User.id == self.people[username]).values(values))
        self._make_topics()
        if fresh:
            owner = SimpleNamespace(id=next(iter(self.people.values())))
            Setting.change(owner, site_name="Thimble & Rye")  # type: ignore[arg-type]

    def _make_topics(self) -> None:
        owner = db.session.get(User, next(iter(self.people.values())))
        assert owner is not None
        for topic in json.loads((DEMO / "topics.json").read_text(encoding="utf-8")):
            members = [self.people[name] for name in topic.get("members", ())]
            same = sa.select(Topic).where(Topic.name_key == sort_key(topic["name"], TOPIC_MAX), ~Topic.private)
            made = db.session.scalar(same.where(Topic.deleted_at.is_(None))) or Topic.create(
                owner, form_id=secrets.token_hex(16), name=topic["name"], description=topic["description"],
                private=topic["private"], members=members,
            )  # fmt: skip
            self.topics[topic["slug"]] = made.id
            self.private |= {topic["slug"]} if topic["private"] else set()

    def entries(self, filename: str, kind: str) -> list[DemoEntry]:
        """The entries of a demo file: `=== fields`, `# title`, text, then `--- author; fields` and a comment each."""
        made = []
        for part in (DEMO / filename).read_text(encoding="utf-8").split("\n=== "):
            head, _, rest = part.removeprefix("=== ").partition("\n")
            text, *remarks = rest.split("\n--- ")
            title, _, body = text.strip().removeprefix("# ").partition("\n")
            comments = []
            for remark in remarks:
                author, _, said = remark.partition("\n")
                comments.append((self._fields(f"author: {author}"), said.strip()))
            fields = self._fields(head)
            made.append(DemoEntry(kind, title.strip(), body.strip(), fields, comments, fields["topic"] in self.private))
        return made

    @staticmethod
    def _fields(head: str) -> dict[str, str]:
        return {name.strip(): value.strip() for name, _, value in (field.partition(":") for field in head.split(";"))}

    @unit
    def publish(self, entries: Sequence[DemoEntry], advance: Callable[[int], None]) -> None:
        """Write posts with their comments and first revisions, at the times they tell."""
        for entry in entries:
            post = self._row(entry, self._ago(entry.fields["days"]))
            if "pinned" in entry.fields:
                post["pinned_at"] = post["published_at"]
            if "edited_by" in entry.fields:
                post["editor_id"] = self.people[entry.fields["edited_by"]]
                post["updated_at"] = post["edited_at"] = self._ago(entry.fields.get("edited_days", "1"))
            post_id = rows(sa.insert(Post), **post).inserted_primary_key[0]  # type: ignore[index]
            self._keep(post, post_id)
            for fields, said in entry.comments:
                self._comment(post_id, fields, said)
            advance(1)
        SearchEntry.catch_up()
        self._record()

    def repeat(self, entries: Sequence[DemoEntry], count: int, advance: Callable[[int], None]) -> None:
        """Write `count` more posts of the same texts, further and further back, in batches: data to measure on."""
        patterns = [self._row(entry, self.now) for entry in entries]
        oldest = self.now - timedelta(days=250)
        for start in range(0, count, 2000):
            batch = [
                patterns[number % len(patterns)]
                | {"form_id": secrets.token_hex(16), "published_at": oldest - timedelta(minutes=7 * number)}
                for number in range(start, min(start + 2000, count))
            ]
            self._write_batch(batch)
            advance(len(batch))

    @unit
    def _write_batch(self, batch: list[dict[str, Any]]) -> None:
        connection = db.session.connection()
        last = connection.scalar(sa.select(sa.func.max(Post.id))) or 0
        connection.execute(sa.insert(Post), batch)
        made = connection.execute(sa.select(Post.id).where(Post.id > last).order_by(Post.id)).scalars()
        kept = [
            {"post_id": post_id, "version": 1, "editor_id": post["editor_id"], "created_at": post["published_at"],
             "title": post["title"], "body": post["body"]}
            for post_id, post in zip(made, batch, strict=True)
        ]  # fmt: skip
        connection.execute(sa.insert(Revision), kept)
        entries = [self._entry(revision["post_id"], post) for revision, post in zip(kept, batch, strict=True)]
        connection.execute(sa.insert(SearchEntry), entries)
        self._record()

    def _entry(self, post_id: int, post: dict[str, Any]) -> dict[str, Any]:
        """What the search finds of a post; the words of texts that come again and again are looked up."""
        same = self.indexed.setdefault(post["title"], {})
        if not same:
            text = plain_text(post["html"], len(post["html"]))
            same.update(SearchEntry.values("post", 0, 0, 0, self.now, post["title"], text))
        own = database.search_flags("post", post_id, post["author_id"])
        place = {"object_id": post_id, "post_id": post_id, "at": post["published_at"]}
        return same | place | {"tokens": " ".join([same["tokens"].partition(f" {database.FLAG_MARK}")[0], *own])}

    def _record(self) -> None:
        """Tell a site that is being served meanwhile that its lists have changed."""
        owner: Any = SimpleNamespace(id=next(iter(self.people.values())))
        Activity.record(owner, "demo.filled", ("demo", 0))

    def _ago(self, days: str) -> datetime:
        return self.now - timedelta(days=float(days))

    def _row(self, entry: DemoEntry, when: datetime) -> dict[str, Any]:
        author = self.people[entry.fields["author"]]
        rendered = render_markdown(entry.body)
        return {
            "kind": entry.kind, "topic_id": self.topics[entry.fields["topic"]], "author_id": author,
            "editor_id": author, "form_id": secrets.token_hex(16), "version": 1, "title": entry.title,
            "title_key": sort_key(entry.title), "body": entry.body, "html": rendered, "renderer": RENDERER_VERSION,
            "excerpt": plain_text(rendered), "comment_count": len(entry.comments), "published_at": when,
            "updated_at": when, "edited_at": None, "pinned_at": None,
        }  # fmt: skip

    def _keep(self, post: Mapping[str, Any], post_id: int) -> None:
        text = {"title": post["title"], "body": post["body"], "created_at": post["published_at"]}
        Revision.keep(post_id=post_id, comment_id=None, editor_id=post["author_id"], version=1, **text)

    def _comment(self, post_id: int, fields: Mapping[str, str], said: str) -> None:
        author, when = self.people[fields["author"]], self._ago(fields["days"])
        values = {"post_id": post_id, "author_id": author, "form_id": secrets.token_hex(16), "version": 1}
        text = {"body": said, "html": render_markdown(said), "renderer": RENDERER_VERSION, "created_at": when}
        comment_id = rows(COMMENT_INSERT, **values, **text).inserted_primary_key[0]  # type: ignore[index]
        Revision.keep(post_id=post_id, comment_id=comment_id, editor_id=author, version=1, body=said, created_at=when)


# ======================================================================================================================
# == 10. Error handlers ================================================================================================
# ======================================================================================================================

# Code → what the page says: title, words. The words may not tell what went on inside.
ERROR_WORDS = {
    400: ("That did not work", "The browser sent something this page does not understand. Go back and try again."),
    401: ("Please sign in", "This needs somebody who is signed in."),
    403: ("Not for you", "You may not do this. If you think you should, ask an administrator."),
    404: ("Nothing here", "There is no such page, or it is not for you. It may have been moved or deleted."),
    405: ("Not this way", "This address is not meant to be opened like this. Go back and use the button there."),
    409: ("Changed meanwhile", "Somebody else changed this at the same time. Go back, load it anew and try again."),
    413: ("Too large", "What you sent is larger than this site takes."),
    415: ("Not this kind", "This site does not take that kind of content."),
    422: ("Please check", "Something in what you sent is not right. Go back and correct it."),
    429: ("A little slower", "That was tried too often. Wait a moment and try again."),
    500: ("Something broke", "It is our fault, not yours. It has been noted; try again, or tell an administrator."),
    503: ("Back in a moment", "The site cannot answer right now. Wait a moment and load this page again."),
}
SAFE_DESCRIPTIONS = {403, 413, 422, 429, 503}  # where our own `abort(code, words)` says more than the table
BARE = {500, 503}  # rendered without database or session


def register_error_handlers(app: Flask) -> None:
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(NotVisible, lambda _error: error_page(404))
    app.register_error_handler(Forbidden, lambda _error: error_page(403))
    app.register_error_handler(Conflict, lambda _error: error_page(409))
    app.register_error_handler(Refused, lambda error: error_page(422, error.message))
    app.register_error_handler(CSRFError, answer_lost_token)
    for unavailable in (DBAPIError, PoolTimeout, database.DatabaseBusy):
        app.register_error_handler(unavailable, answer_database_error)
    app.register_error_handler(Exception, answer_crash)


def answer_http_error(error: HTTPException) -> ResponseReturnValue:
    if error.response is not None:
        return error.response
    code = error.code or 500
    default = type(error).description
    words = error.description if code in SAFE_DESCRIPTIONS and error.description != default else None
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    return error_page(code, words, headers)


def answer_lost_token(error: CSRFError) -> ResponseReturnValue:
    """A form whose token is missing or of another sign-in: never carried out, but shown again as it was typed."""
    log.info("csrf: %s", error.description)
    if not wants_json() and _view_keeps_typed():
        public_view = getattr(current_app.view_functions[request.endpoint or ""], "access", "") == "public"
        if viewer_or_none() is None and not public_view:
            return ask_to_sign_in()
        try:
            shown = show_again()
        except Exception as refused:  # 404 or 403: inside of an error handler nobody else would answer it
            return current_app.handle_user_exception(refused)
        if shown is not None:
            shown.status_code = 400
            return shown
    return error_page(400, "This page was open while you signed in or out. Go back, load it anew and try again.")


def answer_database_error(error: Exception) -> ResponseReturnValue:
    """The database is gone or busy: 503, and the next request tries anew. Anything else it says is a defect."""
    if not database.is_unavailable(error):
        return answer_crash(error)
    log.error("%s database unavailable: %s", g.get("request_id", ""), error)
    return error_page(503, None, {"Retry-After": "5"})


def answer_crash(error: Exception) -> ResponseReturnValue:
    request_id = g.get("request_id", "")
    log.exception("%s unexpected error in %s %s", request_id, request.method, logged_path(), exc_info=error)
    if current_app.testing or current_app.debug:
        raise error
    return error_page(500)


def error_page(code: int, words: str | None = None, headers: Mapping[str, str] | None = None) -> ResponseReturnValue:
    """An error as a page of the site, or as problem details (RFC 9457) for programs."""
    title, text = ERROR_WORDS.get(code, ("That did not work", "Go back and try again."))
    context = {"code": code, "title": title, "text": words or text, "request_id": g.get("request_id", "")}
    headers = dict(headers or {}) | (
        {"Retry-After": "5"} if code == 503 and not (headers or {}).get("Retry-After") else {}
    )
    if wants_json():
        problem = {"type": "about:blank", "title": title, "status": code, "detail": context["text"]}
        body = json.dumps(problem | {"request_id": context["request_id"]})
        return Response(body, code, headers, content_type="application/problem+json")
    return _error_html(code, context), code, headers


def _error_html(code: int, context: dict[str, Any]) -> str:
    if code not in BARE:
        try:
            ways = [("Home", "/"), ("Handbook", "/handbook"), ("People", "/people")]
            return render_template(
                "errors/error.html", onward=ways if current_user else [("Sign in", "/login")], **context
            )
        except Exception as error:
            log.warning("error page rendered bare: %r", error)
    return render_bare(**context)


def render_bare(**context: Any) -> str:
    """A page that needs neither database nor session nor any context processor."""
    return current_app.jinja_env.get_template("errors/bare.html").render(onward=[("Home", "/")], **context)


# ======================================================================================================================
# == 11. create_app ====================================================================================================
# ======================================================================================================================


def create_app(config: Config | str | None = None) -> Flask:
    """Build the application; touch no schema, lock or token.

    `config` is a `Config`, the name of one ('testing'), or None for what the environment says.
    Raises `ConfigError` where the settings are not sound.
    """
    settings = configurations[config]() if isinstance(config, str) else config or load()
    settings.require_sound()
    app = Corkboard(__name__)
    app.config.from_object(settings)
    app.session_interface = SessionInterface()
    app.url_map.converters["int"] = IdConverter
    app.wsgi_app = SecurityHeaders(app.wsgi_app)
    app.config["FINDINGS"] = settings.findings()
    configure_logging(app)
    database.init_db(app)
    bootstrap.init_app(app)
    app.extensions["corkboard"] = AppState(app)
    app.before_request(begin_request)  # before the CSRF check, which may have to show a page
    csrf.init_app(app)
    app.after_request(finish_response)
    for blueprint in (auth, account, posts, topics, people, search, admin, health):
        app.register_blueprint(blueprint)
    register_template_helpers(app)
    register_error_handlers(app)
    register_commands(app)
    refuse_undeclared_views(app)
    return app


def start_background(app: Flask) -> None:
    """Before serving: have the search catch up with what a process that was killed, or an older version, left."""
    app.extensions["corkboard"].indexer.note("start", True)


def stop_background(app: Flask) -> None:
    """Write what is still noted, before the process ends."""
    app.extensions["corkboard"].visits.stop()
    app.extensions["corkboard"].indexer.stop()


# -- Hooks of a request ------------------------------------------------------------------------------------------------


def begin_request() -> ResponseReturnValue | None:
    """Give the request its time and id, and turn it away while the database does not fit the code."""
    held, asked = this_g(), this_request()
    held.now = utcnow()
    held.started = time.perf_counter()
    held.request_id = secrets.token_hex(8)
    if asked.method == "TRACE":
        abort(405)
    if asked.endpoint in STATIC_ENDPOINTS or asked.blueprint == "health":
        return None
    problem = database.schema_problem()
    if problem:
        log.error("not serving: %s", problem)
        return error_page(503, problem, {"Retry-After": "30"})
    return None


def finish_response(response: Response) -> Response:
    """Headers that every answer bears."""
    headers, asked = response.headers, this_request()
    headers["X-Request-ID"] = this_g().get("request_id", "")
    if this_app().config["SESSION_COOKIE_SECURE"]:
        headers["Strict-Transport-Security"] = f"max-age={YEAR_SECONDS}"
    if asked.endpoint not in STATIC_ENDPOINTS or response.status_code >= 400:
        headers["Cache-Control"] = "private, no-store"
    elif "fonts/" not in asked.path and asked.full_path != asset(asked.endpoint, **asked.view_args or {}):
        headers["Cache-Control"] = "no-cache"  # without its hash an address may mean another content tomorrow
    log_request(response.status_code)
    return response


def logged_path() -> str:
    """A path without secrets: no query, and of addresses that carry a token only their pattern.

    Quoted, or a line end in it would begin a line of the log that somebody made up (CWE-117).
    """
    asked = this_request()
    rule = asked.url_rule
    return rule.rule if rule is not None and "token" in rule.arguments else quote(asked.path)


def log_request(status: int) -> None:
    """One line a request: id, method, path, status, milliseconds, person."""
    held = this_g()
    if "started" not in held:
        return
    milliseconds = (time.perf_counter() - held.started) * 1000
    viewer = held.get("viewer")
    said = (held.request_id, this_request().method, logged_path(), status, milliseconds, viewer.id if viewer else "-")
    # Not access_log.info(…): it would search the stack for the line that called it, and that is always this one.
    record = access_log.makeRecord(access_log.name, logging.INFO, __file__, 0, "%s %s %s %s %.1fms user=%s", said, None)
    if access_log.isEnabledFor(logging.INFO):
        access_log.handle(record)


class SecurityHeaders:
    """Puts `SECURITY_HEADERS` on every answer, whoever made it; below Flask, where it costs next to nothing."""

    def __init__(self, wsgi_app: Callable[..., Any]) -> None:
        self.wsgi_app, self.headers = wsgi_app, list(SECURITY_HEADERS.items())

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(status, headers + self.headers, *error)

        return self.wsgi_app(environ, start)


class SiteResponse(Response):
    """Flask's, whose headers are taken as they are: Werkzeug would look into each answer for what needs quoting."""

    def get_wsgi_headers(self, environ: Any) -> Any:
        location = self.headers.get("Location", "")
        ready = self.is_sequence and "Content-Length" in self.headers and _PLAIN_ADDRESS.fullmatch(location)
        return self.headers if ready and self.status_code in (200, 303) else super().get_wsgi_headers(environ)


_PLAIN_ADDRESS = re.compile(r"[A-Za-z0-9/#?=&._-]*")


class LateRule(Rule):
    """An address that learns to build itself when first asked to: most never are, and it is half of their start."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., Any]:
        compiled: list[Callable[..., Any]] = []

        def build(rule: LateRule, **values: Any) -> Any:
            if not compiled:
                compiled.append(super()._compile_builder(append_unknown))
            return compiled[0](rule, **values)

        return build


class Corkboard(Flask):
    """Flask, told that no view or hook here is a coroutine: it asks that of each, for every request."""

    response_class = SiteResponse
    url_rule_class = LateRule

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func


class IdConverter(IntegerConverter):
    """An id in an address; a number that no row can have is 404 before any view."""

    def __init__(self, url_map: Map) -> None:
        super().__init__(url_map, max=ID_MAX)


class SessionInterface(SecureCookieSessionInterface):
    """Flask's, which checks the signature of each cookie that a browser sends only the first time it sends it.

    What is kept is kept under the whole signed value and for the day, so it says what checking it again would say. A
    sign-in itself ends in the database, whatever the cookie is worth.
    """

    def __init__(self) -> None:
        self.read = functools.lru_cache(maxsize=1024)(self._read)

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession:
        value = request.cookies.get(self.get_cookie_name(app))
        known = self.read(app, value, date.today()) if value else {}
        # Messages to be shown are a list, which a request may change: not the one that is kept.
        return self.session_class(known if "_flashes" not in known else copy.deepcopy(known))

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        # Flask's also says Vary: Cookie where a session was only read; these pages may not be kept by anybody.
        if session.modified:
            super().save_session(app, session, response)

    def _read(self, app: Flask, value: str, _day: date) -> dict[str, Any]:
        serializer = self.get_signing_serializer(app)
        assert serializer is not None, "config.py sees to a secret key"
        try:
            return serializer.loads(value, max_age=int(app.permanent_session_lifetime.total_seconds()))
        except BadSignature:
            return {}


# -- Logs --------------------------------------------------------------------------------------------------------------

LOG_BYTES, LOG_FILES = 5 * 2**20, 5


class PatientRotatingFileHandler(RotatingFileHandler):
    """Writes the lines of ordinary requests together, once a second, and warnings at once.

    Rotates when it can: on Windows not while another process has the file open, and then it writes on.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pending: list[logging.LogRecord] = []
        self.writing = False
        self.written = 0.0  # monotonic seconds
        self.records = 0
        self.timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != access_log.name:  # whose values never change; others' may until they are written
            record.msg, record.args = record.getMessage(), None
        self.pending.append(record)
        if record.levelno >= logging.WARNING or time.monotonic() - self.written > 1:
            self.write_pending()
        elif self.timer is None:
            self.timer = threading.Timer(1, self.write_pending)
            self.timer.daemon = True
            self.timer.start()

    def write_pending(self) -> None:
        """Give the disk what waits for it."""
        with self.lock or contextlib.nullcontext():
            records, self.pending = self.pending, []
            self.timer, self.written, self.writing = None, time.monotonic(), True
            for record in records:
                super().emit(record)  # on a full disk, say, a line is lost, not the request
            self.writing = False
            self.flush()

    def flush(self) -> None:
        if self.pending and not self.writing:
            self.write_pending()
        elif not self.writing:  # StreamHandler asks for it after each line
            with contextlib.suppress(OSError, ValueError):  # a full disk, or closed meanwhile
                super().flush()

    def close(self) -> None:
        self.flush()
        super().close()

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        # The inherited one formats each record a second time and asks the disk; a look now and then is enough.
        self.records += 1
        return self.records % 50 == 0 and bool(super().shouldRollover(record))

    def doRollover(self) -> None:
        if self.stream:
            self.stream.close()
            self.stream = None  # type: ignore[assignment]
        try:
            # To its own name: where another process has the file open, Windows refuses that, and nothing has moved yet.
            # The inherited one would move the older files first, time and again, until none of them is left.
            os.rename(self.baseFilename, self.baseFilename)
            super().doRollover()
        except OSError:
            if self.stream is None:
                self.stream = self._open()


class TextFormatter(logging.Formatter):
    """A readable line for each record, with the traceback below it."""

    second, said = 0, ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """The local time; the words for a second serve all of its records."""
        second = int(record.created)
        if second != self.second:  # both are set by whoever holds the handler's lock
            self.second, self.said = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self.said},{int(record.msecs):03d}"

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record)} {record.levelname} {record.name} {record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """A line of JSON for each record."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {"at": datetime.fromtimestamp(record.created, UTC).isoformat()}
        entry |= {
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": os.getpid(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def configure_logging(app: Flask) -> None:
    """Write to `DATA_DIR/logs/corkboard.log`, as text or JSON; the last application made in a process has the log."""
    folder = Path(app.config["DATA_DIR"]) / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    handler = PatientRotatingFileHandler(
        folder / "corkboard.log", maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", delay=True
    )
    handler.setFormatter(JsonFormatter() if app.config["LOG_FORMAT"] == "json" else TextFormatter())
    # What no line says need not be found out for each (Python's logging HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, PatientRotatingFileHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    for name in ("corkboard", "waitress", app.logger.name):
        logging.getLogger(name).setLevel(app.config["LOG_LEVEL"])
