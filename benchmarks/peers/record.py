"""What was measured, as it is stored; each measurement is written down when it is done."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.peers.apart import LIMIT_S, Outcome, Presence
from benchmarks.peers.libraries import RATIO
from benchmarks.peers.quality import Quality
from benchmarks.result_files import write_whole

RESULTS = Path(__file__).parents[1] / "results"
STORED = RESULTS / "peers.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All that was measured.

    Attributes:
        machine: Processor, versions and date.
        presences: Which libraries could be used.
        outcomes: What became of each network in the hands of each library.
        qualities: Separators pruned to the same MACs.
    """

    machine: str = ""
    presences: tuple[Presence, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    qualities: tuple[Quality, ...] = ()
    command: str = field(default="python -m benchmarks.peers")

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> "Record":
        """The record that was stored as JSON."""
        kinds = {"presences": Presence, "outcomes": Outcome, "qualities": Quality}
        return cls(**{**stored, **{name: tuple(kind(**item) for item in stored[name]) for name, kind in kinds.items()}})

    def of(self, pruner: str) -> dict[str, Outcome]:
        """The outcomes of one library by network."""
        return {outcome.network: outcome for outcome in self.outcomes if outcome.pruner == pruner}

    def version(self, pruner: str) -> str:
        """Which version of a library was used."""
        return next((presence.version for presence in self.presences if presence.pruner == pruner), "")

    def setting(self, pruner: str) -> str:
        """How the library was used, for other tables."""
        limit = f"{LIMIT_S} s of processor time at most"
        return f"version {self.version(pruner)}, L1, ratio {RATIO}, output layers ignored, {limit}"

    def with_outcome(self, outcome: Outcome) -> "Record":
        """The record with an outcome in the place of the earlier one."""
        key = outcome.pruner, outcome.network
        kept = [other for other in self.outcomes if (other.pruner, other.network) != key]
        return replace(self, outcomes=(*kept, outcome))

    def with_quality(self, found: Sequence[Quality]) -> "Record":
        """The record with measured networks in the place of the earlier ones."""
        keys = {(one.network, one.pruning) for one in found}
        kept = [other for other in self.qualities if (other.network, other.pruning) not in keys]
        return replace(self, qualities=(*kept, *found))


def read_record(path: Path = STORED) -> Record:
    """The stored record, or an empty one."""
    return Record.parse(json.loads(path.read_text())) if path.exists() else Record()


def write_record(record: Record, path: Path = STORED) -> None:
    """Stores a record, whole or not at all."""
    write_whole(path, json.dumps(asdict(record), indent=1) + "\n")
