"""What the site counts of its work: who may read it, what it says, and what is logged of slow requests."""

from __future__ import annotations

import os
import re
import time
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from conftest import close, settings
from prometheus_client.parser import text_string_to_metric_families
from test_commands import dead_port
from world import set_columns

import app as corkboard
from app import Job, JobRun, SignIn, User, utcnow
from database import db

PROJECT = Path(__file__).resolve().parent.parent
TOKEN = "a-token-for-the-tests"
HOME = {"route": "/"}


def read(browser, **headers: str) -> dict[str, list]:
    """What `/metrics` says: by the name of a number, its samples."""
    answer = browser.get("/metrics", headers=headers)
    assert answer.status_code == 200
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    samples: dict[str, list] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            samples.setdefault(sample.name.removeprefix("corkboard_"), []).append(sample)
    return samples


def number(samples, name: str, **labels: str) -> float:
    return sum(one.value for one in samples.get(name, []) if labels.items() <= one.labels.items())


# -- What it says ------------------------------------------------------------------------------------------------------


def test_requests_are_counted_by_route_and_status_with_their_time_and_statements(app, people, sign_in):
    browser = sign_in(people.member)
    before = read(browser)
    browser.get("/")
    browser.get("/posts/999")
    after = read(browser)

    def more(name: str, **labels: str) -> float:
        return number(after, name, **labels) - number(before, name, **labels)

    assert more("requests_total", status="200", **HOME) == 1
    assert more("requests_total", route="/posts/<int:post_id>", status="404") == 1
    assert more("request_seconds_count", **HOME) == 1
    assert 0 < more("database_seconds_total", **HOME) < more("request_seconds_sum", **HOME)
    assert more("database_statements_total", **HOME) > 5
    assert more("request_seconds_bucket", le="+Inf", **HOME) == 1


def test_made_up_addresses_make_no_numbers_of_their_own(app):
    browser = app.test_client()
    before = read(browser)
    for word in ("one", "two"):
        browser.get(f"/no/{word}")
    after = read(browser)
    assert "/no/" not in str(after)
    assert number(after, "requests_total", route="-") - number(before, "requests_total", route="-") == 2


def test_it_says_who_is_signed_in_and_how_the_jobs_went(app, people, sign_in):
    browser = sign_in(people.member)
    living = number(read(browser), "sign_ins")
    tokens = [SignIn.start(people.reader.id, False, "Firefox", "") for _ in range(3)]
    ended = db.session.scalar(sa.select(SignIn.id).where(SignIn.token_hash == corkboard.hash_token(tokens[0])))
    set_columns(SignIn, ended, ended_at=utcnow())
    fails = Job("probe", timedelta(hours=1), "A job of the tests.", lambda: 1 // 0, "thing", "done")
    corkboard.run_job(fails)
    with db.engine.begin() as connection:
        connection.execute(sa.update(JobRun).values(ended_at=utcnow() - timedelta(minutes=7)))
    said = read(browser)
    assert number(said, "sign_ins") == living + 2
    assert number(said, "job_failures", job="probe") == 1
    assert 420 <= number(said, "jobs_age_seconds") < 480


def test_it_says_how_old_the_newest_backup_is_or_the_site_where_there_is_none(app, people, empty_folder):
    set_columns(User, people.admin.id, created_at=utcnow() - timedelta(days=3))
    assert number(read(app.test_client()), "backup_age_seconds") == pytest.approx(3 * 86400, abs=60)
    folder = empty_folder / "backups"
    folder.mkdir()
    for name, hours in (("old.zip", 9), ("new.zip", 2), ("other.txt", 1)):
        (folder / name).write_bytes(b"")
        at = time.time() - hours * 3600
        os.utime(folder / name, (at, at))
    assert number(read(app.test_client()), "backup_age_seconds") == pytest.approx(7200, abs=60)


def test_it_says_what_runs_and_how_many_connections_are_open(app):
    said = read(app.test_client())
    (build,) = said["build_info"]
    assert build.labels["version"] == corkboard.VERSION
    assert number(said, "database_connections") >= 0
    assert number(said, "database_up") == 1


def test_without_a_database_it_still_says_what_the_process_knows(tmp_path):
    app = corkboard.create_app(settings(tmp_path, f"mysql://nobody:nothing@127.0.0.1:{dead_port()}/nothing"))
    try:
        browser = app.test_client()
        before = read(browser)
        assert browser.get("/").status_code == 503
        said = read(browser)
    finally:
        close(app)
    assert number(said, "database_up") == 0
    refused = {"status": "503", **HOME}
    assert number(said, "requests_total", **refused) == number(before, "requests_total", **refused) + 1


def test_the_example_of_alerts_asks_for_numbers_that_there_are(app, people, sign_in):
    corkboard.run_job(Job("probe", timedelta(hours=1), "A job of the tests.", lambda: 1, "thing", "done"))
    browser = sign_in(people.reader)
    browser.get("/")
    asked = re.findall(r"\bcorkboard_(\w+)", (PROJECT / "deploy" / "alerts.yml").read_text(encoding="utf-8"))
    assert len({*asked}) > 5
    assert {*asked} <= {*read(browser)}


# -- Who may read it ---------------------------------------------------------------------------------------------------


def status(app, peer: str = "127.0.0.1", **headers: str) -> int:
    environ = {"REMOTE_ADDR": peer}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return app.test_client().get("/metrics", environ_base=environ, headers=named).status_code


def test_without_a_token_only_programs_on_this_computer_read_it(app):
    assert [status(app, peer) for peer in ("127.0.0.1", "::1")] == [200, 200]
    assert [status(app, peer) for peer in ("192.168.1.5", "10.0.0.1", "2001:db8::1", "")] == [403] * 4
    assert status(app, X_Forwarded_For="127.0.0.1") == 403, "it comes through a proxy that nobody told us of"


def test_behind_a_proxy_everybody_seems_to_be_here_so_only_the_token_counts(app, monkeypatch):
    monkeypatch.setitem(app.config, "TRUSTED_PROXY", "127.0.0.1")
    assert status(app) == 403
    monkeypatch.setitem(app.config, "METRICS_TOKEN", TOKEN)
    assert status(app) == 403
    assert status(app, Authorization=f"Bearer {TOKEN}") == 200


@pytest.mark.parametrize(
    "given", ["", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer tökén", "bearer"]
)
def test_with_a_token_nobody_reads_it_without_the_token(app, monkeypatch, given):
    monkeypatch.setitem(app.config, "METRICS_TOKEN", TOKEN)
    assert status(app, Authorization=given) == 403
    assert status(app, "192.168.1.5", Authorization=f"Bearer {TOKEN}") == 200


# -- Slow requests -----------------------------------------------------------------------------------------------------


def test_a_slow_request_is_logged_with_its_route_and_statements_and_a_quick_one_is_not(
    app, people, sign_in, monkeypatch, caplog
):
    browser = sign_in(people.member)
    browser.get("/people/reader?q=secret")
    assert "slow" not in caplog.text
    monkeypatch.setattr(corkboard, "SLOW_SECONDS", 0)
    browser.get("/people/reader?q=secret")
    (record,) = [record for record in caplog.records if "slow" in record.getMessage()]
    assert record.levelname == "WARNING"
    assert re.search(r"slow: GET /people/<username> took \d+\.\dms and [1-9]\d* statements$", record.getMessage())


# -- People seen on a day ----------------------------------------------------------------------------------------------


def test_a_person_counts_once_on_each_day_they_were_here(app, people, sign_in):
    for browser in (sign_in(people.member), sign_in(people.member), sign_in(people.reader)):
        browser.get("/")
    today = corkboard.site_day(utcnow())
    assert corkboard.VisitCount.since(today) == {today: 2}
    set_columns(User, people.member.id, last_active_at=utcnow() - timedelta(days=2))
    sign_in(people.member).get("/")
    db.session.rollback()
    assert corkboard.VisitCount.since(today) == {today: 3}
    assert corkboard.VisitCount.since(today + timedelta(days=1)) == {}


def test_of_two_requests_at_the_same_moment_only_one_counts_the_person(app, people, sign_in):
    sign_in(people.member)
    reading = db.session.scalars(sa.select(SignIn).filter_by(user_id=people.member.id)).one()
    assert reading.user.last_active_at is None
    db.session.commit()  # as an action does that this request calls
    set_columns(User, people.member.id, last_active_at=utcnow())  # by the other one
    User.record_visit(reading.user_id, reading.id, utcnow())
    assert corkboard.VisitCount.since(corkboard.site_day(utcnow())) == {}
