"""One flat parameter layout. Each slice, reshaped, is the (out, in) matrix of one block, bias as the last column.

With the layout fixed here, a Kronecker block of the metric is a view of the flat vector and packing happens only at
the border. A block is what one module owns:

* ``linear``, ``conv``: (out, in·kernel [+1]);
* ``embedding``: (dim, vocabulary);
* ``norm``: (1, weight ++ bias) of Layer-, Group- and (eval) BatchNorm;
* ``loose``: (1, numel): any other trainable parameter: per-example gradients are formed by a generic way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Block", "ParameterSpace"]

_CONVS = (nn.Conv1d, nn.Conv2d)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Block:
    """A slice of the flat vector. ``names``: the parameters in it, weight first."""

    name: str
    kind: str
    module: str
    names: tuple[str, ...]
    shape: tuple[int, int]
    start: int

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.shape[0] * self.shape[1]

    @property
    def stop(self) -> int:
        """End of the slice."""
        return self.start + self.size

    def view(self, flat: Tensor) -> Tensor:
        """(..., P) → (..., out, in), a view."""
        return flat[..., self.start : self.stop].reshape(*flat.shape[:-1], *self.shape)


def _kind(module: nn.Module) -> str:
    """The fast-path kind of a module: its class must be one we know, with the forward we know."""
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        return "linear"
    if isinstance(module, _CONVS) and module.groups == 1:
        known = {nn.Conv1d.forward, nn.Conv2d.forward}
        return "conv" if type(module).forward in known else "loose"
    if isinstance(module, nn.Embedding) and type(module).forward is nn.Embedding.forward:
        plain = module.max_norm is None and not module.scale_grad_by_freq and module.padding_idx is None
        return "embedding" if plain else "loose"
    if isinstance(module, _NORMS) and type(module) in _NORMS:
        tracked = not isinstance(module, nn.modules.batchnorm._BatchNorm) or module.running_mean is not None
        return "norm" if tracked else "loose"
    return "loose"


class ParameterSpace:
    """The trainable parameters of a model as one vector of length ``size``.

    Args:
        model: the network; parameters with ``requires_grad=False`` stay outside.
        loose: module names whose parameters are taken off the fast path.
    """

    def __init__(self, model: nn.Module, loose: Iterable[str] = ()) -> None:
        self.loose = frozenset(loose)
        trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
        owners: dict[int, int] = {}  # a parameter under two names is shared: off the fast path
        for _, p in model.named_parameters(remove_duplicate=False):
            owners[id(p)] = owners.get(id(p), 0) + 1
        inside_attention = {
            f"{name}.{child}" if name else child
            for name, m in model.named_modules()
            if isinstance(m, nn.MultiheadAttention)
            for child, _ in m.named_modules()
            if child
        }
        blocks: list[Block] = []
        start = 0
        for module_name, module in model.named_modules():
            prefix = f"{module_name}." if module_name else ""
            own = [prefix + n for n in module._parameters if prefix + n in trainable]
            if not own:
                continue
            kind = _kind(module)
            shared = any(owners[id(trainable[n])] > 1 for n in own)
            partial = len(own) < sum(p is not None for p in module._parameters.values())
            if shared or module_name in self.loose or module_name in inside_attention:
                kind = "loose"
            if kind == "norm" and partial:
                kind = "loose"
            if kind == "loose":
                groups: list[tuple[str, str, tuple[str, ...], tuple[int, int]]] = [
                    (n, "loose", (n,), (1, trainable[n].numel())) for n in own
                ]
            else:
                groups = [self._matrix(module_name, kind, own, trainable)]
            for name, group_kind, names, shape in groups:
                block = Block(name, group_kind, module_name, names, shape, start)
                blocks.append(block)
                start = block.stop
        self.blocks = tuple(blocks)
        self.size = start
        self._classes = {n: type(m).__name__ for n, m in model.named_modules()}
        self._shapes = {n: tuple(p.shape) for n, p in trainable.items()}

    @staticmethod
    def _matrix(
        module: str, kind: str, own: list[str], trainable: Mapping[str, Tensor]
    ) -> tuple[str, str, tuple[str, ...], tuple[int, int]]:
        names = tuple(sorted(own, key=lambda n: not n.endswith("weight")))
        total = sum(trainable[n].numel() for n in names)
        first = trainable[names[0]]
        if kind == "norm":
            return module, kind, names, (1, total)
        if kind == "embedding":
            return module, kind, names, (first.shape[1], first.shape[0])
        return module, kind, names, (first.shape[0], total // first.shape[0])

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def labels(self) -> list[str]:
        """Each block's name with its module's class, for people."""
        return [f"{b.name or 'model'} ({self._classes[b.module]})" for b in self.blocks]

    def pack(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Named tensors (parameters, gradients) → flat (P,)."""
        parts: list[Tensor] = []
        for block in self.blocks:
            if block.kind in ("linear", "conv"):
                columns = [tensors[n].reshape(block.shape[0], -1) for n in block.names]
                parts.append(torch.cat(columns, 1).reshape(-1))
            elif block.kind == "embedding":
                parts.append(tensors[block.names[0]].t().reshape(-1))
            else:
                parts.extend(tensors[n].reshape(-1) for n in block.names)
        return torch.cat(parts) if parts else torch.zeros(0)

    def unpack(self, flat: Tensor) -> dict[str, Tensor]:
        """Flat (P,) → named tensors of the parameters' shapes."""
        out: dict[str, Tensor] = {}
        for block in self.blocks:
            matrix = block.view(flat)
            if block.kind == "embedding":
                out[block.names[0]] = matrix.t().reshape(self._shapes[block.names[0]])
                continue
            column = 0
            for name in block.names:
                shape = self._shapes[name]
                numel = 1
                for s in shape:
                    numel *= s
                width = numel // block.shape[0]
                out[name] = matrix[:, column : column + width].reshape(shape)
                column += width
        return out

    def flat(self, model: nn.Module) -> Tensor:
        """The model's current parameters as a flat vector (a copy, detached)."""
        return self.pack({n: p.detach() for n, p in model.named_parameters() if p.requires_grad}).clone()
