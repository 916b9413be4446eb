"""``memspace.invariants``: what a network has that does not depend on how its weights describe it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from memspace.auditing.results import Chapter, Figure, Results, Series
from memspace.display import Columns, Shown
from memspace.limits import SEED
from memspace.measurement import Measurement, Unmeasured
from memspace.progress import Progress
from memspace.reading.invariants import NetworkNumbers, read_invariants
from memspace.reading.page import page_results, write_page
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["Invariants", "invariants"]


@dataclass(frozen=True, repr=False)
class Invariants(Shown):
    """What a network has that does not depend on how its weights describe it.

    Args:
        task: its name.
        numbers: the invariants, with what each is unchanged by.
        results: the page.
    """

    task: str
    numbers: NetworkNumbers
    results: Results

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Every number with its error."""
        return self.numbers.measurements

    @property
    def unmeasured(self) -> tuple[Unmeasured, ...]:
        """What is absent, and why."""
        return self.numbers.unmeasured

    def value(self, name: str) -> float:
        """Look a number up.

        Args:
            name: such as ``"invariants.rank"``.

        Returns:
            in its unit.

        Raises:
            KeyError: it was not measured.
        """
        return self.results.measurement(name).value

    def _title(self) -> str:
        return f"{self.task}: {self.results.chapters[0].answer}"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        tables = self.results.tables
        return {"unchanged": lambda: dict(tables["unchanged"]), "layers": lambda: dict(tables["layers"])}

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            ``measurements``, each with ``unchanged_by``; ``unmeasured``; ``layers``; ``spectrum``.
        """
        numbers = self.numbers
        return {
            "task": self.task,
            "examples": numbers.words,
            "measurements": [m.to_dict() | {"unchanged_by": numbers.unchanged[m.name]} for m in numbers.measurements],
            "unmeasured": [u.to_dict() for u in numbers.unmeasured],
            "layers": [dict(layer.__dict__) for layer in numbers.layers],
            "spectrum": list(numbers.spectrum),
        }


@verb
def invariants(
    task: Task,
    *,
    sampled: bool = True,
    seed: Annotated[int, SEED] = 0,
    page: str | Path | None = None,
    progress: Progress | None = None,
) -> Invariants:
    """Read what does not change when units are rescaled or exchanged: rank, spectrum, volume, λ, curvature, symmetries.

    Spectrum, volume and curvature are those of relative changes of the weights, F̃ = Θ F Θ with Θ = diag(θ): under
    θ ↦ Dθ, F ↦ D⁻¹ F D⁻¹ with a diagonal D, F̃ stays the same matrix. See ``docs/reading.md``.

    Args:
        task: a task, or a model followed by ``train`` and fields of :class:`memspace.Task` by name.
        sampled: whether the learning coefficient is sampled and the loss's curvature read, in networks small enough.
        seed: of all draws.
        page: HTML file that shows it; None writes nothing.
        progress: where the work reports.

    Returns:
        every number with unit and error, and with what it is unchanged by.

    Raises:
        MemspaceError: bad input, in one sentence.
    """
    began = time.perf_counter()
    numbers = read_invariants(task, sampled=sampled, seed=seed, progress=progress)
    chapter = Chapter(
        "invariants",
        "Invariants",
        "What does the network have, however its weights describe it?",
        _answer(numbers),
        numbers.measurements,
        numbers.unmeasured,
        figures=(_spectrum_figure(numbers.spectrum), _layer_figure(numbers)),
        notes=(f"Read on {numbers.words}, in double precision.",),
        seconds=time.perf_counter() - began,
    )
    names = list(numbers.unchanged)
    tables = {
        "unchanged": {"quantity": names, "unchanged_by": list(numbers.unchanged.values())},
        "layers": {
            field: [getattr(layer, field) for layer in numbers.layers]
            for field in ("layer", "parameters", "rank", "sure", "norm", "trace")
        },
    }
    results = page_results(task, chapter, {"sampled": sampled, "seed": seed}, tables)
    if page is not None:
        write_page(results, "its invariants", "memspace.invariants(task)", page)
    return Invariants(task.name, numbers, results)


def _answer(numbers: NetworkNumbers) -> str:
    """Say rank, volume and the flat directions in one sentence."""
    values = {m.name.removeprefix("invariants."): m for m in numbers.measurements}
    rank, flat = values["rank"], values["flat_directions"]
    text = f"{rank.value:,.0f} directions of the weights move predictions and {flat.value:,.0f} do not"
    if not rank.reliable:
        text = f"At least {rank.value:,.0f} directions of the weights move predictions"
    if "bits" in values:
        bits = values["bits"]
        by = f"{bits.value:.3g} bits" if bits.reliable else f"about {bits.value:.2g} bits (of {bits.n:,} examples read)"
        text += f"; the data narrow the weights by {by}"
    return f"{text}."


def _spectrum_figure(spectrum: Sequence[float]) -> Figure:
    shown = [v for v in spectrum if v > 0]
    return Figure(
        "spectrum",
        "Spectrum in relative changes of the weights",
        "Eigenvalues of ΘFΘ. Scaling or exchanging hidden units leaves every one of them as it is.",
        "rank",
        "eigenvalue (nats)",
        (Series("eigenvalue", [float(k + 1) for k in range(len(shown))], shown),),
        x_scale="log",
        y_scale="log",
    )


def _layer_figure(numbers: NetworkNumbers) -> Figure:
    names = [layer.layer for layer in numbers.layers]
    ranks = [float(layer.rank) for layer in numbers.layers]
    flat = [float(layer.parameters - layer.rank) for layer in numbers.layers]
    return Figure(
        "layers",
        "Directions by layer",
        "Rank of each layer's own part of F, and the directions of the layer that move no prediction.",
        "layer",
        "directions",
        (Series("move predictions", names, ranks, "bar"), Series("do not", names, flat, "bar")),
    )
