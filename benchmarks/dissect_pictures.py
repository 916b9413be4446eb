"""Write the pictures of docs/reading.md: the examples that activate some units most, a row a unit.

python -m benchmarks.dissect_pictures
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.functional import max_pool2d

import memspace
from memspace.progress import Silent
from memspace.report.strips import write_strip
from memspace.task.builtin import BuildOptions
from memspace.task.load import resolve
from memspace.verbs.dissect import Dissected

ROWS = 4
DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    """Write a picture of a fully connected and of a convolutional layer."""
    digits = memspace.dissect(resolve("digits", BuildOptions(), Silent()))
    _write(digits, "dissect-digits.png", 4)
    shapes = resolve("shapes", BuildOptions(), Silent())
    images = shapes.factors.inputs[:, 0] if shapes.factors is not None else torch.empty(0)
    inside = images > 0.5
    edges = max_pool2d(images[:, None], 3, 1, 1)[:, 0] - images > 0.5
    settings = memspace.DissectSettings(data="factors", examples=400)
    concepts = {"inside": inside, "edge": edges}
    _write(memspace.dissect(replace(shapes, layer="1"), concepts=concepts, settings=settings), "dissect-shapes.png", 2)


def _write(result: Dissected, name: str, times: int) -> None:
    print(result)
    galleries = result.results.chapters[0].galleries[:ROWS]
    for gallery in galleries:
        print(gallery.title, gallery.caption)
    pictures = torch.stack([torch.stack([torch.tensor(i.picture) for i in g.items]) for g in galleries])
    write_strip(pictures.repeat_interleave(times, 2).repeat_interleave(times, 3), DOCS / name, gap=2)


if __name__ == "__main__":
    main()
