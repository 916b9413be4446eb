"""torch.func: per-example gradients by vmap, formed, then reduced; in chunks that fit the caches."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from benchmarks.engine_ours import GRAM
from benchmarks.engine_outcome import Outcome, Work
from benchmarks.engine_workloads import Workload
from benchmarks.peers.common import model_of, total_loss

__all__ = ["ITEMS"]


def _gradients(w: Workload):  # type: ignore[no-untyped-def]
    model = model_of(w)
    params = {n: p.detach() for n, p in model.named_parameters()}

    def loss(p: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return total_loss(functional_call(model, p, (x.unsqueeze(0),)), y.unsqueeze(0))

    each = vmap(grad(loss), in_dims=(None, 0, 0))
    return lambda x, y: each(params, x, y)


def norms(w: Workload) -> Work:
    each = _gradients(w)
    size = 64 if w.space.size > 50_000 else w.batch

    def run() -> Outcome:
        parts = []
        for x, y in w.batches(size):
            parts.append(sum(g.flatten(1).square().sum(1) for g in each(x, y).values()))
        return Outcome(torch.cat(parts))

    return run


def gram(w: Workload) -> Work:
    each = _gradients(w)

    def run() -> Outcome:
        x, y = (t[:GRAM] for t in w.data)
        parts = [
            torch.cat([g.flatten(1) for g in each(a, b).values()], 1)
            for a, b in zip(x.split(64), y.split(64), strict=True)
        ]
        rows = torch.cat(parts)
        return Outcome(rows @ rows.t())

    return run


ITEMS = {"norms": norms, "gram": gram}
