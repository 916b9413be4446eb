"""``memspace.influence``: what each training example adds to each outcome."""

from __future__ import annotations

from memspace.attribution.influence import influence as influence_of_task
from memspace.attribution.prepared import Goal
from memspace.attribution.question import Queries
from memspace.attribution.result import Influence
from memspace.attribution.settings import InfluenceSettings
from memspace.progress import Progress
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["influence"]


@verb
def influence(
    task: Task,
    queries: Queries = None,
    *,
    engine: str = "auto",
    target: Goal = "loss",
    damping: float | None = None,
    settings: InfluenceSettings | None = None,
    progress: Progress | None = None,
) -> Influence:
    """Estimate, to first order, what each training example's presence adds to each query's outcome.

    score[q, i] = ∇qᵀ M⁻¹ (−∇ℓ_i), M = N(F + γI): positive where example i supports the outcome. For sequences ℓ_i and
    q are summed over positions. Koh & Liang 2017; Grosse et al. 2023 (EKFAC); Wang et al. 2025 (ASTRA).

    Args:
        task: a task, or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name.
        queries: positions in the test data (the training data where there are none), a ``Data`` of other examples, or
            None for all of them.
        engine: ``ekfac``, ``dual``, ``iterative`` or ``auto``.
        target: the outcome: ``loss`` (−loss), ``margin``, ``logit:A-B``, ``logp:K``, a function (f, y) -> one number
            per query, or a ``Target``.
        damping: γ; None: chosen from the data.
        settings: budget, accuracy, and splits by layers, modes or tokens; see :class:`memspace.InfluenceSettings`.
        progress: where the work reports.

    Returns:
        scores (Q, N) in the outcome's unit, held in memory, with what speaks for and against them.

    Raises:
        MemspaceError: bad input, in one sentence.
    """
    settings = settings or InfluenceSettings()
    return influence_of_task(
        task,
        queries,
        engine=engine,
        target=target,
        damping=damping,
        split=settings.split,
        tokens=settings.tokens,
        settings=settings,
        progress=progress,
    )
