"""Links between the pages of the handbook: which posts and comments name which page by its title."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MYSQL = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def define() -> sa.MetaData:
    """The table as this revision makes it, and as much of those it refers to as a foreign key needs."""
    tables = sa.MetaData()
    sa.Table("comments", tables, sa.Column("id", sa.Integer, primary_key=True))
    sa.Table(
        "posts",
        tables,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(8)),
        sa.Column("title_key", sa.String(200)),
        sa.Index("ix_posts_called", "title_key", "kind"),
    )
    sa.Table(
        "page_links",
        tables,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("post_id", sa.Integer, nullable=False),
        sa.Column("comment_id", sa.Integer, nullable=True),
        sa.Column("title_key", sa.String(200), nullable=False),
        sa.Column("target_id", sa.Integer, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_page_links"),
        sa.ForeignKeyConstraint(["comment_id"], ["comments.id"], name="fk_page_links_comment_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["post_id"], ["posts.id"], name="fk_page_links_post_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["target_id"], ["posts.id"], name="fk_page_links_target_id", ondelete="SET NULL"),
        sa.Index("ix_page_links_comment_id", "comment_id"),
        sa.Index("ix_page_links_post", "post_id", "comment_id"),
        sa.Index("ix_page_links_target_id", "target_id"),
        sa.Index("ix_page_links_title_key", "title_key"),
        **MYSQL,
    )
    return tables


def upgrade() -> None:
    connection, tables = op.get_bind(), define().tables
    tables["page_links"].create(connection, checkfirst=True)
    for index in (*tables["page_links"].indexes, *tables["posts"].indexes):
        index.create(connection, checkfirst=True)


def downgrade() -> None:
    connection, tables = op.get_bind(), define().tables
    tables["page_links"].drop(connection, checkfirst=True)
    for index in tables["posts"].indexes:
        index.drop(connection, checkfirst=True)
