"""hessian-eigenthings: GGN products and Lanczos. Sums per batch, since it averages batches with equal weight."""

from __future__ import annotations

import torch
from hessian_eigenthings import GGNOperator, lanczos, supervised_forward
from torch import Tensor

from benchmarks.engine_ours import TOP, TOP_RESIDUAL
from benchmarks.engine_outcome import Outcome, Work
from benchmarks.engine_workloads import Workload
from benchmarks.peers.common import model_of, pack_list, total_loss, unpacked

__all__ = ["ITEMS"]


def _operator(w: Workload) -> tuple[GGNOperator, float]:
    """The operator, and what its product is to be multiplied with: it takes the mean over batches."""
    batches = w.batches()
    model = model_of(w)
    names = [n for n, _ in model.named_parameters()]
    operator = GGNOperator(model, batches, supervised_forward, lambda f, batch: total_loss(f, batch[1]))
    assert operator._param_names == names
    return operator, len(batches) / w.n


def product(w: Workload) -> Work:
    operator, scale = _operator(w)
    v = torch.cat([t.flatten() for t in unpacked(w, w.vectors[0])])
    shapes = [p.shape for p in w.task.model.parameters()]

    def run() -> Outcome:
        out: Tensor = operator.matvec(v)
        parts = out.split([s.numel() for s in shapes])
        return Outcome(pack_list(w, [t.reshape(s) for t, s in zip(parts, shapes, strict=True)]) * scale)

    return run


def top(w: Workload) -> Work:
    """Steps until its own residual bound meets ours for all 20: doubled from its default until it says so

    (the steps found in the warm-up are kept, to its advantage).
    """
    operator, scale = _operator(w)
    steps = [2 * TOP]

    def attempt() -> object:
        return lanczos(operator, k=TOP, max_iter=steps[0], tol=TOP_RESIDUAL, reorthogonalize=True, which="LA", seed=0)

    def run() -> Outcome:
        found = attempt()
        while not bool(torch.as_tensor(found.converged).all()) and steps[0] < 640:  # type: ignore[attr-defined]
            steps[0] *= 2
            found = attempt()
        return Outcome(found.eigenvalues.sort(descending=True).values * scale)  # type: ignore[attr-defined]

    return run


ITEMS = {"product": product, "top-20": top}
