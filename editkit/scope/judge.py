"""The judge of pairs: how likely a prompt asks for exactly what another one asks for.

Trained on pairs that people wrote (``benchmarks/judge``), it ships as one file of adapters for a
small sentence encoder, a head that compares what the encoder says of two texts, and a calibration.
Each text is encoded once, and what is kept of it serves every comparison: an edit's prompt is
encoded when the edit is first needed, a prompt once, and then a candidate costs a fraction of that.

What it was trained on, what was looked at, and what it cannot do: benchmarks/judge/README.md.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from editkit.errors import ModelUnavailable
from editkit.models.progress import Progress
from editkit.models.sentences import LoadedEncoder, load_encoder
from editkit.scope.asking import Text, question
from editkit.scope.encoder import GRAMS, Reader, Reading, merge, spelling
from editkit.scope.head import FLAGS, PairHead, Side
from editkit.scope.recall import Recall

__all__ = ["Judge", "JudgeCard", "Judged", "write_judge"]

_FORMAT = "editkit-judge-1"
_TOGETHER = 64  # candidates that are compared at a time


class JudgeCard(BaseModel):
    """What a judge's file says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = Field(description="alias of the encoder")
    fingerprint: str = Field(description="identity of its weights")
    first: int = Field(description="first layer that is adapted, counted from 0")
    window: int = Field(description="word pieces of a text that are looked at")
    width: int = Field(description="of the encoder's states")
    size: int = Field(description="of the states as kept")
    hidden: int = Field(description="of what is known of an aligned word piece")
    slope: float = Field(description="of the calibration: p = 1 / (1 + exp(-slope x - shift))")
    shift: float = Field(description="of the calibration")
    thresholds: dict[str, float] = Field(
        description="probability from which an edit fires, by how far edits reach"
    )
    fires: dict[str, float] = Field(
        description="share of other questions that fire there, as held out in training"
    )
    finds: dict[str, float] = Field(
        description="share of the same questions that fire there, as held out in training"
    )
    training: dict[str, float | str] = Field(description="what it was trained on, and for how long")


class Judged(NamedTuple):
    """What is kept of a text. Compact: a quarter of a kilobyte a word piece.

    Attributes:
        reading: Its word pieces and words.
        states: ``(n, d)`` float16.
        pooled: ``(w,)`` float16 of unit length: near those of texts that ask for the same.
    """

    reading: Reading
    states: torch.Tensor
    pooled: torch.Tensor

    @property
    def is_cut(self) -> bool:
        """Whether it was longer than the window, so that only the part that asks was read."""
        return self.reading.is_cut

    @property
    def is_empty(self) -> bool:
        """Whether no word is in it."""
        return self.reading.is_empty


class Judge:
    """Compares prompts. May be used from several threads.

    Args:
        card: What the file says of itself.
        loaded: The encoder, one's own: its weights are changed.
        tensors: What the file holds.

    Raises:
        ModelUnavailable: The file is of another encoder, or damaged.
    """

    def __init__(
        self, card: JudgeCard, loaded: LoadedEncoder, tensors: Mapping[str, torch.Tensor]
    ) -> None:
        if loaded.fingerprint != card.fingerprint:
            raise ModelUnavailable(
                f"the judge was trained over another {card.encoder}: over {card.fingerprint[:19]}, "
                f"and here is {loaded.fingerprint[:19]}",
                name="judge",
                reason="encoder",
                hint="fetch the encoder that the judge belongs to, or train a judge: make judge",
            )
        self.card = card
        self._encoder = loaded.model
        self._reader = Reader(loaded.tokenizer, card.window)
        self._head = PairHead(card.width, card.size, card.hidden).eval().requires_grad_(False)
        head = {
            name.removeprefix("head."): value.float()
            for name, value in tensors.items()
            if name.startswith("head.")
        }
        try:
            self._head.load_state_dict(head)
            merge(self._encoder, tensors, card.first)
        except (KeyError, RuntimeError) as error:
            raise _damaged(f"its tensors do not fit: {error}") from error
        self._encoder.eval().requires_grad_(False)
        own = {
            name.removeprefix("recall."): value
            for name, value in tensors.items()
            if name.startswith("recall.")
        }
        try:
            embeddings = self._encoder.get_input_embeddings().weight
            self._recall = Recall(own, embeddings) if own else None
        except (KeyError, ValueError) as error:
            raise _damaged(f"what recall needs does not fit: {error}") from error

    @classmethod
    def load(cls, path: Path | None = None, *, progress: Progress | None = None) -> Judge:
        """Returns the judge of a file, with its encoder, which is fetched if it is not here yet.

        Args:
            path: The file; by default that of the package.
            progress: Told about fetching and loading.

        Raises:
            ModelUnavailable: The file is damaged or of another encoder, or the encoder is not to
                be had.
        """
        if path is None:
            with resources.as_file(resources.files(__package__) / "judge.safetensors") as own:
                card, tensors = _read(own)
        else:
            card, tensors = _read(path)
        return cls(card, load_encoder(card.encoder, progress=progress), tensors)

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Probability from which an edit fires: ``strict``, ``balanced`` and ``broad``."""
        return self.card.thresholds

    def read(self, text: Text, *, near: Sequence[Reading] = ()) -> Reading:
        """Returns a text as it is encoded.

        Args:
            text: A prompt; of a conversation its turns, the asking one last.
            near: Edits' prompts that it may ask for: mistyped words are taken for theirs.
        """
        return self._reader.read(question(text), [word for one in near for word in one.asked])

    def encode(self, texts: Sequence[Text], *, near: Sequence[Judged] = ()) -> list[Judged]:
        """Returns what is kept of texts to compare them.

        Each is encoded by itself: what is kept of it does not depend on what it came with.

        Args:
            texts: Prompts; of a conversation its turns, the asking one last.
            near: Edits' prompts that these may ask for: mistyped words are taken for theirs.
        """
        readings = [one.reading for one in near]
        return [self.judged(self.read(text, near=readings)) for text in texts]

    @property
    def recall(self) -> Recall:
        """Keys for recall.

        Raises:
            ModelUnavailable: The file holds none.
        """
        if self._recall is None:
            raise _damaged("it holds nothing for recall; run benchmarks/judge/recall.py")
        return self._recall

    def key(self, text: Text) -> npt.NDArray[np.float32]:
        """Returns the key of a text for recall, ``(recall.width,)``; see ``Recall``."""
        return self.recall.key(self.read(text))

    def keys(self, texts: Sequence[Text]) -> npt.NDArray[np.float32]:
        """Returns the keys of texts for recall, ``(n, recall.width)``."""
        found = np.zeros((len(texts), self.recall.width), np.float32)
        for row, text in enumerate(texts):
            found[row] = self.key(text)
        return found

    def score(self, prompt: Judged, candidates: Sequence[Judged]) -> npt.NDArray[np.float64]:
        """Returns how likely each candidate asks for what a prompt asks for, ``(k,)``.

        The same words score 1, whatever their capitals and marks; a text without words 0.

        Args:
            prompt: The prompt.
            candidates: Edits' prompts.
        """
        found = np.zeros(len(candidates))
        if prompt.is_empty:
            return found
        compared = []
        for at, one in enumerate(candidates):
            if one.reading.asks_the_same(prompt.reading):
                found[at] = 1.0
            elif not one.is_empty:
                compared.append(at)
        for start in range(0, len(compared), _TOGETHER):
            part = compared[start : start + _TOGETHER]
            found[part] = self._compared(prompt, [candidates[at] for at in part])
        return found

    @torch.no_grad()
    def judged(self, reading: Reading) -> Judged:
        """Encodes a text by itself."""
        ids, kinds = torch.tensor([reading.ids]), torch.tensor([reading.kinds])
        states = self._encoder(
            input_ids=ids, token_type_ids=kinds, attention_mask=torch.ones_like(ids)
        ).last_hidden_state[0].float()  # fmt: skip
        pooled = F.normalize((states * (1 - kinds[0])[:, None]).sum(0), dim=-1)
        return Judged(reading, self._head.project(states).half(), pooled.half())

    @torch.no_grad()
    def _compared(self, prompt: Judged, candidates: Sequence[Judged]) -> npt.NDArray[np.float64]:
        numbers: dict[str, int] = {}
        one = self._side([prompt], numbers)
        other = self._side(candidates, numbers)
        table = np.zeros((len(numbers) + 1, GRAMS), np.float32)  # its last row is of no word
        for word, number in numbers.items():
            table[number] = spelling(word)
        known = torch.from_numpy(table)
        own = len(prompt.reading.words)
        spelled = known[one.words[0]] @ known.T  # (n, words)
        spelled = spelled[:, other.words].movedim(1, 0)  # (k, n, m)
        one = Side(*(part.expand(len(candidates), *part.shape[1:]) for part in one))
        assert spelled.shape[1] == own
        logits = self._head(one, other, spelled).double().numpy()
        return np.asarray(1 / (1 + np.exp(-(self.card.slope * logits + self.card.shift))))

    def _side(self, texts: Sequence[Judged], numbers: dict[str, int]) -> Side:
        lengths = [len(text.reading.ids) for text in texts]
        shape = len(texts), max(lengths)
        states = torch.zeros(*shape, self.card.size)
        words = torch.full(shape, -1)
        flags = torch.zeros(*shape, FLAGS)
        for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            states[row, :length] = text.states.float()
            reading = text.reading
            for word in reading.words:
                if word:
                    numbers.setdefault(word, len(numbers))
            words[row, :length] = torch.tensor([numbers.get(word, -1) for word in reading.words])
            flags[row, :length] = torch.tensor(
                [_flags(word, kind) for word, kind in zip(*reading[2:0:-1], strict=True)]
            )
        mask = torch.arange(shape[1])[None] < torch.tensor(lengths)[:, None]
        pooled = torch.stack([text.pooled.float() for text in texts])
        return Side(states, self._head.own(states), mask, flags, words, pooled)


@functools.lru_cache(maxsize=1 << 14)
def _flags(word: str, kind: int) -> tuple[float, float, float]:
    return float(not kind), float(any(letter.isdigit() for letter in word)), float(not word)


def write_judge(path: Path, card: JudgeCard, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes a judge's file, in half precision.

    Args:
        path: The file.
        card: What it says of itself.
        tensors: ``NAME.up``, ``NAME.down`` of the adapted maps, and ``head.*``.
    """
    half = {name: value.half().contiguous() for name, value in tensors.items()}
    scratch = path.with_name(path.name + ".new")
    save_file(half, scratch, {"format": _FORMAT, "card": card.model_dump_json()})
    scratch.replace(path)


def _read(path: Path) -> tuple[JudgeCard, dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _damaged(f"{path} does not read: {error}") from error
    if about.get("format") != _FORMAT:
        raise _damaged(f"{path} is no judge's file of this version: {about.get('format')!r}")
    try:
        card = JudgeCard.model_validate_json(about.get("card", ""))
    except ValidationError as error:
        raise _damaged(f"the card of {path} does not read: {error}") from error
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise _damaged(f"{path} holds numbers that are none")
    if not math.isfinite(card.slope) or not math.isfinite(card.shift) or card.slope <= 0:
        raise _damaged(f"the calibration of {path} is none")
    return card, tensors


def _damaged(what: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"the judge's file cannot be used: {what}",
        name="judge",
        reason="damaged",
        hint="install the package again, or train a judge: make judge",
    )
