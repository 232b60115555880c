"""The contracts of the corpus and of the demo shop: up to date, loadable by us and by any tool that reads ODCS."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft201909Validator
from open_data_contract_standard.model import OpenDataContractStandard

import contracts
from contracts.load import load_contract, load_contracts
from contracts.model import Encoding

CASES = Path(__file__).parent / "cases"
DATA = Path(__file__).parents[1] / "data"
SHOP = Path(contracts.__file__).parent / "shop"
SCHEMA = Path(contracts.__file__).parent / "tidegate.schema.json"
ENCODINGS = ("json", "json-schema", "avro")
EXAMPLES = [*SHOP.glob("*.yaml"), *CASES.glob("ok_*.yaml"), *(DATA / "contracts").rglob("*.odcs.yaml")]


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(DATA / "make_contracts.py"))


def test_the_corpus_contracts_are_what_their_generator_writes(generator: dict[str, Any]) -> None:
    written = generator["contracts"]()
    assert {path: path.read_text("utf-8") for path in (DATA / "contracts").rglob("*.yaml")} == written


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_topic_of_the_corpus_is_read_by_one_contract(encoding: str, generator: dict[str, Any]) -> None:
    loaded = load_contracts(DATA / "contracts" / encoding)
    assert {contract.encoding for contract in loaded} == {Encoding(encoding)}
    prefix = generator["PREFIXES"][encoding]
    tables = {f"{prefix}.public.{table.replace(' ', '_')}" for table in generator["TABLES"]}
    others = {f"__debezium-heartbeat.{prefix}", f"{prefix}.transaction", f"{prefix}.message"}
    assert sorted(topic for contract in loaded for topic in contract.topics) == sorted(tables)
    (pattern,) = [contract.topic_pattern for contract in loaded if contract.topic_pattern]
    assert {topic for topic in tables | others if re.fullmatch(pattern, topic)} == others
    assert len(tables | others) == 26


def test_the_three_encodings_declare_the_same_tables() -> None:
    def columns(encoding: str) -> dict[str, list[tuple[str, str]]]:
        loaded = load_contracts(DATA / "contracts" / encoding)
        return {c.stream: [(f.name, str(f.type.arrow)) for f in c.fields] for c in loaded}

    json_columns, schema_columns = columns("json"), columns("json-schema")
    assert schema_columns == columns("avro")
    # Schemaless JSON has no scale of its own: one of the two that orders.amount had is declared.
    changed = {stream for stream in json_columns if json_columns[stream] != schema_columns[stream]}
    assert changed == {"orders"}


def test_a_registry_address_comes_from_the_environment() -> None:
    path = DATA / "contracts" / "avro" / "users.odcs.yaml"
    assert load_contract(path).registry == "http://127.0.0.1:8081"
    assert load_contract(path, {"TIDEGATE_REGISTRY": "http://registry:18081/"}).registry == "http://registry:18081"


def test_the_shop_hides_whoever_orders_there() -> None:
    users, orders, products = (load_contract(SHOP / f"{name}.odcs.yaml") for name in ("users", "orders", "products"))
    masks = {field.name: field.mask.kind for field in (*users.fields, *orders.fields) if field.mask}
    assert masks == {"email": "email_hash", "name": "keep_first", "prefs": "drop", "remark": "hash"}
    assert {contract.topics for contract in (users, orders, products)} == {
        ("cdcj.public.users",),
        ("cdcj.public.orders",),
        ("cdcj.public.products",),
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_any_odcs_tool_can_read_our_contracts(path: Path) -> None:
    document = OpenDataContractStandard.from_file(str(path))
    assert document.schema_ and document.schema_[0].name


def test_our_schema_accepts_what_we_accept() -> None:
    validator = Draft201909Validator(json.loads(SCHEMA.read_text("utf-8")))
    Draft201909Validator.check_schema(validator.schema)
    for path in EXAMPLES:
        assert not list(validator.iter_errors(yaml.safe_load(path.read_text("utf-8")))), path


@pytest.mark.parametrize(
    "case", ["unknown_setting", "setting_values", "setting_at_table", "mask_arguments", "rule_arguments", "two_tables"]
)
def test_our_schema_refuses_for_editors_what_we_refuse(case: str) -> None:
    validator = Draft201909Validator(json.loads(SCHEMA.read_text("utf-8")))
    assert list(validator.iter_errors(yaml.safe_load((CASES / f"error_{case}.odcs.yaml").read_text("utf-8"))))
