"""A representation of the metric that another package adds by one module."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import memspace
from memspace.metric.fisher import build
from memspace.metric.metric import Estimate
from memspace.metric.spectral import Dense, Diagonal
from memspace.testing import check_metric
from tests.extension.outside import run_outside

BANDED = '''
"""F in two halves of its parameters, nothing between them."""
import torch
from memspace.metric.context import BuildContext
from memspace.metric.metric import FisherMetric
from memspace.metric.representation import MemoryNeed, Representation, representation, representation_named
from memspace.metric.spectral import Dense


@representation
class Halves(Representation):
    name = "halves"

    def need(self, context: BuildContext) -> MemoryNeed:
        return MemoryNeed(16 * context.space.size**2, "a matrix of halves")

    def build(self, context: BuildContext) -> FisherMetric:
        whole, half = representation_named("dense").build(context).to_dense(), context.space.size // 2
        whole[:half, half:] = 0
        whole[half:, :half] = 0
        return Dense.of(whole, str(context.kind))
'''

TASK = """
import torch, memspace
from memspace.testing import check_metric
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
task = memspace.Task(model, (torch.randn(12, 3).double(), torch.arange(12) % 2))
"""


def test_one_module_from_outside_is_a_representation_by_name(tmp_path: Path) -> None:
    script = TASK + (
        'found, dense = memspace.fisher(task, "halves"), memspace.fisher(task, "dense").to_dense()\n'
        "half = len(dense) // 2\n"
        "dense[:half, half:], dense[half:, :half] = 0, 0\n"
        "check_metric(found, dense)\n"
        "print(found.coverage)\n"
        "space = memspace.verified_space(task)\n"
        'assert torch.equal(memspace.fisher(task, space, "halves").to_dense(), found.to_dense())\n'
    )
    done = run_outside(tmp_path, BANDED, script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("100% of 26 parameters")


def test_it_is_named_where_a_name_is_unknown_and_held_to_the_memory_allowed(tmp_path: Path) -> None:
    script = TASK + (
        "for options in ({'representation': 'haves'}, {'representation': 'halves', 'memory': 100}):\n"
        "    try:\n"
        "        memspace.fisher(task, memspace.verified_space(task), **options)\n"
        "    except memspace.MemspaceError as error:\n"
        "        print(error)\n"
    )
    done = run_outside(tmp_path, BANDED, script)
    assert "one of block, dense, diagonal, dual, ekfac, halves, implicit, kfac, nystroem" in done.stdout, done.stderr
    assert "a matrix of halves" in done.stdout
    assert "ekfac or implicit" in done.stdout


def test_a_name_is_given_once(tmp_path: Path) -> None:
    taken = BANDED.replace('"halves"', '"dense"')
    script = "from memspace.metric.representation import known_representations as known; print(known().count('dense'))"
    done = run_outside(tmp_path, taken, TASK + script)
    assert done.stdout.split() == ["1"]
    assert "two representations 'dense'" in done.stderr


def _matrix(seed: int = 0) -> Tensor:
    root = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T


class _Broken(Dense):
    """A dense metric with one method replaced."""


@pytest.mark.parametrize(
    ("method", "replaced", "says"),
    [
        ("solve", lambda self, v, damping: Dense.solve(self, v, 2 * damping), "solve is"),
        ("solve", lambda self, v, damping: self.apply(lambda x: 1 / (x + damping), v), "takes the damping"),
        ("trace", lambda self, fn=None: Estimate(Dense.trace(self, fn).value + 1), "the trace is"),
        ("logdet", lambda self, damping: Dense.logdet(self, 2 * damping), "log det"),
        ("matvec", lambda self, v: Dense.matvec(self, v).double(), "float32 vectors is torch.float64"),
        ("diagonal", lambda self: 2 * Dense.diagonal(self), "the diagonal is"),
        ("eigenvalues", lambda self: self.values, "not in descending order"),
        ("eigenvalues", lambda self: 2 * Dense.eigenvalues(self), "the largest eigenvalue"),
        ("to_dense", lambda self: -Dense.to_dense(self), "negative eigenvalue"),
        ("to_dense", lambda self: Dense.to_dense(self).triu(), "the transpose of the matrix"),
    ],
)
def test_the_contract_says_what_is_broken(
    method: str, replaced: object, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Broken, method, replaced, raising=False)
    whole = Dense.of(_matrix())
    with pytest.raises(AssertionError, match=says) as said:
        check_metric(_Broken(whole.vectors, whole.values))
    assert "\n" not in str(said.value)


def test_the_contract_holds_a_metric_to_a_reference() -> None:
    matrix = _matrix()
    check_metric(Dense.of(matrix), matrix)
    check_metric(Diagonal(matrix.diagonal()))
    with pytest.raises(AssertionError, match="against the reference"):
        check_metric(Diagonal(matrix.diagonal()), matrix)


def test_options_of_a_metric_are_known_by_name() -> None:
    task = memspace.Task(nn.Linear(3, 2), (torch.randn(8, 3), torch.arange(8) % 2))
    assert memspace.fisher(task, "dense", kind="mc", samples=3, seed=1).kind == "mc:3"
    for call, says in (
        (lambda: memspace.fisher(task, "dense", sample=3), "'sample'"),
        (lambda: memspace.fisher(task, "dense", seed=-1), "seed is out of range"),
        (lambda: build(task, memspace.verified_space(task)), "no representation is given"),
        (lambda: memspace.fisher(task, "dense", "dual"), "is given where the parameters belong"),
    ):
        with pytest.raises(memspace.MemspaceError, match=says):
            call()
