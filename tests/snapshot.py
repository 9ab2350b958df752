"""Every row of every table at one moment, and back to it.

Nearly every test begins by this, so it goes past SQLAlchemy, and leaves a table alone that is as it should be.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

import database
from database import db

Rows = dict[str, list[dict[str, Any]]]  # of each table, as the driver has them
REMEMBERED = 4  # states of a table
# MySQL tells by one statement which tables are not as they were: what was in them then need not be read again.
_read: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = {}


def dump() -> Rows:
    """Every row of every table."""
    with _cursor() as cursor:
        marks = {} if database.is_sqlite() else _checksums(cursor)
        return {table.name: _rows(cursor, table, marks.get(table.name)) for table in db.metadata.sorted_tables}


def put_back(rows: Rows) -> None:
    """Make everything as it was at a `dump`."""
    now = dump()
    changes = [table for table in db.metadata.sorted_tables if now[table.name] != rows[table.name]]
    if not changes:
        return
    with _cursor() as cursor, _without_foreign_keys(cursor):
        for table in changes:
            if now[table.name]:
                cursor.execute(f"DELETE FROM {table.name}")
            if wanted := rows[table.name]:
                names = ", ".join(f"`{name}`" for name in wanted[0])
                marks = ", ".join(["?" if database.is_sqlite() else "%s"] * len(wanted[0]))
                cursor.executemany(
                    f"INSERT INTO {table.name} ({names}) VALUES ({marks})", [tuple(row.values()) for row in wanted]
                )


def changed(before: Rows, after: Rows, but: tuple[str, ...] = ()) -> list[str]:
    """The tables that are not as they were, leaving out some."""
    return [name for name in before if name not in but and before[name] != after[name]]


@contextmanager
def _cursor() -> Iterator[Any]:
    connection = db.engine.raw_connection()
    try:
        yield connection.cursor()
        connection.commit()
    finally:
        connection.close()


@contextmanager
def _without_foreign_keys(cursor: Any) -> Iterator[None]:
    """One transaction in which rows may be taken away and put back in any order, and take no others with them."""
    if database.is_sqlite():
        cursor.execute("PRAGMA foreign_keys = OFF")
        cursor.execute("BEGIN IMMEDIATE")
        yield
        cursor.execute("COMMIT")
        cursor.execute("PRAGMA foreign_keys = ON")
    else:
        cursor.execute("SET FOREIGN_KEY_CHECKS = 0")
        yield
        cursor.execute("SET FOREIGN_KEY_CHECKS = 1")


def _checksums(cursor: Any) -> dict[str, int]:
    cursor.execute(f"CHECKSUM TABLE {', '.join(table.name for table in db.metadata.sorted_tables)}")
    return {name.rpartition(".")[2]: checksum for name, checksum in cursor.fetchall()}


def _rows(cursor: Any, table: sa.Table, mark: int | None) -> list[dict[str, Any]]:
    if mark is None:
        return _select(cursor, table)
    known = _read.setdefault((str(db.engine.url), table.name), {})
    if mark not in known:
        while len(known) >= REMEMBERED:
            del known[next(iter(known))]
        known[mark] = _select(cursor, table)
    return known[mark]


def _select(cursor: Any, table: sa.Table) -> list[dict[str, Any]]:
    key = ", ".join(f"`{column.name}`" for column in table.primary_key)
    cursor.execute(f"SELECT * FROM {table.name} ORDER BY {key}")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
