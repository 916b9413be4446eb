"""The entries of an input in words: tokens by the task's own text, columns and pixels by their place."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from memspace.errors import SettingsError
from memspace.task.task import Task

__all__ = ["entry_names", "token_words"]

FAILS = "show fails for this example"  # how a guarded ``show`` begins where the user's own raises
INVISIBLE = {"\n": "↵", "\t": "⇥"}


def token_words(task: Task, tokens: Tensor) -> list[str]:
    """Write every token as the task shows it by itself.

    Args:
        task: whose ``show`` turns an input into text.
        tokens: (T,) whole numbers.

    Returns:
        T words; the numbers themselves where the task shows no single token.
    """
    numbers = [str(t) for t in tokens.tolist()]
    if task.show is None:
        return numbers
    words = [task.show(tokens[k : k + 1].clone()) for k in range(len(tokens))]
    if any(w.startswith(FAILS) for w in words) or (len(words) > 1 and not any(words)):
        return numbers
    return [INVISIBLE.get(w, w) or n for w, n in zip(words, numbers, strict=True)]


def entry_names(values: Tensor, names: Sequence[str] | None) -> list[str]:
    """Name the entries of one input tensor.

    Args:
        values: of any shape.
        names: as the user gives them, one an entry; None: by their place.

    Returns:
        a name an entry, in the order of the flattened tensor.

    Raises:
        SettingsError: there are fewer or more names than entries.
    """
    count = values.numel()
    if names is not None:
        if len(names) != count:
            what = f"{len(names)} names are given for {count} entries of the input"
            raise SettingsError(what, where="memspace.explain", remedy="give one name per entry, in their order")
        return [str(n) for n in names]
    return _places(values.shape)


def _places(shape: Sequence[int]) -> list[str]:
    """Places of a tensor's entries, ``0, 3, 7``, in the order of the flattened tensor."""
    made = [""]
    for size in shape:
        made = [f"{before}, {k}" if before else str(k) for before in made for k in range(size)]
    return made
