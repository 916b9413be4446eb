"""``memspace.geodesic``: a short path between two networks, with bounds of its length."""

from __future__ import annotations

from memspace.geometry.geodesic import geodesic as geodesic_of_task
from memspace.verbs.verb import verb

__all__ = ["geodesic"]

geodesic = verb(geodesic_of_task)
