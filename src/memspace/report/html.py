"""One self-contained page that opens offline."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from memspace.auditing.results import Chapter, Finding, Results, clean
from memspace.bibliography import cite, references
from memspace.format import format_interval, format_value, plain
from memspace.measurement import Measurement
from memspace.report.figures import PALETTE, PALETTE_DARK, to_plotly

__all__ = ["AUDIT", "COMPARISON", "RECORDING", "Page", "render"]


@dataclass(frozen=True)
class _Headline:
    """A number at the head of the page, with its meaning in plain words."""

    label: str
    number: str
    unit: str
    gloss: str
    chapter: str
    reliable: bool


@dataclass(frozen=True)
class Page:
    """The words of a page that depend on what is reported.

    Args:
        title: of the window, after the results' name.
        heading: of the page, before the results' name.
        done: what was done on the day.
        headlines: numbers at the head, where they were measured, as (name, label, meaning).
        words: what the levels of findings are called, where not by the usual words.
        lead: the sentence on top, of the findings; None: how many call for attention.
        downloads: whether the page offers its tables as files.
    """

    title: str
    heading: str
    done: str
    headlines: tuple[tuple[str, str, str], ...]
    words: Mapping[str, str] = field(default_factory=dict)
    lead: Callable[[Sequence[Finding]], str] | None = None
    downloads: bool = False


HEADLINES = (
    ("generalisation.loo_estimate", "Test loss to expect", "Estimated from training data alone."),
    ("generalisation.test_accuracy", "Test accuracy", "Share of unseen examples it gets right."),
    ("labels.noise", "Labels that look wrong", "Share of the training labels."),
    ("complexity.information", "Information held", "What the weights keep of the training data."),
    ("complexity.effective_parameters", "Effective parameters", "How many the data really determine."),
    ("efficiency.smallest_share", "Weights needed", "The others can be cut for at most 1% accuracy."),
    (
        "robustness.sigma_one_percent",
        "Weight noise at 1% accuracy loss",
        "Random shift of every weight.",
    ),
    ("action.inefficiency", "Length of training", "Path travelled over the shortest possible."),
)
AUDIT = Page("memory audit", ", read as a memory", "audited", HEADLINES)
COMPARISON = Page(
    "comparison",
    ", compared",
    "compared",
    (
        ("compare.lower_bound", "Least distance", "No path between the two networks is shorter."),
        ("compare.length_found", "Shortest path found", "Its length over their predictions."),
        ("compare.straight_line_length", "Straight line", "Length of averaging the weights step by step."),
        ("barrier.line.training", "Barrier", "Rise of the loss on the straight line."),
        ("barrier.geodesic.training", "Barrier on the path", "Rise of the loss on the path found."),
        ("compare.disagreement", "Disagreement", "Share of examples the two put into different classes."),
    ),
)
RECORDING = Page(
    "recorded training",
    ", its training",
    "read",
    (
        ("watch.length", "Length", "Path of its predictions, by a fixed ruler."),
        ("action.inefficiency", "Over the shortest", "Path of the checkpoints over the distance of its ends."),
        ("action.loss_bought", "Loss bought", "On the probe examples."),
        ("watch.excess", "Action excess", "Spent beyond the loss bought."),
        ("watch.effective_dimension", "Effective dimension", "At the last reading."),
        ("watch.leave_one_out_gap", "Leave-one-out gap", "Expected rise of the loss on new examples."),
    ),
)
_ORDER = {"bad": 0, "warn": 1, "good": 2, "note": 3}
_WORDS = {"bad": "Act on this", "warn": "Watch", "good": "Good", "note": "Info"}


def render(results: Results, kind: Page = AUDIT) -> str:
    """Render results as one self-contained page of about five megabytes, which contains the plotting library.

    Args:
        results: what is shown.
        kind: words of the page.

    Returns:
        HTML.
    """
    environment = Environment(
        loader=PackageLoader("memspace.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {
        "value": format_value,
        "interval": format_interval,
        "plain": plain,
        "png": png,
        "cite": cite,
        "references": references,
        "word": lambda level: kind.words.get(level, _WORDS.get(level, level)),
    }
    environment.filters["capitalize_first"] = _capitalised
    environment.filters["breakable"] = _breakable
    environment.filters["actionable"] = lambda text: text.strip(" .").lower() not in ("", "nothing to do")
    every = (f for c in results.chapters for f in c.findings)
    findings = sorted(every, key=lambda f: (not f.first, _ORDER.get(f.level, 9)))
    figures = {f"{c.id}-{f.id}": to_plotly(f) for c in results.chapters for f in c.figures}
    data = {"palette": {"light": PALETTE, "dark": PALETTE_DARK}, "figures": figures}
    page = environment.get_template("report.html.j2")
    return page.render(
        r=results,
        findings=findings,
        leading=(kind.lead or _leading)(findings),
        downloads=_downloads(results) if kind.downloads else [],
        kind=kind,
        byline=_byline(results, kind.done),
        headlines=_headlines(results, kind.headlines),
        titles={c.id: c.title for c in results.chapters},
        data=Markup(_script_json(data)),
        plotly=Markup(get_plotlyjs()),
        rows=[(c, m) for c in results.chapters for m in c.measurements],
        absent=[(c, u) for c in results.chapters for u in c.unmeasured],
        works=sorted({work for c in results.chapters for m in c.measurements for work in references(m.source)}),
        command=_command(results),
    )


def _capitalised(text: str) -> str:
    """As a sentence begins; the trace and symbols in Greek keep their small letters."""
    return text if text.startswith("tr ") or not text[:1].isascii() else text[:1].upper() + text[1:]


def _breakable(name: str) -> Markup:
    """A dotted name that may break where its parts meet."""
    return Markup(str(escape(name)).replace(".", ".<wbr>").replace("_", "_<wbr>"))


def _leading(findings: Sequence[Finding]) -> str:
    urgent = sum(f.level in ("bad", "warn") for f in findings)
    if urgent == 0:
        return "Nothing calls for action."
    call = "finding calls" if urgent == 1 else "findings call"
    return f"{urgent} {call} for attention, first of all: {findings[0].title.rstrip('.')}."


def _byline(results: Results, done: str) -> str:
    """Model, its size, the data and the day, as far as they are known."""
    known = results.facts
    parts = [known.get("model", "")]
    for name in ("parameters", "training examples", "test examples"):
        if known.get(name, "")[:1].isdigit():
            parts.append(f"{known[name]} {name}")
    return " · ".join(p for p in (*parts, f"{done} {results.created[:10]}") if p)


def _headlines(results: Results, wanted: tuple[tuple[str, str, str], ...]) -> list[_Headline]:
    measured: dict[str, tuple[Chapter, Measurement]] = {
        m.name: (c, m) for c in results.chapters for m in c.measurements
    }
    out = []
    for name, label, gloss in wanted:
        if name not in measured:
            continue
        c, m = measured[name]
        unit = "" if m.unit == "1" else m.unit
        if not math.isfinite(m.value):
            number, unit = plain(m.value), ""
        elif m.shown == "share":
            number, unit = f"{100 * m.value:.1f}%", ""
        elif m.shown == "ratio":
            number = f"{format_value(m)}×"
        else:
            number = format_value(m)
        out.append(_Headline(label, number, unit, gloss, c.id, m.reliable))
    return out


def _downloads(results: Results) -> list[tuple[str, str]]:
    """The tables as CSV files inside the page: name and data URL of each."""
    offered = []
    for name, columns in results.tables.items():
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(columns)
        writer.writerows(zip(*clean(dict(columns)).values(), strict=True))
        offered.append((f"{name}.csv", "data:text/csv;base64," + base64.b64encode(text.getvalue().encode()).decode()))
    return offered


def _command(results: Results) -> str:
    """The command line that made the results, or the call where there was none."""
    call = "memspace.audit(model, train, test)  # called from Python, with the settings below"
    return str(results.settings.get("command") or call)


def _script_json(value: Any) -> str:
    """JSON that is safe inside a script element."""
    text = json.dumps(clean(value), separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")


def png(picture: Sequence[Sequence[Any]]) -> Markup:
    """Encode a picture as an inline PNG.

    Args:
        picture: rows of grey values or of (r, g, b), 0..1.

    Returns:
        a data URL.
    """
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
