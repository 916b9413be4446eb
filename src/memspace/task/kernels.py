"""Kernels of torch that must not run while a network is read, switched off for the while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import nn

__all__ = ["differentiable_kernels"]


class _Switches:
    """Process-wide switches of torch; several readers may hold them at once, the last one puts them back."""

    def __init__(self) -> None:
        self._lock, self._readers, self._recurrent = Lock(), 0, 0
        self._fast, self._onednn, self._cudnn = True, True, True

    def take(self, recurrent: bool) -> None:
        with self._lock:
            if not self._readers:
                self._fast = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            if recurrent and not self._recurrent:
                self._onednn, self._cudnn = torch._C._get_mkldnn_enabled(), torch._C._get_cudnn_enabled()
                torch._C._set_mkldnn_enabled(False)
                torch._C._set_cudnn_enabled(False)
            self._readers += 1
            self._recurrent += recurrent

    def give_back(self, recurrent: bool) -> None:
        with self._lock:
            self._readers -= 1
            self._recurrent -= recurrent
            if not self._readers:
                torch.backends.mha.set_fastpath_enabled(self._fast)
            if recurrent and not self._recurrent:
                torch._C._set_mkldnn_enabled(self._onednn)
                torch._C._set_cudnn_enabled(self._cudnn)


_SWITCHES = _Switches()


@contextmanager
def differentiable_kernels(model: nn.Module) -> Iterator[None]:
    """Inside, the model's forward pass is the same with and without gradients, and has the derivatives asked for.

    * The fused kernel of ``nn.TransformerEncoderLayer`` runs without gradients only, and empties or cuts off padded
      positions there: outputs would differ from those that are differentiated.
    * The recurrent kernels of oneDNN and cuDNN have no derivative in eval mode, or only the first one.
    """
    recurrent = any(isinstance(m, nn.RNNBase) for m in model.modules())
    _SWITCHES.take(recurrent)
    try:
        yield
    finally:
        _SWITCHES.give_back(recurrent)
