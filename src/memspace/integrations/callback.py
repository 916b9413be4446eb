"""What the callbacks of other people's trainers share: a recorder that begins, goes on and ends with the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from torch import nn

from memspace.recorder.recorder import Recorder
from memspace.recorder.settings import WatchSettings
from memspace.recorder.watch import watch
from memspace.task.likelihood import Likelihood

__all__ = ["WatchOptions", "WatchingCallback"]


class WatchOptions(TypedDict, total=False):
    """Arguments of :func:`memspace.watch` that a callback passes on.

    Args:
        likelihood: the output law.
        out: folder of the trajectory, ``runs/watch`` unless given; None keeps nothing.
        to: where live numbers go.
        resume: where the trainer goes on from a checkpoint, the recording goes on from that step unless it is False.
        settings: probe, checkpoints, spacing, budget.
    """

    likelihood: Likelihood | None
    out: str | Path | None
    to: Any
    resume: bool | None
    settings: WatchSettings | None


class WatchingCallback:
    """Holds the recorder of one training, in ``run`` once the training has begun.

    Args:
        train: training data; None: the trainer's own.
        options: what is passed on to :func:`memspace.watch`.

    Raises:
        TypeError: an option that is none of ``watch``'s.
    """

    def __init__(self, train: Any, options: WatchOptions) -> None:
        if unknown := options.keys() - WatchOptions.__annotations__.keys():
            raise TypeError(f"{type(self).__name__} got an unexpected argument {min(unknown)!r}")
        self._train = train
        self._resume = options.pop("resume", None)
        self._options: dict[str, Any] = {"out": "runs/watch", **options}
        self.run: Recorder | None = None

    def _begin(self, network: nn.Module, data: Any, optimisers: Any, step: int) -> None:
        """Begin to record, or go on where the trainer does, at an optimiser step."""
        resume = step if step > 0 and self._resume is not False else self._resume
        self.run = watch(network, data, optimisers, resume=resume, **self._options)

    def _close(self) -> None:
        """Write the state that was reached."""
        if self.run is not None:
            self.run.close()
