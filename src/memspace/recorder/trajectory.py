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

ROWS = 4096  # of the table of looks; then every second is dropped
OUTPUTS = 2**22  # bytes of probe outputs kept beside a checkpoint

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
        folder: created if missing; about: what the index says beside the checkpoints.
        spacing: nats^½ between checkpoints to begin with; most: checkpoints kept.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], spacing: float, most: int) -> None:
        self.folder, self.spacing = folder, spacing
        self._about, self._most = dict(about), max(3, most)
        self.checkpoints: list[dict[str, Any]] = []
        self.looks: dict[str, list[float]] = {c: [] for c in COLUMNS}
        self._aliases: dict[str, str] = {}
        with writing(folder):
            (folder / "states").mkdir(parents=True, exist_ok=True)

    @staticmethod
    def exists(folder: Path) -> bool:
        """True where something was recorded."""
        return (folder / INDEX).exists()

    @staticmethod
    def remove(folder: Path) -> None:
        """Take a recorded trajectory away, and nothing else that lies there."""
        (folder / INDEX).unlink(missing_ok=True)  # first: a folder without it holds no trajectory
        for name in (LOOKS, PROBE):
            (folder / name).unlink(missing_ok=True)
        clear(folder / "states")

    def go_on(self, found: Recording, step: int | None) -> int:
        """Take over what was recorded, up to an optimiser step; returns the step of the last checkpoint kept.

        Raises:
            RunFolderError: it is of another model, other data or another law, or begins after that step.
        """
        for key, what in (("parameters", "model"), ("law", "output law"), ("probe", "training data")):
            if found.index.get(key) != self._about[key]:
                raise RunFolderError(
                    f"what was recorded is of another {what}",
                    where=str(self.folder),
                    remedy="choose another out, or record anew with resume=False",
                )
        last = found.run.step[-1] if step is None else step
        kept = [dict(c) for c in found.index["checkpoints"] if c["step"] <= last]
        if not kept:
            raise RunFolderError(
                f"what was recorded begins at step {found.run.step[0]}, after step {last}",
                where=str(self.folder),
                remedy="choose another out, or record anew with resume=False",
            )
        self.checkpoints, self._aliases = kept, dict(found.index["aliases"])
        self.spacing = float(found.index["spacing"])
        end = int(kept[-1]["step"])
        rows = [k for k, s in enumerate(found.looks.get("step", ())) if s <= end]
        self.looks = {c: [found.looks[c][k] for k in rows] if c in found.looks else [] for c in COLUMNS}
        return end

    def begin(self, labels: Tensor) -> None:
        """The probe's labels, once."""
        write_tensors(self.folder / PROBE, {"y": labels})

    def keep(self, step: int, time: float, state: Mapping[str, Tensor], f: Tensor) -> None:
        """Write a checkpoint; where there are too many, double the spacing and drop every second."""
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
                with contextlib.suppress(OSError):  # costs room, no more; begin anew and it goes
                    (self.folder / name).unlink(missing_ok=True)

    def look(self, row: Mapping[str, float | None]) -> None:
        """Add a row, in the place of one of the same step; what was not measured is NaN."""
        if self.looks["step"] and self.looks["step"][-1] == row["step"]:
            for column in self.looks.values():
                column.pop()
        for c, column in self.looks.items():
            value = row.get(c)
            column.append(math.nan if value is None else float(value))
        if len(self.looks["step"]) > ROWS:
            stay = every_second(len(self.looks["step"]))
            self.looks = {c: [column[k] for k in stay] for c, column in self.looks.items()}

    def save(self, **more: Any) -> None:
        """Write the table, then the index."""
        self._about |= more
        if self.looks["step"]:
            write_table(self.folder / LOOKS, self.looks, SCHEMA)
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
