"""What a network of a zoo draws at random, as functions of its seed and the step: any step can be repeated."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Tensor, nn

from memspace.zoo.registry import ZooData, family_named
from memspace.zoo.specification import NetworkSpec

__all__ = ["batch_at", "initial_network", "labels_of", "masks_at", "permuted_labels"]


def initial_network(spec: NetworkSpec, data: ZooData) -> nn.Module:
    """Make a network at its initialisation; the caller's random state is left as it was.

    Args:
        spec: of the network.
        data: that it is trained on.

    Returns:
        The network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed("weights", spec.seed))
        return family_named(spec.family)(data, spec.width, spec.depth)


def labels_of(spec: NetworkSpec, data: ZooData) -> Tensor:
    """Draw the training labels as the network sees them.

    Args:
        spec: its share of wrong labels, or that they are permuted.
        data: the right ones.

    Returns:
        (n,) or (n, T); exactly the share of them is wrong.
    """
    y = data.y[: spec.size]
    if spec.permuted:
        return permuted_labels(spec, data)
    count = round(spec.label_noise * y.numel())
    generator = _generator("wrong labels", spec.seed)
    at = torch.randperm(y.numel(), generator=generator)[:count]
    shift = torch.randint(1, data.outputs, (count,), generator=generator)
    flat = y.flatten().clone()
    flat[at] = (flat[at] + shift) % data.outputs
    return flat.reshape(y.shape)


def permuted_labels(spec: NetworkSpec, data: ZooData) -> Tensor:
    """Reorder the training labels at random: their frequencies stay, what they say about the inputs is lost.

    Args:
        spec: whose seed decides the permutation.
        data: the right labels.

    Returns:
        (n,) or (n, T).
    """
    y = data.y[: spec.size]
    order = torch.randperm(y.numel(), generator=_generator("permutation", spec.seed))
    return y.flatten()[order].reshape(y.shape)


def batch_at(spec: NetworkSpec, step: int) -> Tensor:
    """Look up the examples of a step: every epoch goes through all of them in a new order.

    Args:
        spec: its sizes and seed.
        step: 0 for the first.

    Returns:
        (b,) positions in the training data.
    """
    size = min(spec.batch, spec.size)
    whole = spec.size // size  # the rest of an epoch is left out, so that all steps are of one size
    epoch, part = divmod(step, whole)
    return _order(spec.seed, spec.size, epoch)[part * size : (part + 1) * size]


def masks_at(spec: NetworkSpec, dropped: tuple[tuple[int, ...], ...], step: int) -> list[Tensor]:
    """Draw the masks of dropout of a step.

    Args:
        spec: its share and seed.
        dropped: shapes of what is dropped, without the batch.
        step: 0 for the first.

    Returns:
        (b, ...) for each shape, zero or 1/(1 − share).
    """
    size = min(spec.batch, spec.size)
    generator = _generator("dropout", spec.seed, step)
    stay = 1 - spec.dropout
    return [(torch.rand(size, *shape, generator=generator) < stay) / stay for shape in dropped]


@lru_cache(maxsize=64)
def _order(seed: int, size: int, epoch: int) -> Tensor:
    return torch.randperm(size, generator=_generator("order", seed, epoch))


def _generator(*what: object) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(*what))


def _seed(*what: object) -> int:
    """A seed for every purpose: streams of neighbouring seeds are unrelated."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:6], "big")
