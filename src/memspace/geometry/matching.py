"""Permutation symmetry: the units of a hidden layer have no order, so two networks are compared after matching them.

Weight matching (Ainsworth et al. 2023, Git Re-Basin): layer by layer the permutation that makes the
weights most alike, by linear assignment, until nothing changes. Chains of dense layers, convolutions and
normalisations are served; that the permuted network computes the same is checked on examples, so nothing is believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from memspace.errors import UnsupportedLayerError
from memspace.passes.outputs import outputs
from memspace.task.checks import evaluating
from memspace.task.data import call_model, move
from memspace.task.task import Task

__all__ = ["Matching", "Units", "hidden_units", "match", "permuted"]

State = Mapping[str, Tensor]
LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)
ROUNDS = 100


@dataclass(frozen=True)
class Units:
    """The units of one hidden layer.

    Args:
        layer: the layer's name.
        count: number of units.
        members: (tensor name, axis, entries per unit) of all tensors that the units index.
    """

    layer: str
    count: int
    members: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Matching:
    """A state dict with its hidden units reordered.

    Args:
        state: computes what it did before.
        permutations: order of its units by layer.
        moved: share of units that changed place.
        before: Euclidean distance of the parameters to the network matched with, before.
        after: the same distance after.
    """

    state: dict[str, Tensor]
    permutations: dict[str, Tensor]
    moved: float
    before: float
    after: float


def hidden_units(task: Task) -> list[Units]:
    """List the hidden layers of a chain, in the order they run.

    Args:
        task: the model, with data to run it on.

    Returns:
        One entry a hidden layer.

    Raises:
        UnsupportedLayerError: a layer with parameters of another kind, used twice, or in parallel.
    """
    layers: list[Units] = []
    name, count = "", 0  # the layer that is open: its output is what comes next
    members: list[tuple[str, int, int]] = []
    for module_name, module in _in_order(task):
        parameters = dict(module.named_parameters(recurse=False))
        prefix = f"{module_name}." if module_name else ""
        if isinstance(module, LINEAR) and getattr(module, "groups", 1) == 1:
            weight = parameters["weight"]
            if name:
                if weight.shape[1] % count:
                    raise _refused(module_name, "its inputs are not the units before it")
                layers.append(Units(name, count, (*members, (f"{prefix}weight", 1, weight.shape[1] // count))))
            name, count = module_name or "model", weight.shape[0]
            members = [(prefix + n, 0, 1) for n in parameters]
        elif isinstance(module, NORMS) and name:
            tensors = parameters | {n: b for n, b in module.named_buffers(recurse=False) if b.dim() == 1}
            if any(t.shape != (count,) for t in tensors.values()):
                raise _refused(module_name, "it does not normalise unit by unit")
            members += [(prefix + n, 0, 1) for n in tensors]
        elif parameters:
            raise _refused(module_name, f"units of a {type(module).__name__} cannot be matched")
    return layers


def permuted(state: State, units: Sequence[Units], orders: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put every hidden layer's units in the given order: unit k becomes what unit order[k] was.

    Args:
        state: the state dict.
        units: the hidden layers.
        orders: order of the units by layer, (count,) each.

    Returns:
        A new state dict.
    """
    out = dict(state)
    for u in units:
        for name, axis, width in u.members:
            out[name] = out[name].index_select(axis, _wide(orders[u.layer], width).to(out[name].device))
    return out


def match(task: Task, a: State, b: State, *, seed: int = 0, restarts: int = 4) -> Matching:
    """Reorder the hidden units of b so that its weights are most like those of a (Ainsworth et al. 2023).

    Args:
        task: the model both states belong to, with data to run it on.
        a: the state dict that stays.
        b: the state dict whose units move.
        seed: of the order in which layers take turns.
        restarts: runs from different orders of the layers; the one with the most alike weights is kept.

    Returns:
        The reordered state; a local optimum of the likeness.

    Raises:
        UnsupportedLayerError: the network is no chain, or the permuted one would compute something else.
    """
    units = hidden_units(task)
    generator = torch.Generator().manual_seed(seed)
    best: tuple[float, dict[str, Tensor]] = (-float("inf"), {})
    for _ in range(max(1, restarts)):
        orders = _descend(a, b, units, generator)
        moved = permuted(b, units, orders)
        alike = sum(float((a[n].double() * moved[n].double()).sum()) for u in units for n, _, _ in u.members)
        if alike > best[0]:
            best = (alike, orders)
    orders = best[1]
    state = permuted(b, units, orders)
    _check_same(task, b, state)
    total = sum(u.count for u in units)
    moved_units = sum(int((orders[u.layer] != torch.arange(u.count)).sum()) for u in units)
    return Matching(state, orders, moved_units / max(1, total), _apart(a, b), _apart(a, state))


def _descend(a: State, b: State, units: Sequence[Units], generator: torch.Generator) -> dict[str, Tensor]:
    """Coordinate descent: one layer's best order given the others', in a random turn, until none changes."""
    orders = {u.layer: torch.arange(u.count) for u in units}
    for _ in range(ROUNDS):
        changed = False
        for k in torch.randperm(len(units), generator=generator).tolist():
            u = units[k]
            others = permuted(b, units, orders | {u.layer: torch.arange(u.count)})
            gain = torch.zeros(u.count, u.count, dtype=torch.float64)
            for name, axis, width in u.members:
                gain += _rows(a[name], axis, width) @ _rows(others[name], axis, width).t()
            order = torch.as_tensor(linear_sum_assignment(gain.numpy(), maximize=True)[1])
            if not torch.equal(order, orders[u.layer]):
                better = float(gain[torch.arange(u.count), order].sum())
                now = float(gain[torch.arange(u.count), orders[u.layer]].sum())
                if better > now + 1e-12 * abs(now):
                    orders[u.layer], changed = order, True
        if not changed:
            break
    return orders


def _rows(t: Tensor, axis: int, width: int) -> Tensor:
    """One row per unit, (count, everything else)."""
    moved = t.detach().double().cpu().movedim(axis, 0)
    return moved.reshape(moved.shape[0] // width, -1)


def _wide(order: Tensor, width: int) -> Tensor:
    """An order of units as an order of entries, ``width`` of them to a unit."""
    return (order.unsqueeze(1) * width + torch.arange(width)).flatten()


def _in_order(task: Task) -> list[tuple[str, nn.Module]]:
    """Modules with parameters of their own in the order they run."""
    ran: list[tuple[str, nn.Module]] = []
    names = {m: n for n, m in task.model.named_modules() if next(m.parameters(recurse=False), None) is not None}

    def note(module: nn.Module, _inputs: object, _output: object) -> None:
        ran.append((names[module], module))

    handles = [m.register_forward_hook(note) for m in names]
    try:
        with torch.no_grad(), evaluating(task.model):
            call_model(task.model, move(task.train.batch([0]).x, task.device, task.dtype))
    finally:
        for h in handles:
            h.remove()
    if len(ran) != len(names) or len({n for n, _ in ran}) != len(ran):
        twice = next((n for n, _ in ran if sum(m == n for m, _ in ran) > 1), "the model")
        raise _refused(twice, "every layer must run once")
    return ran


def _check_same(task: Task, before: State, after: State) -> None:
    """Raise unless both states compute the same on some examples."""
    index = torch.arange(min(64, len(task.train)))
    f, _ = outputs(task, task.train, state=before, index=index)
    g, _ = outputs(task, task.train, state=after, index=index)
    scale = max(1.0, float(f.abs().max()))
    if float((f - g).abs().max()) > 1e3 * torch.finfo(f.dtype).eps * scale:
        raise _refused("model", "it computes something else with its units reordered, so it is no plain chain")


def _apart(a: State, b: State) -> float:
    out: float = (
        sum(float((a[n].double() - b[n].double()).square().sum()) for n in b if b[n].is_floating_point()) ** 0.5
    )
    return out


def _refused(where: str, why: str) -> UnsupportedLayerError:
    return UnsupportedLayerError(
        f"the networks' hidden units cannot be matched: {why}",
        where=where or "model",
        remedy="compare without alignment",
    )
