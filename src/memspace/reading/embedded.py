"""Which embeddings of a network read which whole numbers of its input, and a network that reads vectors instead.

Whole numbers cannot be moved little by little. The vectors that an ``nn.Embedding`` reads for them can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.task.data import Inputs, call_model
from memspace.task.tensors import leaves

__all__ = ["EmbeddingCall", "embedding_calls", "embeddings_of", "reading_vectors"]


@dataclass(frozen=True)
class EmbeddingCall:
    """One call of an embedding whose indices are entries of an input.

    Args:
        module: the embedding.
        turn: which of the module's calls it is, from 0.
        leaf: which tensor of the inputs.
        entries: (n,) places of the entries in one example's flattened tensor, in the order of the call.
        alike: whether entries mean the same wherever they stand, as tokens do, and columns of a table do not.
    """

    module: nn.Embedding
    turn: int
    leaf: int
    entries: Tensor
    alike: bool


def embedding_calls(model: nn.Module, x: Inputs) -> tuple[EmbeddingCall, ...]:
    """Find the embeddings whose indices are a whole-number input, or one column of it.

    Args:
        model: the network, in eval mode.
        x: inputs of several examples, so that no two tensors agree by chance.

    Returns:
        the calls, in their order.
    """
    recorded: list[tuple[nn.Embedding, int, Tensor]] = []
    turns: dict[int, int] = {}

    def record(module: nn.Module, args: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(module, nn.Embedding)
        turn = turns[id(module)] = turns.get(id(module), -1) + 1
        if args:
            recorded.append((module, turn, args[0].detach().clone()))

    handles = [m.register_forward_hook(record) for m in model.modules() if isinstance(m, nn.Embedding)]
    try:
        with torch.no_grad():
            call_model(model, x)
    finally:
        for handle in handles:
            handle.remove()
    tensors = leaves(x)
    calls: list[EmbeddingCall] = []
    for module, turn, index in recorded:
        match = _match(tensors, index, {(c.leaf, int(c.entries[0])) for c in calls})
        if match is not None:
            calls.append(EmbeddingCall(module, turn, *match))
    return tuple(calls)


def _match(tensors: Sequence[Tensor], index: Tensor, taken: set[tuple[int, int]]) -> tuple[int, Tensor, bool] | None:
    """The input, or the column of one, that a call's indices are, but for a shift of every column."""
    for k, tensor in enumerate(tensors):
        if tensor.is_floating_point() or not tensor.numel() or index.shape[:1] != tensor.shape[:1]:
            continue
        flat, indices = tensor.reshape(len(tensor), -1).to(index), index.reshape(len(index), -1)
        if indices.shape == flat.shape:
            shift = indices - flat
            if not bool(shift.any()):
                return k, torch.arange(flat.shape[1]), True
            if len(flat) > 1 and torch.equal(shift, shift[:1].expand_as(shift)) and bool((flat != flat[:1]).any()):
                return k, torch.arange(flat.shape[1]), False
        elif indices.shape[1] == 1:
            same = (flat == indices).all(0).nonzero().flatten().cpu()
            free = [c for c in same if (k, int(c)) not in taken] or list(same)
            if free:
                return k, free[0].reshape(1), False
    return None


def embeddings_of(model: nn.Module, calls: Sequence[EmbeddingCall], x: Inputs) -> list[Tensor]:
    """Read the vectors that calls of embeddings return.

    Args:
        model: the network, in eval mode.
        calls: of embeddings.
        x: inputs.

    Returns:
        (B, n, width) of every call.
    """
    read: dict[int, Tensor] = {}

    def keep(call: int, vectors: Tensor) -> Tensor:
        read[call] = vectors.detach().reshape(len(vectors), -1, vectors.shape[-1]).clone()
        return vectors

    with _intercepted(calls, keep), torch.no_grad():
        call_model(model, x)
    return [read[k] for k in range(len(calls))]


@contextmanager
def reading_vectors(calls: Sequence[EmbeddingCall], vectors: Mapping[int, Tensor]) -> Iterator[None]:
    """Let embeddings return given vectors.

    Args:
        calls: of embeddings.
        vectors: (B, n, width) by place of the call.

    Yields:
        nothing; the network then reads these vectors.
    """
    with _intercepted(calls, lambda k, was: vectors[k].reshape(was.shape) + 0):  # a leaf must not be written into
        yield


@contextmanager
def _intercepted(calls: Sequence[EmbeddingCall], function: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Let a function see, and replace, what calls of embeddings return."""
    turns: dict[int, int] = {}
    places = {(id(c.module), c.turn): k for k, c in enumerate(calls)}

    def hook(module: nn.Module, _: tuple[Tensor, ...], returned: Tensor) -> Tensor:
        turn = turns[id(module)] = turns.get(id(module), -1) + 1
        place = places.get((id(module), turn))
        return returned if place is None else function(place, returned)

    handles = [m.register_forward_hook(hook) for m in {id(c.module): c.module for c in calls}.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
