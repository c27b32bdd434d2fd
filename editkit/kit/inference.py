"""Inference on a corrected model at any version: generation, scoring and explanations."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from editkit.history.behavior import with_answers
from editkit.kit.explain import explain
from editkit.kit.running import RunningModel
from editkit.kit.targets import EditTargets
from editkit.models.progress import Progress
from editkit_store.errors import InvalidRequest
from editkit_store.records import (
    DEFAULT_METHOD,
    Delivery,
    EditRequest,
    Explanation,
    Generation,
    Message,
    Score,
)
from editkit_store.records.comparisons import Diff

__all__ = ["ChatLike", "DeliveryLike", "Inference", "VersionLike"]

ChatLike = Sequence[Message | Mapping[str, str]]
VersionLike = str | Sequence[str | None] | None
"""One version for all prompts, or one per prompt; ``None`` is the current version."""
DeliveryLike = Delivery | Sequence[Delivery]
"""One delivery for all prompts, or one per prompt."""


class Inference:
    """Answers prompts on the views of one history. ``Kit`` documents the methods.

    Args:
        running: The running model.
    """

    def __init__(self, running: RunningModel) -> None:
        self._running = running
        self._encoder = running.engine.encoder
        self._targets = EditTargets(running)

    def generate(
        self,
        prompts: Sequence[str],
        version: VersionLike,
        max_new_tokens: int,
        options: dict[str, Any],
        chat: bool,
        delivery: DeliveryLike,
    ) -> list[Generation]:
        """Returns one generation per prompt; see ``Kit.generate``."""
        encoded = [
            self._encoder.chat([Message(role="user", content=prompt)])
            if chat
            else self._encoder.prompt(prompt)
            for prompt in prompts
        ]
        return self._generations(prompts, encoded, version, max_new_tokens, options, delivery)

    def generate_tokens(
        self,
        encoded: Sequence[Sequence[int]],
        version: VersionLike,
        max_new_tokens: int,
        options: dict[str, Any],
        delivery: DeliveryLike,
    ) -> list[Generation]:
        """Returns one generation per prompt; see ``Kit.generate_tokens``."""
        encoded = [self._encoder.tokens(one) for one in encoded]
        prompts = [""] * len(encoded)
        return self._generations(prompts, encoded, version, max_new_tokens, options, delivery)

    def chat(
        self,
        messages: ChatLike,
        version: str | None,
        max_new_tokens: int,
        options: dict[str, Any],
        delivery: DeliveryLike,
    ) -> Generation:
        """Returns the assistant's next turn; see ``Kit.chat``."""
        turns = _messages(messages)
        encoded = [self._encoder.chat(turns)]
        prompts = [turns[-1].content]
        return self._generations(prompts, encoded, version, max_new_tokens, options, delivery)[0]

    def key(self, prompt: str) -> npt.NDArray[np.float32]:
        """Returns the lookup key of a prompt; see ``Kit.key``."""
        method = self._running.methods.of(DEFAULT_METHOD)
        return np.asarray(method.query(self._encoder.prompt(prompt)).numpy())

    def scores(
        self, prompts: Sequence[str], targets: Sequence[str], version: VersionLike
    ) -> list[Score]:
        """Returns the likelihoods of targets; see ``Kit.score``."""
        self._running.refuse_closed()
        if len(prompts) != len(targets):
            raise InvalidRequest(
                f"{len(prompts)} prompts and {len(targets)} targets; give one target per prompt",
                field="target",
            )
        views = self._views_of(version, len(prompts))
        kind = self._encoder.default_kind
        encoded = [
            self._encoder.without_ending(
                self._encoder.request(EditRequest(prompt=prompt, target=target, kind=kind))
            )
            for prompt, target in zip(prompts, targets, strict=True)
        ]
        found = self._running.engine.score(encoded, views=views)
        return [
            Score(
                prompt=prompt,
                target=target,
                log_likelihood=one.log_likelihood,
                tokens=one.tokens,
                right=one.right,
                version=one.version,
                fired=tuple(filter(None, [one.fired])),
            )
            for prompt, target, one in zip(prompts, targets, found, strict=True)
        ]

    def explain(
        self, prompt: str | None, chat: ChatLike | None, version: str | None, k: int
    ) -> Explanation:
        """Returns which edit fires for a prompt; see ``Kit.explain``."""
        if (prompt is None) == (chat is None):
            raise InvalidRequest("explain takes either a prompt or a chat", field="prompt")
        turns = None if chat is None else _messages(chat)
        ids = self._encoder.prompt(prompt or "") if turns is None else self._encoder.chat(turns)
        view = self._running.view(version)
        history = self._running.store.history
        return explain(
            str(prompt if turns is None else turns[-1].content),
            ids,
            view,
            self._running.methods,
            functools.partial(history.edits, at=history.resolve(view.version)),
            encode=self._encoder.prompt,
            reader=self._running.engine.reader,
            k=k,
        )

    def side_by_side(
        self,
        found: Diff,
        probes: Sequence[str],
        max_new_tokens: int,
        progress: Progress | None,
    ) -> Diff:
        """Adds the answers at both versions to a comparison; see ``Kit.diff``."""
        history = self._running.store.history
        adjusted = {one.edit_id for one in found.adjusted}
        return with_answers(
            found,
            adjusted=history.edits(sorted(adjusted), at=history.resolve(found.to)),
            views=(self._running.view(found.from_), self._running.view(found.to)),
            engine=self._running.engine,
            probes=probes,
            max_new_tokens=max_new_tokens,
            progress=progress,
        )

    def _views_of(self, version: VersionLike, count: int) -> list[Any]:
        """Returns one view for all prompts, or one per prompt."""
        if version is None or isinstance(version, str):
            return [self._running.view(version)]
        if len(version) == count:
            return [self._running.view(one) for one in version]
        raise InvalidRequest(
            f"{len(version)} versions for {count} prompts; give one version, or one per prompt",
            field="version",
        )

    def _generations(
        self,
        prompts: Sequence[str],
        encoded: Sequence[Sequence[int]],
        version: VersionLike,
        max_new_tokens: int,
        options: dict[str, Any],
        delivery: DeliveryLike,
    ) -> list[Generation]:
        self._running.refuse_closed()
        if max_new_tokens < 1:
            raise InvalidRequest("max_new_tokens must be at least 1", field="max_new_tokens")
        views = self._views_of(version, len(prompts))
        targets = self._targets.asked(delivery, len(prompts))
        generated = self._running.engine.generate(
            encoded, views=views, max_new_tokens=max_new_tokens, targets=targets, **options
        )
        return [
            Generation(
                text=one.text,
                version=one.version,
                fired=() if one.fired is None else (one.fired,),
                delivered=one.delivered,
                prompt=prompt,
                tokens=one.tokens,
                finish_reason="stop" if one.is_finished else "length",
            )
            for prompt, one in zip(prompts, generated, strict=True)
        ]


def _messages(chat: ChatLike) -> list[Message]:
    try:
        return [m if isinstance(m, Message) else Message.model_validate(m) for m in chat]
    except ValueError as error:
        raise InvalidRequest(
            "a chat is a list of messages with 'role' and 'content'", field="chat"
        ) from error
