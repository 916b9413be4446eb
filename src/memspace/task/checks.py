"""Bad input, caught before any work starts, one sentence each; and models read without leaving a trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from memspace.errors import LabelError, NonFiniteError, ShapeError, StochasticModelError, TaskError
from memspace.task.data import READ_AT_ONCE, Data, Inputs, call_model, move
from memspace.task.first_calls import first_calls_of, near
from memspace.task.gradients import check_attached, detached, ends_in_kernels
from memspace.task.kernels import as_written, differentiable_kernels, without_gradient_hooks
from memspace.task.metadata import check_metadata
from memspace.task.repeated import check_padding, check_repeatable
from memspace.task.restored import restored
from memspace.task.samplers import same_draws
from memspace.task.selection import chosen_names, split_patterns, trained, what_can_be_trained
from memspace.task.tensors import leaves

if TYPE_CHECKING:
    from memspace.task.task import Task

__all__ = ["check_task", "depends_on_batch", "evaluating", "holding", "untouched"]

SHIFTS = "prepare_decoder_input_ids_from_labels"  # of transformers' models with an encoder and a decoder


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Read the model as it is meant: eval mode, full precision, kernels that can be differentiated.

    Sparse gradients and hooks on gradients are switched off too. Modes, buffers and attributes are as before
    afterwards, also after an exception.

    Args:
        model: the network.

    Yields:
        The same model.
    """
    modes = [(m, m.training) for m in model.modules()]
    sparse = [m for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.sparse]
    with restored(model), differentiable_kernels(model), as_written(), without_gradient_hooks(model):
        try:
            for module, _ in modes:
                module.training = False
            for module in sparse:
                module.sparse = False
            yield model
        finally:
            for module, training in modes:
                module.training = training
            for module in sparse:
                module.sparse = True


@contextmanager
def untouched(model: nn.Module) -> Iterator[nn.Module]:
    """Read the model as :func:`evaluating` does, and restore gradients and random state as well.

    Afterwards torch's random state and each parameter's ``grad`` and ``requires_grad`` are as before.

    Args:
        model: the network.

    Yields:
        The same model.
    """
    grads = [(p, p.grad, p.requires_grad) for p in model.parameters()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), evaluating(model):
        try:
            yield model
        finally:
            for parameter, gradient, trainable in grads:
                # Of tensors made in inference mode torch refuses to set even the value that they have.
                if parameter.requires_grad != trainable:
                    parameter.requires_grad_(trainable)
                parameter.grad = gradient


@contextmanager
def holding(model: nn.Module, state: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    """Put a state dict's weights and buffers into the model; its own tensors are put back afterwards.

    Those that have the same numbers stay: of a part that is held fixed outputs may be known.

    A copy of the model would not do: a forward replaced on an instance goes on using the layer it was made for.

    Args:
        model: the network.
        state: names and tensors.

    Yields:
        The same model, with the numbers of ``state``.

    Raises:
        KeyError: the state lacks a parameter or a buffer that is part of the model's own.
    """
    saved = model.state_dict()
    tensors = {n: t for n, t in (*model.named_parameters(), *model.named_buffers()) if n in saved}
    before = [(t, t.data) for t in tensors.values()]
    try:
        for name, tensor in tensors.items():
            other = state[name].to(tensor.data)
            if not (other.shape == tensor.shape and torch.equal(other, tensor.data)):
                tensor.data = other
        yield model
    finally:
        for tensor, data in before:
            tensor.data = data


def check_task(task: Task, forward: Callable[[Inputs], Tensor] | None = None) -> None:
    """Raise the first fault of a task; see ``memspace.errors`` for the kinds.

    Nothing of the task is changed, nor torch's random state, which random models and random data draw from. A plain
    network that does what it did when the task was made is called once (see ``memspace.task.first_calls``).

    Args:
        task: to be checked.
        forward: how a plain network is called, with gradients on; a caller that uses the graph gives its own.

    Raises:
        TaskError: the model cannot be differentiated at all.
        MemspaceError: any other fault.
    """
    if torch.is_inference_mode_enabled():
        raise TaskError(
            "gradients are switched off for good inside torch.inference_mode()",
            where=task.name,
            remedy="call memspace outside of it; it switches gradients on and off itself",
        )
    if isinstance(task.model, torch.jit.ScriptModule):
        raise TaskError(
            "the model is a compiled TorchScript program, in which other weights cannot be put",
            where=task.name,
            remedy="pass the nn.Module it was made from, with the same weights",
        )
    _check_weights(task.model)
    chosen_names(task.model, *split_patterns(task.parameters))
    _check_no_dropout_draws(task.model)
    with same_draws(), untouched(task.model):
        same = _same_as_first(task, forward or partial(call_model, task.model))
        for data in (task.train, *(() if task.test is None else (task.test,))):
            check_repeatable(data)
            f = _check_forward(task, data) if same is None else same
            _check_labels_and_inputs(task, data, f)
        check_metadata(task, f.shape[-1])
        if same is None:
            _check_deterministic(task)
            _check_alone(task)
        for data in (task.train, *(() if task.test is None else (task.test,))):
            check_padding(task, data, 10 * math.sqrt(torch.finfo(f.dtype).eps))
        if same is None:
            check_attached(task)


def _same_as_first(task: Task, forward: Callable[[Inputs], Tensor]) -> Tensor | None:
    """Return outputs of the batch of the first calls, where they and those calls show no fault; else None.

    The model then takes training and test data and one example alone, and repeats itself bit for bit with and without
    gradients. It reads an example the same alone and among others, and gives finite outputs that gradients reach.
    """
    first = first_calls_of(task)
    if first is None or first.alone is None:
        return None
    try:
        x = first.batch(task)
        with torch.enable_grad():
            f = forward(x)
    except Exception:  # named step by step
        return None
    if not isinstance(f, Tensor) or f.dim() != 2 or f.is_inference() or len(f) != len(x):
        return None
    well = torch.equal(f.detach(), first.used) and bool(torch.isfinite(first.used).all())
    well = well and near(first.used[first.at :][:1], first.alone.f)
    return f.detach() if well and not detached(task.model, f) and not ends_in_kernels(f) else None


def _check_weights(model: nn.Module) -> None:
    if not trained(model):
        raise TaskError(
            "the model has no trainable parameters",
            where=type(model).__name__,
            remedy=what_can_be_trained(model),
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta or tensor.is_inference():
            word = "is on the meta device and holds no numbers" if tensor.is_meta else "was made in inference mode"
            raise TaskError(
                f"the weight {word}",
                where=name,
                remedy="load the weights onto a real device, outside of torch.inference_mode()",
            )
        if not tensor.is_floating_point():
            continue
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise NonFiniteError(
                f"{bad} of {tensor.numel()} weights are NaN or infinite",
                where=name,
                remedy="use a checkpoint from before the training diverged",
            )


def _check_no_dropout_draws(model: nn.Module) -> None:
    """Refuse a model that draws dropout masks: only the user knows whether the one with or without masks is meant."""
    for name, module in model.named_modules():
        share = getattr(module, "p", 0.0) if isinstance(module, nn.modules.dropout._DropoutNd) else 0.0
        if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
            share = module.dropout
        if module.training and share > 0:
            raise StochasticModelError(
                f"the model is in training mode and draws dropout masks (p = {share:g})",
                where=f"module {name}" if name else type(model).__name__,
                remedy="call model.eval() before passing it",
            )


def _check_forward(task: Task, data: Data) -> Tensor:
    batch = data.batch(range(min(4, len(data))))
    shapes = ", ".join(str(tuple(t.shape)) for t in leaves(batch.x))
    try:
        with torch.no_grad():
            f = call_model(task.model, move(batch.x, task.device, task.dtype))
    except Exception as error:  # whatever the model raises, it raises at its input
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ShapeError(
            f"the model refuses inputs of shape {shapes}: {reason}",
            where=data.name,
            remedy=_other_inputs(task.model, batch.x, reason),
        ) from error
    if isinstance(f, Tensor) and not f.is_floating_point():
        raise ShapeError(
            f"the model returns {str(f.dtype).removeprefix('torch.')} outputs, which have no gradient",
            where=type(task.model).__name__,
            remedy="let it return real outputs: logits rather than classes",
        )
    if not isinstance(f, Tensor) or f.dim() < 2 or f.shape[0] != len(batch):
        returned = f"a tensor of shape {tuple(f.shape)}" if isinstance(f, Tensor) else f"a {type(f).__name__}"
        raise ShapeError(
            f"the model returns {returned} for {len(batch)} examples, not (examples, outputs)",
            where=type(task.model).__name__,
            remedy="wrap the model so that it returns one row of outputs per example"
            + ("" if isinstance(f, Tensor) else ", or an object with logits"),
        )
    return f


def _other_inputs(model: nn.Module, x: Inputs, reason: str) -> str:
    """Say what to do about inputs that the model refuses."""
    if hasattr(model, SHIFTS) and isinstance(x, dict) and "decoder_input_ids" not in x:
        return f"give every example an entry decoder_input_ids: model.{SHIFTS}(labels) makes them"
    if "offsets" in reason:
        return "let offsets say where each example's bag starts, from 0: torch.tensor([0, *lengths]).cumsum(0)[:-1]"
    wanted, _, got = reason.partition("got")
    if "Long" in wanted and ("Float" in got or "Double" in got):
        return "cast the inputs that are indices to whole numbers, x.long()"
    whole = [t for t in leaves(x) if not t.is_floating_point()]
    if whole and any(word in reason for word in ("dtype", "Long", "Byte", "scalar type")):
        kind = str(whole[0].dtype).removeprefix("torch.")
        return f"cast the {kind} inputs as in training, for example x.float(): whole numbers are passed as they are"
    return "give inputs of the shape the model was trained on"


def _check_labels_and_inputs(task: Task, data: Data, probe: Tensor) -> None:
    damaged: list[int] = []
    for batch in data.batches(READ_AT_ONCE):
        if not isinstance(batch.y, Tensor):
            raise LabelError(
                "the labels are strings", where=data.name, remedy="encode them as numbers, or give class_names"
            )
        y = move(batch.y, task.device)
        like = probe[:1].expand(len(batch), *probe.shape[1:])
        task.likelihood.check(like, y, f"{data.name}, examples {int(batch.index[0])}..{int(batch.index[-1])}")
        bad = torch.zeros(len(batch), dtype=torch.bool)
        for tensor in leaves(batch.x):
            if tensor.is_floating_point():
                bad |= ~torch.isfinite(tensor.flatten(1) if tensor.dim() > 1 else tensor[:, None]).all(1).cpu()
        damaged += batch.index[bad].tolist()
    if damaged:
        raise NonFiniteError(
            f"{len(damaged):,} of {len(data):,} inputs hold NaN or infinite values",
            where=f"{data.name}, first at example {damaged[0]}",
            remedy="drop or repair those examples",
        )


@torch.no_grad()
def _check_deterministic(task: Task) -> None:
    batch = task.train.batch(range(min(4, len(task.train))))
    x = move(batch.x, task.device, task.dtype)
    first, second = call_model(task.model, x), call_model(task.model, x)
    if not bool(torch.isfinite(first).all()):
        bad = int((~torch.isfinite(first)).sum())
        raise NonFiniteError(
            f"{bad} of {first.numel()} outputs are NaN or infinite on the first batch",
            where=task.train.name,
            remedy="check the inputs' scale and the weights",
        )
    if not torch.equal(first, second):
        raise StochasticModelError(
            "two forward passes of the model in eval mode differ",
            where=_first_difference(task.model, x),
            remedy="make the model deterministic in eval mode: nn.Dropout instead of functional dropout",
        )
    half = len(batch) // 2
    if half < 2:  # batch statistics of a single example are not defined
        return
    alone = call_model(task.model, move(task.train.batch(range(half)).x, task.device, task.dtype))
    # Kernels may sum in another order for another batch size: far above rounding, far below a real dependence.
    allowed = 10 * math.sqrt(torch.finfo(first.dtype).eps) * max(1.0, float(first.abs().max()))
    apart = float((alone - first[:half]).abs().max())
    if apart > allowed:
        raise depends_on_batch(
            task.model,
            f"two forward passes of the model differ by {apart:.2g}: an example's output depends on its batch",
            type(task.model).__name__,
            "let batch normalisation track running statistics (track_running_stats=True)",
        )


def depends_on_batch(model: nn.Module, what: str, where: str, remedy: str) -> StochasticModelError:
    """Make the error for outputs that depend on the batch; layers that do so by their nature are named.

    Args:
        model: the network.
        what: the sentence.
        where: the place, where no such layer is in the model.
        remedy: what to do, where no such layer is in the model.

    Returns:
        The error, to be raised.
    """
    dynamic = [n for n, m in model.named_modules() if "quantized.dynamic" in type(m).__module__]
    if dynamic:
        what = f"{what}: its dynamically quantised layers round by the range of the whole batch"
        where = f"module {dynamic[0]}" if dynamic[0] else where
        remedy = "pass the network before it was quantised; what rounding costs is measured on a copy"
    return StochasticModelError(what, where=where, remedy=remedy)


@torch.no_grad()
def _check_alone(task: Task) -> None:
    """Check one example alone: passes that differentiate example by example read it so."""
    if len(task.train) == 1:
        return
    x = move(task.train.batch([0]).x, task.device, task.dtype)
    try:
        f = call_model(task.model, x)
    except Exception as error:  # whatever the model raises at one example, it took several
        reason = " ".join(str(error).split())[:200]
        raise ShapeError(
            f"the model refuses a batch of one example: {type(error).__name__}{': ' if reason else ''}{reason}",
            where=type(task.model).__name__,
            remedy="let it take any number of examples: no .squeeze() without an axis, no batch statistics",
        ) from error
    if not isinstance(f, Tensor) or f.dim() < 2 or len(f) != 1:
        returned = tuple(f.shape) if isinstance(f, Tensor) else type(f).__name__
        raise ShapeError(
            f"the model returns outputs of shape {returned} for a batch of one example",
            where=type(task.model).__name__,
            remedy="let it keep the axis of examples: .squeeze(-1) or .flatten(1) instead of .squeeze()",
        )


def _first_difference(model: nn.Module, x: Inputs) -> str:
    """Name the first module whose output differs between two passes that go on drawing from one random state."""
    first, second = _outputs_by_module(model, x), _outputs_by_module(model, x)
    for (name, before), (_, after) in zip(first, second, strict=False):
        if before.shape != after.shape or not torch.equal(before, after):
            return f"module {name}"
    return type(model).__name__


def _outputs_by_module(model: nn.Module, x: Inputs) -> list[tuple[str, Tensor]]:
    """Collect every submodule's output in the order of the calls; no hook stays."""
    record: list[tuple[str, Tensor]] = []

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                record.append((name, output.clone()))

        return hook

    handles = [m.register_forward_hook(keep(n)) for n, m in model.named_modules() if n]
    try:
        call_model(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return record
