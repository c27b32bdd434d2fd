"""Scope: which edit a prompt is in reach of.

general      a page of ordinary text, to learn from how much each token says
information  what the model knows of its tokens: how rare each is, how embeddings are spread
words        from token ids to words, names among them, and the part of a prompt that asks
pooled       the key made of them
texts        the same of a text to be classified, which asks nothing
sentences    the key made of them and of what a sentence encoder says
keys         which of these a model's edits are looked up by
index        the nearest keys, exactly
confirm      the second look at an edit in reach
reach        how far an edit reaches, in figures and words
"""
