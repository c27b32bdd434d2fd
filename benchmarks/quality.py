"""Whether edits hold, reach their rephrasings, and leave everything else alone.

    python benchmarks/quality.py [--model NAME] [--edits N] [--only SET ...] [--method NAME ...]

Sequential edits with the default preset, prompt and target only: no rephrasing, no probe is given
when an edit is added. Judged by `editkit eval`: free greedy generation, exact match of the whole
answer.

reliability: of the edits that no later one of the same prompt contradicts, those whose prompt gives
the target when all edits are in place. rephrases: likewise of their rephrasings. unchanged: probes
whose answer (16 tokens) is what it was before the first edit; of zsRE questions of Natural
Questions, of CounterFact neighbours of the edited fact, of WikiBio web pages. fired: probes for
which an edit fired. perplexity: of 100 web pages, each from its middle on, with all edits in place,
over that of the untouched model. s/edit: seconds, learned in batches, verification included. With
them the 95% intervals of Wilson.

Reads the data beside the project, or in EDITKIT_DATA. Tune on `zsre_train` and
`counterfact_tuning`; the others are for measuring.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

import editkit
from editkit.evaluation.names import method_names
from editkit.evaluation.records import Point, Share

SETS = {  # file, first line, number of edits
    "zsre": ("zsre.jsonl", 0, 700),
    "counterfact": ("counterfact.jsonl", 0, 1000),
    "wikibio": ("wikibio.jsonl", 0, 100),
    "zsre_train": ("zsre_train.jsonl", 0, 700),
    "counterfact_tuning": ("counterfact.jsonl", 1000, 1000),
}
PAGES, WORDS = ("wikibio.jsonl", 100, 100), 80


def rows(name: str, limit: int | None) -> list[dict[str, Any]]:
    """The edits of a set."""
    file, first, count = SETS[name]
    found = _lines(file, first, min(count, limit or count))
    return [edit for edit in found if edit["target"].strip()]


def _lines(file: str, first: int, count: int) -> list[dict[str, Any]]:
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("EDITKIT_DATA", beside))
    lines = (folder / file).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[first : first + count] if line]


def pages() -> str:
    """Beginnings of web pages, a page a line."""
    found = _lines(*PAGES)
    whole = [page["locality_prompt"] + page["locality_answer"] for page in found]
    return "\n".join(" ".join(page.split()[:WORDS]) for page in whole)


def shown(share: Share) -> str:
    """A share with its interval."""
    if share.value is None:
        return "-"
    return f"{share.value:.3f} ({share.low:.3f} to {share.high:.3f})"


def measure(name: str, model: str, methods: list[str], limit: int | None) -> None:
    """Measures one set and prints its lines."""
    with tempfile.TemporaryDirectory() as work:
        data = Path(work) / f"{name}.jsonl"
        edits = rows(name, limit)
        data.write_text("".join(json.dumps(edit) + "\n" for edit in edits), encoding="utf-8")
        for method in methods:
            report = editkit.evaluate(
                [data],
                model=model,
                methods=[method],
                out=Path(work) / "out",
                at=[len(edits)],
                general=pages(),
            )
            print(line(name, report.points[-1]), flush=True)


def line(name: str, point: Point) -> str:
    """A line of the table."""
    about = point.retention
    assert about is not None
    assert about.perplexity is not None
    assert about.base_perplexity is not None
    fired = "-" if point.false_fires is None else f"{point.false_fires.value or 0:.3f}"
    return (
        f"{name:18s} {point.method:13s} {point.edits:5d}  "
        f"{shown(point.reliability):24s}  {shown(point.generalization):24s}  "
        f"{shown(point.locality):24s}  {fired:5s}  "
        f"{about.perplexity / about.base_perplexity:10.5f}  {point.seconds_per_edit:.2f}"
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--edits", type=int, help="At most so many of each set")
    parser.add_argument("--only", nargs="*", choices=SETS)
    parser.add_argument("--method", nargs="*", choices=method_names(), default=["grace"])
    asked: Any = parser.parse_args()
    print(
        f"{asked.model}, CPU, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}"
    )
    print(
        "set                method        edits  reliability               rephrases             "
        "    unchanged                 fired  perplexity  s/edit"
    )
    for name in asked.only or ["zsre", "counterfact", "wikibio"]:
        measure(name, asked.model, asked.method, asked.edits)


if __name__ == "__main__":
    main()
