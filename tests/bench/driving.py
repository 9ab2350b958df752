"""The load: sites to measure, people who ask in turn, and bare Flask to compare with. Linux only."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from serving import LOST, Client, Site, free_port, until

PEOPLE, WRITERS = 24, 16
AT_ONCE = 4  # so many wait for an answer at the same moment
SAID = "Thank you, that helps. I take the long trays on **Thursday**, and the rye starter stays where it is."
BODY = f"{SAID}\n\n" + "\n".join(f"{number}. Shop {number} opens at *half past six*." for number in range(1, 9))
QUERIES = ("oven", "ove", "bread", "thursday", "thurs", "the", "th", "with", "the+oven", "sour+starter", "zzyzx")
HOME, DEEPEST, POST, NEW = "home", "deepest home page", "post with 10 comments", "post with a new comment"
HANDBOOK, STAFF, SEARCH, BELL, POLL = "handbook", "people", "search", "notifications", "poll of the bell"
COMMENT, MIXTURE, AFTERWARDS = "comment (POST)", "mixture", "mixture after many comments"
# How often each page is asked for in a turn of the mixture. A comment comes to these twenty.
MIXED = {HOME: 5, DEEPEST: 1, POST: 3, NEW: 4, HANDBOOK: 1, STAFF: 1, SEARCH: 2, BELL: 1, POLL: 2}
TURN = sum(MIXED.values())
ROWS = (*MIXED, COMMENT, MIXTURE)
CORES = sorted(os.sched_getaffinity(0))


def move_to_core(number: int) -> None:
    """Keep this thread, and every process that it starts from now on, on one core: 0 serves, -1 asks."""
    os.sched_setaffinity(0, {CORES[number]})


class Load(NamedTuple):
    """What requests took: the seconds until each was answered, those for all together, and those of CPU time."""

    times: list[float]
    seconds: float
    cpu: float

    @property
    def per_second(self) -> float:
        return len(self.times) / self.seconds

    @property
    def cpu_ms(self) -> float:
        return self.cpu * 1000 / len(self.times)

    def within(self, percent: int) -> float:
        """The milliseconds within which so many of a hundred were answered."""
        return sorted(self.times)[len(self.times) * percent // 100] * 1000


@contextmanager
def watch(pid: int) -> Iterator[list[float]]:
    """Gives a list that holds the seconds passed and the CPU time of that process, once the block is left."""
    clock = (~pid << 3) | 2  # a process's CPU time, as Linux's clock_getcpuclockid(3) names it
    began, worked, spent = time.perf_counter(), time.clock_gettime(clock), []
    yield spent
    spent += [time.perf_counter() - began, time.clock_gettime(clock) - worked]


class Bare:
    """The smallest Flask application, served while it is entered."""

    def __enter__(self) -> Bare:
        self.address = ("127.0.0.1", free_port())
        command = [sys.executable, str(Path(__file__).with_name("bare.py")), str(self.address[1])]
        move_to_core(0)
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        move_to_core(-1)
        until(lambda: socket.socket().connect_ex(self.address) == 0, "bare Flask does not answer")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def measure(self, seconds: float) -> Load:
        """Ask as often as it answers; by sockets, because http.client would be the slower one."""
        times, end = [], time.perf_counter() + seconds
        sockets = [socket.create_connection(self.address) for _ in range(AT_ONCE)]
        with watch(self.process.pid) as spent:
            for connection in sockets:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for connection in itertools.cycle(sockets):
                began, answer = time.perf_counter(), b""
                while not answer.endswith(b"hello"):
                    part = connection.recv(4096)
                    assert part, "bare Flask closed the connection"
                    answer += part
                times.append(time.perf_counter() - began)
                if began > end:
                    break
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for connection in sockets:
            connection.close()
        return Load(times, *spent)


class Board:
    """A site with that many posts, and the people who use it. It is served while it is entered."""

    def __init__(self, folder: Path, posts: int, url: str = "") -> None:
        self.posts, self.site = posts, Site(folder, url)
        self.site.flask("init-db")
        self.site.flask("seed-demo", "--posts", str(posts))
        self.cookies = self.inside("people", str(PEOPLE))
        self.loads: dict[str, list[Load]] = {row: [] for row in (*ROWS, AFTERWARDS)}
        self.shares: dict[str, list[float]] = {row: [] for row in self.loads}  # of bare Flask, by CPU time
        self.starts: list[float] = []  # seconds until the first answer
        self.memory = 0.0  # MB, the most that a process of it held after its load
        self.paths: dict[str, Iterator[str]] = {}

    def inside(self, *command: str, stdin: str = "") -> Any:
        return json.loads(self.site.python("-m", "tests.bench.inside", *command, stdin=stdin))

    def __enter__(self) -> Board:
        move_to_core(0)
        self.starts.append(self.site.start())
        move_to_core(-1)
        assert self.site.process is not None
        self.pid, self.pool = self.site.process.pid, ThreadPoolExecutor(AT_ONCE)
        self.people = [Client(self.site.port) for _ in self.cookies]
        self.turns = itertools.cycle(self.people)
        for person, cookie in zip(self.people, self.cookies, strict=True):
            person.cookies.load(cookie)
            person.read_token("/people")
        if not self.paths:
            self.prepare()
        self.discussed = itertools.cycle([self.write_post() for _ in range(TURN)])  # these are on Home's first page
        self.comment()
        for row in ROWS:  # the process is warm then
            self.turn(row)
        return self

    def __exit__(self, *_: object) -> None:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        self.memory = max(self.memory, int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024)
        self.pool.shutdown()
        for person in self.people:
            person.close()
        self.site.stop()

    def prepare(self) -> None:
        """Find the deepest page and posts to comment on, and write posts with ten comments that everybody has read."""
        addresses, older = self.walk()
        self.connect_again()
        self.older = itertools.cycle(older)
        read = [self.write_post() for _ in range(8)]
        for post in read * 10:
            self.ask(next(self.turns), f"{post}/comments")
        for person, post in itertools.product(self.people, read):
            self.ask(person, post)
        paths = {HOME: ["/"], HANDBOOK: ["/handbook"], STAFF: ["/people"], BELL: ["/notifications"], POST: read}
        paths |= {POLL: ["/notifications/poll"], SEARCH: [f"/search?q={query}" for query in QUERIES]}
        paths[DEEPEST] = addresses[-2:-1]  # the last one may show less than a page
        self.paths = {row: itertools.cycle(those) for row, those in paths.items()}

    def walk(self) -> tuple[list[str], list[str]]:
        """Go through all pages of Home. Returns their addresses, and those of the posts on them."""
        addresses, posts, more = [], set(), "/"
        while more:
            addresses.append(more)
            page = self.people[0].get(more).text
            posts.update(re.findall(r'href="(/posts/\d+)"', page))
            more = unescape("".join(re.findall(r'href="(/\?before=[^"]+)"', page)[:1]))
        return addresses, sorted(posts)

    def connect_again(self) -> None:
        """Let everybody open a new connection: the site closes those that were idle for long."""
        for person in self.people:
            person.close()

    def write_post(self) -> str:
        """Write news as the next person. Returns its address."""
        person = next(self.turns)
        topic = re.findall(r'name="topic".*?<option[^>]* value="(\d+)"', person.get("/posts/new").text, re.DOTALL)[0]
        text = {"title": "The rota of the shops", "body": BODY, "form_id": secrets.token_hex(16)}
        answer = person.post("/posts/new", kind="news", topic=topic, **text)
        assert answer.status == 303, f"a post was not taken: {answer.status}"
        return answer.headers["Location"]

    def page(self, row: str) -> str:
        return self.newest if row == NEW else next(self.paths[row])

    def comment(self) -> str:
        """Where the next comment goes, which is new to everybody then."""
        self.newest = next(self.discussed)
        return f"{self.newest}/comments"

    def addresses(self, row: str) -> list[str]:
        """What is asked in one turn."""
        if row == COMMENT:
            return [f"{next(self.older)}/comments" for _ in range(TURN)]
        if row in MIXED:
            return [self.page(row) for _ in range(TURN)]
        pages = [self.page(each) for each, times in MIXED.items() for _ in range(times)]
        return [*random.sample(pages, TURN), self.comment()]

    def turn(self, row: str) -> Load:
        """Ask for twenty pages, each as another person. Where no comment is among them, one follows, not measured."""
        addresses = self.addresses(row)
        with watch(self.pid) as spent:
            times = list(self.pool.map(self.ask, [next(self.turns) for _ in addresses], addresses))
        if row in MIXED:
            self.ask(next(self.turns), self.comment())
        return Load(times, *spent)

    def measure(self, row: str, seconds: float) -> Load:
        """Ask in turns, for that long after a first one."""
        self.connect_again()
        self.turn(row)
        times, spent, cpu, end = [], 0.0, 0.0, time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            load = self.turn(row)
            times, spent, cpu = times + load.times, spent + load.seconds, cpu + load.cpu
        return Load(times, spent, cpu)

    @staticmethod
    def ask(person: Client, address: str) -> float:
        """Ask for a page or send a comment. Returns the seconds it took; raises `RuntimeError` where that fails."""
        began = time.perf_counter()
        if address.endswith("/comments"):
            answer, expected = person.post(address, body=SAID, form_id=secrets.token_hex(16)), 303
        else:
            answer, expected = person.get(address), 200
        if answer.status != expected:
            raise RuntimeError(f"{address}: {answer.status}")
        return time.perf_counter() - began

    def search(self, times: int) -> float:
        """The milliseconds within which 95 of 100 searches are answered, when one person asks at a time."""
        self.connect_again()
        asked = [self.ask(next(self.turns), self.page(SEARCH)) for _ in QUERIES * times]
        return Load(asked, 1, 0).within(95)

    def write_at_once(self, comments: int) -> tuple[Load, list[str]]:
        """Let 16 people comment at the same time, each as fast as it goes. Returns what was written, and the errors."""
        errors: list[str] = []
        self.connect_again()

        def write(person: Client) -> list[float]:
            times = []
            for _ in range(comments // WRITERS):
                try:
                    times.append(self.ask(person, f"{next(self.older)}/comments"))
                except (RuntimeError, *LOST) as error:
                    errors.append(repr(error))
            return times

        with watch(self.pid) as spent, ThreadPoolExecutor(WRITERS) as writers:
            times = [one for each in writers.map(write, self.people[:WRITERS]) for one in each]
        return Load(times, *spent), errors

    def statements(self) -> dict[str, int]:
        """How many statements each row takes, counted by a process of its own."""
        pages = {row: self.page(row) for row in MIXED if row != NEW}
        asked = {"cookies": self.cookies[:2], "pages": pages, "new": NEW, "comment": COMMENT, "post": next(self.older)}
        return self.inside("statements", stdin=json.dumps(asked))


@contextmanager
def database_beside(url: str) -> Iterator[str]:
    """Gives the address of an empty database beside that one of a MySQL or MariaDB server. It goes at the end."""
    given = sa.make_url(url.replace("mysql://", "mysql+pymysql://", 1))
    with sa.create_engine(given, poolclass=sa.NullPool).connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE IF EXISTS `{given.database}_bench`")
        connection.exec_driver_sql(f"CREATE DATABASE `{given.database}_bench` CHARACTER SET utf8mb4")
        yield given.set(database=f"{given.database}_bench").render_as_string(hide_password=False)
        connection.exec_driver_sql(f"DROP DATABASE `{given.database}_bench`")
