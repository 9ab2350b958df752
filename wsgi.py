"""`app` for any WSGI server; run as a script (`python wsgi.py`), Corkboard serves itself through Waitress.

Contents: 1 the start, 2 one server for each data folder, 3 the address, 4 what is refused before the application,
5 serving and stopping. Waitress is used by its inner parts in 4 and 5, because from outside it cannot refuse an
ambiguous request, nor wait longer than five seconds for one in hand, nor leave idle connections alone;
tests/test_wsgi.py watches each of these places.
"""

# ruff: noqa: E402
import gc

gc.disable()  # while all this is read: nothing of it is garbage, and looking for some is a tenth of a start
import errno
import logging
import os
import re
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

import click
from flask import Flask
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import create_server
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask
from waitress.utilities import Error

import database
from app import announce_setup, create_app, site_address, start_background, start_jobs, stop_background

# == 1. The start ======================================================================================================


def main() -> int:
    """Serve until asked to stop. Whatever prevents the start is told in plain words, without a traceback."""
    try:
        start()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:  # before the site was up; from then on Ctrl+C has a handler
        return 130
    return 0


def start() -> None:
    share_heaps()
    app = create_app()
    held = lock_data_folder(app.config["DATA_DIR"]) if is_on_sqlite(app) else None
    try:
        database.prepare_served_start(app)
        with listen(app.config["HOST"], app.config["PORT"]) as listener:
            terminal = is_terminal()
            setup = announce_setup(app, terminal)
            start_background(app)
            stop = "To stop it, press Ctrl+C." if terminal else ""
            tell(*where_it_runs(app.config), *filter(None, [setup, stop]))
            start_jobs(app)
            settle_memory()
            settle_threads()
            serve(app, listener)
    finally:
        stop_background(app)
        if held:
            held.close()


M_ARENA_MAX = -8  # as malloc.h has it


def share_heaps() -> None:
    """Have glibc keep two heaps instead of up to eight for each core (mallopt(3)), before there are threads.

    Only one of Python's threads works at a time, so they need not wait for one another; and each heap keeps for itself
    what is free in it: 6 of 109 MB after load.
    """
    with suppress(AttributeError, OSError, TypeError):  # other systems and C libraries
        import ctypes

        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def settle_memory() -> None:
    """Spare the garbage collector what the start has made and the process keeps: a tenth of what a page costs."""
    gc.collect()
    gc.freeze()
    gc.enable()


def settle_threads() -> None:
    """Tell Linux that a thread which wakes up need not interrupt the one at work (sched(7), SCHED_BATCH).

    Python's threads wake one another at each call of SQLite, only to find the interpreter taken again: of the ten
    switches between threads that a comment takes on one core, six are that, and a sixth of its time.
    """
    with suppress(AttributeError, OSError):  # other systems, and containers that do not allow it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()  # None under pythonw, where there is no console at all


def tell(*lines: str) -> None:
    with suppress(OSError):  # the terminal may be gone, and the site goes on
        print(*lines, sep="\n", flush=True)


def where_it_runs(settings: dict[str, Any]) -> list[str]:
    lines = [f"Corkboard is running at {site_address(settings)}"]
    return [*lines, f"It listens on {settings['HOST']}, port {settings['PORT']}."] if settings["SITE_URL"] else lines


# == 2. One server for each data folder ================================================================================

# On Windows nobody else can read what is locked, so the locked byte lies far behind the number that they shall read.
LOCKED_BYTE = 1 << 20


def is_on_sqlite(app: Flask) -> bool:
    return app.config["DATABASE_URL"].startswith("sqlite") and ":memory:" not in app.config["DATABASE_URL"]


def lock_data_folder(folder: Path) -> IO[str]:
    """Hold `serve.lock` as long as the returned file is open. The system lets go of it however the process ends."""
    path = folder / "serve.lock"
    try:
        file = open(path, "a+", encoding="ascii")  # noqa: SIM115
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written to ({error.strerror}). Who owns it?") from error
    if not lock(file):
        file.seek(0)
        pid = file.read(20).strip()
        file.close()
        raise click.ClickException(
            f"Corkboard already serves the data folder {folder} ({f'process {pid}' if pid else 'another process'}). "
            "Use that one, or stop it first; for a second site set DATA_DIR to another folder."
        )
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def lock(file: IO[str]) -> bool:
    try:
        import fcntl
    except ImportError:
        return lock_on_windows(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_on_windows(file: IO[str]) -> bool:
    import msvcrt

    os.lseek(file.fileno(), LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    except OSError:
        return False
    return True


# == 3. The address ====================================================================================================


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, or a plain word about what to change."""
    try:
        # IPv4 comes first where a name has both, because it is what 127.0.0.1 in the browser means.
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
    """Make sure that nobody else listens at our address, and that we may take it up again at once after a stop."""
    # SO_REUSEADDR does the second on Linux; on Windows it would let any program share the address and take requests.
    exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR if exclusive is None else exclusive, 1)
    if listener.family == socket.AF_INET6:
        # Otherwise IPv4 visitors would show up as ::ffff:1.2.3.4, which no TRUSTED_PROXY is equal to.
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def address_trouble(error: OSError, host: str, port: int) -> str:
    refused = error.errno == errno.EACCES
    if error.errno == errno.EADDRINUSE or (refused and hasattr(socket, "SO_EXCLUSIVEADDRUSE")):
        other = port + 1 if port < 65535 else port - 1
        return f"Port {port} is taken by another program. Stop that program, or set PORT={other} and start again."
    if refused:
        return f"This account may not use port {port}. Set PORT to a number above 1023, such as PORT=8000."
    return f"This computer has no address {host}. Set HOST=127.0.0.1, or HOST=0.0.0.0 to open it to the network."


# == 4. What is refused before the application =========================================================================

TRANSFER_ENCODING = re.compile(rb"^transfer-encoding:[ \t]*([^\r]*)", re.IGNORECASE | re.MULTILINE)
SPARE_DISK = 64 * 1024 * 1024
REFUSALS = {
    400: ("Bad request", "The server could not make sense of this request."),
    413: ("Too large", "This is larger than this site accepts. Go back, and choose a smaller file."),
    431: ("Bad request", "The browser sent too many cookies or too long an address."),
    500: ("Something went wrong", "Please try again in a moment."),
    501: ("Bad request", "The server does not know this way of sending a request."),
    507: ("No space left", "The disk of the server is full. Please tell the person who looks after this site."),
}


class NoSpaceLeft(Error):
    code = 507
    reason = "Insufficient Storage"


class RequestParser(HTTPRequestParser):
    """Refuses a request that two programs could read as two different ones, and a body that has no room on the disk.

    Waitress tidies such headers up, so the application would not see that anything was wrong with them.
    """

    spool_folders: tuple[Path, ...] = ()

    def received(self, data: bytes) -> int:
        consumed = super().received(data)
        if self.error:
            self.expect_continue = False  # otherwise Waitress asks for the body of what it refuses
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        if self.header_bytes_received >= self.adj.max_request_header_size:
            return  # refused already; what was parsed is a line that Waitress puts in its place
        self._refuse_unclear_host()
        self._refuse_unclear_length(TRANSFER_ENCODING.findall(header_plus))
        self._refuse_without_space()

    def _refuse_unclear_host(self) -> None:
        host = self.headers.get("HOST", "")
        if not host or "," in host:  # a header that comes twice arrives here joined by a comma
            raise ParsingError("exactly one Host header is needed")

    def _refuse_unclear_length(self, encodings: list[bytes]) -> None:
        if not encodings:
            return
        plain = len(encodings) == 1 and encodings[0].strip(b" \t").lower() == b"chunked"
        if not plain or self.version != "1.1" or "CONTENT_LENGTH" in self.headers:
            raise ParsingError("the length of the body is unclear")

    def _refuse_without_space(self) -> None:
        """A small body stays in memory; a chunked one may become as large as any."""
        limit = self.adj.max_request_body_size
        length = limit if self.chunked else self.content_length
        too_large = self.content_length >= limit  # Waitress answers that with 413 by itself
        if length < self.adj.inbuf_overflow or too_large or has_space(self.spool_folders, length):
            return
        self.error = NoSpaceLeft("")
        self.completed = True


def has_space(folders: tuple[Path, ...], length: int) -> bool:
    try:
        return all(shutil.disk_usage(folder).free >= length + SPARE_DISK for folder in folders)
    except OSError:
        return False


class RefusalTask(ErrorTask):
    """Answers what never reaches the application, and closes the connection."""

    def execute(self) -> None:
        request: Any = self.request  # its published type is too narrow
        error = request.error
        title, text = REFUSALS.get(error.code, REFUSALS[400])
        body = f'<!doctype html><html lang="en"><title>{title}</title><h1>{title}</h1><p>{text}</p></html>\n'.encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
        ]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class PageTask(WSGITask):
    """Calls the application; sends a page and its headers by one call of the system instead of two."""

    def set_close_on_finish(self) -> None:
        """Keep a connection after an answer without content, which ends with its headers (RFC 9112, 6.3).

        Waitress closes it after whatever tells no length: after each file that a browser has already (304).
        """
        request: Any = self.request
        ends_there = not self.has_body and self.version == "1.1"
        if not ends_there or request.headers.get("CONNECTION", "").lower() == "close":
            super().set_close_on_finish()

    def write(self, data: bytes) -> None:
        whole = self.complete and not self.wrote_header and self.content_length == len(data) and self.has_body
        if not whole or not data:
            super().write(data)
            return
        self.wrote_header = True
        self.content_bytes_written = len(data)
        self.channel.write_soon(self.build_response_header() + data)


class Channel(HTTPChannel):
    """A connection.

    After a refusal the rest of what the browser sends is read and thrown away. Closing at once would reset the
    connection, and the browser, still sending, would show that instead of the answer. Nothing that is thrown away
    counts as activity, so this ends with `channel_timeout`.
    """

    task_class = PageTask
    error_task_class = RefusalTask
    loop: "Loop"
    requests: Any = ()  # while it is made, and another thread may look at it
    _fileno: int
    refused = False
    draining = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loop.changed(self._fileno)

    def del_channel(self, map: Any = None) -> None:
        fd = self._fileno
        super().del_channel(map)
        self.loop.closed(fd)

    def may_write(self) -> bool:
        """Whether the request whose turn it is could change something (RFC 9110, 9.2.1)."""
        asked = self.requests[0] if self.requests else None
        return asked is not None and not asked.error and asked.command not in ("GET", "HEAD", "OPTIONS")

    def service(self) -> None:
        self.refused = bool(self.requests[0].error)
        self.loop.serving.fd = self._fileno
        if not self.may_write():
            super().service()
            return
        self.loop.writing.add(self)
        try:
            super().service()
        finally:
            self.loop.writing.discard(self)

    def readable(self) -> bool:
        return self.draining or super().readable()

    def writable(self) -> bool:
        """Not while a thread is sending, where everybody is asked at each turn: the loop could do nothing but turn.

        That thread wakes the loop afterwards, whatever it could send.
        """
        waits = bool(super().writable())
        if not waits or not self.loop.asks_everybody:
            return waits
        if not self.outbuf_lock.acquire(blocking=False):
            return False
        self.outbuf_lock.release()
        return True

    def handle_read(self) -> None:
        if self.draining:
            self.recv(self.adj.recv_bytes)
        else:
            super().handle_read()

    def handle_write(self) -> None:
        answered = self.refused and self.close_when_flushed and not self.total_outbufs_len
        if answered and not self.draining and not self.will_close:
            self._start_draining()
        else:
            super().handle_write()

    def _start_draining(self) -> None:
        self.draining, self.close_when_flushed = True, False
        connection: Any = self.socket
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            self.handle_close()

    def has_stalled(self, seconds: float) -> bool:
        """Whether an answer waits of which the other side has taken nothing for so long."""
        if not self.outbuf_lock.acquire(blocking=False):
            return False  # something is being written just now
        try:
            return self.total_outbufs_len > 0 and self.last_activity < time.time() - seconds
        finally:
            self.outbuf_lock.release()

    def close_after_output(self) -> None:
        """Take nothing more from this connection, and close it as soon as the answers that are ready have left."""
        with self.requests_lock:  # pyright: ignore[reportAttributeAccessIssue] (missing in its published type)
            for request in self.requests:
                request.close()
            self.requests = []
            self.close_when_flushed = True


def channel_for(data_dir: Path, loop: "Loop") -> type[Channel]:
    class Parser(RequestParser):
        spool_folders = (Path(tempfile.gettempdir()), data_dir)

    class ServedChannel(Channel):
        parser_class = Parser

    ServedChannel.loop = loop
    return ServedChannel


# == 5. Serving and stopping ===========================================================================================

GRACE_SECONDS = 30  # for the views in hand at the end
STALLED_SECONDS = 5  # for a reader who takes nothing, at the end
SILENT_SECONDS = 20  # for a connection that sends or takes nothing, while serving
CHECK_SECONDS = 5
OPEN_FILES = 4096


def serve(app: Flask, listener: socket.socket) -> None:
    server = Server(app, listener)

    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):  # the last is Ctrl+Break, and on Windows only
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), server.stop)
    left = server.run()
    if left:
        tell(f"Stopped after {GRACE_SECONDS} seconds, with {left} unfinished.")


class Loop:
    """wasyncore's loop over the sockets of the server, which asks each at each turn what it waits for."""

    asks_everybody = True

    def __init__(self, server: Any, sockets: dict[int, Any]) -> None:
        self.server, self.sockets = server, sockets
        self.serving = threading.local()  # the connection that a thread is at work for
        self.writing: set[Channel] = set()  # those that threads are at work for and that may change something

    def turn(self, seconds: float) -> None:
        """Do what there is to do, or wait for it."""
        wasyncore.loop(timeout=seconds, map=self.sockets, use_poll=True, count=1)

    def changed(self, fd: int) -> None:
        """Hear that a connection may wait for something else now."""

    def closed(self, fd: int) -> None:
        """Hear that a connection is no more among the sockets, and about to be closed."""


class EpollLoop(Loop):
    """The same by epoll(7): whoever changes what a connection waits for says so, from whatever thread.

    So a turn costs what happens in it and not what is open: with a hundred people's browsers keeping two connections
    each, a page takes a fifth less. And a thread that has sent its answer need not wake the loop for that.
    """

    asks_everybody = False

    def __init__(self, server: Any, sockets: dict[int, Any]) -> None:
        super().__init__(server, sockets)
        self.epoll = select.epoll()
        self.known: dict[int, int] = {}  # what is waited for
        self.lock = threading.Lock()
        self.listener: int = server._fileno
        self.cleanup: float = 0  # the next time that idle ones were to be looked for, when it was last asked
        self._look_at_all()
        server.pull_trigger = self.attend

    def attend(self) -> None:
        """Have the connection looked at that this thread serves; one that serves none wakes the loop."""
        fd = getattr(self.serving, "fd", None)
        if fd is None:
            self.server.trigger.pull_trigger()
        else:
            self.changed(fd)

    def turn(self, seconds: float) -> None:
        self.changed(self.listener)  # it waits for nobody while there are too many
        if self.cleanup != self.server.next_channel_cleanup:  # being asked, it has marked those that it wants closed
            self.cleanup = self.server.next_channel_cleanup
            self._look_at_all()
        for fd, events in self.epoll.poll(seconds):
            found = self.sockets.get(fd)
            if found is not None:
                wasyncore.readwrite(found, events)
                self.changed(fd)

    def changed(self, fd: int) -> None:
        with self.lock:  # what is found under it is newer than what any other thread has found before
            found = self.sockets.get(fd)
            if found is None:
                return
            events = select.EPOLLIN | select.EPOLLPRI if found.readable() else 0
            if found.writable() and not found.accepting:
                events |= select.EPOLLOUT
            self._wait_for(fd, events)

    def closed(self, fd: int) -> None:
        with self.lock:
            if fd not in self.sockets:  # else it is the number of another by now
                self._wait_for(fd, 0)

    def _look_at_all(self) -> None:
        for fd in list(self.sockets):
            self.changed(fd)

    def _wait_for(self, fd: int, events: int) -> None:
        """Watched for nothing, a connection that was broken off would still wake the loop, again and again."""
        before = self.known.get(fd, 0)
        if not events and before:
            self.epoll.unregister(fd)
        elif events and not before:
            self.epoll.register(fd, events)
        elif events != before:
            self.epoll.modify(fd, events)
        if events:
            self.known[fd] = events
        else:
            self.known.pop(fd, None)


class Server:
    """Waitress with limits of our own, and with an end that waits for what is in hand."""

    def __init__(self, app: Flask, listener: socket.socket):
        # One line in the log for every request that had to wait would only add to the load.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self.sockets: dict[int, Any] = {}
        self.dispatcher = ThreadedTaskDispatcher()
        self.dispatcher.set_thread_count(app.config["THREADS"])
        self.waitress: Any = create_server(
            app, map=self.sockets, sockets=[listener], _dispatcher=self.dispatcher, **options(app.config)
        )
        self.loop = (EpollLoop if hasattr(select, "epoll") else Loop)(self.waitress, self.sockets)
        self.waitress.channel_class = channel_for(app.config["DATA_DIR"], self.loop)
        self.stopping = False

    def run(self) -> int:
        """Serve until `stop`; then the same as `finish`."""
        next_check = 0.0
        while not self.stopping:
            self.loop.turn(seconds=1)
            if time.monotonic() > next_check:
                self._close_stalled(SILENT_SECONDS)
                next_check = time.monotonic() + CHECK_SECONDS
        return self.finish()

    def writers(self) -> int:
        """How many requests that may change something threads are at work for, or could be."""
        queue: Any = self.dispatcher.queue  # its published type is too narrow
        with self.dispatcher.lock:
            waiting = sum(channel.may_write() for channel in queue)
        return min(len(self.loop.writing) + waiting, len(self.dispatcher.threads))

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Ask the loop to end: the handler of signals. Asked again, the process ends at once."""
        if self.stopping:
            raise SystemExit(1)
        # Nothing is raised here: in the middle of taking a request up, that would lose it.
        self.stopping = True  # before the loop wakes up: from another thread it would see nothing, and sleep on
        with suppress(OSError):  # asked from another thread, the loop may have ended by now
            self.waitress.trigger.pull_trigger()

    def finish(self, seconds: float = GRACE_SECONDS) -> int:
        """Listen no more; let the views that have begun end and their answers leave. How many could not is returned."""
        wasyncore.dispatcher.close(self.waitress)  # the listening socket only: what is in hand goes on
        self.dispatcher.set_thread_count(0)
        end = time.monotonic() + seconds
        while (self.dispatcher.threads or self.waitress.active_channels) and time.monotonic() < end:
            self._let_go()
            self._close_stalled(STALLED_SECONDS)
            Loop.turn(self.loop, seconds=0.02)
        left = len(self.dispatcher.threads)
        if not left:  # a thread that is left would wake the loop through a number that may mean another file by then
            wasyncore.close_all(self.sockets, ignore_all=True)
        return left

    def _let_go(self) -> None:
        """Close the connections that no view is at work for, as soon as their answers have left."""
        with self.dispatcher.lock:
            waiting = list(self.dispatcher.queue)
            self.dispatcher.queue.clear()
        for channel in list(self.waitress.active_channels.values()):
            if channel in waiting or not channel.requests:
                channel.close_after_output()

    def _close_stalled(self, seconds: float) -> None:
        """Close the connections whose other end has stopped reading. Waitress would wait until it can write to them."""
        for channel in list(self.waitress.active_channels.values()):
            if channel.has_stalled(seconds):
                channel.handle_close()


def options(settings: dict[str, Any]) -> dict[str, Any]:
    proxy = settings["TRUSTED_PROXY"]
    headers = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
    trusted = {"trusted_proxy": proxy, "trusted_proxy_count": 1, "trusted_proxy_headers": headers} if proxy else {}
    return trusted | {
        "ident": None,
        "clear_untrusted_proxy_headers": True,
        "max_request_body_size": settings["MAX_CONTENT_LENGTH"] + 1,  # the first size that is refused
        "connection_limit": connection_limit(),
        "channel_timeout": SILENT_SECONDS,
        "cleanup_interval": CHECK_SECONDS,
        "channel_request_lookahead": 0,
        "asyncore_use_poll": True,
    }


def connection_limit() -> int:
    """select.select dies past 1,024 sockets, past 512 on Windows. Every connection also takes one of the open files."""
    if not hasattr(select, "poll"):
        return 400
    try:
        import resource
    except ImportError:
        return 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        soft = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(100, min(1000, soft - 128))


if __name__ == "__main__":
    sys.exit(main())
else:
    app = create_app()
    gc.freeze()  # or the first look for garbage would look at all of that: a tenth of what the import takes
    gc.enable()
