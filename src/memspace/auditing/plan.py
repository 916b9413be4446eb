"""The plan of an audit: which representation, which passes over the data, and what they cost, before anything runs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from memspace.auditing.facts import Shapes, factor_facts, model_facts, shapes_of, signal_products, squares
from memspace.auditing.settings import AuditSettings
from memspace.errors import MemoryBudgetError
from memspace.measures.cost import Facts, Stage
from memspace.measures.filters import filtered_layers
from memspace.measures.input_metric import unreadable
from memspace.passes.batching import examples_at_once
from memspace.passes.kinds import Kind
from memspace.passes.linearise import FisherOperator
from memspace.passes.space import ParameterSpace
from memspace.task.selection import as_patterns
from memspace.task.task import Task
from memspace.training.refit import refit_of

__all__ = ["AuditSettings", "Plan", "make_plan"]

DUAL_ROWS = 16_000  # Jacobian rows (examples × outputs) up to which the exact dual is the cheaper backend
MANY_OUTPUTS = 2_000  # positions × outputs up to which one cotangent each is affordable
SAMPLED = 4_000  # labels sampled over all examples where outputs are many: tr F to about 2 to 3%
MOST_SAMPLES = 8  # per example: each costs a backward pass
PROBES = 4  # vectors that exact products take at a time
LEAST_ROWS = 1_000  # below so many Fisher rows a draw of them is no longer near the metric
COVERED = 5_000  # examples up to which refits leave each of them out once
PRODUCTS = 1_000  # examples that Fisher products are taken on
PRINCIPAL_ROWS = 3_500  # Fisher rows whose Gram matrix is eigendecomposed: about ten seconds on two cores


@dataclass(frozen=True)
class Plan:
    """The stages in order, with the facts they were planned from.

    Args:
        representation: ``dual`` or ``ekfac``.
        reason: of the choice, for people.
        n: training examples.
        outputs: numbers in the output of a position.
        positions: of an example.
        parameters: audited ones.
        total: all of the model's, with the frozen and unselected ones.
        patterns: by which they were selected, if any.
        batch: examples at a time.
        kind: which cotangents the metric is made of (see ``memspace.passes.kinds``).
        folds: refits.
        held_out: examples left out of each refit.
        loose: blocks for which the model is differentiated example by example.
        stages: in order.
        principal_rows: greatest number of Fisher rows in the Gram matrix of the dual.
        on_disk: bytes of Kronecker factors and bases in memory-mapped files (0: in memory).
        facts: what the costs were computed from.
    """

    representation: str
    reason: str
    n: int
    outputs: int
    positions: int
    parameters: int
    total: int
    patterns: tuple[str, ...]
    batch: int
    kind: str
    folds: int
    held_out: int
    loose: tuple[str, ...]
    stages: tuple[Stage, ...]
    principal_rows: int = PRINCIPAL_ROWS
    on_disk: int = 0
    facts: Facts | None = None

    @property
    def samples(self) -> int:
        """Labels sampled per example (1 where the metric is exact, too)."""
        return Kind.of(self.kind).samples

    @property
    def first_order(self) -> bool:
        """Whether leave-one-out is of first order: the matrices between an example's outputs are too large."""
        return self.representation != "dual" and (self.positions > 1 or self.outputs > MANY_OUTPUTS)

    @property
    def passes(self) -> float:
        """Cost in passes over the training data, of one forward and one backward each."""
        return sum(s.examples * (s.forwards + s.backwards) / 2 for s in self.stages) / self.n

    @property
    def most(self) -> float:
        """As :attr:`passes`, with the greatest cost of what depends on the data."""
        return sum(s.examples * sum(s.most or (s.forwards, s.backwards)) / 2 for s in self.stages) / self.n

    @property
    def counted(self) -> str:
        """How many parameters are audited, and of how many."""
        return f"{self.parameters:,}" + (f" of {self.total:,}" if self.parameters < self.total else "")

    def text(self) -> str:
        """Describe the plan for people.

        Returns:
            several lines.
        """
        lines = [
            f"{self.n:,} examples, {self.outputs} outputs"
            + (f" at {self.positions} positions" if self.positions > 1 else "")
            + f", {self.counted} parameters; batches of {self.batch}",
            f"representation: {self.representation} ({self.reason})",
        ]
        if self.patterns:
            lines.append(f"parameters chosen by {', '.join(self.patterns)}; the others stay fixed")
        if self.samples > 1:
            lines.append(
                f"metric: {self.samples} sampled labels per example, which give the trace an error (the exact root: "
                f"{self.positions * self.outputs:,} backward passes each)"
            )
        if self.loose:
            lines.append(f"differentiated example by example, which is slower: {', '.join(self.loose)}")
        rows = self.n * self.outputs
        if self.representation == "dual" and rows > self.principal_rows:
            lines.append(
                f"sketch: {self.principal_rows:,} of {rows:,} Fisher rows: the largest, and a draw of the others"
            )
        if self.on_disk:
            lines.append(f"on disk: {size(self.on_disk)} of Kronecker factors and bases, in memory-mapped files")
        lines.append(f"{'stage':<22}{'examples':>10}{'fwd':>7}{'bwd':>7}{'memory':>11}  purpose")
        for s in self.stages:
            why = s.why if s.most is None else f"{s.why}; at most {s.most[0]:g} and {s.most[1]:g}, by the data"
            passes = f"{s.forwards:>7.4g}{s.backwards:>7.3g}"
            lines.append(f"{s.name:<22}{s.examples:>10,}{passes}{s.memory / 2**20:>7,.0f} MiB  {why}")
        most = f", at most {self.most:.0f}" if round(self.most) > round(self.passes) else ""
        lines.append(f"together about {self.passes:.0f} passes over the training data{most}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain types, without its facts.

        Returns:
            field → value, and the passes.
        """
        return asdict(replace(self, facts=None)) | {"passes": self.passes, "most_passes": self.most}


def size(count: int) -> str:
    """Format a number of bytes, rounded up so that asking for the stated amount suffices.

    Args:
        count: bytes.

    Returns:
        for example ``1.5GiB``.
    """
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if count >= unit:
            return f"{math.ceil(10 * count / unit) / 10:g}{name}"
    return f"{math.ceil(count / 1024)}KiB"


def make_plan(task: Task, space: ParameterSpace, settings: AuditSettings) -> Plan:
    """Choose representation, batch and stages from the shapes of one small batch and the memory budget.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        settings: of the audit.

    Returns:
        the plan.

    Raises:
        MemoryBudgetError: even the smallest batch does not fit.
    """
    shapes = shapes_of(task, space)
    choice = _chosen(task, space, settings, shapes)
    facts = _facts(task, space, shapes, choice)
    bases = facts.bases_memory
    kind = "exact" if facts.dual else str(Kind("mc", facts.samples))
    return Plan(
        choice.representation,
        choice.reason,
        facts.n,
        facts.outputs,
        facts.positions,
        space.size,
        sum(p.numel() for p in task.model.parameters()),
        as_patterns(task.parameters),
        choice.batch,
        kind,
        facts.folds,
        facts.held_out,
        tuple(b.name for b in space.blocks if not b.rule.hooked),
        stages_of(facts),
        choice.sketch,
        0 if facts.dual or bases <= settings.memory // 2 else bases,
        facts,
    )


@dataclass(frozen=True)
class _Choice:
    """What is decided from shapes and settings.

    Args:
        representation: ``dual`` or ``ekfac``; reason: why.
        many: whether an example's outputs are too many for a cotangent each.
        columns: cotangents of an example where each output has one.
        batch: examples at a time; example: bytes of one example's signals.
        dual: bytes of rows and Gram matrix; sketch: Fisher rows that the Gram matrix holds at most.
        folds: networks trained without some examples; held_out: examples each goes without.
    """

    representation: str
    reason: str
    many: bool
    columns: int
    batch: int
    example: int
    dual: int
    sketch: int
    folds: int
    held_out: int


def _chosen(task: Task, space: ParameterSpace, settings: AuditSettings, shapes: Shapes) -> _Choice:
    n, outputs, positions = len(task.train), shapes.outputs, shapes.positions
    rows = n * outputs
    stored = 4 * n * shapes.held(space.blocks)
    sketch = _sketch(rows, settings.memory - stored)
    dual = stored + 16 * rows * sketch
    representation, reason = _choose(settings, outputs, positions, rows, dual, sketch)
    many = positions * outputs > MANY_OUTPUTS
    columns = outputs if representation == "dual" or (positions == 1 and not many) else 1
    example = 4 * sum(a + 3 * columns * g for a, g in shapes.sizes.values()) + 4 * shapes.signal
    batch = int(min(examples_at_once(task), n, settings.memory // 2 // max(example, 1)))
    if batch < 1:
        raise MemoryBudgetError(
            f"one example's signals need {size(example)}, more than half of the memory allowed",
            where="memory budget",
            remedy=f"raise --memory to {size(4 * example)} or more",
        )
    held_out, folds = _held_out(task, n, settings)
    return _Choice(representation, reason, many, columns, batch, example, dual, sketch, folds, held_out)


def _facts(task: Task, space: ParameterSpace, shapes: Shapes, choice: _Choice) -> Facts:
    n, rows, dual = len(task.train), len(task.train) * shapes.outputs, choice.representation == "dual"
    return Facts(
        n=n,
        test=0 if task.test is None else len(task.test),
        outputs=shapes.outputs,
        positions=shapes.positions,
        columns=choice.columns,
        samples=min(MOST_SAMPLES, max(2, -(-SAMPLED // n))) if choice.many else 1,
        parameters=space.size,
        blocks=sum(len(p.shape) > 1 for p in space.parameters(task.model).values()),
        dual=dual,
        first_order=not dual and (shapes.positions > 1 or choice.many),
        classifies=task.likelihood.classifies,
        boundary=task.likelihood.boundary is not None,
        inputs=unreadable(task) is None,
        filters=any(b.rule.filters for b in filtered_layers(space)),
        signals=signal_products(space, shapes, min(n, PRODUCTS), PROBES),
        vectors=FisherOperator(task, space).at_once(PROBES),
        folds=choice.folds,
        held_out=choice.held_out,
        checkpoints=0 if task.run is None else len(task.run.states),
        signals_memory=choice.batch * choice.example,
        bases_memory=2 * squares(space),
        dual_memory=choice.dual,
        principal=min(rows, choice.sketch) if dual else 0,
        **model_facts(task, space, shapes, dual=dual),
        **factor_facts(task),
    )


def _sketch(rows: int, memory: int) -> int:
    """Principal rows that the Gram matrix and the products with it leave room for."""
    most = min(rows, PRINCIPAL_ROWS)
    return most if 16 * rows * most <= memory else max(min(most, LEAST_ROWS), memory // (16 * rows))


def _choose(
    settings: AuditSettings, outputs: int, positions: int, rows: int, need: int, sketch: int
) -> tuple[str, str]:
    fits = need <= settings.memory
    if settings.representation == "dual":
        if positions > 1:
            raise MemoryBudgetError(
                "the exact dual of a sequence model needs every position's rows",
                where="representation dual",
                remedy="use the representation ekfac",
            )
        if not fits:
            raise MemoryBudgetError(
                f"the dual of {rows:,} rows needs {size(need)}",
                where=f"memory budget {size(settings.memory)}",
                remedy=f"raise --memory to {size(need)} or use the representation ekfac",
            )
        return "dual", "asked for"
    if settings.representation == "ekfac":
        return "ekfac", "asked for"
    if positions == 1 and outputs <= MANY_OUTPUTS and rows <= DUAL_ROWS and fits:
        rows_kept = f"of {rows:,} Fisher rows the largest and a draw of the others" if rows > sketch else "exact"
        return "dual", f"{rows_kept}: {rows:,} Jacobian rows fit"
    if positions > 1:
        return "ekfac", "a sequence model"
    if outputs > MANY_OUTPUTS:
        return "ekfac", f"{outputs:,} outputs are too many for one cotangent each"
    return "ekfac", f"{rows:,} Jacobian rows are too many for the exact dual"


def _held_out(task: Task, n: int, settings: AuditSettings) -> tuple[int, int]:
    """Held-out examples per fold and folds.

    Up to COVERED examples five folds leave every example out once: labels are judged by networks that did not see
    them. Beyond, about a thousand examples bring the error of a mean loss near 10%.
    """
    if refit_of(task) is None or n < 2:
        return 0, 0
    parts = min(5, n)
    share = 0.2 if n <= 10_000 else 0.1
    per_fold = -(-n // parts) if n <= COVERED else max(1, round(share * n))
    folds = parts if n <= COVERED else min(5, max(1, -(-1000 // per_fold)))
    return per_fold, folds if settings.refits is None else min(folds, settings.refits)


def stages_of(facts: Facts) -> tuple[Stage, ...]:
    """List every stage that will run, with the cost that its code states.

    Args:
        facts: what the plan knows.

    Returns:
        the stages in order.
    """
    from memspace.auditing import ekfac_backend, exact_backend  # these import plans
    from memspace.auditing.chapter import stages_of_chapters

    stages = [Stage("checks", facts.checked, *facts.check, 0, "layouts verified, outputs repeatable")]
    if facts.folds:
        trained = facts.folds * (facts.n - facts.held_out)
        what = f"{facts.folds} trainings to calibrate the damping; their passes are the recipe's"
        stages.append(Stage("held-out refits", trained, 0, 0, 0, what))
    stages += (exact_backend if facts.dual else ekfac_backend).costs(facts)
    if facts.test:
        stages.append(Stage("test outputs", facts.test, 1, 0, 0, "test loss and accuracy"))
    return (*stages, *stages_of_chapters(facts))
