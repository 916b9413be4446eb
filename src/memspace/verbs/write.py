"""``memspace.write``: weights that store new examples and disturb the rest least."""

from __future__ import annotations

from memspace.editing.write import write as write_of_task
from memspace.verbs.verb import verb

__all__ = ["write"]

write = verb(write_of_task)
