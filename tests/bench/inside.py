"""The part of the benchmark that needs the application at hand; each command prints one line of JSON.

python -m tests.bench.inside prepare USERNAME   a post with ten comments, posts to comment on, the deepest page
python -m tests.bench.inside statements         how many statements each request of the list on stdin takes
python -m tests.bench.inside writers SECONDS    16 threads that comment through the model, in an empty data folder
"""

from __future__ import annotations

import json
import secrets
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from flask import Flask

import app as corkboard
import database
from app import Attachment, Comment, Cursor, Notification, Post, Role, Topic, User, rows
from database import db

COMMENTS = 10
TARGETS = 8
WRITERS = 16
WARM_UP = 3
SAID = "Thank you, that helps. I take the long trays on Thursday, and the rye starter stays where it is."


def prepare(app: Flask, username: str) -> dict[str, Any]:
    """Make what the benchmark looks at. The deepest page is as long as any: the last twenty posts."""
    with app.app_context():
        person = User.by_username(username)
        assert person is not None
        writers = db.session.scalars(sa.select(User).where(User.role >= Role.MEMBER)).all()
        topic = db.session.scalars(Topic.visible_to(person)).first()
        assert topic is not None
        body = db.session.scalar(Post.visible_to(person).with_only_columns(Post.body).where(Post.kind == "news"))
        made = [
            Post.create(person, kind="news", topic_id=topic.id, title="Measured", body=body or "", form_id=form_id())
            for _ in range(1 + TARGETS)
        ]
        for number in range(COMMENTS):
            Comment.create(writers[number % len(writers)], made[0], body=SAID, form_id=form_id())
        oldest = Post.visible_to(person).where(Post.kind == "news").order_by(Post.published_at, Post.id)
        place = db.session.scalars(oldest.offset(corkboard.PAGE_SIZE).limit(1)).one()
        deepest = f"/?before={Cursor(place.published_at, place.id).encode()}"
        picture = rows(sa.select(Attachment.id, Attachment.name).where(Attachment.post_id.is_not(None))).first()
        Notification.tell()  # or it would be told of all that while it is measured
        Notification.read_all(person)
    file = f"/files/{picture.id}/{picture.name}"
    return {"post": made[0], "targets": made[1:], "deepest": deepest, "file": file}


def statements(app: Flask) -> dict[str, Any]:
    """Count for each request, once the process is warm, every statement but BEGIN, COMMIT and ROLLBACK."""
    seen: list[str] = []
    here = threading.get_ident()

    def notice(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.get_ident() == here:  # not what a thread writes behind
            seen.append(statement)

    with app.app_context():
        sa.event.listen(db.engine, "before_cursor_execute", notice)
    client = app.test_client(use_cookies=False)
    result = {}
    for name, asked in json.load(sys.stdin).items():
        for _ in range(WARM_UP):
            seen.clear()
            form = asked["fields"] and asked["fields"] | {"form_id": form_id()}
            headers = {"Cookie": asked["cookie"]}
            if asked["etag"]:
                headers["If-None-Match"] = client.get(asked["paths"][0], headers=headers).headers["ETag"]
                seen.clear()
            method = "POST" if form else "GET"
            answer = client.open(asked["paths"][0], method=method, data=form or None, headers=headers)
            if answer.status_code not in ((304,) if asked["etag"] else (200, 303)):
                raise SystemExit(f"{name}: {answer.status_code}")
        writes = [text for text in seen if not text.lstrip().upper().startswith(("SELECT", "WITH"))]
        result[name] = {"statements": len(seen), "writes": len(writes)}
    return result


def writers(app: Flask, seconds: float) -> dict[str, Any]:
    """Comment from 16 threads at once, each as fast as it can, as the view does: with the Markdown rendered before."""
    with app.app_context():
        database.upgrade_schema()
        ada = User.create(None, username="ada", name="Ada", email="ada@example.com", password_hash="-", role=Role.ADMIN)
        topic = Topic.create(ada, form_id=form_id(), name="Everyone")
        text = {"kind": "news", "topic_id": topic.id, "title": "Measured", "body": SAID}
        targets = [Post.create(ada, form_id=form_id(), **text) for _ in range(TARGETS)]
        actor, rendered = SimpleNamespace(id=ada.id), corkboard.render_markdown(SAID)
    taken: list[list[float]] = [[] for _ in range(WRITERS)]
    errors: list[str] = []
    gate = threading.Barrier(WRITERS + 1)
    end = float("inf")

    def write(number: int) -> None:
        gate.wait()
        while (began := time.perf_counter()) < end:
            post_id = targets[(number + len(taken[number])) % TARGETS]
            try:
                with app.app_context():
                    Comment.create(actor, post_id, body=SAID, form_id=form_id(), rendered=rendered)  # type: ignore[arg-type]
            except Exception as error:
                errors.append(repr(error))
            taken[number].append(time.perf_counter() - began)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    end = began + seconds
    gate.wait()
    for thread in threads:
        thread.join()
    passed = time.perf_counter() - began
    durations = sorted(duration for each in taken for duration in each)
    with app.app_context():
        stored = rows(sa.select(sa.func.count()).select_from(Comment)).scalar_one()
    if stored != len(durations) - len(errors):
        errors.append(f"{len(durations)} comments were written, {stored} are stored")
    return {
        "per_second": stored / passed, "errors": len(errors), "first_error": (errors or [""])[0],
        "p50": percentile(durations, 50) * 1000, "p99": percentile(durations, 99) * 1000,
    }  # fmt: skip


def percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def form_id() -> str:
    return secrets.token_hex(16)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    made = corkboard.create_app()
    if command == "prepare":
        outcome = prepare(made, *arguments)
    elif command == "statements":
        outcome = statements(made)
    else:
        outcome = writers(made, float(arguments[0]))
    corkboard.stop_background(made)
    print(json.dumps(outcome))
