"""J v and Jᵀ u of a function of parameters, for stacks of vectors, in whatever manner torch supports."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap

__all__ = ["ENTRIES", "Linearised", "differential", "pull_plain", "quiet"]

ENTRIES = 3  # the manner of J that computes a gradient per output: for few examples at a time


def _pair(result: Any) -> tuple[Any, Any]:
    """The first two results of torch.func (its type has a third, for auxiliary outputs)."""
    return result[0], result[1]


def differential(
    f: Callable[[dict[str, Tensor]], Tensor],
    at: dict[str, Tensor],
    v: dict[str, Tensor],
    *,
    graph: bool = False,
    plain: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute a function and its derivative along a vector.

    Where an operation has no forward-mode derivative, J v is the pull-back of u ↦ Jᵀ u.

    Args:
        f: outputs as a function of parameters by name.
        at: the parameters.
        v: the vector, by parameter name.
        graph: whether both results are to be differentiated further, in ``at`` and ``v``.
        plain: whether only plain autograd is used.

    Returns:
        F (B, ..., C) and J v of the same shape.
    """
    if not plain:
        try:
            return _pair(jvp(f, (at,), (v,)))
        except (NotImplementedError, RuntimeError):
            pass
    return _reverse_twice(f, at, v, graph)


def _reverse_twice(
    f: Callable[[dict[str, Tensor]], Tensor], at: dict[str, Tensor], v: dict[str, Tensor], graph: bool = False
) -> tuple[Tensor, Tensor]:
    """(f, J v) by plain autograd, which accepts packed sequences: the pull-back of u ↦ Jᵀ u is v ↦ J v."""
    leaves = at if graph else {n: p.detach().requires_grad_() for n, p in at.items()}
    with torch.enable_grad():
        value = f(leaves)
        u = torch.zeros_like(value, requires_grad=True)
        pulled = torch.autograd.grad(value, list(leaves.values()), u, create_graph=True, allow_unused=True)
        inner = sum(((g * t).sum() for g, t in zip(pulled, v.values(), strict=True) if g is not None), u.sum() * 0)
        moved = torch.autograd.grad(inner, u, create_graph=graph)[0]
        return (value, moved) if graph else (value.detach(), moved)


def pull_plain(f: Callable[[dict[str, Tensor]], Tensor], at: dict[str, Tensor], u: Tensor) -> dict[str, Tensor]:
    """Compute Jᵀ u by plain autograd.

    Args:
        f: outputs as a function of parameters by name.
        at: the parameters.
        u: (k, B, ..., C) stack of output cotangents.

    Returns:
        Parameter name to (k, *shape).
    """
    leaves = {n: p.detach().requires_grad_() for n, p in at.items()}
    with torch.enable_grad():
        value = f(leaves)
    parts = []
    for w in u:
        grads = torch.autograd.grad(value, list(leaves.values()), w, retain_graph=True, allow_unused=True)
        parts.append([torch.zeros_like(p) if g is None else g for g, p in zip(grads, at.values(), strict=True)])
    return {n: torch.stack([p[i] for p in parts]) for i, n in enumerate(at)}


def _from_entries(
    f: Callable[[dict[str, Tensor]], Tensor], at: dict[str, Tensor], v: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """(f, J v) for a stack v, by one gradient per number of the outputs."""
    leaves = {n: p.detach().requires_grad_() for n, p in at.items()}
    with torch.enable_grad():
        value = f(leaves)
        entries, moved = list(value.flatten()), []
    for entry in entries:
        grads = torch.autograd.grad(entry, list(leaves.values()), retain_graph=True, allow_unused=True)
        terms = [t.reshape(len(t), -1) @ g.flatten() for g, t in zip(grads, v.values(), strict=True) if g is not None]
        moved.append(torch.stack(terms).sum(0) if terms else value.new_zeros(len(next(iter(v.values())))))
    return value.detach(), torch.stack(moved, 1).reshape(-1, *value.shape)


class Linearised:
    """One batch's outputs with J on stacks of vectors (k, ...) and Jᵀ on stacks of cotangents.

    The stack goes through the network together, so that a layer multiplies k times the examples in one product. Where
    an operation cannot be mapped over the stack, the vectors go one after another (slower, same result).

    Args:
        f: outputs as a function of parameters by name.
        at: the parameters.
        manner: of J and of Jᵀ: 0 the stack together, 1 one after another, 2 by plain autograd (J by reverse mode
            twice), 3 (J only) from the gradient of every single output, which needs no second derivative.
    """

    def __init__(
        self, f: Callable[[dict[str, Tensor]], Tensor], at: dict[str, Tensor], manner: tuple[int, int] = (0, 0)
    ) -> None:
        self._f, self._at, self._manner = f, at, manner

    def push(self, v: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the outputs and J v.

        Args:
            v: stack of vectors by parameter name, (k, *shape).

        Returns:
            F (B, ..., C) and J v (k, B, ..., C).
        """
        count = len(next(iter(v.values())))
        if count > 1 and self._manner[0] == 0:
            try:
                with quiet():
                    at_v = vmap(lambda t: _pair(jvp(self._f, (self._at,), (t,))), out_dims=(None, 0))  # type: ignore[arg-type]
                    return _pair(at_v(v))
            except (NotImplementedError, RuntimeError, ValueError):
                pass
        if self._manner[0] == ENTRIES:
            return _from_entries(self._f, self._at, v)
        plain = self._manner[0] == 2
        vectors = [{n: t[i] for n, t in v.items()} for i in range(count)]
        pairs = [differential(self._f, self._at, t, plain=plain) for t in vectors]
        return pairs[0][0], torch.stack([moved for _, moved in pairs])

    def pull(self, u: Tensor) -> dict[str, Tensor]:
        """Compute Jᵀ u, with one linearisation for the whole stack.

        Args:
            u: (k, B, ..., C) stack of output cotangents.

        Returns:
            Parameter name to (k, *shape).
        """
        if self._manner[1] == 2:
            return pull_plain(self._f, self._at, u)
        try:
            _, pull = _pair(vjp(self._f, self._at))
        except (NotImplementedError, RuntimeError):  # an operation that functorch does not support
            return pull_plain(self._f, self._at, u)
        if len(u) > 1 and self._manner[1] == 0:
            try:
                with quiet():
                    return dict(vmap(lambda w: pull(w)[0])(u))
            except (NotImplementedError, RuntimeError, ValueError):
                pass
        parts = [pull(w, retain_graph=i + 1 < len(u))[0] for i, w in enumerate(u)]
        return {n: torch.stack([p[n] for p in parts]) for n in self._at}


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out torch's warnings of operations that it maps one by one; the result is the same.

    Yields:
        Nothing.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        yield
