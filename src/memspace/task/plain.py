"""The network inside its wrappers: compiled, replicated, sharded or half-precision models as plain float32 modules.

Hooks, per-example gradients and functional calls need a module tree that runs as written. Where anything stands in the
way, the tree is rebuilt around the same parameters, wherever these can be read as they are. The user's model keeps its
wrappers, its sharding and its precision.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from memspace.errors import TaskError, UnsupportedLayerError
from memspace.task.bounded import BOUNDED

__all__ = ["HALF", "own_name", "plain", "stored_dtypes"]

HALF = (torch.bfloat16, torch.float16)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
_WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}


def plain(model: nn.Module) -> nn.Module:
    """Return the model itself where nothing stands in the way, else a plain copy.

    * ``torch.compile``, DataParallel and DistributedDataParallel are taken off; parameters are shared with the model.
    * Parameters that ``torch.distributed.fsdp.fully_shard`` spread over processes are gathered: every process of the
      mesh must ask for it, and each then holds all of them.
    * Embeddings with ``max_norm`` look shortened rows up instead of shortening their weight.
    * bfloat16 and float16 parameters and buffers become float32: the same numbers, read in a precision in which sums
      over examples mean something.

    Args:
        model: as the user has it; not changed.

    Returns:
        A module tree that runs as written.

    Raises:
        TaskError: a lazy module has not been called yet.
        UnsupportedLayerError: parameters are spread in a way that cannot be undone, a module is a TorchScript one, or
            gradients of an embedding are scaled by frequency.
    """
    _refuse(model)
    if not any(_in_the_way(m) for m in model.modules()):
        return model
    return _Rebuilt().module(model, "")


def _refuse(model: nn.Module) -> None:
    """Refuse models that cannot be read at all, before anything is done with them."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedLayerError(
                "the module is compiled by TorchScript, which cannot be read",
                where=name or type(model).__name__,
                remedy="pass the module it was scripted or traced from, with the same weights",
            )
        lookup = isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.weight.requires_grad
        if lookup and module.scale_grad_by_freq:
            raise UnsupportedLayerError(
                "scale_grad_by_freq divides gradients by how often a token is in the batch: they are no derivatives",
                where=name or type(model).__name__,
                remedy="set scale_grad_by_freq to False for the reading; the outputs are the same",
            )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):  # the first call would shape it, and change the user's model
            raise TaskError(
                "the weight has no shape yet",
                where=name,
                remedy="call the model once on a batch, or load its weights, before passing it",
            )


def stored_dtypes(model: nn.Module) -> tuple[torch.dtype, ...]:
    """List the half-precision dtypes among the parameters.

    Args:
        model: the network.

    Returns:
        None, one or both of bfloat16 and float16.
    """
    dtypes = {p.dtype for p in model.parameters()}
    return tuple(d for d in HALF if d in dtypes)


def own_name(key: str) -> str:
    """Remove from a state dict's key the parts that wrappers put into it.

    Args:
        key: of a state dict.

    Returns:
        The name inside the wrappers.
    """
    parts = key.removeprefix("module.").split(".")
    return ".".join(p for p in parts if p != "_orig_mod")


def _in_the_way(module: nn.Module) -> bool:
    tensors = (*module._parameters.values(), *module._buffers.values())
    return (
        type(module).__name__ in _WRAPPERS
        or getattr(module, "_compiled_call_impl", None) is not None
        or any(t is not None and (hasattr(t, "full_tensor") or t.dtype in HALF) for t in tensors)
        or any(hasattr(v, "_torchdynamo_orig_callable") for v in vars(module).values())
        or _shortens(module)
    )


def _shortens(module: nn.Module) -> bool:
    """Tell whether a module's forward pass writes to its weight."""
    return type(module) in BOUNDED and getattr(module, "max_norm", None) is not None


class _Rebuilt:
    """A module tree built once more; what appears twice in the model appears twice in the copy."""

    def __init__(self) -> None:
        self._modules: dict[int, nn.Module] = {}
        self._tensors: dict[int, Any] = {}
        self._alive: list[Any] = []  # ids are only good while their objects live

    def module(self, old: nn.Module, name: str) -> nn.Module:
        """The plain version of one module and all below it."""
        inside = _WRAPPERS.get(type(old).__name__)
        if inside is not None and isinstance(getattr(old, inside, None), nn.Module):
            return self.module(getattr(old, inside), name)
        if id(old) in self._modules:
            return self._modules[id(old)]
        kind = BOUNDED[type(old)] if _shortens(old) else _own_class(type(old))
        new: nn.Module = kind.__new__(kind)
        self._modules[id(old)] = new
        new.__dict__ = {k: _rebound(v, old, new) for k, v in vars(old).items()}
        new.__dict__["_compiled_call_impl"] = None
        for hooks in _HOOKS:
            registered = vars(old)[hooks]
            others = {k: h for k, h in registered.items() if not _of_fsdp(type(getattr(h, "__self__", None)))}
            new.__dict__[hooks] = type(registered)(others)
        new._parameters = {n: self._whole(p, f"{name}{n}") for n, p in old._parameters.items()}
        new._buffers = {n: self._whole(b, f"{name}{n}") for n, b in old._buffers.items()}
        new._modules = {n: None if m is None else self.module(m, f"{name}{n}.") for n, m in old._modules.items()}
        if isinstance(new, nn.RNNBase):  # holds its weights in a list besides
            new._init_flat_weights()
        return new

    def _whole(self, old: Any, name: str) -> Any:
        if old is None or not (hasattr(old, "full_tensor") or old.dtype in HALF):
            return old
        if id(old) not in self._tensors:
            value = old.detach()
            if hasattr(value, "full_tensor"):
                try:
                    value = value.full_tensor()
                except RuntimeError as error:
                    raise UnsupportedLayerError(
                        f"a sharded parameter cannot be gathered ({str(error).splitlines()[0][:120]})",
                        where=name,
                        remedy="make the task on every process of the mesh, or pass the unsharded model",
                    ) from error
            value = value.float() if value.dtype in HALF else value
            if isinstance(old, nn.Parameter):
                value = nn.Parameter(value, requires_grad=old.requires_grad)
            self._tensors[id(old)] = value
            self._alive.append(old)
        return self._tensors[id(old)]


def _rebound(value: Any, old: nn.Module, new: nn.Module) -> Any:
    """Return a compiled function or method of the old module as the new one's own, as it was written."""
    written = getattr(value, "_torchdynamo_orig_callable", None)
    if written is None:
        return value
    return MethodType(written.__func__, new) if getattr(written, "__self__", None) is old else written


def _own_class(kind: type[nn.Module]) -> type[nn.Module]:
    """Return the class a module had before ``fully_shard`` gave it one of its own, which puts FSDPModule in front."""
    names = [c.__name__ for c in kind.__mro__]
    return kind.__mro__[names.index("FSDPModule") + 1] if "FSDPModule" in names else kind


def _of_fsdp(kind: type) -> bool:
    return any(c.__module__.startswith("torch.distributed.fsdp") for c in kind.__mro__)
