"""Reactions to posts and comments."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MYSQL = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
Timestamp = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def define() -> sa.MetaData:
    """The table as this revision makes it, and as much of those it refers to as a foreign key needs."""
    tables = sa.MetaData()
    for name in ("users", "posts", "comments"):
        sa.Table(name, tables, sa.Column("id", sa.Integer, primary_key=True))
    sa.Table(
        "reactions",
        tables,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("post_id", sa.Integer, nullable=True),
        sa.Column("comment_id", sa.Integer, nullable=True),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_reactions"),
        sa.ForeignKeyConstraint(["comment_id"], ["comments.id"], name="fk_reactions_comment_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name="fk_reactions_post_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_reactions_user_id", ondelete="CASCADE"),
        sa.Index("ix_reactions_user_id", "user_id"),
        sa.Index("uq_reactions_comment_id_kind_user_id", "comment_id", "kind", "user_id", unique=True),
        sa.Index("uq_reactions_post_id_kind_user_id", "post_id", "kind", "user_id", unique=True),
        **MYSQL,
    )
    return tables


def upgrade() -> None:
    connection = op.get_bind()
    table = define().tables["reactions"]
    table.create(connection, checkfirst=True)
    for index in table.indexes:
        index.create(connection, checkfirst=True)


def downgrade() -> None:
    define().tables["reactions"].drop(op.get_bind(), checkfirst=True)
