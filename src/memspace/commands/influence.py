"""``memspace influence TASK --query 17``: the training examples behind a prediction, and where they are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from rich.console import Console
from rich.table import Table

from memspace.attribution.settings import InfluenceSettings
from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import Damping, Memory, Output, PartOptions, option, out, parse_memory
from memspace.commands.output import tell
from memspace.errors import SettingsError
from memspace.limits import COUNT, WHOLE, Limit
from memspace.report.terminal import styled

if TYPE_CHECKING:
    from torch import Tensor

    from memspace.attribution.result import Influence, Parts, Top
    from memspace.progress import Progress
    from memspace.task.task import Task

__all__ = ["EngineOptions", "QuestionOptions", "influence"]

LEFT_OUT = Limit(0, 0.9)


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """Whose outcome is explained, and what is shown of it."""

    query: Annotated[list[int], option("Test example whose outcome to explain; repeatable.")]
    target: Annotated[str, option("The outcome: loss (positive supports it), margin, logit:A-B or logp:K.")] = "loss"
    top: Annotated[int, COUNT, option("Supporters and opposers shown and kept.")] = 20
    split: Annotated[str | None, option("Split the scores shown by layers or by modes.", words=("layers", "modes"))] = (
        None
    )
    tokens: Annotated[bool, option("Each position of a query is an outcome of its own.", "--tokens")] = False


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How influence is computed."""

    panel: ClassVar[str] = "Engine"
    engine: Annotated[str, option("auto, ekfac, dual, iterative; unrolled, segments, ensemble.")] = "auto"
    damping: Damping = None
    memory: Memory = "4GiB"
    retrainings: Annotated[int, WHOLE, option("Networks on halves of the data that set the damping.")] = (
        InfluenceSettings.retrainings
    )
    networks: Annotated[int, COUNT, option("Networks of the engine ensemble.")] = 5
    left_out: Annotated[float, LEFT_OUT, option("Unrolled, ensembles: share left out of the subsets asked about.")] = (
        0.0
    )
    points: Annotated[
        int, COUNT, option("Unrolled: derivatives about --left-out, an odd number; their median counts.")
    ] = 1

    def settings(self, seed: int) -> InfluenceSettings:
        """Fill the settings of an influence.

        Args:
            seed: random seed.

        Returns:
            the settings.

        Raises:
            SettingsError: the memory is not a size.
        """
        return InfluenceSettings(memory=parse_memory(self.memory), retrainings=self.retrainings, seed=seed)


@command(goes_on="--out")
def influence(
    which: PartOptions,
    question: QuestionOptions,
    engine: EngineOptions,
    output: Output,
    out: Annotated[Path | None, out("Folder for scores.parquet and top.json.")] = None,
) -> None:
    """Show which training examples support and oppose a prediction, and where they are stored."""
    from memspace.attribution.attribution import uses_training

    trained = uses_training(engine.engine)
    if trained and (out is not None or question.split is not None or question.tokens or engine.damping is not None):
        raise SettingsError(
            f"the engine {engine.engine} takes no --out, --split, --tokens or --damping",
            where="memspace influence",
            remedy="leave them out, or choose another engine",
        )
    with opened(which, output) as (task, progress):
        if trained:
            shown = _through_training(task, question, engine, which.seed, progress)
        else:
            shown = _at_the_end(task, question, engine, which.seed, out, progress)

    def show(console: Console) -> None:
        _show(task, shown, console)
        if out is not None:
            console.print(
                f"all scores in {out / 'scores.parquet'}, the strongest in {out / 'top.json'}", soft_wrap=True
            )

    tell(output, shown.to_dict(task.name), show)


def _through_training(
    task: Task, question: QuestionOptions, engine: EngineOptions, seed: int, progress: Progress
) -> _Shown:
    """The answer of an engine that repeats the training, or differentiates through it."""
    from memspace.attribution.attribution import attribute
    from memspace.attribution.unrolled import Unrolled

    settings = engine.settings(seed)
    influence = attribute(
        task,
        question.query,
        engine=engine.engine,
        target=question.target,
        networks=engine.networks,
        training=Unrolled(seed=seed, left_out=engine.left_out, points=engine.points, memory=settings.memory),
        settings=settings,
        progress=progress,
    )
    return _Shown.of(influence, question.top)


def _at_the_end(
    task: Task, question: QuestionOptions, engine: EngineOptions, seed: int, out: Path | None, progress: Progress
) -> _Shown:
    """The answer of an engine that reads the trained network; every score goes to the folder ``out``, if any."""
    from memspace.attribution.stream import stream_influence
    from memspace.verbs.influence import influence as whole

    asked: dict[str, Any] = {"engine": engine.engine, "target": question.target, "settings": engine.settings(seed)}
    damping, stored = engine.damping, None
    if out is not None:
        stored = stream_influence(
            task,
            out,
            question.query,
            damping=damping,
            top=question.top,
            tokens=question.tokens,
            progress=progress,
            **asked,
        )
        damping = stored.facts["damping"]
        if question.split is None:
            return _Shown(stored.facts, stored.queries, stored.positions, stored.outcome, stored.top)
    tokens = "queries" if question.tokens else None
    asked["settings"] = replace(asked["settings"], split=question.split, tokens=tokens)
    influence = whole(task, question.query, damping=damping, progress=progress, **asked)
    return _Shown.of(influence, question.top, stored.facts if stored is not None else None)


@dataclass(frozen=True)
class _Shown:
    """What is shown; ``facts`` as ``top.json`` holds them."""

    facts: dict[str, Any]
    queries: Tensor
    positions: Tensor | None
    outcome: Tensor
    top: Top
    parts: Parts | None = None

    @classmethod
    def of(cls, found: Influence, top: int, facts: dict[str, Any] | None = None) -> _Shown:
        """The strongest scores of an influence."""
        strongest = found.top(top)
        return cls(facts or _facts(found), found.queries, found.positions, found.outcome, strongest, found.parts)

    def to_dict(self, task: str) -> dict[str, Any]:
        """Plain types: a list for every query, its strongest supporters and opposers among it."""
        top = self.top
        return {
            "task": task,
            **self.facts,
            "queries": self.queries.tolist(),
            "positions": None if self.positions is None else self.positions.tolist(),
            "outcome": self.outcome.tolist(),
            "supporters": {"train": top.supporters.tolist(), "score": top.support.tolist()},
            "opposers": {"train": top.opposers.tolist(), "score": top.opposition.tolist()},
        }


def _facts(found: Influence) -> dict[str, Any]:
    return {
        "engine": found.engine,
        "target": found.target,
        "unit": found.unit,
        "damping_rule": found.damping_rule,
        "reliable": found.reliable,
        "note": found.note,
        "diagnostics": [d.to_dict() for d in found.diagnostics],
    }


def _show(task: Task, shown: _Shown, console: Console) -> None:
    facts = shown.facts
    name = "-loss" if facts["target"] == "loss" else facts["target"]
    heading = f": influence on {name} by the engine {facts['engine']}, in {facts['unit']}"
    console.print(styled((task.name, "bold"), heading))
    console.print("positive: the example supports the outcome (with it minus without it, to first order)")
    console.print(facts["damping_rule"])
    for diagnostic in facts["diagnostics"]:
        if "reason" in diagnostic:
            console.print(f"{diagnostic['name']}: not measured, {diagnostic['reason']}")
        else:
            unit = "" if diagnostic["unit"] == "1" else f" {diagnostic['unit']}"
            console.print(f"{diagnostic['name']}: {diagnostic['value']:.2g}{unit} ({diagnostic['estimator']})")
    if not facts["reliable"]:
        console.print(styled((f"take these scores with care: {facts['note']}", "yellow")))
    for q in range(len(shown.queries)):
        console.print(_table(task, shown, q, name))


def _table(task: Task, shown: _Shown, q: int, name: str) -> Table:
    """Supporters and opposers of one query, strongest first."""
    facts, top, y = shown.facts, shown.top, task.train.labels()
    at = f", position {int(shown.positions[q])}" if shown.positions is not None else ""
    title = f"query {int(shown.queries[q])}{at}: {name} {float(shown.outcome[q]):.3g} {facts['unit']}"
    table = Table(title=title, title_justify="left")
    for column in ("supporter", "label", "score", "opposer", "label", "score"):
        table.add_column(column, justify="right")
    if shown.parts is not None:
        table.add_column(f"supporter by {shown.parts.by}: greatest parts")
    for r in range(top.support.shape[1]):
        i, j = int(top.supporters[q, r]), int(top.opposers[q, r])
        up, down = float(top.support[q, r]), float(top.opposition[q, r])
        left = (f"{i}", _label(task, y, i), f"{up:.3g}") if up > 0 else ("", "", "")
        right = (f"{j}", _label(task, y, j), f"{down:.3g}") if down < 0 else ("", "", "")
        part = [] if shown.parts is None else [_greatest(shown.parts, q, i) if up > 0 else ""]
        table.add_row(*left, *right, *part)
    return table


def _label(task: Task, y: Any, i: int) -> str:
    if y.dim() > 1 or y.is_floating_point():
        return ""
    return task.class_names[int(y[i])] if task.class_names is not None else str(int(y[i]))


def _greatest(parts: Parts, q: int, i: int) -> str:
    scores = parts.scores[q, i]
    order = scores.abs().argsort(descending=True)[:3].tolist()
    return ", ".join(f"{parts.names[k]} {float(scores[k]):.2g}" for k in order)
