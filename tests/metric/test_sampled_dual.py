"""The dual of a sample of the examples, against the exact dual and dense matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from memspace.measures.leave_one_out import loo_outputs
from memspace.metric.exact import exact_dual, read_jacobian
from memspace.metric.fisher import build
from memspace.metric.sampled import labels_dual, sampled_dual
from memspace.passes.collect import CollectRows
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.rows import Rows
from memspace.passes.verify import checked_space
from memspace.task.task import Task
from tests.zoo.measured_networks import FAMILIES, character_task

CLASSES = [name for name in FAMILIES if name != "character"]


def _task(name: str, **options: int) -> Task:
    return FAMILIES[name](**{"n": 40, "width": 5, "steps": 15, **options}, dtype=torch.float64)


def _dense(rows: Rows) -> Tensor:
    return torch.cat([rows.formed(b) for b in rows.blocks], 1)


@pytest.mark.parametrize("name", CLASSES)
def test_of_all_examples_it_is_the_exact_dual(name: str) -> None:
    task = _task(name)
    space = checked_space(task)
    jacobian = read_jacobian(task, space)
    ours, exact = sampled_dual(task, jacobian, 40), exact_dual(task, jacobian, limit=10**6)
    largest = float(exact.metric.values[-1])
    rank = min(len(ours.metric.values), len(exact.metric.values))
    apart = (ours.metric.values[-rank:] - exact.metric.values[-rank:]).abs().max()
    assert float(apart) < 1e-11 * largest
    assert torch.allclose(ours.trace, exact.trace, rtol=1e-11)
    for gamma in (1e-3, 1.0):
        mine, theirs = ours.leverage.matrices(gamma), exact.leverage.matrices(gamma)
        assert float((mine - theirs).abs().max()) < 1e-8 * float(theirs.abs().max())
    assert torch.allclose(ours.metric.diagonal(), exact.metric.diagonal(), rtol=1e-8, atol=1e-10 * largest)


@pytest.mark.parametrize("name", ["perceptron", "recurrent"])
def test_an_example_of_the_sample_counts_once_in_its_own_leverage(name: str) -> None:
    task, m, of, gamma = _task(name), 12, 40, 0.02
    space = checked_space(task)
    index = torch.arange(5, 5 + m)
    jacobian = read_jacobian(task, space, PassOptions(index=index))
    ours = sampled_dual(task, jacobian, of)
    j, c = _dense(jacobian.rows).reshape(m, -1, space.size), jacobian.f.shape[1]
    root = task.likelihood.fisher_root(jacobian.f)
    h = root @ root.transpose(1, 2)
    each = j.transpose(1, 2) @ h @ j  # (m, P, P)
    whole = of / m * each.sum(0) + of * gamma * torch.eye(space.size, dtype=torch.float64)
    assert torch.allclose(ours.metric.eigenvalues()[:5], torch.linalg.eigvalsh(each.mean(0)).flip(0)[:5], rtol=1e-9)
    dense = torch.stack([j[i] @ torch.linalg.solve(whole + (1 - of / m) * each[i], j[i].t()) for i in range(m)])
    mine = ours.leverage.matrices(gamma)
    assert torch.allclose(mine, dense, rtol=1e-7, atol=1e-9 * float(dense.abs().max()))
    # Without the example nothing of its own is left: J M₋ᵢ⁻¹ Jᵀ g is the step of the outputs.
    without = torch.stack([j[i] @ torch.linalg.solve(whole - of / m * each[i], j[i].t()) for i in range(m)])
    step = torch.einsum("ncd,nd->nc", without, task.likelihood.residual(jacobian.f, jacobian.y))
    loo = loo_outputs(task.likelihood, jacobian.f, jacobian.y, mine)
    assert torch.allclose(loo - jacobian.f, step, rtol=1e-6, atol=1e-8 * float(step.abs().max()))
    assert c == (10 if name == "perceptron" else 2)


@pytest.mark.parametrize(("m", "of"), [(9, 9), (9, 30)])
def test_influence_in_sequences_leaves_sampled_rows_of_its_own_out(m: int, of: int) -> None:
    task, gamma = character_task(n=30, width=6, steps=15, dtype=torch.float64), 0.5
    space = checked_space(task)
    index = torch.arange(3, 3 + m)
    dual = labels_dual(task, space, index, 4, of=of)
    metric = dual.metric
    collected = CollectRows(space.blocks, "empirical")
    run_pass(task, space, [collected], PassOptions(index=index))
    whole, without = dual.influence(gamma)
    r, g = _dense(metric.rows) / (of / m) ** 0.5, _dense(collected.finish())
    assert torch.allclose(dual.trace, r.square().sum(1).reshape(m, 4).sum(1), rtol=1e-10)
    theirs = build(task, space, "dual", kind="mc", samples=4, index=index)
    assert torch.allclose(metric.eigenvalues()[:20], theirs.eigenvalues()[:20], rtol=1e-8)
    eye = torch.eye(space.size, dtype=torch.float64)
    each = torch.stack([r[metric.rows.example == i].t() @ r[metric.rows.example == i] for i in range(m)])
    sum_of_all = of / m * each.sum(0) + of * gamma * eye
    once = [g[i] @ torch.linalg.solve(sum_of_all + (1 - of / m) * each[i], g[i]) for i in range(m)]
    none = [g[i] @ torch.linalg.solve(sum_of_all - of / m * each[i], g[i]) for i in range(m)]
    assert torch.allclose(whole, torch.stack(once), rtol=1e-7)
    assert torch.allclose(without, torch.stack(none), rtol=1e-7)
    assert bool((without >= whole * (1 - 1e-9)).all())
