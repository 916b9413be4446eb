"""Weights from files, read without ever running code from them."""

from __future__ import annotations

import pickle
import pickletools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from memspace.arguments import described
from memspace.errors import CheckpointError, UnsafeCheckpointError, WeightsMismatchError
from memspace.task.plain import own_name

__all__ = ["as_state", "check_fit", "load_weights", "read_state"]


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the state dict in a file: safetensors, or a torch file with ``weights_only=True``.

    Args:
        path: of the file.

    Returns:
        Each name with its tensor, on the CPU.

    Raises:
        CheckpointError: missing, truncated or of no known format.
        UnsafeCheckpointError: the file would run code when loaded.
    """
    if not path.is_file():
        raise CheckpointError("there is no such checkpoint", where=str(path), remedy="check --weights")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(str(path)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises anything at damage
        if isinstance(error, pickle.UnpicklingError) and ("GLOBAL" in str(error) or _calls(path)):
            raise UnsafeCheckpointError(
                "the checkpoint holds more than tensors and could run code when loaded",
                where=str(path),
                remedy="save it again with torch.save(model.state_dict(), ...) or as safetensors",
            ) from error
        raise _damaged(path, error) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
        raise CheckpointError(
            "the file holds no state dict",
            where=str(path),
            remedy="save it with torch.save(model.state_dict(), ...)",
        )
    return loaded


def _calls(path: Path) -> bool:
    """Tell whether a file is a bare pickle that names a function or class; it is read opcode by opcode, never run."""
    try:
        with path.open("rb") as file:
            return any(op.name in ("GLOBAL", "STACK_GLOBAL", "INST") for op, _, _ in pickletools.genops(file))
    except Exception:  # not a pickle
        return False


def _damaged(path: Path, error: Exception) -> CheckpointError:
    text = str(error).strip()
    if not text or text.startswith("Weights only load failed"):  # torch's advice there is to switch safety off
        text = type(error).__name__
    reason = text.splitlines()[0][:120]
    return CheckpointError(
        f"the checkpoint is truncated or of no known format ({reason})",
        where=str(path),
        remedy="save it again",
    )


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a checkpoint into the model, all keys or none.

    Args:
        model: whose weights and buffers are replaced.
        path: of the checkpoint.

    Raises:
        WeightsMismatchError: names the first keys that are missing, unexpected or of another shape.
    """
    state = read_state(path)
    if not state.keys() & model.state_dict().keys():  # saved from inside a wrapper
        state = {own_name(k): v for k, v in state.items()}
    check_fit(model, state, str(path))
    model.load_state_dict(state)


def _kind(t: Tensor) -> str:
    """Name the sort of numbers a tensor holds: loading one sort into another changes what they mean."""
    if t.is_complex():
        return "complex"
    if t.is_quantized:
        return "quantised"
    return "float" if t.is_floating_point() else "bool" if t.dtype == torch.bool else "whole"


def _word(t: Tensor) -> str:
    return str(t.dtype).removeprefix("torch.")


def as_state(given: Any, where: str) -> Mapping[str, Tensor]:
    """Take a state dict as it is.

    Args:
        given: what stands where a state dict is due.
        where: it was given, for the message.

    Returns:
        the state dict.

    Raises:
        WeightsMismatchError: it is none: no mapping, or one of other things than tensors.
    """
    if isinstance(given, Mapping):
        other = [name for name, value in given.items() if not hasattr(value, "shape")]
        if not other or all(str(name).endswith("_extra_state") for name in other):
            return given
    what = f"{described(given)} is no state dict"
    raise WeightsMismatchError(what, where=where, remedy="give a copy of this model's state_dict()")


def check_fit(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Check that a state dict has exactly the model's keys, shapes and kinds of number.

    Args:
        model: the network.
        state: names and tensors.
        where: the place that the error names.

    Raises:
        WeightsMismatchError: names the first keys that are missing, unexpected or of another shape.
    """
    state, expected = as_state(state, where), model.state_dict()
    missing = [k for k in expected if k not in state]
    unexpected = [k for k in state if k not in expected]
    both = [k for k in expected if k in state]
    shapes = [k for k in both if expected[k].shape != state[k].shape]
    kinds = [k for k in both if k not in shapes and _kind(state[k]) != _kind(expected[k])]
    faults = []
    for word, keys in (("missing", missing), ("unexpected", unexpected)):
        if keys:
            faults.append(f"{len(keys)} {word} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})")
    if shapes:
        k = shapes[0]
        faults.append(f"{len(shapes)} of another shape ({k}: {tuple(state[k].shape)} for {tuple(expected[k].shape)})")
    if kinds:
        k = kinds[0]
        dtypes = f"{k}: {_word(state[k])} for {_word(expected[k])}"
        faults.append(f"{len(kinds)} of another kind of number ({dtypes})")
    if faults:
        raise WeightsMismatchError(
            "the weights do not fit the model: " + "; ".join(faults),
            where=where,
            remedy="give the checkpoint of this architecture",
        )
