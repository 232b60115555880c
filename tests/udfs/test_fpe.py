"""FF1 on many numbers at once: the standard's samples, and the library's answer for every length."""

from __future__ import annotations

import pyarrow as pa
import pytest
from ffx import FF1

from udfs.fpe import DigitCipher

KEY_256 = "2b7e151628aed2a6abf7158809cf4f3cef4359d8d580aa4f7f036d6f04fc6a94"


# NIST's FF1 samples 1, 4 and 7: radix 10, no tweak, AES-128, AES-192, AES-256.
@pytest.mark.parametrize(("size", "sealed"), [(32, "2433477484"), (48, "2830668132"), (64, "6657667009")])
def test_the_standard_s_samples(size: int, sealed: str) -> None:
    assert DigitCipher(bytes.fromhex(KEY_256[:size])).seal(pa.array(["0123456789"])).to_pylist() == [sealed]


@pytest.mark.parametrize("length", range(6, 40))
def test_every_length_gives_what_the_library_gives(length: int) -> None:
    key = bytes(range(32))
    numbers = [str(seed * 7919**9 + seed).zfill(40)[-length:] for seed in range(1, 60)]
    numbers += ["0" * length, "9" * length]
    one = FF1(key, radix=10)
    cipher = DigitCipher(key)
    assert cipher.seal(pa.array(numbers)).to_pylist() == [one.encrypt(number) for number in numbers]
    spaced = [f"+{n[:3]} é{n[3:]}x" for n in numbers]
    tokens = cipher.seal(pa.array(["", *spaced, None, "12"])).to_pylist()
    assert [cipher.open(token) for token in tokens[1:-2]] == spaced
    assert tokens[0] == ""
    assert tokens[-2:] == [None, "**"]
