"""The three engines of one network: how each applies M⁻¹ = (N(F + γI))⁻¹ to gradients of outcomes.

* ``ekfac``: F by Kronecker blocks with corrected eigenvalues (George et al. 2018; Grosse et al. 2023), cheapest, biased
  between blocks and outside the eigenbases.
* ``dual``: F exact for the whole network by Woodbury's identity on the rows of its root; where there are
  too many, on the largest and a draw of the others.
* ``iterative``: F exact by products, solved by conjugate gradients with EKFAC as preconditioner (after ASTRA, Wang et
  al. 2025) until the error it estimates is small enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.attribution.settings import InfluenceSettings
from memspace.errors import MemoryBudgetError, TaskError
from memspace.metric.conjugate import solve_damped
from memspace.metric.fisher import build
from memspace.metric.metric import FisherMetric
from memspace.metric.principal import principal_dual
from memspace.passes.linearise import FisherOperator
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress
from memspace.task.checks import evaluating
from memspace.task.data import call_model, move
from memspace.task.task import Task

__all__ = ["ENGINES", "Engine", "Solved", "choose_engine", "prepare"]

ENGINES = ("ekfac", "dual", "iterative")
COTANGENTS = 20_000  # over all examples, up to which EKFAC reads the exact Fisher root; above, labels are sampled
OUTPUTS = 64  # positions × outputs of an example up to which auto takes the dual
MOST_OUTPUTS = 1_024  # up to which the dual can be asked for
PAIRS = 2_000_000  # training examples × queries up to which auto solves with exact products


@dataclass(frozen=True)
class Solved:
    """Solutions of M x = b.

    Args:
        x: (k, P), M⁻¹ b.
        residual: (k,) relative, of the engine's own system.
        error: (k,) estimated, of x, relative, in the norm of F; infinite where the engine does not know.
        iterations: steps taken.
        converged: whether the error asked for was reached.
    """

    x: Tensor
    residual: Tensor
    error: Tensor
    iterations: int
    converged: bool


@dataclass(frozen=True)
class Engine:
    """One engine, made ready at the network's weights.

    Args:
        name: one of ``ENGINES``.
        statement: what its F is, for people.
        metric: what solves, or preconditions for ``iterative``.
        n: training examples.
        operator: exact products, for ``iterative`` and for checks.
        tolerance: of the error of iterative solutions.
        limit: their steps at most.
        room: numbers they may hold.
    """

    name: str
    statement: str
    metric: FisherMetric
    n: int
    operator: FisherOperator
    tolerance: float
    limit: int
    room: int = 2**24

    def solve(self, b: Tensor, damping: float) -> Solved:
        """Solve M x = b for several vectors, M = n(F + γI).

        Args:
            b: (k, P).
            damping: γ.

        Returns:
            (k, P) solutions, with what is known of their error.
        """
        if self.name != "iterative":
            x = self.metric.solve(b, damping) / self.n
            return Solved(x, torch.zeros(len(b)), torch.full((len(b),), math.inf), 0, True)
        solution = solve_damped(
            self.operator,
            b,
            damping,
            near=self.metric,
            tolerance=self.tolerance,
            limit=self.limit,
            basis=self.room,
        )
        x = (solution.x / self.n).to(b.dtype)
        return Solved(x, solution.residual, solution.error, solution.iterations, solution.converged)

    def modes(self, b: Tensor, damping: float, leading: int) -> tuple[tuple[str, ...], Tensor]:
        """Split M⁻¹ b by eigenvalues of F.

        ``leading`` modes of the dual one by one, then the rest of its modes and its null space; EKFAC by decades of
        eigenvalue about γ.

        Args:
            b: (k, P).
            damping: γ.
            leading: modes of the dual told apart.

        Returns:
            names, and parts (L, k, P) that add up to the whole.

        Raises:
            TaskError: the iterative engine knows no spectrum.
        """
        if self.name == "iterative":
            raise TaskError(
                "the iterative engine knows no eigenmodes",
                where="split modes",
                remedy="use the engine dual or ekfac, or split by layers",
            )
        values = self.metric.eigenvalues().double()
        edges, names = _edges(values, damping, leading if self.name == "dual" else 0)
        parts = []
        for low, high in zip(edges[1:], edges[:-1], strict=True):

            def inside(v: Tensor, low: float = low, high: float = high) -> Tensor:
                return torch.where((v > low) & (v <= high), 1 / (v + damping), torch.zeros_like(v))

            parts.append(self.metric.apply(inside, b) / self.n)
        return names, torch.stack(parts)


def _edges(values: Tensor, damping: float, leading: int) -> tuple[list[float], tuple[str, ...]]:
    """Bounds between bands, from infinity down to below zero, and the bands' names."""
    edges, names = [math.inf], []
    if leading:
        for k in range(min(leading, len(values))):
            below = float(values[k + 1]) if k + 1 < len(values) else 0.0
            edge = math.sqrt(float(values[k]) * below) if below > 0 else float(values[k]) / 2
            if edge < edges[-1] and edge < float(values[k]):  # of equal eigenvalues no direction can be told apart
                edges.append(edge)
                names.append(f"mode {k + 1}")
        if len(values) > leading:
            edges.append(float(values[-1]) / 2)
            names.append("other modes")
        return [*edges, -1.0], (*names, "null space")
    top = math.ceil(math.log10(max(float(values.max()) / damping, 1.0)))
    for power in range(top - 1, -3, -1):
        edges.append(damping * 10.0**power)
        names.append(f"eigenvalues above {10.0**power:g} γ")
    return [*edges, -1.0], (*names, "the rest")


def choose_engine(task: Task, engine: str, queries: int, rows: int) -> tuple[str, str]:
    """Choose the engine.

    ``auto``: exact where that is affordable, the dual where it holds every row and the iterative one up to ``PAIRS``
    pairs of a query and a training example; EKFAC beyond.

    Args:
        task: the network and its data.
        engine: as asked for.
        queries: how many will be asked.
        rows: how many the dual may keep.

    Returns:
        the engine's name, and why it is that one.

    Raises:
        TaskError: an unknown engine.
        MemoryBudgetError: the dual of a network with too many outputs.
    """
    if engine not in (*ENGINES, "auto"):
        raise TaskError(
            f"there is no engine {engine!r}", where="engine", remedy=f"use one of auto, {', '.join(ENGINES)}"
        )
    width, n = outputs_each(task), len(task.train)
    if engine == "dual" and width > MOST_OUTPUTS:
        raise MemoryBudgetError(
            f"the dual needs each of an example's {width:,} outputs (positions × classes) pulled back",
            where="engine dual",
            remedy="use ekfac or iterative",
        )
    if engine != "auto":
        return engine, "asked for"
    if width <= OUTPUTS and n * width <= rows:
        return "dual", f"exact for the whole network: {n * width:,} rows"
    if n * queries <= PAIRS:
        return "iterative", f"exact to its tolerance: {n:,} examples, {queries:,} queries"
    return "ekfac", f"{n:,} examples × {queries:,} queries are many for solves with the exact metric"


def outputs_each(task: Task) -> int:
    """Count positions × outputs of one example.

    Args:
        task: the network and its data.

    Returns:
        the count.
    """
    with torch.no_grad(), evaluating(task.model):
        f = call_model(task.model, move(task.train.batch([0]).x, task.device, task.dtype))
    return int(f[0].numel())


def prepare(task: Task, space: ParameterSpace, name: str, settings: InfluenceSettings, progress: Progress) -> Engine:
    """Build an engine's metric: two passes over the training data, and its decomposition.

    Args:
        task: the network and its data.
        space: its parameters.
        name: one of ``ENGINES``.
        settings: budget and accuracy.
        progress: told what is being done.

    Returns:
        the engine, ready to solve.

    Raises:
        MemoryBudgetError: what it must hold does not fit.
    """
    n, width = len(task.train), outputs_each(task)
    operator = FisherOperator(task, space, memory=settings.memory // 2)
    if name == "dual":
        rows = min(settings.rows, n * width)
        need = 8 * rows * (4 * rows)
        if need > settings.memory:
            fit = int(math.sqrt(settings.memory / 32))
            raise MemoryBudgetError(
                f"the dual of {rows:,} Fisher rows needs {need / 2**30:.1f} GiB",
                where="memory budget",
                remedy=f"allow more memory, or at most {fit:,} rows",
            )
        dual = principal_dual(task, space, limit=rows, seed=settings.seed, progress=progress)
        drawn = f", {dual.drawn:.0%} of the trace in rows that were drawn" if dual.drawn else ""
        statement = f"exact dual on {len(dual.rows):,} Fisher rows{drawn}"
        return Engine(name, statement, dual, n, operator, settings.tolerance, settings.limit)
    step = progress.start("Kronecker factors and eigenvalues", 1)
    kind, samples = "exact", 1
    if n * width > COTANGENTS:
        kind, samples = "mc", min(width, 8, max(1, COTANGENTS // n))
    metric = build(
        task,
        space,
        "ekfac",
        kind=kind,
        samples=samples,
        memory=settings.memory,
        batch=settings.batch,
        seed=settings.seed,
    )
    progress.advance(step)
    progress.finish(step)
    labels = "exact output Fisher" if kind == "exact" else f"{samples} sampled labels per example"
    statement = f"EKFAC, {labels}"
    if name == "iterative":
        statement = f"conjugate gradients on exact products, preconditioned by {statement}"
    room = settings.memory // 32  # a quarter of it, in numbers of 8 bytes
    return Engine(name, statement, metric, n, operator, settings.tolerance, settings.limit, room)
