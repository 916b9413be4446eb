"""Merged classes and several sampled labels in every representation, against the dense float64 reference."""

import math

import pytest
import torch
from torch import nn

from memspace.errors import MemoryBudgetError
from memspace.metric.fisher import build
from memspace.passes.verify import verified_space
from memspace.task.law import IGNORE
from memspace.task.likelihood import Categorical
from memspace.task.merged import kept_classes, lost_trace
from memspace.task.task import Task
from tests.contract.networks import NETWORKS, dense_fisher, jacobian, network

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

EXACT = 1e-10  # relative: float64 rounding over a few thousand products
LAW = Categorical()


class Vocabulary(nn.Module):
    """Embedding, mixing of positions, a head of many classes with unequal frequencies; one output per position."""

    def __init__(self, classes, positions=True):
        super().__init__()
        self.token, self.mix, self.head = nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, classes)
        self.positions = positions
        with torch.no_grad():
            self.head.bias.copy_(-1.5 * torch.arange(1, classes + 1).log())

    def forward(self, x):
        h = torch.tanh(self.mix(self.token(x) + self.token(x).mean(1, keepdim=True)))
        return self.head(h if self.positions else h.mean(1))


def task_of(name, seed=0):
    model, x = network(name, seed)
    y = LAW.sample(model(x).detach(), torch.Generator().manual_seed(seed + 1))
    task = Task(model=model, train=(x, y), likelihood=LAW)
    return task, verified_space(task), x, y


def vocabulary(classes, seed=0, positions=True, n=5):
    torch.manual_seed(seed)
    model, x = Vocabulary(classes, positions).double().eval(), torch.randint(0, 6, (n, 3))
    y = LAW.sample(model(x).detach(), torch.Generator().manual_seed(seed + 1))
    task = Task(model=model, train=(x, y), likelihood=LAW)
    return task, verified_space(task), x, y


def merged_reference(task, space, x, share):
    """(1/N) Σ Jᵀ H' J with H' from the exact information of the label z, by enumerating its classes."""
    j, f = jacobian(task.model, space, x), task.model(x).detach()
    total = torch.zeros(space.size, space.size, dtype=torch.float64)
    for i in range(len(x)):
        blocks = []
        for p in torch.softmax(f[i], -1).reshape(-1, f.shape[-1]):
            ordered, at = p.sort(descending=True)
            count = int(kept_classes(ordered, share))
            groups = [[c] for c in at[:count].tolist()] + [at[count:].tolist()]
            h = torch.zeros(len(p), len(p), dtype=torch.float64)
            for group in groups:
                mass = p[group].sum()
                score = -p.clone()
                score[group] += p[group] / mass
                h += mass * torch.outer(score, score)
            blocks.append(h)
        total += j[i].T @ torch.block_diag(*blocks) @ j[i]
    return total / len(x)


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("name", NETWORKS)
def test_no_loss_allowed_is_the_exact_fisher_with_a_column_less(name):
    task, space, x, y = task_of(name)
    f = dense_fisher(task.model, space, LAW, x, y)
    for r in ("dense", "dual"):
        assert relative(build(task, space, r, kind="topk", lost=0.0, batch=2).to_dense(), f) < EXACT


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("positions", [True, False], ids=["sequence", "plain"])
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_merged_classes_in_every_representation(seed, positions, share):
    task, space, x, y = vocabulary(12, seed, positions)
    f, merged = dense_fisher(task.model, space, LAW, x, y), merged_reference(task, space, x, share)
    made = {r: build(task, space, r, kind="topk", lost=share, batch=2) for r in ("dense", "dual", "diagonal", "ekfac")}
    dense = {r: m.to_dense() for r, m in made.items()}
    assert all(m.kind == f"topk:{share}" for m in made.values())
    assert relative(dense["dense"], merged) < EXACT
    assert relative(dense["dual"], merged) < EXACT
    assert relative(dense["diagonal"], torch.diag(merged.diagonal())) < EXACT
    assert made["ekfac"].trace().value == pytest.approx(float(merged.trace()), rel=EXACT)
    # Something is lost, and never more than nothing in any direction: F' ≤ F.
    gap = torch.linalg.eigvalsh(f - dense["dense"])
    assert float(gap.min()) > -EXACT * float(f.norm())
    assert float(gap.sum()) > 1e-6 * float(f.trace())
    # The lost trace of H at every position bounds that of F: tr (H − H')JJᵀ ≤ tr(H − H') ‖J‖².
    p = torch.softmax(task.model(x).detach(), -1).sort(-1, descending=True).values
    lost = lost_trace(p).gather(-1, kept_classes(p, share).unsqueeze(-1)).squeeze(-1)
    norm = torch.linalg.matrix_norm(jacobian(task.model, space, x).reshape(*p.shape, space.size), 2).square()
    assert float(gap.sum()) <= float((lost * norm).sum() / len(x)) * (1 + EXACT)


def test_the_batch_size_does_not_matter_though_batches_keep_other_numbers_of_classes():
    task, space, _, _ = vocabulary(12, 3)
    whole, ones = (build(task, space, "dense", kind="topk", lost=0.05, batch=b).to_dense() for b in (100, 1))
    assert relative(ones, whole) < EXACT


def test_padded_positions_contribute_nothing():
    task, space, x, y = vocabulary(12)
    y = y.clone()
    y[:, -1] = IGNORE
    padded = Task(model=task.model, train=(x, y), likelihood=LAW)
    short = build(padded, space, "dense", kind="topk", lost=0.05).to_dense()
    exact, merged = (build(padded, space, "dense", kind=k, lost=0.0).to_dense() for k in ("exact", "topk"))
    assert relative(merged, exact) < EXACT
    assert float(short.trace()) < float(build(task, space, "dense", kind="topk", lost=0.05).to_dense().trace())


def sampled_variance(task, space, x):
    """Σ over examples of the variance of ‖J_iᵀ r‖² over labels drawn from the model, every label enumerated."""
    j, f = jacobian(task.model, space, x), task.model(x).detach()
    total = 0.0
    for i in range(len(x)):
        p = torch.softmax(f[i], -1)
        r = p - torch.eye(len(p), dtype=p.dtype)  # row c: the residual of label c
        squares = (r @ j[i]).square().sum(-1)
        total += float((p * squares.square()).sum() - (p * squares).sum() ** 2)
    return total


@pytest.mark.parametrize("samples", [2, 5])
def test_the_stated_error_of_the_trace_is_that_of_the_draw(samples):
    task, space, x, y = vocabulary(7, positions=False)
    truth = float(dense_fisher(task.model, space, LAW, x, y).trace())
    draws = [build(task, space, "diagonal", kind="mc", samples=samples, seed=s).trace() for s in range(300)]
    values = torch.tensor([d.value for d in draws])
    variances = torch.tensor([d.standard_error for d in draws]).square()
    expected = sampled_variance(task, space, x) / samples / len(x) ** 2
    # Means of 300 independent draws: within four of their own standard errors of what enumeration gives.
    assert abs(float(variances.mean()) - expected) < 4 * float(variances.std()) / math.sqrt(300)
    assert abs(float(values.mean()) - truth) < 4 * math.sqrt(expected / 300)


@pytest.mark.parametrize("positions", [True, False], ids=["sequence", "plain"])
def test_several_labels_are_unbiased_and_the_same_in_every_representation(positions):
    task, space, x, y = vocabulary(5, positions=positions)
    truth = dense_fisher(task.model, space, LAW, x, y)
    made = {r: build(task, space, r, kind="mc", samples=3, seed=4) for r in ("dense", "dual", "block", "diagonal")}
    dense = made["dense"].to_dense()
    assert relative(made["dual"].to_dense(), dense) < EXACT
    assert torch.allclose(made["diagonal"].diagonal(), dense.diagonal(), atol=EXACT)
    errors = [m.trace().standard_error for m in made.values()]
    assert min(errors) > 0
    assert max(errors) == pytest.approx(min(errors), rel=1e-9)
    draws = torch.stack([build(task, space, "dense", kind="mc", samples=3, seed=s).to_dense() for s in range(100)])
    error = draws.std(0) / 10
    some = error > 1e-8 * float(truth.norm())
    z = ((draws.mean(0) - truth) / error)[some]
    # Entries are correlated, so the mean square of z is only known to be near one; a bias would send it to hundreds.
    assert float(z.square().mean()) < 3


def test_one_label_has_no_error_and_ekfac_states_that_of_its_own_draw():
    task, space, _, _ = vocabulary(5)
    assert build(task, space, "diagonal", kind="mc").trace().standard_error == 0
    assert build(task, space, "ekfac", kind="mc", samples=2).trace().standard_error > 0


@pytest.mark.parametrize("representation", ["diagonal", "dual"])
def test_too_many_classes_for_memory_are_refused_before_the_pass_with_what_fits(representation):
    task, space, _, _ = vocabulary(600)
    with pytest.raises(MemoryBudgetError, match=r"1,?800|9000") as refused:
        build(task, space, representation, memory=2**23)
    assert "implicit" in refused.value.remedy
    sampled = build(task, space, "diagonal", kind="mc", samples=2, memory=2**23)
    assert sampled.trace().standard_error > 0


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"kind": "mc", "samples": 0}, "samples is out of range"),
        ({"kind": "topk", "lost": 1.0}, "lost is out of range"),
        ({"kind": "fisher"}, "unknown kind"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, what):
    task, space, _, _ = vocabulary(5)
    with pytest.raises(ValueError, match=what):
        build(task, space, "diagonal", **options)
