"""The outputs of a module that is held fixed, kept by example and found again by the bytes of the example's inputs.

So they do not depend on who calls the network, nor in which batch. They are kept only of a module whose output for an
example is a function of that example: two of every new batch are computed again in a batch of their own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as modules
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from memspace.task.observed import version_of

__all__ = ["LIMIT", "FixedPart", "KeptOutputs"]

LIMIT = 2**30  # bytes that are kept at most; what no longer fits is computed every time
_CALL = nn.Module.__call__
_CONSTANTS = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class _Outputs:
    """What a module returned: its structure, and its leaves, tensors of one row an example or constants."""

    form: TreeSpec
    leaves: tuple[Any, ...]

    def row(self, k: int) -> _Outputs:
        """Of one example."""
        return _Outputs(self.form, tuple(t[k] if isinstance(t, Tensor) else t for t in self.leaves))

    def whole(self) -> Any:
        """As the module returns it."""
        return tree_unflatten(self.leaves, self.form)


@dataclass
class KeptOutputs:
    """Outputs by the key of an example.

    Args:
        entries: key → outputs of one example.
        size: bytes of all.
    """

    entries: dict[bytes, _Outputs] = field(default_factory=dict)
    size: int = 0

    def keep(self, key: bytes, row: _Outputs) -> None:
        """Keep the outputs of an example, where the limit allows.

        Args:
            key: of the example.
            row: views of the outputs; they are copied.
        """
        size = sum(t.nbytes for t in row.leaves if isinstance(t, Tensor))
        if self.size + size <= LIMIT:
            leaves = tuple(t.detach().clone() if isinstance(t, Tensor) else t for t in row.leaves)
            self.entries[key] = _Outputs(row.form, leaves)
            self.size += size


@dataclass(frozen=True)
class _Inside:
    """A module as it was: its code, submodules and tensors. The aliases keep their memory from being used again."""

    module: nn.Module
    forward: Any
    children: tuple[nn.Module | None, ...]
    tensors: tuple[Tensor | None, ...]
    aliases: tuple[Tensor, ...]
    versions: tuple[int, ...]

    @classmethod
    def of(cls, module: nn.Module) -> _Inside:
        tensors = _tensors(module)
        present = [t for t in tensors if t is not None]
        aliases = tuple(t.detach() for t in present)
        versions = tuple(version_of(t) for t in present)
        return cls(module, vars(module).get("forward"), tuple(module._modules.values()), tensors, aliases, versions)

    def unchanged(self, selection: bool) -> bool:
        """Whether it is as it was, to be evaluated, without a gradient that is asked for, and nobody watches its calls.

        A functional call may put aliases of the tensors and copies of buffers in their places.
        """
        m = self.module
        if m.training or m._forward_hooks or m._forward_pre_hooks or vars(m).get("forward") is not self.forward:
            return False
        tensors = _tensors(m)
        if len(tensors) != len(self.tensors) or not _identical(tuple(m._modules.values()), self.children):
            return False
        before = iter(zip(self.aliases, self.versions, strict=True))
        lost = torch.is_grad_enabled() and not selection
        for now, then in zip(tensors, self.tensors, strict=True):
            if now is None or then is None:
                if now is not then:
                    return False
                continue
            alias, version = next(before)
            if (lost and now.requires_grad) or not _stands_for(now, then, alias, version):
                return False
        return True


def _stands_for(now: Tensor, then: Tensor, alias: Tensor, version: int) -> bool:
    """Whether a tensor has the numbers that another one had when an alias of it was made, and no derivative."""
    if now is not then and torch._C._functorch.is_functorch_wrapped_tensor(now):
        plain = _without_derivative(now)
        if plain is None:
            return False
        now = plain
    if now.shape != alias.shape or now.dtype != alias.dtype or now.device != alias.device:
        return False
    if now.data_ptr() == alias.data_ptr() and now.stride() == alias.stride():
        return version_of(then) == version and then.data_ptr() == alias.data_ptr()
    return not isinstance(then, nn.Parameter) and version_of(then) == version and torch.equal(now, alias)


def _without_derivative(t: Tensor) -> Tensor | None:
    """The tensor inside of functional transforms that do nothing with it; None where one maps or differentiates it."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(t):
        if not functorch.is_gradtrackingtensor(t) or t.requires_grad or _has_tangent(t):
            return None
        t = functorch.get_unwrapped(t)
    return t


class FixedPart:
    """A module of which no parameter is selected, called instead of it.

    Args:
        module: the part, as it is now: changed weights or another forward are noticed.
        kept: where outputs are kept.
    """

    def __init__(self, module: nn.Module, kept: KeptOutputs) -> None:
        self.module, self.kept = module, kept
        self._inside = [_Inside.of(m) for m in module.modules()]
        self._by_example = True

    def __call__(self, args: Any, keywords: Any, inputs: Sequence[int], selection: bool) -> Any:
        """Return the module's outputs, kept or computed.

        Args:
            args: positional arguments.
            keywords: arguments by name.
            inputs: identities of the tensors that the network itself was given.
            selection: whether gradients of other than selected parameters are not asked for.

        Returns:
            what the module returns.
        """
        leaves, form = tree_flatten((args, keywords))
        if not (self._by_example and _plain(leaves, inputs) and self._as_it_was(selection)):
            return _CALL(self.module, *args, **keywords)
        keys = self._keys(leaves)
        entries = self.kept.entries
        missing = [k for k, key in enumerate(keys) if key not in entries]
        computed: dict[int, _Outputs] = {}
        if missing:
            # What is computed inside a functional transform belongs to it and cannot be kept.
            outputs = None if _transformed() else self._computed(leaves, form, missing)
            if outputs is None:
                return _CALL(self.module, *args, **keywords)
            computed = {k: outputs.row(place) for place, k in enumerate(missing)}
            for k, row in computed.items():
                self.kept.keep(keys[k], row)
            if len(missing) == len(keys):
                return outputs.whole()
        return _joined([computed.get(k) or entries[key] for k, key in enumerate(keys)])

    def _as_it_was(self, selection: bool) -> bool:
        """Whether weights and code are those that outputs are kept of, no gradient is lost and nobody looks inside."""
        if modules._global_forward_hooks or modules._global_forward_pre_hooks:
            return False
        return all(inside.unchanged(selection) for inside in self._inside)

    def _keys(self, leaves: Sequence[Any]) -> list[bytes]:
        """A key for every example: of the module, constants, shapes and the bytes of its rows."""
        tensors = [t.detach() for t in leaves if isinstance(t, Tensor)]
        constants = [t for t in leaves if not isinstance(t, Tensor)]
        form = repr((id(self.module), constants, [(t.shape[1:], t.dtype) for t in tensors])).encode()
        rows = [t.cpu().contiguous().flatten().view(torch.uint8).numpy().reshape(len(t), -1) for t in tensors]
        keys = []
        for k in range(len(tensors[0])):
            key = hashlib.blake2b(form, digest_size=16)
            for r in rows:
                key.update(r[k])
            keys.append(key.digest())
        return keys

    def _computed(self, leaves: Sequence[Any], form: TreeSpec, rows: list[int]) -> _Outputs | None:
        """Outputs of some rows; None, now and from now on, where they are no function of each example alone."""
        outputs = self._outputs(leaves, form, rows)
        again = [len(rows) - 1, 0]
        other = self._outputs(leaves, form, [rows[k] for k in again])
        self._by_example = all(_is_row(t, len(rows)) for t in outputs.leaves) and _agree(outputs, other, again)
        return outputs if self._by_example else None

    def _outputs(self, leaves: Sequence[Any], form: TreeSpec, rows: list[int]) -> _Outputs:
        whole = all(len(t) == len(rows) for t in leaves if isinstance(t, Tensor)) and rows == sorted(set(rows))
        taken = leaves if whole else [t[rows] if isinstance(t, Tensor) else t for t in leaves]
        args, keywords = tree_unflatten(taken, form)
        with torch.no_grad():
            out, spec = tree_flatten(_CALL(self.module, *args, **keywords))
        return _Outputs(spec, tuple(out))


def _tensors(module: nn.Module) -> tuple[Tensor | None, ...]:
    return (*module._parameters.values(), *module._buffers.values())


def _identical(some: Sequence[object], others: Sequence[object]) -> bool:
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))


def _plain(leaves: Sequence[Any], inputs: Sequence[int]) -> bool:
    """Whether a call's arguments are constants and rows of examples: token ids, masks, what the network got."""
    tensors = [t for t in leaves if isinstance(t, Tensor)]
    if not tensors or torch.is_inference_mode_enabled():
        return False
    for t in tensors:
        if (
            torch._C._functorch.is_functorch_wrapped_tensor(t)
            or t.layout != torch.strided
            or t.is_nested
            or t.is_complex()
        ):
            return False
        if not t.dim() or not t.numel() or len(t) != len(tensors[0]) or t.requires_grad or _has_tangent(t):
            return False
        if t.is_floating_point() and id(t) not in inputs:
            return False
    return all(isinstance(t, (Tensor, *_CONSTANTS)) for t in leaves)


def _has_tangent(t: Tensor) -> bool:
    """Whether a forward-mode derivative flows through a tensor."""
    if forward_ad._current_level < 0:
        return False
    return forward_ad.unpack_dual(t).tangent is not None  # type: ignore[no-untyped-call]


def _transformed() -> bool:
    """Whether tensors that are made now belong to a derivative; a map leaves those alone that do not depend on it."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return any(i.key() != torch._C._functorch.TransformType.Vmap for i in stack)


def _is_row(leaf: Any, count: int) -> bool:
    if isinstance(leaf, Tensor):
        if torch._C._functorch.is_functorch_wrapped_tensor(leaf):
            return False
        return leaf.layout == torch.strided and leaf.dim() > 0 and len(leaf) == count
    return isinstance(leaf, _CONSTANTS)


def _agree(outputs: _Outputs, other: _Outputs, rows: list[int]) -> bool:
    """Whether rows are those of another reading: far above rounding, far below a dependence on the batch."""
    if outputs.form != other.form:
        return False
    for a, b in zip(outputs.leaves, other.leaves, strict=True):
        if not isinstance(a, Tensor) or not isinstance(b, Tensor):
            if a != b:
                return False
        elif a[rows].shape != b.shape or a.dtype != b.dtype:
            return False
        elif a.is_floating_point():
            allowed = math.sqrt(torch.finfo(a.dtype).eps)
            if a.numel() and not torch.allclose(
                a[rows], b, rtol=0, atol=allowed * max(1.0, float(a[rows].abs().nan_to_num().max()))
            ):
                return False
        elif not torch.equal(a[rows], b):
            return False
    return True


def _joined(rows: Sequence[_Outputs]) -> Any:
    """The outputs of a batch of its examples."""
    leaves = [torch.stack(t) if isinstance(t[0], Tensor) else t[0] for t in zip(*(r.leaves for r in rows), strict=True)]
    return tree_unflatten(leaves, rows[0].form)
