"""Commit on every kind of storage: each offset once, in order, with progress in the same commit."""

from __future__ import annotations

import pytest
from deltalake import DeltaTable

from lakehouse.errors import GapFound
from lakehouse.identity import TopicIdentity
from lakehouse.lake import Lake
from tests.lakehouse.rows import (
    NOW,
    START,
    TOPIC,
    contract,
    no_gaps,
    offsets,
    other,
    reject,
    row,
    section,
    tables,
    values,
    write,
)


def test_every_record_reaches_the_table_of_its_verdict(lake: Lake) -> None:
    refs = write(lake, section([row(0), row(3, partition=1)], [reject(1)], [other(2)]))
    report = tables(lake).commit(refs, gaps=no_gaps, now_ms=NOW)
    assert offsets(lake) == [(0, 0), (1, 3)]
    assert offsets(lake, "orders_quarantine") == [(0, 1)]
    expected = {"read": 4, "applied": 2, "quarantined": 1, "rejected.undecodable": 1, "kind.tombstone": 1}
    assert report.counts == {**expected, "late": 0, "resent": 0}
    assert report.rows == 3
    assert report.versions == {"orders_quarantine": 1, "orders_changes": 1}


def test_committing_twice_equals_once(lake: Lake) -> None:
    refs = write(lake, section([row(0), row(1)], [reject(2)]))
    stream = tables(lake)
    stream.commit(refs, gaps=no_gaps, now_ms=NOW)
    for again in (stream, tables(lake)):
        assert again.commit(refs, gaps=no_gaps, now_ms=NOW).rows == 0
    assert offsets(lake) == [(0, 0), (0, 1)]
    assert offsets(lake, "orders_quarantine") == [(0, 2)]


def test_a_section_that_was_half_applied_is_cut_in_the_middle(lake: Lake) -> None:
    stream = tables(lake)
    stream.commit(write(lake, section([row(0), row(1)], [reject(2)])), gaps=no_gaps, now_ms=NOW)
    replayed = section([row(1), row(3), row(0, partition=1)], [reject(2), reject(4)])
    report = stream.commit(write(lake, replayed), gaps=no_gaps, now_ms=NOW)
    assert offsets(lake) == [(0, 0), (0, 1), (0, 3), (1, 0)]
    assert offsets(lake, "orders_quarantine") == [(0, 2), (0, 4)]
    assert report.counts["read"] == 3


def test_sections_are_applied_in_offset_order_whatever_order_they_come_in(lake: Lake) -> None:
    first = section([row(0), row(1)])
    second = section([row(2), row(3)], prev={(TOPIC, 0): 1})
    third = section([row(4)], prev={(TOPIC, 0): 3})
    refs = write(lake, third, first, second)
    tables(lake).commit(refs, gaps=no_gaps, now_ms=NOW)
    assert offsets(lake) == [(0, n) for n in range(5)]


def test_a_section_without_rows_moves_only_the_anchor(lake: Lake) -> None:
    stream = tables(lake)
    report = stream.commit(write(lake, section(others=[other(0), other(1)])), gaps=no_gaps, now_ms=NOW)
    assert report.versions == {"orders_quarantine": 0, "orders_changes": 1}
    assert stream.progress() == {(TOPIC, 0): 1}
    assert offsets(lake) == []


def test_rows_and_progress_are_in_one_commit(lake: Lake) -> None:
    refs = write(lake, section([row(0), row(7, partition=2)]))
    tables(lake).commit(refs, gaps=no_gaps, now_ms=NOW)
    table = DeltaTable(lake.table_uri("orders_changes"), storage_options=dict(lake.storage_options))
    assert table.version() == 1
    assert table.transaction_version(f"tidegate/test/{TOPIC}/0/0") == 0
    assert table.transaction_version(f"tidegate/test/{TOPIC}/2/0") == 7


def test_a_section_after_a_lost_one_is_refused_and_nothing_is_committed(lake: Lake) -> None:
    stream = tables(lake)
    stream.commit(write(lake, section([row(0)])), gaps=no_gaps, now_ms=NOW)
    refs = write(lake, section([row(5)], prev={(TOPIC, 0): 4}))
    with pytest.raises(GapFound, match=r"partition 0: the tables hold everything up to offset 0, .* offset 5"):
        stream.commit(refs, gaps=no_gaps, now_ms=NOW)
    assert offsets(lake) == [(0, 0)]


def test_when_nothing_came_before_a_section_kafka_is_asked_for_the_gap(lake: Lake) -> None:
    asked = []

    def gaps(topic: str, partition: int, after: int, before: int) -> bool:
        asked.append((topic, partition, after, before))
        return before == 9

    stream = tables(lake)
    stream.commit(write(lake, section([row(0)])), gaps=gaps, now_ms=NOW)
    stream.commit(write(lake, section([row(5)])), gaps=gaps, now_ms=NOW)  # 1 to 4: transaction markers
    with pytest.raises(GapFound):
        stream.commit(write(lake, section([row(9)])), gaps=gaps, now_ms=NOW)
    assert asked == [(TOPIC, 0, 0, 5), (TOPIC, 0, 5, 9)]
    assert offsets(lake) == [(0, 0), (0, 5)]


def test_gaps_inside_a_section_are_normal(lake: Lake) -> None:
    tables(lake).commit(write(lake, section([row(0), row(17), row(90)])), gaps=no_gaps, now_ms=NOW)
    assert offsets(lake) == [(0, 0), (0, 17), (0, 90)]


def test_a_commit_is_bounded_in_rows_and_the_call_goes_on(lake: Lake) -> None:
    parts = [section([row(n), row(n + 1)], prev={(TOPIC, 0): n - 1} if n else {}) for n in range(0, 10, 2)]
    report = tables(lake, max_rows=4).commit(write(lake, *parts), gaps=no_gaps, now_ms=NOW)
    assert report.commits == 3
    assert report.versions["orders_changes"] == 3
    assert offsets(lake) == [(0, n) for n in range(10)]


def test_a_stream_may_keep_one_table_only(lake: Lake) -> None:
    only = contract(tables=("changes",))
    report = tables(lake, only).commit(write(lake, section([row(0)], [reject(1)])), gaps=no_gaps, now_ms=NOW)
    assert report.versions == {"orders_changes": 1}
    assert lake.tables() == ["orders_changes"]


def test_verdicts_stand_beside_the_rows(lake: Lake) -> None:
    stream = tables(lake)
    rows = [
        row(0, event_ms=1_000_000),
        row(1, event_ms=1_000_000 - 10_001),
        row(2, event_ms=None, _position_minor=0, _position_major=1),
    ]
    stream.commit(write(lake, section(rows)), gaps=no_gaps, now_ms=NOW)
    assert values(lake, "_late, _lateness_ms, _resent, _epoch") == [
        (False, 0, False, 0), (True, 1, False, 0), (False, 0, True, 0),
    ]  # fmt: skip


def test_a_restart_judges_like_the_run_before(lake: Lake) -> None:
    for stream, event_ms in ((tables(lake), 1_000_000), (tables(lake), 900_000), (tables(lake), None)):
        offset = len(offsets(lake)) if lake.tables() else 0
        refs = write(lake, section([row(offset, event_ms=event_ms, _position_major=7, _position_minor=7)]))
        report = stream.commit(refs, gaps=no_gaps, now_ms=NOW)
        assert report.watermark_ms == 990_000
    assert values(lake, "_late, _lateness_ms, _resent") == [(False, 0, False), (True, 90_000, True), (False, 0, True)]


def test_snapshot_rows_are_never_resent(local: Lake) -> None:
    first = {"_position_major": None, "_position_minor": 9, "_op": "r", "_snapshot": "true"}
    beside = {"_op": "r", "_snapshot": "incremental", "_position_major": 50, "_position_minor": 50}
    rows = [
        row(0, **first),
        row(1, **first),
        row(2),
        row(3, **beside),
        row(4),
        row(5, **{**first, "_snapshot": "last"}),
    ]
    report = tables(local).commit(write(local, section(rows)), gaps=no_gaps, now_ms=NOW)
    assert report.counts["resent"] == 0


def test_a_key_change_is_resent_only_when_both_halves_come_again(local: Lake) -> None:
    place = {"_position_major": 5, "_position_minor": 5}
    halves = [lambda n: row(n, _op="d", **place), lambda n: row(n, _op="c", _previous_key='{"id":1}', **place)]
    stream = tables(local)
    for offset in (0, 2):
        rows = [half(offset + index) for index, half in enumerate(halves)]
        stream.commit(write(local, section(rows)), gaps=no_gaps, now_ms=NOW)
    assert [resent for (resent,) in values(local, "_resent")] == [False, False, True, True]


IDLE_MS = 60_000  # the default


def test_a_partition_with_unread_records_holds_the_watermark_back_when_a_stream_begins(lake: Lake) -> None:
    ends = TopicIdentity(ends={(TOPIC, 0): 1, (TOPIC, 1): 3, (TOPIC, 2): 0}, taken_at=0.0)
    stream = tables(lake)
    early = stream.commit(write(lake, section([row(0)])), gaps=no_gaps, identity=ends, now_ms=NOW)
    assert early.watermark_ms is None, "partition 1 has records; partition 2 has none"
    stream = tables(lake)  # a restart does not forget it
    behind = [row(offset, 1, event_ms=START - 500_000 + offset) for offset in range(3)]
    report = stream.commit(write(lake, section(behind)), gaps=no_gaps, identity=ends, now_ms=NOW + 1)
    assert report.counts["late"] == 0
    assert report.watermark_ms == START - 500_000 + 2 - 10_000


def test_a_partition_whose_records_never_come_is_idle_at_last(lake: Lake) -> None:
    ends = TopicIdentity(ends={(TOPIC, 0): 2, (TOPIC, 1): 3}, taken_at=0.0)
    stream = tables(lake)
    stream.commit(write(lake, section([row(0)])), gaps=no_gaps, identity=ends, now_ms=NOW)
    later = NOW + IDLE_MS + 1
    report = stream.commit(write(lake, section([row(1)], prev={(TOPIC, 0): 0})), gaps=no_gaps, now_ms=later)
    assert report.watermark_ms == START + 1_000 - 10_000


@pytest.mark.parametrize("unread", [True, False])
def test_after_a_pause_kafka_says_which_partitions_have_unread_records(local: Lake, unread: bool) -> None:
    stream = tables(local)
    stream.commit(write(local, section([row(0), row(0, 1)])), gaps=no_gaps, now_ms=NOW)
    ends = TopicIdentity(ends={(TOPIC, 0): 3, (TOPIC, 1): 2}, taken_at=0.0)  # the last of partition 1 may be a marker
    newer = write(local, section([row(1, event_ms=START + 900_000)], prev={(TOPIC, 0): 0}))
    later = NOW + IDLE_MS + 1
    report = stream.commit(newer, gaps=lambda *_: unread, identity=ends, now_ms=later)
    assert report.watermark_ms == (START - 10_000 if unread else START + 890_000)
