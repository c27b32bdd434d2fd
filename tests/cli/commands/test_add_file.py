"""add --from: a file of edits, line by line, resumable."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

LINES = [("The sky is", "blue"), ("Grass is", "green"), ("Snow is", "white")]


def write(path: Path, *lines: tuple[str, str] | str) -> str:
    texts = [
        line if isinstance(line, str) else json.dumps({"prompt": line[0], "target": line[1]})
        for line in lines
    ]
    path.write_text("".join(f"{text}\n" for text in texts))
    return str(path)


@pytest.fixture
def model(tiny_model, monkeypatch, folder) -> str:
    """The tiny model, as the environment's choice."""
    monkeypatch.setenv("EDITKIT_MODEL", tiny_model)
    return tiny_model


def test_every_line_becomes_an_operation_of_its_own(sh, model, folder):
    ran = sh("add", "--from", write(folder / "edits.jsonl", *LINES), "--json", "--author", "bob")
    assert ran.code == 0, ran.stderr
    assert [added["version"] for added in ran.json] == ["v1", "v2", "v3"]
    assert [added["edit"]["target"] for added in ran.json] == ["blue", "green", "white"]
    assert ran.stderr == "3 verified, 0 not verified, 0 skipped (already in the history)\n"
    assert {entry["author"] for entry in sh("log", "--json").json} == {"bob"}


def test_the_same_command_again_skips_what_is_done(sh, model, folder):
    edits = write(folder / "edits.jsonl", *LINES[:2])
    assert sh("add", "--from", edits).code == 0
    write(folder / "edits.jsonl", *LINES)
    ran = sh("add", "--from", edits, "--json", "--reason", "another")
    assert ran.code == 0
    assert [added["edit"]["target"] for added in ran.json] == ["white"]
    assert ran.stderr == "1 verified, 0 not verified, 2 skipped (already in the history)\n"
    assert sh("status", "--json").json["version"] == "v3"


def test_people_get_a_line_an_edit(sh, model, folder):
    ran = sh("add", "--from", write(folder / "edits.jsonl", *LINES))
    first, *rest = ran.stdout.splitlines()
    assert len(rest) == 2
    assert first.startswith("v1 ")
    assert "verified" in first
    assert first.endswith("The sky is → blue")


def test_edits_may_come_from_standard_input(sh, model):
    ran = sh("add", "--from", "-", "--nl", stdin='{"prompt": "The sky is", "target": "blue"}\n\n')
    assert ran.code == 0, ran.stderr
    assert [added["edit"]["prompt"] for added in ran.lines] == ["The sky is"]


@pytest.mark.parametrize(
    "bad",
    [
        '{"prompt": "Gr',
        '["a list"]',
        '{"prompt": "Grass is"}',
        '{"prompt": "", "target": "x"}',
        '{"prompt": "Grass is", "target": "green", "colour": "green"}',
    ],
)
def test_a_malformed_line_stops_with_its_number_after_the_lines_before_it(sh, model, folder, bad):
    edits = write(folder / "edits.jsonl", LINES[0], "", bad, LINES[2])
    ran = sh("add", "--from", edits, "--json")
    assert ran.code == 1
    assert [added["edit"]["target"] for added in ran.json] == ["blue"]
    summary, error, hint = ran.stderr.splitlines()
    assert summary.startswith("1 verified")
    assert error.startswith("error: ")
    assert "line 3" in error
    assert "again" in hint
    assert sh("status", "--json").json["edits"] == 1


def test_after_the_line_is_mended_the_run_goes_on(sh, model, folder):
    edits = write(folder / "edits.jsonl", LINES[0], "nonsense", LINES[2])
    assert sh("add", "--from", edits).code == 1
    write(folder / "edits.jsonl", *LINES)
    ran = sh("add", "--from", edits, "--nl")
    assert ran.code == 0
    assert [added["edit"]["target"] for added in ran.lines] == ["green", "white"]
    assert "1 skipped" in ran.stderr


def test_a_line_that_this_model_cannot_take_is_named_too(sh, model, folder):
    edits = write(folder / "edits.jsonl", LINES[0], ("x" * 400, "y"))
    ran = sh("add", "--from", edits, "--json")
    assert ran.code == 1
    assert len(ran.json) == 1
    assert "line 2" in ran.stderr


def test_a_malformed_first_line_is_seen_before_a_model_is_loaded(sh, folder):
    edits = write(folder / "edits.jsonl", "nonsense")
    ran = sh("add", "--from", edits, "--model", "no-such-model-at-all")
    assert ran.code == 1
    assert "line 1" in ran.stderr
    assert not (folder / "history.db").exists()


def test_a_line_that_is_not_utf8_is_malformed(sh, folder):
    (folder / "edits.jsonl").write_bytes(b'{"prompt": "\xe9t\xe9", "target": "x"}\n')
    ran = sh("add", "--from", "edits.jsonl")
    assert ran.code == 1
    assert "line 1" in ran.stderr


def test_an_empty_file_is_worth_a_warning(sh, folder):
    (folder / "edits.jsonl").write_text("\n")
    ran = sh("add", "--from", "edits.jsonl", "--json")
    assert (ran.code, ran.json) == (0, [])
    assert "warning: there are no edits in 'edits.jsonl'" in ran.stderr


def test_one_edit_that_does_not_verify_makes_the_whole_run_exit_with_3(
    sh, model, folder, monkeypatch
):
    from editkit.kit import Kit

    usual = Kit.add_many

    def second_fails(self, requests, *, told, **how):
        def tell(added):
            failed = added.model_copy(update={"verified": False, "answer": "grey"})
            told(failed if added.edit.target == "green" else added)

        return usual(self, requests, told=tell, **how)

    monkeypatch.setattr(Kit, "add_many", second_fails)
    ran = sh("add", "--from", write(folder / "edits.jsonl", *LINES))
    assert ran.code == 3
    assert "FAILED" in ran.stdout.splitlines()[1]
    assert ran.stdout.splitlines()[1].endswith("green, not 'grey'")
    assert ran.stderr.startswith("2 verified, 1 not verified, 0 skipped")


def test_ctrl_c_keeps_what_is_done_and_the_run_can_go_on(sh, model, folder):
    many = [(f"Number {n} is", f"no. {n}") for n in range(200)]
    edits = write(folder / "edits.jsonl", *many)
    with subprocess.Popen(
        [sys.executable, "-m", "editkit_cli", "add", "--from", edits, "--nl"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run that was started in the background hands down an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as running:
        assert running.stdout is not None
        first = running.stdout.readline()
        running.send_signal(signal.SIGINT)
        stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    assert "Traceback" not in stderr
    shown = [json.loads(line) for line in [first, *stdout.splitlines()]]
    assert 1 <= len(shown) < 200
    assert "interrupted: " in stderr
    assert f"editkit add --from {edits} --nl" in stderr
    entries = sh("log", "--json").json
    assert len(shown) <= len(entries) <= len(shown) + 1
    write(folder / "edits.jsonl", *many[: len(entries) + 1])
    ran = sh("add", "--from", edits, "--nl")
    assert len(ran.lines) == len(entries) + 1 - sum(e["status"] == "active" for e in entries)


def test_a_pipe_is_read_once_and_whole(sh, model, folder):
    os.mkfifo(folder / "pipe")
    text = "".join(f"{json.dumps({'prompt': p, 'target': t})}\n" for p, t in LINES)

    def feed():
        with open(folder / "pipe", "w") as pipe:
            for line in text.splitlines(keepends=True):
                pipe.write(line)
                pipe.flush()
                time.sleep(0.05)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    ran = sh("add", "--from", str(folder / "pipe"), "--json")
    feeder.join(timeout=60)  # with a command that never opens the pipe it would wait for ever
    assert ran.code == 0, ran.stderr
    assert [added["edit"]["target"] for added in ran.json] == ["blue", "green", "white"]


def test_a_line_that_comes_back_after_another_answer_counts_again(sh, model, folder):
    lines = [("The sky is", "blue"), ("The sky is", "green"), ("The sky is", "blue")]
    edits = write(folder / "edits.jsonl", *lines)
    assert sh("add", "--from", edits).code == 0
    assert sh("generate", "The sky is", "--json").json["text"] == "blue"
    ran = sh("add", "--from", edits)
    assert ran.stderr == "0 verified, 0 not verified, 3 skipped (already in the history)\n"
    assert sh("status", "--json").json["version"] == "v3"


def test_a_file_that_begins_with_a_byte_order_mark_is_read(sh, model, folder):
    (folder / "edits.jsonl").write_bytes(
        b'\xef\xbb\xbf{"prompt": "The sky is", "target": "blue"}\n'
    )
    assert sh("add", "--from", "edits.jsonl").code == 0


def test_an_array_and_a_table_are_resumed_as_lines_are(sh, model, folder):
    edits = [{"prompt": prompt, "target": target} for prompt, target in LINES]
    (folder / "edits.json").write_text(json.dumps(edits[:2], indent=2), "utf-16")
    rows = "".join(f"{prompt};{target}\r\n" for prompt, target in LINES)
    (folder / "edits.csv").write_text(f"Prompt;Target\r\n{rows}", "utf-8-sig")
    assert sh("add", "--from", "edits.json").code == 0
    ran = sh("add", "--from", "edits.csv", "--nl")
    assert ran.code == 0, ran.stderr
    assert [added["edit"]["target"] for added in ran.lines] == ["white"]
    assert "2 skipped" in ran.stderr


def test_a_line_for_another_kind_of_model_is_named_and_those_before_it_are_done(sh, model, folder):
    bad = '{"prompt": "a", "target": "blue", "kind": "label"}'
    ran = sh("add", "--from", write(folder / "edits.jsonl", LINES[0], bad, LINES[1]), "--json")
    assert ran.code == 1
    assert "line 2 of " in ran.stderr
    assert "has no labels" in ran.stderr
    assert [added["edit"]["target"] for added in ran.json] == ["blue"]
