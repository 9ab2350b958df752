"""The part of the benchmark that needs the application itself. Each command prints one line of JSON.

python -m tests.bench.inside people NUMBER    make people and sign them in: the cookie of each
python -m tests.bench.inside statements       count the statements of what the JSON on stdin asks for
"""

from __future__ import annotations

import json
import re
import secrets
import sys
from typing import Any

import sqlalchemy as sa
from flask import Flask

from app import Role, SignIn, User, create_app
from database import db
from tests.bench.driving import SAID


def people(app: Flask, number: int) -> list[str]:
    """Make that many members and sign each of them in. Returns their cookies."""
    serializer = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
    cookies = []
    for name in (f"person{count}" for count in range(number)):
        profile = {"username": name, "name": name.capitalize(), "email": f"{name}@example.com"}
        user = User.create(None, password_hash="-", role=Role.MEMBER, **profile)
        token = SignIn.start(user.id, False, "Firefox on Linux", "127.0.0.1")
        session = serializer.dumps({"token": token, "csrf_token": secrets.token_hex(20)})
        cookies.append(f"{app.config['SESSION_COOKIE_NAME']}={session}")
    return cookies


class Browser:
    """A test client of somebody who is signed in."""

    def __init__(self, app: Flask, cookie: str) -> None:
        self.client, self.headers = app.test_client(use_cookies=False), {"Cookie": cookie}
        self.token = re.findall(r'<meta name="csrf-token" content="([^"]+)">', self.look("/people"))[0]

    def look(self, address: str) -> str:
        answer = self.client.get(address, headers=self.headers)
        assert answer.status_code == 200, f"{address}: {answer.status}"
        return answer.text

    def comment(self, post: str) -> None:
        form = {"csrf_token": self.token, "body": SAID, "form_id": secrets.token_hex(16)}
        answer = self.client.post(f"{post}/comments", data=form, headers=self.headers)
        assert answer.status_code == 303, f"{post}: {answer.status}"


def statements(seen: list[str], asked: dict[str, Any], reader: Browser, writer: Browser) -> dict[str, int]:
    """Count what each request adds to `seen`. The reader knows the pages; the writer comments in between."""
    counts = {}
    for name, address in asked["pages"].items():
        reader.look(address)
        writer.comment(asked["post"])
        seen.clear()
        reader.look(address)
        counts[name] = len(seen)
    for name, request in ((asked["new"], reader.look), (asked["comment"], reader.comment)):
        seen.clear()
        request(asked["post"])
        counts[name] = len(seen)
    return counts


def watch(app: Flask) -> list[str]:
    """Returns a list that grows by every statement and every BEGIN, but by no COMMIT or ROLLBACK."""
    seen: list[str] = []

    def before_execute(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):  # the other event counts these
            seen.append(statement)

    with app.app_context():
        sa.event.listen(db.engine, "before_cursor_execute", before_execute)
        sa.event.listen(db.engine, "begin", lambda _connection: seen.append("BEGIN"))
    return seen


if __name__ == "__main__":
    made = create_app()
    if sys.argv[1] == "people":
        with made.app_context():
            print(json.dumps(people(made, int(sys.argv[2]))))
    else:
        wanted = json.load(sys.stdin)
        print(json.dumps(statements(watch(made), wanted, *(Browser(made, cookie) for cookie in wanted["cookies"]))))
