"""``memspace.reweight``: weights of training examples from a few clean ones."""

from __future__ import annotations

from memspace.editing.reweight import reweight as reweight_of_task
from memspace.verbs.verb import verb

__all__ = ["reweight"]

reweight = verb(reweight_of_task)
