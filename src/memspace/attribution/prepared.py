"""An engine at one network's weights with its damping chosen: ready for any number of questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypedDict

import torch
from torch import Tensor

from memspace.attempt import attempt
from memspace.attribution.damping import choose_by_agreement, grid_of, retrain_halves, uncalibrated
from memspace.attribution.engines import Engine, Solved, choose_engine, prepare
from memspace.attribution.question import Asked, ask
from memspace.attribution.settings import InfluenceSettings
from memspace.attribution.target import Target, target_of
from memspace.limits import DAMPING
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.damping import DampingChoice
from memspace.metric.trust import RESIDUAL, SOLUTION, beyond, solution_error
from memspace.passes.agree import check_agreement
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.linearise import FisherOperator
from memspace.passes.outputs import outputs
from memspace.passes.scores import PairScores
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import checked_space
from memspace.progress import Progress, Silent
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["Goal", "Prepared", "Ways", "checked_target", "judged", "prepared", "score_pass"]

CHECKED = 4  # queries whose solution is held against exact products, 1 to 13 of them (see ``metric.trust``)
ORDERED = 0.95  # cosine to the exact scores: a tenth of their variance is foreign
ROUGH = 0.2  # error of the iterative solves that only compare dampings
CHECK_LIMIT = 20_000  # training examples that such a product runs over, at most
Goal = str | Target | Callable[[Tensor, Tensor], Tensor]


class Ways(TypedDict, total=False):
    """How a question about influence is answered, by name; see :func:`prepared` for what is meant otherwise.

    Args:
        engine: ``ekfac``, ``dual``, ``iterative`` or ``auto``.
        target: the outcome.
        damping: γ; None: chosen.
        settings: budget and accuracy.
        progress: told what is being done.
    """

    engine: str
    target: Goal
    damping: float | None
    settings: InfluenceSettings | None
    progress: Progress | None


@dataclass(frozen=True)
class Prepared:
    """Everything that does not depend on the queries: an engine and its damping, ready for any number of questions.

    Args:
        task: the network and its data.
        space: its parameters.
        target: the outcome.
        engine: at the network's weights.
        damping: as chosen.
        settings: budget and accuracy.
        progress: told what is being done.
    """

    task: Task
    space: ParameterSpace
    target: Target
    engine: Engine
    damping: DampingChoice
    settings: InfluenceSettings
    progress: Progress

    @property
    def at_once(self) -> int:
        """Queries whose gradients and solutions fit into the memory allowed."""
        copies = 16 if self.engine.name == "iterative" else 4
        return max(1, self.settings.memory // (8 * copies * self.space.size))


def score_pass(
    task: Task,
    space: ParameterSpace,
    x: Tensor,
    *,
    index: Tensor | None = None,
    layers: bool = False,
    tokens: bool = False,
    batch: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Compute inner products of training examples' gradients with vectors, in one pass; see ``PairScores``.

    Args:
        task: the network and its data.
        space: its parameters.
        x: (Q, P).
        index: positions of the examples; None: all.
        layers: also by layer.
        tokens: also by position of the training examples.
        batch: examples at a time; None: by the size of the network's signals.
        progress: told of every batch.

    Returns:
        ``scores`` (N, Q), and ``parts`` or ``tokens`` where asked for.
    """
    table = PairScores(space.blocks, x, layers=layers, tokens=tokens)
    run_pass(
        task,
        space,
        [table],
        PassOptions(index=index, batch=batch, progress=progress, what="scores of training examples"),
    )
    return table.finish()


def prepared(
    task: Task,
    *,
    engine: str = "auto",
    target: Goal = "loss",
    damping: float | None = None,
    settings: InfluenceSettings | None = None,
    data: Data | None = None,
    queries: Tensor | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Make an engine ready at the task's weights and choose its damping.

    Args:
        task: the network and its data.
        engine: ``ekfac``, ``dual``, ``iterative`` or ``auto``.
        target: the outcome.
        damping: γ, or None: by agreement with networks retrained on halves of the data where the task can train, else
            by the training's own scale or the evidence (see ``memspace.attribution.damping``).
        settings: budget and accuracy.
        data: what will be asked about; probes for the damping are drawn from it.
        queries: positions in ``data`` that will be asked about: other examples are drawn first.
        progress: told what is being done.

    Returns:
        the engine with its damping.

    Raises:
        TaskError: an unknown engine or target.
        SettingsError: a damping out of its range.
    """
    settings, progress = settings or InfluenceSettings(), progress or Silent()
    damping = DAMPING.optional(damping, "damping")
    check_agreement(task, asdict(settings))
    space = checked_space(task)
    data = data or (task.test if task.test is not None else task.train)
    name, _ = choose_engine(task, engine, len(data) if queries is None else len(queries), settings.rows)
    chosen = checked_target(task, target)
    ready = prepare(task, space, name, settings, progress)
    if damping is not None:
        return Prepared(task, space, chosen, ready, DampingChoice.given(damping), settings, progress)
    choice = _choose(task, space, chosen, ready, settings, data, queries, progress)
    return Prepared(task, space, chosen, ready, choice, settings, progress)


def judged(
    ready: Prepared, asked: Asked, solved: Sequence[Solved]
) -> tuple[bool, str, tuple[Measurement | Unmeasured, ...]]:
    """Judge the answers to a question.

    Args:
        ready: the engine.
        asked: the question.
        solved: its solutions, in order.

    Returns:
        whether to rely on the scores, why not, and the diagnostics.
    """
    engine, notes = ready.engine, []
    diagnostics: list[Measurement | Unmeasured] = []
    name = "influence.residual"
    if engine.name == "iterative":
        diagnostics += _iterated(engine, solved)
        notes += [m.note for m in diagnostics if isinstance(m, Measurement) and not m.reliable]
    else:
        checks = attempt(name, lambda: _checked(ready, asked, solved[0].x), "use the engine dual")
        if isinstance(checks, Unmeasured):
            diagnostics.append(checks)
            notes += ["its solutions were not held against exact products"] if engine.name == "ekfac" else []
        else:
            diagnostics += checks
            notes += [m.note for m in checks if not m.reliable]
    if not ready.damping.reliable:
        notes.append("the damping is uncalibrated" if not ready.damping.grid else "the damping could not be settled")
    return not notes, "; ".join(notes), tuple(diagnostics)


def _iterated(engine: Engine, solved: Sequence[Solved]) -> list[Measurement]:
    """What conjugate gradients say of themselves; the error is stated of the worst query."""
    residual, error = max(float(s.residual.max()) for s in solved), max(float(s.error.max()) for s in solved)
    steps, n = max(s.iterations for s in solved), engine.n
    doubt = beyond(error, max(SOLUTION, engine.tolerance), "the error of the solves, rounding included,")
    if not all(s.converged for s in solved):
        doubt = f"not converged in {steps} steps: an error of {error:.1e} against {engine.tolerance:.1e}"
    if doubt:
        doubt += "; use the engine dual, more damping, or more steps (limit)"
    how = "‖x − x*‖/‖x*‖ of the worst query, x − x* in the norm of F + γI, x* in that of F; estimated from the steps"
    return [
        Measurement("influence.residual", residual, "1", "worst relative residual of the solves", n),
        Measurement("influence.solution_error", error, "1", how, n, reliable=not doubt, note=doubt),
        Measurement("influence.iterations", float(steps), "1", "conjugate gradient steps", n),
    ]


def _checked(ready: Prepared, asked: Asked, x: Tensor) -> list[Measurement]:
    """The first solutions against exact products: their residual and, for EKFAC, how far scores are off."""
    task, engine, gamma = ready.task, ready.engine, ready.damping.value
    operator, n, few = engine.operator, engine.n, CHECKED
    if n > CHECK_LIMIT:  # one query by a draw of the examples: what that costs does not grow with the data
        generator = torch.Generator().manual_seed(ready.settings.seed + 79)
        index = torch.randperm(n, generator=generator)[:CHECK_LIMIT].sort().values
        operator = FisherOperator(task, ready.space, index=index, memory=ready.settings.memory // 2)
        n, few = len(index), 1
    b, x = asked.gradients[:few], engine.n * x[:few].double()
    errors = solution_error(operator, b, x, gamma, lambda r: engine.metric.solve(r, gamma))
    queries = f"{len(b)} {'query' if len(b) == 1 else 'queries'}"
    residual, typical = float(errors.residual.mean()), errors.typical
    doubt = beyond(residual, RESIDUAL, "the relative residual of the solves")
    how = f"mean relative residual of (F + γI)x = ∇q by exact products, {queries}"
    diagnostics = [Measurement("influence.residual", residual, "1", how, n, reliable=not doubt, note=doubt)]
    if engine.name != "ekfac":
        return diagnostics
    doubt = beyond(typical, SOLUTION, "EKFAC's relative error in scores")
    if doubt:
        cosine = float(errors.cosine.mean())
        advice = "read their order, not their size" if cosine > ORDERED else "use the engine iterative"
        doubt += f" (cosine to the exact ones {cosine:.2f}): {advice}"
    elif not errors.settled:
        doubt = "EKFAC's error in scores is not known: exact products did not settle it"
    how = f"‖x − x*‖/‖x*‖ in the norm of F: root mean square error of scores, relative; exact products, {queries}"
    return [*diagnostics, Measurement("influence.solution_error", typical, "1", how, n, reliable=not doubt, note=doubt)]


def _choose(
    task: Task,
    space: ParameterSpace,
    target: Target,
    engine: Engine,
    settings: InfluenceSettings,
    data: Data,
    queries: Tensor | None,
    progress: Progress,
) -> DampingChoice:
    few = 1
    if engine.name == "iterative":  # every damping is a solve of its own: fewer of them, and rougher
        few, engine = 4, replace(engine, tolerance=max(engine.tolerance, ROUGH))
    probes = _probes(data, queries, settings.probes // few, settings.seed)
    halves = retrain_halves(task, target, data, probes, settings.retrainings, settings.seed, progress)
    if halves is None:
        return uncalibrated(task, space, engine.metric)
    b = ask(task, space, target, data, probes, progress=progress).gradients
    grid = grid_of(engine.metric)[:: 2 if few > 1 else 1]
    by_damping: dict[float, Tensor] = {}
    step = max(1, settings.memory // (64 * space.size * len(b)))
    for k in range(0, len(grid), step):
        some = grid[k : k + step]
        x = torch.cat([engine.solve(b, g).x for g in some])
        scores = score_pass(task, space, x, batch=settings.batch, progress=progress)["scores"]
        by_damping |= dict(zip(some, scores.t().cpu().reshape(len(some), len(b), -1), strict=True))
    return choose_by_agreement(by_damping.__getitem__, grid, halves)


def _probes(data: Data, queries: Tensor | None, count: int, seed: int) -> Tensor:
    """Examples of the query data, those not asked about first."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed + 78))
    if queries is not None:
        asked = torch.isin(order, queries)
        order = torch.cat([order[~asked], order[asked]])
    return order[: max(1, count)].sort().values


def checked_target(task: Task, target: Goal) -> Target:
    """Read a target and hold it against the network's outputs.

    Args:
        task: the network and its law.
        target: as a user gives it.

    Returns:
        the target.
    """
    f, _ = outputs(task, task.train, index=torch.tensor([0]))
    return target_of(target, task.likelihood, int(f.shape[-1]))
