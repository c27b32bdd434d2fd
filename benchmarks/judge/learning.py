"""The judge while it learns: the encoder with adapters beside its weights, and the head."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from editkit.scope.asking import question
from editkit.scope.encoder import Reader, Reading, adapted_layers, spelling
from editkit.scope.head import FLAGS, PairHead, Side

__all__ = ["Learner", "States"]

_TOKENS = 1536  # of a part of a batch that goes through the encoder, with padding
_PAIR_TOKENS = 8192  # of a part that goes through the head


def parts(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Returns texts by length in parts that have room for so many word pieces, padded."""
    found: list[list[int]] = [[]]
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        if found[-1] and (len(found[-1]) + 1) * lengths[at] > room:
            found.append([])
        found[-1].append(at)
    return found


class Adapted(nn.Module):
    """A linear map with a low-rank one added."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns ``base(x) + 2 up down x``."""
        low = F.linear(x, self.down.to(x.dtype))
        return self.base(x) + 2 * F.linear(low, self.up.to(x.dtype))


class States:
    """Texts of a batch behind the encoder, one behind the other."""

    def __init__(
        self, flat: torch.Tensor, own: torch.Tensor, pooled: torch.Tensor,
        readings: list[Reading], starts: list[int],
    ) -> None:  # fmt: skip
        self.flat = torch.cat([flat, flat.new_zeros(1, flat.shape[1])])
        self.own = torch.cat([own, own.new_zeros(1, own.shape[1])])
        self.pooled = pooled
        self.starts = torch.tensor(starts)
        self.lengths = torch.tensor([len(reading.ids) for reading in readings])
        numbers: dict[str, int] = {}
        words, flags = [], []
        for reading in readings:
            for word, kind in zip(reading.words, reading.kinds, strict=True):
                number = numbers.setdefault(word, len(numbers)) if word else -1
                digit = any(letter.isdigit() for letter in word)
                words.append(number)
                flags.append((float(not kind), float(digit), float(not word)))
        self.words = torch.tensor([*words, -1])
        self.flags = torch.tensor([*flags, (0.0,) * FLAGS])
        spelled = [torch.from_numpy(spelling(word)) for word in numbers]
        table = torch.stack([*spelled, torch.zeros_like(spelled[0])])
        self.spelled = table @ table.T

    def side(self, of: torch.Tensor) -> Side:
        """Returns these texts as a side of pairs."""
        lengths = self.lengths[of]
        at = torch.arange(int(lengths.max()))[None]
        mask = at < lengths[:, None]
        index = torch.where(mask, self.starts[of][:, None] + at, len(self.flat) - 1)
        return Side(
            self.flat[index], self.own[index], mask, self.flags[index], self.words[index],
            self.pooled[of],
        )  # fmt: skip

    def logits(self, head: PairHead, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Returns the logits of pairs of these texts, in parts of like length."""
        length = torch.maximum(self.lengths[one], self.lengths[other])
        order = length.argsort()
        found, start = [], 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end - start) * int(length[order[end]]) * 2 < _PAIR_TOKENS:
                end += 1
            part = order[start:end]
            a, b = self.side(one[part]), self.side(other[part])
            found.append(head(a, b, self.spelled[a.words[:, :, None], b.words[:, None, :]]))
            start = end
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        return torch.cat(found)[back]


class Learner(nn.Module):
    """Encoder and head with what is learned of them.

    Args:
        encoder: A ``BertModel`` in float32; changed.
        tokenizer: Its tokenizer.
        rank: Of the adapters.
        first: The first layer that is adapted.
        window: Word pieces of a text that are looked at.
        head: Settings of ``PairHead``.
    """

    def __init__(
        self, encoder: nn.Module, tokenizer: object, *, rank: int = 16, first: int = 2,
        window: int = 160, **head: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.reader = Reader(tokenizer, window)
        encoder.requires_grad_(False)
        for module in encoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        encoder.pooler = None
        # Of short texts, attention written out is the faster one, backwards above all.
        encoder.config._attn_implementation = "eager"
        self.encoder = encoder.bfloat16()
        self.first, self.rank = first, rank
        self.adapters: dict[str, Adapted] = {}
        for name, owner, leaf in list(adapted_layers(self.encoder, first)):
            self.adapters[name] = Adapted(getattr(owner, leaf), rank)
            setattr(owner, leaf, self.adapters[name])
        self.head = PairHead(**head)

    def read(self, said: str | tuple[str, ...], meant: Sequence[str] = ()) -> Reading:
        """Returns a text as word pieces."""
        return self.reader.read(question(said), meant)

    @torch.no_grad()
    def lower(self, readings: Sequence[Reading]) -> list[torch.Tensor]:
        """Returns what the layers below the adapted ones make of texts, each ``(n, d)``."""
        found: list[torch.Tensor] = [torch.empty(0)] * len(readings)
        for part in parts([len(reading.ids) for reading in readings], 2 * _TOKENS):
            longest = len(readings[part[-1]].ids)
            ids = torch.zeros(len(part), longest, dtype=torch.long)
            mask, kinds = torch.zeros_like(ids), torch.zeros_like(ids)
            for row, at in enumerate(part):
                length = len(readings[at].ids)
                ids[row, :length] = torch.tensor(readings[at].ids)
                kinds[row, :length] = torch.tensor(readings[at].kinds)
                mask[row, :length] = 1
            hidden = self.encoder.embeddings(input_ids=ids, token_type_ids=kinds)
            hidden = self._layers(hidden, mask.bool(), 0, self.first)
            for row, at in enumerate(part):
                found[at] = hidden[row, : len(readings[at].ids)].clone()
        return found

    def states(self, readings: Sequence[Reading], low: Sequence[torch.Tensor]) -> States:
        """Returns texts behind the whole encoder, from what its lower layers made of them."""
        flat, pooled, starts, total = [], [], [0] * len(low), 0
        order: list[int] = []
        for part in parts([len(one) for one in low], _TOKENS):
            order += part
            hidden = torch.nn.utils.rnn.pad_sequence([low[at] for at in part], batch_first=True)
            lengths = torch.tensor([len(low[at]) for at in part])
            mask = torch.arange(hidden.shape[1])[None] < lengths[:, None]
            asking = torch.zeros(mask.shape)
            for row, at in enumerate(part):
                asking[row, : len(low[at])] = 1 - torch.tensor(readings[at].kinds).float()
                starts[at] = total
                total += len(low[at])
            hidden = self._layers(hidden, mask, self.first, len(self.encoder.encoder.layer)).float()
            pooled.append(F.normalize((hidden * asking[..., None]).sum(1), dim=-1))
            flat.append(self.head.project(hidden[mask]))
        together = torch.cat(flat)
        states = States(
            together, self.head.own(together), torch.cat(pooled),
            [readings[at] for at in order], [starts[at] for at in order],
        )  # fmt: skip
        place = torch.empty(len(order), dtype=torch.long)
        place[torch.tensor(order)] = torch.arange(len(order))
        states.starts, states.lengths = states.starts[place], states.lengths[place]
        states.pooled = states.pooled[place]
        return states

    def _layers(
        self, hidden: torch.Tensor, mask: torch.Tensor, start: int, end: int
    ) -> torch.Tensor:
        bias = torch.zeros(mask.shape, dtype=hidden.dtype).masked_fill(~mask, -1e4)[:, None, None]
        for layer in self.encoder.encoder.layer[start:end]:
            hidden = layer(hidden, bias)
        return hidden

    def learned(self) -> dict[str, torch.Tensor]:
        """Returns what a judge's file holds: adapters to be merged, and the head."""
        found = {f"head.{name}": value.detach() for name, value in self.head.state_dict().items()}
        for name, adapter in self.adapters.items():
            found[f"{name}.up"] = 2 * adapter.up.detach()
            found[f"{name}.down"] = adapter.down.detach()
        return found

    def take(self, learned: dict[str, torch.Tensor]) -> None:
        """Takes over what another one learned."""
        with torch.no_grad():
            for name, value in self.head.state_dict().items():
                value.copy_(learned[f"head.{name}"])
            for name, adapter in self.adapters.items():
                adapter.up.copy_(learned[f"{name}.up"] / 2)
                adapter.down.copy_(learned[f"{name}.down"])
