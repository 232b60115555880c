"""Migrated tables hold the same values in other types, parts or files; a value that would change stops it before."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from contracts.model import Contract, Field, Mask, StateTables, Storage
from contracts.types import parse_type
from lakehouse import lease
from lakehouse.commit import StreamTables
from lakehouse.errors import CommitContested, KeyPinChanged, MigrationRefused, SchemaRefused
from lakehouse.lake import Lake
from lakehouse.merge import kept_index
from lakehouse.merge.index_snapshot import IndexSnapshots
from lakehouse.merge.merge_table import MergeTable
from lakehouse.migration import FOLDER, TableMigration, check, migrate
from lakehouse.standing import standing_of
from lakehouse.state.table import StateTable
from tests.lakehouse.rows import CONTRACT, NOW, no_gaps, row, section, tables, write
from tests.reading import reader
from udfs.canonical import canonical_text

KEPT = ("quarantine", "changes", "history", "current")
LIVE = ("_tidegate/memory/orders", "orders", "orders_changes", "orders_history")
STREAM = ("orders_changes", "_tidegate/memory/orders", "orders_history", "orders")  # as they are committed


def contract(storage: Storage = Storage.MERGE_ON_READ, partition_by: tuple[str, ...] = (), **types: str) -> Contract:
    """Give a stream of orders with columns of these types."""
    own = {"id": "bigint", "count": "integer", "amount": "numeric(12,2)", "rate": "real", "note": "text"} | types
    fields = tuple(
        Field(name, name, parse_type(t), key_position=1 if name == "id" else None) for name, t in own.items()
    )
    state = StateTables(storage=storage)
    return dataclasses.replace(CONTRACT, fields=fields, tables=KEPT, state=state, partition_by=partition_by)


def orders(offset: int, key: int, **values: Any) -> dict[str, Any]:
    made = row(offset, id=key, count=key * 10, amount=Decimal(key) / 4, rate=key / 2, note=f"n{key % 3}", **values)
    del made["email"]
    return made


def commit(lake: Lake, stream: StreamTables, made: list[dict[str, Any]]) -> StreamTables:
    first = made[0]["_offset"]
    prev = {("shop.orders", 0): first - 1} if first else {}
    refs = write(lake, section(made, of=stream.contract, prev=prev))
    stream.commit(refs, gaps=no_gaps, now_ms=NOW)
    return stream


def filled(lake: Lake, of: Contract) -> StreamTables:
    """Give a stream with twelve rows, four of them changed, two deleted, in three commits."""
    stream = commit(lake, tables(lake, of), [orders(n, n) for n in range(12)])
    commit(lake, stream, [orders(12 + n, n, _op="u") for n in range(4)])
    return commit(lake, stream, [orders(16 + n, 10 + n, _op="d") for n in range(2)])


def untold(_: object) -> None:
    """Show nothing."""


def migrated(lake: Lake, of: Contract, pins: dict[str, str] | None = None) -> list[str]:
    """Migrate; give the tables that were changed."""
    return [plan.table for plan, _ in migrate(lake, of, "test", pins or {}, canonical_text, untold)]


def versions(lake: Lake) -> dict[str, int]:
    return {
        name: DeltaTable(lake.table_uri(name), storage_options=dict(lake.storage_options)).version() for name in LIVE
    }


def held(lake: Lake, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
    return reader(lake).execute(f"SELECT {columns} FROM {table} ORDER BY ALL").fetchall()


def by_deltalake(lake: Lake, table: str, version: int | None = None) -> pa.Table:
    """Read a table by a reader that knows no vectors where it has none."""
    from deltalake import QueryBuilder

    read = DeltaTable(lake.table_uri(table), version=version, storage_options=dict(lake.storage_options))
    if "deletionVectors" not in (read.protocol().reader_features or ()):
        return read.to_pyarrow_table()
    return pa.table(QueryBuilder().register("t", read).execute("SELECT * FROM t").read_all())


def test_wider_types_hold_the_same_values_and_the_stream_goes_on(lake: Lake, storage: Storage) -> None:
    filled(lake, contract(storage))
    wider = contract(storage, count="numeric(20,3)", amount="numeric(20,6)", rate="double precision", note="text")
    before = {
        table: held(lake, table, "id, count, amount, rate, note, _offset") for table in ("orders", "orders_history")
    }
    stood, was = versions(lake), tables(lake, contract(storage))
    was.prepare()
    progress, state = was.progress(), was.anchor.state()
    with pytest.raises(SchemaRefused, match="rewrite the table with `tidegate migrate`"):
        tables(lake, wider).prepare()
    assert set(migrated(lake, wider)) == set(STREAM)
    for table, rows in before.items():
        assert held(lake, table, "id, count, amount, rate, note, _offset") == rows
        told = by_deltalake(lake, table)
        assert (told.schema.field("count").type, told.schema.field("rate").type) == (pa.decimal128(38, 3), pa.float64())
        assert by_deltalake(lake, table, stood[table]).schema.field("count").type == pa.int64()  # as it was
        assert told.num_rows == len(rows)
    stream = tables(lake, wider)
    stream.prepare()
    assert (stream.progress(), stream.anchor.state()) == (progress, state)
    again = [orders(18 + at, n, _op="u") | {"count": Decimal("7.125")} for at, n in enumerate((2, 10))]
    commit(lake, stream, again)
    assert held(lake, "orders", "id, count") == [
        (n, n * 10 if n not in {2, 10} else Decimal("7.125")) for n in range(11)
    ]
    assert (
        held(
            lake,
            "orders_history",
            "count(*)",
        )[0][0]
        == len(before["orders_history"]) + 2
    )
    assert migrated(lake, wider) == []


def test_any_type_becomes_its_canonical_text_and_keys_are_found_by_it(local: Lake, storage: Storage) -> None:
    stream = filled(local, contract(storage))
    with pytest.MonkeyPatch.context() as patch:  # an index of keys as numbers is kept, and no longer holds
        patch.setattr(kept_index, "ENTRIES", 0)
        patch.setattr(kept_index, "SHARE", 0.0)
        for table in stream.tables:
            if isinstance(table, StateTable) and table.indexed.kept:
                table.indexed.keep()
                table.indexed.kept.wait()
    assert IndexSnapshots(local, "orders", ["id"])._paths()
    texts = contract(storage, id="text", count="text", amount="text")
    assert set(migrated(local, texts)) == set(STREAM)
    assert held(local, "orders", "id, count, amount")[:3] == [
        ("0", "0", "0.00"),
        ("1", "10", "0.25"),
        ("2", "20", "0.50"),
    ]
    changed = orders(18, 3, _op="u") | {"id": "3", "count": "many", "amount": "1"}
    late = orders(19, 10, _op="u", _position_major=1, _position_minor=1) | {"id": "10", "count": "1", "amount": "1"}
    commit(local, tables(local, texts), [changed, late])
    assert held(local, "orders", "id, count")[-8:] == [
        ("2", "20"), ("3", "many"), ("4", "40"), ("5", "50"), ("6", "60"), ("7", "70"), ("8", "80"), ("9", "90"),
    ]  # fmt: skip


def test_a_lost_value_is_named_before_any_table_is_touched(local: Lake, storage: Storage) -> None:
    filled(local, contract(storage))
    stood = versions(local)
    place = (
        "orders_changes: the value of column amount in the row with id 1, _topic shop.orders, _partition 0, _offset 1"
    )
    with pytest.raises(
        MigrationRefused,
        match=place,
    ):
        migrated(local, contract(storage, amount="numeric(12,1)"))
    with pytest.raises(MigrationRefused, match="column amount"):
        check(local, contract(storage, amount="numeric(12,1)"), "test", {}, canonical_text, untold)
    assert versions(local) == stood
    assert migrated(local, contract(storage, rate="double precision")) == ["orders_changes", "orders_history", "orders"]


REFUSED: list[tuple[str, Contract, str]] = [
    ("dropped", contract(**{"note": "text"}), "column gone is not in the contract any more"),
    ("narrowed", contract(gone="integer"), "column gone cannot go from string to int64"),
    ("masked", contract(gone="text", count="numeric(9,0)"), "column count is masked"),
]


@pytest.mark.parametrize(("what", "wanted", "said"), REFUSED, ids=[one[0] for one in REFUSED])
def test_what_no_migration_can_do_is_refused(local: Lake, what: str, wanted: Contract, said: str) -> None:
    filled(local, contract(gone="text"))
    if what == "masked":
        fields = [dataclasses.replace(f, mask=Mask("noise")) if f.name == "count" else f for f in wanted.fields]
        wanted = dataclasses.replace(wanted, fields=tuple(fields))
    stood = versions(local)
    with pytest.raises(MigrationRefused, match=said):
        check(local, wanted, "test", {}, canonical_text, lambda _: None)
    with pytest.raises(MigrationRefused, match=said):
        migrated(local, wanted)
    assert versions(local) == stood


def test_a_column_that_is_masked_by_a_key_from_now_on_is_never_rewritten_in_clear(local: Lake) -> None:
    filled(local, contract())
    wanted = contract(count="text")
    fields = [dataclasses.replace(f, mask=Mask("hash", key_id="k")) if f.name == "count" else f for f in wanted.fields]
    with pytest.raises(KeyPinChanged):
        migrated(local, dataclasses.replace(wanted, fields=tuple(fields)), {"count": "k:1"})


@pytest.mark.parametrize(("before", "after"), [((), ("note",)), (("note",), ()), (("note",), ("count", "note"))])
def test_other_partitions_hold_the_same_rows(
    local: Lake, storage: Storage, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    filled(local, contract(storage, before))
    rows = held(local, "orders", "id, count, amount, rate, note")
    wanted = contract(storage, after)
    assert {*migrated(local, wanted), STREAM[1]} == set(STREAM)  # the memory of deletes has no count
    assert held(local, "orders", "id, count, amount, rate, note") == rows
    assert DeltaTable(local.table_uri("orders")).metadata().partition_columns == list(after)
    commit(local, tables(local, wanted), [orders(18, 5, _op="d"), orders(19, 6, _op="u") | {"note": "other"}])
    moved = [(n, *rest[:-1], "other") if n == 6 else (n, *rest) for n, *rest in rows if n != 5]
    assert held(local, "orders", "id, count, amount, rate, note") == moved


def test_an_empty_text_cannot_become_a_partition(local: Lake) -> None:
    stream = commit(local, tables(local, contract()), [orders(0, 0), orders(1, 1) | {"note": ""}])
    with pytest.raises(MigrationRefused, match=r"column note in the row with id 1,.* would become another"):
        migrated(local, contract(partition_by=("note",)))
    assert stream.contract.stream == "orders"


def test_without_vectors_only_the_files_that_have_one_are_written_again(local: Lake) -> None:
    stream = filled(local, contract())
    rows = held(local, "orders")
    (current,) = [
        plan
        for plan in check(local, contract(Storage.COPY_ON_WRITE), "test", {}, canonical_text, lambda _: None)
        if plan.table == "orders"
    ]
    assert isinstance(stream.anchor, MergeTable)
    assert current.files == sum(file.vector is not None for file in stream.anchor.files().values()) == 1
    stood = versions(local)["orders"]
    assert migrated(local, contract(Storage.COPY_ON_WRITE)) == list(STREAM[1:])
    assert by_deltalake(local, "orders", stood).num_rows == len(rows)  # as it was, with its vectors
    assert held(local, f"delta_scan('{local.table_uri('orders')}', version => {stood})") == rows
    assert held(local, "orders") == rows and by_deltalake(local, "orders").num_rows == len(rows)
    read = DeltaTable(local.table_uri("orders"))
    assert (read.protocol().min_reader_version, "delta.enableDeletionVectors" in read.metadata().configuration) == (
        1,
        False,
    )
    commit(local, tables(local, contract(Storage.COPY_ON_WRITE)), [orders(18, 5, _op="d")])
    assert len(DeltaTable(local.table_uri("orders")).to_pyarrow_table()) == len(rows) - 1


def test_vectors_are_given_without_writing_a_file(local: Lake) -> None:
    filled(local, contract(Storage.COPY_ON_WRITE))
    rows, files = held(local, "orders"), DeltaTable(local.table_uri("orders")).file_uris()
    tables(local, contract()).prepare()  # falls back to copy-on-write
    notes = standing_of(local, contract(), "test").notes  # as status shows them
    assert len(notes) == 3 and all("written copy-on-write meanwhile" in note for note in notes)
    assert migrated(local, contract()) == list(STREAM[1:])
    assert standing_of(local, contract(), "test").notes == ()
    assert held(local, "orders") == rows and DeltaTable(local.table_uri("orders")).file_uris() == files
    stream = commit(local, tables(local, contract()), [orders(18, 5, _op="d")])
    assert isinstance(stream.anchor, MergeTable) and stream.anchor.fallback is None
    assert any(file.vector for file in stream.anchor.files().values())
    assert held(local, "orders", "count(*)") == [(len(rows) - 1,)]


def test_a_table_written_again_takes_the_contracts_order_and_its_statistics(local: Lake) -> None:
    filled(local, contract())
    rows = held(local, "orders", "id, count, amount, rate, note")
    first, *rest = contract(count="numeric(9,0)").fields
    turned = [first, *(dataclasses.replace(f, private=f.name == "count") for f in reversed(rest))]
    assert set(migrated(local, dataclasses.replace(contract(), fields=tuple(turned)))) == {*STREAM} - {STREAM[1]}
    assert by_deltalake(local, "orders").column_names[:5] == ["id", "note", "rate", "amount", "count"]
    assert held(local, "orders", "id, count, amount, rate, note") == rows
    log = local.get(f"orders/_delta_log/{versions(local)['orders']:020}.json") or b""
    added = [orjson.loads(line)["add"] for line in log.splitlines() if b'"add"' in line]
    assert added and all("count" not in add["stats"] and "amount" in add["stats"] for add in added)


def test_a_job_that_ran_on_under_the_old_contract_stops_before_its_next_commit(local: Lake, storage: Storage) -> None:
    stream = filled(local, contract(storage))
    migrated(local, contract(storage, count="numeric(20,0)"))
    stood = versions(local)["orders"]
    for _ in range(2):
        with pytest.raises(SchemaRefused, match="columns count have another type"):
            commit(local, stream, [orders(18, 5, _op="u")])
    assert versions(local)["orders"] == stood


class Killed(BaseException):
    """The process ends."""


def killed(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize("at", range(3))
def test_killed_between_two_tables_a_start_refuses_until_it_is_done_again(
    local: Lake, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(local, contract())
    wanted, run, done = contract(count="numeric(20,0)"), TableMigration.run, list[str]()

    def counted(self: TableMigration, told: Callable[[object], None]) -> None:
        if len(done) == at:
            raise Killed
        run(self, told)
        done.append("")

    with monkeypatch.context() as dying:
        dying.setattr(TableMigration, "run", counted)
        with pytest.raises(Killed):
            migrated(local, wanted)
    with pytest.raises(SchemaRefused):
        tables(local, wanted).prepare()
    if at:
        with pytest.raises(SchemaRefused):
            tables(local, contract()).prepare()
    assert migrated(local, wanted) == ["orders_changes", "orders_history", "orders"][at:]
    commit(local, tables(local, wanted), [orders(18, 5, _op="d")])
    assert held(local, "orders", "count(*)") == [(9,)]


@pytest.mark.parametrize("where", ["_written", "_actions", "_commit"])
@pytest.mark.parametrize("after", [False, True])
def test_killed_within_a_table_readers_see_the_old_one_or_the_new_one(
    local: Lake, where: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(local, contract())
    wanted, rows = contract(count="numeric(20,0)"), held(local, "orders_changes", "id, count, note, _offset")
    owner: Any = MergeTable if where == "_commit" else TableMigration
    do = getattr(owner, where)

    def dying(self: object, *given: Any) -> object:
        if after:
            do(self, *given)
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(owner, where, dying)
        with pytest.raises(Killed):
            migrated(local, wanted)
    assert held(local, "orders_changes", "id, count, note, _offset") == rows
    left = migrated(local, wanted)
    assert left == [*([] if where == "_commit" and after else ["orders_changes"]), "orders_history", "orders"]
    assert held(local, "orders_changes", "id, count, note, _offset") == rows


DYING = """
import os, sys
from lakehouse.merge.merge_table import MergeTable
from tests.lakehouse.test_migration import Lake, contract, migrated
commit, left = MergeTable._commit, [int(sys.argv[2])]
def dying(self, *given):
    commit(self, *given)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), 9)
MergeTable._commit = dying
migrated(Lake.open(sys.argv[1]), contract(count="numeric(20,0)"))
"""


def test_after_a_kill_it_goes_on_at_once(local: Lake) -> None:
    filled(local, contract())
    rows = {table: held(local, table, "id, count, note, _offset") for table in ("orders_changes", "orders")}
    died = subprocess.run([sys.executable, "-c", DYING, local.uri, "2"], check=False)
    assert died.returncode == -signal.SIGKILL and local.exists(f"{FOLDER}/test/orders.json")
    assert {table: held(local, table, "id, count, note, _offset") for table in rows} == rows
    assert migrated(local, contract(count="numeric(20,0)")) == ["orders"]
    assert {table: held(local, table, "id, count, note, _offset") for table in rows} == rows


def test_rows_that_a_writer_commits_meanwhile_are_migrated_too(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, write_all, turns = filled(local, contract()), TableMigration._written, list[int]()

    def late(self: TableMigration, *given: Any) -> Any:
        made = write_all(self, *given)
        if not turns:
            turns.append(1)
            commit(local, stream, [orders(18, 20)])
        return made

    monkeypatch.setattr(TableMigration, "_written", late)
    wanted = contract(count="numeric(20,0)")
    assert len(migrated(local, wanted)) == 3
    assert held(local, "orders_changes", "count(*), max(count)") == [(19, 200)]
    commit(local, tables(local, wanted), [orders(19, 21)])
    assert [n for (n,) in held(local, "orders", "id")] == [*range(10), 20, 21]


def test_against_a_writer_that_always_wins_it_gives_up_and_says_so(
    local: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, write_all, offset = filled(local, contract()), TableMigration._written, [18]

    def late(self: TableMigration, *given: Any) -> Any:
        made = write_all(self, *given)
        commit(local, stream, [orders(offset[0], offset[0])])
        offset[0] += 1
        return made

    monkeypatch.setattr(TableMigration, "_written", late)
    with pytest.raises(CommitContested, match="Stop what writes it"):
        migrated(local, contract(count="numeric(20,0)"))


def test_two_migrations_of_a_stream_do_not_run_at_once(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(lake, contract())
    path, wanted = f"{FOLDER}/test/orders.json", contract(count="numeric(20,0)")
    with lease.leased(lake, path) as holder:
        assert holder is None
        with pytest.raises(MigrationRefused, match="another migration runs on host"):
            migrated(lake, wanted)
        assert lake.exists(path)
    assert not lake.exists(path)
    lake.put(path, orjson.dumps({"host": "elsewhere", "pid": 1, "renewed_ms": 0}))  # killed long ago
    assert len(migrated(lake, wanted)) == 3 and not lake.exists(path)
    monkeypatch.setattr(lease, "_ended", lambda holder: True)  # killed just now, on this machine
    lake.put(path, lease._own())
    assert migrated(lake, wanted) == [] and not lake.exists(path)
