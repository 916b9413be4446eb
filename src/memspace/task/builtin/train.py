"""The small trainer of the built-in tasks: deterministic, cached, and recording its own path."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from memspace.progress import Progress, Silent
from memspace.task.builtin.options import BuildOptions
from memspace.task.recipe import Recipe
from memspace.task.task import Run

__all__ = ["Trained", "cached", "default_cache", "fit", "threads"]

_FORMAT = 1


@dataclass(frozen=True)
class Trained:
    """A trained network and the record of its training.

    Args:
        model: in eval mode.
        run: the recorded checkpoints; None: it was not trained.
        seconds: that the training took.
    """

    model: nn.Module
    run: Run | None
    seconds: float


def _loss(f: Tensor, y: Tensor) -> Tensor:
    """Mean over examples; a sequence's loss is the mean over its positions."""
    return nn.functional.cross_entropy(f.flatten(0, -2), y.flatten())


def fit(
    make: Callable[[], nn.Module],
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    progress: Progress | None = None,
    what: str = "training",
    record: bool = True,
) -> Trained:
    """Train a fresh network by the recipe; the caller's random state is left as it was.

    Args:
        make: makes the network, from torch's random state.
        x: training inputs (n, ...).
        y: training labels (n,) or (n, positions).
        recipe: optimiser, rate, batches, epochs.
        seed: of initialisation and order.
        progress: what shows the epochs; None: nothing.
        what: how the progress is called.
        record: whether checkpoints along the way are kept; the first and the last always are.

    Returns:
        The network, its run and the seconds it took.
    """
    progress = progress or Silent()
    start = time.perf_counter()
    with threads(recipe.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        count = len(y)
        batch = count if recipe.batch is None else min(recipe.batch, count)
        steps_per_epoch = -(-count // batch)
        total = recipe.epochs * steps_per_epoch
        optimiser = recipe.descent(model.parameters())
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total)
        wanted = _when(total, recipe.checkpoints) if record else set()
        states, times, steps = [_copy(model)], [0.0], [0]
        clock, step = 0.0, 0
        for _ in progress.track(range(recipe.epochs), what, recipe.epochs):
            order = torch.randperm(count)
            for turn in range(steps_per_epoch):
                index = order[turn * batch : (turn + 1) * batch] if batch < count else slice(None)
                optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(_loss(model(x[index]), y[index]))
                clock += float(schedule.get_last_lr()[0])
                optimiser.step()
                schedule.step()
                step += 1
                if step in wanted:
                    states.append(_copy(model))
                    times.append(clock)
                    steps.append(step)
        for parameter in model.parameters():
            parameter.grad = None
    run = Run(tuple(states), tuple(times), tuple(steps), float(recipe.epochs), optimiser=recipe.named)
    return Trained(model.eval(), run, time.perf_counter() - start)


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Set torch's number of threads inside, and restore it afterwards.

    Args:
        count: of threads; None: as it is set.

    Yields:
        Nothing.
    """
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def _when(total: int, count: int) -> set[int]:
    """Steps to record at: geometric, so early steps are dense, the last always."""
    spaced = {round(total ** (k / max(1, count - 2))) for k in range(count - 1)}
    return {s for s in spaced if s >= 1} | {total}


def default_cache() -> Path:
    """Return the folder of trained networks: ``MEMSPACE_CACHE``, else the platform's per-user cache.

    Returns:
        The folder, which need not exist.
    """
    if "MEMSPACE_CACHE" in os.environ:
        return Path(os.environ["MEMSPACE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "memspace"


def cached(
    make: Callable[[], nn.Module],
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    *,
    name: str,
    options: BuildOptions,
    progress: Progress,
) -> Trained:
    """Train as :func:`fit` does, or read the network from a file of an earlier training.

    The file is keyed by everything that decides the result; a damaged one is trained again and replaced.

    Args:
        make: makes the network, from torch's random state.
        x: training inputs (n, ...).
        y: training labels (n,) or (n, positions).
        recipe: optimiser, rate, batches, epochs.
        name: of the task, the beginning of the file's name.
        options: seed, folder, whether a missing network is trained.
        progress: what shows the training.

    Returns:
        The network; untrained and without a run where none is stored and none is to be trained.
    """
    seed = options.seed
    settings = {k: v for k, v in asdict(recipe).items() if k != "threads"}  # how fast, not what
    digest = hashlib.sha256(json.dumps([_FORMAT, name, settings, seed, torch.__version__, len(y)]).encode())
    digest.update(y.numpy().tobytes())
    digest.update(x.reshape(-1)[:: max(1, x.numel() // 100_000)].contiguous().numpy().tobytes())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
    digest.update(repr(model).encode())
    path = (options.cache or default_cache()) / f"{name}-{digest.hexdigest()[:24]}.safetensors"
    stored = _read(path, model)
    if stored is not None and stored.run is not None:
        return replace(stored, run=replace(stored.run, optimiser=recipe.named))
    if not options.train_network:
        return Trained(model.eval(), None, 0.0)
    trained = fit(make, x, y, recipe, seed=seed, progress=progress, what=f"training {name}")
    if trained.run is not None:
        _write(path, trained.run, trained.seconds)
    return trained


def _read(path: Path, model: nn.Module) -> Trained | None:
    try:
        with safe_open(str(path), "pt") as file:
            facts = json.loads(file.metadata()["run"])
            states = tuple(
                {k: file.get_tensor(f"{i}/{k}") for k in model.state_dict()} for i in range(len(facts["time"]))
            )
        model.load_state_dict(states[-1])
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError, TypeError):
        return None
    run = Run(states, tuple(facts["time"]), tuple(facts["step"]), facts["epochs"])
    return Trained(model.eval(), run, facts["seconds"])


def _write(path: Path, run: Run, seconds: float) -> None:
    """Best effort: an unwritable cache costs a training next time, nothing else."""
    facts = {"time": run.time, "step": run.step, "epochs": run.epochs, "seconds": seconds}
    tensors = {f"{i}/{k}": v.contiguous().clone() for i, s in enumerate(run.states) for k, v in s.items()}
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, str(temporary), {"run": json.dumps(facts)})
        temporary.replace(path)
    except (OSError, SafetensorError):
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
