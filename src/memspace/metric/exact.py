"""The exact dual: Jacobian rows, the Fisher rows to hold, their Gram matrix, leverage.

The tensors of the stages ``rows`` and ``gram`` go through ``keep``, by which an interrupted audit resumes. The module
``principal`` builds the dual of many examples without holding the Jacobian's rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from memspace.metric.dual import Dual, Selection, select_rows
from memspace.metric.keep import Keep, unkept
from memspace.metric.leverage import DualLeverage
from memspace.passes.collect import CollectRows
from memspace.passes.cotangent import output_cotangents
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.rows import Rows
from memspace.passes.space import ParameterSpace
from memspace.passes.statistics import Outputs
from memspace.progress import Progress, Silent
from memspace.task.law import Likelihood
from memspace.task.task import Task

__all__ = ["Exact", "Jacobian", "exact_dual", "output_root", "read_jacobian"]


@dataclass(frozen=True)
class Jacobian:
    """The network's Jacobian at some examples, with its outputs there.

    Args:
        rows: C consecutive rows per example, in factored form.
        f: (n, C) outputs; (n, ..., C) for outputs with positions.
        y: (n, ...) labels.
    """

    rows: Rows
    f: Tensor
    y: Tensor


@dataclass(frozen=True)
class Exact:
    """The exact metric of some examples.

    Args:
        jacobian: rows, outputs and labels.
        root: (n, C, C) roots of the output law's Fisher matrix.
        metric: F by its Gram matrix.
        leverage: of every example, at any damping.
    """

    jacobian: Jacobian
    root: Tensor
    metric: Dual
    leverage: DualLeverage

    @property
    def trace(self) -> Tensor:
        """tr F of every example, (n,), nats."""
        moments = self.root.transpose(1, 2) @ self.leverage.own @ self.root
        return moments.diagonal(dim1=1, dim2=2).sum(-1)


def read_jacobian(
    task: Task, space: ParameterSpace, options: PassOptions | None = None, keep: Keep = unkept
) -> Jacobian:
    """Read the Jacobian's rows in one pass, as the stage ``rows``.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        options: of the pass; None: all training examples.
        keep: runs the stage, or returns its stored tensors.

    Returns:
        Rows, outputs and labels, on the model's device.
    """
    options = (options or PassOptions()).but(what="Jacobian rows")

    def read() -> dict[str, Tensor]:
        rows, table = CollectRows(space.blocks, "jacobian"), Outputs()
        run_pass(task, space, [rows, table], options)
        return _tensors_of(rows.finish()) | table.finish()

    tensors = _on(task, keep("rows", read))
    return Jacobian(_rows_from(space, tensors), tensors["f"], tensors["y"])


def exact_dual(
    task: Task,
    jacobian: Jacobian,
    *,
    limit: int,
    seed: int = 0,
    keep: Keep = unkept,
    progress: Progress | None = None,
) -> Exact:
    """Build the dual metric by the Gram matrix of the examples' Fisher rows, as the stage ``gram``.

    Args:
        task: the network, with its output law.
        jacobian: of the examples that F is the mean over.
        limit: Fisher rows held at most; beyond it the largest are held, and a draw of the others (see ``draw``).
        seed: of that draw.
        keep: runs the stage, or returns its stored tensors.
        progress: notified of the three steps; None: silent.

    Returns:
        Metric and leverage; exact where every row is held, else F̂ is unbiased and has the trace of F.
    """
    progress = progress or Silent()
    step = progress.start("eigendecomposition of the Gram matrix", 3)
    root, n = task.likelihood.fisher_root(jacobian.f.double()), len(jacobian.f)
    selection = select_rows(jacobian.rows, root, limit, seed=seed)
    progress.advance(step)
    metric = _decomposed(task, selection, n, keep)
    progress.advance(step)
    leverage = DualLeverage.of(jacobian.rows, metric, jacobian.f.shape[-1], selection.missing)
    progress.advance(step)
    progress.finish(step)
    return Exact(jacobian, root, metric, leverage)


def output_root(law: Likelihood, jacobian: Jacobian, kind: str) -> Tensor:
    """Return a root S of the outputs' curvature H = S Sᵀ that a kind of cotangents stands for.

    Args:
        law: the output law.
        jacobian: rows, outputs and labels of n examples.
        kind: of the cotangents, without random numbers (see ``memspace.passes.kinds``).

    Returns:
        (n, positions · C, K), float64; padded positions have zeros.
    """
    return output_cotangents(kind, law, jacobian.f.double(), jacobian.y).flatten(2).permute(1, 2, 0)


def _decomposed(task: Task, selection: Selection, n: int, keep: Keep) -> Dual:
    def decompose() -> dict[str, Tensor]:
        made = Dual.of(selection, n)
        return {"values": made.values, "vectors": made.vectors}

    gram = _on(task, keep("gram", decompose))
    chance = selection.chance if selection.drawn else None
    return Dual(selection.rows, n, gram["values"], gram["vectors"], selection.drawn, chance=chance)


def _tensors_of(rows: Rows) -> dict[str, Tensor]:
    """Rows as tensors by name."""
    factors = {f"a/{k}": v for k, v in rows.a.items()} | {f"g/{k}": v for k, v in rows.g.items()}
    return factors | {"example": rows.example}


def _rows_from(space: ParameterSpace, tensors: dict[str, Tensor]) -> Rows:
    """Inverse of :func:`_tensors_of`."""
    a, g = ({k[2:]: v for k, v in tensors.items() if k.startswith(side)} for side in ("a/", "g/"))
    return Rows(tuple(space.blocks), a, g, tensors["example"])


def _on(task: Task, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the model's device; stored ones come back on the CPU."""
    return {k: v.to(task.device) for k, v in tensors.items()}
