"""``memspace capacity``: bits of random labels that networks of an architecture store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from rich.console import Console

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import FileOutput, Seed, TaskOptions, option
from memspace.commands.output import tell
from memspace.limits import COUNT, Limit

if TYPE_CHECKING:
    from memspace.experiments.capacity import CapacitySettings

__all__ = ["CapacityOptions", "capacity"]

LOAD = Limit(1e-9, 1000)  # bits of labels a parameter; two are a linear unit's limit


@dataclass(frozen=True, kw_only=True)
class CapacityOptions:
    """Which networks are trained, on how much, and for how long."""

    width: Annotated[
        list[int] | None,
        COUNT,
        option("Fully connected networks of this width instead of the task's own; repeatable."),
    ] = None
    depth: Annotated[int, COUNT, option("Hidden layers of those.")] = 1
    load: Annotated[
        list[float] | None,
        LOAD,
        option("Bits of labels offered per parameter; repeatable.", shown="0.5 to 4"),
    ] = None
    seeds: Annotated[int, COUNT, option("Networks at each load.")] = 3
    steps: Annotated[int, COUNT, option("Training steps, doubled until the bits settle.")] = 1000
    forgetting: Annotated[bool, option("Also overwrite a first set of labels with a second.", "--forgetting")] = False

    def settings(self, seed: int) -> CapacitySettings:
        """Fill the settings of a measurement of capacity.

        Args:
            seed: random seed.

        Returns:
            the settings.
        """
        from memspace.experiments.capacity import CapacitySettings

        load = tuple(sorted(self.load)) if self.load else CapacitySettings.load
        return CapacitySettings(load, self.seeds, self.steps, seed=seed)


@command()
def capacity(which: TaskOptions, chosen: CapacityOptions, output: FileOutput, seed: Seed = 0) -> None:
    """Train copies on random labels, more and more of them, and take the most they store."""
    from memspace.report.measured import show_measured
    from memspace.verbs.capacity import capacity as capacity_of

    settings = chosen.settings(seed)
    with opened(which, output, train_network=False) as (task, progress):
        results = capacity_of(
            task,
            widths=tuple(chosen.width or ()),
            depth=chosen.depth,
            forgetting=chosen.forgetting,
            settings=settings,
            progress=progress,
        )

    def show(console: Console) -> None:
        for s in results.studies:
            title = f"{s.architecture.name}: {s.capacity.parameters:,} parameters"
            show_measured(title, s.measurements, (), console)

    tell(output, results.to_dict(), show)
