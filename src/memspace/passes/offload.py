"""Tensors in memory-mapped files, for factors of layers so wide that memory does not hold them.

The system keeps in memory what of them is in use and takes it back when memory is short.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from memspace.errors import OutputError

__all__ = ["Disk"]


class Disk:
    """Room for tensors in files that vanish with them.

    Args:
        folder: where (default: the system's folder for temporary files).
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def room(self, shape: Sequence[int], dtype: torch.dtype = torch.float64) -> Tensor:
        """Zeros of that shape, kept in a file.

        The file's blocks are reserved at once, since a full disk found later would end the process without a word; it
        has no name any more when this returns, so that nothing is left behind, however the process ends.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
        """
        count = prod(shape)
        if count == 0:
            return torch.zeros(*shape, dtype=dtype)
        size = count * torch.empty(0, dtype=dtype).element_size()
        try:
            handle, name = tempfile.mkstemp(".factors", dir=self._folder)
            try:
                os.posix_fallocate(handle, 0, size)
                mapped = torch.from_file(name, shared=True, size=count, dtype=dtype)
            finally:
                os.close(handle)
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{size / 2**20:,.0f} MiB of Kronecker factors cannot be kept on disk ({error.strerror or error})",
                where=str(self._folder or tempfile.gettempdir()),
                remedy="make room there, set TMPDIR to another folder, or raise --memory",
            ) from error
        return mapped.reshape(*shape)

    def keep(self, t: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A copy of ``t`` on disk."""
        return self.room(t.shape, dtype or t.dtype).copy_(t)
