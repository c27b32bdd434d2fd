from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from editkit.models import cache
from editkit.models.progress import SilentProgress


def put(name: str, text: str = "{}") -> Path:
    with cache.staging(name) as folder:
        (folder / "config.json").write_text(text)
        return cache.publish(folder, name, cache.Receipt(name=name, source="hub"))


def test_editkit_home_decides_where_the_cache_lies(home):
    assert cache.cache_root() == home


def test_without_editkit_home_the_users_cache_folder_is_used(monkeypatch, tmp_path):
    monkeypatch.delenv("EDITKIT_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "editkit" in cache.cache_root().parts


def test_a_published_folder_is_cached_and_its_receipt_lists_its_files():
    folder = put("tiny")
    assert cache.cached_folder("tiny") == folder
    [(found, receipt)] = cache.cached_models()
    assert found == folder
    assert set(receipt.files) == {"config.json", cache.DIGESTS}
    assert receipt.files["config.json"] == 2


@pytest.mark.skipif(os.name == "nt", reason="permission bits")
def test_a_published_folder_can_be_read_by_other_users():
    assert put("tiny").stat().st_mode & 0o777 == 0o755


def test_a_folder_that_lost_bytes_does_not_count_as_cached():
    folder = put("tiny", "{'long': 'enough'}")
    (folder / "config.json").write_text("{")
    assert cache.cached_folder("tiny") is None


@pytest.mark.parametrize("text", ["", "{", '{"name": "x", "source": "moon"}', '{"later": 1}'])
def test_a_receipt_that_does_not_parse_means_not_cached(text):
    folder = put("tiny")
    (folder / cache.RECEIPT).write_text(text)
    assert cache.cached_folder("tiny") is None


def test_publishing_replaces_a_damaged_copy_and_leaves_nothing_behind(home):
    (put("tiny") / "config.json").unlink()
    folder = put("tiny", "[1]")
    assert (folder / "config.json").read_text() == "[1]"
    assert [path.name for path in (home / "models").iterdir()] == ["tiny"]


def abandon(name: str, error: BaseException) -> None:
    with cache.staging(name) as folder:
        (folder / "half").write_text("x")
        raise error


def test_a_failed_build_leaves_nothing_behind(home):
    with pytest.raises(KeyboardInterrupt):
        abandon("tiny", KeyboardInterrupt())
    assert list((home / "models").iterdir()) == []


def test_the_next_build_clears_what_a_killed_process_left(home):
    left = home / "models" / ".tiny.building-abc"
    other = home / "models" / ".tiny-2.building-abc"
    left.mkdir(parents=True)
    other.mkdir()
    put("tiny")
    assert not left.exists()
    assert other.exists()


def test_only_one_of_two_builders_works_and_the_other_is_told_to_wait(progress):
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with cache.locked("tiny", SilentProgress()):
            inside.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(10)
    threading.Timer(0.2, leave.set).start()
    with cache.locked("tiny", progress):
        assert leave.is_set()
    holder.join()
    assert [stage[0] for stage in progress.stages] == [
        "Waiting for another process that is fetching tiny"
    ]


def test_a_lock_whose_holder_died_blocks_nobody(home):
    script = (
        "import os; from editkit.models import cache; from editkit.models.progress import *\n"
        "with cache.locked('tiny', SilentProgress()): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script], env=dict(os.environ)).returncode == 9
    with cache.locked("tiny", SilentProgress()):
        pass


def test_writing_atomically_replaces_the_text_and_leaves_no_other_file(tmp_path):
    target = tmp_path / "sub" / "file"
    cache.write_atomically(target, "one")
    cache.write_atomically(target, "two")
    assert target.read_text() == "two"
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_atomic_write_leaves_the_old_text(tmp_path):
    target = tmp_path / "file"
    cache.write_atomically(target, "one")
    with pytest.raises(UnicodeEncodeError):
        cache.write_atomically(target, "\ud800")
    assert target.read_text() == "one"
    assert list(tmp_path.glob(".file*")) == []


@pytest.fixture
def steps(monkeypatch):
    """What is synced and renamed, in this order, by the names of files."""
    seen = []
    fsync, replace = os.fsync, os.replace

    def synced(handle):
        seen.append(("sync", Path(os.readlink(f"/proc/self/fd/{handle}")).name))
        fsync(handle)

    def renamed(source, target, **how):
        seen.append(("rename", Path(target).name))
        replace(source, target, **how)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    return seen


linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files")


@linux
def test_a_model_is_on_the_disk_before_its_receipt_and_its_receipt_before_its_name(steps):
    put("tiny")
    [staged] = {name for _, name in steps if name.startswith(".tiny.building-")}
    # The bytes of receipt and digests are synced under names of their own.
    known = [(step, name if name[0] != "." or name == staged else "…") for step, name in steps]
    assert known == [
        ("sync", "config.json"),
        ("sync", "…"), ("rename", cache.DIGESTS), ("sync", "…"), ("rename", cache.RECEIPT),
        ("sync", staged), ("rename", "tiny"), ("sync", "models"),
    ]  # fmt: skip
    steps.clear()
    put("tiny", "[]")
    assert steps[-2:] == [("rename", "tiny"), ("sync", "models")]


@linux
def test_a_remembered_digest_is_on_the_disk_before_it_has_its_name(steps):
    cache.remember("key", "sha256:00")
    assert [step for step, _ in steps] == ["sync", "rename"]


def test_a_file_key_follows_path_size_time_and_facts(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("a")
    two.write_text("a")
    keys = {cache.file_key([one]), cache.file_key([two]), cache.file_key([one], "fact")}
    assert cache.file_key([one, two]) == cache.file_key([two, one])
    os.utime(one, ns=(1, 1))
    keys.add(cache.file_key([one]))
    assert len(keys) == 4


def test_a_remembered_digest_is_recalled_and_an_unknown_key_gives_nothing():
    cache.remember("key", "sha256:00")
    assert cache.recall("key") == "sha256:00"
    assert cache.recall("other") is None


def test_a_cache_folder_that_cannot_be_written_only_forgets(monkeypatch, tmp_path):
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    monkeypatch.setenv("EDITKIT_HOME", str(blocked))
    cache.remember("key", "value")
    assert cache.recall("key") is None


@pytest.mark.parametrize(
    ("name", "folder"),
    [("gpt2", "gpt2"), ("owner/na.me", "owner--na.me"), ("../x", "--x"), ("a b", "a_b")],
)
def test_a_slug_is_a_plain_folder_name(name, folder):
    assert cache.slug(name) == folder
