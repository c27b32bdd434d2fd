"""From text to tokens: prompts, chats, and where a target begins.

The query of an edit is the last token of exactly the ids that a user's prompt becomes, so the
prompt is always encoded alone. The target is what follows it: encoded together with the prompt
where the tokenizer keeps the seam, else on its own, and always closed by the token that ends a
generation, so that a corrected answer stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from editkit.errors import EmptyTarget, PromptTooLong, UnsupportedModel
from editkit.sites import text_config
from editkit_store.errors import InvalidRequest
from editkit_store.records import EditRequest, Message

__all__ = ["Encoded", "Encoder"]


@dataclass(frozen=True)
class Encoded:
    """A request as tokens.

    Attributes:
        prompt: Ids of the prompt, special tokens included.
        target: Ids of the target, the ending token included.
        text: The target as it should come out of a generation, surrounding whitespace removed.
    """

    prompt: tuple[int, ...]
    target: tuple[int, ...]
    text: str


class Encoder:
    """Encodes prompts, chats and targets for one model and its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer

    @property
    def context(self) -> int | None:
        """The model's context window in tokens, where its config says."""
        config = text_config(self._model)
        limit = getattr(config, "max_position_embeddings", None) or getattr(
            config, "n_positions", None
        )
        return int(limit) if limit else None

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens at which this model's generation ends; the first is the one edits end with."""
        configured = getattr(self._model.generation_config, "eos_token_id", None)
        stops = [configured] if isinstance(configured, int) else list(configured or ())
        own = self._tokenizer.eos_token_id
        if own is not None:
            # Generation stops at what its config lists; the tokenizer's own comes first if it does.
            stops = [own, *(s for s in stops if s != own)] if own in stops or not stops else stops
        return tuple(int(stop) for stop in stops)

    def prompt(self, text: str) -> tuple[int, ...]:
        """Returns the ids of a plain prompt.

        Raises:
            InvalidRequest: Empty.
            PromptTooLong: Longer than the context window.
        """
        if not text.strip():
            raise InvalidRequest("the prompt is empty", field="prompt")
        return self._checked(self._ids(text, special=True), room=1, field="prompt")

    def chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Returns the ids of a conversation, up to where the assistant's answer begins.

        Raises:
            InvalidRequest: Empty, or the last turn is not the user's.
            UnsupportedModel: The tokenizer has no chat template.
            PromptTooLong: Longer than the context window.
        """
        return self._checked(
            self._ids(self._rendered(messages), special=False), room=1, field="chat"
        )

    def request(self, request: EditRequest) -> Encoded:
        """Returns an edit request as tokens.

        Raises:
            InvalidRequest, EmptyTarget, PromptTooLong, UnsupportedModel: As the methods above, and
                for a target that is no token at all or leaves no room in the context window.
        """
        target = request.target.strip()
        if not target:
            raise InvalidRequest("the target is empty", field="target")
        if request.chat is not None:
            head = self._rendered(request.chat)
            prompt, ids = self.chat(request.chat), self._ids(target, special=False)
        else:
            head, prompt = request.prompt, self.prompt(request.prompt)
            gap = "" if head[-1:].isspace() else " "
            ids = self._ids(gap + target, special=False)
            # Tokenizers that mark word starts (SentencePiece) put one before `gap` as well, so the
            # joint encoding is right and the separate one is the fallback.
            joint = self._ids(head + gap + target, special=True)
            if len(joint) > len(prompt) and joint[: len(prompt)] == prompt:
                ids = joint[len(prompt) :]
        special = set(self._tokenizer.all_special_ids)
        ids = tuple(token for token in ids if token not in special or token == self._unknown)
        text = self.decode(ids)
        if not ids or not text:
            raise EmptyTarget(
                f"the target '{request.target}' becomes no token in this model",
                field="target",
                hint="give the words that the model should answer",
            )
        self._checked((*prompt, *ids), room=1, field="target")
        return Encoded(prompt, (*ids, *self.stop_ids[:1]), text)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of generated ids, special tokens and surrounding whitespace removed."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    @property
    def _unknown(self) -> int | None:
        unknown = self._tokenizer.unk_token_id
        return None if unknown in self.stop_ids else unknown

    def _ids(self, text: str, *, special: bool) -> tuple[int, ...]:
        # Silences the warning about sequences beyond the window: we refuse those with an error.
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
        return str(
            self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        )

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
