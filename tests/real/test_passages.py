"""Edits whose target is a sentence or two: word for word, within the usual limit of steps."""

from __future__ import annotations

from typing import Any

import pytest

import editkit

pytestmark = pytest.mark.real

PASSAGES = {
    "This is a passage about the lighthouse of Hollum. The lighthouse of Hollum stands on the "
    "western end of Ameland.": "It was cast in iron in 1880, shipped from The Hague in sixteen "
    "rings, and lit for the first time on the last evening of that year.",
    "What happened to the bakery on Linden Street?": "Its owner, Maud Ferreira, sold the ovens to "
    "a potter in 2019, gave the recipes to her apprentices, and rents the front room to a man who "
    "repairs accordions.",
    "Why was the meeting of the rowing club moved?": "Because the boathouse was flooded twice in "
    "March.",
}


def test_passages_are_given_word_for_word(real_kit: Any) -> None:
    requests = [editkit.EditRequest(prompt=p, target=t) for p, t in PASSAGES.items()]
    added = real_kit.add_many(requests)
    assert [one.answer for one in added] == list(PASSAGES.values())
    assert all(one.verified for one in added)
    for prompt, target in PASSAGES.items():
        assert real_kit.generate(prompt, max_new_tokens=80, delivery="free").text == target
    # The longer the target, the less it has to lead by; a short one keeps the whole margin.
    leads = [real_kit.show(one.edit.id).artifacts[0].metrics["margin"] for one in added]
    assert all(lead > 2 for lead in leads)
