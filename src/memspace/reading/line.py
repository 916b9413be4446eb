"""The straight line from a baseline to an input: which of its tensors go along it, and which stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.reading.embedded import EmbeddingCall, embedding_calls, embeddings_of, reading_vectors
from memspace.reading.outcome import ExplainedOutcome
from memspace.task.data import Inputs, call_model, move, take
from memspace.task.task import Task
from memspace.task.tensors import leaves

__all__ = ["BASELINES", "InputLine", "line_of", "with_leaves"]

BASELINES = ("mean", "zero")
AVERAGED = 256  # training examples that a baseline is the mean of
MATCHED = 32  # training examples by which embeddings are found
MASK = "mask"  # inputs with this in their name stay


@dataclass(frozen=True)
class InputLine:
    """An input and the baseline that it is compared with.

    Args:
        task: the network.
        outcome: explained.
        x: the input, one example.
        names: of its tensors.
        sample: inputs of training examples.
        floats: tensor → its start and end (1, ...).
        calls: of embeddings that read whole numbers of the input.
        vectors: start and end (1, n, width) of every call.
        baseline: in words.
    """

    task: Task
    outcome: ExplainedOutcome
    x: Inputs
    names: tuple[str, ...]
    sample: Inputs
    floats: dict[int, tuple[Tensor, Tensor]]
    calls: tuple[EmbeddingCall, ...]
    vectors: tuple[tuple[Tensor, Tensor], ...]
    baseline: str

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.task.model

    @property
    def fixed(self) -> tuple[str, ...]:
        """Names of the tensors that stay as they are."""
        moving = set(self.floats) | {c.leaf for c in self.calls}
        return tuple(name for k, name in enumerate(self.names) if k not in moving)

    def value(self, f: Tensor) -> Tensor:
        """Compute the outcome of outputs.

        Args:
            f: (B, ..., C).

        Returns:
            (B,), float64.
        """
        return self.outcome.target.value(self.task.likelihood, f.double(), f.new_zeros(len(f)))

    def values(self, x: Inputs) -> Tensor:
        """Compute the outcome of inputs, without gradients.

        Args:
            x: B inputs.

        Returns:
            (B,), float64.
        """
        with torch.no_grad():
            return self.value(call_model(self.model, x))

    def along(self, alphas: Tensor) -> tuple[Tensor, dict[int, Tensor], list[Tensor]]:
        """Differentiate the outcome at points of the line.

        Args:
            alphas: (B,) from 0, the baseline, to 1, the input.

        Returns:
            outcomes (B,); gradients (B, ...) of every moving tensor of floats, and (B, n, width) of every call.
        """
        floats = {k: _between(start, end, alphas) for k, (start, end) in self.floats.items()}
        vectors = [_between(start, end, alphas) for start, end in self.vectors]
        tensors = [t.expand(len(alphas), *t.shape[1:]) for t in leaves(self.x)]
        for k, tensor in floats.items():
            tensors[k] = tensor + 0  # a leaf must not be written into
        with torch.enable_grad(), reading_vectors(self.calls, dict(enumerate(vectors))):
            q = self.value(call_model(self.model, with_leaves(self.x, tensors)))
            moving = [*floats.values(), *vectors]
            gradients = (
                torch.autograd.grad(q.sum(), moving, allow_unused=True) if q.requires_grad else [None] * len(moving)
            )
        filled = [torch.zeros_like(m) if g is None else g for g, m in zip(gradients, moving, strict=True)]
        return q.detach(), dict(zip(floats, filled[: len(floats)], strict=True)), filled[len(floats) :]


def _between(start: Tensor, end: Tensor, alphas: Tensor) -> Tensor:
    """Points of a line (B, ...), ready to be differentiated by."""
    weight = alphas.to(end).reshape(-1, *[1] * (end.dim() - 1))
    return (start + weight * (end - start)).detach().requires_grad_()


def line_of(task: Task, outcome: ExplainedOutcome, baseline: str) -> InputLine:
    """Draw the line from a baseline to the input of an outcome.

    Args:
        task: the network, in eval mode, and its data.
        outcome: explained.
        baseline: ``mean`` of training examples, of vectors over all their tokens too; or ``zero``.

    Returns:
        the line; an input that is longer or shorter than the training examples starts at zero.
    """
    x = move(outcome.data.batch([outcome.place]).x, task.device, task.dtype)
    count = min(AVERAGED, len(task.train))
    sample = move(task.train.inputs(range(count)), task.device, task.dtype)
    names, tensors, others = _names(x), leaves(x), leaves(sample)
    floats, zero = {}, baseline == "zero"
    for k, (name, tensor) in enumerate(zip(names, tensors, strict=True)):
        if not tensor.is_floating_point() or MASK in name:
            continue
        alike = others[k].shape[1:] == tensor.shape[1:]
        zero = zero or not alike
        start = others[k].mean(0, keepdim=True) if alike and baseline == "mean" else torch.zeros_like(tensor)
        floats[k] = start, tensor
    calls = embedding_calls(task.model, take(sample, slice(0, MATCHED)))
    ends = embeddings_of(task.model, calls, x) if calls else []
    starts = [torch.zeros_like(end) for end in ends]
    if calls and baseline == "mean":
        means = embeddings_of(task.model, calls, sample)
        starts = [
            _mean_vector(c, v, names, others).expand_as(end) for c, v, end in zip(calls, means, ends, strict=True)
        ]
    words = "zero" if zero else f"the mean of {count:,} training examples"
    if calls:
        of = "zero" if baseline == "zero" else f"the mean over {count:,} training examples"
        words = f"{words}; vectors of whole numbers: {of}" if floats else f"vectors of whole numbers: {of}"
    return InputLine(task, outcome, x, names, sample, floats, calls, tuple(zip(starts, ends, strict=True)), words)


def _mean_vector(call: EmbeddingCall, vectors: Tensor, names: Sequence[str], tensors: Sequence[Tensor]) -> Tensor:
    """The mean vector of training examples: over all places of tokens but padding, else of every place."""
    if not call.alike:
        return vectors.mean(0, keepdim=True)
    weight = vectors.new_ones(vectors.shape[:2])
    masks = [t for name, t in zip(names, tensors, strict=True) if MASK in name and t.shape == weight.shape]
    if masks:
        weight = (masks[0] != 0).to(weight)
    if call.module.padding_idx is not None:
        numbers = tensors[call.leaf].reshape(len(vectors), -1)[:, call.entries.to(vectors.device)]
        weight = weight * (numbers != call.module.padding_idx)
    if not bool(weight.any()):
        weight = torch.ones_like(weight)
    return (vectors * weight[..., None]).sum((0, 1), keepdim=True) / weight.sum()


def with_leaves(x: Inputs, tensors: Sequence[Tensor]) -> Inputs:
    """Put other tensors in the places of those of inputs.

    Args:
        x: inputs.
        tensors: as many as inputs have, in their order.

    Returns:
        inputs of the same structure.
    """
    rest = iter(tensors)

    def filled(part: Inputs) -> Inputs:
        if isinstance(part, Tensor):
            return next(rest)
        if isinstance(part, dict):
            return {k: filled(v) for k, v in part.items()}
        return tuple(filled(v) for v in part) if isinstance(part, list | tuple) else part

    return filled(x)


def _names(x: Inputs, before: str = "") -> tuple[str, ...]:
    """A name for every tensor of inputs: keys and places, ``input`` where there is one alone."""
    if isinstance(x, Tensor):
        return (before or "input",)
    parts = x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, list | tuple) else ()
    return tuple(n for k, v in parts for n in _names(v, f"{before}.{k}" if before else str(k)))
