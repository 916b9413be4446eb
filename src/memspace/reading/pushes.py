"""What pushed one prediction: every training example's influence on it, split by layers and by modes of memory.

With b = ∇q of the outcome and x = M⁻¹b, M = N(F + γI), example i pushes by −⟨∇ℓ_i, x⟩. The inner product is a sum over
blocks of parameters. For orthonormal v_k it is Σ_k ⟨x, v_k⟩ (−⟨∇ℓ_i, v_k⟩) and what lies outside of them. So are the
parts of bᵀM⁻¹b, the variance that the training data leave the outcome (Laplace's approximation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memspace.attempt import attempt
from memspace.attribution.prepared import Prepared, judged, prepared, score_pass
from memspace.attribution.question import ask
from memspace.attribution.settings import InfluenceSettings
from memspace.errors import MemoryBudgetError
from memspace.measurement import Measurement, Unmeasured
from memspace.progress import Progress
from memspace.reading.modes import MemoryModes, read_modes
from memspace.reading.outcome import ExplainedOutcome
from memspace.task.task import Task

__all__ = ["OUTSIDE", "PushParts", "Pushes", "read_pushes"]

OUTSIDE = "outside"  # of the modes read


@dataclass(frozen=True)
class PushParts:
    """The pushes of all training examples split into parts.

    Args:
        names: of the parts.
        scores: (N, L) the parts of every push; rows sum to the pushes.
        variance: (L,) the parts of the outcome's variance, in its squared unit.
    """

    names: tuple[str, ...]
    scores: Tensor
    variance: Tensor

    def support(self, pushes: Tensor) -> Tensor:
        """Sum the parts of the examples that support the outcome.

        Args:
            pushes: (N,).

        Returns:
            (L,), summing to the whole support.
        """
        return self.scores[pushes > 0].sum(0)

    def opposition(self, pushes: Tensor) -> Tensor:
        """Sum the parts of the examples that oppose the outcome.

        Args:
            pushes: (N,).

        Returns:
            (L,), summing to the whole opposition.
        """
        return self.scores[pushes < 0].sum(0)

    def shares(self, pushes: Tensor) -> Tensor:
        """Compute the share of every part in the total push Σ_i |push_i|.

        Args:
            pushes: (N,).

        Returns:
            (L,), summing to 1; negative where a part works against the examples' pushes; 0 where nothing pushes.
        """
        total = pushes.abs().sum()
        return (self.support(pushes) - self.opposition(pushes)) / (total if float(total) > 0 else 1.0)


@dataclass(frozen=True)
class Pushes:
    """What training examples add to one outcome, to first order.

    Args:
        scores: (N,) outcome with the example less the outcome without it, in the outcome's unit; float64.
        variance: bᵀM⁻¹b of the outcome, in its squared unit.
        layers: the same by block of parameters, or why not.
        modes: the same by groups of leading eigenvectors of F, the last part outside of them; or why not.
        read: these eigenvectors, with what carries them; None where they are absent.
        engine: what F is, in words.
        damping: γ.
        rule: how γ was chosen.
        reliable: whether the engine and the rule of γ vouch for the scores.
        note: why not.
        diagnostics: of the engine.
        itself: place of the example among the training examples, where it is one.
    """

    scores: Tensor
    variance: float
    layers: PushParts | Unmeasured
    modes: PushParts | Unmeasured
    read: MemoryModes | None
    engine: str
    damping: float
    rule: str
    reliable: bool
    note: str
    diagnostics: tuple[Measurement | Unmeasured, ...]
    itself: int | None

    @property
    def total(self) -> float:
        """Σ_i |push_i|."""
        return float(self.scores.abs().sum())

    @property
    def support(self) -> float:
        """Sum of the pushes for the outcome."""
        return float(self.scores.clamp_min(0).sum())

    @property
    def opposition(self) -> float:
        """Sum of the pushes against the outcome, not positive."""
        return float(self.scores.clamp_max(0).sum())

    @property
    def deviation(self) -> float:
        """√(bᵀM⁻¹b), in the outcome's unit."""
        return math.sqrt(max(self.variance, 0.0))

    @property
    def examples(self) -> float:
        """How many equal pushes would be as concentrated: (Σ|push|)²/Σ push²."""
        squares = float(self.scores.square().sum())
        return self.total**2 / squares if squares > 0 else math.nan

    def strongest(self, count: int) -> tuple[Tensor, Tensor]:
        """Order the strongest pushes of both signs.

        Args:
            count: of each, at most.

        Returns:
            positions of supporters and of opponents, strongest first.
        """
        up = self.scores.argsort(descending=True, stable=True)[:count]
        down = self.scores.argsort(stable=True)[:count]
        return up[self.scores[up] > 0], down[self.scores[down] < 0]


def read_pushes(
    task: Task,
    outcome: ExplainedOutcome,
    *,
    engine: str = "auto",
    damping: float | None = None,
    modes: int = 8,
    rows: int = 2000,
    settings: InfluenceSettings | None = None,
    progress: Progress | None = None,
) -> Pushes:
    """Compute what every training example adds to an outcome, by layers and by modes.

    Args:
        task: the network and its data.
        outcome: explained.
        engine: ``auto``, ``dual``, ``iterative`` or ``ekfac``, as for :func:`memspace.influence`.
        damping: γ; None: chosen from the data.
        modes: leading eigenvectors of F that the pushes are split by.
        rows: Fisher rows they are read from, at most.
        settings: budget and accuracy of the influence.
        progress: where the work reports.

    Returns:
        the pushes.

    Raises:
        MemspaceError: the task cannot be read; see ``memspace.errors``.
    """
    settings = settings or InfluenceSettings()
    index = torch.tensor([outcome.place])
    ready = prepared(
        task,
        engine=engine,
        target=outcome.target,
        damping=damping,
        settings=settings,
        data=None if outcome.part == "input" else outcome.data,  # γ is chosen by examples with labels
        queries=index,
        progress=progress,
    )
    asked = ask(task, ready.space, ready.target, outcome.data, index, memory=settings.memory, progress=ready.progress)
    b = asked.gradients
    solved = ready.engine.solve(b, ready.damping.value)
    x = solved.x
    reliable, note, diagnostics = judged(ready, asked, [solved])
    layered = len(task.train) * len(ready.space) * 16 <= settings.memory
    scored = _scores(ready, x, layers=layered)
    pushes = scored["scores"][:, 0].double().cpu()
    products = b[0].double() * x[0].double()
    layers: PushParts | Unmeasured = Unmeasured(
        "explain.layers", f"{len(task.train):,} examples in {len(ready.space)} layers do not fit", "allow more memory"
    )
    if layered:
        variance = torch.stack([products[k.start : k.stop].sum() for k in ready.space.blocks]).cpu()
        names = tuple(k.name or "model" for k in ready.space.blocks)
        layers = PushParts(names, scored["parts"][:, 0].double().cpu(), variance)
    by_mode = attempt("explain.modes", lambda: _by_mode(ready, b, x, modes, rows), "read the other parts")
    return Pushes(
        pushes,
        float(products.sum()),
        layers,
        by_mode if isinstance(by_mode, Unmeasured) else by_mode[0],
        None if isinstance(by_mode, Unmeasured) else by_mode[1],
        ready.engine.statement,
        ready.damping.value,
        ready.damping.statement,
        reliable,
        note,
        diagnostics,
        outcome.place if outcome.part == "train" else None,
    )


def _scores(ready: Prepared, x: Tensor, *, layers: bool = False) -> dict[str, Tensor]:
    batch, progress = ready.settings.batch, ready.progress
    return score_pass(ready.task, ready.space, x, layers=layers, batch=batch, progress=progress)


def _by_mode(ready: Prepared, b: Tensor, x: Tensor, count: int, rows: int) -> tuple[PushParts, MemoryModes]:
    """The pushes along groups of leading eigenvectors, and outside of them."""
    need = 16 * (2 * count + 2) * ready.space.size
    if need > ready.settings.memory:
        what = f"{count} eigenvectors of {ready.space.size:,} parameters need {need / 2**30:.2g} GiB"
        raise MemoryBudgetError(what, where="modes", remedy="read fewer modes, or allow more memory")
    read = read_modes(
        ready.task, count=count, rows=rows, seed=ready.settings.seed, vectors=True, progress=ready.progress
    )
    assert read.vectors is not None
    exact, gradient = x[0].double(), b[0].double()
    along = [_along(exact, read.vectors[g.modes]) for g in read.groups]
    stack = torch.stack([*along, exact - sum(along, torch.zeros_like(exact))])
    scores = _scores(ready, stack.to(x.dtype))["scores"].double().cpu()
    names = (*(g.name for g in read.groups), OUTSIDE)
    return PushParts(names, scores, (stack @ gradient).cpu()), replace(read, vectors=None)


def _along(x: Tensor, vectors: Tensor) -> Tensor:
    """The part of a vector in the space of some orthonormal ones."""
    return (vectors @ x) @ vectors
