"""Thresholds of findings, each with its reason.

A measurement supports a finding where its interval lies beyond the threshold: see ``auditing.claims``.
"""

from __future__ import annotations

from memspace.measures.pruning_measures import ACCURACY_COST

__all__ = [
    "ACCURACY_COST",
    "ALIGNED",
    "BARRIER",
    "ESTIMATE_OFF",
    "FEW_WRONG",
    "LABELS_COMPRESSED",
    "LEAKED",
    "LIKELY",
    "LONGER_LINE",
    "MEMORISED_BY_TOP",
    "ONE_TARGET",
    "RANKS_WELL",
    "REMOVABLE",
    "REPEATED",
    "ROUNDING_LEAD",
    "ROUNDING_NOTICED",
    "WASTEFUL",
]

# Ratio to the score of random rotations; alignment below it is too weak to read units by.
ALIGNED = 2.0
# Rise of the loss along a path, nats: more than the noise between two trainings.
BARRIER = 0.05
# Share of the measured loss: two samples of a few hundred examples differ by as much.
ESTIMATE_OFF = 0.35
# Share of wrong labels below which no finding is made: every data set has a few.
FEW_WRONG = 0.05
# Share of the labels' bits: a network that saves more has found a rule and not only stored the examples.
LABELS_COMPRESSED = 0.25
# Share of test examples that are copies of training examples: they change an accuracy by at most as much.
LEAKED = 0.01
# Probability from which a label or target is more likely wrong than right.
LIKELY = 0.5
# Straight line over the shortest path found: beyond, the line disturbs predictions more than the search is off.
LONGER_LINE = 1.25
# Share of all self-influence held by a hundredth of the examples: twenty times an equal share.
MEMORISED_BY_TOP = 0.2
# Expected number of outliers from which there is at least one: half a target rounds to one.
ONE_TARGET = 0.5
# Spearman's ρ from which a ranking by the linearised distance finds most of the inputs nearest to a change.
RANKS_WELL = 0.8
# Share of removable weights from which removal pays.
REMOVABLE = 0.3
# Share of duplicate training examples from which counts and intervals are off by more than their errors.
REPEATED = 0.05
# Ratio to the next layer's cost: a layer above it, rounded alone, deserves more bits.
ROUNDING_LEAD = 2.0
# Least cost of rounding a layer, nats, that is worth a finding.
ROUNDING_NOTICED = 0.01
# Ratio of action spent to loss bought, or of path to shortest distance: half of the training's path was wasted.
WASTEFUL = 2.0
