"""Predictors made of the Fisher spectrum, on known spectra."""

from __future__ import annotations

import math

import pytest
import torch

from memspace.geometry.volume import admissible_bits
from memspace.measures.damping import DampingChoice
from memspace.measures.predictors.evidence import EvidenceDamping, information_at_evidence
from memspace.measures.predictors.spectrum import (
    AdmissibleBall,
    effective_dimension,
    local_effective_dimension,
    prior_mass,
    trace_over_examples,
)
from memspace.measures.spectrum import DirectionCounts, spectrum_summary
from memspace.measures.values import Curvature, TrainingOutputs
from memspace.metric.spectral import Dense
from memspace.testing import check_measure
from memspace.value import Absent
from tests.zoo.measured_networks import perceptron_task


def _metric(values: list[float]) -> Dense:
    return Dense.of(torch.diag(torch.tensor(values, dtype=torch.float64)), "exact")


def _curvature(metric: Dense, trace: float) -> Curvature:
    return Curvature(metric, metric.diagonal, lambda fn: torch.zeros(1), None, (trace, 0.0), None, "dense", 50)


def _outputs(n: int) -> TrainingOutputs:
    return TrainingOutputs(torch.zeros(n, 2), torch.zeros(n, dtype=torch.long), torch.zeros(n), torch.ones(n))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
@pytest.mark.parametrize(
    ("rank", "examples", "expected"), [(100, 1000, None), (10, 10**3, 17.4), (10, 10**5, 13.2), (10, 10**8, 11.7)]
)
def test_effective_dimension_of_a_flat_spectrum(rank: int, examples: int, expected: float | None, scale: float) -> None:
    size = 100
    found = effective_dimension(_metric([scale] * rank + [0.0] * (size - rank)), size, examples)
    k = examples / (2 * math.pi * math.log(examples))
    assert found == pytest.approx(rank * math.log1p(k * size / rank) / math.log(k), rel=1e-9)
    if expected is not None:
        assert found == pytest.approx(expected, abs=0.05)


def test_effective_dimension_needs_examples_and_a_metric() -> None:
    assert effective_dimension(_metric([0.0, 0.0]), 2, 1000) is None
    assert effective_dimension(_metric([1.0, 1.0]), 2, 10) is None
    assert effective_dimension(_metric([1.0, 1.0]), 2, 1) is None


def test_the_mass_of_one_direction_is_the_normal_law_s() -> None:
    # ½ λ l² z² ≤ ε with λ = 2, l = 0.5, ε = 0.25: |z| ≤ 1.
    values = torch.tensor([2.0], dtype=torch.float64)
    directions = DirectionCounts(values, spectrum_summary(values, 3), "")
    found = prior_mass(_curvature(_metric([2.0]), 2.0), directions, AdmissibleBall(0.25, 0.5))
    assert found.value == pytest.approx(-math.log2(math.erf(1 / math.sqrt(2))), rel=1e-9)
    assert found.value == admissible_bits(values, 0.5, 0.25).bits


def test_the_trace_is_shared_among_the_examples() -> None:
    assert trace_over_examples(_outputs(200), _curvature(_metric([3.0, 1.0]), 4.0)).value == pytest.approx(0.02)


def test_evidence_without_a_maximum_is_marked() -> None:
    curvature = _curvature(_metric([1.0, 3.0]), 4.0)
    found = DampingChoice.evidence(curvature.metric, torch.ones(2), 100)
    nowhere = DampingChoice.evidence(curvature.metric, torch.zeros(2), 100)
    assert (found.found, nowhere.found) == (True, False)
    values = [information_at_evidence(curvature, EvidenceDamping(choice)) for choice in (found, nowhere)]
    assert [v.reliable for v in values] == [True, False]
    expected = sum(0.5 * math.log2(1 + x / found.value) for x in (1.0, 3.0))
    assert values[0].value == pytest.approx(expected)
    # Nγ‖θ‖² is the number of effective parameters there.
    assert 100 * found.value * 2 == pytest.approx(sum(x / (x + found.value) for x in (1.0, 3.0)))


@pytest.mark.parametrize(
    "function", [local_effective_dimension, prior_mass, trace_over_examples, information_at_evidence]
)
def test_the_contract(function: object) -> None:
    found = check_measure(function, perceptron_task(n=40, width=5, steps=10))  # type: ignore[arg-type]
    assert not isinstance(found[0], Absent)
