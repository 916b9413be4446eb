"""Dissection of networks whose units are known: what is found, what ablation costs, and what cannot be read."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import memspace
from memspace import DissectSettings, MemspaceError, Task
from memspace.errors import DataError, SettingsError, TaskError
from memspace.reading.unit_signals import layer_place, read_units, silenced

QUICK = {"shuffles": 39, "rotations": 5, "draws": 3}


def quick(**more) -> DissectSettings:
    return DissectSettings(**(QUICK | more))


def eye(width: int) -> nn.Linear:
    layer = nn.Linear(width, width)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(width))
        layer.bias.zero_()
    return layer


def classes_task(k: int = 5, n: int = 300, noise: int = 4) -> Task:
    """Unit j of layer 0 is class j, the last units are noise; without its unit a class is called class k."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(n) % k
    x = torch.zeros(n, k + noise)
    x[torch.arange(n), y] = 1 + 0.1 * torch.rand(n, generator=g)
    x[:, k:] = torch.rand(n, noise, generator=g)
    head = nn.Linear(k + noise, k + 1)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[:k, :k] = torch.eye(k)
        head.bias.zero_()
        head.bias[k] = 0.5
    return Task(nn.Sequential(eye(k + noise), nn.ReLU(), head), (x, y), layer="1")


def test_unit_k_is_class_k_and_without_it_exactly_that_class_is_lost() -> None:
    result = memspace.dissect(classes_task(), settings=quick())
    units = result.frame("units")
    assert units.detector.tolist() == [True] * 5 + [False] * 4
    assert units.concept.tolist()[:5] == [f"class {k}" for k in range(5)]
    numbers = {m.name.removeprefix("dissect."): m for m in result.measurements}
    assert numbers["detectors"].value == numbers["concepts"].value == 5
    assert numbers["detectors.shuffled"].value < 0.1
    table = result.frame("ablation")
    assert sorted(table.units) == ["0", "1", "2", "3", "4"]
    assert (table["with"] == 1).all()
    assert (table.without == 0).all()
    for name, truth in (("with", 1), ("without", 0), ("specific", 1)):
        m = numbers[f"ablation.{name}"]
        assert m.value == truth
        assert m.interval[1] - m.interval[0] > 0
    assert numbers["ablation.beyond_control"].interval[0] > 0.5
    assert result.frame("concepts").left_out.tolist()[-1].endswith("fewer than 5")  # class 5 has no example


def test_concepts_that_are_independent_are_lost_when_units_are_rotated() -> None:
    g = torch.Generator().manual_seed(1)
    has = torch.rand(400, 10, generator=g) < 0.5
    model = nn.Sequential(eye(10), nn.ReLU(), nn.Linear(10, 10))
    with torch.no_grad():
        model[2].weight.copy_(4 * torch.eye(10))
        model[2].bias.fill_(-2)
    task = Task(model, (has.float(), has.float()), likelihood=memspace.Bernoulli(), layer="1")
    result = memspace.dissect(task, settings=quick())
    value = result.results.measurement
    assert value("dissect.detectors").value == 10
    assert value("dissect.detectors.rotated").value < 3
    assert value("dissect.detectors.chance").value == pytest.approx(1 / 6)  # five rotations
    assert value("dissect.ablation.with").value == pytest.approx(0.1)  # one of ten labels
    assert value("dissect.ablation.without").value == 0
    turned = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    with torch.no_grad():
        turned[0].weight.copy_(torch.linalg.qr(torch.randn(10, 10, generator=g))[0])
    same = memspace.dissect(Task(turned, (has.float(), has.float()), likelihood=memspace.Bernoulli(), layer="0"))
    assert same.results.measurement("dissect.detectors").value < 4


def test_masks_are_compared_by_position_also_with_coarser_maps() -> None:
    g = torch.Generator().manual_seed(2)
    coarse = torch.rand(80, 2, 4, 4, generator=g) < 0.2
    x = coarse.float().repeat_interleave(2, 2).repeat_interleave(2, 3)
    conv = nn.Conv2d(2, 3, 2, stride=2)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0], conv.weight[1, 1] = 0.25, 0.25
        conv.weight[2] = torch.randn(2, 2, 2, generator=g)
        conv.bias.zero_()
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    task = Task(model, (x, torch.arange(80) % 2), layer="1")
    masks = {"left": coarse[:, 0], "right": coarse[:, 1]}
    found = memspace.dissect(task, concepts=masks, settings=quick())
    units = found.frame("units")
    assert units.score.tolist()[:2] == [1.0, 1.0]
    assert units.concept.tolist()[:2] == ["left", "right"]
    fine = {name: m.repeat_interleave(2, 1).repeat_interleave(2, 2) for name, m in masks.items()}
    upsampled = memspace.dissect(task, concepts=fine, settings=quick(ablate="none"))
    assert upsampled.frame("units").detector.tolist()[:2] == [True, True]
    assert 0.3 < upsampled.frame("units").score[0] < 1  # bilinear edges are not the masks' edges
    assert upsampled.unmeasured[0].name == "dissect.ablation"


def test_of_large_masks_some_positions_are_read_the_same_in_all_examples() -> None:
    mask = torch.rand(60, 30, 30, generator=torch.Generator().manual_seed(7)) < 0.1
    conv = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(conv.weight)
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(900, 2))
    task = Task(model, (mask.float()[:, None], torch.arange(60) % 2), layer="0")
    result = memspace.dissect(task, concepts={"there": mask, "elsewhere": mask.roll(5, 1)}, settings=quick())
    assert result.read.table.shape == (256,)
    assert result.frame("units").concept[0] == "there"
    assert result.frame("units").score[0] == 1
    assert result.frame("units").detector[0]


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(4, 6), nn.Linear(6, 4)
        with torch.no_grad():
            self.embed.weight.zero_()
            self.embed.weight[:, :4] = torch.eye(4)
            self.head.weight.zero_()
            self.head.weight[:, :4] = torch.eye(4)
            self.head.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(x))


def test_labels_by_position_are_compared_with_features_by_position() -> None:
    x = torch.randint(0, 4, (60, 7), generator=torch.Generator().manual_seed(3))
    result = memspace.dissect(Task(Tokens(), (x, x), layer="embed"), settings=quick())
    units = result.frame("units")
    assert units.unit.tolist() == [0, 1, 2, 3]  # two features never vary
    assert units.score.tolist() == [1.0] * 4
    table = result.frame("ablation").set_index("concept")
    assert table["with"].tolist() == [1, 1, 1, 0]  # class 3 has the largest bias
    assert (table.without == 0).all()


def test_a_regression_needs_concepts_and_loses_nats() -> None:
    g = torch.Generator().manual_seed(4)
    has = torch.rand(120, 3, generator=g) < 0.4
    model = nn.Sequential(eye(3), nn.ReLU(), nn.Linear(3, 1))
    task = Task(model, (has.float(), model(has.float()).detach()), likelihood=memspace.Gaussian(1.0), layer="1")
    with pytest.raises(SettingsError, match="labels are no classes"):
        memspace.dissect(task)
    result = memspace.dissect(task, concepts=has.numpy(), settings=quick())
    w = model[2].weight.detach().flatten()
    table = result.frame("ablation").set_index("concept")
    for k in range(3):
        assert table["with"][f"concept {k}"] == pytest.approx(float(w[k] ** 2) / 2, rel=1e-5)
    assert result.results.measurement("dissect.ablation.with").unit == "nats"


def factors_task() -> Task:
    values = torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(10))
    x = torch.cat([nn.functional.one_hot(values[:, k], s).float() for k, s in ((0, 3), (1, 4))], 1)
    factors = memspace.Factors(("a", "b", "c"), values, x, (3, 4, 10))
    head = nn.Linear(7, 3)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[:, :3] = torch.eye(3)
        head.bias.copy_(torch.tensor([0.3, 0.2, 0.1]))
    return Task(nn.Sequential(eye(7), head), (x, values[:, 0]), factors=factors)


def test_levels_of_factors_are_concepts_and_decisions_are_compared_with_the_own() -> None:
    result = memspace.dissect(factors_task(), settings=quick())
    assert result.frame("units").concept.tolist() == ["a 0", "a 1", "a 2", "b 0", "b 1", "b 2", "b 3"]
    table = result.frame("ablation").set_index("concept")
    assert table["with"]["a 1"] == table["with"]["a 2"] == 1
    assert table["with"]["b 2"] == 0
    assert "agreement with its own decisions" in result.results.chapters[0].answer
    by_class = memspace.dissect(factors_task(), concepts="classes", settings=quick(ablate="mean"))
    assert by_class.frame("concepts").concept.tolist() == ["class 0", "class 1", "class 2"]


def test_the_model_is_left_as_it_was_and_a_seed_gives_the_same() -> None:
    task = classes_task()
    task.model.train()
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    state = torch.get_rng_state()
    first = memspace.dissect(task, settings=quick(ablate="mean"))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    assert task.model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in task.model.modules())
    again = memspace.dissect(task, settings=quick(ablate="mean"))
    assert [m.value for m in again.measurements] == [m.value for m in first.measurements]


def test_units_are_set_in_the_layers_place_and_read_before_they_are_overwritten() -> None:
    torch.manual_seed(0)
    x = torch.randn(9, 2, 5)
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12, 3))
    task = Task(model, (x, torch.arange(9) % 3), layer="0")
    place = layer_place(task, task.train)
    assert (place.axis, place.units, place.shape) == (1, 4, (3,))
    read = read_units(task, place, task.train, torch.arange(9))
    assert torch.allclose(read.a, model[0](x).transpose(1, 2), atol=1e-6)
    assert float(read.a.min()) < 0  # what ReLU writes over it comes later
    after_relu = layer_place(Task(model, (x, torch.arange(9) % 3), layer="1"), task.train)
    assert after_relu.axis == 1  # as in the convolution before it
    maps = model[0](x)
    maps[:, [1, 3]] = torch.tensor([0.5, -1.0])[None, :, None]
    with torch.no_grad(), silenced(task.model, place, torch.tensor([1, 3]), torch.tensor([0.5, -1.0])):
        assert torch.allclose(task.model(x), model[3](maps.relu().flatten(1)), atol=1e-6)
    into = layer_place(Task(model, (x, torch.arange(9) % 3)), task.train)
    assert (into.words, into.units) == ("the input of 3", 12)
    with torch.no_grad(), silenced(task.model, into, torch.arange(12), torch.zeros(12)):
        assert torch.allclose(task.model(x), model[3].bias.expand(9, 3))


def test_one_unit_and_constant_units_are_told() -> None:
    task = classes_task(k=2, noise=0)
    one = memspace.dissect(task, concepts=torch.arange(300)[:, None] % 2, settings=quick())
    assert one.results.measurement("dissect.units").value == 2
    x = torch.rand(40, 3)
    narrow = Task(nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 2)), (x, (x[:, 0] > 0.5).long()), layer="0")
    result = memspace.dissect(narrow, settings=quick(least=0.5))
    assert "dissect.detectors.rotated" in {u.name for u in result.unmeasured}
    dead = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.constant_(dead[0].bias, -100.0)
    with pytest.raises(TaskError, match="none of the 4 units of 1 varies"):
        memspace.dissect(Task(dead, (x, torch.arange(40) % 2), layer="1"))


@pytest.mark.parametrize(
    ("concepts", "kind", "says"),
    [
        ("shapes", SettingsError, "there are no concepts 'shapes'"),
        ("factors", SettingsError, "the task has no factors"),
        (torch.ones(300, 2), DataError, "no concept can be tested: .*lack it"),
        (torch.zeros(300, 2), DataError, "have it"),
        (torch.full((300, 2), 0.5), DataError, "other numbers than 0 and 1"),
        (torch.ones(7, 2), DataError, "concepts of 7 examples, and 300 training examples"),
        (torch.ones(300), DataError, "of shape"),
        ({}, DataError, "no concept is given"),
        ({"a": torch.ones(300), "b": torch.ones(300, 4)}, DataError, "shapes"),
        (["red"], DataError, "not numbers"),
        (torch.ones(300, 2, 4, 4), TaskError, "no positions"),
    ],
)
def test_concepts_that_cannot_be_used_are_one_sentence(concepts, kind, says) -> None:
    with pytest.raises(kind, match=says) as said:
        memspace.dissect(classes_task(), concepts=concepts, settings=quick())
    assert "\n" not in str(said.value)


def test_settings_and_layers_that_do_not_exist_are_one_sentence() -> None:
    for bad in ({"ablate": "noise"}, {"data": "valid"}, {"shuffles": 3}, {"least": 2.0}):
        with pytest.raises(SettingsError):
            DissectSettings(**bad)
    task = classes_task()
    with pytest.raises(TaskError, match="no layer 'conv'"):
        memspace.dissect(task.model, task.train, layer="conv")
    with pytest.raises(SettingsError, match="no test data"):
        memspace.dissect(task, settings=quick(data="test"))
    with pytest.raises(MemspaceError, match="too few"):
        memspace.dissect(task.model, (torch.rand(10, 9), torch.arange(10) % 5))


def test_the_page_and_plain_types_hold_what_was_found(tmp_path) -> None:
    torch.manual_seed(1)
    x = torch.rand(60, 1, 6, 6)
    y = (x.mean((1, 2, 3)) > 0.5).long()
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    task = Task(model, (x, y), layer="1", class_names=("dark", "bright"))
    result = memspace.dissect(task, settings=quick(least=0.5), page=tmp_path / "units.html")
    page = (tmp_path / "units.html").read_text()
    assert "Detectors of each concept" in page
    plain = json.loads(json.dumps(result.to_dict()))
    assert 1 <= len(plain["units"]["unit"]) <= 3
    shown = result.results.chapters[0].galleries
    assert all(len(i.picture) == 6 for g in shown for i in g.items)


def test_concepts_come_from_files(tmp_path) -> None:
    from memspace.reading.concepts import load_concepts

    (tmp_path / "a.csv").write_text("red,big\n1,0\n0,1\n")
    assert load_concepts(tmp_path / "a.csv")["big"].tolist() == [0, 1]
    np.savez(tmp_path / "a.npz", red=np.ones((2, 3, 3)))
    assert load_concepts(tmp_path / "a.npz")["red"].shape == (2, 3, 3)
    (tmp_path / "b.csv").write_text("red\nyes\n")
    for name in ("b.csv", "none.npz"):
        with pytest.raises(DataError, match="cannot be read"):
            load_concepts(tmp_path / name)
