"""The measures of a training's path and of depth, declared; ``action.training`` and ``action.depth`` compute them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from memspace.action.depth import Depth
from memspace.action.training import TrainingAction
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.declaration import measure
from memspace.measures.needs import needing
from memspace.value import Absent

__all__ = ["DEPTH_MEASURES", "TRAINING_MEASURES"]

Part = Callable[..., Measurement | Absent | None]
Studied = TrainingAction | Depth
FISHER = "rao1945, crooks2007"
SPENT = "degiorgi1980, ambrosio2008"


def _from(study: Studied, name: str) -> Measurement | Absent | None:
    """What a study states under a name, or why it does not; None where it says nothing of it."""
    for m in study.measurements:
        if m.name == name:
            return m
    absent: Unmeasured | None = next((u for u in study.unmeasured if u.name == name), None)
    return None if absent is None else Absent(absent.reason, absent.remedy)


@dataclass(frozen=True)
class _Stated:
    """A number that a study states."""

    name: str
    meaning: str
    unit: str
    estimator: str
    source: str = ""
    better: str = ""
    shown: str = "number"


def _declared(kind: type[Studied], stated: _Stated, first: bool) -> Part:
    """Declare it as a measure; ``first``: where there is no study at all, this one says why."""

    @measure(
        stated.name,
        chapter="action",
        unit=stated.unit,
        estimator=stated.estimator,
        source=stated.source,
        better=stated.better,
        shown=stated.shown,
    )
    @needing(study=kind if first else kind | None)
    def read(study: Studied | None) -> Measurement | Absent | None:
        return None if study is None else _from(study, stated.name)

    read.__doc__ = stated.meaning
    return read


TRAINING = (
    _Stated(
        "action.length",
        "Length of the training path through the recorded checkpoints.",
        "nats^½",
        "Σ d",
        source=FISHER,
    ),
    _Stated(
        "action.drift_length",
        "Length of the training path without the noise of its steps.",
        "nats^½",
        "Σ √(D² − noise)",
    ),
    _Stated(
        "action.noise_share",
        "Share of the recorded path that is noise of the steps.",
        "1",
        "of Σ d², what is not drift",
        shown="share",
    ),
    _Stated(
        "action.constant_speed",
        "Least action of the path over all clocks of unit duration.",
        "nats",
        "½L² at T = 1",
        source=FISHER,
    ),
    _Stated(
        "action.straight_line_length",
        "Length of the straight line between first and last weights.",
        "nats^½",
        "Σ d along the line",
        source=FISHER,
    ),
    _Stated(
        "action.ambient_distance",
        "Distance of first and last predictions: no path is shorter.",
        "nats^½",
        "√(mean d²), closed form",
        source="rao1945",
    ),
    _Stated(
        "action.inefficiency",
        "How many times the least possible distance training travelled.",
        "1",
        "length over ambient distance",
        better="smaller",
        shown="ratio",
    ),
    _Stated(
        "action.over_straight_line",
        "Length travelled over that of the straight line in the weights.",
        "1",
        "length over the line's",
    ),
    _Stated(
        "action.loss_bought",
        "Loss that training took away.",
        "nats",
        "loss at the first less the last checkpoint",
    ),
    _Stated(
        "action.learning_rate_time",
        "Action of the path in the recorded time.",
        "nats per learning-rate time",
        "½ Σ ℓ²/Δt",
        source=FISHER,
    ),
    _Stated(
        "action.excess",
        "Action spent beyond the loss it bought, over the best clock.",
        "nats",
        "∫‖θ̇‖_F ‖∇L‖_{F⁻¹} dt − loss bought",
        source=SPENT,
        better="smaller",
    ),
    _Stated(
        "action.spent_over_bought",
        "Action spent for every nat of loss bought; 1 along the natural gradient.",
        "1",
        "∫‖θ̇‖_F ‖∇L‖_{F⁻¹} dt over loss bought",
        source=SPENT,
        better="smaller",
        shown="ratio",
    ),
    _Stated(
        "action.excess_learning_rate_time",
        "Action spent beyond the loss it bought, in the recorded time.",
        "nats",
        "∫(½‖θ̇‖²_F + ½‖∇L‖²_{F⁻¹}) dt − loss bought",
        source=SPENT,
    ),
)
DEPTH = (
    _Stated(
        "depth.ratio",
        "Action of the hidden states along depth over the least possible.",
        "1",
        "action over least action",
        shown="ratio",
    ),
    _Stated(
        "depth.pace",
        "What uneven steps along depth add to the action.",
        "1",
        "action over ½ length²",
    ),
    _Stated(
        "depth.bend",
        "What turns along depth add to the action.",
        "1",
        "½ length² over least action",
    ),
    _Stated(
        "depth.fisher_action",
        "Action along depth as far as the outputs feel it.",
        "nats",
        "(L/2) Σ δhᵀJ_lᵀHJ_lδh",
    ),
    _Stated(
        "depth.prediction_length",
        "Length of the path of early read-outs.",
        "nats^½",
        "Σ d over read-outs",
    ),
    _Stated(
        "depth.prediction_inefficiency",
        "Length of the path of early read-outs over the distance of its ends.",
        "1",
        "length over distance",
    ),
    _Stated(
        "depth.stationarity",
        "How far the least stationary layer is from an optimal control.",
        "1",
        "largest of the layers",
    ),
    _Stated(
        "depth.hamiltonian_variation",
        "How far the Hamiltonian varies along depth, which an optimal control keeps.",
        "1",
        "standard deviation over mean",
    ),
)
TRAINING_MEASURES = tuple(_declared(TrainingAction, s, s is TRAINING[0]) for s in TRAINING)
DEPTH_MEASURES = tuple(_declared(Depth, s, s is DEPTH[0]) for s in DEPTH)
