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
asking       what a judge reads of a text: the question, without noise
encoder      its word pieces, the spelling of their words, and the encoder's adapters
repair       replacing a mistyped word by the word of an edit's prompt that was meant
head         comparing the states of two texts
judge        the judge of pairs: the probability that two prompts ask for the same
recall       cheap keys that propose edits to the judge
meaning      scope by recall and judge
"""
