"""Rendering results: never sees a model."""
