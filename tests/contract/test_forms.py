"""Scores of a product form are inner products with its gradients, whichever way they are computed."""

import pytest
import torch

from memspace.passes.forms.bases import Bases
from memspace.passes.forms.product import ProductForm


@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("queries", [2, 9])
@pytest.mark.parametrize("rotated", [False, True])
def test_scores_are_inner_products(positions, ones, queries, rotated):
    torch.manual_seed(positions + 2 * queries)
    k, b, i, o = 2, 5, 6, 4
    a, g = torch.randn(b, positions, i).double(), torch.randn(k, b, positions, o).double()
    form = ProductForm(a, g, ones=ones)
    if rotated:
        qa, qg = (torch.linalg.qr(torch.randn(n, n).double()).Q for n in (i + ones, o))
        form = form.rotate(Bases(qa, qg))
    q = torch.randn(queries, o, i + ones).double()
    want = torch.einsum("kboi,qoi->kbq", form.gradients(), q)
    torch.testing.assert_close(form.scores(q), want, rtol=1e-12, atol=1e-12)
