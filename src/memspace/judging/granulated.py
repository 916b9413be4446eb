"""Granulated τ: rank correlation with the gap where a single hyper-parameter varies (Jiang et al. 2020).

A group of a knob is all networks that agree in every other knob, their seeds together: pairs of seeds of one
configuration count too. ψ of the knob is the mean of τ-b over its groups, Ψ the mean of ψ over knobs. A measure that
follows the gap only because both follow one knob has a large τ and a ψ of zero along the others.

A group counts where the knob takes at least three values in it. A knob that takes only two values in the whole table,
a switch, is judged by its groups of two. A knob without a group is absent, and Ψ is the mean over the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from memspace.judging.design import JudgingDesign
from memspace.judging.kendall import pair_signs, tau_b
from memspace.judging.resampling import Correlation, Jackknife
from memspace.judging.tables import NetworkRows, rows_of, settings
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Granulated", "granulated", "knob_groups"]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
ENOUGH = 3  # values of a knob that make a group


@dataclass(frozen=True)
class Granulated:
    """Rank correlation along every knob.

    Args:
        psi: Ψ, the mean over knobs, from −1 to 1.
        knobs: ψ of each knob, n its networks, or why it has none.
        groups: number of groups of each knob.
    """

    psi: Correlation
    knobs: Mapping[str, Value | Absent]
    groups: Mapping[str, int]

    @property
    def worst(self) -> tuple[str, Value]:
        """The knob along which the sign is most against that of Ψ, and its ψ."""
        sign = -1 if self.psi.value.value < 0 else 1
        present = [(name, psi) for name, psi in self.knobs.items() if isinstance(psi, Value)]
        return min(present, key=lambda item: sign * item[1].value)


def granulated(
    table: pl.DataFrame, measure: str, design: JudgingDesign, *, seeds: Literal["pooled", "apart"] = "pooled"
) -> Granulated | Absent:
    """Compute granulated τ of a measure with the gap.

    Args:
        table: one row a network (:mod:`memspace.judging`).
        measure: column of the measure.
        design: of the table.
        seeds: ``"pooled"``: the seeds of all configurations of a group are ranked together; ``"apart"``: every seed
            makes groups of its own.

    Returns:
        Ψ and ψ of each knob with 95% intervals (:class:`~memspace.judging.resampling.Jackknife`); absent where no two
        networks differ in one knob alone.
    """
    rows = rows_of(table, measure, design)
    if isinstance(rows, Absent):
        return rows
    jackknife = Jackknife.of(rows.configurations)
    groups = {name: knob_groups(rows, k, apart=seeds == "apart") for k, name in enumerate(design.knobs)}
    numbers: dict[str, Floats] = {}
    for name, members in groups.items():
        if members:
            per_group = _taus(rows, jackknife.counts, members)
            if np.isfinite(per_group[:, 0]).any():
                numbers[name] = _mean(per_group)
    if not numbers:
        reason = "no group of networks differs in one knob alone, with three of its values"
        return Absent(reason, "train a grid: networks that agree in all other knobs")
    psi = _mean(np.stack(list(numbers.values())))
    counts = {name: len(members) for name, members in groups.items()}
    networks = {name: len(np.unique(np.concatenate(groups[name]))) for name in numbers}
    pairs = {name: sum(len(np.unique(rows.configuration[m])) // 2 for m in groups[name]) for name in numbers}
    knobs: dict[str, Value | Absent] = {
        name: jackknife.correlation(
            numbers[name], networks[name], pairs=pairs[name], how=f"mean over {counts[name]} groups"
        ).value
        if name in numbers
        else Absent("no group differs in this knob alone", "train networks that agree in all other knobs")
        for name in design.knobs
    }
    how = f"mean over {len(numbers)} of {len(design.knobs)} knobs"
    correlation = jackknife.correlation(psi, max(networks.values()), pairs=max(pairs.values()), how=how)
    return Granulated(correlation, knobs, counts)


def knob_groups(rows: NetworkRows, knob: int, *, apart: bool = False) -> list[Codes]:
    """List the groups of networks in which a single knob varies.

    Args:
        rows: the networks.
        knob: number of the knob in the design.
        apart: whether groups hold one seed only.

    Returns:
        Numbers of the networks of each group, those in which the knob takes enough values.
    """
    codes = rows.settings[rows.configuration]
    value, others = codes[:, knob], np.delete(codes, knob, 1)
    if apart and rows.design.seed is not None:
        others = np.concatenate([others, settings(rows.frame, (rows.design.seed,))], 1)
    enough = min(ENOUGH, len(np.unique(value)))
    if enough < 2:
        return []
    _, group = np.unique(others, axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group.ravel()[order])) + 1)
    return [part for part in parts if len(np.unique(value[part])) >= enough]


def _taus(rows: NetworkRows, counts: Floats, groups: list[Codes]) -> Floats:
    """τ-b of every group for rows of counts, (groups, resamples)."""
    measure, gap = pair_signs(rows.measure), pair_signs(rows.gap)
    numbers = np.empty((len(groups), len(counts)))
    for row, members in zip(numbers, groups, strict=True):
        unit, square = rows.configuration[members], np.ix_(members, members)
        row[:] = tau_b(counts[:, np.unique(unit)], measure[square], gap[square], unit)
    return numbers


def _mean(numbers: Floats) -> Floats:
    """Mean over the first axis of what there is, NaN where there is nothing."""
    there = np.isfinite(numbers)
    count = there.sum(0)
    return np.where(count > 0, np.where(there, numbers, 0.0).sum(0) / np.maximum(count, 1), np.nan)
