"""Each case file is a contract that loads (ok_*), or one that is refused with exactly the faults its header names.

A header line is `# fault <line> <path> | <message>`; lines count from the top of the case file, the path `-` is the
file as a whole.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from contracts.faults import ContractError
from contracts.load import load_contract
from contracts.masking import MASK_KINDS
from contracts.odcs import own_schema
from contracts.quality import RULE_KINDS

CASES = Path(__file__).parent / "cases"
ACCEPTED = sorted(CASES.glob("ok_*.odcs.yaml"))
REFUSED = sorted(CASES.glob("error_*.odcs.yaml"))


def name(path: Path) -> str:
    return path.name.removesuffix(".odcs.yaml")


@pytest.mark.parametrize("path", ACCEPTED, ids=name)
def test_an_accepted_case_loads(path: Path) -> None:
    assert load_contract(path).stream == "case"


@pytest.mark.parametrize("path", REFUSED, ids=name)
def test_a_refused_case_has_exactly_the_faults_its_header_names(path: Path) -> None:
    expected = re.findall(r"^# fault (\d+) (\S+) \| (.*)$", path.read_text("utf-8"), re.MULTILINE)
    with pytest.raises(ContractError) as refused:
        load_contract(path)
    faults = refused.value.faults
    assert [(str(f.line), f.path or "-", f.message) for f in faults] == expected
    assert all(f.file == str(path) and f.remedy for f in faults)


def test_there_is_a_case_for_every_kind_of_mask_and_rule() -> None:
    accepted = "".join(path.read_text("utf-8") for path in ACCEPTED)
    assert [kind for kind in MASK_KINDS if f"kind: {kind}" not in accepted] == []
    rules = {rule.kind for path in ACCEPTED for rule in load_contract(path).rules}
    # Implied by the others' fields or by `required`, each of them is still produced by some case.
    assert set(RULE_KINDS) - rules == set()


def test_there_is_a_case_for_every_setting() -> None:
    cases = "".join(path.read_text("utf-8") for path in ACCEPTED + REFUSED)
    settings = [
        choice["properties"]["property"]["const"]
        for level in ("contractSetting", "columnSetting", "qualitySetting", "slaSetting")
        for choice in own_schema()["$defs"][level]["then"]["anyOf"]
    ]
    assert [setting for setting in settings if f"property: {setting}," not in cases] == []


def test_secrets_are_never_repeated() -> None:
    for case in ("error_secrets", "error_registry_address"):
        with pytest.raises(ContractError) as refused:
            load_contract(CASES / f"{case}.odcs.yaml")
        assert "hunter2" not in str(refused.value)
