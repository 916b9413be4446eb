"""How a training is watched."""

from __future__ import annotations

from dataclasses import dataclass

from memspace.arguments import check_fields
from memspace.limits import COUNT, SEED, Limit

__all__ = ["WatchSettings"]

_LIMITS = {
    "probe": Limit(2, 2**31, whole=True),
    "checkpoints": Limit(3, 2**31, whole=True),
    "spacing": Limit(1e-12, 1e12),
    "budget": Limit(1e-9, 1, below=True),
    "seed": SEED,
}


@dataclass(frozen=True)
class WatchSettings:
    """How a training is watched.

    Args:
        probe: number of examples whose predictions are followed.
        checkpoints: most of them kept.
        spacing: nats^½ between two checkpoints, and the ruler of the length.
        budget: share of the training's time that watching may take, setting up included.
        every: evaluate the probe every so many steps whatever it costs; by default as often as the budget allows.
        slow: also take what needs gradients: excess, effective dimension, leave-one-out gap.
        seed: of the choice of probe examples.
    """

    probe: int = 256
    checkpoints: int = 64
    spacing: float = 0.05
    budget: float = 0.025
    every: int | None = None
    slow: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, besides=(*_LIMITS, "every"))
        for name, limit in _LIMITS.items():
            object.__setattr__(self, name, limit(getattr(self, name), f"WatchSettings.{name}"))
        object.__setattr__(self, "every", COUNT.optional(self.every, "WatchSettings.every"))
