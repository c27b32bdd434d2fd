"""The templates of pages: all of what is shown is escaped, and nothing is left out in silence."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import resources

import jinja2
import pytest

from editkit.reports import html

HOSTILE = "</style><b> & \"'\x00\x1b\x7f\r\n\tend"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template of the test's own: one text in a cell, an attribute and a macro's block."""
    source = (
        '{% from "macros.html" import cell, table %}{{ cell(said, said) }}'
        "{% call table([said]) %}{{ said }}{% endcall %}{{ said ~ said }}"
    )
    environment = html._environment().overlay(
        loader=jinja2.ChoiceLoader(
            [jinja2.DictLoader({"test.html": source}), jinja2.PackageLoader("editkit.reports")]
        )
    )
    monkeypatch.setattr(html, "_environment", lambda: environment)


@pytest.mark.usefixtures("page")
def test_text_is_escaped_wherever_it_stands() -> None:
    harmless = "&lt;/style&gt;&lt;b&gt; &amp; &#34;&#39;\ufffd\ufffd\ufffd\ufffd\n\tend"
    found = html.render("test.html", said=HOSTILE)
    assert found.count(harmless) == 6
    assert f'<td class="{harmless}">{harmless}</td>' in found
    assert "<b>" not in found


@pytest.mark.usefixtures("page")
def test_what_a_template_is_not_given_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="'said' is undefined"):
        html.render("test.html")


def test_templates_come_with_the_package_and_trust_nothing_but_the_pictures() -> None:
    folder = resources.files("editkit.reports") / "templates"
    texts = {file.name: file.read_text("utf-8") for file in folder.iterdir()}
    assert {"page.html", "page.css", "diff.html", "evaluation.html"} <= texts.keys()
    everything = "".join(texts.values())
    assert re.findall(r"\S+\|safe", everything) == ["picture|safe"]
    assert "autoescape" not in everything
    assert not re.search(r"https?:|//|url\(|@import|<script|<link|<img", everything)


def test_jinja_is_loaded_for_the_first_page_only() -> None:
    code = "import sys, editkit.reports.diff; print('jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
