"""Settings of an audit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from memspace.limits import BYTES, DAMPING, SEED, WHOLE, Limit, one_of

__all__ = ["REPRESENTATIONS", "AuditSettings"]

REPRESENTATIONS = ("auto", "dual", "ekfac")
BITS = Limit(0, 1e300)
REFITS = Limit(0, 5, whole=True)


@dataclass(frozen=True)
class AuditSettings:
    """What a user may set.

    Args:
        damping: γ, from 1e-30 to 1e30; None: chosen by the stated rule.
        memory: bytes the audit may hold besides model and data.
        seed: of every random choice, from 0 to 2³¹ − 1.
        queries: test examples whose predictions are explained; None: the most instructive ones.
        representation: ``auto``, ``dual`` or ``ekfac``.
        capacity: bits of random labels the architecture stores, where measured (``memspace capacity``).
        refits: networks trained without a fifth of the data each, at most, where the task can train: five cover every
            example (see ``plan.make_plan``); None: as many as the number of examples asks for.

    Raises:
        SettingsError: one of them is out of its range.
    """

    damping: float | None = None
    memory: int = 4 * 2**30
    seed: int = 0
    queries: tuple[int, ...] | None = None
    representation: str = "auto"
    capacity: float | None = None
    refits: int | None = None

    def __post_init__(self) -> None:
        checked = {
            "damping": DAMPING.optional(self.damping, "damping"),
            "memory": BYTES(self.memory, "memory"),
            "seed": SEED(self.seed, "seed"),
            "queries": _queries(self.queries),
            "representation": one_of(self.representation, REPRESENTATIONS, "representation"),
            "capacity": BITS.optional(self.capacity, "capacity"),
            "refits": REFITS.optional(self.refits, "refits"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def _queries(queries: Any) -> tuple[int, ...] | None:
    """Positions in the test data; that they are there is checked once the data are known."""
    if queries is None:
        return None
    listed = [queries] if isinstance(queries, str) or not isinstance(queries, Iterable) else list(queries)
    return tuple(WHOLE(q, "queries") for q in listed) or None
