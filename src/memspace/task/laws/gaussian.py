"""Real targets with normal noise, whose size is given or fitted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memspace.arguments import check_fields, described
from memspace.errors import LabelError, SettingsError
from memspace.task.law import Likelihood, wrong_kind
from memspace.task.laws.registry import register_law

__all__ = ["Gaussian"]

LEAST_NOISE = 1e-6  # of the targets' spread: σ of a network without residuals


@register_law
@dataclass(frozen=True)
class Gaussian(Likelihood):
    """Real targets with mean f and noise of standard deviation σ: H = diag(1/σ²).

    Args:
        sigma: σ in the targets' unit, one number or one per output. None: a :class:`~memspace.Task` fits it, one per
            output, as the root mean square of the training residuals (maximum likelihood), and says so; outside a
            task (``watch``, ``NaturalGradient``, the penalties) it is then 1.
        name: for people.
        fitted: σ was fitted to residuals and is not part of the training's loss, which is half the squared error.

    Raises:
        SettingsError: σ is not positive and finite.
    """

    sigma: float | tuple[float, ...] | None = None
    name: str = "gaussian"
    fitted: bool = False

    continuous = True
    independent = True

    def __post_init__(self) -> None:
        check_fields(self, besides=("sigma",), of=Gaussian)
        known = all(
            isinstance(v, int | float) and not isinstance(v, bool) and v > 0 and math.isfinite(v) for v in self._values
        )
        if not self._values or not known:
            raise SettingsError(
                f"Gaussian needs a positive sigma, got {described(self.sigma)}",
                where="sigma",
                remedy="give a number in the targets' unit, a tuple of one per output, or None to fit it",
            )

    @property
    def _values(self) -> tuple[float, ...]:
        return self.sigma if isinstance(self.sigma, tuple) else (1.0 if self.sigma is None else self.sigma,)

    def fitted_to(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> Gaussian | None:
        """Fit σ of each output by maximum likelihood, the root mean square of its residuals, where none is given."""
        if self.sigma is not None:
            return None
        squares = total = spread = torch.zeros(1, dtype=torch.float64)
        count = 0
        for f, y in pairs:
            if f.shape != y.shape:
                return None
            flat = y.double().cpu().reshape(-1, f.shape[-1])
            residual = f.double().cpu().reshape(-1, f.shape[-1]) - flat
            squares, count = squares + residual.square().sum(0), count + len(flat)
            total, spread = total + flat.sum(0), spread + flat.square().sum(0)
        if not count:
            return None
        deviation = (spread / count - (total / count).square()).clamp_min(0).sqrt()
        size = torch.where(deviation > 0, deviation, (spread / count).sqrt())
        floor = LEAST_NOISE * torch.where(size > 0, size, torch.ones_like(size))
        sigma = torch.maximum((squares / count).sqrt(), floor)
        if not bool(torch.isfinite(sigma).all()):
            return None
        values = tuple(sigma.tolist())
        return Gaussian(values[0] if len(values) == 1 else values, fitted=True)

    def scale(self, f: Tensor) -> Tensor:
        """σ as a tensor that multiplies outputs ``f``: of one number, or of shape (C,)."""
        return torch.as_tensor(1.0 if self.sigma is None else self.sigma, dtype=f.dtype, device=f.device)

    @property
    def trained_with(self) -> Likelihood:
        """The law whose negative log-likelihood a training minimised: with σ = 1 where σ was fitted afterwards."""
        return Gaussian(1.0) if self.fitted or self.sigma is None else self

    @property
    def gain_over_training(self) -> float:
        """The mean of 1/σ² where σ was fitted after a training with σ = 1, else 1."""
        sigma = self._values if self.trained_with is not self else (1.0,)
        return math.fsum(s**-2 for s in sigma) / len(sigma)

    @property
    def fitted_facts(self) -> dict[str, str]:
        """σ where it was fitted."""
        if not self.fitted:
            return {}
        shown = ", ".join(f"{v:.3g}" for v in self._values[:8])
        shown += f", ... ({len(self._values)} outputs)" if len(self._values) > 8 else ""
        return {"noise σ": f"{shown}, fitted: the root mean square of the training residuals"}

    @property
    def unfitted(self) -> Likelihood:
        """The law without a fitted σ."""
        return replace(self, sigma=None, fitted=False) if self.fitted else self

    def nll(self, f: Tensor, y: Tensor) -> Tensor:
        """Σ ½(f−y)²/σ² + log(σ√2π)."""
        constant = torch.tensor(self.floor(f.shape[-1]), dtype=f.dtype, device=f.device)
        return self.excess(f, y) + constant

    def floor(self, outputs: int) -> float:
        """Σ log(σ√2π): the loss of a target met exactly."""
        logs = torch.log(self.scale(torch.zeros((), dtype=torch.float64))).expand(outputs)
        return float(logs.sum()) + outputs * 0.5 * math.log(2 * math.pi)

    def excess(self, f: Tensor, y: Tensor) -> Tensor:
        """Σ ½(f−y)²/σ², the part of :meth:`nll` that depends on f."""
        return 0.5 * (((f - y.to(f.dtype)) / self.scale(f)) ** 2).sum(-1)

    def straightened(self, loss: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
        """The distance √(2(ℓ − floor)) from the target, and its slope."""
        above = (2 * (loss - self.floor(outputs))).clamp_min(torch.finfo(loss.dtype).tiny)
        return above.sqrt(), 1 / above.sqrt()

    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        """(f − y)/σ²."""
        return (f - y.to(f.dtype)) / self.scale(f) ** 2

    def fisher_root(self, f: Tensor) -> Tensor:
        """diag(1/σ)."""
        return torch.diag_embed((1 / self.scale(f)).expand_as(f))

    def fisher_matvec(self, f: Tensor, u: Tensor) -> Tensor:
        """u/σ²."""
        return u / self.scale(u) ** 2

    def quantile(self, f: Tensor, u: Tensor) -> Tensor:
        """Mean plus noise."""
        noise: Tensor = torch.special.ndtri(u)
        return f + self.scale(f) * noise.to(f.dtype)

    def kl(self, f: Tensor, f2: Tensor) -> Tensor:
        """½ Σ (f−f2)²/σ²."""
        return 0.5 * (((f - f2) / self.scale(f)) ** 2).sum(-1)

    def coordinates(self, f: Tensor) -> Tensor:
        """f/σ."""
        return f / self.scale(f)

    def standardised(self, y: Tensor, f: Tensor, spread: Tensor, u: Tensor) -> Tensor:
        """(σ² + spread)^(−½)(y − f), by Cholesky in units of σ; the same for every u."""
        scale = self.scale(f).expand(f.shape[-1])
        v = torch.eye(len(scale), dtype=f.dtype, device=f.device) + spread / scale / scale.unsqueeze(-1)
        root, _ = torch.linalg.cholesky_ex(v)
        away = ((y.to(f.dtype) - f) / scale).unsqueeze(-1)
        residual: Tensor = torch.linalg.solve_triangular(root, away, upper=False)
        return residual.squeeze(-1).expand(u.shape)

    def null_output(self, y: Tensor, outputs: int) -> Tensor:
        """The mean target."""
        return y.reshape(-1, y.shape[-1]).double().mean(0)

    def check(self, f: Tensor, y: Tensor, where: str) -> None:
        """Check that labels are finite floats of the shape of f.

        Raises:
            LabelError: they are not, or σ is not of as many numbers as there are outputs.
        """
        if y.shape != f.shape or not y.dtype.is_floating_point:
            raise wrong_kind("gaussian", y, f, where, f"floats of shape {tuple(f.shape)}")
        if isinstance(self.sigma, tuple) and len(self.sigma) != f.shape[-1]:
            raise LabelError(
                f"the law has {len(self.sigma)} values of sigma and the model {f.shape[-1]} outputs",
                where="likelihood",
                remedy="give one sigma, or one per output",
            )
        bad = ~torch.isfinite(y)
        if bool(bad.any()):
            raise LabelError(
                f"{int(bad.sum())} labels are NaN or infinite",
                where=where,
                remedy="drop or repair those examples",
            )

    def mean(self, f: Tensor) -> Tensor:
        """f itself."""
        return f
