"""The chapters of the page on one prediction: the prediction, its input, what pushed it, modes and layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memspace.auditing.pictures import class_name, heat_map, item
from memspace.auditing.results import Chapter, Figure, Gallery, Item, Passage, Series
from memspace.format import plain
from memspace.measurement import Unmeasured
from memspace.reading.contributions import INTEGRATED, InputContributions, LeafContributions
from memspace.reading.explanation_numbers import (
    input_numbers,
    layer_numbers,
    mode_numbers,
    prediction_numbers,
    push_numbers,
)
from memspace.reading.explanation_tables import answer_name
from memspace.reading.outcome import ExplainedOutcome
from memspace.reading.pushes import Pushes, PushParts
from memspace.reading.words import token_words
from memspace.task.task import Task

__all__ = ["explanation_chapters"]

DRAWN = 12  # answers, layers and modes of a figure
COLUMNS = 20  # entries of an input in a figure
GALLERIES, OF_A_MODE = 3, 6  # modes with a gallery, and examples in it
WORDS = 2_000  # of a text with coloured words
SIMPLE = "With the example less without it, to first order, one example at a time: pushes do not add up to the outcome."

Tables = Mapping[str, Mapping[str, Sequence[Any]]]


def explanation_chapters(
    task: Task,
    outcome: ExplainedOutcome,
    pushes: Pushes,
    inputs: InputContributions | Unmeasured,
    tables: Tables,
    top: int,
) -> tuple[Chapter, ...]:
    """Write the chapters of an explained prediction.

    Args:
        task: the network and its data.
        outcome: explained.
        pushes: of the training examples.
        inputs: what the entries of the input add.
        tables: of the explanation.
        top: training examples shown at either end.

    Returns:
        five chapters.
    """
    return (
        _prediction(task, outcome, pushes, tables),
        _entries(task, outcome, inputs, tables),
        _pushed(task, outcome, pushes, tables, top),
        _shared(task, outcome, pushes, tables),
        _layers(outcome, pushes, tables),
    )


def _prediction(task: Task, outcome: ExplainedOutcome, pushes: Pushes, tables: Tables) -> Chapter:
    p = outcome.probabilities
    if p is not None and outcome.answer is not None and outcome.against is not None:
        first, other = (answer_name(task, outcome, k) for k in (outcome.answer, outcome.against))
        says = "The network predicts" if outcome.answer == int(p.argmax()) else "Explained is"
        several = task.likelihood.classes(outcome.f.numel()) is None and outcome.f.numel() > 1
        of = f" for label {outcome.choice}" if several else ""
        answer = f"{says} {first}{of} with probability {_probability(float(p[outcome.answer]))}; "
        answer += f"{other} has {_probability(float(p[outcome.against]))}."
        label = "" if outcome.label is None else f" The label is {answer_name(task, outcome, outcome.label)}."
    else:
        answer = f"The network gives {outcome.value:.4g} for output {outcome.choice}."
        label = "" if outcome.label is None else f" The target is {outcome.label:.4g}."
    if outcome.position is not None:
        answer += f" This is position {outcome.position} of {outcome.positions}, counted from 0."
    answer += label
    answers = tables["answers"]
    x = [str(v) for v in next(iter(answers.values()))][:DRAWN]
    y = list(answers["probability" if p is not None else "value"])[:DRAWN]
    axis = "probability" if p is not None else outcome.target.unit
    figure = Figure("answers", "Answers", "Of this network, largest first.", "answer", axis, (Series("", x, y, "bar"),))
    gallery = Gallery("example", "The example", _place(outcome), (_shown(task, outcome, label.strip()),))
    return Chapter(
        "prediction",
        "The prediction",
        "What does the network say?",
        answer,
        prediction_numbers(outcome, pushes),
        figures=(figure,),
        galleries=(gallery,),
        notes=(f"Explained is q, the {_name(task, outcome)}: {plain(outcome.value)} {outcome.target.unit}.",),
    )


def _pushed(task: Task, outcome: ExplainedOutcome, pushes: Pushes, tables: Tables, top: int) -> Chapter:
    unit = outcome.target.unit
    up, down = pushes.strongest(top)
    y = task.train.labels()
    items = []
    for i in [*up.tolist(), *down.tolist()]:
        push = float(pushes.scores[i])
        known = "classes" in tables and int(y[i]) >= 0
        label = f", label {class_name(task, y[i])}" if known else ""
        itself = ", the example itself" if i == pushes.itself else ""
        flag = "supports" if push > 0 else "opposes"
        items.append(item(task, task.train, i, f"{push:+.2g} {unit}{label}{itself}", flag))
    answer = "No training example pushes this outcome."
    if pushes.total > 0:
        shown = float(pushes.scores[[*up.tolist(), *down.tolist()]].abs().sum()) / pushes.total
        answer = (
            f"Supporters add {plain(pushes.support)} {unit}, opposers take {plain(-pushes.opposition)}. "
            f"The examples shown ({len(items)}) carry {_share(shown)} of that. The sum of all pushes is "
            f"{plain(pushes.support + pushes.opposition)}, of an outcome of {plain(outcome.value)}."
        )
    answer += "" if pushes.reliable else f" Not reliable in size: {pushes.note}."
    figures: tuple[Figure, ...] = ()
    if "classes" in tables:
        figures = (
            _both(
                "by-class",
                "Pushes by class",
                "Sums over the training examples of a class.",
                "class",
                tables["classes"],
                unit,
            ),
        )
    gallery = Gallery("pushes", "Supporters and opposers", SIMPLE, tuple(items), _shown(task, outcome, ""))
    return Chapter(
        "pushes",
        "What pushed it",
        "Which training examples speak for this answer, and which against it?",
        answer,
        push_numbers(outcome, pushes, top),
        tuple(d for d in pushes.diagnostics if isinstance(d, Unmeasured)),
        figures=figures,
        galleries=(gallery,) if items else (),
        notes=(f"F: {pushes.engine}. {pushes.rule}",),
    )


def _shared(task: Task, outcome: ExplainedOutcome, pushes: Pushes, tables: Tables) -> Chapter:
    title, question = "Modes shared", "Along which directions of the memory did they push?"
    parts, read = pushes.modes, pushes.read
    if not isinstance(parts, PushParts) or read is None:
        return Chapter("modes", title, question, "The modes were not read.", unmeasured=_absent(parts))
    shares = parts.shares(pushes.scores)
    k = int(shares[:-1].argmax()) if len(shares) > 1 else 0
    inside, outside = (_share(float(v)) for v in (shares[:-1].sum(), shares[-1]))
    answer = f"The modes read carry {inside} of the push; {outside} is outside of them."
    if len(shares) > 1:
        most = f"Modes {parts.names[k]} carry" if "-" in parts.names[k] else f"Mode {parts.names[k]} carries"
        answer += f" {most} most, {_share(float(shares[k]))}."
    if pushes.total == 0:
        answer = "No training example pushes this outcome."
    order = shares[:-1].abs().argsort(descending=True, stable=True)[:GALLERIES].tolist()
    classes = _class_figure(tables, [parts.names[j] for j in order], outcome.target.unit)
    caption = "Sums over supporters and over opposers, along each group of leading eigenvectors of F."
    return Chapter(
        "modes",
        title,
        question,
        answer,
        mode_numbers(pushes),
        figures=(_both("modes", "Pushes by mode", caption, "mode", tables["modes"], outcome.target.unit), *classes),
        galleries=tuple(_mode_gallery(task, outcome, pushes, parts, j) for j in order),
        notes=(
            f"Eigenvectors of {read.plan.words}. Modes that these examples do not tell apart are one group. "
            "The parts of an example's push add up to it.",
        ),
    )


def _class_figure(tables: Tables, modes: Sequence[str], unit: str) -> tuple[Figure, ...]:
    """The push of every class along the modes that carry most."""
    if "mode_classes" not in tables or not modes:
        return ()
    rows = list(zip(*(tables["mode_classes"][c] for c in ("mode", "class", "push")), strict=True))
    series = tuple(
        Series(f"mode {m}", [c for mode, c, _ in rows if mode == m], [p for mode, _, p in rows if mode == m], "bar")
        for m in modes
    )
    caption = "Sum of the pushes of a class along the modes that carry most."
    return (Figure("mode-classes", "Classes of these modes", caption, "class", unit, series),)


def _mode_gallery(task: Task, outcome: ExplainedOutcome, pushes: Pushes, parts: PushParts, k: int) -> Gallery:
    """The examples that push most along a group of modes."""
    assert pushes.read is not None
    group, scores = pushes.read.groups[k], parts.scores[:, k]
    places = {i: r for r, i in enumerate(pushes.read.plan.index.tolist())}
    carried = pushes.read.carried(group)
    items = []
    for i in scores.abs().argsort(descending=True, stable=True)[:OF_A_MODE].tolist():
        push = float(scores[i])
        share = f", {carried[places[i]]:.1%} of the mode" if i in places else ""
        flag = "supports" if push > 0 else "opposes"
        items.append(item(task, task.train, i, f"{push:+.2g} {outcome.target.unit}{share}", flag))
    single = group.first == group.last
    title = f"Mode {group.name}" if single else f"Modes {group.name}, not told apart"
    caption = "Training examples that push most along it; in the caption also their share of its eigenvalue."
    return Gallery(f"mode-{group.name}", title, caption, tuple(items))


def _layers(outcome: ExplainedOutcome, pushes: Pushes, tables: Tables) -> Chapter:
    title, question = "Layers", "In which layers did they push?"
    parts = pushes.layers
    if not isinstance(parts, PushParts):
        return Chapter("layers", title, question, "The layers were not read.", unmeasured=_absent(parts))
    shares = parts.shares(pushes.scores)
    k = int(shares.argmax())
    answer = f"Layer {parts.names[k]} carries {_share(float(shares[k]))} of the push, most of {len(shares)}."
    if float(shares[k]) > 1:
        answer += " Parts in other layers work against it."
    if pushes.total == 0:
        answer = "No training example pushes this outcome."
    order = sorted(shares.abs().argsort(descending=True, stable=True)[:DRAWN].tolist())
    rows = {column: [values[j] for j in order] for column, values in tables["layers"].items()}
    caption = "Sums over supporters and over opposers of the inner product's part in each layer."
    return Chapter(
        "layers",
        title,
        question,
        answer,
        layer_numbers(pushes),
        figures=(
            _both("layers", "Pushes by layer", caption, "layer", rows, outcome.target.unit),
            Figure(
                "layer-shares",
                "Shares of the layers",
                "Of the total push, and of the variance that the training data leave the outcome; each adds up to 1.",
                "layer",
                "share",
                (
                    Series("push", rows["layer"], rows["share"], "bar"),
                    Series("variance", rows["layer"], rows["variance_share"], "bar"),
                ),
            ),
        ),
        notes=("The parts of an example's push add up to it. A share below 0 works against the pushes.",),
    )


def _entries(task: Task, outcome: ExplainedOutcome, inputs: InputContributions | Unmeasured, tables: Tables) -> Chapter:
    title, question = "The input", "Which parts of the input speak for this answer, and which against it?"
    if isinstance(inputs, Unmeasured):
        return Chapter("input", title, question, "The input was not read.", unmeasured=(inputs,))
    unit = outcome.target.unit
    answer = (
        f"The entries add up to {plain(inputs.sum)} {unit}; the outcome differs from that of the baseline by "
        f"{plain(inputs.at - inputs.at_baseline)}, so {plain(inputs.missing)} is missing."
    )
    galleries, passages, figures = [], [], []
    for place, tensor in enumerate(inputs.tensors):
        picture = heat_map(tensor.contributions, task.input_shape) if not tensor.whole else None
        name = "" if len(inputs.tensors) == 1 else f" of {tensor.name}"
        if picture is not None:
            shown = Item(-1, "Blue adds to the outcome, orange takes away.", picture=picture)
            caption = f"What every pixel adds, summed over channels; strongest {plain(_largest(tensor))} {unit}."
            items = (_shown(task, outcome, "The input."), shown) if place == 0 else (shown,)
            galleries.append(Gallery(f"heat-{place}", f"Pixels{name}", caption, items))
        elif tensor.whole and tensor.values.dim() == 1 and tensor.values.numel() <= WORDS:
            words = token_words(task, tensor.values) if place == 0 else [str(v) for v in tensor.values.tolist()]
            values = tensor.contributions.tolist()
            caption = f"What every token adds; strongest {plain(_largest(tensor))} {unit}. Hover for the numbers."
            passages.append(Passage(f"tokens-{place}", f"Tokens{name}", caption, tuple(words), tuple(values), unit))
        if picture is None:
            figures.append(_column_figure(tables, tensor, place, unit))
    notes = [f"{inputs.method.capitalize()}; baseline: {inputs.baseline}."]
    if inputs.method == INTEGRATED:
        notes.append(
            f"{inputs.points} points; with half of them a contribution differs by {inputs.change:.2g} {unit} at most."
        )
    else:
        notes.append("Entries are replaced one at a time. Where they interact, these differences do not add up.")
    if inputs.fixed:
        notes.append(f"Left as they are: {', '.join(inputs.fixed)}.")
    return Chapter(
        "input",
        title,
        question,
        answer,
        input_numbers(outcome, inputs),
        figures=tuple(figures),
        galleries=tuple(galleries),
        notes=tuple(notes),
        passages=tuple(passages),
    )


def _column_figure(tables: Tables, tensor: LeafContributions, place: int, unit: str) -> Figure:
    """The entries of one input that add or take most, in their order."""
    table = tables["inputs"]
    rows = [
        (entry, adds)
        for name, entry, adds in zip(table["input"], table["entry"], table["contribution"], strict=True)
        if name == tensor.name
    ]
    strongest = sorted(range(len(rows)), key=lambda k: -abs(rows[k][1]))[:COLUMNS]
    chosen = [rows[k] for k in sorted(strongest)]
    which = "all entries" if len(rows) <= COLUMNS else f"the {COLUMNS} strongest of {tensor.values.numel():,}"
    bars = Series("", [name for name, _ in chosen], [adds for _, adds in chosen], "bar")
    return Figure(f"entries-{place}", f"Entries of {tensor.name}", f"Of {which}.", "entry", unit, (bars,))


def _largest(tensor: LeafContributions) -> float:
    return float(tensor.contributions.abs().max()) if tensor.contributions.numel() else 0.0


def _both(id: str, title: str, caption: str, key: str, table: Mapping[str, Sequence[Any]], unit: str) -> Figure:
    """Bars of support and opposition."""
    names = [str(v) for v in table[key]]
    series = tuple(Series(column, names, list(table[column]), "bar") for column in ("support", "opposition"))
    return Figure(id, title, caption, key, unit, series)


def _shown(task: Task, outcome: ExplainedOutcome, caption: str) -> Item:
    """The example itself; one in no data has no number."""
    made = item(task, outcome.data, outcome.place, caption)
    return made if outcome.number is not None else Item(-1, caption, made.picture, made.text, made.flag)


def _place(outcome: ExplainedOutcome) -> str:
    return {"train": "Of the training data.", "test": "Of the test data."}.get(outcome.part, "An input of your own.")


def _name(task: Task, outcome: ExplainedOutcome) -> str:
    """The outcome with the names of its classes."""
    if outcome.answer is None or outcome.against is None:
        return outcome.target.name
    first, other = (answer_name(task, outcome, k) for k in (outcome.answer, outcome.against))
    return f"log-odds of {first} against {other}"


def _absent(parts: PushParts | Unmeasured) -> tuple[Unmeasured, ...]:
    return (parts,) if isinstance(parts, Unmeasured) else ()


def _probability(p: float) -> str:
    return "over 99.9%" if p > 0.999 else "under 0.1%" if p < 0.001 else _share(p)


def _share(value: float) -> str:
    """A percentage with as many digits as tell it from 0 and 100."""
    digits = 1 if abs(value) < 0.01 or 0.99 < abs(value) < 1 else 0
    text = f"{value:.{digits}%}"
    return text.removeprefix("-") if float(text[:-1]) == 0 else text
