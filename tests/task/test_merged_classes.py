"""Classes merged into one: order, trace lost and number kept, against enumeration of all classes in float64."""

import pytest
import torch

from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Poisson
from memspace.task.merged import kept_classes, lost_trace, merged_root

ROUNDING = 1e-13  # sums of up to 60 numbers of size one


def probabilities(seed, *shape, spread=3.0):
    f = spread * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.softmax(f, -1)


def information(p):
    return torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)


def of_the_merged_label(p, kept):
    """Fisher information in f of z(y), from its definition: Σ_z p_z s_z s_zᵀ with s_z = ∇ log p_z by autograd."""
    f = p.log().requires_grad_()
    q = torch.softmax(f, -1)
    rest = torch.ones_like(p, dtype=torch.bool)
    rest[kept] = False
    masses = [*(q[c] for c in kept), *([q[rest].sum()] if rest.any() else [])]
    total = torch.zeros(len(p), len(p), dtype=p.dtype)
    for m in masses:
        (score,) = torch.autograd.grad(m.log(), f, retain_graph=True)
        total += m.detach() * torch.outer(score, score)
    return total


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.9])
def test_the_root_is_of_the_fisher_information_of_the_merged_label(seed, share):
    p = probabilities(seed, 6, 9)
    h = merged_root(p, share)
    for one, root in zip(p, h, strict=True):
        ordered, at = one.sort(descending=True)
        kept = at[: int(kept_classes(ordered, share))].tolist()
        assert float((root @ root.T - of_the_merged_label(one, kept)).abs().max()) < ROUNDING


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spread", [0.3, 3.0, 12.0])
def test_merging_never_adds_and_loses_the_stated_trace(seed, spread):
    p = probabilities(seed, 3, 4, 30, spread=spread)
    for share in (0.3, 0.03, 1e-4):
        root = merged_root(p, share)
        gap = information(p) - root @ root.mT
        ordered = p.sort(-1, descending=True).values
        count = kept_classes(ordered, share)
        lost = lost_trace(ordered).gather(-1, count.unsqueeze(-1)).squeeze(-1)
        assert float(torch.linalg.eigvalsh(gap).min()) > -ROUNDING
        assert torch.allclose(gap.diagonal(dim1=-2, dim2=-1).sum(-1), lost, rtol=0, atol=ROUNDING)
        whole = 1 - p.square().sum(-1)
        assert bool((lost <= share * whole + ROUNDING).all())
        # One class fewer would lose more than allowed: the root is no larger than it must be.
        fewer = lost_trace(ordered).gather(-1, (count - 1).clamp_min(0).unsqueeze(-1)).squeeze(-1)
        assert bool(((fewer > share * whole - ROUNDING) | (count == 0)).all())
        assert root.shape[-1] == 1 + int(count.max())


def test_no_trace_to_lose_keeps_all_but_one_class():
    p = probabilities(0, 5, 7)
    root = merged_root(p, 0.0)
    assert root.shape == (5, 7, 7)
    assert torch.allclose(root @ root.mT, information(p), rtol=0, atol=ROUNDING)


def test_certain_and_float32_outputs_give_finite_roots():
    f = torch.tensor([[0.0, -500.0, -900.0, -901.0], [3.0, 3.0, 3.0, 3.0], [90.0, 90.0, -90.0, -95.0]])
    root = Categorical().merged_root(f, 0.05)
    assert bool(torch.isfinite(root).all())
    assert float(root[0].abs().max()) == 0
    # Two equal classes: ½ on and off the diagonal, which one class kept already tells.
    assert torch.allclose((root @ root.mT)[2, :2, :2], torch.tensor([[0.25, -0.25], [-0.25, 0.25]]), atol=1e-6)


def test_a_position_keeps_the_same_classes_whatever_is_read_with_it():
    p = torch.cat([probabilities(1, 3, 40, spread=6.0), probabilities(2, 3, 40, spread=0.1)])
    together = merged_root(p, 0.05)
    alone = torch.cat([(r := merged_root(one.unsqueeze(0), 0.05)) @ r.mT for one in p])
    assert torch.allclose(together @ together.mT, alone, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("law", [Bernoulli(), Gaussian(0.7), Poisson()], ids=lambda law: law.name)
def test_laws_without_classes_have_nothing_to_merge(law):
    f = torch.randn(3, 4, dtype=torch.float64)
    assert torch.equal(law.merged_root(f, 0.5), law.fisher_root(f))
