"""What the last linear layer reads, of this network and of others of the same architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import provides
from memspace.measures.predictors.values import SEED, Predictions, Sisters, drawn_examples, predictions_of
from memspace.measures.representation import tapped
from memspace.measures.values import Budget
from memspace.task.checks import evaluating
from memspace.task.data import move
from memspace.task.functional import functional_call
from memspace.task.task import Task
from memspace.value import Absent

__all__ = ["Hidden", "LastLayer", "read_hidden", "sisters_of"]

EXAMPLES = 1024  # whose representations are read
ROWS = 2048  # of a representation that are compared with another network's
AGREED = 1e-3  # relative difference of the outputs from W h + b by which rounding explains it


@dataclass(frozen=True)
class Hidden:
    """A representation with the predictions made of it.

    Args:
        rows: (m, d) float64 on the CPU: of each prediction where the layer has one for each, else of each example.
        predictions: the predictions that count.
    """

    rows: Tensor
    predictions: Predictions


@dataclass(frozen=True)
class LastLayer:
    """The linear layer that makes the outputs, on some training examples.

    Args:
        weight: W (C, d), float64.
        hidden: (m, d) its input h at each prediction that counts, float64.
        predictions: outputs W h + b and labels of the same predictions.
    """

    weight: Tensor
    hidden: Tensor
    predictions: Predictions


def _cost(facts: Facts) -> Stage:
    return Stage("last layer's input", min(EXAMPLES, facts.n), 1, 0, 0, "margins and gradients at the last layer")


@provides(cost=_cost)
def last_layer(task: Task, budget: Budget) -> LastLayer | Absent:
    """Read the input of the last linear layer, where this layer makes the outputs."""
    linear = [m for m in task.model.modules() if isinstance(m, nn.Linear)]
    reason = "the outputs are not those of the last linear layer"
    remedy = "read a network that ends in a linear layer"
    if not linear:
        return Absent(reason, remedy)
    read = read_hidden(task, drawn_examples(len(task.train), EXAMPLES, budget.seed + SEED + 1))
    weight, bias = linear[-1].weight.detach().double().cpu(), linear[-1].bias
    h, f = read.rows, read.predictions.f
    if len(h) != len(f) or weight.shape != (f.shape[1], h.shape[1]):
        return Absent(reason, remedy)
    made = h @ weight.t() + (0.0 if bias is None else bias.detach().double().cpu())
    if float((made - f).abs().max()) > AGREED * float(f.abs().max()):
        return Absent(reason, remedy)
    return LastLayer(weight, h, read.predictions)


@torch.no_grad()
def read_hidden(
    task: Task, index: Tensor, state: Mapping[str, Tensor] | None = None, layer: str | None = None
) -> Hidden:
    """Read a layer on training examples, and the outputs.

    Args:
        task: the network.
        index: (n,) positions of the examples.
        state: weights and buffers that are used instead of the model's, which are not changed; None: the model's.
        layer: whose output is read; None: the input of the last linear layer.

    Returns:
        the representation of each prediction that counts, where the layer has one for each; else of each example.

    Raises:
        TaskError: there is no such layer.
    """
    replaced = {k: v.to(task.device) for k, v in (state or {}).items()}
    rows, fs, ys = [], [], []
    with evaluating(task.model), tapped(task.model, layer) as (signals, _):
        for part in task.train.batches(256, index):
            signals.clear()
            x = move(part.x, task.device, task.dtype)
            called = ((), x) if isinstance(x, dict) else (x if isinstance(x, tuple) else (x,), {})
            f = functional_call(task.model, replaced, *called)
            # A layer that is called once a step has its positions in as many signals.
            signal = signals[0] if len(signals) == 1 else torch.stack(signals, 1)
            by_position = f.dim() > 2 and signal.shape[:-1] == f.shape[:-1]
            rows.append((signal.flatten(0, -2) if by_position else signal.flatten(1)).double().cpu())
            fs.append(f.cpu())
            ys.append(part.y)
    f, y, h = torch.cat(fs), torch.cat(ys), torch.cat(rows)
    predictions = predictions_of(f, y, task.likelihood.weight(f, y))
    return Hidden(h[predictions.counted] if len(h) == len(predictions.counted) else h, predictions)


def sisters_of(task: Task, states: Sequence[Mapping[str, Tensor]], seed: int = 0) -> Sisters:
    """Read this network and others of its architecture on the same training examples.

    Args:
        task: this network; its ``layer`` is compared, by default the input of the last linear layer.
        states: state dicts of networks that were trained with other seeds, one or more.
        seed: of the draw of examples.

    Returns:
        at most 2,048 rows of every representation, and the outputs on the same examples.
    """
    index = drawn_examples(len(task.train), EXAMPLES, seed + SEED + 2)
    this = read_hidden(task, index, layer=task.layer)
    rows = drawn_examples(len(this.rows), ROWS, seed + SEED + 3)
    others = []
    for state in states:
        read = read_hidden(task, index, state, task.layer)
        others.append((read.rows[rows], read.predictions.f))
    return Sisters(this.rows[rows], this.predictions.f, tuple(others))
