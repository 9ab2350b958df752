"""The first tables.

MySQL commits each statement here by itself, so a start that was interrupted may find some tables or indexes made
already: whatever stands is passed over.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MYSQL = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
Timestamp = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def define() -> sa.MetaData:
    """The tables as this revision makes them, whatever the models say by now."""
    tables = sa.MetaData()
    define_people(tables)
    define_posts(tables)
    define_must_read(tables)
    return tables


def define_people(tables: sa.MetaData) -> None:
    sa.Table(
        "settings",
        tables,
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", LongText, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_settings"),
        **MYSQL,
    )
    sa.Table(
        "throttles",
        tables,
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("whole_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_throttles"),
        sa.Index("ix_throttles_whole_at", "whole_at"),
        **MYSQL,
    )
    sa.Table(
        "jobs",
        tables,
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("due_at", Timestamp, nullable=False),
        sa.Column("lease", sa.String(32), nullable=False),
        sa.Column("leased_until", Timestamp, nullable=True),
        sa.Column("started_at", Timestamp, nullable=True),
        sa.Column("ended_at", Timestamp, nullable=True),
        sa.Column("result", sa.String(200), nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_jobs"),
        **MYSQL,
    )
    sa.Table(
        "users",
        tables,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("username", sa.String(32), nullable=False),
        sa.Column("username_key", sa.String(32), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("name_key", sa.String(80), nullable=False),
        sa.Column("email", sa.String(254), nullable=True),
        sa.Column("email_key", sa.String(254), nullable=True),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("role", sa.SmallInteger, nullable=False),
        sa.Column("title", sa.String(80), nullable=False),
        sa.Column("department", sa.String(80), nullable=False),
        sa.Column("phone", sa.String(80), nullable=False),
        sa.Column("location", sa.String(80), nullable=False),
        sa.Column("lookup", sa.String(1000), nullable=False),
        sa.Column("away_from", sa.Date, nullable=True),
        sa.Column("away_until", sa.Date, nullable=True),
        sa.Column("stand_in_id", sa.Integer, nullable=True),
        sa.Column("theme", sa.String(8), nullable=False),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.Column("shortcuts", sa.Boolean, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("deactivated_at", Timestamp, nullable=True),
        sa.Column("previous_visit_at", Timestamp, nullable=True),
        sa.Column("last_active_at", Timestamp, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.ForeignKeyConstraint(["stand_in_id"], ["users.id"], name="fk_users_stand_in_id", ondelete="SET NULL"),
        sa.UniqueConstraint("username_key", name="uq_users_username_key"),
        sa.UniqueConstraint("email_key", name="uq_users_email_key"),
        sa.Index("ix_users_away_until", "away_until"),
        **MYSQL,
    )
    sa.Table(
        "activities",
        tables,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("at", Timestamp, nullable=False),
        sa.Column("actor_id", sa.Integer, nullable=True),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("object_type", sa.String(20), nullable=False),
        sa.Column("object_id", sa.Integer, nullable=False),
        sa.Column("detail", sa.String(200), nullable=False),
        sa.Column("address", sa.String(45), nullable=False),
        sa.Column("pending", sa.Boolean, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_activities"),
        sa.ForeignKeyConstraint(["actor_id"], ["users.id"], name="fk_activities_actor_id"),
        sa.Index("ix_activities_pending", "pending", "id", sqlite_where=sa.text("pending IS NOT NULL")),
        **MYSQL,
    )
    sa.Table(
        "sign_ins",
        tables,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("device", sa.String(80), nullable=False),
        sa.Column("address", sa.String(45), nullable=False),
        sa.Column("remembered", sa.Boolean, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("last_used_at", Timestamp, nullable=False),
        sa.Column("expires_at", Timestamp, nullable=False),
        sa.Column("ended_at", Timestamp, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_sign_ins"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_sign_ins_user_id", ondelete="CASCADE"),
        sa.UniqueConstraint("token_hash", name="uq_sign_ins_token_hash"),
        sa.Index("ix_sign_ins_expires_at", "expires_at"),
        sa.Index("ix_sign_ins_user_id", "user_id"),
        **MYSQL,
    )


def define_posts(tables: sa.MetaData) -> None:
    sa.Table(
        "topics",
        tables,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("name_key", sa.String(60), nullable=False),
        sa.Column("slug", sa.String(68), nullable=False),
        sa.Column("description", sa.String(300), nullable=False),
        sa.Column("private", sa.Boolean, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("author_id", sa.Integer, nullable=False),
        sa.Column("form_id", sa.String(32), nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("deleted_at", Timestamp, nullable=True),
        sa.Column("deleted_by_id", sa.Integer, nullable=True),
        sa.Column("merged_into_id", sa.Integer, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_topics"),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name="fk_topics_author_id", ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(["deleted_by_id"], ["users.id"], name="fk_topics_deleted_by_id", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(
            ["merged_into_id"], ["topics.id"], name="fk_topics_merged_into_id", ondelete="SET NULL"
        ),
        sa.UniqueConstraint("slug", name="uq_topics_slug"),
        sa.Index("uq_topics_author_id_form_id", "author_id", "form_id", unique=True),
        **MYSQL,
    )
    sa.Table(
        "posts",
        tables,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("topic_id", sa.Integer, nullable=False),
        sa.Column("author_id", sa.Integer, nullable=False),
        sa.Column("editor_id", sa.Integer, nullable=False),
        sa.Column("form_id", sa.String(32), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("title_key", sa.String(200), nullable=False),
        sa.Column("excerpt", sa.String(280), nullable=False),
        sa.Column("renderer", sa.SmallInteger, nullable=False),
        sa.Column("comment_count", sa.Integer, nullable=False),
        sa.Column("last_comment_at", Timestamp, nullable=True),
        sa.Column("last_comment_by_id", sa.Integer, nullable=True),
        sa.Column("published_at", Timestamp, nullable=True),
        sa.Column("scheduled_for", Timestamp, nullable=True),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.Column("edited_at", Timestamp, nullable=True),
        sa.Column("pinned_at", Timestamp, nullable=True),
        sa.Column("deleted_at", Timestamp, nullable=True),
        sa.Column("deleted_by_id", sa.Integer, nullable=True),
        sa.Column("owner_id", sa.Integer, nullable=True),
        sa.Column("review_every", sa.SmallInteger, nullable=True),
        sa.Column("review_by", sa.Date, nullable=True),
        sa.Column("reviewed_at", Timestamp, nullable=True),
        sa.Column("review_told", sa.Date, nullable=True),
        sa.Column("pinned_until", Timestamp, nullable=True),
        sa.Column("expires_at", Timestamp, nullable=True),
        sa.Column("must_read_since", Timestamp, nullable=True),
        sa.Column("must_read_due", sa.Date, nullable=True),
        sa.Column("must_read_revision", sa.Integer, nullable=True),
        sa.Column("reminded_at", Timestamp, nullable=True),
        sa.Column("body", LongText, nullable=False),
        sa.Column("html", LongText, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_posts"),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name="fk_posts_author_id", ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(["deleted_by_id"], ["users.id"], name="fk_posts_deleted_by_id", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_posts_owner_id", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["editor_id"], ["users.id"], name="fk_posts_editor_id", ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(["topic_id"], ["topics.id"], name="fk_posts_topic_id", ondelete="CASCADE"),
        sa.Index("ix_posts_called", "title_key", "kind"),
        sa.Index("ix_posts_scheduled_for", "scheduled_for"),
        sa.Index("ix_posts_author", "author_id", "deleted_at", "published_at", "id"),
        sa.Index("ix_posts_bin", "deleted_at", "id", sqlite_where=sa.text("deleted_at IS NOT NULL")),
        sa.Index("ix_posts_changed", "kind", "deleted_at", "updated_at", "id"),
        sa.Index("ix_posts_must_read", "must_read_since"),
        sa.Index("ix_posts_news", "kind", "deleted_at", "published_at", "id"),
        sa.Index("ix_posts_owner", "owner_id", "review_by"),
        sa.Index("ix_posts_pinned", "kind", "deleted_at", "pinned_at", "id"),
        sa.Index("ix_posts_review", "kind", "deleted_at", "review_by", "id"),
        sa.Index("ix_posts_title", "topic_id", "kind", "deleted_at", "title_key", "id"),
        sa.Index("ix_posts_topic", "topic_id", "kind", "deleted_at", "published_at", "id"),
        sa.Index("uq_posts_author_id_form_id", "author_id", "form_id", unique=True),
        **MYSQL,
    )
    sa.Table(
        "topic_members",
        tables,
        sa.Column("topic_id", sa.Integer, nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("topic_id", "user_id", name="pk_topic_members"),
        sa.ForeignKeyConstraint(["topic_id"], ["topics.id"], name="fk_topic_members_topic_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_topic_members_user_id", ondelete="CASCADE"),
        sa.Index("ix_topic_members_user_id", "user_id"),
        **MYSQL,
    )
    sa.Table(
        "comments",
        tables,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("post_id", sa.Integer, nullable=False),
        sa.Column("author_id", sa.Integer, nullable=False),
        sa.Column("form_id", sa.String(32), nullable=False),
        sa.Column("body", LongText, nullable=False),
        sa.Column("html", LongText, nullable=False),
        sa.Column("renderer", sa.SmallInteger, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("edited_at", Timestamp, nullable=True),
        sa.Column("deleted_at", Timestamp, nullable=True),
        sa.Column("deleted_by_id", sa.Integer, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_comments"),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name="fk_comments_author_id", ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(["deleted_by_id"], ["users.id"], name="fk_comments_deleted_by_id", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name="fk_comments_post_id", ondelete="CASCADE"),
        sa.Index("ix_comments_bin", "deleted_at", "id", sqlite_where=sa.text("deleted_at IS NOT NULL")),
        sa.Index("ix_comments_post", "post_id", "deleted_at", "id"),
        sa.Index("uq_comments_author_id_form_id", "author_id", "form_id", unique=True),
        **MYSQL,
    )
    sa.Table(
        "revisions",
        tables,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("post_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("editor_id", sa.Integer, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("topic_id", sa.Integer, nullable=True),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("body", LongText, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_revisions"),
        sa.ForeignKeyConstraint(["editor_id"], ["users.id"], name="fk_revisions_editor_id", ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name="fk_revisions_post_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["topic_id"], ["topics.id"], name="fk_revisions_topic_id", ondelete="SET NULL"),
        sa.Index("uq_revisions_post_id_number", "post_id", "number", unique=True),
        **MYSQL,
    )


def define_must_read(tables: sa.MetaData) -> None:
    sa.Table(
        "must_read_roles",
        tables,
        sa.Column("post_id", sa.Integer, nullable=False),
        sa.Column("role", sa.SmallInteger, nullable=False),
        sa.PrimaryKeyConstraint("post_id", "role", name="pk_must_read_roles"),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name="fk_must_read_roles_post_id", ondelete="CASCADE"),
        **MYSQL,
    )
    sa.Table(
        "must_read_people",
        tables,
        sa.Column("post_id", sa.Integer, nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("post_id", "user_id", name="pk_must_read_people"),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name="fk_must_read_people_post_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_must_read_people_user_id", ondelete="CASCADE"),
        sa.Index("ix_must_read_people_user_id", "user_id"),
        **MYSQL,
    )
    sa.Table(
        "acknowledgements",
        tables,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("post_id", sa.Integer, nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_acknowledgements"),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name="fk_acknowledgements_post_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_acknowledgements_user_id", ondelete="RESTRICT"),
        sa.Index("ix_acknowledgements_user_id", "user_id"),
        sa.UniqueConstraint("post_id", "user_id", "revision", name="uq_acknowledgements_post_id_user_id_revision"),
        **MYSQL,
    )


def upgrade() -> None:
    connection = op.get_bind()
    tables = define()
    for table in tables.sorted_tables:
        table.create(connection, checkfirst=True)
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    settings = tables.tables["settings"]
    for counter in ("version", "directory"):
        if connection.scalar(sa.select(settings.c.name).where(settings.c.name == counter)) is None:
            connection.execute(settings.insert().values(name=counter, value="1"))


def downgrade() -> None:
    connection = op.get_bind()
    for table in reversed(define().sorted_tables):
        table.drop(connection, checkfirst=True)
