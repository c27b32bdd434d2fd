"""Splitting token ids into words and sentences, and finding the user's last turn.

Works on ids, as a running model gets them. A word begins at a token with a leading space or an
apostrophe, or after a token without letters and digits. Optionally, in WordPiece it begins at a
token without the continuation mark, and in word-level vocabularies at every token. A sentence ends
with its punctuation mark. In a conversation only the user's last turn is used by default.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from jinja2 import TemplateError
from tokenizers.models import WordLevel, WordPiece

__all__ = ["WORD_MARKS", "Word", "Words", "inner_mark", "refers_back"]

_INSIDE = re.compile(r"\w")
_END = re.compile(r"[.!?\n。！？]")
_APOSTROPHES = ("'", "’")  # so that a possessive is spelled like the name
WORD_MARKS = ("Ġ", "▁")  # marks of a leading space: byte-level BPE, SentencePiece

_REFERRING = frozenset(
    "it its itself he him his she her hers they them their theirs this that these those there then "
    "one ones same other others another else instead former latter both either neither "
    "again more mean sure continue".split()
)
"""Words that refer to something said before, or ask to continue."""

_LINKING = frozenset("and but or so because".split())
"""Words that, at the start of a question, connect it to what was said before."""

_Ids = tuple[int, ...]


@dataclass
class Word:
    """A word of a prompt.

    Attributes:
        sentence: Number of its sentence, from 1.
        is_first: Whether it begins that sentence.
        ids: Its tokens.
        text: Its letters and digits.
        has_digit: Whether it contains a digit: a number, a year, a model's name.
    """

    sentence: int
    is_first: bool
    ids: list[int] = field(default_factory=list)
    text: str = ""
    has_digit: bool = False


class _Piece(NamedTuple):
    """Properties of a token: its text, a leading space, a digit, any letter or digit."""

    text: str
    has_space: bool
    has_digit: bool
    is_inside: bool


class Words:
    """Splits the prompts of one tokenizer.

    Args:
        tokenizer: A Hugging Face tokenizer.
        marked: Words begin at tokens with a leading space, for every tokenizer. If False,
            tokenizers without space marks are split by their own marks.
    """

    def __init__(self, tokenizer: Any, *, marked: bool = True) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        self._pieces: dict[int, _Piece] = {}
        self._header, self._footer = _frame(tokenizer)
        self._inner = None if marked else inner_mark(tokenizer)

    def split(self, ids: Sequence[int], *, turns: Literal["last", "all"] = "last") -> list[Word]:
        """Returns the words of a prompt.

        Args:
            ids: Its tokens.
            turns: In a conversation, use only the user's last turn, or all turns.
        """
        words: list[Word] = []
        current: Word | None = None
        sentence, is_first = 0, True
        for token in self._asked(ids, turns):
            if token in self._special:
                current, is_first = None, True
                continue
            text, has_space, has_digit, is_inside = self._piece(token)
            if not is_inside:
                current = None
                is_first = is_first or _END.search(text) is not None
                continue
            if current is None or has_space or text.startswith(_APOSTROPHES):
                sentence += is_first
                current = Word(sentence, is_first)
                words.append(current)
                is_first = False
            current.ids.append(token)
            current.text += text.lstrip("'’")
            current.has_digit |= has_digit
        return words

    def turns(self, ids: Sequence[int]) -> list[str]:
        """Returns what is said in a prompt, special tokens removed: the asking turn last.

        Of a conversation in the chat template's format, each user turn with the reply to it; what
        comes before the first one is left out.
        """
        found = [list(ids)]
        header, footer = self._header, self._footer
        if footer and tuple(ids[-len(footer) :]) == footer:
            said = list(ids[: -len(footer)])
            size = len(header)
            starts = [at for at in range(len(said)) if tuple(said[at : at + size]) == header]
            ends = [*starts[1:], len(said)]
            if starts and size:
                found = [said[at + size : end] for at, end in zip(starts, ends, strict=True)]
            else:
                found = [said]
        return [
            str(self._tokenizer.decode(turn, skip_special_tokens=True)).strip() for turn in found
        ]

    def asked(self, ids: Sequence[int]) -> Sequence[int]:
        """Returns the tokens of the user's last turn, or all of a prompt that is no chat."""
        return self._asked(ids, "last")

    def _asked(self, ids: Sequence[int], turns: Literal["last", "all"]) -> Sequence[int]:
        """Returns the user's turns if the ids are a conversation in the chat template's format."""
        header, footer = self._header, self._footer
        if not footer or tuple(ids[-len(footer) :]) != footer:
            return ids
        turn = ids[: -len(footer)]
        starts = range(len(turn) - len(header) + 1)
        for start in reversed(starts) if turns == "last" else starts:
            if tuple(turn[start : start + len(header)]) == header:
                return turn[start + len(header) :]
        return turn

    def _piece(self, token: int) -> _Piece:
        found = self._pieces.get(token)
        if found is None:
            raw = str(self._tokenizer.convert_ids_to_tokens(token))
            text = self._tokenizer.decode([token])
            has_space = raw.startswith(WORD_MARKS) or text[:1] == " "
            text = text.strip(" ")
            if self._inner is not None:
                has_space = not (self._inner and raw.startswith(self._inner))
                text = text.removeprefix(self._inner)
            has_digit = any(letter.isdigit() for letter in text)
            is_inside = _INSIDE.search(text) is not None
            found = self._pieces[token] = _Piece(text, has_space, has_digit, is_inside)
        return found


def refers_back(words: Sequence[Word]) -> bool:
    """Returns whether a turn needs what was said before it to be understood.

    Recognises English words only; in other languages a turn is assumed to stand alone.
    """
    said = [word.text.casefold() for word in words]
    return said[:1] == [] or said[0] in _LINKING or not _REFERRING.isdisjoint(said)


def inner_mark(tokenizer: Any) -> str | None:
    """Returns the mark of a continuation token (WordPiece: `##`), if spaces are not marked."""
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if isinstance(model, WordPiece):
        return str(model.continuing_subword_prefix)
    return "" if isinstance(model, WordLevel) else None


def _frame(tokenizer: Any) -> tuple[_Ids, _Ids]:
    """Returns the tokens that a chat template puts right before and after the user's words."""
    if not getattr(tokenizer, "chat_template", None):
        return (), ()
    try:
        one, other = (
            tokenizer(
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": word}], tokenize=False, add_generation_prompt=True
                ),
                add_special_tokens=False,
                verbose=False,
            )["input_ids"]
            for word in ("one", "two")
        )
    except TemplateError:  # chatting with the model will raise it
        return (), ()
    before = sum(1 for _ in _common_prefix(one, other))
    behind = sum(1 for _ in _common_prefix(one[before:][::-1], other[before:][::-1]))
    special = set(tokenizer.all_special_ids)
    # Only the turn's own header: later turns do not repeat the template's preamble.
    start = max((at for at in range(before) if one[at] in special), default=0)
    return tuple(one[start:before]), tuple(one[len(one) - behind :])


def _common_prefix(one: Sequence[int], other: Sequence[int]) -> Iterator[int]:
    for a, b in zip(one, other, strict=False):
        if a != b:
            return
        yield a
