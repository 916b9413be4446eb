"""Contracts that extensions are checked by: each raises AssertionError with one sentence on what does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memspace.lazy import lazily

if TYPE_CHECKING:
    from memspace.testing.law import check_law as check_law
    from memspace.testing.layer import check_layer as check_layer
    from memspace.testing.measure import check_measure as check_measure
    from memspace.testing.metric import check_metric as check_metric

_PLACES = {
    "check_law": "memspace.testing.law",
    "check_layer": "memspace.testing.layer",
    "check_measure": "memspace.testing.measure",
    "check_metric": "memspace.testing.metric",
}

__all__ = list(_PLACES)
__getattr__, __dir__ = lazily(globals(), _PLACES)
