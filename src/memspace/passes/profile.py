"""The profile of a network: one example's forward pass, call by call, before anything is computed with it.

No other module hooks the network to learn shapes. A profile describes the architecture: it is looked up by the modules,
the shapes of their parameters and the inputs' shapes, and stays right when the weights change.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import prod
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from memspace.task.checks import evaluating
from memspace.task.data import Data, move
from memspace.task.first_calls import alone_of
from memspace.task.observed import Observation, ObservedCall, form_of, observed
from memspace.task.task import Task

__all__ = ["ModelProfile", "follows_input", "profile_of"]

_PROFILES: WeakKeyDictionary[nn.Module, dict[Hashable, ModelProfile]] = WeakKeyDictionary()
_FOLLOWED: WeakKeyDictionary[nn.Module, dict[Hashable, bool]] = WeakKeyDictionary()
_PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # layers whose output is linear in the weight and in the input


@dataclass(frozen=True)
class ModelProfile:
    """One example's forward pass.

    Args:
        calls: of all modules in the order in which they ended, the network's own last; without values.
        shape: of one example's outputs, (C,) or (positions, ..., C).
        widest: numbers in the largest tensor of the graph, parameters excluded.
    """

    calls: tuple[ObservedCall, ...]
    shape: tuple[int, ...]
    widest: int

    @property
    def plain(self) -> bool:
        """Whether outputs are (B, C)."""
        return len(self.shape) == 1

    @property
    def positions(self) -> int:
        """Number of predictions of an example."""
        return prod(self.shape[:-1])

    @property
    def activations(self) -> int:
        """Numbers in the outputs of all modules together."""
        return sum(prod(c.shape) for c in self.calls if c.shape is not None)

    def bilinear(self, model: nn.Module) -> bool:
        """Tell whether a weight multiplies an input that depends on trainable parameters, so that f is not affine.

        Args:
            model: the network that was profiled.

        Returns:
            True where a layer is found that does.
        """
        modules = dict(model.named_modules())
        for call in self.calls:
            module = modules[call.name]
            known = isinstance(module, _PRODUCTS) and type(module).forward in {k.forward for k in _PRODUCTS}
            if known and call.learned and call.gradients and module.weight.requires_grad:
                return True
        return False


def profile_of(task: Task, data: Data | None = None, index: Tensor | None = None) -> ModelProfile:
    """Give the profile of the task's network at one example, computed once for all examples of the same shapes.

    Args:
        task: the network.
        data: the examples; None: the task's training data.
        index: positions in ``data``, of which the first is profiled; None: the first example.

    Returns:
        The profile. The network is called only where no example of these shapes was profiled before.
    """
    data = task.train if data is None else data
    x = move(data.batch([0] if index is None else index[:1]).x, task.device, task.dtype)
    known = _PROFILES.setdefault(task.model, {})
    key = form_of(task.model, x)
    if key not in known:
        alone = alone_of(task)
        if alone is None or alone.key != key:
            with evaluating(task.model):
                alone = observed(task.model, x)
        known[key] = _profile(alone)
    return known[key]


def follows_input(task: Task, x: Tensor) -> bool:
    """Find out whether gradients of the outputs reach the input, once for all inputs of the same shapes.

    Args:
        task: the network.
        x: inputs (n, ...), real numbers.

    Returns:
        Whether they do.
    """
    known = _FOLLOWED.setdefault(task.model, {})
    key = form_of(task.model, x[:1])
    if key not in known:
        with evaluating(task.model), torch.enable_grad():
            leaf = x.detach().requires_grad_()
            note_followed(task, leaf, task.model(leaf.clone()))
    return known[key]


def note_followed(task: Task, leaf: Tensor, f: Tensor) -> None:
    """Record whether outputs depend on their inputs, for :func:`follows_input`.

    Args:
        task: the network.
        leaf: inputs (n, ...) that require gradients.
        f: the outputs of ``leaf.clone()``.
    """
    follows = bool(f.requires_grad) and torch.autograd.grad(f.sum(), leaf, allow_unused=True)[0] is not None
    _FOLLOWED.setdefault(task.model, {})[form_of(task.model, leaf[:1])] = follows


def _profile(alone: Observation) -> ModelProfile:
    return ModelProfile(alone.calls, tuple(alone.f.shape[1:]), alone.widest)
