"""``memspace.forget``: weights as if some examples had not been trained on."""

from __future__ import annotations

from memspace.editing.forget import forget as forget_of_task
from memspace.verbs.verb import verb

__all__ = ["forget"]

forget = verb(forget_of_task)
