"""What is told while a training runs."""

from __future__ import annotations

from dataclasses import dataclass, fields

from memspace.gap.model import GapPrediction

__all__ = ["Numbers"]


@dataclass(frozen=True)
class Numbers:
    """Live numbers at one probe evaluation; what could not be computed within the budget is None, never zero.

    Args:
        step: optimiser step.
        time: learning-rate time Σ lr (None: rates unknown).
        seconds: of training.
        loss: training loss on the probe, nats per example.
        length: Fisher–Rao length of the path of predictions, by a ruler of fixed size, nats^½.
        constant_speed: ½ length², nats: the least action over all clocks of unit duration.
        action: ½ Σ d²/Δt in learning-rate time, nats per unit of it.
        excess: ∫ speed · slope less the loss bought, since the slope was first taken, nats, on a few examples.
        effective_dimension: tr F(F + γ)⁻¹, γ of greatest evidence, F by KFAC on the probe.
        leave_one_out_gap: leave-one-out loss less training loss, nats per example, by the same F and γ.
        expected: what a calibration last told of the gap at the end of the training.
    """

    step: int
    time: float | None
    seconds: float
    loss: float
    length: float
    constant_speed: float
    action: float | None = None
    excess: float | None = None
    effective_dimension: float | None = None
    leave_one_out_gap: float | None = None
    expected: GapPrediction | None = None

    def known(self) -> dict[str, float]:
        """List what was measured, without the step.

        Returns:
            Values by name; of the gap to expect with the ends of its interval, where it can be relied on.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("step", "expected")}
        if self.expected is not None and self.expected.reliable:
            low, high = self.expected.gap_interval
            values |= {"expected_gap": self.expected.gap, "expected_gap_low": low, "expected_gap_high": high}
        return {k: float(v) for k, v in values.items() if v is not None}
