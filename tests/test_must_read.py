"""Must-read: who owes what, the button, the report, reminding, and asking anew."""

from __future__ import annotations

import csv
import io
import re
from datetime import date, datetime, timedelta
from types import SimpleNamespace

import pytest
from conftest import add_person, add_post, edit_post, together
from test_posts import again, count

import app as corkboard
from app import (
    Acknowledgement,
    Activity,
    EditConflict,
    Forbidden,
    NotVisible,
    Post,
    Role,
    User,
    ValidationError,
)
from database import db

pytestmark = pytest.mark.usefixtures("cheap_hashes")

DAY = timedelta(days=1)


@pytest.fixture
def clock(monkeypatch):
    """The application's time, which stands still until a test moves it."""
    clock = SimpleNamespace(now=datetime(2026, 3, 2, 9, 0))
    monkeypatch.setattr(corkboard, "utcnow", lambda: clock.now)
    return clock


@pytest.fixture
def post(people, topics) -> Post:
    """News of a member that everybody must read."""
    post = add_post(people.member, topics.open, "Fire drill")
    ask(people, post)
    return post


def ask(people, post: Post, /, roles=tuple(Role), **values) -> None:
    Acknowledgement.require(people.editor, post.id, roles=roles, **values)


def edit(people, post: Post, body: str, **wishes) -> None:
    edit_post(people.member, post, body=body, **wishes)


def owed_on_home(html: str) -> list[int]:
    section = re.search(r'(?s)<section class="owed".*?</section>', html)
    return [int(id_) for id_ in re.findall(r'href="/posts/(\d+)"', section[0])] if section else []


def owing(post: Post) -> set[str]:
    """Everybody who still owes a post: as the report says, which must be what each one's own pages say."""
    db.session.rollback()
    return {line.person.username for line in Acknowledgement.report(again(post)).lines if line.state == "pending"}


def table(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


# -- Who owes ----------------------------------------------------------------------------------------------------------


def test_home_the_post_and_the_report_agree_on_who_owes(people, topics, sign_in, post):
    expected = {"reader", "editor", "admin", "stranger"}
    assert owing(post) == expected
    for who in ("reader", "member", "editor", "admin", "stranger"):
        browser = sign_in(getattr(people, who))
        asked = who in expected
        assert (owed_on_home(browser.get("/").text) == [post.id]) == asked
        assert ("I have read this" in browser.get(f"/posts/{post.id}").text) == asked


def test_only_those_who_may_see_a_post_owe_it(people, topics):
    post = add_post(people.member, topics.private)
    ask(people, post, people=[people.stranger.id])
    assert owing(post) == {"reader", "editor", "admin"}


def test_the_circle_is_narrowed_to_roles_and_named_people(people, topics, post):
    ask(people, post, roles=[Role.READER])
    assert owing(post) == {"reader"}
    ask(people, post, roles=[], people=[people.stranger.id])
    assert owing(post) == {"stranger"}
    ask(people, post, roles=[Role.ADMIN], people=[people.stranger.id, people.stranger.id, 7777])
    assert owing(post) == {"admin", "stranger"}
    with pytest.raises(ValidationError):
        ask(people, post, roles=[])
    assert owing(post) == {"admin", "stranger"}


def test_people_come_and_go_and_the_circle_follows(people, topics, post):
    ask(people, post, roles=[Role.READER])
    add_person("newcomer", Role.READER)
    assert owing(post) == {"reader", "newcomer"}
    User.deactivate(people.admin, people.reader.id)
    assert owing(post) == {"newcomer"}
    User.set_role(people.admin, people.stranger.id, Role.READER)
    assert owing(post) == {"newcomer", "stranger"}


def test_nobody_owes_what_waits_is_deleted_or_has_expired(people, topics, sign_in, clock):
    later = add_post(people.member, topics.open, scheduled_for=clock.now + DAY, expires_at=clock.now + 2 * DAY)
    ask(people, later)
    browser = sign_in(people.reader, remember=True)
    assert (owing(later), owed_on_home(browser.get("/").text)) == (set(), [])
    clock.now += DAY
    Post.publish_due()
    assert len(owing(later)) == 4
    assert owed_on_home(browser.get("/").text) == [later.id], "it asks as soon as it is published"
    Post.delete(people.member, later.id)
    assert owed_on_home(browser.get("/").text) == []
    Post.restore(people.member, later.id)
    assert owed_on_home(browser.get("/").text) == [later.id]
    clock.now += DAY
    assert (owing(later), owed_on_home(browser.get("/").text)) == (set(), [])


def test_a_handbook_page_can_be_must_read(people, topics, sign_in):
    page = add_post(people.editor, topics.open, "House rules", kind="page")
    ask(people, page)
    assert owed_on_home(sign_in(people.reader).get("/").text) == [page.id]


# -- On Home and on the page -------------------------------------------------------------------------------------------


def test_what_is_due_first_stands_first_and_what_is_overdue_is_marked(people, topics, sign_in, clock):
    posts = [add_post(people.member, topics.open, f"Number {n}") for n in range(3)]
    for one, due in zip(posts, (None, date(2026, 3, 9), date(2026, 3, 1)), strict=True):
        ask(people, one, due=due)
    page = sign_in(people.reader).get("/").text
    assert owed_on_home(page) == [posts[2].id, posts[1].id, posts[0].id]
    assert page.count("Overdue since 1 March") == 1
    assert "By 9 March" in page
    assert "Overdue" in sign_in(people.reader).get(f"/posts/{posts[2].id}").text
    assert "Overdue" not in sign_in(people.reader).get(f"/posts/{posts[1].id}").text


def test_looking_at_a_post_acknowledges_nothing_and_the_button_does(people, sign_in, post):
    browser = sign_in(people.reader)
    page = browser.get(f"/posts/{post.id}").text
    assert page.index("I have read this") > page.index("Hall B opens again")
    assert count(Acknowledgement) == 0
    answer = browser.submit(f"/posts/{post.id}/acknowledge", {"revision": "1"})
    assert answer.status_code == 303
    page = browser.get(answer.location).text
    assert "I have read this" not in page
    assert "You confirmed this" in page
    assert owed_on_home(browser.get("/").text) == []
    assert "reader" not in owing(post)


def test_acknowledging_twice_or_at_the_same_moment_is_once(app, people, sign_in, post):
    reader, post_id = SimpleNamespace(id=people.reader.id), post.id
    assert together(app, *[lambda: Acknowledgement.acknowledge(reader, post_id, 1)] * 4) == [None] * 4
    assert count(Acknowledgement) == 1
    assert count(Activity, Activity.action == "post.acknowledged") == 1


@pytest.mark.parametrize(("version", "kept"), [("", 1), ("0", 1), ("x", 1), ("-1", 1), ("99", 1), ("9" * 30, 1)])
def test_a_made_up_version_is_no_later_one(people, sign_in, post, version, kept):
    assert sign_in(people.reader).submit(f"/posts/{post.id}/acknowledge", {"revision": version}).status_code == 303
    assert count(Acknowledgement, Acknowledgement.revision == kept) == 1


def test_who_is_not_asked_cannot_acknowledge(people, topics, post):
    with pytest.raises(ValidationError):
        Acknowledgement.acknowledge(people.member, post.id, 1)
    with pytest.raises(ValidationError):
        Acknowledgement.acknowledge(people.reader, add_post(people.member, topics.open).id, 1)
    with pytest.raises(NotVisible):
        Acknowledgement.acknowledge(people.stranger, add_post(people.member, topics.private).id, 1)
    assert count(Acknowledgement) == 0


# -- Asking ------------------------------------------------------------------------------------------------------------


def test_an_editor_asks_by_the_form_and_ends_it(people, topics, sign_in):
    post, browser = add_post(people.member, topics.open), sign_in(people.editor)
    address = f"/posts/{post.id}/must-read"
    assert address in browser.get(f"/posts/{post.id}").text
    assert address not in sign_in(people.member).get(f"/posts/{post.id}").text
    wanted = {"audience": "some", "roles": [10], "people": [people.stranger.id], "due": "2026-12-24"}
    assert browser.submit(address, wanted).location == f"/posts/{post.id}/report"
    assert owing(post) == {"reader", "stranger"}
    page = browser.get(address).text
    assert 'value="2026-12-24"' in page
    assert len(re.findall(r'type="checkbox"[^>]*checked', page)) == 2
    assert browser.submit(address, {"audience": "some"}).status_code == 422
    both = browser.submit(address, {"audience": "all", "people": [people.stranger.id]})
    assert (both.status_code, "Choose either everyone, or only those chosen below." in both.text) == (422, True)
    Acknowledgement.acknowledge(people.reader, post.id, 1)
    assert browser.submit(f"{address}/end").status_code == 303
    assert (owing(post), count(Acknowledgement)) == (set(), 1)
    ask(people, post)
    assert "reader" not in owing(post), "who has read this version has read it"


def test_only_editors_ask_and_a_draft_asks_nobody(people, topics):
    post = add_post(people.member, topics.open)
    for action in (
        lambda: Acknowledgement.require(people.member, post.id, roles=[*Role]),
        lambda: Acknowledgement.stop_requiring(people.member, post.id),
    ):
        with pytest.raises(Forbidden):
            action()
    draft = add_post(people.editor, topics.open, how="draft")
    ask(people, draft)
    assert owing(draft) == set()


def test_a_quiet_edit_asks_nobody_again_and_a_major_one_does(people, sign_in, post):
    for who in (people.reader, people.admin):
        Acknowledgement.acknowledge(who, post.id, 1)
    edit(people, post, "A comma, moved")
    assert owing(post) == {"editor", "stranger"}
    edit(people, post, "The other exit", require_again=True)
    assert owing(post) == {"reader", "editor", "admin", "stranger"}
    assert count(Acknowledgement) == 2, "what was acknowledged stays on record"
    assert "This has changed since you read it" in sign_in(people.reader).get(f"/posts/{post.id}").text
    with pytest.raises(ValidationError):
        Acknowledgement.acknowledge(people.reader, post.id, 2)
    Acknowledgement.acknowledge(people.reader, post.id, 3)
    assert owing(post) == {"editor", "admin", "stranger"}
    assert count(Acknowledgement) == 3


def test_the_form_asks_anew_and_a_stale_one_does_not(people, topics, sign_in, post):
    Acknowledgement.acknowledge(people.reader, post.id, 1)
    browser = sign_in(people.member)
    assert "Ask everyone to read it again" in browser.get(f"/posts/{post.id}/edit").text
    form = {
        "title": "Fire drill",
        "body": "The other exit",
        "topic": topics.open.id,
        "version": 1,
        "require_again": "1",
    }
    browser.submit(f"/posts/{post.id}/edit", form)
    assert "reader" in owing(post)
    assert browser.submit(f"/posts/{post.id}/edit", form | {"body": "A third one"}).status_code == 409
    assert again(post).must_read_revision == 2
    with pytest.raises(EditConflict):
        edit_post(people.editor, post, version=1, body="B", require_again=True)


# -- The report --------------------------------------------------------------------------------------------------------


def test_the_report_says_who_when_and_of_which_version(people, sign_in, post):
    Acknowledgement.acknowledge(people.reader, post.id, 1)
    Acknowledgement.acknowledge(people.stranger, post.id, 1)
    edit(people, post, "The other exit", require_again=True)
    Acknowledgement.acknowledge(people.reader, post.id, 2)
    User.deactivate(people.admin, people.stranger.id)
    for who in (people.member, people.editor):
        page = sign_in(who).get(f"/posts/{post.id}/report").text
        assert "1 of 3 people has read it" in page
        assert re.search(r'<progress class="bar"\s+max="3"\s+value="1"', page)
        assert "2, before that 1" in page
        assert "No longer required" in page
    report = Acknowledgement.report(again(post))
    states = {line.person.username: (line.state, [one.revision for one in line.given]) for line in report.lines}
    assert states == {
        "reader": ("read", [1, 2]),
        "editor": ("pending", []),
        "admin": ("pending", []),
        "stranger": ("past", [1]),
    }
    assert (report.required, report.read) == (3, 1)


def test_the_report_as_a_table_holds_the_same_and_no_formula(people, topics, sign_in, post):
    named = ["=1+1", "+4", "-2", "@SUM(A1)", " =cmd|' /C calc'!A0", 'Anna "An", B', "Ünal"]
    for number, name in enumerate(named):
        add_person(f"person{number}", Role.READER, name=name, department="=HYPERLINK(1)")
    Acknowledgement.acknowledge(people.reader, post.id, 1)
    answer = sign_in(people.member).get(f"/posts/{post.id}/report.csv")
    assert answer.content_type == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="must-read-{post.id}.csv"'
    header, *lines = table(answer.text)
    assert header[:2] == ["Name", "Username"]
    assert {line[0] for line in lines} >= {"'=1+1", "'+4", "'-2", "'@SUM(A1)", "' =cmd|' /C calc'!A0", named[5], "Ünal"}
    assert not [cell for line in lines for cell in line if cell.lstrip()[:1] in tuple("=+-@")]
    assert len(lines) == len(Acknowledgement.report(again(post)).lines) == 11
    (read,) = [line for line in lines if line[3] == "has read it"]
    assert (read[1], read[4]) == ("reader", "1")


@pytest.mark.parametrize("text", ["", "Ana", "=1", "\t=1", "＝1", "+", "-", "@", "%0A=1", "a=1", "'=1", "|x"])
def test_no_cell_begins_as_a_formula(text):
    assert corkboard.harmless_cell(text).lstrip()[:1] not in {*"=+-@％＝＋－＠|%"}
    assert corkboard.harmless_cell(text).endswith(text)


# -- Reminding ---------------------------------------------------------------------------------------------------------


def test_the_rest_is_reminded_once_a_day_at_the_most(people, topics, sign_in, clock, post):
    again(post)
    browser = sign_in(people.member, remember=True)
    address = f"/posts/{post.id}/remind"
    assert "Remind the others" in browser.get(f"/posts/{post.id}/report").text
    assert browser.submit(address).status_code == 303
    page = browser.get(f"/posts/{post.id}/report").text
    assert "4 people will be reminded." in page
    assert "Remind the others" not in page
    refused = browser.submit(address)
    assert refused.status_code == 422
    assert "Give them until tomorrow." in refused.text
    clock.now += DAY
    assert browser.submit(address).status_code == 303
    assert count(Activity, Activity.action == "post.reminded") == 2


def test_of_two_who_remind_at_the_same_moment_one_does(app, people, post):
    post_id, who = post.id, [SimpleNamespace(id=person.id) for person in (people.member, people.editor, people.admin)]
    outcomes = together(app, *[lambda one=one: Acknowledgement.remind(one, post_id) for one in who])
    assert sorted(isinstance(outcome, ValidationError) for outcome in outcomes) == [False, True, True]
    assert count(Activity, Activity.action == "post.reminded") == 1


def test_there_is_nobody_to_remind_when_all_have_read_it(people, post):
    ask(people, post, roles=[Role.READER])
    Acknowledgement.acknowledge(people.reader, post.id, 1)
    with pytest.raises(ValidationError):
        Acknowledgement.remind(people.member, post.id)
    for who in (people.reader, people.stranger):
        with pytest.raises(Forbidden):
            Acknowledgement.remind(who, post.id)


# -- What it costs -----------------------------------------------------------------------------------------------------
