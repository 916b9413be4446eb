"""Products of factored Jacobian rows with stacks of vectors, without a loop over vectors or a P × rows matrix."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from memspace.passes.rows import Rows

PANEL = 128  # rows of a Gram matrix's panel at least

__all__ = ["gram", "sum_of_squares", "times", "transposed_times"]


def times(rows: Rows, v: Tensor) -> Tensor:
    """Multiply every row with each vector of a stack.

    Args:
        rows: R rows.
        v: (k, P).

    Returns:
        (k, R), float64.
    """
    out = torch.zeros(len(v), len(rows), dtype=torch.float64, device=v.device)
    for b in rows.blocks:
        rows.part(b).add_times_stack(out, b.view(v).double())
    return out


def transposed_times(rows: Rows, w: Tensor) -> Tensor:
    """Add the rows up with each weight vector of a stack, Σ_r w_kr row_r.

    Args:
        rows: R rows.
        w: (k, R).

    Returns:
        (k, P), float64.
    """
    w = w.double()
    out = torch.zeros(len(w), rows.size, dtype=torch.float64, device=w.device)
    for b in rows.blocks:
        for s, sums in rows.part(b).transposed_times_stack(w):
            out[s, b.start : b.stop] = sums
    return out


def sum_of_squares(rows: Rows) -> Tensor:
    """Add the rows' squares up elementwise, Σ_r row_r².

    Args:
        rows: R rows.

    Returns:
        (P,), float64.
    """
    return torch.cat([rows.part(b).squares() for b in rows.blocks])


def gram(rows: Rows, dtype: torch.dtype | None = None) -> Tensor:
    """Multiply all rows with one another; only the half above the diagonal is computed.

    Args:
        rows: R rows.
        dtype: of the products; None: the rows' own.

    Returns:
        Inner products (R, R).
    """
    rows = rows if dtype is None else _cast(rows, dtype)
    count = len(rows)
    panels = 1 if count < 2 * PANEL else min(8, count // PANEL)
    edges = list(pairwise(round(i * count / panels) for i in range(panels + 1)))
    out = next(iter(rows.g.values())).new_zeros(count, count)
    for b in rows.blocks:
        rows.part(b).add_gram(out, edges)
    for i, j in edges:
        out[j:, i:j] = out[i:j, j:].t()
    return out


def _cast(rows: Rows, dtype: torch.dtype) -> Rows:
    """The same rows in another precision; numbers of tokens stay what they are."""
    a = {name: t.to(dtype) if t.is_floating_point() else t for name, t in rows.a.items()}
    return Rows(rows.blocks, a, {name: t.to(dtype) for name, t in rows.g.items()}, rows.example)
