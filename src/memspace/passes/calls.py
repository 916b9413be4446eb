"""One call of one module as a hook recorded it: its inputs, and the gradient edges of its outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import vjp, vmap
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from memspace.errors import UnsupportedLayerError
from memspace.passes.batching import LEAST, TRANSIENT
from memspace.passes.layers.block import BROADCAST
from memspace.passes.replay import Replay, ReplayFunction, UnknownCallError
from memspace.task.functional import functional_call
from memspace.task.operations import written_out
from memspace.task.restored import fresh_buffers

__all__ = ["Call"]

LEAVE_OUT = "leave its parameters out: requires_grad=False, or patterns such as Task(parameters='!NAME.*')"


class Call:
    """Inputs, gradient edges of the outputs, and (for composite modules) the replayed call.

    Args:
        name: of the module.
        args: its positional arguments.
        kwargs: its keyword arguments.
        leaves: tensors of its output, in order.
        packed: lays a packed output's cotangent out as (B, T, ...); None: the output is not packed.

    Attributes:
        edges: gradient edges of the output tensors that have one.
    """

    def __init__(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        leaves: Sequence[Tensor],
        packed: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.name, self._args, self._kwargs, self._packed = name, args, kwargs, packed
        self._given = [t for a in (*args, *kwargs.values()) if (t := _tensor(a)) is not None]
        # A changed version shows later that an in-place operation overwrote an input.
        self._versions = [t._version for t in self._given]
        self._which = [i for i, t in enumerate(leaves) if t.requires_grad]
        self.edges: list[GradientEdge] = [get_gradient_edge(leaves[i]) for i in self._which]
        self._like = [(t.shape, t.dtype, t.device) for t in leaves]
        self._replay: Replay | None = None

    @staticmethod
    def of(
        name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, broadcast: int
    ) -> tuple[Call, Any]:
        """Record a call from a forward hook's arguments.

        Args:
            name: of the module.
            args: its positional arguments.
            kwargs: its keyword arguments.
            output: its output.
            broadcast: the batch size to which an output shared by all examples is expanded; 0: none is.

        Returns:
            The call, and the output that replaces the module's own; None where it stays.
        """
        replaced = None
        if isinstance(output, Tensor):
            if broadcast:  # one row for all examples: expanded, so that every example has a cotangent
                output = output if output.dim() > 2 and len(output) == 1 else output.unsqueeze(0)
                output = replaced = output.expand(broadcast, *output.shape[1:])
            if not output.requires_grad:  # frozen below and itself without gradient: start the graph here
                output = output.requires_grad_() if output.is_leaf else output
                replaced = output
            return Call(name, args, kwargs, [output], None), replaced
        leaves, packed = _leaves(output)
        return Call(name, args, kwargs, leaves, packed), None

    def check(self) -> None:
        """Check that the inputs are tensors that nothing has overwritten since.

        Raises:
            UnsupportedLayerError: an input was overwritten, or there is no tensor among the inputs.
        """
        if not self._given:
            raise UnsupportedLayerError(
                "the layer was called without a tensor", where=self.name, remedy="call it with its input first"
            )
        if any(t._version != v for t, v in zip(self._given, self._versions, strict=True)):
            raise UnsupportedLayerError(
                "the input of this layer is overwritten in place later in the same forward pass",
                where=self.name,
                remedy=f"replace the in-place operation that follows it, or {LEAVE_OUT}",
            )

    @property
    def rows(self) -> int:
        """Length of the first axis of the first input tensor; 0 for a single number."""
        return len(self._given[0]) if self._given[0].dim() else 0

    def arguments(self, *names: str) -> dict[str, Any]:
        """Return the arguments by name.

        Args:
            names: of the positional arguments of the module's ``forward``, in order.

        Returns:
            Name to argument.
        """
        return dict(zip(names, self._args, strict=False)) | dict(self._kwargs)

    def pattern(self, batch: int) -> tuple[tuple[int, ...], ...]:
        """Describe how the module was called, by the shapes of its inputs.

        Args:
            batch: number of examples.

        Returns:
            A shape per input: −1 for a length equal to the number of examples, 0 for others, the last axis unchanged.
        """
        return tuple(
            tuple(-1 if n == batch else 0 for n in t.shape[:-1]) + tuple(t.shape[-1:] if t.dim() > 1 else ())
            for t in self._given
        )

    def inputs(self, axis: int, batch: int) -> list[Tensor]:
        """Return the input tensors with examples first.

        Args:
            axis: of the examples, or ``BROADCAST``.
            batch: number of examples.

        Returns:
            Tensors (B, ...), detached.
        """
        return [_examples_first(t.detach(), axis, batch) for t in self._given]

    def cotangent(self, g: Tensor | None, axis: int, batch: int) -> Tensor:
        """Return the cotangent of the only output with examples first.

        Args:
            g: cotangent as autograd returns it; None: nothing depends on the output.
            axis: of the examples, or ``BROADCAST``.
            batch: number of examples.

        Returns:
            (B, ...); zeros where nothing depends on the output.

        Raises:
            UnsupportedLayerError: the module was called on another number of rows than there are examples.
        """
        shape, dtype, device = self._like[0]
        g = torch.zeros(shape, dtype=dtype, device=device) if g is None else g
        g = g if axis == BROADCAST else _examples_first(g, axis, batch)
        if len(g) != batch:
            raise UnsupportedLayerError(
                f"the layer was called on {len(g)} rows for {batch} examples",
                where=self.name,
                remedy=LEAVE_OUT,
            )
        return g

    def opened(self, module: nn.Module, batch: int, replay: ReplayFunction) -> Replay:
        """Repeat the call with the projections inside it exposed, once.

        Args:
            module: the module.
            batch: number of examples.
            replay: repeats a call of this kind of module.

        Returns:
            The replayed call.

        Raises:
            UnsupportedLayerError: the call cannot be replayed.
        """
        if self._replay is None:
            try:
                self._replay = replay(module, self._args, self._kwargs, batch)
            except UnknownCallError as error:
                raise UnsupportedLayerError(
                    f"{type(module).__name__} {error}", where=self.name, remedy=LEAVE_OUT
                ) from error
        return self._replay

    def pulled_inside(
        self, module: nn.Module, grads: Sequence[Tensor | None], batch: int, replay: ReplayFunction
    ) -> dict[str, Tensor]:
        """Pull the outputs' cotangents back to the projections inside a composite module.

        Args:
            module: the module.
            grads: cotangents of the outputs that have a gradient edge; None: unused.
            batch: number of examples.
            replay: repeats a call of this kind of module.

        Returns:
            Name of the projection to its cotangents (B, T, out).
        """
        cotangents: list[Tensor | None] = [None] * len(self._like)
        for i, g in zip(self._which, grads, strict=True):
            cotangents[i] = self._packed(g) if i == 0 and g is not None and self._packed is not None else g
        replayed = self.opened(module, batch, replay)
        return replayed.cotangents((*cotangents, *(None,) * (len(replayed.outputs) - len(cotangents))))

    def differentiated(self, module: nn.Module, g: Tensor, batch: int) -> dict[str, Tensor]:
        """Differentiate the module's own forward pass example by example.

        Args:
            module: the module.
            g: (B, ...) cotangent of its output.
            batch: number of examples.

        Returns:
            Parameter name to per-example gradients (B, numel).

        Raises:
            UnsupportedLayerError: the module does not run on one example alone.
        """
        params = {n: p.detach() for n, p in module.named_parameters(recurse=False) if p.requires_grad}
        values = (*self._args, *self._kwargs.values())
        axes = tuple(0 if isinstance(v, Tensor) and v.dim() and len(v) == batch else None for v in values)

        def one(values: tuple[Any, ...], g: Tensor) -> dict[str, Tensor]:
            alone = [v.unsqueeze(0) if at == 0 else v for v, at in zip(values, axes, strict=True)]
            args, named = alone[: len(self._args)], alone[len(self._args) :]

            def output(p: dict[str, Tensor]) -> Tensor:
                state = {**fresh_buffers(module), **p}
                out = functional_call(module, state, tuple(args), dict(zip(self._kwargs, named, strict=True)))
                assert isinstance(out, Tensor)
                return out.squeeze(0)

            return dict(vjp(output, params)[1](g)[0])

        values = tuple(v.detach() if isinstance(v, Tensor) else v for v in values)
        try:
            with torch.no_grad(), written_out(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
                grads = vmap(one, in_dims=(axes, 0), chunk_size=_at_once(module))(values, g)
        except (RuntimeError, NotImplementedError, ValueError, AssertionError, AttributeError) as error:
            raise UnsupportedLayerError(
                f"{type(module).__name__} cannot be differentiated example by example",
                where=self.name,
                remedy=LEAVE_OUT,
            ) from error
        return {n: v.reshape(len(v), -1) for n, v in grads.items()}


def _at_once(module: nn.Module) -> int:
    """Examples differentiated at a time: an adapter merged into a weight has a gradient of that weight per example."""
    return max(LEAST, TRANSIENT // max(1, *(p.numel() for p in module.parameters())))


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, PackedSequence):
        return value.data
    return value if isinstance(value, Tensor) else None


def _examples_first(t: Tensor, axis: int, batch: int) -> Tensor:
    if axis == BROADCAST:
        t = t if t.dim() > 1 and len(t) == 1 else t.unsqueeze(0)
        return t.expand(batch, *t.shape[1:])
    return t.movedim(axis, 0) if axis else t


def _leaves(output: Any) -> tuple[list[Tensor], Callable[[Tensor], Tensor] | None]:
    """The tensors of a module's output in order, and the layout of a packed first one."""
    leaves: list[Tensor] = []
    packed: Callable[[Tensor], Tensor] | None = None
    for item in output if isinstance(output, tuple | list) and not isinstance(output, PackedSequence) else [output]:
        if isinstance(item, PackedSequence):
            packed = partial(_laid_out, item)
            leaves.append(item.data)
        elif isinstance(item, tuple | list):
            leaves += [t for t in item if isinstance(t, Tensor)]
        elif isinstance(item, Tensor):
            leaves.append(item)
    return leaves, packed


def _laid_out(like: PackedSequence, g: Tensor) -> Tensor:
    """A cotangent of packed data as (B, T, ...)."""
    packed = PackedSequence(g, like.batch_sizes, like.sorted_indices, like.unsorted_indices)
    return pad_packed_sequence(packed, batch_first=True)[0]
