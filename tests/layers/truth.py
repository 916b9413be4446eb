"""The dense exact Fisher by autograd, one example at a time, without hooks or batching; and what the library gives."""

import copy

import torch

from memspace import Categorical, Task, influence
from memspace.metric.fisher import build
from memspace.passes.verify import verified_space


def dense_truth(model, x, y, space, law=None):
    """(F, label gradients) in the space's own layout, float64; each example is read by a fresh copy of the model."""
    law = law or Categorical()
    total, gradients = torch.zeros(space.size, space.size, dtype=torch.float64), []
    for i in range(len(y)):
        twin = copy.deepcopy(model).double().eval()
        own = space.parameters(twin)
        f = twin(*_one(x, i))

        def pulled(value, own=own):
            found = torch.autograd.grad(value, list(own.values()), retain_graph=True, allow_unused=True)
            dense = [torch.zeros_like(p) if g is None else g for p, g in zip(own.values(), found, strict=True)]
            named = zip(own, (g.to_dense() if g.is_sparse else g for g in dense), strict=True)
            return space.pack(dict(named))

        root = law.fisher_root(f.detach())[0]
        for k in range(root.shape[-1]):
            row = pulled((f[0] * root[..., k]).sum())
            total += torch.outer(row, row)
        gradients.append(pulled(law.nll(f, y[i : i + 1]).sum()))
    return total / len(y), torch.stack(gradients)


def _one(x, i):
    parts = x if isinstance(x, tuple) else (x,)
    return [p[i : i + 1].double() if p.is_floating_point() else p[i : i + 1] for p in parts]


def assert_exact(model, x, y, law=None, tolerance=1e-4):
    """Dense, dual, products and influence are those of the truth; returns the space.

    The default tolerance is float32's: rounding near 1e-7, times some hundred operations.
    """
    task = Task(model=model, train=(x, y), likelihood=law or Categorical())
    space = verified_space(task)
    want, gradients = dense_truth(model, x, y, space, law)
    v = torch.randn(3, space.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for representation in ("dense", "dual", "implicit"):
        got = build(task, space, representation).matvec(v)
        assert float((got - v @ want).norm()) < tolerance * float((v @ want).norm()), representation
    space.verified = False  # by forward and reverse mode
    got = build(task, space, "implicit").matvec(v)
    assert float((got - v @ want).norm()) < tolerance * float((v @ want).norm()), "forward and reverse mode"
    damping = 1e-2
    damped = len(y) * (want + damping * torch.eye(space.size, dtype=torch.float64))
    effects = gradients[:2] @ torch.linalg.solve(damped, gradients.t())
    scores = influence(task, [0, 1], engine="dual", damping=damping).scores.double()
    assert float((scores - effects).norm()) < 100 * tolerance * float(effects.norm())
    return space
