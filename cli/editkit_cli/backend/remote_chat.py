"""Answers of a server's model, as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

from editkit_cli.service.client.connection import Wire
from editkit_cli.service.schemas import Running
from editkit_cli.terminal.interrupts import Wish
from editkit_store.records import Explanation, Generation

__all__ = ["RemoteVoice"]


class RemoteVoice:
    """Lets a server's model answer; see ``editkit_cli.backend.chat.Voice``.

    Args:
        wire: To the server. Answers come over one of their own, whose end ends the answer.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        running = Running.model_validate(wire.get("/v1/owner"))
        self._name = running.name
        self.has_template = running.has_template

    def say(
        self,
        asked: Sequence[Mapping[str, str]],
        wish: Wish,
        *,
        version: str | None,
        limit: int,
        piece: Callable[[str], None] | None,
    ) -> Generation:
        """Returns the answer to a conversation, or to its last turn."""
        body: dict[str, Any] = {
            "model": self._name if version is None else f"{self._name}@{version}",
            "max_tokens": limit,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.has_template:
            path, body["messages"] = "/v1/chat/completions", list(asked)
        else:
            path, body["prompt"] = "/v1/completions", asked[-1]["content"]
        heard = _Heard()
        with closing(Wire(self._wire.owner)) as wire, closing(wire.stream(path, body)) as events:
            for event in events:
                said = heard.take(event)
                if said and piece is not None:
                    piece(said)
                if wish.is_asked:
                    break
        if not heard.has_ended:
            heard.fired = self._fired(asked, heard.version)
        return heard.generation(asked[-1]["content"])

    def _fired(self, asked: Sequence[Mapping[str, str]], version: str) -> tuple[str, ...]:
        """Which edit gave an answer that was stopped: that would have been told at its end."""
        body: dict[str, Any] = {"version": version, "k": 1}
        if self.has_template:
            body["chat"] = list(asked)
        else:
            body["prompt"] = asked[-1]["content"]
        found = Explanation.model_validate(self._wire.ask("/v1/explain", body))
        return () if found.fired is None else (found.fired,)


class _Heard:
    """What has come of an answer so far."""

    def __init__(self) -> None:
        self.text = ""
        self.version = ""
        self.fired: tuple[str, ...] = ()
        self.has_ended = False
        self._tokens = 0
        self._reason: Any = "stop"

    def take(self, event: Mapping[str, Any]) -> str:
        """Takes an event of the stream; returns the text in it."""
        self.version = event["version"]
        if event.get("usage"):
            self._tokens = event["usage"]["completion_tokens"]
        said = ""
        for choice in event["choices"]:
            delta = choice.get("delta", choice)
            said += delta.get("content") or delta.get("text") or ""
            if choice.get("finish_reason"):
                self.has_ended, self._reason = True, choice["finish_reason"]
                self.fired = tuple(choice.get("fired") or ())
        self.text += said
        return said

    def generation(self, prompt: str) -> Generation:
        """Returns all of it."""
        return Generation(
            text=self.text, version=self.version, fired=self.fired, prompt=prompt,
            tokens=self._tokens, finish_reason=self._reason,
        )  # fmt: skip
