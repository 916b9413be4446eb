"""Rows of the engine's benchmark: one per workload, item and contender, and one per goal."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

__all__ = ["EngineRow", "show", "write"]


@dataclass(frozen=True)
class EngineRow:
    """``seconds`` is a median without eigendecompositions (``apart``); NaN where something failed.

    Args:
        epochs: seconds in training epochs of the same turn; ``low`` and ``high`` the least and most of the repeats, so.
        memory: peak above the start of the item, MiB.
        ratio: the peer's seconds over ours; ``difference``: of our result to the peer's, relative.
        goal: what is asked; ``met`` None where nothing is.
    """

    workload: str
    item: str
    who: str
    seconds: float = math.nan
    apart: float = 0.0
    epochs: float = math.nan
    low: float = math.nan
    high: float = math.nan
    repeats: int = 0
    memory: float = math.nan
    ratio: float = math.nan
    difference: float = math.nan
    goal: str = ""
    met: bool | None = None
    detail: str = ""


def _number(x: float, digits: int = 3) -> str:
    return "" if math.isnan(x) else f"{x:.{digits}g}"


def show(rows: Sequence[EngineRow]) -> None:
    columns = ("", "work", "who", "s", "eig. s", "T_epoch", "least–most", "n", "MiB", "peer/ours", "rel. diff.")
    table = Table(*columns, "goal", "met", "detail")
    for r in rows:
        met = {True: "[green]yes[/]", False: "[red]NO[/]", None: ""}[r.met]
        spread = "" if math.isnan(r.low) else f"{r.low:.3g}–{r.high:.3g}"
        figures = (_number(r.seconds), _number(r.apart) if r.apart else "", _number(r.epochs), spread)
        counts = (str(r.repeats or ""), "" if math.isnan(r.memory) else f"{r.memory:.0f}")
        compared = (_number(r.ratio), _number(r.difference, 2))
        table.add_row(r.workload, r.item, r.who, *figures, *counts, *compared, r.goal, met, r.detail)
    Console(width=190).print(table)


def write(rows: Sequence[EngineRow], facts: dict[str, object], path: Path) -> None:
    """JSON: NaN as null."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def plain(r: EngineRow) -> dict[str, object]:
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(r).items()}

    text = json.dumps({"facts": facts, "rows": [plain(r) for r in rows]}, indent=1, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
