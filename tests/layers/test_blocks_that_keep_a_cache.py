"""Blocks of a language model that write into a cache of keys and values, called again alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memspace.action.chain import find_chain
from memspace.action.control import control
from memspace.task.task import Task


class Cache:
    """Grows at every call, as the caches of transformers do."""

    def __init__(self) -> None:
        self.keys: list[Tensor | None] = [None, None, None]

    def update(self, layer: int, k: Tensor) -> Tensor:
        old = self.keys[layer]
        self.keys[layer] = k if old is None else torch.cat([old, k], 1)
        found = self.keys[layer]
        assert found is not None
        return found


class Block(nn.Module):
    """Causal attention over what the cache holds; refuses keys beyond the positions there are."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer, self.qkv = layer, nn.Linear(6, 18)

    def forward(self, h: Tensor, cache: Cache | None = None) -> Tensor:
        q, k, v = self.qkv(h).chunk(3, -1)
        kv = torch.cat([k, v], -1)
        k, v = (kv if cache is None else cache.update(self.layer, kv)).chunk(2, -1)
        causal = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool).tril()
        return h + (q @ k.mT).masked_fill(~causal, float("-inf")).softmax(-1) @ v


class Decoder(nn.Module):
    def __init__(self, cached: bool) -> None:
        super().__init__()
        self.cached, self.blocks, self.head = cached, nn.ModuleList(Block(i) for i in range(3)), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        cache = Cache() if self.cached else None
        for block in self.blocks:
            x = block(x, cache=cache)
        return self.head(x)


def test_a_block_called_again_reads_the_cache_as_it_was_at_its_own_call() -> None:
    g = torch.Generator().manual_seed(4)
    x, y = torch.randn(8, 5, 6, generator=g), torch.randint(4, (8, 5), generator=g)
    found = []
    for cached in (True, False):
        torch.manual_seed(3)
        task = Task(model=Decoder(cached).eval(), train=(x, y))
        result = control(task, find_chain(task.model, x[:4]), torch.arange(8), seed=1, batch=8)
        assert not result.unmeasured
        found.append({m.name: m.value for m in result.measurements})
    assert found[0] == found[1]


def test_a_causal_model_of_transformers_is_asked_for_no_cache() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=9, n_positions=6, n_embd=8, n_layer=2, n_head=2)
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.randint(9, (6, 6), generator=torch.Generator().manual_seed(1))
    given: list[Any] = []
    handle = model.transformer.h[0].register_forward_pre_hook(
        lambda _m, args, kwargs: given.append((*args, *kwargs.values())), with_kwargs=True
    )
    task = Task(model=model, train=[{"input_ids": i, "labels": i} for i in ids])
    given.clear()
    f = task.model(input_ids=ids)
    handle.remove()
    assert torch.equal(f, model(input_ids=ids).logits)
    assert given
    assert not any("Cache" in type(v).__name__ for call in given for v in call)
    assert config.use_cache  # the model itself is as it was
