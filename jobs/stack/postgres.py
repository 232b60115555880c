"""The component `postgres`: a PostgreSQL 15 server with one database, made for change data capture.

Two users with passwords of their own: `tidegate` owns everything, `debezium` may replicate and read. All tables are in
the publication `tidegate`. The passwords lie in its folder, for Kafka Connect (users.properties) and for every client
of libpq (PGPASSFILE=<folder>/pgpass).
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psycopg

from jobs.stack.component import LOOPBACK, Component, Place, Process
from jobs.stack.errors import StackError
from jobs.stack.files import merged, write
from jobs.stack.jars import jars
from jobs.stack.users import give_away, other_than_root

OWNER, REPLICATOR = "tidegate", "debezium"
DATABASE = "shop"
PUBLICATION = "tidegate"

SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "wal_level": "logical",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # For laptops and tests: killed processes lose nothing, only the machine's own crash would.
    "fsync": "off",
    "shared_buffers": "64MB",
    # What a connector that is gone for good may keep from being deleted.
    "max_slot_wal_keep_size": "2GB",
}


def passwords(place: Place) -> dict[str, str]:
    """Give the users and their passwords, made once."""
    path = users_file(place)
    if not path.exists():
        write(path, "".join(f"{user}={secrets.token_hex(16)}\n" for user in (OWNER, REPLICATOR)))
    lines = path.read_text(encoding="utf-8").splitlines()
    return {user: word for user, _, word in (line.partition("=") for line in lines)}


def users_file(place: Place) -> Path:
    """Give the properties file that holds the passwords by user."""
    return place.folder / "users.properties"


def prepare(place: Place) -> None:
    """Make the database cluster with users, database and publication, once."""
    words = passwords(place)
    write(place.folder / "pgpass", "".join(f"{LOOPBACK}:*:*:{user}:{word}\n" for user, word in words.items()))
    if (_data(place) / "made").exists():
        return
    shutil.rmtree(_data(place), ignore_errors=True)
    give_away(place.folder / "server", _data(place))
    _make(place, words)
    (_data(place) / "made").touch()


def processes(place: Place) -> tuple[Process, ...]:
    """Give the server."""
    settings = merged({**SETTINGS, "port": str(place.ports["sql"])}, place.settings)
    settings.setdefault("unix_socket_directories", "")
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return (Process("postgres", (*_program(place, "postgres"), "-D", str(_data(place)), *options), {}),)


def missing(place: Place) -> str | None:
    """Say what is missing until queries are answered."""
    try:
        psycopg.connect(url(place), connect_timeout=2).close()
    except psycopg.Error as error:
        return f"the database does not answer yet ({str(error).strip().splitlines()[0]})"
    return None


def address(place: Place) -> str:
    """Give the URL of the database, without a password."""
    return f"postgresql://{OWNER}@{LOOPBACK}:{place.ports['sql']}/{DATABASE}"


def url(place: Place, user: str = OWNER) -> str:
    """Give the URL of the database with a user's password: not to be shown."""
    return f"postgresql://{user}:{passwords(place)[user]}@{LOOPBACK}:{place.ports['sql']}/{DATABASE}"


def _make(place: Place, words: dict[str, str]) -> None:
    word = place.folder / "server" / "password"
    write(word, words[OWNER], 0o644)
    options = ["--username", OWNER, "--auth", "scram-sha-256", "--pwfile", str(word), "--encoding", "UTF8", "--no-sync"]
    try:
        _run([*_program(place, "initdb"), "-D", str(_data(place)), "--locale", "C", *options])
    finally:
        word.unlink()
    # Without a server yet: PostgreSQL's single-user mode reads one statement a line.
    replicator = f"CREATE ROLE {REPLICATOR} LOGIN REPLICATION PASSWORD '{words[REPLICATOR]}' IN ROLE pg_read_all_data"
    _single(place, "postgres", [f"CREATE DATABASE {DATABASE}", replicator])
    _single(place, DATABASE, [f"CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES"])


def _single(place: Place, database: str, statements: Sequence[str]) -> None:
    command = [*_program(place, "postgres"), "--single", "-D", str(_data(place)), "-c", "exit_on_error=on", database]
    _run(command, "".join(f"{statement}\n" for statement in statements))


def _run(command: Sequence[str], given: str = "") -> None:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise StackError(f"the database cannot be made ({Path(command[-1]).name}): {said}")


def _program(place: Place, name: str) -> tuple[str, ...]:
    binary = jars("postgres") / "bin" / name
    return (*other_than_root(binary, place.folder), str(binary))


def _data(place: Place) -> Path:
    return place.folder / "server" / "data"


POSTGRES = Component(
    name="postgres",
    ports=("sql",),
    prepare=prepare,
    processes=processes,
    missing=missing,
    address=address,
    stop_with="SIGINT",  # ends sessions; SIGTERM waits for them to end
)
