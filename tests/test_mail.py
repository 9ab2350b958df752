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
from world import set_columns, value

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


def summarise(way: str = "daily") -> int:
    """Send the summaries that are due, and whatever else is."""
    OutgoingMail.queue(way)
    return send()


def outbox() -> list:
    with db.engine.connect() as connection:
        return list(connection.execute(sa.select(OutgoingMail.__table__).order_by(OutgoingMail.id)))


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
    body = "Hall B opens **again**:\n\n[The plan](/posts/1)\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    post = add_post(people.member, topics.open, "The crane is back", body=body)
    assert send() == 1
    (message,) = office.to("reader")
    assert message["Subject"] == "[Everyone] The crane is back"
    assert (message["From"], message["To"]) == ("Our board <board@example.com>", "Reader <reader@example.com>")
    assert body.replace("(/", "(https://board.example.com/") in plain(message).replace("\r\n", "\n")
    shown = page(message)
    for part in (
        "<strong>again</strong>",
        'href="https://board.example.com/posts/1"',
        "<td>1</td>",
    ):
        assert part in shown
    assert f'href="https://board.example.com/posts/{post.id}"' in shown
    assert "You're getting this because of your setting “Something new in a topic you follow”." in shown
    assert send() == 0


def test_nothing_in_an_email_is_fetched_and_links_lead_where_the_settings_say(app, people, topics, office, sign_in):
    follow(topics.open, people.reader)
    body = "![A crane](/files/1/crane.png) by @member, see [it](/posts/1) and https://example.org/x"
    sent = {"topic": topics.open.id, "title": "With a picture", "body": body}
    browser, name = sign_in(people.member), app.config["SESSION_COOKIE_NAME"]
    browser.set_cookie(name, browser.get_cookie(name).value, domain="127.0.0.9")
    assert browser.submit("/posts/new", sent, base_url="http://127.0.0.9:81").status_code == 303
    assert send() == 1
    shown = page(office.to("reader")[0])
    assert "<img" not in shown
    assert "src=" not in shown
    assert "A crane" in shown
    assert "127.0.0.9" not in office.to("reader")[0].as_string()
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


def test_each_kind_comes_as_its_person_chose(people, topics, office, sign_in):
    browser = sign_in(people.member)
    post = add_post(people.member, topics.open)
    chosen = dict.fromkeys(corkboard.KINDS, "site") | {"comment": "mail", "mention": "weekly", "reaction": "none"}
    assert browser.submit("/account/notifications", chosen).status_code == 303
    shown = browser.get("/account/notifications").text
    assert re.search(r'id="comment".*?<option selected value="mail">', shown, re.DOTALL)
    add_comment(people.editor, post, "On Monday, @member")
    add_comment(people.stranger, post, "At once")
    Reaction.change(people.editor, "like", True, post_id=post.id)
    assert send() == 1
    assert "At once" in plain(office.to("member")[0])
    assert [summarise("daily"), summarise("weekly"), summarise("weekly")] == [1, 1, 0], "the editor follows it too"
    assert "Editor mentioned you in" in plain(office.to("member")[1])
    assert "reacted" not in plain(office.to("member")[1])


def test_saving_the_settings_changes_only_what_was_changed(people, topics, office, sign_in):
    browser = sign_in(people.member)
    add_comment(people.editor, add_post(people.member, topics.open), "In the summary")
    chosen = Notification.choices(people.member) | {"mention": "none"}
    assert browser.submit("/account/notifications", chosen).status_code == 303
    assert summarise() == 1


# -- Nothing that one may not see, or has read -------------------------------------------------------------------------


def leaves(people, topics, _post, _comment):
    Topic.remove_member(people.editor, topics.private.id, people.reader.id)


def is_deactivated(people, _topics, _post, _comment):
    User.deactivate(people.admin, people.reader.id)


def has_no_address(people, _topics, _post, _comment):
    User.edit_person(people.admin, people.reader.id, name="Reader", email="", username=people.reader.username)


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
    assert summarise() == 0
    assert office.messages == []


def test_a_summary_tells_nothing_of_a_topic_that_one_has_left(people, topics, office):
    Notification.choose(people.reader, post="daily")
    follow(topics.private, people.reader)
    follow(topics.open, people.reader)
    add_post(people.editor, topics.private, "A hushed matter")
    add_post(people.editor, topics.open, "Loud and clear")
    send()
    leaves(people, topics, None, None)
    assert summarise() == 1
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


def test_what_the_email_package_would_decode_cannot_write_headers(people, topics, office):
    follow(topics.open, people.reader)
    post = add_post(people.member, topics.open)
    set_columns(Post, post.id, title="=?utf-8?q?=0AReply-To:_evil=40example.org=0ABcc:_e?=")
    set_columns(User, people.reader.id, name="=?utf-8?q?=0D=0ABcc:_e?= Ü")
    assert send() == 1
    (message,) = office.to("reader")
    assert (message["Reply-To"], message["Bcc"]) == (None, None)
    assert "=0AReply-To:_evil=40example.org" in message["Subject"]


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


def test_the_summary_tells_each_thing_once(people, topics, office):
    Notification.choose(people.member, post="daily", must_read="daily")
    follow(topics.open, people.member)
    post = add_post(people.member, topics.open, "The oven")
    add_comment(people.editor, post, "Hot")
    add_comment(people.stranger, post, "Cold")
    add_post(people.editor, topics.open, "Flour")
    must = add_post(people.editor, topics.open, "The rota")
    Acknowledgement.require(people.editor, must.id, roles=[Role.MEMBER])
    assert send() == 1, "the stranger is asked to read at once"
    assert summarise() == 2, "the editor hears of the other comment"
    (message,) = office.to("member")
    assert message["Subject"] == "What's new on Corkboard"
    for text in (plain(message), page(message)):
        assert re.search(r"(?s)The oven.*Editor, Stranger\s+commented on.*Flour.*The rota.*asked you to read", text)
    assert message["References"] is None
    for _ in range(3):
        assert summarise() == 0
    add_comment(people.editor, post, "Still hot")
    assert summarise() == 2, "the stranger, who commented too, is the other one"
    assert "Flour" not in plain(office.to("member")[-1])


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
    assert summarise() == 2, "for the member too there is something"
    text = plain(office.to("reader")[-1])
    assert "commented on" in text
    assert "* Read" not in text
    assert "posted" not in text, "the announcements were mailed"


def test_what_waits_to_be_sent_by_itself_is_in_no_summary(people, topics, office, clock):
    follow(topics.open, people.reader)
    post = add_post(people.member, topics.open, "By itself")
    Follow.choose(people.reader, "following", post_id=post.id)
    office.fails_every = 1
    send()
    office.fails_every = 0
    add_comment(people.stranger, post, "In the summary")
    summarise()
    clock.now += HOUR
    send()
    assert Counter(office.subjects("reader")) == {"[Everyone] By itself": 1, "What's new on Corkboard": 1}
    assert "posted" not in plain(office.to("reader")[0])


def test_two_summaries_that_wait_tell_different_things(people, topics, office, clock):
    post = add_post(people.member, topics.open)
    office.stop()
    for words in ("On the first day", "On the second day"):
        add_comment(people.editor, post, words)
        summarise()
        clock.now += DAY
    office.start()
    assert send() == 2
    assert send() == 0


def test_the_summaries_are_jobs(app, people, topics, office):
    post = add_post(people.member, topics.open)
    add_comment(people.editor, post)
    jobs = app.test_cli_runner()
    assert jobs.invoke(args=["jobs", "run", "weekly-mail"]).output.strip() == "Nothing to do."
    assert jobs.invoke(args=["jobs", "run", "daily-mail"]).output.strip() == "1 email prepared."
    assert jobs.invoke(args=["jobs", "run", "mail"]).output.strip() == "1 email sent."
    assert office.subjects("member") == ["What's new on Corkboard"]


def test_nothing_old_comes_in_a_summary(people, topics, office, clock):
    post = add_post(people.member, topics.open)
    add_comment(people.editor, post)
    clock.now += 15 * DAY
    assert summarise() == 0


# -- The server fails, dies and comes back -----------------------------------------------------------------------------


def test_two_workers_send_each_message_once_though_the_server_fails_and_dies(app, people, topics, office, clock):
    follow(topics.open, people.reader, people.editor, people.admin, people.stranger)
    for number in range(6):
        add_post(people.member, topics.open, f"News {number}")
    post = add_post(people.member, topics.open, "Talk", body="Hello @editor")
    Notification.choose(people.member, comment="mail")
    for number in range(5):
        add_comment(people.editor, post, f"Remark {number}")
    assert len(outbox()) == 7 * 4 + 5
    office.fails_every = 3
    for round_number in range(60):
        if round_number == 1:
            office.stop()
        if round_number == 4:
            office.start()
        outcomes = together(app, corkboard.send_mail, corkboard.send_mail)
        assert not [outcome for outcome in outcomes if not isinstance(outcome, int)]
        clock.now += timedelta(minutes=30)
    sent = Counter(message["Message-ID"] for message in office.messages)
    assert set(sent.values()) == {1}
    assert len(sent) == 7 * 4 + 5
    assert outbox() == []


def test_a_server_that_is_down_makes_no_email_lost(people, topics, office, clock, caplog):
    follow(topics.open, people.reader, people.editor)
    office.stop()
    add_post(people.member, topics.open)
    for _ in range(40):
        assert send() == 0
        clock.now += HOUR
    assert all(mail.due_at for mail in outbox())
    assert f"127.0.0.1 doesn't answer on port {office.port}." in outbox()[0].answer
    assert "doesn't answer" in caplog.text
    office.start()
    clock.now += DAY
    assert send() == 2
    assert len(office.messages) == 2


def test_what_the_server_refuses_is_tried_ever_more_rarely_and_fails_in_the_end(people, topics, office, clock):
    follow(topics.open, people.reader)
    add_post(people.member, topics.open)
    office.fails_every = 1
    pauses = []
    while (mail := outbox()[0]).due_at:
        clock.now = mail.due_at
        send()
        pauses.append(outbox()[0].due_at and outbox()[0].due_at - clock.now)
    assert 10 < len(pauses) < 30
    assert pauses[0] == timedelta(minutes=1)
    assert pauses[:-1] == sorted(pauses[:-1])
    assert "(451 4.3.0 Too much to do just now)" in mail.answer
    assert send() == 0


def test_what_the_server_refuses_holds_nothing_up(people, topics, office):
    follow(topics.open, people.reader, people.editor)
    office.unknown.add("reader@example.com")
    set_columns(User, people.stranger.id, email="(not@an.address")
    add_post(people.member, topics.open, body="Hello @stranger")
    assert send() + send() + send() == 1
    answers = {mail.user_id: mail.answer for mail in outbox()}
    assert "550 5.1.1 No such mailbox here" in answers[people.reader.id]
    assert answers[people.stranger.id].startswith("This isn't an address that email can be sent to.")
    assert len(answers) == 2


def test_an_email_whose_sender_was_killed_is_sent_by_another_one_later(people, topics, office, clock):
    follow(topics.open, people.reader)
    add_post(people.member, topics.open)
    assert OutgoingMail.claim() is not None
    assert OutgoingMail.claim() is None
    assert send() == 0
    clock.now += timedelta(minutes=11)
    assert send() == 1


def test_old_emails_are_deleted(people, topics, office, clock):
    follow(topics.open, people.reader)
    add_post(people.member, topics.open)
    office.stop()
    send()
    clock.now += 15 * DAY
    add_post(people.member, topics.open)
    assert corkboard.delete_old_notifications() == 1
    assert len(outbox()) == 1


def test_what_waited_in_a_backup_is_not_sent_a_second_time_after_a_restore(people, topics, office, clock):
    follow(topics.open, people.reader)
    add_post(people.member, topics.open)
    corkboard.Backup.settle("corkboard.zip")
    clock.now += DAY
    assert send() == 0
    assert outbox() == []


def test_a_summary_that_was_due_in_a_backup_is_not_sent_a_second_time_after_a_restore(people, topics, office):
    add_comment(people.editor, add_post(people.member, topics.open))
    corkboard.Backup.settle("corkboard.zip")
    assert summarise() == 0


def test_a_run_sends_so_many_emails_that_other_jobs_need_not_wait_for_long(people, topics, office, monkeypatch):
    monkeypatch.setattr(corkboard, "MAILS_AT_ONCE", 2)
    follow(topics.open, people.reader, people.editor, people.admin)
    add_post(people.member, topics.open)
    assert [send(), send(), send()] == [2, 1, 0]


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
        assert trouble(people).startswith("127.0.0.1 refused MAIL_USERNAME and MAIL_PASSWORD. (535")
        setting(MAIL_USERNAME="", MAIL_PASSWORD="")
        assert trouble(people).startswith("127.0.0.1 didn't accept an email from Our board <board@example.com>. (530")


def test_an_encrypted_connection_needs_a_certificate_that_is_trusted(people, office, setting, tmp_path, monkeypatch):
    context, authority = self_signed(tmp_path)
    setting(MAIL_USE_TLS=True)
    assert "STARTTLS" in trouble(people)
    with PostOffice(tls_context=context, require_starttls=True) as encrypted:
        setting(MAIL_PORT=encrypted.port)
        assert "The encryption of 127.0.0.1 isn't trusted." in trouble(people)
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
    assert trouble(people).startswith(f"127.0.0.1 doesn't answer on port {port}. Check MAIL_SERVER and MAIL_PORT.")
    setting(MAIL_PORT=office.port, MAIL_SERVER="smtp.nowhere.invalid")
    assert trouble(people).startswith("smtp.nowhere.invalid doesn't answer")
    setting(MAIL_SERVER="127.0.0.1", MAIL_USE_TLS=True)
    monkeypatch.setattr(corkboard, "TLS_PORT", office.port)
    assert "Check MAIL_PORT and MAIL_CA_FILE." in trouble(people)


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
    assert value(recorded) == "person.notifications"


def test_a_summary_is_stopped_by_its_own_link_and_starts_nothing(app, people, topics, office):
    Notification.choose(people.member, review="none", mention="weekly")
    post = add_post(people.member, topics.open)
    add_comment(people.editor, post)
    assert summarise() == 1
    link = stop_link(office.to("member")[0])
    assert app.test_client().post(link).status_code == 200
    add_comment(people.editor, post)
    assert summarise() == 0
    ways = Notification.choices(people.member)
    assert (ways["comment"], ways["review"], ways["mention"]) == ("site", "none", "weekly")


def test_reminders_are_stopped_by_their_own_link_or_with_must_reads(app, people, topics, office):
    token = corkboard.unsubscribe_signer().dumps([people.reader.id, "reminder"])
    app.test_client().post(f"/account/unsubscribe/{token}")
    ways = Notification.choices(people.reader)
    assert (ways["reminder"], ways["must_read"]) == ("site", "mail")
    Notification.choose(people.reader, must_read="daily")
    assert Notification.choices(people.reader)["reminder"] == "daily"


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


def test_administration_shows_what_waits_and_what_failed_and_sends_it_again(people, topics, office, sign_in, clock):
    browser = sign_in(people.admin, remember=True)
    assert "No emails are waiting, and none have failed." in browser.get("/admin/mail").text
    follow(topics.private, people.reader)
    office.unknown.add("reader@example.com")
    add_post(people.member, topics.private, "A hushed matter")
    assert "Waiting" in browser.get("/admin/mail").text
    (mail,) = outbox()
    assert browser.submit(f"/admin/mail/{mail.id}/send").status_code == 404
    clock.now += 4 * DAY
    send()
    shown = html.unescape(browser.get("/admin/mail").text)
    assert "Reader: Something new in a topic you follow" in shown
    assert "Failed" in shown
    assert "550 5.1.1 No such mailbox here" in shown
    assert "hushed" not in shown, "not everybody who runs the site may read everything"
    office.unknown.clear()
    for status in (303, 404):
        assert browser.submit(f"/admin/mail/{mail.id}/send").status_code == status
    assert send() == 1
    assert value(sa.select(Activity.detail).where(Activity.action == "mail.again")) == corkboard.KINDS["post"]


def test_the_overview_says_when_email_fails_or_waits_for_long(people, topics, office, sign_in, clock):
    browser = sign_in(people.admin, remember=True)
    assert "sent without delay" in browser.get("/admin").text
    follow(topics.open, people.reader)
    add_post(people.member, topics.open)
    office.stop()
    send()
    clock.now += timedelta(minutes=61)
    shown = html.unescape(browser.get("/admin").text)
    assert "1 email not sent" in shown
    assert 'href="/admin/mail"' in shown
    assert app_metrics(browser) == {"waiting": "1.0", "failed": "0.0"}
    clock.now += 4 * DAY
    send()
    assert app_metrics(browser) == {"waiting": "0.0", "failed": "1.0"}


def app_metrics(browser) -> dict[str, str]:
    return dict(re.findall(r'corkboard_emails\{state="(\w+)"\} (\S+)', browser.get("/metrics").text))


def test_the_test_button_says_in_plain_words_how_it_went(people, office, sign_in):
    browser = sign_in(people.admin)
    answer = browser.submit("/admin/mail", follow_redirects=True)
    assert "The mail server accepted a test email to admin@example.com." in answer.text
    assert office.subjects("admin") == ["A test from Corkboard"]
    assert office.to("admin")[0]["List-Unsubscribe"] is None
    office.unknown.add("admin@example.com")
    answer = browser.submit("/admin/mail")
    assert answer.status_code == 422
    assert "550 5.1.1 No such mailbox here" in answer.text
    User.edit_profile(people.admin, name="Admin", email="")
    shown = browser.get("/admin/mail").text
    assert "enter your email address" in shown
    assert "Send me a test" not in shown


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
    shown = browser.get("/admin/mail").text
    assert "MAIL_SERVER=" in shown
    assert "Send me a test" not in shown
    assert browser.submit("/admin/mail").status_code == 422
    assert OutgoingMail.queue("daily") == 0


def test_who_saved_the_settings_before_email_was_set_up_gets_emails_all_the_same(people, sign_in):
    chosen = dict.fromkeys(corkboard.KINDS, "site") | {"reaction": "none"}
    assert sign_in(people.reader).submit("/account/notifications", chosen).status_code == 303
    choices = Notification.choices(people.reader)
    assert (choices["mention"], choices["reaction"]) == ("mail", "none")


def test_email_begins_with_what_happens_after_it_is_set_up(app, people, topics, monkeypatch):
    post = add_post(people.member, topics.open, body="Hello @reader")
    with PostOffice() as office:
        for name, text in office.settings().items():
            monkeypatch.setitem(app.config, name, text)
        assert send() == 0
        add_comment(people.editor, post, "And @reader again")
        assert send() == 1
        assert len(office.to("reader")) == 1


def test_who_has_no_address_is_told_where_to_enter_one(people, topics, office, sign_in):
    User.edit_profile(people.reader, name="Reader", email="")
    assert "enter your email address" in sign_in(people.reader).get("/account/notifications").text
    add_post(people.member, topics.open, body="Hello @reader")
    assert send() == 0
    assert outbox() == []
