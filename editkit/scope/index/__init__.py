"""The key index behind a codebook: exact with every backend.

It can be imported without torch and without FAISS: a backend loads its library when it is opened.
"""

from editkit.scope.index.backends import open_backend
from editkit.scope.index.candidates import Candidates, IndexBackend
from editkit.scope.index.distance import distances
from editkit.scope.index.table import KeyTable

__all__ = [
    "Candidates",
    "IndexBackend",
    "KeyTable",
    "distances",
    "open_backend",
]
