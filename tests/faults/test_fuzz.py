"""What anybody may hand in: lines of edits, version expressions, bundles. Refused, or right."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import append
from faults.harness import Figures, size
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from editkit.editing.files import read_requests
from editkit_store import Store, digest_bytes, open_store
from editkit_store.digest import canonical_json, digest_json
from editkit_store.errors import EditkitError
from editkit_store.history.versions import parse_version
from editkit_store.records import Artifact, EditRequest

DEEP = 100_000
"""Levels of nesting; Python's JSON gives up long before."""

TEXT = st.text(max_size=12) | st.text(
    st.characters(categories=["Cs", "Cc", "Nd", "Zs", "Lo"]) | st.sampled_from("@~-v0123456789/._"),
    max_size=8,
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def often(short: int, long: int) -> Any:
    """Settings of a fuzz test; short runs are the same every time."""
    count = size(short, long)
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=count == short,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


@pytest.fixture(scope="module")
def kept() -> Iterator[Store]:
    """A history with some of everything; tests may add to it."""
    with open_store(":memory:", write=True, create=True) as store:
        fill(store)
        yield store


def fill(store: Store) -> None:
    first = append(store, "a", "1", author="ada")
    append(store, "a", "2", rephrases=("b",), idempotency_key="k")
    append(store, "c", "3", chat=({"role": "user", "content": "c"},))
    append(store, "d", "4", activate=False)
    store.tag("v1", "prod")
    data = b"elsewhere"
    one = Artifact(
        edit_id=first.id, fingerprint="sha256:other", model="other", method="grace",
        verified=True, usable=True, digest=digest_bytes(data), metrics={"margin": 0.5},
        conflicts={}, radius=0.25,
    )  # fmt: skip
    store.put_artifacts([(one, data)])
    store.rollback("v1")
    store.undo()


# Lines of edits ------------------------------------------------------------------------------


def read(path: Path, data: bytes, store: Store, figures: Figures) -> None:
    """Reads a file of edits, and stores what was read."""
    path.write_bytes(data)
    try:
        found = [request for _, request in read_requests(path)]
    except EditkitError:
        figures.add("lines of edits", "refused")
        return
    for request in found:
        try:
            store_request(store, request)
            figures.add("lines of edits", "read and stored")
        except EditkitError:
            figures.add("lines of edits", "read, and refused by the store")
    if not found:
        figures.add("lines of edits", "nothing in them")


def store_request(store: Store, request: EditRequest) -> None:
    fields = {name: getattr(request, name) for name in EditRequest.model_fields}
    edit = append(store, fields.pop("prompt"), fields.pop("target"), **fields)
    assert store.show(edit.id).edit == edit


@often(150, 10_000)
@given(data=st.binary(max_size=60))
@example(data=b"\xef\xbb\xbf{}")
@example(data=b'{"prompt": "a", "target": "\\ud800"}')
@example(data=b'{"prompt": "a", "target": 1e999}')
def test_any_bytes_are_edits_or_refused(
    data: bytes, tmp_path: Path, kept: Store, figures: Figures
) -> None:
    read(tmp_path / "edits.jsonl", data, kept, figures)


@pytest.mark.parametrize("opening", ["[", '{"prompt":'])
def test_a_line_nested_too_deeply_is_refused(
    opening: str, tmp_path: Path, kept: Store, figures: Figures
) -> None:
    read(tmp_path / "edits.jsonl", opening.encode() * DEEP, kept, figures)


FIELDS = st.sampled_from([*EditRequest.model_fields, "id", "locality_prompt", "ground_truth", "x"])


@often(50, 2_000)
@given(
    fields=st.dictionaries(FIELDS, VALUES, max_size=4),
    prompt=TEXT,
    target=TEXT,
)
def test_any_object_is_an_edit_or_refused(
    fields: dict[str, Any], prompt: str, target: str, tmp_path: Path, kept: Store, figures: Figures
) -> None:
    line = json.dumps({"prompt": prompt, "target": target, **fields})
    read(tmp_path / "edits.jsonl", line.encode(), kept, figures)


@often(40, 500)
@given(name=st.sampled_from([*EditRequest.model_fields]), text=TEXT)
def test_any_text_in_any_field_is_an_edit_or_refused(
    name: str, text: str, tmp_path: Path, kept: Store, figures: Figures
) -> None:
    value: Any = text
    if name in ("rephrases", "locality"):
        value = [text]
    if name == "chat":
        value = [{"role": "user", "content": text}]
    line = json.dumps({"prompt": "a prompt", "target": "a target", name: value})
    read(tmp_path / "edits.jsonl", line.encode(), kept, figures)


# Names of versions and edits -----------------------------------------------------------------

NAMES = TEXT | st.builds(
    "{}{}{}".format,
    st.sampled_from(["@", "v", "V", "prod", "", "v1", "0", "٣"]),
    st.sampled_from(["", "-", "--", "~", "~~", "~-", "-" * 50]),
    st.integers() | st.just("") | st.just("9" * 400),
)


@often(400, 20_000)
@given(text=NAMES, current=st.integers(0, 50))
def test_any_text_names_a_version_of_the_history_or_is_refused(
    text: str, current: int, figures: Figures
) -> None:
    try:
        found = parse_version(text, current=current, tags={"prod": 0})
    except EditkitError:
        figures.add("version expressions", "refused")
        return
    assert 0 <= found <= current
    figures.add("version expressions", "name a version")


@often(30, 400)
@given(text=NAMES)
def test_any_text_where_a_name_is_wanted_is_taken_or_refused(
    text: str, kept: Store, figures: Figures
) -> None:
    for act in (kept.show, kept.rollback, kept.revert, lambda name: kept.tag("v1", name)):
        try:
            act(text)
            figures.add("names given to commands", "taken")
        except EditkitError:
            figures.add("names given to commands", "refused")


def test_the_history_is_whole_after_all_that(kept: Store) -> None:
    assert kept.verify().problems == ()


# Bundles -------------------------------------------------------------------------------------

LINES = ("edits.jsonl", "artifacts.jsonl", "operations.jsonl")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "bundle"
    with open_store(":memory:", write=True, create=True) as store:
        fill(store)
        store.undo()
        store.export(folder)
    return folder


def fresh_copy(exported: Path, tmp_path: Path) -> Path:
    """A bundle to alter, in place of the one that the example before has altered."""
    folder = tmp_path / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(exported, folder)
    return folder


def mutate(value: Any, data: st.DataObject) -> Any:
    """Changes something somewhere in a JSON value."""
    inside = isinstance(value, dict | list) and value and data.draw(st.integers(0, 4))
    if not inside:
        return data.draw(VALUES | st.sampled_from([0, -1, 2**63, 2**64, "", "v1", [], {}]))
    keys = sorted(value) if isinstance(value, dict) else list(range(len(value)))
    key = data.draw(st.sampled_from(keys))
    changed = dict(value) if isinstance(value, dict) else list(value)
    act = data.draw(st.sampled_from(["change", "change", "change", "remove", "add", "swap"]))
    if act == "change":
        changed[key] = mutate(changed[key], data)
    elif act == "remove":
        del changed[key]
    elif act == "swap":
        other = data.draw(st.sampled_from(keys))
        changed[key], changed[other] = changed[other], changed[key]
    elif isinstance(changed, dict):
        changed[data.draw(TEXT)] = data.draw(VALUES)
    else:
        changed.insert(key, changed[key])
    return changed


def written(value: Any) -> bytes:
    try:
        text = canonical_json(value)
    except ValueError:  # NaN, which an attacker may write all the same
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", errors="surrogatepass") + b"\n"


def chained(operations: list[Any]) -> str | None:
    """Makes altered operations a chain again, as somebody who means harm would."""
    parent: Any = None
    for one in operations:
        if isinstance(one, dict):
            one["parent_digest"] = parent
            body = {name: value for name, value in one.items() if name != "digest"}
            try:
                one["digest"] = parent = digest_json(body)
            except ValueError:
                return None
    return parent if isinstance(parent, str) else None


@often(20, 1_000)
@given(data=st.data())
def test_any_bundle_is_imported_whole_or_refused(
    data: st.DataObject, exported: Path, tmp_path: Path, figures: Figures
) -> None:
    folder = fresh_copy(exported, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    lines = {
        name: [json.loads(line) for line in (folder / name).read_bytes().splitlines()]
        for name in LINES
    }
    place = data.draw(st.sampled_from([*LINES, "manifest.json"]))
    if place != "manifest.json":
        lines[place] = mutate(lines[place], data)
        if not isinstance(lines[place], list):
            lines[place] = [lines[place]]
    if data.draw(st.booleans()):
        manifest["head"] = chained(lines["operations.jsonl"]) or manifest["head"]
        origins = {o["seq"]: o for o in lines["operations.jsonl"] if isinstance(o, dict) and
                   isinstance(o.get("seq"), int)}  # fmt: skip
        for edit in lines["edits.jsonl"]:
            origin = edit.get("operation") if isinstance(edit, dict) else None
            seq = origin.get("seq") if isinstance(origin, dict) else None
            if isinstance(seq, int) and seq in origins:
                origin["digest"] = origins[seq].get("digest")
    for name in LINES:
        content = b"".join(map(written, lines[name]))
        (folder / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][name] = {"bytes": len(content), "sha256": digest}
        manifest["counts"][name.removesuffix(".jsonl")] = len(lines[name])
    if place == "manifest.json":
        manifest = mutate(manifest, data)
    (folder / "manifest.json").write_bytes(written(manifest))
    with open_store(":memory:", write=True, create=True) as store:
        try:
            store.import_bundle(
                folder, on_conflict=data.draw(st.sampled_from(["keep", "supersede"]))
            )
        except EditkitError:
            assert store.history.count() == 0
            assert store._db.query("SELECT count(*) FROM payloads") == [(0,)]
            figures.add("altered bundles", "refused")
            return
        assert store.verify().problems == ()
        look(store)
        # What came in goes out again, and in again.
        shutil.rmtree(tmp_path / "again", ignore_errors=True)
        done = store.export(tmp_path / "again")
        with open_store(":memory:", write=True, create=True) as other:
            assert len(other.import_bundle(tmp_path / "again").edits) == done.edits
    figures.add("altered bundles", "imported, and whole")


def look(store: Store) -> None:
    store.log()
    store.status()
    for version in range(store.history.current() + 1):
        store.show(f"v{version}").model_dump_json()
    for fingerprint in store.artifacts.counts():
        list(store.artifacts.usable(fingerprint, method="grace"))
    for view in ("active_edits", "edit_history", "operation_log", "codebook_rows"):
        store._db.query(f"FROM {view}")


@often(20, 1_000)
@given(data=st.data())
def test_any_bytes_in_a_bundle_are_refused_or_without_effect(
    data: st.DataObject, exported: Path, tmp_path: Path, figures: Figures
) -> None:
    """Lines that are no JSON, in a bundle whose manifest vouches for them."""
    folder = fresh_copy(exported, tmp_path)
    name = data.draw(st.sampled_from([*LINES, "manifest.json"]))
    content = (folder / name).read_bytes()
    at = data.draw(st.integers(0, len(content)))
    length = data.draw(st.integers(0, 10))
    content = content[:at] + data.draw(st.binary(max_size=10)) + content[at + length :]
    (folder / name).write_bytes(content)
    if name != "manifest.json":
        manifest = json.loads((folder / "manifest.json").read_bytes())
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][name] = {"bytes": len(content), "sha256": digest}
        (folder / "manifest.json").write_bytes(written(manifest))
    with open_store(":memory:", write=True, create=True) as store:
        try:
            store.import_bundle(folder)
        except EditkitError:
            assert store.history.count() == 0
            figures.add("bundles with other bytes", "refused")
            return
        assert store.verify().problems == ()
        look(store)
    figures.add("bundles with other bytes", "imported, and whole")


@pytest.mark.parametrize("name", [*LINES, "manifest.json"])
def test_a_bundle_nested_too_deeply_is_refused(name: str, exported: Path, tmp_path: Path) -> None:
    folder = fresh_copy(exported, tmp_path)
    content = b'{"format":' * DEEP + b"\n"
    (folder / name).write_bytes(content)
    if name != "manifest.json":
        manifest = json.loads((folder / "manifest.json").read_bytes())
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][name] = {"bytes": len(content), "sha256": digest}
        (folder / "manifest.json").write_bytes(written(manifest))
    with open_store(":memory:", write=True, create=True) as store, pytest.raises(EditkitError):
        store.import_bundle(folder)
