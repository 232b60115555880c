"""The setting `state`: what it becomes, what it is when left out, and which columns make a version."""

from __future__ import annotations

from pathlib import Path

from contracts.load import load_contract
from contracts.model import StateTables, Storage, Truncate, Vanished
from contracts.state import tracked_columns

CASES = Path(__file__).parent / "cases"


def test_all_that_is_written_is_read() -> None:
    contract = load_contract(CASES / "ok_state.odcs.yaml")
    assert contract.tables == ("quarantine", "changes", "history", "current"), "in commit order"
    assert contract.keeps_state
    assert contract.state == StateTables(
        storage=Storage.COPY_ON_WRITE,
        soft_deletes=True,
        tracked=("qty",),
        delete_memory_ms=7_200_000,
        truncate=Truncate.APPLY,
        vanished=Vanished.OFF,
        vanished_share=0.5,
        lanes=16,
    )


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    written = (CASES / "ok_state.odcs.yaml").read_text("utf-8")
    path = tmp_path / "case.odcs.yaml"
    path.write_text("".join(line for line in written.splitlines(True) if "property: state" not in line), "utf-8")
    contract = load_contract(path)
    assert contract.state == StateTables()
    assert tracked_columns(contract) == ("qty",), "the key does not change, what is encrypted anew cannot be compared"


def test_only_tracked_columns_make_a_version() -> None:
    assert tracked_columns(load_contract(CASES / "ok_masks.odcs.yaml"))
    assert tracked_columns(load_contract(CASES / "ok_state.odcs.yaml")) == ("qty",)


def test_a_stream_keeps_changes_and_quarantine_alone_unless_told() -> None:
    contract = load_contract(CASES / "ok_smallest.odcs.yaml")
    assert contract.tables == ("quarantine", "changes") and not contract.keeps_state
