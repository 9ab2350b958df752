"""Administration: whether everything is OK, how the site is used, and what it does by itself."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from conftest import add_comment, add_post
from world import set_columns

import app as corkboard
from app import Activity, Attachment, Comment, Job, JobRun, Post, SignIn, VisitCount, utcnow
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
    assert "is-care" not in page
    for name in ("Email", "Jobs", "Backups", "Database", "Files", "Disk", "Version"):
        assert line_of(page, name).startswith("well: (in order)"), name


def test_what_is_broken_comes_first_then_what_to_look_at_each_with_what_to_do(people, sign_in, monkeypatch):
    monkeypatch.setattr(corkboard, "JOBS", [make(lambda: 1 // 0)])
    corkboard.run_job(corkboard.JOBS[0])
    page = sign_in(people.admin).get("/admin").text
    assert "No. This needs your attention: jobs." in page
    assert line_of(page, "Jobs").startswith("bad: (broken) Failed when last run: empty-bin.")
    assert line_of(page, "Backups").startswith("care: (have a look) There is none yet.")
    states = re.findall(r'<li class="is-(bad|care|well)">', page)
    assert states == sorted(states, key=["bad", "care", "well"].index)


def test_the_page_says_when_a_restore_was_last_verified(people, sign_in, backups, monkeypatch):
    corkboard.run_job(make(lambda: 1))
    for days, state in ((3, "well: (in order)"), (20, "care: (have a look)")):
        verified = utcnow() - timedelta(days=days)
        monkeypatch.setattr(corkboard.Backup, "last_verified", lambda verified=verified: verified)
        line = line_of(sign_in(people.admin).get("/admin").text, "Backups")
        assert line.startswith(state)
        assert f"Last verified restore: {verified:%A}" in line


def test_an_old_backup_is_worth_a_look(people, sign_in, backups):
    corkboard.run_job(make(lambda: 1))
    long_ago = (utcnow() - timedelta(days=3)).timestamp()
    os.utime(backups, (long_ago, long_ago))
    page = sign_in(people.admin).get("/admin").text
    assert "Almost. Have a look at this: backups." in page
    assert line_of(page, "Backups").startswith("care: (have a look) The last one was made on")


def test_the_database_and_the_files_are_told_by_name_and_size(app, people, topics, sign_in):
    page = sign_in(people.admin).get("/admin").text
    engine = "SQLite 3" if app.config["DATABASE_URL"].startswith("sqlite") else "(?:MariaDB|MySQL) [0-9]"
    assert re.search(rf"{engine}[0-9.]* answers in \d+ ms; [\d.]+ [KM]B\.$", line_of(page, "Database"))
    assert line_of(page, "Files").endswith("No files, no bytes.")
    assert isinstance(db.session.scalar(sa.select(sa.func.count()).select_from(Attachment)), int)


def test_texts_of_an_older_version_are_told_only_while_there_are_some(people, topics, sign_in):
    post, browser = add_post(people.member, topics.open), sign_in(people.admin)
    assert "python -m flask rerender" not in browser.get("/admin").text
    set_columns(Post, post.id, renderer=1)
    assert "Run: python -m flask rerender" in browser.get("/admin").text


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
    rows = rows_of(page, "People here each day")
    assert len(rows) == 28
    assert rows[0] == ["Today", "1"]
    assert [row[1] for row in rows[1:4]] == ["3", "5", "0"]
    assert "1 of 5 today" in page
    assert "4 on an ordinary day" in page


def test_it_shows_posts_and_comments_of_each_week_as_far_as_one_may_see_them(people, topics, sign_in):
    old = add_post(people.member, topics.open)
    set_columns(Post, old.id, published_at=utcnow() - timedelta(days=14))
    add_comment(people.member, old)
    gone = add_comment(people.member, old)
    Comment.delete(people.member, gone.id)
    for _ in range(2):
        add_comment(people.member, add_post(people.member, topics.private))
    add_post(people.member, topics.open, how="draft")
    rows = rows_of(sign_in(people.admin).get("/admin").text, "Posts and comments each week")
    assert [row[1:] for row in rows] == [["2", "3"], ["0", "0"], ["1", "0"], ["0", "0"]]
    corkboard.Topic.remove_member(people.editor, topics.private.id, people.admin.id)
    page = sign_in(people.admin).get("/admin").text
    assert rows_of(page, "Posts and comments each week")[0] == ["This week", "0", "1"]


def test_it_shows_the_slowest_pages_and_those_that_failed(app, people, sign_in, monkeypatch):
    def fail() -> None:
        raise corkboard.database.DatabaseBusy

    browser = sign_in(people.admin)
    browser.get("/people/reader")
    monkeypatch.setattr(corkboard, "sidebar", fail)
    assert browser.get("/").status_code == 503
    page = browser.get("/admin").text
    slowest = rows_of(page, "Slowest pages")
    assert 0 < len(slowest) <= 5
    assert all(re.fullmatch(r"[\d,]+ ms, \d+ requests?", row[1]) for row in slowest)
    assert "&lt;" not in "".join(row[0] for row in slowest)
    assert ["/", "1"] in [[row[0], row[1].partition(" ")[0]] for row in rows_of(page, "Errors")]


# -- Jobs --------------------------------------------------------------------------------------------------------------


def test_each_job_is_shown_with_its_last_run_its_result_and_its_next_run(people, sign_in):
    browser = sign_in(people.admin)
    page = browser.get("/admin/jobs").text
    assert page.count("It has not run yet.") == len(corkboard.JOBS)
    for job in corkboard.JOBS:
        assert job.about in page
    corkboard.run_job(corkboard.JOBS[1])
    page = browser.get("/admin/jobs").text
    assert page.count("It has not run yet.") == len(corkboard.JOBS) - 1
    assert "Nothing to do." in page
    assert re.search(r"just now</time>, took 0\.\d s", page)


def test_an_administrator_runs_a_job_now_and_that_is_recorded(people, sign_in):
    browser = sign_in(people.admin)
    corkboard.run_job(corkboard.JOBS[1])
    token = SignIn.start(people.reader.id, False, "Firefox", "")
    old = db.session.scalar(sa.select(SignIn.id).where(SignIn.token_hash == corkboard.hash_token(token)))
    set_columns(SignIn, old, expires_at=utcnow() - timedelta(days=60))
    answer = browser.submit("/admin/jobs/sign-ins/run")
    assert (answer.status_code, answer.location) == (303, "/admin/jobs")
    assert "sign-ins: 1 sign-in deleted." in browser.get("/admin/jobs").text
    recorded = db.session.scalars(sa.select(Activity).where(Activity.action == "job.run")).all()
    assert [(row.actor_id, row.detail) for row in recorded] == [(people.admin.id, "sign-ins")]
    assert "ran the job sign-ins" in in_words(browser.get("/admin/activity").text)


def test_a_job_that_is_being_run_is_not_run_twice_and_the_page_says_so(people, sign_in):
    browser = sign_in(people.admin)
    assert JobRun.claim("sign-ins")
    assert "Being run since" in browser.get("/admin/jobs").text
    assert browser.submit("/admin/jobs/sign-ins/run").status_code == 303
    assert "The job sign-ins is being run already." in browser.get("/admin/jobs").text
    assert db.session.scalar(sa.select(Activity).where(Activity.action == "job.run")) is None


def test_a_job_that_fails_says_so_in_red(people, sign_in, monkeypatch):
    monkeypatch.setattr(corkboard, "JOBS", [make(lambda: 1 // 0)])
    browser = sign_in(people.admin)
    browser.submit("/admin/jobs/empty-bin/run")
    page = browser.get("/admin/jobs").text
    assert 'class="flash flash-danger"' in page
    assert "empty-bin: Failed: ZeroDivisionError." in page
    assert "word-stop" in page


def test_a_job_is_run_by_the_button_only_and_by_administrators_only(people, sign_in):
    assert sign_in(people.admin).get("/admin/jobs/sign-ins/run").status_code == 405
    assert sign_in(people.admin).submit("/admin/jobs/nothing/run").status_code == 404
    assert sign_in(people.editor).submit("/admin/jobs/sign-ins/run").status_code == 403
    assert sign_in(people.admin).post("/admin/jobs/sign-ins/run").status_code == 400
    assert JobRun.known() == {}
