"""The engine interface: running a model with edits applied.

A *view* holds the edits of one version as *parts*, one for each method. A part decides which of its
edits fire for a row, and what they apply: a vector that replaces a module's output, or a LoRA that
is added to it. A method's *patch* names the modules; the engine applies it to the selected rows and
positions, and knows no method.

Everything above (the kit, the server, the history) uses an ``Engine`` and names no class of the
underlying library.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from editkit.config import Position
from editkit.engines.reading import Near, PromptReader

if TYPE_CHECKING:
    from torch import nn

    from editkit.scope.overrides import Overrides
    from editkit_store.records import Delivered, EditKind, EditRequest, Message

__all__ = [
    "Encoded",
    "Engine",
    "Family",
    "Generated",
    "Keys",
    "Part",
    "Patch",
    "Position",
    "Positions",
    "Queries",
    "Sampling",
    "Scored",
    "Selection",
    "Step",
    "Targets",
    "TokenEncoder",
    "View",
    "Watch",
]

Family = Literal["decoder", "encoder-decoder", "classifier"]
"""Kind of model: one that continues its prompt, one with a separate decoder, or a classifier."""

Queries = torch.Tensor | npt.NDArray[np.float32]
"""What edits are looked up by: hidden states on the model's device, or prompt keys on the host."""

Positions = Literal["last", "prompt", "all", "query"]
"""Where a fired edit applies: at the query only (``last``), at the whole prompt (``prompt``), from
the start of the prompt on (``all``), or from the query on (``query``)."""


class Keys(Protocol):
    """Computes the keys of prompts from their tokens."""

    def key(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Returns the key of a prompt, ``(d,)``."""

    def ids(self, embeddings: torch.Tensor) -> list[int]:
        """Returns the token ids of embeddings ``(n, d)``."""


class Selection:
    """Which edits of a part fire for some rows, decided once; parts subclass it.

    Args:
        fired: For each row the index of the edit within its part, -1 for none.

    Attributes:
        fired: See above.
    """

    def __init__(self, fired: Sequence[int]) -> None:
        self.fired = fired

    def distance(self, row: int) -> float:
        """Returns the L2 distance from a row's query to the edit that fires for it.

        Edits of several parts that share keys are compared by it; infinite for parts whose edits
        cannot be compared.
        """
        return float("inf")

    def radius(self, row: int) -> float:
        """Returns the radius of the edit that fires for a row, in the unit of the distance."""
        return float("inf")

    def positions(self, row: int) -> Positions:
        """Returns where the edit that fires for a row applies."""
        raise NotImplementedError

    def values(self, rows: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Returns the vectors that replace the output in some rows, ``(rows, m)``: for ``replace``.

        Args:
            rows: The rows.
            like: Tensor with the dtype and device to use.
        """
        raise NotImplementedError

    def lora(
        self, module: int, rows: Sequence[int], like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the LoRAs that are added in some rows, one per row: for ``add`` patches.

        Args:
            module: Index of the module in the patch.
            rows: The rows.
            like: Tensor with the device to use.

        Returns:
            ``(rows, r, in)`` and ``(rows, out, r)``.
        """
        raise NotImplementedError


class Part(ABC):
    """The edits of one method at one version. Immutable.

    Attributes:
        method: Name of the method.
        is_comparable: Whether each of its edits has a scope of its own, so that a new edit can lie
            in the scope of an older one.
    """

    method: str
    is_comparable: bool = True

    @abstractmethod
    def __len__(self) -> int:
        """Number of edits that could fire."""

    @property
    def key_count(self) -> int | None:
        """Number of keys that prompts are compared with; None if the part has no keys."""
        return None

    @abstractmethod
    def select(self, queries: Queries) -> Selection:
        """Decides which edits fire for queries ``(rows, d)``."""

    @abstractmethod
    def near(self, query: Queries, k: int) -> list[Near]:
        """Returns the ``k`` edits nearest to a query ``(d,)``, and the one that fires."""

    @abstractmethod
    def edit_id(self, number: int) -> str:
        """Returns the id of an edit by its index."""

    @abstractmethod
    def number(self, edit_id: str) -> int:
        """Returns the index of an edit, -1 for one that is not in the part."""

    @abstractmethod
    def firing(self, numbers: Sequence[int]) -> Selection:
        """Returns the selection in which edits fire by their indices, -1 for none."""

    @abstractmethod
    def without(self, edit_ids: Collection[str]) -> Part:
        """Returns the same part without some edits; the others keep their indices."""

    def own_query(self, edit_id: str) -> Queries | None:
        """Returns the query ``(d,)`` of an edit's own prompt; None if it is not among the edits.

        None too if the part does not keep such queries: its edits cannot be made to fire for other
        prompts.
        """
        return None

    def does_the_same(self, other: Part) -> bool:
        """Returns whether another part of the method is certain to behave like this one."""
        return self is other


@dataclass(frozen=True)
class View:
    """The edits of one version, as a running model applies them.

    Attributes:
        version: Name of the version.
        parts: In the order in which they are consulted; see ``editkit.scope.decide``.
        overrides: Prompts that people said an edit applies to, or does not apply to.
    """

    version: str
    parts: tuple[Part, ...] = ()
    overrides: Overrides | None = None

    def __len__(self) -> int:
        """Number of edits that could fire."""
        return sum(map(len, self.parts))

    def part(self, method: str) -> Part | None:
        """Returns the part of a method, if it has one."""
        return next((part for part in self.parts if part.method == method), None)

    def replacing(self, method: str, part: Part | None, version: str | None = None) -> View:
        """Returns a view with the part of one method replaced, at the same or another version."""
        known = {one.method: one for one in self.parts}
        if part is not None:
            known[method] = part
        else:
            known.pop(method, None)
        version = self.version if version is None else version
        return View(version, tuple(known.values()), self.overrides)

    def without(self, edit_ids: Collection[str]) -> View:
        """Returns a view without some edits."""
        if not edit_ids:
            return self
        parts = tuple(part.without(edit_ids) for part in self.parts)
        return View(self.version, parts, self.overrides)

    def does_the_same(self, other: View) -> bool:
        """Returns whether another view is certain to behave like this one."""
        mine, theirs = ({p.method: p for p in one.parts if len(p)} for one in (self, other))
        one, another = self.overrides or None, other.overrides or None
        if one is not another and (one is None or not one.says_the_same(another)):
            return False
        return mine.keys() == theirs.keys() and all(
            part.does_the_same(theirs[name]) for name, part in mine.items()
        )


@dataclass(frozen=True)
class Patch:
    """Which modules a method's edits change, and what the edits are looked up by.

    Attributes:
        mode: Replace the output of one module, or add to the outputs of several.
        modules: The module, or the linear maps.
        keys: Computes the keys of prompts; None if the query is a hidden state.
        entry: With ``add``, the block that holds the first module: its input is the query, if that
            is a hidden state. With ``replace`` the query is the module's input.
        position: Token whose state is the query; by default the model family's.
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
        target: Ids of the target, end token included; for a classifier the index of the label.
        text: The target as it should be generated, surrounding whitespace removed.
    """

    prompt: tuple[int, ...]
    target: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Generated:
    """The answer to one prompt.

    Attributes:
        text: The continuation, special tokens and surrounding whitespace removed; or the label.
        tokens: Number of generated tokens, the end token included; 0 for a label.
        is_finished: The model ended the text itself, before the limit.
        fired: Id of the edit that applied, if any.
        version: Version of the view it ran on.
        delivered: How its target came into the answer; None without an edit or without targets.
    """

    text: str
    tokens: int
    is_finished: bool
    fired: str | None
    version: str
    delivered: Delivered | None = None


@dataclass(frozen=True)
class Scored:
    """The likelihood of a target after a prompt.

    Attributes:
        log_likelihood: Log-likelihood of the target's tokens, nats.
        tokens: Number of the target's tokens.
        right: How many of them the model would choose, given the tokens before.
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
    """Sampling parameters of one row.

    Attributes:
        temperature: Divides the logits; > 0.
        top_p: Nucleus: share of the probability mass to draw from; in (0, 1].
        seed: Makes the row reproducible.
    """

    temperature: float
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True)
class Targets:
    """The targets of edits, and which answers the decoder is held to them in.

    Attributes:
        of: Returns the target of an edit as tokens, in every form that an answer may have; none if
            the edit is not known.
        held: For each prompt whether its answer is held to the target of the edit that fires.
    """

    of: Callable[[str], Sequence[Encoded]]
    held: Sequence[bool]


@dataclass(frozen=True)
class Step:
    """One decoding step of a batch.

    Attributes:
        tokens: The new token of each row; padding for a row that has ended.
        fired: The edit that applies to each row, if any.
        versions: The version that each row is generated on.
        delivered: How its target came into each answer so far; see ``Generated``.
    """

    tokens: tuple[int, ...]
    fired: tuple[str | None, ...]
    versions: tuple[str, ...]
    delivered: tuple[Delivered | None, ...] = ()


class Watch(Protocol):
    """Callback after every step of a generation, for streaming and cooperative cancellation."""

    def __call__(self, step: Step) -> Sequence[bool]:
        """Returns for each row whether to end it; a row that has ended stays ended."""


class TokenEncoder(Protocol):
    """Encodes prompts, conversations and targets for one model, and decodes its output.

    Methods raise ``InvalidRequest``, ``EmptyTarget``, ``PromptTooLong``, ``UnsupportedMethod`` or
    ``UnsupportedModel`` for what cannot be encoded.
    """

    @property
    def family(self) -> Family:
        """Kind of model."""

    @property
    def default_kind(self) -> EditKind:
        """Default kind of an edit."""

    @property
    def labels(self) -> tuple[str, ...]:
        """A classifier's labels, by index."""

    @property
    def context(self) -> int | None:
        """The model's context window in tokens, if its config gives one."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end a generation; edits end with the first one."""

    @property
    def pad_id(self) -> int:
        """The token that pads shorter rows of a batch."""

    def prompt(self, text: str) -> tuple[int, ...]:
        """Returns the ids of a plain prompt."""

    def tokens(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Validates and returns a prompt that is already tokenized."""

    def chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Returns the ids of a conversation, up to the start of the assistant's answer."""

    def request(self, request: EditRequest) -> Encoded:
        """Returns an edit request as tokens."""

    def forms(self, request: EditRequest) -> tuple[Encoded, ...]:
        """Returns a request in every form that its target may have in an answer.

        The first is that of ``request``. Where an edit of a conversation fires for a plain prompt,
        or the reverse, the answer may begin with another token, e.g. one with a space in it.
        """

    def without_ending(self, encoded: Encoded) -> Encoded:
        """Returns a request without the end token of its target."""

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of generated ids, special tokens and surrounding whitespace removed."""


class Engine(ABC):
    """A running model with a view of edits applied. Prompts may be run from several threads.

    Attributes:
        name: Name that the model was loaded by.
        fingerprint: Identity of its architecture and weights.
        encoder: Encodes text as tokens.
        view: The edits that apply by default. Assigning another view switches the model to it;
            running calls finish on the view they started with.
        reader: Decides from the text of prompts which edits fire; None where keys and states do.
        model: The library's own model.
        tokenizer: The library's own tokenizer.
    """

    name: str
    fingerprint: str
    encoder: TokenEncoder
    view: View
    reader: PromptReader | None
    model: Any
    tokenizer: Any

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether edits can apply; not after ``close``."""

    @abstractmethod
    def patch(self, method: str, patch: Patch | None) -> None:
        """Sets the modules that a method changes; None removes the method's patch.

        Methods are consulted in the order in which they were first patched.
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
        targets: Targets | None = None,
        **options: Any,
    ) -> list[Generated]:
        """Returns one answer per prompt.

        Args:
            prompts: Token ids.
            views: The edits that apply: one view, or one per prompt; by default the current one.
            max_new_tokens: Limit of each continuation, tokens.
            watch: Called after every step; all prompts then run as one batch.
            sampling: Sampling parameters of each prompt, None for greedy; by default all greedy.
            targets: What answers are compared with where an edit fires; by default nothing.
            **options: Options of the library's own generation.

        Raises:
            InvalidRequest: An option is not supported.
            ValueError: More prompts than fit in one batch, with a watch or sampling.
        """

    @abstractmethod
    def score(self, requests: Sequence[Encoded], *, views: Sequence[View] = ()) -> list[Scored]:
        """Returns the likelihoods of targets after their prompts.

        Args:
            requests: Prompts and targets.
            views: As for ``generate``.
        """

    @abstractmethod
    def paused(self) -> AbstractContextManager[None]:
        """Disables all edits for the calls of this thread in its body."""

    @abstractmethod
    def close(self) -> None:
        """Removes every edit and restores the model; a second call does nothing."""
