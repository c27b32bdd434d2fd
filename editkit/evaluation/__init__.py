"""Evaluation: how well methods edit a model, measured on a stream of edits.

names       names of methods and scores
cases       reading edits, and what to judge them by, in the formats of the field
editors     what is asked of a method; GRACE as one
tuned       baselines that train weights: fine-tuning of one module, LoRA
prompting   the baseline that puts corrections into the prompt
methods     methods by name
judging     the scores of a method after so many edits
streaming   running methods over the stream, so that a run can stop anywhere and go on
evaluate    the whole of it: ``editkit.evaluate``
records     the results
output      writing them: tables (CSV), pictures (PNG), page (HTML)
"""
