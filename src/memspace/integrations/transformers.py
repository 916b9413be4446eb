"""A callback for the transformers Trainer: ``Trainer(callbacks=[TransformersWatch(out="runs/mine")])``."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor

from memspace.errors import DataError, TaskError
from memspace.integrations.callback import WatchingCallback, WatchOptions

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise TaskError(
        "the Trainer callback needs the package transformers",
        where="memspace.integrations.transformers",
        remedy="pip install 'memspace[transformers]'",
    ) from error

__all__ = ["TransformersWatch"]


class TransformersWatch(WatchingCallback, TrainerCallback):
    """Records the training; see :func:`memspace.watch`, whose arguments these are.

    Args:
        train: training data as (inputs, labels), the inputs a dict of tensors; by default ``examples`` items of the
            trainer's own training set, collated as it does, their ``labels`` taken out.
        examples: number of items to collate; the probe is drawn from them.
        shift: the model predicts the next token, so that labels are moved by one position; by default known by the
            model's class name (``...ForCausalLM``, ``...LMHeadModel``).
        **options: ``likelihood``, ``out``, ``to``, ``resume``, ``settings``, as in ``watch``; see
            :class:`~memspace.integrations.callback.WatchOptions`.
    """

    def __init__(
        self,
        train: Any = None,
        *,
        examples: int = 256,
        shift: bool | None = None,
        **options: Unpack[WatchOptions],
    ) -> None:
        super().__init__(train, options)
        self._examples, self._shift = examples, shift

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Begin, or go on where the trainer does; only the first process records.

        Args:
            args: the trainer's arguments.
            state: where the trainer is.
            control: not changed.
            **given: what the trainer adds: ``model``, ``optimizer``, ``train_dataloader``.
        """
        if not state.is_world_process_zero:
            return
        model, optimizer = given["model"], given["optimizer"]
        shift = self._shift
        if shift is None:
            shift = type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))
        data = self._train if self._train is not None else _training_data(given["train_dataloader"], self._examples)
        if shift and self._train is None:
            data = data[0], _next_tokens(data[1])
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper has one
        self._begin(model, data, inner, state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Write the last state.

        Args:
            args: the trainer's arguments.
            state: where the trainer is.
            control: not changed.
            **given: what the trainer adds.
        """
        self._close()


def _training_data(loader: Any, examples: int) -> tuple[dict[str, Tensor], Tensor]:
    """Evenly spaced items of a loader's dataset as one batch; the random state stays with the caller's loader."""
    dataset = getattr(loader, "dataset", None)
    if dataset is None or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise DataError(
            "probe examples cannot be drawn from a stream",
            where="TransformersWatch",
            remedy="give train=(inputs, labels)",
        )
    count = min(examples, len(dataset))
    with torch.random.fork_rng(devices=[]):
        batch = dict(loader.collate_fn([dataset[k * len(dataset) // count] for k in range(count)]))
    labels = batch.pop("labels", None)
    if not isinstance(labels, Tensor):
        raise DataError(
            "the training set's batches hold no labels", where="TransformersWatch", remedy="give train=(inputs, labels)"
        )
    return {k: v for k, v in batch.items() if isinstance(v, Tensor)}, labels


def _next_tokens(labels: Tensor) -> Tensor:
    """What each position is to predict: the label after it; nothing at the last."""
    return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], 1)
