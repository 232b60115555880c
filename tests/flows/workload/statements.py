"""The kinds of transaction of the random workload; each is given a connection, chance, and how many keys there are."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]
Transaction = Callable[[Connection, random.Random, int], None]
LONG = 9_000  # characters: more than a page holds, so that PostgreSQL stores the value apart (TOAST)
KEPT = 0.7  # share of updates that leave a long value as it is


@dataclass(frozen=True)
class Table:
    """How a table's keys and values are drawn."""

    key: tuple[str, ...]
    draw_key: Callable[[random.Random, int], tuple[Any, ...]]
    values: Mapping[str, Callable[[random.Random], Any]]
    long: frozenset[str] = frozenset()


def _text(chance: random.Random) -> str:
    return chance.choice(["", "plain", "zwölf Böxkämpfer", 'he said "no"\n', "back\\slash", "日本 🚲", "null"]) + str(
        chance.randrange(100)
    )


def _long(chance: random.Random) -> str | None:
    """Give mostly a long text that does not compress, sometimes a short one or none."""
    if chance.random() < 0.2:
        return chance.choice([None, "", "short"])
    return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz0123456789 é\n", k=LONG))


def _number(digits: int, scale: int) -> Callable[[random.Random], str | None]:
    def draw(chance: random.Random) -> str | None:
        whole = chance.randrange(-(10**digits), 10**digits)
        return None if chance.random() < 0.1 else f"{whole // 10**scale}.{abs(whole) % 10**scale:0{scale}d}"

    return draw


def _moment(chance: random.Random) -> str:
    return f"2024-{chance.randint(1, 12):02d}-{chance.randint(1, 28):02d} 10:20:30.{chance.randrange(10**6):06d}+00"


def _day(chance: random.Random) -> str:
    return f"{chance.choice([2024, 2025])}-0{chance.randint(1, 9)}-1{chance.randrange(10)}"


def _int(chance: random.Random) -> int:
    return chance.randrange(1_000)


def _maybe(draw: Callable[[random.Random], Any]) -> Callable[[random.Random], Any]:
    return lambda chance: None if chance.random() < 0.2 else draw(chance)


def _words(chance: random.Random) -> list[str | None] | None:
    if chance.random() < 0.3:
        return chance.choice([None, [], [None, "", "x"]])
    return [f"{chance.getrandbits(128):032x}" for _ in range(LONG // 32)]


def _json(chance: random.Random) -> str | None:
    if chance.random() < 0.3:
        return chance.choice([None, "{}", '{"a": null, "b": [1, 2.50]}'])
    return json.dumps({"k": "".join(chance.choices("abcdef0123456789", k=LONG))})


def _float(chance: random.Random) -> Any:
    return chance.choice([None, 0.1, -1e300, 5e-324, "NaN", "Infinity", chance.random()])


TABLES: Mapping[str, Table] = {
    "accounts": Table(
        ("id",), lambda c, n: (c.randrange(n),),
        {"owner": _text, "balance": _number(12, 2), "opened": _moment, "note": _maybe(_text)},
    ),
    "order_lines": Table(
        ("order_id", "line_no"), lambda c, n: (c.randrange(n // 4), c.randrange(4)),
        {"sku": _text, "qty": _int, "price": _number(10, 2)},
    ),
    "documents": Table(
        ("id",), lambda c, n: (uuid.UUID(int=c.randrange(n)),),
        {"title": _maybe(_text), "body": _long, "words": _words, "meta": _json, "revision": _int},
        frozenset({"body", "words", "meta"}),
    ),
    "ledgers": Table(
        ("code",), lambda c, n: (f"L {c.randrange(n)}",), {"amount": _number(14, 4), "memo": _long}, frozenset({"memo"})
    ),
    "readings": Table(
        ("id", "day"), lambda c, n: (c.randrange(n // 4), f"{c.choice([2024, 2025])}-03-0{c.randint(1, 4)}"),
        {"v": _float, "remark": _maybe(_text)},
    ),
    "totals": Table(("id",), lambda c, n: (c.randrange(n),), {"a": _int, "b": _int, "label": _maybe(_text)}),
}  # fmt: skip


def _drawn(chance: random.Random, keys: int) -> tuple[str, Table, tuple[Any, ...]]:
    name = chance.choice(list(TABLES))
    return name, TABLES[name], TABLES[name].draw_key(chance, keys)


def _insert(connection: Connection, name: str, key: tuple[Any, ...], chance: random.Random) -> None:
    table = TABLES[name]
    columns = ", ".join((*table.key, *table.values))
    marks = ", ".join(["%s"] * (len(table.key) + len(table.values)))
    values = [*key, *(draw(chance) for draw in table.values.values())]
    connection.execute(f"INSERT INTO {name} ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING".encode(), values)


def _update(connection: Connection, name: str, key: tuple[Any, ...], chance: random.Random) -> None:
    table = TABLES[name]
    short = [n for n in table.values if n not in table.long]
    columns = chance.sample(short, chance.randint(1, len(short)))
    columns += [n for n in sorted(table.long) if chance.random() > KEPT]
    sets = ", ".join(f"{n} = %s" for n in columns)
    values = [table.values[n](chance) for n in columns]
    connection.execute(f"UPDATE {name} SET {sets} WHERE {_where(table)}".encode(), [*values, *key])


def _delete(connection: Connection, name: str, key: tuple[Any, ...]) -> None:
    connection.execute(f"DELETE FROM {name} WHERE {_where(TABLES[name])}".encode(), list(key))


def _rekey(connection: Connection, name: str, old: tuple[Any, ...], new: tuple[Any, ...]) -> None:
    """Change a key, unless the other one is taken."""
    table = TABLES[name]
    sets = ", ".join(f"{n} = %s" for n in table.key)
    free = f"NOT EXISTS (SELECT 1 FROM {name} WHERE {_where(table)})"
    connection.execute(f"UPDATE {name} SET {sets} WHERE {_where(table)} AND {free}".encode(), [*new, *old, *new])


def _where(table: Table) -> str:
    return " AND ".join(f"{n} = %s" for n in table.key)


def insert(connection: Connection, chance: random.Random, keys: int) -> None:
    """Insert some rows."""
    for _ in range(chance.randint(1, 4)):
        name, _, key = _drawn(chance, keys)
        _insert(connection, name, key, chance)


def update(connection: Connection, chance: random.Random, keys: int) -> None:
    """Update some rows, one of them several times."""
    name, table, _ = _drawn(chance, keys)
    for _ in range(chance.randint(1, 3)):
        key = table.draw_key(chance, keys)
        for _ in range(chance.randint(1, 3)):
            _update(connection, name, key, chance)


def delete(connection: Connection, chance: random.Random, keys: int) -> None:
    """Delete a row."""
    name, _, key = _drawn(chance, keys)
    _delete(connection, name, key)


def replace(connection: Connection, chance: random.Random, keys: int) -> None:
    """Delete a row and insert one with the same key."""
    name, _, key = _drawn(chance, keys)
    _delete(connection, name, key)
    _insert(connection, name, key, chance)


def change_key(connection: Connection, chance: random.Random, keys: int) -> None:
    """Give a row another key, sometimes several in a chain and with updates in between."""
    name, table, key = _drawn(chance, keys)
    for _ in range(chance.choice([1, 1, 2, 3])):
        following = table.draw_key(chance, keys)
        _rekey(connection, name, key, following)
        if chance.random() < 0.5:
            _update(connection, name, following, chance)
        key = following


def insert_changed(connection: Connection, chance: random.Random, keys: int) -> None:
    """Insert a row and change it, its key too, before anybody else sees it."""
    name, table, key = _drawn(chance, keys)
    _insert(connection, name, key, chance)
    _update(connection, name, key, chance)
    _rekey(connection, name, key, table.draw_key(chance, keys))


def savepoints(connection: Connection, chance: random.Random, keys: int) -> None:
    """Do something, take another thing back, go on."""
    for _ in range(chance.randint(1, 3)):
        with connection.transaction(force_rollback=chance.random() < 0.5):
            chance.choice([insert, update, delete, replace, change_key])(connection, chance, keys)
    update(connection, chance, keys)


def many_rows(connection: Connection, chance: random.Random, keys: int) -> None:
    """Touch many rows of a table in one statement."""
    connection.execute("UPDATE totals SET a = a + 1 WHERE id %% 3 = %s", [chance.randrange(3)])
    connection.execute("UPDATE documents SET revision = revision + 1 WHERE title IS NOT NULL")


def truncate(connection: Connection, chance: random.Random, keys: int) -> None:
    """Empty a table, and put some rows in again."""
    name = chance.choice([table for table in TABLES if table != "readings"])
    connection.execute(f"TRUNCATE {name}".encode())
    for _ in range(5):
        _insert(connection, name, TABLES[name].draw_key(chance, keys), chance)


TRANSACTIONS: tuple[Transaction, ...] = (
    insert, insert, insert, update, update, update, delete, delete, replace, change_key, change_key, insert_changed,
    savepoints, many_rows,
)  # fmt: skip
