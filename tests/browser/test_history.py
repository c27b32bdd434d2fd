"""The history beside the chat: paging, filtering, comparing, tagging, and moving about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser.conftest import Running
from cli.http.conftest import made, running
from playwright.sync_api import Page, expect


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with three edits, of which the first two are v1 and v2."""
    with running(Path(tmp_path_factory.mktemp("history")) / "history.db", made()) as server:
        server.add("The red cat is", "blue", author="ada", reason="it is painted")
        server.add("four dogs: ", "white")
        server.add("Oslo moon ", "green")
        yield server


def entry(page: Page, version: str) -> Any:
    """An operation of the log, unfolded."""
    found = page.locator("#log > li", has=page.locator(f'.version:text-is("{version}")')).first
    found.locator("summary").click()
    return found


def test_versions_are_listed_newest_first_with_who_when_and_why(shared: Any, visit: Any) -> None:
    page = visit(shared)
    versions = page.locator("#log > li .version")
    expect(versions).to_have_text(["v3", "v2", "v1", "v0"])
    expect(page.locator("#log > li").first).to_contain_text("current")
    expect(page.locator("#running")).to_have_text("LlamaForCausalLM at v3")
    expect(page.locator("#count")).to_have_text("3 active edits")
    first = entry(page, "v1")
    expect(first.locator("dl")).to_contain_text("ada")
    expect(first.locator("dl")).to_contain_text("it is painted")
    when = shared.kit.log()[-1].model_dump(mode="json")["time"]
    expect(first.locator("time")).to_have_attribute("datetime", when)


def test_a_filter_finds_what_the_log_has_in_prompt_target_or_author(
    shared: Any, visit: Any
) -> None:
    page = visit(shared)
    versions = page.locator("#log > li .version")
    for text, found in (("DOGS", ["v2"]), ("green", ["v3"]), ("ada", ["v1"]), ("nowhere", [])):
        page.get_by_label("Filter the history").fill(text)
        expect(versions).to_have_text(found)
    expect(page.locator("#log")).to_contain_text("Nothing matches")
    page.get_by_label("Filter the history").fill("")
    expect(versions).to_have_count(4)


def test_two_versions_are_compared_and_the_model_asked_at_both(shared: Any, visit: Any) -> None:
    page = visit(shared)
    entry(page, "v2").get_by_role("button", name="What changed").click()
    box = page.get_by_role("dialog", name="Compare versions")
    expect(box.get_by_label("From")).to_have_value("v1")
    expect(box.get_by_label("To")).to_have_value("v2")
    expect(box).to_contain_text("1 edit came, 0 went.")
    expect(box.locator(".came")).to_contain_text("four dogs: → white")
    box.get_by_label("From").select_option("v2")
    box.get_by_label("To").select_option("v0")
    expect(box).to_contain_text("0 edits came, 2 went.")
    box.get_by_label("Ask the model at both").check()
    row = box.get_by_role("row").filter(has_text="The red cat is")
    expect(row).to_contain_text("blue")
    expect(row).to_contain_text("changed")
    page.keyboard.press("Escape")
    expect(box).to_have_count(0)


def test_a_reader_sees_the_history_and_no_control_that_changes_it(shared: Any, visit: Any) -> None:
    page = visit(shared, token=shared.token("read"))
    expect(page.locator("#log > li .version").first).to_have_text("v3")
    opened = entry(page, "v1")
    expect(opened.get_by_role("button")).to_have_text(["What changed"])
    for name in ("Undo", "Redo"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    page.get_by_label("Your question").fill("The red cat is")
    page.get_by_label("Your question").press("Enter")
    expect(page.get_by_role("button", name="Why")).to_be_visible()
    expect(page.get_by_role("button", name="Correct this answer")).to_have_count(0)
    editor = visit(shared, token=shared.token("edit"))
    names = ["What changed", "Revert this edit", "Roll back to here"]
    expect(entry(editor, "v1").get_by_role("button")).to_have_text(names)


def test_tag_revert_roll_back_undo_and_redo(shared: Any, visit: Any) -> None:
    page = visit(shared)
    said = page.locator("#historysaid")
    count = page.locator("#count")

    opened = entry(page, "v2")
    opened.get_by_role("button", name="Tag").click()
    page.get_by_role("dialog").get_by_label("Name").fill("prod")
    page.get_by_role("dialog").get_by_label("Name").press("Enter")
    expect(said).to_have_text("v2 is tagged prod.")
    expect(page.locator("#log .tag")).to_have_text("prod")
    assert page.get_by_label("Answers of").locator('[value="v2"]').inner_text() == "v2, prod"

    revert = opened.get_by_role("button", name="Revert this edit")
    revert.click()
    expect(page.get_by_role("dialog")).to_contain_text("“four dogs: ” will no longer be answered")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(count).to_have_text("3 active edits")
    revert.click()
    page.get_by_role("dialog").get_by_role("button", name="Revert").click()
    expect(said).to_contain_text("Now at v4")
    expect(count).to_have_text("2 active edits")
    expect(opened.locator(".status")).to_have_text("reverted")

    entry(page, "v1").get_by_role("button", name="Roll back to here").click()
    expect(page.get_by_role("dialog")).to_contain_text("The edits of v1 become the active ones")
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(count).to_have_text("2 active edits")
    page.get_by_role("button", name="Roll back to here").last.click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(count).to_have_text("1 active edit")
    page.get_by_role("button", name="Undo").click()
    expect(count).to_have_text("2 active edits")
    page.get_by_role("button", name="Redo").click()
    expect(count).to_have_text("1 active edit")
    page.get_by_role("button", name="Redo").click()
    expect(said.get_by_role("alert")).to_contain_text("nothing to redo")
    kinds = [one.operation for one in shared.kit.log(limit=5)]
    assert kinds == ["redo", "undo", "rollback", "revert", "tag"]


def test_older_versions_come_a_page_at_a_time_and_v0_is_the_end(shared: Any, visit: Any) -> None:
    with shared.client() as client:
        for number in range(40):
            body = {"version": "v1", "name": f"t{number}"}
            assert client.post("/v1/versions/tag", json=body).status_code == 200
        count = len(client.get("/v1/versions?limit=1000").json())
    page = visit(shared)
    entries = page.locator("#log > li")
    expect(entries).to_have_count(30)
    page.get_by_role("button", name="Show older").click()
    expect(entries).to_have_count(count + 1)
    expect(entries.nth(30).locator("summary")).to_be_focused()
    expect(entries.last).to_contain_text("The model as it came")
    expect(page.get_by_role("button", name="Show older")).to_be_hidden()
