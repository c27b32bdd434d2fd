"""Hugging Face transformers as an engine; the only room that hooks into a model.

layout      what kind of model it is, and where its blocks are
site        the module that an edit's values go to
tokens      from text to tokens
attachment  a model that follows a view of edits
run         one generation or forward call: which edits apply to its rows, and where
generator   asking an attached model
stepping    being told of every decoding step
sampling    drawing instead of choosing the best
training    what a method learns with: watch modules, skip blocks, put values in place
"""
