"""Several streams from one topic, one from several, one that must stop: and nowhere a private value in clear."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import contracts
from jobs.stack import Stack
from lakehouse.segments import SECTION, SECTION_MAGIC
from tests import corpus
from tests.flows.pipeline import Pipeline, accounted
from tests.flows.streams import parked
from tests.udfs.corpus_state import changes

pytestmark = pytest.mark.integration

SHOP = Path(contracts.__file__).parent / "shop"
OWN = Path(__file__).parent / "contracts"


@pytest.fixture(scope="module")
def shared(corpus_in_kafka: Stack, tmp_path_factory: pytest.TempPathFactory) -> tuple[Pipeline, Path]:
    """The shop's contracts and our own, on the topics of the corpus, in one job."""
    folder = tmp_path_factory.mktemp("shared")
    for file in (*SHOP.glob("*.yaml"), *OWN.glob("*.yaml")):
        shutil.copy(file, folder)
    pipeline = Pipeline(corpus_in_kafka, tmp_path_factory.mktemp("sealed") / "lake", "shared")
    assert pipeline.catch_up(folder)["parked"] == ["accounts"]
    return pipeline, folder


def test_every_stream_accounts_for_all_records_of_its_topics(shared: tuple[Pipeline, Path]) -> None:
    pipeline, folder = shared
    read = {stream: accounted(counts) for stream, counts in pipeline.counts(folder).items() if stream != "accounts"}
    users = len(corpus.messages("json", "users"))
    signals = [len(corpus.messages("avro", f"dbz_signal_{name}")) for name in ("avro", "flat", "json")]
    assert read == {
        "users": users,
        "sealed_users": users,
        "new_users": users,
        "blocked_users": users,
        "orders": len(corpus.messages("json", "orders")),
        "products": len(corpus.messages("json", "products")),
        "signals": sum(signals),
        "readings": len(
            corpus.messages("json-schema", "metrics_2024") + corpus.messages("json-schema", "metrics_2025")
        ),
    }


def test_contracts_of_one_topic_get_the_rows_that_their_filters_let_through(shared: tuple[Pipeline, Path]) -> None:
    pipeline, folder = shared
    counts = pipeline.counts(folder)
    rows = changes("json", "users")
    with pipeline.query() as duck:
        for status in ("new", "blocked"):
            # A delete has no status to decide by: every stream gets it.
            true = Counter((row["id"], row["_op"]) for row in rows if row["status"] == status or row["_op"] == "d")
            found = duck.execute(f"SELECT id, _op FROM {status}_users_changes").fetchall()
            assert Counter(found) == true
            assert counts[f"{status}_users"]["kind.filtered"] == len(rows) - len(found)


def test_one_contract_reads_several_topics_named_or_matched(shared: tuple[Pipeline, Path]) -> None:
    pipeline, _ = shared
    with pipeline.query() as duck:
        signals = duck.execute("SELECT _topic, count(*) FROM signals_changes GROUP BY ALL ORDER BY ALL").fetchall()
        readings = duck.execute("SELECT _topic, count(*) FROM readings_changes GROUP BY ALL ORDER BY ALL").fetchall()
    assert signals == [(f"cdca.public.dbz_signal_{name}", 11) for name in ("avro", "flat", "json")]
    parts = [f"metrics_{year}" for year in (2024, 2025)]
    assert readings == [(corpus.topic("json-schema", part), len(changes("json-schema", part))) for part in parts]


def test_a_rule_of_action_fail_parks_its_stream_and_says_at_which_record(shared: tuple[Pipeline, Path]) -> None:
    pipeline, _ = shared
    (record,) = [
        m
        for m in corpus.messages("json", "accounts_full")
        if m["value"] and b'"op":"r"' in m["value"] and m["partition"] == 1
    ]
    reason = parked(pipeline)["accounts"]
    assert "balance_maximum" in reason
    assert f"{record['topic']}/1 offset {record['offset']} " in reason
    with pipeline.query() as duck:
        tables = {
            name for (name,) in duck.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        }
        held = (
            duck.execute("SELECT _partition, _offset FROM accounts_changes").fetchall()
            if "accounts_changes" in tables
            else []
        )
    assert (1, record["offset"]) not in held


def test_masks_leave_equal_values_equal_and_nothing_else(shared: tuple[Pipeline, Path]) -> None:
    pipeline, _ = shared
    rows = {(row["_partition"], row["_offset"]): row for row in changes("json", "users")}
    with pipeline.query() as duck:
        sealed = duck.execute(
            "SELECT _partition, _offset, id, email, name, greeting, _op FROM sealed_users_changes"
        ).fetchall()
    ids: dict[str, set[int]] = {}
    names = [name for *_, name, _, _ in sealed if name is not None]
    assert len(names) == len(set(names)) > 20  # AES-GCM: equal names differ
    for partition, offset, token, email, _, greeting, op in sealed:
        true = rows[partition, offset]
        ids.setdefault(token, set()).add(true["id"])
        assert (email is None) == (true["email"] is None)
        assert greeting is None if op == "d" else greeting == "*" * (len(true["name"]) + 4) + true["name"][-1]
    assert all(len(found) == 1 for found in ids.values())
    assert len(ids) == len({row["id"] for row in rows.values() if row["name"] is not None or row["_op"] == "d"})


def test_no_private_value_is_anywhere_in_the_lake(shared: tuple[Pipeline, Path]) -> None:
    pipeline, _ = shared
    private = _private_values()
    assert len(private) > 80
    lake = Path(pipeline.lake)
    searched = Counter[str]()
    for file in (file for file in lake.rglob("*") if file.is_file()):
        for content in _contents(file):
            found = [value for value in private if value in content]
            assert not found, f"{len(found)} private values in {file.relative_to(lake)}"
        searched["segment" if "segments" in file.parts else file.suffix] += 1
    assert searched[".parquet"] >= 10
    assert searched[".json"] >= 20
    assert searched["segment"] >= 1


def test_no_private_value_is_in_the_logs_of_the_cluster(shared: tuple[Pipeline, Path]) -> None:
    pipeline, _ = shared
    logs = [file for suffix in ("log", "out") for file in (pipeline.stack.home / "flink").rglob(f"*.{suffix}")]
    assert sum(file.stat().st_size for file in logs) > 10_000
    addresses = [value for value in _private_values() if b"@" in value]
    for log in logs:
        content = log.read_bytes()
        assert not [value for value in addresses if value in content], log.name


def test_the_search_for_private_values_would_find_one(shared: tuple[Pipeline, Path], tmp_path: Path) -> None:
    value = "Ünïcode 🙂"
    table = pa.table({"name": ["x", value, value], "n": [1, 2, 3]})
    pq.write_table(table, tmp_path / "t.parquet", compression="zstd")
    assert value.encode() in _private_values()
    assert any(value.encode() in content for content in _contents(tmp_path / "t.parquet"))


def _private_values() -> set[bytes]:
    """Every clear value of a private column in the topics of the shop, as UTF-8 and as JSON may escape it."""
    users, orders, accounts = (changes("json", table) for table in ("users", "orders", "accounts_full"))
    texts = {row[name] for row in users for name in ("email", "name", "prefs")}
    texts |= {row["remark"] for row in orders} | {f"Dear {row['name']}" for row in users if row["name"]}
    texts |= {json.dumps(text)[1:-1] for text in texts if text}
    # "ann" and "bob" are too short to be told from chance, their JSON is not.
    texts |= {f'"owner":"{row["owner"]}"' for row in accounts if row["owner"]}
    return {text.encode() for text in texts if text}


def _contents(file: Path) -> Iterator[bytes]:
    """Give a file's bytes, and what it holds once uncompressed."""
    raw = file.read_bytes()
    yield raw
    if file.suffix == ".parquet":
        yield _uncompressed(pq.read_table(file))
    elif raw.startswith(SECTION_MAGIC):
        yield from (_uncompressed(table) for table in _sections(raw))


def _sections(raw: bytes) -> Iterator[pa.Table]:
    """Give every table of a segment, found by its sections' headers and not by references."""
    start = 0
    while raw[start : start + len(SECTION_MAGIC)] == SECTION_MAGIC:
        _, *lengths = SECTION.unpack_from(raw, start)
        start += SECTION.size
        for length in lengths:
            if length:
                yield pa.ipc.open_stream(raw[start : start + length]).read_all()
            start += length


def _uncompressed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
