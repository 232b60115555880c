"""Where a stream's tables stand, read without touching them: for starting, watching and status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from contracts.model import Contract, Start
from lakehouse.added import effective
from lakehouse.anchor import AnchorState, Partition, PartitionState
from lakehouse.errors import FatalError
from lakehouse.kinds import kinds_of, other_kinds
from lakehouse.lake import Lake
from lakehouse.lanes import lanes
from lakehouse.merge.merge_table import MergeTable
from lakehouse.progress import Writer
from lakehouse.tables import AnyTable, KeptTable, followers_of, tables_of

THREADS = 16  # streams asked at once: each waits for the storage


@dataclass(frozen=True)
class Standing:
    """What a stream's tables hold; all empty for a stream that never committed."""

    anchor: AnchorState | None = None
    progress: Mapping[Partition, int] = field(default_factory=dict)  # last applied offset, in each partition's epoch
    versions: Mapping[str, int] = field(default_factory=dict)  # table name -> version
    committed_at_ms: int | None = None  # when the anchor was last committed
    notes: tuple[str, ...] = ()  # where the tables are not kept as the contract wants, and what to do
    former: AnchorState | None = None  # of the table that was the anchor, where the contract makes another one it

    @property
    def begun(self) -> Mapping[Partition, PartitionState]:
        """Give the partitions that the stream has committed anything of."""
        said = self.former or self.anchor
        return said.partitions if said else {}

    @property
    def epochs(self) -> dict[str, int]:
        """Give the epoch of each topic as last committed."""
        said = self.former or self.anchor
        return said.epochs() if said else {}

    def epoch(self, topic: str) -> int:
        """Give the topic's epoch as last committed."""
        return self.epochs.get(topic, 0)

    def progress_in(self, epochs: Mapping[str, int]) -> dict[Partition, int]:
        """Give the progress in these epochs of the topics (0 where not named): an earlier epoch's is none."""
        return {p: last for p, last in self.progress.items() if self.epoch(p[0]) == epochs.get(p[0], 0)}


def standing_of(lake: Lake, contract: Contract, pipeline: str) -> Standing:
    """Read where one stream's tables stand; creates nothing.

    Raises what lakehouse.errors says about tables that cannot be continued.
    """
    epochs: dict[str, int] = {}
    kinds = kinds_of(contract)
    tables = tables_of(lake, contract, kinds, Writer(pipeline, epochs), {})
    every: tuple[AnyTable, ...] = (*tables, *followers_of(lake, contract, Writer(pipeline), {}))
    versions = {table.name: table.version for table in every if table.open()}
    notes = tuple(_notes(contract, [table for table in tables if table.name in versions]))
    anchor = tables[-1]
    state = anchor.state() if anchor.name in versions else None
    former = None if state is not None and state.partitions else _former(lake, contract, pipeline, tables, versions)
    if state is None:
        return Standing(versions=versions, notes=notes, former=former)
    epochs.update(state.epochs())
    return Standing(state, stream_progress(anchor, state), versions, anchor.committed_ms(), notes, former)


def _former(
    lake: Lake, contract: Contract, pipeline: str, tables: Sequence[KeptTable], versions: Mapping[str, int]
) -> AnchorState | None:
    """Give what the table says that was the anchor of a stream whose present one says nothing yet."""
    others = tables_of(lake, contract, other_kinds(contract), Writer(pipeline), {})
    there = [*(table for table in tables if table.name in versions), *(table for table in others if table.open())]
    said = [state for table in there if (state := table.state()) is not None and state.partitions]
    return max(said, key=lambda state: sum(state.epochs().values()), default=None)


def _notes(contract: Contract, tables: Sequence[KeptTable]) -> Iterator[str]:
    """Say where open tables are not what the contract, or who wrote it, may think they are."""
    yield from (t.fallback for t in tables if isinstance(t, MergeTable) and t.fallback)
    if contract.keeps_state and contract.start is not Start.EARLIEST and tables:
        yield (
            f"stream {contract.stream}: its `start` is not `earliest`, so its current and history hold only keys that "
            "changed, or that a snapshot brought, since it began. An incremental snapshot of Debezium's fills them"
        )


def stream_progress(anchor: KeptTable, state: AnchorState) -> dict[Partition, int]:
    """Give a stream's progress at an open anchor with that state: of several lanes, that of the slowest.

    A lane that has not begun a partition which others have begins where they did.
    """
    each = [anchor.lane_progress(state.partitions, lane) for lane in lanes(state.lanes)]
    if len(each) == 1:
        return each[0]
    begins = {partition: known.begins - 1 for partition, known in state.partitions.items()}
    return {partition: min(own.get(partition, begin) for own in each) for partition, begin in begins.items()}


def unfit_tables(lake: Lake, pipeline: str, wanted: Sequence[tuple[Contract, Mapping[str, str]]]) -> list[str]:
    """Say what keeps tables that exist from becoming what contracts want, with the keys their masks are pinned to."""

    def problem(contract: Contract, pins: Mapping[str, str]) -> str | None:
        wanted, writer = effective(lake, contract), Writer(pipeline)
        made = tables_of(lake, wanted, kinds_of(contract), writer, pins)
        every: tuple[AnyTable, ...] = (*made, *followers_of(lake, wanted, writer, pins))
        for table in every:
            try:
                if table.open():
                    table.verify()
            except FatalError as error:
                return f"{contract.stream}: {error}"
        return None

    with ThreadPoolExecutor(min(THREADS, max(1, len(wanted)))) as pool:
        return [said for said in pool.map(lambda asked: problem(*asked), wanted) if said]


def standings(lake: Lake, contracts: Sequence[Contract], pipeline: str) -> dict[str, Standing]:
    """Read where the tables of each stream stand, by stream."""
    with ThreadPoolExecutor(min(THREADS, max(1, len(contracts)))) as pool:
        found = pool.map(lambda contract: standing_of(lake, contract, pipeline), contracts)
        return {contract.stream: standing for contract, standing in zip(contracts, found, strict=True)}
