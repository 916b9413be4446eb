"""Which examples a DataLoader gives, and the order in which they are then read.

A loader is read by index, so that "example 17" means the same in every pass. First its sampler's choice is found:

* in order, or every example once in a shuffled order: the data set in index order;
* a subset shuffled: those examples in index order;
* any sampler that gives the same indices twice: these indices in its own order, repeats included;
* any that gives the same examples in another order each time: these in index order;
* one that draws other examples each time (weights, replacement, a part of the data): refused. "The training data"
  are then not one set of examples that all count the same.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from memspace.errors import DataError

__all__ = ["generators_of", "indices_of", "same_draws"]

LONGEST = 5_000_000  # indices a sampler may give; one that gives more has no end
FEW, PASSES = 1000, 8  # indices of which so many passes more are compared


def indices_of(loader: DataLoader[Any], name: str) -> Sequence[Any]:
    """List the indices of the examples that a loader over a map-style data set gives, in reading order.

    Args:
        loader: the loader.
        name: of the data, for messages.

    Returns:
        Keys of the data set, one per example.

    Raises:
        DataError: the sampler is empty, has no end, or draws other examples at every pass.
    """
    batches = loader.batch_sampler
    if batches is None:  # the data set gives whole batches, or single examples
        indices = _picked(loader.sampler, name, drop=0)
    elif type(batches) is BatchSampler:
        indices = _picked(batches.sampler, name, drop=batches.batch_size if batches.drop_last else 0)
    else:
        indices = _picked(batches, name, drop=0)
    if not len(indices):
        raise DataError(
            f"the loader of the {name} gives no examples",
            where=f"{type(loader.sampler).__name__}" + (" with drop_last" if loader.drop_last else ""),
            remedy="check its sampler and its batch size",
        )
    return indices


def _picked(sampler: Any, name: str, drop: int) -> Sequence[Any]:
    """List the indices of a sampler whose batches of ``drop`` leave an incomplete last one out (0: none is)."""
    kind = type(sampler)
    if kind is SequentialSampler:
        return range(_whole(len(sampler.data_source), drop))
    if kind is SubsetRandomSampler:  # drop_last drops other examples each time, none for good
        return sorted(_plain(i) for i in sampler.indices) if len(sampler.indices) >= max(1, drop) else []
    if kind is RandomSampler:
        size, count = len(sampler.data_source), sampler.num_samples
        if sampler.replacement or count % size:
            how = "with replacement" if sampler.replacement else f"({count:,} of {size:,})"
            raise _drawn(name, "RandomSampler", f"draws new examples at every pass {how}")
        return range(size) if count >= max(1, drop) else []
    if kind is WeightedRandomSampler:
        return _weighted(sampler, name)
    first, second = _twice(sampler, name)
    if first == second:
        return first[: _whole(len(first), drop)]
    if Counter(first) == Counter(second):
        return sorted(first) if len(first) >= max(1, drop) else []
    raise _drawn(name, kind.__name__, "gives other examples at every pass")


def _whole(count: int, drop: int) -> int:
    return count if not drop else count - count % drop


def _weighted(sampler: Any, name: str) -> Sequence[Any]:
    """List the examples of positive weight, where a pass gives each of them exactly once."""
    positive = (sampler.weights > 0).nonzero().flatten().tolist()
    if not sampler.replacement and sampler.num_samples == len(positive):
        return list(positive)
    raise _drawn(name, "WeightedRandomSampler", "draws new examples at every pass, by weight")


def _drawn(name: str, kind: str, what: str) -> DataError:
    return DataError(
        f"the sampler of the {name} {what}: it is not one set of examples that count alike",
        where=kind,
        remedy="pass the dataset itself to read every example once, or a list of indices as the sampler "
        "(an index repeated counts as often)",
    )


def _twice(sampler: Any, name: str) -> tuple[list[Any], list[Any]]:
    """Run two passes of any sampler; the second differs from the first where one of a few passes does.

    A few batches come in the same order twice by chance. The random state and the sampler's own generator are left as
    they were.
    """
    with same_draws(generators_of(sampler)):
        first = _once(sampler, name)
        for _ in range(PASSES if len(first) <= FEW else 1):
            other = _once(sampler, name)
            if other != first:
                break
        return first, other


def _once(sampler: Iterable[Any], name: str) -> list[Any]:
    try:
        indices = list(islice(_flat(sampler), LONGEST + 1))
    except DataError:
        raise
    except Exception as error:  # a user's own code
        raise DataError(
            f"the sampler of the {name} fails ({type(error).__name__}: {error})",
            where=type(sampler).__name__,
            remedy="repair it, or pass the dataset itself",
        ) from error
    if len(indices) > LONGEST:
        raise DataError(
            f"the sampler of the {name} gives more than {LONGEST:,} indices, perhaps without end",
            where=type(sampler).__name__,
            remedy="pass the dataset itself",
        )
    return indices


def _flat(batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        if isinstance(batch, Tensor):
            yield from batch.reshape(-1).tolist()
        elif isinstance(batch, list | tuple | np.ndarray):
            yield from (_plain(i) for i in batch)
        else:
            yield _plain(batch)


def _plain(index: Any) -> Any:
    """Return an index as an int, where it is one; data sets may have other keys."""
    return int(index) if isinstance(index, Tensor | np.integer | int) else index


def generators_of(owner: Any) -> list[torch.Generator]:
    """List the generators that a loader or a sampler, or a sampler inside it, draws from.

    Args:
        owner: a loader, a sampler, or anything else.

    Returns:
        The generators; none where the owner has none.
    """
    owners = (owner, getattr(owner, "sampler", None))
    return [g for o in owners for g in getattr(o, "__dict__", {}).values() if isinstance(g, torch.Generator)]


@contextmanager
def same_draws(generators: Sequence[torch.Generator] = ()) -> Iterator[None]:
    """Put back every random state that draws inside move: torch's (of the CPU), NumPy's, Python's and those given.

    Args:
        generators: further generators.

    Yields:
        Nothing.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's data may draw from it
    states = [g.get_state() for g in generators]
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
