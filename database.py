"""All that differs between SQLite and MySQL/MariaDB, and all that guards data.

1. Column types and keys     the types models are made of, alike on both engines
2. Engine                    `db`, `migrate`, `init_db(app)`, what each engine is told on connecting
3. Transactions              `@transactional`: one transaction, tried again as a whole
4. Statements                what the engines spell differently
5. Schema                    is it there, is it current, bring it up to date
6. Full-text search          the words of a text, the index over them, what to ask it
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
from sqlalchemy.dialects.mysql import match as match_mysql
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


def upsert(model: Any, values: Sequence[Mapping[str, Any]], keys: Sequence[str] = ()) -> None:
    """Insert rows, or change the ones that stand with the same unique `keys` (the primary key if none are given)."""
    table: sa.Table = model.__table__
    keys = keys or [column.name for column in table.primary_key]
    changed = [name for name in values[0] if name not in keys]
    insert: Any
    if is_sqlite():
        new = {name: sa.literal_column(f"excluded.{name}") for name in changed}
        insert = insert_sqlite(table).on_conflict_do_update(keys, set_=new)
    else:
        new = {name: sa.func.values(sa.column(name)) for name in changed}
        insert = insert_mysql(table).on_duplicate_key_update(new)
    db.session.connection().execute(insert, list(values))


def in_table_order(statement: sa.Select[*tuple[Any, ...]], **indexes: Any) -> sa.Select[*tuple[Any, ...]]:
    """Have MySQL join in the order written, and read some tables by these indexes: each the name of one, and its table.

    Its optimizer would start at the smallest table and then sort a million rows, or follow an index from its very
    beginning to a page far down. SQLite, which follows the index that serves ORDER BY and LIMIT, needs no telling.
    """
    for dialect in ("mysql", "mariadb"):
        statement = statement.prefix_with("STRAIGHT_JOIN", dialect=dialect)
        for index, table in indexes.items():
            statement = statement.with_hint(table, f"FORCE INDEX (`{index}`)", dialect)
    return statement


# ======================================================================================================================
# == 5. Schema =========================================================================================================
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
# == 6. Full-text search ===============================================================================================
# ======================================================================================================================

# Our own tokenizer makes words out of a text for both engines, so that both find the same: SQLite by FTS5, MySQL by
# FULLTEXT. They get nothing but a-z, 0-9 and _, with three letters in front of each word. So no word is a stop word or
# shorter than MySQL indexes (which a site cannot set), none is an operator, and none is what people typed.
WORD_MARK, TITLE_MARK, FLAG_MARK = "zzz", "ttt", "qqq"
WORD_MAX, TOKEN_MAX = 40, 72  # InnoDB ignores what is longer than 84 characters, marks included
QUERY_WORDS = 8
MYSQL_BEGINNING = 4  # letters: MySQL takes too long to find the beginnings of words that are shorter

_UNDECOMPOSED = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"})
_ACCENTS = re.compile("[\u0300-\u036f]")  # not the marks of kana or Hindi, which make other letters
_MARKS = "".join(char for char in map(chr, range(0x300, 0x3000)) if unicodedata.category(char) in ("Mn", "Mc"))
# Thai, Lao, Khmer; Chinese and Japanese.
_SPACELESS = "\u0e00-\u0eff\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
_SPACELESS += "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_PICTURES = "\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001f3fa\U0001f400-\U0001faff"
_LETTER = rf"[^\W_{_SPACELESS}{_PICTURES}]"
_PIECE = re.compile(rf"(?P<run>[{_SPACELESS}]+)|[{_PICTURES}]|{_LETTER}(?:{_LETTER}|[{_MARKS}])*(?:(?:\+\+|\#)(?!\w))?")
_NO_TOKEN = re.compile("[^a-z0-9]")


class Word(NamedTuple):
    """A folded word, and where it stands in its text."""

    text: str
    start: int
    end: int
    is_tail: bool = False  # the last character of a run without spaces, which its last pair holds already

    @property
    def is_letter(self) -> bool:
        """Whether it is found only as it is: as the beginning of words a single letter would find everything."""
        return len(self.text) == 1 and self.text.isascii()


def spell(word: str) -> str:
    """A word in the characters that both engines take for parts of a word."""
    return _NO_TOKEN.sub(lambda found: f"_{ord(found[0]):05x}", word)[:TOKEN_MAX]


def words_of(text: str) -> Iterator[Word]:
    """The words of a text. Where a script puts no spaces, each pair of characters is a word, and so is the last one."""
    for found in _PIECE.finditer(text):
        folded = _fold_word(found[0])
        if found["run"]:
            yield from _pairs(folded, *found.span())
        else:
            yield Word(folded[:WORD_MAX] or found[0], *found.span())


def _fold_word(word: str) -> str:
    """A word without differences of case, accents and width."""
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFD", fold(word).translate(_UNDECOMPOSED))
    return unicodedata.normalize("NFC", _ACCENTS.sub("", decomposed))


def _pairs(run: str, start: int, end: int) -> Iterator[Word]:
    is_same_length = len(run) == end - start  # otherwise folding joined characters, and no pair has a place of its own
    for place in range(len(run)):
        pair = run[place : place + 2]
        at, until = (start + place, start + place + len(pair)) if is_same_length else (start, end)
        yield Word(pair, at, until, is_tail=place > 0 and len(pair) == 1)


def query_words(query: str) -> list[Word]:
    """The words that somebody looks for, each once. All of them have to be found."""
    words = words_of(unicodedata.normalize("NFC", query))
    wanted = {word.text: word for word in words if not word.is_tail}
    return list(wanted.values())[:QUERY_WORDS]


def places_of(wanted: Sequence[Word], text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each word in a text that is wanted, or begins like a wanted word."""
    exact = {word.text for word in wanted}
    beginnings = tuple(word.text for word in wanted if not word.is_letter)
    for word in words_of(text):
        if word.text in exact or word.text.startswith(beginnings):
            yield word.start, word.end


def search_tokens(text: str, mark: str = WORD_MARK) -> list[str]:
    """What is indexed of a text: its words, each once. 'C++' is also found as 'c', 'e-mail' also as 'email'."""
    found: dict[str, None] = {}
    joined, end = "", -1
    for word in words_of(text):
        goes_on = word.start == end + 1 and text[end] in "-'’‐‑" and len(joined) < WORD_MAX
        joined, end = joined + word.text if goes_on else word.text, word.end
        found[word.text] = found[word.text.rstrip("+#")] = found[joined] = None
    return [mark + spell(word) for word in found]


def search_flags(**flags: object) -> list[str]:
    """What else an entry is found by, indexed as words are: `kind`, `author`."""
    return [f"{FLAG_MARK}{name}{value}" for name, value in flags.items() if value]


# -- Asking ------------------------------------------------------------------------------------------------------------


def search_query(words: Sequence[Word], flags: Sequence[str], mark: str = WORD_MARK) -> str:
    """What to ask the engine for: all the flags, and all the words or longer ones that begin like them."""
    asked = dict.fromkeys(flags, "")
    for word in words:
        spelt = spell(word.text)
        is_beginning = not word.is_letter and (is_sqlite() or len(spelt) >= MYSQL_BEGINNING)
        asked[mark + spelt] = "*" if is_beginning else ""
    if is_sqlite():
        return " AND ".join(f'"{token}"{star}' for token, star in asked.items())
    return " ".join(f"+{token}{star}" for token, star in asked.items())


def newest_matches(found: Any, entries: Any, query: str, start: int, limit: int) -> Sequence[Any]:
    """The newest rows of a select over entries that match a query, from the entry with the id `start` on.

    Neither engine is asked how well an entry matches: it would have to look at all of them.
    """
    if is_sqlite():
        index = sa.table("search_fts", sa.column("rowid", sa.Integer))
        matches = sa.literal_column("search_fts").op("MATCH", is_comparison=True)(query)
        found, entry_id = found.join(index, index.c.rowid == entries.id).where(matches), index.c.rowid
    else:
        matches = match_mysql(entries.tokens, against=query).in_boolean_mode()
        found, entry_id = in_table_order(found).where(matches), entries.id
    newest = found.where(entry_id <= start).order_by(entry_id.desc()).limit(limit)
    return db.session.execute(newest).all()


# -- The index ---------------------------------------------------------------------------------------------------------


def create_search_index(connection: sa.Connection) -> None:
    """Make the index over `search_entries` where it is missing. Part of a migration, and may be run again."""
    if connection.dialect.name == "sqlite":
        for statement in _SQLITE_SEARCH:
            connection.exec_driver_sql(statement)
        return
    indexes = {index["name"] for index in sa.inspect(connection).get_indexes("search_entries")}
    if "ft_search_entries_tokens" not in indexes:
        connection.exec_driver_sql("CREATE FULLTEXT INDEX ft_search_entries_tokens ON search_entries (tokens)")


_TAKE_OUT = "INSERT INTO search_fts (search_fts, rowid, tokens) VALUES ('delete', old.id, old.tokens);"
_PUT_IN = "INSERT INTO search_fts (rowid, tokens) VALUES (new.id, new.tokens);"
# No positions and no sizes, because nothing asks for them. Triggers keep the index in step with the entries.
_SQLITE_SEARCH = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS search_fts USING fts5(tokens, content='search_entries', content_rowid='id', "
    "detail=none, columnsize=0, prefix='5 6 7', tokenize=\"ascii tokenchars '_'\")",
    f"CREATE TRIGGER IF NOT EXISTS search_inserted AFTER INSERT ON search_entries BEGIN {_PUT_IN} END",
    f"CREATE TRIGGER IF NOT EXISTS search_deleted AFTER DELETE ON search_entries BEGIN {_TAKE_OUT} END",
    "CREATE TRIGGER IF NOT EXISTS search_updated AFTER UPDATE OF tokens ON search_entries "
    f"BEGIN {_TAKE_OUT} {_PUT_IN} END",
)


def drop_search_index(connection: sa.Connection) -> None:
    """Undo `create_search_index`, except for what goes with the table."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("DROP TABLE IF EXISTS search_fts")


def is_search_index(name: str | None) -> bool:
    """Whether a table or index is one that `create_search_index` makes: the models do not know these."""
    return bool(name) and str(name).startswith(("search_fts", "ft_search"))
