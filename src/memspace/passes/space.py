"""The flat parameter layout. Every slice, reshaped, is the (out, in) matrix of one block, bias as the last column.

A Kronecker block of the metric is therefore a view of the flat vector, and packing happens only at the interface to the
model. A block holds the parameters of one module, or some of them; its rule (``passes.layers``) says how it is read.
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
class ProofCost:
    """Processor time of all passes of a layout.

    Args:
        reading: seconds spent on reading.
        proving: seconds spent on proofs.
        proven: number of examples proven.
    """

    reading: float = 0.0
    proving: float = 0.0
    proven: int = 0


class ParameterSpace:
    """The trainable parameters of a model, or some of them, as one vector of length ``size``.

    Args:
        model: the network; parameters with ``requires_grad=False`` stay outside.
        loose: names of modules for whose parameters the model is differentiated example by example, instead of in
            closed form (see ``passes.capture``).
        axes: module name to the axis of its input that runs over examples (default 0), or ``BROADCAST`` where its
            output is shared by all examples.
        only: shell patterns over parameter names; parameters that match none of them stay outside as if frozen.
            Empty: no restriction.
        without: shell patterns; parameters that match one of them stay outside as if frozen.

    Attributes:
        blocks: the layout, in the order of the flat vector.
        size: number of parameters P.
        names: of the parameters inside, in the model's order.
        verified: whether per-example gradients in this layout were proven to be autograd's.
        refuted: modules whose closed form failed a proof: the model is differentiated example by example since.
        proven: records of calls and batches that were proven.
        finished: number of passes.
        late: whether a pass failed a proof that earlier passes did not show.
        proof_cost: of all proofs so far.
        manner: of differentiation example by example that was proven (see ``passes.example_by_example``).
        mapped: manners of products that were proven (see ``passes.linearised``); None: none yet.

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
        self.verified, self.late = False, False
        self.refuted: set[str] = set()
        self.proven: set[Hashable] = set()
        self.finished = 0
        self.proof_cost = ProofCost()
        self.manner = 0
        self.mapped: tuple[int, int] | None = None
        self.blocks = tuple(blocks)
        self.size = start
        self._classes = {n: type(m).__name__ for n, m in model.named_modules()}
        self._shapes = {n: tuple(p.shape) for n, p in trainable.items()}

    @classmethod
    def of(cls, task: Task, loose: Iterable[str] = (), axes: Mapping[str, int] | None = None) -> ParameterSpace:
        """Build the layout of the parameters that the task selects.

        Args:
            task: the network and its selection of parameters.
            loose: see the class.
            axes: see the class.

        Returns:
            The layout.
        """
        only, without = split_patterns(task.parameters)
        return cls(task.model, loose, axes, only=only, without=without)

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def labels(self) -> list[str]:
        """Every block's name with its module's class, as messages show it."""
        return [f"{b.name or 'model'} ({self._classes[b.module]})" for b in self.blocks]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name to shape of the parameters inside, in the model's order."""
        return dict(self._shapes)

    def parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return the parameters inside.

        Args:
            model: the network, or a copy of it.

        Returns:
            Name to parameter, in the model's order.
        """
        parameters = dict(model.named_parameters())
        return {n: parameters[n] for n in self.names}

    def pack(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Flatten named tensors.

        Args:
            tensors: parameters or gradients by name.

        Returns:
            (P,).
        """
        parts: list[Tensor] = []
        for block in self.blocks:
            columns = [block.to_matrix(tensors[n]) for n in block.names]
            parts.append((columns[0] if len(columns) == 1 else torch.cat(columns, 1)).reshape(-1))
        return torch.cat(parts) if parts else torch.zeros(0)

    def unpack(self, flat: Tensor) -> dict[str, Tensor]:
        """Split flat vectors into named tensors.

        Args:
            flat: (..., P).

        Returns:
            Name to (..., *shape), in the model's order.
        """
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
        """Return the model's current parameters as a flat vector.

        Args:
            model: the network, or a copy of it.

        Returns:
            (P,), a detached copy.
        """
        return self.pack({n: p.detach() for n, p in self.parameters(model).items()}).clone()


class _Shared:
    """Parameters that several modules own: those with a closed form, and the modules whose parameters have none."""

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
        """Of one module: the rule of its shared weight, the other users, and whether a shared parameter has no form."""
        several = {n: id(p) for n, p in module._parameters.items() if p is not None and id(p) in self._rules}
        if not several:
            return None, (), False
        weight = several.pop("weight", None)
        if weight is None or several or self._rules[weight] is None:
            return None, (), True
        return self._rules[weight], tuple(n for n, _, _ in self._users[weight] if n != at), False
