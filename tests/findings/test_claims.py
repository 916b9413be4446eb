"""The rule by which a finding may speak."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from memspace.auditing.claims import Finding, above, below, reviewed, unreliable
from memspace.measurement import Measurement

SHARE = Measurement("labels.noise", 0.08, "1", "by hand", 100, (0.05, 0.11))
EXACT = Measurement("pairs", 3.0, "pairs", "counted", 100)


def _finding(*claims, **fields):
    return Finding("warn", "Labels look wrong", "8%", "Review them.", "stored", claims=claims, **fields)


@pytest.mark.parametrize("bound", [0.0, 0.049])
def test_a_claim_holds_where_the_whole_interval_lies_on_its_side(bound):
    assert above("labels.noise", bound).holds({SHARE.name: SHARE})
    assert not below("labels.noise", 0.1).holds({SHARE.name: SHARE})
    assert below("labels.noise", 0.12).holds({SHARE.name: SHARE})


def test_a_point_above_the_bound_is_not_enough_where_the_interval_reaches_it():
    assert not above("labels.noise", 0.06).holds({SHARE.name: SHARE})


def test_an_exact_value_is_its_own_interval():
    assert above("pairs", 2.9).holds({EXACT.name: EXACT})
    assert not above("pairs", 3.0).holds({EXACT.name: EXACT})


def test_what_is_not_reliable_not_finite_or_not_measured_supports_nothing():
    assert not above("labels.noise", 0.0).holds({SHARE.name: replace(SHARE, reliable=False)})
    assert not above("labels.noise", 0.0).holds({SHARE.name: replace(SHARE, value=float("nan"))})
    assert not above("labels.noise", 0.0).holds({})
    assert unreliable("labels.noise").holds({SHARE.name: replace(SHARE, reliable=False)})
    assert not unreliable("labels.noise").holds({})


def test_a_finding_without_support_gives_way_to_what_it_says_otherwise():
    instead = Finding("note", "Cannot tell whether labels are wrong", "", "", "stored")
    finding = _finding(above("labels.noise", 0.06), otherwise=instead)
    assert reviewed([finding], {SHARE.name: SHARE}) == (instead,)
    assert reviewed([replace(finding, otherwise=None)], {SHARE.name: SHARE}) == ()


def test_what_a_finding_says_otherwise_must_be_supported_too():
    instead = _finding(above("pairs", 2.0))
    finding = _finding(above("labels.noise", 0.06), otherwise=instead)
    assert reviewed([finding], {SHARE.name: SHARE}) == ()
    assert reviewed([finding], {SHARE.name: SHARE, EXACT.name: EXACT}) == (instead,)


def test_one_refutation_of_several_is_enough():
    finding = _finding(above("labels.noise", 0.01), unless=(above("pairs", 2.0), above("pairs", 9.0)))
    assert reviewed([finding], {SHARE.name: SHARE, EXACT.name: EXACT}) == ()


def test_a_finding_is_silent_where_another_measurement_refutes_it():
    finding = _finding(above("labels.noise", 0.01), unless=(above("pairs", 2.0),))
    assert reviewed([finding], {SHARE.name: SHARE, EXACT.name: EXACT}) == ()
    assert reviewed([finding], {SHARE.name: SHARE}) == (finding,)


def test_a_verdict_that_rests_on_no_claim_is_a_note():
    assert [f.level for f in reviewed([_finding()], {})] == ["note"]


def test_a_finding_survives_being_written_and_read():
    finding = _finding(above("labels.noise", 0.01), unless=(below("pairs", 1.0),), first=True, otherwise=_finding())
    assert Finding.from_dict(asdict(finding)) == finding


def test_a_finding_of_an_earlier_version_is_read_without_claims():
    old = {"level": "good", "title": "t", "evidence": "e", "action": "a", "chapter": "c"}
    assert Finding.from_dict(old) == Finding(**old)
