"""Commands: what each does, what it says, and how it fails."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections import namedtuple
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from conftest import PASSWORD, PASSWORD_HASH, add_person, add_topic, close, lay_schema, settings

import app as corkboard
import database
from app import (
    Acknowledgement,
    Activity,
    Attachment,
    Comment,
    JobRun,
    Notification,
    Post,
    Revision,
    Role,
    Setting,
    SignIn,
    Topic,
    User,
)
from database import db

pytestmark = pytest.mark.usefixtures("cheap_hashes")

PROJECT = Path(__file__).resolve().parent.parent
GOOD = "nine green bottles"


@pytest.fixture
def run(app, empty_folder):
    """Run a command in this process: `run("create-admin", "anna", input="…")` is its exit code and what it said."""

    def runner(*args: str, **kwargs):
        result = app.test_cli_runner().invoke(args=args, **kwargs)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        db.session.rollback()
        return SimpleNamespace(code=result.exit_code, said=result.output)

    return runner


@pytest.fixture
def at_a_terminal(monkeypatch):
    stdin = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(corkboard, "sys", SimpleNamespace(stdin=stdin, exit=sys.exit))


def count(entity, *conditions) -> int:
    return db.session.scalar(sa.select(sa.func.count()).select_from(entity).where(*conditions)) or 0


def signs_in(app, name: str, password: str) -> bool:
    answer = app.test_client().submit("/login", {"username": name, "password": password})
    return answer.status_code == 303


def dead_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def real(folder: Path, *args: str, **kwargs) -> subprocess.CompletedProcess[str]:
    """A command as people run it: `python -m flask …` in a process of its own."""
    env = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "SYSTEMROOT", "COVERAGE_FILE")}
    env |= {"DATA_DIR": str(folder), "PYTHONPATH": "", **kwargs.pop("env", {})}
    command = [sys.executable, "-m", "flask", *args]
    return subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=60, **kwargs)


# -- check -------------------------------------------------------------------------------------------------------------


def test_check_finds_a_sound_deployment_sound(people, run):
    result = run("check")
    assert result.code == 0
    assert "FAILED" not in result.said
    for finding in (
        "data folder", "log folder", "SECRET_KEY", "names of settings", "host", "disk", "secret key", "reach",
        "database", "jobs", "administrator",
    ):  # fmt: skip
        assert f"ok      {finding}: " in result.said, finding
    assert "HOST=0.0.0.0" in result.said


def failed(said: str) -> list[str]:
    return re.findall(r"^FAILED  ([^:]+):", said, re.MULTILINE)


def test_check_notices_a_full_disk(people, run, monkeypatch):
    usage = namedtuple("usage", "total used free")(0, 0, 499 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    result = run("check")
    assert (result.code, failed(result.said)) == (1, ["disk"])
    assert "499 MB free" in result.said
    assert "Make room" in result.said


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_check_notices_a_secret_key_that_others_can_read(app, people, run):
    kept = Path(app.config["DATA_DIR"]) / "secret_key"
    kept.chmod(0o644)
    try:
        result = run("check")
        assert (result.code, failed(result.said)) == (1, ["secret key"])
        assert f"chmod 600 {kept}" in result.said
    finally:
        kept.chmod(0o600)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_check_notices_data_and_settings_that_others_can_read(app, people, run, monkeypatch, tmp_path):
    folder = Path(app.config["DATA_DIR"])
    (tmp_path / ".env").write_text("OIDC_CLIENT_SECRET=secret", encoding="utf-8")
    (tmp_path / ".env").chmod(0o644)
    monkeypatch.setattr(corkboard, "PROJECT_DIR", tmp_path)
    folder.chmod(0o755)
    try:
        result = run("check")
    finally:
        folder.chmod(0o700)
    assert (result.code, failed(result.said)) == (1, ["private data", "private settings"])
    assert f"chmod 700 {folder}" in result.said
    assert f"chmod 640 {tmp_path / '.env'}" in result.said


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("command", [["init-db"], ["db", "upgrade"]], ids=" ".join)
def test_what_a_command_writes_is_for_its_account_only(tmp_path, command):
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o755)
    assert real(folder, *command, umask=0o022).returncode == 0
    written = list(folder.rglob("*"))
    assert {path.name for path in written} >= {"corkboard.db", "secret_key", "logs"}
    assert not [path for path in written if path.stat().st_mode & 0o077]


def test_check_notices_that_nobody_can_administer(app, people, run):
    database.transactional(db.session.execute)(sa.update(User).values(role=Role.EDITOR))
    result = run("check")
    assert (result.code, failed(result.said)) == (1, ["administrator"])
    assert "setup-link" in result.said


def test_check_notices_that_nothing_runs_the_jobs(people, run):
    assert corkboard.run_job(corkboard.JOBS[0])
    assert run("check").code == 0
    database.transactional(db.session.execute)(
        sa.update(JobRun).values(ended_at=database.utcnow() - timedelta(hours=1))
    )
    result = run("check")
    assert (result.code, failed(result.said)) == (1, ["jobs"])
    assert "python -m flask jobs run" in result.said


@pytest.fixture
def site_with(tmp_path):
    """A site with these settings: `site_with(HOST="::1")`. It is set up if it is on SQLite."""
    made = []

    def make(url: str = "", **environ: str):
        lay_schema(tmp_path / "corkboard.db")
        made.append(corkboard.create_app(settings(tmp_path, url, **environ)))
        return made[-1]

    yield make
    for app in made:
        close(app)


def said_by(app, *args: str) -> list[str]:
    """The findings that `check` calls wrong, or the one line of another command that fails."""
    result = app.test_cli_runner().invoke(args=args or ["check"], input=GOOD)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    return re.findall(r"^FAILED  (.+)$", result.output, re.MULTILINE) if not args else result.output.splitlines()


def test_check_notices_a_host_that_this_computer_has_not(site_with):
    app = site_with(HOST="192.0.2.55")
    assert "host: this computer has no address 192.0.2.55" in said_by(app)


def test_check_notices_a_misspelt_setting(site_with):
    app = site_with(SITE_ULR="https://example.com")
    assert "names of settings: unknown: SITE_ULR (is it SITE_URL?)" in said_by(app)


@pytest.mark.parametrize("engine_app", ["sqlite"], indirect=True)
def test_check_notices_a_database_that_cannot_be_written(app, people, run, read_only):
    db.session.remove()
    db.engine.dispose()
    read_only.set()
    result = run("check")
    assert failed(result.said) == ["database"]
    assert "attempt to write a readonly database" in result.said
    assert "who owns them?" in result.said


@pytest.mark.parametrize(("content", "words"), [
    (b"This is a letter, and no database. " * 200, "file is not a database. The file is damaged"),
    (None, "unable to open database file. Let the account"),
])  # fmt: skip
def test_a_file_that_is_no_database_is_one_line(site_with, tmp_path, content, words):
    app = site_with()
    path = tmp_path / "corkboard.db"
    path.unlink()
    path.write_bytes(content) if content else path.mkdir()
    for command in ("init-db", "setup-link", "backup"):
        (line,) = said_by(app, command)
        assert words in line


def test_a_locked_file_and_a_missing_table_are_one_line(site_with, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    app = site_with()
    with contextlib.closing(sqlite3.connect(tmp_path / "corkboard.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "database is locked. Another program keeps it locked." in said_by(app, "setup-link")[0]
        other.execute("ROLLBACK")
        other.execute("DROP TABLE users")
    (line,) = said_by(app, "create-admin", "anna", "--password-stdin")
    assert line.startswith("Error: no such table: users. Its tables are not those of this version.")


@pytest.mark.parametrize(("change", "words"), [
    ({"password": "hunter2"}, r"Access denied for user .*\. Correct the name or the password in DATABASE_URL\."),
    ({"database": "corkboard_nowhere"}, r"(Unknown database|Access denied) .*corkboard_nowhere'\. (Create it|Give)"),
    ({"port": dead_port()}, r"Can't connect to MySQL server on .*\. Is the server running"),
    ({"host": "no-such-host.invalid"}, r"Can't connect to .* on 'no-such-host.invalid' .*\. Is the server running"),
])  # fmt: skip
def test_what_a_server_refuses_is_one_line_in_its_own_words_with_what_to_change(site_with, mysql_url, change, words):
    url = sa.make_url(mysql_url).set(**change)
    app = site_with(url.render_as_string(hide_password=False))
    for command in (["init-db"], ["setup-link"], ["create-admin", "anna", "--password-stdin"]):
        (line,) = said_by(app, *command)
        assert re.search(words, line, re.IGNORECASE)
        assert "hunter2" not in line
    assert "Traceback" in (app.config["DATA_DIR"] / "logs" / "corkboard.log").read_text(encoding="utf-8")
    assert any(re.search(words.partition(r"\.")[0], finding) for finding in said_by(app))


@pytest.mark.parametrize("command", [["init-db"], ["db", "upgrade"], ["db", "current"], ["check"]])
def test_a_real_command_shows_one_line_and_never_a_traceback(tmp_path, command):
    url = f"mysql://someone:hunter2@127.0.0.1:{dead_port()}/nothing"
    result = real(tmp_path, *command, env={"DATABASE_URL": url})
    said = result.stdout + result.stderr
    assert result.returncode == 1
    assert "Can't connect to MySQL server" in said
    assert "Traceback" not in said
    assert "hunter2" not in said
    assert command == ["check"] or said.count("\n") == 1


def test_check_and_every_other_command_say_in_plain_words_that_the_database_does_not_answer(tmp_path):
    url = f"mysql://someone:hidden@127.0.0.1:{dead_port()}/nothing"
    app = corkboard.create_app(settings(tmp_path, url))
    checked = app.test_cli_runner().invoke(args=["check"])
    assert checked.exit_code == 1
    assert failed(checked.output) == ["database"]
    assert "hidden" not in checked.output
    for command in (
        ["init-db"], ["create-admin", "anna", "--password-stdin"], ["setup-link"], ["seed-demo"], ["rerender"],
        ["db-reindex"], ["jobs", "list"], ["jobs", "run"], ["jobs", "run", "empty-bin"], ["jobs", "run", "--due"],
    ):  # fmt: skip
        result = app.test_cli_runner().invoke(args=command, input=GOOD)
        assert result.exit_code == 1, command
        assert "Can't connect to MySQL server on '127.0.0.1'" in result.output, (command, result.exception)
        assert result.output.count("\n") == 1
        assert "Traceback" not in result.output
    close(app)


def test_check_tells_every_setting_that_is_wrong_in_one_go(tmp_path):
    wrong = {"PORT": "eighty", "HOST": "not a host", "SECRET_KEY": "secret", "DATABASE_URL": "oracle://x"}
    result = real(tmp_path, "check", env=wrong)
    assert result.returncode == 1
    said = result.stdout + result.stderr
    assert {*failed(said)} >= {*wrong}
    assert "Traceback" not in said
    assert "whole number from 1 to 65535" in said


# -- init-db, setup-link -----------------------------------------------------------------------------------------------


def test_from_an_empty_folder_to_an_administrator_without_a_browser(tmp_path):
    made = real(tmp_path, "init-db")
    assert (made.returncode, made.stdout) == (0, "The database is ready.\n"), made.stderr
    added = real(tmp_path, "create-admin", "anna", "--email", "anna@example.com", "--password-stdin", input=GOOD + "\n")
    assert (added.returncode, added.stdout) == (0, "anna can sign in at http://127.0.0.1:8000/login\n"), added.stderr
    checked = real(tmp_path, "check")
    assert checked.returncode == 0, checked.stdout
    secret = tmp_path / "secret_key"
    assert secret.stat().st_mode & 0o077 == 0 or os.name == "nt"


def test_after_a_command_a_copy_of_the_database_file_alone_is_whole(tmp_path):
    real(tmp_path, "init-db")
    real(tmp_path, "create-admin", "anna", "--password-stdin", input=GOOD + "\n")
    log = tmp_path / "corkboard.db-wal"
    assert not log.exists() or log.stat().st_size == 0
    shutil.copy(tmp_path / "corkboard.db", tmp_path / "copy.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT username FROM users").fetchall() == [("anna",)]


@pytest.mark.parametrize("engine_app", ["sqlite"], indirect=True)
def test_each_command_empties_the_log_of_sqlite_while_the_site_goes_on(app, people, run):
    log = Path(app.config["DATA_DIR"], "corkboard.db-wal")
    for command in ("check", "jobs list", "jobs run --due", "rerender", "db-reindex", "init-db"):
        Setting.change(people.admin, name=command)
        assert log.stat().st_size > 0
        run(*command.split())
        assert not log.exists() or log.stat().st_size == 0, command
        assert Setting.read().name == command


def test_a_new_setup_link_ends_the_one_before(app, run):
    kept = corkboard.setup_file(app)
    kept.write_text("an older link", encoding="utf-8")
    first, second = run("setup-link"), run("setup-link")
    assert first.code == second.code == 0
    assert not kept.exists()
    path = "/setup?token="
    assert first.said.startswith(f"http://127.0.0.1:8000{path}")
    browser = app.test_client()
    assert browser.get(path + first.said.strip().partition("token=")[2]).status_code == 403
    assert browser.get(path + second.said.strip().partition("token=")[2]).status_code == 200
    stored = db.session.scalar(sa.select(Setting.value).where(Setting.name == "setup_token"))
    assert stored not in second.said
    assert re.fullmatch("[0-9a-f]{64}", stored)


def test_a_site_that_is_set_up_has_no_setup_link(people, run):
    result = run("setup-link")
    assert result.code == 1
    assert result.said.startswith("Error: The site is already set up.")
    assert result.said.count("\n") == 1


# -- create-admin ------------------------------------------------------------------------------------------------------


def test_an_administrator_is_made_by_a_password_from_standard_input(app, run):
    result = run("create-admin", "anna", "--email", "anna@example.com", "--password-stdin", input=GOOD + "\r\n")
    assert (result.code, result.said) == (0, "anna can sign in at http://127.0.0.1:8000/login\n")
    user = User.by_username("anna@example.com")
    assert (user.username, user.name, user.role) == ("anna", "anna", Role.ADMIN)
    assert signs_in(app, "Anna", GOOD)
    assert count(Topic, Topic.name == "Everyone") == 1
    assert count(Activity, Activity.action == "person.joined") == 1


def test_a_terminal_is_asked_twice(run, at_a_terminal):
    result = run("create-admin", "anna", "--name", "Anna Lima", input=f"{GOOD}\nother\n{GOOD}\n{GOOD}\n")
    assert result.code == 0
    assert "The two entered values do not match" in result.said
    assert "Confirm password" in result.said
    assert User.by_username("anna").name == "Anna Lima"


def test_a_real_terminal_is_asked_twice_and_shows_nothing(tmp_path):
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
    lay_schema(tmp_path / "corkboard.db")
    ours, theirs = pty.openpty()
    env = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "flask", "create-admin", "anna"]
    process = subprocess.Popen(
        command, cwd=PROJECT, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    said = ""
    for question in ("Password: ", "Confirm password: "):
        while not said.endswith(question):
            said += os.read(ours, 1000).decode()
        os.write(ours, f"{GOOD}\n".encode())
    try:
        while more := os.read(ours, 1000).decode():
            said += more
    except OSError:  # how Linux says that the other end was closed
        pass
    assert process.wait(20) == 0, said
    os.close(ours)
    assert "anna can sign in" in said
    assert GOOD not in said


REFUSED = [
    (["anna"], GOOD, "no terminal"),
    (["anna", "--password-stdin"], "short", "Use 8 to 256 characters"),
    (["anna", "--password-stdin"], "", "Use 8 to 256 characters"),
    (["anna", "--password-stdin"], "x" * 257, "Use 8 to 256 characters"),
    (["anna", "--password-stdin"], "PASSWORD1", "too easy to guess"),
    (["MEMBER", "--password-stdin"], GOOD, "add --reset"),
    (["member@example.com", "--password-stdin"], GOOD, "add --reset"),
    (["nobody", "--reset", "--password-stdin"], GOOD, "nobody called nobody"),
    (["member", "--reset", "--email", "READER@example.com", "--password-stdin"], GOOD, "Someone else is using this"),
    (["member", "--reset", "--email", "nonsense", "--password-stdin"], GOOD, "Email address: Enter an email address"),
    (["a", "--password-stdin"], GOOD, "Username: Use 2 to 32 characters."),
    (["a b", "--password-stdin"], GOOD, "Username: Use letters (a to z), digits"),
    (["x" * 33, "--password-stdin"], GOOD, "Username: Use 2 to 32 characters."),
    (["anna", "--email", "nonsense", "--password-stdin"], GOOD, "Email address: Enter an email address"),
    (["anna", "--email", "a@" + "x" * 300 + ".com", "--password-stdin"], GOOD, "Email address: Use at most 254"),
    (["anna", "--email", "MEMBER@example.com", "--password-stdin"], GOOD, "Someone else is using this email address."),
    (["anna", "--name", "x" * 81, "--password-stdin"], GOOD, "Name: Use at most 80 characters."),
]


def test_what_is_refused_is_refused_in_one_line_and_changes_nothing(people, run):
    before = count(User), count(Activity)
    for args, password, words in REFUSED:
        result = run("create-admin", *args, input=password + "\n")
        assert result.code == 1, args
        assert words in result.said, args
        assert result.said.count("\n") == 1, result.said
        assert (count(User), count(Activity)) == before
    assert run("create-admin").code == 2


@pytest.mark.parametrize("called", ["ｍｅｍＢＥＲ", "MEMBER@example.com"])
def test_reset_makes_somebody_an_administrator_again(app, people, sign_in, run, called):
    browser = sign_in(people.member, remember=True)
    User.deactivate(people.admin, people.member.id)
    result = run("create-admin", called, "--reset", "--password-stdin", input=GOOD)
    assert result.code == 0, result.said
    assert "member is an administrator with the new password" in result.said
    member = db.session.get(User, people.member.id, populate_existing=True)
    assert (member.role, member.deactivated_at) == (Role.ADMIN, None)
    assert browser.get("/").status_code == 302
    assert count(SignIn, SignIn.user_id == member.id, SignIn.ended_at.is_(None)) == 0
    assert not signs_in(app, "member", PASSWORD)
    assert signs_in(app, "member", GOOD)
    assert count(Activity, Activity.action == "person.rescued") == 1


def test_reset_takes_a_new_email_address_and_name_too(app, people, run):
    result = run("create-admin", "member", "--reset", "--email", "new@example.com", "--password-stdin", input=GOOD)
    assert result.code == 0, result.said
    assert signs_in(app, "new@example.com", GOOD)
    assert User.by_username("member").name == people.member.name
    assert run("create-admin", "member", "--reset", "--name", "Mo Lima", "--password-stdin", input=GOOD).code == 0
    db.session.rollback()
    member = User.by_username("member")
    assert (member.name, member.email) == ("Mo Lima", "new@example.com")


def test_a_command_that_is_named_can_be_typed_as_it_is(tmp_path):
    refused = real(tmp_path, "setup-link")
    named = refused.stderr.partition("with: ")[2].strip()
    assert named.endswith(" -m flask init-db")
    env = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path)}
    done = subprocess.run(named, shell=True, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "The database is ready.\n"), done.stderr
    assert real(tmp_path, "setup-link").returncode == 0


# -- seed-demo ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick_hashes(monkeypatch):
    monkeypatch.setattr(corkboard, "hash_password", lambda _password: PASSWORD_HASH)


def test_the_demo_is_a_believable_company(app, run, quick_hashes, sign_in):
    result = run("seed-demo")
    assert result.code == 0
    assert (count(User), count(Topic), count(Post, Post.kind == "news")) == (12, 5, 63)
    assert count(Post, Post.kind == "page") >= 5
    assert count(Comment) >= 20
    assert count(Post, Post.expires_at < database.utcnow()) == count(Post, Post.must_read_since.is_not(None)) == 1
    assert count(Acknowledgement) == 5
    assert count(Revision, Revision.number == 1) == count(Post, Post.published_at.is_not(None))
    assert count(Revision, Revision.number == 2) > 0
    assert count(Post, Post.deleted_at.is_not(None)) == 1
    assert count(Attachment, Attachment.person_id.is_not(None)) == 6
    assert count(Attachment, Attachment.post_id.is_not(None)) == count(Attachment) - 6 == 2
    passwords = re.findall(r"^  (\w+) +(reader|member|editor|admin) +([a-z2-9-]{19})$", result.said, re.MULTILINE)
    assert len(passwords) == len({password for _, _, password in passwords}) == 12
    wrong = sa.select(Post.id).where(
        Post.comment_count
        != sa.select(sa.func.count()).where(Comment.post_id == Post.id).correlate(Post).scalar_subquery()
    )
    assert not db.session.scalars(wrong).all()
    browser = sign_in(User.by_username(passwords[0][0]))
    slugs = db.session.scalars(sa.select(Topic.slug).where(Topic.name.in_(["Everyone", "Management"]))).all()
    for path in ("/", "/handbook", "/people", "/admin", *(f"/topics/{slug}" for slug in slugs)):
        page = browser.get(path)
        assert page.status_code == 200
        assert "Thimble &amp; Rye" in page.text
    assert "Away today" in browser.get("/").text
    refused = run("seed-demo")
    assert refused.code == 1
    assert "There are people here already." in refused.said


def test_the_demo_can_be_added_to_a_site_in_use_and_leaves_its_name(people, run, quick_hashes):
    add_topic(people.editor, "Everyone")
    Setting.change(people.admin, name="Ours")
    assert run("seed-demo").code == 1
    result = run("seed-demo", "--force")
    assert result.code == 0, result.said
    assert (count(User), count(Topic), count(Post, Post.kind == "news")) == (17, 5, 63)
    assert corkboard.Setting.read().name == "Ours"
    again = run("seed-demo", "--force")
    assert again.code == 1
    assert again.said == "Error: This username is taken.\n"
    assert count(User) == 17


def test_what_the_demo_did_was_done_when_it_says_and_in_that_order(run, quick_hashes):
    began = database.utcnow()
    assert run("seed-demo").code == 0
    for model, at in ((Activity, Activity.at), (Comment, Comment.created_at), (Notification, Notification.created_at)):
        times = db.session.scalars(sa.select(at).order_by(model.id)).all()
        assert times == sorted(times)
        assert times[-1] < began
        assert times[-1] - times[0] > timedelta(days=6)
    late = sa.select(sa.func.count()).select_from(Revision).where(Revision.created_at > began - timedelta(minutes=1))
    assert db.session.scalar(late) == 0
    assert count(Notification, Notification.read_at.is_(None)) > 10
    assert count(Notification, Notification.created_at < began - timedelta(days=9), Notification.read_at.is_(None)) == 0
    assert count(Post, Post.body.contains("[[")) == 0, "each names a page that there is"


def test_the_demo_makes_as_many_posts_as_are_wanted(run, quick_hashes):
    assert run("seed-demo", "--posts", "2500").code == 0
    assert count(Post, Post.kind == "news") == 2500
    assert count(Revision) >= 2498
    assert count(Post, Post.scheduled_for.is_not(None)) == 1
    assert count(Post, Post.published_at.is_(None)) == 2
    assert run("seed-demo", "--posts", "many").code == 2


# -- All of them -------------------------------------------------------------------------------------------------------


def test_every_command_explains_itself(app):
    runner = app.test_cli_runner()
    listed = runner.invoke(args=["--help"]).output
    for name in ("check", "init-db", "create-admin", "seed-demo", "setup-link", "jobs", "rerender", "db-reindex", "db"):
        assert name in listed
        shown = runner.invoke(args=[name, "--help"])
        assert shown.exit_code == 0
        assert len(shown.output.splitlines()[2].strip()) > 20


def test_nobody_is_added_by_a_name_that_only_looks_new(people, run):
    add_person("änna", email=None)
    result = run("create-admin", "ＭＥＭＢＥＲ", "--password-stdin", input=GOOD)
    assert result.code == 1
    assert "add --reset" in result.said
