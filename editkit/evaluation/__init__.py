"""Evaluation: measuring how well methods edit a model, on a stream of edits.

names       names of methods and scores
cases       reading edits with their rephrases and probes, in the field's formats
contestants the interface of an evaluated method; methods of the kit
tuned       baselines that train weights: fine-tuning of one module, LoRA
prompting   the baseline that puts corrections into the prompt
methods     methods by name
blocks      the scores of prompts that ask for the same, and for something else
judging     the scores of a method after a number of edits
streaming   running methods over the stream, resumable at any point
evaluate    the entry point: ``editkit.evaluate``
records     the results
output      writing them: tables (CSV), plots (PNG), page (HTML)
"""
