"""Tensors in memory-mapped files, for Kronecker factors of layers too wide for memory.

The operating system keeps the pages in use in memory and drops them when memory is short.
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
    """Tensors in unlinked files, which vanish with them.

    Args:
        folder: where the files are; None: the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def room(self, shape: Sequence[int], dtype: torch.dtype = torch.float64) -> Tensor:
        """Open a tensor of zeros in an unlinked file.

        The file's blocks are reserved at once, since a disk that fills up later would kill the process without a
        message. The file is unlinked when this returns, so that nothing is left behind, however the process ends.

        Args:
            shape: of the tensor.
            dtype: of the tensor.

        Returns:
            The tensor; written values go to the file.

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
                f"{size / 2**20:,.0f} MiB of Kronecker factors cannot be stored on disk ({error.strerror or error})",
                where=str(self._folder or tempfile.gettempdir()),
                remedy="make room there, set TMPDIR to another folder, or raise --memory",
            ) from error
        return mapped.reshape(*shape)

    def keep(self, t: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Copy a tensor to disk.

        Args:
            t: the tensor.
            dtype: of the copy; None: that of ``t``.

        Returns:
            The copy.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
        """
        return self.room(t.shape, dtype or t.dtype).copy_(t)
