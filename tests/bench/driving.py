"""The load: wrk on a core of its own, and what it measured."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

CONNECTIONS = 4
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
WRK_SAYS = {
    "per_second": r"Requests/sec:\s+([\d.]+)",
    "requests": r"(\d+) requests in",
    "p50": r"50%\s+([\d.]+)(us|ms|s|m)\b",
    "p99": r"99%\s+([\d.]+)(us|ms|s|m)\b",
}

# Each request goes to the next of the addresses.
PATHS = """
local paths = {%s}
local sent = 0
request = function()
  sent = sent + 1
  return wrk.format("GET", paths[sent %% #paths + 1])
end
"""
# Each form has an id of its own, so that each one creates.
FORMS = """
local paths = {%s}
local sent = 0
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
request = function()
  sent = sent + 1
  return wrk.format("POST", paths[sent %% #paths + 1], nil, "%s&form_id=%s" .. string.format("%%016x", sent))
end
"""


def cores() -> tuple[int | None, int | None]:
    """One core to serve on and another to drive from; none where the system cannot say so, or has only one."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (usable[0], usable[-1]) if len(usable) > 1 else (None, None)


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started meanwhile stays on that core: a process inherits it from the thread that starts it."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Ask(NamedTuple):
    """A request: to one or several addresses in turn, with a cookie, and by POST where there are fields.

    With an `etag` the one who asks has the answer already, and expects to hear that nothing has changed (304).
    """

    paths: Sequence[str]
    cookie: str = ""
    fields: Mapping[str, str] = {}
    connections: int = CONNECTIONS
    etag: str = ""


class Load(NamedTuple):
    """What came of it: requests a second and in all; milliseconds that one took, and that the server worked for it."""

    per_second: float
    requests: int
    p50: float
    p99: float
    cpu: float


def worked(pid: int) -> float:
    """Milliseconds that a process has worked so far; 0 where the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return 0.0
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) * 1000 / os.sysconf("SC_CLK_TCK")


def drive(port: int, pid: int, ask: Ask, seconds: float, core: int | None, folder: Path) -> Load:
    """Ask a process as often as possible. Raises `RuntimeError` unless every answer is a success or a redirect."""
    whole = max(1, round(seconds))  # wrk knows no parts of a second, and is interrupted after them
    command = ["wrk", "--threads=1", f"--connections={ask.connections}", f"--duration={whole}s", "--latency"]
    command += ["--timeout=15s", f"--header=Cookie: {ask.cookie}"]
    if ask.etag:
        command.append(f"--header=If-None-Match: {ask.etag}")
    if ask.fields or len(ask.paths) > 1:
        command.append(f"--script={script(ask, folder)}")
    before = worked(pid)
    with on_core(core):
        output = wrk([*command, f"http://127.0.0.1:{port}{ask.paths[0]}"], seconds if seconds < 1 else None)
    if wrong := re.findall(r"Non-2xx.*|Socket errors.*", output):
        raise RuntimeError(f"{ask.paths[0]}: {'; '.join(wrong)}")
    found = {key: re.search(pattern, output) for key, pattern in WRK_SAYS.items()}
    said = {key: match.groups() for key, match in found.items() if match}
    if len(said) < len(WRK_SAYS):
        raise RuntimeError(f"wrk said something unexpected about {ask.paths[0]}:\n{output}")
    p50, p99 = (float(said[key][0]) * UNITS[said[key][1]] for key in ("p50", "p99"))
    requests = int(said["requests"][0])
    return Load(float(said["per_second"][0]), requests, p50, p99, (worked(pid) - before) / max(1, requests))


def wrk(command: Sequence[str], interrupted_after: float | None) -> str:
    """Run it to its end, or until Ctrl+C, at which it tells what it has measured so far."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        if interrupted_after:
            time.sleep(interrupted_after)
            process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=120)
        finally:
            process.kill()
    if process.returncode == -signal.SIGINT:  # it had not begun to listen for that yet: then for as long as it takes
        return wrk(command, None)
    if process.returncode:
        raise RuntimeError(f"wrk ended with {process.returncode}:\n{output}")
    return output


def script(ask: Ask, folder: Path) -> Path:
    path = folder / "asks.lua"
    listed = ", ".join(f'"{path}"' for path in ask.paths)
    forms = FORMS % (listed, urlencode(ask.fields), secrets.token_hex(8)) if ask.fields else PATHS % listed
    path.write_text(forms, encoding="ascii")
    return path
