"""Hooks that read a network's signals for one batch and are always taken off again.

A hook keeps each block's input and the *gradient edge* of its output, so that an in-place activation after the layer
cannot corrupt the cotangent. Cotangents come from ``torch.autograd.grad`` with those edges as inputs: autograd then
computes no weight gradient at all. A module called more than once in one forward pass contributes the positions of
all its calls to one sum, which is exactly the gradient of a shared weight.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from memspace.errors import ShapeError, UnsupportedLayerError
from memspace.passes.layers import cols, norm_gradient, rows
from memspace.task.data import Inputs, call_model, take
from memspace.task.space import Block, ParameterSpace

__all__ = ["Capture", "Signals"]


class Signals:
    """The signals of one forward pass: outputs, block inputs, and cotangents on demand.

    Args:
        f: (B, ..., C) outputs, still attached to the graph.
        inputs: block name → the inputs of its module's calls.
        edges: block name → the gradient edges of its calls' outputs.
    """

    def __init__(
        self,
        model: nn.Module,
        space: ParameterSpace,
        x: Inputs,
        f: Tensor,
        inputs: dict[str, list[Tensor]],
        edges: dict[str, list[GradientEdge]],
    ) -> None:
        self.f = f.detach()
        self._graph = f
        self._model, self._space, self._x = model, space, x
        self._inputs, self._edges = inputs, edges
        self._modules = dict(model.named_modules())
        self._rows: dict[str, Tensor] = {}

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks of the parameter space."""
        return self._space.blocks

    def rows(self, block: Block) -> Tensor:
        """(B, T, in) for a block with a product form; positions of several calls one after another."""
        if block.name not in self._rows:
            module = self._modules[block.module]
            parts = [rows(block, module, a) for a in self._inputs.get(block.name, [])]
            if not parts:
                parts = [self.f.new_zeros(len(self.f), 1, block.shape[1])]
            self._rows[block.name] = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return self._rows[block.name]

    def cotangents(self, u: Tensor) -> dict[str, Tensor]:
        """Pull K output cotangents back to every block.

        Args:
            u: (K, B, ..., C).

        Returns:
            for a block with a product form its g, (K, B, T, out); for any other its per-example gradients, (K, B, p).
        """
        flat_edges = [e for b in self.blocks for e in self._edges.get(b.name, [])]
        out: dict[str, list[list[Tensor]]] = {b.name: [] for b in self.blocks}
        if flat_edges:
            for k in range(len(u)):
                grads = torch.autograd.grad(
                    self._graph,
                    flat_edges,
                    u[k],
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=False,
                )
                at = 0
                for b in self.blocks:
                    count = len(self._edges.get(b.name, []))
                    out[b.name].append(list(grads[at : at + count]))
                    at += count
        loose = [b for b in self.blocks if b.kind == "loose"]
        result = {b.name: self._assemble(b, out[b.name], len(u)) for b in self.blocks if b.kind != "loose"}
        result.update(self._generic(loose, u) if loose else {})
        return result

    def parameter_gradient(self, params: Mapping[str, Tensor], u: Tensor) -> dict[str, Tensor]:
        """Autograd's own gradient of u·f in the parameters, for checks."""
        grads = torch.autograd.grad(self._graph, list(params.values()), u, retain_graph=True, allow_unused=True)
        return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(params.items(), grads, strict=True)}

    def _assemble(self, block: Block, grads: Sequence[Sequence[Tensor | None]], count: int) -> Tensor:
        module = self._modules[block.module]
        calls = self._inputs.get(block.name, [])
        b = len(self.f)
        if block.kind == "norm":
            total = self.f.new_zeros(count, b, block.size)
            for c, a in enumerate(calls):
                g = torch.stack([_or_zero(grads[k][c], a) for k in range(count)])
                total = total + norm_gradient(module, a, g)
            return total
        parts = []
        for c in range(len(calls)):
            steps = [grads[k][c] for k in range(count)]
            shape = next((s for s in steps if s is not None), None)
            if shape is None:
                positions = rows(block, module, calls[c]).shape[1]
                parts.append(self.f.new_zeros(count, b, positions, block.shape[0]))
            else:
                parts.append(torch.stack([cols(block, module, _or_zero(s, shape)) for s in steps]))
        if not parts:
            return self.f.new_zeros(count, b, 1, block.shape[0])
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

    def _generic(self, blocks: Sequence[Block], u: Tensor) -> dict[str, Tensor]:
        """Per-example gradients of the parameters off the fast path, (K, B, p) each, one example at a time."""
        names = [n for b in blocks for n in b.names]
        params = dict(self._model.named_parameters())
        chosen = {n: params[n].detach() for n in names}

        def one(x: Inputs, du: Tensor) -> dict[str, Tensor]:
            def outputs(p: dict[str, Tensor]) -> Tensor:
                f = functional_call(self._model, p, _arguments(_expand(x)), _keywords(_expand(x)))
                assert isinstance(f, Tensor)
                return f.squeeze(0)

            _, pull = vjp(outputs, chosen)[:2]
            return dict(vmap(lambda d: pull(d)[0])(du))

        per_example = u.transpose(0, 1)
        # Parameters not chosen would else keep the whole graph alive behind the result.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            # torch says which operations it maps one by one; the result is the same.
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            grads = _over_examples(one, self._x, per_example)
        return {b.name: grads[b.names[0]].flatten(2).transpose(0, 1) for b in blocks}


def _over_examples(one: Callable[[Inputs, Tensor], dict[str, Tensor]], x: Inputs, u: Tensor) -> dict[str, Tensor]:
    """Vmap over examples where the model allows it, else one by one (slower, same result)."""
    try:
        return dict(vmap(one)(x, u))
    except (RuntimeError, NotImplementedError, ValueError):
        parts = []
        for i in range(len(u)):
            parts.append(_loop(one, take(x, i), u[i]))
        return {k: torch.stack([p[k] for p in parts]) for k in parts[0]}


def _loop(one: Callable[[Inputs, Tensor], dict[str, Tensor]], x: Inputs, u: Tensor) -> dict[str, Tensor]:
    try:
        return one(x, u)
    except (RuntimeError, NotImplementedError, ValueError):
        parts = [one(x, u[k : k + 1]) for k in range(len(u))]
        return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}


def _or_zero(g: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if g is None else g


def _expand(x: Inputs) -> Inputs:
    return take(x, None)


def _arguments(x: Inputs) -> tuple[Any, ...]:
    return () if isinstance(x, dict) else x if isinstance(x, tuple) else (x,)


def _keywords(x: Inputs) -> dict[str, Any]:
    return x if isinstance(x, dict) else {}


class Capture:
    """Context manager: hooks on inside, none left behind after, also after an exception.

    The model should be in eval mode (see ``memspace.task.checks.evaluating``).
    """

    def __init__(self, model: nn.Module, space: ParameterSpace) -> None:
        self._model, self._space = model, space
        self._inputs: dict[str, list[tuple[Tensor, int]]] = {}
        self._edges: dict[str, list[GradientEdge]] = {}
        self._handles: list[Any] = []
        self._reading = False

    def __enter__(self) -> Capture:
        modules = dict(self._model.named_modules())
        for block in self._space.blocks:
            if block.kind != "loose":
                hook = self._hook(block.name)
                self._handles.append(modules[block.module].register_forward_hook(hook))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._inputs.clear()
        self._edges.clear()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if not self._reading:  # the generic path runs the model itself, under functorch
                return None
            if not args or not isinstance(output, Tensor):
                raise ShapeError(
                    f"{type(module).__name__} was called without positional tensor input",
                    where=name,
                    remedy="call the layer with its input as the first argument",
                )
            replaced = None
            if not output.requires_grad:  # frozen below and itself without gradient: start the graph here
                output = output.requires_grad_() if output.is_leaf else output
                replaced = output
            # The version tells later whether an in-place operation overwrote what was read.
            self._inputs.setdefault(name, []).append((args[0].detach(), args[0]._version))
            self._edges.setdefault(name, []).append(get_gradient_edge(output))
            return replaced

        return hook

    def forward(self, x: Inputs) -> Signals:
        """One forward pass with gradients enabled; returns its signals."""
        self._inputs, self._edges = {}, {}
        self._reading = True
        try:
            with torch.enable_grad():
                f = call_model(self._model, x)
        finally:
            self._reading = False
        inputs = {}
        for name, calls in self._inputs.items():
            if any(a._version != version for a, version in calls):
                raise UnsupportedLayerError(
                    "the input of this layer is overwritten in place later in the same forward pass",
                    where=name,
                    remedy="replace the in-place operation that follows it, or take the layer off the fast path",
                )
            inputs[name] = [a for a, _ in calls]
        return Signals(self._model, self._space, x, f, inputs, self._edges)


def fast(blocks: Iterable[Block]) -> list[Block]:
    """Blocks with a product form (a, g)."""
    return [b for b in blocks if b.kind in ("linear", "conv", "embedding")]
