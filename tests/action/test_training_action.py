"""Action bought and spent: zero excess along natural-gradient flow, positive elsewhere, free of the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from memspace.action.slope import affordable, probe_dual, slope
from memspace.action.training import TrainingAction, training_action
from memspace.passes.space import ParameterSpace
from memspace.progress import Silent
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Likelihood, Poisson
from memspace.task.task import Run, Task
from tests.contract.networks import dense_fisher, jacobian, network

N, D, C = 60, 4, 3
Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def _natural(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """F⁻¹∇L of softmax regression in closed form."""
    p = torch.softmax(x @ w.T, -1)
    h = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    f = torch.einsum("ncd,nj,nk->cjdk", h, x, x).reshape(C * D, C * D) / len(x)
    g = (p - nn.functional.one_hot(y, C)).T @ x / len(x)
    return (torch.linalg.pinv(f, hermitian=True) @ g.flatten()).reshape(C, D)


def _plain(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return (torch.softmax(x @ w.T, -1) - nn.functional.one_hot(y, C)).T @ x / len(x)


def _run(direction: Step, step: float, duration: float, stretch: float = 1.0) -> Task:
    """Euler steps of θ̇ = −direction on softmax regression, every state recorded."""
    g = torch.Generator().manual_seed(3)
    x = torch.randn(N, D, generator=g, dtype=torch.float64) * torch.tensor([1.0, stretch, 1.0, 1 / stretch])
    y = torch.multinomial(torch.softmax(x @ torch.randn(D, C, generator=g, dtype=torch.float64), -1), 1, generator=g)
    y = y.squeeze(1)
    w, states = torch.zeros(C, D, dtype=torch.float64), []
    count = round(duration / step)
    for _ in range(count + 1):
        states.append({"0.weight": w.clone()})
        w = w - step * direction(w, x, y)
    model = nn.Sequential(nn.Linear(D, C, bias=False)).double()
    model.load_state_dict(states[-1])
    known = "NaturalGradient" if direction is _natural else ""
    run = Run(tuple(states), tuple(step * k for k in range(count + 1)), tuple(range(count + 1)), optimiser=known)
    return Task(model=model, train=(x, y), run=run)


def _values(a: TrainingAction) -> dict[str, float]:
    return {m.name.removeprefix("action."): m.value for m in a.measurements}


def _measure(task: Task, **options: int) -> TrainingAction:
    return training_action(task, progress=Silent(), **options)


def test_natural_gradient_flow_spends_what_it_buys() -> None:
    coarse, fine = (_values(_measure(_run(_natural, h, 1.0))) for h in (0.1, 0.05))
    for found in (coarse, fine):  # the curve's own bends pass for a little noise: less than 1% of the length
        assert abs(found["excess"]) < 0.005 * found["loss_bought"]
        assert found["spent_over_bought"] == pytest.approx(1, abs=0.005)
    # In its own time its action is half the loss bought, and the excess in that time vanishes as well.
    assert fine["learning_rate_time"] == pytest.approx(fine["loss_bought"] / 2, rel=0.05)
    assert abs(fine["excess_learning_rate_time"]) < 0.6 * abs(coarse["excess_learning_rate_time"])
    assert abs(fine["excess_learning_rate_time"]) < 0.005 * fine["loss_bought"]


def test_plain_gradient_descent_spends_more_than_it_buys() -> None:
    a = _measure(_run(_plain, 0.03, 3.0, stretch=3.0))  # steps short enough not to overshoot along the steep direction
    v = _values(a)
    assert v["excess"] > 0.04 * v["loss_bought"]
    assert v["excess_learning_rate_time"] > v["excess"]
    assert v["ambient_distance"] <= v["straight_line_length"] <= v["length"] * (1 + 1e-9)
    found = next(m for m in a.measurements if m.name == "action.excess")
    assert found.n == N
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]


def test_the_clock_moves_only_what_depends_on_it() -> None:
    task = _run(_plain, 0.2, 2.0, stretch=2.0)
    assert task.run is not None
    warped = replace(task, run=replace(task.run, time=tuple((t + 0.1) ** 2 for t in task.run.time)))
    a, b = _values(_measure(task)), _values(_measure(warped))
    same = {k for k in a if a[k] == pytest.approx(b[k], rel=1e-12)}
    assert set(a) - same == {"learning_rate_time", "excess_learning_rate_time"}


def test_learning_rates_that_are_no_time_have_no_excess_in_it() -> None:
    task = _run(_plain, 0.05, 3.0)
    run = task.run
    assert run is not None
    for name, measured in (("", True), ("SGD", True), ("Adam", False), ("SGD with momentum 0.9", False)):
        a = _measure(replace(task, run=replace(run, optimiser=name)))
        assert ("excess_learning_rate_time" in _values(a)) == measured
        if not measured:
            absent = next(u for u in a.unmeasured if u.name == "action.excess_learning_rate_time")
            assert absent.reason == f"the learning rates of {name} are no time"
    # Without a name the loss bought tells: ten times too much for these rates, or less and less of it.
    for time in (tuple(t / 10 for t in run.time), tuple(t**3 for t in run.time)):
        a = _measure(replace(task, run=replace(run, time=time)))
        assert "action.excess_learning_rate_time" in {u.name for u in a.unmeasured}


def test_segments_sum_to_the_whole_and_arrays_fit() -> None:
    a = _measure(_run(_plain, 0.2, 2.0))
    v = _values(a)
    s = a.segments
    assert sum(s["excess"]) == pytest.approx(v["excess"], rel=1e-9)
    assert a.length[-1] == pytest.approx(sum(s["length"]), rel=1e-12)
    assert v["drift_length"] == pytest.approx(max(a.length[-1], v["ambient_distance"]), rel=1e-12)
    assert sum(s["bought"]) == pytest.approx(v["loss_bought"], rel=1e-9)
    assert s["step_from"] == (0.0, *s["step_to"][:-1])
    assert s["step_to"][-1] == 10
    assert len({len(column) for column in s.values()}) == 1
    assert {len(c) for c in (a.time, a.step, a.loss, a.length, a.slope, a.speed)} == {11}
    assert a.speed[3] == pytest.approx((a.length[3] - a.length[2]) / 0.2)
    assert all(m.unit and m.estimator and m.interval is not None for m in a.measurements)


def test_rescaling_relu_layers_against_each_other_changes_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3, bias=False)).double()
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.randint(0, 3, (30,))
    rate, states = 0.2, []
    for _ in range(6):
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        grads = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), grads, strict=True):
                p -= rate * g
    scaled = [{k: v * (5.0 if k.startswith("0") else 0.2) for k, v in s.items()} for s in states]
    a, b = (
        _values(_measure(Task(model=model, train=(x, y), run=Run(tuple(s), tuple(range(6)), tuple(range(6))))))
        for s in (states, scaled)
    )
    for name in ("length", "learning_rate_time", "loss_bought", "ambient_distance"):
        assert a[name] == pytest.approx(b[name], rel=1e-9)
    # The damping knows the coordinates; the undamped slope does not.
    assert a["spent_over_bought"] == pytest.approx(b["spent_over_bought"], rel=0.1)
    slopes = []
    for state in (states[-1], scaled[-1]):
        model.load_state_dict(state)
        dual = probe_dual(Task(model=model, train=(x, y)), ParameterSpace(model), torch.arange(30))
        slopes.append(dual.slope(1e-11 * dual.trace).squared)
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-3)


LAWS: list[tuple[str, Likelihood]] = [
    ("linear", Categorical()),
    ("conv1d", Bernoulli()),
    ("norms", Gaussian(0.5)),
    ("linear", Poisson()),
    ("transformer", Categorical()),
]


@pytest.mark.parametrize(("name", "law"), LAWS)
@pytest.mark.parametrize("share", [1e-6, 1e-3, 1.0])
def test_slope_and_its_parts_equal_the_dense_formula(name: str, law: Likelihood, share: float) -> None:
    model, x = network(name, 2)
    y = law.sample(model(x).detach(), torch.Generator().manual_seed(1))
    task, space = Task(model=model, train=(x, y), likelihood=law), ParameterSpace(model)
    fisher = dense_fisher(model, space, law, x, y)
    f = model(x).detach()
    g = torch.einsum("nc,ncp->np", law.residual(f, y).flatten(1), jacobian(model, space, x))
    damping = share * float(fisher.trace())
    w = torch.linalg.solve(fisher + damping * torch.eye(space.size, dtype=torch.float64), g.mean(0))
    dual = probe_dual(task, space, torch.arange(len(x)))
    assert dual.trace == pytest.approx(float(fisher.trace()), rel=1e-9)
    found = dual.slope(damping)
    assert found.squared == pytest.approx(float(g.mean(0) @ w), rel=1e-6)
    assert found.damped == pytest.approx(damping * float(w @ w), rel=1e-4, abs=1e-9 * found.squared)
    assert float(found.effect.mean()) == pytest.approx(0, abs=1e-9 * found.squared)


def test_an_examples_effect_is_what_its_weight_changes() -> None:
    task = _run(_plain, 0.5, 1.0)
    space, everyone = ParameterSpace(task.model), torch.arange(N)
    damping = 1e-3
    found = probe_dual(task, space, everyone).slope(damping)
    for i in (0, 7, 31):
        heavier = torch.cat([everyone.repeat(5), torch.tensor([i])])  # example i weighs a fifth more
        change = slope(task, space, heavier, damping) - found.squared
        assert change * len(heavier) == pytest.approx(float(found.effect[i]), rel=0.1, abs=0.02 * found.squared)


def test_with_more_parameters_than_labels_the_slope_is_the_mean_inverse_odds() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 80), nn.Tanh(), nn.Linear(80, 4)).double()
    x, y = torch.randn(10, 6, dtype=torch.float64), torch.randint(0, 4, (10,))
    task, space = Task(model=model, train=(x, y)), ParameterSpace(model)
    p = torch.softmax(model(x).detach(), -1).gather(1, y[:, None]).squeeze()
    dual = probe_dual(task, space, torch.arange(10))
    found = dual.slope(1e-9 * dual.trace)
    assert found.squared == pytest.approx(float((1 / p - 1).mean()), rel=1e-4)
    assert torch.allclose(found.effect, 1 / p - (1 / p).mean(), rtol=1e-2, atol=1e-2)


def test_a_model_is_left_as_it_was() -> None:
    task = _run(_plain, 0.5, 2.0)
    task.model.train()
    before = task.model[0].weight.detach().clone()  # type: ignore[index,operator,union-attr]
    random = torch.get_rng_state()
    _measure(task)
    assert torch.equal(task.model[0].weight, before)  # type: ignore[index,arg-type]
    assert task.model.training
    assert task.model[0].weight.grad is None  # type: ignore[index,union-attr]
    assert torch.equal(torch.get_rng_state(), random)


def test_what_cannot_be_measured_says_why() -> None:
    task = _run(_plain, 0.5, 2.0)
    run = task.run
    assert run is not None
    nothing = _measure(replace(task, run=None))
    assert nothing.measurements == ()
    assert "no checkpoints" in nothing.unmeasured[0].reason
    two = replace(run, states=run.states[:2], time=run.time[:2], step=run.step[:2])
    assert "only 2 checkpoints" in _measure(replace(task, run=two)).unmeasured[0].reason
    still = _measure(replace(task, run=replace(run, time=(0.0,) * len(run.time))))
    assert {u.name for u in still.unmeasured} == {"action.learning_rate_time"}
    assert "excess" in _values(still)
    poor = _measure(task, memory=15_000)
    assert {u.name for u in poor.unmeasured} == {"action.excess"}
    assert "length" in _values(poor)
    assert poor.slope == ()


def test_a_run_that_goes_nowhere_has_no_ratio() -> None:
    task = _run(_plain, 0.5, 2.0)
    run = task.run
    assert run is not None
    a = _measure(replace(task, run=replace(run, states=(run.states[0],) * len(run.states))))
    found = {m.name: m for m in a.measurements}
    assert found["action.length"].value == 0
    absent = {u.name for u in a.unmeasured}
    assert {"action.inefficiency", "action.over_straight_line", "action.spent_over_bought"} <= absent
    assert not absent & set(found)


def test_a_small_memory_takes_fewer_examples() -> None:
    task = _run(_plain, 0.5, 2.0)
    space = ParameterSpace(task.model)
    counts = [affordable(task, space, torch.arange(N), m)[0] for m in (10**4, 10**5, 10**6, 10**9)]
    assert counts == sorted(counts)
    assert counts[0] < 8 < counts[2]
    assert counts[-1] == 1000 // C
    a = _measure(task, memory=200_000)
    found = next(m for m in a.measurements if m.name == "action.excess")
    assert 8 <= found.n < N


def test_no_excess_where_training_moved_what_is_not_audited() -> None:
    task = _run(_natural, 0.05, 0.3)
    model = nn.Sequential(nn.Linear(D, C)).double()
    states = tuple(s | {"0.bias": torch.zeros(C, dtype=torch.float64)} for s in task.run.states)
    moved = tuple(s | {"0.bias": torch.full((C,), 0.1 * k, dtype=torch.float64)} for k, s in enumerate(states))
    for recorded, measured in ((states, True), (moved, False)):
        model.load_state_dict(recorded[-1])
        for parameters in ("0.weight", ()):
            some = replace(task, model=model, run=replace(task.run, states=recorded), parameters=parameters)
            a = _measure(some)
            assert ("excess" in _values(a)) == (measured or not parameters)
            if "excess" not in _values(a):
                assert "0.bias" in next(u.reason for u in a.unmeasured if u.name == "action.excess")
            assert "length" in _values(a)
