"""Everything that differs between SQLite and MySQL/MariaDB, and everything that protects the data.

1. Column types and keys     the column types of the models, the same on both engines
2. Engine                    `db`, `migrate`, `init_db(app)`, the settings of each connection
3. Transactions              `@transactional`: one transaction, retried as a whole
4. Statements                the SQL that the engines spell differently
5. Schema                    whether the tables exist and are current, and how to upgrade them
6. The site's id             whether the database and the data folder belong together
7. Full-text search          the words of a text, the index over them, and its queries
8. Backup and restore        the whole site in one file, and that file onto either engine
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import itertools
import json
import logging
import os
import random
import re
import secrets
import shutil
import sqlite3
import stat
import tempfile
import threading
import time
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, ParamSpec, TypeVar

import click
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask, current_app, g, has_app_context
from flask_migrate import Migrate, upgrade
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event, orm
from sqlalchemy.dialects.mysql import insert as insert_mysql
from sqlalchemy.dialects.mysql import match as match_mysql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles

from config import FLASK

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("corkboard.database")

MIGRATIONS = Path(__file__).resolve().parent / "migrations"


# ======================================================================================================================
# == 1. Column types and keys ==========================================================================================
# ======================================================================================================================

# Text is compared byte by byte on both engines. MySQL's default collations treat 'Anna', 'anna ' and 'änna' as equal,
# but SQLite does not. Text that is compared loosely has a key column, which `fold` or `sort_key` fills.
MYSQL_TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


class TimestampType(sa.DateTime):
    """A moment with microseconds, which MySQL's plain DATETIME drops."""


class LongTextType(sa.Text):
    """Text of up to 16 MB. MySQL's plain TEXT holds 64 KB."""


@compiles(TimestampType, "mysql", "mariadb")
def _mysql_timestamp(_type: TimestampType, _compiler: Any, **_options: Any) -> str:
    return "DATETIME(6)"


@compiles(LongTextType, "mysql", "mariadb")
def _mysql_long_text(_type: LongTextType, _compiler: Any, **_options: Any) -> str:
    return "MEDIUMTEXT"


Timestamp = TimestampType()
LongText = LongTextType()


def utcnow() -> datetime:
    """Return the time as it is stored: naive UTC with microseconds."""
    return datetime.now(UTC).replace(tzinfo=None)


def fold(text: str) -> str:
    """Return the key by which usernames and email addresses are compared: NFKC, casefold, strip (see RFC 8265)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).strip()


def sort_key(text: str, length: int = 200) -> str:
    """Return the key by which titles and names are sorted and filtered: folded, and without accents."""
    decomposed = unicodedata.normalize("NFKD", fold(text))
    bare = "".join(char for char in decomposed if not unicodedata.combining(char))
    return unicodedata.normalize("NFC", bare)[:length]


# ======================================================================================================================
# == 2. Engine =========================================================================================================
# ======================================================================================================================


class Base(orm.DeclarativeBase):
    """The base class of the models. Each constraint has a name, so that a migration can change it.

    A `Mapped[datetime]` is a `Timestamp`. That is said in a registry of our own, because Flask-SQLAlchemy copies this
    class, and SQLAlchemy refuses a copy with both a registry and a `type_annotation_map`.
    """

    registry = orm.registry(
        metadata=sa.MetaData(
            naming_convention={
                "ix": "ix_%(table_name)s_%(column_0_N_name)s",
                "uq": "uq_%(table_name)s_%(column_0_N_name)s",
                "ck": "ck_%(table_name)s_%(constraint_name)s",
                "fk": "fk_%(table_name)s_%(column_0_name)s",
                "pk": "pk_%(table_name)s",
            }
        ),
        type_annotation_map={datetime: Timestamp},
    )


@event.listens_for(sa.Table, "after_parent_attach")
def _use_no_id_twice(table: sa.Table, _metadata: sa.MetaData) -> None:
    # Else SQLite gives the highest id again once its row is deleted, and an old link shows something else. MySQL never
    # does. Migrations make their tables by this rule too.
    if table.autoincrement_column is not None:
        table.kwargs["sqlite_autoincrement"] = True


db = SQLAlchemy(model_class=Base, session_options={"expire_on_commit": False})
migrate = Migrate(directory=str(MIGRATIONS))

BUSY_SECONDS = 5  # how long a writer waits for another writer
HANG_SECONDS = BUSY_SECONDS + 3  # how long a page waits for a MySQL server that says nothing: longer than for a lock
SQLITE_PRAGMAS = ("journal_mode = WAL", "foreign_keys = ON", "synchronous = FULL", "temp_store = MEMORY")
MYSQL_INIT_COMMAND = (
    "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO',"
    f" innodb_lock_wait_timeout = {BUSY_SECONDS}, time_zone = '+00:00'"
)
# Kinds of errors, as `error_kind` returns them. A Galera node without quorum passes a ping, and answers each query with
# 1047. SQLite opens a file that it may not write for reading only, and the connection stays as it was opened.
DISCONNECTS = {1047, 2006, 2013, "SQLITE_READONLY"}
FULL = {1021, 1114, "SQLITE_FULL"}
UNAVAILABLE = DISCONNECTS | FULL | {1040, 1053, 1205, 1290, 2002, 2003}
UNAVAILABLE |= {"SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_IOERR"}


class DatabaseBusy(Exception):
    """Another writer of this process held the write lock for too long."""


class DatabaseState:
    """The state that one application keeps: its write lock for SQLite, and whether the schema is current."""

    def __init__(self) -> None:
        self.write_lock = threading.Lock()
        self.schema_ok = False
        self.schema_checked = float("-inf")  # monotonic seconds
        self.schema_lock = threading.Lock()  # of the one who checks it


def database_state() -> DatabaseState:
    """Return the `DatabaseState` of the current application."""
    return current_app.extensions["corkboard.database"]


def is_sqlite() -> bool:
    """Whether the current application uses SQLite."""
    return current_app.config["DATABASE_URL"].startswith("sqlite")


def init_db(app: Flask) -> None:
    """Bind `db` to the application's DATABASE_URL. This opens no connection and does not touch the schema."""
    url: str = app.config["DATABASE_URL"]
    sqlite = url.startswith("sqlite")
    options = _sqlite_options(app) if sqlite else _mysql_options(app)
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    # Errors are logged, and the log must not contain what people typed or the hashes of their passwords.
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"hide_parameters": True} | options
    app.extensions["corkboard.database"] = DatabaseState()
    db.init_app(app)
    migrate.init_app(app, db)
    with app.app_context():
        engine = db.engine
    event.listen(engine, "connect", _set_up_sqlite if sqlite else _set_up_mysql)
    event.listen(engine, "handle_error", _mark_disconnect)
    event.listen(engine, "before_cursor_execute", _begin_statement)
    event.listen(engine, "after_cursor_execute", _end_statement)
    if sqlite:
        event.listen(engine, "begin", _begin_sqlite)


def _sqlite_options(app: Flask) -> dict[str, Any]:
    # isolation_level=None, because the driver's own BEGIN breaks savepoints and transactional DDL: see _begin_sqlite.
    arguments = {"timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": False}
    return {"connect_args": arguments, "pool_size": app.config["THREADS"] + 1, "max_overflow": 8}


def _mysql_options(app: Flask) -> dict[str, Any]:
    arguments = {"connect_timeout": BUSY_SECONDS, "init_command": MYSQL_INIT_COMMAND, "charset": "utf8mb4"}
    if not click.get_current_context(silent=True):  # a command may take longer: an upgrade, a restore
        arguments |= {"read_timeout": HANG_SECONDS, "write_timeout": HANG_SECONDS}
    return {
        "connect_args": arguments,
        "isolation_level": "READ COMMITTED",
        "pool_pre_ping": True,
        "pool_recycle": 1800,
        "pool_size": app.config["THREADS"] + 1,
        "max_overflow": 8,
        "pool_timeout": BUSY_SECONDS,
    }


def _set_up_sqlite(raw: sqlite3.Connection, _record: object) -> None:
    for pragma in SQLITE_PRAGMAS:
        raw.execute(f"PRAGMA {pragma}")


def _set_up_mysql(raw: Any, _record: object) -> None:
    # The server may be configured for another collation, and literals would then be compared differently from columns.
    with raw.cursor() as cursor:
        cursor.execute("SET NAMES utf8mb4 COLLATE utf8mb4_bin")


def checkpoint() -> None:
    """Bring SQLite's log into the database file, so that a copy of that file alone has everything in it.

    While somebody else is at work, nothing happens: whoever ends last does it.
    """
    if not is_sqlite():
        return
    db.session.rollback()
    with contextlib.suppress(SQLAlchemyError, sqlite3.Error):
        raw = db.engine.raw_connection()
        try:
            for pragma in ("busy_timeout = 500", "wal_checkpoint(TRUNCATE)"):
                raw.cursor().execute(f"PRAGMA {pragma}")
        finally:
            raw.invalidate()  # or the next one would be given its impatience


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that reads first fails at its first write if another writer came between. IMMEDIATE waits instead.
    statement = "BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN"
    connection.exec_driver_sql(statement)


def _begin_statement(*event: Any) -> None:
    event[4].began_at = time.perf_counter()  # the fifth argument: the context of this execution


def _end_statement(*event: Any) -> None:
    if has_app_context() and (work := g.get("database_work")):
        work.statements += 1
        work.seconds += time.perf_counter() - event[4].began_at


def database_size() -> int:
    """How many bytes the database takes on its disk."""
    if is_sqlite():
        return os.stat(db.engine.url.database or "").st_size
    names = ("table_schema", "data_length", "index_length")
    tables = sa.table("tables", *map(sa.column, names), schema="information_schema").c
    taken = sa.select(sa.func.sum(tables.data_length + tables.index_length))
    return int(db.session.scalar(taken.where(tables.table_schema == sa.func.database())) or 0)


def error_code(error: BaseException | None) -> int:
    """Return the MySQL error number of a driver's exception, or 0 if it has none."""
    arguments = getattr(error, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0


def error_kind(error: BaseException | None) -> int | str:
    """Return MySQL's number of a driver's exception, or the first two words of SQLite's name, such as SQLITE_BUSY."""
    return error_code(error) or "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])


def _mark_disconnect(context: Any) -> None:
    """Discard a connection that is of no more use, and let the next request ask how the database is."""
    kind = error_kind(context.original_exception)
    context.is_disconnect = context.is_disconnect or kind in DISCONNECTS
    if kind == "SQLITE_READONLY" and context.execution_context:
        context.execution_context.cursor.close()  # or its statement would keep the file open, and its log full
    if context.connection is None and not context.is_pre_ping and has_app_context():  # it could not be reached
        database_state().schema_ok = False


def is_full(error: BaseException) -> bool:
    """Whether an exception means that the disk is full."""
    return error_kind(getattr(error, "orig", None)) in FULL


def is_unavailable(error: BaseException) -> bool:
    """Whether an exception means that the database cannot be reached or written now, and may be later."""
    if isinstance(error, (DatabaseBusy, PoolTimeout)):
        return True
    if not isinstance(error, (OperationalError, InterfaceError)):
        return False
    return error.connection_invalidated or error_kind(error.orig) in UNAVAILABLE


# ======================================================================================================================
# == 3. Transactions ===================================================================================================
# ======================================================================================================================

# MySQL's errors after which an action is retried. 1020: the record has changed since it was read. 1205: lock wait
# timeout. 1213: deadlock, or a failed Galera certification. 1062: another transaction has just inserted the same unique
# key, and the retried action finds that row.
RETRIED = {1020, 1062, 1205, 1213}
ATTEMPTS = 6


def transactional(action: Callable[P, R]) -> Callable[P, R]:
    """Run a model's action as one transaction, and retry the whole action after an error of `RETRIED`.

    The session is rolled back first, so that the action reads the current state. Pass it ids and plain values. You may
    also pass `current_user`, because actions read the person again. An action that another action calls joins its
    transaction. The commit is part of what is retried.

    Raises what the action raises, after a rollback, and `DatabaseBusy` if the write lock stays taken.
    """

    @functools.wraps(action)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if db.session.info.get("in_transaction"):
            return action(*args, **kwargs)
        for attempt in range(1, ATTEMPTS):
            try:
                return _run_once(action, *args, **kwargs)
            except DBAPIError as error:
                if error_code(error.orig) not in RETRIED:
                    raise
                log.info("%s: attempt %d failed with error %s", action.__qualname__, attempt, error_code(error.orig))
            time.sleep(random.uniform(0, 0.01 * 2**attempt))
        return _run_once(action, *args, **kwargs)

    return run


def _run_once(action: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    db.session.rollback()
    with _sqlite_write_lock():
        db.session.info["in_transaction"] = True
        try:
            db.session.connection(execution_options={"writes": True})
            result = action(*args, **kwargs)
            db.session.commit()
            return result
        except BaseException:
            db.session.rollback()
            raise
        finally:
            db.session.info["in_transaction"] = False


def _sqlite_write_lock() -> contextlib.AbstractContextManager[None]:
    """Let only one thread of this process write to SQLite, because SQLite does not serve waiting writers in order."""
    return _held(database_state().write_lock, BUSY_SECONDS) if is_sqlite() else contextlib.nullcontext()


@contextlib.contextmanager
def _held(lock: threading.Lock, seconds: float) -> Iterator[None]:
    """Hold a lock. Raises `DatabaseBusy` if it is not free in time."""
    if not lock.acquire(timeout=seconds):
        raise DatabaseBusy("another request keeps it busy")
    try:
        yield
    finally:
        lock.release()


# ======================================================================================================================
# == 4. Statements =====================================================================================================
# ======================================================================================================================


def unless_present(statement: sa.Insert) -> sa.Insert:
    """Return an INSERT that skips rows whose unique key exists already."""
    statement = statement.prefix_with("OR IGNORE", dialect="sqlite")
    return statement.prefix_with("IGNORE", dialect="mysql").prefix_with("IGNORE", dialect="mariadb")


def insert_if_absent(model: Any, **values: Any) -> bool:
    """Insert a row unless one with the same unique key exists. Returns whether the row was inserted."""
    db.session.flush()
    result = db.session.connection().execute(unless_present(sa.insert(model)), values)
    return result.rowcount == 1


def upsert(model: Any, values: Sequence[Mapping[str, Any]], keys: Sequence[str] = ()) -> None:
    """Insert rows, and update those that exist with the same unique `keys` (by default the primary key)."""
    table: sa.Table = model.__table__
    keys = keys or [column.name for column in table.primary_key]
    changed = [name for name in values[0] if name not in keys]
    if is_sqlite():
        insert: Any = insert_sqlite(table)
        insert = insert.on_conflict_do_update(keys, set_={name: insert.excluded[name] for name in changed})
    else:
        insert = insert_mysql(table)
        insert = insert.on_duplicate_key_update({name: insert.inserted[name] for name in changed})
    db.session.connection().execute(insert, list(values))


def in_table_order(
    statement: sa.Select[*tuple[Any, ...]], indexes: Mapping[Any, str] | None = None
) -> sa.Select[*tuple[Any, ...]]:
    """Return a select whose tables MySQL joins in the order written. `indexes` are the indexes to use, by their models.

    On its own MySQL starts with the smallest table and sorts every row, or follows an index from its very beginning to
    a page far down. SQLite uses the index that fits ORDER BY and LIMIT, and needs no hint.
    """
    for dialect in ("mysql", "mariadb"):
        statement = statement.prefix_with("STRAIGHT_JOIN", dialect=dialect)
        for model, index in (indexes or {}).items():
            statement = statement.with_hint(model, f"FORCE INDEX ({index})", dialect)
    return statement


# ======================================================================================================================
# == 5. Schema =========================================================================================================
# ======================================================================================================================

RECHECK_SECONDS = 2.0


class SchemaError(click.ClickException):
    """The schema is missing, or older or newer than the code. The message names the command to run."""


class UpgradeError(click.ClickException):
    """An upgrade failed. The message says why, and whether everything is as it was."""


# The revisions from before the first release. Their tables were different.
DEVELOPMENT_REVISIONS = {"0001", "0002", "0003", "0004", "0005", "0006"}


def _script_heads() -> tuple[set[str], set[str]]:
    """Return the heads of the migrations folder, and every revision in it."""
    scripts = ScriptDirectory(str(MIGRATIONS))
    return set(scripts.get_heads()), {script.revision for script in scripts.walk_revisions()}


def _current_heads() -> set[str]:
    with db.engine.connect() as connection:
        return set(MigrationContext.configure(connection).get_current_heads())


def check_schema() -> None:
    """Raise `SchemaError` unless the schema is exactly the one that this code needs."""
    heads, known = _script_heads()
    current = _current_heads()
    if current == heads:
        return
    if not current:
        raise SchemaError(f"The database is empty. Create its tables with: {FLASK} init-db")
    _check_known(current, known)
    raise SchemaError(f"The database is older than this version. Run: {FLASK} upgrade")


def check_ready() -> None:
    """Raise `SchemaError` unless the schema fits and the database belongs to the data folder."""
    check_schema()
    check_site()


def _check_known(current: set[str], known: set[str]) -> None:
    if current & DEVELOPMENT_REVISIONS:
        raise SchemaError(
            "The database was made by a development version of Corkboard and cannot be upgraded. "
            f"Move it away or name an empty one in DATABASE_URL, then run: {FLASK} init-db"
        )
    if current - known:
        raise SchemaError(
            "The database was made by a newer version of Corkboard. Install that version (or a later one), "
            f"then run: {FLASK} init-db"
        )


def schema_problem() -> str | None:
    """Return what is wrong with the schema, or None. A sound schema is not checked again."""
    state = database_state()
    if state.schema_ok:
        return None
    # While a server says nothing, one thread waits for it. The others are free for what needs no database.
    with _held(state.schema_lock, RECHECK_SECONDS / 4):
        if state.schema_ok:  # by now
            return None
        if time.monotonic() - state.schema_checked < RECHECK_SECONDS:
            return f"The database is not ready. See the log, or run: {FLASK} check"
        try:
            check_ready()
        except SchemaError as error:
            state.schema_checked = time.monotonic()
            return error.message
        state.schema_ok = True
    return None


def is_empty() -> bool:
    """Whether no tables were ever made."""
    return not _current_heads()


def is_current() -> bool:
    """Whether the schema is the one that this code needs. Raises `SchemaError` where it can never become that."""
    heads, known = _script_heads()
    _check_known(current := _current_heads(), known)
    return current == heads


def upgrade_schema() -> None:
    """Create the tables, or upgrade them. Only one process may do so at a time.

    Raises `SchemaError` for a database that this version cannot upgrade.
    """
    _check_known(_current_heads(), _script_heads()[1])
    upgrade()
    database_state().schema_ok = False


def upgrade_or_put_back(path: Path, finish: Callable[[], object]) -> None:
    """Write a backup, upgrade the schema and check it. `finish` does what else an upgrade needs.

    Raises `BackupError` where no backup can be made. Where anything fails later, the backup is put back, and
    `UpgradeError` says so.
    """
    write_backup(path)
    before = _current_heads()
    try:
        upgrade_schema()
        check_schema()
        check_columns()
        finish()
    except BaseException as error:  # Flask-Migrate ends with SystemExit
        log.error("the upgrade failed", exc_info=error)
        cause = getattr(error, "message", "") or str(getattr(error, "orig", error))
        raise UpgradeError(f"The upgrade failed ({cause[:300]}). {_go_back(path, before)}") from error


def check_columns() -> None:
    """Raise the engine's error where a table or a column of the models is missing."""
    with db.engine.connect() as connection:
        for table in db.metadata.sorted_tables:
            connection.execute(sa.select(table).limit(1))


def _go_back(path: Path, before: set[str]) -> str:
    """Put back a backup that was made before a failed upgrade. Returns what to say about it."""
    try:
        db.session.rollback()
        if not (is_sqlite() and _current_heads() == before):  # SQLite takes back an unfinished migration by itself
            put_back(path)
    except Exception as error:
        log.exception("the backup could not be put back")
        return f"It could not be put back ({error}): restore {path} into an empty database by the earlier version."
    return f"Everything is as it was before: start the earlier version again. There is a backup too: {path}"


def ensure_schema(app: Flask) -> None:
    """Create the schema in a new SQLite file, and check any other one. A schema with data is never changed here.

    Raises `SchemaError` unless the schema is the one that this code needs.
    """
    with app.app_context():
        check_site()
        if is_sqlite() and not sa.inspect(db.engine).get_table_names():
            upgrade_schema()
        check_schema()
        give_site_id()


def finish_served_stop(app: Flask) -> None:
    """After serving: leave a complete database file behind, so that a copy of it alone is a whole copy."""
    with app.app_context():
        checkpoint()


# -- Who uses the data folder ------------------------------------------------------------------------------------------

# On Windows nobody else can read a locked byte, so these lie far behind the process id, which others read. A process
# that shares the folder locks one of them, and a process that wants it alone locks them all.
LOCKED_BYTE, LOCKED_BYTES = 1 << 20, 1 << 16


def lock_data_folder(alone: bool) -> IO[str]:
    """Lock `serve.lock` and return the open file. The system releases the lock when the process ends.

    Raises a `ClickException` if another process uses the folder or, where this one need not be `alone`, has it alone.
    """
    path = data_folder() / "serve.lock"
    try:
        file = open(path, "a+", encoding="ascii")  # noqa: SIM115
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written to ({error.strerror}). Check who owns it.") from error
    if not _lock(file, alone):
        file.seek(0)
        pid = file.read(20).strip()
        file.close()
        raise click.ClickException(
            f"Corkboard already uses the data folder {path.parent} ({f'process {pid}' if pid else 'another process'}). "
            "Stop it first; for a second site, set DATA_DIR to another folder."
        )
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def stop_file(app: Flask) -> Path:
    """The file by which `python -m flask stop` asks what serves this data folder to stop."""
    return app.config["DATA_DIR"] / "stop"


STOP_SECONDS = 60  # for the requests in hand, and for the jobs


def stop_served(app: Flask) -> None:
    """Stop what serves this data folder, and wait until it has stopped.

    Raises a `ClickException` if that takes longer than `STOP_SECONDS`.
    """
    path, give_up = stop_file(app), time.monotonic() + STOP_SECONDS
    path.touch()
    try:
        while not is_unused():
            if time.monotonic() > give_up:
                raise click.ClickException(f"It still runs after {STOP_SECONDS} seconds.")
            time.sleep(0.2)
    finally:
        path.unlink(missing_ok=True)


def is_unused() -> bool:
    """Whether no process uses the data folder."""
    with contextlib.suppress(click.ClickException):
        lock_data_folder(alone=True).close()
        return True
    return False


def _lock(file: IO[str], alone: bool) -> bool:
    """Lock the file without waiting. Returns False if another process has locked it."""
    try:
        import fcntl
    except ImportError:
        return _lock_on_windows(file, alone)
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_on_windows(file: IO[str], alone: bool) -> bool:
    import msvcrt

    os.lseek(file.fileno(), LOCKED_BYTE + (0 if alone else os.getpid() % LOCKED_BYTES), os.SEEK_SET)
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, LOCKED_BYTES if alone else 1)  # pyright: ignore[reportAttributeAccessIssue]
    except OSError:
        return False
    return True


# ======================================================================================================================
# == 6. The site's id ==================================================================================================
# ======================================================================================================================

# The database and the data folder bear the same id. So a site that is started with the wrong one of them neither shows
# another team's files nor deletes its own, of which that database knows nothing.


class SiteMismatch(SchemaError):
    """The database and the data folder belong to two sites. The message says what to do."""


def data_folder() -> Path:
    return current_app.config["DATA_DIR"]


def folder_site_id() -> str:
    """The id of the data folder; empty where it has none yet."""
    with contextlib.suppress(FileNotFoundError):
        return (data_folder() / "site_id").read_text(encoding="utf-8").strip()
    return ""


def keep_site_id(site_id: str) -> None:
    """Write the id of the data folder."""
    (data_folder() / "site_id").write_text(site_id + "\n", encoding="utf-8")


def database_site_id() -> str:
    """The id of the database; empty where it has none yet."""
    return next(iter(_values("settings", "value", name="site_id")), "")


def _values(table: str, column: str, **where: str) -> set[Any]:
    """Return the values of a column; none where there is no such table yet."""
    with db.engine.connect() as connection:
        if not sa.inspect(connection).has_table(table):
            return set()
        return {*connection.scalars(sa.select(db.metadata.tables[table].c[column]).filter_by(**where))}


def stored_files() -> list[Path]:
    """The uploaded files in the data folder, and their smaller versions."""
    return [*(data_folder() / "files").glob(f"??/{'?' * 32}*")]


def knows_its_files() -> bool:
    """Whether the database names some of the files in the data folder, or there are none."""
    files = {path.stem for path in stored_files()}
    return not files or not files.isdisjoint(_values("attachments", "stored"))


def files_trouble() -> tuple[str, str]:
    """Return what is wrong with the folder of the files, and what to do about it. Both are empty where nothing is."""
    folder = data_folder() / "files"
    stuck = [str(place) for place in (folder, *folder.glob("??")) if not is_writable(place)]
    if stuck:
        return f"{stuck[0]} can't be written to", "Let the account that runs Corkboard own it, or nobody can upload."
    if not knows_its_files():
        remedy = "They are kept. Is DATABASE_URL right? If it is, and nobody needs them, move them away."
        return f"the database knows none of those in {folder}", remedy
    missing = _values("attachments", "stored") - {path.name for path in stored_files()}
    if missing:
        remedy = "Is DATA_DIR right? If it is, put them back from a backup."
        return f"{len(missing)} of those that the database names are not in {folder}", remedy
    return "", ""


def is_writable(folder: Path) -> bool:
    """Whether a file can be written to a folder, which is made if it does not exist."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def check_site() -> None:
    """Raise `SiteMismatch` where the database and the data folder belong to two sites."""
    ours, theirs = database_site_id(), folder_site_id()
    if ours == theirs or (ours and not theirs and knows_its_files()):
        return
    raise SiteMismatch("The database and the data folder belong to two sites. " + (moving_advice() or MISMATCH_ADVICE))


MISMATCH_ADVICE = (
    "Point DATABASE_URL and DATA_DIR at the same site, or put the right database back. To begin a "
    "new site, set DATA_DIR to an empty folder. If the two do belong together, delete the file site_id in the folder."
)


def give_site_id() -> None:
    """Give the database and the data folder one id where they have none, unless they seem to be of two sites."""
    if not folder_site_id() and knows_its_files() and not moving_advice():
        keep_site_id(_ensure_site_id())


@transactional
def _ensure_site_id() -> str:
    settings = db.metadata.tables["settings"]
    insert_if_absent(settings, name="site_id", value=secrets.token_hex(16))
    return db.session.scalars(sa.select(settings.c.value).filter_by(name="site_id")).one()


def moving_advice() -> str:
    """How to move, where a MySQL database without people is used beside an SQLite database with some; else empty."""
    path = data_folder() / "corkboard.db"
    if is_sqlite() or not path.exists() or _values("users", "id"):
        return ""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            people = connection.execute("SELECT COUNT(*) FROM users").fetchone()[0]
    except sqlite3.Error:
        return ""
    return MOVING_ADVICE if people else ""


MOVING_ADVICE = (
    "There are people in corkboard.db in the data folder, and none in the database that DATABASE_URL names. To move "
    f"them there: take DATABASE_URL out of .env, run `{FLASK} backup`, put DATABASE_URL back, and run "
    f"`{FLASK} restore` with the file that was made. To go on with corkboard.db, leave DATABASE_URL out."
)


# ======================================================================================================================
# == 7. Full-text search ===============================================================================================
# ======================================================================================================================

# Our own tokenizer finds the words of a text, so that SQLite's FTS5 and MySQL's FULLTEXT index find the same. A token
# has only the characters a-z, 0-9 and _, and begins with a mark of three letters. The mark keeps MySQL from ignoring
# stop words and short words, and no token can be a search operator.
WORD_MARK, TITLE_MARK, FLAG_MARK = "zzz", "ttt", "qqq"
WORD_MAX, TOKEN_MAX = 40, 72  # InnoDB ignores tokens of more than 84 characters, the mark included
QUERY_WORDS = 8
LIKENESS = 0.75  # of a word to one that might be meant, as `difflib` measures it
MYSQL_PREFIX_MIN = 4  # letters: MySQL takes too long to search for shorter prefixes

# Unicode does not decompose these letters.
_UNDECOMPOSED = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"})
# Accents, and the vowel marks of Hebrew, Arabic and Syriac, but not the marks of kana or Hindi, which make different
# letters. Some characters within a word are only for its looks: soft hyphens, joiners, the Arabic tatweel.
_ACCENTS = re.compile(
    "[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0730-\u074a\u08d3-\u08ff]"
)
_UNSEEN = "\u00ad\u034f\u061c\u0640\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff"
_LOOKS = re.compile(f"[{_UNSEEN}]")
_MARKS = "".join(char for char in map(chr, range(0x300, 0x3000)) if unicodedata.category(char) in ("Mn", "Mc"))
# The scripts without spaces: Thai, Lao, Khmer, Chinese and Japanese.
_SPACELESS = "\u0e00-\u0eff\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
_SPACELESS += "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_PICTURES = "\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001f3fa\U0001f400-\U0001faff"
_LETTER = rf"[^\W_{_SPACELESS}{_PICTURES}]"
_PIECE = re.compile(
    rf"(?P<run>[{_SPACELESS}][{_SPACELESS}{_UNSEEN}]*)|[{_PICTURES}]"
    rf"|{_LETTER}(?:{_LETTER}|[{_MARKS}{_UNSEEN}])*(?:(?:\+\+|\#)(?!\w))?"
)
_NOT_TOKEN = re.compile("[^a-z0-9]")
_ENCODED = re.compile("_([0-9a-f]{5})")


class Word(NamedTuple):
    """A folded word, and its place in the text."""

    text: str
    start: int
    end: int
    is_tail: bool = False  # the last character of a run without spaces, which is also part of the last pair

    @property
    def is_letter(self) -> bool:
        """Whether this is a single letter. It finds only itself, because as a prefix it would find almost all texts."""
        return len(self.text) == 1 and self.text.isascii()


def encode_word(word: str) -> str:
    """Return a word in characters that both engines accept within a word."""
    return _NOT_TOKEN.sub(lambda match: f"_{ord(match[0]):05x}", word)[:TOKEN_MAX]


def words_of(text: str) -> Iterator[Word]:
    """Yield the words of a text: in scripts without spaces each pair of characters, and then the last character."""
    for match in _PIECE.finditer(text):
        folded = _fold_word(match[0])
        if match["run"]:
            yield from _pairs(folded, *match.span())
        else:
            yield Word(folded[:WORD_MAX] or match[0], *match.span())


def _fold_word(word: str) -> str:
    """Return a word without differences of case, accents, width and looks."""
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFD", fold(_LOOKS.sub("", word)).translate(_UNDECOMPOSED))
    return unicodedata.normalize("NFC", _ACCENTS.sub("", decomposed))


def _pairs(run: str, start: int, end: int) -> Iterator[Word]:
    is_same_length = len(run) == end - start  # else folding joined characters, and each pair stands for the whole run
    for place in range(len(run)):
        pair = run[place : place + 2]
        at, until = (start + place, start + place + len(pair)) if is_same_length else (start, end)
        yield Word(pair, at, until, is_tail=place > 0 and len(pair) == 1)


def query_words(query: str) -> list[Word]:
    """Return the words of a query, each once. A result has to contain all of them."""
    words = words_of(unicodedata.normalize("NFC", query))
    wanted = {word.text: word for word in words if not word.is_tail}
    return list(wanted.values())[:QUERY_WORDS]


def without_plural(word: Word) -> Word:
    """Return a word without the ending of an English plural. As a beginning, 'box' also finds 'boxes'."""
    for ending, singular in _PLURALS:
        if ending.search(word.text):
            return word._replace(text=ending.sub(singular, word.text))
    return word


_PLURALS = (
    (re.compile("(?<=[a-z]{2})ies$"), "y"),
    (re.compile("(?<=[a-z](?:s|x|z))es$|(?<=[a-z](?:ch|sh))es$"), ""),
    (re.compile("(?<=[a-z]{2}[a-rt-z])s$"), ""),
)


def places_of(wanted: Sequence[Word], text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each word in a text that is one of the wanted words, or begins with one."""
    exact = {word.text for word in wanted}
    prefixes = tuple(word.text for word in wanted if not word.is_letter)
    for word in words_of(text):
        if word.text in exact or word.text.startswith(prefixes):
            yield word.start, word.end


def search_tokens(text: str, mark: str = WORD_MARK) -> list[str]:
    """Return the tokens under which a text is indexed, each once. 'C++' is also found as 'c', 'e-mail' as 'email'."""
    found: dict[str, None] = {}
    joined, end = "", -1
    for word in words_of(text):
        is_continued = word.start == end + 1 and text[end] in "-'’‐‑" and len(joined) < WORD_MAX
        joined, end = joined + word.text if is_continued else word.text, word.end
        found[word.text] = found[word.text.rstrip("+#")] = found[joined] = None
    return [mark + encode_word(word) for word in found]


def nearest_words(query: str, known: Sequence[str]) -> str:
    """Return a query in which each word is the known word that is most like it, if there is one."""
    words = [word.text for word in query_words(query)]
    return " ".join([*difflib.get_close_matches(word, known, 1, LIKENESS), word][0] for word in words)


def words_in(tokens: str) -> list[str]:
    """Return the words from which `search_tokens` made some tokens, each once."""
    words = [token.removeprefix(WORD_MARK) for token in dict.fromkeys(tokens.split()) if token.startswith(WORD_MARK)]
    return [_ENCODED.sub(lambda match: chr(int(match[1], 16)), word) for word in words]


def search_flags(**flags: object) -> list[str]:
    """Return the tokens of an entry's kind and author, by which a search can be filtered."""
    return [f"{FLAG_MARK}{name}{value}" for name, value in flags.items() if value]


# -- Queries -----------------------------------------------------------------------------------------------------------


def search_query(words: Sequence[Word], flags: Sequence[str], mark: str = WORD_MARK) -> str:
    """Return the engine's query for all flags and all words. A word also finds longer words that begin with it."""
    tokens = dict.fromkeys(flags, "")
    for word in words:
        encoded = encode_word(word.text)
        is_prefix = not word.is_letter and (is_sqlite() or len(encoded) >= MYSQL_PREFIX_MIN)
        tokens[mark + encoded] = "*" if is_prefix else ""
    if is_sqlite():
        return " AND ".join(f'"{token}"{star}' for token, star in tokens.items())
    return " ".join(f"+{token}{star}" for token, star in tokens.items())


def newest_matches(statement: Any, entries: Any, query: str, start: int, limit: int) -> Sequence[Any]:
    """Run a select for the newest entries that match a query, from the id `start` down. Returns its rows.

    Results are not ranked by relevance, because either engine would have to rank every match.
    """
    if is_sqlite():
        index = sa.table("search_fts", sa.column("rowid", sa.Integer))
        matches = sa.literal_column("search_fts").op("MATCH", is_comparison=True)(query)
        statement, entry_id = statement.join(index, index.c.rowid == entries.id), index.c.rowid
    else:
        matches = match_mysql(entries.tokens, against=query).in_boolean_mode()
        statement, entry_id = in_table_order(statement), entries.id
    newest = statement.where(matches, entry_id <= start).order_by(entry_id.desc()).limit(limit)
    return db.session.execute(newest).all()


# -- The index ---------------------------------------------------------------------------------------------------------


def create_search_index(connection: sa.Connection) -> None:
    """Create the index over `search_entries` unless it exists. Migrations call this."""
    if connection.dialect.name == "sqlite":
        for statement in _SQLITE_SEARCH:
            connection.exec_driver_sql(statement)
        return
    indexes = {index["name"] for index in sa.inspect(connection).get_indexes("search_entries")}
    if "ft_search_entries_tokens" not in indexes:
        connection.exec_driver_sql("CREATE FULLTEXT INDEX ft_search_entries_tokens ON search_entries (tokens)")


_FTS_DELETE = "INSERT INTO search_fts (search_fts, rowid, tokens) VALUES ('delete', old.id, old.tokens);"
_FTS_INSERT = "INSERT INTO search_fts (rowid, tokens) VALUES (new.id, new.tokens);"
# The index stores no positions or sizes, because no query needs them. Triggers keep it in step with the entries.
_SQLITE_SEARCH = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS search_fts USING fts5(tokens, content='search_entries', content_rowid='id', "
    "detail=none, columnsize=0, prefix='5 6 7', tokenize=\"ascii tokenchars '_'\")",
    f"CREATE TRIGGER IF NOT EXISTS search_inserted AFTER INSERT ON search_entries BEGIN {_FTS_INSERT} END",
    f"CREATE TRIGGER IF NOT EXISTS search_deleted AFTER DELETE ON search_entries BEGIN {_FTS_DELETE} END",
    "CREATE TRIGGER IF NOT EXISTS search_updated AFTER UPDATE OF tokens ON search_entries "
    f"BEGIN {_FTS_DELETE} {_FTS_INSERT} END",
)


def drop_search_index(connection: sa.Connection) -> None:
    """Drop the parts of the index that dropping `search_entries` leaves."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("DROP TABLE IF EXISTS search_fts")


def is_search_index(name: str | None) -> bool:
    """Whether `create_search_index` makes a table or index of this name. The models do not know these."""
    return bool(name) and str(name).startswith(("search_fts", "ft_search"))


# ======================================================================================================================
# == 8. Backup and restore =============================================================================================
# ======================================================================================================================

# A backup is a ZIP: `tables/users.jsonl` and so on, a row a line; `files/…`, what people uploaded; and, written last,
# `manifest.json` with the size and the SHA-256 of each of these. Nothing in it depends on the engine.
#
# A restore builds the database in a SQLite file of its own first. There each row is checked and compared, and an older
# schema is brought up to date. Only then the whole takes the place of what was there, all at once.
BACKUP_FORMAT = 1
NOT_BACKED_UP = {"sign_ins", "throttles"}  # after a restore, everybody signs in again
MANIFEST = "manifest.json"
PART_NAME = re.compile(r"manifest\.json|tables/[a-z][a-z0-9_]*\.jsonl|files/[0-9a-f]{32}(\.[a-z]{1,16})?")
ROWS_AT_ONCE = 200
MANIFEST_MAX = 2**26  # bytes
ROW_MAX = 2**23  # bytes; a post with its HTML takes far less
scratch_lock = threading.Lock()  # Alembic works on one database at a time in a process

Manifest = dict[str, Any]


class BackupError(click.ClickException):
    """A backup could not be made, or an archive cannot be restored. The message says why, in one line."""

    field = "upload"  # of a form, beside which it is shown


def progress(label: str, items: Any = None, length: int | None = None) -> Any:
    """Return click's progress bar over some items, which shows itself while a command runs, and nowhere else."""
    return click.progressbar(items, length, label, hidden=click.get_current_context(silent=True) is None)


def describe(path: Path) -> dict[str, Any]:
    """Return what a manifest says of a part."""
    with open(path, "rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": file.tell()}


# -- Making a backup ---------------------------------------------------------------------------------------------------


def write_backup(path: Path) -> None:
    """Write a backup of this application's database and files. The file gets its name when it is whole.

    Raises `BackupError`, and then leaves nothing behind.
    """
    if path.exists():
        raise BackupError(f"{path} exists already. Choose another name.")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="backup-", dir=path.parent) as folder:  # for its owner only
            draft = Path(folder, path.name)
            with zipfile.ZipFile(draft, "w", compresslevel=2, strict_timestamps=False) as archive:
                _write_parts(archive, Path(folder, "rows"))
            with open(draft, "rb+") as file:
                os.fsync(file.fileno())
            draft.chmod(0o600)
            os.replace(draft, path)
    except OSError as error:
        raise BackupError(f"The backup cannot be written to {path}: {error.strerror or error}.") from error


def _write_parts(archive: zipfile.ZipFile, rows: Path) -> None:
    """Write the tables as they are at one moment, the files that they name, and the manifest."""
    manifest: Manifest = {"format": BACKUP_FORMAT, "tables": {}, "parts": {}}
    known = _tables_of(_current_heads())
    with _snapshot() as connection:
        manifest["revision"] = MigrationContext.configure(connection).get_current_revision()
        manifest["counters"] = _counters(connection)
        with progress("Writing tables", known.tables.values()) as tables:
            for table in tables:
                if table.name not in NOT_BACKED_UP:
                    manifest["tables"][table.name] = _dump(connection, table, rows)
                    _add_part(archive, manifest, f"tables/{table.name}.jsonl", rows, zipfile.ZIP_DEFLATED)
        stored = {*connection.scalars(sa.select(db.metadata.tables["attachments"].c.stored))}
    _write_files(archive, manifest, stored)
    archive.writestr(MANIFEST, json.dumps(manifest, indent=1))


def _tables_of(heads: set[str]) -> sa.MetaData:
    """The tables of the models or, where the database is older, those that its revision has."""
    if heads == _script_heads()[0]:
        return db.metadata
    with scratch_lock, _scratch_app() as scratch, scratch.app_context():
        upgrade(revision=next(iter(heads)))
        with db.engine.connect() as connection:
            return _made_tables(connection)


def _made_tables(connection: sa.Connection) -> sa.MetaData:
    """The tables that a scratch database has, with types that both engines know."""
    known = sa.MetaData()

    def generalise(_inspector: Any, _table: sa.Table, column: Any) -> None:
        column["type"] = column["type"].as_generic()

    event.listen(known, "column_reflect", generalise)
    known.reflect(connection, only=lambda name, _: name != "alembic_version" and not is_search_index(name))
    return known


@contextlib.contextmanager
def _snapshot() -> Iterator[sa.Connection]:
    """A connection that sees the database as it is now, whatever others write from now on. It keeps nobody waiting."""
    with db.engine.connect() as connection:
        if is_sqlite():
            connection.exec_driver_sql("SELECT 1 FROM sqlite_master").first()  # the first read decides what is seen
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
            connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        yield connection


def _dump(connection: sa.Connection, table: sa.Table, path: Path) -> int:
    """Write the rows of a table as lines of JSON, in the order of their keys. Returns how many."""
    statement, count = sa.select(table).order_by(*table.primary_key), 0
    rows = connection.execute(statement.execution_options(yield_per=ROWS_AT_ONCE)).mappings()
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(_encode({**row}) + "\n")
            count += 1
    return count


_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str).encode


def _counters(connection: sa.Connection) -> dict[str, int]:
    """Return the highest id that each table has given out, where the engine counts them."""
    if is_sqlite():
        asked = "SELECT name, seq FROM sqlite_sequence"
    else:
        # MySQL 8 would answer from a cache of a day; MariaDB has none, and passes over what is in such a comment.
        connection.exec_driver_sql("SET @of = DATABASE() /*!80000 , SESSION information_schema_stats_expiry = 0 */")
        asked = "SELECT TABLE_NAME, AUTO_INCREMENT - 1 FROM information_schema.TABLES"
        asked += " WHERE TABLE_SCHEMA = @of AND AUTO_INCREMENT IS NOT NULL"
    return {row[0]: row[1] for row in connection.exec_driver_sql(asked)}


def _write_files(archive: zipfile.ZipFile, manifest: Manifest, stored: set[str]) -> None:
    """Write the files of these names, and their smaller versions. What was removed since then is in the trash."""
    missing = {*stored}
    paths = (path for folder in ("files", "trash") for path in (data_folder() / folder).rglob("*"))
    with progress("Writing files", paths) as places:
        for path in places:
            name = f"files/{path.name}"
            if path.stem in stored and name not in manifest["parts"]:
                with contextlib.suppress(FileNotFoundError):
                    _add_part(archive, manifest, name, path)
                    missing.discard(path.name)
    if missing:
        log.warning("%s of the files that the database names were not found", len(missing))


def _add_part(archive: zipfile.ZipFile, manifest: Manifest, name: str, path: Path, how: int | None = None) -> None:
    part = describe(path)
    archive.write(path, name, how)
    manifest["parts"][name] = part


# -- Reading an archive that anybody may have made ---------------------------------------------------------------------


@contextlib.contextmanager
def opened_backup(file: IO[bytes], compare: bool = False) -> Iterator[tuple[Flask, Manifest]]:
    """Restore a backup into a scratch application, and yield that with the manifest. Nothing in the file is believed.

    To `compare`, each table is read from the scratch database again, and has to give the same bytes as in the backup.
    Raises `BackupError`, whatever is wrong with the file.
    """
    with scratch_lock, _scratch_app() as scratch:
        try:
            with zipfile.ZipFile(file) as archive, scratch.app_context():
                manifest = _read_manifest(archive)
                _check_room(manifest)
                _load_tables(archive, manifest, compare)
                upgrade()
                files = [name for name in manifest["parts"] if name.startswith("files/")]
                with progress("Reading files", files) as names:
                    for name in names:
                        _unpack(archive, manifest, name, data_folder() / name)
        except BackupError:
            raise
        except (Exception, SystemExit) as error:  # Flask-Migrate ends with the latter
            log.warning("a backup cannot be restored", exc_info=error)
            cause = str(getattr(error, "orig", error))
            raise BackupError(f"This backup is damaged or cannot be restored: {cause[:200]!r}.") from error
        yield scratch, manifest


@contextlib.contextmanager
def _scratch_app() -> Iterator[Flask]:
    """An application with a folder of its own, and an empty SQLite database in it, both of which go at the end."""
    place = tempfile.TemporaryDirectory(prefix="restore-", dir=data_folder(), ignore_cleanup_errors=True)
    with place as folder:
        app = Flask(__name__)
        app.config |= current_app.config
        app.config |= {"DATA_DIR": Path(folder), "DATABASE_URL": f"sqlite:///{Path(folder).as_posix()}/scratch.db"}
        Path(folder, "files").mkdir()
        init_db(app)
        with app.app_context():
            engine = db.engine
        event.listen(engine, "connect", _hurry)
        try:
            yield app
        finally:
            engine.dispose()


def _hurry(raw: sqlite3.Connection, _record: object) -> None:
    # Nothing in a scratch database has to survive a power cut, and its foreign keys are checked at the end.
    raw.execute("PRAGMA synchronous = OFF")
    raw.execute("PRAGMA foreign_keys = OFF")


def _read_manifest(archive: zipfile.ZipFile) -> Manifest:
    """Return the manifest, if it is that of these parts and of a version that this one knows."""
    entries = archive.infolist()
    for entry in entries:
        if not PART_NAME.fullmatch(entry.orig_filename) or stat.S_ISLNK(entry.external_attr >> 16):
            raise BackupError(f"This is not a backup of Corkboard: it holds {entry.orig_filename[:80]!r}.")
    if archive.getinfo(MANIFEST).file_size > MANIFEST_MAX:
        raise BackupError("This is not a backup of Corkboard: its manifest is too large.")
    manifest = json.loads(archive.read(MANIFEST))
    if not all(type(highest) is int and 0 <= highest < 2**30 for highest in manifest["counters"].values()):
        raise BackupError("This backup is damaged: its manifest names ids that no table gives.")
    if manifest["format"] > BACKUP_FORMAT or manifest["revision"] not in _script_heads()[1]:
        raise BackupError("This backup was made by a newer version of Corkboard. Install that version first.")
    told = sorted((name, part["bytes"]) for name, part in manifest["parts"].items())
    if told != sorted((entry.filename, entry.file_size) for entry in entries if entry.filename != MANIFEST):
        raise BackupError("This backup is damaged: its parts are not the ones that its manifest names.")
    return manifest


def _check_room(manifest: Manifest) -> None:
    # Unpacked and loaded, a table takes three times its size for a while.
    needed = sum(part["bytes"] * (3 if name.startswith("tables") else 1) for name, part in manifest["parts"].items())
    if needed > (free := shutil.disk_usage(data_folder()).free):
        raise BackupError(f"There is no room to restore this backup: it takes {needed:,} bytes, and {free:,} are free.")


def _unpack(archive: zipfile.ZipFile, manifest: Manifest, name: str, path: Path) -> None:
    with archive.open(name) as part, open(path, "wb") as file:
        shutil.copyfileobj(part, file, 2**20)
    if describe(path) != manifest["parts"][name]:
        raise BackupError(f"This backup is damaged: {name} is not what its manifest says.")


def _load_tables(archive: zipfile.ZipFile, manifest: Manifest, compare: bool) -> None:
    """Load the tables of a backup at the backup's schema."""
    upgrade(revision=manifest["revision"])
    with db.engine.connect() as connection:
        known = _made_tables(connection)
        if not known.tables.keys() - NOT_BACKED_UP <= manifest["tables"].keys() <= known.tables.keys():
            raise BackupError("This backup is damaged: its tables are not the ones of its schema.")
        connection.exec_driver_sql("DROP TRIGGER search_inserted")  # for the index is made faster at the end
        rows = data_folder() / "rows"
        with progress("Reading tables", manifest["tables"].items()) as tables:
            for name, told in tables:
                part = f"tables/{name}.jsonl"
                _unpack(archive, manifest, part, rows)
                count = _load_rows(connection, known.tables[name], rows)
                if compare:
                    _dump(connection, known.tables[name], rows)
                if count != told or describe(rows) != manifest["parts"][part]:
                    raise BackupError(f"This backup is damaged: {name} is not the same after a restore.")
        create_search_index(connection)
        connection.exec_driver_sql("INSERT INTO search_fts (search_fts) VALUES ('rebuild')")
        if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise BackupError(f"This backup is damaged: rows of {broken[0]} lack their {broken[2]}.")
        connection.commit()


def _load_rows(connection: sa.Connection, table: sa.Table, path: Path) -> int:
    """Load the rows of a table. Returns how many. Raises `ValueError` for one that the table cannot hold."""
    connection.execute(table.delete())  # the rows that the schema brings along
    kinds = {column.name: (column.type.python_type, getattr(column.type, "length", None)) for column in table.columns}
    count = 0
    with open(path, "rb") as file:
        lines = iter(lambda: file.readline(ROW_MAX), b"")
        while some := [_read_row(kinds, line) for line in itertools.islice(lines, ROWS_AT_ONCE)]:
            connection.execute(table.insert(), some)
            connection.commit()  # or SQLite's log would become as large as the database
            count += len(some)
    return count


def _read_row(kinds: Mapping[str, tuple[Any, int | None]], line: bytes) -> dict[str, Any]:
    row = json.loads(line)
    if row.keys() != kinds.keys():
        raise ValueError("a row has other columns than its table")
    return {name: _read_value(value, *kinds[name]) for name, value in row.items()}


def _read_value(value: Any, kind: Any, longest: int | None) -> Any:
    """Return a value of a backup as a column stores it: of this kind, or None."""
    if value is None:
        return None
    if kind in (datetime, date):
        return kind.fromisoformat(value)
    if type(value) is not kind or (longest and len(value) > longest):
        raise ValueError(f"no {kind.__name__} of at most {longest} characters")
    return value


# -- Putting it in the place of what is there --------------------------------------------------------------------------


def prepare_restore(replace: bool) -> None:
    """Make the current application's tables, if there are none. Raises `BackupError` unless they may be replaced."""
    if not sa.inspect(db.engine).get_table_names():
        upgrade_schema()
    check_schema()
    _refuse_people(replace)


def _refuse_people(replace: bool) -> None:
    if not replace and _values("users", "id"):
        raise BackupError("There are people in this database. To replace everything in it, add --replace.")


def replace_site(scratch: Flask, manifest: Manifest, replace: bool) -> None:
    """Put a scratch application's site in the place of the current application's, at once or not at all.

    The files come first. Should the tables then fail, these files belong to nothing, and a job puts them in the trash.
    """
    db.session.rollback()  # on MySQL, what the request has read would keep ALTER TABLE waiting for its end
    for path in (scratch.config["DATA_DIR"] / "files").iterdir():
        target = data_folder() / "files" / path.name[:2] / path.name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.replace(path, target)
    (_copy_to_sqlite if is_sqlite() else _copy_to_mysql)(scratch, manifest["counters"], replace)
    keep_site_id(database_site_id())


def put_back(path: Path) -> None:
    """Put the rows of a backup in the place of those that are there, in the backup's own schema. Files stay."""
    with scratch_lock, _scratch_app() as scratch, zipfile.ZipFile(path) as archive:
        with scratch.app_context():
            manifest = _read_manifest(archive)
            _load_tables(archive, manifest, compare=False)
        if not is_sqlite():
            _make_tables_again(manifest)
        (_copy_to_sqlite if is_sqlite() else _copy_to_mysql)(scratch, manifest["counters"], replace=True)


def _make_tables_again(manifest: Manifest) -> None:
    """Drop the tables, and make those of a backup's schema."""
    names = {*db.metadata.tables, *manifest["tables"], "alembic_version"}
    with db.engine.connect() as connection:
        connection.detach()
        connection.exec_driver_sql("SET SESSION foreign_key_checks = 0")
        for name in names.intersection(sa.inspect(connection).get_table_names()):
            connection.exec_driver_sql(f"DROP TABLE `{name}`")
    upgrade(revision=manifest["revision"])


def _copy_to_sqlite(scratch: Flask, counters: Mapping[str, int], replace: bool) -> None:
    """Copy the pages of the scratch database in one transaction. Until its end, people read what was there before."""
    with db.engine.connect() as connection:
        given = _counters(connection)
    with scratch.app_context():
        _raise_counters(counters)
        _raise_counters(given)
        source = db.engine.raw_connection()
    with contextlib.closing(source), _sqlite_write_lock(), contextlib.closing(db.engine.raw_connection()) as target:
        _refuse_people(replace)
        source.driver_connection.backup(target.driver_connection, progress=_refuse_locked)  # type: ignore[union-attr]


def _refuse_locked(status: int, *_pages: int) -> None:
    if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        raise BackupError("The database is kept locked by another program. Stop it, and try again.")


def _copy_to_mysql(scratch: Flask, counters: Mapping[str, int], replace: bool) -> None:
    """Copy the rows of the scratch database in one transaction."""
    _raise_counters(counters)
    with scratch.app_context():
        source = db.engine.connect()
    with source, db.engine.connect() as target:
        target.detach()  # from the pool, so that nobody else is given it without its checks
        target.exec_driver_sql("SET SESSION foreign_key_checks = 0, unique_checks = 0")
        target.execute(db.metadata.tables["settings"].delete())  # until the end, nobody else sets it up
        _refuse_people(replace)
        for table in _made_tables(source).tables.values():
            target.execute(table.delete())
            rows = source.execute(sa.select(table).execution_options(yield_per=ROWS_AT_ONCE))
            for some in rows.mappings().partitions():
                target.execute(table.insert(), [{**row} for row in some])
        target.commit()


def _raise_counters(counters: Mapping[str, int]) -> None:
    """Let the current application's tables give out no id that was given out before.

    On MySQL this is part of no transaction: where a restore fails after it, some numbers are skipped.
    """
    with db.engine.connect().execution_options(writes=True) as connection:
        known = _counters(connection)
        for name in db.metadata.tables.keys() & counters.keys():
            highest = int(counters[name])
            if highest <= known.get(name, 0):
                continue
            if is_sqlite():
                connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
                connection.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, highest))
            else:
                connection.exec_driver_sql(f"ALTER TABLE `{name}` AUTO_INCREMENT = {highest + 1}")
        connection.commit()
