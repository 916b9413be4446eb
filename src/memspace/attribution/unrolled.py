"""Influence as the derivative of the outcome through the whole training, by the weight of every example.

After MAGIC (Ilyas & Engstrom 2025): exact for a training that can be repeated, with no damping to choose. It says what
an infinitesimal weight does; how far that reaches is measured by retraining (see :class:`Smoothness`).

The derivative may be taken at weights other than 1. Left-out sets are far from w = 1 where they are large: subsets that
leave out a share s have the mean weight 1 − s, and an expansion about that mean has no second-order error on average.

Where a training is rough, the derivative at one point holds what a step aside would not. Points on both sides of the
mean weight have the same mean, so the curvature between them cancels, and what is rough differs from one to the other.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memspace.attribution.left_out import checked_share
from memspace.attribution.prepared import Goal, checked_target
from memspace.attribution.question import Asked, Queries, ask, queries_of
from memspace.attribution.result import Influence
from memspace.attribution.target import Target
from memspace.errors import TaskError
from memspace.measurement import Measurement, Unmeasured, from_samples
from memspace.passes.outputs import outputs
from memspace.passes.verify import verified_space
from memspace.progress import Progress, Silent
from memspace.task.checks import check_task
from memspace.task.data import Data, move
from memspace.task.recipe import Training
from memspace.task.task import Task
from memspace.training.many import train_many
from memspace.training.pull_back import pull_back
from memspace.training.replay import BUDGET, ReplayedStates, TrainingReplay

__all__ = ["Smoothness", "Unrolled", "unrolled"]

SOURCE = "ilyas2025, engstrom2025, maclaurin2015"
APART = 0.05  # of the way from the initialisation: rounding grows along a training, another training is ~1 away
TRUSTED = 0.7  # correlation with retraining: half the variance explained
SHARE = 0.1  # of the examples left out by the check, where the question names none


@dataclass(frozen=True)
class Unrolled:
    """How a gradient through the training is taken.

    Args:
        seed: of the training that made the network.
        left_out: share s of the examples that the question leaves out; the derivative is taken at w = 1 − s. 0: the
            network as it is, what single examples add to it. For subsets of half the data 0.5 is far better than 0.
        weights: (N,) to take the derivative at, instead of ``left_out``.
        points: that the derivative is taken at, the result is the median of every score over them: evenly spaced
            weights, the same for all examples, within min(s, 1 − s)/2 of 1 − s. Odd; each costs as much as the first.
        checks: random subsets retrained, at half and at whole weight, to see how far the derivative reaches; 0: none.
        memory: bytes for the states kept of the training.
        dtype: of the repeated training (None: the network's).

    Raises:
        TaskError: a share that cannot be left out, or points that do not go with the weights.
    """

    seed: int = 0
    left_out: float = 0.0
    weights: Tensor | None = None
    points: int = 1
    checks: int = 8
    memory: float = BUDGET
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        checked_share(self.left_out)
        if (
            self.points < 1
            or self.points % 2 == 0
            or (self.points > 1 and (self.weights is not None or not self.left_out))
        ):
            raise TaskError(
                f"the derivative cannot be taken at {self.points} points about the weights asked for",
                where="points",
                remedy="give 1, or an odd number with a positive left_out and no weights",
            )

    def at(self, n: int) -> list[Tensor]:
        """List the weights of every point of the expansion, the middle one first.

        Args:
            n: number of training examples.

        Returns:
            weights (N,) per point.
        """
        if self.weights is not None:
            return [self.weights]
        width, half = min(self.left_out, 1 - self.left_out) / 2, self.points // 2
        aside = [side * width * k / half for k in range(1, half + 1) for side in (-1, 1)]
        return [torch.full((n,), 1 - self.left_out + d) for d in (0.0, *aside)]

    @property
    def share(self) -> float:
        """The share that the check leaves out."""
        return self.left_out or SHARE


def unrolled(
    task: Task,
    queries: Queries = None,
    *,
    target: Goal = "loss",
    settings: Unrolled | None = None,
    tokens: str | None = None,
    progress: Progress | None = None,
) -> Influence:
    """Differentiate every query's outcome after the training by the examples' weights: ∂q/∂w_i.

    Positive where the example supports the outcome. With loss_step = (1/b) Σ_{j in batch} w_j ℓ_j(θ) + (decay/2)‖θ‖²,
    the change when a set S is left out (its weights set to 0, batch order kept) is −Σ_{i in S} ∂q/∂w_i to first order.
    Ilyas & Engstrom 2025 (MAGIC); Engstrom et al. 2025; Maclaurin et al. 2015.

    Args:
        task: with ``training``.
        queries: as for :func:`memspace.attribution.influence.influence`.
        target: as for :func:`memspace.attribution.influence.influence`.
        settings: seed and point of the derivative, and how it is checked.
        tokens: ``queries``: each position of a query is an outcome of its own.
        progress: told what is being done.

    Returns:
        scores (Q, N), exact for the repeated training (up to rounding). ``reliable`` is False where the repeated
        training does not give the task's own weights, or where retraining on random subsets contradicts the derivative.

    Raises:
        TaskError: the task does not say how it was trained, or the training is not a function of weights and data.
        StochasticModelError: the network draws dropout masks while it trains.
        MemoryBudgetError: not even √T of the training's states fit.
    """
    begun = time.perf_counter()
    settings, progress = settings or Unrolled(), progress or Silent()
    if tokens not in (None, "queries"):
        raise TaskError(
            f"the unrolled engine has no tokens {tokens!r}", where="tokens", remedy="use queries, or another engine"
        )
    first, *others = settings.at(len(task.train))
    replay = TrainingReplay.of(task, settings.seed, weights=first, dtype=settings.dtype)
    check_task(task)
    data, index = queries_of(task, queries)
    aim = checked_target(task, target)
    trajectory = replay.run(budget=settings.memory, progress=progress)
    ended = _repeated(replay, trajectory, progress)
    diagnostics: list[Measurement | Unmeasured] = [_reproduction(task, replay, ended)]
    middle = _derivative(replay, trajectory, (data, index, aim), tokens == "queries", progress)
    question = _Question(data, index, aim, middle.asked)
    scores, seconds = middle.scores, middle.seconds
    if others:
        derivatives = [middle]
        for weights in others:
            aside = replace(replay, weights=weights.to(replay.weights))
            way = aside.run(budget=settings.memory, progress=progress)
            derivatives.append(_derivative(aside, way, (data, index, aim), tokens == "queries", progress))
            seconds += derivatives[-1].seconds + way.seconds
        scores = torch.stack([d.scores for d in derivatives]).median(0).values
        diagnostics.append(_roughness([d.scores for d in derivatives], scores))
    diagnostics += [_cost(seconds, trajectory, len(scores), settings.points), _memory(trajectory)]
    if settings.checks:
        diagnostics += smoothness(replay, scores, question, settings, ended, progress=progress).measurements
    notes = [m.note for m in diagnostics if isinstance(m, Measurement) and not m.reliable]
    return Influence(
        scores=scores.to(task.dtype),
        engine="unrolled",
        target=aim.name,
        unit=aim.unit,
        queries=middle.asked.queries,
        outcome=question.outcomes(_holding(replay, ended)).to(task.dtype),
        positions=middle.asked.positions,
        reliable=not notes,
        note="; ".join(notes),
        diagnostics=tuple(diagnostics),
        seconds=time.perf_counter() - begun,
    )


@dataclass(frozen=True)
class _Derivative:
    """The derivative of the outcomes at one point of the weights: ``scores`` (Q, N), and what it took."""

    asked: Asked
    scores: Tensor
    seconds: float


def _derivative(
    replay: TrainingReplay,
    trajectory: ReplayedStates,
    about: tuple[Data, Tensor, Target],
    apart: bool,
    progress: Progress,
) -> _Derivative:
    """Pull the outcomes' gradients at the end of a training back through it; ``apart``: of every position."""
    data, index, target = about
    ended = _holding(replay, trajectory.final)
    space = verified_space(ended)
    asked = ask(ended, space, target, data, index, apart=apart, progress=progress)
    cotangents, start = replay.pack(space.unpack(asked.gradients)), time.perf_counter()
    scores = pull_back(replay, trajectory, cotangents, progress=progress)
    return _Derivative(asked, scores, time.perf_counter() - start)


@dataclass(frozen=True)
class _Question:
    """The same outcomes of other networks."""

    data: Data
    index: Tensor
    target: Target
    asked: Asked

    def outcomes(self, task: Task) -> Tensor:
        """(Q,) of the task's network; one per position that counts where these were asked apart."""
        f, y = outputs(task, self.data, index=self.index)
        if self.asked.positions is None:
            return self.target.value(task.likelihood, f, y).detach()
        by_position = self.target.by_position(task.likelihood, f, y).flatten(1)
        return by_position[task.likelihood.weight(f, y).flatten(1) > 0].detach()


def _holding(replay: TrainingReplay, theta: Tensor) -> Task:
    """The task with the network at θ, all that was trained chosen."""
    model = copy.deepcopy(replay.draws.model).eval()
    moved = dict(model.named_parameters())
    for n, t in replay.unpack(theta).items():
        moved[n].data = t.detach().clone()
    return replace(replay.task, model=model, parameters=(), run=None)


def _repeated(replay: TrainingReplay, trajectory: ReplayedStates, progress: Progress) -> Tensor:
    """θ_T of the training at weights 1."""
    ones = torch.ones_like(replay.weights)
    if torch.equal(replay.weights, ones):
        return trajectory.final
    return replace(replay, weights=ones).run(budget=float("inf"), every=replay.steps, progress=progress).final


def _reproduction(task: Task, replay: TrainingReplay, theta: Tensor) -> Measurement:
    """‖θ_T − θ‖ / ‖θ − θ_0‖ between the repeated training and the task's own weights θ."""
    model = dict(task.model.named_parameters())
    if any(n not in model or model[n].shape != p.shape for n, p in replay.parameters.items()):
        raise TaskError(
            "the training makes a network with other parameters than the task's model",
            where=f"task {task.name}",
            remedy="let training.make build the network that is audited",
        )
    mine = replay.pack({n: model[n].detach().to(theta) for n in replay.parameters})
    way = float(torch.linalg.vector_norm(mine - replay.start()[0]))
    apart = float(torch.linalg.vector_norm(mine - theta)) / max(way, torch.finfo(theta.dtype).tiny)
    same = apart <= APART
    note = "" if same else (
        f"the training repeated at this seed ends {apart:.2g} of the way from its initialisation away from the task's "
        "weights: the scores are those of another network"
    )  # fmt: skip
    return Measurement(
        "unrolled.reproduction", apart, "1", "distance of weights over their way", 1, None, "", same, note
    )


def _cost(spent: float, trajectory: ReplayedStates, count: int, points: int) -> Measurement:
    how = "seconds of the reverse pass over one training's"
    if points > 1:
        how = (
            f"seconds of {points} reverse passes and of the trainings at all points but the first, over one training's"
        )
    trainings = spent / max(trajectory.seconds, 1e-9) / count
    return Measurement("unrolled.trainings_per_outcome", trainings, "trainings", how, count)


def _roughness(each: list[Tensor], median: Tensor) -> Measurement:
    """‖s_k − median‖ / ‖median‖ of the points' derivatives, median over the points, per outcome."""
    norm = torch.linalg.vector_norm(median, dim=1).clamp_min(torch.finfo(median.dtype).tiny)
    apart = torch.stack([torch.linalg.vector_norm(s - median, dim=1) / norm for s in each]).median(0).values
    how = f"relative distance of the derivative at a point from the median over {len(each)}, mean over outcomes"
    return from_samples("unrolled.roughness", apart.double(), "1", how)


def _memory(trajectory: ReplayedStates) -> Measurement:
    return Measurement(
        "unrolled.kept_states",
        float(trajectory.kept_bytes),
        "bytes",
        f"every {trajectory.every}. state kept" if trajectory.every > 1 else "all states kept",
        len(trajectory.states),
    )


@dataclass(frozen=True)
class Smoothness:
    """The derivative against retraining, for R random subsets and Q outcomes.

    Args:
        predicted: (R, Q) change of the outcomes when a subset is left out, from the derivative.
        half: (R, Q) measured change at half the subset's weight.
        whole: (R, Q) measured change with the subset left out.
    """

    predicted: Tensor
    half: Tensor
    whole: Tensor

    @property
    def agreement(self) -> Tensor:
        """(Q,) Pearson correlation over the subsets of predicted and measured change."""
        a, b = (t.double() - t.double().mean(0) for t in (self.predicted, self.whole))
        norms = torch.linalg.vector_norm(a, dim=0) * torch.linalg.vector_norm(b, dim=0)
        correlation: Tensor = (a * b).sum(0) / norms.clamp_min(1e-300)
        return correlation

    @property
    def metasmoothness(self) -> float:
        """Σ |Δ₁| sign(Δ₁) sign(Δ₂) / Σ |Δ₁| in [−1, 1], Δ₁, Δ₂ the changes over the first and second half."""
        first, second = self.half.double(), (self.whole - self.half).double()
        return float((first * second.sign()).sum() / first.abs().sum().clamp_min(1e-300))

    @property
    def measurements(self) -> list[Measurement | Unmeasured]:
        """Agreement with its interval over outcomes, and metasmoothness."""
        r, q = self.predicted.shape
        how = f"correlation of predicted and retrained changes over {r} subsets, mean over outcomes"
        mean = from_samples("unrolled.agreement", self.agreement, "1", how, source=SOURCE)
        trusted = mean.value >= TRUSTED
        note = "" if trusted else (
            f"retraining without random subsets correlates only {mean.value:.2f} with the derivative: the training is "
            "not smooth in its examples' weights at this distance; a smaller learning rate, larger batches or smooth "
            "activations help"
        )  # fmt: skip
        agreement = replace(mean, reliable=trusted, note=note)
        smooth = Measurement(
            "unrolled.metasmoothness",
            self.metasmoothness,
            "1",
            "agreement in sign of the changes over two equal steps of weight, weighted by size",
            r * q,
            None,
            "engstrom2025 [empirical metasmoothness, here of outcomes]",
        )
        return [agreement, smooth]


def smoothness(
    replay: TrainingReplay,
    scores: Tensor,
    question: _Question,
    settings: Unrolled,
    own: Tensor,
    *,
    progress: Progress | None = None,
) -> Smoothness:
    """Retrain with random subsets at half weight and left out, and compare with what the derivative says.

    Args:
        replay: the training that was differentiated.
        scores: (Q, N) its derivative.
        question: the outcomes asked about.
        settings: number and size of the subsets, and the seed.
        own: θ_T at weights 1.
        progress: told of the trainings.

    Returns:
        predicted and measured changes.
    """
    n = len(replay.weights)
    generator = torch.Generator().manual_seed(settings.seed + 4177)
    size = max(1, round(settings.share * n))
    masks = torch.zeros(settings.checks, n)
    for row in masks:
        row[torch.randperm(n, generator=generator)[:size]] = 1.0
    ends = _retrained(replay, torch.cat([1 - masks / 2, 1 - masks]), settings.seed, progress)
    q = torch.stack([question.outcomes(_holding(replay, theta)) for theta in (*ends, own)])
    r = settings.checks
    return Smoothness(-(masks.to(scores) @ scores.T), q[:r] - q[-1], q[r : 2 * r] - q[-1])


def _retrained(replay: TrainingReplay, weights: Tensor, seed: int, progress: Progress | None) -> Tensor:
    """θ_T (R, P) of the same training at other weights (R, N)."""
    task, training = replay.task, replay.task.training
    assert training is not None
    whole = task.train.batch(range(len(task.train)))
    made = Training(lambda: training.make().to(replay.dtype), training.recipe)
    networks = train_many(
        made,
        move(whole.x, task.device, replay.dtype),
        move(whole.y, task.device),
        task.likelihood,
        seeds=[seed] * len(weights),
        weights=weights,
        progress=progress,
    )
    return replay.pack({n: networks.parameters[n].detach() for n in replay.parameters})
