"""``memspace.distil``: a training set condensed into a few synthetic examples."""

from __future__ import annotations

from memspace.editing.distil import distil as distil_of_task
from memspace.verbs.verb import verb

__all__ = ["distil"]

distil = verb(distil_of_task)
