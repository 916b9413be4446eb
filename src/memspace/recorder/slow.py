"""What needs gradients of single examples: the slope of the loss, the effective dimension, the leave-one-out gap.

The slope is exact on a few examples (dual). The other two hang on directions that a few examples do not span: on 32
digits an exact leave-one-out gap came out thirty times too high. They take KFAC factors of the whole probe, whose
averages over examples carry over to other examples, and the evidence's damping. Labels are not sampled for them: once
the training data are fitted, 256 draws hardly meet the classes that carry the curvature that is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from memspace.action.slope import affordable, probe_dual
from memspace.action.training import DAMPING
from memspace.errors import MemoryBudgetError, MemspaceError
from memspace.measures.damping import evidence_root
from memspace.measures.leave_one_out import loo_outputs
from memspace.metric.fisher import build
from memspace.metric.spectral import Kronecker
from memspace.passes.engine import run_pass
from memspace.passes.leverage import KroneckerLeverage
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space
from memspace.recorder.probe import WatchProbe, reading

__all__ = ["Fullness", "FullnessReader", "SlopeBudget", "SlopeReader", "slow_readers"]

ROWS = 320  # Jacobian rows of the slope: a reading costs their cube
MEMORY = 2**28  # bytes that a reading may take
LEAST = 8  # examples below which no slope is worth stating
EVALUATIONS = 8.0  # a guess at what a reading costs, in probe evaluations, before it is known
RESOLVED = 0.1  # of what was spent: how much leaving out every second reading may change
CUBE = 4e-10  # seconds per cube of a factor's size, for the same guess


def slow_readers(probe: WatchProbe) -> tuple[SlopeReader, FullnessReader] | None:
    """Make readers of the live model.

    Args:
        probe: the examples and the model.

    Returns:
        Readers of slope and fullness; None where gradients of single examples cannot be had.
    """
    try:
        with reading(probe.model), torch.enable_grad():
            space = verified_space(probe.task())
        return SlopeReader(probe, space), FullnessReader(probe, space)
    except (MemspaceError, RuntimeError, ValueError, IndexError):  # what a layer raises where it is differentiated
        return None


class SlopeReader:
    """Reads ‖∇L‖_{F⁻¹}, nats^½, exactly on the first ``count`` probe examples (0: one has too many rows).

    Args:
        probe: the examples and the model.
        space: the parameters.
    """

    def __init__(self, probe: WatchProbe, space: ParameterSpace) -> None:
        self._probe, self._space = probe, space
        with reading(probe.model), torch.enable_grad():
            fits, rows = affordable(probe.task(), space, torch.arange(1), MEMORY)
        count = min(fits, ROWS // rows, len(probe.batch))
        self.count = count if count >= min(LEAST, len(probe.batch)) else 0
        self.guess = EVALUATIONS * (1 + rows * self.count / max(1, len(probe.batch)))

    def read(self) -> float:
        """Read the slope at the weights as they are now.

        Returns:
            Nats^½.
        """
        with reading(self._probe.model), torch.enable_grad():
            dual = probe_dual(self._probe.task(), self._space, torch.arange(self.count))
            return dual.slope(DAMPING * max(dual.trace, 1e-300)).value


@dataclass(frozen=True)
class Fullness:
    """How full the network is.

    Args:
        dimension: tr F(F + γ)⁻¹.
        gap: leave-one-out less training loss, nats per example.
    """

    dimension: float
    gap: float


class FullnessReader:
    """Reads effective dimension and leave-one-out gap from KFAC factors of the probe; improbable classes are merged.

    The gap is one Newton step in the model without the example; of sequences it is the self-influence (first order).
    γ is that of greatest evidence given ‖θ‖ and the number of training examples.

    Args:
        probe: the examples and the model.
        space: the parameters.
    """

    def __init__(self, probe: WatchProbe, space: ParameterSpace) -> None:
        self._probe, self._space = probe, space
        sizes = [d for b in space.blocks if b.rule.kronecker for d in b.rule.sides(b)]
        self.possible = 24 * sum(d * d for d in sizes) + 8 * space.size <= MEMORY
        self.seconds = CUBE * sum(float(d) ** 3 for d in sizes)

    def read(self) -> Fullness | None:
        """Read both at the weights as they are now.

        Returns:
            The numbers; None where memory does not hold the factors.
        """
        probe, space = self._probe, self._space
        with reading(probe.model), torch.enable_grad():
            job = probe.task()
            try:
                metric = build(job, space, "kfac", kind="topk", memory=MEMORY)  # exact where the law merges nothing
            except MemoryBudgetError:
                self.possible = False
                return None
            assert isinstance(metric, Kronecker)
            squared = float(space.flat(job.model).double().square().sum())
            damping, _ = evidence_root(lambda g: metric.effective_dimension(g).value, squared, probe.of)
            inverse = {b.block.name: 1 / (probe.of * (b.values.unsqueeze(0) + damping)) for b in metric.blocks}
            bases = {b.block.name: b.bases for b in metric.blocks}
            f = probe.outputs().detach().double()
            plain = f.dim() == 2
            table = KroneckerLeverage(space.blocks, bases, inverse, "jacobian" if plain else "empirical")
            run_pass(job, space, [table])
            tables = table.finish()
        dimension = metric.effective_dimension(damping).value
        if not plain:
            return Fullness(dimension, float(tables["parts"][:, 0].double().sum(1).mean()))
        y, law = probe.labels(), job.likelihood
        moved = loo_outputs(law, f, y, tables["leverage"][:, 0], own=False)
        return Fullness(dimension, float((law.nll(moved, y) - law.nll(f, y)).mean()))


class SlopeBudget:
    """∫ speed · slope along the path, by trapezoids between the readings of the slope, less the loss bought.

    Args:
        slope: at the beginning, nats^½.
        loss: at the beginning, on the slope's examples, nats.
    """

    def __init__(self, slope: float, loss: float) -> None:
        self._length, self._slope, self._first = 0.0, slope, loss
        self._loss, self._readings = loss, 0
        self._skipped = (0.0, slope)  # the reading before the last, of those that a coarser rule keeps
        self._fine = self._coarse = 0.0

    def add(self, length: float, slope: float, loss: float) -> None:
        """Add a reading.

        Args:
            length: of the path so far, nats^½.
            slope: nats^½.
            loss: on the slope's examples, nats.
        """
        self._fine += (length - self._length) * (slope + self._slope) / 2
        self._length, self._slope, self._loss = length, slope, loss
        self._readings += 1
        if self._readings % 2 == 0:
            begun, first = self._skipped
            self._coarse += (length - begun) * (slope + first) / 2
            self._skipped = (length, slope)

    @property
    def excess(self) -> float | None:
        """Excess so far, nats; None where every second reading alone would change the cost by a tenth."""
        begun, first = self._skipped
        coarse = self._coarse + (self._length - begun) * (self._slope + first) / 2
        if self._readings < 4 or abs(self._fine - coarse) > RESOLVED * self._fine:
            return None
        return self._fine - (self._first - self._loss)
