"""The statistics behind metrics and measures. Sums are accumulated in float64, whatever the model's dtype."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.passes.cotangent import View
from memspace.passes.forms.bases import Bases
from memspace.passes.layers.block import Block
from memspace.passes.offload import Disk
from memspace.passes.statistic import Statistic

__all__ = [
    "CorrectedEigenvalues",
    "DenseFisher",
    "DiagonalFisher",
    "FactorSums",
    "GradientNorms",
    "KroneckerFactors",
    "Outputs",
    "SampleSpread",
    "SumStatistic",
    "TableStatistic",
]

SMALL = 2**20  # bytes of a part of a table below which it is joined with its neighbour


def _merge_sums(mine: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for key, value in other.items():
        mine[key] = mine[key] + value if key in mine else value.clone()


class SumStatistic(Statistic[dict[str, Tensor]]):
    """A statistic that is a dictionary of float64 sums, with the number of examples under ``"n"``.

    Args:
        disk: where matrices are stored; None: in memory.
    """

    additive = True

    def __init__(self, disk: Disk | None = None) -> None:
        self._sums: dict[str, Tensor] = {}
        self._disk = disk

    def _add(self, key: str, value: Tensor) -> None:
        if key in self._sums:
            self._sums[key] += value  # in float64, without a converted copy
        elif self._disk is not None and value.dim() == 2:
            self._sums[key] = self._disk.keep(value, torch.float64)
        else:
            self._sums[key] = value.to(torch.float64, copy=True)

    def merge(self, other: Statistic[dict[str, Tensor]]) -> None:
        """Add the other's sums."""
        assert isinstance(other, SumStatistic)
        _merge_sums(self._sums, other._sums)

    def finish(self) -> dict[str, Tensor]:
        """Return the sums."""
        return self._sums

    def state(self) -> dict[str, Tensor]:
        """Return the sums."""
        return dict(self._sums)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore the sums."""
        self._sums = dict(state)


class DiagonalFisher(SumStatistic):
    """Σ over examples and rows of squared gradients, per block ``diag/NAME`` (out, in).

    Args:
        blocks: of the parameter space.
        kind: of the cotangents (see ``memspace.passes.cotangent``).
    """

    def __init__(self, blocks: Sequence[Block], kind: str = "exact") -> None:
        super().__init__()
        self._blocks, self.kinds = tuple(blocks), (kind,)

    def update(self, view: View) -> None:
        """Add one batch."""
        for block in self._blocks:
            self._add(f"diag/{block.name}", view.form(self.kinds[0], block).squares())
        self._add("n", torch.tensor(len(view.f)))


@dataclass(frozen=True)
class FactorSums:
    """Second moments of one block, float64; 1-d where only the diagonal is stored, 3-d with one per group of rows.

    Args:
        a: (in, in) per position; of a block without a product form its own second moment.
        g: (out, out) per example; [[1]] for a block without a product form.
    """

    a: Tensor
    g: Tensor


class KroneckerFactors(SumStatistic):
    """Σ a aᵀ and Σ g gᵀ per block: Martens & Grosse 2015; weight sharing as in Grosse & Martens 2016 ("expand").

    Args:
        blocks: of the parameter space.
        kind: of the cotangents (see ``memspace.passes.cotangent``).
        disk: where the sums are stored; None: in memory.
    """

    def __init__(self, blocks: Sequence[Block], kind: str = "exact", disk: Disk | None = None) -> None:
        super().__init__(disk)
        self._blocks, self.kinds = tuple(blocks), (kind,)

    def update(self, view: View) -> None:
        """Add one batch."""
        for block in self._blocks:
            m = view.form(self.kinds[0], block).moments()
            self._add(f"a/{block.name}", m.a)
            if m.g is not None:
                self._add(f"g/{block.name}", m.g)
                self._add(f"t/{block.name}", torch.tensor(m.positions, dtype=torch.float64))
        self._add("n", torch.tensor(len(view.f)))

    def factors(self) -> dict[str, FactorSums]:
        """Return mean second moments, F_block ≈ g ⊗ a.

        Returns:
            Block name to its moments.
        """
        return dict(self.each())

    def each(self) -> Iterator[tuple[str, FactorSums]]:
        """Compute :meth:`factors` block by block.

        Yields:
            Block name and moments.
        """
        for block in self._blocks:
            yield block.name, self._of(block.name)

    def taken(self) -> Iterator[tuple[str, FactorSums]]:
        """Compute :meth:`factors` block by block and drop every block's sums, so that bases can reuse their memory.

        Yields:
            Block name and moments.
        """
        for block in self._blocks:
            moments = self._of(block.name)
            for part in "agt":
                self._sums.pop(f"{part}/{block.name}", None)
            yield block.name, moments

    def _of(self, name: str) -> FactorSums:
        n, a = self._sums["n"], self._sums[f"a/{name}"]
        if f"g/{name}" in self._sums:
            # Zero where no input moves the outputs, not 0/0. Every group has its own trace.
            whole = self._sums[f"t/{name}"] if a.dim() < 3 else a.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]
            total = whole.clamp_min(1e-300)
            return FactorSums(a / total, self._sums[f"g/{name}"] / n)
        return FactorSums(a / n, torch.ones(1, 1, dtype=a.dtype, device=a.device))


class CorrectedEigenvalues(SumStatistic):
    """Σ of squared gradients in given bases (George et al. 2018, EKFAC), ``eig/NAME`` (out, in).

    Args:
        blocks: of the parameter space.
        bases: eigenbases by block name.
        kind: of the cotangents (see ``memspace.passes.cotangent``).
    """

    def __init__(self, blocks: Sequence[Block], bases: dict[str, Bases], kind: str = "exact") -> None:
        super().__init__()
        self._blocks, self._bases, self.kinds = tuple(blocks), bases, (kind,)

    def update(self, view: View) -> None:
        """Add one batch."""
        self._bases = {k: b.converted(view.f.dtype) for k, b in self._bases.items()}
        for block in self._blocks:
            form = view.form(self.kinds[0], block)
            self._add(f"eig/{block.name}", form.rotate(self._bases[block.name]).squares())
        self._add("n", torch.tensor(len(view.f)))


class DenseFisher(SumStatistic):
    """Σ rᵀr over all rows r, ``"fisher"`` (P, P): only for small networks.

    Args:
        blocks: of the parameter space.
        kind: of the cotangents (see ``memspace.passes.cotangent``).
    """

    def __init__(self, blocks: Sequence[Block], kind: str = "exact") -> None:
        super().__init__()
        self._blocks, self.kinds = tuple(blocks), (kind,)

    def update(self, view: View) -> None:
        """Add one batch."""
        rows = torch.cat([view.form(self.kinds[0], b).gradients().flatten(2) for b in self._blocks], -1).flatten(0, 1)
        rows = rows.double()
        self._add("fisher", rows.t() @ rows)
        self._add("n", torch.tensor(len(view.f)))


class TableStatistic(Statistic[dict[str, Tensor]]):
    """A statistic with columns of one entry per example, in the order read."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Tensor]] = {}

    def _append(self, key: str, value: Tensor) -> None:
        parts = self._parts.setdefault(key, [])
        parts.append(value)
        # Joined, since many small tensors keep the allocator from releasing the memory between them.
        while len(parts) > 1 and len(parts[-2]) <= len(parts[-1]) and parts[-1].nbytes < SMALL:
            parts[-2:] = [torch.cat(parts[-2:])]

    def merge(self, other: Statistic[dict[str, Tensor]]) -> None:
        """Append the other's examples."""
        assert isinstance(other, TableStatistic)
        for key, parts in other._parts.items():
            self._parts.setdefault(key, []).extend(parts)

    def finish(self) -> dict[str, Tensor]:
        """Return every column as one tensor."""
        return self.state()

    def state(self) -> dict[str, Tensor]:
        """Return the columns."""
        return {k: torch.cat(v) for k, v in self._parts.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore the columns."""
        self._parts = {k: [v] for k, v in state.items()}


class Outputs(TableStatistic):
    """Outputs ``f`` and labels ``y`` of every example."""

    def update(self, view: View) -> None:
        """Store one batch."""
        self._append("f", view.f)
        self._append("y", view.y)


class GradientNorms(TableStatistic):
    """Squared gradient norms per example and block, ``norms`` (n, L), summed over an example's rows; float64.

    Args:
        blocks: of the parameter space.
        kind: of the cotangents (see ``memspace.passes.cotangent``).
    """

    def __init__(self, blocks: Sequence[Block], kind: str) -> None:
        super().__init__()
        self._blocks, self.kinds = tuple(blocks), (kind,)

    def update(self, view: View) -> None:
        """Store one batch."""
        columns = [view.form(self.kinds[0], b).squared_norms().double().sum(0) for b in self._blocks]
        self._append("norms", torch.stack(columns, 1))


class SampleSpread(SumStatistic):
    """The spread of trace estimates over the sampled labels of an example: ``"variance"`` of Σ over examples of tr F_i.

    With k labels per example the squared norm of a row is an unbiased estimate of tr F_i over k. The sample variance of
    the k norms times k is the variance of the example's sum, given its input. Needs k ≥ 2.

    Args:
        blocks: of the parameter space.
        kind: of the cotangents (see ``memspace.passes.cotangent``).
    """

    def __init__(self, blocks: Sequence[Block], kind: str) -> None:
        super().__init__()
        self._blocks, self.kinds = tuple(blocks), (kind,)

    def update(self, view: View) -> None:
        """Add one batch."""
        norms = torch.stack([view.form(self.kinds[0], b).squared_norms().double() for b in self._blocks]).sum(0)
        self._add("variance", len(norms) * norms.var(0).sum())
        self._add("n", torch.tensor(len(view.f)))

    def standard_error(self) -> float:
        """Compute the standard error of tr F = (1/N) Σ tr F_i that the labels' draw causes.

        Returns:
            In the unit of tr F, nats.
        """
        return float(self._sums["variance"].sqrt() / self._sums["n"])
