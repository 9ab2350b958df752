"""The database goes away, or cannot be written, while people read and comment."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import PASSWORD
from serving import Client, Site, until

from .conftest import check_comments, prepared
from .load import Load
from .mariadb import MariaDB

pytestmark = pytest.mark.faults

RECOVERY_SECONDS = 5


@pytest.mark.parametrize("end", [MariaDB.stop, MariaDB.kill], ids=["stopped", "killed"])
def test_mariadb_restarted_under_load(mariadb: MariaDB, mariadb_site: Site, end: Callable[[MariaDB], None]):
    with Load(lambda: Client(mariadb_site.port), "ada", PASSWORD) as load:
        until(lambda: load.wrong or min(load.progress()) >= 3, "nobody can read or comment")
        end(mariadb)
        try:
            before = load.unavailable.copy()
            everybody = {"POST": before["POST"] + 20, "GET": before["GET"] + 3}
            until(lambda: load.wrong or load.unavailable >= Counter(everybody), "no 503 while the database is gone")
        finally:
            mariadb.start()
        reached = load.progress()
        all_go_on = lambda: all(now > then for now, then in zip(load.progress(), reached, strict=True))  # noqa: E731
        until(lambda: load.wrong or all_go_on(), "the site has not recovered", RECOVERY_SECONDS)
    assert not load.wrong
    check_comments(mariadb_site, load.acknowledged)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows cannot pause a process")
def test_while_mariadb_says_nothing_what_needs_no_database_is_served(mariadb: MariaDB, mariadb_site: Site):
    ada = Client(mariadb_site.port, timeout=60).sign_in("ada", PASSWORD)
    readers = [Client(mariadb_site.port, timeout=60) for _ in range(20)]  # more than there are threads
    stranger = Client(mariadb_site.port, timeout=30)
    assert mariadb.process is not None
    os.kill(mariadb.process.pid, signal.SIGSTOP)
    try:
        for reader in readers:
            reader.cookies = ada.cookies
        with ThreadPoolExecutor(len(readers)) as pool:
            pages = [pool.submit(reader.get, "/") for reader in readers]
            assert [stranger.get(path).status for path in ("/healthz", "/static/app.css")] == [200, 200]
            assert {page.result().status for page in pages} == {503}
            pages = [pool.submit(reader.get, "/") for reader in readers]
            began = time.monotonic()
            assert [stranger.get(path).status for path in ("/healthz", "/static/app.css")] == [200, 200]
            assert time.monotonic() - began < 3, "once it is known, only one thread waits for the database"
            assert {page.result().status for page in pages} == {503}
    finally:
        os.kill(mariadb.process.pid, signal.SIGCONT)
    until(lambda: readers[0].get("/").status == 200, "the site has not recovered", 10)
    for client in (ada, stranger, *readers):
        client.close()


def test_sqlite_locked_by_another_program(sqlite_site: Site):
    client = Client(sqlite_site.port).sign_in("ada", PASSWORD)
    other = sqlite3.connect(sqlite_site.folder / "corkboard.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        refused = client.post("/posts/1/comments", body="Not now", form_id="1" * 32)
        assert refused.status == 503
        assert refused.headers["Retry-After"]
        assert client.get("/posts/1").status == 200, "reading goes on"
        other.execute("ROLLBACK")
        assert client.post("/posts/1/comments", body="Now", form_id="1" * 32).status == 303
    finally:
        other.close()
        client.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes away another process's right to write")
def test_no_room_on_the_disk(sqlite_site: Site):
    """No file of the site may grow any more, the log neither, which is what a full disk looks like from inside."""
    import resource

    assert sqlite_site.process is not None
    pid, unlimited = sqlite_site.process.pid, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    client = Client(sqlite_site.port).sign_in("ada", PASSWORD)
    try:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        for _ in range(3):
            refused = client.post("/posts/1/comments", body="No room", form_id="2" * 32)
            assert refused.status == 503
            assert refused.headers["Retry-After"]
            assert client.get("/posts/1").status == 200, "reading goes on"
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
        answer = client.post("/posts/1/comments", body="Room again", form_id="2" * 32)
        assert answer.status == 303
        check_comments(sqlite_site, {"2" * 32: int(answer.headers["Location"].rpartition("-")[2])})
    finally:
        client.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB. Only an administrator of Linux can make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is Linux's")
def test_a_disk_that_is_full_is_told_reading_goes_on_and_room_ends_it(small_disk: Path) -> None:
    data = small_disk / "data"
    with prepared(data, f"sqlite:///{(data / 'corkboard.db').as_posix()}") as site:
        client = Client(site.port).sign_in("ada", PASSWORD)
        ballast = small_disk / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        long, statuses = "All of it is *here*. " * 400, []
        for number in range(100):  # the log of the database has some room left
            statuses.append(client.post("/posts/1/comments", body=long, form_id=f"{number:032}"))
            if statuses[-1].status != 303:
                break
        refused = statuses[-1]
        assert refused.status == 507
        assert "full" in refused.text
        for path in ("/", "/posts/1", "/people", "/static/app.css"):
            assert client.get(path).status == 200, "reading goes on"
        upload = b'--x\r\nContent-Disposition: form-data; name="upload"; filename="a.txt"\r\n\r\n' + bytes(2**20)
        kind = {"Content-Type": "multipart/form-data; boundary=x", "X-CSRFToken": client.csrf_token}
        answer = client._ask("POST", "/files", upload + b"\r\n--x--\r\n", kind)  # type: ignore[arg-type]
        assert answer.status in (503, 507)
        assert client.get("/readyz").status == 503
        ballast.unlink()
        again = client.post("/posts/1/comments", body=long, form_id=f"{len(statuses) - 1:032}")
        assert again.status == 303
        until(lambda: client.get("/readyz").status == 200, "the site does not recover", 10)
        client.close()
