"""Which edit fires for which prompt, to the last bit: what a change of the code must keep.

    python benchmarks/decisions.py OUT.json.gz             writes what is decided now
    python benchmarks/decisions.py OUT.json.gz --compare   compares with what was written before

Of each data set the first edits are made active without learning their values (which take no part
in a decision), one store a line of ``STORES``; then every prompt, rephrasing and probe of the set
is explained and answered. Written are numbers only: for each prompt the index of the edit that
fired in generation and of the one that `explain` names, and the candidates with distance, radius
and whether they are in scope; floats as hexadecimal.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import quality

import editkit

EDITS = 40
SETS = ("zsre", "counterfact", "wikibio")

STORES: dict[str, dict[str, Any]] = {
    "grace": {"grace": {"max_steps": 1}},
    "grace sentence": {"grace": {"max_steps": 1, "key": "sentence"}},
    "grace paper": {"preset": "paper", "grace": {"max_steps": 1}},
    "elder": {"train": {"steps": 1}, "method": "elder"},
    "both": {"grace": {"max_steps": 1}, "train": {"steps": 1}, "method": "both"},
}


def decided(name: str, edits: list[dict[str, Any]], how: dict[str, Any], model: Any) -> list[Any]:
    """Returns the decisions of one store about all prompts of a set."""
    options = dict(how)
    method = options.pop("method", "grace")
    with (
        tempfile.TemporaryDirectory() as folder,
        editkit.open(Path(folder) / "history.db", model=model, **options) as kit,
    ):
        requests = [
            {
                "prompt": edit["prompt"],
                "target": edit["target"],
                "method": ("grace", "elder")[index % 2] if method == "both" else method,
            }
            for index, edit in enumerate(edits)
        ]
        results = kit.add_many(requests, on_failure="keep")
        number = {result.edit.id: index for index, result in enumerate(results)}
        prompts = [
            prompt
            for edit in edits
            for prompt in (edit["prompt"], *edit.get("rephrases", ()), edit.get("locality_prompt"))
            if prompt
        ]
        answers = kit.generate(prompts, max_new_tokens=1)
        found = []
        for prompt, answer in zip(prompts, answers, strict=True):
            said = kit.explain(prompt, k=3)
            near = [
                [
                    number[one.edit_id],
                    float(one.distance).hex(),
                    float(one.radius).hex(),
                    one.in_scope,
                ]
                for one in said.candidates
            ]
            fired = number[answer.fired[0]] if answer.fired else None
            told = None if said.fired is None else number[said.fired]
            found.append([fired, told, near])
        return found


def main() -> None:
    """Writes or compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--edits", type=int, default=EDITS)
    parser.add_argument("--stores", nargs="*", choices=list(STORES), default=list(STORES))
    parser.add_argument("--sets", nargs="*", choices=SETS, default=SETS)
    asked = parser.parse_args()
    from editkit.models.load import load_model

    loaded = load_model("smollm2-135m")
    found: dict[str, Any] = {}
    for name in asked.sets:
        edits = quality.rows(name, None)[: asked.edits]
        for store in asked.stores:
            key = f"{name}, {store}"
            found[key] = decided(name, edits, STORES[store], (loaded.model, loaded.tokenizer))
            digest = hashlib.sha256(json.dumps(found[key]).encode()).hexdigest()[:16]
            fired = sum(one[0] is not None for one in found[key])
            print(f"{key:<28} {len(found[key]):>4} prompts, {fired:>4} fire, {digest}", flush=True)
    if not asked.compare:
        asked.file.write_bytes(gzip.compress(json.dumps(found).encode(), mtime=0))
        return
    before = json.loads(gzip.decompress(asked.file.read_bytes()))
    differ = {
        key: sum(one != two for one, two in zip(before[key], found[key], strict=True))
        for key in found
    }
    print(f"decisions that differ: {sum(differ.values())} {differ if any(differ.values()) else ''}")
    raise SystemExit(bool(sum(differ.values())))


if __name__ == "__main__":
    main()
