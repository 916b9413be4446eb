"""Influence of every training example on every query's outcome, by the metric at one network's weights."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from memspace.arguments import typed
from memspace.attribution.engines import Solved
from memspace.attribution.prepared import Prepared, Ways, judged, prepared, score_pass
from memspace.attribution.question import Asked, Queries, ask, queries_of
from memspace.attribution.result import Influence, Parts
from memspace.errors import TaskError
from memspace.task.task import Task

__all__ = ["influence"]


@typed
def influence(
    task: Task,
    queries: Queries = None,
    *,
    split: str | None = None,
    tokens: str | None = None,
    **ways: Unpack[Ways],
) -> Influence:
    """Estimate, to first order, what each training example's presence adds to each query's outcome.

    score[q, i] = ∇qᵀ M⁻¹ (−∇ℓ_i), M = N(F + γI): positive where example i supports the outcome. For sequences ℓ_i and
    q are summed over positions. Koh & Liang 2017; Grosse et al. 2023 (EKFAC); Wang et al. 2025 (ASTRA).

    Args:
        task: the network and its data.
        queries: positions in the test data (the training data where there are none), a ``Data`` of other examples, or
            None for all of them.
        split: ``layers`` or ``modes``: also the parts, (Q, N, L); they sum to the scores.
        tokens: for sequences, ``queries``: each position of a query is an outcome of its own; ``training``: also the
            scores by position of the training examples, (Q, N, T).
        **ways: ``engine``: ``ekfac``, ``dual``, ``iterative`` or ``auto`` (see ``memspace.attribution.engines``).
            ``target``, the outcome: ``loss`` (−loss), ``margin``, ``logit:A-B``, ``logp:K``, a function (f, y) -> one
            number per query, or a ``Target``. ``damping``: γ; None: chosen, see ``memspace.attribution.damping``.
            ``settings``: budget and accuracy. ``progress``: told what is being done.

    Returns:
        scores (Q, N) in the outcome's unit, held in memory; ``memspace.attribution.stream`` writes them to a file.

    Raises:
        TaskError: an unknown split, or unknown tokens.
        MemspaceError: bad input, in one sentence.
    """
    start = time.perf_counter()
    if split not in (None, "layers", "modes"):
        raise TaskError(f"there is no split {split!r}", where="split", remedy="use layers or modes")
    if tokens not in (None, "queries", "training"):
        raise TaskError(f"there are no tokens {tokens!r}", where="tokens", remedy="use queries or training")
    data, index = queries_of(task, queries)
    ready = prepared(task, data=data, queries=index, **ways)
    apart, memory = tokens == "queries", ready.settings.memory
    asked = ask(task, ready.space, ready.target, data, index, apart=apart, memory=memory, progress=ready.progress)
    starts = range(0, len(asked.outcome), ready.at_once)
    blocks = [_answer(ready, asked, slice(k, k + ready.at_once), split, tokens) for k in starts]
    return _joined(ready, asked, blocks, split, start)


def _joined(ready: Prepared, asked: Asked, blocks: list[_Block], split: str | None, start: float) -> Influence:
    """The answers to all queries as one result; ``start``: when work began."""
    parts = [b.parts for b in blocks if b.parts is not None]
    by_token = [b.tokens for b in blocks if b.tokens is not None]
    reliable, note, diagnostics = judged(ready, asked, [b.solved for b in blocks])
    return Influence(
        scores=torch.cat([b.scores for b in blocks]),
        engine=ready.engine.name,
        target=ready.target.name,
        unit=ready.target.unit,
        queries=asked.queries,
        outcome=asked.outcome,
        damping=ready.damping.value,
        damping_rule=ready.damping.statement,
        positions=asked.positions,
        reliable=reliable,
        note=note,
        diagnostics=diagnostics,
        parts=None if split is None else Parts(split, blocks[0].names, torch.cat(parts)),
        tokens=torch.cat(by_token) if by_token else None,
        seconds=time.perf_counter() - start,
    )


@dataclass(frozen=True)
class _Block:
    """The answers to some of the queries."""

    scores: Tensor
    solved: Solved
    names: tuple[str, ...]
    parts: Tensor | None
    tokens: Tensor | None


def _answer(ready: Prepared, asked: Asked, rows: slice, split: str | None, tokens: str | None) -> _Block:
    b = asked.gradients[rows]
    solved = ready.engine.solve(b, ready.damping.value)
    scored = _scored(ready, solved.x, layers=split == "layers", tokens=tokens == "training")
    names: tuple[str, ...] = ()
    parts = None
    if split == "layers":
        names, parts = tuple(ready.space.labels), scored["parts"].transpose(0, 1)
    if split == "modes":
        names, x = ready.engine.modes(b, ready.damping.value, ready.settings.modes)
        by_mode = _scored(ready, x.flatten(0, 1))["scores"]
        parts = by_mode.reshape(len(by_mode), len(names), len(b)).permute(2, 0, 1)
    by_token = scored["tokens"].permute(2, 0, 1) if tokens == "training" else None
    return _Block(scored["scores"].t().contiguous(), solved, names, parts, by_token)


def _scored(ready: Prepared, x: Tensor, *, layers: bool = False, tokens: bool = False) -> dict[str, Tensor]:
    batch, progress = ready.settings.batch, ready.progress
    return score_pass(ready.task, ready.space, x, layers=layers, tokens=tokens, batch=batch, progress=progress)
