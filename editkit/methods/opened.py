"""The methods of one running model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from editkit.errors import UnsupportedMethod
from editkit.methods.base import EditMethod, MethodContext
from editkit.methods.registry import find_method, registered
from editkit_store.records import DEFAULT_METHOD, Artifact, Edit, EditRequest

if TYPE_CHECKING:
    from editkit.config import PresetName
    from editkit.engines.base import Encoded
    from editkit.engines.learning import LearningEngine
    from editkit_store import Store

__all__ = ["Methods"]


class Methods:
    """All installed methods, opened on one running model, in the order in which they are consulted.

    Args:
        engine: The running model.
        store: The history.
        settings: Settings by method name; see ``MethodContext``.
        arguments: Settings passed under names of their own, or under a method's name.
        preset: ``default``, or ``paper`` for the published constants.
        allow_pickle: See ``MethodContext``.

    Raises:
        UnsupportedMethod: Settings for a method that cannot be used.
        TypeError: An argument does not belong to any method.
        UnsupportedModel, UnknownSite, ValueError: Settings cannot be met, or the default method
            does not support the model.
    """

    def __init__(
        self,
        engine: LearningEngine,
        store: Store,
        settings: Mapping[str, Any],
        arguments: Mapping[str, Any],
        *,
        preset: PresetName = "default",
        allow_pickle: bool | None = None,
    ) -> None:
        settings, own = _split_settings(settings, arguments)
        self._engine = engine
        self._store = store
        self._open: dict[str, EditMethod] = {}
        self._faults: dict[str, str] = {}
        for name, one in registered().items():
            if one.spec is None:
                continue
            context = MethodContext(
                engine, store, preset, settings.get(name), own.get(name, {}), allow_pickle
            )
            try:
                method = one.spec.load()(context)
            except Exception as error:
                if name in settings or name in own or name == DEFAULT_METHOD:
                    raise
                # A method that the user did not configure must not prevent the use of others.
                self._faults[name] = f"{type(error).__name__}: {error}"
                continue
            if one.packages[0] != "editkit":
                method.package = one.packages[0]
            self._open[name] = method

    def __iter__(self) -> Iterator[EditMethod]:
        return iter(self._open.values())

    def reload(self) -> None:
        """Reads from the store what the model has learned, and patches the engine."""
        for method in self:
            method.reload()
            self._engine.patch(method.name, method.patch)

    def get(self, name: str) -> EditMethod | None:
        """Returns a method, supported by the model or not; None if it is not available."""
        return self._open.get(name)

    def of(self, name: str) -> EditMethod:
        """Returns a method to learn with.

        Raises:
            UnsupportedMethod: There is no such method, or it cannot be used.
            UnsupportedModel: The method does not support this model.
        """
        found = self._open.get(name)
        if found is None:
            try:
                find_method(name)
            except UnsupportedMethod as error:
                package = self._store.artifacts.package_of(name)
                if name not in registered() and package is not None:
                    error.hint = f"install '{package}', the package that the history records"
                raise
            raise UnsupportedMethod(
                f"the method '{name}' cannot be opened on this model: {self._faults[name]}"
            )
        found.check()
        return found

    def encode(self, request: EditRequest) -> Encoded:
        """Returns a request as tokens; raises if it cannot be learned on this model.

        Raises:
            UnsupportedMethod: There is no such method, or it does not support this kind of edit.
            UnsupportedModel: The method does not support this model.
            InvalidRequest, EmptyTarget, PromptTooLong: See ``TokenEncoder``.
        """
        self.of(request.method)
        return self._engine.encoder.request(request)

    def refused(self, edit: Edit, reason: str) -> Artifact:
        """Returns the artifact of an edit that could not be tried on this model."""
        return Artifact(
            edit_id=edit.id,
            fingerprint=self._engine.fingerprint,
            model=self._engine.name,
            method=edit.method,
            verified=False,
            usable=False,
            metrics={"reason": reason},
        )


def _split_settings(
    settings: Mapping[str, Any], arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Returns settings by method, and the separate arguments of each method."""
    found = {name: one for name, one in settings.items() if one is not None}
    own: dict[str, dict[str, Any]] = {}
    owners = {
        argument: one.name
        for one in registered().values()
        if one.spec is not None
        for argument in one.spec.arguments
    }
    for name, one in arguments.items():
        if name in owners:
            own.setdefault(owners[name], {})[name] = one
        elif name not in registered():
            raise TypeError(f"editkit.open() got an unexpected keyword argument '{name}'")
        elif name in found:
            raise ValueError(f"the settings of '{name}' were given twice")
        elif one is not None:
            found[name] = one
    for name in found:
        find_method(name)
    return found, own
