"""EKFAC: Kronecker factors, their eigenbases, corrected eigenvalues; metric, leverage and influence.

Each stage is one pass over the examples. ``EkfacPasses`` runs the two that make the metric, ``Ekfac`` the further ones
that read by it. The tensors of a stage go through ``keep``, by which an interrupted audit resumes.

Source: Martens & Grosse 2015 (factors), George et al. 2018 (corrected eigenvalues), Grosse et al. 2023 (influence).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from memspace.metric.keep import Keep, read_tensors, unkept
from memspace.metric.spectral import Kronecker, KroneckerBlock
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.forms.bases import Bases
from memspace.passes.leverage import KroneckerInfluence, KroneckerLeverage, QueryGradients
from memspace.passes.offload import Disk
from memspace.passes.space import Block, ParameterSpace
from memspace.passes.statistic import Statistic
from memspace.passes.statistics import CorrectedEigenvalues, FactorSums, KroneckerFactors
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["Eigenbases", "Ekfac", "EkfacPasses", "SolvedQueries", "bases_of", "kronecker_of"]


def bases_of(
    factors: Mapping[str, FactorSums] | Iterable[tuple[str, FactorSums]], disk: Disk | None = None
) -> tuple[dict[str, Bases], dict[str, Tensor]]:
    """Find the eigenbases of every block's Kronecker factors.

    Args:
        factors: second moments by block name.
        disk: where the bases are stored; None: in memory.

    Returns:
        Bases by block name, and the products of the factors' eigenvalues (out, in), float64.
    """
    bases, products = {}, {}
    for name, f in factors.items() if isinstance(factors, Mapping) else factors:
        # 1-d: only the diagonal is stored, in the standard basis
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


def kronecker_of(
    blocks: Sequence[Block],
    bases: Mapping[str, Bases],
    values: Mapping[str, Tensor],
    corrected: bool,
    kind: str,
    sampling: float = 0.0,
) -> Kronecker:
    """Build a metric from blocks of eigenvalues in their bases.

    Args:
        blocks: in the order of the flat layout.
        bases: eigenbases by block name.
        values: eigenvalues (out, in) by block name.
        corrected: True: second moments of rotated gradients (EKFAC); False: products of the factors' (KFAC).
        kind: of the cotangents read.
        sampling: standard error of tr F from labels drawn, where measured.

    Returns:
        The metric; exact only where gradients factorise.
    """
    parts = tuple(KroneckerBlock(b, bases[b.name], values[b.name]) for b in blocks)
    return Kronecker(parts, corrected, kind, sampling)


@dataclass(frozen=True)
class Eigenbases:
    """Eigenbases of the Kronecker factors, the result of the first stage.

    Args:
        bases: by block name.
        products: products of the factors' eigenvalues (out, in) by block name, float64: the eigenvalues of KFAC.
        tensors: of the other statistics of the same pass, by name.
    """

    bases: dict[str, Bases]
    products: dict[str, Tensor]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class EkfacPasses:
    """The two passes that make EKFAC's metric.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        kind: of the cotangents (see ``memspace.passes.kinds``).
        options: of the passes; their seed is that of the labels sampled for the factors.
        only: blocks to read; None: all.
        keep: runs a stage, or returns its stored tensors.
        disk: where factors and bases are stored; None: in memory.
        redraw: whether the eigenvalues get labels of their own, sampled by the next seed.
    """

    task: Task
    space: ParameterSpace
    kind: str = "mc"
    options: PassOptions = field(default_factory=PassOptions)
    only: tuple[Block, ...] | None = None
    keep: Keep = unkept
    disk: Disk | None = None
    redraw: bool = True

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks that are read."""
        return tuple(self.space.blocks) if self.only is None else self.only

    def factored(self, *further: Statistic[Any]) -> Eigenbases:
        """Read the Kronecker factors (stage ``factors``) and decompose them.

        Args:
            further: statistics gathered by the same pass.

        Returns:
            Bases, the products of eigenvalues, and the tensors of ``further``.
        """
        factors = KroneckerFactors(self.blocks, self.kind, self.disk)
        tensors = self._stage("factors", [factors, *further], self.options.but(what="Kronecker factors"))
        names = [name for name in tensors if name.startswith(("a/", "g/", "t/"))]
        # Taken out one by one, so that the bases reuse the memory of the sums.
        factors.restore({name: tensors.pop(name) for name in names} | {"n": tensors["n"]})
        bases, products = bases_of(factors.taken(), self.disk)
        return Eigenbases(bases, products, tensors)

    def corrected(self, eigenbases: Eigenbases, *further: Statistic[Any]) -> Ekfac:
        """Read the eigenvalues in these bases (stage ``eigenvalues``).

        Args:
            eigenbases: the first stage's result.
            further: statistics gathered by the same pass.

        Returns:
            EKFAC, with the tensors of ``further``.
        """
        seed = self.options.seed + 1 if self.redraw else self.options.seed
        table = CorrectedEigenvalues(self.blocks, eigenbases.bases, self.kind)
        tensors = self._stage(
            "eigenvalues", [table, *further], self.options.but(seed=seed, what="corrected eigenvalues")
        )
        values = {b.name: tensors.pop(f"eig/{b.name}") / tensors["n"] for b in self.blocks}
        return Ekfac(self, eigenbases.bases, values, int(tensors["n"]), tensors)

    def _stage(self, name: str, statistics: Sequence[Statistic[Any]], options: PassOptions) -> dict[str, Tensor]:
        return self.keep(name, lambda: read_tensors(self.task, self.space, statistics, options))


@dataclass(frozen=True)
class SolvedQueries:
    """M⁻¹∇q of some queries.

    Args:
        columns: by block name, (q, out, in).
        rotated: names of the blocks whose columns stay in their eigenbases.
    """

    columns: dict[str, Tensor]
    rotated: frozenset[str]

    def less(self, other: SolvedQueries) -> SolvedQueries:
        """Subtract the solutions of as many other queries, which solves for the difference of outcomes.

        Args:
            other: solutions of q other queries, in the same bases.

        Returns:
            The differences, query by query.
        """
        return SolvedQueries({k: v - other.columns[k] for k, v in self.columns.items()}, self.rotated)


@dataclass(frozen=True)
class Ekfac:
    """EKFAC of a network, with further passes that use it; M = n(F̂ + γI).

    Args:
        passes: the passes that read it.
        bases: eigenbases by block name.
        values: eigenvalues of F̂ (out, in) by block name, float64.
        n: examples that F̂ is the mean over.
        tensors: of the other statistics of the second pass, by name.
    """

    passes: EkfacPasses
    bases: dict[str, Bases]
    values: dict[str, Tensor]
    n: int
    tensors: dict[str, Tensor]

    @cached_property
    def metric(self) -> Kronecker:
        """F̂, with the error of its trace where the labels' spread was read (``SampleSpread``)."""
        return kronecker_of(self.passes.blocks, self.bases, self.values, True, self.passes.kind, self.sampling)

    @property
    def sampling(self) -> float:
        """Standard error of tr F̂ from the labels drawn, where read; else 0."""
        return float(self.tensors["variance"].sqrt() / self.tensors["n"]) if "variance" in self.tensors else 0.0

    def inverse(self, damping: float) -> dict[str, Tensor]:
        """Return the eigenvalues of M⁻¹.

        Args:
            damping: γ > 0.

        Returns:
            (out, in) by block name, float64.
        """
        return {name: 1 / (self.n * (values + damping)) for name, values in self.values.items()}

    def inverses(self, dampings: Sequence[float]) -> dict[str, Tensor]:
        """Return the eigenvalues of M⁻¹ at several dampings.

        Args:
            dampings: D values of γ > 0.

        Returns:
            (D, out, in) by block name, float64.
        """
        return {k: torch.stack([1 / (self.n * (v + g)) for g in dampings]) for k, v in self.values.items()}

    def leverage(
        self,
        weights: dict[str, Tensor],
        options: PassOptions,
        *further: Statistic[Any],
        kind: str = "jacobian",
    ) -> dict[str, Tensor]:
        """Read every example's leverage and self-influence in one pass.

        Args:
            weights: eigenvalues (D, out, in) of M⁻¹ by block name, as ``inverses`` returns.
            options: of the pass.
            further: statistics gathered by the same pass.
            kind: ``jacobian``; ``empirical``: the residual's own direction alone, for sequences and many outputs.

        Returns:
            ``leverage`` (n, D, C, C) with the kind ``jacobian``; ``parts`` (n, D, L) nats; the tensors of ``further``.
        """
        table = KroneckerLeverage(self.passes.blocks, self.bases, weights, kind)
        return read_tensors(self.passes.task, self.passes.space, [table, *further], options)

    def solved(self, queries: Data, damping: float, batch: int | None = None) -> SolvedQueries:
        """Solve for the gradients of some queries' losses.

        Args:
            queries: examples, with the labels whose loss is differentiated.
            damping: γ > 0.
            batch: queries at a time; None: by the size of the network's signals.

        Returns:
            M⁻¹∇q of every query.
        """
        gradients = QueryGradients(self.passes.blocks, self.bases, self.inverse(damping), len(queries), self.n)
        run_pass(self.passes.task, self.passes.space, [gradients], PassOptions(data=queries, batch=batch))
        return SolvedQueries(gradients.finish(), frozenset(gradients.rotated))

    def scores(self, queries: SolvedQueries) -> KroneckerInfluence:
        """Return the statistic of influences on solved queries.

        Args:
            queries: M⁻¹∇q of Q queries.

        Returns:
            A statistic to be read by a pass: ``influence`` (n, Q), nats.
        """
        bases = {name: self.bases[name] for name in queries.rotated}
        return KroneckerInfluence(self.passes.blocks, queries.columns, bases)
