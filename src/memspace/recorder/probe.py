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

__all__ = ["WatchProbe", "open_probe"]

HELD = 2**26  # bytes that the outputs of the probe may take: several of them are held at once


class WatchProbe:
    """A few training examples and the model being trained.

    Args:
        model: as the user trains it; law: output law.
        batch: the examples; of: how many training examples they were drawn from.
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
        """The live network without its wrappers; of half-precision weights a float32 copy as they are now."""
        if self._half:
            self._network = self._made()
        return self._network

    def task(self) -> Task:
        """The probe alone as a task, for whatever reads one."""
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
        """The live model's predictions, (n, ..., C): eval mode, no autocast, no gradients."""
        device = self.device
        with reading(self.model), torch.no_grad():
            network = self.network()
            x, n = move(self.batch.x, device, next(network.parameters()).dtype), len(self.batch)
            self.batch = Batch(self.batch.index, x, self.batch.y)  # copied to the device once
            spans = [slice(k, min(n, k + self._at_once)) for k in range(0, n, self._at_once)]
            parts = [call_model(network, take(x, s)) for s in spans]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def labels(self) -> Tensor:
        """On the model's device."""
        if self._y is None or self._y.device != self.device:
            self._y = move(self.batch.y, self.device)
        return self._y

    def weight(self, f: Tensor) -> Tensor | None:
        """0 at padded positions of sequences; None where there are none."""
        if f.dim() < 3:
            return None
        if self._weight is None or self._weight.device != f.device:
            self._weight = self.law.weight(f, self.labels()).double()
        return self._weight

    def loss(self, f: Tensor) -> Tensor:
        """Training loss per example, (n,) nats, summed over its positions."""
        each = self.law.nll(f.double(), self.labels())
        return each.flatten(1).sum(1) if each.dim() > 1 else each

    def state(self) -> dict[str, Tensor]:
        """The user's state dict as it is now, named as without wrappers; nothing is copied."""
        return {own_name(k): v.detach() for k, v in self.model.state_dict().items() if isinstance(v, Tensor)}

    def fingerprint(self) -> str:
        """Of the probe's examples and the output law, whatever the weights are."""
        digest = hashlib.sha256(repr(self.law).encode())
        update_digest(digest, self.batch.index)
        update_digest(digest, self.batch.x)
        update_digest(digest, self.batch.y)
        return digest.hexdigest()


def open_probe(model: nn.Module, train: Any, law: Likelihood, examples: int, seed: int) -> WatchProbe:
    """Draw probe examples from the training data, once, and check that the model can be followed on them.

    Raises:
        MemspaceError: sharded weights, outputs that are random or no tensor, labels that do not fit.
    """
    _refuse_sharded(model)
    with _same_random():
        data = Data(train, "training data")
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(data), generator=generator)
        few = WatchProbe(model, law, data.batch(order[:2]), len(data))
        each = max(1, few.outputs()[:1].numel() * 8)
        count = max(2, min(examples, HELD // each, len(data)))
        probe = WatchProbe(model, law, data.batch(order[:count].sort().values), len(data))
    probe.check()
    return probe


@contextmanager
def reading(model: nn.Module) -> Iterator[None]:
    """The user's model read in full precision: autocast off; modes, gradients and random state as before."""
    kinds = {p.device.type for p in model.parameters()} | {"cpu"}
    with untouched(model), ExitStack() as stack:
        for kind in sorted(kinds):
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def _same_random() -> Iterator[None]:
    """Python's, numpy's and torch's random states afterwards as before: datasets draw from all three."""
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
                remedy="hand over (input, label) pairs whose inputs the model can be called with",
            ) from error
    if not isinstance(_logits(out), Tensor):
        raise ShapeError(
            f"the model returns a {type(out).__name__} without logits",
            where=type(model).__name__,
            remedy="let it return one row of outputs per example",
        )
    return isinstance(out, Tensor)
