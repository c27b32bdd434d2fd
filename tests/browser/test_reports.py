"""The pages that commands write, with hostile edits in them, opened in the system's browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evaluated import case, report

from editkit.evaluation.page import write_page as write_report
from editkit.reports.diff import write_page as write_diff
from editkit_store import open_store

HOSTILE = (
    '</td></table><img src=x onerror="window.owned=1"><script>window.owned=1</script>'
    '<svg onload="window.owned=1"><a href="javascript:window.owned=1">x</a>'
    "<style>body{display:none}</style><base href=//127.0.0.2/><iframe srcdoc='<p>'></iframe>"
)


def written_diff(folder: Path) -> Path:
    from conftest import append

    from editkit.history.diff import diff

    with open_store(folder / "history.db", write=True, create=True) as store:
        append(store, HOSTILE, HOSTILE, author=HOSTILE, reason=HOSTILE, rephrases=(HOSTILE,))
        found = diff(store, "v0", "v1")
    write_diff(found, folder / "diff.html")
    return folder / "diff.html"


def written_report(folder: Path) -> Path:
    said = dict.fromkeys(("prompt", "wanted", "answer", "fired_prompt"), HOSTILE)
    worst = tuple(case("rephrase", **said) for _ in range(2))
    write_report(report((HOSTILE,), (1, 10), worst=worst, model=HOSTILE), folder / "report.html")
    return folder / "report.html"


@pytest.mark.parametrize("write", [written_diff, written_report])
def test_a_page_with_hostile_edits_runs_nothing_and_asks_for_nothing(
    write: Any, browser: Any, tmp_path: Path
) -> None:
    file = write(tmp_path)
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss())[0])
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_load_state("networkidle")
    assert asked == [file.as_uri()]
    assert wrong == []
    assert page.evaluate("window.owned") is None
    assert page.locator("script, iframe, base, img, a[href^='javascript:']").count() == 0
    assert page.locator("svg[onload], [onerror]").count() == 0
    assert HOSTILE in page.locator("body").inner_text()
    assert page.locator("body").is_visible()
    context.close()
