"""The pictures of the README, taken from the demo as it is served: python tests/browser/screenshots.py"""

from __future__ import annotations

import base64
import collections
import struct
import sys
import tempfile
import zlib
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from app import User, utcnow  # noqa: E402
from browser.served import NO_CHROMIUM, Site, find_chromium, launch, new_context, settled  # noqa: E402
from database import db  # noqa: E402

FOLDER = ROOT / "deploy" / "pictures"
PICTURES = {  # name → address, size, theme
    "home-light": ("/", "wide", "light"),
    "home-dark": ("/", "wide", "dark"),
    "post": ("/posts/1", "wide", "light"),
    "phone": ("/", "phone", "light"),
}
WHO = "hattie"
PIXELS = """async (png) => {
  const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const { data, width, height } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  let text = "";
  for (let i = 0; i < data.length; i += 32768) text += String.fromCharCode(...data.subarray(i, i + 32768));
  return [width, height, btoa(text)];
}"""


def main() -> None:
    if find_chromium() is None:
        sys.exit(NO_CHROMIUM)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Site(Path(folder)) as site, sync_playwright() as playwright:
        site.start()
        site.seed()
        pretend_last_visit(site, timedelta(days=2))
        browser = launch(playwright)
        for name, (address, size, theme) in PICTURES.items():
            picture = smaller(browser, take(browser, site, address, size, theme))
            (FOLDER / f"{name}.png").write_bytes(picture)
            print(f"{(FOLDER / name).relative_to(ROOT)}.png, {len(picture) // 1024} KB")
        browser.close()


def pretend_last_visit(site: Site, ago: timedelta) -> None:
    """Somebody who was here some time ago sees what is new since."""
    times = {"previous_visit_at": utcnow() - ago, "last_active_at": utcnow()}
    with site.app.app_context(), db.engine.begin() as connection:
        connection.execute(sa.update(User).where(User.username == WHO).values(**times))


def take(browser: Browser, site: Site, address: str, size: str, theme: str) -> bytes:
    context = new_context(browser, site, WHO, size, color_scheme=theme, reduced_motion="reduce")
    page = context.new_page()
    page.goto(address)
    try:
        return settled(page).screenshot()
    finally:
        context.close()


def smaller(browser: Browser, png: bytes) -> bytes:
    """The same picture with a palette of its 256 commonest colors: a third of the size, and nobody sees it."""
    page = browser.new_page()
    try:
        width, height, pixels = pixels_of(page, png)
    finally:
        page.close()
    colors = [pixels[at : at + 3] for at in range(0, len(pixels), 4)]
    palette = [color for color, _count in collections.Counter(colors).most_common(256)]
    index = {color: nearest(color, palette) for color in set(colors)}
    indices = bytes(index[color] for color in colors)
    rows = b"".join(b"\0" + indices[at : at + width] for at in range(0, len(indices), width))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", b"".join(palette)), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in chunks)


def pixels_of(page: Page, png: bytes) -> tuple[int, int, bytes]:
    width, height, pixels = page.evaluate(PIXELS, base64.b64encode(png).decode())
    return width, height, base64.b64decode(pixels)


def nearest(color: bytes, palette: list[bytes]) -> int:
    return min(range(len(palette)), key=lambda at: sum((a - b) ** 2 for a, b in zip(color, palette[at], strict=True)))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


if __name__ == "__main__":
    main()
