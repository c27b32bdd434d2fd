"""Making ELDER known to PEFT, without a fork.

``peft.utils.register_peft_method`` takes only names that its ``PeftType`` enum holds. Two ways led
past that: LoRA's tuner with one adapter an expert, or one more member of the enum. One adapter an
expert would spread one ELDER over N adapters of every layer, with no place for routers and codes,
and ``save_pretrained`` would write N folders that only together mean anything. So the enum gets its
member, here and nowhere else; if PEFT's own list has one by then, that one is used.
"""

from __future__ import annotations

from typing import Any

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import register_peft_method
from peft.utils.peft_types import PeftType

__all__ = ["elder_type", "register"]

_NAME = "ELDER"


def elder_type() -> Any:
    """Returns the member of PEFT's enum of methods that stands for ELDER; makes it if need be."""
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


def register(config: type[Any], tuner: type[Any]) -> None:
    """Registers the method with its config and its tuner; a second call does nothing."""
    if elder_type() not in PEFT_TYPE_TO_CONFIG_MAPPING:
        register_peft_method(
            name=_NAME.lower(), config_cls=config, model_cls=tuner, prefix="elder_"
        )
