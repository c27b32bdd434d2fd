"""A cached model is loaded only as it was fetched."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from editkit.errors import ModelUnavailable
from editkit.models import cache, load_model, pull_model
from editkit.models.progress import SilentProgress


def put(source: Path) -> Path:
    """A folder's files in the cache, as if the hub had sent them."""
    with cache.staging("owner--tiny") as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        receipt = cache.Receipt(name="owner/tiny", source="hub", hub_id="owner/tiny")
        return cache.publish(folder, "owner--tiny", receipt)


@pytest.fixture
def cached(model_folder: Path) -> Path:
    return put(model_folder)


def digests(folder: Path) -> dict[str, str]:
    lines = (folder / cache.DIGESTS).read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(ModelUnavailable, match="is not what was fetched") as caught:
        load_model("owner/tiny", device="cpu")
    assert caught.value.reason == "checksum"
    assert "`editkit models pull owner/tiny`" in (caught.value.hint or "")
    assert str(folder) in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_cached_model_loads_as_it_was_fetched_and_every_digest_is_kept(cached):
    assert load_model("owner/tiny", device="cpu").path == cached
    files = {path.name for path in cached.iterdir()} - {cache.RECEIPT}
    assert set(json.loads((cached / cache.RECEIPT).read_text())["files"]) == files
    assert set(digests(cached)) == files - {cache.DIGESTS}
    assert digests(cached)["config.json"] == cache.sha256_of(cached / "config.json")


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
             "model.safetensors"],
)  # fmt: skip
def test_a_file_whose_bytes_changed_is_named_and_nothing_is_loaded(name, cached, monkeypatch):
    path = cached / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    monkeypatch.setattr("editkit.models.load._load", lambda *_: pytest.fail("loaded"))
    refused(cached, repr(name), "SHA-256")


@pytest.mark.parametrize(
    "name", ["modeling_x.py", "adapter_config.json", "added_tokens.json", "chat_template.jinja",
             "pytorch_model.bin", ".metadata"],
)  # fmt: skip
def test_a_file_that_nobody_fetched_is_named_and_nothing_is_loaded(name, cached):
    (cached / name).write_text("{}")
    refused(cached, repr(name), "did not come with it")


def test_a_folder_that_nobody_fetched_is_refused_too(cached):
    (cached / "additional_chat_templates").mkdir()
    refused(cached, "additional_chat_templates")


def test_a_missing_and_a_shorter_file_are_named(cached):
    (cached / "generation_config.json").unlink()
    refused(cached, "'generation_config.json' is missing")
    (cached / "generation_config.json").write_text("{")
    refused(cached, "'generation_config.json' has 1 bytes")


def test_a_link_in_place_of_a_file_is_refused_whatever_it_leads_to(cached, model_folder):
    (cached / "config.json").unlink()
    (cached / "config.json").symlink_to(model_folder / "config.json")
    refused(cached, "'config.json' is no plain file")


def test_a_pipe_in_place_of_a_file_or_receipt_makes_nobody_wait(cached):
    (cached / "config.json").unlink()
    os.mkfifo(cached / "config.json")
    refused(cached, "'config.json' is no plain file")
    (cached / cache.RECEIPT).unlink()
    os.mkfifo(cached / cache.RECEIPT)
    assert list(cache.cached_models()) == []


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "..", "", "sub/x"])
def test_a_receipt_that_names_files_elsewhere_reads_none_of_them(name, cached):
    receipt = json.loads((cached / cache.RECEIPT).read_text())
    receipt["files"][name] = 4
    (cached / cache.RECEIPT).write_text(json.dumps(receipt))
    refused(cached, repr(name))


def test_a_large_file_is_read_again_only_when_it_may_have_changed(
    model_folder, monkeypatch, progress
):
    monkeypatch.setattr(cache, "_LARGE", 10_000)
    folder = put(model_folder)
    assert cache.checked("owner--tiny", name="tiny", progress=progress)
    assert progress.stages == []  # publishing has read it already
    weights = folder / "model.safetensors"
    (folder.parent / "again").write_bytes(weights.read_bytes())
    (folder.parent / "again").replace(weights)
    for _ in range(2):
        assert cache.checked("owner--tiny", name="tiny", progress=progress)
    size = weights.stat().st_size
    assert progress.stages == [["Reading model.safetensors", size, "bytes", size]]


def test_a_pull_puts_back_what_was_fetched(cached, model_folder, monkeypatch):
    def fetch_snapshot(hub_id, into, **_):
        shutil.copytree(model_folder, into, dirs_exist_ok=True)
        return "0" * 40

    monkeypatch.setattr("editkit.models.fetch.fetch_snapshot", fetch_snapshot)
    (cached / "modeling_x.py").write_text("raise SystemExit")
    assert pull_model("owner/tiny").path == str(cached)
    assert not (cached / "modeling_x.py").exists()
    assert load_model("owner/tiny", device="cpu").path == cached


def make_old(folder: Path) -> None:
    """Take the digests away, as an earlier editkit left a copy."""
    path = folder / cache.RECEIPT
    receipt = json.loads(path.read_text())
    del receipt["files"][cache.DIGESTS]
    path.write_text(json.dumps(receipt))
    (folder / cache.DIGESTS).unlink()


def test_an_old_copy_gets_its_digests_at_the_first_load_and_they_hold_from_then_on(cached):
    make_old(cached)
    load_model("owner/tiny", device="cpu")
    assert "config.json" in digests(cached)
    text = (cached / "config.json").read_text()
    (cached / "config.json").write_text(text.replace('"hidden_size": 32', '"hidden_size": 31'))
    refused(cached, "'config.json'", "SHA-256")


def test_an_old_copy_takes_no_file_that_it_does_not_list(cached):
    make_old(cached)
    (cached / "modeling_x.py").write_text("")
    refused(cached, "'modeling_x.py'")


def test_an_old_copy_that_cannot_get_digests_serves_as_before(cached, monkeypatch):
    def refuse(*_):
        raise PermissionError("read-only")

    make_old(cached)
    monkeypatch.setattr(cache, "write_atomically", refuse)
    assert cache.checked("owner--tiny", name="tiny", progress=SilentProgress()) == cached


def test_what_a_killed_process_left_while_it_wrote_digests_stops_nobody(cached):
    make_old(cached)
    (cached / f".{cache.RECEIPT}.abc").write_text("{")
    (cached / f".{cache.DIGESTS}.abc").write_text("0")
    (cached / cache.DIGESTS).write_text("half")
    assert load_model("owner/tiny", device="cpu").path == cached
    assert "config.json" in digests(cached)


def test_digests_that_were_removed_or_emptied_are_missed(cached):
    size = (cached / cache.DIGESTS).stat().st_size
    (cached / cache.DIGESTS).write_bytes(bytes(size))
    refused(cached, "has another SHA-256")
    (cached / cache.DIGESTS).unlink()
    refused(cached, repr(cache.DIGESTS), "is missing")


def test_an_editkit_that_knows_no_digests_still_finds_the_copy(cached):
    receipt = json.loads((cached / cache.RECEIPT).read_text())
    assert set(receipt) == {
        "name", "source", "hub_id", "revision", "packages", "sha256", "created", "made_by", "files",
    }  # fmt: skip
    assert all((cached / name).stat().st_size == size for name, size in receipt["files"].items())
