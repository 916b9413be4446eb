"""The Fisher spectrum of a small network on all its labels, and how much of each eigenvalue every example carries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from scipy.optimize import brentq
from torch import Tensor
from torch.func import jvp, vmap

from memspace.geometry.volume import admissible_bits
from memspace.measures.damping import evidence_root
from memspace.passes.linearised import quiet
from memspace.passes.space import ParameterSpace
from memspace.task.checks import evaluating
from memspace.task.functional import functional_call
from memspace.task.task import Task

__all__ = ["LabelCurvature", "label_curvature"]

LN2 = math.log(2.0)
TANGENTS = 512  # parameters of one pass of forward mode
RELATIVE_ZERO = 1e-12  # eigenvalues below this share of the largest are rounding


@dataclass(frozen=True)
class LabelCurvature:
    """The exact Fisher information of N labels in the weights.

    Args:
        values: (R,) eigenvalues λ of F, the mean over labels, nats.
        vectors: (P, R) their eigenvectors.
        parts: (m, R) each example's share of Nλ: its rows sum to Nλ.
        labels: N.
        squared: ‖θ‖².
    """

    values: Tensor
    vectors: Tensor
    parts: Tensor
    labels: int
    squared: float

    def product(self, stack: Tensor) -> Tensor:
        """Multiply vectors by F.

        Args:
            stack: (k, P).

        Returns:
            (k, P).
        """
        return ((stack @ self.vectors) * self.values) @ self.vectors.t()

    def dimension(self, damping: float) -> float:
        """Compute the number of effective parameters Σ λ/(λ + γ).

        Args:
            damping: γ.

        Returns:
            A pure number.
        """
        return float((self.values / (self.values + damping)).sum())

    def evidence(self) -> float | None:
        """Find the γ at which Nγ‖θ‖² is the number of effective parameters: the maximum of the Laplace evidence.

        Returns:
            γ, or None where the evidence has no maximum in reach.
        """
        value, inside = evidence_root(self.dimension, self.squared, self.labels)
        return value if inside else None

    def information(self, damping: float) -> tuple[float, float]:
        """Compute ½ Σ log2(1 + λ/γ), the bits that the labels put into the weights under the prior N(·, I/Nγ).

        Args:
            damping: γ.

        Returns:
            The bits, and their standard error over examples.
        """
        bits = 0.5 * float(torch.log1p(self.values / damping).sum()) / LN2
        return bits, self._spread(1 / (self.values + damping))

    def volume(self, damping: float, epsilon: float) -> tuple[float, float]:
        """Compute −log2 of the prior mass of {θ : ½ δᵀFδ ≤ ε}, δ = θ − θ* ~ N(0, I/Nγ).

        To first order the bits change with λ as ½ log2(1 + λ/γ') does, 1/γ' = s/Nγ with s the saddle point of the
        inversion: a ball holds each direction as a prior of precision γ' would.

        Args:
            damping: γ.
            epsilon: ε, nats per label.

        Returns:
            The bits, and their standard error over examples.
        """
        alpha = self.labels * damping
        volume = admissible_bits(self.values, alpha**-0.5, epsilon)
        if volume.bits == 0:
            return 0.0, 0.0
        saddle = _saddle(self.values / alpha, epsilon)
        return volume.bits, math.hypot(self._spread(1 / (self.values + alpha / saddle)), volume.error)

    def _spread(self, weights: Tensor) -> float:
        """Standard error of a sum whose derivative by λ is ``weights``/2 ln 2, when examples are drawn again."""
        by_example = self.parts @ weights / (2 * LN2 * self.labels)
        return math.sqrt(len(by_example)) * float(by_example.std()) if len(by_example) > 1 else math.inf


def _saddle(widths: Tensor, epsilon: float) -> float:
    """The s > 0 at which sε − ½ Σ log(1 + s w) − log s is least."""

    def slope(log_s: float) -> float:
        s = math.exp(log_s)
        return s * epsilon - 0.5 * float((s * widths / (1 + s * widths)).sum()) - 1

    high = math.log((len(widths) / 2 + 2) / epsilon)
    return math.exp(float(brentq(slope, math.log(1 / epsilon) - 1e-9, high, xtol=1e-10)))


def label_curvature(task: Task, space: ParameterSpace, rows: int) -> LabelCurvature:
    """Read the exact Fisher information in two passes: the matrix, then each example's part of its eigenvalues.

    The Jacobian comes by forward mode, a pass for every parameter: with few parameters and many outputs that is much
    less than a pass for every output.

    Args:
        task: the network and its training data.
        space: the parameters.
        rows: Fisher rows formed at a time.

    Returns:
        The curvature; exact to rounding.
    """
    theta = space.flat(task.model).double()
    total = torch.zeros(space.size, space.size, dtype=torch.float64)
    with evaluating(task.model):
        for chunk, _ in _chunks(task, space, theta, rows):
            total += chunk.t() @ chunk
        labels = task.train.batch(list(range(len(task.train)))).y.numel()
        values, vectors = torch.linalg.eigh(total / labels)
        real = values > RELATIVE_ZERO * values[-1].clamp_min(1e-300)
        values, vectors = values[real], vectors[:, real]
        parts = [
            (chunk @ vectors).square().reshape(count, -1, len(values)).sum(1)
            for chunk, count in _chunks(task, space, theta, rows)
        ]
    return LabelCurvature(values, vectors, torch.cat(parts), labels, float(theta.square().sum()))


def _chunks(task: Task, space: ParameterSpace, theta: Tensor, rows: int) -> Iterator[tuple[Tensor, int]]:
    """Rows (R, P) of a root of the summed Fisher matrix, example after example, and how many examples they are of."""
    first, n = task.train.batch([0]), len(task.train)
    with torch.no_grad():
        count = max(1, rows // task.model(first.x).numel())
    for start in range(0, n, count):
        batch = task.train.batch(list(range(start, min(start + count, n))))
        x = batch.x.double() if batch.x.is_floating_point() else batch.x

        def outputs(weights: Tensor, x: Tensor = x) -> Tensor:
            f: Tensor = functional_call(task.model, space.unpack(weights), (x,))
            return f

        tangents = torch.eye(len(theta), dtype=theta.dtype)
        with quiet():
            columns = vmap(partial(_moved, outputs, theta), chunk_size=TANGENTS)(tangents)
        with torch.no_grad():
            root = task.likelihood.fisher_root(outputs(theta).flatten(0, -2))
        made = root.transpose(1, 2) @ columns.flatten(1, -2).permute(1, 2, 0)
        yield made.flatten(0, 1), len(batch.y)


def _moved(outputs: Callable[[Tensor], Tensor], theta: Tensor, tangent: Tensor) -> Tensor:
    moved: Tensor = jvp(outputs, (theta,), (tangent,))[1]
    return moved
