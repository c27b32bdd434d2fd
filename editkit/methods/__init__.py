"""Editing methods: how a model learns to give a target. README.md explains how to add one.

Nothing is imported here: comparing versions needs no torch.
"""
