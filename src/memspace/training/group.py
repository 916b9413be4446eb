"""One group of networks trained in step: their gradients by one of two ways, one optimiser for all of them.

The weights of the group lie in one tensor per parameter, (G, ...). The optimisers work elementwise, so that one fused
update of the stacked tensors is G updates, exactly.

Gradients, ``stacked``: one forward pass of all networks by ``torch.func.vmap``, one backward pass of the sum of their
losses (whose gradient in the stack is every network's own gradient). ``in turn``: one network after another, each a
module whose weights are views of the stack. On a GPU the stack wins. On a CPU it wins only while a network's step is so
small that calling the operations costs more than computing them; see :func:`stack`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import vmap

from memspace.errors import StochasticModelError
from memspace.task.data import Inputs, call_model, first_tensor, take
from memspace.task.functional import functional_call
from memspace.task.likelihood import Likelihood
from memspace.task.recipe import Recipe, Training
from memspace.training.draws import draw
from memspace.training.loss import example_losses
from memspace.training.networks import Networks, arguments

__all__ = ["GroupJob", "prepare", "stack", "train"]

# Numbers in one network's widest signal of a step, below which stacking networks is the faster way on a CPU. Measured
# on 64-128-128-10: a batch of 128 (16,384 numbers) 0.42 ms stacked and 0.58 in turn, 256: 0.91 and 0.90, 512: 1.8 and
# 1.5. Convolutions become grouped ones, which are never faster there.
SMALL = 2**15


@dataclass(frozen=True)
class GroupJob:
    """A group's work.

    Args:
        models: the networks at their initialisation; the work is done in them.
        batches: per network and step, positions (b,) within the network's own examples. Networks of one seed share one.
        rates: per step, the learning rate.
        index: (G, m) each network's examples, or None where all train on all.
        weights: (G, N) of the examples, or None for ones.
    """

    models: tuple[nn.Module, ...]
    batches: tuple[tuple[Tensor, ...], ...]
    rates: tuple[float, ...]
    index: Tensor | None
    weights: Tensor | None


def prepare(training: Training, n: int, seeds: Sequence[int], index: Tensor | None, weights: Tensor | None) -> GroupJob:
    """Draw what the group's trainings draw at random. Not for several threads: the random state is torch's own.

    Args:
        training: the network and the recipe.
        n: number of examples each network trains on.
        seeds: one a network.
        index: (G, m) each network's examples, or None where all train on all.
        weights: (G, N) of the examples, or None for ones.

    Returns:
        The group's work.
    """
    drawn = {s: draw(training, n, s) for s in dict.fromkeys(seeds)}
    models = tuple(copy.deepcopy(drawn[s].model) for s in seeds)
    return GroupJob(models, tuple(drawn[s].batches for s in seeds), drawn[seeds[0]].rates, index, weights)


def check_repeatable(model: nn.Module) -> None:
    """Refuse a network that draws dropout masks while it trains: they cannot be drawn ahead.

    Args:
        model: the network in the mode it trains in.

    Raises:
        StochasticModelError: a module draws masks.
    """
    for name, module in model.named_modules():
        share = module.p if isinstance(module, nn.modules.dropout._DropoutNd) else getattr(module, "dropout", 0.0)
        if module.training and isinstance(share, float) and share > 0:
            raise StochasticModelError(
                f"the network draws dropout masks while it trains (p = {share:g})",
                where=f"module {name}" if name else type(model).__name__,
                remedy="train without dropout, or let make() return a network whose dropout is in eval mode",
            )


def stack(model: nn.Module, numbers: int, device: torch.device) -> bool:
    """Decide whether the networks' gradients are taken from one stacked pass.

    Args:
        model: one of the networks.
        numbers: in one network's widest signal of a step.
        device: where they train.

    Returns:
        True where stacking is possible and faster.
    """
    modules = list(model.modules())
    if any(isinstance(m, nn.modules.batchnorm._NormBase | nn.RNNBase) for m in modules):
        return False
    if device.type != "cpu":
        return True
    return numbers <= SMALL and not any(isinstance(m, nn.modules.conv._ConvNd) for m in modules)


@torch.enable_grad()
def train(
    job: GroupJob,
    *,
    recipe: Recipe,
    data: tuple[Inputs, Tensor],
    likelihood: Likelihood,
    stacked: bool,
    tick: Callable[[], None],
) -> Networks:
    """Train the group's networks.

    Args:
        job: networks, batches and rates.
        recipe: its optimiser is used.
        data: all inputs and labels, on the device.
        likelihood: the output law.
        stacked: take gradients from one stacked pass.
        tick: called after every step; may raise to stop.

    Returns:
        The trained networks.
    """
    x, y = data
    models = [m.to(first_tensor(x).device) for m in job.models]
    params = _shared(models)
    trained = {n: params[n].requires_grad_() for n, p in models[0].named_parameters() if p.requires_grad}
    take_gradients = _Stacked(models, params) if stacked else _InTurn(models, trained)
    optimiser = recipe.descent(trained.values(), fused=True)
    batches = _Batches(job, x, y)
    for step, rate in enumerate(job.rates):
        for group in optimiser.param_groups:
            group["lr"] = rate
        part = batches.at(step)
        grads = take_gradients(part, trained, likelihood)
        for p, g in zip(trained.values(), grads, strict=True):
            p.grad = None if g is None else g.contiguous()  # the fused update reads it as laid out like p
        optimiser.step()
        tick()
    buffers = {
        n: torch.stack([dict(m.named_buffers())[n].detach() for m in models]) for n, _ in models[0].named_buffers()
    }
    template = models[0].eval()
    for t in template.parameters():  # so that it does not keep the group's stack alive
        t.data, t.grad = t.data.clone(), None
    return Networks(template, {n: p.detach() for n, p in params.items()}, buffers)


def _shared(models: list[nn.Module]) -> dict[str, Tensor]:
    """Stack the models' parameters and let each model's own be views of the stack."""
    named = [dict(m.named_parameters()) for m in models]
    stacked = {n: torch.stack([one[n].detach() for one in named]) for n in named[0]}
    for k, one in enumerate(named):
        for n, p in one.items():
            p.data = stacked[n][k]
    return stacked


@dataclass(frozen=True)
class _Part:
    """A step's examples: inputs (G, b, ...) and labels, or (b, ...) where ``common``; weights (G, b) or None."""

    x: Inputs
    y: Tensor
    weights: Tensor | None
    common: bool

    def of(self, k: int) -> tuple[Inputs, Tensor, Tensor | None]:
        """Network k's share."""
        w = None if self.weights is None else self.weights[k]
        return (self.x, self.y, w) if self.common else (take(self.x, k), self.y[k], w)


class _Batches:
    """The examples of every step; what never changes is gathered once."""

    def __init__(self, job: GroupJob, x: Inputs, y: Tensor) -> None:
        self._job, self._x, self._y = job, x, y
        n = len(y) if job.index is None else job.index.shape[1]
        first = job.batches[0]
        whole = len(first[0]) == n  # all at once at every step
        self._common = job.index is None and (whole or all(b is first for b in job.batches))
        self._whole = self._part(0) if whole else None

    def at(self, step: int) -> _Part:
        return self._whole or self._part(step)

    def _part(self, step: int) -> _Part:
        job, device = self._job, self._y.device
        at = (job.batches[0][step] if self._common else torch.stack([b[step] for b in job.batches])).to(device)
        w = job.weights
        if w is not None:
            w = w[:, at] if self._common else w.gather(1, at)
        where = at if job.index is None else job.index.gather(1, at)
        return _Part(take(self._x, where), self._y[where], w, self._common)


class _Stacked:
    """Gradients of all networks from one forward and one backward pass."""

    def __init__(self, models: list[nn.Module], params: dict[str, Tensor]) -> None:
        self._model = models[0]
        self._frozen = {n: p for n, p in params.items() if not p.requires_grad}
        named = [dict(m.named_buffers()) for m in models]
        self._buffers = {
            n: torch.stack([one[n] for one in named])
            for n, b in named[0].items()
            if not all(torch.equal(b, one[n]) for one in named)
        }

    def __call__(self, part: _Part, trained: dict[str, Tensor], likelihood: Likelihood) -> Sequence[Tensor | None]:
        constants = self._frozen | self._buffers

        def forward(mine: dict[str, Tensor], x: Inputs) -> Tensor:
            f: Tensor = functional_call(self._model, mine, *arguments(x))
            return f

        f = vmap(forward, in_dims=(0, None if part.common else 0))(trained | constants, part.x)
        y = part.y.expand(len(f), *part.y.shape) if part.common else part.y
        losses = example_losses(likelihood, f, y, axes=2)
        if part.weights is not None:
            losses = losses * part.weights
        return torch.autograd.grad(losses.sum() / losses.shape[1], list(trained.values()), allow_unused=True)


class _InTurn:
    """Gradients of one network after the other, written into one stack."""

    def __init__(self, models: list[nn.Module], trained: dict[str, Tensor]) -> None:
        self._models = models
        self._own = [[p for p in m.parameters() if p.requires_grad] for m in models]
        self._grads = [torch.zeros_like(p) for p in trained.values()]

    def __call__(self, part: _Part, trained: dict[str, Tensor], likelihood: Likelihood) -> Sequence[Tensor | None]:
        unused: set[int] = set()
        for k, (model, parameters) in enumerate(zip(self._models, self._own, strict=True)):
            x, y, w = part.of(k)
            losses = example_losses(likelihood, call_model(model, x), y)
            if w is not None:
                losses = losses * w
            grads: Sequence[Tensor | None] = torch.autograd.grad(
                losses.sum() / len(losses), parameters, allow_unused=True
            )
            for i, g in enumerate(grads):
                if g is None:
                    unused.add(i)
                else:
                    self._grads[i][k].copy_(g)
        return [None if i in unused else g for i, g in enumerate(self._grads)]
