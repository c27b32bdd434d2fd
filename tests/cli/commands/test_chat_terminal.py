"""chat in a terminal: line editing, a paste, Ctrl-C and Ctrl-D, and text that cannot drive it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

SECONDS = 60  # until the test gives up on a process that does not answer
PASTES = re.compile(r"\x1b\[\?2004[hl]")  # readline switches bracketed paste on and off


class Terminal:
    """`editkit chat` on a terminal of its own, and what it has drawn since one last looked."""

    def __init__(self, *args: str) -> None:
        self._ours, theirs = pty.openpty()
        self.child = subprocess.Popen(
            [sys.executable, "-m", "editkit_cli", "chat", "--max-new-tokens", "4", *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "1", "INPUTRC": os.devnull},
            preexec_fn=_take_terminal,
        )
        os.close(theirs)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def shows(self, expected: str) -> str:
        """What is drawn, once that has been and it waits for a line again.

        A prompt alone is no sign of it: readline draws one again whenever it redraws its line.
        """
        seen, end = b"", time.monotonic() + SECONDS
        while time.monotonic() < end:
            if select.select([self._ours], [], [], 0.1)[0]:
                seen += os.read(self._ours, 4096)
            text = PASTES.sub("", seen.decode(errors="replace")).replace("\r", "")
            if text.endswith("\n> ") and re.search(expected, text, re.MULTILINE):
                return text
        raise AssertionError(f"{expected!r} was not drawn, but {seen!r}")

    def interrupt(self, written: str) -> None:
        """Presses Ctrl-C behind some words, once they are drawn and it waits for more.

        Between drawing its prompt and waiting, Python does not notice the signal before another key
        is pressed.
        """
        self.type(written)
        seen, end = b"", time.monotonic() + SECONDS
        while written.encode() not in seen and time.monotonic() < end:
            if select.select([self._ours], [], [], 0.1)[0]:
                seen += os.read(self._ours, 4096)
        time.sleep(0.3)
        self.type("\x03")

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self._ours)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C then reaches the process as a signal
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which tests in the background ignore


@pytest.fixture
def terminal(sh, tiny_model, monkeypatch, folder) -> Iterator[Terminal]:
    monkeypatch.setenv("EDITKIT_MODEL", tiny_model)
    asked = ("--chat", "--prompt", "Where \x1b[2J is Oslo?", "--target", "sun")
    assert sh("add", *asked).code == 0
    opened = Terminal()
    yield opened
    opened.close()


def test_a_conversation_in_a_terminal(terminal: Terminal) -> None:
    terminal.shows(r"of 'history.db', 1 active edit; /help lists the commands, Ctrl-D leaves$")

    terminal.type("Where is Oslo?\r")
    terminal.shows(r"^sun\n\(v1, edit [0-9a-f]{12} fired\)$")

    terminal.type("/why\r")
    why = terminal.shows("fires: the prompt is")
    assert "Where \ufffd[2J is Oslo?" in why
    assert "\x1b[2J" not in why

    terminal.interrupt("half a line")  # which is thrown away
    terminal.shows(r"\(Ctrl-D leaves\)")

    terminal.type("\x1b[200~one line\nWhere is Oslo?\x1b[201~\r")  # a paste is one message
    assert terminal.shows(r"^sun\n\(v1").count("sun\n") == 1

    terminal.type("\x1b[A\x1b[A\r")  # two lines back
    terminal.shows("fires: the prompt is")

    terminal.type("/log\r")
    assert "\x1b[2J" not in terminal.shows("the model without edits")

    terminal.type("\x04")
    assert terminal.child.wait(timeout=SECONDS) == 0
