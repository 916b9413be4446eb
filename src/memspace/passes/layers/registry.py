"""The rule that reads a module: one of its most specific type, and the newest of those that accept it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TypeVar

from torch import nn

from memspace.extensions import load_extensions
from memspace.passes.layers.attention import Attention
from memspace.passes.layers.bilinear import Bilinear
from memspace.passes.layers.conv import Conv
from memspace.passes.layers.embedding import Embedding
from memspace.passes.layers.grouped import Grouped
from memspace.passes.layers.linear import Linear
from memspace.passes.layers.norm import Norm
from memspace.passes.layers.recurrent import Recurrent
from memspace.passes.layers.rule import LayerRule
from memspace.passes.layers.transposed import Transposed
from memspace.passes.layers.turned import Turned

__all__ = ["register_layer", "registered_rules", "rule_for"]

Rule = TypeVar("Rule", bound=LayerRule)

_BY_TYPE: dict[type[nn.Module], list[LayerRule]] = {}


def register_layer(rule: type[Rule]) -> type[Rule]:
    """Register a kind of layer; a decorator.

    A rule registered later for the same type is tried first, so that another package can replace one.

    Args:
        rule: a class without arguments, whose ``types`` are the modules it may read.

    Returns:
        The class itself.

    Raises:
        TypeError: the rule names no types, so that it would read no module.
    """
    made = rule()
    if not made.types:
        raise TypeError(f"{rule.__name__} names no types: types = (YourLayer,)")
    for kind in rule.types:
        _BY_TYPE.setdefault(kind, []).insert(0, made)
    return rule


def registered_rules(module: nn.Module) -> Iterator[LayerRule]:
    """Yield the rules for a module's types, the most specific type's first, whether or not they accept it.

    There is one for every module, since the last is of ``nn.Module`` itself.

    Args:
        module: any.

    Yields:
        The rules.
    """
    _extended()
    for kind in type(module).__mro__:
        yield from _BY_TYPE.get(kind, ())


def rule_for(module: nn.Module) -> LayerRule | None:
    """Find the rule that reads a module.

    Args:
        module: any.

    Returns:
        The rule, or None where none accepts it: the module is then differentiated example by example.
    """
    return next((rule for rule in registered_rules(module) if rule.knows(module)), None)


@cache
def _extended() -> None:
    """Import extensions, once a process."""
    load_extensions()


for _known in (Attention, Bilinear, Conv, Embedding, Grouped, Linear, Norm, Recurrent, Transposed, Turned):
    register_layer(_known)
