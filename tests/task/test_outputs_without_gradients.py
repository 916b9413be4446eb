"""Where torch's fused kernels give the user other outputs than those that are read, the results say so."""

import pytest
import torch
from torch import Tensor, nn

import memspace

FACT = "outputs without gradients"


class Encoder(nn.Module):
    """Token means, or tokens, over a transformer with a padding mask."""

    def __init__(self, pool: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8, padding_idx=0)
        self.encode = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 1)
        self.out, self.pool = nn.Linear(8, 3), pool

    def forward(self, ids: Tensor) -> Tensor:
        pad = ids == 0
        h = self.encode(self.embed(ids), src_key_padding_mask=pad)
        if self.pool == "mean":
            return self.out(h.mean(1))
        if self.pool == "tokens":
            return self.out(h)
        keep = (~pad)[:, : h.shape[1]].unsqueeze(-1)
        return self.out((h * keep).sum(1) / keep.sum(1))


class Rounded(nn.Module):
    """Half precision inside its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.layer(x * 50).float()


def _ids(longest: int) -> Tensor:
    g = torch.Generator().manual_seed(0)
    ids, length = torch.randint(1, 12, (24, 7), generator=g), torch.randint(2, longest, (24,), generator=g)
    ids[torch.arange(7)[None] >= length[:, None]] = 0
    return ids


@pytest.mark.parametrize("longest", [8, 6])  # some fill the width, or none does and positions are cut off
@pytest.mark.parametrize("pool", ["mean", "masked", "tokens"])
@pytest.mark.filterwarnings("ignore")
def test_only_outputs_that_differ_where_they_count_are_told(pool: str, longest: int) -> None:
    torch.manual_seed(0)
    ids = _ids(longest)
    y = torch.arange(24) % 3
    if pool == "tokens":
        y = torch.where(ids == 0, -100, ids % 3)
    model = Encoder(pool).eval()
    task = memspace.Task(model, (ids, y))
    said = task.description.get(FACT, "")
    with torch.no_grad():
        used = model(ids)
    read = model(ids).detach()
    same = used.shape == read.shape and torch.allclose(used, read, atol=1e-4)
    assert bool(said) == (pool == "mean")
    assert same == (pool == "masked")
    assert not said or "set_fastpath_enabled(False)" in said
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.filterwarnings("ignore")
def test_an_audit_gives_the_fact_and_the_outputs_that_have_gradients() -> None:
    torch.manual_seed(0)
    ids, y = _ids(8), torch.arange(24) % 3
    model = Encoder("mean").eval()
    found = memspace.audit(model, (ids, y))
    assert "for " in found.facts[FACT]
    loss = nn.functional.cross_entropy(model(ids), y).item()
    assert found.measurement("generalisation.train_loss").value == pytest.approx(loss, rel=1e-4)


def test_half_precision_inside_a_forward_pass_is_told() -> None:
    torch.manual_seed(0)
    data = (torch.randn(20, 6), torch.arange(20) % 3)
    assert "full precision" in memspace.Task(Rounded().eval(), data).description[FACT]
    assert FACT not in memspace.Task(nn.Linear(6, 3), data).description


def test_the_model_is_left_as_it_was() -> None:
    model = Encoder("mean")
    model.encode.eval()
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    memspace.Task(model, (_ids(8), torch.arange(24) % 3))
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_without_numbers_is_left_to_the_check() -> None:
    with torch.device("meta"):
        model = nn.Linear(6, 3)
    task = memspace.Task(model.eval(), (torch.randn(20, 6), torch.arange(20) % 3))
    assert FACT not in task.description
    with pytest.raises(memspace.MemspaceError, match="holds no numbers"):
        memspace.audit(task)
