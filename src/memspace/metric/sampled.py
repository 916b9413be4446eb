"""The exact dual of a sample of the training examples, read as that of all of them.

The curvature of N examples, N·F, is estimated by N/m times that of m drawn ones: λ are the eigenvalues of the sample's
mean F, and α = Nγ is the prior precision of all examples. With that weight an example of the sample would count N/m
times in its own leverage; there it is put right, as where rows are drawn (``metric.leverage``).

Everything is made of one Gram matrix, that of the Jacobian's rows: those of the Fisher rows and of both with one
another are mixtures of it. On convolutions, where inner products are dear, that is half the time of
:func:`memspace.metric.exact.exact_dual`, which need not hold so many rows at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.metric.draw import draw_rows
from memspace.metric.dual import RELATIVE_ZERO, Dual
from memspace.metric.exact import Exact, Jacobian
from memspace.metric.leverage import DualLeverage
from memspace.passes.rows import Rows
from memspace.task.task import Task

__all__ = ["left_out_influence", "sampled_dual"]


def sampled_dual(task: Task, jacobian: Jacobian, of: int) -> Exact:
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
    inner = rows.dot(rows)
    squares = inner.reshape(n, classes, n, classes).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    sizes, vectors = torch.linalg.eigh(root.transpose(1, 2) @ squares @ root)
    draw = draw_rows(sizes.flatten(), sizes.numel())
    share = of / n
    mixes = (root @ vectors).transpose(1, 2) * share**0.5  # (m, K, C)
    through = mixes @ inner.reshape(n, classes, -1)  # Fisher rows · rows of J: (m, K, mC)
    blocks = through.reshape(-1, n, classes).transpose(0, 1) @ mixes.transpose(1, 2)  # (m, mK, K)
    gram = blocks.transpose(0, 1).reshape(sizes.numel(), -1)[draw.index][:, draw.index]
    through = through.reshape(sizes.numel(), -1)[draw.index]
    values, turned = torch.linalg.eigh(gram)
    real = values > RELATIVE_ZERO * values[-1].clamp_min(1e-300)
    fisher_rows = rows.combine(mixes.reshape(-1, classes)[draw.index], draw.index // sizes.shape[1])
    metric = Dual(fisher_rows, of, values[real], turned[:, real])
    missing = None if share == 1 else (1 - share) * (root @ root.transpose(1, 2))
    return Exact(jacobian, root, metric, DualLeverage(rows, metric, squares, through.t() @ metric.vectors, missing))


def left_out_influence(metric: Dual, gradients: Rows, damping: float, of: int) -> tuple[Tensor, Tensor]:
    """Compute gᵀM⁻¹g and gᵀM₋ᵢ⁻¹g of the sample's examples, where their Fisher rows are of sampled labels.

    M = N(F̂ + γI), in which an example's own rows count once, and M₋ᵢ is M without them. With u = R g, B = K + αI of the
    weighted rows and b = B⁻¹u,

        gᵀM⁻¹g = (‖g‖² − uᵀb)/α,    R_i M⁻¹ R_iᵀ = I − α (B⁻¹)_ii,    R_i M⁻¹ g = b_i.

    Args:
        metric: the dual of m examples, as many rows each.
        gradients: g of the same examples' losses, a row each.
        damping: γ > 0; α = Nγ.
        of: N, the number of training examples.

    Returns:
        two tensors (m,), nats.
    """
    n = metric.n
    share, alpha = of / n, of * damping
    inverse = (metric.vectors * (1 / (metric.values * share + alpha) - 1 / alpha)) @ metric.vectors.t()
    inverse.diagonal().add_(1 / alpha)
    u = metric.rows.dot(gradients) * share**0.5  # (R, m)
    b = inverse @ u
    norms = torch.stack([gradients.norms(block) for block in gradients.blocks]).sum(0)
    whole = (norms - (u * b).sum(0)) / alpha
    once, without = whole.clone(), whole.clone()
    for i in range(n):
        at = (metric.rows.example == i).nonzero().flatten()
        eye = torch.eye(len(at), dtype=b.dtype, device=b.device)
        kernel, mine = eye - alpha * inverse[at][:, at], b[at, i]
        without[i] += mine @ torch.linalg.solve(eye - kernel, mine)
        if share > 1:  # all but one of the N/m times that it counts
            once[i] += mine @ torch.linalg.solve(eye / (1 - 1 / share) - kernel, mine)
    return once, without
