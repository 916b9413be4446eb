"""What is audited: a model, its output law, its data, and known facts about its training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from memspace.arguments import check_fields, described
from memspace.errors import SettingsError
from memspace.limits import SIZE
from memspace.task.adapted import brought_together, with_adapter
from memspace.task.data import Data, move
from memspace.task.factors import Factors
from memspace.task.first_calls import called_alone, called_first, other_outputs
from memspace.task.gradients import constant_parameters
from memspace.task.likelihood import Categorical, Likelihood
from memspace.task.meaning import interpret
from memspace.task.metadata import guarded_show
from memspace.task.plain import HALF, plain, stored_dtypes
from memspace.task.recipe import Training
from memspace.task.refits import guarded_refit
from memspace.task.run import Run
from memspace.task.samplers import same_draws
from memspace.task.selection import as_patterns

__all__ = ["Run", "Task"]


@dataclass(frozen=True)
class Task:
    """A network to audit. Nothing in it is ever modified; the model is read in eval mode and left unchanged.

    Outputs and labels are read once when the task is made; see ``memspace.task.meaning`` and ``docs/your-data.md``.

    Args:
        model: any ``nn.Module`` whose output is ``(B, C)`` or ``(B, positions, C)``; a wrapped, sharded or
            half-precision one is replaced by a plain float32 one (see ``memspace.task.plain``).
        train: examples the network was trained on: (x, y) tensors or arrays, a Dataset, a DataLoader, an iterable;
            :class:`memspace.Data` says which part of them is input and which is label.
        likelihood: the output law.
        test: examples it was not trained on, if any.
        name: of the run folder and in the report's title.
        class_names: one per class; of labels that are strings, these in sorted order.
        input_shape: how to show an input as a picture, for example ``(8, 8)`` or ``(3, 32, 32)``.
        show: turns one input into text, for inputs that are not pictures.
        factors: inputs with known generating factors, for the disentanglement chapter.
        decay: the L2 coefficient γ of the mean training loss (γ/2·‖θ‖²), if known.
        run: recorded checkpoints of the training, if any.
        refit: ``refit(indices, seed) -> nn.Module``: trains a fresh network by the same recipe on those training
            examples only. Where given, the damping is calibrated on held-out examples.
        training: the training itself, where memspace can repeat it: many networks at once, with examples left out,
            reweighted or differentiated through. Gives ``refit`` where that is not given.
        true_labels: for experiments with corrupted labels: the labels before corruption, (N,).
        description: plain facts (settings) shown in the report.
        layer: the module whose output is the representation for the disentanglement chapter (default: the input of
            the last layer).
        parameters: shell patterns over names of the parameters to audit, for example ``"blocks.*.attn.*"``; one that
            begins with ``!`` excludes. Empty: all trainable ones. Parameters outside the selection are treated as
            frozen.
        shift_labels: the label of a position is the next position's, as causal language models of transformers have
            it. None: where inputs are a dict, labels equal its ``input_ids`` (or are -100) and no output depends on
            later tokens.

    Raises:
        SettingsError: a field has another type than it should, or is out of its range.
        TaskError: the model cannot be read.
        DataError: the data cannot be read.
        LabelError: outputs or labels can be read in two ways, or no example has a label.
    """

    model: nn.Module
    train: Data
    likelihood: Likelihood = field(default_factory=Categorical)
    test: Data | None = None
    name: str = "task"
    class_names: tuple[str, ...] | None = None
    input_shape: tuple[int, ...] | None = None
    show: Callable[[Any], str] | None = None
    factors: Factors | None = None
    decay: Annotated[float | None, SIZE] = None
    run: Run | None = None
    refit: Callable[[Tensor, int], nn.Module] | None = None
    training: Training | None = None
    true_labels: Tensor | None = None
    description: dict[str, str] = field(default_factory=dict)
    layer: str | None = None
    parameters: str | tuple[str, ...] = ()
    shift_labels: bool | None = None

    def __post_init__(self) -> None:
        check_fields(self, besides=("train", "test"))
        labels: Any = self.true_labels
        if labels is not None and not isinstance(labels, Tensor):
            what = f"true_labels is {described(labels)}, not a tensor"
            raise SettingsError(what, where="memspace.Task", remedy="give torch.as_tensor(...) of them")
        half = stored_dtypes(self.model)
        if half:
            names = " and ".join(str(d).removeprefix("torch.") for d in half)
            description = {"weights": f"stored in {names}, read in float32"} | self.description
            object.__setattr__(self, "description", description)
            if self.run is not None:
                object.__setattr__(self, "run", self.run.mapped(_float))
        object.__setattr__(self, "model", plain(self.model))
        object.__setattr__(self, "parameters", as_patterns(self.parameters))
        self._bring_together()
        object.__setattr__(self, "show", guarded_show(self.show))
        with same_draws():
            interpreted = interpret(self)
            alone = called_alone(self)
            other = other_outputs(self) if interpreted else ""
        if other:
            object.__setattr__(self, "description", self.description | {"outputs without gradients": other})
        constant = constant_parameters(self.model, alone)
        if constant:
            object.__setattr__(self, "description", {"held fixed": constant} | self.description)

    def _bring_together(self) -> None:
        parts = {"train": Data(self.train, "training data")}
        if self.test is not None:
            parts["test"] = Data(self.test, "test data")
        first = called_first(self.model, parts["train"], parts.get("test"), self.dtype, self.device)
        object.__setattr__(self, "_first_calls", first)
        for part, data in parts.items():
            both = brought_together(self.model, data, self.likelihood, self.dtype, self.device, first)
            object.__setattr__(self, part, both.data)
            object.__setattr__(self, "model", both.model)
            object.__setattr__(self, "training", with_adapter(self.training, both.adapter))
            if part == "train" and self.refit is not None:
                example = move(both.data.inputs([0]), self.device, self.dtype)
                object.__setattr__(self, "refit", guarded_refit(self.refit, example, both.shape))

    def data(self, source: Any, name: str) -> Data:
        """Read further examples as the model takes them.

        Args:
            source: anything :class:`memspace.Data` takes.
            name: of the data, for messages.

        Returns:
            The data.
        """
        return brought_together(self.model, Data(source, name), self.likelihood, self.dtype, self.device).data

    @property
    def device(self) -> torch.device:
        """Where the model's parameters live."""
        return next(self.model.parameters(), torch.empty(0)).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first trainable floating parameter; integers and 8-bit floats are another's storage."""
        kinds = (torch.float32, torch.float64, *HALF)
        trainable_first = sorted(self.model.parameters(), key=lambda p: not p.requires_grad)
        return next((p.dtype for p in trainable_first if p.dtype in kinds), torch.float32)


def _float(t: Tensor) -> Tensor:
    return t.float() if t.dtype in HALF else t
