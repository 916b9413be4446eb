"""Nielsen's complexity of random one-qubit circuits: the least length to the gate they make, against their time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.geometry.manifolds.su2 import SU2, coordinates

__all__ = ["Growth", "growth"]


@dataclass(frozen=True)
class Growth:
    """Complexity of random circuits by the number of gates.

    Args:
        spent: (T,) length of the circuit as it was built; an upper bound of its complexity.
        least: (T,) mean complexity over circuits.
        error: (T,) standard error of that mean.
        plateau: mean complexity of a gate drawn at random from the whole group.
        plateau_error: its standard error.
    """

    spent: Tensor
    least: Tensor
    error: Tensor
    plateau: float
    plateau_error: float


def growth(penalty: float, gates: int, *, angle: float = 0.25, circuits: int = 24, seed: int = 0) -> Growth:
    """Measure the complexity of circuits of random rotations about the two cheap axes.

    Each gate costs ``angle``, so the circuit of k gates has spent k·angle; its complexity grows with that at first and
    then levels off at the mean distance of a random gate (Brown & Susskind 2018 for the picture).

    Args:
        penalty: p of the third axis.
        gates: number of gates T.
        angle: of each rotation, ±.
        circuits: number of circuits drawn.
        seed: of the draws.

    Returns:
        Complexity after 1, ..., T gates, exact for each circuit.
    """
    generator = torch.Generator().manual_seed(seed)
    manifold, origin = SU2(penalty), torch.zeros(3, dtype=torch.float64)
    values = torch.zeros(circuits, gates, dtype=torch.float64)
    for c in range(circuits):
        x = origin
        for k in range(gates):
            v = torch.zeros(3, dtype=torch.float64)
            axis, sign = torch.randint(0, 2, (2,), generator=generator).tolist()
            v[axis] = angle * (2 * sign - 1)
            x = manifold.product(v, x)
            values[c, k] = manifold.distance(origin, x)
    drawn = torch.randn(8 * circuits, 4, generator=generator, dtype=torch.float64)
    far = torch.stack([manifold.distance(origin, coordinates(q / q.norm())) for q in drawn])
    return Growth(
        angle * torch.arange(1, gates + 1, dtype=torch.float64),
        values.mean(0),
        values.std(0) / circuits**0.5,
        float(far.mean()),
        float(far.std()) / len(far) ** 0.5,
    )
