"""Edits of what a network holds: forget, write, reweight, distil."""
