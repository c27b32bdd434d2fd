"""The configuration of an ELDER adapter, which PEFT saves in ``adapter_config.json``."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from editkit.methods.elder.config import ElderConfig
from editkit.methods.elder.peft.register import elder_type

__all__ = ["PeftElderConfig"]


@dataclass
class PeftElderConfig(ElderConfig, PeftConfig):  # type: ignore[misc]  # peft has no types
    """Configuration of an ELDER adapter for ``get_peft_model``; see ``ElderConfig``.

    Attributes:
        edits: Ids of the edits whose codes the adapter holds, in order.
        fingerprint: Identity of the model that it was learned on; other models refuse it.
    """

    edits: list[str] = field(default_factory=list)
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        PeftConfig.__post_init__(self)
        super().__post_init__()
        self.peft_type = elder_type()
