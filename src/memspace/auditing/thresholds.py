"""How much is worth a finding: every threshold by which an audit speaks, each with its reason.

Whether a measurement supports a finding at all is ruled in ``audit.claims``: its interval has to lie beyond these.
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

# Of a score of random rotations. A trace of alignment beyond one more rotation is none to read units by.
ALIGNED = 2.0
# Nats. A rise of the loss along a path that is more than the noise between two trainings.
BARRIER = 0.05
# Of the measured loss. Two samples of a few hundred examples differ by as much, and a choice rarely turns on it.
ESTIMATE_OFF = 0.35
# Share of wrong labels below which none is said to look wrong: a few hide in every data set.
FEW_WRONG = 0.05
# Of the labels' bits. A network that saves so much has found a rule and not only stored the examples.
LABELS_COMPRESSED = 0.25
# Share of test examples that are copies of training examples. So few move an accuracy by at most as much.
LEAKED = 0.01
# Probability from which a label or target is more likely wrong than right.
LIKELY = 0.5
# Straight line over the shortest path found: beyond, the line disturbs predictions more than the search is off.
LONGER_LINE = 1.25
# Of all self-influence, held by a hundredth of the examples: twenty times an equal share.
MEMORISED_BY_TOP = 0.2
# Outliers expected, from which at least one is: half a target rounds to one.
ONE_TARGET = 0.5
# Spearman's ρ from which a ranking by the linearised distance finds most of the inputs nearest to a change.
RANKS_WELL = 0.8
# Share of the weights that can go from which it pays to remove them.
REMOVABLE = 0.3
# Share of training examples that are there twice, from which counts and intervals are off by more than their errors.
REPEATED = 0.05
# Of the next layer's cost. A layer that costs so many times more when rounded alone deserves bits of its own.
ROUNDING_LEAD = 2.0
# Nats. What rounding a layer must cost before it is worth naming.
ROUNDING_NOTICED = 0.01
# Action spent over bought, or path over shortest distance: half of the training's way did nothing.
WASTEFUL = 2.0
