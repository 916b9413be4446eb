"""Intervals of scores that share their retrained networks hold for other subsets of the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from memspace.experiments.designs import random_parts
from memspace.experiments.lds import correlations, lds
from memspace.experiments.memorisation import mean_error, memorisation
from memspace.experiments.outcomes import OutcomeQueries
from memspace.experiments.truth import Design, Truth
from memspace.intervals import around, margin


def truth_of(design: Design, loss: torch.Tensor, split: str = "test") -> Truth:
    q = loss.shape[2]
    queries = OutcomeQueries(torch.zeros(q, 1), torch.zeros(q, dtype=torch.long), (split,) * q, torch.arange(q))
    return Truth(design, queries, {"loss": loss, "correct": (loss < 0).double()}, 0.0)


@pytest.mark.parametrize("shared", [0.2, 0.9])
def test_the_interval_of_the_linear_datamodelling_score_covers_when_queries_go_together(shared: float) -> None:
    """Scores of all queries and what they miss are alike, as with queries of one kind: a draw of subsets moves all."""
    n, queries, subsets, held, draws = 60, 40, 24, 0, 60
    g = torch.Generator().manual_seed(int(10 * shared))

    def alike(rows: int, columns: int) -> torch.Tensor:
        one = torch.randn(1, columns, generator=g, dtype=torch.float64)
        own = torch.randn(rows, columns, generator=g, dtype=torch.float64)
        return shared**0.5 * one + (1 - shared) ** 0.5 * own

    tau, missed = alike(queries, n), alike(queries, n)

    def score(count: int, seed: int) -> tuple[Truth, torch.Tensor]:
        design = random_parts("half", n, count, 0.5, seeds=1, seed=seed)
        return truth_of(design, -(design.kept.double() @ (tau + missed).T)[:, None]), tau

    true = float(correlations(tau, score(4000, 1)[0]).mean())
    for k in range(draws):
        low, high = lds(tau, score(subsets, 100 + k)[0]).interval
        held += low <= true <= high
    assert held / draws >= 0.95 - 3 * (0.95 * 0.05 / draws) ** 0.5


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_error_of_memorisation_counts_subsets_and_not_networks(seeds: int) -> None:
    """What a subset does to an example is shared by all its seeds: as single networks they covered 0.59."""
    n, subsets, draws = 12, 40, 150
    g = np.random.default_rng(seeds)
    held, mean_held, total = 0, 0, 0
    for k in range(draws):
        design = random_parts("memorisation", n, subsets, 0.7, seeds=seeds, seed=k)
        kept = design.kept.double().numpy()
        chance = 0.3 + 0.3 * kept  # the truth: memorisation 0.3
        subset = g.normal(0, 1, (subsets, n)) * 0.9 + g.normal(0, 1, (subsets, 1)) * 0.4
        probability = 1 / (1 + np.exp(-(np.log(chance / (1 - chance)) + subset)))
        right = g.random((subsets, seeds, n)) < probability[:, None]
        truth = truth_of(design, torch.as_tensor(np.where(right, -1.0, 1.0)), split="train")
        found = memorisation(truth)
        true = _expected(0.6, 0.97) - _expected(0.3, 0.97)
        held += int(((found.value - true).abs() <= margin(found.error)).sum())
        total += n
        low, high = around(float(found.value.mean()), mean_error(truth, "correct", found.value > -2), subsets - 1)
        mean_held += low <= true <= high
    assert held / total >= 0.9
    assert mean_held / draws >= 0.95 - 3 * (0.95 * 0.05 / draws) ** 0.5


def _expected(p: float, variance: float) -> float:
    """E σ(logit p + N(0, variance))."""
    nodes, weight = np.polynomial.hermite_e.hermegauss(60)
    return float((weight / (1 + np.exp(-(np.log(p / (1 - p)) + nodes * variance**0.5)))).sum() / weight.sum())
