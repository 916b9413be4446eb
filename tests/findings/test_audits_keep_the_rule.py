"""Whatever is audited, every finding that is spoken is supported by reliable intervals of the same audit."""

from __future__ import annotations

import functools
import re

import pytest
import torch
from torch import nn

import memspace

RECIPE = memspace.Recipe(epochs=60, batch=20, rate=0.02, decay=1e-3)


def _inputs(seed: int, n: int) -> tuple[torch.Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=generator), generator


def _classes(seed: int, n: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    x, generator = _inputs(seed, n)
    y = (x[:, 0] + 0.5 * x[:, 1] ** 2 > 0.3).long() + (x[:, 2] > 0.8).long()
    wrong = torch.rand(n, generator=generator) < noise
    return x, torch.where(wrong, (y + 1) % 3, y)


def _targets(seed: int, n: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    x, generator = _inputs(seed, n)
    y = torch.sin(x[:, :1]) + 0.2 * torch.randn(n, 1, generator=generator)
    return x, y + 3 * (torch.rand(n, 1, generator=generator) < noise)


def _counts(seed: int, n: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    x, generator = _inputs(seed, n)
    return x, torch.poisson(torch.exp(0.5 * x[:, :1]), generator=generator)


KINDS = {
    "classes": (_classes, memspace.Categorical, 3),
    "targets": (_targets, memspace.Gaussian, 1),
    "counts": (_counts, memspace.Poisson, 1),
}


@functools.cache
def _audit(kind: str, noise: float, refits: int, test: bool, seed: int) -> memspace.Results:
    draw, law, outputs = KINDS[kind]
    x, y = draw(seed, 100, noise)
    training = memspace.Training(lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, outputs)), RECIPE)
    model = memspace.train_many(training, x, y, law(), seeds=[seed]).model(0)
    return memspace.audit(
        model,
        (x, y),
        draw(seed + 100, 60, 0.0) if test else None,
        likelihood=law(),
        settings=memspace.Settings(seed=seed, refits=refits),
        training=training,
    )


CASES = [
    ("classes", 0.0, 5, True, 0),
    ("classes", 0.2, 5, True, 1),
    ("classes", 0.2, 0, False, 2),
    ("targets", 0.05, 5, True, 3),
    ("counts", 0.0, 0, True, 4),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[1]}-{c[2]}-{c[3]}")
def test_every_finding_is_supported(case):
    results = _audit(*case)
    measured = {m.name: m for c in results.chapters for m in c.measurements}
    findings = [f for c in results.chapters for f in c.findings]
    assert findings
    for finding in findings:
        assert finding.claims or finding.level == "note", finding.title
        assert all(claim.holds(measured) for claim in finding.claims), finding.title
        assert not any(claim.holds(measured) for claim in finding.unless), finding.title


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[1]}-{c[2]}-{c[3]}")
def test_what_a_finding_advises_can_be_done(case):
    results = _audit(*case)
    for chapter in results.chapters:
        for f in chapter.findings:
            said = f"{f.title} {f.evidence} {f.action}"
            assert not (case[2] and "Task(refit" in said), "it can train again already"
            assert not re.search(r"\b1 (\w+ )?(examples|labels|targets|pairs)\b", said), said
            assert not re.search(r"\bnan\b|\binf\b|\bNone\b", said), said


def test_no_two_findings_of_an_audit_say_the_opposite():
    for case in CASES:
        titles = " | ".join(f.title for c in _audit(*case).chapters for f in c.findings)
        assert not ("No label looks wrong" in titles and "more likely wrong than right" in titles)
        assert not ("can be stored in 4 bits" in titles and re.search(r"is most sensitive to rounding.*4 bits", titles))
