"""The chapters of an audit, in order, and those of the pages that are no audit."""

from __future__ import annotations

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.chapters.action import ACTION
from memspace.auditing.chapters.capacity import CAPACITY
from memspace.auditing.chapters.comparison import COMPARISON
from memspace.auditing.chapters.complexity import COMPLEXITY
from memspace.auditing.chapters.disentanglement import DISENTANGLEMENT
from memspace.auditing.chapters.efficiency import EFFICIENCY
from memspace.auditing.chapters.gap import GAP
from memspace.auditing.chapters.generalisation import GENERALISATION
from memspace.auditing.chapters.geometry import GEOMETRY
from memspace.auditing.chapters.predictors import PREDICTORS
from memspace.auditing.chapters.pruning import PRUNING
from memspace.auditing.chapters.recording import RECORDING
from memspace.auditing.chapters.robustness import ROBUSTNESS
from memspace.auditing.chapters.stored import STORED

__all__ = ["CHAPTERS", "PAGE_CHAPTERS"]

CHAPTERS: tuple[ChapterDeclaration, ...] = (
    GEOMETRY,
    COMPLEXITY,
    CAPACITY,
    ROBUSTNESS,
    EFFICIENCY,
    STORED,
    GENERALISATION,
    ACTION,
    DISENTANGLEMENT,
)
PAGE_CHAPTERS: tuple[ChapterDeclaration, ...] = (*COMPARISON, *RECORDING, PRUNING, PREDICTORS, GAP)
