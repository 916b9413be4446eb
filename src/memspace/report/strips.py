"""Pictures side by side, as one picture: traversals of a latent space, a row each, written as PNG."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from memspace.errors import ShapeError

__all__ = ["png", "strip", "write_strip"]

GAP = 1  # pixels between pictures
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def strip(pictures: Tensor, gap: int = GAP) -> Tensor:
    """Place rows of pictures on one sheet, all on the same scale of grey.

    Args:
        pictures: (rows, n, H, W) or (rows, n, C, H, W) with C = 1 or 3; values in [0, 1] stay, others are rescaled
            together.
        gap: white pixels between them.

    Returns:
        (H', W', 3) bytes.

    Raises:
        ShapeError: these are no pictures.
    """
    if pictures.dim() == 4:
        pictures = pictures.unsqueeze(2)
    if pictures.dim() != 5 or pictures.shape[2] not in (1, 3) or not pictures.numel():
        what = f"pictures are of shape {tuple(pictures.shape)}"
        raise ShapeError(what, where="strip", remedy="give (rows, pictures, H, W) or (rows, pictures, 1 or 3, H, W)")
    pictures = pictures.detach().float().cpu()
    low, high = float(pictures.min()), float(pictures.max())
    if low < 0 or high > 1:
        pictures = (pictures - low) / max(high - low, 1e-12)
    rows, count, _, height, width = pictures.shape
    pictures = pictures.expand(rows, count, 3, height, width)
    sheet = torch.ones(rows * (height + gap) - gap, count * (width + gap) - gap, 3)
    for r in range(rows):
        for c in range(count):
            top, left = r * (height + gap), c * (width + gap)
            sheet[top : top + height, left : left + width] = pictures[r, c].permute(1, 2, 0)
    return (255 * sheet).round().to(torch.uint8)


def png(sheet: Tensor) -> bytes:
    """Encode a sheet as PNG: eight bits a channel, without loss.

    Args:
        sheet: (H, W, 3) bytes.

    Returns:
        the file's bytes.
    """
    height, width, _ = sheet.shape
    rows = b"".join(b"\x00" + bytes(row.flatten().tolist()) for row in sheet)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return SIGNATURE + b"".join(chunks)


def write_strip(pictures: Tensor, path: Path | str, gap: int = GAP) -> None:
    """Write rows of pictures as one PNG file.

    Args:
        pictures: see :func:`strip`.
        path: of the file.
        gap: see :func:`strip`.
    """
    Path(path).write_bytes(png(strip(pictures, gap)))
