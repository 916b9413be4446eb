"""What a model computes besides its weights, fed to a hash: the code it runs and the plain values it holds.

Functions are read as bytecode with their constants, defaults and closures, and with the functions, classes and values
of the user's own modules that they name. So a changed helper or constant counts as much as a changed forward;
comments, formatting and line numbers do not. Installed packages are taken by name.
"""

from __future__ import annotations

import enum
import functools
import inspect
import sys
import sysconfig
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["update_code", "update_value"]

MOST, DEPTH = 1000, 12  # members of a container, and levels, that are looked at
_LIBRARIES = tuple({sysconfig.get_path(k) for k in ("stdlib", "platstdlib", "purelib", "platlib")})
_BOOKKEEPING = {  # by nn.Module itself: weights are hashed elsewhere, the rest is bookkeeping
    "training",
    "_parameters",
    "_buffers",
    "_modules",
    "_non_persistent_buffers_set",
    "_is_full_backward_hook",
    "call_super_init",
}

_IGNORED = {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__qualname__", "__firstlineno__"}


def update_code(digest: Any, value: Any) -> None:
    """Add what a model, a function or any object does and holds to a hash.

    Args:
        digest: a ``hashlib`` object.
        value: the object; its containers are read up to 1,000 members and 12 levels.
    """
    _Walk(digest).value(value, DEPTH)


def update_value(digest: Any, value: Any) -> None:
    """Add plain data to a hash: numbers, text, tensors, arrays, and containers of them, to the last element.

    Args:
        digest: a ``hashlib`` object.
        value: the data.
    """
    _Walk(digest, most=None).value(value, DEPTH)


class _Walk:
    def __init__(self, digest: Any, most: int | None = MOST) -> None:
        self._digest, self._most = digest, most
        self._classes: set[type] = set()
        self._seen: dict[int, Any] = {}  # holds what was met, so that no identity is used again

    def feed(self, *words: Any) -> None:
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogatepass")
            self._digest.update(len(data).to_bytes(8, "little") + data)

    def value(self, v: Any, depth: int) -> None:
        if v is None or isinstance(v, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
            self.feed(type(v).__name__, v if isinstance(v, bytes | str) else repr(v))
        elif isinstance(v, Tensor | np.ndarray):
            self._array(v)
        elif depth == 0 or id(v) in self._seen:
            self.feed("again", type(v).__qualname__)
        elif isinstance(v, list | tuple):
            self._list(v, depth)
        else:
            self._seen[id(v)] = v
            self._object(v, depth)

    def _array(self, v: Any) -> None:
        if isinstance(v, Tensor):
            v = v.detach()
            self.feed("tensor", tuple(v.shape), v.dtype)
            if v.is_meta:
                return
            if v.is_quantized:
                self.feed(v.qscheme())
                v = v.dequantize()
            v = (v if v.layout == torch.strided else v.to_dense()).resolve_conj().resolve_neg().cpu().contiguous()
            # As bytes: numpy knows neither bfloat16 nor the short floats.
            self._digest.update(v.reshape(-1).view(torch.uint8).numpy().data if v.numel() else b"")
        elif v.dtype.hasobject:
            self._list(v.tolist() if v.ndim else [v.item()], DEPTH)
        else:
            self.feed("array", v.shape, v.dtype)
            self._digest.update(np.ascontiguousarray(v).reshape(-1).view(np.uint8).data if v.size else b"")

    def _list(self, v: Any, depth: int) -> None:
        self.feed(type(v).__name__, len(v))
        for item in v if self._most is None else v[: self._most]:
            self.value(item, depth - 1)

    def _object(self, v: Any, depth: int) -> None:
        if isinstance(v, nn.Module):
            self._module(v, depth)
        elif isinstance(v, Mapping):
            self._mapping(dict(v), depth)
        elif isinstance(v, set | frozenset):
            plain = (repr(i) if isinstance(i, str | int | float | bytes) else type(i).__qualname__ for i in v)
            self.feed("set", *sorted(plain)[: self._most])
        elif isinstance(v, types.ModuleType):
            self.feed("module", v.__name__)
        elif isinstance(v, enum.Enum):
            self.feed(type(v).__qualname__, v.name)
        elif isinstance(v, functools.partial):
            self.feed("partial")
            self.value((v.func, v.args, v.keywords), depth - 1)
        elif isinstance(v, types.MethodType):
            self.value(v.__func__, depth - 1)
            self.value(v.__self__, depth - 1)
        elif isinstance(v, types.FunctionType):
            self._function(v, depth)
        elif isinstance(v, type):
            self._class(v, depth)
        elif isinstance(v, property | classmethod | staticmethod | functools.cached_property):
            for name in ("fget", "__func__", "func"):
                self.value(getattr(v, name, None), depth - 1)
        else:
            self._class(type(v), depth)
            self._mapping(getattr(v, "__dict__", {}), depth)

    def _mapping(self, v: dict[Any, Any], depth: int) -> None:
        self.feed("mapping", len(v))
        for key in sorted(v, key=repr)[: self._most]:
            self.feed(repr(key) if isinstance(key, str | int | float | bool | tuple) else type(key).__qualname__)
            self.value(v[key], depth - 1)

    def _module(self, v: nn.Module, depth: int) -> None:
        self._class(type(v), depth)
        attributes = {k: w for k, w in vars(v).items() if k not in _BOOKKEEPING and not (isinstance(w, dict) and not w)}
        hooks = {k: list(w.values()) if k.endswith("_hooks") else w for k, w in attributes.items()}
        self._mapping(hooks, depth)
        for name, child in v.named_children():
            self.feed("child", name)
            self.value(child, DEPTH)

    def _class(self, v: type, depth: int) -> None:
        self.feed("class", v.__module__, v.__qualname__)
        if v in self._classes:
            return
        self._classes.add(v)
        for base in v.__mro__:
            if _foreign(base.__module__):
                continue
            self.feed(base.__qualname__)
            for name in sorted(vars(base)):
                if name not in _IGNORED:
                    self.feed(name)
                    self.value(vars(base)[name], depth - 1)

    def _function(self, v: types.FunctionType, depth: int) -> None:
        v = inspect.unwrap(v) if hasattr(v, "__wrapped__") else v
        self.feed("function", v.__module__, v.__qualname__)
        if _foreign(v.__module__):
            return
        self._code(v.__code__, v.__globals__, depth)
        cells = []
        for cell in v.__closure__ or ():
            try:
                cells.append(cell.cell_contents)
            except ValueError:  # not yet bound
                cells.append(None)
        self.value((v.__defaults__, v.__kwdefaults__, tuple(cells)), depth - 1)

    def _code(self, code: types.CodeType, names: dict[str, Any], depth: int) -> None:
        self.feed("code", code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_flags)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant, names, depth)
            else:
                self.value(constant, depth - 1)
        if depth <= 1:
            return
        for name in code.co_names:
            if name in names:
                value = names[name]
                self.feed("global", name)
                if isinstance(value, types.ModuleType) and not _foreign(value.__name__):
                    for part in code.co_names:  # a helper module's members that are spoken of here
                        self.value(vars(value).get(part), depth - 1)
                else:
                    self.value(value, depth - 1)


@functools.cache
def _foreign(module: str | None) -> bool:
    """Whether a module is installed or built in, not the user's own."""
    loaded = sys.modules.get(module or "")
    if module in (None, "builtins") or (module or "").split(".")[0] in ("torch", "numpy", "memspace", "builtins"):
        return True
    file = getattr(loaded, "__file__", None)
    if loaded is None or module == "__main__" or file is None:
        return module in sys.builtin_module_names
    return file.startswith(_LIBRARIES) or "site-packages" in file or "dist-packages" in file
