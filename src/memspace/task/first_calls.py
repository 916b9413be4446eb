"""The calls of a network when its task is made, and what its checks need not call again.

Most networks take one tensor, give one row of outputs an example and pass every check. For these

* a batch of examples from all over the data goes through once without gradients, in the user's own precision and
  kernels (``used``),
* one of them goes through alone, as passes read (``alone``), and
* the batch goes through once more as passes read, when the task is checked (see ``checks.check_task``).

The first and the third must agree bit for bit: then the network repeats itself, and has the same outputs with and
without gradients. The second must agree with its row: then an example's outputs do not depend on its batch, and the
network takes a single example. Where any of this fails, the checks go step by step instead and name the fault.
What was observed when the task was made counts only where the third call gives the very same outputs.

For all other networks :func:`other_outputs` compares outputs with and without gradients on a few examples.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from memspace.task.data import Data, call_model, move
from memspace.task.layout import Layout, Signature, layouts
from memspace.task.observed import Observation, observed
from memspace.task.reading import OutputReading
from memspace.task.restored import restored, written
from memspace.task.samplers import same_draws

if TYPE_CHECKING:
    from memspace.task.task import Task

__all__ = [
    "ATTENTION",
    "FirstCalls",
    "alone_of",
    "as_used",
    "called_alone",
    "called_first",
    "first_calls_of",
    "near",
    "other_outputs",
]

FEW, MANY = 4, 16  # examples whose outputs with and without gradients are compared; more where padding may be rare
FIRST, SPREAD = 4, 7  # examples at the beginning and at the end, and drawn from all
OTHER = 20_241  # a seed that nobody's draws begin with: a network that draws must not draw the same again
ATTENTION = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)  # fused without gradients


@dataclass(frozen=True)
class FirstCalls:
    """What a plain network did when its task was made.

    Args:
        index: training examples of the batch in its order, the first example among them.
        test: how many of the first test examples come after them.
        used: outputs of the batch without gradients, otherwise as in the user's own process.
        alone: the first training example by itself, as passes read; None before it was called.
    """

    index: Tensor
    test: int
    used: Tensor
    alone: Observation | None = None

    @property
    def at(self) -> int:
        """The row of the first training example in the batch."""
        return int((self.index == 0).nonzero()[0])

    @property
    def train(self) -> Tensor:
        """``used`` of the training examples."""
        return self.used[: len(self.index)]

    def read_by(self, reading: OutputReading) -> FirstCalls:
        """Return the same calls with their outputs read in another way.

        Args:
            reading: of the outputs.

        Returns:
            New calls; ``alone`` stays as it is.
        """
        return replace(self, used=reading.of(self.used))

    def batch(self, task: Task) -> Tensor:
        """Read the batch's inputs again.

        Args:
            task: the task that was made.

        Returns:
            The inputs (B, ...), on the task's device and in its dtype.
        """
        parts = [task.train.inputs(self.index)]
        if self.test and task.test is not None:
            parts.append(task.test.inputs(torch.arange(self.test)))
        x = move(torch.cat(parts), task.device, task.dtype)
        assert isinstance(x, Tensor)
        return x


def first_calls_of(task: Task) -> FirstCalls | None:
    """Return what the task's network did when the task was made.

    Args:
        task: any.

    Returns:
        The calls; None where the network is not plain.
    """
    return getattr(task, "_first_calls", None)


def alone_of(task: Task) -> Observation | None:
    """Return what the task's network did with one example when the task was made.

    Args:
        task: any.

    Returns:
        The observation; None where the network could not be called.
    """
    return getattr(task, "_alone", None)


def called_first(
    model: nn.Module, train: Data, test: Data | None, dtype: torch.dtype, device: torch.device
) -> FirstCalls | None:
    """Run a plain network on examples from all over its data.

    Args:
        model: the network.
        train: training data.
        test: test data, if any.
        dtype: of floating inputs.
        device: of the network.

    Returns:
        The calls, ``alone`` not yet among them; None where network or data are not plain.
    """
    weights = (*model.parameters(), *model.buffers())
    if any(t.is_meta or t.is_inference() for t in weights) or any(isinstance(m, ATTENTION) for m in model.modules()):
        return None
    if hasattr(type(model), "_adapter") or len(train) < 2:
        return None
    index = _spread(len(train))
    few = torch.arange(min(FIRST, len(test)) if test is not None else 0)
    try:
        with torch.inference_mode(False), torch.no_grad():
            parts = [_plain_inputs(model, train, index, dtype)]
            if test is not None:
                parts.append(_plain_inputs(model, test, few, dtype))
            if len({(p.shape[1:], p.dtype) for p in parts}) > 1:
                return None
            x = move(torch.cat(parts), device, dtype)  # memory of its own
            version, changed = x._version, written(model)
            with as_used(model):
                f = call_model(model, x)
                if x._version != version or changed():
                    return None
    except Exception:  # whatever a network or data raise is found out step by step
        return None
    if not isinstance(f, Tensor) or f.dim() not in (1, 2) or len(f) != len(x) or not f.is_floating_point():
        return None
    return FirstCalls(index, len(few), f)


def called_alone(task: Task) -> Observation | None:
    """Run the network on the first training example alone, as passes read it.

    The observation is kept with the task, for ``memspace.passes.profile``; with ``first_calls_of(task)``, too.

    Args:
        task: being made.

    Returns:
        The observation; None where the network refuses that.
    """
    from memspace.task.checks import untouched  # which knows the task

    try:
        x = move(task.train.inputs([0]), task.device, task.dtype)
        with untouched(task.model):
            alone = observed(task.model, x)
    except Exception:  # the checks name it
        alone = None
    first = first_calls_of(task)
    object.__setattr__(task, "_alone", alone)
    object.__setattr__(task, "_first_calls", None if first is None or alone is None else replace(first, alone=alone))
    return alone


def other_outputs(task: Task) -> str:
    """Say where the model, in eval mode without gradients, gives other outputs than memspace reads.

    Padded positions come out of ``nn.TransformerEncoder`` as zeros then, or are cut off, so that what is pooled over
    them changes. A plain network whose outputs agreed to rounding when the task was made is not called again.

    Args:
        task: being made.

    Returns:
        One sentence; empty where the outputs agree to rounding, or cannot be had.
    """
    first = first_calls_of(task)
    if first is not None and first.alone is not None and near(first.used[first.at :][:1], first.alone.f):
        return ""
    from memspace.task.checks import untouched  # which knows the task

    attends = any(isinstance(m, ATTENTION) for m in task.model.modules())
    count, most = len(task.train), MANY if attends else FEW
    index = torch.linspace(0, count - 1, min(most, count)).round().long()
    try:
        batch = task.train.batch(index)
        x = move(batch.x, task.device, task.dtype)
        with torch.enable_grad(), untouched(task.model):
            read = call_model(task.model, x).detach()
        with torch.no_grad(), as_used(task.model):
            used = call_model(task.model, x)
            counts = task.likelihood.weight(read, move(batch.y, task.device)) > 0
        difference = _apart(read, used, counts)
    except Exception:  # whatever is wrong with the user's model or data is named by the check
        return ""
    if not difference:
        return ""
    if not attends:
        return f"the model without gradients gives {difference}: here it runs in full precision, without fused kernels"
    return (
        f"the model in eval mode without gradients gives {difference}: torch's fused attention empties or cuts off "
        "padded positions there. The outputs read are those with gradients, as in training; "
        "torch.backends.mha.set_fastpath_enabled(False) gives these everywhere"
    )


def near(a: Tensor, b: Tensor) -> bool:
    """Tell whether two readings of the same outputs agree to rounding, far below what any check reports.

    Args:
        a: outputs, any shape.
        b: outputs to compare with.

    Returns:
        True where shapes and dtypes are equal and no entry differs by more than 100 ε of the largest.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    allowed = 100 * torch.finfo(a.dtype).eps * max(1.0, float(a.abs().max()))
    return bool(((a - b).abs() <= allowed).all())


@contextmanager
def as_used(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode and change nothing else: kernels and precision are the user's own.

    Draws inside begin from a random state of their own, and move nobody else's.

    Args:
        model: the network.

    Yields:
        Nothing.
    """
    modes = [(module, module.training) for module in model.modules()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with same_draws(), torch.random.fork_rng(devices=devices), restored(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nested tensors are a prototype
        torch.default_generator.manual_seed(OTHER)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(OTHER)
        random.seed(OTHER)
        np.random.seed(OTHER)  # noqa: NPY002 - the user's model may draw from it
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, training in modes:
                module.training = training


def _spread(n: int) -> Tensor:
    """Draw from all positions, with the first and the last, none twice."""
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:SPREAD].tolist()
    ends = [*range(min(FIRST, n)), *range(max(0, n - FIRST), n)]
    return torch.tensor(list(dict.fromkeys([*(i for i in drawn if i), *ends])))


def _plain_inputs(model: nn.Module, data: Data, index: Tensor, dtype: torch.dtype) -> Tensor:
    """Return inputs that are one tensor in memory, next to one label.

    Raises:
        TypeError: they are not.
    """
    raw = data.raw(index)
    plain = not data.varies and layouts(raw, Signature.of(model), data.name) == [Layout()]
    x = data.read_as(Layout(), dtype).inputs(index) if plain else None
    if not isinstance(x, Tensor):
        raise TypeError("not one tensor of inputs, or read by the user's code")
    return x


def _apart(read: Tensor, used: Tensor, counts: Tensor) -> str:
    """Say how the outputs differ where they count; empty where they agree to rounding."""
    shape = tuple(read.shape[1:])
    if read.dim() > 2 and used.dim() == read.dim() and not bool(counts[:, used.shape[1] :].any()):
        read, counts = read[:, : used.shape[1]], counts[:, : used.shape[1]]  # cut off is nothing that counts
    if used.shape != read.shape:
        return f"outputs of shape {tuple(used.shape[1:])} an example instead of {shape}"
    allowed = 10 * math.sqrt(torch.finfo(read.dtype).eps) * max(1.0, float(read.abs().max()))
    off = ((used.to(read.dtype) - read).abs() * counts.unsqueeze(-1)).flatten(1).amax(1)
    count = int((off > allowed).sum())
    return f"other outputs (by up to {float(off.max()):.2g}, for {count} of {len(off)} examples)" if count else ""
