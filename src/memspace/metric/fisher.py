"""From statistics to metrics: the only place that starts passes to build one."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.errors import MemoryBudgetError
from memspace.metric.block import BlockDiagonal, DenseBlock
from memspace.metric.dual import Dual, select_rows
from memspace.metric.implicit import Implicit
from memspace.metric.metric import Estimate, FisherMetric, Probe
from memspace.metric.nystroem import nystroem
from memspace.metric.spectral import Dense, Diagonal, Kronecker, KroneckerBlock
from memspace.passes.cotangent import output_cotangents
from memspace.passes.engine import run_pass
from memspace.passes.forms import Bases
from memspace.passes.linearise import FisherOperator
from memspace.passes.rows import CollectRows, Rows
from memspace.passes.statistics import (
    CorrectedEigenvalues,
    DenseFisher,
    DiagonalFisher,
    FactorSums,
    KroneckerFactors,
    Outputs,
)
from memspace.task.space import Block, ParameterSpace
from memspace.task.task import Task

__all__ = ["bases_of", "build", "dual_of_rows", "exact_probe", "kronecker_of"]

REPRESENTATIONS = ("dense", "diagonal", "kfac", "ekfac", "dual", "implicit", "block", "nystroem")
RANK = 128  # of the Nyström representation, unless memory holds less


def bases_of(factors: dict[str, FactorSums]) -> tuple[dict[str, Bases], dict[str, Tensor]]:
    """Eigenbases of every block's factors, and the products of their eigenvalues (out, in); float64."""
    bases, products = {}, {}
    for name, f in factors.items():
        # 1-d: only the diagonal is kept, in the coordinates' own basis
        la, ua = (f.a, None) if f.a.dim() == 1 else torch.linalg.eigh(f.a)
        lg, ug = (f.g[0], None) if f.g.shape == (1, 1) else torch.linalg.eigh(f.g)
        bases[name] = Bases(ua, ug)
        products[name] = torch.outer(lg.clamp_min(0), la.clamp_min(0))
    return bases, products


def positions_of(sums: dict[str, Tensor], block: Block) -> float:
    """Mean number of positions per example of a block (1 where it has no product form)."""
    key = f"t/{block.name}"
    return float(sums[key] / sums["n"]) if key in sums else 1.0


def kronecker_of(
    blocks: tuple[Block, ...], bases: dict[str, Bases], values: dict[str, Tensor], corrected: bool, kind: str
) -> Kronecker:
    """Assemble blocks of eigenvalues in bases."""
    parts = tuple(KroneckerBlock(b, bases[b.name], values[b.name]) for b in blocks)
    return Kronecker(parts, corrected, kind)


def dual_of_rows(task: Task, jacobian: Rows, f: Tensor, y: Tensor, *, limit: int, kind: str = "exact") -> Dual:
    """The dual from Jacobian rows of n examples and their outputs; sketched to ``limit`` principal rows."""
    u = output_cotangents(kind, task.likelihood, f.double(), y)  # (K, n, C)
    return Dual.of(select_rows(jacobian, u.permute(1, 2, 0), limit), len(f), kind)


def exact_probe(operator: FisherOperator, count: int, seed: int, trace: Estimate) -> Probe:
    """Gaussian probes with their exact products."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(count, operator.size, generator=generator, dtype=torch.float64)
    return Probe(v, operator(v), trace)


def build(
    task: Task,
    space: ParameterSpace,
    representation: str,
    *,
    kind: str = "exact",
    memory: int = 4 * 2**30,
    batch: int | None = None,
    seed: int = 0,
    index: Tensor | None = None,
) -> FisherMetric:
    """The Fisher metric of a task at its weights in one representation.

    Args:
        representation: one of dense, diagonal, kfac, ekfac, dual, implicit, block, nystroem.
        kind: exact, mc (one sampled label per example) or empirical.
        memory: bytes it may hold; index: only these training examples.

    Raises:
        MemoryBudgetError: the representation does not fit; says what would.
        ValueError: an unknown representation.
    """
    n = len(task.train) if index is None else len(index)
    blocks = space.blocks
    options = {"batch": batch, "seed": seed, "index": index}
    widest = batch or 1024  # products choose their own batch below this
    if representation == "implicit":
        operator = FisherOperator(task, space, index=index, batch=widest, kind=kind, memory=memory // 2)
        return Implicit(operator, space.size, kind=kind)
    if representation == "dense":
        _fits(
            16 * space.size**2,
            memory,
            f"a dense {space.size} × {space.size} metric",
            "ekfac, dual or implicit",
        )
        dense = DenseFisher(blocks, kind)
        run_pass(task, space, [dense], **options)  # type: ignore[arg-type]
        sums = dense.finish()
        return Dense.of(sums["fisher"] / sums["n"], kind)
    if representation == "block":
        _fits(16 * sum(b.size**2 for b in blocks), memory, "a dense matrix per block", "ekfac, dual or implicit")
        moments = [DenseFisher((b,), kind) for b in blocks]
        run_pass(task, space, moments, **options)  # type: ignore[arg-type]
        means = [m.finish()["fisher"] / n for m in moments]
        return BlockDiagonal(tuple(DenseBlock(b, Dense.of(m, kind)) for b, m in zip(blocks, means, strict=True)), kind)
    if representation == "nystroem":
        operator = FisherOperator(task, space, index=index, batch=widest, kind=kind, memory=memory // 4)
        rank = min(RANK, space.size, memory // (32 * space.size))
        _fits(32 * space.size, memory, "a Nyström basis of one vector", "ekfac or implicit")
        return nystroem(operator, space.size, rank, seed=seed, kind=kind, rounding=torch.finfo(task.dtype).eps)
    if representation == "diagonal":
        diagonal = DiagonalFisher(blocks, kind)
        run_pass(task, space, [diagonal], **options)  # type: ignore[arg-type]
        sums = diagonal.finish()
        flat = torch.cat([sums[f"diag/{b.name}"].flatten() for b in blocks])
        return Diagonal(flat / sums["n"], kind)
    if representation in ("kfac", "ekfac"):
        factors = KroneckerFactors(blocks, kind)
        run_pass(task, space, [factors], **options)  # type: ignore[arg-type]
        bases, values = bases_of(factors.factors())
        if representation == "kfac":
            return kronecker_of(blocks, bases, values, False, kind)
        corrected = CorrectedEigenvalues(blocks, bases, kind)
        run_pass(task, space, [corrected], **options)  # type: ignore[arg-type]
        sums = corrected.finish()
        return kronecker_of(blocks, bases, {b.name: sums[f"eig/{b.name}"] / sums["n"] for b in blocks}, True, kind)
    if representation == "dual":
        outputs, rows = Outputs(), CollectRows(blocks, "jacobian" if kind != "mc" else "mc")
        run_pass(task, space, [outputs, rows], **options)  # type: ignore[arg-type]
        table, collected = outputs.finish(), rows.finish()
        count = len(collected)
        _fits(3 * 8 * count**2, memory, f"a Gram matrix of {count} rows ({n} examples)", "ekfac or implicit")
        if kind == "mc":
            eye = torch.ones(n, 1, 1, dtype=torch.float64)
            return Dual.of(select_rows(collected, eye, count, 0.0), n, kind)
        if table["f"].dim() > 2:
            return Dual.of(_sequence_rows(task, table, collected, kind), n, kind)
        return dual_of_rows(task, collected, table["f"], table["y"], limit=count, kind=kind)
    raise ValueError(f"unknown representation {representation!r}; one of {', '.join(REPRESENTATIONS)}")


def _sequence_rows(task: Task, table: dict[str, Tensor], collected: Rows, kind: str):  # type: ignore[no-untyped-def]
    u = output_cotangents(kind, task.likelihood, table["f"].double(), table["y"])
    root = u.flatten(2).permute(1, 2, 0)  # (n, positions·C, K)
    return select_rows(collected, root, len(collected), 0.0)


def _fits(need: int, memory: int, what: str, instead: str) -> None:
    if need > memory:
        raise MemoryBudgetError(
            f"{what} needs {need / 2**30:.1f} GiB of the {memory / 2**30:.1f} GiB allowed",
            where="memory budget",
            remedy=f"raise --memory or use {instead}",
        )
