"""What a stage of an audit costs, as a function of what is known before anything runs.

Each stage states its cost next to the code that runs it, by a function of :class:`Facts`; ``plan`` collects them.
"""

from __future__ import annotations

from dataclasses import dataclass

from memspace.passes.engine import END, MANY

__all__ = ["Facts", "Stage", "proofs"]


@dataclass(frozen=True)
class Stage:
    """One step: ``forwards`` and ``backwards`` per example, over ``examples``; ``memory`` in bytes; ``why``.

    A forward is an example going through the network once (a stack of tangents or weights goes through as one), a
    backward one cotangent of an example pulled back.
    """

    name: str
    examples: int
    forwards: float
    backwards: float
    memory: int
    why: str


def proofs(examples: int) -> float:
    """Backwards per example by which a pass over so many proves itself: its ends, or all where they go in one batch."""
    return 1.0 if examples < MANY else 2 * END / examples


@dataclass(frozen=True)
class Facts:
    """What costs depend on.

    Args:
        n, test: training and test examples (0: no test data).
        outputs, positions: of an example; columns: cotangents pulled where unit outputs are asked for.
        samples: labels sampled per example; parameters: P; blocks: layers that rounding moves one by one.
        dual: whether the exact dual is read; first_order: whether leave-one-out is of first order.
        classifies: whether predictions are decisions; inputs: whether the metric can be pulled back to inputs.
        picture: whether inputs are pictures; filters: whether there are convolutions to filter.
        signals: whether Fisher products come from signals read once; vectors: at a time, where they do not.
        folds, held_out: refits, and examples left out of each; checkpoints: of the recorded training.
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
    inputs: bool
    picture: bool
    filters: bool
    signals: bool
    vectors: int
    folds: int
    held_out: int
    checkpoints: int
    signals_memory: int
    bases_memory: int
    dual_memory: int

    @property
    def judged(self) -> int:
        """Examples of the test data, or of the training data where there are none."""
        return self.test or self.n

    def product(self, examples: int, probes: int, products: int) -> tuple[float, float]:
        """Forwards and backwards per example of so many Fisher products in a row, of stacks of ``probes`` vectors."""
        if self.signals:
            return 1, self.outputs
        stacks = -(-probes // self.vectors)
        return 2 * products * stacks, products * stacks
