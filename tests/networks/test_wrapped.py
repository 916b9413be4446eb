"""Compiled, replicated and half-precision models are read as the plain networks inside them."""

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from memspace.auditing.audit import AuditSettings, audit_task
from memspace.metric.fisher import build
from memspace.passes.verify import verified_space
from memspace.task.checkpoint import load_weights
from memspace.task.likelihood import Categorical
from memspace.task.plain import plain
from memspace.task.task import Task
from tests.contract.networks import dense_fisher
from tests.networks.models import Decoder

FLOAT32 = 1e-4  # relative: float32 rounding through a small network and a sum over its examples


class Gated(nn.Module):
    """A method compiled on its own, an LSTM (which keeps its weights in a list), a buffer, a layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(4, 4), nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)
        self.register_buffer("scale", torch.tensor(0.5))

    def squash(self, x: torch.Tensor) -> torch.Tensor:
        """Tanh, scaled."""
        return torch.tanh(x) * self.scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, 4) → (B, 3)."""
        h = self.squash(self.first(self.squash(self.first(x))))
        return self.last(self.inner(h)[0][:, -1])


def gated():
    torch.manual_seed(torch.seed() % 1000)
    return Gated().eval(), torch.randn(6, 3, 4), torch.randint(0, 3, (6,))


def whole(model):
    return torch.compile(model, backend="eager")


def inside(model):
    model.last = torch.compile(model.last, backend="eager")
    model.inner.compile(backend="eager")
    return model


def method(model):
    model.squash = torch.compile(model.squash, backend="eager")
    return model


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # of the compiler itself
@pytest.mark.parametrize("wrap", [whole, inside, method, nn.DataParallel], ids=lambda f: f.__name__)
def test_a_wrapper_changes_nothing(wrap):
    model, x, y = gated()
    expected = build(t := Task(copy.deepcopy(model), (x, y)), verified_space(t), "dense").to_dense()
    wrapped = wrap(model)
    task = Task(wrapped, (x, y))
    assert not any("_orig_mod" in n or n.startswith("module.") for n, _ in task.model.named_parameters())
    # The same tensors: what training changes afterwards is read.
    assert {id(p) for p in task.model.parameters()} == {id(p) for p in model.parameters()}
    assert torch.equal(build(task, verified_space(task), "dense").to_dense(), expected)
    assert torch.allclose(wrapped(x), task.model(x), atol=1e-6)  # still wrapped, still works


def test_a_model_without_wrappers_is_read_itself():
    model = gated()[0]
    assert plain(model) is model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("share", ["all", "some"])
def test_half_precision_weights_are_read_in_float32(dtype, share):
    model, x, y = gated()
    (model if share == "all" else model.last).to(dtype)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    task = Task(model, (x.to(dtype), y))
    found = build(task, space := verified_space(task), "dense").to_dense()
    reference = copy.deepcopy(task.model).double()
    expected = dense_fisher(reference, space, Categorical(), x.to(dtype).double(), y)
    assert float((found - expected).norm()) < FLOAT32 * float(expected.norm())
    for name, p in task.model.named_parameters():
        assert torch.equal(p, before[name].float())
    assert all(torch.equal(v, before[k]) and v.dtype == before[k].dtype for k, v in model.state_dict().items())
    assert str(dtype).removeprefix("torch.") in task.description["weights"]


def test_tied_weights_stay_tied():
    torch.manual_seed(3)
    model = Decoder().eval().to(torch.bfloat16)
    task = Task(model, (torch.randint(0, 11, (5, 6)), torch.randint(0, 11, (5, 6))))
    assert len(list(task.model.parameters())) == len(list(model.parameters()))


def test_an_audit_says_what_was_read():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).to(torch.bfloat16)
    x, y = torch.randn(40, 4), torch.randint(0, 3, (40,))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        results = audit_task(Task(torch.compile(model, backend="eager"), (x, y)), AuditSettings())
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert results.facts["weights"] == "stored in bfloat16, read in float32"
    assert "'high'" in results.facts["arithmetic"]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_checkpoints_saved_from_inside_a_wrapper(prefix, tmp_path):
    model, other = gated()[0], gated()[0]
    save_file({prefix + k: v.contiguous() for k, v in other.state_dict().items()}, tmp_path / "w.safetensors")
    load_weights(model, tmp_path / "w.safetensors")
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())
