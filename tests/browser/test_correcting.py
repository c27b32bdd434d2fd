"""Asking, correcting an answer where it stands, and seeing why."""

from __future__ import annotations

import re
from typing import Any

from browser.conftest import answer, ask, correct, settled
from playwright.sync_api import expect


def test_an_answer_is_corrected_in_place_and_asked_again(server: Any, visit: Any) -> None:
    page = visit(server)
    ask(page, "The red cat is")
    before = answer(page)
    assert before not in ("", "blue")
    page.get_by_role("button", name="Correct this answer").click()
    target = page.get_by_label("What the model should have answered")
    expect(target).to_be_focused()
    expect(target).to_have_value(before)
    target.fill("blue")
    page.get_by_text("More about it").click()
    page.get_by_label("Reason, for the history").fill("it is painted")
    page.get_by_label("Other wordings of the question, one a line").fill("red cat:\n\n cat, red")
    page.get_by_role("button", name="Save the correction").click()
    told = page.locator(".told")
    expect(told).to_contain_text("Corrected and verified: blue")
    expect(told).to_contain_text("Reach: ")
    settled(page)
    assert answer(page) == "blue"
    assert page.locator(".answer.old > .text").inner_text() == before
    assert "1 edit fired" in page.locator(".under").last.inner_text()
    newest = page.locator("#log > li").first
    expect(newest).to_contain_text("The red cat is → blue")
    expect(newest).to_contain_text("current")
    with server.client() as client:
        (edit, *_) = reversed(client.get("/v1/edits").json())
    assert (edit["prompt"], edit["target"]) == ("The red cat is", "blue")
    assert edit["chat"] == [{"role": "user", "content": "The red cat is"}]
    assert edit["rephrases"] == ["red cat:", "cat, red"]
    assert edit["reason"] == "it is painted"
    assert edit["conversation"]


def test_a_correction_in_mid_conversation_is_made_with_what_was_said_before(
    server: Any, visit: Any
) -> None:
    page = visit(server)
    page.locator("#ask .options summary").click()
    page.get_by_label("System message").fill("yes")
    ask(page, "The first star is")
    first = answer(page)
    ask(page, "The second sea is")
    correct(page, "gold")
    expect(page.locator(".told")).to_contain_text("gold")
    with server.client() as client:
        newest = client.get("/v1/versions?limit=1").json()[0]
        edit = client.get(f"/v1/edits/{newest['edit_id']}").json()
    assert [(turn["role"], turn["content"]) for turn in edit["chat"]] == [
        ("system", "yes"),
        ("user", "The first star is"),
        ("assistant", first),
        ("user", "The second sea is"),
    ]


def test_why_tells_what_explain_tells_in_words_and_numbers(server: Any, visit: Any) -> None:
    server.add(None, "gold", chat=[{"role": "user", "content": "The old moon is"}])
    page = visit(server)
    ask(page, "The old moon is")
    assert answer(page) == "gold"
    page.get_by_role("button", name="Why").click()
    box = page.get_by_role("group", name="Why")
    expect(box.locator(".candidate.fired")).to_have_count(1)
    with server.client() as client:
        found = client.post(
            "/v1/explain", json={"chat": [{"role": "user", "content": "The old moon is"}]}
        ).json()
    expect(box).to_contain_text(found["summary"])
    nearest = found["candidates"][0]
    expect(box.locator(".candidate.fired")).to_contain_text("The old moon is → gold")
    expect(box.locator(".candidate.fired")).to_contain_text(
        f"{nearest['distance']:.3g} away, reaches {nearest['radius']:.3g}: fires"
    )
    page.keyboard.press("Escape")
    expect(box).to_have_count(0)
    expect(page.get_by_role("button", name="Why")).to_be_focused()


def test_an_edit_is_told_beside_an_answer_that_it_should_apply_there_or_not(
    server: Any, visit: Any
) -> None:
    edit = server.add(None, "gold", chat=[{"role": "user", "content": "The old moon is"}])["edit"]
    page = visit(server)
    ask(page, "see Oslo")
    answer(page)
    page.get_by_role("button", name="Why").click()
    nearest = page.locator(".candidate").filter(has_text="The old moon is")
    nearest.get_by_role("button", name="Should apply here").click()
    expect(page.locator(".told")).to_contain_text("Applies here, verified: The old moon is → gold")
    expect(page.locator(".answer:not(.old) .text")).to_have_text("gold")
    expect(page.locator("#log li").first).to_contain_text("also 'see Oslo'")
    page.get_by_role("button", name="Why").click()
    expect(page.locator(".candidate.fired")).to_contain_text("adjusted: applies here")
    page.get_by_role("button", name="Should not apply here").click()
    expect(page.locator(".told").last).to_contain_text("No longer applies here")
    expect(page.locator(".answer:not(.old) .under").last).to_contain_text("no edit fired")
    with server.client() as client:
        newest = client.get("/v1/versions?limit=1").json()[0]
    assert (newest["operation"], newest["detail"]) == ("adjust", "not 'see Oslo'")
    assert newest["edit_id"] == edit["id"]


def test_an_edit_always_applies_to_its_own_prompt_and_the_page_says_so(
    server: Any, visit: Any
) -> None:
    server.add(None, "gold", chat=[{"role": "user", "content": "The old moon is"}])
    page = visit(server, expected="400")
    ask(page, "The old moon is")
    answer(page)
    page.get_by_role("button", name="Why").click()
    page.get_by_role("button", name="Should not apply here").click()
    expect(page.get_by_role("alert")).to_contain_text("is the edit's own prompt")


def test_who_may_only_read_gets_no_buttons_that_adjust(server: Any, visit: Any) -> None:
    server.add(None, "gold", chat=[{"role": "user", "content": "The old moon is"}])
    page = visit(server, token=server.token("read"))
    ask(page, "The old moon is")
    answer(page)
    page.get_by_role("button", name="Why").click()
    expect(page.locator(".candidate.fired")).to_have_count(1)
    expect(page.get_by_role("button", name="Should not apply here")).to_have_count(0)


def test_a_correction_that_contradicts_another_says_so_before_it_replaces_it(
    server: Any, visit: Any
) -> None:
    server.add(None, "iron", chat=[{"role": "user", "content": "The good milk is"}])
    page = visit(server)
    ask(page, "The good milk is")
    correct(page, "salt")
    alert = page.locator(".correct").get_by_role("alert")
    expect(alert).to_contain_text("The good milk is")
    expect(alert).to_contain_text("iron")
    assert server.kit.log(limit=1)[0].target == "iron", "nothing was changed"
    alert.get_by_role("button", name="Replace it").click()
    expect(page.locator(".told")).to_contain_text("It goes before")
    settled(page)
    assert answer(page) == "salt"


def test_a_correction_that_does_not_verify_is_told_and_the_form_stays(
    server: Any, visit: Any
) -> None:
    page = visit(server)
    ask(page, "The bad tea is")
    correct(page, "supercalifragilistic expialidocious, as they say")
    alert = page.locator(".correct").get_by_role("alert")
    expect(alert).to_contain_text("did not verify")
    expect(alert).to_contain_text("not active")
    expect(page.get_by_label("What the model should have answered")).to_be_visible()
    expect(page.locator("#log > li").first).to_contain_text("failed")


def test_an_older_version_answers_as_it_did_and_is_corrected_at_the_current_one(
    server: Any, visit: Any
) -> None:
    server.add(None, "silver", chat=[{"role": "user", "content": "The new horse is"}])
    page = visit(server)
    page.get_by_label("Answers of").select_option("v0")
    ask(page, "The new horse is")
    assert answer(page) != "silver"
    assert page.locator(".under .version").last.inner_text() == "v0"
    page.get_by_role("button", name="Correct this answer").click()
    expect(page.locator(".panel")).to_contain_text("an answer of v0, an older version")
    page.get_by_role("button", name="Answer from the current version").click()
    expect(page.get_by_label("Answers of")).to_have_value("")
    page.get_by_role("button", name="New conversation").click()
    ask(page, "The new horse is")
    assert answer(page) == "silver"


def test_a_question_that_cannot_be_answered_says_why_and_can_be_asked_again(
    server: Any, visit: Any
) -> None:
    page = visit(server, expected="400")
    page.get_by_label("Your question").fill("cat " * 400)
    page.get_by_label("Your question").press("Enter")
    alert = page.locator(".answer").get_by_role("alert")
    expect(alert).to_contain_text("do not fit into the model's context window")
    expect(alert).to_contain_text("shorten the prompt")
    expect(alert.get_by_role("button", name="Try again")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_an_answer_can_be_stopped_and_what_was_said_stays(server: Any, visit: Any) -> None:
    page = visit(server)
    # An answer that never ends: what is shown of it came from the stream, and nothing else will.
    page.evaluate(
        """() => {
          const fetched = window.fetch;
          window.fetch = async (path, how) => {
            if (!path.includes("completions")) return fetched(path, how);
            const chunk = {version: "v9", choices: [{delta: {content: "one two"}}]};
            const stream = new ReadableStream({ start(controller) {
              const bytes = new TextEncoder().encode(`data: ${JSON.stringify(chunk)}\\n\\n`);
              controller.enqueue(bytes);
              how.signal.addEventListener("abort", () => controller.error(how.signal.reason));
            } });
            return new Response(stream);
          };
        }"""
    )
    page.get_by_label("Your question").fill("count")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".answer .text")).to_have_text("one two")
    expect(page.locator(".answer")).to_have_attribute("aria-busy", "true")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".under")).to_contain_text(re.compile("v9.*stopped"))
    expect(page.locator(".answer .text")).to_have_text("one two")
    expect(page.get_by_role("button", name="Correct this answer")).to_have_count(0)


def test_what_is_being_learned_is_shown_whoever_asked_for_it(server: Any, visit: Any) -> None:
    page = visit(server)
    page.evaluate(
        """() => {
          window.seen = [];
          const text = document.getElementById("learningtext");
          new MutationObserver(() => window.seen.push(text.textContent))
            .observe(text, {childList: true, characterData: true, subtree: true});
        }"""
    )
    server.add("The last bird is", "black")
    expect(page.locator("#log > li").first).to_contain_text("The last bird is → black")
    seen = page.evaluate("window.seen")
    assert any("Learning edits" in one for one in seen), seen
    expect(page.locator("#learning")).to_be_hidden()
