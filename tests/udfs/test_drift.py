"""Drift: what the corpus shows of it in every encoding, told once, and what is no drift."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.added import with_added
from contracts.model import Contract, Field, UnknownFields
from contracts.types import parse_type
from tests import corpus
from tests.udfs import batches
from tests.udfs.batches import event, raw
from tests.udfs.corpus_state import ENCODINGS, TABLES, contract, normalised
from udfs.drift import Drift, DriftWatch
from udfs.glimpses import new_columns
from udfs.normalise import normalise
from udfs.written_types import compared, connect_type, written

# Table -> the drift that its topic shows: kind, column, declared type.
SHOWN: dict[str, set[tuple[str, str | None, str | None]]] = {
    **{t: {("truncate_seen", None, None)} for t in ("audit_nopk", "late_table", "metrics_2024", "metrics_2025")},
    "order_items": {("truncate_seen", None, None)},
    "gen_total": {("generated_column", "total", "integer")},
    "idx_ident": {("identity_index_suspected", None, None)},
    "orders": {("column_dropped", "channel", "text"), ("column_dropped", "prio", "smallint")},
    "products": {("column_dropped", "pid", "integer")},
}


def told(watch: DriftWatch, made: Contract, values: list[bytes | None]) -> list[Drift]:
    found = normalise(raw(values), made, corpus.schema, 1)
    return watch.notes(found.glimpses, found.signs)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("table", TABLES)
def test_the_corpus_shows_its_drift_in_every_encoding_once(encoding: str, table: str) -> None:
    watch, found = DriftWatch(contract(encoding, table)), normalised(encoding, table)
    notes = watch.notes(found.glimpses, found.signs)
    assert {(note.kind, note.column, note.before) for note in notes} == SHOWN.get(table, set())
    assert len(notes) == len(SHOWN.get(table, set()))
    assert watch.notes(found.glimpses, found.signs) == [], "the same batch again is no news"
    assert all((note.schema_id is None) == (encoding != "avro") for note in notes)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_column_that_the_contract_does_not_name_is_told_with_its_type_where_a_schema_says_it(encoding: str) -> None:
    whole = contract(encoding, "users")
    made = replace(whole, fields=tuple(f for f in whole.fields if f.name != "balance"))
    found = normalise(corpus.records(encoding, "users"), made, corpus.schema, 1)
    (note,) = DriftWatch(made).notes(found.glimpses, found.signs)
    kind = None if encoding == "json" else written(next(f.type for f in whole.fields if f.name == "balance"))
    assert (note.kind, note.column, note.before, note.after) == ("column_added", "balance", None, kind)


@pytest.mark.parametrize("encoding", ["json-schema", "avro"])
@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ("numeric(14,4)", None),
        ("numeric(12,1)", "type_widened"),
        ("numeric(3,2)", "type_widened"),
        ("text", "type_changed"),
    ],
)
def test_a_type_that_the_schema_contradicts_is_told(encoding: str, declared: str, kind: str | None) -> None:
    whole = contract(encoding, "users")
    fields = (replace(f, type=parse_type(declared)) if f.name == "balance" else f for f in whole.fields)
    made = replace(whole, fields=tuple(fields))
    found = normalise(corpus.records(encoding, "users"), made, corpus.schema, 1)
    notes = [(n.kind, n.column, n.before) for n in DriftWatch(made).notes(found.glimpses, found.signs)]
    assert notes == ([] if kind is None else [(kind, "balance", declared)])


def test_a_column_that_went_and_came_back_is_told_once_for_each_shape() -> None:
    made = batches.contract({"id": "bigint", "name": "text"})
    watch = DriftWatch(made)
    both, alone, more = event({"id": 1, "name": "ann"}), event({"id": 1}), event({"id": 1, "name": "ann", "age": 7})
    assert told(watch, made, [both]) == []
    assert [(n.kind, n.column) for n in told(watch, made, [alone])] == [("column_dropped", "name")]
    assert [(n.kind, n.column) for n in told(watch, made, [alone, more])] == [("column_added", "age")]
    assert told(watch, made, [alone, both, more]) == []


def gaining(name: str = "age", kind: str = "bigint") -> tuple[Contract, Contract]:
    """Give a contract that takes new columns, and what it is with one."""
    made = replace(batches.contract({"id": "bigint", "name": "text"}), unknown_fields=UnknownFields.ADD)
    return made, with_added(made, {name: kind})


def test_a_column_that_the_stream_gained_and_that_goes_again_is_told_but_not_messages_from_before_it() -> None:
    made, more = gaining()
    watch, gained = DriftWatch(made), more.fields[2:]
    without, having = event({"id": 1, "name": "ann"}), event({"id": 1, "name": "ann", "age": 7})

    def kinds(contract: Contract, value: bytes, columns: tuple[Field, ...]) -> list[tuple[str, str | None]]:
        found = normalise(raw([value]), contract, corpus.schema, 1)
        return [(n.kind, n.column) for n in watch.notes(found.glimpses, found.signs, columns)]

    assert kinds(made, without, ()) == []
    assert kinds(more, without, gained) == [], "another worker claimed it; here is nothing of it yet"
    assert kinds(more, having, gained) == [("column_added", "age")]
    assert kinds(more, without, gained) == [("column_dropped", "age")]
    assert kinds(more, without, gained) == []


@pytest.mark.parametrize("encoding", ["json-schema", "avro"])
def test_a_generated_column_that_joined_the_tables_is_told_as_one(encoding: str) -> None:
    whole = contract(encoding, "gen_total")
    declared = tuple(f for f in whole.fields if f.name != "total")
    made = replace(whole, fields=declared, unknown_fields=UnknownFields.ADD)
    more = with_added(made, {"total": "integer"})
    found = normalise(corpus.records(encoding, "gen_total"), more, corpus.schema, 1)
    notes = DriftWatch(made).notes(found.glimpses, found.signs, more.fields[len(declared) :])
    assert {(n.kind, n.column) for n in notes} == {("column_added", "total"), ("generated_column", "total")}


def test_a_null_is_no_absent_column_and_an_alias_is_the_column() -> None:
    made = batches.contract({"id": "bigint", "name": "text"})
    renamed = replace(made, fields=(made.fields[0], replace(made.fields[1], aliases=("label",))))
    assert told(DriftWatch(made), made, [event({"id": 1, "name": None})]) == []
    assert told(DriftWatch(renamed), renamed, [event({"id": 1, "label": "ann"})]) == []


@pytest.mark.parametrize(
    ("before", "suspected"),
    [
        ({"id": 0, "name": "ann"}, True),
        ({"id": 0, "name": ""}, False),
        ({"id": 0, "name": None}, False),
        ({"id": 5, "name": "ann"}, False),
    ],
)
def test_a_delete_with_a_made_up_key_is_suspected_of_the_index_identity(
    before: dict[str, object], suspected: bool
) -> None:
    made = batches.contract({"id": "bigint", "name": "text"})
    kinds = [note.kind for note in told(DriftWatch(made), made, [event(None, "d", before)])]
    assert kinds == (["identity_index_suspected"] if suspected else [])
    full = replace(made, full_identity=True)
    assert told(DriftWatch(full), full, [event(None, "d", before)]) == []


def test_broken_records_show_nothing() -> None:
    made = batches.contract({"id": "bigint"})
    assert told(DriftWatch(made), made, [b"{", None, b"[]", event(None, "u"), b'{"op":"d"}']) == []


COMPARED = [
    ("bigint", "integer", None), ("integer", "bigint", "type_widened"), ("smallint", "integer", "type_widened"),
    ("real", "double precision", "type_widened"), ("double precision", "real", None), ("text", "uuid", None),
    ("uuid", "text", None), ("integer", "text", "type_changed"), ("timestamp(3)", "timestamp", None),
    ("timestamp", "timestamptz", "type_changed"), ("money", "numeric(38,2)", None), ("numeric", "numeric(38,9)", None),
    ("bit(1)", "boolean", None), ("bit(5)", "bit(5)", None), ("text[]", "text", "type_changed"),
    ("integer[]", "bigint[]", "type_widened"), ("numeric(12,2)", "numeric(14,4)", "type_widened"),
    ("numeric(14,4)", "numeric(12,2)", None), ("numeric(12,2)", "numeric(38,2)", None),
]  # fmt: skip


@pytest.mark.parametrize(("declared", "sent", "drift"), COMPARED)
def test_types_are_compared_by_what_they_can_hold(declared: str, sent: str, drift: str | None) -> None:
    assert compared(parse_type(declared), parse_type(sent)) == drift


@pytest.mark.parametrize("encoding", ["json-schema", "avro"])
@pytest.mark.parametrize("table", TABLES)
def test_every_column_of_the_corpus_has_a_type_that_a_contract_can_declare(encoding: str, table: str) -> None:
    for glimpse in normalised(encoding, table).glimpses:
        assert glimpse.typed
        assert all(parse_type(str(kind)) for kind in glimpse.columns.values())


def test_a_decimal_of_an_unknown_precision_has_the_most_digits() -> None:
    decimal = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal"}
    assert connect_type({**decimal, "parameters": {"scale": "2", "connect.decimal.precision": "64"}}) == "numeric(38,2)"
    assert connect_type({**decimal, "parameters": {"scale": "two"}}) == "numeric"


BITS = {"b1", "b5", "bv"}  # schemas do not tell bit from bit varying: kept as JSON


@pytest.mark.parametrize("encoding", ["json-schema", "avro"])
@pytest.mark.parametrize("table", [t for t in TABLES if t not in ("Mixed_Case", "orders")])
def test_a_column_that_is_added_reads_as_if_the_contract_had_named_it(encoding: str, table: str) -> None:
    whole = contract(encoding, table)
    known = tuple(f for f in whole.fields if f.key_position is not None) or whole.fields[:1]
    bare = replace(whole, fields=known, unknown_fields=UnknownFields.ADD)
    records = corpus.records(encoding, table)
    shown = normalise(records, bare, corpus.schema, 1).glimpses
    wanted = with_added(bare, new_columns(shown, bare))
    found = normalise(records, wanted, corpus.schema, 1)
    assert not found.rejects
    stored = {f.name: f.type.arrow for f in wanted.fields}
    same = [f.name for f in whole.fields if f.type.arrow == stored.get(f.name)]
    assert {f.name for f in whole.fields} - set(same) <= BITS
    named = normalised(encoding, table).changes
    assert repr(found.changes.table.select(same).to_pylist()) == repr(named.table.select(same).to_pylist())
    assert (found.changes.table["_extra"].null_count == len(found.changes)) == (
        not BITS & {f.name for f in whole.fields}
    )


@pytest.mark.parametrize("encoding", ["json-schema", "avro"])
def test_a_value_that_an_added_column_cannot_hold_is_refused(encoding: str) -> None:
    whole = contract(encoding, "orders")
    bare = replace(whole, fields=whole.key, unknown_fields=UnknownFields.ADD)
    wanted = with_added(bare, {"amount": "numeric(12,2)"})
    found = normalise(corpus.records(encoding, "orders"), wanted, corpus.schema, 1)
    assert [one.rules.to_pylist() for one in found.rejects] == [[["wrong_type:amount"]]]
    assert len(found.changes) == len(normalised(encoding, "orders").changes) - 1
