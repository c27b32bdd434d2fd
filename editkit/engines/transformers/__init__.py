"""The Hugging Face transformers engine; the only package that hooks into a model.

engine      the engine itself
site        the module that edits change
tokens      encoding text as tokens
batches     teacher-forced batches of edits
attachment  hooks that apply a view of edits to a model
run         one generation or forward call: which edits apply to its rows, and where
generator   generation and scoring on an attached model
stepping    a callback after every decoding step
sampler     per-row sampling
training    context managers for learning: capture modules, skip blocks, substitute outputs
"""
