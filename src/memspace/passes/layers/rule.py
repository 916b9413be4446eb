"""A kind of layer: the modules it reads, their blocks, the closed form of their gradients, and what that costs.

Every kind is a class in one file of this folder; :func:`memspace.passes.layers.registry.register_layer` registers it.
There are three base classes: :class:`~memspace.passes.layers.product.ProductRule` where an example's gradient is
Σ_t g_t a_tᵀ over positions, :class:`~memspace.passes.layers.formed.FormedRule` where it is formed as one row, and this
one for everything else.
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
    """A block before it has a position in the layout.

    Args:
        rule: by which it is read.
        names: of its parameters within their module.
        suffix: appended to the module's name for the block's; "" for the whole module.
    """

    rule: LayerRule
    names: tuple[str, ...]
    suffix: str = ""


class LayerRule(ABC):
    """The rule by which modules of some types are read.

    Attributes:
        name: of the kind, as reports show it.
        types: the modules it may read; the rule of a module's most specific type is tried first.
        parameters: names within the module, in the order in which the block's matrix holds them.
        borrowed: parameters of submodules that such a module uses without calling them.
        hooked: whether it reads calls of its module; otherwise the whole model is differentiated example by example.
        by_example: whether its module, or the whole model, is differentiated example by example.
        kronecker: whether its part of the metric is about a product of two second moments.
        shareable: whether modules that share the weight make one block, with the calls of all of them.
        units: whether rows of its matrix are units (or filters) that can be pruned as a whole.
        filters: whether its rows are filters, applied at many positions.
        token_side: the side ("in" or "out") that runs over a vocabulary, of which only the diagonal is stored.
        groups: number of independent parts of the matrix's rows.
        row_part: the factors in which Jacobian rows are stored; None: they are stored as rows.
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
        """Tell whether it reads a module of one of its types: one that does not override the type's forward pass.

        Args:
            module: an instance of one of ``types``.

        Returns:
            True if it does.
        """
        return type(module).forward in {t.forward for t in self.types}

    def positional(self, module: nn.Module) -> bool:
        """Tell whether examples may run along the second axis of a module's input, after positions.

        Args:
            module: an instance of one of ``types``, whether or not the rule reads it.

        Returns:
            True where the layer treats every vector along the last axis independently.
        """
        return False

    def axis(self, module: nn.Module, shapes: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> int | None:
        """Find the axis of a module's input that runs over examples.

        Args:
            module: an instance of one of ``types``, whether or not the rule reads it.
            shapes: of its first input, in batches of several sizes.
            sizes: numbers of examples in these batches.

        Returns:
            The axis, ``BROADCAST`` where one input serves all examples, or None where no axis runs over examples.
        """
        if all(s and s[0] == n for s, n in zip(shapes, sizes, strict=True)):
            return 0
        second = all(len(s) > 1 and s[1] == n for s, n in zip(shapes, sizes, strict=True))
        return 1 if second and self.positional(module) else None

    def parts(self, module: nn.Module, own: Sequence[str], outside: Collection[str]) -> Sequence[Part] | None:
        """List the blocks of a module's own parameters.

        Args:
            module: a module that it reads.
            own: names of the module's own parameters, without submodules.
            outside: names of those that are frozen or not selected.

        Returns:
            The parts, or None where the module has parameters that the rule does not expect: adapters on a layer, or
            parameters from which a hook computes the weight.
        """
        if not set(self.parameters).issuperset(own):
            return None
        return [Part(self, tuple(n for n in self.parameters if n in own))]

    def shape(self, parameters: Sequence[Tensor]) -> tuple[int, int]:
        """Compute the shape of the matrix.

        Args:
            parameters: the block's trained parameters, in order.

        Returns:
            (out, in).
        """
        first = parameters[0]
        return first.shape[0], sum(p.numel() for p in parameters) // first.shape[0]

    def to_matrix(self, parameter: Tensor, shape: tuple[int, int], leading: int) -> Tensor:
        """Arrange a parameter as columns of the matrix.

        Args:
            parameter: the parameter, or gradients of it, with ``leading`` further axes in front.
            shape: (out, in) of the matrix.
            leading: number of axes in front.

        Returns:
            (..., out, columns).
        """
        return parameter.reshape(*parameter.shape[:leading], shape[0], -1)

    def from_matrix(self, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Invert :meth:`to_matrix`.

        Args:
            matrix: (..., out, columns).
            shape: of the parameter; () for one without an axis.

        Returns:
            (..., *shape).
        """
        return matrix.reshape((*matrix.shape[:-2], *shape))

    # Signals: inputs and cotangents of a forward pass.

    @abstractmethod
    def signals(self, block: Block, calls: Sequence[PulledCall], outputs: Tensor) -> Tensor:
        """Collect the signals of a block for one output cotangent.

        Args:
            block: one of its blocks.
            calls: the calls of the block's modules with their cotangents; empty where they were not called.
            outputs: (B, ..., C), the network's, for dtype and device.

        Returns:
            (B, ...): cotangents by position, or gradients; :meth:`form` receives them stacked.

        Raises:
            UnsupportedLayerError: the module was called in a way that cannot be read.
        """

    @abstractmethod
    def form(self, read: BlockRead, pulled: Tensor) -> Form:
        """Build the form of the per-example gradients from the signals of K cotangents.

        Args:
            read: the block in this forward pass.
            pulled: (K, B, ...), :meth:`signals` of every cotangent.

        Returns:
            The gradients' form.
        """

    def gathered(self, read: BlockRead) -> Tensor:
        """Collect the block's inputs from all calls.

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
        """Arrange gradients that come from differentiating the whole model.

        Args:
            block: one of its blocks.
            gradients: (K, B, *shape) for every parameter of the block.

        Returns:
            (K, B, ...), as :meth:`whole_form` takes them.
        """
        return torch.cat([block.to_matrix(g, 2) for g in gradients], -1)

    def whole_form(self, block: Block, gradients: Tensor) -> Form:
        """Build the form of gradients that come from differentiating the whole model.

        Args:
            block: one of its blocks.
            gradients: what :meth:`whole` returned.

        Returns:
            The gradients' form: exact, but larger.
        """
        return WholeForm(gradients, self.token_side)

    def row_factors(self, read: BlockRead, pulled: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of a batch's Jacobian rows, where ``row_part`` is not None.

        Args:
            read: the block in this forward pass.
            pulled: (B, K, T, out).

        Returns:
            The factor of every example (B, T, ...), and of its rows (B, K, T, out).
        """
        return read.rows, pulled

    def forms_rows(self, block: Block, positions: int, rows: int) -> bool:
        """Tell whether Jacobian rows are stored as rows although they have factors.

        Args:
            block: one of its blocks.
            positions: T.
            rows: Jacobian rows of an example.

        Returns:
            True where the rows are not much larger than their factors, from which every product would form them.
        """
        return self.row_part is None

    # Costs, in floats of memory and in multiplications.

    def diagonal(self, block: Block) -> bool:
        """Tell whether Kronecker representations store only the diagonal of a block.

        Args:
            block: one of its blocks.

        Returns:
            True where they do.
        """
        return False

    def sides(self, block: Block) -> tuple[int, ...]:
        """List the sides of the second moments that are decomposed for the block's bases.

        Args:
            block: one of its blocks.

        Returns:
            One pair of sides a group.
        """
        return tuple(d for d, side in zip(block.shape, ("out", "in"), strict=True) if side != self.token_side)

    def second_moments(self, block: Block) -> int:
        """Count the floats of the block's second moments.

        Args:
            block: one of its blocks.

        Returns:
            A number of floats.
        """
        if self.diagonal(block):
            return block.size
        of_tokens = {"": 0, "in": block.shape[1], "out": block.shape[0]}[self.token_side]
        return of_tokens + sum(d**2 for d in self.sides(block))

    def rotation(self, block: Block, positions: int) -> float:
        """Count the multiplications that rotate one gradient into the block's bases.

        Args:
            block: one of its blocks.
            positions: T, of the example.

        Returns:
            A number of multiplications.
        """
        out, width = block.shape
        right = min(positions, out) * width**2 * (self.token_side != "in")
        return right + min(positions, width) * out**2 * (self.token_side != "out")

    def sizes(self, block: Block, given: int, returned: int, last: int) -> tuple[int, int]:
        """Count the floats of a block's signals for one example's call of its module.

        Args:
            block: one of its blocks.
            given: floats of the module's input.
            returned: floats of its output.
            last: length of its output's last axis.

        Returns:
            Floats of the input's factor, and of one cotangent.
        """
        positions = self.positions(block, given, returned, last)
        return positions * block.shape[1], positions * block.shape[0]

    def positions(self, block: Block, given: int, returned: int, last: int) -> int:
        """Count the positions of one example's call.

        Args:
            block: one of its blocks.
            given: floats of the module's input.
            returned: floats of its output.
            last: length of its output's last axis.

        Returns:
            T, at least 1.
        """
        return max(1, returned // last)

    def row_floats(self, block: Block, sizes: tuple[int, int], rows: int) -> int:
        """Count the floats of an example's Jacobian rows.

        Args:
            block: one of its blocks.
            sizes: what :meth:`sizes` returned.
            rows: Jacobian rows of an example.

        Returns:
            A number of floats.
        """
        if self.forms_rows(block, sizes[1] // block.shape[0], rows):
            return rows * block.size
        return sizes[0] + rows * sizes[1]

    def product_floats(self, block: Block, sizes: tuple[int, int], rows: int) -> int:
        """Count the floats that Fisher products of many vectors store of an example.

        Args:
            block: one of its blocks.
            sizes: what :meth:`sizes` returned.
            rows: Jacobian rows of an example.

        Returns:
            A number of floats.
        """
        if rows < max(1, sizes[1] // block.shape[0]):
            return rows * block.size
        return sizes[0] + rows * sizes[1]
