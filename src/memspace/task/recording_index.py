"""The content that ``trajectory.json`` must have, checked before it is used: a file may hold anything."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

from memspace.task.likelihood import law_from_dict

__all__ = ["wrong_index"]

MOST_STEPS = 10**15
MOST_EXAMPLES = 10**9


def _whole(value: Any, least: int = 0, most: int = MOST_STEPS) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value)
    )


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def wrong_index(index: Any) -> str:
    """Say in a few words what is wrong with the content of an index.

    Args:
        index: as JSON gives it.

    Returns:
        The fault; empty where there is none.
    """
    if not isinstance(index, dict):
        return "it is no object"
    for key, fits in _PARTS.items():
        if key not in index:
            return f"it lacks {key!r}"
        if not fits(index[key]):
            return f"its {key!r} is not what a recorder writes"
    if "optimiser" in index and not isinstance(index["optimiser"], str):
        return "its 'optimiser' is not what a recorder writes"
    if not _whole(index.get("slope_examples", 0), 0, MOST_EXAMPLES):
        return "its 'slope_examples' is not what a recorder writes"
    if not _expected(index.get("expected_gap", [])):
        return "its 'expected_gap' is not what a recorder writes"
    checkpoints = index["checkpoints"]
    if not all(a["step"] < b["step"] for a, b in itertools.pairwise(checkpoints)):
        return "the steps of its checkpoints do not increase"
    if not all(a["time"] <= b["time"] for a, b in itertools.pairwise(checkpoints)):
        return "the times of its checkpoints go back"
    return ""


def _checkpoints(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(c, dict) and _whole(c.get("step")) and _number(c.get("time")) for c in value)
    )


def _expected(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(e, dict)
        and _number(e.get("moment"))
        and e["moment"] > 0
        and _whole(e.get("step"))
        and isinstance(e.get("text"), str)
        and ("as_told" not in e or _as_told(e["as_told"]))
        for e in value
    )


def _as_told(value: Any) -> bool:
    return isinstance(value, dict) and "as_told" not in value and _expected([value])


def _law(value: Any) -> bool:
    if not (
        isinstance(value, dict) and isinstance(value.get("kind"), str) and isinstance(value.get("arguments"), dict)
    ):
        return False
    try:
        law_from_dict(value)
    except ValueError:
        return False
    return True


def _probe(value: Any) -> bool:
    if not (isinstance(value, dict) and isinstance(value.get("fingerprint"), str)):
        return False
    return _whole(value.get("examples"), 1, MOST_EXAMPLES) and _whole(value.get("of"), value["examples"])


def _settings(value: Any) -> bool:
    return isinstance(value, dict) and _positive(value.get("spacing"))


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _seconds(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return not value or all(_number(value.get(k)) for k in ("training", "watching"))


_PARTS: Mapping[str, Callable[[Any], bool]] = {
    "model": lambda v: isinstance(v, str),
    "law": _law,
    "probe": _probe,
    "settings": _settings,
    "spacing": _positive,
    "finished": lambda v: isinstance(v, bool),
    "fault": lambda v: isinstance(v, str),
    "seconds": _seconds,
    "aliases": _texts,
    "checkpoints": _checkpoints,
}
