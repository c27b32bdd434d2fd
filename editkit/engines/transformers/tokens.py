"""Encoding prompts, chats and targets as tokens.

The query of an edit is one of exactly the tokens of a user's prompt, so the prompt is always
encoded alone. The target is encoded together with the prompt if the tokenizer keeps the boundary,
else on its own, and always followed by the end token, so that a corrected answer stops. The target
of an encoder-decoder is encoded on its own, and that of a classifier is a label.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from editkit.engines.base import Encoded, Family
from editkit.errors import EmptyTarget, PromptTooLong, UnsupportedMethod, UnsupportedModel
from editkit.models.layout import layout_of, text_config
from editkit_store.errors import InvalidRequest
from editkit_store.records import EditKind, EditRequest, Message

__all__ = ["Encoder"]


class Encoder:
    """Encodes prompts, chats and targets for one model and its tokenizer: a ``TokenEncoder``.

    Attributes:
        family: Kind of model.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.family: Family = layout_of(model).family
        self._model = model
        self._tokenizer = tokenizer

    @property
    def default_kind(self) -> EditKind:
        """Default kind of an edit: a classifier can only learn labels."""
        return "label" if self.family == "classifier" else "fact"

    @property
    def labels(self) -> tuple[str, ...]:
        """A classifier's labels, by index."""
        names = self._model.config.id2label
        return tuple(str(names[index]) for index in sorted(names))

    @property
    def context(self) -> int | None:
        """The model's context window in tokens, if its config gives one."""
        config = text_config(self._model)
        limit = getattr(config, "max_position_embeddings", None) or getattr(
            config, "n_positions", None
        )
        return int(limit) if limit else None

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end this model's generation; edits end with the first one."""
        generation = getattr(self._model, "generation_config", None)  # a classifier has none
        configured = getattr(generation, "eos_token_id", None)
        stops = [configured] if isinstance(configured, int) else list(configured or ())
        own = self._tokenizer.eos_token_id
        if own is not None:
            # Generation stops at the tokens in its config; the tokenizer's own goes first.
            stops = [own, *(s for s in stops if s != own)] if own in stops or not stops else stops
        return tuple(int(stop) for stop in stops)

    @property
    def pad_id(self) -> int:
        """The token that pads shorter rows of a batch; it is masked, so any token will do."""
        own = self._tokenizer.pad_token_id
        return int(own if own is not None else (self.stop_ids or (0,))[0])

    def prompt(self, text: str) -> tuple[int, ...]:
        """Returns the ids of a plain prompt.

        Raises:
            InvalidRequest: The prompt is empty.
            PromptTooLong: The prompt is longer than the context window.
        """
        if not text.strip():
            raise InvalidRequest("the prompt is empty", field="prompt")
        return self._checked(self._ids(text, special=True), room=1, field="prompt")

    def tokens(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Validates and returns a prompt that is already tokenized.

        Raises:
            InvalidRequest: There are no tokens, or one is not in the vocabulary.
            PromptTooLong: Longer than the context window.
        """
        found = tuple(int(one) for one in ids)
        size = int(self._model.get_input_embeddings().weight.shape[0])
        if not found or not all(0 <= one < size for one in found):
            raise InvalidRequest(
                f"a prompt is one or more tokens, each a number from 0 to {size - 1}",
                field="prompt",
            )
        return self._checked(found, room=1, field="prompt")

    def chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Returns the ids of a conversation, up to the start of the assistant's answer.

        Raises:
            InvalidRequest: It is empty, or the last turn is not the user's.
            UnsupportedModel: The tokenizer has no chat template.
            PromptTooLong: Longer than the context window.
        """
        return self._checked(
            self._ids(self._rendered(messages), special=False), room=1, field="chat"
        )

    def request(self, request: EditRequest) -> Encoded:
        """Returns an edit request as tokens.

        Raises:
            InvalidRequest, EmptyTarget, PromptTooLong, UnsupportedModel: As for the methods above;
                also if the target has no tokens, is not a label of the classifier, or does not fit
                in the context window.
            UnsupportedMethod: This model family does not support the kind of edit.
        """
        if (request.kind == "label") != (self.family == "classifier"):
            has, instead = (
                ("chooses among labels", "the kind 'label', with a label as the target")
                if self.family == "classifier"
                else ("generates text and has no labels", "the kind 'fact' or 'passage'")
            )
            raise UnsupportedMethod(
                f"an edit of kind '{request.kind}' is not for {type(self._model).__name__}, which "
                f"{has}",
                hint=f"use {instead}",
            )
        target = request.target.strip()
        if not target:
            raise InvalidRequest("the target is empty", field="target")
        if self.family == "classifier":
            prompt = self._prompt_ids(request)
            index = self._label(target)
            return Encoded(prompt, (index,), self.labels[index])
        if self.family == "encoder-decoder":
            prompt, ids = self._prompt_ids(request), self._target_ids(target)
        elif request.chat is not None:
            head = self._rendered(request.chat)
            prompt, ids = self.chat(request.chat), self._ids(target, special=False)
        else:
            head, prompt = request.prompt, self.prompt(request.prompt)
            gap = "" if head[-1:].isspace() else " "
            ids = self._ids(gap + target, special=False)
            # Tokenizers that mark word starts (SentencePiece) add a mark before `gap` as well, so
            # the joint encoding is right and the separate one is the fallback.
            joint = self._ids(head + gap + target, special=True)
            if len(joint) > len(prompt) and joint[: len(prompt)] == prompt:
                ids = joint[len(prompt) :]
        ids = self._plain(ids)
        text = self.decode(ids)
        if not ids or not text:
            raise EmptyTarget(
                f"the target '{request.target}' has no tokens in this model's vocabulary",
                field="target",
                hint="give the words that the model should answer with",
            )
        if self.family == "encoder-decoder":
            self._checked(ids, room=2, field="target")
            forced = self._model.generation_config.forced_bos_token_id
            ids = ids if forced is None else (forced, *ids)
        else:
            self._checked((*prompt, *ids), room=1, field="target")
        return Encoded(prompt, (*ids, *self.stop_ids[:1]), text)

    def forms(self, request: EditRequest) -> tuple[Encoded, ...]:
        """Returns a request in every form that its target may have in an answer.

        Raises:
            EditkitError: As for ``request``.
        """
        found = [self.request(request)]
        if self.family == "decoder":
            for gap in ("", " "):
                ids = self._plain(self._ids(gap + request.target.strip(), special=False))
                form = dataclasses.replace(found[0], target=(*ids, *self.stop_ids[:1]))
                if self.decode(ids) == form.text and form not in found:
                    found.append(form)
        return tuple(found)

    def without_ending(self, encoded: Encoded) -> Encoded:
        """Returns a request without the end token of its target."""
        target = encoded.target
        if self.family != "classifier" and target[-1] in self.stop_ids:
            target = target[:-1]
        return dataclasses.replace(encoded, target=target)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of generated ids, special tokens and surrounding whitespace removed."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _prompt_ids(self, request: EditRequest) -> tuple[int, ...]:
        return self.prompt(request.prompt) if request.chat is None else self.chat(request.chat)

    def _target_ids(self, target: str) -> tuple[int, ...]:
        # Some tokenizers (mBART) encode decoder targets differently.
        ids = self._tokenizer(text_target=target, add_special_tokens=False, verbose=False)
        return tuple(int(token) for token in ids["input_ids"])

    def _plain(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Returns the ids of a text without special tokens that the tokenizer found in it."""
        special = set(self._tokenizer.all_special_ids)
        return tuple(token for token in ids if token not in special or token == self._unknown)

    def _label(self, target: str) -> int:
        labels = self.labels
        folded = [label.casefold() for label in labels]
        if target in labels:
            return labels.index(target)
        if folded.count(target.casefold()) == 1:
            return folded.index(target.casefold())
        if target.isdecimal() and int(target) < len(labels):
            return int(target)
        close = difflib.get_close_matches(target.casefold(), folded, n=1)
        match = f"did you mean '{labels[folded.index(close[0])]}'? " if close else ""
        raise InvalidRequest(
            f"'{target}' is not a label of this classifier",
            field="target",
            hint=f"{match}labels: {', '.join(labels[:20])}{', ...' if len(labels) > 20 else ''}",
        )

    @property
    def _unknown(self) -> int | None:
        unknown = self._tokenizer.unk_token_id
        return None if unknown in self.stop_ids else unknown

    def _ids(self, text: str, *, special: bool) -> tuple[int, ...]:
        # verbose=False: no warning about sequences beyond the window, which raise an error here.
        ids = self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return tuple(int(token) for token in ids)

    def _rendered(self, messages: Sequence[Message]) -> str:
        if not messages or not messages[-1].content.strip():
            raise InvalidRequest("the conversation is empty", field="chat")
        if messages[-1].role != "user":
            raise InvalidRequest(
                f"the conversation ends with the turn of '{messages[-1].role}', not the user's",
                field="chat",
            )
        if not getattr(self._tokenizer, "chat_template", None):
            raise UnsupportedModel(
                "this model's tokenizer has no chat template",
                hint="correct a plain prompt instead (without --chat)",
            )
        turns = [message.model_dump() for message in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=True
                )
            )
        except TemplateError as error:  # e.g. a template without system messages
            raise InvalidRequest(
                f"the model's chat template rejects the conversation: {error}", field="chat"
            ) from error

    def _checked(self, ids: tuple[int, ...], *, room: int, field: str) -> tuple[int, ...]:
        limit = self.context
        if limit is not None and len(ids) + room > limit:
            raise PromptTooLong(
                f"{len(ids)} tokens do not fit into the model's context window of {limit}",
                tokens=len(ids),
                limit=limit,
                field=field,
                hint="shorten the prompt"
                if field != "target"
                else "shorten the prompt or the target",
            )
        return ids
