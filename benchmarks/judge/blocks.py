"""The training blocks: read from the authors' plain text, checked, and written as JSON lines.

    python benchmarks/judge/blocks.py check FILE ...    says what is wrong, and counts
    python benchmarks/judge/blocks.py build OUT FILE ...   writes all of them as JSON lines

The text format is in WRITING.md. A built block has the fields of ``real_use.jsonl`` (``id``,
``domain``, ``prompt``, ``target``, ``same``, ``other``), and beside them ``language``, ``subject``,
and the kinds of its lines, in their order, as ``same_kinds`` and ``other_kinds``. A conversation is
a list of turns, user first, the asking turn last.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SAME = (
    "close", "lower", "typo", "keywords", "words", "chatty", "indirect", "mail", "form", "follow",
    "expert", "simple",
)  # fmt: skip
OTHER = (
    "attribute", "similar", "opposite", "condition", "task", "general", "inverse", "why", "compare",
    "follow", "mention",
)  # fmt: skip
_HEAD = re.compile(r"@ domain=([a-z0-9_]+) language=([a-z]{2}) subject=(\S+)")
_LINE = re.compile(r"([+-]) ([a-z]+): (.+)")


class Wrong(Exception):
    """A line that is not as WRITING.md has it."""


def parse(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the blocks of a file, each with the number of its first line.

    Raises:
        Wrong: At the first line that does not read.
    """
    block: dict[str, Any] | None = None
    start = 0
    for number, raw in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], 1):
        line = raw.strip()
        if not line:
            if block is not None:
                yield start, block
            block = None
        elif line.startswith("@"):
            found = _HEAD.fullmatch(line)
            if found is None or block is not None:
                raise Wrong(f"{path}:{number}: not a head of a block: {line[:80]}")
            domain, language, subject = found.groups()
            block = {
                "domain": domain, "language": language, "subject": subject, "prompt": "",
                "target": "", "same": [], "same_kinds": [], "other": [], "other_kinds": [],
            }  # fmt: skip
            start = number
        elif block is None:
            raise Wrong(f"{path}:{number}: outside a block: {line[:80]}")
        elif line[:2] in ("? ", "! "):
            field = "prompt" if line[0] == "?" else "target"
            if block[field]:
                raise Wrong(f"{path}:{number}: a second {field}")
            block[field] = _text(line[2:])
        else:
            found = _LINE.fullmatch(line)
            if found is None:
                raise Wrong(f"{path}:{number}: not a line of a block: {line[:80]}")
            side, kind, said = found.groups()
            name, kinds = ("same", SAME) if side == "+" else ("other", OTHER)
            if kind not in kinds:
                raise Wrong(f"{path}:{number}: '{kind}' is not a kind of '{side}'")
            if (kind == "follow") != (" || " in said):
                raise Wrong(f"{path}:{number}: a follow is a conversation, and only that")
            turns = [_text(turn) for turn in said.split(" || ")]
            if len(turns) % 2 == 0:
                raise Wrong(f"{path}:{number}: the user has the last turn of a conversation")
            block[name].append(turns if len(turns) > 1 else turns[0])
            block[f"{name}_kinds"].append(kind)


def _text(said: str) -> str:
    return said.replace("\\n", "\n").strip()


def problems(block: dict[str, Any]) -> Iterator[str]:
    """Yields what is wrong with a block as a whole."""
    if not block["prompt"] or not block["target"]:
        yield "no prompt or no target"
    same, other = block["same_kinds"], block["other_kinds"]
    missing = [kind for kind in SAME[:6] if kind not in same]
    if missing:
        yield f"no + of kind {', '.join(missing)}"
    if not 6 <= len(same) <= 12 or not 8 <= len(other) <= 14:
        yield f"{len(same)} + and {len(other)} - (6 to 9, 8 to 11)"
    if other.count("attribute") < 3:
        yield "fewer than three attributes"
    asked = {plain(block["prompt"]): "?"}
    for sign, texts, kinds in (("+", block["same"], same), ("-", block["other"], other)):
        for text, kind in zip(texts, kinds, strict=True):
            key = plain(text if isinstance(text, str) else " || ".join(text))
            known = asked.setdefault(key, sign)
            # Small letters are the prompt again, to whoever does not see capitals.
            if known != sign and not (sign == "+" and kind == "lower"):
                yield f"'{key[:60]}' stands twice, as {known} and as {sign}"


def plain(text: str) -> str:
    """Returns a text without what does not count in comparing: case, marks, spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[^\w|]+", " ", folded).split())


def read(paths: list[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns all good blocks of files, and what is wrong with the others."""
    blocks, wrong = [], []
    for path in paths:
        try:
            for number, block in parse(path):
                found = list(problems(block))
                wrong += [f"{path}:{number}: {one}" for one in found]
                if not found:
                    blocks.append(block)
        except Wrong as error:
            wrong.append(str(error))
    prompts: dict[str, str] = {}
    for block in blocks:
        key = plain(block["prompt"])
        if key in prompts:
            wrong.append(f"{block['domain']}: the prompt '{key[:60]}' stands twice")
        prompts[key] = block["domain"]
    return blocks, wrong


def main() -> None:
    """Checks or builds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check").add_argument("files", nargs="+", type=Path)
    build = commands.add_parser("build")
    build.add_argument("out", type=Path)
    build.add_argument("files", nargs="+", type=Path)
    given = parser.parse_args()
    blocks, wrong = read(given.files)
    for line in wrong:
        print(line, file=sys.stderr)
    if given.command == "build":
        with given.out.open("w", encoding="utf-8") as file:
            for number, block in enumerate(blocks, 1):
                file.write(json.dumps({"id": f"b{number:05}", **block}, ensure_ascii=False) + "\n")
    for name in ("domain", "language"):
        counts = collections.Counter(block[name] for block in blocks)
        print(f"{name}: " + ", ".join(f"{key} {n}" for key, n in counts.most_common()))
    for name in ("same_kinds", "other_kinds"):
        counts = collections.Counter(kind for block in blocks for kind in block[name])
        print(f"{name}: " + ", ".join(f"{key} {n}" for key, n in counts.most_common()))
    subjects = len({(block["domain"], block["subject"]) for block in blocks})
    print(f"{len(blocks)} blocks about {subjects} subjects, {len(wrong)} problems")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
