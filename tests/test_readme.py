"""The README keeps its word: the five steps to a page of one's own work as they are written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
STEP = re.compile(r"^ *<!-- own-page: (?P<where>.+?) -->\n *```\w+\n(?P<code>.*?)\n *```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, as somebody has it who is about to extend it."""
    copy = tmp_path / "corkboard"
    ignore = shutil.ignore_patterns("instance", ".git", ".venv", "browser", "bench", "faults", "*cache*", ".hypothesis")
    return Path(shutil.copytree(PROJECT, copy, ignore=ignore))


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
    assert text.count(mark) >= 1, f"{name} has no {mark!r}, which the README speaks of"
    at = text.index(mark)
    if action == "before":  # a section's banner begins with a line above the one that names it
        at = text.rindex("\n# ====", 0, at) + 1
        changed = f"{text[:at]}{code}\n\n\n{text[at:]}"
    elif action == "after":
        changed = f"{text[: at + len(mark)]}\n{code}{text[at + len(mark) :]}"
    else:
        changed = text.replace(mark, code, 1)
    path.write_text(changed, encoding="utf-8")


def dedent(code: str) -> str:
    return "\n".join(line.removeprefix("   ") for line in code.split("\n"))


def test_the_five_steps_to_a_page_of_ones_own_work(project):
    steps = STEP.findall(README)
    assert len(steps) == 6
    for where, code in steps:
        follow(project, where, dedent(code))
    environment = {
        name: value for name, value in os.environ.items() if name not in ("TEST_MYSQL_URL", "CORKBOARD_TEST_REQUIRE")
    }
    contents = "tests/test_structure.py::test_the_contents_name_the_blueprints_and_models_that_there_are"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_lunch.py", contents]
    run = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_page_that_says_nothing_of_access_stops_the_start(project):
    where, code = STEP.findall(README)[0]
    follow(project, where, dedent(code).replace("@login_required\n", ""))
    where, code = STEP.findall(README)[1]
    follow(project, where, dedent(code))
    environment = os.environ | {"DATA_DIR": str(project / "data"), "APP_ENV": "testing"}
    run = subprocess.run(
        [sys.executable, "-c", "import wsgi"], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert "lunch.show_lunch" in run.stderr
