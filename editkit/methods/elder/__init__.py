"""ELDER: a mixture of LoRAs in several layers with routers, learned on a stream of edits.

Li et al., "ELDER: Enhancing Lifelong Model Editing with Mixture-of-LoRA", AAAI 2025,
arXiv 2408.11869.
"""

from editkit.methods.spec import MethodSpec, Variant

__all__ = ["SPEC"]

SPEC = MethodSpec(
    name="elder",
    about="A mixture of LoRAs shared by all edits, with routers",
    method="editkit.methods.elder.method:ElderMethod",
    shares_weights=True,
    arguments=("train",),
    variants={"paper": Variant("paper", keeps_failed=True)},
    compare="editkit.methods.elder.compare:compare",
    warnings="editkit.methods.elder.warnings:warnings",
    exports={"ElderConfig": "editkit.methods.elder.peft:PeftElderConfig"},
)
