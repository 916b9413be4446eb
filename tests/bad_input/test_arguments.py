"""Public functions given something of a wrong type say so in one sentence; what they take is still taken."""

import numpy as np
import pytest
import torch
from torch import nn

import memspace
from memspace import Categorical, Data, MemspaceError, Task
from memspace.errors import DataError, SettingsError, TaskError

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(3))
Y = torch.arange(24) % 3


def task() -> Task:
    torch.manual_seed(0)
    return Task(nn.Linear(4, 3), (X, Y))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: memspace.influence(task(), "17"), "queries are whole numbers in a list, not '17'"),
        (lambda: memspace.influence(task(), (X, Y)), "queries are whole numbers"),
        (lambda: memspace.influence(task(), [0], target=3), "target is 3"),
        (lambda: memspace.influence(task(), [0], settings={"seed": 1}), "settings is a dict"),
        (lambda: memspace.influence(task(), [0], dampling=0.1), "'dampling'"),
        (lambda: memspace.forget(task(), ["a"]), "examples are whole numbers in a list, not a list"),
        (lambda: memspace.forget(task(), 3), "not 3"),
        (lambda: memspace.duplicates(task(), rate="low"), "rate is 'low', not a number"),
        (lambda: memspace.geodesic(task(), nn.Linear(4, 3), {}), r"state_dict\(\)"),
        (lambda: memspace.fisher(task(), 3, "dual"), "verified_space"),
        (lambda: memspace.fisher(task(), memspace.verified_space(task()), "full"), "one of block, dense"),
        (lambda: memspace.fisher(task(), memspace.verified_space(task()), "dual", kind="true"), "one of exact"),
        (lambda: memspace.fisher(task(), memspace.verified_space(task()), "dual", memory="4GiB"), "memory is '4GiB'"),
        (lambda: memspace.ParameterSpace(task()), r"not an nn\.Module"),
        (lambda: memspace.NaturalGradient(task()), r"not an nn\.Module"),
        (lambda: memspace.DepthAction("net"), r"not an nn\.Module"),
        (lambda: memspace.FisherRaoNorm(nn.Linear(4, 3), Categorical), r"give Categorical\(\.\.\.\)"),
        (lambda: memspace.load_run(3), "a string or a path"),
        (lambda: memspace.watch(nn.Linear(4, 3), (X, Y), 3, out=None), "steps to follow"),
        (lambda: memspace.audit(nn.Linear(4, 3), (X, Y), clas_names=("a",)), "class_names may be meant"),
        (lambda: memspace.audit(nn.Linear(4, 3), (X, Y), settings=0), "settings is 0"),
        (lambda: memspace.audit(nn.Linear(4, 3), (X, Y), likelihood=Categorical), r"give Categorical\(\.\.\.\)"),
        (lambda: memspace.depth_action(nn.Linear(4, 3), (X, Y), nam="x"), "name may be meant"),
        (lambda: memspace.Gaussian("wide"), "positive sigma"),
        (lambda: memspace.Training(nn.Linear(4, 3), "adam"), "recipe is 'adam'"),
        (lambda: memspace.Training(3, memspace.Recipe(1, None, 0.1, 0.0)), "make is 3, not a function"),
        (lambda: memspace.Recipe("many", None, 0.1, 0.0), "epochs is 'many', not a whole number"),
        (lambda: memspace.Recipe(1, None, 0.1, 0.0, optimiser="lion"), "adam or sgd"),
    ],
)
def test_one_sentence_names_what_is_wrong(call, says) -> None:
    with pytest.raises(MemspaceError, match=says) as said:
        call()
    assert "\n" not in str(said.value)
    assert isinstance(said.value, SettingsError | TaskError | DataError)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("likelihood", "categorical"),
        ("likelihood", Categorical),
        ("name", 3),
        ("class_names", "abc"),
        ("input_shape", 8),
        ("show", "text"),
        ("factors", [1]),
        ("decay", "1e-3"),
        ("run", "runs/mine"),
        ("refit", 5),
        ("training", memspace.Recipe(1, None, 0.1, 0.0)),
        ("description", "mine"),
        ("layer", 2),
        ("parameters", 4),
        ("shift_labels", "yes"),
    ],
)
def test_a_task_says_which_field_is_of_a_wrong_type(field, given) -> None:
    with pytest.raises(SettingsError, match=f"^{field} is "):
        Task(nn.Linear(4, 3), (X, Y), **{field: given})


@pytest.mark.parametrize("model", [3, None, nn.Linear, (lambda x: x)])
def test_a_model_is_a_module(model) -> None:
    with pytest.raises(SettingsError, match=r"^model is .*not an nn\.Module"):
        Task(model, (X, Y))


def test_numbers_of_every_library_and_lists_of_every_kind_are_taken() -> None:
    t = task()
    first = memspace.influence(t, [1, 2], damping=0.1).scores
    for queries in (np.array([1, 2]), torch.tensor([1, 2]), range(1, 3), (1, 2)):
        assert torch.equal(memspace.influence(t, queries, damping=np.float32(0.1)).scores.double(), first) or (
            torch.allclose(memspace.influence(t, queries, damping=0.1).scores, first)
        )
    made = Task(nn.Linear(4, 3), (X, Y), class_names=np.array(["a", "b", "c"]), decay=np.float64(0.1), input_shape=[4])
    assert made.train.labels().tolist() == Y.tolist()


def test_new_examples_come_as_a_pair_or_as_any_data() -> None:
    pair = memspace.write(task(), X[:2], (Y[:2] + 1) % 3, damping=1e-2)
    for given in ((X[:2], (Y[:2] + 1) % 3), Data((X[:2], (Y[:2] + 1) % 3))):
        found = memspace.write(task(), given, damping=1e-2)
        assert torch.equal(found.change, pair.change)
