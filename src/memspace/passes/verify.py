"""Verification of a layout: closed-form gradients are compared with autograd's on a few small batches.

Closed forms are wrong for a weight that the model also uses outside its layer's own call
(``F.linear(x, self.layer.weight)``). They are wrong, too, for a layer whose input is overwritten in place later, and
for one that mixes examples. For such a layer the model is differentiated example by example instead.

Batches of several sizes show which axis of a layer's input runs over examples. The batches are the first examples, the
last, and a random draw: data are often sorted by class, length or domain. Faults that show only in other examples are
found by the passes, which prove further batches (``guard``).
"""

from __future__ import annotations

import copy
import glob
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from memspace.arguments import typed
from memspace.errors import TaskError, UnsupportedLayerError
from memspace.passes.capture import Capture, Signals
from memspace.passes.example_by_example import PLAINEST
from memspace.passes.layers.block import BROADCAST
from memspace.passes.layers.registry import registered_rules
from memspace.passes.profile import note_followed
from memspace.passes.proof import mismatched, uncalled
from memspace.passes.space import ParameterSpace
from memspace.task.checks import check_task, depends_on_batch, evaluating, untouched
from memspace.task.data import call_model, move, take
from memspace.task.first_calls import alone_of
from memspace.task.gradients import check_attached
from memspace.task.task import Task

__all__ = ["checked_space", "fitting_space", "of_its_batch", "verified_space"]

EXAMPLES = 4  # first and last ones
SPREAD = 7  # drawn from all: a different number, so that the axis of examples shows


@typed
def checked_space(task: Task) -> ParameterSpace:
    """Check the task and lay its parameters out, as ``check_task`` and :func:`verified_space` do.

    A plain network is called once for both: its checks and the proof read the same batch.

    Args:
        task: the network and its data.

    Returns:
        The verified space of the parameters that the task selects.

    Raises:
        MemspaceError: the first fault found in the task; see there.
    """
    shared = _SharedCall(task)
    check_task(task, shared.forward)
    with untouched(task.model):
        return shared.proven_space() or verified_space(task)


class _SharedCall:
    """The call of a plain network by the checks, used for the proof of its layout, too."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._space: ParameterSpace | None = None
        self._leaf: Tensor | None = None
        self._signals: Signals | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, attached to their graph; an input of real numbers requires gradients."""
        self._space = ParameterSpace.of(self._task)
        if x.is_floating_point():
            self._leaf = x.detach().requires_grad_()
            x = self._leaf.clone()  # a copy, so that a layer may work in place
        with Capture(self._task.model, self._space) as capture:
            self._signals = capture.forward(x)
        return self._signals.graph

    def proven_space(self) -> ParameterSpace | None:
        """Return the layout with closed forms throughout; None where there was no such call, or a proof fails."""
        space, signals = self._space, self._signals
        if space is None or signals is None or not all(b.rule.hooked for b in space.blocks):
            return None
        if not self._examples_first(signals):
            return None
        try:
            wrong = _refuted(space, space.parameters(self._task.model), signals, torch.Generator().manual_seed(0))
        except (UnsupportedLayerError, RuntimeError, ValueError, IndexError):
            return None
        if wrong:
            return None
        if self._leaf is not None:
            note_followed(self._task, self._leaf, signals.graph)
        space.verified = True
        return space

    def _examples_first(self, signals: Signals) -> bool:
        """Whether every module was called as often on one example as on the batch, with examples on the first axis."""
        alone: dict[str, list[tuple[int, ...] | None]] = {}
        observation = alone_of(self._task)
        for call in observation.calls if observation is not None else ():
            alone.setdefault(call.name, []).append(call.first)
        count = len(signals.f)
        for name, calls in signals.record.items():
            firsts = alone.get(name, [])
            if len(firsts) != len(calls) or any(first is None or first[:1] != (1,) for first in firsts):
                return False
            if any(call.rows != count for call in calls):
                return False
        return True


@typed
def verified_space(task: Task, names: Sequence[str] = ()) -> ParameterSpace:
    """Find the layout whose closed-form gradients are autograd's; other blocks are differentiated example by example.

    Args:
        task: the network and its data.
        names: of the parameters inside; none: those that the task selects.

    Returns:
        The verified space.

    Raises:
        UnsupportedLayerError: gradients differentiated example by example are not autograd's either.
        TaskError: no output has a gradient.
        StochasticModelError: an example's outputs depend on the others of its batch.
    """
    if len(names):
        task = copy.copy(task)  # a new Task would read its data again
        object.__setattr__(task, "parameters", tuple(glob.escape(n) for n in names))
    batches = _batches(len(task.train))
    axes = _axes(task, batches)
    loose = {name for name, axis in axes.items() if axis is None}
    known = {name: axis for name, axis in axes.items() if axis}
    shared = {name for name, axis in known.items() if axis == BROADCAST}
    manner = 0
    for _ in range(len(ParameterSpace.of(task)) + PLAINEST + 1):
        space = ParameterSpace.of(task, loose, known)
        space.manner = manner
        try:
            wrong = _mismatched(task, space, batches)
        except UnsupportedLayerError as error:
            wrong = {error.where}
            if error.where in loose or error.where not in {m for b in space.blocks for m in b.modules}:
                raise
        except (RuntimeError, ValueError, IndexError):
            if not shared - loose:
                with evaluating(task.model):
                    check_attached(task)
                raise
            wrong = shared - loose  # the model rejects their outputs with an axis of examples
        if not wrong:
            space.verified = True
            return space
        manner = space.manner
        if wrong <= loose:
            if manner == PLAINEST:
                break
            manner += 1  # a mapping rule of torch is wrong: the next manner
        loose |= wrong
    for index in batches:
        of_its_batch(task, move(task.train.batch(index).x, task.device, task.dtype), task.train.name)
    raise UnsupportedLayerError(
        "its per-example gradients do not add up to autograd's gradient",
        where=", ".join(sorted(wrong)),
        remedy="freeze it (requires_grad=False) or rewrite it with standard layers",
    )


def of_its_batch(task: Task, x: object, where: str) -> None:
    """Raise where an example alone has other outputs than in its batch.

    Args:
        task: the network.
        x: inputs of the batch.
        where: name of the batch, for messages.

    Raises:
        StochasticModelError: the message says by how much they differ.
    """
    with evaluating(task.model), torch.enable_grad():  # with gradients: fused inference kernels round differently
        f = call_model(task.model, x).detach()
        alone = torch.cat([call_model(task.model, take(x, slice(i, i + 1))).detach() for i in range(len(f))])
    apart = float((alone - f).abs().max())
    if not apart <= 10 * torch.finfo(f.dtype).eps ** 0.5 * max(1.0, float(f.abs().max())):
        raise depends_on_batch(
            task.model,
            f"an example's outputs depend on its batch: alone they differ by {apart:.2g}",
            f"{type(task.model).__name__}, {where}",
            "let the model treat every example independently (no choice or statistic of the whole batch)",
        )


def _batches(n: int) -> list[Tensor]:
    """Positions of the first examples, of a random draw, and of the last ones."""
    if n <= EXAMPLES:
        return [torch.arange(n)]
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: min(SPREAD, n)]
    return [torch.arange(EXAMPLES), drawn, torch.arange(n - EXAMPLES, n)]


def fitting_space(task: Task, space: ParameterSpace) -> ParameterSpace:
    """Return a space with the same layout that knows the axis of examples of every layer.

    Args:
        task: the network and its data.
        space: of the same network.

    Returns:
        ``space`` itself where it fits.

    Raises:
        TaskError: the space is of another network.
        UnsupportedLayerError: gradients differentiated example by example are not autograd's either.
    """
    if space.verified:
        return space
    shapes = {n: p.shape for n, p in task.model.named_parameters()}
    if any(n not in shapes or shapes[n] != shape for n, shape in space.shapes.items()):
        raise TaskError(
            "the parameter space is of another network",
            where="space",
            remedy="build it for this task: memspace.verified_space(task)",
        )
    try:
        wrong = _mismatched(task, space, _batches(len(task.train)))
    except (UnsupportedLayerError, RuntimeError, ValueError, IndexError):
        wrong = {"some"}  # read on the wrong axis, layers may refuse altogether
    if not wrong:
        return space
    verified = verified_space(task, space.names)
    if [(b.names, b.start, b.shape) for b in verified.blocks] == [(b.names, b.start, b.shape) for b in space.blocks]:
        return verified
    fitting = ParameterSpace(task.model, space.loose, verified.axes, only=[glob.escape(n) for n in space.names])
    fitting.manner = verified.manner  # passes prove batches, and differentiate blocks without form example by example
    return fitting


def _axes(task: Task, batches: list[Tensor]) -> dict[str, int | None]:
    """Module to the axis of its input that runs over examples; None where there is none or calls disagree."""
    indexes = [*batches, batches[0][:-1]] if len(batches[0]) > 1 else batches
    sizes = tuple(len(i) for i in indexes)
    read = [_input_shapes(task, i) for i in indexes]
    modules = dict(task.model.named_modules())
    out: dict[str, int | None] = {}
    for name in dict.fromkeys(n for r in read for n in r):
        # Calls are matched in order; batches with fewer of them are left out.
        most = max(len(r.get(name, [])) for r in read)
        candidates = set()
        for call in range(most):
            met = [(r[name][call], n) for r, n in zip(read, sizes, strict=True) if len(r.get(name, [])) > call]
            rule = next(registered_rules(modules[name]))
            candidates.add(rule.axis(modules[name], [s for s, _ in met], [n for _, n in met]))
        out[name] = candidates.pop() if len(candidates) == 1 else None
    return out


def _input_shapes(task: Task, index: Tensor) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of the first tensor that every module was called with, in order; hooks are removed again."""
    part = task.train.batch(index)
    shapes: dict[str, list[tuple[int, ...]]] = {}
    handles = []
    for name, module in task.model.named_modules():
        if module._parameters:

            def hook(_module: nn.Module, args: tuple[object, ...], _output: object, name: str = name) -> None:
                if args and isinstance(args[0], Tensor):
                    shapes.setdefault(name, []).append(tuple(args[0].shape))

            handles.append(module.register_forward_hook(hook))
    try:
        with evaluating(task.model):  # with gradients: fused inference kernels call no submodule
            call_model(task.model, move(part.x, task.device, task.dtype))
    finally:
        for h in handles:
            h.remove()
    return shapes


def _mismatched(task: Task, space: ParameterSpace, batches: list[Tensor]) -> set[str]:
    """Modules that fail the proof on one of the batches, with two cotangents at once, where mapping may be wrong."""
    params = space.parameters(task.model)
    generator = torch.Generator().manual_seed(0)
    wrong: set[str] = set()
    with evaluating(task.model), Capture(task.model, space) as capture:
        for index in batches:
            signals = capture.forward(move(task.train.batch(index).x, task.device, task.dtype))
            wrong |= _refuted(space, params, signals, generator)
    return wrong


def _refuted(
    space: ParameterSpace, params: Mapping[str, nn.Parameter], signals: Signals, generator: torch.Generator
) -> set[str]:
    """Modules that fail the proof on one batch."""
    u = torch.randn(2, *signals.f.shape, generator=generator, dtype=torch.float64).to(signals.f)
    wrong = mismatched(space, params, signals, u, signals.cotangents(u), generator)
    return wrong | uncalled(space, signals, params)
