"""The model-side branch of the error tree; root and store branch are in ``editkit_store``.

EditkitError
├── ModelError                  the model
│   ├── UnknownModel            no alias, hub id, folder or file of that name
│   ├── ModelUnavailable        known, but cannot be fetched or loaded here
│   ├── UnsupportedModel        loaded, but its architecture cannot be edited this way
│   ├── UnknownSite             no module of that path
│   └── ArtifactsMissing        the history holds edits this model has not learned
├── InvalidRequest              (store) the request itself
│   ├── EmptyTarget             the target tokenises to nothing
│   ├── EmptyRow                a row of an attention mask attends to no token
│   ├── PromptTooLong           prompt and target exceed the context window
│   └── MalformedLine           a line of an edits file does not parse
├── UnsupportedMethod           no such editing method, or not for this kind of edit
└── PackageMissing              an optional part was not installed

This module imports no torch, so that the command line can name these errors cheaply.
"""

from __future__ import annotations

from pathlib import Path

from editkit_store.errors import EditkitError, InvalidRequest

__all__ = [
    "ArtifactsMissing",
    "EmptyRow",
    "EmptyTarget",
    "MalformedLine",
    "ModelError",
    "ModelUnavailable",
    "PackageMissing",
    "PromptTooLong",
    "UnknownModel",
    "UnknownSite",
    "UnsupportedMethod",
    "UnsupportedModel",
]


class ModelError(EditkitError):
    """Something about the model stands in the way."""

    code = "model"


class UnknownModel(ModelError):
    """No alias, hub id, folder or GGUF file of that name.

    Attributes:
        name: What was asked for.
        matches: Known names that look like it, best first.
    """

    code = "unknown_model"

    def __init__(
        self, message: str, *, name: str, matches: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.name = name
        self.matches = matches


class ModelUnavailable(ModelError):
    """The model is known but cannot be had here: offline, gated, damaged download.

    Attributes:
        name: What was asked for.
        reason: `offline`, `gated`, `checksum`, `packages`, `damaged`, `encoder` (a judge of another
            encoder), `trust_remote_code`, `pickle`
            (weights that can run code), `cache` (folder unwritable or disk full) or `memory` (out
            of device memory).
    """

    code = "model_unavailable"

    def __init__(self, message: str, *, name: str, reason: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.name = name
        self.reason = reason


class UnsupportedModel(ModelError):
    """The model's architecture cannot be edited by this method."""

    code = "unsupported_model"


class UnknownSite(ModelError):
    """No module of that dotted path in the model.

    Attributes:
        site: What was asked for.
        matches: Paths that look like it, best first.
    """

    code = "unknown_site"

    def __init__(
        self, message: str, *, site: str, matches: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.site = site
        self.matches = matches


class ArtifactsMissing(ModelError):
    """The view holds edits that this model has not learned.

    Attributes:
        missing: Their ids.
        fingerprint: The model at hand.
        known: Fingerprints that have artifacts in the store.
    """

    code = "artifacts_missing"

    def __init__(
        self,
        message: str,
        *,
        missing: tuple[str, ...],
        fingerprint: str,
        known: tuple[str, ...],
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.missing = missing
        self.fingerprint = fingerprint
        self.known = known


class UnsupportedMethod(EditkitError):
    """No editing method of that name, or one that cannot make this kind of edit."""

    code = "unsupported_method"


class PackageMissing(EditkitError):
    """An optional part of editkit was not installed.

    Attributes:
        package: What is missing.
    """

    code = "package_missing"

    def __init__(self, message: str, *, package: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.package = package


class EmptyTarget(InvalidRequest):
    """The target tokenises to nothing."""

    code = "empty_target"


class ContradictsEdit(InvalidRequest):
    """An edit that is active gives another target for the prompt, and it was to be respected.

    Attributes:
        edits: Ids of the edits contradicted.
    """

    code = "contradicts_edit"

    def __init__(self, message: str, *, edits: tuple[str, ...], hint: str | None = None) -> None:
        super().__init__(message, field="target", hint=hint)
        self.edits = edits


class KeyReused(InvalidRequest):
    """An idempotency key that another request has used.

    Attributes:
        edit_id: The edit that came of that request.
    """

    code = "key_reused"

    def __init__(self, message: str, *, edit_id: str, hint: str | None = None) -> None:
        super().__init__(message, field="idempotency_key", hint=hint)
        self.edit_id = edit_id


class EmptyRow(InvalidRequest):
    """A row of a batch's attention mask attends to no token.

    Attributes:
        rows: Indices of such rows.
    """

    code = "empty_row"

    def __init__(self, message: str, *, rows: tuple[int, ...], hint: str | None = None) -> None:
        super().__init__(message, field="attention_mask", hint=hint)
        self.rows = rows


class PromptTooLong(InvalidRequest):
    """Prompt and target together exceed the model's context window.

    Attributes:
        tokens: Tokens needed.
        limit: The model's context window, in tokens.
    """

    code = "prompt_too_long"

    def __init__(
        self,
        message: str,
        *,
        tokens: int,
        limit: int,
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, field=field, hint=hint)
        self.tokens = tokens
        self.limit = limit


class MalformedLine(InvalidRequest):
    """A line of an edits file does not hold an edit.

    Attributes:
        path: The file.
        line: Line number, from 1.
    """

    code = "malformed_line"

    def __init__(
        self, message: str, *, path: Path | str, line: int, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.path = Path(path)
        self.line = line
