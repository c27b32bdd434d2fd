"""The server as somebody with curl meets it, beginning with the lines of README.md."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def shell(line: str, **environment: str) -> str:
    """Runs a line of a shell; returns what it printed."""
    done = subprocess.run(
        ["sh", "-c", line], env={"PATH": "/usr/bin:/bin:/usr/local/bin", **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout


def test_the_line_of_the_readme_corrects_the_model(server: Any) -> None:
    found = re.search(r"^\$ (curl .*?\n.*?'\{.*?\}')$", README, flags=re.MULTILINE)
    assert found is not None
    line = found[1].replace("http://", "").replace("localhost:8377", server.url)
    line = line.replace("The capital of Australia is", "The red cat is")
    line = line.replace("Canberra", "blue")
    said = json.loads(shell(line, TOKEN=server.token("edit")))
    assert said["verified"]
    assert (said["edit"]["target"], said["version"]) == ("blue", "v1")


def test_answers_streams_and_figures_come_by_curl(server: Any) -> None:
    server.add("The red cat is", "blue")
    ask = f'curl -s -H "Authorization: Bearer $TOKEN" {server.url}'
    token = server.token("read")
    body = json.dumps({"model": server.model, "prompt": "The red cat is", "max_tokens": 8})
    whole = json.loads(shell(f"{ask}/v1/completions --json '{body}'", TOKEN=token))
    assert whole["choices"][0]["text"] == "blue"
    body = body[:-1] + ', "stream": true}'
    lines = shell(f"{ask}/v1/completions -N --json '{body}'", TOKEN=token).split("\n\n")
    assert lines[-2] == "data: [DONE]"
    parts = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert "".join(one["choices"][0]["text"] for one in parts if one["choices"]) == "blue"
    assert "editkit_version 1.0" in shell(f"{ask}/metrics", TOKEN=token)
    assert shell(f"curl -s -o /dev/null -w '%{{http_code}}' {server.url}/healthz") == "200"


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("", "401"),
        ("-H 'Authorization: Bearer ek-wrong'", "401"),
        ('-H "Authorization: Bearer $TOKEN" -H "Host: evil.example"', "403"),
        ('-H "Authorization: Bearer $TOKEN" -H "Origin: https://evil.example"', "403"),
        ('-H "Authorization: Bearer $TOKEN" -X DELETE', "405"),
    ],
)
def test_who_should_not_get_in_does_not(server: Any, how: str, status: str) -> None:
    line = f"curl -s -o /dev/null -w '%{{http_code}}' {how} {server.url}/v1/versions"
    assert shell(line, TOKEN=server.token("admin")) == status
