"""Products of factored Jacobian rows with stacks of vectors, without a loop over vectors or a P × rows matrix."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from memspace.passes.forms.sums import slices
from memspace.passes.rows import Rows
from memspace.passes.space import Block

PANEL = 128  # rows of a Gram matrix's panel at least

__all__ = ["gram", "sum_of_squares", "times", "transposed_times"]


def times(rows: Rows, v: Tensor) -> Tensor:
    """Row · v for a stack v (k, P) → (k, R), float64."""
    out = torch.zeros(len(v), len(rows), dtype=torch.float64, device=v.device)
    for b in rows.blocks:
        matrix, g = b.view(v).double(), rows.g[b.name].double()  # (k, out, in), (R, T, out)
        if b.name not in rows.a:
            out += matrix.flatten(1) @ g.t()
            continue
        a = rows.a[b.name]
        for vs in slices(len(v), len(a) * a.shape[1] * b.shape[0]):
            if b.kind == "embedding":
                moved = matrix[vs].permute(2, 0, 1)[a].transpose(1, 2).flatten(2)
            else:
                moved = torch.einsum("nti,koi->nkto", a.double(), matrix[vs]).flatten(2)  # (n, k, T·out)
            for s in slices(len(rows), moved[0].numel()):
                out[vs, s] += torch.matmul(moved[rows.example[s]], g[s].flatten(1).unsqueeze(-1)).squeeze(-1).t()
    return out


def transposed_times(rows: Rows, w: Tensor) -> Tensor:
    """Σ_r w_r row_r for a stack w (k, R) → (k, P), float64."""
    w = w.double()
    out = torch.zeros(len(w), rows.size, dtype=torch.float64, device=w.device)
    for b in rows.blocks:
        g = rows.g[b.name].double()
        if b.name not in rows.a:
            out[:, b.start : b.stop] = w @ g
            continue
        a = rows.a[b.name]
        for s in slices(len(w), g.numel()):
            gathered = torch.zeros(len(a), w[s].shape[0], *g.shape[1:], dtype=torch.float64, device=w.device)
            gathered.index_add_(0, rows.example, w[s].t()[:, :, None, None] * g.unsqueeze(1))
            if b.kind == "embedding":
                by_token = torch.zeros(b.shape[1], gathered.shape[1], b.shape[0], dtype=torch.float64, device=w.device)
                by_token.index_add_(0, a.flatten(), gathered.transpose(1, 2).flatten(0, 1))
                out[s, b.start : b.stop] = by_token.permute(1, 2, 0).flatten(1)
            else:
                out[s, b.start : b.stop] = torch.einsum("nkto,nti->koi", gathered, a.double()).flatten(1)
    return out


def sum_of_squares(rows: Rows) -> Tensor:
    """Σ_r row_r², elementwise, (P,), float64."""
    out = torch.zeros(rows.size, dtype=torch.float64, device=rows.example.device)
    for b in rows.blocks:
        g = rows.g[b.name].double()
        if b.name not in rows.a:
            out[b.start : b.stop] = g.square().sum(0)
            continue
        a = rows.a[b.name]
        if b.kind != "embedding" and a.shape[1] == 1:  # the square of an outer product is the outer product of squares
            gathered = torch.zeros(len(a), g.shape[2], dtype=torch.float64, device=g.device)
            gathered.index_add_(0, rows.example, g[:, 0].square())
            out[b.start : b.stop] = (gathered.t() @ a[:, 0].double().square()).flatten()
            continue
        for s in slices(len(rows), b.size):
            out[b.start : b.stop] += rows.take(s).formed(b).square().sum(0)
    return out


def gram(rows: Rows) -> Tensor:
    """Inner products among all rows, (R, R), in the rows' own dtype; only the half above the diagonal is computed."""
    count = len(rows)
    panels = 1 if count < 2 * PANEL else min(8, count // PANEL)
    edges = [round(i * count / panels) for i in range(panels + 1)]
    out = next(iter(rows.g.values())).new_zeros(count, count)
    own = len(rows.example) == len(rows.a[first]) if (first := next(iter(rows.a), None)) is not None else True
    for b in rows.blocks:
        g = rows.g[b.name]
        a = rows.a.get(b.name)
        if a is not None and b.kind != "embedding" and a.shape[1] == 1:
            a = a[:, 0] if own else a[rows.example, 0]
            for i, j in pairwise(edges):
                out[i:j, i:].add_((g[i:j, 0] @ g[i:, 0].t()).mul_(a[i:j] @ a[i:].t()))
            continue
        for formed in _formed(rows, b):
            for i, j in pairwise(edges):
                out[i:j, i:].addmm_(formed[i:j], formed[i:].t())
    for i, j in pairwise(edges):
        out[j:, i:j] = out[i:j, j:].t()
    return out


def _formed(rows: Rows, b: Block) -> Iterator[Tensor]:
    """One block's part of all rows as dense vectors, some outputs (R, some·in) at a time."""
    g = rows.g[b.name]
    if b.name not in rows.a:
        yield g
        return
    a = rows.a[b.name]
    if b.kind == "embedding":
        used, place = torch.unique(a, return_inverse=True)
        out = g.new_zeros(len(g), len(used), g.shape[-1])
        yield out.scatter_add_(1, place[rows.example].unsqueeze(-1).expand_as(g), g).flatten(1)
        return
    a = a[rows.example]
    for s in slices(g.shape[-1], len(g) * a.shape[-1]):
        yield torch.matmul(g[..., s].transpose(-1, -2), a).flatten(1)
