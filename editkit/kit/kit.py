"""The kit: one running model with its history. ``editkit.open`` makes one."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from editkit.config import GraceConfig, TrainConfig
from editkit.editing.editor import Corrector, OnConflict, OnFailure, Warned
from editkit.engines.transformers.attachment import Attachment
from editkit.engines.transformers.generator import Generator
from editkit.engines.transformers.site import Site
from editkit.engines.transformers.tokens import Encoder
from editkit.history.views import Views
from editkit.kit.answering import AskingMethods
from editkit.kit.bundles import BundleMethods
from editkit.kit.inference import Asker, ChatLike
from editkit.kit.preview import PlanningMethods
from editkit.kit.timeline import HistoryMethods
from editkit.methods.base import Teachers
from editkit.methods.elder.method import Adapting
from editkit.methods.elder.shape import ElderShape
from editkit.methods.grace.method import Learner
from editkit.models.load import LoadedModel
from editkit.models.progress import Progress
from editkit.models.sentences import SentenceEncoder
from editkit.requests import build_request
from editkit.scope.keys import PromptKeys, kind_of_key, pooled_keys
from editkit.scope.sentences import SentenceKeys
from editkit_store import Store
from editkit_store.records import (
    Added,
    EditKind,
    EditRequest,
    MethodName,
    Provenance,
    ScopeName,
)

__all__ = ["Kit", "OnConflict", "OnFailure"]


class Kit(AskingMethods, HistoryMethods, PlanningMethods, BundleMethods):
    """A running model, corrected by the edits of one history.

    Use it as a context manager: leaving it takes every hook off the model and closes the store.
    Reading methods may be called from several threads; writing ones take turns.

    Attributes:
        store: The open history.
        name: Name that the model was loaded by.
        fingerprint: Identity of the model's architecture and weights.
        provenance: What is written down with every operation made through this kit.
    """

    def __init__(
        self,
        store: Store,
        loaded: LoadedModel,
        *,
        site: Site,
        config: GraceConfig,
        elder: ElderShape,
        train: TrainConfig,
        remembered: str | None,
        skip_missing: bool,
        keeps_store: bool,
        allow_pickle: bool | None,
        provenance: Provenance,
    ) -> None:
        self.store = store
        self.name = loaded.name
        self.fingerprint = loaded.fingerprint
        self.provenance = provenance
        self._model = loaded.model
        self._tokenizer = loaded.tokenizer
        self._remembered = remembered
        self._keeps_store = keeps_store
        self._site = site
        self._writing = threading.RLock()
        # Dropout would make verification a game of chance; the caller's mode comes back on close.
        self._was_training = bool(self._model.training)
        self._model.eval()
        self._encoder = Encoder(self._model, self._tokenizer)
        pooled = functools.cache(functools.partial(pooled_keys, loaded))
        kind = kind_of_key(loaded, self._encoder, config)
        keys: PromptKeys | None = None if kind == "state" else pooled()
        if kind == "sentence":
            encoder = SentenceEncoder(config.sentence_encoder, allow_pickle=allow_pickle)
            keys = SentenceKeys(pooled(), encoder)
        self._views = Views(
            store,
            loaded.fingerprint,
            site=site,
            position=config.position or site.layout.position,
            key="state" if keys is None else keys.kind,
            width=site.inputs if keys is None else keys.width,
            name=loaded.name,
            skip_missing=skip_missing,
            device=str(self._model.device),
        )
        first = self._views.at(store.history.current())
        self._attachment = Attachment(self._model, site, first, position=config.position, keys=keys)
        self._generator = Generator(self._model, self._encoder, self._attachment)
        self._learner = Learner(
            self._model,
            name=loaded.name,
            fingerprint=loaded.fingerprint,
            site=site,
            config=config,
            encoder=self._encoder,
            generator=self._generator,
            views=self._views,
            keys=keys,
        )
        self._elder = Adapting(
            self._model,
            name=loaded.name,
            fingerprint=loaded.fingerprint,
            layout=site.layout,
            store=store,
            encoder=self._encoder,
            generator=self._generator,
            attachment=self._attachment,
            adaptors=self._views.adaptors,
            pooled=pooled,
            shape=elder,
            train=train,
        )
        self._pooled = pooled
        self._prepare()
        self._teachers = Teachers(
            name=loaded.name,
            fingerprint=loaded.fingerprint,
            encoder=self._encoder,
            teachers={"grace": self._learner, "elder": self._elder},
        )
        self._corrector = Corrector(
            store,
            self._teachers,
            self._generator,
            self._views,
            self._attachment,
            self._settings,
        )
        self._asker = Asker(
            self._model,
            store=store,
            encoder=self._encoder,
            generator=self._generator,
            views=self._views,
            attachment=self._attachment,
            key=self._learner.key,
            query=self._elder.key,
            words=None if keys is None else keys.said,
            share_keys=self._teachers.share_keys,
        )

    def __enter__(self) -> Kit:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Takes the hooks off the model and closes the store; a second call does nothing.

        A store that was open before the kit stays open.
        """
        if self._attachment.is_attached:
            self._attachment.remove()
            self._model.train(self._was_training)
        if not self._keeps_store:
            self.store.close()

    @property
    def model(self) -> Any:
        """The Hugging Face model. Its own ``generate`` and ``forward`` are edited too."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer."""
        return self._tokenizer

    @property
    def encoder(self) -> Encoder:
        """How prompts and targets become tokens of this model."""
        return self._encoder

    @property
    def site(self) -> str:
        """Dotted path of the edited module."""
        return self._site.path

    @property
    def has_scopes(self) -> bool:
        """Whether edits of GRACE are looked up by their words, and a scope says how far they reach.

        Else they are looked up by hidden states.
        """
        return self._learner.has_keys

    @property
    def source(self) -> str:
        """Name by which another process can load the model: alias, hub id or full path.

        Of a model that was handed over loaded, only what it calls itself.
        """
        return self._remembered or self.name

    @property
    def version(self) -> str:
        """Name of the version that the running model is at."""
        return self._attachment.view.version

    def _prepare(self) -> None:
        """Gets the running model ready for what it has learned."""
        self._elder.reload()
        settings = self._views.adaptors.settings
        has_rows = self._learner.has_keys and len(self._views.memory)
        if has_rows or (settings is not None and settings["query"] == "pooled"):
            with self._generator.paused():
                self._pooled().prepare()  # which keys of sentences ask for as well

    # Correcting -------------------------------------------------------------------------------

    def add(
        self,
        prompt: str | None = None,
        target: str | None = None,
        *,
        chat: ChatLike | None = None,
        method: MethodName = "grace",
        kind: EditKind | None = None,
        rephrases: Iterable[str] = (),
        locality: Iterable[str] = (),
        subject: str | None = None,
        scope: ScopeName | None = None,
        reason: str | None = None,
        author: str | None = None,
        source: str | None = None,
        agent: str | None = None,
        conversation: str | None = None,
        idempotency_key: str | None = None,
        on_failure: OnFailure = "record",
        on_conflict: OnConflict = "supersede",
        before: bool = False,
    ) -> Added:
        """Corrects the running model, and writes the correction down.

        Args:
            prompt: What the model answers wrongly; with ``chat`` it is the last user turn.
            target: What it should answer.
            chat: The conversation up to and including the user turn that was answered wrongly.
            method: Editing method.
            kind: ``fact``, ``passage`` for a sentence or more, or ``label``, whose target is a
                label of a classifier; by default what the model can learn, ``label`` or ``fact``.
            rephrases: Other wordings, kept with the edit.
            locality: Prompts that must stay as they are, kept with the edit.
            subject: What the prompt is about.
            scope: How far it reaches: ``strict``, ``balanced`` or ``broad``; by default as the
                model was opened. Of GRACE's edits that are looked up by their words.
            reason: Why, for the log.
            author: Who, for the log.
            source: Where the request comes from, e.g. an id in a data file.
            agent: Program that asks for it, where it is not a person.
            conversation: Id of the conversation in which the wrong answer was seen.
            idempotency_key: The same key twice is one edit: a request that is sent again, e.g.
                after a timeout, gets what came of the first (``Added.outcome`` is ``known``).
            on_failure: What to do with an edit that does not verify: ``record`` or ``keep``.
            on_conflict: What to do where an active edit gives another target for the prompt:
                ``supersede`` (this one wins; ``Added.conflicts`` names the other), ``error``
                (refuse this one), ``keep`` (the other wins, and this one is not learned).
            before: Also ask what the model says without the edit, for ``Added.before``.

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
        request = build_request(
            {
                "prompt": prompt,
                "target": target,
                "chat": None if chat is None else tuple(chat),
                "method": method,
                "kind": kind or self._encoder.default_kind,
                "rephrases": tuple(rephrases),
                "locality": tuple(locality),
                "subject": subject,
                "scope": scope,
                "reason": reason,
                "author": author,
                "source": source,
                "agent": agent,
                "conversation": conversation,
                "idempotency_key": idempotency_key,
            }
        )
        return self.add_many(
            [request], on_failure=on_failure, on_conflict=on_conflict, before=before
        )[0]

    def add_request(
        self,
        request: EditRequest,
        *,
        on_failure: OnFailure = "record",
        on_conflict: OnConflict = "supersede",
        before: bool = False,
    ) -> Added:
        """Corrects the running model by a request record; see ``add``."""
        return self.add_many(
            [request], on_failure=on_failure, on_conflict=on_conflict, before=before
        )[0]

    def add_many(
        self,
        requests: Iterable[EditRequest | Mapping[str, Any]],
        *,
        on_failure: OnFailure = "record",
        on_conflict: OnConflict = "supersede",
        progress: Progress | None = None,
        told: Callable[[Added], None] | None = None,
        warned: Warned | None = None,
        before: bool = False,
    ) -> list[Added]:
        """Corrects the running model many times: learned in batches, one operation an edit.

        Args:
            requests: Request records, or dicts of their fields.
            on_failure: See ``add``.
            on_conflict: See ``add``; with ``error``, nothing is learned if one contradicts an
                active edit.
            progress: Told about every edit.
            told: Called with each result as soon as it is committed.
            warned: Called with a request and what it contradicts, before it is learned.
            before: See ``add``.

        Returns:
            One result a request, in their order.

        Raises:
            As ``add``, before anything is learned where a request itself is to blame.
        """
        with self._writing:
            return self._corrector.add_many(
                requests,
                on_failure=on_failure,
                on_conflict=on_conflict,
                provenance=self.provenance,
                progress=progress,
                told=told,
                warned=warned,
                before=before,
            )

    def check(self, request: EditRequest | Mapping[str, Any]) -> None:
        """Raises what ``add`` would raise for a request, without learning it."""
        self._teachers.encode(build_request(request, kind=self._encoder.default_kind))
