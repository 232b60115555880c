"""The corpus: three encodings give the same rows, and the rows fold to what PostgreSQL held, documented facts apart."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from contracts.model import Field
from tests import corpus
from tests.udfs.corpus_state import ENCODINGS, TABLES, changes, contract, held, normalised, state, truth
from udfs.decode_avro import adjusted
from udfs.normalise import normalise

# Table -> columns that cannot equal the truth, by the number of the fact in the corpus README that says why.
WRONG_AT_SOURCE: dict[str, dict[str, int]] = {
    "defaults": {"b": 2, "c": 2, "d": 2, "f": 2},  # NULL became the column's default
    "num_special": {"n": 7, "n2": 7, "dd": 7},  # NaN: null, or 0 when NOT NULL
    "types_torture": {"c_interval": 8},  # microseconds only, months approximated
    "types_more": {"ints2": 9},  # inner arrays are null
    "gen_total": {"total": 13},  # generated columns are absent from the stream
    "orders": {"prio": 19},  # a column added with a default: DDL sends nothing for the rows that are there
}
# Tables whose keys cannot equal the truth.
WRONG_KEYS = {
    "idx_ident": 1,  # REPLICA IDENTITY USING INDEX: deletes name key 0
    "metrics": 12,  # the parent's topic has only the snapshot
}
KEYLESS = {"audit_full", "audit_nopk"}


@pytest.mark.parametrize("table", TABLES)
def test_the_three_encodings_give_equal_rows(table: str) -> None:
    rows = {encoding: _comparable(encoding, table) for encoding in ENCODINGS}
    assert rows["json-schema"] == rows["avro"]
    if table == "orders":
        # Fact 6: schemaless JSON does not say that the scale of `amount` changed.
        assert _without(rows["json"], "amount") == _without(rows["avro"], "amount")
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
def test_folded_rows_equal_the_truth(encoding: str, table: str) -> None:
    fields = contract(encoding, table).fields
    wrong = WRONG_AT_SOURCE.get(table, {})
    if table == "orders" and encoding == "json":
        wrong = {**wrong, "amount": 6}
    rows = corpus.expected(table)
    # Fact 22: a column dropped during the workload still stands in older messages, not in the table.
    compared = [f for f in fields if f.name not in wrong and (not rows or _name(f, rows[0]) is not None)]
    expected = {}
    for row in rows:
        # A key is compared as text: it may be a date.
        key = tuple(str(_expected(row, f)) for f in contract(encoding, table).key)
        expected[key] = {f.name: _plain(_expected(row, f)) for f in compared}
    found = {
        tuple(str(k) for k in key): {f.name: _plain(held(row[f.name], f.type)) for f in compared}
        for key, row in state(encoding, table).items()
    }
    assert found == expected


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


def _expected(row: dict[str, Any], field: Field) -> Any:
    return truth(row[_name(field, row)], field.type)


def _name(field: Field, row: dict[str, Any]) -> str | None:
    """Give the table's name of a field; in Avro the message has an adjusted one (fact 23)."""
    return next((n for n in row if field.source in (n, adjusted(n))), None)


def _comparable(encoding: str, table: str) -> list[dict[str, str]]:
    """Give what must be equal in all encodings; the three connectors took their snapshots at different positions."""
    rows = []
    for row in changes(encoding, table):
        own = {f.name: repr(row[f.name]) for f in contract(encoding, table).fields}
        streamed = row["_op"] != "r"
        own["_position"] = repr((row["_position_major"], row["_position_minor"])) if streamed else ""
        own |= {name: repr(row[name]) for name in ("_op", "_snapshot", "_previous_key", "_next_key")}
        own |= {"_unset": repr(sorted(row["_unset"])), "_flags": repr(sorted(row["_flags"]))}
        rows.append(own)
    return _distinct(rows)


def _without(rows: list[dict[str, str]], name: str) -> list[dict[str, str]]:
    return _distinct([{k: v for k, v in row.items() if k != name} for row in rows])


def _distinct(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """After the kill (fact 15) the connectors sent different numbers of changes again."""
    return [dict(items) for items in sorted({tuple(sorted(row.items())) for row in rows})]


def _plain(value: Any) -> Any:
    """Make equal values compare equal: NaN, and the float that a real is."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else float(f"{value:.6g}")
    if isinstance(value, Decimal):
        return value.normalize() if value else Decimal(0)
    return value
