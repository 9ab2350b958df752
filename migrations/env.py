"""How Alembic runs here: on the application's engine, with its metadata, in one process at a time.

`flask db migrate` writes revisions that need no editing. They are numbered, they run on both engines, and a new column
that may not be NULL has a default for the rows that exist already.
"""

import importlib.util
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import sqlalchemy as sa
from alembic import context
from alembic.autogenerate.rewriter import Rewriter
from alembic.operations.ops import AddColumnOp, CreateTableOp
from alembic.script.write_hooks import register

import database
from app import plain_errors

# The errors by which MySQL says that a table, column, index or key exists already, or is gone already.
DONE_ALREADY = {1050, 1051, 1060, 1061, 1091, 1826}
DONE_ALREADY_ON_MARIADB = "errno: 121"

rewriter = Rewriter()


@rewriter.rewrites(AddColumnOp)
def add_default(_context, _revision, operation):
    """Give a column that may not be NULL a default. Without one, no engine adds it to a table that has rows."""
    column = operation.column
    if not column.nullable and column.server_default is None:
        value = default_of(column)
        # MySQL takes the default of a long text only as an expression.
        is_long = isinstance(column.type, sa.Text)
        column.server_default = sa.DefaultClause(sa.text(f"({value!r})") if is_long else value)
    return operation


def default_of(column):
    """Return the column's own default if it is one value, else 0, '', false, or a date long ago."""
    if column.default is not None and column.default.is_scalar:
        value = column.default.arg
    elif issubclass(column.type.python_type, date):
        value = column.type.python_type(2000, 1, 1)
    else:
        value = column.type.python_type()
    return str(int(value)) if isinstance(value, int) else str(value)


@rewriter.rewrites(CreateTableOp)
def add_table_options(_context, _revision, operation):
    """Give a new table the same MySQL options as all others."""
    operation.kw.update(database.MYSQL_TABLE)
    return operation


def number_revision(_context, _revision, directives):
    """Name a revision by its number and message, as in 0002_shoe_size. Write none if nothing has changed."""
    script = directives[0]
    if script.upgrade_ops.is_empty() and hasattr(context.config.cmd_opts, "autogenerate"):
        directives.clear()
        print("The models and the database are the same: there is nothing to migrate.")
        return
    number = len(list(context.script.walk_revisions())) + 1
    slug = re.sub(r"[^a-z0-9]+", "_", (script.message or "changes").lower()).strip("_")
    script.rev_id = f"{number:04d}_{slug}"[:32]


def render_item(kind, item, _context):
    """Return how a revision writes a column type: ours by name, any other decorated type as it is stored."""
    if kind != "type":
        return False
    if isinstance(item, database.TimestampType):
        return "database.Timestamp"
    if isinstance(item, database.LongTextType):
        return "database.LongText"
    return f"sa.{item.impl_instance!r}" if isinstance(item, sa.TypeDecorator) else False


@register("tidy")
def tidy_revision(path, _options):
    """Remove Alembic's empty phrases from a new revision, and format it if ruff is installed."""
    file = Path(path)
    text = re.sub(r"\n *# ### .*|, schema=None", "", file.read_text(encoding="utf-8"))
    file.write_text(text, encoding="utf-8")
    if importlib.util.find_spec("ruff"):
        subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", path], check=True)


def skip_what_is_done(cursor, statement, parameters, _context):
    """Let an interrupted upgrade run again, although MySQL commits after each statement that changes the schema."""
    try:
        cursor.execute(statement, parameters)
    except Exception as error:
        if database.error_code(error) not in DONE_ALREADY and DONE_ALREADY_ON_MARIADB not in str(error):
            raise
    return True


def run():
    """Run the migrations: on SQLite in one transaction, on MySQL under a lock."""
    with database.db.engine.connect() as connection:
        connection.execution_options(writes=True)
        try:
            if connection.dialect.name == "sqlite":
                migrate_sqlite(connection)
            else:
                migrate_mysql(connection)
        finally:
            connection.invalidate()  # its foreign keys are off, or it holds the lock: the pool must not reuse it
    database.checkpoint()


def migrate_sqlite(connection):
    # Alembic changes a table by making it again. Dropping the old one would delete what refers to it
    # (sqlite.org/lang_altertable.html, section 7). The pragma has no effect once a transaction has begun.
    connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
    configure(connection, transactional_ddl=True)
    with context.begin_transaction():
        given = highest_ids(connection)
        context.run_migrations()
        keep_highest_ids(connection, given)
        if sa.inspect(connection).has_table("search_entries"):
            database.create_search_index(connection)  # a table that was made again has lost its triggers
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if broken:
            raise database.SchemaError(f"The migration would leave rows of {broken[0]} without their {broken[2]}.")


def highest_ids(connection):
    """The highest id that each table of SQLite has ever given."""
    if not connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'").first():
        return {}
    return {row.name: row.seq for row in connection.exec_driver_sql("SELECT name, seq FROM sqlite_sequence")}


def keep_highest_ids(connection, given):
    """Let a table that was made again go on counting where it was: it knows the highest id that it has, no others."""
    for name, highest in given.items():
        if highest > highest_ids(connection).get(name, 0) and sa.inspect(connection).has_table(name):
            connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
            connection.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, highest))


def migrate_mysql(connection):
    if not connection.scalar(sa.text("SELECT GET_LOCK(CONCAT('corkboard.', MD5(DATABASE())), 60)")):
        raise database.SchemaError("Another process is upgrading this database. Try again in a minute.")
    connection.commit()
    configure(connection)
    sa.event.listen(connection.engine, "do_execute", skip_what_is_done)
    try:
        with context.begin_transaction():
            context.run_migrations()
    finally:
        sa.event.remove(connection.engine, "do_execute", skip_what_is_done)


def configure(connection, **options):
    context.configure(
        connection=connection,
        target_metadata=database.db.metadata,
        render_as_batch=True,
        render_item=render_item,
        include_name=lambda name, _kind, _parents: not database.is_search_index(name),
        process_revision_directives=rewriter.chain(number_revision),
        **options,
    )


with plain_errors():  # for the commands of Flask-Migrate, which are not ours
    run()
