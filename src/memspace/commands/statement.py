"""What an edit of a network tells: a statement, what was measured, and where the new weights are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from memspace.commands.options import Output
from memspace.commands.output import tell

if TYPE_CHECKING:
    from memspace.measurement import Measurement, Unmeasured

__all__ = ["tell_statement"]


def tell_statement(
    output: Output, statement: str, found: Sequence[Measurement | Unmeasured], out: Path | None, **more: Any
) -> None:
    """Tell an edit, as JSON or as a sentence with a line for each measurement.

    Args:
        output: what is asked for.
        statement: what was done.
        found: what it did.
        out: where it was written, if anywhere.
        more: further facts of the JSON.
    """
    content = {"statement": statement, "measurements": [m.to_dict() for m in found], **more}
    if out is not None:
        content["out"] = str(out)

    def show(console: Console) -> None:
        for line in (statement, *map(_line, found), *([f"written: {out}"] if out is not None else ())):
            console.print(line, soft_wrap=True, highlight=False)

    tell(output, content, show)


def _line(m: Measurement | Unmeasured) -> str:
    value = getattr(m, "value", None)
    if value is None:
        return f"  {m.name:<34} not measured: {getattr(m, 'reason', '')}"
    ends = getattr(m, "interval", None)
    interval = "" if ends is None else f"  ({ends[0]:.4g} to {ends[1]:.4g})"
    unit = getattr(m, "unit", "")
    return f"  {m.name:<34} {value:.4g}{'' if unit == '1' else ' ' + unit}{interval}"
