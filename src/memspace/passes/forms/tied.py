"""Per-example gradients of a weight that is an embedding and an output layer at once: the sum of two forms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.passes.forms.bases import Bases
from memspace.passes.forms.form import Form, Moments
from memspace.passes.forms.product import ProductForm
from memspace.passes.forms.token import TokenForm

__all__ = ["TiedForm"]


@dataclass(frozen=True)
class TiedForm(Form):
    """G = P + Eᵀ, (vocabulary, dim).

    E has few columns that are not zero, those of the tokens in an example. Quadratic quantities of G are therefore
    those of P, corrected there. The vocabulary's side has no basis: its second moment is stored as a diagonal.

    Args:
        product: P.
        tokens: E (dim, vocabulary).
    """

    product: ProductForm
    tokens: TokenForm

    def _at_tokens(self) -> Tensor:
        """P's rows of the tokens that occur, (K, U, dim)."""
        g, a, out = self.product.g, self.product.a, torch.empty_like(self.tokens.sums)
        for b in range(len(a)):
            pairs = (self.tokens.example == b).nonzero().flatten()
            rows = torch.matmul(g[:, b][:, :, self.tokens.token[pairs]].transpose(-1, -2), a[b])
            out[:, pairs] = rows
        return out if self.product.late.a is None else out @ self.product.late.a.to(out.dtype)

    def gradients(self) -> Tensor:
        """See :class:`Form`."""
        return self.product.gradients() + self.tokens.gradients().transpose(-1, -2)

    def squared_norms(self) -> Tensor:
        """See :class:`Form`."""
        sums = self.tokens.sums
        extra = (sums * (sums + 2 * self._at_tokens())).sum(-1)
        return self.product.squared_norms() + self.tokens.by_example(extra)

    def squares(self) -> Tensor:
        """See :class:`Form`."""
        sums = self.tokens.sums
        extra = (sums * (sums + 2 * self._at_tokens())).double().sum(0)
        return self.product.squares().index_add_(0, self.tokens.token, extra)

    def rotate(self, bases: Bases) -> TiedForm:
        """See :class:`Form`."""
        assert bases.g is None, "the vocabulary has no basis"
        if bases.a is None:
            return self
        return TiedForm(self.product.rotate(bases), self.tokens.rotate(Bases(None, bases.a)))

    def rotation(self) -> int:
        """See :class:`Form`."""
        return self.tokens.rotation() + self.product.a.shape[1] * self.product.a.shape[-1] ** 2

    def pairs(self, weights: Tensor) -> Tensor:
        """See :class:`Form`."""
        out = self.product.pairs(weights)
        rows = self._at_tokens()
        whole = rows + self.tokens.sums
        for d, w in enumerate(weights):
            at = w[self.tokens.token]
            extra = torch.einsum("kud,lud->klu", whole * at, whole) - torch.einsum("kud,lud->klu", rows * at, rows)
            out[d] += self.tokens.by_example(extra).permute(2, 0, 1)
        return out

    def scores(self, queries: Tensor) -> Tensor:
        """See :class:`Form`."""
        return self.product.scores(queries) + self.tokens.scores(queries.transpose(-1, -2))

    def push(self, v: Tensor) -> Tensor:
        """See :class:`Form`."""
        return self.product.push(v) + self.tokens.push(v.transpose(-1, -2))

    def pull(self, u: Tensor) -> Tensor:
        """See :class:`Form`."""
        return self.product.pull(u) + self.tokens.pull(u).transpose(-1, -2)

    def moments(self) -> Moments:
        """Sum GᵀG and the squares of G's rows, scaled so that their product has the block's trace."""
        a, g, sums = self.product.a, self.product.g, self.tokens.sums
        rows = self._at_tokens()
        side = torch.einsum("kud,kue->de", sums, rows)
        side = side + side.t() + torch.einsum("kud,kue->de", sums, sums)
        by_row = g.new_zeros(g.shape[-1])
        for b in range(len(a)):
            inner = a[b] @ a[b].t()
            for gk in g[:, b]:
                side = side + a[b].t() @ ((gk @ gk.t()) @ a[b])
                by_row += ((inner @ gk) * gk).sum(0)
        by_row = by_row.index_add(0, self.tokens.token, (sums * (sums + 2 * rows)).sum((0, 2)))
        by_row = by_row.clamp_min(0)
        return Moments(side, by_row, float(by_row.sum()))
