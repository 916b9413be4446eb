"""What the network would predict layer by layer, and how far that travels: the basis-free form of action along depth.

A read-out of layer l is the network's own head after an affine map of the features, f_l = head(h_l + M_l h_l + b_l)
("tuned lens", Belrose et al. 2023), fitted to the final predictions on training examples that are not measured on:
mean KL(p_L ‖ p_l) + ridge·‖M_l‖², the ridge chosen on a fifth of them held out. M_L = 0: the last read-out is the
network itself. "logit": no map at all. Steps between read-outs are Fisher–Rao distances in closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.action.chain import Chain
from memspace.action.lengths import distance_effect, interval
from memspace.action.quantities import state
from memspace.action.ratios import ratio_of
from memspace.action.states import HiddenStates, Tail
from memspace.errors import SettingsError
from memspace.geometry.distance import squared_distances
from memspace.geometry.path import Walk, walk
from memspace.measurement import Measurement, Unmeasured
from memspace.task.checks import evaluating
from memspace.task.task import Task
from memspace.training.loss import example_losses
from memspace.value import Value

__all__ = ["LENSES", "Readouts", "prediction_action", "readouts"]

LENSES = ("tuned", "logit")
RIDGES = (1e-1, 1e-2, 1e-3, 1e-4)  # nats per squared entry of M, strongest first: each starts from the one before
STEPS = 25  # iterations of L-BFGS per ridge
WIDEST = 1024  # features above which a square map is not fitted

Head = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Readouts:
    """Outputs of every layer on the measured examples.

    Args:
        f: (L + 1, n, ..., C) float64.
        lens: ``tuned`` or ``logit``.
        ridge: chosen per layer; empty without maps.
        fitted_on: number of examples the maps were fitted on.
    """

    f: Tensor
    lens: str
    ridge: tuple[float, ...]
    fitted_on: int


def readouts(
    task: Task,
    chain: Chain,
    measured: HiddenStates,
    fit: HiddenStates,
    tails: tuple[Tail, Tail],
    lens: str = "tuned",
    done: Callable[[], None] = lambda: None,
) -> Readouts | Unmeasured:
    """Read every layer out, with maps fitted on other examples.

    Args:
        task: the model, its law and data.
        chain: the blocks that make its depth.
        measured: hidden states of the examples measured on.
        fit: hidden states of those fitted on.
        tails: what follows from a hidden state, on the inputs of the two sets.
        lens: ``tuned`` or ``logit``.
        done: called after every layer.

    Returns:
        The outputs, or the reason why there are none.

    Raises:
        SettingsError: an unknown lens.
    """
    if lens not in LENSES:
        raise SettingsError(
            f"the lens is one of {', '.join(LENSES)}, got {lens!r}", where="lens", remedy="give one of these"
        )
    axis = 1 if measured.h[0].dim() > 3 else -1  # features: channels of a picture, else the last axis
    width = measured.h[0].shape[axis]
    if lens == "tuned" and width > WIDEST:
        why = f"a square map of {width:,} features is too large to fit"
        return Unmeasured("depth.prediction_length", why, "read out without a map: lens='logit'")
    layers, last = len(chain), len(chain)
    fs, chosen = [], []
    with evaluating(task.model):
        over, through = (t.shortened(last, s.h[last], s.f) for t, s in zip(tails, (measured, fit), strict=True))
        for k in range(layers):
            if lens == "tuned":
                m, b, ridge = _fitted(task, lambda h: through(last, h), fit, k, axis)
                chosen.append(ridge)
                h = _mapped(measured.h[k], m, b, axis)
            else:
                h = measured.h[k]
            with torch.no_grad():
                fs.append(over(last, h).double())
            done()
    return Readouts(torch.stack([*fs, measured.f.double()]), lens, tuple(chosen), len(fit.f) if chosen else 0)


def _mapped(h: Tensor, m: Tensor, b: Tensor, axis: int) -> Tensor:
    """h + M h + b along the axis of features."""
    moved = h.movedim(axis, -1)
    return h + (moved @ m.t() + b).movedim(-1, axis)


def _fitted(task: Task, head: Head, s: HiddenStates, layer: int, axis: int) -> tuple[Tensor, Tensor, float]:
    """M, b and the ridge of least divergence on the last fifth of the examples.

    The whole prefix of examples goes through the head each time, since nothing says that it treats them apart.
    """
    width, n = s.h[layer].shape[axis], len(s.f)
    validation = max(1, n // 5)
    m = torch.zeros(width, width, dtype=s.f.dtype, device=s.f.device)
    b = torch.zeros(width, dtype=s.f.dtype, device=s.f.device)
    best, choice = float("inf"), (m, b, RIDGES[0])
    for ridge in RIDGES:
        m, b = (t.clone().requires_grad_() for t in (m, b))
        descent = torch.optim.LBFGS([m, b], max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            descent.zero_grad()  # noqa: B023
            with torch.enable_grad():
                divergence = _divergence(task, s, head(_mapped(s.h[layer], m, b, axis)))  # noqa: B023
                value = divergence[: n - validation].mean() + ridge * m.square().sum()  # noqa: B023
            m.grad, b.grad = torch.autograd.grad(value, [m, b])  # noqa: B023
            return value.detach()

        descent.step(loss)  # type: ignore[no-untyped-call]
        m, b = m.detach(), b.detach()
        with torch.no_grad():
            error = float(_divergence(task, s, head(_mapped(s.h[layer], m, b, axis)))[n - validation :].mean())
        if not error < best:
            break
        best, choice = error, (m, b, ridge)
    return choice


def _divergence(task: Task, s: HiddenStates, f: Tensor) -> Tensor:
    """KL(p_L ‖ p_l) of every example, mean over its positions, (n,)."""
    divergence = task.likelihood.kl(s.f, f) * s.weight
    return divergence.reshape(len(f), -1).sum(1) / s.weight.reshape(len(f), -1).sum(1).clamp_min(1)


def prediction_action(
    task: Task, s: HiddenStates, read: Readouts
) -> tuple[list[Measurement], list[Unmeasured], dict[str, tuple[Measurement, ...]]]:
    """State Fisher–Rao length and action of the read-outs, their excess over the shortest way, and every layer's row.

    Args:
        task: the model and its law.
        s: hidden states of the measured examples.
        read: outputs of every layer on them.

    Returns:
        Measurements, what could not be measured, and one measurement a layer by quantity.
    """
    path = walk(task.likelihood, read.f, s.weight.double())
    ends = squared_distances(task.likelihood, read.f[0], read.f[-1], s.weight.double())
    how = _how(read, path)
    whole, absent = _whole(path, ends, how)
    return whole, absent, _rows(task, s, read, path, how)


def _how(read: Readouts, path: Walk) -> str:
    layers, n = path.squared.shape
    fitted = f" fitted on {read.fitted_on} other examples" if read.fitted_on else ""
    return f"{read.lens} lens{fitted}, {layers + 1} read-outs on {n} examples"


def _whole(path: Walk, ends: Tensor, how: str) -> tuple[list[Measurement], list[Unmeasured]]:
    """Length and action of the read-outs, and both over the least possible between the same ends."""
    layers, n = path.squared.shape
    length, time = path.length, torch.linspace(0, 1, layers + 1, dtype=torch.float64).tolist()
    action, ambient = path.action(time), float(ends.mean().sqrt())
    note = "summed over the positions of an example"
    values = {
        "depth.prediction_length": Value(length, n, interval(length, path.length_effect()), how=how, note=note),
        "depth.prediction_action": Value(action, n, interval(action, path.action_effect(time)), how=how),
    }
    absent = []
    if ambient > 0:
        effect, ratio = distance_effect(ends), length / ambient
        bounds = interval(ratio, path.length_effect() / ambient - ratio * effect / ambient)
        values["depth.prediction_distance"] = Value(ambient, n, interval(ambient, effect), how=how)
        values["depth.prediction_inefficiency"] = Value(ratio, n, bounds, how=how)
        values["depth.prediction_ratio"] = ratio_of(layers / 2 * path.squared.sum(0), ends / 2, how)
    else:
        same = "the first layer predicts what the last one does"
        absent.append(Unmeasured("depth.prediction_inefficiency", same, "choose blocks that change the prediction"))
    return [state(name, value) for name, value in values.items()], absent


def _rows(task: Task, s: HiddenStates, read: Readouts, path: Walk, how: str) -> dict[str, tuple[Measurement, ...]]:
    """Layer by layer: the step to the next read-out, what is left to say, and the read-out's loss."""
    n, final = path.squared.shape[1], _doubled(s)
    steps = zip(path.steps.tolist(), path.step_effects(), strict=True)
    rows = {
        "prediction_step": [Value(step, n, interval(step, effect), how=how) for step, effect in steps],
        "left_to_say": [Value.mean(_divergence(task, final, f), how=how) for f in read.f],
        "readout_loss": [Value.mean(example_losses(task.likelihood, f, s.y), how=how) for f in read.f],
    }
    return {
        row: tuple(state(f"depth.{row}", value, k) for k, value in enumerate(values)) for row, values in rows.items()
    }


def _doubled(s: HiddenStates) -> HiddenStates:
    return HiddenStates((), s.f.double(), s.y, s.weight.double())
