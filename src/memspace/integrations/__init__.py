"""Recorders for other people's training loops; modules named after a library need it."""
