"""The gradient of a penalty is held against differences of the penalty, once per network, in float64."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from memspace.errors import UnsupportedLayerError
from memspace.passes.differences import Curve, against_differences
from memspace.passes.linearised import differential
from memspace.task.data import Inputs, first_tensor, move, take
from memspace.task.functional import functional_call
from memspace.task.kernels import differentiable_kernels
from memspace.task.likelihood import Likelihood
from memspace.task.operations import written_out

__all__ = ["prove_penalty"]

EXAMPLES = 4
TRIED = 4  # directions, where a kink hides the derivative along one
TYPICAL = 0.1  # of the size of a derivative along a random direction: smaller ones are compared with this

Named = dict[str, Tensor]


def prove_penalty(model: nn.Module, likelihood: Likelihood, x: Inputs) -> None:
    """Check Jθ and the gradient of the mean of ⟨Jθ, H Jθ⟩ on a few examples of a batch.

    Args:
        model: the network.
        likelihood: the output law.
        x: the batch's inputs.

    Raises:
        UnsupportedLayerError: one of them is not what differences say.

    Warns:
        UserWarning: the network does not run in float64, so that nothing can be said.
    """
    try:
        full = torch.autocast(first_tensor(x).device.type, enabled=False)
        with torch.random.fork_rng(devices=_devices(x)), full, differentiable_kernels(model), written_out():
            _prove(_Penalty(model, likelihood, x), type(model).__name__)
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        warnings.warn(
            f"the gradient of the penalty could not be checked, since the network does not run in float64 ({error})",
            stacklevel=4,
        )


class _Penalty:
    """The penalty of a few examples as a function of the parameters, in float64."""

    def __init__(self, model: nn.Module, likelihood: Likelihood, x: Inputs) -> None:
        self._model, self._likelihood = model, likelihood
        count = min(EXAMPLES, len(first_tensor(x)))
        self._x = move(take(x, slice(0, count)), first_tensor(x).device, torch.float64)
        self.theta: Named = {n: p.detach().double() for n, p in model.named_parameters() if p.requires_grad}
        frozen = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}
        self._held = {n: _double(t) for n, t in (*frozen.items(), *model.named_buffers())}
        self._random = torch.get_rng_state()

    def outputs(self, theta: Named) -> Tensor:
        """The network's, with the same random draws every time."""
        torch.set_rng_state(self._random)
        x: Any = self._x
        args, named = ((), x) if isinstance(x, dict) else (x if isinstance(x, tuple) else (x,), {})
        state = {**{n: t.clone() for n, t in self._held.items()}, **theta}
        f: Tensor = functional_call(self._model, state, args, named)
        return f

    def moved(self, theta: Named) -> tuple[Tensor, Tensor]:
        """(f, Jθ)."""
        return differential(self.outputs, theta, theta, graph=True)

    def value(self, theta: Named) -> Tensor:
        """The penalty."""
        f, moved = self.moved(theta)
        return (moved * self._likelihood.fisher_matvec(f, moved)).sum() / len(f)


def _prove(penalty: _Penalty, where: str) -> None:
    theta = penalty.theta
    with torch.enable_grad():
        leaves = {n: t.clone().requires_grad_() for n, t in theta.items()}
        value = penalty.value(leaves)
        grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        _, moved = penalty.moved(leaves)
    gradient = {n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(theta.items(), grads, strict=True)}
    first = against_differences([(lambda h: penalty.outputs(_along(theta, theta, h)), moved.detach(), 0.0)])
    _refuse(first, "its derivative along the weights", where)
    _refuse(against_differences(_directions(penalty, gradient)), "the penalty's gradient", where)


def _directions(penalty: _Penalty, gradient: Named) -> Iterator[tuple[Curve, Tensor, float]]:
    generator = torch.Generator().manual_seed(0)
    size, count = _norm(penalty.theta), sum(t.numel() for t in gradient.values())
    for _ in range(TRIED):
        d = {n: torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t) for n, t in gradient.items()}
        d = {n: t * (size / _norm(d)) for n, t in d.items()}
        claimed = torch.stack([(gradient[n] * d[n]).sum() for n in d]).sum()
        typical = _norm(gradient) * size / count**0.5
        yield partial(_value_along, penalty, d), claimed, TYPICAL * typical


def _value_along(penalty: _Penalty, d: Named, h: float) -> Tensor:
    return penalty.value(_along(penalty.theta, d, h))


def _refuse(found: Any, what: str, where: str) -> None:
    if found is not None and not found.right:
        raise UnsupportedLayerError(
            f"{what} is off by {found.off:.0%} against a difference",
            where=where,
            remedy="replace the operation whose derivative is wrong (a custom autograd function, a fused kernel?)",
        )


def _along(theta: Named, d: Named, h: float) -> Named:
    return {n: t + h * d[n] for n, t in theta.items()}


def _norm(named: Named) -> float:
    return float(sum(float(t.double().square().sum()) for t in named.values()) ** 0.5)


def _double(t: Tensor) -> Tensor:
    return t.double() if t.is_floating_point() else t


def _devices(x: Inputs) -> list[int]:
    device = first_tensor(x).device
    return [device.index or 0] if device.type == "cuda" else []
