"""``memspace.watch``: start recording a training."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from memspace.arguments import described, typed
from memspace.errors import RunFolderError, SettingsError, WorkerError
from memspace.passes.processes import current
from memspace.recorder.budget import TimeBudget
from memspace.recorder.early import EarlyGaps, Forecast
from memspace.recorder.probe import WatchProbe, open_probe, same_random
from memspace.recorder.recorder import Recorder
from memspace.recorder.settings import WatchSettings
from memspace.recorder.sinks import as_sinks
from memspace.recorder.slow import EVALUATIONS, slow_readers
from memspace.recorder.trajectory import Trajectory
from memspace.task.data import Data
from memspace.task.likelihood import Categorical, Likelihood, law_to_dict
from memspace.task.plain import own_name
from memspace.task.recording import Recording, load_recording

__all__ = ["watch"]

PARTS = {"probe": 0.5, "file": 0.2, "slope": 0.12, "fullness": 0.12, "tell": 0.06}


@typed
def watch(
    model: nn.Module,
    train: Any,
    optimizer: Optimizer | Iterable[Optimizer] | None = None,
    *,
    likelihood: Likelihood | None = None,
    out: str | Path | None = "runs/watch",
    to: Any = (),
    resume: bool | int | None = None,
    expect: Any = None,
    settings: WatchSettings | None = None,
) -> Recorder:
    """Record a training while it runs: a trajectory on disk, live numbers; the training itself is not changed.

    The weights come out bit for bit as without it: predictions are read in eval mode and every mode, gradient and
    random state is put back. It costs a few per cent of the training's time (``settings.budget``).

    Args:
        model: what is trained, with its wrappers (compiled, DDP); its output is one row of outputs per example, or an
            object with ``logits``.
        train: its training data, as for :func:`memspace.audit`; a few examples are drawn, once.
        optimizer: whose steps are followed by a hook; without one call ``run.step(rate=...)`` after each step.
        likelihood: the output law; Categorical by default. ``Gaussian()`` stands for σ = 1 here, so that one metric
            holds along the whole path: lengths, ``spacing`` too, are then in the targets' unit. An audit fits σ to
            the trained network and states lengths divided by it; give ``Gaussian(sigma=...)`` to both and they agree.
        out: folder of the trajectory, read by ``memspace.load_run``; None keeps nothing.
        to: where live numbers go: ``"terminal"``, a TensorBoard SummaryWriter, the mlflow module, a function, several.
        resume: what to do where ``out`` holds a trajectory: True goes on from its last checkpoint, a number from that
            optimiser step, False begins again, None refuses.
        expect: a :class:`memspace.GapForecast`, by which the gap at the end of the training is told on the way, at the
            shares of it that calibrations are of. A reading takes seconds that the budget does not limit.
        settings: probe, checkpoints, spacing, budget.

    Returns:
        the recorder; use it as a context, or call ``close()`` after the last step. Where processes of a
        ``torch.distributed`` group train together, the first one records and the others' recorders do nothing.

    Raises:
        MemspaceError: what cannot be followed, before the training begins, in one sentence.
        RunFolderError: ``out`` holds another recording, or is empty.
        WorkerError: inside ``memspace.across``.
    """
    began = time.perf_counter()
    settings, law = settings or WatchSettings(), (likelihood or Categorical()).trained_with
    if current().size > 1:
        raise WorkerError(
            "a training cannot be watched inside memspace.across",
            where="memspace.watch",
            remedy="call it outside: the first process records alone",
        )
    if dist.is_available() and dist.is_initialized() and dist.get_rank() > 0:
        return Recorder(None, None, TimeBudget(settings.budget, PARTS), settings)
    if out == "":
        raise RunFolderError(
            "out is empty", where="memspace.watch", remedy="name a folder, or give None to keep nothing"
        )
    if expect is not None:
        _check_forecast(expect, law)
    sinks = as_sinks(to)
    folder = None if out is None else Path(out)
    recording = None if folder is None else _earlier(folder, resume)
    probe = open_probe(model, train, law, settings.probe, settings.seed)
    trajectory, earlier = None, None
    slope, fullness = (slow_readers(probe) if settings.slow else None) or (None, None)
    if folder is not None:
        about = _about(model, probe, settings, 0 if slope is None else slope.count)
        trajectory = Trajectory(folder, about, settings.spacing, settings.checkpoints)
        if recording is not None:
            earlier = _gone_on(trajectory, recording, resume)
    settle = _settle(probe.device)
    budget = TimeBudget(settings.budget, PARTS, settle=settle)
    evaluated = time.perf_counter()
    probe.outputs()
    settle()
    evaluated = time.perf_counter() - evaluated
    budget.guess("probe", 2 * evaluated)
    if slope is not None and fullness is not None:
        budget.guess("slope", slope.guess * evaluated)
        budget.guess("fullness", EVALUATIONS * evaluated + fullness.seconds)
    early = None
    if expect is not None:
        with same_random():
            early = EarlyGaps(expect, probe, Data(train, "training data"), _told_before(recording, earlier))
    run = Recorder(probe, trajectory, budget, settings, sinks=sinks, slope=slope, fullness=fullness, early=early)
    run.begin(earlier)
    if optimizer is not None:
        run.attach(optimizer)
    budget.start(time.perf_counter() - began)
    return run


def _check_forecast(expect: Any, law: Likelihood) -> None:
    """Refuse, before the training begins, what could never be told."""
    if not isinstance(expect, Forecast) or isinstance(expect, type):
        what, remedy = f"expect is {described(expect)}", "give memspace.GapForecast(CALIBRATION, planned=STEPS)"
        raise SettingsError(what, where="memspace.watch", remedy=remedy)
    expect.check(law)


def _earlier(folder: Path, resume: bool | int | None) -> Recording | None:
    """The trajectory to go on from, where there is one and it is wanted; one that is not wanted is taken away."""
    if not Trajectory.exists(folder):
        return None
    if resume is None:
        raise RunFolderError(
            "a recorded training lies there already",
            where=str(folder),
            remedy="go on with it by resume=True, replace it by resume=False, or choose another out",
        )
    if resume is False:
        Trajectory.remove(folder)
        return None
    return load_recording(folder)


def _gone_on(
    trajectory: Trajectory, recording: Recording, resume: bool | int | None
) -> tuple[Tensor, dict[str, float | None]] | None:
    end = trajectory.go_on(recording, None if isinstance(resume, bool) else resume)
    f = recording.outputs(recording.run.step.index(end))
    if f is None:
        raise RunFolderError(
            "the probe's outputs were too large to be kept, so that the recording cannot go on",
            where=str(trajectory.folder),
            remedy="choose another out",
        )
    row = {c: column[-1] for c, column in trajectory.rows.items() if column}
    return f, {c: None if v != v else v for c, v in row.items()} | {"step": float(end)}


def _told_before(
    recording: Recording | None, earlier: tuple[Tensor, dict[str, float | None]] | None
) -> list[dict[str, Any]] | None:
    """What was told of the gap up to the checkpoint that is gone on from; None where the training begins."""
    if recording is None or earlier is None:
        return None
    rows: list[dict[str, Any]] = recording.index.get("expected_gap", [])
    return [row for row in rows if row["step"] <= (earlier[1]["step"] or 0)]


def _about(model: nn.Module, probe: WatchProbe, settings: WatchSettings, sloped: int) -> dict[str, Any]:
    return {
        "model": type(model).__name__,
        "parameters": {own_name(n): list(p.shape) for n, p in model.named_parameters()},
        "law": law_to_dict(probe.law),
        "probe": {"examples": len(probe.batch), "of": probe.of, "fingerprint": probe.fingerprint()},
        "settings": {"spacing": settings.spacing, "checkpoints": settings.checkpoints, "every": settings.every},
        "slope_examples": sloped,
        "finished": False,
        "fault": "",
        "timed": False,
        "seconds": {},
    }


def _settle(device: torch.device) -> Any:
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None
