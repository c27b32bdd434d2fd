"""The shape of a history's adaptors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from editkit.config import PresetName
from editkit.errors import UnsupportedMethod
from editkit.methods.elder.config import ElderConfig

__all__ = ["ElderShape"]

_SHAPE = (
    "r", "num_experts", "top_k", "weighting", "experts", "span", "query", "radius",
)  # fmt: skip
"""Fields that all adaptors of a model in one history share, besides threshold and scaling."""


@dataclass(frozen=True)
class ElderShape:
    """The requested shape of adaptors.

    Attributes:
        preset: A preset of ``ElderConfig``.
        changes: The user's changes to it, or a whole config instead.
    """

    preset: PresetName = "default"
    changes: ElderConfig | Mapping[str, Any] | None = None

    def config(self) -> ElderConfig:
        """Returns the requested shape.

        Raises:
            ValueError: A value is out of range.
        """
        if isinstance(self.changes, ElderConfig):  # may be PEFT's subclass, with more fields
            fields = dataclasses.fields(ElderConfig)
            return ElderConfig(**{one.name: getattr(self.changes, one.name) for one in fields})
        return ElderConfig.of(self.preset, **(self.changes or {}))

    def asked(self) -> frozenset[str]:
        """Returns the fields that the user set."""
        if self.changes is None:
            return frozenset()
        if isinstance(self.changes, Mapping):
            return frozenset(self.changes)
        return frozenset(_SHAPE)

    def beside(self, about: Mapping[str, Any] | None) -> ElderConfig:
        """Returns the shape of a history's adaptors; the requested one if there are none.

        Args:
            about: Settings of the adaptors; None if there are none.

        Raises:
            UnsupportedMethod: Another shape was requested.
            ValueError: A value is out of range.
        """
        config = self.config()
        if about is None:
            return config
        known: dict[str, Any] = {name: about[name] for name in _SHAPE if name in about}
        known |= {
            "threshold": about["limit"],
            "lora_alpha": round(about["scaling"] * about["r"], 9),
        }
        for name in sorted(self.asked() & known.keys()):
            if getattr(config, name) != known[name]:
                raise UnsupportedMethod(
                    f"the history's adaptors on this model have {name} = {known[name]!r}; "
                    f"{getattr(config, name)!r} was requested",
                    hint="leave it out, or replay the history into a new store",
                )
        return dataclasses.replace(config, target_modules=list(about["paths"]), **known)

    def fits(
        self, about: Mapping[str, Any] | None, config: ElderConfig, paths: Sequence[str]
    ) -> bool:
        """Returns whether a learner has the shape of a history's adaptors.

        Args:
            about: Settings of the adaptors; None if there are none.
            config: Shape of the learner.
            paths: Dotted paths of the layers that it adapts.
        """
        if about is None:
            return config == self.config()
        mine = dataclasses.replace(config, target_modules=list(paths))
        try:
            return mine == self.beside(about)
        except UnsupportedMethod:
            return False
