"""Kafka client properties: read as Java does, secrets never shown, every fault named."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_pem_x509_certificates

from jobs.errors import KafkaProblem
from jobs.kafka.client import KafkaClient
from jobs.kafka.properties import parse_properties
from jobs.kafka.security import login, tls_context
from jobs.stack import Stack
from jobs.stack.component import Place
from jobs.stack.files import write_properties
from jobs.stack.kafka_security import listeners
from tests.stack.stores import pkcs12_store

SECRET = "s3cr=t:w ord"
JAAS = f'org.apache.kafka.common.security.plain.PlainLoginModule required username="me" password="{SECRET}";'
PLAIN = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}

JAVA = {
    "a=b": {"a": "b"},
    "a = b c ": {"a": "b c "},
    "a:b": {"a": "b"},
    "a b": {"a": "b"},
    "  a=b": {"a": "b"},
    "# a=b\n! c=d\n\ne=f": {"e": "f"},
    "a=one \\\n   two": {"a": "one two"},
    "a=ends with two \\\\\nb=c": {"a": "ends with two \\", "b": "c"},
    r"a\=b=c\tdé": {"a=b": "c\tdé"},
    "a": {"a": ""},
    "a==b": {"a": "=b"},
    "a=1\na=2": {"a": "2"},
}


@pytest.mark.parametrize(("text", "pairs"), JAVA.items())
def test_properties_are_read_as_java_reads_them(text: str, pairs: dict[str, str]) -> None:
    assert parse_properties(text) == pairs


def properties(tmp_path: Path, **settings: str) -> Path:
    return write_properties(tmp_path / "client.properties", settings)


def client(tmp_path: Path, settings: dict[str, str]) -> KafkaClient:
    return KafkaClient.from_file(properties(tmp_path, **settings), "broker:9092")


def test_a_secret_is_in_no_repr_and_only_referred_to_in_flink_options(tmp_path: Path) -> None:
    found = client(tmp_path, {**PLAIN, "sasl.jaas.config": JAAS, "bootstrap.servers": "other:1", "group.id": "g"})
    assert SECRET not in repr(found)
    options = found.flink_options()
    assert SECRET not in str(options)
    assert options["properties.sasl.jaas.config"] == f"${{file:{found.file}:sasl.jaas.config}}"
    assert options["properties.sasl.mechanism"] == "PLAIN"
    assert not {"properties.bootstrap.servers", "properties.group.id"} & set(options)
    assert found.bootstrap == "broker:9092"
    assert found.arguments()["sasl_plain_password"] == SECRET


def test_the_address_may_stand_in_the_file(tmp_path: Path) -> None:
    path = properties(tmp_path, **{"bootstrap.servers": "a:1,b:2"})
    assert KafkaClient.from_file(path).arguments()["bootstrap_servers"] == ["a:1", "b:2"]
    with pytest.raises(KafkaProblem, match="no Kafka address"):
        KafkaClient.from_file(None)


def test_a_secret_in_the_environment_stays_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jaas = JAAS.replace(SECRET, "${env:KAFKA_WORD}")
    with pytest.raises(KafkaProblem, match=r"refers to \$\{env:KAFKA_WORD\}, which is not set"):
        client(tmp_path, {**PLAIN, "sasl.jaas.config": jaas})
    monkeypatch.setenv("KAFKA_WORD", SECRET)
    found = client(tmp_path, {**PLAIN, "sasl.jaas.config": jaas})
    assert found.arguments()["sasl_plain_password"] == SECRET
    options = found.flink_options()
    assert options["properties.sasl.jaas.config"] == jaas
    assert options["properties.config.providers"] == "file,env"


def test_user_and_password_properties_become_a_login_by_reference(tmp_path: Path) -> None:
    found = client(tmp_path, {**PLAIN, "sasl.username": "me", "sasl.password": SECRET})
    assert (found.arguments()["sasl_plain_username"], found.arguments()["sasl_plain_password"]) == ("me", SECRET)
    jaas = found.flink_options()["properties.sasl.jaas.config"]
    assert jaas.startswith("org.apache.kafka.common.security.plain.PlainLoginModule required username=")
    assert SECRET not in jaas
    assert f"${{file:{found.file}:sasl.password}}" in jaas


@pytest.mark.parametrize(
    "jaas",
    [
        'M required username="me" password="a\\"b";',
        "M required username='me' password='a\"b';",
        'M required\n  serviceName="x"\n username=me password="a\\"b" ;',
    ],
)
def test_a_login_is_read_in_each_way_of_quoting(jaas: str) -> None:
    assert login({"sasl.jaas.config": jaas}) == ("me", 'a"b')


FAULTS = {
    "unknown protocol": ({"security.protocol": "TLS"}, "security.protocol TLS is unknown: use one of PLAINTEXT, SSL"),
    "unsupported mechanism": ({**PLAIN, "sasl.mechanism": "GSSAPI"}, "sasl.mechanism GSSAPI is not supported"),
    "no user": (PLAIN, "name no user"),
    "no such store": (
        {"security.protocol": "SSL", "ssl.truststore.location": "/nowhere.pem"},
        "nowhere.pem cannot be",
    ),
}


@pytest.mark.parametrize(("settings", "said"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_before_anything_is_asked_of_kafka(
    tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    with pytest.raises(KafkaProblem, match=said):
        client(tmp_path, settings)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KafkaProblem, match=r"none\.properties cannot be read: No such file"):
        KafkaClient.from_file(tmp_path / "none.properties", "b:1")


def test_an_old_java_key_store_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    store = tmp_path / "trust.jks"
    store.write_bytes(b"\xfe\xed\xfe\xed" + bytes(20))
    with pytest.raises(KafkaProblem, match=r"keytool -importkeystore .* -destkeystore trust.p12"):
        client(tmp_path, {"security.protocol": "SSL", "ssl.truststore.location": str(store)})


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    """A folder with authority.pem, server.pem and client.pem."""
    listeners(Place(tmp_path, dict.fromkeys(("broker", "controller", "sasl", "tls"), 1), {}))
    return tmp_path / "tls"


def test_a_pkcs12_key_store_serves_python_too(tls: Path) -> None:
    store = pkcs12_store(tls / "client.pem", b"word")
    settings = {"ssl.keystore.location": str(store), "ssl.truststore.location": str(tls / "authority.pem")}
    tls_context({**settings, "ssl.keystore.password": "word"})
    with pytest.raises(KafkaProblem, match=r"check ssl\.keystore\.password"):
        tls_context({**settings, "ssl.keystore.password": "wrong"})


def test_certificates_and_key_may_stand_in_the_properties_themselves(tls: Path) -> None:
    pem = (tls / "client.pem").read_text()
    key, _, chain = pem.partition("-----BEGIN CERTIFICATE-----")
    context = tls_context(
        {
            "ssl.keystore.key": key,
            "ssl.keystore.certificate.chain": f"-----BEGIN CERTIFICATE-----{chain}",
            "ssl.truststore.certificates": (tls / "authority.pem").read_text(),
            "ssl.endpoint.identification.algorithm": "",
        }
    )
    (trusted,) = context.get_ca_certs()
    (authority,) = load_pem_x509_certificates((tls / "authority.pem").read_bytes())
    assert int(str(trusted["serialNumber"]), 16) == authority.serial_number
    assert not context.check_hostname


def test_a_key_with_a_wrong_password_is_refused_without_asking(tls: Path) -> None:
    key = serialization.load_pem_private_key((tls / "client.pem").read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"word")
    )
    certificate = (tls / "client.pem").read_text().partition("-----BEGIN CERTIFICATE-----")
    (tls / "locked.pem").write_text(locked.decode() + certificate[1] + certificate[2])
    settings = {"ssl.keystore.location": str(tls / "locked.pem")}
    tls_context({**settings, "ssl.key.password": "word"})
    for wrong in ({}, {"ssl.key.password": "wrong"}):
        with pytest.raises(KafkaProblem, match=r"check ssl\.keystore\.\* and ssl\.key\.password"):
            tls_context({**settings, **wrong})


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "port"),
    [("client-plain.properties", "sasl"), ("client-scram.properties", "sasl"), ("client-tls.properties", "tls")],
)
def test_each_way_in_works_on_a_real_broker(broker: Stack, name: str, port: str) -> None:
    place = broker.place("kafka")
    assert isinstance(KafkaClient.from_file(place.folder / name, f"127.0.0.1:{place.ports[port]}").topics(), list)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["client-plain.properties", "client-scram.properties"])
def test_a_wrong_password_is_said_to_be_the_cause(
    broker: Stack, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.kafka.client.CONNECT_MS", 2000)
    place = broker.place("kafka")
    right = parse_properties((place.folder / name).read_text())
    _, word = login(right)
    wrong = {**right, "sasl.jaas.config": right["sasl.jaas.config"].replace(word, "n0t-it")}
    path = write_properties(tmp_path / name, wrong)
    with pytest.raises(
        KafkaProblem, match=r"refuses the login: check|does not let us in with .* check security\.protocol, user"
    ) as raised:
        KafkaClient.from_file(path, f"127.0.0.1:{place.ports['sasl']}").topics()
    assert word not in str(raised.value)
    assert "n0t-it" not in str(raised.value)
