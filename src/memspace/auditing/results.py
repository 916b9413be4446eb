"""The results of an audit: plain data that is stored, rendered and loaded without the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from memspace.auditing.claims import Finding
from memspace.auditing.decode import decode
from memspace.display import Columns, Quantity, Shown
from memspace.measurement import Measurement, Unmeasured

__all__ = ["SCHEMA", "Chapter", "Figure", "Finding", "Gallery", "Item", "Passage", "Results", "Series"]

LEVELS = ("bad", "warn", "good", "note")
SCHEMA = 1  # raised whenever results.json or a table changes incompatibly


@dataclass(frozen=True)
class Series:
    """One line, set of points or bars of a figure.

    Args:
        name: in the legend.
        x: positions, or names of bars.
        y: values.
        mode: ``line``, ``points`` or ``bar``.
        low: lower end of a 95% band.
        high: upper end of a 95% band.
        text: shown on hover, one per point.
    """

    name: str
    x: Sequence[float | str]
    y: Sequence[float]
    mode: str = "line"  # line | points | bar
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    text: Sequence[str] | None = None


@dataclass(frozen=True)
class Figure:
    """Data of one plot.

    Args:
        id: unique in the results.
        title: above the plot.
        caption: below the plot.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        series: what is drawn.
        x_scale: ``linear`` or ``log``.
        y_scale: ``linear`` or ``log``.
        marks: vertical lines, as (x, label).
    """

    id: str
    title: str
    caption: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_scale: str = "linear"
    y_scale: str = "linear"
    marks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Item:
    """One example as shown: a picture, or text.

    Args:
        index: number of the example, as the user counts; negative for what is in no data.
        caption: below it.
        picture: rows of grey values or of (r, g, b), each 0..1; None for text.
        text: where there is no picture.
        flag: a short badge, e.g. ``label 3 → 8``.
    """

    index: int
    caption: str
    picture: Sequence[Sequence[Any]] | None = None
    text: str | None = None
    flag: str = ""  # a short badge, e.g. "label 3 → 8"


@dataclass(frozen=True)
class Gallery:
    """Examples shown together.

    Args:
        id: unique in the results.
        title: above them.
        caption: below the title.
        items: the examples in order.
        query: the one example that the items answer to, shown apart; None without one.
    """

    id: str
    title: str
    caption: str
    items: tuple[Item, ...]
    query: Item | None = None


@dataclass(frozen=True)
class Passage:
    """A text whose words are coloured by what each adds.

    Args:
        id: unique in the results.
        title: above it.
        caption: below the title.
        words: in order.
        values: one a word, of both signs.
        unit: of the values.
    """

    id: str
    title: str
    caption: str
    words: tuple[str, ...]
    values: tuple[float, ...]
    unit: str = "1"

    @property
    def spaced(self) -> bool:
        """Whether a space belongs between the words: not where they are characters or bring their own."""
        return any(len(w) > 1 for w in self.words) and not any(w != w.strip() for w in self.words)

    @property
    def weighted(self) -> list[tuple[str, float, float]]:
        """Give every word with its value and its share of the largest one.

        Returns:
            (word, value, share from 0 to 1).
        """
        largest = max((abs(v) for v in self.values), default=0.0) or 1.0
        return [(w, v, abs(v) / largest) for w, v in zip(self.words, self.values, strict=True)]


@dataclass(frozen=True, repr=False)
class Chapter(Shown):
    """One chapter of the audit.

    Args:
        id: for example ``"geometry"``.
        title: its heading.
        question: it answers.
        answer: in a sentence or two.
        measurements: in the order shown.
        unmeasured: what is absent, with reasons.
        findings: conclusions with advice.
        figures: plots.
        galleries: examples.
        notes: remarks.
        seconds: it took.
        passages: texts with coloured words.
    """

    id: str
    title: str
    question: str
    answer: str
    measurements: tuple[Measurement, ...] = ()
    unmeasured: tuple[Unmeasured, ...] = ()
    findings: tuple[Finding, ...] = ()
    figures: tuple[Figure, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    passages: tuple[Passage, ...] = ()

    def _title(self) -> str:
        return f"{self.title}: {self.answer}"

    def value(self, name: str) -> float:
        """Return the value of a measurement.

        Args:
            name: of the measurement.

        Returns:
            in its unit.

        Raises:
            KeyError: it was not measured.
        """
        for m in self.measurements:
            if m.name == name:
                return m.value
        raise KeyError(f"{name} was not measured in chapter {self.id}")


@dataclass(frozen=True, repr=False)
class Results(Shown):
    """A whole audit.

    Args:
        name: of the task.
        created: time, ISO 8601.
        version: of memspace.
        facts: description of model and data.
        settings: reproduce the audit.
        plan: as printed.
        chapters: in order.
        costs: seconds and passes per stage, peak memory.
        tables: name → {column: sequence}, stored as Parquet next to the results.
        schema: of the stored form.
    """

    name: str
    created: str
    version: str
    facts: Mapping[str, str]
    settings: Mapping[str, Any]
    plan: str
    chapters: tuple[Chapter, ...]
    costs: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    schema: int = SCHEMA

    def _title(self) -> str:
        return f"{self.name}, {self.created}"

    def _quantities(self) -> Sequence[Quantity]:
        return [q for c in self.chapters for q in c._quantities()]

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {name: partial(dict, columns) for name, columns in self.tables.items()}

    def __str__(self) -> str:
        return "\n\n".join(part for part in (self._title(), *map(str, self.chapters), self._others()) if part)

    def chapter(self, id: str) -> Chapter:
        """Return a chapter.

        Args:
            id: of the chapter.

        Returns:
            the chapter.

        Raises:
            KeyError: there is none.
        """
        for c in self.chapters:
            if c.id == id:
                return c
        raise KeyError(id)

    def measurement(self, name: str) -> Measurement:
        """Return a measurement of any chapter.

        Args:
            name: of the measurement.

        Returns:
            the measurement.

        Raises:
            KeyError: it was not measured.
        """
        for c in self.chapters:
            for m in c.measurements:
                if m.name == name:
                    return m
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return the results as plain JSON types, without the tables; NaN and infinities become None.

        Returns:
            field → value.
        """
        d = {k: v for k, v in self.__dict__.items() if k not in ("chapters", "tables")}
        d["facts"], d["settings"], d["costs"] = dict(self.facts), dict(self.settings), dict(self.costs)
        d["chapters"] = [chapter_to_dict(c) for c in self.chapters]
        return dict(clean(d))

    @staticmethod
    def from_dict(d: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]] | None = None) -> Results:
        """Restore results from :meth:`to_dict`.

        Args:
            d: as :meth:`to_dict` returns.
            tables: name → {column: sequence}.

        Returns:
            the results.

        Raises:
            ValueError: a part is missing, of another type, or contradicts the others.
        """
        fields = {k: v for k, v in d.items() if k != "tables"}
        results = decode(Results, fields | {"tables": {}}, "results")
        check_consistent(results.chapters)
        return replace(results, tables=tables or {})


def clean(value: Any) -> Any:
    """Replace every non-finite float in nested plain types by None, and tuples and arrays by lists.

    Args:
        value: numbers, strings, mappings, sequences or arrays.

    Returns:
        the value in JSON types.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean(v) for v in value]
    if hasattr(value, "tolist"):
        return clean(value.tolist())
    return value


def check_consistent(chapters: Sequence[Chapter]) -> None:
    """Raise where stored chapters contradict themselves.

    Args:
        chapters: of one run.

    Raises:
        ValueError: names the part.
    """
    _unique([c.id for c in chapters], "chapter")
    for c in chapters:
        _unique([m.name for m in c.measurements] + [u.name for u in c.unmeasured], f"quantity of {c.id}")
        _unique([f.id for f in c.figures], f"figure of {c.id}")
        for f in c.findings:
            _require(f.level in LEVELS, f"a finding of {c.id} has the level {f.level[:20]!r}")
        for m in c.measurements:
            _require(m.n >= 0 and (math.isfinite(m.value) or not m.reliable), f"{m.name} contradicts itself")
        for figure in c.figures:
            _check_figure(figure)
        for p in c.passages:
            _require(len(p.words) == len(p.values), f"passage {p.id} has {len(p.words)} words, {len(p.values)} values")
        for item in (i for g in c.galleries for i in (*g.items, g.query) if i is not None):
            _check_picture(item)


def _check_figure(figure: Figure) -> None:
    _require({figure.x_scale, figure.y_scale} <= {"linear", "log"}, f"figure {figure.id} has an unknown scale")
    for s in figure.series:
        lengths = {len(column) for column in (s.x, s.y, s.low, s.high, s.text) if column is not None}
        _require(len(lengths) == 1, f"series {s.name} of figure {figure.id} has columns of different lengths")
        _require(s.mode in ("line", "points", "bar"), f"series {s.name} of figure {figure.id} has an unknown mode")


def _check_picture(item: Item) -> None:
    """Rows of one length, of grey values or of colours."""
    if item.picture is None:
        return
    pixels = [v for row in item.picture for v in row]
    colours = [isinstance(v, list) for v in pixels]
    _require(
        len(pixels) > 0
        and len({len(row) for row in item.picture}) == 1
        and len(set(colours)) == 1
        and all(len(v) == 3 for v in pixels if isinstance(v, list))
        and all(_is_grey(u) for v in pixels for u in (v if isinstance(v, list) else (v,))),
        f"example {item.index} has no picture",
    )


def _is_grey(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and abs(value) < 1e6)  # of 0 to 1; what lies somewhat beyond is cut off


def _unique(names: Sequence[str], what: str) -> None:
    _require(len(set(names)) == len(names), f"a {what} comes twice")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def chapter_to_dict(c: Chapter) -> dict[str, Any]:
    """Return a chapter as plain JSON types.

    Args:
        c: the chapter.

    Returns:
        field → value.
    """
    d = asdict(c)
    d["measurements"] = [m.to_dict() for m in c.measurements]
    d["unmeasured"] = [u.to_dict() for u in c.unmeasured]
    return dict(clean(d))
