"""Stages of a pipeline: a stage is a name and the tensors it computes, so that the caller may store them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.space import ParameterSpace
from memspace.passes.statistic import Statistic
from memspace.task.task import Task

__all__ = ["Keep", "read_tensors", "unkept"]

Keep = Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]]


def unkept(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Run a stage and store nothing.

    Args:
        name: of the stage; a store would file its tensors under it.
        make: computes the stage.

    Returns:
        The stage's tensors by name.
    """
    return make()


def read_tensors(
    task: Task, space: ParameterSpace, statistics: Sequence[Statistic[Any]], options: PassOptions
) -> dict[str, Tensor]:
    """Run one pass and return the tensors of its statistics.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        statistics: what the pass gathers; their tensors have different names.
        options: of the pass.

    Returns:
        The tensors of all statistics by name.
    """
    run_pass(task, space, statistics, options)
    tensors: dict[str, Tensor] = {}
    for statistic in statistics:
        tensors |= statistic.state()
    return tensors
