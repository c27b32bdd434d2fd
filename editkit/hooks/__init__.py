"""The only package that hooks into a model or replaces anything on it.

==========  ========================================================================
attachment  a model that follows a view of edits
run         one generation or forward call: which edits apply to its rows, and where
learning    what a method learns with: watch modules, skip blocks, put values in place
==========  ========================================================================
"""

from __future__ import annotations

from editkit.applied import Keys, View
from editkit.hooks.attachment import Adapted, Attachment
from editkit.hooks.learning import adjust, capture, narrow_head, resume_above, substitute
from editkit.hooks.run import Run

__all__ = [
    "Adapted",
    "Attachment",
    "Keys",
    "Run",
    "View",
    "adjust",
    "capture",
    "narrow_head",
    "resume_above",
    "substitute",
]
