"""The page on a recorded training, from its folder alone: no model and no data are needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from memspace.action.training import TrainingAction
from memspace.auditing.chapters.live import LIVE
from memspace.auditing.chapters.path import PATH, RecordedPath, recorded_path
from memspace.auditing.page import make_page
from memspace.auditing.results import Results
from memspace.measures.workspace import Workspace
from memspace.task.recording import Recording
from memspace.value import Absent

__all__ = ["RECORDING", "recording_results"]

RECORDING = (PATH, LIVE)


def recording_results(found: Recording, settings: Mapping[str, Any]) -> Results:
    """Put on a page what a recorded training tells about itself.

    Args:
        found: the recording.
        settings: what reproduces the page.

    Returns:
        the path between checkpoints, the numbers seen while it ran, and their table.

    Raises:
        RunFolderError: the folder is damaged.
    """
    path = recorded_path(found)
    action = path if isinstance(path, Absent) else path.action
    return make_page(
        found.folder.resolve().name,
        RECORDING,
        Workspace({Recording: found, RecordedPath: path, TrainingAction: action}),
        facts=_facts(found),
        settings=settings,
        plan="read from the folder",
    )


def _facts(found: Recording) -> dict[str, str]:
    index, run = found.index, found.run
    probe, seconds = index["probe"], index["seconds"]
    facts = {
        "model": str(index["model"]),
        "output law": str(index["law"]["kind"]).lower(),
        "training examples": f"{probe['of']:,}",
        "probe examples": f"{probe['examples']:,}",
        "checkpoints": f"{len(run.states)}, steps {run.step[0]:,} to {run.step[-1]:,}",
        "spacing of checkpoints": f"{index['spacing']:.3g} nats^½",
        "looks in the table": f"{len(found.looks.get('step', ())):,}",
        "finished": "yes" if index["finished"] else "no: the process ended before the recorder was closed",
    }
    sigma = None if found.law is None else found.law.scale(torch.zeros(()))
    if sigma is not None:
        facts["σ"] = _told_sigma(sigma)
    for early in index.get("expected_gap", ()):
        facts[f"to expect, at {early['moment']:.0%} of the training"] = f"step {early['step']:,}: {early['text']}"
    if seconds:
        facts["cost of watching"] = f"{seconds['watching']:.2f} s next to {seconds['training']:.1f} s of training"
    return facts


def _told_sigma(sigma: torch.Tensor) -> str:
    """The σ that lengths are in units of: with 1, as ``Gaussian()`` stands for here, that is the targets' unit."""
    if sigma.eq(1).all():
        return "1: lengths are in the targets' unit, where an audit that fits σ divides them by it"
    return "as given, for lengths and losses"
