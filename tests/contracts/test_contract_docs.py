"""docs/contracts.md: its example works, and its tables are those that the code reads."""

from __future__ import annotations

import re
from pathlib import Path

from open_data_contract_standard.model import OpenDataContractStandard

from contracts.docs import PAGE, SENT, refreshed
from contracts.load import load_contract
from contracts.odcs import known_settings
from contracts.types import STORED

EXAMPLE = re.compile(r"<!-- example -->\n```yaml\n(.*?)```", re.DOTALL)


def example() -> str:
    found = EXAMPLE.search(PAGE.read_text("utf-8"))
    assert found
    return found[1]


def test_the_example_is_a_contract(tmp_path: Path) -> None:
    path = tmp_path / "payments.odcs.yaml"
    path.write_text(example(), "utf-8")
    contract = load_contract(path)
    assert contract.stream == "payments"
    assert contract.partition_by == ("paid_on",)
    assert [rule.name for rule in contract.rules if rule.field == "customer_email"] == [
        "customer_email_pattern",
        "customer_email_length",
        "email_given",
    ]
    assert OpenDataContractStandard.from_string(example()).id == "billing-payments"


def test_the_example_shows_most_settings() -> None:
    unseen = [name for name in known_settings("contractSetting") if f"property: {name}" not in example()]
    assert unseen == ["topicPattern", "identity"]


def test_the_tables_of_the_page_are_up_to_date() -> None:
    page = PAGE.read_text("utf-8")
    assert page == refreshed(page), "run `python -m contracts.docs`"


def test_only_known_types_are_described() -> None:
    assert set(SENT) <= set(STORED)
