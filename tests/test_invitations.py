"""Ways in: invitations by link and email, lists of people, and registrations that an administrator approves."""

from __future__ import annotations

import csv
import io
import re
import secrets
from datetime import timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from conftest import PASSWORD, add_person, add_topic, together
from post_office import PostOffice
from world import set_columns, value

import app as corkboard
import database
from app import Activity, Follow, Invitation, NotVisible, OutgoingMail, Role, Setting, SignIn, Topic, TopicMember, User
from database import db

pytestmark = pytest.mark.usefixtures("cheap_hashes")

IDA = {"name": "Ida Berg", "username": "ida", "email": "ida@example.com", "password": PASSWORD, "confirm": PASSWORD}
FORM = {"name": "Saturday team", "role": "20", "uses_most": "1"}


@pytest.fixture
def office(app, monkeypatch):
    """A mail server, and a site that sends through it."""
    with PostOffice() as office:
        for name, text in office.settings().items():
            monkeypatch.setitem(app.config, name, text)
        yield office


def invite(people, topics=(), **values) -> SimpleNamespace:
    """Create an invitation as the administrator. Returns its id and token."""
    values = {"name": "", "email": "", "role": Role.MEMBER, "uses_most": 1} | values
    made, token = Invitation.create(
        people.admin, form_id=secrets.token_hex(16), topic_ids=[topic.id for topic in topics], **values
    )
    return SimpleNamespace(id=made.id, token=token)


def link_in(text: str) -> str:
    found = re.search(r"/invite/[\w-]+", text)
    assert found is not None, text
    return found[0]


def ida() -> User | None:
    db.session.rollback()
    return db.session.scalar(sa.select(User).where(User.username_key == "ida"))


def words_of(page: str) -> str:
    """What the main part of a page says, without what differs by the request."""
    return re.sub(r"Reference.*", "", re.sub(r"<[^>]+>|\s+", " ", page.partition("<main")[2]))


# -- Invitations -------------------------------------------------------------------------------------------------------


def test_a_link_lets_someone_in_with_its_role_and_topics(people, topics, sign_in):
    chosen = {"topic_ids": [str(topics.open.id), str(topics.private.id)], "role": "30"}
    page = sign_in(people.admin).submit("/admin/invitations", FORM | chosen).text
    assert "Pass it on now" in page
    assert "<svg" in page
    visitor = sign_in()
    shown = visitor.get(link_in(page)).text
    assert "Admin</b> invites you to join. Your role will be Editor." in re.sub(r"\s+", " ", shown)
    assert "Management" not in shown
    answer = visitor.submit(link_in(page), IDA)
    assert (answer.status_code, answer.location) == (303, "/")
    assert "Welcome, Ida Berg." in visitor.get("/").text
    joined = ida()
    assert joined is not None
    assert joined.role == Role.EDITOR
    assert value(sa.select(TopicMember.topic_id).where(TopicMember.user_id == joined.id)) == topics.private.id
    assert value(sa.select(Follow.topic_id).where(Follow.user_id == joined.id)) == topics.open.id
    assert visitor.get(f"/topics/{topics.private.slug}").status_code == 200


def test_no_private_topic_is_ticked_before_one_is_chosen(people, topics, sign_in):
    page = sign_in(people.admin).get("/admin/invitations").text
    boxes = re.findall(r'<input type="checkbox"[^>]*name="topic_ids"[^>]*>', page)
    assert len(boxes) == 2
    assert not [box for box in boxes if "checked" in box]


def test_a_private_topic_that_the_inviter_does_not_see_cannot_be_chosen(people, sign_in):
    hidden = add_topic(people.editor, "Wages", members=[people.member.id])
    browser = sign_in(people.admin)
    assert "Wages" not in browser.get("/admin/invitations").text
    assert browser.submit("/admin/invitations", FORM | {"topic_ids": str(hidden.id)}).status_code == 422
    assert value(sa.select(sa.func.count()).select_from(Invitation)) == 0


def test_who_joins_gets_only_the_topics_that_the_inviter_still_sees(people, topics):
    made = invite(people, [topics.open, topics.private])
    Topic.remove_member(people.editor, topics.private.id, people.admin.id)
    user = Invitation.accept(made.token, **profile("ida"))
    assert value(sa.select(TopicMember.user_id).where(TopicMember.user_id == user.id)) is None


def profile(username: str) -> dict[str, str]:
    return {
        "username": username, "name": "Ida", "email": f"{username}@example.org",
        "password_hash": corkboard.NO_PASSWORD,
    }  # fmt: skip


def test_only_a_hash_of_the_link_is_kept(people):
    made = invite(people)
    with db.engine.connect() as connection:
        kept = [str(row) for table in db.metadata.sorted_tables for row in connection.execute(sa.select(table))]
    assert not [row for row in kept if made.token in row]


def test_what_does_not_work_any_more_gets_one_and_the_same_page(people, sign_in):
    ended = {name: invite(people) for name in ("expired", "used", "withdrawn")}
    set_columns(Invitation, ended["expired"].id, expires_at=database.utcnow())
    Invitation.accept(ended["used"].token, **profile("ivo"))
    Invitation.withdraw(people.admin, ended["withdrawn"].id)
    tokens = [*(made.token for made in ended.values()), "never-made"]
    for answers in (
        [sign_in().get(f"/invite/{token}") for token in tokens],
        [sign_in().submit(f"/invite/{token}", IDA) for token in tokens],
    ):
        assert {answer.status_code for answer in answers} == {410}
        assert len({words_of(answer.text) for answer in answers}) == 1
        assert "Ask the person who invited you for a new one." in answers[0].text
    assert ida() is None


@pytest.mark.parametrize("lost", [{"role": Role.EDITOR}, {"deactivated_at": database.utcnow()}])
def test_an_invitation_ends_with_the_right_of_its_author(people, sign_in, lost):
    made, visitor = invite(people), sign_in()
    assert visitor.get(f"/invite/{made.token}").status_code == 200
    set_columns(User, people.admin.id, **lost)
    assert visitor.submit(f"/invite/{made.token}", IDA).status_code == 410
    assert ida() is None


def test_each_use_is_counted_once_however_many_join_at_once(app, people):
    made = invite(people, uses_most=3)
    names = [f"person{number}" for number in range(8)]
    outcomes = together(app, *(lambda name=name: Invitation.accept(made.token, **profile(name)) for name in names))
    assert [type(outcome) for outcome in outcomes].count(User) == 3
    assert {type(outcome) for outcome in outcomes} == {User, NotVisible}
    assert value(sa.select(Invitation.uses).where(Invitation.id == made.id)) == 3
    assert value(sa.select(sa.func.count()).where(User.username.startswith("person"))) == 3


def test_a_form_that_was_refused_uses_nothing_and_keeps_what_was_typed(people, sign_in):
    made, visitor = invite(people), sign_in()
    answer = visitor.submit(f"/invite/{made.token}", IDA | {"username": "member"})
    assert answer.status_code == 422
    assert 'value="Ida Berg"' in answer.text
    assert "This username is taken." in answer.text
    assert value(sa.select(Invitation.uses).where(Invitation.id == made.id)) == 0
    assert visitor.submit(f"/invite/{made.token}", IDA).status_code == 303


def test_a_role_cannot_be_smuggled_in(people, sign_in):
    made = invite(people, role=Role.READER)
    assert sign_in().submit(f"/invite/{made.token}", IDA | {"role": "40"}).status_code == 303
    joined = ida()
    assert joined is not None
    assert joined.role == Role.READER


def test_a_form_that_is_sent_twice_makes_one_invitation(people, sign_in):
    browser, form = sign_in(people.admin), FORM | {"form_id": "a" * 32}
    first, second = (link_in(browser.submit("/admin/invitations", form).text) for _ in range(2))
    assert value(sa.select(sa.func.count()).select_from(Invitation)) == 1
    assert [sign_in().get(link).status_code for link in (first, second)] == [410, 200]


def test_open_invitations_are_listed_and_every_administrator_withdraws_them(people, topics, sign_in):
    made = invite(people, [topics.private], name="Saturday team", uses_most=5)
    other = sign_in(add_person("olga", Role.ADMIN))
    page = other.get("/admin/invitations").text
    assert "Saturday team" in page
    assert "0 of 5 used" in page
    assert "Management" not in page  # who does not see the topic
    assert other.submit(f"/admin/invitations/{made.id}/withdraw").status_code == 303
    assert sign_in().get(f"/invite/{made.token}").status_code == 410
    assert other.submit(f"/admin/invitations/{made.id}/withdraw").status_code == 404


def test_what_happens_to_an_invitation_is_recorded(people, sign_in):
    browser = sign_in(people.admin)
    link = link_in(browser.submit("/admin/invitations", FORM | {"uses_most": "5"}).text)
    assert sign_in().submit(link, IDA).status_code == 303
    browser.submit(f"/admin/invitations/{value(sa.select(Invitation.id))}/withdraw")
    said = re.sub(r"<[^>]+>|\s+", " ", browser.get("/admin/activity").text)
    for words in ("created the invitation", "accepted the invitation", "withdrawn the invitation", "Saturday team"):
        assert words in said
    assert "invitation.created" in browser.get("/admin/activity.csv?kind=invitation").text


def test_an_email_is_offered_only_where_there_is_a_mail_server(people, sign_in):
    browser = sign_in(people.admin)
    assert 'name="email"' not in browser.get("/admin/invitations").text
    page = browser.submit("/admin/invitations", FORM | {"email": "ida@example.com"}).text
    assert link_in(page)
    assert "sent" not in page


def test_an_invitation_by_email_brings_its_link_to_that_address(people, sign_in, office):
    browser = sign_in(people.admin)
    page = browser.submit("/admin/invitations", FORM | {"email": "ida@example.com"}).text
    assert "Invitation sent to ida@example.com." in page
    (message,) = office.messages
    assert message["To"] == "ida@example.com"
    assert message["Subject"] == "Admin invites you to Corkboard"
    text = message.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    visitor = sign_in()
    assert 'value="ida@example.com"' in visitor.get(link_in(text)).text
    assert visitor.submit(link_in(text), IDA).status_code == 303
    assert value(sa.select(Invitation.uses)) == 1


def test_what_administrators_call_an_invitation_is_not_in_the_email(people, sign_in, office):
    sign_in(people.admin).submit("/admin/invitations", FORM | {"email": "ida@example.com", "name": "The difficult one"})
    (message,) = office.messages
    assert "difficult" not in message.as_string()


def test_an_email_that_cannot_be_sent_leaves_the_link_to_hand_over(people, sign_in, office):
    office.stop()
    page = sign_in(people.admin).submit("/admin/invitations", FORM | {"email": "ida@example.com"}).text
    assert "The email wasn&#39;t sent" in page or "The email wasn't sent" in page
    assert sign_in().get(link_in(page)).status_code == 200


# -- Lists of people ---------------------------------------------------------------------------------------------------


def check(browser, text: str, **more: str):
    return browser.submit("/admin/people/import", {"text": text} | more)


def verdicts(page: str) -> list[str]:
    rows = re.findall(r"<tr.*?</tr>", page.partition("<tbody>")[2], re.DOTALL)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row)).strip() for row in rows]


LIST = """name,username,email,role,title
Ida Berg,,ida@example.com,editor,Baker
Zoë Lund,zoe,,,
"""


def test_a_list_is_shown_line_by_line_before_anybody_is_added(people, sign_in):
    browser, before = sign_in(people.admin), value(sa.select(sa.func.count()).select_from(User))
    page = check(browser, LIST + "Somebody,,member@example.com,,\n").text
    assert verdicts(page) == [
        "2 Ida Berg ida@example.com ida Editor Will be added",
        "3 Zoë Lund zoe Member Will be added",
        "4 Somebody member@example.com member Member Already here, skipped",
    ]
    assert "2 to add, 1 already here, 0 to correct" in page
    assert value(sa.select(sa.func.count()).select_from(User)) == before
    answer = check(browser, LIST, add="1")
    assert answer.status_code == 303
    assert "2 people added." in browser.get(answer.location).text
    db.session.rollback()
    added = db.session.scalar(sa.select(User).where(User.username == "ida"))
    assert added is not None
    assert (added.role, added.title, added.email) == (Role.EDITOR, "Baker", "ida@example.com")
    assert added.must_change_password
    with pytest.raises(corkboard.ValidationError):
        corkboard.authenticate("ida", "")
    again = check(browser, LIST, add="1").text  # sent twice, it adds nobody
    assert "0 to add, 2 already here, 0 to correct" in again


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (",x1,x@example.com,", "Name: Fill this in."),
        ("Ida,ida berg,,", "Username: Use letters"),
        ("Ida,,ida@example,", "Email: Enter an email address such as ana@example.com"),
        ("Ida,ida,,Owner", "Role: Use Reader, Member, Editor or Admin."),
        ("Ida,member,other@example.com,", "Username: Someone has it already, here or in a line before."),
        ("Ida,everyone,other@example.com,", "Username: Someone has it already, here or in a line before."),
        ("Ida,zoe,,", "Username: Someone has it already, here or in a line before."),
        ("Ida,ida,ZOE@example.com,", "Email: Someone has it already, here or in a line before."),
        ("Berg, Ida,ida,ida@example.com,reader", "Role: Use Reader, Member, Editor or Admin."),
        ("Ida,,,", "Username: Fill this in."),
    ],
)
def test_one_line_that_is_wrong_says_why_and_nobody_is_added(people, sign_in, line, words):
    browser, before = sign_in(people.admin), value(sa.select(sa.func.count()).select_from(User))
    page = check(browser, f"name,username,email,role\nZoë,zoe,zoe@example.com,\n{line}\n", add="1").text
    assert verdicts(page)[1].startswith("3 ")
    assert words in verdicts(page)[1]
    assert 'name="add"' not in page
    assert value(sa.select(sa.func.count()).select_from(User)) == before


@pytest.mark.parametrize("text", ["", "email,role\nida@example.com,reader", 'name\n"Ida', "nonsense", "\0"])
def test_what_is_no_list_is_refused_with_what_it_should_be(people, sign_in, text):
    answer = check(sign_in(people.admin), text)
    assert answer.status_code == 422
    assert "The first line has to name the columns" in answer.text or "Line 2 can" in answer.text


def test_a_name_that_a_group_has_is_taken_and_an_apostrophe_stays_where_it_belongs(people, sign_in):
    corkboard.Group.save(people.admin, None, name="kitchen", member_ids=[])
    page = check(sign_in(people.admin), "name,username,phone\n'T Hooft,kitchen,'+31 1\n").text
    assert verdicts(page)[0].startswith("2 &#39;T Hooft kitchen Member Can't be added")


def test_a_list_of_nobody_says_so(people, sign_in):
    assert "There is nobody in this list" in check(sign_in(people.admin), "name,email\n\n,\n").text


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_files_as_spreadsheets_save_them_are_read(people, sign_in, separator, encoding):
    rows = [("Name", "EMAIL", "Phone", "Shoe size"), ("Zoë Löwe", "zoe@example.com", "'+44 1", "38")]
    content = "\r\n".join(separator.join(row) for row in rows).encode(encoding)
    browser = sign_in(people.admin)
    page = browser.submit("/admin/people/import", {"upload": (io.BytesIO(content), "people.csv")}).text
    assert verdicts(page) == ["2 Zoë Löwe zoe@example.com zoe Member Will be added"]
    carried = re.search(r'<textarea[^>]*name="text"[^>]*>\r?\n?(.*?)</textarea>', page, re.DOTALL)
    assert carried is not None
    assert check(browser, corkboard.html.unescape(carried[1]), add="1").status_code == 303
    assert value(sa.select(User.phone).where(User.username == "zoe")) == "+44 1"


def test_a_list_comes_back_to_be_changed(people, sign_in):
    assert "Zoë Lund,zoe" in check(sign_in(people.admin), LIST).text


def test_people_who_were_listed_are_told_by_email_where_there_is_a_mail_server(people, sign_in, office):
    browser = sign_in(people.admin)
    assert "Email each of them" in check(browser, LIST).text
    check(browser, LIST, add="1", by_email="y")
    db.session.rollback()
    assert corkboard.send_mail() == 1  # the other has no address
    (message,) = office.messages
    assert message["To"] == "Ida Berg <ida@example.com>"
    assert "Your username is ida." in message.get_body(("plain",)).get_content()  # type: ignore[union-attr]


def test_five_thousand_people_are_added_at_once(people, sign_in, monkeypatch):
    monkeypatch.setattr(corkboard, "SCRYPT", "scrypt:32768:8:3")  # a hash for each would take 15 minutes
    lines = "\n".join(f"Person {n},person{n}@example.com,member,Baker,Hall {n % 9}" for n in range(5000))
    browser, text = sign_in(people.admin), f"name,email,role,title,location\n{lines}"
    assert "5000 to add, 0 already here, 0 to correct" in check(browser, text).text
    assert check(browser, text, add="1").status_code == 303
    assert value(sa.select(sa.func.count()).select_from(User)) >= 5000


def test_everybody_is_exported_as_a_table_that_is_harmless_and_can_be_imported_again(people, sign_in):
    User.edit_profile(people.member, title="=1+1", phone="+44 20", location="@home", department="-x")
    browser = sign_in(people.admin)
    answer = browser.get("/admin/people.csv")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="people.csv"'
    rows = {row["username"]: row for row in csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff")))}
    assert [rows["member"][name] for name in ("title", "phone", "location", "department")] == [
        "'=1+1", "'+44 20", "'@home", "'-x",
    ]  # fmt: skip
    assert rows["admin"]["role"] == "Admin"
    page = check(browser, answer.text.removeprefix("\ufeff")).text
    assert "0 to add, 5 already here, 0 to correct" in page


def test_a_person_can_be_saved_in_an_address_book(people, sign_in):
    User.edit_profile(people.member, name="Ána, Maria; Lima", title="Baker", phone="+44 20", location="Hall B")
    browser = sign_in(people.reader)
    assert 'href="/people/member/card.vcf"' in browser.get("/people/member").text
    answer = browser.get("/people/member/card.vcf")
    assert answer.mimetype == "text/vcard"
    lines = answer.get_data(as_text=True).split("\r\n")
    assert lines[:2] == ["BEGIN:VCARD", "VERSION:3.0"]
    assert lines[-2:] == ["END:VCARD", ""]
    for line in (
        r"FN:Ána\, Maria\; Lima", r"N:Lima;Ána\, Maria\;;;;", "ORG:Corkboard", "TITLE:Baker",
        "EMAIL;TYPE=INTERNET:member@example.com", "TEL;TYPE=WORK,VOICE:+44 20", "NOTE:Hall B",
    ):  # fmt: skip
        assert line in lines


def test_a_username_may_end_like_a_file(people, sign_in):
    add_person("mia.vcf")
    page = sign_in(people.reader).get("/people/mia.vcf")
    assert (page.status_code, page.mimetype) == (200, "text/html")


# -- Approval ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(people, sign_in) -> User:
    """Somebody who has signed up and waits."""
    Setting.change(people.admin, registration="approval")
    visitor = sign_in()
    assert "An administrator has to let you in" in visitor.get("/register").text
    answer = visitor.submit("/register", IDA)
    assert answer.location == "/login"
    assert "Thank you, Ida Berg. An administrator has to let you in first." in visitor.get("/login").text
    assert visitor.get("/").status_code == 302
    found = ida()
    assert found is not None
    return found


def log_in(sign_in, password: str = PASSWORD):
    return sign_in().submit("/login", {"username": "ida", "password": password})


def test_who_waits_learns_it_only_with_the_right_password(people, sign_in, waiting):
    wrong, right = log_in(sign_in, "wrong password"), log_in(sign_in)
    assert "Wrong username or password." in wrong.text
    assert "let you in first" not in wrong.text
    assert right.status_code == 422
    assert "An administrator has to let you in first." in right.text
    assert value(sa.select(sa.func.count()).where(SignIn.user_id == waiting.id)) == 0


def test_who_waits_is_seen_by_nobody_else(people, sign_in, waiting):
    assert "Ida Berg" not in sign_in(people.member).get("/people").text
    assert sign_in(people.member).get("/people/ida").status_code == 404
    assert "ida" not in sign_in(people.admin).get("/admin/people.csv").text


def test_who_is_approved_can_sign_in(people, sign_in, waiting):
    browser = sign_in(people.admin)
    page = browser.get("/admin/people?state=waiting").text
    assert "Ida Berg" in page
    assert re.search(r'class="count">1<span[^>]*> waiting', page)
    assert f"/admin/people/{waiting.id}/decline" in page
    assert browser.submit(f"/admin/people/{waiting.id}/reactivate").status_code == 303
    assert "No matches" in browser.get("/admin/people?state=waiting").text
    assert log_in(sign_in).status_code == 303
    assert browser.submit(f"/admin/people/{waiting.id}/decline").status_code == 404  # it is decided


def test_who_is_declined_is_gone_and_can_ask_again(people, sign_in, waiting):
    browser = sign_in(people.admin)
    assert browser.submit(f"/admin/people/{waiting.id}/decline").status_code == 303
    assert ida() is None
    assert "Wrong username or password." in log_in(sign_in).text
    assert sign_in().submit("/register", IDA).status_code == 303


def test_two_administrators_who_decide_at_once_leave_one_decision(app, people, waiting):
    outcomes = together(
        app, lambda: User.reactivate(people.admin, waiting.id), lambda: User.decline(people.admin, waiting.id)
    )
    assert {type(outcome) for outcome in outcomes} == {type(None), NotVisible}
    left = value(sa.select(User.awaits_approval).where(User.id == waiting.id))
    assert left is (False if outcomes[0] is None else None)


def test_administrators_hear_of_who_waits_and_who_waited_of_the_decision(people, sign_in, office, waiting):
    db.session.rollback()
    assert corkboard.send_mail() == 1
    assert office.messages[-1]["To"] == "Admin <admin@example.com>"
    assert "/admin/people?state=3Dwaiting" in str(office.messages[-1])
    User.reactivate(people.admin, waiting.id)
    db.session.rollback()
    assert corkboard.send_mail() == 1
    assert office.messages[-1]["To"] == "Ida Berg <ida@example.com>"
    assert "/login" in str(office.messages[-1])
    assert value(sa.select(sa.func.count()).select_from(OutgoingMail)) == 0


def test_each_decision_is_recorded(people, sign_in, waiting):
    User.reactivate(people.admin, waiting.id)
    db.session.rollback()
    done = db.session.scalars(sa.select(Activity.action).where(Activity.object_id == waiting.id)).all()
    assert {"person.asked", "person.approved"} <= {*done}
    said = sign_in(people.admin).get("/admin/activity").text
    assert "asked to join" in said
    assert "let in" in said


def test_an_invitation_needs_no_approval(people, sign_in):
    Setting.change(people.admin, registration="approval")
    visitor = sign_in()
    assert visitor.submit(f"/invite/{invite(people).token}", IDA).location == "/"
    assert visitor.get("/").status_code == 200


def test_expired_invitations_are_gone_when_another_is_made(people):
    set_columns(Invitation, invite(people).id, expires_at=database.utcnow() - timedelta(days=1))
    kept = invite(people)
    assert value(sa.select(Invitation.id)) == kept.id
