"""Every verb takes a task, or a model with its data, by one rule; what cannot be meant is one sentence."""

import dataclasses
import inspect

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import memspace
from memspace import MemspaceError, Task
from memspace.errors import SettingsError, TaskError

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(3))
Y = torch.arange(24) % 3
VERBS = (
    "attack",
    "attribute",
    "audit",
    "capacity",
    "compare",
    "depth",
    "dissect",
    "distil",
    "duplicates",
    "explain",
    "fisher",
    "forget",
    "geodesic",
    "influence",
    "invariants",
    "labels",
    "leave_one_out",
    "modes",
    "natural_gradient_flow",
    "predict_gap",
    "prune",
    "retrain",
    "reweight",
    "study",
    "training_action",
    "write",
)
NEEDING = ("compare", "explain", "forget", "geodesic", "natural_gradient_flow", "reweight", "write")  # more than a task


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda v: v(), "no task is given"),
        (lambda v: v(None), "None is neither a memspace.Task nor an nn.Module"),
        (lambda v: v("digits"), "'digits' is neither"),
        (lambda v: v((X, Y)), "a tuple is neither"),
        (lambda v: v(X), "a Tensor is neither"),
        (lambda v: v(DataLoader(TensorDataset(X, Y))), "a DataLoader is neither"),
        (lambda v: v(lambda x: x), "a function is neither"),
        (lambda v: v(nn.Linear, (X, Y)), r"the class Linear itself .*give Linear\(\.\.\.\)"),
        (lambda v: v(Task), r"the class Task itself"),
        (lambda v: v(task=3), "3 is neither"),
        (lambda v: v(Task(model(), (X, Y)), train=(X, Y)), "a Task is given and train besides"),
        (lambda v: v(Task(model(), (X, Y)), likelihood=memspace.Gaussian()), "a Task is given and likelihood besides"),
        (lambda v: v(model(), (X, Y), (X, Y), (X, Y)), "3 arguments follow the model"),
        (lambda v: v(model(), (X, Y), train=(X, Y)), "data are given twice"),
        (lambda v: v(model(), (X, Y), clas_names=("a",)), "class_names may be meant"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_verb(name, call, says) -> None:
    with pytest.raises(MemspaceError, match=says) as said:
        call(getattr(memspace, name))
    assert isinstance(said.value, TaskError | SettingsError)
    assert said.value.where == f"memspace.{name}"
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("name", [n for n in VERBS if n not in NEEDING])
def test_a_model_without_data_or_with_a_task_says_so(name) -> None:
    verb = getattr(memspace, name)
    with pytest.raises(TaskError, match=rf"no training data are given .*call memspace\.{name}\(model, train\)"):
        verb(model())
    with pytest.raises(TaskError, match="a model is given and a Task besides"):
        verb(model(), Task(model(), (X, Y)))


@pytest.mark.parametrize(("name", "missing"), [("forget", "examples"), ("write", "x"), ("geodesic", "a")])
def test_what_a_verb_needs_besides_is_asked_for_by_name(name, missing) -> None:
    with pytest.raises(SettingsError, match=f"{missing} is missing .*give {missing}=..."):
        getattr(memspace, name)(model(), (X, Y))


@pytest.mark.parametrize("name", VERBS)
def test_no_argument_of_a_verb_is_called_like_a_field_of_a_task(name) -> None:
    own = list(inspect.signature(getattr(memspace, name)).parameters)
    assert own[0] == "task"
    assert not set(own) & {f.name for f in dataclasses.fields(Task)}
    assert len(own) <= 9  # the task and eight more


def test_a_model_with_data_and_its_task_give_the_same() -> None:
    net = model()
    task = Task(net, (X, Y), test=(X[:6], Y[:6]), class_names=("a", "b", "c"))
    named = {"test": (X[:6], Y[:6]), "class_names": ("a", "b", "c"), "queries": [0, 3], "damping": 0.1}
    found = memspace.influence(task, [0, 3], damping=0.1)
    assert torch.equal(memspace.influence(net, (X, Y), **named).scores, found.scores)
    assert torch.equal(memspace.influence(model=net, train=(X, Y), **named).scores, found.scores)
    assert torch.equal(memspace.influence(task=task, queries=[0, 3], damping=0.1).scores, found.scores)


def test_scores_are_split_as_the_settings_say() -> None:
    found = memspace.influence(model(), (X, Y), queries=[0], settings=memspace.InfluenceSettings(split="layers"))
    assert torch.allclose(found.parts.scores.sum(2), found.scores)
    with pytest.raises(SettingsError, match="no split 'rows'"):
        memspace.InfluenceSettings(split="rows")
    with pytest.raises(SettingsError, match="no tokens 'all'"):
        memspace.InfluenceSettings(tokens="all")


def test_a_metric_is_that_of_a_model_too() -> None:
    net = model()
    task = Task(net, (X, Y))
    dense = memspace.fisher(task, memspace.verified_space(task), "dense").to_dense()
    for made in (memspace.fisher(net, (X, Y), space="dense"), memspace.fisher(net, (X, Y), representation="dense")):
        assert torch.equal(made.to_dense(), dense)
    assert memspace.fisher(task).representation == memspace.fisher(task, "ekfac").representation
    assert not torch.equal(memspace.fisher(net, (X, Y), space="dense", kind="empirical").to_dense(), dense)
    for call in (
        lambda: memspace.fisher(task, "dense", kinds="exact"),
        lambda: memspace.fisher(net, (X, Y), kinds="mc"),
    ):
        with pytest.raises(SettingsError, match="kind"):
            call()


def test_a_field_that_is_none_is_as_good_as_not_given() -> None:
    task = Task(model(), (X, Y))
    found = memspace.leave_one_out(task, test=None, folds=0)
    assert torch.equal(found.loo_f, memspace.leave_one_out(model(), (X, Y), likelihood=None, folds=0).loo_f)


def test_a_pruned_network_loads_and_says_what_it_cost(tmp_path) -> None:
    task = Task(model(), (X, Y), test=(X[:6], Y[:6]))
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    found = memspace.prune(task, 0.5, method="magnitude", page=tmp_path / "page.html")
    assert found.share == 0.5
    assert int((found.state["weight"] == 0).sum()) == 6
    assert {m.name for m in found.measurements} >= {"pruning.accuracy_change", "pruning.kl", "pruning.removed"}
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    with pytest.raises(SettingsError, match="keep is out of range"):
        memspace.prune(task, 1.5)
    with pytest.raises(SettingsError, match="method"):
        memspace.prune(task, method="small")


def test_two_networks_are_compared_and_written(tmp_path) -> None:
    task = Task(model(), (X, Y), test=(X[:6], Y[:6]))
    b = {k: v + 0.3 for k, v in task.model.state_dict().items()}
    settings = memspace.CompareSettings(examples=20, effort=5)
    found = memspace.compare(task, task.model.state_dict(), b, out=tmp_path / "run", settings=settings)
    assert 0 < found.geodesic.lower <= found.geodesic.length.upper
    assert found.results.settings == {"align": False, "examples": 20, "effort": 5, "seed": 0}
    assert (tmp_path / "run" / "report.html").exists()
    with pytest.raises(MemspaceError, match=r"memspace\.compare, B"):
        memspace.compare(task, b, {"weight": b["weight"]})


def test_inputs_are_attacked_and_the_model_is_left_alone() -> None:
    settings = memspace.AttackSettings(10, memspace.AttackSearch(steps=3, restarts=0, bisections=2), draws=1)
    net = model().train()
    found = memspace.attack(net, (X, Y), settings=settings)
    assert found.data == "training"
    assert len(found.index) == 10
    assert net.training


def trained_task() -> Task:
    def make() -> nn.Module:
        return nn.Linear(4, 3)

    training = memspace.Training(make, memspace.Recipe(2, 8, 0.1, 0.0))
    return Task(model(), (X, Y), test=(X[:6], Y[:6]), training=training)


def test_networks_are_retrained_in_memory_and_into_a_folder_alike(tmp_path) -> None:
    settings = memspace.RetrainSettings(subsets=3, seeds=2, queries=4)
    found = memspace.retrain(trained_task(), settings=settings)
    written = memspace.retrain(trained_task(), settings=settings, out=tmp_path)
    assert found.trained == written.trained == 6
    assert [m.value for m in found.measurements["half"]] == [m.value for m in written.measurements["half"]]
    assert (tmp_path / "retrain.json").exists()
    for bad in ({"parts": ("best",)}, {"subsets": 0}, {"shares": (2.0,)}, {"queries": "all"}):
        with pytest.raises(SettingsError):
            memspace.RetrainSettings(**bad)


def test_capacity_is_that_of_the_task_or_of_fully_connected_networks() -> None:
    settings = memspace.CapacitySettings((1.0,), seeds=2, steps=5, doublings=0)
    own = memspace.capacity(trained_task(), settings=settings)
    assert [s.capacity.parameters for s in own.studies] == [15]
    made = memspace.capacity(trained_task(), widths=(2, 3), settings=settings)
    assert [s.architecture.name for s in made.studies] == ["4-2-3", "4-3-3"]
    assert {m.name for m in made.measurements} >= {"4-2-3.capacity.bits", "4-3-3.capacity.bits"}
    with pytest.raises(TaskError, match="how its network is made"):
        memspace.capacity(model(), (X, Y))
    with pytest.raises(SettingsError, match="widths"):
        memspace.capacity(trained_task(), widths=(0,))


def test_a_study_without_test_data_is_refused_before_any_training() -> None:
    with pytest.raises(MemspaceError, match="classes and test data"):
        memspace.study(model(), (X, Y))


@pytest.mark.parametrize("path", [(1, 2), torch.zeros(2, 2), [None], [{"a": 1}]])
def test_a_path_is_made_of_states(path) -> None:
    job = trained_task()
    state = job.model.state_dict()
    with pytest.raises(MemspaceError, match=r"no state dict|a state lacks"):
        memspace.geodesic(job, state, {k: v + 1 for k, v in state.items()}, path=path)


@pytest.mark.parametrize("bad", [3, {"weight": 1}, {"weight": torch.zeros(2, 2)}, [1]])
def test_an_end_is_a_state_of_the_model(bad) -> None:
    job = trained_task()
    with pytest.raises(MemspaceError, match=r"state dict|do not fit|not a dict"):
        memspace.geodesic(job, job.model.state_dict(), bad)
    with pytest.raises(MemspaceError, match=r"state dict|do not fit|not a dict"):
        memspace.compare(job, job.model.state_dict(), bad)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda t: memspace.prune(t, []), "no share to keep"),
        (lambda t: memspace.compare(t, t.model.state_dict(), t.model.state_dict(), names=("a",)), "1 names of two"),
        (
            lambda t: memspace.influence(t, [0], target=lambda: 1, damping=0.1),
            "cannot be called with outputs and labels",
        ),
        (lambda t: memspace.capacity(t, widths=(10**9,)), "widths is out of range"),
        (lambda t: memspace.write(t, 10**30, 0), "no room in a tensor"),
        (lambda t: memspace.write(t, X[:1], 10**30), "no room in a tensor"),
    ],
)
def test_what_a_verb_cannot_use_is_told_in_a_sentence(call, says) -> None:
    with pytest.raises(MemspaceError, match=says) as said:
        call(trained_task())
    assert "\n" not in str(said.value)
