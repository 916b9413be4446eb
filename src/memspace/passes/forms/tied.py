"""The per-example gradients of a weight that is an embedding and an output layer at once: the sum of two forms."""

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
    """G = P + Eᵀ, (vocabulary, dim): ``product`` gives P, ``tokens`` E (dim, vocabulary).

    E has few columns, those of the tokens an example holds: what is quadratic in G is that of P, put right there.
    The vocabulary's side keeps no basis: its second moment is held as a diagonal.
    """

    product: ProductForm
    tokens: TokenForm

    def _at_tokens(self) -> Tensor:
        """P's rows of the tokens that occur, (K, U, dim)."""
        g, a, out = self.product.g, self.product.a, torch.empty_like(self.tokens.sums)
        for b in range(len(a)):
            mine = (self.tokens.example == b).nonzero().flatten()
            rows = torch.matmul(g[:, b][:, :, self.tokens.token[mine]].transpose(-1, -2), a[b])
            out[:, mine] = rows
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
        """Σ GᵀG, and the squares of G's rows; the trace of either stands for the positions, so that F's is kept."""
        a, g, sums = self.product.a, self.product.g, self.tokens.sums
        rows = self._at_tokens()
        side = torch.einsum("kud,kue->de", sums, rows)
        side = side + side.t() + torch.einsum("kud,kue->de", sums, sums)
        by_row = g.new_zeros(g.shape[-1])
        for b in range(len(a)):
            inner = a[b] @ a[b].t()
            for each in g[:, b]:
                side = side + a[b].t() @ ((each @ each.t()) @ a[b])
                by_row += ((inner @ each) * each).sum(0)
        by_row = by_row.index_add(0, self.tokens.token, (sums * (sums + 2 * rows)).sum((0, 2)))
        by_row = by_row.clamp_min(0)
        return Moments(side, by_row, float(by_row.sum()))
