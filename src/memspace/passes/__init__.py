"""Passes over the data: hooks that read a network's signals, and the statistics they stream into."""
