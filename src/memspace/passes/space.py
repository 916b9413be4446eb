"""One flat parameter layout. Each slice, reshaped, is the (out, in) matrix of one block, bias as the last column.

With the layout fixed here, a Kronecker block of the metric is a view of the flat vector and packing happens only at
the border. A block is what one module owns, or a part of it; its rule (``passes.layers``) says how it is read.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from memspace.arguments import typed
from memspace.passes.layers.block import Block
from memspace.passes.layers.parts import parts_of, shared_rule
from memspace.passes.layers.rule import LayerRule
from memspace.task.selection import chosen_names, split_patterns
from memspace.task.task import Task

__all__ = ["Block", "ParameterSpace"]


@dataclass
class Purse:
    """Processor time (seconds) spent on reading and on proving what was read, over all passes of a layout.

    Args:
        proven: examples that the proofs were about.
    """

    reading: float = 0.0
    proving: float = 0.0
    proven: int = 0


class ParameterSpace:
    """The trainable parameters of a model, or some of them, as one vector of length ``size``.

    Args:
        model: the network; parameters with ``requires_grad=False`` stay outside.
        loose: module names whose parameters are taken off the fast path.
        axes: module name → the axis of its input that runs over examples (default 0), or ``BROADCAST`` where its
            output is shared by all examples.
        only, without: shell patterns over parameter names. Where given, parameters that match none of ``only``, or one
            of ``without``, stay outside as if frozen.

    Raises:
        TaskError: a pattern matches no parameter, or nothing is left.
    """

    @typed
    def __init__(
        self,
        model: nn.Module,
        loose: Iterable[str] = (),
        axes: Mapping[str, int] | None = None,
        *,
        only: str | Sequence[str] = (),
        without: str | Sequence[str] = (),
    ) -> None:
        self.loose, self.axes = frozenset(loose), dict(axes or {})
        self.names = chosen_names(model, only, without)
        trainable = self.parameters(model)
        shared = _Shared(model, self.loose)
        blocks: list[Block] = []
        start = 0
        taken: set[str] = set()
        for module_name, module in model.named_modules():
            prefix = f"{module_name}." if module_name else ""
            tied, also, unknown = shared.of(module_name, module)
            off = unknown or module_name in self.loose
            outside = {n for n in module._parameters if prefix + n not in trainable}
            for part in parts_of(module, loose=off, outside=outside, shared=tied):
                names = tuple(prefix + n for n in part.names if prefix + n in trainable and prefix + n not in taken)
                if not names:
                    continue
                taken.update(names)
                name = module_name if not part.suffix else prefix + part.suffix
                axis = self.axes.get(module_name, 0)
                shape = part.rule.shape([trainable[n] for n in names])
                others = also if tied and not part.suffix else ()
                block = Block(name, part.rule, module_name, names, shape, start, part.suffix, axis, others)
                blocks.append(block)
                start = block.stop
        self.verified = False  # set once per-example gradients in this layout were seen to be autograd's
        self.refuted: set[str] = set()  # modules whose signals were seen to be wrong: read the generic way since
        self.proven: set[Hashable] = set()  # records of calls and batches for which they were seen to be right
        self.finished = 0  # passes
        self.late = False  # whether a pass was seen to read wrongly what others had read the same way before it
        self.purse = Purse()  # what proofs have cost so far
        self.manner = 0  # of the generic way that was seen to be right (see ``passes.generic``)
        self.mapped: tuple[int, int] | None = None  # the manner of products that was (see ``passes.linearised``)
        self.blocks = tuple(blocks)
        self.size = start
        self._classes = {n: type(m).__name__ for n, m in model.named_modules()}
        self._shapes = {n: tuple(p.shape) for n, p in trainable.items()}

    @classmethod
    def of(cls, task: Task, loose: Iterable[str] = (), axes: Mapping[str, int] | None = None) -> ParameterSpace:
        """The parameters the task asks for."""
        only, without = split_patterns(task.parameters)
        return cls(task.model, loose, axes, only=only, without=without)

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def labels(self) -> list[str]:
        """Each block's name with its module's class, for people."""
        return [f"{b.name or 'model'} ({self._classes[b.module]})" for b in self.blocks]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of the parameters inside, in the model's order."""
        return dict(self._shapes)

    def parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Name → parameter of those inside, in the model's order."""
        own = dict(model.named_parameters())
        return {n: own[n] for n in self.names}

    def pack(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Named tensors (parameters, gradients) → flat (P,)."""
        parts: list[Tensor] = []
        for block in self.blocks:
            columns = [block.to_matrix(tensors[n]) for n in block.names]
            parts.append((columns[0] if len(columns) == 1 else torch.cat(columns, 1)).reshape(-1))
        return torch.cat(parts) if parts else torch.zeros(0)

    def unpack(self, flat: Tensor) -> dict[str, Tensor]:
        """Flat (..., P) → named tensors of the parameters' shapes, (..., *shape)."""
        out: dict[str, Tensor] = {}
        for block in self.blocks:
            matrix, column = block.view(flat), 0
            for name in block.names:
                shape = self._shapes[name]
                width = prod(shape) // block.shape[0]
                out[name] = block.from_matrix(matrix[..., column : column + width], shape)
                column += width
        return {n: out[n] for n in self._shapes}  # in the model's own order

    def flat(self, model: nn.Module) -> Tensor:
        """The model's current parameters as a flat vector (a copy, detached)."""
        return self.pack({n: p.detach() for n, p in self.parameters(model).items()}).clone()


class _Shared:
    """Parameters that several modules own: those that keep a form, and the modules whose parameters have none."""

    def __init__(self, model: nn.Module, loose: frozenset[str]) -> None:
        self._users: dict[int, list[tuple[str, nn.Module, str]]] = {}
        for at, module in model.named_modules():
            for name, p in module._parameters.items():
                if p is not None:
                    self._users.setdefault(id(p), []).append((at, module, name))
        self._rules: dict[int, LayerRule | None] = {}
        for key, users in self._users.items():
            if len(users) > 1:
                known = not any(at in loose for at, _, _ in users)
                self._rules[key] = shared_rule([(m, n) for _, m, n in users]) if known else None

    def of(self, at: str, module: nn.Module) -> tuple[LayerRule | None, tuple[str, ...], bool]:
        """Of one module: the rule of its shared weight, who else uses it, and whether something shared has no form."""
        several = {n: id(p) for n, p in module._parameters.items() if p is not None and id(p) in self._rules}
        if not several:
            return None, (), False
        weight = several.pop("weight", None)
        if weight is None or several or self._rules[weight] is None:
            return None, (), True
        return self._rules[weight], tuple(n for n, _, _ in self._users[weight] if n != at), False
