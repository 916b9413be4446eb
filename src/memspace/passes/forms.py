"""Per-example gradients of one block in the form its layer gives them, and what every statistic asks of them.

Three forms share one interface. With K output cotangents and B examples:

* :class:`ProductForm`: Σ_t g_t a_tᵀ over the positions t of an example (linear, convolution, projections, ...);
* :class:`TokenForm`: an embedding's gradient, kept only for the tokens an example holds;
* :class:`FormedForm`: the gradient itself (norms, grouped convolutions, parameters off the fast path).

Rotating a form into eigenbases gives a form again, so that EKFAC's eigenvalues are the squares of a rotated form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from memspace.task.blocks import DENSE_LIMIT

__all__ = ["CHUNK", "DENSE_LIMIT", "Bases", "Form", "FormedForm", "Moments", "ProductForm", "TokenForm"]

CHUNK = 2**25  # numbers held at a time while per-example gradients are formed (128 MiB in float32)
PANEL = 128  # columns of a second moment's panel at least: narrower products lose more than symmetry saves


@dataclass(frozen=True)
class Bases:
    """Orthonormal bases of one block; None stands for the identity, a third axis in front for one of every group."""

    a: Tensor | None
    g: Tensor | None

    def held(self, dtype: torch.dtype) -> Bases:
        """In the dtype of the signals they will meet batch after batch; those kept in a file stay there."""

        def one(u: Tensor | None) -> Tensor | None:
            return u if u is None or u.untyped_storage().is_shared() else u.to(dtype)

        return Bases(one(self.a), one(self.g))

    def rotate(self, gradients: Tensor) -> Tensor:
        """(..., out, in) into the bases."""
        return self._turned(gradients, self.a, None if self.g is None else self.g.mT)

    def back(self, gradients: Tensor) -> Tensor:
        """The inverse of :meth:`rotate`."""
        return self._turned(gradients, None if self.a is None else self.a.mT, self.g)

    def squared(self) -> Bases:
        """Their entries squared: :meth:`back` then brings eigenvalues to the diagonal of the matrix."""
        return Bases(*(None if u is None else u.double().square() for u in (self.a, self.g)))

    @staticmethod
    def _turned(gradients: Tensor, right: Tensor | None, left: Tensor | None) -> Tensor:
        groups = next((len(u) for u in (right, left) if u is not None and u.dim() == 3), 0)
        if groups:
            gradients = gradients.reshape(*gradients.shape[:-2], groups, -1, gradients.shape[-1])
        if right is not None:
            gradients = gradients @ right.to(gradients.dtype)
        if left is not None:
            gradients = left.to(gradients.dtype) @ gradients
        return gradients.flatten(-3, -2) if groups else gradients


IDENTITY = Bases(None, None)


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


def _channels_first(x: Tensor) -> bool:
    """Whether (..., B, T, d) lies in memory as (..., B, d, T), as images do."""
    return x.stride(-1) != 1 and x.stride(-2) == 1


def _together(g: Tensor) -> Tensor:
    """(K, B, T, d) → (K·B, T, d), example by example where they lie so: to sums over both it is the same."""
    return (g.transpose(0, 1) if g.stride(1) > g.stride(0) else g).flatten(0, 1)


def _times(x: Tensor, basis: Tensor) -> Tensor:
    """(..., T, d) @ (d, e) in x's own order of memory, so that nothing is copied."""
    if not _channels_first(x):
        return x @ basis
    if x.dim() == 4 and x.stride(1) > x.stride(0):
        return _times(x.transpose(0, 1), basis).transpose(0, 1)
    flat = x.transpose(-1, -2).flatten(0, -3)
    turned = torch.bmm(basis.t().expand(len(flat), -1, -1), flat)
    return turned.reshape(*x.shape[:-2], *turned.shape[1:]).transpose(-1, -2)


def second_moment(x: Tensor) -> Tensor:
    """Σ_bt x_bt x_btᵀ of (B, T, d), (d, d); wide ones by the panels on and above the diagonal, which are half of it."""
    panels = 1 if x.shape[-1] < 3 * PANEL else min(6, x.shape[-1] // PANEL)
    edges = [round(i * x.shape[-1] / panels) for i in range(panels + 1)]
    batched = _channels_first(x) and x.shape[1] > 1
    flat = x if batched else x.flatten(0, 1)
    if panels == 1:
        return torch.bmm(flat.transpose(-1, -2), flat).sum(0) if batched else flat.t() @ flat
    out = x.new_empty(x.shape[-1], x.shape[-1])
    for i, j in pairwise(edges):
        left, right = flat[..., i:j].transpose(-1, -2), flat[..., i:]
        block = torch.bmm(left, right).sum(0) if batched else left @ right
        out[i:j, i:] = block
        out[j:, i:j] = block[:, j - i :].t()
    return out


def _slices(count: int, width: int) -> Iterator[slice]:
    step = max(1, CHUNK // max(1, width))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


@dataclass(frozen=True)
class ProductForm(Form):
    """``a`` (B, T, in), ``g`` (K, B, T, out).

    Args:
        ones: a bias is the last column of the block, and ``a`` comes without its column of ones: to append it would
            copy the largest tensor there is.
        late: bases still to be applied to the sum over positions.
        counted: how many positions there are, where ``a`` holds zeros beyond the end of shorter sequences (0: all).
    """

    a: Tensor
    g: Tensor
    ones: bool = False
    late: Bases = IDENTITY
    counted: int = 0

    @property
    def single(self) -> bool:
        """One position per example: G = g aᵀ."""
        return self.a.shape[1] == 1 and self.late == IDENTITY and not self.ones

    @property
    def _width(self) -> int:
        return self.a.shape[-1] + self.ones

    def _pieces(self) -> Iterator[slice]:
        return _slices(self.a.shape[0], len(self.g) * self.g.shape[-1] * self._width)

    def _parts(self, s: slice) -> tuple[Tensor, Tensor | None]:
        """Without the bias, and the bias: (b, K, out, in), (b, K, out, 1). Examples come first: K cotangents then meet
        an example's ``a`` in one product, where K products would each copy it.
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
        """By the positions' inner products where these are fewer numbers than the gradient."""
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
        """``g`` at once; ``a`` before or after the sum over positions, whichever has fewer rows."""
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
        """With one position, through the queries applied to ``a`` where that is smaller than the gradients."""
        out = self.g.new_empty(*self.g.shape[:2], len(queries))
        count, rows, width = queries.shape
        if self.single and count < width:
            for s in _slices(len(self.a), count * rows):
                moved = (self.a[s, 0] @ queries.flatten(0, 1).t()).reshape(-1, count, rows)
                out[:, s] = torch.matmul(moved, self.g[:, s, 0].permute(1, 2, 0)).permute(2, 0, 1)
            return out
        for s in self._pieces():
            out[:, s] = (self._formed(s).flatten(2) @ queries.flatten(1).t()).transpose(0, 1)
        return out

    def settled(self, vectors: int) -> Form:
        """The gradients themselves, as one row each, where many positions share a block: formed once, each vector then
        meets K numbers per parameter instead of T.
        """
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


@dataclass(frozen=True)
class TokenForm(Form):
    """Sums of cotangents over equal tokens of an example: no (dim, vocabulary) matrix per example.

    Args:
        example, token: (U,) of each pair that occurs; ``sums`` (K, U, dim).
        g: the cotangents by position, (K, B, T, dim), zero where padded; ``counts`` (vocabulary,) of occurrences.
    """

    example: Tensor
    token: Tensor
    sums: Tensor
    g: Tensor
    counts: Tensor

    @staticmethod
    def of(tokens: Tensor, g: Tensor, vocabulary: int) -> TokenForm:
        """From tokens (B, T) and cotangents (K, B, T, dim)."""
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
        """Values (..., U) summed within examples, (..., B)."""
        out = values.new_zeros(*values.shape[:-1], self.g.shape[1])
        return out.index_add_(values.dim() - 1, self.example, values)

    def gradients(self) -> Tensor:
        """Dense: for small vocabularies."""
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
        """Only ``g``: the token side's second moment is diagonal."""
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
        if examples * len(used) <= 4 * len(self.token):  # most examples hold most tokens: one product
            out = self.sums.new_empty(len(self.sums), examples, len(queries))
            for s in _slices(examples, len(self.sums) * len(used) * dim):
                own = (self.example >= s.start) & (self.example < s.stop)
                dense = self.sums.new_zeros(len(self.sums), s.stop - s.start, len(used), dim)
                dense[:, self.example[own] - s.start, place[own]] = self.sums[:, own]
                out[:, s] = dense.flatten(2) @ table.flatten(0, 1)
            return out
        order = torch.argsort(place, stable=True)
        ends = torch.bincount(place, minlength=len(used)).cumsum(0).tolist()
        each = self.sums.new_empty(len(self.sums), len(self.token), len(queries))
        for w, (start, stop) in enumerate(pairwise([0, *ends])):
            each[:, order[start:stop]] = self.sums[:, order[start:stop]] @ table[w]
        out = self.sums.new_zeros(len(self.sums), examples, len(queries))
        return out.index_add_(1, self.example, each)

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
        """The token side is diagonal: counts."""
        g = self.g.flatten(0, 2)
        return Moments(self.counts.to(g.dtype), second_moment(g.unsqueeze(0)), self.g.shape[1] * self.g.shape[2])


@dataclass(frozen=True)
class FormedForm(Form):
    """``rows`` (K, B, p): a block of shape (1, p)."""

    rows: Tensor

    def gradients(self) -> Tensor:
        """See :class:`Form`."""
        return self.rows.unsqueeze(2)

    def squared_norms(self) -> Tensor:
        """See :class:`Form`."""
        return self.rows.square().sum(-1)

    def squares(self) -> Tensor:
        """See :class:`Form`."""
        return self.rows.square().sum((0, 1)).double().unsqueeze(0)

    def rotate(self, bases: Bases) -> FormedForm:
        """See :class:`Form`."""
        return self if bases.a is None else FormedForm(self.rows @ bases.a.to(self.rows.dtype))

    def rotation(self) -> int:
        """See :class:`Form`."""
        return self.rows.shape[-1] ** 2

    def pairs(self, weights: Tensor) -> Tensor:
        """See :class:`Form`."""
        rows = self.rows.transpose(0, 1)
        return torch.stack([(rows * w[0]) @ rows.transpose(1, 2) for w in weights])

    def scores(self, queries: Tensor) -> Tensor:
        """See :class:`Form`."""
        return self.rows @ queries[:, 0].t()

    def push(self, v: Tensor) -> Tensor:
        """See :class:`Form`."""
        return self.rows @ v.flatten(1).t()

    def pull(self, u: Tensor) -> Tensor:
        """See :class:`Form`."""
        return (u.flatten(0, 1).t() @ self.rows.flatten(0, 1)).unsqueeze(1)

    def moments(self) -> Moments:
        """The block's own second moment."""
        rows = self.rows.flatten(0, 1)
        return Moments(
            second_moment(rows.unsqueeze(0)) if rows.shape[1] <= DENSE_LIMIT else rows.square().sum(0), None, 0
        )
