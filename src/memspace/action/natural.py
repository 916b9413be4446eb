"""Natural-gradient flow of a small network, exactly: the path along which the action spent is the loss bought.

The flow is θ̇ = −(F + λI)⁻¹∇L. Along it dL/dt = −‖θ̇‖² in the metric F + λI, so that ∫‖θ̇‖²_{F+λI} dt = L(0) − L(T)
and the energy–dissipation excess vanishes, in that metric, at any damping. Read in F alone, with the damped slope, the
same flow has the excess −½λ∫‖θ̇‖² dt: the price of the damping, at most zero, and gone with λ.

F is singular: a network has directions that change no prediction. The gradient has no part in them. With R the stacked
rows S_iᵀJ_i, F = RᵀR/n and r_i = S_i z_i (the residual of every output law lies in the range of its Fisher
information), ∇L = Rᵀz/n. So λ = 0 is meant as the pseudo-inverse and is exact, and no division by λ takes place:

    (F + λI)⁻¹∇L = Rᵀ(RRᵀ + nλI)⁻¹ z.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torchdiffeq import odeint

from memspace.action.slope import signals
from memspace.arguments import typed
from memspace.errors import SettingsError
from memspace.geometry.distance import squared_distances
from memspace.limits import COUNT, POSITIVE, SIZE
from memspace.measurement import Measurement
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.positions import as_index
from memspace.task.checks import holding
from memspace.task.task import Run, Task

__all__ = ["METHODS", "NaturalFlow", "NaturalStep", "natural_descent", "natural_gradient_flow"]

# Fixed-step methods of the ODE library with the order of ∫‖θ̇‖² dt less the loss bought; the excess, quadratic in what
# the path deviates by, is of second order for all of them, since lengths and the trapezoid are.
METHODS = {"euler": 1, "heun2": 2, "rk4": 2}
RELATIVE_ZERO = 1e-12  # eigenvalues below this share of the largest are rounding (float64)


@dataclass(frozen=True)
class NaturalStep:
    """The natural gradient at one point.

    Args:
        velocity: −(F + λI)⁻¹∇L, (P,) float64.
        squared_slope: ‖∇L‖²_{(F+λI)⁻¹}, nats.
        squared_speed: ‖velocity‖²_F, nats.
        loss: L, nats.
    """

    velocity: Tensor
    squared_slope: float
    squared_speed: float
    loss: float


def natural_descent(task: Task, space: ParameterSpace, index: Tensor, damping: float = 0.0) -> NaturalStep:
    """Compute the natural gradient of the mean loss over some examples, exactly, in the model's own precision.

    Memory: 8·min(P, rows)² bytes and the smaller of the two ways of holding the rows; a row per example and output.

    Args:
        task: the model, its law and data.
        space: the parameters.
        index: places of the training examples, (n,).
        damping: λ ≥ 0; 0 for the pseudo-inverse, along which a network with nearly dependent rows diverges.

    Returns:
        The direction with its slope and speed.

    Raises:
        SettingsError: a negative damping.
    """
    if damping < 0:
        raise SettingsError(
            f"the damping must not be negative, got {damping}",
            where="natural_gradient_flow",
            remedy="change that argument",
        )
    read = signals(task, space, index)
    n, _, k = read.root.shape
    z = torch.linalg.pinv(read.root) @ read.residual.unsqueeze(-1)  # r = S z
    z = z.flatten()
    example = torch.arange(n, device=z.device).repeat_interleave(k)
    rows = read.rows.combine(read.root.transpose(1, 2).flatten(0, 1), example)
    if space.size <= len(rows):
        whole = torch.cat([rows.formed(b) for b in space.blocks], 1)
        gradient = whole.t() @ z / n
        velocity = -_solved(whole.t() @ whole / n, damping, gradient)
        pushed = whole @ velocity
        squared_slope = -float(gradient @ velocity)
    else:
        gram = rows.dot(rows)
        weights = _solved(gram, n * damping, z)
        pushed = -gram @ weights
        velocity = -rows.transposed_times(weights)
        squared_slope = -float(z @ pushed) / n
    loss = task.likelihood.nll(read.outputs, read.y).sum() / n
    return NaturalStep(velocity, squared_slope, float(pushed.square().sum()) / n, float(loss))


def _solved(matrix: Tensor, damping: float, right: Tensor) -> Tensor:
    """(A + λI)⁻¹ b of a positive semi-definite A; its pseudo-inverse at λ = 0."""
    if damping > 0:
        matrix.diagonal().add_(damping)
        factor = torch.linalg.cholesky(matrix)
        matrix.diagonal().sub_(damping)
        return torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)
    values, vectors = torch.linalg.eigh(matrix)
    real = values > RELATIVE_ZERO * values[-1].clamp_min(1e-300)
    basis = vectors[:, real]
    solved: Tensor = basis @ ((basis.t() @ right) / values[real])
    return solved


@dataclass(frozen=True)
class NaturalFlow:
    """A natural-gradient flow, recorded at even times.

    Args:
        run: its states in float64, as a recorded training: ``Task(..., run=flow.run)``.
        damping: λ.
        method: of integration.
        n: number of examples that make metric and loss.
        loss: (S,) nats.
        squared_slope: ‖∇L‖²_{(F+λI)⁻¹}, (S,) nats.
        squared: (S−1, n) squared Fisher–Rao steps of the predictions.
        moved: ‖Δθ‖², (S−1,).
    """

    run: Run
    damping: float
    method: str
    n: int
    loss: Tensor
    squared_slope: Tensor
    squared: Tensor
    moved: Tensor

    @property
    def bought(self) -> float:
        """L(0) − L(T), nats."""
        return float(self.loss[0] - self.loss[-1])

    @property
    def _dt(self) -> Tensor:
        return torch.diff(torch.tensor(self.run.time, dtype=torch.float64))

    @property
    def spent(self) -> Measurement:
        """∫‖θ̇‖² dt in the metric F + λI, by the steps' lengths, nats: the loss bought, up to the step's error."""
        value = float(((self.squared.mean(1).cpu() + self.damping * self.moved) / self._dt).sum())
        return self._measured("natural_flow.spent", value, "Σ d²/Δt")

    @property
    def excess(self) -> Measurement:
        """∫(½‖θ̇‖² + ½‖∇L‖²) dt − (L(0) − L(T)) in the metric F + λI and its inverse, nats: 0 up to the step's error."""
        return self._measured("natural_flow.excess", self._excess(self.damping), "Σ d²/2Δt and trapezoid of ½ slope²")

    @property
    def excess_without_damping(self) -> Measurement:
        """The same with speeds read in F alone, nats: −½λ∫‖θ̇‖² dt up to the step's error, never above ``excess``."""
        return self._measured(
            "natural_flow.excess_without_damping", self._excess(0.0), "as natural_flow.excess, speeds in F alone"
        )

    @property
    def damping_term(self) -> float:
        """½λ∫‖θ̇‖² dt, nats: by how much ``excess_without_damping`` lies below ``excess``."""
        return float((0.5 * self.damping * self.moved / self._dt).sum())

    def _excess(self, damping: float) -> float:
        speed = (self.squared.mean(1).cpu() + damping * self.moved) / (2 * self._dt)
        slopes = self.squared_slope
        return float(speed.sum() + (self._dt * (slopes[1:] + slopes[:-1]) / 4).sum()) - self.bought

    def _measured(self, name: str, value: float, how: str) -> Measurement:
        note = f"λ = {self.damping:g}; exact for these examples up to the step"
        how = f"{how}, {len(self.loss) - 1} {self.method} steps"
        source = "amari1998, ambrosio2008"
        return Measurement(name, value, "nats", how, self.n, None, source, note=note)


@typed
def natural_gradient_flow(
    task: Task,
    duration: Annotated[float, POSITIVE],
    steps: Annotated[int, COUNT],
    *,
    damping: Annotated[float, SIZE] = 0.0,
    method: str = "heun2",
    index: Tensor | None = None,
) -> NaturalFlow:
    """Integrate θ̇ = −(F + λI)⁻¹∇L from the model's weights, in float64; the model is left as it was.

    Args:
        task: the model, its law and data.
        duration: in the flow's own time, in which the loss of a fitted model falls like e^{−t} or faster; 0 < duration.
        steps: even ones; each costs one to four exact natural gradients, whose memory
            :func:`memspace.action.natural.natural_descent` states.
        damping: λ ≥ 0.
        method: one of ``METHODS``.
        index: training examples that make metric and loss (all where not given).

    Returns:
        The path with what was spent and bought along it; exact for these examples up to the step.

    Raises:
        SettingsError: an unknown method, a negative damping, no step or no time.
    """
    if method not in METHODS:
        raise SettingsError(
            f"unknown method {method!r}; one of {', '.join(METHODS)}",
            where="natural_gradient_flow",
            remedy="change that argument",
        )
    space = ParameterSpace.of(task)
    chosen = torch.arange(len(task.train)) if index is None else as_index(index, len(task.train), "index")
    with _double(task.model):
        fixed = {n: t.detach().clone() for n, t in task.model.state_dict().items() if isinstance(t, Tensor)}

        def at(theta: Tensor) -> dict[str, Tensor]:
            moved = {n: t.detach().clone() for n, t in space.unpack(theta).items()}
            return {n: moved.get(n, t) for n, t in fixed.items()}

        def descent(theta: Tensor) -> NaturalStep:
            with holding(task.model, at(theta)):
                return natural_descent(task, space, chosen, damping)

        times = torch.linspace(0, duration, steps + 1, dtype=torch.float64)
        start = space.flat(task.model)
        with torch.no_grad():
            path: Any = odeint(lambda _, x: descent(x).velocity, start, times.to(start.device), method=method)
        states = tuple(at(x) for x in path)
        fs, y = [], torch.empty(0)
        for state in states:
            f, y = outputs(task, task.train, state=state, index=chosen)
            fs.append(f)
        slopes = [descent(x).squared_slope for x in path]
    law = task.likelihood
    weight = law.weight(fs[0], y)
    squared = torch.stack([squared_distances(law, a, b, weight) for a, b in itertools.pairwise(fs)])
    loss = torch.stack([law.nll(f, y).sum() / len(chosen) for f in fs]).cpu()
    return NaturalFlow(
        Run(states, tuple(times.tolist()), tuple(range(steps + 1)), optimiser="NaturalGradient"),
        damping,
        method,
        len(chosen),
        loss,
        torch.tensor(slopes, dtype=torch.float64),
        squared,
        path.diff(dim=0).square().sum(1).cpu(),
    )


@contextmanager
def _double(model: nn.Module) -> Iterator[None]:
    """The model's own tensors in float64 inside; a copy would not do (see ``checks.holding``)."""
    tensors = [*model.parameters(), *model.buffers()]
    before = [(t, t.data) for t in tensors if t.is_floating_point()]
    try:
        for t, data in before:
            t.data = data.double()
        yield
    finally:
        for t, data in before:
            t.data = data
