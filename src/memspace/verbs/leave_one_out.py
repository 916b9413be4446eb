"""``memspace.leave_one_out``: every prediction as if its example had not been trained on."""

from __future__ import annotations

from memspace.auditing.leave_one_out import leave_one_out as leave_one_out_of_task
from memspace.verbs.verb import verb

__all__ = ["leave_one_out"]

leave_one_out = verb(leave_one_out_of_task)
