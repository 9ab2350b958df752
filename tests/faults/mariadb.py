"""A MariaDB of the test's own, which it may kill: on a free port, with its data in a folder of the test's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pymysql
from serving import free_port, until

SYSTEM_PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
MARIADBD = shutil.which("mariadbd", path=SYSTEM_PLACES)
INSTALL_DB = shutil.which("mariadb-install-db", path=SYSTEM_PLACES)
MISSING = "no mariadbd here (Debian: apt-get install mariadb-server)"


def is_installed() -> bool:
    return bool(MARIADBD and INSTALL_DB)


class MariaDB:
    """A server with one database. As shipped it writes every commit to the disk before it answers."""

    def __init__(self, folder: Path, settings: Path | None = None, user: str = "") -> None:
        assert MARIADBD
        assert INSTALL_DB
        self.folder, self.port = folder, free_port()
        self.settings = f"--defaults-file={settings}" if settings else "--no-defaults"
        self.process: subprocess.Popen[bytes] | None = None
        # The current account: as root the server would otherwise refuse, and mysql may not read a private folder.
        self.common = [f"--datadir={folder / 'data'}", f"--user={user or account()}"]
        flags = ["--skip-test-db", "--auth-root-authentication-method=normal"]
        subprocess.run(
            [INSTALL_DB, "--no-defaults", *self.common, *flags], check=True, capture_output=True, timeout=120
        )

    @property
    def url(self) -> str:
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/corkboard"

    def __enter__(self) -> MariaDB:
        self.start()
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE corkboard")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *once: str) -> None:
        """Start, and wait until it answers."""
        where = [f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
        # A short path of its own: the system's limit for a socket is 107 characters.
        files = [f"--socket={self.folder.name}.sock", f"--pid-file={self.folder / 'pid'}"]
        small = ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M"]
        assert MARIADBD
        with open(self.folder / "log.txt", "ab") as log:
            command = [MARIADBD, self.settings, *self.common, *where, *files, *small, *once]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._answers, "MariaDB does not answer", seconds=60)

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"mariadbd ended:\n{(self.folder / 'log.txt').read_text()[-2000:]}")
        try:
            self.connect().close()
        except pymysql.err.OperationalError:
            return False
        return True

    def connect(self) -> pymysql.Connection:
        return pymysql.connect(host="127.0.0.1", port=self.port, user="root", connect_timeout=5)

    def stop(self) -> None:
        """Shut down as an administrator does."""
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """As a power cut does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


def account() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name
