"""Decoding tokens while more of them come: which text later tokens may still change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Decoder"]

_BROKEN = "\ufffd"
"""Stands for the first bytes of a character while the rest is missing."""


class Decoder:
    """Decodes the tokens of one model.

    Two kinds of tokenizers change text that they have already returned. Some clean up: they remove
    the space in front of `n't` once all of it is there. Others have tokens of single bytes, which
    are text only as a complete run.

    Args:
        tokenizer: The model's.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._is_cleaning = bool(getattr(tokenizer, "clean_up_tokenization_spaces", False))
        spelled = tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in range(256)])
        self._bytes = frozenset(spelled) - {None, tokenizer.unk_token_id}

    def text(self, ids: Sequence[int]) -> str:
        """Returns the text of tokens, special ones removed."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def certain(self, ids: Sequence[int], text: str) -> str:
        """Returns the part of their text that no further token changes.

        Args:
            ids: Tokens.
            text: Their text.
        """
        run = 0
        while run < len(ids) and ids[-1 - run] in self._bytes:
            run += 1
        if run:
            text = self.text(ids[:-run])
        text = text.rstrip(_BROKEN)
        if self._is_cleaning and text.strip():
            # Cleaning reaches back over one space, so the last word is not final.
            text = text.rstrip()
            text = text[: len(text) - len(text.split()[-1])]
        return text
