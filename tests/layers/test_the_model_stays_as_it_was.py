"""Forward passes that write to the model: read as if they did not, and everything put back."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import memspace
from memspace import Categorical, Task
from memspace.errors import UnsupportedLayerError
from memspace.metric.fisher import build
from memspace.passes.verify import verified_space
from memspace.task import restored as module_of_restored
from memspace.task.checks import check_task, evaluating, untouched
from tests.layers.truth import assert_exact


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("lowest", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.lowest.copy_(torch.minimum(self.lowest, x.detach().min()))
        return self.layer(x)


class Rebound(nn.Module):
    """Buffers replaced instead of written to, one that is None at first, and plain attributes."""

    def __init__(self):
        super().__init__()
        self.layer, self.gain = nn.Linear(4, 3), nn.Parameter(torch.ones(3))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("cache", None)
        self.last, self.seen, self.sizes = None, 0, []

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        self.cache, self.last = x.detach(), x * 1
        self.seen += 1
        self.sizes.append(len(x))
        return self.layer(x) * self.gain


class Drifting(nn.Module):
    """Outputs depend on a running mean that each pass moves: the network meant is the one handed over."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("mean", torch.full((4,), 0.3))

    def forward(self, x):
        out = self.layer(x - self.mean)
        self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return out


class Aliased(Drifting):
    """The same buffer under another name that torch does not know."""

    def __init__(self):
        super().__init__()
        self.__dict__["alias"] = self.mean

    def forward(self, x):
        self.alias.add_(0.1)
        return self.layer(x)


class OldSpectral(nn.Module):
    """Power iteration in every pass, whatever the mode."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("u", F.normalize(torch.ones(3), dim=0))

    def forward(self, x):
        w = self.layer.weight
        with torch.no_grad():
            v = F.normalize(w.t() @ self.u, dim=0)
            self.u.copy_(F.normalize(w @ v, dim=0))
            u = self.u.clone()
        return F.linear(x, w / (u @ w @ v), self.layer.bias)


def _data(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(12, 4, generator=generator), torch.arange(12) % 3


def _plain_attributes(model):
    return {k: copy.copy(v) for k, v in vars(model).items() if k[0] != "_" and not isinstance(v, torch.Tensor)}


@pytest.mark.parametrize("make", [Counter, Rebound, Drifting, Aliased, OldSpectral])
def test_a_pass_that_writes_to_the_model_is_read_exactly_and_leaves_no_trace(make):
    torch.manual_seed(0)
    model, (x, y) = make().eval(), _data()
    before, tensors = copy.deepcopy(model.state_dict()), dict(model.named_buffers())
    attributes = _plain_attributes(model)
    assert_exact(model, x, y)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert all(dict(model.named_buffers())[k] is t for k, t in tensors.items())
    assert _plain_attributes(model) == attributes


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("inside", [evaluating, untouched])
def test_buffers_and_attributes_are_put_back_after_an_exception(error, inside):
    class Failing(Rebound):
        def forward(self, x):
            super().forward(x)
            raise error

    model = Failing().train()
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(error), inside(model):
        model(torch.ones(2, 4))
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert model.cache is None
    assert (model.last, model.seen, model.sizes, model.training) == (None, 0, [], True)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_every_pass_starts_from_the_buffers_as_they_were_found_also_nested():
    torch.manual_seed(0)
    model, (x, _) = Drifting(), _data()
    with evaluating(model), torch.no_grad():
        first = model(x)
        with evaluating(model):
            assert torch.equal(model(x), first)
        assert torch.equal(model(x), first)


def test_a_large_buffer_that_is_written_to_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(module_of_restored, "LARGE", 1)
    model, (x, _) = Drifting(), _data()
    with pytest.raises(UnsupportedLayerError, match="mean"), evaluating(model), torch.no_grad():
        model(x)


class Words(nn.Module):
    def __init__(self, table):
        super().__init__()
        self.table, self.head = table, nn.Linear(4, 3)

    def forward(self, x):
        h = self.table(x)
        return self.head(h.mean(1) if h.dim() == 3 else h)


TABLES = {
    "sparse": lambda: nn.Embedding(9, 4, sparse=True),
    "bounded": lambda: nn.Embedding(9, 4, max_norm=0.8),
    "bounded, with padding": lambda: nn.Embedding(9, 4, max_norm=0.8, norm_type=1.0, padding_idx=2),
    "bag": lambda: nn.EmbeddingBag(9, 4),
    "bag of sums": lambda: nn.EmbeddingBag(9, 4, mode="sum"),
    "bag with padding": lambda: nn.EmbeddingBag(9, 4, padding_idx=2),
    "heaviest of a bag": lambda: nn.EmbeddingBag(9, 4, mode="max"),
    "sparse bag": lambda: nn.EmbeddingBag(9, 4, sparse=True),
    "bounded bag": lambda: nn.EmbeddingBag(9, 4, max_norm=0.8),
}


@pytest.mark.parametrize("name", TABLES)
def test_embeddings_of_every_kind_are_exact_and_keep_their_weights(name):
    torch.manual_seed(0)
    model = Words(TABLES[name]()).eval()
    x, y = torch.randint(0, 9, (14, 4)), torch.arange(14) % 3
    weight, version = model.table.weight.detach().clone(), model.table.weight._version
    assert_exact(model, x, y)
    assert torch.equal(model.table.weight, weight)
    assert model.table.weight._version == version
    assert model.table.sparse == ("sparse" in name)


def test_a_whole_audit_leaves_a_bounded_sparse_embedding_alone():
    torch.manual_seed(1)
    model = Words(nn.Embedding(9, 4, sparse=True, max_norm=0.8)).eval()
    x, y = torch.randint(0, 9, (30, 4)), torch.arange(30) % 3
    weight = model.table.weight.detach().clone()
    memspace.audit(model, (x, y))
    assert torch.equal(model.table.weight, weight)
    assert model.table.sparse


class Int8(nn.Module):
    """A frozen linear layer stored as integers with a scale, its weight first."""

    def __init__(self, rows, columns):
        super().__init__()
        w = torch.randn(columns, rows) / rows**0.5
        scale = w.abs().amax() / 127
        self.weight = nn.Parameter((w / scale).round().to(torch.int8), requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype))


def test_inputs_are_never_cast_to_the_dtype_of_a_quantised_first_parameter():
    torch.manual_seed(0)
    model, (x, y) = nn.Sequential(Int8(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval(), _data()
    assert Task(model=model, train=(x, y)).dtype == torch.float32
    space = assert_exact(model, x, y)
    assert space.names == ("2.weight", "2.bias")


class Listed(nn.Module):
    """Bags of different length as one list and offsets, as in torch's tutorial on text classification."""

    def __init__(self, **options):
        super().__init__()
        self.table, self.head = nn.EmbeddingBag(9, 4, **options), nn.Linear(4, 3)

    def forward(self, text, offsets):
        return self.head(self.table(text, offsets))


@pytest.mark.parametrize("options", [{}, {"mode": "sum"}, {"mode": "max"}, {"padding_idx": 2}, {"max_norm": 0.7}])
def test_bags_given_as_a_list_and_offsets_are_those_given_one_by_one(options):
    torch.manual_seed(4)
    documents = [torch.randint(0, 9, (int(k),)) for k in torch.randint(1, 7, (13,))]
    labels = torch.arange(13) % 3

    def joined(items):
        text = [a for a, _ in items]
        offsets = torch.tensor([0, *(len(a) for a in text[:-1])]).cumsum(0)
        return (torch.cat(text), offsets), torch.stack([b for _, b in items])

    model = Listed(**options).eval()
    loader = DataLoader(list(zip(documents, labels, strict=True)), 4, collate_fn=joined)
    task = Task(model=model, train=loader)
    check_task(task)
    space = verified_space(task)
    assert {b.kind for b in space.blocks} == {"embedding", "linear"}
    twin = copy.deepcopy(model).double()
    want = torch.zeros(space.size, space.size, dtype=torch.float64)
    for document in documents:
        f = twin(document, torch.tensor([0]))
        root = Categorical().fisher_root(f.detach())[0]
        own = space.parameters(twin)
        for k in range(3):
            grads = torch.autograd.grad((f[0] * root[:, k]).sum(), list(own.values()), retain_graph=True)
            row = space.pack(dict(zip(own, grads, strict=True)))
            want += torch.outer(row, row) / len(documents)
    v = torch.randn(2, space.size, dtype=torch.float64)
    for representation in ("dense", "dual", "implicit"):
        got = build(task, space, representation).matvec(v)
        assert float((got - v @ want).norm()) < 1e-4 * float((v @ want).norm()), representation
    assert build(task, space, "ekfac").trace().value == pytest.approx(float(want.trace()), rel=1e-4)
    space.verified = False
    got = build(task, space, "implicit").matvec(v)
    assert float((got - v @ want).norm()) < 1e-4 * float((v @ want).norm())


@pytest.mark.parametrize("table", [nn.Embedding, nn.EmbeddingBag])
def test_gradients_scaled_by_frequency_are_refused_by_name(table):
    model = Words(table(9, 4, scale_grad_by_freq=True)).eval()
    with pytest.raises(UnsupportedLayerError, match="scale_grad_by_freq"):
        Task(model=model, train=(torch.randint(0, 9, (14, 4)), torch.arange(14) % 3))
