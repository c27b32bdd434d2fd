"""GRACE: a codebook of keys and values at one layer.

Hartvigsen et al., "Aging with GRACE: Lifelong Model Editing with Discrete Key-Value Adaptors",
NeurIPS 2023, arXiv 2211.11031.
"""
