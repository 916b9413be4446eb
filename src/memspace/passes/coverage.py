"""The share of the parameters that was read, and how: part of every result made of per-example gradients."""

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
        parameters: number of parameters chosen and read.
        total: number of parameters of the whole model, those held fixed included.
        by_example: names of blocks for which the model is differentiated example by example (exact but slower).
        by_example_size: their number of parameters.
        diagonal: names of blocks of which the metric holds the diagonal alone.
        diagonal_size: their number of parameters.
    """

    parameters: int
    total: int
    by_example: tuple[str, ...] = ()
    by_example_size: int = 0
    diagonal: tuple[str, ...] = ()
    diagonal_size: int = 0

    def __str__(self) -> str:
        chosen = f"{self.parameters:,} parameters"
        if self.parameters < self.total:
            chosen += f" ({self.total - self.parameters:,} others are held fixed)"
        text = f"100% of {chosen}, exact"
        if self.by_example:
            share = _share(self.by_example_size, self.parameters)
            text += f"; {share} differentiated example by example: {_listed(self.by_example)}"
        if self.diagonal:
            text += (
                f"; of {_share(self.diagonal_size, self.parameters)} only the diagonal is stored, since they have no "
                f"product form and more than {DENSE_LIMIT:,} parameters each: {_listed(self.diagonal)}"
            )
        return text


def coverage(space: ParameterSpace, total: int, representation: str = "") -> Coverage:
    """Describe how the parameters of a layout are read, after the passes so far.

    Args:
        space: the parameters, laid out in blocks.
        total: number of parameters of the model.
        representation: of the metric; "" where there is none.

    Returns:
        The coverage.
    """
    by_example = [b for b in space.blocks if not b.rule.hooked or b.module in space.refuted]
    diagonal: list[tuple[str, int]] = []
    if representation.lower() in ("kfac", "ekfac"):
        diagonal = [(b.name or "model", b.size) for b in space.blocks if b.diagonal]
    return Coverage(
        space.size,
        total,
        tuple(b.name or "model" for b in by_example),
        sum(b.size for b in by_example),
        tuple(name for name, _ in diagonal),
        sum(size for _, size in diagonal),
    )


def _share(part: int, whole: int) -> str:
    share = 100 * part / max(1, whole)
    return f"{share:.0f}%" if share >= 1 else f"{share:.1g}%"


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
