"""Some of a network's parameters: every kind of layer, any choice, against the dense reference of the whole."""

import pytest
import torch

from memspace.metric.fisher import build
from memspace.passes.verify import verified_space
from memspace.task.likelihood import Categorical
from memspace.task.task import Task
from tests.contract.networks import NETWORKS, dense_fisher, network

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

REPRESENTATIONS = ["dense", "dual", "implicit", "nystroem"]
EXACT, SKETCHED = 1e-10, 1e-6  # relative; as in the metric's contract


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_fisher_of_a_subset_is_a_block_of_the_whole(name, seed):
    model, x = network(name, seed)
    y = Categorical().sample(model(x).detach(), torch.Generator().manual_seed(seed))
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = [names[i] for i in order[: max(1, len(names) // (seed + 1) - 1)]]
    task = Task(model, (x, y), parameters=tuple(chosen))
    space = verified_space(task)
    assert set(space.names) == set(chosen)
    # The whole one, entry by entry: which entries of its flat vector are the subset's.
    whole = verified_space(Task(model, (x, y)))
    place = whole.unpack(torch.arange(whole.size, dtype=torch.float64))
    place = space.pack({n: place[n] for n in chosen}).long()
    want = dense_fisher(model, whole, Categorical(), x, y)[place][:, place]
    for r in REPRESENTATIONS:
        got = build(task, space, r, batch=2).to_dense()
        tolerance = SKETCHED if r == "nystroem" else EXACT
        assert float((got - want).norm()) <= tolerance * float(want.norm()), r
