"""Plays of Shakespeare, character by character: which one comes next?"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from memspace.zoo.datasets.files import text_of
from memspace.zoo.registry import ZooData, dataset

__all__ = ["shakespeare"]

TRAIN, TEST, LENGTH = 1500, 500, 24


@dataset("tiny-shakespeare")
def shakespeare(root: Path | None) -> ZooData:
    """Read windows of 24 characters: training ones from the first nine tenths of the text, test ones from the last.

    Args:
        root: folder with ``input.txt``; None: the environment variable MEMSPACE_DATA.

    Returns:
        The data set; the label of a position is the character after it.
    """
    content = text_of(root, "tiny-shakespeare", "input.txt").lower()
    number_of = {c: k for k, c in enumerate(sorted(set(content)))}
    codes = torch.tensor([number_of[c] for c in content])
    border = len(codes) * 9 // 10
    generator = torch.Generator().manual_seed(0)

    def windows(part: Tensor, count: int) -> tuple[Tensor, Tensor]:
        places = torch.randperm(len(part) // (LENGTH + 1), generator=generator)[:count] * (LENGTH + 1)
        rows = part[places[:, None] + torch.arange(LENGTH + 1)]
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    x, y = windows(codes[:border], TRAIN)
    x_test, y_test = windows(codes[border:], TEST)
    return ZooData(x, y, x_test, y_test, outputs=len(number_of), vocabulary=len(number_of))
