"""Into which blocks the parameters of one module fall, and of what rule a weight is that several modules own."""

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
    """List the blocks of what a module owns itself.

    Args:
        module: any.
        loose: its parameters are read by differentiating the whole model.
        outside: its own parameters that are frozen or not chosen.
        shared: the rule of its weight, where other modules own that too.

    Returns:
        The parts, parameters by the module's own names for them.
    """
    own = [n for n, p in module._parameters.items() if p is not None]
    rule = rule_for(module)
    if loose:
        return _each(_LOOSE, (*own, *(rule.borrowed if rule is not None else ())))
    if shared is not None:  # its weight has a block of its own, the rest is what is left of the layer
        return [Part(shared, ("weight",)), *_each(rule or _LOCAL, [n for n in own if n != "weight"])]
    found = rule.parts(module, own, outside) if own and rule is not None else None
    return _each(_LOCAL, own) if found is None else found


def _each(rule: LayerRule, names: Sequence[str]) -> list[Part]:
    """A block for each parameter."""
    return [Part(rule, (n,), n) for n in names]


def shared_rule(users: Sequence[tuple[nn.Module, str]]) -> LayerRule | None:
    """Find the rule of a weight that several modules own.

    Args:
        users: the modules, and the name that each has for the weight.

    Returns:
        The rule; None where the weight has no form of its own, so that it is read by differentiating the whole model.
    """
    rules = {rule_for(module) if name == "weight" else None for module, name in users}
    if {type(rule) for rule in rules} == {Linear, Embedding}:
        return _TIED
    first = next(iter(rules))
    return first if len(rules) == 1 and first is not None and first.shareable else None
