"""Goals and figures: one table, one JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

__all__ = ["Row", "at_least", "at_most", "mean_interval", "show", "write"]


@dataclass(frozen=True)
class Row:
    """One quantity with its goal; ``met`` is None where there is no goal, ``value`` NaN where nothing was measured."""

    part: str
    quantity: str
    goal: str
    value: float
    low: float | None
    high: float | None
    met: bool | None
    detail: str = ""


def mean_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean and a 95% Student interval over seeds."""
    from scipy.stats import t

    x = np.asarray(values, dtype=float)
    if len(x) < 2:
        return float(x.mean()), None, None
    half = float(t.ppf(0.975, len(x) - 1)) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return float(x.mean()), float(x.mean()) - half, float(x.mean()) + half


def at_least(part: str, quantity: str, values: Sequence[float], goal: float, detail: str = "") -> Row:
    mean, low, high = mean_interval(values)
    return Row(part, quantity, f"≥ {goal:g}", mean, low, high, mean >= goal, detail)


def at_most(part: str, quantity: str, values: Sequence[float], goal: float, detail: str = "") -> Row:
    mean, low, high = mean_interval(values)
    return Row(part, quantity, f"≤ {goal:g}", mean, low, high, mean <= goal, detail)


def show(rows: Sequence[Row]) -> None:
    table = Table("part", "quantity", "goal", "figure", "95% interval", "met", "detail")
    for r in rows:
        interval = "" if r.low is None or r.high is None or math.isnan(r.low) else f"{r.low:.3g} to {r.high:.3g}"
        met = {True: "[green]yes[/]", False: "[red]NO[/]", None: ""}[r.met]
        figure = "–" if math.isnan(r.value) else f"{r.value:.4g}"
        table.add_row(r.part, r.quantity, r.goal, figure, interval, met, r.detail)
    Console(width=170).print(table)


def write(rows: Sequence[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = [{k: _plain(v) for k, v in asdict(r).items()} for r in rows]
    path.write_text(json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def _plain(value: object) -> object:
    """JSON knows neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
