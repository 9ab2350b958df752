"""A MariaDB of these tests' own, and a served site on each engine with posts to comment on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from conftest import PASSWORD, add_person, add_post, add_topic, made_app
from serving import Client, Site

from app import Role, g, utcnow

from .load import Load
from .mariadb import MISSING, MariaDB, is_installed

POSTS = 4


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    if not is_installed():
        pytest.skip(MISSING)
    with MariaDB(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def sqlite_site(tmp_path: Path) -> Iterator[Site]:
    with prepared(tmp_path / "data", f"sqlite:///{(tmp_path / 'data' / 'corkboard.db').as_posix()}") as site:
        yield site


@pytest.fixture
def mariadb_site(tmp_path: Path, mariadb: MariaDB) -> Iterator[Site]:
    with prepared(tmp_path / "data", mariadb.url) as site:
        yield site


@pytest.fixture(params=["sqlite", "mariadb"])
def site(request: pytest.FixtureRequest) -> Site:
    """A served site on each engine."""
    return request.getfixturevalue(f"{request.param}_site")


@pytest.fixture
def load(site: Site) -> Iterator[Load]:
    with Load(lambda: Client(site.port), "ada", PASSWORD) as load:
        yield load


def prepared(folder: Path, url: str) -> Site:
    """A site that is being served, with one person and some posts."""
    folder.mkdir()
    with made_app(folder, url) as app, app.app_context():
        g.now = utcnow()
        ada = add_person("ada", Role.ADMIN)
        topic = add_topic(ada, "Everyone")
        for number in range(POSTS):
            add_post(ada, topic, f"Post {number}")
    site = Site(folder, url)
    site.start()
    return site


def check_comments(site: Site, acknowledged: dict[str, int]) -> None:
    """Every acknowledged comment is there once, as the answer said, with all that belongs to it; and no other."""
    engine = sa.create_engine(site.environ["DATABASE_URL"])
    try:
        with engine.connect() as connection:
            ask = connection.exec_driver_sql
            stored = [tuple(row) for row in ask("SELECT form_id, id FROM comments")]
            assert len(stored) == len(acknowledged)
            assert dict(stored) == acknowledged
            counted = ask("SELECT post_id, COUNT(*) FROM comments GROUP BY post_id ORDER BY post_id").all()
            kept = ask("SELECT id, comment_count FROM posts WHERE comment_count > 0 ORDER BY id").all()
            assert kept == counted
            ids = sorted(acknowledged.values())
            recorded = ask("SELECT object_id FROM activities WHERE action = 'comment.created' ORDER BY object_id")
            assert list(recorded.scalars()) == ids
            recorded = ask("SELECT object_id FROM activities WHERE action = 'comment.created' ORDER BY object_id")
            assert list(recorded.scalars()) == ids
    finally:
        engine.dispose()
