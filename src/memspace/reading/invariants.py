"""Numbers of a network that do not depend on how its weights describe it, each with what it is unchanged by.

Unchanged by a rescaling means: by any map θ ↦ Dθ with a diagonal D that leaves the predictions as they are. Scaling the
inputs of a ReLU unit up and its outputs down is one; so is a change of sign around an odd activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from memspace.attempt import attempt
from memspace.errors import UnsupportedLayerError
from memspace.geometry.matching import hidden_units
from memspace.geometry.symmetry import norm_directions, symmetry_directions
from memspace.measurement import Measurement, Unmeasured, stated
from memspace.measures.correct import by_example, per_prediction
from memspace.measures.predictors.learning_coefficient import SamplingSettings, doubt_of, learning_coefficient
from memspace.measures.predictors.loss_surface import LossSurface
from memspace.measures.predictors.workspace import workspace_of
from memspace.measures.values import TrainingOutputs
from memspace.measures.workspace import Workspace
from memspace.metric.krylov import top_eigenpairs
from memspace.metric.trace import xtrace
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress
from memspace.reading.fisher_rows import doubled, plan_rows
from memspace.reading.relative import SMALL, RelativeMetric, read_relative
from memspace.task.fixed import fixed_parts
from memspace.task.task import Task
from memspace.value import Absent, Value, present

__all__ = ["ANYTHING", "DIAGONAL", "LINEAR", "PREDICTIONS", "LayerInvariants", "NetworkNumbers", "read_invariants"]

PREDICTIONS = "any change that leaves the predictions as they are"
ANYTHING = "any smooth change of coordinates of the weights"
LINEAR = "any linear change of coordinates of the weights"
DIAGONAL = "rescaling and permutation of units"

ROWS, NUMBERS = 1500, 2**26  # Fisher rows of a network that is not small, and numbers in them
ENTRIES = 2**20  # parameters times examples up to which loss and Hessian are read many times
AFFORDABLE = 20_000  # parameters up to which λ is sampled and curvature read
FLAT = 1e-6  # vᵀFv / vᵀ diag(F) v below which a direction is flat
PROBES, PRODUCTS = 30, 40  # Hessian products for the trace, and for the largest eigenvalue
RESIDUAL = 0.01  # of the largest eigenvalue
SAMPLING = SamplingSettings(chains=4, warmup=30, draws=60, leaps=4)


@dataclass(frozen=True)
class LayerInvariants:
    """What one block of parameters has, unchanged by rescaling and permutation.

    Args:
        layer: its name.
        parameters: their number.
        rank: of its part of F.
        sure: whether the singular values counted stand apart from the others.
        norm: θ_lᵀ F_ll θ_l, nats.
        trace: tr Θ_l F_ll Θ_l, nats.
    """

    layer: str
    parameters: int
    rank: int
    sure: bool
    norm: float
    trace: float


@dataclass(frozen=True)
class NetworkNumbers:
    """The invariants of a network.

    Args:
        measurements: in the order shown.
        unchanged: name of a measurement → what it is unchanged by.
        unmeasured: what is absent, with reasons.
        layers: by block of parameters.
        spectrum: eigenvalues of F̃ = Θ F Θ, largest first, nats.
        words: which examples were read.
    """

    measurements: tuple[Measurement, ...]
    unchanged: Mapping[str, str]
    unmeasured: tuple[Unmeasured, ...]
    layers: tuple[LayerInvariants, ...]
    spectrum: tuple[float, ...]
    words: str


@dataclass(frozen=True)
class _Sources:
    """What the invariants are computed from."""

    task: Task
    metric: RelativeMetric
    workspace: Workspace
    seed: int

    @property
    def exact(self) -> bool:
        return self.metric.plan.whole

    def of_all(self, value: float, how: str = "") -> Value:
        """Tell a function of the spectrum: exact on all examples; of a sample it is not that of all."""
        n = self.metric.plan.n
        if self.exact:
            return Value(value, n, None, how)
        note = f"of {self.metric.plan.words}: it grows with their number"
        return Value(value, n, None, how, reliable=False, note=note)


def read_invariants(
    task: Task, *, sampled: bool = True, seed: int = 0, progress: Progress | None = None
) -> NetworkNumbers:
    """Read the invariants of a network from a copy in double precision.

    Args:
        task: the network and its data.
        sampled: whether the learning coefficient is sampled and the loss's curvature read, where affordable.
        seed: of all draws.
        progress: where the work reports.

    Returns:
        every number with its error, and with what it is unchanged by.

    Raises:
        MemspaceError: the task cannot be read; see ``memspace.errors``.
    """
    precise = doubled(task)
    with fixed_parts(precise):
        return _read(precise, sampled, seed, progress)


def _read(precise: Task, sampled: bool, seed: int, progress: Progress | None) -> NetworkNumbers:
    """The numbers of a network in double precision."""
    workspace = workspace_of(precise, seed=seed, progress=progress)
    space = present(workspace.get(ParameterSpace))
    assert space is not None
    most = 10**9 if space.size <= SMALL else min(ROWS, NUMBERS // space.size)
    metric = read_relative(precise, space, plan_rows(precise, most, seed), progress)
    sources = _Sources(precise, metric, workspace, seed)
    measured: list[tuple[Measurement, str]] = [*_predictions(sources), *_spectral(sources)]
    missing: list[Unmeasured] = []
    parts: list[tuple[str, Callable[[], list[tuple[Measurement, str]]]]] = [
        ("invariants.symmetries", partial(_symmetries, sources)),
    ]
    if sampled:
        parts.append(("invariants.learning_coefficient", partial(_learning, sources)))
        parts.append(("invariants.curvature", partial(_curvature, sources)))
    for name, part in parts:
        made = attempt(name, part)
        if isinstance(made, Unmeasured):
            missing.append(made)
        else:
            measured += made
    if not sampled:
        missing.append(Unmeasured("invariants.learning_coefficient", "it was not asked for", "ask for sampled=True"))
    return NetworkNumbers(
        tuple(m for m, _ in measured),
        {m.name: by for m, by in measured},
        tuple(missing),
        _layers(metric),
        tuple(metric.eigenvalues().tolist()),
        metric.plan.words,
    )


def _predictions(sources: _Sources) -> list[tuple[Measurement, str]]:
    """The loss, and the Fisher–Rao norm of the weights."""
    outputs = sources.workspace.get(TrainingOutputs)
    assert not isinstance(outputs, Absent)
    law = sources.task.likelihood
    losses = per_prediction(outputs.loss, by_example(outputs.weight))
    lower = 0.0 if law.classifies else -math.inf
    loss = Value.mean(losses.tolist(), lower=lower, per=outputs.per)
    norm = Value.mean(sources.metric.norms.tolist(), lower=0.0)
    return [
        (stated("invariants.training_loss", loss, "nats", "mean over training examples"), PREDICTIONS),
        (
            stated("invariants.fisher_rao_norm", norm, "nats", "θᵀFθ, mean over examples", "liang2019"),
            LINEAR,
        ),
    ]


def _spectral(sources: _Sources) -> list[tuple[Measurement, str]]:
    """What the spectra of F̃ and of F scaled to a unit diagonal say."""
    metric, name = sources.metric, "invariants."
    rank, size = metric.rank(), metric.space.size
    apart = f"the least singular value counted is {rank.apart:.2g} times the largest that is not"
    counted = sources.of_all(float(rank.count), how=apart)
    flat = sources.of_all(float(size - rank.count), how=apart)
    if sources.exact and not rank.sure:
        note = "singular values fall off to rounding without a gap, so the count depends on where it stops"
        counted, flat = (Value(v.value, v.n, None, v.how, False, note) for v in (counted, flat))
    values = metric.eigenvalues()
    total = float(values.sum())
    rows: list[tuple[str, Value, str, str, str, str]] = [
        ("rank", counted, "1", "rank of F, scaled to a unit diagonal", "", ANYTHING),
        ("flat_directions", flat, "1", "number of parameters less the rank of F", "", ANYTHING),
        ("relative_trace", sources.of_all(total), "nats", "tr ΘFΘ = Σ θ² F_θθ", "liang2019, petzka2021", DIAGONAL),
    ]
    if total > 0:
        shares = values[values > 0] / total
        n = sources.metric.plan.of
        learnt = n * values
        rows += [
            ("effective_rank", sources.of_all(math.exp(-float((shares * shares.log()).sum()))), "1",
             "exponential of the entropy of the eigenvalues of ΘFΘ", "roy2007", DIAGONAL),
            ("participation_ratio", sources.of_all(1 / float(shares.square().sum())), "1",
             "(Σλ)²/Σλ² of ΘFΘ", "", DIAGONAL),
            ("bits", sources.of_all(0.5 * float(torch.log1p(learnt).sum()) / math.log(2)), "bits",
             "½ log₂ det(I + N ΘFΘ): log-volume that N examples take from a Gaussian as wide as each weight",
             "mackay1992", DIAGONAL),
            ("effective_parameters", sources.of_all(float((learnt / (1 + learnt)).sum())), "1",
             "tr NΘFΘ (I + NΘFΘ)⁻¹: directions that N examples know better than that Gaussian", "mackay1992", DIAGONAL),
        ]  # fmt: skip
    return [(stated(name + key, v, unit, how, source), by) for key, v, unit, how, source, by in rows]


def _symmetries(sources: _Sources) -> list[tuple[Measurement, str]]:
    """Flat directions by the symmetry that explains them; counted where F confirms them."""
    task, metric, space = sources.task, sources.metric, sources.metric.space
    diagonal = metric.diagonal()
    idle = int((diagonal == 0).sum())
    state = {**dict(task.model.named_parameters()), **dict(task.model.named_buffers())}
    state = {name: tensor.detach() for name, tensor in state.items()}
    units = hidden_units(task)
    count = sum(u.count for u in units)
    if count * space.size > NUMBERS:
        raise UnsupportedLayerError(
            f"{count:,} units of {space.size:,} parameters are too many to write their directions down",
            where="memspace.invariants",
            remedy="read some of the parameters: parameters=",
        )
    families = dict(zip(("rescalings", "shifts"), symmetry_directions(task, space, state), strict=True))
    families["normalisations"] = norm_directions(task, space, state)
    weights = diagonal.sqrt()
    confirmed = {key: v.to(weights)[metric.flatness(v.to(weights)) <= FLAT] * weights for key, v in families.items()}
    n = metric.plan.n
    named = [(key, Value(float(_rank(v)), n), "1", _HOW[key]) for key, v in confirmed.items()]
    orders = sum(math.lgamma(u.count + 1) / math.log(2) for u in units)
    named.append(("permutations", Value(orders, n), "bits", "log₂ of the orders of hidden units"))
    named.append(("idle_parameters", sources.of_all(float(idle)), "1", "parameters that move no prediction at all"))
    rank = metric.rank()
    unexplained = space.size - rank.count - idle - _rank(torch.cat(list(confirmed.values())))
    left = sources.of_all(float(unexplained))
    if sources.exact and not rank.sure:
        left = Value(left.value, n, None, reliable=False, note="the rank depends on where small singular values stop")
    named.append(("unexplained", left, "1", "flat directions without a symmetry behind them"))
    return [(stated(f"invariants.{key}", v, unit, how), DIAGONAL) for key, v, unit, how in named]


_HOW = {
    "rescalings": "flat directions that scale a hidden unit's inputs up and its outputs down",
    "shifts": "flat directions that add one number to all outputs of an example",
    "normalisations": "flat directions that a normalisation takes out of the layer before it",
}


def _rank(directions: Tensor) -> int:
    """Number of independent directions among unit vectors along them."""
    norms = directions.norm(dim=1)
    real = directions[norms > 0] / norms[norms > 0].unsqueeze(1)
    return int(torch.linalg.matrix_rank(real)) if len(real) else 0


def _surface(sources: _Sources) -> LossSurface:
    """The loss as a function of the weights, where reading it many times is affordable."""
    size = sources.metric.space.size
    surface = sources.workspace.get(LossSurface)
    if isinstance(surface, Absent):
        raise UnsupportedLayerError(surface.reason, where="memspace.invariants", remedy=surface.remedy)
    if size > AFFORDABLE:
        raise UnsupportedLayerError(
            f"{size:,} parameters make its many readings of the loss too dear",
            where="memspace.invariants",
            remedy="read some of the parameters: parameters=",
        )
    return surface


def _learning(sources: _Sources) -> list[tuple[Measurement, str]]:
    """λ̂, sampled in relative changes of the weights: what the chains sample is then unchanged by rescaling."""
    surface = _surface(sources)
    theta = surface.theta
    estimate = learning_coefficient(
        lambda points: surface.losses(points * theta), torch.ones_like(theta), surface.n, SAMPLING, seed=sources.seed
    )
    if isinstance(estimate, Absent):
        raise UnsupportedLayerError(estimate.reason, where="memspace.invariants", remedy=estimate.remedy)
    doubt = doubt_of(estimate, SAMPLING)
    zeros = int((theta == 0).sum())
    fixed = f", {zeros} weights of zero stay" if zeros else ""
    how = f"R̂ = {estimate.rhat:.2f}, {estimate.size:.0f} independent draws, {surface.how}{fixed}"
    value = Value.with_error(
        estimate.value, estimate.error, surface.examples, df=estimate.df, reliable=not doubt, how=how, note=doubt
    )
    estimator = (
        f"nβ (E L(w) − L(w*)), β = 1/ln n, w = w*(1 + u), u ~ exp(−nβ L − {SAMPLING.localisation:g}/2 ‖u‖²) by chains"
    )
    return [
        (
            stated("invariants.learning_coefficient", value, "1", estimator, "watanabe2013, lau2023"),
            f"{DIAGONAL}; within its error",
        )
    ]


def _curvature(sources: _Sources) -> list[tuple[Measurement, str]]:
    """Trace and largest eigenvalue of the training loss's Hessian in relative changes of the weights."""
    surface = _surface(sources)
    theta = surface.theta
    generator = torch.Generator().manual_seed(sources.seed + 63)
    start = torch.randn(2, len(theta), generator=generator, dtype=torch.float64).to(theta)
    with surface.hessian() as product:
        top = top_eigenpairs(lambda v: product(v * theta) * theta, start, 1, tolerance=RESIDUAL, limit=PRODUCTS)
        trace = xtrace(
            lambda v: (product(v.to(theta) * theta) * theta).cpu(), len(theta), min(PROBES, len(theta)), generator
        )
    largest, residual = float(top.values[0]), float(top.residuals[0])
    highest = Value(
        largest,
        surface.examples,
        (largest, largest * (1 + residual)),
        f"{top.products} products, {surface.how}",
        top.converged,
        "" if top.converged else "Lanczos did not converge",
    )
    total = Value.with_error(trace.value, trace.standard_error, surface.examples, df=trace.df, how=surface.how)
    by = f"{DIAGONAL}; within its error"
    return [
        (stated("invariants.curvature_trace", total, "nats", "tr Θ∇²LΘ, XTrace", "epperly2024, kwon2021"), by),
        (stated("invariants.curvature_top", highest, "nats", "λ_max of Θ∇²LΘ, Lanczos", "kwon2021, golub2010"), by),
    ]


def _layers(metric: RelativeMetric) -> tuple[LayerInvariants, ...]:
    """Rank, norm and trace of every block."""
    layers = []
    for block in metric.space.blocks:
        part = slice(block.start, block.stop)
        norm = float((metric.root[:, part] @ metric.theta[part]).square().sum())
        rank = metric.rank(part)
        trace = float((metric.theta[part].square() * metric.diagonal()[part]).sum())
        layers.append(LayerInvariants(block.name, block.size, rank.count, rank.sure, norm, trace))
    return tuple(layers)
