"""A site on several machines, as deploy/ describes it: three nodes of Galera, two processes, nginx in front of both.

A node and a process are killed while people comment. What was acknowledged is there once, nobody waits for long, and
nobody sees an error. On one computer each "machine" is a port.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import PASSWORD
from post_office import self_signed
from serving import PROJECT, Site, free_port, until

from .conftest import check_comments, prepared
from .load import WRITERS, Load
from .mariadb import MISSING, MariaDB, is_installed
from .test_nginx import NGINX, PROXIED, SecureClient, configuration

pytestmark = [pytest.mark.faults, pytest.mark.slow]

GALERA = Path("/usr/lib/galera/libgalera_smm.so")
STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
REDIS = shutil.which("redis-server")
STALL_MAX = 10  # seconds in which nobody's comment is taken


class Cluster(NamedTuple):
    nodes: list[MariaDB]
    sites: list[Site]
    port: int  # where nginx serves them both
    certificate: str
    redis: str  # where requests of the API are counted

    def connect(self) -> SecureClient:
        return SecureClient(self.port, self.certificate)


def node(folder: Path, number: int, ports: list[int]) -> MariaDB:
    """A node with the settings of deploy/galera.cnf, at ports of this computer."""
    folder.mkdir()
    text = (PROJECT / "deploy" / "galera.cnf").read_text(encoding="utf-8")
    for written, ours in (
        ("gcomm://10.0.0.1,10.0.0.2,10.0.0.3", "gcomm://" + ",".join(f"127.0.0.1:{port}" for port in ports)),
        ("wsrep_node_address = 10.0.0.1 ", f"wsrep_node_address = 127.0.0.1:{ports[number]} "),
        ("bind_address = 10.0.0.1 ", "bind_address = 127.0.0.1 "),
        ("gcache.size=128M;", f"gcache.size=32M; base_port={ports[number]}; ist.recv_addr=127.0.0.1:{free_port()};"),
    ):
        assert written in text, written
        text = text.replace(written, ours)
    (folder / "galera.cnf").write_text(f"{text}wsrep_sst_receive_address = 127.0.0.1:{free_port()}\n", encoding="utf-8")
    user = "mysql" if os.geteuid() == 0 else ""  # as root, rsync would write as nobody
    if user:
        shutil.chown(folder, user)
    return MariaDB(folder, folder / "galera.cnf", user)


def balanced(text: str, nodes: list[MariaDB], port: int) -> str:
    """deploy/nginx-galera.conf with the ports of the test."""
    text = text.replace("127.0.0.1:3307", f"127.0.0.1:{port}")
    for number, each in enumerate(nodes, 1):
        assert f"10.0.0.{number}:3306" in text
        text = text.replace(f"10.0.0.{number}:3306", f"127.0.0.1:{each.port}")
    return text


def begin(nodes: list[MariaDB]) -> None:
    """Start the cluster: the first node, and then the others, which it sends its data."""
    nodes[0].start("--wsrep-new-cluster")
    for each in nodes[1:]:
        each.start()
    for each in nodes:
        until(lambda each=each: state(each) == "Synced", "a node does not join", 60)
    with nodes[0].connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE corkboard")


def state(node: MariaDB) -> str:
    with node.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'wsrep_local_state_comment'")
        return (cursor.fetchone() or ("", ""))[1]


@contextlib.contextmanager
def process(*command: object) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL) as started:
        try:
            yield started
        finally:
            started.terminate()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    if not is_installed() or not GALERA.exists():
        pytest.skip(MISSING)
    if NGINX is None or not STREAM.exists():
        pytest.skip("no nginx with streams here (Debian: apt-get install libnginx-mod-stream)")
    if REDIS is None:
        pytest.skip("no Redis here (Debian: apt-get install redis-server)")
    with contextlib.ExitStack() as running:
        ports = [free_port() for _ in range(3)]
        place = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="galera-", ignore_cleanup_errors=True)))
        place.chmod(0o755)  # the nodes do not run as root
        nodes = [node(place / f"node{number}", number, ports) for number in range(3)]
        begin(nodes)
        for each in nodes:
            running.callback(each.kill)
        redis = free_port()
        running.enter_context(process(REDIS, "--port", redis, "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path))
        yield from served(running, tmp_path, nodes, f"redis://127.0.0.1:{redis}/0")


def served(running: contextlib.ExitStack, folder: Path, nodes: list[MariaDB], redis: str) -> Iterator[Cluster]:
    """Two processes with one folder, and nginx: before them, and between them and the nodes."""
    way, secure = free_port(), free_port()
    _, certificate = self_signed(folder)
    settings = {"RATELIMIT_STORAGE_URI": redis, **PROXIED}
    first = prepared(folder / "data", nodes[0].url)
    first.stop()
    sites = [Site(folder / "data", nodes[0].url.replace(f":{nodes[0].port}/", f":{way}/"), **settings) for _ in "12"]
    web = configuration(folder, sites[0], free_port(), secure)
    assert "    # server 10.0.0.2:8000;" in web
    web = web.replace("    # server 10.0.0.2:8000;", f"    server 127.0.0.1:{sites[1].port};")
    stream = balanced((PROJECT / "deploy" / "nginx-galera.conf").read_text(encoding="utf-8"), nodes, way)
    (folder / "nginx.conf").write_text(f"load_module {STREAM};\n{web}\n{stream}", encoding="utf-8")
    running.enter_context(process(NGINX, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "errors.txt"))
    for site in sites:
        until(lambda: listens(way), "nginx does not answer")
        site.start()
        running.callback(site.stop)
    yield Cluster(nodes, sites, secure, certificate, redis)


def listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Watch:
    """How long it took at most from one acknowledged comment to the next."""

    def __init__(self, load: Load) -> None:
        self.load, self.longest, self.ended = load, 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        count, since = self.load.count(), time.monotonic()
        while not self.ended.wait(0.02):
            now = time.monotonic()
            if self.load.count() > count:
                count, since = self.load.count(), now
            self.longest = max(self.longest, now - since)

    def stop(self) -> float:
        self.ended.set()
        self.thread.join()
        return self.longest


def test_a_node_and_a_process_are_killed_and_no_comment_is_lost_or_doubled(cluster: Cluster) -> None:
    with Load(cluster.connect, "ada", PASSWORD) as load:
        watch = Watch(load)
        go_on(load)
        cluster.nodes[0].kill()
        go_on(load)
        cluster.sites[0].kill()
        go_on(load)
        cluster.sites[0].start()
        go_on(load)
        stall = watch.stop()
    assert not load.wrong
    assert load.count() > 12 * WRITERS
    assert stall < STALL_MAX
    cluster.sites[1].environ["DATABASE_URL"] = cluster.nodes[1].url
    check_comments(cluster.sites[1], load.acknowledged)
    print(f"{load.count()} comments, at most {stall:.1f} s without one; 503: {load.unavailable}; lost: {load.lost}")


def go_on(load: Load) -> None:
    enough = load.count() + 3 * WRITERS
    until(lambda: load.wrong or load.count() >= enough, f"nobody can comment: {load.unavailable}", seconds=40)
