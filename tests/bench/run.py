"""Measure a served site: `python tests/bench/run.py`, with --help for the rest.

Seeds a site for each number of posts in a temporary folder, serves it by `python wsgi.py` on one core, drives it from
another by wrk, and says whether each required figure is met. A machine is never quiet, so only what was measured side
by side is compared: each page is measured on every site, between two measurements of a bare Flask application on the
same server and core, and all of it three times, of which the medians count. Each time by new processes: where the
memory of one happens to lie makes it a twentieth faster or slower than the next.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import secrets
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from driving import CONNECTIONS, Ask, Load, cores, drive, on_core
from serving import Client, Site, free_port, until

HERE = Path(__file__).resolve().parent
NO_WRK = "wrk is missing, which makes the requests (Debian: apt-get install wrk)"
READER = "soren"  # of the demo: a member, as most people are
SAID = "Thank you, that helps. I take the long trays on Thursday, and the rye starter stays where it is."

HOME, DEEPEST, POST, HANDBOOK, PEOPLE = PAGES = ("home", "deepest home page", "post, 10 comments", "handbook", "people")
SEARCH, TYPING, BELL = "search", "search, while typing", "notifications, nothing new (304)"
FILE, FILE_AGAIN = "file, 18 KB", "file, unchanged (304)"
LOOKS = (*PAGES, SEARCH, TYPING, BELL, FILE, FILE_AGAIN)
COMMENT, SIGN_IN = "comment (POST)", "sign-in (POST)"
ROWS = (*LOOKS, COMMENT, SIGN_IN)
WHAT_IS_LEFT = (
    "SELECT (SELECT COUNT(*) FROM activities WHERE pending IS NOT NULL), (SELECT MAX(id) FROM activities),"
    " (SELECT value FROM settings WHERE name = 'indexed_until')"
)


def main() -> int:
    wanted = arguments()
    if not shutil.which("wrk"):
        print(NO_WRK, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="corkboard-bench-") as folder:
        result = measure(wanted, Path(folder))
    print(json.dumps(result, indent=2) if wanted.json else "\n".join(report(result, wanted.markdown)))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--posts", type=int, nargs="+", default=[1000, 100_000], metavar="N", help="sizes of the site")
    parser.add_argument("--seconds", type=float, default=4, help="for each measurement; above 1 in whole ones")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--engine", default="sqlite", metavar="URL", help="mysql://… of a user who may make databases")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--markdown", action="store_true", help="print tables for the README")
    return parser.parse_args()


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# == What is served ====================================================================================================


class Bare:
    """What everything is compared with: the smallest Flask application, on Waitress."""

    def __init__(self, core: int | None) -> None:
        self.core, self.port = core, free_port()

    def __enter__(self) -> Bare:
        with on_core(self.core):
            command = [sys.executable, str(HERE / "bare.py"), str(self.port)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until(self.answers, "bare Flask does not answer")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def measure(self, seconds: float, core: int | None, folder: Path) -> Load:
        return drive(self.port, self.process.pid, Ask(["/"]), seconds, core, folder)

    def answers(self) -> bool:
        client = Client(self.port)
        try:
            return client.get("/").status == 200
        except OSError:
            return False
        finally:
            client.close()


class Board:
    """A site with that many posts, and what is asked of it; served while it is entered."""

    def __init__(self, posts: int, folder: Path, url: str, core: int | None) -> None:
        self.posts, self.folder, self.core = posts, folder, core
        self.site = Site(folder / "data", url)
        self.url = url or f"sqlite:///{(folder / 'data' / 'corkboard.db').as_posix()}"
        self.loads: dict[str, list[Load]] = {row: [] for row in ROWS}
        self.shares: dict[str, list[float]] = {row: [] for row in ROWS}  # of bare Flask, round by round
        self.cpu_shares: dict[str, list[float]] = {row: [] for row in ROWS}  # the same by CPU time
        self.held = 0.0  # the most memory, in megabytes, that one of its processes held after its load
        self.made, self.password = self._seed()

    def _seed(self) -> tuple[dict[str, Any], str]:
        """What was made to be asked for, and the reader's password."""
        tell(f"seeding {self.posts:,} posts")
        self.site.flask("init-db")
        people = self.site.flask("seed-demo", "--posts", str(self.posts))
        password = re.search(rf"^ *{READER} +\w+ +(\S+)$", people, re.MULTILINE)
        assert password, people
        return self.inside("prepare", READER), password[1]

    def __enter__(self) -> Board:
        self.start()
        try:
            self.asks = self.what_to_ask(self.made, self.password)
            self.come_to_rest()
        except BaseException:
            self.site.stop()
            raise
        return self

    def what_to_ask(self, made: dict[str, Any], password: str) -> dict[str, Ask]:
        """The request of each row, tried before anything is measured: the process is warm then."""
        reader, stranger = Client(self.site.port).sign_in(READER, password), Client(self.site.port)
        stranger.read_token("/login")
        comment = {"body": SAID, "csrf_token": reader.csrf_token}
        names = {"username": READER, "password": password, "csrf_token": stranger.csrf_token}
        addresses = ("/", made["deepest"], f"/posts/{made['post']}", "/handbook", "/people")
        asks = {row: Ask([path], reader.cookie) for row, path in zip(PAGES, addresses, strict=True)}
        asks |= {SEARCH: Ask(["/search?q=oven"], reader.cookie), FILE: Ask([made["file"]], reader.cookie)}
        asks[TYPING] = Ask(
            [f"/search?part=live&q={begun}" for begun in ("ov", "ove", "oven", "oven+br")], reader.cookie
        )
        asks |= {BELL: self.again(reader, "/notifications/poll"), FILE_AGAIN: self.again(reader, made["file"])}
        asks[COMMENT] = Ask([f"/posts/{post}/comments" for post in made["targets"]], reader.cookie, comment)
        # The site hashes two passwords at a time, and turns away who would have to wait for too long.
        asks[SIGN_IN] = Ask(["/login"], stranger.cookie, names, connections=2)
        for address in addresses * 10:
            assert reader.get(address).status == 200, address
        for number in range(10):
            address = asks[COMMENT].paths[number % len(made["targets"])]
            assert reader.post(address, body=SAID, form_id=secrets.token_hex(16)).status == 303
        reader.close()
        stranger.close()
        return asks

    @staticmethod
    def again(reader: Client, address: str) -> Ask:
        """What a browser asks that has the answer already."""
        return Ask([address], reader.cookie, etag=reader.get(address).headers["ETag"])

    def __exit__(self, *_: object) -> None:
        self.held = max(self.held, self.memory())
        self.site.stop()

    def start(self) -> float:
        with on_core(self.core):
            return self.site.start()

    def inside(self, *command: str, stdin: str = "") -> Any:
        """Ask what only the application itself can tell: see `inside.py`."""
        return json.loads(self.site.python("-m", "tests.bench.inside", *command, stdin=stdin))

    def statements(self) -> dict[str, dict[str, int]]:
        return self.inside("statements", stdin=json.dumps({row: ask._asdict() for row, ask in self.asks.items()}))

    def come_to_rest(self) -> None:
        """Wait until people are told and the search knows: done on the same core, it would slow what comes next."""

        def is_done() -> bool:
            pending, last, indexed = self.query(WHAT_IS_LEFT)
            return not pending and int(indexed or 0) >= (last or 0)

        until(is_done, "the site does not come to rest", seconds=120, every=0.2)

    def measure(self, row: str, seconds: float, core: int | None) -> Load:
        table = {COMMENT: "comments", SIGN_IN: "sign_ins"}.get(row)
        before = self.count(table) if table else 0
        assert self.site.process is not None
        ask = self.asks[row]
        if row == SIGN_IN and seconds < 1:  # no sooner does a hash come to its end; and two would meet those before
            seconds, ask = 1, ask._replace(connections=1)
        load = drive(self.site.port, self.site.process.pid, ask, seconds, core, self.folder)
        if row == COMMENT:
            self.come_to_rest()
        # Being asked to sign in is a redirect as well, so what came of the forms is counted.
        if table and not load.requests <= self.count(table) - before <= load.requests + CONNECTIONS:
            raise RuntimeError(f"{row}: {load.requests} answers, but {self.count(table) - before} {table}")
        if not load.requests and seconds < 10:  # on a busy machine even one can take longer
            return self.measure(row, seconds * 3, core)
        self.loads[row].append(load)
        return load

    def count(self, table: str) -> int:
        return self.query(f"SELECT COUNT(*) FROM {table}")[0]

    def query(self, statement: str) -> tuple[Any, ...]:
        """The first row of what the database answers."""
        engine = sa.create_engine(self.url)
        try:
            with engine.connect() as connection:
                return tuple(connection.exec_driver_sql(statement).one())
        finally:
            engine.dispose()

    def memory(self) -> float:
        """Megabytes that the process holds now; 0 where the system does not tell."""
        assert self.site.process is not None
        try:
            status = Path(f"/proc/{self.site.process.pid}/status").read_text(encoding="ascii")
        except OSError:
            return 0.0
        held = re.search(r"VmRSS:\s+(\d+) kB", status)  # which a process that has ended has none of
        return int(held[1]) / 1024 if held else 0.0


class Database:
    """A database of a server, made for one site and dropped afterwards."""

    def __init__(self, url: str, posts: int) -> None:
        self.server = sa.make_url(url.replace("mysql://", "mysql+pymysql://").replace("mariadb://", "mysql+pymysql://"))
        self.name = f"{self.server.database}_{posts}"

    @property
    def url(self) -> str:
        return self.server.set(database=self.name).render_as_string(hide_password=False)

    def __enter__(self) -> Database:
        self.execute(f"CREATE DATABASE `{self.name}`")  # fails where it exists: somebody may need what is in it
        return self

    def __exit__(self, *_: object) -> None:
        self.execute(f"DROP DATABASE `{self.name}`")

    def execute(self, statement: str) -> str:
        engine = sa.create_engine(self.server)
        try:
            with engine.connect() as connection:
                result = connection.exec_driver_sql(statement)
                return str(result.scalar()) if result.returns_rows else ""
        finally:
            engine.dispose()


# == Measuring =========================================================================================================


def measure(wanted: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything, as `--json` prints it."""
    serving, driving = cores()
    with ExitStack() as ends:
        bare, boards = Bare(serving), []
        for posts in sorted(wanted.posts):
            url = "" if wanted.engine == "sqlite" else ends.enter_context(Database(wanted.engine, posts)).url
            boards.append(Board(posts, folder / str(posts), url, serving))
        bare_loads = []
        for number in range(wanted.rounds):
            tell(f"round {number + 1} of {wanted.rounds}")
            with ExitStack() as processes:
                for served in (bare, *boards):
                    processes.enter_context(served)
                # Whatever slows the machine for a while should not always meet the same site.
                bare_loads += one_round(bare, boards[:: -1 if number % 2 else 1], wanted.seconds, driving, folder)
        tell("statements, memory, start, writers")
        sites = [outcome(board) | {"slower": slower(board, boards[0])} for board in boards]
        process = about_process(boards[0], wanted.rounds)
        process["memory"] = max(board.held for board in boards)
        process["first_answer"] = first_answer(boards[0], wanted.rounds)
        engine = engine_name(wanted.engine)
    result = {
        "machine": machine(), "engine": engine, "pinned": serving is not None, "seconds": wanted.seconds,
        "rounds": wanted.rounds, "bare": middle(load.per_second for load in bare_loads), "sites": sites,
        "process": process, "writers": writers(folder, wanted.seconds, wanted.rounds),
    }  # fmt: skip
    return result | {"required": [rule._asdict() for rule in required(result)]}


def one_round(bare: Bare, boards: Sequence[Board], seconds: float, core: int | None, folder: Path) -> list[Load]:
    """Measure each row on each site, with bare Flask before and after. Returns the latter's loads."""
    measured = [bare.measure(seconds, core, folder)]
    for row in ROWS:
        loads = [board.measure(row, seconds, core) for board in boards]
        measured.append(bare.measure(seconds, core, folder))
        around = statistics.mean(load.per_second for load in measured[-2:])
        worked = statistics.mean(load.cpu for load in measured[-2:])
        for board, load in zip(boards, loads, strict=True):
            board.shares[row].append(load.per_second / around)
            board.cpu_shares[row].append(worked / load.cpu if load.cpu else 0)
    return measured


def outcome(board: Board) -> dict[str, Any]:
    counted = board.statements()
    rows = {}
    for row, loads in board.loads.items():
        figures = {name: middle(getattr(load, name) for load in loads) for name in ("per_second", "p50", "p99", "cpu")}
        shares = {"share": middle(board.shares[row]), "cpu_share": middle(board.cpu_shares[row])}
        rows[row] = {**figures, **shares, **counted[row]}
    return {"posts": board.posts, "rows": rows}


def slower(board: Board, smallest: Board) -> dict[str, float]:
    """How many times longer each page takes than on the smallest site: side by side in each round."""
    pairs = {row: zip(smallest.loads[row], board.loads[row], strict=True) for row in PAGES}
    return {row: middle(small.per_second / large.per_second for small, large in pair) for row, pair in pairs.items()}


def about_process(board: Board, rounds: int) -> dict[str, float]:
    code = "import time; began = time.perf_counter(); import wsgi; print(time.perf_counter() - began)"
    board.site.python("-c", code)  # compiles what has changed
    # The quickest: whatever disturbs a process of a third of a second only ever makes it slower.
    return {"import": min(float(board.site.python("-c", code)) for _ in range(5 * rounds)) * 1000}


def first_answer(board: Board, rounds: int) -> float:
    """Seconds from the start of the process to its first answer."""
    taken = []
    for _ in range(rounds):
        taken.append(board.start())
        board.site.stop()
    return middle(taken)


def disk(folder: Path) -> float:
    """Milliseconds that nine of ten writes need to reach the disk: what a commit cannot be faster than."""
    taken = []
    with open(folder / "probe", "w+b", buffering=0) as file:
        for _ in range(200):
            file.write(bytes(8192))
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.quantiles(taken, n=10)[-1] * 1000


def writers(folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """16 threads in one process that comment through the model, on a SQLite database of their own."""
    found = []
    for number in range(rounds):
        site = Site(folder / f"writers{number}")
        found.append(json.loads(site.python("-m", "tests.bench.inside", "writers", str(seconds))))
    figures = {name: middle(each[name] for each in found) for name in ("per_second", "p50", "p99")}
    errors = [each["first_error"] for each in found if each["errors"]]
    return {
        **figures,
        "disk": disk(folder),
        "errors": sum(each["errors"] for each in found),
        "first_error": (errors or [""])[0],
    }


def middle(values: Iterable[float]) -> float:
    return statistics.median(values)


# == What is required ==================================================================================================


class Rule(NamedTuple):
    name: str
    needed: str
    found: str
    ok: bool


def required(result: dict[str, Any]) -> list[Rule]:
    """The figures that a change may not fall behind."""
    rules = []
    for row, share in ((HOME, 0.22), (POST, 0.22), (COMMENT, 0.15), (BELL, 0.45)):
        least = min(site["rows"][row]["share"] for site in result["sites"])
        rules.append(Rule(f"{row}: of bare Flask", f"≥ {share:.0%}", f"{least:.1%}", least >= share))
    for row, most in ((HOME, 3), (POST, 4), (BELL, 1)):
        count = max(site["rows"][row]["statements"] for site in result["sites"])
        rules.append(Rule(f"{row}: statements", f"≤ {most}", str(count), count <= most))
    writes = sum(site["rows"][row]["writes"] for site in result["sites"] for row in LOOKS)
    rules.append(Rule("statements that write, while looking", "0", str(writes), writes == 0))
    small, *larger = result["sites"]
    for site in larger:
        for row, times in site["slower"].items():
            name = f"{row}: {site['posts']:,} against {small['posts']:,} posts"
            rules.append(Rule(name, "≤ 1.10 ×", f"{times:.2f} ×", times <= 1.10))
    process, writing = result["process"], result["writers"]
    for name, value, unit, most in (
        ("import wsgi", process["import"], "ms", 350),
        ("first answer", process["first_answer"], "s", 3),
        ("memory after load", process["memory"], "MB", 110),
    ):
        rules.append(Rule(name, f"≤ {most} {unit}", f"{value:.{1 if unit == 's' else 0}f} {unit}", value <= most))
    speed, errors, p99 = writing["per_second"], writing["errors"], writing["p99"]
    rules.append(Rule("16 writers: transactions/s", "≥ 900", f"{speed:.0f}", speed >= 900))
    rules.append(Rule("16 writers: errors", "0", f"{errors} {writing['first_error']}".strip(), errors == 0))
    rules.append(Rule("16 writers: p99", "≤ 60 ms", f"{p99:.0f} ms", p99 <= 60))
    return rules


# == Telling ===========================================================================================================


def machine() -> str:
    """What it ran on, without any name of a host."""
    try:
        model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        model, system = None, f"{platform.system()} {platform.release()}"
    cpu = model[1].strip() if model else platform.machine()
    return f"{cpu}, {os.cpu_count()} cores, {system}, Python {platform.python_version()}"


def engine_name(engine: str) -> str:
    if engine == "sqlite":
        return f"SQLite {sqlite3.sqlite_version}"
    version = Database(engine, 0).execute("SELECT VERSION()")
    return f"MariaDB {version.partition('-')[0]}" if "Maria" in version else f"MySQL {version}"


FIGURES = {
    "requests/s": lambda of: f"{of['per_second']:,.0f}",
    "p50 ms": lambda of: f"{of['p50']:.1f}",
    "p99 ms": lambda of: f"{of['p99']:.1f}",
    "CPU ms": lambda of: f"{of['cpu']:.2f}",
    "statements": lambda of: str(of["statements"]),
    "of bare Flask": lambda of: f"{of['share']:.1%}",
    "by CPU": lambda of: f"{of['cpu_share']:.1%}",
}


def report(result: dict[str, Any], markdown: bool) -> Iterable[str]:
    """The lines that are printed."""
    where = "one core serves, another one asks" if result["pinned"] else "processes not bound to cores"
    yield f"{result['machine']}; {result['engine']}; {where}, {CONNECTIONS} connections."
    yield f"Bare Flask on Waitress: {result['bare']:,.0f} requests/s. Medians of {result['rounds']}."
    yield f"Nine of ten writes reach the disk within {result['writers']['disk']:.1f} ms."
    yield "“By CPU” compares the time that the processes worked, which other programs on the machine disturb less."
    for site in result["sites"]:
        lines = [(row, *(show(of) for show in FIGURES.values())) for row, of in site["rows"].items()]
        yield from table((f"{site['posts']:,} posts", *FIGURES), lines, markdown)
    rules = [(of["name"], of["needed"], of["found"], "ok" if of["ok"] else "MISS") for of in result["required"]]
    yield from table(("Required", "", "measured", ""), rules, markdown)


def table(headings: Sequence[str], lines: Sequence[Sequence[str]], markdown: bool) -> Iterable[str]:
    """The lines of a table, its first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    yield ""
    for number, line in enumerate((headings, *lines)):
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        cells[0] = line[0].ljust(widths[0])
        yield f"| {' | '.join(cells)} |" if markdown else "  ".join(cells)
        if markdown and number == 0:
            yield f"| {' | '.join([':--', *['--:'] * (len(widths) - 1)])} |"


if __name__ == "__main__":
    sys.exit(main())
