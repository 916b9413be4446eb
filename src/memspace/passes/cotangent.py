"""The output cotangents that a pass pulls back, and the Fisher matrix of their rows.

* ``exact``: the columns of the output law's Fisher root; Σ over rows of r rᵀ = N·F, the Fisher information.
* ``mc``, ``mc:k``: residuals of k labels sampled from the model (one without a number), each over √k; unbiased for the
  Fisher information.
* ``topk:share``: the columns of a root of H with the improbable classes merged into one. It is never above the Fisher
  information, and at every position at most that share of tr H below it (see ``memspace.task.merged``).
* ``empirical``: residuals of the training labels; *not* the Fisher information.
* ``jacobian``: unit vectors of the outputs; rows of J.
* ``given``: cotangents that a statistic passes to the view before others read it (``View.give``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from memspace.passes.capture import Signals
from memspace.passes.draws import uniforms
from memspace.passes.forms.form import Form
from memspace.passes.kinds import KINDS, Kind
from memspace.passes.layers.block import Block
from memspace.task.data import Batch
from memspace.task.likelihood import Likelihood

__all__ = ["KINDS", "View", "output_cotangents"]


def output_cotangents(kind: str, likelihood: Likelihood, f: Tensor, y: Tensor, u: Tensor | None = None) -> Tensor:
    """Compute output cotangents of a kind.

    K is k for ``mc:k``, 1 for ``empirical``, C for a plain output and positions·C for a sequence otherwise. For
    ``topk`` C is replaced by one more than the largest number of unmerged classes. Padded positions contribute zero.

    Args:
        kind: of the cotangents, see the module.
        likelihood: the output law.
        f: (B, ..., C) outputs.
        y: (B, ...) labels.
        u: (k, ...) uniform numbers from which labels are sampled, for ``mc`` (see ``Likelihood.quantile``).

    Returns:
        (K, B, ..., C).

    Raises:
        ValueError: an unknown kind.
    """
    of = Kind.of(kind)
    mask = likelihood.weight(f, y).unsqueeze(-1)
    if of.name == "given":
        raise ValueError("cotangents of kind given are passed to the view before they are read")
    if of.name == "empirical":
        return likelihood.residual(f, y).unsqueeze(0)
    if of.name == "mc":
        assert u is not None, "Monte-Carlo cotangents need uniform numbers"
        labels = [likelihood.quantile(f, level) for level in u]
        return torch.stack([likelihood.residual(f, label) for label in labels]) * mask / math.sqrt(len(labels))
    if of.name == "jacobian":
        root = torch.eye(f.shape[-1], dtype=f.dtype, device=f.device).expand(*f.shape[:-1], -1, -1)
    elif of.name == "topk":
        root = likelihood.merged_root(f, of.share)
    else:
        root = likelihood.fisher_root(f)
    root = root * mask.unsqueeze(-1)
    if f.dim() == 2:
        return root.movedim(-1, 0)
    b, positions, c = len(f), f[0, ..., 0].numel(), f.shape[-1]
    root = root.reshape(b, positions, c, -1)
    u = f.new_zeros(positions, root.shape[-1], b, positions, c)
    for t in range(positions):
        u[t, :, :, t] = root[:, t].movedim(-1, 0)
    return u.reshape(-1, *f.shape)


class View:
    """One batch as statistics see it: outputs, labels, rows, and cotangents of every kind, pulled back once.

    Where a statistic reads unit cotangents, roots and residuals are mixed from them (the pull-back is linear) instead
    of being pulled back again. Labels drawn for an example depend on ``seed`` and its position in the data alone.

    Args:
        signals: of the forward pass.
        batch: its examples.
        likelihood: the output law.
        seed: of sampled labels.
        jacobian: whether a statistic reads unit cotangents.
    """

    def __init__(
        self,
        signals: Signals,
        batch: Batch,
        likelihood: Likelihood,
        seed: int,
        jacobian: bool,
    ) -> None:
        self.signals, self.index, self.y = signals, batch.index, batch.y
        self.f = signals.f
        self._likelihood, self._seed = likelihood, seed
        self._mix = jacobian and self.f.dim() == 2
        self._pulled: dict[str, dict[str, Tensor]] = {}
        self._outputs: dict[str, Tensor] = {}
        self._forms: dict[tuple[str, str], Form] = {}

    def output(self, kind: str) -> Tensor:
        """Return the output cotangents.

        Args:
            kind: of the cotangents.

        Returns:
            (K, B, ..., C).
        """
        if kind not in self._outputs:
            u, of = None, Kind.of(kind)
            if of.name == "mc":
                f, shape = self.f, self._likelihood.drawn(self.f)[1:]
                u = uniforms(self._seed, self.index, (*shape, of.samples), f.dtype, f.device).movedim(-1, 0)
            self._outputs[kind] = output_cotangents(kind, self._likelihood, self.f, self.y, u)
        return self._outputs[kind]

    def give(self, u: Tensor, kind: str = "given") -> None:
        """Set the caller's own output cotangents.

        Args:
            u: (K, B, ..., C).
            kind: the name under which statistics read them.
        """
        self._outputs[kind] = u

    def cotangents(self, kind: str) -> Mapping[str, Tensor]:
        """Return the cotangents of a kind pulled back to every block.

        Args:
            kind: of the cotangents.

        Returns:
            Block name to (K, B, T, out), or to per-example gradients (K, B, p) for blocks without a product form.
        """
        if kind not in self._pulled:
            if self._mix and kind != "jacobian":
                self._pulled[kind] = mix(self.cotangents("jacobian"), self.output(kind))
            else:
                self._pulled[kind] = self.signals.cotangents(self.output(kind))
        return self._pulled[kind]

    def form(self, kind: str, block: Block) -> Form:
        """Return the per-example gradients of one block.

        Args:
            kind: of the cotangents.
            block: of the parameter space.

        Returns:
            The gradients, in the form of the block's layer.
        """
        key = (kind, block.name)
        if key not in self._forms:
            self._forms[key] = self.signals.form(block, self.cotangents(kind)[block.name])
        return self._forms[key]


def mix(pulled: Mapping[str, Tensor], u: Tensor) -> dict[str, Tensor]:
    """Mix pulled-back unit cotangents, Σ_c u_kbc pulled_cb.

    Args:
        pulled: block name to (C, B, ...), of the unit vectors.
        u: (K, B, C) output cotangents.

    Returns:
        Block name to (K, B, ...).
    """
    out = {}
    for name, g in pulled.items():
        flat = g.flatten(2)
        out[name] = torch.einsum("kbc,cbx->kbx", u, flat).reshape(len(u), *g.shape[1:])
    return out
