"""Asking the running model: prompts and conversations, at any version, and why it answers so."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from editkit.engines.transformers.attachment import Attachment
from editkit.engines.transformers.generator import Generator, Scored
from editkit.engines.transformers.site import Site
from editkit.engines.transformers.tokens import Encoder
from editkit.history.behavior import with_answers
from editkit.history.views import Views
from editkit.kit.explain import Mixed, explained, unedited
from editkit.methods.batches import lay_out
from editkit.methods.elder.state import ElderView
from editkit.methods.grace.view import GraceView
from editkit.models.progress import Progress
from editkit_store import Store
from editkit_store.errors import InvalidRequest, StoreError
from editkit_store.records import EditRequest, Explanation, Generation, Message, Score
from editkit_store.records.comparisons import Diff

__all__ = ["Asker", "ChatLike", "VersionLike"]

ChatLike = Sequence[Message | Mapping[str, str]]
VersionLike = str | Sequence[str | None] | None
"""A version for all prompts, or one a prompt; ``None`` is the current one."""

_SCORED = 16  # pairs scored together


class Asker:
    """Answers prompts on the views of one store.

    Args:
        model: The model.
        store: The history.
        encoder: The model's.
        generator: The model's.
        views: The model's views of the history.
        attachment: What the running model follows.
        key: Returns what a prompt, given as token ids, is looked up by.
        query: Returns what a mixture is asked by for such a prompt.
        words: Returns the names and the other words that such a key is made of; None of keys that
            are hidden states.
        share_keys: Returns whether both are asked by the same key.
    """

    def __init__(
        self,
        model: Any,
        *,
        store: Store,
        encoder: Encoder,
        generator: Generator,
        views: Views,
        attachment: Attachment,
        key: Callable[[Sequence[int]], torch.Tensor],
        query: Callable[[Sequence[int]], torch.Tensor],
        words: Callable[[Sequence[int]], tuple[list[str], list[str]]] | None = None,
        share_keys: Callable[[], bool],
    ) -> None:
        self._model = model
        self._store = store
        self._encoder = encoder
        self._generator = generator
        self._views = views
        self._attachment = attachment
        self._key = key
        self._query = query
        self._words = words
        self._share_keys = share_keys

    def answers(
        self,
        prompts: Sequence[str],
        version: VersionLike,
        max_new_tokens: int,
        options: dict[str, Any],
        *,
        chat: bool = False,
    ) -> list[Generation]:
        """Returns one generation a prompt; see ``Kit.generate``."""
        turns = [[Message(role="user", content=prompt)] for prompt in prompts]
        encoded = (
            [self._encoder.chat(turn) for turn in turns]
            if chat
            else [self._encoder.prompt(prompt) for prompt in prompts]
        )
        return self._generations(prompts, encoded, version, max_new_tokens, options)

    def continued(
        self,
        encoded: Sequence[Sequence[int]],
        version: VersionLike,
        max_new_tokens: int,
        options: dict[str, Any],
    ) -> list[Generation]:
        """Returns one generation a prompt; see ``Kit.generate_tokens``."""
        encoded = [self._encoder.tokens(one) for one in encoded]
        return self._generations([""] * len(encoded), encoded, version, max_new_tokens, options)

    def chat(
        self,
        messages: ChatLike,
        version: str | None,
        max_new_tokens: int,
        options: dict[str, Any],
    ) -> Generation:
        """Returns the assistant's next turn; see ``Kit.chat``."""
        turns = _messages(messages)
        encoded = [self._encoder.chat(turns)]
        prompts = [turns[-1].content]
        return self._generations(prompts, encoded, version, max_new_tokens, options)[0]

    def scores(
        self, prompts: Sequence[str], targets: Sequence[str], version: VersionLike
    ) -> list[Score]:
        """Returns how likely targets are; see ``Kit.score``."""
        self._refuse_closed()
        if len(prompts) != len(targets):
            raise InvalidRequest(
                f"{len(prompts)} prompts and {len(targets)} targets; give one each", field="target"
            )
        views = self._views_of(version, len(prompts))
        kind = self._encoder.default_kind
        encoded = [
            self._encoder.without_ending(
                self._encoder.request(EditRequest(prompt=prompt, target=target, kind=kind))
            )
            for prompt, target in zip(prompts, targets, strict=True)
        ]
        found: dict[int, Scored] = {}
        lengths = [len(one.prompt) + len(one.target) for one in encoded]
        order = sorted(range(len(encoded)), key=lambda index: lengths[index])
        for start in range(0, len(order), _SCORED):
            part = order[start : start + _SCORED]
            asked = [encoded[index] for index in part]
            # Laid out as one sequence a row: whatever positions the edits replace, they are there.
            batch = lay_out(
                self._model,
                self._attachment.site.layout,
                asked,
                replacement="prompt",
                position=None,
            )
            chosen = views if len(views) == 1 else [views[index] for index in part]
            found.update(zip(part, self._generator.scored(batch, asked, chosen), strict=True))
        return [
            Score(
                prompt=prompt,
                target=target,
                log_likelihood=found[index].log_likelihood,
                tokens=found[index].tokens,
                right=found[index].right,
                version=found[index].version,
                fired=tuple(filter(None, [found[index].fired])),
            )
            for index, (prompt, target) in enumerate(zip(prompts, targets, strict=True))
        ]

    def explain(
        self, prompt: str | None, chat: ChatLike | None, version: str | None, k: int
    ) -> Explanation:
        """Returns which edit fires for a prompt; see ``Kit.explain``."""
        if (prompt is None) == (chat is None):
            raise InvalidRequest("explain takes a prompt or a chat, one of them", field="prompt")
        turns = None if chat is None else _messages(chat)
        ids = self._encoder.prompt(prompt or "") if turns is None else self._encoder.chat(turns)
        view = self.view(version)
        site: Site = self._attachment.site
        text = prompt if turns is None else turns[-1].content
        mixture = view.mixture
        mixed = None
        if isinstance(mixture, ElderView) and len(mixture):
            mixed = Mixed.of(mixture, self._query(ids))
        if not len(view) and mixed is None:
            return unedited(str(text), view.version, site=site.path)
        key = self._key(ids)
        at = self._store.history.resolve(view.version)
        edits = functools.partial(self._store.history.edits, at=at)
        words = None
        if self._words is not None:
            said = self._words

            def words(other: str | None) -> tuple[list[str], list[str]]:
                return said(ids if other is None else self._encoder.prompt(other))

        return explained(
            str(text),
            view,
            key,
            edits,
            site=site.path,
            k=k,
            mixed=mixed,
            is_joint=isinstance(mixture, ElderView)
            and mixture.state.radius is not None
            and self._share_keys(),
            words=words,
        )

    def side_by_side(
        self,
        found: Diff,
        probes: Sequence[str],
        max_new_tokens: int,
        progress: Progress | None,
    ) -> Diff:
        """Returns a comparison with the answers at its two versions; see ``Kit.diff``."""
        return with_answers(
            found,
            views=(self.view(found.from_), self.view(found.to)),
            encoder=self._encoder,
            generator=self._generator,
            probes=probes,
            max_new_tokens=max_new_tokens,
            progress=progress,
        )

    def view(self, version: str | None) -> GraceView:
        """Returns the view of a version; of ``None`` the one that the running model follows.

        Raises:
            UnknownVersion: No such version.
            ArtifactsMissing: It holds edits this model has not learned.
        """
        if version is None:
            view = self._attachment.view
            assert isinstance(view, GraceView)
            return view
        return self._views.at(self._store.history.resolve(version))

    def _refuse_closed(self) -> None:
        if not self._attachment.is_attached:
            raise StoreError(
                f"the kit on '{self._store.path}' is closed, and its edits are off the model",
                path=self._store.path,
                hint="open it again with editkit.open",
            )

    def _views_of(self, version: VersionLike, count: int) -> list[GraceView]:
        """Returns one view for all prompts, or one a prompt."""
        if version is None or isinstance(version, str):
            return [self.view(version)]
        if len(version) == count:
            return [self.view(one) for one in version]
        raise InvalidRequest(
            f"{len(version)} versions for {count} prompts; give one, or one each", field="version"
        )

    def _generations(
        self,
        prompts: Sequence[str],
        encoded: Sequence[Sequence[int]],
        version: VersionLike,
        max_new_tokens: int,
        options: dict[str, Any],
    ) -> list[Generation]:
        self._refuse_closed()
        if max_new_tokens < 1:
            raise InvalidRequest("max_new_tokens must be at least 1", field="max_new_tokens")
        views = self._views_of(version, len(prompts))
        generated = self._generator.run(
            encoded, views=views, max_new_tokens=max_new_tokens, **options
        )
        return [
            Generation(
                text=one.text,
                version=one.version,
                fired=() if one.fired is None else (one.fired,),
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
