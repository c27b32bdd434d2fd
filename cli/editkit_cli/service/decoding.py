"""From tokens to text while more of them come: what the next ones can still take back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Decoder"]

_BROKEN = "\ufffd"
"""What the first bytes of a character become while the rest is missing."""


class Decoder:
    """Reads the tokens of one model.

    Two kinds of tokenizers change text that they have given already. One cleans up: it takes the
    space in front of `n't` away, once all of that is there. The other spells with tokens of single
    bytes, of which a run is text only if all of it is.

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
        """Returns how their text begins, whatever follows.

        Args:
            ids: Tokens.
            text: Theirs.
        """
        run = 0
        while run < len(ids) and ids[-1 - run] in self._bytes:
            run += 1
        if run:
            text = self.text(ids[:-run])
        text = text.rstrip(_BROKEN)
        if self._is_cleaning and text.strip():  # reaches back over one space: hold the last word
            text = text.rstrip()
            text = text[: len(text) - len(text.split()[-1])]
        return text
