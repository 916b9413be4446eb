"""Forwards that depend on the data: per-example gradients are those of autograd, one example at a time, or refused."""

import pytest
import torch
from torch import Tensor, nn

from memspace.errors import StochasticModelError
from memspace.metric.fisher import build
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.linearise import FisherOperator
from memspace.passes.scores import OutcomeGradients
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space
from memspace.task.task import Task
from tests.proof.forwards import FORWARDS, Network, data, of_first, with_capacity


def case(name: str, seed: int) -> tuple[Task, ParameterSpace]:
    """A task and the space that was verified on its first four examples only, all of which take one way."""
    torch.manual_seed(seed)
    x, d, y = data(seed)
    model = Network(FORWARDS[name]).double().eval()
    blind = verified_space(Task(model=model, train=((x[:4], d[:4]), y[:4])))
    return Task(model=model, train=((x, d), y)), blind


def truth(task: Task, space: ParameterSpace) -> Tensor:
    """Gradients of every example's outputs, (n, C, P), each example by itself."""
    own = space.parameters(task.model)
    rows = []
    for i in range(len(task.train)):
        x, d = task.train.batch([i]).x
        f = task.model(x, d)[0]
        each = [torch.autograd.grad(c, list(own.values()), retain_graph=True, allow_unused=True) for c in f]
        named = [
            {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(own.items(), grads, strict=True)}
            for grads in each
        ]
        rows.append(torch.stack([space.pack(v) for v in named]))
    return torch.stack(rows)


def fisher(task: Task, rows: Tensor) -> Tensor:
    """The mean of Jᵀ H J."""
    x, d = task.train.batch(range(len(task.train))).x
    root = task.likelihood.fisher_root(task.model(x, d).detach())
    own = torch.einsum("nck,ncp->nkp", root, rows).flatten(0, 1)
    return own.t() @ own / len(rows)


@pytest.mark.parametrize("name", FORWARDS)
def test_a_pass_finds_by_itself_what_the_first_examples_hide(name: str) -> None:
    task, blind = case(name, 1)
    rows = truth(task, blind)
    x, d = task.train.batch(range(len(task.train))).x
    want = torch.einsum("nc,ncp->np", task.likelihood.residual(task.model(x, d).detach(), task.train.labels()), rows)
    table = OutcomeGradients(blind.blocks, task.likelihood.residual)
    run_pass(task, blind, [table], PassOptions(batch=16))
    assert torch.allclose(table.finish()["gradients"], want, rtol=1e-9, atol=1e-12)
    dense = fisher(task, rows)
    assert torch.allclose(build(task, blind, "dual", batch=16).to_dense(), dense, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", FORWARDS)
def test_products_by_signals_are_exact_in_any_order(name: str) -> None:
    task, blind = case(name, 2)
    dense = fisher(task, truth(task, blind))
    v = torch.randn(4, blind.size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(FisherOperator(task, blind)(v), v @ dense, rtol=1e-8, atol=1e-12)
    mixed = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(4))
    fresh = verified_space(task)
    order = fresh.pack(blind.unpack(torch.arange(blind.size, dtype=torch.float64))).long()
    found = build(task, fresh, "dense", index=mixed).to_dense()
    assert torch.allclose(found, dense[order][:, order], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["routed experts", "backwards"])
def test_ekfac_keeps_the_trace_where_blocks_are_read_the_generic_way(name: str) -> None:
    task, blind = case(name, 5)
    dense = fisher(task, truth(task, blind))
    for representation in ("kfac", "ekfac", "diagonal"):
        found = build(task, blind, representation, batch=16).trace().value
        if representation != "kfac":  # whose blocks of product form take factors for independent
            assert found == pytest.approx(float(dense.trace()), rel=1e-9)
    assert blind.refuted


@pytest.mark.parametrize("run", [of_first, with_capacity])
def test_outputs_that_depend_on_the_batch_are_refused(run) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    x, d, y = data(0)
    model = Network(run).double().eval()
    task = Task(model=model, train=((x, d), y))
    blind = verified_space(Task(model=model, train=((x[:4], d[:4]), y[:4])))
    with pytest.raises(StochasticModelError, match="depend on its batch"):
        run_pass(task, blind, [OutcomeGradients(blind.blocks, task.likelihood.residual)], PassOptions(batch=16))
    with pytest.raises(StochasticModelError, match="depend on its batch"):
        run_pass(
            task,
            verified_space(task),
            [OutcomeGradients(blind.blocks, task.likelihood.residual)],
            PassOptions(batch=16),
        )


def test_a_plain_network_is_left_on_the_fast_path() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 3)).eval()
    task = Task(model=model, train=(torch.randn(300, 6), torch.randint(0, 3, (300,))))
    space = verified_space(task)
    for kind in ("exact", "empirical"):
        build(task, space, "ekfac", kind=kind, batch=16)
    assert not space.refuted
    assert not space.loose
