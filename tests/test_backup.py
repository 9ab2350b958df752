"""Backup and restore: one file with all of it, from one moment; back onto either engine, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import stat
import struct
import threading
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from conftest import PASSWORD, add_comment, add_post, close, edit_post, empty_database, together
from snapshot import changed, dump
from werkzeug.datastructures import FileStorage
from world import value

import app as corkboard
import database
from app import Activity, Attachment, Backup, Comment, Notification, PageTree, Post, Setting, User
from database import BackupError, db

pytestmark = pytest.mark.usefixtures("cheap_hashes")

MIGRATIONS = Path(database.MIGRATIONS)
# What a restore writes itself, and what no backup holds.
OWN = ("activities", "sign_ins", "throttles")
TEXT = b"What to bring to the opening of Hall B.\n"


@pytest.fixture
def run(app):
    """Run a command in this process: its exit code, and what it said."""

    def runner(*args: Any, **kwargs: Any) -> SimpleNamespace:
        result = app.test_cli_runner().invoke(args=[str(arg) for arg in args], **kwargs)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        db.session.rollback()
        return SimpleNamespace(code=result.exit_code, said=result.output)

    return runner


@pytest.fixture(autouse=True)
def _empty_folders(request: pytest.FixtureRequest) -> None:
    """No files and no backups of other tests."""
    if "app" in request.fixturenames:
        request.getfixturevalue("empty_folder")


@pytest.fixture
def site(people, topics) -> SimpleNamespace:
    """A post with a comment and a file, and a private one."""
    post = add_post(people.member, topics.open)
    comment = add_comment(people.editor, post, "I bring the *certificate*.")
    secret = add_post(people.member, topics.private, "Wages", body="Confidential")
    stored = corkboard.store_upload(FileStorage(io.BytesIO(TEXT), "what to bring.txt"))
    file = Attachment.create(people.member, stored)
    edit_post(people.member, post, file_ids=[file.id])
    database.transactional(db.session.execute)(sa.update(Notification).values(way="site"))  # what was mailed already
    return SimpleNamespace(post=post.id, comment=comment.id, secret=secret.id, file=file.id, stored=stored.stored)


@pytest.fixture
def backup(site, tmp_path) -> Path:
    return made(tmp_path / "site.zip")


def made(path: Path | None = None) -> Path:
    """Make a backup. Returns where it is."""
    path = path or corkboard.new_backup_path()
    Backup.make(None, path)
    return path


def restore(path: Path, replace: bool = True, name: str = "site.zip") -> None:
    with open(path, "rb") as file:
        Backup.restore(file, name, replace)
    db.session.rollback()


def rows_in(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table in a backup."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.startswith("tables/")]
        return {name[7:-6]: [json.loads(line) for line in archive.read(name).splitlines()] for name in names}


def manifest_of(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("manifest.json"))


def on_disk(app) -> dict[str, bytes]:
    """Everything in the data folder but logs and the database."""
    folder = app.config["DATA_DIR"]
    places = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("corkboard."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in places if "backups" not in path.parts}


def actions() -> list[str]:
    told = sa.select(Activity.action).where(Activity.object_type == "backup")
    return list(db.session.scalars(told.order_by(Activity.id)))


# -- What is in it -----------------------------------------------------------------------------------------------------


def test_a_backup_holds_every_row_but_those_of_who_is_signed_in(site, backup):
    told, now = rows_in(backup), dump()
    for name, rows in told.items():
        if name not in OWN:
            assert len(rows) == len(now[name]), name
    assert told.keys() == now.keys() - {"sign_ins", "throttles"}
    post = next(row for row in told["posts"] if row["id"] == site.post)
    assert post["title"] == "The crane is back"
    assert datetime.fromisoformat(post["published_at"]) == value(
        sa.select(Post.published_at).where(Post.id == site.post)
    )


def test_a_backup_says_what_it_holds_with_the_hash_of_each_part(site, backup):
    manifest = manifest_of(backup)
    assert manifest["format"] == 1
    assert manifest["revision"] == database._script_heads()[0].pop()
    with zipfile.ZipFile(backup) as archive:
        assert {*archive.namelist()} == {*manifest["parts"], "manifest.json"}
        for name, part in manifest["parts"].items():
            content = archive.read(name)
            assert part == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert archive.read(f"files/{site.stored}") == TEXT
    assert manifest["tables"]["comments"] == 1


def test_every_column_of_the_models_comes_back_as_it_went(app):
    """A column of a kind that a backup cannot carry is found here, before anybody's data is."""
    samples = {datetime: datetime(2026, 11, 28, 1, 2, 3, 45), str: "ü", int: 7, bool: True}
    for table in db.metadata.sorted_tables:
        for column in table.columns:
            kind = column.type.impl_instance if isinstance(column.type, sa.TypeDecorator) else column.type
            sample = samples.get(kind.python_type, datetime(2026, 11, 28).date())
            carried = json.loads(database._encode({"it": sample}))["it"]
            assert database._read_value(carried, kind.python_type, getattr(kind, "length", None)) == sample, column


def test_a_backup_is_of_one_moment_while_people_write(app, people, topics, site, tmp_path, monkeypatch):
    def write() -> None:
        with app.app_context():
            corkboard.g.now = database.utcnow()
            add_comment(people.member, SimpleNamespace(id=site.post), "Later")  # type: ignore[arg-type]
            Post.delete(people.editor, site.secret)

    @contextmanager
    def progress(label: str, items):
        def each():
            for number, table in enumerate(items):
                if number == 2 and label == "Writing tables":
                    writer.start()
                    writer.join()
                yield table

        yield each()

    writer, path = threading.Thread(target=write), tmp_path / "moment.zip"
    monkeypatch.setattr(database, "progress", progress)
    made(path)
    told = rows_in(path)
    assert value(sa.select(sa.func.count()).select_from(Comment)) == 2
    assert [row["id"] for row in told["comments"]] == [site.comment]
    assert not [row for row in told["posts"] if row["deleted_at"]]
    assert "post.deleted" not in [row["action"] for row in told["activities"]]


def test_a_file_that_was_removed_during_the_backup_is_taken_from_the_trash(app, site, tmp_path):
    trash = corkboard.trash_folder()
    trash.mkdir()
    shutil.move(corkboard.stored_path(site.stored), trash / site.stored)
    path = made(tmp_path / "trashed.zip")
    assert f"files/{site.stored}" in manifest_of(path)["parts"]


def test_a_file_that_is_gone_is_told_and_no_reason_to_have_no_backup(site, tmp_path, run, caplog):
    corkboard.stored_path(site.stored).unlink()
    path = made(tmp_path / "gone.zip")
    assert "1 of the files that the database names were not found" in caplog.text
    assert run("verify-backup", path).code == run("restore", path, "--replace").code == 0


def test_files_of_nobody_are_not_in_a_backup(app, site, tmp_path):
    corkboard.write_file(io.BytesIO(b"?"), corkboard.stored_path("0" * 32))
    parts = manifest_of(made(tmp_path / "site.zip"))["parts"]
    assert [name for name in parts if name.startswith("files/")] == [f"files/{site.stored}"]


def test_a_backup_that_fails_leaves_nothing_and_says_why(app, site, tmp_path, run, monkeypatch):
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    result = run("backup", tmp_path / "full.zip")
    assert (result.code, list(tmp_path.iterdir())) == (1, [])
    assert re.search(r"Error: The backup cannot be written to .*full\.zip: No space left on device\.", result.said)


def test_a_backup_never_overwrites_a_file(site, tmp_path, run):
    kept = tmp_path / "kept.zip"
    kept.write_text("mine")
    result = run("backup", kept)
    assert result.code == 1
    assert "exists already" in result.said
    assert kept.read_text() == "mine"


# -- Back again --------------------------------------------------------------------------------------------------------


def test_a_restored_site_is_the_site_of_the_backup(app, people, topics, site, backup, sign_in):
    before = dump()
    edit_post(people.member, db.session.get_one(Post, site.post), body="Something else")
    Post.delete(people.editor, site.secret)
    corkboard.stored_path(site.stored).unlink()
    browser = sign_in(people.member)
    restore(backup)
    assert changed(before, dump(), but=OWN) == []
    assert corkboard.stored_path(site.stored).read_bytes() == TEXT
    assert browser.get("/").status_code == 302, "who was signed in is not any more"
    browser = sign_in(people.member)
    assert "Hall B opens again" in browser.get(f"/posts/{site.post}").text
    assert browser.get(f"/files/{site.file}/what to bring.txt", buffered=True).data == TEXT
    for words in ("crane", "certificate", "wages", "bring"):
        assert "No results" not in browser.get(f"/search?q={words}").text, words


def test_a_backup_of_a_restored_site_holds_the_same_rows(site, backup, tmp_path):
    restore(backup)
    again, first = rows_in(made(tmp_path / "again.zip")), rows_in(backup)
    assert [name for name in first if name not in OWN and first[name] != again[name]] == []
    assert again["activities"][: len(first["activities"])] == first["activities"]


def test_a_page_of_the_handbook_comes_back_in_its_place(people, topics, tmp_path):
    page, parent = (add_post(people.editor, topics.open, title, kind="page") for title in ("Below", "Above"))
    PageTree.arrange(people.editor, topics.open.id, {page.id: (parent.id, 7)})
    before = value(sa.select(Post.position).where(Post.id == page.id))
    path = made(tmp_path / "tree.zip")
    PageTree.arrange(people.editor, topics.open.id, {page.id: (None, 0)})
    restore(path)
    with db.engine.connect() as connection:
        place = connection.execute(sa.select(Post.parent_id, Post.position).where(Post.id == page.id)).one()
    assert tuple(place) == (parent.id, before)


def test_it_is_recorded_what_was_made_tried_out_and_restored(site, backup, run):
    assert actions() == ["backup.made"]
    run("verify-backup", backup)
    assert actions() == ["backup.made", "backup.verified"]
    restore(backup)
    assert actions() == ["backup.restored"], "the rest happened after the backup"


def test_no_id_is_given_again_after_a_restore(app, people, topics, site, tmp_path):
    """Neither one that was free when the backup was made, nor one that the replaced site has given since."""
    last = add_post(people.member, topics.open, "Thrown away").id
    with db.engine.begin() as connection:
        for table in ("search_entries", "revisions", "follows", "notifications", "posts"):
            column = "id" if table == "posts" else "post_id"
            connection.execute(sa.delete(db.metadata.tables[table]).where(sa.column(column) == last))
    path = made(tmp_path / "site.zip")
    assert manifest_of(path)["counters"]["posts"] >= last
    empty_database(app)
    restore(path, replace=False)
    newer = add_post(people.member, topics.open, "After the restore").id
    assert newer > last
    restore(path)
    assert add_post(people.member, topics.open, "After another one").id > newer


def test_a_database_with_people_is_replaced_only_when_that_is_said(app, people, site, backup, run):
    before = dump()
    result = run("restore", backup)
    assert result.code == 1
    assert "add --replace" in result.said
    with open(backup, "rb") as file, pytest.raises(BackupError, match="There are people"):
        Backup.restore(file, "site.zip")
    assert changed(before, dump()) == []


def test_what_is_replaced_is_kept_as_a_backup(app, people, topics, site, backup, run, tmp_path):
    add_post(people.member, topics.open, "Written since")
    result = run("restore", backup, "--replace")
    assert result.code == 0, result.said
    kept = next((app.config["DATA_DIR"] / "backups").glob("*-before-restore.zip"))
    assert f"What it replaced is in {kept.parent}." in result.said
    kept = kept.rename(tmp_path / "kept.zip")
    assert "Written since" not in [row.title for row in db.session.scalars(sa.select(Post))]
    db.session.rollback()
    assert run("restore", kept, "--replace").code == 0
    assert "Written since" in [row.title for row in db.session.scalars(sa.select(Post))]


def test_a_restore_that_fails_at_its_end_changes_nothing(app, people, site, tmp_path, monkeypatch, request):
    """On SQLite another program keeps the database locked; MySQL is lost when most tables are written."""
    corkboard.Reaction.change(people.editor, "like", True, post_id=site.post)
    backup = made(tmp_path / "site.zip")
    edit_post(people.member, db.session.get_one(Post, site.post), body="Something else")
    before, files = dump(), on_disk(app)
    if database.is_sqlite():
        blocker = sqlite3.connect(app.config["DATA_DIR"] / "corkboard.db", isolation_level=None)
        monkeypatch.setattr(Backup, "make", lambda *_args: blocker.execute("BEGIN IMMEDIATE"))
    else:
        blocker = io.BytesIO()

        def fail(_connection, _cursor, statement, *_more: Any) -> None:
            if statement.startswith("INSERT INTO reactions"):
                raise BackupError("the server went away")

        sa.event.listen(db.engine, "before_cursor_execute", fail)
        request.addfinalizer(lambda: sa.event.remove(db.engine, "before_cursor_execute", fail))
    with pytest.raises(BackupError):
        restore(backup)
    blocker.close()
    assert changed(before, dump(), but=("activities",)) == []
    assert on_disk(app) == files


def test_the_scratch_folder_goes_in_any_case(app, site, backup):
    restore(backup)
    with open(backup, "rb") as file, pytest.raises(BackupError):
        Backup.restore(file, "site.zip")
    assert not list(app.config["DATA_DIR"].glob("restore-*"))


def test_people_read_while_a_backup_is_restored(app, people, site, backup, sign_in, monkeypatch):
    seen, browser, progress = [], sign_in(people.member), database.progress

    def look(*args: Any, **kwargs: Any) -> Any:
        with app.app_context():
            seen.append(browser.get(f"/posts/{site.post}").status_code)
        return progress(*args, **kwargs)

    monkeypatch.setattr(database, "progress", look)
    restore(backup)
    assert {*seen} == {200}


# -- An older backup ---------------------------------------------------------------------------------------------------

LATER = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "9999_later", {head!r}


def upgrade():
    with op.batch_alter_table("users") as users:
        users.add_column(sa.Column("shoe_size", sa.Integer, nullable=False, server_default="41"))
    op.create_table("shoes", sa.Column("id", sa.Integer, primary_key=True))


def downgrade():
    pass
"""


@contextmanager
def later_version(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A version of Corkboard with one more migration."""
    copy = Path(shutil.copytree(MIGRATIONS, folder / "migrations"))
    (copy / "versions" / "9999_later.py").write_text(LATER.format(head=database._script_heads()[0].pop()))
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", copy)
        patch.setattr(database.migrate, "directory", str(copy))
        yield


@pytest.fixture
def elsewhere(app, tmp_path):
    """Another site on SQLite, which nobody uses yet."""

    @contextmanager
    def make():
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        other = corkboard.create_app(
            corkboard.configurations["testing"](
                {"DATA_DIR": str(folder), "DATABASE_URL": f"sqlite:///{(folder / 'corkboard.db').as_posix()}"}
            )
        )
        with other.app_context():
            yield other
        close(other)

    return make


def test_an_older_backup_is_brought_up_to_date(backup, elsewhere, tmp_path, monkeypatch):
    with later_version(tmp_path, monkeypatch), elsewhere():
        restore(backup, replace=False)
        with db.engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT DISTINCT shoe_size FROM users").scalars().all() == [41]
            assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "9999_later"
        database.check_schema()


def test_an_older_backup_can_be_verified(app, backup, tmp_path, monkeypatch):
    with later_version(tmp_path, monkeypatch):
        Backup.verify(backup)


def test_a_backup_goes_into_a_database_that_has_no_tables_yet(backup, elsewhere):
    with elsewhere() as other:
        restore(backup, replace=False)
        assert User.by_username("member")
        folder = other.config["DATA_DIR"]
        assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["files", "logs"]
        database.check_ready()


# -- Archives that somebody made to do harm, or that were damaged ------------------------------------------------------

Parts = dict[str, bytes]


def pack(path: Path, parts: Parts, entries: dict[str, Callable[[zipfile.ZipInfo], None]] | None = None) -> Path:
    """Write an archive of some parts; entries may be changed before."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_STORED if name.startswith("files/") else zipfile.ZIP_DEFLATED
            (entries or {}).get(name, lambda _info: None)(info)
            archive.writestr(info, content)
    return path


def parts_of(path: Path) -> Parts:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def signed(parts: Parts, **told: Any) -> Parts:
    """Make the manifest fit the parts again, with other things told in it."""
    manifest = json.loads(parts["manifest.json"])
    manifest["parts"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in parts.items() if name != "manifest.json"
    }  # fmt: skip
    parts["manifest.json"] = json.dumps(manifest | told).encode()
    return parts


def with_part(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        pack(path, signed(parts_of(path) | {name: b"harm"}))

    return change


def with_manifest(**told: Any) -> Callable[[Path], None]:
    return lambda path: pack(path, signed(parts_of(path), **told)) and None


def with_entry(**attributes: Any) -> Callable[[Path], None]:
    """The same archive, the first file of which bears other marks."""

    def change(path: Path) -> None:
        parts = parts_of(path)
        name = next(name for name in parts if name.startswith("files/"))
        pack(path, parts, {name: lambda info: [setattr(info, key, to) for key, to in attributes.items()]})

    return change


def with_row(table: str, **values: Any) -> Callable[[Path], None]:
    """The same archive, with other values in the first row of a table."""

    def change(path: Path) -> None:
        parts = parts_of(path)
        first, *others = parts[f"tables/{table}.jsonl"].splitlines()
        lines = [json.dumps(json.loads(first) | values).encode(), *others]
        pack(path, signed(parts | {f"tables/{table}.jsonl": b"\n".join(lines) + b"\n"}))

    return change


def twice(path: Path) -> None:
    parts = parts_of(path)
    name = next(name for name in parts if name.startswith("files/"))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(zipfile.ZipInfo(name), b"harm")


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def flip(path: Path) -> None:
    """Another byte in the middle of the first part, as a bad disk has it."""
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(content)


def wrong_hash(path: Path) -> None:
    parts = parts_of(path)
    name = next(name for name in parts if name.startswith("files/"))
    pack(path, parts | {name: parts[name][:-1] + b"!"})


def wrong_table(path: Path) -> None:
    parts = parts_of(path)
    pack(path, parts | {"tables/posts.jsonl": parts["tables/posts.jsonl"].replace(b"crane", b"Crane")})


def without_table(path: Path) -> None:
    parts = signed({name: content for name, content in parts_of(path).items() if name != "tables/posts.jsonl"})
    manifest = json.loads(parts["manifest.json"])
    del manifest["tables"]["posts"]
    pack(path, parts | {"manifest.json": json.dumps(manifest).encode()})


def bomb(path: Path) -> None:
    """64 MB of nothing in 64 KB."""
    pack(path, parts_of(path) | {"tables/posts.jsonl": bytes(2**26)})


def lying_bomb(path: Path) -> None:
    """The same, and the list of parts says that it is as large as it was."""
    before = len(parts_of(path)["tables/posts.jsonl"])
    bomb(path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<L", content, content.rindex(b"tables/posts.jsonl") - 22, before)
    path.write_bytes(content)


def honest_bomb(path: Path) -> None:
    """A line without an end, which the manifest describes as it is."""
    parts = parts_of(path)
    pack(path, signed(parts | {"tables/posts.jsonl": b"[" * 2**20}))


def nul(path: Path) -> None:
    with_part("files/" + "a" * 32 + "X.php")(path)
    path.write_bytes(path.read_bytes().replace(b"aX.php", b"a\0.php"))


def many_empty(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(200_000):
            archive.writestr(zipfile.ZipInfo(f"files/{number:032x}"), b"")


def other_table(path: Path) -> None:
    parts = signed(parts_of(path) | {"tables/secrets.jsonl": b""})
    manifest = json.loads(parts["manifest.json"])
    manifest["tables"]["secrets"] = 0
    pack(path, parts | {"manifest.json": json.dumps(manifest).encode()})


NOT_OURS = "This is not a backup of Corkboard"
DAMAGED = "This backup is damaged"
HARM = {
    "zip slip": (with_part("files/../../app.py"), NOT_OURS),
    "absolute path": (with_part("/etc/passwd"), NOT_OURS),
    "drive": (with_part("C:/Windows/win.ini"), NOT_OURS),
    "backslashes": (with_part("files\\..\\..\\app.py"), NOT_OURS),
    "folder": (with_part("files/"), NOT_OURS),
    "alike but for case": (with_part("tables/POSTS.jsonl"), NOT_OURS),
    "nul": (nul, NOT_OURS),
    "device": (with_part("files/con"), NOT_OURS),
    "stream": (with_part("files/" + "a" * 32 + ":evil"), NOT_OURS),
    "twice": (twice, "its parts are not the ones"),
    "symlink": (with_entry(external_attr=(stat.S_IFLNK | 0o777) << 16), NOT_OURS),
    "unknown table": (other_table, "its tables are not the ones"),
    "table missing": (without_table, DAMAGED),
    "200,000 empty entries": (many_empty, "damaged or cannot be restored"),
    "bomb": (bomb, "its parts are not the ones"),
    "lying bomb": (lying_bomb, "damaged or cannot be restored"),
    "endless line": (honest_bomb, "damaged or cannot be restored"),
    "newer format": (with_manifest(format=2), "newer version"),
    "newer schema": (with_manifest(revision="0099_flying_cars"), "newer version"),
    "format of another kind": (with_manifest(format="1"), "damaged or cannot be restored"),
    "tables of another kind": (with_manifest(tables=["users"]), "damaged or cannot be restored"),
    "a count that is none": (with_manifest(tables={"users": -1}), "its tables are not the ones"),
    "no ids": (with_manifest(counters=[]), "damaged or cannot be restored"),
    "ids of another kind": (with_manifest(counters={"users": "x"}), "ids that no table gives"),
    "huge ids": (with_manifest(counters={"users": 2**70}), "ids that no table gives"),
    "huge row": (with_row("posts", body="a" * 2**23), "damaged or cannot be restored"),
    "other counts": (with_manifest(tables={"users": 3}), DAMAGED),
    "wrong hash": (wrong_hash, "not what its manifest says"),
    "wrong table": (wrong_table, "not what its manifest says"),
    "a bit": (flip, DAMAGED),
    "truncated": (cut, "damaged or cannot be restored"),
    "another value": (with_row("users", id="one"), "damaged or cannot be restored"),
    "too long": (with_row("users", username="a" * 100), "damaged or cannot be restored"),
    "nested": (with_row("users", name={"$ne": 1}), "damaged or cannot be restored"),
    "surrogate": (with_row("users", name="\ud800"), "damaged or cannot be restored"),
    "huge number": (with_row("users", id=2**70), "damaged or cannot be restored"),
    "no such column": (with_row("users", is_god=1), "damaged or cannot be restored"),
    "nothing where something has to be": (with_row("users", name=None), "damaged or cannot be restored"),
    "nobody's comment": (with_row("comments", author_id=999_999), "lack their users"),
    "no ZIP": (lambda path: path.write_bytes(b"Hello, this is a text. " * 9) and None, DAMAGED),
    "nothing": (lambda path: path.write_bytes(b"") and None, DAMAGED),
    "another ZIP": (lambda path: pack(path, {"word/document.xml": b"<w/>"}) and None, NOT_OURS),
    "an empty ZIP": (lambda path: pack(path, {}) and None, DAMAGED),
}


@pytest.mark.parametrize("harm", HARM)
def test_an_archive_that_is_not_sound_is_refused_in_one_line_and_nothing_is_changed(app, site, backup, run, harm):
    change, words = HARM[harm]
    corkboard.stored_path(site.stored).unlink()
    before, files = dump(), on_disk(app)
    change(backup)
    result = run("restore", backup, "--replace")
    assert result.code == 1
    said = result.said.splitlines()[-1]
    assert said.startswith("Error: "), said
    assert words in said
    assert "Traceback" not in result.said
    assert changed(before, dump()) == []
    assert on_disk(app) == files
    assert run("verify-backup", backup).code == 1


def test_a_backup_for_which_there_is_no_room_is_refused_before_it_is_unpacked(site, backup, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(BackupError, match="There is no room to restore this backup"):
        restore(backup)


# -- Pages -------------------------------------------------------------------------------------------------------------


def test_an_admin_makes_and_downloads_backups(app, people, site, sign_in):
    browser = sign_in(people.admin)
    assert "No backup yet." in browser.get("/admin/backups").text
    assert browser.submit("/admin/backups").status_code == 303
    page = browser.get("/admin/backups").text
    name = re.search(r"corkboard-[\d-]+\.zip", page)[0]
    assert "Last verified restore: never." in page
    answer = browser.submit(f"/admin/backups/{name}/download", buffered=True)
    assert answer.data == (app.config["DATA_DIR"] / "backups" / name).read_bytes()
    assert answer.headers["Content-Disposition"] == f"attachment; filename={name}"
    Backup.verify(corkboard.backups_folder() / name)
    page = browser.get("/admin/backups").text
    assert re.search(r"Last verified restore: <time[^>]+>just now</time>", page)
    assert actions() == ["backup.made", "backup.downloaded", "backup.verified"]


def test_a_backup_that_cannot_be_made_is_told_on_the_page(people, site, sign_in, monkeypatch):
    monkeypatch.setattr(corkboard, "new_backup_path", lambda: Path(__file__))
    answer = sign_in(people.admin).submit("/admin/backups")
    assert answer.status_code == 422
    assert "exists already" in answer.text


@pytest.mark.parametrize("name", ["..%2Fcorkboard.db", "secret_key", "%2e%2e", "missing.zip"])
def test_nothing_but_backups_is_sent(people, sign_in, name):
    assert sign_in(people.admin).submit(f"/admin/backups/{name}/download").status_code == 404


def start_afresh(app) -> Any:
    """An address to set the site up at, which has nobody in it."""
    empty_database(app)
    db.session.rollback()
    return f"/setup/restore?token={Setting.renew_setup_token()}"


def test_a_site_is_set_up_from_an_uploaded_backup(app, backup):
    address, browser = start_afresh(app), app.test_client()
    link = re.search(r'href="(/setup/restore\?token=[^"]+)"', browser.get(address.replace("/restore", "")).text)
    assert link[1] == address
    with open(backup, "rb") as file:
        answer = browser.submit(address, {"upload": (file, "site.zip")})
    assert answer.headers["Location"] == "/login"
    assert "Everything is restored." in browser.get("/login").text
    answer = browser.submit("/login", {"username": "member", "password": PASSWORD})
    assert answer.status_code == 303
    assert "The crane is back" in browser.get("/").text
    assert browser.get(address).status_code == 404


def test_what_cannot_be_restored_at_set_up_is_told_there(app, backup):
    address, browser = start_afresh(app), app.test_client()
    answer = browser.submit(address, {"upload": (io.BytesIO(b"no"), "no.zip")})
    assert answer.status_code == 422
    assert "damaged or cannot be restored" in answer.text
    assert not User.exists()


def test_only_the_set_up_link_restores(app, backup, people):
    assert app.test_client().get("/setup/restore?token=x").status_code == 404
    start_afresh(app)
    assert app.test_client().get("/setup/restore?token=x").status_code == 403
    with open(backup, "rb") as file:
        assert app.test_client().submit("/setup/restore", {"upload": (file, "site.zip")}).status_code == 403
    assert not User.exists()


# -- Commands and jobs -------------------------------------------------------------------------------------------------


def test_the_commands_say_what_they_did(app, site, tmp_path, run):
    result = run("backup")
    path = re.search(r"Everything is in (\S+\.zip) \(", result.said)[1]
    assert Path(path).parent == app.config["DATA_DIR"] / "backups"
    result = run("verify-backup", path)
    assert (result.code, "can be restored" in result.said) == (0, True)
    result = run("restore", path, "--replace")
    assert (result.code, "Everything is restored. Everyone signs in again." in result.said) == (0, True)
    result = run("restore", tmp_path / "nowhere.zip", "--replace")
    assert (result.code, "does not exist" in result.said) == (2, True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_only_its_owner_can_read_a_backup(site):
    assert stat.S_IMODE(made().stat().st_mode) == 0o600


def job(name: str) -> corkboard.Job:
    return next(job for job in corkboard.JOBS if job.name == name)


def test_every_night_a_backup_is_made_and_the_oldest_goes_and_every_week_the_newest_is_verified(app, site, monkeypatch):
    monkeypatch.setitem(app.config, "BACKUP_KEEP", 2)
    folder = app.config["DATA_DIR"] / "backups"
    folder.mkdir()
    for name in ("corkboard-2026-11-01-020000.zip", "corkboard-2026-11-02-020000.zip", "before the move.zip"):
        (folder / name).touch()
        os.utime(folder / name, (1e9, 1e9 + len(list(folder.iterdir()))))
    assert corkboard.run_job(job("backup"), early=True) == "1 backup made."
    kept = {path.name for path in folder.iterdir()}
    assert {"corkboard-2026-11-02-020000.zip", "before the move.zip"} < kept
    assert len(kept) == 3
    assert corkboard.run_job(job("verify-backup"), early=True) == "1 backup verified."
    last = Backup.last_verified()
    assert last
    assert database.utcnow() - last < timedelta(minutes=1)


def test_a_damaged_backup_is_no_verified_restore(app, site):
    cut(made())
    assert corkboard.run_job(job("verify-backup"), early=True).startswith("This backup is damaged")
    assert Backup.last_verified() is None


def test_a_site_without_people_has_nothing_to_back_up(app):
    assert corkboard.run_job(job("backup"), early=True) == "Nothing to do."
    assert corkboard.run_job(job("verify-backup"), early=True) == "Nothing to do."


@pytest.mark.parametrize(
    ("now", "hours"),
    [("2026-11-28T00:30", 0.5), ("2026-11-28T02:00", 23), ("2026-11-28T12:00", 13), ("2026-11-28T23:30", 1.5)],
)
def test_the_nightly_job_is_due_at_two_by_the_sites_clock(app, monkeypatch, now, hours):
    monkeypatch.setitem(app.config, "TIMEZONE", "Europe/Berlin")
    assert ZoneInfo("Europe/Berlin").utcoffset(datetime(2026, 11, 28)) == timedelta(hours=1)
    monkeypatch.setattr(corkboard, "utcnow", lambda: datetime.fromisoformat(now))
    assert job("backup").next_in() == timedelta(hours=hours)
    assert timedelta(0) < job("verify-backup").next_in() <= timedelta(days=7)


def test_the_nightly_job_runs_once_in_its_minute(app, monkeypatch):
    for second in (0, 30):
        monkeypatch.setattr(corkboard, "utcnow", lambda second=second: datetime(2026, 11, 28, 2, 0, second))
        assert job("backup").next_in() == timedelta(days=1) - timedelta(seconds=second)


def test_a_site_whose_emails_waited_can_be_backed_up_again_after_a_restore(people, topics, tmp_path, monkeypatch, app):
    monkeypatch.setitem(app.config, "MAIL_SERVER", "localhost")
    add_post(people.member, topics.open, body="Hello @reader")
    assert value(sa.select(sa.func.count(Notification.mail_id))) > 0
    restore(made(tmp_path / "first.zip"))
    assert value(sa.select(sa.func.count(Notification.mail_id))) == 0
    Backup.verify(made(tmp_path / "second.zip"))


def test_two_backups_can_be_tried_out_at_once(app, backup):
    assert together(app, lambda: Backup.verify(backup), lambda: Backup.verify(backup)) == [None, None]


def test_what_a_crash_has_left_goes_after_a_day(app, site):
    folder = app.config["DATA_DIR"]
    left = [folder / "backups" / "backup-old", folder / "restore-old", folder / "restore-young"]
    for path in left:
        path.mkdir(parents=True)
        (path / "part").touch()
    for path in left[:2]:
        os.utime(path, (1e9, 1e9))
    Backup.prune()
    assert [path.exists() for path in left] == [False, False, True]
    shutil.rmtree(left[2])


def test_backups_are_listed_with_the_newest_first(app):
    folder = app.config["DATA_DIR"] / "backups"
    folder.mkdir()
    for number, name in enumerate(("b.zip", "a.zip", "c.zip")):
        (folder / name).touch()
        os.utime(folder / name, (1e9, 1e9 + number))
    assert [backup.name for backup in Backup.all()] == ["c.zip", "a.zip", "b.zip"]
    assert Backup.all()[0].made_at == datetime(2001, 9, 9, 1, 46, 42)
