"""Which editing methods there are: those that installed packages register.

A method is an entry point of the group ``editkit.methods`` whose name is the method's and whose
object is a ``MethodSpec``. GRACE and ELDER come in by the same door. An entry point that cannot be
loaded, or whose name two packages claim, is a method that cannot be used; the others can.
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
    """A method that a package registers.

    Attributes:
        name: The method's.
        packages: Distributions that register it: one, unless there is a clash.
        spec: What it is; None where it cannot be used.
        fault: Why it cannot.
    """

    name: str
    packages: tuple[str, ...]
    spec: MethodSpec | None = None
    fault: str | None = None


@functools.cache
def registered() -> Mapping[str, Registered]:
    """Returns the methods that installed packages register, by name, in the order of ``order``."""
    found: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for point in importlib.metadata.entry_points(group=GROUP):
        mine = found.setdefault(point.name, [])
        # A package that is there twice (an editable install beside a build) registers once.
        if (point.value, _package(point)) not in [(one.value, _package(one)) for one in mine]:
            mine.append(point)
    methods = [_registered(name, points) for name, points in found.items()]
    # What is exact is asked first; what shares weights, and what cannot be used, comes behind.
    methods.sort(key=lambda one: (one.spec is None or one.spec.shares_weights, one.name))
    return MappingProxyType({one.name: one for one in methods})


def find_method(name: str) -> MethodSpec:
    """Returns a method.

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
    except Exception as error:  # whatever a stranger's module does when it is imported
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
