"""GRACE: a codebook of keys and values at one layer.

Hartvigsen et al., "Aging with GRACE: Lifelong Model Editing with Discrete Key-Value Adaptors",
NeurIPS 2023, arXiv 2211.11031.
"""

from editkit.methods.spec import MethodSpec, Variant

__all__ = ["SPEC"]

SPEC = MethodSpec(
    name="grace",
    about="A learned value for each edit, applied where a prompt matches its key",
    method="editkit.methods.grace.method:GraceMethod",
    has_scopes=True,
    variants={
        "strict": Variant(settings={"scope": "strict"}),
        "broad": Variant(settings={"scope": "broad"}),
        "keys": Variant(judge="none"),
        "sentence": Variant(settings={"key": "sentence"}, judge="none"),
        "paper": Variant("paper"),
    },
    compare="editkit.methods.grace.compare:compare",
    conflicts="editkit.methods.grace.restore:find_conflicts",
    plot="editkit.methods.grace.plot:plot_codebook",
    exports={"GraceConfig": "editkit.methods.grace.config:GraceConfig"},
)
