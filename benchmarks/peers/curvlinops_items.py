"""curvlinops: KFAC, EKFAC, GGN products and, through SciPy, leading eigenvalues; without its check of determinism."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from curvlinops import EKFACLinearOperator, GGNLinearOperator, KFACLinearOperator
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

from benchmarks.engine_ours import TOP, TOP_RESIDUAL
from benchmarks.engine_outcome import Outcome, Work
from benchmarks.engine_workloads import Workload
from benchmarks.peers.common import ClassesSecond, model_of, pack_list, unpacked

__all__ = ["ITEMS"]


def _operator(kind: Any, w: Workload, **more: Any) -> Any:
    model = model_of(w)
    if w.sequence:
        model = ClassesSecond(model)
    loss = nn.CrossEntropyLoss(reduction="sum")
    options = {"check_deterministic": False, "num_data": w.n} | more
    return kind(model, loss, list(model.parameters()), w.batches(), **options)


def _factored(kind: Any, w: Workload, fisher: str) -> Any:
    terms = w.data[1][0].numel()
    more = {"fisher_type": fisher, "separate_weight_and_bias": False, "num_per_example_loss_terms": terms}
    return _operator(kind, w, **more)


def kfac(fisher: str):  # type: ignore[no-untyped-def]
    def prepare(w: Workload) -> Work:
        _factored(KFACLinearOperator, w, fisher)  # fails here where it does not know a layer

        def run() -> Outcome:
            op = _factored(KFACLinearOperator, w, fisher)
            op.compute_kronecker_factors()
            names = op._mapping
            return Outcome({n: (op._input_covariances[n], op._gradient_covariances[n] / w.n) for n in names})

        return run

    return prepare


def ekfac(fisher: str):  # type: ignore[no-untyped-def]
    def prepare(w: Workload) -> Work:
        _factored(EKFACLinearOperator, w, fisher)

        def run() -> Outcome:
            op = _factored(EKFACLinearOperator, w, fisher)
            op.compute_kronecker_factors()
            start = time.perf_counter()
            op._compute_eigenvectors()
            apart = time.perf_counter() - start
            op.compute_eigenvalue_correction()
            return Outcome({n: v / w.n for n, v in op._corrected_eigenvalues.items()}, apart)

        return run

    return prepare


def products(count: int):  # type: ignore[no-untyped-def]
    def prepare(w: Workload) -> Work:
        op = _operator(GGNLinearOperator, w)
        flat = torch.stack([torch.cat([t.flatten() for t in unpacked(w, v)]) for v in w.vectors[:count]], 1)

        def run() -> Outcome:
            out = op @ (flat[:, 0] if count == 1 else flat)
            columns = [out] if count == 1 else list(out.unbind(1))
            done = torch.stack([_ours(w, c) for c in columns]) / w.n
            return Outcome(done[0] if count == 1 else done)

        return run

    return prepare


def _ours(w: Workload, column: Tensor) -> Tensor:
    sizes = [p.numel() for p in w.task.model.parameters()]
    parts = [t.reshape(p.shape) for t, p in zip(column.split(sizes), w.task.model.parameters(), strict=True)]
    return pack_list(w, parts)


def top(w: Workload) -> Work:
    op = _operator(GGNLinearOperator, w)

    def run() -> Outcome:
        start = np.random.default_rng(0).standard_normal(w.space.size).astype(np.float32)
        values = eigsh(op.to_scipy(), k=TOP, which="LA", tol=TOP_RESIDUAL, return_eigenvectors=False, v0=start)
        return Outcome(torch.from_numpy(np.sort(values)[::-1].copy()) / w.n)

    return run


ITEMS = {
    "kfac-mc": kfac("mc"),
    "kfac-exact": kfac("type-2"),
    "ekfac-mc": ekfac("mc"),
    "ekfac-empirical": ekfac("empirical"),
    "product": products(1),
    "products-16": products(16),
    "top-20": top,
}
