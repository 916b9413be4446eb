"""A figure of lines as a plain SVG file, so that documentation needs neither a browser nor a drawing library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

__all__ = ["Line", "draw"]

COLOURS = ("#1b6ca8", "#c8553d", "#3c8d5a", "#8a5aa8", "#b8860b", "#4a4a4a")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 400, 70, 190, 46, 56


@dataclass(frozen=True)
class Line:
    """One named line through points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def draw(path: Path, title: str, across: str, up: str, lines: Sequence[Line], logs: tuple[bool, bool]) -> None:
    """Write the figure; ``logs``: logarithmic axes, on which points that are not positive are left out."""
    kept = [
        [(a, b) for a, b in zip(line.x, line.y, strict=True) if _fits(a, logs[0]) and _fits(b, logs[1])]
        for line in lines
    ]
    points = [p for each in kept for p in each]
    spans = [_span([p[i] for p in points], logs[i]) for i in (0, 1)]
    inner = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)

    def place(a: float, b: float) -> tuple[float, float]:
        u, v = (_share(value, spans[i], logs[i]) for i, value in enumerate((a, b)))
        return LEFT + u * inner[0], TOP + (1 - v) * inner[1]

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 24, title, size=15),
    ]
    for tick in _ticks(spans[0], logs[0]):
        x, _ = place(tick, spans[1][0])
        out.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{TOP + inner[1]}" stroke="#e5e5e5"/>')
        out.append(_text(x, TOP + inner[1] + 18, f"{tick:g}", anchor="middle"))
    for tick in _ticks(spans[1], logs[1]):
        _, y = place(spans[0][0], tick)
        out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + inner[0]}" y2="{y:.1f}" stroke="#e5e5e5"/>')
        out.append(_text(LEFT - 8, y + 4, f"{tick:g}", anchor="end"))
    out.append(_text(LEFT + inner[0] / 2, HEIGHT - 14, across, anchor="middle"))
    out.append(
        f'<g transform="rotate(-90 16 {TOP + inner[1] / 2})">{_text(16, TOP + inner[1] / 2, up, anchor="middle")}</g>'
    )
    for i, (line, each) in enumerate(zip(lines, kept, strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        dashed = ' stroke-dasharray="6 4"' if i >= len(COLOURS) else ""
        at = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*p) for p in each))
        out.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>')
        y, left = TOP + 14 + 20 * i, WIDTH - RIGHT + 14
        key = f'<line x1="{left}" y1="{y - 4}" x2="{left + 22}" y2="{y - 4}" stroke="{colour}"'
        out.append(f'{key} stroke-width="2"{dashed}/>')
        out.append(_text(WIDTH - RIGHT + 42, y, line.name))
    path.write_text("\n".join([*out, "</svg>"]) + "\n", encoding="utf-8")


def _fits(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _span(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high <= low:
        high = low * 2 if low > 0 else low + 1
    return (low, high) if log else (min(0.0, low), high * 1.05)


def _share(value: float, span: tuple[float, float], log: bool) -> float:
    low, high = (math.log(s) for s in span) if log else span
    return ((math.log(value) if log else value) - low) / (high - low)


def _ticks(span: tuple[float, float], log: bool) -> list[float]:
    if log:
        powers = range(math.floor(math.log10(span[0])), math.ceil(math.log10(span[1])) + 1)
        found = [m * 10.0**k for k in powers for m in (1, 3) if span[0] <= m * 10.0**k <= span[1]]
        return found if len(found) >= 2 else [span[0], span[1]]
    step = 10.0 ** math.floor(math.log10((span[1] - span[0]) / 4))
    step *= next(m for m in (1, 2, 5, 10) if (span[1] - span[0]) / (m * step) <= 6)
    return [k * step for k in range(math.ceil(span[0] / step), math.floor(span[1] / step) + 1)]


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#222">{escape(text)}</text>'
