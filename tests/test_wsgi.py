"""The server: what it refuses before the application, how it starts, and how it stops.

Most tests serve a small application in a thread, or start copies of wsgi.py and config.py beside one, so that they
can ask it for slow and large answers. All speak through real sockets.
"""

import contextlib
import errno
import importlib.util
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import click
import pytest
from flask import Flask, Response, request
from waitress.task import ThreadedTaskDispatcher

import config

PROJECT = Path(config.__file__).parent
MEGABYTE = 1024 * 1024
on_posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGTERM to send")

SMALL_APP = """
import os
import sys
import time
from flask import Flask, Response, request
from waitress.task import ThreadedTaskDispatcher
from config import load

def create_app(config=None):
    settings = config or load()
    settings.require_sound()
    app = Flask("small")
    app.config.from_object(settings)
    note = app.config["DATA_DIR"] / "notes"

    def write(text):
        with open(note, "a") as file:
            file.write(text + "\\n")

    @app.get("/")
    def home():
        return "home"

    @app.get("/slow/<name>")
    def slow(name):
        write(f"begun {name}")
        end = time.monotonic() + 20
        while not (app.config["DATA_DIR"] / "go_on").exists() and time.monotonic() < end:
            time.sleep(0.01)
        write(f"ended {name}")
        return "slow but done"

    @app.get("/large/<int:megabytes>")
    def large(megabytes):
        return b"x" * (megabytes << 20)

    app.write = write
    return app

def site_address(settings):
    return settings["SITE_URL"] or f"http://{settings['HOST']}:{settings['PORT']}"

def announce_setup(app, terminal):
    if "STALLED_SECONDS" in os.environ:
        sys.modules["__main__"].STALLED_SECONDS = float(os.environ["STALLED_SECONDS"])
    if "WAITRESS_SECONDS" in os.environ:
        ThreadedTaskDispatcher.shutdown.__defaults__ = (True, float(os.environ["WAITRESS_SECONDS"]))
    return f"set up on a terminal: {terminal}"

def start_background(app):
    pass


def start_jobs(app):
    pass


def stop_background(app):
    app.write("background stopped")
"""

SMALL_DATABASE = """
import os
import click

def prepare_served_start(app):
    if os.environ.get("OLD_SCHEMA"):
        raise click.ClickException("The database is older. Run: python -m flask init-db")

def watch_load(app, writers):
    app.add_url_rule("/load", view_func=lambda: str(writers()), methods=["GET", "POST"])
"""


# == Helpers ===========================================================================================================


def wait_for(check, seconds=15, what="it"):
    """Ask again and again; what `check` gives back once it is true."""
    end = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)
    return result


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def read_all(connection):
    """Everything until the other side closes. A reset is an error: the answer must have arrived in order."""
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def read_until(connection, end):
    answer = b""
    while not answer.endswith(end):
        part = connection.recv(1 << 16)
        assert part, answer
        answer += part


def ask(port, raw):
    with connect(port) as connection:
        connection.sendall(raw)
        return read_all(connection)


def get(path, *headers, version="1.1", host="board"):
    return "\r\n".join([f"GET {path} HTTP/{version}", f"Host: {host}", *headers, "", ""]).encode()


def status(answer):
    return int(answer.split(b" ", 2)[1])


def body(answer):
    return answer.partition(b"\r\n\r\n")[2]


# == A small application, served in a thread ===========================================================================


@pytest.fixture(scope="module")
def wsgi():
    """The module, loaded beside a small `app` and `database`: its own `app` is not what is tested here."""
    small = {"app": ModuleType("app"), "database": ModuleType("database")}
    exec(SMALL_APP, vars(small["app"]))  # noqa: S102
    small["app"].create_app = lambda: Flask("small")
    with pytest.MonkeyPatch.context() as patch:
        for name, module in small.items():
            patch.setitem(sys.modules, name, module)
        spec = importlib.util.spec_from_file_location("wsgi_beside_a_small_app", PROJECT / "wsgi.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


class Site:
    """What a test sees of a served application: its port, the server, and the requests that reached the views."""

    def __init__(self, wsgi, tmp_path, settings):
        self.seen = []
        self.go_on = threading.Event()
        self.app = Flask("small")
        self.app.config.from_object(
            config.TestingConfig({"DATA_DIR": str(tmp_path), "MAX_UPLOAD_MB": "1", "THREADS": "2", **settings})
        )
        self.app.add_url_rule("/<path:path>", view_func=self.view, methods=["GET", "POST"])
        self.listener = wsgi.listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.server = wsgi.Server(self.app, self.listener)
        self.thread = threading.Thread(target=self.server.run)

    def view(self, path):
        self.seen.append(path)
        if path == "wait":
            self.go_on.wait(20)
        if path == "break":
            raise SystemError("on purpose")
        if path == "had":
            return Response(status=304, headers={"ETag": '"same"'})
        return f"{len(request.get_data())} {request.remote_addr} {request.scheme} {request.host}"


@pytest.fixture(params=["epoll", "select"])
def serve(wsgi, tmp_path, monkeypatch, request):
    """Serves by the loop of Linux and by that of Windows, which has neither epoll nor poll."""
    if request.param == "select":
        for name in ("epoll", "poll"):
            monkeypatch.delattr(select, name, raising=False)
    elif not hasattr(select, "epoll"):
        pytest.skip("this system has no epoll")
    sites = []

    def serve(started=True, **settings):
        site = Site(wsgi, tmp_path, settings)
        sites.append(site)
        if started:
            site.thread.start()
        return site

    yield serve
    for site in sites:
        site.go_on.set()
        site.server.stopping or site.server.stop()
        site.thread.ident or site.thread.start()
        site.thread.join(20)
        assert not site.thread.is_alive()


def test_a_plain_request_is_answered_without_naming_the_server(serve):
    answer = ask(serve().port, get("/page", "Connection: close"))
    assert status(answer) == 200
    assert b"\r\nServer:" not in answer
    assert body(answer) == b"0 127.0.0.1 http board"


def test_a_connection_is_kept_for_the_next_request(serve):
    site = serve()
    assert ask(site.port, get("/one") + get("/two", "Connection: close")).count(b"HTTP/1.1 200 OK") == 2
    assert site.seen == ["one", "two"]


def test_a_connection_is_kept_after_an_answer_without_content(serve):
    site = serve()
    answers = ask(site.port, get("/had") + get("/had") + get("/page", "Connection: close"))
    assert answers.count(b"HTTP/1.1 304 NOT MODIFIED") == 2
    assert b"Connection: close" not in answers
    assert site.seen == ["had", "had", "page"]
    assert status(ask(site.port, get("/had", "Connection: close"))) == 304
    assert status(ask(site.port, get("/had", version="1.0"))) == 304


def test_http_1_0_is_served(serve):
    assert status(ask(serve().port, get("/page", version="1.0"))) == 200


def test_a_chunked_body_reaches_the_view(serve):
    head = b"POST /page HTTP/1.1\r\nHost: board\r\nTransfer-Encoding: Chunked \r\nConnection: close\r\n\r\n"
    answer = ask(serve().port, head + b"5\r\nhello\r\n0\r\n\r\n")
    assert body(answer).startswith(b"5 ")


def test_a_body_that_waits_to_be_asked_for_is_asked_for(serve):
    head = (
        b"POST /page HTTP/1.1\r\nHost: board\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    with connect(serve().port) as connection:
        connection.sendall(head)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert status(read_all(connection)) == 200


def test_a_view_that_fails_outside_flask_is_answered_plainly(serve, caplog):
    site = serve()
    site.app.wsgi_app = lambda environ, start_response: 1 / 0
    answer = ask(site.port, get("/page"))
    assert status(answer) == 500
    assert b"ZeroDivision" not in answer
    assert "Exception while serving /page" in caplog.text


# == Requests that two programs could read differently =================================================================

HOST = b"Host: board\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
UNCLEAR = {
    "length and chunked": HOST + b"Content-Length: 5\r\n" + CHUNKED,
    "chunked and length": HOST + CHUNKED + b"Content-Length: 5\r\n",
    "length 0 and chunked": HOST + b"Content-Length: 0\r\n" + CHUNKED,
    "chunked twice": HOST + CHUNKED + CHUNKED,
    "chunked twice in other letters": HOST + CHUNKED + b"TRANSFER-ENCODING: chunked\r\n",
    "chunked twice in one line": HOST + b"Transfer-Encoding: chunked, chunked\r\n",
    "chunked and nothing": HOST + CHUNKED + b"Transfer-Encoding:\r\n",
    "an empty encoding": HOST + b"Transfer-Encoding: \r\n",
    "an encoding on a line of its own": HOST + b"Transfer-Encoding:\r\n chunked\r\n",
    "an encoding with a comma": HOST + b"Transfer-Encoding: ,chunked\r\n",
    "an unknown encoding": HOST + b"Transfer-Encoding: xchunked\r\n",
    "an encoding that is gone": HOST + b"Transfer-Encoding: identity\r\n",
    "a vertical tab before the encoding": HOST + b"Transfer-Encoding: \x0bchunked\r\n",
    "a space before the colon": HOST + b"Transfer-Encoding : chunked\r\n",
    "a bare line feed": HOST + b"X: y\nTransfer-Encoding: chunked\r\n",
    "two lengths": HOST + b"Content-Length: 0\r\nContent-Length: 5\r\n",
    "the same length twice": HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n",
    "a length with a sign": HOST + b"Content-Length: +5\r\n",
    "a length below nothing": HOST + b"Content-Length: -5\r\n",
    "a length in another base": HOST + b"Content-Length: 0x5\r\n",
    "two hosts": HOST + b"Host: elsewhere\r\n",
    "the same host twice": HOST + HOST,
    "a host and an empty one": HOST + b"Host:\r\n",
    "no host": b"X: y\r\n",
    "an empty host": b"Host:\r\n",
}


@pytest.mark.parametrize("headers", UNCLEAR.values(), ids=UNCLEAR)
def test_an_unclear_request_is_refused_and_nothing_after_it_is_read(serve, headers):
    site = serve()
    answer = ask(site.port, b"POST /first HTTP/1.1\r\n" + headers + b"\r\n" + get("/smuggled"))
    assert status(answer) in (400, 501)
    assert answer.count(b"HTTP/1.") == 1
    assert b"\r\nConnection: close\r\n" in answer
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in answer
    assert site.seen == []


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /first HTTP/1.0\r\n\r\n",
        b"GET /first\r\n\r\n",
        b"POST /first HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n",
        b"POST /first HTTP/1.0\r\n" + HOST + CHUNKED + b"Content-Length: 5\r\n\r\nhello",
        b"POST /first HTTP/1.2\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n",
        b"post /first HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /first HTTP/1.1 \x00\r\n" + HOST + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    ],
)
def test_an_old_or_broken_request_line_opens_no_way_around(serve, raw):
    site = serve()
    assert status(ask(site.port, raw)) == 400
    assert site.seen == []


def test_what_is_refused_is_not_asked_for_its_body(serve):
    headers = HOST + CHUNKED + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    assert status(ask(serve().port, b"POST /first HTTP/1.1\r\n" + headers)) == 400


def test_headers_that_never_end_are_refused(serve):
    site = serve()
    answer = ask(site.port, b"GET /first HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 300_000 + b"\r\n\r\n")
    assert status(answer) == 431
    assert site.seen == []


# == Bodies that are too large, and disks that are full ================================================================


def post(length, *headers):
    lines = ["POST /upload HTTP/1.1", "Host: board", f"Content-Length: {length}", *headers, "", ""]
    return "\r\n".join(lines).encode()


@pytest.fixture
def no_spooling(monkeypatch):
    """Fails the test when a body is written to the disk."""
    from waitress.buffers import OverflowableBuffer

    def spool(self):
        pytest.fail("a body was spooled")

    monkeypatch.setattr(OverflowableBuffer, "_set_large_buffer", spool)


@pytest.mark.parametrize("expect", [[], ["Expect: 100-continue"]])
def test_a_body_above_the_limit_is_refused_by_its_length_alone(serve, no_spooling, expect):
    site = serve()
    answer = ask(site.port, post(MEGABYTE + 1, *expect))
    assert status(answer) == 413
    assert b"smaller file" in body(answer)
    assert site.seen == []


def test_a_body_at_the_limit_is_taken(serve):
    answer = ask(serve().port, post(MEGABYTE, "Connection: close") + b"x" * MEGABYTE)
    assert body(answer).startswith(b"1048576 ")


def test_who_is_still_sending_gets_to_read_the_refusal(serve, no_spooling):
    """Closing at once would reset the connection, and browsers would show that in place of the answer."""
    answer = ask(serve().port, post(32 * MEGABYTE) + b"x" * (32 * MEGABYTE))
    assert status(answer) == 413


def test_after_a_refusal_what_is_thrown_away_does_not_keep_the_connection(serve):
    site = serve()
    with connect(site.port) as connection:
        connection.sendall(post(2 * MEGABYTE))
        read_all(connection)
        (channel,) = site.server.waitress.active_channels.values()
        threads = site.server.waitress.task_dispatcher
        wait_for(lambda: channel.draining and not threads.active_count)  # the one that answered is done with it
        before = channel.last_activity
        connection.sendall(b"x" * MEGABYTE)
        assert channel.last_activity == before
    wait_for(lambda: not site.server.waitress.active_channels)


def test_a_chunked_body_above_the_limit_is_refused(serve):
    site = serve()
    head = b"POST /upload HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n"
    answer = ask(site.port, head + b"10000\r\n" + b"x" * 65536 + (b"\r\n10000\r\n" + b"x" * 65536) * 31)
    assert status(answer) == 413
    assert site.seen == []


@pytest.fixture
def full_disk(wsgi, monkeypatch):
    disk_usage = lambda folder: SimpleNamespace(free=wsgi.SPARE_DISK + 1000)  # noqa: E731
    monkeypatch.setattr(wsgi, "shutil", SimpleNamespace(disk_usage=disk_usage))


@pytest.mark.parametrize("expect", [[], ["Expect: 100-continue"]])
def test_a_body_without_room_on_the_disk_is_refused_before_it_is_sent(serve, full_disk, no_spooling, expect):
    site = serve()
    answer = ask(site.port, post(MEGABYTE, *expect))
    assert status(answer) == 507
    assert site.seen == []


def test_a_chunked_body_without_room_on_the_disk_is_refused(serve, full_disk, no_spooling):
    assert status(ask(serve().port, b"POST /upload HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n")) == 507


def test_a_comment_can_still_be_written_when_the_disk_is_nearly_full(serve, full_disk):
    assert status(ask(serve().port, post(500, "Connection: close") + b"x" * 500)) == 200


def test_too_large_is_said_before_full(serve, full_disk):
    assert status(ask(serve().port, post(MEGABYTE + 1))) == 413


def test_a_folder_that_is_gone_has_no_room(wsgi, tmp_path):
    assert wsgi.has_space((tmp_path,), 1)
    assert not wsgi.has_space((tmp_path, tmp_path / "gone"), 1)


# == Proxies and crowds ================================================================================================

FORWARDED = [
    "X-Forwarded-For: 203.0.113.9",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: public",
    "Connection: close",
]


def test_a_trusted_proxy_is_believed(serve):
    site = serve(TRUSTED_PROXY="127.0.0.1", SITE_URL="https://public")
    assert body(ask(site.port, get("/page", *FORWARDED))) == b"0 203.0.113.9 https public"


@pytest.mark.parametrize("proxy", [{}, {"TRUSTED_PROXY": "10.0.0.1", "SITE_URL": "https://public"}])
def test_anybody_else_is_not_believed(serve, proxy):
    assert body(ask(serve(**proxy).port, get("/page", *FORWARDED))) == b"0 127.0.0.1 http board"


def test_many_slow_connections_leave_room_for_the_rest(serve):
    """With Waitress's own limit of 100 connections these would be all it serves."""
    site = serve()
    with contextlib.ExitStack() as crowd:
        for _ in range(200):
            connection = crowd.enter_context(connect(site.port))
            connection.sendall(b"GET /slow HTTP/1.1\r\nHost: bo")
        wait_for(lambda: len(site.server.waitress.active_channels) == 200)
        started = time.monotonic()
        assert status(ask(site.port, get("/page", "Connection: close"))) == 200
        assert time.monotonic() - started < 2


@pytest.fixture
def often(wsgi, monkeypatch):
    """Looks after the connections all the time, and not every few seconds."""
    monkeypatch.setattr(wsgi, "CHECK_SECONDS", 0)


def test_connections_that_stay_silent_are_closed(serve, often):
    site = serve()
    with connect(site.port) as connection:
        connection.sendall(b"GET /page HTTP/1.1\r\n")
        (channel,) = wait_for(lambda: list(site.server.waitress.active_channels.values()))
        wait_for(lambda: channel.request)
        channel.last_activity -= 19
        assert status(ask(site.port, get("/page", "Connection: close"))) == 200
        assert channel.connected
        channel.last_activity -= 2
        site.server.waitress.pull_trigger()  # or the loop would look after it only in a second
        assert read_all(connection) == b""


@pytest.mark.parametrize(
    ("hard", "expected", "raised_to"),
    [(-1, 1000, 4096), (8192, 1000, 4096), (512, 384, 512), (200, 100, 200)],
)
def test_the_limit_of_connections_fits_the_files_that_may_be_open(wsgi, monkeypatch, hard, expected, raised_to):
    raised = []
    system = SimpleNamespace(RLIMIT_NOFILE=7, RLIM_INFINITY=-1)
    system.getrlimit = lambda _: (180, hard)
    system.setrlimit = lambda _, pair: raised.append(pair)
    monkeypatch.setitem(sys.modules, "resource", system)
    monkeypatch.setattr(wsgi, "select", SimpleNamespace(poll=None))
    assert wsgi.connection_limit() == expected
    assert raised == [(raised_to, hard)]


def test_the_limit_of_connections_fits_what_the_system_can_watch(wsgi, monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(wsgi, "select", SimpleNamespace(poll=None))
    assert wsgi.connection_limit() == 1000
    monkeypatch.setattr(wsgi, "select", SimpleNamespace())
    assert wsgi.connection_limit() == 400


def test_the_server_knows_how_many_requests_that_may_write_it_could_be_at_work_for(serve):
    site = serve(THREADS="3")
    asked = []

    def begin(method, number):
        asked.append(connect(site.port))
        asked[-1].sendall(f"{method} /wait HTTP/1.1\r\nHost: board\r\n\r\n".encode())
        wait_for(lambda: len(site.seen) == min(number, 3), what=f"request {number}")

    assert site.server.writers() == 0
    begin("GET", 1)
    assert site.server.writers() == 0
    begin("POST", 2)
    assert site.server.writers() == 1
    begin("GET", 3)
    begin("POST", 4)
    wait_for(lambda: site.server.writers() == 2, what="the one that no thread is free for")
    for number in (5, 6):
        begin("POST", number)
    wait_for(lambda: len(site.server.dispatcher.queue) == 3, what="a line of three")
    assert site.server.writers() == 3
    site.go_on.set()
    for connection in asked:
        read_until(connection, b"http board")
        connection.close()
    wait_for(lambda: site.server.writers() == 0, what="the end of all")


def test_by_epoll_a_request_asks_nothing_of_the_connections_that_lie_idle(wsgi, serve, monkeypatch):
    site, asked = serve(), []
    readable = wsgi.Channel.readable
    monkeypatch.setattr(wsgi.Channel, "readable", lambda channel: asked.append(channel) or readable(channel))
    with contextlib.ExitStack() as crowd:
        for _ in range(50):
            crowd.enter_context(connect(site.port))
        wait_for(lambda: len(site.server.waitress.active_channels) == 50)
        with connect(site.port) as connection:
            for _ in range(5):
                asked.clear()
                connection.sendall(get("/page"))
                read_until(connection, b"http board")
                connection.sendall(get("/had"))
                read_until(connection, b"\r\n\r\n")
    assert len(set(asked)) == (1 if type(site.server.loop) is wsgi.EpollLoop else 51)


def test_who_breaks_off_while_a_view_works_does_not_keep_the_loop_turning(serve, monkeypatch):
    site = serve()
    with connect(site.port) as connection:
        connection.sendall(get("/wait"))
        wait_for(lambda: site.seen == ["wait"])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
    turns = []
    turn = site.server.loop.turn
    monkeypatch.setattr(site.server.loop, "turn", lambda seconds: turns.append(seconds) or turn(seconds))
    for _ in range(10):
        assert status(ask(site.port, get("/page", "Connection: close"))) == 200
    assert len(turns) < 100
    site.go_on.set()
    wait_for(lambda: not site.server.waitress.active_channels)


@pytest.mark.parametrize("somebody_connects", [False, True])
def test_from_a_connection_that_was_idle_for_too_long_nothing_is_taken(serve, monkeypatch, somebody_connects):
    """What it sends in the moment before it is closed would be thrown away; so it meets a closed one, and asks anew."""
    site = serve(started=False)
    server, turn = site.server.waitress, site.server.loop.turn
    with contextlib.ExitStack() as browsers:
        connection = browsers.enter_context(connect(site.port))
        turn(1)
        (channel,) = server.active_channels.values()
        connection.sendall(get("/one"))
        turn(1)
        read_until(connection, b"http board")
        wait_for(lambda: not channel.requests and not server.task_dispatcher.active_count)
        taken = []
        monkeypatch.setattr(channel, "handle_read", lambda: taken.append("two"))
        channel.last_activity -= 21
        if somebody_connects:  # the server is asked what it waits for afterwards, too
            accept = server.handle_accept
            monkeypatch.setattr(server, "handle_accept", lambda: (accept(), setattr(server, "next_channel_cleanup", 0)))
            browsers.enter_context(connect(site.port))
            turn(1)
        else:
            server.next_channel_cleanup = 0
        connection.sendall(get("/two"))
        turn(1)
        turn(0)
        assert channel not in server.active_channels.values()
    assert not taken


def test_a_thread_that_ends_while_its_connection_is_closed_leaves_nothing_behind(serve, monkeypatch):
    """The next connection has the same number: what was known of the one before would leave it waiting for ever."""
    site = serve()
    loop, closed = site.server.loop, site.server.loop.closed
    monkeypatch.setattr(loop, "closed", lambda fd: (loop.changed(fd), closed(fd), loop.changed(fd)))
    for _ in range(3):
        assert status(ask(site.port, get("/page", "Connection: close"))) == 200
    wait_for(lambda: not site.server.waitress.active_channels)
    assert set(getattr(loop, "known", site.server.sockets)) == set(site.server.sockets)


def test_the_loop_leaves_a_connection_alone_while_a_thread_sends(serve, wsgi, monkeypatch):
    """It would be told at once that there is room, could do nothing with it, and ask again: several times a request."""
    seen = []
    send = wsgi.Channel.send

    def watched(channel, *args, **kwargs):
        with ThreadPoolExecutor(1) as loop:  # the lock is one that its own thread may take again
            seen.append((channel.total_outbufs_len > 0, loop.submit(channel.writable).result()))
        return send(channel, *args, **kwargs)

    monkeypatch.setattr(wsgi.Channel, "send", watched)
    site = serve()
    assert status(ask(site.port, get("/page", "Connection: close"))) == 200
    assert seen == [(True, not site.server.loop.asks_everybody)]


def test_who_stops_reading_is_let_go(serve, often):
    site = serve()
    site.app.add_url_rule("/large", view_func=lambda: b"x" * (24 * MEGABYTE))
    with connect(site.port) as connection:
        connection.sendall(get("/large"))
        (channel,) = wait_for(lambda: list(site.server.waitress.active_channels.values()))
        wait_for(lambda: channel.total_outbufs_len and not site.server.waitress.task_dispatcher.active_count)
        assert not channel.has_stalled(20)
        channel.last_activity -= 21
        site.server.waitress.pull_trigger()  # or the loop would look after it only in a second
        wait_for(lambda: not site.server.waitress.active_channels)


@pytest.mark.parametrize("error", [None, OSError, TypeError])
def test_threads_share_two_heaps_where_the_system_knows_how(wsgi, monkeypatch, error):
    asked = []

    def library(_name):
        if error:
            raise error
        return SimpleNamespace(mallopt=lambda *given: asked.append(given))

    monkeypatch.setattr("ctypes.CDLL", library)
    wsgi.share_heaps()
    assert asked == ([] if error else [(-8, 2)])


# == Stopping, seen from inside ========================================================================================


def test_a_view_that_takes_longer_than_the_grace_is_left_behind(serve):
    site = serve()
    finish, site.server.finish = site.server.finish, lambda: 0
    with connect(site.port) as connection:
        connection.sendall(get("/wait"))
        wait_for(lambda: site.seen)
        site.server.stop()
        site.thread.join(10)
        assert finish(seconds=0.3) == 1
        site.go_on.set()
        assert finish(seconds=10) == 0
        assert status(read_all(connection)) == 200


def test_the_loop_may_have_ended_before_who_asked_for_it_wakes_it(serve, monkeypatch):
    site = serve()
    pull = site.server.waitress.trigger.pull_trigger

    def pull_late():
        site.thread.join(20)
        pull()

    monkeypatch.setattr(site.server.waitress.trigger, "pull_trigger", pull_late)
    site.server.stop()
    assert not site.thread.is_alive()


def test_asked_a_second_time_the_process_ends_at_once(serve):
    site = serve()
    site.server.stop()
    with pytest.raises(SystemExit):
        site.server.stop()


# == The address =======================================================================================================


class FakeListener:
    def __init__(self, family=socket.AF_INET):
        self.family = family
        self.options = []

    def setsockopt(self, level, option, value):
        self.options.append((level, option, value))


def test_on_windows_the_address_is_claimed_for_us_alone(wsgi, monkeypatch):
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    listener = FakeListener()
    wsgi.claim(listener)
    assert listener.options == [(socket.SOL_SOCKET, -5, 1)]


def test_elsewhere_the_address_can_be_taken_up_again_at_once(wsgi, monkeypatch):
    monkeypatch.delattr(socket, "SO_EXCLUSIVEADDRUSE", raising=False)
    listener = FakeListener(socket.AF_INET6)
    wsgi.claim(listener)
    assert listener.options[0] == (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    assert (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1) in listener.options


def test_a_port_in_use_is_told_with_another_to_take(wsgi):
    with wsgi.listen("127.0.0.1", 0) as first, pytest.raises(click.ClickException) as refusal:
        wsgi.listen("127.0.0.1", first.getsockname()[1])
    assert f"PORT={first_port(refusal) + 1}" in refusal.value.message


def first_port(refusal):
    return int(refusal.value.message.split()[1])


@pytest.mark.parametrize(
    ("number", "windows", "expected"),
    [
        (errno.EADDRINUSE, False, "taken by another program"),
        (errno.EACCES, True, "taken by another program"),
        (errno.EACCES, False, "number above 1023"),
        (errno.EADDRNOTAVAIL, False, "has no address 192.0.2.1"),
    ],
)
def test_what_is_wrong_with_an_address_is_told(wsgi, monkeypatch, number, windows, expected):
    monkeypatch.delattr(socket, "SO_EXCLUSIVEADDRUSE", raising=False)
    if windows:
        monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    assert expected in wsgi.address_trouble(OSError(number, "no"), "192.0.2.1", 80)


def test_an_address_of_another_computer_is_told(wsgi):
    with pytest.raises(click.ClickException, match="has no address 192"):
        wsgi.listen("192.0.2.1", 0)


def test_localhost_is_the_address_that_browsers_try_first(wsgi):
    with wsgi.listen("localhost", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


# == One server for each data folder ===================================================================================


def test_the_folder_is_held_until_the_file_is_closed(wsgi, tmp_path):
    with wsgi.lock_data_folder(tmp_path), pytest.raises(click.ClickException, match=f"process {os.getpid()}"):
        wsgi.lock_data_folder(tmp_path)
    wsgi.lock_data_folder(tmp_path).close()


def test_on_windows_a_byte_far_behind_the_number_is_locked(wsgi, tmp_path, monkeypatch):
    positions, taken = [], False

    def locking(descriptor, mode, length):
        if taken:
            raise PermissionError(errno.EACCES, "locked")
        positions.append((os.lseek(descriptor, 0, os.SEEK_CUR), mode, length))

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking))
    with wsgi.lock_data_folder(tmp_path):
        assert positions == [(wsgi.LOCKED_BYTE, 2, 1)]
        taken = True
        with pytest.raises(click.ClickException, match=f"process {os.getpid()}"):
            wsgi.lock_data_folder(tmp_path)
    assert (tmp_path / "serve.lock").read_text() == f"{os.getpid()}\n"


def test_a_lock_that_cannot_be_written_is_told(wsgi, tmp_path):
    (tmp_path / "serve.lock").mkdir()
    with pytest.raises(click.ClickException, match="cannot be written to"):
        wsgi.lock_data_folder(tmp_path)


@pytest.mark.parametrize(
    ("url", "expected"),
    [("sqlite:////data/corkboard.db", True), ("sqlite:///:memory:", False), ("mysql+pymysql://a:b@host/name", False)],
)
def test_only_a_sqlite_file_needs_the_lock(wsgi, url, expected):
    assert wsgi.is_on_sqlite(SimpleNamespace(config={"DATABASE_URL": url})) is expected


# == `python wsgi.py`, started as a process ============================================================================


@pytest.fixture
def start(tmp_path):
    """Starts copies of wsgi.py and config.py beside a small application: start(THREADS="2")."""
    folder = tmp_path / "site"
    folder.mkdir()
    shutil.copy(PROJECT / "wsgi.py", folder)
    shutil.copy(PROJECT / "config.py", folder)
    (folder / "app.py").write_text(SMALL_APP)
    (folder / "database.py").write_text(SMALL_DATABASE)
    processes = []

    def start(ready=True, folder=folder, stdout=None, **environ):
        process = Process(folder, tmp_path, stdout, environ)
        processes.append(process)
        if ready:
            process.wait_until_ready()
        return process

    yield start
    for process in processes:
        process.end()


class Process:
    """One `python wsgi.py`, with what it printed."""

    def __init__(self, folder, tmp_path, stdout, environ):
        settings = set(config.Config({"DATA_DIR": str(tmp_path / "probe"), "SECRET_KEY": "x" * 32}).__dict__)
        inherited = {name: value for name, value in os.environ.items() if name not in settings | {"FLASK_DEBUG"}}
        self.data = tmp_path / "data"
        self.port = int(environ.get("PORT") or free_port())
        self.printed = tmp_path / f"printed-{self.port}-{time.monotonic_ns()}"
        environ = inherited | {"DATA_DIR": str(self.data), "PORT": str(self.port)} | environ
        with open(self.printed, "wb") as file:
            command = [sys.executable, "wsgi.py"]
            self.popen = subprocess.Popen(command, cwd=folder, env=environ, stdout=stdout or file, stderr=file)

    @property
    def text(self):
        return self.printed.read_text()

    @property
    def notes(self):
        path = self.data / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def wait_until_ready(self):
        wait_for(lambda: self.answers() or self.popen.poll() is not None, what="the first answer")
        assert self.popen.poll() is None, self.text

    def answers(self):
        try:
            with connect(self.port):
                return True
        except ConnectionError:
            return False

    def signal(self, number=signal.SIGTERM):
        self.popen.send_signal(number)

    def wait(self, seconds=15):
        return self.popen.wait(seconds)

    def let_go(self):
        """Let the views that have begun come to their end."""
        (self.data / "go_on").touch()

    def end(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(10)


def begin(process, name, *headers):
    """A request whose view has begun, and goes on until `let_go`."""
    connection = connect(process.port)
    connection.sendall(get(f"/slow/{name}", *headers))
    wait_for(lambda: f"begun {name}" in process.notes)
    return connection


def test_a_start_tells_the_address_and_how_to_go_on(start):
    process = start()
    text = wait_for(lambda: process.text)
    assert text.splitlines() == [
        f"Corkboard is running at http://127.0.0.1:{process.port}",
        "set up on a terminal: False",
    ]
    assert body(ask(process.port, get("/", "Connection: close"))) == b"home"


def test_once_served_units_know_how_many_requests_may_write(start):
    port = start().port
    assert body(ask(port, get("/load", "Connection: close"))) == b"0"
    assert body(ask(port, b"POST /load HTTP/1.1\r\nHost: board\r\nConnection: close\r\n\r\n")) == b"1"


@on_posix
def test_a_start_in_a_terminal_also_tells_how_to_stop(start):
    outer, inner = os.openpty()
    try:
        start(stdout=inner)
        text = b""
        while b"Ctrl+C" not in text and select.select([outer], [], [], 15)[0]:  # a terminal hands over line by line
            text += os.read(outer, 10_000)
    finally:
        os.close(outer)
        os.close(inner)
    assert b"set up on a terminal: True" in text
    assert b"press Ctrl+C" in text


def test_behind_a_proxy_both_addresses_are_told(start):
    process = start(SITE_URL="https://board.example.com", TRUSTED_PROXY="127.0.0.1")
    text = wait_for(lambda: process.text)
    assert "running at https://board.example.com\n" in text
    assert f"listens on 127.0.0.1, port {process.port}." in text


@on_posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_connections_and_half_sent_requests_do_not_hold_the_end(start, number):
    process = start()
    with contextlib.ExitStack() as stack:
        idle, half = (stack.enter_context(connect(process.port)) for _ in range(2))
        idle.sendall(get("/"))
        read_until(idle, b"home")
        half.sendall(b"GET / HTTP/1.1\r\nHo")
        started = time.monotonic()
        process.signal(number)
        assert process.wait() == 0
        assert time.monotonic() - started < 4
    assert process.notes == ["background stopped"]
    assert "Traceback" not in process.text


@on_posix
def test_a_view_that_has_begun_gets_longer_than_the_five_seconds_of_waitress(start):
    """Of which this makes less than one, because it is the order of the two that counts."""
    assert ThreadedTaskDispatcher.shutdown.__defaults__ == (True, 5)
    process = start(WAITRESS_SECONDS="0.3")
    with begin(process, "one") as connection:
        process.signal()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.8)
        process.let_go()
        answer = read_all(connection)
    assert body(answer) == b"slow but done"
    assert process.wait() == 0
    assert process.notes == ["begun one", "ended one", "background stopped"]


@on_posix
def test_what_waits_for_a_free_thread_does_not_hold_the_end(start):
    process = start(THREADS="2")
    with begin(process, "one") as one, begin(process, "two") as two, connect(process.port) as waiting:
        waiting.sendall(get("/slow/three"))
        process.signal()
        with contextlib.suppress(ConnectionResetError):  # the server may not even have read it
            assert read_all(waiting) == b""
        process.let_go()
        assert {body(read_all(one)), body(read_all(two))} == {b"slow but done"}
    assert process.wait() == 0
    assert "begun three" not in process.notes


@on_posix
def test_while_it_stops_nobody_new_is_let_in(start):
    process = start()
    with begin(process, "one") as connection:
        process.signal()
        wait_for(lambda: not process.answers(), seconds=2)
        assert process.popen.poll() is None
        process.let_go()
        assert status(read_all(connection)) == 200
    assert process.wait() == 0


@on_posix
def test_a_large_answer_leaves_in_full(start):
    process = start()
    with connect(process.port) as connection:
        connection.sendall(get("/large/24"))
        head = connection.recv(1000)
        process.signal()
        wait_for(lambda: not process.answers(), seconds=2)
        answer = head + read_all(connection)
    assert len(body(answer)) == 24 * MEGABYTE
    assert process.wait() == 0


@on_posix
def test_who_stops_reading_holds_the_end_for_a_moment_only(wsgi, start):
    assert wsgi.STALLED_SECONDS == 5
    process = start(STALLED_SECONDS="0.5")
    with connect(process.port) as connection:
        connection.sendall(get("/large/24"))
        connection.recv(1000)
        process.signal()
        assert process.wait(5) == 0


@on_posix
def test_a_second_ctrl_c_ends_at_once(start):
    process = start()
    with begin(process, "one"):
        process.signal(signal.SIGINT)
        wait_for(lambda: not process.answers(), seconds=3)
        process.signal(signal.SIGINT)
        assert process.wait(3) == 1


@on_posix
def test_signals_under_load_lose_no_answer_that_has_begun(start):
    process = start(THREADS="4")
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(begin(process, f"n{number}")) for number in range(4)]
        crowd = [stack.enter_context(connect(process.port)) for _ in range(50)]
        for connection in crowd:
            connection.sendall(get("/") * 3)
        process.signal()
        wait_for(lambda: not process.answers(), what="the end to begin")
        process.let_go()
        assert [body(read_all(connection)) for connection in connections] == [b"slow but done"] * 4
    assert process.wait() == 0


def test_a_taken_port_is_one_clear_line(start):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        process = start(ready=False, PORT=str(port))
        assert process.wait() == 1
    (line,) = process.text.splitlines()
    assert line.startswith(f"Error: Port {port} is taken by another program.")


def test_a_second_start_on_the_same_data_is_refused_until_the_first_is_gone(start):
    first = start()
    second = start(ready=False)
    assert second.wait() == 1
    assert f"(process {first.popen.pid})" in second.text
    assert "Traceback" not in second.text
    first.popen.kill()
    first.wait()
    assert start().popen.poll() is None


def test_unsound_settings_are_told_without_a_traceback(start):
    process = start(ready=False, THREADS="many", SECRET_KEY="dev")
    assert process.wait() == 1
    assert "FAILED  THREADS: 'many' cannot be used\n        Use a whole number from 2 to 64." in process.text
    assert "FAILED  SECRET_KEY: a key that everybody knows" in process.text
    assert "Traceback" not in process.text


def test_an_old_schema_is_told_with_the_command_to_run(start):
    process = start(ready=False, OLD_SCHEMA="1")
    assert process.wait() == 1
    assert process.text == "Error: The database is older. Run: python -m flask init-db\n"


@on_posix
def test_corkboard_itself_starts_answers_and_stops(start):
    process = start(folder=PROJECT)
    assert status(ask(process.port, get("/healthz", "Connection: close"))) == 200
    trace = get("/", "Connection: close").replace(b"GET", b"TRACE", 1)
    assert status(ask(process.port, trace)) == 405
    assert "setup-link.txt" in process.text
    process.signal()
    assert process.wait() == 0
    assert "Traceback" not in process.text
