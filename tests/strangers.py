"""Packages that register editing methods, as installers leave them.

``Strangers`` writes a distribution into a folder of ``sys.path``: a module, and the metadata that
names it as an entry point. Taking it out again is what uninstalling it does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from editkit.methods.registry import registered

PARROT = '''
"""A method that claims whatever it is asked for, and changes nothing."""

from editkit.engines.base import Generated, Part, Selection
from editkit.methods.base import EditMethod, Lesson
from editkit.methods.spec import MethodSpec

SPEC = MethodSpec(name="parrot", about="Says so", method=f"{__name__}:ParrotMethod")


class ParrotPart(Part):
    method = "parrot"
    is_comparable = False

    def __init__(self, edit_ids):
        self.ids = tuple(edit_ids)

    def __len__(self):
        return len(self.ids)

    def select(self, queries):
        return Selection([-1] * len(queries))

    def near(self, query, k):
        return []

    def edit_id(self, number):
        return self.ids[number]

    def number(self, edit_id):
        return self.ids.index(edit_id) if edit_id in self.ids else -1

    def firing(self, numbers):
        return Selection(numbers)

    def without(self, edit_ids):
        return ParrotPart(one for one in self.ids if one not in edit_ids)


class ParrotMethod(EditMethod):
    name = "parrot"

    def reload(self):
        rows = self.store.artifacts.usable(self.engine.fingerprint, method=self.name)
        self.known = {edit_id: data for part in rows for _, edit_id, _, data in part}

    def __contains__(self, edit_id):
        return edit_id in self.known

    def part(self, edit_ids, version):
        known = [one for one in edit_ids if one in self.known]
        return (ParrotPart(known) if known else None), []

    @property
    def keys(self):
        return self.engine.pooled

    def query(self, prompt):
        import torch

        return torch.from_numpy(self.engine.pooled.key(prompt).copy())

    def learn(self, edits, *, version, met=None):
        if any(edit.target == "raise" for edit, _ in edits):
            raise RuntimeError("the parrot is dead")
        return [Lesson(encoded, 0.0, 0) for _, encoded in edits]

    def joined(self, part, edit, lesson):
        self.known[edit.id] = self.to_bytes(edit, lesson)
        return ParrotPart([*(part.ids if part else ()), edit.id])

    def forget(self, edit_id):
        self.known.pop(edit_id, None)

    def to_bytes(self, edit, lesson):
        return edit.target.encode()

    def verify(self, lessons, *views):
        return [Generated(one.encoded.text, 1, True, None, "v0") for one in lessons]
'''


class Strangers:
    """Installs packages for one test.

    Args:
        folder: Where to; it is put on ``sys.path``.
        monkeypatch: Takes it out of there again.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        folder.mkdir()
        monkeypatch.syspath_prepend(folder)

    def install(
        self,
        package: str,
        code: str = PARROT,
        *,
        name: str = "parrot",
        attribute: str = "SPEC",
    ) -> None:
        """Installs a package of one module that registers a method.

        Args:
            package: The name of the distribution.
            code: Its module.
            name: The name that the method is registered by.
            attribute: The object of the module that is registered.
        """
        module = package.replace("-", "_")
        (self._folder / f"{module}.py").write_text(code, encoding="utf-8")
        metadata = self._folder / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8"
        )
        (metadata / "entry_points.txt").write_text(
            f"[editkit.methods]\n{name} = {module}:{attribute}\n", encoding="utf-8"
        )
        self.look_again()

    def uninstall(self, package: str) -> None:
        """Takes a package out again."""
        module = package.replace("-", "_")
        (self._folder / f"{module}.py").unlink()
        metadata = self._folder / f"{module}-1.0.dist-info"
        for file in metadata.iterdir():
            file.unlink()
        metadata.rmdir()
        sys.modules.pop(module, None)
        self.look_again()

    def close(self) -> None:
        """Takes all packages out."""
        for metadata in list(self._folder.glob("*.dist-info")):
            self.uninstall(metadata.name.removesuffix("-1.0.dist-info"))

    def look_again(self) -> None:
        """Forgets which methods there are, as a new process would."""
        import importlib

        importlib.invalidate_caches()
        registered.cache_clear()
