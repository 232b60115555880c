"""Kafka's Java security properties as Python's TLS context and kafka-python's SASL arguments.

Rules: Kafka documentation, "Security" (sasl.jaas.config, ssl.keystore.*, ssl.truststore.*), KIP-651 for PEM.
"""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from jobs.errors import KafkaProblem

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MODULES = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
JKS_MAGIC = b"\xfe\xed\xfe\xed"
_OPTION = re.compile(r"""(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s;"']+))""")

Properties = Mapping[str, str]


def client_arguments(properties: Properties) -> dict[str, Any]:
    """Give kafka-python's security arguments; raises KafkaProblem for what Python cannot do, with the way round it."""
    protocol = properties.get("security.protocol", "PLAINTEXT").upper()
    if protocol not in PROTOCOLS:
        raise KafkaProblem(f"security.protocol {protocol} is unknown: use one of {', '.join(PROTOCOLS)}")
    arguments: dict[str, Any] = {"security_protocol": protocol}
    if protocol.startswith("SASL"):
        arguments |= _sasl(properties)
    if protocol.endswith("SSL"):
        arguments["ssl_context"] = tls_context(properties)
    return arguments


def login(properties: Properties) -> tuple[str, str]:
    """Give user name and password from sasl.jaas.config, or from sasl.username and sasl.password."""
    found = {name: next(filter(None, values), "") for name, *values in _OPTION.findall(properties.get(JAAS, ""))}
    user = found.get("username") or properties.get("sasl.username")
    word = found.get("password") or properties.get("sasl.password")
    if not user or not word:
        raise KafkaProblem(
            "the Kafka properties name no user: give sasl.jaas.config with username and password, "
            "or sasl.username and sasl.password"
        )
    return _unquoted(user), _unquoted(word)


JAAS = "sasl.jaas.config"


def mechanism(properties: Properties) -> str:
    """Give the SASL mechanism; raises KafkaProblem for one that is not supported."""
    wanted = properties.get("sasl.mechanism", "GSSAPI").upper()
    if wanted not in MODULES:
        raise KafkaProblem(f"sasl.mechanism {wanted} is not supported: use one of {', '.join(MODULES)}, or mutual TLS")
    return wanted


def tls_context(properties: Properties) -> ssl.SSLContext:
    """Give the TLS context: who is trusted, and the client's own certificate for mutual TLS."""
    context = ssl.create_default_context(cadata=_trusted(properties))
    # Java's way to say "do not compare the host name": an empty algorithm.
    if properties.get("ssl.endpoint.identification.algorithm", "https") == "":
        context.check_hostname = False
    _own_certificate(context, properties)
    return context


def _sasl(properties: Properties) -> dict[str, Any]:
    wanted = mechanism(properties)
    user, word = login(properties)
    return {"sasl_mechanism": wanted, "sasl_plain_username": user, "sasl_plain_password": word}


def _trusted(properties: Properties) -> str | None:
    """Give the trusted certificates as PEM; None for the system's."""
    if inline := properties.get("ssl.truststore.certificates"):
        return inline
    store = _store(properties, "truststore")
    if store is None:
        return None
    if _is_pem(store):
        return store.decode()
    _, certificate, others = _pkcs12(store, properties, "truststore")
    found = [*([certificate] if certificate else []), *others]
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in found)


def _own_certificate(context: ssl.SSLContext, properties: Properties) -> None:
    word = properties.get("ssl.key.password") or None
    if inline := properties.get("ssl.keystore.key"):
        _load(context, inline + "\n" + properties.get("ssl.keystore.certificate.chain", ""), word)
        return
    store = _store(properties, "keystore")
    if store is None:
        return
    if _is_pem(store):
        _load(context, store.decode(), word)
        return
    key, certificate, others = _pkcs12(store, properties, "keystore")
    if key is None or certificate is None:
        raise KafkaProblem(f"{properties['ssl.keystore.location']} holds no private key with its certificate")
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in (certificate, *others))
    _load(context, (secret + chain).decode(), None)


def _load(context: ssl.SSLContext, pem: str, word: str | None) -> None:
    """Load key and certificates. OpenSSL's interface takes only files: one that nobody else reads, for this moment."""
    handle, path = tempfile.mkstemp(prefix="tidegate-", suffix=".pem")  # created with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as content:
            content.write(pem)
        context.load_cert_chain(path, password=word or _no_password)
    except ssl.SSLError as error:
        raise KafkaProblem(
            f"the client certificate of the Kafka properties cannot be used ({error.reason}): "
            "check ssl.keystore.* and ssl.key.password"
        ) from None
    finally:
        Path(path).unlink()


def _no_password() -> str:
    return ""  # never ask on the terminal


def _store(properties: Properties, kind: str) -> bytes | None:
    """Give the bytes of a truststore or keystore; its real format is decided by its content, as in Java."""
    location = properties.get(f"ssl.{kind}.location")
    if not location:
        return None
    try:
        content = Path(location).read_bytes()
    except OSError as error:
        raise KafkaProblem(f"ssl.{kind}.location {location} cannot be read: {error.strerror}") from None
    if content.startswith(JKS_MAGIC):
        raise KafkaProblem(
            f"{location} is an old Java key store (JKS), which Python cannot read. Convert it: keytool -importkeystore "
            f"-srckeystore {location} -destkeystore {Path(location).stem}.p12 -deststoretype PKCS12"
        )
    return content


def _pkcs12(store: bytes, properties: Properties, kind: str) -> tuple[Any, Any, Any]:
    word = properties.get(f"ssl.{kind}.password", "").encode() or None
    try:
        return pkcs12.load_key_and_certificates(store, word)
    except ValueError:
        raise KafkaProblem(
            f"{properties[f'ssl.{kind}.location']} cannot be opened as PKCS12: check ssl.{kind}.password"
        ) from None


def _is_pem(store: bytes) -> bool:
    return b"-----BEGIN " in store


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
