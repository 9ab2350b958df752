"""Jobs: what the site does by itself, claimed by a lease, tried again after a failure, run by hand as well."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from conftest import add_comment, add_post, lay_schema, together
from world import set_columns, value

import app as corkboard
from app import Comment, Job, JobRun, Post, Revision, SearchEntry, utcnow
from database import db

HOUR = timedelta(hours=1)
PROJECT = Path(__file__).resolve().parent.parent


def job(run=lambda: 3, name: str = "probe") -> Job:
    return Job(name, HOUR, "A job of the tests.", run, "thing", "done")


def row(name: str = "probe"):
    return JobRun.known()[name]


def make_due(name: str = "probe") -> None:
    with db.engine.begin() as connection:
        connection.execute(sa.update(JobRun).where(JobRun.name == name).values(due_at=utcnow() - timedelta(seconds=1)))
    db.session.rollback()
    db.session.rollback()


def test_a_job_runs_when_it_is_due_and_not_again_before_that(app):
    assert corkboard.run_job(job()) == "3 things done."
    assert corkboard.run_job(job()) is None
    assert row().result == "3 things done."
    assert timedelta(minutes=59) < row().due_at - utcnow() <= HOUR
    make_due()
    assert corkboard.run_job(job(lambda: 0)) == "Nothing to do."
    assert row().result == "Nothing to do."


def test_a_job_does_not_wait_for_a_time_that_was_due_before_the_clock_was_set_back(app, monkeypatch):
    with monkeypatch.context() as clock:
        clock.setattr("app.utcnow", lambda: utcnow() + timedelta(days=2))
        assert corkboard.run_job(job()) == "3 things done."
    assert corkboard.run_job(job()) == "3 things done."
    assert corkboard.run_job(job()) is None


def test_several_processes_never_run_one_twice(app):
    ran = []
    outcomes = together(app, *[lambda: corkboard.run_job(job(lambda: ran.append(1) or 1))] * 6)
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert ran == [1]
    assert outcomes.count("1 thing done.") == 1


def test_a_job_that_is_at_work_is_not_begun_by_another_and_a_dead_one_is_once_its_lease_is_over(app):
    lease = JobRun.claim("probe")
    assert lease
    assert JobRun.claim("probe", early=True) is None
    with db.engine.begin() as connection:
        connection.execute(sa.update(JobRun).values(leased_until=utcnow() - timedelta(seconds=1)))
    taken = JobRun.claim("probe")
    assert taken not in (None, lease)
    JobRun.finish("probe", lease, HOUR, "Late.", failed=False)
    assert (row().lease, row().result) == (taken, ""), "who lost the lease has no say any more"


def test_whoever_read_the_jobs_before_still_loses_a_lease_that_was_taken_over(app):
    lease = JobRun.claim("probe")
    read_before = JobRun.known()  # as the loop over the jobs that are due does
    db.session.commit()
    with db.engine.begin() as connection:
        connection.execute(sa.update(JobRun).values(lease="another"))
    JobRun.finish("probe", lease, HOUR, "Late.", failed=False)
    assert (row().lease, row().result) == ("another", ""), read_before


def test_a_failure_is_logged_told_and_tried_again_later_each_time(app, caplog):
    def fail() -> str:
        raise LookupError("secret words")

    pauses = []
    for _ in range(3):
        corkboard.run_job(job(fail), early=True)
        pauses.append(row().due_at - row().ended_at)
    assert [pause.seconds // 60 for pause in pauses] == [1, 2, 4]
    assert row().failures == 3
    assert row().result == "Failed: LookupError. For details, see the log."
    assert "the job probe failed" in caplog.text
    assert "LookupError" in caplog.text
    corkboard.run_job(job(), early=True)
    assert (row().failures, row().result) == (0, "3 things done.")


def test_old_sign_ins_are_forgotten_and_living_ones_stay(app, people):
    living, old = (corkboard.SignIn.start(people.member.id, False, "Firefox", "") for _ in range(2))
    ids = {
        token: value(sa.select(corkboard.SignIn.id).where(corkboard.SignIn.token_hash == corkboard.hash_token(token)))
        for token in (living, old)
    }
    set_columns(corkboard.SignIn, ids[old], expires_at=utcnow() - timedelta(days=60))
    assert corkboard.SignIn.forget_ended() == 1
    assert set(db.session.scalars(sa.select(corkboard.SignIn.id))) >= {ids[living]}
    assert ids[old] not in set(db.session.scalars(sa.select(corkboard.SignIn.id)))


def test_each_job_is_listed_and_can_be_run_by_hand(app, empty_folder):
    runner = app.test_cli_runner()
    listed = runner.invoke(args=["jobs", "list"])
    assert listed.exit_code == 0
    for each in corkboard.JOBS:
        assert f"{each.name}: {each.about}" in listed.output
        ran = runner.invoke(args=["jobs", "run", each.name])
        assert ran.exit_code == 0, ran.output
        assert ran.output.strip().endswith(".")
    listed = runner.invoke(args=["jobs", "list"])
    assert listed.output.count("took") == len(corkboard.JOBS)
    assert "as soon as the site runs" not in listed.output
    assert "nothing is due" in runner.invoke(args=["jobs", "run", "--due"]).output


def test_jobs_are_run_as_they_become_due_until_the_command_is_stopped(tmp_path):
    lay_schema(tmp_path / "corkboard.db")
    command = [sys.executable, "-m", "flask", "jobs", "run"]
    environment = os.environ | {"DATA_DIR": str(tmp_path), "APP_ENV": "development"}
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert "To stop, press Ctrl+C" in process.stdout.readline()
        for _ in range(300):
            with contextlib.closing(sqlite3.connect(tmp_path / "corkboard.db")) as connection:
                ran = connection.execute("SELECT count(*) FROM jobs WHERE ended_at IS NOT NULL").fetchone()[0]
            if ran == len(corkboard.JOBS):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert ran == len(corkboard.JOBS)


def test_jobs_are_run_again_and_again_whatever_goes_wrong(app, monkeypatch, caplog):
    stopping, tries = threading.Event(), []

    def fail() -> None:
        tries.append(1)
        if len(tries) == 3:
            stopping.set()
        raise OSError("no database")

    monkeypatch.setattr(corkboard, "JOB_SECONDS", 0)
    monkeypatch.setattr(corkboard, "run_due_jobs", fail)
    corkboard.run_jobs(app, stopping)
    assert len(tries) == 3
    assert caplog.text.count("the jobs could not be run") == 3


def test_administration_says_when_nothing_runs_the_jobs(app, people, sign_in, empty_folder):
    browser = sign_in(people.admin)
    assert "nothing has run" not in browser.get("/admin").text, "a site that was just made needs a moment"
    corkboard.run_job(job())
    assert "they run on time" in browser.get("/admin").text
    with db.engine.begin() as connection:
        connection.execute(sa.update(JobRun).values(ended_at=utcnow() - timedelta(minutes=6)))
    JobRun.claim("backup", early=True)
    assert "nothing has run" not in browser.get("/admin").text, "one is at work"
    with db.engine.begin() as connection:
        connection.execute(sa.update(JobRun).values(lease="", leased_until=None))
    page = browser.get("/admin").text
    assert "nothing has run" in page
    assert "flask jobs run" in page
    assert "No. This needs your attention: jobs." in page


@pytest.mark.parametrize("wrong", [["jobs", "run", "nothing"], ["jobs", "run", "empty-bin", "--due"]])
def test_a_job_that_is_not_named_well_is_asked_for(app, wrong):
    assert app.test_cli_runner().invoke(args=wrong).exit_code == 2


def test_a_job_that_is_being_run_is_not_run_by_hand_as_well(app):
    JobRun.claim("empty-bin")
    ran = app.test_cli_runner().invoke(args=["jobs", "run", "empty-bin"])
    assert ran.exit_code == 1
    assert "is already running" in ran.output


def test_a_job_that_fails_by_hand_says_so(app, monkeypatch):
    def fail() -> str:
        raise OSError

    monkeypatch.setattr(corkboard, "JOBS", [job(fail, "empty-bin")])
    ran = app.test_cli_runner().invoke(args=["jobs", "run", "empty-bin"])
    assert ran.exit_code == 1
    assert "Failed: OSError" in ran.output


# -- Texts that an older version rendered ------------------------------------------------------------------------------


def test_what_an_older_version_rendered_is_rendered_again_by_a_command(app, people, topics, sign_in):
    post = add_post(people.member, topics.open, body="An *old* text")
    comment = add_comment(people.member, post, "An *old* word")
    run = app.test_cli_runner().invoke
    assert run(args=["rerender"]).output.strip() == "Nothing to render."
    for model, number in ((Post, post.id), (Comment, comment.id)):
        set_columns(model, number, html="<p>As it was</p>", renderer=corkboard.RENDERER_VERSION - 1)
    browser = sign_in(people.reader)
    assert browser.get(f"/posts/{post.id}").text.count("As it was") == 2
    assert "2 texts rendered by an older version" in run(args=["check"]).output
    before = value(sa.select(Post.updated_at)), value(sa.select(sa.func.count()).select_from(Revision))
    assert run(args=["rerender"]).output.splitlines()[-1] == "2 texts rendered."
    shown = browser.get(f"/posts/{post.id}").text
    assert "As it was" not in shown
    assert shown.count("An <em>old</em>") == 2
    assert value(sa.select(Post.excerpt)) == "An old text"
    assert before == (value(sa.select(Post.updated_at)), value(sa.select(sa.func.count()).select_from(Revision)))
    set_columns(Post, post.id, html="<p>As it was</p>", renderer=1)
    set_columns(SearchEntry, value(sa.select(SearchEntry.id).where(SearchEntry.kind == "post")), tokens="zzzas")
    assert run(args=["init-db"]).exit_code == 0
    assert value(sa.select(Post.html)) != "<p>As it was</p>"
    assert f"/posts/{post.id}" in browser.get("/search?q=old+text").text  # the search index follows


def test_a_text_from_before_there_was_a_limit_stays_as_it_was_rendered(app, people, topics):
    post = add_post(people.member, topics.open)
    set_columns(Post, post.id, body="[" * 100_000, html="<p>As it was</p>", renderer=1)
    assert app.test_cli_runner().invoke(args=["rerender"]).exit_code == 0
    assert (value(sa.select(Post.html)), value(sa.select(Post.renderer))) == (
        "<p>As it was</p>",
        corkboard.RENDERER_VERSION,
    )
