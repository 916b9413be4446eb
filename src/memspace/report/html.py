"""One self-contained page that opens offline."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from memspace.audit.results import Chapter, Finding, Results, clean
from memspace.measurement import Measurement
from memspace.report.figures import to_plotly
from memspace.report.format import format_interval, format_value, plain

__all__ = ["render"]

# What a reader sees first, where it was measured: (name, short label).
HEADLINES = (
    ("generalisation.loo_estimate", "Test loss expected from training data"),
    ("generalisation.test_accuracy", "Test accuracy"),
    ("labels.noise", "Labels that look wrong"),
    ("complexity.information", "Information held"),
    ("complexity.effective_parameters", "Effective parameters"),
    ("efficiency.fisher.smallest_share", "Weights needed"),
    ("robustness.sigma_one_percent", "Weight noise that costs 1%"),
    ("action.inefficiency", "Training path over the shortest"),
)
_ORDER = {"bad": 0, "warn": 1, "good": 2, "note": 3}
_WORDS = {"bad": "Act on this", "warn": "Watch", "good": "Good", "note": "Know"}
_SHARES = ("labels.noise", "generalisation.test_accuracy", "efficiency.fisher.smallest_share")


def render(results: Results) -> str:
    """The page, about five megabytes (the plotting library is inside)."""
    environment = Environment(
        loader=PackageLoader("memspace.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {
        "value": format_value,
        "interval": format_interval,
        "plain": plain,
        "png": png,
        "word": _WORDS.__getitem__,
    }
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    findings = sorted((f for c in results.chapters for f in c.findings), key=lambda f: _ORDER.get(f.level, 9))
    figures = {f"{c.id}-{f.id}": to_plotly(f) for c in results.chapters for f in c.figures}
    page = environment.get_template("report.html.j2")
    return page.render(
        r=results,
        findings=findings,
        leading=_leading(findings),
        headlines=_headlines(results),
        titles={c.id: c.title for c in results.chapters},
        figures=Markup(_script_json(figures)),
        plotly=Markup(get_plotlyjs()),
        rows=[(c, m) for c in results.chapters for m in c.measurements],
        absent=[(c, u) for c in results.chapters for u in c.unmeasured],
        command=_command(results),
    )


def _leading(findings: Sequence[Finding]) -> str:
    urgent = sum(f.level in ("bad", "warn") for f in findings)
    if urgent == 0:
        return "Nothing calls for action."
    return f"{urgent} of {len(findings)} findings call for attention."


def _headlines(results: Results) -> list[tuple[str, str, str, str]]:
    measured: dict[str, tuple[Chapter, Measurement]] = {
        m.name: (c, m) for c in results.chapters for m in c.measurements
    }
    out = []
    for name, label in HEADLINES:
        if name not in measured:
            continue
        c, m = measured[name]
        if name in _SHARES:
            out.append((label, f"{100 * m.value:.1f}%", "", c.id))
        else:
            out.append((label, format_value(m), "" if m.unit == "1" else m.unit, c.id))
    return out


def _command(results: Results) -> str:
    return results.settings.get("command") or f"memspace audit {results.name} --seed {results.settings.get('seed', 0)}"


def _script_json(value: Any) -> str:
    """JSON that is safe inside a script element."""
    text = json.dumps(clean(value), separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")


def png(picture: Sequence[Sequence[Any]]) -> Markup:
    """A picture as an inline PNG: rows of grey values or of (r, g, b), 0..1."""
    height, width = len(picture), len(picture[0])
    colour = isinstance(picture[0][0], list | tuple)
    raw = bytearray()
    for row in picture:
        raw.append(0)
        for pixel in row:
            for v in pixel if colour else (pixel,):
                raw.append(max(0, min(255, round(255 * (v or 0.0)))))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2 if colour else 0, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(raw), 9))
        + chunk(b"IEND", b"")
    )
    return Markup("data:image/png;base64," + base64.b64encode(data).decode())
