"""Benchmarks: measured anew each time, goals beside figures."""
