"""Scores of codes against known factors: a file a score, which registers itself.

A score is a pure function of codes ``z`` (M, d) and integer levels ``v`` (M, K), whose rows are in random order. A
factor with a single level is left out; where none is left, a score is NaN. ``score.score`` registers one,
``every_score.score_all`` computes them with error and null, ``agreement.agreement`` compares them over models.
"""

__all__: list[str] = []
