"""The shape of an ELDER adapter, as PEFT keeps it in ``adapter_config.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from peft import PeftConfig

from editkit.config import PresetName
from editkit.engines.base import Span
from editkit.methods.elder.peft.register import elder_type, register
from editkit.methods.elder.state import Experts, Weighting

__all__ = ["ElderConfig"]


@dataclass
class ElderConfig(PeftConfig):  # type: ignore[misc]  # peft has no types
    """Configuration of an ELDER adapter; the defaults are the paper's constants.

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
        edits: Ids of the edits whose codes the adapter holds, in their order.
        fingerprint: Identity of the model that it was learned on; another one refuses it.

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
    edits: list[str] = field(default_factory=list)
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = elder_type()
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
    def of(cls, preset: PresetName, **changes: Any) -> ElderConfig:
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

register()
