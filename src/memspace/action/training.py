"""The action of a recorded training, and how far it is from least action.

Along natural-gradient flow θ̇ = −F⁻¹∇L the action spent equals the loss bought. For any path the energy–dissipation
excess ∫(½‖θ̇‖²_F + ½‖∇L‖²_{F⁻¹}) dt − (L(0) − L(T)) is non-negative. It depends on the clock; its least value over
all clocks, ∫‖θ̇‖_F ‖∇L‖_{F⁻¹} dt − (L(0) − L(T)), does not, and is the principal number here.

The slope ‖∇L‖_{F⁻¹} is computed exactly on a probe set: with rows R_i = S_iᵀJ_i (n·K rows) and gradient
∇L = (1/n) Σ J_iᵀ g_i = (1/n) Rᵀ u, u_i = S_i⁺ g_i, the pseudo-inverse gives ‖∇L‖²_{F⁻¹} = (1/n) ‖Π u‖², Π the
projector on the range of R. Damping λ replaces Π by K(K + nλ)⁻¹, K = R Rᵀ: a lower value, so the excess is
conservative.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.geometry.distance import output_distance
from memspace.geometry.path import Walk, outputs_along, straight_line, walk
from memspace.measurement import Measurement, Unmeasured
from memspace.passes.cotangent import output_cotangents
from memspace.passes.engine import run_pass
from memspace.passes.rows import CollectRows
from memspace.passes.statistics import Outputs
from memspace.progress import Progress
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["TrainingAction", "slope", "training_action"]

LINE_POINTS = 33


@dataclass(frozen=True)
class TrainingAction:
    """What was measured along a run; arrays are per checkpoint, for plotting."""

    measurements: tuple[Measurement, ...]
    unmeasured: tuple[Unmeasured, ...]
    time: tuple[float, ...]
    step: tuple[int, ...]
    loss: tuple[float, ...]
    length: tuple[float, ...]
    slope: tuple[float, ...]


def slope(task: Task, space: ParameterSpace, index: Tensor, damping: float, batch: int = 128) -> float:
    """‖∇L‖²_{(F+λI)⁻¹} of the mean loss over the probe examples, nats; exact on those examples (float64)."""
    rows, table = CollectRows(space.blocks, "jacobian"), Outputs()
    run_pass(task, space, [rows, table], index=index, batch=batch)
    jacobian, t = rows.finish(), table.finish()
    f, n, c = t["f"].double(), len(index), t["f"].shape[-1]
    gradient = task.likelihood.residual(f, t["y"])
    gram = jacobian.dot(jacobian)
    root = output_cotangents("exact", task.likelihood, f, t["y"]).permute(1, 2, 0)  # (n, C, K)
    k = root.shape[-1]
    moved = torch.einsum("ick,icr->ikr", root, gram.reshape(n, c, n * c)).reshape(n * k, n, c)
    dual = torch.einsum("rjc,jck->rjk", moved, root).reshape(n * k, n * k)
    right = torch.einsum("rjc,jc->r", moved, gradient) / n  # R ∇L
    squared = float(torch.einsum("ic,icr,r->", gradient, gram.reshape(n, c, n * c), gradient.flatten())) / n**2
    eye = torch.eye(len(dual), dtype=dual.dtype, device=dual.device)
    held = torch.linalg.solve(dual + n * damping * eye, right)
    return max(0.0, (squared - float(right @ held)) / damping)


def training_action(
    task: Task, *, probe: int = 512, slope_probe: int = 96, seed: int = 0, progress: Progress
) -> TrainingAction:
    """Length, action, loss bought and action excess of ``task.run``, on a random probe set of training examples.

    Args:
        probe: examples predictions are followed on; slope_probe: examples the slope ‖∇L‖_{F⁻¹} is computed on.
    """
    run = task.run
    if run is None or len(run.states) < 3:
        reason = Unmeasured(
            "action",
            "no checkpoints of the training were recorded",
            "record them: Task(run=Run(states, time, step))",
        )
        return TrainingAction((), (reason,), (), (), (), (), ())
    law = task.likelihood
    generator = torch.Generator().manual_seed(seed + 9)
    index = torch.randperm(len(task.train), generator=generator)[:probe].sort().values
    f, y = outputs_along(task, run.states, index, progress, "following the training path")
    weight = law.weight(f[0], y)
    path = walk(law, f, weight)
    positions = float(weight.sum()) / len(index)
    losses = [float(law.nll(x, y).sum()) / len(index) for x in f]
    bought = losses[0] - losses[-1]
    line_f, _ = outputs_along(
        task, straight_line(run.states[0], run.states[-1], LINE_POINTS), index, progress, "straight line"
    )
    line = walk(law, line_f, weight)
    ambient, ambient_error = output_distance(law, f[0], f[-1], weight)
    n, m = len(index), len(run.states)
    how = f"{m} checkpoints, closed-form Fisher–Rao steps on {n} probe examples"
    e = 1.96 * path.length_error()
    length = path.length
    action = path.action(run.time)
    measurements = [
        Measurement(
            "action.length",
            length,
            "nats^½",
            how,
            n,
            (length - e, length + e),
            "THEORY 3",
            note=f"a finer recording can only lengthen it; the last halving added {path.error:.2g}",
        ),
        Measurement(
            "action.constant_speed",
            length**2 / 2,
            "nats",
            f"½L² at T = 1; {how}",
            n,
            ((length - e) ** 2 / 2, (length + e) ** 2 / 2),
            "THEORY 3",
        ),
        Measurement(
            "action.learning_rate_time",
            action,
            "nats per learning-rate time",
            f"½ Σ d²/Δt; {how}",
            n,
            None,
            "THEORY 4",
            note="depends on the clock",
        ),
        Measurement(
            "action.loss_bought",
            bought,
            "nats",
            "training loss at the first less the last checkpoint, probe examples",
            n,
        ),
        _line_length(line, n),
        Measurement(
            "action.ambient_distance",
            ambient,
            "nats^½",
            "closed form, first to last checkpoint",
            n,
            (ambient - 1.96 * ambient_error, ambient + 1.96 * ambient_error),
            "Rao 1945",
        ),
        Measurement(
            "action.inefficiency",
            length / ambient,
            "1",
            "path length over ambient distance",
            n,
            None,
            "THEORY 4",
        ),
        Measurement("action.over_straight_line", length / line.length, "1", "path length over straight-line length", n),
    ]
    unmeasured: tuple[Unmeasured, ...] = ()
    slopes: list[float] = []
    if f.dim() > 3:
        unmeasured = (
            Unmeasured(
                "action.excess",
                "the slope of a sequence model needs every position's rows",
                "use a model with one prediction per example",
            ),
        )
    else:
        slopes = _slopes(task, run.states, index[torch.randperm(n, generator=generator)[:slope_probe]], progress)
        measurements += _excess(path, slopes, run.time, bought, len(index))
    _ = positions
    cumulative = [0.0, *torch.cumsum(path.steps, 0).tolist()]
    return TrainingAction(
        tuple(measurements), unmeasured, run.time, run.step, tuple(losses), tuple(cumulative), tuple(slopes)
    )


def _line_length(line: Walk, n: int) -> Measurement:
    e = 1.96 * line.length_error()
    return Measurement(
        "action.straight_line_length",
        line.length,
        "nats^½",
        f"{LINE_POINTS} points between first and last checkpoint",
        n,
        (line.length - e, line.length + e),
        note=f"the last halving added {line.error:.2g}",
    )


def _slopes(task: Task, states: Sequence[dict[str, Tensor]], index: Tensor, progress: Progress) -> list[float]:
    """‖∇L‖_{F⁻¹} at every checkpoint, on a copy of the model."""
    import copy

    model: nn.Module = copy.deepcopy(task.model)
    moved = Task(model=model, train=task.train, likelihood=task.likelihood)
    space = ParameterSpace(model)
    out = []
    for state in progress.track(states, "slope at every checkpoint", len(states)):
        model.load_state_dict(state)
        damping = 1e-6 * _scale(moved, space, index)
        out.append(slope(moved, space, index.sort().values, damping) ** 0.5)
    return out


def _scale(task: Task, space: ParameterSpace, index: Tensor) -> float:
    """A mean squared gradient norm, so that the damping is relative."""
    from memspace.passes.statistics import GradientNorms

    norms = GradientNorms(space.blocks, "mc")
    run_pass(task, space, [norms], index=index[:32], batch=32)
    return max(float(norms.finish()["norms"].sum(1).mean()), 1e-12)


def _excess(path: Walk, slopes: list[float], time: Sequence[float], bought: float, n: int) -> list[Measurement]:
    s = torch.tensor(slopes, dtype=torch.float64)
    middle = (s[1:] + s[:-1]) / 2
    steps = path.steps.cpu()
    dt = torch.diff(torch.tensor(list(time), dtype=torch.float64))
    free = float((steps * middle).sum()) - bought
    slope_term = float((0.5 * ((s[1:].square() + s[:-1].square()) / 2) * dt).sum())
    clocked = path.action(time) + slope_term - bought
    # Trapezoid through every second checkpoint: what the discretisation is worth.
    keep = list(range(0, len(s), 2))
    if keep[-1] != len(s) - 1:
        keep.append(len(s) - 1)
    coarse = sum(float(steps[a:b].sum()) * float((s[a] + s[b]) / 2) for a, b in itertools.pairwise(keep)) - bought
    error = abs(free - coarse)
    return [
        Measurement(
            "action.excess",
            free,
            "nats",
            "∫‖θ̇‖_F ‖∇L‖_{F⁻¹} dt less the loss bought (least over all clocks), trapezoid over checkpoints",
            n,
            (free - error, free + error),
            "De Giorgi; Ambrosio, Gigli & Savaré 2008",
            note="interval: change when every second checkpoint is dropped",
        ),
        Measurement(
            "action.excess_learning_rate_time",
            clocked,
            "nats",
            "∫(½‖θ̇‖²_F + ½‖∇L‖²_{F⁻¹}) dt less the loss bought, in learning-rate time",
            n,
            None,
            "De Giorgi; Ambrosio, Gigli & Savaré 2008",
            note="depends on the clock",
        ),
    ]
