"""A kind of layer: which modules it knows, the blocks they give, how those are read, and what that costs.

Each kind is a class in one file of this folder; :func:`memspace.passes.layers.registry.register_layer` makes it known.
Three bases do most of the work: :class:`~memspace.passes.layers.product.ProductRule` where an example's gradient is
Σ_t g_t a_tᵀ over positions, :class:`~memspace.passes.layers.formed.FormedRule` where it is formed as one row, and this
one for anything else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from memspace.errors import UnsupportedLayerError
from memspace.passes.forms.form import Form
from memspace.passes.forms.whole import WholeForm
from memspace.passes.layers.block import Block
from memspace.passes.row_parts.part import RowPart

if TYPE_CHECKING:
    from memspace.passes.layers.read import BlockRead, PulledCall

__all__ = ["LayerRule", "Part"]


@dataclass(frozen=True)
class Part:
    """A block to be.

    Args:
        rule: how it is read.
        names: parameters of one module by their own names.
        suffix: what the block's name has beyond the module's; "" for the whole module.
    """

    rule: LayerRule
    names: tuple[str, ...]
    suffix: str = ""


class LayerRule(ABC):
    """How modules of some types are read.

    Attributes:
        name: of the kind, shown to people.
        types: the modules it may know; a module is asked of the rule of its most specific type first.
        parameters: by their own names, in the order in which the block's matrix holds them.
        borrowed: parameters of submodules that such a module uses without calling them.
        hooked: it reads calls of its module; otherwise the whole model is differentiated.
        by_example: its gradients come by differentiating a module, or the model, example by example.
        kronecker: its part of the metric is about a product of two second moments.
        shareable: modules that share the weight make one block, with the calls of all of them.
        units: rows of its matrix are units, or filters where ``filters`` says so, that can be cut whole.
        filters: its rows are filters that are applied at many positions.
        token_side: the side ("in" or "out") that runs over a vocabulary, of which only the diagonal is kept.
        groups: into how many parts that share nothing the matrix's rows fall.
        row_part: the factors that Jacobian rows are kept as; None: they are kept as rows.
    """

    name: ClassVar[str] = ""
    types: ClassVar[tuple[type[nn.Module], ...]] = ()
    parameters: ClassVar[tuple[str, ...]] = ("weight", "bias")
    borrowed: ClassVar[tuple[str, ...]] = ()
    hooked: ClassVar[bool] = True
    by_example: ClassVar[bool] = False
    kronecker: ClassVar[bool] = True
    shareable: ClassVar[bool] = False
    units: ClassVar[bool] = False
    filters: ClassVar[bool] = False
    token_side: ClassVar[Literal["", "in", "out"]] = ""
    row_part: ClassVar[type[RowPart] | None] = None
    groups: int = 1

    # Structure: which modules, which blocks, which matrices.

    def knows(self, module: nn.Module) -> bool:
        """Whether a module of one of its types is read by it: one with the forward pass that the type has.

        Args:
            module: an instance of one of ``types``.

        Returns:
            True if the rule reads it.
        """
        return type(module).forward in {t.forward for t in self.types}

    def positional(self, module: nn.Module) -> bool:
        """Whether examples may run along the second axis of a module's input, after positions.

        Args:
            module: an instance of one of ``types``, whether or not it is known.

        Returns:
            True where the layer treats every vector along the last axis by itself.
        """
        return False

    def axis(self, module: nn.Module, shapes: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> int | None:
        """Find the axis of a module's input that runs over examples.

        Args:
            module: an instance of one of ``types``, whether or not it is known.
            shapes: of its first input, in batches of several sizes.
            sizes: examples in these batches.

        Returns:
            The axis, ``BROADCAST`` where one input serves all examples, or None where no axis is that of examples.
        """
        if all(s and s[0] == n for s, n in zip(shapes, sizes, strict=True)):
            return 0
        second = all(len(s) > 1 and s[1] == n for s, n in zip(shapes, sizes, strict=True))
        return 1 if second and self.positional(module) else None

    def parts(self, module: nn.Module, own: Sequence[str], outside: Collection[str]) -> Sequence[Part] | None:
        """List the blocks of what a module owns itself.

        Args:
            module: a module that it knows.
            own: the module's own parameters by name.
            outside: those of them that are frozen or not chosen.

        Returns:
            The parts, or None where the module owns something that the rule does not know of: adapters put on a layer,
            or what a hook computes the weight from.
        """
        if not set(self.parameters).issuperset(own):
            return None
        return [Part(self, tuple(n for n in self.parameters if n in own))]

    def shape(self, parameters: Sequence[Tensor]) -> tuple[int, int]:
        """Shape of the matrix.

        Args:
            parameters: those of the block that are trained, in order.

        Returns:
            (out, in).
        """
        first = parameters[0]
        return first.shape[0], sum(p.numel() for p in parameters) // first.shape[0]

    def to_matrix(self, parameter: Tensor, shape: tuple[int, int], leading: int) -> Tensor:
        """Lay a parameter out as columns of the matrix.

        Args:
            parameter: with ``leading`` further axes in front.
            shape: (out, in) of the matrix.
            leading: how many axes there are in front.

        Returns:
            (..., out, columns).
        """
        return parameter.reshape(*parameter.shape[:leading], shape[0], -1)

    def from_matrix(self, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Undo :meth:`to_matrix`.

        Args:
            matrix: (..., out, columns).
            shape: of the parameter; one without an axis has the shape ().

        Returns:
            (..., *shape).
        """
        return matrix.reshape((*matrix.shape[:-2], *shape))

    # Signals: what a forward pass and its cotangents give.

    @abstractmethod
    def signals(self, block: Block, calls: Sequence[PulledCall], outputs: Tensor) -> Tensor:
        """Gather what one output cotangent gives for a block.

        Args:
            block: one of its blocks.
            calls: the calls of the block's modules with their cotangents; none where they were not called.
            outputs: (B, ..., C), the network's, for dtype and device.

        Returns:
            (B, ...): cotangents by position, or gradients; :meth:`form` gets them stacked.

        Raises:
            UnsupportedLayerError: the module was called in a way that cannot be read.
        """

    @abstractmethod
    def form(self, read: BlockRead, pulled: Tensor) -> Form:
        """Put the signals of K cotangents into the form of the per-example gradients.

        Args:
            read: the block in this forward pass.
            pulled: (K, B, ...), :meth:`signals` of each cotangent.

        Returns:
            The gradients' form.
        """

    def gathered(self, read: BlockRead) -> Tensor:
        """Gather the block's inputs from all calls.

        Args:
            read: the block in this forward pass.

        Returns:
            (B, T, in) without the column of ones of a bias.

        Raises:
            UnsupportedLayerError: the block has no product form.
        """
        raise UnsupportedLayerError(
            f"{self.name} layers have no product form",
            where=read.block.name,
            remedy="leave its parameters out: patterns such as Task(parameters='!NAME.*')",
        )

    def whole(self, block: Block, gradients: Sequence[Tensor]) -> Tensor:
        """Lay out gradients that came by differentiating the whole model.

        Args:
            block: one of its blocks.
            gradients: (K, B, *shape) for each of the block's parameters.

        Returns:
            (K, B, ...), as :meth:`whole_form` takes them.
        """
        return torch.cat([block.to_matrix(g, 2) for g in gradients], -1)

    def whole_form(self, block: Block, gradients: Tensor) -> Form:
        """Form of gradients that came by differentiating the whole model.

        Args:
            block: one of its blocks.
            gradients: what :meth:`whole` gave.

        Returns:
            The gradients' form: exact, only larger.
        """
        return WholeForm(gradients, self.token_side)

    def kept(self, read: BlockRead, pulled: Tensor) -> tuple[Tensor, Tensor]:
        """Factors that Jacobian rows keep of a batch, where ``row_part`` is not None.

        Args:
            read: the block in this forward pass.
            pulled: (B, K, T, out).

        Returns:
            What is kept of an example, (B, T, ...), and of its rows, (B, K, T, out).
        """
        return read.rows, pulled

    def forms_rows(self, block: Block, positions: int, rows: int) -> bool:
        """Whether an example's Jacobian rows are kept as rows though they have factors.

        Args:
            block: one of its blocks.
            positions: T.
            rows: Jacobian rows of an example.

        Returns:
            True where the rows are not much larger than their factors: they would be formed for every product.
        """
        return self.row_part is None

    # Costs, in numbers held and in multiplications.

    def diagonal(self, block: Block) -> bool:
        """Whether Kronecker representations keep no more of a block than its diagonal."""
        return False

    def sides(self, block: Block) -> tuple[int, ...]:
        """Sides of the second moments that the block's bases are found for; one pair a group."""
        return tuple(d for d, side in zip(block.shape, ("out", "in"), strict=True) if side != self.token_side)

    def second_moments(self, block: Block) -> int:
        """Numbers in the block's second moments."""
        if self.diagonal(block):
            return block.size
        of_tokens = {"": 0, "in": block.shape[1], "out": block.shape[0]}[self.token_side]
        return of_tokens + sum(d**2 for d in self.sides(block))

    def rotation(self, block: Block, positions: int) -> float:
        """Multiplications that bring one gradient with so many positions into the block's bases."""
        out, width = block.shape
        right = min(positions, out) * width**2 * (self.token_side != "in")
        return right + min(positions, width) * out**2 * (self.token_side != "out")

    def sizes(self, block: Block, given: int, returned: int, last: int) -> tuple[int, int]:
        """Numbers that one example's call of its module gives the block.

        Args:
            block: one of its blocks.
            given: numbers in the module's input.
            returned: numbers in its output.
            last: length of its output's last axis.

        Returns:
            Numbers of what is kept of the input, and of one cotangent.
        """
        positions = self.positions(block, given, returned, last)
        return positions * block.shape[1], positions * block.shape[0]

    def positions(self, block: Block, given: int, returned: int, last: int) -> int:
        """Positions of one example's call; arguments as of :meth:`sizes`."""
        return max(1, returned // last)

    def held(self, block: Block, sizes: tuple[int, int], rows: int) -> int:
        """Numbers that an example's Jacobian rows take.

        Args:
            block: one of its blocks.
            sizes: what :meth:`sizes` gave.
            rows: Jacobian rows of an example.

        Returns:
            Numbers.
        """
        if self.forms_rows(block, sizes[1] // block.shape[0], rows):
            return rows * block.size
        return sizes[0] + rows * sizes[1]

    def products_hold(self, block: Block, sizes: tuple[int, int], rows: int) -> int:
        """Numbers that Fisher products of many vectors hold of an example; arguments as of :meth:`held`."""
        if rows < max(1, sizes[1] // block.shape[0]):
            return rows * block.size
        return sizes[0] + rows * sizes[1]
