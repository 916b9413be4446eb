"""An embedding's gradients, stored only for the tokens in an example."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from memspace.passes.forms.bases import Bases
from memspace.passes.forms.form import Form, Moments
from memspace.passes.forms.sums import second_moment, slices

__all__ = ["TokenForm"]


@dataclass(frozen=True)
class TokenForm(Form):
    """Sums of cotangents over equal tokens of an example: no (dim, vocabulary) matrix per example.

    Args:
        example: (U,) of every pair of an example and a token that occurs.
        token: (U,) of the pairs.
        sums: (K, U, dim) of the pairs.
        g: the cotangents by position (K, B, T, dim), zero where padded.
        counts: (vocabulary,) occurrences of tokens.
    """

    example: Tensor
    token: Tensor
    sums: Tensor
    g: Tensor
    counts: Tensor

    @staticmethod
    def of(tokens: Tensor, g: Tensor, vocabulary: int) -> TokenForm:
        """Sum cotangents over equal tokens.

        Args:
            tokens: (B, T).
            g: cotangents (K, B, T, dim).
            vocabulary: number of tokens.

        Returns:
            The form.
        """
        batch = torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
        key, place = torch.unique(batch * vocabulary + tokens, return_inverse=True)
        sums = g.new_zeros(len(g), len(key), g.shape[-1])
        sums.index_add_(1, place.flatten(), g.flatten(1, 2))
        counts = torch.bincount(tokens.flatten(), minlength=vocabulary)
        return TokenForm(key // vocabulary, key % vocabulary, sums, g, counts)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.sums.shape[-1], len(self.counts)

    def by_example(self, values: Tensor) -> Tensor:
        """Sum values within examples.

        Args:
            values: (..., U).

        Returns:
            (..., B).
        """
        out = values.new_zeros(*values.shape[:-1], self.g.shape[1])
        return out.index_add_(values.dim() - 1, self.example, values)

    def gradients(self) -> Tensor:
        """Return the dense gradients, for small vocabularies."""
        dim, vocabulary = self._shape
        out = self.sums.new_zeros(len(self.sums), self.g.shape[1], vocabulary, dim)
        out[:, self.example, self.token] = self.sums
        return out.transpose(-1, -2)

    def squared_norms(self) -> Tensor:
        """See :class:`Form`."""
        return self.by_example(self.sums.square().sum(-1))

    def squares(self) -> Tensor:
        """See :class:`Form`."""
        dim, vocabulary = self._shape
        total = torch.zeros(vocabulary, dim, dtype=torch.float64, device=self.sums.device)
        total.index_add_(0, self.token, self.sums.square().sum(0).double())
        return total.t()

    def rotate(self, bases: Bases) -> TokenForm:
        """Rotate ``g`` alone: the token side's second moment is diagonal."""
        assert bases.a is None, "tokens have no basis"
        if bases.g is None:
            return self
        return TokenForm(self.example, self.token, self.sums @ bases.g.to(self.sums.dtype), self.g, self.counts)

    def rotation(self) -> int:
        """See :class:`Form`."""
        return self.g.shape[2] * self.g.shape[-1] ** 2

    def pairs(self, weights: Tensor) -> Tensor:
        """See :class:`Form`."""
        out = []
        for w in weights:
            scaled = self.sums * w.t()[self.token]
            out.append(self.by_example(torch.einsum("kud,lud->klu", scaled, self.sums)).permute(2, 0, 1))
        return torch.stack(out)

    def scores(self, queries: Tensor) -> Tensor:
        """See :class:`Form`."""
        used, place = torch.unique(self.token, return_inverse=True)
        examples, dim = self.g.shape[1], self.sums.shape[-1]
        table = queries[:, :, used].permute(2, 1, 0)  # (W, dim, Q)
        if examples * len(used) <= 4 * len(self.token):  # most tokens occur in most examples: one product
            out = self.sums.new_empty(len(self.sums), examples, len(queries))
            for s in slices(examples, len(self.sums) * len(used) * dim):
                inside = (self.example >= s.start) & (self.example < s.stop)
                dense = self.sums.new_zeros(len(self.sums), s.stop - s.start, len(used), dim)
                dense[:, self.example[inside] - s.start, place[inside]] = self.sums[:, inside]
                out[:, s] = dense.flatten(2) @ table.flatten(0, 1)
            return out
        order = torch.argsort(place, stable=True)
        ends = torch.bincount(place, minlength=len(used)).cumsum(0).tolist()
        by_pair = self.sums.new_empty(len(self.sums), len(self.token), len(queries))
        for w, (start, stop) in enumerate(pairwise([0, *ends])):
            by_pair[:, order[start:stop]] = self.sums[:, order[start:stop]] @ table[w]
        out = self.sums.new_zeros(len(self.sums), examples, len(queries))
        return out.index_add_(1, self.example, by_pair)

    def push(self, v: Tensor) -> Tensor:
        """See :class:`Form`."""
        return self.scores(v)

    def pull(self, u: Tensor) -> Tensor:
        """See :class:`Form`."""
        dim, vocabulary = self._shape
        mixed = torch.einsum("kud,kuq->uqd", self.sums, u[:, self.example])
        out = self.sums.new_zeros(vocabulary, u.shape[2], dim).index_add_(0, self.token, mixed)
        return out.permute(1, 2, 0)

    def moments(self) -> Moments:
        """Sum the second moments: on the diagonal token side, counts."""
        g = self.g.flatten(0, 2)
        return Moments(self.counts.to(g.dtype), second_moment(g.unsqueeze(0)), self.g.shape[1] * self.g.shape[2])
