"""Built-in tasks: small networks on real or rendered data, trained here, so that an audit's claims can be checked."""

from __future__ import annotations

from memspace.task.builtin.options import BuildOptions
from memspace.task.builtin.registry import build, builtin, builtin_tasks
from memspace.task.builtin.trained import Ingredients, trained_task

__all__ = ["BuildOptions", "Ingredients", "build", "builtin", "builtin_tasks", "trained_task"]
