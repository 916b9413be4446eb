"""Adapters and reparametrised weights: exact, in closed form or with a note, and unchanged afterwards."""

import pytest
import torch
from torch import nn

from memspace.action.training import DAMPING, training_action
from memspace.auditing.audit import audit_task, plan_audit
from memspace.auditing.plan import AuditSettings
from memspace.metric.fisher import build
from memspace.passes.batching import LEAST
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.statistics import GradientNorms
from memspace.passes.verify import verified_space
from memspace.progress import Silent
from memspace.task.likelihood import Bernoulli, Categorical
from memspace.task.task import Run, Task
from tests.contract.adapters import ADAPTERS, REPARAMETRISED, Inside, adapted
from tests.contract.networks import dense_fisher, jacobian, network

EXACT = 1e-10  # relative; as in the metric's contract
LOCAL = {  # differentiated by their own module, example by example
    "rows": {"0.lora_A", "0.lora_B"},
    "columns": {"0.lora_A", "0.lora_B"},
    "merged": {"0.lora_A", "0.lora_B"},
    "attention, merged": {"q.lora_A", "q.lora_B", "v.lora_A", "v.lora_B"},
    "patched forward": {"0.bias", "0.lora_A", "0.lora_B"},
    "weight norm, grouped": {"0.bias"},
    "norm's weight": {"0.bias"},
    "older weight norm": {"0.bias", "0.weight_g", "0.weight_v"},
    "older weight norm, conv": {"0.bias", "0.weight_g", "0.weight_v"},
    "older spectral norm": {"0.bias", "0.weight_orig"},
}
OWN_LOOSE = {"examples as columns": {"own.lora_A", "own.lora_B"}}


def loose_of(name, model):
    """What lies under ``parametrizations`` has no forward pass over examples of its own."""
    return OWN_LOOSE.get(name, set()) | {
        n for n, p in model.named_parameters() if ".parametrizations." in n and p.requires_grad
    }


def task_of(name, law=None, seed=0):
    law = Categorical() if law is None else law
    model, x = adapted(name, seed)
    y = law.sample(model(x).detach(), torch.Generator().manual_seed(seed + 1))
    return Task(model, (x, y), law), x, y


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ADAPTERS | REPARAMETRISED)
def test_against_the_dense_reference(name, seed):
    law = (Categorical(), Bernoulli())[seed]
    task, x, y = task_of(name, law, seed)
    space = verified_space(task)
    trained = {n for n, p in task.model.named_parameters() if p.requires_grad}
    assert set(space.names) == {n for b in space.blocks for n in b.names} == trained
    assert {b.names[0] for b in space.blocks if b.kind == "local"} == LOCAL.get(name, set())
    loose = loose_of(name, task.model)
    assert {b.names[0] for b in space.blocks if b.kind == "loose"} == loose
    for kind in ("exact", "empirical"):
        f = dense_fisher(task.model, space, law, x, y, kind)
        for r in ("dense", "dual", "implicit"):
            assert relative(build(task, space, r, kind=kind, batch=2).to_dense(), f) < EXACT, (r, kind)
    f = dense_fisher(task.model, space, law, x, y)
    assert relative(build(task, space, "diagonal", batch=2).to_dense(), torch.diag(f.diagonal())) < EXACT
    assert build(task, space, "ekfac", batch=2).trace().value == pytest.approx(float(f.trace()), rel=EXACT)
    text = plan_audit(task, AuditSettings()).text()
    assert ("example by example" in text) == bool(loose)
    assert all(n in text for n in loose)


@pytest.mark.parametrize("name", ADAPTERS | REPARAMETRISED)
def test_an_adapter_alone_is_a_block_of_the_whole(name):
    task, x, y = task_of(name, seed=2)
    names = [n for n, p in task.model.named_parameters() if p.requires_grad]
    chosen = [n for n in names if "lora" in n or ".up." in n or "original" in n or "_g" in n or "_orig" in n]
    if not chosen or len(chosen) == len(names):
        chosen = names[:1]
    space = verified_space(Task(task.model, (x, y), parameters=tuple(chosen)))
    assert set(space.names) == set(chosen)
    for r in ("dense", "dual", "implicit"):
        got = build(task, space, r, batch=2).to_dense()
        assert relative(got, dense_fisher(task.model, space, Categorical(), x, y)) < EXACT


def recorded(model, x, y):
    """A training that scales the trained weights up, buffers and frozen weights as they are."""
    grows = {n for n, p in model.named_parameters() if p.requires_grad}
    states = [{n: t.clone() * (s if n in grows else 1) for n, t in model.state_dict().items()} for s in (0.8, 0.9, 1.0)]
    return Run(tuple(states), (0.0, 1.0, 2.0), (0, 1, 2))


SLOPES = ["patched forward", "older weight norm", "older spectral norm", "low-rank parametrisation", "merged"]


@pytest.mark.parametrize("name", [*SLOPES, "time first"])
def test_slopes_along_a_recorded_training_against_the_dense_reference(name):
    if name == "time first":  # where the layout's axes matter
        model, x = network(name)
    else:
        model, x = adapted(name)
    law = Categorical()
    y = law.sample(model(x).detach(), torch.Generator().manual_seed(5))
    run = recorded(model, x, y)
    task = Task(model, (x, y), law, run=run)
    space = verified_space(task)
    a = training_action(task, progress=Silent(), space=space)
    assert all(torch.equal(t, run.states[-1][n]) for n, t in model.state_dict().items())
    for state, got in zip(run.states, a.slope, strict=True):
        model.load_state_dict(state)
        f = dense_fisher(model, space, law, x, y)
        residual = law.residual(model(x).detach(), y).flatten(1)
        g = torch.einsum("ncp,nc->p", jacobian(model, space, x), residual) / len(x)
        damped = f + DAMPING * float(f.trace()) * torch.eye(space.size, dtype=torch.float64)
        assert got == pytest.approx(
            float(g @ torch.linalg.solve(damped, g)) ** 0.5, rel=1e-7
        )  # rounding over a condition of 1e6


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("representation", ["dual", "ekfac"])
@pytest.mark.parametrize("name", ["attention, layers", "patched forward", "orthogonal", "older weight norm"])
def test_audited_end_to_end_and_left_as_found(name, representation):
    model, x = adapted(name)
    x, y = torch.cat([x, x.flip(0), x.flip(-1)]), torch.arange(3 * len(x)) % 3
    before = {n: (t.clone(), t.data_ptr()) for n, t in model.state_dict(keep_vars=True).items()}
    outputs = model(x).detach()
    results = audit_task(
        Task(model, (x, y), run=recorded(model, x, y)), AuditSettings(damping=0.01, representation=representation)
    )
    after = model.state_dict(keep_vars=True)
    assert all(torch.equal(t, after[n]) and at == after[n].data_ptr() for n, (t, at) in before.items())
    assert torch.equal(model(x), outputs)
    assert results.measurement("action.excess").n > 0


def test_a_merged_adapter_of_a_large_layer_is_differentiated_in_parts():
    torch.manual_seed(3)
    model = nn.Sequential(Inside(nn.Linear(3, 50_000), "merged"), nn.Tanh(), nn.Linear(50_000, 2)).double()
    model[2].requires_grad_(False)
    n = 2 * LEAST + 3
    x, y = torch.randn(n, 3, dtype=torch.float64), torch.arange(n) % 2
    task = Task(model, (x, y))
    space = verified_space(task)
    assert {b.kind for b in space.blocks} == {"local"}
    found = GradientNorms(space.blocks, "empirical")
    run_pass(task, space, [found], PassOptions(batch=n))
    got = found.finish()["norms"]
    for i in (0, LEAST - 1, LEAST, n - 1):  # on either side of a part's end
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        want = torch.stack([g.square().sum() for g in torch.autograd.grad(loss, [model[0].lora_A, model[0].lora_B])])
        assert relative(got[i], want) < EXACT
