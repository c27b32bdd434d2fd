"""The kit: one running model with its history. ``editkit.open`` creates it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from editkit.editing.adjuster import Adjuster, Adjusting
from editkit.editing.editor import Editor, OnConflict, OnFailure, Warned
from editkit.editing.requests import build_request
from editkit.engines.base import Sampling, TokenEncoder, Watch
from editkit.kit.bundles import Bundles
from editkit.kit.inference import ChatLike, DeliveryLike, Inference, VersionLike
from editkit.kit.preview import Preview
from editkit.kit.running import RunningModel
from editkit.kit.timeline import Timeline
from editkit.methods.opened import Methods
from editkit.models.progress import Progress
from editkit_store import Store, records
from editkit_store.bundle import records as bundle
from editkit_store.records.comparisons import Diff

__all__ = ["Kit", "OnConflict", "OnFailure"]


class Kit:
    """A running model, corrected by the edits of one history.

    Use it as a context manager: on exit it removes every hook from the model and closes the store.
    Methods that read may be called from several threads; methods that write are serialized.

    Args:
        running: The running model with its history.
        keeps_store: Leave the store open when the kit is closed.

    Attributes:
        store: The open history.
        name: Name that the model was loaded by.
        fingerprint: Identity of the model's architecture and weights.
    """

    def __init__(self, running: RunningModel, *, keeps_store: bool = False) -> None:
        self.store: Store = running.store
        self.name = running.engine.name
        self.fingerprint = running.engine.fingerprint
        self._running = running
        self._keeps_store = keeps_store
        self._editor = Editor(
            running.store, running.engine, running.methods, running.views, running.settings
        )
        self._adjuster = Adjuster(running.store, running.engine, running.methods, running.views)
        self._inference = Inference(running)
        self._timeline = Timeline(running, self._inference)
        self._preview = Preview(running, self._inference, self._editor)
        self._bundles = Bundles(running)

    def __enter__(self) -> Kit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes the hooks from the model and closes the store; a second call does nothing."""
        self._running.engine.close()
        if not self._keeps_store:
            self.store.close()

    @property
    def model(self) -> Any:
        """The library's model. Edits also apply to its own ``generate`` and ``forward``."""
        return self._running.engine.model

    @property
    def tokenizer(self) -> Any:
        """The library's tokenizer."""
        return self._running.engine.tokenizer

    @property
    def encoder(self) -> TokenEncoder:
        """How prompts and targets become tokens of this model."""
        return self._running.engine.encoder

    @property
    def methods(self) -> Methods:
        """The editing methods of the running model."""
        return self._running.methods

    @property
    def provenance(self) -> records.Provenance:
        """What is recorded with every operation made through this kit."""
        return self._running.provenance

    @provenance.setter
    def provenance(self, provenance: records.Provenance) -> None:
        self._running.provenance = provenance

    @property
    def site(self) -> str:
        """Dotted path of the module that the default method edits."""
        method = self._running.methods.get(records.DEFAULT_METHOD)
        return "" if method is None else method.site or ""

    @property
    def has_scopes(self) -> bool:
        """Whether edits of the default method can have a scope: not if looked up by states."""
        method = self._running.methods.get(records.DEFAULT_METHOD)
        return method is not None and method.has_scopes

    @property
    def source(self) -> str:
        """Name by which another process can load the model; else the name of the loaded model."""
        return self._running.remembered or self.name

    @property
    def judge(self) -> str:
        """What decides which edit a prompt asks for; see ``editkit.open``."""
        return self._running.judge

    @property
    def version(self) -> str:
        """Name of the running model's version."""
        return self._running.engine.view.version

    def add(
        self,
        prompt: str | None = None,
        target: str | None = None,
        *,
        on_failure: OnFailure = "record",
        on_conflict: OnConflict = "supersede",
        before: bool = False,
        **fields: Any,
    ) -> records.Added:
        """Corrects the running model and records the correction.

        Args:
            prompt: What the model answers wrongly; with ``chat`` it is the last user turn.
            target: What it should answer.
            on_failure: If the edit does not verify: ``record`` it only, or ``keep`` it.
            on_conflict: If an active edit gives another target for the prompt: ``supersede`` it
                (``Added.conflicts`` names it), ``error``, or ``keep`` it and learn nothing.
            before: Also record the model's answer without the edit, in ``Added.before``.
            **fields: The other fields of ``EditRequest``, e.g. ``chat``, ``rephrases``, ``scope``.

        Check ``verified``: an edit that does not verify is logged as failed and not active.

        Raises:
            InvalidRequest, EmptyTarget, PromptTooLong: The request cannot be carried out.
            ContradictsEdit: With ``on_conflict="error"``; names the edits contradicted.
            KeyReused: Another request had this idempotency key.
            UnsupportedMethod, UnsupportedModel: The method or the model does not support it.
            StoreUnwritable: The edit could not be stored; the model is unchanged.
        """
        request = {"prompt": prompt, "target": target, **fields}
        return self.add_many(
            [request], on_failure=on_failure, on_conflict=on_conflict, before=before
        )[0]

    def add_many(
        self,
        requests: Iterable[records.EditRequest | Mapping[str, Any]],
        *,
        on_failure: OnFailure = "record",
        on_conflict: OnConflict = "supersede",
        progress: Progress | None = None,
        told: Callable[[records.Added], None] | None = None,
        warned: Warned | None = None,
        before: bool = False,
    ) -> list[records.Added]:
        """Adds many edits, learned in batches and logged as one operation each.

        Args:
            requests: Request records, or dicts of their fields; all are checked first.
            on_failure: See ``add``.
            on_conflict: See ``add``; with ``error`` one contradiction refuses all of them.
            progress: Reports every edit.
            told: Called with each result as soon as it is committed.
            warned: Called with a request and the edits it contradicts, before it is learned.
            before: See ``add``.
        """
        with self._running.writing:
            return self._editor.add_many(
                requests,
                on_failure=on_failure,
                on_conflict=on_conflict,
                provenance=self.provenance,
                progress=progress,
                told=told,
                warned=warned,
                before=before,
            )

    def check(self, request: records.EditRequest | Mapping[str, Any]) -> None:
        """Validates a request without learning it; raises as ``add`` does."""
        self._running.methods.encode(build_request(request, kind=self.encoder.default_kind))

    def adjust(
        self,
        edit: str | records.Edit,
        *,
        also: Sequence[str] = (),
        exclude: Sequence[str] = (),
        on_failure: OnFailure = "record",
        dry_run: bool = False,
    ) -> records.Adjusted:
        """Says which prompts an edit also applies to, and which it must not; takes effect at once.

        Args:
            edit: An active edit, its id, or a prefix of it.
            also: Prompts that it also applies to; the model must give its target at each.
            exclude: Prompts that it must not apply to.
            on_failure: If an ``also`` prompt does not verify: ``record`` it only, or ``keep`` it.
            dry_run: Only verify; record nothing.

        Raises:
            InvalidRequest, PromptTooLong, ContradictsEdit: A prompt cannot be meant, or be run, or
                belongs to an active edit with another target.
            UnknownEdit, AmbiguousId, NotActive: The id does not name an active edit.
        """
        how = Adjusting(on_failure, dry_run, self.provenance)
        with self._running.writing:
            return self._adjuster.adjust(edit, also, exclude, how)

    @overload
    def generate(
        self, prompt: str, *, version: str | None = None, max_new_tokens: int = 64, **options: Any
    ) -> records.Generation: ...
    @overload
    def generate(
        self,
        prompt: Sequence[str],
        *,
        version: VersionLike = None,
        max_new_tokens: int = 64,
        **options: Any,
    ) -> list[records.Generation]: ...
    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        version: VersionLike = None,
        max_new_tokens: int = 64,
        chat: bool = False,
        delivery: DeliveryLike = "exact",
        **options: Any,
    ) -> records.Generation | list[records.Generation]:
        """Returns the corrected model's continuation of a prompt.

        Args:
            prompt: One prompt, or several (run as a batch).
            version: Answer as of this version, or with several prompts one version per prompt.
            max_new_tokens: Limit of each continuation, tokens.
            chat: Treat each prompt as a user turn, through the model's chat template.
            delivery: ``exact`` holds the decoder to the target of the edit that fires, ``free``
                leaves the model alone; or one per prompt. See ``Generation.delivered``.
            **options: Passed to the model's ``generate``, e.g. ``do_sample=True`` or
                ``streamer=...``; greedy by default.

        Returns a ``Generation``, or a list for a list of prompts; a classifier's text is its label.

        Raises:
            InvalidRequest, PromptTooLong: An argument is invalid; the prompt is empty or too long.
            UnknownVersion, ArtifactsMissing: No such version, or not learned by this model.
        """
        several = not isinstance(prompt, str)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        found = self._inference.generate(prompts, version, max_new_tokens, options, chat, delivery)
        return found if several else found[0]

    def chat(
        self,
        messages: ChatLike,
        *,
        version: str | None = None,
        max_new_tokens: int = 256,
        delivery: records.Delivery = "exact",
        **options: Any,
    ) -> records.Generation:
        """Returns the assistant's next turn, through the model's chat template.

        Args and errors are as for ``generate``; ``messages`` end with a user turn. Raises
        ``UnsupportedModel`` where the tokenizer has no chat template.
        """
        return self._inference.chat(messages, version, max_new_tokens, options, delivery)

    def generate_tokens(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        version: VersionLike = None,
        max_new_tokens: int = 64,
        watch: Watch | None = None,
        sampling: Sequence[Sampling | None] | None = None,
        delivery: DeliveryLike = "exact",
        **options: Any,
    ) -> list[records.Generation]:
        """Returns the corrected model's continuations of tokenized prompts; see ``generate``.

        ``watch`` is called after every decoding step and may end rows; ``sampling`` holds the
        parameters of each prompt, None for greedy. Both are limited to 16 prompts.
        """
        options |= {"watch": watch, "sampling": sampling}
        return self._inference.generate_tokens(prompts, version, max_new_tokens, options, delivery)

    def key(self, prompt: str) -> npt.NDArray[np.float32]:
        """Returns the lookup key of a prompt, ``(d,)`` float32; see ``GraceConfig.key``."""
        return self._inference.key(prompt)

    def score(self, prompt: str, target: str, *, version: str | None = None) -> records.Score:
        """Returns the likelihood of an answer (for a classifier, a label) without generating it."""
        return self.scores([prompt], [target], version=version)[0]

    def scores(
        self, prompts: Sequence[str], targets: Sequence[str], *, version: VersionLike = None
    ) -> list[records.Score]:
        """Returns the likelihood of one answer per prompt, at one version or one version each."""
        return self._inference.scores(prompts, targets, version)

    def explain(
        self,
        prompt: str | None = None,
        *,
        chat: ChatLike | None = None,
        version: str | None = None,
        k: int = 5,
    ) -> records.Explanation:
        """Returns which edit fires for a prompt or a chat, and the ``k`` nearest candidates."""
        return self._inference.explain(prompt, chat, version, k)

    def log(
        self,
        *,
        limit: int | None = None,
        at: str | None = None,
        before: int | None = None,
        containing: str | None = None,
        redacted: bool = False,
    ) -> list[records.LogEntry]:
        """Returns operations, newest first; see ``Store.log``."""
        return self.store.log(
            limit=limit, at=at, before=before, containing=containing, redacted=redacted
        )

    def resolve(self, version: str) -> str:
        """Returns the canonical name of a version, e.g. `v12`; raises ``UnknownVersion``."""
        return self._timeline.resolve(version)

    def count_requests(self, request: records.EditRequest) -> int:
        """Returns how many edits of the current version were made from exactly this request."""
        return self.store.count_requests(request)

    def show(self, name: str, *, redacted: bool = False) -> records.Shown:
        """Returns a version, or the version that added an edit, in full; see ``Store.show``."""
        return self.store.show(name, redacted=redacted)

    def status(self) -> records.Status:
        """Returns the status of the store."""
        return self._timeline.status()

    def diff(
        self,
        before: str,
        after: str,
        *,
        behavior: bool = False,
        probes: Iterable[str] = (),
        max_new_tokens: int = 16,
        progress: Progress | None = None,
    ) -> Diff:
        """Returns what changed between two versions, including in this model's artifacts.

        Args:
            before: Version expression, as is ``after``.
            after: Version expression.
            behavior: Also compare the model's greedy answers at both versions: to the prompts of
                the added and removed edits, their rephrases, locality and adjusted prompts.
            probes: More prompts to ask; any probe implies ``behavior``.
            max_new_tokens: Limit of answers to probes, tokens.
            progress: Reports every answer.

        Raises ``UnknownVersion``, or what ``generate`` raises for a version or a prompt.
        """
        limit = max_new_tokens
        return self._timeline.diff(before, after, behavior, probes, limit, progress)

    def rollback(self, version: str) -> records.ViewChanged:
        """Restores the view of an older version, as a new version.

        Raises ``UnknownVersion``, or ``ArtifactsMissing`` if this model has not learned all of it.
        """
        return self._timeline.rollback(version)

    def revert(
        self, edit_id: str, *, defer_only: bool = False, progress: Progress | None = None
    ) -> records.ViewChanged:
        """Removes one edit, as if it had never been added; of shared weights, later ones relearn.

        Args:
            edit_id: Id of the edit, or a prefix of it.
            defer_only: Only take it out of every prompt's reach; shared weights stay.
            progress: Reports every edit that is learned again.

        Raises ``UnknownEdit``, ``AmbiguousId`` or ``NotActive``; with ``defer_only``
        ``ArtifactsMissing``, if the edit to be reactivated was forgotten.
        """
        return self._timeline.revert(edit_id, defer_only=defer_only, progress=progress)

    def undo(self) -> records.ViewChanged:
        """Undoes the last change; a second undo undoes the one before.

        Raises ``NothingToUndo``, or ``ArtifactsMissing`` as ``rollback`` does.
        """
        return self._timeline.undo()

    def redo(self) -> records.ViewChanged:
        """Reverses the last undo; raises as ``undo`` does."""
        return self._timeline.redo()

    def tag(self, version: str, name: str) -> records.Tagged:
        """Names a version; raises ``UnknownVersion`` or ``InvalidTag``."""
        return self._timeline.tag(version, name)

    def replay(
        self,
        *,
        to: str | None = None,
        method: records.MethodName | None = None,
        only: str | None = None,
        progress: Progress | None = None,
    ) -> records.Replayed:
        """Applies the history to this model: restores the edits it has learned, learns the rest.

        Called again after an interruption, it resumes. Open with ``missing="skip"`` for it.

        Args:
            to: Version expression; the current version by default.
            method: Learn with this method instead of each edit's own.
            only: Replay only edits of ``to`` that are active at this version too.
            progress: Reports every edit.
        """
        return self._timeline.replay(to=to, method=method, only=only, progress=progress)

    def plan_add(
        self, request: records.EditRequest | Mapping[str, Any], *, near: int = 3
    ) -> records.AddPlan:
        """Previews adding an edit now, with its ``near`` nearest edits."""
        return self._preview.plan_add(request, near=near)

    def plan_rollback(self, version: str) -> records.ViewPlan:
        """Previews ``rollback``; raises as it does."""
        return self._preview.plan_rollback(version)

    def plan_undo(self) -> records.ViewPlan:
        """Previews ``undo``; raises as it does."""
        return self._preview.plan_undo()

    def plan_revert(self, edit_id: str) -> records.ViewPlan:
        """Previews ``revert``; raises as it does."""
        return self._preview.plan_revert(edit_id)

    def plan_replay(
        self,
        *,
        to: str | None = None,
        method: records.MethodName | None = None,
        only: str | None = None,
    ) -> records.ReplayPlan:
        """Previews ``replay`` with the same arguments; writes nothing."""
        return self._timeline.plan_replay(to=to, method=method, only=only)

    def export_bundle(
        self,
        path: str | os.PathLike[str],
        *,
        to: str = "@",
        since: str | None = None,
        only: str | None = None,
    ) -> bundle.Exported:
        """Writes edits and their artifacts to a new folder; see ``Store.export``."""
        return self._bundles.export_bundle(path, to=to, since=since, only=only)

    def import_bundle(
        self,
        path: str | os.PathLike[str],
        *,
        on_conflict: bundle.OnConflict = "keep",
        dry_run: bool = False,
    ) -> bundle.Imported:
        """Imports the edits of a bundle into the history and the running model.

        Raises what ``Store.import_bundle`` does, and ``InvalidRecord`` or ``ArtifactsMissing`` for
        artifacts that cannot be read or are not there. Nothing was imported then.
        """
        return self._bundles.import_bundle(path, on_conflict=on_conflict, dry_run=dry_run)
