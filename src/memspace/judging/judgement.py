"""Every statistic of every measure, in one call and one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import joblib

from memspace.frames import polars
from memspace.judging.design import JudgingDesign
from memspace.judging.environments import SignError, sign_error
from memspace.judging.granulated import Granulated, granulated
from memspace.judging.information import Information, information
from memspace.judging.kendall import kendall
from memspace.judging.multiplicity import Adjusted, adjusted
from memspace.judging.partial import Partial, partial
from memspace.judging.prediction import Change, Fitted, Prediction, predict_out_of_sample, with_and_alone
from memspace.judging.resampling import DRAWS, Correlation
from memspace.judging.tables import networks
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["JudgedMeasure", "Judgement", "judge"]

AT_ONCE = 8  # measures that a process judges before the next ones are handed out
KINDS: tuple[Literal["configurations", "settings"], ...] = ("configurations", "settings")


@dataclass(frozen=True)
class JudgedMeasure:
    """What is known of one measure.

    Args:
        tau: Kendall's τ with the gap.
        granulated: the same where a single knob varies.
        information: K, what its sign tells given any two knobs.
        sign_error: over environments that are pairs of configurations, as published.
        settings_error: over environments that are pairs of settings of a knob.
        prediction: of the gap on groups left out, by hyper-parameters and the measure.
        alone: the same by the measure alone.
        partial: rank correlation given the knobs and ``design.given``.
    """

    tau: Correlation
    granulated: Granulated | Absent
    information: Information | Absent
    sign_error: SignError | Absent
    settings_error: SignError | Absent
    prediction: Prediction | Absent
    alone: Prediction | Absent
    partial: Partial | Absent


@dataclass(frozen=True)
class Judgement:
    """What is known of all measures.

    Args:
        frame: a row a measure, in the order given: ``n`` networks, every statistic with ``_low`` and ``_high`` of its
            95% interval, its probability ``_p``, corrected for the number of measures ``_q`` (false discovery rate)
            and ``_holm``; null where absent, with the ``reason``.
        measures: the same by name, with all particulars, of the measures that could be judged.
        absent: why the others could not.
        baseline: prediction of the gap by the hyper-parameters alone, on all networks.
        design: of the table.
    """

    frame: pl.DataFrame
    measures: Mapping[str, JudgedMeasure]
    absent: Mapping[str, Absent]
    baseline: Prediction | Absent
    design: JudgingDesign


def judge(
    table: pl.DataFrame,
    measures: Sequence[str],
    design: JudgingDesign,
    *,
    directions: Mapping[str, Literal[1, -1]] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[str], None] | None = None,
) -> Judgement:
    """Judge measures of generalisation by everything this package knows.

    Args:
        table: one row a network (:mod:`memspace.judging`).
        measures: columns of the measures.
        design: of the table.
        directions: −1 for measures that should be smaller where the gap is larger; 1 for all others. Sign errors
            alone depend on it.
        draws: of every bootstrap.
        seed: of the draws.
        workers: processes that share the measures; the numbers do not depend on it.
        progress: called with the name of every measure when it is judged.

    Returns:
        One table, and the particulars.
    """
    networks(table, design, measures)
    results: dict[str, JudgedMeasure] = {}
    absent: dict[str, Absent] = {}
    for name, judged in _all(table, measures, design, directions or {}, draws, seed, workers):
        if isinstance(judged, Absent):
            absent[name] = judged
        else:
            results[name] = judged
        if progress is not None:
            progress(name)
    baseline = predict_out_of_sample(table, (), design, draws=draws, seed=seed)
    return Judgement(_frame(measures, results, absent), results, absent, baseline, design)


def _all(
    table: pl.DataFrame,
    names: Sequence[str],
    design: JudgingDesign,
    directions: Mapping[str, Literal[1, -1]],
    draws: int,
    seed: int,
    workers: int,
) -> Iterator[tuple[str, JudgedMeasure | Absent]]:
    """Judge the measures in their order, in as many processes as there are workers."""
    common = (table, design, directions, draws, seed)
    if workers == 1:
        alone: dict[bytes, Fitted] = {}
        for name in names:
            yield name, _judged(*common, name, alone)
        return
    parts = (names[k : k + AT_ONCE] for k in range(0, len(names), AT_ONCE))
    jobs = (joblib.delayed(_part)(*common, part) for part in parts)
    for part in joblib.Parallel(n_jobs=workers, return_as="generator")(jobs):
        yield from part


def _part(
    table: pl.DataFrame,
    design: JudgingDesign,
    directions: Mapping[str, Literal[1, -1]],
    draws: int,
    seed: int,
    names: Sequence[str],
) -> list[tuple[str, JudgedMeasure | Absent]]:
    alone: dict[bytes, Fitted] = {}  # most measures are of the same networks: one fit of their hyper-parameters
    return [(name, _judged(table, design, directions, draws, seed, name, alone)) for name in names]


def _judged(
    table: pl.DataFrame,
    design: JudgingDesign,
    directions: Mapping[str, Literal[1, -1]],
    draws: int,
    seed: int,
    name: str,
    alone: dict[bytes, Fitted],
) -> JudgedMeasure | Absent:
    direction = directions.get(name, 1)
    tau = kendall(table, name, design, draws=draws, seed=seed)
    if isinstance(tau, Absent):
        return tau
    errors = {
        kind: sign_error(table, name, design, direction=direction, environments=kind, draws=draws) for kind in KINDS
    }
    predictions = with_and_alone(table, name, design, draws=draws, seed=seed, alone=alone)
    both = (predictions, predictions) if isinstance(predictions, Absent) else predictions
    return JudgedMeasure(
        tau=tau,
        granulated=granulated(table, name, design),
        information=information(table, name, design, seed=seed),
        sign_error=errors["configurations"],
        settings_error=errors["settings"],
        prediction=both[0],
        alone=both[1],
        partial=partial(table, name, design),
    )


def _frame(names: Sequence[str], results: Mapping[str, JudgedMeasure], absent: Mapping[str, Absent]) -> pl.DataFrame:
    """A row a measure."""
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        rows[name] = {"measure": name, "n": 0, "reason": absent[name].reason} if name in absent else _row(results, name)
    for column in ("tau", "psi", "information", "partial_tau", "partial_rho"):
        chances = {name: row[f"{column}_p"] for name, row in rows.items() if row.get(f"{column}_p") is not None}
        for name, corrected in adjusted(chances).items():
            rows[name] |= _adjusted(column, corrected)
    columns = dict.fromkeys(c for row in rows.values() for c in row if c != "reason")
    ordered = [{c: row.get(c) for c in (*columns, "reason")} for row in rows.values()]
    made: pl.DataFrame = polars().DataFrame(ordered, infer_schema_length=None).fill_nan(None)
    return made


def _row(results: Mapping[str, JudgedMeasure], name: str) -> dict[str, Any]:
    j = results[name]
    row: dict[str, Any] = {"measure": name, "n": j.tau.value.n} | _correlation("tau", j.tau)
    reasons = {
        "granulated": j.granulated,
        "information": j.information,
        "sign error": j.sign_error,
        "sign error of settings": j.settings_error,
        "prediction": j.prediction,
        "partial": j.partial,
    }
    if isinstance(j.granulated, Granulated):
        knob, worst = j.granulated.worst
        row |= _correlation("psi", j.granulated.psi) | {"psi_worst_knob": knob} | _number("psi_worst", worst)
        for knob, psi in j.granulated.knobs.items():
            row |= _number(f"psi_along_{knob}", psi)
    if isinstance(j.information, Information):
        row |= _number("information", j.information.value)
        row |= {"information_p": j.information.p, "information_given": ", ".join(j.information.given)}
    for prefix, errors in (("error", j.sign_error), ("settings_error", j.settings_error)):
        if isinstance(errors, SignError):
            row |= _number(f"{prefix}_mean", errors.mean) | _number(f"{prefix}_90", errors.ninety)
            row |= _number(f"{prefix}_worst", errors.worst) | {f"{prefix}_environments": errors.environments}
    for prefix, made in (("", j.prediction), ("alone_", j.alone)):
        if isinstance(made, Prediction):
            for part in ("rmse", "mae", "tau"):
                row |= _number(f"{prefix}predicted_{part}", getattr(made, part))
                if isinstance(made.change, Change):
                    row |= _number(f"{prefix}predicted_{part}_change", getattr(made.change, part))
    if isinstance(j.partial, Partial):
        row |= _correlation("partial_tau", j.partial.kendall) | _correlation("partial_rho", j.partial.spearman)
    missing = [f"{what}: {a.reason}" for what, a in reasons.items() if isinstance(a, Absent)]
    return row | {"reason": "; ".join(missing) or None}


def _number(name: str, value: Value | Absent) -> dict[str, float | None]:
    if isinstance(value, Absent):
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    low, high = value.interval or (None, None)
    return {name: value.value, f"{name}_low": low, f"{name}_high": high}


def _correlation(name: str, value: Correlation | Absent) -> dict[str, float | None]:
    if isinstance(value, Absent):
        return _number(name, value) | {f"{name}_p": None}
    return _number(name, value.value) | {f"{name}_p": value.p}


def _adjusted(name: str, corrected: Adjusted) -> dict[str, float]:
    return {f"{name}_q": corrected.q, f"{name}_holm": corrected.holm}
