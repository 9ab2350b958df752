"""Backups while people comment, each restored onto either engine: all of it is of one moment.

Two rounds for each pair of engines; CORKBOARD_ROUNDS says how many otherwise.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import close
from flask import Flask
from serving import Site, until

import app as corkboard
from app import Backup
from config import ProductionConfig

from .load import WRITERS, Load
from .mariadb import MariaDB

pytestmark = pytest.mark.faults

ROUNDS = int(os.environ.get("CORKBOARD_ROUNDS", "2"))
RESTORED = {"activities"}  # what a restore writes in itself

Rows = dict[str, list[dict[str, Any]]]


@contextmanager
def application(environ: dict[str, str]) -> Iterator[Flask]:
    """A site as another process on the same computer has it, such as a command."""
    app = corkboard.create_app(ProductionConfig(environ))
    with app.app_context():
        yield app
    close(app)


@pytest.fixture(params=["sqlite", "mariadb"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flask]:
    """A site that nobody uses yet, on each engine, with a data folder of its own."""
    folder, url = tmp_path / "target", ""
    if request.param == "mariadb":
        mariadb: MariaDB = request.getfixturevalue("mariadb")
        with mariadb.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SET FOREIGN_KEY_CHECKS = 0")
            cursor.execute("CREATE OR REPLACE DATABASE target")
        url = mariadb.url.replace("/corkboard", "/target")
    with application(Site(folder, url).environ) as app:
        yield app


def rows_in(path: Path) -> Rows:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.startswith("tables/")]
        return {name[7:-6]: [json.loads(line) for line in archive.read(name).splitlines()] for name in names}


def test_each_backup_is_of_one_moment_and_is_restored_as_it_was(
    site: Site, load: Load, target: Flask, tmp_path: Path
) -> None:
    for number in range(ROUNDS):
        path, again = tmp_path / f"{number}.zip", tmp_path / f"{number}-again.zip"
        enough = load.count() + 2 * WRITERS
        until(lambda enough=enough: load.wrong or load.count() >= enough, "nobody can comment")
        before = {*load.acknowledged.values()}
        with application(site.environ):
            Backup.make(None, path)
        rows = rows_in(path)
        check_moment(rows, before)
        with target.app_context():
            with open(path, "rb") as file:
                Backup.restore(file, path.name, replace=number > 0)
            Backup.make(None, again)
        restored = rows_in(again)
        assert [name for name in rows if name not in RESTORED and rows[name] != restored[name]] == []
        assert restored["activities"][: len(rows["activities"])] == rows["activities"]
    load.finish()
    assert not load.wrong


def check_moment(rows: Rows, before: set[int]) -> None:
    """What one transaction writes is there with all of it, or not at all; what was acknowledged before, is there."""
    comments = {row["id"] for row in rows["comments"]}
    assert before <= comments
    recorded = [row["object_id"] for row in rows["activities"] if row["action"] == "comment.created"]
    assert sorted(recorded) == sorted(comments)
    counted = Counter(row["post_id"] for row in rows["comments"])
    assert {row["id"]: row["comment_count"] for row in rows["posts"] if row["comment_count"]} == dict(counted)
