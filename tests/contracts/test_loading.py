"""Loading contracts: all faults of all files at once, and never anything but a ContractError."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import contracts
from contracts.check import check_directory
from contracts.durations import parse_duration
from contracts.faults import ContractError
from contracts.load import load_contract, load_contracts
from contracts.model import Action, ServiceLevels, Start

CASES = Path(__file__).parent / "cases"
SHOP = Path(contracts.__file__).parent / "shop"
SMALLEST = (CASES / "ok_smallest.odcs.yaml").read_text("utf-8")
RICHEST = [
    path.read_text("utf-8")
    for path in (CASES / "ok_rules.odcs.yaml", CASES / "ok_masks.odcs.yaml", SHOP / "orders.odcs.yaml")
]


def stream(folder: Path, file: str, name: str) -> Path:
    path = folder / f"{file}.odcs.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SMALLEST.replace("name: case", f"name: {name}"), "utf-8")
    return path


def refused(folder: Path) -> str:
    with pytest.raises(ContractError) as error:
        check_directory(folder)
    return str(error.value)


def test_a_directory_gives_its_contracts_by_stream_name(tmp_path: Path) -> None:
    stream(tmp_path, "b", "zebra")
    stream(tmp_path, "below/a", "ant")
    (tmp_path / "notes.yaml").write_text("not: a contract")
    assert [contract.stream for contract in check_directory(tmp_path)] == ["ant", "zebra"]


def test_faults_of_all_files_come_together(tmp_path: Path) -> None:
    stream(tmp_path, "a", "Bad")
    (tmp_path / "b.odcs.yaml").write_text("][")
    path = stream(tmp_path, "c", "fine")
    path.write_text(path.read_text().replace("bigint", "bigtin").replace("logicalType: integer", "logicalType: number"))
    with pytest.raises(ContractError) as error:
        load_contracts(tmp_path)
    assert [Path(fault.file).name for fault in error.value.faults] == ["a.odcs.yaml", "b.odcs.yaml", "c.odcs.yaml"]
    assert "3 fault(s) in 3 contract file(s)" in str(error.value)


def test_two_contracts_of_one_stream_are_refused(tmp_path: Path) -> None:
    stream(tmp_path, "a", "users")
    stream(tmp_path, "b", "users")
    assert "the stream 'users' is described in" in refused(tmp_path)


def test_a_stream_named_like_another_streams_table_is_refused(tmp_path: Path) -> None:
    stream(tmp_path, "a", "users")
    stream(tmp_path, "b", "users_changes")
    assert "'users_changes' is the name of a table of the stream 'users'" in refused(tmp_path)


def test_a_directory_without_contracts_is_refused(tmp_path: Path) -> None:
    assert "there is no contract here" in refused(tmp_path)


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="cannot be read"):
        load_contract(tmp_path / "nowhere.odcs.yaml")


def test_a_table_that_needs_a_key_is_refused_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contracts import settings as read
    from contracts.tables import TableKind

    keyed = TableKind("mirror", "_mirror", True, "for this test")
    monkeypatch.setattr(read, "kinds_by_name", lambda: {"quarantine": keyed, "mirror": keyed})
    path = tmp_path / "a.odcs.yaml"
    setting = "customProperties: [{vendor: tidegate, property: tables, value: [mirror]}]\nschema:"
    path.write_text(SMALLEST.replace("schema:", setting))
    assert load_contract(path).tables == ("quarantine", "mirror")
    path.write_text(path.read_text().replace("primaryKey: true", "primaryKey: false"))
    with pytest.raises(ContractError, match="the table 'mirror' needs a key"):
        load_contract(path)


def test_variables_in_topics_take_the_given_values_or_their_defaults() -> None:
    path = CASES / "ok_several_topics.odcs.yaml"
    assert load_contract(path).topics == ("shop.a", "shop.b")
    contract = load_contract(path, {"PREFIX": "live"})
    assert contract.topics == ("live.a", "live.b")
    assert (contract.start, contract.start_timestamp_ms) == (Start.TIMESTAMP, 1_769_817_600_000)


def test_rules_have_the_arguments_that_the_rules_table_reads() -> None:
    rules = {rule.name: rule for rule in load_contract(CASES / "ok_rules.odcs.yaml").rules}
    assert dict(rules["qty_minimum"].arguments) == {"value": 1, "exclusive": False}
    assert dict(rules["qty_maximum"].arguments) == {"value": 100, "exclusive": True}
    assert rules["qty_maximum"].action is Action.WARN
    assert dict(rules["email_length"].arguments) == {"min": 3, "max": 99}
    assert dict(rules["status_enum"].arguments) == {"values": ["new", "old"]}
    assert dict(rules["channel_reference"].arguments) == {"list": "channels"}
    assert dict(rules["sane_time"].arguments) == {"skew_ms": 300_000}
    assert dict(rules["at_freshness"].arguments) == {"max_age_ms": 172_800_000}
    assert dict(rules["note_missing"].arguments) == {
        "sql": "\"note\" IS NOT NULL AND CAST(\"note\" AS VARCHAR) NOT IN ('', 'N/A')"
    }
    assert rules["key_present"].action is Action.QUARANTINE


def test_service_levels_are_read_in_milliseconds_and_one_with_an_action_stays_a_rule() -> None:
    contract = load_contract(CASES / "ok_service_levels.odcs.yaml")
    assert contract.sla == ServiceLevels(90_000, True, 5_400_000, 86_400_000)
    assert [rule.kind for rule in contract.rules if rule.field == "at"] == ["freshness"]
    assert load_contract(CASES / "ok_smallest.odcs.yaml").sla == ServiceLevels()


def test_contracts_travel_to_workers_unchanged() -> None:
    for path in (*SHOP.glob("*.yaml"), *CASES.glob("ok_*.yaml")):
        contract = load_contract(path)
        assert pickle.loads(pickle.dumps(contract)) == contract


def test_a_contract_error_travels_too() -> None:
    with pytest.raises(ContractError) as error:
        load_contract(CASES / "error_columns.odcs.yaml")
    assert pickle.loads(pickle.dumps(error.value)).faults == error.value.faults


@pytest.mark.parametrize(
    ("text", "ms"), [("10 s", 10_000), ("5 minutes", 300_000), ("1.5h", 5_400_000), ("2 d", 172_800_000), ("0 ms", 0)]
)
def test_durations_read_as_people_write_them(text: str, ms: int) -> None:
    assert parse_duration(text) == ms


@pytest.mark.parametrize("text", ["", "10", "s", "-1 s", "10 moons", "1 s 2 ms"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(["${", "["])
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=6), v, max_size=3))
laws = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def loads_or_is_refused(folder: Path, content: bytes) -> None:
    path = folder / "mangled.odcs.yaml"
    path.write_bytes(content)
    try:
        load_contract(path)
    except ContractError as error:
        assert error.faults
        assert all(fault.message and fault.remedy for fault in error.faults)


@laws
@given(text=st.sampled_from(RICHEST), start=st.integers(0, 4000), length=st.integers(0, 40), put=st.binary(max_size=12))
def test_mangled_text_gives_a_contract_or_faults(
    tmp_path: Path, text: str, start: int, length: int, put: bytes
) -> None:
    content = text.encode()
    loads_or_is_refused(tmp_path, content[:start] + put + content[start + length :])


@laws
@given(text=st.sampled_from(RICHEST), steps=st.lists(st.integers(0, 30), max_size=8), value=values)
def test_mangled_values_give_a_contract_or_faults(tmp_path: Path, text: str, steps: list[int], value: Any) -> None:
    document = copy.deepcopy(yaml.safe_load(text))
    holder: Any = document
    for step in steps:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            break
        key = keys[step % len(keys)]
        if not isinstance(holder[key], dict | list) or step == steps[-1]:
            holder[key] = value
            break
        holder = holder[key]
    loads_or_is_refused(tmp_path, yaml.safe_dump(document, allow_unicode=False).encode())


ALIASES = [
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
]
HOSTILE = {
    "deep": "[" * 5000,
    "loop": "&a [*a]",
    "merge_loop": "a: &a {<<: *a}",
    "mapping_as_key": "{? {a: 1} : 2}",
    "odd_integer": "x: 0x",
    "huge_float": "x: 1e999",
    "nul": "\x00",
    "not_a_character": "\ufffe",
    "two_documents": "---\n---\n",
    "bomb": "\n".join(["a: &a [x, x, x, x, x, x, x, x, x]", *ALIASES]),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_yaml_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "hostile.odcs.yaml"
    path.write_text(content, "utf-8")
    with pytest.raises(ContractError):
        load_contract(path)


@pytest.mark.parametrize("depth", [30, 120, 400, 3000])
def test_deep_sql_is_refused_or_bound(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "deep.odcs.yaml"
    setting = f"{{vendor: tidegate, property: rowFilter, value: '{'(' * depth}id > 0{')' * depth}'}}"
    path.write_text(SMALLEST.replace("schema:", f"customProperties: [{setting}]\nschema:"))
    loads_or_is_refused(tmp_path, path.read_bytes())
    deep_sum = setting.replace("(" * depth, "").replace(")" * depth, "").replace("id > 0", " + ".join(["id"] * depth))
    path.write_text(SMALLEST.replace("schema:", f"customProperties: [{deep_sum}]\nschema:"))
    loads_or_is_refused(tmp_path, path.read_bytes())


def test_an_aggregate_is_not_called_as_another_streams_table(tmp_path: Path) -> None:
    written = (CASES / "ok_aggregates.odcs.yaml").read_text("utf-8")
    for stream, aggregate in (("case", "stock_late"), ("case_stock", "visits")):
        text = written.replace("name: case\n", f"name: {stream}\n").replace("name: visits", f"name: {aggregate}")
        (tmp_path / f"{stream}.odcs.yaml").write_text(text, "utf-8")
    with pytest.raises(ContractError) as refused:
        load_contracts(tmp_path)
    assert [fault.message for fault in refused.value.faults] == [
        "the aggregate 'stock' is called 'case_stock', as a table of 'case_stock'",
        "the aggregate 'stock_late' is called 'case_stock_late', as a table of 'case_stock'",
    ]
