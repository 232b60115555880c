"""Secret keys by key id: where they come from, and what is derived from them.

A secret is never used itself: each purpose has its own subkey, derived with HKDF-SHA-256 (RFC 5869), so that a token
of one mask says nothing about another mask's.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from contracts.model import Contract, Derived, Field, Mask, PayloadPolicy

MINIMUM_BYTES = 32
ENVIRONMENT_PREFIX = "TIDEGATE_KEY_"
DETERMINISTIC = frozenset({"hash", "email_hash", "tokenise", "fpe_digits"})  # masks whose key a table must keep
KEYED = DETERMINISTIC | {"encrypt"}
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class KeyFault(ValueError):  # noqa: N818 (a fault of the set-up, as in contracts.faults)
    """Keys are missing or cannot be read; the message names them and never holds a secret."""


@dataclass(frozen=True, repr=False)
class KeyRing:
    """Secrets by key id. Ids that differ only in case or in `.`, `-`, `_` are one id (TIDEGATE_KEY_PII_2026: pii-2026).

    Raises KeyFault, naming all of them, when secrets are shorter than 32 bytes or ids clash.
    """

    secrets: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    _subkeys: dict[tuple[str, str, int], bytes] = dataclasses.field(default_factory=dict, init=False, compare=False)

    def __post_init__(self) -> None:
        plain = [_plain(key_id) for key_id in self.secrets]
        faults = [
            f"key {k!r} is shorter than {MINIMUM_BYTES} bytes"
            for k, s in self.secrets.items()
            if len(s) < MINIMUM_BYTES
        ]
        _refuse(faults + _twice(self.secrets))
        object.__setattr__(self, "secrets", dict(zip(plain, self.secrets.values(), strict=True)))

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Read a key file: lines `id = base64`, empty lines and lines that begin with #.

        Raises KeyFault naming every line that cannot be read.
        """
        found: list[tuple[str, bytes]] = []
        faults: list[str] = []
        for number, line in enumerate(text.splitlines(), 1):
            key_id, equals, encoded = (part.strip() for part in line.partition("="))
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            secret = _decoded(encoded)
            if not equals or not _ID.fullmatch(key_id) or secret is None:
                faults.append(f"line {number} of the key file is not `id = base64`")
            else:
                found.append((key_id, secret))
        return cls._of(found, faults)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> KeyRing:
        """Read keys from variables TIDEGATE_KEY_<ID>, secrets in base64; raises KeyFault naming the faulty ones."""
        named = {k[len(ENVIRONMENT_PREFIX) :]: v for k, v in environment.items() if k.startswith(ENVIRONMENT_PREFIX)}
        read = {key_id: _decoded(text) for key_id, text in named.items()}
        faults = [f"{ENVIRONMENT_PREFIX}{k} does not hold base64" for k, secret in read.items() if secret is None]
        return cls._of([(k, secret) for k, secret in read.items() if secret is not None], faults)

    @classmethod
    def _of(cls, found: list[tuple[str, bytes]], faults: list[str]) -> KeyRing:
        ids = [_plain(key_id) for key_id, _ in found]
        _refuse(
            faults + [f"key id {k!r} is given more than once" for k in sorted({i for i in ids if ids.count(i) > 1})]
        )
        return cls(dict(found))

    def __or__(self, other: KeyRing) -> KeyRing:
        """Give both rings' keys; on the same id the other's counts."""
        return KeyRing({**self.secrets, **other.secrets})

    def __contains__(self, key_id: str) -> bool:
        return _plain(key_id) in self.secrets

    def __iter__(self) -> Iterator[str]:
        return iter(self.secrets)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(sorted(self.secrets))})"

    def __reduce__(self) -> Any:
        raise TypeError("a KeyRing must not be pickled: read the keys where they are used, from a file or environment")

    def subkey(self, key_id: str, purpose: str, length: int = 32) -> bytes:
        """Give the bytes derived from a secret for one purpose (HKDF-SHA-256, no salt, info "tidegate/<purpose>").

        Raises KeyFault when the ring has no such key.
        """
        name = (_plain(key_id), purpose, length)
        if name not in self._subkeys:
            if name[0] not in self.secrets:
                raise KeyFault(f"no key {key_id!r}: give it in the key file or as {ENVIRONMENT_PREFIX}{name[0]}")
            hkdf = HKDF(SHA256(), length, salt=None, info=f"tidegate/{purpose}".encode())
            self._subkeys[name] = hkdf.derive(self.secrets[name[0]])
        return self._subkeys[name]

    def fingerprint(self, key_id: str) -> str:
        """Give 16 hex characters that change with the secret under a key id, and tell nothing about it."""
        return hashlib.sha256(self.subkey(key_id, "check")).hexdigest()[:16]


def key_ids(contract: Contract) -> dict[str, str]:
    """Give which key id each masked column (and `payload`, for encrypted quarantine payloads) of a contract names."""
    needed = {name: mask.key_id for name, mask in _masks(contract) if mask.kind in KEYED and mask.key_id}
    if contract.payload is PayloadPolicy.ENCRYPTED and contract.payload_key_id:
        needed["payload"] = contract.payload_key_id
    return needed


def require_keys(contracts: Iterable[Contract], keys: KeyRing) -> None:
    """Raise KeyFault, naming every key that the contracts need and the ring does not have, and who needs it."""
    missing: dict[str, list[str]] = {}
    for contract in contracts:
        for name, key_id in key_ids(contract).items():
            if key_id not in keys:
                missing.setdefault(key_id, []).append(f"{contract.stream}.{name}")
    _refuse(
        [
            f"key {key_id!r} is missing, needed by {', '.join(users)}: give it in the key file or as "
            f"{ENVIRONMENT_PREFIX}{_plain(key_id)}"
            for key_id, users in sorted(missing.items())
        ]
    )


def pinned_keys(contract: Contract, keys: KeyRing) -> dict[str, str]:
    """Give column -> "key_id:fingerprint" for the masks that must keep their key for the life of a table.

    Raises KeyFault when a key is missing.
    """
    pinned = {name: mask.key_id for name, mask in _masks(contract) if mask.kind in DETERMINISTIC and mask.key_id}
    return {name: f"{key_id}:{keys.fingerprint(key_id)}" for name, key_id in pinned.items()}


def _masks(contract: Contract) -> Iterator[tuple[str, Mask]]:
    columns: list[Field | Derived] = [*contract.fields, *contract.derived]
    for column in columns:
        if column.mask is not None:
            yield column.name, column.mask


def _plain(key_id: str) -> str:
    """Give a key id as an environment variable can spell it."""
    return re.sub(r"[^A-Z0-9]", "_", key_id.upper())


def _twice(key_ids: Iterable[str]) -> list[str]:
    plain = sorted(map(_plain, key_ids))
    return [f"key id {one!r} is given more than once" for one, next_one in pairwise(plain) if one == next_one]


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _refuse(faults: list[str]) -> None:
    if faults:
        raise KeyFault("; ".join(faults))
