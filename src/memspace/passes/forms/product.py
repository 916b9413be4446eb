"""Gradients that are sums of outer products over the positions of an example: Σ_t g_t a_tᵀ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.passes.forms.bases import IDENTITY, Bases
from memspace.passes.forms.form import Form, Moments
from memspace.passes.forms.formed import FormedForm
from memspace.passes.forms.sums import channels_first, second_moment, slices

__all__ = ["ProductForm"]


@dataclass(frozen=True)
class ProductForm(Form):
    """Gradients Σ_t g_t a_tᵀ in factors.

    Args:
        a: (B, T, in).
        g: (K, B, T, out).
        ones: whether the last column of the block is a bias, whose column of ones is missing in ``a``: appending it
            would copy the largest tensor.
        late: bases still to be applied to the sum over positions.
        counted: number of positions, where ``a`` holds zeros beyond the end of shorter sequences; 0: all.
    """

    a: Tensor
    g: Tensor
    ones: bool = False
    late: Bases = IDENTITY
    counted: int = 0

    @property
    def single(self) -> bool:
        """Whether there is one position per example: G = g aᵀ."""
        return self.a.shape[1] == 1 and self.late == IDENTITY and not self.ones

    @property
    def _width(self) -> int:
        return self.a.shape[-1] + self.ones

    def _pieces(self) -> Iterator[slice]:
        return slices(self.a.shape[0], len(self.g) * self.g.shape[-1] * self._width)

    def _parts(self, s: slice) -> tuple[Tensor, Tensor | None]:
        """Gradients without the bias (b, K, out, in), and of the bias (b, K, out, 1).

        Examples come first: one product multiplies K cotangents by an example's ``a``, where K products would copy it.
        """
        g = self.g[:, s]
        count, b, t, out = g.shape
        merged = g[0].transpose(1, 2) if count == 1 else g.permute(1, 0, 3, 2).reshape(b, count * out, t)
        weight = torch.bmm(merged, self.a[s]).reshape(b, count, out, -1)
        return weight, g.sum(2).transpose(0, 1).unsqueeze(-1) if self.ones else None

    def _formed(self, s: slice) -> Tensor:
        """(b, K, out, in)."""
        weight, bias = self._parts(s)
        if bias is None:
            return self.late.rotate(weight)
        if self.late.a is None:
            return self.late.rotate(torch.cat([weight, bias], -1))
        basis = self.late.a.to(weight.dtype)
        return Bases(None, self.late.g).rotate((weight @ basis[:-1]).addcmul_(bias, basis[-1]))

    def gradients(self) -> Tensor:
        """See :class:`Form`."""
        return self._formed(slice(None)).transpose(0, 1)

    def squared_norms(self) -> Tensor:
        """Compute squared norms, by the positions' inner products where these are fewer numbers than the gradient."""
        a, g = self.a, self.g
        if a.shape[1] == 1:  # bases are orthonormal: norms need no rotation
            return (a.square().sum((1, 2)) + self.ones) * g.square().sum((2, 3))
        if a.shape[1] * (a.shape[-1] + g.shape[-1]) < a.shape[-1] * g.shape[-1]:
            inner = torch.matmul(a, a.transpose(-1, -2))
            inner = inner.add_(1) if self.ones else inner
            return torch.matmul(g, g.transpose(-1, -2)).mul_(inner).sum((-1, -2))
        out = g.new_empty(g.shape[:2])
        for s in self._pieces():
            weight, bias = self._parts(s)
            out[:, s] = weight.flatten(2).square_().sum(-1).t()
            if bias is not None:
                out[:, s] += bias.square_().sum((-1, -2)).t()
        return out

    def squares(self) -> Tensor:
        """See :class:`Form`."""
        if self.single:
            return (self.g.square().sum(0)[:, 0].t() @ self.a[:, 0].square()).double()
        total = torch.zeros(self.g.shape[-1], self._width, dtype=torch.float64, device=self.g.device)
        for s in self._pieces():
            if self.late == IDENTITY and self.ones:
                weight, bias = self._parts(s)
                assert bias is not None
                total[:, :-1] += weight.square_().sum((0, 1))
                total[:, -1:] += bias.square_().sum((0, 1))
            else:
                total += self._formed(s).square_().sum((0, 1))
        return total

    def rotate(self, bases: Bases) -> ProductForm:
        """Rotate ``g`` at once, and ``a`` before or after the sum over positions, whichever has fewer rows."""
        assert self.late == IDENTITY, "a form is rotated once"
        a, g, ones, late = self.a, self.g, self.ones, bases
        positions, rows = a.shape[1], len(g) * g.shape[-1]
        if positions <= rows and bases.a is not None:
            basis = bases.a.to(a.dtype)
            a = _times(a, basis[:-1]).add_(basis[-1]) if ones else _times(a, basis)
            late, ones = Bases(None, late.g), False
        if positions <= self._width and bases.g is not None:
            g, late = _times(g, bases.g.to(g.dtype)), Bases(late.a, None)
        return ProductForm(a, g, ones, late)

    def rotation(self) -> int:
        """See :class:`Form`."""
        t, i, o = self.a.shape[1], self._width, self.g.shape[-1]
        return min(t, o) * i * i + min(t, i) * o * o

    def pairs(self, weights: Tensor) -> Tensor:
        """See :class:`Form`."""
        if self.single:
            g, squared = self.g[:, :, 0].transpose(0, 1), self.a[:, 0].square()
            return torch.stack([(g * (squared @ w.t()).unsqueeze(1)) @ g.transpose(1, 2) for w in weights])
        out = self.g.new_empty(len(weights), self.g.shape[1], len(self.g), len(self.g))
        for s in self._pieces():
            formed = self._formed(s).flatten(2)
            for d, w in enumerate(weights):
                out[d, s] = (formed * w.flatten()) @ formed.transpose(1, 2)
        return out

    def scores(self, queries: Tensor) -> Tensor:
        """Compute inner products; with one position by queries times ``a`` where that is smaller than gradients."""
        out = self.g.new_empty(*self.g.shape[:2], len(queries))
        count, rows, width = queries.shape
        if self.single and count < width:
            for s in slices(len(self.a), count * rows):
                moved = (self.a[s, 0] @ queries.flatten(0, 1).t()).reshape(-1, count, rows)
                out[:, s] = torch.matmul(moved, self.g[:, s, 0].permute(1, 2, 0)).permute(2, 0, 1)
            return out
        for s in self._pieces():
            out[:, s] = (self._formed(s).flatten(2) @ queries.flatten(1).t()).transpose(0, 1)
        return out

    def settled(self, vectors: int) -> Form:
        """Form the gradients as rows where there are many positions: K numbers per parameter and vector, not T."""
        k, t = len(self.g), self.a.shape[1]
        if t == 1 or k * (t + 2 * vectors) >= 2 * vectors * t:
            return self
        return FormedForm(self.gradients().flatten(2).contiguous())

    def push(self, v: Tensor) -> Tensor:
        """See :class:`Form`."""
        b, width, count = len(self.a), self.a.shape[-1], len(v)
        moved = _times(self.a, v[..., :width].flatten(0, 1).t())
        if self.ones:
            moved = moved + v[..., -1].flatten()
        moved = moved.reshape(*moved.shape[:2], count, -1).transpose(2, 3).reshape(b, -1, count)  # (B, T·out, Q)
        return torch.matmul(self.g.transpose(0, 1).reshape(b, len(self.g), -1), moved).transpose(0, 1)

    def pull(self, u: Tensor) -> Tensor:
        """See :class:`Form`."""
        (b, t, _), q = self.a.shape, u.shape[2]
        g = self.g.transpose(0, 1).reshape(b, len(self.g), -1)
        mixed = torch.matmul(u.permute(1, 2, 0), g).reshape(b, q, t, -1)  # (B, Q, T, out)
        mixed = mixed.permute(0, 2, 1, 3).flatten(2)
        out = mixed.flatten(0, 1).t() @ self.a.reshape(b * t, -1)
        out = out.reshape(q, -1, out.shape[-1])
        if self.ones:
            out = torch.cat([out, mixed.sum((0, 1)).reshape(q, -1, 1)], -1)
        return out

    def moments(self) -> Moments:
        """See :class:`Form`."""
        count = self.counted or self.a.shape[0] * self.a.shape[1]
        a, g = second_moment(self.a), second_moment(_together(self.g))
        if self.ones:
            sums = self.a.sum((0, 1))
            a = torch.cat(
                [torch.cat([a, sums.unsqueeze(0)]), torch.cat([sums, sums.new_tensor([count])]).unsqueeze(1)], 1
            )
        return Moments(a, g, count)


def _together(g: Tensor) -> Tensor:
    """(K, B, T, d) → (K·B, T, d), in the order of memory, which sums over both do not notice."""
    return (g.transpose(0, 1) if g.stride(1) > g.stride(0) else g).flatten(0, 1)


def _times(x: Tensor, basis: Tensor) -> Tensor:
    """(..., T, d) @ (d, e) in the order of memory of x, so that nothing is copied."""
    if not channels_first(x):
        return x @ basis
    if x.dim() == 4 and x.stride(1) > x.stride(0):
        return _times(x.transpose(0, 1), basis).transpose(0, 1)
    flat = x.transpose(-1, -2).flatten(0, -3)
    turned = torch.bmm(basis.t().expand(len(flat), -1, -1), flat)
    return turned.reshape(*x.shape[:-2], *turned.shape[1:]).transpose(-1, -2)
