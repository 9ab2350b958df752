"""How Alembic runs here: on the application's engine, with its metadata, one process at a time."""

from alembic import context
from flask import current_app
from sqlalchemy import text

import database

ONE_AT_A_TIME = "corkboard.migrations"


def run() -> None:
    """Upgrade (or whatever was asked) in one transaction on SQLite; MySQL commits each DDL statement by itself."""
    with current_app.app_context(), database.db.engine.connect() as plain:
        connection = plain.execution_options(writes=True)  # SQLite's write lock at once
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            # A table that is made anew is dropped for a moment (sqlite.org/lang_altertable.html, section 7); the
            # connection is closed at the end, not given back to where somebody would meet it like this.
            connection.connection.driver_connection.execute("PRAGMA foreign_keys = OFF")
        else:
            connection.execute(text("SELECT GET_LOCK(:name, 60)"), {"name": ONE_AT_A_TIME})
        for table in database.db.metadata.tables.values():
            table.kwargs.update(database.MYSQL_TABLE)  # for what `flask db migrate` writes of it
        context.configure(
            connection=connection,
            target_metadata=database.db.metadata,
            render_as_batch=True,
            compare_type=True,
            include_name=lambda name, _kind, _parents: not database.is_search_index(name),
            transactional_ddl=sqlite,
        )
        with context.begin_transaction():
            context.run_migrations()
        if connection.in_transaction():
            connection.commit()
        if sqlite:
            connection.invalidate()
        else:
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": ONE_AT_A_TIME})


run()
