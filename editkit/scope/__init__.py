"""Scope: by which key an edit is looked up, and how far from it an edit applies.

general      a page of ordinary text, to learn from how much each token says
information  what the model knows of its tokens: how rare each is, how embeddings are spread
words        from token ids to words, names among them, and the part of a prompt that asks
pooled       the key made of them
"""

from editkit.scope.pooled import PooledKeys

__all__ = ["PooledKeys"]
