"""The gap at the end of a training, told on the way: once at every moment that a calibration was made for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch

from memspace.attempt import attempt
from memspace.gap.model import GapPrediction
from memspace.measurement import Unmeasured
from memspace.recorder.probe import WatchProbe, reading, same_random
from memspace.task.data import Data
from memspace.task.likelihood import Likelihood
from memspace.task.run import Run
from memspace.task.task import Task

__all__ = ["EarlyGap", "EarlyGaps", "Forecast"]

NAME = "generalisation.predicted_gap"
MET = 1.15  # ratio of the steps at which a zoo keeps states, which a moment of its calibration is known to


@runtime_checkable
class Forecast(Protocol):
    """What tells the gap; :class:`memspace.GapForecast` does."""

    @property
    def moments(self) -> tuple[float, ...]:
        """Shares of the training at which it can be told."""

    @property
    def planned(self) -> int | None:
        """Optimiser steps of the whole training; None: not known."""

    def check(self, law: Likelihood) -> None:
        """Refuse, before the training begins, what can never be told.

        Args:
            law: the output law.
        """

    def told(self, task: Task, moment: float) -> GapPrediction:
        """Tell the gap by the network as it is now.

        Args:
            task: the network, all of its training data, and its training so far.
            moment: of ``moments``.

        Returns:
            The prediction for the end of the training.
        """


@dataclass(frozen=True)
class EarlyGap:
    """What was told at one moment.

    Args:
        moment: share of the training that the calibration is of.
        step: optimiser step.
        prediction: of the end; not reliable where the network is outside of the calibration, or the training turned
            out to be of another length than planned; None where there is none.
        reason: why not.
    """

    moment: float
    step: int
    prediction: GapPrediction | None
    reason: str = ""

    @property
    def text(self) -> str:
        """In a sentence without a full stop."""
        if self.prediction is None:
            return f"not told: {self.reason}"
        p, (low, high) = self.prediction, self.prediction.gap_interval
        text = f"a gap of {p.gap:.3g} nats ({low:.2g} to {high:.2g}), test loss {p.test_loss:.3g}: a {p.how}"
        return text if p.reliable else f"{text}; do not rely on it: {p.note}"

    def after(self, steps: int) -> EarlyGap:
        """Mark it as not reliable where it was told at another share of the training than it is calibrated for.

        Args:
            steps: that the training took.

        Returns:
            The same, or a doubted one.
        """
        why = _doubt(self.moment, self.step, steps)
        if self.prediction is None or not why:
            return self
        note = "; ".join(part for part in (self.prediction.note, why) if part)
        return replace(self, prediction=replace(self.prediction, reliable=False, note=note))

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            ``moment``, ``step``, ``text``, and ``prediction`` where there is one.
        """
        more = {} if self.prediction is None else {"prediction": self.prediction.to_dict()}
        return {"moment": self.moment, "step": self.step, "text": self.text, **more}


class EarlyGaps:
    """Tells the gap of the live network, each moment once.

    Args:
        forecast: by which calibrations, and how long the training will be.
        probe: the live model.
        data: all of the training data.
        earlier: rows of the session that is gone on from; None: the training begins. Measures that need the weights at
            its start are left out otherwise.
    """

    def __init__(
        self, forecast: Forecast, probe: WatchProbe, data: Data, earlier: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        self._forecast, self._probe, self._data = forecast, probe, data
        with reading(probe.model):
            state = probe.network().state_dict()
        self._start = {k: v.detach().clone() for k, v in state.items()} if earlier is None else None
        self._earlier = [dict(row["as_told"]) for row in earlier or () if "as_told" in row]
        self._steps: int | None = None  # of the whole training, once it is over
        planned = forecast.planned
        self._due = {max(1, round(m * planned)): m for m in forecast.moments if m < 1} if planned else {}
        self._told: list[EarlyGap] = []

    @property
    def all(self) -> tuple[EarlyGap, ...]:
        """What was told in this session, in order."""
        return tuple(one if self._steps is None else one.after(self._steps) for one in self._told)

    @property
    def latest(self) -> GapPrediction | None:
        """The last that was told."""
        return next((one.prediction for one in reversed(self.all) if one.prediction is not None), None)

    def due(self, step: int) -> bool:
        """Say whether the gap is to be told at a step.

        Args:
            step: of the optimiser.

        Returns:
            True at the step of a moment.
        """
        return step in self._due

    def tell(self, step: int, time: float) -> None:
        """Tell it now.

        Args:
            step: of the optimiser.
            time: learning-rate time.
        """
        self._told.append(self._read(self._due.pop(step), step, time))

    def end(self, step: int, time: float) -> None:
        """Tell what is told at the end, and say why the rest was not.

        Args:
            step: of the optimiser.
            time: learning-rate time.
        """
        self._steps = step
        planned = self._forecast.planned
        there = {one.moment for one in self._told} | {row["moment"] for row in self._earlier}
        for moment in (m for m in self._forecast.moments if m not in there):
            if moment == 1:
                self._told.append(self._read(moment, step, time))
                continue
            why = "it is not known how many steps the training takes; give memspace.GapForecast(..., planned=STEPS)"
            if planned is not None:
                why = f"no step at {moment:.0%} of the {planned:,} planned was recorded; {step:,} were taken"
            self._told.append(EarlyGap(moment, step, None, why))

    def rows(self) -> list[dict[str, Any]]:
        """List what was told, in this session and before.

        Returns:
            Plain JSON types; ``as_told`` is what a session that goes on from this one takes over: the training may come
            to its planned length in it.
        """
        rows = []
        for row in self._earlier:
            why = "" if self._steps is None else _doubt(row["moment"], row["step"], self._steps)
            rows.append(
                {**row, "text": f"{row['text']}; do not rely on it: {why}" if why else row["text"], "as_told": row}
            )
        for one, shown in zip(self._told, self.all, strict=True):
            again = {"as_told": one.to_dict()} if one.prediction is not None and one.moment < 1 else {}
            rows.append({**shown.to_dict(), **again})
        return rows

    def _read(self, moment: float, step: int, time: float) -> EarlyGap:
        def read() -> GapPrediction:
            with reading(self._probe.model), same_random(), torch.enable_grad():
                network = self._probe.network()
                states = None if self._start is None else (self._start, dict(network.state_dict()))
                run = None if states is None else Run(states, (0.0, time), (0, step))
                task = Task(network, self._data, likelihood=self._probe.law, run=run, name="watched")
                return self._forecast.told(task, moment)

        made = attempt(NAME, read)
        if isinstance(made, Unmeasured):
            return EarlyGap(moment, step, None, made.reason)
        return EarlyGap(moment, step, made)


def _doubt(moment: float, step: int, steps: int) -> str:
    """Why what was told at a step was not told at its moment of the training; empty where it was."""
    share = step / steps if steps else math.inf
    if moment == 1 or 1 / MET <= share / moment <= MET:
        return ""
    return f"it was told at {share:.0%} of the training and is calibrated for {moment:.0%}"
