"""A site served for real, by `python wsgi.py` in a process of its own, and a client that talks to it over HTTP.

For the tests that need what a test client cannot show (tests/faults) and for the benchmark (tests/bench). Everything
stays on the loopback interface, and a process is ended by the handle that started it.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from http.cookies import SimpleCookie
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

PROJECT = Path(__file__).resolve().parent.parent
LOST = (OSError, http.client.HTTPException)  # what a request meets whose server went away
# What serves the site, but for people who write faster than anybody may.
SERVE = "import runpy, app; app.WRITES = 10**9; runpy.run_path('wsgi.py', run_name='__main__')"
SETTINGS = re.findall(r"^# ?([A-Z_]+)=", (PROJECT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], object], what: str, seconds: float = 20, every: float = 0.01) -> float:
    """Ask again and again until it is so. Returns how long that took; `AssertionError` when it takes too long."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"after {seconds} s: {what}")
        time.sleep(every)
    return time.monotonic() - began


class Site:
    """A data folder, and the process that serves it."""

    def __init__(self, folder: Path, url: str = "", **settings: str) -> None:
        self.folder, self.port = folder, free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        given = {"DATA_DIR": str(folder), "DATABASE_URL": url, "PORT": str(self.port), **settings}
        # An empty value is the default, and wins over a .env of whoever runs this.
        self.environ = {**os.environ, **dict.fromkeys(SETTINGS, ""), **given}
        self.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # every start would compile the application anew

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def flask(self, *arguments: str, stdin: str = "") -> str:
        """Run one of the site's commands. Returns what it printed."""
        return self.python("-m", "flask", *arguments, stdin=stdin)

    def python(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=PROJECT, env=self.environ, input=stdin, capture_output=True, encoding="utf-8", timeout=1800,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return done.stdout

    def start(self) -> float:
        """Serve. Returns the seconds from the start of the process to its first answer."""
        with open(self.folder / "served.txt", "ab") as output:
            began = time.monotonic()
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE],
                cwd=PROJECT, env=self.environ, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            until(self._answers, "the site gives no answer", every=0.005)
        except BaseException:
            self.kill()
            raise
        return time.monotonic() - began

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"wsgi.py ended with {self.process.returncode}:\n{self.output()[-2000:]}")
        client = Client(self.port)
        try:
            return client.get("/login").status < 500
        except LOST:
            return False
        finally:
            client.close()

    def output(self) -> str:
        return (self.folder / "served.txt").read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """End the process without giving it a chance to do anything about it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self.kill()


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    text: str


class Client:
    """A browser of a kind: keeps cookies, and sends forms with the token of the session."""

    def __init__(self, port: int, timeout: float = 15) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self.cookies: SimpleCookie = SimpleCookie()
        self.csrf_token = ""

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={morsel.value}" for name, morsel in self.cookies.items())

    def close(self) -> None:
        self.connection.close()

    def get(self, path: str) -> Answer:
        return self._ask("GET", path)

    def post(self, path: str, **fields: str) -> Answer:
        body = urlencode({"csrf_token": self.csrf_token, **fields})
        return self._ask("POST", path, body, {"Content-Type": "application/x-www-form-urlencoded"})

    def _ask(self, method: str, path: str, body: str = "", headers: Mapping[str, str] | None = None) -> Answer:
        try:
            self.connection.request(method, path, body or None, {"Cookie": self.cookie, **(headers or {})})
            answer = self.connection.getresponse()
            text = answer.read().decode(errors="replace")  # pictures are no text
        except LOST:
            self.connection.close()  # the next request opens a new one
            raise
        for name, value in answer.getheaders():
            if name.lower() == "set-cookie":
                self.cookies.load(value)
        return Answer(answer.status, answer.headers, text)

    def sign_in(self, username: str, password: str) -> Client:
        self.read_token("/login")
        answer = self.post("/login", username=username, password=password)
        assert answer.status == 303, f"{username} cannot sign in: {answer.status}"
        self.read_token("/people")
        return self

    def read_token(self, path: str) -> None:
        """Take the token that a page of the site carries for its scripts."""
        found = re.search(r'<meta name="csrf-token" content="([^"]+)">', self.get(path).text)
        assert found, f"{path} carries no token"
        self.csrf_token = found[1]
