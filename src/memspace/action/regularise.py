"""Training that pays for action: penalties that are added to any loss.

Both objects run the network on a batch and give its outputs together with the penalty, so that the loss needs no
further forward pass::

    norm = FisherRaoNorm(model, likelihood)
    f, penalty = norm(x)
    loss = likelihood.nll(f, y).mean() + strength * penalty

They hold nothing of the model but a reference to it, add no hook, no module and no buffer, and so leave its state dict
as it is. Under autocast the network runs in the lower precision, the penalty is formed in float32 at least.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from memspace.action.proof import prove_penalty
from memspace.arguments import typed
from memspace.errors import ShapeError, TaskError, WeightsMismatchError
from memspace.limits import POSITIVE
from memspace.passes.linearised import differential
from memspace.task.data import Inputs, call_model
from memspace.task.functional import functional_call
from memspace.task.kernels import differentiable_kernels
from memspace.task.likelihood import Likelihood, refuse_one_class
from memspace.task.operations import written_out

__all__ = ["FORMS", "FisherProximal", "FisherRaoNorm"]

FORMS = ("kl", "fisher-rao")
EULER = 1e-3  # relative difference of Jθ from degree·f above which a network isn't homogeneous of that degree


class FisherRaoNorm:
    """The Fisher–Rao norm of the weights on a batch, to be differentiated with the loss.

        θᵀF(θ)θ = (1/B) Σ_i ⟨J_i θ, H_i J_i θ⟩     nats

    Exact: Jθ by one forward-mode derivative of the network at θ in the direction θ, H of the output law; both are
    differentiated again, so that the gradient is that of the whole expression. θ are the parameters that require a
    gradient. Forward and backward cost twice those of the plain loss. For a softmax the norm goes to zero at both ends
    of the gain of the last layer: small values are also reached by overconfidence.

    Source: Liang et al. 2019, eq. 8, with the model's own Fisher information.

    Args:
        model: the network being trained.
        likelihood: the output law.
        degree: where the network is positively homogeneous of that degree in θ (a bias-free ReLU network of that many
            layers), Jθ = degree·f by Euler's identity and the penalty costs nothing; checked on the first batch.

    Raises:
        TaskError: nothing to train, or the degree is not the network's.
        UnsupportedLayerError: at the first batch, where the penalty or its gradient is not what differences of it say
            (checked once, in float64): an operation of the network has a wrong derivative.
    """

    @typed
    def __init__(
        self, model: nn.Module, likelihood: Likelihood, *, degree: Annotated[float | None, POSITIVE] = None
    ) -> None:
        self.model, self.likelihood, self.degree = _inside(model), likelihood, degree
        self._checked = degree is None
        self._proven = degree is not None
        _trained(self.model, "FisherRaoNorm")

    def __call__(self, x: Inputs, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the network on a batch and compute the norm there.

        Args:
            x: inputs of B examples.
            y: labels, needed only where some positions are padding, which then do not count.

        Returns:
            Outputs (B, ..., C), and θᵀFθ on the batch as a scalar, nats.

        Raises:
            ShapeError: outputs are not (examples, ..., C).
            TaskError: the degree given is not the network's.
        """
        if self.degree is None:
            if not self._proven:
                self._proven = True
                prove_penalty(self.model, self.likelihood, x)
            f, moved = self._moved(x)
        else:
            f = _tensor(call_model(self.model, x))
            self._check_degree(f, x, self.degree)
            moved = self.degree * f
        with _full(f):
            f32, moved = _wide(f), _wide(moved)
            norms = (moved * self.likelihood.fisher_matvec(f32, moved)).sum(-1)
            return f, _mean(self.likelihood, f32, y, norms)

    def _moved(self, x: Inputs) -> tuple[Tensor, Tensor]:
        theta: dict[str, Tensor] = dict(_trained(self.model, "FisherRaoNorm"))
        args, keywords = _arguments(x)

        def outputs(parameters: dict[str, Tensor]) -> Tensor:
            return _tensor(functional_call(self.model, parameters, args, keywords))

        with differentiable_kernels(self.model), written_out():
            return differential(outputs, theta, theta, graph=True)

    def _check_degree(self, f: Tensor, x: Inputs, degree: float) -> None:
        if self._checked:
            return
        with torch.no_grad(), torch.random.fork_rng(devices=_devices(f)), torch.autocast(f.device.type, enabled=False):
            known, moved = (t.double() for t in self._moved(x))
        off = float((moved - degree * known).norm() / moved.norm().clamp_min(1e-300))
        if not off <= EULER:
            raise TaskError(
                f"the network is not homogeneous of degree {degree:g} in its trainable parameters: Jθ differs "
                f"from {degree:g}·f by {off:.2g} of its size",
                where="FisherRaoNorm(degree=...)",
                remedy="leave degree out, or count the layers without biases",
            )
        self._checked = True


class FisherProximal:
    """The price of moving away from a reference network, in the Fisher metric of the predictions on a batch.

        "kl":          (1/τ) (1/B) Σ_i KL(p_ref(·|x_i) ‖ p_θ(·|x_i))
        "fisher-rao":  (1/2τ) (1/B) Σ_i d(p_ref(·|x_i), p_θ(·|x_i))²

    Both are (1/2τ)‖θ − θ_ref‖²_F to leading order, F at the reference, in nats; d is the law's closed Fisher–Rao
    distance. Minimising loss + penalty from the reference is the proximal step

        θ⁺ = argmin_θ  loss(θ) + (1/2τ) d²(θ, θ_ref),

    which for small τ is the natural-gradient step of rate τ and for larger ones an implicit step of least action.
    One more forward pass a batch, without gradient. The reference is run in the network's own mode with the same
    random draws (dropout masks) as the network, so that the penalty is exactly 0 where it has not moved.

    Source: Amari 1998 (the natural gradient as the limit); Bae et al. 2022 (proximal steps in output space).

    Args:
        model: the network being trained; the reference is its weights now.
        likelihood: the output law.
        tau: τ > 0, the length of a proximal step in units of natural-gradient time.
        average: what :meth:`renew` keeps of the reference: 0 puts the network in its place (once an epoch: a chain of
            proximal steps), 0.99 makes it a slow average (at every step).
        form: ``"kl"`` or ``"fisher-rao"``.

    Raises:
        TaskError: τ or ``average`` out of range, an unknown form, or nothing to train.
    """

    @typed
    def __init__(
        self, model: nn.Module, likelihood: Likelihood, tau: float, *, average: float = 0.0, form: str = "kl"
    ) -> None:
        if not 0 < tau < math.inf or not 0 <= average < 1 or form not in FORMS:
            raise TaskError(
                f"a proximal step has τ > 0, average in [0, 1) and a form of {' or '.join(FORMS)}, "
                f"not τ = {tau:g}, average = {average:g}, {form!r}",
                where="FisherProximal",
                remedy="change that argument",
            )
        self.model, self.likelihood = _inside(model), likelihood
        self.tau, self.average, self.form = tau, average, form
        _trained(self.model, "FisherProximal")
        self._reference = {k: v.detach().clone() for k, v in _own(self.model).items()}

    @torch.no_grad()
    def renew(self) -> None:
        """Move the reference: θ_ref ← average·θ_ref + (1 − average)·θ; counters and other whole numbers are copied."""
        for name, now in _own(self.model).items():
            old = self._reference[name]
            if self.average and old.is_floating_point():
                old.lerp_(now.to(old), 1 - self.average)
            else:
                self._reference[name] = now.detach().clone()

    def __call__(self, x: Inputs, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run network and reference on a batch and compute the price.

        Args:
            x: inputs of B examples.
            y: labels, needed only where some positions are padding, which then do not count.

        Returns:
            Outputs (B, ..., C) of the network, and the penalty as a scalar, nats.

        Raises:
            ShapeError: outputs are not (examples, ..., C).
        """
        before = self._outputs_of_reference(x)
        f = _tensor(call_model(self.model, x))
        with _full(f):
            f32, before = _wide(f), _wide(before)
            if self.form == "kl":
                prices = self.likelihood.kl(before, f32)
            else:
                prices = self.likelihood.squared_distance(before, f32) / 2
            return f, _mean(self.likelihood, f32, y, prices) / self.tau

    def state_dict(self) -> dict[str, Tensor]:
        """Copy the reference's parameters and buffers, to store next to the model's own.

        Returns:
            Tensors by name.
        """
        return {k: v.clone() for k, v in self._reference.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put a stored reference back.

        Args:
            state: what :meth:`state_dict` gave.

        Raises:
            WeightsMismatchError: it is of another network.
        """
        shapes = {k: v.shape for k, v in self._reference.items()}
        if {k: v.shape for k, v in state.items()} != shapes:
            raise WeightsMismatchError(
                "the reference's tensors are not the network's",
                where="FisherProximal.load_state_dict",
                remedy="load the state that was stored with this network",
            )
        self._reference = {k: state[k].detach().to(v, copy=True) for k, v in self._reference.items()}

    @torch.no_grad()
    def _outputs_of_reference(self, x: Inputs) -> Tensor:
        # The network may have been moved or cast since.
        self._reference = {k: self._reference[k].to(v) for k, v in _own(self.model).items()}
        args, keywords = _arguments(x)
        # A part of a network may be in training mode: its statistics are updated in place, and must not be here.
        buffers = {n for n, _ in self.model.named_buffers()}
        reference = {k: v.clone() if k in buffers else v for k, v in self._reference.items()}
        with torch.random.fork_rng(devices=_devices(next(iter(reference.values())))):
            return _tensor(functional_call(self.model, reference, args, keywords))


def _inside(model: nn.Module) -> nn.Module:
    """The network inside ``torch.compile``, with the same parameters: compiled code has no second derivative."""
    inner = getattr(model, "_orig_mod", model)
    assert isinstance(inner, nn.Module)
    return inner


def _trained(model: nn.Module, where: str) -> dict[str, nn.Parameter]:
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise TaskError("no parameter requires a gradient", where=where, remedy="leave some of the network trainable")
    return trainable


def _own(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _arguments(x: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A batch of inputs as positional and keyword arguments, as :func:`call_model` gives them."""
    if isinstance(x, dict):
        return (), x
    return (x if isinstance(x, tuple) else (x,)), {}


def _tensor(f: Any) -> Tensor:
    if not isinstance(f, Tensor) or f.dim() < 2:
        what = f"a tensor of shape {tuple(f.shape)}" if isinstance(f, Tensor) else f"a {type(f).__name__}"
        raise ShapeError(
            f"the network returns {what}, not (examples, ..., outputs)",
            where="regulariser",
            remedy="wrap it so that it returns one row of outputs per example",
        )
    return f


def _mean(likelihood: Likelihood, f: Tensor, y: Tensor | None, values: Tensor) -> Tensor:
    """Mean over examples of what is summed over their positions: F's own convention."""
    refuse_one_class(likelihood, f, "likelihood")
    if y is not None:
        values = values * likelihood.weight(f, y)
    return values.sum() / len(values)


def _wide(t: Tensor) -> Tensor:
    return t if t.dtype == torch.float64 else t.float()


@contextlib.contextmanager
def _full(f: Tensor) -> Iterator[None]:
    with torch.autocast(f.device.type, enabled=False):
        yield


def _devices(t: Tensor) -> list[int]:
    return [t.device.index or 0] if t.device.type == "cuda" else []
