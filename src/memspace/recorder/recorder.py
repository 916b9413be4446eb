"""The recorder: told after every optimiser step, evaluates the probe when it can afford to, keeps what moved far.

How far is measured by what the network predicts on a fixed probe, so that checkpoints lie evenly along the path and not
along the clock: a plateau of a thousand steps costs none. Nothing that goes wrong here ends the training: it is said
once, and the training goes on without.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from memspace.errors import Interrupted, MemspaceError, NonFiniteError, TaskError
from memspace.geometry.distance import squared_distances
from memspace.recorder.budget import TimeBudget
from memspace.recorder.early import EarlyGap, EarlyGaps
from memspace.recorder.numbers import Numbers
from memspace.recorder.optimisers import name_of, rate_of
from memspace.recorder.probe import WatchProbe
from memspace.recorder.ruler import Ruler
from memspace.recorder.settings import WatchSettings
from memspace.recorder.sinks import Sink
from memspace.recorder.slow import Fullness, FullnessReader, SlopeBudget, SlopeReader
from memspace.recorder.trajectory import Trajectory

__all__ = ["Recorder"]

PAIRED = 4  # every so many evaluations another follows at the very next step
TOLD = 0.5  # seconds between two tellings of a sink
SAVED = 30.0  # seconds after which the table is written although no checkpoint was


class Recorder:
    """One training being recorded; made by :func:`memspace.watch`, closed by ``close()`` or at the end of ``with``.

    Args:
        probe: the examples followed; None records nothing.
        trajectory: what is kept on disk; None keeps nothing.
        budget: what watching may cost.
        settings: how the training is watched.
        sinks: where live numbers go.
        slope: reads the slope of the loss, where it can be had.
        fullness: reads effective dimension and leave-one-out gap, where they can be had.
        early: tells the gap at the end of the training, where that was asked for.
    """

    def __init__(
        self,
        probe: WatchProbe | None,
        trajectory: Trajectory | None,
        budget: TimeBudget,
        settings: WatchSettings,
        *,
        sinks: tuple[Sink, ...] = (),
        slope: SlopeReader | None = None,
        fullness: FullnessReader | None = None,
        early: EarlyGaps | None = None,
    ) -> None:
        self._probe, self._trajectory, self._early = probe, trajectory, early
        self._budget, self._settings, self._sinks = budget, settings, list(sinks)
        self._slope = slope if slope is not None and slope.count else None
        self._fullness = fullness if fullness is not None and fullness.possible else None
        self._hooks: list[Any] = []
        self._optimisers: set[str] = set()
        self.fault: str | None = None  # why recording stopped, if it did
        self.steps = 0
        self._time: float | Tensor = 0.0
        self._timed = False
        self._before = (0, 0.0, 0.0)  # steps, time and seconds of the sessions gone on from
        self._evaluations, self._last_step, self._pair = 0, -1, False
        self._told: dict[int, float] = {}
        self._saved = 0.0
        self._closed = probe is None
        self._numbers: Numbers | None = None
        self._moved: tuple[float | None, float | None] = (None, None)
        self._excess: float | None = None
        self._full: Fullness | None = None

    # --- what the user calls -------------------------------------------------------------------------------------

    def attach(self, optimizer: Optimizer | Iterable[Optimizer]) -> Recorder:
        """Follow one optimiser's steps, or several's, by a hook; learning rates are then known.

        Args:
            optimizer: torch's, one or several.

        Returns:
            The recorder itself.

        Raises:
            TaskError: there is none, or something that is no torch optimiser.
        """
        several = list(optimizer) if isinstance(optimizer, Iterable) else [optimizer]
        if not several:
            raise TaskError(
                "there is no optimiser in what was given",
                where="optimizer",
                remedy="give a torch optimiser, or leave it out and call run.step(rate=...) after each step",
            )
        for one in several:
            if not isinstance(one, Optimizer):
                raise TaskError(
                    f"a {type(one).__name__} has no steps to follow",
                    where="optimizer",
                    remedy="give a torch optimiser, or call run.step(rate=...) after each step",
                )
            if not self._closed:
                self._hooks.append(one.register_step_post_hook(self._hook))
                self._optimisers.add(name_of(one))
        return self

    def step(self, rate: float | None = None) -> None:
        """Tell that the weights made a step, in a loop whose optimiser is not attached.

        Args:
            rate: its learning rate.

        Raises:
            TaskError: an optimiser is attached, and the step would count twice.
        """
        if self._hooks:
            raise TaskError("the optimiser is attached already", where="step()", remedy="call one of the two only")
        self._stepped(rate)

    def close(self) -> None:
        """Write the last state and the table; further steps are not recorded."""
        if self._closed:
            return
        self._closed = True
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self.fault is None:
            self._safely(self._finish)
        if self._trajectory is not None and self.fault is not None:
            with contextlib.suppress(MemspaceError):  # it was said why
                self._trajectory.save(fault=self.fault, **self._costs())
        for sink in self._sinks:
            if hasattr(sink, "close"):
                sink.close()

    @property
    def numbers(self) -> Numbers | None:
        """The latest live numbers."""
        return self._numbers

    @property
    def expected(self) -> tuple[EarlyGap, ...]:
        """What calibrations told of the gap at the end of the training so far, or why they did not."""
        return () if self._early is None else self._early.all

    @property
    def costs(self) -> dict[str, float]:
        """Seconds of ``training``, ``watching`` and ``expecting`` (the gap); ``share``: watching over training."""
        trained, spent = self._budget.trained, self._budget.spent
        costs = {"training": trained, "watching": spent, "share": spent / trained if trained > 0 else math.inf}
        return costs if self._early is None else costs | {"expecting": self._budget.unshared}

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- one step ------------------------------------------------------------------------------------------------

    def _hook(self, optimizer: Optimizer, args: Any, keywords: Any) -> None:
        self._stepped(rate_of(optimizer))

    def _stepped(self, rate: float | Tensor | None) -> None:
        if self._closed or self.fault is not None:
            return
        self.steps += 1
        if rate is not None:
            self._timed = True
            self._time = self._time + (rate.detach().double() if isinstance(rate, Tensor) else rate)
        if self._settings.every is None:
            self._budget.earn()
            # An evaluation at every power of two is on credit: the beginning of a training is where most happens.
            due = self._pair or self.steps & (self.steps - 1) == 0 or self._budget.affords("probe")
        else:
            due = self._pair or self.steps % self._settings.every == 0
        if due:
            self._safely(self._evaluate)
        if self._early is not None and self._early.due(self.steps):
            self._safely(self._expect)

    def _safely(self, work: Any) -> None:
        """Recording must not end a training: a failure is said once, and the recorder is silent from then on."""
        try:
            work()
        except Interrupted as error:
            raise KeyboardInterrupt from error
        except Exception as error:
            what = str(error) if isinstance(error, MemspaceError) else f"{type(error).__name__}: {error}"
            self.fault = f"not recorded from step {self.steps} on: {' '.join(what.split())}"
            warnings.warn(f"memspace: {self.fault} The training goes on.", RuntimeWarning, stacklevel=2)

    # --- one evaluation of the probe ----------------------------------------------------------------------------

    def begin(self, earlier: tuple[Tensor, dict[str, float | None]] | None = None) -> None:
        """Evaluate the probe first: at the initialisation, or where an earlier session ended.

        Args:
            earlier: what the last checkpoint kept predicts, and its row of the table.
        """
        assert self._probe is not None
        with self._budget.spending("probe"):
            f = self._outputs()
        weight = self._probe.weight(f)
        law, size = self._probe.law, self._settings.spacing
        count = 0 if self._slope is None else self._slope.count
        start, row = (f, {}) if earlier is None else (earlier[0].to(f), earlier[1])
        self._before = (int(row.get("step") or 0), row.get("time") or 0.0, row.get("seconds") or 0.0)
        self.steps, self._time, self._timed = self._before[0], self._before[1], bool(self._before[1])
        clock = float(self._time)
        travelled, action = row.get("length") or 0.0, row.get("action") if self.steps else 0.0
        self._path = Ruler(law, size, start, clock, weight=weight, length=travelled, action=action)
        part = None if weight is None else weight[:count]
        self._few = Ruler(law, size, f[:count], clock, weight=part) if count else None
        self._kept, self._previous = start, f
        if self._slope is not None:
            self._spent = SlopeBudget(self._slope.read(), float(self._probe.loss(f)[:count].mean()))
        if self._trajectory is not None:
            if earlier is None:
                self._trajectory.begin(self._probe.labels())
            self._row(f, None, None)
            with self._budget.spending("file"):
                if earlier is None:
                    self._trajectory.keep(self.steps, clock, self._probe.state(), f)
                else:
                    self._trajectory.save(finished=False, fault="")
            self._trajectory.tidy()
        self._last_step = self.steps

    def _outputs(self) -> Tensor:
        assert self._probe is not None
        f = self._probe.outputs().detach()
        if not bool(torch.isfinite(f).all()):
            raise NonFiniteError(
                "the network's outputs are NaN or infinite", where="probe examples", remedy="lower the learning rate"
            )
        return f

    def _evaluate(self, last: bool = False) -> None:
        probe, budget, fixed = self._probe, self._budget, self._settings.every is not None
        assert probe is not None
        with budget.spending("probe"):
            f = self._outputs()
            time = float(self._time)
            weight = probe.weight(f)
            if self.steps != self._last_step:  # the last one may be at a step evaluated already
                squared = float(squared_distances(probe.law, self._previous, f, weight).mean())
                self._moved = squared, squared if self.steps == self._last_step + 1 else None
            self._path.move(f, time)
            if self._few is not None:
                self._few.move(f[: self._slope.count if self._slope else 0], time)
            self._previous, self._last_step = f, self.steps
            self._evaluations += 1
            self._pair = not self._pair and self._evaluations % PAIRED == 0
            moved = float(squared_distances(probe.law, self._kept, f, weight).mean().sqrt())
        trajectory = self._trajectory
        far = trajectory is not None and moved >= trajectory.spacing
        lent = self.steps & (self.steps - 1) == 0  # at powers of two, as the evaluation itself
        keep = trajectory is not None and (last or (far and (fixed or lent or budget.affords("file"))))
        self._slow(f, at_will=fixed and keep, last=last)
        with budget.spending("probe"):
            self._row(f, *self._moved)
        if keep and trajectory is not None:
            with budget.spending("file"):
                self._path.move(f, time, fix=True)
                if last:
                    trajectory.save(finished=True, fault="", **self._costs())
                trajectory.keep(self.steps, time, probe.state(), f)
                self._kept, self._saved = f, budget.trained
        elif trajectory is not None and budget.trained - self._saved > SAVED and budget.affords("file"):
            with budget.spending("file"):
                trajectory.save(**self._costs())
                self._saved = budget.trained
        self._tell(last)

    def _slow(self, f: Tensor, at_will: bool, last: bool) -> None:
        """Readings that need gradients; the last evaluation takes them where all of it stays within the share."""
        budget, probe = self._budget, self._probe
        assert probe is not None
        self._excess = None

        def wanted(kind: str) -> bool:
            left = budget.share * budget.trained - budget.spent
            return at_will or (budget.cost[kind] <= left if last else budget.affords(kind))

        if self._slope is not None and self._few is not None and wanted("slope"):
            with budget.spending("slope"):
                now = self._slope.read()
                self._few.move(f[: self._slope.count], float(self._time), fix=True)
                self._spent.add(self._few.length, now, float(probe.loss(f)[: self._slope.count].mean()))
                self._excess = self._spent.excess
        if self._fullness is not None and wanted("fullness"):
            with budget.spending("fullness"):
                self._full = self._fullness.read()
                if self._full is None:
                    self._fullness = None
        else:
            self._full = None

    def _row(self, f: Tensor, squared: float | None, single: float | None) -> None:
        probe = self._probe
        assert probe is not None
        loss = probe.loss(f)
        length, time = self._path.length, float(self._time)
        self._numbers = Numbers(
            self.steps,
            time if self._timed else None,
            self._before[2] + self._budget.trained,
            float(loss.mean()),
            length,
            length**2 / 2,
            self._path.action if self._timed else None,
            self._excess,
            None if self._full is None else self._full.dimension,
            None if self._full is None else self._full.gap,
            None if self._early is None else self._early.latest,
        )
        if self._trajectory is not None:
            known = self._numbers.known()
            known["probe_loss"] = known.pop("loss")
            self._trajectory.add(
                known | {"step": self.steps, "time": time, "squared": squared, "single_step_squared": single}
            )

    def _tell(self, last: bool) -> None:
        numbers, budget = self._numbers, self._budget
        assert numbers is not None
        for k, sink in enumerate(list(self._sinks)):
            due = budget.trained - self._told.get(k, -TOLD) >= TOLD and budget.affords("tell")
            if not (due or last):
                continue
            self._told[k] = budget.trained
            try:
                with budget.spending("tell"):
                    sink(numbers)
            except Exception as error:
                self._sinks.remove(sink)
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                warnings.warn(
                    f"memspace: live numbers are no longer sent to {type(sink).__name__} ({reason}); the training goes "
                    "on.",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def _expect(self, last: bool = False) -> None:
        """Tell the gap to expect, and keep what was told at once."""
        assert self._early is not None
        with self._budget.asked():
            (self._early.end if last else self._early.tell)(self.steps, float(self._time))
            if self._trajectory is not None:
                self._trajectory.save(expected_gap=self._early.rows())

    # --- the end -------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        self._budget.earn()
        if self._early is not None:
            self._expect(last=True)
        self._evaluate(last=True)

    def _costs(self) -> dict[str, Any]:
        return {
            "seconds": {k: v for k, v in self.costs.items() if math.isfinite(v)},
            "timed": self._timed,
            "optimiser": " and ".join(sorted(self._optimisers)),
        }
