"""The database: engines, transactions, schema, what a page may ask of it, and the plans by which it answers."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import sqlite3
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import click
import pymysql
import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from conftest import (
    add_comment,
    add_person,
    add_post,
    add_topic,
    close,
    drop_everything,
    made_app,
    settings,
    together,
)
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from test_posts import many_comments, many_posts
from world import set_columns

import app as corkboard
import database
from app import Acknowledgement, Activity, Attachment, Comment, Post, Role, SearchEntry, Setting, Throttle, Topic, User
from database import db, fold, sort_key, transactional

only_sqlite = pytest.mark.parametrize("engine_app", ["sqlite"], indirect=True)
only_mysql = pytest.mark.parametrize("engine_app", ["mysql"], indirect=True)
NOW = datetime(2026, 3, 1, 12, 0, 0, 654321)


def keep(name: str, value: str = "kept") -> None:
    db.session.execute(sa.insert(Setting).values(name=name, value=value))


def kept(name: str) -> str | None:
    """A setting's value, read past every session."""
    with db.engine.connect() as reading:
        return reading.scalar(sa.select(Setting.value).where(Setting.name == name))


def mysql_error(code: int, kind: type = OperationalError) -> Exception:
    return kind("UPDATE", {}, pymysql.err.OperationalError(code, "said the server"))


@pytest.fixture
def no_pauses(monkeypatch):
    """Retries without their pauses."""
    monkeypatch.setattr(database.random, "uniform", lambda low, high: 0)


# -- Transactions ------------------------------------------------------------------------------------------------------


def test_a_transaction_commits_and_returns_what_its_action_does(app):
    @transactional
    def action(value: str) -> str:
        keep("one", value)
        return value + "!"

    assert action("yes") == "yes!"
    assert kept("one") == "yes"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_transaction_that_raises_leaves_nothing_behind_and_the_next_one_works(app, error):
    @transactional
    def action() -> None:
        keep("one")
        raise error

    with pytest.raises(error):
        action()
    assert kept("one") is None
    transactional(keep)("two")
    assert kept("two") == "kept"


def test_a_transaction_within_a_transaction_joins_it(app):
    @transactional
    def outer(fail: bool) -> None:
        keep("outer")
        transactional(keep)("inner")
        assert together(app, lambda: kept("inner")) == [None], "not committed by itself"
        if fail:
            raise ValueError

    with pytest.raises(ValueError):
        outer(fail=True)
    assert kept("inner") is None
    assert kept("outer") is None
    outer(fail=False)
    assert kept("inner") == kept("outer") == "kept"


def test_a_transaction_reads_everything_anew(app, people):
    member, title = people.member.id, sa.select(User.title).where(User.id == people.member.id)
    assert db.session.scalar(sa.select(User).where(User.id == member)).title == ""
    assert db.session.execute(title).scalar() == ""
    with db.engine.begin() as elsewhere:
        elsewhere.execute(sa.update(User).where(User.id == member).values(title="Baker"))

    @transactional
    def action() -> tuple[str, str]:
        return db.session.get(User, member).title, db.session.execute(title).scalar()

    assert action() == ("Baker", "Baker")


def test_what_a_transaction_wrote_is_read_at_once_outside_of_it(app):
    count = sa.select(sa.func.count()).select_from(Setting)
    before = db.session.execute(count).scalar_one()
    transactional(keep)("one")
    assert db.session.execute(count).scalar_one() == before + 1


@pytest.mark.parametrize("code", sorted(database.RETRIED))
def test_a_transaction_that_the_engine_asks_to_repeat_is_run_again_as_a_whole(app, no_pauses, code):
    runs = []

    @transactional
    def action() -> str:
        runs.append(len(runs))
        keep(f"run {len(runs)}")
        transactional(keep)(f"inner {len(runs)}")
        if len(runs) < 4:
            raise mysql_error(code, IntegrityError if code == 1062 else OperationalError)
        return "done"

    assert action() == "done"
    assert len(runs) == 4
    for number in (1, 2, 3):
        assert kept(f"run {number}") is kept(f"inner {number}") is None
    assert kept("run 4") == kept("inner 4") == "kept"


def test_an_inner_transaction_is_never_repeated_alone(app, no_pauses):
    runs = []

    @transactional
    def inner() -> None:
        runs.append("inner")
        if len(runs) == 2:
            raise mysql_error(1213)

    @transactional
    def outer() -> None:
        runs.append("outer")
        inner()

    outer()
    assert runs == ["outer", "inner", "outer", "inner"]


def test_a_commit_that_fails_runs_the_whole_transaction_again(app, no_pauses, monkeypatch):
    commit, commits = db.session.commit, []

    def failing_commit() -> None:
        commits.append(1)
        if len(commits) < 3:
            db.session.flush()
            raise mysql_error(1213)
        commit()

    monkeypatch.setattr(db.session, "commit", failing_commit)
    transactional(keep)("one")
    assert len(commits) == 3
    assert kept("one") == "kept"


def test_a_transaction_gives_up_in_the_end(app, no_pauses):
    runs = []

    @transactional
    def action() -> None:
        runs.append(1)
        raise mysql_error(1213)

    with pytest.raises(OperationalError):
        action()
    assert len(runs) == database.ATTEMPTS


def test_no_other_error_is_tried_again(app):
    runs = []

    @transactional
    def action(error: Exception) -> None:
        runs.append(error)
        raise error

    errors = [mysql_error(1045), mysql_error(2006), ValueError(), KeyError()]
    for error in errors:
        with pytest.raises(type(error)):
            action(error)
    assert runs == errors


@only_mysql
@pytest.mark.parametrize("code", sorted(database.RETRIED))
def test_the_servers_own_errors_are_known_for_what_they_are(app, no_pauses, code):
    runs = []

    @transactional
    def action() -> None:
        runs.append(1)
        if len(runs) == 1:
            db.session.execute(sa.text(f"SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {code}"))

    action()
    assert len(runs) == 2


@only_mysql
def test_a_real_deadlock_ends_well_for_both(app):
    for name in ("one", "two"):
        transactional(keep)(name, "0")
    first_locks, runs = threading.Barrier(2), []

    def add_to(first: str, second: str):
        @transactional
        def action() -> None:
            runs.append(first)
            for place, name in enumerate((first, second)):
                row = db.session.get(Setting, name, with_for_update=True, populate_existing=True)
                row.value = str(int(row.value) + 1)
                db.session.flush()
                if place == 0 and len(runs) <= 2:
                    first_locks.wait(timeout=5)

        return action

    outcomes = together(app, add_to("one", "two"), add_to("two", "one"))
    assert outcomes == [None, None]
    assert len(runs) == 3
    assert kept("one") == kept("two") == "2"


@only_sqlite
def test_sixteen_threads_write_on_sqlite_without_an_error(app, people, topics):
    post, member = add_post(people.member, topics.open), SimpleNamespace(id=people.member.id)
    post_id = post.id

    def write() -> list[int]:
        return [Comment.create(member, post_id, body="B", form_id=secrets.token_hex(16)).id for _ in range(10)]

    made = together(app, *[write] * 16)
    assert not [outcome for outcome in made if isinstance(outcome, Exception)]
    assert len({comment for outcome in made for comment in outcome}) == 160
    db.session.rollback()
    assert db.session.get(Post, post_id, populate_existing=True).comment_count == 160


def test_pages_and_writers_go_side_by_side(app, people, topics, sign_in):
    post, member = add_post(people.member, topics.open).id, SimpleNamespace(id=people.member.id)
    browsers = [sign_in(people.reader) for _ in range(4)]

    def write() -> None:
        for _ in range(5):
            Comment.create(member, post, body="B", form_id=secrets.token_hex(16))

    def read(browser):
        return lambda: {browser.get(path).status_code for path in ("/", f"/posts/{post}", "/people") * 3}

    outcomes = together(app, *[write] * 4, *map(read, browsers))
    assert outcomes == [None] * 4 + [{200}] * 4


@only_sqlite
def test_only_transactions_take_sqlites_write_lock_at_once(app):
    path = app.config["DATABASE_URL"].removeprefix("sqlite:///")
    other = sqlite3.connect(path, timeout=0, isolation_level=None)

    def locked() -> bool:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        other.execute("ROLLBACK")
        return False

    try:
        db.session.scalar(sa.select(Setting.name).limit(1))
        db.session.execute(sa.select(Setting.name).limit(1)).all()
        assert not locked(), "a read takes no lock"
        assert transactional(lambda: [db.session.scalar(sa.select(Setting.name).limit(1)), locked()])()[1]
        assert not locked()
    finally:
        other.close()


@only_sqlite
def test_who_waits_too_long_for_the_write_lock_is_told_and_readers_do_not_wait(app, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.01)
    with database.database_state().write_lock:
        with pytest.raises(database.DatabaseBusy):
            transactional(keep)("one")
        assert db.session.execute(sa.select(Setting.name)).all()
    transactional(keep)("one")
    assert kept("one") == "kept"


# -- What is told to each connection -----------------------------------------------------------------------------------


def test_every_sqlite_connection_is_told_what_guards_the_data(tmp_path):
    expected = {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2}
    with made_app(tmp_path, f"sqlite:///{(tmp_path / 'corkboard.db').as_posix()}") as app, app.app_context():
        for _ in range(3):
            with db.engine.connect() as one, db.engine.connect() as another:
                for connection in (one, another, db.session.connection()):
                    found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in expected}
                    assert found == expected


@only_mysql
def test_every_mysql_connection_is_told_what_guards_the_data(app):
    with db.engine.connect() as connection:
        rows = connection.exec_driver_sql("SHOW SESSION VARIABLES").fetchall()
    session = {row[0]: row[1] for row in rows}
    assert session.get("transaction_isolation", session.get("tx_isolation")) == "READ-COMMITTED"
    assert session["character_set_client"] == session["character_set_results"] == "utf8mb4"
    assert session["collation_connection"] == "utf8mb4_bin"
    assert {"STRICT_TRANS_TABLES", "NO_ZERO_DATE"} <= {*session["sql_mode"].split(",")}
    assert session["innodb_lock_wait_timeout"] == "5"
    assert session["time_zone"] == "+00:00"


@only_mysql
def test_every_mysql_table_is_transactional_and_compares_by_the_byte(app):
    tables = "SELECT table_name, engine, table_collation FROM information_schema.tables WHERE table_schema = DATABASE()"
    columns = (
        "SELECT DISTINCT collation_name FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND collation_name IS NOT NULL AND table_name <> 'alembic_version'"
    )
    with db.engine.connect() as connection:
        found = [tuple(row) for row in connection.exec_driver_sql(tables) if row[0] != "alembic_version"]
        assert {row[1:] for row in found} == {("InnoDB", "utf8mb4_bin")}
        assert len(found) == len(db.metadata.tables)
        assert [row[0] for row in connection.exec_driver_sql(columns)] == ["utf8mb4_bin"]


@only_mysql
def test_mysql_refuses_what_does_not_fit(app, people):
    with pytest.raises(DataError):
        transactional(keep)("x" * 65)
    for wrong in ("'0000-00-00'", "'2026-02-30'"):
        with pytest.raises((DataError, OperationalError)):
            transactional(lambda wrong=wrong: db.session.execute(sa.text(f"UPDATE users SET away_until = {wrong}")))()


def test_foreign_keys_are_enforced(app, people, topics):
    post = add_post(people.member, topics.open)
    for column in ("topic_id", "author_id", "editor_id"):
        with pytest.raises(IntegrityError):
            transactional(db.session.execute)(sa.update(Post).where(Post.id == post.id).values({column: 7777}))
    with pytest.raises(IntegrityError):
        transactional(db.session.execute)(sa.delete(User).where(User.id == people.member.id))


def test_times_keep_their_microseconds(app):
    for moment in (NOW, datetime(1970, 1, 1, 0, 0, 0, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)):
        transactional(db.session.execute)(sa.insert(Throttle).values(key=moment.isoformat(), whole_at=moment))
        assert (
            db.session.execute(sa.select(Throttle.whole_at).where(Throttle.key == moment.isoformat())).scalar()
            == moment
        )


def test_every_text_comes_back_as_it_was(app):
    for text in ["😀🧵", "你好", "ﷺ" * 100, "Z\u0335\u0301", "ü" * 200_000, "😀" * 100_000, "a\\'\"%_:x"]:
        transactional(keep)(f"text {len(text)} {text[:9]}", text)
        assert kept(f"text {len(text)} {text[:9]}") == text


def test_names_compare_by_the_byte_on_both_engines(app):
    for name in ("anna", "Anna", "ännA", "anna\u0301"):
        transactional(keep)(name, name)
        assert kept(name) == name


@given(st.text(max_size=30))
def test_a_key_of_a_key_is_the_same(text):
    assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize(("one", "other"), [
    ("Anna", " anna "), ("ＡＮＮＡ", "anna"), ("Straße", "STRASSE"), ("é", "e\u0301"), ("ﬁ", "FI"), ("İ", "i\u0307"),
])  # fmt: skip
def test_names_are_the_same_however_they_are_written(one, other):
    assert fold(one) == fold(other)
    assert sort_key(one) == sort_key(other)


def test_accents_matter_in_names_and_not_in_order():
    assert fold("änna") != fold("anna")
    assert sort_key("Änna") == sort_key("anna")


def test_a_row_that_stands_is_not_inserted_again(app):
    insert = transactional(database.insert_if_absent)
    assert insert(Setting, name="one", value="first")
    assert not insert(Setting, name="one", value="second")
    assert kept("one") == "first"


# -- When the database is not there ------------------------------------------------------------------------------------


def sqlite_error(name: str) -> Exception:
    error = sqlite3.OperationalError(name)
    error.sqlite_errorname = name
    return OperationalError("SELECT", {}, error)


@pytest.mark.parametrize(("error", "unavailable"), [
    (mysql_error(2003), True), (mysql_error(2006), True), (mysql_error(2013), True), (mysql_error(1047), True),
    (mysql_error(1040), True), (mysql_error(1205), True), (mysql_error(1053), True), (mysql_error(1064), False),
    (mysql_error(1290), True), (mysql_error(1146), False),
    (mysql_error(1062, IntegrityError), False), (sqlite_error("SQLITE_BUSY"), True),
    (sqlite_error("SQLITE_CANTOPEN"), True), (sqlite_error("SQLITE_FULL"), True), (sqlite_error("SQLITE_ERROR"), False),
    (sqlite_error("SQLITE_IOERR_READ"), True), (sqlite_error("SQLITE_READONLY"), True),
    (database.DatabaseBusy(), True), (sa.exc.TimeoutError(), True), (ValueError(), False), (KeyError(), False),
])  # fmt: skip
def test_what_waiting_helps_against_is_told_from_defects(error, unavailable):
    assert database.is_unavailable(error) is unavailable


@only_mysql
@pytest.mark.parametrize(("code", "lost"), [(1047, True), (1064, False)])
def test_a_node_without_quorum_counts_as_a_lost_connection(app, code, lost):
    with pytest.raises(sa.exc.DBAPIError) as caught, db.engine.connect() as connection:
        connection.exec_driver_sql(f"SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {code}")
    assert caught.value.connection_invalidated is lost


@only_mysql
def test_a_connection_that_was_killed_is_replaced(app, people, sign_in):
    browser = sign_in(people.reader)
    browser.get("/")
    db.session.rollback()
    with db.engine.connect() as mine:
        me = mine.exec_driver_sql("SELECT CONNECTION_ID()").scalar()
        others = mine.exec_driver_sql("SELECT id FROM information_schema.processlist WHERE db = DATABASE()").scalars()
        for number in [number for number in others if number != me]:
            mine.exec_driver_sql(f"KILL {number}")
    assert browser.get("/").status_code == 200


# -- Schema ------------------------------------------------------------------------------------------------------------


def differences() -> list:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def known(name, _kind, _parents) -> bool:
        return not database.is_search_index(name)

    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_name": known})
        return compare_metadata(context, db.metadata)


def test_the_models_are_what_the_migrations_make(app):
    assert differences() == []


def test_a_difference_between_models_and_schema_would_be_noticed(app):
    users = db.metadata.tables["users"]
    column = sa.Column("shoe_size", sa.Integer)
    users.append_column(column)
    old = users.c.title.type
    users.c.title.type = sa.Integer()
    try:
        found = str(differences())
        assert "shoe_size" in found
        assert "modify_type" in found
    finally:
        users.c.title.type = old
        users._columns.remove(column)
    assert differences() == []


def columns_as_made() -> dict[str, tuple]:
    inspector = sa.inspect(db.engine)
    return {
        f"{table}.{column['name']}": (str(column["type"]), column["nullable"])
        for table in db.metadata.tables
        for column in inspector.get_columns(table)
    }


def test_nothing_but_keys_and_foreign_keys_is_compared_by_name(app):
    inspector = sa.inspect(db.engine)
    for table in db.metadata.tables.values():
        keys = [(key["name"], key["constrained_columns"]) for key in inspector.get_foreign_keys(table.name)]
        # SQLAlchemy does not read the name of a key that SQLite was given together with a later column.
        made = {name or f"fk_{table.name}_{columns[0]}": columns for name, columns in keys}
        meant = {str(key.name): [c.name for c in key.columns] for key in table.foreign_key_constraints}
        assert made == meant
        assert inspector.get_pk_constraint(table.name)["constrained_columns"] == [c.name for c in table.primary_key]


@only_mysql
def test_on_mysql_times_have_microseconds_and_long_texts_room(app):
    from sqlalchemy.dialects.mysql import DATETIME, MEDIUMTEXT

    inspector = sa.inspect(db.engine)
    for table in db.metadata.tables.values():
        made = {column["name"]: column["type"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.type is database.Timestamp:
                assert isinstance(made[column.name], DATETIME)
                assert made[column.name].fsp == 6
            if column.type is database.LongText:
                assert isinstance(made[column.name], MEDIUMTEXT)


def without_schema() -> None:
    """As if neither the database nor the data folder had ever been used."""
    (database.data_folder() / "site_id").unlink(missing_ok=True)
    if not database.is_sqlite():
        drop_everything()
        return
    db.session.rollback()
    with db.engine.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA foreign_keys = OFF")  # before the transaction begins
        for name in sa.inspect(connection).get_table_names():
            connection.exec_driver_sql(f'DROP TABLE IF EXISTS "{name}"')
        connection.commit()
        connection.invalidate()


@pytest.fixture
def bare(app, monkeypatch):
    """The application on a database that a test may ruin; it is whole again afterwards."""
    monkeypatch.setattr(database, "RECHECK_SECONDS", 0)
    state, site_id = database.database_state(), database.folder_site_id()
    state.schema_ok = False
    yield app
    db.session.rollback()
    database.keep_site_id(site_id)
    monkeypatch.undo()
    try:
        database.check_schema()
    except database.SchemaError:
        without_schema()
        database.upgrade_schema()
        database.keep_site_id(site_id)
    state.schema_checked = float("-inf")


def test_many_first_requests_check_the_schema_once(bare, monkeypatch):
    check, hold, checks = database.check_ready, database._held, []
    everyone = threading.Barrier(4)  # all of them have seen that nobody has checked the schema so far

    @contextmanager
    def held(lock, seconds):
        everyone.wait(10)
        with hold(lock, 10):
            yield

    monkeypatch.setattr(database, "_held", held)
    monkeypatch.setattr(database, "check_ready", lambda: checks.append(check()))
    assert together(bare, *[database.schema_problem] * 4) == [None] * 4
    assert checks == [None]


def test_init_db_may_run_twice_and_keeps_what_is_there(app, people):
    before = columns_as_made()
    for _ in range(2):
        result = app.test_cli_runner().invoke(args=["init-db"])
        assert (result.exit_code, result.output) == (0, "The database is ready.\n")
    assert columns_as_made() == before
    assert db.session.get(User, people.member.id) is not None


class PowerCut(BaseException):
    """What a test ends an upgrade with."""


CHANGES = ("CREATE", "ALTER", "DROP", "INSERT", "UPDATE")


@contextmanager
def power_cut(at: int, lasting: bool = True):
    """Raise `PowerCut` in place of the statement with that number, of those that change something."""
    seen = []

    def cut(_connection, _cursor, statement, *_more):
        if statement.lstrip().startswith(CHANGES):
            seen.append(statement)
            if len(seen) == at + 1 or (lasting and len(seen) > at):
                raise PowerCut

    event.listen(db.engine, "before_cursor_execute", cut)
    try:
        yield
    finally:
        event.remove(db.engine, "before_cursor_execute", cut)


def settings_as_made() -> list[tuple[str, str]]:
    with db.engine.connect() as connection:
        made = sa.select(Setting.name, Setting.value).where(Setting.name != "site_id")
        return sorted(tuple(row) for row in connection.execute(made))


def test_an_upgrade_that_was_interrupted_can_be_run_again(bare):
    whole, rows = columns_as_made(), settings_as_made()
    for interrupted_at in (1, 9, 24, 60):
        without_schema()
        with pytest.raises(PowerCut), power_cut(interrupted_at):
            database.upgrade_schema()
        with pytest.raises(database.SchemaError, match="python -m flask"):
            database.check_schema()
        database.upgrade_schema()
        database.check_schema()
        assert columns_as_made() == whole
        assert differences() == []
        assert settings_as_made() == rows


REVISIONS = sorted(database._script_heads()[1] - database._script_heads()[0])  # those from which one upgrades


def go_back_to(revision: str) -> None:
    """Take the schema back to a revision. The tables of the first one had no AUTOINCREMENT on SQLite."""
    from flask_migrate import downgrade

    db.session.rollback()  # what it has read of a table keeps MySQL from changing that
    downgrade(directory=str(database.MIGRATIONS), revision=revision)
    if database.is_sqlite() and revision == REVISIONS[0]:
        with db.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA writable_schema = ON")
            connection.exec_driver_sql("UPDATE sqlite_master SET sql = REPLACE(sql, ' AUTOINCREMENT', '')")
            connection.commit()
            connection.invalidate()


def record_as_the_first_version(action: str) -> None:
    with db.engine.begin() as connection:
        connection.execute(sa.text(
            "INSERT INTO activities (at, action, object_type, object_id, detail, address)"
            f" VALUES ('2026-01-01 00:00:00', '{action}', 'post', 1, 'secret', '')"
        ))  # fmt: skip


def check_each_cut(revision: str, to: str = "head", stride: int = 1) -> int:
    """Cut the upgrade of a filled database at each `stride`-th statement, and finish it. Returns how often."""
    from flask_migrate import upgrade

    for cuts in range(1000):
        go_back_to(revision)
        before = rows_as_counted()
        try:
            with power_cut(cuts * stride):
                upgrade(directory=str(database.MIGRATIONS), revision=to)
            break
        except (PowerCut, click.ClickException):
            database.upgrade_schema()
        assert before.items() <= rows_as_counted().items()
        assert differences() == []
    database.upgrade_schema()
    return cuts


def test_a_database_of_the_first_version_keeps_its_rows_wherever_its_upgrade_is_cut(bare, people, team):
    go_back_to(REVISIONS[0])
    record_as_the_first_version("post.drafted")
    record_as_the_first_version("reaction.added")
    assert check_each_cut(REVISIONS[0], stride=7) > 1
    with db.engine.connect() as connection:
        told = connection.execute(
            sa.text("SELECT DISTINCT action, detail FROM activities WHERE detail = 'secret'")
        ).all()
    assert [row.action for row in told] == ["reaction.added"], "titles of drafts are not in the record any more"
    if database.is_sqlite():
        with db.engine.connect() as connection:
            names = "SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'"
            made = {*connection.exec_driver_sql(names).scalars()}
        assert made == {table.name for table in db.metadata.tables.values() if "id" in table.columns}


@pytest.mark.faults
@pytest.mark.parametrize(("revision", "to"), [*pairwise([*REVISIONS, "head"])])
def test_an_upgrade_can_be_cut_at_every_statement_of_each_revision(bare, people, team, revision, to):
    assert check_each_cut(revision, to) > 1


def run_upgrade(app) -> SimpleNamespace:
    result = app.test_cli_runner().invoke(args=["upgrade"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    db.session.rollback()
    lines = [line for line in result.output.splitlines() if line.startswith(("The database", "Error"))]
    return SimpleNamespace(code=result.exit_code, lines=lines)


def backups_before_upgrades() -> list[Path]:
    return sorted((database.data_folder() / "backups").glob("*-before-upgrade.zip"))


def everything() -> dict[str, list]:
    """All rows of all tables that a backup keeps, as they are in the database."""
    tables = sa.MetaData()
    with db.engine.connect() as connection:
        tables.reflect(connection, only=lambda name, _: not database.is_search_index(name))
        return {
            name: sorted(map(repr, connection.execute(sa.select(table))))
            for name, table in tables.tables.items() if name not in database.NOT_BACKED_UP
        }  # fmt: skip


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_command_upgrades_each_version_after_a_backup_of_it(bare, people, team, empty_folder, revision):
    go_back_to(revision)
    before = rows_as_counted()
    done = run_upgrade(bare)
    (backup,) = backups_before_upgrades()
    assert (done.code, done.lines) == (0, [f"The database is upgraded. As it was before, it is in {backup}."])
    assert differences() == []
    after = rows_as_counted()
    assert {name: count for name, count in before.items() if after[name] < count and name != "activities"} == {}
    assert bare.test_cli_runner().invoke(args=["verify-backup", str(backup)]).exit_code == 0
    with zipfile.ZipFile(backup) as archive:
        assert json.loads(archive.read("manifest.json"))["revision"] == revision


@pytest.mark.parametrize("at", [0, 5, 17])
@pytest.mark.parametrize("revision", [REVISIONS[0], REVISIONS[-1]])
def test_an_upgrade_that_fails_puts_everything_back(bare, people, team, empty_folder, revision, at):
    go_back_to(revision)
    before = everything()
    with power_cut(at, lasting=False):
        failed = run_upgrade(bare)
    (line,) = failed.lines
    assert failed.code == 1
    assert line.startswith("Error: The upgrade failed (")
    assert "Everything is as it was before" in line
    assert str(*backups_before_upgrades()) in line
    assert everything() == before
    database.upgrade_schema()
    assert differences() == []


def test_an_upgrade_that_leaves_something_out_puts_everything_back(bare, people, team, empty_folder, monkeypatch):
    go_back_to(REVISIONS[-1])
    before = everything()
    column = sa.Column("shoe_size", sa.Integer)
    users = db.metadata.tables["users"]
    users.append_column(column)
    db.engine.clear_compiled_cache()  # which has the statement without that column
    try:
        failed = run_upgrade(bare)
    finally:
        users._columns.remove(column)
    assert failed.code == 1
    assert "shoe_size" in failed.lines[0]
    assert "Everything is as it was before" in failed.lines[0]
    assert everything() == before


def test_where_the_way_back_fails_too_the_backup_is_named(bare, people, team, empty_folder, monkeypatch):
    def refuse(*_):
        raise OSError("no room")

    go_back_to(REVISIONS[-1])
    monkeypatch.setattr(database, "check_columns", refuse)
    monkeypatch.setattr(database, "put_back", refuse)
    failed = run_upgrade(bare)
    assert failed.code == 1
    assert f"It could not be put back (no room): restore {backups_before_upgrades()[0]}" in failed.lines[0]


def test_no_upgrade_while_the_site_is_served(bare, people, team, empty_folder):
    go_back_to(REVISIONS[-1])
    before = everything()
    with database.lock_data_folder(alone=False):
        refused = run_upgrade(bare)
    assert refused.code == 1
    assert "Corkboard already uses the data folder" in refused.lines[0]
    assert f"(process {os.getpid()}). Stop it first" in refused.lines[0]
    assert everything() == before
    assert backups_before_upgrades() == []


def test_what_is_up_to_date_is_left_alone_and_an_empty_database_is_filled(bare, people, empty_folder):
    with database.lock_data_folder(alone=True):
        assert run_upgrade(bare).lines == ["The database is up to date."]
    without_schema()
    assert run_upgrade(bare).lines == ["The database is ready."]
    database.check_ready()
    assert backups_before_upgrades() == []


def test_of_a_site_that_is_upgraded_the_oldest_open_topic_is_followed_by_default(bare, people, topics):
    from flask_migrate import downgrade

    add_topic(people.editor, "Garden")
    Topic.delete(people.editor, topics.open.id)
    add_topic(people.editor, "Kitchen")
    downgrade(directory=str(database.MIGRATIONS), revision="0002_programs_and_mail")
    database.upgrade_schema()
    assert [*db.session.scalars(sa.select(Topic.name).where(Topic.followed_by_default))] == ["Garden"]


def test_a_site_without_topics_is_upgraded_as_well(bare):
    from flask_migrate import downgrade

    downgrade(directory=str(database.MIGRATIONS), revision="0002_programs_and_mail")
    database.upgrade_schema()
    assert differences() == []


@pytest.fixture
def migrations(bare, tmp_path):
    """A copy of the migrations that a test may add to; the schema is as it was afterwards."""
    from flask_migrate import downgrade

    folder = tmp_path / "migrations"
    shutil.copytree(database.MIGRATIONS, folder)
    head = database._script_heads()[0].pop()
    yield folder
    db.session.rollback()
    downgrade(directory=str(folder), revision=head)


@pytest.fixture
def more_models():
    """Columns and a table that somebody adds to the models, as people write them."""
    users, metadata = db.metadata.tables["users"], db.metadata
    size = sa.Column("shoe_size", sa.String(10), nullable=False, default="unknown")
    columns = [
        size,
        sa.Column("vegan", sa.Boolean, nullable=False),
        sa.Column("lunches", sa.Integer, nullable=False),
        sa.Column("about", database.LongText, nullable=False),
        sa.Column("hired_at", database.Timestamp, nullable=False),
        sa.Column("boss_id", sa.Integer, sa.ForeignKey("users.id")),
    ]
    for column in columns:
        users.append_column(column)
    index = sa.Index("ix_users_shoe_size", size)
    table = sa.Table(
        *("lunches", metadata, sa.Column("id", sa.Integer, primary_key=True)),
        sa.Column("dish", sa.String(80), nullable=False, index=True),
        sa.Column("cook_id", sa.ForeignKey("users.id"), nullable=False),
    )
    yield
    users.indexes.remove(index)
    for column in columns:
        for key in column.foreign_keys:
            users.constraints.discard(key.constraint)
            users.foreign_keys.discard(key)
            metadata._fk_memos.clear()
        users._columns.remove(column)
    metadata.remove(table)


def test_a_migration_is_written_that_can_be_read_and_run_on_what_is_there(migrations, people, more_models):
    from flask_migrate import downgrade, migrate, upgrade

    migrate(directory=str(migrations), message="Shoes & lunch")
    (path,) = migrations.glob("versions/*_shoes_lunch.py")
    written = path.read_text(encoding="utf-8")
    revisions = len([*migrations.glob("versions/*.py")])
    assert path.name == f"{revisions:04}_shoes_lunch.py"
    assert written.startswith('"""Shoes & lunch."""\n')
    assert "search_" not in written
    assert "###" not in written
    assert subprocess.run([sys.executable, "-m", "ruff", "format", "--check", str(path)], check=False).returncode == 0
    head = database._script_heads()[0].pop()
    for interrupted_at in range(100):
        try:
            with power_cut(interrupted_at):
                upgrade(directory=str(migrations))
            break
        except (PowerCut, click.ClickException):  # Alembic wants to drop the half table that is gone already
            upgrade(directory=str(migrations))
        assert differences() == []
        downgrade(directory=str(migrations), revision=head)
    assert 2 < interrupted_at < 50
    with db.engine.connect() as connection:
        row = connection.execute(sa.text("SELECT * FROM users WHERE username = 'member'")).mappings().one()
    found = [row["shoe_size"], row["vegan"], row["lunches"], row["about"], str(row["hired_at"])[:10], row["boss_id"]]
    assert found == ["unknown", 0, 0, "", "2000-01-01", None]
    migrate(directory=str(migrations), message="nothing")
    assert len([*migrations.glob("versions/*.py")]) == revisions


AGAIN = """
from alembic import op
import sqlalchemy as sa

revision, down_revision = "again", {head!r}


def upgrade():
    for name in {tables!r}:
        with op.batch_alter_table(name, recreate="always") as batch:
            batch.add_column(sa.Column("again", sa.Integer()))
    {more}


def downgrade():
    for name in {tables!r}:
        with op.batch_alter_table(name) as batch:
            batch.drop_column("again")
"""


def rows_as_counted() -> dict[str, int]:
    made = sa.inspect(db.engine).get_table_names()
    with db.engine.connect() as connection:
        count = sa.select(sa.func.count())
        tables = [table for name, table in db.metadata.tables.items() if name in made]
        return {table.name: connection.scalar(count.select_from(table)) for table in tables}


def make_again(migrations, more: str = "pass") -> None:
    from flask_migrate import upgrade

    head, tables = database._script_heads()[0].pop(), [*db.metadata.tables]
    text = AGAIN.format(head=head, tables=tables, more=more)
    (migrations / "versions" / "again.py").write_text(text, encoding="utf-8")
    upgrade(directory=str(migrations))


@only_sqlite
def test_every_table_can_be_made_again_with_its_rows_and_the_search_follows(migrations, people, team, sign_in):
    gone = add_person("gone").id
    with db.engine.begin() as connection:
        connection.execute(sa.delete(User).where(User.id == gone))
    before = rows_as_counted()
    make_again(migrations)
    assert before == rows_as_counted()
    with db.engine.connect() as connection:
        highest = connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'users'").scalar()
        made = "SELECT COUNT(*) FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'"
        assert connection.exec_driver_sql(made).scalar() > 10
    assert highest >= gone, "an id that was given once is given to nobody else"
    assert rows_as_counted() == before
    with db.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert not connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        triggers = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'trigger'"
        assert connection.exec_driver_sql(triggers).scalar() >= 2


@only_sqlite
def test_a_migration_that_would_leave_a_row_without_what_it_refers_to_changes_nothing(migrations, people, team):
    before = rows_as_counted()
    with pytest.raises(database.SchemaError, match="without their users"):
        make_again(migrations, "op.execute(\"DELETE FROM users WHERE username = 'member'\")")
    assert rows_as_counted() == before
    (migrations / "versions" / "again.py").unlink()


# -- The site's id -----------------------------------------------------------------------------------------------------


@pytest.fixture
def other_folder(bare):
    """The application with the data folder of another site."""
    database.keep_site_id("another site")
    return bare


def store_file(name: str = "0" * 32) -> Path:
    """A file in the data folder, as old as files are that nobody is about to save any more."""
    path = corkboard.stored_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"words")
    os.utime(path, (0, 0))
    return path


def test_the_database_and_the_folder_have_one_id(app):
    assert re.fullmatch("[0-9a-f]{32}", database.folder_site_id())
    assert database.folder_site_id() == database.database_site_id()


def test_a_database_with_the_folder_of_another_site_is_not_served(other_folder):
    answer = other_folder.test_client().get("/login")
    assert answer.status_code == 503
    assert "belong to two sites" in answer.text
    assert "DATABASE_URL" in answer.text
    assert other_folder.test_client().get("/readyz").status_code == 503
    with pytest.raises(database.SiteMismatch, match="belong together"):
        database.ensure_schema(other_folder)
    for command in ("check", "init-db", "create-admin anna", "jobs run"):
        refused = other_folder.test_cli_runner().invoke(args=command.split())
        assert refused.exit_code == 1
        assert "belong to two sites" in refused.output


def test_a_database_with_the_folder_of_another_site_prunes_nothing(other_folder, people):
    path = store_file()
    with pytest.raises(database.SiteMismatch):
        Attachment.prune()
    (job,) = [job for job in corkboard.JOBS if job.name == "clean-up"]
    assert "belong to two sites" in corkboard.run_job(job, early=True)
    assert path.exists()
    path.unlink()


def test_a_folder_that_was_in_use_meets_no_empty_database(bare):
    without_schema()
    database.keep_site_id("a site that has moved")
    with pytest.raises(database.SiteMismatch):
        database.ensure_schema(bare)
    assert bare.test_cli_runner().invoke(args=["init-db"]).exit_code == 1
    assert "users" not in sa.inspect(db.engine).get_table_names()


def test_a_database_that_knows_none_of_the_files_prunes_nothing_and_check_says_so(bare, people, empty_folder):
    path = store_file()
    assert Attachment.prune() == 0
    assert path.exists()
    checked = bare.test_cli_runner().invoke(args=["check"])
    assert checked.exit_code == 1
    assert "FAILED  files: the database knows none of those in" in checked.output
    path.unlink()
    assert "ok      files: no files" in bare.test_cli_runner().invoke(args=["check"]).output


def test_a_fresh_site_gets_an_id_and_keeps_it(bare):
    without_schema()
    for _ in range(2):
        assert bare.test_cli_runner().invoke(args=["init-db"]).exit_code == 0
        first = database.folder_site_id()
        assert first == database.database_site_id() != ""
    database.ensure_schema(bare)
    assert database.folder_site_id() == first


def test_a_folder_with_files_of_somebody_else_gets_no_id(bare):
    without_schema()
    path = store_file()
    assert bare.test_cli_runner().invoke(args=["init-db"]).exit_code == 0
    assert database.folder_site_id() == database.database_site_id() == ""
    path.unlink()


def test_a_copy_of_the_database_alone_begins_in_a_new_folder(app, people):
    kept = database.folder_site_id()
    (database.data_folder() / "site_id").unlink()
    database.ensure_schema(app)
    assert database.folder_site_id() == kept


@only_mysql
def test_people_who_were_left_in_sqlite_are_told_with_how_to_move(bare):
    without_schema()
    path = database.data_folder() / "corkboard.db"
    with contextlib.closing(sqlite3.connect(path)) as left:
        left.execute("CREATE TABLE users (id INTEGER)")
        assert database.moving_advice() == ""
        left.execute("INSERT INTO users VALUES (1)")
        left.commit()
    assert bare.test_cli_runner().invoke(args=["init-db"]).exit_code == 0
    assert "python -m flask backup" in database.moving_advice()
    checked = bare.test_cli_runner().invoke(args=["check"])
    assert checked.exit_code == 1
    assert "FAILED  administrator: there is none" in checked.output
    assert "python -m flask restore" in checked.output
    assert database.folder_site_id() == "", "so that whoever goes back to SQLite is let in"
    add_person("anna")
    assert database.moving_advice() == ""
    path.unlink()


# -- Who uses the data folder ------------------------------------------------------------------------------------------


def test_one_process_has_the_folder_alone_and_several_may_share_it(app):
    with database.lock_data_folder(alone=True):
        for alone in (True, False):
            with pytest.raises(click.ClickException, match=f"process {os.getpid()}"):
                database.lock_data_folder(alone)
    with (
        database.lock_data_folder(alone=False),
        database.lock_data_folder(alone=False),
        pytest.raises(click.ClickException, match="Stop it first"),
    ):
        database.lock_data_folder(alone=True)
    database.lock_data_folder(alone=True).close()


@only_sqlite
def test_on_windows_bytes_far_behind_the_number_are_locked(app, monkeypatch):
    positions, taken = [], False

    def locking(descriptor, mode, length):
        if taken:
            raise PermissionError(errno.EACCES, "locked")
        positions.append((os.lseek(descriptor, 0, os.SEEK_CUR), mode, length))

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking))
    first, many = database.LOCKED_BYTE, database.LOCKED_BYTES
    with database.lock_data_folder(alone=True), database.lock_data_folder(alone=False):
        assert positions == [(first, 2, many), (first + os.getpid() % many, 2, 1)]
        taken = True
        with pytest.raises(click.ClickException, match=f"process {os.getpid()}"):
            database.lock_data_folder(alone=True)
    assert (database.data_folder() / "serve.lock").read_text() == f"{os.getpid()}\n"


@only_sqlite
def test_a_lock_that_cannot_be_written_is_told(app, monkeypatch, tmp_path):
    (tmp_path / "serve.lock").mkdir()
    monkeypatch.setitem(app.config, "DATA_DIR", tmp_path)
    with pytest.raises(click.ClickException, match="cannot be written to"):
        database.lock_data_folder(alone=True)


def set_revision(revision: str | None) -> None:
    db.session.rollback()
    with db.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM alembic_version"))
        if revision:
            connection.execute(sa.text("INSERT INTO alembic_version VALUES (:r)"), {"r": revision})


def ruin(kind: str, monkeypatch) -> None:
    if kind == "absent":
        without_schema()
    elif kind == "newer":
        set_revision("9999")
    elif kind == "development":
        set_revision("0004")
    else:
        known = database._script_heads()[1]
        monkeypatch.setattr(database, "_script_heads", lambda: ({"later"}, {"later", *known}))


@pytest.mark.parametrize(("kind", "words"), [
    ("absent", "The database is empty."), ("older", "older than this version"), ("newer", "newer version of Corkboard"),
    ("development", "development version of Corkboard and cannot be upgraded"),
])  # fmt: skip
def test_on_a_schema_that_does_not_fit_the_site_names_the_command_and_commands_work(bare, monkeypatch, kind, words):
    browser = bare.test_client()
    ruin(kind, monkeypatch)
    for path in ("/", "/login", "/nowhere"):
        answer = browser.get(path)
        assert answer.status_code == 503
        assert words in answer.text
        assert f"python -m flask {'upgrade' if kind == 'older' else 'init-db'}" in answer.text
        assert answer.headers["Retry-After"] == "30"
    assert browser.get("/healthz").status_code == 200
    with browser.get("/static/app.css") as style:
        assert style.status_code == 200
    ready = browser.get("/readyz")
    assert ready.status_code == 503
    assert words in ready.json["reason"]
    checked = bare.test_cli_runner().invoke(args=["check"])
    assert checked.exit_code == 1
    assert words in checked.output
    for command in ("create-admin anna", "seed-demo", "setup-link"):
        refused = bare.test_cli_runner().invoke(args=command.split())
        assert refused.exit_code == 1
        assert words in refused.output


def test_the_site_answers_as_soon_as_the_schema_is_there(bare):
    browser = bare.test_client()
    without_schema()
    assert browser.get("/login").status_code == 503
    assert bare.test_cli_runner().invoke(args=["init-db"]).exit_code == 0
    assert browser.get("/login").status_code == 200
    assert browser.get("/readyz").status_code == 200


@pytest.mark.parametrize("kind", ["newer", "development"])
def test_init_db_leaves_a_database_alone_that_it_does_not_know(bare, monkeypatch, kind):
    before = columns_as_made()
    ruin(kind, monkeypatch)
    result = bare.test_cli_runner().invoke(args=["init-db"])
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert f"made by a {kind} version" in result.output
    assert columns_as_made() == before


@pytest.mark.parametrize("kind", ["older", "newer", "development"])
def test_a_served_start_never_changes_a_schema_unasked(bare, monkeypatch, kind):
    before = columns_as_made()
    ruin(kind, monkeypatch)
    with pytest.raises(database.SchemaError, match=r"python -m flask (init-db|upgrade)"):
        database.ensure_schema(bare)
    assert columns_as_made() == before


def test_a_served_start_makes_the_schema_on_a_fresh_sqlite_only(bare):
    without_schema()
    if database.is_sqlite():
        database.ensure_schema(bare)
        database.check_schema()
    else:
        with pytest.raises(database.SchemaError, match="python -m flask init-db"):
            database.ensure_schema(bare)
        assert not sa.inspect(db.engine).get_table_names()


def test_a_served_start_leaves_a_file_with_other_tables_alone(tmp_path):
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE recipes (id INTEGER)")
    other.close()
    app = corkboard.create_app(settings(tmp_path, f"sqlite:///{path.as_posix()}"))
    with pytest.raises(database.SchemaError):
        database.ensure_schema(app)
    close(app)


def test_building_an_application_touches_no_schema_and_opens_no_connection(tmp_path):
    app = corkboard.create_app(settings(tmp_path, f"sqlite:///{(tmp_path / 'new.db').as_posix()}"))
    assert not (tmp_path / "new.db").exists()
    close(app)


def test_the_first_migration_can_be_taken_back(tmp_path):
    from flask_migrate import downgrade

    with made_app(tmp_path, f"sqlite:///{(tmp_path / 'new.db').as_posix()}") as app, app.app_context():
        downgrade(directory=str(database.MIGRATIONS), revision="base")
        assert sa.inspect(db.engine).get_table_names() == ["alembic_version"]
        database.upgrade_schema()
        database.check_schema()


def test_the_heads_are_one():
    scripts = ScriptDirectory(str(database.MIGRATIONS))
    assert len(scripts.get_heads()) == 1
    assert len([*scripts.walk_revisions()]) == len([*database.MIGRATIONS.glob("versions/*.py")])


# -- What a page asks --------------------------------------------------------------------------------------------------


@contextmanager
def counted():
    """The statements that are sent meanwhile, with their parameters; all but BEGIN, COMMIT and ROLLBACK."""
    statements: list[tuple[str, object]] = []

    def note(_connection, _cursor, statement, parameters, *_more):
        if statement.split(None, 1)[0].upper() not in ("BEGIN", "COMMIT", "ROLLBACK"):
            statements.append((statement, parameters))

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


@pytest.fixture
def team(people, topics):
    """A site with enough on it that every part of every page has something to show."""
    news = many_posts(people.member, topics.open, 30)
    many_posts(people.editor, topics.private, 30)
    pages = many_posts(people.editor, topics.open, 30, "page")
    for post_id in news[:3]:
        Post.pin(people.editor, post_id, True)
    post = db.session.get(Post, news[0])
    many_comments(people.editor, post, 60)
    User.edit_profile(people.member, away_until=date(2099, 1, 1), stand_in_id=people.editor.id)
    return SimpleNamespace(news=news, pages=pages, post=post.id)


# Without BEGIN, which is one more; a read mark takes four statements of its own.
BUDGETS = [
    ("/", 9), ("/?before={before}", 9), ("/posts/{post}", 14), ("/posts/{post}?before={comments}", 14),
    ("/handbook", 9), ("/people", 9), ("/people?q=a", 9), ("/topics/everyone", 9), ("/people/member", 9),
    ("/posts/{page}", 12),  # its tree is one statement
]  # fmt: skip


@pytest.mark.parametrize("who", ["reader", "admin"])
def test_hot_pages_keep_to_their_statements(app, people, team, sign_in, who):
    browser = sign_in(getattr(people, who))
    before = corkboard.encode_cursor([datetime(2026, 3, 1, 12, 0, 0, 123456), team.news[15]])
    for path, most in BUDGETS:
        address = path.format(post=team.post, page=team.pages[0], before=before, comments=corkboard.encode_cursor([55]))
        browser.get(address)
        for _ in ("nothing has changed", "somebody has commented"):
            with counted() as statements:
                assert browser.get(address).status_code == 200
            assert 1 <= len(statements) <= most, (address, [statement for statement, _ in statements])
            add_comment(people.editor, db.session.get(Post, team.post))


def test_a_comment_costs_few_statements(app, people, team, sign_in):
    browser = sign_in(people.member)
    browser.submit(f"/posts/{team.post}/comments", {"body": "First"})
    with counted() as statements:
        assert browser.submit(f"/posts/{team.post}/comments", {"body": "Second"}).status_code == 303
    assert len(statements) <= 14, [statement for statement, _ in statements]


def get_addresses(app, team, topic: int, person: int) -> list[str]:
    values = {"post_id": team.post, "comment_id": 0, "slug": "everyone", "username": "member", "topic_id": topic,
              "user_id": person, "filename": "app.css", "number": 1, "file_id": 0, "name": "a.png",
              "size": "thumb", "token": "x", "group_id": 0}  # fmt: skip
    with db.engine.connect() as connection:
        values["comment_id"] = connection.scalar(sa.select(sa.func.max(Comment.id)))
    rules = [rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())]
    assert all(rule.arguments <= {*values} for rule in rules), "tell this test what the new address needs"
    return [re.sub(r"<(?:[^:>]+:)?(\w+)>", lambda found: str(values[found[1]]), rule.rule) for rule in rules]


def test_a_page_that_is_looked_at_writes_only_that_it_was(app, people, topics, team, sign_in):
    addresses = get_addresses(app, team, topics.open.id, people.member.id)
    assert len(addresses) > 20
    browsers = [app.test_client(), *(sign_in(getattr(people, who)) for who in ("reader", "editor", "admin"))]
    harmless = ("SELECT", "WITH", "PRAGMA", "SHOW", "DESCRIBE")  # the last three ask for the schema, once
    harmless += ("INSERT INTO READ_MARKS", "UPDATE NOTIFICATIONS SET READ_AT")
    # By these, /readyz and Administration see that something can be written.
    harmless += ("INSERT INTO THROTTLES", "DELETE FROM THROTTLES")
    for browser in browsers:
        browser.get("/")  # notes the visit
        for address in addresses:
            with counted() as statements, browser.get(address) as answer:
                assert answer.status_code < 500
            asked = [statement.upper() for statement, _ in statements]
            assert not [statement for statement in asked if not statement.startswith(harmless)], address
            assert not [statement for statement in asked if "FOR UPDATE" in statement or "SHARE MODE" in statement]


def test_no_list_counts_or_skips(app, people, topics, team, sign_in):
    browser = sign_in(people.reader)
    for address in ("/", "/handbook", "/people", "/topics/everyone", "/people/member", f"/posts/{team.post}"):
        with counted() as statements:
            browser.get(address)
        asked = " ".join(statement.upper() for statement, _ in statements)
        assert "COUNT(*)" not in asked
        assert not re.search(r"OFFSET (?!0)", re.sub(r"LIMIT \S+ OFFSET \?", "", asked)), asked


# -- Plans -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def crowd(app, people, topics):
    """Thousands of posts over time, most of them open, some of one author; the engine's statistics fresh."""
    names = [add_person(f"writer{n}") for n in range(3)]
    common = {"kind": "news", "version": 1, "excerpt": "", "renderer": 1, "comment_count": 0, "body": "", "html": "",
              "title": "T", "title_key": "t"}  # fmt: skip
    many = [
        common | {
            "form_id": f"{n:032x}", "author_id": names[n % 3].id, "editor_id": names[n % 3].id,
            "topic_id": (topics.private if n % 5 == 0 else topics.open).id,
            "published_at": NOW + timedelta(minutes=n), "updated_at": NOW + timedelta(minutes=n),
            "pinned_at": NOW if n % 1000 == 0 else None, "deleted_at": NOW if n % 50 == 0 else None,
        }
        for n in range(4000)
    ]  # fmt: skip
    with db.engine.begin() as connection:
        connection.execute(sa.insert(Post), many)
    if not database.is_sqlite():
        with db.engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE TABLE posts, users, topics").fetchall()


LISTS = ["/", "/?before={middle}", "/topics/everyone", "/topics/everyone?before={middle}", "/people/writer1",
         "/people/writer1?before={middle}"]  # fmt: skip


def plan_of(asked: tuple[str, object]) -> list[sa.RowMapping]:
    """The rows that the engine explains a statement with."""
    how = "EXPLAIN QUERY PLAN " if database.is_sqlite() else "EXPLAIN "
    with db.engine.connect() as connection:
        return [row._mapping for row in connection.exec_driver_sql(how + asked[0], asked[1])]


def explained(browser, address: str) -> list[str]:
    """The lines of the plan by which the engine finds the posts of a page."""
    with counted() as statements:
        assert browser.get(address).status_code == 200
    (asked,) = [found for found in statements if "excerpt" in found[0] and "pinned_at IS NOT NULL" not in found[0]]
    return [str(row) for row in plan_of(asked)]


def test_lists_are_found_by_an_index_that_has_them_in_order_already(app, people, crowd, sign_in):
    browser = sign_in(people.reader)
    middle = corkboard.encode_cursor([NOW + timedelta(minutes=2000), 5])
    for address in LISTS:
        plan = explained(browser, address.format(middle=middle))
        if database.is_sqlite():
            assert any("posts USING" in line for line in plan), plan
            assert not [line for line in plan if re.search(r"SCAN posts\b|TEMP B-TREE", line)], (address, plan)
        else:
            posts = [line for line in plan if "'table': 'posts'" in line]
            assert posts, plan
            for line in posts:
                assert "ix_posts_" in line.partition("'key':")[2], (address, plan)
                assert "'type': 'range'" in line, (address, plan)  # not from the index's beginning to a page far down
                assert "filesort" not in line, (address, plan)
                assert "temporary" not in line, (address, plan)


def test_whether_a_topic_has_new_posts_is_found_by_its_index_and_no_old_post_is_looked_at(app, people, crowd, sign_in):
    set_columns(User, people.reader.id, previous_visit_at=NOW + timedelta(minutes=3990))
    browser = sign_in(people.reader)
    with counted() as statements:
        browser.get("/topics")
    (asked,) = [found for found in statements if "has_new" in found[0]]
    plan = [str(row) for row in plan_of(asked)]
    posts = [line for line in plan if "posts USING" in line or "'table': 'posts'" in line]
    assert len(posts) == 1, plan
    assert "published_at>?" in posts[0] or "'type': 'range'" in posts[0], plan


def test_what_one_owes_is_found_by_its_index_and_no_post_is_looked_at_in_vain(app, people, topics, crowd, sign_in):
    owed = add_post(people.member, topics.open, "Fire drill")
    Acknowledgement.require(people.editor, owed.id, roles=[Role.READER])
    browser = sign_in(people.reader)
    with counted() as statements:
        assert "Please read" in browser.get("/").text
    (asked,) = [found for found in statements if "must_read_since" in found[0]]
    plan = plan_of(asked)
    if database.is_sqlite():
        lines = [row["detail"] for row in plan if re.search(r"\bposts\b", row["detail"])]
        assert any("ix_posts_must_read" in line for line in lines), [row["detail"] for row in plan]
        assert not [line for line in lines if line.startswith("SCAN")], plan
    else:
        posts = [row for row in plan if row["table"] == "posts"]
        assert any(row["key"] == "ix_posts_must_read" for row in posts), plan
        assert not [row for row in posts if row["type"] in ("ALL", "index")], plan


def test_what_somebody_might_have_meant_is_looked_for_in_the_newest_entries_alone(app, people, crowd, sign_in):
    browser = sign_in(people.reader)
    entries = sa.select(sa.literal("post"), Post.id, Post.id, Post.published_at, sa.literal("zzzoven zzzbread"))
    with db.engine.begin() as connection:
        columns = ["kind", "object_id", "post_id", "at", "tokens"]
        connection.execute(sa.insert(SearchEntry).from_select(columns, entries.where(Post.version == 1)))
    if not database.is_sqlite():
        with db.engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE TABLE search_entries").fetchall()
    with counted() as statements:
        assert "Did you mean" in browser.get("/search?q=ovne").text
    (asked,) = [found for found in statements if re.match("SELECT (STRAIGHT_JOIN )?search_entries.tokens", found[0])]
    plan = [str(row) for row in plan_of(asked)]
    assert not [line for line in plan if re.search("TEMP B-TREE|filesort|temporary", line)], plan


def test_a_deep_page_reads_no_more_rows_than_the_first(app, people, crowd, sign_in):
    browser = sign_in(people.reader)
    deep = corkboard.encode_cursor([NOW + timedelta(minutes=30), 5])
    assert browser.get(f"/?before={deep}").text.count('<article class="post">') == 20
    if database.is_sqlite():
        plan = explained(browser, f"/?before={deep}")
        assert any(
            "ix_posts_news (kind=? AND deleted_at=? AND published_at>? AND published_at<?)" in line for line in plan
        ), plan


def test_activities_and_roles_keep_their_types(app, people):
    assert db.session.scalar(sa.select(User.role).where(User.id == people.admin.id)) is Role.ADMIN
    assert db.session.scalar(sa.select(Activity.at).limit(1)).tzinfo is None
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Topic)) == 0
