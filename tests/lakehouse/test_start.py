"""A start continues from the Delta log, at the lowest progress of all streams that read a partition."""

from __future__ import annotations

from lakehouse.lake import Lake
from lakehouse.start import lost_to_retention, read_positions, start_offsets
from tests.lakehouse.rows import CONTRACT, NOW, TOPIC, contract, no_gaps, other, row, section, tables, write

AUDIT = contract(stream="audit")
FRESH = contract(stream="fresh")


def test_a_partition_starts_at_the_lowest_progress_of_its_readers(lake: Lake) -> None:
    tables(lake).commit(write(lake, section([row(0), row(8)], others=[other(3, 1)])), gaps=no_gaps, now_ms=NOW)
    tables(lake, AUDIT).commit(write(lake, section([row(0), row(5)], of=AUDIT)), gaps=no_gaps, now_ms=NOW)
    positions = read_positions(lake, [CONTRACT, AUDIT, FRESH], "test")
    assert start_offsets(positions) == {(TOPIC, 0): 6, (TOPIC, 1): 4}
    assert positions["fresh"].state is None and positions["fresh"].progress == {}
    assert "fresh_changes" not in lake.tables(), "asking creates nothing"


def test_in_a_new_epoch_a_topic_has_no_progress(lake: Lake) -> None:
    tables(lake).commit(write(lake, section([row(8)])), gaps=no_gaps, now_ms=NOW)
    again = read_positions(lake, [CONTRACT], "test", {TOPIC: 1})
    assert start_offsets(again) == {}
    tables(lake, epochs={TOPIC: 1}).commit(write(lake, section([row(2)])), gaps=no_gaps, now_ms=NOW)
    later = read_positions(lake, [CONTRACT], "test")
    assert later["orders"].epochs == {TOPIC: 1}
    assert start_offsets(later) == {(TOPIC, 0): 3}


def test_what_retention_took_is_named_by_stream_and_range(local: Lake) -> None:
    tables(local).commit(write(local, section([row(8)])), gaps=no_gaps, now_ms=NOW)
    positions = read_positions(local, [CONTRACT], "test")
    assert lost_to_retention(positions, {(TOPIC, 0): 9}) == []
    (loss,) = lost_to_retention(positions, {(TOPIC, 0): 12})
    assert "9 to 11 were deleted" in str(loss)
