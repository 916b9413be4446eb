"""The contract of a Fisher metric: symmetric, positive semi-definite, its functions those of its own matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from memspace.metric.metric import Estimate, FisherMetric

__all__ = ["check_metric"]

ERRORS = 4  # standard errors within which a probed trace is the matrix's: beyond in fewer than 1 of 10,000 checks
VECTORS = 3


@dataclass(frozen=True)
class _Checked:
    """A metric next to its own matrix; ``damping`` is of the size of its eigenvalues."""

    metric: FisherMetric
    tolerance: float
    seed: int

    @cached_property
    def matrix(self) -> Tensor:
        """The metric's own matrix (P, P), float64."""
        return self.metric.to_dense().double()

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (P,), ascending and not negative, and eigenvectors (P, P) of the matrix."""
        values, vectors = torch.linalg.eigh((self.matrix + self.matrix.T) / 2)
        return values.clamp_min(0), vectors

    @cached_property
    def damping(self) -> float:
        """A third of the mean eigenvalue; 1 for a metric of zero."""
        return 0.3 * float(self.spectrum[0].mean()) or 1.0

    @cached_property
    def vectors(self) -> Tensor:
        """Random vectors (k, P), float64."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(VECTORS, self.metric.size, generator=generator, dtype=torch.float64)

    def expected(self, fn: Callable[[Tensor], Tensor]) -> Tensor:
        """fn(F) v of every vector, by the matrix's own eigendecomposition."""
        values, basis = self.spectrum
        return self.vectors @ basis * fn(values) @ basis.T

    def near(self, found: Tensor, expected: Tensor, what: str) -> None:
        """Require two tensors to agree, relative to the size of the expected one."""
        assert found.shape == expected.shape, f"{what} has the shape {tuple(found.shape)}, not {tuple(expected.shape)}"
        apart = float((found.double() - expected).norm() / expected.norm().clamp_min(1e-300))
        assert apart <= self.tolerance, f"{what} is {apart:.1e} off, relative; at most {self.tolerance:.0e} is allowed"

    def estimates(self, found: Estimate, expected: Tensor, what: str) -> None:
        """Require a number to be exact, or within its own standard errors."""
        value = float(expected)
        allowed = ERRORS * found.standard_error + self.tolerance * max(abs(value), 1e-300)
        message = f"{what} is {found.value:.6g} ± {found.standard_error:.2g}, of its own matrix it is {value:.6g}"
        assert abs(found.value - value) <= allowed, message


def check_metric(metric: FisherMetric, dense: Tensor | None = None, *, tolerance: float = 1e-6, seed: int = 0) -> None:
    """Hold a metric to the contract that everything in memspace relies on.

    Its matrix is symmetric and positive semi-definite; products, functions, solves, traces, log-determinant,
    diagonal, eigenvalues and draws are those of that matrix; a damping that is not positive is refused. The matrix is
    formed: for networks of at most a few hundred parameters.

    Args:
        metric: any representation.
        dense: (P, P) what the matrix should be; None: it is held to itself alone.
        tolerance: relative, of everything that is not estimated by probes; the rounding of float32 needs 1e-3.
        seed: of the random vectors.

    Raises:
        AssertionError: something does not hold; says what in one sentence.
    """
    checked = _Checked(metric, tolerance, seed)
    _matrix(checked, dense)
    _products(checked)
    _functions(checked)
    _numbers(checked)
    _eigenvalues(checked)
    _refusals(checked)


def _matrix(checked: _Checked, dense: Tensor | None) -> None:
    matrix, size = checked.matrix, checked.metric.size
    assert matrix.shape == (size, size), f"to_dense() has the shape {tuple(matrix.shape)}, the size is {size}"
    assert bool(torch.isfinite(matrix).all()), "the matrix holds NaN or infinite entries"
    checked.near(matrix, matrix.T, "the transpose of the matrix")
    lowest, scale = float(torch.linalg.eigvalsh((matrix + matrix.T) / 2).min()), float(matrix.norm())
    message = f"the matrix has the negative eigenvalue {lowest:.2g} at a norm of {scale:.2g}"
    assert lowest >= -checked.tolerance * scale, message
    if dense is not None:
        checked.near(matrix, dense.double(), "the matrix, against the reference,")


def _products(checked: _Checked) -> None:
    metric, vectors = checked.metric, checked.vectors
    products = metric.matvec(vectors)
    checked.near(products, vectors @ checked.matrix.T, "the product with a stack of vectors")
    checked.near(metric.matvec(vectors[0]), products[0].double(), "the product with one flat vector")
    single = metric.matvec(vectors.float())
    assert single.dtype == torch.float32, f"the product with float32 vectors is {single.dtype}"
    checked.near(metric.norm(vectors), (vectors * products).sum(-1).clamp_min(0).sqrt(), "the norm √(vᵀFv)")
    checked.near(metric.diagonal(), checked.matrix.diagonal(), "the diagonal")


def _functions(checked: _Checked) -> None:
    metric, vectors, damping = checked.metric, checked.vectors, checked.damping

    def root(x: Tensor) -> Tensor:
        return torch.sqrt(x + damping)

    checked.near(metric.apply(root, vectors), checked.expected(root), "apply of √(x + γ)")
    checked.near(metric.solve(vectors, damping), checked.expected(lambda x: 1 / (x + damping)), "solve")
    checked.near(metric.solve(vectors[0], damping), checked.expected(lambda x: 1 / (x + damping))[0], "a flat solve")
    drawn = metric.sample(damping, torch.Generator().manual_seed(checked.seed), 2)
    assert drawn.shape == (2, metric.size), f"2 draws have the shape {tuple(drawn.shape)}"


def _numbers(checked: _Checked) -> None:
    metric, damping, values = checked.metric, checked.damping, checked.spectrum[0]
    checked.estimates(metric.trace(), values.sum(), "the trace")
    checked.estimates(metric.trace(torch.sqrt), values.sqrt().sum(), "the trace of √F")
    checked.estimates(metric.logdet(damping), torch.log(values + damping).sum(), "log det(F + γI)")
    expected = (values / (values + damping)).sum()
    checked.estimates(metric.effective_dimension(damping), expected, "the effective dimension")


def _eigenvalues(checked: _Checked) -> None:
    values, largest = checked.metric.eigenvalues().double(), float(checked.spectrum[0][-1])
    assert bool((values[1:] <= values[:-1]).all()), "the eigenvalues are not in descending order"
    message = f"the largest eigenvalue is {float(values[0]):.6g}, of the matrix it is {largest:.6g}"
    assert abs(float(values[0]) - largest) <= max(checked.tolerance, 1e-6) * max(largest, 1e-300), message


def _refusals(checked: _Checked) -> None:
    for damping in (0.0, -1.0, float("nan")):
        try:
            checked.metric.solve(checked.vectors, damping)
        except ValueError:
            continue
        raise AssertionError(f"solve takes the damping {damping}: it should raise SettingsError")
