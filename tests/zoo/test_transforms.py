"""Changes of weights that leave a network's function alone, for every family; and gains, which leave its decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from memspace.errors import SettingsError, TaskError
from memspace.zoo.registry import ZooData
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.training.draws import initial_network
from memspace.zoo.training.stack import flat_weights
from memspace.zoo.transforms import EXACT, GAINS, Transform, transformed, transforms_of
from memspace.zoo.units import units_of
from tests.zoo.test_training import FAMILIES, data_for, spec_of


def precise(data: ZooData) -> ZooData:
    """The same inputs in float64; tokens stay."""
    return replace(data, x=data.x.double()) if data.x.is_floating_point() else data


def states_of(spec: NetworkSpec, data: ZooData, count: int = 2) -> Tensor:
    """Weights that are no initialisation: norms and biases of every kind are away from 1 and 0."""
    start = flat_weights(initial_network(spec, data)).double()
    generator = torch.Generator().manual_seed(spec.seed + 5)
    return torch.stack([start + 0.3 * torch.randn(start.shape, generator=generator).double() for _ in range(count)])


def outputs_of(model: nn.Module, data: ZooData) -> Tensor:
    with torch.no_grad():
        return model(data.x)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("kind", FAMILIES)
def test_exact_changes_leave_all_outputs_alone(kind: str, depth: int) -> None:
    spec = spec_of(kind, depth=depth, seed=depth)
    data = precise(data_for(spec.data))
    states = states_of(spec, data)
    before = outputs_of(transformed(spec, data, states, Transform("none"))[0], data)
    changes = [t for t in transforms_of(initial_network(spec, data)) if t.name in EXACT]
    assert {t.name for t in changes} == set(EXACT) - ({"rescaling"} if kind == "recurrent" else set())
    for transform in changes:
        model, moved = transformed(spec, data, states, transform)
        torch.testing.assert_close(outputs_of(model, data), before, rtol=1e-11, atol=1e-11)
        assert torch.equal(flat_weights(model), moved[-1])
        if transform.name != "dead units":
            assert float((moved - states).abs().max()) > 0.1  # something was changed
        else:
            assert moved.shape[1] > states.shape[1]


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_gain_multiplies_the_logits_and_changes_no_decision(kind: str) -> None:
    spec = spec_of(kind)
    data = precise(data_for(spec.data))
    states = states_of(spec, data)
    before = outputs_of(transformed(spec, data, states, Transform("none"))[0], data)
    for gain in GAINS:
        after = outputs_of(transformed(spec, data, states, Transform("gain", gain))[0], data)
        torch.testing.assert_close(after, gain * before, rtol=1e-12, atol=1e-12)
        assert torch.equal(after.argmax(-1), before.argmax(-1))


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_permuted_state_computes_what_it_computed(kind: str) -> None:
    """The order is one for the whole path: the initialisation too is only renamed, and lengths of steps stay."""
    spec = spec_of(kind)
    data = precise(data_for(spec.data))
    states = states_of(spec, data)
    _, moved = transformed(spec, data, states, Transform("permutation"))
    torch.testing.assert_close((moved[1] - moved[0]).norm(), (states[1] - states[0]).norm(), rtol=1e-12, atol=0)
    first, _ = transformed(spec, data, states[:1], Transform("none"))
    renamed, _ = transformed(spec, data, moved[:1], Transform("none"))
    torch.testing.assert_close(outputs_of(renamed, data), outputs_of(first, data), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", FAMILIES)
def test_nobody_reads_an_added_unit_but_it_is_not_zero(kind: str) -> None:
    spec = spec_of(kind)
    data = precise(data_for(spec.data))
    model, _ = transformed(spec, data, states_of(spec, data), Transform("dead units", 3))
    before = outputs_of(model, data)
    for units in (u for u in units_of(model) if u.grows):
        added = torch.arange(units.count - 3, units.count)
        for port in units.incoming:
            with torch.no_grad():
                parameter = model.get_parameter(port.name)
                at = port.index(added, units.count)
                values = parameter.index_select(port.axis, at)
                assert float(values.abs().max()) > 0
                parameter.index_copy_(port.axis, at, -3.0 * values + 1.0)
    torch.testing.assert_close(outputs_of(model, data), before, rtol=1e-11, atol=1e-11)


def test_the_same_change_is_drawn_again_and_another_seed_draws_another() -> None:
    spec, data = spec_of("mlp"), precise(data_for("digits"))
    states = states_of(spec, data)
    once, again = (transformed(spec, data, states, Transform("permutation"))[1] for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, transformed(replace(spec, seed=1), data, states, Transform("permutation"))[1])


def test_what_cannot_be_done_is_one_sentence() -> None:
    spec = spec_of("recurrent")
    data = data_for(spec.data)
    with pytest.raises(SettingsError, match="no ReLU"):
        transformed(spec, data, states_of(spec, data), Transform("rescaling", 2.0))
    with pytest.raises(SettingsError, match="transform"):
        Transform("rotation")
    with pytest.raises(SettingsError, match="added"):
        Transform("dead units", 1.5)
    with pytest.raises(TaskError, match="units of a Linear"):
        units_of(nn.Linear(2, 2))
