"""The plan says the passes that really run, held against an audit whose every pass is counted."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn
from torch.nn import functional

import memspace
from memspace.action import control
from memspace.auditing.audit import audit_task, plan_audit, timed_plan
from memspace.auditing.chapters.inputs import SHORTENED
from memspace.measures import input_study
from memspace.passes import capture
from memspace.passes.calls import Call
from memspace.passes.example_by_example import MAPPED_ONCE

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
WITHIN = 0.05  # what the plan promises, but for what it says depends on the data


class _Passes:
    """Counts the examples that go through a model and the cotangents that are pulled back.

    What a layer pulls back inside itself, and a backward taken block by block, are parts of one (see ``Stage``). Under
    a mapping of torch's the examples are those that were handed to it.
    """

    def __init__(self, model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forwards, self.backwards, self._last, self._quiet = 0, 0, 0, 0
        self.attacked, self.pulled_in_attack = 0, 0
        model.register_forward_hook(self._forward)
        grad, mapped, blockwise = torch.autograd.grad, capture.per_example, control.adjoint

        def counted(outputs, *args, **keywords):
            first = outputs[0] if isinstance(outputs, list | tuple) else outputs
            if not self._quiet:
                self.backwards += len(first) if first.dim() else self._last  # a sum: of the examples that went last
            return grad(outputs, *args, **keywords)

        def differentiated(model, x, names, u, manner=0):
            grads, manner = self._silently(mapped, model, x, names, u, manner)
            self.forwards += u.shape[1] * (len(u) if manner == MAPPED_ONCE else 1)
            self.backwards += u.shape[0] * u.shape[1]
            return grads, manner

        def solved(*args, **keywords):
            found = self._silently(blockwise, *args, **keywords)
            self.forwards += len(found.loss)
            self.backwards += len(found.loss)
            return found

        attack = input_study.minimal_perturbations

        def attacked(*args, **keywords):
            before = self.forwards, self.backwards
            found = attack(*args, **keywords)
            self.attacked += self.forwards - before[0]
            self.pulled_in_attack += self.backwards - before[1]
            return found

        inside = Call.pulled_inside
        monkeypatch.setattr(input_study, "minimal_perturbations", attacked)
        monkeypatch.setattr(torch.autograd, "grad", counted)
        monkeypatch.setattr(capture, "per_example", differentiated)
        monkeypatch.setattr(control, "adjoint", solved)
        monkeypatch.setattr(Call, "pulled_inside", lambda *args: self._silently(inside, *args))

    def _silently(self, run, *args, **keywords):
        self._quiet += 1
        try:
            return run(*args, **keywords)
        finally:
            self._quiet -= 1

    def _forward(self, _module, _inputs, f):
        if not self._quiet:
            self._last = len(f)
            self.forwards += len(f)


def _blobs(n: int, seed: int, classes: int = 3):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (n,), generator=g)
    return torch.eye(classes, 5)[y] + torch.randn(n, 5, generator=g), y


def _net(seed: int, out: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, out))


def _trained(x, y, seed: int, steps: int = 60) -> tuple[nn.Module, list[dict[str, torch.Tensor]]]:
    model, states = _net(seed), []
    optimiser = torch.optim.SGD(model.parameters(), 0.3)
    for step in range(steps):
        if step % 10 == 0:
            states.append({k: v.clone() for k, v in model.state_dict().items()})
        optimiser.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model.eval(), [*states, {k: v.clone() for k, v in model.state_dict().items()}]


class _Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.embed, self.norm, self.out = nn.Embedding(6, 5), nn.LayerNorm(5), nn.Linear(5, 6)

    def forward(self, x):
        return self.out(self.norm(self.embed(x)))


def _classifier(representation: str = "auto", *, test: int = 0, refit: bool = False, run: bool = False, n: int = 110):
    x, y = _blobs(n, n)
    model, states = _trained(x, y, 3)
    parts = {"test": _blobs(test, 5)} if test else {}
    if refit:
        parts["refit"] = lambda index, seed: _trained(x[index], y[index], seed, 15)[0]
    if run:
        steps = tuple(range(0, 10 * len(states), 10))
        parts["run"] = memspace.Run(tuple(states), tuple(0.3 * s for s in steps), steps)
    task = memspace.Task(model=model, train=(x, y), **parts)
    return task, memspace.Settings(representation=representation)


def _regression():
    x, _ = _blobs(90, 2)
    return memspace.Task(model=_net(4, 2), train=(x, x[:, :2]), likelihood=memspace.Gaussian(1.0)), memspace.Settings()


def _sequence():
    tokens = torch.randint(0, 6, (60, 5), generator=torch.Generator().manual_seed(1))
    return memspace.Task(model=_Tokens(), train=(tokens[:, :-1], tokens[:, 1:])), memspace.Settings()


class _Own(nn.Module):
    """A parameter of the network's own, differentiated example by example, and a chain of equal blocks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.first, self.scale = nn.Linear(5, 6), nn.Parameter(torch.ones(6))
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3)))
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.blocks(torch.tanh(self.first(x)) * self.scale))


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.lstm, self.out = nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.lstm(x.unsqueeze(1).expand(-1, 4, -1))[0][:, -1])


def _of(model: nn.Module, representation: str = "auto", n: int = 110):
    return memspace.Task(model=model, train=_blobs(n, 3)), memspace.Settings(representation=representation)


def _pictures():
    torch.manual_seed(6)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    x, y = torch.randn(90, 1, 6, 6), torch.randint(0, 3, (90,))
    return memspace.Task(model=net, train=(x, y)), memspace.Settings(representation="ekfac")


def _with_factors():
    levels = torch.cartesian_prod(*(torch.arange(4),) * 3)
    mixed = torch.randn(3, 5, generator=torch.Generator().manual_seed(4))

    def render(v):
        return v.float() @ mixed

    factors = memspace.Factors(
        values=levels, names=("a", "b", "c"), sizes=(4, 4, 4), inputs=render(levels), render=render
    )
    task = memspace.Task(model=_net(2), train=(render(levels), levels[:, 0].clamp(max=2)), factors=factors)
    return task, memspace.Settings()


CASES = {
    "an affine network": lambda: _of(nn.Linear(5, 3)),
    "a parameter of its own, a chain of blocks": lambda: _of(_Own()),
    "an LSTM": lambda: _of(_Recurrent()),
    "pictures, EKFAC": _pictures,
    "generating factors": _with_factors,
    "classifier, dual": _classifier,
    "classifier with test data, EKFAC": lambda: _classifier("ekfac", test=60),
    "classifier with refit and test data, dual": lambda: _classifier(test=120, refit=True),
    "classifier with refit, EKFAC": lambda: _classifier("ekfac", refit=True),
    "classifier with a recorded training": lambda: _classifier(test=40, run=True),
    "regression": _regression,
    "sequence": _sequence,
}


@pytest.mark.parametrize("case", CASES)
def test_the_plan_states_the_passes_that_run(case, monkeypatch):
    task, settings = CASES[case]()
    plan = plan_audit(task, settings)
    passes = _Passes(task.model, monkeypatch)
    audit_task(task, settings)
    # Most forwards go into noise, and hid what the other stages need; what depends on the data is bounded.
    fixed = [s for s in plan.stages if s.name != "weight noise" and s.most is None]
    noise = sum(s.examples * s.forwards for s in plan.stages if s.name == "weight noise")
    forwards, backwards = _totals(fixed)
    assert forwards + noise == pytest.approx(passes.forwards - passes.attacked, rel=WITHIN)
    assert forwards == pytest.approx(passes.forwards - passes.attacked - noise, rel=WITHIN)
    assert backwards == pytest.approx(passes.backwards - passes.pulled_in_attack, rel=WITHIN)
    for s in plan.stages:
        if s.most is not None:
            assert SHORTENED * s.examples < passes.attacked <= s.examples * s.most[0]
            assert passes.pulled_in_attack <= s.examples * s.most[1]


def _totals(stages) -> tuple[float, float]:
    return sum(s.examples * s.forwards for s in stages), sum(s.examples * s.backwards for s in stages)


def test_the_stated_time_is_that_of_the_audit():
    task, settings = _classifier("ekfac", n=200)
    plan, seconds = timed_plan(task, settings)
    begun = time.process_time()
    audit_task(task, settings)
    took = time.process_time() - begun
    assert took / 5 < seconds < 10 * took  # the machine that tests run on is shared
    assert plan.passes < plan.most
    assert "at most" in plan.text()


def test_a_drawn_dual_is_not_called_exact():
    x = torch.randn(1800, 4, generator=torch.Generator().manual_seed(0))
    task = memspace.Task(model=nn.Linear(4, 3), train=(x, x[:, :3].argmax(1)))
    text = plan_audit(task, memspace.Settings()).text()
    assert "sketch: 3,500 of 5,400" in text
    assert "exact" not in text.split("\n")[1]
    assert "a draw of the others" in text
    few = memspace.Task(model=nn.Linear(4, 3), train=(x[:50], x[:50, :3].argmax(1)))
    assert "exact" in plan_audit(few, memspace.Settings()).text()
