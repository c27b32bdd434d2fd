"""Hugging Face transformers as an engine; the only room that hooks into a model.

engine      the engine itself
site        the module that an edit's values go to
tokens      from text to tokens
batches     edits laid out as one teacher-forced problem
attachment  a model that follows a view of edits
run         one generation or forward call: which edits apply to its rows, and where
generator   asking an attached model
stepping    a call back after every decoding step
sampler     drawing instead of choosing the best
training    what a method learns with: watch modules, skip blocks, put values in place
"""
