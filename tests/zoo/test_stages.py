"""Stages register themselves, run in one order, and the command line lists the same."""

from __future__ import annotations

from memspace.commands.zoo import STAGES as OFFERED
from memspace.verbs.zoo import STAGES, WorkSettings
from memspace.zoo.stage import stages


def test_the_command_offers_the_stages_there_are_in_their_order() -> None:
    assert tuple(OFFERED.split(",")) == STAGES == tuple(stages()) == WorkSettings().stages
    assert STAGES[0] == "train"
    assert STAGES.index("outcomes") < STAGES.index("measures")
