"""The page of a comparison: everything on it, nothing from elsewhere, nothing that runs."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from editkit.reports.diff import page, write_page
from editkit_store.errors import StoreUnwritable
from editkit_store.records import Edit, Message
from editkit_store.records.comparisons import (
    AdaptorChange,
    BehaviorChange,
    CodebookDiff,
    CodebookRow,
    Diff,
    RadiusChange,
    Unasked,
)

EVIL = "<script>alert(1)</script> & \"quoted\" 'single' \x1b[31m"
HARMLESS = (
    "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;quoted&#34; &#39;single&#39; \ufffd[31m"
)


def edit(number: int, **fields: object) -> Edit:
    known = {"prompt": "The sky is", "target": "blue", "time": datetime(2026, 1, 2, tzinfo=UTC)}
    return Edit.model_validate({"id": f"{number:016x}", **known, **fields})


def answer(kind: str, *, changed: bool = False, prompt: str = "p") -> BehaviorChange:
    return BehaviorChange(
        prompt=prompt,
        kind=kind,  # type: ignore[arg-type]
        before="",
        after="blue" if changed else "",
        changed=changed,
        fired_after=(f"{7:016x}",) if changed else (),
    )


class Page(HTMLParser):
    """Checks that tags close, and collects what is on a page."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data


def test_everything_of_the_comparison_is_on_the_page() -> None:
    found = Diff(
        from_="v1",
        to="v3",
        added=(edit(1, chat=(Message(role="user", content="Which colour?"),), author="ada"),),
        removed=(edit(2, target="green", reason="wrong"),),
        codebook=CodebookDiff(
            added=1,
            removed=1,
            radius_changed=1,
            added_rows=(CodebookRow(edit_id=f"{1:016x}", radius=1.25),),
            removed_rows=(CodebookRow(edit_id=f"{2:016x}", radius=2.5),),
            changed_rows=(RadiusChange(edit_id=f"{3:016x}", before=3.5, after=0.75),),
            missing=(f"{4:016x}",),
            fingerprint="sha256:" + "ab" * 32,
        ),
        adaptors=(AdaptorChange(layer="h.3", delta_norm=0.5),),
        behavior=(answer("edit", changed=True), *map(answer, ("rephrase", "locality", "probe"))),
        unasked=(Unasked(prompt="long", kind="rephrase", edit_id=f"{1:016x}", reason="too long"),),
    )
    text = page(found)
    shown = Page(text)
    assert {"user: Which colour?", "ada", "green", "wrong", "1.25", "2.5", "3.5", "0.75"} <= set(
        shown.cells
    )
    assert {"h.3", "too long", "(nothing)", "000000000000 at v3"} <= set(shown.cells)
    assert "Not learned by this model: 000000000000." in text
    assert text.count('<tr class="changed">') == 1
    for heading in ("From v1 to v3", "Edits", "Codebook", "Adaptors", "Answers", "Probes"):
        assert f">{heading}</h" in text


def test_a_page_needs_nothing_from_elsewhere_and_runs_nothing() -> None:
    text = page(Diff(from_="v0", to="v1", added=(edit(1),), behavior=(answer("probe"),)))
    shown = Page(text)
    assert not shown.tags & {"script", "link", "img", "iframe", "object", "base", "form"}
    assert shown.attributes <= {"lang", "charset", "name", "content", "class"}
    assert not re.search(r"https?:|//|url\(|@import|javascript:", text)
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("field", ["prompt", "target", "author", "reason"])
def test_what_edits_say_is_text_and_never_markup(field: str) -> None:
    text = page(Diff(from_="v0", to="v1", added=(edit(1, **{field: EVIL}),)))
    assert f"<td>{HARMLESS}</td>" in text
    assert "<script" not in text
    assert "\x1b" not in text
    Page(text)


def test_what_a_model_says_is_text_too() -> None:
    said = BehaviorChange(
        prompt=EVIL, kind="probe", target=EVIL, before=EVIL, after=EVIL, changed=False
    )
    text = page(Diff(from_=EVIL, to="v1", behavior=(said,)))
    assert text.count(f"<td>{HARMLESS}</td>") == 4
    assert "<script" not in text
    Page(text)


def test_equal_versions_and_answers_that_nobody_asked_for() -> None:
    text = page(Diff(from_="v1", to="v1"))
    assert "The same edits are active." in text
    assert "Answers" not in text
    assert "Codebook" not in text  # no model is known
    Page(text)


def test_a_file_is_replaced_and_an_unwritable_one_named(tmp_path: Path) -> None:
    target = tmp_path / "diff.html"
    target.write_text("old")
    write_page(Diff(from_="v0", to="v1", added=(edit(1, prompt="é \udcff"),)), target)
    assert target.read_bytes().startswith(b"<!doctype html>")
    assert "é &#56575;" in target.read_text(encoding="utf-8")
    for place in (tmp_path / "no" / "diff.html", tmp_path):
        with pytest.raises(StoreUnwritable, match="cannot be written") as raised:
            write_page(Diff(from_="v0", to="v1"), place)
        assert raised.value.path == place
