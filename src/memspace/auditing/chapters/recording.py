"""The page on a recorded training, from its folder alone: no model and no data are needed."""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from memspace.action.drift import readings_along
from memspace.action.lengths import bought, clocked_action, lengths
from memspace.auditing.results import Chapter, Figure, Finding, Results, Series
from memspace.errors import MemspaceError, RunFolderError
from memspace.geometry.distance import squared_distances
from memspace.geometry.path import walk
from memspace.measurement import Measurement, Unmeasured
from memspace.task.recording import Recording
from memspace.version import VERSION

__all__ = ["recording_results"]

AGAIN = "audit it with its task: memspace audit TASK --run FOLDER"


@dataclass(frozen=True)
class _Live:
    """A column of the table of looks as a measurement; ``doubt``: why it is not to be relied on."""

    column: str
    name: str
    unit: str
    how: str
    doubt: str = ""


LIVE = (
    _Live("probe_loss", "watch.loss", "nats", "training loss on the probe"),
    _Live("length", "watch.length", "nats^½", "by a ruler of {ruler:g} nats^½, whatever the number of looks"),
    _Live("action", "watch.action", "nats per learning-rate time", "½ Σ d²/Δt over the ruler's stretches"),
    _Live(
        "excess",
        "watch.excess",
        "nats",
        "∫ speed · slope by trapezoids less the loss bought, on a few examples",
        "its error is not known: the ruler's length holds the noise of the steps, and a few examples may carry most of "
        "the slope; an audit with --run takes the noise out and gives action.excess an interval",
    ),
    _Live("effective_dimension", "watch.effective_dimension", "1", "KFAC on the probe, γ of greatest evidence"),
    _Live(
        "leave_one_out_gap",
        "watch.leave_one_out_gap",
        "nats",
        "KFAC on the probe, one step in the model without",
        "its error is not known: KFAC of a few examples came out up to three times too small; an audit reads all of "
        "the training data and gives an interval",
    ),
)


def recording_results(found: Recording, settings: dict[str, Any]) -> Results:
    """What a recorded training tells about itself: the path between checkpoints, the numbers of its looks."""
    index, run = found.index, found.run
    probe = index["probe"]
    facts = {
        "model": str(index["model"]),
        "output law": str(index["law"]["kind"]).lower(),
        "training examples": f"{probe['of']:,}",
        "probe examples": f"{probe['examples']:,}",
        "checkpoints": f"{len(run.states)}, steps {run.step[0]:,} to {run.step[-1]:,}",
        "spacing of checkpoints": f"{index['spacing']:.3g} nats^½",
        "looks in the table": f"{len(found.looks.get('step', ())):,}",
        "finished": "yes" if index["finished"] else "no: the process ended before the recorder was closed",
    }
    sigma = None if found.law is None else found.law.scale(torch.zeros(()))
    if sigma is not None:
        facts["σ"] = _told_sigma(sigma)
    if index["seconds"]:
        facts["cost of watching"] = (
            f"{index['seconds']['watching']:.2f} s beside {index['seconds']['training']:.1f} s of training"
        )
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    chapters = (_path(found), _live(found))
    name = found.folder.resolve().name
    return Results(
        name, created, VERSION, facts, settings, "read from the folder", chapters, {}, {"looks": found.looks}
    )


def _told_sigma(sigma: torch.Tensor) -> str:
    """The σ that lengths are in units of: with 1, as ``Gaussian()`` stands for here, that is the targets' unit."""
    if sigma.eq(1).all():
        return "1: lengths are in the targets' unit, where an audit that fits σ divides them by it"
    return "as given, for lengths and losses"


def _path(found: Recording) -> Chapter:
    """Lengths of the polygon of checkpoints on the probe, each with its interval over examples."""
    title, question = "Path", "How far did training travel, and how much of it was needed?"
    run, law = found.run, found.law
    f = [found.outputs(k) for k in range(len(run.step))] if law is not None and len(run.step) > 1 else []
    outputs = [x for x in f if x is not None]
    if law is None or len(outputs) < max(2, len(run.step)):
        why = (
            "only one checkpoint was recorded"
            if len(run.step) < 2
            else "the output law is not one of memspace's"
            if law is None
            else "the probe's outputs were too large to be kept"
        )
        absent = Unmeasured("action.length", why, AGAIN)
        return Chapter("path", title, question, f"Not measured: {why}.", (), (absent,))
    y, stacked = _checked(found, outputs)
    weight = law.weight(stacked[0], y)
    path = walk(law, stacked, weight)
    ends = squared_distances(law, stacked[0], stacked[-1], weight)
    readings = readings_along(law, stacked, run.step, weight, run.one_step)
    measured, missing = lengths(path, None, ends, len(stacked), readings)
    loss = torch.stack([law.nll(x, y).reshape(len(y), -1).sum(1) for x in stacked])
    measured.append(bought(loss))
    if all(b > a for a, b in itertools.pairwise(run.time)):
        measured.append(clocked_action(path, readings, run.time, len(stacked)))
    else:
        still = "the learning rates were not told, or none was positive between two checkpoints"
        missing.append(Unmeasured("action.learning_rate_time", still, "attach the optimiser, or run.step(rate=...)"))
    by = {m.name: m.value for m in measured}
    length, drop = by.get("action.drift_length", by["action.length"]), by["action.loss_bought"]
    answer = f"{drop:.3g} nats of loss bought along a path of {length:.3g} nats^½"
    answer += f", {by['action.inefficiency']:.1f} times the shortest." if "action.inefficiency" in by else "."
    findings = _faults(found)
    steps = [max(s, 0.5) for s in run.step]
    travelled = [0.0, *torch.cumsum(path.steps, 0).tolist()]
    direct = [float(squared_distances(law, stacked[0], x, weight).mean().sqrt()) for x in stacked]
    figure = Figure(
        "checkpoints",
        "Along the checkpoints",
        "Length of the path so far, and the distance from where it began: where the two part, training turns.",
        "optimiser step",
        "nats^½",
        (Series("travelled", steps, travelled), Series("from the start", steps, direct)),
        "log",
    )
    return Chapter("path", title, question, answer, tuple(measured), tuple(missing), findings, (figure,))


def _checked(found: Recording, outputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and outputs (S, n, ..., C), which a damaged folder may hold of several shapes."""
    try:
        y, stacked = found.labels(), torch.stack(list(outputs)).double()
        assert found.law is not None
        found.law.check(stacked[0], y, str(found.folder))
    except (RuntimeError, MemspaceError) as error:
        raise RunFolderError(
            "the recorded training is damaged: outputs and labels of its probe do not fit each other",
            where=str(found.folder),
            remedy="record it again, or restore the folder",
        ) from error
    return y, stacked


def _faults(found: Recording) -> tuple[Finding, ...]:
    if not found.index["fault"]:
        return ()
    what = str(found.index["fault"])
    return (Finding("warn", "The recording is not complete", what, "Record again where the rest matters.", "path"),)


def _live(found: Recording) -> Chapter:
    """The numbers of the looks: the last that was measured of each, and how they went."""
    looks, n = found.looks, int(found.index["probe"]["examples"])
    title, question = "Live numbers", "What was seen while it ran?"
    if not looks.get("step"):
        reason = Unmeasured("watch", "the table of looks is missing", AGAIN)
        return Chapter("live", title, question, "Not measured: the table of looks is missing.", (), (reason,))
    measured, absent = [], []
    for live in LIVE:
        at = [k for k, v in enumerate(looks.get(live.column, ())) if v is not None and math.isfinite(v)]
        if not at:
            never = "it was not within the budget, or not resolved" if live.column != "action" else "no rates were told"
            absent.append(Unmeasured(live.name, never, AGAIN))
            continue
        step = looks["step"][at[-1]]
        late = "" if step == looks["step"][-1] else f"last measured at step {step:,.0f}"
        note = "; ".join(part for part in (late, live.doubt or "of the probe alone, so without an interval") if part)
        examples = int(found.index.get("slope_examples") or n) if live.column == "excess" else n
        how = live.how.format(ruler=found.index["settings"]["spacing"])
        value = looks[live.column][at[-1]]
        measured.append(Measurement(live.name, value, live.unit, how, examples, None, "", not live.doubt, note))
    length = next((m.value for m in measured if m.name == "watch.length"), math.nan)
    answer = (
        f"A length of {length:.3g} nats^½ after {looks['step'][-1]:,.0f} steps, seen in {len(looks['step']):,} looks."
    )
    return Chapter("live", title, question, answer, tuple(measured), tuple(absent), (), _figures(looks))


def _figures(looks: Any) -> tuple[Figure, ...]:
    step = [max(s, 0.5) for s in looks["step"]]

    def series(name: str, column: str, change: Any = lambda v: v) -> Series | None:
        at = [k for k, v in enumerate(looks.get(column, ())) if v is not None and math.isfinite(v)]
        return Series(name, [step[k] for k in at], [change(looks[column][k]) for k in at]) if len(at) > 1 else None

    def figure(id: str, title: str, caption: str, unit: str, every: Sequence[Series | None]) -> Figure | None:
        drawn = tuple(s for s in every if s is not None)
        return Figure(id, title, caption, "optimiser step", unit, drawn, "log") if drawn else None

    found = (
        figure(
            "course",
            "Length and loss",
            "Length by the ruler and training loss on the probe, look by look.",
            "nats^½, nats",
            (series("length (nats^½)", "length"), series("training loss (nats)", "probe_loss")),
        ),
        figure(
            "single",
            "Length of single steps",
            "Fisher–Rao length of one optimiser step; what does not fall with the slope is the noise of the gradient.",
            "nats^½",
            (series("one step", "single_step_squared", math.sqrt),),
        ),
        figure(
            "fullness",
            "How much the network holds",
            "Effective dimension by KFAC on the probe.",
            "parameters",
            (series("effective dimension", "effective_dimension"),),
        ),
        figure(
            "gap",
            "Generalisation and excess",
            "Leave-one-out loss less training loss, and action spent beyond the loss bought.",
            "nats",
            (series("leave-one-out gap", "leave_one_out_gap"), series("action excess", "excess")),
        ),
    )
    return tuple(f for f in found if f is not None)
