"""What every statistic asks of the per-example gradients of one block, in whatever form its layer gives them.

Rotating a form into eigenbases gives a form again, so that EKFAC's eigenvalues are the squares of a rotated form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from memspace.passes.forms.bases import Bases

__all__ = ["Form", "Moments"]


@dataclass(frozen=True)
class Moments:
    """Sums for Kronecker factors: ``a`` over ``positions``, ``g`` over examples; 1-d where only a diagonal is kept, 3-d
    with one of every group of rows.

    ``g`` is None where the block has no product form; its own second moment is then ``a``. F of the block is about
    (Σg / n) ⊗ (Σa / Σ positions).
    """

    a: Tensor
    g: Tensor | None
    positions: float


class Form(ABC):
    """Gradients G_kb (out, in) of one block for K cotangents and B examples."""

    @abstractmethod
    def gradients(self) -> Tensor:
        """All of them, (K, B, out, in)."""

    @abstractmethod
    def squared_norms(self) -> Tensor:
        """‖G_kb‖², (K, B)."""

    @abstractmethod
    def squares(self) -> Tensor:
        """Σ_kb G_kb², elementwise, (out, in), float64."""

    @abstractmethod
    def rotate(self, bases: Bases) -> Form:
        """Into the bases: gᵀ G a."""

    @abstractmethod
    def rotation(self) -> int:
        """Multiplications that :meth:`rotate` costs per example and cotangent."""

    @abstractmethod
    def pairs(self, weights: Tensor) -> Tensor:
        """Σ_oi w_doi G_kboi G_lboi, (D, B, K, K), for weights (D, out, in)."""

    @abstractmethod
    def scores(self, queries: Tensor) -> Tensor:
        """⟨G_kb, q⟩, (K, B, Q), for queries (Q, out, in)."""

    @abstractmethod
    def push(self, v: Tensor) -> Tensor:
        """⟨G_kb, v⟩ for a stack of vectors (Q, out, in), (K, B, Q); unlike :meth:`scores` cheap for few of them."""

    @abstractmethod
    def pull(self, u: Tensor) -> Tensor:
        """Σ_kb u_kbq G_kb, (Q, out, in), for u (K, B, Q)."""

    def settled(self, vectors: int) -> Form:
        """The form in which :meth:`push` and :meth:`pull` of so many vectors at a time cost least."""
        return self

    @abstractmethod
    def moments(self) -> Moments:
        """Sums for Kronecker factors."""
