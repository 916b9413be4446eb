"""Duplicates: within the training data, and of test examples among them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from scipy.stats import chi2
from torch import Tensor

from memspace.arguments import typed
from memspace.auditing.table_file import save_table
from memspace.display import Columns, Shown
from memspace.errors import TaskError
from memspace.limits import CHANCE, SEED
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.declaration import measurement_of
from memspace.measures.duplicates import FEWEST, ORDER, chance, nearest
from memspace.measures.repeats import ACROSS, MEASURES, WITHIN, Pairs
from memspace.metric.ekfac import EkfacPasses
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.forms.bases import Bases
from memspace.passes.sketch import GradientSketch, sketched
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import checked_space
from memspace.progress import Progress, Silent
from memspace.task.checks import untouched
from memspace.task.data import Data, Inputs
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["Duplicates", "Whitening", "duplicates", "find_duplicates", "whitening"]

RATE = 1e-3
SKETCH = 256
METRIC_EXAMPLES = 2000  # whose F̂ whitens: a kernel needs its large eigenvalues alone
DAMPING = 0.1  # γ in largest eigenvalues of F̂
LONGEST = 1024  # numbers of an input that are compared as they are
PRODUCTS = 10**12  # multiplications of all pairs, beyond which they are projected, too
_VIEWS = {"network": f"whitened gradients (sketch of {SKETCH})", "input": "inputs"}
Row = tuple[str, int, int, float, float, str]


@dataclass(frozen=True, repr=False)
class Duplicates(Shown):
    """Suspected pairs, exact ones first, then by rising chance.

    Args:
        table: columns ``kind`` (exact or near), ``train_index``, ``other_index``, ``similarity`` (cosine), ``p_chance``
            (0 where exact), ``by`` (network, input or bytes), ``label`` and ``other_label`` (None where not one per
            example).
        within: ``train`` or ``train-test``: which data ``other_index`` refers to.
        exact: number of exact pairs.
        near: number of near pairs.
        beyond: number of near pairs beyond what chance gives; None where near was not measured.
    """

    table: dict[str, list[Any]]
    within: str
    exact: Measurement
    near: Measurement | Unmeasured
    beyond: Measurement | None = None

    def _title(self) -> str:
        return f"{len(self)} suspected pairs within {self.within}"

    def _quantities(self) -> tuple[Measurement | Unmeasured, ...]:
        return tuple(q for q in (self.exact, self.near, self.beyond) if q is not None)

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"pairs": lambda: self.table}

    def __len__(self) -> int:
        return len(self.table["kind"])

    def save(self, path: Path | str) -> None:
        """Write the table as Parquet or CSV, by the ending of the name.

        Args:
            path: ends in ``.parquet`` or ``.csv``.

        Raises:
            OutputError: the name ends otherwise, or the file cannot be written.
        """
        save_table(path, self.table)


@typed
def duplicates(
    task: Task,
    within: str = "train",
    *,
    rate: Annotated[float, CHANCE] = RATE,
    seed: Annotated[int, SEED] = 0,
    progress: Progress | None = None,
) -> Duplicates:
    """Find exact duplicates by bytes, and near ones by two normalised kernels: of whitened gradients, and of inputs.

    k(i, j) = uᵀJ_i (F + γI)⁻¹ J_jᵀu for a random direction u of the outputs, F by EKFAC, over √(k(i, i) k(j, j)). A
    neighbour is suspected where one as close, relative to the tenth, comes by chance to fewer than ``rate`` of examples
    in either kernel (half of it each; inputs that are not one tensor of real numbers have the first alone).

    Args:
        task: a task, or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name.
        within: ``train``: pairs of training examples; ``train-test``: test examples that resemble a training example.
        rate: false positives per example searched for, by each kernel's null.
        seed: random seed of the metric's examples, of sketches and of u.
        progress: where the passes report.

    Returns:
        the suspected pairs and their numbers.

    Raises:
        TaskError: an unknown ``within``, or no test data for ``train-test``.
    """
    if within not in ("train", "train-test"):
        raise TaskError(f"duplicates within {within!r} are not defined", where="within", remedy="use train, train-test")
    space = checked_space(task)
    if within == "train-test" and task.test is None:
        raise TaskError("there are no test data", where="train-test", remedy="pass test data, or search within train")
    with untouched(task.model):
        kernel = whitening(task, space, seed, progress or Silent())
        return _stated(find_duplicates(task, space, kernel, within, rate=rate, seed=seed, progress=progress))


def _stated(pairs: Pairs) -> Duplicates:
    """The pairs, with the names of their counts."""
    exact, near, beyond = MEASURES[pairs.within]
    counted: Measurement | Unmeasured
    if isinstance(pairs.near, Value):
        counted = measurement_of(near, pairs.near)
    else:
        counted = Unmeasured(f"duplicates.near.{pairs.within}", pairs.near.reason, pairs.near.remedy)
    more = None if pairs.beyond is None else measurement_of(beyond, pairs.beyond)
    return Duplicates(dict(pairs.table), pairs.within, measurement_of(exact, pairs.exact), counted, more)


@dataclass(frozen=True)
class Whitening:
    """(F̂ + γI)^-½ by EKFAC.

    Args:
        bases: by block.
        weights: by block, (out, in) eigenvalues in these bases.
    """

    bases: dict[str, Bases]
    weights: dict[str, Tensor]


def whitening(task: Task, space: ParameterSpace, seed: int, progress: Progress) -> Whitening:
    """Read EKFAC on some training examples; γ is a tenth of the largest eigenvalue.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        seed: of the draw of examples and of sampled labels.
        progress: where both passes report.

    Returns:
        bases and weights of the blocks that a sketch can hold.
    """
    blocks = sketched(space.blocks, SKETCH)
    if not blocks:
        return Whitening({}, {})
    index = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(seed))[:METRIC_EXAMPLES]
    options = PassOptions(index=index.sort().values, seed=seed, progress=progress)
    passes = EkfacPasses(task, space, "mc", options, only=blocks)
    ekfac = passes.corrected(passes.factored())
    top = max(float(v.max()) for v in ekfac.values.values())
    return Whitening(ekfac.bases, {k: (v + DAMPING * top).rsqrt() for k, v in ekfac.values.items()})


def find_duplicates(
    task: Task,
    space: ParameterSpace,
    kernel: Whitening,
    within: str,
    *,
    rate: float = RATE,
    seed: int = 0,
    most: float = math.inf,
    progress: Progress | None = None,
) -> Pairs:
    """Search for duplicates with a given whitening.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        kernel: the metric of the network's kernel.
        within: ``train`` or ``train-test``.
        rate: false positives per example searched for.
        seed: of sketches and of the direction of the outputs.
        most: pairs beyond which only equal inputs are searched for.
        progress: where the passes report.

    Returns:
        the pairs, and how many there are.
    """
    asked = task.test if within == ACROSS and task.test is not None else task.train
    keys = _digests(task.train)
    asked_keys = keys if within == WITHIN else _digests(asked)
    exact = _exact(keys, asked_keys, within == WITHIN)
    rows: list[Row] = [("exact", i, j, 1.0, 0.0, "bytes") for i, j in exact]
    pairs = len(task.train) * len(asked)
    views = _views(task, space, kernel, asked, seed, progress) if pairs <= most else {}
    near: Value | Absent | None = _refused(task, asked, within, beyond=pairs > most, views=bool(views))
    beyond = None
    if near is None:
        closest = _closest(views, task.train, asked, within, rate, exact)
        alike = {(i, j): closeness for (i, j), closeness in closest.items() if keys[i] != asked_keys[j]}
        ordered = sorted(alike.items(), key=lambda pair: pair[1][1])
        rows += [("near", *pair, *closeness) for pair, closeness in ordered]
        near = Value(len(alike), len(asked), how=_how(space, list(views), rate))
        beyond = _beyond_chance(near, rate)
    return Pairs(_table(task, asked, rows), within, Value(len(exact), len(asked)), near, beyond)


def _refused(task: Task, asked: Data, within: str, *, beyond: bool, views: bool) -> Absent | None:
    """Why near pairs are not searched for; ``beyond``: too many pairs; ``views``: there is something to compare."""
    if len(task.train) < FEWEST or len(asked) < FEWEST:
        return Absent(f"fewer than {FEWEST} examples", "pass more examples")
    if beyond:
        reason = f"{len(task.train) * len(asked):,} pairs are more than an audit compares"
        return Absent(reason, f"run `memspace duplicates TASK --within {within}`")
    if not views:
        return Absent("too many parameters in every layer, and inputs that are no vectors", "choose fewer parameters")
    return None


def _closest(
    views: dict[str, Callable[[Data], Tensor]],
    train: Data,
    asked: Data,
    within: str,
    rate: float,
    exact: list[tuple[int, int]],
) -> dict[tuple[int, int], tuple[float, float, str]]:
    """(train, other) → (similarity, p, by) of neighbours closer than chance, by the view with the smaller chance."""
    closest: dict[tuple[int, int], tuple[float, float, str]] = {}
    for by, make in views.items():
        points = make(train)
        queries = points if within == WITHIN else make(asked)
        for i, j, similarity, p in _near(points, queries, within, rate / len(views), exact):
            if (i, j) not in closest or p * len(views) < closest[i, j][1]:
                closest[i, j] = (similarity, p * len(views), by)
    return closest


def _how(space: ParameterSpace, views: list[str], rate: float) -> str:
    """The criterion of near pairs, for people."""
    left = space.size - sum(b.size for b in sketched(space.blocks, SKETCH))
    out = f"; {left:,} parameters of large layers left out" if left else ""
    by = " and of ".join(_VIEWS[v] for v in views)
    return f"of {by}, nearest against neighbour {ORDER}; at most {rate:g} of examples by chance{out}"


def _beyond_chance(near: Value, rate: float) -> Value:
    """Near pairs less the most that chance gives; a Poisson count's exact interval (Garwood 1936)."""
    count, chance = near.value, rate * near.n
    low = float(chi2.ppf(0.025, 2 * count)) / 2 if count else 0.0
    high = float(chi2.ppf(0.975, 2 * count + 2)) / 2
    return Value(count - chance, near.n, (low - chance, high - chance), f"{rate:g} for each of {near.n:,} examples")


def _views(
    task: Task, space: ParameterSpace, kernel: Whitening, asked: Data, seed: int, progress: Progress | None
) -> dict[str, Callable[[Data], Tensor]]:
    """What examples are compared by: name → data → vectors (n, S)."""
    views: dict[str, Callable[[Data], Tensor]] = {}
    blocks = sketched(space.blocks, SKETCH)

    def network(data: Data) -> Tensor:
        table = GradientSketch(blocks, kernel.bases, kernel.weights, SKETCH, seed)
        run_pass(task, space, [table], PassOptions(data=data, seed=seed, progress=progress, what="kernel"))
        return table.finish()["sketch"]

    if blocks:
        views["network"] = network
    x = task.train.batch([0]).x
    if isinstance(x, Tensor) and x.is_floating_point():
        products = float(len(task.train)) * len(asked) * x.numel()
        short = x.numel() <= LONGEST and products <= PRODUCTS
        views["input"] = partial(_inputs, seed=None if short else seed)
    return views


def _inputs(data: Data, seed: int | None) -> Tensor:
    """Inputs as vectors; with a seed projected at random, which keeps their products to a few per cent."""
    parts, projection = [], None
    for part in data.batches(512):
        assert isinstance(part.x, Tensor)
        flat = part.x.flatten(1).float()
        if seed is not None and projection is None:
            generator = torch.Generator().manual_seed(seed)
            projection = torch.randn(flat.shape[1], SKETCH, generator=generator).to(flat) / SKETCH**0.5
        parts.append(flat if projection is None else flat @ projection)
    return torch.cat(parts)


def _near(
    points: Tensor, queries: Tensor, within: str, rate: float, exact: list[tuple[int, int]]
) -> list[tuple[int, int, float, float]]:
    """(train, other, similarity, p) of neighbours closer than chance; within the training data the lower one first."""
    same = within == "train"
    neighbours = nearest(queries, points, ORDER, same=same)
    clean = torch.ones(len(queries), dtype=torch.bool, device=points.device)
    for i, j in exact:
        clean[j] = False
        if same:
            clean[i] = False
    p = chance(neighbours, clean if bool(clean.any()) else None)
    neighbouring = []
    for q, k in (p < rate).nonzero().tolist():
        i = int(neighbours.index[q, k])
        pair = (min(i, q), max(i, q)) if same else (i, q)
        neighbouring.append((*pair, 1 - float(neighbours.distance[q, k]) ** 2 / 2, float(p[q, k])))
    return neighbouring


def _exact(keys: list[bytes], asked: list[bytes], same: bool) -> list[tuple[int, int]]:
    """(train, other) of equal inputs, with the first of the training data that is equal."""
    first: dict[bytes, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    return [(first[key], j) for j, key in enumerate(asked) if key in first and not (same and first[key] == j)]


def _digests(data: Data) -> list[bytes]:
    """A hash of each example's input."""
    digests = []
    for part in data.batches(512):
        leaves = _leaves(part.x)
        for k in range(len(part)):
            digest = hashlib.blake2b(digest_size=16)
            for leaf in leaves:
                digest.update(leaf[k].contiguous().cpu().numpy().tobytes())
            digests.append(digest.digest())
    return digests


def _leaves(x: Inputs) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    return [t for v in (x.values() if isinstance(x, dict) else x) for t in _leaves(v)]


def _table(task: Task, asked: Data, rows: list[Row]) -> dict[str, list[Any]]:
    names = ("kind", "train_index", "other_index", "similarity", "p_chance", "by")
    table: dict[str, list[Any]] = {name: [row[k] for row in rows] for k, name in enumerate(names)}
    for name, data, column in (("label", task.train, "train_index"), ("other_label", asked, "other_index")):
        y = data.labels()
        table[name] = [y[i].item() if y.dim() == 1 else None for i in table[column]]
        table[column] = data.numbers(torch.tensor(table[column], dtype=torch.long)).tolist()
    return table
