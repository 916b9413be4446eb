"""Write the pictures of docs/factors.md: a row for every factor of a world, moved through its range.

python -m benchmarks.worlds_pictures
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from memspace.report.strips import write_strip
from memspace.task.worlds import world
from memspace.task.worlds.sampling import traverse

DOCS = Path(__file__).resolve().parents[1] / "docs"
WORLDS = {"dsprites": (2, 4, 3, 16, 16), "scenes": (6, 5, 0, 6, 0, 10)}  # where the other factors stay
STEPS = 10


def main() -> None:
    """Write a picture a world."""
    for name, start in WORLDS.items():
        of = world(name)
        rows = [of.render(traverse(of, k, STEPS if f.ordered else f.size, at=start)) for k, f in enumerate(of.factors)]
        write_strip(torch.stack([_filled(row) for row in rows]), DOCS / f"worlds-{name}.png")


def _filled(row: Tensor) -> Tensor:
    """A row of pictures, with white ones where it has fewer than the others."""
    return pad(row, (0, 0, 0, 0, 0, 0, 0, STEPS - len(row)), value=1.0)


if __name__ == "__main__":
    main()
