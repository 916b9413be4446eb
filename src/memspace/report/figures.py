"""From figure data to plotly: plain dictionaries, so that what would be drawn can be tested."""

from __future__ import annotations

from typing import Any

from memspace.audit.results import Figure, Series

__all__ = ["PALETTE", "to_plotly"]

# Okabe & Ito's colour-blind safe hues, in an order that keeps neighbours apart in light and dark.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d1f", "#56b4e9")


def to_plotly(figure: Figure) -> dict[str, Any]:
    """``{"data": [...], "layout": {...}}``; colours of text and grid are left to the page's theme."""
    data: list[dict[str, Any]] = []
    for k, s in enumerate(figure.series):
        colour = PALETTE[k % len(PALETTE)]
        if s.low is not None and s.high is not None and s.mode == "line":
            data += _band(s, colour)
        data.append(_trace(s, colour))
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": figure.x_label}, "type": _axis(figure, "x"), "automargin": True},
        "yaxis": {"title": {"text": figure.y_label}, "type": _axis(figure, "y"), "automargin": True},
        "showlegend": len(figure.series) > 1,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "margin": {"l": 60, "r": 16, "t": 40, "b": 50},
        "hovermode": "closest",
        "barmode": "group",
        "shapes": [],
        "annotations": [],
    }
    for x, label in figure.marks:
        at = _log10(x) if figure.x_scale == "log" else x
        layout["shapes"].append(
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": x,
                "x1": x,
                "y0": 0,
                "y1": 1,
                "line": {"dash": "dot", "width": 1.5, "color": "#888"},
            }
        )
        layout["annotations"].append(
            {
                "xref": "x",
                "yref": "paper",
                "x": at,
                "y": 0.98,
                "text": _escape(label),
                "showarrow": False,
                "xanchor": "left",
                "xshift": 4,
                "yanchor": "top",
            }
        )
    return {"data": data, "layout": layout}


def _axis(figure: Figure, which: str) -> str:
    values = [v for s in figure.series for v in (s.x if which == "x" else s.y)]
    if any(isinstance(v, str) for v in values):
        return "category"
    return figure.x_scale if which == "x" else figure.y_scale


def _log10(x: float) -> float:
    from math import log10

    return log10(x) if x > 0 else x


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _trace(s: Series, colour: str) -> dict[str, Any]:
    text = [_escape(t) for t in s.text] if s.text is not None else None
    x = [_escape(v) if isinstance(v, str) else v for v in s.x]
    common: dict[str, Any] = {"name": _escape(s.name), "x": x, "y": list(s.y)}
    if text is not None:
        common |= {"text": text, "hovertemplate": "%{text}<br>%{x}, %{y}<extra></extra>"}
    if s.mode == "bar":
        return common | {"type": "bar", "marker": {"color": colour}, "textposition": "none"}
    if s.mode == "points":
        error = _error(s)
        return (
            common
            | {"type": "scatter", "mode": "markers", "marker": {"color": colour, "size": 6, "opacity": 0.75}}
            | error
        )
    return common | {
        "type": "scatter",
        "mode": "lines+markers" if len(s.x) <= 40 else "lines",
        "line": {"color": colour, "width": 2},
        "marker": {"size": 5},
    }


def _error(s: Series) -> dict[str, Any]:
    if s.low is None or s.high is None:
        return {}
    up = [h - y for h, y in zip(s.high, s.y, strict=True)]
    down = [y - low for low, y in zip(s.low, s.y, strict=True)]
    return {"error_y": {"type": "data", "array": up, "arrayminus": down, "thickness": 1}}


def _band(s: Series, colour: str) -> list[dict[str, Any]]:
    assert s.low is not None
    assert s.high is not None
    r, g, b = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    edge = {
        "type": "scatter",
        "mode": "lines",
        "line": {"width": 0},
        "showlegend": False,
        "hoverinfo": "skip",
    }
    return [
        edge | {"x": list(s.x), "y": list(s.low)},
        edge | {"x": list(s.x), "y": list(s.high), "fill": "tonexty", "fillcolor": f"rgba({r},{g},{b},0.18)"},
    ]
