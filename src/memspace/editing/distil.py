"""Distil a training set into a few synthetic examples that teach a fresh network in a few steps (Wang et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from memspace.arguments import typed
from memspace.display import Shown
from memspace.editing.retrain import training_of
from memspace.errors import SettingsError, TaskError
from memspace.limits import SEED
from memspace.measurement import Measurement, from_samples, from_share
from memspace.measures.correct import accuracy
from memspace.progress import Progress, Silent
from memspace.task.data import Data, move
from memspace.task.functional import functional_call
from memspace.task.operations import written_out
from memspace.task.recipe import Training
from memspace.task.task import Task

__all__ = ["DistilSettings", "Distilled", "distil", "quantised", "taught"]

LONGEST = 10.0  # norm that the gradient of examples and step sizes is cut to
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # step sizes tried for real examples; the best by training accuracy


@dataclass(frozen=True)
class DistilSettings:
    """How examples are distilled.

    Args:
        per_class: synthetic examples per class.
        steps: gradient steps a network takes on them, all examples in each, every step with its own learned size.
        iterations: of Adam on the examples and step sizes.
        batch: real examples per iteration.
        rate: Adam's learning rate.
        fixed: for one given initialisation, else for fresh ones.
        bits: per number of a stored example.
        trials: initialisations the result is measured on.

    Raises:
        SettingsError: a count below 1.
    """

    per_class: int = 1
    steps: int = 3
    iterations: int = 1000
    batch: int = 256
    rate: float = 0.02
    fixed: bool = False
    bits: int = 8
    trials: int = 10

    def __post_init__(self) -> None:
        if min(self.per_class, self.steps, self.iterations, self.batch, self.bits, self.trials) < 1:
            raise SettingsError(f"counts are at least 1, got {self}", where="distil", remedy="give larger ones")


@dataclass(frozen=True, repr=False)
class Distilled(Shown):
    """Synthetic examples and what they teach.

    Args:
        x: (M, ...) as stored, rounded to the recipe's bits.
        y: (M,) their labels.
        rates: (steps,) learned step sizes.
        measurements: accuracy on unseen data they give, against as many real examples; bits.
        statement: one sentence for people.
    """

    x: Tensor
    y: Tensor
    rates: Tensor
    measurements: tuple[Measurement, ...]
    statement: str

    def _title(self) -> str:
        return self.statement


def taught(
    model: nn.Module, start: dict[str, Tensor], x: Tensor, y: Tensor, rates: Tensor, loss: Callable[..., Tensor]
) -> dict[str, Tensor]:
    """Take one gradient step per rate on the mean loss of (x, y); differentiable in x and the rates.

    Args:
        model: the network.
        start: its parameters at first.
        x: inputs (M, ...).
        y: labels (M,).
        rates: step sizes (steps,).
        loss: (outputs, labels) → nats per example.

    Returns:
        the parameters after the steps, by name.
    """
    at = start
    for rate in rates:
        with written_out():
            value = loss(functional_call(model, at, (x,)), y).mean()
        gradients = torch.autograd.grad(value, list(at.values()), create_graph=x.requires_grad or rates.requires_grad)
        at = {n: p - rate * g for (n, p), g in zip(at.items(), gradients, strict=True)}
    return at


def quantised(x: Tensor, bits: int) -> Tensor:
    """Round every number to one of 2^bits levels between the smallest and the largest.

    Args:
        x: numbers of any shape.
        bits: of a number.

    Returns:
        the rounded numbers.
    """
    low, high = x.min(), x.max()
    levels = 2**bits - 1
    return low + (x - low).div((high - low).clamp_min(1e-12)).mul(levels).round().div(levels) * (high - low)


@typed
def distil(
    task: Task,
    recipe: DistilSettings | None = None,
    *,
    seed: Annotated[int, SEED] = 0,
    progress: Progress | None = None,
) -> Distilled:
    """Make synthetic examples that a network learns from in a few steps.

    min over x̃, η of E_θ₀ L(θ₀ − Σ η_t ∇ℓ(x̃, θ_t)), by Adam through the steps (Wang et al. 2018, algorithm 1), every
    iteration from another initialisation of the task's training (or always the same). Accuracies are of held-out data,
    over initialisations not used before; real examples get the same number of steps at the best step size of a grid.

    Args:
        task: a task, or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name.
        recipe: how many examples, steps and iterations; see :class:`memspace.DistilSettings`.
        seed: random seed of examples and initialisations.
        progress: told what is being done.

    Returns:
        the examples, and the accuracy they give next to that of real ones.

    Raises:
        TaskError: no repeatable training, no test data, no classes, or inputs that are not one float tensor.
    """
    recipe, progress = recipe or DistilSettings(), progress or Silent()
    pupils = _Pupils(task, training_of(task, "distilling"), *_tensors(task))
    lesson = _distilled(pupils, recipe, seed, progress)
    measurements = _measured(pupils, lesson, recipe, seed)
    return Distilled(lesson.x, lesson.y, lesson.rates, measurements, _statement(measurements, lesson, recipe))


@dataclass(frozen=True)
class _Lesson:
    """Examples to learn from, and a step size for each step."""

    x: Tensor
    y: Tensor
    rates: Tensor


@dataclass(frozen=True)
class _Pupils:
    """Fresh networks of a task's training, and the data that they are taught and judged on."""

    task: Task
    training: Training
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor

    def start(self, number: int) -> tuple[nn.Module, dict[str, Tensor]]:
        """The network of one initialisation, and its parameters."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            model = self.training.make().to(self.x.device, self.x.dtype).eval()
        return model, {n: p.detach().requires_grad_() for n, p in model.named_parameters()}

    def accuracy(self, number: int, lesson: _Lesson, *, unseen: bool = True) -> float:
        """How well one initialisation does after the lesson, on test data or on the training data."""
        law = self.task.likelihood
        x, y = (self.test_x, self.test_y) if unseen else (self.x, self.y)
        model, parameters = self.start(number)
        after = taught(model, parameters, lesson.x, lesson.y, lesson.rates, law.nll)
        with torch.no_grad():
            return accuracy(law, functional_call(model, after, (x,)), y)


def _distilled(pupils: _Pupils, recipe: DistilSettings, seed: int, progress: Progress) -> _Lesson:
    """Adam through the steps of a network: the examples, rounded as stored, and the step sizes."""
    x, y, nll = pupils.x, pupils.y, pupils.task.likelihood.nll
    labels = torch.unique(y).repeat_interleave(recipe.per_class)
    generator = torch.Generator().manual_seed(seed)
    spread = x.std() if float(x.std()) > 0 else torch.ones(())
    noise = torch.randn(len(labels), *x.shape[1:], generator=generator).to(x)
    made = (x.mean(0) + spread * noise).requires_grad_()
    steps = torch.full((recipe.steps,), 0.1, dtype=x.dtype, device=x.device).log().requires_grad_()
    optimiser = torch.optim.Adam([made, steps], lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.iterations)
    for k in progress.track(range(recipe.iterations), "distilling", recipe.iterations):
        model, parameters = pupils.start(seed if recipe.fixed else 10_000 * (seed + 1) + k)
        index = torch.randint(0, len(y), (min(recipe.batch, len(y)),), generator=generator)
        after = taught(model, parameters, made, labels, steps.exp(), nll)
        loss = nll(functional_call(model, after, (x[index],)), y[index]).mean()
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss, inputs=[made, steps])
        torch.nn.utils.clip_grad_norm_([made, steps], LONGEST)
        optimiser.step()
        schedule.step()
    return _Lesson(quantised(made.detach(), recipe.bits), labels, steps.detach().exp())


def _measured(pupils: _Pupils, lesson: _Lesson, recipe: DistilSettings, seed: int) -> tuple[Measurement, ...]:
    """Accuracy on unseen data, over initialisations not used before, next to that of real examples; and the bits."""
    fresh = [-1 - k - 1000 * seed for k in range(recipe.trials)]
    scores = [pupils.accuracy(number, lesson) for number in fresh]
    real = [_by_real_examples(pupils, lesson, recipe.per_class, seed + k, number) for k, number in enumerate(fresh)]
    n = len(pupils.test_y)
    with torch.no_grad():
        full = accuracy(pupils.task.likelihood, pupils.task.model(pupils.test_x), pupils.test_y)
    fixed = pupils.accuracy(seed, lesson)
    how = f"{recipe.steps} steps on {len(lesson.y)} synthetic examples of {recipe.bits} bits a number; unseen data"
    grid = "as many random real examples, best step size of a grid"
    bits = float(lesson.x.numel() * recipe.bits)
    return (
        from_samples("distil.accuracy.fresh", scores, "1", f"{how}, over fresh initialisations", upper=1.0),
        from_share("distil.accuracy.fixed", fixed * n, f"{how}, initialisation {seed}", n=n),
        from_samples("distil.accuracy.real", real, "1", grid),
        from_share("distil.accuracy.full", full * n, "the task's own network", n=n),
        Measurement("distil.bits", bits, "bits", "numbers × bits each; labels and step sizes not counted", 1),
    )


def _by_real_examples(pupils: _Pupils, lesson: _Lesson, per_class: int, seed: int, number: int) -> float:
    """What as many real examples teach, at the step size that fits the training data best."""
    chosen = _some(pupils.y, torch.unique(pupils.y), per_class, seed)
    x, y = pupils.x[chosen], pupils.y[chosen]
    tried = [_Lesson(x, y, torch.full_like(lesson.rates, rate)) for rate in RATES]
    best = max(tried, key=lambda one: pupils.accuracy(number, one, unseen=False))
    return pupils.accuracy(number, best)


def _statement(measurements: Sequence[Measurement], lesson: _Lesson, recipe: DistilSettings) -> str:
    fresh, fixed, real, full, bits = (m.value for m in measurements)
    start, reached = ("the fixed initialisation", fixed) if recipe.fixed else ("fresh initialisations", fresh)
    return (
        f"{len(lesson.y)} synthetic examples ({bits:,.0f} bits) give {reached:.1%} in {recipe.steps} steps from "
        f"{start}; as many real ones {real:.1%}, all the data {full:.1%}"
    )


def _some(y: Tensor, classes: Tensor, count: int, seed: int) -> Tensor:
    """``count`` random examples of every class, in the order of classes."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).to(y.device)
    return torch.cat([order[y[order] == c][:count] for c in classes])


def _tensors(task: Task) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test data as tensors on the model's device."""
    if task.test is None or not task.likelihood.has_classes:
        raise TaskError("distilling needs test data and classes", where=task.name, remedy="give the task both")
    assert isinstance(task.test, Data)
    out: list[Tensor] = []
    for data in (task.train, task.test):
        part = data.batch(range(len(data)))
        x = move(part.x, task.device, task.dtype)
        if not isinstance(x, Tensor) or not x.is_floating_point() or part.y.dim() != 1:
            raise TaskError(
                "distilling needs inputs that are one tensor of real numbers and one label each",
                where=data.name,
                remedy="distil a task of images or of measured values",
            )
        out += [x, part.y.to(task.device)]
    return out[0], out[1], out[2], out[3]
