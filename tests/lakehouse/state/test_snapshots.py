"""A new snapshot finds rows that vanished while the connector was down, and only those."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from contracts.model import Start, Storage, Vanished
from lakehouse.begins import keep_begins
from lakehouse.commit import StreamTables
from lakehouse.identity import TopicIdentity
from lakehouse.lake import Lake
from lakehouse.plan import GapOracle
from lakehouse.segments import Range
from tests.lakehouse.rows import NOW, no_gaps, section, tables, write
from tests.lakehouse.state.source import TOPIC, contract
from tests.lakehouse.state.test_state_laws import held

TWO = (0, 1)


def change(offset: int, key: int, position: int, partition: int = 0, **values: Any) -> dict[str, Any]:
    times = {"_source_time": position * 1000, "_event_time": position * 1000, "_ingested_at": 0}
    place = {"_topic": TOPIC, "_partition": partition, "_offset": offset}
    return {"id": key, "n": 1, "_op": "c", "_position_major": position, "_position_minor": position} | {
        **times, **place, **values,
    }  # fmt: skip


def read(offset: int, key: int, position: int, partition: int = 0, word: str = "true") -> dict[str, Any]:
    """Give a row of an initial snapshot."""
    return change(offset, key, position, partition, _op="r", _position_major=None, _snapshot=word)


def all_readable(_topic: str, _partition: int, after: int, before: int) -> bool:
    """Say that every offset is that of a record."""
    return before - after > 1


def commit(  # noqa: PLR0917
    stream: StreamTables,
    lake: Lake,
    rows: list[dict[str, Any]],
    now_ms: int,
    ends: dict[int, int] | None = None,
    gaps: GapOracle = all_readable,
) -> None:
    firsts: dict[int, int] = {}
    for row in rows:
        firsts[row["_partition"]] = min(firsts.get(row["_partition"], row["_offset"]), row["_offset"])
    prev = {(TOPIC, partition): first - 1 for partition, first in firsts.items() if first}
    found = {(TOPIC, partition): end for partition, end in (ends or {}).items()}
    identity = TopicIdentity({TOPIC: "id"}, found, time.monotonic()) if ends else None
    stream.commit(
        write(lake, section(rows, of=stream.contract, prev=prev)), gaps=gaps, now_ms=now_ms, identity=identity
    )


def followed(
    lake: Lake, policy: Vanished, share: float = 0.5, storage: Storage = Storage.MERGE_ON_READ
) -> StreamTables:
    """Five rows; then a snapshot at position 100 without rows 3 and 4, complete on both partitions; row 5 is newer."""
    stream = tables(lake, contract(vanished=policy, vanished_share=share, storage=storage))
    commit(stream, lake, [change(n, n, 10 + n) for n in range(5)], NOW)
    rows = [read(5, 0, 100), read(6, 1, 100), read(0, 2, 100, 1, "last"), change(1, 5, 200, 1)]
    commit(stream, lake, rows, NOW + 1)
    assert held(lake, "docs", "id") == [(n,) for n in range(6)]
    commit(stream, lake, [change(7, 0, 300)], NOW + 2_000, {0: 9, 1: 2})
    assert held(lake, "docs", "id") == [(n,) for n in range(6)]  # partition 0 has not reached its end
    commit(stream, lake, [change(8, 0, 310)], NOW + 3_000)
    return stream


def test_a_row_whose_snapshot_waits_in_quarantine_has_not_vanished(local: Lake) -> None:
    stream = tables(local, contract(vanished=Vanished.DELETE, vanished_share=0.9))
    commit(stream, local, [change(n, n, 10 + n) for n in range(3)], NOW)
    refused = read(3, 0, 100) | {"_kind": "rejected"}
    kept, ranges = [read(4, 1, 100, word="last")], [Range(TOPIC, 0, 2, 3, 4, 2)]
    made = section(kept, of=stream.contract, ranges=ranges, withheld=[refused])
    stream.commit(write(local, made), gaps=no_gaps, now_ms=NOW + 1)
    commit(stream, local, [change(5, 1, 300)], NOW + 2_000, {0: 6})
    commit(stream, local, [change(6, 1, 310)], NOW + 3_000)
    assert held(local, "docs", "id, _stale") == [(0, True), (1, False)]


@pytest.mark.parametrize("kind", ["filtered", "dropped", "rejected"])
@pytest.mark.parametrize("alone", [False, True])
def test_a_snapshot_ends_also_with_a_row_that_is_no_change(local: Lake, kind: str, alone: bool) -> None:
    stream = tables(local, contract(vanished=Vanished.DELETE, vanished_share=1.0))
    commit(stream, local, [change(n, n, 10 + n) for n in range(3)], NOW)
    kept = [] if alone else [read(3, 0, 100)]
    last = [read(4 - alone, 0 if alone else 1, 100, word="last") | {"_kind": kind}]
    ranges = [Range(TOPIC, 0, 2, 3, 4 - alone, 2 - alone)]
    made = section(kept, of=stream.contract, ranges=ranges, withheld=last)
    stream.commit(write(local, made), gaps=no_gaps, now_ms=NOW + 1)
    commit(stream, local, [change(5 - alone, 9, 300)], NOW + 2_000, {0: 6 - alone})
    commit(stream, local, [change(6 - alone, 9, 310)], NOW + 3_000)
    there = {0} if alone else {0, 1}
    gone = {max(there)} if kind == "filtered" else set()
    assert held(local, "docs", "id") == [(key,) for key in sorted({*there, 9} - gone)]


def test_snapshots_of_a_database_with_files_are_compared_too(local: Lake) -> None:
    stream = tables(local, contract(vanished=Vanished.DELETE, vanished_share=0.9))
    commit(stream, local, [change(n, n, 10 + n) for n in range(3)], NOW)
    placed = {"_position_major": 100}  # the number of a binlog file
    commit(stream, local, [read(3, 0, 7) | placed, read(4, 1, 7, word="last") | placed], NOW + 1)
    commit(stream, local, [change(5, 1, 300)], NOW + 2_000, {0: 6})
    commit(stream, local, [change(6, 1, 310)], NOW + 3_000)
    assert held(local, "docs", "id") == [(0,), (1,)]


def snapshot_of(stream: StreamTables) -> dict[str, Any]:
    state = stream.anchor.state()
    assert state is not None
    return dict(state.snapshots[TOPIC])


def test_vanished_rows_are_removed_once_nothing_of_the_snapshot_is_under_way(local: Lake, storage: Storage) -> None:
    stream = followed(local, Vanished.DELETE, storage=storage)
    assert held(local, "docs", "id") == [(0,), (1,), (2,), (5,)]
    assert held(local, "docs_history", "id, epoch_ms(_valid_to)", "id IN (3, 4)") == [(3, 100), (4, 100)]
    commit(stream, local, [change(9, 3, 12, _op="u")], NOW + 4_000)  # a late update revives nothing
    assert held(local, "docs", "id") == [(0,), (1,), (2,), (5,)]
    commit(stream, local, [change(10, 3, 400)], NOW + 5_000)
    assert held(local, "docs", "id") == [(0,), (1,), (2,), (3,), (5,)]


def test_by_default_they_are_counted_only(local: Lake) -> None:
    stream = followed(local, Vanished.REPORT)
    assert held(local, "docs", "count(*)") == [(6,)]
    assert (snapshot_of(stream)["found"], snapshot_of(stream)["removed"]) == (2, 0)


def test_more_than_the_share_is_left_alone(local: Lake) -> None:
    stream = followed(local, Vanished.DELETE, share=0.1)
    assert held(local, "docs", "count(*)") == [(6,)]
    assert snapshot_of(stream)["found"] == 2


def test_switched_off_nothing_is_looked_for(local: Lake) -> None:
    stream = followed(local, Vanished.OFF)
    state = stream.anchor.state()
    assert state is not None and state.snapshots == {}


@pytest.mark.parametrize("policy", [Vanished.REPORT, Vanished.DELETE])
def test_a_row_of_the_snapshot_in_the_commit_that_reaches_the_ends_has_not_vanished(
    local: Lake, policy: Vanished
) -> None:
    stream = tables(local, contract(vanished=policy, vanished_share=0.5))
    commit(stream, local, [change(n, n, 10 + n) for n in range(4)], NOW)
    commit(stream, local, [read(4, 0, 100, word="last")], NOW + 1)
    commit(stream, local, [change(5, 0, 300)], NOW + 2_000, {0: 6, 1: 2})
    commit(stream, local, [read(0, 1, 100, 1), change(1, 2, 310, 1)], NOW + 3_000)
    assert snapshot_of(stream)["found"] == 1
    assert held(local, "docs", "id") == [(0,), (1,), (2,), *([(3,)] if policy is Vanished.REPORT else [])]


def test_ends_below_which_nothing_is_readable_are_reached_and_kafka_is_asked_once(local: Lake) -> None:
    asked = []

    def readable(_topic: str, partition: int, after: int, before: int) -> bool:
        asked.append((partition, after, before))
        return partition == 3

    stream = tables(local, contract(vanished=Vanished.DELETE, vanished_share=0.9))
    commit(stream, local, [change(n, n, 10 + n) for n in range(3)] + [change(0, 9, 20, 1)], NOW)
    commit(stream, local, [read(3, 0, 100), read(1, 9, 100, 1, "last")], NOW + 1)
    # Behind partition 1's rows a transaction ends; all that partition 2 held is deleted; partition 3 is read late.
    ends = {0: 5, 1: 3, 2: 700, 3: 1}
    commit(stream, local, [change(4, 0, 300)], NOW + 2_000, ends, readable)
    assert sorted(asked) == [(1, 1, 3), (2, -1, 700), (3, -1, 1)]
    for n in range(2):
        commit(stream, local, [change(5 + n, 0, 301 + n)], NOW + 3_000 + n, gaps=readable)
    assert asked[3:] == [(3, -1, 1)] * 2 and held(local, "docs", "id") == [(0,), (1,), (2,), (9,)]
    commit(stream, local, [read(0, 1, 100, 3)], NOW + 4_000, gaps=readable)
    assert held(local, "docs", "id") == [(0,), (1,), (9,)]


def test_kafka_is_not_asked_for_a_partition_whose_records_are_coming(local: Lake) -> None:
    def readable(*_: Any) -> bool:
        raise AssertionError("asked")

    stream = tables(local, contract(vanished=Vanished.DELETE, vanished_share=0.9))
    commit(stream, local, [change(n, n, 10 + n) for n in range(3)], NOW)
    commit(stream, local, [read(3, 0, 100, word="last")], NOW + 1)
    commit(stream, local, [change(4, 0, 300)], NOW + 2_000, {0: 7, 1: 3}, readable)
    commit(stream, local, [change(5, 0, 301)], NOW + 3_000, gaps=readable)
    assert held(local, "docs", "count(*)") == [(3,)]


def test_records_before_the_streams_begin_are_not_waited_for(local: Lake) -> None:
    of = dataclasses.replace(contract(vanished=Vanished.DELETE, vanished_share=0.9), start=Start.LATEST)
    keep_begins(local, "test", "docs", {TOPIC: "id"}, {(TOPIC, 0): 0, (TOPIC, 1): 50, (TOPIC, 2): 50})
    stream = tables(local, of)
    commit(stream, local, [change(n, n, 10 + n) for n in range(3)], NOW)
    commit(stream, local, [read(3, 0, 100, word="last")], NOW + 1)
    commit(stream, local, [change(4, 0, 300)], NOW + 2_000, {0: 5, 1: 50, 2: 51})
    assert held(local, "docs", "count(*)") == [(3,)]
    made = section([read(50, 1, 100, 2), change(5, 0, 301)], of=of, prev={(TOPIC, 0): 4})
    stream.commit(write(local, made), gaps=all_readable, now_ms=NOW + 3_000)
    assert held(local, "docs", "id") == [(0,), (1,)]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("values", [{}, {"n": 7}], ids=["as it was", "changed"])
def test_a_row_of_the_snapshot_that_comes_after_its_own_end_wins(
    tmp_path: Path, values: dict[str, Any], soft: bool
) -> None:
    """What was not in Kafka yet when it was asked for the ends is there all the same, as if it had come in time."""
    found = []
    of = contract(vanished=Vanished.DELETE, vanished_share=0.9, soft_deletes=soft)
    for name, late in (("in time", False), ("late", True)):
        lake = Lake.open(str(tmp_path / name))
        stream = tables(lake, of)
        mine = read(0, 1, 100, 1) | values | {"_source_time": 120_000}
        commit(stream, lake, [change(n, n, 10 + n) for n in range(3)], NOW)
        commit(stream, lake, [read(3, 0, 100, word="last"), *([] if late else [mine])], NOW + 1)
        commit(stream, lake, [change(4, 0, 300)], NOW + 2_000, {0: 5, 1: 0 if late else 1})
        assert held(lake, "docs", "id", "_deleted IS NOT TRUE" if soft else "true") == [(0,), *([] if late else [(1,)])]
        commit(stream, lake, [change(5, 0, 310), *([mine] if late else [])], NOW + 3_000)
        found.append(told_of(lake, 1, soft))
        commit(stream, lake, [change(6, 1, 50, _op="u", n=3)], NOW + 4_000)  # before the snapshot
        found.append(told_of(lake, 1, soft))
        commit(stream, lake, [change(7, 1, 400, _op="d", n=None), change(8, 1, 410)], NOW + 5_000)
        found.append(told_of(lake, 1, soft))
    assert found[:3] == found[3:]
    assert found[0][0] == [(values.get("n", 1), 100, 0, False)] and len(found[0][1]) == 1 + len(values)


def told_of(lake: Lake, key: int, soft: bool) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Give what current and history say of a key, positions and times included."""
    times = "epoch_ms(_valid_from), epoch_ms(_valid_to), _is_current, _memo.begin_major, _memo.begin_minor"
    return (
        held(lake, "docs", f"n, _order_major, _order_minor, {'_deleted' if soft else 'false'}", f"id = {key}"),
        held(lake, "docs_history", f"n, _order_major, _order_minor, {times}", f"id = {key}"),
    )


@pytest.mark.parametrize("restart", [False, True])
def test_a_snapshot_that_holds_every_row_finds_none(local: Lake, restart: bool) -> None:
    stream = tables(local, contract(vanished=Vanished.DELETE))
    commit(stream, local, [change(0, 1, 10)], NOW)
    commit(stream, local, [read(1, 1, 100, word="last")], NOW + 1)
    stream = tables(local, stream.contract) if restart else stream
    commit(stream, local, [change(2, 2, 110)], NOW + 2_000, {0: 3})
    commit(stream, local, [change(3, 2, 120)], NOW + 3_000)
    assert (snapshot_of(stream)["found"], held(local, "docs", "id")) == (0, [(1,), (2,)])


@pytest.mark.parametrize("apart", [False, True])
def test_a_change_written_before_a_snapshot_and_committed_after_it_wins(local: Lake, apart: bool) -> None:
    # The first transaction of a connector: nothing was committed before it, its own LSN is all that it says.
    first = change(1, 1, 100, _op="u", n=7, _position_major=None)
    stream = tables(local, contract())
    for rows in [[read(0, 1, 200)], [first]] if apart else [[read(0, 1, 200), first]]:
        commit(stream, local, rows, NOW)
    assert held(local, "docs", "id, n") == [(1, 7)]
    commit(stream, local, [change(2, 1, 250, _op="u", n=8), first | {"_offset": 3}], NOW)  # sent again
    assert held(local, "docs", "id, n") == [(1, 8)]
    assert held(local, "docs_history", "n, _is_current") == [(1, False), (7, False), (8, True)]


def test_tables_built_from_changes_rank_them_by_the_snapshots_before_them(local: Lake) -> None:
    of = contract()
    stream = tables(local, dataclasses.replace(of, tables=("quarantine", "changes")))
    first = change(1, 1, 100, _op="u", n=7, _position_major=None)
    for rows in [[read(0, 1, 200)], [first], [read(2, 1, 300) | {"n": 9}]]:
        commit(stream, local, rows, NOW)
    tables(local, of).prepare()
    assert held(local, "docs_history", "n, _is_current") == [(1, False), (7, False), (9, True)]
