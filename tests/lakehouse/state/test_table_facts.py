"""What the logs say of how worn tables are, by whoever kept them up last."""

from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import DeltaTable

from lakehouse.commit import StreamTables
from lakehouse.lake import Lake
from lakehouse.maintained import Maintained, Record, TableRecord
from lakehouse.merge import compaction
from lakehouse.table_facts import TableFacts, facts_of
from tests.lakehouse.rows import NOW, no_gaps, row, section, tables, write
from tests.lakehouse.state.source import TOPIC, contract


def commit(lake: Lake, stream: StreamTables, offset: int, key: int) -> None:
    made = row(offset, topic=TOPIC, id=key, n=offset, _op="u")
    del made["email"]
    stream.commit(write(lake, section([made], of=contract())), gaps=no_gaps, now_ms=NOW)


def facts(lake: Lake) -> dict[str, TableFacts]:
    return {one.table: one for one in facts_of(lake, [contract()], "test")["docs"]}


def test_deleted_rows_small_files_and_the_length_of_the_log_are_counted(lake: Lake) -> None:
    assert facts(lake) == {}
    stream = tables(lake, contract())
    for offset, key in enumerate((1, 2, 3, 1)):
        commit(lake, stream, offset, key)
    found = facts(lake)
    assert list(found) == ["docs_quarantine", "docs_changes", "_tidegate/memory/docs", "docs_history", "docs"]
    current = found["docs"]
    assert (current.files, current.rows, current.dead, current.small_files) == (
        3,
        3,
        0,
        3,
    )  # one file is dead as a whole
    history = found["docs_history"]
    assert (history.rows, history.version, history.commits_in_log, history.commits_since_checkpoint) == (4, 4, 5, 4)
    options = dict(lake.storage_options)
    DeltaTable(lake.table_uri("docs"), storage_options=options).create_checkpoint()
    commit(lake, stream, 4, 9)
    assert (facts(lake)["docs"].commits_since_checkpoint, facts(lake)["docs"].commits_in_log) == (1, 6)


def test_the_writers_own_rewriting_is_seen_also_before_the_newest_checkpoint(
    local: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "SMALL_COUNT", 2)
    stream = tables(local, contract())
    for offset in range(3):
        commit(local, stream, offset, offset)
    assert facts(local)["docs"].compacted_ms is None
    stream.maintain(60)
    stream._upkeep._asked = True  # type: ignore[union-attr]  # now, not when it is due
    stream.maintain(60)
    rewritten = facts(local)["docs"].compacted_ms
    assert rewritten is not None
    commit(local, stream, 3, 3)
    DeltaTable(local.table_uri("docs")).create_checkpoint()
    assert facts(local)["docs"].compacted_ms == rewritten
    record = TableRecord(rewritten + 5, 3, 0, 0, 0, "left", "")
    Maintained(local, "test").write(Record("docs", rewritten + 9, 60, {"docs": record}))
    told = facts(local)["docs"]
    assert (told.compacted_ms, told.maintained_ms, told.note) == (rewritten + 5, rewritten + 9, "left")
    assert facts(local)["docs_changes"].maintained_ms is None


def test_a_log_that_cannot_be_read_hides_no_other_table(local: Lake) -> None:
    commit(local, tables(local, contract()), 0, 1)
    Path(local.table_uri("docs_changes"), "_delta_log", f"{0:020}.json").unlink()
    assert "docs" in facts(local) and "docs_changes" not in facts(local)
