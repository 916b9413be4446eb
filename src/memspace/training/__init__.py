"""Trainings repeated: many networks at once, with examples left out or reweighted."""
