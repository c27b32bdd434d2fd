"""A conversation in which the user corrects the model: what each line of the user does.

A line is either a message or a command that begins with ``/``. Answers are results; everything else
is printed beside them. Reading from the terminal is up to ``commands/chat.py``.
"""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from editkit_cli.terminal.edits import delivery_note, warn_contradiction
from editkit_cli.terminal.group import CHECK_FAILED
from editkit_cli.terminal.history import draw_diff, draw_log
from editkit_cli.terminal.interrupts import Cancellation
from editkit_cli.terminal.output import Output
from editkit_cli.terminal.tables import fields, short_digest
from editkit_store.errors import EditkitError, InvalidRequest

if TYPE_CHECKING:
    from editkit_cli.backend.base import Backend, OnContradiction
    from editkit_store.records import (
        Added,
        Contradiction,
        Delivery,
        EditRequest,
        Generation,
        ViewChanged,
    )

__all__ = ["Conversation"]

LOGGED = 10
"""Operations that `/log` lists by default."""

Turn = dict[str, str]


class _SlashCommand(NamedTuple):
    usage: str
    help: str
    act: Callable[[Conversation, str], int | None]


@dataclass(frozen=True)
class _LastAnswer:
    """The last answer, and the conversation that it answers."""

    asked: tuple[Turn, ...]  # the conversation up to and including the user's turn
    made: Generation


class Conversation:
    """A conversation with a model, and its slash commands.

    A model without a chat template cannot converse: it then continues each message as a prompt.

    Args:
        backend: The running model and its history.
        out: Prints answers.
        aside: Prints what commands report.
        system: System message before every conversation.
        version: Answer as of this version; ``None`` follows the current one.
        max_new_tokens: Most tokens of an answer.
        delivery: Whether answers are held to the targets of the edits that fire.
        streams: Whether answers are printed as they are generated.
        about: Fields of every correction: ``author``, ``reason``, ``scope``.

    Attributes:
        is_over: The user has left.
        has_template: Whether the model has a chat template.
    """

    def __init__(
        self,
        backend: Backend,
        out: Output,
        aside: Output,
        *,
        system: str | None = None,
        version: str | None = None,
        max_new_tokens: int = 256,
        delivery: Delivery = "exact",
        streams: bool = False,
        about: dict[str, str | None] | None = None,
    ) -> None:
        self.is_over = False
        self._answering = backend.chat_backend()
        self.has_template = self._answering.has_template
        if system is not None and not self.has_template:
            raise InvalidRequest(
                "this model's tokenizer has no chat template, so there is no place for a system "
                "message",
                field="system",
                hint="leave --system out, and say it in each prompt",
            )
        self._backend = backend
        self._out = out
        self._aside = aside
        self._limit = max_new_tokens
        self._delivery: Delivery = delivery
        self._streams = streams
        self._about = about or {}
        self._before: tuple[Turn, ...] = (
            () if system is None else ({"role": "system", "content": system},)
        )
        self._version: str | None = None
        if version is not None:
            self._see(version)
        # A correction of several operations is undone, and redone, as one.
        self._steps: dict[tuple[str, str], int] = {}
        self._begin()

    def take(self, line: str) -> int:
        """Handles one line of the user.

        Returns:
            An exit code: 0; 1 a known error, which was printed; 2 no such command; 3 a correction
            that did not verify.
        """
        if not line.strip():
            return 0
        try:
            if not line.startswith("/"):
                self._say(line.strip())
                return 0
            return self._command(line.strip())
        except click.UsageError as wrong:
            self._aside.error(EditkitError(wrong.message, hint="/help lists the commands"))
            return 2
        except EditkitError as error:
            self._aside.error(self._in_other_words(error))
            return 1

    # Messages ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._turns = self._before
        self._last: _LastAnswer | None = None
        self._id = uuid.uuid4().hex[:12]

    def _say(self, text: str) -> None:
        asked: tuple[Turn, ...] = (*self._turns, {"role": "user", "content": text})
        self._answer(asked if self.has_template else asked[-1:])

    def _answer(self, asked: tuple[Turn, ...]) -> None:
        """Lets the model answer, and continues the conversation with its answer."""
        cancellation = Cancellation()
        with cancellation.on_interrupt():
            made = (self._streamed if self._streams else self._answered)(asked, cancellation)
        self._last = _LastAnswer(asked, made)
        self._turns = (*asked, {"role": "assistant", "content": made.text})
        told = [made.version]
        told += [
            f"edit {short_digest(edit_id)} fired{delivery_note(made)}" for edit_id in made.fired
        ]
        if cancellation.is_requested:
            self._aside.status("stopped")
        elif made.finish_reason == "length":
            told.append(f"cut off after {made.tokens} tokens")
        if len(told) > 1 or self._version is not None:
            self._aside.status(f"({', '.join(told)})")

    def _streamed(self, asked: tuple[Turn, ...], cancellation: Cancellation) -> Generation:
        has_begun = False

        def piece(text: str) -> None:
            nonlocal has_begun
            has_begun = True
            self._out.piece(text)

        try:
            made = self._answered(asked, cancellation, piece)
        except BaseException:
            if has_begun:
                self._out.piece("\n")
            raise
        # A classifier returns its label without generating text.
        self._out.text("" if has_begun else made.text or "(nothing)")
        return made

    def _answered(
        self,
        asked: tuple[Turn, ...],
        cancellation: Cancellation,
        piece: Callable[[str], None] | None = None,
    ) -> Generation:
        made = self._answering.answer(
            asked, cancellation, version=self._version, limit=self._limit,
            delivery=self._delivery, on_text=piece,
        )  # fmt: skip
        if piece is None:
            self._out.result(made, lambda: self._out.text(made.text))
        return made

    def _question(self) -> _LastAnswer:
        if self._last is None:
            raise InvalidRequest(
                "there is no answer yet", field="chat", hint="ask the model something first"
            )
        return self._last

    # Commands ---------------------------------------------------------------------------------

    def _command(self, line: str) -> int:
        name, _, rest = line[1:].partition(" ")
        found = COMMANDS.get(name)
        if found is None:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            raise click.UsageError(
                f"there is no command '/{name}'"
                + (f"; did you mean /{near[0]}?" if near else "")
                + " (to say something that begins with /, put a space before it)"
            )
        return found.act(self, rest.strip()) or 0

    def fix(self, text: str) -> int:
        """Corrects the last answer, in the conversation as it was at that moment."""
        if not text:
            raise click.UsageError("/fix needs the answer that should have been given")
        last = self._question()
        if self._version is not None:
            raise InvalidRequest(
                f"these answers come from {self._version}, an older version; a correction "
                "changes the current one",
                field="version",
                hint="`/version @` goes back there; then `/again`, and `/fix` what is still wrong",
            )
        added = self._added(last.asked, text, warned=self._warned)
        if not added.verified:
            self._aside.warning(
                f"the correction did not verify: the model would answer '{added.answer}', not "
                f"'{added.edit.target}'; it is recorded as failed and is not active",
                hint="say it in other words, or shorter",
            )
            return CHECK_FAILED
        added, tell_elsewhere = self._elsewhere(added)
        self._tell(added)
        self._answer(last.asked)
        tell_elsewhere()
        return 0

    def _added(
        self, asked: Sequence[Turn], text: str, *, warned: OnContradiction | None = None
    ) -> Added:
        request: dict[str, Any] = {**self._about, "target": text, "conversation": self._id}
        if self.has_template:
            request["chat"] = tuple(asked)
        else:
            request["prompt"] = asked[-1]["content"]
        (added,) = self._backend.add_many([request], warned=warned, progress=self._aside.progress())
        return added

    def _warned(self, _: EditRequest, found: tuple[Contradiction, ...]) -> None:
        warn_contradiction(self._aside, found)

    def _tell(self, added: Added) -> None:
        self._aside.status(
            f"corrected: verified, {added.version}, edit {short_digest(added.edit.id)}, "
            f"{added.seconds:.1f} s"
        )
        if added.reach is not None:
            self._aside.status(f"reach: {added.reach.summary}")
        if added.lost:
            names = ", ".join(short_digest(one) for one in added.lost)
            self._aside.warning(f"earlier edits that no longer give their target: {names}")

    def _elsewhere(self, added: Added) -> tuple[Added, Callable[[], None]]:
        """Makes a correction made in the middle of a conversation hold in a fresh one too.

        The edit is found by its question, but it was learned behind the turns before, and sometimes
        does not give the answer without them. It is then replaced by an edit that is learned for
        the question alone, if that one gives the answer here as well.

        Returns:
            The edit that stays, and a function that reports whether it holds elsewhere.
        """
        here = [turn.model_dump() for turn in added.edit.chat or ()]
        alone = [*self._before, *here[-1:]]
        if len(here) <= len(alone):
            return added, lambda: None
        if self._backend.explain(chat=alone).fired != added.edit.id:
            return added, lambda: self._aside.warning(
                "asked first in a fresh conversation, this question does not reach the "
                "correction: what was said before belongs to it",
                hint="where it should hold there too: /new, ask it, and /fix it there",
            )
        said = self._said(alone)
        if said == added.answer:
            return added, self._tell_held
        # Learned first and then swapped in, so that one of the two is active whatever happens.
        again = self._added(alone, added.edit.target)
        if again.verified:
            try:
                version = self._backend.revert(added.edit.id).version
                if self._said(here) == again.answer:
                    self._steps["undo", version] = 3
                    return again.model_copy(update={"version": version}), self._tell_held
            except BaseException:  # Ctrl-C too: the verified edit must stay
                self._backend.rollback(added.version)
                raise
            version = self._backend.rollback(added.version).version
            added = added.model_copy(update={"version": version})
        return added, lambda: self._aside.warning(
            "asked first in a fresh conversation, the model is corrected, but by itself says "
            f"'{said}'",
            hint="where that is wrong: /new, ask it, and /fix it there",
        )

    def _said(self, asked: Sequence[Turn]) -> str:
        """Returns what the model says by itself: held to the target, every answer would do."""
        return self._backend.chat(asked, max_new_tokens=self._limit, delivery="free").text

    def _tell_held(self) -> None:
        self._aside.status("holds in a fresh conversation too")

    def again(self, _: str) -> None:
        """Answers the last question again, with the model as it is now."""
        self._answer(self._question().asked)

    def why(self, _: str) -> None:
        """Prints which edit gave the last answer, and how near it is."""
        last = self._question()
        asked: dict[str, Any] = {"version": last.made.version, "k": 3}
        if self.has_template:
            asked["chat"] = last.asked
        else:
            asked["prompt"] = last.asked[-1]["content"]
        self._aside.text(self._backend.explain(**asked).summary)

    def undo(self, _: str) -> None:
        """Takes the last change back."""
        self._move("undo", self._backend.undo)

    def redo(self, _: str) -> None:
        """Takes the last undo back."""
        self._move("redo", self._backend.redo)

    def _move(self, name: str, step: Callable[[], ViewChanged]) -> None:
        steps = self._steps.get((name, self._backend.version), 1)
        for _ in range(steps):
            changed = step()
        self._steps["redo" if name == "undo" else "undo", changed.version] = steps
        self._aside.status(
            f"{changed.operation}: {changed.detail}; now at {changed.version}, "
            f"{changed.view} active edit{'' if changed.view == 1 else 's'}"
        )
        if self._version is not None:
            self._aside.status(f"answers still come from {self._version}")
        elif self._last is not None:
            self._aside.status("`/again` answers the last question again")

    def diff(self, rest: str) -> None:
        """Compares two versions."""
        names = rest.split()
        if len(names) > 2:
            raise click.UsageError("/diff takes two versions at most")
        before, after = [*names, *("@-", "@")[len(names) :]]
        draw_diff(self._aside, self._backend.diff(before, after), asked=False)

    def log(self, rest: str) -> None:
        """Lists the last operations."""
        if rest and not (rest.isdecimal() and int(rest)):
            raise click.UsageError(f"/log takes how many operations to list, not '{rest}'")
        limit = int(rest or LOGGED)
        entries = self._backend.log_page(limit=limit).entries
        is_whole = len(entries) < limit
        draw_log(self._aside, entries, self._backend.version, [] if is_whole else None)

    def version(self, rest: str) -> None:
        """Answers as of another version, or prints which version answers."""
        if rest:
            self._see(rest)
        if self._version is None:
            self._aside.status(f"at {self._backend.version}, the current version")
        else:
            self._aside.status(
                f"at {self._version}; the current version is {self._backend.version} (`/version @`)"
            )

    def _see(self, name: str) -> None:
        found = self._backend.resolve(name)
        # If the current version were pinned, the next correction would not show.
        self._version = None if found == self._backend.version else found

    def new(self, _: str) -> None:
        """Begins a fresh conversation."""
        self._begin()
        self._aside.status("a fresh conversation")

    def help(self, _: str) -> None:
        """Lists the commands."""
        self._aside.text(fields([(one.usage, one.help) for one in COMMANDS.values()]))

    def quit(self, _: str) -> None:
        """Leaves."""
        self.is_over = True

    def _in_other_words(self, error: EditkitError) -> EditkitError:
        """Replaces the hint of an error by one that helps in a conversation."""
        from editkit.errors import PromptTooLong

        if isinstance(error, PromptTooLong) and self.has_template:
            fresh = len(self._turns) == len(self._before)
            error.hint = "say it shorter" + ("" if fresh else ", or begin a fresh one with /new")
        return error


COMMANDS = {
    "fix": _SlashCommand("/fix TEXT", "the last answer should have been TEXT", Conversation.fix),
    "why": _SlashCommand(
        "/why", "which edit gave the last answer, and how near it is", Conversation.why
    ),
    "again": _SlashCommand("/again", "answer the last question again", Conversation.again),
    "undo": _SlashCommand(
        "/undo", "take the last change back; again to go further back", Conversation.undo
    ),
    "redo": _SlashCommand("/redo", "take the last undo back", Conversation.redo),
    "diff": _SlashCommand(
        "/diff [A] [B]", "compare two versions, by default @- and @", Conversation.diff
    ),
    "log": _SlashCommand("/log [N]", f"the last {LOGGED} (or N) operations", Conversation.log),
    "version": _SlashCommand(
        "/version [V]",
        "answer as of a version: v3, @-, a tag; @ is the current one",
        Conversation.version,
    ),
    "new": _SlashCommand("/new", "begin a fresh conversation; corrections stay", Conversation.new),
    "help": _SlashCommand("/help", "this list", Conversation.help),
    "quit": _SlashCommand("/quit", "leave, as Ctrl-D does", Conversation.quit),
}
