"""From intervals to words: one rule, its mirror image, and what many tests change of it."""

from __future__ import annotations

import pytest

from memspace.claims.decision import Decision
from memspace.claims.effects import StudentEffect
from memspace.claims.evidence import Evidence, averaged
from memspace.claims.verdict import verdict_of
from memspace.value import Absent


def effect(value: float, error: float = 0.1) -> StudentEffect:
    return StudentEffect(value, error, 1e6, 50)


def judged(effects: dict, **rule):
    rule = {"direction": "greater", "threshold": 0.1, "contradiction": 0.0, "families": 1} | rule
    return verdict_of(Evidence({"": averaged(effects)}, 100), Decision(**rule))


@pytest.mark.parametrize(
    ("value", "word"),
    [(0.31, "supported"), (0.28, "undecided"), (0.0, "undecided"), (-0.18, "undecided"), (-0.21, "contradicted")],
)
def test_the_whole_interval_decides_and_less_is_the_mirror_image(value: float, word: str) -> None:
    assert judged({"mlp": effect(value)}).word == word
    mirrored = judged({"mlp": effect(-value)}, direction="less", threshold=-0.1)
    assert mirrored.word == word


def test_an_effect_too_small_contradicts_where_that_was_registered() -> None:
    small = {"mlp": effect(0.02, 0.01)}
    assert judged(small).word == "undecided"
    assert judged(small, contradiction=0.1).word == "contradicted"


@pytest.mark.parametrize(
    ("values", "needed", "word"),
    [
        ((0.5, 0.5, 0.0), 2, "supported"),
        ((0.5, 0.0, 0.0), 2, "undecided"),
        ((0.5, 0.5, -0.5), 2, "undecided"),
        ((-0.5, -0.5, 0.0), 2, "contradicted"),
        ((0.5, 0.5, 0.5), 0, "supported"),
        ((0.25, 0.25, 0.25), 0, "supported"),  # the mean decides, which is surer than any family
        ((0.9, 0.9, -0.9), 0, "undecided"),  # unless a family says otherwise
    ],
)
def test_families_are_counted_or_averaged(values, needed: int, word: str) -> None:
    verdict = judged({str(k): effect(v) for k, v in enumerate(values)}, families=needed)
    assert verdict.word == word


def test_a_family_is_corrected_for_the_others() -> None:
    """At 0.3 the p-value against 0.1 is 0.0228: below 0.025 alone, twice that beside a family that shows nothing."""
    alone, together = judged({"a": effect(0.3)}), judged({"a": effect(0.3), "b": effect(0.0)})
    assert alone.word == "supported"
    assert together.measures[0].families[0].word == "undecided"
    assert together.measures[0].families[0].supporting == pytest.approx(2 * alone.measures[0].families[0].supporting)
    assert judged({"a": effect(0.3), "b": effect(0.0)}, corrected=()).measures[0].families[0].word == "supported"


def test_measures_are_corrected_for_each_other() -> None:
    measures = {name: averaged({"mlp": effect(value)}) for name, value in (("a", 0.3), ("b", 0.0), ("c", 0.0))}
    rule = Decision("greater", 0.1, 0.0, families=1)
    verdict = verdict_of(Evidence(measures, 100), rule)
    assert verdict.measures[0].families[0].supporting == pytest.approx(3 * 0.02275, rel=1e-2)
    assert verdict.word == "undecided"
    strong = {name: averaged({"mlp": effect(0.3)}) for name in "abc"}
    assert verdict_of(Evidence(strong, 100), rule).word == "supported"  # all three are found: no correction is left
    one = verdict_of(Evidence(measures | {"a": averaged({"mlp": effect(0.9)})}, 100), rule)
    assert one.word == "supported"
    two = Decision("greater", 0.1, 0.0, families=1, measures=2)
    assert verdict_of(Evidence(measures | {"a": averaged({"mlp": effect(0.9)})}, 100), two).word == "undecided"


def test_what_was_not_measured_is_undecided_and_does_not_count_in_corrections() -> None:
    verdict = judged({"a": effect(0.3), "b": Absent("too few networks")})
    assert [v.word for v in verdict.measures[0].families] == ["supported", "undecided"]
    assert verdict.measures[0].families[1].reason == "too few networks"
    nothing = judged({"a": Absent("too few networks")})
    assert nothing.word == "undecided"
    assert nothing.measures[0].overall.effect is None
