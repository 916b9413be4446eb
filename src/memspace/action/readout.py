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
from memspace.action.lengths import interval
from memspace.action.ratios import ratio_of
from memspace.action.states import HiddenStates, Tail
from memspace.errors import SettingsError
from memspace.geometry.distance import squared_distances
from memspace.geometry.path import walk
from memspace.measurement import Measurement, Unmeasured, from_samples
from memspace.task.checks import evaluating
from memspace.task.task import Task
from memspace.training.loss import example_losses

__all__ = ["LENSES", "Readouts", "prediction_action", "readouts"]

LENSES = ("tuned", "logit")
RIDGES = (1e-1, 1e-2, 1e-3, 1e-4)  # nats per squared entry of M, strongest first: each starts from the one before
STEPS = 25  # iterations of L-BFGS per ridge
WIDEST = 1024  # features above which a square map is not fitted
SOURCE = "belrose2023"

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
    layers, n = path.squared.shape
    ends = squared_distances(task.likelihood, read.f[0], read.f[-1], s.weight.double())
    how = f"{read.lens} lens"
    how += f" fitted on {read.fitted_on} other examples" if read.fitted_on else ""
    how += f", {layers + 1} read-outs on {n} examples, closed-form Fisher–Rao steps"
    length, time = path.length, torch.linspace(0, 1, layers + 1, dtype=torch.float64).tolist()
    action, ambient = path.action(time), float(ends.mean().sqrt())
    out = [
        Measurement(
            "depth.prediction_length",
            length,
            "nats^½",
            how,
            n,
            interval(length, path.length_effect()),
            SOURCE,
            note="summed over the positions of an example",
        ),
        Measurement(
            "depth.prediction_action", action, "nats", how, n, interval(action, path.action_effect(time)), SOURCE
        ),
    ]
    absent = []
    if ambient > 0:
        effect = (ends - ambient**2) / (2 * ambient)
        out.append(
            Measurement(
                "depth.prediction_distance",
                ambient,
                "nats^½",
                f"first to last read-out; {how}",
                n,
                interval(ambient, effect),
                "rao1945",
            )
        )
        ratio = length / ambient
        bounds = interval(ratio, path.length_effect() / ambient - ratio * effect / ambient)
        over = "length over distance of the ends, at least 1"
        out.append(Measurement("depth.prediction_inefficiency", ratio, "1", f"{over}; {how}", n, bounds, SOURCE))
        squared = layers / 2 * path.squared.sum(0)
        out.append(ratio_of("depth.prediction_ratio", squared, ends / 2, f"action over ½ distance²; {how}", SOURCE))
    else:
        absent.append(
            Unmeasured(
                "depth.prediction_inefficiency",
                "the first layer predicts what the last one does",
                "choose blocks that change the prediction",
            )
        )
    kl = torch.stack([_divergence(task, _doubled(s), f) for f in read.f])
    loss = torch.stack([example_losses(task.likelihood, f, s.y) for f in read.f])
    rows = {
        "prediction_step": tuple(
            Measurement(
                f"depth.prediction_step.{k}", float(step), "nats^½", how, n, interval(float(step), effect), SOURCE
            )
            for k, (step, effect) in enumerate(zip(path.steps, path.step_effects(), strict=True))
        ),
        "left_to_say": tuple(
            from_samples(
                f"depth.left_to_say.{k}", values, "nats", f"KL(final ‖ read-out), per prediction; {how}", source=SOURCE
            )
            for k, values in enumerate(kl)
        ),
        "readout_loss": tuple(
            from_samples(
                f"depth.readout_loss.{k}", values, "nats", f"loss of the read-out, per prediction; {how}", source=SOURCE
            )
            for k, values in enumerate(loss)
        ),
    }
    return out, absent, rows


def _doubled(s: HiddenStates) -> HiddenStates:
    return HiddenStates((), s.f.double(), s.y, s.weight.double())
