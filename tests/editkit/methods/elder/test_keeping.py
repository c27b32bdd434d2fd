"""What keeps edits beside each other: the grid, the threshold, the rounds, and a state's parts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from pupils import EAGER, FACTS, Pupil, noisy, tensors
from tiny import tiny_llama

from editkit.methods.elder import learning, routing
from editkit.methods.elder.part import ElderPart
from editkit.methods.elder.saved import payload_of, queries_of, snapshot_of, state_of
from editkit.methods.elder.state import ElderState
from editkit.methods.elder.trial import Trial, rows_of
from editkit_store.artifacts.snapshots import Snapshot, Tensor
from editkit_store.errors import InvalidRecord

# PEFT's own, of a name that transformers changed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

ABOUT = {"query": "state", "resolution": 8, "limit": 9, "separation": [1, 4]}
IDS = ("00000000000000aa", "00000000000000bb", "00000000000000cc")


@pytest.mark.parametrize("resolution", [8, 5, None])
def test_experts_lie_on_the_grid_that_was_asked_for(resolution: int | None) -> None:
    pupil = Pupil(tiny_llama(), **EAGER, resolution=resolution)
    pupil.learn(pupil.lessons(*FACTS), [])
    fine = 2.0 ** (resolution or 8)
    is_on_grid = all(
        torch.equal((one * fine).round(), one * fine)
        for one in (*pupil.state.lora_A, *pupil.state.lora_B)
    )
    assert is_on_grid == (resolution is not None)
    if resolution != 5:
        assert all(pupil.says(w) == target for _, ws, target in FACTS for w in ws)


def test_rounds_stop_when_they_help_no_more_and_the_best_remains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pupil = Pupil(tiny_llama(), steps=2, rounds=9, learning_rate=1e-3)
    looks: list[tuple[int, list[torch.Tensor]]] = []
    look = Trial.leads

    def watched(trial: Any, rows: Any) -> list[float]:
        found = look(trial, rows)
        looks.append((sum(lead < learning._HELD for lead in found), trial.experts()))
        return found

    monkeypatch.setattr(Trial, "leads", watched)
    told = pupil.learn(pupil.lessons(*FACTS), [])
    fewest = min(count for count, _ in looks)
    best = next(experts for count, experts in looks if count == fewest)
    assert all(map(torch.equal, (*pupil.state.lora_A, *pupil.state.lora_B), best))
    if fewest:
        assert len(looks) < 10
        assert [count for count, _ in looks[-learning._PATIENCE :]] >= [fewest]
    assert sum(lead < learning._HELD for lead in told.leads.values()) <= fewest


def test_an_edit_that_cannot_be_kept_does_not_hold_up_later_ones() -> None:
    pupil = Pupil(tiny_llama(), **EAGER)
    first, second, third = pupil.lessons(*FACTS)
    pupil.learn([first, second], [])
    for row in rows_of([first]):
        pupil.learner._course.leads[row.edit_id, row.wording] = -50.0
    impossible = dataclasses.replace(
        first,
        wordings=tuple(
            dataclasses.replace(one, target=tuple(reversed([5, 7, 9, *one.target])))
            for one in first.wordings
        ),
    )
    for row in rows_of([impossible]):
        pupil.learner._course.leads[row.edit_id, row.wording] = -50.0
    told = pupil.learn([third], [impossible, second])
    assert told.steps < EAGER["steps"]
    assert told.leads["c"] > 0


@pytest.mark.parametrize("radius", [None, 0.8])
def test_the_threshold_lies_where_held_out_text_is_not(radius: float | None) -> None:
    """Compared with the definition, one threshold after the other."""
    shape = {"threshold": 9, "radius": radius, "query": "pooled" if radius else "state"}
    pupil = Pupil(tiny_llama(), shape=shape, **EAGER)
    told = pupil.learn(pupil.lessons(*FACTS), [])
    state, text = told.state, pupil.learner._text[1]
    assert state.queries is not None
    assert state.owners is not None
    _, _, own = state.encoded(torch.from_numpy(state.queries))
    needed = max(
        int(routing.distances(own[[i]], state.codes[[owner]])[0, 0])
        for i, owner in enumerate(state.owners)
    ) + 1  # fmt: skip

    def fires(threshold: int) -> float:
        view = ElderPart(dataclasses.replace(state, threshold=threshold))
        return float(np.mean([one >= 0 for one in view.select(text).fired]))

    allowed = [t for t in range(1, 10) if fires(t) <= learning._FALSE]
    wanted = min(9, max([needed, *allowed]))
    assert state.threshold == wanted
    assert told.separation is not None
    assert told.separation[0] == needed - 1
    assert Pupil(tiny_llama(), calibrate=False).learn(pupil.lessons(*FACTS), []).separation is None


def learned() -> ElderState:
    pupil = Pupil(tiny_llama(), **EAGER)
    pupil.learn(pupil.lessons(*FACTS), [])
    return dataclasses.replace(pupil.state, edit_ids=IDS)


def queries(state: ElderState) -> dict[str, Any]:
    assert state.queries is not None
    return {one: state.queries[state.owners == i] for i, one in enumerate(state.edit_ids)}


@pytest.mark.parametrize("is_on_grid", [True, False])
def test_a_state_comes_back_from_its_snapshot_bit_for_bit(is_on_grid: bool) -> None:
    state = learned() if is_on_grid else noisy(learned())
    snapshot = snapshot_of(state, ["m.0", "m.1", "m.2", "m.3"], about=ABOUT)
    kinds = {name.split(".")[0]: one.dtype for name, one in snapshot.tensors.items()}
    fits = "I16" if is_on_grid else "F32"
    assert kinds == {
        "lora_A": "I16", "lora_B": fits, "router": "F16" if is_on_grid else "F32",
        "codes": "U8", "edits": "U8",
    }  # fmt: skip
    back = state_of(snapshot, queries(state))
    assert all(map(torch.equal, tensors(back), tensors(state)))
    for name in ("codes", "queries", "owners"):
        assert np.array_equal(getattr(back, name), getattr(state, name))
    for name in ("edit_ids", "top_k", "scaling", "threshold", "weighting", "experts", "span"):
        assert getattr(back, name) == getattr(state, name)
    # Edits of which nobody knows the queries are left out: a batch of which not all was kept.
    some = state_of(snapshot, {IDS[0]: queries(state)[IDS[0]], IDS[2]: queries(state)[IDS[2]]})
    assert some.edit_ids == (IDS[0], IDS[2])
    assert np.array_equal(some.codes, state.codes[[0, 2]])
    assert set(np.unique(some.owners)) == {0, 1}


def test_an_empty_state_comes_back_too() -> None:
    state = Pupil(tiny_llama()).learner.blank()
    back = state_of(snapshot_of(state, ["a", "b", "c", "d"], about=ABOUT), {})
    assert back.edit_ids == ()
    assert back.codes.shape == state.codes.shape
    assert all(map(torch.equal, tensors(back), tensors(state)))


def test_a_snapshot_that_is_not_whole_is_refused() -> None:
    state = learned()
    good = snapshot_of(state, ["m.0", "m.1", "m.2", "m.3"], about=ABOUT)
    bad = [
        Snapshot({**good.settings, "format": "editkit.elder.2"}, good.tensors),
        Snapshot({n: v for n, v in good.settings.items() if n != "top_k"}, good.tensors),
        Snapshot({**good.settings, "resolution": None}, good.tensors),
        *(
            Snapshot(good.settings, {n: t for n, t in good.tensors.items() if n != gone})
            for gone in ("lora_A.m.0.0", "router.m.1", "codes", "edits")
        ),
        Snapshot(good.settings, {**good.tensors, "codes": Tensor("U8", (3, 1), b"abc")}),
        Snapshot(good.settings, {**good.tensors, "codes": Tensor("U8", (2, 2), b"abcd")}),
    ]
    for one in bad:
        with pytest.raises(InvalidRecord):
            state_of(one, queries(state))


def test_a_payload_holds_the_queries_and_nothing_else_passes_for_one() -> None:
    noise = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    data = payload_of(noise)
    assert data == payload_of(noise.copy())
    assert np.array_equal(queries_of(data, edit_id="e"), noise)
    for bad in (b"", b"\0" * 64, data[:-4], data.replace(b"elder.1", b"elder.2"),
                data.replace(b"queries", b"querier")):  # fmt: skip
        with pytest.raises(InvalidRecord, match="edit 'e'"):
            queries_of(bad, edit_id="e")


def test_some_edits_of_a_state() -> None:
    state = learned()
    some = state.keeping({IDS[2], IDS[0], "another"})
    assert some.edit_ids == (IDS[0], IDS[2])
    assert some.queries is not None
    assert [len(one) for one in queries(some).values()] == [2, 2]
    assert state.keeping(IDS) is state
    view = ElderPart(state)
    assert view.without([IDS[1]]).edit_ids == (IDS[0], IDS[2])
    assert view.without(["another"]) is view
    assert len(view.without(IDS)) == 0
