"""What is too far from the exact metric is marked not reliable, with the number; what is near enough is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import memspace
from memspace.auditing import ekfac_backend
from memspace.editing.forget import forget
from memspace.metric.metric import Fidelity
from memspace.metric.trust import RESIDUAL, SOLUTION


def _blobs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (n,), generator=g)
    return 2 * torch.eye(3, 8)[y] + torch.randn(n, 8, generator=g), y


def _trained(seed: int) -> memspace.Task:
    torch.manual_seed(seed)
    x, y = _blobs(240, seed)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return memspace.Task(model=model.eval(), train=(x, y))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ekfac_far_from_the_exact_scores_is_not_reliable(seed: int) -> None:
    task, queries = _trained(seed), [0, 1, 2, 3]
    exact = memspace.influence(task, queries, engine="dual", damping=1e-2)
    found = memspace.influence(task, queries, engine="ekfac", damping=1e-2)
    apart = float(((found.scores - exact.scores).square().sum(1) / exact.scores.square().sum(1)).mean().sqrt())
    assert apart > 2 * SOLUTION  # the truth, by the exact formula
    measured = found.diagnostic("influence.solution_error")
    assert 0.5 * apart < measured.value < 1.5 * apart  # known without the truth
    assert not measured.reliable
    assert not found.reliable
    assert f"{measured.value:.2g}" in found.note
    assert exact.reliable
    assert exact.diagnostic("influence.residual").reliable


def test_ekfac_that_is_exact_stays_reliable() -> None:
    torch.manual_seed(3)
    x = torch.randn(150, 5)
    y = x @ torch.randn(5, 2) + 0.1 * torch.randn(150, 2)
    model = nn.Linear(5, 2).double()  # square loss: F = E[aaᵀ] ⊗ I/σ², one Kronecker product
    task = memspace.Task(model=model, train=(x.double(), y.double()), likelihood=memspace.Gaussian(1.0))
    found = memspace.influence(task, [0, 1, 2], engine="ekfac", damping=1e-3)
    assert found.diagnostic("influence.solution_error").value < 1e-6
    assert found.reliable


def test_strong_damping_leaves_little_to_be_wrong_about() -> None:
    found = memspace.influence(_trained(4), [0, 1], engine="ekfac", damping=100.0)
    assert found.diagnostic("influence.solution_error").value < SOLUTION / 2
    assert found.reliable


@pytest.mark.parametrize("error", [0.03, 0.97])
def test_an_audit_marks_what_rests_on_a_metric_far_from_exact(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ekfac_backend, "fidelity", lambda *_: Fidelity(error, 0.01, 1.0, 4))
    found = memspace.audit(_trained(5), settings=memspace.Settings(representation="ekfac"))
    measured = {m.name: m for c in found.chapters for m in c.measurements}
    near = error < 0.5
    assert measured["fisher.fidelity_error"].reliable is near
    assert measured["memory.self_influence"].reliable is near
    captions = [g.caption for c in found.chapters for g in c.galleries if g.id.startswith("query")]
    assert captions
    assert all(("Not reliable in size" not in c) is near for c in captions)
    assert near or "0.97" in measured["fisher.fidelity_error"].note


@pytest.mark.parametrize("method", ["dual", "cg", "ekfac"])
def test_an_edit_states_the_residual_of_its_solve(method: str) -> None:
    edit = forget(_trained(6), [1, 2, 3], method=method, damping=1e-3)
    m = edit.measurement("forget.solve_residual")
    assert m.reliable == (m.value <= RESIDUAL)
    assert bool(m.note) != m.reliable
