"""Key stores as Java clients keep them."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import load_pem_x509_certificate


def pkcs12_store(pem: Path, word: bytes) -> Path:
    """Write the key and certificate of a PEM file into a PKCS12 store beside it, locked with a word; give its path."""
    content = pem.read_bytes()
    key = serialization.load_pem_private_key(content, None)
    store = pkcs12.serialize_key_and_certificates(
        b"me",
        key,  # type: ignore[arg-type]
        load_pem_x509_certificate(content),
        None,
        serialization.BestAvailableEncryption(word),
    )
    path = pem.with_suffix(".p12")
    path.write_bytes(store)
    return path
