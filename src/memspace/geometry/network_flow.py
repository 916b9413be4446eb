"""Geodesics of a network from its weights and a velocity, with the metric known by products only.

With φ the embedded outputs, F = Jᵀ J/n and the geodesic equation of the metric F + γI is

    (F + γI) θ̈ = −Jᵀ D²φ[θ̇, θ̇]/n,

because the constant part γI has no derivative. So damping is no approximation here: it chooses the metric, and the
speed √(θ̇ᵀ(F+γI)θ̇) is constant along the exact solution. D²φ comes from forward mode twice, the solve from conjugate
gradients, the integration from an ODE library; all in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp
from torchdiffeq import odeint

from memspace.errors import UnsupportedLayerError
from memspace.geometry.embedding import embed
from memspace.metric.conjugate import conjugate_gradients
from memspace.passes.differences import Curve, against_differences
from memspace.passes.space import ParameterSpace
from memspace.task.checks import evaluating
from memspace.task.data import move
from memspace.task.functional import functional_call
from memspace.task.operations import written_out
from memspace.task.task import Task

__all__ = ["NetworkFlow", "embedded_outputs", "network_flow"]

Map = Callable[[Tensor], Tensor]
TRIED = 4  # directions next to the velocity, where a kink hides the derivative along it
ROUNDING = 1e-6  # of ‖J v‖: a second derivative below it counts as none


@dataclass(frozen=True)
class NetworkFlow:
    """A geodesic of a network.

    Args:
        points: weights at the times asked for, (T, P) float64.
        velocities: (T, P) float64.
        speeds: √(θ̇ᵀ(F+γI)θ̇) at each time, (T,), nats^½ per unit time.
        fisher_speeds: √(θ̇ᵀFθ̇), without γ, (T,).
        drift: largest relative change of ``speeds``, which are constant for the exact solution.
        solves: number of damped systems solved.
        products: number of products v ↦ Fv in them.
        solve_error: the largest estimated relative error of a solution, ‖x − x*‖/‖x*‖ in the norm of F.
    """

    points: Tensor
    velocities: Tensor
    speeds: Tensor
    fisher_speeds: Tensor
    drift: float
    solves: int
    products: int
    solve_error: float


def embedded_outputs(task: Task, space: ParameterSpace, index: Tensor) -> Map:
    """Make the map from parameters to embedded outputs, whose differential J has JᵀJ = F.

    Args:
        task: the model, its law and data.
        space: the parameters.
        index: places of the training examples that make F, (n,).

    Returns:
        θ (P,) float64 ↦ φ of the examples, flat, over √n.
    """
    batch = task.train.batch(index)
    x, y = move(batch.x, task.device, torch.float64), move(batch.y, task.device)
    tensors = task.model.state_dict().items()
    outside = {n: t.double() if t.is_floating_point() else t for n, t in tensors if isinstance(t, Tensor)}
    outside = {n: t.detach() for n, t in outside.items() if n not in space.names}
    buffers = {n for n, _ in task.model.named_buffers()}

    def phi(theta: Tensor) -> Tensor:
        args = () if isinstance(x, dict) else x if isinstance(x, tuple) else (x,)
        state = {n: t.clone() if n in buffers else t for n, t in {**space.unpack(theta), **outside}.items()}
        with torch.enable_grad(), written_out():
            f = functional_call(task.model, state, args, x if isinstance(x, dict) else {})
        weight = task.likelihood.weight(f.detach(), y).unsqueeze(-1)
        out: Tensor = (embed(task.likelihood, f) * weight.sqrt()).flatten() / len(index) ** 0.5
        return out

    return phi


def network_flow(
    task: Task,
    velocity: Tensor,
    times: Sequence[float] = (0.0, 1.0),
    *,
    damping: float,
    examples: int = 256,
    tolerance: float = 1e-6,
    solver: float = 1e-8,
    seed: int = 0,
) -> NetworkFlow:
    """Follow the geodesic of F + γI from the model's weights with a velocity.

    Args:
        task: the model, its law and data.
        velocity: (P,).
        times: increasing, the first one is where the weights are.
        damping: γ > 0.
        examples: number of training examples whose predictions make F.
        tolerance: of the ODE solver (Dormand–Prince 5(4)).
        solver: relative error of the conjugate gradients.
        seed: of the choice of examples.

    Returns:
        Weights and velocities at the times, with the drift of the speed as error.

    Raises:
        ValueError: a damping that is not positive: F alone is singular.
        UnsupportedLayerError: D²φ along the velocity is not what differences of J say.
    """
    if not damping > 0:
        raise ValueError(f"the Fisher of a network is singular: the damping must be positive, got {damping}")
    space = ParameterSpace.of(task)
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(seed + 9))
    phi = embedded_outputs(task, space, order[:examples].sort().values)
    with torch.no_grad(), evaluating(task.model):
        _prove(phi, space.flat(task.model).double(), velocity.double(), type(task.model).__name__)
    counts, errors = [0, 0], [0.0]

    def field(_: Tensor, state: Tensor) -> Tensor:
        theta, v = state
        bent = _second(phi, theta, v)
        _, pull = _pair(vjp(phi, theta))

        def product(stack: Tensor) -> Tensor:
            counts[1] += len(stack)
            return torch.stack([pull(_push(phi, theta, u))[0] + damping * u for u in stack])

        right = pull(bent)[0].unsqueeze(0)
        counts[0] += 1
        solution = conjugate_gradients(product, right, tolerance=solver, damping=damping)
        errors.append(float(solution.error.max()))
        return torch.stack([v, -solution.x[0]])

    start = torch.stack([space.flat(task.model).double(), velocity.double()])
    at = torch.tensor(list(times), dtype=torch.float64, device=start.device)
    options: dict[str, Any] = {"step_t": at}
    with torch.no_grad(), evaluating(task.model):
        out = odeint(field, start, at, rtol=tolerance, atol=tolerance, method="dopri5", options=options)
        fisher = torch.stack([_push(phi, x, v).square().sum() for x, v in out])
    speeds = (fisher + damping * out[:, 1].square().sum(1)).sqrt()
    drift = float((speeds / speeds[0] - 1).abs().max()) if float(speeds[0]) > 0 else 0.0
    return NetworkFlow(out[:, 0], out[:, 1], speeds, fisher.sqrt(), drift, counts[0], counts[1], max(errors))


def _pair(result: Any) -> tuple[Any, Any]:
    return result[0], result[1]


def _push(phi: Map, theta: Tensor, v: Tensor) -> Tensor:
    """J v."""
    moved: Tensor = jvp(phi, (theta,), (v,))[1]
    return moved


def _second(phi: Map, theta: Tensor, v: Tensor) -> Tensor:
    """D²φ[v, v]."""
    bent: Tensor = jvp(lambda t: _push(phi, t, v), (theta,), (v,))[1]
    return bent


def _prove(phi: Map, theta: Tensor, v: Tensor, where: str) -> None:
    """Hold D²φ[v, d] against differences of J v along the velocity and other directions d."""
    size = theta.norm()

    def curves() -> Iterator[tuple[Curve, Tensor, float]]:
        generator = torch.Generator().manual_seed(0)
        for d in (v, *(torch.randn(len(v), generator=generator, dtype=torch.float64).to(v) for _ in range(TRIED))):
            along = d * size / d.norm().clamp_min(1e-300)
            claimed = jvp(lambda t: _push(phi, t, v), (theta,), (along,))[1]
            least = ROUNDING * float(_push(phi, theta, v).norm())
            yield partial(_push_along, phi, theta, along, v), claimed, least

    comparison = against_differences(curves())
    if comparison is not None and not comparison.right:
        raise UnsupportedLayerError(
            f"the second derivative of the network is off by {comparison.off:.0%} against differences of the first",
            where=where,
            remedy="replace the operation whose forward-mode derivative is wrong (a custom autograd function?)",
        )


def _push_along(phi: Map, theta: Tensor, along: Tensor, v: Tensor, h: float) -> Tensor:
    return _push(phi, theta + h * along, v)
