"""Predictors: numbers that are said to tell from the training alone whether a network generalises."""

from __future__ import annotations

from memspace.auditing.chapter import ChapterDeclaration
from memspace.measures import predictors
from memspace.measures.declaration import declared_measures
from memspace.measures.workspace import Measured

__all__ = ["PREDICTORS"]

DECLARED = tuple(d for d in declared_measures() if d.function.__module__.startswith(predictors.__name__))


def answer(measured: Measured) -> str:
    """Say how many there are, and that one network does not tell which of them hold."""
    return f"{len(measured)} numbers of this network; which of them go with generalisation, many networks have to tell."


PREDICTORS = ChapterDeclaration(
    id="predictors",
    title="Predictors",
    question="Which of the numbers said to tell whether a network generalises does it have?",
    answer=answer,
    measures=tuple(d.function for d in DECLARED),
)
