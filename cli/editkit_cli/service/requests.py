"""Bodies of requests: the one definition that HTTP, MCP and the command line share.

MCP tools derive their arguments from the classes here whose names end in ``Fields``. Which editing
methods exist is not listed: packages register them, see ``editkit.methods.registry``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from editkit_cli.service.schemas import Body
from editkit_store.bundle.records import OnConflict
from editkit_store.records import (
    DEFAULT_METHOD,
    Delivery,
    EditKind,
    Message,
    MethodName,
    Provenance,
    ScopeName,
)

__all__ = [
    "AddBatchBody",
    "AddBody",
    "AddOptions",
    "AdjustBody",
    "AdjustByIdBody",
    "AdjustFields",
    "ChangeBody",
    "DeliveryField",
    "EditBody",
    "EditFields",
    "ExplainFields",
    "ExportBody",
    "GenerateBody",
    "ImportBody",
    "PlotBody",
    "PromptFields",
    "ReplayBody",
    "ReplayFields",
    "RevertBody",
    "RevertByIdBody",
    "RollbackBody",
    "RollbackFields",
    "SignInBody",
    "SqlBody",
    "TagBody",
    "VersionExpression",
]

VersionExpression = Annotated[
    str, Field(min_length=1, max_length=200, description="Version expression: `v3`, `@-`, a tag")
]
DeliveryField = Annotated[
    Delivery,
    Field(
        description="Where an edit fires: `exact` holds the answer to its target, `free` leaves "
        "the model alone. `delivered` in the answer says how the target came into it"
    ),
]
Turns = Annotated[tuple[Message, ...], Field(max_length=1000)]


def _name_installed(schema: dict[str, Any]) -> None:
    """Adds the names of the installed methods to a schema; others may come, so it lists none."""
    from editkit.methods.registry import registered

    schema["examples"] = [name for name, one in registered().items() if one.spec is not None]


FullPath = Annotated[str, Field(min_length=1, max_length=4096, description="Full path")]


class ProvenanceBody(Body):
    """What only the owner may state."""

    provenance: Provenance | None = Field(
        default=None, description="Provenance for the log instead of the rest; owner only"
    )


class ChangeBody(ProvenanceBody):
    """Fields of every change."""

    reason: str | None = Field(default=None, max_length=10_000, description="Why, for the log")
    author: str | None = Field(
        default=None, max_length=200, description="Who, for the log; by default the token's name"
    )
    wait: bool = Field(
        default=True, description="False: return 202 at once, with an operation to follow"
    )


class PromptFields(Body):
    """A prompt, or a conversation."""

    prompt: str | None = Field(
        default=None, description="Text that the model continues, exactly as it is given"
    )
    chat: Turns | None = Field(
        default=None,
        description="Instead of `prompt`: the conversation up to and including the user's turn, "
        "through the model's chat template. Use it where users chat with the model",
    )

    @property
    def texts(self) -> Sequence[str]:
        """All texts of it; the last one is the prompt, or the user's last turn."""
        return [self.prompt or "", *(turn.content for turn in self.chat or ())]


class EditFields(PromptFields):
    """An edit to make: the fields of an edit request, most of which may be left out."""

    target: str = Field(
        description="What the model should answer: just the answer, as it would say it, e.g. "
        "`Canberra`. Short targets hold best"
    )
    rephrases: tuple[str, ...] = Field(
        default=(),
        max_length=100,
        description="Other wordings of the prompt that should give the target too",
    )
    locality: tuple[str, ...] = Field(
        default=(),
        max_length=100,
        description="Prompts near this one whose answers must not change",
    )
    subject: str | None = Field(
        default=None, max_length=1000, description="What the prompt is about, e.g. `Australia`"
    )
    reason: str | None = Field(
        default=None,
        max_length=10_000,
        description="Why, in a sentence; people read it in the history",
    )
    conversation: str | None = Field(
        default=None,
        max_length=200,
        description="Id of the conversation in which the wrong answer was seen",
    )
    source: str | None = Field(
        default=None, max_length=1000, description="Where the right answer comes from"
    )
    idempotency_key: str | None = Field(
        default=None,
        max_length=255,
        description="The same key twice is one edit: give one if you may have to call again, e.g. "
        "after a timeout, and then repeat all arguments",
    )
    kind: EditKind | None = Field(
        default=None,
        description="`passage` for a target of a sentence or more; otherwise leave it out",
    )
    method: MethodName = Field(
        default=DEFAULT_METHOD,
        description="Name of an installed editing method; leave it out unless told otherwise",
        json_schema_extra=_name_installed,
    )
    scope: ScopeName | None = Field(
        default=None,
        description="How far it reaches beyond its own wording; by default as the model was opened",
    )


class EditBody(EditFields):
    """An edit to make, as a program other than the model's user requests it."""

    author: str | None = Field(default=None, max_length=200)
    agent: str | None = Field(default=None, max_length=200)


class AddOptions(ProvenanceBody):
    """How edits are added."""

    on_failure: Literal["record", "keep"] = Field(
        default="record",
        description="An edit that does not verify: only log it, or make it active",
    )
    on_conflict: Literal["supersede", "error", "keep"] = Field(
        default="supersede",
        description="Which edit wins if an active one has another target for the prompt",
    )
    before: bool = Field(default=False, description="Also ask what the model says without it")
    wait: bool = Field(
        default=True, description="False: return 202 at once, with an operation to follow"
    )


class AddBody(EditBody, AddOptions):
    """Body of `POST /v1/edits`."""


class AddBatchBody(AddOptions):
    """Body of `POST /v1/edits/batch`."""

    edits: tuple[EditBody, ...] = Field(min_length=1, description="Learned in batches, in order")


class RevertBody(ChangeBody):
    """Body of `POST /v1/edits/{edit_id}/revert`."""

    defer_only: bool = Field(
        default=False,
        description="Of an edit that shares its weights: at once, and the weights stay as they are",
    )


class RevertByIdBody(RevertBody):
    """Body of `POST /v1/owner/revert`."""

    edit_id: str


class AdjustFields(Body):
    """How the reach of an edit is adjusted."""

    also: tuple[str, ...] = Field(
        default=(),
        description="Prompts that the edit also applies to; its target is verified at each",
    )
    exclude: tuple[str, ...] = Field(
        default=(), alias="not", description="Prompts that it must not apply to"
    )


class AdjustBody(AdjustFields, ChangeBody):
    """Body of `POST /v1/edits/{edit_id}/adjust`."""

    on_failure: Literal["record", "keep"] = Field(
        default="record",
        description="If an `also` prompt does not verify: only log it, or adjust all the same",
    )


class AdjustByIdBody(AdjustBody):
    """Body of `POST /v1/owner/adjust`."""

    edit_id: str


class RollbackFields(Body):
    """Which version to go back to."""

    version: VersionExpression = Field(
        description="Version whose edits become the active ones: `v3`, `@-`, a tag; `v0` for the "
        "model without any"
    )


class RollbackBody(RollbackFields, ChangeBody):
    """Body of `POST /v1/rollback`."""


class TagBody(ChangeBody):
    """Body of `POST /v1/versions/tag`."""

    version: VersionExpression
    name: str = Field(description="The tag; one that exists moves there", max_length=200)


class ReplayFields(Body):
    """What to replay."""

    to: VersionExpression | None = Field(
        default=None, description="The version to replay; by default `@`"
    )
    only: VersionExpression | None = Field(
        default=None, description="Only edits that are active at this version too, e.g. a tag"
    )
    method: MethodName | None = Field(
        default=None,
        description="Learn with this method instead",
        json_schema_extra=_name_installed,
    )


class ReplayBody(ReplayFields, ChangeBody):
    """Body of `POST /v1/replay`."""

    model: str | None = Field(
        default=None, max_length=1000, description="Another model than the running one"
    )
    dry_run: bool = Field(default=False, description="Only report what would be done")


class ExplainFields(PromptFields):
    """Body of `POST /v1/explain`."""

    version: VersionExpression | None = Field(default=None, description="As of this version")
    k: int = Field(default=5, ge=1, le=100, description="Number of edits to list, nearest first")


class GenerateBody(Body):
    """Body of `POST /v1/generate`."""

    prompts: tuple[str, ...] = Field(default=(), max_length=16)
    chats: tuple[Turns, ...] = Field(
        default=(), max_length=16, description="Or conversations, each ending with the user's turn"
    )
    chat: bool = Field(default=False, description="Take each prompt as a user turn")
    system: str | None = Field(default=None, description="System message before each user turn")
    version: VersionExpression | None = None
    max_new_tokens: int = Field(default=64, ge=1)
    delivery: DeliveryField = "exact"

    def conversations(self) -> list[Sequence[Message]]:
        """Returns the conversations; none if the prompts are plain text."""
        if not self.chat:
            return list(self.chats)
        before = [] if self.system is None else [Message(role="system", content=self.system)]
        return [[*before, Message(role="user", content=prompt)] for prompt in self.prompts]

    def questions(self) -> list[str]:
        """Returns the prompts; of conversations, their last turns."""
        return list(self.prompts) or [chat[-1].content for chat in self.chats]


class SqlBody(Body):
    """Body of `POST /v1/owner/sql`."""

    query: str


class PlotBody(Body):
    """Body of `POST /v1/owner/codebook`."""

    path: FullPath
    version: str


class ExportBody(Body):
    """Body of `POST /v1/owner/export`."""

    path: FullPath
    to: str
    since: str | None = None
    only: str | None = None
    tool: str


class ImportBody(ChangeBody):
    """Body of `POST /v1/owner/import`."""

    path: FullPath
    on_conflict: OnConflict = "keep"
    dry_run: bool = False


class SignInBody(Body):
    """Body of `POST /v1/session`."""

    key: str = Field(max_length=200, description="What follows `#key=` in a link to the page")
