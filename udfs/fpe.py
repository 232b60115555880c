"""Format-preserving encryption of the digits in a text: FF1 (NIST SP 800-38G) on radix 10, other characters kept."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from ffx import FF1

from udfs.arrays import any_true, is_ascii, over_distinct, repeats

FEWEST_DIGITS = 6  # FF1 needs a domain of a million (NIST SP 800-38G Rev. 1)
MOST_AT_ONCE = 24  # digits; longer numbers (13 digits a half) do not fit the 64-bit arithmetic below
ROUNDS = 10
FILL = "*"
_OTHER_DIGITS = r"[^\P{Nd}0-9]"  # decimal digits of other scripts
_DIGITS = re.compile(r"[0-9]")

Lanes = npt.NDArray[np.uint64]


class DigitCipher:
    """FF1 with one key and no tweak, so that the same digits give the same token in every column and table.

    A text with fewer than six digits cannot be encrypted: each of its characters becomes `*`. Digits of other scripts
    become `*` too.
    """

    def __init__(self, key: bytes) -> None:
        self._ff1 = FF1(key, radix=10)
        self._aes = Cipher(algorithms.AES(key), modes.ECB())

    def seal(self, texts: pa.StringArray) -> pa.StringArray:
        """Give each text with its digits encrypted; null stays null."""
        if texts.null_count or repeats(texts):
            return over_distinct(texts, self._seal)
        return self._seal(texts)

    def _seal(self, texts: pa.StringArray) -> pa.StringArray:
        counts, sealed = self._with_digits_sealed(texts)
        few = pa.array(counts < FEWEST_DIGITS)
        if any_true(few):
            sealed = pc.if_else(few, pc.binary_repeat(pa.scalar(FILL), pc.utf8_length(texts)), sealed)
        return sealed if is_ascii(sealed) else pc.replace_substring_regex(sealed, _OTHER_DIGITS, FILL)

    def _with_digits_sealed(self, texts: pa.StringArray) -> tuple[npt.NDArray[np.int64], pa.StringArray]:
        """Give how many ASCII digits each text has, and the texts with six or more of them encrypted in place."""
        whole = pa.concat_arrays([texts]) if texts.offset else texts
        offsets = np.frombuffer(whole.buffers()[1], np.int32, len(texts) + 1) if len(texts) else np.zeros(1, np.int32)
        data = np.frombuffer(whole.buffers()[2] or b"", np.uint8).copy()
        at = np.flatnonzero((data >= ord("0")) & (data <= ord("9")))
        starts = np.searchsorted(at, offsets)
        counts = np.diff(starts)
        # Numbers of the same length are encrypted together, one a lane.
        for length in np.unique(counts[counts >= FEWEST_DIGITS]).tolist():
            places = at[starts[:-1][counts == length][:, None] + np.arange(length)]
            data[places] = self._encrypted(data[places] - np.uint8(ord("0"))) + np.uint8(ord("0"))
        return counts, pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(data))

    def _encrypted(self, digits: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Encrypt a matrix of digits, a number a row (SP 800-38G, algorithm 7)."""
        length = digits.shape[1]
        if length > MOST_AT_ONCE:
            # Long numbers are rare: a library call each.
            texts = ["".join(map(str, row)) for row in digits.tolist()]
            return np.array([list(map(int, self._ff1.encrypt(text))) for text in texts], np.uint8)
        left = length // 2
        a, b = _number(digits[:, :left]), _number(digits[:, left:])
        size = ((10 ** (length - left) - 1).bit_length() + 7) // 8  # bytes of NUM(B)
        moduli = (np.uint64(10**left), np.uint64(10 ** (length - left)))
        cipher = self._aes.encryptor()  # of this call alone: a context must not be shared between threads
        first = np.frombuffer(cipher.update(_header(length)), ">u8").astype(np.uint64)
        for i in range(ROUNDS):
            block = np.empty((len(b), 2), ">u8")
            block[:, 0] = first[0]
            block[:, 1] = (b | np.uint64(i << 8 * size)) ^ first[1]
            sealed = np.frombuffer(cipher.update(block.tobytes()), ">u8").astype(np.uint64).reshape(-1, 2)
            a, b = b, (a + _remainder(sealed, size, moduli[i & 1])) % moduli[i & 1]
        return np.hstack([_digits(a, left), _digits(b, length - left)])

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
    return pc.and_(enough, pc.invert(pc.match_substring_regex(texts, _OTHER_DIGITS)))


def _header(length: int) -> bytes:
    """Give the block P of FF1: version, method, radix, rounds, half, length, no tweak."""
    fixed = bytes([1, 2, 1]) + (10).to_bytes(3, "big") + bytes([ROUNDS, length // 2 % 256])
    return fixed + length.to_bytes(4, "big") + bytes(4)


def _remainder(sealed: Lanes, size: int, modulus: np.uint64) -> Lanes:
    """Give NUM(S) modulo the half's domain, S being the first 8 or 12 bytes of each sealed block."""
    high, low = sealed[:, 0], sealed[:, 1]
    if size <= 4:
        return high % modulus
    # 96 bits, 24 at a time: what is carried stays below 2^64.
    rest = high >> np.uint64(40)
    parts = (high >> np.uint64(16), (high << np.uint64(8)) | (low >> np.uint64(56)), low >> np.uint64(32))
    for part in parts:
        rest = ((rest % modulus << np.uint64(24)) | (part & np.uint64(0xFFFFFF))) % modulus
    return rest


def _number(digits: npt.NDArray[np.uint8]) -> Lanes:
    powers = 10 ** np.arange(digits.shape[1] - 1, -1, -1, dtype=np.uint64)
    return np.asarray((digits * powers).sum(axis=1, dtype=np.uint64))


def _digits(numbers: Lanes, width: int) -> npt.NDArray[np.uint8]:
    powers = 10 ** np.arange(width - 1, -1, -1, dtype=np.uint64)
    return (numbers[:, None] // powers % np.uint64(10)).astype(np.uint8)
