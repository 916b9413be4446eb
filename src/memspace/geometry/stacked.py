"""A network's outputs at many points of its parameter space at once, differentiable in all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils.checkpoint import checkpoint

from memspace.geometry.embedding import squared_steps
from memspace.passes.space import ParameterSpace
from memspace.task.checks import evaluating
from memspace.task.data import Inputs, move
from memspace.task.functional import functional_call
from memspace.task.task import Task

__all__ = ["PathProbe", "State", "held_between", "probe_of"]

State = Mapping[str, Tensor]
WIDE = 2**27  # numbers of all layers' signals held for one gradient (1 GiB in float64)


@dataclass
class PathProbe:
    """Some examples, and what lies outside the parameter space: buffers, parameters that are not chosen.

    Args:
        task: the model, its law and data.
        space: the parameters that move.
        x: the examples' inputs, on the model's device and in its dtype.
        y: their labels.
        weight: (n, ...) 0 for padded positions.
        index: their places in the data, (n,).
        held: name → (value at the path's first point, at its last); in between they are interpolated.
        each: numbers of one point's signals; 0: not counted yet.
        mapped: whether the model can be mapped over points.
    """

    task: Task
    space: ParameterSpace
    x: Inputs
    y: Tensor
    weight: Tensor
    index: Tensor
    held: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    each: int = 0  # numbers of one point's signals
    mapped: bool = True  # whether the model can be mapped over points

    @property
    def n(self) -> int:
        """How many examples."""
        return len(self.index)

    def state(self, point: Tensor, share: float) -> dict[str, Tensor]:
        """Write one point out as a whole state dict.

        Args:
            point: flat parameters (P,).
            share: its place on the path, 0 to 1.

        Returns:
            Every tensor of the model by name.
        """
        tensors = self.space.unpack(point.detach().to(self.task.dtype))
        return {**{n: t.clone() for n, t in tensors.items()}, **_between(self.held, torch.tensor(share))}

    def outputs(self, points: Tensor, shares: Tensor | None = None) -> Tensor:
        """Compute the outputs at points of the path, differentiable in all of them.

        Args:
            points: (S, P).
            shares: place of each on the path, for what is interpolated; evenly from 0 to 1 where not given.

        Returns:
            f (S, n, ..., C), in the model's dtype.
        """
        if shares is None:
            shares = torch.linspace(0, 1, len(points), dtype=torch.float64, device=points.device)
        with evaluating(self.task.model):
            if not self.each:
                self.each = _signals(self.task, self.x)
            at_once = max(1, WIDE // self.each)
            parts = list(zip(torch.split(points, at_once), torch.split(shares, at_once), strict=True))
            if len(parts) == 1 or not torch.is_grad_enabled():
                return torch.cat([self._some(p, s) for p, s in parts])
            return torch.cat([checkpoint(self._some, p, s, use_reentrant=False) for p, s in parts])

    def squared(self, points: Tensor) -> Tensor:
        """Measure the squared Fisher–Rao steps along a path, example by example.

        Args:
            points: (S, P).

        Returns:
            (S−1, n) nats, differentiable.
        """
        law = self.task.likelihood
        return squared_steps(law, self.outputs(points).double(), self.weight)

    def steps(self, points: Tensor) -> Tensor:
        """Measure the squared lengths of a path's steps, the mean over the examples.

        Args:
            points: (S, P).

        Returns:
            (S−1,) nats, differentiable.
        """
        return self.squared(points).mean(1)

    def _some(self, points: Tensor, shares: Tensor) -> Tensor:
        stacked = self.space.unpack(points.to(self.task.dtype))
        same = {n: a for n, (a, b) in self.held.items() if a is b or torch.equal(a, b)}
        outside = _between({n: pair for n, pair in self.held.items() if n not in same}, shares)
        parameters = dict(self.task.model.named_parameters())
        # A forward pass may write to buffers; frozen parameters that are the model's own stay where they are.
        same = {
            n: t if n in parameters else t.clone()
            for n, t in same.items()
            if n not in parameters or parameters[n].requires_grad or parameters[n].data_ptr() != t.data_ptr()
        }
        if self.mapped:
            try:
                mapped = vmap(lambda state: self._one({**same, **state}), randomness="error")({**stacked, **outside})
                assert isinstance(mapped, Tensor)
                return mapped
            except (RuntimeError, NotImplementedError, ValueError):
                self.mapped = False  # an operation that cannot be mapped: one point after another
        every = {**stacked, **outside}
        return torch.stack([self._one({**same, **{n: t[k] for n, t in every.items()}}) for k in range(len(points))])

    def _one(self, state: dict[str, Tensor]) -> Tensor:
        x: Any = self.x
        args = () if isinstance(x, dict) else x if isinstance(x, tuple) else (x,)
        f = functional_call(self.task.model, state, args, x if isinstance(x, dict) else {})
        assert isinstance(f, Tensor)
        return f


def _between(held: Mapping[str, tuple[Tensor, Tensor]], shares: Tensor) -> dict[str, Tensor]:
    """Interpolated at each share: (S, ...), or one of them for a single share; what does not float is the last's."""
    out = {}
    for name, (a, b) in held.items():
        if not b.is_floating_point():
            out[name] = b.expand((*shares.shape, *b.shape))
            continue
        weight = shares.to(b).reshape(*shares.shape, *[1] * b.dim())
        out[name] = a + weight * (b - a)
    return out


def _signals(task: Task, x: Inputs) -> int:
    """Numbers that one point's forward pass makes in all modules together."""
    total = 0

    def count(_module: Any, _inputs: Any, output: Any) -> None:
        nonlocal total
        total += output.numel() if isinstance(output, Tensor) else 0

    handles = [m.register_forward_hook(count) for m in task.model.modules()]
    try:
        with torch.no_grad():
            args = () if isinstance(x, dict) else x if isinstance(x, tuple) else (x,)
            task.model(*args, **(x if isinstance(x, dict) else {}))
    finally:
        for h in handles:
            h.remove()
    return max(1, total)


def held_between(task: Task, space: ParameterSpace, a: State, b: State) -> dict[str, tuple[Tensor, Tensor]]:
    """Pair the tensors of two states that lie outside the parameter space.

    Args:
        task: says on which device they go.
        space: the parameters inside.
        a: the first state dict.
        b: the last state dict.

    Returns:
        Name → (value in a, value in b).
    """
    inside = set(space.names)
    return {n: (a[n].to(task.device), b[n].to(task.device)) for n in b if n not in inside}


def probe_of(task: Task, space: ParameterSpace, index: Tensor, *, test: bool = False) -> PathProbe:
    """Read examples as a probe set.

    Args:
        task: the model, its law and data.
        space: the parameters that move.
        index: places of the examples, (n,).
        test: take them from the test data, where there are any.

    Returns:
        The probe, at the model's own weights.
    """
    data = task.test if test and task.test is not None else task.train
    batch = data.batch(index)
    x, y = move(batch.x, task.device, task.dtype), move(batch.y, task.device)
    made = PathProbe(task, space, x, y, torch.ones(len(y)), index)
    with torch.no_grad():
        f = made.outputs(space.flat(task.model).unsqueeze(0))[0]
    made.weight = task.likelihood.weight(f, y).double()
    return made
