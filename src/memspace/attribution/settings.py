"""What a user may set about influence besides the question itself."""

from __future__ import annotations

from dataclasses import dataclass

from memspace.limits import BYTES, COUNT, SEED, WHOLE, Limit, one_of

__all__ = ["InfluenceSettings"]


@dataclass(frozen=True)
class InfluenceSettings:
    """Budget, accuracy, cost of calibration, and what else is told next to the scores.

    Args:
        memory: bytes that may be held, excluding model and data.
        rows: Fisher rows the dual holds at most; their Gram matrix is decomposed.
        tolerance: of the iterative engine, the estimated relative error of scores.
        limit: of the iterative engine, its steps at most.
        retrainings: networks trained on halves of the data to choose the damping, where the task can train and no
            damping is given; 0: none, the damping is then uncalibrated.
        probes: outcomes they are compared on.
        modes: leading eigenmodes told apart in a split by modes.
        seed: random seed.
        batch: examples at a time (None: by the size of the network's signals).
        chunk: training examples whose scores are written at a time when scores go to a file (None: by their number).
        split: ``layers`` or ``modes``: also the parts of the scores, (Q, N, L); they sum to the scores.
        tokens: for sequences, ``queries``: each position of a query is an outcome of its own; ``training``: also the
            scores by position of the training examples, (Q, N, T). Split and tokens are of :func:`memspace.influence`.

    Raises:
        SettingsError: a number is out of its range, or a word not one of these.
    """

    memory: int = 4 * 2**30
    rows: int = 3_500
    tolerance: float = 0.05
    limit: int = 100
    retrainings: int = 16
    probes: int = 100
    modes: int = 10
    seed: int = 0
    batch: int | None = None
    chunk: int | None = None
    split: str | None = None
    tokens: str | None = None

    def __post_init__(self) -> None:
        limits = {"memory": BYTES, "rows": COUNT, "tolerance": Limit(1e-15, 1, below=True), "limit": COUNT}
        limits |= {"retrainings": WHOLE, "probes": COUNT, "modes": WHOLE, "seed": SEED}
        for name, limit in limits.items():
            object.__setattr__(self, name, limit(getattr(self, name), name))
        for name in ("batch", "chunk"):
            object.__setattr__(self, name, COUNT.optional(getattr(self, name), name))
        if self.split is not None:
            one_of(self.split, ("layers", "modes"), "split")
        if self.tokens is not None:
            one_of(self.tokens, ("queries", "training"), "tokens")
