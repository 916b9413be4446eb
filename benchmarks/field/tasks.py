"""The list of the field trial: which data, network, size, wrong labels and refits. None of it is chosen by a result."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from itertools import count

__all__ = ["SMALL", "Job", "jobs"]


@dataclass(frozen=True)
class Job:
    """One network, trained and audited.

    Args:
        source, network: by name.
        n: training examples at most; of a table at most 0.7 of what it has.
        noise: share of wrong labels (of shifted targets in regression); kind: ``uniform``, ``pairs`` (each class is
            taken for the next one) or ``hard`` (the examples that a network is least sure of).
        refits: ``all`` (as many as the audit asks for), ``one`` (a single refit allowed) or ``none``.
        rates: also record the training at one and at three times the rate.
    """

    source: str
    network: str
    n: int
    noise: float = 0.0
    kind: str = "uniform"
    refits: str = "all"
    seed: int = 0
    rates: bool = False

    @property
    def name(self) -> str:
        """For people and for files."""
        wrong = f"-{self.kind}{round(100 * self.noise)}" if self.noise else "-clean"
        return f"{self.source}-{self.network}-{self.n}{wrong}-{self.refits}-{self.seed}" + ("-rates" * self.rates)

    @property
    def key(self) -> str:
        """Tells jobs apart."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:12]

    @property
    def condition(self) -> str:
        """What coverage is reported by."""
        return "clean" if not self.noise else f"{self.kind} {self.noise:.0%}"


# Tables and generators with classes, a network for each and how many examples it trains on.
CLASSES = (
    ("iris", "linear", 100),
    ("wine", "perceptron", 120),
    ("breast-cancer", "perceptron", 300),
    ("digits", "convolutional", 600),
    ("blobs", "perceptron", 240),
    ("blobs-overlap", "perceptron", 240),
    ("blobs-overlap", "linear", 150),
    ("moons", "overfit", 200),
    ("circles", "perceptron", 200),
    ("clusters", "deep", 300),
    ("overlap", "perceptron", 250),
    ("overlap", "overfit", 150),
    ("imbalance", "perceptron", 400),
    ("few-rows", "deep", 100),
    ("duplicated", "perceptron", 240),
    ("constant-columns", "momentum", 200),
    ("blobs-fifty", "perceptron", 600),
    ("votes", "perceptron", 500),
    ("party", "perceptron", 500),
    ("affairs", "perceptron", 500),
    ("cars-origin", "perceptron", 250),
    ("airports", "perceptron", 1200),
    ("weather", "deep", 600),
    ("gun-point", "recurrent", 140),
    ("power-demand", "recurrent", 300),
    ("arrow-heads", "perceptron", 140),
    ("leaves", "perceptron", 300),
    ("motions", "recurrent", 56),
    ("sentences", "linear", 400),
    ("sentences", "perceptron", 600),
    ("fashion", "convolutional", 500),
    ("fashion", "perceptron", 100),
    ("words", "attention", 500),
)
WRONG = (
    (0.05, "uniform"),
    (0.1, "uniform"),
    (0.2, "uniform"),
    (0.3, "uniform"),
    (0.1, "pairs"),
    (0.2, "pairs"),
    (0.3, "pairs"),
    (0.1, "hard"),
    (0.2, "hard"),
)
OTHERS = (
    Job("spector", "linear", 22),
    Job("diabetes", "linear", 300),
    Job("diabetes", "perceptron", 300),
    Job("diabetes", "perceptron", 300, 0.05),
    Job("linnerud", "linear", 14),
    Job("engel", "perceptron", 160, 0.05),
    Job("stackloss", "linear", 14),
    Job("statecrime", "linear", 35),
    Job("cars-mpg", "perceptron", 270, 0.05),
    Job("friedman", "perceptron", 300),
    Job("friedman", "perceptron", 300, 0.05, seed=1),
    Job("friedman", "deep", 500, refits="none"),
    Job("heavy-tailed", "perceptron", 300),
    Job("counts", "perceptron", 300),
    Job("counts", "linear", 200, refits="none"),
    Job("doctor-visits", "perceptron", 800),
    Job("executions", "linear", 12),
    Job("several-bits", "perceptron", 300),
    Job("several-bits", "linear", 200, refits="none"),
    Job("digit-bits", "perceptron", 500),
    Job("characters", "characters", 150),
    Job("fashion", "convolutional", 5000, 0.1, refits="one"),
    Job("digits", "perceptron", 1000, 0.1, refits="one"),
    Job("blobs-overlap", "perceptron", 1500, 0.2, "pairs", refits="one"),
    Job("moons", "perceptron", 1000, 0.1, "uniform", refits="one"),
)
RATES = tuple(
    Job(source, network, n, rates=True, refits="none", seed=seed)
    for source, network, n in (
        ("digits", "perceptron", 300),
        ("blobs-overlap", "momentum", 240),
        ("wine", "deep", 120),
        ("clusters", "momentum", 200),
        ("circles", "perceptron", 200),
        ("friedman", "perceptron", 200),
        ("votes", "momentum", 300),
        ("power-demand", "recurrent", 200),
    )
    for seed in (0,)
)
SMALL = 22  # jobs of a small run


def jobs(small: bool = False) -> list[Job]:
    """All jobs: each table clean, twice, and under every noise; some without refits; seeds of their own."""
    number, found = count(), []
    turn = 0
    for source, network, n in CLASSES:
        found += [Job(source, network, n, seed=next(number)) for _ in range(2)]
        for share, kind in WRONG:
            turn += 1
            refits = "none" if turn % 7 == 0 else "all"
            found.append(Job(source, network, n, share, kind, refits, next(number)))
    found += [replace(j, seed=j.seed + 10 * k) for j in OTHERS for k in range(3)]
    found += RATES
    if not small:
        return found
    light = [j for j in found if j.n <= 300 and j.network != "attention" and j.source != "sentences"]
    return sorted(light, key=lambda j: j.key)[:SMALL]  # the keys are digests: a draw that nobody made
