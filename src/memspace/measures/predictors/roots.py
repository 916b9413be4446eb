"""The form in which complexities are compared: ln √(μ/n), the root of a bound on the gap, as a logarithm."""

from __future__ import annotations

import math

from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["log_root", "log_root_of"]


def log_root(complexity: float, task: Task, further: float = 0.0) -> Value | Absent:
    """Compute ½ (ln μ + further − ln n), as Dziugaite et al. 2020 scale a complexity by the number of examples.

    Args:
        complexity: μ, not negative.
        task: of n training examples.
        further: logarithm of what μ is multiplied by.

    Returns:
        a pure number, exact for these weights and data; absent where μ is zero.
    """
    if complexity > 0:
        return log_root_of(math.log(complexity) + further, task)
    return Absent("it is zero, and has no logarithm", "train the network: nothing has moved")


def log_root_of(log_complexity: float, task: Task) -> Value:
    """Compute ½ (ln μ − ln n) from ln μ, which may be of a product too large for a number.

    Args:
        log_complexity: ln μ.
        task: of n training examples.

    Returns:
        a pure number, exact for these weights and data.
    """
    n = len(task.train)
    return Value((log_complexity - math.log(n)) / 2, n)
