"""The proof of a pass: its per-example gradients, weighted by random numbers and summed, equal autograd's.

For cotangents u_kb and Gaussian weights r_kb the pass's Σ r_kb G_kb is compared with autograd's gradient of
Σ r_kb u_kbᵀ f_b, block by block. One backward pass proves all cotangents at once. The weights tell examples apart: a
batch that is permuted inside the model does not change an unweighted sum, but does change a weighted one.

False negatives and positives: errors E_kb shift the sum by a Gaussian matrix of mean square Σ‖E_kb‖². The tolerance t
is relative to the block's weighted sum, whose mean square is Σ‖G_kb‖². An error of relative size ε stays hidden with a
probability of at most 0.8 t/ε, reached where the error has a single direction. t is three times the square root of the
dtype's rounding unit (0.001 in float32, 4.5e-8 in float64): half of the digits, where sums of rounding errors take
about a quarter.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

import torch
from torch import Tensor, nn

from memspace.errors import UnsupportedLayerError
from memspace.passes.capture import Signals
from memspace.passes.space import ParameterSpace

__all__ = ["RefutedError", "mismatched", "record_of", "tolerance", "uncalled"]


class RefutedError(Exception):
    """The signals of some modules do not reproduce autograd's gradient; caught where a pass is run.

    Args:
        modules: their names.
        cotangents: number of cotangents pulled back at once.
    """

    def __init__(self, modules: set[str], cotangents: int = 1) -> None:
        super().__init__(", ".join(sorted(modules)))
        self.modules, self.cotangents = modules, cotangents


def tolerance(dtype: torch.dtype) -> float:
    """Give the relative difference above which two sums of gradients are not the same up to rounding.

    Args:
        dtype: of the gradients.

    Returns:
        3 √eps.
    """
    return 3 * math.sqrt(torch.finfo(dtype).eps)


def mismatched(
    space: ParameterSpace,
    parameters: Mapping[str, nn.Parameter],
    signals: Signals,
    u: Tensor,
    pulled: Mapping[str, Tensor],
    generator: torch.Generator,
) -> set[str]:
    """Find the modules whose per-example gradients fail the proof.

    Args:
        space: the parameters, laid out in blocks.
        parameters: by name.
        signals: of the forward pass.
        u: (K, B, ..., C) output cotangents.
        pulled: what ``Signals.cotangents`` returned for them.
        generator: of the random weights.

    Returns:
        Names of the modules.

    Raises:
        UnsupportedLayerError: autograd's own gradient is NaN or infinite.
    """
    r = torch.randn(u.shape[:2], generator=generator, dtype=torch.float64).to(u)
    together = torch.einsum("kb,kb...->b...", r, u)
    flat = space.pack(signals.parameter_gradient(parameters, together))
    if not bool(torch.isfinite(flat).all()) and bool(torch.isfinite(u).all()):
        wrong = {b.module for b in space.blocks if not bool(torch.isfinite(b.view(flat)).all())}
        raise UnsupportedLayerError(
            "the gradient of the outputs is NaN or infinite though the outputs are finite",
            where=f"parameters of {', '.join(sorted(m or 'the model' for m in wrong))}",
            remedy="guard the operation behind them: a root, a norm or a division at 0 has no derivative",
        )
    scale = float(flat.norm()) / max(1.0, space.size**0.5)
    wrong = set()
    for b in space.blocks:
        want = b.view(flat)
        weighted = signals.form(b, pulled[b.name]).pull(r.unsqueeze(-1))[0]
        off = float((weighted - want).norm())
        if not off <= tolerance(u.dtype) * (float(want.norm()) + scale):
            wrong.add(b.module)
    return wrong


def record_of(signals: Signals, parameters: Mapping[str, nn.Parameter]) -> Hashable:
    """Describe what a forward pass did.

    Args:
        signals: of the forward pass.
        parameters: by name.

    Returns:
        The calls of modules with their shapes but for numbers of examples and positions, the names of the graph's
        operations, and the parameters that took part.
    """
    batch = len(signals.f)
    calls = tuple((name, tuple(c.pattern(batch) for c in cs)) for name, cs in signals.record.items())
    leaves, operations = _graph(signals.graph)
    used = tuple(n for n, p in parameters.items() if id(p) in leaves)
    return calls, tuple(sorted(operations)), used


def uncalled(space: ParameterSpace, signals: Signals, parameters: Mapping[str, nn.Parameter]) -> set[str]:
    """Find modules whose parameters took part in the outputs without a call: another module uses their weights.

    Args:
        space: the parameters, laid out in blocks.
        signals: of the forward pass.
        parameters: by name.

    Returns:
        Names of the modules.
    """
    leaves, _ = _graph(signals.graph)
    modules = set()
    for b in space.blocks:
        read = signals.by_example(b) or signals.read(b).calls
        if not read and any(id(parameters[n]) in leaves for n in b.names):
            modules.add(b.module)
    return modules


def _graph(f: Tensor) -> tuple[set[int], list[str]]:
    """Ids of the leaves that f depends on, and the names of the operations in between."""
    leaves: set[int] = set()
    names: list[str] = []
    if f.grad_fn is None:
        return leaves, names
    seen, waiting = {f.grad_fn}, [f.grad_fn]
    while waiting:
        node = waiting.pop()
        name = node.name()
        names.append(name)
        if name.endswith("AccumulateGrad"):
            leaves.add(id(node.variable))  # type: ignore[attr-defined]
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return leaves, names
