"""What people follow, what they have seen, what they are told, and how they want to be told."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None

MYSQL = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
Timestamp = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLES = ("follows", "read_marks", "notification_choices", "notifications")


def define() -> sa.MetaData:
    """The tables as this revision makes them, and as much of those they refer to as a foreign key needs."""
    tables = sa.MetaData()
    for name in ("users", "topics", "posts", "comments", "activities"):
        sa.Table(name, tables, sa.Column("id", sa.Integer, primary_key=True))
    define_follows(tables)
    define_notifications(tables)
    return tables


def define_follows(tables: sa.MetaData) -> None:
    sa.Table(
        "follows",
        tables,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("topic_id", sa.Integer, nullable=True),
        sa.Column("post_id", sa.Integer, nullable=True),
        sa.Column("state", sa.String(9), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_follows"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_follows_user_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["topic_id"], ["topics.id"], name="fk_follows_topic_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name="fk_follows_post_id", ondelete="CASCADE"),
        sa.Index("ix_follows_user_id", "user_id"),
        sa.Index("uq_follows_topic_id_user_id", "topic_id", "user_id", unique=True),
        sa.Index("uq_follows_post_id_user_id", "post_id", "user_id", unique=True),
        **MYSQL,
    )
    sa.Table(
        "read_marks",
        tables,
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("post_id", sa.Integer, nullable=False),
        sa.Column("at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "post_id", name="pk_read_marks"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_read_marks_user_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name="fk_read_marks_post_id", ondelete="CASCADE"),
        sa.Index("ix_read_marks_post_id", "post_id"),
        **MYSQL,
    )


def define_notifications(tables: sa.MetaData) -> None:
    sa.Table(
        "notification_choices",
        tables,
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(12), nullable=False),
        sa.Column("way", sa.String(4), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "kind", name="pk_notification_choices"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_notification_choices_user_id", ondelete="CASCADE"),
        **MYSQL,
    )
    sa.Table(
        "notifications",
        tables,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("activity_id", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(12), nullable=False),
        sa.Column("post_id", sa.Integer, nullable=False),
        sa.Column("comment_id", sa.Integer, nullable=True),
        sa.Column("actor_id", sa.Integer, nullable=True),
        sa.Column("mail_wanted", sa.Boolean, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("read_at", Timestamp, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_notifications"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_notifications_user_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["activity_id"], ["activities.id"], name="fk_notifications_activity_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name="fk_notifications_post_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["comment_id"], ["comments.id"], name="fk_notifications_comment_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["actor_id"], ["users.id"], name="fk_notifications_actor_id", ondelete="SET NULL"),
        sa.Index("ix_notifications_activity_id", "activity_id"),
        sa.Index("ix_notifications_comment_id", "comment_id"),
        sa.Index("ix_notifications_post_id", "post_id"),
        sa.Index("ix_notifications_read_at", "read_at"),
        sa.Index(
            *("ix_notifications_unread", "user_id", "read_at", "post_id"),
            sqlite_where=sa.text("read_at IS NULL"),
        ),
        sa.Index("uq_notifications_user_id_activity_id", "user_id", "activity_id", unique=True),
        **MYSQL,
    )


def upgrade() -> None:
    connection, tables = op.get_bind(), define().tables
    for name in TABLES:
        tables[name].create(connection, checkfirst=True)
        for index in tables[name].indexes:
            index.create(connection, checkfirst=True)


def downgrade() -> None:
    for name in reversed(TABLES):
        define().tables[name].drop(op.get_bind(), checkfirst=True)
