"""The fixed examples whose predictions are followed, and the live model read on them without leaving a trace."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from memspace.errors import ShapeError, UnsupportedLayerError
from memspace.passes.batching import examples_at_once
from memspace.task.checks import check_task, untouched
from memspace.task.data import Batch, Data, call_model, move, take
from memspace.task.fingerprint import update_digest
from memspace.task.likelihood import Likelihood
from memspace.task.plain import own_name, plain, stored_dtypes
from memspace.task.task import Task

__all__ = ["WatchProbe", "open_probe", "reading", "same_random"]

MEMORY = 2**26  # bytes that the outputs of the probe may take: several of them are in memory at once


class WatchProbe:
    """A few training examples and the model being trained.

    Args:
        model: as the user trains it.
        law: the output law.
        batch: the examples.
        of: number of training examples they were drawn from.
    """

    def __init__(self, model: nn.Module, law: Likelihood, batch: Batch, of: int) -> None:
        self.model, self.law, self.batch, self.of = model, law, batch, of
        self._half = bool(stored_dtypes(model))
        self._wrapped = not _gives_tensor(_unwrapped(model), model, batch)
        self._network = self._made()
        self._at_once = len(batch)
        self._y: Tensor | None = None
        self._weight: Tensor | None = None

    def _made(self) -> nn.Module:
        inner = _unwrapped(self.model)
        return _Read(inner) if self._wrapped else inner

    def network(self) -> nn.Module:
        """Give the live network without its wrappers; of half-precision weights a float32 copy as they are now.

        Returns:
            A module whose outputs are a tensor.
        """
        if self._half:
            self._network = self._made()
        return self._network

    def task(self) -> Task:
        """Make the probe alone a task, for whatever reads one.

        Returns:
            The live network with the probe as training data.
        """
        return Task(model=self.network(), train=Data((self.batch.x, self.batch.y)), likelihood=self.law, name="probe")

    def check(self) -> None:
        """Refuse what cannot be followed: random outputs, wrong labels, damaged weights; see ``memspace.errors``."""
        with reading(self.model):
            job = self.task()
            check_task(job)
            self._at_once = max(1, min(len(self.batch), examples_at_once(job)))

    @property
    def device(self) -> torch.device:
        """Where the model's parameters live now."""
        return next(self.model.parameters(), torch.empty(0)).device

    def outputs(self) -> Tensor:
        """Compute the live model's predictions: eval mode, no autocast, no gradients.

        Returns:
            (n, ..., C).
        """
        device = self.device
        with reading(self.model), torch.no_grad():
            network = self.network()
            x, n = move(self.batch.x, device, next(network.parameters()).dtype), len(self.batch)
            self.batch = Batch(self.batch.index, x, self.batch.y)  # copied to the device once
            spans = [slice(k, min(n, k + self._at_once)) for k in range(0, n, self._at_once)]
            parts = [call_model(network, take(x, s)) for s in spans]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def labels(self) -> Tensor:
        """Give the probe's labels on the model's device.

        Returns:
            (n, ...).
        """
        if self._y is None or self._y.device != self.device:
            self._y = move(self.batch.y, self.device)
        return self._y

    def weight(self, f: Tensor) -> Tensor | None:
        """Weigh positions: 0 at padded ones of sequences.

        Args:
            f: outputs (n, ..., C).

        Returns:
            (n, ...); None where an example has one position.
        """
        if f.dim() < 3:
            return None
        if self._weight is None or self._weight.device != f.device:
            self._weight = self.law.weight(f, self.labels()).double()
        return self._weight

    def loss(self, f: Tensor) -> Tensor:
        """Compute the training loss per example, summed over its positions.

        Args:
            f: outputs (n, ..., C).

        Returns:
            (n,) nats.
        """
        losses = self.law.nll(f.double(), self.labels())
        return losses.flatten(1).sum(1) if losses.dim() > 1 else losses

    def state(self) -> dict[str, Tensor]:
        """Give the user's state dict as it is now, named as without wrappers; nothing is copied.

        Returns:
            Tensors by name.
        """
        return {own_name(k): v.detach() for k, v in self.model.state_dict().items() if isinstance(v, Tensor)}

    def fingerprint(self) -> str:
        """Compute a digest of the probe's examples and the output law, whatever the weights are.

        Returns:
            Hexadecimal digits.
        """
        digest = hashlib.sha256(repr(self.law).encode())
        update_digest(digest, self.batch.index)
        update_digest(digest, self.batch.x)
        update_digest(digest, self.batch.y)
        return digest.hexdigest()


def open_probe(model: nn.Module, train: Any, law: Likelihood, examples: int, seed: int) -> WatchProbe:
    """Draw probe examples from the training data, once, and check that the model can be followed on them.

    Args:
        model: as the user trains it.
        train: the training data, as for :func:`memspace.audit`.
        law: the output law.
        examples: number wanted; fewer where their outputs take too much memory.
        seed: of the draw.

    Returns:
        The probe.

    Raises:
        MemspaceError: sharded weights, outputs that are random or no tensor, labels that do not fit.
    """
    _refuse_sharded(model)
    with same_random():
        data = Data(train, "training data")
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(data), generator=generator)
        few = WatchProbe(model, law, data.batch(order[:2]), len(data))
        bytes_each = max(1, few.outputs()[:1].numel() * 8)
        count = max(2, min(examples, MEMORY // bytes_each, len(data)))
        probe = WatchProbe(model, law, data.batch(order[:count].sort().values), len(data))
    probe.check()
    return probe


@contextmanager
def reading(model: nn.Module) -> Iterator[None]:
    """Read the user's model in full precision: autocast off; modes, gradients and random state as before afterwards.

    Args:
        model: as the user trains it.

    Yields:
        Nothing.
    """
    kinds = {p.device.type for p in model.parameters()} | {"cpu"}
    with untouched(model), ExitStack() as stack:
        for kind in sorted(kinds):
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def same_random() -> Iterator[None]:
    """Leave Python's, numpy's and torch's random states as they were: data sets draw from all three.

    Yields:
        Nothing.
    """
    python, array = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)  # noqa: NPY002


def _refuse_sharded(model: nn.Module) -> None:
    for name, p in model.named_parameters():
        if hasattr(p, "full_tensor") or hasattr(p, "ds_id") or type(p).__name__ == "FlatParameter":
            raise UnsupportedLayerError(
                "the weights are sharded over processes, and one process cannot read them while all train",
                where=name,
                remedy="record a replicated training (DDP), or audit checkpoints gathered later: Task(run=Run(...))",
            )


class _Read(nn.Module):
    """A network whose output is an object: its logits."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **keywords: Any) -> Any:
        return _logits(self.inner(*args, **keywords))


def _logits(out: Any) -> Any:
    """The tensor of outputs in what a model returned."""
    if isinstance(out, Mapping):
        return out.get("logits")
    if isinstance(out, tuple):
        return out[0]
    return getattr(out, "logits", out)


def _unwrapped(model: nn.Module) -> nn.Module:
    """The plain network, in eval mode where it is a tree of its own."""
    inner = plain(model)
    return inner if inner is model else inner.eval()


def _gives_tensor(inner: nn.Module, model: nn.Module, batch: Batch) -> bool:
    """False where the network returns an object with logits rather than a tensor."""
    with reading(model), torch.no_grad():
        first = next(inner.parameters(), torch.empty(0))
        x = move(take(batch.x, slice(0, 2)), first.device, first.dtype)
        try:
            out = call_model(inner, x)
        except Exception as error:  # whatever the model raises, it raises at its input
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise ShapeError(
                f"the model refuses a training example: {reason}",
                where="training data",
                remedy="give (input, label) pairs whose inputs the model can be called with",
            ) from error
    if not isinstance(_logits(out), Tensor):
        raise ShapeError(
            f"the model returns a {type(out).__name__} without logits",
            where=type(model).__name__,
            remedy="let it return one row of outputs per example",
        )
    return isinstance(out, Tensor)
