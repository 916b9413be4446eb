"""What every influence engine returns: scores in one sign and unit, how they came about, and how far to trust them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from memspace.display import Columns, Shown
from memspace.measurement import Measurement, Unmeasured

__all__ = ["SIGN", "Influence", "Parts", "Top"]

SHOWN = 10  # supporters and opposers of a query in its table
SIGN = "positive: the training example supports the outcome (outcome with it minus outcome without it)"


@dataclass(frozen=True)
class Parts:
    """The scores split into parts that sum to the whole.

    Args:
        by: ``layers`` or ``modes``.
        names: one per part.
        scores: (Q, N, L).
    """

    by: str
    names: tuple[str, ...]
    scores: Tensor


@dataclass(frozen=True)
class Top:
    """Per query the training examples of greatest and least score.

    Args:
        supporters: (Q, k) positions in the training data, strongest first.
        support: (Q, k) their scores.
        opposers: (Q, k) positions, strongest first.
        opposition: (Q, k) their scores.
    """

    supporters: Tensor
    support: Tensor
    opposers: Tensor
    opposition: Tensor


@dataclass(frozen=True, repr=False)
class Influence(Shown):
    """To first order, what each training example's presence adds to each query's outcome.

    score[q, i] ≈ outcome of query q with example i in the training data minus the outcome without it; see ``SIGN``.

    Args:
        scores: (Q, N).
        engine: which way they were computed.
        target: which outcome.
        unit: of the outcome.
        queries: (Q,) positions in the query data.
        outcome: (Q,) the outcomes of the network as it is (mean over networks for ensembles).
        damping: γ of (F + γI)⁻¹, or None where the engine has none.
        damping_rule: how it was chosen, one sentence.
        positions: (Q,) within the sequence, where each token is a query.
        reliable: False where the engine's own diagnostics, or the rule of the damping, say so.
        note: why it is not reliable.
        diagnostics: residuals, iterations, fidelity, cost: measured, or absent with the reason.
        parts: the split, where asked for.
        tokens: (Q, N, T) scores by training position, where asked for; they sum to the whole.
        seconds: of wall-clock.
        error: (Q, N) standard error of the scores over networks, where several were asked.

    Raises:
        ValueError: scores and queries do not fit.
    """

    scores: Tensor
    engine: str
    target: str
    unit: str
    queries: Tensor
    outcome: Tensor
    damping: float | None = None
    damping_rule: str = ""
    positions: Tensor | None = None
    reliable: bool = True
    note: str = ""
    diagnostics: tuple[Measurement | Unmeasured, ...] = ()
    parts: Parts | None = None
    tokens: Tensor | None = None
    seconds: float = 0.0
    error: Tensor | None = None

    def _title(self) -> str:
        queries, examples = self.scores.shape
        damping = "" if self.damping is None else f", γ = {self.damping:.3g}"
        doubt = "" if self.reliable else f"; not reliable: {self.note}"
        what = f"influence of {examples} training examples on the {self.target} ({self.unit}) of {queries} queries"
        return f"{what}, by {self.engine}{damping}{doubt}"

    def _quantities(self) -> tuple[Measurement | Unmeasured, ...]:
        return self.diagnostics

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"top": self._top_rows, "scores": self._score_rows}

    def _top_rows(self) -> Columns:
        """A row a query and rank: the strongest supporters and opposers."""
        top = self.top(SHOWN)
        ranks = top.supporters.shape[1]
        return {
            "query": self.queries.repeat_interleave(ranks).tolist(),
            "rank": list(range(1, ranks + 1)) * len(self.queries),
            "supporter": top.supporters.flatten().tolist(),
            "support": top.support.flatten().tolist(),
            "opposer": top.opposers.flatten().tolist(),
            "opposition": top.opposition.flatten().tolist(),
        }

    def _score_rows(self) -> Columns:
        """A row a query and training example."""
        queries, examples = self.scores.shape
        return {
            "query": self.queries.repeat_interleave(examples).tolist(),
            "example": list(range(examples)) * queries,
            "score": self.scores.flatten().tolist(),
        }

    def __post_init__(self) -> None:
        if self.scores.dim() != 2 or len(self.queries) != len(self.scores):
            raise ValueError(f"scores are (Q, N) for Q queries, got {tuple(self.scores.shape)}, {len(self.queries)}")

    def top(self, k: int) -> Top:
        """List the strongest supporters and opposers of every query.

        Args:
            k: how many of each, at most.

        Returns:
            positions and scores, (Q, k).
        """
        k = min(k, self.scores.shape[1])
        most, least = self.scores.topk(k, 1), self.scores.topk(k, 1, largest=False)
        return Top(most.indices, most.values, least.indices, least.values)

    def group(self, without: Tensor) -> Tensor:
        """Predict the change of each outcome when examples are left out, to first order additive.

        Args:
            without: (S, N) True where an example is left out.

        Returns:
            (S, Q), in the outcome's unit.
        """
        return -(without.to(self.scores) @ self.scores.t())

    def diagnostic(self, name: str) -> Measurement | Unmeasured:
        """Look a diagnostic up.

        Args:
            name: for example ``"influence.residual"``.

        Returns:
            the measurement, or why it is absent.

        Raises:
            KeyError: there is none of that name.
        """
        for d in self.diagnostics:
            if d.name == name:
                return d
        raise KeyError(name)
