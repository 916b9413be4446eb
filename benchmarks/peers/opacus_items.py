"""opacus: per-example gradient norms by ghost clipping, its fastest way to norms alone."""

from __future__ import annotations

import torch
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping

from benchmarks.engine_outcome import Outcome, Work
from benchmarks.engine_workloads import Workload
from benchmarks.peers.common import model_of, total_loss

__all__ = ["ITEMS"]


def norms(w: Workload) -> Work:
    # It records only in training mode; these networks have neither dropout nor batch norm.
    model = GradSampleModuleFastGradientClipping(model_of(w).train(), loss_reduction="sum", use_ghost_clipping=True)

    def run() -> Outcome:
        parts = []
        for x, y in w.batches():
            total_loss(model(x), y).backward()
            parts.append(model.get_norm_sample().detach().square())
            model.zero_grad(set_to_none=True)
        return Outcome(torch.cat(parts))

    return run


ITEMS = {"norms": norms}
