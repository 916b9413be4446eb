"""Is what the hooks read the whole gradient? Checked on one small batch before anything is built on it.

A weight that the model also uses outside its layer's own call (``F.linear(x, self.layer.weight)``), a layer whose
input is overwritten in place later, or one that mixes examples up, would make the fast path silently wrong. Such a
layer is taken off it. Which axis of a layer's input runs over examples is found by reading batches of two sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memspace.errors import UnsupportedLayerError
from memspace.passes.capture import Capture
from memspace.task.blocks import BROADCAST
from memspace.task.checks import evaluating
from memspace.task.data import call_model, move
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["verified_space"]

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}
EXAMPLES = 4


def verified_space(task: Task) -> ParameterSpace:
    """The parameter space whose fast blocks reproduce autograd's gradient; the others are made loose.

    Raises:
        UnsupportedLayerError: not even the generic path reproduces it.
    """
    axes = _axes(task)
    loose = {name for name, axis in axes.items() if axis is None}
    known = {name: axis for name, axis in axes.items() if axis}
    shared = {name for name, axis in known.items() if axis == BROADCAST}
    for _ in range(len(ParameterSpace.of(task)) + 1):
        space = ParameterSpace.of(task, loose, known)
        try:
            wrong = _mismatched(task, space)
        except UnsupportedLayerError as error:
            wrong = {error.where}
        except (RuntimeError, ValueError, IndexError):
            if not shared - loose:
                raise
            wrong = shared - loose  # the model does not bear their outputs with an axis of examples
        if not wrong:
            space.verified = True
            return space
        if wrong <= loose:
            break
        loose |= wrong
    raise UnsupportedLayerError(
        "its per-example gradients do not add up to autograd's gradient",
        where=", ".join(sorted(loose)),
        remedy="freeze it (requires_grad=False) or rewrite it with standard layers",
    )


def _axes(task: Task) -> dict[str, int | None]:
    """Module → the axis of its input that runs over examples; None where there is none or calls disagree."""
    sizes = (EXAMPLES, EXAMPLES - 1) if len(task.train) >= EXAMPLES else (len(task.train),)
    read = [_input_shapes(task, n) for n in sizes]
    modules = dict(task.model.named_modules())
    out: dict[str, int | None] = {}
    for name in read[0]:
        found = {_axis(modules[name], shapes, sizes) for shapes in zip(*(r.get(name, []) for r in read), strict=False)}
        out[name] = found.pop() if len(found) == 1 else None
    return out


def _axis(module: nn.Module, shapes: tuple[tuple[int, ...], ...], sizes: tuple[int, ...]) -> int | None:
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return 0  # these say themselves which axis it is
    if isinstance(module, nn.EmbeddingBag) and all(len(s) == 1 for s in shapes):
        return 0  # one list of all bags, and where each begins
    if all(s and s[0] == n for s, n in zip(shapes, sizes, strict=True)):
        return 0
    if isinstance(module, nn.Embedding) and len(set(shapes)) == 1:
        return BROADCAST
    positional = isinstance(module, nn.Linear | nn.Embedding | nn.Bilinear | nn.LayerNorm | nn.RMSNorm)
    positional = positional or type(module).__name__ == "Conv1D"
    if positional and all(len(s) > 1 and s[1] == n for s, n in zip(shapes, sizes, strict=True)):
        return 1
    return None


def _input_shapes(task: Task, count: int) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of the first tensor every module was called with, in order; no hook stays."""
    part = task.train.batch(range(count))
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


def _mismatched(task: Task, space: ParameterSpace) -> set[str]:
    """Modules whose blocks' gradients, weighted by example and summed, differ from autograd's.

    The weights tell examples apart: a sum over the wrong axis would not show in an unweighted total.
    """
    part = task.train.batch(range(min(EXAMPLES, len(task.train))))
    x = move(part.x, task.device, task.dtype)
    params = space.parameters(task.model)
    with evaluating(task.model), Capture(task.model, space) as capture:
        signals = capture.forward(x)
        f = signals.f
        generator = torch.Generator().manual_seed(0)
        u = torch.randn(f.shape, generator=generator, dtype=torch.float64).to(f)
        weight = torch.rand(len(f), generator=generator, dtype=torch.float64).to(f) + 0.5
        pulled = signals.cotangents(u.unsqueeze(0))
        found = {
            b.name: torch.tensordot(weight, signals.form(b, pulled[b.name]).gradients()[0], 1) for b in space.blocks
        }
        truth = signals.parameter_gradient(params, u * weight.reshape(-1, *(1,) * (f.dim() - 1)))
    flat = space.pack(truth)
    scale = float(flat.norm()) / max(1.0, space.size**0.5)
    tolerance = TOLERANCE.get(task.dtype, 3e-2)
    wrong = set()
    for b in space.blocks:
        want = b.view(flat)
        if float((found[b.name] - want).norm()) > tolerance * (float(want.norm()) + scale):
            wrong.add(b.module)
    return wrong
