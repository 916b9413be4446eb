"""The chapters of an audit, in order."""

from __future__ import annotations

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.chapters.complexity import COMPLEXITY

__all__ = ["CHAPTERS"]

CHAPTERS: tuple[ChapterDeclaration, ...] = (COMPLEXITY,)
