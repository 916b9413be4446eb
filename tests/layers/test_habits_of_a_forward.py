"""Parts of a forward pass without gradients, in lower precision, recomputed or compiled: read right, or named."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

import memspace
from memspace import Task
from memspace.errors import ShapeError, TaskError, UnsupportedLayerError
from memspace.metric.fisher import build
from memspace.passes.verify import verified_space
from memspace.task.checks import check_task, evaluating
from memspace.task.plain import plain
from tests.layers.truth import assert_exact


def _data(n=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), torch.arange(n) % 3


class Backbone(nn.Module):
    """A trainable backbone that the forward pass runs without gradients; its features are used twice."""

    def __init__(self, off=torch.no_grad):
        super().__init__()
        self.off, self.body, self.head = off, nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)), nn.Linear(3, 3)

    def forward(self, x):
        with self.off():
            h = self.body(x)
        h = h.clone()
        return self.head(torch.tanh(h)) + h


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_a_backbone_without_gradients_is_a_constant_and_named(off):
    torch.manual_seed(0)
    model, (x, y) = Backbone(off).eval(), _data()
    space = assert_exact(model, x, y)
    dense = build(Task(model=model, train=(x, y)), space, "dense").to_dense()
    for block in space.blocks:
        zero = bool((dense[block.start : block.stop] == 0).all())
        assert zero == block.module.startswith("body")
    assert (
        Task(model=model, train=(x, y)).description["held fixed"] == "layers run under torch.no_grad (body.0, body.1)"
    )


def test_an_audit_of_a_backbone_without_gradients_names_it():
    torch.manual_seed(0)
    results = memspace.audit(Backbone().eval(), _data(30))
    assert "body.0" in results.facts["held fixed"]


class Frozen(nn.Sequential):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


def test_a_forward_wholly_without_gradients_is_one_sentence():
    with pytest.raises(TaskError, match="no_grad"):
        check_task(Task(model=Frozen(nn.Linear(4, 3)).eval(), train=_data()))


class Cast(nn.Module):
    """Autocast inside the forward pass, as mixed-precision training code leaves it there."""

    def __init__(self, cast=True):
        super().__init__()
        self.cast, self.first, self.last = cast, nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.cast):
            return self.last(torch.tanh(self.first(x))).float()


def test_autocast_inside_a_forward_is_read_in_the_precision_of_the_weights():
    torch.manual_seed(0)
    model, (x, y) = Cast().eval(), _data()
    twin = copy.deepcopy(model)
    twin.cast = False
    space, other = (verified_space(Task(model=m, train=(x, y))) for m in (model, twin))
    got, want = (build(Task(model=m, train=(x, y)), s, "dense").to_dense() for m, s in ((model, space), (twin, other)))
    assert torch.equal(got, want)
    with torch.no_grad():  # and outside it rounds as before
        assert not torch.equal(model(x), twin(x))
        with evaluating(model):
            assert torch.equal(model(x), twin(x))
    with torch.autocast("cpu", torch.bfloat16):  # also where the caller casts
        assert torch.equal(build(Task(model=twin, train=(x, y)), other, "dense").to_dense(), want)


class Recomputed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant, self.first = reentrant, nn.Linear(4, 5)
        self.middle, self.last = nn.Sequential(nn.Linear(5, 5), nn.Tanh()), nn.Linear(5, 3)

    def forward(self, x):
        h = self.first(x)
        h = self.middle(h) if self.reentrant is None else checkpoint(self.middle, h, use_reentrant=self.reentrant)
        return self.last(h)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_parts_are_read_as_if_they_were_kept(reentrant):
    torch.manual_seed(0)
    model, (x, y) = Recomputed(reentrant).eval(), _data()
    twin = copy.deepcopy(model)
    twin.reentrant = None
    space = assert_exact(twin, x, y)
    v = torch.randn(2, space.size, dtype=torch.float64)
    task = Task(model=model, train=(x, y))
    space = verified_space(task)
    want = build(Task(model=twin, train=(x, y)), space, "dense").matvec(v)
    for verified in (True, False):
        space.verified = verified
        for representation in ("dense", "implicit"):
            assert torch.allclose(build(task, space, representation).matvec(v), want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("compiled", ["script", "trace"])
def test_modules_compiled_by_torchscript_are_refused_by_name(compiled):
    part = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
    part = torch.jit.script(part) if compiled == "script" else torch.jit.trace(part, torch.ones(1, 4))
    with pytest.raises(UnsupportedLayerError, match="TorchScript"):
        Task(model=nn.Sequential(part, nn.Linear(5, 3)), train=_data())


def test_a_lazy_module_without_a_shape_is_one_sentence_and_stays_lazy():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(TaskError, match="no shape yet"):
        Task(model=model, train=_data())
    assert isinstance(model[0], nn.LazyLinear)


class Spectral(nn.Module):
    """A convolution in frequency with complex weights, between real layers."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.spectrum = nn.Parameter(torch.randn(4, dtype=torch.cfloat))

    def forward(self, x):
        return self.last(torch.relu(torch.fft.irfft(torch.fft.rfft(self.first(x)) * self.spectrum, n=6)))


def test_complex_parameters_are_held_and_named():
    torch.manual_seed(0)
    model, (x, y) = Spectral().eval(), _data(30)
    twin = copy.deepcopy(model)
    twin.spectrum.requires_grad_(False)
    space, other = verified_space(Task(model=model, train=(x, y))), verified_space(Task(model=twin, train=(x, y)))
    assert space.names == other.names
    got, want = (build(Task(model=m, train=(x, y)), space, "dense").to_dense() for m in (model, twin))
    assert torch.equal(got, want)
    results = memspace.audit(model, (x, y))
    assert results.facts["held fixed"] == "complex parameters (spectrum)"


class Sliced(nn.Module):
    """Weights used through slices, a hypernetwork, lists and dicts of parameters, and a product by einsum."""

    def __init__(self):
        super().__init__()
        self.both, self.made = nn.Parameter(torch.randn(8, 4)), nn.Linear(4, 8)
        self.list, self.dict = nn.ParameterList([torch.randn(4)]), nn.ParameterDict({"gain": torch.ones(4)})
        self.heads, self.last = nn.Parameter(torch.randn(4, 2, 3)), nn.Linear(6, 3)

    def forward(self, x):
        h = F.linear(x, self.both[:4]) + F.linear(x, self.both[4:]).tanh() * self.list[0] * self.dict["gain"]
        w = self.made(x).view(-1, 2, 4)
        h = h + torch.einsum("boi,bi->bo", w, x).repeat(1, 2)
        return self.last(torch.einsum("bi,ihd->bhd", h.tanh(), self.heads).flatten(1))


class Sequence(nn.Module):
    """A recurrent layer with a learned initial state, packed, behind a parameter of the model's own."""

    def __init__(self, kind):
        super().__init__()
        self.scale, self.rnn = nn.Parameter(torch.ones(1)), kind(1, 3, batch_first=True)
        self.state, self.head = nn.Parameter(torch.randn(1, 1, 3)), nn.Linear(3, 3)

    def forward(self, x):
        h = self.state.expand(-1, len(x), -1).contiguous()
        lengths = 1 + (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
        packed = pack_padded_sequence(self.scale * x.unsqueeze(-1), lengths, batch_first=True, enforce_sorted=False)
        out = self.rnn(packed, (h, h) if isinstance(self.rnn, nn.LSTM) else h)[0]
        return self.head(pad_packed_sequence(out, batch_first=True, total_length=4)[0].sum(1))


class Attended(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.attention, self.head = (
            nn.Linear(1, 4),
            nn.MultiheadAttention(4, 2, batch_first=True),
            nn.Linear(4, 3),
        )

    def forward(self, x):
        h = self.up(x.unsqueeze(-1))
        out, weights = self.attention(h, h, h, need_weights=True)
        mixed = F.scaled_dot_product_attention(h, out, h)
        return self.head((weights @ mixed).mean(1))


class _Older(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (1 - x.tanh() ** 2)


class Older(nn.Module):
    """An autograd function as written before functional transforms, behind a parameter of the model's own."""

    def __init__(self):
        super().__init__()
        self.first, self.gain, self.last = nn.Linear(4, 6), nn.Parameter(torch.ones(6)), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(_Older.apply(self.first(x) * self.gain))


class Depth(nn.Module):
    """Layers dropped in training, dropout in eval mode, a nested compiled block."""

    def __init__(self):
        super().__init__()
        self.blocks, self.drop, self.head = (
            nn.ModuleList(nn.Linear(4, 4) for _ in range(2)),
            nn.Dropout(0.5),
            nn.Linear(4, 3),
        )
        self.blocks[1] = torch.compile(self.blocks[1], backend="eager")

    def forward(self, x):
        for block in self.blocks:
            if self.training and torch.rand(()) < 0.2:
                continue
            x = x + self.drop(torch.tanh(block(x)))
        return self.head(x)


HABITS = {
    "slices, lists, einsum": Sliced,
    "lstm, packed": lambda: Sequence(nn.LSTM),
    "gru, packed": lambda: Sequence(nn.GRU),
    "rnn, packed": lambda: Sequence(nn.RNN),
    "attention weights": Attended,
    "older autograd function": Older,
    "stochastic depth": Depth,
}


@pytest.mark.parametrize("name", HABITS)
def test_habits_of_models_are_exact(name):
    torch.manual_seed(0)
    assert_exact(plain(HABITS[name]().eval()), *_data())


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_every_influence_engine_reads_a_plain_recurrent_layer_on_a_cpu(kind):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = kind(2, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    torch.manual_seed(0)
    model, x, y = Plain().eval(), torch.randn(20, 5, 2), torch.arange(20) % 3
    task = Task(model=model, train=(x, y))
    space = assert_exact(model, x, y)
    metric = build(task, space, "ekfac")
    dense = build(task, space, "dense")
    assert metric.trace().value == pytest.approx(dense.trace().value, rel=1e-5)
    exact, solved = (memspace.influence(task, [0, 1], engine=e, damping=0.1).scores for e in ("dual", "iterative"))
    assert float((exact - solved).norm()) < 0.05 * float(exact.norm())  # solves stop at a per cent
    memspace.influence(task, [0, 1], engine="ekfac", damping=0.1)
    assert torch._C._get_mkldnn_enabled()


class Masked(nn.Module):
    """An encoder with a padding mask in torch's defaults."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True)
        self.table, self.encoder, self.head = nn.Embedding(9, 4), nn.TransformerEncoder(layer, 1), nn.Linear(4, 3)

    def forward(self, x):
        pad = x == 0
        h = self.encoder(self.table(x), src_key_padding_mask=pad)
        return self.head((h * ~pad.unsqueeze(-1)).sum(1) / (~pad).sum(1, keepdim=True))


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
def test_an_encoder_with_a_padding_mask_in_torchs_defaults_is_exact():
    torch.manual_seed(0)
    x = torch.randint(1, 9, (12, 5))
    x[torch.arange(5) >= torch.randint(2, 6, (12, 1))] = 0
    assert_exact(Masked().eval(), x, torch.arange(12) % 3)
    assert torch.backends.mha.get_fastpath_enabled()


class OneNumber(nn.Module):
    """Owns a parameter without any axis, used in its own forward pass beside layers."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 3)
        self.scale, self.gate = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.tensor(-0.2))

    def forward(self, x):
        g = self.gate.sigmoid()
        return self.scale.exp() * self.head(g * torch.tanh(self.body(x)))


@pytest.mark.parametrize("seed", [0, 5])
def test_a_parameter_that_is_one_number_is_read(seed):
    torch.manual_seed(seed)
    x, y = _data(seed=seed)
    assert_exact(OneNumber().eval(), x, y)


class Several(nn.Module):
    """Gives two heads' outputs, of which neither is known to be the one that is meant."""

    def __init__(self, kind):
        super().__init__()
        self.one, self.two, self.kind = nn.Linear(4, 3), nn.Linear(4, 2), kind

    def forward(self, x):
        both = {"one": self.one(x), "two": self.two(x)}
        return both if self.kind is dict else tuple(both.values())


@pytest.mark.parametrize("kind", [dict, tuple])
def test_a_model_of_several_outputs_is_named_wherever_it_is_read(kind):
    task = Task(model=Several(kind).eval(), train=_data())
    for read in (verified_space, lambda t: memspace.influence(t, [0]), lambda t: memspace.audit(t)):
        with pytest.raises(ShapeError, match=f"returns a {kind.__name__} .*examples, outputs"):
            read(task)
