"""What a measure costs, as a function of what is known before anything runs.

Each measure, and each value that several measures share, declares its cost as :class:`Stage` values computed from
:class:`Facts`; the plan of an audit adds them up.
"""

from __future__ import annotations

from dataclasses import dataclass

from memspace.passes.batching import LEAST, MOST, TRANSIENT
from memspace.passes.engine import END, MANY, OUTPUTS
from memspace.passes.generic import MAPPED_ONCE

__all__ = ["EIGH", "Facts", "Stage"]

EIGH = 11  # operations of a symmetric eigendecomposition over the cube of its side, as fast as products


@dataclass(frozen=True)
class Stage:
    """One step of an audit.

    A forward is an example going through the network once (a stack of tangents or weights goes through as one), a
    backward one cotangent of an example pulled back. What a layer pulls back inside itself (recurrent, attention), and
    a backward taken block by block, are parts of one.

    Args:
        examples: how many the step reads; forwards, backwards: per example.
        memory: bytes; why: what it is for.
        most: forwards and backwards at most, where they depend on the data; None: they do not.
        work: float64 operations beside the passes (products and decompositions of matrices).
        seconds: of one core, roughly, for what is neither (forests, tests of scores).
    """

    name: str
    examples: int
    forwards: float
    backwards: float
    memory: int
    why: str
    most: tuple[float, float] | None = None
    work: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Facts:
    """What costs depend on.

    Args:
        n, test: training and test examples (0: no test data).
        outputs, positions: of an example; columns: cotangents pulled where unit outputs are asked for.
        samples: labels sampled per example; parameters: P; blocks: layers that rounding moves one by one.
        dual: whether the exact dual is read; first_order: whether leave-one-out is of first order.
        classifies: whether predictions are decisions; boundary: whether it is known where they change.
        inputs: whether the metric can be pulled back to inputs.
        picture: whether inputs are pictures; filters: whether there are convolutions to filter.
        signals: whether Fisher products come from signals read once (``held``), read for every stack (``read``), or
            not from signals (empty); vectors: of a stack that go at a time, where they do not.
        manner: of the generic way for parameters off the fast path, None where there are none; fast: whether there are
            others.
        widest: numbers in the largest tensor of an example's graph, by which batches are made.
        depth: blocks of the chain that depth is measured along, 0 where there is none.
        affine: whether the outputs are affine in the parameters.
        forest: numbers in an input that forests are fitted on, 0 where none is; forests: one an output at most.
        factors, rendered: generating factors that vary, and those whose directions are followed; described: inputs.
        rotation: multiplications that bring an example's gradient of one cotangent into EKFAC's bases;
            decompositions: sum of the cubes of the sides that these bases are found for.
        principal: Fisher rows of the dual that are decomposed; floats: numbers that one of its rows is made of.
        folds, held_out: refits, and examples left out of each; checkpoints: of the recorded training.
        checked: examples that the checks and the proof of the layout read; check: their forwards and backwards, each.
        signals_memory, bases_memory, dual_memory: bytes.
    """

    n: int
    test: int
    outputs: int
    positions: int
    columns: int
    samples: int
    parameters: int
    blocks: int
    dual: bool
    first_order: bool
    classifies: bool
    boundary: bool
    inputs: bool
    picture: bool
    filters: bool
    signals: str
    vectors: int
    manner: int | None
    fast: bool
    widest: int
    depth: int
    affine: bool
    forest: int
    forests: int
    factors: int
    rendered: int
    described: int
    rotation: float
    decompositions: float
    principal: int
    floats: int
    folds: int
    held_out: int
    checkpoints: int
    checked: int
    check: tuple[int, int]
    signals_memory: int
    bases_memory: int
    dual_memory: int

    @property
    def judged(self) -> int:
        """Examples of the test data, or of the training data where there are none."""
        return self.test or self.n

    def batch(self, cotangents: int) -> int:
        """Examples at a time of a pass with so many cotangents an example."""
        rows = 1 if cotangents == 1 else OUTPUTS
        return max(LEAST, min(MOST, TRANSIENT // (self.widest * rows)))

    def proofs(self, examples: int, cotangents: int) -> float:
        """Backwards per example by which a pass proves itself: its ends, or all where they go in one batch."""
        if examples >= MANY:
            return 2 * min(END, self.batch(cotangents)) / examples
        return min(1.0, 2 * self.batch(cotangents) / max(examples, 1))

    def read(self, cotangents: int, proven: float = 0.0) -> tuple[float, float]:
        """Forwards and backwards per example of a pass that pulls so many cotangents back, with its proofs."""
        if self.manner is None:
            return 1, cotangents + proven
        again = cotangents if self.manner == MAPPED_ONCE else 1
        return 1 + again, cotangents * (1 + self.fast) + proven

    def product(self, examples: int, probes: int, products: int, *, proven: bool) -> tuple[float, float]:
        """Forwards and backwards per example of so many Fisher products in a row, of stacks of ``probes`` vectors.

        Args:
            proven: whether the signals of these examples were read before, and have proven themselves.
        """
        if self.signals:
            times = 1 if self.signals == "held" else products
            return times, times * self.outputs + (not proven)
        stacks = -(-probes // self.vectors)
        return 2 * products * stacks, products * stacks
