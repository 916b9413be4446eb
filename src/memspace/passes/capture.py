"""Hooks that read a network's signals for one batch and are always taken off again.

A hook keeps each call's input and the *gradient edge* of its output, so that an in-place activation after the layer
cannot corrupt the cotangent. Cotangents come from ``torch.autograd.grad`` with those edges as inputs: autograd then
computes no weight gradient at all. A module called more than once in one forward pass contributes the positions of
all its calls to one sum, which is exactly the gradient of a shared weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from memspace.errors import ShapeError, UnsupportedLayerError
from memspace.passes.bags import TABLES, looked_up, spread
from memspace.passes.blocks import BROADCAST, COMPOSITE, FORMED
from memspace.passes.calls import Call
from memspace.passes.forms.form import Form
from memspace.passes.forms.formed import FormedForm
from memspace.passes.forms.group import GroupForm
from memspace.passes.forms.product import ProductForm
from memspace.passes.forms.tied import TiedForm
from memspace.passes.forms.token import TokenForm
from memspace.passes.forms.whole import WholeForm
from memspace.passes.generic import per_example
from memspace.passes.layers import cols, grouped_gradient, norm_gradient, only_bias, rows, with_bias
from memspace.passes.space import Block, ParameterSpace
from memspace.task.data import Inputs, call_model, first_tensor

__all__ = ["Capture", "Proof", "Signals"]


Proof = Callable[["Signals", Tensor, Mapping[str, Tensor]], None]

Kinds = type[nn.Module] | tuple[type[nn.Module], ...]


class Signals:
    """The signals of one forward pass: outputs, block inputs, and cotangents on demand.

    Args:
        f: (B, ..., C) outputs, still attached to the graph.
        calls: module name → its calls, in order.
        proof: is shown every set of cotangents that is pulled back, and raises where they are not autograd's.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: dict[str, nn.Module],
        space: ParameterSpace,
        x: Inputs,
        f: Tensor,
        calls: dict[str, list[Call]],
        proof: Proof | None = None,
    ) -> None:
        self.f = f.detach()
        self._graph = f
        self._model, self._space, self._x, self._calls = model, space, x, calls
        self._modules, self._proof = modules, proof
        self._rows: dict[str, Tensor] = {}

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks of the parameter space."""
        return self._space.blocks

    def generic(self, block: Block) -> bool:
        """Whether its per-example gradients come by the generic way: it was laid out so, or its signals refuted."""
        return block.kind == "loose" or block.module in self._space.refuted

    @property
    def graph(self) -> Tensor:
        """The outputs with the graph that led to them."""
        return self._graph

    @property
    def record(self) -> Mapping[str, Sequence[Call]]:
        """Module name → its calls, of every module that is read by its signals."""
        return self._calls

    def calls(self, block: Block, kind: Kinds = nn.Module) -> Sequence[Call]:
        """The calls of a block's modules (of those of a kind) in this forward pass."""
        names = [m for m in block.modules if isinstance(self._modules[m], kind)]
        return [c for m in names for c in self._calls.get(m, [])]

    def _axis(self, call: Call) -> int:
        return self._space.axes.get(call.name, 0)

    def inputs(self, block: Block) -> Tensor:
        """(B, T, in) for a block with a product form; positions of several calls one after another.

        The column of ones of a bias beside a weight is missing: ``in`` is then one less than the block's.
        """
        if self.generic(block):
            raise UnsupportedLayerError(
                "what this layer was given is not known example by example",
                where=block.module,
                remedy="call it on one row (or one sequence of rows) per example",
            )
        if block.name not in self._rows:
            module, b = self._modules[block.module], len(self.f)
            parts = []
            for call in self.calls(block, nn.Linear if block.kind == "tied" else nn.Module):
                if block.kind in COMPOSITE:
                    inside = call.opened(module, b).inputs[block.part]
                    parts.append(torch.ones_like(inside[..., :1]) if only_bias(block) else inside)
                else:
                    parts.append(rows(block, module, call.inputs(self._axis(call), b)))
            self._rows[block.name] = _joined(parts, 1, (b, 1, block.shape[1]), self.f)
        return self._rows[block.name]

    def rows(self, block: Block) -> Tensor:
        """As :meth:`inputs`, with the column of ones."""
        return with_bias(block, self.inputs(block))

    def _alive(self, block: Block) -> Tensor | None:
        """(B, T) which positions lie within their packed sequence; None where nothing was packed."""
        if block.kind not in COMPOSITE:
            return None
        parts, packed = [], False
        for call in self.calls(block):
            replayed = call.opened(self._modules[block.module], len(self.f))
            packed = packed or replayed.alive is not None
            whole = torch.ones_like(replayed.inputs[block.part][..., 0])
            parts.append(whole if replayed.alive is None else replayed.alive[block.part].to(whole))
        return torch.cat(parts, 1) if packed else None

    def tokens(self, block: Block) -> Tensor:
        """(B, T) token numbers an embedding was given."""
        return self._looked_up(block)[0]

    def counted(self, block: Block) -> Tensor:
        """(B, T) which of :meth:`tokens` an embedding learns from: not its padding."""
        return self._looked_up(block)[1]

    def _looked_up(self, block: Block) -> tuple[Tensor, Tensor]:
        b, calls = len(self.f), self.calls(block, TABLES)
        if not calls:
            tokens = torch.zeros(b, 1, dtype=torch.long, device=self.f.device)
            return tokens, torch.ones_like(tokens, dtype=torch.bool)
        parts = [looked_up(self._modules[c.name], c, self._axis(c), b) for c in calls]
        return torch.cat([tokens for tokens, _ in parts], 1), torch.cat([held for _, held in parts], 1)

    def _by_position(self, call: Call, g: Tensor | None, width: int) -> Tensor:
        """The cotangent of a call's output, (B, T, width)."""
        whole, module = call.cotangent(g, self._axis(call), len(self.f)), self._modules[call.name]
        if isinstance(module, nn.EmbeddingBag):
            return spread(module, call, whole)
        return whole.reshape(len(self.f), -1, width)

    def form(self, block: Block, pulled: Tensor) -> Form:
        """The per-example gradients of a block, from its part of :meth:`cotangents`."""
        if block.kind == "groups":
            return GroupForm(pulled.reshape(*pulled.shape[:-1], *block.shape), groups=block.groups)
        if block.kind in FORMED:
            return FormedForm(pulled)
        if self.generic(block):
            return WholeForm(pulled, {"embedding": "in", "tied": "out"}.get(block.kind, ""))
        if block.kind == "embedding":
            counted = self.counted(block).unsqueeze(-1).to(pulled.dtype)
            return TokenForm.of(self.tokens(block), pulled * counted, block.shape[1])
        a = self.inputs(block)
        if block.kind == "tied":
            positions, (vocabulary, dim) = a.shape[1], block.shape
            g, c = pulled.tensor_split([positions * vocabulary], -1)
            c = c.reshape(*c.shape[:-1], -1, dim) * self.counted(block).unsqueeze(-1).to(pulled.dtype)
            product = ProductForm(a, g.reshape(*g.shape[:-1], positions, vocabulary))
            return TiedForm(product, TokenForm.of(self.tokens(block), c, vocabulary))
        alive = self._alive(block)
        if alive is not None:
            return ProductForm(with_bias(block, a) * alive.unsqueeze(-1), pulled, counted=int(alive.sum()))
        if a.shape[1] == 1:
            return ProductForm(with_bias(block, a), pulled)
        return ProductForm(a, pulled, ones=block.shape[1] > a.shape[-1])

    def cotangents(self, u: Tensor) -> dict[str, Tensor]:
        """Pull K output cotangents back to every block.

        Args:
            u: (K, B, ..., C).

        Returns:
            for a block with a product form its g, (K, B, T, out); for any other its per-example gradients, (K, B, p).
        """
        calls = [c for cs in self._calls.values() for c in cs]
        edges = [e for c in calls for e in c.edges]
        parts: dict[str, list[Tensor]] = {b.name: [] for b in self.blocks if not self.generic(b)}
        for du in u:
            grads: Sequence[Tensor | None] = ()
            if edges:
                grads = torch.autograd.grad(
                    self._graph, edges, du, retain_graph=True, allow_unused=True, materialize_grads=False
                )
            given: dict[int, Sequence[Tensor | None]] = {}
            at = 0
            for call in calls:
                given[id(call)] = grads[at : at + len(call.edges)]
                at += len(call.edges)
            self._assemble(parts, given)
        generic = [b for b in self.blocks if self.generic(b)]
        result = {name: _stacked(found) for name, found in parts.items()}
        result.update(self._generic(generic, u) if generic else {})
        if self._proof is not None:
            self._proof(self, u, result)
        return result

    def parameter_gradient(self, params: Mapping[str, Tensor], u: Tensor) -> dict[str, Tensor]:
        """Autograd's own gradient of u·f in the parameters, for checks."""
        grads = torch.autograd.grad(self._graph, list(params.values()), u, retain_graph=True, allow_unused=True)
        return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(params.items(), grads, strict=True)}

    def _assemble(self, parts: dict[str, list[Tensor]], given: Mapping[int, Sequence[Tensor | None]]) -> None:
        """One cotangent's signals of every block, from what autograd gave for the calls' outputs."""
        b = len(self.f)
        opened: dict[int, dict[str, Tensor]] = {}
        for block in self.blocks:
            if self.generic(block):
                continue
            if block.kind == "tied":
                parts[block.name].append(self._tied(block, given))
                continue
            module, found = self._modules[block.module], []
            for call in self.calls(block):
                grads = given[id(call)]
                if block.kind in COMPOSITE:
                    if id(call) not in opened:
                        opened[id(call)] = call.pulled_inside(module, grads, b)
                    found.append(opened[id(call)][block.part])
                    continue
                if block.kind == "embedding":
                    found.append(self._by_position(call, grads[0], block.shape[0]))
                    continue
                g = call.cotangent(grads[0], self._axis(call), b)
                if block.kind == "local":
                    if id(call) not in opened:
                        opened[id(call)] = call.differentiated(module, g, b)
                    found.append(opened[id(call)][block.part])
                    continue
                a = call.inputs(self._axis(call), b)
                if block.kind == "norm":
                    found.append(norm_gradient(module, a[0], g.unsqueeze(0))[0])
                elif block.kind in ("grouped", "groups"):
                    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
                    found.append(grouped_gradient(module, a[0], g.unsqueeze(0), rows=block.kind == "groups")[0])
                else:
                    found.append(cols(block, module, g))
            if block.kind in FORMED:
                total = torch.stack(found).sum(0) if len(found) > 1 else found[0] if found else None
                parts[block.name].append(self.f.new_zeros(b, block.size) if total is None else total)
            else:
                parts[block.name].append(_joined(found, 1, (b, 1, block.shape[0]), self.f))

    def _tied(self, block: Block, given: Mapping[int, Sequence[Tensor | None]]) -> Tensor:
        """One cotangent's signals of an embedding that is an output layer too: those of the outputs, then of tokens."""
        b, sides = len(self.f), []
        uses: tuple[tuple[Kinds, int], ...] = ((nn.Linear, block.shape[0]), (TABLES, block.shape[1]))
        for kind, width in uses:
            found = [self._by_position(c, given[id(c)][0], width) for c in self.calls(block, kind)]
            sides.append(_joined(found, 1, (b, 1, width), self.f).flatten(1))
        return torch.cat(sides, 1)

    def _generic(self, blocks: Sequence[Block], u: Tensor) -> dict[str, Tensor]:
        """Per-example gradients of the blocks off the fast path, (K, B, p); (K, B, out, in) of those laid out so."""
        names = [n for b in blocks for n in b.names]
        grads, self._space.manner = per_example(self._model, self._x, names, u, self._space.manner)
        out = {}
        for b in blocks:
            if b.shape[0] == 1 and b.kind in FORMED:
                out[b.name] = torch.cat([grads[n].reshape(len(u), len(self.f), -1) for n in b.names], -1)
            else:
                whole = torch.cat([b.to_matrix(grads[n], 2) for n in b.names], -1)
                out[b.name] = whole.flatten(2) if b.kind == "groups" else whole
        return out


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """A new first axis, in the parts' own order of memory; an image's cotangents lie example by example."""
    if len(parts) == 1:
        return parts[0].unsqueeze(0)
    if parts[0].dim() == 3 and parts[0].stride(-1) != 1:
        return torch.stack([p.transpose(-1, -2) for p in parts], 1).transpose(0, 1).transpose(-1, -2)
    return torch.stack(list(parts))


def _joined(parts: Sequence[Tensor], axis: int, empty: tuple[int, ...], like: Tensor) -> Tensor:
    """Calls one after another; zeros where the module was not called."""
    if not parts:
        return like.new_zeros(empty)
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), axis)


class Capture:
    """Context manager: hooks on inside, none left behind after, also after an exception.

    The model should be in eval mode (see ``memspace.task.checks.evaluating``).

    Args:
        proof: as of :class:`Signals`.
    """

    def __init__(self, model: nn.Module, space: ParameterSpace, proof: Proof | None = None) -> None:
        self._model, self._space, self._proof = model, space, proof
        self._modules = dict(model.named_modules())
        self._calls: dict[str, list[Call]] = {}
        self._broadcast: dict[str, int] = {}
        self._handles: list[Any] = []
        self._reading = False

    def __enter__(self) -> Capture:
        space = self._space
        read = (m for b in space.blocks if b.kind != "loose" and b.module not in space.refuted for m in b.modules)
        for name in dict.fromkeys(read):
            self._handles.append(self._modules[name].register_forward_hook(self._hook(name), with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._calls = {}

    def _hook(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            # The generic path runs the model itself, under functorch; and without gradients a layer is a constant.
            if not self._reading or not torch.is_grad_enabled():
                return None
            call, replaced = Call.of(name, args, kwargs, output, self._broadcast.get(name, 0))
            self._calls.setdefault(name, []).append(call)
            return replaced

        return hook

    def forward(self, x: Inputs) -> Signals:
        """One forward pass with gradients enabled; returns its signals.

        Raises:
            ShapeError: the model returns several outputs, and which one is meant is not clear.
            UnsupportedLayerError: a layer was called in a way that cannot be read; ``where`` names it.
        """
        self._calls = {}
        size = len(first_tensor(x))
        self._broadcast = {name: size for name, axis in self._space.axes.items() if axis == BROADCAST}
        self._reading = True
        try:
            with torch.enable_grad():
                f = call_model(self._model, x)
        finally:
            self._reading = False
        if not isinstance(f, Tensor):
            raise ShapeError(
                f"the model returns a {type(f).__name__} for {size} examples, not (examples, outputs)",
                where=type(self._model).__name__,
                remedy="wrap the model so that it returns one row of outputs per example, or an object with logits",
            )
        for calls in self._calls.values():
            for call in calls:
                call.check()
        return Signals(self._model, self._modules, self._space, x, f, self._calls, self._proof)
