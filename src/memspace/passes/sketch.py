"""Every example's gradient in whitened coordinates, sketched: inner products of sketches are those of the gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from memspace.passes.cotangent import View
from memspace.passes.forms import Bases
from memspace.passes.statistics import _Table
from memspace.task.space import Block

__all__ = ["LARGEST", "GradientSketch"]

LARGEST = 2**26  # numbers in one block's projection


class GradientSketch(_Table):
    """``sketch`` (n, S): Ω W J_iᵀ u for one random direction u of the outputs, the same for every example.

    W = (F̂ + γI)^-½ in Kronecker bases and Ω has independent N(0, 1/S) entries, so that E⟨s_i, s_j⟩ =
    uᵀ J_i (F̂ + γI)⁻¹ J_jᵀ u, to a relative error of about S^-½ of the norms (Johnson & Lindenstrauss 1984). Labels
    do not enter. Blocks whose projection would have more than ``LARGEST`` numbers are left out.

    Args:
        bases: by block; weights: by block (out, in), the eigenvalues of W.
        size: S; seed: of Ω and u.
    """

    def __init__(
        self, blocks: Sequence[Block], bases: dict[str, Bases], weights: dict[str, Tensor], size: int, seed: int
    ) -> None:
        super().__init__()
        self._blocks, self._seed = tuple(b for b in blocks if b.size * size <= LARGEST), seed
        generator = torch.Generator().manual_seed(seed)
        self._queries: dict[str, Tensor] = {}
        for b in self._blocks:
            noise = torch.randn(size, *b.shape, generator=generator) / size**0.5
            scaled = noise.to(weights[b.name]) * weights[b.name]
            self._queries[b.name] = bases[b.name].back(scaled)

    def update(self, view: View) -> None:
        """Keep one batch."""
        generator = torch.Generator().manual_seed(self._seed + 1)
        u = torch.randn(view.f.shape[-1], generator=generator).to(view.f).expand_as(view.f).unsqueeze(0)
        pulled = view.signals.cotangents(u)
        total: Tensor | None = None
        for b in self._blocks:
            part = view.signals.form(b, pulled[b.name]).scores(self._queries[b.name].to(view.f.dtype))[0]
            total = part if total is None else total + part
        assert total is not None
        self._append("sketch", total)
