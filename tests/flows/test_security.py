"""A broker that wants TLS and a login: rows arrive, passwords are found nowhere, a wrong one is told in a sentence."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import load_pem_x509_certificate

from jobs.cluster import Cluster
from jobs.kafka.client import KafkaClient
from jobs.kafka.topics import ensure_topics
from jobs.launch import Launch
from jobs.stack import Stack
from jobs.stack.files import write_properties
from jobs.stack.kafka_security import USER, users
from tests.flows.command import Said, tidegate
from tests.flows.streams import Elsewhere, events, ids, produce, until, write_contract
from tests.flows.traces import CommandLines, Traces, places, shown, written
from tests.stack.stores import pkcs12_store

pytestmark = pytest.mark.integration

SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
WRONG = f"wrong-{secrets.token_urlsafe(18)}"


@dataclass(frozen=True)
class Secured:
    """A broker behind TLS and a login, and key stores with passwords for its clients."""

    stack: Stack
    folder: Path  # of the stores
    word: str  # the user's password
    words: dict[str, str]  # of the stores

    @property
    def address(self) -> str:
        """Where the listener is that wants a login over TLS."""
        return f"127.0.0.1:{self.stack.place('kafka').ports['sasl']}"

    def client(self, path: Path, login: dict[str, str]) -> Path:
        """Write client properties with a login and both stores."""
        stores = {
            f"ssl.{kind}.{name}": value
            for kind, word in self.words.items()
            for name, value in (("type", "PKCS12"), ("location", str(self.folder / f"{kind}.p12")), ("password", word))
        }
        key = {"ssl.key.password": self.words["keystore"]}
        return write_properties(path, {"security.protocol": "SASL_SSL", **login, **stores, **key})

    def scram(self, path: Path, word: str) -> Path:
        """Write client properties whose login is a line for Java."""
        login = f'{SCRAM} required username="{USER}" password="{word}";'
        return self.client(path, {"sasl.mechanism": "SCRAM-SHA-512", "sasl.jaas.config": login})

    def plain(self, path: Path, word: str) -> Path:
        """Write client properties whose login is a user name and a password."""
        return self.client(path, {"sasl.mechanism": "PLAIN", "sasl.username": USER, "sasl.password": word})


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with Stack(tmp_path_factory.mktemp("secured"), ("kafka",), {"kafka": {"secure": "true"}}) as stack:
        folder = tmp_path_factory.mktemp("stores")
        words = {kind: secrets.token_urlsafe(24) for kind in ("truststore", "keystore")}
        _write_stores(stack.place("kafka").folder / "tls", folder, words)
        yield Secured(stack, folder, users(stack.place("kafka"))[USER], words)


def _write_stores(pem: Path, folder: Path, words: dict[str, str]) -> None:
    authority = load_pem_x509_certificate((pem / "authority.pem").read_bytes())
    lock = serialization.BestAvailableEncryption(words["truststore"].encode())
    trusted = [pkcs12.PKCS12Certificate(authority, b"authority")]
    (folder / "truststore.p12").write_bytes(pkcs12.serialize_java_truststore(trusted, lock))
    pkcs12_store(pem / "client.pem", words["keystore"].encode()).rename(folder / "keystore.p12")


def fill(secured: Secured, topic: str, first: int, last: int) -> None:
    kafka = KafkaClient.from_file(None, secured.stack.kafka_address)  # the listener without security
    ensure_topics(kafka, {topic: 1})
    produce(kafka, topic, events(first, last))


def run(secured: Secured, stack: Stack, contracts: Path, lake: Path, file: Path, *more: str) -> Said:
    where = ("--contracts", str(contracts), "--lake", str(lake), "--cluster", stack.flink_address)
    return tidegate("run", *where, "--kafka", secured.address, "--kafka-config", str(file), *more)


def test_no_password_is_found_in_what_a_running_job_shows_writes_or_passes_on(
    stack: Stack, secured: Secured, tmp_path: Path
) -> None:
    fill(secured, "secured.found", 1, 5)
    contracts = write_contract(tmp_path / "contracts", "found", "secured.found")
    file = secured.scram(tmp_path / "client" / "scram.properties", secured.word)
    pipeline = Elsewhere(stack, tmp_path / "lake", "secured-found", kafka=secured.address)
    launch = Launch(pipeline.request(contracts, kafka_config=file))
    assert launch.kafka.topics()  # with the right password; from here on the file, which Flink reads, has a wrong one
    secured.scram(file, WRONG)
    with CommandLines() as commands:
        job_id = launch.submit()
        try:
            until("the cluster tells", lambda: "Authentication" in (launch.cluster.why_failed(job_id) or ""))
            assert not ids(pipeline, "found")
            secured.scram(file, secured.word)
            until("the job reads with the mended file", lambda: ids(pipeline, "found") == [1, 2, 3, 4, 5])
            ports = stack.place("flink").ports
            endpoints = tuple(f"http://127.0.0.1:{ports[name]}/metrics" for name in ("jobmanager", "taskmanager"))
            told = shown(launch.cluster, job_id, endpoints)
        finally:
            launch.cluster.cancel(job_id)
    files = written(stack.home, secured.stack.place("kafka").log)
    lake = written(tmp_path / "lake")

    # The search does find what is there.
    assert {f"/jobs/{job_id}", f"/jobs/{job_id}/plan"} <= set(places(told, "tidegate secured-found"))
    assert f"/jobs/{job_id}/exceptions" in places(told, "SaslAuthenticationException")
    assert [path for path in places(told, "sasl.jaas.config = [hidden]") if "/logs/" in path]
    assert [path for path in places(files, "sasl.jaas.config = [hidden]") if path.endswith("taskmanager.log")]
    assert places(files, job_id)
    assert [path for path in places(lake, "secured.found") if "_delta_log" in path]
    assert [line for line in places(commands.seen, "secured-found") if "flink run" in line or "ingest.py" in line]
    assert places(written(tmp_path / "client"), secured.word)

    everything: Traces = {**told, **files, **lake, **commands.seen}
    for secret in (secured.word, WRONG, *secured.words.values()):
        assert not places(everything, secret)


def test_the_command_runs_to_the_end_with_user_name_and_password(
    stack: Stack, secured: Secured, tmp_path: Path
) -> None:
    fill(secured, "secured.plain", 1, 7)
    contracts = write_contract(tmp_path / "contracts", "plain", "secured.plain")
    file = secured.plain(tmp_path / "plain.properties", secured.word)
    more = ("--name", "secured-plain", "--until-caught-up", "--commit-seconds", "1", "--json")
    said = run(secured, stack, contracts, tmp_path / "lake", file, *more)
    assert said.code == 0, said.words
    assert ids(Elsewhere(stack, tmp_path / "lake", "secured-plain"), "plain") == list(range(1, 8))
    assert Cluster(stack.flink_address).state(json.loads(said.out)["job"]) in {"FINISHED", "CANCELED"}
    assert not any(word in said.words for word in (secured.word, *secured.words.values()))


@pytest.mark.parametrize("mechanism", ["scram", "plain"])
def test_a_wrong_password_is_told_in_a_sentence_that_says_what_to_check(
    stack: Stack, secured: Secured, tmp_path: Path, mechanism: str
) -> None:
    contracts = write_contract(tmp_path / "contracts", "wrong", "secured.wrong")
    file = tmp_path / "client.properties"
    {"scram": secured.scram, "plain": secured.plain}[mechanism](file, WRONG)
    said = run(secured, stack, contracts, tmp_path / "lake", file)
    assert said.code == 1
    assert said.words.count("tidegate:") == 1
    assert f"the broker at {secured.address} does not let us in with {file}" in said.words
    assert "check security.protocol, user, password and certificates" in said.words
    assert WRONG not in said.words
    assert said.seconds < 30
    assert not (tmp_path / "lake" / "wrong_changes").exists()


def test_a_wrong_password_of_a_key_store_is_told_by_its_setting(stack: Stack, secured: Secured, tmp_path: Path) -> None:
    contracts = write_contract(tmp_path / "contracts", "wrong", "secured.wrong")
    other = Secured(secured.stack, secured.folder, secured.word, {**secured.words, "truststore": WRONG})
    said = run(secured, stack, contracts, tmp_path / "lake", other.scram(tmp_path / "client.properties", secured.word))
    assert said.code == 1
    assert "cannot be opened as PKCS12: check ssl.truststore.password" in said.words
    assert WRONG not in said.words
