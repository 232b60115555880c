"""Reading the log from checkpoints and commits, and refusing tables that ask for what this writer does not do."""

from __future__ import annotations

from typing import Any

import numpy as np
import obstore
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from contracts.model import Storage
from lakehouse.errors import SchemaRefused, TableRefused
from lakehouse.lake import Lake
from lakehouse.merge.checkpoints import EVERY
from lakehouse.merge.log import DeltaLog, Snapshot
from lakehouse.merge.protocol import verify_protocol
from tests.lakehouse.merge.tables import (
    COLUMNS,
    NOTHING,
    Writer,
    by_deltalake,
    by_duckdb,
    by_location,
    log_of,
    merge_table,
    rows,
    state,
)


def names(lake: Lake) -> list[str]:
    return sorted(entry["path"].rpartition("/")[2] for entry in obstore.list(lake.objects, "t/_delta_log/").collect())


def same(one: Snapshot, other: Snapshot) -> bool:
    def files(snapshot: Snapshot) -> dict[str, Any]:
        return {path: (file.vector, file.size, file.rows, file.add["stats"]) for path, file in snapshot.files.items()}

    return (one.version, one.txns, files(one)) == (other.version, other.txns, files(other)) and (
        one.metadata["schemaString"], one.configuration, one.protocol
    ) == (other.metadata["schemaString"], other.configuration, other.protocol)  # fmt: skip


def test_checkpoints_are_made_and_a_fresh_open_begins_at_the_newest(lake: Lake) -> None:
    table = merge_table(lake, partition_by=("region",))
    writer = Writer(table)
    writer.apply(range(10))
    for i in range(EVERY + 3):
        writer.apply([100 + i], [100 + i - 1] if i else [0, 1])
    assert f"{EVERY:020}.checkpoint.parquet" in names(lake) and not table.checkpoints.failures
    for version in range(EVERY):  # only the checkpoint is left of them
        obstore.delete(lake.objects, f"t/_delta_log/{version:020}.json")
    fresh = merge_table(lake, partition_by=("region",))
    assert by_location(fresh) == by_deltalake(lake) == by_duckdb(lake) == sorted(writer.live)
    assert fresh.state() == table.state() and fresh.table_id == table.table_id
    assert fresh.progress([("topic", 0)]) == {("topic", 0): writer.commits}
    Writer(fresh).apply([999])
    assert by_deltalake(lake) == sorted([*writer.live, 999])


def test_a_checkpoint_says_the_same_as_the_commits_before_it(local: Lake) -> None:
    table = merge_table(local, partition_by=("region",))
    writer = Writer(table)
    writer.apply(range(20))
    writer.apply(range(20, 25), [0, 3, 7])
    log = DeltaLog(local, "t")
    by_commits = log.load()
    DeltaTable(local.table_uri("t")).create_checkpoint()
    by_checkpoint = log.load()
    assert by_commits is not None and by_checkpoint is not None
    assert (by_commits.checkpoint, by_checkpoint.checkpoint) == (-1, 2)
    assert same(by_commits, by_checkpoint)


def test_a_checkpoint_in_parts_is_read_when_it_is_complete(local: Lake) -> None:
    table = merge_table(local)
    writer = Writer(table)
    writer.apply(range(20))
    writer.apply(range(20, 25), [0, 3, 7])
    DeltaTable(local.table_uri("t")).create_checkpoint()
    whole = DeltaLog(local, "t").load()
    data = local.get(f"t/_delta_log/{2:020}.checkpoint.parquet")
    assert data is not None and whole is not None
    actions = pq.read_table(pa.BufferReader(data))
    obstore.delete(local.objects, f"t/_delta_log/{2:020}.checkpoint.parquet")
    parts = [actions.slice(start, 3) for start in range(0, len(actions), 3)]
    for number, part in enumerate(parts[:-1], 1):
        _put_part(local, number, len(parts), part)
    incomplete = DeltaLog(local, "t").load()
    assert incomplete is not None and incomplete.checkpoint == -1 and same(incomplete, whole)
    _put_part(local, len(parts), len(parts), parts[-1])
    for version in range(3):
        obstore.delete(local.objects, f"t/_delta_log/{version:020}.json")
    complete = DeltaLog(local, "t").load()
    assert complete is not None and complete.checkpoint == 2 and same(complete, whole)


def _put_part(lake: Lake, number: int, count: int, part: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(part, sink)
    lake.put(f"t/_delta_log/{2:020}.checkpoint.{number:010}.{count:010}.parquet", sink.getvalue().to_pybytes())


@pytest.mark.parametrize("hint", [b"", b"{", b'{"version":77}', b'{"version":"x"}', b"[]"])
def test_a_hint_that_is_stale_or_damaged_only_costs_time(local: Lake, hint: bytes) -> None:
    writer = Writer(merge_table(local))
    writer.apply(range(3))
    DeltaTable(local.table_uri("t")).create_checkpoint()
    writer.apply([3], [0])
    local.put("t/_delta_log/_last_checkpoint", hint)
    assert by_location(merge_table(local)) == [1, 2, 3]


def test_a_checkpoint_that_fails_never_fails_the_commit(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakehouse.merge import checkpoints as module

    monkeypatch.setattr(module, "EVERY", 2)
    monkeypatch.setattr(module, "AGAIN", 1)
    table = merge_table(local)
    with monkeypatch.context() as patched:
        patched.setattr(module, "DeltaTable", _fail)
        for i in range(3):
            table.commit(rows([i]), NOTHING, {}, state(i))
        assert table.checkpoints.failures == 2
    table.commit(rows([3]), NOTHING, {}, state(3))
    assert f"{4:020}.checkpoint.parquet" in names(local) and by_deltalake(local) == [0, 1, 2, 3]


def _fail(*asked: Any, **options: Any) -> Any:
    raise OSError("no answer")


def test_going_forward_costs_what_changed_not_what_there_is(local: Lake) -> None:
    """The steps of one commit are counted, not timed: no pass over all files."""
    table = merge_table(local)
    Writer(table).apply(range(3))
    snapshot = DeltaLog(local, "t").load()
    assert snapshot is not None
    (file,) = snapshot.files.values()
    snapshot.files = _Watched({f"f{i}": file for i in range(10_000)} | snapshot.files)
    table.commit(rows([9]), np.array([0]), {}, state())
    assert [change.version for change in DeltaLog(local, "t").advance(snapshot)] == [2]
    assert len(snapshot.files) == 10_002 and not snapshot.files.passes


class _Watched(dict[str, Any]):
    passes = 0

    def __iter__(self) -> Any:
        self.passes += 1
        return super().__iter__()

    items = values = keys = __iter__  # type: ignore[assignment]


GUARDED: list[tuple[str, dict[str, Any], str]] = [
    ("protocol", {"minReaderVersion": 4}, "its protocol is 4/7, this writer knows those up to 3/7"),
    ("protocol", {"minWriterVersion": 8}, "its protocol is 3/8"),
    ("protocol", {"writerFeatures": ["deletionVectors", "rowTracking", "zzz"]}, "does not know: rowTracking, zzz"),
    ("protocol", {"readerFeatures": ["deletionVectors", "v2Checkpoint"]}, "v2Checkpoint"),
    ("protocol", {"readerFeatures": ["deletionVectors", "typeWidening"]}, "typeWidening"),
    ("configuration", {"delta.enableChangeDataFeed": "true"}, "delta.enableChangeDataFeed is true"),
    ("configuration", {"delta.appendOnly": "true"}, "delta.appendOnly is true"),
    ("configuration", {"delta.columnMapping.mode": "name"}, "delta.columnMapping.mode is name"),
    ("configuration", {"delta.enableInCommitTimestamps": "true"}, "InCommitTimestamps"),
    ("configuration", {"delta.checkpointPolicy": "v2"}, "checkpointPolicy is v2"),
    ("configuration", {"delta.constraints.positive": "id > 0"}, "check constraints: delta.constraints.positive"),
    ("column", {"delta.identity.start": 1}, "column id has delta.identity.start"),
    ("column", {"delta.invariants": "{}"}, "column id has delta.invariants"),
    ("column", {"delta.generationExpression": "1"}, "column id has delta.generationExpression"),
]


@pytest.mark.parametrize(("where", "changed", "said"), GUARDED)
def test_a_table_that_asks_for_more_is_refused_with_the_reason(
    local: Lake, where: str, changed: dict[str, Any], said: str
) -> None:
    merge_table(local)
    table = merge_table(local)
    actions: list[Any] = [dict(action) for action in log_of(local, 0)]
    protocol, metadata = actions[1]["protocol"], actions[2]["metaData"]
    if where == "protocol":
        protocol |= changed
    elif where == "configuration":
        metadata["configuration"] |= changed
    else:
        columns = orjson.loads(metadata["schemaString"])
        columns["fields"][0]["metadata"] = changed
        metadata["schemaString"] = orjson.dumps(columns).decode()
    local.put(f"t/_delta_log/{1:020}.json", b"\n".join(map(orjson.dumps, actions)))
    for _ in range(2):  # refused now stays refused
        with pytest.raises(TableRefused, match="table t cannot be written") as caught:
            table.open()
        assert said in str(caught.value) and "Drop the feature from the table" in str(caught.value)
    with pytest.raises(TableRefused):
        merge_table(local)


@pytest.mark.parametrize(
    ("where", "changed"),
    [
        ("writerFeatures", ["appendOnly", "invariants", "changeDataFeed", "checkConstraints", "domainMetadata"]),
        ("readerFeatures", ["variantType", "vacuumProtocolCheck"]),
    ],
)
def test_features_that_are_listed_but_not_used_are_no_obstacle(local: Lake, where: str, changed: list[str]) -> None:
    merge_table(local)
    actions: list[Any] = [dict(action) for action in log_of(local, 0)]
    actions[1]["protocol"][where] += changed
    local.put(f"t/_delta_log/{1:020}.json", b"\n".join(map(orjson.dumps, actions)))
    assert merge_table(local).version == 1


def test_a_table_that_delta_rs_made_with_vectors_enabled_is_taken(local: Lake) -> None:
    configuration = {"delta.enableDeletionVectors": "true"}
    DeltaTable.create(local.table_uri("t"), COLUMNS, configuration=configuration)
    table = merge_table(local)
    table.evolve()
    writer = Writer(table)
    writer.apply(range(3))
    writer.apply([], [1])
    assert by_deltalake(local) == by_duckdb(local) == [0, 2]


@pytest.mark.parametrize(("where", "changed", "said"), [one for one in GUARDED if one[0] != "protocol"])
def test_an_old_protocol_is_no_way_around_the_guard(
    local: Lake, where: str, changed: dict[str, Any], said: str
) -> None:
    """Before versions that list their features, a property or a column alone asks for them."""
    protocol, own = {"minReaderVersion": 2, "minWriterVersion": 6}, changed if where == "column" else {}
    columns = {"fields": [{"name": "id", "type": "long", "nullable": True, "metadata": own}]}
    metadata = {
        "configuration": changed if where == "configuration" else {},
        "schemaString": orjson.dumps({"type": "struct", **columns}).decode(),
    }
    with pytest.raises(TableRefused, match=r"t cannot be written") as caught:
        verify_protocol("t", protocol, metadata)
    assert said in str(caught.value)


@pytest.mark.parametrize("configuration", [{}, {"delta.appendOnly": "false"}])
def test_a_table_without_vectors_is_written_copy_on_write_and_says_so(
    lake: Lake, configuration: dict[str, str]
) -> None:
    options = dict(lake.storage_options)
    DeltaTable.create(lake.table_uri("t"), COLUMNS, configuration=configuration, storage_options=options)
    table = merge_table(lake)
    table.evolve()
    writer = Writer(table)
    writer.apply(range(6))
    writer.apply([6], [1, 4])
    assert by_deltalake(lake) == by_duckdb(lake) == [0, 2, 3, 5, 6]
    read = DeltaTable(lake.table_uri("t"), storage_options=options)
    assert (read.protocol().min_reader_version, read.protocol().min_writer_version) == (1, 2)
    assert "delta.enableDeletionVectors" not in read.metadata().configuration
    assert table.copies and "Give it vectors with `tidegate migrate`" in (table.fallback or "")
    assert merge_table(lake, storage=Storage.COPY_ON_WRITE).fallback is None


def test_a_table_whose_contract_wants_no_vectors_any_more_names_the_way(local: Lake) -> None:
    assert merge_table(local).fallback is None
    with pytest.raises(SchemaRefused, match="Rewrite it with `tidegate migrate`"):
        merge_table(local, storage=Storage.COPY_ON_WRITE).evolve()


def test_shallow_clones_and_logs_without_a_beginning_are_refused(local: Lake) -> None:
    writer = Writer(merge_table(local))
    writer.apply([1])
    actions: list[Any] = [dict(action) for action in log_of(local, 1)]
    actions[-1]["add"]["path"] = "s3://elsewhere/part-0.parquet"
    local.put(f"t/_delta_log/{1:020}.json", b"\n".join(map(orjson.dumps, actions)))
    with pytest.raises(TableRefused, match="shallow clone"):
        merge_table(local)
    obstore.delete(local.objects, f"t/_delta_log/{0:020}.json")
    with pytest.raises(TableRefused, match="begins at version 1"):
        merge_table(local)


def test_a_log_that_was_cleaned_while_this_process_waited_is_read_afresh(local: Lake) -> None:
    waiting, table = merge_table(local), merge_table(local)
    writer = Writer(table)
    writer.apply(range(10))
    waiting.open()
    assert waiting.news().new == {0}
    writer.apply([10], [3])
    writer.apply([11])
    DeltaTable(local.table_uri("t")).create_checkpoint()
    for version in range(3):
        obstore.delete(local.objects, f"t/_delta_log/{version:020}.json")
    waiting.open()
    news = waiting.news()
    assert (waiting.version, len(news.new), news.gone, news.changed) == (3, 2, frozenset(), {0})
    assert by_location(waiting) == by_deltalake(local) == sorted(writer.live)


def test_a_damaged_vector_stops_the_table_and_says_which(local: Lake) -> None:
    writer = Writer(merge_table(local))
    writer.apply(range(10))
    writer.apply([], [3])
    table = merge_table(local)
    vector = table.files()[0].vector
    assert vector is not None
    data = local.get(f"t/{vector.path}")
    assert data is not None
    local.put(f"t/{vector.path}", data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(TableRefused, match=r"table t: a deletion vector is damaged: _vectors/.*wrong checksum"):
        table.dead(0)
