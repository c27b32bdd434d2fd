"""Tables, widths, colours, and which stream a line goes to."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys

import pytest

from editkit_cli.terminal.output import Bar, Output, Silent
from editkit_cli.terminal.tables import Column, clean, fields, plain_table, shorten, visible
from editkit_store.errors import EditkitError

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_a_terminal(*args: str, width: int = 60, **env: str) -> str:
    """What a command draws on a terminal of that width."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "editkit_cli", *args],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": str(width), "TERM": "xterm", **env},
    )
    os.close(theirs)
    drawn = b""
    try:
        while chunk := os.read(ours, 4096):
            drawn += chunk
    except OSError:  # the terminal is gone: the child has ended
        pass
    os.close(ours)
    assert child.wait(timeout=30) == 0
    return drawn.decode()


def test_a_table_on_a_terminal_is_drawn_in_colour_and_fits(folder, fill):
    fill(folder / "history.db", [("a [bold] prompt " * 9, "blue")])
    drawn = in_a_terminal("log", NO_COLOR="")
    assert ESCAPE.search(drawn)
    plain = ESCAPE.sub("", drawn)
    assert max(len(line) for line in plain.splitlines()) <= 80
    assert "a [bold] p" in plain
    assert "…" in plain


def test_no_color_is_respected(history):
    drawn = in_a_terminal("log", NO_COLOR="1", width=100)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", drawn)
    assert "The sky is → blue" in drawn


def test_json_on_a_terminal_has_no_colour(history):
    assert "\x1b" not in in_a_terminal("log", "--json")


@pytest.mark.parametrize(
    ("text", "room", "short"),
    [
        ("four", 4, "four"),
        ("fourteen", 5, "four…"),
        ("two words", 5, "two…"),
        ("日本語です", 5, "日本…"),
        ("", 3, ""),
    ],
)
def test_shorten_counts_columns_not_characters(text, room, short):
    assert shorten(text, room) == short


def test_clean_leaves_one_line_without_control_characters():
    assert clean("a\n\tb\x1b[31mc\u202e") == "a b [31mc"


def test_visible_keeps_lines_and_disarms_escapes():
    assert visible("a\n\tb\x1b[2J") == "a\n\tb\ufffd[2J"


def test_pieces_and_status_cannot_drive_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("editkit_cli.terminal.output._is_terminal", lambda stream: True)
    Output().piece("a\x1b[2J")
    Output().piece("b\r\n")
    Output().status("did \x1b]0;title\x07 that")
    printed = capsys.readouterr()
    assert printed.out == "a\ufffd[2Jb\ufffd\n"
    assert printed.err == "did \ufffd]0;title\ufffd that\n"


def test_what_is_said_aside_goes_to_stderr(capsys):
    aside = Output(is_aside=True)
    aside.text("text")
    aside.table([Column("name")], [("cell",)])
    aside.fields(("key", "value"))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "text\nname\ncell\nkey  value\n"


def test_a_plain_table_drops_empty_columns_and_aligns_numbers():
    columns = [Column("name"), Column("none"), Column("count", right=True)]
    drawn = plain_table(columns, [("a", "", "1"), ("long", "", "12")], 80)
    assert drawn == "name  count\na         1\nlong     12"


def test_only_flexible_columns_give_way_and_the_widest_first():
    columns = [Column("edit"), Column("prompt", flexible=True), Column("target", flexible=True)]
    drawn = plain_table(columns, [("0123456789ab", "p" * 90, "t" * 20)], 60)
    row = drawn.splitlines()[1]
    assert len(row) == 60
    assert row.startswith("0123456789ab  ppp")
    assert row.endswith("t" * 20)


def test_fields_leave_out_what_has_no_value():
    assert fields([("a", "1"), ("bcd", ""), ("ef", "2")]) == "a   1\nef  2"


def test_an_error_is_one_line_and_its_hint_another(capsys):
    Output().error(EditkitError("first\nsecond", hint="do\nthis"))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "error: first second\nhint: do this\n"


def test_quiet_hides_status_but_not_warnings(capsys):
    out = Output(quiet=True)
    out.status("all is well")
    out.warning("take care")
    assert capsys.readouterr().err == "warning: take care\n"


def test_text_that_the_stream_cannot_encode_is_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    Output().text("été → thé")
    stream.flush()
    assert stream.buffer.getvalue() == b"\xe9t\xe9 \\u2192 th\xe9\n"


def test_progress_is_silent_where_nobody_can_see_it():
    assert isinstance(Output().progress(), Silent)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_tells_the_time_that_is_left_after_the_first_batch(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = Bar()
    bar.start("Learning edits", 192, "edits")
    assert bar._live is not None
    (task,) = bar._live.tasks
    assert task.time_remaining is None
    # Batches that are further apart than rich looks back by itself.
    bar._live.get_time = lambda: task._progress[-1].timestamp + 50.0
    bar.advance(64)
    assert task.time_remaining == pytest.approx(100, abs=1)
    bar.advance(64)
    assert task.time_remaining == pytest.approx(50, abs=1)
    bar.done()


def test_a_bar_shows_its_amounts_and_leaves_nothing_behind(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out = Output()
    bar = out.progress()
    assert isinstance(bar, Bar)
    assert out.progress() is bar
    bar.start("Downloading", 4_000_000, "bytes")
    bar.advance(2_000_000)
    bar.start("Unpacking", None, "files")
    bar.advance(3)
    out.status("by the way")
    bar.done()
    bar.done()
    bar.done()
    drawn = ESCAPE.sub("", terminal.getvalue())
    assert "2/4 MB" in drawn
    assert "by the way" in drawn
    assert "Unpacking" in drawn
