"""Influence of every training example on every query's outcome, by the metric at one network's weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.errors import TaskError
from memspace.influence.damping import choose_by_agreement, grid_of, retrain_halves, uncalibrated
from memspace.influence.engines import Engine, Solved, choose_engine, prepare
from memspace.influence.question import Asked, Queries, ask, queries_of
from memspace.influence.result import Influence, Parts
from memspace.influence.settings import Settings
from memspace.influence.target import Target, target_of
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.damping import DampingChoice
from memspace.passes.engine import run_pass
from memspace.passes.scores import PairScores
from memspace.passes.verify import verified_space
from memspace.progress import Progress, Silent
from memspace.task.checks import check_task
from memspace.task.data import Data
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["Prepared", "influence", "prepared"]

CHECKED = 4  # queries whose solution is held against exact products
CHECK_LIMIT = 20_000  # training examples up to which that is done unasked


@dataclass(frozen=True)
class Prepared:
    """Everything that does not depend on the queries: an engine and its damping, ready for any number of questions."""

    task: Task
    space: ParameterSpace
    target: Target
    engine: Engine
    damping: DampingChoice
    settings: Settings
    progress: Progress

    @property
    def at_once(self) -> int:
        """Queries whose gradients and solutions fit into the memory allowed."""
        copies = 8 if self.engine.name == "iterative" else 4
        return max(1, self.settings.memory // (8 * copies * self.space.size))

    def scores(self, x: Tensor, *, index: Tensor | None = None, layers: bool = False, tokens: bool = False):  # type: ignore[no-untyped-def]
        """One pass over the training data (or those at ``index``): inner products with x (Q, P)."""
        table = PairScores(self.space.blocks, x, layers=layers, tokens=tokens)
        run_pass(
            self.task,
            self.space,
            [table],
            index=index,
            batch=self.settings.batch,
            progress=self.progress,
            what="scores of the training examples",
        )
        return table.finish()


def prepared(
    task: Task,
    *,
    engine: str = "auto",
    target: str | Target | Callable[[Tensor, Tensor], Tensor] = "loss",
    damping: float | None = None,
    settings: Settings | None = None,
    data: Data | None = None,
    queries: Tensor | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """An engine at the task's weights with its damping chosen.

    Args:
        damping: γ, or None: by agreement with networks retrained on halves of the data where the task can train, else
            by the training's own scale or the evidence (see ``memspace.influence.damping``).
        data, queries: what will be asked; probes for the damping are drawn from the same data, other examples first.

    Raises:
        TaskError: an unknown engine or target, or a damping that is not positive.
    """
    settings, progress = settings or Settings(), progress or Silent()
    if damping is not None and not (0 < damping < float("inf")):
        raise TaskError(f"the damping {damping} is not a positive number", where="damping", remedy="give γ > 0")
    name, _ = choose_engine(task, settings, engine)
    check_task(task)
    chosen = target_of(target, task.likelihood, _classes(task))
    space = verified_space(task)
    ready = prepare(task, space, name, settings, progress)
    if damping is not None:
        nan = float("nan")
        choice = DampingChoice(damping, "given", (), (), nan, nan, True, f"γ = {damping:.2g} was given")
        return Prepared(task, space, chosen, ready, choice, settings, progress)
    data = data or (task.test if task.test is not None else task.train)
    choice = _choose(task, space, chosen, ready, settings, data, queries, progress)
    return Prepared(task, space, chosen, ready, choice, settings, progress)


def influence(
    task: Task,
    queries: Queries = None,
    *,
    engine: str = "auto",
    target: str | Target | Callable[[Tensor, Tensor], Tensor] = "loss",
    damping: float | None = None,
    split: str | None = None,
    tokens: str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Influence:
    """To first order, what each training example's presence adds to each query's outcome.

    score[q, i] = ∇qᵀ M⁻¹ (−∇ℓ_i), M = N(F + γI): positive where example i supports the outcome. For sequences ℓ_i and
    q are summed over positions.

    Args:
        queries: positions in the test data (the training data where there are none), a ``Data`` of other examples, or
            None for all of them.
        engine: ``ekfac``, ``dual``, ``iterative`` or ``auto`` (see ``memspace.influence.engines``).
        target: the outcome: ``loss`` (−loss), ``margin``, ``logit:A-B``, ``logp:K``, a function (f, y) -> one number
            per query, or a ``Target``.
        damping: γ; None: chosen, see ``memspace.influence.damping``.
        split: ``layers`` or ``modes``: also the parts, (Q, N, L); they sum to the scores.
        tokens: for sequences, ``queries``: each position of a query is an outcome of its own; ``training``: also the
            scores by position of the training examples, (Q, N, T).

    Returns:
        scores (Q, N) in the outcome's unit, held in memory; ``memspace.influence.stream`` writes them to a file.

    Raises:
        MemspaceError: bad input, in one sentence.

    Source: Koh & Liang 2017; Grosse et al. 2023 (EKFAC); Wang et al. 2025 (ASTRA).
    """
    start = time.perf_counter()
    if split not in (None, "layers", "modes"):
        raise TaskError(f"there is no split {split!r}", where="split", remedy="use layers or modes")
    if tokens not in (None, "queries", "training"):
        raise TaskError(f"there are no tokens {tokens!r}", where="tokens", remedy="use queries or training")
    data, index = queries_of(task, queries)
    ready = prepared(
        task,
        engine=engine,
        target=target,
        damping=damping,
        settings=settings,
        data=data,
        queries=index,
        progress=progress,
    )
    asked = ask(task, ready.space, ready.target, data, index, apart=tokens == "queries", progress=ready.progress)
    blocks = [
        _answer(ready, asked, rows, split, tokens) for rows in torch.arange(len(asked.outcome)).split(ready.at_once)
    ]
    scores = torch.cat([b.scores for b in blocks])
    parts = None
    if split is not None:
        parts = Parts(split, blocks[0].names, torch.cat([b.parts for b in blocks if b.parts is not None]))
    by_token = torch.cat([b.tokens for b in blocks if b.tokens is not None]) if tokens == "training" else None
    reliable, note, diagnostics = judged(ready, asked, [b.solved for b in blocks])
    return Influence(
        scores,
        ready.engine.name,
        ready.target.name,
        ready.target.unit,
        asked.queries,
        asked.outcome,
        ready.damping.value,
        ready.damping.statement,
        asked.positions,
        reliable,
        note,
        diagnostics,
        parts,
        by_token,
        time.perf_counter() - start,
    )


@dataclass(frozen=True)
class _Block:
    """The answers to some of the queries."""

    scores: Tensor
    solved: Solved
    names: tuple[str, ...]
    parts: Tensor | None
    tokens: Tensor | None


def _answer(ready: Prepared, asked: Asked, rows: Tensor, split: str | None, tokens: str | None) -> _Block:
    b = asked.gradients[rows.to(asked.gradients.device)]
    solved = ready.engine.solve(b, ready.damping.value)
    found = ready.scores(solved.x, layers=split == "layers", tokens=tokens == "training")
    names: tuple[str, ...] = ()
    parts = None
    if split == "layers":
        names, parts = tuple(ready.space.labels), found["parts"].transpose(0, 1)
    if split == "modes":
        names, x = ready.engine.modes(b, ready.damping.value, ready.settings.modes)
        each = ready.scores(x.flatten(0, 1))["scores"]
        parts = each.reshape(len(each), len(names), len(b)).permute(2, 0, 1)
    by_token = found["tokens"].permute(2, 0, 1) if tokens == "training" else None
    return _Block(found["scores"].t().contiguous(), solved, names, parts, by_token)


def judged(
    ready: Prepared, asked: Asked, solved: list[Solved]
) -> tuple[bool, str, tuple[Measurement | Unmeasured, ...]]:
    """(reliable, why not, diagnostics) of a finished question."""
    engine, notes = ready.engine, []
    diagnostics: list[Measurement | Unmeasured] = []
    name, unit, n = "influence.residual", "1", engine.n
    if engine.name == "iterative":
        worst = max(float(s.residual.max()) for s in solved)
        steps = max(s.iterations for s in solved)
        converged = all(s.converged for s in solved)
        note = "" if converged else f"not converged in {steps} steps: {worst:.1e} against {engine.tolerance:.1e}"
        diagnostics.append(
            Measurement(name, worst, unit, "worst relative residual of the solves", n, reliable=converged, note=note)
        )
        diagnostics.append(Measurement("influence.iterations", float(steps), unit, "conjugate gradient steps", n))
        notes += [note] if note else []
    elif n <= CHECK_LIMIT:
        first = solved[0].x[:CHECKED]
        b = asked.gradients[: len(first)]
        values = engine.residual(b, first, ready.damping.value)
        diagnostics.append(
            Measurement(
                name,
                float(values.mean()),
                unit,
                f"mean relative residual of (F + γI)x = ∇q by exact products, {len(first)} queries",
                n,
            )
        )
    else:
        diagnostics.append(Unmeasured(name, f"exact products over {n:,} examples cost more than the scores", ""))
    if not ready.damping.reliable:
        notes.append("the damping is uncalibrated" if not ready.damping.grid else "the damping could not be settled")
    return not notes, "; ".join(notes), tuple(diagnostics)


def _choose(
    task: Task,
    space: ParameterSpace,
    target: Target,
    engine: Engine,
    settings: Settings,
    data: Data,
    queries: Tensor | None,
    progress: Progress,
) -> DampingChoice:
    probes = _probes(data, queries, settings)
    halves = retrain_halves(task, target, data, probes, settings.retrainings, settings.seed, progress)
    if halves is None:
        return uncalibrated(task, space, engine.metric)
    b = ask(task, space, target, data, probes, progress=progress).gradients
    grid = grid_of(engine.metric)
    plain = Prepared(task, space, target, engine, uncalibrated(task, space, engine.metric), settings, progress)
    found: dict[float, Tensor] = {}
    step = max(1, plain.at_once // len(b))
    for k in range(0, len(grid), step):
        some = grid[k : k + step]
        x = torch.cat([engine.solve(b, g).x for g in some])
        for g, scores in zip(some, plain.scores(x)["scores"].t().split(len(b)), strict=True):
            found[g] = scores
    return choose_by_agreement(found.__getitem__, grid, halves)


def _probes(data: Data, queries: Tensor | None, settings: Settings) -> Tensor:
    """Examples of the query data, those not asked about first."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(settings.seed + 78))
    if queries is not None:
        asked = torch.isin(order, queries)
        order = torch.cat([order[~asked], order[asked]])
    return order[: settings.probes].sort().values


def _classes(task: Task) -> int:
    from memspace.passes.outputs import outputs

    f, _ = outputs(task, task.train, index=torch.tensor([0]))
    return int(f.shape[-1])
