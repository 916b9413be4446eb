"""The recorded trajectory on disk, bounded for a run of any length; the layout is told in ``memspace.task.recording``.

Order of writing: a checkpoint's files, then the index that names them, then the removal of what the index no longer
names. Whenever the process is killed, everything in the index is there and whole.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from memspace.auditing.store import write_table, write_tensors, write_text
from memspace.errors import RunFolderError
from memspace.files import clear, writing
from memspace.geometry.path import every_second
from memspace.measures.declaration import register_units
from memspace.task.recording import (
    INDEX,
    LOOKS,
    PROBE,
    SCHEMA,
    Recording,
    outputs_file,
    state_file,
)
from memspace.version import VERSION

__all__ = ["COLUMNS", "Trajectory"]

register_units(
    {
        "probe_loss": "nats",
        "length": "nats^½",
        "action": "nats per learning-rate time",
        "squared": "nats",
        "single_step_squared": "nats",
        "excess": "nats",
        "leave_one_out_gap": "nats",
    }
)

ROWS = 4096  # of the table of probe evaluations; then every second is dropped
OUTPUTS = 2**22  # bytes of probe outputs kept next to a checkpoint

COLUMNS = (
    "step",
    "time",
    "seconds",
    "probe_loss",
    "length",
    "action",
    "squared",
    "single_step_squared",
    "excess",
    "effective_dimension",
    "leave_one_out_gap",
)


class Trajectory:
    """Writes one folder.

    Args:
        folder: created if missing.
        about: what the index says next to the checkpoints.
        spacing: nats^½ between checkpoints to begin with.
        most: checkpoints kept.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], spacing: float, most: int) -> None:
        self.folder, self.spacing = folder, spacing
        self._about, self._most = dict(about), max(3, most)
        self.checkpoints: list[dict[str, Any]] = []
        self.rows: dict[str, list[float]] = {c: [] for c in COLUMNS}
        self._aliases: dict[str, str] = {}
        with writing(folder):
            (folder / "states").mkdir(parents=True, exist_ok=True)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Tell whether something was recorded.

        Args:
            folder: of a trajectory.

        Returns:
            True where it was.
        """
        return (folder / INDEX).exists()

    @staticmethod
    def remove(folder: Path) -> None:
        """Take a recorded trajectory away, and nothing else that lies there.

        Args:
            folder: of a trajectory.
        """
        (folder / INDEX).unlink(missing_ok=True)  # first: a folder without it holds no trajectory
        for name in (LOOKS, PROBE):
            (folder / name).unlink(missing_ok=True)
        clear(folder / "states")

    def go_on(self, recording: Recording, step: int | None) -> int:
        """Take over what was recorded, up to an optimiser step.

        Args:
            recording: the earlier one.
            step: where to go on; None: from its last checkpoint.

        Returns:
            The step of the last checkpoint kept.

        Raises:
            RunFolderError: it is of another model, other data or another law, or begins after that step.
        """
        for key, what in (("parameters", "model"), ("law", "output law"), ("probe", "training data")):
            if recording.index.get(key) != self._about[key]:
                raise RunFolderError(
                    f"what was recorded is of another {what}",
                    where=str(self.folder),
                    remedy="choose another out, or record again with resume=False",
                )
        last = recording.run.step[-1] if step is None else step
        checkpoints = [dict(c) for c in recording.index["checkpoints"] if c["step"] <= last]
        if not checkpoints:
            raise RunFolderError(
                f"what was recorded begins at step {recording.run.step[0]}, after step {last}",
                where=str(self.folder),
                remedy="choose another out, or record again with resume=False",
            )
        self.checkpoints, self._aliases = checkpoints, dict(recording.index["aliases"])
        self.spacing = float(recording.index["spacing"])
        end = int(checkpoints[-1]["step"])
        places = [k for k, s in enumerate(recording.looks.get("step", ())) if s <= end]
        self.rows = {c: [recording.looks[c][k] for k in places] if c in recording.looks else [] for c in COLUMNS}
        return end

    def begin(self, labels: Tensor) -> None:
        """Write the probe's labels, once.

        Args:
            labels: (n, ...).
        """
        write_tensors(self.folder / PROBE, {"y": labels})

    def keep(self, step: int, time: float, state: Mapping[str, Tensor], f: Tensor) -> None:
        """Write a checkpoint; where there are too many, double the spacing and drop every second.

        Args:
            step: optimiser step.
            time: learning-rate time.
            state: the state dict.
            f: outputs on the probe, (n, ..., C).
        """
        first: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
        aliases = {}
        for name, t in state.items():
            owner = first.setdefault((t.data_ptr(), tuple(t.shape), t.stride()), name) if t.numel() else name
            if owner != name:
                aliases[name] = owner
        write_tensors(self.folder / state_file(step), {k: t for k, t in state.items() if k not in aliases})
        if f.numel() * f.element_size() <= OUTPUTS:
            write_tensors(self.folder / outputs_file(step), {"f": f})
        self._aliases = aliases
        self.checkpoints = [c for c in self.checkpoints if c["step"] != step] + [{"step": step, "time": time}]
        dropped: list[dict[str, Any]] = []
        if len(self.checkpoints) > self._most:
            self.spacing *= 2
            stay = set(every_second(len(self.checkpoints)))
            dropped = [c for k, c in enumerate(self.checkpoints) if k not in stay]
            self.checkpoints = [c for k, c in enumerate(self.checkpoints) if k in stay]
        self.save()
        for c in dropped:
            for name in (state_file(c["step"]), outputs_file(c["step"])):
                with contextlib.suppress(OSError):  # costs room, no more; begin again and it goes
                    (self.folder / name).unlink(missing_ok=True)

    def add(self, row: Mapping[str, float | None]) -> None:
        """Add a row, in the place of one of the same step.

        Args:
            row: column → value; what was not measured is NaN.
        """
        if self.rows["step"] and self.rows["step"][-1] == row["step"]:
            for column in self.rows.values():
                column.pop()
        for c, column in self.rows.items():
            value = row.get(c)
            column.append(math.nan if value is None else float(value))
        if len(self.rows["step"]) > ROWS:
            stay = every_second(len(self.rows["step"]))
            self.rows = {c: [column[k] for k in stay] for c, column in self.rows.items()}

    def save(self, **more: Any) -> None:
        """Write the table, then the index.

        Args:
            **more: entries of the index that changed.
        """
        self._about |= more
        if self.rows["step"]:
            write_table(self.folder / LOOKS, self.rows, SCHEMA)
        index = {
            "schema": SCHEMA,
            "version": VERSION,
            **self._about,
            "spacing": self.spacing,
            "aliases": self._aliases,
            "checkpoints": self.checkpoints,
        }
        write_text(self.folder / INDEX, json.dumps(index, indent=1))

    def tidy(self) -> None:
        """Remove files of states that the index does not name: what an earlier, killed process left."""
        named = {n for c in self.checkpoints for n in (state_file(c["step"]), outputs_file(c["step"]))}
        for path in (self.folder / "states").glob("step-*"):
            if f"states/{path.name}" not in named:
                with contextlib.suppress(OSError):
                    path.unlink()
