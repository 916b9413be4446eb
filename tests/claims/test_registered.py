"""Every registration of the package, rehearsed: made-up networks with an effect support it, and without one do not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from memspace.claims.again import judged_again, recorded, shipped_verdicts
from memspace.claims.control import run_control
from memspace.claims.decision import SUPPORTED
from memspace.claims.lock import read_lock
from memspace.claims.reading import REGISTERED, registrations
from memspace.claims.record import differences
from memspace.claims.registration import Registration
from memspace.claims.sampling import Sampling
from memspace.claims.statistic import statistic_named
from memspace.claims.verdict import verdict_of
from tests.claims.rehearsal import Rehearsal

CLAIMS = registrations(REGISTERED)
DRAWS, REPEATS = 200, 12  # of a control that decides at 5% at most, 5 of 12 or more come in one of 2000


@cache
def rehearsal(effect: float) -> Rehearsal:
    return Rehearsal(effect)


def evidence_of(claim: Registration, effect: float):
    table = claim.population.select(rehearsal(effect).tables[claim.population.table])
    assert table.height
    sampling = Sampling(claim.unit, claim.population.families, DRAWS, claim.seed)

    def statistic(rows, seed: int = 0):
        function = statistic_named(claim.statistic.name).function
        return function(rows, claim.statistic.arguments, replace(sampling, seed=seed))

    return table, statistic


@pytest.mark.parametrize("claim", CLAIMS, ids=[c.id for c in CLAIMS])
def test_it_is_supported_where_the_effect_is_there_alone(claim: Registration) -> None:
    for effect in (0.8, 0.0):
        table, statistic = evidence_of(claim, effect)
        word = verdict_of(statistic(table), claim.decision).word
        assert (word == SUPPORTED) == (effect > 0), word


@pytest.mark.parametrize("claim", CLAIMS, ids=[c.id for c in CLAIMS])
def test_its_control_decides_nothing(claim: Registration) -> None:
    table, statistic = evidence_of(claim, 0.8)
    short = replace(claim, control=replace(claim.control, repeats=REPEATS))
    control = run_control(short, table, statistic)
    assert control.decided.value < 5 / REPEATS


def test_a_shipped_verdict_follows_from_its_hash() -> None:
    records = shipped_verdicts()
    registered = read_lock(REGISTERED)
    assert all(registered[record.id].sha256 == record.sha256 for record in records)
    assert all(record.control.holds for record in records)
    record = recorded(records, id="02-random-start-gap")
    again = judged_again(recorded(records, sha256=record.sha256)).claims[0].record
    assert not differences(again, record)
    assert again.word == "supported"
