"""From figure data to plotly: plain dictionaries, so that what would be drawn can be tested."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from textwrap import wrap
from typing import Any

from memspace.auditing.results import Figure, Series

__all__ = ["PALETTE", "PALETTE_DARK", "to_plotly"]

# After Okabe & Ito's colour-blind safe hues; each at least 3:1 against its page's card. Neighbours differ in
# lightness too, so that they stay apart in print.
PALETTE = ("#0072b2", "#c95700", "#00845f", "#b8578f", "#7a5f10", "#5b5b9f")
PALETTE_DARK = ("#56b4e9", "#f0a35e", "#2fbf94", "#e79ac6", "#d9c04a", "#b5b9ff")


def to_plotly(figure: Figure) -> dict[str, Any]:
    """Make the plotly figure of a figure's data, in light hues; the page recolours by ``trace.meta.hue`` and its theme.

    Args:
        figure: the data.

    Returns:
        ``{"data": [...], "layout": {...}}`` of plain types.
    """
    data: list[dict[str, Any]] = []
    for k, s in enumerate(figure.series):
        hue = k % len(PALETTE)
        if s.low is not None and s.high is not None and s.mode == "line":
            data += _band(s, hue, k)
        data.append(_trace(s, hue, k))
    legend = len(figure.series) > 1
    layout: dict[str, Any] = {
        "xaxis": _axis(figure, "x"),
        "yaxis": _axis(figure, "y"),
        "showlegend": legend,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        "margin": {"l": 60, "r": 16, "t": 64 if legend else 36, "b": 50},
        "hovermode": "closest",
        "barmode": "group",
        "bargap": 0.35,
        "shapes": [],
        "annotations": [],
    }
    shown = [m for m in figure.marks if _place(m[0], figure.x_scale) is not None]
    if shown:
        layout["xaxis"] |= _range(figure, [x for x, _ in shown])
    above = 0
    for x, label in sorted(shown):
        words = wrap(label, 16) or [""]  # short lines, for narrow screens
        layout["shapes"].append(_line(x))
        layout["annotations"].append(_label(figure, x, words, above))
        above = (above + len(words)) % 8
    return {"data": data, "layout": layout}


def _finite(value: Any) -> Any:
    """Text as it is; a number that cannot be drawn as None, which plotly leaves out."""
    if isinstance(value, str):
        return escape(value)
    return value if value is not None and math.isfinite(value) else None


def _place(value: Any, scale: str) -> float | None:
    """Where a number stands on an axis; None where it cannot stand."""
    if isinstance(value, str) or _finite(value) is None or (scale == "log" and value <= 0):
        return None
    return math.log10(value) if scale == "log" else float(value)


def _values(figure: Figure, which: str) -> list[Any]:
    return [v for s in figure.series for v in (s.x if which == "x" else s.y)]


def _axis(figure: Figure, which: str) -> dict[str, Any]:
    title = figure.x_label if which == "x" else figure.y_label
    scale = figure.x_scale if which == "x" else figure.y_scale
    axis: dict[str, Any] = {
        "title": {"text": escape(title), "standoff": 10},
        "type": scale,
        "automargin": True,
        "exponentformat": "power",
        "separatethousands": True,
    }
    values = _values(figure, which)
    if any(isinstance(v, str) for v in values):
        return axis | {"type": "category"}
    if scale == "log":
        axis |= _log_ticks([p for v in values if (p := _place(v, "log")) is not None])
    return axis


def _log_ticks(places: Sequence[float]) -> dict[str, Any]:
    """A tick per decade (or every few); within a decade or so also at 2 and 5, in plain decimals where short."""
    low, high = (min(places), max(places)) if places else (0.0, 1.0)
    if high - low > 1.6:
        return {"dtick": max(1, math.ceil((high - low) / 4.5))}
    plain = low > -4 and high < 5
    return {"dtick": "D2", "exponentformat": "none" if plain else "power"}


def _line(x: float) -> dict[str, Any]:
    line = {"dash": "dot", "width": 1.5, "color": "#777777"}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line}


def _range(figure: Figure, marks: Sequence[float]) -> dict[str, Any]:
    """The data and the marks; left to itself the plotting library would also make room for the marks' words."""
    positions = [_place(v, figure.x_scale) for v in (*_values(figure, "x"), *marks)]
    places = [p for p in positions if p is not None]
    low, high = min(places), max(places)
    pad = 0.05 * (high - low) or 0.5
    return {"range": [low - pad, high + pad]}


def _label(figure: Figure, x: float, words: Sequence[str], above: int) -> dict[str, Any]:
    """The words of a mark, towards the middle of the plot and below the lines of the marks before it."""
    at = _place(x, figure.x_scale)
    assert at is not None
    places = [p for v in _values(figure, "x") if (p := _place(v, figure.x_scale)) is not None]
    right = bool(places) and at > (min(places) + max(places)) / 2
    return {
        "xref": "x",
        "yref": "paper",
        "x": at,
        "y": 0.99 - 0.08 * above,
        "text": "<br>".join(escape(line) for line in words),
        "align": "right" if right else "left",
        "showarrow": False,
        "xanchor": "right" if right else "left",
        "xshift": -4 if right else 4,
        "yanchor": "top",
        "borderpad": 1,
    }


def _trace(s: Series, hue: int, k: int) -> dict[str, Any]:
    colour = PALETTE[hue]
    trace: dict[str, Any] = {
        "name": escape(s.name),
        "x": [_finite(v) for v in s.x],
        "y": [_finite(v) for v in s.y],
        "meta": {"hue": hue},
        "legendgroup": f"series-{k}",
        "hovertemplate": "%{x}<br><b>%{y:.4~g}</b>",
    }
    if s.text is not None:
        trace |= {"text": [escape(t) for t in s.text], "hovertemplate": "%{text}<br>" + trace["hovertemplate"]}
    if s.low is not None and s.high is not None:
        trace["customdata"] = [[_finite(a), _finite(b)] for a, b in zip(s.low, s.high, strict=True)]
        trace["hovertemplate"] += "<br>95%: %{customdata[0]:.3~g} to %{customdata[1]:.3~g}"
    trace["hovertemplate"] += "<extra>%{fullData.name}</extra>"
    if s.mode == "bar":
        return trace | {"type": "bar", "marker": {"color": colour}, "textposition": "none"} | _error(s)
    if s.mode == "points":
        style = {"color": colour, "size": 6, "opacity": 0.75}
        return trace | {"type": "scatter", "mode": "markers", "marker": style} | _error(s)
    return trace | {
        "type": "scatter",
        "mode": "lines+markers" if len(s.x) <= 40 else "lines",
        "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 5},
    }


def _error(s: Series) -> dict[str, Any]:
    if s.low is None or s.high is None:
        return {}
    up, down = _gaps(s.y, s.high), _gaps(s.low, s.y)
    style = {"thickness": 1.2, "width": 3, "color": "#777777"}
    return {"error_y": {"type": "data", "array": up, "arrayminus": down, **style}}


def _gaps(lower: Sequence[float], upper: Sequence[float]) -> list[float | None]:
    pairs = ((_finite(a), _finite(b)) for a, b in zip(lower, upper, strict=True))
    return [None if a is None or b is None else b - a for a, b in pairs]


def _band(s: Series, hue: int, k: int) -> list[dict[str, Any]]:
    """Two invisible edges and the fill between them; hidden together with their line."""
    assert s.low is not None
    assert s.high is not None
    r, g, b = (int(PALETTE[hue][i : i + 2], 16) for i in (1, 3, 5))
    edge = {
        "type": "scatter",
        "mode": "lines",
        "line": {"width": 0},
        "showlegend": False,
        "hoverinfo": "skip",
        "legendgroup": f"series-{k}",
        "meta": {"hue": hue},
        "x": [_finite(v) for v in s.x],
    }
    return [
        edge | {"y": [_finite(v) for v in s.low]},
        edge | {"y": [_finite(v) for v in s.high], "fill": "tonexty", "fillcolor": f"rgba({r},{g},{b},0.18)"},
    ]
