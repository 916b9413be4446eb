"""What is said of a regression does not depend on the unit its targets are written in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import memspace
from memspace.audit.results import Results
from memspace.task.likelihood import Gaussian

N, D = 60, 12


def audited(unit: float) -> Results:
    """A line by least squares whose targets come in a unit; its refits know the truth, whose loss is to be met."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(N, D, generator=generator, dtype=torch.float64)
    truth = unit * torch.randn(D, 1, generator=generator, dtype=torch.float64)
    y = x @ truth + unit * torch.randn(N, 1, generator=generator, dtype=torch.float64)

    def line(weight: Tensor) -> nn.Module:
        model = nn.Linear(D, 1, bias=False).double()
        with torch.no_grad():
            model.weight.copy_(weight.T)
        return model

    fitted = line(torch.linalg.lstsq(x, y).solution)
    return memspace.audit(fitted, (x, y), likelihood=Gaussian(), refit=lambda _kept, _seed: line(truth))


def test_a_unit_that_is_no_power_of_ten_changes_nothing() -> None:
    one, seven = audited(1.0), audited(7.0)
    assert one.measurement("damping").reliable
    assert seven.measurement("damping").value == pytest.approx(one.measurement("damping").value / 49, rel=1e-6)
    for name in ("regression.r2_loo", "outliers.share", "memory.loo_loss_rise"):
        assert seven.measurement(name).value == pytest.approx(one.measurement(name).value, rel=1e-6, abs=1e-12)
    sigma = one.measurement("regression.sigma").value
    assert seven.measurement("regression.sigma").value == pytest.approx(7 * sigma, rel=1e-6)
    p = [r.tables["examples"]["p_outlier"] for r in (one, seven)]
    assert p[1] == pytest.approx(p[0], rel=1e-5, abs=1e-12)
