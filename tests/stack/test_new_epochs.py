"""A start that asks for a new epoch of a topic that stayed the same, on a real broker: the epoch begins once, in each
partition where the old source ends, however far that was read."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from contracts.load import load_contracts
from contracts.model import Contract
from jobs import spans
from jobs.epochs import begin_epochs
from jobs.errors import RunRefused
from jobs.kafka.client import KafkaClient
from jobs.kafka.offsets import end_offsets, partitions_of
from jobs.kafka.topics import ensure_topics
from jobs.lanes import Levelling
from jobs.replay import replay_records
from jobs.start import Asked, StartPlan, plan_start
from jobs.versions import Filling, version_of
from lakehouse.epochs import forget_asked
from lakehouse.errors import PositionsRestarted
from lakehouse.lake import Lake
from lakehouse.parking import Parking
from lakehouse.relaning import Levels
from lakehouse.standing import standing_of
from lakehouse.swapping import swap as swap_tables
from tests.flows.streams import NOTE, produce, write_contract
from tests.flows.test_topics import KEYED, TABLES, event
from tests.lakehouse.state.test_state_laws import held
from udfs.keys import KeyRing

pytestmark = pytest.mark.integration


class Place:
    """One stream of a pipeline, and what its job and its starts would do."""

    def __init__(
        self,
        kafka: KafkaClient,
        folder: Path,
        topic: str,
        streams: Sequence[str] = ("docs",),
        tables: Sequence[str] = TABLES,
    ) -> None:
        self.kafka, self.topic, self.told = kafka, topic, list[str]()
        self.lake = Lake.open(str(folder / "lake"))
        for stream in streams:
            settings = {"envelope": "debezium", "tables": list(tables)}
            write_contract(folder / "contracts", stream, topic, (KEYED, NOTE), **settings)
        self.contracts: tuple[Contract, ...] = load_contracts(folder / "contracts", {})

    def read(self, *partitions: int) -> None:
        """Commit what partitions hold, one after the other; all of them where none is named."""
        for contract in self.contracts:
            for place in partitions_of(self.kafka, [self.topic]):
                if not partitions or place[1] in partitions:
                    begin = standing_of(self.lake, contract, "p").progress.get(place, -1)
                    levels = Levels(1, {place: begin}, {place: end_offsets(self.kafka, [place])[place] - 1})
                    Levelling(contract, self.lake, "p", self.kafka, KeyRing({})).run(levels)

    def plan(self, *new_epochs: str) -> StartPlan:
        return plan_start(self.contracts, self.lake, "p", self.kafka, Asked(frozenset(new_epochs)))

    def start(self, *new_epochs: str) -> StartPlan:
        """Begin the epochs that are asked for; give how the job would be started."""
        keys = KeyRing({})
        plan = self.plan(*new_epochs)
        begin_epochs(self.contracts, plan, self.lake, "p", self.kafka, keys, self.told.append)
        for stream, topic in plan.forget:
            forget_asked(self.lake, next(c for c in self.contracts if c.stream == stream), "p", topic)
        return self.plan(*new_epochs)

    def epochs(self) -> list[tuple[int, int, int]]:
        return held(self.lake, "docs_changes", "_partition, _offset, _epoch")


def test_an_epoch_begins_once_and_progress_goes_on(kafka: KafkaClient, topic: str, tmp_path: Path) -> None:
    place = Place(kafka, tmp_path, topic)
    produce(kafka, topic, [event("r", 1, 800, "old"), event("u", 1, 900, "older"), event("c", 2, 910, "old")])
    place.read()
    produce(kafka, topic, [event("r", 1, 50, "restored"), event("u", 2, 60, "changed")])
    with pytest.raises(PositionsRestarted):
        place.read()
    assert place.plan().begin == [] and place.plan().offsets == {(topic, 0): 3}
    started = place.start(topic)
    assert place.told == [f"docs: epoch 1 of topic {topic} begins (partition: first offset) 0: 3"]
    # Submitted again with the same arguments, however often and whatever was committed since.
    assert (started.begin, started.epochs, started.offsets) == ([], {"docs": {topic: 1}}, {(topic, 0): 3})
    place.read()
    assert place.start(topic) == place.start(topic) and len(place.told) == 1
    assert place.plan(topic).offsets == {(topic, 0): 5}
    assert place.plan().forget == [("docs", topic)] and place.plan().epochs == {"docs": {topic: 1}}
    assert held(place.lake, "docs", "id, note") == [(1, "restored"), (2, "changed")]
    assert place.epochs() == [(0, n, int(n > 2)) for n in range(5)]


def test_partitions_that_were_not_read_as_far_are_read_up_to_where_their_old_source_ends(
    kafka: KafkaClient, topic: str, tmp_path: Path
) -> None:
    place = Place(kafka, tmp_path, topic)
    ensure_topics(kafka, {topic: 5})
    for number in range(4):
        produce(kafka, topic, [event("c", number, 900 + number, "old")], number)
    place.read(0, 1, 2)
    for number in range(4):
        produce(kafka, topic, [event("u", number, 950 + number, "older")], number)
    time.sleep(0.1)  # the source is restored
    for number in (0, 1, 3):
        produce(kafka, topic, [event("r", number, 50, "restored"), event("u", number, 60, "changed")], number)
    # No row of the snapshot is in partition 2: the time tells where its old source ends.
    produce(kafka, topic, [event("u", 2, 70, "changed")], 2)
    with pytest.raises(PositionsRestarted):
        place.read(0)
    started = place.start(topic)
    assert {number: at for (_, number), at in started.offsets.items()} == {0: 2, 1: 2, 2: 2, 3: 2, 4: 0}
    place.read()
    assert place.epochs() == sorted((n, at, int(at > 1)) for n in range(4) for at in range(3 if n == 2 else 4))
    assert held(place.lake, "docs", "id, note") == [(number, "changed") for number in range(4)]
    assert held(place.lake, "docs_history", "count(*)") == [(15,)]


def test_what_is_read_again_is_of_its_own_epoch_in_place_and_in_a_version(
    kafka: KafkaClient, topic: str, tmp_path: Path
) -> None:
    place = Place(kafka, tmp_path, topic)
    ensure_topics(kafka, {topic: 2})
    for number in (0, 1):
        produce(kafka, topic, [event("c", number, 900, "old"), event("u", number, 910, "older")], number)
    place.read()
    place.start(topic)
    for number in (0, 1):
        produce(kafka, topic, [event("r", number, 50, "restored"), event("u", number, 60, "changed")], number)
    place.read()
    place.start()  # asks for none
    place.start(topic)
    produce(kafka, topic, [event("u", 0, 20, "changed again")])
    place.read()
    before = held(place.lake, "docs_history", "id, note, _is_current")
    (contract,) = place.contracts
    asked = {"kafka": kafka, "keys": KeyRing({}), "console": Console(file=io.StringIO())}
    again = replay_records(contract, place.lake, "p", spans.Asked(), **asked)
    assert (again.read, again.added, again.held) == (9, 0, 9)
    version = version_of(contract, "v2")
    filling = Filling(version, place.lake, "p", kafka, KeyRing({}))
    assert filling.run(contract, spans.Asked(), asked["console"]).read == 9
    assert filling.run(contract, spans.Asked(), asked["console"]).read == 0
    assert held(place.lake, "docs__v2_changes", "_partition, _offset, _epoch") == place.epochs()
    assert held(place.lake, "docs__v2_history", "id, note, _is_current") == before
    with pytest.raises(RunRefused, match="leave out --to-time and --to-offset"):
        filling.run(contract, spans.Asked(to_offsets=("0:1",)), asked["console"])
    swap_tables(place.lake, contract, version, "p", lambda *_: None)
    assert held(place.lake, "docs_history", "id, note, _is_current") == before
    place.start(topic)
    produce(kafka, topic, [event("u", 1, 70, "changed again")], 1)
    place.read()
    assert held(place.lake, "docs", "id, note") == [(0, "changed again"), (1, "changed again")]


def test_tables_that_a_killed_job_left_ahead_are_levelled_before(
    kafka: KafkaClient, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(kafka, tmp_path, topic)
    produce(kafka, topic, [event("c", 1, 900, "old")])
    place.read()
    produce(kafka, topic, [event("u", 1, 910, "older")])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("lakehouse.state.table.StateTable.apply", _killed)
        place.read()
    produce(kafka, topic, [event("u", 1, 60, "changed")])
    assert place.start(topic).offsets == {(topic, 0): 2}
    place.read()
    assert place.epochs() == [(0, 0, 0), (0, 1, 0), (0, 2, 1)]
    assert held(place.lake, "docs_history", "note, _is_current") == [
        ("changed", True), ("old", False), ("older", False),
    ]  # fmt: skip


def test_a_stream_that_holds_nothing_begins_with_the_epoch(kafka: KafkaClient, topic: str, tmp_path: Path) -> None:
    place = Place(kafka, tmp_path, topic)
    started = place.start(topic)
    assert (started.epochs, started.begin, started.forget) == ({"docs": {topic: 1}}, [], [])
    assert place.plan().epochs == {}
    assert place.plan("another").epochs == {}


def test_tables_that_become_others_go_on_in_their_epoch_before_another_begins(
    kafka: KafkaClient, topic: str, tmp_path: Path
) -> None:
    place = Place(kafka, tmp_path, topic, tables=["quarantine", "changes"])
    produce(kafka, topic, [event("c", 1, 900, "old")])
    place.read()
    assert place.start(topic).epochs == {"docs": {topic: 1}}
    place = Place(kafka, tmp_path, topic)
    with pytest.raises(RunRefused, match=f"start once without --new-epoch {topic}, then with it"):
        place.plan(topic)
    assert place.plan().epochs == {"docs": {topic: 1}}
    produce(kafka, topic, [event("u", 1, 60, "changed")])
    place.read()
    assert place.epochs() == [(0, 0, 0), (0, 1, 1)]
    assert held(place.lake, "docs", "id, note") == [(1, "changed")]


def test_a_parked_stream_stays_where_it_is_while_another_goes_on(
    kafka: KafkaClient, topic: str, tmp_path: Path
) -> None:
    place = Place(kafka, tmp_path, topic, ("docs", "papers"))
    produce(kafka, topic, [event("c", 1, 900, "old")])
    place.read()
    Parking(place.lake, "p").park("papers")
    assert place.start(topic).epochs == {"docs": {topic: 1}}
    Parking(place.lake, "p").unpark("papers")
    resumed = place.plan()
    assert (resumed.epochs, resumed.offsets) == ({"docs": {topic: 1}}, {(topic, 0): 1})
    assert place.start(topic).epochs == {"docs": {topic: 1}, "papers": {topic: 1}}
    assert [told.split(":")[0] for told in place.told] == ["docs", "papers"]


def _killed(*_: object) -> None:
    raise KeyboardInterrupt
