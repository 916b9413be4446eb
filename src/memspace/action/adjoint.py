"""Depth as an optimal-control problem: hidden states are steered by the layers' parameters θ_l.

Minimise E[ℓ(h_L)] + Σ_l E[R_l(h_l, θ_l)] subject to h_{l+1} = F_l(h_l, θ_l). With co-states p_L = −∂ℓ/∂h_L and

    H_l(h, p, θ) = E[⟨p, F_l(h, θ) − h⟩ − R_l(h, θ)],      p_l = p_{l+1} + ∂H_l/∂h_l,

∂H_l/∂θ_l is minus the gradient of the whole cost in θ_l, and p_l minus its gradient in h_l. Weight decay is the running
cost R_l = (λ/2)‖θ_l‖²; a deformation's is the norm of its velocity (``memspace.action.landmarks``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memspace.action.chain import Chain
from memspace.action.states import replacing
from memspace.task.data import Inputs, call_model

__all__ = ["Adjoint", "Running", "adjoint"]

Running = Callable[[nn.Module, Tensor], Tensor]  # (block, h_l) ↦ the step's running cost per example, (B,)


@dataclass(frozen=True)
class Adjoint:
    """One batch, solved backwards.

    Args:
        h: states at l = 0 … L, each (B, *shape).
        p: co-states at l = 0 … L, each (B, *shape).
        loss: (B,).
        hamiltonian: (L, B), ⟨p_{l+1}, h_{l+1} − h_l⟩ − R_l of every layer and example.
        gradient: per layer, parameter's name within the block → Σ over the batch of ∂H/∂θ.
    """

    h: tuple[Tensor, ...]
    p: tuple[Tensor, ...]
    loss: Tensor
    hamiltonian: Tensor
    gradient: tuple[dict[str, Tensor], ...]


def adjoint(
    model: nn.Module,
    chain: Chain,
    x: Inputs,
    loss: Callable[[Tensor], Tensor],
    running: Running | None = None,
) -> Adjoint:
    """Solve forwards, cutting the graph at every block, then backwards block by block.

    Paths that pass a block by (long skip connections) enter the co-states as they should. Exact, by automatic
    differentiation.

    Args:
        model: the network.
        chain: the blocks that make its depth.
        x: inputs of B examples.
        loss: outputs ↦ one loss per example, (B,).
        running: the layers' running cost R_l; none means R = 0.

    Returns:
        States, co-states, Hamiltonians and their gradients.
    """
    outputs: list[Tensor] = []  # h_l as the block gave it, with its graph
    taken: list[Tensor] = []  # the leaf that goes on in its place

    def cut(_: int, h: Tensor) -> Tensor:
        outputs.append(h)
        taken.append(h.detach().requires_grad_())
        return taken[-1]

    with torch.enable_grad(), replacing(model, chain, cut):
        losses = loss(call_model(model, x))
    layers = len(chain)
    # The model itself goes on holding h_0, not the leaf: what passes the blocks by starts there.
    around = [outputs[0]] if outputs[0].requires_grad else []
    p = [torch.zeros_like(t) for t in taken]

    def pull(value: Tensor, below: int, parameters: list[Tensor]) -> tuple[Tensor | None, ...]:
        """Add a value's derivatives by the states h_0 … h_below to the co-states; give those by the parameters."""
        inputs = [*taken[: below + 1], *around]
        back = torch.autograd.grad(value, [*inputs, *parameters], allow_unused=True, retain_graph=True)
        for j, g in zip([*range(below + 1), 0], back[: len(inputs)], strict=False):
            if g is not None:
                p[j] = p[j] + g
        return back[len(inputs) :]

    pull(-losses.sum(), layers, [])
    hamiltonian: list[Any] = [None] * layers
    gradients: list[dict[str, Tensor]] = [{} for _ in range(layers)]
    for k in reversed(range(layers)):
        block = chain.blocks[k].module
        names = {n: t for n, t in block.named_parameters() if t.requires_grad}
        with torch.enable_grad():
            cost = running(block, taken[k]) if running is not None else torch.zeros_like(losses)
            inner = (p[k + 1] * outputs[k + 1]).reshape(len(losses), -1).sum(1)
            total = (inner - cost).sum()
        back = pull(total, k, list(names.values()))
        gradients[k] = {
            n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(names.items(), back, strict=True)
        }
        moved = (p[k + 1] * (outputs[k + 1] - taken[k])).reshape(len(losses), -1).sum(1)
        hamiltonian[k] = (moved - cost).detach()
    states = tuple(t.detach() for t in taken)
    return Adjoint(states, tuple(q.detach() for q in p), losses.detach(), torch.stack(hamiltonian), tuple(gradients))
