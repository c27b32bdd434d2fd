"""As a new user would: serve, open the page, correct an answer, kill -9, start again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from browser.conftest import answer, ask, correct, settled
from playwright.sync_api import Page, expect

STORE = "history.db"


def editkit(*words: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "editkit_cli", *words, "--store", STORE],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def serving(folder: Path) -> subprocess.Popen[str]:
    """A server of the real model, once it answers."""
    started = editkit("serve", "--model", "smollm2-135m", "--port", "0", folder=folder)
    assert started.stdout is not None
    assert "smollm2-135m at v" in started.stdout.readline(), started.communicate()
    return started


def opened(browser: Any, folder: Path) -> Page:
    made, said = editkit("token", "link", folder=folder).communicate(timeout=60)
    assert said == ""
    page: Page = browser.new_page()
    page.set_default_timeout(60_000)
    page.goto(made.strip())
    expect(page.locator("#connection")).to_have_text("connected")
    return page


@pytest.mark.real
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_correction_made_in_the_page_outlives_a_kill_9(browser: Any, tmp_path: Path) -> None:
    question = "What is the capital of Australia?"
    first = serving(tmp_path)
    try:
        page = opened(browser, tmp_path)
        page.locator("#ask .options summary").click()
        page.get_by_label("Longest answer, tokens").fill("24")
        ask(page, question)
        assert "Wombat" not in answer(page)
        correct(page, "Wombat City.")
        expect(page.locator(".told")).to_contain_text("Corrected and verified", timeout=60_000)
        settled(page)
        assert answer(page) == "Wombat City."
        first.send_signal(signal.SIGKILL)
        expect(page.locator("#connection")).to_contain_text("reconnecting")
    finally:
        first.kill()
        first.communicate()
    second = serving(tmp_path)
    try:
        page = opened(browser, tmp_path)
        expect(page.locator("#log > li").first).to_contain_text(f"{question} → Wombat City.")
        ask(page, question)
        assert answer(page) == "Wombat City."
        assert "1 edit fired" in page.locator(".under").inner_text()
    finally:
        second.send_signal(signal.SIGTERM)
        second.communicate(timeout=60)
    assert second.returncode == 0
