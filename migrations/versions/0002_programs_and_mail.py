"""Tokens of programs, outgoing mail, what the activity shows, and ids that are used once."""

import sqlalchemy as sa
from alembic import op

import database

revision = "0002_programs_and_mail"
down_revision = "0001_initial"
branch_labels = None
depends_on = None


def use_no_id_twice() -> None:
    """Make the tables of SQLite again: without AUTOINCREMENT a new row may get the id of a deleted one."""
    inspector = sa.inspect(op.get_bind())
    for table in inspector.get_table_names() if inspector.dialect.name == "sqlite" else ():
        keys = inspector.get_pk_constraint(table)["constrained_columns"]
        if keys == ["id"] and not database.is_search_index(table):
            with op.batch_alter_table(table, recreate="always"):
                pass


def upgrade() -> None:
    use_no_id_twice()
    op.create_table(
        "visit_counts",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("visitors", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_visit_counts")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("form_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("scope", sa.String(length=5), nullable=False),
        sa.Column("prefix", sa.String(length=10), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("last_used_at", database.Timestamp, nullable=True),
        sa.Column("expires_at", database.Timestamp, nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_tokens_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_tokens_token_hash")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("api_tokens") as batch_op:
        batch_op.create_index("uq_api_tokens_user_id_form_id", ["user_id", "form_id"], unique=True)

    op.create_table(
        "outgoing_mail",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("created_at", database.Timestamp, nullable=False),
        sa.Column("due_at", database.Timestamp, nullable=True),
        sa.Column("answer", sa.String(length=500), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_outgoing_mail_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outgoing_mail")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("outgoing_mail") as batch_op:
        batch_op.create_index(batch_op.f("ix_outgoing_mail_due_at"), ["due_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_outgoing_mail_user_id"), ["user_id"], unique=False)

    with op.batch_alter_table("activities") as batch_op:
        batch_op.add_column(sa.Column("name", sa.String(length=200), server_default="", nullable=False))
        batch_op.add_column(sa.Column("lookup", sa.String(length=400), server_default="", nullable=False))
        batch_op.add_column(sa.Column("confidential", sa.Boolean(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("changes", database.LongText, server_default=sa.text("('{}')"), nullable=False))
        batch_op.create_index(batch_op.f("ix_activities_at"), ["at"], unique=False)

    # It was the title of a post or the name of a file, also of drafts and in private topics. Reactions have their kind.
    op.execute(
        "UPDATE activities SET detail = '' WHERE object_type IN ('post', 'comment', 'attachment') "
        "AND action NOT LIKE 'reaction.%'"
    )

    with op.batch_alter_table("comments") as batch_op:
        batch_op.create_index("ix_comments_created", ["created_at"], unique=False)

    with op.batch_alter_table("notification_choices") as batch_op:
        batch_op.alter_column(
            "way", existing_type=sa.VARCHAR(length=4), type_=sa.String(length=6), existing_nullable=False
        )

    with op.batch_alter_table("notifications") as batch_op:
        batch_op.add_column(sa.Column("way", sa.String(length=6), server_default="", nullable=False))
        batch_op.add_column(sa.Column("mail_id", sa.Integer(), nullable=True))
        batch_op.create_index(batch_op.f("ix_notifications_mail_id"), ["mail_id"], unique=False)
        batch_op.create_foreign_key(
            batch_op.f("fk_notifications_mail_id"), "outgoing_mail", ["mail_id"], ["id"], ondelete="SET NULL"
        )


def downgrade() -> None:
    with op.batch_alter_table("notifications") as batch_op:
        batch_op.drop_constraint(batch_op.f("fk_notifications_mail_id"), type_="foreignkey")
        batch_op.drop_index(batch_op.f("ix_notifications_mail_id"))
        batch_op.drop_column("mail_id")
        batch_op.drop_column("way")

    with op.batch_alter_table("notification_choices") as batch_op:
        batch_op.alter_column(
            "way", existing_type=sa.String(length=6), type_=sa.VARCHAR(length=4), existing_nullable=False
        )

    with op.batch_alter_table("comments") as batch_op:
        batch_op.drop_index("ix_comments_created")

    with op.batch_alter_table("activities") as batch_op:
        batch_op.drop_index(batch_op.f("ix_activities_at"))
        batch_op.drop_column("changes")
        batch_op.drop_column("confidential")
        batch_op.drop_column("lookup")
        batch_op.drop_column("name")

    op.drop_table("outgoing_mail")
    op.drop_table("api_tokens")
    op.drop_table("visit_counts")
