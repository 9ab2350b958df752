"""Publishing: drafts, what is scheduled, what expires, pins that end; must-read and who has acknowledged what.

Each step passes over what an interrupted run has made already.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0006"
down_revision = "0001"
branch_labels = None
depends_on = None

MYSQL = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
Timestamp = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")

# In the order in which they stand, each after the one before it: SQLite reads a row from its front, and the long texts
# come last.
COLUMNS = {
    "pinned_until": Timestamp,
    "expires_at": Timestamp,
    "must_read_since": Timestamp,
    "must_read_due": sa.Date(),
    "must_read_version": sa.Integer(),
    "must_read_roles": sa.SmallInteger(),
    "reminded_at": Timestamp,
}


def define() -> sa.MetaData:
    """The tables as this revision makes them, whatever the models say by now."""
    tables = sa.MetaData()
    sa.Table("posts", tables, sa.Column("id", sa.Integer, primary_key=True))
    sa.Table("users", tables, sa.Column("id", sa.Integer, primary_key=True))
    sa.Table(
        "must_read_people",
        tables,
        sa.Column("post_id", sa.Integer, nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("post_id", "user_id", name="pk_must_read_people"),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name="fk_must_read_people_post_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_must_read_people_user_id"),
        sa.Index("ix_must_read_people_user_id", "user_id"),
        **MYSQL,
    )
    sa.Table(
        "acknowledgements",
        tables,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("post_id", sa.Integer, nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_acknowledgements"),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name="fk_acknowledgements_post_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_acknowledgements_user_id"),
        sa.Index("ix_acknowledgements_user_id", "user_id"),
        sa.Index("uq_acknowledgements_post_id_user_id_version", "post_id", "user_id", "version", unique=True),
        **MYSQL,
    )
    return tables


def upgrade() -> None:
    connection = op.get_bind()
    there = {column["name"]: column for column in sa.inspect(connection).get_columns("posts")}
    missing = {name: kind for name, kind in COLUMNS.items() if name not in there}
    if missing or not there["published_at"]["nullable"]:
        with op.batch_alter_table("posts") as posts:
            posts.alter_column("published_at", existing_type=Timestamp, nullable=True)
            before, sqlite = "deleted_by_id", connection.dialect.name == "sqlite"
            for name, kind in COLUMNS.items():
                if name in missing:
                    place = {"insert_after": before} if sqlite else {}
                    posts.add_column(sa.Column(name, kind, nullable=True), **place)
                before = name
    if "ix_posts_must_read" not in {index["name"] for index in sa.inspect(connection).get_indexes("posts")}:
        op.create_index("ix_posts_must_read", "posts", ["must_read_since"])
    tables = define()
    for name in ("must_read_people", "acknowledgements"):
        tables.tables[name].create(connection, checkfirst=True)
        for index in tables.tables[name].indexes:
            index.create(connection, checkfirst=True)


def downgrade() -> None:
    """Drafts become posts of the moment when they were saved last, deleted ones."""
    connection = op.get_bind()
    tables = define()
    for name in ("acknowledgements", "must_read_people"):
        tables.tables[name].drop(connection, checkfirst=True)
    posts = sa.table("posts", sa.column("published_at"), sa.column("updated_at"), sa.column("deleted_at"))
    draft = posts.c.published_at.is_(None)
    hidden = {"published_at": posts.c.updated_at, "deleted_at": posts.c.updated_at}
    connection.execute(sa.update(posts).where(draft).values(hidden))
    op.drop_index("ix_posts_must_read", "posts")
    with op.batch_alter_table("posts") as table:
        for name in COLUMNS:
            table.drop_column(name)
        table.alter_column("published_at", existing_type=Timestamp, nullable=False)
