"""An upper bound of how fast outputs change with the input: the product of the layers' largest stretches.

With it a distance to the boundary becomes a certificate: no smaller perturbation changes the decision (up to rounding).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from memspace.task.checks import evaluating
from memspace.task.laws.definition import Boundary
from memspace.task.task import Task

__all__ = ["certified_radius", "lipschitz_bound"]

# The largest slope of each activation; GELU's is Φ(√2) + √2 φ(√2), SiLU's is rounded up.
_SLOPES: dict[type[nn.Module], float] = {
    nn.Identity: 1.0,
    nn.Flatten: 1.0,
    nn.Dropout: 1.0,
    nn.ReLU: 1.0,
    nn.Tanh: 1.0,
    nn.Softplus: 1.0,
    nn.Sigmoid: 0.25,
    nn.GELU: 1.1291,
    nn.SiLU: 1.1,
}


def lipschitz_bound(task: Task, x: Tensor) -> float | str:
    """Compute L with ‖f(x) − f(x')‖ ≤ L‖x − x'‖ for all x, x'.

    The product of spectral norms of a ``Sequential``'s layers (Szegedy et al. 2014, section 4.3): never below the
    true constant, often far above.

    Args:
        task: the network.
        x: one input (1, ...), for the sizes of the pictures that convolutions see.

    Returns:
        L, outputs per unit of the input; or why no bound is known.
    """
    bound = 1.0
    with torch.no_grad(), evaluating(task.model):
        for module in _layers(task.model):
            stretch = _stretch(module, x)
            if stretch is None:
                return f"no Lipschitz bound for layer type {type(module).__name__}"
            bound *= stretch
            x = module(x)
    return bound


def certified_radius(law: Boundary, bound: float, margin: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Compute radii within which no decision changes: by the gaps, and by the Fisher–Rao distance.

    A gap moves by at most ``stretch``·L‖d‖; the Fisher–Rao length of a step is at most √sup λ_max(H)·L‖d‖. The second
    radius is never the larger: the distance to the boundary saturates where gaps continue to grow.

    Args:
        law: the boundary of the output law.
        bound: L of :func:`lipschitz_bound`.
        margin: (n,) smallest gaps, in units of the outputs.
        distance: (n,) Fisher–Rao distances to the boundary, nats^½.

    Returns:
        two tensors (n,) in units of the input.
    """
    bound = max(bound, torch.finfo(torch.float64).tiny)
    return margin / (law.stretch * bound), distance / (math.sqrt(law.largest_information) * bound)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) is nn.Sequential:
        for child in module:
            yield from _layers(child)
    else:
        yield module


def _stretch(module: nn.Module, x: Tensor) -> float | None:
    kind = type(module)
    if kind is nn.GELU and module.approximate != "none":
        return None
    if kind in _SLOPES:
        return _SLOPES[kind]
    if kind is nn.Linear:
        return float(torch.linalg.matrix_norm(module.weight.double(), 2))
    if isinstance(module, nn.Conv2d) and kind is nn.Conv2d:
        return _convolution(module, x)
    if isinstance(module, nn.LeakyReLU | nn.ELU):
        return max(1.0, float(module.negative_slope if isinstance(module, nn.LeakyReLU) else module.alpha))
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return _pooling(module)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_var is not None:
        scale = torch.rsqrt(module.running_var.double() + module.eps)
        return float((scale * (module.weight.double() if module.affine else 1.0)).abs().max())
    return None


def _convolution(module: nn.Conv2d, x: Tensor) -> float | None:
    """A zero-padded convolution is part of a circular one on the padded grid; its norm is the largest over frequencies.

    Sedghi et al. 2019, for the circular one.
    """
    plain = module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
    if not plain or isinstance(module.padding, str):
        return None
    grid = [s + 2 * p for s, p in zip(x.shape[-2:], module.padding, strict=True)]
    transfer = torch.fft.fft2(module.weight.double(), s=grid).permute(2, 3, 0, 1)
    return float(torch.linalg.svdvals(transfer).max())


def _pooling(module: nn.MaxPool2d | nn.AvgPool2d) -> float | None:
    """Windows that do not overlap: a maximum stretches by 1 at most, a mean over m numbers by 1/√m."""
    size, stride = (v if isinstance(v, tuple) else (v, v) for v in (module.kernel_size, module.stride))
    dilated = isinstance(module, nn.MaxPool2d) and module.dilation not in (1, (1, 1))
    if dilated or any(s < k for s, k in zip(stride, size, strict=True)):
        return None
    if isinstance(module, nn.MaxPool2d):
        return 1.0
    counted = module.divisor_override or math.prod(size)
    padded = module.padding not in (0, (0, 0)) or module.ceil_mode
    return None if padded else math.sqrt(math.prod(size)) / counted
