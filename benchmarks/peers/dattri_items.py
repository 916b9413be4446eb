"""dattri: influence with its EKFAC (Linear layers only; the empirical kind, being given the loss of the labels).

Its scores are of another matrix than everyone else's: it rotates by the transposes of torch's eigenvectors, so its
corrected eigenvalues belong to no eigenbasis; and it lays the gradients of weight and bias one after the other where
it needs the rows of [weight | bias].
"""

from __future__ import annotations

import dattri.algorithm.base
import torch
from dattri.algorithm import IFAttributorEKFAC
from dattri.task import AttributionTask
from torch import Tensor
from torch.func import functional_call

from benchmarks.engine_ours import damping
from benchmarks.engine_outcome import Outcome, Work
from benchmarks.engine_workloads import Workload
from benchmarks.peers.common import fast_loader, model_of

__all__ = ["ITEMS"]


# Its progress bars cannot be asked off, and printing is no part of the work.
dattri.algorithm.base.tqdm = lambda batches, **_: batches  # type: ignore[attr-defined]


def _attributor(w: Workload) -> IFAttributorEKFAC:
    model = model_of(w)

    def loss(params: dict[str, Tensor], data: tuple[Tensor, Tensor]) -> Tensor:
        x, y = data
        f = functional_call(model, params, (x,))
        return torch.nn.functional.cross_entropy(f.flatten(0, -2), y.flatten())

    task = AttributionTask(loss_func=loss, model=model, checkpoints=model.state_dict())
    attributor = IFAttributorEKFAC(task=task, damping=damping(w))
    attributor.cache(fast_loader(*w.data, w.batch))
    return attributor


def self_influence(w: Workload) -> Work:
    attributor = _attributor(w)

    def run() -> Outcome:
        return Outcome(attributor.self_attribute(fast_loader(*w.data, w.batch)))

    return run


def pairwise(w: Workload) -> Work:
    attributor = _attributor(w)

    def run() -> Outcome:
        with torch.no_grad():
            scores = attributor.attribute(fast_loader(*w.data, w.batch), fast_loader(*w.queries, w.batch))
        return Outcome(scores, blocks=frozenset(attributor.module_name))

    return run


ITEMS = {"self-influence": self_influence, "pairwise": pairwise}
