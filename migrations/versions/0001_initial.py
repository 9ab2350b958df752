"""The first tables.

MySQL commits each statement here by itself, so an upgrade that was interrupted may find some tables or indexes made
already: whatever stands is passed over.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from database import create_search_index, drop_search_index

revision = "0001_initial"
down_revision = None
branch_labels = None
depends_on = None

MYSQL = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
Timestamp = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")

# The tables as this revision makes them, whatever the models say by now.
tables = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

sa.Table(
    "activities",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", Timestamp, nullable=False),
    sa.Column("actor_id", sa.Integer, nullable=True),
    sa.Column("action", sa.String(40), nullable=False),
    sa.Column("object_type", sa.String(20), nullable=False),
    sa.Column("object_id", sa.Integer, nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("detail", sa.String(200), nullable=False),
    sa.Column("lookup", sa.String(400), nullable=False),
    sa.Column("confidential", sa.Boolean, nullable=False),
    sa.Column("changes", LongText, nullable=False),
    sa.Column("address", sa.String(45), nullable=False),
    sa.Index("ix_activities_at", "at"),
    sqlite_autoincrement=True,
    **MYSQL,
)

sa.Table(
    "jobs",
    tables,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("due_at", Timestamp, nullable=False),
    sa.Column("lease", sa.String(32), nullable=False),
    sa.Column("leased_until", Timestamp, nullable=True),
    sa.Column("started_at", Timestamp, nullable=True),
    sa.Column("ended_at", Timestamp, nullable=True),
    sa.Column("result", sa.String(200), nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    **MYSQL,
)

sa.Table(
    "settings",
    tables,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", LongText, nullable=False),
    **MYSQL,
)

sa.Table(
    "throttles",
    tables,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("whole_at", Timestamp, nullable=False),
    sa.Index("ix_throttles_whole_at", "whole_at"),
    **MYSQL,
)

sa.Table(
    "users",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
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
    sa.Column("stand_in_id", sa.Integer, sa.ForeignKey("users.id", ondelete="SET NULL"), nullable=True),
    sa.Column("theme", sa.String(8), nullable=False),
    sa.Column("timezone", sa.String(64), nullable=False),
    sa.Column("shortcuts", sa.Boolean, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("deactivated_at", Timestamp, nullable=True),
    sa.Column("previous_visit_at", Timestamp, nullable=True),
    sa.Column("last_active_at", Timestamp, nullable=True),
    sa.UniqueConstraint("email_key"),
    sa.UniqueConstraint("username_key"),
    sa.Index("ix_users_away_until", "away_until"),
    sqlite_autoincrement=True,
    **MYSQL,
)

sa.Table(
    "visit_counts",
    tables,
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("visitors", sa.Integer, nullable=False),
    **MYSQL,
)

sa.Table(
    "api_tokens",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("form_id", sa.String(32), nullable=False),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("scope", sa.String(5), nullable=False),
    sa.Column("prefix", sa.String(10), nullable=False),
    sa.Column("token_hash", sa.String(64), nullable=False),
    sa.Column("last_used_at", Timestamp, nullable=True),
    sa.Column("expires_at", Timestamp, nullable=True),
    sa.UniqueConstraint("token_hash"),
    sa.Index("uq_api_tokens_user_id_form_id", "user_id", "form_id", unique=True),
    sqlite_autoincrement=True,
    **MYSQL,
)

sa.Table(
    "notification_choices",
    tables,
    sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("kind", sa.String(12), primary_key=True),
    sa.Column("way", sa.String(6), nullable=False),
    **MYSQL,
)

sa.Table(
    "outgoing_mail",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("kind", sa.String(12), nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("due_at", Timestamp, nullable=True),
    sa.Column("answer", sa.String(500), nullable=False),
    sa.Index("ix_outgoing_mail_due_at", "due_at"),
    sa.Index("ix_outgoing_mail_user_id", "user_id"),
    sqlite_autoincrement=True,
    **MYSQL,
)

sa.Table(
    "sign_ins",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("token_hash", sa.String(64), nullable=False),
    sa.Column("device", sa.String(80), nullable=False),
    sa.Column("address", sa.String(45), nullable=False),
    sa.Column("remembered", sa.Boolean, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("last_used_at", Timestamp, nullable=False),
    sa.Column("expires_at", Timestamp, nullable=False),
    sa.Column("ended_at", Timestamp, nullable=True),
    sa.UniqueConstraint("token_hash"),
    sa.Index("ix_sign_ins_expires_at", "expires_at"),
    sa.Index("ix_sign_ins_user_id", "user_id"),
    sqlite_autoincrement=True,
    **MYSQL,
)

sa.Table(
    "topics",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(60), nullable=False),
    sa.Column("name_key", sa.String(60), nullable=False),
    sa.Column("slug", sa.String(68), nullable=False),
    sa.Column("description", sa.String(300), nullable=False),
    sa.Column("private", sa.Boolean, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("author_id", sa.Integer, sa.ForeignKey("users.id", ondelete="RESTRICT"), nullable=False),
    sa.Column("form_id", sa.String(32), nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("merged_into_id", sa.Integer, sa.ForeignKey("topics.id", ondelete="SET NULL"), nullable=True),
    sa.Column("deleted_at", Timestamp, nullable=True),
    sa.Column("deleted_by_id", sa.Integer, sa.ForeignKey("users.id", ondelete="SET NULL"), nullable=True),
    sa.UniqueConstraint("slug"),
    sa.Index("uq_topics_author_id_form_id", "author_id", "form_id", unique=True),
    sqlite_autoincrement=True,
    **MYSQL,
)

sa.Table(
    "posts",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("topic_id", sa.Integer, sa.ForeignKey("topics.id", ondelete="CASCADE"), nullable=False),
    sa.Column("author_id", sa.Integer, sa.ForeignKey("users.id", ondelete="RESTRICT"), nullable=False),
    sa.Column("editor_id", sa.Integer, sa.ForeignKey("users.id", ondelete="RESTRICT"), nullable=False),
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
    sa.Column("owner_id", sa.Integer, sa.ForeignKey("users.id", ondelete="SET NULL"), nullable=True),
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
    sa.Column("deleted_at", Timestamp, nullable=True),
    sa.Column("deleted_by_id", sa.Integer, sa.ForeignKey("users.id", ondelete="SET NULL"), nullable=True),
    sa.Index("ix_posts_author", "author_id", "deleted_at", "published_at", "id"),
    sa.Index("ix_posts_bin", "deleted_at", "id", sqlite_where=sa.text("deleted_at IS NOT NULL")),
    sa.Index("ix_posts_called", "title_key", "kind"),
    sa.Index("ix_posts_changed", "kind", "deleted_at", "updated_at", "id"),
    sa.Index("ix_posts_must_read", "must_read_since"),
    sa.Index("ix_posts_news", "kind", "deleted_at", "published_at", "id"),
    sa.Index("ix_posts_owner", "owner_id", "review_by"),
    sa.Index("ix_posts_pinned", "kind", "deleted_at", "pinned_at", "id"),
    sa.Index("ix_posts_review", "kind", "deleted_at", "review_by", "id"),
    sa.Index("ix_posts_scheduled_for", "scheduled_for"),
    sa.Index("ix_posts_title", "topic_id", "kind", "deleted_at", "title_key", "id"),
    sa.Index("ix_posts_topic", "topic_id", "kind", "deleted_at", "published_at", "id"),
    sa.Index("uq_posts_author_id_form_id", "author_id", "form_id", unique=True),
    sqlite_autoincrement=True,
    **MYSQL,
)

sa.Table(
    "topic_members",
    tables,
    sa.Column("topic_id", sa.Integer, sa.ForeignKey("topics.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Index("ix_topic_members_user_id", "user_id"),
    **MYSQL,
)

sa.Table(
    "acknowledgements",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("post_id", sa.Integer, sa.ForeignKey("posts.id", ondelete="CASCADE"), nullable=False),
    sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="RESTRICT"), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("at", Timestamp, nullable=False),
    sa.UniqueConstraint("post_id", "user_id", "revision"),
    sa.Index("ix_acknowledgements_user_id", "user_id"),
    sqlite_autoincrement=True,
    **MYSQL,
)

sa.Table(
    "comments",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("post_id", sa.Integer, sa.ForeignKey("posts.id", ondelete="CASCADE"), nullable=False),
    sa.Column("author_id", sa.Integer, sa.ForeignKey("users.id", ondelete="RESTRICT"), nullable=False),
    sa.Column("form_id", sa.String(32), nullable=False),
    sa.Column("body", LongText, nullable=False),
    sa.Column("html", LongText, nullable=False),
    sa.Column("renderer", sa.SmallInteger, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("edited_at", Timestamp, nullable=True),
    sa.Column("deleted_at", Timestamp, nullable=True),
    sa.Column("deleted_by_id", sa.Integer, sa.ForeignKey("users.id", ondelete="SET NULL"), nullable=True),
    sa.Index("ix_comments_bin", "deleted_at", "id", sqlite_where=sa.text("deleted_at IS NOT NULL")),
    sa.Index("ix_comments_created", "created_at"),
    sa.Index("ix_comments_post", "post_id", "deleted_at", "id"),
    sa.Index("uq_comments_author_id_form_id", "author_id", "form_id", unique=True),
    sqlite_autoincrement=True,
    **MYSQL,
)

sa.Table(
    "follows",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("topic_id", sa.Integer, sa.ForeignKey("topics.id", ondelete="CASCADE"), nullable=True),
    sa.Column("post_id", sa.Integer, sa.ForeignKey("posts.id", ondelete="CASCADE"), nullable=True),
    sa.Column("state", sa.String(9), nullable=False),
    sa.Index("ix_follows_user_id", "user_id"),
    sa.Index("uq_follows_post_id_user_id", "post_id", "user_id", unique=True),
    sa.Index("uq_follows_topic_id_user_id", "topic_id", "user_id", unique=True),
    sqlite_autoincrement=True,
    **MYSQL,
)

sa.Table(
    "must_read_people",
    tables,
    sa.Column("post_id", sa.Integer, sa.ForeignKey("posts.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Index("ix_must_read_people_user_id", "user_id"),
    **MYSQL,
)

sa.Table(
    "must_read_roles",
    tables,
    sa.Column("post_id", sa.Integer, sa.ForeignKey("posts.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("role", sa.SmallInteger, primary_key=True),
    **MYSQL,
)

sa.Table(
    "read_marks",
    tables,
    sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("post_id", sa.Integer, sa.ForeignKey("posts.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("at", Timestamp, nullable=False),
    sa.Index("ix_read_marks_post_id", "post_id"),
    **MYSQL,
)

sa.Table(
    "revisions",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("post_id", sa.Integer, sa.ForeignKey("posts.id", ondelete="CASCADE"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("editor_id", sa.Integer, sa.ForeignKey("users.id", ondelete="RESTRICT"), nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("topic_id", sa.Integer, sa.ForeignKey("topics.id", ondelete="SET NULL"), nullable=True),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("body", LongText, nullable=False),
    sa.Index("uq_revisions_post_id_number", "post_id", "number", unique=True),
    sqlite_autoincrement=True,
    **MYSQL,
)

sa.Table(
    "attachments",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("post_id", sa.Integer, sa.ForeignKey("posts.id", ondelete="CASCADE"), nullable=True),
    sa.Column("comment_id", sa.Integer, sa.ForeignKey("comments.id", ondelete="CASCADE"), nullable=True),
    sa.Column("person_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=True),
    sa.Column("uploader_id", sa.Integer, sa.ForeignKey("users.id", ondelete="RESTRICT"), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("ending", sa.String(8), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("stored", sa.String(32), nullable=False),
    sa.Column("width", sa.Integer, nullable=True),
    sa.Column("height", sa.Integer, nullable=True),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("deleted_at", Timestamp, nullable=True),
    sa.Column("deleted_by_id", sa.Integer, sa.ForeignKey("users.id", ondelete="SET NULL"), nullable=True),
    sa.UniqueConstraint("stored"),
    sa.Index("ix_attachments_bin", "deleted_at", "id", sqlite_where=sa.text("deleted_at IS NOT NULL")),
    sa.Index("ix_attachments_comment_id", "comment_id"),
    sa.Index("ix_attachments_person", "person_id", "deleted_at"),
    sa.Index("ix_attachments_post", "post_id", "deleted_at", "id"),
    sqlite_autoincrement=True,
    **MYSQL,
)

sa.Table(
    "notifications",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("activity_id", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(12), nullable=False),
    sa.Column("post_id", sa.Integer, sa.ForeignKey("posts.id", ondelete="CASCADE"), nullable=False),
    sa.Column("comment_id", sa.Integer, sa.ForeignKey("comments.id", ondelete="CASCADE"), nullable=True),
    sa.Column("actor_id", sa.Integer, sa.ForeignKey("users.id", ondelete="SET NULL"), nullable=True),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("read_at", Timestamp, nullable=True),
    sa.Column("way", sa.String(6), nullable=False),
    sa.Column("mail_id", sa.Integer, sa.ForeignKey("outgoing_mail.id", ondelete="SET NULL"), nullable=True),
    sa.Index("ix_notifications_comment_id", "comment_id"),
    sa.Index("ix_notifications_mail_id", "mail_id"),
    sa.Index("ix_notifications_post_id", "post_id"),
    sa.Index("ix_notifications_read_at", "read_at"),
    sa.Index("ix_notifications_unread", "user_id", "read_at", "post_id", sqlite_where=sa.text("read_at IS NULL")),
    sa.Index("uq_notifications_user_id_activity_id", "user_id", "activity_id", unique=True),
    sqlite_autoincrement=True,
    **MYSQL,
)

sa.Table(
    "reactions",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("post_id", sa.Integer, sa.ForeignKey("posts.id", ondelete="CASCADE"), nullable=True),
    sa.Column("comment_id", sa.Integer, sa.ForeignKey("comments.id", ondelete="CASCADE"), nullable=True),
    sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("at", Timestamp, nullable=False),
    sa.Index("ix_reactions_user_id", "user_id"),
    sa.Index("uq_reactions_comment_id_kind_user_id", "comment_id", "kind", "user_id", unique=True),
    sa.Index("uq_reactions_post_id_kind_user_id", "post_id", "kind", "user_id", unique=True),
    sqlite_autoincrement=True,
    **MYSQL,
)

sa.Table(
    "search_entries",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("object_id", sa.Integer, nullable=False),
    sa.Column("post_id", sa.Integer, sa.ForeignKey("posts.id", ondelete="CASCADE"), nullable=False),
    sa.Column("comment_id", sa.Integer, sa.ForeignKey("comments.id", ondelete="CASCADE"), nullable=True),
    sa.Column("attachment_id", sa.Integer, sa.ForeignKey("attachments.id", ondelete="CASCADE"), nullable=True),
    sa.Column("at", Timestamp, nullable=False),
    sa.Column("tokens", LongText, nullable=False),
    sa.UniqueConstraint("kind", "object_id"),
    sa.Index("ix_search_entries_attachment_id", "attachment_id"),
    sa.Index("ix_search_entries_comment_id", "comment_id"),
    sa.Index("ix_search_entries_post_id", "post_id"),
    sqlite_autoincrement=True,
    **MYSQL,
)


def upgrade() -> None:
    connection = op.get_bind()
    for table in tables.sorted_tables:
        table.create(connection, checkfirst=True)
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    create_search_index(connection)
    settings = tables.tables["settings"]
    if (
        connection.scalar(sa.select(settings.c.name).where(settings.c.name == "lock")) is None
    ):  # what `Setting.lock` locks
        connection.execute(settings.insert().values(name="lock", value=""))


def downgrade() -> None:
    connection = op.get_bind()
    drop_search_index(connection)
    for table in reversed(tables.sorted_tables):
        table.drop(connection, checkfirst=True)
