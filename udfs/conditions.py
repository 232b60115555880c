"""The kinds of quality rules: one small function each, from a rule to a test of a batch.

A test marks the rows that break the rule; null counts as met, so that null values break `required` and `key_present`
only. Bounds are compared exactly: on integers and decimals as the tightest value the type can hold, never as floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contracts.model import Contract, Rule
from contracts.types import MAX_DECIMAL_DIGITS
from udfs.arrays import flat, over_distinct, repeat
from udfs.canonical import canonical_text
from udfs.changes import Changes
from udfs.expressions import row_types
from udfs.fpe import enough_digits
from udfs.sandbox import Evaluated, Expression, evaluate

_EXACT = Context(prec=4 * MAX_DECIMAL_DIGITS)
EVENT_TIME = "_event_time"


@dataclass
class Batch:
    """The rows under test. Expression rules are evaluated together, the first time one of them is asked for."""

    changes: Changes
    now_ms: int
    expressions: Sequence[Expression] = ()
    _columns: dict[str, pa.Array] = field(default_factory=dict)
    _evaluated: dict[Expression, Evaluated] = field(default_factory=dict)

    def column(self, name: str) -> pa.Array:
        """Give a column as one array."""
        if name not in self._columns:
            self._columns[name] = flat(self.changes.table[name])
        return self._columns[name]

    def evaluated(self, expression: Expression) -> Evaluated:
        """Give what an expression says of each row."""
        if not self._evaluated:
            found = evaluate(self.expressions, self.changes.table)
            self._evaluated = dict(zip(self.expressions, found, strict=True))
        return self._evaluated[expression]


Test = Callable[[Batch], pa.BooleanArray]


@dataclass(frozen=True)
class Kind:
    """A kind of rule: what makes its test, and what is said of a row that breaks it (never a value of the row)."""

    make: Callable[[Rule, Contract], Test]
    broken: str
    of_key: bool = False  # holds for deletes too


def _required(rule: Rule, _contract: Contract) -> Test:
    """A value that was sent but cannot be stored (infinity) is there: its flag says so."""
    name = str(rule.field)

    def test(batch: Batch) -> pa.BooleanArray:
        missing = batch.column(name).is_null()
        flags = batch.changes.flags.get(name)
        return missing if flags is None else pc.and_(missing, flags.is_null())

    return test


def _key_present(_rule: Rule, contract: Contract) -> Test:
    """A flagged null is missing here: a row cannot be found by a key that cannot be stored."""
    names = [f.name for f in contract.key]

    def test(batch: Batch) -> pa.BooleanArray:
        broken = repeat(False, len(batch.changes))
        for name in names:
            column = batch.column(name)
            broken = pc.or_(broken, column.is_null()) if column.null_count else broken
        return broken

    return test


def _pattern(rule: Rule, _contract: Contract) -> Test:
    pattern = rf"\A(?:{rule.arguments['pattern']})\z"
    return lambda batch: pc.invert(pc.match_substring_regex(batch.column(str(rule.field)), pattern))


def _minimum(rule: Rule, contract: Contract) -> Test:
    return _bound(rule, contract, lowest=True)


def _maximum(rule: Rule, contract: Contract) -> Test:
    return _bound(rule, contract, lowest=False)


def _enum(rule: Rule, contract: Contract) -> Test:
    return _listed(rule, contract, rule.arguments["values"])


def _reference(rule: Rule, contract: Contract) -> Test:
    return _listed(rule, contract, contract.references[rule.arguments["list"]])


def _length(rule: Rule, _contract: Contract) -> Test:
    low, high = rule.arguments.get("min"), rule.arguments.get("max")

    def test(batch: Batch) -> pa.BooleanArray:
        length = _lengths(batch.column(str(rule.field)))
        broken = repeat(False, len(length))
        if low is not None:
            broken = pc.or_(broken, pc.less(length, low))
        return broken if high is None else pc.or_(broken, pc.greater(length, high))

    return test


def _not_in_future(rule: Rule, _contract: Contract) -> Test:
    skew = int(rule.arguments.get("skew_ms", 0))

    def test(batch: Batch) -> pa.BooleanArray:
        values = batch.column(rule.field or EVENT_TIME)
        return pc.greater(values, _moment(batch.now_ms + skew, values.type))

    return test


def _freshness(rule: Rule, _contract: Contract) -> Test:
    age = int(rule.arguments["max_age_ms"])

    def test(batch: Batch) -> pa.BooleanArray:
        values = batch.column(rule.field or EVENT_TIME)
        return pc.less(values, _moment(batch.now_ms - age, values.type))

    return test


def _expression(rule: Rule, contract: Contract) -> Test:
    """A row for which the condition cannot be evaluated breaks it; one that lacks a column it reads does not."""
    expression = condition(rule, contract)

    def test(batch: Batch) -> pa.BooleanArray:
        found = batch.evaluated(expression)
        broken = pc.fill_null(pc.invert(found.values), False)
        broken = broken if found.failed is None else pc.or_(broken, found.failed)
        for name in expression.reads:
            if name in batch.changes.unset:
                broken = pc.and_not(broken, batch.changes.unset[name])
        return broken

    return test


def _maskable(rule: Rule, _contract: Contract) -> Test:
    return lambda batch: pc.invert(enough_digits(canonical_text(batch.column(str(rule.field)))))


# Kind of rule -> how it is tested. `maskable` is not written in contracts: it guards keys masked with fpe_digits.
RULES: Mapping[str, Kind] = {
    "required": Kind(_required, "{field} is null", of_key=True),
    "key_present": Kind(_key_present, "a key column is null", of_key=True),
    "pattern": Kind(_pattern, "{field} does not match its pattern"),
    "minimum": Kind(_minimum, "{field} is below its minimum"),
    "maximum": Kind(_maximum, "{field} is above its maximum"),
    "enum": Kind(_enum, "{field} is none of the listed values"),
    "length": Kind(_length, "{field} is too short or too long"),
    "not_in_future": Kind(_not_in_future, "{field} lies in the future"),
    "freshness": Kind(_freshness, "{field} is too old"),
    "expression": Kind(_expression, "the condition {name} does not hold"),
    "reference": Kind(_reference, "{field} is not in its reference list"),
    "maskable": Kind(_maskable, "{field} has too few digits to be masked as a key", of_key=True),
}


def condition(rule: Rule, contract: Contract) -> Expression:
    """Give the expression of an expression rule, bound to the contract's columns."""
    columns = row_types(contract) | {d.name: d.type.arrow for d in contract.derived}
    return Expression.of(rule.arguments["sql"], pa.bool_(), columns)


def _bound(rule: Rule, contract: Contract, lowest: bool) -> Test:
    kind = _type(str(rule.field), contract)
    value, exclusive = rule.arguments["value"], bool(rule.arguments.get("exclusive", False))
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return _exact_bound(str(rule.field), kind, Decimal(str(value)), exclusive, lowest)
    if pa.types.is_string(kind) and not isinstance(value, str):
        return _written_bound(str(rule.field), Decimal(str(value)), exclusive, lowest)
    limit = _scalar(value, kind)
    inclusive, strict = (pc.greater_equal, pc.greater) if lowest else (pc.less_equal, pc.less)
    within = strict if exclusive else inclusive
    # Not "is it below": NaN is neither below nor within.
    return lambda batch: pc.invert(within(batch.column(str(rule.field)), limit))


def _exact_bound(name: str, kind: pa.DataType, value: Decimal, exclusive: bool, lowest: bool) -> Test:
    scale = kind.scale if pa.types.is_decimal(kind) else 0
    largest = 10**MAX_DECIMAL_DIGITS - 1 if pa.types.is_decimal(kind) else 2**63 - 1
    units = value.scaleb(scale, _EXACT)
    limit = int(units.to_integral_value(ROUND_CEILING if lowest else ROUND_FLOOR, _EXACT))
    if exclusive and limit == units:
        limit += 1 if lowest else -1
    if not -largest <= limit <= largest:
        never_met = (limit > 0) == lowest
        return lambda batch: batch.column(name).is_valid() if never_met else repeat(False, len(batch.changes))
    scalar = pa.scalar(Decimal(limit).scaleb(-scale, _EXACT), kind) if scale else pa.scalar(limit).cast(kind)
    outside = pc.less if lowest else pc.greater
    return lambda batch: outside(batch.column(name), scalar)


def _written_bound(name: str, limit: Decimal, exclusive: bool, lowest: bool) -> Test:
    """Compare numbers stored as exact decimal text (numeric without a precision)."""

    def within(text: str) -> bool:
        number = Decimal(text)
        if number.is_nan():
            return False
        return (number != limit or not exclusive) and (number >= limit if lowest else number <= limit)

    # No Arrow decimal holds every such number: they are compared one by one, once per distinct text.
    inside = lambda texts: pa.array([within(text) for text in texts.to_pylist()], pa.bool_())  # noqa: E731
    return lambda batch: pc.invert(over_distinct(batch.column(name), inside))


def _listed(rule: Rule, contract: Contract, values: Sequence[Any]) -> Test:
    kind = _type(str(rule.field), contract)
    listed = pa.array([_scalar(value, kind).as_py() for value in values], kind)

    def test(batch: Batch) -> pa.BooleanArray:
        column = batch.column(str(rule.field))
        broken = pc.invert(pc.is_in(column, value_set=listed))
        return pc.and_(broken, column.is_valid()) if column.null_count else broken

    return test


def _lengths(values: pa.Array) -> pa.Array:
    if pa.types.is_list(values.type):
        return pc.list_value_length(values)
    return pc.binary_length(values) if pa.types.is_binary(values.type) else pc.utf8_length(values)


def _moment(ms: int, kind: pa.DataType) -> pa.Scalar:
    moment = datetime.fromtimestamp(ms // 1000, UTC).replace(microsecond=ms % 1000 * 1000)
    return _scalar(moment.date() if pa.types.is_date(kind) else moment, kind)


def _scalar(value: Any, kind: pa.DataType) -> pa.Scalar:
    """Give a value of a contract as a scalar of the column's type; times without a zone are UTC."""
    if pa.types.is_decimal(kind):
        value = Decimal(str(value))
    if pa.types.is_integer(kind):
        value = int(value)
    if pa.types.is_timestamp(kind):
        value = datetime.fromisoformat(value) if isinstance(value, str) else value
        value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        value = value if kind.tz else value.replace(tzinfo=None)
    if pa.types.is_date(kind) and isinstance(value, str):
        return pa.scalar(value).cast(kind)
    return pa.scalar(value, kind)


def _type(name: str, contract: Contract) -> pa.DataType:
    return (row_types(contract) | {d.name: d.type.arrow for d in contract.derived})[name]
