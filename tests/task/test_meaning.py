"""What outputs and labels mean is found when a task is made: layouts, probabilities, encodings, noise."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memspace import fisher
from memspace.errors import LabelError
from memspace.measures.correct import accuracy, by_example, correct, per_prediction
from memspace.passes.outputs import outputs
from memspace.passes.verify import verified_space
from memspace.task.checks import check_task
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Likelihood, Poisson
from memspace.task.task import Task

N, D, C = 30, 5, 3


def loss(task: Task) -> float:
    """Mean loss per prediction as memspace reads it."""
    check_task(task)
    f, y = outputs(task, task.train)
    return float(task.likelihood.nll(f.double(), y).sum() / task.likelihood.weight(f, y).double().sum())


def linear(outputs: int = C, seed: int = 0) -> tuple[nn.Linear, Tensor, Tensor]:
    torch.manual_seed(seed)
    x = torch.randn(N, D, dtype=torch.float64)
    return nn.Linear(D, outputs).double(), x, torch.arange(N) % max(outputs, 2)


def trace(task: Task) -> float:
    return fisher(task, verified_space(task), "dense").trace().value


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("depth", [0, 1])
def test_a_model_that_ends_in_softmax_is_read_as_its_logits(seed: int, depth: int) -> None:
    model, x, y = linear(seed=seed)
    body: nn.Module = model if depth == 0 else nn.Sequential(nn.Linear(D, D).double(), nn.Tanh(), model)
    plain = Task(body, (x, y))
    read = Task(nn.Sequential(body, nn.Softmax(-1)), (x, y))
    assert loss(read) == pytest.approx(loss(plain), rel=1e-12)
    assert trace(read) == pytest.approx(trace(plain), rel=1e-9)
    assert "softmax" in read.description["outputs as read"]
    assert "outputs as read" not in plain.description
    assert not read.train.batch([0]).x.requires_grad


def test_a_model_that_ends_in_sigmoid_is_read_as_its_logits() -> None:
    model, x, _ = linear()
    y = (torch.rand(N, C) < 0.4).double()
    plain = Task(model, (x, y), Bernoulli())
    read = Task(nn.Sequential(model, nn.Sigmoid()), (x, y), Bernoulli())
    assert loss(read) == pytest.approx(loss(plain), rel=1e-9)
    assert trace(read) == pytest.approx(trace(plain), rel=1e-9)
    assert "sigmoid" in read.description["outputs as read"]


def test_a_model_that_gives_rates_is_read_as_its_log_rates() -> None:
    class Rates(nn.Module):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).exp()

    model, x, _ = linear(1)
    y = torch.poisson(torch.ones(N))
    assert loss(Task(Rates(model), (x, y), Poisson())) == pytest.approx(loss(Task(model, (x, y), Poisson())))


def test_log_softmax_outputs_are_logits_and_say_nothing() -> None:
    model, x, y = linear()
    task = Task(nn.Sequential(model, nn.LogSoftmax(-1)), (x, y))
    assert loss(task) == pytest.approx(F.cross_entropy(model(x), y).item())
    assert "outputs as read" not in task.description


def test_outputs_that_look_like_probabilities_by_chance_are_logits() -> None:
    model, x, y = linear(2)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor([0.25, 0.75]))
    for law, labels in ((Categorical(), y % 2), (Bernoulli(), F.one_hot(y % 2, 2))):
        task = Task(model, (x, labels), law)
        assert "outputs as read" not in task.description
        assert task.model is model


def test_a_saturated_softmax_keeps_finite_numbers() -> None:
    model, x, y = linear()
    with torch.no_grad():
        model.weight.mul_(1e3)
    task = Task(nn.Sequential(model, nn.Softmax(-1)).float(), (x.float(), y))
    assert torch.isfinite(torch.tensor([loss(task), trace(task)])).all()


@pytest.mark.parametrize(
    "given",
    [
        lambda y: y.to(torch.uint8),
        lambda y: y.to(torch.uint16),
        lambda y: y.to(torch.int16),
        lambda y: y.to(torch.int32),
        lambda y: y.float(),
        lambda y: y.half(),
        lambda y: y[:, None],
        lambda y: F.one_hot(y, C),
        lambda y: F.one_hot(y, C).float(),
        lambda y: F.one_hot(y, C).bool(),
        lambda y: y + 1,
        lambda y: (y + 1).double(),
    ],
    ids=["uint8", "uint16", "int16", "int32", "float", "half", "column", "one-hot", "float one-hot", "bool one-hot",
         "from one", "float from one"],
)  # fmt: skip
def test_classes_in_other_clothes(given: Any) -> None:
    model, x, y = linear()
    task = Task(model, (x, given(y)), test=(x, given(y)))
    assert torch.equal(task.train.labels(), y)
    assert task.test is not None
    assert torch.equal(task.test.batch([4, 2]).y, y[[4, 2]])
    assert loss(task) == pytest.approx(F.cross_entropy(model(x), y).item())


def test_true_and_false_are_two_classes() -> None:
    model, x, y = linear(2)
    assert loss(Task(model, (x, y.bool()))) == pytest.approx(F.cross_entropy(model(x), y).item())


def test_labels_that_start_at_one_are_said() -> None:
    model, x, y = linear()
    assert "start at 1" in Task(model, (x, y + 1)).description["labels as read"]
    assert "labels as read" not in Task(model, (x, y)).description


def test_labels_beyond_the_outputs_are_refused_where_zero_is_a_class_too() -> None:
    model, x, _y = linear()
    with pytest.raises(LabelError, match=r"lie outside 0\.\.2"):
        check_task(Task(model, (x, torch.arange(N) % 4)))


@pytest.mark.parametrize("seed", [0, 1])
def test_probabilities_as_labels_mean_the_expected_loss(seed: int) -> None:
    model, x, _ = linear(seed=seed)
    y = torch.softmax(torch.randn(N, C, dtype=torch.float64), -1)
    task = Task(model, (x, y))
    f = model(x)
    assert loss(task) == pytest.approx(F.cross_entropy(f, y).item())
    law, leaf = Categorical(), f.detach().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(leaf, y, reduction="sum"), leaf)
    torch.testing.assert_close(law.residual(f, y), g)
    assert accuracy(law, f, y) == pytest.approx(y[torch.arange(N), f.argmax(-1)].mean().item())
    assert loss(Task(model, (x, y.float()))) == pytest.approx(loss(task), rel=1e-6)


def test_shares_that_are_no_distributions_are_refused() -> None:
    model, x, _ = linear()
    for bad in (torch.full((N, C), 0.5), torch.tensor([-0.5, 1.0, 0.5]).expand(N, C), torch.full((N, C), torch.nan)):
        with pytest.raises(LabelError, match="no distributions"):
            check_task(Task(model, (x, bad)))


@pytest.mark.parametrize("law", [Gaussian(0.7), Poisson(), Bernoulli()], ids=lambda law: law.name)
@pytest.mark.parametrize("column", [True, False])
@pytest.mark.parametrize("squeezed", [True, False])
def test_one_number_per_example_with_or_without_its_axis(law: Likelihood, column: bool, squeezed: bool) -> None:
    model, x, y = linear(1)
    y = (y % 2).double()
    given = nn.Sequential(model, nn.Flatten(0)) if squeezed else model
    want = law.nll(model(x), y[:, None]).mean().item()
    assert loss(Task(given, (x, y[:, None] if column else y), law)) == pytest.approx(want)


def test_integer_targets_of_a_regression_are_numbers() -> None:
    model, x, y = linear(1)
    assert loss(Task(model, (x, y), Gaussian(0.7))) == pytest.approx(
        Gaussian(0.7).nll(model(x), y[:, None]).mean().item()
    )


@pytest.mark.parametrize("size", [(3, 5, 4), (4, 4, 5), (2, 6, 6)])
def test_classes_along_axis_one_are_told_by_the_labels(size: tuple[int, int, int]) -> None:
    classes, h, w = size
    torch.manual_seed(1)
    model, x = nn.Conv2d(1, classes, 3, padding=1).double(), torch.randn(6, 1, h, w, dtype=torch.float64)
    y = torch.randint(0, classes, (6, h, w))
    want = F.cross_entropy(model(x), y).item()
    task = Task(model, (x, y))
    assert loss(task) == pytest.approx(want)
    soft = torch.softmax(torch.randn(6, classes, h, w, dtype=torch.float64), 1)
    assert loss(Task(model, (x, soft))) == pytest.approx(F.cross_entropy(model(x), soft).item())
    assert not model._forward_hooks
    assert [b.kind for b in verified_space(task).blocks] == ["conv"]
    f = outputs(task, task.train)[0]
    assert f.shape == (6, h, w, classes)


def test_axes_that_cannot_be_told_apart_are_refused_unless_stated() -> None:
    torch.manual_seed(1)
    model, x = nn.Conv2d(1, 4, 3, padding=1).double(), torch.randn(6, 1, 4, 4, dtype=torch.float64)
    y = torch.randint(0, 4, (6, 4, 4))
    with pytest.raises(LabelError, match="class_axis"):
        Task(model, (x, y))
    f = model(x)
    assert loss(Task(model, (x, y), Categorical(class_axis=1))) == pytest.approx(F.cross_entropy(f, y).item())
    last = F.cross_entropy(f.flatten(0, -2), y.flatten()).item()
    assert loss(Task(model, (x, y), Categorical(class_axis=-1))) == pytest.approx(last)


def test_an_example_without_a_label_counts_nowhere() -> None:
    model, x, y = linear()
    y[[3, 7, 8]] = -100
    has = y != -100
    seen: list[Tensor] = []

    def refit(index: Tensor, seed: int) -> nn.Module:
        seen.append(index)
        return copy.deepcopy(model)

    task, clean = Task(model, (x, y), refit=refit, true_labels=torch.arange(N)), Task(model, (x[has], y[has]))
    assert len(task.train) == N - 3
    assert loss(task) == pytest.approx(F.cross_entropy(model(x), y).item())
    assert trace(task) == pytest.approx(trace(clean))
    assert "3 of 30" in task.description["examples without a label"]
    assert task.refit is not None
    task.refit(torch.tensor([2, 3]), 0)
    assert seen[0].tolist() == [2, 4]
    assert task.true_labels is not None
    assert task.true_labels.tolist() == has.nonzero().flatten().tolist()


def test_no_label_at_all_is_one_sentence() -> None:
    model, x, y = linear()
    with pytest.raises(LabelError, match="all labels are -100"):
        Task(model, (x, torch.full_like(y, -100)))


def test_one_output_is_no_class() -> None:
    model, x, _y = linear(1)
    with pytest.raises(LabelError, match="Bernoulli"):
        check_task(Task(model, (x, torch.zeros(N, dtype=torch.long))))


def test_padded_positions_count_neither_as_right_nor_as_wrong() -> None:
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(7, 9, C, generator=generator)
    y = f.argmax(-1)
    y[:, 0] = (y[:, 0] + 1) % C
    for k in range(7):
        y[k, 2 + k :] = -100
    counted = y != -100
    want = (f.argmax(-1) == y)[counted].double().mean().item()
    assert accuracy(Categorical(), f, y) == pytest.approx(want)
    each = per_prediction(by_example(correct(Categorical(), f, y)), by_example(Categorical().weight(f, y)))
    assert each.mean().item() == pytest.approx(want)
    equal = torch.rand(5, generator=generator)
    torch.testing.assert_close(per_prediction(equal * 4, torch.full((5,), 4.0)), equal.double())


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
def test_the_noise_of_a_regression_is_fitted_and_follows_the_unit(unit: float) -> None:
    model, x, _ = linear(2)
    y = unit * (model(x).detach() + torch.randn(N, 2, dtype=torch.float64) * torch.tensor([0.1, 3.0]))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(unit)
    task = Task(model, (x, y), Gaussian())
    law = task.likelihood
    assert isinstance(law, Gaussian)
    assert law.fitted
    want = (model(x) - y).square().mean(0).sqrt().tolist()
    assert law.sigma == pytest.approx(want)
    assert "noise σ" in task.description
    assert loss(task) == pytest.approx(2 * 0.5 * (1 + torch.log(torch.tensor(2 * torch.pi)).item())
                                       + sum(torch.log(torch.tensor(want)).tolist()))  # fmt: skip
    assert trace(task) == pytest.approx(sum(float((1 + x.square().sum(1)).mean()) / s**2 for s in want))
    kept = Task(model, (x, y), Gaussian(1.0)).likelihood
    assert isinstance(kept, Gaussian)
    assert kept.sigma == 1.0


def test_a_regression_without_residuals_has_a_small_noise() -> None:
    model, x, _ = linear(1)
    law = Task(model, (x, model(x).detach()), Gaussian()).likelihood
    assert isinstance(law, Gaussian)
    assert isinstance(law.sigma, float)
    assert 0 < law.sigma < 1e-5
    flat = Task(nn.Linear(D, 1).double(), (x, torch.zeros(N, 1)), Gaussian())
    assert loss(flat) < 10


class Decoder(nn.Module):
    """Next-token logits from the running sum of embeddings, in the conventions of transformers."""

    def __init__(self, causal: bool = True) -> None:
        super().__init__()
        self.causal = causal
        self.embed, self.head = nn.Embedding(11, 6), nn.Linear(6, 11)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        h = self.embed(input_ids) * attention_mask.unsqueeze(-1)
        h = h.cumsum(1) if self.causal else h.sum(1, keepdim=True) + h
        return self.head(torch.tanh(h))


def _tokens() -> tuple[dict[str, Tensor], Tensor]:
    torch.manual_seed(0)
    ids = torch.randint(0, 11, (8, 6))
    mask = (torch.arange(6) < torch.randint(3, 7, (8, 1))).long()
    return {"input_ids": ids, "attention_mask": mask}, torch.where(mask > 0, ids, -100)


def test_labels_of_a_causal_language_model_are_moved_by_one() -> None:
    x, y = _tokens()
    model = Decoder()
    task = Task(model, (x, y))
    want = F.cross_entropy(model(**x)[:, :-1].flatten(0, 1), y[:, 1:].flatten()).item()
    assert loss(task) == pytest.approx(want, rel=1e-6)
    assert "next tokens" in task.description["labels as read"]
    as_given = Task(model, (x, y), shift_labels=False)
    assert loss(as_given) == pytest.approx(F.cross_entropy(model(**x).flatten(0, 1), y.flatten()).item(), rel=1e-6)


def test_labels_of_a_model_that_sees_the_whole_text_stay_in_place() -> None:
    x, y = _tokens()
    model = Decoder(causal=False)
    want = F.cross_entropy(model(**x).flatten(0, 1), y.flatten()).item()
    assert loss(Task(model, (x, y))) == pytest.approx(want, rel=1e-6)


def test_a_model_that_was_read_is_left_as_it_was() -> None:
    model, x, y = linear()
    whole = nn.Sequential(model, nn.Softmax(-1)).train()
    state = {k: v.clone() for k, v in whole.state_dict().items()}
    task = Task(whole, (x, y))
    loss(task)
    assert whole.training
    assert not whole._forward_hooks
    assert all(torch.equal(v, state[k]) for k, v in whole.state_dict().items())
    assert torch.equal(whole(x).sum(-1).round(), torch.ones(N, dtype=torch.float64))


@pytest.mark.parametrize("trained", [True, False])
def test_sequences_as_long_as_there_are_classes_are_read_classes_last_unless_the_loss_says_otherwise(
    trained: bool,
) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(20, 4, 6), torch.randint(0, 4, (20, 4))
    model = nn.Linear(6, 4)
    assert loss(Task(model, (x, y))) == pytest.approx(F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item())
    logits = 5 * F.one_hot(y, 4).float().mT if trained else torch.randn(20, 4, 4)
    given = nn.Linear(4, 4)
    with torch.no_grad():
        given.weight.copy_(torch.eye(4))
        given.bias.zero_()
    if trained:
        with pytest.raises(LabelError, match="class_axis"):
            Task(given, (logits, y))
    else:
        assert outputs(Task(given, (logits, y)), Task(given, (logits, y)).train)[0].shape == (20, 4, 4)
