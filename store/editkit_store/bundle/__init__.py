"""Bundles: edits, and what they became, as a folder that can be handed on."""
