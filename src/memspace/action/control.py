"""Is the trained network an optimal control? Pontryagin's conditions, layer by layer (see ``memspace.action.adjoint``).

* Stationarity: ∂H_l/∂θ_l = 0. It is the gradient of the loss with its decay, so it tells how far training went.
* Conservation: H_l the same at every layer. It holds, up to terms of order 1/L, for an optimal control of layers that
  are all of one form; of other networks it says nothing.
* Maximality: no other θ gives a larger H_l with the states and co-states as they are. Stronger than stationarity, and
  one-sided: a θ that does refutes, none found proves nothing. A discrete network needs it in the limit of small steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from memspace.action.adjoint import Adjoint, adjoint
from memspace.action.calls import held, with_state
from memspace.action.chain import Chain, DepthBlock
from memspace.action.lengths import interval
from memspace.action.quantities import state
from memspace.intervals import margin
from memspace.measurement import Measurement, Unmeasured
from memspace.task.checks import untouched
from memspace.task.data import Batch, move
from memspace.task.functional import functional_call
from memspace.task.observed import state_of
from memspace.task.task import Task
from memspace.training.loss import example_losses
from memspace.value import Absent, Value

__all__ = ["Control", "control"]

ALONE = 64  # examples whose gradients are taken one by one, for the scale of a residual
MAXIMALITY = 128  # examples that changed parameters are tried on, at most one batch


@dataclass(frozen=True)
class Control:
    """Pontryagin's conditions as measured.

    Args:
        measurements: of the whole depth.
        unmeasured: what could not be measured, with the reason.
        layers: quantity → one measurement a layer.
    """

    measurements: tuple[Measurement, ...]
    unmeasured: tuple[Unmeasured, ...]
    layers: dict[str, tuple[Measurement, ...]]


def control(
    task: Task,
    chain: Chain,
    index: Tensor,
    *,
    draws: int = 16,
    radius: float = 0.1,
    seed: int = 0,
    batch: int = 64,
) -> Control:
    """Check Pontryagin's conditions on training examples.

    The loss is training's: of a sequence the mean over its positions, with (λ/2)‖θ‖², λ = ``task.decay``.

    Args:
        task: the model, its law and data.
        chain: the blocks that make its depth.
        index: places of the training examples, (n,).
        draws: changed parameters tried per layer.
        radius: size of a change, relative to each parameter tensor.
        seed: of the changes.
        batch: examples read at a time.

    Returns:
        Stationarity, conservation and maximality, whole and layer by layer.
    """
    decay = task.decay or 0.0
    if not any(_trainable(b.module) for b in chain.blocks):
        why, remedy = "the parameters of all blocks are held fixed", "ask about a network whose layers were trained"
        names = ("depth.stationarity", "depth.hamiltonian_variation", "depth.raised_by_chance")
        return Control((), tuple(Unmeasured(name, why, remedy) for name in names), {})
    with untouched(task.model):
        solutions = [_solved(task, chain, part) for part in task.train.batches(batch, index)]
        hamiltonian = torch.cat([a.hamiltonian for a in solutions], 1).double()
        gradient = [
            {
                n: sum((a.gradient[k][n] for a in solutions), torch.zeros(())) / len(index)
                for n in solutions[0].gradient[k]
            }
            for k in range(len(chain))
        ]
        alone = [_solved(task, chain, part).gradient for part in task.train.batches(1, index[:ALONE])]
        for k, b in enumerate(chain.blocks):
            hamiltonian[k] -= decay / 2 * _squared(_trainable(b.module))
        stationary = _stationarity(task, chain, gradient, alone, len(index), decay)
        maximal = _maximality(task, chain, index[: min(MAXIMALITY, batch)], decay, draws, radius, seed)
    n = len(index)
    how = f"λ = {decay:g}, co-states of {n} training examples"
    # The problem is that of the training data: read on all of them it is exact, else off by what is left outside.
    outside = max(0.0, 1 - n / len(task.train))
    of_layers = [_within(Value.mean(values, how=how), outside) for values in hamiltonian]
    rows = {
        "hamiltonian": tuple(state("depth.hamiltonian", value, k) for k, value in enumerate(of_layers)),
        "stationarity": tuple(state("depth.stationarity", value, k) for k, value in stationary.items()),
    }
    worst = max(stationary.values(), key=lambda value: value.value)
    measured = [state("depth.stationarity", replace(worst, how=f"largest of the layers, {worst.how}"))]
    absent = []
    conserved = _conservation(chain, hamiltonian, how, outside)
    if isinstance(conserved, Absent):
        absent.append(Unmeasured("depth.hamiltonian_variation", conserved.reason, conserved.remedy))
    else:
        measured.append(state("depth.hamiltonian_variation", conserved))
    measured.append(state("depth.raised_by_chance", maximal))
    return Control(tuple(measured), tuple(absent), rows)


def _solved(task: Task, chain: Chain, part: Batch) -> Adjoint:
    y = move(part.y, task.device)
    x = move(part.x, task.device, task.dtype)
    return adjoint(task.model, chain, x, lambda f: example_losses(task.likelihood, f, y))


def _trainable(module: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach() for n, p in module.named_parameters() if p.requires_grad}


def _squared(tensors: dict[str, Tensor]) -> float:
    return sum(float(t.double().square().sum()) for t in tensors.values())


def _stationarity(
    task: Task,
    chain: Chain,
    gradient: list[dict[str, Tensor]],
    alone: list[tuple[dict[str, Tensor], ...]],
    n: int,
    decay: float,
) -> dict[int, Value]:
    """Per module ‖∂H/∂θ‖ over what it would be if nothing cancelled; calls of one module count together."""
    out: dict[int, Value] = {}
    seen: set[int] = set()
    for k, block in enumerate(chain.blocks):
        calls = [j for j, b in enumerate(chain.blocks) if b.module is block.module]
        if id(block.module) in seen or not gradient[k]:
            continue
        seen.add(id(block.module))
        theta = _trainable(block.module)
        pull = {t: sum((gradient[j][t] for j in calls), torch.zeros(())).double() for t in theta}
        squares = torch.tensor([_squared(_summed([a[j] for j in calls])) for a in alone], dtype=torch.float64)
        scale = float(squares.mean().sqrt()) + decay * _squared(theta) ** 0.5
        residual = _squared({t: pull[t] - decay * theta[t].double() for t in theta}) ** 0.5
        value = residual / scale if scale > 0 else 0.0
        outside = max(0.0, 1 - n / len(task.train))  # sampling error of a subset of the training data
        noise = (outside * max(0.0, float(squares.mean()) - _squared(pull)) / n) ** 0.5 / scale if scale > 0 else 0.0
        out[k] = Value(
            value,
            n,
            (max(0.0, value - 2 * noise), value + 2 * noise) if noise else None,
            how=f"{n} examples, scale from {len(alone)}",
            reliable=value > 2 * noise or noise == 0,
            note=f"{block.title}: sampling {n} of {len(task.train)} examples alone makes {noise:.2g}"
            if noise
            else f"{block.title}: 0 at a stationary point, 1 where nothing cancels",
        )
    return out


def _summed(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {n: sum((p[n] for p in parts), torch.zeros(())) for n in parts[0]}


def _within(mean: Value, outside: float) -> Value:
    """The interval of a finite population of which a share was not looked at; none where all was."""
    if mean.interval is None or outside == 0:
        return replace(mean, interval=None)
    low, high = (mean.value + outside**0.5 * (end - mean.value) for end in mean.interval)
    return replace(mean, interval=(low, high))


def _conservation(chain: Chain, hamiltonian: Tensor, how: str, outside: float) -> Value | Absent:
    """Coefficient of variation of the mean Hamiltonian over depth."""
    if not chain.homogeneous:
        why = "the layers differ in class or shape, so nothing says that H should be the same at all"
        return Absent(why, "choose blocks of one form")
    means = hamiltonian.mean(1)
    middle, spread = float(means.mean()), float(means.std(correction=0))
    if middle == 0:
        return Absent("the Hamiltonian is zero", "measure a network that was trained, not to the end")
    value = spread / abs(middle)
    at = hamiltonian - means.unsqueeze(1)
    along = ((means - middle).unsqueeze(1) * at).mean(0) / max(spread, 1e-300)
    effect = along / abs(middle) - spread * at.mean(0) * (1 if middle > 0 else -1) / middle**2
    mean = _within(Value.mean(hamiltonian.mean(0)), outside)
    low, high = mean.interval or (middle, middle)
    variation = Value(
        value,
        hamiltonian.shape[1],
        interval(value, effect),
        how=f"{len(chain)} layers; {how}",
        reliable=not low <= 0 <= high,
        note="constant only for layers of one form, an optimal control and many layers",
    )
    return _within(variation, outside)


def _maximality(task: Task, chain: Chain, index: Tensor, decay: float, draws: int, radius: float, seed: int) -> Value:
    """The share of random changes of a layer's parameters that raise its Hamiltonian."""
    part = task.train.batch(index)
    generator = torch.Generator().manual_seed(seed + 31)
    with _inputs(chain) as inputs:
        a = _solved(task, chain, part)
    raised = tried = 0
    with torch.no_grad():
        for k, block in enumerate(chain.blocks):
            theta = _trainable(block.module)
            if not theta:
                continue
            before = _run(block, theta, inputs[k], a.h[k])
            for _ in range(draws):
                changed = _changed(theta, radius, generator)
                after = _run(block, changed, inputs[k], a.h[k])
                gain = float((a.p[k + 1].double() * (after.double() - before.double())).sum()) / len(index)
                raised += gain - decay / 2 * (_squared(changed) - _squared(theta)) > 0
                tried += 1
    share = raised / max(tried, 1)
    centre, half = _wilson(share, max(tried, 1))
    return Value(
        share,
        tried,
        (max(0.0, centre - half), min(1.0, centre + half)),
        how=f"{tried} of relative size {radius:g}, {draws} a layer, {len(index)} training examples",
        note="0 at a maximum of H, ½ where H is level; one-sided: none found proves nothing",
    )


def _changed(theta: dict[str, Tensor], radius: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Every tensor moved by ``radius`` of its norm (of the block's root mean square, where it is zero)."""
    typical = (_squared(theta) / sum(t.numel() for t in theta.values())) ** 0.5
    out = {}
    for n, t in theta.items():
        step = torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t)
        size = float(t.norm()) or typical * t.numel() ** 0.5
        out[n] = t + radius * size * step / step.norm().clamp_min(1e-30)
    return out


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Centre and half-width of the 95% score interval of a share."""
    z = margin(1.0)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    return centre, z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)


@contextmanager
def _inputs(chain: Chain) -> Iterator[list[tuple[Any, Any]]]:
    """Record what each block is called with, in the next forward pass.

    Yields:
        Arguments and keywords of every block.
    """
    inputs: list[tuple[Any, Any]] = [((), {}) for _ in chain.blocks]
    turns: dict[int, int] = {}
    layer = {(id(b.module), b.turn): k for k, b in enumerate(chain.blocks)}

    def keep(module: nn.Module, args: Any, kwargs: Any) -> None:
        turn = turns.get(id(module), 0)
        turns[id(module)] = turn + 1
        if (id(module), turn) in layer:
            inputs[layer[id(module), turn]] = held((args, kwargs))

    modules = {id(b.module): b.module for b in chain.blocks}
    handles = [m.register_forward_pre_hook(keep, with_kwargs=True) for m in modules.values()]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


def _run(block: DepthBlock, theta: dict[str, Tensor], given: tuple[Any, Any], h: Tensor) -> Tensor:
    """The block's hidden state with other parameters, everything else it is given as it was."""
    args, kwargs = held(given)
    if state_of(args) is not None:
        args = with_state(args, h)
    else:
        kwargs = with_state(kwargs, h)
    out = state_of(functional_call(block.module, theta, args, kwargs))
    assert out is not None
    return out
