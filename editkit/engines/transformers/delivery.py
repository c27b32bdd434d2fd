"""Comparing answers with the targets of the edits that fired, and holding the decoder to them.

An edit makes the model give its target at the prompts it was learned for; for other wordings the
model may give half of it, or something between the target and the old answer. So an answer is
compared with the target of the edit that fired, token by token, and a row that is *held* takes the
target's next token wherever the model would choose another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor

from editkit.engines.base import Encoded, Targets, TokenEncoder

if TYPE_CHECKING:
    from editkit_store.records import Delivered

__all__ = ["TargetCheck", "begins_with"]

_BROKEN = "\ufffd"
"""Stands for the first bytes of a character while the rest is missing."""

_SPACED = "\u0e00"
"""Scripts before this code point put spaces between words; most of those after it do not."""

_SURE = 8
"""Characters beyond the target after which later tokens cannot change how the answer begins."""


class TargetCheck(LogitsProcessor):
    """Compares the rows of one batch with the targets of the edits that fired for them.

    As the last logits processor it holds rows to their targets; as a plain object it only tells how
    they came to be. It reads a row's tokens anew at every step, since beams change places.

    Args:
        targets: What to compare with.
        fired: Returns the edit that fired for each prompt, or nothing before the prompts have run.
        encoder: Decodes tokens, and knows which of them end an answer.
        skipped: Number of tokens of a row before its answer.
    """

    def __init__(
        self,
        targets: Targets,
        fired: Callable[[], Sequence[str | None]],
        encoder: TokenEncoder,
        skipped: int,
    ) -> None:
        self._targets = targets
        self._fired = fired
        self._encoder = encoder
        self._stops = frozenset(encoder.stop_ids)
        self._skipped = skipped
        self._forms: dict[int, Sequence[Encoded]] | None = None  # by prompt, where an edit fired
        self._held: set[int] = set()  # prompts for which a token was chosen for the model
        self._final: set[int] = set()  # prompts whose answers cannot change any more
        self._told: dict[int, Delivered] = {}

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Returns ``(rows, vocabulary)`` scores; those of a held row allow only the target."""
        count = input_ids.shape[1] - self._skipped
        found = scores
        for prompt, forms in self._known().items():
            longest = max(len(one.target) for one in forms)
            if not self._targets.held[prompt] or prompt in self._final or count >= longest:
                continue
            fold = self._fold(input_ids)
            for row in range(prompt * fold, prompt * fold + fold):
                said = tuple(input_ids[row, self._skipped :].tolist())
                allowed = [
                    one.target[count] for one in forms
                    if len(one.target) > count and one.target[:count] == said
                ]  # fmt: skip
                if not allowed:
                    continue
                # With transformers' own sampling this is the likeliest token: the draw comes later.
                token = int(scores[row].argmax())
                if token not in allowed:
                    token = max(allowed, key=lambda one: float(scores[row, one]))
                    if row == prompt * fold:  # the best of the beams
                        self._held.add(prompt)
                if found is scores:
                    found = scores.clone()
                kept = scores[row, token]
                found[row] = -torch.inf
                found[row, token] = kept if bool(kept.isfinite()) else 0.0
        return found

    def told(self, ids: torch.Tensor) -> tuple[Delivered | None, ...]:
        """Returns for each prompt how the target came into its answer so far.

        Args:
            ids: ``(rows, length)`` int64, the tokens of the rows, with those before the answers.
        """
        fold = self._fold(ids)
        for prompt, forms in self._known().items():
            if prompt not in self._final:
                said = ids[prompt * fold, self._skipped :].tolist()
                self._told[prompt] = self._compare(prompt, said, forms)
        return tuple(map(self._told.get, range(len(self._targets.held))))

    def end(self, prompts: Sequence[int]) -> None:
        """Takes the answers of prompts as they are: what follows in their rows is padding."""
        self._final.update(prompts)

    def _known(self) -> dict[int, Sequence[Encoded]]:
        """Returns the targets of the edits that fired, by prompt."""
        if self._forms is None:
            fired = self._fired()
            if not fired:
                return {}
            found = {
                prompt: self._targets.of(edit)
                for prompt, edit in enumerate(fired) if edit is not None
            }  # fmt: skip
            self._forms = {prompt: forms for prompt, forms in found.items() if forms}
        return self._forms

    def _fold(self, ids: Any) -> int:
        """Returns the rows per prompt: beams."""
        return max(1, len(ids) // len(self._targets.held))

    def _compare(self, prompt: int, ids: list[int], forms: Sequence[Encoded]) -> Delivered:
        end = next((at for at, token in enumerate(ids) if token in self._stops), None)
        said = tuple(ids if end is None else ids[: end + 1])
        follows = [one for one in forms if said[: len(one.target)] == one.target[: len(said)]]
        if any(len(one.target) <= len(said) for one in follows):
            self._final.add(prompt)
        elif not follows:  # other tokens may still be the same text
            text = self._encoder.decode(said).rstrip(_BROKEN)
            target = forms[0].text
            if len(text) >= len(target) + _SURE or end is not None:
                self._final.add(prompt)
            is_begun = end is None and target.startswith(text)
            if not is_begun and not begins_with(text, target):
                return "no"
        return "held" if prompt in self._held else "free"


def begins_with(text: str, target: str) -> bool:
    """Returns whether an answer begins with a target that is not only the start of a longer word.

    Args:
        text: The answer, without surrounding whitespace.
        target: The target, likewise.
    """
    if not text.startswith(target):
        return False
    rest = text[len(target) :]
    runs_on = rest[:1].isalnum() and rest < _SPACED and target[-1:].isalnum()
    return not runs_on
