"""Training is the specification's alone, and the store gives back what was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import memspace
from memspace.cli import app
from memspace.encoders.declaration import load_encoders, shipped_sets
from memspace.encoders.model import Posterior, coded
from memspace.encoders.scoring import score_readings
from memspace.encoders.store import MEASURED, TRAINED, EncoderStore
from memspace.encoders.training import train_encoder
from memspace.errors import DataError, RunFolderError, SettingsError
from memspace.task.worlds.sampling import halves
from tests.encoders.made import POOLED, SIZE, small_images, spec

QUICK = memspace.EncoderMeasuring(
    scores=("mig", "snc"), without_null=(), turns=3, folds=2, places=10, loops=2, neighbours=20, probed=10, cut=50
)
TOML = """
seeds = [0]
every = {{ width = 8, latents = 6, steps = 150, size = 60 }}
worlds = {{ shapes = {{ pooled = 8 }} }}
methods = {methods}
"""


def _declared(tmp_path: Path, methods: str = "{ vae = 1.0, classifier = [1.0] }") -> Path:
    path = tmp_path / "set.toml"
    path.write_text(TOML.format(methods=methods))
    return path


def test_the_same_specification_gives_the_same_encoder() -> None:
    images = small_images()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = train_encoder(spec("factor_vae", strength=3.0), images)
    assert torch.equal(torch.get_rng_state(), state)  # no draw is the user's
    torch.rand(7)
    again = train_encoder(spec("factor_vae", strength=3.0), images)
    other = train_encoder(spec("factor_vae", strength=3.0, seed=1), images)
    codes = [t.model(images.test).detach() for t in (first, again, other)]
    assert torch.equal(codes[0], codes[1])
    assert not torch.allclose(codes[0], codes[2])
    assert first.curve == again.curve


@pytest.mark.parametrize("method", ["vae", "supervised", "classifier"])
def test_training_lowers_the_loss(method: str) -> None:
    trained = train_encoder(spec(method, steps=400), small_images())
    assert trained.curve[-1][1] < 0.97 * trained.curve[0][1]
    assert trained.finite


def test_a_training_that_diverges_stops_and_says_so() -> None:
    trained = train_encoder(spec("beta_vae", rate=1e30, steps=400), small_images())
    assert not trained.finite
    assert trained.curve[-1][0] < 400


def test_images_are_kept_and_no_test_image_is_trained_on() -> None:
    images = small_images()
    train, test = halves(images.world, SIZE, len(images.test), seed=20)
    assert torch.equal(train, images.train_levels)
    assert torch.equal(test, images.test_levels)
    rows = {tuple(v) for v in train.tolist()} | {tuple(v) for v in test.tolist()}
    assert len(rows) == len(train) + len(test)
    drawn = images.world.render(test[:50])
    assert float((drawn - images.test[:50]).abs().max()) <= 0.5 / 255 + 1e-6


def test_a_set_is_worked_on_once_and_read_as_a_table(tmp_path: Path) -> None:
    declared, out = _declared(tmp_path), tmp_path / "store"
    work = memspace.EncoderWork(workers=1)
    results = memspace.train_encoders(declared, out=out, work=work, measuring=QUICK)
    assert str(results).startswith("encoders")
    assert results.frame("methods")["measured"].tolist() == [1, 1]
    store = EncoderStore(out)
    digest, written = store.digest(), (out / MEASURED).stat().st_mtime_ns
    memspace.train_encoders(declared, out=out, work=work, measuring=QUICK)
    assert (out / MEASURED).stat().st_mtime_ns == written
    assert store.digest() == digest

    table = memspace.encoder_table(out)
    assert table.height == 2
    assert set(table["method"]) == {"vae", "classifier"}
    assert table["supervised"].to_list() == [m == "classifier" for m in table["method"]]
    for name in ("mig", "snc", "encoder.orthogonality", "holonomy", "told", "cut", "input.lambda_max"):
        assert {name, f"{name}.low", f"{name}.high"} <= set(table.columns), name
    assert table["mig.chance"].min() >= 0.25
    packed = store.pack(tmp_path / "packed")
    assert packed.digest() == digest
    assert memspace.encoder_table(tmp_path / "packed").equals(table)


def test_what_is_read_back_is_what_was_trained(tmp_path: Path) -> None:
    images, made = small_images(), spec("classifier")
    trained = train_encoder(made, images)
    store = EncoderStore(tmp_path)
    codes = coded(trained.model, images.test)
    store.add_trained(trained, codes, "one", {})
    model, method = store.encoder(made, images)
    assert torch.equal(model(images.test), trained.model(images.test))
    assert all(torch.equal(a, b) for a, b in zip(method.parameters(), trained.method.parameters(), strict=True))
    assert torch.equal(store.codes(made.key).mean, codes.mean)
    (tmp_path / "weights" / f"{made.key}.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunFolderError, match="weights cannot be read"):
        store.encoder(made, images)
    assert store.rows(TRAINED)["pooled"].to_list() == [POOLED]


def test_the_small_set_is_part_of_the_open_one() -> None:
    assert set(shipped_sets()) == {"open", "small", "full"}
    small, whole = (load_encoders(n) for n in ("small", "open"))
    assert {s.key for s in small.specs} <= {s.key for s in whole.specs}
    assert len(whole.specs) >= 120


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("{ vea = 1.0 }", "there is no method 'vea'"),
        ("{}", "declares no encoder"),
        ("3", "methods is no table"),
        ("{ vae = -1.0 }", "strength"),
        ("{ vae = 1.0 }\nworld = 3", "the word 'world' is not known"),
    ],
)
def test_a_wrong_declaration_is_one_sentence(tmp_path: Path, methods: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_encoders(_declared(tmp_path, methods))


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no set of encoders 'opne'"):
        load_encoders("opne")
    with pytest.raises(DataError, match="no table 'encoders'"):
        memspace.encoder_table(tmp_path)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("name = ")
    with pytest.raises(DataError, match="not TOML"):
        load_encoders(wrong)


def test_convolutions_need_their_size(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="4 × 4 do not fit"):
        train_encoder(spec(network="conv"), small_images())


def test_convolutions_encode_and_decode_images_of_64_pixels() -> None:
    from memspace.encoders.model import Autoencoder
    from memspace.encoders.specification import EncoderSpec

    model = Autoencoder(EncoderSpec("dsprites", "vae", network="conv"), (1, 64, 64))
    images = torch.rand(2, 1, 64, 64)
    assert model(images).shape == (2, 10)
    assert model.decoder is not None
    assert model.decoder(model(images)).shape == images.shape


def test_the_command_line_runs_a_set(tmp_path: Path) -> None:
    out, declared = tmp_path / "store", str(_declared(tmp_path, "{ vae = 1.0 }"))
    runner = CliRunner()
    called = runner.invoke(app, ["encoders", "run", declared, "--out", str(out), "--stages", "train", "--workers", "1"])
    assert called.exit_code == 0, called.output
    shown = runner.invoke(app, ["encoders", "status", declared, "--out", str(out), "--json"])
    assert json.loads(shown.stdout)["methods"][0]["trained"] == 1


def test_units_that_say_nothing_change_no_score() -> None:
    images = small_images()
    v = images.test_levels.numpy()
    told = images.scaled(images.test_levels)[:, :3] + 0.3 * torch.randn(len(v), 3)
    quiet = torch.cat([told, 1e-3 * torch.randn(len(v), 4)], 1)
    few, many = (
        {r.name: r.row() for r in score_readings(Posterior(c, torch.zeros_like(c)), v, QUICK)} for c in (told, quiet)
    )
    assert few == many
    alone = score_readings(Posterior(told[:, :1], torch.zeros(len(v), 1)), v, QUICK)
    assert {r.row()["note"] for r in alone if r.name != "active"} == {"fewer than two units vary"}


def test_a_device_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(SettingsError, match="the device cannot be used"):
        memspace.EncoderWork(device="cuda:77")
    with pytest.raises(SettingsError, match="the device cannot be used"):
        memspace.EncoderWork(device="gpu")


def test_agreement_fits_a_terminal_of_80_columns() -> None:
    shown = CliRunner().invoke(app, ["encoders", "agreement", "--world", "scenes"])
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in shown.stdout
