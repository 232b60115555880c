"""Writes the contracts of the corpus, one per captured table and encoding.

They have no masks, so that the tables can be compared with the truth. Run `python tests/data/make_contracts.py` after
a change; tests/contracts/test_corpus_contracts.py fails when the files are stale.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent / "contracts"
PREFIXES = {"json": "cdcj", "json-schema": "cdcs", "avro": "cdca"}
SIGNAL = "id varchar(64) key, type varchar(32) not null, data varchar(2048)"

# Table -> its columns at the end of the workload, as "name type [key] [not null] [was <older name>] [in json <type>]".
TABLES = {
    "users": """id bigint key, email text not null, name varchar(80), status user_status not null,
        balance numeric(12,2) not null, prefs text, created_at timestamptz not null, updated_at timestamp(3)""",
    "products": """sku text key, name text not null, price numeric(10,2) not null, stock int not null, tags text[],
        pid int""",
    # Schemaless JSON does not say the scale, which changed from 2 to 4: the older, more frequent one is declared.
    "orders": """id bigint key, user_id bigint not null, sku text not null, qty bigint not null,
        amount numeric(14,4) in json numeric(12,2), state text not null, remark text was note,
        created_at timestamptz not null, channel text, prio smallint""",
    "order_items": """order_id bigint key, line_no smallint key, sku text not null, qty int not null,
        price numeric(10,2)""",
    "audit_nopk": "at timestamptz, actor text, what text",
    "audit_full": "at timestamptz, actor text, what text",
    "accounts_full": "id int key, owner text, balance numeric(12,2), blob text",
    "idx_ident": "id int key, code text, v text",
    "docs": "id int key, title text, body text, raw bytea, meta jsonb, words text[], ints int[], hs hstore",
    "gen_total": "id int key, a int, b int, total int",
    "metrics": "id int key, day date key, v double precision",
    "metrics_2024": "id int key, day date key, v double precision",
    "metrics_2025": "id int key, day date key, v double precision",
    "Mixed Case": "Order ID int key, Prix € numeric(8,2), from text, x-y text",
    "types_torture": """id int key, c_smallint smallint, c_int int, c_bigint bigint, c_num numeric(10,2),
        c_num_any numeric, c_real real, c_double double precision, c_bool boolean, c_text text, c_varchar varchar(20),
        c_char char(5), c_bytea bytea, c_uuid uuid, c_json json, c_jsonb jsonb, c_date date, c_time0 time(0),
        c_time6 time(6), c_timetz timetz, c_ts0 timestamp(0), c_ts3 timestamp(3), c_ts6 timestamp(6),
        c_tstz timestamptz, c_interval interval, c_ints int[], c_texts text[], c_inet inet, c_money money,
        c_hstore hstore, c_enum user_status""",
    "types_more": """id int key, b1 bit(1), b5 bit(5), bv bit varying(12), x xml, pt point, r4 int4range,
        rts tstzrange, ci citext, lt ltree, cidr cidr, mac macaddr, dom int, nums numeric(8,2)[], tss timestamptz[],
        enums user_status[], uuids uuid[], ints2 int[], oid_ oid, tsv tsvector""",
    "defaults": "id int key, a int, b text, c numeric(6,2), d timestamptz, e boolean, f user_status",
    "late_table": "id int key, v text",
    "num_special": "id int key, n numeric, n2 numeric(10,2), d date, dd numeric(10,2)",
    "dbz_signal_json": SIGNAL,
    "dbz_signal_jsonschema": SIGNAL,
    "dbz_signal_avro": SIGNAL,
    "dbz_signal_flat": SIGNAL,
}
FULL_IDENTITY = frozenset({"audit_full", "accounts_full"})

LOGICAL = {
    "bigint": "integer", "int": "integer", "smallint": "integer", "oid": "integer", "interval": "integer",
    "numeric": "number", "real": "number", "double precision": "number", "money": "number", "boolean": "boolean",
    "date": "date", "time": "time", "timetz": "time", "timestamp": "timestamp", "timestamptz": "timestamp",
    "json": "object", "jsonb": "object", "hstore": "object", "point": "object",
}  # fmt: skip

_TYPE = re.compile(
    r"(?P<type>(?:double precision|bit varying|[a-z_0-9]+)(?:\([\d,]+\))?(?:\[\])?)"
    r"(?P<key> key)?(?P<required> not null)?(?: was (?P<was>\w+))?(?: in json (?P<json>.+))?$"
)


def main() -> None:
    """Write every contract."""
    for path, text in contracts().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def contracts() -> dict[Path, str]:
    """Give the text of each contract file."""
    texts = {}
    for encoding in PREFIXES:
        for table, columns in TABLES.items():
            texts[FOLDER / encoding / f"{stream(table)}.odcs.yaml"] = contract(encoding, table, columns)
        texts[FOLDER / encoding / "infrastructure.odcs.yaml"] = infrastructure(encoding)
    return texts


def stream(table: str) -> str:
    """Give the stream name of a table."""
    return table.lower().replace(" ", "_")


def contract(encoding: str, table: str, columns: str) -> str:
    """Give one contract's text."""
    topic = f"{PREFIXES[encoding]}.public.{table.replace(' ', '_')}"
    settings = head_settings(encoding)
    if table in FULL_IDENTITY:
        settings.append(("identity", "full"))
    keys = 0
    rows = []
    # The comma of numeric(12,2) is no separator.
    for written in re.split(r",(?![\d])\s*", columns):
        name, _, rest = split_name(" ".join(written.split()))
        found = _TYPE.match(rest)
        assert found, written
        keys += bool(found["key"])
        rows.append(column(name, found, encoding, keys if found["key"] else 0))
    if keys:
        settings += [("tables", "[quarantine, changes, history, current]"), ("state", "{truncate: apply}")]
    return head(encoding, stream(table), topic, settings) + "    properties:\n" + "".join(rows)


def split_name(written: str) -> tuple[str, str, str]:
    """Split a column's name from its declaration; two names of the corpus hold a space."""
    for name in ("Order ID", "Prix €"):
        if written.startswith(name):
            return name, " ", written[len(name) + 1 :]
    return written.partition(" ")


def column(name: str, found: re.Match[str], encoding: str, position: int) -> str:
    """Give one column's text."""
    declared = found["json"] if encoding == "json" and found["json"] else found["type"]
    base = re.sub(r"\(.*\)", "", declared)
    plain = re.sub(r"[^a-z0-9_]", "_", name.lower().replace(" €", "")) or name
    # Avro names hold letters, digits and underscores only; Debezium replaces the others.
    source = re.sub(r"[^A-Za-z0-9_]", "_", name) if encoding == "avro" else name
    lines = [f"      - name: {plain}"]
    lines += [f'        physicalName: "{source}"'] if source != plain else []
    if base.endswith("[]"):
        lines += ["        logicalType: array", f"        physicalType: {declared}"]
        lines += [f"        items: {{logicalType: {logical(base[:-2])}}}"]
    else:
        lines += [f"        logicalType: {logical(base)}", f"        physicalType: {declared}"]
    lines += ["        primaryKey: true", f"        primaryKeyPosition: {position}"] if position else []
    lines += ["        required: true"] if found["required"] or position else []
    if found["was"]:
        lines += ["        customProperties:"]
        lines += [f"          - {{vendor: tidegate, property: aliases, value: [{found['was']}]}}"]
    return "\n".join(lines) + "\n"


def logical(base: str) -> str:
    """Give the logical type of ODCS for a PostgreSQL type."""
    return LOGICAL.get(base, "string")


def infrastructure(encoding: str) -> str:
    """Give the contract of the topics that hold no rows: heartbeats, transaction markers, logical messages."""
    prefix = PREFIXES[encoding]
    pattern = rf"__debezium-heartbeat\.{prefix}|{prefix}\.(transaction|message)"
    settings = [("topicPattern", f"'{pattern}'"), *head_settings(encoding)]
    return head(encoding, "infrastructure", None, settings)


def head_settings(encoding: str) -> list[tuple[str, str]]:
    """Give the settings that every contract of an encoding has."""
    settings = [("encoding", encoding)]
    if encoding == "avro":
        settings.append(("registry", '"${TIDEGATE_REGISTRY:-http://127.0.0.1:8081}"'))
    return settings


def head(encoding: str, name: str, topic: str | None, settings: list[tuple[str, str]]) -> str:
    """Give a contract's text up to its columns."""
    entries = "".join(f"  - {{vendor: tidegate, property: {key}, value: {value}}}\n" for key, value in settings)
    table = f"  - name: {name}\n" + (f"    physicalName: {topic}\n" if topic else "") + "    physicalType: topic\n"
    return (
        "# Written by tests/data/make_contracts.py.\n"
        "apiVersion: v3.2.0\nkind: DataContract\n"
        f"id: corpus-{encoding}-{name}\nversion: 1.0.0\nstatus: active\n"
        f"customProperties:\n{entries}schema:\n{table}"
    )


if __name__ == "__main__":
    main()
