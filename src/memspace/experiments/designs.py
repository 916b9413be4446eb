"""Random parts of a training set, drawn the same again by seed."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.errors import DataError
from memspace.experiments.truth import Design

__all__ = ["left_out", "random_parts"]

FIRST_SEED = 10_000  # of retrained networks: not those of the audited one


def random_parts(
    name: str,
    n: int,
    count: int,
    share: float,
    *,
    seeds: int = 1,
    seed: int = 0,
    same_order: bool = False,
    own_seeds: bool = False,
) -> Design:
    """Draw random subsets of round(share·n) of n examples.

    Args:
        name: of the design.
        n: number of training examples.
        count: number of subsets.
        share: of the examples in each.
        seeds: trainings of each subset.
        seed: of the draw.
        same_order: leave examples out by weight 0, in the same batches.
        own_seeds: every training has a seed of its own; else the subsets share theirs.

    Returns:
        The design.

    Raises:
        DataError: a share outside (0, 1), or one that keeps none or all.
    """
    size = round(share * n) if 0 < share < 1 else 0
    if not 0 < size < n or count < 1 or seeds < 1:
        raise DataError(
            f"{count} subsets of a share of {share:g} of {n} examples, {seeds} trainings each, cannot be made",
            where=name,
            remedy="give a share between 0 and 1, at least one subset and one training",
        )
    generator = torch.Generator().manual_seed(seed + 31)
    masks = torch.zeros(count, n, dtype=torch.bool)
    for row in masks:
        row[torch.randperm(n, generator=generator)[:size]] = True
    first = FIRST_SEED * (seed + 1)
    table = torch.arange(count * seeds).reshape(count, seeds) if own_seeds else torch.arange(seeds).expand(count, seeds)
    return Design(name, masks, (first + table).contiguous(), same_order)


def left_out(name: str, n: int, groups: list[Tensor], seeds: int, *, seed: int = 0, same_order: bool = True) -> Design:
    """Design trainings on all n examples, and on all but each of the groups; the same seeds for each pair the effects.

    Args:
        name: of the design.
        n: number of training examples.
        groups: positions left out together.
        seeds: trainings of each, two or more.
        seed: of these.
        same_order: leave examples out by weight 0, in the same batches.

    Returns:
        The design; its first part keeps all.

    Raises:
        DataError: no group, an empty one, or positions that are not there.
    """
    for g in groups:
        if not len(g) or int(g.min()) < 0 or int(g.max()) >= n:
            raise DataError(
                f"a group of examples to leave out is not within 0..{n - 1}", where=name, remedy="name examples there"
            )
    if not groups or seeds < 2:
        raise DataError(
            "leave-one-out needs examples to leave out and at least two seeds", where=name, remedy="give both"
        )
    masks = torch.ones(len(groups) + 1, n, dtype=torch.bool)
    for row, g in zip(masks[1:], groups, strict=True):
        row[g] = False
    table = (FIRST_SEED * (seed + 1) + torch.arange(seeds)).expand(len(masks), seeds).contiguous()
    return Design(name, masks, table, same_order)
