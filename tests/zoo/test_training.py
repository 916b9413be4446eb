"""Networks of a zoo: what they draw, where their training ends, and that company does not change them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from memspace.errors import SettingsError
from memspace.task.functional import functional_call
from memspace.zoo.registry import ZooData
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.training.draws import batch_at, initial_network, labels_of, masks_at
from memspace.zoo.training.group import CLOSE, train_group
from memspace.zoo.training.stack import Stack, Weights, flat_weights, mean_losses
from memspace.zoo.work import data_of

FAMILIES = {
    "mlp": {"family": "mlp", "data": "digits"},
    "conv": {"family": "conv", "data": "digits"},
    "recurrent": {"family": "recurrent", "data": "tokens"},
    "transformer": {"family": "transformer", "data": "tokens"},
    "character model": {"family": "transformer", "data": "characters"},
}


def tokens(everywhere: bool) -> ZooData:
    """Sequences in which a token decides the class, or the next token is a function of the last."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(0, 6, (80, 7), generator=generator)
    y = (x + 1) % 6 if everywhere else (x == 2).any(1).long()
    return ZooData(x[:60], y[:60], x[60:], y[60:], 6 if everywhere else 2, 6)


def data_for(name: str) -> ZooData:
    return data_of("digits", None) if name == "digits" else tokens(name == "characters")


def spec_of(kind: str, **changes: object) -> NetworkSpec:
    values = {"width": 8, "depth": 1, "rate": 3.0, "batch": 16, "decay": 0.0, "dropout": 0.0, "label_noise": 0.0}
    rest = {"size": 60, "optimiser": "adam", "seed": 0, "target": 0.4, "most": 1500}
    return NetworkSpec(**{**values, **rest, **FAMILIES[kind], **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", FAMILIES)
def test_company_does_not_change_a_network(kind: str) -> None:
    data = data_for(spec_of(kind).data)
    specs = [spec_of(kind, seed=s, rate=r, most=200) for s, r in ((0, 3.0), (1, 3.0), (0, 6.0), (2, 1.0))]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        together = {t.spec.key: t for t in train_group(specs, data)}
        (alone,) = train_group(specs[:1], data)
    finally:
        torch.set_num_threads(threads)
    other = together[specs[0].key]
    assert alone.steps == other.steps
    assert alone.curve == other.curve
    for (step, mine), (step_too, theirs) in zip(alone.states, other.states, strict=True):
        assert step == step_too
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("kind", FAMILIES)
def test_training_ends_at_the_target(kind: str) -> None:
    spec = spec_of(kind)
    data = data_for(spec.data)
    (trained,) = train_group([spec], data)
    assert trained.reached
    model = initial_network(spec, data)
    weights = Weights.of(model).split(trained.states[-1][1])
    f = functional_call(model, weights, (data.x[: spec.size],)).double()
    loss = nn.functional.cross_entropy(f.flatten(0, -2), data.y[: spec.size].flatten())
    assert abs(float(loss) - spec.target) <= 1.1 * CLOSE * spec.target  # rounding of float32 outputs
    assert [s for s, _ in trained.states] == sorted({s for s, _ in trained.states})
    assert trained.states[0][0] == 0
    assert torch.equal(trained.states[0][1], flat_weights(initial_network(spec, data)))


def test_a_network_that_does_not_get_there_is_given_up() -> None:
    spec = spec_of("mlp", target=1e-6, most=60)
    (trained,) = train_group([spec], data_for("digits"))
    assert not trained.reached
    assert trained.steps == 60


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("sgd", lambda p, s: torch.optim.SGD(p, s.learning_rate, 0.9, weight_decay=s.decay)),
        ("adam", lambda p, s: torch.optim.Adam(p, s.learning_rate, weight_decay=s.decay)),
        ("rmsprop", lambda p, s: torch.optim.RMSprop(p, s.learning_rate, weight_decay=s.decay)),
    ],
)
def test_optimisers_are_those_of_torch(name: str, make: object) -> None:
    spec = spec_of("mlp", optimiser=name, decay=0.01, rate=1.0)
    data = data_for("digits")
    model = initial_network(spec, data)
    vectors = flat_weights(model)[None]
    stack = Stack(model, (spec,), labels_of(spec, data)[None], vectors, 0 * vectors, 0 * vectors)
    optimiser = make(list(model.parameters()), spec)  # type: ignore[operator]
    for step in range(5):
        at = batch_at(spec, step)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(data.x[at]), data.y[at]).backward()
        optimiser.step()
        stack = stack.stepped(data)
    # Adam divides by roots of sums of squares: rounding of a small gradient moves a weight by a part of the rate.
    torch.testing.assert_close(stack.vectors[0], flat_weights(model), rtol=1e-4, atol=1e-5)


def test_dropout_masks_have_their_share_and_are_of_the_step() -> None:
    spec = spec_of("mlp", dropout=0.25, batch=50)
    (mask,) = masks_at(spec, ((400,),), 7)
    assert mask.shape == (50, 400)
    kept = (mask > 0).double().mean().item()
    assert abs(kept - 0.75) < 5 * (0.25 * 0.75 / mask.numel()) ** 0.5
    assert torch.equal(mask, masks_at(spec, ((400,),), 7)[0])
    assert not torch.equal(mask, masks_at(spec, ((400,),), 8)[0])


def test_label_noise_is_an_exact_share_and_never_the_right_label() -> None:
    spec, data = spec_of("mlp", label_noise=0.2), data_for("digits")
    wrong = labels_of(spec, data) != data.y[: spec.size]
    assert int(wrong.sum()) == 12
    assert torch.equal(labels_of(spec, data), labels_of(spec, data))
    assert not torch.equal(labels_of(spec, data), labels_of(replace(spec, seed=1), data))


def test_permuted_labels_keep_their_frequencies() -> None:
    spec, data = spec_of("mlp", permuted=True), data_for("digits")
    y = labels_of(spec, data)
    assert torch.equal(y.sort().values, data.y[: spec.size].sort().values)
    assert not torch.equal(y, data.y[: spec.size])


def test_an_epoch_goes_through_every_example_once() -> None:
    spec = spec_of("mlp", batch=15)
    places = torch.cat([batch_at(spec, t) for t in range(4)])
    assert sorted(places.tolist()) == list(range(60))
    assert not torch.equal(torch.cat([batch_at(spec, t) for t in range(4, 8)]), places)


def test_weights_that_learned_random_labels_start_elsewhere() -> None:
    data = data_for("digits")
    fresh, taught = spec_of("mlp"), spec_of("mlp", start="random labels")
    (one,), (other,) = train_group([fresh], data), train_group([taught], data)
    assert other.reached
    assert fresh.key != taught.key
    moved = other.states[0][1] - one.states[0][1]
    assert float(moved.norm()) > 0
    permuted = labels_of(replace(taught, permuted=True), data)[None]
    model = initial_network(taught, data)
    x = data.x[: taught.size]
    before = mean_losses(model, one.states[0][1][None], x, permuted)
    assert float(mean_losses(model, other.states[0][1][None], x, permuted)) < 0.6 * float(before)


def test_a_specification_is_refused_in_one_sentence() -> None:
    with pytest.raises(SettingsError, match="optimiser"):
        spec_of("mlp", optimiser="lbfgs")
    with pytest.raises(SettingsError, match="dropout"):
        spec_of("mlp", dropout=1.0)
