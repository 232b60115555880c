"""The corpus: three encodings give the same rows, and the rows fold to what PostgreSQL held, documented facts apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.model import Unrepresentable
from tests import corpus
from tests.corpus_truth import KEYLESS, WRONG_KEYS, comparable, differing, distinct, without, wrong
from tests.udfs.corpus_state import ENCODINGS, TABLES, changes, contract, normalised, state
from udfs.drift import DriftWatch
from udfs.normalise import normalise


@pytest.mark.parametrize("table", TABLES)
def test_the_three_encodings_give_equal_rows(table: str) -> None:
    rows = {
        encoding: distinct(comparable(row, contract(encoding, table)) for row in changes(encoding, table))
        for encoding in ENCODINGS
    }
    assert rows["json-schema"] == rows["avro"]
    if table == "orders":
        # Fact 6: schemaless JSON does not say that the scale of `amount` changed.
        assert without(rows["json"], "amount") == without(rows["avro"], "amount")
    else:
        assert rows["json"] == rows["json-schema"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("table", TABLES)
def test_every_record_of_the_corpus_is_a_row_or_a_tombstone(encoding: str, table: str) -> None:
    found = normalised(encoding, table)
    assert not found.rejects
    assert set(found.kinds.to_pylist()) <= {"data", "tombstone"}
    assert found.kinds.to_pylist().count("data") == len(found.changes)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("table", [t for t in TABLES if t not in KEYLESS and t not in WRONG_KEYS])
def test_folded_rows_equal_the_truth_but_for_the_documented_facts(encoding: str, table: str) -> None:
    found = differing(encoding, table, contract(encoding, table), state(encoding, table))
    assert found == set(wrong(encoding, table))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_unset_columns_are_named_and_null(encoding: str) -> None:
    seen = set()
    for row in changes(encoding, "docs"):
        for name in row["_unset"]:
            assert row[name] is None
            seen.add(name)
    assert seen == {"body", "raw", "meta", "words", "ints", "hs"}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_values_that_cannot_be_stored_are_flagged(encoding: str) -> None:
    flagged = {(row["id"], name) for row in changes(encoding, "types_torture") for name in row["_flags"]}
    infinite = {(i, c) for i in (11, 12) for c in ("c_ts0", "c_ts3", "c_ts6", "c_tstz")}
    assert flagged == infinite | {(13, "c_ts6"), (14, "c_ts6"), (14, "c_tstz"), (19, "c_date"), (21, "c_date")}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_deletes_hold_the_key_alone_unless_the_identity_is_full(encoding: str) -> None:
    deleted = [row for row in changes(encoding, "users") if row["_op"] == "d"]
    assert deleted
    assert all(row["id"] is not None and row["email"] is None and row["balance"] is None for row in deleted)
    full = [row for row in changes(encoding, "accounts_full") if row["_op"] == "d"]
    assert full
    assert all(row["owner"] is not None for row in full)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_bits_of_a_bit_string_are_in_order(encoding: str) -> None:
    first = changes(encoding, "types_more")[0]
    assert (first["b1"], first["b5"], first["bv"]) == ("1", "10110", "10101010101")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_key_change_names_the_other_key(encoding: str) -> None:
    moved = {row["id"]: row for row in changes(encoding, "orders") if row["_previous_key"]}
    assert moved[5030]["_previous_key"] == '{"id":30}'
    gone = {row["id"]: row for row in changes(encoding, "orders") if row["_next_key"]}
    assert gone[30]["_next_key"] == '{"id":5030}'


@pytest.mark.parametrize(
    ("table", "kind"), [("heartbeat", "heartbeat"), ("transaction", "transaction"), ("message", "message")]
)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_infrastructure_is_told_apart(encoding: str, table: str, kind: str) -> None:
    found = normalise(corpus.records(encoding, table), contract(encoding, "infrastructure"), corpus.schema, 1)
    assert set(found.kinds.to_pylist()) == {kind}
    assert len(found.changes) == 0


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_signal_table_is_counted_where_the_contract_names_no_fields(encoding: str) -> None:
    records = corpus.records(encoding, "dbz_signal_json")
    found = normalise(records, contract(encoding, "infrastructure"), corpus.schema, 1)
    assert set(found.kinds.to_pylist()) == {"signal"}
    assert len(found.changes) == 0


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_generated_column_is_there_in_snapshots_and_flagged_as_not_sent_in_the_stream(encoding: str) -> None:
    of = contract(encoding, "gen_total")
    fields = tuple(replace(f, generated=f.name == "total") for f in of.fields)
    made = replace(of, fields=fields, unrepresentable=Unrepresentable.QUARANTINE)
    found = normalise(corpus.records(encoding, "gen_total"), made, corpus.schema, now_ms=1)
    assert not found.rejects, "the source is as the contract says"
    reasons = found.changes.flags["total"].to_pylist()
    rows = zip(found.changes.table.select(["_op", "total"]).to_pylist(), reasons, strict=True)
    assert {(row["_op"], row["total"], reason) for row, reason in rows} == {
        ("r", 3, None), ("r", 7, None), ("c", None, "not_sent"), ("u", None, "not_sent"),
    }  # fmt: skip
    assert DriftWatch(made).notes(found.glimpses, found.signs) == []
