"""A served site and a browser to look at it with: what the tests of this folder and the README's pictures share."""

from __future__ import annotations

import os
import secrets
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import serving
import sqlalchemy as sa
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Page, Playwright

import app as corkboard
from app import SignIn, User
from config import ProductionConfig
from database import db

SIZES = {"wide": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 780}}
NO_CHROMIUM = "no chromium was found, also not by $CHROMIUM (Debian: apt-get install chromium)"
# Nothing of the browser's own, and no name is ever looked up: what asks for another host fails, and is seen.
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
]


def find_chromium() -> str | None:
    named = os.environ.get("CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)


class Site(serving.Site):
    """A served site; and the same application in this process, to prepare things and to count them."""

    def __init__(self, folder: Path, database_url: str = "") -> None:
        super().__init__(folder, database_url, HOST="127.0.0.1", TIMEZONE="UTC")
        self.url = f"http://127.0.0.1:{self.port}"
        self.passwords: dict[str, str] = {}

    def stop(self) -> None:
        super().stop()
        if "app" in self.__dict__:
            with self.app.app_context():
                db.engine.dispose()

    def seed(self) -> None:
        """Fill it with the demo; `passwords` has everybody's from then on.

        What is older has the lower id: the post about the Heron Hotel, the newest, is 81, the till rolls are 78.
        """
        lines = self.flask("seed-demo").partition("shown this once:")[2].splitlines()
        self.passwords = {words[0]: words[-1] for words in map(str.split, lines) if words}

    def setup_link(self) -> str:
        """Where a start leaves the link that sets the site up, when nobody watches its terminal."""
        return (self.folder / "setup-link.txt").read_text(encoding="utf-8").strip()

    @cached_property
    def app(self) -> Flask:
        return corkboard.create_app(ProductionConfig(self.environ))

    def user(self, username: str) -> Any:
        """A person, as what they do takes them."""
        return db.session.scalar(sa.select(User).where(User.username == username))

    def cookie(self, username: str) -> dict[str, Any]:
        """A cookie that is signed in as somebody, without the half second that their password takes."""
        with self.app.app_context():
            token = SignIn.start(self.user(username).id, False, "Chrome on Linux", "127.0.0.1")
            db.session.rollback()
        signer = self.app.session_interface.get_signing_serializer(self.app)  # type: ignore[attr-defined]
        value = signer.dumps({"token": token, "csrf_token": secrets.token_hex(20)})
        return {"name": self.app.config["SESSION_COOKIE_NAME"], "value": value, "url": self.url}

    def end_sign_ins(self, username: str) -> None:
        """Sign somebody out everywhere, behind their back."""
        with self.app.app_context():
            SignIn.end_others(self.user(username), 0)
            db.session.rollback()

    def count(self, statement: sa.Select[Any]) -> int:
        with self.app.app_context():
            return db.session.scalar(sa.select(sa.func.count()).select_from(statement.subquery())) or 0


def new_context(browser: Browser, site: Site, username: str = "", size: str = "wide", **more: Any) -> BrowserContext:
    """A browser window's world, signed in as somebody where a name is given."""
    context = browser.new_context(base_url=site.url, viewport=SIZES[size], **more)  # type: ignore[arg-type]
    context.set_default_timeout(15_000)
    if username:
        context.add_cookies([site.cookie(username)])  # type: ignore[list-item]
    return context


def settled(page: Page) -> Page:
    """A page whose fonts are there, and nothing of which is still on its way somewhere."""
    page.wait_for_load_state()
    page.evaluate("document.fonts.ready.then(() => 0)")
    return page
