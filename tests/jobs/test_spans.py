"""Which offsets are read again: as asked, as far as the tables have committed them and Kafka still holds them."""

from __future__ import annotations

import pytest

from jobs.errors import RunRefused
from jobs.moments import moment_ms
from jobs.spans import places, spans_of

ONE, TWO = ("t", 0), ("t", 1)


def test_nothing_above_the_progress_is_read_again() -> None:
    found = spans_of({ONE: 3, TWO: 9}, {ONE: 99}, {ONE: 0, TWO: 0}, {ONE: 7, TWO: 8})
    assert (found.spans, found.total, found.lost) == ({ONE: (3, 7)}, 5, ())


def test_an_end_is_read_with_and_what_kafka_lost_is_told() -> None:
    found = spans_of({ONE: 3, TWO: 0}, {ONE: 5, TWO: 1}, {ONE: 4, TWO: 8}, {ONE: 7, TWO: 20})
    assert found.spans == {ONE: (4, 5)}
    assert [said.rpartition(": ")[2] for said in found.lost] == ["3 to 3 cannot be read", "0 to 1 cannot be read"]


def test_offsets_are_named_by_partition_and_by_topic_where_there_are_several() -> None:
    assert places(["1:20", "t:0:3"], [ONE, TWO]) == {TWO: 20, ONE: 3}
    assert places(["a:b:0:3"], [("a:b", 0), ("c", 0)]) == {("a:b", 0): 3}
    for text, known in (("1:2", [ONE, ("u", 0)]), ("2:2", [ONE]), ("x", [ONE]), ("u:0:1", [ONE])):
        with pytest.raises(RunRefused):
            places([text], known)


def test_moments_are_times_or_how_long_ago() -> None:
    assert moment_ms("2h", 10_000_000) == 2_800_000
    assert moment_ms("1970-01-01T00:01", 0) == moment_ms("1970-01-01T01:01+01:00", 0) == 60_000
    with pytest.raises(ValueError, match="neither a time"):
        moment_ms("yesterday", 0)
