"""ELDER as a PEFT method. Only importing this package registers it with PEFT.

import editkit.methods.elder.peft
from peft import PeftModel

model = PeftModel.from_pretrained(base, "adapter")
"""

from editkit.methods.elder.peft.config import PeftElderConfig
from editkit.methods.elder.peft.register import register
from editkit.methods.elder.peft.tuner import ElderLinear, ElderModel

__all__ = ["ElderLinear", "ElderModel", "PeftElderConfig"]

register(PeftElderConfig, ElderModel)
