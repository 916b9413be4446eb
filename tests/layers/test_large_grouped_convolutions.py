"""Grouped convolutions too large for a dense second moment: every group's own matrix, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import memspace
from memspace.attribution.influence import influence
from memspace.metric.fisher import build
from memspace.metric.spectral import Kronecker, KroneckerBlock
from memspace.passes.coverage import coverage
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.forms.formed import DENSE_LIMIT
from memspace.passes.space import ParameterSpace
from memspace.passes.statistics import DenseFisher, KroneckerFactors
from memspace.passes.verify import verified_space

N = 9


def _one_dimensional() -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Conv1d(32, 64, 5, groups=4, stride=2, padding=2, padding_mode="circular"), (32, 6)


def _without_bias() -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Conv2d(36, 72, 3, groups=6, padding="same", dilation=2, bias=False), (36, 4, 4)


def _three_dimensional() -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Conv3d(8, 20, (3, 3, 3), groups=2, padding=1), (8, 2, 3, 2)


def _depthwise() -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Conv2d(210, 210, 3, groups=210, padding=1), (210, 3, 3)


def _multiplied() -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Conv1d(110, 330, 7, groups=110), (110, 9)


LAYERS = [_one_dimensional, _without_bias, _three_dimensional, _depthwise, _multiplied]


def _read(make) -> tuple[memspace.Task, ParameterSpace, nn.Module]:
    torch.manual_seed(0)
    layer, shape = make()
    x = torch.randn(N, *shape, dtype=torch.float64)
    width = layer(x[:1].float()).flatten(1).shape[1]
    net = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(width, 3)).double()
    task = memspace.Task(model=net, train=(x, torch.randint(0, 3, (N,))), parameters="0.*")
    space = verified_space(task)
    assert [(b.kind, b.diagonal, b.size > DENSE_LIMIT) for b in space.blocks] == [("groups", False, True)]
    return task, space, layer


def _gradients(task: memspace.Task, space: ParameterSpace) -> Tensor:
    """Rows of the exact Fisher by autograd, one example and cotangent at a time: (N, 3, out, in)."""
    block, found = space.blocks[0], []
    for i in range(N):
        f = task.model(task.train.batch([i]).x)
        root = task.likelihood.fisher_root(f.detach())[0]
        for k in range(root.shape[1]):
            grads = torch.autograd.grad(
                f[0] @ root[:, k], list(space.parameters(task.model).values()), retain_graph=True
            )
            found.append(block.view(space.pack(dict(zip(space.names, grads, strict=True)))))
    return torch.stack(found).detach()


def _matrix(part: KroneckerBlock) -> Tensor:
    """The block's represented matrix, column by column."""
    unit = torch.eye(part.block.size, dtype=torch.float64).reshape(-1, *part.block.shape)
    return part.bases.back(part.bases.rotate(unit) * part.values).flatten(1)


@pytest.mark.parametrize("make", LAYERS)
def test_every_group_has_the_kronecker_matrix_of_its_own_gradients(make) -> None:
    task, space, layer = _read(make)
    metric = build(task, space, "ekfac")
    assert isinstance(metric, Kronecker)
    part = metric.blocks[0]
    gradients = _gradients(task, space)
    matrix = _matrix(part)
    out, width = part.block.shape
    each = out // layer.groups * width
    for group in range(0, layer.groups, max(1, layer.groups // 5)):
        own = gradients.unflatten(1, (layer.groups, -1))[:, group]
        ua = torch.linalg.eigh(torch.einsum("noi,noj->ij", own, own))[1]
        ug = torch.linalg.eigh(torch.einsum("noi,npi->op", own, own))[1]
        values = (ug.t() @ own @ ua).square().sum(0) / N
        basis = torch.einsum("ok,il->oikl", ug, ua).flatten(2).flatten(0, 1)
        want = (basis * values.flatten()) @ basis.t()
        here = slice(group * each, (group + 1) * each)
        assert torch.allclose(
            matrix[here, here], want, atol=1e-12 * float(want.abs().max()) + 1e-9 * float(want.diagonal().max())
        )
    assert float(metric.trace().value) == pytest.approx(float(gradients.square().sum() / N), rel=1e-10)
    assert torch.allclose(metric.diagonal(), matrix.diagonal(), rtol=1e-9, atol=1e-12)
    v = torch.randn(2, space.size, dtype=torch.float64)
    assert torch.allclose(metric.apply(lambda s: s.sqrt(), metric.apply(lambda s: s.sqrt(), v)), v @ matrix, atol=1e-9)
    pairs = metric.eigh(4)
    assert torch.allclose(pairs.vectors @ matrix, pairs.values[:, None] * pairs.vectors, atol=1e-9)
    assert "diagonal" not in str(coverage(space, space.size, "ekfac"))


@pytest.mark.parametrize("make", [_depthwise])
def test_a_depthwise_group_is_its_dense_block(make) -> None:
    task, space, _ = _read(make)
    dense = DenseFisher(space.blocks)
    run_pass(task, space, [dense])
    whole = dense.finish()["fisher"] / N
    width = space.blocks[0].shape[1]
    kept = torch.block_diag(*[whole[k : k + width, k : k + width] for k in range(0, space.size, width)])
    for representation in ("ekfac", "kfac"):
        metric = build(task, space, representation)
        assert isinstance(metric, Kronecker)
        matrix = _matrix(metric.blocks[0])
        assert float((matrix - kept).norm() / kept.norm()) < 1e-10
    assert float((kept - torch.diag(whole.diagonal())).norm() / kept.norm()) > 0.1  # what a diagonal would lose


@pytest.mark.parametrize("make", LAYERS)
def test_batches_and_the_generic_way_give_the_same_sums(make) -> None:
    task, space, _ = _read(make)
    found = []
    for batch, refuted in ((N, False), (4, False), (4, True)):
        if refuted:
            space.refuted.add("0")
        factors = KroneckerFactors(space.blocks)
        run_pass(task, space, [factors], PassOptions(batch=batch))
        found.append(factors.factors()["0"])
    for other in found[1:]:
        assert torch.allclose(found[0].a, other.a, rtol=1e-9, atol=1e-14)
        assert torch.allclose(found[0].g, other.g, rtol=1e-9, atol=1e-14)


def test_influence_under_ekfac_is_the_solve_of_its_own_matrix() -> None:
    task, space, _ = _read(_one_dimensional)
    x, y = task.train.batch(range(N)).x, task.train.labels()
    rows = []
    for i in range(N):
        loss = nn.functional.cross_entropy(task.model(x[i : i + 1]), y[i : i + 1])
        grads = torch.autograd.grad(loss, list(space.parameters(task.model).values()))
        rows.append(space.pack(dict(zip(space.names, grads, strict=True))))
    gradients = torch.stack(rows)
    metric = build(task, space, "ekfac")
    assert isinstance(metric, Kronecker)
    damped = N * (_matrix(metric.blocks[0]) + 0.05 * torch.eye(space.size, dtype=torch.float64))
    want = gradients @ torch.linalg.solve(damped, gradients.t())
    for queries in (range(N), [2]):  # few queries are brought back, many stay in the bases
        found = influence(task, list(queries), engine="ekfac", damping=0.05, target="loss")
        assert torch.allclose(found.scores, want[list(queries)], rtol=1e-8, atol=1e-10)


def test_natural_gradient_goes_down_through_a_large_grouped_convolution() -> None:
    torch.manual_seed(1)
    layer, shape = _depthwise()
    net = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(210 * 9, 3))
    x, y = torch.randn(12, *shape), torch.randint(0, 3, (12,))
    optimiser = memspace.NaturalGradient(net, lr=0.1)
    losses = []
    for _ in range(6):
        loss = nn.functional.cross_entropy(net(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
