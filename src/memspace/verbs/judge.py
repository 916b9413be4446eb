"""Which measures tell the gap of a zoo's networks: the judging of :mod:`memspace.judging` on a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memspace.claims.again import SHIPPED
from memspace.claims.run import opened_store
from memspace.claims.store import ResultsStore
from memspace.display import Columns, Shown
from memspace.errors import DataError
from memspace.frames import polars
from memspace.judging.combination import measured_everywhere, order_within
from memspace.judging.design import JudgingDesign
from memspace.judging.judgement import Judgement, judge
from memspace.judging.prediction import predict_out_of_sample
from memspace.measures.declaration import MeasureDeclaration, declaration_of
from memspace.progress import Progress, Silent
from memspace.value import Absent
from memspace.zoo.declaration import KNOBS
from memspace.zoo.measuring import ALL_MEASURES
from memspace.zoo.results import SPECIFICATION

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "LEVEL",
    "ORDER",
    "RECOMMENDED",
    "JudgedZoo",
    "combinations_of",
    "design_of",
    "directions",
    "judge_zoo",
    "networks_of",
    "tables_of",
]

LEVEL, ORDER = "combination.level", "combination.order"
# What the level is told by: one measure of each idea, all of them free of labels that are not training labels.
RECOMMENDED = (
    "complexity.fisher_rao",
    "complexity.information.evidence",
    "generalisation.tic_gap.evidence",
    "generalisation.loo_estimate.evidence",
    "margins.normalised",
    "gradients.coherence",
    "action.inefficiency",
)


@dataclass(frozen=True, repr=False)
class JudgedZoo(Shown):
    """The measures of a zoo, judged.

    Args:
        judgement: of all measures, and of their combinations where these could be made.
        table: the networks that were judged, with a column for each combination.
        digest: of the store.
        families: judgements within one family each, where they were asked for.
    """

    judgement: Judgement
    table: pl.DataFrame
    digest: str
    families: Mapping[str, Judgement] = field(default_factory=dict)

    def _title(self) -> str:
        design = self.judgement.design
        return f"{len(self.judgement.measures)} measures of {len(self.table)} networks against the gap in {design.gap}"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"judged": lambda: self.judgement.frame.to_dict(as_series=False)}

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            A row a measure, the same in every family, and what was judged.
        """
        return {
            "networks": len(self.table),
            "gap": self.judgement.design.gap,
            "store": self.digest,
            "measures": self.judgement.frame.to_dicts(),
            "families": {f: j.frame.to_dicts() for f, j in self.families.items()},
        }


def tables_of(folder: str | Path) -> ResultsStore:
    """Open the tables of networks in a folder, or those of the package by their word.

    Args:
        folder: of a zoo's store or of its tables; ``shipped``: the tables that the shipped verdicts rest on.

    Returns:
        The store.
    """
    return opened_store(SHIPPED if str(folder) == "shipped" else folder)


def networks_of(store: ResultsStore, *, moment: float = 1.0, zoo: str = "") -> pl.DataFrame:
    """Read the networks that are judged: those at their training loss, from fresh weights, on their own labels.

    Args:
        store: of networks.
        moment: share of the training at which measures were taken.
        zoo: name of the declaration; empty: all in the store.

    Returns:
        A row a network.

    Raises:
        DataError: there is none.
    """
    column = polars().col
    table = store.table()
    chosen = (column("moment") == moment) & column("fitted") & (column("start") == "fresh") & ~column("permuted")
    if zoo:
        chosen &= column("zoo") == zoo
    table = table.filter(chosen)
    if not len(table):
        of = f" of the zoo {zoo}" if zoo else ""
        what = f"no network{of} at its training loss has measures at {moment:g} of its training"
        raise DataError(what, where="memspace zoo judge", remedy="run the zoo's stages first")
    return table


def design_of(
    table: pl.DataFrame, *, gap: Literal["loss", "accuracy"] = "loss", left_out: str = "family"
) -> JudgingDesign:
    """Describe a zoo's hyper-parameters to the judging.

    Args:
        table: of networks.
        gap: that is told.
        left_out: column whose values are left out in turn where the gap is predicted.

    Returns:
        The design; knobs that never vary are left out of it.
    """
    knobs = tuple(k for k in ("family", "data", *KNOBS) if table[k].n_unique() > 1)
    tested = int(table["test_examples"].min())  # type: ignore[arg-type]
    error = "test_loss_error" if gap == "loss" else None
    return JudgingDesign(knobs, seed="seed", gap=gap, tested=tested, error=error, left_out=left_out)


def directions() -> dict[str, Literal[1, -1]]:
    """Read which sign each measure is claimed to have.

    Returns:
        1 where a larger value is said to go with a larger gap, −1 where with a smaller.
    """
    declared = [d for d in map(declaration_of, ALL_MEASURES) if isinstance(d, MeasureDeclaration)]
    return {d.name: -1 if d.better == "larger" else 1 for d in declared}


def judge_zoo(
    folder: str | Path,
    *,
    gap: Literal["loss", "accuracy"] = "loss",
    moment: float = 1.0,
    measures: Sequence[str] = (),
    families: bool = False,
    draws: int = 1000,
    zoo: str = "",
    workers: int = 2,
    progress: Progress | None = None,
) -> JudgedZoo:
    """Judge every measure of a store, and the recommended combinations of them.

    ``combination.level`` predicts the gap by ridge regression on ``RECOMMENDED``. ``combination.order`` orders the
    networks of a star by all measures that every network has (:mod:`memspace.judging.combination`). Both are fitted to
    the other families: they have seen neither the network nor its family.

    Args:
        folder: of a zoo's store or of its tables; ``"shipped"``: the tables that the shipped verdicts rest on.
        gap: that is told.
        moment: share of the training at which measures were taken.
        measures: names; empty: all of the store.
        families: judge within each family as well.
        draws: of every bootstrap.
        zoo: name of the declaration whose networks are judged; empty: all in the store.
        workers: processes that share the measures.
        progress: where the work reports, a step a measure.

    Returns:
        A row a measure, and the particulars.

    Raises:
        DataError: the store has no networks to judge.
    """
    store, progress = tables_of(folder), progress or Silent()
    table = networks_of(store, moment=moment, zoo=zoo)
    design = design_of(table, gap=gap)
    names = list(measures) or measures_in(table)
    columns = combinations_of(table, design)
    table, names = table.with_columns(**columns), [*names, *columns]
    parts = {"": (table, design)}
    for family in sorted(set(table["family"].to_list())) if families else ():
        rows = table.filter(polars().col("family") == family)
        parts[family] = rows, design_of(rows, gap=gap, left_out="block")
    handle, signs = progress.start("judging measures", len(names) * len(parts)), directions()
    judged = {
        part: judge(
            rows,
            names,
            of_part,
            directions=signs,
            draws=draws,
            workers=workers,
            progress=lambda _: progress.advance(handle),
        )
        for part, (rows, of_part) in parts.items()
    }
    progress.finish(handle)
    return JudgedZoo(judged.pop(""), table, store.digest(), judged)


def measures_in(table: pl.DataFrame) -> list[str]:
    """List the measures of a table that vary between its networks.

    Args:
        table: of networks.

    Returns:
        Names, sorted.
    """
    declared = {getattr(declaration_of(f), "name", "") for f in ALL_MEASURES}
    named = [c for c in table.columns if c in declared or c.startswith(tuple(f"{name}." for name in declared))]
    return sorted(c for c in named if c not in SPECIFICATION and table[c].drop_nulls().n_unique() > 2)


def combinations_of(
    table: pl.DataFrame, design: JudgingDesign, *, learned_from: pl.Series | None = None
) -> dict[str, pl.Series]:
    """Combine the measures of a table, each family by a fit to the other ones.

    Args:
        table: of networks.
        design: of the table.
        learned_from: (n,) truth values, the networks that the order may be learned from; None: all.

    Returns:
        The combinations that could be made, by name; the level of all networks or of none.
    """
    columns: dict[str, pl.Series] = {}
    if table[design.group].n_unique() < 2:
        return columns
    few = [n for n in RECOMMENDED if n in table.columns]
    if few and learned_from is None:
        level = predict_out_of_sample(table, few, design, knobs=False, model="ridge", draws=2)
        if not isinstance(level, Absent):
            columns[LEVEL] = level.column
    order = order_within(table, measured_everywhere(table, measures_in(table)), design, learned_from=learned_from)
    if not isinstance(order, Absent):
        columns[ORDER] = order
    return columns
