"""What decides which edits prompts ask for: a judge of their text, or each method's own keys."""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from editkit.config import JudgeName, PresetName, ScopeName
from editkit.errors import ModelUnavailable
from editkit.scope.asking import Text
from editkit.scope.exact import ExactScope
from editkit.scope.judge import Judge
from editkit.scope.meaning import MeaningScope, TextScope, Verdict
from editkit.scope.reader import ScopeReader
from editkit.scope.words import Words
from editkit_store.errors import InvalidRequest

if TYPE_CHECKING:
    from editkit.engines.learning import LearningEngine
    from editkit_store import Store
    from editkit_store.records import Adjustments, EditRequest

__all__ = ["judge_name", "reader_of"]

_VARIABLE = "EDITKIT_JUDGE"


def judge_name(given: str | None, store: Store | None, preset: PresetName) -> JudgeName:
    """Returns what decides: as given, as the history has it, or by default.

    The papers' own scopes are kept with their preset, and those of a history that was begun before
    there was a judge, until ``migrate`` changes it.

    Raises:
        InvalidRequest: There is no such judge.
    """
    known = get_args(JudgeName)
    recorded = None if store is None else store.setting("judge")
    found = given or recorded or os.environ.get(_VARIABLE)
    if found is None:
        began_before = store is not None and store.history.count() > 0
        found = "none" if preset == "paper" or began_before else "encoder"
    if found not in known:
        raise InvalidRequest(
            f"there is no judge '{found}'; choose among {', '.join(known)}", field="judge"
        )
    return next(one for one in known if one == found)


def reader_of(
    judge: JudgeName, engine: LearningEngine, store: Store, scope: ScopeName
) -> ScopeReader | None:
    """Returns what reads a running model's prompts; None where keys and hidden states decide.

    Args:
        judge: What decides.
        engine: The running model.
        store: The history.
        scope: How far edits reach that do not say so themselves.
    """
    if judge == "none":
        return None
    return ScopeReader(
        _EncoderScope(store.history.requests, scope),
        Words(engine.tokenizer),
        lambda embeddings: engine.pooled.ids(embeddings),
    )


class _EncoderScope:
    """The scope by meaning, or the one by letters where the encoder is not to be had."""

    def __init__(
        self,
        requests: Callable[[Sequence[str] | None], Mapping[str, EditRequest]],
        scope: ScopeName,
    ) -> None:
        self._requests = requests
        self._scope = scope
        self._lock = threading.Lock()
        self._made: TextScope | None = None

    def verdicts(
        self,
        text: Text,
        holds: Callable[[str], bool],
        k: int = 1,
        adjusted: Mapping[str, Adjustments] | None = None,
    ) -> list[Verdict]:
        """Returns which edits a prompt asks for; see ``TextScope``."""
        return self._opened().verdicts(text, holds, k, adjusted)

    def put(self, edits: Iterable[tuple[str, EditRequest]]) -> None:
        """Takes in edits that may not be recorded yet."""
        self._opened().put(edits)

    def reload(self) -> None:
        """Reads the edits of the history anew."""
        if self._made is not None:
            self._made.reload()

    def _opened(self) -> TextScope:
        with self._lock:
            if self._made is None:
                try:
                    self._made = MeaningScope(_shipped(), self._requests, self._scope)
                except ModelUnavailable as error:
                    warnings.warn(
                        f"edits fire for their own prompts only, up to spelling: {error}"
                        + (f" ({error.hint})" if error.hint else ""),
                        stacklevel=2,
                    )
                    self._made = ExactScope(self._requests)
            return self._made


@functools.cache
def _shipped() -> Judge:
    """Returns the judge of the package, one for all kits of the process."""
    return Judge.load()
