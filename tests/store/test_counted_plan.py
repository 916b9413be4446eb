"""The plan says the passes that really run, held against an audit whose every pass is counted."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional

import memspace
from memspace.audit.audit import audit_task, plan_audit
from memspace.audit.plan import Plan

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
WITHIN = 0.1  # what the plan promises


class _Passes:
    """Counts the examples that go through a model and the cotangents that are pulled back."""

    def __init__(self, model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forwards, self.backwards, self._last = 0, 0, 0
        model.register_forward_hook(self._forward)
        grad = torch.autograd.grad

        def counted(outputs, *args, **keywords):
            first = outputs[0] if isinstance(outputs, list | tuple) else outputs
            self.backwards += len(first) if first.dim() else self._last  # a sum: of the examples that went last
            return grad(outputs, *args, **keywords)

        monkeypatch.setattr(torch.autograd, "grad", counted)

    def _forward(self, _module, _inputs, f):
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


CASES = {
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
    planned = _totals(plan)
    noise = sum(s.examples * s.forwards for s in plan.stages if s.name == "weight noise")
    assert planned["forwards"] == pytest.approx(passes.forwards, rel=WITHIN)
    assert planned["forwards"] - noise == pytest.approx(passes.forwards - noise, rel=WITHIN)  # most go into noise
    assert planned["backwards"] == pytest.approx(passes.backwards, rel=WITHIN)


def _totals(plan: Plan) -> Counter[str]:
    total: Counter[str] = Counter()
    for s in plan.stages:
        total["forwards"] += s.examples * s.forwards
        total["backwards"] += s.examples * s.backwards
    return total


def test_a_drawn_dual_is_not_called_exact():
    x = torch.randn(1800, 4, generator=torch.Generator().manual_seed(0))
    task = memspace.Task(model=nn.Linear(4, 3), train=(x, x[:, :3].argmax(1)))
    text = plan_audit(task, memspace.Settings()).text()
    assert "sketch: 3,500 of 5,400" in text
    assert "exact" not in text.split("\n")[1]
    assert "a draw of the others" in text
    few = memspace.Task(model=nn.Linear(4, 3), train=(x[:50], x[:50, :3].argmax(1)))
    assert "exact" in plan_audit(few, memspace.Settings()).text()
