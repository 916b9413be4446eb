"""Blocks: which parameters of a module make one (out, in) matrix, and how per-example gradients of it arise.

Kinds with a product form, Σ_t g_t a_tᵀ over positions t:

* ``linear``, ``conv``, ``bilinear``: (out, fan-in [+1 for the bias]);
* ``turned``: a linear layer that stores its weight as (in, out), ``transformers``' ``Conv1D``;
* ``transposed``: a transposed convolution's weight, (out·kernel, in); its bias is a block of kind ``bias``, (out, 1);
* ``recurrent``: one input or hidden projection of one layer and direction of an RNN, LSTM or GRU;
* ``attention``: the input projections, or the output projection, of ``nn.MultiheadAttention``.

``embedding`` (dim, vocabulary) is kept by tokens; ``tied`` (vocabulary, dim), an embedding that is an output layer
too, is the sum of both forms. Formed directly, (1, numel): ``norm`` (weight ++ bias), ``grouped``
convolutions, ``local``: parameters of any other module, whose own forward pass is differentiated example by example,
and ``loose``: what even that cannot read, by differentiating the whole model. Formed directly as (out, fan-in of a
group [+1 for the bias]): ``groups``, grouped convolutions too large for a dense second moment.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from memspace.passes.forms.formed import DENSE_LIMIT
from memspace.task.bounded import BoundedBag, BoundedEmbedding

__all__ = ["BROADCAST", "COMPOSITE", "FORMED", "Block", "Part", "parts_of", "tied_kind"]

BROADCAST = -1  # in place of a batch axis: one output shared by all examples
FORMED = ("norm", "grouped", "groups", "local", "loose")
COMPOSITE = ("recurrent", "attention")  # kinds whose signals lie inside the module
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_LOOKUPS = (nn.Embedding.forward, nn.EmbeddingBag.forward, BoundedEmbedding.forward, BoundedBag.forward)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, *_BATCH_NORMS, *_INSTANCE_NORMS)


@dataclass(frozen=True)
class Block:
    """A slice of the flat vector.

    Args:
        names: the parameters in it, weight first; part: which part of its module, "" for the whole.
        axis: the axis of the module's input that runs over examples, or ``BROADCAST``.
        also: further modules that use the same weight; their calls count as calls of this block.
        groups: into how many parts that share nothing its rows fall, one as long as the other.
    """

    name: str
    kind: str
    module: str
    names: tuple[str, ...]
    shape: tuple[int, int]
    start: int
    part: str = ""
    axis: int = 0
    also: tuple[str, ...] = ()
    groups: int = 1

    @property
    def diagonal(self) -> bool:
        """Whether Kronecker representations keep no more of it than its diagonal."""
        return self.kind in FORMED and self.kind != "groups" and self.size > DENSE_LIMIT

    @property
    def modules(self) -> tuple[str, ...]:
        """All modules whose calls give its gradient."""
        return (self.module, *self.also)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.shape[0] * self.shape[1]

    @property
    def stop(self) -> int:
        """End of the slice."""
        return self.start + self.size

    def view(self, flat: Tensor) -> Tensor:
        """(..., P) → (..., out, in), a view."""
        return flat[..., self.start : self.stop].reshape(*flat.shape[:-1], *self.shape)

    def to_matrix(self, parameter: Tensor, leading: int = 0) -> Tensor:
        """One of its parameters (or gradients of it, with so many leading axes) as (..., out, columns)."""
        lead = parameter.shape[:leading]
        if self.kind == "embedding" or (self.kind == "turned" and parameter.dim() == leading + 2):
            return parameter.transpose(-1, -2)
        if self.kind == "transposed":
            return parameter.movedim(leading, -1).reshape(*lead, *self.shape)
        return parameter.reshape(*lead, self.shape[0], -1)

    def from_matrix(self, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Inverse of :meth:`to_matrix`, with any leading axes."""
        lead = matrix.shape[:-2]
        if self.kind == "embedding" or (self.kind == "turned" and len(shape) == 2):
            return matrix.transpose(-1, -2).reshape((*lead, *shape))
        if self.kind == "transposed":
            return matrix.reshape(*lead, *shape[1:], shape[0]).movedim(-1, len(lead))
        return matrix.reshape((*lead, *shape))  # of a parameter without an axis too, whose shape is ()


@dataclass(frozen=True)
class Part:
    """A block to be: parameters of one module by their own names."""

    kind: str
    names: tuple[str, ...]
    suffix: str = ""
    groups: int = 1

    def shape(self, parameters: Sequence[Tensor]) -> tuple[int, int]:
        """(out, in) for those of its parameters that are trained."""
        total, first = sum(p.numel() for p in parameters), parameters[0]
        if self.kind in FORMED and self.kind != "groups":
            return 1, total
        if self.kind == "embedding":
            return first.shape[1], first.shape[0]
        if self.kind == "transposed":
            return first.numel() // first.shape[0], first.shape[0]
        if self.kind == "turned":
            return first.shape[-1], total // first.shape[-1]
        return first.shape[0], total // first.shape[0]


def parts_of(module: nn.Module, loose: bool, outside: Collection[str], shared: str = "") -> list[Part]:
    """The parts of what a module owns itself; its class must be one we know, with the forward we know.

    Args:
        outside: its own parameters that are frozen or not chosen.
        shared: the kind of its weight, where other modules own that too.
    """
    own = [n for n, p in module._parameters.items() if p is not None]
    if shared and not loose:  # its weight has a block of its own, the rest is what is left of the layer
        return [Part(shared, ("weight",)), *(Part(_kind(module), (n,), n) for n in own if n != "weight")]
    kind = "loose" if loose else _kind(module)
    if isinstance(module, nn.MultiheadAttention):  # it never calls its output projection, but uses its weights
        if kind == "loose":
            return [Part("loose", (n,), n) for n in (*own, "out_proj.weight", "out_proj.bias")]
        return [
            Part("attention", ("in_proj_weight", "in_proj_bias"), "in_proj"),
            Part("attention", ("out_proj.weight", "out_proj.bias"), "out_proj"),
        ]
    if not own:
        return []
    if kind == "recurrent" and isinstance(module, nn.RNNBase):
        parts = _recurrent(module)
        known = {n for part in parts for n in part.names}
        return parts if known.issuperset(own) else [Part("local", (n,), n) for n in own]
    # Adapters registered on the layer itself, or a weight that a hook computes from others.
    if kind != "loose" and not {"weight", "bias"}.issuperset(own):
        kind = "local"
    if kind == "transposed":
        return [Part("transposed", ("weight",)), Part("bias", ("bias",), "bias")]
    computed = "weight" not in own and getattr(module, "weight", None) is not None  # a reparametrised weight
    if kind in ("norm", "grouped") and (computed or any(n in outside for n in own)):
        kind = "local"
    if kind in ("local", "loose"):
        return [Part(kind, (n,), n) for n in own]
    names = tuple(sorted(own, key=lambda n: not n.endswith("weight")))
    if kind == "grouped" and sum(p.numel() for p in module._parameters.values() if p is not None) > DENSE_LIMIT:
        assert isinstance(module, _CONVS)
        return [Part("groups", names, groups=module.groups)]
    return [Part(kind, names)]


def _recurrent(module: nn.RNNBase) -> list[Part]:
    """Per layer and direction: the input projection, the hidden one, and an LSTM's projection of its state."""
    parts = []
    for layer in range(module.num_layers):
        for direction in ("", "_reverse")[: 2 if module.bidirectional else 1]:
            at = f"l{layer}{direction}"
            parts.append(Part("recurrent", (f"weight_ih_{at}", f"bias_ih_{at}"), f"ih_{at}"))
            parts.append(Part("recurrent", (f"weight_hh_{at}", f"bias_hh_{at}"), f"hh_{at}"))
            if module.proj_size:
                parts.append(Part("recurrent", (f"weight_hr_{at}",), f"hr_{at}"))
    return parts


def _stores_inputs_first(module: nn.Module) -> bool:
    """``transformers``' Conv1D, known by its name and its parameters; that it is one is checked on examples."""
    weight, bias = (module._parameters.get(n) for n in ("weight", "bias"))
    named = type(module).__name__ == "Conv1D" and not isinstance(module, _CONVS)
    return named and weight is not None and weight.dim() == 2 and (bias is None or bias.shape == weight.shape[1:])


def tied_kind(users: Sequence[tuple[nn.Module, str]]) -> str:
    """The kind of a weight that several modules own under the given names, ``""`` where it has no form of its own."""
    kinds = {_kind(m) if n == "weight" else "" for m, n in users}
    if kinds in ({"linear"}, {"embedding"}, {"turned"}):
        return kinds.pop()
    return "tied" if kinds == {"linear", "embedding"} else ""


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        return "linear"
    if _stores_inputs_first(module):
        return "turned"
    if isinstance(module, _CONVS) and type(module).forward in {c.forward for c in _CONVS}:
        return "conv" if module.groups == 1 else "grouped"
    if isinstance(module, _TRANSPOSED) and type(module).forward in {c.forward for c in _TRANSPOSED}:
        return "transposed" if module.groups == 1 else "local"
    if isinstance(module, nn.Bilinear) and type(module).forward is nn.Bilinear.forward:
        return "bilinear"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) and type(module).forward in _LOOKUPS:
        writes = module.max_norm is not None and not isinstance(module, BoundedEmbedding | BoundedBag)
        return "local" if module.scale_grad_by_freq or writes else "embedding"
    if type(module) in (nn.RNN, nn.LSTM, nn.GRU):
        return "recurrent"
    if type(module) is nn.MultiheadAttention:
        plain = module._qkv_same_embed_dim and module.bias_k is None and not module.add_zero_attn
        return "attention" if plain else "loose"
    if type(module) in _NORMS:
        tracks = isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None
        if isinstance(module, _BATCH_NORMS) and not tracks:
            return "local"
        # Instance norm with running statistics uses those in eval mode, like batch norm.
        return "norm"
    return "local"
