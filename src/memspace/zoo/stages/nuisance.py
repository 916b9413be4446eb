"""How far measures move when a network's weights are changed, and its outputs or its decisions are not.

All measures are taken of a sample of networks as they are, and after each change of :mod:`memspace.zoo.transforms`, at
the end of training and in float64, so that rounding is not taken for a movement. The recorded path is changed with the
network; the loss curve and the sister networks stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from memspace.frames import polars
from memspace.measures.predictors.values import Sisters
from memspace.task.data import Data
from memspace.task.task import Task
from memspace.zoo.declaration import Zoo
from memspace.zoo.measuring import measure_network
from memspace.zoo.measuring_settings import ZooSettings
from memspace.zoo.registry import ZooData
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.stage import NetworksPiece, stage
from memspace.zoo.stages.measures import curve_of, run_of, seen_by, version_of
from memspace.zoo.store import ZooStore
from memspace.zoo.training.draws import initial_network, labels_of
from memspace.zoo.training.stack import Weights
from memspace.zoo.transforms import EXACT, Transform, transformed, transforms_of
from memspace.zoo.work import data_of

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "INVARIANT",
    "STILL",
    "NuisancePiece",
    "movements",
    "nuisance_pieces",
    "nuisance_rows",
    "nuisance_table",
    "sampled_networks",
]

A_STAR = 3  # networks of the centre of a star
SAMPLED = ("learning_coefficient",)  # left out: its chains at every change take longer than all others
STILL = 1e-6  # the largest relative movement of a measure that is said not to move: iterations end there or before
# Measures that no exact change may move: functions of outputs on data, lengths in the Fisher metric, and weights that
# are counted by what is read of them. All others may, and mostly do. Adaptive sharpness is not among them, though its
# definition is invariant: the number of examples that a loss surface is read on goes by the size of the activations, so
# that dead units change the sample.
INVARIANT = frozenset(
    (
        "action.ambient_distance",
        "action.constant_speed",
        "action.drift_length",
        "action.inefficiency",
        "action.length",
        "action.loss_bought",
        "action.over_straight_line",
        "action.straight_line_length",
        "complexity.distance_from_initialisation",
        "complexity.distance_from_null",
        "complexity.fisher_rao",
        "complexity.fisher_rao.empirical",
        "complexity.gain_nuisance_range",
        "complexity.null_code",
        "confidence.calibration_error",
        "confidence.class_spread",
        "confidence.entropy",
        "confidence.logit_gain",
        "confidence.mean",
        "confidence.temperature",
        "generalisation.train_loss",
        "margins.inverse",
        "margins.lower",
        "margins.mean",
        "margins.normalised",
        "norms.path",
        "norms.path_over_margin",
        "similarity.disagreement",
        "similarity.output_distance",
    )
)


@dataclass(frozen=True)
class NuisancePiece(NetworksPiece):
    """Networks to measure under all changes, one a piece.

    Args:
        sisters: networks that differ from it in the seed alone.
        settings: of the measures.
    """

    sisters: tuple[NetworkSpec, ...]
    settings: ZooSettings
    table = "nuisance"

    @property
    def version(self) -> str:
        """Hash of the settings and of what is measured."""
        return version_of(self.settings)

    def work(self, store: ZooStore, spec: NetworkSpec, tick: Callable[[], None]) -> None:
        """Measure a network as it is and under each change.

        Args:
            store: that has the trained networks.
            spec: of the network.
            tick: called after every change.
        """
        data = precise(data_of(spec.data, self.data_root))
        trained = store.rows_of("trained", spec.key).row(0, named=True)
        others = []
        for sister in self.sisters:
            _, states = store.states(sister.key)
            model, _ = transformed(sister, data, states[-1:].double(), Transform("none"))
            others.append(seen_by(model, data, sister.size))
        made = nuisance_rows(spec, data, store.states(spec.key), trained, tuple(others), self.settings, tick)
        store.add_rows(self.table, spec.key, [{**row, "version": self.version} for row in made])


def sampled_networks(zoo: Zoo, store: ZooStore, count: int = A_STAR) -> tuple[NetworkSpec, ...]:
    """Choose networks of the centre of every star: the first seeds, of those that reached their training loss.

    Args:
        zoo: the declaration.
        store: with trained networks.
        count: of a star, at most.

    Returns:
        The networks. The centre is what most seeds of a star are trained of.
    """
    rows = store.rows("trained")
    fitted = set(rows.filter(polars().col("reached"))["key"].to_list()) if len(rows) else set()
    chosen: list[NetworkSpec] = []
    for block in dict.fromkeys(zoo.block.values()):
        specs = [s for s in zoo.specs if zoo.block[s.key] == block]
        centre, _ = Counter(s.configuration for s in specs).most_common(1)[0]
        there = sorted((s for s in specs if s.configuration == centre and s.key in fitted), key=lambda s: s.seed)
        chosen += there[:count]
    return tuple(chosen)


@stage("nuisance", 4)
def nuisance_pieces(
    zoo: Zoo, store: ZooStore, data_root: Path | None, settings: ZooSettings | None = None
) -> list[NuisancePiece]:
    """List the sampled networks that are not measured under changes yet.

    Args:
        zoo: the declaration.
        store: what is there.
        data_root: where data sets lie.
        settings: of the measures; None: the defaults, without ``SAMPLED`` and the groups that the zoo leaves out.

    Returns:
        A piece a network.
    """
    if store.packed:
        return []
    settings = settings or ZooSettings(without=tuple(dict.fromkeys((*zoo.without, *SAMPLED))))
    trained, done = store.trained_keys(), store.keys_at("nuisance", version_of(settings))
    pieces = []
    for spec in sampled_networks(zoo, store):
        if spec.key not in done:
            alike = (s for s in zoo.specs if s.configuration == spec.configuration and s.key in trained)
            sisters = tuple(s for s in alike if s.key != spec.key)
            pieces.append(NuisancePiece((spec,), store.folder, data_root, sisters, settings))
    return pieces


def nuisance_rows(
    spec: NetworkSpec,
    data: ZooData,
    path: tuple[Tensor, Tensor],
    trained: Mapping[str, Any],
    others: tuple[tuple[Tensor, Tensor], ...],
    settings: ZooSettings,
    tick: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Measure a network as it is and under each change.

    Args:
        spec: of the network.
        data: it was trained on.
        path: (S,) steps and (S, P) recorded weights.
        trained: its row, with the loss curve.
        others: what the last layers of sister networks read, and their outputs.
        settings: of the measures.
        tick: called after every change.

    Returns:
        A row a change and measure: ``key``, ``transform``, ``amount``, ``name``, ``base`` (the measure of the network
        as it is), ``value`` (after the change), ``unit``; null where it is absent.
    """
    steps, states = path[0], path[1].double()
    base: dict[str, float | None] = {}
    rows: list[dict[str, Any]] = []
    data = precise(data)
    train = data.x[: spec.size], labels_of(spec, data)
    curve = curve_of(spec, trained, float(steps[-1]))
    for transform in transforms_of(initial_network(spec, data)):
        model, moved = transformed(spec, data, states, transform)
        run = run_of(spec, Weights.of(model), steps, moved)
        task = Task(model, Data(train), name=spec.key, decay=spec.decay, run=run)
        company = Sisters(*seen_by(model, data, spec.size), others) if others else None
        measured = measure_network(task, curve=curve, sisters=company, settings=settings)
        values: dict[str, float | None] = {m.name: m.value for m in measured.measurements}
        units = {m.name: m.unit for m in measured.measurements}
        values |= {u.name: None for u in measured.unmeasured}
        if transform.name == "none":
            base = values
        else:
            common = {"key": spec.key, "transform": transform.name, "amount": transform.amount}
            rows += [
                {**common, "name": n, "base": base.get(n), "value": v, "unit": units.get(n, "")}
                for n, v in values.items()
            ]
        tick()
    return rows


def precise(data: ZooData) -> ZooData:
    """Convert inputs that are numbers to float64.

    Args:
        data: a data set.

    Returns:
        The same in float64; tokens stay.
    """
    if not data.x.is_floating_point():
        return data
    return replace(data, x=data.x.double(), x_test=data.x_test.double())


def nuisance_table(store: ZooStore) -> pl.DataFrame:
    """Arrange measures under changes as the statistic ``invariance`` reads them.

    Args:
        store: with measures under changes.

    Returns:
        A row a network and change: ``key``, ``transform`` (``none``, ``rescaling``, ``permutation``, ``dead units``,
        ``gain 0.1``, …), and a column a measure.
    """
    rows, column = store.rows("nuisance"), polars().col
    if not len(rows):
        return rows
    label = polars().when(column("transform") == "gain").then(polars().format("gain {}", _amount()))
    changed = rows.select("key", label.otherwise(column("transform")).alias("transform"), "name", "value")
    before = rows.select("key", polars().lit("none").alias("transform"), "name", column("base").alias("value"))
    both = polars().concat([before.unique(), changed])
    wide: pl.DataFrame = both.pivot("name", index=["key", "transform"], values="value")
    return wide.sort("key", "transform")


def _amount() -> Any:
    """Amounts as labels have them: ``0.1``, ``3``."""
    return polars().col("amount").map_elements(lambda a: f"{a:g}", return_dtype=polars().String)


def movements(store: ZooStore) -> pl.DataFrame:
    """Summarise how far each measure moves under each change.

    Args:
        store: with measures under changes.

    Returns:
        A row a measure (``name``) and ``transform``: number of ``networks``; ``median`` and ``largest`` of the relative
        movement |value − base| / |base|; under the gain also ``range``, the measure's nuisance range: its largest over
        its smallest magnitude over all gains, median over networks, null where it changes its sign or is zero.
        ``invariant``: theory has the measure unmoved by this change, and ``largest`` is at most ``STILL``.
    """
    rows, column = store.rows("nuisance"), polars().col
    if not len(rows):
        return rows
    rows = rows.drop_nulls(["base", "value"])
    moved = (column("value") - column("base")).abs()
    relative = polars().when(moved == 0).then(0.0).otherwise(moved / column("base").abs())
    low = polars().min_horizontal(column("value").min(), column("base").min())
    high = polars().max_horizontal(column("value").max(), column("base").max())
    ratio = polars().when(low * high > 0).then(polars().max_horizontal(high / low, low / high))
    by_network = rows.group_by("name", "transform", "key").agg(relative.max().alias("moved"), ratio.alias("range"))
    summary = by_network.group_by("name", "transform").agg(
        networks=polars().len(),
        median=column("moved").median(),
        largest=column("moved").max(),
        range=polars().when(column("transform").first() == "gain").then(column("range").median()),
    )
    claimed = column("name").is_in(list(INVARIANT)) & column("transform").is_in(EXACT)
    return summary.with_columns(invariant=claimed).sort("name", "transform")
