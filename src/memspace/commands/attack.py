"""``memspace attack``: how far inputs are from another decision, predicted from the metric and attacked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import FileOutput, NetworkOptions, option
from memspace.commands.output import tell
from memspace.limits import COUNT, RANKED, WHOLE

if TYPE_CHECKING:
    from memspace.measures.input_study import InputStudy

__all__ = ["AttackOptions", "attack"]


@dataclass(frozen=True, kw_only=True)
class AttackOptions:
    """How many inputs are attacked, and how hard."""

    examples: Annotated[int, RANKED, option("Inputs attacked, drawn from the test data.")] = 500
    steps: Annotated[int, COUNT, option("Gradient steps of a search.")] = 20
    restarts: Annotated[int, WHOLE, option("Random starts of a search.")] = 3
    clip: Annotated[bool, option("Keep inputs within the range of values seen.", "--clip")] = False


@command()
def attack(which: NetworkOptions, search: AttackOptions, output: FileOutput) -> None:
    """Read the metric at inputs, attack and corrupt them, and compare example by example."""
    from memspace.measures.attack import AttackSearch
    from memspace.measures.input_study import AttackSettings
    from memspace.report.measured import show_measured
    from memspace.verbs.attack import attack as attack_network

    effort = AttackSearch(steps=search.steps, restarts=search.restarts)
    settings = AttackSettings(search.examples, effort, clip=search.clip, seed=which.seed)
    with opened(which, output) as (task, progress):
        study = attack_network(task, settings=settings, progress=progress)
    title = f"{len(study.index)} {study.data} examples of {task.name}"
    show = lambda console: show_measured(title, study.measurements, study.unmeasured, console)  # noqa: E731
    tell(output, _content(task.name, study), show)


def _content(name: str, study: InputStudy) -> dict[str, Any]:
    return {
        "task": name,
        "data": study.data,
        "measurements": [m.to_dict() for m in study.measurements],
        "unmeasured": [u.to_dict() for u in study.unmeasured],
        "corruptions": {
            c.corruption.name: {
                "unit": c.corruption.unit,
                "severity": list(c.corruption.severities),
                "kept": c.kept.tolist(),
            }
            for c in study.corruptions
        },
        "table": study.table(),
        "passes": study.passes,
    }
