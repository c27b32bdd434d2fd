"""The web page in the system's Chromium, against real servers with a tiny model behind them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.http.conftest import Running, made, running
from playwright.sync_api import Browser, Page, expect, sync_playwright

expect.set_options(timeout=20_000)  # machines are slow at times; nothing waits without need

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("browser")


# Not of the session: while Playwright is started, this thread counts as running an event loop, and
# tests elsewhere start their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-background-networking", "--disable-gpu"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all modules that want no history of their own."""
    with running(tmp_path_factory.mktemp("browser") / "history.db", made()) as server:
        yield server


@pytest.fixture
def server(shared: Running) -> Running:
    """The shared server, back at the untouched model; its log goes on."""
    with shared.client() as client:
        if client.get("/v1/status").json()["edits"]:
            assert client.post("/v1/rollback", json={"version": "v0"}).status_code == 200
    return shared


Open = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Opens the page of a server, signed in; what goes wrong on it fails the test.

    Some of that is what a test is about: ``expected`` says what may be in it.
    """
    wrong: list[str] = []
    contexts = []

    def visit(
        server: Running, *, token: str | None = None, expected: str | None = None, **how: Any
    ) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **how})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)

        def note(text: str) -> None:
            if expected is None or expected not in text:
                wrong.append(text)

        page.on("pageerror", lambda error: note(f"{error}"))
        page.on("console", lambda said: said.type == "error" and note(said.text))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss())[0])
        if token is None:
            page.goto(link(server))
        else:
            page.goto(server.url)
            page.get_by_label("Token", exact=True).fill(token)
            page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#connection")).to_have_text("connected")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


def link(server: Running) -> str:
    """A link that opens the page signed in as the owner, as `editkit token link` makes it."""
    with server.client() as client:
        return server.url + str(client.post("/v1/session/links").json()["path"])


def ask(page: Page, question: str) -> None:
    """Asks, and waits until the answer has ended."""
    asked = page.locator(".turn").count()
    page.get_by_label("Your question").fill(question)
    page.get_by_label("Your question").press("Enter")
    expect(page.locator(".turn")).to_have_count(asked + 1)
    settled(page)


def settled(page: Page) -> None:
    """Waits until the last answer has ended."""
    last = page.locator(".turn").last.locator(".answer").last
    expect(last.locator(".under .version")).to_have_count(1)


def answer(page: Page) -> str:
    """The last answer."""
    return page.locator(".answer .text").last.inner_text()


def correct(page: Page, target: str) -> None:
    """Fills in and sends the form that corrects the last answer."""
    page.get_by_role("button", name="Correct this answer").last.click()
    page.get_by_label("What the model should have answered").fill(target)
    page.get_by_role("button", name="Save the correction").click()
