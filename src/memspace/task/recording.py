"""A folder that a recorder wrote: checkpoints of a training, what they predict on a probe, a table of looks.

``trajectory.json`` lists the checkpoints and is replaced whole after each, so that a process killed at any moment
leaves a folder that reads. Per checkpoint one safetensors file holds the state dict as it was, another what it predicts
on the probe examples; ``looks.parquet`` has a row per look.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from memspace.errors import RunFolderError
from memspace.task.checkpoint import check_fit
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Likelihood, Poisson
from memspace.task.run import Run, State, States

__all__ = [
    "INDEX",
    "LOOKS",
    "PROBE",
    "SCHEMA",
    "Recording",
    "law_to_dict",
    "load_recording",
    "load_run",
    "outputs_file",
    "state_file",
]

SCHEMA = 1  # raised whenever the folder's layout changes incompatibly
INDEX, LOOKS, PROBE = "trajectory.json", "looks.parquet", "probe.safetensors"
_LAWS = {law.__name__: law for law in (Categorical, Bernoulli, Gaussian, Poisson)}


def state_file(step: int) -> str:
    """Name of the state dict recorded at an optimiser step."""
    return f"states/step-{step:09d}.safetensors"


def outputs_file(step: int) -> str:
    """Name of what that state predicts on the probe."""
    return f"states/step-{step:09d}.outputs.safetensors"


@dataclass(frozen=True)
class Recording:
    """A recorded training as it lies on disk.

    Args:
        folder: where; index: the content of ``trajectory.json``.
        run: the checkpoints, each read when asked for.
        looks: column → values, one row per look at the probe.
    """

    folder: Path
    index: Mapping[str, Any]
    run: Run
    looks: Mapping[str, list[float]]

    @property
    def law(self) -> Likelihood | None:
        """The output law; None where it is the user's own."""
        said = self.index["law"]
        return _LAWS[said["kind"]](**said["arguments"]) if said["kind"] in _LAWS else None

    def labels(self) -> Tensor:
        """The probe examples' labels, (n, ...)."""
        return _tensors(self.folder / PROBE)["y"]

    def outputs(self, which: int) -> Tensor | None:
        """What a checkpoint predicts on the probe, (n, ..., C); None where that was too large to be kept."""
        path = self.folder / outputs_file(self.run.step[which])
        return _tensors(path)["f"] if path.exists() else None


def law_to_dict(law: Likelihood) -> dict[str, Any]:
    """Class and arguments of an output law, as plain JSON types."""
    own = isinstance(law, Categorical | Bernoulli | Gaussian | Poisson) and type(law).__name__ in _LAWS
    return {"kind": type(law).__name__, "arguments": dict(vars(law)) if own else {}}


def load_recording(folder: str | Path) -> Recording:
    """Read the index and the table of a recorded training; states stay on disk.

    Raises:
        RunFolderError: nothing was recorded there, by another version, or it is damaged.
    """
    folder = Path(folder)
    path = folder / INDEX
    if not path.is_file():
        raise RunFolderError(
            "there is no recorded training", where=str(folder), remedy="record one with memspace.watch(..., out=...)"
        )
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema = index["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if schema != SCHEMA:
        raise RunFolderError(
            f"the training was recorded with schema {schema}, this memspace reads schema {SCHEMA}",
            where=str(folder),
            remedy=f"read it with memspace {index.get('version', 'of its time')}, or record again",
        )
    try:
        kept = index["checkpoints"]
        steps, times = tuple(int(c["step"]) for c in kept), tuple(float(c["time"]) for c in kept)
        states = States([_Reader(folder / state_file(s), index["aliases"]) for s in steps])
        gone = [s for s in steps if not (folder / state_file(s)).is_file()]
        looks = pq.read_table(str(folder / LOOKS)).to_pydict() if (folder / LOOKS).exists() else {}
        missing = {"law", "finished", "fault", "model", "settings", "probe", "spacing"} - index.keys()
    except (OSError, KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as error:
        raise _damaged(path) from error
    if gone or missing or not steps:
        raise _damaged(folder / state_file(gone[0]) if gone else path)
    return Recording(folder, index, Run(states, times, steps, one_step=_one_step(looks)), looks)


def _one_step(looks: Mapping[str, list[float]]) -> tuple[tuple[int, float], ...]:
    pairs = zip(looks.get("step", ()), looks.get("single_step_squared", ()), strict=True)
    return tuple((int(step), single) for step, single in pairs if single is not None and math.isfinite(single))


def load_run(folder: str | Path, model: nn.Module | None = None) -> Run:
    """The checkpoints a recorder wrote, as a task's ``run``; each state is read from disk when asked for.

    Args:
        folder: what ``memspace.watch(..., out=folder)`` wrote.
        model: where given, the last state must fit it.

    Raises:
        RunFolderError: nothing was recorded there, by another version, or it is damaged.
        WeightsMismatchError: the states are of another model.
    """
    run = load_recording(folder).run
    if model is not None:
        check_fit(model, run.states[-1], str(folder))
    return run


@dataclass(frozen=True)
class _Reader:
    """Reads one state dict; ``aliases``: key → the key of the tensor it shares."""

    path: Path
    aliases: Mapping[str, str]

    def __call__(self) -> State:
        state = _tensors(self.path)
        return state | {key: state[other] for key, other in self.aliases.items()}


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return dict(load_file(str(path)))
    except (OSError, SafetensorError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> RunFolderError:
    return RunFolderError(
        "the recorded training is damaged", where=str(path), remedy="record it again, or restore the folder"
    )
