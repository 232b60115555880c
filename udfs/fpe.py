"""Format-preserving encryption of the digits in a text: FF1 (NIST SP 800-38G) on radix 10, other characters kept."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc
from ffx import FF1  # type: ignore[import-untyped]

from udfs.arrays import is_ascii, over_distinct

FEWEST_DIGITS = 6  # FF1 needs a domain of a million (NIST SP 800-38G Rev. 1)
FILL = "*"
_OTHER_DIGITS = re.compile(r"[^\D0-9]")  # decimal digits of other scripts
_DIGITS = re.compile(r"[0-9]")


class DigitCipher:
    """FF1 with one key and no tweak, so that the same digits give the same token in every column and table.

    A text with fewer than six digits cannot be encrypted: each of its characters becomes `*`. Digits of other scripts
    become `*` too.
    """

    def __init__(self, key: bytes) -> None:
        self._ff1 = FF1(key, radix=10)

    def seal(self, texts: pa.StringArray) -> pa.StringArray:
        """Give each text with its digits encrypted; null stays null."""
        return over_distinct(texts, self._seal)

    def _seal(self, texts: pa.StringArray) -> pa.StringArray:
        # FF1 is ten rounds of AES over a number of its own length: a library call per distinct value.
        return pa.array([self._one(text) for text in texts.to_pylist()], pa.string())

    def _one(self, text: str) -> str:
        digits = "".join(_DIGITS.findall(text))
        if len(digits) < FEWEST_DIGITS:
            return FILL * len(text)
        sealed = iter(self._ff1.encrypt(digits))
        return _OTHER_DIGITS.sub(FILL, _DIGITS.sub(lambda _: next(sealed), text))

    def open(self, token: str) -> str:
        """Give the text behind a token, which must hold six digits or more (others are not encrypted but lost)."""
        digits = "".join(_DIGITS.findall(token))
        if len(digits) < FEWEST_DIGITS:
            return token
        clear = iter(self._ff1.decrypt(digits))
        return _DIGITS.sub(lambda _: next(clear), token)


def enough_digits(texts: pa.StringArray) -> pa.BooleanArray:
    """Whether each text has the six digits that FF1 needs, and none of another script; null for null."""
    enough = pc.greater_equal(pc.count_substring_regex(texts, "[0-9]"), FEWEST_DIGITS)
    if is_ascii(texts):
        return enough
    return pc.and_(enough, pc.invert(pc.match_substring_regex(texts, r"[^\P{Nd}0-9]")))
