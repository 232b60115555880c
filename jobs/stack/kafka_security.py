"""Certificates, users and listeners of a secured local broker, and the client properties of each way in."""

from __future__ import annotations

import datetime
import ipaddress
import json
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from jobs.stack.component import LOOPBACK, Place
from jobs.stack.files import write, write_properties

USER = "tidegate"
SASL_PLAIN, SASL_SCRAM, MUTUAL_TLS = "client-plain.properties", "client-scram.properties", "client-tls.properties"
VALID_FOR = datetime.timedelta(days=365)
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


def listeners(place: Place) -> dict[str, str]:
    """Give the lines of server.properties that add SASL_SSL and mutual TLS; writes certificates and client files."""
    plain, controller = f"{LOOPBACK}:{place.ports['broker']}", f"{LOOPBACK}:{place.ports['controller']}"
    sasl, tls = f"{LOOPBACK}:{place.ports['sasl']}", f"{LOOPBACK}:{place.ports['tls']}"
    authority, server, _ = _certificates(place.folder / "tls")
    _client_files(place)
    word = users(place)[USER]
    return {
        "listeners": f"PLAINTEXT://{plain},CONTROLLER://{controller},SASL_SSL://{sasl},SSL://{tls}",
        "advertised.listeners": f"PLAINTEXT://{plain},SASL_SSL://{sasl},SSL://{tls}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(server),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority),
        "listener.name.ssl.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{_PLAIN} required user_{USER}="{word}";',
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{_SCRAM} required;",
    }


def users(place: Place) -> dict[str, str]:
    """Give the broker's users and their passwords, made once."""
    path = place.folder / "users.json"
    if not path.exists():
        write(path, json.dumps({USER: secrets.token_urlsafe(24)}))
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _client_files(place: Place) -> None:
    authority, _, client = _certificates(place.folder / "tls")
    word = users(place)[USER]
    trust = {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(authority)}
    for name, mechanism, module in ((SASL_PLAIN, "PLAIN", _PLAIN), (SASL_SCRAM, "SCRAM-SHA-512", _SCRAM)):
        login = f'{module} required username="{USER}" password="{word}";'
        sasl = {"security.protocol": "SASL_SSL", "sasl.mechanism": mechanism, "sasl.jaas.config": login}
        write_properties(place.folder / name, {**sasl, **trust})
    keys = {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(client)}
    write_properties(place.folder / MUTUAL_TLS, {"security.protocol": "SSL", **keys, **trust})


def _certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Give the authority's certificate and the key-and-certificate files of server and client, made once."""
    paths = folder / "authority.pem", folder / "server.pem", folder / "client.pem"
    if not all(path.exists() for path in paths):
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("Tidegate local authority")
        authority = _builder(name, name, key).add_extension(x509.BasicConstraints(True, 0), critical=True)
        write(paths[0], _pem(authority.sign(key, hashes.SHA256())))
        for path, common_name in zip(paths[1:], ("localhost", "tidegate-client"), strict=True):
            write(path, _signed(common_name, name, key))
    return paths


def _signed(common_name: str, issuer: x509.Name, issuer_key: ec.EllipticCurvePrivateKey) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]
    builder = _builder(_name(common_name), issuer, key)
    builder = builder.add_extension(x509.SubjectAlternativeName(here), critical=False)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret.decode() + _pem(builder.sign(issuer_key, hashes.SHA256()))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + VALID_FOR)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
