"""How a method is registered: its name, and where its parts are. Loads nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from editkit.config import PresetName

__all__ = ["MethodSpec", "Variant"]


@dataclass(frozen=True)
class Variant:
    """Settings of a method that an evaluation compares under a name of their own.

    Attributes:
        preset: The preset.
        settings: What is set on top of it.
        keeps_failed: Edits that do not verify stay active, as a published procedure may have it.
    """

    preset: PresetName = "default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    keeps_failed: bool = False


@dataclass(frozen=True)
class MethodSpec:
    """A method as a package registers it in the entry-point group ``editkit.methods``.

    Parts are named and not imported, as in an entry point itself, so that commands which need no
    model load none of it.

    Attributes:
        name: What users call it, e.g. ``grace``: small letters, digits and hyphens.
        about: One line about it.
        method: ``module:Class`` of its ``EditMethod``.
        shares_weights: Its edits share what they change, so taking one back means learning.
        arguments: Settings of it that ``editkit.open`` takes as arguments of their own.
        has_scopes: Its edits can have a scope of their own: strict, balanced or broad.
        variants: By name what ``editkit eval --method NAME:VARIANT`` compares.
        compare: ``module:function`` that tells two versions apart without a model, as
            ``editkit.history.diff.Compare`` says; None where the edits that came and went say all.
        warnings: ``module:function`` that takes a store and a version and returns what somebody
            should look at, in words, without a model; None for nothing ever.
        conflicts: ``module:function`` that finds the conflicts of artifacts that came from
            elsewhere, as ``Store.import_bundle`` asks for them; None where edits have none.
        exports: ``module:Class`` of names of ``editkit.__all__`` that are the method's, e.g. of the
            class of its settings.
    """

    name: str
    about: str
    method: str
    shares_weights: bool = False
    arguments: tuple[str, ...] = ()
    has_scopes: bool = False
    variants: Mapping[str, Variant] = field(default_factory=dict)
    compare: str | None = None
    conflicts: str | None = None
    warnings: str | None = None
    exports: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> Any:
        """Returns its ``EditMethod`` class."""
        return _part(self.method)

    def load_compare(self) -> Callable[..., Any] | None:
        """Returns what compares versions, if the method has it."""
        return None if self.compare is None else _part(self.compare)

    def load_conflicts(self) -> Callable[..., Any] | None:
        """Returns what finds conflicts, if the method has it."""
        return None if self.conflicts is None else _part(self.conflicts)

    def load_warnings(self) -> Callable[..., Sequence[str]] | None:
        """Returns what warns of the state of a history, if the method has it."""
        return None if self.warnings is None else _part(self.warnings)

    def load_export(self, name: str) -> Any:
        """Returns one of its ``exports``."""
        return _part(self.exports[name])


def _part(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
