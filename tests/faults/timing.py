"""Does the time of an answer tell who has an account?

It asks in pairs, for a name that somebody has and for one that nobody has, and compares the medians:
`python -m tests.faults.timing [PAIRS]`. That takes minutes, because passwords are hashed at their real cost. It ends
with 1 if a difference is over 5 %.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.security import generate_password_hash

from app import SCRYPT, Invitation, Role, Setting, User, create_app, hash_token, transactional
from config import TestingConfig
from database import db, give_site_id, upgrade_schema

PAIRS = 300
LIMIT = 0.05
PASSWORD = "seven green bottles"
TOKEN = "of-an-invitation-for-many"


def prepare(folder: str, people: int) -> Flask:
    """Make a site with mail and open registration, and as many people as there are pairs: each is asked for once."""
    settings = {"DATA_DIR": folder, "MAIL_SERVER": "127.0.0.1", "MAIL_FROM": "board@example.com"}
    app = create_app(TestingConfig(settings | {"DATABASE_URL": f"sqlite:///{Path(folder, 'corkboard.db').as_posix()}"}))
    with app.app_context():
        upgrade_schema()
        give_site_id()
        stored = generate_password_hash(PASSWORD, method=SCRYPT)
        for name in (f"known{number}" for number in range(people)):
            profile = {"username": name, "name": name, "email": f"{name}@example.com"}
            admin = User.create(None, password_hash=stored, role=Role.ADMIN, **profile)
        Setting.change(admin, registration="open")
        invite_many(admin)
    return app


@transactional
def invite_many(admin: User) -> None:
    values = {"form_id": "i" * 32, "role": Role.MEMBER, "token_hash": hash_token(TOKEN), "uses_most": 10**6}
    db.session.add(Invitation(author_id=admin.id, **values))


def submit(client: FlaskClient, address: str, path: str, form: dict[str, str]) -> float:
    """Send a form from an address that sends no other, so that no limit is reached. Returns the seconds it took."""
    place = {"environ_overrides": {"REMOTE_ADDR": address}}
    page = client.get(path, **place).text  # type: ignore[arg-type]
    token = re.findall('name="csrf-token" content="([^"]+)"', page)[0]
    begun = time.perf_counter()
    answer = client.post(path, data=form | {"csrf_token": token}, **place)  # type: ignore[arg-type]
    took = time.perf_counter() - begun
    assert answer.status_code in (303, 422), answer.status
    return took


def sign_in(name: str) -> tuple[str, dict[str, str]]:
    return "/login", {"username": name, "password": "a wrong password"}


def reset(name: str) -> tuple[str, dict[str, str]]:
    return "/reset", {"username": f"{name}@example.com"}


def register(name: str) -> tuple[str, dict[str, str]]:
    profile = {"name": "Ida", "username": f"new-{name}", "email": f"{name}@example.com"}
    return "/register", profile | {"password": PASSWORD, "confirm": PASSWORD}


def join(name: str) -> tuple[str, dict[str, str]]:
    profile = {"name": "Ida", "username": f"joined-{name}", "email": f"{name}@example.com"}
    return f"/invite/{TOKEN}", profile | {"password": PASSWORD, "confirm": PASSWORD}


def difference(app: Flask, ask: Callable[[str], tuple[str, dict[str, str]]], third: int, pairs: int) -> float:
    """Ask in pairs, known and unknown first in turn. Prints the medians, and returns how far apart they are."""
    times: dict[str, list[float]] = {"known": [], "unknown": []}
    for number in range(pairs):
        for turn, kind in enumerate(sorted(times, reverse=bool(number % 2))):
            address = f"10.{third}.{number // 100}.{2 * (number % 100) + turn}"
            times[kind].append(submit(app.test_client(), address, *ask(f"{kind}{number}")))
    known, unknown = (statistics.median(took) for took in times.values())
    apart = abs(known - unknown) / max(known, unknown)
    print(
        f"{ask.__name__:<9} {1000 * known:8.2f} ms known {1000 * unknown:8.2f} ms unknown {apart:7.2%} apart",
        flush=True,
    )
    return apart


def main() -> int:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    with tempfile.TemporaryDirectory() as folder:
        app = prepare(folder, pairs)
        apart = [difference(app, ask, third, pairs) for third, ask in enumerate((sign_in, reset, register, join))]
        with app.app_context():
            db.engine.dispose()
    return int(max(apart) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
