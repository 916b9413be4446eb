"""Lottery tickets with their controls, and accuracy with one shared weight."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from memspace.errors import TaskError
from memspace.experiments.agnostic import agnostic_scores, random_topologies, topology_of
from memspace.experiments.lottery import ARMS, Lottery, lottery, random_mask, train_masked
from memspace.task.builtin.train import fit
from memspace.task.data import Data
from memspace.task.likelihood import Gaussian
from memspace.task.recipe import Recipe, Training
from memspace.task.task import Task


def _make() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 3))


def _task(optimiser: str = "sgd") -> Task:
    g = torch.Generator().manual_seed(0)
    x, teacher = torch.randn(300, 6, generator=g), torch.randn(6, 3, generator=g)
    y = (x @ teacher).argmax(1)
    training = Training(_make, Recipe(6, 32, 0.2 if optimiser == "sgd" else 0.01, 1e-3, optimiser=optimiser))
    model = fit(_make, x[:200], y[:200], training.recipe, seed=4).model
    return Task(model, Data((x[:200], y[:200])), test=Data((x[200:], y[200:])), training=training)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_without_zeros_it_is_the_training_that_made_the_network(optimiser: str) -> None:
    task = _task(optimiser)
    assert task.training is not None
    masks = {k: torch.ones_like(p) for k, p in task.model.named_parameters() if p.dim() > 1}
    state, start = train_masked(task.training, task, masks, seed=4)
    for k, v in task.model.state_dict().items():
        assert torch.allclose(state[k], v, atol=1e-6)
    again, _ = train_masked(task.training, task, masks, seed=4, start=start)
    assert all(torch.equal(again[k], state[k]) for k in state)


def test_tickets_are_sparse_rewound_and_have_their_controls() -> None:
    task = _task()
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    found = lottery(task, Lottery(rounds=5, controls=(2, 5), seed=4))
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    tickets = [t for t in found if t.arm == "ticket"]
    assert [t.share for t in tickets] == pytest.approx([0.8**k for k in range(6)], abs=0.01)
    for arm in ARMS[1:]:
        controls = [t for t in found if t.arm == arm]
        assert [t.share for t in controls] == [tickets[2].share, tickets[5].share]
    for t in found:
        for name, mask in t.masks.items():
            assert bool((t.state[name][mask == 0] == 0).all())
            assert bool((t.state[name][mask == 1] != 0).any())
        assert t.n == 100
    for one, other in pairwise(tickets):  # magnitudes decide, and what is gone stays gone
        gone = torch.cat([(one.masks[k] - other.masks[k]).flatten() for k in one.masks])
        size = torch.cat([one.state[k].abs().flatten() for k in one.masks])
        assert bool((gone >= 0).all())
        kept = torch.cat([other.masks[k].flatten() for k in one.masks])
        assert float(size[gone > 0].max()) <= float(size[kept > 0].min())
    random = next(t for t in found if t.arm == "random")
    for name, mask in random.masks.items():
        assert mask.sum() == tickets[2].masks[name].sum()
    assert any(not torch.equal(random.masks[k], tickets[2].masks[k]) for k in random.masks)


def test_rewinding_to_an_early_step_goes_on_from_there() -> None:
    task = _task()
    assert task.training is not None
    masks = {k: torch.ones_like(p) for k, p in task.model.named_parameters() if p.dim() > 1}
    _, start = train_masked(task.training, task, masks, seed=4, snapshot=0)
    _, early = train_masked(task.training, task, masks, seed=4, snapshot=7)
    assert any(not torch.equal(start[k], early[k]) for k in start)
    found = lottery(task, Lottery(rounds=1, rewind=7, controls=(), seed=4))
    again, _ = train_masked(task.training, task, found[1].masks, seed=4, start=early, first=7)
    assert all(torch.equal(again[k], found[1].state[k]) for k in again)


def test_a_lottery_needs_a_training_and_sane_numbers() -> None:
    task = _task()
    with pytest.raises(TaskError, match="repeated"):
        lottery(Task(task.model, task.train))
    with pytest.raises(ValueError, match="cut"):
        Lottery(cut=1.0)
    assert random_mask({"w": torch.ones(3)}, 0)["w"].sum() == 3


def test_all_connections_without_signs_score_chance() -> None:
    task = _task()
    score = agnostic_scores(task, random_topologies(task, 3, 1.0, signs=False))
    labels = task.test.labels() if task.test is not None else task.train.labels()
    constant = {round(float((labels == k).double().mean()), 6) for k in range(3)}
    assert {round(a, 6) for a in score.accuracy.flatten().tolist()} <= constant  # every class gets the same output
    assert score.chance == pytest.approx(max(constant), abs=1e-5)


def test_a_topology_that_solves_the_task_scores_and_random_ones_do_not() -> None:
    """Class = the largest of three inputs: connections i → i alone solve it at any positive shared weight."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(400, 3, generator=g)
    task = Task(nn.Linear(3, 3), Data((x, x.argmax(1))))
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    right = agnostic_scores(task, [{"weight": torch.eye(3)}], grid=(-1.0, 0.5, 2.0))
    assert right.accuracy[0, 1] == right.accuracy[0, 2] == right.best[0] == 1.0
    assert right.accuracy[0, 0] < 0.5
    random = agnostic_scores(task, random_topologies(task, 20, 0.5, seed=3))
    assert random.best.mean() < 0.9
    mean, best, chance = random.measurements("agnostic")
    assert mean.interval is not None
    assert mean.value < best.value
    assert chance.value == random.chance
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())


def test_the_topology_of_a_network_is_its_signs() -> None:
    task = _task()
    own = topology_of(task)
    for name, p in task.model.named_parameters():
        if p.dim() > 1:
            assert torch.equal(own[name], p.sign())
    unsigned = topology_of(task, {"0.weight": torch.tensor([[0.0, -2.0]]), "2.weight": torch.ones(1, 1)}, signs=False)
    assert unsigned["0.weight"].tolist() == [[0.0, 1.0]]
    with pytest.raises(TaskError, match="accuracy"):
        agnostic_scores(Task(nn.Linear(3, 2), Data((torch.randn(9, 3), torch.randn(9, 2))), Gaussian()), [])
    with pytest.raises(ValueError, match="density"):
        random_topologies(task, 1, 0.0)
