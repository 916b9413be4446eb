"""Proof of products with the differential, once per network: ⟨u, J v⟩ = ⟨Jᵀu, v⟩, with Jᵀ by plain autograd.

Torch's forward-mode rules, and the rules by which it maps an operation over several vectors, are separate code from its
reverse mode, and some are wrong (``cdist`` with several cotangents). The proof uses two random vectors and two random
cotangents at once. An error e of J v moves ⟨u, J v⟩ by a Gaussian of spread ‖e‖. One of relative size ε therefore stays
hidden with a probability of at most 0.8 t/ε, with the tolerance t of ``proof``.
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
    """Find the fastest manner of J and of Jᵀ (see ``Linearised``) that agrees with plain autograd.

    Args:
        f: outputs (B, ..., C) of a few examples as a function of the parameters.
        plain: the same function, without torch's operations replaced.
        at: the parameters by name.
        v: two random vectors by parameter name, (2, *shape).
        where: the model's name, for messages.

    Returns:
        The manners of J and of Jᵀ.

    Raises:
        UnsupportedLayerError: J v is wrong, or fails, in every manner.
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


def _equal(pulled: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> bool:
    whole = sum(float(t.double().square().sum()) for t in truth.values()) ** 0.5
    count = sum(t.numel() for t in truth.values())
    for n, want in truth.items():
        allowed = tolerance(want.dtype) * (float(want.norm()) + whole * (want.numel() / count) ** 0.5)
        if not float((pulled[n] - want).norm()) <= allowed:
            return False
    return True


def _adjoint(moved: Tensor, v: Mapping[str, Tensor], u: Tensor, pulled: Mapping[str, Tensor]) -> bool:
    """⟨u_j, J v_i⟩ = ⟨Jᵀ u_j, v_i⟩ for all i, j, up to rounding of the terms of either sum."""
    for i in range(len(moved)):
        for j in range(len(u)):
            left = (u[j].double() * moved[i].double()).flatten()
            right = torch.cat([(pulled[n][j].double() * v[n][i].double()).flatten() for n in v])
            allowed = tolerance(u.dtype) * (float(left.norm()) + float(right.norm()))
            if not abs(float(left.sum() - right.sum())) <= allowed:
                return False
    return True
