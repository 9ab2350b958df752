"""Settings: read once from the environment and from `.env`, checked, and handed to Flask as one object.

`load()` returns an object of the class that APP_ENV names. The default is production, because that is the safe one.
A bad value stops nothing here. It becomes a `Finding`, and the default takes its place, so that `require_sound()`
(which `create_app` calls) can list everything that is wrong. `.env.example` explains each setting with its default.
`site_address()` says where people open the site. `configure_logging()` sets up the log.
"""

import contextlib
import json
import logging
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from flask import Flask

PROJECT_DIR = Path(__file__).resolve().parent
# How Flask's commands are typed on this computer, in the folder of this file.
PYTHON = sys.executable.removeprefix(f"{PROJECT_DIR}{os.sep}")
FLASK = (f'"{PYTHON}"' if " " in PYTHON else PYTHON) + " -m flask"
MEGABYTE = 1024 * 1024
SECRET_KEY_MIN_LENGTH = 32
KNOWN_SECRET_KEYS = {
    "dev",
    "development",
    "changeme",
    "change-me",
    "secret",
    "secret-key",
    "password",
    "corkboard",
    "please-change-this-secret-key-now",
    "replace-me-with-a-long-random-string",
}
DATABASE_DRIVERS = {
    "sqlite": "sqlite",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "mysql+pymysql": "mysql+pymysql",
    "mariadb+pymysql": "mariadb+pymysql",
}
NETWORK_FILESYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "davfs", "glusterfs", "lustre"}
NETWORK_FILESYSTEMS |= {"fuse.sshfs", "fuse.davfs2", "fuse.glusterfs", "fuse.ceph", "fuse.rclone", "fuse.s3fs"}

Value = TypeVar("Value")


class Finding(NamedTuple):
    """One thing that was checked: whether it is right, what was found and, if it is wrong, what to do."""

    ok: bool
    name: str
    text: str
    remedy: str = ""
    link: str = ""  # the page where one does it

    def __str__(self) -> str:
        line = f"{'ok' if self.ok else 'FAILED':<6}  {self.name}: {self.text}"
        return line if self.ok or not self.remedy else f"{line}\n        {self.remedy}"


class ConfigError(click.ClickException):
    """The settings are not sound. Its text lists every finding. The commands and `wsgi.py` print it and exit with 1."""

    def __init__(self, findings: Iterable[Finding]):
        self.findings = list(findings)
        lines = [str(finding) for finding in self.findings if not finding.ok]
        super().__init__("\n".join(["Corkboard can't start with these settings.", *lines]))

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.format_message(), file=file, err=file is None)


# == The settings ======================================================================================================


class Config:
    """Every setting as an upper-case attribute, for `app.config.from_object(Config())`."""

    APP_ENV = "production"
    DEBUG = False
    TESTING = False
    TEMPLATES_AUTO_RELOAD = False

    TRUSTED_HOSTS = None  # Flask's own check cannot let every IP address in: see OWN_HOSTS
    SESSION_COOKIE_HTTPONLY = True
    SESSION_COOKIE_SAMESITE = "Lax"
    SESSION_REFRESH_EACH_REQUEST = False
    PERMANENT_SESSION_LIFETIME = timedelta(days=30)
    SEND_FILE_MAX_AGE_DEFAULT = 365 * 24 * 60 * 60
    # A token lives as long as its session. With Flask-WTF's limit, nobody could write for more than an hour.
    WTF_CSRF_TIME_LIMIT = None
    BOOTSTRAP_SERVE_LOCAL = True

    def __init__(self, environ: Mapping[str, str] | None = None):
        self._environ = read_environment() if environ is None else environ
        self._findings: list[Finding] = []
        self._names: set[str] = set()
        self._read_app_env()
        self._read_data()
        self._read_secrets()
        self._read_server()
        self._read_mail()
        self._read_company_sign_in()
        self._read_the_rest()
        if self.APP_ENV == "production":
            self._check_production()

    def findings(self) -> list[Finding]:
        return list(self._findings)

    def require_sound(self) -> None:
        if not all(finding.ok for finding in self._findings):
            raise ConfigError(self._findings)

    def misspelt(self) -> Finding:
        """Return what `check` says of variables that are almost called like a setting. They stop nothing."""
        unknown = self._environ.keys() - self._names
        meant = {name: get_close_matches(name.upper(), self._names, 1, 0.85) for name in sorted(unknown)}
        wrong = [f"{name} (is it {close[0]}?)" for name, close in meant.items() if close]
        text = f"unknown: {', '.join(wrong)}" if wrong else "none of them is misspelt"
        return Finding(not wrong, "names of settings", text, "Correct the name in .env, or take the variable out.")

    def _read_app_env(self) -> None:
        given = self._given("APP_ENV")
        known = not given or given in config
        self._found(known, "APP_ENV", self.APP_ENV if known else f"{given!r} is not known", f"Use {one_of(config)}.")

    def _read_data(self) -> None:
        default = PROJECT_DIR / "instance"
        self.DATA_DIR: Path = self._read("DATA_DIR", default, data_folder)
        self._check_folders()
        read_url = database_url_in(self.DATA_DIR)
        default_url = read_url("sqlite:///corkboard.db")
        self.DATABASE_URL: str = self._read("DATABASE_URL", default_url, read_url, without_password)

    def _check_folders(self) -> None:
        """Make the data folder and that of the log, for their owner only, where they do not exist yet."""
        remedy = "Let the account that runs Corkboard read and write it (was a command run by another account?)"
        remedy += ", or set DATA_DIR to another folder."
        for name, folder in (("data folder", self.DATA_DIR), ("log folder", self.DATA_DIR / "logs")):
            trouble = folder_trouble(folder)
            self._found(not trouble, name, trouble or "there, and can be written to", remedy)

    def _read_secrets(self) -> None:
        self.SECRET_KEY: str = self._given("SECRET_KEY") or self._kept_secret_key()
        self.SECRET_KEY_FALLBACKS: list[str] = self._read("SECRET_KEY_FALLBACKS", [], words, how_many)
        if self._given("SECRET_KEY"):
            self._check_secret_key("SECRET_KEY", self.SECRET_KEY)
        for key in self.SECRET_KEY_FALLBACKS:
            self._check_secret_key("SECRET_KEY_FALLBACKS", key)

    def _kept_secret_key(self) -> str:
        """Return the key of the data folder. If it cannot be kept there, it is empty, and the site does not start."""
        path = self.DATA_DIR / "secret_key"
        try:
            key = keep_secret_key(path)
        except (OSError, UnicodeDecodeError) as error:
            remedy = "Let the account that runs Corkboard read and write this folder, or set SECRET_KEY."
            self._found(False, "SECRET_KEY", f"cannot be kept in {path} ({reason(error)})", remedy)
            return ""
        remedy = "Delete the file. A new key is made at the next start, and everyone signs in again."
        sound = len(key) >= SECRET_KEY_MIN_LENGTH
        self._found(sound, "SECRET_KEY", f"kept in {path}" if sound else f"{path} is damaged", remedy)
        return key

    def _check_secret_key(self, name: str, key: str) -> None:
        if self.APP_ENV != "production":
            self._found(True, name, "set")
            return
        known, short = key.lower() in KNOWN_SECRET_KEYS, len(key) < SECRET_KEY_MIN_LENGTH
        text = "a key that is publicly known" if known else f"shorter than {SECRET_KEY_MIN_LENGTH} characters"
        remedy = "Leave it out, and Corkboard generates one and keeps it. Or use the output of: "
        remedy += 'python -c "import secrets; print(secrets.token_hex(32))"'
        self._found(not (known or short), name, text if known or short else "set", remedy)

    def _read_server(self) -> None:
        self.HOST: str = self._read("HOST", "127.0.0.1", host)
        self.PORT: int = self._read("PORT", 8000, whole_number(1, 65535))
        self.THREADS: int = self._read("THREADS", 8, whole_number(2, 64))
        self.SITE_URL: str = self._read("SITE_URL", "", site_url)
        self.TRUSTED_PROXY: str = self._read("TRUSTED_PROXY", "", ip_address)
        trusted: list[str] = self._read("TRUSTED_HOSTS", [], trusted_hosts)
        public = urlsplit(self.SITE_URL)
        self.OWN_HOSTS = [".localhost", *filter(None, [public.hostname]), *trusted]
        self.SESSION_COOKIE_SECURE = public.scheme == "https"
        self._name_cookie(public.port if self.SITE_URL else self.PORT)

    def _name_cookie(self, port: int | None) -> None:
        """Put the port into the name, because browsers share cookies between all ports of a computer."""
        prefix = "__Host-" if self.SESSION_COOKIE_SECURE else ""
        self.SESSION_COOKIE_NAME = f"{prefix}corkboard{f'-{port}' if port else ''}"

    def _read_mail(self) -> None:
        self.MAIL_SERVER: str = self._read("MAIL_SERVER", "", mail_server)
        self.MAIL_PORT: int = self._read("MAIL_PORT", 587, whole_number(1, 65535))
        self.MAIL_USE_TLS: bool = self._read("MAIL_USE_TLS", "yes", choice("yes", "no")) == "yes"
        self.MAIL_CA_FILE: str = self._read("MAIL_CA_FILE", "", ca_file)
        self.MAIL_USERNAME: str = self._read("MAIL_USERNAME", "", str)
        self.MAIL_PASSWORD: str = self._read("MAIL_PASSWORD", "", str, hidden)
        self.MAIL_FROM: str = self._read("MAIL_FROM", "", mail_from)
        if self.MAIL_SERVER:
            self._check_mail()

    def _check_mail(self) -> None:
        unsafe = self.MAIL_PASSWORD and not self.MAIL_USE_TLS and self.MAIL_SERVER not in ("localhost", "127.0.0.1")
        halved = bool(self.MAIL_USERNAME) != bool(self.MAIL_PASSWORD)
        for wrong, text, remedy in (
            (not self._given("MAIL_FROM"), "set without MAIL_FROM", "Set MAIL_FROM to the sender's address."),
            (halved, "set without one of MAIL_USERNAME and MAIL_PASSWORD", "Set both, or neither."),
            (unsafe, "would be sent MAIL_PASSWORD unencrypted", "Remove MAIL_USE_TLS=no, or the password."),
        ):
            if wrong:
                self._found(False, "MAIL_SERVER", text, remedy)

    def _read_company_sign_in(self) -> None:
        self.OIDC_ISSUER: str = self._read("OIDC_ISSUER", "", issuer)
        self.OIDC_CLIENT_ID: str = self._read("OIDC_CLIENT_ID", "", str)
        self.OIDC_CLIENT_SECRET: str = self._read("OIDC_CLIENT_SECRET", "", str, hidden)
        names = ("OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET")
        missing = [name for name in names if not self._given(name)]
        if 0 < len(missing) < len(names):
            remedy = "Your provider shows all three where you registered Corkboard there."
            self._found(False, "sign-in with the company's account", f"{one_of(missing)} is missing", remedy)

    def _read_the_rest(self) -> None:
        self.MAX_UPLOAD_MB: int = self._read("MAX_UPLOAD_MB", 25, whole_number(1, 4096))
        self.MAX_CONTENT_LENGTH = self.MAX_UPLOAD_MB * MEGABYTE + 64 * 1024  # a form is larger than its file
        # A form of many files, or with a text that is too long, gets to the view, which says so beside the field.
        self.MAX_FORM_PARTS, self.MAX_FORM_MEMORY_SIZE = 10_000, None
        levels = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
        self.LOG_LEVEL: str = self._read("LOG_LEVEL", "INFO", choice(*levels))
        self.LOG_FORMAT: str = self._read("LOG_FORMAT", "text", choice("text", "json"))
        self.METRICS_TOKEN: str = self._read("METRICS_TOKEN", "", bearer_token, hidden)
        self.TIMEZONE: str = self._read("TIMEZONE", "UTC", time_zone)
        self.RATELIMIT_STORAGE_URI: str = self._read(
            "RATELIMIT_STORAGE_URI", "memory://", storage_uri, without_password
        )
        in_redis = self.RATELIMIT_STORAGE_URI.startswith("redis")
        self.RATELIMIT_STORAGE_OPTIONS = {"socket_connect_timeout": 1, "socket_timeout": 1} if in_redis else {}
        self.BACKUP_KEEP: int = self._read("BACKUP_KEEP", 7, whole_number(1, 366))

    def _check_production(self) -> None:
        asked = [name for name in ("FLASK_DEBUG", "APP_DEBUG") if self._given(name).lower() not in OFF]
        text = f"asked for by {' and '.join(asked)}" if asked else "off"
        self._found(not asked, "debug mode", text, "Remove it, or set APP_ENV=development on your own machine.")

        text, remedy = sqlite_trouble(self.DATABASE_URL)
        self._found(not text, "place of the database", text or "fit for it", remedy)

        missing = bool(self.TRUSTED_PROXY and not self.SITE_URL)
        text = "SITE_URL is missing, and TRUSTED_PROXY is set" if missing else "matches the settings"
        remedy = "Set SITE_URL to the address that people type, such as https://intranet.example.com."
        self._found(not missing, "address of the site", text, remedy)

    def _given(self, name: str) -> str:
        self._names.add(name)
        return self._environ.get(name, "").strip()

    def _read(
        self, name: str, default: Value, parse: Callable[[str], Value], show: Callable[[Any], str] = str
    ) -> Value:
        """Return the value of a setting. `parse` raises a ValueError that says what would be right."""
        given = self._given(name)
        try:
            value = parse(given) if given else default
        except ValueError as error:
            self._found(False, name, f"{show(given)!r} cannot be used", str(error))
            return default
        self._found(True, name, show(value) if value else "not set")
        return value

    def _found(self, ok: bool, name: str, text: str, remedy: str = "") -> None:
        self._findings.append(Finding(ok, name, text, "" if ok else remedy))


class DevelopmentConfig(Config):
    """For work on the code: it has the debugger, and reloads templates."""

    APP_ENV = "development"
    DEBUG = True
    TEMPLATES_AUTO_RELOAD = True


class TestingConfig(Config):
    """For the tests: exceptions reach them instead of becoming error pages."""

    __test__ = False  # pytest would take it for a test class
    APP_ENV = "testing"
    TESTING = True


class ProductionConfig(Config):
    """For a team's site: it refuses whatever would put their data at risk."""


config: dict[str, type[Config]] = {
    "development": DevelopmentConfig,
    "testing": TestingConfig,
    "production": ProductionConfig,
}


def load(environ: Mapping[str, str] | None = None) -> Config:
    """Return the settings for APP_ENV. For an unknown name they are those of production, with a finding about it."""
    environ = read_environment() if environ is None else environ
    return config.get(environ.get("APP_ENV", "").strip(), ProductionConfig)(environ)


def read_environment(dotenv: Path = PROJECT_DIR / ".env") -> dict[str, str]:
    """Return the variables of the process and those of `.env`. The former win.

    Raises `ConfigError` if the file cannot be read.
    """
    try:
        if not dotenv.is_file():
            return dict(os.environ)
        from dotenv import dotenv_values

        # utf-8-sig: Notepad can begin a file with a byte order mark. No interpolation: a password can have a dollar.
        kept = dotenv_values(dotenv, encoding="utf-8-sig", interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        remedy = "Let the account that runs Corkboard read it, and save it as UTF-8."
        raise ConfigError([Finding(False, str(dotenv), f"cannot be read ({reason(error)})", remedy)]) from error
    return {name: value for name, value in kept.items() if value is not None} | dict(os.environ)


# == Readers: each returns the value of a text, or raises a ValueError that says what would be right ===================

OFF = {"", "0", "false", "no", "off"}
HOST_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HOST_NAME = re.compile(rf"{HOST_LABEL}(\.{HOST_LABEL})*", re.IGNORECASE)


def one_of(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def choice(*names: str) -> Callable[[str], str]:
    def parse(given: str) -> str:
        for name in names:
            if given.lower() == name.lower():
                return name
        raise ValueError(f"Use {one_of(names)}.")

    return parse


def whole_number(low: int, high: int) -> Callable[[str], int]:
    def parse(given: str) -> int:
        # isdecimal alone accepts the digits of every script.
        if given.isascii() and given.isdecimal() and len(given) < 10 and low <= int(given) <= high:
            return int(given)
        raise ValueError(f"Use a whole number from {low} to {high}.")

    return parse


def words(given: str) -> list[str]:
    return [word.strip() for word in given.split(",") if word.strip()]


def how_many(values: list[str] | str) -> str:
    """Return how many secrets there are, which reveals none of them."""
    return f"{len(values)} set"


def hidden(_secret: str) -> str:
    return "a secret"


def bearer_token(given: str) -> str:
    if not re.fullmatch(r"[!-~]{16,}", given):
        raise ValueError("Use 16 or more letters and digits, without spaces.")
    return given


def is_host(name: str) -> bool:
    return bool(HOST_NAME.fullmatch(name)) or is_ip_address(name)


def is_ip_address(given: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(given)
    except ValueError:
        return False
    return True


def ip_address(given: str) -> str:
    import ipaddress

    if not is_ip_address(given):
        raise ValueError("Use the one IP address that the proxy connects from, such as 127.0.0.1.")
    return str(ipaddress.ip_address(given))  # IPv6 addresses have several spellings


def host(given: str) -> str:
    if not is_host(given):
        raise ValueError("Use 127.0.0.1 for this computer only, 0.0.0.0 for the whole network, or one address of it.")
    return given


def trusted_hosts(given: str) -> list[str]:
    names = words(given.lower())
    if not names or not all(is_host(name.removeprefix(".")) for name in names):
        raise ValueError("Use host names without a port, with commas between them; .example.com takes its subdomains.")
    return names


def site_url(given: str) -> str:
    """Return `scheme://host[:port]`, in lower case and without a slash at the end. A path is refused."""
    url = given.removesuffix("/").lower()
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        sound = False
    else:
        sound = sound and url == f"{parts.scheme}://{parts.netloc}" and "@" not in url and not url.endswith(":")
    if not sound:
        raise ValueError("Use http:// or https://, the host and, if need be, a port: https://intranet.example.com.")
    return url


def is_safe_address(url: str) -> bool:
    """Whether nobody on the way can read or change what is fetched from an address: https, or on this computer."""
    try:
        parts = urlsplit(url)
        on_this_computer = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
    except ValueError:
        return False
    return bool(parts.hostname) and (parts.scheme == "https" or on_this_computer)


def issuer(given: str) -> str:
    if not is_safe_address(given) or not re.fullmatch(r"[^\s@?#]+", given):
        raise ValueError("Use the provider's address, which begins with https://, such as https://accounts.google.com.")
    return given


def mail_server(given: str) -> str:
    if not is_host(given):
        raise ValueError("Use the name of the mail server alone, such as smtp.example.com. Its port is MAIL_PORT.")
    return given


def mail_from(given: str) -> str:
    """The sender: an address, or a name with the address in angle brackets."""
    address = rf"[A-Za-z0-9._+=-]+@{HOST_NAME.pattern}"
    if not given.isprintable() or not re.fullmatch(rf'{address}|[^<>@",;:()\[\]\\]+ <{address}>', given):
        raise ValueError("Use an address such as board@example.com, or with a name: Our board <board@example.com>.")
    return given


def ca_file(given: str) -> str:
    """The file of a certificate authority of one's own; a relative path starts at the folder of `.env`."""
    import ssl

    path = os.path.abspath(PROJECT_DIR / Path(given).expanduser())
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError):  # not there, not readable, or no certificate
        raise ValueError("Name a file that holds the certificate (PEM) of the authority you trust.") from None
    return path


def time_zone(given: str) -> str:
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(given)
    except (KeyError, ValueError, OSError):  # unknown, not a name at all, the folder of a continent
        raise ValueError("Use a name from the list of time zones, such as Europe/Berlin or UTC.") from None
    return given


def storage_uri(given: str) -> str:
    import importlib.util

    if given == "memory://":
        return given
    if not re.match(r"rediss?://.", given):
        raise ValueError("Use memory://, or redis:// with a host, such as redis://127.0.0.1:6379/0.")
    if importlib.util.find_spec("redis") is None:
        raise ValueError("Install the package redis beside the others, with pip install redis, or use memory://.")
    return given


def data_folder(given: str) -> Path:
    if "\0" in given or "?" in given:  # a question mark would end the path in a database address
        raise ValueError("Use the path of a folder, without a question mark in it.")
    # Not resolved: on Windows that would turn the letter of a mapped drive into a UNC path.
    return Path(os.path.abspath(PROJECT_DIR / Path(given).expanduser()))


def folder_trouble(folder: Path) -> str:
    """Make the folder, and return what is wrong with it, or with a log in it; empty if nothing is."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        places = [folder, *folder.glob("*.log")]
    except OSError as error:
        return f"{folder} cannot be created ({reason(error)})"
    shut = [path for path in places if not os.access(path, os.R_OK | os.W_OK)]
    return f"{shut[0]} cannot be written to" if shut else ""


def reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or ("not UTF-8" if isinstance(error, UnicodeError) else str(error))


# == The secret key ====================================================================================================


def keep_secret_key(path: Path) -> str:
    """Return the key in the file, and make it at the first call. Processes that start together get the same key."""
    if not path.exists():
        make_secret_key(path)
    return path.read_text(encoding="utf-8").strip()


def make_secret_key(path: Path) -> None:
    import secrets

    # mkstemp lets only the owner read the file. It gets its name when it is complete, so nobody reads half a key.
    descriptor, draft = tempfile.mkstemp(prefix="secret_key.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        name_unless_taken(draft, path)
    finally:
        Path(draft).unlink(missing_ok=True)


def name_unless_taken(draft: str, path: Path) -> None:
    """Name the file unless another process was first: os.link always refuses a taken name, os.rename on Windows."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links, such as that of a memory stick
        if not path.exists():
            os.rename(draft, path)


# == The address of the database =======================================================================================


def database_url_in(data_dir: Path) -> Callable[[str], str]:
    """Return a reader that takes the usual spellings. A relative SQLite path starts at the data folder."""

    def parse(given: str) -> str:
        scheme, separator, rest = given.partition("://")
        if not separator or scheme.lower() not in DATABASE_DRIVERS:
            raise ValueError("Use sqlite:///corkboard.db or mysql://user:password@host/database.")
        if scheme.lower() == "sqlite":
            return sqlite_url(rest, data_dir)
        if not MYSQL_ADDRESS.fullmatch(rest):
            raise ValueError(MYSQL_REMEDY)
        return f"{DATABASE_DRIVERS[scheme.lower()]}://{rest}"

    return parse


# name:password@host:port/database?option=… as SQLAlchemy reads it. Only the password can have any character, but no @:
# that would end it, and the rest of it would be taken for the host, and be shown.
MYSQL_ADDRESS = re.compile(
    r"([^@:/\s]+(:[^@]*)?@)?([\w-]{1,63}(\.[\w-]{1,63})*|\[[\da-f:.]+\])(:\d{1,5})?/[^@/?#\s]+"
    r"(\?((charset|unix_socket|ssl_(ca|cert|key|check_hostname))=[^&]+&?)+)?",
    re.IGNORECASE,
)
MYSQL_REMEDY = (
    "Use mysql://user:password@host:3306/database, and write special characters of the password as %40 (@), %3A (:), "
    "%2F (/), %25 (%). After a question mark, there can be options such as ssl_ca and unix_socket."
)


def sqlite_url(rest: str, data_dir: Path) -> str:
    if rest in ("", "/", "/:memory:"):
        return "sqlite:///:memory:"
    path, question_mark, query = rest.removeprefix("/").partition("?")
    if not rest.startswith("/") or question_mark or query or path.startswith("file:"):
        raise ValueError("Use three slashes and the path of a file: sqlite:///corkboard.db.")
    return f"sqlite:///{(data_dir / path).as_posix()}"


def sqlite_path(url: str) -> Path | None:
    """Return the file of an SQLite database. None for any other, and for one in memory."""
    path = url.removeprefix("sqlite:///")
    return None if path in (url, ":memory:") else Path(path)


def without_password(url: str) -> str:
    """Return an address without its password, however it is written, and even if the host is missing."""
    hidden = re.sub(r"^(\S*?://)?([^/@:]*):.*@", r"\1\2:***@", url, flags=re.DOTALL)
    return re.sub(r"(://[^/@:\[]*):(?!\*|\d+(/|$)).*", r"\1:***", hidden, flags=re.DOTALL)


def sqlite_trouble(url: str) -> tuple[str, str]:
    """Return what is wrong with the place of an SQLite database, and the remedy. Both are empty if it is fine."""
    if url == "sqlite:///:memory:":
        return "in memory, where everything is lost at the end", "Leave DATABASE_URL out, or name a file."
    path = sqlite_path(url)
    if path is None or not on_network_drive(path):
        return "", ""
    remedy = "Set DATA_DIR (or DATABASE_URL) to a folder on a disk of this computer, or use MySQL or MariaDB."
    return f"{path} is on a network drive, where SQLite loses data", remedy


def on_network_drive(path: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    resolved = path.resolve()  # on Windows this turns a mapped drive into its UNC path
    if str(resolved).startswith(("\\\\", "//")):
        return not str(resolved).startswith(("\\\\?\\", "\\\\.\\")) or str(resolved).startswith("\\\\?\\UNC\\")
    return filesystem_of(resolved, mounts) in NETWORK_FILESYSTEMS


def filesystem_of(path: Path, mounts: Path) -> str:
    """Return the type of the file system at the path on Linux, and '' elsewhere."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    best, kind = Path("/"), ""
    for _, point, this_kind, *_ in (line.split(" ") for line in lines if line.count(" ") > 2):
        # A space in a mount point is written as \040. A later line hides an earlier one for the same point.
        folder = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point))
        if path.is_relative_to(folder) and len(folder.parts) >= len(best.parts):
            best, kind = folder, this_kind
    return kind


# == The site's address ================================================================================================

# Addresses of nobody (RFC 5737, RFC 3849), to learn which one of this computer's leads out.
OUTSIDE = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}


def site_address(config: Mapping[str, Any]) -> str:
    """Return the site's address: SITE_URL, or that of HOST; for the whole network, that of this computer in it."""
    host = outgoing_address(config["HOST"]) if config["HOST"] in OUTSIDE else config["HOST"]
    return config["SITE_URL"] or f"http://{f'[{host}]' if ':' in host else host}:{config['PORT']}"


def outgoing_address(host: str) -> str:
    """Return the address of the interface that leads out or, without a way out, this computer's name."""
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe,
    ):
        probe.connect((OUTSIDE[host], 9))  # which sends nothing
        return probe.getsockname()[0]
    return socket.gethostname().lower()


# == The log ===========================================================================================================

LOG_BYTES, LOG_FILES = 5 * MEGABYTE, 5
LOG_LINE = "%(asctime)s %(levelname)s %(name)s %(message)s"


def configure_logging(app: "Flask") -> None:
    """Log to `DATA_DIR/logs/corkboard.log`, as text or JSON. The last application made in a process has the log."""
    folder = app.config["DATA_DIR"] / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "corkboard.log"
    handler = LogFile(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", delay=True)
    handler.setFormatter(JsonFormatter() if app.config["LOG_FORMAT"] == "json" else logging.Formatter(LOG_LINE))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, LogFile)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    for name in ("corkboard", "waitress", app.logger.name):
        logging.getLogger(name).setLevel(app.config["LOG_LEVEL"])


class LogFile(RotatingFileHandler):
    """A log that starts a new file at a certain size, on Windows only if no other process has the file open."""

    def doRollover(self) -> None:
        """Rename the files, and start a new one.

        Windows refuses to rename a file that another process has open. The inherited method would notice that only
        after it had renamed the older files. This one tries first, and keeps writing to the same file if it fails.
        """
        try:
            if self.stream:
                self.stream.close()
            os.rename(self.baseFilename, self.baseFilename)
        except OSError:
            self.stream = self._open()
        else:
            super().doRollover()


class JsonFormatter(logging.Formatter):
    """Writes one line of JSON a record. Named arguments, such as those of a request, become fields of their own."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if isinstance(record.args, Mapping):
            entry |= record.args
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)
