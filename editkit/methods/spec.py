"""The spec that registers a method: its name, and the import paths of its parts."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from editkit.config import JudgeName, PresetName

__all__ = ["MethodSpec", "Variant"]


@dataclass(frozen=True)
class Variant:
    """Settings of a method that an evaluation compares under a name of their own.

    Attributes:
        preset: The preset.
        settings: Settings on top of it.
        judge: What decides which edit a prompt asks for; None is the default.
        keeps_failed: Edits that do not verify stay active, as in some published procedures.
    """

    preset: PresetName = "default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    judge: JudgeName | None = None
    keeps_failed: bool = False


@dataclass(frozen=True)
class MethodSpec:
    """A method as a package registers it in the entry-point group ``editkit.methods``.

    Parts are import paths, as in an entry point itself, so that commands that need no model import
    none of them.

    Attributes:
        name: Name of the method, e.g. ``grace``: lowercase letters, digits and hyphens.
        about: One-line description.
        method: ``module:Class`` of its ``EditMethod``.
        shares_weights: Its edits share weights, so reverting one means learning others again.
        arguments: Its settings that ``editkit.open`` takes as separate arguments.
        has_scopes: Its edits can have a scope of their own: strict, balanced or broad.
        variants: Variants for ``editkit eval --method NAME:VARIANT``, by name.
        compare: ``module:function`` that compares two versions without a model, see
            ``editkit.history.diff.Compare``; None if the added and removed edits are enough.
        warnings: ``module:function`` that takes a store and a version and returns warnings for the
            user, without a model; None if there are none.
        conflicts: ``module:function`` that finds the conflicts of imported artifacts, as
            ``Store.import_bundle`` requests them; None if edits cannot conflict.
        plot: ``module:function`` that plots the edits of a version to a file, as
            ``editkit.history.plot`` calls it; None if the method has no plot.
        exports: ``module:Class`` of the names in ``editkit.__all__`` that the method provides, e.g.
            its settings class.
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
    plot: str | None = None
    exports: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> Any:
        """Returns its ``EditMethod`` class."""
        return _import(self.method)

    def load_compare(self) -> Callable[..., Any] | None:
        """Returns the function that compares versions, if there is one."""
        return None if self.compare is None else _import(self.compare)

    def load_conflicts(self) -> Callable[..., Any] | None:
        """Returns the function that finds conflicts, if there is one."""
        return None if self.conflicts is None else _import(self.conflicts)

    def load_warnings(self) -> Callable[..., Sequence[str]] | None:
        """Returns the function that returns warnings, if there is one."""
        return None if self.warnings is None else _import(self.warnings)

    def load_plot(self) -> Callable[..., Any] | None:
        """Returns the function that plots edits, if there is one."""
        return None if self.plot is None else _import(self.plot)

    def load_export(self, name: str) -> Any:
        """Returns one of its ``exports``."""
        return _import(self.exports[name])


def _import(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
