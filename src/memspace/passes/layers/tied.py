"""A weight that is an embedding and an output layer at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from memspace.passes.forms.form import Form
from memspace.passes.forms.product import ProductForm
from memspace.passes.forms.tied import TiedForm
from memspace.passes.forms.token import TokenForm
from memspace.passes.layers.bags import by_row
from memspace.passes.layers.block import Block
from memspace.passes.layers.embedding import TABLES, tokens_of
from memspace.passes.layers.product import by_position
from memspace.passes.layers.read import BlockRead, PulledCall, joined
from memspace.passes.layers.rule import LayerRule

__all__ = ["Tied"]


class Tied(LayerRule):
    """Matrix (vocabulary, dim): the sum of the output layer's product form and the embedding's token form."""

    name: ClassVar[str] = "tied"
    token_side: ClassVar[Literal["", "in", "out"]] = "out"

    def gathered(self, read: BlockRead) -> Tensor:
        """See :class:`LayerRule`: the inputs of the output layer."""
        parts = [by_position(call.inputs[0]) for call in read.of(nn.Linear)]
        return joined(parts, (len(read), 1, read.block.shape[1]), read.outputs)

    def signals(self, block: Block, calls: Sequence[PulledCall], outputs: Tensor) -> Tensor:
        """See :class:`LayerRule`: (B, T·vocabulary + T'·dim), those of the outputs, then those of the tokens."""
        b, (vocabulary, dim) = len(outputs), block.shape
        heads = [c.cotangent.reshape(b, -1, vocabulary) for c in calls if isinstance(c.module, nn.Linear)]
        tables = [by_row(c, dim) for c in calls if isinstance(c.module, TABLES)]
        sides = (joined(heads, (b, 1, vocabulary), outputs), joined(tables, (b, 1, dim), outputs))
        return torch.cat([side.flatten(1) for side in sides], 1)

    def form(self, read: BlockRead, pulled: Tensor) -> Form:
        """See :class:`LayerRule`."""
        a, (vocabulary, dim) = read.inputs, read.block.shape
        tokens, counted = tokens_of(read)
        g, c = pulled.tensor_split([a.shape[1] * vocabulary], -1)
        c = c.reshape(*c.shape[:-1], -1, dim) * counted.unsqueeze(-1).to(pulled.dtype)
        product = ProductForm(a, g.reshape(*g.shape[:-1], a.shape[1], vocabulary))
        return TiedForm(product, TokenForm.of(tokens, c, vocabulary))
