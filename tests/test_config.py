"""The settings: what is read, what is refused and in which words, and that nothing secret is ever said."""

import contextlib
import logging
import multiprocessing
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest

import config
from config import Config, ConfigError, DevelopmentConfig, ProductionConfig, TestingConfig, load

PROJECT = Path(config.__file__).parent
GOOD_KEY = "k" * 32


@pytest.fixture
def read(tmp_path):
    """Settings with a data folder of their own: read(PORT="80")."""

    def read(kind=Config, **environ):
        return kind({"DATA_DIR": str(tmp_path / "data"), **environ})

    return read


def failed(settings, name=None):
    return [finding for finding in settings.findings() if not finding.ok and name in (None, finding.name)]


# == Defaults and classes ==============================================================================================


def test_nothing_set_is_sound_and_runs_as_production(read, tmp_path):
    settings = load({"DATA_DIR": str(tmp_path / "data")})
    settings.require_sound()
    assert isinstance(settings, ProductionConfig)
    assert not settings.DEBUG
    assert not settings.TESTING
    assert (settings.HOST, settings.PORT, settings.THREADS) == ("127.0.0.1", 8000, 8)
    assert settings.DATABASE_URL == f"sqlite:///{(tmp_path / 'data' / 'corkboard.db').as_posix()}"
    assert settings.MAX_CONTENT_LENGTH == 25 * 1024 * 1024 + 64 * 1024, "a form is larger than its file"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("development", DevelopmentConfig), ("testing", TestingConfig), ("production", ProductionConfig)],
)
def test_app_env_picks_the_class(tmp_path, name, kind):
    settings = load({"APP_ENV": name, "DATA_DIR": str(tmp_path)})
    assert type(settings) is kind
    assert settings.APP_ENV == name
    assert config.config[name] is kind


def test_an_unknown_app_env_is_refused_and_read_as_production(tmp_path):
    settings = load({"APP_ENV": "prod", "DATA_DIR": str(tmp_path)})
    assert isinstance(settings, ProductionConfig)
    assert failed(settings, "APP_ENV")[0].remedy == "Use development, testing or production."


def test_development_has_the_debugger_and_testing_has_not(read):
    assert read(DevelopmentConfig).DEBUG
    assert read(DevelopmentConfig).TEMPLATES_AUTO_RELOAD
    assert read(TestingConfig).TESTING
    assert not read(TestingConfig).DEBUG


def test_flask_takes_the_settings_from_the_object(read):
    from flask import Flask

    app = Flask("settings")
    app.config.from_object(read(PORT="8123"))
    assert app.config["PORT"] == 8123
    assert app.config["SESSION_COOKIE_SAMESITE"] == "Lax"


# == Readers ===========================================================================================================

REFUSED = [
    ("PORT", "80a"),
    ("PORT", "0"),
    ("PORT", "65536"),
    ("PORT", "-1"),
    ("PORT", "8000.0"),
    ("PORT", "٨٠٠٠"),
    ("PORT", "9" * 5000),
    ("THREADS", "1"),
    ("THREADS", "65"),
    ("MAX_UPLOAD_MB", "0"),
    ("MAX_UPLOAD_MB", "25MB"),
    ("HOST", "*"),
    ("HOST", "http://example.com"),
    ("HOST", "my host"),
    ("HOST", "a..b"),
    ("MAIL_SERVER", "https://smtp.example.com"),
    ("MAIL_SERVER", "smtp.example.com:587"),
    ("MAIL_PORT", "0"),
    ("MAIL_USE_TLS", "perhaps"),
    ("MAIL_CA_FILE", "no-such-file.pem"),
    ("MAIL_CA_FILE", "app.py"),
    ("MAIL_FROM", "board"),
    ("MAIL_FROM", "Our board"),
    ("MAIL_FROM", "a@example.com, b@example.com"),
    ("MAIL_FROM", "Our board <a@example.com> <b@example.com>"),
    ("MAIL_FROM", "a@example.com\nBcc: b@example.com"),
    ("MAIL_FROM", "Rye, Thimble <a@example.com>"),
    ("MAIL_FROM", "märz@example.com"),
    ("MAIL_FROM", "Co. [intern] <a@example.com>"),
    ("MAIL_FROM", "A\\B <a@example.com>"),
    ("SITE_URL", "example.com"),
    ("SITE_URL", "ftp://example.com"),
    ("SITE_URL", "https://example.com/board"),
    ("SITE_URL", "https://example.com?x=1"),
    ("SITE_URL", "https://example.com#x"),
    ("SITE_URL", "https://user@example.com"),
    ("SITE_URL", "https://example.com:"),
    ("SITE_URL", "https://example.com:99999"),
    ("SITE_URL", "https://"),
    ("SITE_URL", "https://exa mple.com"),
    ("SITE_URL", "https://[::1"),
    ("TRUSTED_HOSTS", "https://example.com"),
    ("TRUSTED_HOSTS", "example.com:8000"),
    ("TRUSTED_HOSTS", ","),
    ("TRUSTED_PROXY", "*"),
    ("TRUSTED_PROXY", "localhost"),
    ("TRUSTED_PROXY", "10.0.0.0/8"),
    ("LOG_LEVEL", "loud"),
    ("LOG_FORMAT", "xml"),
    ("TIMEZONE", "Europe"),
    ("TIMEZONE", "Berlin"),
    ("TIMEZONE", "../../etc/passwd"),
    ("DATABASE_URL", "postgresql://user:hunter2@host/name"),
    ("DATABASE_URL", "corkboard.db"),
    ("DATABASE_URL", "sqlite:/corkboard.db"),
    ("DATABASE_URL", "sqlite://corkboard.db"),
    ("DATABASE_URL", "sqlite:///file:corkboard.db?uri=true"),
    ("DATABASE_URL", "mysql://user:hunter2@host"),
    ("DATABASE_URL", "mysql:///name"),
    ("DATABASE_URL", "mysql://user:hunter2"),
    ("DATABASE_URL", "mysql://user:hunter2/name"),
    ("DATABASE_URL", "mysql://user:at@hunter2@host/name"),
    ("DATABASE_URL", "mysql://user:at@slash/hunter2@host/name"),
    ("DATABASE_URL", "mysql://user:hunter2@host:port/name"),
    ("DATABASE_URL", "mysql://user:hunter2@ho st/name"),
    ("DATABASE_URL", "mysql://user:hunter2@a..b/name"),
    ("DATABASE_URL", "mysql://user:hunter2@[::1/name"),
    ("DATABASE_URL", "mysql://user:hunter2@host/name?unknown=1"),
    ("DATABASE_URL", "mysql+mysqldb://user:hunter2@host/name"),
    ("DATA_DIR", "what?"),
    ("METRICS_TOKEN", "hunter2"),
    ("METRICS_TOKEN", "hunter2 with spaces in it"),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_bad_value_is_refused_by_name_with_what_would_be_right(tmp_path, name, value):
    settings = load({"DATA_DIR": str(tmp_path), "SECRET_KEY": GOOD_KEY, name: value})
    (finding,) = failed(settings)
    assert finding.name == name
    assert finding.remedy
    with pytest.raises(ConfigError) as refusal:
        settings.require_sound()
    assert finding.remedy in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


ACCEPTED = [
    ("HOST", "0.0.0.0", "0.0.0.0"),
    ("HOST", "::1", "::1"),
    ("HOST", "localhost", "localhost"),
    ("PORT", " 8080 ", 8080),
    ("SITE_URL", "https://Intranet.Example.com/", "https://intranet.example.com"),
    ("SITE_URL", "http://10.0.0.5:8000", "http://10.0.0.5:8000"),
    ("SITE_URL", "http://[::1]:8000", "http://[::1]:8000"),
    ("LOG_LEVEL", "debug", "DEBUG"),
    ("LOG_FORMAT", "JSON", "json"),
    ("TIMEZONE", "Europe/Berlin", "Europe/Berlin"),
    ("SECRET_KEY_FALLBACKS", f"{GOOD_KEY}1, {GOOD_KEY}2", [f"{GOOD_KEY}1", f"{GOOD_KEY}2"]),
    ("DATABASE_URL", "mysql://a:b@host/name", "mysql+pymysql://a:b@host/name"),
    ("DATABASE_URL", "mariadb://a:b@host:3307/name?ssl_ca=x", "mysql+pymysql://a:b@host:3307/name?ssl_ca=x"),
    ("DATABASE_URL", "mysql://a@[::1]:3307/name", "mysql+pymysql://a@[::1]:3307/name"),
    ("DATABASE_URL", "mysql://a:p:#?/[ %w@my_host/name", "mysql+pymysql://a:p:#?/[ %w@my_host/name"),
    ("DATABASE_URL", "mysql+pymysql://a:b@host/name", "mysql+pymysql://a:b@host/name"),
    ("METRICS_TOKEN", "sixteen-letters!", "sixteen-letters!"),
    ("DATABASE_URL", "mysql://a:p%40ss%2Fword@host/name", "mysql+pymysql://a:p%40ss%2Fword@host/name"),
]


@pytest.mark.parametrize(("name", "value", "expected"), ACCEPTED)
def test_a_good_value_is_taken(read, name, value, expected):
    settings = read(**{name: value})
    settings.require_sound()
    assert getattr(settings, name) == expected


MAIL = {"MAIL_SERVER": "smtp.example.com", "MAIL_FROM": "Thimble & Rye <board@example.com>"}


def test_a_mail_server_is_taken(read):
    settings = read(**MAIL, MAIL_PORT="465", MAIL_USERNAME="board", MAIL_PASSWORD="hunter2")
    settings.require_sound()
    assert (settings.MAIL_SERVER, settings.MAIL_PORT, settings.MAIL_USE_TLS) == ("smtp.example.com", 465, True)
    assert settings.MAIL_FROM == "Thimble & Rye <board@example.com>"
    assert "hunter2" not in str([str(finding) for finding in settings.findings()])
    assert read(MAIL_USE_TLS="no").MAIL_USE_TLS is False


@pytest.mark.parametrize(("given", "said"), [
    ({"MAIL_FROM": ""}, "MAIL_FROM"),
    ({"MAIL_USERNAME": "board"}, "MAIL_PASSWORD"),
    ({"MAIL_PASSWORD": "hunter2"}, "MAIL_USERNAME"),
    ({"MAIL_USERNAME": "board", "MAIL_PASSWORD": "hunter2", "MAIL_USE_TLS": "no"}, "unencrypted"),
])  # fmt: skip
def test_a_mail_server_needs_what_belongs_to_it(read, given, said):
    (finding,) = failed(read(**MAIL | given))
    assert finding.name == "MAIL_SERVER"
    assert said in finding.text
    read(**MAIL | given | {"MAIL_SERVER": ""}).require_sound()


def test_the_address_of_a_proxy_is_taken(read):
    for written in ("::1", "0:0:0:0:0:0:0:1"):
        settings = read(TRUSTED_PROXY=written, SITE_URL="https://example.com")
        settings.require_sound()
        assert settings.TRUSTED_PROXY == "::1"


def test_a_site_answers_to_the_names_that_the_settings_give_it(read):
    settings = read(SITE_URL="https://intranet.example.com:8443", TRUSTED_HOSTS="Example.com, .example.org")
    settings.require_sound()
    assert settings.OWN_HOSTS == [".localhost", "intranet.example.com", "example.com", ".example.org"]


def test_an_empty_value_counts_as_not_set(read):
    settings = read(PORT="", SITE_URL="  ", TRUSTED_HOSTS="")
    settings.require_sound()
    assert (settings.PORT, settings.SITE_URL, settings.OWN_HOSTS) == (8000, "", [".localhost"])


def test_relative_places_do_not_depend_on_where_the_command_was_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.data_folder("instance") == PROJECT / "instance"
    url = config.database_url_in(tmp_path)("sqlite:///team.db")
    assert url == f"sqlite:///{(tmp_path / 'team.db').as_posix()}"


def test_every_bad_value_is_told_at_once(read):
    settings = read(PORT="x", THREADS="x", LOG_LEVEL="x")
    with pytest.raises(ConfigError) as refusal:
        settings.require_sound()
    assert [finding.name for finding in refusal.value.findings if not finding.ok] == ["PORT", "THREADS", "LOG_LEVEL"]
    assert "HOST" not in refusal.value.message, "only what is wrong is listed"


def test_a_refusal_is_shown_as_it_is_and_ends_with_1(read, capsys):
    error = ConfigError(read(PORT="x").findings())
    error.show()
    assert isinstance(error, click.ClickException)
    assert error.exit_code == 1
    assert capsys.readouterr().err == error.message + "\n"


def test_no_secret_is_ever_said(read):
    settings = read(
        SECRET_KEY="tell-nobody-" * 3,
        SECRET_KEY_FALLBACKS="tell-nobody-either-" * 3,
        METRICS_TOKEN="tell-nobody-about-it",
        DATABASE_URL="mysql://corkboard:tell-nobody@host/name",
    )
    text = "\n".join(map(str, settings.findings()))
    assert "tell-nobody" not in text
    assert "mysql+pymysql://corkboard:***@host/name" in text


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:hunter2@host/name",
        "mysql://me:at@hunter2@host/name",
        "mysql://me:colon:hunter2@host/name",
        "mysql://:hunter2@host/name",
        "mysql://me:slash/hunter2@host/name",
        "me:hunter2@host/name",
    ],
)
def test_the_password_of_a_database_is_hidden_however_it_is_written(url):
    assert "hunter2" not in config.without_password(url)
    assert config.without_password(url).endswith(":***@host/name")


# == Cookies ===========================================================================================================


def test_under_https_the_cookie_is_secure_and_bound_to_the_host(read):
    settings = read(SITE_URL="https://example.com")
    assert settings.SESSION_COOKIE_NAME == "__Host-corkboard"
    assert settings.SESSION_COOKIE_SECURE


def test_without_https_the_cookie_still_reaches_the_site(read):
    settings = read(SITE_URL="http://example.com")
    assert settings.SESSION_COOKIE_NAME == "corkboard"
    assert not settings.SESSION_COOKIE_SECURE


@pytest.mark.parametrize(("given", "name"), [
    ({"PORT": "8001"}, "corkboard-8001"),
    ({"PORT": "8001", "SITE_URL": "http://example.com:8080"}, "corkboard-8080"),
    ({"PORT": "8001", "SITE_URL": "https://example.com:8443"}, "__Host-corkboard-8443"),
])  # fmt: skip
def test_two_sites_on_one_computer_have_cookies_of_different_names(read, given, name):
    assert read(**given).SESSION_COOKIE_NAME == name


# == The secret key ====================================================================================================


def test_a_key_is_made_once_and_kept_for_the_owner_only(read, tmp_path):
    first, second = read(), read()
    assert len(first.SECRET_KEY) == 64
    assert first.SECRET_KEY == second.SECRET_KEY
    assert sorted(os.listdir(tmp_path / "data")) == ["logs", "secret_key"]
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "data" / "secret_key").stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_key_of_the_environment_leaves_no_file(read, tmp_path):
    assert read(SECRET_KEY=GOOD_KEY).SECRET_KEY == GOOD_KEY
    assert not (tmp_path / "data" / "secret_key").exists()


def test_where_hard_links_do_not_exist_a_key_is_kept_all_the_same(read, monkeypatch):
    def link(*_):
        raise OSError("Operation not supported")

    monkeypatch.setattr(os, "link", link)
    assert read().SECRET_KEY == read().SECRET_KEY != ""


def key_when_told(path, barrier, answers):
    barrier.wait()
    answers.put(config.keep_secret_key(path))


def test_processes_that_start_together_share_one_key(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    barrier, answers = spawn.Barrier(4), spawn.Queue()
    path = tmp_path / "secret_key"
    processes = [spawn.Process(target=key_when_told, args=(path, barrier, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    keys = {answers.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(keys) == 1
    assert path.read_text().strip() in keys


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff\xfe" * 40])
def test_a_damaged_key_is_refused(read, tmp_path, content):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secret_key").write_bytes(content)
    assert failed(read(), "SECRET_KEY")


def test_a_log_that_cannot_be_written_is_told(read, tmp_path, monkeypatch):
    (tmp_path / "data" / "logs").mkdir(parents=True)
    log = tmp_path / "data" / "logs" / "corkboard.log"
    log.touch()
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != log and may(path, mode))
    (finding,) = failed(read())
    assert (finding.name, finding.text) == ("log folder", f"{log} cannot be written to")
    assert "another account" in finding.remedy


def test_a_log_folder_that_cannot_be_made_is_told(read, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "logs").touch()
    (finding,) = failed(read())
    assert (finding.name, "cannot be created" in finding.text) == ("log folder", True)


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    settings = Config({"DATA_DIR": str(tmp_path / "file" / "data")})
    assert failed(settings, "data folder")


@pytest.mark.parametrize("key", ["dev", "changeme", "Secret", "x" * 31, *sorted(config.KNOWN_SECRET_KEYS)])
def test_production_refuses_a_short_or_known_key(read, key):
    assert failed(read(SECRET_KEY=key), "SECRET_KEY")
    assert failed(read(SECRET_KEY_FALLBACKS=key), "SECRET_KEY_FALLBACKS")
    assert not failed(read(DevelopmentConfig, SECRET_KEY=key))


# == What production refuses ===========================================================================================


@pytest.mark.parametrize("name", ["FLASK_DEBUG", "APP_DEBUG"])
def test_production_refuses_debug_mode(read, name):
    assert failed(read(**{name: "1"}), "debug mode")
    assert failed(read(**{name: "True"}), "debug mode")
    assert not failed(read(**{name: "0"}))
    assert not failed(read(DevelopmentConfig, **{name: "1"}))


def test_production_refuses_a_proxy_without_a_site_url(read):
    assert failed(read(TRUSTED_PROXY="127.0.0.1"), "address of the site") == failed(read(TRUSTED_PROXY="127.0.0.1"))
    assert not failed(read(TRUSTED_PROXY="127.0.0.1", SITE_URL="https://example.com"))


def test_production_refuses_a_database_in_memory(read):
    assert failed(read(DATABASE_URL="sqlite:///:memory:"), "place of the database")
    assert not failed(read(TestingConfig, DATABASE_URL="sqlite://"))


def test_production_refuses_sqlite_on_a_network_drive(read, monkeypatch):
    monkeypatch.setattr(config, "filesystem_of", lambda path, mounts: "nfs4")
    assert failed(read(), "place of the database")
    assert not failed(read(DevelopmentConfig))
    assert not failed(read(DATABASE_URL="mysql://a:b@host/name"))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (r"\\server\share\corkboard.db", True),
        ("//server/share/corkboard.db", True),
        (r"\\?\UNC\server\share\corkboard.db", True),
        (r"\\?\C:\corkboard\corkboard.db", False),
        (r"C:\corkboard\corkboard.db", False),
    ],
)
def test_a_windows_share_is_a_network_drive(path, expected):
    class Resolved:
        """A path as Windows resolves it; there a mapped drive has become the share by then."""

        def resolve(self):
            return self

        def is_relative_to(self, _):
            return False

        def __str__(self):
            return path

    assert config.on_network_drive(Resolved()) is expected


@pytest.mark.skipif(os.name != "posix", reason="mount points are a matter of Linux")
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/srv/local/corkboard.db", "ext4"),
        ("/srv/team/corkboard.db", "nfs4"),
        ("/srv/team/disk/corkboard.db", "ext4"),
        ("/srv/teamwork/corkboard.db", "ext4"),
        ("/mnt/our share/corkboard.db", "cifs"),
        ("/covered/corkboard.db", "nfs"),
    ],
)
def test_the_file_system_is_that_of_the_closest_mount(tmp_path, path, expected):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda1 / ext4 rw 0 0\n"
        "server:/team /srv/team nfs4 rw 0 0\n"
        "/dev/sdb1 /srv/team/disk ext4 rw 0 0\n"
        "//server/share /mnt/our\\040share cifs rw 0 0\n"
        "/dev/sdc1 /covered ext4 rw 0 0\n"
        "server:/x /covered nfs rw 0 0\n"
    )
    assert config.filesystem_of(Path(path), mounts) == expected


def test_without_a_list_of_mounts_no_drive_is_suspected(tmp_path):
    assert config.filesystem_of(tmp_path, tmp_path / "missing") == ""


# == .env and .env.example =============================================================================================


def test_the_environment_wins_over_dotenv(tmp_path, monkeypatch):
    dotenv = tmp_path / ".env"
    dotenv.write_text("\ufeffPORT=8001\nTHREADS=3\nSITE_URL\nDATABASE_URL='mysql://a:pa$word@h/n'\n", encoding="utf-8")
    monkeypatch.setenv("PORT", "8002")
    monkeypatch.delenv("THREADS", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    environ = config.read_environment(dotenv)
    assert (environ["PORT"], environ["THREADS"]) == ("8002", "3")
    assert environ["DATABASE_URL"] == "mysql://a:pa$word@h/n"


@pytest.mark.parametrize(("content", "said"), [("SITE_NAME=Bäckerei".encode("latin-1"), "UTF-8"), (None, "directory")])
def test_a_dotenv_that_cannot_be_read_is_told(tmp_path, monkeypatch, content, said):
    dotenv = tmp_path / ".env"
    if content:
        dotenv.write_bytes(content)
    else:
        dotenv.touch()
        monkeypatch.setattr("dotenv.dotenv_values", lambda *_args, **_kwargs: os.listdir(dotenv))
    with pytest.raises(ConfigError) as refusal:
        config.read_environment(dotenv)
    assert f"FAILED  {dotenv}: cannot be read (" in str(refusal.value)
    assert said in str(refusal.value)


@pytest.mark.parametrize(("name", "meant"), [
    ("TRUSTED_HOST", "TRUSTED_HOSTS"), ("MAILSERVER", "MAIL_SERVER"), ("DATABSE_URL", "DATABASE_URL"),
    ("SITE-URL", "SITE_URL"), ("host", "HOST"), ("SECRETKEY", "SECRET_KEY"), ("HOSTNAME", ""), ("MAIL", ""),
    ("PATH", ""), ("LANG", ""), ("PORT", ""), ("FLASK_DEBUG", ""),
])  # fmt: skip
def test_a_misspelt_setting_is_told_and_stops_nothing(read, name, meant):
    settings = read(**{name: "0"} if name != "PORT" else {name: "8000"})
    settings.require_sound()
    finding = settings.misspelt()
    assert finding.ok is not bool(meant)
    assert (f"{name} (is it {meant}?)" in finding.text) is bool(meant)


def test_without_dotenv_the_environment_is_all(tmp_path):
    assert config.read_environment(tmp_path / ".env") == dict(os.environ)


def example():
    text = (PROJECT / ".env.example").read_text(encoding="utf-8")
    return dict(re.findall(r"^# ([A-Z][A-Z_]+)=(.*)$", text, re.MULTILINE))


def test_the_example_names_every_setting_and_no_other(read):
    assert set(example()) == {finding.name for finding in read().findings() if finding.name.isupper()}


def test_the_example_shows_the_defaults(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "PROJECT_DIR", tmp_path)
    shown, default = load(example()), load({})
    shown.require_sound()
    for name in example():
        assert getattr(shown, name) == getattr(default, name), name


def test_every_setting_of_the_example_is_explained():
    text = (PROJECT / ".env.example").read_text(encoding="utf-8")
    for name in example():
        before = text.split(f"# {name}=")[0].splitlines()[-1]
        assert before.startswith("# "), name


# == The log ===========================================================================================================


def log_file(path, size=200):
    return config.LogFile(path, maxBytes=size, backupCount=3, encoding="utf-8", delay=True)


def write(handler, count, start=0):
    for number in range(start, start + count):
        handler.handle(logging.LogRecord("x", logging.INFO, "", 0, "line %04d", (number,), None))


def lines_in(folder):
    return sorted(line for path in folder.iterdir() for line in path.read_text(encoding="utf-8").splitlines())


def test_the_log_is_rotated_and_old_files_go(tmp_path):
    handler = log_file(tmp_path / "x.log")
    write(handler, 1000)
    handler.close()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"x.log", "x.log.1", "x.log.2", "x.log.3"}
    assert lines_in(tmp_path)[-1] == "line 0999"


def test_a_log_that_another_process_holds_open_is_written_on_and_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "x.log"
    handler = log_file(path)
    write(handler, 50)
    before, rename = lines_in(tmp_path), os.rename

    def held(source, target):
        if os.fspath(source) == os.fspath(path):
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        rename(source, target)

    monkeypatch.setattr(os, "rename", held)
    write(handler, 500, start=50)
    assert {*before} <= {*lines_in(tmp_path)}, "what was rotated before is still there"
    assert "line 0549" in lines_in(tmp_path)
    monkeypatch.setattr(os, "rename", rename)
    write(handler, 30, start=550)
    handler.close()
    assert lines_in(tmp_path)[-1] == "line 0579"
    assert path.stat().st_size < 1000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_full_disk_costs_the_line_and_not_the_request(tmp_path, capsys):
    (tmp_path / "x.log").symlink_to("/dev/full")
    handler = log_file(tmp_path / "x.log")
    write(handler, 3)
    assert "No space left" in capsys.readouterr().err
    with contextlib.suppress(OSError):
        handler.close()


# == Cost ==============================================================================================================


def test_importing_reads_nothing_and_loads_no_dotenv():
    code = "import sys, config; sys.exit('dotenv' in sys.modules or 'flask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0
