"""Every page of the site, in both themes and at both widths: axe, nothing wider than the window, room for fingers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa
from flask import Flask
from playwright.sync_api import Page, expect

from app import (
    Acknowledgement,
    Comment,
    Group,
    Invitation,
    Post,
    PostData,
    ResetLink,
    Role,
    Setting,
    Topic,
    User,
    unsubscribe_signer,
)
from database import db

from .conftest import Visit
from .looks import OUTSIDE, faults_of
from .served import Site

# What stands in for the arguments of an address. An argument that is missing here fails the test: say what to show.
EXAMPLES = {
    "post_id": sa.select(sa.func.min(Post.id)),
    "comment_id": sa.select(sa.func.min(Comment.id)),
    "topic_id": sa.select(sa.func.min(Topic.id)),
    "slug": sa.select(sa.func.min(Topic.slug)),
    "user_id": sa.select(User.id).where(User.username == "nia"),
    "group_id": sa.select(sa.func.min(Group.id)),
    "number": sa.select(sa.literal(1)),
    "username": sa.select(User.username).where(User.username == "nia"),
}
NOT_PAGES = {
    *("static", "bootstrap.static", "health.live", "health.ready", "health.metrics"),
    *("feeds.atom", "feeds.calendar", "admin.activity_csv", "admin.people_csv", "people.card"),
    *("posts.find_page", "posts.titles", "posts.report_csv", "people.suggest"),
    *("files.show", "files.picture", "files.logo", "notifications.poll", "auth.finish_oidc"),
}
# The same addresses in another state; the endpoint beside it is for nobody but the reader.
STATES = {
    "/posts/new?kind=page": "a page of the handbook",
    "/people?q=zzz": "nobody found",
    "/admin/people?q=zzz": "nobody found",
    "/search?q=bread&kind=page": "what was found, and the filters",
    "/search?q=zzz": "nothing found",
    "/people/hattie": "oneself",
    "/people/bakers": "a group",
    "/invite/used-up": "410",
    "/no-such-page": "404",
    "/posts/99999999": "404",
    "/logout": "405",
    "/?before=nonsense": "404",
}


def invite() -> str:
    """Return the token of an invitation for many."""
    values = {"name": "", "email": None, "role": Role.MEMBER, "uses_most": 100, "topic_ids": []}
    admin = db.session.scalars(sa.select(User).where(User.role == Role.ADMIN)).first()
    return Invitation.create(admin, form_id="i" * 32, **values)[1]


def addresses(app: Flask) -> list[str]:
    """One address for each page that can be opened, in the order of the url map."""
    with app.app_context(), app.test_request_context():
        given = {name: db.session.scalar(statement) for name, statement in EXAMPLES.items()}
        private = db.session.scalar(sa.select(sa.func.min(Topic.slug)).where(Topic.private))
        tokens = {
            "account.unsubscribe": unsubscribe_signer().dumps([given["user_id"], "post"]),
            "auth.reset_by_link": ResetLink.create(given["user_id"]),
            "auth.accept_invitation": invite(),
        }
        db.session.rollback()
        rules = [rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())]
        adapter = app.url_map.bind("")
        return [f"/topics/{private}"] + [
            adapter.build(rule.endpoint, {name: given.get(name, tokens.get(rule.endpoint)) for name in rule.arguments})
            for rule in rules
            if rule.endpoint not in NOT_PAGES and rule.endpoint.partition(".")[0] not in ("api", "docs")
        ]


def faults_at(page: Page, address: str) -> list[str]:
    page.goto(address)
    return faults_of(page, address)


PARTS = 4  # so that a failure says roughly where, and a slow machine shows progress


@pytest.mark.parametrize("part", range(PARTS))
def test_every_page_for_who_sees_all_of_them(site: Site, visit: Visit, part: int) -> None:
    page = visit(site, "hattie")
    all_of_them = [*addresses(site.app), *STATES]
    assert len(all_of_them) > 25
    assert [fault for address in all_of_them[part::PARTS] for fault in faults_at(page, address)] == []


@pytest.mark.parametrize("part", range(PARTS))
def test_every_post_and_page_of_the_demo(site: Site, visit: Visit, part: int) -> None:
    page = visit(site, "hattie")
    with site.app.app_context():
        shown = sa.select(Post.id).where(Post.deleted_at.is_(None), Post.published_at.is_not(None)).order_by(Post.id)
        ids = db.session.scalars(shown).all()
    assert len(ids) >= 78
    faults: list[str] = []
    for post_id in ids[part::PARTS]:
        page.goto(f"/posts/{post_id}")
        faults += faults_of(page, within="main")
    assert faults == []


def test_pages_for_a_reader(site: Site, visit: Visit) -> None:
    with site.app.app_context():
        User.set_role(site.user("hattie"), site.user("bernard").id, Role.READER)
    page = visit(site, "bernard")
    seen = ["/", "/posts/81", "/people/bernard", "/posts/new", "/admin"]
    assert [fault for address in seen for fault in faults_at(page, address)] == []


def test_pages_for_a_stranger(site: Site, visit: Visit) -> None:
    page = visit(site)
    with site.app.app_context():
        Setting.change(site.user("hattie"), registration="open")
    try:
        faults = faults_at(page, "/login") + faults_at(page, "/register") + faults_at(page, "/setup")
        page.goto("/register")
        page.get_by_role("button", name="Sign up").click()
        faults += faults_of(page, "/register, nothing filled in")
    finally:
        with site.app.app_context():
            Setting.change(site.user("hattie"), registration="closed")
    page.goto("/login")
    page.get_by_label("Username or email").fill("nobody")
    page.get_by_label("Password", exact=True).fill("wrong password")
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_text("Wrong username or password.")).to_be_visible()
    assert faults + faults_of(page, "/login, refused") == []


def test_dialogs_menus_and_messages(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie")
    page.goto("/handbook")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    faults = faults_of(page, "help")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Account of").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    faults += faults_of(page, "menu", within=".menu")
    page.goto("/admin/people/2")
    page.get_by_role("button", name="Deactivate").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    faults += faults_of(page, "a question")
    page.get_by_role("button", name="Cancel").click()
    page.goto("/posts/new")
    page.get_by_label("Text").fill("Some *words*")
    page.get_by_role("tab", name="Preview").click()
    expect(page.get_by_role("tabpanel").locator("em")).to_be_visible()
    faults += faults_of(page, "preview")
    page.get_by_role("tab", name="Write").click()
    page.get_by_role("button", name="Publish").click()
    expect(page.locator("#title-error")).to_be_visible()
    assert faults + faults_of(page, "a post without a title") == []


# What a page can have open, and how it is opened; the strings are what is clicked.
OPENED = {
    "the topics in the menu": ("/", ["button:has-text('Account of')"], ".menu"),
    "when to pin until": ("/posts/81", ["[popovertarget=pin-menu]"], ".menu"),
    "the reactions": ("/posts/81", [".sheet [data-react]"], "#picker"),
    "the filters of the search": ("/search?q=bread", [".search-form summary"], "main"),
    "how to format": ("/posts/new", ["text=How to format"], "main"),
    "more of a post": ("/posts/new", ["summary:text-is('More')"], "main"),
    "what each role can do": ("/admin/people/new", [".sheet-page summary"], "main"),
    "what was recorded": ("/admin/activity", [".event summary >> nth=0", ".event summary >> nth=1"], "main"),
    "who sees a private topic": ("/admin/topics", ["text=Private >> nth=-1", "#members", "#members-3"], "main"),
    "who is asked to read": ("/posts/81/must-read", ["#people", "#people-2"], "main"),
    "the outline, folded": ("/posts/2", ["#content"], "main"),
}


@pytest.mark.parametrize("name", OPENED)
def test_what_opens_on_a_page(site: Site, visit: Visit, name: str) -> None:
    address, clicks, within = OPENED[name]
    page = visit(site, "hattie")
    page.goto(address)
    for selector in clicks:
        page.locator(selector).first.click()
    assert faults_of(page, name, within=within) == []


def test_results_while_typing_look_right(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie")
    page.goto("/handbook")
    page.get_by_role("combobox", name="Search").press_sequentially("bread")
    expect(page.get_by_role("option").first).to_be_visible()
    page.keyboard.press("ArrowDown")
    assert faults_of(page, "results while typing") == []


def test_wide_tables_and_code_are_reached_and_scrolled_by_keys(site: Site, visit: Visit) -> None:
    cells = " | ".join(f"A column with the number {n}" for n in range(9))
    text = (
        f"| | {cells} |\n|{'---|' * 10}\n| One | {cells} |\n\n    {'code ' * 60}\n\n| A | B |\n|---|---|\n| 1 | 2 |\n"
    )
    with site.app.app_context():
        topic = db.session.scalar(sa.select(Topic.id).where(Topic.slug == "shops")) or 0
        post = Post.save(site.user("hattie"), PostData("news", topic, "Wide", text), how="publish", form_id="4" * 32).id
    page = visit(site, "hattie", "phone")
    page.goto(f"/posts/{post}")
    wide = page.get_by_role("region", name="scrolls sideways")
    expect(wide).to_have_count(2)
    for part in wide.all():
        part.focus()
        page.keyboard.press("ArrowRight")
        expect(part).not_to_have_js_property("scrollLeft", 0)
    expect(page.get_by_role("table")).to_have_count(2)
    expect(page.locator(".prose tr:first-child > :first-child").first).to_have_js_property("tagName", "TD")
    faults = faults_of(page)
    with site.app.app_context():
        Post.delete(site.user("hattie"), post)
    assert faults == []


def test_on_a_phone_the_topics_are_one_line_with_the_current_one_in_sight(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie", "phone")
    page.goto("/")
    page.locator(".strip").get_by_role("link", name="Management").click()
    row, current = page.locator(".strip ul"), page.locator(".strip [aria-current]")
    assert row.bounding_box()["height"] < 60  # type: ignore[index]
    expect(current).to_have_text("Management")
    expect(current).to_be_in_viewport(ratio=1)
    page.goto("/")
    expect(page.locator(".strip").get_by_role("link", name="Everyone")).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize(("address", "column"), [("/", ".with-side > :first-child"), ("/posts/80", ".sheet-page")])
def test_a_message_stands_over_the_column_that_is_read(site: Site, visit: Visit, address: str, column: str) -> None:
    page = visit(site, "hattie")
    page.goto(address)
    page.evaluate("document.getElementById('flashes').innerHTML = '<div class=flash><p>Saved.</p></div>'")
    message, read = page.locator(".flash").bounding_box(), page.locator(column).first.bounding_box()
    assert message
    assert read
    assert abs(message["x"] + message["width"] / 2 - read["x"] - read["width"] / 2) < 2


def test_the_filters_of_the_search_fill_their_lines(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie")
    page.goto("/search?q=bread&kind=page")
    for width in (360, 700, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        form, last = page.locator(".search-narrow").bounding_box(), page.locator("#before").bounding_box()
        assert form
        assert last
        assert abs(form["x"] + form["width"] - last["x"] - last["width"]) < 2, width


def test_a_form_that_came_back(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie")
    faults: list[str] = []
    for address, button in (
        ("/posts/new", "Publish"),
        ("/admin/people/new", "Add"),
        ("/account/password", "Change password"),
    ):
        page.goto(address)
        page.evaluate("for (const form of document.forms) form.noValidate = true")
        with page.expect_response(lambda answer: answer.status == 422):
            page.get_by_role("button", name=button, exact=True).click()
        page.wait_for_load_state()
        assert page.locator("[aria-invalid=true]").count() > 0
        faults += faults_of(page, f"{address}, 422")
    assert faults == []


def test_what_is_in_the_bin(site: Site, visit: Visit) -> None:
    with site.app.app_context():
        admin = site.user("hattie")
        post = db.session.scalar(sa.select(sa.func.min(Post.id)).where(Post.deleted_at.is_not(None)))
        comment = db.session.scalar(sa.select(sa.func.max(Comment.id)))
        Comment.delete(admin, comment or 0)
    page = visit(site, "hattie")
    faults = [
        fault for thing in (f"posts/{post}", f"comments/{comment}") for fault in faults_at(page, f"/admin/bin/{thing}")
    ]
    page.get_by_role("button", name="Restore").click()
    expect(page.locator(f"#comment-{comment}")).to_be_visible()
    assert faults == []


def test_somebody_else_saved_first(site: Site, visit: Visit) -> None:
    mine, theirs = visit(site, "hattie"), visit(site, "wojtek")
    for page in (mine, theirs):
        page.goto("/posts/80/edit")
    theirs.get_by_label("Text").fill("What they wrote")
    theirs.get_by_role("button", name="Save", exact=True).click()
    expect(theirs.get_by_text("Saved.")).to_be_visible()
    mine.get_by_label("Text").fill("What I wrote")
    mine.get_by_role("button", name="Save", exact=True).click()
    expect(mine.get_by_label("The text that was saved")).to_have_text("What they wrote")
    expect(mine.get_by_label("Text", exact=True)).to_have_value("What I wrote")
    assert faults_of(mine, "both texts") == []
    mine.get_by_role("button", name="Save", exact=True).click()
    expect(mine.locator("article.sheet .prose")).to_have_text("What I wrote")


def test_less_motion_for_those_who_asked_for_it(site: Site, visit: Visit) -> None:
    moving = """() => [...document.querySelectorAll("*")].flatMap((node) => [null, "::before", "::after"]
      .map((part) => getComputedStyle(node, part))
      .filter((style) => style.animationName !== "none" || /[1-9]/.test(style.transitionDuration))
      .map(() => node.outerHTML.slice(0, 80)))"""
    page = visit(site, "hattie", reduced_motion="reduce")
    page.goto("/posts/81")
    page.keyboard.press("?")
    assert page.evaluate(moving) == []
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) != []


def test_a_printed_post_is_the_post_and_what_was_said(site: Site, visit: Visit) -> None:
    page = visit(site, "hattie", theme="dark")
    page.goto("/posts/81")
    page.emulate_media(media="print")
    for chrome in ("header.top", "footer.foot", "form.reply", ".acts", ".skip"):
        assert not any(part.is_visible() for part in page.locator(chrome).all()), chrome
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.locator("article.sheet .prose")).to_be_visible()
    expect(page.locator("article.comment").first).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('article .prose')).color") == "rgb(0, 0, 0)"


def test_one_word_may_be_longer_than_the_window_is_wide(site: Site, visit: Visit) -> None:
    word = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamte"
    with site.app.app_context():
        admin = site.user("hattie")
        named = {"username": "longest", "name": word, "email": "", "title": word, "department": word}
        User.create(admin, password_hash="x", role=Role.READER, **named)
        topic = Topic.create(admin, form_id="1" * 32, name=word[:60], description=word)
        data = PostData("page", topic.id, word, f"## {word}\n\n## {word}\n\n{word} `{word}`")
        post = Post.save(admin, data, how="publish", form_id="2" * 32).id
        news = Post.save(admin, replace(data, kind="news"), how="publish", form_id="3" * 32).id
        Post.pin(admin, news, True, None)
        Acknowledgement.require(admin, news, roles=[Role.ADMIN])
        slug = topic.slug
    page, wider = visit(site, "hattie"), []
    addresses = [
        "/",
        "/topics",
        "/handbook",
        "/people",
        "/people/longest",
        "/admin/people",
        "/admin/topics",
        f"/topics/{slug}",
    ]
    for number in (post, news):
        parts = ("", "/must-read", "/history", "/edit")
        addresses += [f"/posts/{number}{part}" for part in parts]
    for address in [*addresses, f"/search?q={word}", "/people/hattie", "/posts/drafts"]:
        page.goto(address)
        for width in (360, 800, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            wider += [f"{address} at {width}: {element}" for element in page.evaluate(OUTSIDE)]
    with site.app.app_context():
        for number in (post, news):
            Post.delete(site.user("hattie"), number)
    assert wider == []
