"""Which of a model's parameters are chosen: the trainable ones, or those that match shell patterns."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.parameter import is_lazy

from memspace.errors import TaskError

__all__ = ["as_patterns", "chosen_names", "split_patterns", "trained", "what_can_be_trained"]

SHOWN = 4  # names an error gives as examples


def as_patterns(patterns: str | Sequence[str]) -> tuple[str, ...]:
    """Return one pattern or several as a tuple: a lone string is one pattern, not its letters.

    Args:
        patterns: one or several.

    Returns:
        The patterns.
    """
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def split_patterns(patterns: str | Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Separate patterns that choose from patterns that exclude.

    Args:
        patterns: one or several.

    Returns:
        Those without a leading ``!``, and those with one, which is removed.
    """
    several = as_patterns(patterns)
    return tuple(p for p in several if not p.startswith("!")), tuple(p[1:] for p in several if p.startswith("!"))


def chosen_names(
    model: nn.Module, only: str | Sequence[str] = (), without: str | Sequence[str] = ()
) -> tuple[str, ...]:
    """Name the trainable parameters that match a pattern of ``only`` and none of ``without``.

    A parameter under several names is chosen or excluded by any of them. It is given under its first, in the model's
    order.

    Args:
        model: the network.
        only: patterns that choose; empty: all.
        without: patterns that exclude.

    Returns:
        The names.

    Raises:
        TaskError: a pattern matches no parameter, or only frozen ones, or nothing is left.
    """
    only, without = as_patterns(only), as_patterns(without)
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    names: dict[str, list[str]] = {name: [] for name in first.values()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[first[id(parameter)]].append(name)
    trainable = trained(model)

    def matched(pattern: str) -> set[str]:
        return {name for name, known in names.items() if any(fnmatchcase(k, pattern) for k in known)}

    matching = {name for pattern in only for name in _some(pattern, matched(pattern), names)} if only else set(names)
    for pattern in only:
        if matched(pattern).isdisjoint(trainable):
            raise TaskError(
                f"the pattern {pattern!r} matches only frozen parameters",
                where="parameters",
                remedy=what_can_be_trained(model, matched(pattern)),
            )
    for pattern in without:
        matching -= _some(pattern, matched(pattern), names)
    chosen = tuple(name for name in trainable if name in matching)
    if not chosen and (only or without):
        raise TaskError(
            "the patterns leave no trainable parameter",
            where="parameters",
            remedy="exclude less, or choose others",
        )
    return chosen


def trained(model: nn.Module) -> list[str]:
    """Name the parameters that have a gradient, are real and not empty; complex ones are constant.

    Args:
        model: the network.

    Returns:
        The names, in the model's order.
    """
    some = [(n, p) for n, p in model.named_parameters() if p.requires_grad and not p.is_complex()]
    return [n for n, p in some if is_lazy(p) or p.numel()]


def what_can_be_trained(model: nn.Module, among: Collection[str] | None = None) -> str:
    """Say what to do where none of the parameters (or of those named) has a gradient, as far as one can have any.

    Whole numbers have none: of a quantised network the float one it was made from can be read, or float adapters on it.

    Args:
        model: the network.
        among: names of parameters; None: all.

    Returns:
        The remedy of an error.
    """
    named = [(n, p) for n, p in model.named_parameters() if among is None or n in among]
    if any(p.is_floating_point() and p.numel() for _, p in named):
        return "set requires_grad=True on those to audit"
    if any(p.is_complex() and p.numel() for _, p in named):
        return "complex weights are held fixed: choose real ones, or keep real and imaginary parts as parameters"
    whole = any(not t.is_floating_point() and t.dim() > 1 for _, t in (*named, *model.named_buffers()))
    if whole or any("quant" in type(m).__module__ or "quant" in type(m).__name__.lower() for m in model.modules()):
        return (
            "quantised weights are whole numbers without a gradient: pass the network as it was before it was "
            "quantised (what rounding costs is measured on a copy), or put trainable float adapters on this one"
        )
    return "pass a network that has weights"


def _some(pattern: str, matching: set[str], names: dict[str, list[str]]) -> set[str]:
    """Return the names that a pattern matched; an error where there are none."""
    if matching:
        return matching
    known = [k for several in names.values() for k in several]
    near = difflib.get_close_matches(pattern, known, n=SHOWN, cutoff=0.4)
    shown = ", ".join([*near, *(k for k in known if k not in near)][:SHOWN])
    raise TaskError(
        f"the pattern {pattern!r} matches no parameter",
        where="parameters",
        remedy=f"the names are such as {shown}" + (", ..." if len(known) > SHOWN else ""),
    )
