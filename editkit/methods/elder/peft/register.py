"""Making ELDER known to PEFT, without a fork and without loading PEFT before somebody does.

``peft.utils.register_peft_method`` takes only names that its ``PeftType`` enum holds. Two ways led
past that: LoRA's tuner with one adapter an expert, or one more member of the enum. One adapter an
expert would spread one ELDER over N adapters of every layer, with no place for routers and codes,
and ``save_pretrained`` would write N folders that only together mean anything. So the enum gets its
member, here and nowhere else; if PEFT's own list has one by then, that one is used.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

__all__ = ["elder_type", "register", "register_with_peft"]

_NAME = "ELDER"


def elder_type() -> Any:
    """Returns the member of PEFT's enum of methods that stands for ELDER; makes it if need be."""
    from peft.utils.peft_types import PeftType

    found = PeftType.__members__.get(_NAME)
    if found is None:
        # What the enum's own metaclass does for each member of a class body.
        found = str.__new__(PeftType, _NAME)
        found._name_ = _NAME
        found._value_ = _NAME
        found.__objclass__ = PeftType
        found._sort_order_ = len(PeftType.__members__)
        PeftType._member_names_.append(_NAME)
        PeftType._member_map_[_NAME] = found
        PeftType._value2member_map_[_NAME] = found
        type.__setattr__(PeftType, _NAME, found)
    return found


def register() -> None:
    """Registers the method; a second call does nothing, nor does one while its parts are loading.

    Loading any part loads PEFT, which calls this. Each part calls it again at its own end.
    """
    for name, wanted in (("config", "ElderConfig"), ("tuner", "ElderModel")):
        loading = sys.modules.get(f"editkit.methods.elder.{name}")
        if loading is not None and not hasattr(loading, wanted):
            return
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import register_peft_method

    from editkit.methods.elder.config import ElderConfig
    from editkit.methods.elder.peft.tuner import ElderModel

    if elder_type() in PEFT_TYPE_TO_CONFIG_MAPPING:  # their ends may just have done it
        return
    register_peft_method(
        name=_NAME.lower(), config_cls=ElderConfig, model_cls=ElderModel, prefix="elder_"
    )


def register_with_peft() -> None:
    """Registers the method now if PEFT is loaded, else as soon as it is."""
    if "peft" in sys.modules:
        register()
    elif not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())


class _Waiting(importlib.abc.MetaPathFinder):
    """Lets PEFT be found by everybody else, and registers the method when it has been loaded."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "peft":
            return None
        # It stays until PEFT is loaded: transformers only asks whether PEFT could be found.
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Registering(spec.loader)
                return spec
        return None


class _Registering(importlib.abc.Loader):
    """A loader that does what another one does, and registers the method behind it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self._loader.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, _Waiting)]
        register()
