"""The page for people, in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from routerr1.serve.engine import Identity
from routerr1.serve.keys import new_key
from tests.serve.conftest import FRANCE, Start

CHROMIUM = Path("/usr/bin/chromium")
needs_browser = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium")


@pytest.fixture
def browser() -> Iterator[Any]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"], timeout=120_000
        )
        yield started
        started.close()


def opened(browser: Any, url: str, width: int, scheme: str) -> tuple[Any, list[str]]:
    """The page, and what went wrong on it or was asked of other hosts."""
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.set_default_timeout(60_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.on(
        "request", lambda asked: None if asked.url.startswith(url) else problems.append(asked.url)
    )
    page.goto(url)
    return page, problems


@needs_browser
@pytest.mark.slow
def test_a_question_is_asked_compared_and_judged_by_keyboard_and_on_a_phone(
    start: Start, browser: Any
) -> None:
    from playwright.sync_api import expect

    running = start(candidates=["Atlas"])
    page, problems = opened(browser, running.url, 390, "dark")
    expect(page.locator("#about")).to_contain_text("simulated models: what they say is made up")
    expect(page.locator("#model option")).to_have_count(2)
    page.keyboard.press("Tab")
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.type(FRANCE)
    page.keyboard.press("Control+Enter")
    answer = page.locator("article .answer")
    expect(answer).to_have_text(re.compile("capital of France"))
    expect(page.locator(".steps .call")).to_have_text(f"asks Atlas: {FRANCE}")
    expect(page.locator(".steps .reply")).to_contain_text("$0.0")
    expect(page.locator("article > .figures")).to_contain_text(", 1 call, ")
    expect(page.locator("#said")).to_contain_text("Answer: ")
    page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
    page.locator(".judge input[name=answer]").fill("Paris")
    page.locator(".judge input[name=consent]").check()
    page.locator(".judge button", has_text="Wrong").click()
    expect(page.locator(".thanks")).to_have_text("Thank you.")
    (said,) = running.gateway.store.feedback()
    assert (said.score, said.answer, said.consent, said.question) == (0.0, "Paris", True, FRANCE)
    page.locator("#compare").check()
    page.locator("#spend").fill("7")
    page.locator("#go").click()
    expect(page.locator("article h2")).to_have_text(["routerr1, spend 7", "routerr1, spend 2"])
    expect(page.locator("article > .figures").nth(1)).to_contain_text("version 7")
    assert problems == []


@needs_browser
@pytest.mark.slow
def test_it_reads_in_light_and_dark_and_asks_for_a_key(start: Start, browser: Any) -> None:
    from playwright.sync_api import expect

    running = start()
    secret, key = new_key("person")
    running.gateway.store.add_key(key)
    backgrounds = set()
    for scheme in ("light", "dark"):
        page, _ = opened(browser, running.url, 1200, scheme)
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        expect(page.locator("#access")).to_have_attribute("open", "")
        page.locator("#key").fill(secret)
        page.locator("#key").blur()
        expect(page.locator("#model option")).to_have_count(1)
        page.locator("#question").fill(f"<img src=x onerror=alert(1)> {FRANCE}")
        page.locator("#go").click()
        expect(page.locator("article .answer")).not_to_be_empty()
        assert page.locator("article img").count() == 0
        page.close()
    assert len(backgrounds) == 2


@needs_browser
@pytest.mark.slow
def test_a_router_without_spend_levels_has_no_slider(start: Start, browser: Any) -> None:
    from playwright.sync_api import expect

    knn = Identity("routerr1", "7", "baseline/knn", "simulated", reads_spend=False)
    page, problems = opened(browser, start(identity=knn).url, 1200, "light")
    expect(page.locator("#about")).to_contain_text("baseline/knn")
    for each in ("#spend", "#spend2", "label[for=spend]", "label[for=spend2]"):
        expect(page.locator(each)).to_be_hidden()
    page.locator("#question").fill(FRANCE)
    page.locator("#go").click()
    expect(page.locator("article h2")).to_have_text(["routerr1"])
    assert problems == []


def test_the_page_allows_nothing_from_elsewhere(start: Start) -> None:
    running = start()
    for path in ("/", "/page.css", "/page.js"):
        found = httpx2.get(f"{running.url}{path}")
        assert found.status_code == 200
        assert "default-src 'none'" in found.headers["content-security-policy"]
        assert not re.search(r"https?://", found.text)


def test_the_description_is_a_page_too(start: Start) -> None:
    running = start()
    shown = httpx2.get(f"{running.url}/docs")
    paths = httpx2.get(f"{running.url}/openapi.json").json()["paths"]
    assert shown.status_code == 200
    assert len(paths) > 6
    assert all(f" {path}<" in shown.text for path in paths)
    assert '<h2 id="ChatRequest">' in shown.text
    assert "script" not in shown.text
