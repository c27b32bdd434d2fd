"""Settings of ELDER: the shape of its adaptors, and how they learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from editkit.config import PresetName

__all__ = ["ElderConfig", "Experts", "Span", "TrainConfig", "Weighting"]

Span = Literal["query", "sequence"]
"""Tokens that a mixture applies to: from the query on, or all of the sequence."""

Weighting = Literal["scores", "equal"]
"""What the chosen experts are weighted with: their scores (the paper), or 1/k each."""

Experts = Literal["own", "nearest"]
"""Whose experts an input in scope takes: its own best ones (the paper), or those of the nearest
edit, which are the ones that the edit was learned with."""


@dataclass
class ElderConfig:
    """Shape of ELDER's adaptors; the defaults are the paper's constants.

    Li et al., "ELDER: Enhancing Lifelong Model Editing with Mixture-of-LoRA", AAAI 2025,
    arXiv 2408.11869.

    Attributes:
        target_modules: Names (or a regular expression) of the linear maps to adapt, ``Linear`` or
            ``Conv1D``; by default the feed-forward outputs of six consecutive blocks.
        layers_to_transform: Blocks in which to look for them; by default the six from two thirds of
            the depth on, where ``target_modules`` is left out too.
        depth: Where those six begin, as a share of all blocks (the paper: 21 of 32); 1 takes the
            last six.
        layers_pattern: Name of the list of blocks, where it is not a usual one.
        exclude_modules: Names that are left alone.
        r: Rank of each expert.
        lora_alpha: Its output is scaled by ``lora_alpha / r``.
        num_experts: Experts in each layer, N.
        top_k: How many of them are in use, k.
        threshold: An input whose code is nearer than this to that of an edit, in bits, is in scope;
            at most the length of a code, L N.
        weighting: What the chosen experts are weighted with: ``scores`` of the router (the paper),
            or ``equal``.
        experts: Which experts an input in scope takes: its ``own`` (the paper), or those of the
            ``nearest`` edit.
        span: Tokens that the mixture applies to: the whole ``sequence`` (the paper), or from the
            ``query`` on, so that what is cached of a prompt stays as it was.
        query: What the routers see of a prompt: the ``state`` of its last token where it enters the
            first adapted block (the paper), or the ``pooled`` key of its words (see
            ``editkit.scope``), which its rephrasings share.
        radius: An input is in scope of an edit only if its query lies that near to one of those
            that the edit was learned with, L2; ``None`` asks for the code alone (the paper). Of
            pooled queries, which have unit length.

    Raises:
        ValueError: A value out of its range; the message names the field.
    """

    target_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    depth: float = 0.67
    exclude_modules: list[str] | str | None = None
    r: int = 8
    lora_alpha: float = 8.0
    num_experts: int = 4
    top_k: int = 2
    threshold: int = 12
    weighting: Weighting = "scores"
    experts: Experts = "own"
    span: Span = "sequence"
    query: Literal["state", "pooled"] = "state"
    radius: float | None = None

    def __post_init__(self) -> None:
        for name in ("r", "num_experts", "top_k", "threshold"):
            value: Any = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is a whole number from 1 on, not {value!r}")
        if self.top_k > self.num_experts:
            raise ValueError(
                f"top_k is at most num_experts: there are {self.num_experts} experts, "
                f"of which {self.top_k} cannot be in use"
            )
        if not self.lora_alpha > 0:
            raise ValueError(f"lora_alpha is positive, not {self.lora_alpha!r}")
        if self.radius is not None and not (self.radius > 0 and self.query == "pooled"):
            raise ValueError(
                f"radius is a positive distance between pooled queries, not {self.radius!r} "
                f"between those of kind {self.query!r}"
            )
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {' or '.join(known)}, not {getattr(self, name)!r}")

    @classmethod
    def of(cls, preset: PresetName, **changes: Any) -> Self:
        """Returns a preset, with changes.

        Args:
            preset: ``paper`` has the constants of the paper; ``default`` what measures best here
                (benchmarks/results/elder_quality.md).
            **changes: Fields to set on top.

        Raises:
            ValueError: No preset of that name, or a value out of its range.
        """
        if preset not in _PRESETS:
            raise ValueError(f"there is no preset '{preset}'; presets: {', '.join(_PRESETS)}")
        return cls(**{**_PRESETS[preset], **changes})

    @property
    def scaling(self) -> float:
        """What an expert's output is multiplied by, alpha / r."""
        return self.lora_alpha / self.r

    def check_threshold(self, layers: int) -> None:
        """Refuses a threshold that no distance between codes can reach.

        Args:
            layers: Number of adapted layers, L.

        Raises:
            ValueError: It is larger than the code.
        """
        bits = layers * self.num_experts
        if self.threshold > bits:
            raise ValueError(
                f"threshold is at most the length of a code, {layers} layers of "
                f"{self.num_experts} experts, {bits} bits; not {self.threshold}"
            )


_PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        # The last blocks: steps of learning run nothing above them but the head.
        "depth": 1.0,
        "threshold": 9,
        "weighting": "equal",
        "experts": "nearest",
        "span": "query",
        "query": "pooled",
        "radius": 0.8,
    },
    "paper": {},
}

_CHOICES = {
    "weighting": ("scores", "equal"),
    "experts": ("own", "nearest"),
    "span": ("sequence", "query"),
    "query": ("state", "pooled"),
}


class TrainConfig(BaseModel):
    """How ELDER learns a batch of edits. Frozen.

    The paper's procedure is one loop over the batch, routers and experts together, and nothing
    else. What differs from it by default can be switched off field by field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(default=16, ge=1, le=1024, description="Edits learned together")
    steps: int = Field(default=40, ge=1, le=10_000, description="Limit of a round, optimizer steps")
    learning_rate: float = Field(default=5e-3, gt=0.0, description="Adam's, at the first step")
    decay: float = Field(
        default=0.9, ge=0.0, lt=1.0,
        description="Share by which the learning rate has fallen at the last step, linearly",
    )  # fmt: skip
    margin: float | None = Field(
        default=3.0,
        ge=0.0,
        description="Learn until every target token leads all others by this much, in logits; "
        "None takes all the steps, and minimizes the negative log likelihood (the paper)",
    )
    routers: Literal["fitted", "joint"] = Field(
        default="fitted",
        description="Routers are fitted to the queries of all edits before the experts learn, or "
        "learn with them by the guided loss of the batch alone (the paper)",
    )
    guide: float = Field(
        default=1e-2, ge=0.0, description="Weight of the guided loss beside the model's, lambda"
    )
    fitting_steps: int = Field(
        default=60,
        ge=1,
        le=10_000,
        description="Limit of fitting the routers, iterations of L-BFGS",
    )
    rehearsed: int = Field(
        default=24,
        ge=0,
        description="Wordings of earlier edits that are learned again beside a batch: those with "
        "the smallest leads. 0: none",
    )
    rounds: int = Field(
        default=5,
        ge=0,
        description="After a batch every earlier edit is looked at, and those that were lost are "
        "learned again, at most so many times. 0: nobody looks",
    )
    probes: bool = Field(
        default=True,
        description="Routers learn to send unrelated text to experts that no edit is given",
    )
    recode: bool = Field(
        default=True,
        description="The codes of all edits are made anew after each batch, by the routers as they "
        "are then; else they stay as the routers saw them at the time",
    )
    calibrate: bool = Field(
        default=True,
        description="After each batch the threshold is brought down from the config's to where a "
        "hundredth of held-out text is nearer; but never below what the edits' own wordings need",
    )
    resolution: int | None = Field(
        default=8,
        ge=0,
        le=20,
        description="Experts are multiples of 2^-resolution, so that the difference of two "
        "versions of them takes few bytes; None leaves them as they come",
    )
    seed: int = Field(default=0, ge=0, description="Of initial experts and allocations")

    @classmethod
    def of(cls, preset: PresetName, **changes: Any) -> TrainConfig:
        """Returns a preset, with changes; see ``GraceConfig.of``."""
        if preset not in _TRAINING:
            raise ValueError(f"there is no preset '{preset}'; presets: {', '.join(_TRAINING)}")
        return cls(**{**_TRAINING[preset], **changes})


_TRAINING: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "batch_size": 4,
        "steps": 50,
        "learning_rate": 1e-4,
        "decay": 0.0,
        "margin": None,
        "routers": "joint",
        "rehearsed": 0,
        "rounds": 0,
        "probes": False,
        "recode": False,
        "calibrate": False,
        "resolution": None,
    },
}
