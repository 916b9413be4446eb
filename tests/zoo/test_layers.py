"""What losing a layer costs: against another way to compute it, and cases whose answer is known."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from memspace.passes.verify import checked_space
from memspace.task.data import Data
from memspace.task.task import Task
from memspace.zoo.results import ZooResults
from memspace.zoo.stages.layers import LayersPiece, layer_costs, layer_table
from memspace.zoo.store import ZooStore
from memspace.zoo.training.draws import initial_network, labels_of
from memspace.zoo.training.group import train_group
from memspace.zoo.training.stack import Weights
from tests.zoo.test_training import FAMILIES, data_for, spec_of


@pytest.mark.parametrize("kind", FAMILIES)
def test_costs_are_those_of_a_network_with_one_module_of_its_start(kind: str) -> None:
    spec = spec_of(kind, label_noise=0.1)
    data = data_for(spec.data)
    (trained,) = train_group([spec], data)
    states = torch.stack([v for _, v in trained.states])
    rows = layer_costs(spec, data, states)
    start, model = initial_network(spec, data), initial_network(spec, data)
    with torch.no_grad():
        for name, values in Weights.of(model).split(states[-1]).items():
            model.get_parameter(name).copy_(values)
    task = Task(copy.deepcopy(model).eval(), Data((data.x[: spec.size], data.y[: spec.size])))
    assert [r["layer"] for r in rows] == [b.name for b in checked_space(task).blocks]
    assert sum(r["parameters"] for r in rows) == states.shape[1]
    y = labels_of(spec, data)

    def loss_and_share(network: nn.Module) -> tuple[float, float]:
        with torch.no_grad():
            f = network(data.x[: spec.size]).double()
        loss = nn.functional.cross_entropy(f.flatten(0, -2), y.flatten())
        return float(loss), float((f.argmax(-1) == y).double().mean())

    before = loss_and_share(model)
    for row in rows:
        other = copy.deepcopy(model)
        other.get_submodule(row["layer"]).load_state_dict(start.get_submodule(row["layer"]).state_dict())
        after = loss_and_share(other)
        assert row["cost_reinitialised"] == pytest.approx(after[0] - before[0], rel=1e-5, abs=1e-5)
        assert row["accuracy_drop_reinitialised"] == pytest.approx(before[1] - after[1], abs=1e-9)
    assert max(r["cost_rerandomised"] for r in rows) > 0.1  # what was learned is lost with some layer


def test_a_network_that_never_moved_loses_nothing_by_going_back() -> None:
    spec = spec_of("conv")
    data = data_for(spec.data)
    weights = torch.cat([p.detach().flatten() for p in initial_network(spec, data).parameters()])
    rows = layer_costs(spec, data, torch.stack([weights, weights]))
    assert {r[c] for r in rows for c in r if c.endswith("_reinitialised")} == {0.0}
    assert any(r["cost_rerandomised"] != 0 for r in rows)


def test_costs_are_written_once_and_join_the_fisher_mass(tmp_path: Path) -> None:
    spec = spec_of("mlp")
    (trained,) = train_group([spec], data_for("digits"))
    store = ZooStore(tmp_path)
    store.add_trained(trained, "a", {})
    assert not store.has_results()
    piece = LayersPiece((spec,), tmp_path, None)
    assert piece() == 1
    assert piece() == 0
    assert store.has_results([spec.key])
    assert "fisher_trace" not in layer_table(store).columns
    of_layers = [(m, k, n) for m in (0.1, 1.0) for k, n in enumerate(("hidden.0", "head"))]
    rows = [
        {"key": spec.key, "moment": m, "place": k, "layer": n, "fisher_trace": m * (k + 1)} for m, k, n in of_layers
    ]
    store.add_rows("layers", spec.key, rows)
    table = ZooResults([store]).table("layer_costs")
    assert table.sort("place")["layer"].to_list() == ["hidden.0", "head"]
    assert table.sort("place")["fisher_trace_share"].to_list() == pytest.approx([1 / 3, 2 / 3])
    assert table["parameters"].sum() == trained.states[0][1].numel()  # a layer's, not the network's
    assert table["fitted"].to_list() == [True, True]
    packed = store.pack(tmp_path / "packed")
    assert packed.digest() == store.digest()
    assert packed.rows("layer_costs").equals(store.rows("layer_costs"))
