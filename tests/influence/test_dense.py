"""Every engine against dense float64 algebra, on one network of each kind of layer."""

import pytest
import torch

from memspace.attribution.influence import influence
from memspace.attribution.settings import InfluenceSettings
from memspace.attribution.target import Target, target_of
from memspace.metric.principal import principal_dual
from memspace.passes.verify import verified_space
from memspace.task.likelihood import Categorical, Gaussian
from memspace.task.task import Task
from tests.contract.networks import dense_fisher, jacobian, network

GAMMA = 0.05
TIGHT = InfluenceSettings(tolerance=1e-12, limit=400)
LAW = Categorical()


def task_of(name, seed=0, law=LAW):
    model, x = network(name, seed)
    torch.manual_seed(seed + 1)
    f = model(x)
    y = torch.randn_like(f) if law.name == "gaussian" else torch.randint(0, f.shape[-1], f.shape[:-1])
    return Task(model=model, train=(x, y), likelihood=law)


def dense_scores(task, space, target, gamma=GAMMA):
    """Score[q, i] = ∇q · (N(F + γI))⁻¹ · (−∇ℓ_i), all training examples as queries."""
    whole = task.train.batch(range(len(task.train)))
    x, y = whole.x, whole.y
    j, f = jacobian(task.model, space, x), task.model(x).detach()
    fisher = dense_fisher(task.model, space, task.likelihood, x, y)
    u = target.cotangent(task.likelihood, f, y).flatten(1)
    r = task.likelihood.residual(f, y).flatten(1)
    m = len(x) * (fisher + gamma * torch.eye(space.size).double())
    return torch.einsum("ncp,nc->np", j, u) @ torch.linalg.solve(m, -torch.einsum("ncp,nc->np", j, r).T)


@pytest.mark.parametrize("engine", ["dual", "iterative"])
@pytest.mark.parametrize("name", ["linear", "conv2d same", "norms", "transformer", "twice", "time first", "grouped"])
def test_exact_engines_are_the_dense_solve(name, engine):
    if name == "grouped":
        name = "depthwise"
    task = task_of(name)
    space = verified_space(task)
    want = dense_scores(task, space, target_of("margin", LAW))
    found = influence(task, engine=engine, target="margin", damping=GAMMA, settings=TIGHT)
    assert torch.allclose(found.scores, want, rtol=1e-7, atol=1e-9 * float(want.abs().max()))
    if engine == "iterative":
        assert found.reliable
        assert found.diagnostic("influence.residual").value < 1e-11
    else:
        assert found.diagnostic("influence.residual").value < 1e-8


@pytest.mark.parametrize("name", ["linear", "conv1d", "transformer"])
def test_ekfac_is_the_solve_of_its_own_matrix(name):
    from memspace.metric.fisher import build

    task = task_of(name)
    space = verified_space(task)
    whole = task.train.batch(range(len(task.train)))
    j, f = jacobian(task.model, space, whole.x), task.model(whole.x).detach()
    r = torch.einsum("ncp,nc->np", j, task.likelihood.residual(f, whole.y).flatten(1))
    m = len(whole) * (build(task, space, "ekfac").to_dense() + GAMMA * torch.eye(space.size).double())
    found = influence(task, engine="ekfac", damping=GAMMA)
    assert torch.allclose(found.scores, r @ torch.linalg.solve(m, r.T), rtol=1e-8, atol=1e-10)
    assert 0 < found.diagnostic("influence.residual").value < 10  # it is not F, and says how far it is


def test_gaussian_outputs():
    task = task_of("conv1d", law=Gaussian(0.7))
    found = influence(task, engine="dual", damping=GAMMA)
    want = dense_scores(task, verified_space(task), target_of("loss", task.likelihood))
    assert torch.allclose(found.scores, want, rtol=1e-7, atol=1e-9 * float(want.abs().max()))


@pytest.mark.parametrize("engine", ["ekfac", "dual", "iterative"])
def test_the_kernel_of_the_loss_is_symmetric(engine):
    found = influence(task_of("conv2d same"), engine=engine, damping=GAMMA, settings=TIGHT)
    assert torch.allclose(found.scores, found.scores.T, rtol=1e-8, atol=1e-10)
    assert (found.scores.diagonal() >= 0).all()  # an example never speaks against itself


@pytest.mark.parametrize("engine", ["ekfac", "dual", "iterative"])
def test_layers_sum_to_the_whole(engine):
    found = influence(task_of("norms"), engine=engine, damping=GAMMA, split="layers", settings=TIGHT)
    assert found.parts.scores.shape[-1] == len(found.parts.names) > 1
    assert torch.allclose(found.parts.scores.sum(-1), found.scores, rtol=1e-9, atol=1e-11)
    assert (found.parts.scores.abs().amax((0, 1)) > 0).sum() > 1


@pytest.mark.parametrize("engine", ["ekfac", "dual"])
def test_modes_sum_to_the_whole(engine):
    settings = InfluenceSettings(modes=3)
    found = influence(task_of("linear"), engine=engine, damping=GAMMA, split="modes", settings=settings)
    assert torch.allclose(found.parts.scores.sum(-1), found.scores, rtol=1e-9, atol=1e-11)
    if engine == "dual":
        assert found.parts.names == ("mode 1", "mode 2", "mode 3", "other modes", "null space")


def test_a_mode_is_the_eigenvectors_own_part():
    task = task_of("linear")
    space = verified_space(task)
    whole = task.train.batch(range(5))
    j, f = jacobian(task.model, space, whole.x), task.model(whole.x).detach()
    r = torch.einsum("ncp,nc->np", j, LAW.residual(f, whole.y))
    values, vectors = torch.linalg.eigh(dense_fisher(task.model, space, LAW, whole.x, whole.y))
    along = r @ vectors[:, -1]
    want = torch.outer(along, along) / (5 * (values[-1] + GAMMA))
    found = influence(task, engine="dual", damping=GAMMA, split="modes")
    assert torch.allclose(found.parts.scores[..., 0], want, rtol=1e-7, atol=1e-10)


def test_positions_of_queries_and_of_training_examples_add_up():
    task = task_of("transformer")
    whole = influence(task, engine="dual", damping=GAMMA, target="logit:0-2")
    each = influence(task, engine="dual", damping=GAMMA, target="logit:0-2", tokens="queries")
    assert each.scores.shape == (15, 5)
    assert each.positions.tolist() == [0, 1, 2] * 5
    assert torch.allclose(each.scores.reshape(5, 3, 5).sum(1), whole.scores, rtol=1e-9, atol=1e-11)
    assert torch.allclose(each.outcome.reshape(5, 3).sum(1), whole.outcome)
    by = influence(task, engine="dual", damping=GAMMA, target="logit:0-2", tokens="training")
    assert by.tokens.shape == (5, 5, 3)
    assert torch.allclose(by.tokens.sum(-1), whole.scores, rtol=1e-9, atol=1e-11)


def test_padded_positions_are_no_queries():
    task = task_of("transformer")
    whole = task.train.batch(range(5))
    y = whole.y.clone()
    y[2, 1:] = -100
    padded = Task(model=task.model, train=(whole.x, y))
    found = influence(padded, engine="dual", damping=GAMMA, tokens="queries")
    assert list(zip(found.queries.tolist(), found.positions.tolist(), strict=True))[5:9] == [
        (1, 2),
        (2, 0),
        (3, 0),
        (3, 1),
    ]
    assert len(found.scores) == 13


def test_principal_rows_are_the_whole_metric_or_a_draw_of_it():
    task = task_of("conv2d same")
    space = verified_space(task)
    whole = task.train.batch(range(5))
    f = dense_fisher(task.model, space, LAW, whole.x, whole.y)
    v = torch.randn(3, space.size, dtype=torch.float64)
    exact = principal_dual(task, space, limit=100)
    assert torch.allclose(exact.matvec(v), v @ f, rtol=1e-8, atol=1e-10 * float(f.norm()))
    draws = [principal_dual(task, space, limit=4, seed=s) for s in range(200)]
    assert all(len(d.rows) == 4 and d.drawn > 0 for d in draws)
    assert all(d.trace().value == pytest.approx(float(f.trace()), rel=1e-8) for d in draws)
    each = torch.stack([d.to_dense() for d in draws])
    spread = float(((each - f).square().sum() / len(each)).sqrt())
    assert float((each.mean(0) - f).norm()) < 3 * spread / len(each) ** 0.5


def test_some_examples_alone():
    task = task_of("linear")
    space = verified_space(task)
    some = torch.tensor([4, 1, 2])
    dual = principal_dual(task, space, limit=100, index=some)
    whole = task.train.batch(some)
    f = dense_fisher(task.model, space, LAW, whole.x, whole.y)
    assert torch.allclose(dual.to_dense(), f, rtol=1e-8, atol=1e-10)


def test_too_few_steps_are_told():
    found = influence(
        task_of("norms"), engine="iterative", damping=1e-4, settings=InfluenceSettings(tolerance=1e-10, limit=2)
    )
    assert not found.reliable
    assert "not converged in 2 steps" in found.note
    assert found.diagnostic("influence.residual").value > 1e-10


@pytest.mark.parametrize("name", ["lstm", "attention", "weight norm", "tied", "own layer"])
def test_engines_meet_where_the_metric_is_far_below_the_damping(name):
    # Both are then the plain inner product of gradients over Nγ, whatever the kind of layer.
    task = task_of(name)
    a = influence(task, [0, 1], engine="ekfac", damping=1e6).scores
    b = influence(task, [0, 1], engine="dual", damping=1e6).scores
    assert torch.allclose(a, b, rtol=1e-2, atol=1e-3 * float(a.abs().max()))


TARGETS = [target_of(t, LAW) for t in ("loss", "margin", "logit:0-1", "logp:2")]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3)])
def test_cotangents_are_autograds(target, shape):
    f = torch.randn(shape, dtype=torch.float64)
    y = torch.randint(0, 3, shape[:-1])
    u = target.cotangent(LAW, f, y)

    def value(g):
        return target.value(LAW, g, y).sum()

    assert torch.autograd.gradcheck(value, f.clone().requires_grad_())
    assert torch.allclose(u, torch.autograd.functional.jacobian(value, f))


def test_margin_is_the_log_odds_of_the_label():
    f, y = torch.randn(6, 4, dtype=torch.float64), torch.randint(0, 4, (6,))
    p = torch.softmax(f, -1).gather(1, y[:, None])[:, 0]
    assert torch.allclose(target_of("margin", LAW).value(LAW, f, y), torch.log(p / (1 - p)))


def test_the_loss_target_is_minus_the_residual():
    f, y = torch.randn(6, 4, dtype=torch.float64), torch.randint(0, 4, (6,))
    assert torch.allclose(target_of("loss", LAW).cotangent(LAW, f, y), -LAW.residual(f, y))


def test_a_target_that_is_the_same_by_name_and_by_hand():
    task = task_of("linear")
    a = influence(task, engine="dual", damping=GAMMA, target="logp:1")
    b = influence(task, engine="dual", damping=GAMMA, target=Target("mine", lambda law, f, y: f.log_softmax(-1)[:, 1]))
    torch.testing.assert_close(a.scores, b.scores, rtol=1e-6, atol=1e-9)
