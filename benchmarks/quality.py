"""Whether edits answer every wording of their question, leave everything else alone, and hold.

    python benchmarks/quality.py [--model NAME] [--edits N] [--small] [--only ROW ...]
        [--method NAME ...]

Prompt and target only, default settings, judged by `editkit eval`: free greedy generation, exact
match of the whole answer. A row that cannot be measured here says what it lacks.

Blocks, all edits in one store before anything is asked. same: right: prompts that ask for the same
and get the target; free: without holding the decoder to it; fires: its edit fires. other: fires:
prompts that ask for something else and get an edit. Below, likewise of each kind of prompt.
`real_use` is edits as people make them; `one_product` twenty edits in a support team's chats, with
a system prompt and follow-ups, written for this (benchmarks/data); `mquake` other relations of the
same subjects. `real_use_judge` and `real_use_both` have the running model of 1.5B parameters as the
judge, alone and together with the trained one. `real_use_gemma` is another model with nothing
tuned, and how often it decides as the first one does.

Published sets, edits one after the other. reliability: of the edits that no later one of the same
prompt contradicts, those whose prompt gives the target when all edits are in place. rephrases:
likewise of their rephrasings. unchanged: probes whose answer (16 tokens) is what it was before the
first edit; of zsRE questions of Natural Questions, of CounterFact neighbours of the edited fact, of
WikiBio web pages. fired: probes for which an edit fired. perplexity: of 100 web pages, each from
its middle on, with all edits in place, over that of the untouched model. s/edit: seconds, learned
in batches, verification included.

`undone`: answers and their likelihoods after a rollback, a revert and undo are those of before, to
the last bit. Intervals are 95% (Wilson; of blocks, prompts of one block count as alike).

Reads the data beside the project, or in EDITKIT_DATA. Tune on `zsre_train` and
`counterfact_tuning`, or on the judge's validation split; the others are for measuring.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
import transformers

import editkit
from editkit.config import JudgeName
from editkit.evaluation.names import method_names
from editkit.evaluation.records import BlockScores, CaseResult, Point, Share
from editkit.kit import Kit
from editkit.models.aliases import DEFAULT_MODEL, find_alias, model_info

SETS = {  # file, first line, number of edits
    "zsre": ("zsre.jsonl", 0, 700),
    "counterfact": ("counterfact.jsonl", 0, 1000),
    "wikibio": ("wikibio.jsonl", 0, 100),
    "zsre_train": ("zsre_train.jsonl", 0, 700),
    "counterfact_tuning": ("counterfact.jsonl", 1000, 1000),
}
PAGES, WORDS = ("wikibio.jsonl", 100, 100), 80
SMALL = 2
"""Edits of each row of a small run."""
_BESIDE = Path(__file__).parents[2] / "shared" / "data"
_OWN = Path(__file__).parent / "data"
# real_use.jsonl lists its prompts in this order.
_REAL_USE = {
    "same_kinds": ["close", "lower", "typo", "keywords", "words", "chatty"],
    "other_kinds": ["attribute"] * 3 + ["similar", "opposite", "condition", "task", "general"],
}


class Skipped(Exception):
    """A row cannot be measured here; the message says what it lacks."""


@dataclass(frozen=True)
class Blocks:
    """A row of blocks.

    Attributes:
        file: The data.
        target: What is asked of it, in words.
        edits: Most edits.
        model: The model, if it is not the one asked for.
        judge: The judge, if it is not the default one.
    """

    file: str
    target: str
    edits: int | None = None
    model: str | None = None
    judge: str | None = None


_REAL = "right >= .70, fires <= .05"
_MODEL = "right >= .80, fires <= .05"
_LARGER = "qwen2.5-coder-1.5b"
BLOCKS = {
    "real_use": Blocks("real_use.jsonl", _REAL),
    "real_use_judge": Blocks("real_use.jsonl", _MODEL, 40, _LARGER, "model"),
    "real_use_both": Blocks("real_use.jsonl", _MODEL, 40, _LARGER, "both"),
    "one_product": Blocks("one_product.jsonl", "right >= .75, fires <= .05"),
    "mquake": Blocks("mquake.jsonl", "same fires >= .90, other fires <= .08"),
    "real_use_gemma": Blocks("real_use.jsonl", "right >= .65, same decisions", model="gemma3-270m"),
}
_TARGETS = {
    "zsre": "kept >= .99, rephrases >= .75, unchanged >= .995",
    "counterfact": "kept >= .99, rephrases >= .80, unchanged >= .97, perplexity <= 1.001",
    "wikibio": "kept >= .94, unchanged >= .995",
}
ROWS = (*BLOCKS, *SETS, "undone")


def rows(name: str, limit: int | None) -> list[dict[str, Any]]:
    """The edits of a published set."""
    file, first, count = SETS[name]
    found = _lines(file, first, min(count, limit or count))
    return [edit for edit in found if edit["target"].strip()]


def _lines(file: str, first: int = 0, count: int | None = None) -> list[dict[str, Any]]:
    folder = Path(os.environ.get("EDITKIT_DATA", _BESIDE))
    path = next((one / file for one in (_OWN, folder) if (one / file).exists()), None)
    if path is None:
        raise Skipped(f"{file} is not in '{folder}' (EDITKIT_DATA)")
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[first:][:count] if line]


def pages(count: int | None = None) -> str:
    """Beginnings of web pages, a page a line."""
    found = _lines(*PAGES)[:count]
    whole = [page["locality_prompt"] + page["locality_answer"] for page in found]
    return "\n".join(" ".join(page.split()[:WORDS]) for page in whole)


def shown(share: Share | None) -> str:
    """A share with its interval."""
    if share is None or share.value is None:
        return "-"
    return f"{share.value:.3f} ({share.low:.3f} to {share.high:.3f})"


def plain(share: Share | None) -> str:
    """A share."""
    return "-" if share is None or share.value is None else f"{share.value:.3f}"


class Run:
    """One run of the rows.

    Args:
        model: The model of rows that name none.
        methods: The methods.
        limit: Most edits of a row.
        is_small: Measure little, on that model alone.
        folder: For results.
    """

    def __init__(
        self, model: str, methods: Sequence[str], limit: int | None, is_small: bool, folder: Path
    ) -> None:
        self.model = model
        self.methods = methods
        self.limit = limit
        self.is_small = is_small
        self.folder = folder

    def blocks(self, name: str) -> None:
        """Measures a row of blocks and prints its lines."""
        row = replace(BLOCKS[name], model=BLOCKS[name].model or self.model)
        found = _lines(row.file)[: _least(row.edits, self.limit)]
        for block in found if row.file == "real_use.jsonl" else ():
            block |= _REAL_USE
        assert row.model is not None
        self._check(row)
        # General text is measured by the published sets, which are larger.
        options: dict[str, Any] = {"general": "", "judge": row.judge}
        for method in self.methods:
            point = self._evaluated(name, found, row.model, method, **options)
            first = f"{name:15s} {row.model:18s} {point.method:9s} {point.edits:4d}"
            print(f"{first}  {_scores(point)}  {plain(point.reliability):5s}  "
                  f"{point.seconds_per_edit:5.2f}  ({row.target})", flush=True)  # fmt: skip
            for kind, scores in point.kind.items():
                print(f"{'':15s} {'':18s} {kind:9s} {'':4s}  {_scores(scores)}", flush=True)
            if name == "real_use_gemma":
                print(f"{'':15s} {self._agreement(name, method)}", flush=True)

    def published(self, name: str) -> None:
        """Measures a published set and prints its lines."""
        edits = rows(name, self.limit)
        text = pages(SMALL if self.is_small else None)
        for method in self.methods:
            point = self._evaluated(name, edits, self.model, method, general=text)
            target = f"  ({_TARGETS[name]})" if name in _TARGETS else ""
            print(line(name, point) + target, flush=True)

    def undone(self) -> None:
        """Takes edits back in every way, and prints whether all is as it was."""
        blocks = _lines("one_product.jsonl")[: _least(6, self.limit)]
        edits = [{"prompt": one["chat"][-1]["content"], "target": one["target"]} for one in blocks]
        for method in self.methods:
            with editkit.open(self.folder / f"undone-{method}.db", model=self.model) as kit:
                said = taken_back(kit, [{**edit, "method": method} for edit in edits])
            print(f"{'undone':15s} {self.model:18s} {method:9s} {len(edits):4d}  {said}  "
                  "(bit-exact)", flush=True)  # fmt: skip

    def _check(self, row: Blocks) -> None:
        """Raises for a row whose model is not here, or whose judge there is not."""
        assert row.model is not None
        if row.model != self.model and self.is_small:
            raise Skipped(f"a small run measures {self.model} alone")
        alias = find_alias(row.model)
        if row.model != self.model and alias and not model_info(alias).cached:
            raise Skipped(f"{row.model} is not here: editkit models pull {row.model}")
        if row.judge not in (None, *get_args(JudgeName)):
            raise Skipped(f"there is no judge '{row.judge}'")

    def _evaluated(
        self, name: str, edits: list[dict[str, Any]], model: str, method: str, **options: Any
    ) -> Point:
        data = self.folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(edit) + "\n" for edit in edits), encoding="utf-8")
        report = editkit.evaluate(
            [data], model=model, methods=[method], out=self.folder / name, at=[len(edits)],
            **options,
        )  # fmt: skip
        return report.points[-1]

    def _agreement(self, name: str, method: str) -> str:
        """Says how often another model decides as the first one does."""

        def fired(row: str) -> dict[tuple[Any, ...], int | None]:
            path = self.folder / row / method.replace(":", "-") / "cases.jsonl"
            lines = path.read_text("utf-8").splitlines() if path.exists() else []
            found = [CaseResult.model_validate_json(line) for line in lines]
            return {(one.case, one.asked, one.prompt): one.fired for one in found}

        first, other = fired("real_use"), fired(name)
        if not first:
            return "same decisions: measure real_use with it"
        alike = Share.of(other[key] == first[key] for key in other.keys() & first.keys())
        return f"same decisions: {shown(alike)}"


def taken_back(kit: Kit, edits: list[dict[str, str]]) -> str:
    """Makes edits, takes them back, and says whether every answer and likelihood is as before."""
    prompts, targets = ([edit[name] for edit in edits] for name in ("prompt", "target"))

    def answers() -> list[tuple[str, float]]:
        texts = kit.generate(prompts, max_new_tokens=16)
        likely = kit.scores(prompts, targets)
        return [(a.text, b.log_likelihood) for a, b in zip(texts, likely, strict=True)]

    before = answers()
    if edits[1:]:
        kit.add_many(edits[:-1])
    most = answers()
    last = kit.add_many(edits[-1:])[0].edit.id
    every = answers()
    steps: tuple[tuple[str, Callable[[], object], list[tuple[str, float]]], ...] = (
        ("revert", lambda: kit.revert(last), most),
        ("undo", kit.undo, every),
        ("rollback", lambda: kit.rollback("v0"), before),
        ("undo", kit.undo, every),
    )
    said = []
    for name, step, wanted in steps:
        step()
        said.append(f"{name} {'the same' if answers() == wanted else 'DIFFERENT'}")
    return ", ".join(said)


def _scores(scores: Point | BlockScores) -> str:
    return (
        f"{shown(scores.right):24s}  {plain(scores.right_free):5s}  {plain(scores.fired_same):5s}  "
        f"{shown(scores.fired_other):24s}"
    )


def line(name: str, point: Point) -> str:
    """A line of the table of published sets."""
    about = point.retention
    assert about is not None
    assert about.perplexity is not None
    assert about.base_perplexity is not None
    return (
        f"{name:18s} {point.method:13s} {point.edits:5d}  "
        f"{shown(point.reliability):24s}  {shown(point.generalization):24s}  "
        f"{shown(point.locality):24s}  {plain(point.false_fires):5s}  "
        f"{about.perplexity / about.base_perplexity:10.5f}  {point.seconds_per_edit:.2f}"
    )


def _least(*limits: int | None) -> int | None:
    return min((one for one in limits if one is not None), default=None)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--edits", type=int, help="At most so many of each row")
    parser.add_argument(
        "--small", action="store_true", help=f"{SMALL} edits of each row, that model alone"
    )
    parser.add_argument("--only", nargs="*", choices=ROWS)
    parser.add_argument("--method", nargs="*", choices=method_names(), default=["grace"])
    asked: Any = parser.parse_args()
    print(
        f"{asked.model}, CPU, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}"
    )
    heads = (
        (
            BLOCKS,
            "blocks          model              method    edits  same: right               free   "
            "fires  other: fires              kept   s/edit  (target)",
        ),
        (
            SETS,
            "published set      method        edits  reliability               rephrases           "
            "      unchanged                 fired  perplexity  s/edit  (target)",
        ),
        (("undone",), ""),
    )
    names = asked.only or [*BLOCKS, *_TARGETS, "undone"]
    with tempfile.TemporaryDirectory() as work:
        limit = _least(asked.edits, SMALL if asked.small else None)
        run = Run(asked.model, asked.method, limit, asked.small, Path(work))
        for group, head in heads:
            some = [name for name in names if name in group]
            if some and head:
                print(head)
            for name in some:
                try:
                    if name in BLOCKS:
                        run.blocks(name)
                    elif name in SETS:
                        run.published(name)
                    else:
                        run.undone()
                except Skipped as reason:
                    print(f"{name:15s} skipped: {reason}", flush=True)


if __name__ == "__main__":
    main()
