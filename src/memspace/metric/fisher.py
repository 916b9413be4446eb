"""From statistics to metrics: the only place that starts passes to build one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor

from memspace.arguments import as_index, typed
from memspace.errors import MemoryBudgetError, SettingsError
from memspace.limits import BYTES, COUNT, DRAW, SHARE
from memspace.metric.block import BlockDiagonal, DenseBlock
from memspace.metric.dual import Dual, select_rows
from memspace.metric.implicit import Implicit
from memspace.metric.metric import Estimate, FisherMetric, Probe
from memspace.metric.nystroem import nystroem
from memspace.metric.spectral import Dense, Diagonal, Kronecker, KroneckerBlock
from memspace.passes.capture import Capture
from memspace.passes.collect import CollectRows
from memspace.passes.cotangent import output_cotangents
from memspace.passes.coverage import coverage
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.forms.bases import Bases
from memspace.passes.kinds import Kind
from memspace.passes.linearise import FisherOperator
from memspace.passes.offload import Disk
from memspace.passes.outputs import outputs as outputs_of
from memspace.passes.rows import Rows
from memspace.passes.space import Block, ParameterSpace
from memspace.passes.statistic import Statistic
from memspace.passes.statistics import (
    CorrectedEigenvalues,
    DenseFisher,
    DiagonalFisher,
    FactorSums,
    KroneckerFactors,
    Outputs,
    SampleSpread,
)
from memspace.passes.verify import fitting_space
from memspace.task.checks import evaluating
from memspace.task.data import move
from memspace.task.task import Task

__all__ = ["bases_of", "build", "dual_of_rows", "exact_probe", "kronecker_of"]

REPRESENTATIONS = ("dense", "diagonal", "kfac", "ekfac", "dual", "implicit", "block", "nystroem")
PROBED = 16  # examples whose outputs tell how many cotangents merged classes need
RANK = 128  # of the Nyström representation, unless memory holds less


def bases_of(
    factors: Mapping[str, FactorSums] | Iterable[tuple[str, FactorSums]], disk: Disk | None = None
) -> tuple[dict[str, Bases], dict[str, Tensor]]:
    """Eigenbases of every block's factors, and the products of their eigenvalues (out, in); float64.

    Args:
        disk: where the bases are kept, if not in memory.
    """
    bases, products = {}, {}
    for name, f in factors.items() if isinstance(factors, Mapping) else factors:
        # 1-d: only the diagonal is kept, in the coordinates' own basis
        la, ua = (f.a, None) if f.a.dim() == 1 else torch.linalg.eigh(f.a)
        lg, ug = (f.g.flatten(), None) if f.g.dim() == 1 or f.g.shape == (1, 1) else torch.linalg.eigh(f.g)
        if disk is not None:
            ua, ug = (None if u is None else disk.keep(u) for u in (ua, ug))
        bases[name] = Bases(ua, ug)
        products[name] = _outer(lg.clamp_min(0), la.clamp_min(0))
    return bases, products


def _outer(g: Tensor, a: Tensor) -> Tensor:
    """Products of two sides' eigenvalues, (out, in); of every group one below the other."""
    return torch.outer(g, a) if a.dim() == 1 else (g.unsqueeze(2) * a.unsqueeze(1)).flatten(0, 1)


def positions_of(sums: dict[str, Tensor], block: Block) -> float:
    """Mean number of positions per example of a block (1 where it has no product form)."""
    key = f"t/{block.name}"
    return float(sums[key] / sums["n"]) if key in sums else 1.0


def kronecker_of(
    blocks: tuple[Block, ...],
    bases: dict[str, Bases],
    values: dict[str, Tensor],
    corrected: bool,
    kind: str,
    sampling: float = 0.0,
) -> Kronecker:
    """Assemble blocks of eigenvalues in bases."""
    parts = tuple(KroneckerBlock(b, bases[b.name], values[b.name]) for b in blocks)
    return Kronecker(parts, corrected, kind, sampling)


def dual_of_rows(task: Task, jacobian: Rows, f: Tensor, y: Tensor, *, limit: int, kind: str = "exact") -> Dual:
    """The dual from Jacobian rows of n examples and their outputs; at most ``limit`` rows of it."""
    u = output_cotangents(kind, task.likelihood, f.double(), y)  # (K, n, C)
    return Dual.of(select_rows(jacobian, u.permute(1, 2, 0), limit), len(f), kind)


def exact_probe(operator: FisherOperator, count: int, seed: int, trace: Estimate) -> Probe:
    """Gaussian probes with their exact products."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(count, operator.size, generator=generator, dtype=torch.float64)
    return Probe(v, operator(v), trace)


@typed
def build(
    task: Task,
    space: ParameterSpace,
    representation: str,
    *,
    kind: str = "exact",
    samples: Annotated[int, COUNT] = 1,
    lost: Annotated[float, SHARE] = 0.01,
    memory: Annotated[int, BYTES] = 4 * 2**30,
    batch: Annotated[int | None, COUNT] = None,
    seed: Annotated[int, DRAW] = 0,
    index: Tensor | None = None,
) -> FisherMetric:
    """The Fisher metric of a task at its weights in one representation.

    Args:
        space: the parameters; ``memspace.verified_space(task)`` fits every network.
        representation: one of dense, diagonal, kfac, ekfac, dual, implicit, block, nystroem.
        kind: exact, mc (sampled labels), topk (improbable classes merged: never above the exact one) or empirical;
            products (implicit, nystroem) are exact or empirical: there a class more costs no cotangent more.
        samples: labels per example for mc; from 2 on the trace has a standard error.
        lost: share of the trace of each position's output information that topk may leave out.
        memory: bytes it may hold; index: only these training examples.

    Raises:
        MemoryBudgetError: the representation or one example's cotangents do not fit; says what would.
        UnsupportedLayerError: a module's gradients are not autograd's by any way.
        ValueError: an unknown representation or kind.

    Returns:
        the metric; its ``coverage`` says what share of the parameters was read, and how.
    """
    index = None if index is None else as_index(index, len(task.train), "index")
    metric = _metric(task, space, representation, kind, samples, lost, memory, batch, seed, index)
    covered = coverage(space, sum(p.numel() for p in task.model.parameters()), representation)
    object.__setattr__(metric, "coverage", covered)  # a frozen dataclass, of which this is no field
    return metric


def _metric(
    task: Task,
    space: ParameterSpace,
    representation: str,
    kind: str,
    samples: int,
    lost: float,
    memory: int,
    batch: int | None,
    seed: int,
    index: Tensor | None,
) -> FisherMetric:
    if representation not in REPRESENTATIONS:
        raise SettingsError(
            f"unknown representation {representation!r}; one of {', '.join(REPRESENTATIONS)}",
            where="fisher",
            remedy="give one of these",
        )
    space = fitting_space(task, space)
    n = len(task.train) if index is None else len(index)
    blocks = space.blocks
    of = Kind(kind, samples, lost if kind == "topk" else 0.0)
    kind = str(of)
    widest = batch or 1024  # products choose their own batch below this
    if representation == "implicit":
        operator = FisherOperator(task, space, index=index, batch=widest, kind=kind, memory=memory // 2)
        return Implicit(operator, space.size, seed=seed, kind=kind)
    if representation == "nystroem":
        operator = FisherOperator(task, space, index=index, batch=widest, kind=kind, memory=memory // 4)
        rank = min(RANK, space.size, memory // (32 * space.size))
        _fits(32 * space.size, memory, "a Nyström basis of one vector", "ekfac or implicit")
        return nystroem(operator, space.size, rank, seed=seed, kind=kind, rounding=torch.finfo(task.dtype).eps)
    if representation == "dense":
        _fits(16 * space.size**2, memory, f"a dense {space.size} × {space.size} metric", "ekfac, dual or implicit")
    if representation == "block":
        _fits(16 * sum(b.size**2 for b in blocks), memory, "a dense matrix per block", "ekfac, dual or implicit")
    read = Kind("jacobian") if representation == "dual" and of.name != "mc" else of
    count = _cotangents_each(task, read, index)
    if representation == "dual":
        _fits(
            3 * 8 * (n * count) ** 2, memory, f"a Gram matrix of {n * count} rows ({n} examples)", "ekfac or implicit"
        )
    spread = [SampleSpread(blocks, kind)] if of.samples > 1 and of.name == "mc" and representation != "kfac" else []

    def run(*statistics: Statistic[Any]) -> None:
        most = _at_once(task, space, count, memory, index)
        run_pass(task, space, statistics, PassOptions(batch=batch, most=most, seed=seed, index=index))

    def sampling() -> float:
        return spread[0].standard_error() if spread else 0.0

    if representation == "dense":
        dense = DenseFisher(blocks, kind)
        run(dense, *spread)
        return Dense.of(dense.finish()["fisher"] / n, kind, sampling())
    if representation == "block":
        moments = [DenseFisher((b,), kind) for b in blocks]
        run(*moments, *spread)
        means = [Dense.of(m.finish()["fisher"] / n, kind) for m in moments]
        parts = tuple(DenseBlock(b, m) for b, m in zip(blocks, means, strict=True))
        return BlockDiagonal(parts, kind, sampling=sampling())
    if representation == "diagonal":
        diagonal = DiagonalFisher(blocks, kind)
        run(diagonal, *spread)
        sums = diagonal.finish()
        return Diagonal(torch.cat([sums[f"diag/{b.name}"].flatten() for b in blocks]) / n, kind, sampling=sampling())
    if representation in ("kfac", "ekfac"):
        factors = KroneckerFactors(blocks, kind)
        run(factors)
        bases, values = bases_of(factors.taken())
        if representation == "kfac":
            return kronecker_of(blocks, bases, values, False, kind)
        corrected = CorrectedEigenvalues(blocks, bases, kind)
        run(corrected, *spread)
        sums = corrected.finish()
        values = {b.name: sums[f"eig/{b.name}"] / n for b in blocks}
        return kronecker_of(blocks, bases, values, True, kind, sampling())
    outputs, rows = Outputs(), CollectRows(blocks, str(read))
    run(outputs, rows, *spread)
    table, collected = outputs.finish(), rows.finish()
    if of.name == "mc":
        eye = torch.eye(of.samples, dtype=torch.float64).expand(n, -1, -1)
        return replace(Dual.of(select_rows(collected, eye, len(collected), 0.0), n, kind), sampling=sampling())
    if table["f"].dim() > 2:
        return Dual.of(_sequence_rows(task, table, collected, kind), n, kind)
    return dual_of_rows(task, collected, table["f"], table["y"], limit=len(collected), kind=kind)


def _sequence_rows(task: Task, table: dict[str, Tensor], collected: Rows, kind: str):  # type: ignore[no-untyped-def]
    u = output_cotangents(kind, task.likelihood, table["f"].double(), table["y"])
    root = u.flatten(2).permute(1, 2, 0)  # (n, positions·C, K)
    return select_rows(collected, root, len(collected), 0.0)


def _cotangents_each(task: Task, kind: Kind, index: Tensor | None) -> int:
    """Cotangents per example; for topk the most that a few examples need."""
    if not kind.several:
        return kind.samples
    first = torch.arange(min(PROBED, len(task.train))) if index is None else index[:PROBED]
    f, _ = outputs_of(task, task.train, index=first)
    if kind.name == "topk":
        return f[0, ..., 0].numel() * task.likelihood.merged_columns(f, kind.share)
    return f[0].numel()


def _at_once(task: Task, space: ParameterSpace, count: int, memory: int, index: Tensor | None) -> int:
    """Examples whose cotangents memory holds beside one transformed copy of them."""
    each = 2 * torch.finfo(task.dtype).bits // 8 * count * _numbers(task, space, index)
    what = f"one example's {count:,} cotangents (one per output and position)"
    _fits(each, memory, what, 'kind="mc" with a few samples, kind="topk", or the representation implicit')
    return memory // each


def _fits(need: int, memory: int, what: str, instead: str) -> None:
    if need > memory:
        raise MemoryBudgetError(
            f"{what} needs {need / 2**30:.1f} GiB of the {memory / 2**30:.1f} GiB allowed",
            where="memory budget",
            remedy=f"raise --memory or use {instead}",
        )


def _numbers(task: Task, space: ParameterSpace, index: Tensor | None) -> int:
    """How many one output cotangent of one example takes, at the outputs and pulled back to every block."""
    with evaluating(task.model), Capture(task.model, space) as capture:
        x = task.train.batch([0] if index is None else index[:1]).x
        signals = capture.forward(move(x, task.device, task.dtype))
        pulled = signals.cotangents(torch.zeros_like(signals.f).unsqueeze(0))
        return int(signals.f.numel()) + sum(int(g.numel()) for g in pulled.values())
