"""How long a backup and a restore of a large site take, and how much memory.

    python tests/bench/backup.py --posts 200000

With TEST_MYSQL_URL, which names a database that may be cleared, it is restored there too. What is required: a backup in
a minute, a restore in three, and 200 MB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent
REQUIRED = {"backup": 60, "restore": 180}
MEMORY_MAX = 200


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    asked.add_argument("--posts", type=int, default=200_000)
    asked.add_argument("--folder", type=Path, help="where the sites are made; a temporary folder otherwise")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        source, archive = folder / "source", folder / "site.zip"
        if not (source / "corkboard.db").exists():
            flask(source, "", "init-db")
            flask(source, "", "seed-demo", "--posts", str(given.posts))
        archive.unlink(missing_ok=True)
        sound = measure("backup", source, "", "backup", str(archive))
        print(f"  {archive.stat().st_size / 1e6:.0f} MB, of a database of {size(source):.0f} MB")
        sound &= measure("restore", folder / "target", "", "restore", str(archive), "--replace")
        if url := os.environ.get("TEST_MYSQL_URL"):
            sound &= measure("restore", folder / "mysql", url, "restore", str(archive), "--replace")
            archive.unlink()
            sound &= measure("backup", folder / "mysql", url, "backup", str(archive))
    sys.exit(not sound)


def size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("corkboard.db*")) / 1e6


def flask(folder: Path, url: str, *arguments: str) -> tuple[float, float]:
    """Run a command. Returns its seconds, and the most memory that it had, in MB."""
    environ = {**os.environ, "DATA_DIR": str(folder), "DATABASE_URL": url}
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "flask", *arguments], cwd=PROJECT, env=environ)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(arguments)} failed")
    return time.monotonic() - began, usage.ru_maxrss / 1024


def measure(name: str, folder: Path, url: str, *arguments: str) -> bool:
    """Run a command and print what it took. Returns whether that is as required."""
    seconds, memory = flask(folder, url, *arguments)
    engine = "MySQL" if url else "SQLite"
    print(f"{name:<8} {engine:<7} {seconds:6.1f} s of {REQUIRED[name]}, {memory:5.0f} MB of {MEMORY_MAX}")
    return seconds <= REQUIRED[name] and memory <= MEMORY_MAX


if __name__ == "__main__":
    main()
