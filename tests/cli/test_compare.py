"""``memspace compare``: from two checkpoints to one page; bad input ends in one sentence."""

import json

import pytest
import torch
from axe_selenium_python import Axe
from safetensors.torch import save_file
from typer.testing import CliRunner

from memspace.auditing.store import load_results
from memspace.cli import app
from memspace.errors import CheckpointError, UnsupportedLayerError, WeightsMismatchError
from tests.browser import CHROMIUM, DRIVER, open_page, started

TASK = """
import torch
from torch import nn
import memspace
from memspace.task.task import Run


def make(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)).eval()


def task():
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(60, 16, generator=g), torch.randint(0, 3, (60,), generator=g)
    states = [{k: v.clone() for k, v in make(s).state_dict().items()} for s in (0, 5, 6, 1)]
    run = Run(tuple(states), (0.0, 1.0, 2.0, 3.0), (0, 1, 2, 3), 1.0)
    model = make(1)
    return memspace.Task(model=model, train=(x, y), test=(x[:20] + 0.1, y[:20]), name="hand", run=run,
                         input_shape=(4, 4), class_names=("<b>a</b>", "b", "c"))


def residual():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(16, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            h = self.a(x)
            return self.c(h + torch.relu(self.b(h)))

    g = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = Net().eval()
    states = [{k: v + s * torch.randn(v.shape, generator=g) for k, v in net.state_dict().items()} for s in (1.0, 0.0)]
    return memspace.Task(model=net, train=(torch.rand(30, 16, generator=g), torch.arange(30) % 3),
                         run=Run(tuple(states), (0.0, 1.0), (0, 1)))
"""
QUICK = ["--effort", "20", "--examples", "40"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    at = tmp_path_factory.mktemp("compare")
    (at / "compared_task.py").write_text(TASK, encoding="utf-8")
    for name, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(torch.nn.Linear(16, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
        save_file(net.state_dict(), str(at / f"{name}.safetensors"))
    save_file({"0.weight": torch.zeros(12, 16)}, str(at / "other.safetensors"))
    return at


def run(folder, monkeypatch, *arguments):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return CliRunner().invoke(app, ["compare", "compared_task:" + arguments[0], *arguments[1:]])


@pytest.fixture(scope="module")
def page(folder):
    patch = pytest.MonkeyPatch()
    done = run(folder, patch, "task", "a.safetensors", "b.safetensors", "--align", "--out", "out", *QUICK)
    patch.undo()
    assert done.exit_code == 0, done.output
    assert "nats^½" in done.output
    return folder / "out"


def test_the_results_hold_the_bounds_in_order(page):
    results = load_results(page)
    value = {m.name: m.value for c in results.chapters for m in c.measurements}
    assert (
        value["compare.lower_bound"] <= value["compare.length_found"] <= value["compare.straight_line_length"] * 1.0001
    )
    low, high = next(m.interval for c in results.chapters for m in c.measurements if m.name == "compare.lower_bound")
    # Forty examples of a distance that differs from one to the next by a fifth and more.
    assert low < 0.97 * value["compare.lower_bound"] < value["compare.lower_bound"] < high
    # The gap is that of the upper bound, which lies above the estimate by less than the length's own settling.
    estimate = value["compare.length_found"] / value["compare.lower_bound"] - 1
    assert estimate <= value["compare.gap"] <= estimate + 0.05
    carried = sum(v for k, v in value.items() if k.startswith("layers.carried"))
    assert carried == pytest.approx(value["compare.length_found"], rel=0.02)
    assert {"barrier.line.training", "barrier.geodesic.test", "compare.units_moved"} <= value.keys()
    assert value["compare.straight_line_before_matching"] > 0
    assert len(results.tables["examples"]["index"]) == 40
    written = json.loads((page / "results.json").read_text(encoding="utf-8"))
    assert [c["id"] for c in written["chapters"]] == ["distance", "better", "barrier", "layers", "examples"]
    html = (page / "report.html").read_text(encoding="utf-8")
    assert ", compared</h1>" in html
    assert "<b>a</b>" not in html


def test_checkpoints_of_the_tasks_own_training(folder, monkeypatch):
    done = run(folder, monkeypatch, "task", "@0", "@-1", "--out", "own", "--json", *QUICK)
    assert done.exit_code == 0, done.output
    found = {m["name"]: m["value"] for c in json.loads(done.stdout)["chapters"] for m in c["measurements"]}
    assert found["compare.length_found"] <= found["compare.path_length"] * 1.0001


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("task", "a.safetensors", "other.safetensors"), WeightsMismatchError, "do not fit the model"),
        (("task", "missing.safetensors", "a.safetensors"), CheckpointError, "no such checkpoint"),
        (("task", "@9", "a.safetensors"), CheckpointError, "holds checkpoints @0 to @3"),
        (("residual", "@0", "@1", "--align"), UnsupportedLayerError, "compare without alignment"),
    ],
    ids=["mismatch", "missing", "no such place", "no chain"],
)
def test_bad_input_ends_in_one_sentence(folder, monkeypatch, arguments, error, said):
    done = run(folder, monkeypatch, *arguments)
    assert isinstance(done.exception, error)
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    with started(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_the_page_in_a_browser(browser, page, width, scheme):
    open_page(browser, (page / "report.html").as_uri(), width, scheme)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.querySelectorAll('.plot .main-svg').length") >= 5
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    asked = "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"
    assert browser.execute_script(asked) == []
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    axe = Axe(browser)
    axe.inject()
    assert [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in axe.run()["violations"]] == []
