"""Other people's loops and trackers: the same recorder, told by their own calls."""

from __future__ import annotations

import warnings

import pytest
import torch
from rich.console import Console
from torch import nn

import memspace
from memspace.report.live import LiveLine
from tests.watch.training import data, watched

SETTINGS = memspace.WatchSettings(every=1, slow=False, probe=24, spacing=0.01)


def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch", reason="needs lightning: pip install 'memspace[lightning]'")
    from memspace.integrations.lightning import LightningWatch

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.1), nn.Tanh(), nn.Linear(8, 3))

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    def fit(callbacks, steps):
        torch.manual_seed(0)
        module = Module()
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data(0)), batch_size=20)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = lightning.Trainer(
                max_steps=steps,
                accumulate_grad_batches=2,
                callbacks=callbacks,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=tmp_path,
            )
            trainer.fit(module, loader)
        return module

    watch = LightningWatch(out=tmp_path / "run", settings=SETTINGS)
    followed, plain = fit([watch], 7), fit([], 7)
    assert all(torch.equal(a, b) for a, b in zip(followed.parameters(), plain.parameters(), strict=True))
    assert watch.run.fault is None
    run = memspace.load_run(tmp_path / "run", followed)
    assert (run.step[0], run.step[-1]) == (0, 7)  # optimiser steps, not batches
    assert run.time[-1] == pytest.approx(0.7)
    part = LightningWatch(model=lambda m: m.net, out=tmp_path / "part", settings=SETTINGS)
    fit([part], 3)
    assert "0.weight" in memspace.load_run(tmp_path / "part").states[0]


def test_transformers(tmp_path):
    transformers = pytest.importorskip(
        "transformers", reason="needs transformers: pip install 'memspace[transformers]'"
    )
    pytest.importorskip("accelerate", reason="needs accelerate: pip install 'memspace[transformers]'")
    from memspace.integrations.transformers import TransformersWatch

    def fit(callbacks, model, items):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arguments = transformers.TrainingArguments(
                output_dir=str(tmp_path / "out"),
                max_steps=4,
                per_device_train_batch_size=4,
                gradient_accumulation_steps=2,
                learning_rate=1e-2,
                lr_scheduler_type="constant",
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
                seed=0,
            )
            trainer = transformers.Trainer(model=model, args=arguments, train_dataset=items, callbacks=callbacks)
            trainer.train()

    tokens = torch.randint(0, 30, (40, 8), generator=torch.Generator().manual_seed(0))
    common = {"vocab_size": 30, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape = {"hidden_size": 16, "intermediate_size": 16}
    sentences = [{"input_ids": t, "labels": t[0] % 2} for t in tokens]
    states = []
    for watching in (True, False):
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(transformers.BertConfig(**common, **shape, num_labels=2))
        watch = TransformersWatch(out=tmp_path / "bert", examples=24, settings=SETTINGS)
        fit([watch] if watching else [], model, sentences)
        states.append(model.state_dict())
        if watching:
            assert watch.run.fault is None
            assert watch.run.numbers.step == 4
            assert watch.run.numbers.time == pytest.approx(4e-2)
            run = memspace.load_run(tmp_path / "bert", model)
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert all(torch.equal(run.states[-1][k], v) for k, v in states[0].items())

    torch.manual_seed(0)
    gpt = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=30, n_positions=8, n_embd=16, n_layer=1, n_head=2)
    )
    with torch.no_grad():
        first = nn.functional.cross_entropy(gpt.eval()(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    told = []
    settings = memspace.WatchSettings(every=1, slow=False, probe=40)
    watch = TransformersWatch(out=None, to=told.append, examples=40, settings=settings)
    fit([watch], gpt, [{"input_ids": t, "labels": t} for t in tokens])
    gpt.eval()
    with torch.no_grad():
        now = nn.functional.cross_entropy(gpt(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    # Summed over the seven positions that predict a token.
    assert watch.run.numbers.loss == pytest.approx(7 * float(now), rel=1e-4)
    assert watch.run.numbers.loss < 7 * float(first)
    assert watch.run.numbers.length > 0


def test_trackers_get_what_was_measured_and_nothing_else(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'memspace[trackers]'")
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow-skinny: pip install 'memspace[trackers]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    told = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
        with SummaryWriter(str(tmp_path / "board")) as writer, mlflow.start_run() as started:
            watched(None, 6, to=[writer, mlflow, told.append])
        history = mlflow.MlflowClient().get_metric_history(started.info.run_id, "memspace/length")
        names = set(mlflow.get_run(started.info.run_id).data.metrics)
    board = EventAccumulator(str(tmp_path / "board")).Reload()
    length = board.Scalars("memspace/length")
    last = told[-1]
    assert last.step == 6
    assert length[-1].step == history[-1].step == 6
    assert length[-1].value == pytest.approx(last.length, rel=1e-6)
    assert history[-1].value == pytest.approx(last.length, rel=1e-6)
    assert set(board.Tags()["scalars"]) == names == {f"memspace/{k}" for k in last.known()}
    assert "memspace/excess" not in names


def test_a_sink_that_fails_is_dropped_and_the_training_goes_on(tmp_path):
    def broken(numbers):
        raise OSError("the server is away")

    with pytest.warns(RuntimeWarning, match="server is away") as said:
        _, run = watched(tmp_path, 6, to=[broken])
    assert len(said) == 1
    assert run.fault is None
    assert run.steps == memspace.load_run(tmp_path).step[-1] == 6


@pytest.mark.parametrize("terminal", [True, False])
def test_the_terminal_shows_one_line(terminal):
    console = Console(record=True, force_terminal=terminal, width=200)
    line = LiveLine(console)
    watched(None, 6, to=[line])
    text = console.export_text()
    assert "step 6" in text
    assert "length" in text
    assert "excess" not in text
