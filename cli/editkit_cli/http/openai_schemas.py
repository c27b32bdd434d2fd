"""Requests and responses of OpenAI's API.

Parameters that this server does not support accept only the values that have no effect. So a client
that spells out defaults is served, and one that relies on a feature gets an error.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from editkit_cli.service.requests import DeliveryField
from editkit_cli.service.schemas import Body
from editkit_store.records import Delivered, Record

__all__ = [
    "UNSUPPORTED",
    "ChatChoice",
    "ChatChunk",
    "ChatCompletion",
    "ChatDelta",
    "ChatDeltaChoice",
    "ChatRequest",
    "Choice",
    "Completion",
    "CompletionRequest",
    "ModelList",
    "ModelObject",
    "RequestMessage",
    "ResponseMessage",
    "TextPart",
    "Usage",
]

UNSUPPORTED = frozenset(
    "presence_penalty frequency_penalty logit_bias logprobs top_logprobs best_of echo suffix tools "
    "tool_choice functions function_call response_format modalities audio prediction "
    "reasoning_effort verbosity web_search_options store service_tier".split()
)
"""Parameters of OpenAI's API that accept only values without effect."""

_Nothing = Annotated[None, Field(description="Not supported here: null or left out")]
_Stop = Annotated[str, Field(max_length=1000)]
_Zero = Annotated[float | None, Field(ge=0, le=0, description="Not supported here: 0")]
_Empty = Annotated[list[Any] | None, Field(max_length=0, description="Not supported here: empty")]

DeliveredField = Annotated[
    Delivered | None,
    Field(
        description="With `fired`: `free` if the model gave the target by itself, `held` if the "
        "answer was held to it, `no` if it does not begin with it; null where no edit applied"
    ),
]

FinishReason = Literal["stop", "length"]


class StreamOptions(Body):
    """Options of a streamed response."""

    include_usage: bool = Field(default=False, description="End with a chunk that has the usage")
    include_obfuscation: bool | None = Field(default=None, description="Has no effect")


class TextPart(Body):
    """A part of a message; only text is supported."""

    type: Literal["text"]
    text: str


class RequestMessage(Body):
    """A turn of a conversation in a request."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: _Nothing = None
    refusal: _Nothing = None
    tool_calls: _Empty = None
    function_call: _Nothing = None
    annotations: _Empty = None
    audio: _Nothing = None

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class OpenAIRequest(Body):
    """Parameters of both kinds of request."""

    model: str = Field(
        max_length=1000,
        description="Name of the running model; `NAME@V` answers as at version V of the history: "
        "`NAME@v12`, `NAME@prod`, `NAME@-`",
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        default=None, description="0, the default here, is greedy: what edits are verified with"
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: _Zero = None
    frequency_penalty: _Zero = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = Field(
        default=None, description="Not supported here: empty"
    )
    user: str | None = Field(default=None, description="Has no effect")
    store: Literal[False] | None = Field(default=None, description="Answers are not stored")
    metadata: dict[str, str] | None = Field(default=None, description="Has no effect")
    service_tier: Literal["auto", "default"] | None = Field(default=None, description="No effect")
    delivery: DeliveryField | None = Field(default=None, description="Ours. Default: `exact`")
    safety_identifier: str | None = Field(default=None, description="Has no effect")
    prompt_cache_key: str | None = Field(default=None, description="Has no effect")

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with the token usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class TextFormat(Body):
    """The only supported format."""

    type: Literal["text"]


class ChatRequest(OpenAIRequest):
    """Request of `/v1/chat/completions`."""

    messages: Annotated[list[RequestMessage], Field(min_length=1, max_length=1000)] = Field(
        description="The conversation, ending with the user's turn"
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: Literal[False] | None = Field(default=None, description="Not supported here: false")
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = None
    tools: _Empty = None
    tool_choice: Literal["none", "auto"] | None = None
    functions: _Empty = None
    function_call: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = Field(default=None, description="Has no effect")
    response_format: TextFormat | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    audio: _Nothing = None
    prediction: _Nothing = None
    reasoning_effort: _Nothing = None
    verbosity: _Nothing = None
    web_search_options: _Nothing = None


class CompletionRequest(OpenAIRequest):
    """Request of `/v1/completions`."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=16)]
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Default: 16")
    best_of: Literal[1] | None = Field(default=None, description="Not supported here: 1")
    echo: Literal[False] | None = Field(default=None, description="Not supported here: false")
    suffix: Literal[""] | None = Field(default=None, description="Not supported here: empty")
    logprobs: _Nothing = None


class Usage(Record):
    """Tokens of a request and its response."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ResponseMessage(Record):
    """The assistant's turn."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(Record):
    """One response to a conversation."""

    index: int
    message: ResponseMessage
    finish_reason: FinishReason
    logprobs: None = None
    fired: tuple[str, ...] = Field(default=(), description="Ids of the edits that applied")
    delivered: DeliveredField = None


class _OpenAIResponse(Record):
    id: str
    created: int = Field(description="Unix time, seconds")
    model: str = Field(description="Name and version that answered: `NAME@v12`")
    version: str = Field(description="Version that answered")
    system_fingerprint: str = Field(description="Of the model's weights")


class ChatCompletion(_OpenAIResponse):
    """Response of `/v1/chat/completions`."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: tuple[ChatChoice, ...]
    usage: Usage


class ChatDelta(Record):
    """What a chunk adds to a turn."""

    role: Literal["assistant"] | None = None
    content: str | None = None

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # OpenAI leaves out what a chunk does not add, and clients rely on it.
        return {name: value for name, value in handler(self).items() if value is not None}


class ChatDeltaChoice(Record):
    """The part of a chunk for one response."""

    index: int
    delta: ChatDelta
    finish_reason: FinishReason | None = None
    logprobs: None = None
    fired: tuple[str, ...] | None = Field(
        default=None, description="With `finish_reason`: ids of the edits that applied"
    )
    delivered: DeliveredField = None


class ChatChunk(_OpenAIResponse):
    """One event of a streamed `/v1/chat/completions`."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: tuple[ChatDeltaChoice, ...]
    usage: Usage | None = None


class Choice(Record):
    """One continuation, or in a stream a part of it."""

    index: int = Field(description="Number of the prompt times `n`, plus the number of the answer")
    text: str
    finish_reason: FinishReason | None = None
    logprobs: None = None
    fired: tuple[str, ...] | None = Field(default=None, description="Edits that applied")
    delivered: DeliveredField = None


class Completion(_OpenAIResponse):
    """Response of `/v1/completions`, or one event of its stream."""

    object: Literal["text_completion"] = "text_completion"
    choices: tuple[Choice, ...]
    usage: Usage | None = None


class ModelObject(Record):
    """A name that requests can use as `model`."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When the server started, Unix time in seconds")
    owned_by: Literal["editkit"] = "editkit"
    version: str = Field(description="Version of the history that the name stands for now")


class ModelList(Record):
    """Response of `/v1/models`."""

    object: Literal["list"] = "list"
    data: tuple[ModelObject, ...]
