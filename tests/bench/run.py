"""Measure served sites: `python tests/bench/run.py`. Needs Linux, and a machine that does nothing else.

24 people who are signed in ask in turn, each over a connection of their own, and somebody comments after every twenty
pages. What is compared is the CPU time of the served process, with that of bare Flask taken just before. Every round
has new processes, and the medians count. With TEST_MYSQL_URL search and writers are measured on that server too.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import driving
from driving import AFTERWARDS, COMMENT, DEEPEST, HOME, MIXTURE, NEW, POST, ROWS, Bare, Board, Load

COLUMNS = ("requests/s", "p50 ms", "p99 ms", "CPU ms", "of bare Flask, by CPU time", "statements")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, nargs="+", default=[1000, 100_000], metavar="N", help="sizes of the site")
    parser.add_argument("--seconds", type=float, default=3, help="for each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--comments", type=int, default=4000, help="how many the 16 writers write")
    with tempfile.TemporaryDirectory(prefix="corkboard-bench-") as folder:
        result = Result(parser.parse_args(), Path(folder))
        result.measure()
    judged = list(required(result))
    print("\n".join([*report(result), "", *(line for line, _ in judged)]))
    return int(any(short > 0.2 for _, short in judged))


# -- Measuring ---------------------------------------------------------------------------------------------------------


class Result:
    """Measures, and keeps what was measured."""

    def __init__(self, wanted: argparse.Namespace, folder: Path) -> None:
        self.wanted, self.folder = wanted, folder
        self.bare: list[Load] = []
        self.searches: dict[str, list[float]] = {"SQLite": [], "MariaDB": []}  # the ms that 95 of 100 take
        self.writing: dict[str, tuple[Load, list[str]]] = {}  # by engine, with the errors

    def measure(self) -> None:
        self.boards = [self.board(f"{posts:,} posts", posts) for posts in sorted(self.wanted.posts)]
        self.small, self.large = self.boards[0], self.boards[-1]
        for number in range(self.wanted.rounds):
            tell(f"round {number + 1} of {self.wanted.rounds}")
            self.measure_round()
        self.statements = self.large.statements()
        with Bare() as bare, self.small:
            self.write("SQLite", self.small)
            for _ in range(self.wanted.rounds):
                self.compare(bare, self.small, AFTERWARDS)
        if os.environ.get("TEST_MYSQL_URL"):
            with driving.database_beside(os.environ["TEST_MYSQL_URL"]) as url:
                self.measure_mariadb(self.board("MariaDB", self.large.posts, url))

    def measure_mariadb(self, board: Board) -> None:
        for _ in range(self.wanted.rounds):
            with board:
                self.searches["MariaDB"].append(board.search(5))
        with board:
            self.write("MariaDB", board)

    def write(self, engine: str, board: Board) -> None:
        tell(f"16 writers, {engine}")
        self.writing[engine] = board.write_at_once(self.wanted.comments)

    def board(self, name: str, posts: int, url: str = "") -> Board:
        tell(f"making a site: {name}")
        return Board(self.folder / name, posts, url)

    def measure_round(self) -> None:
        """Measure every row on every site, by processes that have just been started."""
        with Bare() as bare, ExitStack() as served:
            for board in self.boards:
                served.enter_context(board)
            for row in ROWS:
                for board in self.boards:
                    self.compare(bare, board, row)
            self.searches["SQLite"].append(self.large.search(5))

    def compare(self, bare: Bare, board: Board, row: str) -> None:
        """Measure one row, and bare Flask just before it."""
        self.bare.append(bare.measure(self.wanted.seconds / 3))
        board.loads[row].append(board.measure(row, self.wanted.seconds))
        board.shares[row].append(100 * self.bare[-1].cpu_ms / board.loads[row][-1].cpu_ms)

    def slower(self, row: str) -> float | None:
        """How many times the CPU time of a page is on the largest site: side by side, round by round."""
        pairs = zip(self.small.loads[row], self.large.loads[row], strict=True)
        return median(large.cpu_ms / small.cpu_ms for small, large in pairs) if len(self.boards) > 1 else None


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -- What is required --------------------------------------------------------------------------------------------------


def required(result: Result) -> Iterator[tuple[str, float]]:
    """Judge everything that is required."""
    for row, least, goal in ((HOME, 5, 8), (POST, 5, 8), (COMMENT, 2.5, 4), (MIXTURE, 4.5, 7), (AFTERWARDS, 4.5, 7)):
        yield judge(f"{row}, of bare Flask by CPU time", median(result.small.shares[row]), "≥", least, " %", goal)
    for row, most in ((HOME, 10), (POST, 11), (NEW, 15), (COMMENT, 16)):
        yield judge(f"{row}, statements", result.statements[row], "≤", most)
    for row in (HOME, DEEPEST, POST):
        sizes = f"at {result.large.posts:,} posts against {result.small.posts:,}"
        yield judge(f"{row}, CPU time {sizes}", result.slower(row), "≤", 1.15, " ×")
    for engine, within, least, goal in (("SQLite", 20, 140, 250), ("MariaDB", 150, 100, 0)):
        name, (load, errors) = f"16 writers on {engine}", result.writing.get(engine, (None, []))
        searched = f"search at {result.large.posts:,} posts on {engine}"
        p95 = median(result.searches[engine]) if result.searches[engine] else None
        yield judge(f"{searched}, p95", p95, "≤", within, " ms")
        yield judge(f"{name}, comments", load and load.per_second, "≥", least, "/s", goal)
        yield judge(f"{name}, errors {' '.join(errors[:1])}".strip(), load and len(errors), "≤", 0)
        yield judge(f"{name}, p99", load and load.within(99) / 1000, "≤", 0.5, " s")
    yield judge("memory after load", memory(result), "≤", 130, " MB")
    yield judge("first answer", median(result.small.starts), "≤", 1.5, " s")


def judge(
    name: str, figure: float | None, sign: str, required: float, unit: str = "", goal: float = 0
) -> tuple[str, float]:
    """Returns the line to print, and the part of the required figure that is missing, or too much."""
    asked = f"required {sign} {required:g}{unit}" + (f", goal {goal:g}" if goal else "")
    if figure is None:
        return f"{name}: not measured ({asked})", 0
    short = (required - figure if sign == "≥" else figure - required) / (required or 1)
    verdict = f"short by {short:.1%}" if short > 0 else "ok"
    return f"{name}: {figure:.3g}{unit} ({asked}): {verdict}", short


# -- Telling -----------------------------------------------------------------------------------------------------------


def report(result: Result) -> Iterator[str]:
    """The lines of the README's block."""
    bare, (writing, errors) = median(load.per_second for load in result.bare), result.writing["SQLite"]
    yield "<!-- bench -->"
    how = (
        f"{machine()}. {driving.PEOPLE} people who are signed in ask in turn, {driving.AT_ONCE} of them at the same"
        " moment, and somebody comments after every 20 pages; the mixture is all these pages with the comments. Bare"
        f" Flask on Waitress answers {bare:,.0f} requests/s in the same run. Medians of {result.wanted.rounds} rounds,"
        f" each by new processes, at {result.small.posts:,} posts. p50 and p99 are what people wait for an answer."
    )
    yield textwrap.fill(how, 120)
    yield ""
    larger = [f"CPU ms at {board.posts:,} posts" for board in result.boards[1:]]
    yield f"| {' | '.join(['', *COLUMNS, *larger])} |"
    yield f"| :-- |{' --: |' * len([*COLUMNS, *larger])}"
    for row in (*ROWS, AFTERWARDS):
        yield f"| {' | '.join(cells(result, row))} |"
    searches = " and ".join(f"{median(p95):.0f} ms on {engine}" for engine, p95 in result.searches.items() if p95)
    yield ""
    rest = (
        f"First answer after {median(result.small.starts):.1f} s; {memory(result):.0f} MB of memory after load. 95 of"
        f" 100 searches among {result.large.posts:,} posts take at most {searches}, one at a time. 16 people who"
        f" comment at the same moment get {writing.per_second:.0f} comments/s in, 99 of 100 within"
        f" {writing.within(99):.0f} ms, with {len(errors) or 'no'} errors."
    )
    yield textwrap.fill(rest, 120)
    yield "<!-- /bench -->"


def cells(result: Result, row: str) -> list[str]:
    """What the table says in one row."""
    loads = result.small.loads[row]
    waits = [f"{median(load.within(percent) for load in loads):.1f}" for percent in (50, 99)]
    cpu = [f"{median(load.cpu_ms for load in board.loads[row]):.2f}" for board in result.boards if board.loads[row]]
    share, statements = f"{median(result.small.shares[row]):.1f} %", str(result.statements.get(row, ""))
    return [row, f"{median(load.per_second for load in loads):.0f}", *waits, cpu[0], share, statements, *cpu[1:]]


def memory(result: Result) -> float:
    return max(board.memory for board in result.boards)


def machine() -> str:
    """What it runs on, without the name of a host."""
    cpu = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    where = "one core serves, another one asks" if len(driving.CORES) > 1 else "all on one core"
    return f"{(cpu or [platform.machine()])[0]}, {system}, Python {platform.python_version()}; {where}"


if __name__ == "__main__":
    sys.exit(main())
