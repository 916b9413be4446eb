"""Live numbers: what a recorder saw while training ran."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.chapters.path import AGAIN
from memspace.auditing.results import Figure, Series
from memspace.measures.declaration import measure, table
from memspace.measures.workspace import Measured
from memspace.task.recording import Recording
from memspace.value import Absent, Value

__all__ = ["LIVE"]

Looks = Mapping[str, Sequence[float]]
NO_TABLE = Absent("the table of looks is missing", AGAIN)


@dataclass(frozen=True)
class _Live:
    """A column of the table of looks as a measure; ``doubt``: why it is not to be relied on."""

    column: str
    name: str
    meaning: str
    unit: str
    estimator: str
    doubt: str = ""


COLUMNS = (
    _Live("probe_loss", "watch.loss", "Training loss on the probe.", "nats", "training loss on the probe"),
    _Live(
        "length",
        "watch.length",
        "Length of the path of predictions.",
        "nats^½",
        "by a fixed ruler, whatever the number of looks",
    ),
    _Live(
        "action",
        "watch.action",
        "Action of the path in the recorded time.",
        "nats per learning-rate time",
        "½ Σ d²/Δt over the ruler's stretches",
    ),
    _Live(
        "excess",
        "watch.excess",
        "Action spent beyond the loss it bought.",
        "nats",
        "∫ speed · slope by trapezoids less the loss bought, on a few examples",
        "its error is not known: the ruler's length holds the noise of the steps, and a few examples may carry most of "
        "the slope; an audit with --run takes the noise out and gives action.excess an interval",
    ),
    _Live(
        "effective_dimension",
        "watch.effective_dimension",
        "How many directions of the weights the probe determines.",
        "1",
        "KFAC on the probe, γ of greatest evidence",
    ),
    _Live(
        "leave_one_out_gap",
        "watch.leave_one_out_gap",
        "Expected rise of the loss on new examples.",
        "nats",
        "KFAC on the probe, one step in the model without",
        "its error is not known: KFAC of a few examples came out up to three times too small; an audit reads all of "
        "the training data and gives an interval",
    ),
)


def _at(looks: Looks, column: str) -> list[int]:
    """The rows in which a column has a number."""
    return [k for k, v in enumerate(looks.get(column, ())) if v is not None and math.isfinite(v)]


def _declared(live: _Live) -> Callable[..., Value | Absent]:
    @measure(live.name, chapter="live", unit=live.unit, estimator=live.estimator)
    def read(found: Recording) -> Value | Absent:
        return _last(found, live)

    read.__doc__ = live.meaning
    return read


def _last(found: Recording, live: _Live) -> Value | Absent:
    """The last number of a column, and when that was."""
    looks, examples = found.looks, int(found.index["probe"]["examples"])
    if not looks.get("step"):
        return NO_TABLE
    rows = _at(looks, live.column)
    if not rows:
        never = "it was not within the budget, or not resolved" if live.column != "action" else "no rates were told"
        return Absent(never, AGAIN)
    step = looks["step"][rows[-1]]
    late = "" if step == looks["step"][-1] else f"last measured at step {step:,.0f}"
    note = "; ".join(part for part in (late, live.doubt or "of the probe alone, so without an interval") if part)
    if live.column == "excess":
        examples = int(found.index.get("slope_examples") or examples)
    how = f"of {found.index['settings']['spacing']:g} nats^½" if live.column == "length" else ""
    return Value(looks[live.column][rows[-1]], examples, how=how, reliable=not live.doubt, note=note)


@table("looks")
def looks_table(found: Recording) -> Looks:
    """List every probe evaluation."""
    return found.looks


def answer(measured: Measured, found: Recording) -> str | Absent:
    """Say how long the path is, after how many steps and probe evaluations."""
    steps = found.looks.get("step")
    if not steps:
        return NO_TABLE
    length = measured["watch.length"].value if "watch.length" in measured else math.nan
    return f"A length of {length:.3g} nats^½ after {steps[-1]:,.0f} steps, seen in {len(steps):,} looks."


def live_figures(found: Recording) -> tuple[Figure, ...]:
    """Draw every column that has two numbers at least against the steps."""
    looks = found.looks
    if not looks.get("step"):
        return ()
    step = [max(s, 0.5) for s in looks["step"]]

    def series(name: str, column: str, change: Callable[[float], float] = float) -> list[Series]:
        rows = _at(looks, column)
        values = [change(looks[column][k]) for k in rows]
        return [Series(name, [step[k] for k in rows], values)] if len(rows) > 1 else []

    drawn = (
        (
            "course",
            "Length and loss",
            "Length by the ruler and training loss on the probe, look by look.",
            "nats^½, nats",
            series("length (nats^½)", "length") + series("training loss (nats)", "probe_loss"),
        ),
        (
            "single",
            "Length of single steps",
            "Fisher–Rao length of one optimiser step; what does not fall with the slope is the noise of the gradient.",
            "nats^½",
            series("one step", "single_step_squared", math.sqrt),
        ),
        (
            "fullness",
            "How much the network holds",
            "Effective dimension by KFAC on the probe.",
            "parameters",
            series("effective dimension", "effective_dimension"),
        ),
        (
            "gap",
            "Generalisation and excess",
            "Leave-one-out loss less training loss, and action spent beyond the loss bought.",
            "nats",
            series("leave-one-out gap", "leave_one_out_gap") + series("action excess", "excess"),
        ),
    )
    return tuple(
        Figure(id, title, caption, "optimiser step", unit, tuple(lines), "log")
        for id, title, caption, unit, lines in drawn
        if lines
    )


LIVE = ChapterDeclaration(
    id="live",
    title="Live numbers",
    question="What was seen while it ran?",
    answer=answer,
    measures=tuple(_declared(live) for live in COLUMNS),
    tables=(looks_table,),
    figures=(live_figures,),
)
