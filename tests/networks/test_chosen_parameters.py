"""Auditing some of a network's parameters is auditing the network with the others frozen, and says so."""

import json
import math
from fnmatch import fnmatchcase

import pytest
import torch

import memspace
from memspace.auditing.audit import audit_task, plan_audit
from memspace.auditing.plan import AuditSettings
from memspace.task.likelihood import Categorical
from memspace.task.task import Task
from tests.networks.models import Decoder, ResNet

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

CHOICES = {"residual": ("body.*", "!*.nb.*"), "decoder": ("*.bias", "*norm*", "!token*")}


def _network(name):
    torch.manual_seed(0)
    if name == "residual":
        return ResNet().double().eval(), (torch.randn(12, 3, 8, 8).double(), torch.randint(0, 5, (12,)))
    x = torch.randint(1, 11, (12, 8))
    return Decoder().double().eval(), (x, torch.roll(x, -1, 1))


def _chosen(model, patterns):
    only, without = [p for p in patterns if p[0] != "!"], [p[1:] for p in patterns if p[0] == "!"]
    return {
        n
        for n, _ in model.named_parameters()
        if any(fnmatchcase(n, p) for p in only) and not any(fnmatchcase(n, p) for p in without)
    }


@pytest.mark.parametrize(
    ("name", "representation"), [("residual", "dual"), ("residual", "ekfac"), ("decoder", "ekfac")]
)
def test_the_same_numbers_as_with_the_others_frozen(name, representation):
    patterns = CHOICES[name]
    settings = AuditSettings(damping=0.01, representation=representation)
    model, data = _network(name)
    names = _chosen(model, patterns)
    assert 1 < len(names) < len(list(model.parameters()))
    some = audit_task(Task(model, data, Categorical(), parameters=patterns), settings)
    assert all(p.requires_grad for p in model.parameters())
    for n, p in model.named_parameters():
        p.requires_grad_(n in names)
    frozen = audit_task(Task(model, data, Categorical()), settings)
    pairs = [
        (m, w)
        for c, d in zip(some.chapters, frozen.chapters, strict=True)
        for m, w in zip(c.measurements, d.measurements, strict=True)
    ]
    assert len(pairs) > 20
    for m, w in pairs:
        assert m.name == w.name
        if math.isfinite(w.value):  # the same sums, over graphs that differ in what else they hold
            assert m.value == pytest.approx(w.value, rel=1e-6, abs=1e-9), m.name
    assert some.tables["layers"]["layer"] == frozen.tables["layers"]["layer"]


def test_what_is_audited_is_said(tmp_path):
    model, data = _network("residual")
    inside = sum(p.numel() for n, p in model.named_parameters() if n in _chosen(model, CHOICES["residual"]))
    total = sum(p.numel() for p in model.parameters())
    counted = f"{inside:,} of {total:,}"
    plan = plan_audit(Task(model, data, parameters=CHOICES["residual"]), AuditSettings())
    assert (plan.parameters, plan.total, plan.patterns) == (inside, total, CHOICES["residual"])
    assert f"{counted} parameters" in plan.text()
    assert "parameters chosen by body.*, !*.nb.*; the others stay fixed" in plan.text()
    memspace.audit(
        model, data, parameters=list(CHOICES["residual"]), settings=AuditSettings(damping=0.01), out=tmp_path / "run"
    )
    facts = json.loads((tmp_path / "run" / "results.json").read_text())["facts"]
    assert facts["parameters"] == counted
    assert facts["parameters chosen by"].startswith("body.*, !*.nb.*;")
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"{counted} parameters" in page
    assert "parameters chosen by" in page
    assert "of" not in plan_audit(Task(model, data), AuditSettings()).counted
