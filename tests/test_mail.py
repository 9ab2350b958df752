"""Email: who is sent what and when, once each, and nothing that they may not see; the outbox; how one stops it."""

from __future__ import annotations

import html
import re
from collections import Counter
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from conftest import add_comment, add_post, edit_post, together
from post_office import PostOffice, only_with, self_signed
from serving import free_port
from world import set_columns, set_settings, value

import app as corkboard
from app import (
    Acknowledgement,
    Activity,
    Comment,
    Follow,
    Notification,
    NotificationChoice,
    OutgoingMail,
    Post,
    Reaction,
    Role,
    Topic,
    User,
)
from database import db

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def clock(monkeypatch):
    """The application's time, which stands still until a test moves it: Monday morning."""
    clock = SimpleNamespace(now=datetime(2026, 3, 2, 9, 0))
    monkeypatch.setattr(corkboard, "utcnow", lambda: clock.now)
    return clock


@pytest.fixture
def office(app, clock, monkeypatch):
    """A mail server, and a site that sends through it."""
    with PostOffice() as office:
        for name, text in office.settings().items():
            monkeypatch.setitem(app.config, name, text)
        yield office


def send() -> int:
    db.session.rollback()
    return corkboard.send_mail()


def summarise(clock, days: int = 1) -> int:
    """Send what is due on some later morning."""
    send()
    clock.now = clock.now.replace(hour=7, minute=0) + days * DAY
    return send()


def outbox() -> list:
    with db.engine.connect() as connection:
        return list(connection.execute(sa.select(OutgoingMail.__table__).order_by(OutgoingMail.id)))


def states() -> list[str]:
    return [mail.state for mail in outbox()]


def plain(message) -> str:
    return message.get_body(("plain",)).get_content()


def page(message) -> str:
    return message.get_body(("html",)).get_content()


def stop_link(message) -> str:
    return message["List-Unsubscribe"].strip("<>").removeprefix("https://board.example.com")


def follow(topic, *people) -> None:
    for person in people:
        Follow.choose(person, "following", topic_id=topic.id)


# -- At once -----------------------------------------------------------------------------------------------------------


def test_an_announcement_comes_at_once_and_in_full(people, topics, office):
    follow(topics.open, people.reader)
    body = (
        "Hall B opens **again**:\n\n- [x] crane\n- [ ] door\n\n[The plan](/posts/1)\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    )
    post = add_post(people.member, topics.open, "The crane is back", body=body)
    assert send() == 1
    (message,) = office.to("reader")
    assert message["Subject"] == "[Everyone] The crane is back"
    assert (message["From"], message["To"]) == ("Our board <board@example.com>", "Reader <reader@example.com>")
    assert body.replace("(/", "(https://board.example.com/") in plain(message).replace("\r\n", "\n")
    shown = page(message)
    for part in (
        "<strong>again</strong>",
        "☑ crane",
        "☐ door",
        'href="https://board.example.com/posts/1"',
        "<td>1</td>",
    ):
        assert part in shown
    assert f'href="https://board.example.com/posts/{post.id}"' in shown
    assert "You get this because you follow this topic." in shown
    assert send() == 0


def test_nothing_in_an_email_is_fetched_and_links_lead_where_the_settings_say(app, people, topics, office, sign_in):
    follow(topics.open, people.reader)
    body = "![A crane](/files/1/crane.png) by @member, see [it](/posts/1) and https://example.org/x"
    sent = {"topic": topics.open.id, "title": "With a picture", "body": body}
    browser, name = sign_in(people.member), app.config["SESSION_COOKIE_NAME"]
    browser.set_cookie(name, browser.get_cookie(name).value, domain="evil.example")
    assert browser.submit("/posts/new", sent, base_url="http://evil.example").status_code == 303
    assert send() == 1
    shown = page(office.to("reader")[0])
    assert "<img" not in shown
    assert "src=" not in shown
    assert "A crane" in shown
    assert "evil" not in office.to("reader")[0].as_string()
    links = re.findall(r'href="([^"]*)"', shown)
    assert {re.match(r"https://[^/]+", link)[0] for link in links} == {
        "https://board.example.com",
        "https://example.org",
    }


def test_mentions_and_must_reads_come_at_once_and_comments_do_not(people, topics, office):
    post = add_post(people.member, topics.open, "The rota", body="Hello @stranger")
    Acknowledgement.require(people.editor, post.id, roles=[Role.READER], due=datetime(2026, 3, 6).date())
    add_comment(people.editor, post, "Well, @reader?")
    assert send() == 3
    assert office.subjects("stranger") == ["[Everyone] The rota"]
    asked, mentioned = office.to("reader")
    assert (asked["Subject"], mentioned["Subject"]) == ("[Everyone] The rota", "Re: [Everyone] The rota")
    for text in (plain(asked), page(asked)):
        assert "Please read" in text
        assert "by 6 March" in text
    assert "Well, @reader?" in plain(mentioned)
    assert "Open and confirm" in page(asked)
    assert office.to("member") == [], "of comments one reads in the summary"


def test_emails_about_one_post_stand_together_and_have_ids_of_their_own(people, topics, office):
    follow(topics.open, people.reader)
    post = add_post(people.member, topics.open, body="One")
    add_comment(people.member, post, "And @reader?")
    add_post(people.member, topics.open, body="Two")
    send()
    first, second, third = office.to("reader")
    assert first["References"] == second["References"] == first["In-Reply-To"] == second["In-Reply-To"]
    assert third["References"] not in (first["References"], None)
    ids = {message["Message-ID"] for message in office.messages} | {first["References"]}
    assert len(ids) == 4
    assert all(re.fullmatch(r"<[^<>@\s]+@example\.com>", message_id) for message_id in ids)


def test_a_post_is_told_again_to_everyone_when_it_is_shared_again(people, topics, office):
    post = add_post(people.member, topics.open, "Rota", body="Old")
    assert send() == 0
    edit_post(people.member, post, body="New", notify=True)
    assert send() == 4
    assert "shared again" in page(office.to("stranger")[0])


def test_times_in_an_email_are_those_of_its_reader(people, topics, office):
    User.edit_appearance(people.reader, "dark", "Asia/Tokyo", True)
    follow(topics.open, people.reader, people.editor)
    add_post(people.member, topics.open)
    send()
    assert "Monday 2 March, 18:00" in plain(office.to("reader")[0])
    assert "Monday 2 March, 09:00" in plain(office.to("editor")[0])


def test_each_kind_comes_as_its_person_chose(people, topics, office, sign_in, clock):
    browser = sign_in(people.member, remember=True)
    post = add_post(people.member, topics.open)
    chosen = dict.fromkeys(corkboard.KINDS, "site") | {"comment": "mail", "reaction": "none", "digest": "daily"}
    assert browser.submit("/account/notifications", chosen).status_code == 303
    shown = browser.get("/account/notifications").text
    assert re.search(r'id="comment".*?<option selected value="mail">', shown, re.DOTALL)
    add_comment(people.editor, post, "At once @member")
    add_comment(people.stranger, post, "This too")
    Reaction.change(people.editor, "like", True, post_id=post.id)
    assert send() == 1
    assert "This too" in plain(office.to("member")[0])
    summarise(clock)
    assert len(office.to("member")) == 1


# -- Nothing that one may not see, or has read -------------------------------------------------------------------------


def leaves(people, topics, _post, _comment):
    Topic.remove_member(people.editor, topics.private.id, people.reader.id)


def is_deactivated(people, _topics, _post, _comment):
    User.deactivate(people.admin, people.reader.id)


def has_no_address(people, _topics, _post, _comment):
    User.edit_person(people.admin, people.reader.id, name="Reader", email="")


def post_goes(people, _topics, post, _comment):
    Post.delete(people.editor, post.id)


def comment_goes(people, _topics, _post, comment):
    Comment.delete(people.editor, comment.id)


def topic_goes(people, topics, _post, _comment):
    Topic.delete(people.editor, topics.private.id)


def reads_it(people, _topics, post, _comment):
    corkboard.ReadMark.write(people.reader.id, post.id, corkboard.utcnow())


def wants_it_no_more(people, _topics, _post, _comment):
    Notification.choose(people.reader, mention="site")


@pytest.mark.parametrize(
    "happens",
    [leaves, is_deactivated, has_no_address, post_goes, comment_goes, topic_goes, reads_it, wants_it_no_more],
)
def test_what_one_may_not_see_any_more_or_has_read_is_not_sent(people, topics, office, clock, happens):
    post = add_post(people.editor, topics.private, "A hushed matter")
    comment = add_comment(people.editor, post, "Look, @reader")
    assert len(outbox()) == 1
    clock.now += timedelta(seconds=1)
    happens(people, topics, post, comment)
    assert send() == 0
    assert outbox() == [], "and nothing waits for the day on which they may see it again"
    assert summarise(clock) == 0
    assert office.messages == []


def test_a_summary_tells_nothing_of_a_topic_that_one_has_left(people, topics, office, clock):
    Notification.choose(people.reader, post="digest")
    follow(topics.private, people.reader)
    follow(topics.open, people.reader)
    add_post(people.editor, topics.private, "A hushed matter")
    add_post(people.editor, topics.open, "Loud and clear")
    send()
    leaves(people, topics, None, None)
    assert summarise(clock) == 1
    assert "Loud and clear" in page(office.to("reader")[0])
    assert "hushed" not in office.to("reader")[0].as_string()


def test_titles_and_names_cannot_write_headers(people, topics, office):
    follow(topics.open, people.reader)
    post = add_post(people.member, topics.open, "Harmless")
    set_columns(Post, post.id, title="Hello\r\nBcc: all@example.org\r\n\r\nBody")
    set_columns(User, people.reader.id, name='A "quoted" <name>, and more')
    assert send() == 1
    (message,) = office.to("reader")
    assert message["Bcc"] is None
    assert message["Subject"].startswith("[Everyone] Hello")
    assert [address.addr_spec for address in message["To"].addresses] == ["reader@example.com"]
    assert message["To"].addresses[0].display_name == 'A "quoted" <name>, and more'


def test_any_script_and_any_length_arrives_as_it_was_typed(people, topics, office):
    follow(topics.open, people.reader)
    title, body = "Żółć 🎉 " + "long " * 30 + "end", "Grüße 你好\n\n" + "x" * 3000 + "\n\n.\n\nA dot by itself"
    add_post(people.member, topics.open, title, body=body)
    send()
    (message,) = office.to("reader")
    assert message["Subject"] == f"[Everyone] {title}"
    assert body in plain(message).replace("\r\n", "\n")
    assert "\n" not in message["List-Unsubscribe"]
    assert message["List-Unsubscribe"].startswith("<https://board.example.com/")


# -- The summary -------------------------------------------------------------------------------------------------------


def test_the_summary_comes_in_the_morning_and_tells_each_thing_once(people, topics, office, clock):
    Notification.choose(people.member, post="digest", must_read="digest")
    follow(topics.open, people.member)
    post = add_post(people.member, topics.open, "The oven")
    add_comment(people.editor, post, "Hot")
    add_comment(people.stranger, post, "Cold")
    add_post(people.editor, topics.open, "Flour")
    add_post(people.editor, topics.open, "Ovens and how to clean them", kind="page")
    must = add_post(people.editor, topics.open, "The rota")
    Acknowledgement.require(people.editor, must.id, roles=[Role.MEMBER])
    assert send() == 1, "the stranger is asked to read at once"
    assert summarise(clock) == 2, "the editor hears of the other comment"
    (message,) = office.to("member")
    assert message["Subject"] == "Corkboard: 1 to confirm, 2 new posts, 1 conversation, 1 handbook page"
    for text in (plain(message), page(message)):
        assert re.search(r"(?s)The rota.*Flour.*Ovens and how to clean them", text)
        assert "Stranger and Editor commented on" in text or "Editor and Stranger commented on" in text
    assert message["References"] is None
    for _ in range(3):
        assert summarise(clock) == 0
    add_comment(people.editor, post, "Still hot")
    assert summarise(clock) == 2, "the stranger, who commented too, is the other one"
    assert office.subjects("member")[-1] == "Corkboard: 1 conversation"


def test_the_summary_never_tells_what_was_read_or_mailed(people, topics, office, clock, sign_in):
    follow(topics.open, people.reader)
    read, other = add_post(people.member, topics.open, "Read"), add_post(people.member, topics.open, "Other")
    Follow.choose(people.reader, "following", post_id=read.id)
    Follow.choose(people.reader, "following", post_id=other.id)
    add_comment(people.editor, read, "Seen")
    add_comment(people.editor, other, "Unseen")
    assert send() == 2
    clock.now += HOUR
    sign_in(people.reader).get(f"/posts/{read.id}")
    clock.now = clock.now.replace(hour=6)
    Notification.choose(people.reader, post="digest", comment="digest")
    assert summarise(clock) == 2, "for the member too there is something"
    text = plain(office.to("reader")[-1])
    assert "commented on Other" in text
    assert "Read" not in text.replace("Reader", "")
    assert "NEW POSTS" not in text, "the announcements were mailed"


def test_what_waits_to_be_sent_by_itself_is_in_no_summary(people, topics, office, clock):
    follow(topics.open, people.reader)
    send()
    post = add_post(people.member, topics.open, "By itself")
    Follow.choose(people.reader, "following", post_id=post.id)
    office.fails_every = 1
    send()
    office.fails_every = 0
    add_comment(people.stranger, post, "In the summary")
    clock.now = datetime(2026, 3, 3, 7, 0)
    send()
    clock.now += HOUR
    send()
    assert Counter(office.subjects("reader")) == {"[Everyone] By itself": 1, "Corkboard: 1 conversation": 1}


def test_the_summary_comes_by_the_clock_of_its_reader_daily_weekly_or_never(people, topics, office, clock):
    for person, zone, rhythm in (
        (people.reader, "America/New_York", "daily"), (people.member, "Asia/Tokyo", "daily"),
        (people.editor, "UTC", "weekly"), (people.admin, "UTC", "none"),
    ):  # fmt: skip
        User.edit_appearance(person, "dark", zone, True)
        Notification.choose(person, post="digest", digest=rhythm)
        follow(topics.open, person)
    send()
    add_post(people.stranger, topics.open)
    got: dict[str, datetime] = {}
    for _ in range(24 * 8):
        clock.now += HOUR
        send()
        for message in office.messages:
            got.setdefault(message["To"].addresses[0].username, clock.now)
    assert got == {
        "member": datetime(2026, 3, 2, 22, 0),
        "reader": datetime(2026, 3, 2, 12, 0),
        "editor": datetime(2026, 3, 9, 7, 0),
    }
    assert len(office.messages) == 3


@pytest.mark.parametrize(("moment", "zone", "rhythm", "due"), [
    ("2026-03-28 06:00", "Europe/Berlin", "daily", "2026-03-29 05:00"),  # the clocks go forward
    ("2026-10-24 06:00", "Europe/Berlin", "daily", "2026-10-25 06:00"),
    ("2026-03-02 07:00", "UTC", "daily", "2026-03-03 07:00"),
    ("2026-03-02 06:59", "UTC", "weekly", "2026-03-02 07:00"),
    ("2026-03-02 07:00", "UTC", "weekly", "2026-03-09 07:00"),
    ("2026-03-01 23:00", "Asia/Tokyo", "weekly", "2026-03-08 22:00"),
])  # fmt: skip
def test_the_next_summary_is_due_at_seven(moment, zone, rhythm, due):
    when = datetime.fromisoformat(moment)
    assert corkboard.next_summary(when, corkboard.ZoneInfo(zone), rhythm) == datetime.fromisoformat(due)


def test_nothing_old_comes_in_a_summary(people, topics, office, clock):
    send()
    post = add_post(people.member, topics.open)
    add_comment(people.editor, post)
    clock.now += 15 * DAY
    assert summarise(clock) == 0


# -- The server fails, dies and comes back -----------------------------------------------------------------------------


def test_two_workers_send_each_message_once_though_the_server_fails_and_dies(app, people, topics, office, clock):
    follow(topics.open, people.reader, people.editor, people.admin, people.stranger)
    for number in range(6):
        add_post(people.member, topics.open, f"News {number}")
    post = add_post(people.member, topics.open, "Talk", body="Hello @editor")
    Notification.choose(people.member, comment="mail")
    for number in range(5):
        add_comment(people.editor, post, f"Remark {number}")
    office.fails_every = 3
    for round_number in range(14):
        if round_number == 1:
            office.stop()
        if round_number == 4:
            office.start()
        outcomes = together(app, corkboard.send_mail, corkboard.send_mail)
        assert not [outcome for outcome in outcomes if not isinstance(outcome, int)]
        clock.now += timedelta(hours=1)
    sent = Counter(message["Message-ID"] for message in office.messages)
    assert set(sent.values()) == {1}
    assert len(sent) == len(outbox()) == 7 * 4 + 5
    assert set(states()) == {"sent"}


def test_a_server_that_is_down_makes_no_email_lost(people, topics, office, clock, caplog):
    follow(topics.open, people.reader, people.editor)
    office.stop()
    add_post(people.member, topics.open)
    for _ in range(40):
        assert send() == 0
        clock.now += HOUR
    assert [(mail.state, mail.attempts) for mail in outbox()] == [("waiting", 0)] * 2
    assert f"127.0.0.1 takes no connections on port {office.port}." in outbox()[0].answer
    assert "takes no connections" in caplog.text
    office.start()
    assert send() == 2
    assert len(office.messages) == 2


def test_what_the_server_refuses_for_now_is_tried_later_each_time_and_fails_in_the_end(people, topics, office, clock):
    follow(topics.open, people.reader)
    add_post(people.member, topics.open)
    office.fails_every = 1
    pauses = []
    for _ in range(corkboard.MAIL_TRIES):
        send()
        (mail,) = outbox()
        pauses.append((mail.due_at - clock.now) // timedelta(minutes=1))
        clock.now = mail.due_at
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 0]
    assert (mail.state, mail.attempts) == ("failed", corkboard.MAIL_TRIES)
    assert mail.answer.endswith("It said: 451 4.3.0 Too much to do just now")
    assert send() == 0


def test_what_the_server_refuses_for_good_has_failed_and_holds_nothing_up(people, topics, office):
    follow(topics.open, people.reader, people.editor)
    office.unknown.add("reader@example.com")
    set_columns(User, people.stranger.id, email="(not@an.address")
    add_post(people.member, topics.open, body="Hello @stranger")
    assert send() == 1
    assert Counter(states()) == {"failed": 2, "sent": 1}
    answers = {mail.user_id: mail.answer for mail in outbox()}
    assert "550 5.1.1 No such mailbox here" in answers[people.reader.id]
    assert answers[people.stranger.id] == "This isn't an address that email can be sent to."


def test_an_email_whose_sender_was_killed_is_sent_by_another_one_later(people, topics, office, clock):
    follow(topics.open, people.reader)
    add_post(people.member, topics.open)
    taken = OutgoingMail.claim()
    assert taken is not None
    lease = taken.due_at
    assert OutgoingMail.claim() is None
    assert send() == 0
    clock.now += timedelta(minutes=11)
    assert send() == 1
    OutgoingMail.settle(taken.id, lease, 0, "failed", "Late.")
    assert states() == ["sent"], "who lost the lease has no say any more"


def test_old_records_are_deleted_and_what_waits_is_not(people, topics, office, clock):
    follow(topics.open, people.reader)
    add_post(people.member, topics.open)
    send()
    office.stop()
    add_post(people.member, topics.open)
    send()
    clock.now += 31 * DAY
    assert corkboard.delete_old_mail() == 1
    assert states() == ["waiting"]


def test_what_waited_in_a_backup_is_not_sent_a_second_time_after_a_restore(people, topics, office, clock):
    follow(topics.open, people.reader)
    add_post(people.member, topics.open)
    corkboard.Backup.settle("corkboard.zip")
    clock.now += DAY
    assert send() == 0
    (mail,) = outbox()
    assert mail.state == "failed"
    assert "may have been sent since" in mail.answer
    OutgoingMail.send_again(people.admin, mail.id)
    assert send() == 1


# -- Kinds of servers --------------------------------------------------------------------------------------------------


@pytest.fixture
def setting(app, monkeypatch):
    """Change settings of email: `setting(MAIL_PORT=25)`."""

    def change(**values) -> None:
        for name, given in values.items():
            monkeypatch.setitem(app.config, name, given)

    return change


def trouble(people) -> str:
    with pytest.raises(corkboard.ValidationError) as refused:
        corkboard.send_test(people.admin)
    db.session.rollback()
    return refused.value.message


def test_a_server_that_asks_for_a_password_gets_it(people, office, setting):
    setting(MAIL_USERNAME="board", MAIL_PASSWORD="secret")
    with PostOffice(**only_with("board", "secret")) as strict:
        setting(MAIL_PORT=strict.port)
        corkboard.send_test(people.admin)
        assert len(strict.messages) == 1
        setting(MAIL_PASSWORD="wrong")
        assert trouble(people).startswith("127.0.0.1 refused MAIL_USERNAME and MAIL_PASSWORD. It said: 535")
        setting(MAIL_USERNAME="", MAIL_PASSWORD="")
        assert trouble(people).startswith("127.0.0.1 refused MAIL_FROM, Our board <board@example.com>. It said: 530")


def test_an_encrypted_connection_needs_a_certificate_that_is_trusted(people, office, setting, tmp_path, monkeypatch):
    context, authority = self_signed(tmp_path)
    setting(MAIL_USE_TLS=True)
    assert "doesn't offer encryption" in trouble(people)
    with PostOffice(tls_context=context, require_starttls=True) as encrypted:
        setting(MAIL_PORT=encrypted.port)
        assert trouble(people) == "The certificate of 127.0.0.1 isn't trusted. See MAIL_CA_FILE."
        setting(MAIL_CA_FILE=authority)
        corkboard.send_test(people.admin)
        assert len(encrypted.messages) == 1
        setting(MAIL_USE_TLS=False)
        assert "530" in trouble(people)
    with PostOffice(ssl_context=context) as encrypted:
        setting(MAIL_PORT=encrypted.port, MAIL_USE_TLS=True)
        monkeypatch.setattr(corkboard, "TLS_PORT", encrypted.port)
        corkboard.send_test(people.admin)
        assert len(encrypted.messages) == 1


def test_what_is_wrong_with_a_server_is_said_in_plain_words(people, office, setting, monkeypatch):
    port = free_port()
    setting(MAIL_PORT=port)
    assert trouble(people) == f"127.0.0.1 takes no connections on port {port}. Is MAIL_PORT right?"
    setting(MAIL_PORT=office.port, MAIL_SERVER="smtp.nowhere.invalid")
    assert trouble(people) == "There is no server called smtp.nowhere.invalid. Check MAIL_SERVER."
    setting(MAIL_SERVER="127.0.0.1", MAIL_USE_TLS=True)
    monkeypatch.setattr(corkboard, "TLS_PORT", office.port)
    assert "doesn't encrypt like this" in trouble(people)


# -- Stopping it -------------------------------------------------------------------------------------------------------


def test_one_click_stops_one_kind_without_signing_in(app, people, topics, office, clock):
    follow(topics.open, people.reader)
    add_post(people.member, topics.open, body="First")
    send()
    (message,) = office.to("reader")
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link, browser = stop_link(message), app.test_client()
    assert f"https://board.example.com{link}" in plain(message)
    asked = browser.get(link)
    assert asked.status_code == 200
    assert "Something new in a topic you follow" in html.unescape(asked.text)
    assert Notification.choices(people.reader)["post"] == "mail", "looking changes nothing"
    for _ in range(2):  # as mail programs do, without a cookie or a token
        assert browser.post(link, data={"List-Unsubscribe": "One-Click"}).status_code == 200
    add_post(people.member, topics.open, body="Second, with @reader")
    add_post(people.member, topics.open, body="Third")
    assert send() == 1
    assert office.subjects("reader") == ["[Everyone] The crane is back"] * 2
    assert "Second" in plain(office.to("reader")[1])
    told = value(sa.select(sa.func.count()).select_from(Notification).where(Notification.user_id == people.reader.id))
    assert told == 3, "on the site they are told as before"
    recorded = sa.select(Activity.action).where(Activity.actor_id == people.reader.id).order_by(Activity.id.desc())
    assert value(recorded) == "person.unsubscribed"


def test_a_summary_is_stopped_by_its_own_link(app, people, topics, office, clock):
    post = add_post(people.member, topics.open)
    add_comment(people.editor, post)
    assert summarise(clock) == 1
    link = stop_link(office.to("member")[0])
    assert app.test_client().post(link).status_code == 200
    add_comment(people.editor, post)
    assert summarise(clock) == 0
    assert Notification.choices(people.member)["digest"] == "none"


@pytest.mark.parametrize("how", ["cut", "made up", "another key"])
def test_a_link_that_is_not_ours_stops_nothing(app, people, topics, office, how):
    signer = corkboard.URLSafeSerializer("another key", salt="unsubscribe")
    made = {"cut": corkboard.unsubscribe_signer(), "made up": None, "another key": signer}[how]
    token = made.dumps([people.reader.id, "post"])[: -1 if how == "cut" else None] if made else "e30.x"
    for ask in (app.test_client().get, app.test_client().post):
        assert ask(f"/account/unsubscribe/{token}").status_code == 404
    assert value(sa.select(sa.func.count()).select_from(NotificationChoice)) == 0


def test_a_link_holds_after_the_key_has_changed(app, people, topics, office, setting):
    token = corkboard.unsubscribe_signer().dumps([people.reader.id, "post"])
    setting(SECRET_KEY_FALLBACKS=[app.config["SECRET_KEY"]], SECRET_KEY="n" * 32)
    assert app.test_client().get(f"/account/unsubscribe/{token}").status_code == 200


# -- Administration ----------------------------------------------------------------------------------------------------


def test_administration_shows_what_waits_and_what_failed_and_sends_it_again(people, topics, office, sign_in):
    browser = sign_in(people.admin)
    assert "Nothing waits, and nothing failed." in browser.get("/admin/mail").text
    follow(topics.private, people.reader)
    office.unknown.add("reader@example.com")
    add_post(people.member, topics.private, "A hushed matter")
    assert "Waiting" in browser.get("/admin/mail").text
    send()
    shown = html.unescape(browser.get("/admin/mail").text)
    assert "Reader: Something new in a topic you follow" in shown
    assert "550 5.1.1 No such mailbox here" in shown
    assert "hushed" not in shown, "not everybody who runs the site may read everything"
    office.unknown.clear()
    (mail,) = outbox()
    for status in (303, 404):
        assert browser.submit(f"/admin/mail/{mail.id}/send").status_code == status
    assert send() == 1
    assert browser.submit(f"/admin/mail/{mail.id}/send").status_code == 404
    assert "Reader: Something new" in browser.get("/admin/mail?sent=1").text
    assert value(sa.select(Activity.detail).where(Activity.action == "mail.again")) == corkboard.KINDS["post"]


def test_the_overview_says_when_email_fails_or_waits_for_long(people, topics, office, sign_in, clock):
    browser = sign_in(people.admin, remember=True)
    assert "sent without delay" in browser.get("/admin").text
    follow(topics.open, people.reader)
    add_post(people.member, topics.open)
    office.stop()
    send()
    clock.now += timedelta(minutes=61)
    assert "1 email not sent" in browser.get("/admin").text
    office.start()
    office.unknown.add("reader@example.com")
    send()
    shown = browser.get("/admin").text
    assert "1 email not sent" in shown
    assert '<a class="btn btn-quiet" href="/admin/mail">' in shown
    clock.now += DAY
    assert "sent without delay" in browser.get("/admin").text
    numbers = app_metrics(browser)
    assert numbers == {"waiting": "0.0", "failed": "1.0"}


def app_metrics(browser) -> dict[str, str]:
    return dict(re.findall(r'corkboard_emails\{state="(\w+)"\} (\S+)', browser.get("/metrics").text))


def test_the_test_button_says_in_plain_words_how_it_went(people, office, sign_in):
    browser = sign_in(people.admin)
    answer = browser.submit("/admin/mail/test", follow_redirects=True)
    assert "The mail server took a test for admin@example.com." in answer.text
    assert office.subjects("admin") == ["A test from Corkboard"]
    assert office.to("admin")[0]["List-Unsubscribe"] is None
    office.unknown.add("admin@example.com")
    answer = browser.submit("/admin/mail/test")
    assert answer.status_code == 422
    assert "550 5.1.1 No such mailbox here" in answer.text
    recorded = sa.select(Activity.detail).where(Activity.action == "mail.tested").order_by(Activity.id)
    said = db.session.scalars(recorded).all()
    assert said[0] == "sent"
    assert "550" in said[1]
    User.edit_profile(people.admin, name="Admin", email="")
    assert "enter an email address" in browser.submit("/admin/mail/test").text


def test_the_name_of_the_site_is_the_senders_where_the_settings_give_none(app, people, office, sign_in, setting):
    set_settings(app, name="Thimble & Rye")
    setting(MAIL_FROM="board@example.com")
    corkboard.send_test(people.admin)
    assert office.messages[0]["From"] == "Thimble & Rye <board@example.com>"
    assert office.messages[0]["Subject"] == "A test from Thimble & Rye"


# -- Without a mail server ---------------------------------------------------------------------------------------------


def test_without_a_mail_server_nothing_breaks_nothing_is_offered_and_pages_say_what_to_do(app, people, topics, sign_in):
    follow(topics.open, people.reader)
    browser = sign_in(people.admin)
    post = add_post(people.member, topics.open, body="Hello @admin")
    add_comment(people.editor, post)
    assert outbox() == []
    assert corkboard.send_mail() == 0
    assert app.test_cli_runner().invoke(args=["jobs", "run", "mail"]).output.strip() == "Nothing to do."
    shown = browser.get("/account/notifications").text
    assert "Email isn't set up" in shown
    assert "by email" not in shown
    assert "summary" not in shown
    shown = browser.get("/admin/mail").text
    assert "MAIL_SERVER=" in shown
    assert "Send me a test" not in shown
    assert browser.submit("/admin/mail/test").status_code == 422


def test_who_saved_their_choices_before_there_was_email_is_not_left_out(app, people, clock, monkeypatch, sign_in):
    browser = sign_in(people.reader, remember=True)
    saved = dict.fromkeys(corkboard.KINDS, "site") | {"mention": "none"}
    assert browser.submit("/account/notifications", saved).status_code == 303
    with PostOffice() as office:
        for name, text in office.settings().items():
            monkeypatch.setitem(app.config, name, text)
        ways = Notification.choices(people.reader)
        assert (ways["post"], ways["comment"], ways["mention"], ways["digest"]) == ("mail", "digest", "none", "daily")
        shown = browser.get("/account/notifications").text
        assert "On the site and by email at once" in shown
        assert "Every Monday at 07:00" in shown


def test_who_has_no_address_is_told_where_to_enter_one(people, topics, office, sign_in):
    User.edit_profile(people.reader, name="Reader", email="")
    assert "enter your email address" in sign_in(people.reader).get("/account/notifications").text
    add_post(people.member, topics.open, body="Hello @reader")
    assert outbox() == []
