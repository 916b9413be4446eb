"""Layers: which of them carry the distance between two networks."""

from __future__ import annotations

from torch import Tensor

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.compare import NetworkComparison
from memspace.auditing.results import Figure, Series
from memspace.measures.declaration import measure
from memspace.value import Value

__all__ = ["LAYERS"]

LENGTH = "nats^½"
METHOD = "exact metric at the middle of each side of the path found"


def _by_layer(found: NetworkComparison, lengths: Tensor, note: str) -> dict[str, Value]:
    n, how = found.geodesic.probe.n, f"{len(found.geodesic.points) - 1} sides"
    return {
        label: Value(length, n, how=how, note=note)
        for label, length in zip(found.layers.labels, lengths.tolist(), strict=True)
    }


@measure("layers.carried", chapter="layers", unit=LENGTH, estimator=METHOD)
def carried(found: NetworkComparison) -> dict[str, Value]:
    """Length that each layer carries; negative where it undoes what others do."""
    return _by_layer(found, found.layers.carried, "the layers' sum to the whole length")


@measure("layers.alone", chapter="layers", unit=LENGTH, estimator=METHOD)
def alone(found: NetworkComparison) -> dict[str, Value]:
    """Length of the path if one layer alone had moved."""
    return _by_layer(found, found.layers.alone, "if this layer alone had moved")


def _shares(found: NetworkComparison) -> list[float]:
    lengths = found.layers.carried
    total = float(lengths.sum())
    return (lengths / total).tolist() if total > 0 else [0.0] * len(lengths)


def answer(found: NetworkComparison) -> str:
    """Name the layer that carries most."""
    shares = _shares(found)
    most = max(range(len(shares)), key=lambda k: shares[k])
    return f"{found.layers.labels[most]} carries most of the path: {shares[most]:.0%} of its length."


def layer_figures(found: NetworkComparison) -> tuple[Figure, ...]:
    """Draw each layer's share of the length, and its length alone."""
    names = list(found.layers.labels)
    return (
        Figure(
            "carried",
            "Length carried by each layer",
            "The parts sum to the path's length; a negative one undoes what others do.",
            "layer",
            "share",
            (Series("share of the length", names, _shares(found), "bar"),),
        ),
        Figure(
            "alone",
            "Length if one layer alone had moved",
            "Together these exceed the path's length where layers move so that their effects cancel.",
            "layer",
            LENGTH,
            (Series("alone", names, found.layers.alone.tolist(), "bar"),),
        ),
    )


LAYERS = ChapterDeclaration(
    id="layers",
    title="Layers",
    question="Which layers carry the distance?",
    answer=answer,
    measures=(carried, alone),
    figures=(layer_figures,),
)
