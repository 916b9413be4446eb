"""What must not move: under reparametrisation, and the user's own model under an audit."""

import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from memspace.auditing.plan import AuditSettings
from memspace.measures.complexity import fisher_rao_norm
from memspace.metric.fisher import build
from memspace.passes.linearise import FisherOperator
from memspace.passes.space import ParameterSpace
from memspace.progress import Silent
from memspace.task.likelihood import Categorical
from memspace.task.task import Task

audit = importlib.import_module("memspace.auditing.audit")


def relu_task(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    x = torch.randn(8, 4, dtype=torch.float64)
    return Task(model=model, train=(x, torch.randint(0, 3, (8,))))


def rao(task):
    space = ParameterSpace(task.model)
    d = FisherOperator(task, space).directional(space.flat(task.model))
    return float(fisher_rao_norm(Categorical(), d["f"], d["y"], d["moved"])[0].mean())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.lists(st.floats(0.2, 5), min_size=5, max_size=5))
def test_rescaling_relu_units_moves_neither_outputs_nor_the_fisher_rao_norm(seed, scales):
    task = relu_task(seed)
    before, f = rao(task), task.model(task.train.batch(range(8)).x).detach()
    c = torch.tensor(scales, dtype=torch.float64)
    with torch.no_grad():
        task.model[0].weight.mul_(c[:, None])
        task.model[0].bias.mul_(c)
        task.model[2].weight.div_(c)
    assert torch.allclose(task.model(task.train.batch(range(8)).x), f, rtol=1e-10, atol=1e-12)
    assert rao(task) == pytest.approx(before, rel=1e-8, abs=1e-12)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(5)))
def test_permuting_hidden_units_keeps_the_spectrum(seed, order):
    task = relu_task(seed)
    before = build(task, ParameterSpace(task.model), "dual").eigenvalues()
    with torch.no_grad():
        task.model[0].weight.copy_(task.model[0].weight[list(order)])
        task.model[0].bias.copy_(task.model[0].bias[list(order)])
        task.model[2].weight.copy_(task.model[2].weight[:, list(order)])
    after = build(task, ParameterSpace(task.model), "dual").eigenvalues()
    assert len(after) == len(before)
    assert torch.allclose(after, before, rtol=1e-7, atol=1e-10 * float(before[0]))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-6, 10))
def test_effective_dimension_lies_between_zero_and_the_rank(seed, damping):
    task = relu_task(seed)
    metric = build(task, ParameterSpace(task.model), "dual")
    assert 0 <= metric.effective_dimension(damping).value <= 8 * 2 + 1e-9  # N (C − 1)


class Stateful(nn.Module):
    """Everything an audit could leave a trace on: modes, buffers, gradients, a hook of the user's."""

    def __init__(self):
        super().__init__()
        self.inner, self.norm, self.drop = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.drop(torch.relu_(self.norm(self.inner(x)))))


def snapshot(model):
    return (
        {k: v.clone() for k, v in model.state_dict().items()},
        [(n, m.training, type(m), len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()],
        [(n, p.requires_grad, None if p.grad is None else p.grad.clone()) for n, p in model.named_parameters()],
        torch.get_rng_state(),
    )


def same(a, b):
    assert all(torch.equal(a[0][k], b[0][k]) for k in a[0])
    assert a[1] == b[1]
    for (n, r, g), (n2, r2, g2) in zip(a[2], b[2], strict=True):
        assert (n, r) == (n2, r2)
        assert (g is None and g2 is None) or torch.equal(g, g2)
    assert torch.equal(a[3], b[3])


class Stop(Silent):
    """Raises when a piece of work of that name starts."""

    def __init__(self, what):
        self.what = what

    def start(self, what, total):
        if what == self.what:
            raise KeyboardInterrupt("stopped here")
        return 0


@pytest.mark.parametrize("representation", ["dual", "ekfac"])
@pytest.mark.parametrize("stop", [None, "weight noise", "chapters"])
def test_an_audit_leaves_the_model_bit_for_bit_as_it_was(representation, stop):
    torch.manual_seed(1)
    model = Stateful().train()
    model.drop.eval()
    model.norm.weight.requires_grad_(False)
    x, y = torch.randn(30, 4), torch.randint(0, 3, (30,))
    nn.functional.cross_entropy(model(x), y).backward()
    seen = []
    model.head.register_forward_hook(lambda *_: seen.append(1))
    before = snapshot(model)
    task = Task(model=model, train=(x, y))
    chosen = AuditSettings(representation=representation, damping=0.01)
    if stop is None:
        results = audit.audit_task(task, chosen)
        assert len(results.chapters) == 9
    else:
        with pytest.raises(KeyboardInterrupt, match="stopped here"):
            audit.audit_task(task, chosen, progress=Stop(stop))
    same(before, snapshot(model))
