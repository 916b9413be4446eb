"""``memspace forget``: new weights as if some training examples had not been there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import Damping, Force, Output, PartOptions, option, out
from memspace.commands.statement import tell_statement
from memspace.errors import DataError, SettingsError
from memspace.limits import COUNT

__all__ = ["ForgetOptions", "forget"]

WHERE = "memspace forget"


@dataclass(frozen=True, kw_only=True)
class ForgetOptions:
    """What is forgotten, and how."""

    examples: Annotated[str | None, option("Training examples, for example 3,17.")] = None
    examples_file: Annotated[Path | None, option("A file that lists them.")] = None
    damping: Damping = None
    method: Annotated[str, option("auto, dual, cg or ekfac.", words="memspace.editing.solver:METHODS")] = "auto"
    steps: Annotated[int, COUNT, option("Newton steps.")] = 1

    def positions(self) -> list[int]:
        """Read the list of training examples.

        Returns:
            Their positions in the training data.

        Raises:
            SettingsError: none, or two lists are given, or one holds something else than whole numbers.
            DataError: the file cannot be read.
        """
        if (self.examples is None) == (self.examples_file is None):
            what, remedy = "one list of examples is due", "give either --examples or --examples-file"
            raise SettingsError(what, where=WHERE, remedy=remedy)
        text = self.examples if self.examples is not None else _read(self.examples_file)
        words = [w for w in re.split(r"[\s,]+", text.strip()) if w]
        try:
            return [int(w) for w in words]
        except ValueError:
            what = f"{text[:60]!r} is no list of whole numbers"
            raise SettingsError(what, where=WHERE, remedy="write it like 3,17") from None


@command()
def forget(
    which: PartOptions,
    chosen: ForgetOptions,
    output: Output,
    out: Annotated[Path, out("Where the new weights go (safetensors).")] = Path("forgotten.safetensors"),
    compare: Annotated[bool, option("Also train again without them, and compare.", "--compare")] = False,
    force: Force = False,
) -> None:
    """Forget training examples: new weights as if the network had been trained without them."""
    from memspace.editing.comparison import account
    from memspace.editing.edit import writable
    from memspace.task.checks import check_task
    from memspace.verbs.forget import forget as forget_examples

    examples = chosen.positions()
    writable(out, force)
    with opened(which, output) as (task, _):
        check_task(task)
        edit = forget_examples(
            task, examples, damping=chosen.damping, method=chosen.method, steps=chosen.steps, seed=which.seed
        )
        measurements = account(task, edit, which.seed, retrain=compare)
    edit.save(out, force=force)
    tell_statement(output, edit.statement, measurements, out, damping=edit.damping)


def _read(path: Path | None) -> str:
    assert path is not None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("the list of examples cannot be read", where=str(path), remedy="check the path") from error
