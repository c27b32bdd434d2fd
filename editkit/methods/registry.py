"""The registry of editing methods that installed packages provide.

A method is an entry point in the group ``editkit.methods``, named after the method, whose object is
a ``MethodSpec``. GRACE and ELDER are registered the same way. A method whose entry point fails to
load, or whose name two packages claim, cannot be used; this does not affect the others.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from editkit.errors import UnsupportedMethod
from editkit.methods.spec import MethodSpec

__all__ = ["GROUP", "Registered", "find_method", "registered"]

GROUP = "editkit.methods"
"""The entry-point group."""


@dataclass(frozen=True)
class Registered:
    """A registered method.

    Attributes:
        name: Name of the method.
        packages: Distributions that register it: one, unless there is a clash.
        spec: Its spec; None if it cannot be used.
        fault: Why it cannot be used.
    """

    name: str
    packages: tuple[str, ...]
    spec: MethodSpec | None = None
    fault: str | None = None


@functools.cache
def registered() -> Mapping[str, Registered]:
    """Returns the registered methods by name, in the order in which they are consulted."""
    found: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for point in importlib.metadata.entry_points(group=GROUP):
        mine = found.setdefault(point.name, [])
        # A package that is installed twice (an editable install and a build) counts once.
        if (point.value, _package(point)) not in [(one.value, _package(one)) for one in mine]:
            mine.append(point)
    methods = [_registered(name, points) for name, points in found.items()]
    # Methods that share weights, and those that cannot be used, come last.
    methods.sort(key=lambda one: (one.spec is None or one.spec.shares_weights, one.name))
    return MappingProxyType({one.name: one for one in methods})


def find_method(name: str) -> MethodSpec:
    """Returns the spec of a method.

    Raises:
        UnsupportedMethod: It is not installed, or cannot be used; the message says why.
    """
    known = registered()
    found = known.get(name)
    if found is None:
        usable = [one for one in known.values() if one.spec is not None]
        raise UnsupportedMethod(
            f"there is no method '{name}'",
            hint=f"methods: {', '.join(one.name for one in usable) or 'none is installed'}",
        )
    if found.spec is None:
        raise UnsupportedMethod(f"the method '{name}' cannot be used: {found.fault}")
    return found.spec


def _registered(name: str, points: list[importlib.metadata.EntryPoint]) -> Registered:
    packages = tuple(dict.fromkeys(_package(point) for point in points))
    if len(points) > 1:
        owners = " and ".join(f"'{point.value}' of {_package(point)}" for point in points)
        return Registered(name, packages, fault=f"two methods are called '{name}': {owners}")
    try:
        spec = points[0].load()
    except Exception as error:  # a third-party module may raise anything on import
        fault = f"the package '{packages[0]}' fails to load: {type(error).__name__}: {error}"
        return Registered(name, packages, fault=fault)
    if not isinstance(spec, MethodSpec):
        fault = f"'{points[0].value}' of the package '{packages[0]}' is not a MethodSpec"
        return Registered(name, packages, fault=fault)
    if spec.name != name:
        fault = f"the package '{packages[0]}' registers '{spec.name}' under another name"
        return Registered(name, packages, fault=fault)
    return Registered(name, packages, spec)


def _package(point: importlib.metadata.EntryPoint) -> str:
    return "an unknown package" if point.dist is None else point.dist.name
