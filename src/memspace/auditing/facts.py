"""The quantities that an audit's costs depend on, from the shapes of one small batch."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from memspace.action.chain import Chain, chain_of
from memspace.attempt import attempt
from memspace.auditing.stationary import MOST, affine
from memspace.measures.bystander import CLASSES, WIDEST
from memspace.measures.bystander import MOST as FITTED
from memspace.measures.corruptions import picture_shape
from memspace.measures.factor_angles import ordered_factors
from memspace.measures.outputs_judged import FORESTS
from memspace.passes.layers.block import Block
from memspace.passes.linearise import MEMORY
from memspace.passes.profile import ModelProfile, profile_of
from memspace.passes.signal_products import VECTORS
from memspace.passes.space import ParameterSpace
from memspace.task.first_calls import first_calls_of
from memspace.task.task import Task

__all__ = ["Shapes", "check_facts", "factor_facts", "model_facts", "shapes_of", "signal_products", "squares"]

CHECKED = 15  # examples that a layout is verified on, step by step: the first four, the last four and seven drawn


@dataclass(frozen=True)
class Shapes:
    """Shapes of one example.

    Args:
        outputs: numbers in the output of a position.
        positions: of the output.
        plain: whether the network is one of plain calls, as :class:`memspace.passes.profile.ModelProfile` says.
        sizes: block → numbers of its input and of its cotangent.
        signal: numbers of all modules' outputs together.
        widest: numbers of the largest tensor in the example's graph.
    """

    outputs: int
    positions: int
    plain: bool
    sizes: dict[str, tuple[int, int]]
    signal: int
    widest: int

    def held(self, blocks: tuple[Block, ...]) -> int:
        """Count the numbers of Jacobian rows that the dual stores per example.

        Args:
            blocks: of the space.

        Returns:
            numbers.
        """
        return sum(b.rule.row_floats(b, self.sizes[b.name], self.outputs) for b in blocks if b.name in self.sizes)

    def positions_of(self, b: Block) -> int:
        """Count the positions of a block's signals.

        Args:
            b: the block.

        Returns:
            positions, one at least.
        """
        return max(1, self.sizes[b.name][1] // b.shape[0]) if b.name in self.sizes else 1

    def row(self, blocks: tuple[Block, ...]) -> int:
        """Count the numbers of one row of one output that a product with another row reads.

        Args:
            blocks: of the space.

        Returns:
            numbers.
        """
        return sum(min(b.size, sum(self.sizes.get(b.name, (0, b.size)))) for b in blocks)

    def rotation(self, blocks: tuple[Block, ...]) -> float:
        """Count the multiplications that rotate one gradient into EKFAC's bases.

        Args:
            blocks: of the space.

        Returns:
            multiplications.
        """
        return float(sum(b.rule.rotation(b, self.positions_of(b)) for b in blocks))


def shapes_of(task: Task, space: ParameterSpace) -> Shapes:
    """Return the shapes of one example, from the network's profile.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.

    Returns:
        the shapes.
    """
    profile = profile_of(task)
    sizes = _sizes(space, profile)
    return Shapes(profile.shape[-1], profile.positions, profile.plain, sizes, profile.activations, profile.widest)


def model_facts(task: Task, space: ParameterSpace, shapes: Shapes, *, dual: bool) -> dict[str, Any]:
    """Return the facts that depend on the network.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        shapes: of one example.
        dual: whether the exact dual is planned.

    Returns:
        fields of :class:`memspace.measures.cost.Facts` by name.
    """
    probe = task.train.batch(range(min(2, len(task.train))))
    chain = attempt("depth", lambda: chain_of(task.model, profile_of(task)))
    width, forests = _forests(task, probe.x, probe.y, shapes)
    known = attempt("affine", lambda: dual and space.size <= MOST and affine(task, space))
    return {
        "manner": space.manner if any(not b.rule.hooked for b in space.blocks) else None,
        "fast": any(b.rule.hooked for b in space.blocks),
        "widest": shapes.widest,
        **check_facts(task, space),
        "depth": len(chain) if isinstance(chain, Chain) else 0,
        "affine": known is True,
        "forest": width,
        "forests": forests,
        "picture": isinstance(probe.x, torch.Tensor) and picture_shape(task, probe.x) is not None,
        "rotation": shapes.rotation(space.blocks),
        "decompositions": float(sum(d**3 for b in space.blocks for d in b.rule.sides(b))),
        "floats": shapes.row(space.blocks),
    }


def check_facts(task: Task, space: ParameterSpace) -> dict[str, Any]:
    """Count what the checks and the proof of the layout read: one batch, or several step by step.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.

    Returns:
        the fields ``checked`` and ``check`` of :class:`memspace.measures.cost.Facts`.
    """
    first = first_calls_of(task)
    if first is None or space.axes or not all(b.rule.hooked for b in space.blocks):
        return {"checked": min(len(task.train), CHECKED), "check": (4, 3)}
    followed = bool(task.train.inputs([0]).is_floating_point())  # one tensor, or the network is not plain
    return {"checked": len(first.used), "check": (1, 3 + followed)}


def factor_facts(task: Task) -> dict[str, Any]:
    """Count the generating factors that vary, those along which inputs can be rendered, and the inputs described.

    Args:
        task: may know its factors.

    Returns:
        the fields ``factors``, ``rendered`` and ``described`` of :class:`memspace.measures.cost.Facts`.
    """
    factors = task.factors
    if factors is None:
        return {"factors": 0, "rendered": 0, "described": 0}
    ordered = len(ordered_factors(factors)) if factors.render is not None else 0
    return {"factors": len(factors.sizes), "rendered": ordered, "described": len(factors.values)}


def signal_products(space: ParameterSpace, shapes: Shapes, examples: int, vectors: int) -> str:
    """Decide where Fisher products of stacks of vectors get the network's signals from.

    Args:
        space: the parameters, laid out in blocks.
        shapes: of one example.
        examples: of the products.
        vectors: of a stack that are processed at a time without signals.

    Returns:
        the field ``signals`` of :class:`memspace.measures.cost.Facts`.
    """
    plain = space.verified and not any(b.rule.by_example for b in space.blocks)
    if not plain or not shapes.plain or shapes.outputs > VECTORS:
        return ""
    numbers = 0
    for b in space.blocks:
        numbers += b.rule.product_floats(b, shapes.sizes.get(b.name, (0, b.size)), shapes.outputs)
    if numbers * torch.finfo(torch.float32).bits // 8 * examples <= MEMORY:
        return "held"
    return "read" if vectors >= shapes.outputs else ""


def squares(space: ParameterSpace) -> int:
    """Count the bytes of one second moment per side and block.

    Args:
        space: the parameters, laid out in blocks.

    Returns:
        bytes.
    """
    return 8 * sum(b.rule.second_moments(b) for b in space.blocks)


def _forests(task: Task, x: Any, y: torch.Tensor, shapes: Shapes) -> tuple[int, int]:
    """Numbers of an input, and how many forests judge labels (see ``measures.judge``)."""
    if not isinstance(x, torch.Tensor) or not (x.is_floating_point() or x.dtype == torch.uint8):
        return 0, 0
    width, asked = prod(x.shape[1:]), 0
    if shapes.plain and not y.is_floating_point() and y.dim() == 1:
        asked = int(shapes.outputs <= CLASSES)
    elif shapes.plain:
        decisions = task.likelihood.decisions(torch.zeros(len(y), shapes.outputs, dtype=torch.float64), y)
        outputs = 0 if decisions is None else decisions[0].shape[1]
        asked = outputs if outputs <= FORESTS else 0
    fits = 20 <= len(task.train) <= FITTED and width <= WIDEST
    return (width, asked) if fits and asked else (0, 0)


def _sizes(space: ParameterSpace, profile: ModelProfile) -> dict[str, tuple[int, int]]:
    """Per block the numbers of one example's input and of its cotangent."""
    sizes = {b.name: b.rule.sizes(b, 0, 0, 1) for b in space.blocks if not b.rule.hooked}
    by_module: dict[str, list[Block]] = {}
    for b in space.blocks:
        if b.rule.hooked:
            by_module.setdefault(b.module, []).append(b)
    for call in profile.calls:
        if call.shape:
            taken, made = prod(call.shape if call.first is None else call.first), prod(call.shape)
            for b in by_module.get(call.name, ()):
                sizes[b.name] = b.rule.sizes(b, taken, made, call.shape[-1])
    return sizes
