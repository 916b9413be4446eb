"""What every entry of an input adds to an outcome: integrated gradients, or entries replaced one at a time.

Integrated gradients (Sundararajan et al. 2017) along the straight line from a baseline x₀ to x:
c_j = (x_j − x₀_j) ∫₀¹ ∂q/∂x_j dα. They add up to q(x) − q(x₀). The integral is by Gauss–Legendre quadrature, so what
the sum lacks is stated. Whole numbers go along the line by the vectors that an embedding reads for them, and their
contributions are summed over the vector's entries. Whole numbers that no embedding reads are replaced one at a time
by the most frequent value of their place; such differences need not add up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memspace.errors import TaskError
from memspace.reading.line import InputLine, line_of, with_leaves
from memspace.reading.outcome import ExplainedOutcome
from memspace.task.checks import untouched
from memspace.task.task import Task
from memspace.task.tensors import leaves

__all__ = ["INTEGRATED", "InputContributions", "LeafContributions", "read_contributions"]

INTEGRATED, REPLACED = "integrated gradients", "replacement"
FIRST, LAST = 32, 512  # points of the quadrature, doubled until the sum is complete
COMPLETE = 1e-3  # of the difference, or of the largest contribution, that the sum may lack
AT_ONCE, NUMBERS = 64, 2**24  # copies of the example in a batch; numbers in them
MOST = 4096  # entries replaced one at a time


@dataclass(frozen=True)
class LeafContributions:
    """The contributions of the entries of one input tensor.

    Args:
        name: of the input: its key, or its place.
        values: of one example, as the network reads them.
        contributions: of the same shape, float64, in the outcome's unit.
    """

    name: str
    values: Tensor
    contributions: Tensor

    @property
    def whole(self) -> bool:
        """Whether the entries are whole numbers, such as tokens."""
        return not self.values.is_floating_point()


@dataclass(frozen=True)
class InputContributions:
    """What the entries of an input add to an outcome.

    Args:
        method: ``integrated gradients`` or ``replacement``.
        tensors: with their contributions.
        fixed: names of inputs that were left as they are.
        baseline: in words.
        at: outcome of the input.
        at_baseline: outcome of the baseline.
        points: of the quadrature, or replacements.
        change: largest change of a contribution between half of the points and all of them; 0 of replacements.
    """

    method: str
    tensors: tuple[LeafContributions, ...]
    fixed: tuple[str, ...]
    baseline: str
    at: float
    at_baseline: float
    points: int
    change: float

    @property
    def sum(self) -> float:
        """Sum of all contributions."""
        return sum(float(t.contributions.sum()) for t in self.tensors)

    @property
    def missing(self) -> float:
        """What the sum lacks of the difference of outcomes."""
        return self.at - self.at_baseline - self.sum

    @property
    def largest(self) -> float:
        """Largest absolute contribution."""
        return max((float(t.contributions.abs().max()) for t in self.tensors if t.contributions.numel()), default=0.0)

    @property
    def complete(self) -> bool:
        """Whether the sum lacks at most a thousandth of the difference, or of the largest contribution."""
        return abs(self.missing) <= COMPLETE * max(abs(self.at - self.at_baseline), self.largest)


def read_contributions(task: Task, outcome: ExplainedOutcome, baseline: str = "mean") -> InputContributions:
    """Compute what every entry of an input adds to the outcome.

    Args:
        task: the network and its data.
        outcome: explained.
        baseline: ``mean`` of training examples, of vectors over all their tokens too; or ``zero``.

    Returns:
        the contributions.

    Raises:
        TaskError: the input has no entry that can be moved or replaced, or too many to replace.
    """
    with untouched(task.model):
        line = line_of(task, outcome, baseline)
        if not line.floats and not line.calls:
            return _replaced(line)
        points, before = FIRST, _integrated(line, FIRST // 2)
        while True:
            now = _integrated(line, points)
            pairs = zip(before.tensors, now.tensors, strict=True)
            change = max((float((a.contributions - b.contributions).abs().max()) for a, b in pairs), default=0.0)
            now = InputContributions(**{**now.__dict__, "change": change})
            if now.complete or points >= LAST:
                return now
            points, before = 2 * points, now


def _integrated(line: InputLine, points: int) -> InputContributions:
    """Integrated gradients with so many points."""
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(points))
    alphas, weights = (nodes + 1) / 2, weights / 2
    tensors = leaves(line.x)
    sums = {k: torch.zeros_like(end, dtype=torch.float64) for k, (_, end) in line.floats.items()}
    by_call = [torch.zeros_like(end, dtype=torch.float64) for _, end in line.vectors]
    numbers = sum(end.numel() for _, end in (*line.floats.values(), *line.vectors))
    step = max(1, min(AT_ONCE, NUMBERS // max(1, numbers)))
    for start in range(0, points, step):
        part = slice(start, start + step)
        _, gradients, of_calls = line.along(alphas[part])
        w = weights[part].to(tensors[0].device)
        for k, g in gradients.items():
            sums[k] += torch.tensordot(w, g.double(), 1)
        for mean, g in zip(by_call, of_calls, strict=True):
            mean += torch.tensordot(w, g.double(), 1)
    made = {k: (end - start).double() * sums[k] for k, (start, end) in line.floats.items()}
    for call, mean, (origin, end) in zip(line.calls, by_call, line.vectors, strict=True):
        if call.leaf not in made:
            made[call.leaf] = torch.zeros(tensors[call.leaf].shape, dtype=torch.float64, device=end.device)
        entries = call.entries.to(end.device)
        made[call.leaf].view(-1).index_add_(0, entries, ((end - origin).double() * mean).sum(-1)[0])
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    q, _, _ = line.along(ends)
    parts = tuple(LeafContributions(line.names[k], tensors[k][0].cpu(), made[k][0].cpu()) for k in sorted(made))
    return InputContributions(INTEGRATED, parts, line.fixed, line.baseline, float(q[1]), float(q[0]), points, 0.0)


def _replaced(line: InputLine) -> InputContributions:
    """Differences of the outcome when one entry takes the most frequent value of its place."""
    tensors, others = leaves(line.x), leaves(line.sample)
    free = [k for k, name in enumerate(line.names) if "mask" not in name and tensors[k][0].numel()]
    count = sum(tensors[k].numel() for k in free)
    if not free or count > MOST:
        raise TaskError(
            f"the input has {count:,} whole numbers that no nn.Embedding reads" if count else "the input has no entry",
            where="memspace.explain",
            remedy=f"entries are replaced one at a time, up to {MOST:,}; let an nn.Embedding read them",
        )
    common = {
        k: others[k].mode(0).values if others[k].shape[1:] == tensors[k].shape[1:] else torch.zeros_like(tensors[k][0])
        for k in free
    }
    baseline = list(tensors)
    for k in free:
        baseline[k] = common[k].unsqueeze(0)
    at, at_baseline = (float(line.values(x)[0]) for x in (line.x, with_leaves(line.x, baseline)))
    parts = []
    for k in free:
        size = tensors[k].numel()
        differences = torch.zeros(size, dtype=torch.float64)
        for start in range(0, size, AT_ONCE):
            places = torch.arange(start, min(start + AT_ONCE, size))
            rows = [t.expand(len(places), *t.shape[1:]).clone() for t in tensors]
            flat, which = rows[k].view(len(places), -1), places.to(rows[k].device)
            flat[torch.arange(len(places)), which] = common[k].reshape(-1)[which]
            differences[places] = at - line.values(with_leaves(line.x, rows)).cpu()
        parts.append(LeafContributions(line.names[k], tensors[k][0].cpu(), differences.reshape(tensors[k].shape[1:])))
    fixed = tuple(name for k, name in enumerate(line.names) if k not in free)
    words = "every entry at the most frequent value of its place"
    return InputContributions(REPLACED, tuple(parts), fixed, words, at, at_baseline, count, 0.0)
