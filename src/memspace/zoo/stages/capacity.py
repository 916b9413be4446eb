"""The stage ``capacity``: counts of what trained networks hold, a row a network in the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from memspace.passes.outputs import outputs
from memspace.value import Absent
from memspace.zoo.counts.network import Counted, PriorCounts, count_memory
from memspace.zoo.counts.settings import CountSettings
from memspace.zoo.counts.stored import stored_labels
from memspace.zoo.declaration import Zoo
from memspace.zoo.registry import ZooData
from memspace.zoo.specification import NetworkSpec, settings_hash
from memspace.zoo.stage import NetworksPiece, stage, undone
from memspace.zoo.stages.measures import task_of
from memspace.zoo.stages.outcomes import moment_index
from memspace.zoo.store import ZooStore
from memspace.zoo.work import data_of, parts_by_data

__all__ = ["CapacityPiece", "capacity_pieces", "capacity_row"]

COUNTS_VERSION = 1  # raised when the code of a count changes what it gives
TOGETHER = 4  # networks of a piece


@dataclass(frozen=True)
class CapacityPiece(NetworksPiece):
    """Networks whose memory is to be counted.

    Args:
        settings: of the counts.
    """

    settings: CountSettings
    table = "capacity"

    @property
    def version(self) -> str:
        """Hash of the settings that decide the numbers."""
        return settings_hash([COUNTS_VERSION, {k: v for k, v in asdict(self.settings).items() if k != "rows"}])

    def work(self, store: ZooStore, spec: NetworkSpec, tick: Callable[[], None]) -> None:
        """Count what a network holds.

        Args:
            store: that has the trained network.
            spec: of the network.
            tick: not called.
        """
        data = data_of(spec.data, self.data_root)
        row = capacity_row(spec, data, *store.states(spec.key), self.settings)
        store.add_rows(self.table, spec.key, [{**row, "version": self.version}])


@stage("capacity", 5)
def capacity_pieces(
    zoo: Zoo, store: ZooStore, data_root: Path | None, settings: CountSettings | None = None
) -> list[CapacityPiece]:
    """Cut the trained networks whose memory is not counted yet into pieces; of zoos that are declared ``counted``.

    Args:
        zoo: the declaration.
        store: what is there.
        data_root: where data sets lie.
        settings: of the counts; None: the defaults.

    Returns:
        The pieces; none where the zoo is not declared so.
    """
    if not zoo.counted:
        return []
    everything = CapacityPiece(zoo.specs, store.folder, data_root, settings or CountSettings())
    due = undone(store, everything.table, everything.version)
    return [replace(everything, specs=part) for part in parts_by_data(zoo, due, TOGETHER)]


def capacity_row(
    spec: NetworkSpec, data: ZooData, steps: Tensor, states: Tensor, settings: CountSettings | None = None
) -> dict[str, Any]:
    """Count what a network holds at the end of its training.

    Args:
        spec: of the network.
        data: it was trained on.
        steps: (S,) of the recorded states.
        states: (S, P) weights.
        settings: of the counts; None: the defaults.

    Returns:
        Columns ``labels``, ``offered_bits``, ``stored_bits``, ``right``; ``earlier_bits``, what was stored at half of
        the steps; then ``information_bits``, ``volume_bits``, ``coefficient_bits`` under the prior of the settings, the
        first two also with the ending ``_at_evidence`` under that of greatest evidence, and the precision α of each
        prior. Each count has its standard error in ``…_error``; ``doubts`` says why numbers are missing or not to be
        trusted.
    """
    settings = settings or CountSettings()
    counts = count_memory(task_of(spec, data, steps, states, len(steps) - 1), settings)
    earlier = task_of(spec, data, steps, states, moment_index(steps, 0.5))
    before = stored_labels(*outputs(earlier, earlier.train))
    doubts: list[str] = []
    stored = counts.stored
    return {
        "key": spec.key,
        "labels": stored.labels,
        "offered_bits": stored.offered,
        "stored_bits": stored.bits,
        "stored_bits_error": stored.error,
        "right": stored.right,
        "earlier_bits": before.bits,
        "epsilon": settings.epsilon,
        "damping": settings.damping,
        **_of_prior(counts.given, "", doubts),
        **_columns("coefficient_bits", counts.coefficient, doubts),
        **_of_prior(counts.evidence, "_at_evidence", doubts),
        "doubts": "; ".join(doubts),
    }


def _of_prior(counts: PriorCounts | Absent, ending: str, doubts: list[str]) -> dict[str, Any]:
    precision = information = volume = None
    if isinstance(counts, Absent):
        doubts.append(counts.reason)
    else:
        precision, information, volume = counts.precision, counts.information, counts.volume
    of_information = _columns(f"information_bits{ending}", information, doubts)
    return {f"precision{ending}": precision, **of_information, **_columns(f"volume_bits{ending}", volume, doubts)}


def _columns(column: str, count: Counted | Absent | None, doubts: list[str]) -> dict[str, Any]:
    if isinstance(count, Counted):
        if count.doubt:
            doubts.append(f"{column}: {count.doubt}")
        return {column: count.bits, f"{column}_error": count.error}
    if count is not None:
        doubts.append(f"{column} is missing: {count.reason}")
    return {column: None, f"{column}_error": None}
