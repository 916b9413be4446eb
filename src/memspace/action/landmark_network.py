"""Landmark matching as the training of a residual network: the same optimal-control problem, discrete in time.

L layers h ↦ h + (1/L) v_l(h) with v_l(x) = Σ_j K(x, q_j) α_lj, the q_j the landmarks where they are at that layer. The
parameters α_l are trained on ‖q_L − y‖²/2σ² + (1/L) Σ_l ½‖v_l‖²_V, ‖v_l‖²_V = Σ_jk K(q_j, q_k)⟨α_lj, α_lk⟩. As L grows
the trained path tends to the geodesic found by shooting, with an error of order 1/L.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.action.adjoint import adjoint
from memspace.action.chain import find_chain
from memspace.action.landmarks import kernel

__all__ = ["LandmarkNetwork", "TrainedMatch", "train_match"]


class _Layer(nn.Module):
    """One step of the flow: the first ``len(alpha)`` points carry the velocity field, any others ride along."""

    def __init__(self, points: int, dimension: int, layers: int, scale: float) -> None:
        super().__init__()
        self.layers, self.scale = layers, scale
        self.alpha = nn.Parameter(torch.zeros(points, dimension, dtype=torch.float64))

    def forward(self, h: Tensor) -> Tensor:
        """(B, n + m, d) → the same."""
        centres = h[:, : len(self.alpha)]
        return h + kernel(h, centres, self.scale) @ self.alpha / self.layers

    def energy(self, h: Tensor) -> Tensor:
        """½‖v‖²_V/L of this layer's velocity, (B,)."""
        centres = h[:, : len(self.alpha)]
        return (kernel(centres, centres, self.scale) * (self.alpha @ self.alpha.t())).sum((1, 2)) / (2 * self.layers)


class LandmarkNetwork(nn.Module):
    """A residual network that is a diffeomorphism for enough layers; α starts at zero: the identity.

    Args:
        points: number of landmarks n.
        dimension: of their space, d.
        layers: L.
        scale: s of the Gaussian kernel.
    """

    def __init__(self, points: int, dimension: int, layers: int, scale: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Layer(points, dimension, layers, scale) for _ in range(layers))

    def forward(self, h: Tensor) -> Tensor:
        """Move landmarks, and points that ride along, through all layers.

        Args:
            h: (B, n + m, d): landmarks first.

        Returns:
            Where they end, of the same shape.
        """
        for block in self.blocks:
            h = block(h)
        return h

    def path(self, q: Tensor) -> Tensor:
        """Follow landmarks layer by layer.

        Args:
            q: (n, d).

        Returns:
            (L + 1, n, d).
        """
        states = [q.unsqueeze(0)]
        for block in self.blocks:
            states.append(block(states[-1]))
        return torch.cat(states)

    def energies(self, q: Tensor) -> Tensor:
        """Compute ½‖v_l‖²_V/L of every layer.

        Args:
            q: landmarks at the first layer, (n, d).

        Returns:
            (L,).
        """
        states = self.path(q)
        return torch.cat([b.energy(states[k : k + 1]) for k, b in enumerate(self.blocks)])  # type: ignore[operator]


@dataclass(frozen=True)
class TrainedMatch:
    """A trained match.

    Args:
        path: (L + 1, n, d) landmarks along depth.
        cost: matching and energy.
        gradient: largest entry of the cost's gradient.
        hamiltonian: (L,), ⟨p_{l+1}, v_l⟩ − ½‖v_l‖²_V at every layer, per unit of depth; nearly constant.
        momentum: (n, d), the co-state at the first layer.
    """

    path: Tensor
    cost: float
    gradient: float
    hamiltonian: Tensor
    momentum: Tensor


def train_match(
    network: LandmarkNetwork, q: Tensor, y: Tensor, *, sigma: float, steps: int = 400, tolerance: float = 1e-9
) -> TrainedMatch:
    """Train the network to match landmarks, by L-BFGS on the whole cost until its gradient is small.

    Args:
        network: trained in place.
        q: landmarks (n, d), float64.
        y: where they belong, (n, d).
        sigma: σ of the matching term ‖q_L − y‖²/2σ².
        steps: iterations at most.
        tolerance: largest entry of the gradient at which it ends.

    Returns:
        The path, and the co-states that make it comparable with shooting.
    """
    target = y.unsqueeze(0)

    def miss(f: Tensor) -> Tensor:
        return (f - target).square().sum((1, 2)) / (2 * sigma**2)

    def cost() -> Tensor:
        return miss(network(q.unsqueeze(0)))[0] + network.energies(q).sum()

    parameters = list(network.parameters())
    descent = torch.optim.LBFGS(
        parameters,
        max_iter=steps,
        tolerance_grad=tolerance,
        tolerance_change=0,
        history_size=40,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        value = cost()
        for p, g in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
            p.grad = g
        return value.detach()

    descent.step(closure)  # type: ignore[no-untyped-call]
    final = cost()
    worst = max(float(g.abs().max()) for g in torch.autograd.grad(final, parameters))
    for p in parameters:
        p.grad = None
    start = q.unsqueeze(0)
    chain = find_chain(network, start, "blocks.*")
    solved = adjoint(network, chain, start, miss, lambda block, h: block.energy(h))  # type: ignore[operator]
    along = torch.cat(solved.h).detach()
    return TrainedMatch(along, float(final.detach()), worst, len(chain) * solved.hamiltonian[:, 0], solved.p[0][0])
