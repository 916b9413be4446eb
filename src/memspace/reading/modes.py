"""Modes of memory: the leading eigenvectors of F, with the examples, classes and layers that carry them.

With Fisher rows r and K = Q κ Qᵀ their Gram matrix, F = (1/n) Σ_r row_r row_rᵀ has the eigenvalues κ/n, and row_r has
the component √κ_k Q_rk along eigenvector k. So Σ_r Q_rk² over the rows of an example is its share of λ_k = κ_k/n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from memspace.measurement import Measurement, stated
from memspace.metric.row_products import transposed_times
from memspace.passes.collect import CollectRows
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.outputs import outputs
from memspace.passes.verify import checked_space
from memspace.progress import Progress
from memspace.reading.fisher_rows import RowPlan, plan_rows
from memspace.task.task import Task
from memspace.value import Value

__all__ = ["ROWS", "Group", "MemoryModes", "groups_of", "read_modes"]

ROWS = 2000  # Fisher rows whose Gram matrix is made
HALVINGS = 20  # random halves of the examples that eigenvectors are compared between
APART = 2.0  # standard errors of the difference by which neighbours differ where they are told apart


@dataclass(frozen=True)
class Group:
    """Neighbouring modes whose eigenvalues cannot be told apart on these examples, or a single mode.

    Args:
        first: number of the first mode, from 1.
        last: number of the last.
        complete: whether the mode after it is told apart from it.
        overlap: mean of ‖V_Aᵀ V_B‖²/d over halves A and B of the examples.
    """

    first: int
    last: int
    complete: bool
    overlap: Value

    @property
    def name(self) -> str:
        """The modes as people write them: ``3``, or ``4-6``."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    @property
    def modes(self) -> slice:
        """Positions of the modes."""
        return slice(self.first - 1, self.last)


@dataclass(frozen=True)
class MemoryModes:
    """The leading eigenvectors of F and what carries them.

    Args:
        plan: the examples read.
        values: (k,) eigenvalues, largest first, nats.
        trace: tr F, nats.
        examples: (n, k) share of each eigenvalue that an example carries; columns sum to 1.
        layers: (L, k) squared length of each unit eigenvector in a block; columns sum to 1.
        blocks: names of the blocks.
        classes: (C, k) share of the examples of a class; None where labels are no classes.
        groups: of neighbours that are not told apart.
        y: labels of the examples read; None where they are no classes.
        vectors: (k, P) unit eigenvectors, float64; None where they were not asked for.
    """

    plan: RowPlan
    values: Tensor
    trace: float
    examples: Tensor
    layers: Tensor
    blocks: tuple[str, ...]
    classes: Tensor | None
    groups: tuple[Group, ...]
    y: Tensor | None
    vectors: Tensor | None = None

    def measurements(self) -> tuple[Measurement, ...]:
        """Give trace, and of every group eigenvalue, share of the trace, examples that carry it and stability.

        Returns:
            in this order, by group; named after its modes, such as ``modes.1.share`` or ``modes.2-4.share``.
        """
        n, how = self.plan.n, f"Gram matrix of Fisher rows of {self.plan.words}"
        sampled = "" if self.plan.whole else f"of {self.plan.words}, not of all"

        def exact(name: str, value: float, unit: str, what: str, source: str = "") -> Measurement:
            number = Value(value, n, None, reliable=not sampled, note=sampled)
            return stated(name, number, unit, f"{what}; {how}", source)

        numbers = [exact("modes.trace", self.trace, "nats", "tr F")]
        for g in self.groups:
            size = g.last - g.first + 1
            values = self.values[g.modes]
            name, mean = f"modes.{g.name}", " (mean of the group)" if size > 1 else ""
            carried = self.carried(g)
            numbers += [
                exact(f"{name}.eigenvalue", float(values.mean()), "nats", f"eigenvalue of F{mean}", "critchley1985"),
                exact(f"{name}.share", float(values.sum()) / self.trace, "1", "share of tr F"),
                exact(f"{name}.examples", 1 / float(carried.square().sum()), "1", "1/Σ s², s an example's share"),
                stated(f"{name}.stability", g.overlap, "1", "‖V_Aᵀ V_B‖²/d between random halves of the examples"),
            ]
        return tuple(numbers)

    def carried(self, group: Group) -> Tensor:
        """Give each example's share of a group of modes.

        Args:
            group: the modes.

        Returns:
            (n,), summing to 1.
        """
        values = self.values[group.modes]
        return self.examples[:, group.modes] @ values / values.sum()


def read_modes(
    task: Task,
    *,
    count: int = 8,
    rows: int = ROWS,
    seed: int = 0,
    vectors: bool = False,
    progress: Progress | None = None,
) -> MemoryModes:
    """Read the leading eigenvectors of F.

    Args:
        task: the network and its data.
        count: modes read; a group that begins among them is read to its end, up to twice as many.
        rows: Fisher rows at most; beyond it a sample of the examples is read.
        seed: of the sample and of the halves.
        vectors: whether to keep the eigenvectors.
        progress: where the work reports.

    Returns:
        the modes.

    Raises:
        MemspaceError: the task cannot be read; see ``memspace.errors``.
    """
    space = checked_space(task)
    plan = plan_rows(task, rows, seed)
    collected = CollectRows(space.blocks, plan.kind, plan.n)
    run_pass(task, space, [collected], PassOptions(index=plan.index, seed=seed, progress=progress, what="Fisher rows"))
    fisher = collected.finish()
    gram = fisher.dot(fisher)
    kappa, q = _leading(gram, 2 * count)
    example = fisher.example.to(q.device)
    shares = torch.zeros(plan.n, q.shape[1], dtype=q.dtype, device=q.device).index_add_(0, example, q.square())
    values = kappa / plan.n
    groups = groups_of(plan.n * shares * values, values, count)
    overlaps = _overlaps(gram, example, [(a, b) for a, b, _ in groups], plan.n, seed)
    made = tuple(Group(a + 1, b, complete, overlap) for (a, b, complete), overlap in zip(groups, overlaps, strict=True))
    shown = made[-1].last if made else 0
    _, y = outputs(task, task.train, index=plan.index)
    labels = y.cpu() if task.likelihood.classifies and y.dim() == 1 else None
    carried = shares[:, :shown].cpu()
    unit = transposed_times(fisher, (q[:, :shown] / kappa[:shown].sqrt()).t())
    return MemoryModes(
        plan,
        values[:shown].cpu(),
        float(gram.diagonal().sum()) / plan.n,
        carried,
        torch.stack([unit[:, b.start : b.stop].square().sum(1) for b in space.blocks]).cpu(),
        tuple(b.name for b in space.blocks),
        None if labels is None else _by_class(labels.long(), carried),
        made,
        labels,
        unit if vectors else None,
    )


def groups_of(moments: Tensor, values: Tensor, count: int) -> list[tuple[int, int, bool]]:
    """Find neighbours whose eigenvalues differ by less than chance.

    To first order an eigenvalue is the mean over examples of s_ik = Σ_r (row_r · v_k)² (Critchley 1985), so
    that a difference of two has the standard error of the mean of s_ik − s_i,k+1.

    Args:
        moments: s (n, k), columns with mean λ.
        values: λ (k,), largest first.
        count: modes wanted; a group that begins among them is followed to its end.

    Returns:
        (first, end, complete) of every group, positions from 0.
    """
    n, k = moments.shape
    differences = moments[:, :-1] - moments[:, 1:]
    errors = differences.std(0) / math.sqrt(n) if n > 1 else torch.full((max(k - 1, 0),), math.inf)
    apart = ((values[:-1] - values[1:]).cpu() > APART * errors.cpu()).tolist()
    groups, start = [], 0
    for end in range(1, k + 1):
        if end == k or apart[end - 1]:
            if start < count:
                groups.append((start, end, end < k))
            start = end
    return groups


def _leading(gram: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues and their vectors, largest first; those of rounding are left out."""
    if count >= len(gram) // 2:
        values, vectors = torch.linalg.eigh(gram)
    else:
        start = torch.ones(len(gram), dtype=torch.float64) + 1e-3 * torch.arange(len(gram)) / len(gram)
        made = eigsh(gram.cpu().numpy(), k=count, which="LA", v0=start.numpy())
        values, vectors = (torch.from_numpy(part).to(gram) for part in made)
    order = values.argsort(descending=True)[:count]
    values, vectors = values[order], vectors[:, order]
    real = values > 1e-12 * values[0].clamp_min(1e-300)
    return values[real], vectors[:, real]


def _overlaps(gram: Tensor, example: Tensor, spans: Sequence[tuple[int, int]], n: int, seed: int) -> list[Value]:
    """Overlap of the modes of two random halves of the examples, by spans; mean over halvings with its interval."""
    generator = torch.Generator().manual_seed(seed + 67)
    samples: list[list[float]] = [[] for _ in spans]
    most = max((b for _, b in spans), default=0)
    for _ in range(HALVINGS if n >= 4 else 0):
        first = torch.zeros(n, dtype=torch.bool)
        first[torch.randperm(n, generator=generator)[: n // 2]] = True
        inside = first.to(example.device)[example]
        a, b = inside.nonzero().flatten(), (~inside).nonzero().flatten()
        (p, u), (s, v) = (_leading(gram[rows][:, rows], most) for rows in (a, b))
        cosines = (u / p.sqrt()).t() @ gram[a][:, b] @ (v / s.sqrt())
        for k, (start, end) in enumerate(spans):
            samples[k].append(float(cosines[start:end, start:end].square().sum()) / (end - start))
    how = f"{HALVINGS} halvings; the interval is that of their mean"
    return [Value.mean(x, lower=0.0, upper=1.0, how=how) for x in samples]


def _by_class(y: Tensor, shares: Tensor) -> Tensor:
    total = torch.zeros(int(y.max()) + 1, shares.shape[1], dtype=shares.dtype)
    return total.index_add_(0, y, shares)
