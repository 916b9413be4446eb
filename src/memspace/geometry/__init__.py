"""Distances and paths between configurations."""
