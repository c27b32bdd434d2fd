"""Who cannot use a mouse, has a narrow screen, or needs contrast, can use the page too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser.conftest import Running, answer, ask, link, settled
from cli.http.conftest import made, running
from playwright.sync_api import Page, expect

LONG = "The" + "verylongword" * 12 + " of which there is no end: " + "cat dog bird " * 8


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose history holds long texts and every mark that an entry can have."""
    with running(Path(tmp_path_factory.mktemp("access")) / "history.db", made()) as server:
        server.add(LONG, "blue", author="ada", reason=LONG)
        server.add("four dogs: ", "black")
        with server.client() as client:
            client.post("/v1/versions/tag", json={"version": "@", "name": "prod-2026-long-name"})
            client.post("/v1/edits/@/revert")
            client.post("/v1/undo")
            client.post("/v1/rollback", json={"version": "v1"})
        yield server


def focused(page: Page) -> str:
    """What has the focus, as a screen reader would name it."""
    return str(
        page.evaluate(
            """() => {
              const one = document.activeElement;
              return one.labels?.[0]?.textContent ?? one.getAttribute("aria-label")
                ?? one.textContent.trim();
            }"""
        )
    )


def expect_focus(page: Page, name: str) -> None:
    """Holds that the focus comes to something; a dialog gives it back a moment after it closes."""
    for _ in range(50):
        if focused(page) == name:
            return
        page.wait_for_timeout(100)
    assert focused(page) == name


def tab_to(page: Page, name: str, key: str = "Tab") -> None:
    """Presses Tab until something has the focus, and holds that the focus shows on the way."""
    for _ in range(60):
        page.keyboard.press(key)
        style = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(style) != "none", focused(page)
        if focused(page) == name:
            return
    raise AssertionError(f"'{name}' cannot be reached; the focus is on '{focused(page)}'")


def test_the_whole_loop_needs_no_mouse(shared: Any, visit: Any) -> None:
    page = visit(shared)
    expect_focus(page, "Your question")
    page.keyboard.type("seven moon")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("tea ")
    assert page.locator(".turn").count() == 0
    page.keyboard.press("Enter")
    settled(page)
    assert page.locator(".question").inner_text() == "seven moon\ntea"
    tab_to(page, "Correct this answer", "Shift+Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect_focus(page, "Correct this answer")
    page.keyboard.press("Space")
    expect_focus(page, "What the model should have answered")
    page.keyboard.type("gold")  # over what was there: it is selected
    page.keyboard.press("Enter")
    expect(page.locator(".told")).to_be_focused()
    settled(page)
    assert answer(page) == "gold"
    tab_to(page, "Why")
    page.keyboard.press("Enter")
    expect(page.get_by_role("group", name="Why")).to_contain_text("fires")
    page.keyboard.press("Escape")
    tab_to(page, "Undo")
    page.keyboard.press("Enter")
    expect(page.locator("#historysaid")).to_contain_text("Now at")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#log summary')"):
            break
    page.keyboard.press("Enter")
    tab_to(page, "What changed")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("went")
    page.keyboard.press("Escape")
    expect_focus(page, "What changed")


def test_every_control_has_a_name_and_what_changes_is_announced(shared: Any, visit: Any) -> None:
    page = visit(shared)
    ask(page, "cat")
    page.get_by_role("button", name="Correct this answer").click()
    for summary in page.locator("summary").all():
        summary.click()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea")]
          .filter((one) => !(one.labels?.length || one.textContent.trim()
                             || one.getAttribute("aria-label")))
          .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    expect(page.get_by_role("log", name="Conversation")).to_be_visible()
    for place in ("#connection", "#learningtext", "#historysaid", "#doorsaid"):
        assert page.locator(place).get_attribute("role") == "status"
    expect(page.locator(".correct .outcome")).to_have_attribute("aria-live", "polite")


def opened_up(page: Page, url: str) -> Iterator[str]:
    """Goes through the states of the page, telling each."""
    yield "empty"
    ask(page, LONG)
    page.get_by_role("button", name="Why").click()
    expect(page.get_by_role("group", name="Why")).to_contain_text("Nearest edits")
    yield "why"
    page.get_by_role("button", name="Correct this answer").click()
    page.get_by_text("More about it").click()
    yield "correcting"
    if page.locator("#panes").is_visible():
        page.get_by_role("button", name="History").click()
    for summary in page.locator("#log summary").all():
        summary.click()
    yield "history"
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("dialog").get_by_label("From").select_option("v0")
    page.get_by_role("dialog").get_by_label("Ask the model at both").check()
    expect(page.get_by_role("dialog").get_by_role("table")).to_be_visible()
    yield "diff"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Roll back to here").first.click()
    yield "confirming"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token", exact=True)).to_be_visible()
    page.goto(f"{url}/#key=wrong")
    expect(page.locator("#doorsaid")).to_contain_text("the link has been used")
    yield "door"


def test_nothing_is_wider_than_a_phone(shared: Any, visit: Any) -> None:
    page = visit(shared, viewport={"width": 360, "height": 640}, expected="403")
    wide = []
    for state in opened_up(page, shared.url):
        found = page.evaluate(
            """() => [...document.querySelectorAll("*")].filter((one) => {
              const box = one.getBoundingClientRect();
              return box.width > 1 && (box.right > innerWidth + 1 || box.left < -1);
            }).map((one) => `${one.tagName}.${one.className}#${one.id}`)"""
        )
        width = page.evaluate("document.scrollingElement.scrollWidth")
        if found or width > 360:
            wide.append((state, width, found))
    assert wide == []


CONTRASTS = """() => {
  const rgb = (text) => {
    const [r, g, b, a] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a ?? 1];
  };
  const light = (color) => {
    const [r, g, b] = color.map((one) => one / 255)
      .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const found = rgb(getComputedStyle(at).backgroundColor);
      if (found[3] === 1) return found.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    const hasText = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const isField = one.matches("input, textarea, select");
    if (!one.checkVisibility() || !(hasText || isField) || one.closest(".unseen")) continue;
    const [a, b] = [light(rgb(getComputedStyle(one).color)), light(behind(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([Number(ratio.toFixed(2)), `${one.tagName}.${one.className}#${one.id}`]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_that_wcag_aa_asks_for(
    shared: Any, visit: Any, scheme: str
) -> None:
    page = visit(shared, color_scheme=scheme, expected="403")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(246, 247, 247)", "dark": "rgb(17, 22, 22)"}[scheme]
    for state in opened_up(page, shared.url):
        found = page.evaluate(CONTRASTS)
        assert len(found) > 5, state
        assert [one for one in found if one[0] < 4.5] == [], state


def test_a_page_that_cannot_sign_in_says_how(shared: Any, browser: Any) -> None:
    page = browser.new_page()
    page.goto(shared.url)
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    expect(page.locator("#door")).to_contain_text("editkit token link")
    page.goto(link(shared))
    expect(page.locator("#connection")).to_have_text("connected")
    page.close()
