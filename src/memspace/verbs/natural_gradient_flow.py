"""``memspace.natural_gradient_flow``: the path that natural gradient takes in continuous time."""

from __future__ import annotations

from memspace.action.natural import natural_gradient_flow as flow_of_task
from memspace.verbs.verb import verb

__all__ = ["natural_gradient_flow"]

natural_gradient_flow = verb(flow_of_task)
