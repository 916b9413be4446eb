"""Measures: pure functions from metrics and outputs to numbers with unit and error."""
