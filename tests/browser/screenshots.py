"""The pictures of the README: a tour of the demo as it is served. Run: python tests/browser/screenshots.py"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from app import Post, User, utcnow  # noqa: E402
from browser.served import NO_CHROMIUM, Site, find_chromium, launch, new_context, settled  # noqa: E402
from database import db  # noqa: E402

FOLDER = ROOT / "deploy" / "pictures"
WHO = "hattie"


def nothing(_page: Page) -> None:
    """As the page comes."""


def search(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("bridge", delay=20)
    page.locator("[role=option]").first.wait_for()


def preview(page: Page) -> None:
    page.get_by_role("tab", name="Preview").click()
    page.locator("[role=tabpanel] table").first.wait_for()


class Picture(NamedTuple):
    """One stop of the tour; `{}` in the address stands for the id of the post with that title."""

    name: str
    address: str
    title: str = ""
    size: str = "wide"
    theme: str = "light"
    act: Callable[[Page], None] = nothing


PICTURES = (
    Picture("home-light", "/"),
    Picture("home-dark", "/", theme="dark"),
    Picture("post", "/posts/{}", "Lock Bridge closed to vans until further notice"),
    Picture("must-read", "/posts/{}/report", "The rota for the next four weeks is up"),
    Picture("handbook", "/posts/{}", "Rota and days off"),
    Picture("changes", "/posts/{}/history/compare?old=1&new=2", "Rota and days off"),
    Picture("write", "/posts/{}/edit", "Rota and days off", act=preview),
    Picture("search", "/", act=search),
    Picture("notifications", "/notifications"),
    Picture("people", "/people"),
    Picture("phone", "/", size="phone"),
)


def main() -> None:
    if find_chromium() is None:
        sys.exit(NO_CHROMIUM)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Site(Path(folder)) as site, sync_playwright() as playwright:
        site.start()
        site.seed()
        pretend_last_visit(site, timedelta(days=2))
        browser = launch(playwright)
        for picture in PICTURES:
            content = smaller(take(browser, site, picture))
            path = FOLDER / f"{picture.name}.png"
            path.write_bytes(content)
            print(f"{path.relative_to(ROOT)}, {len(content) // 1024} KB")
        browser.close()


def pretend_last_visit(site: Site, ago: timedelta) -> None:
    """Somebody who was here some time ago sees what is new since."""
    times = {"previous_visit_at": utcnow() - ago, "last_active_at": utcnow()}
    with site.app.app_context(), db.engine.begin() as connection:
        connection.execute(sa.update(User).where(User.username == WHO).values(**times))


def take(browser: Browser, site: Site, picture: Picture) -> bytes:
    context = new_context(browser, site, WHO, picture.size, color_scheme=picture.theme, reduced_motion="reduce")
    page = context.new_page()
    page.goto(picture.address.format(post_id(site, picture.title)))
    picture.act(page)
    try:
        return settled(page).screenshot()
    finally:
        context.close()


def post_id(site: Site, title: str) -> int | None:
    with site.app.app_context():
        return db.session.scalar(sa.select(Post.id).where(Post.title == title))


def smaller(png: bytes) -> bytes:
    """The same picture with a palette of 256 colors: a third of the size, and nobody sees it."""
    made = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(made, "PNG", optimize=True)
    return made.getvalue()


if __name__ == "__main__":
    main()
