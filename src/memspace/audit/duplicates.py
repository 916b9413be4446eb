"""Examples the network takes for one another: duplicates within the training data, and test examples among them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memspace.audit.store import write_table
from memspace.errors import TaskError
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.duplicates import FEWEST, ORDER, chance, nearest
from memspace.metric.fisher import bases_of
from memspace.passes.engine import run_pass
from memspace.passes.forms import Bases
from memspace.passes.sketch import LARGEST, GradientSketch
from memspace.passes.statistics import CorrectedEigenvalues, KroneckerFactors
from memspace.passes.verify import verified_space
from memspace.progress import Progress, Silent
from memspace.task.checks import check_task, untouched
from memspace.task.data import Data, Inputs
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["Duplicates", "Whitening", "duplicates", "find_duplicates", "whitening"]

RATE = 1e-3
SKETCH = 256
METRIC_EXAMPLES = 2000  # whose F̂ whitens: a kernel needs its large eigenvalues alone
DAMPING = 0.1  # γ in largest eigenvalues of F̂


@dataclass(frozen=True)
class Duplicates:
    """Suspected pairs, exact ones first, then by rising chance.

    Args:
        table: columns ``kind`` (exact or near), ``train_index``, ``other_index``, ``similarity`` (cosine of the
            kernel), ``p_chance`` (0 where exact), ``label`` and ``other_label`` (None where not one per example).
        within: ``train`` or ``train-test``: what ``other_index`` counts.
        exact, near: how many pairs.
    """

    table: dict[str, list[Any]]
    within: str
    exact: Measurement
    near: Measurement | Unmeasured

    def __len__(self) -> int:
        return len(self.table["kind"])

    def save(self, path: Path) -> None:
        """Write the table as Parquet.

        Raises:
            OutputError: the file cannot be written.
        """
        write_table(path, self.table)


def duplicates(
    task: Task,
    within: str = "train",
    *,
    rate: float = RATE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Duplicates:
    """Exact duplicates by their bytes; near ones by the normalised kernel of whitened gradients.

    k(i, j) = uᵀJ_i (F + γI)⁻¹ J_jᵀu for a random direction u of the outputs, F by EKFAC, over √(k(i, i) k(j, j)); a
    neighbour is suspected where one as close, against the tenth, comes by chance to fewer than ``rate`` of examples.

    Args:
        within: ``train``: pairs of training examples; ``train-test``: test examples that resemble a training example.
        rate: false positives per example asked about, by the kernel's own null.

    Raises:
        TaskError: an unknown ``within``, or no test data for ``train-test``.
    """
    if within not in ("train", "train-test"):
        raise TaskError(f"duplicates within {within!r} are not defined", where="within", remedy="use train, train-test")
    check_task(task)
    if within == "train-test" and task.test is None:
        raise TaskError(
            "there are no test data", where="train-test", remedy="hand over test data, or look within train"
        )
    with untouched(task.model):
        space = verified_space(task)
        kernel = whitening(task, space, seed, progress or Silent())
        return find_duplicates(task, space, kernel, within, rate=rate, seed=seed, progress=progress)


@dataclass(frozen=True)
class Whitening:
    """(F̂ + γI)^-½ by EKFAC: bases by block, and its eigenvalues in them (out, in)."""

    bases: dict[str, Bases]
    weights: dict[str, Tensor]


def whitening(task: Task, space: ParameterSpace, seed: int, progress: Progress) -> Whitening:
    """From some training examples; γ is a tenth of the largest eigenvalue."""
    index = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(seed))[:METRIC_EXAMPLES]
    index = index.sort().values
    factors = KroneckerFactors(space.blocks, "mc")
    run_pass(task, space, [factors], index=index, seed=seed, progress=progress, what="Kronecker factors")
    bases, _ = bases_of(factors.factors())
    corrected = CorrectedEigenvalues(space.blocks, bases, "mc")
    run_pass(task, space, [corrected], index=index, seed=seed + 1, progress=progress, what="corrected eigenvalues")
    state = corrected.state()
    values = {b.name: state[f"eig/{b.name}"] / state["n"] for b in space.blocks}
    top = max(float(v.max()) for v in values.values())
    return Whitening(bases, {k: (v + DAMPING * top).rsqrt() for k, v in values.items()})


def find_duplicates(
    task: Task,
    space: ParameterSpace,
    kernel: Whitening,
    within: str,
    *,
    rate: float = RATE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Duplicates:
    """As :func:`duplicates`, with the whitening at hand."""
    asked = task.train if within == "train" else task.test
    assert asked is not None
    exact = _exact(task.train, asked)
    rows: list[tuple[str, int, int, float, float]] = [("exact", i, j, 1.0, 0.0) for i, j in exact]
    near: Measurement | Unmeasured
    if len(task.train) < FEWEST or len(asked) < FEWEST:
        near = Unmeasured(f"duplicates.near.{within}", f"fewer than {FEWEST} examples", "hand over more")
    else:

        def sketch(data: Data) -> Tensor:
            table = GradientSketch(space.blocks, kernel.bases, kernel.weights, SKETCH, seed)
            run_pass(task, space, [table], data=data, seed=seed, progress=progress, what="kernel")
            return table.finish()["sketch"]

        points = sketch(task.train)
        found = _near(points, points if within == "train" else sketch(asked), within, rate, exact)
        rows += [("near", *pair) for pair in found]
        left = sum(b.size for b in space.blocks if b.size * SKETCH > LARGEST)
        near = Measurement(
            f"duplicates.near.{within}",
            len(found),
            "pairs",
            f"cosine of whitened gradients (sketch of {SKETCH}), nearest against neighbour {ORDER}; at most {rate:g} "
            "of examples by chance" + (f"; {left:,} parameters of large blocks left out" if left else ""),
            len(asked),
            None,
            "Facco et al. 2017",
        )
    counted = Measurement(f"duplicates.exact.{within}", len(exact), "pairs", "equal inputs, byte by byte", len(asked))
    return Duplicates(_table(task, asked, rows), within, counted, near)


def _near(
    points: Tensor, queries: Tensor, within: str, rate: float, exact: list[tuple[int, int]]
) -> list[tuple[int, int, float, float]]:
    """(train, other, similarity, p) of the suspected pairs that are not exact, by rising p."""
    same = within == "train"
    neighbours = nearest(queries, points, ORDER, same=same)
    clean = torch.ones(len(queries), dtype=torch.bool, device=points.device)
    for i, j in exact:
        clean[j] = False
        if same:
            clean[i] = False
    p = chance(neighbours, clean if bool(clean.any()) else None)
    known, found = set(exact), {}
    for q, k in (p < rate).nonzero().tolist():
        i = int(neighbours.index[q, k])
        pair = (min(i, q), max(i, q)) if same else (i, q)
        if pair not in known and float(p[q, k]) < found.get(pair, (0.0, 2.0))[1]:
            found[pair] = (1 - float(neighbours.distance[q, k]) ** 2 / 2, float(p[q, k]))
    return sorted(((*pair, *value) for pair, value in found.items()), key=lambda row: row[3])


def _exact(train: Data, asked: Data) -> list[tuple[int, int]]:
    """(train, other) of equal inputs; within the training data each later one with the first."""
    first: dict[bytes, int] = {}
    pairs = []
    for i, key in enumerate(_digests(train)):
        if key in first and asked is train:
            pairs.append((first[key], i))
        first.setdefault(key, i)
    if asked is not train:
        pairs = [(first[key], j) for j, key in enumerate(_digests(asked)) if key in first]
    return pairs


def _digests(data: Data) -> Iterable[bytes]:
    for part in data.batches(512):
        leaves = _leaves(part.x)
        for k in range(len(part)):
            digest = hashlib.blake2b(digest_size=16)
            for leaf in leaves:
                digest.update(leaf[k].contiguous().cpu().numpy().tobytes())
            yield digest.digest()


def _leaves(x: Inputs) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    return [t for v in (x.values() if isinstance(x, dict) else x) for t in _leaves(v)]


def _table(task: Task, asked: Data, rows: list[tuple[str, int, int, float, float]]) -> dict[str, list[Any]]:
    names = ("kind", "train_index", "other_index", "similarity", "p_chance")
    table: dict[str, list[Any]] = {name: [row[k] for row in rows] for k, name in enumerate(names)}
    for name, data, column in (("label", task.train, "train_index"), ("other_label", asked, "other_index")):
        y = data.labels()
        table[name] = [y[i].item() if y.dim() == 1 else None for i in table[column]]
    return table
