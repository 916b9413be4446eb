"""A callback for Lightning: ``Trainer(callbacks=[LightningWatch(data, out="runs/mine")])``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from memspace.errors import TaskError
from memspace.recorder.recorder import Recorder, WatchSettings
from memspace.recorder.watch import watch
from memspace.task.likelihood import Likelihood

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise TaskError(
        "the Lightning callback needs the package lightning",
        where="memspace.integrations.lightning",
        remedy="pip install 'memspace[lightning]'",
    ) from error

__all__ = ["LightningWatch"]


class LightningWatch(Callback):
    """Records the training; see :func:`memspace.watch`, whose arguments these are.

    Args:
        train: training data; by default the dataset of the trainer's first training loader, which must give
            (input, label) pairs.
        model: ``model(module)`` gives the network whose forward has rows of outputs; by default the module itself.
        likelihood, out, to, settings: as in ``watch``.
        resume: where the trainer goes on from a checkpoint, the recording goes on from that step unless this is False.
    """

    def __init__(
        self,
        train: Any = None,
        *,
        model: Callable[[LightningModule], nn.Module] | None = None,
        likelihood: Likelihood | None = None,
        out: str | Path | None = "runs/watch",
        to: Any = (),
        resume: bool | None = None,
        settings: WatchSettings | None = None,
    ) -> None:
        self._train, self._model, self._resume = train, model, resume
        self._options: dict[str, Any] = {"likelihood": likelihood, "out": out, "to": to, "settings": settings}
        self.run: Recorder | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, or go on where the trainer does; only the first process records."""
        network = pl_module if self._model is None else self._model(pl_module)
        data = self._train if self._train is not None else _training_data(trainer)
        resume: bool | int | None = self._resume
        if trainer.global_step > 0 and resume is not False:
            resume = trainer.global_step
        self.run = watch(network, data, trainer.optimizers, resume=resume, **self._options)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last state."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the state that was reached."""
        self._close()

    def _close(self) -> None:
        if self.run is not None:
            self.run.close()


def _training_data(trainer: Trainer) -> Any:
    loader = trainer.train_dataloader
    if isinstance(loader, dict | list | tuple):
        loader = next(iter(loader.values() if isinstance(loader, dict) else loader))
    if loader is None:
        raise TaskError(
            "there is no training loader to draw probe examples from", where="LightningWatch", remedy="give train="
        )
    return loader
