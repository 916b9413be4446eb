"""Dissection of a layer (Bau et al. 2017, 2020): units that detect concepts, in their own basis and in rotated ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memspace.arguments import check_fields
from memspace.errors import DataError, NonFiniteError, TaskError
from memspace.limits import SEED, WHOLE, Limit, one_of
from memspace.measurement import Unmeasured
from memspace.measures.scores.repeated import rotations as rotations_of
from memspace.progress import Progress, Silent
from memspace.reading.ablation import Ablation, AblationPlan, ablate
from memspace.reading.concepts import ConceptSource, ConceptTable, class_concepts, concept_source
from memspace.reading.detectors import Detectors, ExampleHalves, RotatedBasis, rotate_units, test_units
from memspace.reading.unit_scores import AreaScore, OverlapScore, UnitScore
from memspace.reading.unit_signals import LayerPlace, UnitSignals, layer_place, read_units
from memspace.task.task import Task

__all__ = ["ABLATIONS", "DATA", "DissectSettings", "Dissection", "read_dissection"]

ABLATIONS = ("zero", "mean", "none")
DATA = ("test", "train", "factors")
FEWEST = 5  # examples with a concept, and without, in each half
NUMBERS = 2**26  # of all activations read
PAIRS = 2**27  # of the table of examples by examples by units
SIGNED = 0.1  # of the mean square that negative activations make up; those of GELU or SiLU are less
PIXELS = 256  # positions of a mask, at most
ABLATED = 20  # concepts, at most
WHERE = "memspace.dissect"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DissectSettings:
    """How a layer is dissected.

    Args:
        examples: read at most, drawn at random.
        shuffles: of concepts between examples; with 19 or more a unit can stand out at all.
        rotations: random rotations of the units.
        least: score from which on a unit that stands out from the shuffles is a detector; None: 0.9 of areas under
            the curve, 0.04 of intersection over union.
        ablate: what units are set to, ``"zero"`` or their ``"mean"``; ``"none"``: there is no ablation.
        draws: of as many other units, as a control of each ablation.
        data: examples that a table of concepts, or classes, belong to: ``"test"``, ``"train"`` or ``"factors"``;
            None: test data where there are any.
        seed: of all draws.
    """

    examples: Annotated[int, Limit(4 * FEWEST, 2**20, whole=True)] = 1000
    shuffles: Annotated[int, Limit(19, 100_000, whole=True)] = 199
    rotations: Annotated[int, WHOLE] = 20
    least: Annotated[float | None, Limit(0, 1)] = None
    ablate: str = "zero"
    draws: Annotated[int, Limit(2, 10_000, whole=True)] = 5
    data: str | None = None
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        one_of(self.ablate, ABLATIONS, "ablate")
        if self.data is not None:
            one_of(self.data, DATA, "data")


@dataclass(frozen=True)
class Dissection:
    """A layer's units against concepts.

    Args:
        source: the examples.
        index: (n,) which of them were read.
        place: of the layer.
        score: how units are compared with concepts.
        table: concepts of the examples read that could be tested; of masks at the positions drawn.
        left_out: name of a concept that could not be tested → why.
        halves: of the examples read.
        detectors: the units.
        rotated: the same after rotations; None where there are none.
        ablation: None where there is none.
        unmeasured: why not.
        activations: (n, P, U) of all units.
    """

    source: ConceptSource
    index: Tensor
    place: LayerPlace
    score: UnitScore
    table: ConceptTable
    left_out: dict[str, str]
    halves: ExampleHalves
    detectors: Detectors
    rotated: RotatedBasis | None
    ablation: Ablation | None
    unmeasured: tuple[Unmeasured, ...]
    activations: Tensor

    @property
    def words(self) -> str:
        """Say what was read, for people."""
        total = len(self.source.data)
        many = f"all {total:,}" if len(self.index) == total else f"{len(self.index):,} of {total:,}"
        what = {"factors": "levels of factors", "classes": "classes", "given": "concepts"}[self.source.what]
        data = self.source.data.name
        data = f"{data.removesuffix(' data')} examples" if data.endswith(" data") else data
        return f"{self.place.words}: {self.place.units} units, {len(self.table.names)} {what}, {many} {data}"


def read_dissection(
    task: Task, concepts: Any = None, settings: DissectSettings | None = None, progress: Progress | None = None
) -> Dissection:
    """Compare every unit of a layer with every concept, rotate the units, and ablate the detectors.

    Args:
        task: the network, its data, and the layer's name.
        concepts: ``"factors"``, ``"classes"`` or a table; see :func:`memspace.reading.concepts.concept_source`.
        settings: how; None: the defaults.
        progress: where the work reports.

    Returns:
        what was found.

    Raises:
        TaskError: there is no such layer, its positions are not those of the concepts, or no unit varies.
        NonFiniteError: activations are NaN or infinite.
        MemspaceError: other bad input, in one sentence.
    """
    how = settings or DissectSettings()
    source = concept_source(task, concepts, how.data)
    place = layer_place(task, source.data)
    masks = source.table.shape if source.table is not None else ()
    size = _mask_size(place, masks) if masks else None
    index = _drawn(len(source.data), place, how, bool(masks))
    pixels = _pixels(masks, len(index), place.units, how.seed) if masks else None
    read = read_units(
        task, place, source.data, index, labelled=source.labelled, size=size, pixels=pixels, progress=progress
    )
    if not bool(torch.isfinite(read.a).all()):
        raise NonFiniteError("activations are NaN or infinite", where=place.words, remedy="check the inputs' scale")
    table = _table(task, source, index, read)
    shown = table if pixels is None else ConceptTable(table.names, table.has.flatten(2)[:, :, pixels])
    if shown.shape and read.a.shape[1] != math.prod(shown.shape):
        raise TaskError(
            f"{place.words} has {read.a.shape[1]} positions an example, and concepts {math.prod(shown.shape)}",
            where=f"{WHERE}, layer",
            remedy="name a layer whose positions are those of the concepts",
        )
    halves = ExampleHalves.draw(len(index), how.shuffles, how.seed)
    tested, left_out = _testable(shown, halves)
    units, prepared = _Prepared.of(read, tested, place)
    score: UnitScore = OverlapScore() if tested.shape else AreaScore(prepared.signed)
    least = score.least if how.least is None else how.least
    detectors = test_units(score, prepared.activations(None), prepared.concepts, halves, units, least)
    rotated, missing = None, []
    if len(units) > 1 and how.rotations:
        turns = _rotations(len(units), how, progress)
        rotated = rotate_units(score, prepared.activations, prepared.concepts, halves, turns, least)
    else:
        why = "one unit varies: there is nothing to rotate" if len(units) < 2 else "no rotation is asked for"
        missing.append(Unmeasured("dissect.detectors.rotated", why, "name a wider layer, or ask for rotations"))
    whole = {name: table.has[:, k] for k, name in enumerate(table.names)}
    ablation = _ablation(task, how, place, source, index, read, halves, detectors, tested, whole, progress)
    if isinstance(ablation, Unmeasured):
        missing.append(ablation)
    elif ablation.absent is None:
        reason = "every example has the concepts that have detectors"
        missing.append(Unmeasured("dissect.ablation.without", reason, "give concepts that some examples lack"))
    if isinstance(ablation, Ablation) and ablation.control is None:
        reason = f"no concept leaves as many other units as it has detectors among {len(units)}"
        missing.append(Unmeasured("dissect.ablation.control", reason, "name a wider layer, or raise least"))
    return Dissection(
        source, index, place, score, tested, left_out, halves, detectors, rotated,
        None if isinstance(ablation, Unmeasured) else ablation, tuple(missing), read.a,
    )  # fmt: skip


@dataclass(frozen=True)
class _Prepared:
    """Activations of the units that vary, and concepts, as scores take them."""

    a: NDArray[np.float32]  # (n, P, U)
    concepts: NDArray[np.bool_]
    counted: NDArray[np.bool_] | None  # (n, P)

    @staticmethod
    def of(read: UnitSignals, table: ConceptTable, place: LayerPlace) -> tuple[NDArray[np.int64], _Prepared]:
        """Find the units that vary."""
        spread = read.a.flatten(0, 1).std(0)
        units = torch.nonzero(spread > 1e-6 * spread.max()).flatten()
        if not len(units):
            raise TaskError(
                f"none of the {place.units} units of {place.words} varies on these examples",
                where=f"{WHERE}, layer",
                remedy="name another layer, Task(layer=...) or --layer",
            )
        has = table.has.flatten(2).transpose(1, 2) if table.shape else table.has
        counted = table.counted.flatten(1) if table.counted is not None else read.counted
        a = read.a[:, :, units].numpy()
        return units.numpy(), _Prepared(a, has.numpy(), None if counted is None else counted.numpy())

    @property
    def signed(self) -> bool:
        """Whether activations have two signs, and a unit may stand for a concept by being low."""
        negative = np.minimum(self.a, 0)
        return float(np.vdot(negative, negative)) > SIGNED * float(np.vdot(self.a, self.a))

    def activations(self, rotation: Floats | None) -> Floats:
        """By position where concepts are, else the largest of an example; what does not count is −∞."""
        a = self.a if rotation is None else self.a @ rotation.astype(np.float32)
        if self.counted is not None:
            a = np.where(self.counted[:, :, None], a, -np.inf)
        return np.asarray(a if self.concepts.ndim == 3 else a.max(1))


def _rotations(width: int, how: DissectSettings, progress: Progress | None) -> Iterator[Floats]:
    """Draw rotations one at a time: those of a wide layer are large."""
    seeds = range(how.seed + 83, how.seed + 83 + 1000 * how.rotations, 1000)
    for seed in (progress or Silent()).track(seeds, "rotations", how.rotations):
        yield rotations_of(width, 1, seed)[0]


def _mask_size(place: LayerPlace, masks: tuple[int, ...]) -> tuple[int, ...]:
    """Positions that maps are brought to, or an error where a layer's positions are not those of the masks."""
    grid = place.axis == 1 or len(masks) > 1
    if len(place.shape) != len(masks) or (not grid and place.shape != masks):
        made = f"positions {place.shape}" if place.shape else "no positions"
        raise TaskError(
            f"concepts are given by position {masks}, and {place.words} has {made}",
            where=f"{WHERE}, layer",
            remedy="name a layer of maps or positions, or give concepts by example: (n, K)",
        )
    return masks


def _drawn(total: int, place: LayerPlace, how: DissectSettings, masks: bool) -> Tensor:
    """Positions of the examples read: as many as are asked for and as memory holds."""
    most = min(how.examples, max(100, NUMBERS // (place.units * math.prod(place.shape))))
    if masks or place.shape:
        most = min(most, max(100, 2 * math.isqrt(PAIRS // place.units)))
    if total < 4 * FEWEST:
        raise DataError(
            f"{total} examples are too few to dissect a layer", where=WHERE, remedy=f"give {4 * FEWEST} or more"
        )
    order = torch.randperm(total, generator=torch.Generator().manual_seed(how.seed + 89))
    return order[:most].sort().values


def _pixels(masks: tuple[int, ...], n: int, units: int, seed: int) -> Tensor | None:
    """Some positions of the masks, the same for all examples; None: all of them."""
    total = math.prod(masks)
    most = min(PIXELS, max(64, NUMBERS // (n * units)))
    if total <= most:
        return None
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(seed + 97))[:most]
    return drawn.sort().values


def _table(task: Task, source: ConceptSource, index: Tensor, read: UnitSignals) -> ConceptTable:
    table = source.of(index)
    if table is None:
        assert read.y is not None
        table = class_concepts(task, read.f, read.y)
    return table


def _testable(table: ConceptTable, halves: ExampleHalves) -> tuple[ConceptTable, dict[str, str]]:
    """Leave out concepts that too few examples of a half have or lack."""
    some = table.has.flatten(2).any(2) if table.shape else table.has
    every = table.has.flatten(2).all(2) if table.shape else table.has
    tested, left_out = [], {}
    for k, name in enumerate(table.names):
        half = [(int(some[h, k].sum()), int((~every[h, k]).sum())) for h in (halves.choosing, halves.judging)]
        least_with, least_without = min(a for a, _ in half), min(b for _, b in half)
        if min(least_with, least_without) >= FEWEST:
            tested.append(k)
            continue
        lacking, verb = (least_with, "have") if least_with < FEWEST else (least_without, "lack")
        left_out[name] = f"{lacking} examples of a half {verb} it, fewer than {FEWEST}"
    if not tested:
        name, why = next(iter(left_out.items()))
        raise DataError(
            f"no concept can be tested: of {name!r} {why}",
            where=WHERE,
            remedy="give more examples, or concepts that some examples have and others lack",
        )
    return ConceptTable(tuple(table.names[k] for k in tested), table.has[:, tested], table.counted), left_out


def _ablation(
    task: Task,
    how: DissectSettings,
    place: LayerPlace,
    source: ConceptSource,
    index: Tensor,
    read: UnitSignals,
    halves: ExampleHalves,
    detectors: Detectors,
    table: ConceptTable,
    has: dict[str, Tensor],
    progress: Progress | None,
) -> Ablation | Unmeasured:
    """Ablate the units that the first half alone picks for each concept."""
    if how.ablate == "none":
        return Unmeasured("dissect.ablation", "it was not asked for", "ask for ablate='zero' or 'mean'")
    chosen, units = detectors.basis.chosen, detectors.units
    picked = chosen.score >= detectors.least
    by_concept = {k: units[picked & (chosen.concept == k)] for k in range(len(table.names))}
    most = sorted((k for k in by_concept if len(by_concept[k])), key=lambda k: -len(by_concept[k]))[:ABLATED]
    if not most:
        return Unmeasured(
            "dissect.ablation",
            f"no unit reaches {detectors.least:g} on the half of the examples on which units are chosen",
            "lower least, or name another layer",
        )
    judging = torch.from_numpy(halves.judging)
    value = torch.zeros(place.units)
    if how.ablate == "mean":
        value = read.a[torch.from_numpy(halves.choosing)].flatten(0, 1).mean(0)
    plan = AblationPlan(
        {table.names[k]: tuple(by_concept[k].tolist()) for k in most},
        tuple(units.tolist()),
        value,
        source.data,
        index[judging],
        read.f[judging.to(read.f.device)],
        None if read.y is None else read.y[judging.to(read.y.device)],
        {table.names[k]: has[table.names[k]][judging] for k in most},
        how.draws,
        how.seed,
    )
    return ablate(task, place, plan, progress)
