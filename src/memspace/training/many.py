"""Many trainings at once: each network with its own examples or example weights, and its own seed."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from memspace.arguments import typed
from memspace.limits import BYTES, COUNT
from memspace.progress import Progress, Silent
from memspace.task.checks import evaluating
from memspace.task.data import Inputs, call_model, first_tensor, move, take
from memspace.task.likelihood import Likelihood
from memspace.task.recipe import Recipe, Training
from memspace.task.tensors import leaves
from memspace.training.given import check_labels, check_networks, examples_of, seeds_of
from memspace.training.group import GroupJob, check_repeatable, prepare, stack, train
from memspace.training.networks import Networks

__all__ = ["GroupLimits", "train_many"]

MEMORY = 2 * 2**30  # bytes
AT_ONCE = 16  # networks in a group on a CPU: more gain nothing and leave the caches (measured: 4, 8, 16, 32, 64)


class GroupLimits(TypedDict, total=False):
    """How many networks are trained in a group.

    Args:
        at_once: this many; None: as many as memory and caches allow.
        memory: bytes that a group may take.
    """

    at_once: Annotated[int | None, COUNT]
    memory: Annotated[int, BYTES]


@typed
def train_many(
    training: Training,
    x: Inputs,
    y: Any,
    likelihood: Likelihood,
    *,
    seeds: Sequence[int],
    weights: Tensor | None = None,
    index: Tensor | None = None,
    progress: Progress | None = None,
    **limits: Unpack[GroupLimits],
) -> Networks:
    """Train M networks, each equal to the one that :func:`memspace.task.builtin.train.fit` makes with its seed.

    Network m starts from the initialisation of ``seeds[m]`` (equal seeds, equal networks) and takes, at every step,

        grad of (1/b) Σ_{j in batch} w_mj ℓ_j  +  decay·θ,

    with b the batch's size, whatever the weights, and ℓ_j the loss of example j (of a sequence, the mean over its
    positions).

    Args:
        training: the network and the recipe; ``recipe.checkpoints`` and ``recipe.threads`` are not used.
        x: inputs (N, ...). The networks are trained on their device.
        y: labels, as the law takes them.
        likelihood: the output law.
        seeds: M of them.
        weights: (M, N) of the examples in the loss. All N are in the batches of each seed, so that weight 0 leaves an
            example out *with the same batch order*, and the network is a smooth function of its weights: what a
            derivative through the training predicts. A weight of 0 still costs its share of a step, and in batch
            normalisation the example still counts. Neither weights nor index: ones.
        index: (M, m): network m trains on these examples alone, shuffled by its own seed: a half-subset costs half.
        progress: told every step of a group.
        **limits: ``at_once``: networks in a group (default: as many as memory and caches allow); it changes results by
            rounding. ``memory``: bytes that a group may take.

    Returns:
        The networks, in order.

    Raises:
        DataError: inputs, shapes or indices do not fit.
        LabelError: the labels are not the law's.
        SettingsError: a seed, ``at_once`` or ``memory`` is out of range.
        StochasticModelError: the network draws dropout masks while it trains.
    """
    x, y = examples_of(x, y)
    seeds = seeds_of(seeds)
    check_networks(len(y), seeds, weights, index)
    n = len(y) if index is None else index.shape[1]
    recipe = training.recipe
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds[0])
        model = training.make()
    check_repeatable(model)
    device, dtype = first_tensor(x).device, next(model.parameters()).dtype
    data = move(x, device, dtype), y.to(device)
    example = take(data[0], slice(0, 1))
    f, signals = _signals(model.to(device), example)
    check_labels(likelihood, f, data[1])
    stacked = stack(model, max(signals) * recipe.size(n), device)
    workers = torch.get_num_threads() if device.type == "cpu" else 1
    size = limits.get("at_once")
    if size is None:
        numbers = sum(t.numel() for t in leaves(example)) * (recipe.size(n) if index is None else n)
        numbers += sum(signals) * recipe.size(n) * (3 if stacked else 0)
        bytes_each = _bytes_each(model, recipe, n, numbers, first_tensor(example).element_size())
        most = max(1, min(-(-len(seeds) // workers), limits.get("memory", MEMORY) // (bytes_each * workers)))
        size = min(most, AT_ONCE) if device.type == "cpu" else most

    def job(start: int) -> GroupJob:
        span = slice(start, start + size)
        chosen = None if index is None else index[span].to(device)
        w = None if weights is None else weights[span].to(device, dtype)
        return prepare(training, n, seeds[span], chosen, w)

    starts = range(0, len(seeds), size)
    run = partial(train, recipe=recipe, data=data, likelihood=likelihood, stacked=stacked)
    total = recipe.steps(n) * len(starts)
    return Networks.joined(_work(map(job, starts), run, total, workers, progress or Silent()))


def _bytes_each(model: nn.Module, recipe: Recipe, n: int, numbers: int, width: int) -> int:
    """Bytes that a network of a group takes, next to ``numbers`` of ``width`` bytes for its inputs and signals."""
    numbers += 6 * sum(p.numel() for p in model.parameters())  # weights, gradients, two moments, the result twice
    return numbers * width + 8 * n * (recipe.epochs if recipe.size(n) < n else 1)


def _signals(model: nn.Module, example: Inputs) -> tuple[Tensor, list[int]]:
    """One example's outputs, and sizes of the tensors its graph holds, the parameters apart; at least one."""
    parameters = {p.data_ptr() for p in model.parameters()}
    sizes: list[int] = []

    def note(t: Tensor) -> Tensor:
        if t.data_ptr() not in parameters:
            sizes.append(t.numel())
        return t

    # In eval mode: one example has no batch statistics, and no running ones are to change.
    with evaluating(model), torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        f = call_model(model, example)
    return f.detach(), [int(f.numel()), *sizes]


class _Stopped(Exception):
    """The work was called off."""


def _work(
    jobs: Iterator[GroupJob], run: Callable[..., Networks], total: int, workers: int, progress: Progress
) -> list[Networks]:
    """Run every job, several side by side on threads that each use one core; results in order.

    For small networks this is faster than one job on several cores: torch's threads wait for each other at every
    operation.
    """
    handle = progress.start("training networks", total)
    try:
        if workers == 1:
            return [run(job, tick=lambda: progress.advance(handle)) for job in jobs]
        return _side_by_side(jobs, run, workers, lambda: progress.advance(handle))
    finally:
        progress.finish(handle)


def _side_by_side(
    jobs: Iterator[GroupJob], run: Callable[..., Networks], workers: int, advance: Callable[[], None]
) -> list[Networks]:
    ticks: queue.SimpleQueue[bool] = queue.SimpleQueue()
    stop = threading.Event()

    def tick() -> None:
        if stop.is_set():
            raise _Stopped
        ticks.put(True)

    # Draws come from torch's one random state: they are made here, ahead of a free thread.
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures: list[Future[Networks]] = []
        try:
            for job in jobs:
                futures.append(pool.submit(run, job, tick=tick))
                while sum(not f.done() for f in futures) > workers:
                    _pass_on(ticks, advance)
            while not all(f.done() for f in futures):
                _pass_on(ticks, advance)
            while not ticks.empty():
                _pass_on(ticks, advance)
        finally:
            stop.set()
    return [f.result() for f in futures]


def _pass_on(ticks: queue.SimpleQueue[bool], advance: Callable[[], None]) -> None:
    """Tell one step, should one come soon."""
    with contextlib.suppress(queue.Empty):
        ticks.get(timeout=0.05)
        advance()
