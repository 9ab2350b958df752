"""How long the search takes: seeds a site with N posts and asks it for rare words, common ones and beginnings.

    python tests/bench/search.py --posts 100000 [--url mysql://…]

Without --url it makes a SQLite file in a temporary folder. The database of --url is emptied. The figures are those of
one process on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import sqlalchemy as sa  # noqa: E402
from conftest import drop_everything, settings  # noqa: E402

import app as corkboard  # noqa: E402
import database  # noqa: E402
from app import DemoCompany, SearchEntry, User  # noqa: E402
from database import db  # noqa: E402

QUERIES = (
    *("the", "th", "to", "it", "oven", "ove", "flour", "bread", "thursday", "thurs", "with", "from", "deliv", "shop"),
    *("the oven", "oven the bread", "please leave", "inside the line", "sourdough", "sour starter", "zzyzx", "kiln"),
)


def seed(posts: int) -> None:
    """Fill the site as `seed-demo --posts` does, but for the search."""
    company = DemoCompany()
    company.hire()
    entries = company.entries("posts.md", "news") + company.entries("handbook.md", "page")
    company.publish(entries, lambda _: None)
    company.repeat([one for one in entries if one.kind == "news" and not one.private], posts, lambda _: None)


def timed(viewer: User, query: str) -> tuple[float, float]:
    """How many milliseconds a search's statements take, and how many of them this process works (SQLite's are all)."""
    wanted = corkboard.Wanted(database.query_words(query))
    begun, worked = time.perf_counter(), time.process_time()
    SearchEntry.people(wanted, 5)
    SearchEntry.hits(viewer, wanted)  # type: ignore[arg-type]
    taken = (time.perf_counter() - begun) * 1000, (time.process_time() - worked) * 1000
    database.end_reading()
    return taken


class Watch:
    """How long a part of something takes in all."""

    def __init__(self) -> None:
        self.seconds, self.worked = 0.0, 0.0

    def around(self, action: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            begun, worked = time.perf_counter(), time.process_time()
            try:
                return action(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - begun
                self.worked += time.process_time() - worked

        return run

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s ({self.worked:.1f} s worked in this process)"


def build() -> None:
    """Index everything; tell how long that takes, and how much of it the engine's index is being built."""
    whole, built = Watch(), Watch()
    add, database.add_to_index = database.add_to_index, built.around(database.add_to_index)
    try:
        whole.around(SearchEntry.reindex)(lambda _: None)
    finally:
        database.add_to_index = add
    print(f"db-reindex in {whole}, of it index built in {built}")


def measure(arguments: argparse.Namespace) -> None:
    seeded = Watch()
    seeded.around(seed)(arguments.posts)
    print(f"seeded with {arguments.posts:,} posts in {seeded}")
    build()
    corkboard.g.now = database.utcnow()
    viewer = db.session.scalar(sa.select(User).order_by(User.id).limit(1))
    assert viewer is not None
    db.session.rollback()
    taken = {query: [timed(viewer, query) for _ in range(arguments.rounds)] for query in QUERIES}
    for query, times in taken.items():
        print(f"  {query:<18} {sorted(times)[len(times) // 2][0]:8.2f} ms")
    for place, name in enumerate(("taken", "worked in this process")):
        every = sorted(one[place] for times in taken.values() for one in times)
        print(f"{name}: p50 {every[len(every) // 2]:.2f} ms, p95 {every[int(len(every) * 0.95)]:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--url", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix=f"search-{secrets.token_hex(2)}-") as folder:
        app = corkboard.create_app(settings(Path(folder), arguments.url or f"sqlite:///{folder}/corkboard.db"))
        with app.app_context():
            if arguments.url:
                drop_everything()
            database.upgrade_schema()
            measure(arguments)
            db.session.remove()
            database.end_reading()
            db.engine.dispose()


if __name__ == "__main__":
    main()
