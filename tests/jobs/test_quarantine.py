"""A repair reads records from Kafka, else from bytes that the quarantine keeps; where there are neither, it says so."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from contracts.columns import RECORDS
from contracts.load import load_contracts
from contracts.model import Contract
from jobs.metrics import NoMetrics
from jobs.quarantine import LATER, LOST, Repaired, records, repair_records
from jobs.quarantine_report import show_counts, show_records, show_repaired
from jobs.refinery import Refinery
from jobs.registry import Registries
from lakehouse.commit import StreamTables
from lakehouse.epochs import begin_epoch
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from lakehouse.quarantined import Chosen, Quarantined
from lakehouse.read import connect
from tests.flows.streams import NOTE, write_contract
from tests.jobs.test_lanes import KEYED, PIPELINE, TABLES, TOPIC, Kafka, change
from tests.lakehouse.rows import NOW, no_gaps
from udfs.keys import KeyRing, pinned_keys

KEYS = KeyRing.parse(f"vault = {base64.b64encode(b'v' * 32).decode()}\n")
QUIET = Console(file=io.StringIO())


def contract_of(folder: Path, longest: int, **settings: Any) -> Contract:
    note = {**NOTE, "logicalTypeOptions": {"maxLength": longest}}
    write_contract(folder, "docs", TOPIC, (KEYED, note), envelope="debezium", tables=TABLES, **settings)
    (contract,) = load_contracts(folder, {})
    return contract


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], tuple[int, int]]:
    """What Kafka holds: first offset and end; nothing unless a test says so."""
    told: dict[tuple[str, int], tuple[int, int]] = {}
    monkeypatch.setattr("jobs.quarantine._held", lambda *_: told)
    return told


def commit(
    lake: Lake,
    contract: Contract,
    raw: list[dict[str, Any]],
    *,
    upto: str = "current",
    epochs: dict[str, int] | None = None,
) -> None:
    parking, registries = Parking(lake, PIPELINE), Registries([contract], NoMetrics())
    refs = Refinery([contract], lake, parking, registries, KEYS, NoMetrics()).take(
        pa.Table.from_pylist(raw, schema=RECORDS)
    )
    tables = StreamTables(lake, contract, pipeline=PIPELINE, pins=pinned_keys(contract, KEYS), epochs=epochs)
    tables.prepare()
    if upto == "quarantine":  # the process ends after the first of its commits
        tables.tables[1].apply = _killed  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            tables.commit(refs, gaps=no_gaps, now_ms=NOW)
    else:
        tables.commit(refs, gaps=no_gaps, now_ms=NOW)


def _killed(*_: Any) -> None:
    raise KeyboardInterrupt


RAW = [change(0, "c", 1, "short"), change(1, "u", 1, "much too long"), change(2, "c", 2, "too long as well")]


def repaired(contract: Contract, lake: Lake, kafka: Kafka | None, keys: KeyRing = KEYS) -> Repaired:
    return repair_records(
        contract,
        lake,
        PIPELINE,
        Chosen(),
        kafka=kafka,
        keys=keys,
        console=QUIET,  # type: ignore[arg-type]
    )


def notes(lake: Lake) -> list[tuple[Any, ...]]:
    return connect(lake).execute("SELECT id, note, _stale FROM docs ORDER BY id").fetchall()


def test_records_are_read_from_kafka(tmp_path: Path, held: dict[tuple[str, int], tuple[int, int]]) -> None:
    lake, kafka = Lake.open(str(tmp_path / "lake")), Kafka(RAW)
    commit(lake, contract_of(tmp_path / "c", 5), RAW)
    assert notes(lake) == [(1, "short", True)]
    fixed = contract_of(tmp_path / "c", 13)
    held[TOPIC, 0] = (0, 3)
    done = repaired(fixed, lake, kafka)
    assert (done.asked, done.resolved, done.added, len(done.failing)) == (2, 1, 1, 1)
    assert (done.failing[0]["offset"], done.failing[0]["rules"]) == (2, ["note_length"])
    assert notes(lake) == [(1, "much too long", False)]


def test_records_of_an_epoch_before_are_in_kafka_while_the_topic_stays_the_same(
    tmp_path: Path, held: dict[tuple[str, int], tuple[int, int]]
) -> None:
    lake, strict = Lake.open(str(tmp_path / "lake")), contract_of(tmp_path / "c", 5)
    commit(lake, strict, RAW)
    begin_epoch(lake, strict, PIPELINE, TOPIC)
    later = [change(-900, "u", 1, "new") | {"offset": 3}, change(-890, "u", 2, "too long again") | {"offset": 4}]
    commit(lake, strict, later, epochs={TOPIC: 1})
    held[TOPIC, 0] = (0, 5)
    done = repaired(contract_of(tmp_path / "c", 50), lake, Kafka([*RAW, *later]))
    assert (done.asked, done.resolved, done.added, done.left) == (3, 3, 3, [])
    assert notes(lake) == [(1, "new", False), (2, "too long again", False)]
    epochs = connect(lake).execute("SELECT _offset, _epoch FROM docs_changes ORDER BY _offset").fetchall()
    assert epochs == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1)]


def test_kept_bytes_take_the_place_of_records_that_kafka_lost(
    tmp_path: Path, held: dict[tuple[str, int], tuple[int, int]]
) -> None:
    lake, kept = Lake.open(str(tmp_path / "lake")), {"quarantine": {"payload": "encrypted", "keyId": "vault"}}
    commit(lake, contract_of(tmp_path / "c", 5, **kept), RAW)
    fixed = contract_of(tmp_path / "c", 50, **kept)
    without = repaired(fixed, lake, None, KeyRing({}))
    assert (without.resolved, len(without.gone)) == (0, 2)
    assert "its payload needs a key" in without.gone[0]["why"] and "vault" in without.gone[0]["why"]
    assert repaired(fixed, lake, Kafka([])).resolved == 2
    assert notes(lake) == [(1, "much too long", False), (2, "too long as well", False)]
    assert repaired(fixed, lake, None) == Repaired(0)


def test_records_that_are_nowhere_are_named(tmp_path: Path, held: dict[tuple[str, int], tuple[int, int]]) -> None:
    lake = Lake.open(str(tmp_path / "lake"))
    commit(lake, contract_of(tmp_path / "c", 5), RAW)
    held[TOPIC, 0] = (2, 3)  # Kafka's retention was faster
    done = repaired(contract_of(tmp_path / "c", 50), lake, Kafka(RAW))
    assert (done.resolved, [(one["offset"], one["why"]) for one in done.gone]) == (1, [(1, LOST)])


def test_records_that_the_job_has_not_committed_whole_are_left_to_it(
    tmp_path: Path, held: dict[tuple[str, int], tuple[int, int]]
) -> None:
    lake, strict = Lake.open(str(tmp_path / "lake")), contract_of(tmp_path / "c", 5)
    commit(lake, strict, RAW[:1])
    commit(lake, strict, [*RAW[1:], change(3, "c", 4, "x")], upto="quarantine")
    held[TOPIC, 0] = (0, 4)
    done = repaired(contract_of(tmp_path / "c", 50), lake, Kafka(RAW))
    assert (done.resolved, [one["why"] for one in done.gone]) == (0, [LATER, LATER])


def test_reports_show_what_waits_and_private_bytes_only_with_their_key(tmp_path: Path) -> None:
    lake, kept = Lake.open(str(tmp_path / "lake")), {"quarantine": {"payload": "encrypted", "keyId": "vault"}}
    contract = contract_of(tmp_path / "c", 5, **kept)
    commit(lake, contract, RAW)
    (tmp_path / "keys").write_text(f"vault = {base64.b64encode(b'v' * 32).decode()}\n", encoding="utf-8")
    said = io.StringIO()
    console = Console(file=said, width=160)
    show_counts(Quarantined(lake, contract).counts(Chosen()), "docs", console)
    for keys in (None, tmp_path / "keys"):
        found = records("docs", tmp_path / "c", lake.uri, Chosen(), keys=keys, first=1)
        show_records(found, "docs", console)
    show_repaired(Repaired(2, 1, 1, gone=[{"topic": "t", "partition": 0, "offset": 1, "why": LOST}]), "docs", console)
    text = said.getvalue()
    assert "note_length" in text and "2" in text and LOST[:30] in text
    closed, _, _ = text.partition("record key")
    assert "much too long" not in closed and "encrypted" in closed
    assert json.loads(records("docs", tmp_path / "c", lake.uri, Chosen(), keys=tmp_path / "keys", first=1)[0][
        "_payload"]["value"])["after"]["note"] == "much too long"  # fmt: skip
