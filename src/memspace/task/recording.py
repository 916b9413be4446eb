"""A folder that a recorder wrote: checkpoints of a training, their outputs on a probe, a table of probe evaluations.

``trajectory.json`` lists the checkpoints and is replaced whole after each, so that a process killed at any moment
leaves a folder that can be read. Each checkpoint has one safetensors file with the state dict as it was, and another
with its outputs on the probe examples. ``looks.parquet`` has a row per evaluation.
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

from memspace.arguments import typed
from memspace.errors import RunFolderError
from memspace.task.checkpoint import check_fit
from memspace.task.likelihood import Likelihood, law_from_dict
from memspace.task.recording_index import wrong_index
from memspace.task.run import Run, State, States

__all__ = [
    "INDEX",
    "LOOKS",
    "PROBE",
    "SCHEMA",
    "Recording",
    "load_recording",
    "load_run",
    "outputs_file",
    "state_file",
]

SCHEMA = 1  # raised whenever the folder's layout changes incompatibly
INDEX, LOOKS, PROBE = "trajectory.json", "looks.parquet", "probe.safetensors"
MOST_LOOKS, MOST_COLUMNS = 10**5, 200  # a recorder writes 4,096 rows of ten columns at most


def state_file(step: int) -> str:
    """Name the file of the state dict recorded at an optimiser step.

    Args:
        step: of the optimiser.

    Returns:
        The path inside the folder.
    """
    return f"states/step-{step:09d}.safetensors"


def outputs_file(step: int) -> str:
    """Name the file of that state's outputs on the probe.

    Args:
        step: of the optimiser.

    Returns:
        The path inside the folder.
    """
    return f"states/step-{step:09d}.outputs.safetensors"


@dataclass(frozen=True)
class Recording:
    """A recorded training as it lies on disk.

    Args:
        folder: that the recorder wrote.
        index: the content of ``trajectory.json``.
        run: the checkpoints, each read when asked for.
        looks: column → values, one row per evaluation of the probe.
    """

    folder: Path
    index: Mapping[str, Any]
    run: Run
    looks: Mapping[str, list[float]]

    @property
    def law(self) -> Likelihood | None:
        """The output law; None where its class is not registered in this process (see ``memspace.register_law``)."""
        return law_from_dict(self.index["law"])

    def labels(self) -> Tensor:
        """Read the probe examples' labels.

        Returns:
            (n, ...).

        Raises:
            RunFolderError: the file is damaged, or of another number of examples.
        """
        return self._of_probe(self.folder / PROBE, "y")

    def outputs(self, which: int) -> Tensor | None:
        """Read a checkpoint's outputs on the probe.

        Args:
            which: place of the checkpoint in the run.

        Returns:
            (n, ..., C); None where that was too large to be stored.

        Raises:
            RunFolderError: the file is damaged, or of another number of examples.
        """
        path = self.folder / outputs_file(self.run.step[which])
        if not path.exists():
            return None
        f = self._of_probe(path, "f")
        if f.dim() < 2 or not bool(torch.isfinite(f.double()).all()):
            raise _damaged(path, "outputs are missing or not finite")
        return f

    def _of_probe(self, path: Path, name: str) -> Tensor:
        tensors, n = _tensors(path), self.index["probe"]["examples"]
        if name not in tensors or tensors[name].dim() < 1 or len(tensors[name]) != n:
            raise _damaged(path, f"it does not hold what belongs to {n:,} probe examples")
        return tensors[name]


def load_recording(folder: str | Path) -> Recording:
    """Read the index and the table of a recorded training; states stay on disk.

    Args:
        folder: that a recorder wrote.

    Returns:
        The recording.

    Raises:
        RunFolderError: nothing was recorded there, by another version, or it is damaged.
    """
    folder = Path(folder)
    path = folder / INDEX
    if not path.is_file():
        raise RunFolderError(
            "there is no recorded training", where=str(folder), remedy="record one with memspace.watch(..., out=...)"
        )
    index, schema = _index(path)
    if schema != SCHEMA:
        raise RunFolderError(
            f"the training was recorded with schema {schema}, this memspace reads schema {SCHEMA}",
            where=str(folder),
            remedy=f"read it with memspace {index.get('version', 'of its time')}, or record again",
        )
    if why := wrong_index(index):
        raise _damaged(path, why)
    checkpoints = index["checkpoints"]
    steps, times = tuple(int(c["step"]) for c in checkpoints), tuple(float(c["time"]) for c in checkpoints)
    states = States([_Reader(folder / state_file(step), index["aliases"]) for step in steps])
    for step in steps:
        if not (folder / state_file(step)).is_file():
            raise _damaged(folder / state_file(step), "a checkpoint's file is missing")
    looks = _looks(folder / LOOKS)
    optimiser = str(index.get("optimiser", ""))
    return Recording(folder, index, Run(states, times, steps, 0.0, _one_step(looks), optimiser), looks)


def _index(path: Path) -> tuple[dict[str, Any], int]:
    """Read ``trajectory.json`` and the number of its schema; its other parts are not yet checked."""
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema = index["schema"]
        if isinstance(schema, bool) or not isinstance(schema, int):
            raise ValueError("no schema")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    return index, schema


def _looks(path: Path) -> dict[str, list[float]]:
    """Read the table of evaluations; refuse before that a file that is none, or far larger than a recorder writes."""
    if not path.exists():
        return {}
    try:
        about = pq.read_metadata(str(path))
        if about.num_rows > MOST_LOOKS or about.num_columns > MOST_COLUMNS:
            raise _damaged(path, f"it holds {about.num_rows:,} rows and {about.num_columns:,} columns")
        looks: dict[str, list[float]] = pq.read_table(str(path)).to_pydict()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _damaged(path) from error
    for name, column in looks.items():
        if any(v is not None and not isinstance(v, int | float) for v in column):
            raise _damaged(path, f"its column {name[:40]!r} holds no numbers")
    if not looks or any(v is None or not math.isfinite(v) for v in looks.get("step", ())):
        raise _damaged(path, "its column of steps is missing or holds no numbers")
    if "step" not in looks:
        raise _damaged(path, "it has no column of steps")
    return looks


def _one_step(looks: Mapping[str, list[float]]) -> tuple[tuple[int, float], ...]:
    pairs = zip(looks.get("step", ()), looks.get("single_step_squared", ()), strict=False)
    return tuple((int(s), x) for s, x in pairs if x is not None and math.isfinite(x) and x >= 0)


@typed
def load_run(folder: str | Path, model: nn.Module | None = None) -> Run:
    """Load the checkpoints that a recorder wrote as a task's ``run``; each state is read from disk when asked for.

    Args:
        folder: that ``memspace.watch(..., out=folder)`` wrote.
        model: where given, the last state must fit it.

    Returns:
        The run.

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
        if gone := set(self.aliases.values()) - state.keys():
            raise _damaged(self.path, f"it lacks {min(gone)[:80]!r}")
        return state | {key: state[other] for key, other in self.aliases.items()}


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return dict(load_file(str(path)))
    except (OSError, SafetensorError) as error:
        raise _damaged(path) from error


def _damaged(path: Path, why: str = "") -> RunFolderError:
    what = "the recorded training is damaged" + (f": {why}" if why else "")
    return RunFolderError(what, where=str(path), remedy="record it again, or restore the folder")
