"""Agreement with peer libraries where they and we are exact about the same thing; float64, small networks."""

import importlib

import pytest
import torch

from benchmarks.engine_ours import OURS
from benchmarks.engine_outcome import difference
from memspace.metric.fisher import build
from tests.peers.workloads import workload

# A few thousand float64 products, each good to 1e-16: 1e-10 leaves room for inverses of factors (condition ~1e4).
TIGHT = 1e-10
# Eigenvalues and scores in eigenbases of their own: rounding over the smallest gap of twenty or so eigenvalues.
BASES = 1e-8

PEERS = {
    "nngeometry": ("nngeometry", "nngeometry_items", TIGHT),
    "BackPACK": ("backpack", "backpack_items", TIGHT),
    "curvlinops": ("curvlinops", "curvlinops_items", TIGHT),
    "opacus": ("opacus", "opacus_items", TIGHT),
    "hessian-eigenthings": ("hessian_eigenthings", "eigenthings_items", TIGHT),
    "kronfluence": ("kronfluence", "kronfluence_items", BASES),
    "dattri": ("dattri", "dattri_items", BASES),
    "torch.func": ("torch.func", "torch_func_items", TIGHT),
}
BOTH = ("mlp", "cnn")
CASES = [
    *[("nngeometry", i, n) for i in ("diagonal-exact", "kfac-exact", "product", "gram") for n in BOTH],
    *[("BackPACK", i, n) for i in ("norms", "diagonal-exact", "kfac-exact") for n in BOTH],
    *[("curvlinops", i, n) for i in ("kfac-exact", "ekfac-empirical", "product") for n in BOTH],
    *[("opacus", "norms", n) for n in BOTH],
    *[("hessian-eigenthings", "product", n) for n in BOTH],
    *[("kronfluence", i, n) for i in ("ekfac-empirical", "self-influence", "pairwise") for n in BOTH],
    *[("torch.func", i, n) for i in ("norms", "gram") for n in BOTH],
]

pytestmark = pytest.mark.filterwarnings("ignore")  # the peers' own


def items_of(peer):
    module, items, tolerance = PEERS[peer]
    pytest.importorskip(module)
    return importlib.import_module(f"benchmarks.peers.{items}").ITEMS, tolerance


@pytest.mark.parametrize(("peer", "item", "network"), CASES)
def test_same_result_as_a_peer(peer, item, network):
    items, tolerance = items_of(peer)
    w = workload(network, seed=sum(map(ord, peer + item)))
    theirs, ours = items[item](w)().result, OURS[item](w)().result
    assert difference(ours, theirs) < tolerance


def test_a_dense_fisher_is_nngeometrys():
    pytest.importorskip("nngeometry")
    from nngeometry.layercollection import LayerCollection
    from nngeometry.metrics import FIM
    from nngeometry.object import PMatDense

    from benchmarks.peers.common import fast_loader, model_of
    from benchmarks.peers.nngeometry_items import default_dtype, flat, vector

    w = workload("mlp", seed=4)
    model = model_of(w)
    layers = LayerCollection.from_model(model)
    with default_dtype(torch.float64):
        matrix = FIM(model, fast_loader(*w.data, w.batch), PMatDense, layer_collection=layers)
    ours = build(w.task, w.space, "dense")
    for v in w.vectors[:5]:
        theirs = flat(w, model, layers, matrix.mv(vector(w, model, layers, v)))
        assert difference(ours.matvec(v), theirs) < TIGHT


def test_dattris_scores_are_of_another_matrix():
    # What the benchmark says of it; the day this fails, its scores have become comparable.
    items, _ = items_of("dattri")
    w = workload("bias-free", seed=2)
    assert difference(OURS["pairwise"](w)().result, items["pairwise"](w)().result) > 0.01


@pytest.mark.parametrize("network", BOTH)
def test_influence_on_a_margin_is_kronfluences(network):
    pytest.importorskip("kronfluence")
    import tempfile

    from kronfluence.arguments import ScoreArguments

    from benchmarks.peers import kronfluence_items as peer
    from benchmarks.peers.common import Whole, model_of
    from memspace.attribution.engines import Engine
    from memspace.attribution.prepared import score_pass
    from memspace.attribution.question import ask
    from memspace.attribution.target import TARGETS
    from memspace.passes.linearise import FisherOperator
    from memspace.task.data import Data

    w, margin, gamma = workload(network, seed=9), TARGETS["margin"], 0.03

    class Margins(peer.Losses):
        def compute_measurement(self, batch, model):
            x, y = batch
            return -margin.value(w.task.likelihood, model(x), y).sum()  # what it preconditions falls with our outcome

    with tempfile.TemporaryDirectory() as folder:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(peer, "Losses", Margins)
            analyzer = peer.analyzer_of(model_of(w), folder)
        peer._fit(w, analyzer, "empirical")
        names = ("query_gradient_svd", "per_sample_gradient", "precondition", "score")
        analyzer.compute_pairwise_scores(
            scores_name="pairs",
            factors_name="factors",
            query_dataset=Whole(*w.queries),
            train_dataset=Whole(*w.data),
            per_device_query_batch_size=len(w.queries[1]),
            per_device_train_batch_size=w.batch,
            score_args=ScoreArguments(damping_factor=gamma, **{f"{n}_dtype": torch.float64 for n in names}),
        )
        theirs = analyzer.load_pairwise_scores("pairs")["all_modules"]
    metric = build(w.task, w.space, "ekfac", kind="empirical")
    engine = Engine("ekfac", "", metric, w.n, FisherOperator(w.task, w.space), 1e-6, 100)
    asked = ask(w.task, w.space, margin, Data(w.queries), torch.arange(len(w.queries[1])))
    ours = score_pass(w.task, w.space, engine.solve(asked.gradients, gamma).x)["scores"].t()
    assert difference(ours * w.n, theirs) < BASES  # theirs is per mean Fisher matrix, ours per sum over examples


def test_a_difference_is_seen():
    a = {"x": (torch.eye(2), torch.eye(3))}
    assert difference(a, {"x": (torch.eye(2), 1.5 * torch.eye(3))}) == pytest.approx(1 / 3)
    assert difference(torch.ones(4), torch.tensor([1.0, 1, 1, 2])) == pytest.approx(1 / 7**0.5)
    with pytest.raises(ValueError, match="shapes"):
        difference(torch.ones(4), torch.ones(4, 1))
