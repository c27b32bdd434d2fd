"""What somebody who should not get in, or get through, tries with the page."""

from __future__ import annotations

from typing import Any

import pytest
from browser.conftest import ask, link
from cli.http.conftest import made, running
from playwright.sync_api import expect

from editkit_cli.http.serving import listen
from editkit_cli.service.tokens import TokenFile

SCRIPT = '<img src=x onerror="window.owned=1;alert(1)"><script>window.owned=1</script>'


def test_a_script_stays_text_wherever_it_comes_from(server: Any, visit: Any) -> None:
    question = [{"role": "user", "content": f"{SCRIPT} sea"}]
    # Made active though it cannot verify, so that the page shows it as any other edit.
    server.add(None, SCRIPT, chat=question, reason=SCRIPT, author=SCRIPT, on_failure="keep")
    with server.client() as client:
        tag = {"version": "@", "name": "<script>alert(1)</script>"}
        said = client.post("/v1/versions/tag", json=tag)
    page = visit(server)
    answered = """(text) => {
      const fetched = window.fetch;
      window.fetch = async (path, how) => {
        if (!path.includes("completions")) return fetched(path, how);
        const choice = {delta: {content: text}, finish_reason: "stop", fired: [text]};
        return new Response(`data: ${JSON.stringify({version: text, choices: [choice]})}\\n\\n`);
      };
    }"""
    page.get_by_label("Answers of").select_option("v0")
    page.evaluate(answered, SCRIPT)
    ask(page, f"{SCRIPT} sea")
    assert page.locator(".question").inner_text() == f"{SCRIPT} sea"
    assert page.locator(".answer .text").inner_text() == SCRIPT
    page.get_by_label("Answers of").select_option("")
    newest = page.locator("#log > li", has_text="add").first
    newest.locator("summary").click()
    expect(newest.locator(".gist")).to_contain_text(f"{SCRIPT} sea → {SCRIPT}")
    expect(newest.locator("dl")).to_contain_text(SCRIPT)
    if said.status_code == 200:
        expect(page.locator("#log .tag").first).to_have_text("<script>alert(1)</script>")
    newest.get_by_role("button", name="What changed").click()
    expect(page.get_by_role("dialog").locator(".came")).to_contain_text(SCRIPT)
    page.keyboard.press("Escape")
    newest.get_by_role("button", name="Revert this edit").click()
    expect(page.get_by_role("dialog")).to_contain_text(SCRIPT)
    page.keyboard.press("Escape")
    assert page.evaluate("window.owned") is None
    assert page.locator("body img, body script").count() == 0


def test_markup_made_of_strings_is_refused_by_the_browser_itself(server: Any, visit: Any) -> None:
    page = visit(server, expected="")  # the browser tells of each refusal
    refused = page.evaluate(
        """() => {
          const tries = [
            () => { document.body.innerHTML = "<p>hi</p>"; },
            () => document.write("<p>hi</p>"),
            () => { document.createElement("script").text = "1"; },
          ];
          return tries.map((one) => {
            try { one(); return null; } catch (error) { return error.name; }
          });
        }"""
    )
    assert refused == ["TypeError"] * 3
    page.evaluate(
        """() => {
          const style = document.createElement("style");
          style.textContent = "body { display: none }";
          document.head.append(style);
          const image = new Image();
          image.src = "data:image/gif;base64,R0lGODlhAQABAAAAACw=";
          image.onload = () => { window.owned = 1; };
          document.body.append(image);
        }"""
    )
    expect(page.locator("#house")).to_be_visible()
    elsewhere = "() => fetch('http://127.0.0.2:9/').then(() => 'sent', (error) => error.name)"
    assert page.evaluate(elsewhere) == "TypeError"
    assert page.evaluate("window.owned") is None


def test_the_key_of_a_link_leaves_no_trace_and_works_once(
    server: Any, visit: Any, browser: Any
) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request))
    place = link(server)
    key = place.partition("#key=")[2]
    page.goto(place)
    expect(page.locator("#connection")).to_have_text("connected")
    ask(page, "tea")
    assert page.url == server.url + "/"
    assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == [
        "", 0, 1,
    ]  # fmt: skip
    urls = [request.url for request in asked]
    assert all(url.startswith(server.url) for url in urls), "nothing is fetched from elsewhere"
    assert not any(
        secret in url for url in urls for secret in (key, server.owner.token, server.session)
    )
    assert not any(request.headers.get("referer") for request in asked)
    page.go_back()
    assert key not in page.url
    page.go_forward()
    page.reload()
    expect(page.locator("#connection")).to_have_text("connected")
    other = context.new_page()
    other.goto(place)
    expect(other.locator("#doorsaid")).to_contain_text("the link has been used")
    expect(other.locator("#house")).to_be_hidden()
    other.goto(link(server))  # in the same tab only what is behind the # changes
    expect(other.locator("#connection")).to_have_text("connected")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0
    context.close()


def test_a_wrong_token_is_told_and_a_revoked_one_ends_the_session(server: Any, visit: Any) -> None:
    page = visit(server, token=server.token("edit", "grace"), expected="401")
    ask(page, "tea")
    page.get_by_label("Your question").fill("milk")
    TokenFile(server.store).revoke("grace")
    # Not by the mouse: the page may have heard of it by itself, and the button be hidden.
    page.get_by_role("button", name="Send", include_hidden=True).dispatch_event("click")
    expect(page.locator("#doorsaid")).to_contain_text("revoked")
    expect(page.locator("#house")).to_be_hidden()
    page.get_by_label("Token", exact=True).fill("ek-wrong")
    with page.expect_response("**/v1/whoami") as refused:
        page.keyboard.press("Enter")
    assert refused.value.status == 401
    expect(page.locator("#doorsaid")).to_contain_text("not valid here")
    page.get_by_label("Token", exact=True).fill(server.session)
    page.keyboard.press("Enter")
    expect(page.locator("#house")).to_be_visible()
    expect(page.locator(".turn").first).to_contain_text("tea")


def test_a_page_that_only_listens_hears_that_its_token_was_revoked(server: Any, visit: Any) -> None:
    page = visit(server, token=server.token("read", "only"), expected="401")
    TokenFile(server.store).revoke("only")
    server.add("The red cat is", "blue")
    expect(page.locator("#doorsaid")).to_contain_text("revoked")
    expect(page.locator("#house")).to_be_hidden()
    assert page.evaluate("sessionStorage.length") == 0


def test_what_a_token_is_refused_late_does_not_end_the_session_of_the_next(
    server: Any, visit: Any
) -> None:
    page = visit(server, expected="401")
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#door")).to_be_visible()
    page.evaluate("""() => {
      const fetched = window.fetch;
      window.fetch = async (path, how) => {
        const answer = await fetched(path, how);
        if (answer.status === 401) await new Promise((resolve) => { window.release = resolve; });
        return answer;
      };
    }""")
    field = page.get_by_label("Token", exact=True)
    field.fill("ek-wrong")
    field.press("Enter")
    page.wait_for_function("() => window.release !== undefined")
    field.fill(server.session)
    field.press("Enter")
    expect(page.locator("#house")).to_be_visible()
    page.evaluate("window.release()")
    ask(page, "tea")
    expect(page.locator("#house")).to_be_visible()
    expect(page.locator("#door")).to_be_hidden()


def test_after_a_restart_the_page_finds_the_server_again(visit: Any, tmp_path: Any) -> None:
    with running(tmp_path / "history.db", made()) as first:
        token = first.token("edit")
        page = visit(first, token=token, expected="ERR_CONNECTION_REFUSED")
        port = first.owner.port
        first.stop()
    expect(page.locator("#connection")).to_contain_text("reconnecting")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cli.http.conftest.listen", lambda host, _: listen(host, port))
        with running(tmp_path / "history.db", made()) as second:
            expect(page.locator("#connection")).to_have_text("connected")
            second.add("The red cat is", "blue")
            expect(page.locator("#log > li").first).to_contain_text("The red cat is → blue")
