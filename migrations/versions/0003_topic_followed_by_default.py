"""Topics that people follow by default."""

import sqlalchemy as sa
from alembic import op

revision = "0003_topic_followed_by_default"
down_revision = "0002_programs_and_mail"
branch_labels = None
depends_on = None

columns = ("id", "private", "deleted_at", "followed_by_default")
topics = sa.table("topics", *(sa.column(name) for name in columns))


def upgrade() -> None:
    with op.batch_alter_table("topics") as batch_op:
        batch_op.add_column(sa.Column("followed_by_default", sa.Boolean(), server_default="0", nullable=False))

    # The oldest open topic is the one for everyone.
    is_open = sa.and_(topics.c.private == sa.false(), topics.c.deleted_at.is_(None))
    first = op.get_bind().scalar(sa.select(sa.func.min(topics.c.id)).where(is_open))
    op.execute(topics.update().where(topics.c.id == first).values(followed_by_default=sa.true()))


def downgrade() -> None:
    with op.batch_alter_table("topics") as batch_op:
        batch_op.drop_column("followed_by_default")
