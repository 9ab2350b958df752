"""All that differs between SQLite and MySQL/MariaDB, and all that guards data.

1. Column types and keys     the types models are made of, alike on both engines
2. Engine                    `db`, `migrate`, `init_db(app)`, what each engine is told on connecting
3. Transactions              `@transactional`: one transaction, tried again as a whole
4. Statements                what the engines spell differently
5. Write-behind              what merely looking causes, written in batches by a thread
6. Schema                    is it there, is it current, bring it up to date
7. Full-text search          the words of a text, the index over them, what to ask it
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import re
import sqlite3
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import click
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask, current_app
from flask_migrate import Migrate, upgrade
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event
from sqlalchemy.dialects.mysql import insert as insert_mysql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("corkboard.database")

MIGRATIONS = Path(__file__).resolve().parent / "migrations"


# ======================================================================================================================
# == 1. Column types and keys ==========================================================================================
# ======================================================================================================================

# Text compares byte by byte on both engines: MySQL's default collations find 'Anna', 'anna ' and 'änna' equal, and
# SQLite does not. What compares loosely has a key column, made by `fold` or `sort_key`. Migrations state the collation.
MYSQL_TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


class TimestampType(sa.DateTime):
    """A moment to the microsecond, which MySQL's DATETIME drops unless told otherwise."""


class LongTextType(sa.Text):
    """Text of up to 16 MB; MySQL's TEXT ends at 64 KB."""


@compiles(TimestampType, "mysql", "mariadb")
def _mysql_timestamp(_type: TimestampType, _compiler: Any, **_options: Any) -> str:
    return "DATETIME(6)"


@compiles(LongTextType, "mysql", "mariadb")
def _mysql_long_text(_type: LongTextType, _compiler: Any, **_options: Any) -> str:
    return "MEDIUMTEXT"


Timestamp = TimestampType()
LongText = LongTextType()


def utcnow() -> datetime:
    """The time as it is stored: UTC without a zone, to the microsecond."""
    return datetime.now(UTC).replace(tzinfo=None)


def fold(text: str) -> str:
    """The key by which usernames and email addresses are the same: NFKC, casefold, strip (after RFC 8265)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).strip()


def sort_key(text: str, length: int = 200) -> str:
    """The key by which titles and names are ordered and filtered: folded, and without accents."""
    decomposed = unicodedata.normalize("NFKD", fold(text))
    bare = "".join(char for char in decomposed if not unicodedata.combining(char))
    return unicodedata.normalize("NFC", bare)[:length]


# ======================================================================================================================
# == 2. Engine =========================================================================================================
# ======================================================================================================================


class Base(DeclarativeBase):
    """What models are made of. Each constraint has a name, so that a migration can change it."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


db = SQLAlchemy(model_class=Base, session_options={"expire_on_commit": False})
migrate = Migrate(directory=str(MIGRATIONS))

BUSY_SECONDS = 5  # how long a writer waits for another one
SQLITE_PRAGMAS = ("journal_mode = WAL", "foreign_keys = ON", "synchronous = FULL", "temp_store = MEMORY")
MYSQL_GREETING = (
    "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO',"
    f" innodb_lock_wait_timeout = {BUSY_SECONDS}, time_zone = '+00:00'"
)
DISCONNECTS = {1047, 2006, 2013}  # 1047: a Galera node without quorum answers every query with it, but passes a ping
UNREACHABLE = DISCONNECTS | {1040, 1053, 1205, 2002, 2003}


class DatabaseBusy(Exception):
    """Another writer of this process kept the database for too long."""


class DatabaseState:
    """What one application knows of its database: SQLite's write lock, and whether the schema was found current."""

    def __init__(self) -> None:
        self.write_lock = threading.Lock()
        self.schema_ok = False
        self.schema_checked = float("-inf")  # monotonic seconds


def database_state() -> DatabaseState:
    """The `DatabaseState` of the current application."""
    return current_app.extensions["corkboard.database"]


def is_sqlite() -> bool:
    """Whether the current application's database is SQLite."""
    return current_app.config["DATABASE_URL"].startswith("sqlite")


def init_db(app: Flask) -> None:
    """Bind `db` to the application's DATABASE_URL. Opens no connection and touches no schema."""
    url: str = app.config["DATABASE_URL"]
    sqlite = url.startswith("sqlite")
    options = _sqlite_options(app) if sqlite else _mysql_options(app)
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    # An error's text goes to the log, where what people typed and hashes of their passwords have no place.
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"hide_parameters": True} | options
    app.extensions["corkboard.database"] = DatabaseState()
    db.init_app(app)
    migrate.init_app(app, db)
    with app.app_context():
        engine = db.engine
    event.listen(engine, "connect", _greet_sqlite if sqlite else _greet_mysql)
    event.listen(engine, "handle_error", _mark_disconnect)
    if sqlite:
        event.listen(engine, "begin", _begin_sqlite)


def _sqlite_options(app: Flask) -> dict[str, Any]:
    # isolation_level=None: the driver's own BEGINs break savepoints and transactional DDL; _begin_sqlite sends them.
    arguments = {"timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": False}
    return {"connect_args": arguments, "pool_size": app.config["THREADS"] + 1, "max_overflow": 8}


def _mysql_options(app: Flask) -> dict[str, Any]:
    return {
        "connect_args": {"connect_timeout": BUSY_SECONDS, "init_command": MYSQL_GREETING, "charset": "utf8mb4"},
        "isolation_level": "READ COMMITTED",
        "pool_pre_ping": True,
        "pool_recycle": 1800,
        "pool_size": app.config["THREADS"] + 1,
        "max_overflow": 8,
        "pool_timeout": BUSY_SECONDS,
    }


def _greet_sqlite(raw: sqlite3.Connection, _record: object) -> None:
    for pragma in SQLITE_PRAGMAS:
        raw.execute(f"PRAGMA {pragma}")


def _greet_mysql(raw: Any, _record: object) -> None:
    # The server may be configured for another collation of utf8mb4; literals would then not compare as columns do.
    with raw.cursor() as cursor:
        cursor.execute("SET NAMES utf8mb4 COLLATE utf8mb4_bin")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A deferred BEGIN that reads and then writes fails at once when another writer came between; IMMEDIATE waits.
    statement = "BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN"
    connection.exec_driver_sql(statement)


def error_code(error: BaseException | None) -> int:
    """The MySQL error number of a driver's exception, 0 where there is none."""
    arguments = getattr(error, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0


def _mark_disconnect(context: Any) -> None:
    if error_code(context.original_exception) in DISCONNECTS:
        context.is_disconnect = True


def is_unavailable(error: BaseException) -> bool:
    """Whether an exception says that the database cannot be reached or written now, so that trying later helps."""
    if isinstance(error, (DatabaseBusy, PoolTimeout)):
        return True
    if not isinstance(error, (OperationalError, InterfaceError)):
        return False
    if isinstance(error.orig, sqlite3.Error):
        name = getattr(error.orig, "sqlite_errorname", "")
        return name.startswith(("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_READONLY"))
    return error.connection_invalidated or error_code(error.orig) in UNREACHABLE


# ======================================================================================================================
# == 3. Transactions ===================================================================================================
# ======================================================================================================================

# Record changed since read, lock wait timeout, deadlock or Galera certification; and a unique key that another
# transaction took first: the action, run again, finds that row.
RETRIED = {1020, 1062, 1205, 1213}
ATTEMPTS = 6


def transactional(action: Callable[P, R]) -> Callable[P, R]:
    """Run a model's action as one transaction, and again from the start when the engine asks for it.

    What the view has read is given up first, so that the action reads the present state: pass ids and plain values
    (`current_user` may be passed, it is read again). An action called within another one joins it. A deadlock, a lock
    wait timeout or a Galera certification failure, the commit's included, runs the whole action again.

    Raises whatever the action raises, with everything rolled back; `DatabaseBusy` when the write lock stays taken.
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
                log.info("%s: attempt %d met %s", action.__qualname__, attempt, error_code(error.orig))
            time.sleep(random.uniform(0, 0.01 * 2**attempt))
        return _run_once(action, *args, **kwargs)

    return run


def _run_once(action: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    db.session.rollback()
    with _turn_to_write():
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


@contextlib.contextmanager
def _turn_to_write() -> Iterator[None]:
    """Let this process write to SQLite one transaction after the other: SQLite's own waiting is not fair."""
    if not is_sqlite():
        yield
        return
    lock = database_state().write_lock
    if not lock.acquire(timeout=BUSY_SECONDS):
        raise DatabaseBusy("the write lock was not free in time")
    try:
        yield
    finally:
        lock.release()


# ======================================================================================================================
# == 4. Statements =====================================================================================================
# ======================================================================================================================


def unless_present(statement: sa.Insert) -> sa.Insert:
    """Have an INSERT skip the rows whose unique key stands already."""
    statement = statement.prefix_with("OR IGNORE", dialect="sqlite")
    return statement.prefix_with("IGNORE", dialect="mysql").prefix_with("IGNORE", dialect="mariadb")


def insert_if_absent(model: Any, **values: Any) -> bool:
    """Insert a row unless one with the same unique key stands. Returns whether it was inserted."""
    db.session.flush()
    result = db.session.connection().execute(unless_present(sa.insert(model)), values)
    return result.rowcount == 1


def upsert(model: Any, values: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, or change the ones that stand with the same primary key."""
    table: sa.Table = model.__table__
    keys = [column.name for column in table.primary_key]
    changed = [name for name in values[0] if name not in keys]
    if is_sqlite():
        insert: Any = insert_sqlite(table)
        insert = insert.on_conflict_do_update(keys, set_={name: insert.excluded[name] for name in changed})
    else:
        insert = insert_mysql(table)
        insert = insert.on_duplicate_key_update({name: insert.inserted[name] for name in changed})
    db.session.connection().execute(insert, list(values))


def in_table_order(statement: sa.Select[*tuple[Any, ...]]) -> sa.Select[*tuple[Any, ...]]:
    """Have MySQL join in the order written: its optimizer starts at the smallest table and then sorts a million rows.

    SQLite, which follows the index that serves ORDER BY and LIMIT, needs no telling.
    """
    return statement.prefix_with("STRAIGHT_JOIN", dialect="mysql").prefix_with("STRAIGHT_JOIN", dialect="mariadb")


# -- Names that app.py still asks for, until each part of it has moved on ----------------------------------------------

Columns = sa.Select[*tuple[Any, ...]]
unit = lean_unit = transactional


class Prepared:
    """A statement, made when it is first executed."""

    def __init__(self, statement: Any) -> None:
        self.statement = statement

    def made(self) -> Any:
        if callable(self.statement):
            self.statement = self.statement()
        return self.statement


def rows(statement: Any, **parameters: Any) -> Any:
    """Execute a statement over columns."""
    made = statement.made() if isinstance(statement, Prepared) else statement
    return db.session.connection().execute(made, parameters)


def end_reading() -> None:
    """End what was read."""
    if not db.session.info.get("in_transaction"):
        db.session.rollback()


def remove(table: sa.Table, ids: Sequence[int]) -> None:
    """Delete rows and, before them, whatever refers to them by a foreign key, however far."""
    if not ids:
        return
    keys = (key for child in db.metadata.tables.values() for key in child.foreign_keys if key.column.table is table)
    for key in keys:
        child, refers = key.parent.table, key.parent.in_(ids)
        if "id" in child.c:
            remove(child, [row.id for row in rows(sa.select(child.c.id).where(refers))])
        else:
            rows(sa.delete(child).where(refers))
    rows(sa.delete(table).where(table.c.id.in_(ids)))


# ======================================================================================================================
# == 5. Write-behind ===================================================================================================
# ======================================================================================================================


# So many times as long as a part took its thread leaves to others: a quarter of an idle process is its own, and a
# hundredth of one that has other work. Idle is where less than that share of a core was used meanwhile.
IDLE_PAUSE, BUSY_PAUSE, PAUSE_MOST = 3, 100, 10  # the last in seconds
IDLE_SHARE = 0.3


class WriteBehind:
    """Notes what looking causes and lets a thread write it in batches, so that no GET writes.

    The newest note of a key wins. A crash may lose the notes of the last `seconds`; that is accepted. What takes long
    is written part by part, with pauses for others: `write` returns True until there is no more.
    """

    def __init__(self, app: Flask, write: Callable[[dict[Any, Any]], bool | None], seconds: float = 20) -> None:
        self.app, self.write, self.seconds = app, write, seconds
        self.notes: dict[Any, Any] = {}
        self.leaving: dict[Any, Any] = {}  # what is being written
        self.lock = threading.Lock()
        self.noted = threading.Event()
        self.stopping = threading.Event()
        self.thread: threading.Thread | None = None

    def note(self, key: Any, value: Any) -> None:
        """Remember `value` for `key` until the next batch."""
        with self.lock:
            self.notes[key] = value
            if self.thread is None and not self.stopping.is_set():
                # Started at the first note and not with the application: a server that forks has forked by now.
                self.thread = threading.Thread(target=self._run, name="write-behind", daemon=True)
                self.thread.start()
        if not self.noted.is_set():
            self.noted.set()

    def pending(self, key: Any) -> Any:
        """What is noted for a key and may not be written yet, None without it."""
        return self.notes.get(key) or self.leaving.get(key)

    def flush(self) -> None:
        """Write what has been noted so far."""
        while self._flush_some():
            pass

    def stop(self) -> None:
        """Write what is left of the notes, and end the thread."""
        self.stopping.set()
        self.noted.set()
        if self.thread is not None:
            self.thread.join(timeout=BUSY_SECONDS)
        self._flush_logged()

    def _flush_some(self) -> bool:
        """Write what has been noted so far, or a part of that. Returns whether there is more."""
        with self.lock:
            self.leaving = self.leaving | self.notes
            self.notes = {}
        more = False
        try:
            if self.leaving:
                with self.app.app_context():
                    more = bool(self.write(self.leaving))
        finally:
            if not more:
                self.leaving = {}
        return more

    def _run(self) -> None:
        while self.noted.wait() and not self.stopping.wait(self.seconds):
            self.noted.clear()
            more = True
            while more and not self.stopping.is_set():
                begun = time.monotonic()
                more = self._flush_logged()
                self._pause(time.monotonic() - begun)

    def _pause(self, took: float) -> None:
        """Leave the process to others after a part that `took` so many seconds; for long if they make use of it."""
        begun, worked = time.monotonic(), time.process_time()
        self.stopping.wait(min(PAUSE_MOST, IDLE_PAUSE * took))
        if time.process_time() - worked > IDLE_SHARE * (time.monotonic() - begun):
            self.stopping.wait(min(PAUSE_MOST, BUSY_PAUSE * took))

    def _flush_logged(self) -> bool:
        try:
            return self._flush_some()
        except Exception:
            log.exception("the notes of the last %s seconds were not written", self.seconds)
            return False


# ======================================================================================================================
# == 6. Schema =========================================================================================================
# ======================================================================================================================

RECHECK_SECONDS = 2.0


class SchemaError(click.ClickException):
    """The schema is missing, or older or newer than the code. The message names the command to run."""


# The revisions of the time before the first release; their tables were others.
DEVELOPMENT_REVISIONS = {"0001", "0002", "0003", "0004", "0005", "0006"}


def _script_heads() -> tuple[set[str], set[str]]:
    """The heads of the migrations folder, and every revision in it."""
    scripts = ScriptDirectory(str(MIGRATIONS))
    return set(scripts.get_heads()), {script.revision for script in scripts.walk_revisions()}


def _current_heads() -> set[str]:
    with db.engine.connect() as connection:
        return set(MigrationContext.configure(connection).get_current_heads())


def check_schema() -> None:
    """Raise `SchemaError`, naming the command to run, unless the schema is exactly the one this code needs."""
    heads, known = _script_heads()
    current = _current_heads()
    if current == heads:
        return
    if not current:
        raise SchemaError("The database is empty. Create its tables with: python -m flask init-db")
    _check_known(current, known)
    raise SchemaError("The database is older than this version. Back it up, then run: python -m flask init-db")


def _check_known(current: set[str], known: set[str]) -> None:
    if current & DEVELOPMENT_REVISIONS:
        raise SchemaError(
            "The database was made by a development version of Corkboard and cannot be upgraded. "
            "Move it away or name an empty one in DATABASE_URL, then run: python -m flask init-db"
        )
    if current - known:
        raise SchemaError(
            "The database was made by a newer version of Corkboard. Install that version (or a later one), "
            "then run: python -m flask init-db"
        )


def schema_problem() -> str | None:
    """What is wrong with the schema, None when nothing is. Checked once, and while wrong again every few seconds."""
    state = database_state()
    if state.schema_ok:
        return None
    if time.monotonic() - state.schema_checked < RECHECK_SECONDS:
        return "The database is not ready. See the log, or run: python -m flask check"
    try:
        check_schema()
    except SchemaError as error:
        state.schema_checked = time.monotonic()
        return error.message
    state.schema_ok = True
    return None


def upgrade_schema() -> None:
    """Create the tables or bring them up to date, on either engine. May be run again; one process at a time.

    Raises `SchemaError` for a database that this version cannot upgrade.
    """
    _check_known(_current_heads(), _script_heads()[1])
    upgrade()
    database_state().schema_ok = False


def prepare_served_start(app: Flask) -> None:
    """Before serving: create the schema where SQLite's file is fresh, else demand that it fits.

    Raises `SchemaError`. A schema with data in it is never changed unasked.
    """
    with app.app_context():
        try:
            if is_sqlite() and not sa.inspect(db.engine).get_table_names():
                upgrade_schema()
            check_schema()
        except DBAPIError as error:
            log.error("the database does not answer: %s", error)
            raise SchemaError("The database does not answer. To see why: python -m flask check") from error


# ======================================================================================================================
# == 7. Full-text search ===============================================================================================
# ======================================================================================================================

# One tokenizer of ours makes words out of a text for both engines, so that both find the same: SQLite by FTS5, MySQL
# by FULLTEXT. They are handed nothing but a-z, 0-9 and _, with three letters in front of each: so none is a stop word
# or shorter than MySQL indexes (which a site cannot set), none is an operator, and none is what people typed.
WORD_MARK, TITLE_MARK, PERSON_MARK, FLAG_MARK = "zzz", "ttt", "ppp", "qqq"
WORD_MAX, TOKEN_MAX = 40, 72  # InnoDB passes over what is longer than 84 characters, marks and all
QUERY_WORDS = 8
WINDOW = 2048  # entries that MySQL is asked about at once; see `entry_tokens`
LISTED_LENGTHS = (5, 6)  # of beginnings, with the mark, that FTS5 keeps lists of
EXPANDED_MOST = 24
RANKED_MOST = 2000

_UNDECOMPOSED = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"})
_ACCENTS = re.compile("[\u0300-\u036f]")  # not the marks of kana or Hindi, which make other letters
# Thai, Lao, Khmer; Chinese and Japanese.
_SPACELESS = "\u0e00-\u0eff\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
_SPACELESS += "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_PICTURES = "\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001f3fa\U0001f400-\U0001faff"


class Word(NamedTuple):
    """A word as it is looked for, and where it stands in the text it is of."""

    text: str
    start: int
    end: int
    whole: bool = False  # found only as it is, not as the beginning of a longer one
    tail: bool = False  # the last character of several without spaces, by itself: in texts only


@functools.cache
def _pieces() -> re.Pattern[str]:
    """What a text is taken apart into: scripts without spaces, pictures, and words with the marks on them."""
    every = (chr(code) for code in range(0x300, 0x3000) if unicodedata.category(chr(code)) in ("Mn", "Mc"))
    letter, mark = rf"[^\W_{_SPACELESS}{_PICTURES}]", f"[{''.join(every)}]"
    return re.compile(rf"([{_SPACELESS}]+)|([{_PICTURES}])|({letter}(?:{letter}|{mark})*(?:(?:\+\+|\#)(?!\w))?)")


def _folded(piece: str) -> str:
    """The same whatever the case, the accents and the width of its letters."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", piece).casefold()).translate(_UNDECOMPOSED)
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", text)))


def words_of(text: str) -> Iterator[Word]:
    """The words of a text. Where a script puts no spaces, each pair of characters is one, and the last by itself."""
    for found in _pieces().finditer(text):
        start, end = found.span()
        if found[1]:
            yield from _pairs(_folded(found[1]), start, end)
        else:
            folded = _folded(found[0])[:WORD_MAX] or found[0]
            # One letter as the beginning of words would find everything.
            yield Word(folded, start, end, whole=len(folded) == 1 and folded.isascii())


def _pairs(run: str, start: int, end: int) -> Iterator[Word]:
    same = len(run) == end - start  # else folding made two characters one, and all of it is where each stands
    for place in range(len(run)):
        pair = run[place : place + 2]
        at = start + place if same else start
        yield Word(pair, at, at + len(pair) if same else end, tail=place > 0 and len(pair) == 1)


def query_words(query: str) -> list[Word]:
    """The words that somebody looks for, each once; all of them have to be found."""
    words = (word for word in words_of(unicodedata.normalize("NFC", query)) if not word.tail)
    return list({word.text: word for word in words}.values())[:QUERY_WORDS]


def places_of(wanted: Sequence[Word], text: str) -> Iterator[tuple[int, int]]:
    """Where words that are looked for, or longer ones that begin like them, stand in a text: start and end."""
    for found in _places_pattern(tuple(wanted)).finditer(text):
        start, end = found.span()
        if not found["other"]:
            yield start, end
            continue
        for word in words_of(found[0]):
            if any(word.text == one.text or (not one.whole and word.text.startswith(one.text)) for one in wanted):
                yield start + word.start, start + word.end


@functools.lru_cache(maxsize=64)
def _places_pattern(wanted: tuple[Word, ...]) -> re.Pattern[str]:
    """What finds words in ASCII by itself, which is a tenth of the work, and what is `other` up to the next space."""
    every = (re.escape(one.text) + ("(?![a-z0-9])" if one.whole else "[a-z0-9]*") for one in wanted)
    return re.compile(
        rf"(?P<other>{_FOREIGN.pattern})|(?<![a-z0-9])(?:{'|'.join(every) or '(?!)'})", re.IGNORECASE | re.ASCII
    )


def _spelt(word: str) -> str:
    """A word in the characters that both engines take for parts of one."""
    if word.isascii() and word.isalnum():
        return word[:TOKEN_MAX]
    return "".join(map(_spelt_character, word))[:TOKEN_MAX]


@functools.lru_cache(maxsize=4096)
def _spelt_character(char: str) -> str:
    return char if char.isascii() and char.isalnum() else f"_{ord(char):05x}"


def search_tokens(text: str, mark: str = WORD_MARK) -> list[str]:
    """What is indexed of a text: its words, each once; 'C++' also as 'c', 'e-mail' also as 'email'."""
    runs = () if text.isascii() else _FOREIGN.findall(text)
    tokens = dict.fromkeys(_PLAIN.findall((_FOREIGN.sub(" ", text) if runs else text).lower()))
    for run in (*runs, *[word for word in tokens if not word.isalnum() or len(word) > WORD_MAX]):
        tokens.pop(run, None)
        tokens |= dict.fromkeys(_run_tokens(run) if len(run) <= WORD_MAX else _run_tokens.__wrapped__(run))
    return [mark + token for token in tokens] if mark else [*tokens]


# Most words are plain ones, and found at once by a pattern: a tenth of the work of looking at each. The rest are looked
# at up to the next space: what has anything but ASCII in it, and what has signs in it (C++, e-mail).
# (The first set is that of [^\s\x80-\U0010ffff], which takes thirty times as long to compile.)
_FOREIGN = re.compile(r"(?<!\S)[\x00-\x08\x0e-\x1b!-\x7f]*[^\s\x00-\x7f]\S*")
_PLAIN = re.compile(r"{0}(?:[-']{0})*".format(r"[a-z0-9]+(?:(?:\+\+|\#)(?!\w))?"))


@functools.lru_cache(maxsize=2048)
def _run_tokens(run: str) -> tuple[str, ...]:
    """What is indexed of something between two spaces."""
    tokens: dict[str, None] = {}
    before, joined = Word("", -1, -1), ""
    for word in words_of(run):
        tokens[_spelt(word.text)] = None
        if word.text.endswith(("+", "#")):
            tokens[_spelt(word.text.rstrip("+#"))] = None
        joined = joined + word.text if word.start == before.end + 1 and run[before.end] in "-'’‐‑" else word.text
        if joined != word.text and len(joined) <= WORD_MAX:
            tokens[_spelt(joined)] = None
        before = word
    return tuple(tokens)


def search_flags(**flags: Any) -> list[str]:
    """What else an entry is found by, indexed as words are: `kind`, `author`."""
    return [f"{FLAG_MARK}{name}{value}" for name, value in flags.items() if value]


def entry_tokens(entry_id: int, tokens: Sequence[str]) -> str:
    """What an entry's column holds. For MySQL each word comes a second time, with the entry's place in time before it.

    InnoDB finds everything that has a word before it takes the newest: a quarter of a second for what stands in
    100,000 entries. By these it is asked about the newest few thousand entries only.
    """
    if is_sqlite():
        return " ".join(tokens)
    window = _window(entry_id)
    twice = [*tokens, *(window + token for token in tokens if token[0] in WORD_MARK + TITLE_MARK)]
    return f" {' '.join(twice)} "  # each between spaces, as `search_checks` looks for them


def _window(entry_id: int) -> str:
    return f"n{entry_id // WINDOW}n"


# -- Asking: FTS5 is walked from the newest entry on until there are enough, InnoDB asked about windows of time --------

_FTS = sa.table("search_fts", sa.column("rowid", sa.Integer))
_WORDS = sa.table("search_fts_words", sa.column("word", sa.String))
_MATCH = sa.bindparam("match", type_=sa.String)
_MATCHES = sa.literal_column("search_fts").op("MATCH", is_comparison=True)(_MATCH)
_OLDEST = Prepared(
    lambda: sa.select(_FTS.c.rowid).where(_MATCHES).order_by(_FTS.c.rowid.desc()).limit(1).offset(RANKED_MOST - 1)
)
_BEGUN = Prepared(
    lambda: (
        sa.select(_WORDS.c.word)
        .where(_WORDS.c.word >= sa.bindparam("start"), _WORDS.c.word < sa.bindparam("end"))
        .limit(EXPANDED_MOST + 1)
    )
)


def search_match(entries: Any, sqlite: bool, newest: int = 0, checks: int = 0) -> tuple[Any, Any, Any]:
    """What to select from, the condition that an entry matches (`match`), and what orders the newest first.

    Neither engine is asked how well one matches: FTS5 would count the rows of each word, a tenth of a second for one
    that stands in a million; it is given ids from `oldest` on. With `newest` InnoDB hands over only so many, of which
    the person may see some; `checks` is how many `search_checks` there are, bound as `check0` and so on.
    """
    if sqlite:
        joined = sa.join(_FTS, entries, entries.c.id == _FTS.c.rowid)
        return joined, sa.and_(_MATCHES, _FTS.c.rowid >= sa.bindparam("oldest")), _FTS.c.rowid.desc()
    from sqlalchemy.dialects import mysql

    there = (
        sa.func.instr(entries.c.tokens, sa.bindparam(f"check{number}", type_=sa.String)) for number in range(checks)
    )
    matches = sa.and_(mysql.match(entries.c.tokens, against=_MATCH).in_boolean_mode(), *(found > 0 for found in there))
    if not newest:
        return entries, matches, entries.c.id.desc()
    ids = sa.select(entries.c.id).where(matches).order_by(entries.c.id.desc()).limit(newest).subquery()
    return sa.join(ids, entries, entries.c.id == ids.c.id), sa.true(), entries.c.id.desc()


def search_query(words: Sequence[Word], flags: Sequence[str], mark: str, whole: bool, last: int = 0) -> str:
    """What to ask the engine for as `match`: all the words, as they are or (unless `whole`) as beginnings.

    With `last`, the highest id of an entry, MySQL is asked about the two newest windows only.
    """
    sought = [(mark + _spelt(word.text), whole or word.whole) for word in words]
    if is_sqlite():
        return " AND ".join([*(f'"{flag}"' for flag in flags), *(_fts5_word(*one) for one in sought)])
    # The longest first: it is likely the rarest, and InnoDB looks through what it found for the first.
    short = _short(words)
    ordered = sorted((one for one, word in zip(sought, words, strict=True) if word not in short), key=_length)[::-1]
    windows = [_window(last), _window(max(0, last - WINDOW))] if last else [""]
    every = [" ".join(f"{window}{token}{'' if exact else '*'}" for window in windows) for token, exact in ordered]
    return " ".join([*(f"+({token})" for token in every), *(f"+{flag}" for flag in flags)])


def search_oldest(match: str) -> int:
    """How far back (an entry's id) FTS5 is walked for what has the words in its title, too: of what is everywhere
    the newest `RANKED_MOST` are ranked."""
    oldest = rows(_OLDEST, match=match).first() if is_sqlite() else None
    return oldest.rowid if oldest else 0


def search_checks(words: Sequence[Word], mark: str, whole: bool) -> dict[str, str]:
    """What of a query MySQL looks for in what it found by the rest of it: words so short that they are everywhere."""
    short = [] if is_sqlite() else _short(words)
    sought = (f" {mark}{_spelt(word.text)}{' ' if whole or word.whole else ''}" for word in short)
    return {f"check{number}": text for number, text in enumerate(sought)}


def _short(words: Sequence[Word]) -> list[Word]:
    long = [word for word in words if len(word.text) > 3 or not word.text.isascii()]
    longest = max(words, key=lambda word: len(word.text))
    return [word for word in words if word not in (long or [longest])]


def _length(sought: tuple[str, bool]) -> int:
    return len(sought[0])


def _fts5_word(token: str, exact: bool) -> str:
    """A word as FTS5 is asked for it. A beginning is spelt out where few words have it: each of them is walked from
    the newest entry on, while for a beginning that has no list of its own everything would be gathered first."""
    if exact:
        return f'"{token}"'
    if len(token) not in LISTED_LENGTHS:
        begun = rows(_BEGUN, start=token, end=token + "\x7f").all()
        if len(begun) <= EXPANDED_MOST:
            return "(" + " OR ".join(f'"{row.word}"' for row in begun) + ")" if begun else f'"{token}"'
    return f'"{token}"*'


# -- The index ---------------------------------------------------------------------------------------------------------


def create_search_index(connection: sa.Connection) -> None:
    """Make the index over `search_entries` where it is missing; part of a migration, may be run again.

    On SQLite triggers keep it in step with the entries that are changed or go; `add_entries` adds.
    """
    if connection.dialect.name == "sqlite":
        for statement in _SQLITE_SEARCH:
            connection.exec_driver_sql(statement)
        return
    made = {index["name"] for index in sa.inspect(connection).get_indexes("search_entries")}
    if "ft_search_entries_tokens" not in made:
        connection.exec_driver_sql("CREATE FULLTEXT INDEX ft_search_entries_tokens ON search_entries (tokens)")


_TAKE_OUT = "INSERT INTO search_fts (search_fts, rowid, tokens) VALUES ('delete', old.id, old.tokens);"
_PUT_IN = "INSERT INTO search_fts (rowid, tokens) VALUES (new.id, new.tokens);"
# No positions and no sizes, because nothing asks for them; beginnings of two and three letters have lists of their own.
# What is written goes to the disk in large parts, or most of building it would be merging small ones.
_SQLITE_SEARCH = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS search_fts USING fts5(tokens, content='search_entries', content_rowid='id', "
    f"detail=none, columnsize=0, prefix='{' '.join(map(str, LISTED_LENGTHS))}', tokenize=\"ascii tokenchars '_'\")",
    "INSERT INTO search_fts (search_fts, rank) VALUES ('hashsize', 32000000)",
    "INSERT INTO search_fts (search_fts, rank) VALUES ('crisismerge', 200)",
    "CREATE TABLE IF NOT EXISTS search_fts_words (word TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID",
    f"CREATE TRIGGER IF NOT EXISTS search_deleted AFTER DELETE ON search_entries BEGIN {_TAKE_OUT} END",
    "CREATE TRIGGER IF NOT EXISTS search_updated AFTER UPDATE OF tokens ON search_entries "
    f"BEGIN {_TAKE_OUT} {_PUT_IN} END",
)


def add_entries(entries: Any, values: Sequence[dict[str, Any]]) -> None:
    """Insert entries with ids higher than any, as part of the caller's unit.

    FTS5 is handed all of them by one statement: at the begin of each it writes down what the one before brought.
    """
    db.session.connection().execute(sa.insert(entries), values)
    add_to_index(values[0]["id"])


def add_to_index(first: int) -> None:
    if is_sqlite():
        rows(_INDEX_ADDED, first=first)


_INDEX_ADDED = sa.text(
    "INSERT INTO search_fts (rowid, tokens) SELECT id, tokens FROM search_entries WHERE id >= :first ORDER BY id"
)


def note_words(tokens: set[str]) -> None:
    """Remember words that entries have, as part of the unit that writes these: see `_fts5_word`."""
    if is_sqlite() and tokens:
        values = [{"word": token} for token in tokens]
        db.session.connection().execute(unless_present(sa.insert(_WORDS)), values)


def drop_search_index(connection: sa.Connection) -> None:
    """Undo `create_search_index`, except for what goes with the table."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("DROP TABLE IF EXISTS search_fts")
        connection.exec_driver_sql("DROP TABLE IF EXISTS search_fts_words")


def clear_search(entries: Any) -> None:
    """Throw all entries away and the index over them, as part of the caller's unit; faster than one by one."""
    if not is_sqlite():
        rows(sa.text(f"TRUNCATE TABLE {entries.name}"))
        return
    rows(sa.text("DROP TRIGGER search_deleted"))
    rows(sa.delete(entries))
    rows(sa.text("INSERT INTO search_fts (search_fts) VALUES ('delete-all')"))
    rows(sa.delete(_WORDS))
    create_search_index(db.session.connection())


def is_search_index(name: str | None) -> bool:
    """Whether a table or index is one that `create_search_index` makes: the models know nothing of them."""
    return bool(name) and str(name).startswith(("search_fts", "ft_search"))
