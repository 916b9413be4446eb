"""Rows stored as dense vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from memspace.passes.row_parts.part import RowPart, add_panels

__all__ = ["FormedPart"]


class FormedPart(RowPart):
    """Dense rows ``g`` (R, out·in); ``a`` is not used."""

    def formed(self) -> Tensor:
        """See :class:`RowPart`."""
        return self.g.double()

    def norms(self) -> Tensor:
        """See :class:`RowPart`."""
        return self.g.double().square().sum(1)

    def own(self, rows: int) -> Tensor:
        """See :class:`RowPart`."""
        g = self.g.reshape(-1, rows, *self.g.shape[1:]).double()
        return g @ g.transpose(-1, -2)

    def times(self, v: Tensor) -> Tensor:
        """See :class:`RowPart`."""
        return self.g.double() @ v.flatten()

    def transposed_times(self, w: Tensor) -> Tensor:
        """See :class:`RowPart`."""
        return (w @ self.g.double()).reshape(self.block.shape)

    def add_times_stack(self, total: Tensor, v: Tensor) -> None:
        """See :class:`RowPart`."""
        total += v.flatten(1) @ self.g.double().t()

    def transposed_times_stack(self, w: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """See :class:`RowPart`."""
        yield slice(None), w @ self.g.double()

    def squares(self) -> Tensor:
        """See :class:`RowPart`."""
        return self.g.double().square().sum(0)

    def add_gram(self, total: Tensor, edges: Sequence[tuple[int, int]]) -> None:
        """See :class:`RowPart`."""
        add_panels(total, self.g, edges)
