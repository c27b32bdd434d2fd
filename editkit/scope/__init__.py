"""Scope: by which key an edit is looked up, and how far from it an edit applies.

general      a page of ordinary text, to learn from how much each token says
information  what the model knows of its tokens: how rare each is, how embeddings are spread
words        from token ids to words, names among them, and the part of a prompt that asks
pooled       the key made of them
texts        the same of a text to be classified, which asks nothing
sentences    the key made of them and of what a sentence encoder says
"""

from editkit.scope.pooled import PooledKeys
from editkit.scope.sentences import SentenceKeys
from editkit.scope.texts import TextKeys

__all__ = ["PooledKeys", "PromptKeys", "SentenceKeys", "TextKeys"]

PromptKeys = PooledKeys | SentenceKeys
"""What gives the keys of prompts from their words, where edits are not looked up by states."""
