"""What pushed one prediction: parts add up and are those of closed forms; what is asked for wrongly is one sentence."""

import json

import pytest
import torch
from torch import Tensor, nn

import memspace
from memspace import ExplainSettings, Task
from memspace.metric.fisher import build
from memspace.passes.space import ParameterSpace
from memspace.reading.pushes import PushParts

GAMMA = 0.05
GIVEN = ExplainSettings(damping=GAMMA)


def mlp(seed: int, examples: int = 40) -> Task:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x = torch.randn(examples, 4, dtype=torch.float64)
    y = torch.arange(examples) % 3
    return Task(model, (x, y), test=(torch.randn(7, 4, dtype=torch.float64), torch.arange(7) % 3))


def parts_of(result: memspace.Explanation) -> tuple[PushParts, PushParts]:
    layers, modes = result.pushes.layers, result.pushes.modes
    assert isinstance(layers, PushParts)
    assert isinstance(modes, PushParts)
    return layers, modes


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_parts_by_layer_mode_and_class_add_up_to_the_pushes_and_to_the_variance(seed) -> None:
    result = memspace.explain(mlp(seed), seed, settings=ExplainSettings(damping=GAMMA, count=3))
    pushes = result.pushes
    for parts in parts_of(result):
        scale = float(parts.scores.abs().max())
        assert torch.allclose(parts.scores.sum(1), pushes.scores, rtol=0, atol=1e-12 * scale)
        assert float(parts.variance.sum()) == pytest.approx(pushes.variance, rel=1e-10)
        assert float(parts.shares(pushes.scores).sum()) == pytest.approx(1, abs=1e-10)
        both = parts.support(pushes.scores) + parts.opposition(pushes.scores)
        assert torch.allclose(both, parts.scores.sum(0), atol=1e-12 * scale)
    total = float(pushes.scores.sum())
    assert pushes.support + pushes.opposition == pytest.approx(total, abs=1e-12)
    for table in ("layers", "modes", "classes"):
        assert sum(result.results.tables[table]["sum"]) == pytest.approx(total, abs=1e-10)
    assert sum(result.results.tables["mode_classes"]["push"]) == pytest.approx(total, abs=1e-10)


@pytest.mark.parametrize("seed", [4, 5])
def test_pushes_and_their_parts_are_those_of_the_dense_metric(seed) -> None:
    task = mlp(seed)
    result = memspace.explain(task, 2, settings=ExplainSettings(damping=GAMMA, count=2, engine="dual"))
    space, n = ParameterSpace(task.model), len(task.train)
    eye = torch.eye(space.size, dtype=torch.float64)
    f = build(task, space, "dense").apply(lambda v: v, eye)
    named = dict(task.model.named_parameters())

    def gradient(value: Tensor) -> Tensor:
        return space.pack(dict(zip(named, torch.autograd.grad(value, list(named.values())), strict=True)))

    out = task.model(task.test.batch([2]).x)[0]
    b = gradient(out[result.outcome.answer] - out[result.outcome.against])
    x = torch.linalg.solve(n * (f + GAMMA * eye), b)
    train = task.train.batch(range(n))
    g = torch.stack(
        [gradient(nn.functional.cross_entropy(task.model(train.x[i : i + 1]), train.y[i : i + 1])) for i in range(n)]
    )
    assert torch.allclose(result.pushes.scores, -(g @ x), rtol=1e-8, atol=1e-12)
    assert result.pushes.variance == pytest.approx(float(b @ x), rel=1e-8)
    layers, modes = parts_of(result)
    for k, block in enumerate(space.blocks):
        inside = slice(block.start, block.stop)
        assert torch.allclose(layers.scores[:, k], -(g[:, inside] @ x[inside]), rtol=1e-8, atol=1e-12)
        assert float(layers.variance[k]) == pytest.approx(float(b[inside] @ x[inside]), rel=1e-8, abs=1e-12)
    values, vectors = (t.flip(-1) for t in torch.linalg.eigh(f))
    assert result.pushes.read is not None
    for k, group in enumerate(result.pushes.read.groups):
        v = vectors[:, group.modes]
        assert torch.allclose(modes.scores[:, k], -(g @ v) @ (v.t() @ x), rtol=1e-6, atol=1e-10)
        by_mode = (v.t() @ b).square() / (values[group.modes] + GAMMA) / n  # what every mode leaves of the variance
        assert float(modes.variance[k]) == pytest.approx(float(by_mode.sum()), rel=1e-6)


def test_logistic_regression_has_the_closed_form() -> None:
    torch.manual_seed(6)
    x, y = torch.randn(30, 3, dtype=torch.float64), torch.arange(30) % 2
    model = nn.Linear(3, 2, bias=False).double()
    result = memspace.explain(Task(model, (x, y)), 4, settings=ExplainSettings(damping=GAMMA, count=3))
    p = model(x).softmax(-1).detach()
    # Weights (w_0, w_1) enter by their difference alone: along u = (1, -1)/√2, F is 2 p_0 p_1 x xᵀ.
    f = (2 * p[:, :1] * p[:, 1:] * x).t() @ x / 30
    sign = 1.0 if result.outcome.answer == 0 else -1.0
    b = sign * 2**0.5 * x[4]
    g = (p[:, :1] - (y == 0).double()[:, None]) * 2**0.5 * x
    solved = torch.linalg.solve(30 * (f + GAMMA * torch.eye(3, dtype=torch.float64)), b)
    assert torch.allclose(result.pushes.scores, -(g @ solved), rtol=1e-8, atol=1e-13)
    assert result.pushes.itself == 4
    _, modes = parts_of(result)
    assert float(modes.scores[:, -1].abs().max()) < 1e-10 * float(result.pushes.scores.abs().max())  # F has rank 3


def test_a_wrong_prediction_is_held_against_its_label_and_a_right_one_against_the_next() -> None:
    task = mlp(7)
    seen = set()
    for k in range(7):
        outcome = memspace.explain(task, k, settings=ExplainSettings(damping=GAMMA, count=1)).outcome
        p = outcome.probabilities
        assert p is not None
        order = p.argsort(descending=True).tolist()
        assert outcome.answer == order[0]
        wrong = order[0] != k % 3
        assert outcome.wrong == wrong
        assert outcome.against == (k % 3 if wrong else order[1])
        assert outcome.value == pytest.approx(float(p[outcome.answer].log() - p[outcome.against].log()))
        seen.add(wrong)
    assert seen == {True, False}


def test_other_classes_and_inputs_without_a_label_can_be_asked_about() -> None:
    task = mlp(8)
    x = task.test.batch([3]).x[0]
    of_test = memspace.explain(task, 3, output=0, against=2, settings=GIVEN)
    of_input = memspace.explain(task, x, output=0, against=2, settings=GIVEN)
    as_data = memspace.explain(task, memspace.Data((x[None], torch.tensor([1]))), output=0, against=2, settings=GIVEN)
    for other in (of_input, as_data):
        assert torch.equal(other.pushes.scores, of_test.pushes.scores)
    assert of_input.outcome.label is None
    assert as_data.outcome.label == 1
    assert of_input.outcome.number is None


def test_of_numbers_the_output_is_explained() -> None:
    torch.manual_seed(9)
    x = torch.randn(25, 3, dtype=torch.float64)
    model = nn.Linear(3, 2).double()
    task = Task(model, (x, torch.randn(25, 2, dtype=torch.float64)), likelihood=memspace.Gaussian(1.0))
    result = memspace.explain(task, 1, output=1, settings=GIVEN)
    assert result.outcome.value == pytest.approx(float(model(x[1]).detach()[1]))
    assert result.outcome.label == pytest.approx(float(task.train.batch([1]).y[0, 1]))
    inputs = result.inputs
    assert not isinstance(inputs, memspace.Unmeasured)
    want = model.weight[1].detach() * (x[1] - x.mean(0))
    assert torch.allclose(inputs.tensors[0].contributions, want, rtol=1e-10)


def test_of_several_labels_the_surest_is_explained() -> None:
    torch.manual_seed(10)
    x = torch.randn(25, 3, dtype=torch.float64)
    model = nn.Linear(3, 4).double()
    task = Task(model, (x, (torch.rand(25, 4) < 0.5).double()), likelihood=memspace.Bernoulli())
    outcome = memspace.explain(task, 1, settings=GIVEN).outcome
    logits = model(x[1]).detach()
    assert outcome.choice == int(logits.abs().argmax())
    assert outcome.answer == int(logits[outcome.choice] > 0)
    assert outcome.value == pytest.approx(float(logits.abs().max()))


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"example": 7}, "there is no example 7"),
        ({"example": -1}, "there is no example -1"),
        ({"example": 1.5}, "whole numbers"),
        ({"example": "three"}, "whole numbers"),
        ({"example": torch.zeros(5)}, "the model refuses an input of shape"),
        ({"example": torch.zeros(2, 4)}, "2 inputs are given"),
        ({"example": 1, "part": "valid"}, "valid"),
        ({"example": 1, "output": 3}, "there is no output 3"),
        ({"example": 1, "output": 1, "against": 1}, "class 1 is compared with itself"),
        ({"example": 1, "position": 0}, "no positions"),
        ({"example": 1, "baseline": "black"}, "black"),
        ({"example": 1, "engine": "quick"}, "there is no engine"),
        ({"example": 1, "names": ["a"]}, "1 names are given for 4 entries"),
    ],
)
def test_what_cannot_be_explained_is_one_sentence(named, says) -> None:
    task = mlp(11)
    how = {k: v for k, v in named.items() if k in ("baseline", "engine", "names")}
    asked = {k: v for k, v in named.items() if k not in how}
    with pytest.raises(memspace.MemspaceError, match=says) as error:
        memspace.explain(task, **asked, settings=ExplainSettings(damping=GAMMA, count=1, **how))
    assert "\n" not in str(error.value)


def test_training_labels_of_one_class_alone_and_two_examples_are_enough() -> None:
    torch.manual_seed(12)
    x = torch.randn(2, 3, dtype=torch.float64)
    result = memspace.explain(Task(nn.Linear(3, 2).double(), (x, torch.tensor([1, 1]))), 0, settings=GIVEN)
    assert result.results.tables["classes"]["class"] == ["1"]
    assert len(result.pushes.scores) == 2


def test_numbers_are_marked_where_the_damping_is_not_calibrated_and_the_page_says_so(tmp_path) -> None:
    result = memspace.explain(mlp(13), 0, page=tmp_path / "page.html", settings=ExplainSettings(count=2))
    marked = {m.name for m in result.measurements if not m.reliable}
    assert {"explain.support", "explain.deviation", "explain.modes.read", "explain.layers.largest"} <= marked
    assert "explain.outcome" not in marked
    text = (tmp_path / "page.html").read_text()
    for heading in ("The prediction", "The input", "What pushed it", "Modes shared", "Layers"):
        assert f"<h2>{heading}</h2>" in text
    assert "uncalibrated" in text
    assert json.loads(json.dumps(result.to_dict()))["example"] == 0
