"""One browser and one seeded site for the whole folder, and windows of it that watch what a page does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MYSQL_URL, NO_MYSQL, create_database, drop_database, given_database, on_server
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    Request,
    Response,
    sync_playwright,
)
from sqlalchemy.exc import DBAPIError

from .served import NO_CHROMIUM, SIZES, Site, find_chromium, launch, new_context


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("browser")


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    if find_chromium() is None:
        pytest.skip(NO_CHROMIUM)
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    started = launch(playwright)
    yield started
    started.close()


# -- Sites -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="package")
def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The demo, served. Tests share it: each makes what it changes."""
    served = Site(tmp_path_factory.mktemp("site"))
    try:
        served.start()
        served.seed()
        yield served
    finally:
        served.stop()


@pytest.fixture
def fresh_site(browser: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site that nobody has set up yet, on the engine that the test is parametrised with."""
    with_mysql = getattr(request, "param", "sqlite") == "mysql"
    if with_mysql and not MYSQL_URL:
        pytest.skip(NO_MYSQL)
    url = new_database() if with_mysql else ""
    served = Site(tmp_path, url)
    try:
        if with_mysql:
            served.flask("init-db")
        served.start()
        yield served
    finally:
        served.stop()
        if with_mysql:
            drop_database("browser")


def new_database() -> str:
    """A database beside the one that TEST_MYSQL_URL names, because other tests fill and clear that one."""
    try:
        return create_database("browser")
    except DBAPIError as error:
        if on_server("SHOW TABLES"):
            pytest.skip(f"TEST_MYSQL_URL may not create a database, and the one it names is in use: {error.orig}")
        return given_database().render_as_string(hide_password=False)


# -- Windows -----------------------------------------------------------------------------------------------------------

REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation",
  (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));
"""
# The browser says this of every refused form and every missing page. That it was refused is what tests ask for.
# ERR_FAILED is what a test gets that makes an answer disappear; a host that is not there is called otherwise.
EXPECTED = re.compile(r"Failed to load resource: (the server responded with a status of 4\d\d |net::ERR_FAILED)")


class Watch:
    """What pages may never do: ask another host, break the policy, or complain in the console."""

    def __init__(self, site: Site, context: BrowserContext) -> None:
        self.site, self.faults, self.refused = site, [], set()  # type: ignore[var-annotated]
        context.add_init_script(REPORT_VIOLATIONS)
        context.on("request", self.saw_request)
        context.on("response", self.saw_response)
        context.on("requestfailed", lambda request: self.refused.add(request.url))
        context.on("console", self.heard)
        context.on("weberror", lambda error: self.faults.append(f"script error: {error.error}"))

    def saw_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.site.url}/", "data:", "blob:")):
            self.faults.append(f"asked {request.url}")

    def saw_response(self, response: Response) -> None:
        if response.status >= 500:
            self.faults.append(f"{response.status} for {response.url}")
        elif response.status >= 400 and response.request.resource_type in ("document", "fetch", "xhr"):
            self.refused.add(response.url)

    def heard(self, message: ConsoleMessage) -> None:
        refused = EXPECTED.match(message.text) and message.location["url"] in self.refused
        if message.type in ("error", "warning") and not refused:
            self.faults.append(f"console: {message.text} ({message.location['url']})")


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Open a window: `visit(site, "nia", "phone", color_scheme="dark")`. What it may never do is checked at the end."""
    opened: list[tuple[BrowserContext, Watch]] = []

    def make(site: Site, username: str = "", size: str = "wide", theme: str = "light", **more: Any) -> Page:
        assert size in SIZES
        context = new_context(browser, site, username, size, color_scheme=theme, **more)
        opened.append((context, Watch(site, context)))
        return context.new_page()

    yield make
    for context, _watch in opened:
        context.close()
    assert [fault for _context, watch in opened for fault in watch.faults] == []
