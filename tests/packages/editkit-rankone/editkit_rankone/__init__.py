"""Rank-one edits: the closed form of ROME as a side path that fires in the rows of an edit alone.

Meng et al., "Locating and Editing Factual Associations in GPT", NeurIPS 2022, arXiv 2202.05262.

It lives in a package of its own, and shows that an editing method needs no change to editkit.
"""

from editkit.methods.spec import MethodSpec, Variant

__all__ = ["SPEC"]

SPEC = MethodSpec(
    name="rankone",
    about="A rank-one map for each edit, added where its subject is read",
    method="editkit_rankone.method:RankOneMethod",
    has_scopes=True,
    variants={"paper": Variant("paper")},
    compare="editkit_rankone.compare:compare",
)
