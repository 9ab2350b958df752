"""The tree of handbook pages: what each is below, and its position there. Until somebody moves one, nothing changes."""

import sqlalchemy as sa
from alembic import op

revision = "0004_handbook_tree"
down_revision = "0003_topic_followed_by_default"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # SQLite reads a row from its start: behind the long texts, the new columns would be slow to reach.
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    place = {"insert_before": "body"} if is_sqlite else {}
    with op.batch_alter_table("posts", recreate="always" if is_sqlite else "auto") as batch_op:
        batch_op.add_column(sa.Column("parent_id", sa.Integer(), nullable=True), **place)
        batch_op.add_column(sa.Column("position", sa.Integer(), server_default="1000", nullable=False), **place)
        batch_op.drop_index(batch_op.f("ix_posts_title"))
        batch_op.create_index(batch_op.f("ix_posts_parent_id"), ["parent_id"], unique=False)
        batch_op.create_index(
            "ix_posts_tree", ["topic_id", "kind", "deleted_at", "position", "title_key", "id"], unique=False
        )
        batch_op.create_foreign_key(
            batch_op.f("fk_posts_parent_id"), "posts", ["parent_id"], ["id"], ondelete="SET NULL"
        )


def downgrade() -> None:
    with op.batch_alter_table("posts") as batch_op:
        batch_op.drop_constraint(batch_op.f("fk_posts_parent_id"), type_="foreignkey")
        batch_op.drop_index("ix_posts_tree")
        batch_op.drop_index(batch_op.f("ix_posts_parent_id"))
        batch_op.create_index(
            batch_op.f("ix_posts_title"), ["topic_id", "kind", "deleted_at", "title_key", "id"], unique=False
        )
        batch_op.drop_column("position")
        batch_op.drop_column("parent_id")
