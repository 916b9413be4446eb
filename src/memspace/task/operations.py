"""Composite operations written out, wherever more than a plain gradient is taken.

Some of torch's fused operations have second derivatives that are wrong without a warning (layer, instance and batch
norm treat mean and scale as constant, ``det`` its inverse). Others have no forward mode (distances, bags of
embeddings), or a wrong rule for several cotangents at once. Inside :func:`written_out` each is computed from elementary
operations instead: the same numbers up to rounding, and right derivatives of every order. Values that a model computes
while gradients are switched off are constants there, as they are in reverse mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from memspace.task.bounded import within_norm

__all__ = ["bags", "written_out"]

# Functions below replace torch's and have its signatures, whatever their length: callers pass torch's arguments.
_HALF = (torch.float16, torch.bfloat16)


@contextmanager
def written_out() -> Iterator[None]:
    """Replace fused operations inside by elementary ones that can be differentiated any number of times.

    Where gradients are on at the entry, values computed with gradients off are constants for forward mode too.

    Yields:
        Nothing.
    """
    with sdpa_kernel(SDPBackend.MATH), _WrittenOut():
        yield


class _WrittenOut(TorchFunctionMode):
    """Puts the functions of this module in place of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self._gradients = torch.is_grad_enabled()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = _REPLACED.get(func, func)(*args, **(kwargs or {}))
        # Forward mode runs through no_grad, reverse mode does not.
        return _constant(result, args) if self._gradients and not torch.is_grad_enabled() else result


def _constant(result: Any, arguments: tuple[Any, ...]) -> Any:
    """Detach new tensors; arguments that an operation returns (in-place ones do) stay as they are."""
    if isinstance(result, Tensor):
        differentiable = result.is_floating_point() or result.is_complex()
        return result.detach() if differentiable and not any(result is a for a in arguments) else result
    if isinstance(result, tuple | list) and not isinstance(result, torch.Size):
        return type(result)([_constant(r, arguments) for r in result])
    return result


def _standardised(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in _HALF else x


def _like(out: Tensor, x: Tensor, widened: bool) -> Tensor:
    """Return float32 where some norms do under autocast, whatever they were given; else the dtype of x."""
    return out if widened and torch.is_autocast_enabled(x.device.type) else out.to(x.dtype)


def _by_channel(t: Tensor, x: Tensor) -> Tensor:
    return t.view(1, -1, *(1,) * (x.dim() - 2))


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    shape = [normalized_shape] if isinstance(normalized_shape, int) else normalized_shape
    out = _scaled(_standardised(_wide(input), tuple(range(-len(shape), 0)), eps), weight, bias)
    return _like(out, input, widened=True)


def _rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    x = _wide(input)
    axes = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    out = _scaled(x * (x.square().mean(axes, keepdim=True) + eps).rsqrt(), weight, None)
    return _like(out, input, widened=True)


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    x = _wide(input)
    normed = _standardised(x.reshape(len(x), num_groups, -1), (-1,), eps).reshape(x.shape)
    weight, bias = (None if t is None else _by_channel(t, x) for t in (weight, bias))
    return _like(_scaled(normed, weight, bias), input, widened=True)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return nnf.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if running_mean is not None:  # torch's own moves the running statistics
        nnf.batch_norm(input.detach(), running_mean, running_var, None, None, True, momentum, eps)
    x = _wide(input)
    normed = _standardised(x, (0, *range(2, x.dim())), eps)
    weight, bias = (None if t is None else _by_channel(t, x) for t in (weight, bias))
    return _like(_scaled(normed, weight, bias), input, widened=False)


def _batch_norm_of_torch(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    return _batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:
        return nnf.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if running_mean is not None:
        nnf.instance_norm(input.detach(), running_mean, running_var, None, None, True, momentum, eps)
    x = _wide(input)
    normed = _standardised(x, tuple(range(2, x.dim())), eps)
    weight, bias = (None if t is None else _by_channel(t, x) for t in (weight, bias))
    return _like(_scaled(normed, weight, bias), input, widened=False)


def _instance_norm_of_torch(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    return _instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    axes = None if dim == -1 else tuple(a for a in range(v.dim()) if a != dim % v.dim())
    size = v.norm() if axes is None else torch.linalg.vector_norm(v, 2, axes, keepdim=True) if axes else v.abs()
    return v * (g / size)


def _cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    apart: Tensor = torch.linalg.vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)
    return apart


def _pdist(input: Tensor, p: float = 2.0) -> Tensor:
    first, second = torch.triu_indices(len(input), len(input), 1, device=input.device)
    apart: Tensor = torch.linalg.vector_norm(input[first] - input[second], p, -1)
    return apart


def _det(input: Tensor) -> Tensor:
    sign_and_log: tuple[Tensor, Tensor] = _slogdet(input)
    return sign_and_log[0] * sign_and_log[1].exp()


def _slogdet(input: Tensor) -> Any:
    triangular, pivots = torch.linalg.lu_factor(input)
    diagonal = triangular.diagonal(dim1=-2, dim2=-1)
    places = torch.arange(1, input.shape[-1] + 1, device=input.device, dtype=pivots.dtype)
    swaps = (pivots != places).sum(-1)
    sign = diagonal.detach().sgn().prod(-1) * (1 - 2 * (swaps % 2)).to(diagonal.dtype)
    return torch.return_types.linalg_slogdet((sign, diagonal.abs().log().sum(-1)))  # type: ignore[attr-defined]


def _glu(input: Tensor, dim: int = -1) -> Tensor:
    value, gate = input.chunk(2, dim)
    return value * gate.sigmoid()


def _prelu(input: Tensor, weight: Tensor) -> Tensor:
    slope = _by_channel(weight, input) if weight.numel() > 1 and input.dim() > 1 else weight
    return torch.where(input > 0, input, slope * input)


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    return nnf.relu6(input + 3) / 6


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    if max_norm is not None:
        weight = within_norm(weight, max_norm, norm_type)
    rows = nnf.embedding(input, weight)
    if padding_idx is None:
        return rows
    return torch.where((input == padding_idx % len(weight)).unsqueeze(-1), rows.detach(), rows)


def _embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    tokens, weights, filled = bags(input, offsets, per_sample_weights, include_last_offset)
    if padding_idx is not None:
        filled = filled & (tokens != padding_idx % len(weight))
    rows = _embedding(tokens, weight, None, max_norm, norm_type)
    if weights is not None:
        rows = rows * weights.unsqueeze(-1)
    inside = filled.unsqueeze(-1)
    if mode == "max":
        largest = rows.masked_fill(~inside, float("-inf")).max(1).values
        return torch.where(filled.any(1, keepdim=True), largest, torch.zeros_like(largest))
    total = (rows * inside).sum(1)
    return total if mode == "sum" else total / filled.sum(1, keepdim=True).clamp_min(1)


def bags(
    tokens: Tensor, offsets: Tensor | None, weights: Tensor | None, include_last_offset: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Arrange bags given as one list and offsets as rows of equal length.

    Args:
        tokens: (N,) one list, or (B, L) rows already.
        offsets: (B,) where each bag starts in the list; None: rows already.
        weights: of the tokens, of their shape.
        include_last_offset: whether the last offset is the end of the list.

    Returns:
        Tokens (B, L), weights (B, L), and which places are filled (B, L).
    """
    if offsets is None:
        return tokens, weights, torch.ones_like(tokens, dtype=torch.bool)
    starts = offsets[:-1] if include_last_offset else offsets
    ends = torch.cat([offsets[1:], offsets.new_tensor([len(tokens)])])[: len(starts)]
    longest = int((ends - starts).max()) if len(starts) else 0
    places = starts.unsqueeze(1) + torch.arange(max(1, longest), device=offsets.device)
    filled = places < ends.unsqueeze(1)
    places = torch.where(filled, places, torch.zeros_like(places))
    return tokens[places], None if weights is None else weights[places], filled


_REPLACED: dict[Any, Callable[..., Any]] = {
    nnf.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    nnf.rms_norm: _rms_norm,
    torch.rms_norm: _rms_norm,
    nnf.group_norm: _group_norm,
    torch.group_norm: _group_norm,
    nnf.batch_norm: _batch_norm,
    torch.batch_norm: _batch_norm_of_torch,
    nnf.instance_norm: _instance_norm,
    torch.instance_norm: _instance_norm_of_torch,
    torch._weight_norm: _weight_norm,
    torch.cdist: _cdist,
    torch.functional.cdist: _cdist,
    torch.pdist: _pdist,
    nnf.pdist: _pdist,
    torch.det: _det,
    torch.linalg.det: _det,
    Tensor.det: _det,
    torch.slogdet: _slogdet,
    torch.linalg.slogdet: _slogdet,
    Tensor.slogdet: _slogdet,
    nnf.glu: _glu,
    nnf.prelu: _prelu,
    torch.prelu: _prelu,
    nnf.hardsigmoid: _hardsigmoid,
    nnf.embedding: _embedding,
    nnf.embedding_bag: _embedding_bag,
}
