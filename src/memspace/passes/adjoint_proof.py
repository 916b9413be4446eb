"""Products with the differential prove themselves once per network: ⟨u, J v⟩ = ⟨Jᵀu, v⟩, Jᵀ by plain autograd.

Torch's forward-mode rules, and the rules by which it maps an operation over several vectors, are another code than its
reverse mode, and some are wrong (``cdist`` with several cotangents). Two vectors and two cotangents at once, all
random: an error e of J v moves ⟨u, J v⟩ by a Gaussian of spread ‖e‖, so that one of relative size ε stays hidden with a
chance of at most 0.8 t/ε, with the tolerance t of ``proof``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from memspace.errors import UnsupportedLayerError
from memspace.passes.linearised import ENTRIES, Linearised, pull_plain
from memspace.passes.proof import tolerance

__all__ = ["manner_of"]

Outputs = Callable[[dict[str, Tensor]], Tensor]


def manner_of(f: Outputs, plain: Outputs, at: dict[str, Tensor], v: dict[str, Tensor], where: str) -> tuple[int, int]:
    """The fastest manner of J and of Jᵀ (see ``Linearised``) that agrees with plain autograd.

    Args:
        f: outputs (B, ..., C) of a few examples as a function of the parameters ``at``; plain: the same by the model as
            it is; v: two random vectors, stacked; where: what messages name.

    Raises:
        UnsupportedLayerError: J v comes out wrong, or not at all, by every manner.
    """
    outputs = f(at).detach()
    u = torch.randn(2, *outputs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(outputs)
    truth = pull_plain(plain, at, u)
    for pull in (0, 1, 2):
        if _equal(Linearised(f, at, (0, pull)).pull(u), truth):
            break
    reason = "its derivative along a direction is not the adjoint of its gradient"
    for push in (0, 1, 2, ENTRIES):
        try:
            moved = Linearised(f, at, (push, pull)).push(v)[1]
        except (NotImplementedError, RuntimeError) as error:
            reason = f"its outputs have no derivative along a direction ({str(error).splitlines()[0][:120]})"
            continue
        if _adjoint(moved, v, u, truth):
            return push, pull
    raise UnsupportedLayerError(
        reason, where=where, remedy="use a representation that needs no products (dual, ekfac or dense)"
    )


def _equal(found: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> bool:
    whole = sum(float(t.double().square().sum()) for t in truth.values()) ** 0.5
    count = sum(t.numel() for t in truth.values())
    for n, want in truth.items():
        allowed = tolerance(want.dtype) * (float(want.norm()) + whole * (want.numel() / count) ** 0.5)
        if not float((found[n] - want).norm()) <= allowed:
            return False
    return True


def _adjoint(moved: Tensor, v: Mapping[str, Tensor], u: Tensor, pulled: Mapping[str, Tensor]) -> bool:
    """⟨u_j, J v_i⟩ = ⟨Jᵀ u_j, v_i⟩ for all i, j; allowed is what rounding of the terms of either sum may do."""
    for i in range(len(moved)):
        for j in range(len(u)):
            left = (u[j].double() * moved[i].double()).flatten()
            right = torch.cat([(pulled[n][j].double() * v[n][i].double()).flatten() for n in v])
            allowed = tolerance(u.dtype) * (float(left.norm()) + float(right.norm()))
            if not abs(float(left.sum() - right.sum())) <= allowed:
                return False
    return True
