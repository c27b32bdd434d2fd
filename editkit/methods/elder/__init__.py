"""ELDER: routers and a mixture of LoRAs in several layers, learned on a stream of edits.

Li et al., "ELDER: Enhancing Lifelong Model Editing with Mixture-of-LoRA", AAAI 2025,
arXiv 2408.11869.
"""
