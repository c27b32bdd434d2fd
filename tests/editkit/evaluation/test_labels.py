"""The made-up stream of labels of ``benchmarks/court.py``: what its figures depend on."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from types import ModuleType
from typing import Any

import pytest

from editkit.evaluation.cases import read_cases

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "court.py"


@pytest.fixture(scope="module")
def labels() -> Iterator[ModuleType]:
    name = "benchmark_court"  # its dataclasses look their module up by name
    spec = importlib.util.spec_from_file_location(name, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[name]


@pytest.fixture(scope="module")
def data(labels: ModuleType) -> Any:
    return labels.generated()


def streamed(data: Any) -> list[str]:
    """Every sentence of the stream."""
    return [
        text
        for case in data.stream
        for text in (case["prompt"], case["rephrase"], *case["locality"])
    ]


def test_no_sentence_comes_twice_in_whatever_set(data: Any) -> None:
    every = [one.text for one in (*data.fitted, *data.held)] + streamed(data)
    assert len(data.fitted) >= 400
    assert 100 <= len(data.stream) <= 150
    assert len({text.casefold() for text in every}) == len(every)


def test_each_set_has_wordings_of_its_own(labels: ModuleType) -> None:
    uses = ("fitted", "held", "asked", "again")
    every = [text for kind in labels.KINDS.values() for use in uses for text in getattr(kind, use)]
    assert len(set(every)) == len(every)


def test_every_wording_holds_all_the_facts(labels: ModuleType) -> None:
    for kind in labels.KINDS.values():
        assert kind.who
        assert kind.what
        for text in (*kind.fitted, *kind.held, *kind.asked, *kind.again):
            fields = [field for _, field, _, _ in Formatter().parse(text) if field]
            assert sorted(fields) == ["what", "where", "who"], text


def test_a_changed_kind_gets_another_label_and_a_rephrase_for_each_wording(
    labels: ModuleType,
) -> None:
    changed = {name: kind for name, kind in labels.KINDS.items() if kind.now is not None}
    assert changed
    for kind in changed.values():
        assert kind.now in labels.LABELS
        assert kind.now != kind.label
        assert len(kind.again) == len(kind.asked)
    assert {kind.label for kind in labels.KINDS.values()} == set(labels.LABELS)
    assert not any(kind.again for name, kind in labels.KINDS.items() if name not in changed)


def test_the_stream_edits_changed_kinds_alike_and_probes_the_others(
    labels: ModuleType, data: Any
) -> None:
    changed = {name for name, kind in labels.KINDS.items() if kind.now is not None}
    assert Counter(case["of"] for case in data.stream) == dict.fromkeys(changed, labels.EDITS)
    for case in data.stream:
        kind = labels.KINDS[case["of"]]
        assert case["target"] == kind.now
        assert not changed & set(case["locality_of"])
        assert case["locality_answer"] == [labels.KINDS[n].label for n in case["locality_of"]]
        assert case["locality_answer"][0] == kind.label  # what is alike, and stays


def test_a_rephrase_tells_of_the_same_party(labels: ModuleType, data: Any) -> None:
    for case in data.stream:
        kind, prompt, again = labels.KINDS[case["of"]], case["prompt"], case["rephrase"]
        for facts in (kind.who, kind.what, labels.WHERE):
            told = [{fact for fact in facts if fact.lower() in t.lower()} for t in (prompt, again)]
            assert told[0] == told[1] != set()


def test_the_same_seed_makes_the_same_data_and_another_seed_other_data(
    labels: ModuleType, data: Any
) -> None:
    assert labels.generated(0) == data
    assert labels.generated(1).stream != data.stream


def test_an_evaluation_reads_the_stream_as_labels(data: Any, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(case) + "\n" for case in data.stream), encoding="utf-8")
    cases, _ = read_cases(path)
    assert len(cases) == len(data.stream)
    assert {case.request.kind for case in cases} == {"label"}
    assert all(len(case.rephrases) == 1 and len(case.probes) == 2 for case in cases)
    assert all(probe.answer for case in cases for probe in case.probes)
