"""Natural gradient as a torch optimiser: steps along (F + λI)⁻¹∇L, F by EKFAC kept up while the network trains."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypedDict, Unpack

import torch
import torch.distributed as dist
from torch import Tensor, nn

from memspace.action.running import RunningFisher
from memspace.arguments import typed
from memspace.errors import NonFiniteError, SettingsError, TaskError, UnsupportedLayerError
from memspace.limits import SEED
from memspace.passes.kinds import Kind
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space
from memspace.task.checks import untouched
from memspace.task.data import Data, Inputs, call_model, first_tensor, move, take
from memspace.task.likelihood import Categorical, Likelihood, refuse_one_class
from memspace.task.plain import plain
from memspace.task.selection import as_patterns, split_patterns
from memspace.task.task import Task

__all__ = ["NaturalGradient", "ReadingOptions"]

KEPT = "fisher"  # under which name the optimiser's state holds what belongs to no single parameter
PREFIX = "metric/"
WHERE = "NaturalGradient"


class ReadingOptions(TypedDict, total=False):
    """How :class:`NaturalGradient` reads its metric; ``DEFAULTS`` holds what is meant otherwise.

    Args:
        factors: steps between readings; early on they come more often: every step during the first 16, every count/8
            steps then.
        refresh: steps between eigenbases (an eigendecomposition of every factor), early on more often alike.
        memory: weight of the past in the averages, in [0, 1).
        kind: of the metric, ``"mc"``, ``"mc:k"``, ``"exact"`` or ``"topk:share"``.
        examples: of the batch that are read at most.
        parameters: shell patterns over names, as in ``Task``.
        seed: of the sampled labels.
    """

    factors: int
    refresh: int
    memory: float
    kind: str
    examples: int
    parameters: str | Sequence[str]
    seed: Annotated[int, SEED]


DEFAULTS: ReadingOptions = {
    "factors": 10,
    "refresh": 100,
    "memory": 0.95,
    "kind": "mc",
    "examples": 256,
    "parameters": (),
    "seed": 0,
}


class NaturalGradient(torch.optim.Optimizer):
    """θ ← θ − lr·b with b ← momentum·b + (F + λI)⁻¹(∇L + weight_decay·θ), λ = ``damping``, exactly in EKFAC's basis.

    Used like any torch optimiser; the loop does not change. The model's last inputs are remembered by a forward hook,
    and every ``factors`` steps (early in training more often) they are read once more, by one forward and one backward
    pass in eval mode and in the parameters' own precision, whatever autocast does. Labels are sampled from the output
    law: the true Fisher information, not the empirical one. F is per counted position, so it fits a loss that is a mean
    over examples or over positions. Parameters outside Kronecker blocks (norms, loose ones) have their own second
    moment, whole up to 2,048 numbers and its diagonal beyond.

    Source: Amari 1998; Martens & Grosse 2015; George et al. 2018.

    Args:
        model: the network as it is called in the loop, parameters in float32 or float64.
        likelihood: the output law whose negative log-likelihood is the loss. ``Gaussian()`` stands for σ = 1, half the
            squared error, and not for a fitted σ, which would change with every step: ``longest`` and ``damping`` are
            then in the targets' unit, and ``Gaussian(sigma=...)`` puts them in nats.
        lr: 1 is the whole natural-gradient step; learning-rate schedulers work.
        damping: λ > 0, in the unit of F (nats per squared unit of the parameters).
        momentum: weight of the past steps, in [0, 1).
        weight_decay: γ of γ/2·‖θ‖² in the loss, as in ``torch.optim.SGD``.
        longest: trust region: no step is longer than this in the metric, √(ΔθᵀFΔθ) in nats^½ (None: no limit, which
            only a damping near the largest eigenvalues survives: the metric changes within the first steps).
        **reading: how the metric is read, as :class:`ReadingOptions` lists it.

    Raises:
        SettingsError: a number out of its range, or an unknown kind.
        UnsupportedLayerError: parameters in half precision or spread over processes.
        TaskError: several processes train the model: their metrics would differ.
    """

    @typed
    def __init__(
        self,
        model: nn.Module,
        likelihood: Likelihood | None = None,
        *,
        lr: float = 0.1,
        damping: float = 1e-2,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        longest: float | None = 0.1,
        **reading: Unpack[ReadingOptions],
    ) -> None:
        options: ReadingOptions = {**DEFAULTS, **reading}
        defaults: dict[str, Any] = {"lr": lr, "damping": damping, "momentum": momentum, "weight_decay": weight_decay}
        defaults |= {"factors": options["factors"], "refresh": options["refresh"], "longest": longest}
        _check({**defaults, "memory": options["memory"], "examples": options["examples"]})
        if Kind.of(options["kind"]).name not in ("mc", "exact", "topk"):
            raise SettingsError(
                f"the metric is of kind mc, exact or topk, not {options['kind']}",
                where="NaturalGradient",
                remedy="change that argument",
            )
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise TaskError(
                "several processes train this model, and each would keep a metric of its own",
                where=WHERE,
                remedy="train in one process, or with another optimiser",
            )
        self._model, self._law = model, (likelihood or Categorical()).trained_with
        self._options, self._patterns = options, as_patterns(options["parameters"])
        self._plain = _own(model)
        only, without = split_patterns(self._patterns)
        self._space = ParameterSpace(self._plain, only=only, without=without)
        self._fisher: RunningFisher | None = None
        self._seen: Inputs | None = None
        self._reading = False
        self.last_length: Tensor | None = None  # of the last step before it was cut, where ``longest`` is given
        super().__init__(list(self._space.parameters(self._plain).values()), defaults)
        self._handle = model.register_forward_pre_hook(_remembering(weakref.ref(self)), with_kwargs=True)
        weakref.finalize(self, self._handle.remove)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take the one group made at the start: the metric is one over all parameters.

        Args:
            param_group: as torch's optimisers have it.

        Raises:
            SettingsError: a second group.
        """
        if self.param_groups:
            raise SettingsError(
                "NaturalGradient has one group of parameters; choose them by parameters=",
                where="NaturalGradient",
                remedy="change that argument",
            )
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None, *, batch: Any = None) -> Any:
        """Move the parameters by one step along their ``grad``.

        Args:
            closure: computes the loss and its gradient again, as for torch's optimisers.
            batch: what to read the metric on instead of the model's last inputs: a tensor or dictionary of inputs, or
                (inputs, labels). Labels only say which positions of a sequence are padded; without them all count.

        Returns:
            The closure's loss, where one is given.

        Raises:
            TaskError: a reading is due and the model has not been called.
            NonFiniteError: the first batch gives no finite outputs.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group, state = self.param_groups[0], self._own_state
        count = int(state.get("steps", 0))
        due = _due(count, group["factors"])
        if due or self._fisher is None:
            self._read(batch, due, refresh=_due(count, group["refresh"]))
        with torch.no_grad():
            self._move(group)
        state["steps"] = torch.tensor(count + 1)
        self._seen = None  # the batch need not outlive its step
        return loss

    @property
    def _own_state(self) -> dict[str, Tensor]:
        """What belongs to no single parameter; torch saves and restores it with the rest."""
        whole: dict[Any, Any] = self.state
        shared: dict[str, Tensor] = whole.setdefault(KEPT, {})
        return shared

    def _read(self, batch: Any, due: bool, refresh: bool) -> None:
        """Read the metric where that is due; just restored, only the layout of the parameters is found again."""
        x, y = self._seen if batch is None else batch, None
        if isinstance(batch, tuple) and len(batch) == 2:
            x, y = batch
        if x is None:
            raise TaskError(
                "the metric is to be read and the model has not been called since the last step",
                where=f"{WHERE}.step",
                remedy="call the model in the loop with gradients enabled, or give step(batch=(inputs, labels))",
            )
        like = self.param_groups[0]["params"][0]
        if len(first_tensor(x)) > self._options["examples"]:
            x, y = take(x, slice(self._options["examples"])), None if y is None else y[: self._options["examples"]]
        x, y = move(x, like.device, like.dtype), None if y is None else y.to(like.device)
        self._reading = True
        try:
            with untouched(self._model), torch.autocast(like.device.type, enabled=False):
                if self._fisher is None:
                    self._fisher = self._laid_out(x)
                if due or not self._fisher.readings:
                    self._fisher.read(self._plain, x, y, refresh=refresh)
        except NonFiniteError:
            # A gradient scaler that searches for its scale meets such batches; the metric known so far will do.
            if self._fisher is None or not self._fisher.readings:
                raise
        finally:
            self._reading = False
        assert self._fisher is not None
        self._own_state.update({PREFIX + k: v for k, v in self._fisher.tensors.items()})

    def _laid_out(self, x: Inputs) -> RunningFisher:
        """The metric, its layout of the parameters checked against autograd on this batch."""
        with torch.no_grad():
            f: Tensor = call_model(self._plain, x)
        refuse_one_class(self._law, f, WHERE)
        labels = self._law.sample(f, torch.Generator().manual_seed(self._options["seed"]))
        self._space = verified_space(
            Task(model=self._plain, train=Data((x, labels)), likelihood=self._law, parameters=self._patterns)
        )
        fisher = RunningFisher(
            self._space, self._law, self._options["kind"], self._options["memory"], self._options["seed"]
        )
        fisher.restore(self._saved(), f.device)
        return fisher

    def _saved(self) -> dict[str, Tensor]:
        """The metric's tensors among the state."""
        return {k.removeprefix(PREFIX): v for k, v in self._own_state.items() if k.startswith(PREFIX)}

    def _move(self, group: dict[str, Any]) -> None:
        assert self._fisher is not None
        parameters, state = self._space.parameters(self._plain), self._own_state
        gradient = self._space.pack(
            {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in parameters.items()}
        )
        if group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * self._space.pack(parameters)
        metric = self._fisher.metric(gradient.dtype)
        direction = metric.solve(gradient, group["damping"])
        if group["momentum"]:
            if "momentum" in state:
                direction = group["momentum"] * state["momentum"] + direction
            state["momentum"] = direction
        step = -group["lr"] * direction
        if group["longest"] is not None:
            self.last_length = metric.norm(step)
            step = step * (group["longest"] / self.last_length.clamp_min(1e-30)).clamp(max=1.0)
        for name, part in self._space.unpack(step).items():
            parameters[name].add_(part)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state; continuing from it is the same to the last bit.

        Args:
            state_dict: what ``state_dict()`` gave.
        """
        super().load_state_dict(state_dict)
        device = self.param_groups[0]["params"][0].device
        whole: dict[Any, Any] = self.state
        counts = ("steps", f"{PREFIX}readings")  # these stay where they can be read without waiting for the device
        whole[KEPT] = {k: v.clone() if k in counts else v.to(device, copy=True) for k, v in self._own_state.items()}
        if self._fisher is not None:
            self._fisher.restore(self._saved(), device)


def _due(count: int, interval: int) -> bool:
    """Every ``interval`` steps, early in training every count/8 of them: the metric then changes with every step."""
    return count % min(interval, max(1, count // 8)) == 0


def _own(model: nn.Module) -> nn.Module:
    """The model without its wrappers, around the very same parameters.

    Raises:
        UnsupportedLayerError: these cannot be read as they are.
    """
    inner, mine = plain(model), {id(p) for p in model.parameters()}
    if any(id(p) not in mine for p in inner.parameters()):
        raise UnsupportedLayerError(
            "parameters are in half precision or spread over processes",
            where=WHERE,
            remedy="keep float32 parameters and train under torch.autocast",
        )
    return inner


def _remembering(of: weakref.ref[NaturalGradient]) -> Callable[..., None]:
    """A hook that keeps the inputs of the model's last call with gradients.

    A copy of the model carries the hook along; its calls are not the optimiser's.
    """

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        optimiser = of()
        if optimiser is None or module is not optimiser._model or optimiser._reading or not torch.is_grad_enabled():
            return
        if args and kwargs:
            optimiser._seen = None  # to be given by step(batch=...)
        else:
            optimiser._seen = kwargs or (args[0] if len(args) == 1 else args)

    return hook


# What each number must be, in the order in which they are checked.
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lr": (lambda v: 0 <= v < math.inf, "be finite and not negative"),
    "damping": (lambda v: 0 < v < math.inf, "be positive and finite"),
    "momentum": (lambda v: 0 <= v < 1, "be in [0, 1)"),
    "weight_decay": (lambda v: 0 <= v < math.inf, "be finite and not negative"),
    "factors": (lambda v: v >= 1, "be at least 1"),
    "refresh": (lambda v: v >= 1, "be at least 1"),
    "memory": (lambda v: 0 <= v < 1, "be in [0, 1)"),
    "examples": (lambda v: v >= 1, "be at least 1"),
    "longest": (lambda v: v is None or v > 0, "be positive"),
}


def _check(numbers: Mapping[str, Any]) -> None:
    for name, (fits, what) in RANGES.items():
        if not fits(numbers[name]):
            raise SettingsError(
                f"{name} must {what}, got {numbers[name]}", where="NaturalGradient", remedy="change that argument"
            )
