"""What the fields of an edit are called in the published data sets, and what they hold.

The table is in the docstring of the package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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

# Of the published files and of blocks for judging scopes: nothing to make an edit of.
_IGNORED = (
    "answers", "cond", "domain", "ground_truth", "other", "portability", "portability_ground_truth",
    "portability_prompt", "pred", "relation_id", "same", "target_true", "unrelated_prompt",
)  # fmt: skip
_ROLES = {*PROMPTS, *TARGETS, *_SUBJECTS, *_SOURCES, *_REPHRASES, *_PROBES, *_ANSWERS, *_NEIGHBOURS}
_OWN = {*EditRequest.model_fields} - (_ROLES - {"chat"})

LISTS = frozenset({*_REPHRASES, *_PROBES, *_ANSWERS, *_NEIGHBOURS})
"""Fields that hold several texts."""
FIELDS = frozenset({*_ROLES, *_OWN, *_IGNORED})
"""All fields that have a meaning, or are known to have none."""


@dataclass(frozen=True)
class FileEdit:
    """An edit as a file has it, whatever the file calls its fields. It is not checked yet.

    Attributes:
        line: Number of the line where it begins, from 1.
        fields: Fields of an ``EditRequest``, without rephrases and probes.
        rephrases: Its rephrases.
        probes: Unrelated prompts, each with its true answer where that is known.
        neighbours: Prompts about something alike, likewise.
        unknown: Fields that have no meaning here.
    """

    line: int
    fields: Mapping[str, Any]
    rephrases: tuple[str, ...] = ()
    probes: tuple[tuple[str, str | None], ...] = ()
    neighbours: tuple[tuple[str, str | None], ...] = ()
    unknown: Mapping[str, Any] = field(default_factory=dict)


def edits_of(line: int, fields: Mapping[str, Any]) -> Iterator[FileEdit]:
    """Yields the edits of an object: one, or those of a list of rewrites.

    Raises:
        InvalidRequest: A part that an edit must have is missing, or a field holds no texts.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    own = {name: given[name] for name in _OWN if name in given}
    source = _first(given, _SOURCES)
    if source is not None:
        own["source"] = str(source)
    probes, neighbours = _groups(_filled(given, _PROBES))
    if all(answer is None for _, answer in probes):
        answers = _texts(_filled(given, _ANSWERS), "locality_answer")
        if len(answers) == len(probes):
            probes = [(prompt, answer) for (prompt, _), answer in zip(probes, answers, strict=True)]
    shared: dict[str, Any] = {
        "probes": tuple(probes),
        "neighbours": (*neighbours, *_asked(_filled(given, _NEIGHBOURS), "neighbours")),
    }
    rephrases = tuple(_texts(_filled(given, _REPHRASES), "rephrases"))
    if _REWRITE not in given:
        named = {"prompt": _first(given, ("prompt", "src", "text")),
                 "target": _plain(_first(given, TARGETS)),
                 "subject": _first(given, _SUBJECTS)}  # fmt: skip
        own |= {name: value for name, value in named.items() if value is not None}
        unknown = {name: value for name, value in given.items() if name not in FIELDS}
        yield FileEdit(line, own, rephrases, unknown=unknown, **shared)
        return
    rewrites = given[_REWRITE]
    if not isinstance(rewrites, list):
        rewrites = [rewrites]
    for one in rewrites:
        # Paraphrases of an object with several rewrites would be of none in particular.
        more = rephrases if len(rewrites) == 1 else ()
        rewritten = {**own, **_rewritten(one)}
        yield FileEdit(line, rewritten, (*_texts(one.get("question"), "question"), *more), **shared)


def _rewritten(rewrite: Any) -> dict[str, Any]:
    """Returns prompt, target and subject of a rewrite: a template is filled with its subject."""
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
    found = {"prompt": prompt, "target": _plain(rewrite["target_new"])}
    return found if subject is None else {**found, "subject": subject}


def _groups(value: Any) -> tuple[list[tuple[str, str | None]], list[tuple[str, str | None]]]:
    """Returns probes and neighbours: texts are probes, and groups are told apart by their names."""
    probes: list[tuple[str, str | None]] = []
    neighbours: list[tuple[str, str | None]] = []
    if isinstance(value, Mapping) and "prompt" not in value:
        for name, group in value.items():
            found = neighbours if "neighbo" in name.lower() else probes
            found += _asked(group, "locality")
    else:
        probes = _asked(value, "locality")
    return probes, neighbours


def _asked(value: Any, name: str) -> list[tuple[str, str | None]]:
    """Returns prompts with answers, from texts, objects of both, or an object of two lists."""
    if isinstance(value, Mapping):
        prompts = _texts(value.get("prompt"), name)
        answers = value.get("ground_truth", value.get("target"))
        if isinstance(value.get("prompt"), str) or not isinstance(answers, list):
            return [(prompt, _answer(answers)) for prompt in prompts]
        if len(answers) != len(prompts):
            return [(prompt, None) for prompt in prompts]
        return [(prompt, _answer(one)) for prompt, one in zip(prompts, answers, strict=True)]
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        return [pair for one in value for pair in _asked(one, name)]
    return [(prompt, None) for prompt in _texts(value, name)]


def _answer(value: Any) -> str | None:
    """Returns the first of an answer's spellings, which are lists of lists in some files."""
    if isinstance(value, list):
        return next((found for one in value if (found := _answer(one))), None)
    return value if isinstance(value, str) else None


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((fields[name] for name in names if name in fields), None)


def _filled(fields: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((fields[name] for name in names if fields.get(name)), None)


def _plain(value: Any) -> Any:
    """Returns a target; CounterFact wraps it: ``{"str": "English", "id": ...}``."""
    return value["str"] if isinstance(value, Mapping) and "str" in value else value


def _texts(value: Any, name: str) -> list[str]:
    """Returns one text or a list of texts as a list, without those that are empty."""
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
