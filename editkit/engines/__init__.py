"""Engines run models: loading, tokenization, and generation with edits applied."""
