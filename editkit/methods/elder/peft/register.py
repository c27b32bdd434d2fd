"""Registering ELDER with PEFT, without a fork.

``peft.utils.register_peft_method`` only accepts names in its ``PeftType`` enum. There are two ways
around that: LoRA's tuner with one adapter per expert, or a new member of the enum. One adapter per
expert would spread an ELDER adapter over N adapters of every layer, with no place for routers and
codes, and ``save_pretrained`` would write N folders that are useless alone. So this module adds the
member to the enum; if PEFT has it already, that one is used.
"""

from __future__ import annotations

from typing import Any

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import register_peft_method
from peft.utils.peft_types import PeftType

__all__ = ["elder_type", "register"]

_NAME = "ELDER"


def elder_type() -> Any:
    """Returns ELDER's member of PEFT's enum of methods; creates it if necessary."""
    found = PeftType.__members__.get(_NAME)
    if found is None:
        # As the enum metaclass does for each member of a class body.
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


def register(config: type[Any], tuner: type[Any]) -> None:
    """Registers the method with its config and its tuner; a second call does nothing."""
    if elder_type() not in PEFT_TYPE_TO_CONFIG_MAPPING:
        register_peft_method(
            name=_NAME.lower(), config_cls=config, model_cls=tuner, prefix="elder_"
        )
