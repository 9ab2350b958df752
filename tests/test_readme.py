"""The README keeps its word: each recipe as it is written, those of new columns on a site that is in use."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MYSQL_URL, NO_MYSQL, WORKER, create_database, drop_database, may_create_databases
from post_office import PostOffice, only_with
from serving import Site

PROJECT = Path(__file__).resolve().parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
STEP = re.compile(r"^ *<!-- ([a-z]+-\w+): (.+?) -->\n *```\w*\n(.*?)\n *```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, as somebody has it who is about to extend it."""
    copy = tmp_path / "corkboard"
    ignore = shutil.ignore_patterns("instance", ".git", ".venv", "browser", "bench", "faults", "*cache*", ".hypothesis")
    return Path(shutil.copytree(PROJECT, copy, ignore=ignore))


def steps_of(recipe: str) -> list[tuple[str, str]]:
    """Where each step of a recipe is done, and what is written there."""
    return [(where, dedent(code)) for name, where, code in STEP.findall(README) if name == recipe]


def dedent(code: str) -> str:
    return "\n".join(line.removeprefix("   ") for line in code.split("\n"))


def follow(project: Path, where: str, code: str) -> None:
    """Carry out one step: a new file, or a change before, after or instead of a mark in an existing one."""
    name, _, how = where.partition(" ")
    path = project / name
    if not how:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code + "\n", encoding="utf-8")
        return
    action, _, mark = how.partition(" ")
    text = path.read_text(encoding="utf-8")
    assert mark in text, f"{name} has no {mark!r}, which the README speaks of"
    at = text.index(mark)
    if action == "replace":
        changed = text.replace(mark, code, 1)
    elif action == "after":
        changed = f"{text[: at + len(mark)]}\n{code}{text[at + len(mark) :]}"
    elif mark.startswith("# =="):  # a banner begins with a line above the one that names the section
        at = text.rindex("\n# ====", 0, at) + 1
        changed = f"{text[:at]}{code}\n\n\n{text[at:]}"
    else:
        at = text.rindex("\n", 0, at) + 1
        changed = f"{text[:at]}{code}\n{text[at:]}"
    path.write_text(changed, encoding="utf-8")


def python(project: Path, *arguments: str, **settings: str) -> str:
    """What Python prints in the project, where it ends well."""
    names = ("TEST_MYSQL_URL", "CORKBOARD_TEST_REQUIRE", "DATA_DIR", "DATABASE_URL", "APP_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"DATA_DIR": str(project / "data"), **settings}
    command = [sys.executable, *arguments]
    run = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


# -- A page ------------------------------------------------------------------------------------------------------------


def test_the_five_steps_to_a_page_of_ones_own_work(project):
    steps = steps_of("own-page")
    assert len(steps) == 7
    for where, code in steps:
        follow(project, where, code)
    contents = "tests/test_structure.py::test_the_contents_name_the_blueprints_and_models_that_there_are"
    matrix = [f"tests/test_role_matrix.py::{name}" for name in (
        "test_every_route_and_method_is_in_the_table_and_nothing_else[sqlite]",
        "test_everybody_may_do_what_the_table_says_and_no_more[sqlite-lunch.show_lunch-GET]",
    )]  # fmt: skip
    python(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_lunch.py", contents, *matrix)


def test_a_page_that_says_nothing_of_access_stops_the_start(project):
    view, registered = steps_of("own-page")[:2]
    follow(project, view[0], view[1].replace("@login_required\n", ""))
    follow(project, *registered)
    with pytest.raises(AssertionError, match=r"lunch\.show_lunch"):
        python(project, "-c", "import wsgi")


# -- A field of a person, and a part of a post, on a site that is in use -----------------------------------------------

BROWSER = """
import re, sys
sys.path[:0] = [".", "tests"]
from conftest import Browser
import app as corkboard

site = corkboard.create_app()
site.test_client_class = Browser

def browser_of(username):
    with site.app_context():
        user = corkboard.User.by_username(username)
        token = corkboard.SignIn.start(user.id, False, "Firefox", "127.0.0.1")
    browser = site.test_client()
    with browser.session_transaction() as session:
        session["token"], session["csrf_token"] = token, "a" * 40
    return browser
"""
FIELD = """
soren = browser_of("soren")
assert "Speaks" not in soren.get("/people/soren").text
assert 'name="languages"' in soren.get("/account").text
soren.submit("/account", {"name": "Søren Dahl", "email": "soren@thimblerye.example", "languages": "Danish and Polish"})
assert "Speaks Danish and Polish" in soren.get("/people/soren").text
assert "Søren" in soren.get("/people?q=polish").text
assert "Yuki" not in soren.get("/people?q=polish").text
"""
PART = """
ines = browser_of("ines")
newest = re.search(r'href="(/posts/[0-9]+)"', ines.get("/").text)[1]
assert ines.get(newest).status_code == 200
topic = re.findall(r'<option[^>]* value="([0-9]+)"', ines.get("/posts/new").text)[0]
values = {"kind": "news", "topic": topic, "title": "Tasting", "body": "Bring a spoon.", "place": "The Long Table"}
made = ines.submit("/posts/new", values | {"form_id": "a" * 32}).headers["Location"]
assert "The Long Table" in ines.get(made).text
assert 'value="The Long Table"' in ines.get(made + "/edit").text
ines.submit(made + "/edit", values | {"version": "1", "place": "The yard"})
assert "The yard" in ines.get(made).text
assert "The Long Table" not in ines.get(made).text
"""


@pytest.fixture(params=["sqlite", "mysql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The setting that names a database of the test's own."""
    if request.param == "sqlite":
        yield {}
        return
    if not MYSQL_URL or not may_create_databases():
        pytest.skip(NO_MYSQL if not MYSQL_URL else "the account of TEST_MYSQL_URL may not create databases")
    yield {"DATABASE_URL": create_database(f"{WORKER}readme")}
    drop_database(f"{WORKER}readme")


def test_a_field_of_a_person_and_a_part_of_a_post_work_on_a_site_in_use(project, database_url):
    python(project, "-m", "flask", "init-db", **database_url)
    python(project, "-m", "flask", "seed-demo", **database_url)
    for recipe, places, check in (("own-field", 5, FIELD), ("own-part", 9, PART)):
        *edits, (where, commands) = steps_of(recipe)
        assert len(edits) + 1 == places
        assert where == "run"
        for edit in edits:
            follow(project, *edit)
        for command in commands.splitlines():
            python(project, *(word.strip('"') for word in re.findall(r'"[^"]+"|\S+', command)[1:]), **database_url)
        python(project, "-c", BROWSER + check, **database_url)
    assert "nothing to migrate" in python(project, "-m", "flask", "db", "migrate", **database_url)
    made = {path.name[5:]: path.name for path in (project / "migrations" / "versions").glob("*.py")}
    numbers = [made[name][:4] for name in ("languages_of_people.py", "place_of_a_post.py")]
    assert numbers == [f"{len(made) - 1:04}", f"{len(made):04}"]
    python(project, "-m", "ruff", "format", "--check", "migrations")
    python(project, "-m", "ruff", "check", "migrations")


# -- Programs ----------------------------------------------------------------------------------------------------------

NEW_TOKEN = """
import sys
import app as corkboard

with corkboard.create_app().app_context():
    ana = corkboard.User.by_username("ana")
    print(corkboard.ApiToken.create(ana, form_id="a" * 32, name="Lunch", scope="write", expires_at=None))
"""


def test_programs_read_and_write_as_the_readme_says(tmp_path):
    codes = dict(re.findall(r"^ *<!-- programs: (\S+) -->\n *```\w*\n(.*?)\n *```$", README, re.MULTILINE | re.DOTALL))
    assert [*codes] == ["linux", "windows", "lunch_news.py"]
    with Site(tmp_path / "data") as site:
        site.flask("init-db")
        site.flask(
            "create-admin", "ana", "--email", "ana@example.com", "--password-stdin", stdin="seven green bottles\n"
        )
        site.start()
        environment = site.environ | {
            "CORKBOARD": f"http://127.0.0.1:{site.port}",
            "TOKEN": site.python("-c", NEW_TOKEN).strip(),
        }
        script = tmp_path / "lunch_news.py"
        script.write_text(dedent(codes["lunch_news.py"]), encoding="utf-8")
        made = {printed(environment, sys.executable, str(script)) for _ in range(2)}
        assert len(made) == 1
        news = json.loads(printed(environment, "sh", "-c", dedent(codes["linux"])))
    assert [(post["title"], post["url"]) for post in news] == [("Lunch today", made.pop().strip())]


def printed(environment: dict[str, str], *command: str) -> str:
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


# -- From SQLite to MariaDB --------------------------------------------------------------------------------------------

MOVED = """
assert site.config["DATABASE_URL"].startswith("mysql")
ines = browser_of("ines")
newest = re.search(r'href="(/posts/[0-9]+)"', ines.get("/").text)[1]
assert ines.get(newest).status_code == 200
assert "No results" not in ines.get("/search?q=bread").text
"""


def test_moving_from_sqlite_to_mariadb_takes_two_commands(project):
    """As it is written, with the setting of the test's own database; and everybody is there."""
    if not MYSQL_URL or not may_create_databases():
        pytest.skip(NO_MYSQL if not MYSQL_URL else "the account of TEST_MYSQL_URL may not create databases")
    url = create_database(f"{WORKER}readme")
    try:
        python(project, "-m", "flask", "init-db")
        python(project, "-m", "flask", "seed-demo")
        steps = steps_of("move-site")
        assert [where for where, _ in steps] == ["run", ".env", "run"]
        for where, code in steps:
            if where == "run":
                arguments = code.split()[1:]
                assert "\n" not in code
                python(project, *arguments)
            else:
                (project / ".env").write_text(f"{code.partition('=')[0]}={url}\n", encoding="utf-8")
        python(project, "-c", BROWSER + MOVED)
    finally:
        drop_database(f"{WORKER}readme")


# -- Email -------------------------------------------------------------------------------------------------------------

TEST_BUTTON = """
ana = browser_of("ana")
assert "Sent through" in ana.get("/admin/mail").text
ana.submit("/admin/mail")
page = ana.get("/admin/mail").text
assert "The mail server accepted a test email to ana@example.com." in page, page
"""


def test_email_works_after_the_steps_to_it(project):
    ((where, lines),) = steps_of("send-email")
    follow(project, where, lines)
    (project / ".env").chmod(0o640)
    python(project, "-m", "flask", "init-db")
    ana = (
        'import app, sys; sys.argv = ["flask", "create-admin", "ana", "--email", "ana@example.com", "--password-stdin"]'
    )
    ana += '; import io; sys.stdin = io.StringIO("seven green bottles"); from flask.cli import main; main()'
    python(project, "-c", ana)
    password = re.search("MAIL_PASSWORD=(.+)", lines)[1]
    with PostOffice(**only_with("board@example.com", password)) as office:
        here = {"MAIL_SERVER": "127.0.0.1", "MAIL_PORT": str(office.port), "MAIL_USE_TLS": "no"}
        assert "MAIL_FROM: Our board <board@example.com>" in python(project, "-m", "flask", "check", **here)
        python(project, "-c", BROWSER + TEST_BUTTON, **here)
        assert office.subjects("ana") == ["A test from Corkboard"]
        assert office.to("ana")[0]["From"] == "Our board <board@example.com>"
        assert "http://intranet.example.com:8000/admin/mail" in office.to("ana")[0].as_string()
