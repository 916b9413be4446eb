"""Stages of the work on a zoo: a file each, which registers itself."""
