"""That the watch over every window sees what it is there for; else all other tests here would prove less."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, BrowserContext

from .conftest import Watch
from .served import Site, new_context

PICTURE = "document.body.append(Object.assign(new Image(), {src: '%s'}))"
SCRIPT = "document.body.append(Object.assign(document.createElement('script'), {textContent: '1'}))"
STYLE = "document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">words</p>')"
FAULTS = {  # name → what happens, what is heard of it
    "another host": (PICTURE % "http://example.com/x.png", "CSP: img-src"),
    "a missing file": (PICTURE % "/static/nothing.png", "404"),
    "an inline script": (SCRIPT, "CSP: script-src"),
    "an inline style": (STYLE, "CSP: style-src"),
    "a complaint": ("console.error('something is wrong')", "console: something is wrong"),
    "a crash": ("setTimeout(() => { throw new Error('it broke'); })", "it broke"),
}


@pytest.fixture
def context(browser: Browser, site: Site) -> BrowserContext:
    opened = new_context(browser, site)
    yield opened
    opened.close()


@pytest.mark.parametrize(("script", "seen"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_seen(context: BrowserContext, site: Site, script: str, seen: str) -> None:
    watch = Watch(site, context)
    page = context.new_page()
    page.goto("/login")
    assert watch.faults == []
    page.evaluate(f"() => {{ {script} }}")
    page.wait_for_timeout(300)
    assert any(seen in fault for fault in watch.faults), watch.faults


def test_a_request_to_another_host_is_seen_even_where_the_policy_allows_it(browser: Browser, site: Site) -> None:
    opened = new_context(browser, site, bypass_csp=True)
    watch = Watch(site, opened)
    page = opened.new_page()
    page.goto("/login")
    page.evaluate("fetch('http://example.com/').catch(() => 0)")
    opened.close()
    assert "asked http://example.com/" in watch.faults
