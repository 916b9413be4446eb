"""Polars, imported when a table of networks is first needed: the package starts without it."""

from __future__ import annotations

from typing import Any

from memspace.errors import MissingPackageError

__all__ = ["polars"]


def polars() -> Any:
    """Import polars.

    Returns:
        The module.

    Raises:
        MissingPackageError: polars is not installed.
    """
    try:
        import polars as module
    except ImportError:
        raise MissingPackageError(
            "tables of networks need polars, which is not installed",
            where="memspace",
            remedy="pip install 'memspace[zoo]'",
        ) from None
    return module
