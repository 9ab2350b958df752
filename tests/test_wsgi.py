"""The server: what it refuses before the application, how it starts, and how it stops.

Each test speaks through real sockets to a process. Most processes are a copy of wsgi.py and config.py beside a small
application, which can be asked for slow and large answers; some are Corkboard itself.
"""

import contextlib
import errno
import importlib.util
import os
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import click
import pytest
from flask import Flask

import config

PROJECT = Path(config.__file__).parent
MEGABYTE = 1024 * 1024
LIMIT = MEGABYTE + 64 * 1024  # of a request, where MAX_UPLOAD_MB is 1: a form is larger than its file
on_posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGTERM to send")

SMALL_APP = """
import contextlib
import os
import sys
import time
from flask import Flask, request
from config import load

def create_app():
    settings = load()
    settings.require_sound()
    app = Flask("small")
    app.config.from_object(settings)
    folder = app.config["DATA_DIR"]

    def note(text):
        with open(folder / "notes", "a") as file:
            file.write(text + "\\n")

    @app.route("/<path:path>", methods=["GET", "POST"])
    def page(path):
        note(path)
        return f"{len(request.get_data())} bytes for {path}"

    @app.get("/slow/<name>")
    def slow(name):
        note(f"begun {name}")
        end = time.monotonic() + 20
        while not (folder / "go_on").exists() and time.monotonic() < end:
            time.sleep(0.01)
        note(f"ended {name}")
        return "slow but done"

    flask_itself = app.wsgi_app

    def wsgi_app(environ, start_response):
        if environ["PATH_INFO"] == "/broken":
            raise SystemError("on purpose")
        return flask_itself(environ, start_response)

    app.note, app.wsgi_app = note, wsgi_app
    return app

plain_errors = contextlib.nullcontext

def site_address(settings):
    return settings["SITE_URL"] or f"http://{settings['HOST']}:{settings['PORT']}"

def announce_setup(app, terminal):
    return f"set up on a terminal: {terminal}"

def run_jobs(app, stopping):
    if "NOTE_JOBS" in os.environ:
        app.note("jobs")
        stopping.wait()
        app.note("jobs stopped")
"""

SMALL_DATABASE = """
import contextlib
import os
import click

def is_sqlite():
    return True

def lock_data_folder(alone):
    return contextlib.nullcontext()

def ensure_schema(app):
    if os.environ.get("OLD_SCHEMA"):
        raise click.ClickException("The database is older. Run: python -m flask upgrade")

def moving_advice():
    return os.environ.get("ADVICE", "")

def stop_file(app):
    return app.config["DATA_DIR"] / "stop"

def finish_served_stop(app):
    if "NOTE_JOBS" in os.environ:
        app.note("finished")
"""

# Corkboard with one page more, which says what the application believes about a visitor.
CORKBOARD = """
import sys
import wsgi
from app import public
from flask import request

@wsgi.app.get("/visitor")
@public
def visitor():
    return f"{request.remote_addr} {request.scheme} {request.host}"

wsgi.create_app = lambda: wsgi.app
sys.exit(wsgi.main())
"""


# == Helpers ===========================================================================================================


def wait_for(check, seconds=20, what="it"):
    """Ask again and again. Returns what `check` returns once that is true."""
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


def ask(port, raw):
    with connect(port) as connection:
        connection.sendall(raw)
        return read_all(connection)


def get(path, *headers, version="1.1", host="localhost"):
    return "\r\n".join([f"GET {path} HTTP/{version}", f"Host: {host}", *headers, "", ""]).encode()


def post(path, length, *headers):
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *headers, "", ""]
    return "\r\n".join(lines).encode()


def status(answer):
    return int(answer.split(b" ", 2)[1])


def body(answer):
    return answer.partition(b"\r\n\r\n")[2]


class Process:
    """A process that serves: its port, what it printed, and what its application noted."""

    def __init__(self, command, folder, place, stdout, environ):
        settings = set(config.Config({"DATA_DIR": str(place / "probe"), "SECRET_KEY": "x" * 32}).__dict__)
        inherited = {name: value for name, value in os.environ.items() if name not in settings | {"FLASK_DEBUG"}}
        self.data = place / "data"
        self.port = int(environ.get("PORT") or free_port())
        self.printed = place / f"printed-{self.port}-{time.monotonic_ns()}"
        environ = inherited | {"DATA_DIR": str(self.data), "PORT": str(self.port)} | environ
        with open(self.printed, "wb") as file:
            arguments = [sys.executable, *command]
            self.popen = subprocess.Popen(arguments, cwd=folder, env=environ, stdout=stdout or file, stderr=file)

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

    def wait(self, seconds=20):
        return self.popen.wait(seconds)

    def let_go(self):
        """Let the views that have begun come to their end."""
        (self.data / "go_on").touch()

    def end(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(10)


@contextlib.contextmanager
def starting(place):
    """A function that starts processes in that folder, which end with the block."""
    small = place / "site"
    small.mkdir()
    for name in ("wsgi.py", "config.py"):
        shutil.copy(PROJECT / name, small)
    (small / "app.py").write_text(SMALL_APP)
    (small / "database.py").write_text(SMALL_DATABASE)
    processes = []

    def start(ready=True, command=("wsgi.py",), folder=small, stdout=None, **environ):
        process = Process(command, folder, place, stdout, environ)
        processes.append(process)
        if ready:
            process.wait_until_ready()
        return process

    try:
        yield start
    finally:
        for process in processes:
            process.end()


@pytest.fixture
def start(tmp_path):
    """Starts the small application, with these settings: start(THREADS="2")."""
    with starting(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The small application, served for all tests that leave it as it is."""
    with starting(tmp_path_factory.mktemp("site")) as start:
        yield start(MAX_UPLOAD_MB="1", THREADS="2")


@pytest.fixture(scope="module")
def corkboard(tmp_path_factory):
    """Starts Corkboard itself, with a page that says what it believes about a visitor."""
    with contextlib.ExitStack() as stack:

        def serve(**settings):
            start = stack.enter_context(starting(tmp_path_factory.mktemp("corkboard")))
            return start(command=("-c", CORKBOARD), folder=PROJECT, **settings)

        yield serve


@pytest.fixture(scope="module")
def wsgi():
    """The module, loaded beside the small application: its own `app` is not what is tested here."""
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


# == Requests ==========================================================================================================


def test_a_plain_request_is_answered_without_naming_the_server(site):
    answer = ask(site.port, get("/page", "Connection: close"))
    assert status(answer) == 200
    assert b"\r\nServer:" not in answer
    assert body(answer) == b"0 bytes for page"


def test_a_connection_is_kept_for_the_next_request(site):
    answers = ask(site.port, get("/one") + get("/two", "Connection: close"))
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert site.notes[-2:] == ["one", "two"]


def test_http_1_0_is_served(site):
    assert status(ask(site.port, get("/page", version="1.0"))) == 200


def test_a_chunked_body_reaches_the_view(site):
    head = b"POST /page HTTP/1.1\r\nHost: board\r\nTransfer-Encoding: Chunked \r\nConnection: close\r\n\r\n"
    answer = ask(site.port, head + b"5\r\nhello\r\n0\r\n\r\n")
    assert body(answer) == b"5 bytes for page"


def test_a_body_that_waits_to_be_asked_for_is_asked_for(site):
    with connect(site.port) as connection:
        connection.sendall(post("/page", 5, "Expect: 100-continue", "Connection: close"))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert status(read_all(connection)) == 200


def test_a_view_that_fails_outside_flask_is_answered_plainly(site):
    answer = ask(site.port, get("/broken"))
    assert status(answer) == 500
    assert b"on purpose" not in answer
    assert status(ask(site.port, get("/page", "Connection: close"))) == 200


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


def assert_refused(site, raw, codes=(400,)):
    """Whether a request is refused, and nothing that follows it on the connection reaches a view."""
    before = site.notes
    answer = ask(site.port, raw)
    assert status(answer) in codes
    assert answer.count(b"HTTP/1.") == 1
    assert b"\r\nConnection: close\r\n" in answer
    assert site.notes == before


@pytest.mark.parametrize("headers", UNCLEAR.values(), ids=UNCLEAR)
def test_an_unclear_request_is_refused_and_nothing_after_it_is_read(site, headers):
    raw = b"POST /first HTTP/1.1\r\n" + headers + b"\r\n" + get("/smuggled")
    assert_refused(site, raw, (400, 501))


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
def test_an_old_or_broken_request_line_opens_no_way_around(site, raw):
    assert_refused(site, raw)


def test_a_refused_request_is_not_asked_for_its_body(site):
    headers = HOST + CHUNKED + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    assert_refused(site, b"POST /first HTTP/1.1\r\n" + headers)


def test_headers_that_never_end_are_refused(site):
    begun = b"GET /first HTTP/1.1\r\n" + HOST + b"X: "
    assert_refused(site, begun + b"y" * (32 * 1024 - len(begun)), (431,))


@pytest.mark.parametrize(
    "sent",
    [
        b"5;" + b"x" * 20_000,
        b"5;" + b"x" * 1100 + b"\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: " + b"y" * 40_000,
        b"5\r\nhello\r\n0\r\nX: " + b"y" * 17_000 + b"\r\n\r\n",
    ],
    ids=["a chunk's line", "a long one that ends", "a trailer", "a long one that ends, too"],
)
def test_a_chunked_body_with_endless_lines_is_refused(site, sent):
    with connect(site.port) as connection:
        connection.sendall(b"POST /first HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n" + sent)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert "first" not in site.notes


# == Bodies that are too large =========================================================================================


def test_a_body_at_the_limit_is_taken(site):
    answer = ask(site.port, post("/page", MEGABYTE, "Connection: close") + b"x" * MEGABYTE)
    assert body(answer) == b"1048576 bytes for page"


@pytest.mark.parametrize("expect", [[], ["Expect: 100-continue"]])
def test_a_body_of_twice_the_limit_is_refused_by_its_length_alone(site, expect):
    answer = ask(site.port, post("/upload", 2 * LIMIT, *expect))
    assert status(answer) == 413
    assert "upload" not in site.notes


def test_a_chunked_body_of_twice_the_limit_is_refused(site):
    head = b"POST /upload HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n"
    with connect(site.port) as connection:
        connection.sendall(head + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 35)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
    assert "upload" not in site.notes


@on_posix
def test_a_body_above_the_limit_is_answered_by_a_page_of_the_site(corkboard):
    answer = ask(
        corkboard(MAX_UPLOAD_MB="1").port,
        post("/login", LIMIT + 1, "Connection: close", "Content-Type: application/x-www-form-urlencoded")
        + b"x" * (LIMIT + 1),
    )
    assert status(answer) == 413
    assert b"Content-Security-Policy: default-src 'self'" in answer
    assert b"larger than this site" in body(answer)


# == Proxies and crowds ================================================================================================

FORWARDED = [
    "X-Forwarded-For: 203.0.113.9",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: public",
    "Connection: close",
]


@on_posix
@pytest.mark.parametrize(
    ("settings", "believed"),
    [
        ({"TRUSTED_PROXY": "127.0.0.1", "SITE_URL": "https://public"}, b"203.0.113.9 https public"),
        ({"TRUSTED_PROXY": "10.0.0.1", "SITE_URL": "https://public"}, b"127.0.0.1 http localhost"),
        ({}, b"127.0.0.1 http localhost"),
    ],
    ids=["the proxy", "not the proxy", "no proxy"],
)
def test_only_the_trusted_proxy_is_believed(corkboard, settings, believed):
    assert body(ask(corkboard(**settings).port, get("/visitor", *FORWARDED))) == believed


def test_many_slow_connections_leave_room_for_the_rest(site):
    """With Waitress's own limit of 100 connections these would be all it serves."""
    with contextlib.ExitStack() as crowd:
        for _ in range(200):
            connection = crowd.enter_context(connect(site.port))
            connection.sendall(b"GET /drip HTTP/1.1\r\nHost: bo")
        for _ in range(10):
            assert status(ask(site.port, get("/page", "Connection: close"))) == 200
    assert "drip" not in site.notes


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


# == `python wsgi.py`, started as a process ============================================================================


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
def test_the_served_process_runs_the_jobs_until_it_ends(start):
    process = start(NOTE_JOBS="yes")
    wait_for(lambda: process.notes == ["jobs"])
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert process.notes == ["jobs", "jobs stopped", "finished"]


@on_posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_connections_and_half_sent_requests_do_not_hold_the_end(start, number):
    process = start()
    with contextlib.ExitStack() as stack:
        idle, half = (stack.enter_context(connect(process.port)) for _ in range(2))
        idle.sendall(get("/page"))
        assert idle.recv(1000)
        half.sendall(b"GET / HTTP/1.1\r\nHo")
        process.signal(number)
        assert process.wait() == 0
    assert process.notes == ["page"]
    assert "Traceback" not in process.text


@on_posix
def test_a_view_that_has_begun_gets_longer_than_the_five_seconds_of_waitress(start):
    process = start()
    with begin(process, "one") as connection:
        process.signal()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(6)
        process.let_go()
        answer = read_all(connection)
    assert body(answer) == b"slow but done"
    assert process.wait() == 0
    assert process.notes == ["begun one", "ended one"]


@on_posix
def test_requests_that_wait_for_a_thread_do_not_hold_the_end(start):
    process = start(THREADS="2")
    one, two = (begin(process, name, "Connection: close") for name in ("one", "two"))
    with one, two, connect(process.port) as waiting:
        waiting.sendall(get("/slow/three"))
        process.signal()
        wait_for(lambda: not process.answers())
        process.let_go()
        assert {body(read_all(one)), body(read_all(two))} == {b"slow but done"}
        assert process.wait() == 0
        with contextlib.suppress(ConnectionResetError):  # the server may not even have read it
            assert read_all(waiting) == b""
    assert "begun three" not in process.notes


@on_posix
def test_while_it_stops_nobody_new_is_let_in(start):
    process = start()
    with begin(process, "one", "Connection: close") as connection:
        process.signal()
        wait_for(lambda: not process.answers())
        assert process.popen.poll() is None
        process.let_go()
        assert status(read_all(connection)) == 200
    assert process.wait() == 0


@on_posix
def test_a_second_ctrl_c_ends_at_once(start):
    process = start()
    with begin(process, "one"):
        process.signal(signal.SIGINT)
        wait_for(lambda: not process.answers())
        process.signal(signal.SIGINT)
        assert process.wait() == 1
    assert "ended one" not in process.notes


@on_posix
def test_a_signal_under_load_loses_no_answer_that_has_begun(start):
    process = start(THREADS="4")
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(begin(process, f"n{number}", "Connection: close")) for number in range(4)]
        crowd = [stack.enter_context(connect(process.port)) for _ in range(50)]
        for connection in crowd:
            connection.sendall(get("/page") * 3)
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
    first = start(folder=PROJECT)
    second = start(ready=False, folder=PROJECT)
    assert second.wait() == 1
    assert f"(process {first.popen.pid})" in second.text
    assert "Traceback" not in second.text
    first.popen.kill()
    first.wait()
    assert start(folder=PROJECT).popen.poll() is None


def test_unsound_settings_are_told_without_a_traceback(start):
    process = start(ready=False, THREADS="many", SECRET_KEY="dev")
    assert process.wait() == 1
    assert "FAILED  THREADS: 'many' cannot be used\n        Use a whole number from 2 to 64." in process.text
    assert "FAILED  SECRET_KEY: a key that is publicly known" in process.text
    assert "Traceback" not in process.text


def test_an_old_schema_is_told_with_the_command_to_run(start):
    process = start(ready=False, OLD_SCHEMA="1")
    assert process.wait() == 1
    assert process.text == "Error: The database is older. Run: python -m flask upgrade\n"


def test_people_who_were_left_in_another_database_are_told(start):
    assert "There are people in corkboard.db" in wait_for(lambda: start(ADVICE="There are people in corkboard.db").text)


@on_posix
def test_after_a_clean_stop_a_copy_of_the_database_file_alone_is_whole(start, tmp_path):
    process = start(folder=PROJECT)
    assert status(ask(process.port, get("/login", "Connection: close"))) == 200
    process.signal()
    assert process.wait() == 0
    shutil.copy(process.data / "corkboard.db", tmp_path / "copy.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        kept = {name for (name,) in copy.execute("SELECT name FROM settings")}
    assert kept >= {"setup_token", "site_id"}


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


def test_the_stop_command_lets_the_site_end_as_a_signal_does(start):
    process = start(folder=PROJECT)
    command = [sys.executable, "-m", "flask", "stop"]
    environ = {**os.environ, "DATA_DIR": str(process.data)}
    done = subprocess.run(command, cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=90, check=True)
    assert done.stdout == "Corkboard is stopped.\n"
    assert process.wait() == 0
    assert not (process.data / "corkboard.db-wal").exists()
    assert not (process.data / "stop").exists()
