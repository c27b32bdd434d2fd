"""Edit files: JSON lines, JSON and CSV, in the shapes of the published data sets.

``editkit add --from`` and ``editkit eval --data`` read the same files with the same reader.

Formats, recognised by their content and not by the file's name:

* JSON lines: one object per line, read as a stream;
* JSON: an array of objects, one object, or several objects in a row;
* CSV with a header, separated by commas, semicolons or tabs. A column of several texts (rephrases,
  probes) holds one text per line of its cell, or a JSON array.

Text is UTF-8, UTF-16 or UTF-32, with or without a byte-order mark; lines end in LF or CR LF.

Names of the fields; if a role has several names, the first one present is read:

=============  ====================================================================================
prompt         ``prompt``, ``src`` (zsRE), ``text`` (WikiBio of KnowEdit); with ``chat``, the last
               turn
target         ``target``, ``target_new``, ``alt`` (zsRE), ``labels`` (WikiBio of KnowEdit)
subject        ``subject``, ``concept``
rephrases      ``rephrases``, ``rephrase``, ``rephrase_prompt``, ``rephrase_prompts``,
               ``paraphrase_prompts``: a text or a list
probes         ``locality``, ``locality_prompt``, ``loc``: a text, a list, or the groups of KnowEdit
               and EasyEdit (``Relation_Specificity``, ``neighborhood``, …) with their answers
their answers  ``locality_answer``, ``locality_ground_truth``, ``loc_ans``
neighbours     ``neighbours``, ``neighborhood_prompts``, and the group ``neighborhood``
source         ``source``, ``id``, ``case_id``
=============  ====================================================================================

``requested_rewrite`` of CounterFact is a template with its subject and target. In MQuAKE it is a
list of them, each an edit of its own, with its ``question`` as a rephrase. All other fields of an
``EditRequest`` have their own names. Fields of the published files that do not describe the edit
itself (``ground_truth``, ``portability``, …) are ignored.

A *block* also has ``same`` and ``other``, lists of prompts that ask for exactly what the edit's
prompt asks for, and for something else. A prompt is a text, a list of turns of which the user has
the first and the last, a list of messages with ``role`` and ``content``, or an object with one of
these as ``prompt`` and optionally its ``kind`` and ``language``. ``language`` of the block is that
of prompts without one; ``same_kinds`` and ``other_kinds`` may list the kinds instead. If the edit
has a ``chat``, texts and turns are asked in a chat with its system prompt.
"""

from __future__ import annotations

from editkit.editing.files.blocks import BlockPrompt
from editkit.editing.files.reader import HINT, count_edits, read_edits, read_requests
from editkit.editing.files.shapes import FileEdit
from editkit.editing.files.source import EditSource

__all__ = [
    "HINT",
    "BlockPrompt",
    "EditSource",
    "FileEdit",
    "count_edits",
    "read_edits",
    "read_requests",
]
