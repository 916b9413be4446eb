"""Statistics of many examples: sums in float32 stay those of float64, and tables stay few tensors."""

import pytest
import torch
from torch import nn

from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.space import ParameterSpace
from memspace.passes.statistics import DiagonalFisher, GradientNorms, KroneckerFactors
from memspace.task.task import Task

N = 1_000_000


def statistics(model, x, y, batch):
    task, space = Task(model=model, train=(x, y)), ParameterSpace(model)
    made = KroneckerFactors(space.blocks), DiagonalFisher(space.blocks)
    run_pass(task, space, made, PassOptions(batch=batch))
    return [{k: v / N for k, v in m.finish().items()} for m in made]


@pytest.mark.parametrize("batch", [256, 2**15])
def test_float32_sums_over_a_million_examples(batch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(N, 3) + 1  # a mean away from zero: sums grow with N, as where a naive float32 sum loses digits
    y = torch.zeros(N, dtype=torch.long)
    low = statistics(model, x, y, batch)
    high = statistics(model.double(), x.double(), y, batch)
    eps = torch.finfo(torch.float32).eps
    for a, b in zip(low, high, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == torch.float64
            # Within a batch B positive terms are summed in float32: relative error of order √B eps (Higham & Mary
            # 2019), whatever N is. A float32 sum across the 3,906 batches of 256 would lose thousands of eps.
            assert float((a[key] - b[key]).abs().max()) < 4 * batch**0.5 * eps * float(b[key].abs().max())
        assert float(a["n"]) == 1


def test_a_table_of_many_batches_is_few_tensors_in_order():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    n, batch = 20_011, 16
    x, y = torch.randn(n, 3, dtype=torch.float64), torch.randint(2, (n,))
    task, space = Task(model=model, train=(x, y)), ParameterSpace(model)
    table, whole = (GradientNorms(space.blocks, "empirical") for _ in range(2))
    run_pass(task, space, [table], PassOptions(batch=batch))
    run_pass(task, space, [whole], PassOptions(batch=n))
    assert len(table._parts["norms"]) <= (n // batch).bit_length() + 1  # the last batch is smaller than the others
    torch.testing.assert_close(table.finish()["norms"], whole.finish()["norms"], rtol=1e-10, atol=1e-14)


def test_factors_taken_are_the_factors_and_leave_no_matrix_behind():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)).double()
    task = Task(model=model, train=(torch.randn(20, 3, dtype=torch.float64), torch.randint(2, (20,))))
    made = KroneckerFactors(ParameterSpace(model).blocks)
    run_pass(task, ParameterSpace(model), [made])
    kept = made.factors()
    taken = dict(made.taken())
    assert taken.keys() == kept.keys()
    assert all(torch.equal(taken[k].a, f.a) and torch.equal(taken[k].g, f.g) for k, f in kept.items())
    assert not any(t.dim() for t in made.state().values())
