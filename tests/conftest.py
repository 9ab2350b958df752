"""What all tests share. It is best read before any of them.

A test is named by a sentence about what the site does, and asks for what it needs:

    def test_a_member_comments_on_a_post(people, topics, sign_in):
        post = add_post(people.editor, topics.open)
        answer = sign_in(people.member).submit(f"/posts/{post.id}/comments", {"body": "Good to know."})
        assert answer.status_code == 303

`app`          the application with an empty database and an application context. It runs the test once on SQLite, and
               once on MySQL or MariaDB if TEST_MYSQL_URL names a database that the tests may fill and clear
`people`       five users: `reader`, `member`, `editor`, `admin`, and `stranger`, a member who is in no private topic
`topics`       `topics.open`, and `topics.private`, which everybody but the stranger is in
`sign_in`      `sign_in(people.member)` returns a `Browser`, in which the member is signed in; `sign_in()` one of a
               visitor. A `Browser` is Flask's test client; its `submit` posts a form together with the CSRF token
`add_post` …   `add_person`, `add_topic`, `add_comment` and `edit_post` call the models' actions, as the views do
`together`     runs actions at the same moment, each in a thread of its own

Two more words: a scene is the rows that `people` or `topics` begin with. They are made once for each engine, and then
only put back (snapshot.py). The world is a larger site with one of everything that somebody may or may not see
(world.py). The tests of access ask for it.

A folder of tests runs in as many processes as there are cores (pytest-xdist), each with databases of its own. A single
file runs in one process, and so does everything with `-n 0` or `-p no:xdist`. With CORKBOARD_TEST_REQUIRE=all, a test
that is skipped counts as failed.
"""

from __future__ import annotations

import functools
import gc
import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import FileSystemBytecodeCache
from snapshot import Rows, dump, put_back
from sqlalchemy.exc import DBAPIError
from werkzeug.security import generate_password_hash

import app as corkboard
import database
from app import Comment, Post, PostData, Role, Topic, User
from config import TestingConfig
from database import db

PASSWORD = "seven green bottles"
CHEAP_SCRYPT = "scrypt:1024:1:1"  # only test_access.py tests a hash at its real cost
CHEAP_NO_PASSWORD = f"{CHEAP_SCRYPT}$nobody$"
PASSWORD_HASH = generate_password_hash(PASSWORD, method=CHEAP_SCRYPT)
REQUIRE_ALL = os.environ.get("CORKBOARD_TEST_REQUIRE") == "all"
MYSQL_URL = os.environ.get("TEST_MYSQL_URL", "")
NO_MYSQL = "TEST_MYSQL_URL is not set (Debian: apt-get install mariadb-server)"
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")  # gw0, gw1, …; empty if there is one process
PROCESSES_MAX = 8  # each one has to import the libraries and make two databases first

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each command that a test starts would compile the application
corkboard.WRITES = 10**9  # tests write faster than people may
gc.disable()  # until everything is imported: see `pytest_collection_finish`


# -- The run -----------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Accept the options in pyproject.toml that are for pytest-xdist, even if that is not installed."""
    if not pluginmanager.hasplugin("xdist"):
        parser.addoption("--numprocesses", help="needs pytest-xdist")
        parser.addoption("--dist", help="needs pytest-xdist")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return one process for each core if folders are tested and each can have a database, else 0: only this one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    whole = any(Path(argument).is_dir() for argument in config.args)
    return min(cores, PROCESSES_MAX) if whole and cores > 1 and (not MYSQL_URL or may_create_databases()) else 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests that load the whole machine in one process. All others run wherever there is room."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "alone" if nodeid.startswith(("tests/browser/", "tests/faults/")) else nodeid

    return Scheduling(config, log)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """Count a skipped test as failed if everything is required."""
    outcome = yield
    report = outcome.get_result()
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"skipped, but CORKBOARD_TEST_REQUIRE=all: {call.excinfo}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """End with the packages that let the skipped tests run. Their reasons name them."""
    reasons = " ".join(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    if packages := sorted(set(re.findall(r"apt-get install ([\w-]+)", reasons))):
        terminalreporter.line(f"To run the skipped tests as well: apt-get install {' '.join(packages)}")
    if NO_MYSQL in reasons:
        terminalreporter.line("and set TEST_MYSQL_URL to a database that may be emptied.")


def pytest_collection_finish() -> None:
    """Exclude everything that was imported from garbage collection: it stays until the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    gc.enable()


# -- Databases ---------------------------------------------------------------------------------------------------------


def given_database() -> sa.URL:
    """Return TEST_MYSQL_URL as SQLAlchemy takes it."""
    return sa.make_url(MYSQL_URL.replace("mysql://", "mysql+pymysql://", 1))


def on_server(statement: str) -> list[Any]:
    """Run a statement on the database of TEST_MYSQL_URL, on a new connection, and return its rows."""
    engine = sa.create_engine(given_database())
    try:
        with engine.connect() as connection:
            result = connection.exec_driver_sql(statement)
            return list(result) if result.returns_rows else []
    finally:
        engine.dispose()


def create_database(name: str) -> str:
    """Create an empty database beside that of TEST_MYSQL_URL. Returns its address."""
    drop_database(name)
    url = given_database()
    url = url.set(database=f"{url.database}_{name}")
    on_server(f"CREATE DATABASE `{url.database}` CHARACTER SET utf8mb4")
    return url.render_as_string(hide_password=False)


def drop_database(name: str) -> None:
    on_server(f"DROP DATABASE IF EXISTS `{given_database().database}_{name}`")


def may_create_databases() -> bool:
    try:
        create_database("gw0")
        drop_database("gw0")
    except DBAPIError:
        return False
    return True


# -- The application ---------------------------------------------------------------------------------------------------


def settings(folder: Path, url: str, **more: str) -> TestingConfig:
    return TestingConfig({"DATA_DIR": str(folder), "DATABASE_URL": url, **more})


@pytest.fixture(scope="session", autouse=True)
def compiled_templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let all processes and applications share the compiled templates."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if WORKER else folder) / "templates"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flask, "jinja_options", {"bytecode_cache": FileSystemBytecodeCache(str(folder))})
        yield


@contextmanager
def made_app(folder: Path, url: str) -> Iterator[Flask]:
    """An application that has its schema. It is closed at the end."""
    if url.startswith("sqlite"):
        lay_schema(Path(url.removeprefix("sqlite:///")))
    app = corkboard.create_app(settings(folder, url))
    app.test_client_class = Browser
    with app.app_context():
        if not url.startswith("sqlite"):
            drop_everything()
            database.upgrade_schema()
        database.give_site_id()
    try:
        yield app
    finally:
        close(app)


def lay_schema(path: Path) -> None:
    """Make an SQLite database by copying a migrated one, because the migrations take longer than most tests.

    Call this before the application is made. The application that runs the migrations also takes over the log.
    """
    path.write_bytes(migrated_database())


@functools.cache
def migrated_database() -> bytes:
    """Return the content of an SQLite file with the schema and no rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "corkboard.db")
        app = corkboard.create_app(settings(path.parent, f"sqlite:///{path.as_posix()}"))
        with app.app_context():
            database.upgrade_schema()
        close(app)
        return path.read_bytes()


def close(app: Flask) -> None:
    with app.app_context():
        db.engine.dispose()


def drop_everything() -> None:
    with db.engine.begin() as connection:
        connection.exec_driver_sql("SET FOREIGN_KEY_CHECKS = 0")
        for name in sa.inspect(connection).get_table_names():
            connection.exec_driver_sql(f"DROP TABLE `{name}`")
        connection.exec_driver_sql("SET FOREIGN_KEY_CHECKS = 1")


@pytest.fixture(scope="session", params=["sqlite", "mysql"])
def engine_app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """One application for each engine and for the whole run. `app` hands it to a test with an empty database."""
    folder = tmp_path_factory.mktemp(request.param)
    url = f"sqlite:///{(folder / 'corkboard.db').as_posix()}"
    if request.param == "mysql":
        url = request.getfixturevalue("mysql_url")
    with made_app(folder, url) as app:
        with app.app_context():
            if request.param == "sqlite":  # what tests write need not survive a power cut
                sa.event.listen(db.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous = OFF"))
                db.engine.dispose()
            scene(app, "")
        yield app


@pytest.fixture(scope="session")
def mysql_url() -> Iterator[str]:
    """The address of the MySQL database that this process may fill and clear."""
    if not MYSQL_URL:
        pytest.skip(NO_MYSQL)
    if not WORKER:
        yield MYSQL_URL
        return
    yield create_database(WORKER)
    drop_database(WORKER)


@pytest.fixture
def app(engine_app: Flask, request: pytest.FixtureRequest) -> Iterator[Flask]:
    """The application on one engine with an empty database. Its context lasts as long as the test."""
    with engine_app.app_context():
        if "world" not in request.fixturenames:  # the world puts its own rows back
            put_back(scene(engine_app, next((name for name in SCENES if name in request.fixturenames), "")))
        forget(engine_app)
        corkboard.g.now = database.utcnow()
        yield engine_app
        db.session.rollback()


@pytest.fixture
def read_only(app: Flask) -> Iterator[threading.Event]:
    """While it is set, new connections to SQLite can only read, as where its file may not be written."""
    shut = threading.Event()

    def connect(_dialect: Any, _record: Any, arguments: list[Any], parameters: dict[str, Any]) -> None:
        if shut.is_set():
            arguments[0] = f"file:{arguments[0]}?mode=ro"
            parameters["uri"] = True

    db.session.remove()
    db.engine.dispose()
    sa.event.listen(db.engine, "do_connect", connect)
    yield shut
    shut.clear()
    sa.event.remove(db.engine, "do_connect", connect)
    db.session.remove()
    db.engine.dispose()


@pytest.fixture
def empty_folder(app: Flask) -> Path:
    """The data folder without the files and backups of other tests."""
    folder: Path = app.config["DATA_DIR"]
    for name in ("files", "backups", "trash"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return folder


def forget(app: Flask) -> None:
    """Forget what a process keeps in memory, as if it had just started."""
    corkboard.g.pop("site", None)
    corkboard.limiter.reset()
    corkboard._writing.clear()


# -- Scenes ------------------------------------------------------------------------------------------------------------

# What many tests begin with is made once for each engine, by the models' actions, and then only put back.
SCENES: dict[str, Callable[[], object]] = {}  # filled below; a scene comes before those that it contains
_scenes: dict[tuple[int, str], Rows] = {}


def scene(app: Flask, name: str) -> Rows:
    """Return the rows of a scene. The scene without a name is a site that nobody has used yet."""
    if (id(app), name) not in _scenes:
        if name:
            empty_database(app)
            SCENES[name]()
            db.session.remove()
        _scenes[id(app), name] = dump()
    return _scenes[id(app), name]


def empty_database(app: Flask) -> None:
    put_back(scene(app, ""))


# -- People ------------------------------------------------------------------------------------------------------------

ROLES = {
    "reader": Role.READER,
    "member": Role.MEMBER,
    "editor": Role.EDITOR,
    "admin": Role.ADMIN,
    "stranger": Role.MEMBER,
}


@pytest.fixture
def people(app: Flask) -> SimpleNamespace:
    """A reader, a member, an editor and an admin, who are in every private topic; and a stranger, who is in none."""
    everybody = {user.username: user for user in db.session.scalars(sa.select(User).order_by(User.id))}
    if everybody["reader"].password_hash != PASSWORD_HASH:  # a test that signs in by password has replaced it
        db.session.execute(sa.update(User).values(password_hash=PASSWORD_HASH))
    if everybody["reader"].created_at < corkboard.utcnow() - timedelta(minutes=1):  # for every test, the site is new
        db.session.execute(sa.update(User).values(created_at=corkboard.utcnow()))
    db.session.commit()
    return SimpleNamespace(**everybody)


def hire() -> dict[str, User]:
    return {name: add_person(name, role) for name, role in ROLES.items()}


def add_person(username: str, role: Role = Role.MEMBER, **profile: Any) -> User:
    values = {"username": username, "name": username.capitalize(), "email": f"{username}@example.com"} | profile
    return User.create(None, password_hash=PASSWORD_HASH, role=role, **values)


@pytest.fixture
def sign_in(app: Flask) -> Callable[..., Browser]:
    """Sign a person in without a password. `sign_in(people.member)` returns their browser, `sign_in()` a visitor's."""

    def make(user: User | None = None, remember: bool = False) -> Browser:
        browser = app.test_client()
        if user is not None:
            token = corkboard.SignIn.start(user.id, remember, "Firefox on Linux", "127.0.0.1")
            with browser.session_transaction() as session:
                session["token"], session["csrf_token"] = token, secrets.token_hex(20)
        return browser  # type: ignore[return-value]

    app.test_client_class = Browser
    return make


class Browser(FlaskClient):
    """A test client that sends forms as a browser does, with the CSRF token."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """Give every request a context of its own. In the test's, it would find the `g` of the last request."""
        with self.application.app_context():
            return super().open(*args, **kwargs)

    def submit(self, path: str, data: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        return self.post(path, data={"csrf_token": self.csrf_token(), **(data or {})}, **kwargs)

    def csrf_token(self) -> str:
        """Return the CSRF token of this browser's forms. It depends on the session, and so on the cookie."""
        app = self.application
        cookie = self.get_cookie(app.config["SESSION_COOKIE_NAME"])
        known = (id(app), cookie.value) if cookie else None
        if known not in _tokens:
            token = self._new_csrf_token()
            cookie = self.get_cookie(app.config["SESSION_COOKIE_NAME"])
            assert cookie is not None
            known = (id(app), cookie.value)
            _tokens[known] = token
        return _tokens[known]

    def _new_csrf_token(self) -> str:
        from flask_wtf.csrf import generate_csrf

        with self.session_transaction() as session:
            raw = session.setdefault("csrf_token", secrets.token_hex(20))
        with self.application.test_request_context():
            corkboard.session["csrf_token"] = raw
            corkboard.g.pop("csrf_token", None)
            token = generate_csrf()
            corkboard.g.pop("csrf_token", None)
            return token


_tokens: dict[tuple[int, str] | None, str] = {}


# -- Content -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def topics(people: SimpleNamespace) -> SimpleNamespace:
    """An open topic, and a private one with everybody but the stranger."""
    both = {topic.name: topic for topic in db.session.scalars(sa.select(Topic))}
    db.session.commit()
    return SimpleNamespace(open=both["Everyone"], private=both["Management"])


def make_topics() -> None:
    people = hire()
    inside = [user.id for name, user in people.items() if name != "stranger"]
    add_topic(people["editor"], "Everyone")
    add_topic(people["editor"], "Management", members=inside)


SCENES |= {"topics": make_topics, "people": hire}


def add_topic(actor: User, name: str, members: Iterable[int] = (), **values: Any) -> Topic:
    """Create a topic, a private one if it has `members`."""
    values = {"private": bool(members)} | values
    topic = Topic.create(actor, form_id=secrets.token_hex(16), name=name, **values)
    if members:
        Topic.add_members(actor, topic.id, members)
    return db.session.get_one(Topic, topic.id)


def add_post(author: User, topic: Topic, title: str = "The crane is back", how: str = "publish", **values: Any) -> Post:
    text = {"kind": "news", "body": "Hall B opens again on **Thursday**."} | values
    data = PostData(topic_id=topic.id, title=title, **text)
    return Post.save(author, data, how=how, form_id=secrets.token_hex(16))


def edit_post(actor: User, post: Post, how: str = "publish", **values: Any) -> Post:
    """Save a post as it is now, with some changes. `values` are those of `PostData` and of `Post.save`."""
    db.session.rollback()
    now = db.session.get(Post, post.id, populate_existing=True)
    assert now is not None
    options = {name: values.pop(name) for name in ("version", "notify", "require_again") if name in values}
    return Post.save(actor, PostData.of(now, **values), how=how, post_id=now.id, **{"version": now.version} | options)


def add_comment(author: User, post: Post, body: str = "Good to know.", **values: Any) -> Comment:
    text = {"body": body, "form_id": secrets.token_hex(16)} | values
    return Comment.create(author, post.id, **text)


@pytest.fixture
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords cheaply, for tests that sign in by password but are about something else."""
    monkeypatch.setattr(corkboard, "SCRYPT", CHEAP_SCRYPT)
    monkeypatch.setattr(corkboard, "NO_PASSWORD", CHEAP_NO_PASSWORD)


# -- Several at once ---------------------------------------------------------------------------------------------------


def together(app: Flask, *actions: Callable[[], Any]) -> list[Any]:
    """Run actions at the same moment, each in a thread and context of its own. Returns what each returned or raised.

    Give them ids, not entities: an entity belongs to the session of the test's own thread.
    """
    barrier = threading.Barrier(len(actions))

    def run(action: Callable[[], Any]) -> Any:
        with app.app_context():
            corkboard.g.now = database.utcnow()
            barrier.wait(timeout=10)
            try:
                return action()
            except Exception as error:
                return error

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(run, actions))
