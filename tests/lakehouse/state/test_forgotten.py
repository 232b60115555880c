"""What history holds stays true when the memory of deletes has forgotten why a version ended."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse import upkeep
from lakehouse.commit import StreamTables
from lakehouse.lake import Lake
from tests.lakehouse.rows import NOW, tables
from tests.lakehouse.state.source import Source, contract
from tests.lakehouse.state.test_snapshots import change, commit
from tests.lakehouse.state.test_state_laws import LAW, deliver, held, verify

VERSIONS = "epoch_ms(_valid_from), epoch_ms(_valid_to), body"


@pytest.fixture(autouse=True, scope="module")
def always_due() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep, "FORGET_EVERY", 0.0)
        yield


def forget(stream: StreamTables) -> int:
    """Forget all deletes, as when the contract's time is over."""
    stream.prepare()
    now, age = time.time_ns, int(timedelta(days=8).total_seconds()) * 10**9
    with pytest.MonkeyPatch.context() as later:
        later.setattr(time, "time", lambda: (now() + age) / 10**9)
        later.setattr(time, "time_ns", lambda: now() + age)
        done = stream.maintain(60)
    assert not done.failures
    return done.records


def ended(lake: Lake) -> StreamTables:
    """Give a stream whose row 1 was made at 10, deleted at 20 (which is forgotten) and made again at 500."""
    stream = tables(lake, contract())
    commit(stream, lake, [change(0, 1, 10, body="b")], NOW)
    commit(stream, lake, [change(1, 1, 20, _op="d", n=None)], NOW)
    assert forget(stream) == 1
    commit(stream, lake, [change(2, 1, 500, body="x")], NOW)
    return stream


@pytest.mark.parametrize(
    "later",
    [
        change(3, 1, 600, _op="u", _unset=["body"], n=2),
        change(3, 1, 500, body="x"),
        change(3, 1, 600, _op="r", body="x", _snapshot="incremental"),
        change(3, 1, 450, body="x"),
    ],
    ids=["update", "sent again", "read again", "late"],
)
def test_a_version_keeps_its_end_when_its_delete_is_forgotten(local: Lake, later: dict[str, object]) -> None:
    stream = ended(local)
    commit(stream, local, [later], NOW)
    found = held(local, "docs_history", VERSIONS)
    assert found[0] == (10, 20, "b")
    begins, ends = [row[0] for row in found[1:]], [row[1] for row in found[1:]]
    assert ends == [*begins[1:], None]


def test_a_change_from_before_a_forgotten_delete_ends_where_that_was(local: Lake) -> None:
    stream = ended(local)
    commit(stream, local, [change(3, 1, 15, body="late")], NOW)
    assert held(local, "docs_history", VERSIONS) == [(10, 15, "b"), (15, 20, "late"), (500, None, "x")]


@given(st.integers(0, 10**9), st.integers(2, 8), st.booleans())
@LAW
def test_the_laws_hold_for_changes_in_order_however_often_deletes_are_forgotten(
    seed: int, commits: int, rereads: bool
) -> None:
    source = Source(seed, contract(), renames=False, rereads=rereads)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        for _ in range(3):
            source.run(source.random.randint(1, 20))
            forget(deliver(source, lake, commits=commits))
        verify(source, lake)
