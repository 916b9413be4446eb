"""The numbers that the action of a training and of depth is stated in: unit, estimator and source of each, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from memspace.measurement import Measurement, stated
from memspace.value import Value

__all__ = ["DEPTH", "LAYERS", "QUANTITIES", "TRAINING", "ActionQuantity", "state"]

CROOKS = "rao1945, crooks2007"  # length and action of a path in the Fisher metric
DE_GIORGI = "degiorgi1980, ambrosio2008"  # the energy–dissipation excess
KARKAR = "karkar2020"  # the kinetic energy of residual blocks as their action
LENS = "belrose2023"
PONTRYAGIN = "pontryagin1962, e2017"
LENGTH, FEATURES = "nats^½", "squared features"


@dataclass(frozen=True)
class ActionQuantity:
    """A number of the action, as declared.

    Args:
        name: dotted and unique; of a family with a member for each layer, what comes before the layer's number.
        meaning: one sentence for people.
        unit: for example ``"nats"``.
        estimator: how it is computed.
        source: keys of the bibliography.
        better: ``"larger"``, ``"smaller"`` or empty.
        shown: ``"number"``, ``"share"`` or ``"ratio"``.
    """

    name: str
    meaning: str
    unit: str
    estimator: str
    source: str = ""
    better: str = ""
    shown: str = "number"


def state(name: str, value: Value, layer: int | None = None) -> Measurement:
    """Give a value the unit, estimator and source declared for its name.

    Args:
        name: of the quantity or of its family.
        value: the number with its error.
        layer: number of the family's member.

    Returns:
        The measurement.

    Raises:
        KeyError: no quantity has the name.
    """
    q = QUANTITIES[name]
    full = name if layer is None else f"{name}.{layer}"
    return replace(stated(full, value, q.unit, q.estimator, q.source), better=q.better, shown=q.shown)


TRAINING = (
    ActionQuantity(
        "action.length",
        "Length of the training path through the recorded checkpoints.",
        LENGTH,
        "Σ d, closed-form Fisher–Rao steps",
        CROOKS,
    ),
    ActionQuantity(
        "action.drift_length",
        "Length of the training path without the noise of its steps.",
        LENGTH,
        "Σ √(D² − noise) at the finest scale at which drift stands out",
    ),
    ActionQuantity(
        "action.noise_share",
        "Share of the recorded path that is noise of the steps.",
        "1",
        "of Σ d² between neighbouring checkpoints, what is not drift",
        shown="share",
    ),
    ActionQuantity(
        "action.constant_speed",
        "Least action of the path over all clocks of unit duration.",
        "nats",
        "½L² at T = 1",
        CROOKS,
    ),
    ActionQuantity(
        "action.straight_line_length",
        "Length of the straight line between first and last weights.",
        LENGTH,
        "Σ d along the line",
        CROOKS,
    ),
    ActionQuantity(
        "action.ambient_distance",
        "Distance of first and last predictions: no path is shorter.",
        LENGTH,
        "√(mean d²), closed form, first to last checkpoint",
        "rao1945",
    ),
    ActionQuantity(
        "action.inefficiency",
        "How many times the least possible distance training travelled.",
        "1",
        "length over ambient distance",
        better="smaller",
        shown="ratio",
    ),
    ActionQuantity(
        "action.over_straight_line",
        "Length travelled over that of the straight line in the weights.",
        "1",
        "length over straight-line length",
    ),
    ActionQuantity(
        "action.loss_bought",
        "Loss that training took away.",
        "nats",
        "training loss at the first less the last checkpoint, probe examples",
    ),
    ActionQuantity(
        "action.learning_rate_time",
        "Action of the path in the recorded time.",
        "nats per learning-rate time",
        "½ Σ ℓ²/Δt, noise taken out",
        CROOKS,
    ),
    ActionQuantity(
        "action.excess",
        "Action spent beyond the loss it bought, over the best clock.",
        "nats",
        "∫‖θ̇‖_F ‖∇L‖_{F⁻¹} dt less the loss bought (least over all clocks)",
        DE_GIORGI,
        better="smaller",
    ),
    ActionQuantity(
        "action.spent_over_bought",
        "Action spent for every nat of loss bought; 1 along the natural gradient.",
        "1",
        "∫‖θ̇‖_F ‖∇L‖_{F⁻¹} dt over the loss bought",
        DE_GIORGI,
        better="smaller",
        shown="ratio",
    ),
    ActionQuantity(
        "action.excess_learning_rate_time",
        "Action spent beyond the loss it bought, in the recorded time.",
        "nats",
        "∫(½‖θ̇‖²_F + ½‖∇L‖²_{F⁻¹}) dt less the loss bought, in learning-rate time",
        DE_GIORGI,
    ),
)
DEPTH = (
    ActionQuantity(
        "depth.ratio",
        "Action of the hidden states along depth over the least possible.",
        "1",
        "action over least action",
        shown="ratio",
    ),
    ActionQuantity(
        "depth.pace",
        "What uneven steps along depth add to the action.",
        "1",
        "action over ½ length²",
    ),
    ActionQuantity(
        "depth.bend",
        "What turns along depth add to the action.",
        "1",
        "½ length² over least action",
    ),
    ActionQuantity(
        "depth.fisher_action",
        "Action along depth as far as the outputs feel it.",
        "nats",
        "(L/2) Σ δhᵀJ_lᵀHJ_lδh, exact by forward mode",
    ),
    ActionQuantity(
        "depth.prediction_length",
        "Length of the path of early read-outs.",
        LENGTH,
        "Σ d over read-outs, closed-form Fisher–Rao steps",
        LENS,
    ),
    ActionQuantity(
        "depth.prediction_inefficiency",
        "Length of the path of early read-outs over the distance of its ends.",
        "1",
        "length over distance of the ends, at least 1",
        LENS,
    ),
    ActionQuantity(
        "depth.stationarity",
        "How far the least stationary layer is from an optimal control.",
        "1",
        "‖∂H/∂θ‖ over root mean square of single examples' plus decay",
        PONTRYAGIN,
    ),
    ActionQuantity(
        "depth.hamiltonian_variation",
        "How far the Hamiltonian varies along depth, which an optimal control keeps.",
        "1",
        "standard deviation over mean of the layers",
        PONTRYAGIN,
    ),
)
# What memspace.depth states beyond the audit: of the whole depth, and families with a member for each layer.
LAYERS = (
    ActionQuantity("depth.action", "Kinetic energy of the hidden states.", FEATURES, "(L/2) Σ‖δh‖²", KARKAR),
    ActionQuantity("depth.least_action", "Least of it between the same ends.", FEATURES, "½‖h_L − h_0‖²", KARKAR),
    ActionQuantity(
        "depth.prediction_action",
        "Action of the path of early read-outs.",
        "nats",
        "(L/2) Σ d² over read-outs, closed-form Fisher–Rao steps",
        LENS,
    ),
    ActionQuantity(
        "depth.prediction_distance",
        "Distance of the first read-out from the predictions.",
        LENGTH,
        "first to last read-out, closed form",
        "rao1945",
    ),
    ActionQuantity(
        "depth.prediction_ratio",
        "Action of the path of early read-outs over the least possible.",
        "1",
        "action over ½ distance²",
        LENS,
    ),
    ActionQuantity(
        "depth.raised_by_chance",
        "Share of random changes of a layer that raise its Hamiltonian.",
        "1",
        "random changes of a layer's parameters",
        PONTRYAGIN,
    ),
    ActionQuantity("depth.share", "A layer's share of the action.", "1", "‖δh_l‖² over Σ‖δh‖²"),
    ActionQuantity(
        "depth.fisher_share",
        "A layer's share of the action that the outputs feel.",
        "1",
        "δhᵀJ_lᵀHJ_lδh over its sum, exact by forward mode",
    ),
    ActionQuantity(
        "depth.prediction_step",
        "Length of the step from one read-out to the next.",
        LENGTH,
        "d, closed form",
        LENS,
    ),
    ActionQuantity(
        "depth.left_to_say", "Divergence from a layer's read-out.", "nats", "KL(final ‖ read-out), per prediction", LENS
    ),
    ActionQuantity(
        "depth.readout_loss", "Loss of a layer's read-out.", "nats", "loss of the read-out, per prediction", LENS
    ),
    ActionQuantity(
        "depth.hamiltonian", "Hamiltonian of a layer.", "nats per layer", "E⟨p, Δh⟩ − (λ/2)‖θ‖²", PONTRYAGIN
    ),
)
QUANTITIES: Mapping[str, ActionQuantity] = {q.name: q for q in (*TRAINING, *DEPTH, *LAYERS)}
