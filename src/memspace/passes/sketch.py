"""Every example's gradient in whitened coordinates, sketched: inner products of sketches are those of the gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from memspace.passes.cotangent import View
from memspace.passes.forms.bases import Bases
from memspace.passes.layers.block import Block
from memspace.passes.statistics import TableStatistic

__all__ = ["GradientSketch", "sketched"]

LARGEST = 2**26  # numbers in the projection of all blocks together


def sketched(blocks: Sequence[Block], size: int) -> tuple[Block, ...]:
    """Choose the blocks whose projection is affordable, smallest first while they fit.

    Args:
        blocks: of the parameter space.
        size: numbers of a sketch.

    Returns:
        The chosen ones, in the order of ``blocks``.
    """
    chosen, left = set(), LARGEST // size
    for b in sorted(blocks, key=lambda b: b.size):
        left -= b.size
        if left < 0:
            break
        chosen.add(b.name)
    return tuple(b for b in blocks if b.name in chosen)


class GradientSketch(TableStatistic):
    """``sketch`` (n, S): Ω W J_iᵀ u for one random direction u of the outputs, the same for every example.

    W = (F̂ + γI)^-½ in Kronecker bases, and Ω has independent N(0, 1/S) entries. So E⟨s_i, s_j⟩ =
    uᵀ J_i (F̂ + γI)⁻¹ J_jᵀ u, with an error of about S^-½ of the norms (Johnson & Lindenstrauss 1984). Labels do not
    enter.

    Args:
        blocks: at least one; see :func:`sketched`.
        bases: eigenbases by block name.
        weights: eigenvalues of W (out, in) by block name.
        size: S.
        seed: of Ω and u.
    """

    def __init__(
        self, blocks: Sequence[Block], bases: dict[str, Bases], weights: dict[str, Tensor], size: int, seed: int
    ) -> None:
        super().__init__()
        self._blocks, self._seed = tuple(blocks), seed
        generator = torch.Generator().manual_seed(seed)
        self._queries: dict[str, Tensor] = {}
        for b in self._blocks:
            noise = torch.randn(size, *b.shape, generator=generator) / size**0.5
            scaled = noise.to(weights[b.name]) * weights[b.name]
            self._queries[b.name] = bases[b.name].back(scaled)

    def update(self, view: View) -> None:
        """Store one batch."""
        generator = torch.Generator().manual_seed(self._seed + 1)
        u = torch.randn(view.f.shape[-1], generator=generator).to(view.f).expand_as(view.f).unsqueeze(0)
        pulled = view.signals.cotangents(u)
        total: Tensor | None = None
        for b in self._blocks:
            part = view.signals.form(b, pulled[b.name]).scores(self._queries[b.name].to(view.f.dtype))[0]
            total = part if total is None else total + part
        assert total is not None
        self._append("sketch", total)
