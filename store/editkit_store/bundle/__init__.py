"""Bundles: edits and their artifacts as a folder that can be shared."""
