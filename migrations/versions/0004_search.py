"""What the search finds, and the index over it.

The entries of what is there already are written when the site is next started, or by `python -m flask db-reindex`.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from database import create_search_index, drop_search_index

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MYSQL = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
Timestamp = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def define() -> sa.MetaData:
    """The table as this revision makes it, and as much of those it refers to as a foreign key needs."""
    tables = sa.MetaData()
    owners = {"post_id": "posts", "comment_id": "comments", "attachment_id": "attachments", "person_id": "users"}
    for name in owners.values():
        sa.Table(name, tables, sa.Column("id", sa.Integer, primary_key=True))
    sa.Table(
        "search_entries",
        tables,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("object_id", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Integer, nullable=True) for name in owners),
        sa.Column("at", Timestamp, nullable=False),
        sa.Column("tokens", LongText, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_search_entries"),
        *(
            sa.ForeignKeyConstraint([name], [f"{of}.id"], name=f"fk_search_entries_{name}", ondelete="CASCADE")
            for name, of in owners.items()
        ),
        sa.UniqueConstraint("kind", "object_id", name="uq_search_entries_kind_object_id"),
        sa.Index("ix_search_entries_post_id", "post_id"),
        *(
            sa.Index(f"ix_search_entries_{name}", name, sqlite_where=sa.text(f"{name} IS NOT NULL"))
            for name in ("comment_id", "attachment_id", "person_id")
        ),
        **MYSQL,
    )
    return tables


def upgrade() -> None:
    connection = op.get_bind()
    table = define().tables["search_entries"]
    table.create(connection, checkfirst=True)
    for index in table.indexes:
        index.create(connection, checkfirst=True)
    create_search_index(connection)


def downgrade() -> None:
    connection = op.get_bind()
    drop_search_index(connection)
    define().tables["search_entries"].drop(connection, checkfirst=True)
