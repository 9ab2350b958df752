"""Administration: whether everything is OK, how the site is used, and what it does by itself."""

from __future__ import annotations

import os
import re
import socket
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from conftest import add_comment, add_post
from world import set_columns

import app as corkboard
import config
from app import Activity, Comment, Job, JobRun, Post, SignIn, User, VisitCount, utcnow
from database import db

HOUR = timedelta(hours=1)

pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.fixture
def backups(empty_folder) -> Path:
    """A fresh backup."""
    newest = empty_folder / "backups" / "corkboard.zip"
    newest.parent.mkdir()
    newest.write_bytes(b"")
    return newest


def make(run, name: str = "empty-bin") -> Job:
    return Job(name, HOUR, "A job of the tests.", run, "thing", "done")


def line_of(page: str, name: str) -> str:
    """What the page says about one thing, in words, behind its state."""
    state, words = re.findall(rf'<li class="is-(\w+)">(?:(?!</li>).)*?<h2>\s*{name}\b(.*?)</li>', page, re.DOTALL)[0]
    return f"{state}: {in_words(words)}"


def in_words(html: str) -> str:
    return " ".join(re.sub("<[^>]+>", " ", html).split())


# -- Is everything OK? -------------------------------------------------------------------------------------------------


def test_when_everything_is_in_order_the_page_says_yes(people, sign_in, backups):
    corkboard.run_job(make(lambda: 1))
    page = sign_in(people.admin).get("/admin").text
    assert "Yes. Everything is in order." in page
    assert "is-bad" not in page
    for name in ("Email", "Jobs", "Backups", "Database", "Files", "Disk", "Version"):
        assert line_of(page, name).startswith("well: (in order)"), name


def test_what_is_not_in_order_comes_first_with_what_to_do(people, sign_in, monkeypatch):
    monkeypatch.setattr(corkboard, "JOBS", [make(lambda: 1 // 0)])
    corkboard.run_job(corkboard.JOBS[0])
    page = sign_in(people.admin).get("/admin").text
    assert "No. This needs your attention: jobs." in page
    assert line_of(page, "Jobs").startswith("bad: (not in order) failed when last run: empty-bin For details, see")
    assert "there is none yet" in line_of(page, "Backups")
    states = re.findall(r'<li class="is-(bad|well)">', page)
    assert states == sorted(states)


def test_the_page_says_when_a_restore_was_last_verified(people, sign_in, backups):
    corkboard.run_job(make(lambda: 1))
    corkboard.Backup.record(None, "backup.verified", "corkboard.zip")
    line = line_of(sign_in(people.admin).get("/admin").text, "Backups")
    assert line.startswith("well: (in order)")
    assert f"last verified restore: {utcnow():%A}" in line


def test_a_site_needs_a_backup_that_is_not_old(people, sign_in, backups):
    corkboard.run_job(make(lambda: 1))
    long_ago = (utcnow() - timedelta(days=3)).timestamp()
    os.utime(backups, (long_ago, long_ago))
    page = sign_in(people.admin).get("/admin").text
    assert "No. This needs your attention: backups." in page
    assert line_of(page, "Backups").startswith("bad: (not in order) the last one was made on")
    backups.unlink()
    set_columns(User, people.admin.id, created_at=utcnow() - timedelta(days=3))
    page = sign_in(people.admin).get("/admin").text
    assert line_of(page, "Backups").startswith("bad: (not in order) there is none yet Make one now.")


def test_it_says_how_large_the_database_is_and_how_many_files_there_are(people, sign_in):
    page = sign_in(people.admin).get("/admin").text
    assert re.search(r"it answers, and takes [\d.]+ [KM]B$", line_of(page, "Database"))
    assert line_of(page, "Files").endswith("no files")


def test_texts_of_an_older_version_are_told_only_while_there_are_some(people, topics, sign_in):
    post, browser = add_post(people.member, topics.open), sign_in(people.admin)
    assert "python -m flask rerender" not in browser.get("/admin").text
    set_columns(Post, post.id, renderer=1)
    assert "python -m flask rerender" in browser.get("/admin").text


@pytest.mark.parametrize(("host", "site_url", "shown"), [
    ("0.0.0.0", "", "http://192.0.2.77:8000"), ("::", "", "http://[2001:db8::77]:8000"),
    ("10.0.0.5", "", "http://10.0.0.5:8000"), ("0.0.0.0", "https://board.example.com", "https://board.example.com"),
    ("127.0.0.1", "", ""), ("localhost", "", ""), ("::1", "", ""),
])  # fmt: skip
def test_the_address_to_hand_out_is_the_same_everywhere_or_none_is(
    app, people, sign_in, monkeypatch, host, site_url, shown
):
    monkeypatch.setitem(app.config, "HOST", host)
    monkeypatch.setitem(app.config, "SITE_URL", site_url)
    ours = {"0.0.0.0": "192.0.2.77", "::": "2001:db8::77"}
    monkeypatch.setattr(config, "outgoing_address", ours.__getitem__)
    browser = sign_in(people.admin)
    overview = browser.get("/admin").text
    sheet = browser.submit(f"/admin/people/{people.member.id}/link").text
    assert f'data-copy="{shown}"' in overview or not shown
    assert f'data-copy="{shown}/reset/' in sheet or not shown
    if not shown:
        for page in (overview, sheet):
            assert "Only this computer can open the site so far." in page
        assert 'data-copy="http' not in overview
    checked = app.test_cli_runner().invoke(args=["check"]).output
    assert f"Other computers can open the site at {shown}" in checked or not shown
    assert config.site_address(app.config) == shown or not shown


def test_the_address_of_this_computer_is_its_own_and_without_a_network_it_is_its_name(monkeypatch):
    found = config.outgoing_address("0.0.0.0")
    with socket.socket() as probe:
        probe.bind((found, 0))
    monkeypatch.setattr(config.socket.socket, "connect", lambda *_: (_ for _ in ()).throw(OSError("unreachable")))
    assert config.outgoing_address("0.0.0.0") == socket.gethostname().lower()


# -- How it is used ----------------------------------------------------------------------------------------------------


def rows_of(page: str, title: str) -> list[list[str]]:
    """The table below a drawing."""
    (table,) = re.findall(rf"<h3>{title}</h3>.*?<tbody>(.*?)</tbody>", page, re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [[in_words(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in rows]


def test_it_shows_how_many_people_were_here_on_each_day(people, sign_in):
    today = corkboard.site_day(utcnow())
    with db.engine.begin() as connection:
        for ago, count in ((1, 3), (2, 5), (40, 4)):
            connection.execute(sa.insert(VisitCount).values(day=today - timedelta(days=ago), visitors=count))
    browser = sign_in(people.admin)
    browser.get("/")
    page = browser.get("/admin").text
    rows = rows_of(page, "People per day")
    assert len(rows) == 28
    assert [row[1] for row in rows[:4]] == ["1", "3", "5", "0"]


def test_it_shows_posts_and_comments_of_each_week_as_far_as_one_may_see_them(people, topics, sign_in):
    old = add_post(people.member, topics.open)
    set_columns(Post, old.id, published_at=utcnow() - timedelta(days=15))
    add_comment(people.member, old)
    gone = add_comment(people.member, old)
    Comment.delete(people.member, gone.id)
    for _ in range(2):
        add_comment(people.member, add_post(people.member, topics.private))
    add_post(people.member, topics.open, how="draft")
    rows = rows_of(sign_in(people.admin).get("/admin").text, "Posts and comments per week")
    assert [row[1:] for row in rows] == [["2", "3"], ["0", "0"], ["1", "0"], ["0", "0"]]
    corkboard.Topic.remove_member(people.editor, topics.private.id, people.admin.id)
    page = sign_in(people.admin).get("/admin").text
    assert rows_of(page, "Posts and comments per week")[0][1:] == ["0", "1"]


def test_it_shows_the_slowest_pages_and_those_that_failed(app, people, sign_in, monkeypatch):
    def fail() -> None:
        raise corkboard.database.DatabaseBusy

    browser = sign_in(people.admin)
    browser.get("/people/reader")
    monkeypatch.setattr(corkboard, "sidebar", fail)
    for _ in range(20):  # what other tests made fail is counted, too
        assert browser.get("/").status_code == 503
    page = browser.get("/admin").text
    slowest = rows_of(page, "Slowest pages")
    assert 0 < len(slowest) <= 5
    assert all(re.fullmatch(r"[\d,]+ ms", row[1]) for row in slowest)
    assert "/ 503" in [row[0] for row in rows_of(page, "Errors")]


# -- Jobs --------------------------------------------------------------------------------------------------------------


def test_each_job_is_shown_with_its_last_run_its_result_and_its_next_run(people, sign_in):
    browser = sign_in(people.admin)
    page = browser.get("/admin/jobs").text
    assert page.count("Never") == len(corkboard.JOBS)
    for job in corkboard.JOBS:
        assert job.about in page
    corkboard.run_job(corkboard.JOBS[1])
    page = browser.get("/admin/jobs").text
    assert page.count("Never") == len(corkboard.JOBS) - 1
    assert "Nothing to do." in page
    assert re.search(r"just now</time>, took 0\.\d s", page)


def test_an_administrator_runs_a_job_now_and_that_is_recorded(people, sign_in):
    browser = sign_in(people.admin)
    corkboard.run_job(corkboard.JOBS[1])
    token = SignIn.start(people.reader.id, False, "Firefox", "")
    old = db.session.scalar(sa.select(SignIn.id).where(SignIn.token_hash == corkboard.hash_token(token)))
    set_columns(SignIn, old, expires_at=utcnow() - timedelta(days=60))
    answer = browser.submit("/admin/jobs/clean-up/run")
    assert (answer.status_code, answer.location) == (303, "/admin/jobs")
    assert "clean-up: 1 thing deleted." in browser.get("/admin/jobs").text
    recorded = db.session.scalars(sa.select(Activity).where(Activity.action == "job.run")).all()
    assert [(row.actor_id, row.detail) for row in recorded] == [(people.admin.id, "clean-up")]
    assert "ran a job (clean-up)" in in_words(browser.get("/admin/activity").text)


def test_a_job_that_is_being_run_is_not_run_twice_and_the_page_says_so(people, sign_in):
    browser = sign_in(people.admin)
    assert JobRun.claim("clean-up")
    assert "Running, started" in browser.get("/admin/jobs").text
    assert browser.submit("/admin/jobs/clean-up/run").status_code == 303
    assert "clean-up: already running." in browser.get("/admin/jobs").text
    assert db.session.scalar(sa.select(Activity).where(Activity.action == "job.run")) is None


def test_a_job_that_fails_says_so_in_red(people, sign_in, monkeypatch):
    monkeypatch.setattr(corkboard, "JOBS", [make(lambda: 1 // 0)])
    browser = sign_in(people.admin)
    browser.submit("/admin/jobs/empty-bin/run")
    page = browser.get("/admin/jobs").text
    assert "empty-bin: Failed: ZeroDivisionError." in page
    assert "word-stop" in page


def test_a_job_is_run_by_the_button_only_and_by_administrators_only(people, sign_in):
    assert sign_in(people.admin).get("/admin/jobs/clean-up/run").status_code == 405
    assert sign_in(people.admin).submit("/admin/jobs/nothing/run").status_code == 404
    assert sign_in(people.editor).submit("/admin/jobs/clean-up/run").status_code == 403
    assert sign_in(people.admin).post("/admin/jobs/clean-up/run").status_code == 400
    assert JobRun.known() == {}
