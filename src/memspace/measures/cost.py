"""What a measure costs, as a function of what is known before anything runs.

Each measure, and each value that several measures share, declares its cost as :class:`Stage` values computed from
:class:`Facts`; the plan of an audit adds them up.
"""

from __future__ import annotations

from dataclasses import dataclass

from memspace.passes.batching import LEAST, MOST, TRANSIENT
from memspace.passes.engine import END, MANY, OUTPUTS
from memspace.passes.example_by_example import MAPPED_ONCE

__all__ = ["EIGH", "Facts", "Stage"]

EIGH = 11  # operations of a symmetric eigendecomposition over the cube of its side, as fast as products


@dataclass(frozen=True)
class Stage:
    """One step of an audit.

    A forward is an example that passes through the network once (a stack of tangents or weights counts as one); a
    backward is one cotangent of an example pulled back. What a layer pulls back inside itself (recurrent, attention) is
    part of one, and so is a backward taken block by block.

    Args:
        name: for people.
        examples: how many the step reads.
        forwards: per example.
        backwards: per example.
        memory: bytes.
        why: purpose of the step.
        most: greatest forwards and backwards per example, where they depend on the data; None: they do not.
        work: float64 operations outside the passes (products and decompositions of matrices).
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
    """The quantities that costs depend on.

    Args:
        n: training examples.
        test: test examples; 0 without test data.
        outputs: numbers in the output of one position.
        positions: of an example.
        columns: cotangents pulled back per example where unit outputs are asked for.
        samples: labels sampled per example.
        parameters: P.
        blocks: layers that rounding moves one by one.
        dual: whether the exact dual is computed.
        first_order: whether leave-one-out is of first order.
        classifies: whether predictions are decisions.
        boundary: whether the law says where decisions change.
        inputs: whether the metric can be pulled back to inputs.
        picture: whether inputs are pictures.
        filters: whether there are convolutions to filter.
        signals: where Fisher products come from: ``held`` (signals stored once), ``read`` (signals computed for every
            stack), or empty (no signals).
        vectors: of a stack that are processed at a time without signals.
        manner: of differentiation example by example; None where all gradients have a closed form.
        fast: whether some gradients have a closed form.
        widest: numbers in the largest tensor of an example's graph; it sets the batch size.
        depth: blocks of the chain that depth is measured along; 0 where there is none.
        affine: whether the outputs are affine in the parameters.
        forest: numbers in an input that forests are fitted on; 0 where none is.
        forests: how many are fitted, one per output at most.
        factors: generating factors that vary.
        rendered: generating factors whose directions are followed.
        described: inputs whose factors are known.
        rotation: multiplications that rotate one example's gradient of one cotangent into EKFAC's bases.
        decompositions: sum of the cubes of the sides of these bases.
        principal: Fisher rows of the dual that are decomposed.
        floats: numbers in one of the dual's rows.
        folds: refits.
        held_out: examples left out of each refit.
        checkpoints: of the recorded training.
        checked: examples that the checks and the proof of the layout read.
        check: forwards and backwards of each checked example.
        signals_memory: bytes.
        bases_memory: bytes.
        dual_memory: bytes.
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
        """Return the batch size of a pass.

        Args:
            cotangents: pulled back per example.

        Returns:
            examples at a time.
        """
        rows = 1 if cotangents == 1 else OUTPUTS
        return max(LEAST, min(MOST, TRANSIENT // (self.widest * rows)))

    def proofs(self, examples: int, cotangents: int) -> float:
        """Count the backwards by which a pass proves itself: at its ends, or everywhere where it is one batch.

        Args:
            examples: of the pass.
            cotangents: pulled back per example.

        Returns:
            backwards per example.
        """
        if examples >= MANY:
            return 2 * min(END, self.batch(cotangents)) / examples
        return min(1.0, 2 * self.batch(cotangents) / max(examples, 1))

    def read(self, cotangents: int, proven: float = 0.0) -> tuple[float, float]:
        """Count the forwards and backwards of a pass, with its proofs.

        Args:
            cotangents: pulled back per example.
            proven: backwards per example of the proofs.

        Returns:
            forwards and backwards per example.
        """
        if self.manner is None:
            return 1, cotangents + proven
        again = cotangents if self.manner == MAPPED_ONCE else 1
        return 1 + again, cotangents * (1 + self.fast) + proven

    def product(self, examples: int, probes: int, products: int, *, proven: bool) -> tuple[float, float]:
        """Count the forwards and backwards of Fisher products in a row.

        Args:
            examples: of the metric.
            probes: vectors in each stack.
            products: in a row.
            proven: whether the signals of these examples were computed and proven before.

        Returns:
            forwards and backwards per example.
        """
        if self.signals:
            times = 1 if self.signals == "held" else products
            return times, times * self.outputs + (not proven)
        stacks = -(-probes // self.vectors)
        return 2 * products * stacks, products * stacks
