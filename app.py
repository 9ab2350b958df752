"""Corkboard: the intranet of one small team, in one file.

 1. Constants and extensions  limits, security headers, roles, exceptions, Markdown, differences of texts
 2. Models                    SoftDelete, User, SignIn, VisitCount, Invitation, InvitationTopic, ResetLink,
                              RecoveryCode, ApiToken, Topic, TopicMember, Group, GroupMember, Post, Revision,
                              MustReadRole, MustReadPerson, Acknowledgement, Comment, Attachment, Reaction, Activity,
                              Follow, ReadMark, NotificationChoice, Notification, OutgoingMail, Setting, SearchEntry,
                              Throttle, JobRun
 3. Access                    passwords, sessions, `current_user`, `@public`, `@login_required`, `@role_required`
 4. Forms
 5. View helpers              lists, reactions, read marks, the sidebar, uploads, pictures
 6. Routes                    auth, account, posts, topics, people, files, search, notifications, admin
 7. JSON API                  api, docs, feeds, health
 8. Template filters and context  dates and times, cached parts of pages, assets
 9. Commands                  set-up, checks, search index, demo, email, jobs
10. Error handlers
11. create_app                request hooks

How a request is handled: `create_app` in section 11 has registered the hooks and blueprints. `@login_required` in
section 3 checks who is signed in. The view in section 6 reads what that person may see (through `Post.visible_to` or
one of the hot reads at the end of section 2), validates a form from section 4, calls one action of a model from
section 2, and responds. Only actions write. An action is one transaction (`@transactional` in database.py). It checks
the person's role and records an activity.
"""

from __future__ import annotations

import base64
import calendar
import contextlib
import csv
import errno
import functools
import hashlib
import hmac
import html
import io
import ipaddress
import itertools
import json
import logging
import math
import os
import platform
import posixpath
import re
import secrets
import shutil
import signal
import smtplib
import socket
import ssl
import sys
import tempfile
import threading
import time
import tomllib
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from dataclasses import fields as dataclass_fields
from datetime import UTC, date, datetime, timedelta
from email import policy
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from enum import IntEnum
from operator import attrgetter, itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, ClassVar, NamedTuple, Self, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import urlopen
from zoneinfo import ZoneInfo, available_timezones

import click
import jwt
import marshmallow as ma
import nh3
import pyotp
import segno
import sqlalchemy as sa
from diff_match_patch import diff_match_patch
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    flash,
    g,
    has_app_context,
    has_request_context,
    jsonify,
    make_response,
    redirect,
    render_template,
    request,
    send_file,
    send_from_directory,
    session,
    stream_with_context,
    url_for,
)
from flask.cli import AppGroup
from flask.typing import ResponseReturnValue
from flask_bootstrap import Bootstrap5
from flask_limiter import Limiter
from flask_smorest import Api
from flask_smorest import Blueprint as ApiBlueprint
from flask_smorest.fields import Upload
from flask_wtf import CSRFProtect, FlaskForm
from flask_wtf.csrf import CSRFError, generate_csrf
from itsdangerous import BadSignature, URLSafeSerializer
from jinja2 import StrictUndefined
from markdown_it import MarkdownIt, rules_block, rules_inline
from markdown_it.common.utils import normalizeReference
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markupsafe import Markup, escape
from marshmallow import fields, validate
from mdit_py_plugins.footnote import footnote_plugin
from mdit_py_plugins.footnote.index import footnote_def
from PIL import Image, ImageOps, ImageSequence, PngImagePlugin
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.registry import Collector
from pyotp.hotp import HOTP
from pyotp.totp import TOTP
from sqlalchemy.event import listens_for
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    Mapped,
    aliased,
    column_property,
    contains_eager,
    declared_attr,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    undefer,
)
from sqlalchemy.sql.operators import desc_op
from swagger_ui_bundle import swagger_ui_path
from webargs.flaskparser import FlaskParser
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.exceptions import HTTPException, ServiceUnavailable, TooManyRequests
from werkzeug.http import generate_etag
from werkzeug.local import LocalProxy
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import BaseConverter, IntegerConverter, Map
from werkzeug.security import check_password_hash, generate_password_hash
from wtforms import (
    BooleanField,
    DateField,
    DateTimeLocalField,
    EmailField,
    Field,
    FileField,
    Form,
    HiddenField,
    MultipleFileField,
    PasswordField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
    TelField,
    TextAreaField,
    validators,
)
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] (typeshed is older)
from wtforms.validators import AnyOf, DataRequired, EqualTo, InputRequired, Length, Optional, Regexp

import database
from config import (
    FLASK,
    MEGABYTE,
    PROJECT_DIR,
    Config,
    Finding,
    configure_logging,
    is_ip_address,
    is_safe_address,
    load,
    site_address,
    sqlite_path,
)
from config import config as configurations
from database import (
    BackupError,
    LongText,
    Timestamp,
    db,
    fold,
    sort_key,
    transactional,
    utcnow,
)

# ======================================================================================================================
# == 1. Constants and extensions =======================================================================================
# ======================================================================================================================

T = TypeVar("T")
Statement = sa.Select[*tuple[Any, ...]]

VERSION = "1.0.dev"

log = logging.getLogger("corkboard")
access_log = logging.getLogger("corkboard.access")

bootstrap = Bootstrap5()
csrf = CSRFProtect()

# Lengths in characters, for columns and forms.
USERNAME_MIN, USERNAME_MAX = 2, 32
NAME_MAX = 80
EMAIL_MAX = 254  # RFC 5321 section 4.5.3.1.3
PROFILE_MAX = 80
LOOKUP_MAX = 1000
PASSWORD_MIN, PASSWORD_MAX = 8, 256  # OWASP ASVS 5.0, 6.2.1 and 6.2.9
TITLE_MAX = 200
BODY_MAX = 100_000
COMMENT_MAX = 20_000
TOPIC_MAX = 60
DESCRIPTION_MAX = 300
EXCERPT_MAX = 280
WELCOME_MAX = 500
IMPORT_MOST = 5001  # lines of a list of people, the first of which names the columns
ANNOUNCEMENT_MAX = 300

USERNAME_PATTERN = r"[A-Za-z0-9](?:[A-Za-z0-9._\-]*[A-Za-z0-9])?"
EMAIL_PATTERN = r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+"
FORM_ID = re.compile(r"[0-9a-f]{32}")
ID = re.compile("[1-9][0-9]{0,9}")  # int() would also read 003, +3, 1_0 and the digits of other scripts

# The kinds of reactions, each with its emoji and its label.
REACTIONS = {
    "like": ("👍", "Like"),
    "love": ("❤️", "Love"),
    "cheer": ("🎉", "Hooray"),
    "laugh": ("😂", "Funny"),
    "look": ("👀", "Looking into it"),
    "done": ("✅", "Done"),
}

PAGE_SIZE = 20
PINNED_MAX = 5
REVIEW_MONTHS = (0, 3, 6, 12)
COMMENTS_PER_PAGE = 50
AUTOSAVES, AUTOSAVE_EVERY = 60, timedelta(seconds=2)  # the editor saves every 4 seconds at most
OWED_MOST = 20
AWAY_SHOWN, CHANGED_SHOWN, TOPICS_SHOWN = 5, 5, 16  # beside and above the lists
DAYS_APART = timedelta(days=2)  # time zones differ by up to 26 hours
LONG_AGO = datetime(2000, 1, 1)  # earlier than any post
REMIND_EVERY = timedelta(days=1)
NEW_FOR = timedelta(days=365)  # older posts are not new to anyone
TOLD_FOR = timedelta(days=90)  # how long notifications are kept after they are read
PAGE_LEVELS = 3  # how deep the pages of the handbook go
PAGES_MOST = 1000  # pages that are listed
UNPLACED = 1000  # the position of a page that nobody has put in order: after all others
PEOPLE_PER_PAGE = 200
QUERY_MAX = 100
FOUND_PEOPLE = 5
KNOWN_FROM, KNOWN_MOST = 300, 5000  # the things, and their words, among which a search looks for what was meant
SNIPPET_BEFORE, SNIPPET_AFTER = 80, 180  # characters around the first word that was found
SNIPPET_WITHIN = 20_000  # characters of HTML in which that word is looked for
ID_MAX = 2**31 - 1  # the largest INTEGER of MySQL

SIGN_IN_IDLE = timedelta(hours=12)
SIGN_IN_LIFETIME = timedelta(days=7)
SIGN_IN_REMEMBERED = timedelta(days=30)
VISIT_GAP = timedelta(minutes=30)  # a longer break ends a visit
VISIT_NOTED_EVERY = timedelta(minutes=5)  # the precision of "last used"

SCRYPT = "scrypt:32768:8:3"  # OWASP Password Storage Cheat Sheet; werkzeug's default is weaker
HASHES_AT_ONCE = 2  # each needs 32 MB of memory
HASH_WAIT_SECONDS = 10.0

RESET_FOR = timedelta(minutes=30)  # how long a link for a new password works
CODE_SECONDS = 30  # each code of an authenticator app is shown so long (RFC 6238)
CODE_WAIT = 600  # seconds between the password and the code, at most

# The most common passwords of eight or more characters, and some that people are likely to choose for this site.
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

SLOW_SECONDS = 1.0  # a request that takes longer is logged as a warning

STATIC_ENDPOINTS = frozenset({"static", "bootstrap.static", "docs.static"})
HUES = 6  # the colors of initials: see app.css

# Pages use no inline scripts or styles, nothing from other sites, no plugins and no frames.
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

# The types of files that people may upload. Pictures are decoded and encoded again. Of the others, browsers show only
# PDF. Types that a browser might run (HTML, SVG, scripts) are not allowed.
# Each ending of a picture has here what it is kept as: few browsers show HEIC, and to write AVIF takes very long.
PICTURES = {"jpg": "JPEG", "jpeg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP"}
PICTURES |= {"avif": "WEBP", "heic": "JPEG", "heif": "JPEG"}
PICTURES_READ = ["JPEG", "PNG", "GIF", "WEBP", "AVIF"]
OTHER_FILES = frozenset(
    """
    pdf txt md csv tsv log ics vcf rtf doc docx dot dotx odt ott pages xls xlsx xlsm xlt xltx ods ots numbers ppt pptx
    pps ppsx odp otp key odg vsd vsdx epub zip 7z gz tar tgz bz2 xz rar eml msg bmp tif tiff psd ai eps
    indd dwg dxf step stp stl gpx kml kmz mp3 m4a wav ogg flac opus mp4 m4v mov webm mkv avi
    """.split()  # noqa: SIM905
)
SHOWN_TYPES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "jpe": "image/jpeg", "jfif": "image/jpeg"}
SHOWN_TYPES |= {"png": "image/png", "gif": "image/gif", "webp": "image/webp", "pdf": "application/pdf"}
FILE_NAME_MAX = 255  # bytes of UTF-8: a limit of file systems
ENDING_MAX = 8
FILE_ENDPOINTS = frozenset({"files.show", "files.picture"})
POLL_ENDPOINT = "notifications.poll"
FEED_ENDPOINTS = frozenset({"feeds.atom", "feeds.calendar"})
# Browsers and feed readers may cache the response, and must revalidate it.
KEPT_ENDPOINTS = FILE_ENDPOINTS | FEED_ENDPOINTS | {POLL_ENDPOINT}
# A file may not run, load or frame anything. PDFs get no sandbox, because browsers show none in it. Scripts in a PDF
# cannot reach the site.
FILE_POLICY = "default-src 'none'; sandbox"
PDF_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

PICTURE_PIXELS = 50_000_000  # in all frames together. tests/bench/pictures.py measures the memory that they take
SCANS_MOST = 100  # in a JPEG, each of which takes as long as the whole picture. Progressive ones have ten
SIDE_MAX = 65_535  # pixels: as many as a JPEG can have. Each row takes memory, however short it is
FRAMES_MOST = 1_000  # in an animated picture
PICTURE_WAIT_SECONDS = 20
MEDIUM_PIXELS = 1600  # the longer side of pictures in texts: twice the width of a text, for sharp screens
THUMB_PIXELS = 480  # the longer side of thumbnails, which are shown at half that size
AVATAR_PIXELS = 128
LOGO_PIXELS = 320  # the longer side of the logo, which is shown at most 32 pixels high
FULL = (errno.ENOSPC, errno.EDQUOT)  # what the system says where there is no room on a disk
ORPHAN_AGE = timedelta(days=1)  # longer than any upload takes
UNUSED_AGE = timedelta(days=30)
INVITATION_AGE = timedelta(days=7)
TRASH_AGE = timedelta(days=30)  # what is deleted waits so long in the data folder's trash

Image.MAX_IMAGE_PIXELS = PICTURE_PIXELS
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY  # what is noted in a picture is left out, not judged
warnings.simplefilter("error", Image.DecompressionBombWarning)


class Role(IntEnum):
    """The roles. Each may do everything that the lower ones may do."""

    READER = 10
    MEMBER = 20
    EDITOR = 30
    ADMIN = 40

    @property
    def label(self) -> str:
        return self.name.capitalize()


class ValidationError(Exception):
    """A model's rule was broken. Forms show the message beside the field of that name."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


class NoRoom(ValidationError):
    """The disk is full, or cannot be written to."""


class EditConflict(Exception):
    """The text of a post was saved by somebody else, or in another tab, after this form was opened."""

    def __init__(self, post_id: int) -> None:
        super().__init__("the post was saved by somebody else in the meantime")
        self.post_id = post_id


class NotVisible(Exception):
    """A thing does not exist, or this person may not see it. The answer does not reveal which."""


class Forbidden(Exception):
    """This person may see a thing, but may not do this with it."""


# -- Text --------------------------------------------------------------------------------------------------------------

RENDERER_VERSION = 8  # raise it when the same source renders to different HTML, so that `rerender` updates old texts
LINKED_PARAGRAPH_MAX = 5000  # characters. The time to find addresses grows with the square of a paragraph's length
RENDER_STEPS_MOST = 20_000  # of the parser in one text. They take half a second or so
TOO_COMPLEX = "This text is too complex to show: it has too many short lines, table cells or marks. Split it up."
MENTIONS_MOST = 100  # in one text
LINKS_MOST = 500  # titles in one text that become links to pages
SUGGESTED_MOST = 8

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_CELL_ALIGNMENT = re.compile(r'<(t[hd]) style="text-align:(left|right|center)">')
_SPACES = re.compile(r"\s+")
_TASK = re.compile(r"\[([ xX])\](?=\s)")
# Word and Japanese keyboards put such a space after the mark of a heading or a list item.
_WIDE_SPACE = re.compile(
    r"^([ \t>]*(?:#{1,6}|[-*+]|\d{1,9}[.)]|[-*+] \[[ xX]\]))[\u00a0\u2000-\u200a\u202f\u3000]", re.M
)
# A path of Windows: \\server\share or C:\folder. Its backslashes do not escape what follows.
_PATH = re.compile(
    r"(?:(?<![\w\\])\\\\(?=[^\W_])|(?<=[A-Za-z]:)(?<!\w[A-Za-z]:)\\(?=[^\s\\]))[^\s<>\"|`]*[^\s<>\"|`*_~]"
)
_LINK_START = re.compile(r"\[(?!\s*\])(?![^\[\]]*\]\(\s*\))")
_REFERENCE = re.compile(r"\[((?:[^\[\]\\]|\\.){1,999})\](?!:)")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")
_PAGE_LINK = re.compile(r"(?<!\\)\[\[(?P<title>[^\[\]|\n]{1,200})(?:\|(?P<words>[^\[\]\n]{1,200}))?\]\]")
_CODE_OR_PAGE_LINK = re.compile(
    rf"(?<!`)(?P<ticks>`+)(?!`).{{1,1000}}?(?<!`)(?P=ticks)(?!`)|{_PAGE_LINK.pattern}", re.DOTALL
)
_HEADING = re.compile(r'<(h[2-6])((?: dir="auto")?)>(.*?)</\1>', re.DOTALL)
_PICTURES = re.compile(r'(?:<p[^>]*>(?:(?:<a href="/files/[^>]*>)?<img [^>]*>(?:</a>)?(?:<br>)?\s*)+</p>\s*)+')
_FILE_LINK = re.compile(r'<a href="/files/[^"]*"(?: [a-z]+="[^"]*")*>(.*?)</a>', re.DOTALL)
_PICTURE = re.compile(r'<img src="[^"]*" alt="([^"]*)"(?: [a-z]+="[^"]*")*>')
_OWN_FILE = re.compile(r"/files/([0-9]{1,9})/")
_OWN_PICTURE = re.compile(r"!\[(?:[^\[\]\\\n]|\\.)*\]\(/files/[0-9]{1,10}/[\w%.~-]+\)", re.ASCII)
_MENTION_LINK = re.compile(r'<a class="mention" href="/people/([^"]+)"')
EVERYONE = "everyone"  # the name after an @ by which editors call everybody
AT_SIGNS = "@＠﹫"  # the second is what Chinese and Japanese keyboards type
_MENTION = re.compile(f"(?<![{AT_SIGNS}])[{AT_SIGNS}]([A-Za-z0-9][A-Za-z0-9._-]{{0,66}}[A-Za-z0-9])(?![{AT_SIGNS}])")
_JOINERS = "._-+/\\=&#%"  # what joins the words of an address

# The boxes of task lists, unchecked and checked.
TASK_BOXES = (
    '<input type="checkbox" aria-label="To do" disabled>',
    '<input type="checkbox" aria-label="Done" disabled checked>',
)
ALLOWED_TAGS = set(
    """a blockquote br code em h2 h3 h4 h5 h6 hr img input li ol p pre s section strong sup table tbody td th thead tr
    ul""".split()  # noqa: SIM905
)
# The ids are those of footnotes. Nobody can write one, because HTML in a text is shown as it was typed.
ALLOWED_ATTRIBUTES = {
    "*": {"dir"},
    "a": {"href", "title", "id"},
    "code": {"class"},
    "li": {"id", "value"},
    "ol": {"start"},
    "th": {"align"},
    "td": {"align"},
    "img": {"src", "alt", "width", "height", "loading"},
}
ALLOWED_VALUES = {"input": {"type": {"checkbox"}, "disabled": {""}, "checked": {""}, "aria-label": {"Done", "To do"}}}
ALLOWED_CLASSES = {
    "a": {"bare", "footnote-backref", "mention", "missing"},
    "p": {"gallery"},
    "section": {"footnotes"},
}
# What a link may open, besides addresses of this site: pages, files on servers, mail, calls and meetings. None of these
# runs anything. `file:` is not among them, because browsers do not follow such a link from a site.
LINK_SCHEMES = set("http https ftp sftp smb mailto tel sms sip webcal msteams ms-teams".split())  # noqa: SIM905
_LINK_TARGET = re.compile(rf"(?:{'|'.join(LINK_SCHEMES)}):.|[/#]", re.IGNORECASE)
SANITIZER = nh3.Cleaner(
    tags=ALLOWED_TAGS,
    attributes=ALLOWED_ATTRIBUTES,
    tag_attribute_values=ALLOWED_VALUES,
    allowed_classes=ALLOWED_CLASSES,
    url_schemes=LINK_SCHEMES,
    link_rel="noopener noreferrer",
)


def make_parser() -> MarkdownIt:
    """Return a Markdown parser with our own rules."""
    parser = MarkdownIt("commonmark", {"html": False, "linkify": True, "breaks": True})
    parser.enable(["table", "strikethrough", "linkify"])
    parser.disable("lheading")  # the line under a signature or a word would make a heading of it
    parser.use(footnote_plugin, inline=False)
    parser.validateLink = lambda url: bool(_LINK_TARGET.match(url))  # type: ignore[method-assign]
    parser.normalizeLinkText = str  # type: ignore[method-assign,assignment]
    _find_addresses(parser.linkify)
    core, block, inline = parser.core.ruler, parser.block.ruler, parser.inline.ruler
    core.before("block", "preparation", _prepare)
    block.before("table", "step", _count_step, {"alt": ["paragraph", "blockquote", "list"]})
    block.at("reference", _first_needed(rules_block.reference))
    block.at("footnote_def", _first_needed(footnote_def), {"alt": ["paragraph"]})
    inline.before("text", "step", _count_step)
    inline.before("escape", "path", _path)
    inline.at("linkify", _link_address)
    inline.at("link", _link)
    inline.at("image", _own_picture)
    inline.before("link", "page_link", _page_link)
    inline.push("mention", _mention)
    for sign in AT_SIGNS:
        parser.inline.add_terminator_char(sign)
    for rule in (_mark_tasks, _level_headings, _keep_as_typed):
        core.after("inline", rule.__name__, rule)
    parser.add_render_rule("image", _render_picture)
    parser.add_render_rule("link_open", _render_link)
    parser.add_render_rule("link_close", _render_link)
    parser.add_render_rule("mention", _render_mention)
    return parser


def _find_addresses(linkify: Any) -> None:
    """Let an address become a link only if it begins with a scheme or `www.`: `setup.py` names no site."""
    # An address ends at white space, quotes, brackets that it does not open, and punctuation that is not ASCII. The
    # last character is not punctuation of the sentence around it.
    letter = rf"(?![\x00-\x7f]|{linkify.re['src_ZPCc']})."
    part = rf"(?:[!#-'*-;=?-Z_a-z~]|{letter})"
    group = rf"\({part}*\)"
    rest = rf"(?=[^\W_]|\[[0-9a-f:]+\])(?:\[[0-9a-f:]+\])?(?:{part}|{group})*(?:[A-Za-z0-9/#=&+%$@-]|{letter}|{group})"
    linkify.add("http:", {"validate": re.compile(f"^//{rest}")}).add("smb:", "http:").add("//", None)
    linkify.add("www.", {"validate": re.compile(f"^{rest}"), "normalize": _complete_address})
    linkify.set({"fuzzy_link": False})
    pretest = linkify.pretest
    linkify.pretest = lambda text: len(text) <= LINKED_PARAGRAPH_MAX and pretest(text)


def _complete_address(_linkify: Any, match: Any) -> None:
    match.url = f"http://{match.url}"


def _prepare(state: StateCore) -> None:
    """Let any space stand after the mark of a heading or a list item. Note which names in brackets a text refers to."""
    state.src = _WIDE_SPACE.sub(r"\1 ", state.src)
    state.env["steps"], state.env["needed"] = 0, {*map(normalizeReference, _REFERENCE.findall(state.src))}


def _count_step(state: StateBlock | StateInline, *_place: Any) -> bool:
    """Count the steps of the parser, which bounds its time. Raises `ValidationError` after too many."""
    state.env["steps"] += 1
    if state.env["steps"] > RENDER_STEPS_MOST:
        raise ValidationError("body", TOO_COMPLEX)
    return False


def _first_needed(rule: Callable[..., bool]) -> Callable[..., bool]:
    """Return a rule for definitions such as `[name]: address`. It takes the first of a name to which the text refers.

    The others stay as they were typed: nothing that somebody wrote may disappear.
    """

    def parse(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        line = state.getLines(start, start + 1, state.blkIndent, False)
        name = normalizeReference(line.strip().partition("]:")[0][1:])
        is_taken = name in state.env["needed"] and rule(state, start, end, silent)
        state.env["needed"] -= {name} if is_taken and not silent else set()
        return is_taken

    return parse


def _link_address(state: StateInline, silent: bool) -> bool:
    """Parse an address without any markup."""
    return len(state.src) <= LINKED_PARAGRAPH_MAX and rules_inline.linkify(state, silent)


def _path(state: StateInline, _silent: bool) -> bool:
    """Parse a path of Windows, which is shown as it was typed."""
    if match := _PATH.match(state.src, state.pos):
        state.pending += match[0]
        state.pos = match.end()
    return bool(match)


def _link(state: StateInline, silent: bool) -> bool:
    """Parse a link that has words and an address. Others stay as they were typed."""
    return bool(_LINK_START.match(state.src, state.pos)) and rules_inline.link(state, silent)


def _own_picture(state: StateInline, silent: bool) -> bool:
    """Parse a picture that was uploaded here. A picture on another site would tell that site who reads this one."""
    return bool(_OWN_PICTURE.match(state.src, state.pos)) and rules_inline.image(state, silent)


def _page_link(state: StateInline, silent: bool) -> bool:
    """Parse `[[Title]]`, where no such page existed when the text was saved, as a link that finds or creates the page.

    When the page exists, `link_pages` replaces the title by a plain link as the text is saved.
    """
    match = _PAGE_LINK.match(state.src, state.pos)
    title = tidy(match["title"]) if match else ""
    if not match or not title or state.linkLevel:
        return False
    if not silent:
        link = state.push("link_open", "a", 1)
        link.attrs = {"href": f"/pages?title={quote(title, safe='')}", "class": "missing"}
        state.push("text", "", 0).content = tidy(match["words"]) or title
        state.push("link_close", "a", -1)
    state.pos = match.end()
    return True


def _mention(state: StateInline, silent: bool) -> bool:
    """Parse a username after an @, but not within a word, an address or a link."""
    match = _MENTION.match(state.src, state.pos)
    if not match or state.linkLevel or _is_in_word(state.src[match.end() : match.end() + 40].lstrip("._-")[:1]):
        return False
    after_mention = any(token.type == "mention" for token in state.tokens[-2:]) and not state.pending.strip(_JOINERS)
    if not after_mention and _is_in_word(state.src[max(0, state.pos - 40) : state.pos].rstrip(_JOINERS)[-1:]):
        return False
    if not silent:
        state.push("mention", "", 0).content = match[0]
    state.pos = match.end()
    return True


def _is_in_word(char: str) -> bool:
    """Return whether a character makes what stands beside it a part of a longer name, word or address.

    Only digits and letters with upper and lower case do. Beside others, such as Chinese ones, people type no space.
    """
    return unicodedata.category(char or " ") in ("Lu", "Ll", "Lt", "Nd")


def _mark_tasks(state: StateCore) -> None:
    """Replace `[ ]` or `[x]` at the start of a list item by a checkbox."""
    for item, paragraph, inline in zip(state.tokens, state.tokens[1:], state.tokens[2:], strict=False):
        if (item.type, paragraph.type) != ("list_item_open", "paragraph_open") or not inline.children:
            continue
        first = inline.children[0]
        match = _TASK.match(first.content) if first.type == "text" else None
        if match:
            first.content = first.content[match.end() :]
            inline.children.insert(0, Token("html_inline", "", 0, content=TASK_BOXES[match[1] != " "]))


def _level_headings(state: StateCore) -> None:
    """Start headings at h2, because the page's title is the h1, and skip no level (WCAG 2.2, 1.3.1)."""
    above: list[int] = []  # the levels, in the source, of the headings above this one
    for token in state.tokens:
        if token.type == "heading_open":
            level = int(token.tag[1])
            above = [higher for higher in above if higher < level] + [level]
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(len(above) + 1, 6)}"


def _keep_as_typed(state: StateCore) -> None:
    """Show the numbers of a list as they were typed, and let each block run in the direction of its first letter."""
    has_directions = _RIGHT_TO_LEFT.search(state.src)
    for token in state.tokens:
        if token.type == "list_item_open" and token.info:
            token.attrSet("value", token.info)
        if has_directions and token.level == 0 and token.nesting == 1:
            token.attrSet("dir", "auto")


def _render_picture(renderer: Any, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
    """Render a picture, with its size if that is known, so that the page does not move when the picture loads."""
    children = tokens[place].children or []
    for token in children:
        token.type = "text" if token.type == "mention" else token.type  # a description mentions nobody
    source, alt = str(tokens[place].attrGet("src")), renderer.renderInlineAsText(children, options, env)
    number = _OWN_FILE.match(source)
    size = env["sizes"].get(int(number[1])) if number else None
    dimensions = Markup(' width="{}" height="{}"').format(*size) if size else ""
    shown = f"/files/{number[1]}/medium" if number and size and max(size) > MEDIUM_PIXELS else source
    image = Markup('<img src="{}" alt="{}"{} loading="lazy">').format(shown, alt, dimensions)
    # A picture links to its full size, unless it is within a link or has no description to name that link.
    return Markup('<a href="{}">{}</a>').format(source, image) if number and alt and not env.get("in_link") else image


def _render_link(renderer: Any, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
    """Render a link. If its text is its address, it has the class `bare`, and print shows the address only once."""
    env["in_link"] = tokens[place].type == "link_open"
    if tokens[place].info == "auto":
        tokens[place].attrSet("class", "bare")
    return renderer.renderToken(tokens, place, options, env)


def _render_mention(_renderer: Any, tokens: Sequence[Token], place: int, _options: Any, env: Any) -> str:
    """Render a name as it was typed, as a link if it calls somebody."""
    typed = tokens[place].content
    is_known = fold(typed[1:]) in env["people"]
    return f'<a class="mention" href="/people/{typed[1:]}">{typed}</a>' if is_known else typed


def _names_in(tokens: Iterable[Token]) -> set[str]:
    inner = (child for token in tokens for child in token.children or () if child.type == "mention")
    return {fold(child.content[1:]) for child in itertools.islice(inner, MENTIONS_MOST)}


def mentioned_names(html: str) -> set[str]:
    """Return the folded names that a rendered text mentions: of people, groups and topics."""
    return {fold(name) for name in _MENTION_LINK.findall(html)}


def code_blocks(source: str) -> Iterator[tuple[bool, str]]:
    """Yield a Markdown source in parts. The flag of a part says whether it is a code block or blank."""
    code: set[int] = set()
    for token in MARKDOWN.parse(source):
        if token.map and token.type in ("fence", "code_block"):
            code.update(range(*token.map))
    lines = enumerate(_LINE.findall(source))
    for is_code, block in itertools.groupby(lines, key=lambda line: line[0] in code or not line[1].strip()):
        yield is_code, "".join(text for _number, text in block)


def escape_markdown(text: str) -> str:
    """Return a text escaped, so that Markdown shows it unchanged, even within a link."""
    return re.sub(r"([\[\]*_`<>!&~|]|\\(?=[!-/:-@\[-`{-~]|\Z))", r"\\\1", text)


def render_markdown(
    source: str,
    sizes: Mapping[int, tuple[int, int]] | None = None,
    people: Callable[[set[str]], Iterable[str]] = lambda _names: (),
) -> str:
    """Return the sanitized HTML of a Markdown source.

    `sizes` maps the ids of pictures to their width and height. `people` takes folded names, and returns those that
    call somebody. Raises `ValidationError` for a text that is too complex.
    """
    # Footnotes of several texts on one page need different ids.
    env: dict[str, Any] = {"docId": secrets.token_hex(4)}
    tokens = MARKDOWN.parse(source, env)
    names = _names_in(tokens)
    env |= {"sizes": sizes or {}, "people": set(people(names)) if names else set()}
    rendered = MARKDOWN.renderer.render(tokens, MARKDOWN.options, env)
    return _PICTURES.sub(_as_gallery, SANITIZER.clean(_CELL_ALIGNMENT.sub(r'<\1 align="\2">', rendered)))


def _as_gallery(paragraphs: re.Match[str]) -> str:
    """Return paragraphs of nothing but pictures as one with the class `gallery`, if there are several pictures."""
    if paragraphs[0].count("<img") == 1:
        return paragraphs[0]
    return '<p class="gallery">' + re.sub(r"</?p[^>]*>|<br>|\n", "", paragraphs[0]) + "</p>\n"


def plain_text(rendered: str, length: int = EXCERPT_MAX) -> str:
    """Return the text of rendered HTML as one line of at most `length` characters, cut between words."""
    separated = _CELL_END.sub(", ", _BLOCK_END.sub(" ", _ASIDE.sub("", rendered)))
    separated = _NUMBER.sub(r"\1. ", _ITEM_END.sub(" · ", separated))  # list items seldom end with a full stop
    text = _SPACES.sub(" ", html.unescape(_TAG.sub("", separated))).strip(" ·")
    if len(text) <= length:
        return text
    return text[: length - 1].rsplit(" ", 1)[0].rstrip(",;:.") + "…"


_BLOCK_END = re.compile(r"</(?:p|h\d|pre|blockquote)>|<br>")
_ITEM_END = re.compile(r"</(?:li|tr)>\s*(?:</?t(?:head|body)>\s*)*(?=<(?:li|tr))")
_CELL_END = re.compile(r"</t[hd]>\s*(?=<t[hd])")
_NUMBER = re.compile(r'<li value="(\d+)">')
_SHOWN = re.compile(r'<(?:img|input) [^>]*?(?:alt|aria-label)="([^"]*)"[^>]*>')  # pictures and boxes, by their names
# What nobody reads in a line: empty cells, the marks of footnotes, and the links back to them.
_ASIDE = re.compile(r'<t[hd][^>]*></t[hd]>|<sup>.*?</sup>|<a [^>]*class="footnote-backref"[^>]*>[^<]*</a>')
# A pattern can remove the tags, because sanitized HTML has no comments or scripts, and each < begins a tag. A quoted
# value may contain a >, and the last tag may be cut off.
_TAG = re.compile(r'<(?:[^>"]|"[^"]*(?:"|\Z))*(?:>|\Z)')

HEADINGS_MOST = 300  # headings in one text that get an id


class Heading(NamedTuple):
    """A heading of a text: its id, its words and its level."""

    id: str
    words: str
    level: int


def shown_lines(rendered: str) -> str:
    """Return the text of rendered HTML line by line, as people read it."""
    text = _CELL_END.sub(" | ", _NUMBER.sub(r"\1. ", _SHOWN.sub(r"[\1]", rendered)))
    return re.sub(r"\s*\n\s*", "\n", html.unescape(_TAG.sub("", text)))


def outlined(rendered: str) -> tuple[str, tuple[Heading, ...]]:
    """Give each heading of rendered HTML an id and a link to itself. Returns the HTML and the headings.

    The sanitizer removes all ids from a text. The new ones begin with `s-`, so that they differ from ids of the page.
    """
    headings: dict[str, Heading] = {}

    def add_anchor(match: re.Match[str]) -> str:
        if len(headings) == HEADINGS_MOST:  # the time to find free ids grows with the square of their number
            return match[0]
        tag, direction, inside = match.groups()
        words = plain_text(inside, TITLE_MAX)
        slug = "s-" + (re.sub(r"\W+", "-", sort_key(words, TOPIC_MAX)).strip("-") or "part")
        name, number = slug, 1
        while name in headings:
            number += 1
            name = f"{slug}-{number}"
        headings[name] = Heading(name, words, int(tag[1]))
        linked = inside if "<a " in inside else f'<a class="anchor" href="#{name}">{inside}</a>'
        return f'<{tag}{direction} id="{name}">{linked}</{tag}>'

    anchored = _HEADING.sub(add_anchor, rendered)
    return anchored, tuple(headings.values())


# Characters that nobody sees, those that turn the direction of writing among them.
_INVISIBLE = re.compile(
    "[\x80-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u2800"
    "\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e001f\U000e0080-\U000e00ff"
    "\U000e01f0-\U000e0fff]"
)
# Joiners and variants of signs count only within an emoji or a word of a script that uses them (Persian, Hindi).
_STRAY_JOINER = re.compile(
    "(?<![0-9#*©®\u0590-\U0010ffff])[\u200c\u200d\ufe00-\ufe0f\U000e0020-\U000e007f\U000e0100-\U000e01ef]+"
    "|[\u200c\u200d]+(?![\u0590-\U0010ffff])"
)


def tidy(text: str | None) -> str:
    """Return a text as one line in NFC, without control and invisible characters and needless spaces."""
    line = _SPACES.sub(" ", unicodedata.normalize("NFC", _CONTROL.sub("", text or "")))
    seen = _STRAY_JOINER.sub("", _INVISIBLE.sub("", line))
    return _SPACES.sub(" ", unicodedata.normalize("NFC", seen)).strip()


def tidy_text(text: str | None) -> str:
    """Return a text of several lines in NFC, with \\n as line end, without control characters and outer blank lines."""
    lines = (text or "").replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", _CONTROL.sub("", lines)).strip("\n").rstrip()


_RESERVED_NAME = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(?![^. ])", re.IGNORECASE)


def tidy_filename(given: str | None) -> str:
    """Return a file name that every operating system accepts and that does not disguise its type.

    It has no folders, no control characters, no marks that reverse the writing direction, and no name or character that
    Windows reserves. It has at most 255 bytes, and its ending is in lower case.
    """
    bare = re.split(r"[/\\]", given or "")[-1]
    whole = re.sub(r'[<>:"|?*]', "_", tidy(bare)).strip(" .")
    stem, _, ending = whole.rpartition(".")
    if not stem or len(ending) > ENDING_MAX:
        stem, ending = whole, ""
    ending = f".{ending.strip().lower()}" if ending.strip() else ""
    stem = stem.rstrip(" .").encode()[: FILE_NAME_MAX - len(ending.encode()) - 1].decode(errors="ignore").rstrip(" .")
    return (f"_{stem}" if _RESERVED_NAME.match(stem) else stem or "file") + ending


def slugify(text: str) -> str:
    """Return the slug of a topic's name: lower-case ASCII letters, digits and hyphens, or 'topic' if none are left."""
    bare = re.sub(r"[^a-z0-9]+", "-", sort_key(text)).strip("-")
    return bare[:TOPIC_MAX].strip("-") or "topic"


MARKDOWN = make_parser()


# -- Differences -------------------------------------------------------------------------------------------------------

# Texts are compared by lines, and changed lines by words. Chinese and Japanese have no spaces, and are compared by
# characters.
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_WORD = re.compile(r"\n|[^\S\n]+|[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|(?s:.)")
COMPARE_SECONDS = 0.3  # after that, the difference is shown in larger pieces
LINES_AROUND = 2  # unchanged lines that are shown before and after a change
PIECE_HTML = {
    "same": Markup("{text}"),
    "folded": Markup('<span class="fold">… {text} unchanged …</span>'),
    "added": Markup('<ins{blank}><span class="visually-hidden">added: </span>{text}</ins>'),
    "removed": Markup('<del{blank}><span class="visually-hidden">removed: </span>{text}</del>'),
}


class Piece(NamedTuple):
    """A piece of the difference between two texts.

    Its kind is "same" for text in both, "added" for text only in the new one, and "removed" for text only in the old
    one. A "folded" piece stands for unchanged lines that are not shown, and its text says how many there are.
    """

    kind: str
    text: str


def compare_texts(old: str, new: str) -> list[Piece]:
    """Return the difference between two texts as pieces in order. All but the added ones make up the old text."""
    deadline = time.monotonic() + COMPARE_SECONDS
    parts: list[tuple[str, str]] = []
    for removed, added, same in _runs(_LINE, old, new, deadline):
        for run in _runs(_WORD, removed, added, deadline):
            parts += zip(("removed", "added", "same"), run, strict=True)
        parts.append(("same", same))
    by_kind = itertools.groupby((part for part in parts if part[1]), key=itemgetter(0))
    return [Piece(kind, "".join(text for _kind, text in group)) for kind, group in by_kind]


def _runs(pattern: re.Pattern[str], old: str, new: str, deadline: float) -> Iterator[tuple[str, str, str]]:
    """Yield, for each change, the text removed, the text added, and the unchanged text that follows."""
    codes: dict[str, str] = {}
    # The library compares characters, so a character stands for each different word or line.
    old_code, new_code = (
        "".join(codes.setdefault(part, _character(len(codes))) for part in pattern.findall(text)) for text in (old, new)
    )
    parts = {character: part for part, character in codes.items()}
    differ = diff_match_patch()
    differ.Diff_Timeout = max(deadline - time.monotonic(), 0.001)
    changes = differ.diff_main(old_code, new_code, False)
    removed = added = ""
    for place, (change, characters) in enumerate(changes):
        text = "".join(parts[character] for character in characters)
        is_gap = text.isspace() and "\n" not in text and 0 < place < len(changes) - 1  # between two changed words
        if change == 0 and not is_gap:
            yield removed, added, text
            removed = added = ""
        else:
            removed += text if change <= 0 else ""
            added += text if change >= 0 else ""
    yield removed, added, ""


def _character(number: int) -> str:
    """Return a different character for each number, but no surrogate."""
    return chr(number if number < 0xD800 else number + 0x800)


def fold_unchanged(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yield the pieces. Of a long unchanged one, only the lines next to a change are left."""
    last = len(pieces) - 1
    for place, piece in enumerate(pieces):
        lines = _LINE.findall(piece.text) if piece.kind == "same" else []
        before, after = LINES_AROUND * (place > 0), LINES_AROUND * (place < last)
        hidden = len(lines) - before - after
        if hidden <= LINES_AROUND:
            yield piece
        else:
            yield Piece("same", "".join(lines[:before]))
            yield Piece("folded", plural(hidden, "line"))
            yield Piece("same", "".join(lines[before + hidden :]))


def difference(old: str, new: str) -> Markup:
    """Return the difference between two texts as HTML, with words for screen readers. It is empty for equal texts."""
    if old == new:
        return Markup()
    return Markup().join(
        PIECE_HTML[kind].format(text=text, blank=Markup("" if text.strip() else ' class="blank"'))
        for kind, text in fold_unchanged(compare_texts(old, new))
    )


# ======================================================================================================================
# == 2. Models =========================================================================================================
# ======================================================================================================================

# Parameters of statements that ask what a person may see: the person's id, and two times.
VIEWER = sa.bindparam("viewer", type_=sa.Integer)
NOW = sa.bindparam("now", type_=Timestamp)
SINCE = sa.bindparam("since", type_=Timestamp)  # the viewer's last visit
# What a statement is about, and who acts.
POST_ID, TOPIC_ID, ACTOR_ID = (sa.bindparam(name, type_=sa.Integer) for name in ("post_id", "topic_id", "actor_id"))


class RoleType(sa.TypeDecorator[Role]):
    """A role, stored as its number, so that SQL can compare roles."""

    impl = sa.SmallInteger
    cache_ok = True

    def process_bind_param(self, value: Role | None, dialect: Any) -> int | None:
        return None if value is None else int(value)

    def process_result_value(self, value: int | None, dialect: Any) -> Role | None:
        return None if value is None else Role(value)


def one_visible(statement: sa.Select[T]) -> T:
    """Return what a statement selects, as it is now, as part of an action. Raises `NotVisible` if that is nothing."""
    found = db.session.scalar(statement.execution_options(populate_existing=True))
    if found is None:
        raise NotVisible
    return found


class SoftDelete:
    """Mixin of models with a recycle bin, from which a row is restored or permanently removed.

    A model defines `reachable`, the condition that the `viewer` may see a row, deleted or not, and `editable_by`, which
    says who may change it.
    """

    id: Any
    reachable: Any
    editable_by: Any
    deleted_at: Mapped[datetime | None]
    deleted_by_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id", ondelete="SET NULL"))

    @declared_attr
    def deleted_by(cls: Any) -> Mapped[User | None]:
        return relationship("User", foreign_keys=[cls.deleted_by_id])

    @classmethod
    def visible(cls) -> sa.ColumnElement[bool]:
        """Return the condition that the `viewer` may see a thing."""
        return sa.and_(cls.deleted_at.is_(None), cls.reachable())

    @classmethod
    def visible_to(cls, user: User) -> sa.Select[Self]:
        """Select the things that a person may see."""
        return cls.reachable_to(user).where(cls.deleted_at.is_(None))

    @classmethod
    def reachable_to(cls, user: User) -> sa.Select[Self]:
        """Select the things that a person may see, and those that they could see if they were not deleted."""
        return sa.select(cls).where(cls.reachable()).params(viewer=user.id)

    @classmethod
    def lock_reachable(cls, user: User, thing_id: int) -> Self:
        """Lock and return a thing that a person may see, deleted or not, as part of an action. Raises `NotVisible`."""
        db.session.execute(sa.select(cls.id).filter_by(id=thing_id).with_for_update())
        return one_visible(cls.reachable_to(user).where(cls.id == thing_id))

    @classmethod
    def get_for_change(cls, actor: User, thing_id: int, needs: Role = Role.READER, deleted: bool = False) -> Self:
        """Lock and return a thing that this person may change. With `deleted`, it may be in the recycle bin.

        Raises `NotVisible` if they may not see it, and `Forbidden` if they may not change it.
        """
        user = User.acting(actor.id, needs)
        thing = cls.lock_reachable(user, thing_id)
        if thing.deleted_at and not (deleted and thing.editable_by(user)):
            raise NotVisible
        if not thing.editable_by(user) or (thing.deleted_at and not user.may_restore(thing)):
            raise Forbidden
        return thing

    @classmethod
    @transactional
    def delete(cls, actor: User, thing_id: int) -> Self:
        """Move a thing to the recycle bin, if it is not there. Returns it. Raises what `get_for_change` raises."""
        return cls._set_deleted(actor, thing_id, True)

    @classmethod
    @transactional
    def restore(cls, actor: User, thing_id: int) -> Self:
        """Restore a thing, if it is in the recycle bin. Returns it. Raises what `get_for_change` raises."""
        return cls._set_deleted(actor, thing_id, False)

    @classmethod
    def _set_deleted(cls, actor: User, thing_id: int, deleted: bool) -> Self:
        thing = cls.get_for_change(actor, thing_id, deleted=True)
        if (thing.deleted_at is not None) != deleted:
            thing.deleted_at, thing.deleted_by_id = (utcnow(), actor.id) if deleted else (None, None)
            thing.after_deletion()
            Activity.record(actor, f"{cls.__name__.lower()}.{'deleted' if deleted else 'restored'}", thing)
        return thing

    def after_deletion(self) -> None:
        """Do what a model needs after a thing was deleted or restored. Models override this."""


# -- People ------------------------------------------------------------------------------------------------------------


# The columns that people fill in about themselves, and by which others find them.
PROFILE_FIELDS = ("title", "department", "phone", "location")
FORMER_COLLEAGUE = "Former colleague"  # the name of everyone who was erased
VERSION_SUFFIXES = ("", ".medium", ".thumb")  # of a file on the disk: see `store_versions`


class User(db.Model):
    """A person of the team. People are deactivated and never deleted, so that what they wrote keeps its author."""

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
    away_from: Mapped[date | None]  # None if the absence has already begun
    away_until: Mapped[date | None] = mapped_column(index=True)
    stand_in_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id", ondelete="SET NULL"))
    theme: Mapped[str] = mapped_column(sa.String(8), default="system")
    timezone: Mapped[str] = mapped_column(sa.String(64), default="")
    shortcuts: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    deactivated_at: Mapped[datetime | None]
    previous_visit_at: Mapped[datetime | None]
    last_active_at: Mapped[datetime | None]
    must_change_password: Mapped[bool] = mapped_column(default=False)  # somebody else made the present one
    totp_secret: Mapped[str | None] = mapped_column(sa.String(64))  # None without two-step sign-in (RFC 6238)
    totp_step: Mapped[int] = mapped_column(default=0)  # of the last code that was accepted: no code works twice
    identity: Mapped[str | None] = mapped_column(sa.String(64), unique=True)  # hash of issuer and subject (OpenID)
    awaits_approval: Mapped[bool] = mapped_column(default=False)  # until then, `deactivated_at` is set as well
    erased_at: Mapped[datetime | None]
    picture_id: ClassVar[Any]  # a column property, defined in "Hot reads", as is the next
    second_factor_role: ClassVar[Any]  # the site's setting, which each request of a person needs
    stand_in: Mapped[User | None] = relationship(remote_side=id)

    # -- queries

    @classmethod
    def by_username(cls, username: str) -> User | None:
        """Return the person with a username or email address, in upper or lower case, or None."""
        key = fold(username)
        return db.session.scalar(sa.select(cls).where(sa.or_(cls.username_key == key, cls.email_key == key)))

    @classmethod
    def visible_to(cls, user: User) -> sa.Select[Self]:
        """Select the people whom a person may see: the active ones, and for administrators all."""
        return sa.select(cls) if user.is_admin else sa.select(cls).where(cls.is_active)

    @classmethod
    def active(cls) -> sa.Select[Self]:
        """Select the active people by name."""
        return sa.select(cls).where(cls.is_active).order_by(cls.name_key, cls.id)

    @classmethod
    def acting(cls, user_id: int, needs: Role = Role.READER) -> User:
        """Lock and return the person who acts. Raises `Forbidden` if they are not active or lack the role."""
        user = db.session.get(cls, user_id, with_for_update={"read": True}, populate_existing=True)
        if user is None or not user.is_active or user.role < needs:
            raise Forbidden
        return user

    @classmethod
    def exists(cls) -> bool:
        """Whether the site has any person."""
        return db.session.scalar(sa.select(cls.id).limit(1)) is not None

    @classmethod
    def usernames_among(cls, names: Iterable[str]) -> set[str]:
        """Return those of some folded usernames that belong to active people."""
        active = sa.select(cls.username_key).where(cls.username_key.in_(names), cls.is_active)
        return set(db.session.scalars(active))

    @classmethod
    def matching(cls, query: str) -> sa.ColumnElement[bool]:
        """Return the condition that all words of a query are in a person's name, username, profile or email."""
        words = [word.partition("@")[0] for word in sort_key(query).split()]  # everybody shares the email domain
        return sa.and_(sa.true(), *(cls.lookup.contains(word, autoescape=True) for word in words))

    @classmethod
    def sees(cls, topic_id: int | None) -> sa.ColumnElement[bool]:
        """Return the condition that a person sees a topic. Without a topic, everybody does."""
        return sa.exists().where(Topic.id == topic_id, Topic.visible(cls)).correlate(cls) if topic_id else sa.true()

    @classmethod
    def suggested(cls, user: User, typed: str, topic_id: int | None) -> Sequence[Any]:
        """Return people whose name or username begins with what was typed, first those who see the topic."""
        name, sees = sort_key(typed), cls.sees(topic_id).label("sees")
        begins = (cls.name_key.startswith(name, autoescape=True), cls.name_key.contains(f" {name}", autoescape=True))
        matches = sa.or_(*begins, cls.username_key.startswith(fold(typed), autoescape=True))
        others = sa.select(cls.id, cls.name, cls.username, cls.picture_id, sees).where(cls.is_active, cls.id != user.id)
        statement = others.where(matches).order_by(sees.desc(), cls.name_key, cls.id).limit(SUGGESTED_MOST)
        return db.session.execute(statement).all()

    @classmethod
    def unable_to_see(cls, topic: Topic, usernames: Iterable[str]) -> Sequence[str]:
        """Return the names of the active people with these folded usernames who do not see a topic."""
        active = sa.select(cls.name).where(cls.username_key.in_(usernames), cls.is_active)
        return db.session.scalars(active.where(~cls.sees(topic.id)).order_by(cls.name_key)).all()

    # -- predicates

    @hybrid_property
    def is_active(self) -> bool:
        """Whether this person can sign in. In a statement, this is a condition on the row."""
        return self.deactivated_at == None  # noqa: E711 (in a statement this means IS NULL)

    @property
    def may_write(self) -> bool:
        """Whether this person may write news and comments."""
        return self.role >= Role.MEMBER

    @property
    def is_editor(self) -> bool:
        return self.role >= Role.EDITOR

    @property
    def is_admin(self) -> bool:
        return self.role >= Role.ADMIN

    def may_write_kind(self, kind: str) -> bool:
        """Whether this person may write a post of a kind: "news", or "page" for the handbook."""
        return self.is_editor if kind == "page" else self.may_write

    def may_restore(self, thing: Any) -> bool:
        """Whether this person may restore a deleted thing: editors any, others only what they deleted."""
        return self.is_editor or thing.deleted_by_id == self.id

    def can_edit(self, post: Any) -> bool:
        """Whether this person may change a post that they see: editors any, members only their own news."""
        return self.is_editor or (self.may_write and post.kind == "news" and post.author_id == self.id)

    def can_review(self, page: Any) -> bool:
        """Whether this person may confirm that a handbook page is still accurate."""
        return page.kind == "page" and (self.can_edit(page) or page.owner_id == self.id)

    def can_see_report(self, post: Any) -> bool:
        """Whether this person sees who has read a post: its author and editors do."""
        return self.is_editor or post.author_id == self.id

    @property
    def zone(self) -> ZoneInfo:
        """The time zone that this person chose, or the site's."""
        return zone_of(self.timezone)

    @property
    def new_since(self) -> datetime:
        """The end of this person's last visit. Later posts are new to them. On a first visit, none are."""
        is_back = self.last_active_at is not None and utcnow() - self.last_active_at > VISIT_GAP
        last_visit = self.last_active_at if is_back else self.previous_visit_at
        return max(last_visit, utcnow() - NEW_FOR) if last_visit else datetime.max

    # -- actions

    @classmethod
    @transactional
    def create(cls, actor: User | None, *, password_hash: str, role: Role = Role.MEMBER, **profile: Any) -> Self:
        """Create a person, and return them. `actor` is None if they sign up themselves, or set up the site.

        Somebody whom an actor creates has to change their password at the first sign-in. Somebody who has to wait for
        approval is not active until then, and the administrators get an email.
        Raises `ValidationError` if somebody else has the username or email address.
        """
        Setting.lock()
        if actor is not None:
            cls.acting(actor.id, Role.ADMIN)
        user = cls(password_hash=password_hash, role=role, must_change_password=actor is not None)
        user._fill_in(**profile)
        db.session.add(user)
        if user.awaits_approval:
            user.deactivated_at = utcnow()
            for admin_user in db.session.scalars(cls.active().where(cls.role == Role.ADMIN)):
                OutgoingMail.tell(admin_user, "waiting")
        action = "person.added" if actor else "person.joined"
        Activity.record(actor or user, "person.asked" if user.awaits_approval else action, user, user.username)
        return user

    @classmethod
    @transactional
    def create_listed(cls, actor: User, people: Sequence[Mapping[str, Any]], by_email: bool) -> None:
        """Create all people of a list, or none. They have no password yet, and may get an email about that.

        Raises `ValidationError` if somebody (or a group) has one of the usernames or email addresses by now.
        """
        Setting.lock()  # people and groups share their names
        cls.acting(actor.id, Role.ADMIN)
        users = [cls(password_hash=NO_PASSWORD, must_change_password=True) for _ in people]
        for user, profile in zip(users, people, strict=True):
            user._set_profile(**profile)
        try:
            db.session.add_all(users)  # in few statements
            db.session.flush()
            is_taken = count_of(Group, Group.name_key.in_([user.username_key for user in users])) > 0
        except IntegrityError:
            is_taken = True
        if is_taken:
            raise ValidationError("text", "One of these names or addresses is taken by now. Check the list again.")
        for user in users:
            Activity.record(actor, "person.added", user, user.username)
            if by_email:
                OutgoingMail.tell(user, "welcome")

    @classmethod
    @transactional
    def decline(cls, actor: User, user_id: int) -> None:
        """Delete a person who waits for approval, and has written nothing. Raises `NotVisible` if nobody waits."""
        user = cls._get_for_change(actor, user_id)
        if not user.awaits_approval:
            raise NotVisible
        Activity.record(actor, "person.declined", user)
        db.session.delete(user)

    @classmethod
    @transactional
    def edit_profile(cls, actor: User, **profile: Any) -> None:
        """Change the actor's own profile.

        Raises `ValidationError` if somebody else has the email address, if the absence ends before it begins, or if the
        stand-in is not an active person.
        """
        user = cls.acting(actor.id)
        user._fill_in(**profile)
        user._check_absence()
        Activity.record(user, "person.profile", user)

    @classmethod
    @transactional
    def edit_appearance(cls, actor: User, theme: str, timezone: str, shortcuts: bool) -> None:
        """Set the actor's theme, time zone and keyboard shortcuts."""
        user = cls.acting(actor.id)
        user.theme, user.timezone, user.shortcuts = theme, timezone, shortcuts
        Activity.record(user, "person.appearance", user)

    @classmethod
    @transactional
    def edit_person(cls, actor: User, user_id: int, *, name: str, email: str, username: str) -> None:
        """Correct a person's name, email address and username. Afterwards, call `rerender_texts`.

        Raises `ValidationError` for a username or address in use.
        """
        user = cls._get_for_change(actor, user_id)
        changes = {"username": (user.username, username)} if username != user.username else {}
        if changes:
            outdate_mentions(user.username)
        user._fill_in(name=name, email=email, username=username)
        Activity.record(actor, "person.edited", user, changes=changes)

    @classmethod
    @transactional
    def set_role(cls, actor: User, user_id: int, role: Role) -> None:
        """Give another person a role, which applies from their next request. Raises `ValidationError` for the actor."""
        user = cls._get_for_change(actor, user_id)
        if user_id == actor.id:
            raise ValidationError("role", "You can't change your own role. Ask another administrator.")
        if user.role != role:
            changes = {"role": (user.role.label, role.label)}
            user.role = role
            Activity.record(actor, "person.role", user, role.label, changes)

    @classmethod
    @transactional
    def deactivate(cls, actor: User, user_id: int) -> None:
        """Block another person's sign-in, and sign them out everywhere. Raises `ValidationError` for the actor."""
        user = cls._get_for_change(actor, user_id)
        if user_id == actor.id:
            raise ValidationError("active", "You can't deactivate yourself. Ask another administrator.")
        if user.deactivated_at is None:
            user.deactivated_at = utcnow()
            user._end_access()
            Activity.record(actor, "person.deactivated", user)

    @classmethod
    @transactional
    def reactivate(cls, actor: User, user_id: int) -> None:
        """Let a deactivated person sign in again, or one who waits for approval for the first time."""
        user = cls._get_for_change(actor, user_id)
        if user.deactivated_at is not None:
            user.deactivated_at = None
            Activity.record(actor, "person.approved" if user.awaits_approval else "person.reactivated", user)
        if user.awaits_approval:
            user.awaits_approval = False
            OutgoingMail.tell(user, "approved")

    @classmethod
    @transactional
    def record_export(cls, actor: User, person: User) -> None:
        """Record that a person's data is exported: by themselves, or by an administrator."""
        cls.acting(actor.id, Role.READER if person.id == actor.id else Role.ADMIN)
        Activity.record(actor, "person.exported", db.session.get_one(cls, person.id))

    @classmethod
    def erase(cls, actor: User, user_id: int) -> None:
        """Erase another person: what they wrote stays as that of a former colleague, and nothing else does.

        Raises `ValidationError` for the actor.
        """
        for stored in cls._erase(actor, user_id):
            unlink_versions(stored)
        rerender_texts()

    @classmethod
    @transactional
    def _erase(cls, actor: User, user_id: int) -> Sequence[str]:
        """Erase a person in the database. Returns the names of their files on the disk, which belong to no post."""
        user = cls._get_for_change(actor, user_id)
        if user_id == actor.id:
            raise ValidationError("username", "You can't erase yourself. Ask another administrator.")
        outdate_mentions(user.username)
        Activity.forget(user)
        files = Attachment.delete_of(user)
        for model in (
            SignIn, ApiToken, ResetLink, RecoveryCode, TopicMember, GroupMember, MustReadPerson, Follow, ReadMark,
            NotificationChoice, Notification, OutgoingMail,
        ):  # fmt: skip
            db.session.execute(sa.delete(model).filter_by(user_id=user.id))
        invited = sa.and_(Invitation.email.is_not(None), sa.func.lower(Invitation.email) == user.email_key)
        db.session.execute(sa.delete(Invitation).where(invited))
        user._blank()
        Activity.record(actor, "person.erased", user)
        return files

    @classmethod
    @transactional
    def change_password(cls, actor: User, password_hash: str) -> None:
        """Set the actor's own password. The caller has checked the current one. It ends sign-ins and tokens."""
        user = cls.acting(actor.id)
        user._set_password(password_hash)
        Activity.record(actor, "person.password", user)

    @classmethod
    @transactional
    def turn_on_second_factor(cls, actor: User, secret: str, code: str) -> list[str]:
        """Turn on the actor's second factor. Returns their recovery codes, which are shown once.

        Raises `ValidationError` for a wrong code, and `Forbidden` if it is on already.
        """
        user, codes = cls.acting(actor.id), [random_words(3) for _ in range(10)]
        if user.totp_secret:
            raise Forbidden
        user.totp_secret, user.totp_step = secret, 0
        db.session.execute(sa.delete(RecoveryCode).filter_by(user_id=user.id))
        if not cls.use_code(user.id, code):
            raise ValidationError("code", WRONG_CODE)
        db.session.add_all(RecoveryCode(user_id=user.id, code_hash=hash_token(plain_code(one))) for one in codes)
        Activity.record(user, "person.second_factor_on", user)
        return codes

    @classmethod
    @transactional
    def use_code(cls, user_id: int, code: str) -> bool:
        """Whether a code is the present one of the person's app, or a recovery code of theirs. No code works twice.

        A phone's clock may be one step of time early or late.
        """
        user = db.session.get_one(cls, user_id, with_for_update=True, populate_existing=True)
        now, typed = int(time.time()) // CODE_SECONDS, plain_code(code)
        if not user.totp_secret:
            return False
        for step in (now - 1, now, now + 1):
            if step > user.totp_step and HOTP(user.totp_secret).verify(typed, step):
                user.totp_step = step
                return True
        used: Any = db.session.execute(sa.delete(RecoveryCode).filter_by(user_id=user_id, code_hash=hash_token(typed)))
        if used.rowcount:
            Activity.record(user, "person.recovery_code", user)
            return True
        return False

    @classmethod
    @transactional
    def turn_off_second_factor(cls, actor: User, user_id: int) -> None:
        """Turn the second factor off, and tell the person: the actor's own, or as an administrator somebody's."""
        is_own = user_id == actor.id
        user = cls.acting(user_id) if is_own else cls._get_for_change(actor, user_id)
        if user.totp_secret is None:
            return
        user.totp_secret = None
        Activity.record(actor, "person.second_factor_off" if is_own else "person.second_factor_reset", user)
        OutgoingMail.tell(user, "code_off")

    @classmethod
    @transactional
    def by_company_account(cls, identity: str, email: str, name: str) -> User:
        """Return the person of a company account. At their first sign-in, they are found by their verified `email`.

        Somebody new joins if the settings say so. Raises `ValidationError` if nobody may sign in with this account.
        """
        Setting.lock()
        user = db.session.scalar(sa.select(cls).filter_by(identity=identity))
        if user is None:
            user = cls.by_username(email) or cls._join(email, name)
            user._connect(identity)
        if user.awaits_approval:
            raise ValidationError("oidc", WAITS)
        if not user.is_active:
            raise ValidationError("oidc", "Your account here is deactivated. Ask an administrator.")
        return user

    @classmethod
    @transactional
    def rehash(cls, user_id: int, password_hash: str) -> None:
        """Store a new hash of the same password, made with the current parameters."""
        db.session.execute(sa.update(cls).filter_by(id=user_id).values(password_hash=password_hash))

    @classmethod
    @transactional
    def rescue(cls, user_id: int, password_hash: str, **profile: Any) -> None:
        """Make a person an active administrator with a new password. Only the command line does this.

        Raises `ValidationError` if somebody else has the email address.
        """
        user = db.session.get_one(cls, user_id, with_for_update=True)
        user._fill_in(**profile)
        changes = {"role": (user.role.label, Role.ADMIN.label)}
        user.role, user.deactivated_at, user.totp_secret, user.awaits_approval = Role.ADMIN, None, None, False
        user._set_password(password_hash)
        Activity.record(user, "person.rescued", user, changes=changes)

    @classmethod
    @transactional
    def record_visit(cls, user_id: int, sign_in_id: int, now: datetime) -> None:
        """Store when a person was last active. After a break of `VISIT_GAP`, a new visit begins."""
        user = db.session.get(cls, user_id, with_for_update=True, populate_existing=True)
        sign_in = db.session.get(SignIn, sign_in_id)
        if user is None or sign_in is None:
            return
        before = user.last_active_at or LONG_AGO
        if site_day(before) < site_day(now):
            VisitCount.add(site_day(now))
        if before < now - VISIT_GAP:
            user.previous_visit_at = user.last_active_at
        user.last_active_at = sign_in.last_used_at = now

    # -- parts of actions

    @classmethod
    def _get_for_change(cls, actor: User, user_id: int) -> User:
        """Lock and return a person whom an administrator changes. Raises `Forbidden` or `NotVisible`.

        An administrator always remains, because these changes run one at a time, and nobody can demote or deactivate
        themselves.
        """
        Setting.lock()
        cls.acting(actor.id, Role.ADMIN)
        return one_visible(sa.select(cls).filter_by(id=user_id, erased_at=None).with_for_update())

    def _blank(self) -> None:
        """Make this person a former colleague, of whom nothing is known and who can never sign in again."""
        blank = dict.fromkeys((*PROFILE_FIELDS, "password_hash", "timezone"), "")
        blank |= dict.fromkeys((
            "email", "away_from", "away_until", "stand_in_id", "totp_secret", "identity", "previous_visit_at",
            "last_active_at",
        ))  # fmt: skip
        self.erased_at = self.deactivated_at = utcnow()
        self.role, self.awaits_approval, self.must_change_password = Role.READER, False, False
        # A username that nobody can choose, because it ends with a hyphen.
        self._fill_in(name=FORMER_COLLEAGUE, username=f"former-{self.id}-", **blank)

    @classmethod
    def _join(cls, email: str, name: str) -> Self:
        """Create the person of a company account. Raises `ValidationError` unless the settings let them join."""
        site = Setting.read()
        mailbox, _, domain = fold(email).partition("@")
        if site.registration not in ("company", "domains") or domain not in site.domains:
            words = "Your company account's email address is not known here. Ask an administrator to add it."
            raise ValidationError("oidc", words)
        profile = {"email": email, "name": name or mailbox, "username": cls._free_name(mailbox)}
        return cls.create(None, password_hash=NO_PASSWORD, role=Role[site.registration_role.upper()], **profile)

    @classmethod
    def _free_name(cls, mailbox: str) -> str:
        """Return a username like this mailbox that nobody has yet, and no group."""
        name = mailbox if re.fullmatch(USERNAME_PATTERN, mailbox) else "person"
        is_free = USERNAME_MIN <= len(name) <= USERNAME_MAX and not (cls.by_username(name) or Group.has_name(name))
        return name if is_free else f"{name[: USERNAME_MAX - 6]}{secrets.randbelow(900_000) + 100_000}"

    def _connect(self, identity: str) -> None:
        """Let this person sign in with their company account from now on. A password stays to administrators only.

        Whoever chose the password may have typed somebody else's email address, which is verified only now.
        """
        if self.identity:
            raise ValidationError("oidc", f"{self.email} belongs to another company account. Ask an administrator.")
        if not self.is_admin:
            self._set_password(NO_PASSWORD)
        self.identity = identity
        Activity.record(self, "person.connected", self)

    def _set_password(self, password_hash: str) -> None:
        """Set the password, and end what was signed in by the old one."""
        self.password_hash, self.must_change_password = password_hash, False
        self._end_access()

    def _end_access(self) -> None:
        """End this person's sign-ins, and delete their tokens and the link for a new password."""
        SignIn.end_all(self.id)
        for model in (ApiToken, ResetLink):
            db.session.execute(sa.delete(model).filter_by(user_id=self.id))

    def _fill_in(self, **profile: Any) -> None:
        """Set columns, and the keys made from them. Raises `ValidationError` for a username or address in use."""
        before = self.email_key
        with db.session.no_autoflush:
            self._set_profile(**profile)
            if "username" in profile and Group.has_name(self.username_key):
                raise ValidationError("username", "This name is a group's. Choose another one.")
            self._check_taken("username", "This username is taken.")
            self._check_taken("email", "Someone else is using this email address.")
        if before and before != self.email_key:  # a link for a new password may have gone to the address before
            db.session.execute(sa.delete(ResetLink).filter_by(user_id=self.id))

    def _set_profile(self, **profile: Any) -> None:
        """Set columns, and the keys made from them."""
        for column, value in profile.items():
            setattr(self, column, value)
        self.email = self.email or None
        self.username_key = fold(self.username)
        self.email_key = fold(self.email or "")[:EMAIL_MAX] or None
        self.name_key = sort_key(self.name, NAME_MAX)
        self.lookup = self._lookup()

    def _lookup(self) -> str:
        """Return the text in which the list of people is searched."""
        mailbox = (self.email or "").partition("@")[0]  # everybody shares the rest of the address
        digits = re.sub(r"\D", "", self.phone or "")
        texts = [self.name, self.username, mailbox, digits, *(getattr(self, name) for name in PROFILE_FIELDS)]
        return sort_key(" ".join(text for text in texts if text), LOOKUP_MAX)

    def _check_taken(self, column: str, message: str) -> None:
        """Raise `ValidationError` if a value is somebody's username or email address. Either one signs a person in."""
        key = getattr(self, f"{column}_key")
        is_same = sa.or_(User.username_key == key, User.email_key == key)
        if key and count_of(User, is_same, User.id != (self.id or 0)):
            raise ValidationError(column, message)

    def _check_absence(self) -> None:
        """Raise `ValidationError` unless the absence ends after it begins, and the stand-in is an active person."""
        if self.away_from and not self.away_until:
            raise ValidationError("away_until", "Enter your last day away.")
        if self.away_from and self.away_until and self.away_until < self.away_from:
            raise ValidationError("away_until", "The last day is before the first.")
        with db.session.no_autoflush:
            if self.stand_in_id and not count_of(User, User.is_active, User.id == self.stand_in_id, User.id != self.id):
                raise ValidationError("stand_in_id", "Choose someone else, whose account is active.")


# -- Sign-ins ----------------------------------------------------------------------------------------------------------


class SignIn(db.Model):
    """A browser in which somebody is signed in. Only a hash of its token is stored."""

    __tablename__ = "sign_ins"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    device: Mapped[str] = mapped_column(sa.String(80))
    address: Mapped[str] = mapped_column(sa.String(45))
    remembered: Mapped[bool]
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    ended_at: Mapped[datetime | None]
    user: Mapped[User] = relationship()

    def is_valid(self, now: datetime) -> bool:
        """Whether this sign-in is active: not ended, expired or unused for too long."""
        is_idle = not self.remembered and self.last_used_at < now - SIGN_IN_IDLE
        return not (self.ended_at or self.user.deactivated_at or is_idle or self.expires_at <= now)

    @classmethod
    @transactional
    def start(cls, user_id: int, remember: bool, device: str, address: str) -> str:
        """Sign a person in. Returns the token for their browser."""
        user, token, now = User.acting(user_id), secrets.token_urlsafe(32), utcnow()
        lifetime = SIGN_IN_REMEMBERED if remember else SIGN_IN_LIFETIME
        started = cls(
            user_id=user_id, token_hash=hash_token(token), device=device, address=address, remembered=remember,
            created_at=now, last_used_at=now, expires_at=now + lifetime,
        )  # fmt: skip
        db.session.add(started)
        Activity.record(user, "person.signed_in", user, device)
        return token

    @staticmethod
    @transactional
    def record_failure(user: User | None) -> None:
        """Record that a password was wrong. A name that nobody has is not kept, because people type passwords there."""
        Activity.record(None, "person.sign_in_failed", user or ("user", 0))

    @classmethod
    @transactional
    def end(cls, user: User, sign_in_id: int) -> None:
        """End one of a person's own sign-ins. Raises `NotVisible` for somebody else's."""
        own = one_visible(sa.select(cls).filter_by(id=sign_in_id, user_id=user.id).with_for_update())
        if own.ended_at is None:
            own.ended_at = utcnow()
            Activity.record(user, "person.signed_out", ("user", user.id))

    @classmethod
    @transactional
    def end_others(cls, user: User, keep: int) -> None:
        """End all of a person's own sign-ins except the one with the id `keep`."""
        cls.end_all(user.id, keep)
        Activity.record(user, "person.signed_out", ("user", user.id), "all other devices")

    @classmethod
    def end_all(cls, user_id: int, keep: int | None = None) -> None:
        """End a person's sign-ins, except the one to `keep`, as part of an action."""
        theirs = sa.update(cls).where(cls.user_id == user_id, cls.ended_at.is_(None), cls.id != (keep or 0))
        db.session.execute(theirs.values(ended_at=utcnow()))

    @classmethod
    @transactional
    def forget_ended(cls) -> int:
        """Delete sign-ins that expired long ago. Returns how many they were."""
        expired = sa.delete(cls).where(cls.expires_at < utcnow() - SIGN_IN_LIFETIME)
        result: Any = db.session.execute(expired)
        return result.rowcount

    @classmethod
    def lives(cls) -> sa.ColumnElement[bool]:
        """Return whether a sign-in has neither ended nor expired."""
        return sa.and_(cls.ended_at.is_(None), cls.expires_at > utcnow())

    @classmethod
    def living(cls, user: User) -> Sequence[SignIn]:
        """Return a person's own sign-ins that have not ended or expired, the last used first."""
        own = sa.select(cls).where(cls.user_id == user.id, cls.lives())
        return db.session.scalars(own.order_by(cls.last_used_at.desc(), cls.id.desc()).limit(100)).all()


class VisitCount(db.Model):
    """How many people were here on a day of the site's time zone."""

    __tablename__ = "visit_counts"
    day: Mapped[date] = mapped_column(primary_key=True)
    visitors: Mapped[int]

    @classmethod
    def add(cls, day: date) -> None:
        """Count one more person, as part of the caller's transaction."""
        database.insert_if_absent(cls, day=day, visitors=0)
        db.session.execute(sa.update(cls).filter_by(day=day).values(visitors=cls.visitors + 1))

    @classmethod
    def since(cls, day: date) -> dict[date, int]:
        """Return how many people were here on each day from that one on. Days on which nobody was are left out."""
        return dict(db.session.execute(sa.select(cls.day, cls.visitors).where(cls.day >= day)).all())


# -- Ways in: invitations, links for a new password, recovery codes ----------------------------------------------------


class Invitation(db.Model):
    """A link with which people join the site. It was sent to one address, or is handed over. Only a hash is kept."""

    __tablename__ = "invitations"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="RESTRICT"))
    form_id: Mapped[str] = mapped_column(sa.String(32))
    name: Mapped[str] = mapped_column(sa.String(NAME_MAX), default="")  # what it is for, such as "Saturday team"
    email: Mapped[str | None] = mapped_column(sa.String(EMAIL_MAX))
    role: Mapped[Role] = mapped_column(RoleType)
    token_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    uses: Mapped[int] = mapped_column(default=0)
    uses_most: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime] = mapped_column(default=lambda: utcnow() + INVITATION_AGE, index=True)
    author: Mapped[User] = relationship()

    # -- queries

    @classmethod
    def open(cls) -> sa.Select[Self]:
        """Select the invitations that work: not expired or used up, by somebody who is still an administrator."""
        by_admin = sa.select(cls).join(cls.author).where(User.is_active, User.role == Role.ADMIN)
        return by_admin.where(cls.expires_at > utcnow(), cls.uses < cls.uses_most)

    @classmethod
    def of_link(cls, token: str) -> Invitation | None:
        """Return the open invitation with this token, or None."""
        return db.session.scalar(cls.open().where(cls.token_hash == hash_token(token)))

    # -- actions

    @classmethod
    @transactional
    def create(cls, actor: User, *, form_id: str, topic_ids: Iterable[int], **values: Any) -> tuple[Invitation, str]:
        """Create an invitation, in place of one that the same form made. Returns it with its token.

        `values` are columns. Only a hash of the token is kept. Invitations that have expired are deleted.
        """
        author, token = User.acting(actor.id, Role.ADMIN), secrets.token_urlsafe(24)
        db.session.execute(sa.delete(cls).where(sa.or_(cls.expires_at < utcnow(), cls.form_id == form_id)))
        invitation = cls(author=author, form_id=form_id, token_hash=hash_token(token), **values)
        db.session.add(invitation)
        db.session.flush()
        db.session.add_all(InvitationTopic(invitation_id=invitation.id, topic_id=topic_id) for topic_id in topic_ids)
        Activity.record(author, "invitation.created", invitation, invitation.role.label)
        return invitation, token

    @classmethod
    @transactional
    def withdraw(cls, actor: User, invitation_id: int) -> None:
        """Delete an invitation. Raises `NotVisible` if there is none."""
        User.acting(actor.id, Role.ADMIN)
        invitation = one_visible(sa.select(cls).filter_by(id=invitation_id).with_for_update())
        Activity.record(actor, "invitation.withdrawn", invitation)
        db.session.delete(invitation)

    @classmethod
    @transactional
    def accept(cls, token: str, **profile: Any) -> User:
        """Create a person by an invitation, with its role. Returns them.

        They follow its open topics, and are members of its private ones, if its author still sees them. Raises
        `NotVisible` for an invitation that no longer works, and `ValidationError` as `User.create` does.
        """
        Setting.lock()  # so that each use is counted
        invitation = cls.of_link(token)
        if invitation is None:
            raise NotVisible
        invitation.uses += 1
        user = User.create(None, role=invitation.role, **profile)
        Activity.record(user, "invitation.accepted", invitation)
        topics = Topic.visible_to(invitation.author).join(InvitationTopic)
        for topic in db.session.scalars(topics.where(InvitationTopic.invitation_id == invitation.id)):
            topic.take_in(user)
        return user


class InvitationTopic(db.Model):
    """A topic that the people who accept an invitation join or follow."""

    __tablename__ = "invitation_topics"
    invitation_id: Mapped[int] = mapped_column(sa.ForeignKey("invitations.id", ondelete="CASCADE"), primary_key=True)
    topic_id: Mapped[int] = mapped_column(sa.ForeignKey("topics.id", ondelete="CASCADE"), primary_key=True, index=True)


class ResetLink(db.Model):
    """A link with which one person chooses a new password, once. Only a hash is kept."""

    __tablename__ = "reset_links"
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    token_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    expires_at: Mapped[datetime]

    # -- queries

    @classmethod
    def owner(cls, token: str) -> sa.Select[User]:
        """Select the active person to whom a link belongs, unless it has expired or was used."""
        return User.active().join(cls).where(cls.token_hash == hash_token(token), cls.expires_at > utcnow())

    # -- actions

    @classmethod
    @transactional
    def ask(cls, name: str) -> None:
        """Queue an email with a link to the person who has this username or email address, if they can get it.

        Nothing shows whether there is one: the statements are the same, and take as long.
        """
        user = User.by_username(name)
        mail = sa.select(User.id, sa.literal("reset")).where(User.id == (user.id if user else 0))
        db.session.execute(sa.insert(OutgoingMail).from_select(["user_id", "kind"], mail))
        Activity.record(None, "person.link_asked", user or ("user", 0))

    @classmethod
    @transactional
    def create(cls, user_id: int, actor: User | None = None) -> str:
        """Make a person's link, in place of the one before, and return its token. An `actor` hands it over to them.

        Raises `ValidationError` for the actor: a browser that was left open would be enough to take their account over.
        """
        if actor:
            user = User._get_for_change(actor, user_id)
            Activity.record(actor, "person.link", user)
            if user_id == actor.id:
                raise ValidationError("password", "Change your password under Account. It asks for the current one.")
            if not may_use_password(user):
                raise ValidationError("password", "They sign in with their company account.")
        token = secrets.token_urlsafe(32)
        row = {"user_id": user_id, "token_hash": hash_token(token), "expires_at": utcnow() + RESET_FOR}
        database.upsert(cls, [row])
        return token

    @classmethod
    @transactional
    def use(cls, token: str, password_hash: str) -> None:
        """Set the password of the person to whom a link belongs, and tell them. Raises `NotVisible` without one."""
        user = one_visible(cls.owner(token).with_for_update())
        user._set_password(password_hash)
        Activity.record(user, "person.password_by_link", user)
        OutgoingMail.tell(user, "password")


class RecoveryCode(db.Model):
    """A code that signs a person in once without their phone. Only a hash is kept."""

    __tablename__ = "recovery_codes"
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    code_hash: Mapped[str] = mapped_column(sa.String(64), primary_key=True)


WAITS = "An administrator has to let you in first."
WRONG_CODE = "This code isn't right, or was used. Check that your phone's clock is set automatically, and try the next."


def plain_code(typed: str) -> str:
    """Return a code without the spaces and hyphens with which people read and type it."""
    return re.sub(r"[\s-]", "", fold(typed))


def random_words(count: int) -> str:
    """Return random groups of four letters and digits that are easy to read out, of 20 bits each."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(alphabet) for _ in range(4)) for _ in range(count))


# -- Tokens of programs ------------------------------------------------------------------------------------------------

SCOPES = ("read", "write", "admin")  # each may do what the ones before it may
TOKEN_PREFIX = 10  # characters by which people recognize a token


class ApiToken(db.Model):
    """What a program shows to act for a person. Only a hash of it is kept."""

    __tablename__ = "api_tokens"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"))
    form_id: Mapped[str] = mapped_column(sa.String(32))
    name: Mapped[str] = mapped_column(sa.String(NAME_MAX))
    scope: Mapped[str] = mapped_column(sa.String(5))
    prefix: Mapped[str] = mapped_column(sa.String(TOKEN_PREFIX))
    token_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    user: Mapped[User] = relationship()

    # -- queries

    @classmethod
    def find(cls, raw: str) -> Self | None:
        """Return the token with its person, or None if it is unknown, revoked or expired."""
        is_valid = sa.or_(cls.expires_at.is_(None), cls.expires_at > utcnow())
        found = sa.select(cls).filter_by(token_hash=hash_token(raw)).where(is_valid)
        return db.session.scalar(found.options(joinedload(cls.user).undefer(User.second_factor_role)))

    @classmethod
    def of(cls, user: User) -> Sequence[ApiToken]:
        """A person's own tokens, the newest first."""
        return db.session.scalars(sa.select(cls).filter_by(user_id=user.id).order_by(cls.id.desc())).all()

    # -- actions

    @classmethod
    @transactional
    def create(cls, actor: User, *, form_id: str, name: str, scope: str, expires_at: datetime | None) -> str:
        """Make a token. Returns it as it is shown once; the same form sent again replaces it.

        Raises `ValidationError` for a scope above the person's role.
        """
        user = User.acting(actor.id)
        if scope == "admin" and not user.is_admin:
            raise ValidationError("scope", "Only administrators can give a program this access.")
        db.session.execute(sa.delete(cls).filter_by(user_id=user.id, form_id=form_id))
        raw = f"ck_{secrets.token_urlsafe(32)}"
        token = cls(
            user_id=user.id, form_id=form_id, name=name, scope=scope, expires_at=expires_at,
            prefix=raw[:TOKEN_PREFIX], token_hash=hash_token(raw),
        )  # fmt: skip
        db.session.add(token)
        Activity.record(user, "token.created", token, scope)
        return raw

    @classmethod
    @transactional
    def revoke(cls, actor: User, token_id: int) -> None:
        """Delete one of a person's own tokens. Raises `NotVisible` for anybody else's."""
        user = User.acting(actor.id)
        token = one_visible(sa.select(cls).filter_by(id=token_id, user_id=user.id).with_for_update())
        db.session.delete(token)
        Activity.record(user, "token.revoked", token)

    @classmethod
    @transactional
    def record_use(cls, token_id: int, now: datetime) -> None:
        """Note that a token was used."""
        db.session.execute(sa.update(cls).filter_by(id=token_id).values(last_used_at=now))


sa.Index("uq_api_tokens_user_id_form_id", ApiToken.user_id, ApiToken.form_id, unique=True)


# -- Topics ------------------------------------------------------------------------------------------------------------


class Topic(SoftDelete, db.Model):
    """A topic of posts. It is open, or private: then only its members see it and its posts."""

    __tablename__ = "topics"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(TOPIC_MAX))
    name_key: Mapped[str] = mapped_column(sa.String(TOPIC_MAX))
    slug: Mapped[str] = mapped_column(sa.String(TOPIC_MAX + 8), unique=True)
    description: Mapped[str] = mapped_column(sa.String(DESCRIPTION_MAX), default="")
    private: Mapped[bool] = mapped_column(default=False)
    followed_by_default: Mapped[bool] = mapped_column(default=False)  # by people who have not chosen themselves
    position: Mapped[int]
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="RESTRICT"))
    form_id: Mapped[str] = mapped_column(sa.String(32))
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    merged_into_id: Mapped[int | None] = mapped_column(sa.ForeignKey("topics.id", ondelete="SET NULL"))
    members: Mapped[list[User]] = relationship(secondary="topic_members", order_by=User.name_key, viewonly=True)

    post_count: ClassVar[Any]  # a column property, defined in "The recycle bin"

    # -- queries

    @classmethod
    def visible(cls, person: Any = None) -> sa.ColumnElement[bool]:
        """Return the condition that the `viewer`, or a `person` of the statement, may see a topic.

        Posts, comments, files and search all use this condition.
        """
        return sa.and_(cls.deleted_at.is_(None), cls.within_reach(person))

    @classmethod
    def within_reach(cls, person: Any = None) -> sa.ColumnElement[bool]:
        """Return the same condition for a topic that may be deleted."""
        own = sa.select(TopicMember.topic_id).where(TopicMember.user_id == (person.id if person else VIEWER))
        own = own.correlate(person) if person else own
        return sa.or_(cls.private == sa.false(), cls.id.in_(own))

    @classmethod
    def visible_to(cls, user: User) -> sa.Select[Self]:
        """Select the topics that a person may see, in the team's order."""
        return super().visible_to(user).order_by(cls.position, cls.id)

    @classmethod
    def audiences(cls, user: User) -> dict[int, Any]:
        """Return the topics that a person may see, by id. Each row has the number of people who see the topic."""
        active = sa.select(sa.func.count()).select_from(User).where(User.is_active)
        members = active.where(sa.exists().where(TopicMember.topic_id == cls.id, TopicMember.user_id == User.id))
        people = sa.case((cls.private, members.correlate(cls).scalar_subquery()), else_=active.scalar_subquery())
        seen = cls.visible_to(user).with_only_columns(cls.id, cls.name, cls.slug, cls.private, people.label("people"))
        return {row.id: row for row in db.session.execute(seen)}

    @classmethod
    def reachable(cls) -> sa.ColumnElement[bool]:
        """Return the condition that the `viewer` may see a topic, deleted or not. Nobody sees a merged one."""
        return sa.and_(cls.merged_into_id.is_(None), cls.within_reach())

    @classmethod
    def get_for_change(cls, actor: User, thing_id: int, needs: Role = Role.EDITOR, deleted: bool = False) -> Self:
        """Lock and return a topic, as `SoftDelete` does. Topics change one at a time, because rules span several."""
        Setting.lock()
        return super().get_for_change(actor, thing_id, needs, deleted)

    @classmethod
    def hidden_from(cls, user: User) -> Sequence[Topic]:
        """Return the private topics that an administrator does not see, and may join."""
        hidden = sa.select(cls).where(cls.deleted_at.is_(None), ~cls.visible()).params(viewer=user.id)
        return db.session.scalars(hidden.order_by(cls.position, cls.id)).all()

    # -- actions

    @classmethod
    @transactional
    def create(
        cls, actor: User, *, form_id: str, name: str, description: str = "", private: bool = False,
        followed_by_default: bool = False, members: Iterable[int] = (),
    ) -> Topic:  # fmt: skip
        """Create a topic, and return it. The members of a private topic are its author and the `members`.

        If the form was sent before, this returns its topic. A name may be in use: to refuse it would reveal a private
        topic to those who do not see it.
        """
        Setting.lock()
        editor = User.acting(actor.id, Role.EDITOR)
        if existing := db.session.scalar(sa.select(cls).filter_by(author_id=editor.id, form_id=form_id)):
            return existing
        last = db.session.scalar(sa.select(sa.func.max(cls.position))) or 0
        topic = cls(
            author_id=editor.id, form_id=form_id, description=description, private=private, position=last + 1,
            slug=cls._free_slug(name, private), followed_by_default=followed_by_default and not private,
        )  # fmt: skip
        topic._rename(name)
        db.session.add(topic)
        Activity.record(editor, "topic.created", topic)
        if private:
            topic._add_member(editor.id)
            cls.add_members(editor, topic.id, members)
        return topic

    @classmethod
    @transactional
    def edit(
        cls, actor: User, topic_id: int, *, name: str, description: str, followed_by_default: bool | None = None
    ) -> None:
        """Change a topic's name and description, and perhaps whether people follow it who have not chosen themselves.

        The slug does not change, so that links keep working. A private topic is followed by those who choose to.
        """
        topic = cls.get_for_change(actor, topic_id)
        topic._rename(name)
        topic.description = description
        if followed_by_default is not None:
            topic.followed_by_default = followed_by_default
        Activity.record(actor, "topic.edited", topic)

    @classmethod
    @transactional
    def make_private(cls, actor: User, topic_id: int) -> None:
        """Show a topic only to its members. The actor becomes the first member.

        Raises `ValidationError` for the last open topic.
        """
        topic = cls.get_for_change(actor, topic_id)
        if not topic.private:
            topic._check_other_open("private")
            topic.private, topic.followed_by_default = True, False
            topic._add_member(actor.id)
            Activity.record(actor, "topic.closed", topic)

    @classmethod
    @transactional
    def make_open(cls, actor: User, topic_id: int) -> None:
        """Show a topic to everyone, and remove its members."""
        topic = cls.get_for_change(actor, topic_id)
        if topic.private:
            topic.private = False
            db.session.execute(sa.delete(TopicMember).filter_by(topic_id=topic.id))
            Activity.record(actor, "topic.opened", topic)

    @classmethod
    @transactional
    def add_members(cls, actor: User, topic_id: int, user_ids: Iterable[int]) -> list[User]:
        """Let people see a private topic. Returns them.

        Raises `NotVisible` if there is no such active person, and `ValidationError` for an open topic.
        """
        topic = cls.get_for_change(actor, topic_id)
        if not topic.private:
            raise ValidationError("members", "This topic is open: everyone sees it.")
        added = [one_visible(User.active().where(User.id == user_id)) for user_id in user_ids]
        for user in added:
            if topic._add_member(user.id):
                Activity.record(actor, "topic.member_added", topic, user.name)
        return added

    @classmethod
    @transactional
    def remove_member(cls, actor: User, topic_id: int, user_id: int) -> None:
        """Remove a person from a private topic. Raises `ValidationError` for the actor, so that a member remains."""
        topic = cls.get_for_change(actor, topic_id)
        if user_id == actor.id:
            raise ValidationError("members", "You can't remove yourself. Ask another editor in this topic.")
        member = db.session.get(TopicMember, (topic.id, user_id))
        if member is not None:
            db.session.delete(member)
            Activity.record(actor, "topic.member_removed", topic, db.session.get_one(User, user_id).name)

    @classmethod
    @transactional
    def move(cls, actor: User, topic_id: int, up: bool) -> None:
        """Move a topic up or down by one place among the topics that the actor sees."""
        topic = cls.get_for_change(actor, topic_id)
        seen = db.session.scalars(cls.visible_to(actor)).all()
        place = seen.index(topic)
        other = place - 1 if up else place + 1
        if 0 <= other < len(seen):
            topic.position, seen[other].position = seen[other].position, topic.position
            Activity.record(actor, "topic.moved", topic, "up" if up else "down")

    @classmethod
    @transactional
    def merge(cls, actor: User, topic_id: int, into_id: int) -> Topic:
        """Move all posts of a topic into another one, and return that. The old address redirects to it.

        Raises `ValidationError` for the same topic, or if the last open topic would become private.
        """
        topic, into = cls.get_for_change(actor, topic_id), cls.get_for_change(actor, into_id)
        if topic is into:
            raise ValidationError("into", "Choose another topic.")
        if into.private:
            topic._check_other_open("into")
        for model in (Post, Revision):
            db.session.execute(sa.update(model).filter_by(topic_id=topic.id).values(topic_id=into.id))
        db.session.execute(sa.update(cls).filter_by(merged_into_id=topic.id).values(merged_into_id=into.id))
        Follow.move(topic.id, into.id)
        into.followed_by_default |= topic.followed_by_default and not into.private
        topic.deleted_at, topic.merged_into_id = utcnow(), into.id
        Activity.record(actor, "topic.merged", topic, f"into {into.name}")
        return into

    @classmethod
    @transactional
    def join(cls, actor: User, topic_id: int) -> Topic:
        """Make an administrator a member of a private topic, and record that. Returns the topic."""
        User.acting(actor.id, Role.ADMIN)
        topic = one_visible(sa.select(cls).filter_by(id=topic_id, deleted_at=None).with_for_update())
        if topic.private and topic._add_member(actor.id):
            Activity.record(actor, "topic.joined", topic)
        return topic

    @classmethod
    def ensure_first(cls, actor: User) -> None:
        """Give a new site its first topic."""
        if not count_of(cls):
            form_id, description = secrets.token_hex(16), "News for the whole team"
            cls.create(actor, form_id=form_id, name="Everyone", description=description, followed_by_default=True)

    # -- parts of actions

    def take_in(self, user: User) -> None:
        """Make an invited person a member, or if the topic is open let them follow it."""
        if self.private:
            self._add_member(user.id)
            Activity.record(user, "topic.joined", self)
        else:
            Follow.choose(user, "following", topic_id=self.id)

    def _add_member(self, user_id: int) -> bool:
        """Make a person a member. Returns False if they are one already."""
        return database.insert_if_absent(TopicMember, topic_id=self.id, user_id=user_id)

    def _rename(self, name: str) -> None:
        self.name, self.name_key = name, sort_key(name, TOPIC_MAX)

    def editable_by(self, user: User) -> bool:
        return user.is_editor

    def after_deletion(self) -> None:
        """Raise `ValidationError` if the last open topic was deleted."""
        if self.deleted_at:
            self._check_other_open("topic")

    def _check_other_open(self, field: str) -> None:
        """Raise `ValidationError` if this is the only open topic. Without one, some people would see no topic."""
        if not self.private and not count_of(Topic, Topic.deleted_at.is_(None), ~Topic.private, Topic.id != self.id):
            raise ValidationError(field, "This is the only topic that everyone can see. Create another one first.")

    @classmethod
    def _free_slug(cls, name: str, private: bool) -> str:
        """Return a slug for a topic: its name, with a number at random if that is taken, or if the topic is private.

        A private topic leaves the bare name to others, who would otherwise notice that it is taken.
        """
        bare = slug = slugify(name)
        while private or count_of(cls, cls.slug == slug):
            slug, private = f"{bare}-{secrets.randbelow(900_000) + 100_000}", False
        return slug


class TopicMember(db.Model):
    """Membership of a person in a private topic."""

    __tablename__ = "topic_members"
    topic_id: Mapped[int] = mapped_column(sa.ForeignKey("topics.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True)


# -- Groups ------------------------------------------------------------------------------------------------------------


class Group(db.Model):
    """Several people who can be called by one name: in mentions, for a must-read, and for a private topic."""

    __tablename__ = "people_groups"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(USERNAME_MAX))  # as after an @
    name_key: Mapped[str] = mapped_column(sa.String(USERNAME_MAX), unique=True)
    people: Mapped[list[User]] = relationship(  # the active ones
        secondary="group_members", secondaryjoin="and_(GroupMember.user_id == User.id, User.deactivated_at == None)",
        order_by=User.name_key,
    )  # fmt: skip

    # -- queries

    @property
    def member_ids(self) -> list[int]:
        return [user.id for user in self.people]

    @classmethod
    def listed(cls) -> sa.Select[Self]:
        """Select the groups by name."""
        return sa.select(cls).order_by(cls.name_key)

    @classmethod
    def people_in(cls, group_ids: Iterable[int]) -> set[int]:
        """Return the ids of the people in some groups."""
        members = sa.select(GroupMember.user_id).join(User).where(GroupMember.group_id.in_(group_ids), User.is_active)
        return {*db.session.scalars(members)}

    @classmethod
    def has_name(cls, key: str) -> bool:
        """Whether a folded name calls a group, or everyone."""
        return key == EVERYONE or bool(count_of(cls, cls.name_key == key))

    # -- actions

    @classmethod
    @transactional
    def save(cls, actor: User, group_id: int | None, *, name: str, member_ids: Iterable[int]) -> None:
        """Make a group, or change the people of the one with an id.

        Raises `ValidationError` for a name in use, and `NotVisible` if there is no group with that id.
        """
        Setting.lock()  # people and groups share their names
        User.acting(actor.id, Role.ADMIN)
        if group_id:
            group = one_visible(sa.select(cls).filter_by(id=group_id).with_for_update())
        elif cls.has_name(fold(name)) or User.by_username(name):
            raise ValidationError("name", "A person or a group already has this name.")
        else:
            group = cls(name=name, name_key=fold(name))
            db.session.add(group)
        group.people = [*db.session.scalars(User.active().where(User.id.in_(member_ids)))]
        Activity.record(actor, "group.saved", group)

    @classmethod
    @transactional
    def delete(cls, actor: User, group_id: int) -> None:
        """Delete a group. Its people stay. Afterwards, call `rerender_texts`. Raises `NotVisible` if there is none."""
        User.acting(actor.id, Role.ADMIN)
        group = one_visible(sa.select(cls).filter_by(id=group_id).with_for_update())
        outdate_mentions(group.name)
        Activity.record(actor, "group.deleted", group)
        db.session.delete(group)


class GroupMember(db.Model):
    """Membership of a person in a group."""

    __tablename__ = "group_members"
    group_id: Mapped[int] = mapped_column(sa.ForeignKey("people_groups.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True)


# -- Posts -------------------------------------------------------------------------------------------------------------


class Attention(NamedTuple):
    """Whether a post will be pinned when it is published, and whether everyone will be asked to read it."""

    pinned: bool
    until: datetime | None
    must_read: bool
    due: date | None


@dataclass(frozen=True)
class PostData:
    """The values of a post's form, with times in UTC. Each field except the last two is a column of Post."""

    kind: str
    topic_id: int
    title: str
    body: str
    owner_id: int | None = None
    review_every: int | None = None
    parent_id: int | None = None
    scheduled_for: datetime | None = None
    expires_at: datetime | None = None
    file_ids: Sequence[int] = ()
    attention: Attention | None = None  # None leaves it as it is

    @classmethod
    def of(cls, post: Post, **changes: Any) -> PostData:
        """Return the current values of a post, with some changes."""
        return cls(**{name: getattr(post, name) for name in POST_DATA} | changes)

    def for_its_kind(self) -> PostData:
        """Return these values without those that their kind does not have: pages never expire, news have no reviews."""
        if self.kind == "page":
            return replace(self, expires_at=None)
        return replace(self, owner_id=None, review_every=None, parent_id=None)


POST_DATA = [field.name for field in dataclass_fields(PostData) if field.name not in ("file_ids", "attention")]
TEXT = {"title", "body"}
REVISED = {*TEXT, "kind", "topic_id"}  # when one of these changes, a published post gets a new revision


class Post(SoftDelete, db.Model):
    """News, or a page of the handbook. Its Markdown is rendered when the post is saved, and the HTML is stored too."""

    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(8))
    topic_id: Mapped[int] = mapped_column(sa.ForeignKey("topics.id", ondelete="CASCADE"))
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="RESTRICT"))
    editor_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="RESTRICT"))
    form_id: Mapped[str] = mapped_column(sa.String(32))
    version: Mapped[int] = mapped_column(default=1)  # counts saves of the text, to detect edit conflicts
    revision: Mapped[int] = mapped_column(default=0)  # the number of the newest revision, 0 until it is published
    title: Mapped[str] = mapped_column(sa.String(TITLE_MAX))
    title_key: Mapped[str] = mapped_column(sa.String(TITLE_MAX))
    excerpt: Mapped[str] = mapped_column(sa.String(EXCERPT_MAX))
    renderer: Mapped[int] = mapped_column(sa.SmallInteger)
    comment_count: Mapped[int] = mapped_column(default=0)
    # A copy of the newest comment's time and author, without a foreign key.
    last_comment_at: Mapped[datetime | None]
    last_comment_by_id: Mapped[int | None]
    published_at: Mapped[datetime | None]
    scheduled_for: Mapped[datetime | None] = mapped_column(index=True)  # when a job will publish it
    updated_at: Mapped[datetime]
    edited_at: Mapped[datetime | None]
    pinned_at: Mapped[datetime | None]
    # The owner and the reviews of a handbook page: see `PageReview`.
    owner_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id", ondelete="SET NULL"))
    review_every: Mapped[int | None] = mapped_column(sa.SmallInteger)  # months, None for never
    review_by: Mapped[date | None]
    reviewed_at: Mapped[datetime | None]
    review_told: Mapped[date | None]  # the `review_by` of which its owner was notified
    # Where a handbook page stands: see `PageTree`.
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("posts.id", ondelete="SET NULL"), index=True)
    position: Mapped[int] = mapped_column(default=UNPLACED, server_default=str(UNPLACED))
    pinned_until: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]  # then it leaves Home, and is marked elsewhere
    must_read_since: Mapped[datetime | None]
    must_read_due: Mapped[date | None]
    must_read_revision: Mapped[int | None]  # acknowledgements of older revisions do not count
    reminded_at: Mapped[datetime | None]
    # These come last, because SQLite reads a row from its start, and lists do not need the long texts.
    body: Mapped[str] = mapped_column(LongText)
    html: Mapped[str] = mapped_column(LongText)

    topic: Mapped[Topic] = relationship()
    author: Mapped[User] = relationship(foreign_keys=[author_id])
    editor: Mapped[User] = relationship(foreign_keys=[editor_id])
    owner: Mapped[User | None] = relationship(foreign_keys=[owner_id])

    # -- queries

    @classmethod
    def get_visible(cls, user: User, post_id: int) -> Self:
        """Lock and return a post that a person may see, as part of an action. Raises `NotVisible`."""
        post = cls.lock_reachable(user, post_id)
        if post.deleted_at:
            raise NotVisible
        return post

    @classmethod
    def reachable(cls) -> sa.ColumnElement[bool]:
        """Return the condition that the `viewer` may see a post at its own address, if it is not deleted.

        Everyone sees a published post, its author sees it before that, and editors see it once it is scheduled.
        """
        editor = sa.select(User.id).where(User.id == VIEWER, User.role >= Role.EDITOR).correlate(None).exists()
        scheduled = sa.and_(cls.scheduled_for.is_not(None), editor)
        return sa.and_(cls._in_visible_topic(), sa.or_(cls.is_published(), cls.author_id == VIEWER, scheduled))

    @classmethod
    def _in_visible_topic(cls, person: Any = None) -> sa.ColumnElement[bool]:
        """Return the condition that the `viewer`, or a `person` of the statement, sees the topic of a post."""
        # Without the + 0, SQLite sometimes reads each topic's posts by an index and sorts them.
        return (cls.topic_id + 0).in_(sa.select(Topic.id).where(Topic.visible(person)))

    @classmethod
    def is_published(cls) -> sa.ColumnElement[bool]:
        """Return the condition that a post is published: a range, because no index serves IS NOT NULL."""
        return cls.published_at > LONG_AGO

    @classmethod
    def listed(cls, person: Any = None) -> sa.ColumnElement[bool]:
        """Return the condition that lists show a post to the `viewer`, or to a `person` of the statement."""
        return sa.and_(cls.deleted_at.is_(None), cls._in_visible_topic(person), cls.is_published())

    @classmethod
    def shown_to(cls, person: Any = None) -> sa.ColumnElement[bool]:
        """Return the condition that the `viewer`, or a `person`, sees a post that is published or their own."""
        own = cls.author_id == (person.id if person else VIEWER)
        return sa.and_(cls.deleted_at.is_(None), cls._in_visible_topic(person), sa.or_(cls.is_published(), own))

    @classmethod
    def current(cls) -> sa.ColumnElement[bool]:
        """Return the condition that a post has not expired."""
        return cls.not_over(cls.expires_at)

    @staticmethod
    def not_over(end: Any) -> sa.ColumnElement[bool]:
        """Return the condition that a time has not come yet, or that there is none."""
        # Not as an OR, because MariaDB would then choose a worse index.
        return sa.func.coalesce(end <= NOW, sa.false()) == sa.false()

    @classmethod
    def unseen(cls, since: Any = None) -> sa.Case[int]:
        """Return 1 for a post with something that the `viewer` has not seen, else 0.

        That is the newest comment, or else the post itself, by somebody else. With `since`, it is also newer than that.
        The result is a number, because SQLAlchemy would have to convert a boolean in each row.
        """
        posted = sa.case((cls.author_id != VIEWER, cls.published_at))
        latest = sa.case((cls.last_comment_by_id != VIEWER, cls.last_comment_at), else_=posted)
        seen = sa.exists().where(ReadMark.user_id == VIEWER, ReadMark.post_id == cls.id, ReadMark.at >= latest)
        is_new = latest.is_not(None) if since is None else latest > since
        return sa.case((sa.and_(is_new, sa.not_(seen.correlate(cls))), 1), else_=0)

    # -- predicates

    def editable_by(self, user: User) -> bool:
        """Whether a person who sees this post may change it."""
        return user.can_edit(self)

    def is_pinned(self, now: datetime) -> bool:
        return self.pinned_at is not None and (self.pinned_until is None or self.pinned_until > now)

    @property
    def state(self) -> str:
        return self.state_of(self, utcnow())

    @property
    def url(self) -> str:
        return f"/posts/{self.id}"

    @staticmethod
    def state_of(post: Any, now: datetime) -> str:
        """Return "draft", "scheduled", "published" or "expired"."""
        if post.published_at is None:
            return "scheduled" if post.scheduled_for else "draft"
        return "expired" if post.expires_at and post.expires_at <= now else "published"

    # -- actions

    @classmethod
    def save(
        cls, actor: User, data: PostData, *, how: str, post_id: int | None = None, version: int = 0,
        form_id: str = "", notify: bool = False, require_again: bool = False,
    ) -> Self:  # fmt: skip
        """Save the values of a post's form. Returns the post.

        `how` is "draft", "autosave" or "publish", which publishes or schedules a draft, or updates a published post.
        Without a `post_id`, the post is new. A form that is sent again updates the draft that it created.
        With `notify`, everyone is notified of the change. With `require_again`, required readers have to confirm again.

        Raises `NotVisible`, `Forbidden`, `ValidationError`, or `EditConflict` if the text has been saved since the
        `version` that the form knows.
        """
        # The text is rendered before the transaction begins, because others cannot write until that ends.
        body = link_pages(data.body, actor) if how == "publish" else data.body
        prepared, html = replace(data.for_its_kind(), body=body), render_body(actor, body)
        return cls._save(actor, prepared, html, how, post_id, version, form_id, notify, require_again)

    @classmethod
    @transactional
    def _save(
        cls, actor: User, data: PostData, html: str, how: str, post_id: int | None, version: int,
        form_id: str, notify: bool, require_again: bool,
    ) -> Self:  # fmt: skip
        editor = User.acting(actor.id, Role.MEMBER)
        post = cls.get_for_change(editor, post_id) if post_id else cls._of_form(editor, form_id)
        was_new = post.version == 0
        if not post_id and how != "autosave" and (post.published_at or post.deleted_at):
            return post
        changes = {name for name in POST_DATA if getattr(post, name) != getattr(data, name)}
        # The form of a new post does not know a version until its first save is answered.
        known = version or (0 if post_id else 1)
        if changes & TEXT and not was_new and post.version != known:
            raise EditConflict(post.id)
        post._check(editor, data, how)
        if how == "autosave" and changes & TEXT:
            refuse_too_often(f"autosave:{editor.id}", AUTOSAVES, AUTOSAVE_EVERY)
        post._assign(editor, data, html, how, changes)
        if post.published_at:
            post._record_edit(editor, changes, notify, require_again)
        elif how == "publish":
            post._publish_or_schedule(editor, data.scheduled_for, changes)
        elif how == "draft" or was_new:
            post.scheduled_for = None
            Activity.record(editor, "post.drafted", post)
        return post

    @classmethod
    def _of_form(cls, author: User, form_id: str) -> Self:
        """Return the post that a person's form has created, or a new one."""
        created = sa.select(cls).filter_by(author_id=author.id, form_id=form_id).with_for_update()
        post = db.session.scalar(created.execution_options(populate_existing=True))
        return post or cls(author_id=author.id, form_id=form_id, version=0, revision=0)

    def _check(self, editor: User, data: PostData, how: str) -> None:
        """Raise `Forbidden` or `ValidationError` if this person may not save these values."""
        if data.kind != self.kind and not editor.may_write_kind(data.kind):
            raise Forbidden
        if how == "autosave" and (self.published_at or self.scheduled_for or self.deleted_at):
            raise ValidationError("body", "This is no longer a draft.")
        topic = Topic.visible_to(editor).where(Topic.id == data.topic_id)
        # The lock keeps others from merging the topic. A topic's handbook pages change one at a time: see `PageTree`.
        if db.session.scalar(topic.with_for_update(read=data.kind != "page")) is None:
            raise ValidationError("topic", "Choose a topic.")
        if how == "publish" or self.published_at:
            self._check_complete(data)
            self._check_times(data)

    @staticmethod
    def _check_complete(data: PostData) -> None:
        for field, words in (("title", "Give it a title"), ("body", "Write something first")):
            if not getattr(data, field).strip():
                raise ValidationError(field, f"{words}: others will see it.")

    def _check_times(self, data: PostData) -> None:
        now, is_unpublished = utcnow(), self.published_at is None
        start = data.scheduled_for or now
        if is_unpublished and start < now and start != self.scheduled_for:
            raise ValidationError("scheduled_for", "That time has passed. Leave it empty to publish now.")
        ends_early = data.expires_at is not None and data.expires_at <= max(now, start)
        if ends_early and (is_unpublished or data.expires_at != self.expires_at):
            raise ValidationError("expires_at", "Choose a day after it is published.")

    def _assign(self, editor: User, data: PostData, html: str, how: str, changes: set[str]) -> None:
        """Set what the form says, apart from the time of publishing."""
        if changes & REVISED:
            self.editor_id, self.updated_at = editor.id, utcnow()
        if changes & TEXT:
            self.version += 1
            self.title, self.title_key, self.body = data.title, sort_key(data.title), data.body
            self.html, self.excerpt, self.renderer = html, plain_text(html), RENDERER_VERSION
        self.kind, self.topic_id = data.kind, data.topic_id
        if data.kind == "page":
            self.pinned_at = self.pinned_until = None
        self.expires_at = data.expires_at
        PageReview.assign(self, data.owner_id, data.review_every)
        db.session.add(self)
        db.session.flush()
        PageTree.assign(self, data.parent_id, changes)
        Attachment.attach(editor, data.body, data.file_ids, post=self)
        if data.attention and self.published_at is None:
            self._draw_attention(editor, data.attention)

    def _draw_attention(self, editor: User, wanted: Attention) -> None:
        """Set whether this post will be pinned, and whether people will be asked to read it. Editors only."""
        self.pin(editor, self.id, wanted.pinned and self.kind == "news", wanted.until)
        if not wanted.must_read:
            Acknowledgement.stop_requiring(editor, self.id)
        elif not self.must_read_since:
            Acknowledgement.require(editor, self.id, Role)
        self.must_read_due = wanted.due

    def _record_edit(self, editor: User, changes: set[str], notify: bool, require_again: bool) -> None:
        """Record the changes of a published post, and notify people of them."""
        if changes & REVISED:
            self.edited_at = self.updated_at
            self._add_revision()
        if changes - {"scheduled_for"}:
            Activity.record(editor, "post.turned" if "kind" in changes else "post.edited", self)
        if notify:
            notify_again(Activity.record(editor, "post.shared_again", self), self)
        if changes & REVISED and require_again and self.must_read_since:
            self.must_read_revision = self.revision
            notify_required(Activity.record(editor, "post.must_read", self), self)

    def _publish_or_schedule(self, editor: User, moment: datetime | None, changes: set[str]) -> None:
        if moment is None or moment <= utcnow():
            self._publish(editor)
            return
        self.scheduled_for = moment
        if changes:
            action = "post.scheduled" if "scheduled_for" in changes else "post.edited"
            Activity.record(editor, action, self)

    def _publish(self, actor: User) -> None:
        """Publish this post, keep its first revision, and notify people."""
        self.published_at = self.updated_at = utcnow()
        self.scheduled_for = None
        self._add_revision()
        if self.must_read_since:
            self.must_read_revision = self.revision
        if self.pinned_at:
            self.pinned_at = self.published_at  # the newest pin comes first
        activity = Activity.record(actor, "post.published", self)
        Follow.begin(self.author_id, self.id)
        notify_of_post(activity, self)

    def _add_revision(self) -> None:
        """Keep the current text as a new revision."""
        self.revision += 1
        text = {name: getattr(self, name) for name in REVISED}
        revision = Revision(
            post_id=self.id, number=self.revision, editor_id=self.editor_id, created_at=self.updated_at, **text
        )
        db.session.add(revision)

    @classmethod
    def publish_due(cls) -> int:
        """Publish the posts that are scheduled for now or earlier. Returns how many they were."""
        post_ids = db.session.scalars(cls._due().with_only_columns(cls.id).order_by(cls.scheduled_for)).all()
        return sum(cls._publish_scheduled(post_id) for post_id in post_ids)

    @classmethod
    def _due(cls) -> sa.Select[Self]:
        return sa.select(cls).where(cls.scheduled_for <= utcnow(), cls.deleted_at.is_(None))

    @classmethod
    @transactional
    def _publish_scheduled(cls, post_id: int) -> bool:
        """Publish a post whose time has come. If its author may no longer write there, it becomes a draft again.

        Returns whether the post was published.
        """
        post = db.session.scalar(cls._due().where(cls.id == post_id).with_for_update())
        if post is None:
            return False
        author = db.session.scalar(User.active().where(User.id == post.author_id, User.sees(post.topic_id)))
        if author is None or not author.may_write_kind(post.kind):
            post.scheduled_for = None
            activity = Activity.record(None, "post.unscheduled", post)
            notify("unpublished", activity, post, who=User.id == post.author_id)
            return False
        if (body := link_pages(post.body, author)) != post.body:
            post.body, post.html = body, render_body(author, body)
        post._publish(author)
        return True

    @classmethod
    @transactional
    def pin(cls, actor: User, post_id: int, pinned: bool, until: datetime | None = None) -> None:
        """Pin news to the top of Home, permanently or `until` a time, or unpin it.

        Raises `ValidationError` for a page of the handbook, and for a time that has passed.
        """
        post = cls.get_for_change(actor, post_id, Role.EDITOR)
        if pinned and post.kind != "news":
            raise ValidationError("pinned", "Only posts can be pinned, not handbook pages.")
        now = utcnow()
        if pinned and until is not None and until <= now:
            raise ValidationError("until", "Choose today or a later day.")
        if (pinned, until) != (post.is_pinned(now), post.pinned_until):
            post.pinned_at, post.pinned_until = (now, until) if pinned else (None, None)
            Activity.record(actor, "post.pinned" if pinned else "post.unpinned", post)


sa.Index("uq_posts_author_id_form_id", Post.author_id, Post.form_id, unique=True)
sa.Index("ix_posts_news", Post.kind, Post.deleted_at, Post.published_at, Post.id)
sa.Index("ix_posts_topic", Post.topic_id, Post.kind, Post.deleted_at, Post.published_at, Post.id)
sa.Index("ix_posts_author", Post.author_id, Post.deleted_at, Post.published_at, Post.id)
sa.Index("ix_posts_tree", Post.topic_id, Post.kind, Post.deleted_at, Post.position, Post.title_key, Post.id)
sa.Index("ix_posts_changed", Post.kind, Post.deleted_at, Post.updated_at, Post.id)
sa.Index("ix_posts_pinned", Post.kind, Post.deleted_at, Post.pinned_at, Post.id)
sa.Index("ix_posts_bin", Post.deleted_at, Post.id, sqlite_where=Post.deleted_at.is_not(None))
sa.Index("ix_posts_owner", Post.owner_id, Post.review_by)
sa.Index("ix_posts_review", Post.kind, Post.deleted_at, Post.review_by, Post.id)
sa.Index("ix_posts_must_read", Post.must_read_since)
sa.Index("uq_invitations_author_id_form_id", Invitation.author_id, Invitation.form_id, unique=True)
sa.Index("uq_topics_author_id_form_id", Topic.author_id, Topic.form_id, unique=True)


# -- Posts: reviews of handbook pages ----------------------------------------------------------------------------------


class PageReview:
    """The reviews of handbook pages. A page can have an owner, and a day by which its review is due."""

    @classmethod
    @transactional
    def verify(cls, actor: User, post_id: int, day: date) -> date:
        """Confirm on `day` that a page is still accurate. Returns the day of its next review.

        Raises `NotVisible`, `Forbidden` if the person neither owns the page nor may edit it, and `ValidationError` if
        the page has no reviews.
        """
        user = User.acting(actor.id)
        page = Post.get_visible(user, post_id)
        if page.kind != "page":
            raise NotVisible
        if not user.can_review(page):
            raise Forbidden
        if not page.review_every:
            raise ValidationError("review_every", "No reviews are set up for this page.")
        due = months_after(day, page.review_every)
        page.reviewed_at, page.review_by = utcnow(), due
        Activity.record(user, "post.reviewed", page)
        return due

    @classmethod
    @transactional
    def notify_overdue(cls, day: date) -> int:
        """Notify the owners of overdue pages, once for each missed review. Returns how many pages they were."""
        overdue = sa.select(Post).where(
            Post.kind == "page",
            Post.deleted_at.is_(None),
            Post.is_published(),
            Post.review_by < day,
            Post.owner_id.is_not(None),
            sa.or_(Post.review_told.is_(None), Post.review_told < Post.review_by),
        )
        pages = db.session.scalars(overdue.with_for_update().execution_options(populate_existing=True)).all()
        for page in pages:
            page.review_told = page.review_by
            activity = Activity.record(None, "post.overdue", page)
            notify("review", activity, page, who=User.id == page.owner_id)
        return len(pages)

    @classmethod
    def assign(cls, page: Post, owner_id: int | None, review_every: int | None) -> None:
        """Set the owner of a page and the months between its reviews, as part of a save. None means no reviews.

        Raises `ValidationError` if the owner is not active, or does not see the page's topic.
        """
        if owner_id is not None and owner_id != page.owner_id:
            cls._check_owner(owner_id, page.topic_id)
        if review_every != page.review_every:
            page.reviewed_at = utcnow() if review_every else None
            page.review_by = months_after(site_day(utcnow()), review_every) if review_every else None
        page.owner_id, page.review_every = owner_id, review_every

    @staticmethod
    def _check_owner(owner_id: int, topic_id: int) -> None:
        owner = db.session.get(User, owner_id)
        if owner is None or not owner.is_active:
            raise ValidationError("owner", "Choose someone whose account is active.")
        if not count_of(User, User.id == owner_id, User.sees(topic_id)):
            raise ValidationError("owner", f"{owner.name} can't see that topic. Choose someone who can.")


def months_after(day: date, months: int) -> date:
    """Return the same day some months later, or the month's last day if it has no such day."""
    years, month = divmod(day.month - 1 + months, 12)
    year = day.year + years
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


# -- Posts: the tree of handbook pages ---------------------------------------------------------------------------------


class PageTree:
    """Where handbook pages stand: below another page of their topic or at the top, by their positions and titles.

    The order is alphabetical until an editor arranges a topic, and a new page is its last. A page below a deleted one
    is shown at the top, and is back in its place when that is restored.
    """

    @classmethod
    @transactional
    def arrange(cls, actor: User, topic_id: int, places: Mapping[int, Any]) -> None:
        """Give some pages of a topic, by their ids, a parent and a position. Then the positions of all are 1, 2, 3 …

        Raises what `get_for_change` raises, and `ValidationError` if a page cannot be below that parent.
        """
        topic = Topic.get_for_change(actor, topic_id)
        found = sa.select(Post).filter_by(topic_id=topic_id, kind="page")
        pages = db.session.scalars(found.execution_options(populate_existing=True)).all()
        for page in pages:
            page.parent_id, page.position = places.get(page.id, (page.parent_id, page.position))
        for position, page in enumerate(sorted(pages, key=attrgetter("position", "title_key", "id")), 1):
            page.position = position
        cls._check({page.id: page.parent_id for page in pages})
        Activity.record(actor, "topic.arranged", topic)

    @classmethod
    def assign(cls, page: Post, parent_id: int | None, changes: set[str]) -> None:
        """Put a page below another one, as part of a save. What was below a page that left its topic goes up a level.

        Raises `ValidationError` if the page cannot be below that one.
        """
        if not changes & {"kind", "topic_id", "parent_id"}:
            return
        if page.published_at and changes & {"kind", "topic_id"}:
            db.session.execute(sa.update(Post).filter_by(parent_id=page.id).values(parent_id=page.parent_id))
        if parent_id:
            pages = sa.select(Post.id, Post.parent_id).filter_by(topic_id=page.topic_id, kind="page")
            cls._check({**dict(db.session.execute(pages).all()), page.id: parent_id})
        page.parent_id = parent_id
        page.position = UNPLACED

    @staticmethod
    def _check(parents: dict[Any, Any]) -> None:
        """Raise `ValidationError` if a page of a topic is below one of another topic, too deep, or below itself."""
        level = {*parents}
        for _ in range(PAGE_LEVELS):  # each goes up one level; from the top to None, and from another topic nowhere
            level = {parents.get(page_id, page_id) for page_id in level}
        if level - {None}:
            raise ValidationError(
                "parent_id", f"Choose another page of the same topic: pages go {PAGE_LEVELS} levels deep."
            )


# -- Revisions ---------------------------------------------------------------------------------------------------------


class Revision(db.Model):
    """The text of a post as it was published, or as one of its changes left it. Revisions are never changed."""

    __tablename__ = "revisions"
    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int] = mapped_column(sa.ForeignKey("posts.id", ondelete="CASCADE"))
    number: Mapped[int]
    editor_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="RESTRICT"))
    created_at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(sa.String(8))
    topic_id: Mapped[int | None] = mapped_column(sa.ForeignKey("topics.id", ondelete="SET NULL"))
    title: Mapped[str] = mapped_column(sa.String(TITLE_MAX))
    body: Mapped[str] = mapped_column(LongText)
    editor: Mapped[User] = relationship(lazy="joined", innerjoin=True)

    @classmethod
    def of(cls, post: Post, number: int | None) -> sa.Select[Self]:
        """Select a revision of a post."""
        return sa.select(cls).filter_by(post_id=post.id, number=number)


sa.Index("uq_revisions_post_id_number", Revision.post_id, Revision.number, unique=True)


# -- Must-read ---------------------------------------------------------------------------------------------------------


class MustReadRole(db.Model):
    """A role whose people must read a post."""

    __tablename__ = "must_read_roles"
    post_id: Mapped[int] = mapped_column(sa.ForeignKey("posts.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[Role] = mapped_column(RoleType, primary_key=True)


class MustReadPerson(db.Model):
    """A person, chosen by name, who must read a post."""

    __tablename__ = "must_read_people"
    post_id: Mapped[int] = mapped_column(sa.ForeignKey("posts.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True)


class Acknowledgement(db.Model):
    """A person's confirmation that they have read a revision of a post. It is never changed and never deleted."""

    __tablename__ = "acknowledgements"
    __table_args__ = (sa.UniqueConstraint("post_id", "user_id", "revision"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int] = mapped_column(sa.ForeignKey("posts.id", ondelete="CASCADE"))
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="RESTRICT"), index=True)
    revision: Mapped[int]
    at: Mapped[datetime]
    user: Mapped[User] = relationship()

    # -- queries

    @classmethod
    def required_readers(cls, person: Any = User) -> sa.ColumnElement[bool]:
        """Whether a person must read a post: active people who see it and were chosen, by role or by name.

        Returns a condition on `Post` and `person`. The author of a post is never required to read it, and nobody is
        required to read a post that is deleted, expired or not published yet.
        """
        by_role = sa.exists().where(MustReadRole.post_id == Post.id, MustReadRole.role == person.role)
        by_name = sa.exists().where(MustReadPerson.post_id == Post.id, MustReadPerson.user_id == person.id)
        return sa.and_(
            Post.must_read_since > LONG_AGO,  # a range, so that SQLite uses the index
            Post.listed(person=person),
            Post.current(),
            person.is_active,
            person.id != Post.author_id,
            sa.or_(by_role.correlate(Post, person), by_name.correlate(Post, person)),
        )

    @classmethod
    def pending(cls, person: Any = User) -> sa.ColumnElement[bool]:
        """Whether a person still has to read a post, as a condition on `Post` and `person`."""
        given = sa.exists().where(cls.post_id == Post.id, cls.user_id == person.id)
        given = given.where(cls.revision >= Post.must_read_revision).correlate(Post, person)
        return sa.and_(cls.required_readers(person), sa.not_(given))

    @classmethod
    def of_viewer(cls) -> tuple[Any, ...]:
        """Columns of a post: must the person bound as `viewer` read it, what revision did they confirm, and when?"""
        person, mine = aliased(User), (cls.post_id == Post.id, cls.user_id == VIEWER)
        required = sa.exists().where(person.id == VIEWER, cls.required_readers(person)).correlate(Post)
        revision = sa.select(sa.func.max(cls.revision)).where(*mine).correlate(Post).scalar_subquery()
        at = sa.select(sa.func.max(cls.at)).where(*mine).correlate(Post).scalar_subquery()
        return required.label("is_required"), revision.label("read_revision"), at.label("read_at")

    @classmethod
    def report(cls, post: Post) -> Report:
        """Return who has read a post, who has not, and who confirmed it but is no longer required to read it."""
        required = cls._people_of(post, cls.required_readers())
        given = sa.select(cls).filter_by(post_id=post.id).order_by(cls.at, cls.id).options(joinedload(cls.user))
        lines = {user.id: ReportLine(user, "pending") for user in db.session.scalars(required)}
        for acknowledgement in db.session.scalars(given):
            user = acknowledgement.user
            line = lines.setdefault(user.id, ReportLine(user, "past"))
            line.given.append(acknowledgement)
            if line.state == "pending" and acknowledgement.revision >= (post.must_read_revision or 0):
                line.state = "read"
        return Report(sorted(lines.values(), key=lambda line: (REPORT_STATES.index(line.state), line.person.name_key)))

    @staticmethod
    def _people_of(post: Post, condition: sa.ColumnElement[bool]) -> sa.Select[User]:
        """Select the people for whom a condition on `Post` and `User` is true of a post."""
        return sa.select(User).join(Post, Post.id == post.id).where(condition).params(now=utcnow())

    # -- actions

    @classmethod
    @transactional
    def acknowledge(cls, actor: User, post_id: int, revision: int) -> None:
        """Record that a person has read a revision of a post (0: the newest). A second time, nothing happens.

        Raises `NotVisible`, or `ValidationError` where they are not required to read the post or have to read a newer
        revision.
        """
        user = User.acting(actor.id)
        post = Post.get_visible(user, post_id)
        if db.session.scalar(cls._people_of(post, cls.required_readers()).where(User.id == user.id)) is None:
            raise ValidationError("revision", "You haven't been asked to confirm this.")
        read = min(revision or post.revision, post.revision)
        if read < (post.must_read_revision or 0):
            raise ValidationError("revision", "This was changed while you read it. Please read it again, then confirm.")
        if database.insert_if_absent(cls, post_id=post.id, user_id=user.id, revision=read, at=utcnow()):
            Activity.record(user, "post.acknowledged", post, f"revision {read}")

    @classmethod
    @transactional
    def require(
        cls, actor: User, post_id: int, roles: Iterable[Role] = (), people: Iterable[int] = (),
        due: date | None = None, again: bool = False,
    ) -> None:  # fmt: skip
        """Require people to read a post, by role and by name. Editors only.

        For a draft, they are told when it is published. With `again`, people who confirmed an earlier revision have to
        confirm once more. Raises `ValidationError` when nobody is chosen.
        """
        post = Post.get_for_change(actor, post_id, Role.EDITOR)
        roles = set(roles)
        named = db.session.scalars(sa.select(User.id).where(User.id.in_(set(people)), User.is_active)).all()
        if not roles and not named:
            raise ValidationError("audience", "Choose at least one role or one person.")
        if again or post.must_read_since is None:
            post.must_read_revision = max(post.revision, 1)
        post.must_read_since, post.must_read_due = post.must_read_since or utcnow(), due
        for model in (MustReadRole, MustReadPerson):
            db.session.execute(sa.delete(model).filter_by(post_id=post.id))
        db.session.add_all(MustReadRole(post_id=post.id, role=role) for role in roles)
        db.session.add_all(MustReadPerson(post_id=post.id, user_id=user_id) for user_id in named)
        activity = Activity.record(actor, "post.must_read", post)
        notify_required(activity, post)

    @classmethod
    @transactional
    def stop_requiring(cls, actor: User, post_id: int) -> None:
        """Stop requiring people to read a post. Their confirmations stay on record."""
        post = Post.get_for_change(actor, post_id, Role.EDITOR)
        if post.must_read_since is not None:
            post.must_read_since = None
            Activity.record(actor, "post.must_read_ended", post)

    @classmethod
    @transactional
    def remind(cls, actor: User, post_id: int) -> int:
        """Remind the people who still have to read a post, at most once a day. Returns how many there are.

        Raises `ValidationError` when there is nobody to remind, or when the last reminder was less than a day ago.
        """
        post, now = Post.get_for_change(actor, post_id), utcnow()
        count = count_of(cls._people_of(post, cls.pending()).with_only_columns(User.id).subquery())
        if not count:
            raise ValidationError("remind", "There's nobody left to remind.")
        if post.reminded_at and now - post.reminded_at < REMIND_EVERY:
            raise ValidationError("remind", "They were reminded less than a day ago. Give them until tomorrow.")
        post.reminded_at = now
        activity = Activity.record(actor, "post.reminded", post, plural(count, "person", "people"))
        notify_required(activity, post, "reminder")
        return count


REPORT_STATES = ("pending", "read", "past")  # past: they confirmed it, but are no longer required to


@dataclass
class ReportLine:
    """What a report says about one person."""

    person: User
    state: str  # one of REPORT_STATES
    given: list[Acknowledgement] = dataclass_field(default_factory=list)


@dataclass
class Report:
    """Who has read a must-read post."""

    lines: list[ReportLine]

    @property
    def required(self) -> int:
        return sum(line.state != "past" for line in self.lines)

    @property
    def read(self) -> int:
        return sum(line.state == "read" for line in self.lines)


# -- Comments ----------------------------------------------------------------------------------------------------------


class Comment(SoftDelete, db.Model):
    """A comment below a post."""

    __tablename__ = "comments"
    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int] = mapped_column(sa.ForeignKey("posts.id", ondelete="CASCADE"))
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="RESTRICT"))
    form_id: Mapped[str] = mapped_column(sa.String(32))
    body: Mapped[str] = mapped_column(LongText)
    html: Mapped[str] = mapped_column(LongText)
    renderer: Mapped[int] = mapped_column(sa.SmallInteger)
    created_at: Mapped[datetime]
    edited_at: Mapped[datetime | None]

    post: Mapped[Post] = relationship()
    author: Mapped[User] = relationship(foreign_keys=[author_id])

    @property
    def url(self) -> str:
        """Its place on the page of its post, which shows the newest comments."""
        return f"/posts/{self.post_id}#comment-{self.id}"

    # -- queries

    @classmethod
    def reachable(cls) -> sa.ColumnElement[bool]:
        """Whether the person bound as `viewer` may see a comment's post. The comment itself may be deleted."""
        return cls.post.has(Post.visible())

    @classmethod
    def later_than(cls, comment: Comment) -> int | None:
        """Return the cursor of the page with a comment: the id before which it begins, or None for the newest page."""
        later = sa.select(cls.id).where(cls.post_id == comment.post_id, cls.deleted_at.is_(None), cls.id > comment.id)
        beyond = later.order_by(cls.id).offset(COMMENTS_PER_PAGE - 1).limit(1)  # it never skips more than a page
        return db.session.scalar(beyond)

    # -- predicates

    def editable_by(self, user: User) -> bool:
        """Whether a person who sees this comment may delete and restore it: its author and editors may."""
        return user.is_editor or (user.may_write and self.author_id == user.id)

    # -- actions

    @classmethod
    def create(cls, actor: User, post_id: int, *, body: str, form_id: str) -> Comment:
        """Comment on a post. Returns the comment; when a form is sent twice, it is the first one.

        Raises `NotVisible` or `Forbidden`.
        """
        # Rendered before the transaction: a long text takes a second, in which nobody else could write.
        body = link_pages(body, actor)
        return cls._create(actor, post_id, form_id, body, render_body(actor, body))

    @classmethod
    @transactional
    def _create(cls, actor: User, post_id: int, form_id: str, body: str, html: str) -> Comment:
        author = User.acting(actor.id, Role.MEMBER)
        post = Post.get_visible(author, post_id)
        if post.published_at is None:
            raise Forbidden
        first = sa.select(cls).where(cls.author_id == author.id, cls.form_id == form_id)
        if (existing := db.session.scalar(first)) is not None:
            return existing
        comment = cls(
            post_id=post.id, author_id=author.id, form_id=form_id, body=body, html=html,
            renderer=RENDERER_VERSION, created_at=utcnow(),
        )  # fmt: skip
        db.session.add(comment)
        cls.recount(post.id)
        Attachment.attach(author, body, comment=comment)
        activity = Activity.record(author, "comment.created", comment)
        Follow.begin(author.id, post.id)
        notify_of_comment(activity, comment)
        return comment

    @classmethod
    def edit(cls, actor: User, comment_id: int, *, body: str) -> None:
        """Change the text of one's own comment. Raises `NotVisible` or `Forbidden`."""
        body = link_pages(body, actor)
        cls._edit(actor, comment_id, body, render_body(actor, body))

    @classmethod
    @transactional
    def _edit(cls, actor: User, comment_id: int, body: str, html: str) -> None:
        comment = cls.get_for_change(actor, comment_id, Role.MEMBER)
        if comment.author_id != actor.id:
            raise Forbidden
        if comment.body == body:
            return
        before = mentioned_names(comment.html)
        comment.body, comment.html, comment.renderer = body, html, RENDERER_VERSION
        comment.edited_at = utcnow()
        Attachment.attach(actor, body, comment=comment)
        activity = Activity.record(actor, "comment.edited", comment)
        notify_mentioned(activity, comment, before)

    def after_deletion(self) -> None:
        """Count the comments of its post again."""
        self.recount(self.post_id)

    @classmethod
    def recount(cls, post_id: int) -> None:
        """Update a post: how many comments it has, when the newest one was written, and by whom."""
        db.session.flush()
        db.session.connection().execute(COMMENT_COUNTS, {"post_id": post_id})


sa.Index("uq_comments_author_id_form_id", Comment.author_id, Comment.form_id, unique=True)
sa.Index("ix_comments_created", Comment.created_at)
sa.Index("ix_comments_post", Comment.post_id, Comment.deleted_at, Comment.id)
# SQLite's index holds deleted comments only, so that a new comment does not have to be written to it.
sa.Index("ix_comments_bin", Comment.deleted_at, Comment.id, sqlite_where=Comment.deleted_at.is_not(None))

COMMENTS_LEFT = sa.select(Comment).where(Comment.post_id == POST_ID, Comment.deleted_at.is_(None))
NEWEST_COMMENT = COMMENTS_LEFT.order_by(Comment.id.desc()).limit(1)
COMMENT_COUNTS = (
    sa.update(Post)
    .where(Post.id == POST_ID)
    .values(
        comment_count=COMMENTS_LEFT.with_only_columns(sa.func.count()).scalar_subquery(),
        last_comment_at=NEWEST_COMMENT.with_only_columns(Comment.created_at).scalar_subquery(),
        last_comment_by_id=NEWEST_COMMENT.with_only_columns(Comment.author_id).scalar_subquery(),
    )
)


# -- Files -------------------------------------------------------------------------------------------------------------

FILES_MOST = 200  # in one text, or in one form
UNUSED_MOST = 19  # times MAX_UPLOAD_MB: a person with more in files that belong to nothing can't upload another one


class Attachment(SoftDelete, db.Model):
    """An uploaded file. It belongs to a post, to a comment, to a person as their picture, or to nothing yet.

    The file is written before its row and deleted after it: a crash leaves a file without a row, never the contrary.
    """

    __tablename__ = "attachments"
    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int | None] = mapped_column(sa.ForeignKey("posts.id", ondelete="CASCADE"))
    comment_id: Mapped[int | None] = mapped_column(sa.ForeignKey("comments.id", ondelete="CASCADE"), index=True)
    person_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"))
    uploader_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="RESTRICT"))
    name: Mapped[str] = mapped_column(sa.String(FILE_NAME_MAX))
    ending: Mapped[str] = mapped_column(sa.String(ENDING_MAX))
    size: Mapped[int] = mapped_column(sa.BigInteger)
    sha256: Mapped[str] = mapped_column(sa.String(64))
    stored: Mapped[str] = mapped_column(sa.String(32), unique=True)
    width: Mapped[int | None]
    height: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    post: Mapped[Post | None] = relationship()
    comment: Mapped[Comment | None] = relationship()

    # -- queries

    @classmethod
    def is_unused(cls) -> sa.ColumnElement[bool]:
        """Whether a file belongs to nothing yet."""
        return sa.and_(cls.post_id.is_(None), cls.comment_id.is_(None), cls.person_id.is_(None))

    @classmethod
    def reachable(cls) -> sa.ColumnElement[bool]:
        """Whether the person bound as `viewer` may see a file's post or comment. The file itself may be deleted.

        Everybody may see the pictures of people. Only its uploader may see a file that belongs to nothing yet.
        """
        of_text = sa.or_(cls.post.has(Post.visible()), cls.comment.has(Comment.visible()))
        mine = sa.and_(cls.is_unused(), cls.uploader_id == VIEWER)
        return sa.or_(cls.person_id.is_not(None), of_text, mine)

    @classmethod
    def unused_of(cls, user: User, ids: Iterable[int]) -> sa.Select[Self]:
        """Select, among some files, those that a person uploaded and that belong to nothing yet."""
        mine = sa.select(cls).where(cls.uploader_id == user.id, cls.is_unused(), cls.deleted_at.is_(None))
        return mine.where(cls.id.in_(ids)).order_by(cls.id)

    @classmethod
    def require_room(cls, user: User) -> None:
        """Raise `ValidationError` if a person has uploaded too much that belongs to nothing, removed or not."""
        sizes = sa.select(sa.func.sum(cls.size)).where(cls.uploader_id == user.id, cls.is_unused())
        if (db.session.scalar(sizes) or 0) > UNUSED_MOST * current_app.config["MAX_UPLOAD_MB"] * MEGABYTE:
            words = "You've uploaded a lot that is in no post yet. Save your text first, or try again in some days."
            raise ValidationError("upload", words)

    @classmethod
    def ids_in(cls, body: str) -> set[int]:
        """Return the ids of the files to which a text links."""
        return {int(number) for number in _OWN_FILE.findall(body)}

    @classmethod
    def sizes(cls, user: User, body: str) -> dict[int, tuple[int, int]]:
        """Return width and height of the pictures in a text, by their ids, as far as its writer may see them."""
        ids = cls.ids_in(body)
        if not ids:
            return {}
        pictures = cls.visible_to(user).where(cls.id.in_(ids), cls.width.is_not(None))
        return {file.id: (file.width or 0, file.height or 0) for file in db.session.scalars(pictures)}

    # -- predicates

    @property
    def is_picture(self) -> bool:
        return self.width is not None

    @property
    def url(self) -> str:
        return f"/files/{self.id}/{quote(self.name, safe='')}"

    @property
    def home(self) -> str:
        """The address of what it belongs to."""
        if self.person_id:
            return "/account"
        if self.comment_id:
            return f"/comments/{self.comment_id}"
        return f"/posts/{self.post_id}" if self.post_id else "/"

    @property
    def markdown(self) -> str:
        """The Markdown that shows it in a text if it is a picture, and links to it if not."""
        return f"{'!' if self.is_picture else ''}[{escape_markdown(self.name)}]({self.url})"

    @property
    def thumb_size(self) -> tuple[int, int]:
        """The width and height at which its small version is shown."""
        width, height = self.width or 1, self.height or 1
        scale = max(1, max(width, height) * 2 / THUMB_PIXELS)
        return math.ceil(width / scale), math.ceil(height / scale)

    def editable_by(self, user: User) -> bool:
        """Whether a person may remove it: those who may change its post or comment, or its uploader if it has neither.

        A person and administrators may remove that person's picture.
        """
        if self.person_id:
            return self.person_id == user.id or user.is_admin
        owner = self.post or self.comment
        return owner.editable_by(user) if owner else self.uploader_id == user.id

    # -- actions

    @classmethod
    @transactional
    def create(cls, actor: User, stored: StoredFile) -> Self:
        """Make the row of a file that is already on the disk."""
        user = User.acting(actor.id, Role.MEMBER)
        file = cls(uploader_id=user.id, **stored._asdict())
        db.session.add(file)
        Activity.record(user, "attachment.uploaded", file)
        return file

    @classmethod
    @transactional
    def set_avatar(cls, actor: User, stored: StoredFile) -> None:
        """Make a file on the disk a person's picture, and delete their previous one."""
        user = User.acting(actor.id)
        before = sa.update(cls).where(cls.person_id == user.id, cls.deleted_at.is_(None))
        db.session.execute(before.values(deleted_at=utcnow(), deleted_by_id=user.id))
        db.session.add(cls(uploader_id=user.id, person_id=user.id, **stored._asdict()))
        Activity.record(user, "person.picture", user)

    @classmethod
    def attach(
        cls, user: User, body: str, file_ids: Iterable[int] = (), *,
        post: Post | None = None, comment: Comment | None = None,
    ) -> None:  # fmt: skip
        """Attach to a post or comment what its writer uploaded for it, as part of the caller's transaction."""
        ids = {*file_ids, *cls.ids_in(body)}
        if not ids:
            return
        for file in db.session.scalars(cls.unused_of(user, ids).with_for_update()).all():
            file.post, file.comment = post, comment
            Activity.record(user, "attachment.attached", file)

    @classmethod
    def delete_of(cls, user: User) -> Sequence[str]:
        """Delete a person's unpublished posts, and their files in no other text. Returns the files' names."""
        kept = cls.post.has(sa.or_(Post.is_published(), Post.author_id != user.id))
        theirs = sa.and_(cls.uploader_id == user.id, cls.comment_id.is_(None), ~kept)
        stored = db.session.scalars(sa.select(cls.stored).where(theirs)).all()
        db.session.execute(sa.delete(cls).where(theirs))
        db.session.execute(sa.delete(Post).where(Post.author_id == user.id, Post.published_at.is_(None)))
        return stored

    @classmethod
    def prune(cls) -> int:
        """Move old files that no row names to the trash, and those back from it that a row names. Returns how many.

        A crash leaves such files, between writing them and their rows; so do rows that were deleted. Where the database
        knows none of the files, nothing is moved. Raises `SiteMismatch` where they are another site's.
        """
        database.check_site()
        if not database.knows_its_files():
            return 0
        cls._forget_unused()
        names = set(db.session.scalars(sa.select(cls.stored)))
        wanted = [path for path in trash_folder().glob("*") if path.stem in names]
        unwanted = [path for path in database.stored_files() if path.stem not in names and is_older(path, ORPHAN_AGE)]
        moves = {path: stored_path(path.name) for path in wanted}
        moves |= {path: trash_folder() / path.name for path in unwanted}
        return sum(move_file(path, target) for path, target in moves.items())

    @classmethod
    @transactional
    def _forget_unused(cls) -> None:
        """Delete the rows of files that were uploaded long ago and never used."""
        old = sa.select(cls).where(cls.is_unused(), cls.created_at < utcnow() - UNUSED_AGE)
        for file in db.session.scalars(old.with_for_update()):
            db.session.delete(file)
            Activity.record(None, "attachment.forgotten", file)


sa.Index("ix_attachments_post", Attachment.post_id, Attachment.deleted_at, Attachment.id)
sa.Index("ix_attachments_person", Attachment.person_id, Attachment.deleted_at)
sa.Index("ix_attachments_bin", Attachment.deleted_at, Attachment.id, sqlite_where=Attachment.deleted_at.is_not(None))


# -- Links between texts -----------------------------------------------------------------------------------------------

sa.Index("ix_posts_called", Post.title_key, Post.kind)


def pages_titled(user: User, titles: Iterable[str]) -> dict[str, int]:
    """Return the ids of the handbook pages with these titles that a person may see, by the key of the title.

    Of several pages with the same title, it is the oldest.
    """
    keys = {sort_key(tidy(title)) for title in titles}
    pages = sa.select(Post.title_key, Post.id).where(Post.listed(), Post.kind == "page", Post.title_key.in_(keys))
    found = db.session.execute(pages.order_by(Post.id.desc()), {"viewer": user.id})
    return {page.title_key: page.id for page in found}


def pages_suggested(user: User, typed: str) -> Sequence[Any]:
    """Return the pages with a word in their title that begins like this: first those whose first word does."""
    key = sort_key(typed)
    begins = Post.title_key.startswith(key, autoescape=True)
    fits = sa.or_(begins, Post.title_key.contains(f" {key}", autoescape=True))
    pages = sa.select(Post.title, Topic.name.label("topic")).join(Post.topic)
    pages = pages.where(Post.listed(), Post.kind == "page", fits)
    ordered = pages.order_by(begins.desc(), Post.title_key, Post.id).limit(SUGGESTED_MOST)
    found = db.session.execute(ordered, {"viewer": user.id})
    return [page for page in found if not re.search(r"[\[\]|]", page.title)]  # a link cannot name those


def link_pages(body: str, user: User) -> str:
    """Return a text in which each `[[Title]]` of a page that this person sees is a link, which survives a rename.

    Code stays as it is, and so does the title of a page that does not exist.
    """
    titles = {match["title"] for match in itertools.islice(_PAGE_LINK.finditer(body), LINKS_MOST)}
    pages = pages_titled(user, titles) if titles else {}
    if not pages:
        return body

    def link(match: re.Match[str]) -> str:
        title = tidy(match["title"])
        page_id = pages.get(sort_key(title)) if title else None
        return f"[{escape_markdown(tidy(match['words']) or title)}](/posts/{page_id})" if page_id else match[0]

    return "".join(block if is_code else _CODE_OR_PAGE_LINK.sub(link, block) for is_code, block in code_blocks(body))


def render_body(writer: User, body: str) -> str:
    """Return what somebody wrote as HTML: its pictures have their sizes, and it links to the people it mentions."""

    def known(names: set[str]) -> set[str]:
        return User.usernames_among(names - {EVERYONE}) | (names & names_called(writer))

    return render_markdown(body, Attachment.sizes(writer, body), known)


def names_called(writer: User) -> set[str]:
    """Return the folded names by which a person can call several people.

    They are those of groups and, as their slugs, of topics that the person sees; for editors also `EVERYONE`.
    """
    slugs = db.session.scalars(Topic.visible_to(writer).with_only_columns(Topic.slug))
    names = {*slugs, *db.session.scalars(sa.select(Group.name_key))} - {EVERYONE}
    return {*names, EVERYONE} if writer.is_editor else names


def is_called(names: set[str]) -> sa.ColumnElement[bool]:
    """Whether one of some folded names calls a `User`: their own, a group's, a followed topic's, or everyone's."""
    if EVERYONE in names:
        return sa.true()
    grouped = sa.select(GroupMember.user_id).join(Group).where(Group.name_key.in_(names))
    return sa.or_(User.username_key.in_(names), User.id.in_(grouped), follows_topic(Topic.slug.in_(names)))


def outdate_mentions(name: str) -> None:
    """Let `rerender_texts` render the texts again that mention a person or group, as part of an action."""
    for model in (Post, Comment):
        links = model.html.icontains(f'href="/people/{name}"', autoescape=True)
        db.session.execute(sa.update(model).where(links).values(renderer=0))


def count_outdated_texts() -> int:
    """Return how many posts and comments an older version of the renderer rendered."""
    return sum(count_of(model, model.renderer < RENDERER_VERSION) for model in (Post, Comment))


@transactional
def rerender_some(model: type[Post] | type[Comment]) -> int:
    """Render some of the texts again that an older version rendered. Returns how many."""
    outdated = sa.select(model).where(model.renderer < RENDERER_VERSION).order_by(model.id).limit(50)
    texts = db.session.scalars(outdated.with_for_update()).all()
    for text in texts:
        text.renderer = RENDERER_VERSION
        with contextlib.suppress(ValidationError):  # a text from before there was a limit stays as it was rendered
            text.html = render_body(text.author, text.body)
        if isinstance(text, Post):
            text.excerpt = plain_text(text.html)
    SearchEntry.write(texts)  # with the tokens of this version
    return len(texts)


# -- Reactions ---------------------------------------------------------------------------------------------------------


class Reaction(db.Model):
    """A person's reaction to a post or a comment. They can give each kind once."""

    __tablename__ = "reactions"
    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int | None] = mapped_column(sa.ForeignKey("posts.id", ondelete="CASCADE"))
    comment_id: Mapped[int | None] = mapped_column(sa.ForeignKey("comments.id", ondelete="CASCADE"))
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(sa.String(8))
    at: Mapped[datetime]

    @staticmethod
    def posts_for(user: User) -> sa.Select[Post]:
        """Select the posts to which a person may react: those that are published."""
        return Post.visible_to(user).where(Post.is_published())

    @classmethod
    @transactional
    def change(
        cls, actor: User, kind: str, given: bool, *, post_id: int | None = None, comment_id: int | None = None
    ) -> None:
        """Give a reaction to a post or a comment, or take it back. A second time, nothing happens.

        Raises `NotVisible`, or `ValidationError` for a kind that does not exist.
        """
        if kind not in REACTIONS:
            raise ValidationError("kind", "Choose one of the reactions.")
        user = User.acting(actor.id)
        if comment_id:
            thing = one_visible(Comment.visible_to(user).where(Comment.id == comment_id))
        else:
            thing = one_visible(cls.posts_for(user).where(Post.id == post_id))
        mine = {"user_id": user.id, "kind": kind, "post_id": post_id, "comment_id": comment_id}
        existing = db.session.scalar(sa.select(cls).filter_by(**mine).with_for_update())
        if given and existing is None:
            db.session.add(cls(**mine, at=utcnow()))
            activity = Activity.record(user, "reaction.added", thing, kind)
            notify("reaction", activity, thing, who=User.id == thing.author_id)
        elif existing is not None and not given:
            db.session.delete(existing)
            Notification.take_back(user, thing, kind)
            Activity.record(user, "reaction.removed", thing, kind)


sa.Index("uq_reactions_post_id_kind_user_id", Reaction.post_id, Reaction.kind, Reaction.user_id, unique=True)
sa.Index("uq_reactions_comment_id_kind_user_id", Reaction.comment_id, Reaction.kind, Reaction.user_id, unique=True)


class ReactionSummary(NamedTuple):
    """The reactions of one kind to a post or a comment, as a person sees them."""

    kind: str
    symbol: str
    label: str
    is_mine: bool
    names: tuple[str, ...]  # of everybody who gave it; first "You", if the person did

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def who(self) -> str:
        """The first names, and how many others there are."""
        more = self.count - WHO_MOST
        return ", ".join(self.names[:WHO_MOST]) + (f" and {plural(more, 'other')}" if more > 0 else "")


WHO_MOST = 10


# -- What happened -----------------------------------------------------------------------------------------------------


class Activity(db.Model):
    """Who did what, to what, when and from where. The actions themselves write it, and nobody can edit it.

    It is a record and nothing else. Without foreign keys, it outlives what it is about.
    """

    __tablename__ = "activities"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    actor_id: Mapped[int | None]
    action: Mapped[str] = mapped_column(sa.String(40))
    object_type: Mapped[str] = mapped_column(sa.String(20))
    object_id: Mapped[int]
    name: Mapped[str] = mapped_column(sa.String(TITLE_MAX))  # of the object, as it was called; of a draft, nothing
    detail: Mapped[str] = mapped_column(sa.String(TITLE_MAX))
    lookup: Mapped[str] = mapped_column(sa.String(2 * TITLE_MAX))
    confidential: Mapped[bool]  # whether it was in a private topic
    changes: Mapped[str] = mapped_column(LongText)  # JSON: what was changed, with what was there before and after
    address: Mapped[str] = mapped_column(sa.String(45))
    actor: Mapped[User | None] = relationship(
        primaryjoin="foreign(Activity.actor_id) == User.id", viewonly=True, lazy="joined"
    )

    # -- queries

    @classmethod
    def mentions(cls, word: str) -> sa.ColumnElement[bool]:
        """Whether a folded word is in what an entry tells, or in the profile of who acted."""
        by_them = cls.actor.has(User.lookup.contains(word, autoescape=True))
        return sa.or_(cls.lookup.contains(word, autoescape=True), by_them)

    # -- in words

    @property
    def who(self) -> str:
        if self.actor:
            return self.actor.name
        return "Someone" if self.action in ("person.sign_in_failed", "person.link_asked") else "Corkboard"

    @property
    def verb(self) -> str:
        """What was done, such as "deleted the topic"."""
        kind, _, done = self.action.partition(".")
        return ACTIVITY_WORDS.get(self.action) or f"{done.replace('_', ' ')} {ACTIVITY_NOUNS.get(kind, '')}".strip()

    @property
    def thing(self) -> str:
        """What it was done to. Empty for what people do to their own account."""
        if self.object_type == "user" and self.object_id == self.actor_id:
            return ""
        if self.confidential and not self.name:
            return "something in a private topic"
        return self.name or UNNAMED.get(self.object_type, "")

    @property
    def url(self) -> str:
        """Where to open what it was done to. Empty for what has no page or no name."""
        place = ACTIVITY_PLACES.get(self.object_type) if self.name else None
        return f"{place}/{self.object_id}" if place else ""

    @property
    def before_and_after(self) -> dict[str, list[str]]:
        """The values before and after a change, by the names of their fields."""
        return json.loads(self.changes)

    # -- actions

    @classmethod
    def record(
        cls, actor: User | None, action: str, thing: Any, detail: str = "", changes: Mapping[str, Any] | None = None
    ) -> Activity:
        """Record what an action does, as part of it, and return the record. Without an `actor`, the site itself acts.

        `thing` is a row of a model, or the pair of a kind and an id. Every administrator can read the `detail` and the
        `changes`: nothing from a private topic may be in them.
        """
        db.session.flush()  # so that a new thing has its id
        kind, thing_id = thing if isinstance(thing, tuple) else (type(thing).__name__.lower(), thing.id)
        name, confidential = cls._name_of(thing)
        address = client_address()
        activity = cls(
            at=utcnow(),
            actor_id=actor.id if actor else None,
            action=action,
            object_type=kind,
            object_id=thing_id,
            name=name[:TITLE_MAX],
            detail=detail[:TITLE_MAX],
            lookup=sort_key(f"{address} {name} {detail}", 2 * TITLE_MAX),
            confidential=confidential,
            changes=json.dumps(changes or {}),
            address=address,
        )
        db.session.add(activity)
        db.session.flush()
        return activity

    @classmethod
    def forget(cls, user: User) -> None:
        """Blank a person's names and addresses in the record, as part of an action."""
        about = sa.and_(cls.object_type == "user", cls.object_id == user.id)
        names = {user.name, *db.session.scalars(sa.select(cls.name).where(about))}
        theirs = sa.update(cls).where(sa.or_(cls.actor_id == user.id, about))
        db.session.execute(theirs.values(address="", lookup=""))
        db.session.execute(sa.update(cls).where(about).values(name=FORMER_COLLEAGUE, detail="", changes="{}"))
        db.session.execute(sa.update(cls).where(cls.detail.in_(names)).values(detail="", lookup=""))

    @staticmethod
    def _name_of(thing: Any) -> tuple[str, bool]:
        """What a thing is called, and whether it is in a private topic. A name that not everybody may know is empty."""
        post = post_of(thing)
        if post is None:
            name = "" if isinstance(thing, Attachment) else getattr(thing, "name", "")
            return name, getattr(thing, "private", False)
        confidential = db.session.get_one(Topic, post.topic_id).private
        is_known = not confidential and (post.published_at or post.scheduled_for)
        return getattr(thing, "name", post.title) if is_known else "", confidential

    @classmethod
    @transactional
    def prune(cls, before: datetime) -> int:
        """Delete what is older, and record that. Returns how many entries there were."""
        count = db.session.connection().execute(sa.delete(cls).where(cls.at < before)).rowcount
        if count:
            cls.record(None, "activity.pruned", ("activity", 0), plural(count, "entry", "entries"))
        return count


def post_of(thing: Any) -> Post | None:
    """The post that something is, or is part of."""
    if isinstance(thing, Post):
        return thing
    whole = getattr(thing, "post", None) or getattr(thing, "comment", None)
    return post_of(whole) if whole else None


LATEST_FIRST = (Activity.at.desc(), Activity.id.desc())
ACTIVITY_PLACES = {
    "post": "/posts", "comment": "/comments", "topic": "/admin/topics", "user": "/admin/people",
    "group": "/admin/groups",
}  # fmt: skip
UNNAMED = {"post": "a post", "attachment": "a file", "user": "an unknown name", "invitation": "without a name"}

# What is said of an action is its second word and a noun ("deleted the topic"), unless it has words of its own.
ACTIVITY_NOUNS = {
    "comment": "a comment on",
    "topic": "the topic",
    "group": "the group",
    "token": "the access token",
    "invitation": "the invitation",
    "settings": "the settings",
    "bin": "the recycle bin",
    "backup": "a backup",
}
ACTIVITY_WORDS = {
    "person.sign_in_failed": "failed to sign in as",
    "person.asked": "asked to join",
    "person.approved": "let in",
    "person.profile": "changed their profile",
    "person.role": "changed the role of",
    "person.password": "changed their password",
    "person.password_reset": "set a new password for",
    "person.password_by_link": "chose a new password with a link",
    "person.link": "made a link for a new password for",
    "person.link_asked": "asked for a link for a new password for",
    "person.second_factor_on": "turned on two-step sign-in",
    "person.second_factor_off": "turned off two-step sign-in",
    "person.second_factor_reset": "turned off two-step sign-in for",
    "person.recovery_code": "used a recovery code",
    "person.connected": "connected their company account",
    "person.rescued": "became an administrator again, with a new password, on the command line",
    "person.exported": "exported the data of",
    "person.erased": "erased a person, now",
    "person.picture": "changed their picture",
    "person.appearance": "changed their appearance settings",
    "person.notifications": "changed their notification settings",
    "person.read_all": "marked all notifications as read",
    "post.unscheduled": "could not publish",
    "post.turned": "moved between News and Handbook:",
    "post.shared_again": "notified everyone again of",
    "post.overdue": "asked for a review of",
    "post.must_read": "asked people to read",
    "post.must_read_ended": "stopped asking people to read",
    "post.reminded": "reminded people to read",
    "post.acknowledged": "confirmed",
    "comment.created": "commented on",
    "reaction.added": "reacted to",
    "reaction.removed": "removed a reaction from",
    "attachment.attached": "added",
    "attachment.forgotten": "cleared away",
    "topic.closed": "made this topic private:",
    "topic.opened": "made this topic open:",
    "topic.member_added": "added a member to the topic",
    "topic.member_removed": "removed a member from the topic",
    "mail.again": "sent an email again",
    "activity.pruned": "deleted old activity entries",
    "job.run": "ran a job",
}


# -- What one follows, and has read ------------------------------------------------------------------------------------


class Follow(db.Model):
    """A person follows a topic (for new posts) or a post (for new comments), or has muted it.

    Whoever writes a post, or a comment on it, follows that post from then on, unless they have muted it. Whoever has
    not chosen for a topic follows it if it is followed by default.
    """

    __tablename__ = "follows"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), index=True)
    topic_id: Mapped[int | None] = mapped_column(sa.ForeignKey("topics.id", ondelete="CASCADE"))
    post_id: Mapped[int | None] = mapped_column(sa.ForeignKey("posts.id", ondelete="CASCADE"))
    state: Mapped[str] = mapped_column(sa.String(9))  # following or muted; of a topic also none

    # -- queries

    @classmethod
    def of_viewer(cls) -> sa.Label[Any]:
        """A column of a post: how the person bound as `viewer` follows it, or NULL."""
        mine = sa.select(cls.state).where(cls.user_id == VIEWER, cls.post_id == Post.id).correlate(Post)
        return mine.scalar_subquery().label("follows")

    # -- actions

    @classmethod
    @transactional
    def choose(cls, actor: User, state: str, *, topic_id: int | None = None, post_id: int | None = None) -> None:
        """Follow a topic or a post, mute it, or with "none" stop doing either. Raises `NotVisible`.

        That somebody does not follow a topic is kept, because of those that are followed by default.
        """
        user = User.acting(actor.id)
        model: Any = Post if post_id else Topic
        thing = one_visible(model.visible_to(user).where(model.id == (post_id or topic_id)))
        place = {"user_id": user.id, "topic_id": topic_id, "post_id": post_id}
        follow = db.session.scalar(sa.select(cls).filter_by(**place).with_for_update())
        default = "following" if topic_id and thing.followed_by_default else "none"
        if state == (follow.state if follow else default):
            return
        if follow is None:
            db.session.add(cls(**place, state=state))
        elif state == "none" and post_id:
            db.session.delete(follow)
        else:
            follow.state = state
        verb = {"following": "followed", "muted": "muted", "none": "unfollowed"}[state]
        Activity.record(user, f"{'post' if post_id else 'topic'}.{verb}", thing)

    @classmethod
    def begin(cls, user_id: int, post_id: int) -> None:
        """Let a person follow a post, unless they have muted it, as part of the caller's transaction."""
        database.insert_if_absent(cls, user_id=user_id, post_id=post_id, state="following")

    @classmethod
    def move(cls, topic_id: int, into_id: int) -> None:
        """Let those who follow a topic, or have muted it, do so with another, as part of the caller's transaction."""
        found = sa.select(cls.user_id, sa.literal(into_id), cls.state)
        found = found.where(cls.topic_id == topic_id, cls.state != "none")
        insert = sa.insert(cls).from_select([cls.user_id, cls.topic_id, cls.state], found, include_defaults=False)
        db.session.execute(database.unless_present(insert))
        db.session.execute(sa.delete(cls).where(cls.topic_id == topic_id))


sa.Index("uq_follows_topic_id_user_id", Follow.topic_id, Follow.user_id, unique=True)
sa.Index("uq_follows_post_id_user_id", Follow.post_id, Follow.user_id, unique=True)


class ReadMark(db.Model):
    """When a person last opened a post."""

    __tablename__ = "read_marks"
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    post_id: Mapped[int] = mapped_column(sa.ForeignKey("posts.id", ondelete="CASCADE"), primary_key=True, index=True)
    at: Mapped[datetime]

    @classmethod
    def of_viewer(cls) -> sa.Label[Any]:
        """A column of a post: when the person bound as `viewer` last opened it."""
        mine = sa.select(cls.at).where(cls.user_id == VIEWER, cls.post_id == Post.id).correlate(Post)
        return mine.scalar_subquery().label("looked_at")

    @classmethod
    @transactional
    def write(cls, user_id: int, post_id: int, at: datetime) -> None:
        """Record that a person opened a post, and mark their notifications about it as read."""
        database.upsert(cls, [{"user_id": user_id, "post_id": post_id, "at": at}])
        Notification.read(user_id, at, Notification.post_id == post_id, Notification.created_at <= at)


# -- Notifications -----------------------------------------------------------------------------------------------------


class NotificationChoice(db.Model):
    """How a person wants to be notified of one kind."""

    __tablename__ = "notification_choices"
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(12), primary_key=True)
    way: Mapped[str] = mapped_column(sa.String(6))  # one of WAYS or MAIL_WAYS


# How people can be notified: the first ways only where there is a mail server.
MAIL_WAYS = {
    "mail": "On the site and by email at once",
    "daily": "On the site and in a daily email",
    "weekly": "On the site and in a weekly email",
}
WAYS = {"site": "On the site", "none": "Off"}
# The kinds of notifications that people can switch off, in the words of that form.
KINDS = {
    "mention": "Someone mentions you",
    "must_read": "You are asked to read something",
    "comment": "A comment on a post you follow",
    "post": "Something new in a topic you follow",
    "shared_again": "A post is shared again after an update",
    "reaction": "A reaction to something you wrote",
    "review": "A page you own is due for review",
}
# The kinds of emails about a person's own account: nobody can switch them off. The words say what each is about.
ACCOUNT_MAILS = {
    "reset": "Choose a new password",
    "password": "Your password was changed",
    "code_off": "Two-step sign-in was turned off",
    "waiting": "Someone wants to join",
    "approved": "You can sign in now",
    "welcome": "You have an account",
}
# All kinds of emails.
MAIL_KINDS = {
    **KINDS,
    **ACCOUNT_MAILS,
    "reminder": "A reminder to read something",
    "unpublished": "Your scheduled post can't be published",
    "daily": "The daily summary",
    "weekly": "The weekly summary",
}


def mail_is_on() -> bool:
    """Return whether the site sends email."""
    return bool(current_app.config["MAIL_SERVER"])


# What a notification of each kind says between the names of people and the title of the post.
SAID = {
    "mention": "mentioned you in",
    "must_read": "asked you to read",
    "reminder": "reminded you to read",
    "comment": "commented on",
    "post": "posted",
    "shared_again": "shared again",
    "reaction": "reacted to what you wrote in",
    "review": "Review due:",
    "unpublished": "Could not be published:",
}
DEFAULT_WAYS = dict.fromkeys(SAID, "mail") | dict.fromkeys(("comment", "reaction", "review"), "daily")
# The kinds that reach people even when they muted the post or its topic.
PERSONAL = {"mention", "must_read", "reminder", "review", "unpublished"}


class Notification(db.Model):
    """A person is notified of an activity. There is one row for each person and activity; pages group them."""

    __tablename__ = "notifications"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"))
    activity_id: Mapped[int]
    kind: Mapped[str] = mapped_column(sa.String(12))
    post_id: Mapped[int] = mapped_column(sa.ForeignKey("posts.id", ondelete="CASCADE"), index=True)
    comment_id: Mapped[int | None] = mapped_column(sa.ForeignKey("comments.id", ondelete="CASCADE"), index=True)
    actor_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[datetime]
    read_at: Mapped[datetime | None] = mapped_column(index=True)
    way: Mapped[str] = mapped_column(sa.String(6))  # one of MAIL_WAYS until an email is queued; else "site"
    mail_id: Mapped[int | None] = mapped_column(sa.ForeignKey("outgoing_mail.id", ondelete="SET NULL"), index=True)

    post: Mapped[Post] = relationship()
    comment: Mapped[Comment | None] = relationship()
    actor: Mapped[User | None] = relationship(foreign_keys=[actor_id])
    mail: Mapped[OutgoingMail | None] = relationship()

    @property
    def said(self) -> str:
        return SAID[self.kind]

    @property
    def address(self) -> str:
        """The address of the comment that it is about, or the post."""
        return f"/comments/{self.comment_id}" if self.comment_id else f"/posts/{self.post_id}"

    # -- queries

    @classmethod
    def visible(cls, person: Any = None) -> sa.ColumnElement[bool]:
        """Whether a `person`, or else the one bound as `viewer`, still sees what a notification is about."""
        return sa.and_(cls.post.has(Post.shown_to(person)), cls.has_its_comment())

    @classmethod
    def has_its_comment(cls) -> sa.ColumnElement[bool]:
        """Whether the comment that a notification is about, if any, is not deleted."""
        return sa.or_(cls.comment_id.is_(None), cls.comment.has(Comment.deleted_at.is_(None)))

    @classmethod
    def is_about(cls, thing: Post | Comment) -> sa.ColumnElement[bool]:
        """Whether a notification is about a comment, or about a post itself."""
        if isinstance(thing, Comment):
            return cls.comment_id == thing.id
        return sa.and_(cls.post_id == thing.id, cls.comment_id.is_(None))

    @classmethod
    def unread(cls) -> sa.ScalarSelect[int]:
        """A column of a `User`: how many groups of unread notifications their list shows."""
        groups = sa.func.count(sa.distinct(sa.cast(cls.post_id, sa.String(10)) + cls.kind))
        unread = sa.select(groups).where(cls.user_id == User.id, cls.read_at.is_(None), cls.visible(User))
        return unread.correlate(User).scalar_subquery()

    @classmethod
    def groups(cls) -> sa.Subquery:
        """The notifications of the person bound as `viewer`, grouped by post and kind, the unread ones apart."""
        is_unread = cls.read_at.is_(None).label("is_unread")
        mine = sa.select(
            is_unread,
            sa.func.max(cls.id).label("newest"),
            sa.func.min(cls.id).label("oldest"),
            sa.func.count(sa.distinct(cls.actor_id)).label("people"),
            sa.func.min(cls.actor_id).label("first_actor"),
            sa.func.max(cls.actor_id).label("last_actor"),
        ).where(cls.user_id == VIEWER, cls.visible())
        return mine.group_by(cls.post_id, cls.kind, is_unread).subquery()

    @classmethod
    def choices(cls, user: User) -> dict[str, str]:
        """Return how a person wants to be notified of each kind."""
        chosen = sa.select(NotificationChoice.kind, NotificationChoice.way).filter_by(user_id=user.id)
        return DEFAULT_WAYS | dict(db.session.execute(chosen).all())

    @classmethod
    def offered_choices(cls, user: User) -> dict[str, str]:
        """Return the same in the ways that the site offers. Without a mail server, "mail" and its like are "site"."""
        ways = cls.choices(user).items()
        return {kind: way if mail_is_on() or way in WAYS else "site" for kind, way in ways}

    # -- actions

    @classmethod
    @transactional
    def choose(cls, actor: User, **ways: str) -> None:
        """Save how a person wants to be notified of some kinds, of those that they change."""
        before = cls.offered_choices(actor)
        if changed := {kind: way for kind, way in ways.items() if way != before[kind]}:
            cls._save_choices(actor, changed)

    @classmethod
    @transactional
    def stop_mail(cls, user: User, kind: str) -> None:
        """Send a person no more emails of one of `MAIL_KINDS`. They are still notified on the site."""
        ways = cls.choices(user).items()
        if stopped := [name for name, way in ways if kind in (name, way) and way in MAIL_WAYS]:
            cls._save_choices(user, dict.fromkeys(stopped, "site"))

    @classmethod
    def _save_choices(cls, actor: User, ways: dict[str, str]) -> None:
        """Save choices, as part of an action. What the person was notified of in other ways before is not mailed."""
        user = User.acting(actor.id)
        if "must_read" in ways:
            ways["reminder"] = ways["must_read"]
        chosen = [{"user_id": user.id, "kind": kind, "way": way} for kind, way in ways.items()]
        database.upsert(NotificationChoice, chosen)
        earlier = sa.update(cls).where(cls.user_id == user.id, cls.kind.in_(ways))
        db.session.execute(earlier.values(way="site", mail_id=None))
        Activity.record(user, "person.notifications", user)

    @classmethod
    @transactional
    def read_all(cls, actor: User) -> None:
        """Mark all notifications of a person as read."""
        user = User.acting(actor.id)
        cls.read(user.id, utcnow())
        Activity.record(user, "person.read_all", user)

    @classmethod
    def read(cls, user_id: int, at: datetime, *which: sa.ColumnElement[bool]) -> None:
        """Mark a person's notifications as read, or those for which `which` holds, in the caller's transaction."""
        unread = sa.update(cls).where(cls.user_id == user_id, cls.read_at.is_(None), *which)
        db.session.execute(unread.values(read_at=at))

    @classmethod
    def take_back(cls, actor: User, thing: Post | Comment, reaction: str) -> None:
        """Delete the unread notifications of a reaction that is taken back, in the caller's transaction."""
        same = sa.exists().where(Activity.id == cls.activity_id, Activity.detail == reaction).correlate(cls)
        unread = sa.delete(cls).where(
            cls.is_about(thing), cls.kind == "reaction", cls.actor_id == actor.id, cls.read_at.is_(None), same
        )
        db.session.execute(unread, execution_options={"synchronize_session": False})


sa.Index("uq_notifications_user_id_activity_id", Notification.user_id, Notification.activity_id, unique=True)
sa.Index(
    "ix_notifications_unread", Notification.user_id, Notification.read_at, Notification.post_id,
    sqlite_where=Notification.read_at.is_(None),
)  # fmt: skip


class NotificationGroup(NamedTuple):
    """A person's notifications of one kind about a post: the newest, the oldest, and in words who caused them."""

    newest: Notification
    oldest: Notification
    is_unread: bool
    who: str

    @property
    def address(self) -> str:
        """The address it leads to: of the first unread comment, or the newest one, or the post."""
        return self.oldest.address if self.is_unread else self.newest.address

    @property
    def words(self) -> str:
        """The beginning of the newest comment."""
        comment = self.newest.comment if self.newest.kind in ("comment", "mention") else None
        return plain_text(comment.html, 140) if comment else ""


def follows(state: str, thing: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether a `User` has a `Follow` in this state for which `thing` holds, a condition on `Follow`."""
    return User.id.in_(sa.select(Follow.user_id).where(thing, Follow.state == state))


def follows_topic(which: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether a `User` follows a `Topic` for which `which` holds, because they chose to or by default."""
    chosen = sa.select(Follow.state).where(Follow.user_id == User.id, Follow.topic_id == Topic.id)
    state = chosen.correlate(User, Topic).scalar_subquery()
    is_following = sa.case((state.is_(None), Topic.followed_by_default), else_=state == "following")
    return sa.exists().where(which, is_following).correlate(User)


FOLLOWS_POST = follows("following", Follow.post_id == POST_ID)
FOLLOWS_TOPIC = follows_topic(Topic.id == TOPIC_ID)
MUTED_TOPIC = sa.and_(follows("muted", Follow.topic_id == TOPIC_ID), ~FOLLOWS_POST)
MUTED = sa.or_(follows("muted", Follow.post_id == POST_ID), MUTED_TOPIC)
KIND = sa.bindparam("kind", type_=sa.String)
WAY: sa.ColumnElement[str] = sa.func.coalesce(
    sa.select(NotificationChoice.way)
    .where(NotificationChoice.user_id == User.id, NotificationChoice.kind == KIND)
    .scalar_subquery(),
    sa.bindparam("default_way", type_=sa.String),
)
# Who may be notified of an activity: active people who see the post and want this kind, except the one who acts.
AUDIENCE = (
    sa.select(
        User.id.label("user_id"),
        Post.id.label("post_id"),
        sa.bindparam("comment_id", type_=sa.Integer).label("comment_id"),
        sa.bindparam("activity_id", type_=sa.Integer).label("activity_id"),
        ACTOR_ID.label("actor_id"),
        KIND.label("kind"),
        NOW.label("created_at"),
        WAY.label("way"),
    )
    .join(Post, Post.id == POST_ID)
    .where(User.is_active, User.id.is_distinct_from(ACTOR_ID), Post.shown_to(User), WAY != "none")
)


def notify(kind: str, activity: Activity, thing: Post | Comment, *, who: sa.ColumnElement[bool]) -> None:
    """Notify people of an activity on a post or a comment, in the transaction of its action.

    They are those of the `AUDIENCE` for whom `who` holds, a condition on `User` and `Post`. Nobody is notified twice of
    one activity, or of what they have muted.
    """
    post = thing.post if isinstance(thing, Comment) else thing
    people = AUDIENCE.where(who) if kind in PERSONAL else AUDIENCE.where(who, ~MUTED)
    insert = sa.insert(Notification).from_select(AUDIENCE.selected_columns.keys(), people, include_defaults=False)
    values = {
        "kind": kind,
        "default_way": DEFAULT_WAYS[kind],
        "activity_id": activity.id,
        "actor_id": activity.actor_id,
        "post_id": post.id,
        "topic_id": post.topic_id,
        "comment_id": None if thing is post else thing.id,
        "now": activity.at,
    }
    db.session.connection().execute(database.unless_present(insert), values)
    OutgoingMail.queue("mail", Notification.post_id == post.id, Notification.activity_id == activity.id)


def notify_mentioned(activity: Activity, thing: Post | Comment, before: Iterable[str] = ()) -> None:
    """Notify the people whom a text mentions by other names than `before`, and who were not told that of it yet."""
    if names := mentioned_names(thing.html).difference(before):
        told = sa.select(Notification.user_id).where(Notification.kind == "mention", Notification.is_about(thing))
        notify("mention", activity, thing, who=sa.and_(is_called(names), User.id.not_in(told)))


def notify_required(activity: Activity, post: Post, kind: str = "must_read") -> None:
    """Notify the people who still have to read a post."""
    if post.must_read_since is not None:
        notify(kind, activity, post, who=Acknowledgement.pending())


def notify_of_post(activity: Activity, post: Post) -> None:
    """Notify people that a post is published: those it mentions, those who must read it, and followers of its topic."""
    notify_mentioned(activity, post)
    notify_required(activity, post)
    notify("post", activity, post, who=FOLLOWS_TOPIC)


def notify_of_comment(activity: Activity, comment: Comment) -> None:
    """Notify people of a new comment: those it mentions, and followers of its post."""
    notify_mentioned(activity, comment)
    notify("comment", activity, comment, who=FOLLOWS_POST)


def notify_again(activity: Activity, post: Post) -> None:
    """Notify everybody who sees a post that it changed; those it newly mentions, that it mentions them."""
    notify_mentioned(activity, post)
    notify("shared_again", activity, post, who=sa.true())


# -- Email -------------------------------------------------------------------------------------------------------------

MAILED_FOR = timedelta(days=14)  # older notifications are not mailed
MAIL_LEASE = timedelta(minutes=10)  # after this time another process sends what a killed one had claimed
MAIL_PAUSE = timedelta(minutes=1)  # before the second attempt; before later ones half the time since the first
MAIL_TRIED_FOR = timedelta(days=3)


class OutgoingMail(db.Model):
    """An email that waits or failed. Its text is written when it is sent, and says what is visible then."""

    __tablename__ = "outgoing_mail"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(sa.String(12))  # one of MAIL_KINDS
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    # When to send it. A process that sends it sets this to later first. None if it has failed.
    due_at: Mapped[datetime | None] = mapped_column(index=True, default=utcnow)
    answer: Mapped[str] = mapped_column(sa.String(500), default="")  # the server's, in words

    user: Mapped[User] = relationship()

    # -- queries

    def news(self) -> Sequence[Notification]:
        """Return what this email is to tell now: what its person may see, and has not read."""
        if not self.has_reader:
            return ()
        told = sa.select(Notification).where(Notification.mail_id == self.id, Notification.read_at.is_(None))
        told = told.where(Notification.visible()).order_by(Notification.id)
        return db.session.scalars(told, {"viewer": self.user_id}).all()

    # -- predicates

    @property
    def has_reader(self) -> bool:
        """Whether its person can still get it."""
        return self.user.is_active and bool(self.user.email)

    # -- actions

    @classmethod
    def tell(cls, user: User, kind: str) -> None:
        """Queue an email about a person's own account, as part of an action."""
        if mail_is_on() and user.email:
            db.session.add(cls(user_id=user.id, kind=kind))

    @classmethod
    @transactional
    def queue(cls, way: str, *which: sa.ColumnElement[bool]) -> int:
        """Queue what is to be told in one way: each thing alone, or in a summary for each person. Return how many."""
        if not mail_is_on():
            return 0
        mails, now, untold = dict[tuple[int, str], OutgoingMail](), utcnow(), Notification.way == way
        recent = (Notification.created_at > now - MAILED_FOR, Notification.read_at.is_(None))
        for told in db.session.scalars(sa.select(Notification).where(untold, *recent, *which)).all():
            kind = told.kind if way == "mail" else way
            mail = cls(user_id=told.user_id, kind=kind, created_at=now, due_at=now)
            told.mail, told.way = mails.setdefault((told.user_id, kind), mail), "site"
        return len(mails)

    @classmethod
    @transactional
    def claim(cls) -> tuple[OutgoingMail, Sequence[Notification]] | None:
        """Take the email that has been due longest, so that no other process sends it. Return it and what it tells.

        Emails that have nothing to tell any more are deleted. Returns None if no other is due.
        """
        first = sa.select(cls).where(cls.due_at <= utcnow()).order_by(cls.due_at, cls.id).limit(1).with_for_update()
        while mail := db.session.scalar(first):
            told = mail.news()
            if told or (mail.kind in ACCOUNT_MAILS and mail.has_reader):
                mail.due_at = utcnow() + MAIL_LEASE
                return mail, told
            db.session.delete(mail)
        return None

    @classmethod
    @transactional
    def sent(cls, mail_id: int) -> None:
        """Delete an email that was sent."""
        db.session.execute(sa.delete(cls).where(cls.id == mail_id))

    @classmethod
    @transactional
    def not_sent(cls, answer: str, which: sa.ColumnElement[bool]) -> None:
        """Save why some emails were not sent. They are tried again, ever more rarely, until they have failed."""
        log.warning("email was not sent: %s", answer)
        for mail in db.session.scalars(sa.select(cls).where(which).with_for_update()):
            age, mail.answer = utcnow() - mail.created_at, answer[:500]
            mail.due_at = utcnow() + max(MAIL_PAUSE, age / 2) if age < MAIL_TRIED_FOR else None

    @classmethod
    @transactional
    def send_again(cls, actor: User, mail_id: int) -> None:
        """Queue a failed email again. Raises `NotVisible` if there is no such email."""
        User.acting(actor.id, Role.ADMIN)
        mail = one_visible(sa.select(cls).filter_by(id=mail_id, due_at=None).with_for_update())
        mail.created_at = mail.due_at = utcnow()
        Activity.record(actor, "mail.again", ("mail", mail.id), MAIL_KINDS[mail.kind])


# -- Settings ----------------------------------------------------------------------------------------------------------


ACCENTS = ("rust", "red", "amber", "green", "teal", "blue", "violet", "slate")  # their tones are in app.css
LOGO_PICTURE = "logo_picture"  # the row with the logo itself, which is not read with the others


class Site(NamedTuple):
    """The settings that a team changes in the browser. Each one that was ever changed has a row of `Setting`."""

    name: str = "Corkboard"
    welcome: str = ""
    registration: str = "closed"
    registration_domains: str = ""
    registration_role: str = "member"
    bin_days: str = "30"
    activity_days: str = "730"
    second_factor_role: str = ""  # the lowest role that has to use a second factor; "" for nobody
    timezone: str = ""
    accent: str = "rust"
    logo: str = ""  # when the picture that `Setting.logo` returns was set, for its address
    announcement: str = ""
    announcement_until: str = ""

    @property
    def domains(self) -> list[str]:
        """The email domains whose people may sign up, in lower case."""
        return [fold(domain) for domain in self.registration_domains.replace(",", " ").split()]

    @property
    def takes_sign_ups(self) -> bool:
        """Whether people may sign up with a password."""
        return self.registration not in ("closed", "company")


class Setting(db.Model):
    """One of the site's settings, or something that the site has to remember about itself."""

    __tablename__ = "settings"
    name: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    value: Mapped[str] = mapped_column(LongText)

    @classmethod
    def read(cls) -> Site:
        """Return the site's settings."""
        return Site(**{row.name: row.value for row in db.session.execute(SETTINGS) if row.name in Site._fields})

    @classmethod
    def lock(cls) -> None:
        """Let one transaction at a time check a rule over several rows, such as that an administrator is left."""
        db.session.execute(sa.select(cls.value).where(cls.name == "lock").with_for_update())

    @classmethod
    @transactional
    def change(cls, actor: User, **values: str) -> None:
        """Change some of the site's settings. Raises `TypeError` for a name that is not one of them."""
        User.acting(actor.id, Role.ADMIN)
        Site(**values)  # checks the names
        before = cls.read()._asdict()
        cls._write(values)
        changes = {name: (before[name], new) for name, new in values.items() if before[name] != new}
        Activity.record(actor, "settings.changed", ("setting", 0), changes=changes)

    @classmethod
    def _write(cls, values: Mapping[str, str]) -> None:
        """Write some rows, as part of an action."""
        database.upsert(cls, [{"name": name, "value": value} for name, value in values.items()])

    @classmethod
    @transactional
    def set_logo(cls, actor: User, content: bytes) -> None:
        """Show this picture beside the site's name; an empty one removes it."""
        cls.change(actor, logo=utcnow().isoformat() if content else "")
        cls._write({LOGO_PICTURE: base64.b64encode(content).decode()})

    @classmethod
    def logo(cls) -> bytes:
        """Return the picture beside the site's name as WebP, or nothing."""
        return base64.b64decode(db.session.scalar(sa.select(cls.value).where(cls.name == LOGO_PICTURE)) or "")

    @classmethod
    @transactional
    def renew_setup_token(cls) -> str:
        """Return a new one-time token for setting up the site. Raises `ValidationError` when people exist already."""
        cls.lock()
        if User.exists():
            words = f"The site is already set up. To get back into an account: {FLASK} create-admin"
            raise ValidationError("token", words)
        token = secrets.token_urlsafe(24)
        cls._write({"setup_token": hash_token(token)})
        return token

    @classmethod
    def setup_token_hash(cls) -> str | None:
        return db.session.scalar(sa.select(cls.value).where(cls.name == "setup_token"))

    @classmethod
    @transactional
    def set_up(cls, token: str, *, site_name: str, password_hash: str, **profile: Any) -> User:
        """Name the site and return its first administrator. The token, which the console printed, works once.

        Raises `NotVisible` when the site is set up already, `Forbidden` for a wrong token.
        """
        cls.lock()
        expected = cls.setup_token_hash()
        if User.exists() or expected is None:
            raise NotVisible
        if not hmac.compare_digest(expected, hash_token(token)):
            raise Forbidden
        user = User.create(None, password_hash=password_hash, role=Role.ADMIN, **profile)
        db.session.execute(sa.delete(cls).where(cls.name == "setup_token"))
        cls.change(user, name=site_name)
        Topic.ensure_first(user)
        return user


# -- Search: what there is to find -------------------------------------------------------------------------------------


class SearchQuery(NamedTuple):
    """What somebody searches for: words, flags for kind and author, and conditions on entries and posts."""

    words: Sequence[database.Word]
    flags: Sequence[str] = ()
    conditions: Sequence[sa.ColumnElement[bool]] = ()


class SearchResults(NamedTuple):
    """A page of hits, and the id of the entry with which the next page begins, if there is one."""

    hits: Sequence[Any] = ()  # rows of entities: SearchEntry, Post, Topic, Comment, Attachment; User is the author
    next_start: int | None = None
    words: Sequence[database.Word] = ()  # what was found


class SearchEntry(db.Model):
    """The words by which a post, a comment or a file is found, as `database.search_tokens` makes them.

    An entry is written in the transaction that writes the thing itself (see `index_changes`), and foreign keys delete
    it with the thing. It does not say who may see the thing: each search asks the thing itself.
    """

    __tablename__ = "search_entries"
    id: Mapped[int] = mapped_column(primary_key=True)  # in the order of time, because a search shows the newest first
    kind: Mapped[str] = mapped_column(sa.String(8))  # post, comment or file
    object_id: Mapped[int]
    post_id: Mapped[int] = mapped_column(sa.ForeignKey("posts.id", ondelete="CASCADE"), index=True)
    comment_id: Mapped[int | None] = mapped_column(sa.ForeignKey("comments.id", ondelete="CASCADE"), index=True)
    attachment_id: Mapped[int | None] = mapped_column(sa.ForeignKey("attachments.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime]
    tokens: Mapped[str] = mapped_column(LongText, deferred=True)
    __table_args__ = (sa.UniqueConstraint("kind", "object_id"),)

    # -- queries

    @classmethod
    def find(cls, viewer: User, query: SearchQuery, start: int | None = None) -> SearchResults:
        """Return a page of what this person may see: things with all the words in their titles, then the newest others.

        Where nothing has the words, it is what has them without the endings of plurals. A later page begins at `start`.
        It leaves out the things with which the first page began.
        """
        if not query.words:
            return SearchResults()
        found = cls._visible_to(viewer).where(*query.conditions)
        best = cls._matches(found, query, database.TITLE_MARK, ID_MAX, PAGE_SIZE)
        at_top = [hit.SearchEntry.id for hit in best]
        rest = found.where(cls.id.not_in(at_top))
        others = cls._matches(rest, query, database.WORD_MARK, start or ID_MAX, PAGE_SIZE + 1)
        hits = [*others] if start else [*best, *others]
        singular = [*map(database.without_plural, query.words)]
        if not hits and singular != query.words:
            return cls.find(viewer, query._replace(words=singular), start)
        next_start = hits[PAGE_SIZE].SearchEntry.id if len(hits) > PAGE_SIZE else None
        return SearchResults(hits[:PAGE_SIZE], next_start, query.words)

    @classmethod
    def known_words(cls, viewer: User) -> list[str]:
        """Return words of the newest things that a person may see, which are what they might have meant."""
        found = database.in_table_order(cls._visible_to(viewer).with_only_columns(cls.tokens), {cls: "PRIMARY"})
        tokens = " ".join(db.session.scalars(found.order_by(cls.id.desc()).limit(KNOWN_FROM)))
        return database.words_in(tokens)[:KNOWN_MOST]

    @classmethod
    def _visible_to(cls, viewer: User) -> Statement:
        """Select the entries of things that a person sees, each with its thing."""
        author_id = sa.func.coalesce(Attachment.uploader_id, Comment.author_id, Post.author_id)
        is_expired = (Post.expires_at <= NOW).label("is_expired")
        return (
            sa.select(cls, Post, Topic, Comment, Attachment, User, is_expired)
            .join(Post, Post.id == cls.post_id)
            .join(Topic, Topic.id == Post.topic_id)
            .outerjoin(Comment, Comment.id == cls.comment_id)
            .outerjoin(Attachment, Attachment.id == cls.attachment_id)
            .join(User, User.id == author_id)
            .where(Post.listed(), Comment.deleted_at.is_(None), Attachment.deleted_at.is_(None))
            .params(viewer=viewer.id, now=utcnow())
        )

    @classmethod
    def _matches(cls, found: Statement, query: SearchQuery, mark: str, start: int, limit: int) -> Sequence[Any]:
        """Return the newest of some entries that have all the words with this mark, each with its thing."""
        return database.newest_matches(found, cls, database.search_query(query.words, query.flags, mark), start, limit)

    @classmethod
    def all_things(cls) -> list[list[tuple[datetime, str, int]]]:
        """Return time, kind and id of everything that can be found, oldest first, in parts for `rewrite`."""
        things: list[Any] = []
        for kind, (model, at) in SEARCHED.items():
            things += db.session.execute(sa.select(at, sa.literal(kind), model.id).where(at.is_not(None)))
        things.sort()
        return [things[start : start + REWRITTEN_AT_ONCE] for start in range(0, len(things), REWRITTEN_AT_ONCE)]

    # -- actions

    @classmethod
    @transactional
    def rewrite(cls, things: Sequence[tuple[datetime, str, int]]) -> None:
        """Replace the entries of some things from `all_things` by new ones, which come after all other entries."""
        found: list[Any] = []
        for kind, (model, _at) in SEARCHED.items():
            ids = [thing_id for _time, of_kind, thing_id in things if of_kind == kind]
            db.session.execute(sa.delete(cls).where(cls.kind == kind, cls.object_id.in_(ids)))
            found += db.session.scalars(sa.select(model).where(model.id.in_(ids)))
        cls.write(found)

    @classmethod
    def write(cls, things: Iterable[Any]) -> None:
        """Write the entries of posts, comments and files, in the caller's transaction.

        Drafts have no entry, and neither have files that belong to no post.
        """
        entries = [search_entry(thing) for thing in things]
        entries = [entry for entry in entries if entry["at"] and entry["post_id"]]
        if entries:
            database.upsert(cls, sorted(entries, key=itemgetter("at")), keys=("kind", "object_id"))


def search_entry(thing: Any) -> dict[str, Any]:
    """Return the columns of the entry of a post, a comment or a file."""
    if isinstance(thing, Post):
        place = {"kind": "post", "post_id": thing.id, "at": thing.published_at}
        tokens = entry_tokens(thing.kind, thing.author_id, thing.title, thing.html)
    elif isinstance(thing, Comment):
        place = {"kind": "comment", "post_id": thing.post_id, "comment_id": thing.id, "at": thing.created_at}
        tokens = entry_tokens("comment", thing.author_id, "", thing.html)
    else:
        post_id = thing.comment.post_id if thing.comment else thing.post_id
        place = {"kind": "file", "post_id": post_id, "comment_id": thing.comment_id, "at": thing.created_at}
        place["attachment_id"] = thing.id
        tokens = entry_tokens("file", thing.uploader_id, thing.name, "")
    return {"comment_id": None, "attachment_id": None, **place, "object_id": thing.id, "tokens": tokens}


def entry_tokens(kind: str, author_id: int, title: str, rendered: str) -> str:
    """Return what is indexed of a thing: its flags, the words of its title marked as such, and all its words."""
    flags = database.search_flags(kind=kind, author=author_id)
    in_title = database.search_tokens(title, database.TITLE_MARK)
    return " ".join([*flags, *in_title, *database.search_tokens(f"{title} {plain_text(rendered, len(rendered))}")])


@listens_for(db.session, "after_flush")
def index_changes(session: Any, _context: Any) -> None:
    """Write the search entries of the things that a flush changed, in its transaction."""
    SearchEntry.write([thing for thing in (*session.new, *session.dirty) if needs_indexing(thing)])


def needs_indexing(thing: Any) -> bool:
    """Whether a flush changed a column from which the search entry of a thing is made."""
    attributes = sa.inspect(thing).attrs
    return any(attributes[name].history.has_changes() for name in INDEXED.get(type(thing), ()))


REWRITTEN_AT_ONCE = 500
SEARCHED: dict[str, tuple[Any, Any]] = {  # by kind: the model, and the time since when a thing can be found
    "post": (Post, Post.published_at),
    "comment": (Comment, Comment.created_at),
    "file": (Attachment, Attachment.created_at),
}
INDEXED = {  # the columns from which entries are made
    Post: ("kind", "author_id", "title", "html", "published_at"),
    Comment: ("html",),
    Attachment: ("name", "post_id", "comment_id"),
}


# -- Throttles ---------------------------------------------------------------------------------------------------------


class Throttle(db.Model):
    """A limit on how often something may be tried, counted in the database so that all processes share it.

    This is the generic cell rate algorithm: a row keeps the time at which all tries will be available again. Nobody is
    locked out for ever, because a refused try does not move that time.
    """

    __tablename__ = "throttles"
    key: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    whole_at: Mapped[datetime] = mapped_column(index=True)

    @classmethod
    @transactional
    def take(cls, key: str, burst: int, interval: timedelta) -> timedelta | None:
        """Use one of `burst` tries, each of which comes back after `interval`.

        Returns None, or how long to wait when no try is left.
        """
        now = utcnow()
        db.session.execute(sa.delete(cls).where(cls.whole_at < now - timedelta(hours=1)))
        database.insert_if_absent(cls, key=hash_token(key), whole_at=now)
        row = db.session.get_one(cls, hash_token(key), with_for_update=True)
        # A time further in the future means that the clock was set back.
        is_possible = now < row.whole_at <= now + (burst + 1) * interval
        whole_at = (row.whole_at if is_possible else now) + interval
        wait = whole_at - now - burst * interval
        if wait > timedelta(0):
            return wait
        row.whole_at = whole_at
        return None

    @classmethod
    @transactional
    def give_back(cls, key: str, interval: timedelta) -> None:
        """Make one try available again."""
        row = db.session.get(cls, hash_token(key), with_for_update=True)
        if row is not None:
            row.whole_at -= interval

    @classmethod
    @transactional
    def forget(cls, key: str) -> None:
        """Make all tries available again."""
        db.session.execute(sa.delete(cls).where(cls.key == hash_token(key)))


# -- The recycle bin ---------------------------------------------------------------------------------------------------


class Bin:
    """The deleted things, which can be restored with all that belongs to them until the bin is emptied."""

    @classmethod
    def things(cls, kind: str) -> sa.Select[Any]:
        """Select the things of one kind in the bin that the person bound as `viewer` may see.

        The bin does not show the pictures that people had before.
        """
        model = BIN_MODELS[kind]
        things = sa.select(model).where(model.deleted_at.is_not(None), model.reachable())
        return things.where(Attachment.person_id.is_(None)) if model is Attachment else things

    @classmethod
    def empty(cls, actor: User | None, until: datetime) -> int:
        """Delete permanently what was deleted up to a time: what an administrator sees, or without one everything.

        Returns how many things these were. It works in batches, so that nobody waits for long.
        """
        removed = 0
        for kind in BIN_MODELS:
            while count := cls._empty_batch(actor, kind, until):
                removed += count
        return removed

    @classmethod
    @transactional
    def _empty_batch(cls, actor: User | None, kind: str, until: datetime) -> int:
        """Delete up to `BIN_BATCH` things of a kind, and by foreign keys what belongs to them. Returns how many."""
        model = BIN_MODELS[kind]
        things = sa.select(model)
        if actor is not None:
            things = cls.things(kind).params(viewer=User.acting(actor.id, Role.ADMIN).id)
        elif model is Topic:  # the address of a merged topic leads to the other one for good
            things = things.where(Topic.merged_into_id.is_(None))
        ids = things.with_only_columns(model.id).where(model.deleted_at <= until).order_by(model.id).limit(BIN_BATCH)
        found = db.session.scalars(ids.with_for_update()).all()
        if kind == "topic" and found:  # first the posts of a topic, so that no transaction is huge
            posts = sa.select(Post.id).where(Post.topic_id.in_(found)).limit(BIN_BATCH)
            if held := db.session.scalars(posts).all():
                model, found = Post, held
        if found:
            db.session.execute(sa.delete(model).where(model.id.in_(found)))
            Activity.record(actor, "bin.emptied", ("bin", 0), f"{plural(len(found), 'item')} deleted permanently")
        return len(found)


BIN_BATCH = 50
BIN_MODELS: dict[str, Any] = {"post": Post, "comment": Comment, "file": Attachment, "topic": Topic}
# How many posts are deleted permanently with a topic.
Topic.post_count = column_property(
    sa.select(sa.func.count(Post.id)).where(Post.topic_id == Topic.id, Post.deleted_at.is_(None)).scalar_subquery(),
    deferred=True,
)


def without_files(rendered: str) -> str:
    """Return the HTML of a deleted text without its files, which nobody can open any more; pictures become names."""
    return without_pictures(_FILE_LINK.sub(r"\1", rendered))


def without_pictures(rendered: str) -> str:
    """Return the HTML of a text with its pictures replaced by their names."""
    return _PICTURE.sub(lambda found: f"<em>{escape(html.unescape(found[1])) or 'A picture'}</em>", rendered)


# -- Backups -----------------------------------------------------------------------------------------------------------


class Backup(NamedTuple):
    """A file in the folder of the backups. The database knows of it only what was recorded."""

    name: str
    size: int
    made_at: datetime

    # -- queries

    @classmethod
    def all(cls) -> list[Backup]:
        """Return the backups in the folder, the newest first."""
        return sorted(map(cls.of_file, backups_folder().glob("*.zip")), key=attrgetter("made_at"), reverse=True)

    @classmethod
    def of_file(cls, path: Path) -> Backup:
        about = path.stat()
        return cls(path.name, about.st_size, datetime.fromtimestamp(about.st_mtime, UTC).replace(tzinfo=None))

    @classmethod
    def last_verified(cls) -> datetime | None:
        """Return when a restore was last tried out with success."""
        verified = sa.select(Activity.at).where(Activity.action == "backup.verified")
        return db.session.scalar(verified.order_by(Activity.at.desc()).limit(1))

    # -- actions

    @classmethod
    def make(cls, actor: User | None, path: Path) -> None:
        """Write a backup. Raises `BackupError`."""
        database.write_backup(path)
        cls.record(actor, "backup.made", path.name)

    @classmethod
    def verify(cls, path: Path) -> None:
        """Restore a backup, but not in the place of this site. Raises `BackupError` if that cannot be done."""
        with open(path, "rb") as file, database.opened_backup(file, compare=True):
            cls.record(None, "backup.verified", path.name)

    @classmethod
    def restore(cls, file: IO[bytes], name: str, replace: bool = False) -> None:
        """Put the site of a backup in the place of this one; with `replace`, after a backup of this one.

        Raises `BackupError`, and then nothing was changed.
        """
        database.prepare_restore(replace)
        with database.opened_backup(file) as (scratch, manifest):
            with scratch.app_context():
                cls.settle(name)
                rerender_texts()
            if replace:
                cls.make(None, new_backup_path("-before-restore"))
            database.replace_site(scratch, manifest, replace)

    @classmethod
    @transactional
    def settle(cls, name: str) -> None:
        """Record a restore, in the restored database. What waited to be mailed may have been sent since, and is not."""
        # In this order, because the foreign keys of a scratch database are off.
        db.session.execute(sa.update(Notification).values(way="site", mail_id=None))
        db.session.execute(sa.delete(OutgoingMail))
        cls.record(None, "backup.restored", name)

    @classmethod
    def prune(cls) -> None:
        """Delete the oldest backups beyond `BACKUP_KEEP`, but none that somebody named; and what a crash has left."""
        dated = sorted(backups_folder().glob("corkboard-????-??-??-??????.zip"), reverse=True)
        for path in dated[current_app.config["BACKUP_KEEP"] :]:
            path.unlink()
        for folder in (*backups_folder().glob("backup-*"), *database.data_folder().glob("restore-*")):
            if is_older(folder, ORPHAN_AGE):
                shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    @transactional
    def record(actor: User | None, action: str, name: str) -> None:
        """Record what an administrator, or the site itself, did with a backup."""
        Activity.record(actor, action, ("backup", 0), name)


def backups_folder() -> Path:
    return database.data_folder() / "backups"


def new_backup_path(suffix: str = "") -> Path:
    """Return the path of a backup that is about to be made, named after the time."""
    return backups_folder() / f"corkboard-{in_site_zone(utcnow()):%Y-%m-%d-%H%M%S}{suffix}.zip"


# -- Jobs --------------------------------------------------------------------------------------------------------------


class JobRun(db.Model):
    """When a job ran, and when it is due. A process that runs it holds a lease, so that no other one runs it too."""

    __tablename__ = "jobs"
    name: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    due_at: Mapped[datetime]
    lease: Mapped[str] = mapped_column(sa.String(32))  # empty while no process runs it
    leased_until: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    result: Mapped[str] = mapped_column(sa.String(200))
    failures: Mapped[int]  # since it last succeeded

    @classmethod
    @transactional
    def claim(cls, name: str, early: bool = False, actor: User | None = None) -> str | None:
        """Take a job that is due, or with `early` any job. Returns the lease, or None if it must not run now.

        An `actor` is the administrator who asked for it.
        """
        now = utcnow()
        database.insert_if_absent(cls, name=name, due_at=now, lease="", result="", failures=0)
        run = db.session.get_one(cls, name, with_for_update=True, populate_existing=True)
        # A job that began in the future did so before the clock was set back.
        is_due = early or run.due_at <= now or (run.started_at and run.started_at > now + JOB_LEASE)
        if not is_due or (run.leased_until and run.leased_until >= now):
            return None
        run.lease, run.leased_until, run.started_at, run.ended_at = secrets.token_hex(16), now + JOB_LEASE, now, None
        if actor is not None:
            Activity.record(User.acting(actor.id, Role.ADMIN), "job.run", ("job", 0), name)
        return run.lease

    @classmethod
    @transactional
    def finish(cls, name: str, lease: str, every: timedelta, result: str, failed: bool) -> None:
        """Record how a job went and when it is due again: soon after a failure, and later after each further one."""
        run = db.session.get_one(cls, name, with_for_update=True, populate_existing=True)
        if run.lease != lease:  # another process took the job over
            return
        now = utcnow()
        run.failures = run.failures + 1 if failed else 0
        pause = min(every, JOB_RETRY * 2 ** min(run.failures - 1, 10)) if failed else every
        run.lease, run.leased_until, run.ended_at, run.due_at = "", None, now, now + pause
        run.result = result[:200]

    @property
    def took(self) -> str:
        """How long the last run took, in words."""
        if not (self.started_at and self.ended_at):
            return ""
        return f", took {(self.ended_at - self.started_at).total_seconds():.1f} s"

    @classmethod
    def last_seen(cls) -> datetime | None:
        """Return when the newest run of any job ended, or the present while one runs. None if none ever ran."""
        runs, now = cls.known().values(), utcnow()
        seen = [now if run.leased_until and run.leased_until > now else run.ended_at for run in runs]
        return max(filter(None, seen), default=None)

    @classmethod
    def known(cls) -> dict[str, Any]:
        """Return the rows of all jobs that ever ran, by their names."""
        return {run.name: run for run in db.session.scalars(sa.select(cls))}


JOB_LEASE = timedelta(minutes=15)  # how long a job waits for a process that was killed
JOB_RETRY = timedelta(minutes=1)


# -- Hot reads ---------------------------------------------------------------------------------------------------------

# The statements of the pages that people open most. `fetch` and `paginate` run them for the person who is signed in.

TODAY = sa.bindparam("today", type_=sa.Date)
NEWEST_FIRST = (Post.published_at.desc(), Post.id.desc())

User.picture_id = column_property(
    sa.select(sa.func.max(Attachment.id))
    .where(Attachment.person_id == User.id, Attachment.deleted_at.is_(None))
    .correlate(User)
    .scalar_subquery()
)
User.second_factor_role = column_property(
    sa.select(Setting.value).where(Setting.name == "second_factor_role").scalar_subquery(), deferred=True
)

AUTHOR = (
    User.name.label("author_name"),
    User.username.label("author_username"),
    User.picture_id.label("author_picture"),
)
TOPIC = (Topic.name.label("topic_name"), Topic.slug.label("topic_slug"), Topic.private.label("topic_private"))
UNREAD_OF_POST = (
    Notification.user_id == VIEWER,
    Notification.read_at.is_(None),
    Notification.post_id == Post.id,
    Notification.has_its_comment(),
)
NEW_COMMENTS = (
    sa.select(sa.func.count(Notification.comment_id))
    .where(*UNREAD_OF_POST, Notification.kind.in_(("comment", "mention")))
    .correlate(Post)
    .scalar_subquery()
)
UNREAD_KINDS = (
    sa.select(sa.func.count(sa.distinct(Notification.kind))).where(*UNREAD_OF_POST).correlate(Post).scalar_subquery()
)
CARD = (
    sa.select(Post.id, Post.title, Post.excerpt, Post.comment_count, Post.published_at, Post.expires_at, Post.author_id)
    .add_columns(*AUTHOR, *TOPIC, Post.unseen(SINCE).label("is_new"), NEW_COMMENTS.label("new_comments"))
    .join(Post.author)
    .join(Post.topic)
    .where(Post.listed())
)


def cards(index: str, *which: sa.ColumnElement[bool]) -> Statement:
    """Select the cards of some posts. MySQL reads the posts by this index, and then their topics."""
    return database.in_table_order(CARD.where(*which), {Post: index, Topic: "PRIMARY"})


NEWS = cards("ix_posts_news", Post.kind == "news", Post.current())
PINNED = (
    cards(
        "ix_posts_pinned",
        Post.kind == "news",
        Post.current(),
        Post.pinned_at.is_not(None),
        Post.not_over(Post.pinned_until),
    )
    .order_by(Post.pinned_at.desc(), Post.id.desc())
    .limit(PINNED_MAX)
)
TOPIC_POSTS = cards("ix_posts_topic", Post.topic_id == TOPIC_ID, Post.kind == "news")
AUTHOR_POSTS = cards("ix_posts_author", Post.author_id == sa.bindparam("author_id"))
NOTIFICATION_GROUPS = Notification.groups()

OWNER = aliased(User)
OWNER_IS_HERE = sa.and_(OWNER.id == Post.owner_id, OWNER.is_active)
POST_COLUMNS = [column for column in sa.inspect(Post).columns if column.key != "body"]
POST_PAGE = (
    sa.select(*POST_COLUMNS, *AUTHOR, *TOPIC)
    .add_columns(OWNER.name.label("owner_name"), OWNER.username.label("owner_username"))
    .add_columns(*Acknowledgement.of_viewer(), ReadMark.of_viewer(), Follow.of_viewer())
    .add_columns(Post.unseen().label("is_unseen"), UNREAD_KINDS.label("unread_kinds"))
    .join(Post.author)
    .join(Post.topic)
    .outerjoin(OWNER, OWNER_IS_HERE)
    .where(Post.visible(), Post.id == POST_ID)
)
COMMENTS = (
    sa.select(Comment.id, Comment.html, Comment.created_at, Comment.edited_at, Comment.author_id)
    .add_columns(*AUTHOR)
    .join(Comment.author)
    .where(Comment.post_id == POST_ID, Comment.deleted_at.is_(None))
)
REACTIONS_GIVEN = (
    sa.select(Reaction.comment_id, Reaction.kind, Reaction.user_id, User.name)
    .join(User, User.id == Reaction.user_id)
    .where(sa.or_(Reaction.post_id == POST_ID, Reaction.comment_id.in_(sa.bindparam("comment_ids"))))
    .order_by(Reaction.id)
)
FILES_OF_POST = (
    sa.select(Attachment).where(Attachment.post_id == POST_ID, Attachment.deleted_at.is_(None)).order_by(Attachment.id)
)

EDITOR = aliased(User)
HANDBOOK = (
    sa.select(Post.id, Post.title, Post.parent_id, Post.updated_at, Post.review_by, Post.topic_id, *TOPIC)
    .add_columns(EDITOR.name.label("editor_name"), Post.unseen(SINCE).label("is_new"))
    .select_from(Topic)
    .join(Post, Post.topic_id == Topic.id)
    .join(EDITOR, EDITOR.id == Post.editor_id)
    .where(Post.listed(), Post.kind == "page")
    .order_by(Topic.position, Topic.id, Post.position, Post.title_key, Post.id)
    .limit(PAGES_MOST)
)
REVIEW_SOON = timedelta(days=30)  # how long before its review is due a page is listed
REVIEW_DAY = sa.func.coalesce(Post.review_by, sa.literal(date.max, sa.Date), type_=sa.Date).label("review_day")
REVIEWS = (
    sa.select(Post.id, Post.title, Post.review_by, Post.owner_id, OWNER.name.label("owner_name"), REVIEW_DAY)
    .outerjoin(OWNER, OWNER_IS_HERE)
    .where(Post.visible(), Post.kind == "page")
    .where(
        sa.or_(
            Post.review_by <= sa.bindparam("until", type_=sa.Date),
            sa.and_(Post.owner_id.is_not(None), OWNER.id.is_(None)),
        )
    )
)

OWED = (
    sa.select(Post.id, Post.title, Post.must_read_due)
    .join(User, User.id == VIEWER)
    .where(Acknowledgement.pending())
    .order_by(Post.must_read_due.is_(None), Post.must_read_due, Post.id)
    .limit(OWED_MOST)
)
OWN_REVIEWS_DUE = (
    sa.select(Post.id)
    .where(Post.visible(), Post.owner_id == VIEWER, Post.kind == "page", Post.review_by < TODAY)
    .limit(PAGE_SIZE)
)

STAND_IN = aliased(User)
AWAY = (
    sa.select(User.id, User.name, User.username, User.picture_id, User.away_until, STAND_IN.name.label("stand_in_name"))
    .outerjoin(STAND_IN, sa.and_(STAND_IN.id == User.stand_in_id, STAND_IN.is_active))
    .add_columns(User.away_from, User.timezone)
    .where(User.away_until >= sa.bindparam("ended", type_=sa.Date), User.is_active)
    .where(sa.or_(User.away_from.is_(None), User.away_from <= sa.bindparam("begun", type_=sa.Date)))
    .order_by(User.away_until, User.id)
    .limit(4 * AWAY_SHOWN)  # more than are shown: `is_away` asks what day it is where each person is
)
CHANGED_PAGES = (
    database.in_table_order(
        sa.select(Post.id, Post.title, Post.updated_at, EDITOR.name.label("editor_name")), {Post: "ix_posts_changed"}
    )
    .join(EDITOR, EDITOR.id == Post.editor_id)
    .where(Post.listed(), Post.kind == "page")
    .order_by(Post.updated_at.desc(), Post.id.desc())
    .limit(CHANGED_SHOWN)
)
NEW_IN_TOPIC = (
    sa.exists()
    .where(Post.topic_id == Topic.id, Post.kind == "news", Post.deleted_at.is_(None))
    .where(Post.published_at > SINCE, Post.unseen(SINCE) == 1)  # a range, so that no older post is looked at
    .correlate(Topic)
)
TOPICS = (
    sa.select(Topic.name, Topic.slug, Topic.private, Topic.description, NEW_IN_TOPIC.label("has_new"))
    .where(Topic.visible())
    .order_by(Topic.position, Topic.id)
)
FIRST_TOPICS = TOPICS.limit(TOPICS_SHOWN)

SETTINGS = sa.select(Setting.name, Setting.value).where(Setting.name != LOGO_PICTURE)

BY_NAME = (User.name_key.asc(), User.id.asc())
ALL_PEOPLE = sa.select(
    User.id, User.name, User.username, User.email, *(getattr(User, name) for name in PROFILE_FIELDS),
    User.away_from, User.away_until, User.timezone, User.name_key, User.lookup, User.picture_id,
    User.role, User.deactivated_at, User.awaits_approval, User.last_active_at, User.erased_at,
)  # fmt: skip
PEOPLE = ALL_PEOPLE.where(User.is_active)


# ======================================================================================================================
# == 3. Access =========================================================================================================
# ======================================================================================================================

# -- Passwords ---------------------------------------------------------------------------------------------------------


_hashing = threading.BoundedSemaphore(HASHES_AT_ONCE)


@contextlib.contextmanager
def turn_to_hash() -> Iterator[None]:
    """Wait for a turn to hash, which takes 32 MB of memory. Raises 503 with Retry-After after too long a wait."""
    if not _hashing.acquire(timeout=HASH_WAIT_SECONDS):
        raise ServiceUnavailable("Many people are signing in right now. Try again in a few seconds.", retry_after=3)
    try:
        yield
    finally:
        _hashing.release()


def hash_password(password: str) -> str:
    """Return the hash of a password. Call it before an action, not inside: nobody else could write while it hashes."""
    with turn_to_hash():
        return generate_password_hash(normal_password(password), method=SCRYPT)


NO_PASSWORD = f"{SCRYPT}$nobody$"  # a hash that fits no password, and takes as long to compare as any other


def password_fits(stored: str, password: str) -> bool:
    """Whether a password belongs to a stored hash. The comparison takes the same time whatever differs."""
    with turn_to_hash():
        return check_password_hash(stored, normal_password(password))


def normal_password(password: str) -> str:
    """Return a password in the form that is the same on every keyboard (NIST SP 800-63B section 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def weak_password(password: str) -> str | None:
    """Return why a password is refused: it is too short, long or common (OWASP ASVS 5.0, 6.2.1, 6.2.4). Else None."""
    normal = normal_password(password)
    if not PASSWORD_MIN <= len(normal) <= PASSWORD_MAX:
        return f"Use {PASSWORD_MIN} to {PASSWORD_MAX} characters."
    if normal.casefold() in COMMON_PASSWORDS:
        return "This password is too easy to guess. Try a few random words."
    return None


# However many guesses there are, at most 20 are checked in 15 minutes.
ACCOUNT_TRIES, ACCOUNT_TRY_EVERY = 10, timedelta(seconds=90)
ADDRESS_TRIES, ADDRESS_TRY_EVERY = 10, timedelta(seconds=90)
CODE_TRIES, CODE_TRY_EVERY = 5, timedelta(minutes=5)  # a guess has a chance of three in a million
TEAM_TRIES, TEAM_TRY_EVERY = 40, timedelta(seconds=10)  # of a whole team, which often has one address
WRITES, WRITE_SECONDS = 60, 1.0  # more than anyone does by hand, and less than a program would


COMPANY_ONLY = "Sign in with your company account. Only administrators use a password here."


def may_use_password(user: User) -> bool:
    """Whether a person signs in with a password. Somebody with a company account does not, except administrators."""
    return user.is_admin or not (user.identity and current_app.config["OIDC_ISSUER"])


def authenticate(name: str, password: str) -> User:
    """Return the person with this username (or email address) and password.

    Raises `ValidationError`: the same one for an unknown name, a wrong password and a deactivated account, after the
    same time. Only somebody with the right password hears of anything else. Raises 429 with Retry-After when there were
    too many tries on this account or from this address.
    """
    user = User.by_username(name)
    account, address = _account_key(user, name), f"address:{client_network()}"
    refuse_too_often(address, ADDRESS_TRIES, ADDRESS_TRY_EVERY)  # first: a refused try does not count for the account
    refuse_too_often(account, ACCOUNT_TRIES, ACCOUNT_TRY_EVERY)
    # Without an account, a hash that fits no password is compared, so that the answer takes as long.
    stored = user.password_hash if user and (user.is_active or user.awaits_approval) else NO_PASSWORD
    if not password_fits(stored, password) or user is None:
        who = f"person {user.id}" if user else "an unknown name"
        log.info("sign-in refused for %s, from %s", who, client_address())
        SignIn.record_failure(user)
        raise ValidationError("login", "Wrong username or password.")
    Throttle.forget(account)
    Throttle.give_back(address, ADDRESS_TRY_EVERY)
    if not stored.startswith(SCRYPT + "$"):
        User.rehash(user.id, hash_password(password))
    if user.awaits_approval:
        raise ValidationError("login", WAITS)
    if not may_use_password(user):
        raise ValidationError("login", COMPANY_ONLY)
    return user


def _account_key(user: User | None, name: str) -> str:
    """Return the key under which tries to sign in to an account are counted.

    Tries from a network where the person has signed in before have a key of their own, so that nobody elsewhere can
    lock the person out.
    """
    if user is None:
        return f"name:{fold(name)[:USERNAME_MAX]}"  # not "account:": a name can look like an id
    places = db.session.scalars(sa.select(SignIn.address).where(SignIn.user_id == user.id).distinct().limit(100))
    known = client_network() in {network_of(place) for place in places}
    return f"account:{user.id}@{client_network()}" if known else f"account:{user.id}"


def refuse_too_often(key: str, burst: int, interval: timedelta) -> None:
    """Count a try. Raises 429 with Retry-After when there were too many."""
    wait = Throttle.take(key, burst, interval)
    if wait is not None:
        log.info("too often: %s, from %s", key.partition(":")[0], client_address())
        seconds = max(1, math.ceil(wait.total_seconds()))
        raise TooManyRequests(f"Too many attempts. Try again in {seconds} seconds.", retry_after=seconds)


_writing: dict[int, float] = {}  # by person, when all their writes will be available again, in monotonic seconds


def refuse_fast_writing(user_id: int) -> None:
    """Count a write of a person. Raises 429 with Retry-After when there were too many.

    Each process counts by itself. A `Throttle` would count for all of them, but it would be as much work as a comment.
    """
    now = time.monotonic()
    whole_at = max(_writing.get(user_id, now), now) + WRITE_SECONDS
    wait = math.ceil(whole_at - now - WRITES * WRITE_SECONDS)
    if wait > 0:
        log.info("too often: writing by person %s, from %s", user_id, client_address())
        raise TooManyRequests(f"That was a lot at once. Try again in {plural(wait, 'second')}.", retry_after=wait)
    _writing[user_id] = whole_at


def client_address() -> str:
    """Return the address that a request comes from, or "" on the command line. Behind a proxy see `believe_proxy`."""
    return plain_address(request.remote_addr or "") if has_request_context() else ""


def plain_address(given: str) -> str:
    """Return an IP address as it is written by rule, or "unknown" for anything else that a proxy may say."""
    try:
        parsed = ipaddress.ip_address(given)
    except ValueError:
        return "unknown"
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)[:45]


def client_network() -> str:
    """Return the network that a request comes from: its address, or in IPv6 the /64 that one customer has."""
    return network_of(client_address())


def network_of(address: str) -> str:
    plain = plain_address(address).partition("%")[0]
    return str(ipaddress.ip_network(f"{plain}/64", strict=False)) if ":" in plain else plain


# -- Sessions ----------------------------------------------------------------------------------------------------------


SIGNED_IN = (
    sa.select(SignIn, Notification.unread().label("unread"))
    .join(SignIn.user)
    .options(contains_eager(SignIn.user).undefer(User.second_factor_role))
    .where(SignIn.token_hash == sa.bindparam("token_hash"))
)


def hash_token(token: str) -> str:
    """Return the only form in which a random token is stored. It needs no salt, because nobody can guess it."""
    return hashlib.sha256(token.encode()).hexdigest()


def load_sign_in() -> SignIn | None:
    """Return the sign-in, with its person, to which the token in the session belongs. None without a valid one."""
    if "token" not in session:
        return None
    found = db.session.execute(SIGNED_IN, {"token_hash": hash_token(session["token"]), "now": g.now}).first()
    if found is None or not found.SignIn.is_valid(g.now):
        return None
    g.unread = found.unread
    return found.SignIn


def current_sign_in() -> SignIn | None:
    """Return the sign-in of this request, which is read once."""
    if "sign_in" not in g:
        g.sign_in = g.user = None  # for code that asks for them while the sign-in is read
        g.sign_in = load_sign_in()
        if g.sign_in is not None:
            g.user, g.user_id = g.sign_in.user, g.sign_in.user_id
            noted = min(g.user.last_active_at or LONG_AGO, g.sign_in.last_used_at)
            g.begins_visit = g.now - noted > VISIT_NOTED_EVERY
    return g.sign_in


def is_program() -> bool:
    """Return whether a request of the API brings a token, so that a session does not count."""
    given = request.authorization
    return given is not None and given.type == "bearer" and request.blueprint == "api"


def current_token() -> ApiToken | None:
    """Return the token that this request of a program brings, or None where it brings no valid one."""
    if "api_token" not in g:
        given: Any = request.authorization
        g.api_token = ApiToken.find(given.token or "") if is_program() else None
        if g.api_token is not None:
            g.user_id = g.api_token.user_id
    return g.api_token


def signed_in_user() -> User | None:
    """Return the person who is signed in, or whose token this is, or None."""
    if is_program():
        token = current_token()
        return token.user if token else None
    return g.user if current_sign_in() else None


current_user: Any = LocalProxy(signed_in_user)


def record_visit(response: Response) -> Response:
    """Record, every few minutes, when the person or the token was last here. Polling by an open page does not count."""
    token = g.get("api_token")
    is_visit = g.get("begins_visit") and g.get("sign_in") is not None and request.endpoint != POLL_ENDPOINT
    try:
        if token and g.now - (token.last_used_at or LONG_AGO) > VISIT_NOTED_EVERY:
            ApiToken.record_use(token.id, g.now)
        elif is_visit:
            User.record_visit(g.user_id, g.sign_in.id, g.now)
    except (DBAPIError, database.DatabaseBusy):
        log.warning("a visit could not be noted", exc_info=True)
    return response


def sign_in(user_id: int, remember: bool) -> None:
    """Begin a session with a new token for a person, and end the one before (OWASP ASVS 5.0, 7.2.4)."""
    sign_out()
    session["token"] = SignIn.start(user_id, remember, device_name(), client_address())
    session.permanent = remember
    g.pop("sign_in")  # so that the new one is read


def await_code(user: User, remember: bool, onto: str) -> ResponseReturnValue:
    """Remember in the session who has given the right password, for as long as they may take to give a code.

    Returns a redirect to where they give it, from where they go `onto` another page.
    """
    sign_out()
    session["pending"] = {
        "user_id": user.id, "password": hash_token(user.password_hash), "until": time.time() + CODE_WAIT,
        "remember": remember, "next": onto,
    }  # fmt: skip
    return redirect("/login/code", 303)


def pending_user() -> User | None:
    """Return the person who has given the right password, and not yet a code. None if that was too long ago.

    It is bound to the password: None as well if that has changed, or if the person was deactivated.
    """
    pending = session.get("pending")
    if not pending or pending["until"] < time.time():
        return None
    user = db.session.get(User, pending["user_id"])
    return user if user and user.is_active and pending["password"] == hash_token(user.password_hash) else None


def sign_out() -> None:
    """End this browser's session. Only a new CSRF token is left in its cookie."""
    if before := current_sign_in():
        SignIn.end(before.user, before.id)
    session.clear()
    g.pop("csrf_token", None)
    generate_csrf()
    g.sign_in = None


def device_name() -> str:
    """Return the name of a browser and its system, such as 'Firefox on Windows'."""
    agent = request.user_agent.string
    browsers = {"Edg/": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
    systems = {"Android": "Android", "iPhone": "iPhone", "iPad": "iPad", "Windows": "Windows", "Mac OS X": "Mac"}
    systems |= {"CrOS": "ChromeOS", "Linux": "Linux"}
    browser = next((name for mark, name in browsers.items() if mark in agent), "A browser")
    system = next((name for mark, name in systems.items() if mark in agent), "an unknown system")
    return f"{browser} on {system}"


# -- The company's account (OpenID Connect) ----------------------------------------------------------------------------

OIDC_SECONDS, OIDC_BYTES = 10, 1_000_000  # for one answer of the provider
OIDC_VALID = timedelta(minutes=10)  # for a sign-in that was begun
OIDC_TROUBLE = "Your company's sign-in didn't work. Try again, or tell an administrator: the site's log has the reason."


@contextlib.contextmanager
def provider_trouble() -> Iterator[None]:
    """Turn what goes wrong with the provider inside the block into a `ValidationError`, and log what it was."""
    try:
        yield
    except Exception as error:  # a broken or hostile answer makes the libraries raise almost anything
        said = request.args.get("error")
        log.warning("sign-in with the company's account failed: %r; the provider said %r", error, said)
        raise ValidationError("oidc", OIDC_TROUBLE) from error


def ask_provider(url: str, form: Mapping[str, str] | None = None) -> Any:
    """Return the JSON that an address of the provider answers with, to a POST if there is a form."""
    if not is_safe_address(url):
        raise ValueError(f"{url} is not encrypted")
    sent = urlencode(form).encode() if form else None
    try:
        with urlopen(url, sent, OIDC_SECONDS) as response:
            return json.loads(response.read(OIDC_BYTES))
    except HTTPError as error:  # it says in its text what is wrong, such as invalid_client
        with error:
            raise ValueError(f"{url} answered {error.code}: {error.read(500)!r}") from None


def provider() -> dict[str, Any]:
    """Return what the provider says about itself (OpenID Connect Discovery)."""
    issuer = current_app.config["OIDC_ISSUER"]
    about = ask_provider(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    if about["issuer"] != issuer or not is_safe_address(about["authorization_endpoint"]):
        raise ValueError(f"OIDC_ISSUER is {issuer}, and the provider there says of itself: {about}")
    return about


def oidc_client() -> dict[str, str]:
    """Return how this site names itself to the provider."""
    config = current_app.config
    return {"client_id": config["OIDC_CLIENT_ID"], "redirect_uri": f"{site_address(config)}/oidc/callback"}


def begin_company_sign_in() -> str:
    """Return the provider's address where somebody signs in. The session remembers what the answer has to fit."""
    begun = {name: secrets.token_urlsafe(32) for name in ("state", "nonce", "verifier")}
    session["oidc"] = begun | {"until": time.time() + OIDC_VALID.total_seconds(), "next": onward()}
    digest = hashlib.sha256(begun["verifier"].encode()).digest()
    query = oidc_client() | {
        "response_type": "code", "scope": "openid email profile", "state": begun["state"], "nonce": begun["nonce"],
        "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="), "code_challenge_method": "S256",
    }  # fmt: skip
    return f"{provider()['authorization_endpoint']}?{urlencode(query)}"


def company_account(begun: Mapping[str, Any]) -> dict[str, str]:
    """Return who has signed in at the provider, as `User.by_company_account` takes it.

    Raises `ValidationError` unless this browser began it a short time ago, and the provider's answer is sound.
    """
    state = request.args.get("state", "")
    is_ours = state == begun.get("state") and time.time() < begun["until"]
    # The session is a cookie, of which somebody may have kept a copy. So the database knows what was used.
    if not is_ours or Throttle.take(f"oidc:{state}", 1, 2 * OIDC_VALID) is not None:
        raise ValidationError("oidc", "That sign-in took too long, or began somewhere else. Sign in again.")
    with provider_trouble():
        claims = verified_claims(begun)
    identity, name = hash_token(f"{claims['iss']} {claims['sub']}"), tidy(str(claims.get("name", "")))[:NAME_MAX]
    return {"identity": identity, "email": verified_email(claims), "name": name}


def verified_claims(begun: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the provider's signed ID token says, in exchange for the code that the browser brought."""
    about, client = provider(), current_app.config["OIDC_CLIENT_ID"]
    form = oidc_client() | {
        "grant_type": "authorization_code", "code": request.args["code"], "code_verifier": begun["verifier"],
        "client_secret": current_app.config["OIDC_CLIENT_SECRET"],
    }  # fmt: skip
    token = ask_provider(about["token_endpoint"], form)["id_token"]
    key_id = jwt.get_unverified_header(token).get("kid")
    keys = jwt.PyJWKSet.from_dict(ask_provider(about["jwks_uri"])).keys
    claims = jwt.decode(
        token, next(key for key in keys if key_id in (None, key.key_id)), algorithms=["RS256", "ES256"],
        audience=client, issuer=about["issuer"], leeway=60, options={"require": ["exp", "iat", "sub"]},
    )  # fmt: skip
    if (claims["nonce"], claims.get("azp", client)) != (begun["nonce"], client) or not claims["sub"]:
        raise ValueError("the token is for another sign-in, for another client, or about nobody")
    return claims


def verified_email(claims: Mapping[str, Any]) -> str:
    """Return the email address of a company account, or "" if the provider does not vouch for it.

    Microsoft has a claim of its own for that, which it sometimes sends as text.
    """
    by_microsoft = claims["iss"].startswith("https://login.microsoftonline.com/")
    word = claims.get("xms_edov") in (True, "1") if by_microsoft else claims.get("email_verified") is True
    email = tidy(str(claims.get("email", "")))
    return email if word and len(email) <= EMAIL_MAX else ""


# -- Decorators --------------------------------------------------------------------------------------------------------

View = Callable[..., Any]


def _declare(view: View, access: str) -> None:
    if hasattr(view, "access"):
        raise TypeError(f"{view.__qualname__} has a second access decorator")
    view.access = access  # type: ignore[attr-defined]


def public(view: View) -> View:
    """Let anybody open a view."""
    _declare(view, "public")
    return view


def login_required(view: View) -> View:
    """Let everybody who is signed in open a view. Others are asked to sign in first."""
    return _requires(view, Role.READER)


def role_required(role: Role) -> Callable[[View], View]:
    """Let people with this role, or a higher one, open a view. Others get 403, or are asked to sign in first."""
    return lambda view: _requires(view, role)


def _requires(view: View, role: Role) -> View:
    _declare(view, role.name.lower())

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> ResponseReturnValue:
        user = signed_in_user()
        if user is None:
            return ask_to_sign_in()
        step = first_step(user)
        if step and request.endpoint not in (step, "auth.logout"):
            return lead_to(step)
        if user.role < role:
            abort(403)
        token, needed = current_token(), needed_scope(role)
        if token and SCOPES.index(token.scope) < SCOPES.index(needed):
            abort(403, f"This token isn't allowed to do that: it needs the scope {needed}.")
        if request.method == "POST" and not is_limited_elsewhere():
            refuse_fast_writing(user.id)
        return view(*args, **kwargs)

    return guarded


NOT_YET = "Open the site's home page first. It asks you for a new password, or to set up two-step sign-in."


def first_step(user: User) -> str:
    """Return the view that a person has to go through before any other: a new password, the second factor, or "".

    Somebody without a password signs in with the company's account, whose provider asks for a second factor.
    """
    if user.password_hash == NO_PASSWORD:
        return ""
    if user.must_change_password:
        return "account.password"
    lowest = "" if user.totp_secret else user.second_factor_role
    return "account.security" if lowest and user.role >= Role[lowest.upper()] else ""


def lead_to(step: str) -> ResponseReturnValue:
    """Answer somebody who has to take a step first: lead them there, or show the text that they sent."""
    if request.method == "GET" and request.blueprint not in ("api", "feeds"):
        return redirect(url_for(step))
    return error_page(403, text=NOT_YET)


def is_limited_elsewhere() -> bool:
    """Whether this request has another limit: the API, autosave, and files, of which a person may add many at once."""
    return request.blueprint == "api" or request.endpoint in ("posts.autosave", "files.upload")


def needed_scope(role: Role) -> str:
    """Return the scope that a token needs for this request, of a view that needs a role."""
    if role is Role.ADMIN:
        return "admin"
    return "read" if request.method in ("GET", "HEAD") else "write"


def refuse_undeclared_views(app: Flask) -> None:
    """Raise `RuntimeError` if any view has no access decorator."""
    views = app.view_functions.items()
    bare = [name for name, view in views if name not in STATIC_ENDPOINTS and not hasattr(view, "access")]
    if bare:
        raise RuntimeError(f"these views have no access decorator: {', '.join(sorted(bare))}")


# -- Signing in on the way ---------------------------------------------------------------------------------------------


def is_local_path(target: str) -> bool:
    """Whether an address leads to a page of this site (CWE-601).

    Browsers drop tabs and line breaks from addresses and read a backslash as a slash, so these are refused.
    """
    return re.fullmatch(r"/(?!/)[^\x00-\x20\x7f\\]*", target) is not None


def onward(default: str = "/") -> str:
    """Return where the person wanted to go (`next`) if that is on this site, else `default`."""
    target = request.args.get("next", "")
    return target if is_local_path(target) else default


def ask_to_sign_in() -> ResponseReturnValue:
    """Answer somebody who is not signed in: send them to the sign-in page, or show the text that they sent."""
    if wants_json():
        abort(401)
    if request.method in ("GET", "HEAD"):
        query = request.query_string.decode("latin-1")
        target = quote(request.path) + (f"?{query}" if query else "")  # the name of a file may have spaces
        return redirect(url_for("auth.login", next=target if target != "/" else None), 302)
    return error_page(401, *SIGNED_OUT)


# ======================================================================================================================
# == 4. Forms ==========================================================================================================
# ======================================================================================================================


class SiteForm(FlaskForm):
    """The base of all forms. The extension checks the CSRF token of each request, so forms do not check it again."""

    class Meta(FlaskForm.Meta):
        csrf = False  # type: ignore[assignment]

        def wrap_formdata(self, form: Any, formdata: Any) -> Any:
            """Return the fields of the form only. FlaskForm would also put files and JSON where text belongs."""
            return request.form or None if formdata is not None and form.is_submitted() else None

    def validate(self, extra_validators: Any = None) -> bool:
        """Whether the form can be saved. It cannot be while somebody only asks for a preview of its text."""
        is_preview = "preview" in request.form and "body" in self._fields
        return super().validate(extra_validators) and not is_preview

    def add_error(self, error: ValidationError | BackupError) -> None:
        """Show the error of an action beside its field, or above the form if there is no such field."""
        field = self._fields.get(error.field)
        if field is None:
            self.form_errors.append(error.message)
        else:
            field.errors = [*field.errors, error.message]

    @contextlib.contextmanager
    def errors_from_model(self) -> Iterator[None]:
        """Turn the `ValidationError` of an action inside the block into an error of the form."""
        try:
            yield
        except (ValidationError, BackupError) as error:
            self.add_error(error)


def string_field(
    label: str, longest: int, *validators: Any, shortest: int = 0, field: type[Field] = StringField, **kw: Any
) -> Any:
    """Return a field for one line of text of at most `longest` characters. It is required if it has a `shortest`."""
    needed = [DataRequired("Fill this in.")] if shortest else [Optional()]
    message = f"Use {shortest} to {longest} characters." if shortest > 1 else f"Use at most {longest} characters."
    length = Length(min=shortest or -1, max=longest, message=message)
    return field(label, validators=[*needed, length, *validators], filters=[tidy], **kw)


def textarea_field(label: str, longest: int, required: bool = True, **kw: Any) -> Any:
    """Return a field for several lines of text of at most `longest` characters."""
    needed = [DataRequired("Write something first.")] if required else [Optional()]
    length = Length(max=longest, message=f"This is too long: at most {longest:,} characters.")
    return TextAreaField(label, validators=[*needed, length], filters=[tidy_text], **kw)


def new_password(label: str = "Password", required: bool = True, **kw: Any) -> Any:
    """Return a field for a password that somebody chooses."""
    length = Length(min=PASSWORD_MIN, max=PASSWORD_MAX, message=f"Use {PASSWORD_MIN} to {PASSWORD_MAX} characters.")
    needed = InputRequired("Choose a password.") if required else Optional()
    return PasswordField(
        label, validators=[needed, length, not_common], render_kw={"autocomplete": "new-password"}, **kw
    )


USERNAME_INPUT = {"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false"}


def known_password(label: str, required: bool = True, description: str = "") -> Any:
    """Return a field for the password that somebody has already. Today's rules do not apply to it."""
    asked = [InputRequired(f"Enter your {label.lower()}.") if required else Optional(), Length(max=PASSWORD_MAX)]
    words = {"autocomplete": "current-password"}
    return PasswordField(label, validators=asked, description=description, render_kw=words)


def not_common(_form: Any, field: Field) -> None:
    """Validator: refuse a password that anyone would guess."""
    if not field.errors and (reason := weak_password(field.data)):
        raise validators.ValidationError(reason)


def confirm_password() -> Any:
    """Return a field for the chosen password a second time."""
    matches = [InputRequired("Enter the password again."), EqualTo("password", "Passwords don't match.")]
    return PasswordField("Confirm password", validators=matches, render_kw={"autocomplete": "new-password"})


NAME_LETTERS = "Use letters (a to z), digits, dots, hyphens and underscores. Start and end with a letter or digit."


def username_field(
    label: str = "Username", description: str = "Used to sign in and in your profile link, e.g. ana.lima",
    autocomplete: str = "username",
) -> Any:  # fmt: skip
    return string_field(
        label, USERNAME_MAX, Regexp(f"^{USERNAME_PATTERN}$", message=NAME_LETTERS), shortest=USERNAME_MIN,
        description=description,
        render_kw=USERNAME_INPUT | {"pattern": USERNAME_PATTERN, "autocomplete": autocomplete},
    )  # fmt: skip


def name_field() -> Any:
    return string_field("Name", NAME_MAX, shortest=1, render_kw={"autocomplete": "name"})


def email_field(required: bool = True) -> Any:
    pattern = Regexp(f"^{EMAIL_PATTERN}$", message="Enter an email address such as ana@example.com")
    return string_field(
        "Email address", EMAIL_MAX, pattern, shortest=int(required), field=EmailField,
        render_kw={"autocomplete": "email", "pattern": EMAIL_PATTERN},
    )  # fmt: skip


def choices(named: Mapping[Any, str]) -> list[SelectChoice]:
    """Return the choices of a field from values and what people call them."""
    return [SelectChoice(str(value), label) for value, label in named.items()]


ROLES = {int(role): role.label for role in Role}
DAYS_AFTER = {days: f"After {days} days" for days in (7, 30, 90, 365)}


def role_field() -> Any:
    return SelectField("Role", choices=choices(ROLES), coerce=lambda value: Role(int(value)), default=Role.MEMBER)


def is_plausible(day: date | None) -> bool:
    """Return whether every time zone and database can represent a day. No day is fine as well."""
    return day is None or 2000 <= day.year <= 2100


def plausible_day(_form: Any, field: Field) -> None:
    """Validator: a day that every time zone and database can represent."""
    if not is_plausible(field.data):
        raise validators.ValidationError("Choose a day between 2000 and 2100.")


def day_field(label: str, description: str = "") -> DateField:
    return DateField(label, validators=[Optional(), plausible_day], description=description)


def id_or_none(value: str | int | None) -> int | None:
    """Return the id that was chosen, or None if nothing was."""
    return int(value) if value else None


def form_id_field() -> Any:
    """Return a hidden field with a random id: a form that is sent twice creates one thing.

    A missing or malformed id is replaced.
    """
    return HiddenField(filters=[lambda value: value if FORM_ID.fullmatch(value or "") else secrets.token_hex(16)])


def version_field() -> Any:
    """Return a hidden field with the version that was read, so that an edit conflict is noticed."""
    return HiddenField(default="0", filters=[lambda value: int(value) if re.fullmatch("[0-9]{1,9}", str(value)) else 0])


class RestoreForm(SiteForm):
    upload = FileField("Backup", render_kw={"accept": ".zip", "required": True})


class NameForm(SiteForm):
    username = string_field("Username or email", EMAIL_MAX, shortest=1, render_kw=USERNAME_INPUT)


class LoginForm(NameForm):
    password = known_password("Password")
    remember = BooleanField("Keep me signed in on this device for 30 days")


class CodeForm(SiteForm):
    code = string_field("Code", NAME_MAX, shortest=1)


class NewPasswordForm(SiteForm):
    password = new_password("New password")
    confirm = confirm_password()


class SiteNameField:
    """Stands before `JoinForm`, because the list of errors above a form follows the order in which fields are made."""

    site_name = string_field("Site name", NAME_MAX, shortest=1, description="For example, the name of your team")


class JoinForm(SiteForm):
    name = name_field()
    username = username_field()
    email = email_field()
    password = new_password()
    confirm = confirm_password()

    def profile(self) -> dict[str, Any]:
        """Return the columns of the new person."""
        return form_values(self, "name", "username", "email") | {"password_hash": hash_password(self.password.data)}


class SetupForm(SiteNameField, JoinForm):
    """The name of a new site, and its first administrator."""


class RegisterForm(JoinForm):
    def validate_email(self, field: Field) -> None:
        site = current_site()
        if site.registration == "domains" and fold(field.data).rpartition("@")[2] not in site.domains:
            endings = " or ".join(f"@{domain}" for domain in site.domains)
            raise validators.ValidationError(f"Use an email address that ends in {endings}.")


class ProfileFields:
    name = name_field()
    email = email_field(required=False)
    title = string_field(
        "Job title", PROFILE_MAX, description="For example, Head of Workshop",
        render_kw={"autocomplete": "organization-title"},
    )  # fmt: skip
    department = string_field("Department", PROFILE_MAX)
    phone = string_field("Phone", PROFILE_MAX, field=TelField, render_kw={"autocomplete": "tel"})
    location = string_field("Location", PROFILE_MAX, description="For example, Hall B, or at home on Tuesdays")


class ProfileForm(ProfileFields, SiteForm):
    away_from = day_field("Away from", "Leave empty if you're already away")
    away_until = day_field("Away until", "The last day you're away")
    stand_in_id = SelectField("Cover", coerce=id_or_none, description="Who to ask while you're away")
    current = known_password("Current password", required=False, description="Only to change your email address")
    upload = FileField("Profile picture", description="Cropped to a square")


class AppearanceForm(SiteForm):
    theme = RadioField(
        "Colours",
        choices=choices({"system": "Match device", "light": "Light", "dark": "Dark"}),
    )
    timezone = SelectField("Time zone")
    shortcuts = BooleanField(
        "Keyboard shortcuts",
        description="/ to search, n to write a post, ? for all shortcuts. Turn them off if they get in your way.",
    )


def way_field(kind: str) -> Any:
    """Return a field for how to be notified of one kind."""
    return SelectField(KINDS[kind], choices=lambda: choices(MAIL_WAYS | WAYS if mail_is_on() else WAYS))


class NotificationsForm(SiteForm):
    mention = way_field("mention")
    must_read = way_field("must_read")
    comment = way_field("comment")
    post = way_field("post")
    shared_again = way_field("shared_again")
    reaction = way_field("reaction")
    review = way_field("review")


class PasswordForm(NewPasswordForm):
    current = known_password("Current password")

    def validate_password(self, field: Field) -> None:
        if field.data == self.current.data:
            raise validators.ValidationError("Choose another password than the current one.")


class TokenForm(SiteForm):
    name = string_field("Name", NAME_MAX, shortest=1, description="What it's for, e.g. the display in the canteen")
    scope = RadioField(
        "What it can do",
        choices=choices(
            {
                "read": "Read what you can read",
                "write": "Read and write as you can",
                "admin": "Read, write, and read the activity (administrators only)",
            }
        ),
        default="read",
    )
    days = SelectField(
        "Expires", coerce=int, default=90,
        choices=choices(DAYS_AFTER | {0: "Never"}),
    )  # fmt: skip
    form_id = form_id_field()

    def expires_at(self) -> datetime | None:
        return utcnow() + timedelta(days=self.days.data) if self.days.data else None


# -- Forms of posts ----------------------------------------------------------------------------------------------------


class PostForm(SiteForm):
    title = string_field("Title", TITLE_MAX, shortest=1)
    body = textarea_field("Text", BODY_MAX)
    upload = MultipleFileField("Pictures and files")
    topic = SelectField("Topic", coerce=int)
    parent_id = SelectField("Under", coerce=id_or_none, validate_choice=False)
    owner = SelectField("Owner", coerce=int, default=0, description="Notified when the page is due for review")
    review = SelectField(
        "Review every", coerce=int, default=0,
        choices=choices({months: f"{months} months" if months else "Never" for months in REVIEW_MONTHS}),
    )  # fmt: skip
    kind = SelectField("Type", choices=choices({"news": "News", "page": "Handbook"}), default="news")
    scheduled_for = DateTimeLocalField(
        "Publish on", format=["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"], validators=[Optional(), plausible_day],
        description="Leave empty to publish now",
    )  # fmt: skip
    expires_at = day_field("Remove from Home after", "It stays in its topic, marked as expired")
    pinned = BooleanField("Pin to the top of Home")
    until = day_field("Pin until", "Leave empty to pin it until somebody unpins it")
    must_read = BooleanField("Ask everyone to read it")
    due = day_field("Read by", "Everyone who can see it is asked to confirm. Leave empty for no date")
    form_id = form_id_field()
    version = version_field()

    def allow_gaps(self) -> None:
        """Require neither a title nor a text, because a draft may be unfinished."""
        for field, longest in ((self.title, TITLE_MAX), (self.body, BODY_MAX)):
            field.validators = [Length(max=longest, message=f"Use at most {longest:,} characters.")]


def forgiving_day_field() -> DateField:
    return DateField(validators=[Optional()], filters=[lambda day: day if is_plausible(day) else None])


class AutosaveForm(PostForm):
    """The form as autosave saves it. A day that is half typed counts as none.

    A draft has no time to publish it, or the site would publish it then. The script keeps what was typed there.
    """

    scheduled_for = None
    expires_at, until, due = forgiving_day_field(), forgiving_day_field(), forgiving_day_field()


def groups_field() -> Any:
    """Return a field of groups, each of which stands for its people."""
    words = "A group is a shortcut: it adds the people who are in it now, and no later changes."
    return SelectMultipleField(
        "Groups", coerce=int, choices=lambda: choices(names_of(Group.listed())), description=words
    )


class MustReadForm(SiteForm):
    audience = RadioField(
        "Who should read it",
        choices=choices({"all": "Everyone who can see it", "some": "Only those chosen below"}),
        default="all",
    )
    roles = SelectMultipleField("By role", coerce=int)
    groups = groups_field()
    people = SelectMultipleField("By name", coerce=int)
    due = day_field("Read by", "Leave empty for no date")
    again = BooleanField("Ask everyone to read the current version")

    def validate_audience(self, field: Field) -> None:
        if field.data == "all" and (self.roles.data or self.people.data or self.groups.data):
            raise validators.ValidationError("Choose either everyone, or only those chosen below.")

    def chosen_roles(self) -> list[Role]:
        return list(Role) if self.audience.data == "all" else [Role(number) for number in self.roles.data or ()]

    def chosen_people(self) -> set[int]:
        return {*(self.people.data or ()), *Group.people_in(self.groups.data or ())}


class PinForm(SiteForm):
    until = day_field("Pin until")


class EditCommentForm(SiteForm):
    body = textarea_field(
        "Comment", COMMENT_MAX,
        description="Markdown works: **bold**, *italic*, lists and links. Type @ to mention someone.",
    )  # fmt: skip


class CommentForm(EditCommentForm):
    form_id = form_id_field()


class TopicForm(SiteForm):
    name = string_field("Name", TOPIC_MAX, shortest=1)
    description = string_field("Description", DESCRIPTION_MAX)
    followed_by_default = BooleanField(
        "People follow this by default", description="They hear of new posts here unless they unfollow it."
    )


class NewTopicForm(TopicForm):
    private = BooleanField("Private", description="Only its members see it: you, and the people you choose.")
    members = SelectMultipleField("Who else can see it", coerce=int)
    form_id = form_id_field()


class GroupForm(SiteForm):
    name = username_field("Name", "What people type after an @, e.g. kitchen", autocomplete="off")
    member_ids = SelectMultipleField("Who is in it", coerce=int)


class MembersForm(SiteForm):
    groups = groups_field()
    user = SelectMultipleField("Add people", coerce=int)


class MergeForm(SiteForm):
    into = SelectField("Merge into", coerce=int)


class PersonForm(SiteForm):
    name = name_field()
    email = email_field(required=False)


class EditPersonForm(PersonForm):
    username = username_field()


class NewPersonForm(EditPersonForm):
    role = role_field()
    password = new_password(required=False, description="Leave empty to generate one that you can pass on")


class RoleForm(SiteForm):
    role = role_field()


class InvitationForm(SiteForm):
    name = string_field("Who it is for", NAME_MAX, description="Only administrators see it. For example, Saturday team")
    email = email_field(required=False)
    role = role_field()
    topic_ids = SelectMultipleField("Topics to join", coerce=int)
    uses_most = SelectField(
        "How many can join with it",
        coerce=int,
        choices=choices({number: str(number) for number in (1, 5, 20, 100)}),
    )
    form_id = form_id_field()


class ImportForm(SiteForm):
    upload = FileField(
        "File", render_kw={"accept": ".csv,.tsv,.txt"}, description="Saved as CSV, for example from Excel"
    )
    text = TextAreaField("Or paste the list")
    by_email = BooleanField("Email each of them that they have an account")


class ListedForm(ProfileFields, Form):
    """One line of a list of people. `taken` are the folded usernames and email addresses that it cannot have."""

    taken: set[str | None]
    username = username_field()
    role = string_field("Role", NAME_MAX, AnyOf([*ROLES.values()], "Use Reader, Member, Editor or Admin."))

    def validate_username(self, field: Field) -> None:
        if fold(field.data) in self.taken:
            raise validators.ValidationError("Someone has it already, here or in a line before.")

    validate_email = validate_username


class SiteNameForm(SiteForm):
    name = string_field("Site name", NAME_MAX, shortest=1)
    welcome = textarea_field("Welcome message", WELCOME_MAX, required=False, description="Shown on the sign-in page")


class LookForm(SiteForm):
    accent = RadioField(
        "Accent colour",
        choices=choices({name: name.capitalize() for name in ACCENTS}),
        description="Of links and buttons",
    )
    upload = FileField("Logo", description="A PNG, JPEG or WebP, shown beside the site's name, at most 32 pixels high")
    remove_logo = BooleanField("Remove the logo")


class AnnouncementForm(SiteForm):
    announcement = string_field(
        "Text", ANNOUNCEMENT_MAX, description="Shown above every page to everyone who is signed in. Empty: nothing"
    )
    announcement_until = DateField(
        "Last day", filters=[lambda day: date.fromisoformat(day) if isinstance(day, str) and day else day or None]
    )

    def validate_announcement_until(self, field: Field) -> None:
        field.errors = []  # those of a date that is missing
        if self.announcement.data and (field.data is None or field.data < site_day(g.now)):
            raise validators.ValidationError("Choose the last day on which it is shown, from today on.")


class TimeZoneForm(SiteForm):
    timezone = SelectField(
        "Time zone",
        choices=lambda: zone_choices(f"As the server is set: {current_app.config['TIMEZONE']}"),
        description="For people who haven't chosen one, and for nightly jobs",
    )


class SignUpForm(SiteForm):
    registration = RadioField(
        "Who can sign up",
        choices=choices(
            {
                "closed": "Nobody: administrators add people",
                "company": "Anyone with a company account whose email address is at one of these domains",
                "domains": "Anyone with an email address at one of these domains",
                "approval": "Anyone who can open this site, after an administrator approves",
                "open": "Anyone who can open this site",
            }
        ),
        description="Email addresses aren't verified. If others can reach this site, add people yourself.",
    )
    # Not `Optional`, which would skip `validate_registration_domains` when the field is empty.
    registration_domains = StringField(
        "Email domains",
        validators=[Length(max=500)],
        filters=[tidy],
        description="For example, example.com, example.org",
    )
    registration_role = SelectField(
        "Role of people who sign up", choices=choices({"reader": "Reader", "member": "Member"})
    )

    def validate_registration_domains(self, field: Field) -> None:
        domains = field.data.replace(",", " ").split()
        if self.registration.data in ("company", "domains") and not domains:
            raise validators.ValidationError("Enter at least one domain, such as example.com")
        if not all(re.fullmatch(r"[^@\s.]+(\.[^@\s.]+)+", domain) for domain in domains):
            raise validators.ValidationError("Enter domains such as example.com, separated by commas.")


class ActivityForm(SiteForm):
    activity_days = SelectField(
        "Keep entries for",
        choices=choices({"365": "1 year", "730": "2 years", "1825": "5 years", "0": "Forever"}),
    )


class SecondFactorForm(SiteForm):
    second_factor_role = SelectField(
        "Required for",
        choices=choices(
            {
                "": "Nobody: everyone decides for themselves",
                "admin": "Administrators",
                "editor": "Editors and administrators",
                "member": "Members, editors and administrators",
                "reader": "Everyone",
            }
        ),
    )


class BinForm(SiteForm):
    bin_days = SelectField(
        "Delete permanently",
        choices=choices(DAYS_AFTER | {0: "Never: an administrator empties the bin"}),
    )


# ======================================================================================================================
# == 5. View helpers ===================================================================================================
# ======================================================================================================================


def current_site() -> Site:
    """Return the site's settings, which are read once in a request."""
    if "site" not in g:
        g.site = Setting.read()
    return g.site


class Page(NamedTuple):
    """One page of a list."""

    items: Sequence[Any]
    next: str | int | None  # the cursor of the next page
    is_continued: bool  # whether it is not the first page


def count_of(rows: Any, *conditions: Any) -> int:
    """Return how many rows of a model or a subquery meet all conditions."""
    return db.session.scalar(sa.select(sa.func.count()).select_from(rows).where(*conditions)) or 0


def fetch(statement: Statement, **params: Any) -> Sequence[Any]:
    """Run a select for the person who is signed in. Returns rows, or entities if it selects one model and no more."""
    user: Any = signed_in_user()
    known = {"viewer": user.id, "now": g.now, "since": user.new_since}
    rows = db.session.execute(statement, known | params).all()
    is_entity = bool(rows) and len(rows[0]) == 1 and isinstance(rows[0][0], db.Model)
    return [row[0] for row in rows] if is_entity else rows


def paginate(statement: Statement, keys: Sequence[Any], size: int = PAGE_SIZE, **params: Any) -> Page:
    """Return a page of a list by keyset: the rows (or entities) that follow `before` in the order of `keys`.

    Keys are columns of the statement with their directions; together they are unique. Aborts with 404 for a cursor
    that is not valid.
    """
    before = request.args.get("before")
    if before:
        statement = statement.where(beyond(keys, decode_cursor(before, keys)))
    rows = fetch(statement.order_by(*keys).limit(size + 1), **params)
    items = rows[:size]
    cursor = encode_cursor(getattr(items[-1], key.element.key) for key in keys) if len(rows) > size else None
    return Page(items, cursor, bool(before))


def beyond(keys: Sequence[Any], place: Sequence[Any]) -> sa.ColumnElement[bool]:
    """Whether a row comes after a place in the order of some keys.

    It compares column by column, because MariaDB would read the whole index to compare tuples.
    """
    (first, *rest), (value, *values) = keys, place
    column, descending = first.element, first.modifier is desc_op
    after = column < value if descending else column > value
    if not rest:
        return after
    within = column <= value if descending else column >= value
    return sa.and_(within, sa.or_(after, beyond(rest, values)))


def encode_cursor(values: Iterable[Any]) -> str:
    """Return a place in a list as an opaque cursor for an address."""
    text = json.dumps([*values], default=str)  # dates have no form of their own in JSON
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, keys: Sequence[Any]) -> list[Any]:
    """Return the place that a cursor names. Aborts with 404 for a cursor that is not valid."""
    try:
        parts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
        return [read_key(key.element.type.python_type, part) for key, part in zip(keys, parts, strict=True)]
    except (ValueError, TypeError, RecursionError):  # the errors of binascii and json are ValueErrors
        abort(404)


def read_key(kind: type, part: Any) -> Any:
    """Return the value of one key in a cursor. Raises `ValueError` or `TypeError`."""
    if issubclass(kind, date):
        return kind.fromisoformat(part)
    if type(part) is not kind or (kind is str and _CONTROL.search(part)) or (kind is int and abs(part) > ID_MAX):
        raise ValueError(part)
    return part


def validation_words(field: Field) -> dict[str, str]:
    """Return the messages of a field's validators as data attributes. The script shows them before a form is sent."""
    words = {}
    for rule in field.validators:
        if isinstance(rule, (DataRequired, InputRequired)):
            words["data-missing"] = rule.message
        elif isinstance(rule, EqualTo):
            words |= {"data-same-as": rule.fieldname, "data-differs": rule.message}
        elif isinstance(rule, Regexp):
            words["data-mismatch"] = rule.message
        elif isinstance(rule, Length):
            words["data-length"] = rule.message
    return words


def as_id(given: str) -> int:
    """Return an id as a number. Raises `ValueError` for what cannot be an id."""
    if not ID.fullmatch(given) or int(given) > ID_MAX:
        raise ValueError(given)
    return int(given)


def wants_json() -> bool:
    return request.path.startswith("/api/")


def form_page(template: str, form: SiteForm, **context: Any) -> ResponseReturnValue:
    """Return the page of a form, with status 422 if the form has errors, else 200."""
    refused = request.method == "POST" and form.errors
    return render_template(template, form=form, **context), 422 if refused else 200


def login_page(form: LoginForm, status: int) -> ResponseReturnValue:
    return render_template("auth/login.html", form=form, is_set_up=User.exists()), status


def seen(model: Any, value: int | str, column: str = "id") -> Any:
    """Return a thing as it is now, by its id or another column. Aborts with 404 if the person does not see it."""
    found = model.visible_to(current_user).where(getattr(model, column) == value)
    return db.one_or_404(found.execution_options(populate_existing=True))


def redirect_with_flash(address: str, message: str, undo: str = "") -> ResponseReturnValue:
    """Redirect after a change that succeeded (303), with a message about it and perhaps the address that undoes it."""
    flash({"text": message, "undo": undo})  # type: ignore[arg-type]
    return redirect(address, 303)


def form_values(form: SiteForm, *names: str) -> dict[str, Any]:
    """Return the values of some fields of a form, by their names."""
    return {name: form[name].data for name in names}


def names_of(statement: sa.Select[Any]) -> dict[Any, str]:
    """Return the names of the people, topics or groups that a statement selects, by their ids."""
    return {thing.id: thing.name for thing in db.session.scalars(statement)}


def qr_code(text: str) -> Markup:
    """Return a QR code as SVG, black on white in both themes: scanners read no other."""
    code = segno.make(text, micro=False)
    return Markup(code.svg_inline(scale=4, border=4, dark="#000", light="#fff", omitsize=True))


# -- Lists of people ---------------------------------------------------------------------------------------------------

LISTED = ("name", "username", "email", "role", *PROFILE_FIELDS)  # the columns


class ListedLine(NamedTuple):
    """A line of a list of people, and what would happen with it."""

    number: int
    values: dict[str, str]  # what it says, by column
    errors: Mapping[Any, Any]  # what is wrong, by column
    is_known: bool  # the person is here already


def decode_list(content: bytes) -> str:
    """Return the text of a file as spreadsheets save it: in UTF-8, or by older ones in Windows-1252."""
    with contextlib.suppress(UnicodeDecodeError):
        return content.decode("utf-8-sig")
    return content.decode("cp1252", errors="replace")


def read_list(text: str) -> list[ListedLine]:
    """Return what a list of people (CSV) says, line by line. Raises `ValidationError` if it is no such list."""
    heading = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=heading.count), strict=True)
    people = db.session.scalars(sa.union(sa.select(User.username_key), sa.select(User.email_key)))
    known, form = {*people}, ListedForm()
    form.taken = {EVERYONE, *known, *db.session.scalars(sa.select(Group.name_key))}
    try:
        reader.fieldnames = [fold(cell) for cell in reader.fieldnames or ()]
        if "name" not in reader.fieldnames or text.count("\n") > IMPORT_MOST:
            words = "The first line has to name the columns, such as name,email,role. At most 5,000 lines may follow."
            raise ValidationError("text", words)
        return [read_line(reader.line_num, row, known, form) for row in reader if any(row.values())]
    except csv.Error as error:
        raise ValidationError("text", f"Line {reader.reader.line_num} can't be read: {error}.") from error


def read_line(number: int, row: Mapping[str, str], known: set[str | None], form: ListedForm) -> ListedLine:
    """Return a line of a list. A person is known by the email address, or without one by the username."""
    # Without the apostrophe that `harmless_cell` puts before what looks like a formula.
    values = {column: re.sub("^'(?=[=+@|%＝＋＠－-])", "", tidy(row.get(column))) for column in LISTED}
    values["username"] = values["username"] or values["email"].partition("@")[0]
    values["role"] = (values["role"] or "Member").capitalize()
    is_known = fold(values["email"] or values["username"]) in known
    form.process(MultiDict(values))
    errors = {} if is_known or form.validate() else form.errors
    form.taken |= {fold(values["username"]), fold(values["email"])}
    return ListedLine(number, values, errors, is_known)


# -- Reactions, as a page shows them -----------------------------------------------------------------------------------


def reactions_of(post_id: int | None, comment_ids: Sequence[int] = ()) -> dict[int | None, tuple[ReactionSummary, ...]]:
    """Return the reactions to a post, under None, and to comments, under their ids, as `current_user` sees them."""
    given: dict[int | None, dict[str, list[Any]]] = {comment_id: {} for comment_id in (None, *comment_ids)}
    for row in fetch(REACTIONS_GIVEN, post_id=post_id, comment_ids=comment_ids):
        given[row.comment_id].setdefault(row.kind, []).append(row)
    return {comment_id: summarise_reactions(kinds) for comment_id, kinds in given.items()}


def summarise_reactions(given: Mapping[str, Sequence[Any]]) -> tuple[ReactionSummary, ...]:
    """Return a summary for each kind of reaction that one post or comment has, in the order of `REACTIONS`."""
    summaries = []
    for kind, (symbol, label) in REACTIONS.items():
        if kind in given:
            others = tuple(row.name for row in given[kind] if row.user_id != current_user.id)
            is_mine = len(others) < len(given[kind])
            names = ("You", *others) if is_mine else others
            summaries.append(ReactionSummary(kind, symbol, label, is_mine, names))
    return tuple(summaries)


# -- What somebody opened ----------------------------------------------------------------------------------------------


def mark_read(post_id: int) -> None:
    """Record that the person who is signed in has opened a post. A failure is logged, and the page is shown anyway."""
    try:
        ReadMark.write(current_user.id, post_id, g.now)
    except (DBAPIError, database.DatabaseBusy):
        log.warning("it could not be noted that somebody opened post %s", post_id, exc_info=True)


# -- The tree of the handbook ------------------------------------------------------------------------------------------


def page_tree() -> dict[Any, list[Any]]:
    """Return the handbook pages that the person sees: by the slugs of their topics, or by the ids of their parents.

    A page whose parent they do not see is at the top of its topic.
    """
    pages = fetch(HANDBOOK)
    known = {page.id for page in pages}
    tree = {}
    for page in pages:
        tree.setdefault(page.parent_id if page.parent_id in known else page.topic_slug, []).append(page)
    return tree


def depth_first(tree: Any, place: Any, above: Any = ()) -> Iterator[Any]:
    """Yield the pages of a topic in the order in which one reads, each with the pages above it."""
    for page in tree.get(place, ()):
        yield page, above
        yield from depth_first(tree, page.id, (*above, page))


# -- Beside the lists --------------------------------------------------------------------------------------------------


def sidebar() -> SimpleNamespace:
    """Return what Home has beside and above its list: who is away, what changed in the handbook, and the topics."""
    day = today()
    away = fetch(AWAY, ended=day - DAYS_APART, begun=day + DAYS_APART)
    here = [person for person in away if is_away(person)][:AWAY_SHOWN]
    return SimpleNamespace(away=here, changed=fetch(CHANGED_PAGES), topics=fetch(FIRST_TOPICS), day=day)


# -- Uploads: from a request to the data folder ------------------------------------------------------------------------


class StoredFile(NamedTuple):
    """A file that is on the disk but has no row yet."""

    name: str
    ending: str
    size: int
    sha256: str
    stored: str
    width: int | None = None
    height: int | None = None


def files_folder() -> Path:
    return Path(current_app.config["DATA_DIR"]) / "files"


def stored_path(stored: str, suffix: str = "") -> Path:
    """Return where a file is kept: in one of 256 folders, so that no folder has too many files for the system."""
    return files_folder() / stored[:2] / (stored + suffix)


def take_uploads(form: PostForm) -> Sequence[Attachment]:
    """Store the uploads of a post's form. Returns them and the earlier ones; the form's field gets the errors."""
    ids = request.form.getlist("attached", type=as_id)
    uploads = [given for given in request.files.getlist("upload") if given]
    form.upload.process_errors = errors = []
    for given in uploads[:FILES_MOST]:
        try:
            ids.append(take_upload(given).id)
        except ValidationError as error:
            errors.append(error.message)
    if left := [tidy_filename(given.filename) for given in uploads[FILES_MOST:]]:
        errors.append(f"A form takes {FILES_MOST} files at once. Add these again: {', '.join(left)}.")
    return db.session.scalars(Attachment.unused_of(current_user, ids)).all()


def take_upload(given: FileStorage) -> Attachment:
    """Store an upload of the person who is signed in. Raises `ValidationError` or `NoRoom`."""
    Attachment.require_room(current_user)
    return Attachment.create(current_user, store_upload(given))


def store_upload(given: FileStorage) -> StoredFile:
    """Write an uploaded file to the disk. Raises `ValidationError`, or `NoRoom` if the disk does not take it."""
    name = tidy_filename(given.filename)
    ending = name.rpartition(".")[2] if "." in name else ""
    if ending not in PICTURES.keys() | OTHER_FILES:
        raise ValidationError("upload", f"{name}: this type of file isn't accepted.")
    if not given.stream.read(1):
        raise ValidationError("upload", f"{name} is empty.")
    given.stream.seek(0)
    if ending in PICTURES:
        return store_picture(given.stream, name, ending)
    return store_versions(name, {"": given.stream})


def store_versions(name: str, versions: Mapping[str, IO[bytes]], *size: int) -> StoredFile:
    """Write a file and its smaller versions, by suffix. `size` is the width and height of a picture.

    Raises `NoRoom` if the disk is full or cannot be written to. A failure leaves nothing on the disk.
    """
    stored = secrets.token_hex(16)
    try:
        for suffix, content in versions.items():
            write_file(content, stored_path(stored, suffix))
    except OSError as error:
        unlink_versions(stored)
        log.error("an upload cannot be written: %s", error)
        cause = "The server's disk is full" if error.errno in FULL else "The server can't write to its folder for files"
        words = f"{cause}, so {name} wasn't saved. Tell an administrator; your text is not lost."
        raise NoRoom("upload", words) from error
    with open(stored_path(stored), "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return StoredFile(name, name.rpartition(".")[2], file.tell(), sha256, stored, *size)


def unlink_versions(stored: str) -> None:
    """Delete a file and its smaller versions. Windows deletes no file that is being sent: `prune` does it later."""
    for suffix in VERSION_SUFFIXES:
        with contextlib.suppress(OSError):
            stored_path(stored, suffix).unlink()


def trash_folder() -> Path:
    return database.data_folder() / "trash"


def is_older(path: Path, age: timedelta) -> bool:
    return path.stat().st_mtime < time.time() - age.total_seconds()


def move_file(path: Path, target: Path) -> bool:
    """Give a file the present time, and move it. Returns False where that fails."""
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.utime(path)  # first: an old file in the trash would be deleted at once
        shutil.move(path, target)
    except OSError as error:  # Windows moves no file that is being sent
        log.warning("%s could not be moved to %s: %s", path, target, error)
        return False
    return True


def empty_trash() -> int:
    """Delete permanently what has been in the trash for long. Returns how many files."""
    old = [path for path in trash_folder().glob("*") if is_older(path, TRASH_AGE)]
    for path in old:
        path.unlink()
    return len(old)


def write_file(content: IO[bytes], path: Path) -> None:
    """Copy a stream to a new file, and wait until it is on the disk."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path, "xb") as file:
        shutil.copyfileobj(content, file)
        file.flush()
        os.fsync(file.fileno())


# -- Exports: all that is a person's own -------------------------------------------------------------------------------

# The files of an export: the model of each, the column that says whose a row is, and the columns that it has.
EXPORTED: dict[str, tuple[Any, str, str]] = {
    "posts": (Post, "author_id", "id topic_id kind title body published_at edited_at deleted_at"),
    "comments": (Comment, "author_id", "id post_id body created_at edited_at deleted_at"),
    "reactions": (Reaction, "user_id", "post_id comment_id kind at"),
    "confirmations": (Acknowledgement, "user_id", "post_id revision at"),
    "follows": (Follow, "user_id", "topic_id post_id state"),
    "sign-ins": (SignIn, "user_id", "device address created_at last_used_at ended_at"),
    "activity": (Activity, "actor_id", "at action object_type object_id address"),
    "files": (Attachment, "uploader_id", "id name size post_id comment_id created_at"),
    "profile": (User, "id", f"username name email {' '.join(PROFILE_FIELDS)} away_from away_until theme timezone"),
}


def send_export(person: User) -> Response:
    """Record the export of a person's data, and send it as a ZIP file: tables in JSON, and what they uploaded."""
    User.record_export(current_user, person)
    file = tempfile.SpooledTemporaryFile(1024 * 1024)  # noqa: SIM115 (sending it closes it)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (model, owner, columns) in EXPORTED.items():
            things = exported(model, getattr(model, owner), person)
            rows = [{column: getattr(thing, column) for column in columns.split()} for thing in things]
            archive.writestr(f"{name}.json", json.dumps(rows, default=str, ensure_ascii=False, indent=1))
        for upload in exported(Attachment, Attachment.uploader_id, person):
            with contextlib.suppress(FileNotFoundError):
                archive.write(stored_path(upload.stored), f"files/{upload.id}-{upload.name}")
    file.seek(0)
    return send_file(file, "application/zip", as_attachment=True, download_name=f"{person.username}.zip")


def exported(model: Any, owner: Any, person: User) -> Iterator[Any]:
    """Return what is a person's in their export. An administrator gets the texts and files that they see themselves."""
    others = person.id != current_user.id and model in (Post, Comment, Attachment)
    things = model.visible_to(current_user) if others else sa.select(model)
    return db.session.scalars(things.where(owner == person.id).order_by(model.id))


# -- Pictures: encoded again, so that only what they show is kept ------------------------------------------------------

with contextlib.suppress(ImportError):  # an optional package: see requirements.txt
    from pillow_heif import register_heif_opener  # pyright: ignore[reportMissingImports]

    register_heif_opener()
    PICTURES_READ.append("HEIF")

picture_lock = threading.Lock()  # pictures are decoded one at a time, because each takes much memory


def store_picture(content: IO[bytes], name: str, ending: str) -> StoredFile:
    """Write a picture and its smaller versions. Raises `ValidationError` if it cannot be read, or `NoRoom`."""
    kind = PICTURES[ending]
    with open_picture(content, name) as image:
        is_animated = kind != "JPEG" and has_frames(image)
        if is_animated:
            kind = "WEBP"
        versions = {"": save_animated(image) if is_animated else save_still(image, kind)}
        size = image.size
        if max(size) > MEDIUM_PIXELS and not is_animated:
            versions[".medium"] = save_smaller(image, MEDIUM_PIXELS)
        versions[".thumb"] = save_smaller(image, THUMB_PIXELS)
    if is_animated or ending not in SHOWN_TYPES:
        name = tidy_filename(name.removesuffix(ending) + kind)
    return store_versions(name, versions, *size)


def store_avatar(given: FileStorage) -> StoredFile:
    """Write the picture of a person, cropped to a small square. Raises `ValidationError` or `NoRoom`."""
    size = (AVATAR_PIXELS, AVATAR_PIXELS)
    with open_picture(given.stream, tidy_filename(given.filename)) as image:
        image.draft("RGB", size)
        square = ImageOps.exif_transpose(ImageOps.fit(in_full_colour(image), size))
        made = encoded(square, "WEBP")
    return store_versions("picture.webp", {"": made}, *size)


def logo_picture(given: FileStorage) -> bytes:
    """Return an uploaded logo as a small WebP. Raises `ValidationError` if it cannot be read."""
    with open_picture(given.stream, tidy_filename(given.filename)) as image:
        return save_smaller(ImageOps.exif_transpose(image), LOGO_PIXELS).getvalue()


@contextlib.contextmanager
def open_picture(content: IO[bytes], name: str) -> Iterator[Image.Image]:
    """Open a picture. What Pillow raises for a broken or hostile one becomes a `ValidationError`."""
    if not picture_lock.acquire(timeout=PICTURE_WAIT_SECONDS):
        raise ValidationError(
            "upload", f"{name} has to wait: other pictures are being processed. Try again in a minute."
        )
    try:
        scans = content.read().count(b"\xff\xda")
        content.seek(0)
        with Image.open(content, formats=PICTURES_READ) as image:
            if max(image.size) > SIDE_MAX or (image.format in ("JPEG", "MPO") and scans > SCANS_MOST):
                raise Image.DecompressionBombError
            yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValidationError("upload", f"{name} has too many pixels or frames.") from None
    except Exception as error:  # a broken file makes Pillow raise almost anything
        log.info("a picture that cannot be read: %r", error)
        raise ValidationError(
            "upload", f"{name} can't be read as a picture. Save it as JPEG or PNG, then add that."
        ) from None
    finally:
        picture_lock.release()


def has_frames(image: Any) -> bool:
    """Whether a picture is animated. Raises `DecompressionBombError` if all frames together have too many pixels."""
    frames = getattr(image, "n_frames", 1)
    if frames > FRAMES_MOST or frames * image.width * image.height > PICTURE_PIXELS:
        raise Image.DecompressionBombError
    return frames > 1


def save_animated(image: Any) -> io.BytesIO:
    """Return a picture with all its frames, each as long as before, but without its metadata.

    It is a WebP, which holds every frame as it is shown. GIF would need other colours, and more room.
    """
    durations = []
    for frame in ImageSequence.Iterator(image):
        frame.load()  # only then is its duration known
        durations.append(frame.info.get("duration", 0))
    image.seek(0)
    exact = {"lossless": True, "quality": 0} if image.format in ("GIF", "PNG") else {}
    loop = image.info.get("loop", 1)
    return encoded(image, "WEBP", save_all=True, kmax=0, duration=durations, loop=loop, **exact)


def save_still(image: Image.Image, kind: str) -> io.BytesIO:
    """Return a picture turned upright, without what the camera recorded: place, time, device."""
    ImageOps.exif_transpose(image, in_place=True)
    fits = image.mode in ("L", "RGB") if kind == "JPEG" else image.mode != "CMYK"
    return encoded(image if fits else image.convert("RGB"), kind)


def save_smaller(image: Image.Image, pixels: int) -> io.BytesIO:
    """Return a smaller version of a picture, whose longer side has at most so many pixels."""
    smaller = in_full_colour(image)
    smaller.thumbnail((pixels, pixels))
    return encoded(smaller, "WEBP", quality=80)


def in_full_colour(image: Image.Image) -> Image.Image:
    """Return a picture with 8 bits for each colour, and without a palette, which looks bad when it is made smaller."""
    if image.mode.startswith("I"):
        return image.point(lambda grey: grey / 256).convert("L")
    full = "RGBA" if image.has_transparency_data else "RGB"
    return image.convert(full) if image.mode in ("1", "P") else image


def encoded(image: Image.Image, kind: str, quality: int = 90, **options: Any) -> io.BytesIO:
    """Return a picture as a file in memory, because Pillow does not report a full disk when it writes there itself."""
    made = io.BytesIO()
    image.save(made, kind, quality=quality, comment=b"", **options)
    made.seek(0)
    return made


# ======================================================================================================================
# == 6. Routes =========================================================================================================
# ======================================================================================================================

# -- auth: setting up, signing in and out, registering -----------------------------------------------------------------

auth = Blueprint("auth", __name__)


@auth.route("/setup", methods=["GET", "POST"])
@public
def setup() -> ResponseReturnValue:
    """Name the site and create its first administrator, with the link that the console printed."""
    token = request.args.get("token", "")
    _check_setup_token(token)
    form = SetupForm()
    if form.validate_on_submit():
        with form.errors_from_model():
            user = Setting.set_up(token, site_name=form.site_name.data, **form.profile())
            remove_setup_file(current_app)
            sign_in(user.id, remember=False)
            return redirect_with_flash("/admin", "Your site is ready.")
    return form_page("auth/setup.html", form)


def _check_setup_token(token: str) -> None:
    """Abort unless the link is the newest one: 404 if the site is set up, 403, or 429 after many attempts."""
    expected = Setting.setup_token_hash()
    if expected is None or User.exists():
        abort(404)
    if not hmac.compare_digest(expected, hash_token(token)):
        # This GET writes to the database. That does no harm while the site has no people.
        refuse_too_often(f"setup:{client_network()}", 10, timedelta(seconds=30))
        words = f"This set-up link has expired or been replaced. Look at the console, or run: {FLASK} setup-link"
        abort(403, words)


@auth.route("/setup/restore", methods=["GET", "POST"])
@public
def restore_backup() -> ResponseReturnValue:
    """Set the site up from a backup instead, with the link that the console printed."""
    _check_setup_token(request.args.get("token", ""))
    form = RestoreForm()
    if form.validate_on_submit():
        with form.errors_from_model():
            upload = request.files["upload"]
            Backup.restore(upload.stream, tidy_filename(upload.filename))
            remove_setup_file(current_app)
            return redirect_with_flash("/login", "Everything is restored. Sign in with the password you had then.")
    return form_page("auth/restore_backup.html", form)


@auth.route("/login", methods=["GET", "POST"])
@public
def login() -> ResponseReturnValue:
    """Sign in, and go on to the page that was asked for."""
    form = LoginForm()
    if request.method != "POST" and current_user:
        return redirect(onward())
    if form.validate_on_submit():
        with form.errors_from_model():
            return let_in(authenticate(form.username.data, form.password.data), form.remember.data, onward())
    return login_page(form, 422 if form.errors else 200)


def let_in(user: User, remember: bool, onto: str) -> ResponseReturnValue:
    """Sign in a person, and send them `onto` a page. Whoever has a second factor is asked for a code first."""
    if user.totp_secret:
        return await_code(user, remember, onto)
    sign_in(user.id, remember)
    return redirect(onto, 303)


@auth.route("/login/code", methods=["GET", "POST"])
@public
def login_code() -> ResponseReturnValue:
    """Give the second factor after the password: a code from one's app, or a recovery code."""
    user, form = pending_user(), CodeForm()
    if user is None:
        return redirect("/login")
    if form.validate_on_submit():
        if accepts_code(user, form):
            pending = session["pending"]
            sign_in(user.id, pending["remember"])
            return redirect(pending["next"], 303)
        SignIn.record_failure(user)
    return form_page("auth/login_code.html", form, user=user)


def accepts_code(user: User, form: CodeForm) -> bool:
    """Use up the code in a form, and return whether it is right. Raises 429 with Retry-After after many tries."""
    key = f"code-{_account_key(user, '')}"
    refuse_too_often(key, CODE_TRIES, CODE_TRY_EVERY)
    if User.use_code(user.id, form.code.data):
        Throttle.forget(key)
        return True
    form.add_error(ValidationError("code", WRONG_CODE))
    return False


@auth.route("/reset", methods=["GET", "POST"])
@public
def reset() -> ResponseReturnValue:
    """Ask for an email with a link for a new password. The answer is the same for names that nobody has."""
    form = NameForm()
    if mail_is_on() and form.validate_on_submit():
        refuse_too_often(f"reset:{client_network()}", TEAM_TRIES, TEAM_TRY_EVERY)
        refuse_too_often(f"reset-name:{fold(form.username.data)}", 3, timedelta(minutes=10))
        ResetLink.ask(form.username.data)
        return redirect_with_flash("/login", RESET_SENT)
    return form_page("auth/reset.html", form)


RESET_SENT = "If this account exists and has an email address, a link is on its way. It works once, for 30 minutes."
LINK_ENDED = "Each link works once, for 30 minutes. On the sign-in page, follow “Forgot your password?” for a new one."


@auth.route("/reset/<token>", methods=["GET", "POST"])
@public
def reset_by_link(token: str) -> ResponseReturnValue:
    """Choose a new password with a link. It does not sign anybody in."""
    user, form = db.session.scalar(ResetLink.owner(token)), NewPasswordForm()
    if user is None or not may_use_password(user):
        return error_page(410, "This link has ended", COMPANY_ONLY if user else LINK_ENDED)
    if form.validate_on_submit():
        ResetLink.use(token, hash_password(form.password.data))
        return redirect_with_flash("/login", "Password changed. Sign in with it now.")
    return form_page("auth/reset_by_link.html", form, user=user)


@auth.post("/oidc/start")
@public
def start_oidc() -> ResponseReturnValue:
    """Send somebody to sign in with their company's account."""
    if not current_app.config["OIDC_ISSUER"]:
        abort(404)
    refuse_too_often(f"oidc:{client_network()}", TEAM_TRIES, TEAM_TRY_EVERY)
    form = LoginForm(formdata=None)
    with form.errors_from_model(), provider_trouble():
        # A page that leads on, because the policy lets no form lead to another site, not even by a redirect.
        return render_template("auth/leave.html", address=begin_company_sign_in())
    return login_page(form, 503)


@auth.get("/oidc/callback")
@public
def finish_oidc() -> ResponseReturnValue:
    """Sign in whoever comes back from the provider."""
    if not current_app.config["OIDC_ISSUER"]:
        abort(404)
    form, begun = LoginForm(formdata=None), session.pop("oidc", {})
    with form.errors_from_model():
        return let_in(User.by_company_account(**company_account(begun)), False, begun["next"])
    return login_page(form, 403)


@auth.post("/logout")
@login_required
def logout() -> ResponseReturnValue:
    """End the sign-in of this browser."""
    sign_out()
    return redirect_with_flash("/login", "You've been signed out.")


@auth.route("/register", methods=["GET", "POST"])
@public
def register() -> ResponseReturnValue:
    """Create an account for oneself. 404 where the settings do not allow it."""
    site = current_site()
    if not site.takes_sign_ups:
        abort(404)
    form = RegisterForm()
    if form.validate_on_submit():
        refuse_too_often(f"register:{client_network()}", 10, timedelta(minutes=2))
        role, waits = Role[site.registration_role.upper()], site.registration == "approval"
        with form.errors_from_model():
            return welcome(User.create(None, role=role, awaits_approval=waits, **form.profile()))
    return form_page("auth/register.html", form)


def welcome(user: User) -> ResponseReturnValue:
    """Sign a new person in, unless they have to wait for approval."""
    if user.awaits_approval:
        return redirect_with_flash("/login", f"Thank you, {user.name}. {WAITS}")
    sign_in(user.id, remember=False)
    return redirect_with_flash("/", f"Welcome, {user.name}.")


@auth.route("/invite/<token>", methods=["GET", "POST"])
@public
def accept_invitation(token: str) -> ResponseReturnValue:
    """Join with an invitation. The answer to one that does not work says nothing more about it."""
    invitation = Invitation.of_link(token)
    if invitation is None:
        return error_page(
            410,
            "This invitation doesn't work any more",
            "It has expired, was used up or was withdrawn. Ask the person who invited you for a new one.",
        )
    form = JoinForm(data={"email": invitation.email})
    if form.validate_on_submit():
        refuse_too_often(f"invite:{client_network()}", TEAM_TRIES, TEAM_TRY_EVERY)
        with form.errors_from_model():
            return welcome(Invitation.accept(token, **form.profile()))
    return form_page("auth/invite.html", form, invitation=invitation)


# -- account: one's own profile, appearance, password and devices ------------------------------------------------------

account = Blueprint("account", __name__, url_prefix="/account")


@account.route("", methods=["GET", "POST"])
@login_required
def profile() -> ResponseReturnValue:
    """Edit one's own profile and picture."""
    form = ProfileForm(obj=current_user)
    others = User.active().where(User.id != current_user.id)
    form.stand_in_id.choices = choices({"": "Nobody in particular"} | names_of(others))
    # With a link to another address, a browser that was left open would be enough to take the account over.
    if form.validate_on_submit() and (form.email.data == (current_user.email or "") or has_password(form)):
        given = request.files.get("upload")
        with form.errors_from_model():
            picture = store_avatar(given) if given else None  # an upload without a name is false: no file was chosen
            names = ("name", "email", *PROFILE_FIELDS, "away_from", "away_until", "stand_in_id")
            User.edit_profile(current_user, **form_values(form, *names))
            if picture:
                Attachment.set_avatar(current_user, picture)
            return redirect_with_flash("/account", "Profile saved.")
    return form_page("account/profile.html", form, profile_fields=PROFILE_FIELDS)


@account.post("/export")
@login_required
def export() -> ResponseReturnValue:
    """Download all that is one's own."""
    return send_export(current_user)


@account.route("/appearance", methods=["GET", "POST"])
@login_required
def appearance() -> ResponseReturnValue:
    """Choose the colours, the time zone, and whether keyboard shortcuts work."""
    form = AppearanceForm(obj=current_user)
    form.timezone.choices = zone_choices(f"Site default: {zone_of('').key}")
    if form.validate_on_submit():
        User.edit_appearance(current_user, **form.data)
        return redirect_with_flash("/account/appearance", "Saved.")
    return form_page("account/appearance.html", form)


@account.route("/notifications", methods=["GET", "POST"], endpoint="notifications")
@login_required
def notification_choices() -> ResponseReturnValue:
    """Choose what to be notified of, and how."""
    form = NotificationsForm(data=Notification.offered_choices(current_user))
    if form.validate_on_submit():
        Notification.choose(current_user, **form.data)
        return redirect_with_flash("/account/notifications", "Saved.")
    return form_page("account/notifications.html", form)


@account.route("/unsubscribe/<token>", methods=["GET", "POST"])
@csrf.exempt  # the signature is the permission: mail programs ask by themselves (RFC 8058)
@public
def unsubscribe(token: str) -> ResponseReturnValue:
    """Stop emails of one kind, by the link in such an email."""
    try:
        user_id, kind = unsubscribe_signer().loads(token)
    except BadSignature:
        abort(404)
    is_done = request.method == "POST"
    if is_done:
        Notification.stop_mail(db.get_or_404(User, user_id), kind)
    return render_template("account/unsubscribe.html", is_done=is_done, about=MAIL_KINDS[kind])


def zone_choices(default: str) -> list[SelectChoice]:
    return choices({"": default} | {name: name.replace("_", " ") for name in time_zones()})


def time_zones() -> list[str]:
    """Return the time zones that people choose from: places, without the old abbreviations and offsets."""
    return sorted(name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "SystemV/")))


@account.route("/password", methods=["GET", "POST"])
@login_required
def password() -> ResponseReturnValue:
    """Change one's own password. All other devices are signed out."""
    form = PasswordForm()
    if form.validate_on_submit() and has_password(form):
        onto = "/" if current_user.must_change_password else "/account/password"
        User.change_password(current_user, hash_password(form.password.data))
        sign_in(current_user.id, session.permanent)
        return redirect_with_flash(onto, "Password changed. All other devices have been signed out.")
    return form_page("account/password.html", form)


def has_password(form: PasswordForm | ProfileForm) -> bool:
    """Whether a form has the person's present password. Raises 429 with Retry-After after many tries."""
    key = f"password:{current_user.id}"
    refuse_too_often(key, ACCOUNT_TRIES, ACCOUNT_TRY_EVERY)
    if password_fits(current_user.password_hash, form.current.data or ""):
        Throttle.forget(key)
        return True
    form.add_error(ValidationError("current", "This isn't your current password."))
    return False


@account.route("/security", methods=["GET", "POST"])
@login_required
def security() -> ResponseReturnValue:
    """Set up two-step sign-in, or turn it off with a code.

    While it is set up, the secret is kept in the session until a code shows that the app has it.
    """
    form = CodeForm()
    if current_user.totp_secret:
        if form.validate_on_submit() and accepts_code(current_user, form):
            User.turn_off_second_factor(current_user, current_user.id)
            return redirect_with_flash("/account/security", "Two-step sign-in is off.")
        return form_page("account/security.html", form)
    secret = session.setdefault("totp_secret", pyotp.random_base32())
    if form.validate_on_submit():
        with form.errors_from_model():
            codes = User.turn_on_second_factor(current_user, secret, form.code.data)
            del session["totp_secret"]
            return render_template("account/recovery_codes.html", codes=codes)
    address = TOTP(secret).provisioning_uri(name=current_user.username, issuer_name=current_site().name)
    return form_page("account/set_up_code.html", form, secret=secret, address=address)


@account.get("/sessions")
@login_required
def sessions() -> ResponseReturnValue:
    """Show the devices that the person is signed in on."""
    return render_template("account/sessions.html", sign_ins=SignIn.living(current_user), current_id=g.sign_in.id)


@account.post("/sessions/<int:sign_in_id>/end")
@login_required
def end_session(sign_in_id: int) -> ResponseReturnValue:
    """Sign out one device."""
    SignIn.end(current_user, sign_in_id)
    return redirect_with_flash("/account/sessions", "Device signed out.")


@account.post("/sessions/end-others")
@login_required
def end_others() -> ResponseReturnValue:
    """Sign out all other devices."""
    SignIn.end_others(current_user, g.sign_in.id)
    return redirect_with_flash("/account/sessions", "All other devices have been signed out.")


@account.route("/tokens", methods=["GET", "POST"])
@login_required
def tokens() -> ResponseReturnValue:
    """One's tokens for programs, and a form for a new one, which is shown once."""
    form, made = TokenForm(), None
    if form.validate_on_submit():
        with form.errors_from_model():
            made = ApiToken.create(
                current_user, **form_values(form, "form_id", "name", "scope"), expires_at=form.expires_at()
            )
            form = TokenForm(formdata=None)
    return form_page("account/tokens.html", form, tokens=ApiToken.of(current_user), made=made, place=own_address())


@account.post("/tokens/<int:token_id>/revoke")
@login_required
def revoke_token(token_id: int) -> ResponseReturnValue:
    """Revoke one of one's own tokens."""
    ApiToken.revoke(current_user, token_id)
    return redirect_with_flash("/account/tokens", "Token revoked.")


# -- posts: Home, news, the handbook -----------------------------------------------------------------------------------

posts = Blueprint("posts", __name__)


@posts.get("/")
@login_required
def index() -> ResponseReturnValue:
    """Show Home: what the person still has to read or review, the pinned posts, then the news, newest first."""
    if request.args.get("before"):
        page = paginate(NEWS, NEWEST_FIRST)
        return render_template("posts/index.html", page=page, pinned=(), owed=(), reviews=(), sidebar=sidebar())
    pinned = fetch(PINNED)
    page = paginate(NEWS, NEWEST_FIRST, size=PAGE_SIZE + len(pinned))
    above = {post.id for post in pinned}
    return render_template(
        "posts/index.html",
        page=page._replace(items=[post for post in page.items if post.id not in above]),
        pinned=pinned,
        owed=fetch(OWED),
        reviews=fetch(OWN_REVIEWS_DUE, today=today()),
        sidebar=sidebar(),
    )


@posts.get("/handbook")
@login_required
def handbook() -> ResponseReturnValue:
    """Show the pages of the handbook by topic, in the order that editors gave them."""
    waiting = fetch(own_reviews().limit(1), until=today() + REVIEW_SOON)
    return render_template("posts/handbook.html", tree=page_tree(), waiting=bool(waiting), day=today())


@posts.route("/handbook/<slug>/arrange", methods=["GET", "POST"])
@role_required(Role.EDITOR)
def arrange(slug: str) -> ResponseReturnValue:
    """Put the handbook pages of a topic in order. The form has the parent and the position of each page, or of one."""
    topic = seen(Topic, slug, "slug")
    tree = page_tree()
    if request.method != "POST":
        return render_template("posts/arrange.html", topic=topic, tree=tree)
    places = {
        page.id: (request.form.get(f"parent-{page.id}", type=as_id), request.form.get(name, UNPLACED, int))
        for page, _above in depth_first(tree, slug)
        if (name := f"position-{page.id}") in request.form
    }
    PageTree.arrange(current_user, topic.id, places)
    return redirect_with_flash(onward(f"/handbook#topic-{topic.id}"), "Order saved.")


@posts.get("/posts/<int:post_id>")
@login_required
def show(post_id: int) -> ResponseReturnValue:
    """Show a post, with its latest comments below it."""
    return show_post(post_id)


OUTLINE_LEAST = 3  # headings; a shorter text has no outline


def show_post(post_id: int, comment_form: CommentForm | None = None) -> ResponseReturnValue:
    """Return the page of a post, and mark what was new on it as read. 404 if the person does not see the post."""
    post = next(iter(fetch(POST_PAGE, post_id=post_id)), None) or abort(404)
    comments = paginate(COMMENTS, (Comment.id.desc(),), COMMENTS_PER_PAGE, post_id=post_id)
    since = max(post.looked_at or current_user.new_since, g.now - NEW_FOR)
    new_comments = {
        comment.id for comment in comments.items if comment.author_id != current_user.id and comment.created_at > since
    }
    text, headings = outlined(post.html)
    form = comment_form or CommentForm(formdata=None)
    g.unread -= post.unread_kinds  # the header of this page no longer counts what the page shows
    page = form_page(
        "posts/show.html",
        form,
        post=post,
        state=Post.state_of(post, g.now),
        day=today(),
        text=text,
        outline=headings if len(headings) >= OUTLINE_LEAST else (),
        files=files_below(post),
        comments=comments,
        reactions=reactions_of(post_id, [comment.id for comment in comments.items]),
        new_comments=new_comments,
        tree=page_tree() if post.kind == "page" else {},
        **previewed(form, post.topic_id),
    )
    if post.is_unseen or post.unread_kinds or new_comments:
        mark_read(post_id)
    return page


def files_below(post: Any) -> list[Attachment]:
    """Return the files of a post that its text does not show already."""
    files = db.session.scalars(FILES_OF_POST, {"post_id": post.id})
    return [file for file in files if not (file.is_picture and f"/files/{file.id}/" in post.html)]


# -- posts: writing, changing, deleting --------------------------------------------------------------------------------


@posts.route("/posts/new", methods=["GET", "POST"])
@role_required(Role.MEMBER)
def new() -> ResponseReturnValue:
    """Write news, or, as an editor, a page of the handbook."""
    kind = "page" if request.args.get("kind") == "page" else "news"
    if not current_user.may_write_kind(kind):
        abort(403)
    topic = db.session.scalar(Topic.visible_to(current_user).where(Topic.slug == request.args.get("topic", "")))
    title = tidy(request.args.get("title"))[:TITLE_MAX]
    return edit_post(PostForm(kind=kind, title=title, topic=topic.id if topic else None), None)


@posts.route("/posts/<int:post_id>/edit", methods=["GET", "POST"])
@role_required(Role.MEMBER)
def edit(post_id: int) -> ResponseReturnValue:
    """Change a post."""
    post = seen(Post, post_id)
    if not post.editable_by(current_user):
        abort(403)
    return edit_post(post_form(post), post)


def post_form(post: Post, **changes: Any) -> PostForm:
    """Return the form of a post, filled in with its values; `changes` replace some of them."""
    values = {name: getattr(post, name) for name in ("title", "body", "kind", "version", "parent_id")} | {
        "topic": post.topic_id,
        "owner": post.owner_id or 0,
        "review": post.review_every or 0,
        "scheduled_for": to_the_minute(post.scheduled_for),
        "expires_at": last_day(post.expires_at),
        "pinned": post.pinned_at,
        "until": last_day(post.pinned_until),
        "must_read": post.must_read_since,
        "due": post.must_read_due,
    }
    return PostForm(**values | changes)


def edit_post(form: PostForm, post: Post | None) -> ResponseReturnValue:
    """Save the form of an old or a new post if it was sent and is valid; show it otherwise."""
    offer_choices(form, post)
    files = take_uploads(form)
    was_published = post is not None and post.published_at is not None
    as_draft = "draft" in request.form and not was_published
    if as_draft:
        form.allow_gaps()
    if form.validate_on_submit():
        notify = "notify" in request.form
        try:
            with form.errors_from_model():
                saved = Post.save(
                    current_user,
                    post_data(form, post, [file.id for file in files]),
                    how="draft" if as_draft else "publish",
                    post_id=post.id if post else None,
                    version=form.version.data,
                    form_id=form.form_id.data,
                    notify=notify,
                    require_again="require_again" in request.form,
                )
                return redirect_with_flash(f"/posts/{saved.id}", saved_message(saved, was_published, notify))
        except EditConflict as conflict:
            return conflict_page(form, db.session.get_one(Post, conflict.post_id), files)
    return form_page("posts/edit.html", form, **editor_context(form, post, files))


def offer_choices(form: PostForm, post: Post | None) -> None:
    """Fill in the topics, each with the people who will see the post there, and the possible owners of a page."""
    form.topic.choices = [topic_choice(topic) for topic in Topic.audiences(current_user).values()]
    if not current_user.is_editor or (post and post.published_at):
        del form.pinned, form.until, form.must_read, form.due
    if (post.kind if post else form.kind.data) != "page":
        del form.owner, form.review, form.parent_id
        return
    owners = {0: "Nobody"} | names_of(User.active().where(User.sees(post.topic_id if post else None)))
    form.owner.choices = choices(owners)
    if not form.owner.raw_data and form.owner.data not in owners:
        form.owner.data = 0  # the owner has left, or no longer sees the topic


def topic_choice(topic: Any) -> SelectChoice:
    """Return a topic as an option that says who will see the post."""
    people, kind = plural(topic.people, "person", "people"), "private" if topic.private else "open"
    seen_by = f"Will be seen by {people} in {topic.name}{', and by no one else' if topic.private else ''}."
    return SelectChoice(str(topic.id), f"{topic.name} ({kind}, {people})", {"data-seen-by": seen_by})


def post_data(form: PostForm, post: Post | None, file_ids: Sequence[int]) -> PostData:
    """Return what the form of a post says. Its times are in the person's time zone.

    The form shows no seconds. A time that nobody changed keeps the seconds that it has.
    """
    values = form.data
    begins, ends = values.get("scheduled_for"), values.get("expires_at")
    scheduled_for, expires_at = begins and as_utc(begins), end_of_day(ends)
    if post and begins == to_the_minute(post.scheduled_for):
        scheduled_for = post.scheduled_for
    if post and ends == last_day(post.expires_at):
        expires_at = post.expires_at
    return PostData(
        values["kind"],
        values["topic"],
        values["title"] or "",
        values["body"] or "",
        owner_id=values.get("owner") or None,
        parent_id=values.get("parent_id"),
        review_every=values.get("review") or None,
        scheduled_for=scheduled_for,
        expires_at=expires_at,
        file_ids=file_ids,
        attention=attention_of(form),
    )


def attention_of(form: PostForm) -> Attention | None:
    """Return what a form says about pin and must-read, or None where it does not ask."""
    if "pinned" not in form:
        return None
    until = end_of_day(form.until.data) if form.pinned.data else None
    return Attention(form.pinned.data, until, form.must_read.data, form.due.data if form.must_read.data else None)


def to_the_minute(moment: datetime | None) -> datetime | None:
    """Return a stored time in the person's zone, without its seconds, as a form shows it."""
    return local(moment).replace(second=0, microsecond=0) if moment else None


def saved_message(post: Post, was_published: bool, notified: bool) -> str:
    """Return the message that says how a post was saved."""
    if was_published:
        return "Saved. Everyone who can see it will be notified." if notified else "Saved."
    if post.scheduled_for:
        return f"Scheduled for {moment_in_words(post.scheduled_for)}."
    return "Published." if post.published_at else "Saved as a draft. Only you can see it."


def editor_context(form: PostForm, post: Post | None, files: Sequence[Attachment]) -> dict[str, Any]:
    """Return what the page of a post's form shows besides the form."""
    state = post.state if post else "draft"
    return {
        "post": post,
        "kind": post.kind if post else form.kind.data,
        "attached": files,
        "clock": local(g.now),
        "tree": page_tree() if form.parent_id else {},
        "state": state,
        "autosave_to": url_for("posts.autosave", post_id=post.id if post else None) if state == "draft" else None,
        **previewed(form, form.topic.data),
    }


def conflict_page(form: PostForm, theirs: Post, files: Sequence[Attachment] = ()) -> ResponseReturnValue:
    """Return a page with the text that was saved first, the differences, and the form, which can be saved over it."""
    form.version.data = theirs.version
    context = editor_context(form, theirs, files) | {"autosave_to": None}  # autosave would replace their text unasked
    return render_template("posts/conflict.html", form=form, **context), 409


@posts.post("/posts/<int:post_id>/delete")
@role_required(Role.MEMBER)
def delete(post_id: int) -> ResponseReturnValue:
    """Delete a post. It can be restored."""
    Post.delete(current_user, post_id)
    return redirect_with_flash("/", "Post deleted.", undo=f"/posts/{post_id}/restore")


@posts.post("/posts/<int:post_id>/restore")
@role_required(Role.MEMBER)
def restore(post_id: int) -> ResponseReturnValue:
    """Restore a deleted post."""
    Post.restore(current_user, post_id)
    return redirect_with_flash(f"/posts/{post_id}", "Post restored.")


@posts.post("/posts/<int:post_id>/pin")
@role_required(Role.EDITOR)
def pin(post_id: int) -> ResponseReturnValue:
    """Pin a post to the top of Home, or unpin it."""
    pinned, form = request.form.get("pinned") == "1", PinForm()
    if not form.validate_on_submit():
        raise ValidationError("until", "Choose today or a later day.")
    Post.pin(current_user, post_id, pinned, end_of_day(form.until.data) if pinned else None)
    return redirect_with_flash(f"/posts/{post_id}", "Pinned to the top of Home." if pinned else "Unpinned.")


@posts.post("/posts/<int:post_id>/comments")
@role_required(Role.MEMBER)
def comment(post_id: int) -> ResponseReturnValue:
    """Comment on a post."""
    form = CommentForm()
    if not form.validate_on_submit():
        return show_post(post_id, form)
    created = Comment.create(current_user, post_id, body=form.body.data, form_id=form.form_id.data)
    return redirect(created.url, 303)


# -- posts: comments ---------------------------------------------------------------------------------------------------


@posts.get("/comments/<int:comment_id>")
@login_required
def show_comment(comment_id: int) -> ResponseReturnValue:
    """Redirect to a comment in its place below its post."""
    target = seen(Comment, comment_id)
    before = Comment.later_than(target)
    place = f"?before={encode_cursor([before])}" if before else ""
    return redirect(f"/posts/{target.post_id}{place}#comment-{target.id}", 302)


@posts.route("/comments/<int:comment_id>/edit", methods=["GET", "POST"])
@role_required(Role.MEMBER)
def edit_comment(comment_id: int) -> ResponseReturnValue:
    """Change your own comment."""
    target = seen(Comment, comment_id)
    if target.author_id != current_user.id:
        abort(403)
    form, topic_id = EditCommentForm(obj=target), target.post.topic_id
    if form.validate_on_submit():
        Comment.edit(current_user, comment_id, body=form.body.data)
        return redirect_with_flash(target.url, "Saved.")
    return form_page("posts/edit_comment.html", form, comment=target, topic_id=topic_id, **previewed(form, topic_id))


@posts.post("/comments/<int:comment_id>/delete")
@role_required(Role.MEMBER)
def delete_comment(comment_id: int) -> ResponseReturnValue:
    """Delete a comment. It can be restored."""
    post_id = Comment.delete(current_user, comment_id).post_id
    return redirect_with_flash(f"/posts/{post_id}#comments", "Comment deleted.", undo=f"/comments/{comment_id}/restore")


@posts.post("/comments/<int:comment_id>/restore")
@role_required(Role.MEMBER)
def restore_comment(comment_id: int) -> ResponseReturnValue:
    """Restore a deleted comment."""
    return redirect_with_flash(Comment.restore(current_user, comment_id).url, "Comment restored.")


# -- posts: reactions --------------------------------------------------------------------------------------------------


@posts.route("/posts/<int:post_id>/react", methods=["GET", "POST"])
@login_required
def react(post_id: int) -> ResponseReturnValue:
    """React to a post, or show who has reacted to it."""
    address = f"/posts/{post_id}"
    if request.method == "POST":
        return change_reaction(address, f"{address}#reactions-posts-{post_id}", post_id=post_id)
    post = db.one_or_404(Reaction.posts_for(current_user).where(Post.id == post_id))
    return reactions_page(reactions_of(post_id)[None], address, post.title)


@posts.route("/comments/<int:comment_id>/react", methods=["GET", "POST"])
@login_required
def react_comment(comment_id: int) -> ResponseReturnValue:
    """React to a comment, or show who has reacted to it."""
    address = f"/comments/{comment_id}"
    if request.method == "POST":
        return change_reaction(address, address, comment_id=comment_id)
    target = seen(Comment, comment_id)
    return reactions_page(reactions_of(None, [comment_id])[comment_id], address, plain_text(target.html))


def reactions_page(summaries: Iterable[ReactionSummary], address: str, to: str) -> ResponseReturnValue:
    """Return the page that shows who reacted, by kind."""
    given = {summary.kind: summary for summary in summaries}
    return render_template("posts/react.html", given=given, address=address, to=to)


def change_reaction(
    address: str, back: str, post_id: int | None = None, comment_id: int | None = None
) -> ResponseReturnValue:
    """Add or remove a reaction, as the button's name says. Return the reactions to the script, a redirect to others."""
    given = "add" in request.form
    kind = request.form.get("add" if given else "remove", "")
    Reaction.change(current_user, kind, given, post_id=post_id, comment_id=comment_id)
    if request.headers.get("X-Requested-With") == "fetch":
        summaries = reactions_of(post_id, [comment_id] if comment_id else [])[comment_id]
        return render_template("posts/_reactions.html", address=address, summaries=summaries)
    return redirect(back, 303)


# -- posts: history, and reviews of the handbook -----------------------------------------------------------------------


@posts.get("/posts/<int:post_id>/history")
@login_required
def history(post_id: int) -> ResponseReturnValue:
    """Show the revisions of a post. Any two of them can be compared."""
    post = seen(Post, post_id)
    page = paginate(sa.select(Revision).where(Revision.post_id == post.id), (Revision.number.desc(),))
    return render_template("posts/history.html", post=post, page=page)


@posts.get("/posts/<int:post_id>/history/compare")
@login_required
def compare(post_id: int) -> ResponseReturnValue:
    """Show how two revisions of a post differ."""
    post = seen(Post, post_id)
    numbers = sorted(request.args.get(name, 0, as_id) for name in ("old", "new"))
    if not all(numbers):
        return redirect(f"/posts/{post.id}/history")
    old, new = (db.one_or_404(Revision.of(post, number)) for number in numbers)
    texts = [shown_lines(preview_of(revision.body)) for revision in (old, new)]
    moved = how_moved(old, new)
    return render_template("posts/compare.html", post=post, old=old, new=new, moved=moved, texts=texts)


def how_moved(old: Revision, new: Revision) -> list[str]:
    """Return in words how a post moved between two revisions. Topics are named only if the person sees both."""
    words = []
    names = names_of(Topic.visible_to(current_user).where(Topic.id.in_([old.topic_id, new.topic_id])))
    if len(names) == 2:
        words.append(f"Moved from {names[old.topic_id]} to {names[new.topic_id]}.")
    if old.kind != new.kind:
        words.append("Turned into a handbook page." if new.kind == "page" else "Turned into a post.")
    return words


@posts.get("/posts/<int:post_id>/history/<int:number>")
@login_required
def show_version(post_id: int, number: int) -> ResponseReturnValue:
    """Show a post as it was in one of its revisions."""
    post = seen(Post, post_id)
    revision = db.one_or_404(Revision.of(post, number))
    return render_template("posts/version.html", post=post, revision=revision, html=preview_of(revision.body))


@posts.post("/posts/<int:post_id>/history/<int:number>/restore")
@role_required(Role.MEMBER)
def restore_version(post_id: int, number: int) -> ResponseReturnValue:
    """Save the text of an older revision as the newest one."""
    post = seen(Post, post_id)
    revision, before = db.one_or_404(Revision.of(post, number)), post.revision
    text = {"title": revision.title, "body": revision.body}
    version = request.values.get("version", 0, as_id)
    try:
        saved = Post.save(current_user, PostData.of(post, **text), how="publish", post_id=post_id, version=version)
    except EditConflict:
        form = post_form(post, **text, formdata=None)
        offer_choices(form, post)
        return conflict_page(form, post)
    if saved.revision == before:
        return redirect_with_flash(f"/posts/{post_id}", "That version is the same as the current one.")
    undo = f"/posts/{post_id}/history/{before}/restore?version={saved.version}"
    return redirect_with_flash(f"/posts/{post_id}", f"Version {number} restored, as version {saved.revision}.", undo)


@posts.get("/handbook/review")
@login_required
def review() -> ResponseReturnValue:
    """Show the pages due for review: all of them to an editor, their own to others."""
    keys, until = (REVIEW_DAY.asc(), Post.id.asc()), today() + REVIEW_SOON
    page = paginate(own_reviews(), keys, until=until)
    return render_template("posts/review.html", page=page, day=today())


def own_reviews() -> Statement:
    """Return the statement for reviews: all of them for an editor, those of their own pages for others."""
    return REVIEWS if current_user.is_editor else REVIEWS.where(Post.owner_id == VIEWER)


@posts.post("/posts/<int:post_id>/still-accurate")
@login_required
def still_accurate(post_id: int) -> ResponseReturnValue:
    """Confirm that a page of the handbook is still accurate, and set its next review."""
    again = PageReview.verify(current_user, post_id, today())
    return redirect_with_flash(f"/posts/{post_id}", f"Thanks. The next review is due by {day_in_words(again)}.")


# -- posts: previews, and pages by their titles ------------------------------------------------------------------------


@posts.post("/posts/preview")
@role_required(Role.MEMBER)
def preview() -> ResponseReturnValue:
    """Show what a text will look like, as a fragment for the script."""
    body, topic_id = tidy_text(request.form.get("body"))[:BODY_MAX], request.form.get("topic", type=as_id)
    html = preview_of(body)
    return render_template("posts/_preview.html", html=html, untold=mentioned_outside(html, topic_id))


def previewed(form: Any, topic_id: int | None) -> dict[str, Any]:
    """Return the preview of a form's text for its page, if a preview was asked for."""
    if "preview" not in request.form:
        return {"preview": None}
    html = preview_of((form.body.data or "")[:BODY_MAX])
    return {"preview": html, "untold": mentioned_outside(html, topic_id)}


def preview_of(body: str) -> Markup | str:
    """Return the HTML of a text as it will be shown, or why it cannot be."""
    try:
        return render_body(current_user, link_pages(body, current_user))
    except ValidationError as error:
        return Markup("<p>{}</p>").format(error.message)


def mentioned_outside(html: str, topic_id: int | None) -> Sequence[str]:
    """Return the names of the people whom a text mentions although they do not see its topic."""
    names = mentioned_names(html)
    if not topic_id or not names:
        return []
    topic = seen(Topic, topic_id)
    return User.unable_to_see(topic, names)


@posts.get("/pages")
@login_required
def find_page() -> ResponseReturnValue:
    """Redirect to the handbook page with a title. Where there is none, editors are led to write it; others get 404."""
    title = tidy(request.args.get("title"))[:TITLE_MAX]
    if page_id := pages_titled(current_user, [title]).get(sort_key(title)):
        return redirect(f"/posts/{page_id}")
    if not title or not current_user.may_write_kind("page"):
        abort(404)
    return redirect(url_for("posts.new", kind="page", title=title))


@posts.get("/pages/titles")
@login_required
def titles() -> ResponseReturnValue:
    """Suggest handbook pages for what was typed after two brackets, as a fragment for the script."""
    typed = searched(TITLE_MAX)
    return render_template("posts/_titles.html", pages=pages_suggested(current_user, typed))


# -- posts: drafts -----------------------------------------------------------------------------------------------------


@posts.get("/posts/drafts")
@role_required(Role.MEMBER)
def drafts() -> ResponseReturnValue:
    """Show the person's drafts and scheduled posts."""
    columns = (Post.id, Post.title, Post.kind, Post.excerpt, Post.scheduled_for, Post.updated_at)
    own = sa.select(*columns).where(Post.visible(), Post.author_id == VIEWER, Post.published_at.is_(None))
    page = paginate(own, (Post.updated_at.desc(), Post.id.desc()))
    return render_template("posts/drafts.html", page=page)


@posts.post("/posts/autosave")
@posts.post("/posts/<int:post_id>/autosave")
@role_required(Role.MEMBER)
def autosave(post_id: int | None = None) -> ResponseReturnValue:
    """Save a draft while it is typed, for the script. A new form creates the draft."""
    form = AutosaveForm()
    form.allow_gaps()
    offer_choices(form, None)
    if not form.validate_on_submit() or not (form.title.data or form.body.data):
        raise ValidationError("body", "There is nothing to save yet.")
    post = Post.save(
        current_user,
        post_data(form, None, request.form.getlist("attached", type=as_id)),
        how="autosave",
        post_id=post_id,
        version=form.version.data,
        form_id=form.form_id.data,
    )
    return jsonify(id=post.id, version=post.version)


# -- posts: must-read --------------------------------------------------------------------------------------------------


@posts.post("/posts/<int:post_id>/acknowledge")
@login_required
def acknowledge(post_id: int) -> ResponseReturnValue:
    """Confirm having read a post."""
    Acknowledgement.acknowledge(current_user, post_id, request.form.get("revision", 0, type=as_id))
    return redirect_with_flash(f"/posts/{post_id}", "Thanks, your confirmation is recorded.")


@posts.route("/posts/<int:post_id>/must-read", methods=["GET", "POST"])
@role_required(Role.EDITOR)
def must_read(post_id: int) -> ResponseReturnValue:
    """Choose who is required to read a post, and by when."""
    post = seen(Post, post_id)
    form = must_read_form(post)
    if form.validate_on_submit():
        with form.errors_from_model():
            Acknowledgement.require(
                current_user, post_id, form.chosen_roles(), form.chosen_people(), form.due.data, form.again.data
            )
            return redirect_with_flash(f"/posts/{post_id}/report", "They've been asked to read it.")
    return form_page("posts/must_read.html", form, post=post)


def must_read_form(post: Post) -> MustReadForm:
    """Return the form. It offers the people who see the post's topic, and has the present readers chosen."""
    roles = db.session.scalars(sa.select(MustReadRole.role).where(MustReadRole.post_id == post.id)).all()
    named = db.session.scalars(sa.select(MustReadPerson.user_id).where(MustReadPerson.post_id == post.id)).all()
    everybody = len(roles) == len(Role) or not (roles or named)
    form = MustReadForm(
        audience="all" if everybody else "some",
        roles=[] if everybody else [int(role) for role in roles],
        people=named,
        due=post.must_read_due,
    )
    form.roles.choices = choices(ROLES)
    form.people.choices = choices(names_of(User.active().where(User.sees(post.topic_id))))
    return form


@posts.post("/posts/<int:post_id>/must-read/end")
@role_required(Role.EDITOR)
def end_must_read(post_id: int) -> ResponseReturnValue:
    """Stop requiring anybody to read a post."""
    Acknowledgement.stop_requiring(current_user, post_id)
    words = "Nobody is asked to read this any more. Confirmations stay on record."
    return redirect_with_flash(f"/posts/{post_id}", words)


@posts.get("/posts/<int:post_id>/report")
@login_required
def report(post_id: int) -> ResponseReturnValue:
    """Show who has read a must-read post, and who has not."""
    return report_page(reported_post(post_id))


def reported_post(post_id: int) -> Post:
    """Return a post whose report this person may see. 404 if they do not see the post, else 403."""
    post = seen(Post, post_id)
    return post if current_user.can_see_report(post) else abort(403)


def report_page(post: Post, error: ValidationError | None = None) -> ResponseReturnValue:
    """Return the report of a post, with the error of a reminder that was refused."""
    is_early = post.reminded_at is not None and utcnow() - post.reminded_at < REMIND_EVERY
    can_remind = post.editable_by(current_user) and not is_early
    page = render_template(
        "posts/report.html", post=post, report=Acknowledgement.report(post), error=error, can_remind=can_remind
    )
    return page, 422 if error else 200


REPORT_WORDS = {"read": "has read it", "pending": "has not read it", "past": "no longer required"}


@posts.get("/posts/<int:post_id>/report.csv")
@login_required
def report_csv(post_id: int) -> ResponseReturnValue:
    """Download the report as a table for a spreadsheet. Times are in the person's time zone."""
    rows = [("Name", "Username", "Department", "Status", "Version", "When", "Earlier versions")]
    for line in Acknowledgement.report(reported_post(post_id)).lines:
        given = [(str(one.revision), f"{local(one.at):%Y-%m-%d %H:%M}") for one in line.given]
        version, when = given[-1] if given else ("", "")
        earlier = "; ".join(f"{version} on {when}" for version, when in given[:-1])
        person = (line.person.name, line.person.username, line.person.department)
        rows.append((*person, REPORT_WORDS[line.state], version, when, earlier))
    return csv_response(f"must-read-{post_id}", rows)


def csv_response(name: str, rows: Iterable[Sequence[str]]) -> Response:
    """Return a table for spreadsheets as a file. Its rows are read while it is sent."""
    lines = itertools.chain(["\ufeff"], (csv_line(*row) for row in rows))
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(stream_with_context(lines), headers=headers, content_type="text/csv; charset=utf-8")


def csv_line(*cells: str) -> str:
    """A line of a table for spreadsheets."""
    line = io.StringIO(newline="")
    csv.writer(line, quoting=csv.QUOTE_ALL).writerow([harmless_cell(cell) for cell in cells])
    return line.getvalue()


def harmless_cell(text: str) -> str:
    """Return the text as a cell that no spreadsheet takes for a formula (OWASP, CSV Injection)."""
    is_formula = text.lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠", "|", "%"))
    return "'" + text if is_formula or text.startswith(("\t", "\r", "\n")) else text


@posts.post("/posts/<int:post_id>/remind")
@role_required(Role.MEMBER)
def remind(post_id: int) -> ResponseReturnValue:
    """Remind those who have not read a post yet."""
    reported_post(post_id)
    try:
        count = Acknowledgement.remind(current_user, post_id)
    except ValidationError as error:
        return report_page(reported_post(post_id), error)
    words = f"{plural(count, 'person', 'people').capitalize()} will be reminded."
    return redirect_with_flash(f"/posts/{post_id}/report", words)


# -- topics: their pages, and their administration ---------------------------------------------------------------------

topics = Blueprint("topics", __name__)


@topics.get("/topics", endpoint="index")
@login_required
def list_topics() -> ResponseReturnValue:
    """Show all topics that the person sees."""
    return render_template("topics/index.html", topics=fetch(TOPICS))


@topics.get("/topics/<slug:slug>", endpoint="show")
@login_required
def show_topic(slug: str) -> ResponseReturnValue:
    """Show the news of a topic. A merged topic redirects to the one that it was merged into."""
    visible = Topic.visible_to(current_user)
    topic = db.session.scalar(visible.where(Topic.slug == slug))
    if topic is None:
        into = db.one_or_404(visible.where(Topic.id.in_(sa.select(Topic.merged_into_id).where(Topic.slug == slug))))
        return redirect(f"/topics/{into.slug}", 301)
    chosen = db.session.scalar(sa.select(Follow.state).filter_by(user_id=current_user.id, topic_id=topic.id))
    follows = chosen or ("following" if topic.followed_by_default else "none")
    page = paginate(TOPIC_POSTS, NEWEST_FIRST, topic_id=topic.id)
    return render_template(
        "topics/show.html",
        topic=topic,
        topics=fetch(FIRST_TOPICS),
        follows=follows,
        page=page,
        tree={} if page.is_continued else page_tree(),
    )


@topics.route("/admin/topics", methods=["GET", "POST"])
@role_required(Role.EDITOR)
def manage() -> ResponseReturnValue:
    """Show all topics that the person sees, and create a new one."""
    form = NewTopicForm()
    form.members.choices = choices(names_of(User.active().where(User.id != current_user.id)))
    if form.validate_on_submit():
        with form.errors_from_model():
            topic = Topic.create(current_user, **form.data)
            place = f"/admin/topics/{topic.id}" if topic.private else "/admin/topics"
            return redirect_with_flash(place, f'Topic "{topic.name}" created.')
    hidden = Topic.hidden_from(current_user) if current_user.is_admin else []
    listed = list(Topic.audiences(current_user).values())
    return form_page("topics/manage.html", form, topics=listed, hidden_topics=hidden)


@topics.route("/admin/topics/<int:topic_id>", methods=["GET", "POST"], endpoint="edit")
@role_required(Role.EDITOR)
def edit_topic(topic_id: int) -> ResponseReturnValue:
    """Change a topic's name and description. The small forms below them change who sees it."""
    topic = seen(Topic, topic_id)
    form = TopicForm(obj=topic)
    if topic.private:
        del form.followed_by_default
    if form.validate_on_submit():
        with form.errors_from_model():
            Topic.edit(current_user, topic_id, **form.data)
            return redirect_with_flash("/admin/topics", "Saved.")
    others = MembersForm(formdata=None)
    others.user.choices = choices(names_of(User.active().where(~User.sees(topic_id))))  # of an open topic: nobody
    return form_page("topics/edit.html", form, topic=topic, others=others)


@topics.post("/admin/topics/<int:topic_id>/private")
@role_required(Role.EDITOR)
def make_private(topic_id: int) -> ResponseReturnValue:
    """Make a topic private. The person who does it becomes its first member."""
    Topic.make_private(current_user, topic_id)
    return redirect_with_flash(
        f"/admin/topics/{topic_id}", "Only you can see this topic now. Add the people who need it."
    )


@topics.post("/admin/topics/<int:topic_id>/open")
@role_required(Role.EDITOR)
def make_open(topic_id: int) -> ResponseReturnValue:
    """Make a topic open to everyone."""
    Topic.make_open(current_user, topic_id)
    return redirect_with_flash(f"/admin/topics/{topic_id}", "Everyone can see this topic now.")


@topics.post("/admin/topics/<int:topic_id>/members")
@role_required(Role.EDITOR)
def add_member(topic_id: int) -> ResponseReturnValue:
    """Add people to a private topic."""
    grouped = Group.people_in(request.form.getlist("groups", type=as_id))
    added = Topic.add_members(current_user, topic_id, {*request.form.getlist("user", type=as_id), *grouped})
    names = ", ".join(user.name for user in added) or "Nobody else"
    return redirect_with_flash(f"/admin/topics/{topic_id}", f"{names} can see this topic now.")


@topics.post("/admin/topics/<int:topic_id>/members/<int:user_id>/remove")
@role_required(Role.EDITOR)
def remove_member(topic_id: int, user_id: int) -> ResponseReturnValue:
    """Remove a person from a private topic."""
    Topic.remove_member(current_user, topic_id, user_id)
    return redirect_with_flash(f"/admin/topics/{topic_id}", "Removed.")


@topics.post("/admin/topics/<int:topic_id>/move")
@role_required(Role.EDITOR)
def move(topic_id: int) -> ResponseReturnValue:
    """Move a topic up or down in the list."""
    Topic.move(current_user, topic_id, up=request.form.get("direction") != "down")
    return redirect("/admin/topics", 303)


@topics.route("/admin/topics/<int:topic_id>/merge", methods=["GET", "POST"])
@role_required(Role.EDITOR)
def merge(topic_id: int) -> ResponseReturnValue:
    """Merge a topic into another one. The page says first what that means."""
    topic = seen(Topic, topic_id)
    form = MergeForm()
    form.into.choices = choices(names_of(Topic.visible_to(current_user).where(Topic.id != topic_id)))
    if form.validate_on_submit():
        with form.errors_from_model():
            into = Topic.merge(current_user, topic_id, form.into.data)
            return redirect_with_flash("/admin/topics", f"Merged into {into.name}.")
    inside = Post.visible_to(current_user).where(Post.topic_id == topic_id)
    return form_page("topics/merge.html", form, topic=topic, posts_count=count_of(inside.subquery()))


@topics.post("/admin/topics/<int:topic_id>/delete", endpoint="delete")
@role_required(Role.EDITOR)
def delete_topic(topic_id: int) -> ResponseReturnValue:
    """Move a topic and everything in it to the bin."""
    Topic.delete(current_user, topic_id)
    undo = f"/admin/topics/{topic_id}/restore"
    return redirect_with_flash("/admin/topics", "Topic deleted, with everything in it.", undo=undo)


@topics.post("/admin/topics/<int:topic_id>/restore", endpoint="restore")
@role_required(Role.EDITOR)
def restore_topic(topic_id: int) -> ResponseReturnValue:
    """Restore a topic from the bin."""
    topic = Topic.restore(current_user, topic_id)
    return redirect_with_flash(f"/topics/{topic.slug}", "Topic restored, with everything in it.")


@topics.post("/admin/topics/<int:topic_id>/join")
@role_required(Role.ADMIN)
def join(topic_id: int) -> ResponseReturnValue:
    """Join a private topic as an administrator. The activity records it."""
    topic = Topic.join(current_user, topic_id)
    return redirect_with_flash(f"/topics/{topic.slug}", f"You've joined {topic.name}. This has been recorded.")


# -- people: who is who ------------------------------------------------------------------------------------------------

people = Blueprint("people", __name__)


def people_page(statement: Statement, query: str) -> Page:
    """Return a page of the people who match the query, by name."""
    return paginate(statement.where(User.matching(query)), BY_NAME, PEOPLE_PER_PAGE)


@people.get("/people", endpoint="index")
@login_required
def list_people() -> ResponseReturnValue:
    """Show everybody, with how to reach them."""
    query = searched(NAME_MAX)
    return render_template("people/index.html", page=people_page(PEOPLE, query), q=query)


@people.get("/people/<username>", endpoint="show")
@login_required
def show_person(username: str) -> ResponseReturnValue:
    """Show a person and what they have written, or the people of a group."""
    key = fold(username)
    person = db.session.scalar(User.visible_to(current_user).where(User.username_key == key))
    if person is None:
        return show_called(key)
    page = paginate(AUTHOR_POSTS, NEWEST_FIRST, author_id=person.id)
    return render_template("people/show.html", person=person, page=page)


def show_called(name: str) -> ResponseReturnValue:
    """Show the people of a group, or lead to everyone, or to the topic whose name was mentioned."""
    if name == EVERYONE:
        return redirect("/people")
    group = db.session.scalar(sa.select(Group).filter_by(name_key=name))
    if group is None:
        topic = seen(Topic, name, "slug")
        return redirect(f"/topics/{topic.slug}")
    return render_template("people/group.html", group=group)


@people.get("/people/<username>/card.vcf", endpoint="card")
@login_required
def show_card(username: str) -> ResponseReturnValue:
    """Send a person's contact details for an address book (vCard 3.0, RFC 2426)."""
    person = seen(User, fold(username), "username_key")
    return feed_answer(fold_lines(feed_text("people/card.vcf", person=person)), "text/vcard")


@people.get("/mentions")
@login_required
def suggest() -> ResponseReturnValue:
    """Suggest whom to mention by what was typed after an @, as a fragment. People who see the topic come first."""
    topic_id = request.args.get("topic", type=as_id)
    if topic_id:
        seen(Topic, topic_id)
    typed = searched(NAME_MAX)
    calls = sorted(name for name in names_called(current_user) if typed and name.startswith(fold(typed)))
    offered = User.suggested(current_user, typed, topic_id)
    return render_template("people/_suggest.html", people=offered, calls=calls[:SUGGESTED_MOST])


# -- files: what people upload -----------------------------------------------------------------------------------------

files = Blueprint("files", __name__)


@files.get("/files/<int:file_id>/<file:name>", endpoint="show")
@login_required
def show_file(file_id: int, name: str) -> ResponseReturnValue:
    """Send a file. Browsers show pictures and PDF, and save anything else."""
    file = seen(Attachment, file_id)
    if file.name != name:
        abort(404)
    return _send(file)


@files.get("/files/<int:file_id>/<any(medium, thumb):size>", endpoint="picture")
@login_required
def show_picture(file_id: int, size: str) -> ResponseReturnValue:
    """Send a picture in a smaller size, or as it is if it has none."""
    file = seen(Attachment, file_id)
    suffix = f".{size}"
    return _send(file, suffix if stored_path(file.stored, suffix).exists() else "")


def _send(file: Attachment, suffix: str = "") -> ResponseReturnValue:
    """Send a file, or its smaller version with that suffix. 404 if it is missing on the disk."""
    path, etag = stored_path(file.stored, suffix), file.sha256 + suffix
    kind, name = SHOWN_TYPES.get(file.ending, "application/octet-stream"), file.name
    if suffix:
        kind, name = "image/webp", f"{name}.webp"
    response = send_from_directory(
        path.parent, path.name, mimetype=kind, as_attachment=file.ending not in SHOWN_TYPES,
        download_name=name, etag=etag,
    )  # fmt: skip
    response.headers["Content-Security-Policy"] = PDF_POLICY if file.ending == "pdf" else FILE_POLICY
    return response


@files.post("/files")
@role_required(Role.MEMBER)
def upload() -> ResponseReturnValue:
    """Store a file that was chosen, dropped or pasted. The script gets its entry for the list of files."""
    try:
        file = take_upload(request.files["upload"])
    except ValidationError as error:
        return Response(error.message, 507 if isinstance(error, NoRoom) else 422, mimetype="text/plain")
    return render_template("files/_attached.html", attached=[file])


@files.post("/files/<int:file_id>/delete", endpoint="delete")
@login_required
def delete_file(file_id: int) -> ResponseReturnValue:
    """Remove a file. It can be restored."""
    file = Attachment.delete(current_user, file_id)
    return redirect_with_flash(file.home, "Removed.", undo=f"/files/{file_id}/restore")


@files.post("/files/<int:file_id>/restore", endpoint="restore")
@login_required
def restore_file(file_id: int) -> ResponseReturnValue:
    """Restore a removed file."""
    file = Attachment.restore(current_user, file_id)
    return redirect_with_flash(file.home, "Restored.")


@files.get("/logo.webp")
@public
def logo() -> ResponseReturnValue:
    """Send the site's logo. Its address has its version, so that browsers can keep it."""
    return Response(Setting.logo() or abort(404), mimetype="image/webp")


# -- search: everything that a person may read -------------------------------------------------------------------------

search = Blueprint("search", __name__)

SEARCH_KINDS = {"news": "News", "page": "Handbook", "comment": "Comments", "file": "Files", "person": "People"}
SEARCH_FILTERS = ("kind", "topic", "author", "since", "before")


@search.get("/search", endpoint="index")
@login_required
def search_all() -> ResponseReturnValue:
    """Show the people who match what was typed, then the posts, pages, comments and files that have all its words."""
    typed = searched(QUERY_MAX)
    asked = {name: request.args.get(name, "") for name in SEARCH_FILTERS}
    start = request.args.get("start", type=as_id)
    query = asked_query(typed, asked)
    results = SearchResults()
    if asked["kind"] != "person":
        results = SearchEntry.find(current_user, query, start)
    people = found_people(typed, asked) if query.words and not start else []
    found = {"q": typed, "words": results.words or query.words, "start": start, "people": people, "results": results}
    if request.args.get("part") == "live":
        return render_template("search/_live.html", **found)
    found["meant"] = nearest_query(typed, asked) if query.words and not (people or results.hits) else ""
    narrowed = {name: value for name, value in asked.items() if value}
    return render_template("search/index.html", asked=asked, narrowed=narrowed, **found, **filter_choices(asked))


def nearest_query(typed: str, asked: Mapping[str, str]) -> str:
    """Return the query of the nearest known words, if it finds something, and else ''."""
    meant = database.nearest_words(typed, SearchEntry.known_words(current_user))
    found = SearchEntry.find(current_user, asked_query(meant, asked)).hits or found_people(meant, asked)
    return meant if found else ""


def asked_query(typed: str, asked: Mapping[str, str]) -> SearchQuery:
    """Return the query. 404 for a kind, topic or author that does not exist or that this person may not see."""
    if asked["kind"] not in ("", *SEARCH_KINDS):
        abort(404)
    flags, conditions = {"kind": asked["kind"]}, []
    if asked["author"]:  # even one who has left: their posts still bear their name
        author = db.one_or_404(sa.select(User).where(User.username_key == fold(asked["author"])))
        flags["author"] = author.id
    if asked["topic"]:
        topic = seen(Topic, asked["topic"], "slug")
        conditions.append(Post.topic_id == topic.id)
    if since := midnight(asked["since"]):
        conditions.append(SearchEntry.at >= since)
    if before := midnight(asked["before"]):
        conditions.append(SearchEntry.at < before)
    return SearchQuery(database.query_words(typed), database.search_flags(**flags), conditions)


def midnight(day: str, later: int = 0) -> datetime | None:
    """Return when a day, or one some days later, begins in this person's zone. None if the text is no day."""
    try:
        return as_utc(datetime.combine(date.fromisoformat(day) + timedelta(days=later), datetime.min.time()))
    except (ValueError, OverflowError):
        return None


def found_people(typed: str, asked: Mapping[str, str]) -> Sequence[User]:
    """Return a few active people who match, by name; more of them if only people are searched for."""
    if asked["kind"] not in ("", "person") or any(asked[name] for name in SEARCH_FILTERS if name != "kind"):
        return []
    limit = PEOPLE_PER_PAGE if asked["kind"] else FOUND_PEOPLE
    return db.session.scalars(User.active().where(User.matching(typed)).limit(limit)).all()


def filter_choices(asked: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return what each filter offers: the values and their names."""
    topics = db.session.scalars(Topic.visible_to(current_user))
    chosen = User.username_key == fold(asked["author"])
    authors = db.session.scalars(sa.select(User).where(sa.or_(User.is_active, chosen)).order_by(*BY_NAME))
    return {
        "kinds": SEARCH_KINDS,
        "topics": {topic.slug: topic.name for topic in topics},
        "authors": {author.username: author.name for author in authors},
    }


def snippet(rendered: str, words: Sequence[database.Word]) -> Markup:
    """Return the part of a text around the first of some words, or else its beginning, with the words marked."""
    text = plain_text(rendered[:SNIPPET_WITHIN], SNIPPET_WITHIN)
    place = next((start for start, _end in database.places_of(words, text)), 0)
    start, end = max(0, place - SNIPPET_BEFORE), place + SNIPPET_AFTER
    if start:
        start = text.find(" ", start, place) + 1 or start
    if end < len(text):
        end = max(text.rfind(" ", place, end), place + SNIPPET_AFTER // 2)
    return marked(f"{'… ' if start else ''}{text[start:end]}{' …' if end < len(text) else ''}", words)


def marked(text: str, words: Sequence[database.Word]) -> Markup:
    """Return a text, escaped, with the words marked that were searched for."""
    parts, done = [], 0
    for start, end in database.places_of(words, text):
        if end > done:
            begin = max(start, done)  # places can overlap
            parts += [text[done:begin], Markup("<mark>{}</mark>").format(text[begin:end])]
            done = end
    return Markup().join([*parts, text[done:]])  # which escapes what is not Markup yet


# -- notifications: reading them, and following ------------------------------------------------------------------------

notifications = Blueprint("notifications", __name__)


@notifications.get("/notifications", endpoint="index")
@login_required
def list_notifications() -> ResponseReturnValue:
    """Show the person's notifications, newest first."""
    return render_template("notifications/index.html", page=notification_page())


def notification_page() -> Page:
    """Return a page of the person's notifications in groups, the newest first."""
    page = paginate(sa.select(NOTIFICATION_GROUPS), (NOTIFICATION_GROUPS.c.newest.desc(),))
    return page._replace(items=notification_groups(page.items))


def notification_groups(rows: Sequence[Any]) -> list[NotificationGroup]:
    """Return the groups of a page with their notifications. A group that was removed in the meantime is left out."""
    ids = {row.newest for row in rows} | {row.oldest for row in rows}
    about = (joinedload(Notification.post).load_only(Post.title), joinedload(Notification.comment))
    ends = sa.select(Notification).options(*about, joinedload(Notification.actor)).where(Notification.id.in_(ids))
    told = {notification.id: notification for notification in db.session.scalars(ends)}
    actor_ids = {row.first_actor for row in rows} | {row.last_actor for row in rows}
    names = names_of(sa.select(User).where(User.id.in_(actor_ids)))
    return [
        NotificationGroup(told[row.newest], told[row.oldest], row.is_unread, who_did(row, told[row.newest], names))
        for row in rows
        if row.newest in told and row.oldest in told
    ]


def who_did(group: Any, newest: Notification, names: Mapping[int, str]) -> str:
    """Return the people of a group in words: the newest of them, and the other one or how many others."""
    if newest.actor is None:
        return ""
    if group.people == 1:
        return newest.actor.name
    other = group.first_actor if group.last_actor == newest.actor_id else group.last_actor
    return f"{newest.actor.name} and {names[other] if group.people == 2 else f'{group.people - 1} others'}"


@notifications.get("/notifications/poll")
@login_required
def poll() -> ResponseReturnValue:
    """Return the number of unread notifications to the script, which polls it."""
    response = jsonify(unread=g.unread)
    response.add_etag()
    return response.make_conditional(request)


@notifications.post("/notifications/read")
@login_required
def read_all() -> ResponseReturnValue:
    """Mark all notifications as read."""
    Notification.read_all(current_user)
    return redirect_with_flash("/notifications", "All notifications marked as read.")


FOLLOW_MESSAGES = {
    "following": "Following: you'll be notified about anything new here.",
    "muted": "Muted: you'll only be notified if someone mentions you or asks you to read something.",
    "none": "You're no longer following this.",
}


@notifications.post("/posts/<int:post_id>/follow")
@login_required
def follow_post(post_id: int) -> ResponseReturnValue:
    """Follow a post, mute it, or neither."""
    return choose_following(f"/posts/{post_id}", post_id=post_id)


@notifications.post("/topics/<slug:slug>/follow")
@login_required
def follow_topic(slug: str) -> ResponseReturnValue:
    """Follow a topic, mute it, or neither."""
    return choose_following(f"/topics/{slug}", topic_id=seen(Topic, slug, "slug").id)


def choose_following(address: str, **place: int) -> ResponseReturnValue:
    """Follow a post or a topic, mute it, or neither, as the form says, and return to its page."""
    state = request.form.get("state", "")
    if state not in FOLLOW_MESSAGES:
        raise ValidationError("state", "Choose whether to follow this, mute it, or neither.")
    Follow.choose(current_user, state, **place)
    return redirect_with_flash(address, FOLLOW_MESSAGES[state])


# -- admin: overview, people, settings, recycle bin --------------------------------------------------------------------

admin = Blueprint("admin", __name__, url_prefix="/admin")


@admin.get("", endpoint="index")
@role_required(Role.ADMIN)
def overview() -> ResponseReturnValue:
    """Show Administration: whether everything is OK, what to do next, and how the site is used."""
    address, advice = reach()
    return render_template(
        "admin/index.html",
        findings=sorted(site_findings(), key=attrgetter("ok")),
        visits=people_by_day(),
        written=posts_by_week(),
        slowest=slowest_pages(),
        failed=failed_pages(),
        advice=advice,
        has_colleagues=count_of(User) > 1,
        has_posts=db.session.scalar(sa.select(Post.id).where(Post.published_at > LONG_AGO).limit(1)) is not None,
        address=address,
    )


@admin.get("/jobs")
@role_required(Role.ADMIN)
def jobs() -> ResponseReturnValue:
    """Show what the site does by itself: when each job ran, how that went, and when it runs again."""
    return render_template("admin/jobs.html", jobs=JOBS, runs=JobRun.known(), now=g.now)


@admin.post("/jobs/<job>/run", endpoint="run_job")
@role_required(Role.ADMIN)
def run_job_by_hand(job: str) -> ResponseReturnValue:
    """Run a job now, unless it is being run already."""
    wanted = next((one for one in JOBS if one.name == job), None) or abort(404)
    result = run_job(wanted, early=True, actor=current_user)
    return redirect_with_flash("/admin/jobs", f"{job}: {result or 'already running.'}")


@admin.get("/people", endpoint="people")
@role_required(Role.ADMIN)
def manage_people() -> ResponseReturnValue:
    """Show everybody with their role, topics and state, even the deactivated, or those whom the filters let through."""
    topics = names_of(Topic.visible_to(current_user))
    asked = given_filters()
    return render_template(
        "admin/people.html",
        page=people_page(ALL_PEOPLE.where(*asked_people(asked, topics)), searched(NAME_MAX)),
        asked=asked,
        roles=ROLES,
        topics=topics,
    )


def searched(most: int) -> str:
    """Return what the address searches for, with so many characters at most."""
    return tidy(request.args.get("q"))[:most]


def given_filters() -> dict[str, str]:
    """Return the filters of a list that the address names."""
    return {name: value for name, value in request.args.items() if value and name != "before"}


def asked_people(asked: Mapping[str, str], topics: Iterable[int]) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions of the filters that are asked for. A value that no filter has is ignored."""
    filters = {
        "state": {"active": User.is_active, "deactivated": ~User.is_active, "waiting": User.awaits_approval},
        "role": {str(int(role)): User.role == role for role in Role},
        "topic": {str(topic_id): User.sees(topic_id) for topic_id in topics},
        "unseen": {"90": sa.func.coalesce(User.last_active_at, LONG_AGO) < g.now - timedelta(days=90)},
    }
    for name, known in filters.items():
        if asked.get(name) in known:
            yield known[asked[name]]


@admin.route("/people/new", methods=["GET", "POST"])
@role_required(Role.ADMIN)
def new_person() -> ResponseReturnValue:
    """Add a person. A password that was generated for them is shown once."""
    form = NewPersonForm()
    if form.validate_on_submit():
        generated = None if form.password.data else random_words(4)  # 79 bits
        hashed = hash_password(generated or form.password.data)
        values = form_values(form, "name", "username", "email", "role")
        with form.errors_from_model():
            person = User.create(current_user, password_hash=hashed, **values)
            if generated:
                return render_template("admin/new_password.html", person=person, password=generated, reach=reach())
            return redirect_with_flash("/admin/people", f"{person.name} can sign in now.")
    return form_page("admin/new_person.html", form)


@admin.get("/people.csv")
@role_required(Role.ADMIN)
def people_csv() -> ResponseReturnValue:
    """Download the active people as a table for a spreadsheet, which can be imported again."""
    rows = [
        (user.name, user.username, user.email or "", user.role.label, *(getattr(user, name) for name in PROFILE_FIELDS))
        for user in db.session.scalars(User.active())
    ]
    return csv_response("people", [LISTED, *rows])


@admin.route("/people/import", methods=["GET", "POST"])
@role_required(Role.ADMIN)
def import_people() -> ResponseReturnValue:
    """Add many people from a list: first show what would happen with each line, then add all of them, or none."""
    form, lines = ImportForm(), None
    if form.validate_on_submit():
        if upload := request.files.get("upload"):
            form.text.data = decode_list(upload.read())
        with form.errors_from_model():
            lines = read_list(form.text.data or "")
            new = [line for line in lines if not line.is_known]
            if "add" in request.form and new and not any(line.errors for line in new):
                people = [line.values | {"role": Role[line.values["role"].upper()]} for line in new]
                User.create_listed(current_user, people, form.by_email.data)
                return redirect_with_flash("/admin/people", f"{plural(len(new), 'person', 'people')} added.")
    return form_page("admin/import.html", form, lines=lines)


@admin.route("/invitations", methods=["GET", "POST"])
@role_required(Role.ADMIN)
def invitations() -> ResponseReturnValue:
    """List the open invitations, and make another one. Its link is shown once, and may be sent."""
    form = InvitationForm()
    form.topic_ids.choices = choices(names_of(Topic.visible_to(current_user)))
    if not mail_is_on():
        del form.email
    if form.validate_on_submit():
        return hand_over(*Invitation.create(current_user, **form.data))
    page = paginate(Invitation.open(), (Invitation.id.desc(),))
    return form_page("admin/invitations.html", form, page=page)


def hand_over(invitation: Invitation, token: str) -> ResponseReturnValue:
    """Show the link of an invitation once, and send it if there is an address."""
    link, trouble = f"{site_address(current_app.config)}/invite/{token}", ""
    if invitation.email:
        try:
            send_at_once(invitation, "mail/invitation.html", invitation=invitation, link=link)
        except ValidationError as error:
            trouble = error.message
    return render_template("admin/invitation.html", invitation=invitation, link=link, trouble=trouble, reach=reach())


@admin.post("/invitations/<int:invitation_id>/withdraw")
@role_required(Role.ADMIN)
def withdraw_invitation(invitation_id: int) -> ResponseReturnValue:
    """Make an invitation useless."""
    Invitation.withdraw(current_user, invitation_id)
    return redirect_with_flash("/admin/invitations", "Invitation withdrawn. Its link doesn't work any more.")


def people_waiting() -> int:
    """Return how many people wait for approval."""
    return count_of(User, User.awaits_approval)


@admin.post("/people/<int:user_id>/decline")
@role_required(Role.ADMIN)
def decline(user_id: int) -> ResponseReturnValue:
    """Delete the account of a person who was not let in."""
    User.decline(current_user, user_id)
    return redirect_with_flash("/admin/people", "Declined, and their account deleted.")


@admin.route("/people/<int:user_id>", methods=["GET", "POST"])
@role_required(Role.ADMIN)
def edit_person(user_id: int) -> ResponseReturnValue:
    """Change a person's name, email address and username. The small forms below them change what the person may do."""
    person = seen(User, user_id)
    form = EditPersonForm(obj=person)
    if form.validate_on_submit():
        with form.errors_from_model():
            User.edit_person(current_user, user_id, **form.data)
            rerender_texts()
            return redirect_with_flash("/admin/people", f"{form.name.data} saved.")
    return _person_page(person, form)


def _person_page(person: User, form: SiteForm) -> ResponseReturnValue:
    """Return the page that manages a person. `form` is the one of its forms that was sent."""
    person_form = form if isinstance(form, EditPersonForm) else EditPersonForm(formdata=None, obj=person)
    role_form = form if isinstance(form, RoleForm) else RoleForm(formdata=None, obj=person)
    return form_page("admin/edit_person.html", form, person=person, person_form=person_form, role_form=role_form)


@admin.post("/people/<int:user_id>/export")
@role_required(Role.ADMIN)
def export_person(user_id: int) -> ResponseReturnValue:
    """Download all that is a person's own. That is recorded."""
    return send_export(seen(User, user_id))


@admin.route("/people/<int:user_id>/erase", methods=["GET", "POST"])
@role_required(Role.ADMIN)
def erase_person(user_id: int) -> ResponseReturnValue:
    """Say first what erasing a person means, and then erase them for ever."""
    if SiteForm().validate_on_submit():
        User.erase(current_user, user_id)
        return redirect_with_flash("/admin/people", "Erased. What they wrote stays under “Former colleague”.")
    return render_template("admin/erase_person.html", person=seen(User, user_id))


@admin.post("/people/<int:user_id>/role")
@role_required(Role.ADMIN)
def set_role(user_id: int) -> ResponseReturnValue:
    """Change a person's role."""
    person, form = seen(User, user_id), RoleForm()
    if form.validate_on_submit():
        with form.errors_from_model():
            User.set_role(current_user, user_id, form.role.data)
            return redirect_with_flash(f"/admin/people/{user_id}", f"Role changed to {form.role.data.label}.")
    return _person_page(person, form)


@admin.post("/people/<int:user_id>/deactivate")
@role_required(Role.ADMIN)
def deactivate(user_id: int) -> ResponseReturnValue:
    """Sign a person out, and stop them from signing in again."""
    User.deactivate(current_user, user_id)
    undo = f"/admin/people/{user_id}/reactivate"
    return redirect_with_flash(f"/admin/people/{user_id}", "Deactivated and signed out everywhere.", undo=undo)


@admin.post("/people/<int:user_id>/reactivate")
@role_required(Role.ADMIN)
def reactivate(user_id: int) -> ResponseReturnValue:
    """Let a deactivated person sign in again."""
    User.reactivate(current_user, user_id)
    return redirect_with_flash(f"/admin/people/{user_id}", "They can sign in now.")


@admin.post("/people/<int:user_id>/link")
@role_required(Role.ADMIN)
def make_link(user_id: int) -> ResponseReturnValue:
    """Make a link with which somebody chooses a new password, and show it once."""
    person, token = seen(User, user_id), ResetLink.create(user_id, current_user)
    link = f"{site_address(current_app.config)}/reset/{token}"
    return render_template("admin/reset_link.html", person=person, link=link, reach=reach())


@admin.post("/people/<int:user_id>/second-factor")
@role_required(Role.ADMIN)
def reset_second_factor(user_id: int) -> ResponseReturnValue:
    """Turn off somebody's two-step sign-in, for the day their phone is lost."""
    if user_id == current_user.id:
        abort(403, "Turn off your own under Account, Security. It asks for a code.")
    User.turn_off_second_factor(current_user, user_id)
    return redirect_with_flash(f"/admin/people/{user_id}", "Two-step sign-in is off for them.")


@admin.route("/groups", methods=["GET", "POST"])
@admin.route("/groups/<int:group_id>", methods=["GET", "POST"])
@role_required(Role.ADMIN)
def groups(group_id: int | None = None) -> ResponseReturnValue:
    """Show the groups and a form for a new one, or a group's name and people."""
    group = db.get_or_404(Group, group_id) if group_id else None
    form = GroupForm(obj=group)
    form.member_ids.choices = choices(names_of(User.active()))
    if group:
        del form.name  # it stays
    if form.validate_on_submit():
        name = group.name if group else form.name.data
        with form.errors_from_model():
            Group.save(current_user, group_id, name=name, member_ids=form.member_ids.data or ())
            return redirect_with_flash("/admin/groups", f"Group @{name} saved.")
    every = db.session.scalars(Group.listed().options(selectinload(Group.people))).all()
    return form_page("admin/groups.html", form, group=group, groups=every)


@admin.post("/groups/<int:group_id>/delete")
@role_required(Role.ADMIN)
def delete_group(group_id: int) -> ResponseReturnValue:
    """Delete a group."""
    Group.delete(current_user, group_id)
    rerender_texts()
    return redirect_with_flash("/admin/groups", "Group deleted.")


@admin.get("/settings")
@role_required(Role.ADMIN)
def settings() -> ResponseReturnValue:
    """Show the settings: small forms, each of which is saved by itself."""
    return _settings_page(SiteForm())


def _settings_page(form: SiteForm) -> ResponseReturnValue:
    """Return the page of the settings. `form` is the one of its forms that was sent."""
    forms = {
        kind.__name__: form if isinstance(form, kind) else kind(formdata=None, obj=current_site())
        for kind in (LookForm, *SECTIONS.values())
    }
    return form_page("admin/settings.html", form, forms=forms)


@admin.post("/settings/look")
@role_required(Role.ADMIN)
def save_look() -> ResponseReturnValue:
    """Save the accent colour and the logo."""
    form = LookForm()
    if form.validate_on_submit():
        given = request.files.get("upload")
        with form.errors_from_model():
            if given or form.remove_logo.data:
                Setting.set_logo(current_user, logo_picture(given) if given else b"")
            Setting.change(current_user, accent=form.accent.data)
            return redirect_with_flash("/admin/settings", "Saved.")
    return _settings_page(form)


SECTIONS = {
    "site": SiteNameForm, "announcement": AnnouncementForm, "time-zone": TimeZoneForm, "sign-up": SignUpForm,
    "second-factor": SecondFactorForm, "bin": BinForm, "activity": ActivityForm,
}  # fmt: skip


@admin.post("/settings/<section>")
@role_required(Role.ADMIN)
def save_settings(section: str) -> ResponseReturnValue:
    """Save one section of the settings."""
    form = SECTIONS[section]() if section in SECTIONS else abort(404)
    if form.validate_on_submit():
        Setting.change(current_user, **{name: str(value or "") for name, value in form.data.items()})
        return redirect_with_flash("/admin/settings", "Saved.")
    return _settings_page(form)


@admin.route("/mail", methods=["GET", "POST"], endpoint="mail")
@role_required(Role.ADMIN)
def show_mail() -> ResponseReturnValue:
    """List the emails that wait or failed, and why. Or send the administrator a test, and show the result."""
    form = SiteForm()
    if form.validate_on_submit():
        with form.errors_from_model():
            send_test(current_user)
            return redirect_with_flash("/admin/mail", f"The mail server accepted a test email to {current_user.email}.")
    mails = sa.select(OutgoingMail).options(joinedload(OutgoingMail.user))
    page = paginate(mails, (OutgoingMail.id.desc(),))
    return form_page("admin/mail.html", form, page=page, kinds=MAIL_KINDS)


@admin.post("/mail/<int:mail_id>/send")
@role_required(Role.ADMIN)
def send_again(mail_id: int) -> ResponseReturnValue:
    """Send a failed email again."""
    OutgoingMail.send_again(current_user, mail_id)
    return redirect_with_flash("/admin/mail", "It will be sent within half a minute.")


@admin.get("/bin", endpoint="bin")
@role_required(Role.EDITOR)
def recycle_bin() -> ResponseReturnValue:
    """Show what was deleted and can be restored."""
    kind = request.args.get("kind", "post")
    model = BIN_MODELS.get(kind) or abort(404)
    things = Bin.things(kind).options(joinedload(model.deleted_by), *BIN_OPTIONS[kind])
    page = paginate(things, (model.deleted_at.desc(), model.id.desc()))
    return render_template("admin/bin.html", kind=kind, page=page, days=int(current_site().bin_days))


# What the list shows of a thing besides its own columns.
BIN_OPTIONS: dict[str, tuple[Any, ...]] = {
    "post": (joinedload(Post.topic),),
    "comment": (joinedload(Comment.post),),
    "file": (joinedload(Attachment.post), joinedload(Attachment.comment).joinedload(Comment.post)),
    "topic": (undefer(Topic.post_count),),
}


@admin.get("/bin/posts/<int:post_id>")
@role_required(Role.EDITOR)
def show_binned(post_id: int) -> ResponseReturnValue:
    """Show a deleted post."""
    return binned_page("post", post_id)


@admin.get("/bin/comments/<int:comment_id>")
@role_required(Role.EDITOR)
def show_binned_comment(comment_id: int) -> ResponseReturnValue:
    """Show a deleted comment."""
    return binned_page("comment", comment_id)


def binned_page(kind: str, thing_id: int) -> ResponseReturnValue:
    """Return the page of a deleted post or comment. 404 if this person may not see it."""
    things = Bin.things(kind).params(viewer=current_user.id)
    thing = db.one_or_404(things.where(BIN_MODELS[kind].id == thing_id))
    files = sa.select(Attachment).filter_by(**{f"{kind}_id": thing_id}, deleted_at=None).order_by(Attachment.id)
    return render_template(
        "admin/binned.html", kind=kind, thing=thing, post=post_of(thing), files=db.session.scalars(files).all()
    )


@admin.route("/bin/empty", methods=["GET", "POST"], endpoint="empty_bin")
@role_required(Role.ADMIN)
def empty_bin_now() -> ResponseReturnValue:
    """Delete everything in the bin permanently. The page says first what that means."""
    form = SiteForm()
    if form.validate_on_submit():
        removed = Bin.empty(current_user, utcnow())
        return redirect_with_flash("/admin/bin", f"{plural(removed, 'item').capitalize()} deleted permanently.")
    return form_page("admin/empty_bin.html", form)


# -- admin: is everything OK, and how the site is used -----------------------------------------------------------------

BACKUP_LATE = timedelta(days=2)
JOBS_LATE = timedelta(minutes=5)


def site_findings() -> Iterator[Finding]:
    """Check all that `check` and Administration say of the site. Most of it needs a database that works."""
    yield from machine_findings()
    found = database_finding()
    yield found
    if found.ok:
        yield from (check() for check in DATABASE_CHECKS)


def machine_findings() -> Iterator[Finding]:
    """Check the version, the address, the disk, and who can read the data."""
    yield Finding(True, "version", f"Corkboard {VERSION} on Python {platform.python_version()}")
    yield host_finding()
    folder = database.data_folder()
    free = shutil.disk_usage(folder).free
    is_roomy, remedy = free >= 500 * MEGABYTE, "Make room: the site needs at least 500 MB."
    yield Finding(is_roomy, "disk", f"{file_size(free)} free", remedy)
    yield from privacy_findings(folder)


def privacy_findings(folder: Path) -> Iterator[Finding]:
    """Check that other accounts of this computer can read neither the data nor a secret."""
    places = [
        ("private data", folder, 0o700),
        ("secret key", folder / "secret_key", 0o600),
        ("private settings", PROJECT_DIR / ".env", 0o640),
    ]
    kept = sqlite_path(current_app.config["DATABASE_URL"])
    if kept and folder not in kept.parents:
        places.append(("private database", kept, 0o600))
    for name, path, mode in places:
        if os.name != "nt" and path.exists():
            private = not path.stat().st_mode & 0o077 & ~mode
            words = "other accounts cannot read it" if private else "others can read it"
            yield Finding(private, name, words, f"Run: chmod {mode:o} {path}")


def host_finding() -> Finding:
    """Check whether this computer has the address that HOST names."""
    host = current_app.config["HOST"]
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError:
        remedy = "Set HOST=127.0.0.1 in .env, or HOST=0.0.0.0 to open the site to the network."
        return Finding(False, "host", f"this computer has no address {host}", remedy)
    return Finding(True, "host", host)


@transactional
def check_writing() -> None:
    """Write a row and delete it again. Raises the engine's error where nothing can be written."""
    database.upsert(Throttle, [{"key": "check", "whole_at": utcnow()}])
    db.session.execute(sa.delete(Throttle).where(Throttle.key == "check"))


def database_finding() -> Finding:
    """Check whether the database answers, can be written, fits this version and belongs to the data folder."""
    try:
        database.check_ready()
        check_writing()
    except (SQLAlchemyError, database.DatabaseBusy) as error:
        log.warning("check: the database refuses", exc_info=error)
        return Finding(False, "database", *trouble(error))
    except database.SchemaError as error:
        return Finding(False, "database", error.message)
    return Finding(True, "database", f"it answers, and takes {file_size(database.database_size())}")


def mail_finding() -> Finding:
    """Check whether emails wait for an hour, or failed in the last day."""
    if not mail_is_on():
        return Finding(True, "email", "not set up: you pass on invitations and new passwords yourself")
    now = utcnow()
    unsent = count_of(OutgoingMail, OutgoingMail.created_at.between(now - MAIL_TRIED_FOR - 24 * HOUR, now - HOUR))
    words = f"{plural(unsent, 'email')} not sent" if unsent else "sent without delay"
    return Finding(not unsent, "email", words, "Open Email to see why.", "/admin/mail")


def jobs_finding() -> Finding:
    """Check whether anything runs the jobs, and whether they succeed."""
    if age(JobRun.last_seen()) > JOBS_LATE:
        words = "nothing has run the jobs for five minutes, so scheduled posts aren't published"
        remedy = f"They begin soon after a start. With a server other than wsgi.py, also run: {FLASK} jobs run"
        return Finding(False, "jobs", words, remedy, "/admin/jobs")
    runs = JobRun.known()
    failing = ", ".join(job.name for job in JOBS if job.name in runs and runs[job.name].failures)
    words = f"failed when last run: {failing}" if failing else "they run on time"
    return Finding(not failing, "jobs", words, "For details, see the log.", "/admin/jobs")


def age(moment: datetime | None) -> timedelta:
    """Return how long ago that was, or without a time, how long there have been people on the site."""
    return utcnow() - (moment or db.session.scalar(sa.select(sa.func.min(User.created_at))) or utcnow())


def backups_finding() -> Finding:
    """Check how old the newest backup is, and say when a restore was last verified."""
    newest, verified = newest_backup(), Backup.last_verified()
    words = f"the last one was made on {site_time(newest)}" if newest else "there is none yet"
    if verified:
        words += f"; last verified restore: {in_site_zone(verified):%A, %d %B}"
    return Finding(age(newest) < BACKUP_LATE, "backups", words, "Make one now.", "/admin/backups")


def newest_backup() -> datetime | None:
    """Return when the newest backup was made, or None without one."""
    return next((backup.made_at for backup in Backup.all()), None)


def files_finding() -> Finding:
    """Say how many files there are, and check the folder that they are in."""
    trouble, remedy = database.files_trouble()
    return Finding(not trouble, "files", trouble or plural(count_of(Attachment), "file"), remedy)


def texts_finding() -> Finding:
    """Check whether all texts were rendered by this version."""
    texts = count_outdated_texts()
    words = f"{plural(texts, 'text')} rendered by an older version" if texts else "current"
    return Finding(not texts, "texts", words, f"Run: {FLASK} rerender")


def administrator_finding() -> Finding:
    """Check whether anybody can administer the site."""
    some = count_of(User, User.is_active, User.role == Role.ADMIN) > 0
    remedy = database.moving_advice() or f"Open the link of: {FLASK} setup-link"
    return Finding(some, "administrator", "there is one" if some else "there is none", remedy)


DATABASE_CHECKS = (mail_finding, jobs_finding, backups_finding, files_finding, texts_finding, administrator_finding)


def people_by_day() -> list[Any]:
    """Return each of the last 28 days with how many people were here."""
    days = [site_day(g.now) - timedelta(days=ago) for ago in reversed(range(28))]
    counts = VisitCount.since(days[0])
    return [(day_in_words(day), [counts.get(day, 0)]) for day in days]


def posts_by_week() -> list[Any]:
    """Return each of the last four weeks with how many posts and comments were written in it."""
    starts = [g.now - timedelta(weeks=ago) for ago in (4, 3, 2, 1)]
    return [(f"From {day_in_words(site_day(start))}", written_in_week(start)) for start in starts]


def written_in_week(start: datetime) -> tuple[int, int]:
    """Return how many posts and how many comments that this person may see were written in the week from `start`."""
    week = (start, start + timedelta(weeks=1))
    written = Post.visible_to(current_user).where(Post.published_at.between(*week))
    said = Comment.visible_to(current_user).where(Comment.created_at.between(*week))
    return count_of(written.subquery()), count_of(said.subquery())


# -- admin: what happened ----------------------------------------------------------------------------------------------

# What the beginnings of actions are called that one can ask for.
ACTIVITY_KINDS = {
    "person.sign": "Sign-ins",
    "person.sign_in_failed": "Failed sign-ins",
    "person": "People, with sign-ins",
    "invitation": "Invitations",
    "post": "Posts and pages",
    "comment": "Comments",
    "reaction": "Reactions",
    "attachment": "Files",
    "topic": "Topics",
    "group": "Groups",
    "token": "Access tokens",
    "mail": "Email",
    "settings": "Settings",
    "backup": "Backups",
    "job": "Jobs",
}


@admin.get("/activity", endpoint="activity")
@role_required(Role.ADMIN)
def list_activities() -> ResponseReturnValue:
    """Who did what, and when: the newest first."""
    asked = given_filters()
    return render_template(
        "admin/activity.html",
        page=paginate(asked_activities(), LATEST_FIRST),
        asked=asked,
        people=names_of(sa.select(User).order_by(*BY_NAME)),
        kinds=ACTIVITY_KINDS,
    )


def asked_activities() -> sa.Select[Any]:
    """Select what the filters in the address let through. Those that say nothing are ignored."""
    given = request.args
    wanted = [Activity.mentions(word) for word in sort_key(searched(QUERY_MAX)).split()]
    if person := given.get("person", type=as_id):
        wanted.append(Activity.actor_id == person)
    if kind := given.get("kind"):
        wanted.append(Activity.action.startswith(kind, autoescape=True))
    if since := midnight(given.get("since", "")):
        wanted.append(Activity.at >= since)
    if end := midnight(given.get("until", ""), later=1):
        wanted.append(Activity.at < end)
    return sa.select(Activity).where(*wanted)


@admin.get("/activity.csv")
@role_required(Role.ADMIN)
def activity_csv() -> ResponseReturnValue:
    """The same as a table for a spreadsheet, all of it; times are in the person's time zone."""
    every = asked_activities().order_by(*LATEST_FIRST).execution_options(yield_per=500)
    return csv_response("activity", activity_table(every))


def activity_table(statement: sa.Select[Any]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table, the first of which names the columns."""
    yield "When", "Who", "Username", "What", "On what", "Detail", "Changes", "From", "Action"
    for row in db.session.scalars(statement):
        changes = "; ".join(f"{field}: {old} → {new}" for field, (old, new) in row.before_and_after.items())
        who = (row.who, row.actor.username if row.actor else "")
        what = (row.verb, row.thing, row.detail, changes, row.address, row.action)
        yield f"{local(row.at):%Y-%m-%d %H:%M:%S}", *who, *what


# -- admin: backups ----------------------------------------------------------------------------------------------------


@admin.route("/backups", methods=["GET", "POST"], endpoint="backups")
@role_required(Role.ADMIN)
def list_backups() -> ResponseReturnValue:
    """Show the backups in the data folder, and when a restore was last tried out; or make one now."""
    if SiteForm().validate_on_submit():
        path = new_backup_path()
        Backup.make(current_user, path)
        return redirect_with_flash("/admin/backups", f"{path.name} created.")
    return render_template("admin/backups.html", backups=Backup.all(), verified=Backup.last_verified())


@admin.post("/backups/<backup_name>/download")
@role_required(Role.ADMIN)
def download_backup(backup_name: str) -> ResponseReturnValue:
    """Send a backup. That is recorded, so it is not a plain link."""
    answer = send_from_directory(backups_folder(), backup_name, as_attachment=True)
    Backup.record(current_user, "backup.downloaded", backup_name)
    return answer


# -- admin: how others reach the site ----------------------------------------------------------------------------------


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def reach() -> tuple[str, str]:
    """Return the address to hand out, empty while only this computer can open the site; and the same in words."""
    config = current_app.config
    if config["TRUSTED_PROXY"] or not is_loopback(config["HOST"]):
        address = site_address(config)
        return address, f"Other computers can open the site at {address}"
    port = config["PORT"]
    windows = f'netsh advfirewall firewall add rule name="Corkboard" dir=in action=allow protocol=TCP localport={port}'
    opened = windows if os.name == "nt" else f"sudo ufw allow {port}/tcp"
    return "", (
        "Only this computer can open the site so far. Put `HOST=0.0.0.0` in the file .env next to app.py and restart "
        f"Corkboard. Then allow it through the firewall with `{opened}`."
    )


# ======================================================================================================================
# == 7. JSON API =======================================================================================================
# ======================================================================================================================

Given = dict[str, Any]  # what a request says, as its schema has read it


class ArgumentsParser(FlaskParser):
    """What reads the arguments of a request."""

    def load_json(self, req: Any, schema: ma.Schema) -> Any:
        """Return the body. What Python refuses to read, such as a number of 5,000 digits, is no JSON either."""
        try:
            return super().load_json(req, schema)
        except (ValueError, RecursionError):
            abort(400)


api = ApiBlueprint("api", __name__, url_prefix="/api/v1")
api.ARGUMENTS_PARSER = ArgumentsParser(unknown=ma.RAISE)  # refuses unknown names in a query, too
docs = Blueprint("docs", __name__, url_prefix="/api", static_folder=swagger_ui_path, static_url_path="/docs")

API_LIMIT = "300 per minute"  # for each person
API_ABOUT = """Everything that people read and write on this site, for programs.

Create a token under Account, Tokens, and send it with each request: `Authorization: Bearer ck_…`. It may do what its
scope and its person's role allow: `read` only reads, `write` also changes things, `admin` also reads the activity. The
browser in which you are signed in may ask, too, with the `X-CSRFToken` of its page.

Lists come in pages: follow the `Link` with `rel="next"` until there is none. Every answer has an `ETag`: send it as
`If-None-Match` to be told by 304 that nothing changed. A post is changed or deleted with its `ETag` as `If-Match`; 412
says that it changed since. With an `Idempotency-Key`, a POST that is sent again answers with what the first one made
(a file is stored again).
Errors are problem details (RFC 9457), which name each wrong field. Texts are Markdown, and times are in UTC.
"""


# -- api: who asks, how often, and how it is answered ------------------------------------------------------------------

csrf.exempt(api)  # `check_request` asks for the token where a browser's session is what signs in


def api_caller() -> str:
    """Return what requests are counted by: the person, or else the address."""
    return f"person:{current_user.id}" if current_user else client_network()


limiter = Limiter(api_caller, in_memory_fallback_enabled=True)
limiter.shared_limit(lambda: API_LIMIT, scope="api", error_message=lambda: ERROR_WORDS[429][1])(api)


@api.before_request
def check_request() -> None:
    """Refuse a change that a browser's session sends without its token, and a body of another kind than JSON."""
    if not is_program() and current_user:
        csrf.protect()
    if request.content_length and not request.is_json and request.endpoint != "api.upload_attachment":
        abort(415)


@api.after_request
def tell_limit(response: Response) -> Response:
    """Say how many requests are left."""
    if limit := limiter.current_limit:
        wait = 1 + int(limit.reset_at - time.time())
        told = {"RateLimit-Limit": limit.limit.amount, "RateLimit-Remaining": limit.remaining, "RateLimit-Reset": wait}
        response.headers.update(told)
        if limit.breached:
            response.retry_after = wait
    return response


@api.after_request
def add_etag(response: Response) -> Response:
    """Give an answer an ETag. Answer with 304 where the program has it already."""
    if response.status_code in (200, 201):
        response.add_etag()
        response.make_conditional(request)
    return response


def check_match(post: Post) -> None:
    """Abort with 428 without If-Match, and with 412 where that is not the ETag of a post."""
    if not request.if_match:
        abort(428)
    if generate_etag(jsonify(PostSchema().dump(post)).data) not in request.if_match:
        abort(412)


def listed(statement: Statement, keys: Sequence[Any], query: Given) -> ResponseReturnValue:
    """Return a page of what a statement selects and a query asks for."""
    query.pop("before", None)  # which `paginate` reads itself
    return linked(paginate(statement.filter_by(**query), keys))


def linked(page: Page) -> ResponseReturnValue:
    """Return a page of a list, with a Link to the next one."""
    query = urlencode(request.args.to_dict() | {"before": page.next})
    return [*page.items], {"Link": f'<{request.path}?{query}>; rel="next"'} if page.next else {}


def new_form_id() -> str:
    """Return the id of what is to be made: the same one for the same Idempotency-Key."""
    key = request.headers.get("Idempotency-Key") or secrets.token_hex()
    return hash_token(f"{request.path} {key}")[:32]


if_match = api.doc(parameters=["IF_MATCH"])


# -- api: the fields of what is sent and answered ----------------------------------------------------------------------

IDS = validate.Range(1, ID_MAX)


class GivenId(fields.Integer):
    """An id in a query or a form, where it comes as a text."""

    num_type: Any = staticmethod(lambda given: as_id(str(given)))


class Moment(fields.NaiveDateTime):
    """A time as it is stored, in UTC."""

    def _serialize(self, value: datetime | None, *_given: Any, **_kw: Any) -> str | None:
        return value and f"{value.isoformat()}Z"


class TextLength(validate.Length):
    message_max = "Use at most {max:,} characters."


def not_blank(text: str) -> None:
    """Validator: refuse a text of which nothing is left when it is tidied."""
    if not tidy(text):
        raise ma.ValidationError("Fill this in.")


def in_this_century(given: Any) -> Any:
    """Refuse other centuries, as the forms do. At the ends of the calendar, a time zone would lead out of it."""
    if isinstance(given, str) and not given.startswith("20"):
        raise ma.ValidationError("Choose a day between 2000 and 2099.")
    return given


class PlaceSchema(ma.Schema):
    """Where a page of a list begins, as the link to it says."""

    before = fields.String()


class ProblemSchema(ma.Schema):
    """What went wrong (RFC 9457)."""

    type = fields.String()
    title = fields.String()
    status = fields.Integer()
    detail = fields.String()
    request_id = fields.String()
    errors = fields.Dict()


class RestApi(Api):
    ERROR_SCHEMA = ProblemSchema
    DEFAULT_RESPONSE_CONTENT_TYPE: str = "application/problem+json"  # of errors: see `describe_api`


class ThingSchema(ma.Schema):
    id = fields.Integer()


class PersonRefSchema(ThingSchema):
    username = fields.String()
    name = fields.String()


class TopicSchema(ThingSchema):
    name = fields.String()
    slug = fields.String()
    description = fields.String()
    private = fields.Boolean()


class PostRefSchema(ThingSchema):
    title = fields.String()
    must_read_due = fields.Date(allow_none=True)


# -- api: posts, of news and of the handbook ---------------------------------------------------------------------------


class PostBriefSchema(PostRefSchema):
    kind = fields.String()
    excerpt = fields.String()
    topic = fields.Nested(TopicSchema)
    author = fields.Nested(PersonRefSchema)
    published_at = Moment(allow_none=True)
    updated_at = Moment()
    expires_at = Moment(allow_none=True)
    comment_count = fields.Integer()
    url = fields.String()


class PostSchema(PostBriefSchema):
    body = fields.String()
    html = fields.String()
    state = fields.String()
    revision = fields.Integer()
    scheduled_for = Moment(allow_none=True)
    owner = fields.Nested(PersonRefSchema, allow_none=True)
    review_every = fields.Integer(allow_none=True)
    review_by = fields.Date(allow_none=True)
    parent_id = fields.Integer(allow_none=True)
    position = fields.Integer()


class PostInSchema(ma.Schema):
    topic_id = fields.Integer(strict=True, validate=IDS)
    title = fields.String(validate=TextLength(max=TITLE_MAX), post_load=tidy)
    body = fields.String(validate=TextLength(max=BODY_MAX), post_load=tidy_text)
    kind = fields.String(validate=validate.OneOf(("news", "page")))
    draft = fields.Boolean()
    scheduled_for = Moment(timezone=UTC, allow_none=True, pre_load=in_this_century)
    expires_at = Moment(timezone=UTC, allow_none=True, pre_load=in_this_century)
    owner_id = fields.Integer(strict=True, validate=IDS, allow_none=True)
    review_every = fields.Integer(strict=True, validate=validate.OneOf(REVIEW_MONTHS[1:]), allow_none=True)
    parent_id = fields.Integer(strict=True, validate=IDS, allow_none=True)
    attachment_ids = fields.List(
        fields.Integer(strict=True, validate=IDS), validate=validate.Length(max=FILES_MOST), attribute="file_ids"
    )


class PostsQuerySchema(PlaceSchema):
    kind = fields.String(load_default="news", validate=validate.OneOf(("news", "page")))
    topic_id = GivenId(validate=IDS)


API_POSTS = (
    database.in_table_order(sa.select(Post), {Topic: "PRIMARY"})
    .join(Post.author)
    .join(Post.topic)
    .options(contains_eager(Post.author), contains_eager(Post.topic))
    .where(Post.listed())
)


@api.get("/posts")
@login_required
@api.arguments(PostsQuerySchema, location="query")
@api.response(200, PostBriefSchema(many=True))
def get_posts(query: Given) -> ResponseReturnValue:
    """The news or, with the kind `page`, the pages of the handbook; newest first."""
    return listed(API_POSTS, NEWEST_FIRST, query)


@api.post("/posts")
@role_required(Role.MEMBER)
@api.arguments(PostInSchema, example={"topic_id": 1, "title": "The crane is back", "body": "From **Monday** on."})
@api.response(201, PostSchema)
def create_post(given: Given) -> Post:
    """Write news or, with the kind `page`, a page of the handbook: published, scheduled, or as a draft."""
    form_id = new_form_id()
    made = db.session.scalar(sa.select(Post.id).filter_by(author_id=current_user.id, form_id=form_id))
    how = "draft" if given.pop("draft", False) else "publish"
    data = replace(PostData("news", 0, "", ""), **given)
    return seen(Post, made or Post.save(current_user, data, how=how, form_id=form_id).id)


@api.get("/posts/<int:post_id>")
@login_required
@api.response(200, PostSchema)
def get_post(post_id: int) -> Post:
    """A post or a page, with its text."""
    return seen(Post, post_id)


@api.patch("/posts/<int:post_id>")
@role_required(Role.MEMBER)
@if_match
@api.arguments(PostInSchema, example={"title": "The crane is back at work"})
@api.response(200, PostSchema)
def change_post(given: Given, post_id: int) -> Post:
    """Change a post; a draft is published by `"draft": false`."""
    post = seen(Post, post_id)
    check_match(post)
    for name in ("draft", "scheduled_for"):
        if post.published_at and given.get(name):
            raise ValidationError(name, "This is already published. To take it back, delete it.")
    is_draft = given.pop("draft", post.state == "draft") and not post.published_at
    data = PostData.of(post, **given)
    Post.save(current_user, data, how="draft" if is_draft else "publish", post_id=post_id, version=post.version)
    return seen(Post, post_id)


@api.delete("/posts/<int:post_id>")
@role_required(Role.MEMBER)
@if_match
@api.response(204)
def remove_post(post_id: int) -> None:
    """Delete a post; it stays in the recycle bin."""
    check_match(seen(Post, post_id))
    Post.delete(current_user, post_id)


# -- api: comments -----------------------------------------------------------------------------------------------------


class CommentSchema(ThingSchema):
    post_id = fields.Integer()
    author = fields.Nested(PersonRefSchema)
    body = fields.String()
    html = fields.String()
    created_at = Moment()
    edited_at = Moment(allow_none=True)
    url = fields.String()


class CommentInSchema(ma.Schema):
    body = fields.String(required=True, validate=[TextLength(max=COMMENT_MAX), not_blank], post_load=tidy_text)


@api.get("/posts/<int:post_id>/comments")
@login_required
@api.arguments(PlaceSchema, location="query")
@api.response(200, CommentSchema(many=True))
def get_comments(query: Given, post_id: int) -> ResponseReturnValue:
    """The comments on a post, newest first."""
    comments = Comment.visible_to(current_user).options(joinedload(Comment.author))
    return listed(comments, (Comment.id.desc(),), query | {"post_id": seen(Post, post_id).id})


@api.post("/posts/<int:post_id>/comments")
@role_required(Role.MEMBER)
@api.arguments(CommentInSchema, example={"body": "Good to know. Thanks!"})
@api.response(201, CommentSchema)
def create_comment(given: Given, post_id: int) -> Comment:
    """Comment on a post."""
    return seen(Comment, Comment.create(current_user, post_id, **given, form_id=new_form_id()).id)


@api.get("/comments/<int:comment_id>")
@login_required
@api.response(200, CommentSchema)
def get_comment(comment_id: int) -> Comment:
    """A comment."""
    return seen(Comment, comment_id)


@api.patch("/comments/<int:comment_id>")
@role_required(Role.MEMBER)
@api.arguments(CommentInSchema, example={"body": "Good to know. Thank you!"})
@api.response(200, CommentSchema)
def change_comment(given: Given, comment_id: int) -> Comment:
    """Change your own comment."""
    Comment.edit(current_user, comment_id, **given)
    return seen(Comment, comment_id)


@api.delete("/comments/<int:comment_id>")
@role_required(Role.MEMBER)
@api.response(204)
def remove_comment(comment_id: int) -> None:
    """Delete a comment; it stays in the recycle bin."""
    Comment.delete(current_user, comment_id)


# -- api: topics -------------------------------------------------------------------------------------------------------


class TopicInSchema(ma.Schema):
    name = fields.String(required=True, validate=[TextLength(max=TOPIC_MAX), not_blank], post_load=tidy)
    description = fields.String(load_default="", validate=TextLength(max=DESCRIPTION_MAX), post_load=tidy)


class NewTopicSchema(TopicInSchema):
    private = fields.Boolean()


@api.get("/topics")
@login_required
@api.response(200, TopicSchema(many=True))
def get_topics() -> Sequence[Topic]:
    """All topics, in the team's order."""
    return fetch(Topic.visible_to(current_user))


@api.post("/topics")
@role_required(Role.EDITOR)
@api.arguments(NewTopicSchema, example={"name": "Canteen", "description": "What there is to eat"})
@api.response(201, TopicSchema)
def create_topic(given: Given) -> Topic:
    """Create a topic. A private one is seen only by its members: at first only by you."""
    return seen(Topic, Topic.create(current_user, form_id=new_form_id(), **given).id)


@api.put("/topics/<int:topic_id>")
@role_required(Role.EDITOR)
@api.arguments(TopicInSchema, example={"name": "Canteen and kitchen", "description": "What there is to eat, and when"})
@api.response(200, TopicSchema)
def change_topic(given: Given, topic_id: int) -> Topic:
    """Change a topic's name and description."""
    Topic.edit(current_user, topic_id, **given)
    return seen(Topic, topic_id)


@api.delete("/topics/<int:topic_id>")
@role_required(Role.EDITOR)
@api.response(204)
def remove_topic(topic_id: int) -> None:
    """Delete a topic with everything in it; it stays in the recycle bin."""
    Topic.delete(current_user, topic_id)


# -- api: people -------------------------------------------------------------------------------------------------------


class PersonSchema(PersonRefSchema):
    email = fields.String(allow_none=True)
    title = fields.String()
    department = fields.String()
    phone = fields.String()
    location = fields.String()
    away_from = fields.Date(allow_none=True)
    away_until = fields.Date(allow_none=True)


class MeSchema(PersonSchema):
    role = fields.String(attribute="role.label")


class PeopleQuerySchema(PlaceSchema):
    q = fields.String(load_default="")


@api.get("/people")
@login_required
@api.arguments(PeopleQuerySchema, location="query")
@api.response(200, PersonSchema(many=True))
def get_people(query: Given) -> ResponseReturnValue:
    """The active people, by name, or those in whose name or profile the words of `q` are."""
    return listed(User.active().where(User.matching(query.pop("q"))), BY_NAME, query)


@api.get("/people/<int:user_id>")
@login_required
@api.response(200, PersonSchema)
def get_person(user_id: int) -> User:
    """A person."""
    return seen(User, user_id)


@api.get("/me")
@login_required
@api.response(200, MeSchema)
def get_me() -> User:
    """The person whose token this is."""
    return current_user


# -- api: attachments --------------------------------------------------------------------------------------------------


class AttachmentSchema(ThingSchema):
    name = fields.String()
    size = fields.Integer()
    created_at = Moment()
    post_id = fields.Integer(allow_none=True)
    comment_id = fields.Integer(allow_none=True)
    markdown = fields.String()
    url = fields.String()


class AttachmentsQuerySchema(PlaceSchema):
    post_id = GivenId(validate=IDS)


class UploadSchema(ma.Schema):
    upload = Upload(required=True)


@api.get("/attachments")
@login_required
@api.arguments(AttachmentsQuerySchema, location="query")
@api.response(200, AttachmentSchema(many=True))
def get_attachments(query: Given) -> ResponseReturnValue:
    """The files of posts and comments, and your own that belong to nothing yet; newest first."""
    return listed(Attachment.visible_to(current_user), (Attachment.id.desc(),), query | {"person_id": None})


@api.post("/attachments")
@role_required(Role.MEMBER)
@api.arguments(UploadSchema, location="files")
@api.response(201, AttachmentSchema)
def upload_attachment(given: Given) -> Attachment:
    """Upload a file, for a post or a comment that names it in its text or in `attachment_ids`."""
    if request.form:
        abort(422, "Send the file as upload, and nothing else.")
    return take_upload(given["upload"])


@api.get("/attachments/<int:file_id>")
@login_required
@api.response(200)
def get_content(file_id: int) -> ResponseReturnValue:
    """The file itself."""
    return _send(seen(Attachment, file_id))


@api.delete("/attachments/<int:file_id>")
@login_required
@api.response(204)
def remove_attachment(file_id: int) -> None:
    """Remove a file; it stays in the recycle bin."""
    Attachment.delete(current_user, file_id)


# -- api: acknowledgements ---------------------------------------------------------------------------------------------


class ReportLineSchema(ma.Schema):
    person = fields.Nested(PersonRefSchema)
    state = fields.String()


class AcknowledgeSchema(ma.Schema):
    revision = fields.Integer(strict=True, required=True, validate=IDS)


@api.get("/acknowledgements")
@login_required
@api.response(200, PostRefSchema(many=True))
def get_owed() -> Sequence[Any]:
    """The posts that you still have to read and confirm."""
    return fetch(OWED)


@api.get("/posts/<int:post_id>/acknowledgements")
@login_required
@api.response(200, ReportLineSchema(many=True))
def get_acknowledgements(post_id: int) -> Sequence[Any]:
    """Who has read a post, and who has not: for its author and editors."""
    return Acknowledgement.report(reported_post(post_id)).lines


@api.post("/posts/<int:post_id>/acknowledgements")
@login_required
@api.arguments(AcknowledgeSchema, example={"revision": 1})
@api.response(204)
def create_acknowledgement(given: Given, post_id: int) -> None:
    """Confirm that you have read a revision of a post. A second time, nothing happens."""
    Acknowledgement.acknowledge(current_user, post_id, **given)


# -- api: notifications ------------------------------------------------------------------------------------------------


class NotificationSchema(ma.Schema):
    id = fields.Integer(attribute="newest.id")
    kind = fields.String(attribute="newest.kind")
    post_id = fields.Integer(attribute="newest.post_id")
    title = fields.String(attribute="newest.post.title")
    at = Moment(attribute="newest.created_at")
    who = fields.String()
    words = fields.String()
    is_unread = fields.Boolean()
    url = fields.String(attribute="address")


@api.get("/notifications")
@login_required
@api.arguments(PlaceSchema, location="query")
@api.response(200, NotificationSchema(many=True))
def get_notifications(query: Given) -> ResponseReturnValue:
    """Your notifications, newest first."""
    return linked(notification_page())


@api.post("/notifications/read")
@login_required
@api.response(204)
def read_notifications() -> None:
    """Mark everything as read."""
    Notification.read_all(current_user)


# -- api: search -------------------------------------------------------------------------------------------------------


class HitSchema(ma.Schema):
    kind = fields.String(attribute="SearchEntry.kind")
    at = Moment(attribute="SearchEntry.at")
    post = fields.Nested(PostRefSchema, attribute="Post")
    comment_id = fields.Integer(attribute="SearchEntry.comment_id", allow_none=True)
    attachment = fields.Nested(AttachmentSchema, attribute="Attachment", allow_none=True)
    author = fields.Nested(PersonRefSchema, attribute="User")
    topic = fields.Nested(TopicSchema, attribute="Topic")


class SearchQuerySchema(ma.Schema):
    q = fields.String(required=True, validate=validate.Length(1, QUERY_MAX))
    kind = fields.String()
    topic = fields.String()
    author = fields.String()
    before = GivenId(load_default=None, validate=IDS)


@api.get("/search")
@login_required
@api.arguments(SearchQuerySchema, location="query")
@api.response(200, HitSchema(many=True))
def get_hits(query: Given) -> ResponseReturnValue:
    """The posts, pages, comments and files that have all the words; first those that have them in their title.

    The topic is named by its slug, and the author by their username.
    """
    start = query.pop("before")
    asked = asked_query(query.pop("q"), dict.fromkeys(SEARCH_FILTERS, "") | query)
    found = SearchEntry.find(current_user, asked, start)
    return linked(Page(found.hits, found.next_start, False))


# -- api: activity -----------------------------------------------------------------------------------------------------


class ActivitySchema(ThingSchema):
    at = Moment()
    actor_id = fields.Integer(allow_none=True)
    action = fields.String()
    object_type = fields.String()
    object_id = fields.Integer()
    name = fields.String(allow_none=True)
    detail = fields.String()
    address = fields.String()


@api.get("/activity")
@role_required(Role.ADMIN)
@api.arguments(PlaceSchema, location="query")
@api.response(200, ActivitySchema(many=True))
def get_activity(query: Given) -> ResponseReturnValue:
    """What everyone did, newest first, without the names of what you may not see."""
    return listed(sa.select(Activity), LATEST_FIRST, query)


# -- docs: what there is in the API ------------------------------------------------------------------------------------


def describe_api(app: Flask) -> None:
    """Register the API. Section 10 replaces the error handler that flask-smorest registers for the whole site."""
    rest_api = RestApi(app, spec_kwargs={
        "title": "Corkboard", "version": "v1", "openapi_version": "3.0.3", "info": {"description": API_ABOUT},
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}, "security": [{"token": []}],
    })  # fmt: skip
    rest_api.DEFAULT_RESPONSE_CONTENT_TYPE = "application/json"  # of all that is described from here on
    rest_api.register_blueprint(api)
    app.extensions["corkboard.api"] = rest_api.spec


@docs.get("/openapi.json")
@public
def openapi() -> ResponseReturnValue:
    """The API as an OpenAPI document, for programs."""
    return current_app.extensions["corkboard.api"].to_dict()


@docs.get("/docs", endpoint="show")
@public
def show_docs() -> ResponseReturnValue:
    """The API, to read and to try out."""
    return render_template("docs/show.html", spec=openapi())


# -- feeds: what the programs of one person read, by a token in the address --------------------------------------------

feeds = Blueprint("feeds", __name__)

FEED_POSTS = 30
NOT_TEXT = re.compile("[^\t\n\x20-\x7e\x80-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML does not allow


@feeds.get("/feed.atom")
@public
def atom() -> ResponseReturnValue:
    """The newest posts that a person sees, of all topics or of one."""
    user, topic, news = feed_reader(), None, NEWS
    if slug := request.args.get("topic"):
        topic = db.one_or_404(Topic.visible_to(user).where(Topic.slug == slug))
        news = TOPIC_POSTS.where(Post.current()).params(topic_id=topic.id)
    newest = news.add_columns(Post.html, Post.updated_at).order_by(*NEWEST_FIRST).limit(FEED_POSTS)
    posts = db.session.execute(newest, {"viewer": user.id, "now": g.now, "since": user.new_since}).all()
    return feed_answer(feed_text("feeds/posts.xml", user=user, topic=topic, posts=posts), "application/atom+xml")


@feeds.get("/feed.ics", endpoint="calendar")
@public
def show_calendar() -> ResponseReturnValue:
    """When people are away, and by when the pages that a person sees are due for review."""
    user, day = feed_reader(), site_day(g.now)
    away = db.session.execute(AWAY.limit(None), {"ended": day, "begun": date.max})
    due = REVIEWS.where(Post.review_by.is_not(None)).order_by(Post.id)
    reviews = db.session.execute(due, {"viewer": user.id, "now": g.now, "until": date.max})
    return feed_answer(fold_lines(feed_text("feeds/dates.ics", today=day, away=away, reviews=reviews)), "text/calendar")


def feed_reader() -> User:
    """Return the person whose token is in the address. Aborts with 404 if there is none."""
    token = ApiToken.find(request.args.get("token", "")) or abort(404)
    if first_step(token.user):
        abort(403, NOT_YET)
    g.api_token, g.user_id = token, token.user_id
    return token.user


def own_address() -> str:
    """The address of the site: SITE_URL, or the host of this request, which `is_own_host` has let through."""
    return current_app.config["SITE_URL"] or request.host_url.rstrip("/")


def feed_text(template: str, **context: Any) -> str:
    """Draw a feed, without control characters."""
    return NOT_TEXT.sub("", render_template(template, place=own_address(), **context))


def feed_answer(content: str | bytes, kind: str) -> ResponseReturnValue:
    """A feed, or 304 where the reader has it already."""
    answer = Response(content, content_type=f"{kind}; charset=utf-8")
    answer.add_etag()
    return answer.make_conditional(request)


@feeds.app_template_filter()
def calendar_text(text: str) -> str:
    """A text as a value of a calendar (RFC 5545, 3.3.11)."""
    return re.sub(r"([\\;,])", r"\\\1", text).replace("\n", "\\n")


def fold_lines(text: str) -> bytes:
    """The lines of a calendar in parts of at most 75 octets, the later ones behind a space (RFC 5545, 3.1)."""
    folded = re.sub(rb"(.{71,74})(?![\x80-\xbf])(?=.)", rb"\1\n ", f"{text}\n".encode())
    return folded.replace(b"\n", b"\r\n")


# -- health: is the process alive, and can it serve --------------------------------------------------------------------

health = Blueprint("health", __name__)

DISK_FULL = 10_000_000  # bytes; with fewer of them left, nobody can be served for long


@health.get("/healthz")
@public
def live() -> ResponseReturnValue:
    """Answer 200 while the process lives. This does not ask the database."""
    return jsonify(status="ok")


@health.get("/readyz")
@public
def ready() -> ResponseReturnValue:
    """Answer 200 while the database answers, can be written and is migrated, else 503 with Retry-After."""
    try:
        database.check_ready()
        check_writing()
        is_full = shutil.disk_usage(database.data_folder()).free < DISK_FULL
        reason = "The disk is full." if is_full else ""
    except database.SchemaError as error:
        reason = error.message
    except (SQLAlchemyError, database.DatabaseBusy):
        reason = "The database does not answer."
    if reason:
        return jsonify(status="unready", reason=reason), 503, {"Retry-After": "5"}
    return jsonify(status="ok")


# -- metrics: what this process counts, and what else a program that watches the site reads ----------------------------

REQUESTS = Counter("corkboard_requests", "Requests answered", ["route", "status"])
REQUEST_SECONDS = Histogram("corkboard_request_seconds", "Seconds that requests took", ["route"])
STATEMENTS = Counter("corkboard_database_statements", "Statements that requests sent to the database", ["route"])
DATABASE_SECONDS = Counter("corkboard_database_seconds", "Seconds that these statements took", ["route"])
CONNECTIONS = Gauge("corkboard_database_connections", "Connections to the database that this process uses")
DATABASE_UP = Gauge("corkboard_database_up", "Whether the database answers")
SIGN_INS = Gauge("corkboard_sign_ins", "Browsers that are signed in")
EMAILS = Gauge("corkboard_emails", "Emails that wait or failed", ["state"])
JOBS_AGE = Gauge("corkboard_jobs_age_seconds", "Seconds since a job ended last, 0 while one runs")
JOB_FAILURES = Gauge("corkboard_job_failures", "How often the job failed since it last succeeded", ["job"])
BACKUP_AGE = Gauge("corkboard_backup_age_seconds", "Seconds since the newest backup was made")
Info("corkboard_build", "What this is").info({"version": VERSION})


def count_request(status: int, seconds: float) -> None:
    """Count this request."""
    route, work = route_of_request(), g.database_work
    REQUESTS.labels(route, status).inc()
    REQUEST_SECONDS.labels(route).observe(seconds)
    STATEMENTS.labels(route).inc(work.statements)
    DATABASE_SECONDS.labels(route).inc(work.seconds)


def route_of_request() -> str:
    """Return the pattern of the requested address, "-" where there is none."""
    return str(request.url_rule or "-")


def read_gauges() -> None:
    """Set the gauges to their present values. Raises the database's error if it does not answer."""
    DATABASE_UP.set(0)
    pool: Any = db.engine.pool
    CONNECTIONS.set(pool.checkedout())
    SIGN_INS.set(count_of(SignIn, SignIn.lives()))
    EMAILS.labels("waiting").set(count_of(OutgoingMail, OutgoingMail.due_at.is_not(None)))
    EMAILS.labels("failed").set(count_of(OutgoingMail, OutgoingMail.due_at.is_(None)))
    JOBS_AGE.set(age(JobRun.last_seen()).total_seconds())
    for name, run in JobRun.known().items():
        JOB_FAILURES.labels(name).set(run.failures)
    BACKUP_AGE.set(age(newest_backup()).total_seconds())
    DATABASE_UP.set(1)


@health.get("/metrics", endpoint="metrics")
@public
def show_metrics() -> ResponseReturnValue:
    """Show Prometheus the metrics, if it bears METRICS_TOKEN; if none is set, to programs on this computer."""
    if not may_read_metrics():
        abort(403)
    with contextlib.suppress(DBAPIError, PoolTimeout):
        read_gauges()
    return Response(generate_latest(), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def may_read_metrics() -> bool:
    """Return whether a request bears METRICS_TOKEN; if none is set, whether it comes straight from this computer."""
    token, headers = current_app.config["METRICS_TOKEN"], request.headers
    if token:
        return hmac.compare_digest(headers.get("Authorization", "").encode(), f"Bearer {token}".encode())
    # Behind a proxy on this computer everybody seems to come from here.
    is_passed_on = current_app.config["TRUSTED_PROXY"] or "X-Forwarded-For" in headers or "Forwarded" in headers
    return not is_passed_on and is_loopback(client_address())


def slowest_pages() -> dict[str, float]:
    """Return how many milliseconds each route takes on average."""
    counts, seconds = samples(REQUEST_SECONDS, "_count"), samples(REQUEST_SECONDS, "_sum")
    return {labels[0]: 1000 * seconds[labels] / count for labels, count in counts.items() if count}


def failed_pages() -> dict[str, float]:
    """Return how often the site failed to answer, by route and status."""
    return {" ".join(labels): count for labels, count in samples(REQUESTS, "_total").items() if labels[1] >= "500"}


def samples(metric: Collector, ending: str) -> dict[tuple[str, ...], float]:
    """Return the numbers of a metric whose names have that ending, by the values of their labels."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in metric.collect()
        for sample in family.samples
        if sample.name.endswith(ending)
    }


# ======================================================================================================================
# == 8. Template filters and context ===================================================================================
# ======================================================================================================================


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone by its name, or the site's for an empty name."""
    return ZoneInfo(name or current_site().timezone or current_app.config["TIMEZONE"])


def ago(moment: datetime | None) -> Markup | str:
    """Return a stored time in words ('2 hours ago', 'yesterday', 'Monday') that show the full date as a tooltip."""
    if moment is None:
        return "never"
    return _ago(moment, g.now.replace(second=0, microsecond=0), viewer_zone())


def viewer_zone() -> ZoneInfo:
    """Return the time zone of this request's person."""
    if "zone" not in g:
        viewer = signed_in_user()
        g.zone = viewer.zone if viewer else zone_of("")
    return g.zone


def in_zone(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return a stored time as a clock in a time zone shows it."""
    return moment.replace(tzinfo=UTC).astimezone(zone)


def today() -> date:
    """Return today's date in the person's zone."""
    return local(g.now).date()


def is_away(person: Any) -> bool:
    """Return whether a person is away today, by the date in their own zone."""
    day = day_in(person.timezone)
    return (person.away_from or day) <= day <= person.away_until


def absence(person: Any) -> str:
    """Return 'Away from 3 to 14 August' before an absence, 'Away until 14 August' during it, and '' otherwise."""
    first, last = person.away_from, person.away_until
    if last is None or last < (day := day_in(person.timezone)):
        return ""
    if first is None or first <= day:
        return f"Away until {day_in_words(last)}"
    if first == last:
        return f"Away on {day_in_words(last)}"
    same_month = (first.year, first.month) == (last.year, last.month)
    return f"Away from {first.day if same_month else day_in_words(first)} to {day_in_words(last)}"


def day_in(zone: str) -> date:
    """Return today's date for somebody who chose that time zone."""
    return in_zone(g.now, zone_of(zone)).date()


def in_site_zone(moment: datetime) -> datetime:
    """Return a stored time as the site's clock shows it."""
    return in_zone(moment, zone_of(""))


def site_day(moment: datetime) -> date:
    """Return the day of a stored time in the site's zone."""
    return in_site_zone(moment).date()


def local(moment: datetime) -> datetime:
    """Return a stored time in this person's zone."""
    return in_zone(moment, viewer_zone()).replace(tzinfo=None)


def as_utc(moment: datetime) -> datetime:
    """Return a time that a person typed in their own zone as it is stored."""
    return moment.replace(tzinfo=viewer_zone()).astimezone(UTC).replace(tzinfo=None)


def end_of_day(day: date | None) -> datetime | None:
    """Return the end of a day in this person's zone, as it is stored."""
    return as_utc(datetime.combine(day + timedelta(days=1), datetime.min.time())) if day else None


def last_day(moment: datetime | None) -> date | None:
    """Return the day that ends at a stored time: the inverse of `end_of_day`."""
    return (local(moment) - timedelta(microseconds=1)).date() if moment else None


def moment_in_words(moment: datetime) -> str:
    """Return a time to come in words: 'Thursday 3 December, 12:30'."""
    shown = local(moment)
    return f"{shown:%A} {day_in_words(shown.date())}, {shown:%H:%M}"


@functools.lru_cache(maxsize=2048)
def _ago(moment: datetime, minute: datetime, zone: ZoneInfo) -> Markup:
    """Return the words that `ago` shows. They are the same for a whole minute, so they can be kept."""
    local, now = in_zone(moment, zone), in_zone(minute, zone)
    full = f"{local:%A} {local.day} {local:%B %Y, %H:%M}"
    words = _in_words(minute - moment, (now.date() - local.date()).days, local.date(), now.year)
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
    return f"{day:%A}" if days < 7 else _day(day, this_year)


def _day(day: date, this_year: int) -> str:
    return f"{day.day} {day:%B}" + (f" {day.year}" if day.year != this_year else "")


def day_in_words(day: date) -> str:
    """Return a date in words: '2 December', with the year unless it is this one."""
    return _day(day, today().year)


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a count in words: '1 comment', '3 comments', 'no comments'."""
    return f"{'no' if count == 0 else f'{count:,}'} {one if count == 1 else many or one + 's'}"


def initials(name: str) -> str:
    """Return what an avatar shows: the first letters of the first and the last name."""
    words = name.split()
    letters = [word[0] for word in (words[:1] + words[1:][-1:])]
    return "".join(letters).upper()[:2]


def file_size(count: int) -> str:
    """Return the size of a file in words: '640 bytes', '12 KB', '3.4 MB', as Windows and MAX_UPLOAD_MB count."""
    if count < 1000:
        return plural(count, "byte")
    size, unit = count / 1024, "KB"
    for larger in ("MB", "GB"):
        if size >= 999.5:
            size, unit = size / 1024, larger
    return f"{size:.{1 if size < 9.95 else 0}f} {unit}"


def hue(number: int) -> int:
    """Return which of the avatars' colours belongs to an id."""
    return number % HUES


@functools.cache
def icon(name: str) -> Markup:
    """Return an icon of Bootstrap's font, which screen readers skip."""
    return Markup('<i class="bi bi-{}" aria-hidden="true"></i>').format(name)


# -- Parts of pages that are kept --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2048)
def _draw_part(template: str, values: tuple[tuple[str, Any], ...]) -> Markup:
    return Markup(current_app.jinja_env.get_template(template).render(dict(values)))


def cached_part(template: str, **values: Any) -> Markup:
    """Return a card, a comment or the header. It is drawn once for the same values, because it shows nothing else."""
    draw = _draw_part.__wrapped__ if current_app.debug else _draw_part
    return draw(template, tuple(values.items()))


def page_header(kind: str = "") -> Markup:
    """Return the header for the person who is signed in, with the current place marked.

    A post and its history belong to Home or, by their `kind`, to the handbook.
    """
    named = {"site_name": current_site().name, "logo": current_site().logo}
    if not current_user or first_step(current_user):
        return cached_part("_header.html", **named, id=None)
    person = {name: getattr(current_user, name) for name in ("id", "username", "name", "role", "picture_id")}
    place = kind or request.path.split("/")[1]  # "people" on the page of a person, too
    here = "/" + {"news": "", "topics": "", "page": "handbook"}.get(place, place)
    return cached_part("_header.html", **named, here=here, unread=g.unread, **person)


class Key(NamedTuple):
    """A key, what it does, and the lowest role that can use it."""

    keys: str
    does: str
    role: Role = Role.READER


# The first keys work everywhere but in a text field, the others only in one.
KEYS = (
    Key("/", "Search"),
    Key("j", "Next item or comment"),
    Key("k", "Previous item or comment"),
    Key("n", "Write something new", Role.MEMBER),
    Key("e", "Edit what you're looking at", Role.MEMBER),
    Key("?", "Show these shortcuts"),
    Key("Esc", "Close or cancel"),
)
WRITING_KEYS = (
    Key("Ctrl B", "Bold"),
    Key("Ctrl I", "Italic"),
    Key("Ctrl K", "Link"),
    Key("Enter", "Continue a list; in an empty item, end it"),
    Key("Tab", "In a list, put an item into the one above; Shift and Tab takes it out"),
    Key("Esc Tab", "Leave the text from within a list"),
)


def asset(endpoint: str, filename: str) -> str:
    """Return the address of a static file. A hash of its content lets browsers keep it for a year."""
    holder = current_app.blueprints.get(endpoint.partition(".")[0], current_app)
    digest = static_hash.__wrapped__ if current_app.debug else static_hash
    return url_for(endpoint, filename=filename, v=digest(Path(str(holder.static_folder), filename)))


@functools.cache
def static_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def template_context() -> dict[str, Any]:
    """Return what every template can use."""
    return {"current_user": signed_in_user(), "site": current_site(), "today": today}


def register_template_helpers(app: Flask) -> None:
    """Register filters and functions for the templates, most of them under their own names."""
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    if app.testing or app.debug:
        app.jinja_env.undefined = StrictUndefined  # a misspelt name is an error, not an empty string
    filters = (
        ago, absence, local, last_day, plural, initials, hue, file_size,
        without_files, for_mail, marked, snippet, qr_code, validation_words,
    )  # fmt: skip
    helpers = (
        icon, asset, cached_part, page_header, difference, depth_first, first_step, may_use_password, people_waiting,
    )  # fmt: skip
    app.jinja_env.filters.update({function.__name__: function for function in filters})
    app.jinja_env.filters.update(day=day_in_words, moment=moment_in_words)
    app.jinja_env.globals.update({function.__name__: function for function in helpers})
    app.jinja_env.globals.update(FLASK=FLASK, KEYS=KEYS, REACTIONS=REACTIONS, Role=Role, WRITING_KEYS=WRITING_KEYS)
    app.context_processor(template_context)


# ======================================================================================================================
# == 9. Commands =======================================================================================================
# ======================================================================================================================

# -- What the database says, in words ----------------------------------------------------------------------------------

NO_RIGHT = "Give the account in DATABASE_URL every right on its database: GRANT ALL ON name.* TO account"
UNREACHED = "Is the server running, and are the host and the port in DATABASE_URL right?"
NOT_OURS = "Let the account that runs Corkboard read and write the file and its folder (who owns them?)."
OTHER_TABLES = f"Its tables are not those of this version. Run: {FLASK} init-db (or restore a backup)"
NO_FILE = "The file is damaged, or not a database at all. Restore a backup, or correct DATABASE_URL."
ROOM = "Make room on the disk."
# What to change after an error of each kind.
REMEDIES = {
    1021: ROOM, 1114: ROOM, "SQLITE_FULL": ROOM,
    1044: NO_RIGHT, 1142: NO_RIGHT,
    1045: "Correct the name or the password in DATABASE_URL.",
    1049: "Create it, or correct the name of the database in DATABASE_URL.",
    1146: OTHER_TABLES, "SQLITE_ERROR": OTHER_TABLES,
    "SQLITE_BUSY": "Another program keeps it locked. Stop that one, and try again.",
    1290: "The server is set to read only. DATABASE_URL has to name one that can be written.",
    2002: UNREACHED, 2003: UNREACHED, 2013: UNREACHED,
    "SQLITE_CANTOPEN": NOT_OURS, "SQLITE_READONLY": NOT_OURS,
    "SQLITE_CORRUPT": NO_FILE, "SQLITE_NOTADB": NO_FILE,
}  # fmt: skip


def trouble(error: BaseException) -> tuple[str, str]:
    """Return in one line what the database, or the system, says of an error, and what to change."""
    cause = getattr(error, "orig", None) or error
    said = cause if isinstance(cause, OSError) else cause.args[-1]
    return " ".join(str(said).split()), REMEDIES.get(database.error_kind(cause), "For details, see the log.")


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn an error of the database, or of a file, into a `ClickException` of one line. The log has its traceback."""
    try:
        yield
    except BrokenPipeError:  # whoever reads what a command prints needs no more of it
        raise
    except (SQLAlchemyError, database.DatabaseBusy, OSError) as error:
        log.error("refused", exc_info=error)
        raise click.ClickException(". ".join(trouble(error))) from error


# -- The commands ------------------------------------------------------------------------------------------------------


class PlainCommand(click.Command):
    """A command that says in one line what the database or a file refuses, and leaves a complete database file."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with plain_errors():
                return super().invoke(ctx)
        finally:
            if has_app_context():
                database.checkpoint()


class PlainGroup(AppGroup):
    """A group whose commands are plain ones, each run in an application context."""

    command_class = PlainCommand


commands = PlainGroup()


def setup_file(app: Flask) -> Path:
    return app.config["DATA_DIR"] / "setup-link.txt"


def remove_setup_file(app: Flask) -> None:
    with contextlib.suppress(OSError):
        setup_file(app).unlink(missing_ok=True)


def announce_setup(app: Flask, terminal: bool) -> str | None:
    """Return what to print about setting up: the link on a terminal, else the file that has it. None once people exist.

    Many people can read the logs that a service prints to, so there the link goes to a file for its owner only.
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


@commands.command("setup-link")
def setup_link_command() -> None:
    """Make a new set-up link. The previous one stops working."""
    database.check_ready()
    with errors_for_command():
        token = Setting.renew_setup_token()
    remove_setup_file(current_app)
    click.echo(f"{site_address(current_app.config)}/setup?token={token}")


@contextlib.contextmanager
def errors_for_command() -> Iterator[None]:
    """Turn the `ValidationError` of a model's action into a `ClickException` with the same message."""
    try:
        yield
    except ValidationError as error:
        raise click.ClickException(error.message) from None


@commands.command("init-db")
def init_db_command() -> None:
    """Create the tables, or bring them up to date. It can be run again."""
    database.check_site()
    prepare_database()


def prepare_database() -> None:
    database.upgrade_schema()
    database.give_site_id()
    rerender_texts()
    click.echo("The database is ready.")


@commands.command("upgrade")
def upgrade_command() -> None:
    """Bring the database up to this version, after a backup. If that fails, everything is put back.

    Stop the site first. An empty database gets its tables.
    """
    database.check_site()
    if database.is_current():
        rerender_texts()
        click.echo("The database is up to date.")
    else:
        with database.lock_data_folder(alone=True):
            upgrade_site()
    for finding in site_findings():
        if not finding.ok and finding.name != "jobs":  # which no stopped site runs
            click.echo(finding)


def upgrade_site() -> None:
    """Upgrade the database of a site that is stopped, and say where the backup of it is."""
    if database.is_empty():
        prepare_database()
        return
    path = new_backup_path("-before-upgrade")
    database.upgrade_or_put_back(path, rerender_texts)
    Backup.record(None, "backup.made", path.name)
    database.give_site_id()
    click.echo(f"The database is upgraded. As it was before, it is in {path}.")


@commands.command("stop")
def stop_command() -> None:
    """Stop the site that wsgi.py serves from this data folder, and wait until it has stopped."""
    database.stop_served(current_app)
    click.echo("Corkboard is stopped.")


@commands.command("create-admin")
@click.argument("username")
@click.option("--email", default="", help="Email address.")
@click.option("--name", default="", help="Full name; the username if you leave it out.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--reset", is_flag=True, help="Make an existing person an active administrator with a new password.")
def create_admin_command(username: str, email: str, name: str, password_stdin: bool, reset: bool) -> None:
    """Add an administrator, or rescue one with --reset."""
    database.check_ready()
    existing = User.by_username(tidy(username))
    if existing is None and reset:
        raise click.ClickException(f"There is nobody called {username}. Leave out --reset to add them.")
    if existing is not None and not reset:
        raise click.ClickException(f"{username} already exists. To make them an administrator again, add --reset.")
    if existing is None:
        add_admin(username, name or username, email, password_stdin)
        return
    profile = checked(PersonForm, name=name or existing.name, email=email or existing.email or "")
    hashed = hash_password(ask_password(password_stdin))
    with errors_for_command():
        User.rescue(existing.id, hashed, **profile)
    click.echo(f"{existing.username} is an administrator with the new password, and signed out everywhere.")


def add_admin(username: str, name: str, email: str, password_stdin: bool) -> None:
    """Add an administrator, with the checks of the form for a new person. Raises `ClickException` for a bad value."""
    values = checked(NewPersonForm, username=username, name=name, email=email, role=str(int(Role.ADMIN)))
    hashed = hash_password(ask_password(password_stdin))
    with errors_for_command():
        user = User.create(None, password_hash=hashed, **values)
    Topic.ensure_first(user)
    remove_setup_file(current_app)
    click.echo(f"{user.username} can sign in at {site_address(current_app.config)}/login")


def checked(form_class: type[SiteForm], **typed: str) -> dict[str, Any]:
    """Return what a form makes of these values. Raises `ClickException` for a bad one."""
    with current_app.test_request_context(method="POST", data=typed):
        form = form_class()
        if not form.validate():
            field = next(field for field in form if field.errors)
            raise click.ClickException(f"{field.label.text}: {field.errors[0]}")
        return form_values(form, *typed)


def ask_password(from_stdin: bool) -> str:
    """Return a new password from standard input, or ask for it twice. Raises `ClickException` for a weak one."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt="Confirm password")
    else:
        raise click.ClickException("There is no terminal to ask for a password. Add --password-stdin and pipe it in.")
    if reason := weak_password(password):
        raise click.ClickException(reason)
    return password


@commands.command("check")
def check_command() -> None:
    """Check this installation: print each finding, and what to do about it."""
    findings = [*current_app.config["FINDINGS"], Finding(True, "reach", reach()[1]), *site_findings()]
    for finding in findings:
        click.echo(finding)
    if not all(finding.ok for finding in findings):
        raise SystemExit(1)


def site_time(moment: datetime) -> str:
    """Return a stored time in words, in the site's zone."""
    return f"{in_site_zone(moment):%d %B %Y, %H:%M}"


@commands.command("db-reindex")
def reindex_command() -> None:
    """Rebuild the search index. People can go on working."""
    database.check_ready()
    rebuild_search_index()
    click.echo("The search index is up to date.")


def rebuild_search_index() -> None:
    """Write the search entries of everything again, oldest first, with a progress bar."""
    with database.progress("Indexing", SearchEntry.all_things()) as parts:
        for part in parts:
            SearchEntry.rewrite(part)


@commands.command("rerender")
def rerender_command() -> None:
    """Render again the texts that an older version of Corkboard rendered."""
    database.check_ready()
    count = rerender_texts()
    click.echo(f"{plural(count, 'text')} rendered." if count else "Nothing to render.")


def rerender_texts() -> int:
    """Render outdated texts again, with a progress bar. Returns how many there were."""
    count = count_outdated_texts()
    if count:
        with database.progress("Rendering texts", length=count) as bar:
            for model in (Post, Comment):
                while some := rerender_some(model):
                    bar.update(some)
    return count


@commands.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
def backup_command(file: Path | None) -> None:
    """Write everything the site keeps into FILE, or into a new file in the folder of the backups.

    People can go on working.
    """
    database.check_ready()
    Backup.make(None, path := file or new_backup_path())
    click.echo(f"Everything is in {path} ({file_size(path.stat().st_size)}). Keep a copy of it on another computer.")


BACKUP_FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@commands.command("verify-backup")
@BACKUP_FILE
def verify_backup_command(file: Path) -> None:
    """Check whether FILE can be restored; exits with 1 if it can't. Nothing on the site changes."""
    database.check_ready()
    Backup.verify(file)
    click.echo(f"{file} can be restored: everything in it is there.")


@commands.command("restore")
@BACKUP_FILE
@click.option("--replace", is_flag=True, help="Replace the people and everything else that is there.")
def restore_command(file: Path, replace: bool) -> None:
    """Restore the site in FILE to the database of DATABASE_URL and the data folder.

    Everybody has to sign in again. With --replace, a backup of what it replaces is made first.
    """
    with open(file, "rb") as content:
        Backup.restore(content, file.name, replace)
    remove_setup_file(current_app)
    before = f" What it replaced is in {backups_folder()}." if replace else ""
    click.echo(f"Everything is restored. Everyone signs in again.{before}")


# -- seed-demo: a bakery and its shops ---------------------------------------------------------------------------------

DEMO = Path(__file__).resolve().parent / "templates" / "demo"


@commands.command("seed-demo")
@click.option("--posts", "wanted", default=0, metavar="N", help="Make N posts, to measure with.")
@click.option("--force", is_flag=True, help="Add it to a site that has people. Nobody should be using it at the time.")
def seed_demo_command(wanted: int, force: bool) -> None:
    """Fill the site with a small company: 12 people, 5 topics, 60 posts, a handbook and comments."""
    database.check_ready()
    if User.exists() and not force:
        raise click.ClickException("There are people here already. To add the demo to them, use --force.")
    demo = Demo()
    passwords = [random_words(4) for _ in demo.company["people"]]
    with errors_for_command():
        demo.backdate(3650, demo.set_up, [hash_password(password) for password in passwords])
    with click.progressbar(demo.events(), label="Writing posts") as events:
        for post, event in events:
            demo.backdate(event["days"], demo.carry_out, post, event)
    demo.backdate(7, demo.read_notifications)
    demo.repeat(wanted)
    remove_setup_file(current_app)
    click.echo(f"Sign in at {site_address(current_app.config)}/login. The passwords are shown this once:")
    for user, password in zip(demo.people.values(), passwords, strict=True):
        click.echo(f"  {user.username:<12} {user.role.name.lower():<8} {password}")


class Demo:
    """The company in `templates/demo/`. Its people call the models' actions, as pages do."""

    def __init__(self) -> None:
        self.company = tomllib.loads((DEMO / "company.toml").read_text(encoding="utf-8"))
        # Counted back from two in the afternoon, the ages in the file fall into working hours.
        now = utcnow()
        self.now = now.replace(hour=14, minute=0) - timedelta(days=now.hour < 14)
        self.people: dict[str, User] = {}
        self.topics: dict[str, int] = {}
        self.ids: dict[str, int] = {}  # of posts, by their titles
        columns = (column for table in db.metadata.sorted_tables for column in table.columns)
        self.times = [column for column in columns if column.type is Timestamp]

    def ago(self, days: float) -> datetime:
        return self.now - timedelta(days=days)

    def events(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Return what happens to posts, as pairs of post and event, in the order of time."""
        found = [(post, event) for post in self.company["posts"] for event in (post, *post.get("events", ()))]
        return sorted(found, key=lambda pair: -pair[1]["days"])

    @transactional
    def backdate(self, days: float, action: Callable[..., None], *args: Any) -> None:
        """Carry out an action, and set every time that it wrote back by so many days."""
        begun = utcnow()
        action(*args)
        db.session.flush()
        for column in self.times:
            written = sa.update(column.table).where(column.between(begun, utcnow()))
            db.session.execute(written.values({column: self.ago(days)}))
        db.session.expire_all()

    def set_up(self, hashes: list[str]) -> None:
        """Add the people, with hashes of their passwords, and the topics."""
        is_new_site = not User.exists()
        for person, password_hash in zip(self.company["people"], hashes, strict=True):
            values = person | {"role": Role[person["role"].upper()], "password_hash": password_hash}
            self.people[person["username"]] = User.create(None, **values)
        for username, colleague in self.company["stand_ins"].items():
            User.edit_profile(self.people[username], stand_in_id=self.people[colleague].id)
        for username, absence in self.company["absences"].items():
            days = {name: self.ago(-days).date() for name, days in absence.items()}
            User.edit_profile(self.people[username], **days)
        for username, picture in self.company["pictures"].items():
            Attachment.set_avatar(self.people[username], stored_demo_file(picture, store_avatar))
        self.owner = next(iter(self.people.values()))
        for name, usernames in self.company["groups"].items():
            member_ids = [self.people[username].id for username in usernames]
            Group.save(self.owner, None, name=name, member_ids=member_ids)
        for topic in self.company["topics"]:
            self.topics[topic["name"]] = self.add_topic(**topic)
        if is_new_site:
            Setting.change(self.owner, name=self.company["name"])

    def add_topic(self, name: str, members: Sequence[str] = (), **values: Any) -> int:
        """Return the id of the open topic with that name, or of a new one."""
        same = Topic.visible_to(self.owner).where(Topic.name == name, ~Topic.private)
        topic = db.session.scalar(same) or Topic.create(self.owner, form_id=secrets.token_hex(16), name=name, **values)
        if members:
            Topic.add_members(self.owner, topic.id, [self.people[username].id for username in members])
        return topic.id

    def carry_out(self, post: dict[str, Any], event: dict[str, Any]) -> None:
        """Carry out what an event says about a post."""
        actor, post_id = self.people[event["by"]], post.get("id", 0)
        match event["do"]:
            case "write":
                post["id"] = self.ids[post["title"]] = self.write(actor, **post)
                self.react(event, post_id=post["id"])
            case "comment":
                comment = Comment.create(actor, post_id, body=event["body"], form_id=secrets.token_hex(16))
                self.react(event, comment_id=comment.id)
            case "edit":
                before = db.session.get_one(Post, post_id)
                data = PostData.of(before, body=f"{before.body}\n\n{event['body']}")
                Post.save(actor, data, how="publish", post_id=post_id, version=before.version)
            case "pin":
                Post.pin(actor, post_id, True)
            case "require":
                Acknowledgement.require(actor, post_id, roles=Role, due=self.ago(-event["due"]).date())
            case "acknowledge":
                Acknowledgement.acknowledge(actor, post_id, 0)
            case "verify":
                PageReview.verify(actor, post_id, self.ago(event["days"]).date())
            case "expire":
                db.session.get_one(Post, post_id).expires_at = utcnow()
            case "delete":
                Post.delete(actor, post_id)

    def write(
        self, author: User, *, kind: str, topic: str, title: str, body: str, how: str = "publish", owner: str = "",
        review_every: int | None = None, under: str = "", appears: float | None = None, files: Sequence[str] = (),
        **_more: Any,
    ) -> int:  # fmt: skip
        """Publish a post, schedule it, or leave it as a draft. Returns its id."""
        uploads = [Attachment.create(author, stored_demo_file(name, store_upload)) for name in files]
        for file in uploads:
            body = body.replace(f"(/files/{file.name})", f"({file.url})")
        data = PostData(
            kind,
            self.topics[topic],
            title,
            body,
            file_ids=[file.id for file in uploads],
            owner_id=self.people[owner].id if owner else None,
            review_every=review_every,
            parent_id=self.ids.get(under),
            scheduled_for=self.ago(-appears) if appears else None,
        )
        return Post.save(author, data, how=how, form_id=secrets.token_hex(16)).id

    def react(self, event: dict[str, Any], **thing: int) -> None:
        """Add the reactions that an event lists by kind."""
        for kind, names in event.get("reactions", {}).items():
            for username in names.split():
                Reaction.change(self.people[username], kind, True, **thing)

    def read_notifications(self) -> None:
        """Mark the notifications that are more than a week old as read."""
        for user in self.people.values():
            Notification.read(user.id, utcnow(), Notification.created_at < self.ago(7))

    def repeat(self, wanted: int) -> None:
        """Write more news with the same texts, each older than the last, until there are that many."""
        news = [post for post in self.company["posts"] if post["kind"] == "news"]
        more = range(wanted - len(news))
        texts = [post["id"] for post in news if post["topic"] != "Management" and "how" not in post]
        with click.progressbar(more[::REPEATED_AT_ONCE], label="Writing more") as starts:
            for start in starts:
                self.write_again(texts, more[start : start + REPEATED_AT_ONCE])
        if more:  # the new posts are the oldest, and the index wants those first
            rebuild_search_index()

    @transactional
    def write_again(self, texts: Sequence[int], numbers: Sequence[int]) -> None:
        """Copy the posts with these ids in turn, once for each number."""
        columns = sa.select(*(getattr(Post, name) for name in REPEATED)).where(Post.id.in_(texts))
        same = [row._asdict() for row in db.session.execute(columns)]
        posts = []
        for number in numbers:
            when = self.ago(250 + number / 200)
            own = {"form_id": secrets.token_hex(16), "revision": 0, "published_at": when, "updated_at": when}
            posts.append(same[number % len(same)] | own)
        db.session.execute(sa.insert(Post), posts)
        for post in db.session.scalars(sa.select(Post).where(Post.published_at.is_not(None), Post.revision == 0)):
            post._add_revision()


REPEATED = ["kind", "topic_id", "author_id", "editor_id", "title", "title_key", "excerpt", "renderer", "body", "html"]
REPEATED_AT_ONCE = 2000


def stored_demo_file(name: str, store: Callable[[FileStorage], StoredFile]) -> StoredFile:
    with open(DEMO / "files" / name, "rb") as content:
        return store(FileStorage(content, filename=name))


# -- email: its text ---------------------------------------------------------------------------------------------------

# Headers are not wrapped, because some mail programs don't put the link in List-Unsubscribe together again.
MAIL_POLICY = policy.SMTP.clone(max_line_length=998, cte_type="7bit")
_ROOTED = re.compile(r'( (?:href|src)="|\]\()/(?!/)')


def unsubscribe_signer() -> URLSafeSerializer:
    """Return the serializer that signs the person and the kind in the link that stops emails."""
    keys = [*current_app.config["SECRET_KEY_FALLBACKS"], current_app.config["SECRET_KEY"]]
    return URLSafeSerializer(keys, salt="unsubscribe")


def write_mail(mail: OutgoingMail, told: Sequence[Notification]) -> EmailMessage:
    """Return an email about these notifications. Raises as `compose` does."""
    domain, base = sender_domain(), site_address(current_app.config)
    g.now, g.zone = utcnow(), mail.user.zone
    if mail.kind in ACCOUNT_MAILS:
        link = f"/reset/{ResetLink.create(mail.user_id)}" if mail.kind == "reset" else ""
        return compose(mail.user, "mail/account.html", {}, kind=mail.kind, about=MAIL_KINDS[mail.kind], link=link)
    stop = f"{base}/account/unsubscribe/{unsubscribe_signer().dumps([mail.user_id, mail.kind])}"
    headers = {
        "Message-ID": f"<mail-{mail.id}@{domain}>",
        "List-Unsubscribe": f"<{stop}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    if mail.kind not in MAIL_WAYS:  # mail programs group the emails about a post, as answers to one that was never sent
        headers["In-Reply-To"] = headers["References"] = f"<post-{told[0].post_id}@{domain}>"
    template = "mail/summary.html" if mail.kind in MAIL_WAYS else "mail/notification.html"
    return compose(mail.user, template, headers, told=told, about=MAIL_KINDS[mail.kind], stop=stop)


def compose(user: User | Invitation, template: str, headers: Mapping[str, str], **context: Any) -> EmailMessage:
    """Return an email. The first line of the plain text is the subject.

    Raises `ValueError` or `MessageError` if the person's address isn't valid.
    """
    draw = current_app.jinja_env.get_template
    context |= {"user": user, "site": Setting.read(), "base": site_address(current_app.config)}
    subject, _, text = draw(template.replace(".html", ".txt")).render(context).partition("\n")
    message = EmailMessage(policy=MAIL_POLICY)
    for header, value in {
        "Subject": header_text(subject),
        "From": current_app.config["MAIL_FROM"],
        "To": Address(header_text(user.name) if isinstance(user, User) else "", addr_spec=user.email or ""),
        "Date": formatdate(),
        "Auto-Submitted": "auto-generated",  # so that out-of-office replies aren't sent to it
        **headers,
    }.items():
        message[header] = value
    message.set_content(text.lstrip())
    message.add_alternative(draw(template).render(context), subtype="html")
    return message


def header_text(text: str) -> str:
    """Return a text for a header, without what the email package would decode: a line end could be in that."""
    return tidy(text).replace("=?", "= ?")


def sender_domain() -> str:
    return parseaddr(current_app.config["MAIL_FROM"])[1].rpartition("@")[2]


def for_mail(text: str) -> str:
    """Return the HTML or Markdown of a text with complete links, and without pictures: emails fetch nothing."""
    return _ROOTED.sub(rf"\1{site_address(current_app.config)}/", without_pictures(text))


# -- email: the mail server --------------------------------------------------------------------------------------------

TLS_PORT = 465  # on this port the connection is encrypted from the beginning, on others by STARTTLS
MAIL_SECONDS = 20  # for each answer of the server
MAILS_AT_ONCE = 20  # other jobs wait as long, and the next run is soon
MAIL_ERRORS = (OSError, ValueError, MessageError)  # smtplib's exceptions are OSErrors
# What went wrong, in words for administrators. The first exception that matches counts.
MAIL_TROUBLE: tuple[tuple[type[Exception], str], ...] = (
    (smtplib.SMTPAuthenticationError, "{MAIL_SERVER} refused MAIL_USERNAME and MAIL_PASSWORD."),
    (smtplib.SMTPException, "{MAIL_SERVER} didn't accept an email from {MAIL_FROM}."),
    (ssl.SSLError, "The encryption of {MAIL_SERVER} isn't trusted. Check MAIL_PORT and MAIL_CA_FILE."),
    (OSError, "{MAIL_SERVER} doesn't answer on port {MAIL_PORT}. Check MAIL_SERVER and MAIL_PORT."),
    (Exception, "This isn't an address that email can be sent to."),
)


def mail_trouble(error: Any) -> str:
    """Return in plain words why an email was not sent, with what the server answered."""
    words = next(words for kind, words in MAIL_TROUBLE if isinstance(error, kind)).format(**current_app.config)
    refused = [*getattr(error, "recipients", {}).values()]  # there is one recipient
    said = (
        part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in [*refused, error.args][0]
    )
    return tidy(f"{words} ({' '.join(said)})")


@contextlib.contextmanager
def mail_server() -> Iterator[smtplib.SMTP]:
    """Connect to the mail server, and sign in. Raises `OSError`."""
    config = current_app.config
    use_tls, context = config["MAIL_USE_TLS"], ssl.create_default_context(cafile=config["MAIL_CA_FILE"] or None)
    connect: Any = smtplib.SMTP
    if use_tls and config["MAIL_PORT"] == TLS_PORT:
        connect, use_tls = functools.partial(smtplib.SMTP_SSL, context=context), False
    # Without the third one, smtplib would look up the name of this computer, which can take long.
    with connect(config["MAIL_SERVER"], config["MAIL_PORT"], sender_domain(), timeout=MAIL_SECONDS) as server:
        if use_tls:
            server.starttls(context=context)
        if config["MAIL_USERNAME"]:
            server.login(config["MAIL_USERNAME"], config["MAIL_PASSWORD"])
        yield server


def send_mail() -> int:
    """Send some of the emails that are due, up to the first that is not taken. Return how many were sent."""
    sent, which = 0, OutgoingMail.due_at <= utcnow()
    if not (mail_is_on() and db.session.scalar(sa.select(OutgoingMail.id).where(which).limit(1))):
        return sent
    try:
        with mail_server() as server:
            while sent < MAILS_AT_ONCE and (claimed := OutgoingMail.claim()):
                mail, told = claimed
                which = OutgoingMail.id == mail.id
                server.send_message(write_mail(mail, told))
                OutgoingMail.sent(mail.id)
                sent += 1
    except MAIL_ERRORS as error:
        OutgoingMail.not_sent(mail_trouble(error), which)
    return sent


def send_test(user: User) -> None:
    """Send an administrator a test email. Raises as `send_at_once` does."""
    send_at_once(user, "mail/test.html")


def send_at_once(user: User | Invitation, template: str, **context: Any) -> None:
    """Send an email while somebody waits for it. Raises `ValidationError` with what went wrong, in plain words."""
    try:
        with mail_server() as server:
            server.send_message(compose(user, template, {}, **context))
    except MAIL_ERRORS as error:
        raise ValidationError("mail", mail_trouble(error)) from error


# -- jobs: what the site does automatically ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """Something that the site does at intervals. `run` returns how many things it dealt with."""

    name: str
    every: timedelta
    about: str
    run: Callable[[], int]
    thing: str
    done: str
    things: str | None = None
    at: int | None = None  # the hour, by the site's clock, at which it is due; else whenever `every` is over

    def next_in(self) -> timedelta:
        """How long from now on until it is due again."""
        now = in_site_zone(utcnow())
        if self.at is None:
            return self.every
        return (now.replace(hour=self.at, minute=0, second=0, microsecond=0) - now) % self.every or self.every


def empty_bin() -> int:
    days = int(Setting.read().bin_days)
    return Bin.empty(None, utcnow() - timedelta(days=days)) if days else 0


def prune_activity() -> int:
    days = int(Setting.read().activity_days)
    return Activity.prune(utcnow() - timedelta(days=days)) if days else 0


def notify_overdue_reviews() -> int:
    return PageReview.notify_overdue(site_day(utcnow()))


def clean_up() -> int:
    """Delete what is of no more use. Returns how many things."""
    return (
        Attachment.prune()
        + empty_trash()
        + SignIn.forget_ended()
        + delete_old_notifications()
        + delete_old_read_marks()
    )


def delete_old_notifications() -> int:
    year_ago, read_before = utcnow() - NEW_FOR, utcnow() - TOLD_FOR
    old = sa.or_(Notification.created_at < year_ago, Notification.read_at < read_before)
    return delete_old(Notification, old) + delete_old(OutgoingMail, OutgoingMail.created_at < utcnow() - MAILED_FOR)


def delete_old_read_marks() -> int:
    return delete_old(ReadMark, ReadMark.at < utcnow() - NEW_FOR)


def delete_old(model: Any, condition: sa.ColumnElement[bool]) -> int:
    """Delete old rows, one person's at a time, so that no lock is held for long. Returns how many there were."""
    people = db.session.scalars(sa.select(User.id)).all()
    return sum(delete_old_of(user_id, model, condition) for user_id in people)


@transactional
def delete_old_of(user_id: int, model: Any, condition: sa.ColumnElement[bool]) -> int:
    return db.session.connection().execute(sa.delete(model).where(model.user_id == user_id, condition)).rowcount


def back_up() -> int:
    if not User.exists():
        return 0
    Backup.make(None, new_backup_path())
    Backup.prune()
    return 1


def verify_newest_backup() -> int:
    newest = Backup.all()[:1]
    for backup in newest:
        Backup.verify(backups_folder() / backup.name)
    return len(newest)


HOUR = timedelta(hours=1)
JOBS = (
    Job("publish", HOUR / 240, "Publishes scheduled posts.", Post.publish_due, "post", "published"),
    Job("mail", HOUR / 240, "Sends email.", send_mail, "email", "sent"),
    Job("daily-mail", 24 * HOUR, "Prepares the daily summaries.",
        functools.partial(OutgoingMail.queue, "daily"), "email", "prepared", at=7),
    Job("weekly-mail", 7 * 24 * HOUR, "Prepares the weekly summaries.",
        functools.partial(OutgoingMail.queue, "weekly"), "email", "prepared", at=7),
    Job("reviews", HOUR, "Tells owners which pages are overdue for review.", notify_overdue_reviews, "page", "overdue"),
    Job("empty-bin", 6 * HOUR, "Deletes old items from the recycle bin.", empty_bin, "thing", "deleted permanently"),
    Job("clean-up", 24 * HOUR, "Deletes unused files, which wait in the trash for 30 days, and old records.", clean_up,
        "thing", "deleted"),
    Job("activity", 24 * HOUR, "Deletes old entries of the activity.", prune_activity, "entry", "deleted", "entries"),
    Job("backup", 24 * HOUR, "Backs up everything, and deletes the oldest backups.", back_up,
        "backup", "made", at=2),
    Job("verify-backup", 7 * 24 * HOUR, "Checks that the newest backup can be restored.", verify_newest_backup,
        "backup", "verified", at=4),
)  # fmt: skip
JOB_SECONDS = 10  # how often to look for what is due


def run_job(job: Job, early: bool = False, actor: User | None = None) -> str | None:
    """Run a job if it is due (or `early`) and no other process runs it. Returns its result in words, or None."""
    lease = JobRun.claim(job.name, early, actor)
    if lease is None:
        return None
    failed = False
    try:
        count = job.run()
        result = f"{plural(count, job.thing, job.things)} {job.done}." if count else "Nothing to do."
    except click.ClickException as error:
        log.error("the job %s was refused: %s", job.name, error.message)
        result, failed = error.message, True
    except Exception as error:
        log.exception("the job %s failed, and will be tried again", job.name)
        result, failed = f"Failed: {type(error).__name__}. For details, see the log.", True
    db.session.rollback()
    JobRun.finish(job.name, lease, job.next_in(), result, failed)
    return result


def run_due_jobs() -> list[str]:
    """Run the due jobs, one after the other. Returns the names of those that ran."""
    runs = JobRun.known()
    due = [job for job in JOBS if job.name not in runs or runs[job.name].due_at <= utcnow()]
    db.session.rollback()
    return [job.name for job in due if run_job(job) is not None]


def run_jobs(app: Flask, stopping: threading.Event) -> None:
    """Run jobs as they become due, until `stopping` is set."""
    while not stopping.wait(JOB_SECONDS):
        try:
            with app.app_context():
                run_due_jobs()
        except Exception:
            log.exception("the jobs could not be run; the next try is in %s seconds", JOB_SECONDS)


@commands.group("jobs", cls=PlainGroup)
def jobs_group() -> None:
    """List what the site does automatically, or do it now."""


@jobs_group.command("list")
def list_jobs_command() -> None:
    """Show each job: what it does, when it last ran, its result, and when it is due."""
    runs = JobRun.known()
    for job in JOBS:
        click.echo(f"{job.name}: {job.about}")
        if run := runs.get(job.name):
            click.echo(f"    last run {site_time(run.started_at)}{run.took}: {run.result}")
            click.echo(f"    due {site_time(run.due_at)}")
        else:
            click.echo("    has not run yet; due as soon as the site runs")


@jobs_group.command("run")
@click.argument("name", type=click.Choice([job.name for job in JOBS]), required=False)
@click.option("--due", is_flag=True, help="Run what is due once, and stop.")
def run_jobs_command(name: str | None, due: bool) -> None:
    """Run the job NAME now; without it, run jobs as they become due until stopped.

    Where another server than wsgi.py serves the site, let the system keep `jobs run` running.
    """
    if name and due:
        raise click.UsageError("Name a job or say --due, not both.")
    database.check_ready()
    if name:
        run_job_now(next(job for job in JOBS if job.name == name))
    elif due:
        click.echo(f"Ran: {', '.join(run_due_jobs()) or 'nothing, because nothing is due'}.")
    else:
        click.echo("Jobs run as they become due. To stop, press Ctrl+C.")
        run_jobs(current_app, stop_event())


def run_job_now(job: Job) -> None:
    result = run_job(job, early=True)
    if result is None:
        raise click.ClickException(f"{job.name} is already running, in this site or another process.")
    click.echo(result)
    if JobRun.known()[job.name].failures:
        raise SystemExit(1)


def stop_event() -> threading.Event:
    """Return an event that is set when the process is asked to stop."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stopping.set())
    return stopping


# ======================================================================================================================
# == 10. Error handlers ================================================================================================
# ======================================================================================================================

# The title and the text of a page, by status. They reveal nothing about the cause.
ERROR_WORDS = {
    400: ("That didn't work", "Your browser sent something this page doesn't understand. Go back and try again."),
    401: ("Please sign in", "You need to be signed in for this."),
    403: ("No access", "You don't have permission to do this. If you think you should, ask an administrator."),
    404: ("Page not found", "It doesn't exist, or you don't have access. It may have been moved or deleted."),
    405: ("This address doesn't accept that", "Go back and use the button on the page."),
    409: ("Changed in the meantime", "Someone else changed this at the same time. Go back, reload and try again."),
    412: ("Changed in the meantime", "It has changed since the version that If-Match names. Read it again."),
    413: ("Too large", "The file is larger than this site accepts."),
    415: ("Not accepted", "This site doesn't accept that kind of content."),
    422: ("Please check", "Something you sent isn't right. Go back and correct it."),
    428: ("If-Match is missing", "Send the ETag of the version that you change, as If-Match."),
    429: ("Too many attempts", "Wait a moment and try again."),
    500: ("Something went wrong", "It's our fault, not yours. Try again, or tell an administrator."),
    503: ("Back in a moment", "The site can't answer right now. Wait a moment and reload this page."),
    507: ("No room", "The server's disk is full. Tell an administrator."),
}
SIGNED_OUT = ("You've been signed out", "Nothing was saved. Sign in again, then send it once more.")
OPEN_TOO_LONG = ("This page was open too long", "Nothing was saved. Go back, reload the page and try again.")
OWN_WORDS = {403, 413, 422, 429, 503}  # statuses for which our views give `abort` a text of their own
BARE = {500, 503}  # pages that are drawn without the database or the session
# What people write in forms, and what an error page calls it: no password, code or token is among them.
SENT_FIELDS = {
    "title": "Title", "body": "Text", "scheduled_for": "Publish on", "expires_at": "Remove from Home after",
    "name": "Name", "description": "Description", "welcome": "Welcome message", "announcement": "Announcement",
    "email": "Email address", "text": "List of people",
    "department": "Department", "phone": "Phone", "location": "Location", "away_from": "Away from",
    "away_until": "Away until",
}  # fmt: skip


def register_error_handlers(app: Flask) -> None:
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(NotVisible, lambda _error: error_page(404))
    app.register_error_handler(Forbidden, lambda _error: error_page(403))
    app.register_error_handler(EditConflict, lambda _error: error_page(409))
    for refused in (ValidationError, BackupError):
        app.register_error_handler(refused, answer_refused)
    app.register_error_handler(CSRFError, answer_lost_token)
    for unavailable in (DBAPIError, PoolTimeout, database.DatabaseBusy):
        app.register_error_handler(unavailable, answer_database_error)
    app.register_error_handler(Exception, answer_crash)


def answer_refused(error: ValidationError | BackupError) -> ResponseReturnValue:
    """Answer with what the rule of an action says, for programs under the name of the field."""
    name = API_NAMES.get(error.field, error.field)
    return error_page(507 if isinstance(error, NoRoom) else 422, text=error.message, errors={name: [error.message]})


API_NAMES = {"topic": "topic_id", "owner": "owner_id"}  # of what forms call otherwise


def answer_http_error(error: HTTPException) -> ResponseReturnValue:
    """Answer a refusal of the framework's or of a view's, for programs with what a schema says of each field."""
    if error.response is not None:
        return error.response
    code = error.code or 500
    is_ours = code in OWN_WORDS and error.description != type(error).description
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    said = getattr(error, "data", {}).get("messages", {})  # what a schema says of the body, the query or the files
    errors = next((told for told in said.values() if isinstance(told, dict)), said)
    return error_page(code, text=error.description if is_ours else None, headers=headers, errors=errors)


def answer_lost_token(error: CSRFError) -> ResponseReturnValue:
    """Answer 400 to a form whose token is missing or belongs to an earlier session. Nothing was carried out."""
    log.info("csrf: %s", error.description)
    view = current_app.view_functions[request.endpoint or ""]
    signed_out = not current_user and getattr(view, "access", "public") != "public"
    return error_page(400, *(SIGNED_OUT if signed_out else OPEN_TOO_LONG))


def answer_database_error(error: Exception) -> ResponseReturnValue:
    """Answer 507 on a full disk, and 503 while the database is gone or busy. Any other error of it is a bug."""
    if not database.is_unavailable(error):
        return answer_crash(error)
    log.error("%s database unavailable: %s", g.get("request_id", ""), error)
    return error_page(507 if database.is_full(error) else 503)


def answer_crash(error: Exception) -> ResponseReturnValue:
    """Answer 500 to a bug, and 507 where a disk is full, such as that of the folder in which a body arrives."""
    request_id = g.get("request_id", "")
    if getattr(error, "errno", None) in FULL:
        log.error("%s no room on the disk: %s", request_id, error)
        return error_page(507)
    log.exception("%s unexpected error in %s %s", request_id, request.method, logged_path(), exc_info=error)
    if current_app.testing or current_app.debug:
        raise error
    return error_page(500)


def error_page(
    code: int, title: str | None = None, text: str | None = None, headers: Mapping[str, str] | None = None,
    errors: Mapping[str, Sequence[str]] | None = None,
) -> Response:  # fmt: skip
    """Return an error as a page of the site, or as problem details (RFC 9457) for programs."""
    words = ERROR_WORDS.get(code, ERROR_WORDS[400])
    context = {"code": code, "title": title or words[0], "text": text or words[1], "request_id": g.get("request_id")}
    answer = problem_details(errors, **context) if wants_json() else make_response(draw_error(context), code)
    answer.headers.update(headers or {})
    if code == 401 and wants_json():
        answer.headers["WWW-Authenticate"] = "Bearer"
    if code == 503:
        answer.headers.setdefault("Retry-After", "5")
    return answer


def problem_details(
    errors: Mapping[str, Sequence[str]] | None, code: int, title: str, text: str, request_id: str
) -> Response:
    problem = {"type": "about:blank", "title": title, "status": code, "detail": text, "request_id": request_id}
    return Response(json.dumps(problem | {"errors": errors or {}}), code, content_type="application/problem+json")


def draw_error(context: dict[str, Any]) -> str:
    """Return the HTML of an error. A page that cannot be drawn with the site's header is drawn without it."""
    context["sent"] = sent_text()
    if context["code"] not in BARE and is_own_host(host_name()):
        try:
            places = {"Home": "/", "Handbook": "/handbook", "People": "/people"}
            onward = places if current_user else {"Sign in": "/login"}
            return render_template("errors/error.html", onward=onward, **context)
        except Exception as error:
            log.warning("error page rendered bare: %r", error)
    home = {"Home": f"{current_app.config['SITE_URL']}/"}
    return current_app.jinja_env.get_template("errors/bare.html").render(onward=home, **context)


def sent_text() -> dict[str, str]:
    """Return what was written in a form of this site, by the names of its fields, for the error page to show."""
    try:
        if request.method != "POST" or not is_from_this_site():
            return {}
        request.max_content_length = 2 * current_app.config["MAX_CONTENT_LENGTH"]  # as in wsgi.py
        return {words: request.form[name] for name, words in SENT_FIELDS.items() if request.form.get(name)}
    except (HTTPException, OSError):  # an untrusted host, or a body that cannot be read or has no room on the disk
        return {}


def is_from_this_site() -> bool:
    """Return whether the browser says that a page of this site sent the request."""
    origin = request.headers.get("Origin", "").partition("://")[2]
    return request.headers.get("Sec-Fetch-Site") == "same-origin" or origin == request.host


# ======================================================================================================================
# == 11. create_app ====================================================================================================
# ======================================================================================================================


def create_app(config: Config | str | None = None) -> Flask:
    """Build the application; touch no schema, lock or token.

    `config` is a `Config`, the name of one ('testing'), or None for the one that APP_ENV names.
    Raises `ConfigError` if the settings are not sound.
    """
    os.umask(0o077)  # what this process writes from now on is for its own account only
    settings = configurations[config]() if isinstance(config, str) else config or load()
    settings.require_sound()
    app = Flask(__name__)
    app.config.from_object(settings)
    app.url_map.converters |= {"int": IdConverter, "slug": SlugConverter, "file": FileNameConverter}
    believe_proxy(app)
    app.config["FINDINGS"] = [*settings.findings(), settings.misspelt()]
    configure_logging(app)
    database.init_db(app)
    bootstrap.init_app(app)
    app.before_request(begin_request)  # before that of CSRFProtect, which may refuse the request
    csrf.init_app(app)
    limiter.init_app(app)
    app.after_request(finish_response)
    app.after_request(record_visit)
    for blueprint in (auth, account, posts, topics, people, files, search, notifications, feeds, admin, docs, health):
        app.register_blueprint(blueprint)
    describe_api(app)
    register_template_helpers(app)
    register_error_handlers(app)
    for command in commands.commands.values():
        app.cli.add_command(command)
    refuse_undeclared_views(app)
    return app


def believe_proxy(app: Flask) -> None:
    """Take a visitor's address, scheme and host from the headers of TRUSTED_PROXY, and from those of nobody else."""
    proxy, direct = app.config["TRUSTED_PROXY"], app.wsgi_app
    behind_proxy = ProxyFix(direct, x_for=1, x_proto=1, x_host=1)

    def choose(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        trusted = proxy and plain_address(environ.get("REMOTE_ADDR", "")) == proxy
        return (behind_proxy if trusted else direct)(environ, start_response)

    app.wsgi_app = choose


# -- Hooks of a request ------------------------------------------------------------------------------------------------


def begin_request() -> ResponseReturnValue | None:
    """Give the request its time and id. Answer 503 while the database does not fit the code."""
    g.now = utcnow()
    g.started = time.perf_counter()
    g.database_work = SimpleNamespace(statements=0, seconds=0.0)  # database.py adds to it
    g.request_id = secrets.token_hex(8)
    if request.method == "TRACE":
        abort(405)
    if request.endpoint in STATIC_ENDPOINTS:
        return None if posixpath.normpath(request.path) == request.path else error_page(404)
    if not is_own_host(host_name()):
        return refuse_host()
    if request.blueprint == "health":
        return None
    if problem := database.schema_problem():
        log.error("not serving: %s", problem)
        return error_page(503, text=problem, headers={"Retry-After": "30"})
    if request.blueprint == "api":
        signed_in_user()  # here, because the limiter would take a database that fails for a storage that fails
    return None


def host_name() -> str:
    """Return the name in the Host header, without a port. It is empty if the header is not well formed."""
    return re.sub(":[0-9]+$", "", request.host.lower()).strip("[]").removesuffix(".")


def is_own_host(name: str) -> bool:
    """Whether a name in the Host header is an address, or a name of this site.

    The owner of any other name can let it lead here, and a page of theirs could then read this site (DNS rebinding).
    """
    own = current_app.config["OWN_HOSTS"]
    is_known = any(f".{name}".endswith(known) if known.startswith(".") else name == known for known in own)
    return is_ip_address(name) or is_known or name in machine_names()


@functools.cache
def machine_names() -> frozenset[str]:
    """Return the names of this computer in its network. They are kept, because to ask for them can take seconds."""
    full = {socket.gethostname().lower(), socket.getfqdn().lower()}
    short = {name.partition(".")[0] for name in full}
    return frozenset({*full, *short, *(f"{name}.local" for name in short)})


def refuse_host() -> Response:
    """Answer 400 to a request by a name that is not this site's, and say how to make it one."""
    name = host_name()
    remedy = f"If it should, add {name} to TRUSTED_HOSTS in the file .env next to app.py, and restart Corkboard."
    words = f"This site doesn't answer to the name {name}. {remedy}" if name else None
    return error_page(400, "Unknown address", words)


def finish_response(response: Response) -> Response:
    """Set the headers that every response has, and log the request."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)  # a file has a stricter policy of its own
    response.headers["X-Request-ID"] = g.get("request_id", "")
    if current_app.config["SESSION_COOKIE_SECURE"]:
        response.headers["Strict-Transport-Security"] = f"max-age={YEAR_SECONDS}"
    set_cache_control(response)
    seconds = time.perf_counter() - g.started
    count_request(response.status_code, seconds)
    if request.endpoint != POLL_ENDPOINT or response.status_code != 304:  # every open page polls three times a minute
        log_request(response.status_code, seconds)
    return response


def set_cache_control(response: Response) -> None:
    """Let browsers keep a static file for a year if its address has the right hash, and keep no page at all."""
    if request.endpoint == "files.logo" and response.status_code == 200:
        response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    elif request.endpoint not in STATIC_ENDPOINTS or response.status_code >= 400:
        may_keep = request.endpoint in KEPT_ENDPOINTS or request.blueprint == "api"
        kept = may_keep and response.status_code in (200, 206, 304)
        response.headers["Cache-Control"] = "private, no-cache" if kept else "private, no-store"
    elif "fonts/" not in request.path and request.full_path != asset(request.endpoint, **request.view_args or {}):
        response.headers["Cache-Control"] = "no-cache"


def logged_path() -> str:
    """Return the path without secrets: it has no query, and an address with a token is logged as its pattern.

    The path is quoted. Otherwise a line break in it could forge a line of the log (CWE-117).
    """
    rule = request.url_rule
    return rule.rule if rule is not None and "token" in rule.arguments else quote(request.path)


def log_request(status: int, seconds: float) -> None:
    """Log one line for the request, without anything that a person typed, and another one when it took too long."""
    fields = {"request": g.request_id, "method": request.method, "path": logged_path(), "status": status}
    fields |= {"ms": round(seconds * 1000, 1), "user": g.get("user_id") or "-", "address": client_address()}
    access_log.info("%(request)s %(method)s %(path)s %(status)s %(ms)sms user=%(user)s from=%(address)s", fields)
    if seconds > SLOW_SECONDS:
        fields |= {"route": route_of_request(), "statements": g.database_work.statements}
        log.warning("%(request)s slow: %(method)s %(route)s took %(ms)sms and %(statements)s statements", fields)


class IdConverter(IntegerConverter):
    """An id in an address. A number that no row can have, or one in another spelling, is 404 before any view."""

    regex = ID.pattern

    def __init__(self, url_map: Map) -> None:
        super().__init__(url_map, max=ID_MAX)


class SlugConverter(BaseConverter):
    """The slug of a topic. MariaDB would pass over spaces at its end."""

    regex = "[a-z0-9-]+"


class FileNameConverter(BaseConverter):
    """The name of a file. It has an ending, unlike what is done to a file (`/files/5/delete`)."""

    regex = r"[^/]+\.[^/]+"
    part_isolating = True
