"""Vocabularies too large for a cotangent each: what the plan picks, says and costs, and the audit with it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from memspace.auditing.audit import audit_task, plan_audit
from memspace.auditing.plan import MANY_OUTPUTS, MOST_SAMPLES, AuditSettings
from memspace.metric.fisher import build
from memspace.passes.verify import verified_space
from memspace.task.task import Task

WIDE = 2_500


class Words(nn.Module):
    """Mean of three word embeddings, or each of them, to a distribution over many words."""

    def __init__(self, words, positions):
        super().__init__()
        self.token, self.mix, self.head = nn.Embedding(8, 3), nn.Linear(3, 3), nn.Linear(3, words)
        self.positions = positions

    def forward(self, x):
        h = torch.tanh(self.mix(self.token(x)))
        return self.head(h if self.positions else h.mean(1))


def task_of(words, positions, n=30, seed=0):
    torch.manual_seed(seed)
    model, x = Words(words, positions).eval(), torch.randint(0, 8, (n, 3))
    y = torch.randint(0, words, (n, 3) if positions else (n,))
    refit = lambda keep, seed: Words(words, positions).eval()  # noqa: E731
    return Task(model, (x, y), refit=refit)


@pytest.mark.parametrize(("words", "positions"), [(WIDE, False), (900, True)], ids=["plain", "sequence"])
def test_the_plan_samples_labels_and_says_so(words, positions):
    plan = plan_audit(task_of(words, positions), AuditSettings())
    assert plan.representation == "ekfac"
    assert plan.kind == f"mc:{MOST_SAMPLES}"  # few examples: the most labels each
    assert plan.first_order
    assert f"{MOST_SAMPLES} sampled labels per example" in plan.text()
    most = max(s.backwards for s in plan.stages if s.name not in ("spectrum", "its Fisher rows"))
    assert most <= MOST_SAMPLES + 1  # and one proof of each example
    many = plan_audit(task_of(words, positions, n=5000), AuditSettings())
    assert many.samples == 2  # the fewest that tell their error


def test_outputs_that_are_few_are_planned_as_before():
    assert plan_audit(task_of(20, True), AuditSettings()).kind == "mc"
    plan = plan_audit(task_of(20, False), AuditSettings())
    assert (plan.kind, plan.representation, plan.first_order) == ("exact", "dual", False)
    streamed = plan_audit(task_of(MANY_OUTPUTS, False, n=2), AuditSettings(representation="ekfac"))
    assert (streamed.kind, streamed.first_order) == ("mc", False)


def test_an_exact_dual_that_is_asked_for_is_planned_at_its_cost():
    plan = plan_audit(task_of(WIDE, False, n=4), AuditSettings(representation="dual"))
    assert plan.kind == "exact"
    rows = next(s for s in plan.stages if s.name == "Jacobian rows")
    assert WIDE < rows.backwards <= WIDE + 1  # its own and a part of a proof


@pytest.mark.parametrize(("words", "positions"), [(WIDE, False), (900, True)], ids=["plain", "sequence"])
def test_the_audit_of_many_outputs_states_the_error_of_its_trace(words, positions):
    task = task_of(words, positions, n=12)
    results = audit_task(task, AuditSettings(damping=None if not positions else 0.01))
    assert len(results.chapters) == 9
    assert f"{MOST_SAMPLES} Monte-Carlo labels" in results.facts["metric"]
    trace = results.measurement("fisher.trace")
    assert trace.interval is not None
    assert "labels" in trace.note
    truth = build(task, verified_space(task), "diagonal", kind="topk", lost=0.0).trace().value
    # Four standard errors and a quarter more: over 84 degrees of freedom the error itself is known to about a tenth.
    assert abs(trace.value - truth) < 5 * trace.standard_error


@pytest.mark.parametrize("seed", [3])
def test_a_sequence_model_of_one_drawn_label_says_per_position_and_how_sure_its_trace_is(seed):
    task = replace(task_of(20, True, n=40), refit=None)
    assert plan_audit(task, AuditSettings()).samples == 1
    results = audit_task(task, AuditSettings(damping=0.01, seed=seed))
    trace = results.measurement("fisher.trace")
    assert "exact" not in trace.note
    assert "one label for each" in trace.note
    truth = build(task, verified_space(task), "diagonal", kind="topk", lost=0.0).trace().value
    assert trace.interval is not None
    assert abs(trace.value - truth) < 4 * trace.standard_error
    losses = [m for c in results.chapters for m in c.measurements if m.name.startswith("generalisation.")]
    assert {m.unit for m in losses if m.unit != "1"} == {"nats per position"}
    assert results.measurement("memory.loo_loss_rise").unit == "nats per example"
