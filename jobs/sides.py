"""The two sides of a verification: the source's rows as the pipeline would store them, and the current table's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from contracts.columns import own_schema
from contracts.model import Contract, Derived, Field, Mask
from jobs.errors import CannotCompare
from jobs.source import REFUSED
from lakehouse.lake import Lake
from lakehouse.read import connect
from udfs.canonical import canonical_text
from udfs.changes import Changes, changes_table_schema
from udfs.comparison import WAITING
from udfs.expressions import derive, keep_matching
from udfs.keys import KeyRing
from udfs.masks import mask, unmask
from udfs.rules import check

BATCH_ROWS = 50_000
HELD_BACK = "refused"  # why a row of the source waits: it breaks a rule, or a value does not fit its declared type
AT_RANDOM = "encrypt"  # the mask that makes another token each time: what is in the token is compared


def as_stored(rows: pa.Table, contract: Contract, keys: KeyRing, columns: Sequence[str], now_ms: int) -> pa.Table:
    """Give the rows that pass the filter, derived, checked and masked; WAITING: those that the pipeline holds back."""
    refused = rows[REFUSED].combine_chunks()
    changes, _ = keep_matching(_changes(rows, contract), contract)
    derived, underivable = derive(changes, contract)
    kept = check(derived, contract, now_ms).changes.row
    held = pc.invert(pc.is_in(changes.row, value_set=kept))
    held = pc.or_(held, refused.take(changes.row))
    if underivable is not None:  # without the columns that could not be derived: it waits, its key is enough
        derived = _underived(changes, contract)
    waiting = pc.if_else(held, pa.scalar([HELD_BACK], _TEXTS), pa.scalar(None, _TEXTS))
    return _compared(_shown(derived, contract, keys), contract, columns, waiting)


def _changes(rows: pa.Table, contract: Contract) -> Changes:
    schema = changes_table_schema(contract)
    count = len(rows)
    columns = [rows[f.name] if f.name in rows.column_names else pa.nulls(count, f.type) for f in schema]
    columns[schema.get_field_index("_op")] = pa.repeat("r", count)
    return Changes(pa.Table.from_arrays(columns, schema=schema).combine_chunks(), pa.array(range(count), pa.int64()))


def _underived(changes: Changes, contract: Contract) -> Changes:
    """Give all rows, with nothing where a column cannot be derived."""
    derived, _ = derive(changes, contract)
    places = pc.index_in(changes.row, value_set=derived.row)
    table = changes.table
    for one in contract.derived:
        table = table.append_column(one.name, derived.table[one.name].take(places))
    return Changes(table, changes.row)


def _shown(changes: Changes, contract: Contract, keys: KeyRing) -> pa.Table:
    """Mask the rows; of a mask that makes another token each time the text itself stays, to be compared only."""
    masked = mask(changes, contract, keys).table
    for column in _at_random(contract):
        masked = masked.set_column(masked.schema.get_field_index(column), column, _canonical(changes.table[column]))
    return masked


def _canonical(values: pa.ChunkedArray) -> pa.Array:
    return canonical_text(values.combine_chunks())


def _at_random(contract: Contract) -> dict[str, Mask]:
    columns: list[Field | Derived] = [*contract.kept, *contract.derived]
    return {c.name: c.mask for c in columns if c.mask is not None and c.mask.kind == AT_RANDOM}


class Current:
    """One version of a stream's current table."""

    def __init__(self, contract: Contract, lake: Lake, keys: KeyRing) -> None:
        self._contract, self._lake, self._keys = contract, lake, keys
        self._uri = lake.table_uri(contract.stream)
        with lake.explained(f"open table {contract.stream}"):
            table = DeltaTable(self._uri, storage_options=dict(lake.storage_options))
            self.version, self.has = table.version(), {f.name for f in table.schema().fields}

    def read(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Give the rows that are not deleted, in batches."""
        waits = ", ".join(sql for name, sql in _WAITS.items() if name in self.has)
        waiting = f"nullif(flatten([{waits}]::VARCHAR[][]), [])"
        living = f"WHERE NOT coalesce(_deleted, false) OR {waiting} IS NOT NULL" if "_deleted" in self.has else ""
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
        scan = f"delta_scan('{self._uri.replace(chr(39), chr(39) * 2)}', version={self.version})"
        connection = connect(self._lake)
        try:
            connection.execute("SET TimeZone = 'UTC'")
            sql = f"SELECT {names}, {waiting} AS {WAITING} FROM {scan} {living}"
            for batch in connection.execute(sql).to_arrow_reader(BATCH_ROWS):
                yield self._comparable(pa.Table.from_batches([batch]), columns)
        except duckdb.Error as error:
            raise CannotCompare(f"the table {self._contract.stream} cannot be read: {error}") from error
        finally:
            connection.close()

    def _comparable(self, rows: pa.Table, columns: Sequence[str]) -> pa.Table:
        for name in _at_random(self._contract):
            if name in columns:
                rows = rows.set_column(rows.schema.get_field_index(name), name, self._opened(name, rows[name]))
        waiting = rows[WAITING].combine_chunks()
        return _compared(rows, self._contract, columns, waiting)

    def _opened(self, name: str, tokens: pa.ChunkedArray) -> pa.Array:
        how = _at_random(self._contract)[name]
        return pa.array([None if t is None else unmask(t, how, self._keys) for t in tokens.to_pylist()], pa.string())


_TEXTS = pa.list_(pa.string())
_WAITS = {  # column -> why its row waits for a change, a list
    "_stale": "CASE WHEN _stale THEN ['stale'] ELSE [] END",
    "_pending": "list_transform(coalesce(_pending, []), lambda name: 'pending:' || name)",
}


def _compared(rows: pa.Table, contract: Contract, columns: Sequence[str], waiting: pa.Array) -> pa.Table:
    """Bring a side's rows into the form in which equal values are equal."""
    schema = own_schema(contract)
    plain = {f.name: f.type.name for f in contract.fields if f.mask is None and f.type.arrow == pa.string()}
    arrays = [_LOOSE.get(plain.get(n, ""), _same)(rows[n].cast(schema.field(n).type)) for n in columns]
    return pa.Table.from_arrays([*arrays, waiting], [*columns, WAITING])


def _same(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values


def _sorted_json(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write JSON objects with their names in order: hstore has none. One by one, such columns are rare."""
    texts = [
        None if v is None else orjson.dumps(orjson.loads(v), option=orjson.OPT_SORT_KEYS) for v in values.to_pylist()
    ]  # noqa: E501
    return pa.chunked_array([pa.array(texts, pa.binary()).cast(pa.string())])


def _plain_number(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Leave out the zeros at the end of a fraction: whether they are sent depends on the encoding."""
    trimmed = pc.utf8_rtrim(pc.utf8_rtrim(values, characters="0"), characters=".")
    return pc.if_else(pc.match_substring(values, "."), trimmed, values)


# Type -> how its text is made comparable.
_LOOSE = {"hstore": _sorted_json, "numeric": _plain_number}
