"""The blocks of one module's parameters, and the rule of a weight that several modules own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

from memspace.passes.layers.embedding import Embedding
from memspace.passes.layers.linear import Linear
from memspace.passes.layers.local import Local, Loose
from memspace.passes.layers.registry import rule_for
from memspace.passes.layers.rule import LayerRule, Part
from memspace.passes.layers.tied import Tied

__all__ = ["parts_of", "shared_rule"]

_LOCAL, _LOOSE, _TIED = Local(), Loose(), Tied()


def parts_of(
    module: nn.Module, loose: bool, outside: Collection[str], shared: LayerRule | None = None
) -> Sequence[Part]:
    """List the blocks of a module's own parameters.

    Args:
        module: any.
        loose: whether the whole model is differentiated for its parameters.
        outside: names of its parameters that are frozen or not selected.
        shared: the rule of its weight, where other modules own that too.

    Returns:
        The parts, with names of parameters within the module.
    """
    names = [n for n, p in module._parameters.items() if p is not None]
    rule = rule_for(module)
    if loose:
        return _each(_LOOSE, (*names, *(rule.borrowed if rule is not None else ())))
    if shared is not None:  # its weight is one block, its other parameters are blocks of their own
        return [Part(shared, ("weight",)), *_each(rule or _LOCAL, [n for n in names if n != "weight"])]
    parts = rule.parts(module, names, outside) if names and rule is not None else None
    return _each(_LOCAL, names) if parts is None else parts


def _each(rule: LayerRule, names: Sequence[str]) -> list[Part]:
    """One block a parameter."""
    return [Part(rule, (n,), n) for n in names]


def shared_rule(users: Sequence[tuple[nn.Module, str]]) -> LayerRule | None:
    """Find the rule of a weight that several modules own.

    Args:
        users: the modules, with the name of the weight in them.

    Returns:
        The rule; None where the weight has no closed form, so that the whole model is differentiated.
    """
    rules = {rule_for(module) if name == "weight" else None for module, name in users}
    if {type(rule) for rule in rules} == {Linear, Embedding}:
        return _TIED
    first = next(iter(rules))
    return first if len(rules) == 1 and first is not None and first.shareable else None
