"""``memspace.explain``: one prediction on one page, and what pushed it where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from memspace.attempt import attempt
from memspace.auditing.results import Results
from memspace.display import Columns, Shown
from memspace.limits import WHOLE, one_of
from memspace.measurement import Measurement, Unmeasured
from memspace.passes.verify import checked_space
from memspace.progress import Progress
from memspace.reading.contributions import InputContributions, read_contributions
from memspace.reading.explain_settings import ExplainSettings
from memspace.reading.explanation_page import explanation_chapters
from memspace.reading.explanation_tables import explanation_tables
from memspace.reading.outcome import PARTS, ExplainedOutcome, outcome_of
from memspace.reading.page import page_results, write_page
from memspace.reading.pushes import Pushes, read_pushes
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, repr=False)
class Explanation(Shown):
    """One prediction: what it is, which training examples pushed it, along which modes and layers, and its input.

    Args:
        task: its name.
        outcome: the number explained, its example and its answers.
        pushes: of all training examples, with their parts by layer and by mode.
        inputs: what every entry of the input adds, or why that is absent.
        results: the page.
    """

    task: str
    outcome: ExplainedOutcome
    pushes: Pushes
    inputs: InputContributions | Unmeasured
    results: Results

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The numbers of all chapters, and the engine's own errors."""
        errors = tuple(d for d in self.pushes.diagnostics if isinstance(d, Measurement))
        return (*(m for c in self.results.chapters for m in c.measurements), *errors)

    @property
    def unmeasured(self) -> tuple[Unmeasured, ...]:
        """What is absent, with reasons."""
        return tuple(u for c in self.results.chapters for u in c.unmeasured)

    def _title(self) -> str:
        return "\n".join(f"{c.title}: {c.answer}" for c in self.results.chapters)

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {name: partial(dict, columns) for name, columns in self.results.tables.items()}

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            the example, the measurements, what is absent, and the tables.
        """
        return {
            "task": self.task,
            "part": self.outcome.part,
            "example": self.outcome.number,
            "position": self.outcome.position,
            "outcome": self.outcome.target.name,
            "damping_rule": self.pushes.rule,
            "engine": self.pushes.engine,
            "answers": {c.id: c.answer for c in self.results.chapters},
            "measurements": [m.to_dict() for m in self.measurements],
            "unmeasured": [u.to_dict() for u in self.unmeasured],
            "tables": {name: dict(columns) for name, columns in self.results.tables.items()},
        }


@verb
def explain(
    task: Task,
    example: Any,
    *,
    part: str | None = None,
    output: Annotated[int | None, WHOLE] = None,
    against: Annotated[int | None, WHOLE] = None,
    position: Annotated[int | None, WHOLE] = None,
    settings: ExplainSettings | None = None,
    page: str | Path | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Explain one prediction: the training examples that pushed it, the modes and layers they share, and its input.

    Of classes the log-odds of the predicted one are explained, against the label where that is another, else against
    the likeliest other one. A push is ∇qᵀ(N(F + γI))⁻¹(−∇ℓ_i), as for :func:`memspace.influence`. Its parts by layer
    and by leading eigenvectors of F add up to it. Entries of the input add integrated gradients. See
    ``docs/reading.md``.

    Args:
        task: a task, or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name.
        example: position in the test data (the training data where there are none), one input without its label, or a
            :class:`memspace.Data` of one example.
        part: ``test`` or ``train``: where ``example`` is a position in.
        output: the class explained, of several labels the label, of a regression the output; None: the predicted
            class, the surest label, the first output.
        against: the class it is compared with.
        position: of a sequence of outputs, from 0; None: the last that has a label, or that is not padding.
        settings: modes, examples shown, baseline, engine and damping; see :class:`memspace.ExplainSettings`.
        page: HTML file; None writes nothing.
        progress: where the work reports.

    Returns:
        the explanation, with tables ``answers``, ``pushes``, ``classes``, ``modes``, ``layers``, ``inputs`` and more.

    Raises:
        MemspaceError: bad input, in one sentence.
    """
    if part is not None:
        one_of(part, PARTS, "part")
    how = settings or ExplainSettings()
    checked_space(task)
    outcome = outcome_of(task, example, part=part, output=output, against=against, position=position)
    inputs = attempt("explain.inputs", lambda: read_contributions(task, outcome, how.baseline))
    pushes = read_pushes(
        task,
        outcome,
        engine=how.engine,
        damping=how.damping,
        modes=how.count,
        settings=how.influence,
        progress=progress,
    )
    tables = explanation_tables(task, outcome, pushes, inputs, how.top, how.names)
    chapters = explanation_chapters(task, outcome, pushes, inputs, tables, how.top)
    options: dict[str, Any] = {"part": outcome.part, "output": output, "against": against, "position": outcome.position}
    options |= {"top": how.top, "count": how.count, "baseline": how.baseline, "engine": how.engine}
    options |= {"damping": pushes.damping, "seed": how.influence.seed}
    results = page_results(task, chapters, options, tables)
    if page is not None:
        which = "input" if outcome.number is None else str(outcome.number)
        about = "one prediction" if outcome.number is None else f"{outcome.part} example {outcome.number}"
        write_page(results, about, f"memspace.explain(task, {which}, part={outcome.part!r})", page)
    return Explanation(task.name, outcome, pushes, inputs, results)
