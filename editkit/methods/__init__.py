"""Editing methods: how a model is made to give a target. README.md says how to add one.

Nothing is imported here: comparing versions needs no torch.
"""
