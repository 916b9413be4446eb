"""The numbers of an explained prediction, with unit, estimator and what speaks against them."""

from __future__ import annotations

from memspace.measurement import Measurement, stated
from memspace.reading.contributions import INTEGRATED, InputContributions
from memspace.reading.outcome import ExplainedOutcome
from memspace.reading.pushes import OUTSIDE, Pushes, PushParts
from memspace.value import Value

__all__ = ["input_numbers", "layer_numbers", "mode_numbers", "prediction_numbers", "push_numbers"]

LACKS = 0.01  # of the difference, from which on the sum of contributions is not relied on


def prediction_numbers(outcome: ExplainedOutcome, pushes: Pushes) -> tuple[Measurement, ...]:
    """State the outcome, its probability and its standard deviation.

    Args:
        outcome: explained.
        pushes: which its variance comes with.

    Returns:
        the measurements.
    """
    unit, n = outcome.target.unit, len(pushes.scores)
    made = [stated("explain.outcome", Value(outcome.value, 1), unit, f"{outcome.target.name}, of this network")]
    if outcome.probabilities is not None and outcome.answer is not None and outcome.against is not None:
        for name, answer in (("probability", outcome.answer), ("other", outcome.against)):
            p = Value(float(outcome.probabilities[answer]), 1)
            made.append(stated(f"explain.{name}", p, "1", f"probability of answer {answer}, of this network"))
    deviation = Value(pushes.deviation, n, None, reliable=pushes.reliable, note=pushes.note)
    how = (
        f"√(∇qᵀ(N(F + γI))⁻¹∇q), γ = {pushes.damping:.3g}: what the training data leave open, Laplace; {pushes.engine}"
    )
    return (*made, stated("explain.deviation", deviation, unit, how, "mackay1992"))


def push_numbers(outcome: ExplainedOutcome, pushes: Pushes, top: int) -> tuple[Measurement, ...]:
    """State what the training examples add, and how many carry it.

    Args:
        outcome: explained.
        pushes: of the training examples.
        top: examples shown at either end.

    Returns:
        the measurements.
    """
    unit, n = outcome.target.unit, len(pushes.scores)
    how = f"∇qᵀ(N(F + γI))⁻¹(−∇ℓ), γ = {pushes.damping:.3g}; {pushes.engine}"

    def made(name: str, value: float, unit: str, what: str) -> Measurement:
        number = Value(value, n, None, reliable=pushes.reliable, note=pushes.note)
        return stated(f"explain.{name}", number, unit, f"{what}; {how}", "koh2017")

    up, down = pushes.strongest(top)
    shown = float(pushes.scores[up].abs().sum() + pushes.scores[down].abs().sum())
    numbers = [
        made("support", pushes.support, unit, "sum of the positive pushes"),
        made("opposition", pushes.opposition, unit, "sum of the negative pushes"),
        made("sum", pushes.support + pushes.opposition, unit, "sum of all pushes"),
    ]
    if pushes.total > 0:
        numbers += [
            made("shown", shown / pushes.total, "1", "share of Σ|push| of the examples shown"),
            made("examples", pushes.examples, "1", "(Σ|push|)²/Σ push²: equal pushes that would be as concentrated"),
        ]
    return tuple(numbers)


def mode_numbers(pushes: Pushes) -> tuple[Measurement, ...]:
    """State the share of every group of modes in the total push.

    Args:
        pushes: of the training examples.

    Returns:
        the measurements; none where the modes are absent.
    """
    if not isinstance(pushes.modes, PushParts) or pushes.read is None or pushes.total == 0:
        return ()
    plan = pushes.read.plan
    notes = [pushes.note] if not pushes.reliable else []
    if not plan.whole:
        notes.append(f"eigenvectors of {plan.words}, not of all")
    shares = pushes.modes.shares(pushes.scores)
    how = f"share of Σ|push| along eigenvectors of F; Gram matrix of Fisher rows of {plan.words}"

    def made(name: str, share: float, what: str) -> Measurement:
        return stated(name, Value(share, plan.n, None, reliable=not notes, note="; ".join(notes)), "1", what)

    numbers = [made("explain.modes.read", float(shares[:-1].sum()), how)]
    for name, share in zip(pushes.modes.names, shares.tolist(), strict=True):
        numbers.append(made(f"explain.modes.{name}", share, how if name != OUTSIDE else f"{how}; what is outside"))
    return tuple(numbers)


def layer_numbers(pushes: Pushes) -> tuple[Measurement, ...]:
    """State the share of the layer that carries most of the total push.

    Args:
        pushes: of the training examples.

    Returns:
        the measurement; none where the layers are absent.
    """
    if not isinstance(pushes.layers, PushParts) or pushes.total == 0:
        return ()
    shares = pushes.layers.shares(pushes.scores)
    k = int(shares.argmax())
    value = Value(float(shares[k]), len(pushes.scores), None, reliable=pushes.reliable, note=pushes.note)
    how = f"share of Σ|push| in the block {pushes.layers.names[k]}, of {len(shares)} blocks; {pushes.engine}"
    return (stated("explain.layers.largest", value, "1", how),)


def input_numbers(outcome: ExplainedOutcome, inputs: InputContributions) -> tuple[Measurement, ...]:
    """State the difference to the baseline, the sum of the contributions and what it lacks.

    Args:
        outcome: explained.
        inputs: what the entries add.

    Returns:
        the measurements.
    """
    unit, difference = outcome.target.unit, inputs.at - inputs.at_baseline
    integrated = inputs.method == INTEGRATED
    lacks = abs(inputs.missing) > LACKS * max(abs(difference), inputs.largest)
    note = ""
    if lacks and integrated:
        note = f"the sum lacks {inputs.missing:.2g} of the difference at {inputs.points} points"
    elif lacks:
        note = "entries replaced one at a time interact, so that their sum is not the difference"
    how = f"{inputs.points} points, Gauss–Legendre" if integrated else f"{inputs.points} entries, one at a time"
    source = "sundararajan2017" if integrated else ""

    def made(name: str, value: float, what: str, doubted: bool) -> Measurement:
        number = Value(value, 1, None, reliable=not (doubted and note), note=note if doubted else "")
        return stated(f"explain.inputs.{name}", number, unit, what, source)

    numbers = [
        made("difference", difference, f"outcome of the input less that of the baseline, {inputs.baseline}", False),
        made("sum", inputs.sum, f"sum of the contributions, {inputs.method}; {how}", True),
        made("missing", inputs.missing, "difference less sum: the error of completeness", False),
    ]
    if integrated:
        numbers.append(
            made("change", inputs.change, "largest difference of a contribution with half of the points", False)
        )
    return tuple(numbers)
