"""The network's differential: J v (forward mode) and Jᵀ u (reverse mode) for one batch, and exact Fisher products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from memspace.task.checks import evaluating
from memspace.task.data import Batch, Data, Inputs, move
from memspace.task.likelihood import Likelihood
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["FisherOperator", "function_of_parameters"]


def _pair(result: Any) -> tuple[Any, Any]:
    """The first two of what torch.func gives (its type has a third, for auxiliary outputs)."""
    return result[0], result[1]


def function_of_parameters(task: Task, x: Inputs) -> Callable[[dict[str, Tensor]], Tensor]:
    """The batch's outputs as a function of the trainable parameters."""

    def outputs(params: dict[str, Tensor]) -> Tensor:
        args = () if isinstance(x, dict) else x if isinstance(x, tuple) else (x,)
        f = functional_call(task.model, params, args, x if isinstance(x, dict) else {})
        assert isinstance(f, Tensor)
        return f

    return outputs


def _differential(
    f: Callable[[dict[str, Tensor]], Tensor], at: dict[str, Tensor], v: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """(f, J v); by the reverse-reverse trick where an operation has no forward-mode derivative."""
    try:
        return _pair(jvp(f, (at,), (v,)))
    except (NotImplementedError, RuntimeError):
        value, pull = _pair(vjp(f, at))
        _, double = _pair(vjp(lambda u: pull(u)[0], torch.zeros_like(value)))
        return value, double(v)[0]


class FisherOperator:
    """v ↦ F v exactly, F = (1/n) Σ Jᵀ H J over ``index`` of the data, for flat vectors of the parameter space.

    One product costs about one forward-mode and one reverse-mode pass over those examples.
    """

    def __init__(
        self,
        task: Task,
        space: ParameterSpace,
        *,
        data: Data | None = None,
        index: Tensor | None = None,
        batch: int = 256,
        kind: str = "exact",
    ) -> None:
        self._task, self._space, self._batch, self.kind = task, space, batch, kind
        self._data = task.train if data is None else data
        self._index = index
        self.n = len(self._data) if index is None else len(index)
        self._at = {n: p.detach() for n, p in task.model.named_parameters() if p.requires_grad}
        self.products = 0

    @property
    def size(self) -> int:
        """P."""
        return self._space.size

    def __call__(self, v: Tensor) -> Tensor:
        """F v for one flat v (P,), in float64."""
        total = torch.zeros(self.size, dtype=torch.float64, device=self._task.device)
        tangent = self._space.unpack(v.to(self._task.dtype))
        self.products += 1
        with evaluating(self._task.model), sdpa_kernel(SDPBackend.MATH):
            for part in self._data.batches(self._batch, self._index):
                total += self._one(part, tangent)
        return total / self.n

    def directional(self, v: Tensor) -> dict[str, Tensor]:
        """J v per example: columns ``f`` and ``moved`` (n, ..., C), ``y`` the labels."""
        tangent = self._space.unpack(v.to(self._task.dtype))
        columns: dict[str, list[Tensor]] = {"f": [], "moved": [], "y": []}
        with evaluating(self._task.model), sdpa_kernel(SDPBackend.MATH):
            for part in self._data.batches(self._batch, self._index):
                f = function_of_parameters(self._task, move(part.x, self._task.device, self._task.dtype))
                outputs, moved = _differential(f, self._at, tangent)
                columns["f"].append(outputs.detach())
                columns["moved"].append(moved.detach())
                columns["y"].append(move(part.y, self._task.device))
        return {k: torch.cat(c) for k, c in columns.items()}

    def _one(self, part: Batch, tangent: dict[str, Tensor]) -> Tensor:
        task = self._task
        f = function_of_parameters(task, move(part.x, task.device, task.dtype))
        y = move(part.y, task.device)
        outputs, moved = _differential(f, self._at, tangent)
        u = _curvature(task.likelihood, self.kind, outputs.detach(), y, moved)
        _, pull = _pair(vjp(f, self._at))
        return self._space.pack(pull(u)[0]).double()


def _curvature(likelihood: Likelihood, kind: str, f: Tensor, y: Tensor, u: Tensor) -> Tensor:
    if kind == "exact":
        return likelihood.fisher_matvec(f, u) * likelihood.weight(f, y).unsqueeze(-1)
    r = likelihood.residual(f, y)
    inner = (r * u).flatten(1).sum(1)
    return r * inner.reshape(-1, *([1] * (f.dim() - 1)))
