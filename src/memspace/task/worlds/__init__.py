"""Worlds: images whose generating factors are known, rendered on the fly or read from files.

``world("dsprites")`` gives one by name; ``sampling`` draws its combinations of factor levels.
"""

from __future__ import annotations

from memspace.task.worlds.factor_world import FactorWorld, WorldFactor
from memspace.task.worlds.registry import register_world, world, worlds

__all__ = ["FactorWorld", "WorldFactor", "register_world", "world", "worlds"]
