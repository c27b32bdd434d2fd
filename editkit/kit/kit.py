"""The kit: one running model with its history. ``editkit.open`` makes one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from editkit.editing.editor import Editor, OnConflict, OnFailure, Warned
from editkit.editing.requests import build_request
from editkit.engines.base import Sampling, TokenEncoder, Watch
from editkit.kit.bundles import Bundles
from editkit.kit.inference import ChatLike, Inference, VersionLike
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

    Use it as a context manager: leaving it takes every hook off the model and closes the store.
    Reading methods may be called from several threads; writing ones take turns.

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
        self._inference = Inference(running)
        self._timeline = Timeline(running, self._inference)
        self._preview = Preview(running, self._inference, self._editor)
        self._bundles = Bundles(running)

    def __enter__(self) -> Kit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes the hooks off the model and closes the store; a second call does nothing.

        A store that was open before the kit stays open.
        """
        self._running.engine.close()
        if not self._keeps_store:
            self.store.close()

    @property
    def model(self) -> Any:
        """The library's model. Its own ``generate`` and ``forward`` are edited too."""
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
        """What is written down with every operation made through this kit."""
        return self._running.provenance

    @provenance.setter
    def provenance(self, provenance: records.Provenance) -> None:
        self._running.provenance = provenance

    @property
    def site(self) -> str:
        """Dotted path of the module that edits of the default method go to."""
        method = self._running.methods.get(records.DEFAULT_METHOD)
        return "" if method is None else method.site or ""

    @property
    def has_scopes(self) -> bool:
        """Whether edits of the default method can have a scope: not if looked up by states."""
        method = self._running.methods.get(records.DEFAULT_METHOD)
        return method is not None and method.has_scopes

    @property
    def source(self) -> str:
        """Name by which another process can load the model; of a loaded one what it is called."""
        return self._running.remembered or self.name

    @property
    def version(self) -> str:
        """Name of the version that the running model is at."""
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
        """Corrects the running model, and writes the correction down.

        Args:
            prompt: What the model answers wrongly; with ``chat`` it is the last user turn.
            target: What it should answer.
            on_failure: What to do with an edit that does not verify: ``record`` or ``keep``.
            on_conflict: What to do where an active edit gives another target for the prompt:
                ``supersede`` (this one wins; ``Added.conflicts`` names the other), ``error``
                (refuse this one), ``keep`` (the other wins, and this one is not learned).
            before: Also ask what the model says without the edit, for ``Added.before``.
            **fields: Other fields of ``EditRequest``, e.g. ``chat``, ``method``, ``rephrases``,
                ``locality``, ``scope``, ``reason``, ``author``, ``idempotency_key``.

        Returns:
            What happened. Check ``verified``: an edit that does not verify is logged as failed and
            is not active, unless ``on_failure="keep"``.

        Raises:
            InvalidRequest, EmptyTarget, PromptTooLong: The request cannot be carried out.
            ContradictsEdit: With ``on_conflict="error"``; names the edits contradicted.
            KeyReused: Another request had this idempotency key.
            UnsupportedMethod, UnsupportedModel: Not with this method or model.
            StoreUnwritable: It could not be written down; the model is as before.
        """
        request = {"prompt": prompt, "target": target, **fields}
        return self.add_many(
            [request], on_failure=on_failure, on_conflict=on_conflict, before=before
        )[0]

    def add_request(self, request: records.EditRequest, **how: Any) -> records.Added:
        """Corrects the running model by a request record; see ``add_many``."""
        return self.add_many([request], **how)[0]

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
        """Corrects the running model many times: learned in batches, one operation an edit.

        Args:
            requests: Request records, or dicts of their fields; a bad one costs no good one.
            on_failure: See ``add``.
            on_conflict: See ``add``; with ``error`` nothing is learned if one contradicts an edit.
            progress: Told about every edit.
            told: Called with each result as soon as it is committed.
            warned: Called with a request and what it contradicts, before it is learned.
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
        """Raises what ``add`` would raise for a request, without learning it."""
        self._running.methods.encode(build_request(request, kind=self.encoder.default_kind))

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
        **options: Any,
    ) -> records.Generation | list[records.Generation]:
        """Returns what the corrected model says.

        Args:
            prompt: One prompt, or several (run as a batch).
            version: Answer as of this version; disturbs nobody else. With several prompts, also
                one version a prompt.
            max_new_tokens: Limit of each continuation, tokens.
            chat: Take each prompt as a user turn, through the model's chat template.
            **options: For the model's ``generate``, e.g. ``do_sample=True`` or ``streamer=...``;
                greedy by default.

        Returns:
            A ``Generation``; for a list of prompts, a list. A classifier's text is its label.

        Raises:
            InvalidRequest, PromptTooLong: The prompt is empty or too long.
            UnknownVersion: No such version.
            ArtifactsMissing: That version holds edits this model has not learned.
        """
        several = not isinstance(prompt, str)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        found = self._inference.generate(prompts, version, max_new_tokens, options, chat=chat)
        return found if several else found[0]

    def chat(
        self,
        messages: ChatLike,
        *,
        version: str | None = None,
        max_new_tokens: int = 256,
        **options: Any,
    ) -> records.Generation:
        """Returns the assistant's next turn, through the model's chat template.

        Args and errors are as for ``generate``; ``messages`` end with a user turn. Raises
        ``UnsupportedModel`` where the tokenizer has no chat template.
        """
        return self._inference.chat(messages, version, max_new_tokens, options)

    def generate_tokens(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        version: VersionLike = None,
        max_new_tokens: int = 64,
        watch: Watch | None = None,
        sampling: Sequence[Sampling | None] | None = None,
        **options: Any,
    ) -> list[records.Generation]:
        """Returns what the corrected model says to prompts that are tokens; see ``generate``.

        ``watch`` is called after every decoding step and may end rows; ``sampling`` says for each
        prompt how it is sampled, None for greedy. Both take 16 prompts at most.
        """
        options |= {"watch": watch, "sampling": sampling}
        return self._inference.generate_tokens(prompts, version, max_new_tokens, options)

    def key(self, prompt: str) -> npt.NDArray[np.float32]:
        """Returns what a prompt is looked up by, ``(d,)`` float32; see ``GraceConfig.key``."""
        return self._inference.key(prompt)

    def score(self, prompt: str, target: str, *, version: str | None = None) -> records.Score:
        """Returns how likely an answer (of a classifier, a label) is, without generating it."""
        return self.scores([prompt], [target], version=version)[0]

    def scores(
        self, prompts: Sequence[str], targets: Sequence[str], *, version: VersionLike = None
    ) -> list[records.Score]:
        """Returns how likely answers are, one a prompt, at one version or one each."""
        return self._inference.scores(prompts, targets, version)

    def explain(
        self,
        prompt: str | None = None,
        *,
        chat: ChatLike | None = None,
        version: str | None = None,
        k: int = 5,
    ) -> records.Explanation:
        """Returns which edit fires for a prompt, and how near the others are.

        Args:
            prompt: The prompt; or ``chat``, a conversation.
            chat: See above.
            version: As of this version.
            k: Number of candidates, nearest first.
        """
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
        """Returns the operations, newest first; see ``Store.log``."""
        return self.store.log(
            limit=limit, at=at, before=before, containing=containing, redacted=redacted
        )

    def resolve(self, version: str) -> str:
        """Returns the own name of a version, e.g. `v12`; raises ``UnknownVersion``."""
        return self._timeline.resolve(version)

    def count_requests(self, request: records.EditRequest) -> int:
        """Returns how many members of the current version came of exactly this request."""
        return self.store.count_requests(request)

    def show(self, name: str, *, redacted: bool = False) -> records.Shown:
        """Returns a version (or the version that added an edit) in full; see ``Store.show``."""
        return self.store.show(name, redacted=redacted)

    def status(self) -> records.Status:
        """Returns where the store stands."""
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
        """Returns what changed between two versions, in what this model has learned too.

        Args:
            before: Version expression.
            after: Version expression.
            behavior: Also put the model's greedy answers at both versions side by side: to the
                prompts of the edits that came or went, their rephrases and locality prompts.
            probes: Prompts to ask beside those; with any, ``behavior`` is understood.
            max_new_tokens: Limit of answers to probes and locality prompts, tokens; those to an
                edit may be a little longer than its target.
            progress: Told about every answer.

        Raises:
            UnknownVersion: An expression names no version.
            ArtifactsMissing, InvalidRequest, PromptTooLong: One of them cannot be asked.
        """
        limit = max_new_tokens
        return self._timeline.diff(before, after, behavior, probes, limit, progress)

    def rollback(self, version: str) -> records.ViewChanged:
        """Takes the running model to the view of an older version, as a new version.

        Raises ``UnknownVersion``, or ``ArtifactsMissing`` where this model has not learned it all.
        """
        return self._timeline.rollback(version)

    def revert(
        self, edit_id: str, *, defer_only: bool = False, progress: Progress | None = None
    ) -> records.ViewChanged:
        """Takes one edit back, as if it had never been.

        Weights that edits share become what they were before, and later edits are learned again.

        Args:
            edit_id: The edit, or the beginning of its id.
            defer_only: Only so that no prompt reaches it, at once; shared weights stay.
            progress: Told about every edit that is learned again.

        Raises:
            UnknownEdit, AmbiguousId, NotActive: The id names no active edit.
            ArtifactsMissing: With ``defer_only``, an edit would come back that is forgotten.
        """
        return self._timeline.revert(edit_id, defer_only=defer_only, progress=progress)

    def undo(self) -> records.ViewChanged:
        """Takes the last change back; a second undo goes one further back.

        Raises:
            NothingToUndo: Everything is undone.
            ArtifactsMissing: As ``rollback``.
        """
        return self._timeline.undo()

    def redo(self) -> records.ViewChanged:
        """Takes the last undo back; raises as ``undo``."""
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
        """Brings the history to this model: restores what it has learned, learns the rest.

        Interrupted, it goes on from the last finished batch when it is called again. Open the kit
        with ``missing="skip"`` when the model is new to the history.

        Args:
            to: Version expression; the current version by default.
            method: Learn with this method instead of each edit's own.
            only: Version expression; replay only those edits of ``to`` that are active at this
                version too. The others stay unlearned until they are replayed themselves.
            progress: Told about every edit.
        """
        return self._timeline.replay(to=to, method=method, only=only, progress=progress)

    def plan_add(
        self, request: records.EditRequest | Mapping[str, Any], *, near: int = 3
    ) -> records.AddPlan:
        """Returns what an edit would meet if it were added now, and ``near`` edits beside it."""
        return self._preview.plan_add(request, near=near)

    def plan_rollback(self, version: str) -> records.ViewPlan:
        """Returns what ``rollback`` would do; raises as it does."""
        return self._preview.plan_rollback(version)

    def plan_undo(self) -> records.ViewPlan:
        """Returns what ``undo`` would do; raises as it does."""
        return self._preview.plan_undo()

    def plan_revert(self, edit_id: str) -> records.ViewPlan:
        """Returns what ``revert`` would do; raises as it does."""
        return self._preview.plan_revert(edit_id)

    def plan_replay(
        self,
        *,
        to: str | None = None,
        method: records.MethodName | None = None,
        only: str | None = None,
    ) -> records.ReplayPlan:
        """Returns what ``replay`` would do with the same arguments; writes nothing."""
        return self._timeline.plan_replay(to=to, method=method, only=only)

    def export_bundle(
        self,
        path: str | os.PathLike[str],
        *,
        to: str = "@",
        since: str | None = None,
        only: str | None = None,
    ) -> bundle.Exported:
        """Writes edits and what they became into a new folder; see ``Store.export``."""
        return self._bundles.export_bundle(path, to=to, since=since, only=only)

    def import_bundle(
        self,
        path: str | os.PathLike[str],
        *,
        on_conflict: bundle.OnConflict = "keep",
        dry_run: bool = False,
    ) -> bundle.Imported:
        """Brings the edits of a bundle into the history and onto the running model.

        Args:
            path: The bundle's folder.
            on_conflict: Where an active edit of ours corrects the same prompt: ``keep`` it active,
                let the imported one ``supersede`` it, or ``error``.
            dry_run: Only say what would happen.

        Raises:
            BundleNotFound, BundleTooNew, BundleDamaged, ImportConflict: As the store does.
            InvalidRecord, ArtifactsMissing: An artifact cannot be read, or is not there and the kit
                was opened to miss none. Nothing was imported then.
        """
        return self._bundles.import_bundle(path, on_conflict=on_conflict, dry_run=dry_run)
