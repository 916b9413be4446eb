"""EKFAC of a network while it trains: factors, eigenbases and eigenvalues kept up from one batch after another."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from memspace.errors import NonFiniteError
from memspace.metric.ekfac import bases_of, kronecker_of
from memspace.metric.spectral import Kronecker
from memspace.passes.capture import Capture
from memspace.passes.cotangent import View
from memspace.passes.forms.bases import Bases
from memspace.passes.space import ParameterSpace
from memspace.passes.statistics import CorrectedEigenvalues, FactorSums, KroneckerFactors
from memspace.task.checks import evaluating
from memspace.task.data import Batch, Inputs
from memspace.task.likelihood import Likelihood

__all__ = ["RunningFisher"]


class RunningFisher:
    """The Fisher metric per counted position in EKFAC form, by exponential moving averages over batches.

    * Kronecker factors: averages of the batches' own.
    * Eigenbases: of the averaged factors, when asked to refresh.
    * Eigenvalues (George et al. 2018): averages of squared gradients in the bases. New bases start from the product of
      the factors' eigenvalues, scaled to the trace known so far, which does not depend on a basis.

    ``tensors`` is everything there is to save, by name.

    Args:
        space: the parameters.
        law: the output law.
        kind: of cotangents, as in ``memspace.passes.kinds``.
        memory: weight ρ of the past in the averages; during the first 1/(1−ρ) readings all batches count alike.
        seed: of sampled labels.
    """

    def __init__(self, space: ParameterSpace, law: Likelihood, kind: str, memory: float, seed: int) -> None:
        self._space, self._law, self._kind, self._memory, self._seed = space, law, kind, memory, seed
        self.tensors: dict[str, Tensor] = {}
        self._metric: Kronecker | None = None

    @property
    def readings(self) -> int:
        """How many batches were read."""
        return int(self.tensors["readings"]) if "readings" in self.tensors else 0

    def restore(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """Take up saved ``tensors``.

        Args:
            tensors: as they were saved.
            device: where they go.
        """
        self.tensors = {k: v if k == "readings" else v.to(device) for k, v in tensors.items()}
        self._metric = None

    def read(self, model: nn.Module, x: Inputs, y: Tensor | None, *, refresh: bool) -> None:
        """Read one batch by a forward and a backward pass, in eval mode and without autocast.

        Args:
            model: the network.
            x: the batch's inputs.
            y: labels, only to know which positions are padded (none where not given).
            refresh: compute new eigenbases.

        Raises:
            NonFiniteError: the model gives NaN or infinite outputs.
        """
        device = next(model.parameters()).device
        with torch.autocast(device.type, enabled=False), evaluating(model), Capture(model, self._space) as capture:
            signals = capture.forward(x)
            f = signals.f
            if not bool(torch.isfinite(f).all()):
                raise NonFiniteError(
                    "the model gives NaN or infinite outputs for this batch",
                    where="NaturalGradient.step",
                    remedy="lower the learning rate or raise the damping",
                )
            if y is None:  # any valid label will do
                y = self._law.quantile(f, torch.full(self._law.drawn(f), 0.5, dtype=torch.float64, device=f.device))
            positions = float(self._law.weight(f, y).sum()) / len(f)
            view = View(signals, Batch(torch.arange(len(f)), x, y), self._law, self._seed + self.readings, False)
            self._update(view, max(positions, 1e-30), refresh)

    def _update(self, view: View, positions: float, refresh: bool) -> None:
        blocks = self._space.blocks
        share = 1 / min(self.readings + 1, 1 / (1 - self._memory))
        factors = KroneckerFactors(blocks, self._kind)
        factors.update(view)
        for name, sums in factors.each():
            self._blend(f"a/{name}", sums.a, share)
            self._blend(f"g/{name}", sums.g / positions, share)
        if refresh or not self.readings:
            self._refresh()
        corrected = CorrectedEigenvalues(blocks, self._bases(), self._kind)
        corrected.update(view)
        eigenvalues = corrected.finish()
        for b in blocks:
            self._blend(f"eig/{b.name}", eigenvalues[f"eig/{b.name}"] / (eigenvalues["n"] * positions), share)
        self.tensors["readings"] = torch.tensor(self.readings + 1)
        self._metric = None

    def _refresh(self) -> None:
        means = {
            b.name: FactorSums(self.tensors[f"a/{b.name}"], self.tensors[f"g/{b.name}"]) for b in self._space.blocks
        }
        bases, products = bases_of(means)
        for name, product in products.items():
            known = self.tensors.get(f"eig/{name}")
            scale = 1.0 if known is None else known.sum() / product.sum().clamp_min(1e-300)
            self.tensors[f"eig/{name}"] = product * scale
            for side, u in (("ua", bases[name].a), ("ug", bases[name].g)):
                if u is not None:
                    self.tensors[f"{side}/{name}"] = u

    def _bases(self) -> dict[str, Bases]:
        tensors = self.tensors
        return {b.name: Bases(tensors.get(f"ua/{b.name}"), tensors.get(f"ug/{b.name}")) for b in self._space.blocks}

    def _blend(self, key: str, value: Tensor, share: float) -> None:
        known = self.tensors.get(key)
        self.tensors[key] = value.clone() if known is None or share == 1 else torch.lerp(known, value, share)

    def metric(self, dtype: torch.dtype) -> Kronecker:
        """Give the metric as known now.

        Args:
            dtype: precision of the vectors it will meet.

        Returns:
            F in EKFAC form.
        """
        if self._metric is None:
            blocks = self._space.blocks
            values = {b.name: self.tensors[f"eig/{b.name}"].to(dtype) for b in blocks}
            bases = {k: b.converted(dtype) for k, b in self._bases().items()}
            self._metric = kronecker_of(blocks, bases, values, True, self._kind)
        return self._metric
