"""A long day: `python tests/faults/soak.py` sends 200,000 mixed requests to a served site and watches its process.

After it has warmed up, its memory may grow by less than a megabyte in 10,000 requests, its open files and the log of
SQLite stay as they are, and no answer is a 5xx. Needs Linux. `--requests 20000` asks for less, `--folder` keeps the
site, and the last line says whether all held.
"""

from __future__ import annotations

import argparse
import random
import re
import secrets
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import PASSWORD, add_person, add_post, add_topic, made_app
from serving import LOST, Answer, Client, Site

from app import Role, g, utcnow

PEOPLE, POSTS = ("ada", "ben", "cleo", "dan"), 40  # few, so that their pages are full of comments early
PAUSE_FOR = 2000  # requests of one person, after which they sign out and in again
WARM_UP = 0.5  # of the requests: by then, the kept parts of pages are as many as there may be (`_draw_part`)
GROWTH_MAX = 1.0  # MB in 10,000 requests
WAL_MAX = 16.0  # MB; SQLite empties its log whenever it has 4
FILES_MORE = 12  # than after the warm-up: how many connections are open is not always the same
SEARCHES = ("crane", "thursday", "hall", "post 1", "comm", "zzyzx", "ada")


class Moment(NamedTuple):
    """What the served process takes after so many requests."""

    requests: int
    memory: float  # MB
    files: int
    wal: float  # MB

    def __str__(self) -> str:
        return f"{self.requests:>8,} requests: {self.memory:.1f} MB, {self.files} open files, log of {self.wal:.1f} MB"


class Soak:
    """Four people who read, look for things and write, and what was seen of the process meanwhile."""

    def __init__(self, site: Site, requests: int, tell: Callable[[object], None] = print) -> None:
        self.site, self.requests, self.tell = site, requests, tell
        self.every = max(requests // 20, 100)
        self.statuses = Counter[int]()
        self.wrong: list[str] = []
        self.moments: list[Moment] = []
        self.begun, self.lock = 0, threading.Lock()

    def run(self) -> Soak:
        threads = [threading.Thread(target=self._be, args=(name,)) for name in PEOPLE]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._note(self.requests)
        return self

    def growth(self) -> float:
        """The megabytes that the memory grew in 10,000 requests, after the warm-up: the slope of the best line."""
        warm = [moment for moment in self.moments if moment.requests >= self.requests * WARM_UP]
        return 10_000 * statistics.linear_regression(
            [moment.requests for moment in warm], [moment.memory for moment in warm]
        )[0]  # fmt: skip

    def more_files(self) -> int:
        warm = [moment.files for moment in self.moments if moment.requests >= self.requests * WARM_UP]
        return max(warm) - warm[0]

    def largest_wal(self) -> float:
        return max(moment.wal for moment in self.moments)

    def failures(self) -> int:
        return sum(count for status, count in self.statuses.items() if status >= 500)

    def _be(self, name: str) -> None:
        try:
            person = Client(self.site.port, timeout=60).sign_in(name, PASSWORD)
            mine = 0
            while self._take_turn():
                mine += 1
                if mine % PAUSE_FOR == 0:
                    person.post("/logout")
                    person.sign_in(name, PASSWORD)
                self._ask(person)
            person.close()
        except Exception as error:
            self.wrong.append(f"{name}: {error!r}")

    def _take_turn(self) -> bool:
        with self.lock:
            if self.begun >= self.requests or self.wrong:
                return False
            self.begun += 1
            if self.begun % self.every == 0:
                self._note(self.begun)
            return True

    def _ask(self, person: Client) -> None:
        kind, number = random.choices(KINDS, WEIGHTS)[0], random.randint(1, POSTS)
        try:
            answer = ASKED[kind](person, number)
        except LOST as error:
            self.wrong.append(f"{kind} {number}: {error!r}")
            return
        self.statuses[answer.status] += 1
        if answer.status not in EXPECTED.get(kind, (200,)):
            self.wrong.append(f"{kind} {number}: {answer.status}")

    def _note(self, requests: int) -> None:
        assert self.site.process is not None
        process, log = Path("/proc", str(self.site.process.pid)), self.site.folder / "corkboard.db-wal"
        resident = int(re.findall(r"VmRSS:\s+(\d+) kB", (process / "status").read_text(encoding="utf-8"))[0])
        wal = log.stat().st_size if log.exists() else 0
        self.moments.append(Moment(requests, resident / 1024, len([*(process / "fd").iterdir()]), wal / 2**20))
        self.tell(self.moments[-1])


def comment(person: Client, number: int) -> Answer:
    body = f"See *you* on Thursday, {random.randint(1, 10**6)}, in hall {number}."
    return person.post(f"/posts/{number}/comments", body=body, form_id=secrets.token_hex(16))


def upload(person: Client, number: int) -> Answer:
    part = f'--x\r\nContent-Disposition: form-data; name="upload"; filename="{number}.txt"\r\n\r\n{number}\r\n--x--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x", "X-CSRFToken": person.csrf_token}
    return person._ask("POST", "/files", part, kind)


# What is asked for, and how often in a hundred.
ASKED: dict[str, Callable[[Client, int], Answer]] = {
    "home": lambda person, _: person.get("/"),
    "post": lambda person, number: person.get(f"/posts/{number}"),
    "topic": lambda person, _: person.get("/topics/everyone"),
    "history": lambda person, number: person.get(f"/posts/{number}/history"),
    "form": lambda person, _: person.get("/posts/new"),
    "handbook": lambda person, _: person.get("/handbook"),
    "people": lambda person, _: person.get("/people"),
    "profile": lambda person, number: person.get(f"/people/{PEOPLE[number % len(PEOPLE)]}"),
    "search": lambda person, number: person.get(f"/search?q={SEARCHES[number % len(SEARCHES)].replace(' ', '+')}"),
    "bell": lambda person, _: person.get("/notifications"),
    "poll": lambda person, _: person.get("/notifications/poll"),
    "style": lambda person, _: person.get("/static/app.css"),
    "missing": lambda person, number: person.get(f"/posts/{number + 10**6}"),
    "preview": lambda person, number: person.post("/posts/preview", body=f"Number **{number}**\n\n| a |\n|--|\n| b |"),
    "follow": lambda person, number: person.post(f"/posts/{number}/follow", state="following"),
    "comment": comment,
    "upload": upload,
}
KINDS = [*ASKED]
WEIGHTS = [20, 24, 4, 2, 2, 4, 4, 3, 6, 4, 10, 4, 2, 2, 2, 6, 1]
EXPECTED = {"missing": (404,), "comment": (303,), "follow": (303,)}


def prepared(folder: Path) -> Site:
    """A site with four people and 200 posts, served."""
    folder.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{(folder / 'corkboard.db').as_posix()}"
    with made_app(folder, url) as app, app.app_context():
        g.now = utcnow()
        people = [add_person(name, Role.EDITOR) for name in PEOPLE]
        topic = add_topic(people[0], "Everyone")
        for number in range(POSTS):
            add_post(people[number % len(people)], topic, f"Post {number}", kind=("news", "page")[number % 8 == 0])
    site = Site(folder, url)
    site.start()
    return site


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="a new folder for the site, which is kept")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="corkboard-soak-") as folder:
        site, began = prepared(wanted.folder or Path(folder) / "data"), time.monotonic()
        with site:
            soak = Soak(site, wanted.requests, lambda moment: print(moment, flush=True)).run()
    for wrong in soak.wrong:
        print(wrong)
    if soak.wrong:
        return 1
    growth, files, wal = soak.growth(), soak.more_files(), soak.largest_wal()
    print(f"{sum(soak.statuses.values()):,} answers in {time.monotonic() - began:,.0f} s: {dict(soak.statuses)}")
    print(f"memory: {growth:+.2f} MB in 10,000 requests; open files: {files:+}; log: at most {wal:.1f} MB")
    sound = not soak.failures() and growth < GROWTH_MAX and files <= FILES_MORE and wal <= WAL_MAX
    print("All held." if sound else "It did not hold.")
    return int(not sound)


if __name__ == "__main__":
    sys.exit(main())
