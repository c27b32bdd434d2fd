"""Scope: which edit applies to a prompt.

general      a page of ordinary text, to measure the information of tokens
information  token statistics of a model: self-information and spread of the embeddings
words        splitting token ids into words, names among them, and finding the question
pooled       keys made of a prompt's words
texts        keys of texts to be classified, which are not questions
sentences    keys made of words and a sentence embedding
keys         the choice among these keys for a model
index        exact nearest-neighbour search over keys
confirm      confirmation that a prompt within an edit's radius is in scope
overrides    prompts that people said an edit applies to, or does not apply to
reach        how far an edit reaches, in numbers and words
"""
