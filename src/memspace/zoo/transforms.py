"""Changes of a network's weights that leave its outputs, or its decisions, as they were.

Three leave every output alone up to rounding: the units of a layer in another order; the weights into a ReLU unit
times a > 0 and those out of it divided by a; further units that nobody reads. A gain c on the last layer multiplies
the logits by c, so that no decision changes and the loss does. Units of a recurrent network are no ReLUs (gates and
hyperbolic tangents are not homogeneous): it has no rescaling.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from memspace.arguments import check_fields
from memspace.errors import SettingsError
from memspace.limits import POSITIVE, one_of
from memspace.zoo.families.transformer import TokenTransformer
from memspace.zoo.registry import ZooData, family_named
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.training.draws import initial_network
from memspace.zoo.training.stack import Weights
from memspace.zoo.units import HiddenUnits, Port, units_of

__all__ = ["EXACT", "GAINS", "NAMES", "Transform", "transformed", "transforms_of"]

GAINS = (0.1, 0.3, 1.0, 3.0, 10.0)
EXACT = ("rescaling", "permutation", "dead units")
NAMES = ("none", *EXACT, "gain")
LARGEST_SCALE, ADDED = 4.0, 4
Named = dict[str, Tensor]


@dataclass(frozen=True)
class Transform:
    """A change of a network.

    Args:
        name: of ``NAMES``.
        amount: the gain c; of a rescaling the largest factor (or divisor) of a unit; how many units are added to a
            layer; 1 for the others.

    Raises:
        SettingsError: there is no such change, or its amount is none.
    """

    name: str
    amount: Annotated[float, POSITIVE] = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        one_of(self.name, NAMES, "transform")
        if self.name == "dead units" and self.amount != int(self.amount):
            raise SettingsError(f"{self.amount} units cannot be added", where="amount", remedy="give a whole number")

    @property
    def label(self) -> str:
        """Name, with the amount of a gain."""
        return f"gain {self.amount:g}" if self.name == "gain" else self.name


def transforms_of(model: nn.Module) -> tuple[Transform, ...]:
    """List the changes that a network allows.

    Args:
        model: the network.

    Returns:
        ``none`` first, the gains last; a gain of 1 is none.

    Raises:
        TaskError: it is not known where its units stand.
    """
    units = units_of(model)
    changes = [Transform("none")]
    if any(u.rectified for u in units):
        changes.append(Transform("rescaling", LARGEST_SCALE))
    changes += [Transform("permutation"), Transform("dead units", ADDED)]
    return (*changes, *(Transform("gain", c) for c in GAINS if c != 1.0))


def transformed(spec: NetworkSpec, data: ZooData, states: Tensor, transform: Transform) -> tuple[nn.Module, Tensor]:
    """Apply a change to recorded states of a network, to all the same: a path stays the path of one training.

    What is drawn (order, factors, weights into added units) is decided by the network's seed.

    Args:
        spec: of the network.
        data: that it was trained on.
        states: (S, P) weights.
        transform: what to do.

    Returns:
        A network of the shape that the states have now, with the weights of the last one and in the states' precision,
        and (S, P') weights.

    Raises:
        TaskError: it is not known where its units stand.
        SettingsError: the network has no ReLU units, and is to be rescaled.
    """
    model = initial_network(spec, data)
    layout = Weights.of(model)
    units = units_of(model)
    change = _change(units, spec, transform)
    rows = [torch.cat([v.flatten() for v in change(layout.split(state)).values()]) for state in states]
    if transform.name == "dead units":
        model = _wider(model, spec, data, int(transform.amount))
    model = model.to(states.dtype)
    with torch.no_grad():
        for name, values in Weights.of(model).split(rows[-1]).items():
            model.get_parameter(name).copy_(values)
    return model.eval(), torch.stack(rows)


def _change(units: tuple[HiddenUnits, ...], spec: NetworkSpec, transform: Transform) -> Callable[[Named], Named]:
    """The change as a function of named parameters; it keeps their order."""
    drawn = _Draws(spec, transform)
    if transform.name == "rescaling":
        return _rescaling(tuple(u for u in units if u.rectified), drawn, transform.amount)
    if transform.name == "permutation":
        return _permutation(units, drawn)
    if transform.name == "dead units":
        return _dead_units(tuple(u for u in units if u.grows), drawn, int(transform.amount))
    gain = transform.amount if transform.name == "gain" else 1.0
    return lambda named: {n: p * gain if n.startswith("head.") else p for n, p in named.items()}


class _Draws:
    """Random numbers by name: asked again, the same come out, whatever was asked between."""

    def __init__(self, spec: NetworkSpec, transform: Transform) -> None:
        self.of = (spec.seed, transform.name)

    def __call__(self, *what: object) -> torch.Generator:
        digest = hashlib.sha256(repr((*self.of, *what)).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))


def _rescaling(units: tuple[HiddenUnits, ...], drawn: _Draws, largest: float) -> Callable[[Named], Named]:
    if not units:
        raise SettingsError(
            "the network has no ReLU units", where="transform 'rescaling'", remedy="leave the rescaling out"
        )
    scales = [
        largest ** (2 * torch.rand(u.count, generator=drawn(k), dtype=torch.float64) - 1) for k, u in enumerate(units)
    ]

    def change(named: Named) -> Named:
        new = dict(named)
        for of, scale in zip(units, scales, strict=True):
            for port in of.incoming:
                new[port.name] = new[port.name] * port.spread(scale, new[port.name].shape).to(new[port.name])
            for port in of.outgoing:
                new[port.name] = new[port.name] / port.spread(scale, new[port.name].shape).to(new[port.name])
        return new

    return change


def _permutation(units: tuple[HiddenUnits, ...], drawn: _Draws) -> Callable[[Named], Named]:
    orders = [torch.randperm(u.count, generator=drawn(k)) for k, u in enumerate(units)]

    def change(named: Named) -> Named:
        new = dict(named)
        for of, order in zip(units, orders, strict=True):
            for port in (*of.incoming, *of.outgoing):
                new[port.name] = new[port.name].index_select(port.axis, port.index(order, of.count))
        return new

    return change


def _dead_units(units: tuple[HiddenUnits, ...], drawn: _Draws, added: int) -> Callable[[Named], Named]:
    made: dict[str, tuple[Port, int]] = {p.name: (p, u.count) for u in units for p in u.incoming}
    read: dict[str, tuple[Port, int]] = {p.name: (p, u.count) for u in units for p in u.outgoing}

    def change(named: Named) -> Named:
        return {n: _larger(p, made.get(n), read.get(n), added, drawn(n)) for n, p in named.items()}

    return change


def _larger(
    values: Tensor, made: tuple[Port, int] | None, read: tuple[Port, int] | None, added: int, draws: torch.Generator
) -> Tensor:
    """A parameter with room for added units: drawn at random, but zero where one that was there reads an added one."""
    shape = list(values.shape)
    there = [torch.arange(size) for size in shape[:2]]  # where what was there comes to stand
    for port, count in (p for p in (made, read) if p is not None):
        shape[port.axis] = port.blocks * (count + added) * port.run
        there[port.axis] = port.index(torch.arange(count), count + added)
    fan = max(values.numel() // len(values), 1) if values.dim() > 1 else len(values)
    new: Tensor = (torch.randn(shape, generator=draws, dtype=torch.float64) / fan**0.5).to(values)
    if values.dim() == 1:
        new[there[0]] = values
        return new
    if read is not None:
        new[there[0]] = 0
    new[there[0][:, None], there[1]] = values
    return new


def _wider(model: nn.Module, spec: NetworkSpec, data: ZooData, added: int) -> nn.Module:
    """A network with room for added units; of a transformer only the perceptrons: its states are normed together."""
    with torch.random.fork_rng(devices=[]):
        if not isinstance(model, TokenTransformer):
            return family_named(spec.family)(data, spec.width + added, spec.depth)
        for block in model.blocks:
            inner = len(block.up.bias) + added  # type: ignore[union-attr, arg-type]
            block.up, block.down = nn.Linear(spec.width, inner), nn.Linear(inner, spec.width)
        return model
