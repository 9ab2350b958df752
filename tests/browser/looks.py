"""What is wrong with how a page looks: for eyes that need contrast, hands that need room, and narrow screens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from .served import SIZES, settled

AXE = Axe()
# Target size is WCAG 2.2 AA (24 px), which axe leaves out unless asked.
RULES = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
COLORS = {"resultTypes": ["violations"], "runOnly": ["color-contrast", "link-in-text-block"]}  # what a theme changes

# On a phone, what acts is at least 44 px each way; links in running text and in what people wrote are as large as it.
SMALL_CONTROLS = """() => [...document.querySelectorAll("a, button, summary, select, textarea, input")]
  .filter((element) => element.checkVisibility() && !element.closest(".prose, p, .skip, small, .summary, label.choice"))
  .filter((element) => !(element.matches("a") && element.closest("h1, h2, h3, dd")))
  .map((element) => [element.outerHTML.slice(0, 90), element.getBoundingClientRect()])
  .filter(([, box]) => box.width > 1 && box.height > 1 && (box.width < 43.5 || box.height < 43.5))
  .map(([html, box]) => `${html} is ${Math.round(box.width)} × ${Math.round(box.height)}`)"""
TWICE = """() => [...document.querySelectorAll("[id]")].map((node) => node.id)
  .filter((id, place, all) => all.indexOf(id) !== place)"""
OUTSIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll("body *")]
  .filter((element) => element.checkVisibility() && element.getBoundingClientRect().right > innerWidth + 1)
  .map((element) => element.outerHTML.slice(0, 90)).slice(0, 3)"""


def faults_of(page: Page, name: str = "", within: str = "html") -> list[str]:
    """What is wrong with a page as it stands now, or with a part of it, at both widths and in both themes."""
    settled(page)
    page.emulate_media(reduced_motion="reduce")  # a color on its way to another one is neither
    name = name or page.url
    faults = [f"{name}: {fault}" for fault in _faults(page, within)]
    page.set_viewport_size(SIZES["wide"])  # type: ignore[arg-type]
    page.emulate_media(color_scheme="light")
    return faults


def _faults(page: Page, within: str) -> Iterator[str]:
    yield from (f"two elements are called {name}" for name in page.evaluate(TWICE))
    for size, box in SIZES.items():
        page.set_viewport_size(box)  # type: ignore[arg-type]
        page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")  # what the header covers for a moment is no fault
        for theme, rules in (("light", RULES), ("dark", COLORS)):
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            yield from (f"{size}, {theme}: {fault}" for fault in _axe(page, within, rules))
        yield from (f"{size}: wider than the window: {html}" for html in page.evaluate(OUTSIDE))
    yield from (f"small on a phone: {words}" for words in page.evaluate(SMALL_CONTROLS))


def _axe(page: Page, within: str, rules: dict[str, Any]) -> Iterator[str]:
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.axe_script)
    run = "([within, options]) => axe.run(within, options).then(({ violations }) => violations)"
    found: list[dict[str, Any]] = page.evaluate(run, [within, rules])
    for rule in found:
        for node in rule["nodes"][:3]:
            yield f"{rule['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
