"""Several people who comment, one comment after the other, and send again what they got no answer to."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable

from serving import LOST, Answer, Client

WRITERS = 6
PATIENCE = 60  # seconds for one comment or page, however often it is tried
PAUSE = 0.02  # between tries


class Load:
    """Writers and one reader, each a thread with a sign-in of its own.

    `acknowledged` has the comment id of each form id that was answered; `wrong` whatever no answer may be.
    """

    def __init__(self, connect: Callable[[], Client], username: str, password: str) -> None:
        self.acknowledged: dict[str, int] = {}
        self.lost = Counter[str]()  # requests without an answer
        self.unavailable = Counter[str]()  # answers with 503
        self.wrong: list[str] = []
        self.written = [0] * WRITERS
        self.read = 0
        self.stopping = threading.Event()
        clients = [connect().sign_in(username, password) for _ in range(WRITERS + 1)]
        posts = sorted({int(number) for number in re.findall(r'href="/posts/(\d+)"', clients[0].get("/").text)})
        self.threads = [threading.Thread(target=self._read, args=(clients[-1], posts[0]))]
        for number, client in enumerate(clients[:-1]):
            self.threads.append(threading.Thread(target=self._write, args=(number, client, posts)))

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self) -> None:
        """Let everybody get the answer that they still wait for, and end."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(PATIENCE)

    def count(self) -> int:
        return len(self.acknowledged)

    def progress(self) -> list[int]:
        """How far each of the threads has come."""
        return [*self.written, self.read]

    def _write(self, number: int, client: Client, posts: list[int]) -> None:
        try:
            while not self.stopping.is_set():
                form_id, post = secrets.token_hex(16), posts[(number + self.written[number]) % len(posts)]
                path = f"/posts/{post}/comments"
                answer = self._insist(client, "POST", path, body=f"Comment {number} by *{form_id}*", form_id=form_id)
                said = re.fullmatch(rf"/posts/{post}#comment-(\d+)", answer.headers.get("Location", ""))
                if answer.status != 303 or not said:
                    raise AssertionError(f"{path}: {answer.status} {answer.headers.get('Location')}")
                self.acknowledged[form_id] = int(said[1])
                self.written[number] += 1
        except Exception as error:
            self.wrong.append(repr(error))
        finally:
            client.close()

    def _read(self, client: Client, post: int) -> None:
        try:
            while not self.stopping.is_set():
                for path in ("/", f"/posts/{post}"):
                    answer = self._insist(client, "GET", path)
                    if answer.status != 200:
                        raise AssertionError(f"{path}: {answer.status}")
                self.read += 1
        except Exception as error:
            self.wrong.append(repr(error))
        finally:
            client.close()

    def _insist(self, client: Client, method: str, path: str, **fields: str) -> Answer:
        """Ask until there is an answer other than 503, which has to say when to come again."""
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            try:
                answer = client.post(path, **fields) if method == "POST" else client.get(path)
            except LOST:
                self.lost[method] += 1
            else:
                if answer.status != 503:
                    return answer
                if not answer.headers.get("Retry-After", "").isdecimal():
                    raise AssertionError(f"{path}: 503 without Retry-After")
                self.unavailable[method] += 1
            time.sleep(PAUSE)
        raise AssertionError(f"{path}: no answer in {PATIENCE} s")
