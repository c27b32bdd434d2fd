"""What shape the adaptors of a history have."""

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
"""What all adaptors of a model in one history have in common, beside threshold and scaling."""


@dataclass(frozen=True)
class ElderShape:
    """What shape the adaptors of a new history are to have.

    Attributes:
        preset: A preset of ``ElderConfig``.
        changes: What somebody asked for on top, or instead of it.
    """

    preset: PresetName = "default"
    changes: ElderConfig | Mapping[str, Any] | None = None

    def config(self) -> ElderConfig:
        """Returns it.

        Raises:
            ValueError: A value out of its range.
        """
        if isinstance(self.changes, ElderConfig):  # one of PEFT's, perhaps, which says more
            fields = dataclasses.fields(ElderConfig)
            return ElderConfig(**{one.name: getattr(self.changes, one.name) for one in fields})
        return ElderConfig.of(self.preset, **(self.changes or {}))

    def asked(self) -> frozenset[str]:
        """Returns the fields that somebody asked for."""
        if self.changes is None:
            return frozenset()
        if isinstance(self.changes, Mapping):
            return frozenset(self.changes)
        return frozenset(_SHAPE)

    def beside(self, about: Mapping[str, Any] | None) -> ElderConfig:
        """Returns the shape that a history's adaptors have; of a new one what was asked for.

        Args:
            about: What they say of themselves; None where there are none.

        Raises:
            UnsupportedMethod: Another one was asked for.
            ValueError: A value out of its range.
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
                    f"{getattr(config, name)!r} was asked for",
                    hint="leave it out, or replay the history into a new store",
                )
        return dataclasses.replace(config, target_modules=list(about["paths"]), **known)

    def fits(
        self, about: Mapping[str, Any] | None, config: ElderConfig, paths: Sequence[str]
    ) -> bool:
        """Returns whether what learns is of the shape that a history's adaptors have.

        Args:
            about: What they say of themselves; None where there are none.
            config: The shape that it was made for.
            paths: Dotted paths of the layers that it adapts.
        """
        if about is None:
            return config == self.config()
        mine = dataclasses.replace(config, target_modules=list(paths))
        try:
            return mine == self.beside(about)
        except UnsupportedMethod:
            return False
