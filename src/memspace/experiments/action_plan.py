"""A plan of interventions, declared in one TOML file: which data, which arms, read at which training loss."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from memspace.arguments import check_fields
from memspace.auditing.decode import decode
from memspace.errors import SettingsError
from memspace.experiments.action_methods import method
from memspace.limits import COUNT, POSITIVE, SEVERAL, SHARE, SIZE

__all__ = ["PLAN", "Arm", "Workload", "read_plan"]

PLAN = Path(__file__).parent / "declared" / "action.toml"


@dataclass(frozen=True)
class Arm:
    """How the networks of one arm are trained.

    Args:
        rate: learning rate to begin with.
        strength: of the method.
        steps: number of steps.

    Raises:
        SettingsError: a number is out of its range.
    """

    rate: Annotated[float, POSITIVE]
    strength: Annotated[float, SIZE]
    steps: Annotated[int, COUNT]

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Workload:
    """Data on which all arms are trained, and the training loss at which they are compared.

    Args:
        family: its name in the table; claims are judged within it.
        task: a built-in name, or ``module:attribute``.
        level: the training loss, nats.
        arms: by the name of a method of the study.
        noise: share of the training labels made wrong.
        train: training examples of a seed; None: four fifths of the pool.
        valid: validation examples of a seed; None: one fifth of the pool.
        test: at most so many test examples; None: all.

    Raises:
        SettingsError: a number is out of its range, or there is no arm.
        TaskError: an arm is no method of the study.
    """

    family: str
    task: str
    level: Annotated[float, POSITIVE]
    arms: Mapping[str, Arm]
    noise: Annotated[float, SHARE] = 0.0
    train: Annotated[int | None, SEVERAL] = None
    valid: Annotated[int | None, COUNT] = None
    test: Annotated[int | None, COUNT] = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.arms:
            raise SettingsError("it has no arm", where=f"workload {self.family!r}", remedy="add methods to its arms")
        for name in self.arms:
            method(name)


def read_plan(path: str | Path = PLAN) -> tuple[Workload, ...]:
    """Read the declaration of a plan.

    Args:
        path: of the file; the package's own unless given.

    Returns:
        Its workloads.

    Raises:
        SettingsError: it cannot be read, or says something that is not known or out of range.
        TaskError: an arm is no method of the study.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        return _workloads(content)
    except SettingsError as error:
        raise SettingsError(error.what, where=f"{path}, {error.where}", remedy=error.remedy) from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:150]
        raise SettingsError(
            f"the plan cannot be read: {reason}", where=str(path), remedy=f"compare it with {PLAN.name} of the package"
        ) from error


def _workloads(content: Mapping[str, Any]) -> tuple[Workload, ...]:
    listed = content.get("workload")
    if set(content) != {"workload"} or not isinstance(listed, list) or not listed:
        raise ValueError("it is no list of [[workload]]")
    optional = {f.name: f.default for f in dataclasses.fields(Workload) if f.default is not dataclasses.MISSING}
    workloads = tuple(decode(Workload, optional | w, f"workload {k + 1}") for k, w in enumerate(listed))
    if len({w.family for w in workloads}) < len(workloads):
        raise ValueError("two workloads have the same family")
    return workloads
