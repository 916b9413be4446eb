"""A plain copy of a model whose parameters FSDP2 has spread over processes."""

from __future__ import annotations

from typing import Any

from torch import nn

from memspace.errors import UnsupportedLayerError

__all__ = ["gathered"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


def gathered(model: nn.Module) -> nn.Module:
    """The model itself, or where ``torch.distributed.fsdp.fully_shard`` spread its parameters a plain copy of it.

    Every process of the mesh must ask for it; each then holds all parameters. The model stays as it is, sharded.

    Raises:
        UnsupportedLayerError: parameters are spread in a way that cannot be undone.
    """
    if not any(hasattr(p, "full_tensor") for p in model.parameters()):
        return model
    return _plain(model, "", {}, {})


def _plain(module: nn.Module, name: str, modules: dict[int, nn.Module], tensors: dict[int, Any]) -> nn.Module:
    if id(module) in modules:
        return modules[id(module)]
    kind = _own_class(type(module))
    fresh: nn.Module = kind.__new__(kind)
    modules[id(module)] = fresh
    fresh.__dict__ = dict(module.__dict__)
    for hooks in _HOOKS:
        found = module.__dict__[hooks]
        kept = {k: h for k, h in found.items() if not _of_fsdp(type(getattr(h, "__self__", None)))}
        fresh.__dict__[hooks] = type(found)(kept)
    fresh._parameters = {n: _whole(p, f"{name}{n}", tensors) for n, p in module._parameters.items()}
    fresh._modules = {
        n: None if m is None else _plain(m, f"{name}{n}.", modules, tensors) for n, m in module._modules.items()
    }
    return fresh


def _own_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The class a module had before ``fully_shard`` gave it one of its own, which adds FSDPModule in front."""
    from torch.distributed.fsdp import FSDPModule

    order = kind.__mro__
    return order[order.index(FSDPModule) + 1] if FSDPModule in order else kind


def _of_fsdp(kind: type) -> bool:
    return any(c.__module__.startswith("torch.distributed.fsdp") for c in kind.__mro__)


def _whole(p: Any, name: str, tensors: dict[int, Any]) -> Any:
    if p is None or not hasattr(p, "full_tensor"):
        return p
    if id(p) not in tensors:
        try:
            tensors[id(p)] = nn.Parameter(p.detach().full_tensor(), requires_grad=p.requires_grad)
        except RuntimeError as error:
            raise UnsupportedLayerError(
                f"a sharded parameter cannot be gathered ({str(error).splitlines()[0][:120]})",
                where=name,
                remedy="make the task on every process of the mesh, or hand over the unsharded model",
            ) from error
    return tensors[id(p)]
