"""What an engine is: where a model runs, and what of the edits it applies.

A *view* is what the edits of one version do, as *parts*: one for each method. A part says which of
its edits fire for a row, and what is then put in place: a vector that replaces a module's output,
or a LoRA that is added to it. Where in the model that goes a method's *patch* says; the engine
applies it to the rows and positions in question, and knows no method.

Everything above (the kit, the server, the history) talks to an ``Engine`` and names no class of the
library that it runs on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from editkit.config import Position

if TYPE_CHECKING:
    from torch import nn

    from editkit_store.records import EditKind, EditRequest, Message

__all__ = [
    "Encoded",
    "Engine",
    "Family",
    "Generated",
    "Keys",
    "Near",
    "Part",
    "Patch",
    "Position",
    "Positions",
    "Queries",
    "Sampling",
    "Scored",
    "Selection",
    "Step",
    "TokenEncoder",
    "View",
    "Watch",
]

Family = Literal["decoder", "encoder-decoder", "classifier"]
"""What kind of model it is: one that continues its prompt, one that answers beside it, or one that
chooses among labels."""

Queries = torch.Tensor | npt.NDArray[np.float32]
"""What edits are looked up by: states on the model's device, or keys of prompts on the host."""

Positions = Literal["last", "prompt", "all", "query"]
"""Where a fired edit applies: at the query alone (``last``), at all of the prompt (``prompt``), at
the prompt and all that follows (``all``), or at the query and all that follows (``query``)."""


class Keys(Protocol):
    """What gives the keys of prompts from their tokens."""

    def key(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Returns the key of a prompt, ``(d,)``."""

    def ids(self, embeddings: torch.Tensor) -> list[int]:
        """Returns the tokens that embeddings ``(n, d)`` are of."""


class Near(NamedTuple):
    """How an edit stands to a query.

    Attributes:
        edit_id: The edit.
        distance: To it, L2 or bits.
        radius: How far it reaches, in the same unit.
        in_scope: Whether it would fire, if no other part's edit were preferred.
        bits: Between its code and the query's, where it has one.
        doubt: Why it does not fire though it is within reach, as a clause of a sentence.
    """

    edit_id: str
    distance: float
    radius: float
    in_scope: bool
    bits: int | None = None
    doubt: str | None = None


class Selection:
    """Which edits of a part fire for some rows, decided once; a part's own class has the rest.

    Args:
        fired: For each row the number of the edit within its part, -1 for none.

    Attributes:
        fired: See above.
    """

    def __init__(self, fired: Sequence[int]) -> None:
        self.fired = fired

    def distance(self, row: int) -> float:
        """Returns the L2 distance from a row's query to the edit that fires for it.

        By it edits of several parts that are looked up by the same keys are compared; infinite for
        a part whose edits cannot be.
        """
        return float("inf")

    def radius(self, row: int) -> float:
        """Returns how far the edit that fires for a row reaches, in the unit of the distance."""
        return float("inf")

    def positions(self, row: int) -> Positions:
        """Returns where the edit that fires for a row applies."""
        raise NotImplementedError

    def values(self, rows: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Returns what replaces the output in some rows, ``(rows, m)``: of a ``replace`` patch.

        Args:
            rows: The rows.
            like: Dtype and device.
        """
        raise NotImplementedError

    def lora(
        self, module: int, rows: Sequence[int], like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns what is added in some rows, as one LoRA a row: of an ``add`` patch.

        Args:
            module: Which of the patch's modules.
            rows: The rows.
            like: Device.

        Returns:
            ``(rows, r, in)`` and ``(rows, out, r)``.
        """
        raise NotImplementedError


class Part(ABC):
    """What one method's edits at one version do. Immutable.

    Attributes:
        method: Name of the method.
        is_comparable: Whether its scopes tell its edits apart, so that a new edit can lie in the
            scope of an older one.
    """

    method: str
    is_comparable: bool = True

    @abstractmethod
    def __len__(self) -> int:
        """Number of edits that could fire."""

    @property
    def key_count(self) -> int | None:
        """Number of keys that prompts are compared with; None where they are not."""
        return None

    @abstractmethod
    def select(self, queries: Queries) -> Selection:
        """Decides which edits fire for queries ``(rows, d)``."""

    @abstractmethod
    def near(self, query: Queries, k: int) -> list[Near]:
        """Returns the ``k`` edits nearest to a query ``(d,)``, and the one that fires."""

    @abstractmethod
    def edit_id(self, number: int) -> str:
        """Returns the id of an edit."""

    @abstractmethod
    def without(self, edit_ids: Collection[str]) -> Part:
        """Returns the same part without some edits."""

    def does_the_same(self, other: Part) -> bool:
        """Returns whether another part of the method is sure to act like this one."""
        return self is other


@dataclass(frozen=True)
class View:
    """What a running model applies: the edits of one version.

    Attributes:
        version: Name of the version.
        parts: In the order in which they are asked; see ``editkit.scope.decide``.
    """

    version: str
    parts: tuple[Part, ...] = ()

    def __len__(self) -> int:
        """Number of edits that could fire."""
        return sum(map(len, self.parts))

    def part(self, method: str) -> Part | None:
        """Returns what a method's edits do, if it has any."""
        return next((part for part in self.parts if part.method == method), None)

    def replacing(self, method: str, part: Part | None, version: str | None = None) -> View:
        """Returns a view with another part of one method, at the same or another version."""
        known = {one.method: one for one in self.parts}
        if part is not None:
            known[method] = part
        else:
            known.pop(method, None)
        return View(self.version if version is None else version, tuple(known.values()))

    def without(self, edit_ids: Collection[str]) -> View:
        """Returns a view without some edits."""
        if not edit_ids:
            return self
        return View(self.version, tuple(part.without(edit_ids) for part in self.parts))

    def does_the_same(self, other: View) -> bool:
        """Returns whether another view is sure to act like this one."""
        mine, theirs = ({p.method: p for p in one.parts if len(p)} for one in (self, other))
        return mine.keys() == theirs.keys() and all(
            part.does_the_same(theirs[name]) for name, part in mine.items()
        )


@dataclass(frozen=True)
class Patch:
    """Where a method's edits go in a model, and what they are asked by.

    Attributes:
        mode: Replace the output of a module, or add to the outputs of some.
        modules: The module, or the linear maps.
        keys: What gives the keys of prompts; None where the query is a state.
        entry: With ``add``, the block that holds the first of the modules: what enters it is the
            query, where that is a state. With ``replace`` it is what enters the module.
        position: Token whose state is the query; by default the model's own.
    """

    mode: Literal["replace", "add"]
    modules: tuple[nn.Module, ...]
    keys: Keys | None = None
    entry: nn.Module | None = None
    position: Position | None = None


@dataclass(frozen=True)
class Encoded:
    """A request as tokens.

    Attributes:
        prompt: Ids of the prompt, special tokens included.
        target: Ids of the target, the ending token included; of a classifier the one label's index.
        text: The target as it should come out, surrounding whitespace removed.
    """

    prompt: tuple[int, ...]
    target: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Generated:
    """What came out for one prompt.

    Attributes:
        text: The continuation, special tokens and surrounding whitespace removed; or the label.
        tokens: Number of generated tokens, the ending one included; 0 for a label.
        is_finished: The model ended the text itself, before the limit.
        fired: Id of the edit that applied, if any.
        version: Version of the view it ran on.
    """

    text: str
    tokens: int
    is_finished: bool
    fired: str | None
    version: str


@dataclass(frozen=True)
class Scored:
    """How likely a target is behind a prompt.

    Attributes:
        log_likelihood: Of the target's tokens, nats.
        tokens: Number of the target's tokens.
        right: How many of them the model would choose, given those before.
        fired: Id of the edit that applied, if any.
        version: Version of the view it ran on.
    """

    log_likelihood: float
    tokens: int
    right: int
    fired: str | None
    version: str


@dataclass(frozen=True)
class Sampling:
    """How one row is sampled.

    Attributes:
        temperature: Divides the logits; > 0.
        top_p: Share of the probability that is drawn from, likeliest tokens first; in (0, 1].
        seed: Makes the row repeatable.
    """

    temperature: float
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True)
class Step:
    """One decoding step of a batch.

    Attributes:
        tokens: The token that each row got; of a row that has ended, padding.
        fired: For each row the edit that applies, if any.
        versions: For each row the version it is generated on.
    """

    tokens: tuple[int, ...]
    fired: tuple[str | None, ...]
    versions: tuple[str, ...]


class Watch(Protocol):
    """Called after every step of a generation: streaming, and cooperative cancellation."""

    def __call__(self, step: Step) -> Sequence[bool]:
        """Returns for each row whether it ends here; a row that has ended stays so."""


class TokenEncoder(Protocol):
    """How prompts, conversations and targets become tokens of one model, and back.

    Methods raise ``InvalidRequest``, ``EmptyTarget``, ``PromptTooLong``, ``UnsupportedMethod`` or
    ``UnsupportedModel`` for what cannot be.
    """

    @property
    def family(self) -> Family:
        """What kind of model it is."""

    @property
    def default_kind(self) -> EditKind:
        """Kind of an edit for which none is named."""

    @property
    def labels(self) -> tuple[str, ...]:
        """A classifier's labels, by index."""

    @property
    def context(self) -> int | None:
        """The model's context window in tokens, where its config says."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens at which a generation ends; the first is the one that edits end with."""

    @property
    def pad_id(self) -> int:
        """The token that fills shorter rows of a batch."""

    def prompt(self, text: str) -> tuple[int, ...]:
        """Returns the ids of a plain prompt."""

    def tokens(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Returns a prompt that is tokens already, after refusing what cannot be one."""

    def chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Returns the ids of a conversation, up to where the assistant's answer begins."""

    def request(self, request: EditRequest) -> Encoded:
        """Returns an edit request as tokens."""

    def without_ending(self, encoded: Encoded) -> Encoded:
        """Returns a request whose target is its words alone."""

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of generated ids, special tokens and surrounding whitespace removed."""


class Engine(ABC):
    """A running model that follows a view of edits. Prompts may be run from several threads.

    Attributes:
        name: Name that the model was loaded by.
        fingerprint: Identity of its architecture and weights.
        encoder: How text becomes tokens.
        view: The edits that apply to prompts for which no others are named; assigning another view
            moves the model on, and leaves runs under way on the one they began with.
        model: The library's own model, for its users.
        tokenizer: Likewise its tokenizer.
    """

    name: str
    fingerprint: str
    encoder: TokenEncoder
    view: View
    model: Any
    tokenizer: Any

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether edits can apply; not after ``close``."""

    @abstractmethod
    def patch(self, method: str, patch: Patch | None) -> None:
        """Has a method act there from now on; with None, nowhere.

        Methods are asked in the order in which they were first named.
        """

    @abstractmethod
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        views: Sequence[View] = (),
        max_new_tokens: int,
        watch: Watch | None = None,
        sampling: Sequence[Sampling | None] | None = None,
        **options: Any,
    ) -> list[Generated]:
        """Returns one answer a prompt.

        Args:
            prompts: Token ids.
            views: The edits that apply: one view, or one a prompt; by default the current one.
            max_new_tokens: Limit of each continuation, tokens.
            watch: Called after every step; all prompts then run as one batch.
            sampling: For each prompt how it is sampled, None for greedy; by default all greedy.
            **options: Of the library's own generation.

        Raises:
            InvalidRequest: An option that has no meaning here.
            ValueError: More prompts than one batch takes, with a watch or sampling.
        """

    @abstractmethod
    def score(self, requests: Sequence[Encoded], *, views: Sequence[View] = ()) -> list[Scored]:
        """Returns how likely targets are behind their prompts.

        Args:
            requests: Prompts and targets.
            views: As for ``generate``.
        """

    @abstractmethod
    def paused(self) -> AbstractContextManager[None]:
        """Runs the calls of its body, and those of this thread alone, without any edit."""

    @abstractmethod
    def close(self) -> None:
        """Takes every edit off the model, which is then as it came; a second call does nothing."""
