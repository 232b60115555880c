"""Deletion vectors: which rows of a data file are deleted, as the Delta protocol stores them.

A blob is the magic number, the number of buckets (one), the high 32 bits of its rows (0) and a 32-bit roaring bitmap in
portable serialisation. A file holds a format byte and then, for each vector, the blob between its length and its
CRC-32 (both big-endian). Source: Delta protocol, "Deletion Vector Format".
"""

from __future__ import annotations

import base64
import struct
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyroaring import BitMap

from lakehouse.errors import TableRefused

MAGIC = 1681511377
FORMAT = b"\x01"
# Where our vector files lie, below the table: in a folder that other tools' vacuum takes for hidden. The full vacuum of
# delta-rs knows no vectors and would delete live ones. (The protocol lets any prefix stand before a vector's id.)
FOLDER = "_vectors"
_HEAD = struct.Struct("<IQ")  # magic, buckets
_HIGH = struct.Struct("<I")  # the high 32 bits of a bucket's rows
_WORD = struct.Struct(">I")  # length, CRC-32
_UUID_CHARACTERS = 20

# z85 and Python's base 85 are the same but for their alphabets.
_PYTHON_85 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
_Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_TO_Z85 = bytes.maketrans(_PYTHON_85, _Z85)
_FROM_Z85 = bytes.maketrans(_Z85, _PYTHON_85)


class DamagedVector(ValueError):  # noqa: N818
    """The bytes are no deletion vector, or not the one that the log describes."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Where a vector is: in a file of the table ("u"), in the log itself ("i"), or at an absolute path ("p")."""

    storage: str
    where: str
    size: int  # of the blob, bytes
    cardinality: int  # deleted rows
    offset: int | None = None  # of the length field in the file

    @property
    def id(self) -> str:
        """Give what tells this vector from others of the same data file."""
        return f"{self.storage}{self.where}" + ("" if self.offset is None else f"@{self.offset}")

    @property
    def path(self) -> str:
        """Give the vector file's path below the table; raises TableRefused for a vector with an absolute path."""
        if self.storage != "u" or len(self.where) < _UUID_CHARACTERS:
            raise TableRefused(
                f"a deletion vector is stored at {self.where!r} (type {self.storage!r}), outside of the table's folder "
                "(a shallow clone): make a full copy of the table, or move it away to build it again."
            )
        prefix, encoded = self.where[:-_UUID_CHARACTERS], self.where[-_UUID_CHARACTERS:]
        return f"{prefix}/{_file_name(encoded)}" if prefix else _file_name(encoded)

    def inline(self) -> BitMap:
        """Give the rows of a vector that is stored in the log itself ("i")."""
        return from_blob(from_z85(self.where)[: self.size])

    def to_action(self) -> dict[str, Any]:
        """Give the `deletionVector` field of an add or remove action."""
        offset = {} if self.offset is None else {"offset": self.offset}
        where = {"storageType": self.storage, "pathOrInlineDv": self.where, **offset}
        return {**where, "sizeInBytes": self.size, "cardinality": self.cardinality}

    @classmethod
    def from_action(cls, action: Mapping[str, Any] | None) -> Descriptor | None:
        """Give the descriptor of an action's `deletionVector` field; None when there is none."""
        if action is None:
            return None
        where = action["storageType"], action["pathOrInlineDv"]
        return cls(*where, action["sizeInBytes"], action["cardinality"], action.get("offset"))


def to_blob(rows: BitMap) -> bytes:
    """Give the blob of a set of row positions."""
    return _HEAD.pack(MAGIC, 1) + _HIGH.pack(0) + rows.serialize()


def from_blob(blob: bytes) -> BitMap:
    """Give the row positions that a blob holds; raises DamagedVector."""
    if len(blob) < _HEAD.size:
        raise DamagedVector(f"a vector of {len(blob)} bytes")
    magic, buckets = _HEAD.unpack_from(blob)
    if magic != MAGIC:
        raise DamagedVector(f"magic number {magic}, wanted {MAGIC}")
    if not buckets:
        return BitMap()
    body = blob[_HEAD.size + _HIGH.size :]
    if buckets != 1 or not body or _HIGH.unpack_from(blob, _HEAD.size)[0]:
        raise DamagedVector("rows above the first 4,294,967,296 of a file")
    try:
        return BitMap.deserialize(body)
    except ValueError as error:
        raise DamagedVector(str(error)) from error


def pack(vectors: Sequence[BitMap]) -> tuple[str, bytes, list[Descriptor]]:
    """Give the path and the bytes of a new file that holds the vectors, and their descriptors in order."""
    where = FOLDER + to_z85(uuid.uuid4().bytes)
    parts, at, descriptors = [FORMAT], len(FORMAT), []
    for rows in vectors:
        blob = to_blob(rows)
        parts += [_WORD.pack(len(blob)), blob, _WORD.pack(zlib.crc32(blob))]
        descriptors.append(Descriptor("u", where, len(blob), len(rows), at))
        at += len(blob) + 2 * _WORD.size
    return descriptors[0].path, b"".join(parts), descriptors


def span(descriptor: Descriptor) -> tuple[int, int]:
    """Give the first byte of a vector's frame in its file, and the first byte after it."""
    start = descriptor.offset or 0
    return start, start + descriptor.size + 2 * _WORD.size


def unpack(frame: bytes, descriptor: Descriptor) -> BitMap:
    """Give the rows of a vector from its frame (length, blob, CRC-32); raises DamagedVector."""
    blob = frame[_WORD.size : -_WORD.size]
    if len(blob) != descriptor.size or _WORD.unpack_from(frame)[0] != len(blob):
        raise DamagedVector(f"{descriptor.path} at {descriptor.offset}: not a vector of {descriptor.size} bytes")
    if _WORD.unpack_from(frame, len(frame) - _WORD.size)[0] != zlib.crc32(blob):
        raise DamagedVector(f"{descriptor.path} at {descriptor.offset}: wrong checksum")
    rows = from_blob(blob)
    if len(rows) != descriptor.cardinality:
        raise DamagedVector(f"{descriptor.path} at {descriptor.offset}: {len(rows)} rows, not {descriptor.cardinality}")
    return rows


def to_z85(data: bytes) -> str:
    """Give bytes as z85 text, padded with zeros to a multiple of 4."""
    return base64.b85encode(data + bytes(-len(data) % 4)).translate(_TO_Z85).decode()


def from_z85(text: str) -> bytes:
    """Give the bytes of z85 text; raises DamagedVector."""
    try:
        if len(text) % 5:
            raise ValueError(f"{len(text)} characters")
        if set(text.encode()) - set(_Z85):
            raise ValueError("a character that is not of the alphabet")
        return base64.b85decode(text.encode().translate(_FROM_Z85))
    except ValueError as error:
        raise DamagedVector(f"not z85: {error}") from error


def inlined(rows: BitMap) -> Descriptor:
    """Give a descriptor that holds the vector itself, for small ones."""
    blob = to_blob(rows)
    return Descriptor("i", to_z85(blob), len(blob), len(rows))


def _file_name(encoded: str) -> str:
    return f"deletion_vector_{uuid.UUID(bytes=from_z85(encoded))}.bin"
