"""Several processes find what one finds."""

import pytest
import torch

from memspace.errors import WorkerError
from memspace.passes.processes import Processes, across, current
from tests import warm
from tests.processes import sharded
from tests.processes.work import NAMES, everything, member

SUMMED = 1e-10  # relative: float64 sums of a few numbers in another order, through an eigendecomposition


@pytest.mark.parametrize(("size", "names"), [(2, NAMES), (3, ["linear", "shared positions"])])
def test_statistics_and_products_are_those_of_one_process(size, names, tmp_path):
    seed = 10 + size
    warm.team(member, (size, seed, str(tmp_path), names), size)
    expected = everything(seed, names)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(size)]
    for key, value in expected.items():
        for f in found:
            assert f[key].shape == value.shape, key
            assert float((f[key] - value).norm()) <= SUMMED * float(value.norm()), key
            assert torch.equal(f[key], found[0][key]), f"{key} differs between processes"


@pytest.mark.parametrize(("total", "size"), [(5, 2), (5, 3), (7, 7), (1000, 3)])
def test_shards_are_a_partition_in_order(total, size):
    index = torch.randperm(total)
    parts = [Processes(rank, size).shard(total, index) for rank in range(size)]
    assert torch.equal(torch.cat(parts), index)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_work_is_shared_only_where_asked_for():
    assert current().size == 1
    with pytest.raises(WorkerError, match="torchrun"), across():
        pass


def test_parameters_spread_by_fsdp_are_read_whole(tmp_path):
    warm.team(sharded.member, (2, 5, str(tmp_path)), 2)
    expected = sharded.matrices(5, shard=False)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for key, value in expected.items():
            assert float((found[key] - value).norm()) <= SUMMED * float(value.norm()), key
