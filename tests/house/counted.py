"""Audits a small network and prints what it took, as JSON. Run in a process of its own: nothing was seen before.

Counted are the files of memspace whose functions are entered (not what is imported), the calls of the network from the
verb to the first pass, and the examples and cotangents that go through it, next to the plan's.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

import memspace
from memspace.auditing.audit import audit_task, plan_audit
from memspace.measures import input_study
from memspace.passes import engine

N, TEST, WIDTH, CLASSES = 200, 100, 8, 3
NOT_IMPORTED = ("memspace.integrations", "memspace.__main__")  # need other libraries; runs a command


class CountedNetwork(nn.Module):
    """An MLP that counts its calls and their examples: also those of its copies, and inside a functional call."""

    calls = forwards = last = 0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        widths = (WIDTH, 16, 16, CLASSES)
        layers = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.Tanh())]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        kind = CountedNetwork
        kind.calls, kind.last, kind.forwards = kind.calls + 1, len(x), kind.forwards + len(x)
        out: Tensor = self.layers(x)
        return out


def blobs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Overlapping classes."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, CLASSES, (n,), generator=g)
    return torch.eye(CLASSES, WIDTH)[y] * 2 + torch.randn(n, WIDTH, generator=g), y


def trained(x: Tensor, y: Tensor) -> CountedNetwork:
    """A network after a hundred steps."""
    model = CountedNetwork()
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model.eval()


def audited() -> dict[str, Any]:
    """Files entered and calls of the network: of ``memspace.audit`` as a user calls it."""
    for module in pkgutil.walk_packages(memspace.__path__, "memspace."):
        if not module.name.startswith(NOT_IMPORTED):
            importlib.import_module(module.name)
    home, entered = Path(memspace.__file__).parent, dict[str, None]()
    before: list[tuple[int, int]] = []
    read = engine._read

    def own() -> list[str]:
        return [str(Path(f).relative_to(home)) for f in entered if Path(f).is_relative_to(home)]

    def first_read(*args: Any, **keywords: Any) -> None:
        before.append((CountedNetwork.calls, len(own())))
        read(*args, **keywords)

    def enter(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            entered.setdefault(frame.f_code.co_filename)

    model, train, test = trained(*blobs(N, 0)), blobs(N, 0), blobs(TEST, 1)
    CountedNetwork.calls, engine._read = 0, first_read
    sys.setprofile(enter)
    memspace.audit(model, train, test=test)
    sys.setprofile(None)
    engine._read = read
    return {"files": own(), "calls": before[0][0], "files_before": before[0][1]}


def passes() -> dict[str, Any]:
    """Examples forwarded and cotangents pulled back by an audit of a task, and the plan's; the attack's apart."""
    task = memspace.Task(trained(*blobs(N, 0)), blobs(N, 0), test=blobs(TEST, 1))
    settings = memspace.AuditSettings()
    plan = plan_audit(task, settings)
    backwards, attacked = 0, [0, 0]
    gradient, attack = torch.autograd.grad, input_study.minimal_perturbations

    def counted_gradient(outputs: Any, *args: Any, **keywords: Any) -> Any:
        nonlocal backwards
        first = outputs[0] if isinstance(outputs, list | tuple) else outputs
        backwards += len(first) if first.dim() else CountedNetwork.last  # a sum: of the examples that went last
        return gradient(outputs, *args, **keywords)

    def counted_attack(*args: Any, **keywords: Any) -> Any:
        begun = CountedNetwork.forwards, backwards
        found = attack(*args, **keywords)
        attacked[0] += CountedNetwork.forwards - begun[0]
        attacked[1] += backwards - begun[1]
        return found

    torch.autograd.grad, input_study.minimal_perturbations = counted_gradient, counted_attack
    CountedNetwork.forwards = 0
    audit_task(task, settings)
    fixed = [s for s in plan.stages if s.most is None]
    return {
        "planned": [sum(s.examples * s.forwards for s in fixed), sum(s.examples * s.backwards for s in fixed)],
        "ran": [CountedNetwork.forwards - attacked[0], backwards - attacked[1]],
    }


if __name__ == "__main__":
    print(json.dumps(audited() | passes()))
