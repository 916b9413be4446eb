"""``memspace.influence``: what each training example adds to each outcome."""

from __future__ import annotations

from memspace.attribution.influence import influence as influence_of_task
from memspace.verbs.verb import verb

__all__ = ["influence"]

influence = verb(influence_of_task)
