"""Settings of ELDER: the shape of its adaptors, and how they are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from editkit.config import PresetName

__all__ = ["ElderConfig", "Experts", "Span", "TrainConfig", "Weighting"]

Span = Literal["query", "sequence"]
"""Tokens that a mixture applies to: from the query on, or the whole sequence."""

Weighting = Literal["scores", "equal"]
"""Weights of the chosen experts: their scores (the paper), or 1/k each."""

Experts = Literal["own", "nearest"]
"""Experts of an input in scope: its own best ones (the paper), or those of the nearest edit, which
are the ones that the edit was learned with."""


@dataclass
class ElderConfig:
    """Shape of ELDER's adaptors; the defaults are the paper's constants.

    Li et al., "ELDER: Enhancing Lifelong Model Editing with Mixture-of-LoRA", AAAI 2025,
    arXiv 2408.11869.

    Attributes:
        target_modules: Names (or a regular expression) of the linear maps to adapt, ``Linear`` or
            ``Conv1D``; by default the feed-forward outputs of six consecutive blocks.
        layers_to_transform: Blocks in which to look for them; by default six blocks from ``depth``
            on, if ``target_modules`` is not set either.
        depth: Where those six begin, as a fraction of all blocks (the paper: 21 of 32); 1 takes the
            last six.
        layers_pattern: Name of the list of blocks, if it is not a usual one.
        exclude_modules: Names of modules that are not adapted.
        r: Rank of each expert.
        lora_alpha: Its output is scaled by ``lora_alpha / r``.
        num_experts: Experts in each layer, N.
        top_k: How many of them are used, k.
        threshold: An input whose code is nearer than this to that of an edit, in bits, is in scope;
            at most the length of a code, L N.
        weighting: Weights of the chosen experts: ``scores`` of the router (the paper), or
            ``equal``.
        experts: Which experts an input in scope takes: its ``own`` (the paper), or those of the
            ``nearest`` edit.
        span: Tokens that the mixture applies to: the whole ``sequence`` (the paper), or from the
            ``query`` on, so that the cached prompt does not change.
        query: The routers' input: the hidden ``state`` of the prompt's last token at the first
            adapted block (the paper), or the ``pooled`` key of the prompt's words (see
            ``editkit.scope``), which rephrases share.
        radius: An input is in scope of an edit only if its query is within this L2 distance of a
            query that the edit was learned with; ``None`` uses the code alone (the paper). Only for
            pooled queries, which have unit length.

    Raises:
        ValueError: A value is out of range; the message names the field.
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
                raise ValueError(f"{name} must be a positive integer, not {value!r}")
        if self.top_k > self.num_experts:
            raise ValueError(
                f"top_k must be at most num_experts, {self.num_experts}, not {self.top_k}"
            )
        if not self.lora_alpha > 0:
            raise ValueError(f"lora_alpha must be positive, not {self.lora_alpha!r}")
        if self.radius is not None and not (self.radius > 0 and self.query == "pooled"):
            raise ValueError(
                f"radius must be positive and needs pooled queries, not {self.radius!r} with "
                f"queries of kind {self.query!r}"
            )
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be {' or '.join(known)}, not {getattr(self, name)!r}"
                )

    @classmethod
    def of(cls, preset: PresetName, **changes: Any) -> Self:
        """Returns a preset, with changes.

        Args:
            preset: ``paper`` has the constants of the paper; ``default`` those that measured best
                (benchmarks/results/elder_quality.md).
            **changes: Fields to set on top.

        Raises:
            ValueError: There is no such preset, or a value is out of range.
        """
        if preset not in _PRESETS:
            raise ValueError(f"there is no preset '{preset}'; presets: {', '.join(_PRESETS)}")
        return cls(**{**_PRESETS[preset], **changes})

    @property
    def scaling(self) -> float:
        """Scale of an expert's output, alpha / r."""
        return self.lora_alpha / self.r

    def check_threshold(self, layers: int) -> None:
        """Raises if the threshold is larger than any distance between codes.

        Args:
            layers: Number of adapted layers, L.

        Raises:
            ValueError: It is larger than the length of a code.
        """
        bits = layers * self.num_experts
        if self.threshold > bits:
            raise ValueError(
                f"threshold must be at most the length of a code, {bits} bits ({layers} layers "
                f"of {self.num_experts} experts), not {self.threshold}"
            )


_PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        # The last blocks: training steps run only the head above them.
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

    The paper's procedure is a single loop over the batch that trains routers and experts together.
    Each deviation from it is a field here and can be switched off.

    The paper's procedure is a single loop over the batch that trains routers and experts together.
    Each deviation from it is a field here and can be switched off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(default=16, ge=1, le=1024, description="Edits learned together")
    steps: int = Field(default=40, ge=1, le=10_000, description="Limit of a round, optimizer steps")
    learning_rate: float = Field(
        default=5e-3, gt=0.0, description="Adam's learning rate at the first step"
    )
    decay: float = Field(
        default=0.9, ge=0.0, lt=1.0,
        description="Fraction that the learning rate loses linearly until the last step",
    )  # fmt: skip
    margin: float | None = Field(
        default=3.0,
        ge=0.0,
        description="Learn until every target token leads all others by this much, in logits; "
        "None runs all steps and minimizes the negative log-likelihood (the paper)",
    )
    routers: Literal["fitted", "joint"] = Field(
        default="fitted",
        description="Fit the routers to the queries of all edits before training the experts, or "
        "train both jointly with the guided loss on the batch only (the paper)",
    )
    guide: float = Field(default=1e-2, ge=0.0, description="Weight of the guided loss, lambda")
    fitting_steps: int = Field(
        default=60,
        ge=1,
        le=10_000,
        description="Maximum L-BFGS iterations for fitting the routers",
    )
    rehearsed: int = Field(
        default=24,
        ge=0,
        description="Number of wordings of earlier edits to rehearse with a batch: those with the "
        "smallest leads. 0: none",
    )
    rounds: int = Field(
        default=5,
        ge=0,
        description="Maximum rounds after a batch that check all earlier edits and relearn lost "
        "ones. 0: no check",
    )
    probes: bool = Field(
        default=True,
        description="Train the routers to send unrelated text to an allocation that no edit uses",
    )
    recode: bool = Field(
        default=True,
        description="Recompute the codes of all edits with the current routers after each batch, "
        "instead of keeping them as first computed",
    )
    calibrate: bool = Field(
        default=True,
        description="After each batch, lower the threshold from the config's to where 1% of "
        "held-out text is nearer, but never below what the edits' own wordings need",
    )
    resolution: int | None = Field(
        default=8,
        ge=0,
        le=20,
        description="Round experts to multiples of 2^-resolution, so that versions differ by few "
        "bytes; None does not round",
    )
    seed: int = Field(default=0, ge=0, description="Seed of initial experts and allocations")

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
