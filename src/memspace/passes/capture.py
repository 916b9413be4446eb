"""Hooks that read a network's signals for one batch and are always removed again.

A block's per-example gradients come in one of two ways, both exact. In *closed form* they are computed for the whole
batch from the layer's signals: its inputs and the cotangents of its outputs. Where a layer has no such form, or its
signals failed the proof, the model is *differentiated example by example* (``passes.example_by_example``), which is
slower.

A hook stores the input of every call and the *gradient edge* of its output, so that an in-place activation after the
layer cannot corrupt the cotangent. Cotangents come from ``torch.autograd.grad`` with those edges as inputs: autograd
then computes no weight gradient at all. A module called more than once in one forward pass contributes the positions
of all its calls to one sum, which is exactly the gradient of a shared weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from memspace.errors import ShapeError, UnsupportedLayerError
from memspace.passes.calls import Call
from memspace.passes.example_by_example import per_example
from memspace.passes.forms.form import Form
from memspace.passes.layers.block import BROADCAST, Block
from memspace.passes.layers.read import BlockRead, CallRead, PulledCall
from memspace.passes.space import ParameterSpace
from memspace.task.data import Inputs, call_model, first_tensor
from memspace.task.fixed import gradients_of_selection

__all__ = ["Capture", "Proof", "Signals"]


Proof = Callable[["Signals", Tensor, Mapping[str, Tensor]], None]


class Signals:
    """The signals of one forward pass: outputs, block inputs, and cotangents on demand.

    Args:
        model: the network.
        modules: its modules by name.
        space: the parameters, laid out in blocks.
        x: the batch's inputs.
        f: (B, ..., C) outputs, still attached to the graph.
        calls: module name to its calls, in order.
        proof: receives every set of cotangents that is pulled back, and raises where they are not autograd's; None: no
            proof.
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
        self._proof = proof
        self._reads: dict[str, BlockRead] = {}
        self._met = {
            id(call): CallRead(modules[name], call, space.axes.get(name, 0), len(f))
            for name, of_module in calls.items()
            for call in of_module
        }

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks of the parameter space."""
        return self._space.blocks

    def by_example(self, block: Block) -> bool:
        """Tell whether the model is differentiated example by example for a block's gradients.

        Args:
            block: of the parameter space.

        Returns:
            True where the block has no closed form, or its signals failed the proof.
        """
        return not block.rule.hooked or block.module in self._space.refuted

    @property
    def graph(self) -> Tensor:
        """The outputs, attached to their graph."""
        return self._graph

    @property
    def record(self) -> Mapping[str, Sequence[Call]]:
        """Module name to its calls, of every module that is read by its signals."""
        return self._calls

    def read(self, block: Block) -> BlockRead:
        """Return the calls of a block's modules in this forward pass, as its rule reads them.

        Args:
            block: of the parameter space.

        Returns:
            The calls.
        """
        if block.name not in self._reads:
            calls = [self._met[id(c)] for m in block.modules for c in self._calls.get(m, ())]
            self._reads[block.name] = BlockRead(block, calls, self.f)
        return self._reads[block.name]

    def rows(self, block: Block) -> Tensor:
        """Return the inputs of a block with a product form.

        Args:
            block: of the parameter space.

        Returns:
            (B, T, in), with a column of ones where there is a bias.

        Raises:
            UnsupportedLayerError: the model is differentiated example by example for it, or it has no product form.
        """
        if self.by_example(block):
            raise UnsupportedLayerError(
                "this layer's inputs are not known example by example",
                where=block.module,
                remedy="call it on one row (or one sequence of rows) per example",
            )
        return self.read(block).rows

    def form(self, block: Block, pulled: Tensor) -> Form:
        """Return the per-example gradients of a block.

        Args:
            block: of the parameter space.
            pulled: its part of :meth:`cotangents`.

        Returns:
            The gradients, in the form of the block's layer.
        """
        if self.by_example(block):
            return block.rule.whole_form(block, pulled)
        return block.rule.form(self.read(block), pulled)

    def cotangents(self, u: Tensor) -> dict[str, Tensor]:
        """Pull K output cotangents back to every block.

        Args:
            u: (K, B, ..., C).

        Returns:
            Block name to its g (K, B, T, out) where it has a product form, else to per-example gradients (K, B, p).
        """
        calls = [c for cs in self._calls.values() for c in cs]
        edges = [e for c in calls for e in c.edges]
        parts: dict[str, list[Tensor]] = {b.name: [] for b in self.blocks if not self.by_example(b)}
        for du in u:
            grads: Sequence[Tensor | None] = ()
            if edges:
                grads = torch.autograd.grad(
                    self._graph, edges, du, retain_graph=True, allow_unused=True, materialize_grads=False
                )
            at, by_call = 0, {}
            for call in calls:
                by_call[id(call)] = PulledCall(self._met[id(call)], grads[at : at + len(call.edges)])
                at += len(call.edges)
            for block in self.blocks:
                if not self.by_example(block):
                    of_block = [by_call[id(read.call)] for read in self.read(block).calls]
                    parts[block.name].append(block.rule.signals(block, of_block, self.f))
        differentiated = [b for b in self.blocks if self.by_example(b)]
        result = {name: _stacked(signals) for name, signals in parts.items()}
        result.update(self._differentiated(differentiated, u) if differentiated else {})
        if self._proof is not None:
            self._proof(self, u, result)
        return result

    def parameter_gradient(self, params: Mapping[str, Tensor], u: Tensor) -> dict[str, Tensor]:
        """Compute autograd's own gradient of u·f, for checks.

        Args:
            params: parameters by name.
            u: (B, ..., C).

        Returns:
            Name to gradient, summed over examples.
        """
        grads = torch.autograd.grad(self._graph, list(params.values()), u, retain_graph=True, allow_unused=True)
        return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(params.items(), grads, strict=True)}

    def _differentiated(self, blocks: Sequence[Block], u: Tensor) -> dict[str, Tensor]:
        """Per-example gradients of the blocks without closed form, as their rules lay them out."""
        names = [n for b in blocks for n in b.names]
        grads, self._space.manner = per_example(self._model, self._x, names, u, self._space.manner)
        return {b.name: b.rule.whole(b, [grads[n] for n in b.names]) for b in blocks}


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Stack along a new first axis in the parts' order of memory; an image's cotangents lie example by example."""
    if len(parts) == 1:
        return parts[0].unsqueeze(0)
    if parts[0].dim() == 3 and parts[0].stride(-1) != 1:
        return torch.stack([p.transpose(-1, -2) for p in parts], 1).transpose(0, 1).transpose(-1, -2)
    return torch.stack(list(parts))


class Capture:
    """Context manager: hooks are set inside and removed on exit, also after an exception.

    The model should be in eval mode (see ``memspace.task.checks.evaluating``).

    Args:
        model: the network.
        space: the parameters, laid out in blocks.
        proof: see :class:`Signals`.
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
        read = (m for b in space.blocks if b.rule.hooked and b.module not in space.refuted for m in b.modules)
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
            # Differentiation example by example runs the model too; without gradients a layer is a constant.
            if not self._reading or not torch.is_grad_enabled():
                return None
            call, replaced = Call.of(name, args, kwargs, output, self._broadcast.get(name, 0))
            self._calls.setdefault(name, []).append(call)
            return replaced

        return hook

    def forward(self, x: Inputs) -> Signals:
        """Run one forward pass with gradients enabled.

        Args:
            x: the batch's inputs.

        Returns:
            Its signals.

        Raises:
            ShapeError: the model returns something other than one tensor of outputs.
            UnsupportedLayerError: a layer was called in a way that cannot be read; ``where`` names it.
        """
        self._calls = {}
        size = len(first_tensor(x))
        self._broadcast = {name: size for name, axis in self._space.axes.items() if axis == BROADCAST}
        self._reading = True
        try:
            with torch.enable_grad(), gradients_of_selection():
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
