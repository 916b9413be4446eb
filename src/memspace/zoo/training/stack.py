"""Networks of equal shapes trained in step: their weights are the rows of one matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import vmap

from memspace.task.functional import functional_call
from memspace.zoo.registry import ZooData
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.training.draws import batch_at, masks_at

__all__ = ["Stack", "Weights", "flat_weights", "mean_losses"]

CHUNK = 256  # examples of a pass without gradients
MOMENTUM, BETA, BETA2, SMOOTHING, TINY = 0.9, 0.9, 0.999, 0.99, 1e-8


@dataclass(frozen=True)
class Weights:
    """Where each parameter stands in a vector of all.

    Args:
        names: of the parameters, in order.
        shapes: of each.
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, model: nn.Module) -> Weights:
        """Read the layout of a network.

        Args:
            model: the network.

        Returns:
            Its layout.
        """
        named = dict(model.named_parameters())
        return cls(tuple(named), tuple(p.shape for p in named.values()))

    def split(self, vectors: Tensor) -> dict[str, Tensor]:
        """View vectors as parameters.

        Args:
            vectors: (..., P).

        Returns:
            Name → (..., *shape).
        """
        parts = torch.split(vectors, [s.numel() for s in self.shapes], -1)
        return {n: p.reshape(*p.shape[:-1], *s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}


def flat_weights(model: nn.Module) -> Tensor:
    """Copy a network's parameters into one vector.

    Args:
        model: the network.

    Returns:
        (P,).
    """
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@dataclass(frozen=True)
class Stack:
    """G networks between two steps of their training.

    Args:
        model: any of them; its own weights mean nothing.
        specs: of the networks, of one group.
        y: (G, n, ...) training labels as each sees them.
        vectors: (G, P) weights.
        first: (G, P) first moments or momentum of the optimiser.
        second: (G, P) second moments.
        step: steps taken.
    """

    model: nn.Module
    specs: tuple[NetworkSpec, ...]
    y: Tensor
    vectors: Tensor
    first: Tensor
    second: Tensor
    step: int = 0

    @property
    def turns(self) -> bool:
        """True where networks take turns: convolutions of stacked networks would become slow grouped ones."""
        return any(isinstance(m, nn.modules.conv._ConvNd) for m in self.model.modules())

    def of(self, chosen: Sequence[int]) -> Stack:
        """Leave out all but some networks.

        Args:
            chosen: their places.

        Returns:
            A stack of copies.
        """
        index = torch.tensor(list(chosen), dtype=torch.long)
        parts = {n: getattr(self, n)[index] for n in ("y", "vectors", "first", "second")}
        return replace(self, specs=tuple(self.specs[k] for k in chosen), **parts)

    def stepped(self, data: ZooData) -> Stack:
        """Take one step.

        Args:
            data: that all train on.

        Returns:
            The stack after it; this one is unchanged.
        """
        places = torch.stack([batch_at(s, self.step) for s in self.specs])
        x = data.x[places]
        y = torch.stack([labels[at] for labels, at in zip(self.y, places, strict=True)])
        masks = self._masks()
        gradients = self._in_turn(x, y, masks) if self.turns else self._at_once(x, y, masks)
        return self._updated(gradients)

    def _masks(self) -> list[Tensor] | None:
        if not self.specs[0].dropout:
            return None
        dropped = tuple(self.model.dropped)  # type: ignore[arg-type]
        drawn = [masks_at(s, dropped, self.step) for s in self.specs]
        return [torch.stack(of_site) for of_site in zip(*drawn, strict=True)]

    @torch.enable_grad()
    def _at_once(self, x: Tensor, y: Tensor, masks: list[Tensor] | None) -> Tensor:
        leaves = {n: p.requires_grad_() for n, p in Weights.of(self.model).split(self.vectors.detach()).items()}

        def forward(mine: dict[str, Tensor], inputs: Tensor, drop: list[Tensor] | None) -> Tensor:
            f: Tensor = functional_call(self.model, mine, (inputs, drop))
            return f

        f = vmap(forward, in_dims=(0, 0, None if masks is None else 0))(leaves, x, masks)
        total = len(f) * _mean_loss(f, y)  # the gradient of the sum over networks is every network's own
        gradients = torch.autograd.grad(total, list(leaves.values()))
        return torch.cat([g.flatten(1) for g in gradients], 1)

    @torch.enable_grad()
    def _in_turn(self, x: Tensor, y: Tensor, masks: list[Tensor] | None) -> Tensor:
        rows = []
        layout = Weights.of(self.model)
        for k in range(len(self.specs)):
            leaves = {n: p.requires_grad_() for n, p in layout.split(self.vectors[k].detach()).items()}
            drop = None if masks is None else [m[k] for m in masks]
            loss = _mean_loss(functional_call(self.model, leaves, (x[k], drop)), y[k])
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(leaves.values()))]))
        return torch.stack(rows)

    @torch.no_grad()
    def _updated(self, gradients: Tensor) -> Stack:
        """The optimisers' updates, elementwise: each row is what it would be alone."""
        rate = torch.tensor([s.learning_rate for s in self.specs])[:, None]
        decay = torch.tensor([s.decay for s in self.specs])[:, None]
        g = gradients + decay * self.vectors
        step, first, second = self.step + 1, self.first, self.second
        kind = self.specs[0].optimiser
        if kind == "sgd":
            first = MOMENTUM * first + g
            move = first
        elif kind == "rmsprop":
            second = SMOOTHING * second + (1 - SMOOTHING) * g * g
            move = g / (second.sqrt() + TINY)
        else:
            first = BETA * first + (1 - BETA) * g
            second = BETA2 * second + (1 - BETA2) * g * g
            move = first / (1 - BETA**step) / ((second / (1 - BETA2**step)).sqrt() + TINY)
        return replace(self, vectors=self.vectors - rate * move, first=first, second=second, step=step)


@torch.no_grad()
def mean_losses(model: nn.Module, vectors: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Compute the mean loss of networks of one shape on examples, without dropout.

    Args:
        model: of that shape.
        vectors: (G, P) weights.
        x: (n, ...) inputs.
        y: (G, n, ...) labels of each network.

    Returns:
        (G,) nats a prediction, float64.
    """
    layout = Weights.of(model)
    totals = []
    for vector, labels in zip(vectors, y, strict=True):
        weights = layout.split(vector)
        sums = []
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            f = functional_call(model, weights, (x[part],))
            sums.append(_mean_loss(f, labels[part]).double() * labels[part].numel())
        totals.append(torch.stack(sums).sum() / labels.numel())
    return torch.stack(totals)


def _mean_loss(f: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(f.flatten(0, -2), y.flatten())
