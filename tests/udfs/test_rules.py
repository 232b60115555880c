"""Quality rules: what each kind accepts and refuses, and what becomes of the rows that break them."""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa
import pytest

from contracts.model import Action, Contract, Field, Mask, Rule
from tests.udfs.cases_of import cases, kinds, typed
from tests.udfs.rows import NOW_MS, changes, contract, derived, field
from udfs.changes import META
from udfs.rules import RULES, check


def test_every_rule_has_a_case_file() -> None:
    assert kinds("rules") == set(RULES)


@pytest.mark.parametrize(("kind", "case"), cases("rules"))
def test_a_rule_accepts_and_refuses(kind: str, case: dict[str, Any]) -> None:
    columns = case.get("columns", {"value": case.get("type")})
    key = case.get("key", [])
    fields = [field(n, t, key_position=key.index(n) + 1 if n in key else None) for n, t in columns.items()]
    rule = Rule("r", kind, Action.QUARANTINE, None if "columns" in case else "value", case.get("arguments", {}))
    references = {name: tuple(values) for name, values in case.get("references", {}).items()}
    of = contract(*fields, rules=(rule,), references=references)
    met = [*({"value": v} for v in case.get("met", [])), *case.get("rows_met", [])]
    broken = [*({"value": v} for v in case.get("broken", [])), *case.get("rows_broken", [])]
    rows = [_row(of, row) for row in met + broken]
    checked = check(changes(of, rows), of, NOW_MS)
    assert checked.changes.row.to_pylist() == list(range(len(met)))
    refused = checked.rejects.row.to_pylist() if checked.rejects else []
    assert refused == list(range(len(met), len(rows)))
    assert not checked.rejects or set(map(tuple, checked.rejects.rules.to_pylist())) == {("r",)}


def _row(of: Contract, row: dict[str, Any]) -> dict[str, Any]:
    types = {f.name: f.type for f in META} | {f.name: f.type.arrow for f in of.fields}
    return {name: typed(value, types[name]) for name, value in row.items()}


ID = field("id", "bigint", key_position=1)


def rule(name: str, action: Action, kind: str = "minimum", on: str | None = "id", **arguments: Any) -> Rule:
    return Rule(name, kind, action, on, arguments)


def test_the_strongest_action_decides_and_all_broken_rules_are_reported() -> None:
    of = contract(
        ID,
        rules=(
            rule("w", Action.WARN, value=4),
            rule("d", Action.DROP, value=3),
            rule("q", Action.QUARANTINE, value=2),
            rule("f", Action.FAIL, value=1),
        ),
    )
    checked = check(changes(of, [{"id": i} for i in (0, 1, 2, 3, 4)]), of, NOW_MS)
    assert checked.changes.row.to_pylist() == [3, 4]
    assert checked.changes.violations["w"].to_pylist() == [True, False]
    assert checked.dropped.to_pylist() == [{"row": 2, "rule": "d"}]
    assert checked.rejects is not None
    assert checked.rejects.row.to_pylist() == [1]
    assert checked.rejects.rules.to_pylist() == [["w", "d", "q"]]
    assert checked.failed is not None
    assert (checked.failed.topic, checked.failed.partition, checked.failed.offset) == ("t", 0, 0)
    assert checked.failed.rules == ("f",)
    assert "t/0 offset 0" in str(checked.failed)


def test_rows_that_break_nothing_come_back_untouched() -> None:
    of = contract(ID, rules=(rule("q", Action.QUARANTINE, value=0),))
    given = changes(of, [{"id": 1}, {"id": 2}])
    checked = check(given, of, NOW_MS)
    assert checked.changes is given
    assert checked.rejects is None
    assert checked.failed is None
    assert not len(checked.dropped)


def test_an_empty_batch_breaks_nothing() -> None:
    of = contract(ID, rules=(rule("q", Action.QUARANTINE, value=0), rule("k", Action.FAIL, "key_present", None)))
    assert check(changes(of, []), of, NOW_MS).failed is None


def test_a_value_that_was_not_sent_breaks_no_rule() -> None:
    every = (
        rule("required", Action.QUARANTINE, "required", "note"),
        rule("condition", Action.QUARANTINE, "expression", None, sql="note IS NOT NULL"),
        rule("length", Action.QUARANTINE, "length", "note", min=1),
    )
    of = contract(ID, field("note"), rules=every)
    rows = [{"id": 1, "note": None}, {"id": 2, "note": None}, {"id": 3, "note": "x"}]
    checked = check(changes(of, rows, unset={"note": [True, False, False]}), of, NOW_MS)
    assert checked.changes.row.to_pylist() == [0, 2]
    assert checked.rejects is not None
    assert checked.rejects.rules.to_pylist() == [["required", "condition"]]


def test_a_value_that_cannot_be_stored_is_there_but_makes_no_key() -> None:
    at = field("at", "timestamptz", key_position=1)
    required = contract(at, rules=(rule("r", Action.QUARANTINE, "required", "at"),))
    keyed = contract(at, rules=(rule("k", Action.QUARANTINE, "key_present", None),))
    flags = {"at": ["infinity", None]}
    assert check(changes(required, [{}, {}], flags=flags), required, NOW_MS).changes.row.to_pylist() == [0]
    assert check(changes(keyed, [{}, {}], flags=flags), keyed, NOW_MS).changes.row.to_pylist() == []


def test_deletes_are_checked_for_their_key_only() -> None:
    of = contract(
        ID,
        field("note"),
        rules=(
            rule("low", Action.QUARANTINE, value=5),
            rule("note", Action.QUARANTINE, "required", "note"),
            rule("key", Action.QUARANTINE, "key_present", None),
        ),
    )
    checked = check(changes(of, [{"id": 1, "_op": "d"}, {"id": None, "_op": "d"}, {"_op": "t"}]), of, NOW_MS)
    assert checked.changes.row.to_pylist() == [0, 2]
    assert checked.rejects is not None
    assert checked.rejects.rules.to_pylist() == [["key"]]


def test_a_key_that_its_mask_cannot_keep_apart_is_quarantined() -> None:
    phone = field("phone", key_position=1, mask=Mask("fpe_digits", key_id="first"))
    of = contract(phone)
    checked = check(changes(of, [{"phone": "+33612345678"}, {"phone": "12"}, {"phone": "12", "_op": "d"}]), of, NOW_MS)
    assert checked.changes.row.to_pylist() == [0]
    assert checked.rejects is not None
    assert checked.rejects.rules.to_pylist() == [["maskable:phone"]] * 2


def test_a_rule_may_be_about_a_derived_column() -> None:
    of = contract(
        ID, rules=(rule("twice", Action.WARN, value=5, on="twice"),), derived=(derived("twice", "bigint", "id"),)
    )
    given = changes(of, [{"id": 4}, {"id": 6}])
    table = given.table.add_column(1, "twice", pa.array([4, 6]))
    checked = check(type(given)(table, given.row), of, NOW_MS)
    assert checked.changes.violations["twice"].to_pylist() == [True, False]


def test_two_batches_give_what_one_gives() -> None:
    of = contract(ID, field("note"), rules=(rule("q", Action.QUARANTINE, value=3), rule("w", Action.WARN, value=6)))
    given = changes(of, [{"id": i} for i in range(10)])
    whole = check(given, of, NOW_MS)
    assert whole.rejects is not None
    halves = [
        check(type(given)(given.table.slice(a, n), given.row.slice(a, n)), of, NOW_MS) for a, n in ((0, 4), (4, 6))
    ]
    assert [r for h in halves for r in h.changes.row.to_pylist()] == whole.changes.row.to_pylist()
    assert [r for h in halves if h.rejects for r in h.rejects.row.to_pylist()] == whole.rejects.row.to_pylist()


def test_a_reason_holds_no_value_of_the_record() -> None:
    secret = "Zxq81 private"
    fields: list[Field] = [field("s"), field("n", "bigint")]
    named = [
        rule("a", Action.QUARANTINE, "pattern", "s", pattern="no"),
        rule("b", Action.QUARANTINE, "enum", "s", values=["no"]),
        rule("c", Action.QUARANTINE, "length", "s", max=1),
        rule("d", Action.QUARANTINE, "minimum", "n", value=987654),
        rule("e", Action.QUARANTINE, "expression", None, sql="CAST(s AS BIGINT) > 0"),
    ]
    of = contract(*fields, rules=tuple(named))
    rejects = check(changes(of, [{"s": secret, "n": 424242}]), of, NOW_MS).rejects
    assert rejects is not None
    assert rejects.rules.to_pylist() == [["a", "b", "c", "d", "e"]]
    assert secret not in rejects.reason[0].as_py()
    assert "424242" not in rejects.reason[0].as_py()


def test_five_rules_over_a_batch_take_milliseconds() -> None:
    of = contract(
        ID,
        field("email"),
        field("state"),
        rules=(
            rule("key", Action.FAIL, "key_present", None),
            rule("there", Action.QUARANTINE, "required", "email"),
            rule("form", Action.QUARANTINE, "pattern", "email", pattern=r"[^@\s]+@[^@\s]+\.[a-z]{2,}"),
            rule("low", Action.QUARANTINE, value=0),
            rule("known", Action.WARN, "enum", "state", values=["new", "paid"]),
        ),
    )
    rows = [{"id": i, "email": f"user{i}@example.com", "state": "new"} for i in range(10_000)]
    given = changes(of, rows)
    check(given, of, NOW_MS)
    assert min(_seconds(given, of) for _ in range(5)) < 0.01  # 0.9 ms on a quiet core


def _seconds(given: Any, of: Contract) -> float:
    start = time.perf_counter()
    check(given, of, NOW_MS)
    return time.perf_counter() - start
