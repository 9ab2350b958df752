"""Who looks after a page of the handbook, and by when.

Like the first revision it passes over whatever stands already. SQLite adds a column with its foreign key at once;
MySQL needs the key to be added after it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0001"
branch_labels = None
depends_on = None

Timestamp = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
OWNER = "fk_posts_owner_id"
COLUMNS = {"owner_id": sa.Integer, "review_every": sa.SmallInteger, "review_by": sa.Date, "reviewed_at": Timestamp}
INDEXES = {
    "ix_posts_owner": ["owner_id", "review_by"],
    "ix_posts_review": ["kind", "deleted_at", "review_by", "id"],
}


def upgrade() -> None:
    inspector = sa.inspect(op.get_bind())
    there = {column["name"] for column in inspector.get_columns("posts")}
    keys = {key["name"] for key in inspector.get_foreign_keys("posts")}
    indexes = {index["name"] for index in inspector.get_indexes("posts")}
    sqlite = op.get_bind().dialect.name == "sqlite"
    for name, kind in COLUMNS.items():
        if name in there:
            continue
        if sqlite and name == "owner_id":
            op.execute(f"ALTER TABLE posts ADD COLUMN owner_id INTEGER CONSTRAINT {OWNER} REFERENCES users (id)")
        else:
            op.add_column("posts", sa.Column(name, kind, nullable=True))
    for name, columns in INDEXES.items():
        if name not in indexes:
            op.create_index(name, "posts", columns)
    if not sqlite and OWNER not in keys:
        op.create_foreign_key(OWNER, "posts", "users", ["owner_id"], ["id"])


def downgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        op.drop_constraint(OWNER, "posts", type_="foreignkey")
    for name in INDEXES:
        op.drop_index(name, "posts")
    with op.batch_alter_table("posts") as posts:
        for name in COLUMNS:
            posts.drop_column(name)
