"""A layer of an own type gets a closed form from outside, by one file that registers its rule."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.extension.outside import run_outside

N, POSITIONS, WIDTH = 12, 3, 4

# A hand-written kernel, as many layers have: torch cannot map it over examples.
LAYER = """
import torch
from torch import nn


class Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, shift):
        ctx.save_for_backward(x, scale)
        return x * scale + shift

    @staticmethod
    def backward(ctx, g):
        x, scale = ctx.saved_tensors
        return g * scale, (g * x).sum((0, 1)), g.sum(0)


class ScaleShift(nn.Module):
    '''x ↦ scale · x + shift, elementwise, with another shift at every position.'''

    def __init__(self, positions, width):
        super().__init__()
        self.scale = nn.Parameter(1 + 0.3 * torch.randn(width))
        self.shift = nn.Parameter(0.3 * torch.randn(positions, width))

    def forward(self, x):
        return Kernel.apply(x, self.scale, self.shift)
"""

RULE = """
from memspace.passes.layers.formed import FormedRule
from memspace.passes.layers.registry import register_layer


@register_layer
class ScaleShiftRule(FormedRule):
    name = "scale and shift"
    types = (ScaleShift,)
    parameters = ("scale", "shift")

    def gradient(self, block, call):
        x, g = call.inputs[0], call.cotangent
        return torch.cat([(g * x).sum(1), g.flatten(1)], 1)
"""

WRONG = RULE.replace("(g * x).sum(1)", "(g * x).sum(1) * 1.001")

SCRIPT = f"""
import json, sys, warnings
import torch
from torch import nn
import memspace
from memspace.extensions import load_extensions
from memspace.metric.fisher import build
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space

load_extensions()
from outside import ScaleShift

torch.manual_seed(0)
model = nn.Sequential(ScaleShift({POSITIONS}, {WIDTH}), nn.Tanh(), nn.Flatten(), nn.Linear({POSITIONS * WIDTH}, 3))
model = model.double()
x, y = torch.randn({N}, {POSITIONS}, {WIDTH}).double(), torch.arange({N}) % 3
task = memspace.Task(model, memspace.Data((x, y)))
space = verified_space(task)
generic = ParameterSpace.of(task, loose=["0"])
found = [build(task, s, "dense").to_dense() for s in (space, generic)]
torch.save({{"model": model.state_dict(), "x": x, "fisher": found}}, sys.argv[1])
results = memspace.audit(task)
print(json.dumps({{"kinds": [b.kind for b in space.blocks], "read": results.facts["parameters read"]}}))
"""

CHECK = f"""
import torch
from memspace.testing import check_layer
from outside import ScaleShift

torch.manual_seed(0)
layer, x = ScaleShift({POSITIONS}, {WIDTH}), torch.randn(5, {POSITIONS}, {WIDTH})
check_layer(layer, x)
check_layer(layer, x, overwritten=True)
"""


def dense_fisher(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The Fisher matrix in the order scale, shift, head (its bias as last column), by autograd on the plain formula."""
    scale, shift, weight, bias = (state[n] for n in ("0.scale", "0.shift", "3.weight", "3.bias"))

    def outputs(flat: torch.Tensor) -> torch.Tensor:
        a, b, head = flat.split([scale.numel(), shift.numel(), 3 * (weight.shape[1] + 1)])
        h = torch.tanh(x * a + b.reshape(shift.shape)).flatten(1)
        head = head.reshape(3, -1)
        return h @ head[:, :-1].t() + head[:, -1]

    flat = torch.cat([scale.flatten(), shift.flatten(), torch.cat([weight, bias[:, None]], 1).flatten()])
    j = torch.autograd.functional.jacobian(outputs, flat)
    p = outputs(flat).softmax(1)
    h = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    return torch.einsum("ncp,ncd,ndq->pq", j, h, j) / len(x)


def test_a_layer_from_outside_is_on_the_fast_path_and_exact(tmp_path: Path) -> None:
    saved = tmp_path / "fisher.pt"
    done = run_outside(tmp_path, LAYER + RULE, SCRIPT, str(saved))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["kinds"] == ["scale and shift", "linear"]
    assert said["read"].endswith("parameters, exact")
    read = torch.load(saved)
    want = dense_fisher(read["model"], read["x"])
    for fisher in read["fisher"]:  # by the rule, and by differentiating the whole model
        assert float((fisher - want).norm() / want.norm()) < 1e-12


def test_without_its_rule_the_layer_is_read_the_generic_way_and_named(tmp_path: Path) -> None:
    done = run_outside(tmp_path, LAYER, SCRIPT, str(tmp_path / "fisher.pt"))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["kinds"] == ["loose", "loose", "linear"]
    assert "differentiated example by example: 0.scale, 0.shift" in said["read"]


def test_the_contract_of_a_layer_holds_for_it(tmp_path: Path) -> None:
    done = run_outside(tmp_path, LAYER + RULE, CHECK)
    assert done.returncode == 0, done.stderr


def test_a_rule_that_is_off_by_a_thousandth_breaks_the_contract_in_one_sentence(tmp_path: Path) -> None:
    done = run_outside(tmp_path, LAYER + WRONG, CHECK)
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        "AssertionError: ScaleShift: an example's gradient of layer.scale, layer.shift is not autograd's"
    )
