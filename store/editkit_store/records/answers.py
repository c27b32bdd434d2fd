"""Records of a running model's answers and explanations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from editkit_store.records.adjusting import Stance
from editkit_store.records.base import Record
from editkit_store.records.edits import DEFAULT_METHOD, MethodName

__all__ = ["Candidate", "Delivered", "Delivery", "Explanation", "Generation", "Score"]

Delivery = Literal["exact", "free"]
"""Where an edit fires: hold the decoder to its target, or leave the model alone."""

Delivered = Literal["free", "held", "no"]
"""How the target of an edit that fired came into the answer: the model gave it by itself
(``free``), the decoder was held to it (``held``), or it is not there (``no``)."""


class Generation(Record):
    """One generated continuation. ``str(generation)`` is its text."""

    text: str = Field(description="The continuation only, special tokens removed")
    version: str
    fired: tuple[str, ...] = Field(default=(), description="Ids of the edits that applied")
    delivered: Delivered | None = Field(
        default=None,
        description="Where an edit fired: `free` if the model gave its target by itself, `held` if "
        "the decoder was held to it, `no` if the answer does not begin with it (only with the "
        "delivery `free`); null where none fired",
    )
    prompt: str = ""
    tokens: int = Field(default=0, description="Generated tokens, end-of-text included")
    finish_reason: Literal["stop", "length"] = "stop"

    def __str__(self) -> str:
        return self.text


class Score(Record):
    """Likelihood of a text as the model's answer to a prompt, teacher-forced without generation."""

    prompt: str
    target: str
    log_likelihood: float = Field(description="Of the target's tokens, nats")
    tokens: int = Field(description="Tokens of the target, the ending left out")
    right: int = Field(description="How many of them the model would choose, given those before")
    version: str
    fired: tuple[str, ...] = Field(default=(), description="Ids of the edits that applied")


class Candidate(Record):
    """An edit near the prompt, and whether the prompt lies in its scope."""

    edit_id: str
    method: MethodName = Field(
        default=DEFAULT_METHOD, description="Method that this model learned it by"
    )
    prompt: str
    target: str
    distance: float = Field(
        description="L2 distance from the prompt to the edit's key, or to the nearest of its "
        "wordings; bits between codes where there is no radius"
    )
    radius: float = Field(description="Radius of the edit's scope, likewise")
    in_scope: bool
    bits: int | None = Field(
        default=None,
        description="Hamming distance between the codes of prompt and edit, if there are any",
    )
    adjusted: Stance | None = Field(
        default=None,
        description="What an adjustment of the edit says of this prompt; it decides",
    )


class Explanation(Record):
    """Which edit fires for a prompt, and the nearest candidates."""

    prompt: str
    version: str
    fired: str | None = Field(default=None, description="Edit that applies, or null")
    site: str = Field(description="Module that the edit goes to, or would go to")
    summary: str = Field(description="The decision in words")
    candidates: tuple[Candidate, ...] = Field(default=(), description="Nearest first")
