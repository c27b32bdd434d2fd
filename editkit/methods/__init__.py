"""Editing methods. ``codebook`` needs no torch; ``grace`` does, so nothing is imported here."""
