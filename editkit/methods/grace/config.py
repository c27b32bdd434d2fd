"""Settings of GRACE, with units. ``GraceConfig.of("paper")`` gives the published constants."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from editkit.config import Position, PresetName, Replacement, ScopeName
from editkit.scope.radii import RADII

__all__ = ["GraceConfig", "KeyName", "Rule"]

KeyName = Literal["state", "pooled", "text", "sentence"]
Rule = Literal["nearest", "disjoint", "paper"]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class GraceConfig(BaseModel):
    """GRACE's training settings and the reach of its edits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str | None = Field(
        default=None,
        description="Dotted path of the edited module; by default chosen from the architecture",
    )
    units: Literal["activation", "absolute"] = Field(
        default="activation",
        description="Units of radius and learning rate. `activation`: the radius is a fraction of "
        "the key's L2 norm, the learning rate a multiple of the RMS of the site's own output at "
        "the query (activations of models differ by a factor of a hundred). `absolute`: as given",
    )
    key: KeyName | None = Field(
        default=None,
        description="Kind of key that looks up an edit. `state`: the site's input at the query "
        "(the paper). `pooled`: a mean over the words of the prompt, which rephrases share; see "
        "editkit.scope.pooled. `text`: the same for a text to be classified, which is not a "
        "question; see editkit.scope.texts. `sentence`: that plus a sentence embedding, which "
        "distinguishes questions about one subject; see editkit.scope.sentences. By default "
        "`pooled` in a decoder, `text` in a classifier whose tokenizer knows words, else `state`",
    )
    sentence_encoder: str = Field(
        default="all-minilm-l6-v2",
        description="Alias, hub id or folder of the encoder, for `sentence` keys",
    )
    scope: ScopeName = Field(
        default="balanced",
        description="How far edits reach, unless their keys are states: sets the radius if none is "
        "given",
    )
    radius: float | None = Field(
        default=None,
        gt=0.0,
        description="Initial radius, L2; see units. By default that of `scope`, or 0.06 for keys "
        "that are states",
    )
    rule: Rule | None = Field(
        default=None,
        description="How radii shrink for each other; see editkit.methods.grace.codebook. By "
        "default `disjoint` for keys that are states, else `nearest`",
    )
    initial_value: Literal["output", "random"] = Field(
        default="output",
        description="Start of the optimization: the site's own output, or uniform on [0, 1)",
    )
    learning_rate: float = Field(default=3.0, gt=0.0, description="Adam's step; see units")
    betas: tuple[Share, Share] = Field(
        default=(0.5, 0.9),
        description="Adam's decay rates for gradients and their squares. They are low because a "
        "value is learned in a few steps, before the usual averages are meaningful",
    )
    decay: float = Field(
        default=0.9,
        ge=0.0,
        lt=1.0,
        description="Fraction that the learning rate loses linearly until the last step",
    )
    max_steps: int = Field(default=100, ge=1, le=10_000, description="Maximum optimizer steps")
    margin: float = Field(
        default=8.0,
        ge=0.0,
        description="Stop when every target token leads all others by this much, in logits. A "
        "token that barely leads at the prompt does not lead at its rephrases. Proportionally "
        "less for targets of more than 8 tokens, at least 2: see editkit.methods.losses.margins",
    )
    contexts: int = Field(
        default=0,
        ge=0,
        le=2,
        description="Number of contexts in which a value is learned beside the edit's prompt; see "
        "editkit.methods.grace.contexts. One takes 1.7 times as long and helps a little",
    )
    objective: Literal["margin", "likelihood"] = Field(
        default="margin",
        description="The training loss: how much the target tokens' leads fall short of the "
        "margin, or (the paper) their negative log-likelihood",
    )
    replacement: Replacement = Field(
        default="last",
        description="Positions whose output the value replaces: the query only, the whole prompt, "
        "or the prompt and every decoded token",
    )
    position: Position | None = Field(
        default=None,
        description="Token of the prompt that is the query. By default the last one; in a "
        "bidirectional classifier the first ([CLS]), which the label is predicted from",
    )
    shortlist: int = Field(
        default=64,
        ge=0,
        description="During training, compute only the logits of this many top tokens per target "
        "position; a value is accepted after a check of the whole vocabulary. 0: all",
    )
    restarts: tuple[int, ...] = Field(
        default=(40, 70),
        description="Steps at which a value that does not give its target yet is restarted with "
        "half the step size; if there are any, also once more after the last step",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the random initial value")

    def initial_radius(self, key: KeyName, scope: ScopeName | None = None) -> float:
        """Returns the initial radius of an edit with such a key; see ``units``.

        Args:
            key: Kind of its key.
            scope: The edit's own scope, if any, which overrides the radius and the scope of the
                settings. Ignored for keys that are states.
        """
        if self.radius is not None and (scope is None or key == "state"):
            return self.radius
        return _STATE_RADIUS if key == "state" else RADII[key][scope or self.scope]

    def rule_for(self, key: KeyName) -> Rule:
        """Returns the codebook rule of edits with such keys."""
        return self.rule or ("disjoint" if key == "state" else "nearest")

    @classmethod
    def of(cls, preset: PresetName, **changes: Any) -> GraceConfig:
        """Returns a preset, with changes.

        Args:
            preset: ``paper`` has the constants of Hartvigsen et al. (2023) and their code;
                ``default`` those that measured best.
            **changes: Fields to set on top.

        Raises:
            ValueError: There is no such preset, or a value is out of range.
        """
        if preset not in _PRESETS:
            raise ValueError(f"there is no preset '{preset}'; presets: {', '.join(_PRESETS)}")
        return cls(**{**_PRESETS[preset], **changes})


_STATE_RADIUS = 0.06
"""Fraction of a hidden state's L2 norm."""

_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "key": "state",
        "units": "absolute",
        "radius": 1.0,
        "rule": "paper",
        "initial_value": "random",
        "learning_rate": 1.0,
        "betas": (0.9, 0.999),
        "decay": 0.0,
        "max_steps": 100,
        "margin": 0.0,
        "objective": "likelihood",
        "position": "last",
        "shortlist": 0,
        "restarts": (),
    },
}
