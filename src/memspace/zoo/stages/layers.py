"""What a trained network loses with a layer: set back to its initial weights, or to fresh ones (Zhang et al. 2022).

Only forward passes. A layer is a block of parameters, named as in the layers that ``measure_network`` reads the Fisher
mass of, so that the two tables join by ``key`` and ``layer``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from memspace.frames import polars
from memspace.passes.space import ParameterSpace
from memspace.zoo.declaration import Zoo
from memspace.zoo.registry import ZooData
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.stage import NetworksPiece, stage, undone
from memspace.zoo.stages.outcomes import losses_of
from memspace.zoo.store import ZooStore
from memspace.zoo.training.draws import initial_network, labels_of
from memspace.zoo.training.stack import Weights
from memspace.zoo.work import data_of, parts_by_data

if TYPE_CHECKING:
    import polars as pl

__all__ = ["LayersPiece", "layer_costs", "layer_pieces", "layer_table"]

TOGETHER = 24  # networks of a piece
FRESH = 3  # draws of fresh weights
FRESH_SEED = 1_000_000  # beyond the seeds that a zoo trains
TEST_EXAMPLES = 400  # at most


@dataclass(frozen=True)
class LayersPiece(NetworksPiece):
    """Networks whose layers are to be set back."""

    table = "layer_costs"

    def work(self, store: ZooStore, spec: NetworkSpec, tick: Callable[[], None]) -> None:
        """Compute what losing each layer of a network costs.

        Args:
            store: that has the trained network.
            spec: of the network.
            tick: not called.
        """
        _, states = store.states(spec.key)
        store.add_rows(self.table, spec.key, layer_costs(spec, data_of(spec.data, self.data_root), states))


@stage("layers", 3)
def layer_pieces(zoo: Zoo, store: ZooStore, data_root: Path | None) -> list[LayersPiece]:
    """Cut the trained networks whose layers were not looked at into pieces.

    Args:
        zoo: the declaration.
        store: what is there.
        data_root: where data sets lie.

    Returns:
        The pieces.
    """
    due = undone(store, LayersPiece.table)
    return [LayersPiece(part, store.folder, data_root) for part in parts_by_data(zoo, due, TOGETHER)]


def layer_costs(spec: NetworkSpec, data: ZooData, states: Tensor) -> list[dict[str, Any]]:
    """Compute what losing each layer of a network costs at the end of its training, all other layers as trained.

    Args:
        spec: of the network.
        data: it was trained on.
        states: (S, P) weights, the initialisation first.

    Returns:
        A row a layer, from the input on: ``place``, ``layer``, ``parameters``; ``cost_reinitialised`` and
        ``cost_rerandomised``, the rise of the mean training loss (nats a prediction) with the network's own initial
        weights, and with fresh ones (mean of three draws; ``cost_rerandomised_spread``: their standard deviation);
        ``accuracy_drop_…``, and all of them on at most 400 test examples with ``test_`` before.
    """
    model = initial_network(spec, data)
    layout = Weights.of(model)
    start, trained = layout.split(states[0]), layout.split(states[-1])
    fresh = [
        dict(initial_network(replace(spec, seed=FRESH_SEED + FRESH * spec.seed + k), data).named_parameters())
        for k in range(FRESH)
    ]
    x, y = data.x[: spec.size], labels_of(spec, data)
    test = data.x_test[:TEST_EXAMPLES], data.y_test[:TEST_EXAMPLES]

    def risen(weights: dict[str, Tensor]) -> dict[str, float]:
        """Rises against the network as it is, by column."""
        return {n: v - whole[n] for n, v in _means(model, weights, (x, y), test).items()}

    whole = _means(model, trained, (x, y), test)
    rows = []
    for place, block in enumerate(ParameterSpace(model).blocks):
        initial = risen({**trained, **{n: start[n] for n in block.names}})
        others = [risen({**trained, **{n: weights[n] for n in block.names}}) for weights in fresh]
        row: dict[str, Any] = {"key": spec.key, "place": place, "layer": block.name or "model"}
        row["parameters"] = block.size
        row |= _columns(initial, "reinitialised")
        row |= _columns({n: float(np.mean([o[n] for o in others])) for n in initial}, "rerandomised")
        row["cost_rerandomised_spread"] = float(np.std([o["loss"] for o in others], ddof=1))
        rows.append(row)
    return rows


def layer_table(store: ZooStore) -> pl.DataFrame:
    """Join costs of layers and their Fisher mass at the end of training.

    Args:
        store: with costs.

    Returns:
        A row a layer: ``key``, ``place``, ``layer``, ``parameters``, costs, ``fisher_trace`` (nats; null where
        the network was not measured) and ``fisher_trace_share``, its part of that of all layers.
    """
    column = polars().col
    costs, layers = store.rows("layer_costs"), store.rows("layers")
    if not len(costs):
        return costs
    if not len(layers):
        return costs
    at_end = layers.filter(column("moment") == 1.0).select("key", "layer", "fisher_trace")
    share = column("fisher_trace") / column("fisher_trace").sum().over("key")
    return costs.join(at_end, on=["key", "layer"], how="left").with_columns(fisher_trace_share=share)


def _means(
    model: nn.Module, weights: dict[str, Tensor], train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> dict[str, float]:
    """Mean losses and accuracies."""
    means = {}
    for prefix, (x, y) in (("", train), ("test_", test)):
        loss, hit = losses_of(model, weights, x, y)
        means[f"{prefix}loss"], means[f"{prefix}accuracy"] = float(loss.mean()), float(hit.mean())
    return means


def _columns(rises: dict[str, float], how: str) -> dict[str, float]:
    """Name rises of losses as costs, and those of accuracies, with the other sign, as drops."""
    columns = {}
    for prefix in ("", "test_"):
        columns[f"{prefix}cost_{how}"] = rises[f"{prefix}loss"]
        columns[f"{prefix}accuracy_drop_{how}"] = -rises[f"{prefix}accuracy"]
    return columns
