"""A process that audits a network whose parameters FSDP2 spread over the team."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from memspace.metric.fisher import build
from memspace.passes.processes import across
from memspace.passes.verify import verified_space
from memspace.task.task import Task


class Residual(nn.Module):
    """Linear layers of their own size, one of them used twice, and a tensor that is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(4, 7), nn.Linear(7, 7), nn.Linear(7, 3, bias=False)
        self.register_buffer("scale", torch.tensor(0.5, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 4) → (B, 3)."""
        h = torch.tanh(self.first(x))
        return self.last(h + self.scale * torch.tanh(self.again(torch.tanh(self.again(h)))))


def matrices(seed: int, shard: bool) -> dict[str, torch.Tensor]:
    """Representation → matrix."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = Residual().double()
    x, y = torch.randn(11, 4, dtype=torch.float64), torch.randint(0, 3, (11,))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    if shard:
        for part in (model.first, model.again):
            fully_shard(part)
        fully_shard(model)
    task = Task(model=model, train=(x, y))
    assert type(task.model) is Residual
    space = verified_space(task)
    out = {r: build(task, space, r, seed=3).to_dense() for r in ("dense", "ekfac", "dual", "implicit")}
    out["flat"] = space.flat(task.model)
    # The user's model is still sharded, and still works.
    after = {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in model.state_dict().items()}
    assert all(torch.equal(before[k], after[k]) for k in before)
    out["outputs"] = model(x).detach()
    return out


def member(rank: int, size: int, seed: int, folder: str) -> None:
    """One process: its results go into the folder."""
    store = dist.FileStore(str(Path(folder) / "store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    with across():
        torch.save(matrices(seed, shard=True), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
