"""Files that people upload: of posts and comments, and their own pictures."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
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
        "attachments",
        tables,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("post_id", sa.Integer, nullable=True),
        sa.Column("comment_id", sa.Integer, nullable=True),
        sa.Column("person_id", sa.Integer, nullable=True),
        sa.Column("uploader_id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("ending", sa.String(8), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("stored", sa.String(32), nullable=False),
        sa.Column("width", sa.Integer, nullable=True),
        sa.Column("height", sa.Integer, nullable=True),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("deleted_at", Timestamp, nullable=True),
        sa.Column("deleted_by_id", sa.Integer, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_attachments"),
        sa.ForeignKeyConstraint(["comment_id"], ["comments.id"], name="fk_attachments_comment_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["deleted_by_id"], ["users.id"], name="fk_attachments_deleted_by_id", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["person_id"], ["users.id"], name="fk_attachments_person_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name="fk_attachments_post_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["uploader_id"], ["users.id"], name="fk_attachments_uploader_id", ondelete="RESTRICT"),
        sa.UniqueConstraint("stored", name="uq_attachments_stored"),
        sa.Index("ix_attachments_bin", "deleted_at", "id", sqlite_where=sa.text("deleted_at IS NOT NULL")),
        sa.Index("ix_attachments_comment_id", "comment_id"),
        sa.Index("ix_attachments_person", "person_id", "deleted_at"),
        sa.Index("ix_attachments_post", "post_id", "deleted_at", "id"),
        **MYSQL,
    )
    return tables


def upgrade() -> None:
    connection = op.get_bind()
    table = define().tables["attachments"]
    table.create(connection, checkfirst=True)
    for index in table.indexes:
        index.create(connection, checkfirst=True)


def downgrade() -> None:
    define().tables["attachments"].drop(op.get_bind(), checkfirst=True)
