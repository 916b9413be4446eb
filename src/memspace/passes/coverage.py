"""What share of the parameters was read, and how: said with every result that is made of per-example gradients."""

from __future__ import annotations

from dataclasses import dataclass

from memspace.passes.forms.formed import DENSE_LIMIT
from memspace.passes.space import ParameterSpace

__all__ = ["Coverage", "coverage"]

SHOWN = 6  # names in one sentence


@dataclass(frozen=True)
class Coverage:
    """How the chosen parameters were read.

    Args:
        parameters: chosen and read; total: of the whole model, those held fixed among them.
        generic: blocks whose per-example gradients come the generic way (the model differentiated example by example,
            exact but slower), with how many parameters those are.
        diagonal: blocks of which the metric keeps the diagonal alone, with how many parameters those are.
    """

    parameters: int
    total: int
    generic: tuple[str, ...] = ()
    by_generic: int = 0
    diagonal: tuple[str, ...] = ()
    by_diagonal: int = 0

    def __str__(self) -> str:
        chosen = f"{self.parameters:,} parameters"
        if self.parameters < self.total:
            chosen += f" ({self.total - self.parameters:,} others are held fixed)"
        said = f"100% of {chosen}, exact"
        if self.generic:
            said += f"; {_share(self.by_generic, self.parameters)} the generic way: {_listed(self.generic)}"
        if self.diagonal:
            said += (
                f"; of {_share(self.by_diagonal, self.parameters)} only the diagonal is kept, since they have no "
                f"product form and more than {DENSE_LIMIT:,} parameters each: {_listed(self.diagonal)}"
            )
        return said


def coverage(space: ParameterSpace, total: int, representation: str = "") -> Coverage:
    """Of a layout, as far as passes have gone.

    Args:
        total: how many parameters the model has; representation: of the metric, if there is one.
    """
    generic = [b for b in space.blocks if not b.rule.hooked or b.module in space.refuted]
    kept: list[tuple[str, int]] = []
    if representation.lower() in ("kfac", "ekfac"):
        kept = [(b.name or "model", b.size) for b in space.blocks if b.diagonal]
    return Coverage(
        space.size,
        total,
        tuple(b.name or "model" for b in generic),
        sum(b.size for b in generic),
        tuple(name for name, _ in kept),
        sum(size for _, size in kept),
    )


def _share(part: int, whole: int) -> str:
    share = 100 * part / max(1, whole)
    return f"{share:.0f}%" if share >= 1 else f"{share:.1g}%"


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
