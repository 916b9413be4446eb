"""A callback for Lightning: ``Trainer(callbacks=[LightningWatch(data, out="runs/mine")])``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

from torch import nn

from memspace.errors import TaskError
from memspace.integrations.callback import WatchingCallback, WatchOptions

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise TaskError(
        "the Lightning callback needs the package lightning",
        where="memspace.integrations.lightning",
        remedy="pip install 'memspace[lightning]'",
    ) from error

__all__ = ["LightningWatch"]


class LightningWatch(WatchingCallback, Callback):
    """Records the training; see :func:`memspace.watch`, whose arguments these are.

    Args:
        train: training data; by default the dataset of the trainer's first training loader, which must give
            (input, label) pairs.
        model: ``model(module)`` gives the network whose forward has rows of outputs; by default the module itself.
        **options: ``likelihood``, ``out``, ``to``, ``resume``, ``settings``, as in ``watch``; see
            :class:`~memspace.integrations.callback.WatchOptions`.
    """

    def __init__(
        self,
        train: Any = None,
        *,
        model: Callable[[LightningModule], nn.Module] | None = None,
        **options: Unpack[WatchOptions],
    ) -> None:
        super().__init__(train, options)
        self._model = model

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, or go on where the trainer does; only the first process records.

        Args:
            trainer: Lightning's.
            pl_module: what is trained.
        """
        network = pl_module if self._model is None else self._model(pl_module)
        data = self._train if self._train is not None else _training_data(trainer)
        self._begin(network, data, trainer.optimizers, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last state.

        Args:
            trainer: Lightning's.
            pl_module: what is trained.
        """
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the state that was reached.

        Args:
            trainer: Lightning's.
            pl_module: what is trained.
            exception: what ended the training.
        """
        self._close()


def _training_data(trainer: Trainer) -> Any:
    loader = trainer.train_dataloader
    if isinstance(loader, dict | list | tuple):
        loader = next(iter(loader.values() if isinstance(loader, dict) else loader))
    if loader is None:
        raise TaskError(
            "there is no training loader to draw probe examples from", where="LightningWatch", remedy="give train="
        )
    return loader
