"""The key index behind a codebook: exact, whatever finds the candidates.

Importable without torch and without FAISS: a backend loads its library when it is opened.
"""

from editkit.retrieval.backends import open_backend
from editkit.retrieval.candidates import Backend, Candidates
from editkit.retrieval.distance import distances
from editkit.retrieval.table import KeyTable

__all__ = [
    "Backend",
    "Candidates",
    "KeyTable",
    "distances",
    "open_backend",
]
