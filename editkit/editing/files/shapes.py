"""Field names of edits in the published data sets, and how to read them.

The table is in the docstring of the package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from editkit.editing.files.blocks import BlockPrompt, block_prompts
from editkit_store.errors import InvalidRequest
from editkit_store.records import EditRequest

__all__ = ["FIELDS", "LISTS", "PROMPTS", "TARGETS", "FileEdit", "edits_of"]

PROMPTS = ("prompt", "src", "text", "chat")
TARGETS = ("target", "target_new", "alt", "labels")
_SUBJECTS = ("subject", "concept")
_SOURCES = ("source", "id", "case_id")
_REPHRASES = (
    "rephrases", "rephrase", "rephrase_prompt", "rephrase_prompts", "paraphrase_prompts",
)  # fmt: skip
_PROBES = ("locality", "locality_prompt", "loc")
_ANSWERS = ("locality_answer", "locality_ground_truth", "loc_ans")
_NEIGHBOURS = ("neighbours", "neighborhood_prompts")
_REWRITE = "requested_rewrite"

_BLOCK_LISTS = ("same", "other", "same_kinds", "other_kinds")
# Fields of the published files and of blocks that do not describe an edit.
_IGNORED = (
    "answers", "cond", "domain", "ground_truth", "language", "portability",
    "portability_ground_truth", "portability_prompt", "pred", "relation_id", "target_true",
    "unrelated_prompt",
)  # fmt: skip
_ROLES = {*PROMPTS, *TARGETS, *_SUBJECTS, *_SOURCES, *_REPHRASES, *_PROBES, *_ANSWERS, *_NEIGHBOURS}
_OWN = {*EditRequest.model_fields} - (_ROLES - {"chat"})

LISTS = frozenset({*_REPHRASES, *_PROBES, *_ANSWERS, *_NEIGHBOURS, *_BLOCK_LISTS})
"""Fields that hold several texts."""
FIELDS = frozenset({*_ROLES, *_OWN, *_BLOCK_LISTS, *_IGNORED})
"""All known fields, ignored ones included."""


@dataclass(frozen=True)
class FileEdit:
    """An edit read from a file, with normalized field names, before validation.

    Attributes:
        line: Number of its first line, from 1.
        fields: Fields of an ``EditRequest``, without rephrases and probes.
        rephrases: Its rephrases.
        probes: Unrelated prompts, each with its true answer if known.
        neighbours: Prompts about similar subjects, likewise.
        same: Of a block, the prompts that ask for the same.
        other: Of a block, the prompts that ask for something else.
        unknown: Fields that are not recognised.
    """

    line: int
    fields: Mapping[str, Any]
    rephrases: tuple[str, ...] = ()
    probes: tuple[tuple[str, str | None], ...] = ()
    neighbours: tuple[tuple[str, str | None], ...] = ()
    same: tuple[BlockPrompt, ...] = ()
    other: tuple[BlockPrompt, ...] = ()
    unknown: Mapping[str, Any] = field(default_factory=dict)


def edits_of(line: int, fields: Mapping[str, Any]) -> Iterator[FileEdit]:
    """Yields the edits of an object: one, or those of a list of rewrites.

    Raises:
        InvalidRequest: A required field is missing, or a field does not hold texts.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    own = {name: given[name] for name in _OWN if name in given}
    source = _first(given, _SOURCES)
    if source is not None:
        own["source"] = str(source)
    probes, neighbours = _probe_groups(_present(given, _PROBES))
    if all(answer is None for _, answer in probes):
        answers = _texts(_present(given, _ANSWERS), "locality_answer")
        if len(answers) == len(probes):
            probes = [(prompt, answer) for (prompt, _), answer in zip(probes, answers, strict=True)]
    shared: dict[str, Any] = {
        "probes": tuple(probes),
        "neighbours": (
            *neighbours,
            *_pairs(_present(given, _NEIGHBOURS), "neighbours"),
        ),
        "same": block_prompts(given, "same"),
        "other": block_prompts(given, "other"),
    }
    rephrases = tuple(_texts(_present(given, _REPHRASES), "rephrases"))
    if _REWRITE not in given:
        named = {"prompt": _first(given, ("prompt", "src", "text")),
                 "target": _unwrap(_first(given, TARGETS)),
                 "subject": _first(given, _SUBJECTS)}  # fmt: skip
        own |= {name: value for name, value in named.items() if value is not None}
        unknown = {name: value for name, value in given.items() if name not in FIELDS}
        yield FileEdit(line, own, rephrases, unknown=unknown, **shared)
        return
    rewrites = given[_REWRITE]
    if not isinstance(rewrites, list):
        rewrites = [rewrites]
    for one in rewrites:
        # With several rewrites, the object's paraphrases belong to none of them in particular.
        more = rephrases if len(rewrites) == 1 else ()
        rewritten = {**own, **_rewritten(one)}
        yield FileEdit(line, rewritten, (*_texts(one.get("question"), "question"), *more), **shared)


def _rewritten(rewrite: Any) -> dict[str, Any]:
    """Returns prompt, target and subject of a rewrite, with the template filled in."""
    if not isinstance(rewrite, Mapping):
        raise InvalidRequest(f"its '{_REWRITE}' is not an object", field=_REWRITE)
    for name in ("prompt", "target_new"):
        if rewrite.get(name) is None:
            raise InvalidRequest(f"its '{_REWRITE}' has no '{name}'", field=name)
    prompt, subject = rewrite["prompt"], rewrite.get("subject")
    if isinstance(prompt, str) and "{}" in prompt:
        if not isinstance(subject, str):
            raise InvalidRequest(f"its '{_REWRITE}' has no 'subject'", field="subject")
        prompt = prompt.replace("{}", subject)
    found = {"prompt": prompt, "target": _unwrap(rewrite["target_new"])}
    return found if subject is None else {**found, "subject": subject}


def _probe_groups(value: Any) -> tuple[list[tuple[str, str | None]], list[tuple[str, str | None]]]:
    """Returns probes and neighbours: plain texts are probes, groups are classified by name."""
    probes: list[tuple[str, str | None]] = []
    neighbours: list[tuple[str, str | None]] = []
    if isinstance(value, Mapping) and "prompt" not in value:
        for name, group in value.items():
            found = neighbours if "neighbo" in name.lower() else probes
            found += _pairs(group, "locality")
    else:
        probes = _pairs(value, "locality")
    return probes, neighbours


def _pairs(value: Any, name: str) -> list[tuple[str, str | None]]:
    """Returns prompts with answers, from texts, a list of objects, or an object of two lists."""
    if isinstance(value, Mapping):
        prompts = _texts(value.get("prompt"), name)
        answers = value.get("ground_truth", value.get("target"))
        if isinstance(value.get("prompt"), str) or not isinstance(answers, list):
            return [(prompt, _answer(answers)) for prompt in prompts]
        if len(answers) != len(prompts):
            return [(prompt, None) for prompt in prompts]
        return [(prompt, _answer(one)) for prompt, one in zip(prompts, answers, strict=True)]
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        return [pair for one in value for pair in _pairs(one, name)]
    return [(prompt, None) for prompt in _texts(value, name)]


def _answer(value: Any) -> str | None:
    """Returns the first alias of an answer; some files nest aliases in lists of lists."""
    if isinstance(value, list):
        return next((found for one in value if (found := _answer(one))), None)
    return value if isinstance(value, str) else None


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((fields[name] for name in names if name in fields), None)


def _present(fields: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((fields[name] for name in names if fields.get(name)), None)


def _unwrap(value: Any) -> Any:
    """Unwraps a target of CounterFact: ``{"str": "English", "id": ...}``."""
    return value["str"] if isinstance(value, Mapping) and "str" in value else value


def _texts(value: Any, name: str) -> list[str]:
    """Returns one text or a list of texts as a list, without empty ones."""
    found = [value] if isinstance(value, str) else ([] if value is None else value)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InvalidRequest(f"'{name}' must be a text or a list of texts", field=name)
    for one in found:
        try:
            one.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                "the text holds a lone surrogate and is not valid Unicode", field=name
            ) from error
    return [one for one in found if one.strip()]
