"""``memspace.train_encoders``: train and measure a declared set of encoders; ``memspace.encoder_table``: read it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from memspace.arguments import typed
from memspace.claims.again import SHIPPED
from memspace.claims.run import opened_store
from memspace.display import Columns, Shown
from memspace.encoders.declaration import EncoderSet, load_encoders
from memspace.encoders.measuring import MeasureEncoderPiece, measuring_version
from memspace.encoders.results import TABLE
from memspace.encoders.settings import EncoderMeasuring
from memspace.encoders.specification import EncoderSpec
from memspace.encoders.store import MEASURED, EncoderStore
from memspace.encoders.work import TrainEncoderPiece
from memspace.errors import SettingsError
from memspace.limits import one_of
from memspace.measures.scores.agreement import ScoreAgreement, agreement
from memspace.progress import Progress, Silent
from memspace.verbs.zoo import WorkSettings
from memspace.zoo.engine import Piece, run_pieces

if TYPE_CHECKING:
    import polars as pl

__all__ = ["STAGES", "EncoderWork", "TrainedEncoders", "encoder_table", "score_agreement", "train_encoders"]

STAGES = ("train", "measure")


@dataclass(frozen=True)
class EncoderWork(WorkSettings):
    """How a set of encoders is worked on; workers, engine and folder are those of ``WorkSettings``.

    Args:
        stages: of ``STAGES``.
        device: where encoders are trained; measures are taken on the CPU.

    Raises:
        SettingsError: a value is not known or out of range.
    """

    stages: tuple[str, ...] = STAGES
    device: str = "cpu"
    known: ClassVar[tuple[str, ...]] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:  # torch built without CUDA raises the latter
            what = f"the device cannot be used: {str(error).splitlines()[0]}"
            raise SettingsError(what, where=f"device {self.device}", remedy="use cpu") from error


@dataclass(frozen=True, repr=False)
class TrainedEncoders(Shown):
    """A set of encoders and what of it is in the store.

    Args:
        declared: the set.
        store: its folder.
        measuring: how encoders are measured.
    """

    declared: EncoderSet
    store: EncoderStore
    measuring: EncoderMeasuring

    def _title(self) -> str:
        blocks, total = self._methods(), len(self.declared.specs)
        trained, measured = sum(blocks["trained"]), sum(blocks["measured"])
        return f"encoders {self.declared.name}: {trained} of {total} trained, {measured} measured"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"methods": self._methods}

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            How many encoders of each world and method are declared, trained and measured.
        """
        methods = self._methods()
        rows = [dict(zip(methods, values, strict=True)) for values in zip(*methods.values(), strict=True)]
        return {"set": self.declared.name, "folder": str(self.store.folder), "methods": rows}

    def _methods(self) -> Columns:
        """A row a world and method: encoders declared, trained, measured."""
        trained = self.store.trained_keys()
        measured = self.store.keys_at(MEASURED, measuring_version(self.measuring))
        specs: dict[tuple[str, str], list[EncoderSpec]] = {}
        for spec in self.declared.specs:
            specs.setdefault((spec.world, spec.method), []).append(spec)
        return {
            "world": [world for world, _ in specs],
            "method": [method for _, method in specs],
            "declared": [len(of) for of in specs.values()],
            "trained": [sum(s.key in trained for s in of) for of in specs.values()],
            "measured": [sum(s.key in measured for s in of) for of in specs.values()],
        }


@typed
def train_encoders(
    name: str | Path = "small",
    *,
    out: str | Path,
    work: EncoderWork | None = None,
    measuring: EncoderMeasuring | None = None,
    progress: Progress | None = None,
) -> TrainedEncoders:
    """Train the encoders of a declared set and measure them; what the store holds is not repeated.

    Args:
        name: of a shipped set (``"open"``, ``"small"``, ``"full"``), or path of a declaration.
        out: folder of the store: weights, codes, images and tables.
        work: workers, device, stages.
        measuring: how they are measured; None: as the open table was.
        progress: where the work reports.

    Returns:
        The set with its store.

    Raises:
        DataError: there is no such set, or its data sets are not found.
        SettingsError: the declaration has a word or value that is not known.
        WorkerError: a process was killed; the same call goes on.
        OutputError: the folder cannot be written.
    """
    work, measuring, progress = work or EncoderWork(), measuring or EncoderMeasuring(), progress or Silent()
    declared, store = load_encoders(name), EncoderStore(out)
    root = work.data_root or os.environ.get("MEMSPACE_DATA")
    place = Path(out).absolute(), None if root is None else Path(root).absolute()
    if "train" in work.stages:
        trained = store.trained_keys()
        due = [s for s in declared.specs if s.key not in trained]
        _run("train", [TrainEncoderPiece(s, *place, declared.name, work.device) for s in due], work, progress)
    if "measure" in work.stages:
        measured, trained = store.keys_at(MEASURED, measuring_version(measuring)), store.trained_keys()
        due = [s for s in declared.specs if s.key in trained - measured]
        _run("measure", [MeasureEncoderPiece(s, *place, measuring) for s in due], work, progress)
    return TrainedEncoders(declared, store, measuring)


def encoder_table(store: str | Path = "shipped") -> pl.DataFrame:
    """Read encoders with everything that was measured of them.

    Args:
        store: folder of a set's store or of tables; ``"shipped"``: the open table of the package.

    Returns:
        A row an encoder. Of each number the columns ``NAME``, ``NAME.low``, ``NAME.high`` (95%), ``NAME.null`` with
        ``NAME.null_low`` and ``NAME.null_high``, ``NAME.chance`` and ``NAME.reliable``.

    Raises:
        DataError: the store has no such table.
        MissingPackageError: polars is not installed.
    """
    return opened_store(SHIPPED if str(store) == "shipped" else store).table(TABLE)


def score_agreement(
    store: str | Path = "shipped", scores: Sequence[str] = (), *, world: str | None = None
) -> ScoreAgreement:
    """Compute how far scores agree on which encoders are better, as Locatello et al. 2019 did.

    Args:
        store: folder of a set's store or of tables; ``"shipped"``: the open table of the package.
        scores: names of numbers; none: all scores of the table.
        world: whose encoders are compared; None: of all, without regard to the world.

    Returns:
        Rank correlations with their intervals.

    Raises:
        DataError: the store has no such table.
        SettingsError: there is no such number, or no such world.
    """
    import polars as pl

    table = encoder_table(store)
    if world is not None:
        one_of(world, tuple(table["family"].unique().sort()), "world")
        table = table.filter(pl.col("family") == world)
    known = [c for c in table.columns if f"{c}.low" in table.columns]
    for name in scores:
        one_of(name, tuple(known), "score")
    columns = {name: table[name].fill_null(float("nan")).to_list() for name in (scores or SCORES_SHOWN)}
    return agreement(columns)


SCORES_SHOWN = (
    "beta_vae", "factor_vae", "mig", "sap", "dci", "dci.completeness", "dci.informativeness", "modularity",
    "explicitness", "irs", "snc", "nk",
)  # fmt: skip


def _run(stage: str, pieces: Sequence[Piece], work: EncoderWork, progress: Progress) -> None:
    title = f"encoders: {stage}"
    run_pieces(pieces, engine=work.engine, workers=work.workers, title=title, progress=progress)
