"""Distilled examples on a page that needs nothing but itself."""

from __future__ import annotations

import base64
import html
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from memspace.editing.distil import Distilled
from memspace.errors import OutputError
from memspace.task.task import Task

__all__ = ["png", "write_gallery"]

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
figure{{display:inline-block;margin:.5rem;text-align:center}}
img{{width:6rem;image-rendering:pixelated}}
td,th{{text-align:left;padding-right:1.5rem}}</style></head>
<body><h1>{title}</h1><p>{statement}.</p><div>{figures}</div>
<table><tr><th>quantity</th><th>figure</th><th>95% interval</th><th>how</th></tr>{rows}</table></body></html>
"""


def png(pixels: Tensor) -> bytes:
    """Encode a picture as a PNG file.

    Args:
        pixels: (H, W) or (H, W, 3) of numbers in [0, 1].

    Returns:
        the file's bytes.
    """
    data = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    height, width = data.shape[:2]
    rows = b"".join(b"\x00" + data[r].contiguous().numpy().tobytes() for r in range(height))

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    head = struct.pack(">IIBBBBB", width, height, 8, 0 if data.dim() == 2 else 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _picture(x: Tensor, shape: tuple[int, ...] | None, low: float, high: float) -> Tensor | None:
    if shape is not None and x.numel() == torch.Size(shape).numel():
        x = x.reshape(shape)
    if x.dim() == 3 and x.shape[0] in (1, 3):
        x = x[0] if x.shape[0] == 1 else x.permute(1, 2, 0)
    if not (x.dim() == 2 or (x.dim() == 3 and x.shape[-1] == 3)):
        return None
    return (x - low) / max(high - low, 1e-12)


def write_gallery(task: Task, made: Distilled, path: Path) -> None:
    """Write the page: every example as a picture (all on one scale of brightness), or as numbers; and the figures.

    Args:
        task: names the classes and the shape of pictures.
        made: the distilled examples.
        path: the file.

    Raises:
        OutputError: the page cannot be written.
    """
    low, high = float(made.x.min()), float(made.x.max())
    figures = []
    for x, y in zip(made.x.cpu(), made.y.tolist(), strict=True):
        name = html.escape(task.class_names[y] if task.class_names else str(y))
        picture = _picture(x, task.input_shape, low, high)
        if picture is None:
            body = "<code>" + ", ".join(f"{v:.3g}" for v in x.flatten()[:16].tolist()) + "</code>"
        else:
            source = base64.b64encode(png(picture)).decode()
            body = f'<img alt="synthetic example of class {name}" src="data:image/png;base64,{source}">'
        figures.append(f"<figure>{body}<figcaption>{name}</figcaption></figure>")
    rows = []
    for m in made.measurements:
        ends = "" if m.interval is None else f"{m.interval[0]:.4g} to {m.interval[1]:.4g}"
        cells = (m.name, f"{m.value:.4g}", ends, m.estimator)
        rows.append("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>")
    title = f"{html.escape(task.name)}, distilled"
    page = PAGE.format(title=title, statement=html.escape(made.statement), figures="".join(figures), rows="".join(rows))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError("the page cannot be written", where=str(path), remedy="check the folder") from error
