"""What watching costs stays a share of the training, whatever probe evaluations cost."""

from __future__ import annotations

import random

import pytest

from memspace.recorder.budget import TimeBudget


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("seed", range(6))
def test_the_share_holds_and_every_kind_gets_its_turn(seed):
    rng, clock = random.Random(seed), Clock()
    share, parts = rng.choice([0.03, 0.05, 0.2]), {"probe": 0.5, "slow": 0.3, "file": 0.2}
    budget = TimeBudget(share, parts, clock=clock)
    budget.start(rng.choice([0.0, 0.3]))
    costs = {"probe": rng.uniform(1e-3, 1e-2), "slow": rng.uniform(0.05, 0.2), "file": rng.uniform(0.01, 0.05)}
    for kind, seconds in costs.items():
        budget.guess(kind, seconds * rng.uniform(0.3, 1.5))
    done = dict.fromkeys(costs, 0)
    for _ in range(40_000):
        clock.now += rng.uniform(1e-3, 3e-3)
        budget.earn()
        for kind, seconds in costs.items():
            if budget.affords(kind):
                with budget.spending(kind):
                    clock.now += seconds * rng.uniform(0.7, 1.5)
                done[kind] += 1
    assert budget.spent <= share * budget.trained + 2 * sum(costs.values())
    assert budget.spent > 0.5 * share * budget.trained
    assert budget.debt == 0.0
    assert min(done.values()) >= 1
    assert clock.now == pytest.approx(budget.trained + budget.spent, rel=0.05)


def test_a_pause_is_no_reason_for_a_burst():
    clock = Clock()
    budget = TimeBudget(0.05, {"probe": 1.0}, clock=clock)
    budget.guess("probe", 0.01)
    clock.now += 3600
    budget.earn()
    evaluations = 0
    while budget.affords("probe"):
        with budget.spending("probe"):
            clock.now += 0.01
        evaluations += 1
    assert 1 <= evaluations <= 4


@pytest.mark.parametrize("debt", [0.1, 0.4])
def test_half_of_what_is_earned_repays_what_was_spent_before_the_first_step(debt):
    clock, share = Clock(), 0.1
    budget = TimeBudget(share, {"probe": 1.0}, clock=clock)
    budget.guess("probe", 1e3)  # never afforded: nothing leaves the balance
    budget.start(debt)
    assert budget.spent == budget.debt == debt
    for k in range(1, 11):
        clock.now += 1.0
        budget.earn()
        assert budget.debt == pytest.approx(max(0.0, debt - k * share / 2))
        assert budget.balance["probe"] + debt - budget.debt == pytest.approx(k * share)
    assert budget.debt == 0
