"""`app` for any WSGI server. Run as a script (`python wsgi.py`), this file serves Corkboard through Waitress.

Contents: 1 the start, 2 the address, 3 ambiguous requests, 4 serving and stopping, 5 jobs.
"""

import _thread
import errno
import logging
import re
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import click
from flask import Flask
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import create_server
from waitress.utilities import BadRequest

import database
from app import announce_setup, create_app, plain_errors, run_jobs
from config import site_address

log = logging.getLogger("corkboard")

# == 1. The start ======================================================================================================


def main() -> int:
    """Serve until asked to stop. Returns the exit code. What prevents the start is printed without a traceback."""
    try:
        with plain_errors():
            start()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:  # during the start; after that Ctrl+C has a handler
        return 130
    return 0


def start() -> None:
    app = create_app()
    with app.app_context():
        lock_file = database.lock_data_folder(alone=database.is_sqlite())  # on MySQL, several processes can serve
    with lock_file:
        database.ensure_schema(app)
        with listen(app.config["HOST"], app.config["PORT"]) as listener:
            print_lines(*greeting(app))
            serve(app, listener)
        database.finish_served_stop(app)


def greeting(app: Flask) -> list[str]:
    """Return the lines that the start prints: where the site is, how to set it up, and how to stop it."""
    settings, terminal = app.config, is_terminal()
    lines = [f"Corkboard is running at {site_address(settings)}"]
    if settings["SITE_URL"]:
        lines.append(f"It listens on {settings['HOST']}, port {settings['PORT']}.")
    with app.app_context():
        advice = database.moving_advice()
    lines += filter(None, [advice, announce_setup(app, terminal)])
    return [*lines, "To stop it, press Ctrl+C."] if terminal else lines


def is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()  # None under pythonw, which has no console


def print_lines(*lines: str) -> None:
    with suppress(OSError):  # the site serves even if the terminal is closed
        print(*lines, sep="\n", flush=True)


# == 2. The address ====================================================================================================


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises a `ClickException` that says what to change."""
    try:
        # A name can have addresses of both kinds. IPv4 is preferred, because browsers expect localhost there.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise click.ClickException(address_trouble(error, host, port)) from error
    try:
        claim(listener)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise click.ClickException(address_trouble(error, host, port)) from error
    return listener


def claim(listener: socket.socket) -> None:
    """Keep other programs from this address, and let the next start use it at once."""
    # On Windows SO_REUSEADDR would let any program share the address. SO_EXCLUSIVEADDRUSE exists only there.
    exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR if exclusive is None else exclusive, 1)
    if listener.family == socket.AF_INET6:
        # Otherwise IPv4 visitors would appear as ::ffff:1.2.3.4, which equals no TRUSTED_PROXY.
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def address_trouble(error: OSError, host: str, port: int) -> str:
    refused = error.errno == errno.EACCES
    if error.errno == errno.EADDRINUSE or (refused and hasattr(socket, "SO_EXCLUSIVEADDRUSE")):
        other = port + 1 if port < 65535 else port - 1
        return f"Port {port} is taken by another program. Stop that program, or set PORT={other} and start again."
    if refused:
        return f"This account may not use port {port}. Set PORT to a number above 1023, such as PORT=8000."
    return f"This computer has no address {host}. Set HOST=127.0.0.1, or HOST=0.0.0.0 to open it to the network."


# == 3. Ambiguous requests =============================================================================================

TRANSFER_ENCODING = re.compile(rb"^transfer-encoding:[ \t]*([^\r]*)", re.IGNORECASE | re.MULTILINE)
CHUNK_LINE_MAX, TRAILER_MAX = 1024, 16 * 1024  # bytes; Waitress itself has no limit


class RequestParser(HTTPRequestParser):
    """Refuses requests that a proxy and Waitress could read differently (request smuggling).

    Waitress rewrites such headers, so the application could not see that anything was wrong.
    """

    body_rcv: Any  # the published type has no receivers

    def received(self, data: bytes) -> int:
        # In pieces, or else a long line that arrives at once would never be seen unfinished.
        consumed = super().received(data[:CHUNK_LINE_MAX] if self.chunked else data)
        body = self.body_rcv
        if self.chunked and (len(body.control_line) >= CHUNK_LINE_MAX or len(body.trailer) > TRAILER_MAX):
            self.error = BadRequest("a line of a chunked body is too long")
            self.completed = True
        if self.error:
            self.expect_continue = False  # otherwise Waitress would ask for the body of a refused request
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        if self.header_bytes_received >= self.adj.max_request_header_size:
            return  # Waitress has refused it, and has parsed a line of its own instead
        host = self.headers.get("HOST", "")
        if not host or "," in host:  # Waitress joins repeated headers with a comma
            raise ParsingError("exactly one Host header is needed")
        encodings = TRANSFER_ENCODING.findall(header_plus)
        if encodings and not self._is_plainly_chunked(encodings):
            raise ParsingError("the length of the body is unclear")

    def _is_plainly_chunked(self, encodings: list[bytes]) -> bool:
        once = len(encodings) == 1 and encodings[0].strip(b" \t").lower() == b"chunked"
        return once and self.version == "1.1" and "CONTENT_LENGTH" not in self.headers


class Channel(HTTPChannel):
    parser_class = RequestParser


# == 4. Serving and stopping ===========================================================================================

GRACE_SECONDS = 25  # for requests that a thread is working on
OPEN_FILES = 4096


def serve(app: Flask, listener: socket.socket) -> None:
    """Serve until a signal asks to stop. Then wait for the requests that a thread is working on."""
    allow_open_files()
    # Waitress logs one line for every request that waits for a thread.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server: Any = create_server(app, sockets=[listener], **options(app.config))
    server.channel_class = Channel
    jobs = JobRunner(app)
    stop_on_signals(listener)
    stop_on_request(database.stop_file(app))
    try:
        jobs.start()
        server.run()  # which ends by waiting five seconds for its threads
        server.task_dispatcher.shutdown(timeout=GRACE_SECONDS)
    finally:
        jobs.stop()


def stop_on_signals(listener: socket.socket) -> None:
    """Stop at SIGINT, SIGTERM and, on Windows, SIGBREAK. A second signal ends the process at once."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        listener.close()
        raise SystemExit(1)  # `server.run` catches the first one

    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)


def stop_on_request(path: Path) -> None:
    """Stop as at a signal once `python -m flask stop` has written its file. A service of Windows gets no signal."""

    def watch() -> None:
        while not path.exists():
            time.sleep(0.5)
        _thread.interrupt_main(signal.SIGTERM)  # which the main thread notices within a second

    path.unlink(missing_ok=True)
    threading.Thread(target=watch, name="stop", daemon=True).start()


def options(settings: dict[str, Any]) -> dict[str, Any]:
    """Return Waitress's options. `create_app` deals with proxies, so Waitress passes their headers on."""
    return {
        "threads": settings["THREADS"],
        "ident": None,
        "clear_untrusted_proxy_headers": False,
        # The application answers 413 with a page. Waitress does not read a body beyond twice that limit.
        "max_request_body_size": 2 * settings["MAX_CONTENT_LENGTH"],
        "max_request_header_size": 32 * 1024,  # searched from its beginning whenever a piece of it arrives
        "inbuf_overflow": 512 * 1024,  # larger bodies go to a file
        "asyncore_use_poll": True,
        # Without poll, Waitress uses select, which fails above 512 sockets on Windows.
        "connection_limit": 1000 if hasattr(select, "poll") else 400,
        "channel_timeout": 20,
        "cleanup_interval": 5,
        "channel_request_lookahead": 0,
    }


def allow_open_files() -> None:
    """Raise this process's limit of open files as far as the system allows. Each connection takes one."""
    with suppress(ImportError, OSError, ValueError):  # Windows has no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        if soft < allowed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


# == 5. Jobs ===========================================================================================================

JOB_GRACE_SECONDS = 5


class JobRunner:
    """The thread that runs the jobs of app.py as they become due."""

    def __init__(self, app: Flask) -> None:
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=run_jobs, args=(app, self.stopping), name="jobs", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """Wait a few seconds for a running job. One that takes longer is abandoned, and its lease expires."""
        self.stopping.set()
        self.thread.join(timeout=JOB_GRACE_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
else:
    app = create_app()
