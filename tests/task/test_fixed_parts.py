"""Parts of a network that are held fixed run once for every example, and change no number."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import memspace
from memspace.geometry.stacked import held_between, probe_of
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.linearise import FisherOperator
from memspace.passes.outputs import outputs
from memspace.passes.statistics import GradientNorms
from memspace.passes.verify import verified_space
from memspace.task import fixed, kept
from memspace.task.checks import evaluating, holding
from memspace.task.fixed import fixed_parts
from memspace.task.task import Task

N, WIDTH = 23, 4
RUNS: list[int] = []  # examples of every call of an encoder


class Counted(nn.Module):
    """A stand-in for an encoder: it counts the examples that it runs on."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.mix = nn.Embedding(9, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, ids, mask=None, scale=1.0):
        RUNS.append(len(ids))
        h = scale * torch.tanh(self.mix(self.words(ids)))
        return {"mean": h.mean(1) if mask is None else (h * mask.unsqueeze(-1)).sum(1), "states": h}


class Headed(nn.Module):
    def __init__(self, encoder) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(WIDTH, 3)

    def forward(self, ids, mask):
        return self.head(self.encoder(ids, mask=mask)["mean"])


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(fixed, "LEAST", 10)


def task(encoder=None, frozen=True, parameters=()):
    torch.manual_seed(0)
    model = Headed(encoder or Counted()).eval()
    model.encoder.requires_grad_(not frozen)
    ids = torch.randint(0, 9, (N, 5))
    x = {"ids": ids, "mask": (torch.rand(N, 5) > 0.3).float()}
    return Task(model, (x, torch.randint(0, 3, (N,))), parameters=parameters)


def runs():
    """Examples that the encoder has run on."""
    return sum(RUNS)


@pytest.mark.parametrize(("frozen", "parameters"), [(True, ()), (False, "head.*")])
def test_passes_and_outputs_run_the_encoder_once(frozen, parameters):
    t = task(frozen=frozen, parameters=parameters)
    space = verified_space(t)
    want = outputs(t, t.train)[0], _norms(t, space, 4)
    with fixed_parts(t):
        first, before = outputs(t, t.train, batch=7)[0], runs()
        got = outputs(t, t.train, batch=5)[0], _norms(t, verified_space(t), 3)
        # Only the forward passes that look inside the model, or ask for all gradients, run it again.
        assert torch.equal(first, got[0])
        fresh = runs()
        assert torch.equal(outputs(t, t.train, batch=23)[0], first)
        _norms(t, space, 6)
        assert runs() - fresh <= 2 * N // 6
    assert before > 0
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)
    assert nn.Module.__call__ is kept._CALL


def _norms(t, space, batch):
    statistic = GradientNorms(space.blocks, "empirical")
    run_pass(t, space, [statistic], PassOptions(batch=batch))
    return statistic.finish()["norms"]


def read(t, model=None):
    x = t.train.batch(range(N)).x
    with torch.no_grad(), evaluating(model or t.model):
        return (model or t.model)(**x)


def _weights(t):
    with torch.no_grad():
        t.model.encoder.mix.weight.mul_(2)


def _data(t):
    t.model.encoder.mix.weight.data = 2 * t.model.encoder.mix.weight.data


def _other(t):
    t.model.encoder.mix = nn.Linear(WIDTH, WIDTH)


def _forward(t):
    t.model.encoder.mix.forward = torch.ones_like


def _hook(t):
    t.model.encoder.mix.register_forward_hook(lambda *_: torch.zeros(N, 5, WIDTH))


@pytest.mark.parametrize("change", [_weights, _data, _other, _forward, _hook])
def test_what_is_changed_is_run_again(change):
    t = task()
    with fixed_parts(t):
        before = read(t)
        change(t)
        after = read(t)
    assert torch.equal(after, read(t))
    assert not torch.allclose(after, before)


def test_gradients_of_inputs_and_of_weights_that_are_not_selected_are_not_lost():
    t = task(frozen=False, parameters="head.*")
    ids = t.train.batch(range(N)).x["ids"]
    with fixed_parts(t), evaluating(t.model):
        mask = torch.ones(N, 5, requires_grad=True)
        t.model(ids, mask.detach())
        f = t.model(ids, mask)
        asked = mask, t.model.encoder.mix.weight
        assert all(g.abs().sum() > 0 for g in torch.autograd.grad(f[:, 0].sum(), asked))
        with torch.autograd.forward_ad.dual_level(), torch.no_grad():
            dual = torch.autograd.forward_ad.make_dual(mask.detach(), torch.ones(N, 5))
            assert torch.autograd.forward_ad.unpack_dual(t.model(ids, dual)).tangent is not None

        def of_one(i, m):
            return t.model(i.unsqueeze(0), m.unsqueeze(0))[0]

        assert torch.allclose(torch.func.vmap(of_one)(ids, mask.detach()), f.detach(), atol=1e-6)


@pytest.mark.parametrize("frozen", [True, False])
def test_products_along_the_selected_weights_find_what_was_kept(frozen):
    t = task(frozen=frozen, parameters="head.*")
    space = verified_space(t)
    with fixed_parts(t):
        outputs(t, t.train)
        operator = FisherOperator(t, space)
        v = torch.randn(space.size)
        before = operator(v), runs()
        after = operator(v), runs()
    assert after[1] == before[1]
    assert torch.allclose(FisherOperator(t, space)(v), after[0], rtol=1e-4, atol=1e-7)


def test_many_points_of_the_selected_weights_run_the_encoder_once():
    t = task(parameters="head.*")
    space = verified_space(t)
    probe = probe_of(t, space, torch.arange(N))
    state = t.model.state_dict()
    probe.held = held_between(t, space, state, state)
    points = torch.randn(6, space.size, requires_grad=True)
    want = probe.outputs(points)
    with fixed_parts(t):
        probe.outputs(points)
        before = runs()
        assert torch.allclose(probe.outputs(points), want, atol=1e-6)
        assert runs() == before
        assert probe.mapped
        (got,) = torch.autograd.grad(probe.outputs(points).square().sum(), points)
    assert torch.allclose(got, torch.autograd.grad(want.square().sum(), points)[0], atol=1e-4)


def test_other_weights_of_the_head_alone_leave_the_encoder_known():
    t = task()
    state = {n: v.clone() for n, v in t.model.state_dict().items()}
    state["head.weight"] += 1
    with fixed_parts(t):
        read(t)
        before = runs()
        with holding(t.model, state):
            moved = read(t)
        assert runs() == before
    with torch.no_grad():
        t.model.head.weight += 1
    assert torch.allclose(read(t), moved, atol=1e-6)


def test_a_derivative_along_the_encoders_weights_is_not_lost():
    t = task(frozen=False, parameters="head.*")
    x = t.train.batch(range(N)).x
    name = "encoder.mix.weight"

    def f(w):
        return torch.func.functional_call(t.model, {name: w}, (), x)[:, 0].sum()

    w = dict(t.model.named_parameters())[name].detach()
    want = torch.func.grad(f)(w)
    with fixed_parts(t), evaluating(t.model):
        read(t)
        assert torch.allclose(torch.func.grad(f)(w), want)
        assert torch.allclose(torch.func.jvp(f, (w,), (want,))[1], want.square().sum())
        assert torch.allclose(torch.func.vmap(f)(torch.stack([w, 2 * w]))[1], f(2 * w))


class OfItsBatch(Counted):
    """Subtracts a mean over the batch: no function of an example."""

    def forward(self, ids, mask=None, scale=1.0):
        out = super().forward(ids, mask, scale)
        return {k: v - v.mean(0) for k, v in out.items()}


class Noisy(Counted):
    def forward(self, ids, mask=None, scale=1.0):
        out = super().forward(ids, mask, scale)
        return {k: v + torch.rand_like(v) for k, v in out.items()}


class Longer(Counted):
    """Gives two rows an example."""

    def forward(self, ids, mask=None, scale=1.0):
        out = super().forward(ids, mask, scale)
        return {"mean": out["mean"], "states": out["states"].flatten(0, 1)}


@pytest.mark.parametrize("kind", [OfItsBatch, Noisy, Longer])
def test_outputs_that_are_no_function_of_an_example_are_not_kept(kind):
    torch.manual_seed(0)
    model = Headed(kind()).eval()
    t = task()
    part = kept.FixedPart(model.encoder, kept.KeptOutputs())
    x = t.train.batch(range(N)).x
    for _ in range(2):
        part((x["ids"],), {"mask": x["mask"]}, (id(x["mask"]),), True)
    assert not part.kept.entries


def test_arguments_are_part_of_the_key():
    t = task()
    part = kept.FixedPart(t.model.encoder, kept.KeptOutputs())
    ids = t.train.batch(range(N)).x["ids"]
    one, two = (part((ids,), {"scale": s}, (), True)["mean"] for s in (1.0, 2.0))
    assert torch.allclose(2 * one, two)


def test_what_is_kept_is_a_copy():
    t = task()
    part = kept.FixedPart(t.model.encoder, kept.KeptOutputs())
    ids = t.train.batch(range(N)).x["ids"]
    first = part((ids,), {}, (), True)["mean"]
    want = first.clone()
    first.zero_()
    second = part((ids,), {}, (), True)["mean"]
    assert torch.equal(second, want)
    second.zero_()
    assert torch.equal(part((ids[3:],), {}, (), True)["mean"], want[3:])


def test_no_more_is_kept_than_the_limit(monkeypatch):
    t = task()
    monkeypatch.setattr(kept, "LIMIT", 1000)
    part = kept.FixedPart(t.model.encoder, kept.KeptOutputs())
    ids = t.train.batch(range(N)).x["ids"]
    want = t.model.encoder(ids)["states"]
    for _ in range(2):
        assert torch.allclose(part((ids,), {}, (), True)["states"], want, atol=1e-6)
    assert 0 < part.kept.size <= 1000


def test_a_verb_reads_an_encoder_a_few_times_and_gives_the_same(monkeypatch):
    def scores():
        t = task()
        begun = runs()
        return memspace.influence(t, [0, 1], damping=0.1).scores, runs() - begun

    with_parts, few = scores()
    monkeypatch.setattr(fixed, "LEAST", 10**9)
    without, many = scores()
    assert torch.allclose(torch.as_tensor(with_parts), torch.as_tensor(without), rtol=1e-4, atol=1e-6)
    assert few < many


def test_a_task_of_the_same_model_with_more_parameters_keeps_nothing_inside():
    t = task(frozen=False, parameters="head.*")
    whole = replace(t, parameters=())
    with fixed_parts(t):
        read(t)
        assert fixed.has_fixed_parts(t.model)
        with fixed_parts(whole):
            assert not fixed.has_fixed_parts(t.model)
        assert fixed.has_fixed_parts(t.model)
