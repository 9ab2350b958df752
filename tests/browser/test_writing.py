"""Writing: nothing that was typed is lost, nothing is made twice, and mistakes are told where they are."""

from __future__ import annotations

import re
import secrets
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, Route, expect

from app import Comment, Post, Setting, Topic, User
from database import db

from .conftest import Visit
from .looks import faults_of
from .served import Site
from .test_story import sign_in

WITH_AND_WITHOUT = pytest.mark.parametrize("scripts", [True, False], ids=["script", "no script"])


def written(page: Page, title: str, body: str = "Some **words** that took an hour.") -> None:
    page.goto("/posts/new?topic=shops")
    page.get_by_label("Title").fill(title)
    page.get_by_label("Text").fill(body)


def posts_called(site: Site, title: str) -> int:
    return site.count(sa.select(Post.id).where(Post.title == title))


def comments_saying(site: Site, body: str) -> int:
    return site.count(sa.select(Comment.id).where(Comment.body == body))


@pytest.fixture
def words() -> str:
    """A title or a text that nothing else bears."""
    return f"The ramp {secrets.token_hex(4)}"


# -- What the button says ----------------------------------------------------------------------------------------------


def test_the_button_says_schedule_while_the_date_lies_ahead_where_the_person_is(
    site: Site, visit: Visit, words: str
) -> None:
    with site.app.app_context():
        User.edit_appearance(site.user("yuki"), "system", "Pacific/Kiritimati", True)  # fourteen hours ahead
        db.session.remove()
    page = visit(site, "yuki", timezone_id="America/New_York")
    written(page, words)
    page.get_by_text("More", exact=True).click()
    moment, there = page.get_by_label("Publish on"), datetime.now(ZoneInfo("Pacific/Kiritimati"))
    button = page.locator("#publish")
    for moved, said in ((timedelta(hours=1), "Schedule"), (timedelta(hours=-1), "Publish"), (timedelta(1), "Schedule")):
        moment.fill((there + moved).strftime("%Y-%m-%dT%H:%M"))
        expect(button).to_have_text(said)
    moment.fill("")
    expect(button).to_have_text("Publish")
    moment.fill((there + timedelta(1)).strftime("%Y-%m-%dT%H:%M"))
    button.click()
    expect(page.get_by_text("Scheduled for ").first).to_be_visible()


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_a_draft_is_pinned_and_made_must_read_by_keyboard_and_keeps_both(
    site: Site, visit: Visit, words: str, size: str
) -> None:
    page = visit(site, "hattie", size)
    written(page, words)
    page.locator("summary", has_text="More").focus()
    page.keyboard.press("Enter")
    for box, day in (("Pin to the top of Home", "Pin until"), ("Ask everyone to read it", "Read by")):
        expect(page.get_by_label(day)).to_be_hidden()
        page.get_by_role("checkbox", name=box).focus()
        page.keyboard.press("Space")
        page.get_by_label(day).fill("2099-01-02")
    assert faults_of(page, "a post that will be pinned") == []
    page.get_by_role("button", name="Save as draft").click()
    page.get_by_role("link", name="Edit", exact=True).click()
    for box, day in (("Pin to the top of Home", "Pin until"), ("Ask everyone to read it", "Read by")):
        expect(page.get_by_role("checkbox", name=box)).to_be_checked()
        expect(page.get_by_label(day)).to_have_value("2099-01-02")


# -- Saved by itself ---------------------------------------------------------------------------------------------------


def test_what_was_saved_too_often_is_saved_later_and_nothing_typed_is_lost(
    site: Site, visit: Visit, words: str
) -> None:
    page, answered = visit(site, "yuki"), []

    def answer(route: Route) -> None:
        answered.append(route.request.url)
        if len(answered) == 1:
            route.fulfill(status=429, headers={"Retry-After": "9"}, body="Too often")
        else:
            route.continue_()

    page.route("**/posts/**/autosave", answer)
    page.route("**/posts/autosave", answer)
    page.clock.install()
    written(page, words)
    page.clock.run_for(5_000)
    expect(page.locator("#autosaved")).to_have_text("Couldn't save just now. Your text is kept in this tab.")
    page.clock.run_for(8_000)
    assert len(answered) == 1, "not before it was asked to"
    page.clock.run_for(2_000)
    expect(page.locator("#autosaved")).to_contain_text("Saved ")
    assert posts_called(site, words) == 1
    expect(page.get_by_label("Text")).to_have_value("Some **words** that took an hour.")


def test_every_field_of_a_draft_is_there_after_a_reload_and_the_button_says_what_it_does(
    site: Site, visit: Visit, words: str
) -> None:
    page = visit(site, "hattie")
    page.on("dialog", lambda dialog: dialog.accept())
    page.clock.install()
    written(page, words)
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Topic", exact=True).select_option(index=1)
    topic = page.get_by_label("Topic", exact=True).input_value()
    page.get_by_label("Publish on").fill("2090-03-02T09:00")
    page.get_by_label("Remove from Home after").fill("2090-03-09")
    page.clock.run_for(5_000)
    expect(page.locator("#autosaved")).to_contain_text("Saved ")
    for _time in range(2):
        page.reload()
        expect(page.get_by_label("Title")).to_have_value(words)
        expect(page.get_by_label("Topic", exact=True)).to_have_value(topic)
        expect(page.get_by_label("Publish on")).to_have_value("2090-03-02T09:00")
        expect(page.get_by_label("Publish on")).to_be_visible()
        expect(page.get_by_label("Remove from Home after")).to_have_value("2090-03-09")
        expect(page.locator("#publish")).to_have_text("Schedule")
    page.get_by_role("button", name="Start over").click()
    expect(page.get_by_label("Publish on")).to_have_value("")
    expect(page.locator("#publish")).to_have_text("Publish")
    page.get_by_label("Publish on").fill("2090-03-02T09:00")
    page.locator("#publish").click()
    expect(page.get_by_text("Scheduled for Thursday 2 March 2090, 09:00.", exact=True)).to_be_visible()
    page.goto("/posts/new?topic=shops")
    expect(page.locator(".draft-notice")).to_have_count(0)


def test_a_choice_alone_is_saved_by_itself_as_well(site: Site, visit: Visit, words: str) -> None:
    page = visit(site, "hattie")
    page.clock.install()
    written(page, words)
    page.clock.run_for(5_000)
    expect(page.locator("#autosaved")).to_contain_text("Saved ")
    with page.expect_response("**/autosave") as answer:
        page.get_by_text("More", exact=True).click()
        page.get_by_label("Remove from Home after").fill("2090-03-09")
        page.clock.run_for(5_000)
    assert answer.value.status == 200
    page.reload()
    expect(page.get_by_label("Remove from Home after")).to_have_value("2090-03-09")
    expect(page.locator(".draft-notice")).to_have_count(0)


# -- Answers that got lost, and errors ---------------------------------------------------------------------------------


def test_what_was_sent_and_never_answered_waits_though_another_page_redirects_meanwhile(
    site: Site, visit: Visit, words: str
) -> None:
    page = visit(site, "hattie")
    page.on("dialog", lambda dialog: dialog.accept())
    written(page, words)
    page.route("**/posts/new", lambda route: route.abort(), times=1)
    page.get_by_role("button", name="Publish").click()
    page.wait_for_url("chrome-error://chromewebdata/")
    page.goto("/comments/135")  # it redirects to its post
    page.goto("/posts/new?topic=shops")
    expect(page.get_by_label("Title")).to_have_value(words)
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("heading", name=words)).to_be_visible()
    page.goto("/posts/new?topic=shops")
    expect(page.get_by_label("Title")).to_have_value("")


@WITH_AND_WITHOUT
def test_a_change_of_a_post_that_is_gone_by_now_can_be_copied(
    site: Site, visit: Visit, words: str, scripts: bool
) -> None:
    page = visit(site, "hattie", java_script_enabled=scripts)
    written(page, words)
    page.get_by_role("button", name="Publish").click()
    page.get_by_role("link", name="Edit", exact=True).first.click()
    page.get_by_label("Text").fill(f"An hour\n\nof {words}")
    with site.app.app_context():
        Post.delete(site.user("hattie"), int(page.url.split("/")[-2]))
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", name="Page not found")).to_be_visible()
    expect(page.get_by_label("Text")).to_have_value(f"An hour\n\nof {words}")
    copy = page.get_by_role("button", name="Copy Text")
    if not scripts:
        return expect(copy).to_be_hidden()
    copy.click()
    expect(page.locator("#announce")).to_have_text("Copied.")
    assert list(faults_of(page, "what was written")) == []
    page.goto("/posts/new?topic=shops")
    page.get_by_label("Text").focus()
    page.keyboard.press("Control+v")
    expect(page.get_by_label("Text")).to_have_value(f"An hour\n\nof {words}")
    page.evaluate("sessionStorage.clear()")
    return None


def test_a_profile_that_could_not_be_saved_is_filled_in_again(site: Site, visit: Visit, words: str) -> None:
    page = visit(site, "nia")
    page.goto("/account")
    page.get_by_label("Location").fill(words)
    page.get_by_label("Away until").fill("2090-03-09")
    site.end_sign_ins("nia")
    page.get_by_role("button", name="Save profile").click()
    expect(page.get_by_label("Location")).to_have_value(words)
    page.get_by_role("link", name="Sign in").click()
    sign_in(page, "nia", site.passwords["nia"])
    page.goto("/account")
    expect(page.get_by_label("Location")).to_have_value(words)
    expect(page.get_by_label("Away until")).to_have_value("2090-03-09")


# -- Signed out meanwhile ----------------------------------------------------------------------------------------------


@WITH_AND_WITHOUT
def test_signed_out_while_writing_a_post_and_the_text_is_not_lost(
    site: Site, visit: Visit, words: str, scripts: bool
) -> None:
    page = visit(site, "yuki", java_script_enabled=scripts)
    written(page, words)
    site.end_sign_ins("yuki")
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("heading", name="You've been signed out")).to_be_visible()
    expect(page.get_by_label("Title")).to_have_value(words)
    expect(page.get_by_label("Text")).to_have_value("Some **words** that took an hour.")
    assert posts_called(site, words) == 0
    page.get_by_role("link", name="Sign in").click()
    sign_in(page, "yuki", site.passwords["yuki"])
    page.goto("/posts/new")
    if scripts:
        expect(page.get_by_label("Title")).to_have_value(words)
        expect(page.get_by_label("Text")).to_have_value("Some **words** that took an hour.")


@WITH_AND_WITHOUT
def test_signed_out_while_commenting_and_the_text_is_not_lost(
    site: Site, visit: Visit, words: str, scripts: bool
) -> None:
    page = visit(site, "soren", java_script_enabled=scripts)
    page.goto("/posts/78")
    page.get_by_label("Your comment").fill(words)
    site.end_sign_ins("soren")
    page.get_by_role("button", name="Comment", exact=True).click()
    expect(page.get_by_role("heading", name="You've been signed out")).to_be_visible()
    expect(page.get_by_label("Text")).to_have_value(words)
    page.get_by_role("link", name="Sign in").click()
    sign_in(page, "soren", site.passwords["soren"])
    page.goto("/posts/78")
    if scripts:
        expect(page.get_by_label("Your comment")).to_have_value(words)
    page.get_by_label("Your comment").fill(words)
    page.get_by_role("button", name="Comment", exact=True).click()
    expect(page.locator("article.comment", has_text=words)).to_have_count(1)
    assert comments_saying(site, words) == 1


def test_the_other_devices_are_signed_out_and_what_is_typed_there_waits(site: Site, visit: Visit, words: str) -> None:
    here, there = visit(site, "dev"), visit(site, "dev", "phone")
    written(there, words)
    here.goto("/account/sessions")
    here.get_by_role("button", name="Sign out all other devices").click()
    here.get_by_role("button", name="Continue").click()
    expect(here.get_by_text("All other devices have been signed out.")).to_be_visible()
    there.get_by_role("button", name="Publish").click()
    there.get_by_role("link", name="Sign in").click()
    sign_in(there, "dev", site.passwords["dev"])
    there.goto("/posts/new")
    expect(there.get_by_label("Title")).to_have_value(words)


def test_somebody_else_who_signs_in_there_sees_nothing_of_it(site: Site, visit: Visit, words: str) -> None:
    page = visit(site, "callum")
    written(page, words)
    site.end_sign_ins("callum")
    page.get_by_role("button", name="Publish").click()
    page.get_by_role("link", name="Sign in").click()
    sign_in(page, "farida", site.passwords["farida"])
    expect(page.get_by_text("Account of Farida Haddad")).to_be_attached()
    assert words not in page.content()
    page.goto("/posts/new?topic=shops")
    expect(page.get_by_label("Title")).to_have_value("")


def test_what_is_typed_survives_another_page_and_can_be_thrown_away(site: Site, visit: Visit, words: str) -> None:
    page = visit(site, "hattie")
    page.on("dialog", lambda dialog: dialog.accept())
    written(page, words)
    page.goto("/")
    page.goto("/posts/new?topic=shops")
    expect(page.get_by_label("Title")).to_have_value(words)
    page.get_by_role("button", name="Start over").click()
    expect(page.get_by_label("Title")).to_have_value("")
    page.reload()
    expect(page.get_by_label("Title")).to_have_value("")


# -- The same form twice -----------------------------------------------------------------------------------------------


@WITH_AND_WITHOUT
def test_a_double_click_makes_one_post(site: Site, visit: Visit, words: str, scripts: bool) -> None:
    page = visit(site, "hattie", java_script_enabled=scripts)
    written(page, words)
    page.get_by_role("button", name="Publish").dblclick()
    expect(page.get_by_role("heading", name=words)).to_be_visible()
    assert posts_called(site, words) == 1


@WITH_AND_WITHOUT
def test_going_back_and_sending_again_makes_one_post(site: Site, visit: Visit, words: str, scripts: bool) -> None:
    page = visit(site, "hattie", java_script_enabled=scripts)
    written(page, words)
    form_id = page.locator("#editor [name=form_id]").input_value()
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("heading", name=words)).to_be_visible()
    first = page.url
    page.go_back()
    if page.get_by_label("Title").input_value() != words:  # a browser that forgot the form sends what it is given
        page.get_by_label("Title").fill(words)
        page.get_by_label("Text").fill("Some **words** that took an hour.")
        page.evaluate("id => { document.querySelector('#editor [name=form_id]').value = id; }", form_id)
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("heading", name=words)).to_be_visible()
    assert page.url == first
    assert posts_called(site, words) == 1


def test_an_answer_that_got_lost_and_a_second_try_make_one_comment(site: Site, visit: Visit, words: str) -> None:
    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page = visit(site, "hattie")
    page.goto("/posts/78")
    page.route("**/comments", lose, times=1)
    page.get_by_label("Your comment").fill(words)
    page.get_by_role("button", name="Comment", exact=True).click()
    expect(page.get_by_text("The site didn't answer.")).to_be_visible()
    expect(page.get_by_label("Your comment")).to_have_value(words)
    page.get_by_role("button", name="Comment", exact=True).click()
    expect(page.locator("article.comment", has_text=words)).to_have_count(1)
    assert comments_saying(site, words) == 1


# -- Mistakes ----------------------------------------------------------------------------------------------------------

NAMES = {"name": "", "username": "a b!", "email": "nonsense"}
MISTAKES = [
    ("/login", "", "Sign in", {}),
    ("/register", "", "Sign up", {}),
    ("/register", "", "Sign up", {**NAMES, "password": "short", "confirm": "other"}),
    ("/account", "hattie", "Save profile", {"name": "", "email": "nonsense"}),
    ("/account/password", "hattie", "Change password", {}),
    ("/account/password", "hattie", "Change password", {"current": "x", "password": "short", "confirm": "other"}),
    ("/posts/new", "hattie", "Publish", {}),
    ("/posts/new?kind=page", "hattie", "Publish", {"title": "Only a title"}),
    ("/posts/81/edit", "hattie", "Save", {"title": "", "body": ""}),
    ("/posts/81", "hattie", "Comment", {}),
    ("/comments/135/edit", "hattie", "Save", {"body": ""}),
    ("/admin/topics", "hattie", "Create topic", {}),
    ("/admin/people/new", "hattie", "Add", {}),
    ("/admin/people/new", "hattie", "Add", {"name": "Eve", "username": "e", "email": "nonsense", "password": "short"}),
    ("/admin/people/2", "hattie", "Save", {"name": ""}),
    ("/admin/settings", "hattie", "Save site", {"name": ""}),
]
WORDS = """() => Object.fromEntries([...document.querySelectorAll(".error")].filter((node) => node.checkVisibility())
  .map((node) => [node.id, node.textContent.trim()]))"""
FOCUSED = "document.activeElement.id"


@pytest.fixture
def open_registration(site: Site) -> object:
    with site.app.app_context():
        Setting.change(site.user("hattie"), registration="open")
    yield
    with site.app.app_context():
        Setting.change(site.user("hattie"), registration="closed")


@pytest.mark.usefixtures("open_registration")
@pytest.mark.parametrize(("address", "username", "button", "typed"), MISTAKES)
def test_the_browser_and_the_server_tell_the_same_mistakes_in_the_same_words(
    site: Site, visit: Visit, address: str, username: str, button: str, typed: dict[str, str]
) -> None:
    page = visit(site, username)
    page.goto(address)
    fill_and_send(page, button, typed)
    in_browser, focused = page.evaluate(WORDS), page.evaluate(FOCUSED)
    assert in_browser
    assert focused == first_marked(page)

    page.evaluate("sessionStorage.clear(); for (const form of document.forms) { delete form.dataset.draft; }")
    page.goto(address)
    page.evaluate("for (const form of document.forms) { form.noValidate = true; delete form.dataset.swap; }")
    with page.expect_response(lambda answer: answer.request.method == "POST") as answer:
        fill_and_send(page, button, typed)
    assert answer.value.status == 422
    page.wait_for_load_state()
    assert page.evaluate(WORDS) == in_browser
    assert first_marked(page) == focused
    expect(page.locator(f"#{focused}")).to_be_focused()
    kept = {
        name: page.locator(f"#{name}").input_value()
        for name in typed
        if page.locator(f"#{name}").get_attribute("type") != "password"
    }
    assert kept == {name: typed[name] for name in kept}


def fill_and_send(page: Page, button: str, typed: dict[str, str]) -> None:
    for name, value in typed.items():
        page.locator(f"#{name}").fill(value)
    page.get_by_role("button", name=button, exact=True).click()


def first_marked(page: Page) -> str | None:
    return page.locator("[aria-invalid=true]").first.get_attribute("id")


def test_a_comment_of_nothing_but_spaces_is_marked_without_a_reload(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie")
    page.goto("/posts/78")
    page.evaluate("window.stayed = true")
    page.get_by_label("Your comment").fill("   ")
    page.get_by_role("button", name="Comment", exact=True).click()
    expect(page.locator("#body-error")).to_have_text("Write something first.")
    expect(page.get_by_label("Your comment")).to_be_focused()
    assert page.evaluate("window.stayed") is True


# -- Taking back -------------------------------------------------------------------------------------------------------


@WITH_AND_WITHOUT
def test_a_deleted_post_comes_back_with_undo(site: Site, visit: Visit, words: str, scripts: bool) -> None:
    page = visit(site, "hattie", java_script_enabled=scripts)
    written(page, words)
    page.get_by_role("button", name="Publish").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Post deleted.")).to_be_visible()
    expect(page.get_by_role("link", name=words)).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("heading", name=words)).to_be_visible()
    expect(page.get_by_text("Post restored.")).to_be_visible()


@WITH_AND_WITHOUT
def test_a_deleted_comment_comes_back_with_undo(site: Site, visit: Visit, words: str, scripts: bool) -> None:
    page = visit(site, "hattie", java_script_enabled=scripts)
    page.goto("/posts/76")
    page.get_by_label("Your comment").fill(words)
    page.get_by_role("button", name="Comment", exact=True).click()
    said = page.locator("article.comment", has_text=words)
    said.get_by_role("button", name="Delete").click()
    expect(said).to_have_count(0)
    expect(page.get_by_text("Comment deleted.")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(said).to_have_count(1)
    expect(page).to_have_url(re.compile(r"/posts/76#comment-\d+$"))


def test_a_form_that_did_what_it_should_is_blank_again(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie")
    page.goto("/admin/topics")
    page.get_by_label("Name", exact=True).fill("Salaries")
    page.get_by_role("button", name="Create topic").click()
    expect(page.get_by_text('Topic "Salaries" created.')).to_be_visible()
    expect(page.get_by_label("Name", exact=True)).to_have_value("")
    expect(page.locator(".draft-notice")).to_have_count(0)
    with site.app.app_context():
        made = db.session.query(Topic).filter_by(name="Salaries").one()
        Topic.delete(site.user("hattie"), made.id)


@WITH_AND_WITHOUT
def test_people_are_added_to_a_private_topic_and_removed(site: Site, visit: Visit, words: str, scripts: bool) -> None:
    page = visit(site, "hattie", java_script_enabled=scripts)
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("/admin/topics")
    page.get_by_label("Name", exact=True).fill(words)
    page.get_by_label("Private").check()
    page.get_by_role("button", name="Create topic").click()
    page.get_by_label("Amara Nwosu").check()
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("Amara Nwosu can see this topic now.")).to_be_visible()
    if scripts:
        assert list(faults_of(page, "a private topic")) == []
    page.get_by_role("button", name="Remove Amara Nwosu").click()
    expect(page.get_by_text("Removed.", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Remove Amara Nwosu")).to_have_count(0)


def test_who_is_chosen_by_name_is_meant(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie")
    page.goto("/posts/80/must-read")
    page.get_by_label("Søren Dahl").check()
    expect(page.get_by_label("Only those chosen below")).to_be_checked()
