"""Check: which rows break which quality rules of the contract, and what follows.

Every rule is tested on every row it is about; a row's fate is its strongest action, fail > quarantine > drop > warn.
Deletes are tested for the presence of their key only, so that a rule that changed cannot keep a deleted row alive;
truncates are not tested. A value that was not sent (unset) is unknown and breaks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from contracts.model import Action, Contract, Rule
from udfs.arrays import any_true
from udfs.changes import Changes, Rejects
from udfs.compiled import Compiled
from udfs.conditions import RULES, Batch, Test, condition
from udfs.expressions import KEY_ONLY, NOTHING, UNDECIDED
from udfs.findings import Findings, rejected, union
from udfs.sandbox import Expression

DROPPED = pa.schema([("row", pa.int64()), ("rule", pa.string())])
NO_DROPS = DROPPED.empty_table()


@dataclass(frozen=True)
class Failure:
    """The first record for which a stream must stop, and the rules it breaks."""

    topic: str
    partition: int
    offset: int
    rules: tuple[str, ...]
    stream: str

    def __str__(self) -> str:
        return (
            f"stream {self.stream}: the record at {self.topic}/{self.partition} offset {self.offset} breaks "
            f"{', '.join(self.rules)}, whose action is fail: correct the source or the rule's action, then resume"
        )


@dataclass(frozen=True)
class Checked:
    """The rows that stay (rules of action warn in `violations`), and the others by what becomes of them."""

    changes: Changes
    rejects: Rejects | None
    dropped: pa.Table  # DROPPED: raw row, first rule of action drop that it breaks
    failed: Failure | None


@dataclass(frozen=True)
class _Prepared:
    rule: Rule
    test: Test
    skipped: pa.Array  # operations the rule is not about
    reason: str


@dataclass(frozen=True)
class _Plan:
    rules: tuple[_Prepared, ...]
    expressions: tuple[Expression, ...]
    actions: Mapping[str, Action]
    reasons: Mapping[str, str]


def _plan(contract: Contract) -> _Plan:
    rules = (*contract.rules, *_implied(contract))
    prepared = tuple(_prepare(rule, contract) for rule in rules)
    expressions = tuple(dict.fromkeys(condition(rule, contract) for rule in rules if rule.kind == "expression"))
    return _Plan(
        prepared,
        expressions,
        {UNDECIDED: Action.QUARANTINE} | {rule.name: rule.action for rule in rules},
        {UNDECIDED: "the row filter cannot be evaluated for this row"} | {p.rule.name: p.reason for p in prepared},
    )


compile_rules: Compiled[_Plan] = Compiled(_plan)


def _implied(contract: Contract) -> list[Rule]:
    """A key must stay one key under its mask, and format-preserving encryption cannot promise that for few digits."""
    return [
        Rule(f"maskable:{f.name}", "maskable", Action.QUARANTINE, f.name)
        for f in contract.key
        if f.mask is not None and f.mask.kind == "fpe_digits"
    ]


def _prepare(rule: Rule, contract: Contract) -> _Prepared:
    kind = RULES[rule.kind]
    about_key = rule.field is None or rule.field in {f.name for f in contract.key}
    subject = rule.field or "the event time"
    return _Prepared(
        rule,
        kind.make(rule, contract),
        NOTHING if kind.of_key and about_key else KEY_ONLY,
        kind.broken.format(field=subject, name=rule.name),
    )


def check(changes: Changes, contract: Contract, now_ms: int) -> Checked:
    """Test every rule on every row; rows to reject, to drop or to fail for are taken out, the others keep warnings.

    `now_ms` is the clock of rules about time (ms since the epoch). The record that fails the stream is in none of the
    other results: nothing of the batch may be taken as done.
    """
    plan = compile_rules(contract)
    batch = Batch(changes, now_ms, plan.expressions)
    found = {p.rule.name: _broken(p, batch) for p in plan.rules} if len(changes) else {}
    broken = {**changes.violations, **{name: marks for name, marks in found.items() if marks is not None}}
    if not broken:
        return Checked(changes, None, NO_DROPS, None)
    action_of = plan.actions
    by_action = {a: {n: marks for n, marks in broken.items() if action_of.get(n, Action.WARN) is a} for a in Action}
    return _judged(changes, contract, plan, broken, by_action)


def _broken(prepared: _Prepared, batch: Batch) -> pa.BooleanArray | None:
    """Mark the rows that break a rule; None when none does."""
    marks = prepared.test(batch)
    if not any_true(marks):
        return None
    marks = pc.and_not(marks, pc.is_in(batch.column("_op"), value_set=prepared.skipped))
    unset = batch.changes.unset.get(prepared.rule.field or "")
    if unset is not None:
        marks = pc.and_not(marks, unset)
    return pc.fill_null(marks, False) if any_true(marks) else None


def _judged(changes: Changes, contract: Contract, plan: _Plan, broken: Findings,
            by_action: Mapping[Action, Findings]) -> Checked:  # fmt: skip
    failing, refused, dropped = (
        union(by_action[action], len(changes)) for action in (Action.FAIL, Action.QUARANTINE, Action.DROP)
    )
    refused = pc.and_not(refused, failing)
    dropped = pc.and_not(dropped, pc.or_(failing, refused))
    kept = pc.invert(pc.or_(pc.or_(failing, refused), dropped))
    warned = replace(changes, violations=by_action[Action.WARN])
    return Checked(
        warned.where(kept),
        rejected("check", refused, changes.row, broken, plan.reasons) if any_true(refused) else None,
        _drops(changes, dropped, by_action[Action.DROP]) if any_true(dropped) else NO_DROPS,
        _failure(changes, contract, failing, by_action[Action.FAIL]) if any_true(failing) else None,
    )


def _drops(changes: Changes, dropped: pa.BooleanArray, findings: Findings) -> pa.Table:
    named = [pc.if_else(marks.filter(dropped), name, pa.scalar(None, pa.string())) for name, marks in findings.items()]
    return pa.Table.from_arrays([changes.row.filter(dropped), pc.coalesce(*named)], schema=DROPPED)


def _failure(changes: Changes, contract: Contract, failing: pa.BooleanArray, findings: Findings) -> Failure:
    first = pc.index(failing, True).as_py()
    topic, partition, offset = (changes.table[name][first].as_py() for name in ("_topic", "_partition", "_offset"))
    rules = tuple(name for name, marks in findings.items() if marks[first].as_py())
    return Failure(topic, partition, offset, rules, contract.stream)
