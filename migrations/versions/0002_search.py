"""What the search finds, and the index over it.

The entries of what is there already are written by `python -m flask db-reindex`, or when the site is next started.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from database import create_search_index, drop_search_index

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MYSQL = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
Timestamp = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def define() -> sa.Table:
    """The table as this revision makes it, whatever the model says by now."""
    return sa.Table(
        "search_entries",
        sa.MetaData(),
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("object_id", sa.Integer, nullable=False),
        sa.Column("post_id", sa.Integer, nullable=True),
        sa.Column("at", Timestamp, nullable=False),
        sa.Column("title", LongText, nullable=False),
        sa.Column("tokens", LongText, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_search_entries"),
        sa.UniqueConstraint("kind", "object_id", name="uq_search_entries_kind_object_id"),
        **MYSQL,
    )


def upgrade() -> None:
    connection = op.get_bind()
    define().create(connection, checkfirst=True)
    create_search_index(connection)


def downgrade() -> None:
    connection = op.get_bind()
    drop_search_index(connection)
    define().drop(connection, checkfirst=True)
