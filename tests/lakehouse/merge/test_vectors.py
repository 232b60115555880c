"""The bytes of deletion vectors: laws against pyroaring, and golden bytes of other implementations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from lakehouse.errors import TableRefused
from lakehouse.merge.vectors import (
    DamagedVector,
    Descriptor,
    from_blob,
    from_z85,
    inlined,
    pack,
    span,
    to_blob,
    to_z85,
    unpack,
)

SPARSE = st.sets(st.integers(0, 2**32 - 1), max_size=200).map(BitMap)
DENSE = st.tuples(st.integers(0, 200_000), st.integers(1, 100_000)).map(lambda r: BitMap(range(r[0], r[0] + r[1])))
VECTORS = SPARSE | DENSE | st.builds(lambda a, b: a | b, SPARSE, DENSE)

# Of Spark and delta-kernel: rows, blob, and the same inline.
KERNEL_ROWS = [3, 4, 7, 11, 18, 29]
KERNEL_BLOB = "d1d339640100000000000000000000003a3000000100000000000500100000000300040007000b0012001d00"
KERNEL_INLINE = "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L"


@given(VECTORS)
def test_a_blob_gives_back_its_rows(rows: BitMap) -> None:
    assert from_blob(to_blob(rows)) == rows
    optimised = rows.copy()
    optimised.run_optimize()
    assert from_blob(to_blob(optimised)) == rows


@given(st.lists(VECTORS, min_size=1, max_size=5))
def test_a_file_gives_back_each_of_its_vectors(vectors: list[BitMap]) -> None:
    name, data, descriptors = pack(vectors)
    assert data[:1] == b"\x01" and descriptors[0].offset == 1
    for rows, descriptor in zip(vectors, descriptors, strict=True):
        start, end = span(descriptor)
        assert unpack(data[start:end], descriptor) == rows
        assert (descriptor.path, descriptor.cardinality) == (name, len(rows))
    assert span(descriptors[-1])[1] == len(data)
    assert len({descriptor.id for descriptor in descriptors}) == len(vectors)


@given(SPARSE)
def test_an_inline_descriptor_gives_back_its_rows(rows: BitMap) -> None:
    assert inlined(rows).inline() == rows


@given(st.binary(max_size=64))
def test_z85_gives_back_its_bytes_padded_to_words(data: bytes) -> None:
    assert from_z85(to_z85(data)) == data + bytes(-len(data) % 4)


@given(VECTORS)
def test_an_action_gives_back_its_descriptor(rows: BitMap) -> None:
    for descriptor in (inlined(rows), pack([rows])[2][0]):
        assert Descriptor.from_action(descriptor.to_action()) == descriptor
    assert Descriptor.from_action(None) is None


def test_the_bytes_are_those_of_other_writers() -> None:
    assert to_blob(BitMap(KERNEL_ROWS)).hex() == KERNEL_BLOB
    assert to_z85(bytes.fromhex(KERNEL_BLOB)) == KERNEL_INLINE
    assert inlined(BitMap(KERNEL_ROWS)) == Descriptor("i", KERNEL_INLINE, 44, 6)
    assert list(Descriptor("i", KERNEL_INLINE, 44, 6).inline()) == KERNEL_ROWS


@pytest.mark.parametrize(
    ("where", "path"),
    [
        ("vBn[lx{q8@P<9BNH/isA", "deletion_vector_61d16c75-6994-46b7-a15b-8b538852e50e.bin"),
        ("ab^-aqEH.-t@S}K{vb[*k^", "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin"),
    ],
)
def test_a_vector_file_is_found_by_the_id_in_the_log(where: str, path: str) -> None:
    assert Descriptor("u", where, 36, 2, 1).path == path


def test_an_absolute_path_is_refused_with_what_to_do() -> None:
    with pytest.raises(TableRefused, match="shallow clone"):
        _ = Descriptor("p", "s3://other/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin", 40, 6, 4).path


@pytest.mark.parametrize(
    "blob", [b"", b"1234", bytes(24), bytes.fromhex("d1d33964" + "02" + "00" * 30), bytes.fromhex(KERNEL_BLOB)[:-3]]
)
def test_bytes_that_are_no_vector_are_said(blob: bytes) -> None:
    with pytest.raises(DamagedVector):
        from_blob(blob)


@given(st.data())
def test_a_damaged_frame_is_never_taken_for_another_vector(data: st.DataObject) -> None:
    _, written, (descriptor,) = pack([BitMap(KERNEL_ROWS)])
    start, end = span(descriptor)
    frame = bytearray(written[start:end])
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DamagedVector):
        unpack(bytes(frame), descriptor)
    with pytest.raises(DamagedVector):
        unpack(bytes(frame[: data.draw(st.integers(0, len(frame) - 1))]), descriptor)


@pytest.mark.parametrize("text", ["abcd", "abc\u00e9d", "abcd~", "#####"])
def test_text_that_is_not_z85_is_said(text: str) -> None:
    with pytest.raises(DamagedVector):
        from_z85(text)
