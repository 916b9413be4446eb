"""Per-example gradients of any parameters: the whole model differentiated example by example, exactly.

There are four manners, from the fastest to the plainest: examples and cotangents mapped together (``vmap``),
cotangents one by one, examples one by one with their cotangents mapped, and plain autograd throughout. Some models
cannot be mapped (branches that depend on data), and some mapping rules of torch are wrong (``cdist`` with several
cotangents). The next manner is used where one raises, or where its proof fails.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from memspace.errors import UnsupportedLayerError
from memspace.task.data import Inputs, call_model, take
from memspace.task.functional import functional_call
from memspace.task.operations import written_out
from memspace.task.restored import fresh_buffers

__all__ = ["MAPPED_ONCE", "PLAINEST", "per_example"]

MAPPED_ONCE = 1  # the manner that runs the network again for every cotangent
PLAINEST = 3  # the last manner: plain autograd


def per_example(
    model: nn.Module, x: Inputs, names: Sequence[str], u: Tensor, manner: int = 0
) -> tuple[dict[str, Tensor], int]:
    """Compute the gradients of uᵀf for every cotangent and example.

    Args:
        model: the network.
        x: the batch's inputs.
        names: of the parameters.
        u: (K, B, ..., C) output cotangents.
        manner: the first to try, 0 to ``PLAINEST``.

    Returns:
        Name to gradients (K, B, *shape), and the manner that computed them.

    Raises:
        UnsupportedLayerError: the model cannot be run on one example alone.
    """
    # With gradients on, parameters outside ``names`` would keep the whole graph alive.
    with torch.no_grad(), warnings.catch_warnings():
        # torch warns of operations that it maps one by one; the result is the same.
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        for at in range(manner, PLAINEST):
            try:
                if at == 2:
                    return _one_by_one(model, x, names, u, mapped=True), at
                with written_out():
                    return _mapped(model, x, names, u, at), at
            except Exception:  # whatever a model raises under a mapping, plain autograd decides
                continue
        try:
            return _one_by_one(model, x, names, u, mapped=False), PLAINEST
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise UnsupportedLayerError(
                f"the model cannot be differentiated on one example alone: {reason}",
                where=type(model).__name__,
                remedy="let its forward accept a batch of one example",
            ) from error


def _mapped(model: nn.Module, x: Inputs, names: Sequence[str], u: Tensor, manner: int) -> dict[str, Tensor]:
    params = dict(model.named_parameters())
    chosen = {n: params[n].detach() for n in names}

    def pull_of(alone: Inputs) -> Callable[[Tensor], dict[str, Tensor]]:
        expanded = take(alone, None)

        def outputs(p: dict[str, Tensor]) -> Tensor:
            args = () if isinstance(expanded, dict) else expanded if isinstance(expanded, tuple) else (expanded,)
            state = {**fresh_buffers(model), **p}
            f = functional_call(model, state, args, expanded if isinstance(expanded, dict) else {})
            assert isinstance(f, Tensor)
            return f.squeeze(0)

        pull = vjp(outputs, chosen)[1]
        return lambda d: dict(pull(d)[0])

    if manner == 0:
        gradients = vmap(lambda alone, du: vmap(pull_of(alone))(du))(x, u.transpose(0, 1))
        return {n: g.transpose(0, 1) for n, g in gradients.items()}
    parts = [vmap(lambda alone, d: pull_of(alone)(d))(x, du) for du in u]
    return {n: torch.stack([p[n] for p in parts]) for n in names}


def _one_by_one(model: nn.Module, x: Inputs, names: Sequence[str], u: Tensor, mapped: bool) -> dict[str, Tensor]:
    params = dict(model.named_parameters())
    chosen = [params[n] for n in names]
    gradients = [u.new_zeros(*u.shape[:2], *p.shape) for p in chosen]
    for i in range(u.shape[1]):
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            f = call_model(model, take(x, slice(i, i + 1)))
        if not isinstance(f, Tensor) or not f.requires_grad:
            continue  # no parameter took part in this example's outputs
        for k, g in _pulled(f, chosen, u[:, i : i + 1], mapped):
            for into, grad in zip(gradients, g, strict=True):
                if grad is not None:
                    into[k, i] = grad.to_dense() if grad.is_sparse else grad
    return dict(zip(names, gradients, strict=True))


def _pulled(
    f: Tensor, chosen: Sequence[Tensor], u: Tensor, mapped: bool
) -> list[tuple[int | slice, Sequence[Tensor | None]]]:
    """Cotangents (a number or a slice), and the gradients of all parameters for them."""
    if mapped:
        grads = torch.autograd.grad(f, chosen, u, is_grads_batched=True, allow_unused=True)
        return [(slice(None), grads)]
    last = len(u) - 1
    return [(k, torch.autograd.grad(f, chosen, du, retain_graph=k < last, allow_unused=True)) for k, du in enumerate(u)]
