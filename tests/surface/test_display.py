"""Every result prints as a table, gives data frames and shows itself in a notebook."""

import builtins
import importlib
import inspect
import math
import pkgutil
import tempfile
from pathlib import Path

import pandas
import pytest
import torch
from torch import nn

import memspace
from memspace import Measurement, Task, Unmeasured
from memspace.display import Shown
from memspace.errors import MissingPackageError, SettingsError
from memspace.gap.fit import fit_gap
from memspace.gap.predictors import EXAMPLES, PARAMETERS, PREDICTORS
from memspace.zoo.gap import settings_of
from memspace.zoo.measuring_settings import ZooSettings
from tests.claims.examples import PAIRS, locked, stored
from tests.claims.synthetic import zoo
from tests.gap.around import zoo_around
from tests.zoo.made import made_store
from tests.zoo.measured_networks import perceptron_task

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(3))
Y = (X @ torch.randn(4, 3, generator=torch.Generator().manual_seed(4))).argmax(1)


def task() -> Task:
    torch.manual_seed(0)
    block, other = (nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(2))
    return Task(nn.Sequential(nn.Linear(4, 6), block, other, nn.Linear(6, 3)), (X, Y), test=(X[:20], Y[:20]))


def training() -> memspace.Training:
    return memspace.Training(lambda: nn.Linear(4, 3), memspace.Recipe(2, 20, 0.1, 0.0, optimiser="sgd"))


def linear() -> Task:
    torch.manual_seed(0)
    return Task(nn.Linear(4, 3), (X, Y), test=(X[:20], Y[:20]), training=training())


def moved(job: Task) -> dict[str, torch.Tensor]:
    return {k: v + 0.2 for k, v in job.model.state_dict().items()}


def recorded() -> Task:
    states, time, step = [], [], []
    model = nn.Linear(4, 3)
    optimiser = torch.optim.SGD(model.parameters(), 0.2)
    for k in range(40):
        if k % 4 == 0:
            states.append({n: v.clone() for n, v in model.state_dict().items()})
            time.append(0.2 * k)
            step.append(k)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(X), Y).backward()
        optimiser.step()
    run = memspace.Run(states=tuple(states), time=tuple(time), step=tuple(step))
    model.load_state_dict(states[-1])
    return Task(model, (X, Y), run=run)


def compared() -> memspace.NetworkComparison:
    job = linear()
    settings = memspace.CompareSettings(examples=20, effort=3)
    return memspace.compare(job, job.model.state_dict(), moved(job), settings=settings)


def shortest() -> memspace.Geodesic:
    job, settings = linear(), memspace.GeodesicSettings(levels=(5,), limit=3, curve=False)
    return memspace.geodesic(job, job.model.state_dict(), moved(job), settings=settings)


def judged() -> memspace.ClaimResults:
    with tempfile.TemporaryDirectory() as folder:
        registered = locked(Path(folder) / "registered", PAIRS)
        return memspace.judge_claims(store=stored(Path(folder) / "store", zoo(3)), registered=registered)


def told_gap() -> memspace.PredictedGap:
    settings = ZooSettings(examples=40, rows=400)
    network = perceptron_task(n=80, width=8, steps=30)
    measured = memspace.measure_network(network, settings=settings, only=PREDICTORS)
    sizes = {EXAMPLES: 80.0, PARAMETERS: float(sum(p.numel() for p in network.model.parameters()))}
    numbers = {m.name: m.value for m in measured.measurements} | sizes
    calibration = fit_gap(zoo_around(numbers), settings=settings_of(settings))
    return memspace.predict_gap(network, calibration=calibration)


def judged_zoo() -> memspace.JudgedZoo:
    with tempfile.TemporaryDirectory() as folder:
        return memspace.judge_zoo(made_store(Path(folder) / "store"), measures=["fisher.trace"], draws=20)


def trained_zoo() -> memspace.TrainedZoo:
    with tempfile.TemporaryDirectory() as folder:
        declared = made_store(Path(folder) / "store").parent / "one.toml"
        centre = (
            'family = "mlp", data = "digits", width = 8, depth = 1, rate = 1.0, batch = 16, decay = 0.0, dropout = 0.0'
        )
        rest = 'label_noise = 0.0, size = 50, optimiser = "adam", target = 1.5, most = 50'
        declared.write_text(f"[[star]]\nseeds = [0]\ncentre = {{ {centre}, {rest} }}\n")
        settings = memspace.WorkSettings(1, stages=("train",))
        return memspace.train_zoo(declared, out=Path(folder) / "trained", settings=settings)


def trained_encoders() -> memspace.TrainedEncoders:
    with tempfile.TemporaryDirectory() as folder:
        declared = Path(folder) / "one.toml"
        every, worlds = "{ width = 8, steps = 2 }", "{ shapes = { size = 50, pooled = 8 } }"
        declared.write_text(f"every = {every}\nworlds = {worlds}\nmethods = {{ vae = 1.0 }}\n")
        work = memspace.EncoderWork(1, stages=("train",))
        return memspace.train_encoders(declared, out=Path(folder) / "store", work=work)


ATTACK = memspace.AttackSettings(10, memspace.AttackSearch(steps=2, restarts=0, bisections=2), draws=1)
DISSECT = memspace.DissectSettings(shuffles=19, rotations=2, data="train", least=0.5)
CAPACITY = memspace.CapacitySettings((1.0,), seeds=2, steps=5, doublings=0)
# result class: how one is made, and its tables besides the quantities
RESULTS = {
    "Results": (lambda: memspace.audit(task(), settings=memspace.AuditSettings(damping=0.1)), {"examples"}),
    "Chapter": (lambda: memspace.audit(task(), settings=memspace.AuditSettings(damping=0.1)).chapters[0], set()),
    "Influence": (lambda: memspace.influence(task(), [0, 3], damping=0.1), {"top", "scores"}),
    "LeaveOneOut": (lambda: memspace.leave_one_out(task(), folds=0), {"examples"}),
    "LabelIssues": (lambda: memspace.labels(task(), reasons=0), {"labels"}),
    "Duplicates": (lambda: memspace.duplicates(task()), {"pairs"}),
    "Edit": (lambda: memspace.forget(task(), [1, 2], damping=0.1), set()),
    "ExampleWeights": (lambda: memspace.reweight(task(), (X[:5], Y[:5])), {"examples"}),
    "Distilled": (lambda: memspace.distil(linear(), memspace.DistilSettings(1, 2, 3, trials=2)), set()),
    "Depth": (lambda: memspace.depth(task(), blocks=("1", "2"), examples=20, lens="logit"), {"layers"}),
    "Invariants": (lambda: memspace.invariants(linear(), sampled=False), {"unchanged", "layers"}),
    "Dissected": (lambda: memspace.dissect(task(), settings=DISSECT), {"units", "concepts", "ablation"}),
    "Explanation": (
        lambda: memspace.explain(linear(), 3, settings=memspace.ExplainSettings(damping=0.1, count=2)),
        {"answers", "pushes", "classes", "layers", "modes", "mode_examples", "mode_classes", "inputs"},
    ),
    "Modes": (lambda: memspace.modes(linear(), count=2), {"modes", "examples", "layers", "classes"}),
    "TrainingAction": (lambda: memspace.training_action(recorded()), {"checkpoints", "segments"}),
    "Geodesic": (shortest, {"path"}),
    "NetworkComparison": (compared, {"examples"}),
    "InterventionRows": (lambda: memspace.InterventionRows({"fitted": [True], "arm": ["plain"]}), {"interventions"}),
    "CapacityResults": (lambda: memspace.capacity(linear(), settings=CAPACITY), {"loads"}),
    "RetrainResults": (
        lambda: memspace.retrain(linear(), settings=memspace.RetrainSettings(subsets=3, seeds=2, queries=4)),
        {"half", "half-subsets"},
    ),
    "InputStudy": (lambda: memspace.attack(task(), settings=ATTACK), {"examples"}),
    "ClaimResults": (judged, {"verdicts"}),
    "PredictedGap": (told_gap, {"drivers"}),
    "FragileMeasures": (lambda: memspace.fragile_measures("shipped", measures=["norms.distance"]), {"moved"}),
    "JudgedZoo": (judged_zoo, {"judged"}),
    "TrainedEncoders": (trained_encoders, {"methods"}),
    "TrainedZoo": (trained_zoo, {"blocks"}),
    "NetworkMeasures": (lambda: memspace.measure_network(linear()), {"layers"}),
    "PrunedNetwork": (lambda: memspace.prune(task(), 0.5, method="magnitude"), set()),
    "Measurement": (lambda: Measurement("a.b", 1.234, "nats", "counted", 3, (1.1, 1.4)), set()),
    "Unmeasured": (lambda: Unmeasured("a.b", "there is none", "give some"), set()),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_prints_as_a_table_and_gives_frames(name) -> None:
    make, tables = RESULTS[name]
    result = make()
    assert type(result) is getattr(memspace, name)
    text = str(result)
    quantities = result.frame()
    assert list(quantities.columns) == [] or list(quantities.columns)[:5] == ["name", "value", "low", "high", "unit"]
    for row in quantities.itertuples():
        assert row.name in text
        assert row.name in result._repr_html_()
        assert not (math.isnan(row.value) and not row.note)
    assert set(result._tables()) >= tables
    assert bool(result._tables()) == bool(tables)
    for table in tables:
        assert f".frame({table!r})" in text
        assert isinstance(result.frame(table), pandas.DataFrame)
    assert len(repr(result)) < 20_000
    with pytest.raises(SettingsError, match="no table 'rows'"):
        result.frame("rows")


def test_every_class_that_shows_itself_is_exported_and_tried_here() -> None:
    for found in pkgutil.walk_packages(memspace.__path__, "memspace."):
        if not found.name.startswith(("memspace.integrations", "memspace.__main__")):
            importlib.import_module(found.name)
    kinds = set(_below(Shown))
    parts_of_results = {"CapacityStudy"}
    # a study trains for minutes: its own tests make one
    assert {k.__name__ for k in kinds} - parts_of_results - {"ActionStudy"} == set(RESULTS)
    assert all(getattr(memspace, k.__name__) is k for k in kinds if k.__name__ not in parts_of_results)


def _below(kind: type) -> list[type]:
    return [k for c in kind.__subclasses__() if c.__module__.startswith("memspace.") for k in (c, *_below(c))]


def test_columns_stand_below_their_heads() -> None:
    m = Measurement("accuracy", 0.9123, "1", "counted", 50, (0.88, 0.95), reliable=False)
    assert str(m).splitlines() == [
        "quantity  value  95% interval",
        "accuracy  0.912  0.880 to 0.950  not reliable",
    ]


def test_what_was_not_measured_says_why() -> None:
    absent = Unmeasured("loss", "there are no test data", "give test=")
    assert "not measured: there are no test data; give test=" in str(absent)
    row = absent.frame().iloc[0]
    assert math.isnan(row["value"])
    assert row["note"] == "there are no test data; give test="


def test_names_of_users_are_neither_markup_nor_codes() -> None:
    shown = Unmeasured("<b>\x1b[2J", "a\nb", "c")
    assert "<b>" not in shown._repr_html_()
    assert "&lt;b&gt;" in shown._repr_html_()
    assert "\x1b" not in str(shown)
    assert "a b" in str(shown)


def test_without_pandas_one_sentence_says_how_to_get_it(monkeypatch) -> None:
    real = builtins.__import__

    def without(name, *args, **more):
        if name == "pandas":
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match=r"pip install 'memspace\[pandas\]'"):
        Measurement("a", 1.0, "1", "counted", 1).frame()


def test_tables_have_columns_of_one_length_and_a_row_for_what_they_count() -> None:
    found = memspace.influence(task(), [0, 3], damping=0.1)
    scores = found.frame("scores")
    assert len(scores) == 2 * len(X)
    assert scores["score"].iloc[len(X) + 5] == float(found.scores[1, 5])
    top = found.frame("top")
    assert top["supporter"].iloc[0] == int(found.scores[0].argmax())
    assert inspect.signature(found.frame).parameters["table"].default == "quantities"
