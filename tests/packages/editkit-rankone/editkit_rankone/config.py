"""Settings of rank-one edits. ``RankOneConfig.of("paper")`` has the published constants."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from editkit.config import PresetName, ScopeName

__all__ = ["RankOneConfig"]


class RankOneConfig(BaseModel):
    """How rank-one edits are learned, and how far they reach."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str | None = Field(
        default=None,
        description="Dotted path of the edited linear map; by default the feed-forward output of "
        "the block at `depth`",
    )
    depth: float = Field(
        default=0.35, ge=0.0, le=1.0, description="Which block, as a share of all of them"
    )
    prefixes: tuple[str, ...] = Field(
        default=("So,", "Today:"),
        description="Put before the prompt: the key and the value are those of all of them",
    )
    rephrases: int = Field(
        default=4, ge=0, description="Most rephrasings that take part in learning the value"
    )
    ridge: float = Field(
        default=0.1,
        gt=0.0,
        description="Added to the second moment of the inputs, as a share of its mean diagonal",
    )
    learning_rate: float = Field(
        default=0.5, gt=0.0, description="Adam's step, in RMS of the map's output at the subject"
    )
    max_steps: int = Field(default=60, ge=1, le=10_000, description="Limit, optimizer steps")
    margin: float = Field(
        default=2.0,
        ge=0.0,
        description="Stop when every target token leads all others by this much, in logits",
    )
    kl: float = Field(
        default=0.0625,
        ge=0.0,
        description="Weight of the divergence from the unedited model on what it says of the "
        "subject otherwise",
    )
    decay: float = Field(
        default=0.01, ge=0.0, description="Weight of the squared length of the value; see `clamp`"
    )
    clamp: float = Field(
        default=16.0,
        gt=0.0,
        description="Largest length of the value, as a multiple of that of the map's output",
    )
    scope: ScopeName = Field(default="balanced", description="How far edits reach")

    @classmethod
    def of(cls, preset: PresetName, **changes: Any) -> RankOneConfig:
        """Returns a preset, with changes.

        Args:
            preset: ``paper`` has the constants of Meng et al. (2022) for GPT-2 XL, as far as a
                side path has them; ``default`` what works here.
            **changes: Fields to set on top.

        Raises:
            ValueError: A value out of its range.
        """
        return cls(**{**_PRESETS[preset], **changes})


_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "depth": 17 / 48,
        "rephrases": 0,
        "max_steps": 25,
        "margin": 0.0,
        "decay": 0.5,
        "clamp": 4.0,
    },
}
