"""An edit of a network's memory: new weights next to the old, what was predicted of them and what was measured."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from memspace.display import Shown
from memspace.errors import DataError, NonFiniteError, OutputError
from memspace.measurement import Measurement, Unmeasured
from memspace.passes.space import ParameterSpace
from memspace.positions import as_positions
from memspace.task.task import Task

__all__ = ["Cost", "Edit", "checked_examples", "edited_state", "save_state", "writable"]


@dataclass(frozen=True)
class Cost:
    """What an edit took, in gradients of one example.

    Args:
        gradients: forward and backward passes of one example; a product with the Fisher matrix counts as two (a forward
            mode and a reverse mode pass), a pass that reads one sampled label per example as one.
        products: products with the Fisher matrix among them, each over all retained examples.
        seconds: wall-clock time.
    """

    gradients: int = 0
    products: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, repr=False)
class Edit(Shown):
    """The result of an edit; the task's model is as it was.

    Args:
        kind: ``forget`` or ``write``.
        state: the edited state dict: all keys of the model's own, new tensors.
        examples: positions (k,) of the training examples it is about; empty for new examples.
        change: θ' − θ as a flat vector (P,), float64.
        measurements: predicted and measured effects, each with its unit, or why it is absent.
        method: how it was computed.
        damping: the γ used (mean Fisher).
        cost: what it took.
        statement: one sentence for people.
    """

    kind: str
    state: dict[str, Tensor] = field(repr=False)
    examples: Tensor
    change: Tensor = field(repr=False)
    measurements: tuple[Measurement | Unmeasured, ...]
    method: str
    damping: float
    cost: Cost
    statement: str

    def _title(self) -> str:
        return self.statement

    def measurement(self, name: str) -> Measurement:
        """Look a measurement up.

        Args:
            name: for example ``"forget.kl.retained"``.

        Returns:
            the measurement.

        Raises:
            KeyError: it was not measured.
        """
        for m in self.measurements:
            if isinstance(m, Measurement) and m.name == name:
                return m
        raise KeyError(name)

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the state dict as safetensors; see :func:`save_state`.

        Args:
            path: the file.
            force: overwrite a file that exists.
        """
        save_state(self.state, path, force=force)


def edited_state(task: Task, space: ParameterSpace, theta: Tensor) -> dict[str, Tensor]:
    """Make a state dict with other values of the space's parameters; all else is copied.

    Args:
        task: the network.
        space: its parameters.
        theta: their values (P,), cast to the model's dtype.

    Returns:
        all keys of the model's own, new tensors.

    Raises:
        NonFiniteError: the edit has left the finite numbers.
    """
    if not bool(torch.isfinite(theta).all()):
        raise NonFiniteError(
            "the edited weights are NaN or infinite", where="edit", remedy="use a larger damping or fewer examples"
        )
    state = {k: v.detach().clone() for k, v in task.model.state_dict().items() if isinstance(v, Tensor)}
    for name, value in space.unpack(theta).items():
        for key in _aliases(task, name):
            state[key] = value.to(state[key]).clone()
    return state


def _aliases(task: Task, name: str) -> list[str]:
    """All keys under which the state dict holds this parameter: shared ones have several."""
    named = dict(task.model.named_parameters(remove_duplicate=False))
    return [k for k, p in named.items() if p is named[name]]


def checked_examples(task: Task, examples: Tensor | list[int]) -> Tensor:
    """Read positions of training examples.

    Args:
        task: with its data.
        examples: positions, or numbers by which the data name their items.

    Returns:
        positions (k,), sorted, each once.

    Raises:
        DataError: none, some outside the data, or all of them.
    """
    index = as_positions(examples, "examples", "give whole numbers, for example 3,17")
    n = len(task.train)
    chosen: Tensor = torch.unique(index.long())
    if not len(chosen):
        raise DataError("there are no examples to forget", where="examples", remedy="name at least one")
    chosen = task.train.places(chosen)
    outside = chosen[(chosen < 0) | (chosen >= n)]
    if len(outside):
        raise DataError(
            f"there is no training example {int(outside[0])}", where="examples", remedy=f"they are numbered 0..{n - 1}"
        )
    if len(chosen) == n:
        raise DataError(
            "these are all training examples: nothing is left to remember",
            where="examples",
            remedy="leave some out, or start from a fresh network",
        )
    return chosen


def writable(path: Path, force: bool) -> Path:
    """Check that a file may be written.

    Args:
        path: the file.
        force: it may exist.

    Returns:
        the path.

    Raises:
        OutputError: it exists already and ``force`` is not given, or it is a folder.
    """
    if path.is_dir():
        raise OutputError("this is a folder, not a file", where=str(path), remedy="give a file name in --out")
    if path.exists() and not force:
        raise OutputError(
            "the file exists already", where=str(path), remedy="choose another --out, or --force to overwrite it"
        )
    return path


def save_state(state: Mapping[str, Tensor], path: Path, *, force: bool = False) -> None:
    """Write a state dict as safetensors, whole or not at all.

    Args:
        state: tensors by name.
        path: the file.
        force: overwrite a file that exists.

    Raises:
        OutputError: the file exists (and no ``force``), or cannot be written.
    """
    writable(path, force)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in state.items()}, str(temporary))
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"the weights cannot be written ({error.strerror or error})",
            where=str(path),
            remedy="check the folder and the space left",
        ) from error
