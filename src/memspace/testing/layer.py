"""The contract of a kind of layer, checked in float64 against autograd, one example and one output at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from memspace.errors import UnsupportedLayerError
from memspace.metric.fisher import build
from memspace.metric.row_products import gram, sum_of_squares, times, transposed_times
from memspace.passes.capture import Capture, Signals
from memspace.passes.collect import CollectRows
from memspace.passes.engine import run_pass
from memspace.passes.forms.bases import Bases
from memspace.passes.forms.form import Form
from memspace.passes.layers.block import Block
from memspace.passes.layers.registry import rule_for
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space
from memspace.task.checks import evaluating
from memspace.task.data import Data
from memspace.task.likelihood import Categorical
from memspace.task.task import Task

__all__ = ["check_layer"]

OUTPUTS = 3  # of the network around the layer
COTANGENTS = 2  # random ones
EXACT = 1e-9  # relative, of what holds but for rounding


class _Around(nn.Module):
    """A network of the layer alone: a fixed random mixture of its output's tanh, (B, OUTPUTS)."""

    def __init__(self, layer: nn.Module, inputs: Sequence[Tensor], axis: int, overwritten: bool) -> None:
        super().__init__()
        self.layer, self.axis, self.overwritten = layer, axis, overwritten
        with torch.no_grad():
            width = self._features(*inputs).shape[1]
        generator = torch.Generator().manual_seed(0)
        mix = torch.randn(width, OUTPUTS, generator=generator, dtype=torch.float64) * 2 / width**0.5
        self.register_buffer("mix", mix)

    def _features(self, *inputs: Tensor) -> Tensor:
        out = self.layer(*(x.movedim(0, self.axis) for x in inputs))
        first = out[0] if isinstance(out, tuple) else out
        first = torch.relu_(first) if self.overwritten else first
        return torch.tanh(first.movedim(self.axis, 0).flatten(1))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._features(*inputs) @ self.get_buffer("mix")


@dataclass(frozen=True)
class _Checked:
    """A layer in its network, laid out in blocks, with inputs (B, ...)."""

    model: _Around
    space: ParameterSpace
    inputs: tuple[Tensor, ...]

    def that(self, holds: bool, what: str) -> None:
        """Raise with the layer's class and the sentence unless it holds."""
        if not holds:
            raise AssertionError(f"{type(self.model.layer).__name__}: {what}")

    def equal(self, computed: Tensor, expected: Tensor, what: str) -> None:
        """Raise unless two tensors are equal but for rounding, relative to the second's norm."""
        self.that(computed.shape == expected.shape, f"{what}: shape {tuple(computed.shape)}, not {(*expected.shape,)}")
        off = float((computed - expected).norm() / expected.norm().clamp_min(1e-300))
        self.that(off <= EXACT, f"{what}: they differ by {off:.2g} of the norm")

    def part(self, index: Sequence[int]) -> tuple[Tensor, ...]:
        """The inputs of some examples."""
        return tuple(x[list(index)] for x in self.inputs)

    @property
    def task(self) -> Task:
        """Classification of the examples, with arbitrary labels."""
        inputs = self.inputs if len(self.inputs) > 1 else self.inputs[0]
        labels = torch.arange(len(self.inputs[0])) % OUTPUTS
        return Task(self.model, Data((inputs, labels)), Categorical())

    def signals(self, inputs: tuple[Tensor, ...]) -> Signals:
        """What a pass reads at some inputs."""
        with evaluating(self.model), Capture(self.model, self.space) as capture:
            return capture.forward(inputs)

    def forms(self, inputs: tuple[Tensor, ...], u: Tensor) -> list[tuple[Block, Form]]:
        """The per-example gradients of every block for cotangents u (K, B, OUTPUTS), as a pass reads them."""
        signals = self.signals(inputs)
        pulled = signals.cotangents(u)
        return [(b, signals.form(b, pulled[b.name])) for b in self.space.blocks]

    def expected(self, u: Tensor) -> Tensor:
        """The per-example gradients of all parameters by plain autograd, (K, B, P)."""
        parameters = self.space.parameters(self.model)
        zeros = [torch.zeros_like(p) for p in parameters.values()]
        rows = []
        for i in range(u.shape[1]):
            f = self.model(*self.part([i]))[0]
            for cotangent in u[:, i]:
                grads = torch.autograd.grad(f, [*parameters.values()], cotangent, retain_graph=True, allow_unused=True)
                dense = [zero if g is None else g.to_dense() for zero, g in zip(zeros, grads, strict=True)]
                rows.append(self.space.pack(dict(zip(parameters, dense, strict=True))))
        return torch.stack(rows).reshape(u.shape[1], len(u), -1).transpose(0, 1)

    @cached_property
    def jacobian(self) -> Tensor:
        """(OUTPUTS, B, P) by plain autograd."""
        count = len(self.inputs[0])
        return self.expected(torch.eye(OUTPUTS, dtype=torch.float64).unsqueeze(1).expand(-1, count, -1))

    @cached_property
    def fisher(self) -> Tensor:
        """(1/N) Σ Jᵀ H J, (P, P)."""
        root = Categorical().fisher_root(self.model(*self.inputs).detach())
        rows = torch.einsum("bck,cbp->kbp", root, self.jacobian).flatten(0, 1)
        return rows.t() @ rows / len(self.inputs[0])


def check_layer(
    module: nn.Module, inputs: Tensor | Sequence[Tensor], *, axis: int = 0, overwritten: bool = False, seed: int = 0
) -> None:
    """Check that a kind of layer is read as it should be: blocks, gradients, forms, rows, Fisher matrices, costs.

    The layer is copied in float64 and eval mode, and put before a fixed map to three outputs.

    Args:
        module: a layer that a rule knows (see ``memspace.passes.layers.registry.register_layer``).
        inputs: what it is called with, examples first, at least two of them: a tensor, or several.
        axis: of the layer's inputs and output that runs over examples; they are moved there for the call.
        overwritten: an activation follows that overwrites the layer's output in place.
        seed: random seed of cotangents and vectors.

    Raises:
        AssertionError: naming the first property that does not hold.
    """
    torch_inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    doubled = tuple(x.detach().double() if x.is_floating_point() else x for x in torch_inputs)
    layer = copy.deepcopy(module).double().eval()
    model = _Around(layer, doubled, axis, overwritten).eval()
    at = _Checked(model, ParameterSpace(model, axes={"layer": axis}), doubled)
    for check in _CHECKS:
        check(at, torch.Generator().manual_seed(seed))  # no check depends on those before it


def _covered(at: _Checked, generator: torch.Generator) -> None:
    """A rule knows the layer, and its blocks hold every parameter once."""
    at.that(
        rule_for(at.model.layer) is not None, "no rule knows layers of this type, or the rule does not know this one"
    )
    names = [n for b in at.space.blocks for n in b.names]
    trained = [n for n, p in at.model.named_parameters() if p.requires_grad]
    at.that(sorted(names) == sorted(trained), f"its blocks hold {sorted(names)}, its parameters are {sorted(trained)}")
    slow = [n for b in at.space.blocks if b.rule.by_example for n in b.names]
    at.that(not slow, f"no block of its rule holds {', '.join(slow)}, which is differentiated example by example")
    flat = torch.randn(at.space.size, generator=generator, dtype=torch.float64)
    back = at.space.pack(at.space.unpack(flat))
    at.that(torch.equal(back, flat), "from_matrix does not undo to_matrix")


def _gradients(at: _Checked, generator: torch.Generator) -> None:
    """Per-example gradients are autograd's, and do not depend on which examples are read together."""
    count = len(at.inputs[0])
    u = torch.randn(COTANGENTS, count, OUTPUTS, generator=generator, dtype=torch.float64)
    expected = at.expected(u)
    order = torch.randperm(count, generator=generator).tolist()
    for index in (range(count), order, *([i] for i in range(count))):
        chosen = list(index)
        try:
            forms = at.forms(at.part(chosen), u[:, chosen])
        except UnsupportedLayerError as error:
            raise AssertionError(f"{type(at.model.layer).__name__}: its call is refused: {error}") from error
        for block, form in forms:
            together = "" if len(chosen) > 1 else " when it is read alone"
            what = f"an example's gradient of {', '.join(block.names)} is not autograd's{together}"
            at.equal(form.gradients().flatten(2), expected[:, chosen, block.start : block.stop], what)


def _forms(at: _Checked, generator: torch.Generator) -> None:
    """What a form does without forming its gradients is what the gradients give, rotated or not."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    count = len(at.inputs[0])
    u = normal(COTANGENTS, count, OUTPUTS)
    for block, form in at.forms(at.inputs, u):
        moments = form.moments()
        bases = Bases(_basis(moments.a), None if moments.g is None else _basis(moments.g))
        weights, vectors = normal(2, *block.shape).square(), normal(2, *block.shape)
        rotated = form.rotate(bases)
        at.equal(rotated.gradients(), bases.rotate(form.gradients()), "rotate is not the gradients' rotation")
        for some in (form, rotated):
            g = some.gradients()
            at.equal(some.squared_norms(), g.square().sum((2, 3)), "squared_norms are not those of the gradients")
            at.equal(some.squares(), g.square().sum((0, 1)), "squares are not those of the gradients")
            at.equal(some.pairs(weights), torch.einsum("doi,kboi,lboi->dbkl", weights, g, g), "pairs are wrong")
            at.equal(some.scores(vectors), torch.einsum("qoi,kboi->kbq", vectors, g), "scores are wrong")
        g = form.gradients()
        mixed = normal(COTANGENTS, count, 2)
        for some in (form, form.settled(1), form.settled(2**20)):
            at.equal(some.push(vectors), torch.einsum("qoi,kboi->kbq", vectors, g), "push is wrong")
            at.equal(some.pull(mixed).flatten(1), torch.einsum("kbq,kboi->qoi", mixed, g).flatten(1), "pull is wrong")
        sides = [len(m[0]) for m in (moments.a, moments.g) if m is not None and m.dim() > 1 for _ in range(_stack(m))]
        at.that(sorted(sides) == sorted(block.rule.sides(block)), "sides are not those of its second moments")


def _stack(moment: Tensor) -> int:
    """How many second moments there are: one, or one a group."""
    return len(moment) if moment.dim() == 3 else 1


def _basis(moment: Tensor) -> Tensor | None:
    return torch.linalg.eigh(moment)[1] if moment.dim() > 1 else None


def _rows(at: _Checked, generator: torch.Generator) -> None:
    """Jacobian rows are autograd's in whatever factors they are kept."""
    collected = CollectRows(at.space.blocks)
    run_pass(at.task, at.space, [collected])
    rows, j = collected.finish(), at.jacobian.transpose(0, 1).flatten(0, 1)
    at.equal(torch.cat([rows.formed(b) for b in at.space.blocks], 1), j, "Jacobian rows are not autograd's")
    norms = torch.stack([rows.norms(b) for b in at.space.blocks]).sum(0)
    at.equal(norms, j.square().sum(1), "norms of Jacobian rows are wrong")
    blocks = j.reshape(-1, OUTPUTS, j.shape[1])
    at.equal(rows.own_blocks(OUTPUTS), blocks @ blocks.mT, "inner products of an example's own rows are wrong")
    at.equal(gram(rows), j @ j.t(), "inner products of Jacobian rows are wrong")
    at.equal(rows.dot(rows), j @ j.t(), "inner products of Jacobian rows are wrong")
    v = torch.randn(2, at.space.size, generator=generator, dtype=torch.float64)
    w = torch.randn(2, len(j), generator=generator, dtype=torch.float64)
    at.equal(times(rows, v), v @ j.t(), "products of Jacobian rows are wrong")
    at.equal(rows.times(v[0]), j @ v[0], "products of Jacobian rows are wrong")
    at.equal(transposed_times(rows, w), w @ j, "weighted sums of Jacobian rows are wrong")
    at.equal(rows.transposed_times(w[0]), w[0] @ j, "weighted sums of Jacobian rows are wrong")
    at.equal(sum_of_squares(rows), j.square().sum(0), "squares of Jacobian rows are wrong")


def _fisher(at: _Checked, generator: torch.Generator) -> None:
    """Verification leaves the layer its closed form, and Fisher matrices are the dense reference."""
    space = verified_space(at.task)
    slow = [n for b in space.blocks if b.rule.by_example for n in b.names]
    at.that(not slow, f"verification refutes the closed form of {', '.join(slow)}")
    for representation in ("dense", "dual", "implicit"):
        metric = build(at.task, space, representation)
        at.equal(metric.to_dense(), at.fisher, f"the Fisher matrix ({representation}) is not the dense reference")
    diagonal = build(at.task, space, "diagonal").diagonal()
    at.equal(diagonal, at.fisher.diagonal(), "the Fisher matrix's diagonal is not that of the dense reference")
    trace = torch.tensor(build(at.task, space, "ekfac").trace().value, dtype=torch.float64)
    at.equal(trace, at.fisher.trace(), "EKFAC does not keep the Fisher matrix's trace")


_CHECKS: tuple[Callable[[_Checked, torch.Generator], None], ...] = (_covered, _gradients, _forms, _rows, _fisher)
