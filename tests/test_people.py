"""People: who is who, one's own profile, and how administrators look after the others."""

from __future__ import annotations

import io
import re
from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from conftest import (
    PASSWORD,
    PASSWORD_HASH,
    add_person,
    add_post,
    together,
)
from PIL import Image

import app as corkboard
import database
from app import Activity, Forbidden, NotVisible, ResetLink, Role, Setting, User, ValidationError
from database import db

pytestmark = pytest.mark.usefixtures("cheap_hashes")


def names_in(html: str) -> list[str]:
    return re.findall(r'<a class="who" href="/people/[^"]+"[^>]*>([^<]+)</a></h2>', html)


def again(entity):
    db.session.rollback()
    db.session.refresh(entity)
    return entity


def sign_in_by_password(app, name: str, password: str):
    return app.test_client().submit("/login", {"username": name, "password": password})


# -- The list ----------------------------------------------------------------------------------------------------------


def test_everybody_is_listed_by_name_with_how_to_reach_them(people, sign_in):
    add_person("anna", name="Änna Zorn", title="Baker", department="Kitchen", phone="+49 30 1", location="Hall B")
    page = sign_in(people.reader).get("/people").text
    assert names_in(page) == ["Admin", "Änna Zorn", "Editor", "Member", "Reader", "Stranger"]
    for words in ("Baker, Kitchen", 'href="tel:+49301"', "mailto:anna@example.com", "Hall B"):
        assert words in page


def test_names_are_in_order_whatever_the_case_and_the_accents(people, sign_in):
    for number, name in enumerate(["Özil", "oz", "Zoë", "ZOE A", "émile", "Emil"]):
        add_person(f"p{number}", name=name)
    listed = names_in(sign_in(people.reader).get("/people").text)
    assert [name for name in listed if name[0] not in "AMRS" and name != "Editor"] == [
        "Emil", "émile", "oz", "Özil", "Zoë", "ZOE A",
    ]  # fmt: skip


def test_the_filter_finds_by_words_without_any_script(people, sign_in):
    add_person("gro", name="Änna Groß", department="Bäckerei", location="Hall B")
    add_person("lu", name="Lu_Percent", title="100% there", phone="+45 31 22 10", email="lucia.p@example.com")
    browser = sign_in(people.reader)
    for typed, found in [
        ("anna", ["Änna Groß"]), ("ANNA", ["Änna Groß"]), ("ännA", ["Änna Groß"]), ("ａｎｎａ", ["Änna Groß"]),
        ("gross", ["Änna Groß"]), ("groß ann", ["Änna Groß"]), ("nna", ["Änna Groß"]), ("bäckerei", ["Änna Groß"]),
        ("backerei hall", ["Änna Groß"]), ("100%", ["Lu_Percent"]), ("%", ["Lu_Percent"]), ("_", ["Lu_Percent"]),
        ("/", []), ("x", []), ("anna lu", []),
        ("31 22", ["Lu_Percent"]), ("453122", ["Lu_Percent"]), ("lucia.p@example.com", ["Lu_Percent"]),
        (" ", None), ("\x00", None),
    ]:  # fmt: skip
        listed = names_in(browser.get("/people", query_string={"q": typed}).text)
        assert listed == found if found is not None else len(listed) == 7, typed


def test_a_filter_that_finds_nobody_says_so_and_leads_back(people, sign_in):
    page = sign_in(people.reader).get("/people?q=nobodyatall").text
    assert not names_in(page)
    assert re.search(r'<div class="empty">', page)


def test_people_page_by_name_and_none_is_lost_or_doubled(people, sign_in):
    values = {"password_hash": "x", "role": Role.READER, "name": "Same", "name_key": "same", "lookup": "same"}
    with db.engine.begin() as connection:
        many = [values | {"username": f"p{n}", "username_key": f"p{n}"} for n in range(205)]
        connection.execute(sa.insert(User), many)
    browser, card = sign_in(people.reader), r'class="who" href="/people/(\w+)"'
    for filtered, expected in (("", 210), ("?q=same", 205)):
        first = browser.get("/people" + filtered).text
        address = re.search(r'rel="next"\s+href="([^"]+)"', first)[1].replace("&amp;", "&")
        second = browser.get(address).text
        shown = [*re.findall(card, first), *re.findall(card, second)]
        assert len(shown) == len({*shown}) == expected


def test_who_is_deactivated_is_nobody_but_to_administrators(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    User.deactivate(people.admin, people.member.id)
    browser = sign_in(people.reader)
    assert "Member" not in names_in(browser.get("/people").text)
    assert browser.get("/people/member").status_code == 404
    assert "Member" in browser.get(f"/posts/{post.id}").text, "what they wrote keeps its author"
    assert sign_in(people.admin).get("/people/member").status_code == 200
    assert "Deactivated" in sign_in(people.admin).get("/admin/people").text


# -- One person --------------------------------------------------------------------------------------------------------


def test_a_person_is_found_however_the_name_is_written(people, topics, sign_in):
    add_post(people.member, topics.open, "What the member wrote")
    browser = sign_in(people.reader)
    for address in ["/people/member", "/people/MEMBER", "/people/ｍｅｍｂｅｒ", "/people/ member "]:
        page = browser.get(address)
        assert page.status_code == 200
        assert "What the member wrote" in page.text


def test_a_person_that_is_not_there_is_404(people, sign_in):
    browser = sign_in(people.admin)
    for address in ["/people/nobody", "/people/member@example.com", "/people/%00", "/people/" + "x" * 999]:
        assert browser.get(address).status_code == 404, address


def test_what_somebody_wrote_goes_on_for_pages(people, topics, sign_in):
    for number in range(22):
        add_post(people.member, topics.open, f"Number {number}")
    browser = sign_in(people.reader)
    first = browser.get("/people/member").text
    address = re.search(r'rel="next"\s+href="([^"]+)"', first)[1]
    shown = re.findall(r"Number \d+", first) + re.findall(r"Number \d+", browser.get(address).text)
    assert len(shown) == len({*shown}) == 22


def test_administrators_get_to_manage_a_person_and_oneself_to_edit(people, sign_in):
    assert f"/admin/people/{people.member.id}" in sign_in(people.admin).get("/people/member").text
    assert f"/admin/people/{people.member.id}" not in sign_in(people.editor).get("/people/member").text
    assert "Edit your profile" in sign_in(people.member).get("/people/member").text
    assert "Edit your profile" not in sign_in(people.editor).get("/people/member").text


# -- One's own profile -------------------------------------------------------------------------------------------------

PROFILE = {"name": "Mia Member", "email": "mia@example.com", "title": "Baker", "department": "Kitchen",
           "phone": "+49 30 1", "location": "Hall B", "away_from": "", "away_until": "", "stand_in_id": "",
           "current": PASSWORD}  # fmt: skip


def test_a_profile_is_edited_by_whose_it_is(people, sign_in):
    browser = sign_in(people.reader)
    answer = browser.submit("/account", PROFILE)
    assert (answer.status_code, answer.location) == (303, "/account")
    page = browser.get("/people/reader").text
    for words in ("Mia Member", "Baker, Kitchen", "mia@example.com", "Hall B"):
        assert words in page
    assert names_in(browser.get("/people?q=kitchen").text) == ["Mia Member"]


def test_a_wrong_profile_comes_back_as_typed(people, sign_in):
    browser = sign_in(people.member)
    for wrong in [
        {"name": ""}, {"name": " "}, {"name": "x" * 81}, {"title": "x" * 81}, {"email": "no address"},
        {"email": "a@b"}, {"email": "x" * 250 + "@example.com"}, {"away_until": "soon"}, {"away_from": "soon"},
        {"away_until": "2026-02-30"}, {"away_until": "9999-12-31"}, {"away_from": "0005-01-01"},
        {"stand_in_id": "7777"}, {"stand_in_id": "x"},
    ]:  # fmt: skip
        answer = browser.submit("/account", PROFILE | {"title": "Typed before"} | wrong)
        assert answer.status_code == 422, wrong
        assert "Please fix" in answer.text
        assert "Typed before" in answer.text or "title" in wrong
        assert again(people.member).name == "Member"


def test_nobody_edits_role_username_or_anybody_else_through_their_profile(people, sign_in):
    more = {"role": "40", "username": "root", "id": people.admin.id, "user_id": people.admin.id, "password_hash": "x"}
    assert sign_in(people.member).submit("/account", PROFILE | more).status_code == 303
    assert again(people.member).role is Role.MEMBER
    assert people.member.username == "member"
    assert people.member.password_hash == PASSWORD_HASH
    assert again(people.admin).name == "Admin"


def test_a_mail_address_can_be_left_out_by_many(people, sign_in):
    for who in (people.member, people.editor):
        assert sign_in(who).submit("/account", PROFILE | {"email": ""}).status_code == 303
        assert again(who).email is None


@pytest.mark.parametrize("current", ["", "seven green bottle"])
def test_to_change_ones_address_takes_the_current_password(people, sign_in, current):
    answer = sign_in(people.member).submit("/account", PROFILE | {"current": current})
    assert answer.status_code == 422
    assert "This isn&#39;t your current password." in answer.text
    assert "mia@example.com" in answer.text
    assert again(people.member).email == "member@example.com"
    same = {"email": people.member.email, "current": current}
    assert sign_in(people.member).submit("/account", PROFILE | same).status_code == 303


def test_one_keeps_ones_own_name_and_address_in_another_spelling(people, sign_in):
    assert sign_in(people.member).submit("/account", PROFILE | {"email": "MEMBER@example.com"}).status_code == 303
    assert again(people.member).email == "MEMBER@example.com"


def test_nobody_stands_in_for_themselves_nor_who_is_gone(people, sign_in):
    User.deactivate(people.admin, people.stranger.id)
    for stand_in in (people.member.id, people.stranger.id, 7777):
        answer = sign_in(people.member).submit("/account", PROFILE | {"stand_in_id": stand_in})
        assert answer.status_code == 422
        with pytest.raises(ValidationError):
            User.edit_profile(people.member, stand_in_id=stand_in)
    assert sign_in(people.member).submit("/account", PROFILE | {"stand_in_id": people.editor.id}).status_code == 303
    assert again(people.member).stand_in_id == people.editor.id
    assert sign_in(people.member).submit("/account", PROFILE).status_code == 303
    assert again(people.member).stand_in_id is None


# -- Away --------------------------------------------------------------------------------------------------------------


def test_who_is_away_stands_beside_the_news_until_the_last_day(people, sign_in):
    day = database.utcnow().date()
    User.edit_profile(people.member, away_until=day, stand_in_id=people.editor.id)
    User.edit_profile(people.stranger, away_until=day - timedelta(days=1))
    User.edit_profile(people.reader, away_until=day + timedelta(days=300))
    browser = sign_in(people.reader)
    home = browser.get("/").text
    beside = home[home.index("Away today") :]
    assert "Member" in beside
    assert "ask Editor" in beside
    assert "Stranger" not in beside
    assert beside.index("Member") < beside.index("/people/reader")
    assert "ask <a" in browser.get("/people/member").text
    assert "Away until" not in browser.get("/people/stranger").text
    assert browser.get("/people").text.count("Away until") == 2


@pytest.fixture
def noon(monkeypatch):
    """The application's time, which stands still at noon of the first of August until a test moves it."""
    clock = SimpleNamespace(now=datetime(2026, 8, 1, 12, 0))
    monkeypatch.setattr(corkboard, "utcnow", lambda: clock.now)
    return clock


def away_of(browser, username: str) -> tuple[str, str, bool]:
    """What the card and the profile of a person say of their absence, and whether Home says that they are away."""
    profile, cards = browser.get(f"/people/{username}").text, browser.get(f"/people?q={username}").text
    found = [re.search(r'class="is-away">(.*?)</p>', page, re.DOTALL) for page in (cards, profile)]
    said = [re.sub(r"\s+", " ", re.sub("<[^>]+>", "", match[1])).strip() if match else "" for match in found]
    beside = browser.get("/").text.partition("Away today")[2].partition("</section>")[0]
    return said[0], said[1], f"/people/{username}" in beside


@pytest.mark.parametrize(("first", "last", "said"), [
    (date(2026, 8, 3), date(2026, 8, 14), "Away from 3 to 14 August"),
    (date(2026, 8, 28), date(2026, 9, 4), "Away from 28 August to 4 September"),
    (date(2026, 12, 28), date(2027, 1, 3), "Away from 28 December to 3 January 2027"),
    (date(2027, 8, 3), date(2027, 8, 14), "Away from 3 to 14 August 2027"),
    (date(2026, 8, 3), date(2026, 8, 3), "Away on 3 August"),
])  # fmt: skip
def test_an_absence_is_announced_before_it_begins(people, sign_in, noon, first, last, said):
    User.edit_profile(people.member, away_from=first, away_until=last)
    assert away_of(sign_in(people.reader), "member") == (said, said, False)


def test_an_absence_begins_lasts_and_ends(people, sign_in, noon):
    User.edit_profile(people.member, away_from=date(2026, 8, 3), away_until=date(2026, 8, 14))
    days = {}
    for day in (2, 3, 14, 15):
        noon.now = datetime(2026, 8, day, 12, 0)
        days[day] = away_of(sign_in(people.reader), "member")
    until = "Away until 14 August"
    announced = "Away from 3 to 14 August"
    assert days == {
        2: (announced, announced, False),
        3: (until, until, True),
        14: (until, until, True),
        15: ("", "", False),
    }


@pytest.mark.parametrize("theirs", ["Pacific/Kiritimati", "Pacific/Niue"])
@pytest.mark.parametrize("mine", ["Pacific/Kiritimati", "Pacific/Niue"])
def test_which_day_it_is_goes_by_where_the_person_is(people, sign_in, noon, theirs, mine):
    for person, zone in ((people.member, theirs), (people.reader, mine)):
        User.edit_appearance(person, "system", zone, True)
    noon.now = datetime(2026, 8, 3, 10, 30)  # the fourth in Kiritimati, still the second in Niue
    User.edit_profile(people.member, away_from=date(2026, 8, 3), away_until=date(2026, 8, 3))
    said = "Away on 3 August" if theirs == "Pacific/Niue" else ""
    assert away_of(sign_in(people.reader), "member") == (said, said, False)
    noon.now += timedelta(hours=12 if said else -12)
    assert away_of(sign_in(people.reader), "member") == ("Away until 3 August", "Away until 3 August", True)


@pytest.mark.parametrize(("typed", "said"), [
    ({"away_from": "2026-08-15", "away_until": "2026-08-14"}, "The last day is before the first."),
    ({"away_from": "2026-08-15", "away_until": ""}, "Enter your last day away."),
])  # fmt: skip
def test_an_absence_that_ends_before_it_begins_is_refused(people, sign_in, typed, said):
    browser = sign_in(people.member)
    answer = browser.submit("/account", PROFILE | typed | {"title": "Baker <b>"})
    assert answer.status_code == 422
    error = re.search(r'id="away_until-error"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    assert error is not None
    assert said in error[1]
    assert 'value="2026-08-15"' in answer.text
    assert 'value="Baker &lt;b&gt;"' in answer.text
    assert (again(people.member).away_from, people.member.title) == (None, "")
    assert (
        browser.submit("/account", PROFILE | {"away_from": "2026-08-14", "away_until": "2026-08-14"}).status_code == 303
    )
    assert again(people.member).away_from == date(2026, 8, 14)
    with pytest.raises(ValidationError):
        User.edit_profile(people.member, away_until=date(2026, 8, 13))


def test_nobody_is_sent_to_a_stand_in_who_is_gone(people, sign_in):
    User.edit_profile(people.member, away_until=date(2099, 1, 1), stand_in_id=people.editor.id)
    User.deactivate(people.admin, people.editor.id)
    browser = sign_in(people.reader)
    home = browser.get("/").text
    assert "Member" in home[home.index("Away today") :]
    assert "ask Editor" not in home
    page = browser.get("/people/member").text
    assert "Away until" in page
    assert "/people/editor" not in page


def test_coming_back_is_seen_at_once(people, sign_in):
    browser = sign_in(people.member)
    browser.submit("/account", PROFILE | {"away_until": "2099-12-31"})
    assert "Away today" in browser.get("/").text
    assert "31 December 2099" in browser.get("/").text
    browser.submit("/account", PROFILE)
    assert "Away today" not in browser.get("/").text


# -- Names and addresses that are the same -----------------------------------------------------------------------------


@pytest.mark.parametrize("username", ["jose.n.", "jose-", "jose_", "jose..", ".jose", "-jose", "_j", "josé", "j.", ""])
def test_a_username_begins_and_ends_with_a_letter_or_digit(people, sign_in, username):
    answer = sign_in(people.admin).submit("/admin/people/new", {"name": "José", "username": username, "role": "20"})
    assert answer.status_code == 422
    assert 'id="username-error"' in answer.text


@pytest.mark.parametrize("username", ["jose.n", "j-n", "j_n", "jo", "j1", "1j", "j..n"])
def test_a_username_may_have_marks_within(people, sign_in, username):
    answer = sign_in(people.admin).submit("/admin/people/new", {"name": "José", "username": username, "role": "20"})
    assert answer.status_code == 200, "the page with the new password"
    assert User.by_username(username).name == "José"


def test_a_username_is_taken_however_it_is_written(people):
    add_person("anna")
    for username in ["anna", "Anna", "ANNA", " anna", "ａｎｎａ", "Ａｎｎａ"]:
        with pytest.raises(ValidationError) as refused:
            add_person(username, email=None)
        assert refused.value.field == "username"


def test_accents_make_another_name(people):
    for username in ("anna", "änna", "annä"):
        add_person(username, email=None)
    assert User.by_username("ÄNNA").username == "änna"
    assert User.by_username("A\u0308NNA").username == "änna"
    assert User.by_username("Anna ").username == "anna"


def test_a_mail_address_is_taken_however_it_is_written(people, sign_in):
    browser = sign_in(people.editor)
    for email in ["MEMBER@example.com", "member@EXAMPLE.com", "ｍember@example.com", "member@example.com "]:
        with pytest.raises(ValidationError) as refused:
            add_person("anna", email=email)
        assert refused.value.field == "email"
        answer = browser.submit("/account", PROFILE | {"email": email})
        assert answer.status_code == 422
        assert "Someone else is using this email address." in answer.text


def test_nobodys_username_is_anothers_mail_address(people):
    add_person("one@example.org", email=None)
    for values in ({"username": "two", "email": "ONE@example.org"}, {"username": "MEMBER@example.com", "email": None}):
        with pytest.raises(ValidationError):
            User.create(None, password_hash="x", name="X", **values)


def test_of_those_who_take_a_name_at_the_same_moment_one_gets_it(app, people):
    outcomes = together(
        app, *[lambda name=name: add_person(name, email=None) for name in ("anna", "ANNA", "Ａnna", "anNa")]
    )
    assert sum(isinstance(outcome, User) for outcome in outcomes) == 1, outcomes
    assert sum(isinstance(outcome, ValidationError) for outcome in outcomes) == 3, outcomes


# -- Administration ----------------------------------------------------------------------------------------------------


def test_an_administrator_adds_a_person_with_a_password_to_hand_over(app, people, sign_in):
    browser = sign_in(people.admin)
    answer = browser.submit(
        "/admin/people/new", {"name": "Ana Lima", "username": "ana.lima", "email": "", "role": "20"}
    )
    assert answer.status_code == 200
    password = re.search(r'<code class="password">([^<]+)</code>', answer.text)[1]
    assert re.fullmatch(r"([a-z2-9]{4}-){3}[a-z2-9]{4}", password)
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert sign_in_by_password(app, "ana.lima", password).status_code == 303


def test_an_administrator_adds_a_person_with_a_chosen_password(app, people, sign_in):
    values = {"name": "Ana Lima", "username": "ana", "email": "", "role": "10", "password": "nine green bottles"}
    answer = sign_in(people.admin).submit("/admin/people/new", values)
    assert (answer.status_code, answer.location) == (303, "/admin/people")
    assert sign_in_by_password(app, "ana", "nine green bottles").status_code == 303


def test_a_person_who_is_refused_is_not_added(people, sign_in):
    browser = sign_in(people.admin)
    for wrong in [
        {"username": ""}, {"username": "a"}, {"username": "a b"}, {"username": "ána"}, {"username": "x" * 33},
        {"username": "MEMBER"}, {"email": "MEMBER@example.com"}, {"role": "50"}, {"role": ""}, {"name": ""},
        {"password": "short"}, {"password": "password"}, {"password": "x" * 257},
    ]:  # fmt: skip
        values = {"name": "Ana Lima", "username": "ana", "email": "", "role": "20", "password": "nine green bottles"}
        answer = browser.submit("/admin/people/new", values | wrong)
        assert answer.status_code == 422, wrong
        assert "Please fix" in answer.text
        assert "nine green bottles" not in answer.text
    assert db.session.scalar(sa.select(sa.func.count()).select_from(User)) == 5


def test_only_administrators_look_after_people(people, sign_in):
    for path in ["/admin", "/admin/people", "/admin/people/new", "/admin/people/1", "/admin/settings"]:
        for who in (people.reader, people.member, people.editor):
            assert sign_in(who).get(path).status_code == 403


def test_a_role_counts_from_the_next_request(people, sign_in):
    browser, theirs = sign_in(people.admin), sign_in(people.member)
    assert theirs.get("/admin/topics").status_code == 403
    assert browser.submit(f"/admin/people/{people.member.id}/role", {"role": "30"}).status_code == 303
    assert theirs.get("/admin/topics").status_code == 200
    row = db.session.scalar(sa.select(Activity).where(Activity.action == "person.role"))
    assert (row.actor_id, row.object_id, row.detail) == (people.admin.id, people.member.id, "Editor")


@pytest.mark.parametrize("role", ["", "x", "0", "50", "-10"])
def test_there_is_no_other_role(people, sign_in, role):
    answer = sign_in(people.admin).submit(f"/admin/people/{people.member.id}/role", {"role": role})
    assert answer.status_code == 422
    assert again(people.member).role is Role.MEMBER


def test_an_administrator_corrects_a_name_and_an_email_address(people, sign_in):
    browser, address = sign_in(people.admin), f"/admin/people/{people.member.id}"
    assert browser.submit(address, {"name": "Mia Lee", "email": "mia@example.com"}).status_code == 303
    assert (again(people.member).name, people.member.email) == ("Mia Lee", "mia@example.com")
    assert names_in(browser.get("/people?q=mia").text) == ["Mia Lee"]
    answer = browser.submit(address, {"name": "Mia <b>", "email": "EDITOR@example.com"})
    assert answer.status_code == 422
    assert "Someone else is using this email address." in answer.text
    assert 'value="Mia &lt;b&gt;"' in answer.text


def test_who_is_deactivated_is_out_at_the_next_request_and_can_come_back(app, people, sign_in):
    browser, theirs = sign_in(people.admin), sign_in(people.member)
    address = f"/admin/people/{people.member.id}"
    assert browser.submit(f"{address}/deactivate").location == address
    assert "Deactivated and signed out everywhere." in browser.get(address).text
    assert theirs.get("/").status_code == 302
    assert sign_in_by_password(app, "member", PASSWORD).status_code == 422
    with pytest.raises(Forbidden):
        User.edit_profile(people.member, title="Baker")
    assert browser.submit(f"{address}/reactivate").status_code == 303
    assert theirs.get("/").status_code == 302, "an ended sign-in stays ended"
    assert sign_in_by_password(app, "member", PASSWORD).status_code == 303


def test_what_was_decided_about_a_person_is_not_undone_by_an_older_page(people, sign_in):
    older, address = sign_in(people.admin), f"/admin/people/{people.member.id}"
    second = add_person("second", Role.ADMIN)
    older.get(address)
    User.set_role(second, people.member.id, Role.READER)
    User.deactivate(second, people.member.id)
    assert older.submit(address, {"name": "Mia", "email": ""}).status_code == 303
    assert older.submit(f"{address}/role", {"role": "10"}).status_code == 303
    assert (again(people.member).role, people.member.name) == (Role.READER, "Mia")
    assert people.member.deactivated_at is not None


def test_an_administrator_is_not_offered_to_put_themselves_out(people, sign_in):
    browser, address = sign_in(people.admin), f"/admin/people/{people.admin.id}"
    page = browser.get(address).text
    assert f"{address}/role" not in page
    assert f"{address}/deactivate" not in page
    assert "change your own role" in browser.submit(f"{address}/role", {"role": "30"}).text
    assert "deactivate yourself" in browser.submit(f"{address}/deactivate").text
    assert again(people.admin).role is Role.ADMIN


def test_a_person_who_is_not_there_cannot_be_managed(people, sign_in):
    browser = sign_in(people.admin)
    assert browser.get("/admin/people/7777").status_code == 404
    assert browser.submit("/admin/people/7777", {"name": "X"}).status_code == 404
    assert browser.submit("/admin/people/7777/link").status_code == 404
    for what in ("role", "deactivate", "reactivate"):
        assert browser.submit(f"/admin/people/7777/{what}", {"role": "20"}).status_code == 404
    with pytest.raises(NotVisible):
        User.set_role(people.admin, 7777, Role.READER)
    with pytest.raises(NotVisible):
        ResetLink.create(7777, people.admin)


SECTIONS = {
    "site": {"name": "Ours", "welcome": "Hello"},
    "sign-up": {"registration": "domains", "registration_domains": "example.com", "registration_role": "reader"},
    "announcement": {"announcement": "Noon", "announcement_until": "2099-12-31"},
    "time-zone": {"timezone": "Europe/Berlin"},
    "look": {"accent": "green"},
    "bin": {"bin_days": "90"},
    "activity": {"activity_days": "365"},
}


@pytest.mark.parametrize("section", SECTIONS)
def test_each_section_of_the_settings_saves_itself_and_nothing_else(people, sign_in, section):
    before, browser = Setting.read()._asdict(), sign_in(people.admin)
    everything = {name: value for fields in SECTIONS.values() for name, value in fields.items()}
    assert browser.submit(f"/admin/settings/{section}", everything).status_code == 303
    db.session.rollback()
    assert Setting.read()._asdict() == before | SECTIONS[section]
    newest = sa.select(Activity.action).order_by(Activity.id.desc()).limit(1)
    assert db.session.scalar(newest) == "settings.changed"
    page = browser.get("/admin/settings").text
    assert all(value in page for value in SECTIONS[section].values())


def picture(kind: str, size: tuple[int, int] = (600, 300)) -> io.BytesIO:
    made = io.BytesIO()
    Image.new("RGB", size, "#147").save(made, kind)
    made.seek(0)
    return made


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_logo_is_shown_to_everyone_until_it_is_removed(people, sign_in, kind):
    browser = sign_in(people.admin)
    sent = {"accent": "green", "upload": (picture(kind), f"logo.{kind.lower()}")}
    assert browser.submit("/admin/settings/look", sent).status_code == 303
    page = sign_in().get("/login").text
    answer = sign_in().get(re.search(r"/logo\.webp\?v=\w+", page)[0])
    with Image.open(io.BytesIO(answer.data)) as shown:
        assert (shown.format, shown.size) == ("WEBP", (320, 160))
    assert "immutable" in answer.headers["Cache-Control"]
    assert "changed the settings" in browser.get("/admin/activity").text
    assert browser.submit("/admin/settings/look", {"accent": "green", "remove_logo": "y"}).status_code == 303
    assert "logo.webp" not in sign_in().get("/login").text
    assert sign_in().get("/logo.webp").status_code == 404


def test_a_logo_that_is_no_picture_is_refused(people, sign_in):
    sent = {"accent": "rust", "upload": (io.BytesIO(b"<svg/>"), "logo.png")}
    answer = sign_in(people.admin).submit("/admin/settings/look", sent)
    assert answer.status_code == 422
    assert "read as a picture" in answer.text


STYLES = (Path(corkboard.__file__).parent / "static" / "app.css").read_text(encoding="utf-8")


def tones(text: str) -> list[dict[str, str]]:
    """The colours that some lines of app.css define, in the light theme and in the dark one."""
    pairs = re.findall(r"--([a-z-]+): light-dark\((#\w+), (#\w+)\);", text)
    return [{name: (light, dark)[theme] for name, light, dark in pairs} for theme in (0, 1)]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, from 1 to 21 (WCAG 2.2, 1.4.3)."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [part / 255 for part in bytes.fromhex(digits)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("accent", corkboard.ACCENTS)
def test_every_accent_colour_can_be_read_in_both_themes(accent):
    line = re.search(rf'\[data-accent="{accent}"\] {{(.*)}}', STYLES)[1]
    for ground, own in zip(tones(STYLES.partition("}")[0]), tones(line), strict=True):
        behind = [ground["paper"], ground["card"], ground["sunk"], own["accent-soft"]]
        pairs = [(own[name], other) for name in ("accent", "accent-strong") for other in behind]
        pairs += [(own["accent-ink"], own[name]) for name in ("accent", "accent-strong")]
        pairs += [(ground["ink"], own["accent-soft"])]
        assert [pair for pair in pairs if contrast(*pair) < 4.5] == []


def test_the_accent_colour_is_that_of_every_page(people, sign_in):
    assert 'data-accent="rust"' in sign_in().get("/login").text
    assert sign_in(people.admin).submit("/admin/settings/look", {"accent": "teal"}).status_code == 303
    assert 'data-accent="teal"' in sign_in().get("/login").text


def test_an_announcement_stands_above_every_page_until_its_last_day_is_over(people, sign_in, monkeypatch):
    admin, reader = sign_in(people.admin), sign_in(people.reader)
    for until in ("", "2020-01-01", "soon"):
        sent = {"announcement": "<b>Door</b> locked", "announcement_until": until}
        answer = admin.submit("/admin/settings/announcement", sent)
        assert answer.status_code == 422
        assert "&lt;b&gt;Door" in answer.text
    today = database.utcnow().date()
    sent = {"announcement": "<b>Door</b> locked", "announcement_until": today.isoformat()}
    assert admin.submit("/admin/settings/announcement", sent).status_code == 303
    assert f'value="{today.isoformat()}"' in admin.get("/admin/settings").text
    for path in ("/", "/people", "/account"):
        assert "&lt;b&gt;Door&lt;/b&gt; locked" in reader.get(path).text
    assert "Door" not in sign_in().get("/login").text
    monkeypatch.setattr("app.today", lambda: today + timedelta(days=1))
    assert "Door" not in reader.get("/people").text
    monkeypatch.undo()
    assert admin.submit("/admin/settings/announcement", {"announcement": ""}).status_code == 303
    assert "Door" not in reader.get("/people").text


def test_the_site_s_time_zone_is_that_of_people_who_chose_none(people, sign_in):
    browser = sign_in(people.admin)
    assert browser.submit("/admin/settings/time-zone", {"timezone": "Mars/Base"}).status_code == 422
    assert browser.submit("/admin/settings/time-zone", {"timezone": "Pacific/Auckland"}).status_code == 303
    assert "Site default: Pacific/Auckland" in sign_in(people.member).get("/account/appearance").text
    assert browser.submit("/admin/settings/time-zone", {"timezone": ""}).status_code == 303
    assert "Site default: UTC" in sign_in(people.member).get("/account/appearance").text


def test_sign_up_that_was_closed_is_not_opened_by_an_older_page(people, sign_in):
    Setting.change(people.admin, registration="open")
    browser = sign_in(people.admin)
    browser.get("/admin/settings")
    Setting.change(people.admin, registration="closed")
    assert browser.submit("/admin/settings/site", SECTIONS["site"]).status_code == 303
    assert browser.submit("/admin/settings/bin", SECTIONS["bin"]).status_code == 303
    assert browser.submit("/register").status_code == 404


def test_a_setting_that_is_wrong_comes_back_as_typed(people, sign_in):
    browser = sign_in(people.admin)
    for section, wrong in [
        ("site", {"name": ""}), ("site", {"name": "x" * 81}), ("site", {"welcome": "x" * 501}),
        ("sign-up", {"registration": "everybody"}), ("sign-up", {"registration_role": "admin"}),
        ("sign-up", {"registration": "company", "registration_domains": ""}), ("look", {"accent": "#ffd400"}),
        ("sign-up", {"registration": "domains", "registration_domains": ""}),
        ("sign-up", {"registration": "domains", "registration_domains": "example"}),
        ("sign-up", {"registration_domains": "@example.com"}), ("bin", {"bin_days": "1"}),
    ]:  # fmt: skip
        answer = browser.submit(f"/admin/settings/{section}", SECTIONS[section] | wrong)
        assert answer.status_code == 422, wrong
        assert "Please fix one field" in answer.text
    db.session.rollback()
    assert Setting.read() == corkboard.Site()


def test_administrators_find_people_by_role_and_state(people, sign_in):
    page = sign_in(people.admin).get("/admin/people?q=memb").text
    assert f"/admin/people/{people.member.id}" in page
    assert f"/admin/people/{people.editor.id}" not in page
    assert "never" in page


def test_a_page_says_what_is_left_to_do_on_a_new_site(people, topics, sign_in):
    browser = sign_in(people.admin)
    page = browser.get("/admin").text
    assert "Only this computer can open the site so far." in page
    assert "HOST=0.0.0.0" in page
    assert page.count('class="is-done"') == 1
    add_post(people.member, topics.open)
    assert browser.get("/admin").text.count('class="is-done"') == 2


def test_the_table_of_hues_covers_every_id():
    assert {corkboard.hue(number) for number in range(1, 50)} == set(range(corkboard.HUES))


@pytest.mark.parametrize("hidden", ["\u202e", "\u200d\ufe0f", "\u3164 \u2800", "\u00ad"])
def test_a_name_of_invisible_characters_is_refused_and_others_lose_them(people, sign_in, hidden):
    browser, admin = sign_in(people.member), sign_in(people.admin)
    own = {"email": "", "current": PASSWORD}
    assert browser.submit("/account", own | {"name": hidden}).status_code == 422
    new = {"username": "ida", "email": "", "role": "20", "password": ""}
    assert admin.submit("/admin/people/new", new | {"name": hidden}).status_code == 422
    browser.submit("/account", own | {"name": f"A{hidden.strip()}na", "department": f"{hidden}Bakery"})
    member = again(people.member)
    assert (member.name.replace(" ", ""), member.department) == ("Ana", "Bakery")
