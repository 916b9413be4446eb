"""The interface of one block's part of R Jacobian rows over n examples, in whatever factors it is stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from memspace.passes.forms.sums import slices
from memspace.passes.layers.block import Block

__all__ = ["RowPart", "add_panels", "gathered"]


class RowPart(ABC):
    """One block of rows.

    Args:
        block: the block.
        a: factor of every example, (n, ...).
        g: factor of every row, (R, ...).
        example: (R,) the example of every row.
    """

    def __init__(self, block: Block, a: Tensor, g: Tensor, example: Tensor) -> None:
        self.block, self.a, self.g, self.example = block, a, g, example

    @abstractmethod
    def formed(self) -> Tensor:
        """Compute the rows as dense vectors.

        Returns:
            (R, out·in), float64.
        """

    @abstractmethod
    def norms(self) -> Tensor:
        """Compute the rows' squared norms.

        Returns:
            (R,), float64.
        """

    @abstractmethod
    def own(self, rows: int) -> Tensor:
        """Multiply the consecutive rows of every example with one another.

        Args:
            rows: of an example, C.

        Returns:
            Inner products (n, C, C), float64.
        """

    def add_dot(self, total: Tensor, other: RowPart) -> None:
        """Add the inner products with rows of the same block, whatever form those are stored in.

        Args:
            total: (R, R'), float64, added to in place.
            other: R' rows.
        """
        total.addmm_(self.formed(), other.formed().t())

    @abstractmethod
    def times(self, v: Tensor) -> Tensor:
        """Multiply every row with one vector.

        Args:
            v: (out, in), float64.

        Returns:
            (R,), float64.
        """

    @abstractmethod
    def transposed_times(self, w: Tensor) -> Tensor:
        """Add the rows up with weights.

        Args:
            w: (R,), float64.

        Returns:
            (out, in), float64.
        """

    @abstractmethod
    def add_times_stack(self, total: Tensor, v: Tensor) -> None:
        """Add the products of every row with a stack of vectors.

        Args:
            total: (k, R), float64, added to in place.
            v: (k, out, in), float64.
        """

    @abstractmethod
    def transposed_times_stack(self, w: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Add the rows up with each weight vector of a stack, some at a time.

        Args:
            w: (k, R), float64.

        Yields:
            A slice of the k, and their sums as flat vectors (some, out·in), float64.
        """

    def squares(self) -> Tensor:
        """Sum the rows' squares elementwise.

        Returns:
            (out·in,), float64.
        """
        out = torch.zeros(self.block.size, dtype=torch.float64, device=self.g.device)
        for s in slices(len(self.g), self.block.size):
            out += type(self)(self.block, self.a, self.g[s], self.example[s]).formed().square().sum(0)
        return out

    @abstractmethod
    def add_gram(self, total: Tensor, edges: Sequence[tuple[int, int]]) -> None:
        """Add the inner products among all rows, on and above the diagonal's panels.

        Args:
            total: (R, R) in the rows' own dtype, added to in place.
            edges: first and last row of every panel.
        """


def add_panels(total: Tensor, rows: Tensor, edges: Sequence[tuple[int, int]]) -> None:
    """Add the inner products of dense rows panel by panel, see :meth:`RowPart.add_gram`.

    Args:
        total: (R, R), added to in place.
        rows: (R, d).
        edges: first and last row of every panel.
    """
    for i, j in edges:
        total[i:j, i:].addmm_(rows[i:j], rows[i:].t())


def gathered(example: Tensor, weighted: Tensor, count: int) -> Tensor:
    """Sum rows within examples.

    Args:
        example: (R,) the example of every row.
        weighted: (R, ...).
        count: n.

    Returns:
        (n, ...), float64.
    """
    out = torch.zeros(count, *weighted.shape[1:], dtype=torch.float64, device=weighted.device)
    return out.index_add_(0, example, weighted)
