"""BackPACK: norms (BatchL2Grad), diagonal (DiagGGN) and KFAC/KFLR factors, accumulated over batches."""

from __future__ import annotations

import torch
from backpack import backpack, extend
from backpack.extensions import KFAC, KFLR, BatchL2Grad, DiagGGNExact, DiagGGNMC
from torch import Tensor, nn

from benchmarks.engine_outcome import Outcome, Work
from benchmarks.engine_workloads import Workload
from benchmarks.peers.common import model_of, packed

__all__ = ["ITEMS"]


def _extended(w: Workload) -> tuple[nn.Module, nn.Module]:
    # A network that is no Sequential goes through its converter to one, as its documentation asks.
    model = extend(model_of(w), use_converter=True) if w.sequence else extend(model_of(w))
    return model, extend(nn.CrossEntropyLoss(reduction="sum"))


def norms(w: Workload) -> Work:
    model = extend(model_of(w))
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))

    def run() -> Outcome:
        parts = []
        for x, y in w.batches():
            f = model(x)
            with backpack(BatchL2Grad()):
                loss(f.flatten(0, -2), y.flatten()).backward()
            parts.append(sum(p.batch_l2 for p in model.parameters()).detach())
            model.zero_grad(set_to_none=True)
        return Outcome(torch.cat(parts))

    return run


def diagonal(extension: type, name: str):  # type: ignore[no-untyped-def]
    def prepare(w: Workload) -> Work:
        model, loss = _extended(w)

        def run() -> Outcome:
            total = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
            for x, y in w.batches():
                with backpack(extension()):
                    loss(model(x), y).backward()
                for n, p in model.named_parameters():
                    total[n] += getattr(p, name).detach()
                model.zero_grad(set_to_none=True)
            return Outcome(packed(w, total) / w.n)

        return run

    return prepare


def kfac(extension: type, name: str):  # type: ignore[no-untyped-def]
    """All layers are computed; a convolution's factor sums over positions first (as its source says), which is
    another approximation than ours, so only the Linear layers are held against ours.
    """

    def prepare(w: Workload) -> Work:
        model, loss = _extended(w)
        linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}

        def run() -> Outcome:
            total: dict[str, tuple[Tensor, Tensor]] = {}
            for x, y in w.batches():
                with backpack(extension()):
                    loss(model(x), y).backward()
                for n, p in model.named_parameters():
                    if n.endswith("weight"):
                        # Each is a mean over its batch in the input factor and a sum in the other.
                        g, a = (t.detach() for t in getattr(p, name))
                        share = len(y) / w.n
                        key = n.removesuffix(".weight")
                        before = total.get(key)
                        now = (a * share, g / w.n)
                        total[key] = now if before is None else (before[0] + now[0], before[1] + now[1])
                model.zero_grad(set_to_none=True)
            return Outcome({k: v for k, v in total.items() if k in linear})

        return run

    return prepare


ITEMS = {
    "norms": norms,
    "diagonal-mc": diagonal(lambda: DiagGGNMC(mc_samples=1), "diag_ggn_mc"),  # type: ignore[arg-type]
    "diagonal-exact": diagonal(DiagGGNExact, "diag_ggn_exact"),
    "kfac-mc": kfac(lambda: KFAC(mc_samples=1), "kfac"),  # type: ignore[arg-type]
    "kfac-exact": kfac(KFLR, "kflr"),
}
