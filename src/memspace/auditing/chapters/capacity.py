"""Capacity: how full the memory is, by layer and by example."""

from __future__ import annotations

import numpy as np

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.results import Figure, Finding, Series
from memspace.measures import capacity as measures
from memspace.measures.capacity import BitsByExample, BitsByLayer
from memspace.measures.values import TrainingOutputs
from memspace.passes.space import ParameterSpace

__all__ = ["CAPACITY"]

DRAWN = 200  # points of the figure's line at most


def answer(space: ParameterSpace, outputs: TrainingOutputs, layers: BitsByLayer, examples: BitsByExample | None) -> str:
    """Say how many bits are in use, and by how many examples."""
    bits, n = layers.total, outputs.n
    used = (
        f"{bits:,.0f} bits are in use, {bits / n:.2g} per training example and {bits / space.size:.2g} per parameter."
    )
    if examples is None:
        return used
    half = int(np.searchsorted(_held_by_most(examples), 0.5)) + 1
    return f"{used} {half / n:.0%} of the examples account for half of the per-example information."


def densest_layer(space: ParameterSpace, layers: BitsByLayer) -> Finding | None:
    """Name the layers with most and fewest bits a parameter.

    That a fuller layer should be the one to widen has not been measured: the finding gives no advice.
    """
    names, density = space.labels, np.asarray(layers.bits) / np.asarray([b.size for b in space.blocks])
    if len(names) < 2 or not layers.total > 0:
        return None
    most, fewest = int(np.argmax(density)), int(np.argmin(density))
    return Finding(
        "note",
        f"{names[most]} holds the most bits per parameter, {names[fewest]} the fewest",
        f"{density[most]:.2g} against {density[fewest]:.2g} bits per parameter.",
        "Nothing to do.",
        "capacity",
    )


def layer_figure(space: ParameterSpace, layers: BitsByLayer) -> Figure:
    """Draw the bits of each layer."""
    return Figure(
        "bits-by-layer",
        "Where the bits are",
        "Bits used by each layer; the parts sum to the whole.",
        "layer",
        "bits",
        (Series("bits", space.labels, layers.bits, "bar"),),
    )


def example_figure(examples: BitsByExample) -> Figure:
    """Draw how much of the per-example bits the examples with the most hold."""
    share, n = _held_by_most(examples), len(examples.bits)
    at = np.unique(np.linspace(0, n - 1, min(n, DRAWN)).astype(int))
    return Figure(
        "bits-by-example",
        "Which examples take the most bits",
        "Share of the per-example bits held by the examples with the most.",
        "share of examples",
        "share of bits",
        (Series("bits", ((at + 1) / n).tolist(), share[at].tolist()),),
    )


def _held_by_most(examples: BitsByExample) -> np.ndarray:
    """Share of all bits held by the k examples with the most, for each k."""
    ordered = examples.bits.sort(descending=True).values
    return np.asarray(np.cumsum(ordered.cpu().numpy()) / max(float(ordered.sum()), 1e-300))


CAPACITY = ChapterDeclaration(
    id="capacity",
    title="Capacity",
    question="How full is the memory, and with what?",
    answer=answer,
    measures=(
        measures.bits_used,
        measures.bits_per_parameter,
        measures.bits_per_example,
        measures.bits_left,
        measures.bits_given_the_rest,
    ),
    tables=(measures.layer_columns, measures.example_columns),
    findings=(densest_layer,),
    figures=(layer_figure, example_figure),
)
