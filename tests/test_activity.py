"""The activity: who did what, on what, when and from where; who reads it, and what it never tells."""

from __future__ import annotations

import ast
import csv
import html
import io
import re
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from conftest import PASSWORD, add_comment, add_person, add_post, add_topic, edit_post
from test_posts import count
from werkzeug.datastructures import MultiDict
from world import set_columns, value

import app as corkboard
from app import ACCOUNT_TRIES, Activity, Attachment, Bin, Post, Role, Setting, Topic, User, utcnow
from database import db

pytestmark = pytest.mark.usefixtures("cheap_hashes")

ELSEWHERE = {"environ_base": {"REMOTE_ADDR": "192.0.2.7"}}


def told(browser, query: str = "") -> list[str]:
    """What a page of the activity says of each entry, the newest first."""
    answer = browser.get(f"/admin/activity{query}")
    assert answer.status_code == 200
    entries = re.findall(r'<span class="event-what">(.*?)</span>\s*<span class="event-where">', answer.text, re.DOTALL)
    return [html.unescape(re.sub(r"<[^>]+>", "", entry)).strip() for entry in entries]


def table(browser, query: str = "") -> list[dict[str, str]]:
    """The rows of the file for spreadsheets."""
    answer = browser.get(f"/admin/activity.csv{query}")
    assert answer.status_code == 200
    return list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"), newline="")))


def log_in(app, name: str, password: str = "wrong"):
    return app.test_client().submit("/login", {"username": name, "password": password}, **ELSEWHERE)


# -- What is told ------------------------------------------------------------------------------------------------------


def test_each_entry_says_who_did_what_on_what_when_and_from_where(people, topics, sign_in):
    form = {"title": "New ovens", "body": "Two.", "topic": topics.open.id, "kind": "news"}
    sign_in(people.member).submit("/posts/new", form, **ELSEWHERE)
    admin = sign_in(people.admin)
    assert "Member published New ovens" in told(admin)
    page = admin.get("/admin/activity").text
    post = value(sa.select(Post.id).where(Post.title == "New ovens"))
    assert f'<a href="/posts/{post}">Open New ovens</a>' in page
    assert '<span class="event-where">192.0.2.7</span>' in page
    assert '<h2 class="day">Today</h2>' in page
    (row,) = [row for row in table(admin) if row["Action"] == "post.published"]
    said = [row[name] for name in ("Who", "Username", "What", "On what", "From")]
    assert said == ["Member", "member", "published", "New ovens", "192.0.2.7"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row["When"])


def test_a_role_is_told_with_what_it_was_before_and_after(people, sign_in):
    admin = sign_in(people.admin)
    admin.submit(f"/admin/people/{people.member.id}/role", {"role": "30"})
    assert "Admin changed the role of Member (Editor)" in told(admin)
    (row,) = [row for row in table(admin) if row["Action"] == "person.role"]
    assert row["Changes"] == "role: Member → Editor"
    assert "<td><del>Member</del></td>" in admin.get("/admin/activity").text


def test_settings_are_told_with_what_they_were_before_and_after(people, sign_in):
    admin = sign_in(people.admin)
    admin.submit("/admin/settings/site", {"name": "Thimble & Rye", "welcome": "Hello"})
    row = table(admin)[0]
    assert row["Action"] == "settings.changed"
    assert row["Changes"] == "name: Corkboard → Thimble & Rye; welcome:  → Hello"
    assert "<del>nothing</del>" in admin.get("/admin/activity").text


def test_who_changed_a_password_is_told_and_the_password_never_is(people, sign_in):
    admin = sign_in(people.admin)
    admin.submit(f"/admin/people/{people.member.id}", {"name": "Mia", "email": "mia@example.com"})
    assert "Admin edited Mia" in told(admin)
    sign_in(people.member).submit(
        "/account/password", {"current": PASSWORD, "password": "eight green bottles", "confirm": "eight green bottles"}
    )
    assert "Mia changed their password" in told(admin)
    everything = str(db.session.execute(sa.select(Activity.__table__)).all())
    assert "green bottles" not in everything
    assert "scrypt" not in everything


def test_what_nobody_has_words_for_yet_is_told_all_the_same(people, sign_in):
    corkboard.transactional(Activity.record)(people.member, "token.made_void", ("token", 5), "Nightly")
    assert "Member made void the access token (Nightly)" in told(sign_in(people.admin))


def test_the_words_of_all_that_is_recorded_are_there():
    source = Path(corkboard.__file__).read_text(encoding="utf-8")
    recorded = {
        text.value
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("Activity.record", "cls.record")
        for text in ast.walk(call.args[1])
        if isinstance(text, ast.Constant) and re.fullmatch(r"\w+\.\w+", str(text.value))
    }
    assert len(recorded) > 30
    recorded |= {"person.password_reset"}  # by versions before
    assert corkboard.ACTIVITY_WORDS.keys() <= recorded


# -- Signing in --------------------------------------------------------------------------------------------------------


def test_every_sign_in_is_told_and_every_one_that_failed(app, people, sign_in):
    assert log_in(app, "member", PASSWORD).status_code == 303
    assert log_in(app, "member").status_code == 422
    assert log_in(app, "my secret words").status_code == 422
    admin = sign_in(people.admin)
    entries = told(admin, "?kind=person.sign")
    assert entries[1:4] == [
        "Someone failed to sign in as an unknown name",
        "Someone failed to sign in as Member",
        "Member signed in (A browser on an unknown system)",
    ]
    assert told(admin, "?kind=person.sign_in_failed") == entries[1:3]
    everything = str(db.session.execute(sa.select(Activity.__table__)).all())
    assert "secret" not in everything, "people type their password into that field, too"


def test_a_try_that_was_refused_unasked_is_not_written_down(app, people):
    for number in range(ACCOUNT_TRIES + 5):
        assert log_in(app, "member").status_code == (422 if number < ACCOUNT_TRIES else 429)
    assert count(Activity, Activity.action == "person.sign_in_failed") == ACCOUNT_TRIES


def test_an_address_that_is_refused_writes_nothing_whatever_names_it_makes_up(app, people, monkeypatch):
    monkeypatch.setattr(corkboard, "ADDRESS_TRIES", 2)
    answers = [log_in(app, f"made up {number}").status_code for number in range(6)]
    assert answers == [422, 422, 429, 429, 429, 429]
    assert count(Activity, Activity.action == "person.sign_in_failed") == 2
    assert count(corkboard.Throttle) == 3, "the address, and the two names that were looked at"


# -- What is in a private topic ----------------------------------------------------------------------------------------


@pytest.fixture
def secret(people, topics):
    """A topic that the admin is not in, with a post, a comment and a file."""
    topic = add_topic(people.editor, "Salaries", members=[people.member.id])
    post = add_post(people.member, topic, "Who earns what")
    add_comment(people.editor, post)
    stored = corkboard.StoredFile("payroll.txt", "txt", 1, "", "0" * 32)
    file = Attachment.create(people.member, stored)
    edit_post(people.member, post, body="Less than last year.", file_ids=[file.id])
    return topic, post


def everything_told(browser, query: str = "") -> str:
    return browser.get(f"/admin/activity{query}").text + browser.get(f"/admin/activity.csv{query}").text


def hides_it(browser) -> None:
    """Neither the page nor the file nor a search tells what stands in the private topic."""
    for query in ("", "?q=earns", "?q=payroll"):
        shown = everything_told(browser, query)
        assert "Who earns" not in shown
        assert "payroll.txt" not in shown
    assert told(browser, "?q=earns") == told(browser, "?q=payroll") == []


def test_an_admin_outside_a_private_topic_reads_that_something_happened_and_not_what(people, secret, sign_in):
    admin, (topic, post) = sign_in(people.admin), secret
    entries = told(admin)
    assert "Member published something in a private topic" in entries
    assert "Editor commented on something in a private topic" in entries
    assert "Member added something in a private topic" in entries
    assert "Editor added a member to the topic Salaries (Member)" in entries
    assert f"/posts/{post.id}" not in admin.get("/admin/activity").text
    hides_it(admin)
    edit_post(people.member, post, title="Who earns how much")
    assert "Who earns" not in everything_told(admin)
    Topic.join(people.admin, topic.id)
    assert "Admin joined the topic Salaries" in told(admin)


def test_it_stays_untold_when_it_is_deleted_permanently(people, secret, sign_in):
    topic, _post = secret
    Topic.delete(people.editor, topic.id)
    Bin.empty(None, utcnow())
    assert count(Topic, Topic.name == "Salaries") == 0
    hides_it(sign_in(people.admin))


def test_what_was_open_is_told_when_it_is_long_gone(people, topics, sign_in):
    post = add_post(people.member, topics.open, "Old news")
    Post.delete(people.member, post.id)
    Bin.empty(None, utcnow())
    entries = told(sign_in(people.admin))
    assert "Member published Old news" in entries
    assert "Member deleted Old news" in entries
    assert "Corkboard emptied the recycle bin (1 item deleted permanently)" in entries


def test_a_post_that_moves_into_a_private_topic_is_named_no_more(people, topics, secret, sign_in):
    post, admin = add_post(people.member, topics.open, "A pay rise"), sign_in(people.admin)
    assert "Member published A pay rise" in told(admin)
    edit_post(people.member, post, topic_id=secret[0].id, title="Ten per cent for Ana")
    add_comment(people.editor, post)
    assert "per cent" not in everything_told(admin)
    assert told(admin, "?q=pay") == ["Member published A pay rise"], "everybody could read that"


def test_what_a_draft_is_called_nobody_else_learns(people, topics, sign_in):
    post = add_post(people.member, topics.open, "What I really think", how="draft")
    admin = sign_in(people.admin)
    assert "Member drafted a post" in told(admin)
    edit_post(people.member, post, title="What we all think")
    Post.delete(people.member, post.id)
    assert "really" not in everything_told(admin)
    assert "Member published What we all think" in told(admin)


# -- Filters -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def week(people, topics):
    """One entry of each day of a week, by two people."""
    writers = (people.member, people.editor)
    for days in range(7):
        add_post(writers[days % 2], topics.open, f"{days} days ago")
        last = value(sa.select(sa.func.max(Activity.id)))
        set_columns(Activity, last, at=utcnow().replace(hour=12) - timedelta(days=days))


def posts_told(browser, query: str = "") -> list[str]:
    return [entry for entry in told(browser, query) if "published" in entry]


def test_the_activity_is_filtered_by_who_what_and_when(people, week, sign_in):
    admin, day = sign_in(people.admin), utcnow().date()
    assert len(posts_told(admin, "?kind=post")) == 7
    assert {entry.split()[0] for entry in posts_told(admin, f"?person={people.editor.id}")} == {"Editor"}
    assert len(posts_told(admin, f"?person={people.editor.id}")) == 3
    since, until = day - timedelta(days=3), day - timedelta(days=2)
    assert [entry.partition("published ")[2] for entry in posts_told(admin, f"?since={since}&until={until}")] == [
        "2 days ago", "3 days ago",
    ]  # fmt: skip
    both = f"?kind=post&person={people.member.id}&since={since}"
    assert [entry.partition("published ")[2] for entry in posts_told(admin, both)] == ["0 days ago", "2 days ago"]
    assert [row["On what"] for row in table(admin, both)] == ["0 days ago", "2 days ago"]
    assert posts_told(admin, "?kind=topic") == []
    assert told(admin, "?kind=x") == []
    assert told(admin, "?since=1999-01-01&until=1999-01-02") == []
    assert "No results." in admin.get("/admin/activity?until=1999-01-02").text


def test_who_failed_to_sign_in_as_somebody_is_found_with_them(app, people, sign_in):
    log_in(app, "member")
    assert told(sign_in(people.admin), "?q=member")[0] == "Someone failed to sign in as Member"


@pytest.mark.parametrize("typed", ["ovens", "NEW ÖVENS", "Mem", "192.0.2", "new member"])
def test_the_activity_is_searched_by_names_titles_and_addresses(people, topics, sign_in, typed):
    form = {"title": "New ovens", "body": "Two.", "topic": topics.open.id, "kind": "news"}
    sign_in(people.member).submit("/posts/new", form, **ELSEWHERE)
    admin = sign_in(people.admin)
    assert "Member published New ovens" in told(admin, f"?q={typed}")
    assert told(admin, f"?q={typed}+nothing+like+it") == []


@pytest.mark.parametrize("query", ["before=x", "before=W10"])
def test_a_place_that_was_made_up_is_404(people, sign_in, query):
    assert sign_in(people.admin).get(f"/admin/activity?{query}").status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "since=x", "until=2026-02-31", "until=9999-12-31", "q=%00%25_", "since=", "before=", "person=x",
        "person=99999999999", "a=b",
    ],
)  # fmt: skip
def test_a_filter_that_says_nothing_changes_nothing(people, sign_in, query):
    assert sign_in(people.admin).get(f"/admin/activity?{query}").status_code == 200


def test_the_activity_goes_on_for_pages_that_keep_the_filters(people, topics, sign_in):
    for number in range(45):
        add_post(people.member, topics.open, f"Number {number}")
    admin, shown, address = sign_in(people.admin), [], "?kind=post"
    while address is not None:
        shown += posts_told(admin, address)
        following = re.search(
            r'rel="next"\s+href="/admin/activity([^"]+)"', admin.get(f"/admin/activity{address}").text
        )
        address = html.unescape(following[1]) if following else None
        assert address is None or "kind=post" in address
    assert shown == [f"Member published Number {number}" for number in reversed(range(45))]


# -- The file for spreadsheets -----------------------------------------------------------------------------------------


def test_the_file_has_everything_and_is_sent_in_parts(people, topics, sign_in):
    for number in range(10):
        add_post(people.member, topics.open, f"Number {number}")
    admin = sign_in(people.admin)
    answer = admin.get("/admin/activity.csv?kind=post")
    assert answer.is_streamed
    assert answer.content_type == "text/csv; charset=utf-8"
    assert 'filename="activity.csv"' in answer.headers["Content-Disposition"]
    assert answer.text.startswith("\ufeff")
    assert len(table(admin, "?kind=post")) == 10
    assert len(table(admin)) == count(Activity)


@pytest.mark.parametrize("title", ["=1+1", "+1", "-1", "@SUM(A1)", "＝1"])
def test_no_cell_is_a_formula(people, sign_in, title):
    admin = sign_in(people.admin)
    add_person("eve", name=title)
    User.edit_person(people.admin, people.member.id, name="Mia", email="", username=people.member.username)
    (row,) = [row for row in table(admin) if row["Username"] == "eve"]
    assert row["Who"] == f"'{title}"
    assert corkboard.harmless_cell("\tx") == "'\tx"
    assert corkboard.harmless_cell("\rx") == "'\rx"
    assert corkboard.harmless_cell("x") == "x"


# -- Nobody can change it ----------------------------------------------------------------------------------------------


def test_only_the_job_takes_anything_away_and_only_erasing_a_person_blanks_an_entry():
    source = Path(corkboard.__file__).read_text(encoding="utf-8")
    assert not re.search(r"(update|delete)\(Activity\b|session\.delete\(activity|upsert\(Activity", source)
    model = source[source.index("class Activity(") : source.index("LATEST_FIRST =")]
    forget, prune = model.index("def forget("), model.index("def prune(")
    assert len(re.findall(r"sa\.(?:update|delete)\(", model)) == 4
    assert model[forget:prune].count("sa.update(cls)") == 3
    assert "sa.delete(cls)" in model[prune:]


def test_no_address_changes_the_activity(app, people, sign_in):
    admin = sign_in(people.admin)
    for path in ("/admin/activity", "/admin/activity.csv"):
        assert admin.submit(path).status_code == 405
        assert admin.open(path, method="DELETE").status_code == 405


def test_old_entries_are_deleted_by_a_job_that_records_it(app, people, topics, sign_in):
    for number in range(5):
        add_post(people.member, topics.open, f"Number {number}")
    ids = db.session.scalars(sa.select(Activity.id).order_by(Activity.id)).all()
    for number, entry in enumerate(ids):
        set_columns(Activity, entry, at=utcnow() - timedelta(days=800 if number < 3 else 700))
    (job,) = [job for job in corkboard.JOBS if job.name == "activity"]
    assert corkboard.run_job(job, early=True) == "3 entries deleted."
    left = db.session.scalars(sa.select(Activity.id).order_by(Activity.id)).all()
    assert left[: len(ids) - 3] == ids[3:]
    recorded = told(sign_in(people.admin), "?kind=activity")
    assert recorded == ["Corkboard deleted old activity entries (3 entries)"]
    assert corkboard.run_job(job, early=True) == "Nothing to do."


@pytest.mark.parametrize(("days", "left"), [("365", False), ("0", True)])
def test_a_team_decides_how_long_entries_are_kept(app, people, sign_in, days, left):
    admin = sign_in(people.admin)
    assert admin.submit("/admin/settings/activity", {"activity_days": days}).status_code == 303
    assert f'<option selected value="{days}">' in admin.get("/admin/settings").text
    first = value(sa.select(sa.func.min(Activity.id)))
    set_columns(Activity, first, at=utcnow() - timedelta(days=400))
    corkboard.prune_activity()
    assert (value(sa.select(sa.func.min(Activity.id))) == first) is left


def test_a_time_that_is_not_offered_is_refused(people, sign_in):
    answer = sign_in(people.admin).submit("/admin/settings/activity", MultiDict({"activity_days": "1"}))
    assert answer.status_code == 422
    assert Setting.read().activity_days == "730"


@pytest.mark.parametrize("who", ["reader", "member", "editor"])
def test_only_administrators_read_it(people, sign_in, who):
    for path in ("/admin/activity", "/admin/activity.csv"):
        assert sign_in(getattr(people, who)).get(path).status_code == 403


def test_deactivated_people_and_roles_stay_in_it(people, sign_in):
    User.deactivate(people.admin, people.member.id)
    User.set_role(people.admin, people.editor.id, Role.READER)
    admin = sign_in(people.admin)
    assert "Admin deactivated Member" in told(admin)
    assert f'<option value="{people.member.id}">Member</option>' in admin.get("/admin/activity").text
