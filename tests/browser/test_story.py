"""From the set-up link to the first comment: the way of every new team, as they see it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from .conftest import Visit
from .looks import faults_of
from .served import Site

PASSWORD = "seven green bottles"

WAYS = [
    pytest.param("sqlite", True, "wide", "light", id="wide, light"),
    pytest.param("sqlite", True, "phone", "dark", id="phone, dark"),
    pytest.param("sqlite", False, "wide", "dark", id="no script, wide, dark"),
    pytest.param("sqlite", False, "phone", "light", id="no script, phone, light"),
    pytest.param("mysql", True, "wide", "light", id="mysql, wide, light"),
]


@pytest.mark.parametrize(("fresh_site", "scripts", "size", "theme"), WAYS, indirect=["fresh_site"])
def test_from_the_setup_link_to_the_first_comment(
    fresh_site: Site, visit: Visit, scripts: bool, size: str, theme: str
) -> None:
    site = fresh_site
    ana = visit(site, size=size, theme=theme, java_script_enabled=scripts)
    set_up(ana, site.setup_link())
    assert not (site.folder / "setup-link.txt").exists()
    make_topic(ana, "Workshop")
    address = write_first_post(ana, scripts)
    password = add_person(ana, "Ben Okafor", "ben")
    ana.goto("/setup")
    expect(ana.get_by_role("heading", name="Page not found")).to_be_visible()

    ben = visit(site, size=size, theme=theme, java_script_enabled=scripts)
    ben.goto("/")
    sign_in(ben, "ben", password)
    choose_password(ben, password, "eight green bottles")
    ben.get_by_role("link", name="The crane is back").click()
    comment(ben, "Good. I bring the *certificate*.", scripts)

    ana.goto(address)
    said = ana.locator("article.comment")
    expect(said).to_have_count(1)
    expect(said).to_contain_text("Ben Okafor")
    expect(said.locator("em")).to_have_text("certificate")
    ana.goto("/")
    expect(ana.get_by_role("link", name="1 comment")).to_be_visible()


def set_up(page: Page, link: str) -> None:
    page.goto(link)
    page.get_by_label("Site name").fill("Harbour & Sons")
    page.get_by_label("Name", exact=True).fill("Ana Lima")
    page.get_by_label("Username").fill("ana")
    page.get_by_label("Email address").fill("ana@example.com")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Confirm password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Create site").click()
    expect(page).to_have_url(re.compile("/admin$"))
    expect(page.get_by_role("heading", name="Is everything OK?")).to_be_visible()
    expect(page.get_by_text("Only this computer can open the site so far.")).to_be_visible()
    expect(page.get_by_text("HOST=0.0.0.0")).to_be_visible()


def make_topic(page: Page, name: str) -> None:
    if (fold := page.locator(".admin-fold summary")).is_visible():
        fold.click()
    page.get_by_label("Administration").get_by_role("link", name="Topics").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Create topic").click()
    expect(page.get_by_text(f'Topic "{name}" created.')).to_be_visible()


def write_first_post(page: Page, scripts: bool) -> str:
    page.get_by_role("link", name="Home").click()
    page.get_by_role("link", name="Write the first post").click()
    page.get_by_label("Title").fill("The crane is back")
    page.get_by_label("Text").fill("Hall B opens again on **Thursday**.\n\n- gate 1\n- gate 2")
    topic = page.get_by_label("Topic")
    option = topic.locator("option", has_text="Workshop")
    assert "1 person" in option.inner_text()
    topic.select_option(option.inner_text())
    if scripts:
        expect(page.locator("#audience")).to_have_text("Will be seen by 1 person in Workshop.")
        page.get_by_role("tab", name="Preview").click()
        expect(page.get_by_role("tabpanel").locator("strong")).to_have_text("Thursday")
        expect(page.get_by_role("tabpanel").locator("li")).to_have_text(["gate 1", "gate 2"])
        page.get_by_role("tab", name="Write").click()
        expect(page.get_by_label("Text")).to_be_focused()
    else:
        page.get_by_role("button", name="Preview").click()
        expect(page.locator("section.preview strong")).to_have_text("Thursday")
        expect(page.get_by_label("Title")).to_have_value("The crane is back")
        expect(page.get_by_label("Topic").locator("option:checked")).to_contain_text("Workshop")
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("heading", name="The crane is back")).to_be_visible()
    expect(page.locator("article.sheet strong")).to_have_text("Thursday")
    expect(page.get_by_text("Published.", exact=True)).to_be_visible()
    return page.url


def add_person(page: Page, name: str, username: str) -> str:
    """Add somebody without choosing a password for them. Returns the one that was made and shown."""
    page.goto("/admin/people/new")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Username").fill(username)
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("heading", name=f"Password for {name}")).to_be_visible()
    return page.locator("code.password").inner_text()


def sign_in(page: Page, username: str, password: str) -> None:
    page.get_by_label("Username or email").fill(username)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()


def choose_password(page: Page, given: str, own: str) -> None:
    """Replace a password that an administrator made, which comes before anything else."""
    expect(page.get_by_role("heading", name="Choose your own password")).to_be_visible()
    page.get_by_label("Current password", exact=True).fill(given)
    page.get_by_label("New password", exact=True).fill(own)
    page.get_by_label("Confirm password", exact=True).fill(own)
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_text("Password changed.")).to_be_visible()


def comment(page: Page, words: str, scripts: bool) -> None:
    if scripts:
        page.evaluate("window.stayed = true")
    page.get_by_label("Your comment").fill(words)
    page.get_by_role("button", name="Comment", exact=True).click()
    expect(page.locator("article.comment")).to_have_count(1)
    expect(page.get_by_role("heading", name="1 comment")).to_be_visible()
    expect(page.get_by_label("Your comment")).to_have_value("")
    if scripts:
        assert page.evaluate("window.stayed") is True
        expect(page.locator("article.comment")).to_be_focused()
        expect(page.locator("#announce")).to_have_text("Comment added.")
    else:
        expect(page).to_have_url(re.compile("#comment-1$"))


RESTORES = [
    pytest.param("sqlite", True, "wide", "light", id="wide, light"),
    pytest.param("sqlite", False, "phone", "dark", id="no script, phone, dark"),
    pytest.param("mysql", True, "phone", "light", id="mysql, phone, light"),
]


@pytest.mark.parametrize(("fresh_site", "scripts", "size", "theme"), RESTORES, indirect=["fresh_site"])
def test_a_new_site_is_set_up_from_the_backup_of_another(
    site: Site, fresh_site: Site, visit: Visit, scripts: bool, size: str, theme: str, tmp_path_factory
) -> None:
    admin = visit(site, "hattie", size=size, theme=theme, java_script_enabled=scripts)
    admin.goto("/admin/backups")
    admin.get_by_role("button", name="Back up now").click()
    expect(admin.get_by_text("created.")).to_be_visible()
    with admin.expect_download() as download:
        admin.get_by_role("button", name="Download").first.click()
    backup = tmp_path_factory.mktemp("saved") / download.value.suggested_filename
    download.value.save_as(backup)
    faults = faults_of(admin) if scripts else []  # axe is a script

    page = visit(fresh_site, size=size, theme=theme, java_script_enabled=scripts)
    page.goto(fresh_site.setup_link())
    page.get_by_role("link", name="Restore a backup instead").click()
    faults += faults_of(page) if scripts else []
    page.get_by_label("Backup").set_input_files(backup)
    page.get_by_role("button", name="Restore this backup").click()
    expect(page.get_by_text("Everything is restored. Sign in with the password you had then.")).to_be_visible()
    sign_in(page, "hattie", site.passwords["hattie"])
    expect(page.get_by_role("heading", name="News")).to_be_visible()
    expect(page.locator("article").first).to_be_visible()
    assert faults == []


def test_a_new_site_looks_right_before_anything_is_in_it(fresh_site: Site, visit: Visit) -> None:
    page = visit(fresh_site)
    link = fresh_site.setup_link()
    page.goto(link)
    faults = faults_of(page)
    page.get_by_role("button", name="Create site").click()
    faults += faults_of(page, "setup with nothing filled in")
    page.goto("/setup?token=wrong")
    faults += faults_of(page, "a set-up link that does not fit")
    set_up(page, link)
    for address in ("/admin", "/", "/handbook", "/people", "/people/ana", "/admin/topics", "/posts/new"):
        page.goto(address)
        faults += faults_of(page)
    assert faults == []
