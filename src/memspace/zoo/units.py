"""Where the hidden units of a network stand in its parameters, so that they can be renamed, rescaled or added to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from itertools import pairwise

import torch
from torch import Tensor, nn

from memspace.errors import TaskError
from memspace.zoo.families.conv import Convolutional
from memspace.zoo.families.mlp import Perceptron
from memspace.zoo.families.recurrent import TokenRecurrent
from memspace.zoo.families.transformer import HEADS, TokenTransformer

__all__ = ["HiddenUnits", "Port", "units_of"]


@dataclass(frozen=True)
class Port:
    """An axis of a parameter along which units stand.

    Args:
        name: of the parameter.
        axis: of its shape.
        blocks: how often the units follow each other: three gates of a recurrent unit, heads of attention.
        run: neighbouring entries of one unit: positions of a channel.
    """

    name: str
    axis: int
    blocks: int = 1
    run: int = 1

    def index(self, order: Tensor, count: int) -> Tensor:
        """Compute where chosen units stand along the axis.

        Args:
            order: (k,) units, in any order.
            count: of all units.

        Returns:
            (blocks · k · run,) places.
        """
        places = torch.arange(self.blocks * count * self.run).reshape(self.blocks, count, self.run)
        return places[:, order].flatten()

    def spread(self, values: Tensor, shape: torch.Size) -> Tensor:
        """Repeat a value of each unit over its entries.

        Args:
            values: (count,).
            shape: of the parameter.

        Returns:
            What multiplies the parameter, by broadcasting.
        """
        along = values.repeat_interleave(self.run).repeat(self.blocks)
        return along.reshape([-1 if k == self.axis else 1 for k in range(len(shape))])


@dataclass(frozen=True)
class HiddenUnits:
    """A layer of interchangeable units.

    Args:
        count: how many.
        incoming: what a unit is computed from: weights and biases.
        outgoing: weights that read it.
        rectified: it is the ReLU of something linear in the incoming parameters, and is read linearly.
        grows: units that nobody reads may be added; not so where a norm or the width of a head depends on the number.
    """

    count: int
    incoming: tuple[Port, ...]
    outgoing: tuple[Port, ...]
    rectified: bool = False
    grows: bool = True


@singledispatch
def units_of(model: nn.Module) -> tuple[HiddenUnits, ...]:
    """List the hidden units of a network. A family from outside registers its own: ``units_of.register``.

    Args:
        model: of a family.

    Returns:
        Its layers of units.

    Raises:
        TaskError: it is not known where the units of such a network stand.
    """
    what = f"the units of a {type(model).__name__} are not known"
    raise TaskError(what, where="memspace.zoo.units", remedy="register a function for its class: units_of.register")


@units_of.register
def _of_perceptron(model: Perceptron) -> tuple[HiddenUnits, ...]:
    names = [*(f"hidden.{k}" for k in range(len(model.hidden))), "head"]
    layers = pairwise(names)
    return tuple(HiddenUnits(model.head.in_features, _made(a), (Port(f"{b}.weight", 1),), True) for a, b in layers)


@units_of.register
def _of_convolutional(model: Convolutional) -> tuple[HiddenUnits, ...]:
    count = len(model.layers[0].bias)  # type: ignore[arg-type]
    names = [f"layers.{k}" for k in range(len(model.layers))]
    read = [*(Port(f"{n}.weight", 1) for n in names[1:]), Port("head.weight", 1, run=model.head.in_features // count)]
    return tuple(HiddenUnits(count, _made(a), (port,), True) for a, port in zip(names, read, strict=True))


@units_of.register
def _of_recurrent(model: TokenRecurrent) -> tuple[HiddenUnits, ...]:
    count = model.head.in_features
    names = [f"cells.{k}" for k in range(len(model.cells))]
    read = [Port(f"{n}.inward.weight", 1) for n in names] + [Port("head.weight", 1)]
    layers = [HiddenUnits(count, (Port("token.weight", 1),), (read[0],))]
    for name, port in zip(names, read[1:], strict=True):
        gates = (*_made(f"{name}.inward", 3), *_made(f"{name}.onward", 3))
        layers.append(HiddenUnits(count, gates, (Port(f"{name}.onward.weight", 1), port)))
    return tuple(layers)


@units_of.register
def _of_transformer(model: TokenTransformer) -> tuple[HiddenUnits, ...]:
    width = model.head.in_features
    made = [Port("token.weight", 1), Port("position.weight", 1)]
    read: list[Port] = []
    layers = []
    for k, block in enumerate(model.blocks):
        name = f"blocks.{k}"
        attention = f"{name}.attention"
        inner = len(block.up.bias)  # type: ignore[union-attr, arg-type]
        layers.append(HiddenUnits(inner, _made(f"{name}.up"), (Port(f"{name}.down.weight", 1),), True))
        compared = (*_made(f"{attention}.query", HEADS), *_made(f"{attention}.key", HEADS))
        layers.append(HiddenUnits(width // HEADS, compared, (), grows=False))
        mixed = (Port(f"{attention}.out.weight", 1, HEADS),)
        layers.append(HiddenUnits(width // HEADS, _made(f"{attention}.value", HEADS), mixed, grows=False))
        made += [port for n in ("first", "second", "attention.out", "down") for port in _made(f"{name}.{n}")]
        inputs = ("attention.query", "attention.key", "attention.value", "up")
        read += [Port(f"{name}.{n}.weight", 1) for n in inputs]
    made += _made("norm")
    read.append(Port("head.weight", 1))
    return (*layers, HiddenUnits(width, tuple(made), tuple(read), grows=False))


def _made(name: str, blocks: int = 1) -> tuple[Port, ...]:
    """Rows of a module's weight, and its bias."""
    return Port(f"{name}.weight", 0, blocks), Port(f"{name}.bias", 0, blocks)
