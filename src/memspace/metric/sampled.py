"""The dual of a sample of the training examples, read as that of all of them.

The curvature of N examples, N·F, is estimated by N/m times that of m drawn ones: λ are the eigenvalues of the sample's
mean F, and α = Nγ is the prior precision of all examples. With that weight an example of the sample would count N/m
times in its own leverage; there it is put right, as where rows are drawn (``metric.leverage``).

Everything is made of one Gram matrix, of which half is computed: Fisher rows are mixtures of the Jacobian's. On
convolutions, where inner products are dear, that is a third of the time of :func:`memspace.metric.exact.exact_dual`,
which need not hold so many rows at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memspace.metric.draw import draw_rows
from memspace.metric.dual import RELATIVE_ZERO, Dual
from memspace.metric.exact import Exact, Jacobian
from memspace.metric.leverage import DualLeverage
from memspace.metric.row_products import gram
from memspace.passes.batching import examples_at_once
from memspace.passes.collect import CollectRows
from memspace.passes.cotangent import View
from memspace.passes.engine import OUTPUTS, PassOptions, run_pass
from memspace.passes.kinds import Kind
from memspace.passes.rows import Rows
from memspace.passes.space import ParameterSpace
from memspace.passes.statistic import Statistic
from memspace.passes.statistics import TableStatistic
from memspace.task.task import Task

__all__ = ["LabelsDual", "SampledDual", "labels_dual", "sampled_dual"]


@dataclass(frozen=True)
class SampledDual(Exact):
    """The metric and leverage of a sample with one label an example.

    Args:
        layers: (L,) tr F by block, nats.
    """

    layers: Tensor


@dataclass(frozen=True)
class LabelsDual:
    """The metric of a sample, from as many sampled labels of every example.

    Args:
        metric: F̂, unbiased over the labels.
        trace: (m,) tr F of each example, likewise, nats.
        layers: (L,) tr F by block, likewise, nats.
        inner: (R, m) products of the metric's rows with the gradients of the examples' losses.
        squared: (m,) squared norms of these gradients.
        of: N, the number of training examples.
    """

    metric: Dual
    trace: Tensor
    layers: Tensor
    inner: Tensor
    squared: Tensor
    of: int

    def influence(self, damping: float) -> tuple[Tensor, Tensor]:
        """Compute gᵀM⁻¹g and gᵀM₋ᵢ⁻¹g of the sample's examples.

        M = N(F̂ + γI), in which an example's own rows R_i count once, and M₋ᵢ is M without them. With u = R g,
        B = K + αI of the weighted rows, α = Nγ, and b = B⁻¹u,

            gᵀM⁻¹g = (‖g‖² − uᵀb)/α,    R_i M⁻¹ R_iᵀ = I − α (B⁻¹)_ii,    R_i M⁻¹ g = b_i,

        before the own rows are taken out by Woodbury's identity.

        Args:
            damping: γ > 0.

        Returns:
            two tensors (m,), nats.
        """
        m, share, alpha = len(self.trace), self.of / len(self.trace), self.of * damping
        vectors = self.metric.vectors
        shrink = 1 / (self.metric.values + alpha) - 1 / alpha
        b = (vectors * shrink) @ (vectors.t() @ self.inner) + self.inner / alpha
        whole = (self.squared - (self.inner * b).sum(0)) / alpha
        mine = b.reshape(m, -1, m).diagonal(dim1=0, dim2=2).t()  # (m, S)
        parts = vectors.reshape(m, -1, vectors.shape[1])
        kernel = -alpha * (parts * shrink) @ parts.transpose(1, 2)  # R_i M⁻¹ R_iᵀ
        eye = torch.eye(mine.shape[1], dtype=b.dtype, device=b.device)

        def without(times: float) -> Tensor:
            """With so many times less of an example's own rows."""
            solved = torch.linalg.solve(eye / times - kernel, mine)
            changed: Tensor = whole + (mine * solved).sum(1)
            return changed

        return without(1 - 1 / share) if share > 1 else whole, without(1.0)


def sampled_dual(task: Task, jacobian: Jacobian, of: int) -> SampledDual:
    """Build metric and leverage of ``of`` training examples from a sample of them.

    Args:
        task: the network, with its output law.
        jacobian: of the m examples drawn, one label each.
        of: N, the number of training examples; m itself: nothing is estimated.

    Returns:
        Metric and leverage. Exact for the sample; of all examples F̂ is unbiased, and a function of it is not: a sample
        has at most m (C − 1) directions of classes.
    """
    rows, n = jacobian.rows, len(jacobian.f)
    classes = jacobian.f.shape[-1]
    root = task.likelihood.fisher_root(jacobian.f.double())
    inner, parts = _products(rows, classes)
    squares = parts.sum(0)
    sizes, vectors = torch.linalg.eigh(root.transpose(1, 2) @ squares @ root)
    draw = draw_rows(sizes.flatten(), sizes.numel())
    share = of / n
    mixes = (root @ vectors).transpose(1, 2) * share**0.5  # (m, K, C)
    through = mixes @ inner.reshape(n, classes, -1)  # Fisher rows · rows of J: (m, K, mC)
    blocks = through.reshape(-1, n, classes).transpose(0, 1) @ mixes.transpose(1, 2)  # (m, mK, K)
    products = blocks.transpose(0, 1).reshape(sizes.numel(), -1)[draw.index][:, draw.index]
    through = through.reshape(sizes.numel(), -1)[draw.index]
    fisher_rows = rows.combine(mixes.reshape(-1, classes)[draw.index], draw.index // sizes.shape[1])
    metric = _decomposed(fisher_rows, products, of, "exact")
    missing = None if share == 1 else (1 - share) * (root @ root.transpose(1, 2))
    leverage = DualLeverage(rows, metric, squares, through.t() @ metric.vectors, missing)
    layers = torch.einsum("nck,lncd,ndk->l", root, parts, root) / n
    return SampledDual(jacobian, root, metric, leverage, layers)


class _LabelsAndGradients(TableStatistic):
    """Gives the view residuals of labels drawn from the network, then those of the training labels, as cotangents."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def update(self, view: View) -> None:
        """Give one batch's cotangents."""
        view.give(torch.cat([view.output(self._kind), view.output("empirical")]))


def labels_dual(
    task: Task, space: ParameterSpace, index: Tensor, labels: int, *, of: int, options: PassOptions | None = None
) -> LabelsDual:
    """Build the metric of ``of`` training examples from sampled labels of some of them, in one pass.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        index: places of the m examples in the training data.
        labels: sampled per example (and position).
        of: N, the number of training examples.
        options: of the pass.

    Returns:
        The metric, with what leaves an example out.
    """
    kind = str(Kind("mc", labels))
    collected = CollectRows(space.blocks, "given", len(index))
    statistics: list[Statistic[Any]] = [_LabelsAndGradients(kind), collected]
    batch = examples_at_once(task, task.train, min(OUTPUTS, labels + 1))
    run_pass(task, space, statistics, (options or PassOptions()).but(index=index, batch=batch, what="sampled labels"))
    every = collected.finish()
    m, share = len(index), of / len(index)
    inner, parts = _products(every, 1)
    place = torch.arange(len(every), device=inner.device).reshape(m, -1)
    drawn, real = place[:, :-1].flatten(), place[:, -1]
    diagonal = parts[:, drawn, 0, 0]  # (L, R)
    rows = every.take(drawn)
    weighted = Rows(rows.blocks, rows.a, {name: g * share**0.5 for name, g in rows.g.items()}, rows.example)
    return LabelsDual(
        _decomposed(weighted, inner[drawn][:, drawn] * share, of, kind),
        diagonal.sum(0).reshape(m, -1).sum(1),
        diagonal.sum(1) / m,
        inner[drawn][:, real] * share**0.5,
        inner.diagonal()[real],
        of,
    )


def _products(rows: Rows, c: int) -> tuple[Tensor, Tensor]:
    """All inner products (R, R), and those of c consecutive rows block by block, (L, R/c, c, c); float64."""
    n = len(rows) // c
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.example.device)
    within = []
    for b in rows.blocks:
        a = {b.name: rows.a[b.name]} if b.name in rows.a else {}
        products = gram(Rows((b,), a, {b.name: rows.g[b.name]}, rows.example), torch.float64)
        within.append(products.reshape(n, c, n, c).diagonal(dim1=0, dim2=2).permute(2, 0, 1))
        total += products
    return total, torch.stack(within)


def _decomposed(rows: Rows, products: Tensor, of: int, kind: str) -> Dual:
    values, vectors = torch.linalg.eigh(products)
    positive = values > RELATIVE_ZERO * values[-1].clamp_min(1e-300)
    return Dual(rows, of, values[positive], vectors[:, positive], kind=kind)
