"""Positions of a source that begin again are seen at its new snapshot, and nothing else is taken for that."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.commit import StreamTables
from lakehouse.epochs import accept_restarts
from lakehouse.errors import PositionsRestarted
from lakehouse.lake import Lake
from lakehouse.standing import standing_of
from tests.lakehouse.rows import NOW, no_gaps, section, tables, write
from tests.lakehouse.state.source import TOPIC, contract
from tests.lakehouse.state.test_snapshots import change, commit, read
from tests.lakehouse.state.test_state_laws import LAW, held

Row = dict[str, Any]
BINLOG = {"_position_major": 3}  # the number of a file, beside the place in it


def stopped(stream: StreamTables, lake: Lake, rows: list[Row]) -> PositionsRestarted:
    """Commit rows, and give the error that stops the stream."""
    with pytest.raises(PositionsRestarted) as told:
        commit(stream, lake, rows, NOW)
    return told.value


def reached(lake: Lake) -> dict[int, int]:
    """Give the last offset of each partition."""
    return {number: last for (_, number), last in standing_of(lake, contract(), "test").progress.items()}


@pytest.mark.parametrize("restart", [False, True])
def test_a_new_snapshot_below_what_was_streamed_stops_the_stream(local: Lake, restart: bool) -> None:
    stream = tables(local, contract())
    commit(stream, local, [read(0, 1, 890), change(1, 1, 900), change(2, 2, 910)], NOW)
    stream = tables(local, contract()) if restart else stream
    error = stopped(stream, local, [read(3, 1, 50), change(4, 1, 60)])
    assert (error.topic, error.partition, error.offset) == (TOPIC, 0, 3)
    assert f"Start with --new-epoch {TOPIC} to put it above that; or resume the stream" in str(error)
    assert "at position (50, 0), but position (910, 910) came before it" in str(error)
    assert (reached(local), held(local, "docs", "id")) == ({0: 2}, [(1,), (2,)])
    stopped(tables(local, contract()), local, [read(3, 1, 50)])  # a start that decides nothing meets it again


def test_all_before_it_is_committed_in_every_partition_and_nothing_after_it(local: Lake) -> None:
    stream = tables(local, contract())
    commit(stream, local, [change(0, 1, 900), change(0, 2, 905, 1), change(0, 3, 906, 2)], NOW)
    at = {n: {"_kafka_time": (NOW + n) * 1000} for n in range(9)}
    rows = [
        change(1, 1, 910) | at[0], read(2, 1, 50) | at[5], change(3, 1, 60) | at[6],
        change(1, 2, 920, 1) | at[1], read(2, 2, 50, 1) | at[4],
        change(1, 3, 930, 2) | at[2], change(2, 3, 70, 2) | at[7], change(3, 3, 80, 2) | at[8],
    ]  # fmt: skip
    stopped(stream, local, rows)
    # In partition 2 the time tells it: its first change of the new source is no snapshot's.
    assert reached(local) == {0: 1, 1: 1, 2: 1}
    state = stream.anchor.state()
    assert state is not None
    pending = state.life(TOPIC).pending
    assert {number: (one.offset, one.kafka_ms) for number, one in pending.items()} == {0: (2, NOW + 5), 1: (2, NOW + 4)}
    assert [(number, first, last) for _, number, first, last, _ in state.ranges] == [(0, 1, 1), (1, 1, 1), (2, 1, 1)]


def test_binlog_files_that_are_numbered_anew_stop_it_too(local: Lake) -> None:
    stream = tables(local, contract())
    commit(stream, local, [read(0, 1, 4) | BINLOG, change(1, 1, 90) | BINLOG], NOW)
    commit(stream, local, [read(2, 1, 90) | BINLOG, change(3, 1, 95) | BINLOG], NOW)  # a snapshot where it stands
    error = stopped(stream, local, [read(4, 1, 9000) | {"_position_major": 1}])
    assert "at position (1, 9000), but position (3, 95) came before it" in str(error)


def test_a_snapshot_below_an_earlier_one_stops_it_where_nothing_was_streamed(local: Lake) -> None:
    stream = tables(local, contract())
    commit(stream, local, [read(0, 1, 900), read(1, 2, 900)], NOW)
    assert stopped(stream, local, [read(2, 1, 50)]).offset == 2


def test_a_snapshot_of_which_the_first_row_waits_in_quarantine_is_seen(local: Lake) -> None:
    stream = tables(local, contract())
    commit(stream, local, [change(0, 1, 900)], NOW)
    refused = read(1, 1, 50) | {"_kind": "rejected"}
    made = section([read(2, 2, 50)], of=stream.contract, prev={(TOPIC, 0): 0}, withheld=[refused])
    with pytest.raises(PositionsRestarted, match="with offset 1 a snapshot"):
        stream.commit(write(local, made), gaps=no_gaps, now_ms=NOW)


@pytest.mark.parametrize(
    "rows",
    [
        [read(3, 1, 920), read(4, 2, 920), change(5, 1, 930)],
        [read(3, 1, 910), change(4, 1, 920)],
        [read(3, 1, 100, word="last"), change(4, 1, 920)],
        [read(3, 1, 50, word="incremental"), change(4, 1, 920)],
        [change(3, 1, 60), change(4, 1, 890), change(5, 1, 920)],
        [read(0, 1, 50), read(1, 2, 50), change(2, 1, 60)],
        [read(0, 5, 50, 1), change(1, 5, 60, 1)],
    ],
    ids=["taken anew", "taken anew where it stands", "its end sent again", "incremental", "changes sent again",
         "old offsets read again", "in a partition that had nothing"],
)  # fmt: skip
def test_what_is_no_restart_stops_nothing(local: Lake, rows: list[Row]) -> None:
    stream = tables(local, contract())
    commit(stream, local, [read(0, 1, 100), change(1, 1, 900), change(2, 2, 905)], NOW)
    commit(stream, local, rows, NOW)


def test_partitions_are_read_one_ahead_of_the_other(local: Lake) -> None:
    stream = tables(local, contract())
    commit(stream, local, [change(0, 1, 100), change(0, 2, 110, 1)], NOW)
    commit(stream, local, [read(1, 2, 200, 1), change(2, 2, 900, 1)], NOW)
    commit(stream, local, [read(1, 1, 200)], NOW)


def test_a_topic_that_was_made_again_begins_where_it_likes(local: Lake) -> None:
    commit(tables(local, contract()), local, [read(0, 1, 890), change(1, 1, 900)], NOW)
    stream = tables(local, contract(), epochs={TOPIC: 1})
    commit(stream, local, [read(0, 1, 50), change(1, 1, 60)], NOW)
    assert stopped(stream, local, [read(2, 1, 40)]).offset == 2
    state = stream.anchor.state()
    assert state is not None and list(state.life(TOPIC).pending) == [0]


def test_positions_that_are_right_as_they_are_stop_the_stream_once(local: Lake) -> None:
    stream = tables(local, contract())
    commit(stream, local, [change(0, 1, 900)], NOW)
    again = [read(1, 1, 50), read(2, 2, 50), change(3, 2, 60)]
    stopped(stream, local, again)
    accept_restarts(local, contract(), "test")
    stream = tables(local, contract())
    for row in again:
        commit(stream, local, [row], NOW)
    assert held(local, "docs", "id") == [(1,), (2,)]
    assert stopped(stream, local, [read(4, 1, 40)]).offset == 4  # another snapshot is another matter


def test_a_version_that_is_filled_takes_positions_as_they_come(local: Lake) -> None:
    stream = tables(local, contract(), trusting=True)
    commit(stream, local, [change(0, 1, 900), read(1, 1, 50)], NOW)
    assert reached(local) == {0: 1}


@given(st.data())
@LAW
def test_a_source_that_goes_on_never_stops_its_stream(data: st.DataObject) -> None:
    """Snapshots taken anew, incremental ones, and a connector that was killed: it sends again what came last."""
    rows, lsn, taken = [read(0, 1, 100), read(0, 2, 100)], 100, 100
    for kind in data.draw(st.lists(st.sampled_from("cccsikr"), min_size=1, max_size=25)):
        lsn += data.draw(st.sampled_from([0, 5, 10])) if kind == "s" else 10
        if kind == "c":
            rows.append(change(0, 1, lsn, _position_major=lsn - 10))
        elif kind == "s":
            taken = lsn
            rows += [read(0, 1, taken), read(0, 2, taken)]
        elif kind == "r":
            rows.append(read(0, 2, taken, word="last"))
        elif kind == "i":
            rows.append(read(0, 1, data.draw(st.integers(1, lsn)), word="incremental"))
        else:
            rows += [row for row in rows[-data.draw(st.integers(1, 4)) :] if row["_op"] == "c"]
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        stream = tables(lake, contract())
        for part in _parts(data, [row | {"_offset": at} for at, row in enumerate(rows)]):
            commit(stream, lake, part, NOW)
        assert reached(lake) == {0: len(rows) - 1}


def _parts(data: st.DataObject, rows: list[Row]) -> Iterable[list[Row]]:
    while rows:
        count = data.draw(st.integers(1, len(rows)))
        yield rows[:count]
        rows = rows[count:]
