"""What happens in the live demo's database: customers come, buy, change, move to other keys and go."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import psycopg

SCHEMA = (
    "CREATE TABLE customers (id bigint PRIMARY KEY, email text NOT NULL, name text, profile text,"
    " credit numeric(12,2))",
    "ALTER TABLE customers ALTER profile SET STORAGE EXTERNAL",
    "CREATE TABLE purchases (customer_id bigint, number int, sku text NOT NULL, quantity int NOT NULL,"
    " price numeric(10,2), bought_at timestamptz NOT NULL, PRIMARY KEY (customer_id, number))",
    "CREATE TABLE stock (sku text PRIMARY KEY, pieces int NOT NULL, counted_at timestamptz NOT NULL)",
    "INSERT INTO stock SELECT 'sku-' || n, 1000, now() FROM generate_series(1, 20) n",
    "INSERT INTO customers SELECT n, 'c' || n || '@example.com', 'Customer ' || n, repeat(md5(n::text), 300), n * 10"
    " FROM generate_series(1, 500) n",
    "INSERT INTO purchases SELECT n, 1, 'sku-1', 1, 9.99, now() FROM generate_series(1, 100) n",
)
TABLES = ("customers", "purchases", "stock")
ADDED = "ALTER TABLE customers ADD COLUMN segment text"
CUSTOMERS = 1_000  # ids are below
SESSIONS = 2
PAUSE_SECONDS = 0.002  # between two transactions of a session

Connection = psycopg.Connection[Any]


class DemoWorkload:
    """Transactions without end, in threads of their own; stopped at the end of its `with` block, or by stop()."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self._has_segment = threading.Event()
        self._threads: list[threading.Thread] = []
        self._fault: BaseException | None = None

    def create(self) -> None:
        """Make the tables, with rows for the snapshot."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            for statement in SCHEMA:
                connection.execute(statement.encode())

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(SESSIONS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10)

    def stop(self) -> None:
        """End all sessions; raises what one of them has failed with."""
        self.__exit__(None, None, None)
        self.check()

    def check(self) -> None:
        """Raise what a session has failed with."""
        if self._fault is not None:
            raise self._fault

    def add_column(self) -> None:
        """Change the schema, and use the new column from now on."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(ADDED.encode())
        self._has_segment.set()

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        try:
            with psycopg.connect(self._url, autocommit=True) as connection:
                while not self._over.wait(PAUSE_SECONDS):
                    self._one(connection, chance)
        except BaseException as error:  # told by check()
            self._fault = error

    def _one(self, connection: Connection, chance: random.Random) -> None:
        steps: list[Callable[[Connection, random.Random], None]] = [_buy, _buy, _buy, _come, _change, _move, _go]
        if self._has_segment.is_set():
            steps += [_place, _place]
        try:
            with connection.transaction():
                chance.choice(steps)(connection, chance)
        except (psycopg.errors.IntegrityError, psycopg.errors.TransactionRollback):
            return  # the other session was first


def _someone(chance: random.Random) -> int:
    return chance.randrange(1, CUSTOMERS)


def _buy(connection: Connection, chance: random.Random) -> None:
    sku, quantity = f"sku-{chance.randint(1, 20)}", chance.randint(1, 5) if chance.random() > 0.02 else 0
    values = (_someone(chance), chance.randint(1, 50), sku, quantity, f"{chance.randrange(1, 9999) / 100:.2f}")
    connection.execute("UPDATE stock SET pieces = pieces - %s, counted_at = now() WHERE sku = %s", (quantity, sku))
    connection.execute(
        "INSERT INTO purchases VALUES (%s, %s, %s, %s, %s, now()) ON CONFLICT (customer_id, number)"
        " DO UPDATE SET quantity = excluded.quantity, price = excluded.price",
        values,
    )


def _come(connection: Connection, chance: random.Random) -> None:
    number = _someone(chance)
    connection.execute(
        "INSERT INTO customers (id, email, name, profile, credit) VALUES (%s, %s, %s, repeat(md5(%s), 300), 0)"
        " ON CONFLICT DO NOTHING",
        (number, f"c{number}@example.com", f"Customer {number}", str(number)),
    )


def _change(connection: Connection, chance: random.Random) -> None:
    credit = f"{chance.randrange(10**6) / 100:.2f}"
    connection.execute("UPDATE customers SET credit = %s WHERE id = %s", (credit, _someone(chance)))


def _move(connection: Connection, chance: random.Random) -> None:
    """Give a customer another key; the long profile goes with it unsent."""
    old, new = _someone(chance), _someone(chance)
    connection.execute(
        "UPDATE customers SET id = %s WHERE id = %s AND NOT EXISTS (SELECT 1 FROM customers WHERE id = %s)",
        (new, old, new),
    )


def _go(connection: Connection, chance: random.Random) -> None:
    number = _someone(chance)
    connection.execute("DELETE FROM purchases WHERE customer_id = %s", (number,))
    connection.execute("DELETE FROM customers WHERE id = %s", (number,))


def _place(connection: Connection, chance: random.Random) -> None:
    segment = chance.choice(["gold", "silver", None])
    connection.execute("UPDATE customers SET segment = %s WHERE id = %s", (segment, _someone(chance)))
