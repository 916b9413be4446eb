"""``memspace.duplicates``: examples the network takes for one another."""

from __future__ import annotations

from memspace.auditing.duplicates import duplicates as duplicates_of_task
from memspace.verbs.verb import verb

__all__ = ["duplicates"]

duplicates = verb(duplicates_of_task)
