"""Pictures on one sheet, written without a plotting library and read back."""

from __future__ import annotations

import struct
import zlib

import pytest
import torch

from memspace.errors import ShapeError
from memspace.report.strips import png, strip, write_strip


def decoded(data: bytes) -> torch.Tensor:
    """Read the file chunk by chunk, checksums checked; rows are unfiltered."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (check,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert check == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, colour) == (8, 2)
    rows = torch.frombuffer(bytearray(zlib.decompress(chunks[b"IDAT"])), dtype=torch.uint8).view(height, 1 + 3 * width)
    assert not bool(rows[:, 0].any())
    return rows[:, 1:].reshape(height, width, 3)


def test_a_strip_is_written_and_read_back(tmp_path) -> None:
    g = torch.Generator().manual_seed(0)
    pictures = torch.rand(2, 3, 5, 4, generator=g)
    sheet = strip(pictures)
    assert sheet.shape == (11, 14, 3)
    assert bool((sheet[5] == 255).all())
    assert bool((sheet[:, 4] == 255).all())
    assert torch.equal(sheet[6:, 5:9, 0], (255 * pictures[1, 1]).round().to(torch.uint8))
    write_strip(pictures, tmp_path / "strip.png")
    assert torch.equal(decoded((tmp_path / "strip.png").read_bytes()), sheet)
    assert torch.equal(decoded(png(sheet)), sheet)


def test_colours_and_scales() -> None:
    colour = torch.rand(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(strip(colour, gap=0)[:, :4], (255 * colour[0, 0]).round().to(torch.uint8).permute(1, 2, 0))
    wide = torch.tensor([-2.0, 0.0, 2.0]).view(1, 1, 1, 3)
    assert strip(wide)[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(ShapeError, match="pictures are of shape"):
        strip(torch.rand(2, 3, 2, 5, 5))
